"""`doctor`: look at everything that decides how fast this machine embeds, and measure it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Unpack

from embedpipe._utils.options import build_options, takes_options
from embedpipe._utils.progress import Progress
from embedpipe.backbones.options import BackboneOptions
from embedpipe.diagnosis import machine, software
from embedpipe.diagnosis.findings import Finding, look
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
    """What `doctor` found.

    Attributes
    ----------
    findings : list of Finding
        One for each part of the machine.
    estimates : list of TimeEstimate
        One for each backbone that could be measured.
    not_measured : dict
        Backbone -> why it could not be.
    """

    findings: list[Finding]
    estimates: list[TimeEstimate] = field(default_factory=list)
    not_measured: dict[str, str] = field(default_factory=dict)

    @property
    def warnings(self) -> list[str]:
        """What keeps this machine from its best, and what to do about it."""
        return [warning for finding in self.findings for warning in finding.warnings]

    @property
    def ok(self) -> bool:
        """Whether everything could be looked at and measured."""
        return all(finding.ok for finding in self.findings) and not self.not_measured

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
    """Look at this machine, and measure how fast it embeds.

    Parameters
    ----------
    source : str, path-like or in-memory data, optional
        What would be embedded, as `embedpipe.embed` takes it: a random sample of it is. Without it photographs, or
        texts, that come with scikit-learn.
    backbones : sequence of str
        Which to measure; by default that which `embed` would take.
    items : int, optional
        Of the job to tell the hours of; by default as many as the source has.
    seconds : float
        About how long to measure each backbone, beyond loading it; 0 measures none.
    progress : bool, optional
        As in `embedpipe.embed`.
    **options
        Fields of `SourceOptions`, `BackboneOptions` and `ComputeOptions`, as `embedpipe.embed` takes them.

    Raises
    ------
    UsageError
        If an option is wrong.
    SourceError
        If the source cannot be listed.

    Examples
    --------
    >>> from embedpipe.diagnosis.doctor import doctor
    >>> print(doctor("photos/", backbones=["timm/resnet50"]).estimates[0].rate)  # doctest: +SKIP
    """
    if not 0 <= seconds < float("inf") or (items is not None and items < 1):
        raise UsageError(f"seconds={seconds} and items={items}: neither may be negative, nor items 0")
    source_options, backbone_options, compute = build_options(OPTIONS, options)
    if source_options.text is not None and backbone_options.modality is None:
        backbone_options = replace(backbone_options, modality="text")
    show = Progress(progress)
    result = Diagnosis(look(PROBES))
    for name in (backbones or [backbone_options.backbone]) if seconds else ():
        asked = replace(backbone_options, backbone=name)
        try:
            # torch is loaded by this, and a broken one is what a user should read of.
            from embedpipe.backbones import resolve_options
            from embedpipe.diagnosis.estimate import estimate

            asked = resolve_options(asked)
            listing = None if source is None else open_source(source, source_options, asked.modality or "image")
            result.estimates.append(estimate(asked, compute, listing, items, seconds, show))
        except SourceError:
            raise
        except Exception as error:  # one backbone that does not work hides nothing of the others
            result.not_measured[asked.backbone or "default"] = f"{type(error).__name__}: {error}"
    return result
