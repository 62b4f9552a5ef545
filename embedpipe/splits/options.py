"""The options ``folds`` and ``repeats`` of a cross-validation."""

from embedpipe._utils.option_names import option
from embedpipe.errors import UsageError


def check_folds(folds: int, repeats: int) -> None:
    """Raise UsageError for numbers of folds and repeats that are too small."""
    if folds < 2 or repeats < 1:
        raise UsageError(f"{option('folds')} must be >= 2 and {option('repeats')} >= 1, got {folds!r} and {repeats!r}")
