"""Payloads whose kind their bytes alone do not tell."""

from __future__ import annotations

from embedpipe.sources.locations import read_bytes, split
from embedpipe.sources.options import Modality
from embedpipe.sources.suffixes import EMAIL_SUFFIX, suffix_of


class EmailBytes(bytes):
    """The bytes of an e-mail message as it is sent (RFC 822): headers, a blank line, the body."""


def read_payload(location: str, modality: Modality) -> bytes:
    """Read a file as what its name and the modality make it: the bytes of an image, of a text, or an e-mail.

    Raises ReadError.
    """
    data = read_bytes(location)
    return EmailBytes(data) if modality == "text" and suffix_of(split(location)[1]) == EMAIL_SUFFIX else data
