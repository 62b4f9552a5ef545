"""The page and the picture of a benchmark of learners: they follow the figures and say what was not measured."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from page import ODD, Browser, Page
from PIL import Image

from embedpipe.errors import UsageError
from embedpipe.finetuning.benchmark import charts as learning_charts
from embedpipe.finetuning.benchmark.charts import LOOKS, draw_curves, take_means
from embedpipe.finetuning.benchmark.page import points, write_benchmark
from embedpipe.finetuning.benchmark.result import LEARNERS, Benchmark, Cell, Learner, LearnerDifference, Savings
from embedpipe.finetuning.training.epochs import Epoch
from embedpipe.statistics import Estimate

#: Of each learner: accuracy with endless labels, and labels at which half the way from chance is done.
SHAPES = {"linear-probe": (0.9, 25), "lp-ft": (0.93, 28), "finetune": (0.93, 70), "scratch": (0.75, 600)}


def reached(learner: Learner, labels: int) -> float:
    high, half = SHAPES[learner]
    return 0.1 + (high - 0.1) * labels / (labels + half)


def epochs_of(learner: Learner, labels: int, seed: int) -> list[Epoch]:
    """Return what training was like: it comes near what it reaches, then stops early."""
    if learner == "linear-probe":
        return []
    start, end = reached("linear-probe", labels) if learner == "lp-ft" else 0.1, reached(learner, labels)
    count, speed = 9 + seed % 3, 4 if learner == "scratch" else 1.5
    noise = np.random.default_rng(seed).normal(0, 0.008, 20)
    left = [math.exp(-i / speed) for i in range(count)]
    accuracies = [start, *(end - (end - start) * left[i] + noise[i] for i in range(1, count))]
    return [
        Epoch(i, 2 * left[i] if i else None, accuracies[i], 0.6, labels, 0.04 * labels if i else 0.0)
        for i in range(count)
    ]


def cell(learner: Learner, labels: int, seed: int, severities: Sequence[int]) -> Cell:
    rng = np.random.default_rng([LEARNERS.index(learner), labels, seed])
    accuracy = float(np.clip(round((reached(learner, labels) + rng.normal(0, 0.012)) * 372) / 372, 0, 1))
    epochs = epochs_of(learner, labels, seed)
    lost = {"linear-probe": 0.07, "lp-ft": 0.055, "finetune": 0.075, "scratch": 0.06}[learner]
    return Cell(
        learner=learner,
        labels=labels,
        seed=seed,
        accuracy=accuracy,
        log_loss=0.2 + 2.5 * (1 - accuracy),
        initial_accuracy=reached("linear-probe", labels) if learner in ("linear-probe", "lp-ft") else 0.1,
        epochs=epochs,
        best_epoch=max(epochs, key=lambda epoch: epoch.validation_accuracy).number if epochs else 0,
        seconds=3.0 + 0.02 * labels if learner == "linear-probe" else sum(epoch.seconds for epoch in epochs),
        shifted={
            kind: [accuracy - lost * (1 + i / 3) * severity for severity in severities]
            for i, kind in enumerate(("gaussian_noise", "defocus_blur", "fog", "jpeg_compression"))
        }
        if severities
        else {},
    )


def benchmark(
    learners: Sequence[Learner] = LEARNERS,
    label_counts: Sequence[int] = (100, 200, 500, 1000),
    seeds: int = 3,
    severities: Sequence[int] = (1, 3, 5),
) -> Benchmark:
    found = Benchmark(
        data="shared/data/clothing",
        backbone="timm/tf_efficientnet_lite0",
        label="label",
        device="cpu",
        classes=["dress", "hat", "shirt"],
        label_counts=list(label_counts),
        seeds=list(range(seeds)),
        learners=list(learners),
        test_rows=372,
        severities=list(severities),
        cells=[
            cell(one, labels, seed, severities) for labels in label_counts for one in learners for seed in range(seeds)
        ],
        differences=[],
        savings=[],
        splits_id="ab" * 32,
        notes=["7 rows in 3 groups of near-duplicates were kept together"],
        seconds=4321.0,
    )
    pairs: tuple[tuple[Learner, Learner], ...] = (
        ("lp-ft", "linear-probe"), ("finetune", "linear-probe"), ("lp-ft", "finetune"), ("lp-ft", "scratch"),
        ("linear-probe", "scratch"),
    )  # fmt: skip
    pairs = tuple((one, reference) for one, reference in pairs if {one, reference} <= set(learners))
    found.differences = [contrast(found, one, reference, labels) for labels in label_counts for one, reference in pairs]
    found.savings = [saved(found, one, reference) for one, reference in pairs]
    return found


def contrast(found: Benchmark, learner: Learner, reference: Learner, labels: int) -> LearnerDifference:
    both = list(zip(found.cells_of(learner, labels), found.cells_of(reference, labels), strict=True))

    def at(values: list[float], half: float = 0.017) -> Estimate:
        return Estimate(mean := float(np.mean(values)), mean - half, mean + half)

    trained = all(one.epochs and other.epochs for one, other in both)
    after = (
        at([one.epochs[1].validation_accuracy - other.epochs[1].validation_accuracy for one, other in both])
        if trained
        else None
    )
    robust = [
        one.shifted_accuracy - other.shifted_accuracy
        for one, other in both
        if one.shifted_accuracy is not None and other.shifted_accuracy is not None
    ]
    return LearnerDifference(
        learner,
        reference,
        labels,
        accuracy=at([one.accuracy - other.accuracy for one, other in both]),
        initial_accuracy=at([one.initial_accuracy - other.initial_accuracy for one, other in both]),
        after_one_epoch=after,
        slope=Estimate(0.0123, 0.0045, 0.0201) if trained else None,
        shifted_accuracy=at(robust, 0.02) if robust else None,
    )


def saved(found: Benchmark, learner: Learner, reference: Learner) -> Savings:
    of, needs = take_means(found, reference)[-1].value, take_means(found, learner)
    if needs[-1].value < of:
        return Savings(learner, reference, of, None, None)
    labels = np.exp(np.interp(of, [mean.value for mean in needs], np.log([mean.labels for mean in needs])))
    share = float(labels / found.label_counts[-1])
    return Savings(
        learner, reference, of, Estimate(share, 0.8 * share, 1.3 * share), Estimate(share, 0.7 * share, 1.5 * share)
    )


def test_says_what_was_found(tmp_path: Path) -> None:
    to = write_benchmark(benchmark(), tmp_path / "new" / "page.html")
    assert [path.name for path in to.parent.iterdir()] == ["page.html"]
    words = Page(to).words.replace("\N{MINUS SIGN}", "-").replace("\xa0", " ")
    assert "Compared: linear-probe, lp-ft, finetune, scratch, on shared/data/clothing" in words
    assert "with timm/tf_efficientnet_lite0 on cpu" in words
    assert "3 classes, 100 to 1,000 labels (4 budgets), 3 seeds, 372 test rows" in words
    assert "With 1,000 labels, lp-ft has the highest accuracy: 89.9 % (95 % interval 86.1 to 92.9 %; mean of 3" in words
    assert "? Not told apart from linear-probe: +1.3 points (95 % interval -0.4 to +3.0)" in words
    assert "▲ Above finetune by 2.8 points (95 % interval +1.1 to +4.5)" in words
    assert "Whether the probe is enough cannot be told: the best of the others, lp-ft, gains +1.3 points" in words
    assert "A run of it takes 6 min 0 s, one of the probe 23 s." in words
    assert (
        "For the 88.6 % of linear-probe with 1,000 labels, lp-ft needs 55 % of the labels (44 to 71 %) and 55 % of"
        in words
    )
    assert "lp-ft less finetune ▲ +78.0 +76.3 to +79.7 ▲ +41.6 +39.9 to +43.3 ▲ +1.23 +0.45 to +2.01 ▲ +2.8" in words
    assert "lp-ft linear-probe 88.6 % 55 % 44 to 71 % 550 instead of 1,000 55 % 38 to 82 %" in words
    assert "finetune linear-probe 88.6 % — not known — — not known" in words
    assert "lp-ft 88.0 % 89.4 % 91.7 % 4 to 6 of 10 6 min 0 s" in words
    assert "gaussian noise 67.6 % 73.4 % 64.6 % 32.3 %" in words
    assert "all corruptions 57.1 % 65.1 % 53.3 % 23.3 %" in words
    assert re.search(r"linear-probe 100 0 \d\d\.\d % [\d.]+ — 5 s", words)
    assert "near-duplicates were kept together" in words
    assert "ab" * 32 in words


def test_what_the_probe_is_worth(tmp_path: Path) -> None:
    def says(low: float, high: float) -> str:
        found = benchmark(["linear-probe", "lp-ft"])
        at = Estimate((low + high) / 2, low, high)
        found.differences = [replace(one, accuracy=at) for one in found.differences]
        return Page(write_benchmark(found, tmp_path / "page.html")).words

    assert "The probe is not enough for the highest accuracy: lp-ft gains +3.0 points" in says(0.01, 0.05)
    assert "▲ Above linear-probe by 3.0 points" in says(0.01, 0.05)
    assert "The probe is enough where a point does not matter: lp-ft" in says(-0.004, 0.008)
    assert "The probe is enough: the best of the others, lp-ft, is below it" in says(-0.05, -0.01)
    assert "Whether the probe is enough cannot be told: the best of the others" in says(-0.01, 0.02)
    for unknown in (says(-1, 1), says(math.nan, math.nan)):
        assert "1.3 points above linear-probe, without an interval: chance is not ruled out" in unknown
        assert "lp-ft gains +1.3 points, without an interval" in unknown
        assert "no interval" in unknown


def test_savings_without_an_end(tmp_path: Path) -> None:
    found = benchmark(["linear-probe", "lp-ft"])
    at_once, wide = Estimate(0.1, 0.0, 0.131), Estimate(0.4, 0.002, 42.0)
    found.savings = [Savings("lp-ft", "linear-probe", 0.886, at_once, wide)]
    words = Page(write_benchmark(found, tmp_path / "page.html")).words
    assert "needs 10 % of the labels (at most 13 %) and 40 % of the training time (<1 to > 1,000 %)" in words
    found.savings = [Savings("lp-ft", "linear-probe", 0.886, at_once, None)]
    words = Page(write_benchmark(found, tmp_path / "page.html")).words
    assert "lp-ft needs 10 % of the labels (at most 13 %)." in words
    assert "10 % at most 13 % 100 instead of 1,000 — not known" in words


def test_a_contrast_is_read_both_ways(tmp_path: Path) -> None:
    found = benchmark(["linear-probe", "finetune"])
    assert found.cells_of("linear-probe", 1000)[0].accuracy > found.cells_of("finetune", 1000)[0].accuracy
    words = Page(write_benchmark(found, tmp_path / "page.html")).words
    assert "With 1,000 labels, linear-probe has the highest accuracy" in words
    assert (
        "? Not told apart from finetune: +1.5 points (95\xa0% interval \N{MINUS SIGN}0.2 to +3.2)".replace("\xa0", " ")
        in words
    )
    assert "No saving of labels or time by linear-probe was found" in words


def test_what_is_missing_is_said_and_not_drawn(tmp_path: Path) -> None:
    page = Page(write_benchmark(benchmark(["linear-probe"], [500], 1, []), tmp_path / "page.htm"))
    assert "svg" not in page.tags
    for said in (
        "Measured: linear-probe, on",
        "With 500 labels, linear-probe has an accuracy of 87.1 % (one seed, so no interval)",
        "Only the probe was measured",
        "There is one label budget, so there are no curves",
        "No learner here was trained in epochs",
        "No corrupted or shifted test data were measured",
        "One learner was measured, so there is nothing to hold it against",
        "No two learners could be compared for equal accuracy",
    ):
        assert said in page.words
    assert "Hendrycks" not in page.words


def test_estimates_and_cells_that_are_missing(tmp_path: Path) -> None:
    found = benchmark(severities=[])
    found.differences = [
        replace(one, after_one_epoch=None, slope=None, shifted_accuracy=None) for one in found.differences
    ]
    found.savings = [replace(one, labels=None, seconds=None) for one in found.savings]
    found.cells = [one for one in found.cells if (one.learner, one.labels) != ("scratch", 1000)]
    found.notes = []
    page = Page(write_benchmark(found, tmp_path / "page.html"))
    assert "No saving of labels or time by lp-ft was found" in page.words
    assert "— not run" in page.words
    assert page.tags.count("svg") == 3
    found.cells = [replace(one, seconds=0.0) for one in found.cells]
    page = Page(write_benchmark(found, tmp_path / "page.html"))
    assert "Training times were not measured" in page.words
    assert "A run of it takes" not in page.words
    found.differences = []
    assert "No pair of learners was compared" in Page(write_benchmark(found, tmp_path / "page.html")).words


def test_rows_of_the_users_own_have_no_severity(tmp_path: Path) -> None:
    found = benchmark(severities=[])
    found.cells = [replace(one, shifted={"shifted": [0.625]}) for one in found.cells]
    page = Page(write_benchmark(found, tmp_path / "page.html"))
    assert page.tags.count("svg") == 3
    assert "The learners of 1,000 labels, on shifted rows of your own." in page.words
    assert "your own shifted rows 62.5 %" in page.words
    assert "all corruptions" not in page.words


def test_names_of_any_kind_are_only_text(tmp_path: Path) -> None:
    found = replace(benchmark(), backbone=ODD[1], device=ODD[2], label=ODD[3], classes=[*ODD, 7], notes=ODD)
    found.cells = [replace(one, shifted={ODD[0]: [0.5, 0.4, 0.3]}) for one in found.cells]
    for data in (*ODD[:3], ODD[6]):
        found.data = data
        page = Page(write_benchmark(found, tmp_path / "page.html"))
        assert page.tags.count("svg") == 4
    for name in ODD[:4]:
        assert name in page.words
    assert "{{ 7 * 7 }}" in page.words
    assert "\0" not in page.source
    with Image.open(draw_curves(found, tmp_path / "odd.png")) as picture:
        assert picture.size == (1120, 760)


def test_many_cells_stay_small(tmp_path: Path) -> None:
    found = benchmark(label_counts=[100 * 2**i for i in range(8)], seeds=20, severities=[1, 2, 3, 4, 5])
    to = write_benchmark(found, tmp_path / "page.html")
    assert to.stat().st_size < 3_000_000
    assert "All 640 cells" in Page(to).words


def test_refuses_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"must end in \.html, got .*page\.pdf"):
        write_benchmark(benchmark(), tmp_path / "page.pdf")
    with pytest.raises(UsageError, match=r"must end in \.png, got .*page\.svg"):
        draw_curves(benchmark(), tmp_path / "page.svg")
    nothing = replace(benchmark(), cells=[])
    with pytest.raises(UsageError, match="no cells"):
        write_benchmark(nothing, tmp_path / "page.html")
    with pytest.raises(UsageError, match="no cells"):
        draw_curves(nothing, tmp_path / "page.png")
    assert list(tmp_path.iterdir()) == []


def test_charts_are_the_same_each_time_and_follow_the_figures() -> None:
    draw = {
        "labels": lambda found: learning_charts.draw_accuracy(found, "labels"),
        "seconds": lambda found: learning_charts.draw_accuracy(found, "seconds"),
        "training": lambda found: learning_charts.draw_training(found, 1000),
        "robustness": lambda found: learning_charts.draw_robustness(found, 1000),
    }
    found, other = benchmark(), benchmark()
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
    for name, chart in draw.items():
        drawn = chart(found)
        assert drawn == chart(found)
        assert drawn != chart(other), name
        assert "<title>" in drawn
        for learner, ink in (("linear-probe", "ink"), ("lp-ft", "blue"), ("finetune", "orange"), ("scratch", "faint")):
            assert f">{learner}</text>" in drawn
            assert LOOKS[learner][0] == ink
            assert f"var(--{ink})" in drawn
        assert "#0" not in re.sub(r'(id|href)="[^"]*"|url\([^)]*\)', "", drawn), name


def test_intervals_of_means_hold_seeds_and_rows() -> None:
    found = benchmark()
    for learner in LEARNERS:
        for mean in take_means(found, learner):
            values = [one.accuracy for one in mean.cells]
            assert mean.value == pytest.approx(np.mean(values))
            assert mean.interval
            assert 0 <= mean.interval.low < min(values)
            assert max(values) < mean.interval.high <= 1
    wide = take_means(found, "linear-probe")[0].interval
    found.test_rows = 100_000
    narrow = take_means(found, "linear-probe")[0].interval
    assert wide
    assert narrow
    assert narrow.high - narrow.low < wide.high - wide.low
    one_seed = take_means(benchmark(seeds=1), "linear-probe")
    assert [mean.interval for mean in one_seed] == [None] * 4


def test_the_picture_shows_every_learner(tmp_path: Path) -> None:
    def inks(found: Benchmark) -> list[int]:
        pixels = np.asarray(Image.open(draw_curves(found, tmp_path / "new" / "curves.png")).convert("RGB"), int)
        colours = [(0, 119, 187), (238, 119, 51)]  # of lp-ft and plain
        return [int((np.abs(pixels - colour).max(axis=2) < 3).sum()) for colour in colours]

    both = inks(benchmark())
    assert min(both) > 500
    hand_off, plain = inks(benchmark(["linear-probe", "lp-ft"], [100, 1000], 1))
    assert hand_off > 500
    assert plain == 0
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["curves.png"]
    assert inks(benchmark(["lp-ft"], [100], 2))[0] > 50


def test_points() -> None:
    values = (0.0213, -0.0213, 0.0004, 0.0, None, math.nan)
    assert [points(x).replace("\N{MINUS SIGN}", "-") for x in values] == ["+2.1", "-2.1", "0.0", "0.0", "—", "—"]
    assert points(0.00123, 2, sign=False) == "0.12"


def test_in_a_browser_without_a_network(tmp_path: Path, browser: Browser) -> None:
    found = replace(benchmark(), data=ODD[1], backbone=ODD[4], device=ODD[0], classes=ODD, notes=ODD)
    page = write_benchmark(found, tmp_path / "page.html")
    shades = {}
    for width, scheme in ((1280, "light"), (390, "dark")):
        wide = browser.open_alone(page, width, scheme)
        assert len(wide) == 4
        assert min(wide) > 300
        shades[scheme] = np.median(np.asarray(browser.picture()))
    assert shades["dark"] < 60 < 240 < shades["light"]
