"""What this machine has for embedding, what is missing, and how long a job would take on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedpipe.lazy import lazy_names

if TYPE_CHECKING:
    from embedpipe.doctor.diagnosis import Diagnosis, diagnose
    from embedpipe.doctor.estimate import Estimate
    from embedpipe.doctor.findings import Finding

_HOME = {
    "Diagnosis": "diagnosis",
    "Estimate": "estimate",
    "Finding": "findings",
    "diagnose": "diagnosis",
}

__all__ = ["Diagnosis", "Estimate", "Finding", "diagnose"]

__getattr__, __dir__ = lazy_names(__name__, _HOME)
