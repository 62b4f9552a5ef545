"""What is fuzzed: how an input is read, small real files to start from, and what must come out.

A target gives a result, or an EmbedpipeError. Files with checksums must give the result of the undamaged file, too.
"""

from __future__ import annotations

import functools
import io
import json
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from damage.specimens import SPECIMENS, make, observe
from fuzzing.mutators import with_png_checksums, with_tar_checksums
from oddities import encode, oriented, picture
from PIL import Image
from video_files import write_video

from embedpipe.errors import EmbedpipeError

MB = 1 << 20

#: The least memory that a target may take beyond what the process has, in bytes: a picture of the most pixels that are
#: accepted has 0.5 GB in RGB, 0.7 GB in RGBA.
MEMORY = 512 * MB
PICTURE_MEMORY = 3072 * MB


class SilentDifferenceError(Exception):
    """A damaged file gave another result, and no error."""


@dataclass(frozen=True)
class Target:
    """One way into the package.

    Parameters
    ----------
    seeds : callable
        Returns small real files, as bytes.
    read : callable
        Reads an input in an empty folder. An EmbedpipeError is right, another exception is a fault.
    tokens : sequence of bytes
        Pieces of the format.
    repair : callable, optional
        Makes the checksums of the format right again, for half of the inputs.
    memory : int
        Bytes.
    """

    seeds: Callable[[], list[bytes]]
    read: Callable[[bytes, Path], Any]
    tokens: Sequence[bytes] = ()
    repair: Callable[[bytes], bytes] | None = None
    memory: int = MEMORY


@functools.cache
def _backbone() -> Any:
    from embedpipe.backbones import load_backbone

    return load_backbone("python:tiny_backbone.make")


def _read_picture(data: bytes, folder: Path) -> str:
    from embedpipe.decoding import decode_image

    value = _backbone().prepare(data).value
    assert value.shape == (32, 32, 3), value.shape
    assert value.dtype == np.uint8, value.dtype
    image = decode_image(data)
    assert image.mode == "RGB", image.mode
    return "decoded"


def _jpegs() -> list[bytes]:
    return [
        encode(picture(), "JPEG"),
        encode(picture(), "JPEG", progressive=True),
        encode(picture("L"), "JPEG", optimize=True),
        encode(picture("CMYK"), "JPEG"),
        encode(picture(), "MPO", save_all=True, append_images=[picture()]),
        oriented(6),
    ]


def _pngs() -> list[bytes]:
    deep = np.arange(48 * 40, dtype=np.uint16).reshape(40, 48) * 34
    from PIL import Image

    return [
        *(encode(picture(mode), "PNG") for mode in ("RGB", "P", "L", "RGBA", "LA", "1")),
        encode(picture("P"), "PNG", transparency=3),
        encode(Image.fromarray(deep), "PNG"),
        encode(picture(), "PNG", save_all=True, append_images=[picture()]),
    ]


def _tiffs() -> list[bytes]:
    packings = ("raw", "tiff_lzw", "tiff_deflate", "packbits", "jpeg", "tiff_adobe_deflate")
    return [
        *(encode(picture(), "TIFF", compression=name) for name in packings),
        *(encode(picture(mode), "TIFF") for mode in ("1", "L", "P", "CMYK", "RGBA", "I", "F")),
        encode(picture(), "TIFF", save_all=True, append_images=[picture("L")]),
    ]


def _other_pictures() -> list[bytes]:
    frames = [picture("P"), picture("P").rotate(90)]
    kinds = [("BMP", {}), ("PPM", {}), ("WEBP", {}), ("WEBP", {"lossless": True}), ("JPEG2000", {}), ("AVIF", {})]
    files = [encode(picture(), kind, **options) for kind, options in kinds]
    files += [encode(picture("RGBA"), kind) for kind in ("WEBP", "JPEG2000", "AVIF", "BMP")]
    files += [encode(frames[0], "GIF", save_all=True, append_images=frames[1:]), encode(picture("1"), "BMP")]
    return [*files, encode(picture("L"), "PPM"), encode(picture("P"), "BMP")]


def _read_text(data: bytes, folder: Path) -> str:
    from embedpipe.decoding import decode_text

    assert decode_text(data).text
    return "decoded"


