"""Numbers of pages: one unit for shares, round ticks."""

from __future__ import annotations

import math

from embedpipe.report.drawing.svg import log_ticks
from embedpipe.report.drawing.wording import (
    difference_unit,
    metric_difference,
    metric_interval,
    metric_value,
    percent,
    rough_duration,
    with_minus,
)


def test_shares_are_in_percent_and_their_differences_in_points() -> None:
    assert metric_value(0.9412, "accuracy") == "94.1\xa0%"
    assert metric_interval(0.9, 0.9999, "macro_f1") == "90.0 to >99.9\xa0%"
    assert metric_difference(-0.012, "accuracy") == "\N{MINUS SIGN}1.2"
    assert difference_unit("roc_auc") == "points"
    assert metric_value(0.9412, "log_loss") == "0.941"
    assert metric_interval(0.25, 1.5, "log_loss", 0.5) == "0.250 to 1.500"
    assert metric_difference(0.012, "mae", 0.5) == "+0.012"
    assert difference_unit("mae") == "MAE"
    assert metric_value(math.nan, "accuracy") == metric_value(None, "accuracy") == "—"


def test_what_is_below_the_last_digit_is_never_rounded_to_zero_or_up_to_one() -> None:
    assert [percent(share, 0) for share in (0, 0.0001, 0.0049, 0.007, 0.01)] == [
        *("0\xa0%", "<1\xa0%", "<1\xa0%", "<1\xa0%", "1\xa0%"),
    ]


def test_ticks_of_logarithmic_axes_are_round() -> None:
    assert log_ticks(0.015, 1.2) == [0.02, 0.05, 0.1, 0.2, 0.5, 1]
    assert log_ticks(60, 2500) == [100, 200, 500, 1000, 2000]
    assert log_ticks(1, 1e9)[:2] == [1, 100]
    assert log_ticks(3.1, 3.9) == [3.1, 3.9]
    assert log_ticks(9, 12) == [9, 10, 12]


def test_rough_durations_are_words() -> None:
    assert [rough_duration(minutes) for minutes in (0.003, 0.6, 1.2, 8.4, 89, 90, 600)] == [
        "less than a minute", "less than a minute", "about 1 minute", "about 8 minutes", "about 89 minutes",
        "about 1.5 hours", "about 10.0 hours",
    ]  # fmt: skip


def test_sentences_of_the_command_line_get_the_minus_sign_of_pages() -> None:
    sentence = "by -1.2 points (-3 to +0.4), of 2024-05-06 and x-1: give `--near -1`"
    assert with_minus(sentence) == sentence.replace(" -1.2", " \N{MINUS SIGN}1.2").replace("(-3", "(\N{MINUS SIGN}3")
