"""`doctor`: check what decides how fast this machine embeds, and measure it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Unpack

from embedpipe._utils.notebook.html_tables import html_table
from embedpipe._utils.option_names import option
from embedpipe._utils.options import build_options, takes_options
from embedpipe._utils.progress import Progress
from embedpipe.backbones.options import BackboneOptions
from embedpipe.diagnosis import machine, software
from embedpipe.diagnosis.findings import Finding, run_probes
from embedpipe.embedding.options import ComputeOptions
from embedpipe.errors import SourceError, UsageError
from embedpipe.sources.opening import open_source
from embedpipe.sources.options import SourceOptions

if TYPE_CHECKING:
    from embedpipe._utils.parameters import DoctorParameters
    from embedpipe.diagnosis.estimate import TimeEstimate

OPTIONS = (SourceOptions, BackboneOptions, ComputeOptions)

PROBES = {
    "devices": machine.devices,
    "cpu": machine.processor,
    "memory": machine.memory,
    "disk": machine.disks,
    "threads": machine.threads,
    "versions": software.versions,
    "decoders": software.decoding,
    "accelerators": software.accelerators,
    "extras": software.extras,
}


@dataclass
class Diagnosis:
    """The result of `doctor`: the state of this machine, and how fast backbones embed on it.

    Attributes
    ----------
    findings : list of Finding
        One for each part of the machine: devices, cpu, memory, disk, threads, versions, decoders, accelerators, extras.
    estimates : list of TimeEstimate
        One for each backbone that was measured.
    not_measured : dict
        Backbone -> why it could not be measured.

    Examples
    --------
    >>> import embedpipe
    >>> diagnosis = embedpipe.doctor(seconds=0)
    >>> [finding.name for finding in diagnosis.findings][:3]
    ['devices', 'cpu', 'memory']
    """

    findings: list[Finding]
    estimates: list[TimeEstimate] = field(default_factory=list)
    not_measured: dict[str, str] = field(default_factory=dict)

    @property
    def warnings(self) -> list[str]:
        """What slows this machine down, each with what to do about it."""
        return [warning for finding in self.findings for warning in finding.warnings]

    @property
    def ok(self) -> bool:
        """Whether every probe worked and every backbone was measured."""
        return all(finding.ok for finding in self.findings) and not self.not_measured

    def __repr__(self) -> str:
        rates = ", ".join(f"{e.backbone}: {e.rate:,.1f} items/s" for e in self.estimates)
        return (
            f"Diagnosis(ok={self.ok}, findings={len(self.findings)}, warnings={len(self.warnings)}, rates={{{rates}}})"
        )

    def _repr_html_(self) -> str:
        rows = [(finding.name, finding.detail) for finding in self.findings]
        rows += [("warning", warning) for warning in self.warnings]
        for estimate in self.estimates:
            speed = f"{estimate.rate:,.1f} items/s on {estimate.device} by {estimate.engine}"
            rows.append((estimate.backbone, speed))
        rows += [(name, f"not measured: {reason}") for name, reason in self.not_measured.items()]
        return html_table("Diagnosis", rows)

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers, strings, lists and dicts."""
        return {**asdict(self), "warnings": self.warnings, "ok": self.ok}


@takes_options(*OPTIONS)
def doctor(
    source: Any = None,
    *,
    backbones: Sequence[str] = (),
    items: int | None = None,
    seconds: float = 10.0,
    progress: bool | None = None,
    **options: Unpack[DoctorParameters],
) -> Diagnosis:
    """Check what this machine has for embedding, and measure how fast it embeds.

    Parameters
    ----------
    source : str, path-like or in-memory data, optional
        The data to embed, as in `embedpipe.embed`; a random sample of it is measured. By default photographs or texts
        of scikit-learn.
    backbones : sequence of str
        Backbones to measure; by default the one that `embed` uses by default.
    items : int, optional
        The size of the job whose hours are estimated; by default that of the source.
    seconds : float
        Approximate duration of the measurement of each backbone, without loading; 0 measures none.
    progress : bool, optional
        As in `embedpipe.embed`.

    Returns
    -------
    Diagnosis
        Its ``findings`` describe the machine, its ``warnings`` say what slows it down, and its ``estimates`` hold the
        measured rates and the hours of larger jobs.

    Raises
    ------
    UsageError
        If an option is wrong.
    SourceError
        If the source cannot be listed.

    Examples
    --------
    >>> import numpy as np
    >>> import embedpipe
    >>> pictures = [np.zeros((64, 64, 3), np.uint8)] * 10
    >>> diagnosis = embedpipe.doctor(pictures, backbones=["timm/test_resnet"], weights="none", seconds=0.1)
    >>> (estimate,) = diagnosis.estimates
    >>> estimate.backbone, list(estimate.hours)
    ('timm/test_resnet.r160_in1k', [10])
    """
    if not 0 <= seconds < float("inf") or (items is not None and items < 1):
        raise UsageError(f"{option('seconds')} must be >= 0 and {option('items')} >= 1, got {seconds} and {items}")
    source_options, backbone_options, compute = build_options(OPTIONS, options)
    if source_options.text is not None and backbone_options.modality is None:
        backbone_options = replace(backbone_options, modality="text")
    show = Progress(progress)
    result = Diagnosis(run_probes(PROBES))
    for name in (backbones or [backbone_options.backbone]) if seconds else ():
        chosen = replace(backbone_options, backbone=name)
        try:
            # These imports load torch; if it is broken, the error is part of the result.
            from embedpipe.backbones import resolve_options
            from embedpipe.diagnosis.estimate import estimate

            chosen = resolve_options(chosen)
            listing = None if source is None else open_source(source, source_options, chosen.modality or "image")
            result.estimates.append(estimate(chosen, compute, listing, items, seconds, show))
        except SourceError:
            raise
        except Exception as error:  # the other backbones are still measured
            result.not_measured[chosen.backbone or "default"] = f"{type(error).__name__}: {error}"
    return result
