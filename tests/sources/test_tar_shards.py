"""WebDataset shards: samples, labels, metadata, patterns, and truncated shards."""

from __future__ import annotations

import concurrent.futures
import io
import json
import os
import shutil
import subprocess
import tarfile
import time
from pathlib import Path

import pytest
from deleted import delete_when_listed

from embedpipe.errors import ReadError, SourceError
from embedpipe.sources import open_source, read_uri, root_exists
from embedpipe.sources.locations import expand


def write_tar(path: Path, files: dict[str, bytes], mode: str = "w") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


IDS = [f"train-{shard:03d}/{shard}{i}" for shard in range(3) for i in range(4)]


def sample(key: str, label: int) -> dict[str, bytes]:
    about = {"width": label, "score": label / 2, "tags": ["x"], "id": key}
    return {
        f"{key}.jpg": f"image {key}".encode() * 50,
        f"{key}.cls": f"{label}\n".encode(),
        f"{key}.json": json.dumps(about).encode(),
        f"{key}.txt": f"caption of {key}\n".encode(),
    }


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Three shards of four samples."""
    for shard in range(3):
        files = {k: v for i in range(4) for k, v in sample(f"{shard}{i}", i).items()}
        write_tar(tmp_path / f"train-{shard:03d}.tar", files)
    return tmp_path


@pytest.mark.parametrize("pattern", ["*.tar", "train-{000..002}.tar", "train-00{0,1,2}.tar", "train-00?.tar"])
def test_samples_are_listed_with_metadata(shards: Path, pattern: str) -> None:
    listing = open_source(shards / pattern)
    assert listing.root == f"{shards}/{pattern}"
    table = listing.table
    assert table.column("id").to_pylist() == IDS
    assert table.column("label").to_pylist() == ["0", "1", "2", "3"] * 3
    assert table.column("width").to_pylist() == [0, 1, 2, 3] * 3
    assert table.column("score").to_pylist() == [0.0, 0.5, 1.0, 1.5] * 3
    assert table.column("text")[5].as_py() == "caption of 11"
    assert table.column("json_id")[5].as_py() == "11"
    assert "tags" not in table.column_names


@pytest.mark.parametrize("pattern", ["*.tar", "train-{000..002}.tar", "train-00{0,1,2}.tar", "train-00?.tar"])
def test_samples_have_size_time_and_payload(shards: Path, pattern: str) -> None:
    listing = open_source(shards / pattern)
    table = listing.table
    assert table.column("source_size")[0].as_py() == len(b"image 00") * 50
    assert table.column("source_modified")[4].as_py() == (shards / "train-001.tar").stat().st_mtime_ns
    uri = table.column("uri")[5].as_py()
    assert uri == f"tar://11.jpg::{shards}/train-001.tar"
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        payloads = list(pool.map(listing.read, range(12)))
    assert payloads == [f"image {id.split('/')[1]}".encode() * 50 for id in IDS]
    assert read_uri(uri) == payloads[5]


def test_root_exists_for_patterns_of_shards(shards: Path) -> None:
    assert root_exists(f"{shards}/train-{{000..002}}.tar")
    assert not root_exists(f"{shards}/none-*.tar")


def test_single_shard_is_listed(shards: Path) -> None:
    assert len(open_source(shards / "train-001.tar")) == 4


def test_member_names_are_kept(tmp_path: Path) -> None:
    files = {
        "a/x.seg.png": b"mask",
        "a/x.jpg": b"image",
        "a/x.jpg.md5": b"0",
        "b/x.PNG": b"other",
        "lonely.cls": b"1",
        "bad.jpg": b"bad",
        "bad.json": b"{",
        "é ü.jpg": b"accents",
    }
    listing = open_source(write_tar(tmp_path / "s.tar", files))
    assert listing.table.column("id").to_pylist() == ["s/a/x", "s/b/x", "s/bad", "s/é ü"]
    assert [listing.read(i) for i in range(4)] == [b"image", b"other", b"bad", b"accents"]
    assert [read_uri(u) for u in listing.table.column("uri").to_pylist()] == [b"image", b"other", b"bad", b"accents"]
    assert listing.skipped == {
        ".md5": 1,
        "sample without an image": 1,
        "unreadable .json": 1,
        "further image of a sample": 1,
    }


def test_json_names_that_differ_in_case_are_merged(tmp_path: Path) -> None:
    files = {"a.jpg": b"x", "a.json": b'{"Width": 1, "URI": "u"}', "b.jpg": b"x", "b.json": b'{"width": 2}'}
    table = open_source(write_tar(tmp_path / "s.tar", files)).table
    assert table.column_names[6:] == ["Width", "json_URI"]
    assert table.column("Width").to_pylist() == [1, 2]


def test_json_values_of_mixed_types_become_strings(tmp_path: Path) -> None:
    files: dict[str, bytes] = {}
    values: list[object] = [1, 2.5, "three", None, True]
    for i, value in enumerate(values):
        files |= {f"{i}.jpg": b"x", f"{i}.json": json.dumps({"v": value, "label": "l", "n": i + (i == 4) / 2}).encode()}
    table = open_source(write_tar(tmp_path / "s.tar", files)).table
    assert table.column("v").to_pylist() == ["1", "2.5", "three", None, "True"]
    assert table.column("n").to_pylist() == [0, 1, 2, 3, 4.5]
    assert table.column("label").to_pylist() == ["l"] * 5


@pytest.mark.parametrize("keep", [0.3, 0.5, 0.8])
def test_truncated_shard_keeps_earlier_samples(shards: Path, keep: float) -> None:
    path = shards / "train-001.tar"
    with path.open("r+b") as file:
        file.truncate(int(16 * 1024 * keep))  # sixteen members of a header and a block
    listing = open_source(shards / "*.tar")
    (failure,) = listing.failures
    assert (failure.id, failure.uri, failure.stage) == ("train-001.tar", str(path), "list")
    assert "truncated" in failure.message
    of_others = [id for id in listing.table.column("id").to_pylist() if not id.startswith("train-001")]
    assert len(of_others) == 8
    assert 8 < len(listing) <= 12
    # Every listed image can be read, or raises an error that says that the shard is truncated.
    for row in range(len(listing)):
        try:
            payload = listing.read(row)
        except ReadError as error:
            payload = str(error).encode()
        assert payload.startswith(b"image") or b"is truncated" in payload


def test_names_with_two_colons_are_read(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "x::y.tar", {"a::b.jpg": b"image", "c.jpg": b"other"})
    listing = open_source(path)
    assert listing.table.column("id").to_pylist() == ["x::y/a::b", "x::y/c"]
    assert [listing.read(row) for row in range(2)] == [b"image", b"other"]
    assert [read_uri(uri) for uri in listing.table.column("uri").to_pylist()] == [b"image", b"other"]


def test_folder_that_ends_in_two_colons_is_refused(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "x::" / "y.tar", {"a.jpg": b"image"})
    with pytest.raises(SourceError, match="must not hold '::/'"):
        open_source(path)


@pytest.mark.parametrize(("mode", "kind"), [("w:gz", "gzip"), ("w:bz2", "bzip2"), ("w:xz", "xz")])
def test_compressed_shard_named_tar_is_reported(tmp_path: Path, mode: str, kind: str) -> None:
    (failure,) = open_source(write_tar(tmp_path / "s.tar", {"a.jpg": b"image"}, mode)).failures
    assert failure.message == f"tar files must not be compressed, and this is {kind}: decompress it"


def test_shard_cut_between_files_is_a_failure(shards: Path) -> None:
    path = shards / "train-002.tar"
    with tarfile.open(path) as tar:
        third = tar.getmembers()[8].offset
    os.truncate(path, third)
    listing = open_source(path)
    assert len(listing) == 2
    assert "end of the archive is missing" in listing.failures[0].message


def test_missing_and_invalid_shards_are_failures(shards: Path) -> None:
    (shards / "train-003.tar").write_bytes(b"not a tar" * 1000)
    listing = open_source(shards / "train-{000..004}.tar")
    assert len(listing) == 12
    assert [failure.id for failure in listing.failures] == ["train-003.tar", "train-004.tar"]


@pytest.mark.parametrize("suffix", [".tar.gz", ".tgz"])
def test_compressed_shards_are_refused(tmp_path: Path, suffix: str) -> None:
    path = write_tar(tmp_path / f"s{suffix}", {"a.jpg": b"x"}, "w:gz")
    with pytest.raises(SourceError, match="decompress"):
        open_source(path)


def test_patterns_without_shards_are_refused(shards: Path) -> None:
    with pytest.raises(SourceError, match="no shard matches"):
        open_source(shards / "val-*.tar")
    with pytest.raises(SourceError, match="no images in the 1 shards"):
        open_source(write_tar(shards / "empty.tar", {"readme.md": b"x"}))


def test_uris_of_changed_shards_fail(shards: Path) -> None:
    path = shards / "train-000.tar"
    assert read_uri(f"tar://00.jpg::{path}").startswith(b"image 00")
    write_tar(path, {"new.jpg": b"new"})
    assert read_uri(f"tar://new.jpg::{path}") == b"new"
    with pytest.raises(ReadError, match="has changed"):
        read_uri(f"tar://00.jpg::{path}")
    with pytest.raises(ReadError, match="gone"):
        read_uri(f"tar://x.jpg::{shards}/gone.tar")
    with pytest.raises(ReadError, match="a uri of a"):
        read_uri("tar://x.jpg")


def test_parts_of_digits_belong_to_the_name(tmp_path: Path) -> None:
    files: dict[str, bytes] = {}
    for i in range(3):
        files |= {f"scan.00{i}.jpg": b"%d" % i, f"scan.00{i}.txt": b"caption %d" % i, f"scan.00{i}.cls": b"class%d" % i}
    files |= {"scan.jpg": b"all", "v1.2.10.PNG": b"version", "scan.000.mask.png": b"mask"}
    listing = open_source(write_tar(tmp_path / "t.tar", files))
    table = listing.table
    assert table.column("id").to_pylist() == ["t/scan.000", "t/scan.001", "t/scan.002", "t/scan", "t/v1.2.10"]
    assert table.column("label").to_pylist() == ["class0", "class1", "class2", None, None]
    assert table.column("text").to_pylist() == ["caption 0", "caption 1", "caption 2", None, None]
    assert [listing.read(i) for i in range(5)] == [b"0", b"1", b"2", b"all", b"version"]
    assert listing.skipped == {"further image of a sample": 1}


def test_several_images_of_a_sample_are_items_that_share_its_sidecar(tmp_path: Path) -> None:
    files = {
        "7.left.png": b"l",
        "7.right.png": b"r",
        "7.cls": b"cat",
        "7.right.txt": b"right",
        "8.0.jpg": b"8",
        "8.cls": b"dog",
    }
    listing = open_source(write_tar(tmp_path / "t.tar", files))
    assert listing.table.column("id").to_pylist() == ["t/7.left", "t/7.right", "t/8.0"]
    assert listing.table.column("label").to_pylist() == ["cat", "cat", "dog"]
    assert listing.table.column("text").to_pylist() == [None, "right", None]
    assert [listing.read(i) for i in range(3)] == [b"l", b"r", b"8"]
    assert listing.skipped == {}


def test_what_is_not_taken_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "t.tar"
    with tarfile.open(path, "w") as tar:
        for name, data in (
            ("a.jpg", b"old"),
            ("a.jpg", b"new"),
            ("a.png", b"png"),
            ("a.json", b'{"tags": [1], "box": {}}'),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for name, kind, target in (("b.jpg", tarfile.LNKTYPE, "a.jpg"), ("c.jpg", tarfile.SYMTYPE, "a.jpg")):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            tar.addfile(info)
    listing = open_source(path)
    assert listing.table.column("id").to_pylist() == ["t/a", "t/b"]
    assert [listing.read(i) for i in range(2)] == [b"new", b"new"]
    assert [read_uri(uri) for uri in listing.table.column("uri").to_pylist()] == [b"new", b"new"]
    assert listing.skipped == {
        "replaced by a later file of its name": 1,
        "further image of a sample": 1,
        "list or object in .json": 2,
        "link or device": 1,
    }


def test_lone_surrogates_are_kept_as_they_are_written(tmp_path: Path) -> None:
    files = {
        "0.jpg": b"x",
        "0.json": b'{"caption": "\\ud83d", "\\udc00": "key", "label": "\\ud83d"}',
        "1.jpg": b"x",
        "1.txt": b"\xff",
    }
    table = open_source(write_tar(tmp_path / "t.tar", files)).table
    assert table.column("caption").to_pylist() == ["\\ud83d", None]
    assert table.column("\\udc00").to_pylist() == ["key", None]
    assert table.column("label").to_pylist() == ["\\ud83d", None]
    assert table.column("text").to_pylist() == [None, "\\xff"]


@pytest.mark.parametrize("kind", ["GNU", "PAX"])
def test_sparse_files_are_refused(tmp_path: Path, kind: str) -> None:
    (tmp_path / "sparse.jpg").write_bytes(b"")
    with (tmp_path / "sparse.jpg").open("r+b") as file:
        file.seek(1 << 20)
        file.write(b"image")
    (tmp_path / "plain.jpg").write_bytes(b"plain")
    (tmp_path / "plain.json").write_bytes(b"")
    os.truncate(tmp_path / "plain.json", 1 << 34)
    tar = shutil.which("tar")
    if tar is None:
        pytest.skip("needs GNU tar")
    formats = {"GNU": ["--format=gnu"], "PAX": ["--format=pax", "--sparse-version=1.0"]}
    names = ["sparse.jpg", "plain.jpg", "plain.json"]
    done = subprocess.run([tar, "-S", *formats[kind], "-cf", "t.tar", *names], cwd=tmp_path, capture_output=True)
    if done.returncode:
        pytest.skip("needs GNU tar")
    listing = open_source(tmp_path / "t.tar")
    assert listing.table.column("id").to_pylist() == ["t/plain"]
    (failure,) = listing.failures
    assert (failure.id, failure.stage) == ("t/sparse.jpg", "read")
    assert "sparse" in failure.message
    assert listing.skipped == {"sparse or too large .json": 1}
    with pytest.raises(ReadError):
        read_uri(f"tar://sparse.jpg::{tmp_path}/t.tar")


def _header(type: bytes, size: bytes, name: bytes = b"x.jpg") -> bytes:
    block = bytearray(512)
    block[: len(name)] = name
    block[100:108] = block[108:116] = block[116:124] = b"0000644\0"
    block[124:136], block[136:148], block[156:157] = size, b"00000000000\0", type
    block[257:265], block[148:156] = b"ustar\x0000", b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


@pytest.mark.parametrize(
    "data",
    [
        _header(b"x", b"%011o\0" % (1 << 21)) + b"9" * (1 << 21),
        _header(b"x", b"%011o\0" % (1 << 30)) + b"9" * 1024,
        _header(b"0", b"\xff" * 11 + b"\0"),
        _header(b"x", b"%011o\0" % 13) + b"13 size=-512\n" + bytes(499) + _header(b"0", b"00000000000\0"),
        _header(b"L", b"\xff" * 12) + bytes(1024),
    ],
    ids=["digits", "huge header", "negative size", "negative size in header", "negative name"],
)
def test_hostile_headers_end_quickly(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "t.tar").write_bytes(data + bytes(1024))
    start = time.process_time()
    listing = open_source(tmp_path / "t.tar")
    assert time.process_time() - start < 5
    assert len(listing.failures) == 1
    with pytest.raises(ReadError):
        read_uri(f"tar://x.jpg::{tmp_path}/t.tar")


def test_shards_are_found_beside_a_folder_that_another_process_deletes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b", ".c"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.tar").touch()
    delete_when_listed(tmp_path / "b", monkeypatch)
    assert expand(f"{tmp_path}/*/*.tar") == [f"{tmp_path}/.c/x.tar", f"{tmp_path}/a/x.tar"]
