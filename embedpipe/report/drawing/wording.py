"""Numbers, durations, sizes and names as text in reports."""

from __future__ import annotations

import math
import re

from embedpipe._utils.messages.counting import counted as counted
from embedpipe.statistics.percentages import percent as in_percent

#: Metrics that are shares: they are written in percent, and their differences in percentage points.
SHARES = ("accuracy", "balanced_accuracy", "macro_f1", "micro_f1", "roc_auc")
PERCENT = "\xa0%"
METRICS = {
    "macro_f1": "macro F1",
    "micro_f1": "micro F1",
    "log_loss": "log-loss",
    "brier": "Brier",
    "roc_auc": "ROC AUC",
    "mae": "MAE",
    "rmse": "RMSE",
    "r2": "R²",
    "f1": "macro F1",
    "f1_weighted": "weighted F1",
    "ap": "average precision",
    "ap_weighted": "weighted average precision",
    "mean_per_class_recall": "mean per-class recall",
    "held_out_accuracy": "held-out accuracy",
    "top1": "top-1 accuracy",
    "top5": "top-5 accuracy",
    "map": "mAP",
    "ndcg": "NDCG",
    **{f"recall_{k}": f"recall@{k}" for k in (1, 5, 10)},
    **{f"ndcg_{k}": f"NDCG@{k}" for k in (1, 5, 10)},
}
#: A metric of a protocol with so many labels of each class.
_PER_CLASS = re.compile(r"(.+)_(\d+|all)")


def metric_name(metric: str, higher_is_better: bool = True) -> str:
    """Return the usual name of a metric, with its direction if lower is better."""
    if metric not in METRICS and (parts := _PER_CLASS.fullmatch(metric)):
        return f"{metric_name(parts[1])}, {'all labels' if parts[2] == 'all' else f'{parts[2]} per class'}"
    return METRICS.get(metric, metric.replace("_", " ")) + ("" if higher_is_better else " (lower is better)")


def heading(name: str) -> str:
    """Return a name with a capital, but for symbols such as k and mAP."""
    return name if name[1:2] in ("", " ") or name[1:2].isupper() else name[0].upper() + name[1:]


def number(value: float | None, like: float | None = None, *, sign: bool = False) -> str:
    """Return a number with three significant digits, or three decimals if that is more.

    Parameters
    ----------
    value : float or None
    like : float, optional
        Use the precision of this number: the ends of an interval are written like its middle.
    sign : bool, default False
        Add a plus sign to positive numbers.
    """
    if value is None or not math.isfinite(value):
        return "—"
    scale = abs(value if like is None or not math.isfinite(like) else like)
    decimals = min(9, max(0, 2 - math.floor(math.log10(scale)))) if scale > 0 else 3
    text = f"{abs(value):,.{3 if decimals == 2 and scale < 10 else decimals}f}"
    zero = not text.strip("0.,")
    return ("" if zero else "\N{MINUS SIGN}" if value < 0 else "+" if sign else "") + text


def metric_value(value: float | None, metric: str, like: float | None = None) -> str:
    """Return the value of a metric: a share in percent, others as `number` writes them."""
    if metric in SHARES:
        return percent(value if value is not None and math.isfinite(value) else math.nan)
    return number(value, like)


def metric_interval(low: float, high: float, metric: str, like: float | None = None) -> str:
    """Return the ends of an interval, with the unit once."""
    ends = [metric_value(end, metric, like) for end in (low, high)]
    return f"{ends[0].removesuffix(PERCENT)} to {ends[1]}"


def metric_difference(value: float | None, metric: str, like: float | None = None, *, sign: bool = True) -> str:
    """Return a difference of values of a metric, without its unit, which `difference_unit` returns."""
    return points(value, sign=sign) if metric in SHARES else number(value, like, sign=sign)


def difference_unit(metric: str) -> str:
    """Return the unit of differences: points for shares, else the metric itself."""
    return "points" if metric in SHARES else metric_name(metric)


def margin(value: float, metric: str) -> str:
    """Return a difference that a user chose, with its unit: ``1 point`` of a share, ``0.01`` of others."""
    return f"{100 * value:g} point{'s' * (100 * value != 1)}" if metric in SHARES else f"{value:g}"


def p_value(value: float) -> str:
    """Return a p-value with three decimals, or ``< 0.001``."""
    if not math.isfinite(value):
        return "—"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def percent(share: float, digits: int = 1) -> str:
    """Return a share in percent: above 0 but below the last digit is ``<``, and below 1 is never rounded to 100 %."""
    return in_percent(share, digits).replace(" %", PERCENT)


def points(share: float | None, digits: int = 1, *, sign: bool = True) -> str:
    """Return a difference of shares in percentage points."""
    if share is None or not math.isfinite(share):
        return "—"
    text = f"{100 * abs(share):.{digits}f}"
    zero = not text.strip("0.")
    return ("" if zero else "\N{MINUS SIGN}" if share < 0 else "+" if sign else "") + text


def with_minus(text: str) -> str:
    """Return a sentence of the command line with the minus sign that pages have, but for what is between backticks."""
    return re.sub(r"`[^`]*`|(?<![^\s(])-(?=\d)", lambda match: "\N{MINUS SIGN}" if match[0] == "-" else match[0], text)


def duration(seconds: float) -> str:
    """Return seconds in a suitable unit; a dash for 0, which was not measured, and for what is no number."""
    if not 0 < seconds < math.inf:
        return "—"
    if seconds < 1:
        return f"{1000 * seconds:.3g} ms"
    if seconds < 100:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def rough_duration(minutes: float) -> str:
    """Return a duration in words, with about as many digits as an extrapolation supports."""
    if minutes < 1:
        return "less than a minute"
    return f"about {counted(round(minutes), 'minute')}" if minutes < 90 else f"about {minutes / 60:.1f} hours"


def size(count: int) -> str:
    """Return bytes in a suitable unit; a dash for 0, which was not measured."""
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if count >= unit:
            return f"{count / unit:.3g} {name}" if count < 1000 * unit else f"{count / unit:,.0f} {name}"
    return f"{count} B" if count else "—"


def natural_key(text: str) -> tuple[tuple[int, str], ...]:
    """Return a key that orders names as readers do: ``img2`` before ``img10``, and ``b`` after ``A``."""
    # Every second part is digits: numbers without leading zeros are ordered by their length first.
    parts = [part.lstrip("0") if i % 2 else part.casefold() for i, part in enumerate(re.split(r"([0-9]+)", text))]
    return (*((len(part) if i % 2 else 0, part) for i, part in enumerate(parts)), (0, text))


def clip(text: str, most: int = 80) -> str:
    """Return a text of at most ``most`` characters, shortened in the middle."""
    if len(text) <= most:
        return text
    tail = (most - 1) // 2
    return f"{text[: most - 1 - tail]}…{text[-tail:]}"
