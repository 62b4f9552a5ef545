"""Which libraries decode which pictures here."""

from __future__ import annotations

import importlib.metadata

from PIL import features

from embedpipe.decoding.image import readable_formats

_HEIF = "HEIF"


def available_decoders() -> dict[str, str]:
    """Return which library decodes which pictures, in words.

    Returns
    -------
    dict
        Library and version to the formats it reads, or to how to get it: ``{"simplejpeg 1.9.0": "JPEG", ...}``.
    """
    version = importlib.metadata.version
    formats = readable_formats()
    turbo = features.version_feature("libjpeg_turbo")
    pillow = f"Pillow {version('pillow')}" + (f" with libjpeg-turbo {turbo}" if turbo else "")
    others = [name for name in formats if name not in ("JPEG", _HEIF)]
    heif = f"pillow-heif {version('pillow-heif')}" if _HEIF in formats else "pillow-heif"
    return {
        f"simplejpeg {version('simplejpeg')}": "JPEG",
        pillow: ", ".join([*others, "JPEG that is CMYK or damaged"]),
        heif: _HEIF if _HEIF in formats else "not installed: pip install pillow-heif",
    }
