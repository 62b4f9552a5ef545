"""The group of all verbs: their order in the help, where to start, and wrong arguments as JSON."""

from __future__ import annotations

import difflib
import os
from typing import Any

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from embedpipe._utils.version import __version__
from embedpipe.cli.running.environment import add_variable, is_from_environment
from embedpipe.cli.running.event_lines import asks_for_events, event_lines, log_error
from embedpipe.cli.running.json_object import JsonObject
from embedpipe.cli.running.plain_text import plain_output
from embedpipe.errors import ExitCode

#: The order of the groups in `embedpipe --help`.
VERB_GROUPS = ("Store", "Clean", "Search", "Learn", "Compare", "Fine-tune", "Jobs", "Machine")

#: The variables that ask for what ``--log`` and ``--json`` do.
LOG, JSON = "EMBEDPIPE_LOG", "EMBEDPIPE_JSON"

#: Similarity of an option to a wrong one, as `difflib` measures it, from which it is suggested.
CLOSE = 0.8

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

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a verb whose options may be set by the environment.

        Its help shows no type for a switch, and one value's type for an option that is given again.
        """
        command: Any = super().get_command(ctx, cmd_name)
        for parameter in [] if command is None else command.get_params(ctx):
            add_variable(parameter)
            shown = str(parameter.display_type(ctx))
            if parameter.param_type_name == "option" and parameter.metavar is None:
                if shown == "<bool>":
                    parameter.metavar = ""
                elif shown.startswith("<list["):
                    parameter.metavar = f"<{shown.removeprefix('<list[').removesuffix(']>')}>..."
        return command

    def invoke(self, ctx: Any) -> Any:
        """Run a verb. If its arguments are wrong and ``--json`` is among them, print the error as JSON too."""
        arguments = [*ctx._protected_args, *ctx.args]
        try:
            return super().invoke(ctx)
        except TyperException as error:
            if hasattr(error, "possibilities"):  # there is no such option
                self._name_verbs(ctx, error)
            option = getattr(error, "param", None)
            if option is not None and is_from_environment(error.ctx, option):  # type: ignore[attr-defined]
                error.param_hint = option.envvar  # type: ignore[attr-defined]
            if "--json" in arguments or os.environ.get(JSON, "").lower() in ("1", "true", "yes", "on"):
                JsonObject(arguments[0]).print(ExitCode.REFUSED, error, error.format_message())
            if asks_for_events(arguments) or os.environ.get(LOG) == "json":
                with plain_output(), event_lines(arguments[0]):
                    log_error(error, ExitCode.REFUSED, message=error.format_message())
                    raise typer.Exit(ExitCode.REFUSED) from error
            raise

    def _name_verbs(self, ctx: Any, error: Any) -> None:
        """Add the verbs that have an unknown option, and leave out suggestions that are far from it."""
        name = error.option_name
        having = [
            verb
            for verb in self.list_commands(ctx)
            if any(name in parameter.opts for parameter in self.get_command(ctx, verb).params)
        ]
        if having:
            error.message += f"; {', '.join(having)} {'has' if len(having) == 1 else 'have'} it"
        error.possibilities = difflib.get_close_matches(name, error.possibilities or [], cutoff=CLOSE)
