"""The ``embedpipe`` command."""

from embedpipe.cli import doctor as doctor  # registers its verb
from embedpipe.cli import learning as learning  # registers its verbs
from embedpipe.cli.app import app, main

__all__ = ["app", "main"]
