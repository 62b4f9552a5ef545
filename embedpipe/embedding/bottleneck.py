"""Shares of the stages of a run in its wall time, the slowest stage, and advice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from embedpipe._utils.option_names import option
from embedpipe.backbones import BackboneSpec
from embedpipe.statistics.percentages import percent


@dataclass(frozen=True)
class Bottleneck:
    """The slowest stage of a run.

    Parameters
    ----------
    shares : dict of str to float
        Share of the wall time of the loop by stage, with sum 1. ``waiting`` is the time without an active stage.
        ``write`` is the time in which the loop waited for the writer thread.
    stage : str
        The stage with the largest share.
    rate : float
        Items per second in the loop.
    limit : float
        Items per second of that stage alone; 0 if unknown.
    """

    shares: dict[str, float]
    stage: str
    rate: float
    limit: float

    def __str__(self) -> str:
        shares = ", ".join(f"{name} {percent(share, 0)}" for name, share in self.shares.items() if share >= 0.005)
        alone = f"; {self.stage} alone: {self.limit:,.0f}/s" if self.limit else ""
        return f"{shares}: {self.rate:,.0f}/s{alone}"

    def advice(self, spec: BackboneSpec, device: str) -> str:
        """Return what would speed up this stage for a spec on a device."""
        options = []
        if self.stage == "forward":
            options += [f"a lower {option('precision')}"] * (spec.precision == "fp32") + ["a GPU"] * (device == "cpu")
        if self.stage == "decode" and getattr(spec.preprocessing, "decode", "") == "full":
            options.append(f"{option('decode', 'scaled')} for large photos")
        return ", or ".join([stage_advice()[self.stage], *options])


def find_bottleneck(seconds: Mapping[str, float], wall: float, items: int, threads: int) -> Bottleneck | None:
    """Divide the wall time of a loop among its stages. None if no item was embedded.

    Parameters
    ----------
    seconds : mapping of str to float
        Seconds by stage: ``read``, ``decode`` and ``resize``, summed over threads; ``copy`` and ``forward``, which
        alternate; ``stall``, in which the loop waited for the writer.
    wall : float
        Wall time of the loop.
    items : int
        Number of embedded items.
    threads : int
        Number of threads that prepared items.
    """
    if not items or wall <= 0 or not seconds.get("forward"):
        return None
    alone = {name: seconds.get(name, 0.0) for name in ("copy", "forward")} | {"write": seconds.get("stall", 0.0)}
    ahead = {name: seconds.get(name, 0.0) / threads for name in ("read", "decode", "resize")}
    # Work of the threads counts only as far as the loop waited for it.
    left = max(0.0, wall - sum(alone.values()))
    total = sum(ahead.values())
    part = min(1.0, left / total) if total else 0.0
    spent = {name: value * part for name, value in ahead.items()} | alone
    spent["waiting"] = max(0.0, wall - sum(spent.values()))
    shares = {name: value / sum(spent.values()) for name, value in spent.items()}
    stage = max(shares, key=lambda name: shares[name])
    busy = {**ahead, **alone}.get(stage, 0.0)
    return Bottleneck(shares, stage, items / wall, items / busy if busy else 0.0)


def stage_advice() -> dict[str, str]:
    """Return advice by stage, for any backbone and device."""
    return {
        "read": f"move the source to a local disk or into larger files, or use more {option('threads')}",
        "decode": "more cores",
        "resize": "smaller photos, or more cores",
        "copy": f"a larger {option('batch_size')}",
        "forward": "a smaller backbone",
        "write": "a store on a faster disk",
        "waiting": "close other programs, as no stage of this run was active",
    }
