"""The page and the picture of a benchmark: they follow its numbers, and say what was not measured."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from page import ODD, Browser, Page
from PIL import Image
from sample_benchmark import sample_benchmark

from embedpipe.errors import UsageError
from embedpipe.finetuning.benchmark import charts
from embedpipe.finetuning.benchmark.benchmark_data import LEARNERS, Savings
from embedpipe.finetuning.benchmark.charts import LOOKS, mean_curve
from embedpipe.finetuning.benchmark.page import points
from embedpipe.finetuning.benchmark.result import Benchmark
from embedpipe.statistics import Estimate


def words_of(path: Path) -> str:
    return Page(path).words.replace("\N{MINUS SIGN}", "-").replace("\xa0", " ")


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The text on the page of the default sample."""
    path = sample_benchmark().to_html(tmp_path_factory.mktemp("new") / "folder" / "page.html")
    assert [file.name for file in path.parent.iterdir()] == ["page.html"]
    return words_of(path)


def test_page_of_a_store_is_named_as_its_source(tmp_path: Path) -> None:
    result = replace(sample_benchmark(), data="/data/clothes.features")
    assert words_of(result.to_html(tmp_path / "page.html")).startswith("clothes: lp-ft has accuracy")


def test_page_names_data_and_sizes(words: str) -> None:
    assert "Compared: linear-probe, lp-ft, finetune, scratch, on shared/data/clothing" in words
    assert "with timm/tf_efficientnet_lite0 on cpu" in words
    assert "3 classes, 100 to 1,000 labels (4 numbers of labels), 3 seeds, 372 test rows" in words
    assert "near-duplicates were kept together" in words
    assert "ab" * 32 in words


def test_page_summary_compares_the_winner(words: str) -> None:
    assert "With 1,000 labels, lp-ft has the highest accuracy: 89.9 % (95 % interval 86.1 to 92.9 %; mean of 3" in words
    assert "? No significant difference from linear-probe: +1.3 points (95 % interval -0.4 to +3.0)" in words
    assert "▲ Above finetune by 2.8 points (95 % interval +1.1 to +4.5)" in words
    assert "It is undecided whether the linear probe is enough: the best network, lp-ft, gains +1.3 points" in words
    assert "A run of lp-ft takes 6 min 0 s, one of linear-probe 23 s." in words
    assert "For the 88.6 % of linear-probe with 1,000 labels, lp-ft needs 55 % of the labels (44 to 71 %) and" in words


def test_page_tables_show_the_numbers(words: str) -> None:
    assert "lp-ft minus finetune ▲ +78.0 +76.3 to +79.7 ▲ +41.6 +39.9 to +43.3 ▲ +1.23 +0.45 to +2.01 ▲ +2.8" in words
    assert "lp-ft linear-probe 88.6 % 55 % 44 to 71 % 550 instead of 1,000 55 % 38 to 82 %" in words
    assert "finetune linear-probe 88.6 % — unknown — — unknown" in words
    assert "lp-ft 88.0 % 89.4 % 91.7 % 4 to 6 of 10 6 min 0 s" in words
    assert "gaussian noise 67.6 % 73.4 % 64.6 % 32.3 %" in words
    assert "all corruptions 57.1 % 65.1 % 53.3 % 23.3 %" in words
    assert re.search(r"linear-probe 100 0 \d\d\.\d % [\d.]+ — 5 s", words)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (
            0.01,
            0.05,
            [
                "The linear probe is not enough for the highest accuracy: lp-ft gains +3.0 points",
                "▲ Above linear-probe by 3.0 points",
            ],
        ),
        (-0.004, 0.008, ["The linear probe is enough if one point is negligible: the best network, lp-ft"]),
        (-0.05, -0.01, ["The linear probe is enough: the best network, lp-ft, is below it: -3.0 points"]),
        (-0.01, 0.02, ["It is undecided whether the linear probe is enough: the best network"]),
        (
            -1,
            1,
            [
                "1.3 points above linear-probe, without an interval: it may be chance",
                "lp-ft gains +1.3 points, without an interval",
            ],
        ),
        (math.nan, math.nan, ["lp-ft gains +1.3 points, without an interval", "no interval"]),
    ],
)
def test_page_says_whether_the_probe_is_enough(tmp_path: Path, low: float, high: float, expected: list[str]) -> None:
    result = sample_benchmark(["linear-probe", "lp-ft"], [1000])
    accuracy = Estimate((low + high) / 2, low, high)
    result.differences = [replace(difference, accuracy=accuracy) for difference in result.differences]
    words = words_of(result.to_html(tmp_path / "page.html"))
    assert [sentence for sentence in expected if sentence not in words] == []


def test_savings_without_lower_or_upper_end(tmp_path: Path) -> None:
    result = sample_benchmark(["linear-probe", "lp-ft"])
    at_once, wide = Estimate(0.1, 0.0, 0.131), Estimate(0.4, 0.002, 42.0)
    result.savings = [Savings("lp-ft", "linear-probe", 0.886, at_once, wide)]
    words = words_of(result.to_html(tmp_path / "page.html"))
    assert "needs 10 % of the labels (at most 13 %) and 40 % of the training time (<1 to > 1,000 %)" in words
    result.savings = [Savings("lp-ft", "linear-probe", 0.886, at_once, None)]
    words = words_of(result.to_html(tmp_path / "page.html"))
    assert "lp-ft needs 10 % of the labels (at most 13 %)." in words
    assert "10 % at most 13 % 100 instead of 1,000 — unknown" in words


