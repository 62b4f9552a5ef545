"""The group of all verbs: their order in the help, where to start, and wrong arguments as JSON."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup
from typer.exceptions import TyperException

from embedpipe._utils.version import __version__
from embedpipe.cli.running.json_object import JsonObject
from embedpipe.errors import ExitCode

#: The order of the groups in `embedpipe --help`.
VERB_GROUPS = ("Store", "Search", "Learn", "Compare", "Fine-tune", "Machine")

START = f"""\
embedpipe {__version__}: embed a dataset once, then train, search and compare on the stored features.

Start with a folder of images that has a folder for each class:
  embedpipe embed photos --to photos.features
  embedpipe fit photos.features --to photos.head
  embedpipe predict photos.head new_photos --to predictions.csv

Or with a table of texts, here with the columns "body" and "category":
  embedpipe embed messages.csv --text body --label category --to messages.features

  embedpipe --help         lists all verbs
  embedpipe VERB --help    explains one
  embedpipe doctor         checks this machine, and measures how long a job takes"""


class Verbs(TyperGroup):
    """Lists the verbs by group, independent of the import order of their modules."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of the verbs in the order of the help."""
        verbs: dict[str, Any] = dict(self.commands)
        return sorted(verbs, key=lambda name: VERB_GROUPS.index(verbs[name].rich_help_panel))

    def invoke(self, ctx: Any) -> Any:
        """Run a verb. If its arguments are wrong and ``--json`` is among them, print the error as JSON too."""
        arguments = [*ctx._protected_args, *ctx.args]
        try:
            return super().invoke(ctx)
        except TyperException as error:
            if "--json" in arguments:
                JsonObject(arguments[0]).print(ExitCode.REFUSED, error, error.format_message())
            raise
