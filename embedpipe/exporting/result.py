"""`Export`: what `embedpipe.export` wrote, and how it compares with the head."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from embedpipe._utils.notebook.html_tables import html_table
from embedpipe.report.drawing.wording import counted


@dataclass(frozen=True)
class Comparison:
    """The exported model beside the head on the same items.

    Attributes
    ----------
    rows : int
        Number of items; 0 if the model was not compared.
    held_out : int
        Number of them that the head was not fitted on.
    largest_difference : float
        Largest absolute difference of a probability, score or number.
    worst_id : str
        The item with that difference.
    different_labels : int
        Number of items with another predicted class.
    labelled : int
        Number of items with a label, of held-out ones if there are any; ``accuracy`` and ``accuracy_of_head`` are
        shares of them.
    accuracy, accuracy_of_head : float or None
        Of the exported model, and of the head.
    loss_bound : float or None
        Upper end of the paired 95 % interval of the accuracy that is lost; None in float32, where nothing is.
    """

    rows: int
    held_out: int
    largest_difference: float
    worst_id: str
    different_labels: int
    labelled: int = 0
    accuracy: float | None = None
    accuracy_of_head: float | None = None
    loss_bound: float | None = None

    @property
    def words(self) -> str:
        """The comparison in one sentence."""
        if self.held_out in (0, self.rows):
            one, several = ("held-out item", None) if self.held_out else ("item of its store", "items of its store")
            items = counted(self.rows, one, several)
        else:
            items = f"{self.rows:,} items, {self.held_out:,} of them held out"
        labels = (
            "all labels equal" if not self.different_labels else f"{counted(self.different_labels, 'different label')}"
        )
        text = f"{items}: {labels}, largest difference {self.largest_difference:.1e}"
        measured = self.held_out or self.loss_bound is not None  # that of rows that were learned says nothing
        if measured and self.accuracy is not None and self.accuracy_of_head is not None:
            rows = f" on {counted(self.labelled, 'held-out item')}" if 0 < self.held_out < self.rows else ""
            text += f"; accuracy{rows} {self.accuracy:.4f}, of the head {self.accuracy_of_head:.4f}"
        if self.loss_bound is not None:
            text += f", at most {100 * self.loss_bound:.2f} points lost (95 % bound)"
        return text


@dataclass(frozen=True)
class Export:
    """A folder with an exported model.

    Attributes
    ----------
    folder : pathlib.Path
    format, precision : str
    files : dict of str to int
        File -> size in bytes.
    comparison : Comparison
    notes : tuple of str
    """

    folder: Path
    format: str
    precision: str
    files: dict[str, int]
    comparison: Comparison
    notes: tuple[str, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers, strings, lists and dicts."""
        return {**asdict(self), "folder": str(self.folder), "notes": list(self.notes)}

    def _repr_html_(self) -> str:
        size = f"{sum(self.files.values()) / 1e6:,.1f} MB"
        rows = {"folder": str(self.folder), "model": f"{self.format}, {self.precision}", "size": size}
        return html_table("Exported model", {**rows, "compared with the head": self.comparison.words})
