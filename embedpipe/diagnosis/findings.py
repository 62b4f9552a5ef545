"""What one look at the machine found, in words and as values; a look that fails is a finding, too."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Finding:
    """What is known of one part of the machine.

    Attributes
    ----------
    name : str
        Of the part: ``cpu``, ``memory``...
    detail : str
        For people to read.
    values : dict
        The same for programs: plain numbers, strings, lists and dicts.
    warnings : tuple of str
        What keeps this machine from its best, each with what to do about it.
    ok : bool
        False where it could not be found out; ``detail`` says why.
    """

    name: str
    detail: str
    values: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    ok: bool = True


def look(probes: Mapping[str, Callable[[], Finding]]) -> list[Finding]:
    """Run each probe; one that raises gives a Finding that says so."""
    found = []
    for name, probe in probes.items():
        try:
            found.append(probe())
        except Exception as error:  # whatever is broken here is what the user wants to read of
            found.append(Finding(name, f"could not be found out: {type(error).__name__}: {error}", ok=False))
    return found
