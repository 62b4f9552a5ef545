"""The result of one probe of the machine, in words and as values; a probe that fails gives a result as well."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Finding:
    """The state of one part of the machine.

    Attributes
    ----------
    name : str
        The part: ``cpu``, ``memory`` and so on.
    detail : str
        The state in words.
    values : dict
        The same as plain numbers, strings, lists and dicts.
    warnings : tuple of str
        What slows this machine down, each with what to do about it.
    ok : bool
        False if the probe failed; ``detail`` says why.
    """

    name: str
    detail: str
    values: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    ok: bool = True


def run_probes(probes: Mapping[str, Callable[[], Finding]]) -> list[Finding]:
    """Run each probe; for one that raises, the Finding has ``ok=False`` and the error."""
    findings = []
    for name, probe in probes.items():
        try:
            findings.append(probe())
        except Exception as error:  # any error of a probe is a result for the user
            findings.append(Finding(name, f"the probe failed: {type(error).__name__}: {error}", ok=False))
    return findings
