"""The options ``folds`` and ``repeats`` of a cross-validation."""

from numbers import Integral

from embedpipe._utils.option_names import option
from embedpipe.errors import UsageError


def check_folds(folds: int, repeats: int) -> None:
    """Raise UsageError for numbers of folds and repeats that are too small or no integers."""
    if not (isinstance(folds, Integral) and isinstance(repeats, Integral)):
        raise UsageError(f"{option('folds')} and {option('repeats')} must be integers, got {folds!r} and {repeats!r}")
    if folds < 2 or repeats < 1:
        raise UsageError(f"{option('folds')} must be >= 2 and {option('repeats')} >= 1, got {folds!r} and {repeats!r}")
