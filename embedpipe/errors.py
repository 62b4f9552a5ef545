"""The errors that embedpipe raises on purpose, and the record of one failed item.

The number is the exit code of the command line::

    EmbedpipeError                  1   base class of all of these
    ├── UsageError                  2   an option or argument is wrong (also a ValueError)
    ├── MissingExtraError           2   an optional dependency is not installed (also an ImportError)
    ├── SourceError                 2   a folder, list, table or archive cannot be listed
    │   └── DuplicateIdError        2   two items have the same id
    ├── ItemError                   1   one item failed; the run continues and records a Failure
    │   ├── ReadError               1   its bytes cannot be read
    │   ├── DecodeError             1   its bytes are not an image, or text, that can be decoded
    │   └── ForwardError            1   the backbone returned no usable vector for it
    │       └── WorkerDied          1   the process that embedded it died each time
    ├── BackboneError               2   a network cannot be built or run
    │   ├── UnknownBackboneError    2   no provider or network has that name
    │   └── WeightsError            2   the weights are missing, cannot be downloaded or do not fit
    ├── TemporaryError              75  the same call may work later
    │   ├── UnreachableError        75  a storage or server does not answer, or is too busy
    │   └── BusyError               75  another process uses the folder
    ├── WriteError                  1   a file cannot be written, such as on a full disk (also an OSError)
    ├── StoreError                  1   a feature store cannot be read or written
    │   ├── StoreNotFoundError      2   the path holds no feature store
    │   ├── SpecMismatchError       2   the store or head was made by a backbone with another spec
    │   ├── ConcurrentWriteError    75  other writers kept committing first (also a TemporaryError)
    │   └── PruneRefusedError       2   pruning would delete more than half of the rows of a root
    ├── HubError                    1   the Hugging Face hub refuses, or a repository is not what it should be
    └── HeadError                   2   a head cannot be fitted, saved or loaded
        └── TrainingDataError       2   the stored labels or vectors are not usable for fitting (also a ValueError)

A message says what must hold, which value was given, and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from embedpipe._utils.messages.masking import masked
from embedpipe._utils.option_names import command_line as command_line
from embedpipe._utils.option_names import option


class ExitCode(IntEnum):
    """What the command line returns. ``TRY_AGAIN`` is ``EX_TEMPFAIL`` of sysexits.h."""

    DONE = 0
    FAILED = 1
    REFUSED = 2
    PARTLY_FAILED = 3
    TRY_AGAIN = 75
    INTERRUPTED = 130

    @property
    def status(self) -> str:
        """The code in words: ``done``, ``failed``, ``refused``, ``partly failed``, ``try again``, ``interrupted``."""
        return self.name.lower().replace("_", " ")


class EmbedpipeError(Exception):
    """Base class of the errors that embedpipe raises on purpose.

    Attributes
    ----------
    exit_code : int
        What the command line returns for this error.

    Examples
    --------
    >>> import embedpipe
    >>> try:
    ...     embedpipe.load_backbone("timm/resnet50", drop_last=-1)
    ... except embedpipe.EmbedpipeError as error:
    ...     print(type(error).__name__, error.exit_code)
    UsageError 2
    """

    exit_code: int = ExitCode.FAILED

    def __str__(self) -> str:
        return masked(super().__str__())


class UsageError(EmbedpipeError, ValueError):
    """An option or argument is wrong."""

    exit_code = ExitCode.REFUSED


class MissingExtraError(EmbedpipeError, ImportError):
    """An optional dependency is not installed."""

    exit_code = ExitCode.REFUSED


class SourceError(EmbedpipeError):
    """A folder, list, table or archive cannot be listed."""

    exit_code = ExitCode.REFUSED


class DuplicateIdError(SourceError):
    """Two items have the same id."""


class ItemError(EmbedpipeError):
    """One item failed; the run continues. ``stage`` names the step that failed."""

    stage = "item"


class ReadError(ItemError):
    """The bytes of an item cannot be read."""

    stage = "read"


class DecodeError(ItemError):
    """The bytes of an item are not an image, or text, that can be decoded."""

    stage = "decode"


class ForwardError(ItemError):
    """The backbone returned no usable vector for an item."""

    stage = "forward"


class WorkerDied(ForwardError):  # noqa: N818  the name stands in the failures table
    """The worker process died each time that it embedded an item."""


class BackboneError(EmbedpipeError):
    """A network cannot be built or run."""

    exit_code = ExitCode.REFUSED


class UnknownBackboneError(BackboneError):
    """No provider or network has that name."""


class WeightsError(BackboneError):
    """The weights are missing, cannot be downloaded or do not fit the architecture."""


class TemporaryError(EmbedpipeError):
    """The same call may work later."""

    exit_code = ExitCode.TRY_AGAIN


class UnreachableError(TemporaryError):
    """A storage or server does not answer, or is too busy."""


class BusyError(TemporaryError):
    """Another process uses the folder."""


class WriteError(EmbedpipeError, OSError):
    """A file or folder cannot be written, such as on a full disk."""


class StoreError(EmbedpipeError):
    """A feature store cannot be read or written."""


class StoreNotFoundError(StoreError):
    """The path holds no feature store."""

    exit_code = ExitCode.REFUSED


class SpecMismatchError(StoreError):
    """The store or head was made by a backbone with another spec."""

    exit_code = ExitCode.REFUSED


class ConcurrentWriteError(StoreError, TemporaryError):
    """Other writers kept committing first."""

    exit_code = ExitCode.TRY_AGAIN


class PruneRefusedError(StoreError):
    """Pruning would delete more than half of the rows of a root."""

    exit_code = ExitCode.REFUSED


class HubError(EmbedpipeError):
    """The Hugging Face hub refuses, or a repository is not what it should be."""


class HeadError(EmbedpipeError):
    """A head cannot be fitted, saved or loaded."""

    exit_code = ExitCode.REFUSED


class TrainingDataError(HeadError, ValueError):
    """The stored labels or vectors are not usable for fitting."""


@dataclass(frozen=True, slots=True)
class Failure:
    """One item that could not be embedded, and why: a row of the store's failures table.

    ``temporary`` says that its storage did not answer; it is not stored.
    """

    id: str
    uri: str | None
    stage: str
    exception: str
    message: str
    temporary: bool = False

    @classmethod
    def of(cls, id: str, uri: str | None, error: BaseException, stage: str = "item") -> Failure:
        """Make the record of item ``id`` from the exception."""
        stage = error.stage if isinstance(error, ItemError) else stage
        cause = error.__cause__ if isinstance(error, ItemError) and error.__cause__ else error
        return cls(id, uri, stage, type(cause).__name__, masked(str(error)) or type(cause).__name__)

    @property
    def why(self) -> str:
        """The stage, exception and message in one line."""
        return f"{self.stage}: {self.exception}: {self.message}"


def nearest(name: str, known: Iterable[str], cutoff: float = 0.5) -> str:
    """Return ``"; did you mean 'x'?"`` with the most similar known name, or ``""`` if none is similar."""
    # The letters of a name of two, such as id, are in many words.
    known = [each for each in known if len(each) > 2 or abs(len(each) - len(name)) < 2]
    close = difflib.get_close_matches(name, known, n=1, cutoff=cutoff)
    return f"; did you mean {close[0]!r}?" if close else ""


def suggest(name: str, known: Iterable[str]) -> str:
    """Return the end of a message on an unknown name: ``"; did you mean 'x'? Available: x, y"``."""
    names = [*known]
    return f"{nearest(name, names) or '.'} Available: {', '.join(names) or 'none'}"


def require_one_of(name: str, value: object, known: Iterable[str | None]) -> None:
    """Raise UsageError if the option ``name`` has none of the known values."""
    values = [*known]
    if value not in values:
        words = [word for word in values if word is not None]
        raise UsageError(f"{option(name)} must be one of {', '.join(words)}, got {value!r}{nearest(str(value), words)}")
