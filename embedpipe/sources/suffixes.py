"""Which file names mean what."""

from __future__ import annotations

import posixpath

IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".gif",
    ".heic", ".heif", ".avif", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".jpx",
)  # fmt: skip
TABLE_SUFFIXES = (".csv", ".tsv", ".parquet", ".jsonl", ".ndjson")
LIST_SUFFIXES = (".txt", ".lst")
TAR_SUFFIX = ".tar"
COMPRESSED_TAR_SUFFIXES = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")


def suffix_of(name: str) -> str:
    """Return the suffix in lower case with its dot, or ``""``."""
    return posixpath.splitext(name)[1].lower()


def is_image_name(name: str) -> bool:
    """Say whether a file of this name is taken for an image."""
    return suffix_of(name) in IMAGE_SUFFIXES
