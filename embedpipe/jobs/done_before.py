"""Whether a step was done before: on these versions of its stores, with these options, by this code.

Beside what a step writes, ``NAME.done`` keeps a hash of what decided it and the SHA-256 of the result, so that a result
which was replaced or edited is made again.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from embedpipe._utils.checksums import file_sha256, read_json, write_json
from embedpipe.evaluation.comparison.cached_results import code_key
from embedpipe.jobs.steps import Step
from embedpipe.store import FeatureStore

#: Ending of the file.
SUFFIX = ".done"


def store_versions(step: Step) -> list[tuple[str, int]]:
    """Return table id and version of each store that a step reads."""
    stores = [FeatureStore(path) for path in step.stores]
    return [(store.table_id, store.version) for store in stores]


def is_done(step: Step, versions: Sequence[tuple[str, int]]) -> bool:
    """Return whether the result of a step is there, made from these versions of the stores."""
    if step.result_file is None:
        return False
    with contextlib.suppress(OSError, ValueError):
        kept = read_json(_file(step))
        same = kept == {"key": _key(step, versions), "result": file_sha256(step.result_file)}
        return same and all(Path(path).is_file() for path in step.written_files)
    return False


def mark_done(step: Step, versions: Sequence[tuple[str, int]]) -> None:
    """Note that a step was done, once its result is written."""
    if step.result_file is not None:
        write_json({"key": _key(step, versions), "result": file_sha256(step.result_file)}, _file(step))


def _file(step: Step) -> Path:
    return Path(f"{step.to}{SUFFIX}")


def _key(step: Step, versions: Sequence[tuple[str, int]]) -> str:
    files = [file_sha256(Path(path)) if Path(path).is_file() else None for path in step.read_files]
    parts = [step.table.verb, step.options(), list(versions), files, _code()]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


@functools.cache
def _code() -> str:
    return code_key([""])  # all of embedpipe
