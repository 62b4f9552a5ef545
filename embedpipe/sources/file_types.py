"""File types by suffix, and the payload of one file."""

from __future__ import annotations

from embedpipe.sources.access.roots import Access, read_allowed
from embedpipe.sources.locations import read_bytes, split_location
from embedpipe.sources.options import Modality

IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".gif",
    ".heic", ".heif", ".avif", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".jpx",
)  # fmt: skip
VIDEO_SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".mts", ".m2ts", ".wmv", ".flv", ".ogv", ".3gp",
)  # fmt: skip
EMAIL_SUFFIX = ".eml"
TEXT_SUFFIXES = (".txt", ".text", ".md", EMAIL_SUFFIX)
TABLE_SUFFIXES = (".csv", ".tsv", ".parquet", ".arrow", ".jsonl", ".ndjson", ".xlsx")
#: Signs with which a text begins that spreadsheet programs run as a formula (OWASP, CSV injection), for RE2.
FORMULA_SIGNS = r"=+\-@\t\r\n\x{FF1D}\x{FF0B}\x{FF0D}\x{FF20}"
TAR_SUFFIX = ".tar"
COMPRESSED_TAR_SUFFIXES = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")
#: The suffixes of a modality, for lookups.
_SUFFIXES = {"image": frozenset(IMAGE_SUFFIXES), "text": frozenset(TEXT_SUFFIXES)}
_COMPRESSIONS = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"(\xb5/\xfd": "zstd",
    b"PK\3\4": "zip",
}


def compression(start: bytes) -> str:
    """Return the kind of a compressed file by its first bytes, empty for another file."""
    return next((kind for signature, kind in _COMPRESSIONS.items() if start.startswith(signature)), "")


def suffix_of(name: str) -> str:
    """Return the suffix in lower case with its dot, or ``""`` if there is none."""
    name = name.rpartition("/")[2]
    stem, dot, suffix = name.rpartition(".")
    return f".{suffix.lower()}" if stem.strip(".") and dot else ""  # a name may begin with dots


def is_image_name(name: str) -> bool:
    """Return whether the suffix of a file name is that of an image."""
    return suffix_of(name) in _SUFFIXES["image"]


def is_payload_name(name: str, modality: Modality) -> bool:
    """Return whether the suffix of a file name is that of an image, or of a text."""
    return suffix_of(name) in _SUFFIXES[modality]


def list_suffixes(modality: Modality) -> tuple[str, ...]:
    """Return the suffixes of file lists. For texts, a ``.txt`` file is a text and not a list."""
    return (".txt", ".lst") if modality == "image" else (".lst",)


class EmailBytes(bytes):
    """The bytes of an e-mail message (RFC 822): headers, a blank line, the body."""


def read_payload(location: str, modality: Modality, access: Access | None = None) -> bytes:
    """Read the bytes of an image, text or e-mail, by suffix and modality.

    Raises ReadError, also if ``access`` is given and does not include the location.
    """
    data = read_allowed(location, access) if access else read_bytes(location)
    return EmailBytes(data) if modality == "text" and suffix_of(split_location(location)[1]) == EMAIL_SUFFIX else data