def test_difference_is_read_in_both_directions(tmp_path: Path) -> None:
    result = sample_benchmark(["linear-probe", "finetune"])
    assert result.cells_of("linear-probe", 1000)[0].accuracy > result.cells_of("finetune", 1000)[0].accuracy
    words = words_of(result.to_html(tmp_path / "page.html"))
    assert "With 1,000 labels, linear-probe has the highest accuracy" in words
    assert "? No significant difference from finetune: +1.5 points (95 % interval -0.2 to +3.2)" in words
    assert "No savings of labels or time by linear-probe were found" in words


def test_page_of_one_cell_has_no_charts(tmp_path: Path) -> None:
    page = Page(sample_benchmark(["linear-probe"], [500], 1, []).to_html(tmp_path / "page.htm"))
    assert "svg" not in page.tags
    for sentence in (
        "Measured: linear-probe, on",
        "With 500 labels, linear-probe has an accuracy of 87.1 % (one seed, so no interval)",
        "Only the linear probe was measured",
        "Only one number of labels was measured, so there are no curves",
        "No learner was trained in epochs",
        "No corrupted or shifted test data were measured",
        "Only one learner was measured, so there are no differences",
        "No two learners could be compared at equal accuracy",
    ):
        assert sentence in page.words
    assert "Hendrycks" not in page.words


@pytest.mark.long
def test_page_with_missing_estimates_cells_and_times(tmp_path: Path) -> None:
    result = sample_benchmark(severities=[])
    result.differences = [
        replace(difference, after_one_epoch=None, slope=None, shifted_accuracy=None)
        for difference in result.differences
    ]
    result.savings = [replace(savings, labels=None, seconds=None) for savings in result.savings]
    result.cells = [cell for cell in result.cells if (cell.learner, cell.labels) != ("scratch", 1000)]
    result.notes = []
    page = Page(result.to_html(tmp_path / "page.html"))
    assert "No savings of labels or time by lp-ft were found" in page.words
    assert "— not run" in page.words
    assert page.tags.count("svg") == 3
    result.cells = [replace(cell, seconds=0.0) for cell in result.cells]
    result.differences = []
    page = Page(result.to_html(tmp_path / "page.html"))
    assert "Training times were not measured" in page.words
    assert "A run of lp-ft takes" not in page.words
    assert "No pair of learners was compared" in page.words


def test_shifted_rows_of_the_user_have_no_severity(tmp_path: Path) -> None:
    result = sample_benchmark(severities=[])
    result.cells = [replace(cell, shifted={"shifted": [0.625]}) for cell in result.cells]
    page = Page(result.to_html(tmp_path / "page.html"))
    assert page.tags.count("svg") == 3
    assert "Learners trained with 1,000 labels, on shifted rows of your own." in page.words
    assert "your own shifted rows 62.5 %" in page.words
    assert "all corruptions" not in page.words


def test_odd_names_are_escaped(tmp_path: Path) -> None:
    result = replace(sample_benchmark(), backbone=ODD[1], device=ODD[2], label=ODD[3], classes=[*ODD, 7], notes=ODD)
    result.cells = [replace(cell, shifted={ODD[0]: [0.5, 0.4, 0.3]}) for cell in result.cells]
    for data in (*ODD[:3], ODD[6]):
        result.data = data
        page = Page(result.to_html(tmp_path / "page.html"))
        assert page.tags.count("svg") == 4
    for name in ODD[:4]:
        assert name in page.words
    assert "{{ 7 * 7 }}" in page.words
    assert "\0" not in page.source
    with Image.open(result.plot(tmp_path / "odd.png")) as picture:
        assert picture.size == (1120, 760)


@pytest.mark.long
def test_page_of_many_cells_is_below_3_mb(tmp_path: Path) -> None:
    result = sample_benchmark(label_counts=[100 * 2**i for i in range(8)], seeds=20, severities=[1, 2, 3, 4, 5])
    path = result.to_html(tmp_path / "page.html")
    assert path.stat().st_size < 3_000_000
    assert "All 640 cells" in Page(path).words


def test_wrong_names_and_empty_benchmarks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"must end in \.html, got .*page\.pdf"):
        sample_benchmark().to_html(tmp_path / "page.pdf")
    with pytest.raises(UsageError, match=r"must end in \.png, got .*page\.svg"):
        sample_benchmark().plot(tmp_path / "page.svg")
    empty = replace(sample_benchmark(), cells=[])
    with pytest.raises(UsageError, match="at least one cell"):
        empty.to_html(tmp_path / "page.html")
    with pytest.raises(UsageError, match="at least one cell"):
        empty.plot(tmp_path / "page.png")
    assert list(tmp_path.iterdir()) == []