def _read_email(data: bytes, folder: Path) -> str:
    from embedpipe.decoding import decode_text
    from embedpipe.sources.file_types import EmailBytes

    assert decode_text(EmailBytes(data)).text
    return "decoded"


_PAGE = (
    b"<html><head><title>A &amp; B</title><style>p{}</style><meta charset=utf-8></head><body><p>one<br>two</p>"
    b"<!-- c --><script>x</script><a href='x'>link</a><table><tr><td>1</table></body></html>"
)
_PARTS = (
    b"--b\r\nContent-Type: text/plain; charset=iso-8859-1\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
    b"Plain t=E9xt\r\n--b\r\n"
)


def _emails() -> list[bytes]:
    head = b"From: a@example.org\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?= =?iso-8859-1?b?4uU=?=\r\nMIME-Version: 1.0\r\n"
    inner = head + b"Content-Type: text/html; charset=utf-8\r\n\r\n" + _PAGE
    return [
        head + b"\r\nplain text\r\n",
        inner,
        head
        + b'Content-Type: multipart/alternative; boundary="b"\r\n\r\n'
        + _PARTS
        + b"Content-Type: text/html\r\n\r\n"
        + _PAGE
        + b"\r\n--b--\r\n",
        head
        + b'Content-Type: multipart/mixed; boundary="b"\r\n\r\n'
        + _PARTS
        + b"Content-Type: message/rfc822\r\n\r\n"
        + inner
        + b"\r\n--b--\r\n",
        head + b"Content-Type: text/html\r\nContent-Transfer-Encoding: base64\r\n\r\nPGI+aGVsbG88L2I+PGEgPGEgPGE=\r\n",
    ]


_HTML_TOKENS = (
    b"<a ",
    b"<a <",
    b"<!--",
    b"-->",
    b"<meta ",
    b"<?",
    b"<![CDATA[",
    b"]]>",
    b"&#",
    b"&amp",
    b"</",
    b"<script>",
    b"<style>",
    b"<div>",
    b"='",
    b'="',
    b"<td>",
)
_MAIL_TOKENS = (
    *_HTML_TOKENS,
    b"--b\r\n",
    b"\r\n\r\n",
    b"=?utf-8?q?",
    b"=?utf-8?b?",
    b"?=",
    b"Content-Type: text/html\r\n",
    b"Content-Type: message/rfc822\r\n\r\n",
    b"; charset=",
    b"; a*0=x",
    b"=\r\n",
    b"(",
    b"From ",
    b"boundary=",
)


def _read_table(suffix: str) -> Callable[[bytes, Path], str]:
    def read(data: bytes, folder: Path) -> str:
        from embedpipe.sources import SourceOptions, open_source
        from embedpipe.sources.tables.table_files import read_table

        path = folder / f"table{suffix}"
        path.write_bytes(data)
        outcomes = []
        for modality, options in (
            ("text", SourceOptions(text="text", id="id")),
            ("image", SourceOptions(image="path")),
        ):
            try:
                listing = open_source(path, options, modality)
                for row in range(min(3, len(listing))):
                    try:
                        listing.read(row)
                    except EmbedpipeError:
                        outcomes.append("unread")
                outcomes.append("listed")
            except EmbedpipeError as error:
                outcomes.append(type(error).__name__)
        read_table(str(path))
        return " ".join(dict.fromkeys(outcomes))

    return read


_ROWS = {
    "id": ["a", "b", "007"],
    "path": ["a.jpg", "b c.jpg", "ü.jpg"],
    "text": ["one", "two, three", '"4"'],
    "label": ["x", "y", "x"],
    "n": [1, 2, 3],
}


def _delimited(delimiter: str) -> list[bytes]:
    rows = [[str(column[i]).replace('"', '""') for column in _ROWS.values()] for i in range(3)]
    lines = [delimiter.join(_ROWS), *(delimiter.join(f'"{cell}"' for cell in row) for row in rows)]
    text = "\n".join(lines) + "\n"
    return [
        text.encode(),
        text.encode("utf-16"),
        text.encode("latin-1"),
        b"\xef\xbb\xbf" + text.encode(),
        b"path" + delimiter.encode() + b"label\na.jpg" + delimiter.encode() + b"1\n",
    ]


def _json_lines() -> list[bytes]:
    table = pa.table(_ROWS).to_pylist()
    nested = [{**row, "meta": {"a": [1, 2], "b": {"c": None}}, "when": "2024-01-01"} for row in table]
    return ["\n".join(json.dumps(row) for row in rows).encode() for rows in (table, nested)]


