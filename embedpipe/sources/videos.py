"""Frames of videos as items. The fragment of a uri holds the time, as in W3C Media Fragments: ``clip.mp4#t=12.0``."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import re
import threading
from array import array
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedpipe._utils.importing import import_extra
from embedpipe._utils.option_names import option
from embedpipe.errors import DecodeError, ReadError, SourceError, UsageError
from embedpipe.sources.access.roots import Access
from embedpipe.sources.file_types import VIDEO_SUFFIXES, read_payload, suffix_of
from embedpipe.sources.listing import Listing
from embedpipe.sources.locations import open_file, printable
from embedpipe.sources.reading import Files, Reader, RowNumbers, take_near

Pixels = npt.NDArray[np.uint8]

#: Most frames of a file that are listed, and most pixels of a frame, as of an image.
MOST_FRAMES, PIXEL_LIMIT = 1_000_000, 178_956_970

#: Containers that are read. Others, such as playlists, would open further files and servers.
_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,flv,asf,ogg"

#: Those whose header has the duration.
_DECLARED = ("mov", "matroska", "avi", "asf")

#: Seconds that are decoded rather than skipped by a seek.
_FAR = 30.0

#: Open files, and bytes of decoded frames that stay in memory for threads that come late.
_OPEN, _KEPT_BYTES = 2, 1 << 28

#: Seconds by which sounds may be longer than pictures.
_SLACK = 0.25

#: Seconds by which the time of a frame may be printed too early.
_ROUNDING = 5e-4

_URI = re.compile(r"(.+)#t=([0-9]{1,9}(?:\.[0-9]{1,6})?)", re.DOTALL)
_EVERY = re.compile(r"([0-9]+(?:\.[0-9]+)?) *(ms|s|min)?")
_UNITS = {"ms": 0.001, "s": 1.0, None: 1.0, "min": 60.0}

#: Conversion of colours: bicubic, with full chroma, accurate rounding and the same result on every machine (swscale).
_EXACT = 4 | 0x2000 | 0x40000 | 0x80000

#: Matrices of colours by their number in files (ITU-T H.273).
_MATRICES = {1: "ITU709", 4: "FCC", 5: "ITU601", 6: "ITU601", 7: "SMPTE240M"}


def parse_every(text: str) -> float:
    """Return the seconds of ``1s``, ``0.5``, ``500ms`` or ``2min``. Raises UsageError for anything else, and for 0."""
    match = _EVERY.fullmatch(text.strip())
    seconds = float(match[1]) * _UNITS[match[2]] if match else 0.0
    if not 0.001 <= seconds < math.inf:
        raise UsageError(f"{option('every')} must be a time such as 1s, 500ms or 2min, got {text!r}")
    return seconds


def is_video(name: str | None) -> bool:
    """Return whether the suffix of a file name is that of a video."""
    return name is not None and suffix_of(name) in VIDEO_SUFFIXES


def split_time(uri: str) -> tuple[str, float | None]:
    """Return the uri of a video and the time of a frame in seconds, None for a uri without one."""
    match = _URI.fullmatch(uri) if "#t=" in uri else None
    return (match[1], float(match[2])) if match and is_video(match[1]) else (uri, None)


def with_frames(listing: Listing, every: float) -> Listing:
    """Return the listing with frames of each video as items, with ids such as ``clip.mp4#t=12.0``.

    A frame is what is shown at that time, counted from the first. The columns ``video`` and ``time`` have the id of the
    file and the seconds. Only the headers of files are read. Videos that cannot be opened become failures.

    Raises
    ------
    SourceError
        Videos are not named by a folder, list or table.
    MissingExtraError
        PyAV is not installed.
    """
    uris, ids = listing.table.column("uri").to_pylist(), listing.table.column("id").to_pylist()
    if not any(map(is_video, uris)):
        raise SourceError(f"{option('every', ...)} needs videos, and {listing.root!r} has none: leave it out")
    reader = listing.read
    if not isinstance(reader, Files):
        raise SourceError("videos must be files that a folder, list or table names, each with an id")
    import_extra("av", "video")
    rows, times = array("q"), array("d")
    failures = list(listing.failures)
    for row, uri in enumerate(uris):
        if not is_video(uri):
            rows.append(row)
            times.append(math.nan)
            continue
        try:
            count = _count(uri, every, reader.access)
        except Exception as error:  # PyAV raises many types, and one bad file must not stop a run
            failures.append(listing.failure(row, error, "read"))
            continue
        rows.extend([row] * count)
        times.extend(round(number * every, 3) for number in range(count))
    table = listing.table.take(pa.array(np.frombuffer(rows, np.int64)) if rows else pa.array([], pa.int64()))
    videos = pa.array([ids[row] if is_video(uris[row]) else None for row in rows], pa.string())
    for name, values in (("id", ids), ("uri", uris)):
        named = [_at(values[row], time) for row, time in zip(rows, times, strict=True)]
        table = table.set_column(table.column_names.index(name), name, pa.array(named, pa.string()))
    table = table.append_column("video", videos).append_column("time", pa.array(times, pa.float64(), from_pandas=True))
    frames = Frames(table.column("uri"), every, reader.access)
    return dataclasses.replace(listing, table=table, read=frames, failures=tuple(failures))


def read_frame(file: str, time: float) -> Pixels:
    """Return the frame of a video that is shown at a time, by a seek. Raises ReadError or DecodeError."""
    with contextlib.closing(_Decoder(file, time)) as decoder:
        return decoder.at(time)


def _at(name: str, time: float) -> str:
    return name if math.isnan(time) else f"{name}#t={time}"


def _count(uri: str, every: float, access: Access | None) -> int:
    if access is not None:
        access.check_file(uri)
    with contextlib.closing(_Decoder(uri)) as decoder:
        count = math.ceil(round(decoder.duration / every, 6))
    if count > MOST_FRAMES:
        raise DecodeError(
            f"a video must give at most {MOST_FRAMES:,} frames, got {count:,}: take fewer ({option('every')})"
        )
    return max(1, count)


class Frames:
    """Reads frames of videos, and other files whole. Safe to use from several threads.

    Parameters
    ----------
    uris : pyarrow.ChunkedArray of str
        In an order in which the frames of a video follow each other.
    every : float
        Seconds between frames.
    access : Access, optional
        What the uris may name; None for uris that the user has named.
    """

    def __init__(self, uris: pa.ChunkedArray, every: float, access: Access | None) -> None:
        self._uris, self._every, self._access = uris, every, access
        self._clips: OrderedDict[str, _Clip] = OrderedDict()
        self._lock = threading.Lock()

    def __reduce__(self) -> Any:
        return Frames, (self._uris, self._every, self._access)

    def take(self, rows: RowNumbers) -> Reader:
        """Return the reader of some rows."""
        return Frames(take_near(self._uris, rows), self._every, self._access)

    def __call__(self, row: int) -> Any:
        """Return the pixels of a frame, or the bytes of a file. Raises ReadError or DecodeError."""
        uri = self._uris[row].as_py()
        file, time = split_time(uri or "")
        if time is None:
            return read_payload(file, "image", self._access)
        if self._access is not None:
            self._access.check_file(file)
        with self._lock:
            clip = self._clips.setdefault(file, _Clip(file, self._every))
            self._clips.move_to_end(file)
            late = self._clips.popitem(last=False)[1] if len(self._clips) > _OPEN else None
        if late is not None:
            late.close()
        return clip.frame(time)


class _Clip:
    """The frames of a video, which is decoded forward once; late threads find the last frames in memory."""

    def __init__(self, file: str, every: float) -> None:
        self._file, self._every = file, every
        self._lock = threading.Lock()
        self._decoder: _Decoder | None = None
        self._kept: OrderedDict[int, Pixels] = OrderedDict()
        self._next = 0
        self._error: str | None = None

    def close(self) -> None:
        """Close the file until the next call."""
        with self._lock:
            if self._decoder is not None:
                self._decoder.close()
            self._decoder = None
            self._kept.clear()

    def frame(self, time: float) -> Pixels:
        """Return the frame that is shown at a time, a multiple of the time between frames."""
        number = round(time / self._every)
        with self._lock:
            if number in self._kept:
                return self._kept[number]
            if self._decoder is None or (number - self._next) * self._every > max(_FAR, 2 * self._every):
                if self._decoder is not None:
                    self._decoder.close()
                self._next = max(0, number - int(_FAR / self._every))  # other threads ask for frames before this one
                self._decoder, self._error = _Decoder(self._file, self._next * self._every), None
            if number >= self._next:
                return self._forward(number)
        return read_frame(self._file, time)

    def _forward(self, number: int) -> Pixels:
        if self._error is not None:
            raise DecodeError(self._error)
        assert self._decoder is not None
        while self._next <= number:
            try:
                pixels = self._decoder.at(round(self._next * self._every, 3))
            except DecodeError as error:
                self._error = str(error)
                raise
            self._kept[self._next] = pixels
            self._next += 1
            while len(self._kept) > 1 and sum(each.nbytes for each in self._kept.values()) > _KEPT_BYTES:
                self._kept.popitem(last=False)
        return pixels


class _Decoder:
    """A video file that is decoded forward, from its beginning or from the key frame before ``start``.

    Raises ReadError if the file cannot be read, and DecodeError if it is no video.
    """

    def __init__(self, file: str, start: float = 0.0) -> None:
        self._av = import_extra("av", "video")
        self._name = printable(file)
        try:
            self._source = open_file(file)
        except Exception as error:
            raise ReadError(f"cannot read {self._name}: {error}") from error
        try:
            # Nothing but this file is opened: no protocol has this name.
            options = {"format_whitelist": _FORMATS, "protocol_whitelist": "none"}
            self._container = self._av.open(self._source, container_options=options, metadata_errors="replace")
        except Exception as error:
            self._source.close()
            raise DecodeError(f"cannot open the video {self._name}: {_reason(error)}") from error
        self._start = start
        self._frames: Iterator[Any] | None = None
        self._shown: Any = None
        self._next: Any = None
        try:
            self._stream = self._checked_stream()
        except DecodeError:
            self.close()
            raise
        self._first = float((self._stream.start_time or 0) * self._stream.time_base)

    def _checked_stream(self) -> Any:
        if not self._container.streams.video:
            raise DecodeError(f"the file {self._name} has no pictures")
        stream = self._container.streams.video[0]
        if stream.codec_context is None or not stream.time_base:
            raise DecodeError(f"the codec of the video {self._name} is unknown")
        _check_size(stream.codec_context)
        stream.thread_type = "AUTO"
        return stream

    def _begin(self) -> Iterator[Any]:
        """Return the frames from the key frame before the start."""
        frames = self._decoded()
        if self._start > _FAR:
            with contextlib.suppress(self._av.FFmpegError):  # without an index: from the beginning
                self._seek(self._start)
        self._next = next(frames, None)
        if self._start > _FAR and (self._next is None or self._time(self._next) > self._start + _ROUNDING):
            self._seek(0)  # the index of the file is wrong
            frames = self._decoded()
            self._next = next(frames, None)
        return frames

    def _seek(self, time: float) -> None:
        self._container.seek(int((time + self._first) / self._stream.time_base), stream=self._stream)

    @property
    def duration(self) -> float:
        """Seconds that the header declares, or where it declares none, from the times of all packets."""
        base = self._stream.time_base
        if any(name in self._container.format.name for name in _DECLARED):
            if self._stream.duration:
                return float(self._stream.duration * base)
            if self._container.duration:
                return float(self._container.duration / self._av.time_base)
        ends = (
            packet.pts + (packet.duration or 0)
            for packet in self._container.demux(self._stream)
            if packet.pts is not None
        )
        try:
            return max(0.0, float(max(ends, default=0) * base) - self._first)
        except self._av.FFmpegError as error:
            raise DecodeError(f"cannot read the video {self._name}: {_reason(error)}") from error

    def at(self, time: float) -> Pixels:
        """Return the frame that is shown at a time, which is not before that of the call before.

        Raises DecodeError if the video ends before, or is damaged.
        """
        if self._frames is None:
            self._frames = self._begin()
        while self._next is not None and self._time(self._next) <= time + _ROUNDING:
            self._shown, self._next = self._next, next(self._frames, None)
        shown = self._shown or self._next
        if shown is None:
            raise DecodeError(f"the video {self._name} has no frame that can be decoded")
        if self._next is None and time > self._time(shown) + max(_SLACK, 2 * self._length(shown)):
            raise DecodeError(f"the video {self._name} ends after {self._time(shown):.1f} s: it is truncated")
        return self._pixels(shown)

    def close(self) -> None:
        """Close the file."""
        self._container.close()
        self._source.close()

    def _decoded(self) -> Iterator[Any]:
        try:
            for frame in self._container.decode(self._stream):
                if frame.pts is not None:
                    yield frame
        except self._av.FFmpegError as error:
            at = f" after {self._time(self._next):.1f} s" if self._next is not None else ""
            raise DecodeError(f"cannot decode the video {self._name}{at}: {_reason(error)}") from error

    def _time(self, frame: Any) -> float:
        return float(frame.pts * frame.time_base) - self._first

    def _length(self, frame: Any) -> float:
        rate = self._stream.average_rate
        return float(frame.duration * frame.time_base) if frame.duration else (1 / float(rate) if rate else 0.0)

    def _pixels(self, frame: Any) -> Pixels:
        _check_size(frame)
        usual = "ITU709" if frame.height >= 720 else "ITU601"
        pixels: Pixels = frame.to_ndarray(
            format="rgb24", src_colorspace=_MATRICES.get(int(frame.colorspace), usual), interpolation=_EXACT
        )
        turns = round(frame.rotation / 90) % 4
        return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels


def _check_size(frame: Any) -> None:
    if not 0 < frame.width * frame.height <= PIXEL_LIMIT:
        raise DecodeError(f"a frame must have 1 to {PIXEL_LIMIT:,} pixels, got {frame.width} x {frame.height}")


def _reason(error: Exception) -> str:
    """Return what is wrong with a video, without FFmpeg's number of the error and the name of a stream without one."""
    return str(getattr(error, "strerror", None) or error)
