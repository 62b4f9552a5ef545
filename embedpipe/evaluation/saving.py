"""Results of evaluations as JSON files, with the version of their format and a checksum."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pyarrow as pa

from embedpipe._utils.checksums import write_json
from embedpipe._utils.folder_kinds import check_file
from embedpipe._utils.option_names import option
from embedpipe._utils.version import __version__
from embedpipe.errors import UsageError
from embedpipe.evaluation.records import to_record

#: Version of the format, which increases when a file of an earlier version can no longer be read.
FORMAT = 1
#: With more predicted values than this (rows times classes), a file holds no predictions: they would be most of it.
MOST_VALUES = 5_000_000


def check_results(to: str | Path) -> Path:
    """Return the path of a file of results; raise UsageError without .json at its end, and what `check_file` does."""
    if Path(to).suffix.lower() != ".json":
        raise UsageError(f"the name of saved results must end in .json, got {str(to)!r}")
    return check_file(to)


def save_results(kind: str, results: Any, to: str | Path) -> list[str]:
    """Write the dataclass of an evaluation as JSON; return remarks for people.

    Parameters
    ----------
    kind : str
        What `embedpipe.load_evaluation` makes of it.
    results : dataclass
        It may have a table ``predictions``.
    to : str or path-like

    Raises
    ------
    UsageError
        If the name does not end in ``.json``.
    WriteError
        If the file cannot be written.
    """
    to, notes = check_results(to), []
    predictions = getattr(results, "predictions", None)
    if predictions is not None and count_values(predictions) > MOST_VALUES:
        results = dataclasses.replace(results, predictions=pa.table({}))
        notes.append(
            f"the {predictions.num_rows:,} predictions are left out: write them as a table ({option('predictions')})"
        )
    write_json({"format": FORMAT, "embedpipe": __version__, "kind": kind, "results": to_record(results)}, to)
    return notes


def count_values(predictions: pa.Table) -> int:
    """Return the number of values of a table of predictions, those of lists included."""
    lists = [column for column in predictions.columns if pa.types.is_list(column.type)]
    return int(predictions.num_rows + sum(len(chunk.values) for column in lists for chunk in column.chunks))
