"""`Advice`: the result of `advise`, with its exports."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from embedpipe._utils.notebook.html_tables import html_table
from embedpipe.finetuning.advice.advice_data import AdviceData
from embedpipe.report.drawing.wording import rough_duration
from embedpipe.statistics.percentages import percent


@dataclass(repr=False)
class Advice(AdviceData):
    """Whether to fine-tune, and the evidence; what `embedpipe.advise` returns.

    Attributes
    ----------
    forecast : Forecast
        What fine-tuning on all labels is expected to gain, and the probability that it exceeds the minimum gain.
    steps : list of ForecastStep
        The forecast from published results, with the runs of earlier calls, and after each run of this call.
    verdict : Verdict
        The decision of the strict rule, which asks for proof, with gain, trend, ceiling and reasons.
    frozen_baselines : FrozenBaselines
        The accuracy available without fine-tuning.
    benchmarks : list of Benchmark
        The runs, one result for each label count, in ascending order.
    network : FineTuneResult or None
        The network that ``act`` trained, with its accuracy on the test rows.
    label : str
        The column that was learned.
    device : str
        Where the timing ran; empty if nothing was trained.
    labels : int
        Number of training and validation rows.
    held_out_rows : int
        Number of training and validation rows on which networks are measured, and which they do not learn from.
    would_change : list of str
        What would change the strict verdict, as sentences.
    next_step : NextStep or None
        The command that follows the recommendation; None if no runs are left that could decide.
    notes : list of str
    seconds : float
        Total wall time.

    Examples
    --------
    >>> advice = embedpipe.advise("photos.features")  # doctest: +SKIP
    >>> advice.recommendation, advice.verdict.decision  # doctest: +SKIP
    ('find out first', "can't tell yet")
    >>> advice.next_step.command  # doctest: +SKIP
    'embedpipe advise photos.features --time-budget 12min --to photos.advice'
    """

    def to_html(self, path: str | Path) -> Path:
        """Write the advice as one HTML page, which needs no network.

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
            If the name does not end in ``.html``.

        Examples
        --------
        >>> advice.to_html("advice.html")  # doctest: +SKIP
        PosixPath('advice.html')
        """
        from embedpipe.finetuning.advice.page import write_advice_page

        return write_advice_page(self, path)

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers, strings, lists and dicts."""
        plain = {"recommendation": self.recommendation, **asdict(self)}
        plain["network"] = self.network.to_dict() if self.network else None
        if self.next_step:
            plain["next_step"]["command"] = self.next_step.command
        return plain

    def __repr__(self) -> str:
        accuracy = self.frozen_baselines.selected_accuracy.value
        return (
            f"Advice({self.recommendation!r}: frozen features reach {percent(accuracy)}, expected gain "
            f"{100 * self.forecast.gain.value:+z.1f} points)"
        )

    def _repr_html_(self) -> str:
        best = self.frozen_baselines.best
        rows: list[tuple[str, object]] = [
            ("recommendation", self.recommendation),
            *(("forecast", sentence) for sentence in self.sentences()),
            ("best on frozen features", f"{best.name}: {percent(best.accuracy.value)}"),
        ]
        if self.next_step:
            minutes = self.next_step.minutes
            time = "" if minutes is None else f" ({rough_duration(minutes)})"
            rows.append(("next step", f"{self.next_step.command}{time}"))
        return html_table("Advice", rows)
