"""Where the time of a run went, which stage held it up, and what would help."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from embedpipe.backbones import BackboneSpec

#: What a user may do about a stage that holds up the rest, whatever is declared.
ADVICE = {
    "read": "bring the source nearer (a local disk, larger files), or read with more --threads",
    "decode": "more cores",
    "resize": "smaller photos, or more cores",
    "copy": "a larger --batch-size",
    "forward": "a smaller backbone",
    "write": "a store on a faster disk",
    "waiting": "close other programs: no stage of this run was at work",
}


@dataclass(frozen=True)
class Bottleneck:
    """What held up a run.

    Parameters
    ----------
    shares : dict of str to float
        Of the loop's wall time, by stage; they add up to 1. ``waiting`` is when no stage worked, ``write`` only when
        the loop waited for the writer, which works beside it.
    stage : str
        The one with the largest share.
    rate : float
        Items a second in the loop.
    limit : float
        Items a second that the stage alone would make; 0 where that cannot be said.
    """

    shares: dict[str, float]
    stage: str
    rate: float
    limit: float

    def __str__(self) -> str:
        shares = ", ".join(f"{name} {share:.0%}" for name, share in self.shares.items() if share >= 0.005)
        alone = f"; {self.stage} alone would make {self.limit:,.0f}/s" if self.limit else ""
        return f"{shares}: {self.rate:,.0f}/s{alone}"

    def advice(self, spec: BackboneSpec, device: str) -> str:
        """Return what would help vectors of a spec on a device."""
        also = []
        if self.stage == "forward":
            also += ["a lower --precision"] * (spec.precision == "fp32") + ["a GPU"] * (device == "cpu")
        if self.stage == "decode" and getattr(spec.preprocessing, "decode", "") == "full":
            also.append("--decode scaled, where photos are large")
        return ", or ".join([ADVICE[self.stage], *also])


def find_bottleneck(seconds: Mapping[str, float], wall: float, items: int, threads: int) -> Bottleneck | None:
    """Divide the wall time of a loop among its stages; None where there was nothing to do.

    Parameters
    ----------
    seconds : mapping of str to float
        By stage: ``read``, ``decode`` and ``resize`` summed over threads; ``copy`` and ``forward``, which take turns;
        ``stall``, in which the loop waited for the writer.
    wall : float
        Seconds of the loop.
    items : int
        How many went through it.
    threads : int
        How many threads prepared items.
    """
    if not items or wall <= 0 or not seconds.get("forward"):
        return None
    alone = {name: seconds.get(name, 0.0) for name in ("copy", "forward")} | {"write": seconds.get("stall", 0.0)}
    ahead = {name: seconds.get(name, 0.0) / threads for name in ("read", "decode", "resize")}
    # What threads do ahead only counts as far as the loop waited for it.
    left = max(0.0, wall - sum(alone.values()))
    total = sum(ahead.values())
    part = min(1.0, left / total) if total else 0.0
    spent = {name: value * part for name, value in ahead.items()} | alone
    spent["waiting"] = max(0.0, wall - sum(spent.values()))
    shares = {name: value / sum(spent.values()) for name, value in spent.items()}
    stage = max(shares, key=lambda name: shares[name])
    busy = {**ahead, **alone}.get(stage, 0.0)
    return Bottleneck(shares, stage, items / wall, items / busy if busy else 0.0)
