"""Running transformers without progress bars, warnings and code from a model's folder."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from importlib.util import find_spec

from embedpipe._utils.importing import import_extra


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress progress bars and warnings of transformers, and code from a model's folder."""
    logging = import_extra("transformers.utils.logging", "text")
    shown, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        with no_remote_code():
            yield
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()


@contextlib.contextmanager
def no_remote_code() -> Iterator[None]:
    """Let transformers refuse code that a model's folder names, instead of asking on the terminal."""
    if find_spec("transformers") is None:
        yield
        return
    loader = import_extra("transformers.dynamic_module_utils", "text")
    timeout = loader.TIME_OUT_REMOTE_CODE
    loader.TIME_OUT_REMOTE_CODE = 0
    try:
        yield
    finally:
        loader.TIME_OUT_REMOTE_CODE = timeout