def _workbooks() -> list[bytes]:
    import openpyxl

    samples = []
    for stored in (True, False):  # without compression, random changes reach the cells
        book = openpyxl.Workbook()
        for row in (["id", "label", "n"], ["a", "x", 1], ["ü", None, 0.5], ["=1+1", True, None]):
            book.active.append(row)
        packed, sink = io.BytesIO(), io.BytesIO()
        book.save(packed)
        with zipfile.ZipFile(packed) as old, zipfile.ZipFile(sink, "w", 0 if stored else zipfile.ZIP_DEFLATED) as new:
            for part in old.infolist():
                new.writestr(part.filename, old.read(part))
        samples.append(sink.getvalue())
    return samples


def _parquets() -> list[bytes]:
    files = []
    picture_bytes = [encode(picture(), "JPEG")] * 3
    images = pa.array([{"bytes": data, "path": f"{i}.jpg"} for i, data in enumerate(picture_bytes)])
    tables = [
        pa.table(_ROWS),
        pa.table({**_ROWS, "image": images}),
        pa.table({**_ROWS, "d": pa.array(["p", "q", "p"]).dictionary_encode()}),
    ]
    for table in tables:
        for options in ({}, {"write_page_checksum": True, "compression": "none"}, {"compression": "zstd"}):
            sink = io.BytesIO()
            pq.write_table(table, sink, **options)
            files.append(sink.getvalue())
    return files


def _read_source(name: str, most: int, source: str = "", **options: Any) -> Callable[[bytes, Path], str]:
    """Return a target that writes a file of this name, lists it or ``source``, and reads the first items."""

    def read(data: bytes, folder: Path) -> str:
        from embedpipe.decoding import decode_image
        from embedpipe.sources import SourceOptions, open_source

        _with_boxes(folder)
        (folder / name).write_bytes(data)
        listing = open_source(folder / (source or name), SourceOptions(**options))
        for row in range(min(most, len(listing))):
            try:
                decode_image(listing.read(row))
            except EmbedpipeError:
                return "unread"
        return "listed"

    return read


def _with_boxes(folder: Path) -> None:
    """Make a folder of YOLO with a picture."""
    for name in ("images", "labels"):
        (folder / name).mkdir(exist_ok=True)
    Image.new("RGB", (9, 7)).save(folder / "images" / "a.png")
    (folder / "labels" / "a.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (folder / "data.yaml").write_text("names: [cat, dog]")


def _arrows() -> list[bytes]:
    table = pa.table({**_ROWS, "image": pa.array([{"bytes": encode(picture(), "JPEG"), "path": "a.jpg"}] * 3)})
    features = {"image": {"_type": "Image"}, "n": {"_type": "ClassLabel", "names": ["p", "q", "r", "s"]}}
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    files = []
    for new in (pa.ipc.new_stream, pa.ipc.new_file):
        sink = pa.BufferOutputStream()
        with new(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=2)
        files.append(sink.getvalue().to_pybytes())
    return files


def _coco_files() -> list[bytes]:
    images = [{"id": 1, "file_name": "a.png", "width": 9, "height": 7}, {"id": 2, "file_name": "images/a.png"}]
    boxes = [[1, 1, 2.5, 2], [0, 0, 9, 7], [8, 6, 40, 40]]
    annotations = [{"id": i, "image_id": 1 + i % 2, "category_id": 3, "bbox": box} for i, box in enumerate(boxes)]
    return [
        json.dumps({"images": images, "annotations": annotations, "categories": [{"id": 3, "name": "cat"}]}).encode()
    ]


def _videos() -> list[bytes]:
    files = []
    with tempfile.TemporaryDirectory() as folder:
        for suffix in (".mp4", ".mkv", ".mpg"):
            codec, rate = ("mpeg2video", 25) if suffix == ".mpg" else ("mpeg4", 10)
            files.append(write_video(Path(folder) / f"a{suffix}", 12, rate, codec).read_bytes())
    return files


def _tars() -> list[bytes]:
    files = {
        "a.jpg": encode(picture(), "JPEG"),
        "a.cls": b"1",
        "a.json": b'{"width": 3, "label": "x"}',
        "a.txt": b"words",
        "b/c.d.png": b"png",
        "b/c.cls": b"2",
        "x" * 150 + ".jpg": b"long",
    }
    archives = []
    for format in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        sink = io.BytesIO()
        with tarfile.open(fileobj=sink, mode="w", format=format) as tar:
            for name, content in files.items():
                if format == tarfile.USTAR_FORMAT and len(name) > 100:
                    continue
                info = tarfile.TarInfo(name)
                info.size = len(content)
                info.pax_headers = {"comment": "ü"} if format == tarfile.PAX_FORMAT else {}
                tar.addfile(info, io.BytesIO(content))
        archives.append(sink.getvalue())
    return archives


def _read_checkpoint(suffix: str) -> Callable[[bytes, Path], str]:
    def read(data: bytes, folder: Path) -> str:
        from embedpipe.backbones.weights.checkpoint import read_checkpoint

        path = folder / f"weights{suffix}"
        path.write_bytes(data)
        assert read_checkpoint(path).weights.state
        return "read"

    return read


def _checkpoints(suffix: str) -> list[bytes]:
    import torch
    from safetensors.torch import save

    state = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.zeros(2)}
    recipe = json.dumps({"resize": [32], "crop": [32, 32], "interpolation": "bilinear"})
    if suffix == ".safetensors":
        return [save(state), save(state, {"architecture": "timm/resnet18", "preprocessing": recipe})]
    files = []
    for content in (state, {"state_dict": state, "arch": "resnet18"}):
        sink = io.BytesIO()
        torch.save(content, sink)
        files.append(sink.getvalue())
    return files


