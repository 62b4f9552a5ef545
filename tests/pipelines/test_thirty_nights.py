"""Thirty nights of cron: photos on a server that goes away, broken photos, a full disk, and no label lost."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from conftest import TINY, write_photo
from object_server import ObjectServer, object_server
from script import run_script

import embedpipe

SCRIPT = Path(__file__).parents[2] / "pipelines" / "nightly_embedding.py"
BROKEN = b"not a photo"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB of its own, which can be filled."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], check=False).returncode:
        pytest.skip("mounting a file system needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@dataclass
class Photos:
    """The photos of the bucket, and what the store must hold: ids that were embedded once, and labels set by hand."""

    server: ObjectServer
    scratch: Path
    made: int = 0
    ids: set[str] = field(default_factory=set)
    by_hand: dict[str, str] = field(default_factory=dict)

    def key(self, id: str) -> str:
        return f"bucket/photos/{id}"

    def add(self, count: int) -> None:
        for _ in range(count):
            id = f"{('cat', 'dog')[self.made % 2]}/{self.made:04d}.jpg"
            self.server.put(self.key(id), write_photo(self.scratch / id, self.made).read_bytes())
            self.ids.add(id)
            self.made += 1

    def delete(self, id: str) -> None:
        self.server.files.delete_file(self.key(id))
        self.ids.discard(id)
        self.by_hand.pop(id, None)

    def move(self, id: str, new: str) -> None:
        self.server.files.copy_file(self.key(id), self.key(new))
        label = self.by_hand.pop(id)
        self.delete(id)
        self.ids.add(new)
        self.by_hand[new] = label


def fill(path: Path) -> None:
    """Write a file until the disk is full."""
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_thirty_nights_have_the_right_exit_codes_and_lose_no_label(
    tmp_path: Path, disk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store, filler = disk / "photos.features", disk / "filler"
    expected = {1: 0, 5: 3, 9: 75, 10: 75, 13: 75, 16: 1, 17: 1, 20: 2, 22: 2, 25: 3}
    failing = dict.fromkeys(range(5, 23), 1) | dict.fromkeys(range(25, 31), 1)
    with object_server() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        server.files.create_dir("bucket")
        photos = Photos(server, tmp_path / "scratch")
        photos.add(20)
        before: dict[str, Any] = {}
        for night in range(1, 31):
            source, options = "s3://bucket/photos", ["--lock"]
            if 1 < night < 29:
                photos.add(2)
            if night % 4 == 0:
                photos.delete(min(photos.ids - photos.by_hand.keys() - {"cat/0018.jpg"}))
            if night == 5:
                server.put("bucket/photos/cat/broken.jpg", BROKEN)
            elif night in (9, 10):
                server.say("down")
            elif night == 13:
                server.say("busy 1")
            elif night in (16, 17):
                fill(filler)
            elif night == 20:
                source = "s3://bucket/photo"
            elif night == 22:
                options += ["--max-failed", "x"]
            elif night == 23:
                server.put("bucket/photos/cat/broken.jpg", write_photo(tmp_path / "mended.jpg", 900).read_bytes())
                photos.ids.add("cat/broken.jpg")
            elif night == 25:
                server.put("bucket/photos/cat/0018.jpg", BROKEN)  # keeps its last vector and its label
            elif night == 27:
                photos.move(next(iter(photos.by_hand)), "dog/moved.jpg")

            done = run_script(SCRIPT, [source, str(store), "--backbone", TINY, *options], monkeypatch, capsys)
            report = json.loads(done.out)
            assert done.code == report["exit_code"] == expected.get(night, 0), (night, report, done.err)
            shown = ("Traceback" in done.err, done.err.count("\n"))
            assert shown == (False, report["error"] is not None), (night, done.err)
            server.say("up")
            filler.unlink(missing_ok=True)
            opened = embedpipe.FeatureStore(store)
            if report["error"] is None and night != 13:  # of three photos, any may be the one that is read
                assert report["failed"] - report["unreachable"] == failing.get(night, 0), (night, report)
            if done.code in (0, 3):
                assert set(opened.ids()) == photos.ids, night
            else:
                assert set(opened.ids()) >= before["ids"] & photos.ids, (night, report)
            if night in (2, 8, 14, 24):
                chosen = sorted(photos.ids & set(opened.ids()))[: night + 4 : 3]
                photos.by_hand |= dict.fromkeys([*chosen, "cat/0018.jpg"], f"by hand {night}")
                rows = list(photos.by_hand)
                opened.label(pa.table({"id": rows, "label": [photos.by_hand[id] for id in rows]}))
            table = opened.to_arrow(["id", "label"])
            labels = dict(zip(table["id"].to_pylist(), table["label"].to_pylist(), strict=True))
            assert {id: labels.get(id) for id in photos.by_hand} == photos.by_hand, night
            assert all(labels[id] == id.split("/")[0] for id in labels.keys() - photos.by_hand.keys()), night
            before = {"ids": set(labels)}
        failures = opened.failures()["id"].to_pylist()
        assert (embedpipe.verify(store, trust=True, sample=4).ok, failures) == (True, ["cat/0018.jpg"])
