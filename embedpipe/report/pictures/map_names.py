"""Places of class names on a map: in the densest part of each class, and apart from each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

Points = npt.NDArray[np.float64]

#: Number of points of a class that are tried as the place of its name, and of those that are looked at.
TRIED, SAMPLED = 200, 4000
#: Radius within which points are counted, as a fraction of the width.
RADIUS = 0.04
GAP = 4.0
#: Radius of a ring, as a fraction of the width.
RING = 0.01


def place_names(
    points: Points,
    rows: Mapping[str, npt.NDArray[np.int64]],
    sizes: Mapping[str, tuple[float, float]],
    size: Points,
    ringed: Sequence[int],
) -> dict[str, tuple[float, float]]:
    """Return the centre of each name; a name without a free place is left out.

    Parameters
    ----------
    points : float64 array (n, 2)
        All points, in units of the panel.
    rows : dict of str to int array
        The rows of each class.
    sizes : dict of str to (width, height)
        Of each name, in the same units.
    size : float64 array (2,)
        Width and height of the panel.
    ringed : sequence of int
        Rows that no name may cover.
    """
    places: dict[str, tuple[float, float]] = {}
    taken = [(points[row], np.full(2, RING * float(size[0]))) for row in ringed]
    for name in sorted(rows, key=lambda name: -len(rows[name])):
        own, half = points[rows[name][:: 1 + len(rows[name]) // SAMPLED]], np.array(sizes[name]) / 2
        near = cKDTree(own).query_ball_point(own, RADIUS * float(size[0]), return_length=True)
        for row in np.argsort(-near, kind="stable")[:TRIED]:
            centre = np.clip(own[row], half + GAP, np.maximum(size - half - GAP, half + GAP))
            if all((np.abs(centre - other) >= half + extent + GAP).any() for other, extent in taken):
                taken.append((centre, half))
                places[name] = (float(centre[0]), float(centre[1]))
                break
    return places