def test_result_shows_itself_in_one_line_and_as_html() -> None:
    result = sample_benchmark(["linear-probe", "lp-ft"], [100, 1000])
    assert repr(result) == "Benchmark(linear-probe, lp-ft on 100, 1,000 labels: 12 cells, 372 test rows)"
    shown = result._repr_html_()
    assert "<caption>Benchmark</caption>" in shown
    assert ">linear-probe 88.6 %, lp-ft 89.9 %</td>" in shown


CHARTS = {
    "labels": lambda result: charts.draw_accuracy(result, "labels"),
    "seconds": lambda result: charts.draw_accuracy(result, "seconds"),
    "training": lambda result: charts.draw_training(result, 1000),
    "robustness": lambda result: charts.draw_robustness(result, 1000),
}


@pytest.mark.parametrize("name", CHARTS)
def test_charts_are_deterministic_and_follow_the_numbers(name: str) -> None:
    result, other = sample_benchmark(), sample_benchmark()
    last = other.cells[-1]
    other.cells[-1] = replace(
        last,
        accuracy=0.25,
        initial_accuracy=0.4,
        seconds=900.0,
        shifted={"fog": [0.2, 0.2, 0.2]},
        epochs=last.epochs[:7],
        best_epoch=6,
    )
    drawn = CHARTS[name](result)
    assert drawn == CHARTS[name](result)
    assert drawn != CHARTS[name](other)
    assert "<title>" in drawn
    for learner, ink in (("linear-probe", "ink"), ("lp-ft", "blue"), ("finetune", "orange"), ("scratch", "faint")):
        assert f">{learner}</text>" in drawn
        assert LOOKS[learner][0] == ink
        assert f"var(--{ink})" in drawn
    assert "#0" not in re.sub(r'(id|href)="[^"]*"|url\([^)]*\)', "", drawn)


@pytest.mark.parametrize("learner", LEARNERS)
def test_intervals_of_means_cover_the_seeds(learner: str) -> None:
    for mean in mean_curve(sample_benchmark(), learner):
        accuracies = [cell.accuracy for cell in mean.cells]
        assert mean.value == pytest.approx(np.mean(accuracies))
        assert mean.interval
        assert 0 <= mean.interval.low < min(accuracies)
        assert max(accuracies) < mean.interval.high <= 1


def test_intervals_of_means_shrink_with_test_rows_and_need_two_seeds() -> None:
    result = sample_benchmark()
    wide = mean_curve(result, "linear-probe")[0].interval
    result.test_rows = 100_000
    narrow = mean_curve(result, "linear-probe")[0].interval
    assert wide
    assert narrow
    assert narrow.high - narrow.low < wide.high - wide.low
    one_seed = mean_curve(sample_benchmark(seeds=1), "linear-probe")
    assert [mean.interval for mean in one_seed] == [None] * 4


def test_picture_shows_every_learner(tmp_path: Path) -> None:
    def count_pixels(result: Benchmark) -> list[int]:
        pixels = np.asarray(Image.open(result.plot(tmp_path / "new" / "curves.png")).convert("RGB"), int)
        colours = [(0, 119, 187), (238, 119, 51)]  # of lp-ft and finetune
        return [int((np.abs(pixels - colour).max(axis=2) < 3).sum()) for colour in colours]

    assert min(count_pixels(sample_benchmark())) > 500
    lp_ft, finetune = count_pixels(sample_benchmark(["linear-probe", "lp-ft"], [100, 1000], 1))
    assert lp_ft > 500
    assert finetune == 0
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["curves.png"]
    assert count_pixels(sample_benchmark(["lp-ft"], [100], 2))[0] > 50


def test_points_are_formatted_with_sign() -> None:
    values = (0.0213, -0.0213, 0.0004, 0.0, None, math.nan)
    assert [points(x).replace("\N{MINUS SIGN}", "-") for x in values] == ["+2.1", "-2.1", "0.0", "0.0", "—", "—"]
    assert points(0.00123, 2, sign=False) == "0.12"


@pytest.mark.long
def test_page_opens_in_a_browser_without_a_network(tmp_path: Path, browser: Browser) -> None:
    result = replace(sample_benchmark(), data=ODD[1], backbone=ODD[4], device=ODD[0], classes=ODD, notes=ODD)
    page = result.to_html(tmp_path / "page.html")
    shades = {}
    for width, scheme in ((1280, "light"), (390, "dark")):
        wide = browser.open_alone(page, width, scheme)
        assert len(wide) == 4
        assert min(wide) > 300
        shades[scheme] = np.median(np.asarray(browser.picture()))
    assert shades["dark"] < 60 < 240 < shades["light"]


def test_two_seeds_show_no_intervals(tmp_path: Path) -> None:
    result = sample_benchmark(["linear-probe", "lp-ft"], [100, 1000], 2)
    words = words_of(result.to_html(tmp_path / "page.html"))
    assert "(2 seeds, so no interval)" in words
    assert "points above linear-probe, without an interval: it may be chance" in words
    assert "95 % interval" not in words.partition("How to read this page")[0]
    assert all(mean.interval is None for mean in mean_curve(result, "lp-ft"))
