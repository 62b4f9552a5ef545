"""The ledger: every finished fine-tuning against its probe, on this machine, so that later forecasts know them.

A Parquet table in the folder ``ledger`` of the cache, one file a row: processes add to it without waiting for each
other, and the same run is there once. It has no paths, names of data or labels, and never leaves the machine.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path, PurePath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from embedpipe._utils.atomic import whole_file
from embedpipe._utils.cache import cannot_cache, find_cache, open_cache
from embedpipe.backbones.spec import BackboneSpec
from embedpipe.errors import WriteError
from embedpipe.finetuning.advice.forecasting.gain_model import PRETRAININGS, Observed, Setting
from embedpipe.finetuning.advice.forecasting.measurement import expected_variance, observe
from embedpipe.finetuning.advice.forecasting.pretraining import pretraining_of
from embedpipe.report.drawing.wording import counted

PART = "ledger"
#: Providers whose names of networks are names of files or code of the user.
PRIVATE = ("checkpoint", "python")
#: The latest rows that a forecast takes into account.
MOST_ROWS = 200
#: A larger file is not one that embedpipe wrote.
MOST_BYTES = 1 << 16


@dataclass(frozen=True)
class LedgerRow:
    """A finished fine-tuning against its probe.

    Attributes
    ----------
    data : str
        A digest of the rows and their splits: rows of the ledger with the same one are of the same data.
    backbone, modality : str
        The backbone is empty if its name is one of the user's own.
    pretraining : str
        One of `PRETRAININGS`; empty if unknown.
    labels, classes : int
    probe, network : float
        Mean accuracies on the test rows.
    test_rows, seeds : int
    minutes : float
        Of one training.
    date : str
        The day in UTC, such as ``2026-01-31``.
    """

    data: str
    backbone: str
    modality: str
    pretraining: str
    labels: int
    classes: int
    probe: float
    network: float
    test_rows: int
    seeds: int
    minutes: float
    date: str

    @property
    def is_possible(self) -> bool:
        """Whether all values are in range, as they are in rows that embedpipe wrote."""
        counts = self.labels, self.classes, self.test_rows, self.seeds
        shares = self.probe, self.network
        known = self.pretraining in ("", *PRETRAININGS)
        return (
            known
            and all(1 <= count < 1 << 40 for count in counts)
            and all(0 <= share <= 1 for share in shares)
            and math.isfinite(self.minutes)
        )

    def observed(self) -> Observed:
        """Return the row as an observation for the forecast."""
        setting = Setting(self.probe, self.labels, self.classes, self.pretraining or None)
        variance = expected_variance(self.seeds, self.test_rows)
        return observe(setting, self.network, variance, self.test_rows, self.data, self.backbone)


TYPES = {"str": pa.string(), "int": pa.int64(), "float": pa.float64()}
SCHEMA = pa.schema([(field.name, TYPES[str(field.type)]) for field in fields(LedgerRow)])


def data_digest(splits_id: str) -> str:
    """Return the digest by which rows of the same data are known, from the identity of their splits."""
    return hashlib.sha256(splits_id.encode()).hexdigest()[:16]


def ledger_row(spec: BackboneSpec, splits_id: str, **measured: Any) -> LedgerRow:
    """Return a row for today; ``measured`` are the fields from ``labels`` to ``minutes``."""
    private = spec.provider in PRIVATE or PurePath(spec.name).is_absolute() or spec.name.startswith(".")
    return LedgerRow(
        data=data_digest(splits_id),
        backbone="" if private else f"{spec.provider}/{spec.name}",
        modality=spec.modality,
        pretraining=pretraining_of(spec) or "",
        date=datetime.now(UTC).date().isoformat(),
        **measured,
    )


def add_to_ledger(rows: Sequence[LedgerRow]) -> None:
    """Add rows, each as a file of its own. Where the cache cannot be written, one warning says so."""
    folder = open_cache(PART) if rows else None
    if folder is None:
        return
    for row in rows:
        # The same runs with more seeds take the place of those with fewer.
        identity = json.dumps([row.data, row.backbone, row.labels, row.test_rows])
        file = folder / f"{hashlib.sha256(identity.encode()).hexdigest()[:16]}.parquet"
        try:
            with whole_file(file) as part:
                pq.write_table(pa.Table.from_pylist([asdict(row)], SCHEMA), part)
        except WriteError as error:
            cannot_cache(OSError(str(error)))
            return


def read_ledger(without: str) -> tuple[list[LedgerRow], list[str]]:
    """Return the latest rows but those on the data ``without``, and a note if files were ignored."""
    folder = find_cache(PART)
    rows: list[LedgerRow] = []
    ignored = 0
    for file in folder.glob("*.parquet") if folder else ():
        try:
            rows.append(_read_row(file))
        except (OSError, ValueError, pa.ArrowException):
            ignored += 1
    notes = []
    if ignored:
        notes.append(f"{counted(ignored, 'file')} of the ledger in {str(folder)!r} could not be read: ignored")
    others = [row for row in rows if row.data != without]
    return sorted(others, key=lambda row: (row.date, row.data, row.labels))[-MOST_ROWS:], notes


def _read_row(file: Path) -> LedgerRow:
    """Return the row of a file. Raises ValueError or what pyarrow raises if it holds anything else."""
    if file.stat().st_size > MOST_BYTES:
        raise ValueError
    parquet = pq.ParquetFile(file)
    if parquet.metadata.num_rows != 1 or parquet.schema_arrow.remove_metadata() != SCHEMA:
        raise ValueError
    values = parquet.read().to_pylist()[0]
    if None in values.values() or not (row := LedgerRow(**values)).is_possible:
        raise ValueError
    return row
