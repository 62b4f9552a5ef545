"""The command line, run in this process."""

from __future__ import annotations

from functools import cache

from typer import testing
from typer.testing import CliRunner, Result

from embedpipe.cli import app

# Typer would build all verbs anew for each call, as long as many a verb takes.
testing._get_command = cache(testing._get_command)


def run(*args: object) -> Result:
    """Run ``embedpipe`` with these arguments on a wide terminal."""
    return CliRunner().invoke(app, [str(arg) for arg in args], env={"COLUMNS": "200"})
