"""Frames of video files as items: times, labels, threads, damaged files, and what a file may not open."""

from __future__ import annotations

import itertools
import pickle
import random
import re
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from video_files import SIZE, is_frame, write_video

import embedpipe
from embedpipe.errors import DecodeError, ReadError, SourceError, UsageError
from embedpipe.report.links import link_to
from embedpipe.serving.viewing.collection import Collection
from embedpipe.serving.viewing.pictures import Pictures
from embedpipe.sources import SourceOptions, open_source, read_uri, videos

pytest.importorskip("av", reason="the extra 'video' is not installed")

EVERY = SourceOptions(every="500ms")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of 60 frames in 6 s, with a key frame every 1.2 s."""
    return write_video(tmp_path_factory.mktemp("video") / "train" / "cat" / "clip.mp4", 60)


def copied(clip: Path, to: Path) -> Path:
    to.parent.mkdir(parents=True, exist_ok=True)
    to.write_bytes(clip.read_bytes())
    return to


def test_frames_are_those_that_are_shown_at_their_times(clip: Path) -> None:
    listing = open_source(clip.parents[2], EVERY)
    rows = listing.table.to_pylist()
    assert [row["id"] for row in rows][:3] == [f"train/cat/clip.mp4#t={time}" for time in ("0.0", "0.5", "1.0")]
    assert rows[1]["uri"] == f"{clip}#t=0.5"
    assert (rows[1]["label"], rows[1]["split"]) == ("cat", "train")
    assert (rows[1]["video"], rows[1]["time"]) == ("train/cat/clip.mp4", 0.5)
    assert rows[1]["source_size"] == clip.stat().st_size
    assert len(rows) == 12
    assert all(is_frame(listing.read(row), 5 * row) for row in range(12))
    assert listing.read(0).shape == (SIZE[1], SIZE[0], 3)
    assert link_to(rows[1]["uri"]) == clip.as_uri()


@pytest.mark.parametrize(
    ("suffix", "codec"), [(".mkv", "mpeg4"), (".avi", "mpeg4"), (".mpg", "mpeg2video"), (".mov", "mpeg4")]
)
def test_containers_and_codecs(suffix: str, codec: str, tmp_path: Path) -> None:
    rate = 25 if codec == "mpeg2video" else 10
    listing = open_source(write_video(tmp_path / f"a{suffix}", 2 * rate, rate, codec), SourceOptions(every="0.2s"))
    assert len(listing) == 10
    assert all(is_frame(listing.read(row), row * rate // 5) for row in range(10))


def test_threads_share_one_pass_over_a_video(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    opens = videos.open_file
    monkeypatch.setattr(videos, "open_file", lambda file: opened.append(file) or opens(file))
    listing = open_source(clip, SourceOptions(every="0.1"))
    opened.clear()
    order = [*range(60)]
    for start in range(0, 60, 10):  # threads come in any order, but near each other
        part = order[start : start + 10]
        random.Random(start).shuffle(part)
        order[start : start + 10] = part
    with ThreadPoolExecutor(4) as pool:
        frames = [*pool.map(listing.read, order)]
    assert all(is_frame(pixels, row) for pixels, row in zip(frames, order, strict=True))
    assert len(opened) == 1


def test_a_late_thread_reads_its_frame_again(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(videos, "_KEPT_BYTES", 10_000)
    listing = open_source(clip, EVERY)
    assert is_frame(listing.read(11), 55)
    assert is_frame(listing.read(1), 5)
    assert is_frame(listing.read(11), 55)


def test_a_seek_gives_the_frames_of_one_pass(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listing = open_source(clip, SourceOptions(every="0.1"))
    expected = [listing.read(row) for row in range(60)]
    monkeypatch.setattr(videos, "_FAR", 0.3)
    uris = listing.table.column("uri").to_pylist()
    assert all(np.array_equal(read_uri(uri), pixels) for uri, pixels in zip(uris, expected, strict=True))
    part = pickle.loads(pickle.dumps(listing.take(np.array([50, 3, 51]))))
    assert all(np.array_equal(part.read(at), expected[row]) for at, row in enumerate((50, 3, 51)))


def test_images_beside_videos_are_items(clip: Path, tmp_path: Path) -> None:
    copied(clip, tmp_path / "a.mp4")
    (tmp_path / "b.png").write_bytes(b"picture")
    listing = open_source(tmp_path, EVERY)
    assert listing.table.column("video").to_pylist() == ["a.mp4"] * 12 + [None]
    assert listing.table.column("time").to_pylist()[11:] == [5.5, None]
    assert listing.read(12) == b"picture"
    alone = open_source(tmp_path)
    assert (len(alone), alone.skipped) == (1, {".mp4": 1})


def test_tables_name_videos_below_their_folder_only(clip: Path, tmp_path: Path) -> None:
    copied(clip, tmp_path / "secret.mp4")
    copied(clip, tmp_path / "data" / "a.mp4")
    table = tmp_path / "data" / "t.csv"
    table.write_text("path,label\na.mp4,cat\n../secret.mp4,dog\n")
    listing = open_source(table, EVERY)
    assert listing.table.column("label").to_pylist() == ["cat"] * 12
    assert [failure.id for failure in listing.failures] == ["../secret.mp4"]
    assert "nothing else is read" in listing.failures[0].message
    assert is_frame(listing.read(3), 15)


def test_a_phone_held_upright_gives_upright_frames(clip: Path, tmp_path: Path) -> None:
    data = bytearray(clip.read_bytes())
    at = data.index(b"tkhd") + 44
    data[at : at + 36] = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, SIZE[1] << 16, 0, 1 << 30)
    (tmp_path / "a.mp4").write_bytes(data)
    pixels = open_source(tmp_path, EVERY).read(0)
    assert pixels.shape == (SIZE[0], SIZE[1], 3)
    assert pixels[3, -3].min() > 200  # the white corner, now at the upper right
    assert pixels[3, 3].min() < 200


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no video at all" * 100,
        b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{clip}\n#EXT-X-ENDLIST\n",
        b"ffconcat version 1.0\nfile {clip}\n",
        b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nhttp://127.0.0.1:9/a.ts\n",
    ],
    ids=["empty", "garbage", "playlist", "list", "playlist of a server"],
)
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mpg"])
def test_a_broken_video_fails_alone_and_opens_no_other_file(
    content: bytes, suffix: str, clip: Path, tmp_path: Path
) -> None:
    (tmp_path / f"a{suffix}").write_bytes(content.replace(b"{clip}", str(clip).encode()))
    copied(clip, tmp_path / "b.mp4")
    listing = open_source(tmp_path, EVERY)
    assert len(listing) == 12
    (failure,) = listing.failures
    assert (failure.id, failure.stage) == (f"a{suffix}", "decode")
    assert f"a{suffix}" in failure.message
    assert not re.search("Errno|<none>", failure.message)


def frames_of(listing: Any) -> Iterator[bool | str]:
    for row in range(len(listing)):
        try:
            yield is_frame(listing.read(row), 5 * row)
        except (DecodeError, ReadError) as error:
            yield str(error)


def test_a_truncated_video_gives_its_first_frames(clip: Path, tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.mkv", 60)
    path = tmp_path / "half" / "a.mkv"
    path.parent.mkdir()
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    results = [*frames_of(open_source(path, EVERY))]
    good = [*itertools.takewhile(lambda result: result is True, results)]
    assert 2 <= len(good) <= 9
    assert all("it is truncated" in str(result) or result is True for result in results)
    assert "it is truncated" in str(results[-1])


def test_damage_in_the_middle_of_a_video_stops_no_other(clip: Path, tmp_path: Path) -> None:
    data = bytearray(clip.read_bytes())
    middle = (data.index(b"mdat") + data.index(b"moov")) // 2
    data[middle : middle + 300] = random.Random(0).randbytes(300)
    (tmp_path / "a.mp4").write_bytes(data)
    results = [*frames_of(open_source(tmp_path, EVERY))]
    assert len(results) == 12
    assert results[0] is True
    assert all(result is True or "cannot decode the video" in str(result) for result in results)


@pytest.mark.parametrize(
    ("text", "seconds"), [("1s", 1), ("1", 1), ("0.5", 0.5), ("250ms", 0.25), ("2min", 120), (" 3 s ", 3)]
)
def test_times(text: str, seconds: float) -> None:
    assert videos.parse_every(text) == seconds


@pytest.mark.parametrize("text", ["0", "-1", "1h", "", "0.0001", "nan", "1e9", "every"])
def test_wrong_times_are_refused(text: str, clip: Path) -> None:
    with pytest.raises(UsageError, match="must be a time such as 1s, 500ms or 2min"):
        open_source(clip, SourceOptions(every=text))


def test_videos_without_a_time_are_refused_with_the_option(clip: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"is a video: say how often to take a frame \(every='1s'\)"):
        open_source(clip)
    with pytest.raises(SourceError, match=r"to embed frames of videos, give every='1s'"):
        open_source(clip.parent)
    (clip.parent / "readme.txt").write_text("from my camera")
    with pytest.raises(SourceError, match=r"give every='1s'; to embed texts, give modality='text'"):
        open_source(clip.parent)
    (tmp_path / "a.png").write_bytes(b"picture")
    with pytest.raises(SourceError, match=r"needs videos, and .* has none"):
        open_source(tmp_path, EVERY)
    with pytest.raises(SourceError, match="applies to images"):
        open_source(tmp_path, EVERY, "text")


def test_a_video_of_too_many_frames_is_a_failure(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(videos, "MOST_FRAMES", 10)
    (failure,) = open_source(clip, EVERY).failures
    assert "at most 10 frames, got 12" in failure.message


def test_frames_are_embedded_once_and_shown(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1]))
    to = tmp_path / "frames.features"
    runs = [
        embedpipe.embed(clip.parents[2], to, backbone="python:tiny_backbone.make", every="1s").summary for _ in range(2)
    ]
    assert [(run.embedded, run.reused, run.failed) for run in runs] == [(6, 0, 0), (0, 6, 0)]
    pictures = Pictures(Collection(embedpipe.FeatureStore(to)))
    assert is_frame(pictures.read(2), 20)
    assert pictures.thumbnail(2)[:2] == b"\xff\xd8"


def test_frames_of_a_video_that_is_being_copied_are_not_pruned(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1]))
    video, to = copied(clip, tmp_path / "videos" / "a.mp4"), tmp_path / "store"
    for size in (None, 100):
        video.write_bytes(clip.read_bytes()[:size])
        store = embedpipe.embed(
            video.parent, to, backbone="python:tiny_backbone.make", every="1s", prune=True, force=True
        )
    assert (store.summary.failed, store.summary.pruned, len(store)) == (1, 0, 6)