def _read_spec(data: bytes, folder: Path) -> str:
    from embedpipe import BackboneSpec

    spec = BackboneSpec.from_json(data.decode("utf-8", "surrogateescape"))
    spec.fingerprint()
    assert BackboneSpec.from_json(spec.to_json()) == spec
    return "read"


def _specs() -> list[bytes]:
    from stored import make_spec

    return [make_spec(8).to_json().encode(), _backbone().spec.to_json().encode()]


# Files of embedpipe's own: a specimen of which one file is the input.


def _specimen(name: str) -> Path:
    """Return the folder of a specimen, which the first process makes for all."""
    folder = Path(tempfile.gettempdir()) / f"specimen-{name}" / "work"
    if not folder.with_suffix(".pristine").exists():
        make(name, str(folder))
        shutil.copytree(folder, folder.with_suffix(".pristine"))
        folder.with_suffix(".json").write_text(json.dumps(observe(name, str(folder))))
    return folder


def _file(name: str, kind: str) -> Path:
    pristine = _specimen(name).with_suffix(".pristine")
    return _specimen(name) / sorted(pristine.glob(SPECIMENS[name].kinds[kind]))[-1].relative_to(pristine)


def _own(name: str, kind: str, *, checked: bool) -> Target:
    """Return the target of a kind of file; ``checked``: the file has a checksum, so nothing may differ in silence."""

    def read(data: bytes, folder: Path) -> str:
        work = _specimen(name)
        expected = json.loads(work.with_suffix(".json").read_text())
        shutil.rmtree(work)
        shutil.copytree(work.with_suffix(".pristine"), work)
        _file(name, kind).write_bytes(data)
        outcomes = observe(name, str(work))
        for step, (outcome, value) in outcomes.items():
            if outcome == "raised":
                raise RuntimeError(f"{step}: {value}")
            if checked and outcome == "is" and [outcome, value] != expected[step]:
                raise SilentDifferenceError(step)
        return " ".join(dict.fromkeys(outcome for outcome, _ in outcomes.values()))

    def seeds() -> list[bytes]:
        pristine = _specimen(name).with_suffix(".pristine")
        return [path.read_bytes() for path in sorted(pristine.glob(SPECIMENS[name].kinds[kind]))]

    return Target(seeds, read)


def _text_files() -> list[bytes]:
    return ["Ein Text mit Ümläuten.\n".encode(code) for code in ("utf-8", "utf-16", "latin-1", "utf-32")] + [_PAGE]


_CSV_TOKENS = (
    b",",
    b'"',
    b"\n",
    b"\r",
    b";",
    b"\t",
    b'""',
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\0",
    b"id,",
    b"1e5,",
    b"12:30,",
)

