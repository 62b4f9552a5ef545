"""Options of `embedpipe.push` and of the command line's ``push``."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class PushOptions:
    """What is pushed, and what its card says.

    Every field's ``metadata["help"]`` is the help text of the command-line option of the same name.
    """

    license: str | None = field(
        default=None,
        metadata={"help": "Licence for the card, as the hub writes it, such as cc-by-4.0. It is never guessed."},
    )
    private: bool = field(default=False, metadata={"help": "Create the repository as a private one."})
    exclude: tuple[str, ...] = field(
        default=(), metadata={"help": "Column of the store to leave out, such as text. May be given several times."}
    )
    keep_paths: bool = field(
        default=False,
        metadata={"help": "Push the paths of this machine too, which are left out by default."},
    )
