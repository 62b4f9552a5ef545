"""From encoded bytes to the uint8 pixels that a backbone sees. Needs no torch."""

from embedpipe.decoding.image import decode_image, payload_hash
from embedpipe.decoding.recipe import Preprocessing, to_pixels

__all__ = ["Preprocessing", "decode_image", "payload_hash", "to_pixels"]
