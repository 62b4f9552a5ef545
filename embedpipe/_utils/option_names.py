"""Names of options in messages, as their reader writes them.

``weights='none'`` in Python, ``--weights none`` on the command line, ``weights = "none"`` in the file of a job.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal

_writing: Literal["Python", "command line", "job file"] = "Python"
#: Options that the environment has set, each with its variable.
_variables: Mapping[str, str] = {}
_NO_VALUE = object()
#: Options that the verb does not have, though a function below it does.
_fixed: ContextVar[frozenset[str]] = ContextVar("_fixed", default=frozenset())
#: Options of a verb that another one calls, and which of them messages have named, as they are written.
_inner: ContextVar[tuple[frozenset[str], set[str]]] = ContextVar("_inner", default=(frozenset(), set()))


@contextmanager
def command_line() -> Iterator[None]:
    """Let messages of the block name options as the command line does."""
    with _written_as("command line"):
        yield


@contextmanager
def job_file() -> Iterator[None]:
    """Let messages of the block name options as the TOML file of a job does."""
    with _written_as("job file"):
        yield


@contextmanager
def set_by(variables: Mapping[str, str]) -> Iterator[None]:
    """Let messages of the block name the environment variables that set these options in their place."""
    global _variables
    before, _variables = _variables, variables
    try:
        yield
    finally:
        _variables = before


@contextmanager
def fixed_options(*names: str) -> Iterator[None]:
    """Let messages of the block not advise to change these options, which the verb does not have.

    Where a message names one all the same, it is a value and no option, and its name stands as in Python.
    """
    token = _fixed.set(_fixed.get() | {*names})
    try:
        yield
    finally:
        _fixed.reset(token)


@contextmanager
def inner_options(*names: str) -> Iterator[set[str]]:
    """Collect how messages of the block write these options, which the verb does not have and the one in it does."""
    written: set[str] = set()
    token = _inner.set((frozenset(names), written))
    try:
        yield written
    finally:
        _inner.reset(token)


def has_option(name: str) -> bool:
    """Return whether a message may advise to change an option."""
    return name not in _fixed.get()


def is_set_by_variable(name: str) -> bool:
    """Return whether the environment has set an option."""
    return name in _variables


@contextmanager
def _written_as(writing: Literal["command line", "job file"]) -> Iterator[None]:
    global _writing
    before, _writing = _writing, writing
    try:
        yield
    finally:
        _writing = before


def in_job_file() -> bool:
    """Return whether messages speak of the TOML file of a job."""
    return _writing == "job file"


def option(name: str, value: object = _NO_VALUE) -> str:
    """Return an option, with a value if one is given, as the reader of a message writes it.

    Parameters
    ----------
    name : str
        The name of the parameter in Python; that of the command line follows from it.
    value : object, optional
        A value to give, or that was given. ``...`` stands for any value.

    Returns
    -------
    str
        In Python ``weights``, ``weights=...``, ``weights='none'``, ``trust=True``, ``channels=[1, 2, 3]``; on the
        command line ``--weights``, ``--weights``, ``--weights none``, ``--trust``, ``--channels 1,2,3``; in the file of
        a job ``weights``, ``weights``, ``weights = "none"``, ``trust = true``, ``channels = [1, 2, 3]``; of an option
        that the environment has set its variable, ``EMBEDPIPE_WEIGHTS``.

    Examples
    --------
    >>> option("weights", "none")
    "weights='none'"
    >>> with command_line():
    ...     option("weights", "none")
    '--weights none'
    """
    written = _written(name, value)
    names, collected = _inner.get()
    if name in names:
        collected.add(written)
    return written


def _written(name: str, value: object) -> str:
    if hasattr(value, "dtype") and hasattr(value, "item"):  # a number of NumPy, which is not imported for it
        value = value.item()
    if name in _variables:
        return _variables[name]
    if _writing == "job file":
        return name if value is _NO_VALUE or value is ... else f"{name} = {json.dumps(value)}"  # is TOML too
    if _writing == "Python" or name in _fixed.get():
        return name if value is _NO_VALUE else f"{name}={'...' if value is ... else repr(value)}"
    flag = f"--{name.replace('_', '-')}"
    if value is _NO_VALUE or value is ... or value is True:
        return flag
    words = [str(part) for part in value] if isinstance(value, list | tuple) else [str(value)]
    return f"{flag} {shlex.quote(','.join(words))}"
