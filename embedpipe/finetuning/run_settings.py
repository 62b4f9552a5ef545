"""What the results of a run depend on, by name: a run that does not continue another says which settings differ."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from embedpipe.errors import UsageError
from embedpipe.finetuning.options import FineTuneOptions
from embedpipe.finetuning.split_rows import SplitRows
from embedpipe.store import FeatureStore

#: Most settings that a message names.
SHOWN = 4
#: Hexadecimal digits of the digests of data.
DIGITS = 16


def run_settings(store: FeatureStore, split: SplitRows, options: FineTuneOptions, **more: Any) -> dict[str, Any]:
    """Return the settings of a run as plain values: the options, and digests of backbone, items, labels and splits.

    Runs with the same settings give the same result.
    """
    parts = (split.train, split.validation, split.test, split.shifted)
    values = {
        **dataclasses.asdict(options),
        "backbone": f"{store.spec.provider}/{store.spec.name}, {store.spec.fingerprint()[:DIGITS]}",
        f"{store.spec.modality}s": f"{len(split.ids):,}, {digest(split.ids.to_pylist(), split.hashes)}",
        "labels": f"{len(split.classes):,} classes, {digest(split.classes.tolist(), split.y)}",
        "splits": f"{' + '.join(str(len(part)) for part in parts[:3])} rows, {digest(*parts)}",
        **more,
    }
    return dict(json.loads(json.dumps(values)))


def digest(*values: npt.NDArray[Any] | list[Any]) -> str:
    """Return the first digits of the SHA-256 of arrays and lists."""
    result = hashlib.sha256()
    for value in values:
        is_array = isinstance(value, np.ndarray)
        result.update(np.ascontiguousarray(value).tobytes() if is_array else json.dumps(value).encode())
    return result.hexdigest()[:DIGITS]


def require_same(earlier: Any, now: Mapping[str, Any], place: str, remedy: str) -> None:
    """Raise UsageError if settings differ from those of an earlier run; the message names them with both values.

    Parameters
    ----------
    earlier : dict
        Read from a file, so it may be anything.
    now : dict
    place, remedy : str
        What was made by the earlier run, and what to do.
    """
    if earlier == now:
        return
    if not isinstance(earlier, dict):
        raise UsageError(f"{place} has no readable settings: {remedy}")
    names = [name for name in (*now, *(earlier.keys() - now.keys())) if earlier.get(name) != now.get(name)]
    shown = "; ".join(f"{name} {_value(earlier.get(name))} then, {_value(now.get(name))} now" for name in names[:SHOWN])
    more = f"; and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    raise UsageError(f"{place} was made with other settings ({shown}{more}): {remedy}")


def _value(value: Any) -> str:
    return "none" if value is None else f"{value!s:.60}"
