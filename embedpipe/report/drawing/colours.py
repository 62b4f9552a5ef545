"""Colours of labels, from a palette for colour-blind readers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize, to_rgba

from embedpipe.report.drawing.wording import natural_key

#: Ten hues that differ by at least 8 in OKLab (times 100) from each other, from grey and from white, also as readers
#: with protanopia, deuteranopia or tritanopia see them (Machado et al., IEEE TVCG 15, 2009); used twice, the second
#: time with triangles as markers. Of published sets of ten, Petroff's (arXiv:2107.02270) has 6, and two greys.
PALETTE = (
    "#0077BB",  # blue
    "#EE7733",  # orange
    "#57761A",  # green
    "#EC0E44",  # red
    "#3AAADD",  # sky
    "#6515B7",  # violet
    "#F1AD16",  # gold
    "#A03C7A",  # plum
    "#8D2103",  # brown
    "#BF7B8D",  # rose
)
MARKERS = ("o", "^")
MAX_CLASSES = len(PALETTE) * len(MARKERS)
#: Largest number of distinct numbers that have legend entries; more have a colour bar.
MAX_STEPS = 10
PLAIN = "#3B6FA0"
GREY = "#B4B4B0"


Colour = str | tuple[float, float, float, float]


@dataclass(frozen=True)
class Entry:
    """One entry of the legend."""

    name: str
    count: int
    colour: Colour
    marker: str = "o"


@dataclass(frozen=True)
class Colouring:
    """Colour and marker of each row, and the legend.

    Parameters
    ----------
    colours : float64 array (n, 4)
        Red, green, blue, opacity; 0..1.
    markers : str array (n,)
    named : bool array (n,)
        False for rows without a label and for rows of the classes under "other", which are drawn below all others.
    names : list of str or None, length n
        The labels as text; None for a row without one.
    legend : tuple of Entry
    scale : matplotlib ScalarMappable, optional
        Scale of the colour bar.
    """

    colours: npt.NDArray[np.float64]
    markers: npt.NDArray[np.str_]
    named: npt.NDArray[np.bool_]
    names: list[str | None]
    legend: tuple[Entry, ...] = ()
    scale: ScalarMappable | None = None


def colour_labels(labels: pa.ChunkedArray | None, count: int) -> Colouring:
    """Choose colours for ``count`` rows by their labels; None if there are no labels."""
    values = [None] * count if labels is None else [_clean(value) for value in labels.to_pylist()]
    known = [value for value in values if value is not None]
    if not known:
        return _assemble(values, {}, PLAIN, ())
    numeric = not isinstance(known[0], str)
    missing = len(values) - len(known)
    tail = (Entry("no label", missing, GREY),) if missing else ()
    counts = Counter(known)
    if numeric:
        # without the last part of plasma, a yellow that is too pale on white
        shades = colormaps["plasma"](np.linspace(0, 0.86, 256))
        cmap = LinearSegmentedColormap.from_list("embedpipe", shades)
        steps = sorted(counts)
        if len(steps) > MAX_STEPS:
            scale = ScalarMappable(Normalize(steps[0], steps[-1]), cmap)
            looks = {value: Entry("", 0, _rgba(scale.to_rgba(value))) for value in steps}
            return _assemble(values, looks, GREY, tail, scale)
        entries = {
            value: Entry(label_text(value), counts[value], _rgba(cmap(shade)))
            for value, shade in zip(steps, np.linspace(0, 1, len(steps)), strict=True)
        }
        return _assemble(values, entries, GREY, (*entries.values(), *tail))

    # The most frequent classes have colours. Ties are ordered by name, so that the same rows always look the same.
    ranked = sorted(counts, key=lambda name: (-counts[name], natural_key(name)))
    entries = {
        name: Entry(name, counts[name], PALETTE[i % len(PALETTE)], MARKERS[i // len(PALETTE)])
        for i, name in enumerate(sorted(ranked[:MAX_CLASSES], key=natural_key))
    }
    if rest := ranked[MAX_CLASSES:]:
        tail = (
            Entry(
                f"other ({len(rest)} class{'' if len(rest) == 1 else 'es'})", sum(counts[name] for name in rest), GREY
            ),
            *tail,
        )
    return _assemble(values, entries, GREY, (*entries.values(), *tail))


def label_text(value: Any) -> str:
    """Return a label as text: of a float, four significant digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _clean(value: Any) -> Any:
    """Return a number, a string, or None for a missing label."""
    if value is None or value != value:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    return str(value)


def _rgba(values: Any) -> Colour:
    red, green, blue, opacity = (float(value) for value in values)
    return red, green, blue, opacity


def _assemble(
    values: list[Any],
    looks: dict[Any, Entry],
    otherwise: str,
    legend: tuple[Entry, ...],
    scale: ScalarMappable | None = None,
) -> Colouring:
    default = Entry("", 0, otherwise)
    drawn = [looks.get(value, default) for value in values]
    return Colouring(
        colours=np.array([to_rgba(entry.colour) for entry in drawn]).reshape(-1, 4),
        markers=np.array([entry.marker for entry in drawn], dtype=str),
        named=np.array([entry is not default for entry in drawn], dtype=bool),
        names=[None if value is None else label_text(value) for value in values],
        legend=legend,
        scale=scale,
    )
