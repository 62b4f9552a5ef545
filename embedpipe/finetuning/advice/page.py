"""The page of an advice: the forecast, what each experiment changed, the frozen baselines, and what is proved."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from embedpipe._utils.version import __version__
from embedpipe.finetuning.advice.advice_data import AdviceData, ForecastStep
from embedpipe.report.drawing.svg import (
    BLUE,
    FAINT,
    INK,
    ORANGE,
    WIDTH,
    add_panel,
    make_chart,
    name_axes,
    round_ticks,
    to_svg,
    write,
)
from embedpipe.report.drawing.wording import counted, points, rough_duration, with_minus
from embedpipe.report.page import check_page, write_page

#: Height of a row of the chart in pixels.
ROW = 44
#: The recommendation as a heading, and what it means.
HEADINGS = {
    "fine-tune": ("Fine-tune", "The network is expected to be better than the head by more than you ask for."),
    "stay": ("Stay with the head", "Fine-tuning is not expected to gain what you ask for."),
    "find out first": ("Find out first", "Neither is likely enough yet."),
}
#: The same where the user said what a point is worth.
HEADINGS_BY_COST = {
    "fine-tune": ("Fine-tune", "The expected gain is worth more than the time."),
    "stay": ("Stay with the head", "The expected gain is not worth the time."),
    "find out first": ("Find out first", "The next runs are expected to be worth their time."),
}


def write_advice_page(advice: AdviceData, path: str | Path) -> Path:
    """Write an advice as one HTML page; see `Advice.to_html`."""
    path = check_page(path)
    by_cost = advice.forecast.break_even is not None
    heading, meaning = (HEADINGS_BY_COST if by_cost else HEADINGS)[advice.recommendation]
    if advice.recommendation == "find out first" and advice.next_step and not by_cost:
        meaning += " The next runs are the cheapest that can decide."
    if advice.network is not None:  # the outcome is what counts; the recommendation led to it
        meaning = f"The recommendation before was: {advice.recommendation}. {meaning}"
        heading = "The network is kept" if advice.network.best_epoch else "The head is kept"
    best = advice.frozen_baselines.best
    context: dict[str, Any] = {
        "advice": advice,
        "heading": heading,
        "meaning": with_minus(" ".join([meaning, *advice.reasons_of_choice()])),
        "data": Path(best.store).stem,
        "forecast": advice.forecast,
        "asked_gain": with_minus(advice.asked_gain),
        "chart": draw_forecasts(advice.steps, advice.forecast.min_gain),
        "steps": [(describe_step(step), step) for step in advice.steps],
        "baselines": advice.frozen_baselines,
        "verdict": advice.verdict,
        "network": advice.network,
        "next_step": advice.next_step,
        "chance": f"{chance_of(advice)} with a probability of" if advice.next_step else "",
        "points": points,
        "rough_duration": rough_duration,
        "version": __version__,
        "now": datetime.now().astimezone(),
    }
    return write_page("advice.html", context, path)


def chance_of(advice: AdviceData) -> str:
    """Return what the chance of the next step is that of."""
    return "decides" if advice.forecast.break_even is None else "changes the recommendation"


def describe_step(step: ForecastStep) -> str:
    """Return what was known at a step."""
    if step.experiment is None:
        runs, others = step.forecast.runs, step.forecast.ledger_rows
        if runs:
            return f"with {counted(runs, 'network')} of earlier calls"
        return "from published results" + (f" and {counted(others, 'fine-tuning')} of other data" if others else "")
    return f"after {counted(step.experiment.seeds, 'network')} on {step.experiment.labels:,} labels"


def draw_forecasts(steps: list[ForecastStep], min_gain: float) -> str:
    """Draw the expected gain of each step with its 80 % interval, and the gain that is asked for."""
    figure = make_chart(WIDTH, 64 + ROW * len(steps))
    panel = add_panel(figure, 14, 10, 14, 46)
    panel.set_ylim(len(steps), 0)
    panel.set_yticks([])
    for row, step in enumerate(steps):
        gain = step.forecast.gain
        # The lines are beside the bars only: across the whole panel they would cross the words above the bars.
        panel.vlines(0, row + 0.5, row + 1, color=FAINT, linewidth=1)
        panel.vlines(100 * min_gain, row + 0.5, row + 1, color=ORANGE, linewidth=1.6, linestyle=(0, (5, 2)))
        panel.plot([100 * gain.low, 100 * gain.high], [row + 0.68] * 2, color=BLUE, linewidth=5, alpha=0.45)
        panel.plot(100 * gain.value, row + 0.68, "o", color=BLUE, markersize=9)
    low, high = panel.get_xlim()
    panel.set_xlim(low, max(high, 100 * min_gain + 1))
    for row, step in enumerate(steps):
        text = f"{describe_step(step)}: probability {step.forecast.probability:.2f}"
        write(panel, panel.get_xlim()[0], row + 0.28, text, INK, 12, va="center")
    round_ticks(panel.xaxis)
    name_axes(panel, "gain of accuracy in points; dashed: what is asked for", "")
    last = steps[-1].forecast
    title = (
        f"Expected gain of fine-tuning: {points(last.gain.value)} points, 80 % interval {points(last.gain.low)} to "
        f"{points(last.gain.high)}, after {counted(last.runs, 'network')}"
    )
    return to_svg(figure, "forecasts", title)
