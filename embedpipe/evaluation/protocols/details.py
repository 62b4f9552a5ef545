"""What a protocol measured on the way, as text: every k, C, number of labels and draw, and its settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from embedpipe.evaluation.protocols.problem import ProtocolResult
from embedpipe.report.drawing.wording import PERCENT, metric_interval, metric_name, metric_value

#: A protocol's numbers are shares, but for this hyperparameter.
NO_SHARE = "C"


def protocol_value(name: str, value: float) -> str:
    """Return a number of a protocol as text."""
    return f"{value:.4g}" if name == NO_SHARE else metric_value(value, "accuracy")


def detail_table(results: Sequence[ProtocolResult]) -> tuple[list[str], list[list[str]]]:
    """Return names of columns, and rows as text: the details of each resample, with its number if there are several.

    An interval stands beside its accuracy.
    """
    numbered = [
        ({"fold": i + 1} if len(results) > 1 else {}) | row
        for i, result in enumerate(results)
        for row in result.details
    ]
    names = [name for name in dict.fromkeys(name for row in numbered for name in row) if name not in ("low", "high")]
    return [metric_name(name) for name in names], [[_cell(name, row) for name in names] for row in numbered]


def settings_table(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return names and values of settings as text, without those that are empty."""
    return [(name, _text(name, value, share=False)) for name, value in settings.items() if value not in ([], "")]


def _cell(name: str, row: Mapping[str, Any]) -> str:
    text = _text(name, row.get(name, ""), share=name != NO_SHARE)
    if name == "accuracy" and "low" in row:
        text += f" ({metric_interval(row['low'], row['high'], 'accuracy').removesuffix(PERCENT)})"
    return text


def _text(name: str, value: Any, *, share: bool) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return str(value) if "seed" in name else f"{value:,}"
    if isinstance(value, float):
        return metric_value(value, "accuracy") if share else f"{value:.4g}"
    if not isinstance(value, list | tuple):
        return str(value)
    texts = [_text(name, each, share=share) for each in value]
    if len({*texts}) == 1:
        return f"{texts[0]} each" if len(texts) > 1 else texts[0]
    return ", ".join(text.removesuffix(PERCENT) for text in texts) + (PERCENT if texts[0].endswith(PERCENT) else "")
