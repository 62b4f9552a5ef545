"""Options of `embedpipe.view` and `embedpipe.serve`, and of the command line's verbs."""

from __future__ import annotations

from dataclasses import dataclass, field

from embedpipe._utils.option_names import option
from embedpipe.errors import UsageError


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """Where a server listens.

    Every field's ``metadata["help"]`` is the help text of the command-line option of the same name.
    """

    host: str = field(
        default="127.0.0.1",
        metadata={
            "help": "Address to listen on. Others than this machine's own need a token, and no encryption is used."
        },
    )
    port: int | None = field(
        default=None, metadata={"help": "Port to listen on. Default: 8700, or the next that is free."}
    )

    def __post_init__(self) -> None:
        if self.port is not None and not 0 <= self.port <= 65535:
            raise UsageError(f"{option('port')} must be 0 to 65535, got {self.port}")
        if not self.host:
            raise UsageError(f"{option('host')} must be an address such as 127.0.0.1, got ''")


@dataclass(frozen=True, slots=True)
class ViewOptions(ServeOptions):
    """What a page shows, and what it may do."""

    layer: str | None = field(
        default=None,
        metadata={"help": "The layer to compare by, where the store has several; a+b joins two end to end."},
    )
    edit: bool = field(
        default=False, metadata={"help": "Allow the page to change labels and exclude items; it then needs a token."}
    )
    no_browser: bool = field(default=False, metadata={"help": "Print the address, and open no browser."})
