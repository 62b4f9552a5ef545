"""Real photos."""

from __future__ import annotations

from pathlib import Path

import pytest

CLOTHING = Path(__file__).parents[3] / "shared" / "data" / "clothing"


@pytest.fixture(scope="session")
def clothing() -> list[Path]:
    """Every 19th of the clothing photos: about 200."""
    photos = sorted(CLOTHING.glob("*/*/*.jpg"))[::19]
    if not photos:
        pytest.skip(f"no clothing photos in {CLOTHING}")
    return photos
