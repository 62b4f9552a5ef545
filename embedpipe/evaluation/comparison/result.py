"""`Evaluation`: the result of `evaluate`, with its exports."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from embedpipe._utils.notebook.html_tables import html_records
from embedpipe.evaluation.comparison.evaluation_data import EvaluationData
from embedpipe.evaluation.saving import save_results
from embedpipe.report.drawing.wording import (
    difference_unit,
    metric_difference,
    metric_interval,
    metric_name,
    metric_value,
)

if TYPE_CHECKING:
    import pandas as pd


@dataclass(repr=False)
class Evaluation(EvaluationData):
    """Candidates compared on the same rows and splits; what `embedpipe.evaluate` returns.

    Attributes
    ----------
    label : str
        The column that was learned.
    task : str
        ``classification`` or ``regression``.
    metric : str
        The metric that orders the candidates.
    higher_is_better : bool
        Direction of ``metric``.
    resampling : str
        How rows were split, in words: ``5 x 5-fold stratified cross-validation``, ``test split``...
    n_repeats, n_folds : int
        Repeats of the cross-validation, and folds in each; 1 and 1 for a test split.
    splits_id : str
        SHA-256 over the ids and splits: equal for equal splits.
    rows : int
        Rows that were trained on or tested.
    classes : list of str
        Empty for regression.
    baseline : dict
        Metric -> mean value of always predicting the most frequent class, or the mean.
    margin : float
        Half the width of the region of practical equivalence, in the unit of ``metric``.
    left_out : dict
        Reason -> number of rows of the first store that took no part.
    notes : list of str
        Remarks on the data: near-duplicates kept together, classes with few rows...
    candidates : list of CandidateResult
        The best first.
    predictions : pyarrow.Table
        One row for each prediction: ``candidate``, ``resample`` (int), ``id``, ``actual``, ``predicted``, and for
        classification ``probabilities`` (list of float, in the order of ``classes``; null if the head has none).
    test_rows : int
        Rows that were tested.
    failed : dict
        Candidate that could not be measured -> reason.
    seconds : float
        Wall time of the whole evaluation.

    Examples
    --------
    >>> result = embedpipe.evaluate("photos.features", heads=["lda", "knn"], repeats=1)
    >>> result.best.name
    'lda'
    >>> result.to_html("evaluation.html").name
    'evaluation.html'
    """

    def to_frame(self) -> pd.DataFrame:
        """Return one row for each candidate, the best first, as a pandas DataFrame.

        Columns are ``candidate``, ``backbone``, ``layer``, ``head``, ``dim``, each metric with its ``_low`` and
        ``_high``, ``difference`` with its ``_low`` and ``_high``, ``p_adjusted``, ``verdict``, seconds and bytes.
        pandas is not a dependency of embedpipe: install it first.
        """
        import pandas as pd

        return pd.DataFrame([candidate.record() for candidate in self.candidates])

    def to_html(self, path: str | Path, *, pictures: bool = True) -> Path:
        """Write the evaluation as one HTML page of less than 20 MB, which needs no network.

        Parameters
        ----------
        path : str or path-like
            The page to write; the name must end in ``.html``. Missing folders are created.
        pictures : bool, default True
            Show the misclassified items: small JPEGs of images, beginnings of texts. Otherwise only their ids are
            listed. Either way they are linked to their files.

        Returns
        -------
        pathlib.Path
            ``path``.

        Raises
        ------
        UsageError
            If ``path`` does not end in ``.html``, or there are no candidates.
        """
        # Matplotlib and Jinja are loaded only when a page is written.
        from embedpipe.evaluation.comparison.page import write_evaluation_page

        return write_evaluation_page(self, path, pictures=pictures)

    def to_table(self, path: str | Path) -> list[str]:
        """Write the table that a paper prints: backbone, head, the metric with its interval, and the test rows.

        The best candidate is bold, and so are those that are not significantly worse.

        Parameters
        ----------
        path : str or path-like
            ``.tex`` (booktabs) or ``.md`` for people; the same columns as data in ``.csv``, ``.tsv``, ``.parquet``,
            ``.jsonl`` or ``.xlsx``.

        Returns
        -------
        list of str
            Remarks for people, as of `embedpipe.report.write_table`.

        Raises
        ------
        UsageError
            If the name has another suffix.
        WriteError
            If the file cannot be written.
        """
        from embedpipe.evaluation.tables import evaluation_table

        return evaluation_table(self).write(path)

    def save(self, path: str | Path) -> list[str]:
        """Write everything as one JSON file, which `embedpipe.load_evaluation` reads.

        Parameters
        ----------
        path : str or path-like
            The file, whose name ends in ``.json``; it is replaced.

        Returns
        -------
        list of str
            Remarks for people: more than 5,000,000 predicted values (rows times classes) are left out.

        Raises
        ------
        UsageError
            If the name does not end in ``.json``.
        WriteError
            If the file cannot be written.
        """
        return save_results("evaluation", self, path)

    def __repr__(self) -> str:
        """Return label, best candidate and number of rows on one line."""
        if not self.candidates:
            return f"Evaluation(label={self.label!r}, 0 candidates)"
        value = self.best.estimates[self.metric].value
        return (
            f"Evaluation(label={self.label!r}, best={self.best.name!r}, {self.metric}={value:.4g}, "
            f"{len(self.candidates)} candidates, {self.rows:,} rows, {self.resampling})"
        )

    def _repr_html_(self) -> str:
        title = f"Evaluation of {self.label!r}: {self.rows:,} rows, {self.resampling}"
        unit = difference_unit(self.metric)
        names = ("candidate", metric_name(self.metric), f"difference ({unit})", "verdict", "fit (s)")
        shown = [
            (
                each.name,
                metric_value(at.value, self.metric) + f" ({metric_interval(at.low, at.high, self.metric, at.value)})",
                metric_difference(each.difference.estimate.value, self.metric) if each.difference else "",
                each.verdict,
                f"{each.fit_seconds:.2f}",
            )
            for each in self.candidates
            for at in [each.estimates[self.metric]]
        ]
        failed = [(name, "", "", f"failed: {reason}", "") for name, reason in self.failed.items()]
        return html_records(title, [dict(zip(names, row, strict=True)) for row in [*shown, *failed]])
