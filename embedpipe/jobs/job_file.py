"""Reading the TOML file of a job: every table and option is checked before anything runs."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

from embedpipe._utils.option_names import job_file, option, set_by
from embedpipe._utils.options import build_options
from embedpipe.errors import UsageError, suggest
from embedpipe.jobs.tables import CHECKPOINT, COLUMNS_OR_FILES, LOCATIONS, TABLES, WORDS
from embedpipe.sources.file_types import suffix_of
from embedpipe.sources.locations import is_url, require_no_secret
from embedpipe.sources.vectors.vector_rows import FILES_OF_VALUES

#: What looks like a variable of the environment.
_VARIABLE = re.compile(r"\$\{?[A-Za-z_]")


@dataclass(frozen=True)
class Table:
    """One table of a job file, with its options checked.

    Attributes
    ----------
    verb : str
        One of `TABLES`, such as ``embed``.
    place : str
        Where it stands, for messages: ``nightly.toml, [fit]``.
    values : dict
        Its options, with locations relative to the working folder.
    options : tuple of dataclasses
        The same with all defaults, by the classes of `TABLES`.
    variables : dict
        The options that the environment has set, with their variables.
    """

    verb: str
    place: str
    values: dict[str, Any]
    options: tuple[Any, ...]
    variables: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Outside:
    """Options of tables that do not stand in the file, by verb and name.

    Attributes
    ----------
    given : mapping
        Values that go before those of the file.
    environment : mapping
        Values for what the file leaves out.
    variables : mapping
        The variable of each option of the environment.
    """

    given: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    environment: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)


def read_job(path: str | Path, outside: Outside | None = None) -> list[Table]:
    """Return the tables of a job file, in the order in which they run.

    Raises
    ------
    UsageError
        If the file is missing or no TOML, or a table or option is unknown or has a wrong value. The message names the
        file and the table.
    """
    path, outside = Path(path), outside or Outside()
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8-sig"))  # editors of Windows begin with a mark
    except OSError as error:
        raise UsageError(f"cannot read the job file {str(path)!r}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} must be a TOML file in UTF-8: {error}") from error
    for name, value in values.items():
        if name not in TABLES:
            if not isinstance(value, dict | list):
                raise UsageError(f"{path}: {name} must stand below the name of a table, such as [{next(iter(TABLES))}]")
            raise UsageError(f"{path}: unknown table [{name}]{suggest(name, TABLES)}")
    folder = _folder(path)
    tables = [
        _read_table(verb, table, _place(path, verb, number, count), folder, outside)
        for verb in TABLES
        for number, count, table in _tables_of(path, verb, values.get(verb, []))
    ]
    if not tables:
        raise UsageError(f"{path} must have a table: one of {', '.join(f'[{verb}]' for verb in TABLES)}")
    return tables


def _folder(path: Path) -> Path:
    """Return the folder to which paths in a job file are relative: its own, or the working folder for a pipe.

    A shell that gives a text as standard input may put it into a file without a name, below the same path.
    """
    above = os.path.realpath(path.parent)
    is_stream = not path.is_file() or above == "/dev" or above.startswith("/proc/")
    return Path() if is_stream else path.parent


def _tables_of(path: Path, verb: str, value: Any) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """Yield number, count and values of the tables of a name: ``[fit]``, or ``[[fit]]`` several times."""
    tables = value if isinstance(value, list) else [value]
    for number, table in enumerate(tables, 1):
        if not isinstance(table, dict):
            raise UsageError(f"{path}: {verb} must be a table, [{verb}], got {value!r:.80}")
        yield number, len(tables), table


def _place(path: Path, verb: str, number: int, count: int) -> str:
    return f"{path}, [{verb}]" if count == 1 else f"{path}, [[{verb}]] number {number}"


def _read_table(verb: str, written: Mapping[str, Any], place: str, folder: Path, outside: Outside) -> Table:
    given = outside.given.get(verb, {})
    shared = {f.name for cls in TABLES[verb][1:] for f in fields(cls)}
    rest = shared - written.keys() - given.keys()
    environment = {name: value for name, value in outside.environment.get(verb, {}).items() if name in rest}
    variables = {name: outside.variables[name] for name in environment}
    try:
        with job_file(), set_by(variables):
            for name, value in written.items():
                _require_plain(name, value)
            values = {
                **environment,
                **{name: _located(name, value, folder) for name, value in written.items()},
                **given,
            }
            required = [f.name for f in fields(TABLES[verb][0]) if f.default is MISSING]
            missing = [name for name in required if name not in values]
            # Unknown names come first: one may be what is missing.
            options = build_options(TABLES[verb], dict.fromkeys(missing, "") | values)
            if missing:
                raise UsageError(f"{option(missing[0])} is missing")
            return Table(verb, place, values, options, variables)
    except UsageError as error:
        raise UsageError(f"{place}: {error}") from error


def _require_plain(name: str, value: Any) -> None:
    """Refuse what names a variable or holds a secret: values are taken as they are, and a file is shown and copied."""
    for text in value if isinstance(value, list) else [value]:
        if not isinstance(text, str):
            continue
        require_no_secret(text, name)
        if _VARIABLE.search(text):
            raise UsageError(
                f"{name} must not name a variable, got {text!r}: values are taken as they are; to set an option from "
                f"the environment, leave {name} out of the file"
            )


def _located(name: str, value: Any, folder: Path) -> Any:
    """Return the value of an option, with a path relative to the working folder where it was relative to ``folder``."""
    if isinstance(value, list):
        return [_located(name, item, folder) for item in value]
    if not isinstance(value, str):
        return value
    if name == "backbone" and value.startswith(CHECKPOINT):
        return CHECKPOINT + _located("weights", value.removeprefix(CHECKPOINT), folder)
    is_file = name in COLUMNS_OR_FILES and suffix_of(value) in FILES_OF_VALUES
    if not (is_file or name in LOCATIONS) or is_url(value) or (name == "weights" and value in WORDS):
        return value
    if not value or "\0" in value:  # an empty one would be the folder of the file
        raise UsageError(f"{name} must be a path or URL, got {value!r}")
    return os.path.normpath(folder / value)
