"""From payloads to what a backbone sees: encoded bytes to uint8 pixels, files and messages to text. Needs no torch."""

from embedpipe.decoding.decoders import decoders
from embedpipe.decoding.hashing import payload_hash
from embedpipe.decoding.image import decode_image
from embedpipe.decoding.picture import Picture, decode_pixels
from embedpipe.decoding.recipe import Preprocessing
from embedpipe.decoding.resizing import to_pixels
from embedpipe.decoding.text import DecodedText, decode_text

__all__ = [
    "DecodedText",
    "Picture",
    "Preprocessing",
    "decode_image",
    "decode_pixels",
    "decode_text",
    "decoders",
    "payload_hash",
    "to_pixels",
]
