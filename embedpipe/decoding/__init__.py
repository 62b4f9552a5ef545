"""From payloads to what a backbone sees: encoded bytes to uint8 pixels, files and messages to text. Needs no torch."""

from embedpipe.decoding.hashing import payload_hash
from embedpipe.decoding.image import decode_image
from embedpipe.decoding.recipe import Preprocessing, to_pixels
from embedpipe.decoding.text import DecodedText, decode_text

__all__ = ["DecodedText", "Preprocessing", "decode_image", "decode_text", "payload_hash", "to_pixels"]
