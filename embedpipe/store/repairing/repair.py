"""`repair`: go back to what is whole in a damaged store."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from embedpipe._utils.atomic import names_file
from embedpipe._utils.folder_kinds import check_name, no_store
from embedpipe._utils.machine.permissions import closed, first_closed
from embedpipe._utils.messages.counting import counted
from embedpipe._utils.progress import Progress
from embedpipe.errors import StoreError, StoreNotFoundError
from embedpipe.sources.locations import local_path
from embedpipe.store.data_files import DATA_FILE, DataFile, removal, table_path
from embedpipe.store.delta_log import Entry, LocalLog
from embedpipe.store.id_index import in_id_order
from embedpipe.store.keyed_table import CommitPlan, KeyedTable
from embedpipe.store.repairing.damage import as_on_disk, find_damage
from embedpipe.store.repairing.log import keep_aside, mend_log

#: Folder in a store for damaged files of its log. Readers and vacuum ignore folders that begin with an underscore.
ASIDE = "_damaged"


@dataclass(frozen=True)
class RepairReport:
    """Result of `repair`.

    Attributes
    ----------
    store : str
        Path of the store.
    version, rows : int
        The version after the repair, and its rows; version -1 if nothing had been committed.
    lost : int
        Rows that the next `embed` embeds again. Labels and columns that were set later must be set again.
    restored : int
        Rows of damaged files that were taken from the files which these had replaced, with their earlier labels.
    done : tuple of str
        What was done, a sentence each. Empty if nothing was damaged.
    """

    store: str
    version: int
    rows: int
    lost: int
    restored: int
    done: tuple[str, ...]


def repair(store: str | Path, *, progress: bool | None = None) -> RepairReport:
    """Go back to what is whole in a store that a power cut, a disk or another program damaged.

    Entries of the log that cannot be read are undone, files that are missing or damaged are dropped, and ids that occur
    twice keep their newest row. Everything else stays. Run it while nothing else writes to the store. What was lost is
    embedded again by the next `embedpipe.embed`.

    Parameters
    ----------
    store : str or path-like
        Folder or URL of the store. The log is repaired on local disks only.
    progress : bool, optional
        Show progress; by default in a notebook and on a terminal (standard error).

    Returns
    -------
    RepairReport
        What was done, and how many rows were lost.

    Raises
    ------
    StoreNotFoundError
        There is no store at the path.
    StoreError
        No version is whole.
    WriteError
        A file cannot be written, such as on a full disk. Nothing that is whole is lost: run it again with room.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> import embedpipe
    >>> photos = np.zeros((2, 32, 32, 3), np.uint8)
    >>> store = embedpipe.embed(photos, tempfile.mkdtemp(), backbone="torchvision/resnet18", weights="none")
    >>> embedpipe.repair(store.path).done
    ()
    """
    path = table_path(store)
    folder = local_path(path)
    if folder is not None and (place := first_closed(folder)):  # it is not damaged, and its rows are not lost
        raise StoreError(f"cannot repair {path!r}: {closed(place)}")
    if folder is not None and not (check_name(folder) / "_delta_log").is_dir():
        raise StoreNotFoundError(no_store(path))
    with names_file(Path(path)):
        done: list[str] = []
        try:
            if folder is not None:
                done += mend_log(LocalLog(Path(folder)), Path(folder, ASIDE))
                if not Path(folder, "_delta_log").is_dir():
                    return RepairReport(path, -1, 0, 0, 0, tuple(done))
            table = KeyedTable(path)
        except StoreError as error:
            why = str(error).split(": run `embedpipe repair")[0]
            raise StoreError(f"{path!r} cannot be repaired: {why}. Embed into a new store") from error
        done += _add_lost_columns(table)
        lost, restored, words = _mend_files(table, Progress(progress))
        done += words + _drop_repeats(table)
        if folder is not None:
            done += _mend_failures(Path(folder))
        return RepairReport(path, table.version, len(table), lost, restored, tuple(done))


def _add_lost_columns(table: KeyedTable) -> list[str]:
    """Add the columns that whole files hold and the log has lost."""
    lost: dict[str, pa.Field] = {}
    for file in table.files:
        if table.log and as_on_disk(table.log.table, file.path):
            for field in pq.read_schema(table.log.table / file.path):
                if field.name not in table.schema.names:
                    lost[field.name] = field
    if lost:
        table.add_columns(pa.schema(lost.values()))
    return [f"columns {sorted(lost)} are in the files and were not in the log: added"] if lost else []


def _mend_files(table: KeyedTable, progress: Progress) -> tuple[int, int, list[str]]:
    """Drop missing and damaged files, and restore their rows from the files that they had replaced."""
    damaged = {}
    with progress.step("checking files", len(table.files), "files") as advance:
        for file, why in find_damage(table):
            if why:
                damaged[file] = why
            advance()
    if not damaged:
        return 0, 0, []

    def plan() -> CommitPlan[int]:
        whole = [file for file in table.files if file not in damaged]
        known = pa.chunked_array([table.file_ids(file) for file in whole], pa.string())
        parts = []
        for before in _replaced_by(table, damaged):
            rows = table.read_file(before)
            rows = rows.filter(pc.invert(pc.is_in(rows.column("id"), value_set=known.combine_chunks())))
            known = pa.chunked_array([*known.chunks, *rows.column("id").chunks], pa.string())
            parts.append(rows)
        restored = in_id_order(pa.concat_tables([table.schema.empty_table(), *parts]))
        return table.write(restored), [removal(file) for file in damaged], restored.num_rows

    restored = table.commit(plan, {"embedpipe.operation": "repair"})
    words = [f"file {file.path!r} is dropped: {why}" for file, why in damaged.items()]
    if restored:
        words.append(
            f"as in the files that these had replaced: {counted(restored, 'row')}; label or remove again what was since"
        )
    return sum(file.rows for file in damaged) - restored, restored, words


def _replaced_by(table: KeyedTable, damaged: dict[DataFile, str]) -> list[DataFile]:
    """Return the whole files that the commits of the damaged ones removed, if they are still there."""
    if table.log is None:
        return []
    paths = {file.path for file in damaged}
    candidates: dict[str, DataFile] = {}
    for number in range(table.version, -1, -1):
        if not table.log.entry(number).exists():
            break
        entry = Entry(table.log.entry(number).read_bytes())
        if paths & {str(add.get("path")) for add in entry.named("add")}:
            for remove in entry.named("remove"):
                name = str(remove.get("path"))
                if DATA_FILE.fullmatch(name) and (file := as_on_disk(table.log.table, name)):
                    candidates[name] = file
    return [file for file, why in find_damage(table, candidates.values()) if not why]


def _drop_repeats(table: KeyedTable) -> list[str]:
    """Keep the newest row of each id."""

    def plan() -> CommitPlan[int]:
        times = {file: table.fs.get_file_info(f"{table.base}/{file.path}").mtime_ns or 0 for file in table.files}
        known = pa.array([], pa.string())
        stale: list[tuple[DataFile, pa.Array]] = []
        for file in sorted(table.files, key=lambda each: -times[each]):
            ids = table.file_ids(file)
            first = np.zeros(len(ids), bool)
            first[np.unique(np.asarray(ids.to_pylist(), object), return_index=True)[1]] = True
            again = pc.or_(pc.is_in(ids, value_set=known), pa.array(~first))
            if pc.any(again).as_py():
                stale.append((file, again))
            known = pa.concat_arrays([known, ids])
        return table.without(stale)

    dropped = table.commit(plan, {"embedpipe.operation": "repair"})
    return [f"dropped, as a newer row has the same id: {counted(dropped, 'row')}"] if dropped else []


def _mend_failures(folder: Path) -> list[str]:
    """Repair the table of failures, or put it aside: the next run records failures again."""
    failures = folder / "_failures"
    if not (failures / "_delta_log").is_dir():
        return []
    try:
        done = mend_log(LocalLog(failures), folder / ASIDE)
        table = KeyedTable(str(failures)) if (failures / "_delta_log").is_dir() else None
    except StoreError:
        keep_aside(failures, folder / ASIDE)
        return ["failures: cannot be repaired and were put aside; the next `embed` records them again"]
    if table is not None:
        _, _, words = _mend_files(table, Progress(False))
        done += words + _drop_repeats(table)
    return [f"failures: {each}" for each in done]
