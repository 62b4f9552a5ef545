"""Which tasks of a run were begun before, so that an item that kills its process is found.

An engine begins a task again when its worker died, without end. Each attempt leaves an empty file beside the store. A
task that was begun twice without an end is done row by row, with a file for the row in work; the row whose file is
found is the one that killed the worker.
"""

from __future__ import annotations

import uuid

import pyarrow.fs as pafs

from embedpipe.errors import StoreError
from embedpipe.sources.access.outage import outages_raised
from embedpipe.sources.locations import filesystem
from embedpipe.store.data_files import reason
from embedpipe.store.maintenance import RUNS

#: Attempts at a whole task.
MOST_ATTEMPTS = 2


class Attempts:
    """The attempts at one task.

    Parameters
    ----------
    store : str
        Path or URL of the store.
    run : str
        Name of the run.
    number : int
        Number of the task.
    """

    def __init__(self, store: str, run: str, number: int) -> None:
        self._store = store
        self._fs, base = filesystem(store)
        self._folder = f"{base}/{RUNS}/{run}/{number:08d}"
        #: Number of earlier attempts.
        self.earlier = 0
        #: Rows during which a worker died.
        self.deadly: set[int] = set()

    @outages_raised()
    def begin(self) -> None:
        """Find the earlier attempts, and note this one."""
        found = self._fs.get_file_info(pafs.FileSelector(self._folder, allow_not_found=True))
        names = [info.base_name for info in found]
        self.earlier = sum(name.startswith("attempt-") for name in names)
        self.deadly = {int(name.removeprefix("row-")) for name in names if name.startswith("row-")}
        self._write(f"attempt-{uuid.uuid4().hex[:8]}")

    @outages_raised()
    def begin_row(self, row: int) -> None:
        """Note that the work on a row begins."""
        self._write(f"row-{row:08d}")

    @outages_raised()
    def end_row(self, row: int) -> None:
        """Note that the work on a row has ended."""
        self._fs.delete_file(f"{self._folder}/row-{row:08d}")

    def _write(self, name: str) -> None:
        try:
            if isinstance(self._fs, pafs.LocalFileSystem):  # object stores have no folders
                self._fs.create_dir(self._folder, recursive=True)
            with self._fs.open_output_stream(f"{self._folder}/{name}") as stream:
                stream.write(b"")
        except OSError as error:
            raise StoreError(f"cannot write to {self._store!r}: {reason(error)}") from error
