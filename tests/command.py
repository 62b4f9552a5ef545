"""The command line, run in this process."""

from __future__ import annotations

from typer.testing import CliRunner, Result

from embedpipe.cli import app


def run(*args: object) -> Result:
    """Run ``embedpipe`` with these arguments on a wide terminal."""
    return CliRunner().invoke(app, [str(arg) for arg in args], env={"COLUMNS": "200"})
