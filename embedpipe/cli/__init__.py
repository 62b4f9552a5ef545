"""The command line; it holds no logic."""

from embedpipe.cli.app import main

__all__ = ["main"]
