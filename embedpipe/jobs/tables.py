"""The tables of a job file: what each takes beside the options of its verb."""

from __future__ import annotations

from dataclasses import dataclass, field

from embedpipe.backbones.options import BackboneOptions, ReloadOptions
from embedpipe.cleaning.options import CleanOptions
from embedpipe.clustering.options import ClustersOptions
from embedpipe.embedding.importing.options import ImportOptions
from embedpipe.embedding.options import RunOptions
from embedpipe.evaluation.comparison.options import EvaluateOptions
from embedpipe.heads.options import FitOptions
from embedpipe.sources.options import SourceOptions


@dataclass(frozen=True)
class EmbedTable:
    """What is embedded, and where to."""

    source: str = field(metadata={"help": "Path or URL of a folder, file list, table or tar shards."})
    to: str = field(metadata={"help": "Folder or URL of the store."})
    max_failed: int | str | None = field(
        default=None, metadata={"help": "Exit code 3 only if more items failed: a number, or a share such as 1%."}
    )


@dataclass(frozen=True)
class ImportTable:
    """Which vectors become a store, and where to."""

    vectors: str = field(metadata={"help": "A .npy, .parquet, .csv or .tsv file."})
    to: str = field(metadata={"help": "Folder or URL of the store."})
    ids: str | None = field(default=None, metadata={"help": "A column of the table, or a file with a row for each."})
    labels: str | None = field(default=None, metadata={"help": "A column of the table, or a file with a row for each."})


@dataclass(frozen=True)
class CleanTable:
    """What is looked through, and where the findings are written. Nothing is changed."""

    to: str = field(metadata={"help": "A .html page or a table of the findings."})
    store: str | None = field(default=None, metadata={"help": "The store. Default: that of the job."})
    against: str | None = field(default=None, metadata={"help": "Another store of the same backbone."})
    keep: str | None = field(default=None, metadata={"help": "A table of all ids and why some are not kept."})


@dataclass(frozen=True)
class ClustersTable:
    """What is grouped, and where the clusters are written. Nothing is changed."""

    to: str = field(metadata={"help": "A table of all rows and their clusters."})
    store: str | None = field(default=None, metadata={"help": "The store. Default: that of the job."})
    page: str | None = field(default=None, metadata={"help": "An .html page of the clusters to write."})


@dataclass(frozen=True)
class FitTable:
    """What a head is fitted on, and where it is saved."""

    to: str = field(metadata={"help": "Folder of the head."})
    store: str | None = field(default=None, metadata={"help": "The store. Default: that of the job."})
    head: str | None = field(default=None, metadata={"help": "Name of the head, as in `fit`."})
    mistakes: str | None = field(
        default=None, metadata={"help": "A .html page or a table to write, with the held-out rows that it gets wrong."}
    )


@dataclass(frozen=True)
class EvaluateTable:
    """What is compared, and where the results are written."""

    to: str = field(metadata={"help": "A .json file of the results."})
    stores: tuple[str, ...] = field(default=(), metadata={"help": "The stores. Default: that of the job."})
    heads: tuple[str, ...] = field(default=(), metadata={"help": "Names of heads, as in `evaluate`."})
    splits: str | None = field(default=None, metadata={"help": "A .parquet file of splits; if missing, it is written."})
    protocol: str | None = field(default=None, metadata={"help": "Measure by this published protocol instead."})
    page: str | None = field(default=None, metadata={"help": "An .html page of the results to write."})
    table: str | None = field(default=None, metadata={"help": "A table for a paper to write: .tex or .md, or as data."})


#: The tables in the order in which they run, with the classes of their options. Each may be there several times.
TABLES: dict[str, tuple[type, ...]] = {
    "embed": (EmbedTable, SourceOptions, BackboneOptions, RunOptions),
    "import-vectors": (ImportTable, ImportOptions),
    "clean": (CleanTable, CleanOptions),
    "clusters": (ClustersTable, ClustersOptions, ReloadOptions),
    "fit": (FitTable, FitOptions, ReloadOptions),
    "evaluate": (EvaluateTable, EvaluateOptions),
}
#: Options that name a file or folder, which is relative to the file of the job.
LOCATIONS = (
    *("source", "vectors", "to", "store", "stores", "against", "keep", "mistakes", "splits", "page", "table"),
    *("weights", "frequencies", "allow_root"),
)
#: Options that name a file if they end like one, else a column of a table.
COLUMNS_OR_FILES = ("ids", "labels")
#: The tables that make stores.
MAKE_STORES = ("embed", "import-vectors")
#: Values of locations that name none.
WORDS = ("default", "none")
#: Backbones that are files.
CHECKPOINT = "checkpoint/"
