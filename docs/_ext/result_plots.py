"""Plots of the benchmark page, drawn from the tables of RESULTS.md when the docs are built."""

from __future__ import annotations

from pathlib import Path


def write(results: Path, folder: Path) -> None:
    """Draw the plots."""