TARGETS: dict[str, Target] = {
    "jpeg": Target(
        _jpegs, _read_picture, (b"\xff\xd8", b"\xff\xda", b"\xff\xc2", b"\xff\xe1Exif\0\0"), None, PICTURE_MEMORY
    ),
    "png": Target(
        _pngs, _read_picture, (b"IDAT", b"tRNS", b"PLTE", b"iCCP", b"eXIf"), with_png_checksums, PICTURE_MEMORY
    ),
    "tiff": Target(_tiffs, _read_picture, (b"II*\0", b"MM\0*"), None, PICTURE_MEMORY),
    "pictures": Target(_other_pictures, _read_picture, (b"VP8X", b"ALPH", b"GIF89a", b"ANMF"), None, PICTURE_MEMORY),
    "text": Target(_text_files, _read_text, (b"\0", b"\xff\xfe", b"\xed\xa0\x80", b"\x1b$B")),
    "email": Target(_emails, _read_email, _MAIL_TOKENS),
    "csv": Target(lambda: _delimited(","), _read_table(".csv"), _CSV_TOKENS),
    "tsv": Target(lambda: _delimited("\t"), _read_table(".tsv"), _CSV_TOKENS),
    "jsonl": Target(_json_lines, _read_table(".jsonl"), (b"{", b"[", b'{"a":', b'"id":', b"\\ud800", b"null", b"}\n{")),
    "parquet": Target(_parquets, _read_table(".parquet"), (b"PAR1",)),
    "xlsx": Target(_workbooks, _read_table(".xlsx"), (b"PK\3\4", b'r="9999999"', b"<row", b"<c t=", b"&lt;")),
    "arrow": Target(_arrows, _read_table(".arrow"), (b"\xff\xff\xff\xff", b"ARROW1", b'"names": [')),
    "coco": Target(
        _coco_files,
        _read_source("annotations.json", 3),
        (b"NaN", b"-1", b"1e400", b"null", b"[", b"{", b'"../../etc/passwd"', b'"https://a/b.png"'),
    ),
    "yolo": Target(
        lambda: [b"0 0.5 0.5 0.2 0.2\n1 0.1 0.1 0.9 0.1 0.5 0.9\n"],
        _read_source("labels/a.txt", 3, "data.yaml", box_margin=0.1),
        (b"\n", b" ", b"nan", b"-", b"1e9", b"\xff"),
    ),
    "yaml": Target(
        lambda: [b"names: [cat, dog]\n", b"names:\n  0: cat\n  1: dog\n"],
        _read_source("data.yaml", 3),
        (b"!!python/object/apply:os.getcwd []", b"&a [*a]", b"? ", b": ", b"{", b"\t"),
    ),
    "video": Target(
        _videos,
        _read_source("a.mp4", 4, every="0.3s"),
        (b"moov", b"stsz", b"#EXTM3U\n", b"ffconcat version 1.0\n", b"\xff" * 4, b"\0" * 4),
        memory=PICTURE_MEMORY,
    ),
    "tar": Target(
        _tars,
        _read_source("shard.tar", 5),
        (b"ustar", b"\0" * 512, b"30 mtime=1\n", b"GNU.sparse.size=9"),
        with_tar_checksums,
    ),
    "list": Target(
        lambda: [b"a.jpg\nb.jpg\n", "ü.jpg\r\n#x\n".encode()],
        _read_source("files.lst", 3),
        (b"\n", b"../", b"s3://", b"\0", b"file://"),
    ),
    "safetensors": Target(lambda: _checkpoints(".safetensors"), _read_checkpoint(".safetensors")),
    "pth": Target(lambda: _checkpoints(".pth"), _read_checkpoint(".pth"), (b"cos\nsystem\n", b"\x80\x02", b"ctorch\n")),
    "spec": Target(_specs, _read_spec, (b"{", b"[", b"null", b'"layers":')),
    "data file": _own("store", "data", checked=True),
    "log": _own("store", "log", checked=False),
    "checkpoint": _own("store", "checkpoint", checked=False),
    "last checkpoint": _own("store", "last checkpoint", checked=False),
    "manifest": _own("head", "manifest", checked=False),
    "head": _own("head", "estimator", checked=True),
    "neighbours": _own("head", "neighbours", checked=True),
    "map vectors": _own("map", "map vectors", checked=True),
    "map ids": _own("map", "map ids", checked=True),
    "map description": _own("map", "map description", checked=False),
}
