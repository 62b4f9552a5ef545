"""Running transformers without progress bars, warnings and code from a model's folder."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from importlib.util import find_spec

from embedpipe._utils.importing import import_extra


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress progress bars and warnings of transformers, and code from a model's folder."""
    settings = import_extra("transformers.utils.logging", "text")
    shown, level = settings.is_progress_bar_enabled(), settings.get_verbosity()
    settings.disable_progress_bar()
    settings.set_verbosity_error()
    try:
        with no_remote_code():
            yield
    finally:
        settings.set_verbosity(level)
        if shown:
            settings.enable_progress_bar()


@contextlib.contextmanager
def logged_warnings(name: str) -> Iterator[list[str]]:
    """Collect the warnings that a library logs inside the block, instead of showing them.

    They are collected whatever the program has set: they may say that a model does not load as it was saved.
    """
    messages: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: messages.append(" ".join(record.getMessage().split()))  # type: ignore[method-assign]
    logger = logging.getLogger(name)
    propagate, level, disabled = logger.propagate, logger.level, logging.root.manager.disable
    logger.propagate = False
    logger.setLevel(logging.WARNING)
    logging.disable(min(disabled, logging.INFO))
    logger.addHandler(handler)
    try:
        yield messages
    finally:
        logger.removeHandler(handler)
        logging.disable(disabled)
        logger.setLevel(level)
        logger.propagate = propagate


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
