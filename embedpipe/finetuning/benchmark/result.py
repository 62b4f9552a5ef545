"""`Benchmark`: the result of `benchmark`, with its exports."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING

from embedpipe._utils.notebook.html_tables import html_table
from embedpipe.finetuning.benchmark.benchmark_data import BenchmarkData
from embedpipe.statistics.percentages import percent

if TYPE_CHECKING:
    from embedpipe.report.drawing.picture import Picture


@dataclass(repr=False)
class Benchmark(BenchmarkData):
    """Learning curves of learners on the same draws of labels, test rows and seeds; what `embedpipe.benchmark` returns.

    Attributes
    ----------
    data : str
        Path of the store.
    backbone : str
        Provider and name.
    label : str
        The column that was learned.
    device : str
        Where the networks were trained.
    classes : list
    label_counts : list of int
        Numbers of labels, in ascending order.
    seeds : list of int
    learners : list of str
    test_rows : int
        Rows on which each cell was measured once, after its training.
    severities : list of int
        Severities of the corruptions; empty if none were measured.
    cells : list of Cell
        One for each learner, number of labels and seed.
    differences : list of LearnerDifference
        Differences of pairs of learners at each number of labels.
    savings : list of Savings
        Labels and training time that one learner of a pair needs to be as accurate as the other.
    splits_id : str
        SHA-256 over the ids and splits.
    notes : list of str
    seconds : float
        Time of training and measuring all cells, also those of earlier runs.
    majority_accuracy : float
        Accuracy of always predicting the most frequent class of the test rows.

    Examples
    --------
    >>> result = embedpipe.benchmark("photos.features", to="photos.benchmark")  # doctest: +SKIP
    >>> [(d.learner, d.reference, d.accuracy) for d in result.differences if d.labels == 400]  # doctest: +SKIP
    >>> result.to_html("benchmark.html")  # doctest: +SKIP
    PosixPath('benchmark.html')
    """

    def to_html(self, path: str | Path) -> Path:
        """Write the benchmark as one HTML page of less than 3 MB, which needs no network.

        Parameters
        ----------
        path : str or path-like
            The page to write, atomically; the name must end in ``.html``. Missing folders are created.

        Returns
        -------
        pathlib.Path
            ``path``.

        Raises
        ------
        UsageError
            If the name does not end in ``.html``, or the benchmark has no cells.

        Examples
        --------
        >>> result.to_html("benchmark.html")  # doctest: +SKIP
        PosixPath('benchmark.html')
        """
        from embedpipe.finetuning.benchmark.page import write_benchmark_page

        return write_benchmark_page(self, path)

    def plot(self, path: str | Path) -> Picture:
        """Draw the learning curves as a PNG file, 1,120 pixels wide.

        One line for each learner over the number of labels, with means, 95 % intervals and a small mark for each seed.

        Parameters
        ----------
        path : str or path-like
            The PNG file to write, atomically.

        Returns
        -------
        Picture
            Shows itself in a notebook, and stands for its path: ``path``.

        Raises
        ------
        UsageError
            If the name does not end in ``.png``, or the benchmark has no cells.

        Examples
        --------
        >>> result.plot("curves.png")  # doctest: +SKIP
        Picture(path=PosixPath('curves.png'))
        """
        from embedpipe.finetuning.benchmark.charts import draw_curves

        return draw_curves(self, path)

    def __repr__(self) -> str:
        counts = ", ".join(f"{count:,}" for count in self.label_counts)
        return (
            f"Benchmark({', '.join(self.learners)} on {counts} labels: {len(self.cells)} cells, "
            f"{self.test_rows:,} test rows)"
        )

    def _repr_html_(self) -> str:
        rows = [("data", self.data), ("backbone", self.backbone), ("label", self.label), ("test rows", self.test_rows)]
        for labels in self.label_counts:
            accuracies = {
                learner: [cell.accuracy for cell in self.cells_of(learner, labels)] for learner in self.learners
            }
            shown = (f"{learner} {percent(mean(values))}" for learner, values in accuracies.items() if values)
            rows.append((f"accuracy with {labels:,} labels", ", ".join(shown)))
        return html_table("Benchmark", rows)
