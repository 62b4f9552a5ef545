"""Video files that tests make with PyAV: each frame has one colour that says its number."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

SIZE = (48, 32)


def colour(number: int) -> tuple[int, int, int]:
    """Return the colour of a frame, which differs from those of its neighbours."""
    return (40 * (number % 6) + 20, 40 * (number // 6 % 6) + 20, 128)


def write_video(path: Path, frames: int = 30, rate: int = 10, codec: str = "mpeg4", **options: Any) -> Path:
    """Write a video whose frames have one colour each, but for a white corner at the upper left."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=rate, options={"g": "12", **options.pop("codec_options", {})})
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        stream.bit_rate = 4_000_000
        for number in range(frames):
            pixels = np.full((SIZE[1], SIZE[0], 3), colour(number), np.uint8)
            pixels[:8, :16] = 255
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def is_frame(pixels: npt.NDArray[np.uint8], number: int) -> bool:
    """Return whether pixels are those of a frame, as far as the codec keeps them."""
    return bool(np.abs(pixels[-8:, -8:].mean((0, 1)) - colour(number)).max() < 15)
