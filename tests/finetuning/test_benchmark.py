"""Learning curves: fair draws, the same pictures for all learners, resumption, and what differences are worth."""

from __future__ import annotations

import copy
import csv
import dataclasses
import itertools
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from coloured import colours
from conftest import TINY
from forked import Forks
from scipy.special import log_softmax

import embedpipe
from embedpipe.errors import TrainingDataError, UsageError
from embedpipe.estimators.linear.logistic_regression import TunedLogisticRegression
from embedpipe.estimators.wrappers.calibration import TemperatureCalibratedClassifier
from embedpipe.finetuning import BenchmarkOptions
from embedpipe.finetuning.benchmark.benchmark import benchmark
from embedpipe.finetuning.benchmark.cell_files import RunFolder
from embedpipe.finetuning.benchmark.corruptions import corrupt
from embedpipe.finetuning.benchmark.differences import find_differences, find_savings
from embedpipe.finetuning.benchmark.label_sampling import draw_labels, ladders, smallest_label_count
from embedpipe.finetuning.benchmark.learners import redraw
from embedpipe.finetuning.benchmark.result import LEARNERS, Benchmark, Cell
from embedpipe.finetuning.benchmark.shifted_images import seed_of
from embedpipe.finetuning.options import SplitOptions
from embedpipe.finetuning.split_rows import read_split_rows
from embedpipe.finetuning.training.epochs import Epoch
from embedpipe.finetuning.training.linear_head import fold_head
from embedpipe.heads.training_data import read_finite
from embedpipe.statistics import Estimate

#: The pictures look alike to the small network, and it learns fast.
FAST: dict[str, Any] = {"epochs": 4, "batch_size": 8, "learning_rate": 0.01, "trust": True, "near_duplicates": "off"}
SHIFT: dict[str, Any] = {"corruptions": ("gaussian_noise", "fog"), "severities": (1, 5)}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of ninety pictures of three classes."""
    root = tmp_path_factory.mktemp("made")
    embedpipe.embed(colours(root / "photos", 90), root / "store", backbone=TINY)
    return root / "store"


@pytest.fixture(scope="module")
def found(made: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Benchmark, Path]:
    """A benchmark of all learners, and its folder."""
    folder = tmp_path_factory.mktemp("found") / "run"
    return benchmark(made, to=folder, seeds=2, label_counts=(24, 72), **FAST, **SHIFT), folder


def timeless(one: Benchmark) -> dict[str, Any]:
    """Return what does not depend on how fast the machine was."""

    def without(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: without(each) for key, each in value.items() if key != "seconds"}
        return [without(each) for each in value] if isinstance(value, list) else value

    return without(one.to_dict())


def test_all_learners_learn_from_the_same_rows(found: tuple[Benchmark, Path]) -> None:
    result, folder = found
    assert (result.label_counts, result.seeds, result.learners) == ([24, 72], [0, 1], list(LEARNERS))
    assert len(result.cells) == 16
    assert result.test_rows == 18
    for cell in result.cells:
        assert cell.accuracy == cell.correct_rows(18).mean() > 0.6
        assert {name: len(values) for name, values in cell.shifted.items()} == {"gaussian_noise": 2, "fog": 2}
        assert cell.shifted_accuracy == pytest.approx(np.mean(cell.shifted_correct), abs=1e-5)
        assert cell.seconds > 0
        assert cell.initial_accuracy == (cell.epochs[0].validation_accuracy if cell.epochs else cell.initial_accuracy)
        assert bool(cell.epochs) == (cell.learner != "linear-probe")
    for labels in result.label_counts:
        probes, tuned = result.cells_of("linear-probe", labels), result.cells_of("lp-ft", labels)
        assert [cell.initial_accuracy for cell in probes] == [cell.initial_accuracy for cell in tuned]
        assert max(cell.initial_accuracy for cell in result.cells_of("scratch", labels)) < min(
            cell.initial_accuracy for cell in probes
        )
    assert [(one.learner, one.reference, one.labels) for one in result.differences][:3] == [
        ("lp-ft", "linear-probe", 24), ("lp-ft", "linear-probe", 72), ("lp-ft", "finetune", 24)]  # fmt: skip
    assert [one.initial_accuracy for one in result.differences[:2]] == [
        Estimate(0.0, 0.0, 0.0)
    ] * 2  # they are one and the same
    assert len(result.differences) == 12
    assert len(result.savings) == 6
    assert sorted(path.suffix for path in (folder / "cells").iterdir()) == [".json"] * 16
    assert not list((folder / "pixels").iterdir())


def test_a_finished_run_is_read_and_grows(made: Path, found: tuple[Benchmark, Path]) -> None:
    result, folder = found
    before = {path.name: path.stat().st_mtime_ns for path in (folder / "cells").iterdir()}
    assert benchmark(made, to=folder, seeds=2, label_counts=(24, 72), **FAST, **SHIFT) == result
    grown = benchmark(made, to=folder, seeds=3, label_counts=(24,), learners=["linear-probe"], **FAST, **SHIFT)
    assert grown.cells_of("linear-probe", 24)[:2] == result.cells_of("linear-probe", 24)
    after = {path.name: path.stat().st_mtime_ns for path in (folder / "cells").iterdir()}
    assert after.keys() - before.keys() == {"linear-probe-24-2.json"}
    assert before.items() <= after.items()
    with pytest.raises(UsageError, match="holds a benchmark of other data or options"):
        benchmark(made, to=folder, **{**FAST, "epochs": 5}, **SHIFT)
    with pytest.raises(UsageError, match="holds a benchmark of other data or options"):
        benchmark(made, to=folder, **FAST, corruptions="none")


def test_a_probe_is_the_head_that_fit_makes_on_the_same_pixels(made: Path, found: tuple[Benchmark, Path]) -> None:
    store = embedpipe.FeatureStore(made)
    split = read_split_rows(store, "label", SplitOptions(near_duplicates="off"))
    pool = np.sort(np.concatenate([split.train, split.validation]))
    rows = draw_labels(split.y, split.splits.groups, pool, 24, 1).rows
    X = read_finite(store, store.spec.layers, split.ids)
    head = TemperatureCalibratedClassifier(TunedLogisticRegression()).fit(X[rows], split.classes[split.y[rows]])
    cell = found[0].cells_of("linear-probe", 24)[1]
    np.testing.assert_array_equal(
        cell.correct_rows(18), head.predict(X[split.test]) == split.classes[split.y[split.test]]
    )
    shares = head.predict_proba(X[split.test])[np.arange(18), split.y[split.test]]
    assert cell.log_loss == pytest.approx(-np.log(shares).mean(), rel=1e-4, abs=1e-9)
    backbone = embedpipe.load_backbone(TINY)
    for name, accuracies in cell.shifted.items():
        for severity, accuracy in zip((1, 5), accuracies, strict=True):
            pictures = []
            for row in split.test.tolist():
                pixels = backbone.prepare(Path(made.parent / "photos" / split.ids[row].as_py()).read_bytes()).value
                pictures.append(corrupt(pixels, name, severity, seed_of(split.ids[row].as_py())))
            said = head.predict(backbone.forward(pictures)["embedding"])
            assert (said == split.classes[split.y[split.test]]).mean() == accuracy


def test_networks_see_the_pixels_that_probes_see(made: Path, tmp_path: Path) -> None:
    """A hand-off that is not trained is the head of all its labels, on shifted pictures too."""
    options = {**FAST, "epochs": 0, **SHIFT}
    cell = benchmark(made, to=tmp_path / "run", seeds=1, label_counts=(30,), learners=["lp-ft"], **options).cells[0]
    store = embedpipe.FeatureStore(made)
    split = read_split_rows(store, "label", SplitOptions(near_duplicates="off"))
    pool = np.sort(np.concatenate([split.train, split.validation]))
    rows = draw_labels(split.y, split.splits.groups, pool, 30, 0).rows
    X = read_finite(store, store.spec.layers, split.ids)
    head = TemperatureCalibratedClassifier(TunedLogisticRegression()).fit(X[rows], split.classes[split.y[rows]])
    made_head = dataclasses.replace(embedpipe.fit(store, "logreg", folds=0), estimator=head)
    linear, backbone = fold_head(made_head), embedpipe.load_backbone(TINY)
    right = []
    for name in ("gaussian_noise", "fog"):
        for severity in (1, 5):
            pictures = []
            for row in split.test.tolist():
                pixels = backbone.prepare(Path(made.parent / "photos" / split.ids[row].as_py()).read_bytes()).value
                pictures.append(corrupt(pixels, name, severity, seed_of(split.ids[row].as_py())))
            logits = linear.logits(backbone.forward(pictures)["embedding"])
            right.append(logits.argmax(axis=1) == split.y[split.test])
    np.testing.assert_allclose(cell.shifted_correct, np.mean(right, axis=0), atol=1e-6)
    expected = log_softmax(linear.logits(X[split.test]), axis=1)[np.arange(18), split.y[split.test]]
    assert cell.log_loss == pytest.approx(-expected.mean(), rel=1e-3, abs=1e-6)


def test_draws_are_nested_and_even() -> None:
    rng = np.random.default_rng(0)
    y = rng.choice(4, 400, p=[0.6, 0.25, 0.12, 0.03])
    pool = np.sort(rng.permutation(400)[:300])
    share = np.bincount(y[pool]) / 300
    for seed in range(5):
        draws = [draw_labels(y, None, pool, labels, seed) for labels in (16, 40, 100, 300)]
        for smaller, larger in itertools.pairwise(draws):
            assert {*smaller.rows} < {*larger.rows} <= {*pool}
        for draw in draws:
            assert len(draw.rows) == draw.labels == len(draw.train) + len(draw.validation)
            for side in (draw.train, draw.validation):
                assert np.bincount(y[side], minlength=4).min() >= 2
            if draw.labels >= 100:
                assert len(draw.validation) == pytest.approx(draw.labels / 5, abs=2)
                np.testing.assert_allclose(np.bincount(y[draw.rows]) / draw.labels, share, atol=0.03)
    assert {*draw_labels(y, None, pool, 40, 0).rows} != {*draw_labels(y, None, pool, 40, 1).rows}
    assert smallest_label_count(y, pool) == 16


def test_groups_stay_on_one_side_of_a_draw() -> None:
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(40), 3)
    y = rng.integers(0, 2, 40)[groups]
    draw = draw_labels(y, groups, np.arange(120), 60, 0)
    assert not {*groups[draw.train]} & {*groups[draw.validation]}
    assert len(draw.validation)
    with pytest.raises(TrainingDataError, match="belong together"):
        draw_labels(np.arange(20) % 2, np.zeros(20, np.int64), np.arange(20), 20, 0)


def test_sizes_where_none_are_named() -> None:
    y = np.arange(4000) % 5
    assert list(ladders((), y, np.arange(4000)))[:2] == [[62, 250, 1000, 4000], [31, 125, 500, 2000]]
    assert next(ladders((), y, np.arange(100))) == [25, 50, 100]
    assert list(ladders((20, 50), y, np.arange(100))) == [[20, 50], [20]]
    assert all(min(sizes) >= 20 for sizes in ladders((), y, np.arange(100)))


#: Of the run that is killed.
KILLED = {"seeds": 1, "label_counts": (16, 32), "learners": ("linear-probe", "lp-ft", "scratch"), "epochs": 3,
          "batch_size": 4,
          "augment": "strong", "patience": 9, "learning_rate": 0.01, "trust": True, "near_duplicates": "off",
          "corruptions": ("fog",), "severities": (2,)}  # fmt: skip
RUN = f"""
import sys
from embedpipe.finetuning.training import trainer
from embedpipe.finetuning.benchmark.benchmark import benchmark
trainer.SAVE_SECONDS = 0
benchmark(sys.argv[1], to=sys.argv[2], **{KILLED})
"""


def test_killed_runs_find_what_an_uninterrupted_one_finds(made: Path, tmp_path: Path) -> None:
    killed, log = tmp_path / "killed", tmp_path / "forwarded"
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "TINY_LOG": str(log), "OMP_NUM_THREADS": "1"}
    chance = random.Random(0)
    with Forks(env) as forks:
        for _ in range(3):
            # 36 pictures are looked at before training goes on; all of it is about 500.
            code = f"import sys\nsys.argv = {['', str(made), str(killed)]}\n{RUN}"
            forks.kill(code, log, chance.randint(60, 150))
    kinds = [path.suffix for path in (killed / "cells").iterdir()]
    assert 0 < kinds.count(".json") < 6
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        a, b = (timeless(benchmark(made, to=to, **KILLED)) for to in (killed, tmp_path / "whole"))
    finally:
        torch.set_num_threads(threads)
    assert a == b
    assert sorted(path.suffix for path in (killed / "cells").iterdir()) == [".json"] * 6


def test_a_time_budget_leaves_out_the_largest(made: Path, tmp_path: Path) -> None:
    options = {**FAST, "corruptions": "none", "learners": ["linear-probe", "finetune"]}
    short = benchmark(made, to=tmp_path / "run", label_counts=(12, 24, 72), seeds=3, time_budget="0.01s", **options)
    assert (short.label_counts, short.seeds) == ([12], [0])
    assert "to fit into 0.01s" in short.notes[-1]
    assert "12, 24, 72 labels with 3 seeds would take about" in short.notes[-1]
    assert [(one.learner, one.reference, one.after_one_epoch) for one in short.differences] == [
        ("finetune", "linear-probe", None)
    ]
    long = benchmark(made, to=tmp_path / "run", label_counts=(12, 24), seeds=2, time_budget="2h", **options)
    assert (long.label_counts, long.seeds, long.notes) == ([12, 24], [0, 1], [])
    assert long.cells_of("finetune", 12)[0] == short.cells_of("finetune", 12)[0]
    assert (long.severities, long.cells[0].shifted_accuracy) == ([], None)


def test_pictures_that_cannot_be_read_are_left_out_for_all(tmp_path: Path) -> None:
    store = embedpipe.embed(colours(tmp_path / "photos", 60), tmp_path / "store", backbone=TINY)
    split = read_split_rows(store, "label", SplitOptions(near_duplicates="off"))
    lost = [split.ids[int(rows[0])].as_py() for rows in (split.test, split.train)]
    for name in lost:
        (tmp_path / "photos" / name).unlink()
    options = {**FAST, "epochs": 1, "corruptions": "fog", "severities": (1,), "seeds": 1}
    found = benchmark(store, to=tmp_path / "run", label_counts=(48,), **options)
    assert found.test_rows == 11
    assert {len(cell.shifted_correct) for cell in found.cells} == {11}
    assert [note.split(" could")[0] for note in found.notes] == ["1 test pictures", "1 training pictures"]
    assert lost[0] in found.notes[0]
    (tmp_path / "photos" / split.ids[int(split.test[1])].as_py()).unlink()
    with pytest.raises(UsageError, match="could not before, or the other way round"):
        benchmark(store, to=tmp_path / "run", label_counts=(24, 48), **options)


def test_the_users_own_shifted_rows_take_the_place_of_corruptions(tmp_path: Path) -> None:
    photos = colours(tmp_path / "photos", 72)
    with (tmp_path / "list.csv").open("w", newline="") as file:
        write = csv.writer(file)
        write.writerow(["path", "label", "split"])
        for i, path in enumerate(sorted(photos.rglob("*.png"))):
            write.writerow([path, path.parent.name, ("train", "train", "test", "shifted")[i % 4]])
    found = benchmark(tmp_path / "list.csv", to=tmp_path / "run", backbone=TINY, seeds=2, label_counts=(24,), **FAST)
    assert found.test_rows == 18
    assert found.severities == []
    for cell in found.cells:
        assert len(cell.shifted_correct) == 18
        assert cell.shifted == {"shifted": [pytest.approx(np.mean(cell.shifted_correct))]}
    assert all(one.shifted_accuracy is not None for one in found.differences)


@pytest.mark.parametrize("name", ["timm/test_vit", "timm/test_resnet"])
def test_random_weights_are_all_drawn_anew(name: str) -> None:
    """Those of a seed are always the same, of two seeds different, and each tensor's as the architecture draws them."""
    module = embedpipe.load_backbone(name, weights="none").network.module
    untrained = module.state_dict()
    kinds = []
    for seed in (0, 0, 1):
        other = copy.deepcopy(module)
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.fill_(7.0)
        redraw(other, untrained, seed)
        kinds.append(dict(other.named_parameters()))
    drawn = 0
    for key, given in module.named_parameters():
        first, same, second = (each[key] for each in kinds)
        assert torch.equal(first, same)
        assert torch.equal(first.flatten().sort().values, given.flatten().sort().values)
        if given.unique().numel() > 1:
            drawn += 1
            assert not torch.equal(first, second)
            assert not torch.equal(first, given)
    assert drawn > 10


def cell(learner: Any, labels: int, seed: int, accuracy: float, seconds: float) -> Cell:
    """A cell of a thousand test rows, of which the first ones are right."""
    right = np.packbits(np.arange(1000) < 1000 * accuracy).tobytes().hex()
    epochs = (
        [Epoch(n, None, a, 0.0, 0, 0.0) for n, a in enumerate((0.2, 0.5, accuracy))]
        if learner != "linear-probe"
        else []
    )
    return Cell(learner, labels, seed, accuracy, 0.0, 0.2, epochs, 2 if epochs else 0, seconds, correct=right)


def test_what_is_saved_and_by_how_much_learners_differ() -> None:
    cells = []
    for seed in range(5):
        more = 0.002 * seed
        curves = {"lp-ft": (0.6, 0.8, 0.9), "scratch": (0.3, 0.5, 0.7)}
        for learner, accuracies in curves.items():
            for labels, accuracy in zip((100, 200, 400), accuracies, strict=True):
                cells.append(cell(learner, labels, seed, accuracy + more, labels / 10))
    budgets = [100, 200, 400]
    found = Benchmark("data", "net", "label", "cpu", [0, 1], budgets, list(range(5)), ["lp-ft", "scratch"], 1000, [],
                      cells, [], [], "")  # fmt: skip
    last = find_differences(found)[-1]
    assert last.accuracy.value == pytest.approx(0.2)
    assert 0.15 < last.accuracy.low < 0.19 < 0.21 < last.accuracy.high < 0.25  # of the test rows, seeds agree
    assert last.slope.value == pytest.approx((0.9 - 0.7) / 2)
    assert last.initial_accuracy.value == 0
    assert last.initial_accuracy.low < -0.02 < 0.02 < last.initial_accuracy.high
    assert last.shifted_accuracy is None
    (saved,) = find_savings(found)
    assert saved.accuracy == pytest.approx(0.704)
    assert saved.labels.value == pytest.approx(100 * 2**0.5 / 400)
    assert saved.seconds.value == pytest.approx(saved.labels.value)
    assert saved.labels.low == pytest.approx(saved.labels.high)
    never = find_savings(dataclasses.replace(found, label_counts=[100]))
    assert never[0].labels.low == 0  # its smallest budget is enough, and less may be
    swapped = [
        dataclasses.replace(one, learner="finetune" if one.learner == "lp-ft" else "linear-probe") for one in cells
    ]
    swapped = [dataclasses.replace(one, learner="lp-ft") if one.learner == "linear-probe" else one for one in swapped]
    turned = dataclasses.replace(found, cells=swapped, learners=["lp-ft", "finetune"])
    assert find_savings(turned)[0].labels is None
    assert saved.known
    assert not find_savings(turned)[0].known
    assert not dataclasses.replace(saved, labels=Estimate(0.2, 0.0, 14.4)).known
    guessed = dataclasses.replace(found, majority_accuracy=0.69)  # what "scratch" reaches in the end may be one
    assert (find_savings(guessed)[0].labels, find_savings(guessed)[0].seconds) == (None, None)
    assert find_savings(dataclasses.replace(found, majority_accuracy=0.6)) == [saved]


def test_few_seeds_are_said() -> None:
    def says(seeds: int) -> str:
        return Benchmark("", "", "", "", [], [], list(range(seeds)), [], 0, [], [], [], [], "").caution

    assert "One seed" in says(1)
    assert "2 seeds leave intervals wide: more narrow them (--seeds 5)" in says(2)
    assert not says(3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learners": ["prob"]}, "no learner 'prob'; did you mean 'linear-probe'"),
        ({"learners": []}, "no learner to benchmark"),
        ({"label_counts": (5,)}, "5 labels are too few"),
        ({"label_counts": (500,)}, "there are 72 labels"),
        ({"label_counts": ("many",)}, "not whole numbers"),
        ({"seeds": 0}, "seeds=0 is too small"),
        ({"severities": (6,)}, "not from 1 to 5"),
        ({"corruptions": ("rain",)}, "no corruption 'rain'"),
        ({"time_budget": "soon"}, "write 90s, 10min or 2h"),
        ({"backbone": TINY}, "backbone is only for images that are not in a store"),
        ({"epochs": -1}, "epochs must be an integer >= 0, got -1"),
        ({"label": "species"}, "species"),
    ],
)
def test_bad_options(made: Path, tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises((UsageError, TrainingDataError), match=message):
        benchmark(made, to=tmp_path / "run", **{**FAST, **options})


def test_folders_of_something_else_and_damaged_files(made: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("important")
    with pytest.raises(UsageError, match="holds no run of `benchmark`"):
        benchmark(made, to=tmp_path / "full", **FAST)
    with pytest.raises(UsageError, match="is a URL"):
        RunFolder("s3://bucket/run")
    folder = RunFolder(tmp_path / "run")
    folder.state("linear-probe", 24, 0).with_suffix(".json").write_text('{"cell": {}}')
    with pytest.raises(UsageError, match=r"probe-24-0.json' is damaged: delete it"):
        folder.read("linear-probe", 24, 0)


def test_options_as_a_command_line_gives_them() -> None:
    words: dict[str, Any] = {"label_counts": ("400", "100"), "severities": ("3",), "time_budget": "1.5h"}
    given = BenchmarkOptions(**words)
    assert (given.label_counts, given.severities, given.seconds_allowed) == ((100, 400), (3,), 5400.0)


def test_cells_of_other_options_are_never_taken(made: Path, tmp_path: Path) -> None:
    """Whatever is deleted or edited, a cell is what was asked for, or is refused."""
    options = {**FAST, "label_counts": (24,), "corruptions": "none", "learners": ["linear-probe", "finetune"]}
    first = benchmark(made, to=tmp_path, seeds=1, **options)
    (tmp_path / "run.json").unlink()
    with pytest.raises(UsageError, match="a cell of other data or options"):
        benchmark(made, to=tmp_path, seeds=1, **{**options, "epochs": 1})
    (tmp_path / "run.json").unlink()
    assert benchmark(made, to=tmp_path, seeds=1, **options).cells == first.cells
    cell = tmp_path / "cells" / "finetune-24-0.json"
    whole = cell.read_text()
    for a, b in (
        ('"seed": 0', '"seed": 1'),
        ('"correct": "', '"correct": "xyz'),
        ('"cell": {', '"cell": "", "old": {'),
    ):
        cell.write_text(whole.replace(a, b))
        with pytest.raises(UsageError, match="is damaged: delete it"):
            benchmark(made, to=tmp_path, seeds=1, **options)


def test_a_store_of_several_layers_is_trained_by_its_last(made: Path, tmp_path: Path) -> None:
    """The layer that `advise` calls plain is the one that networks are trained behind."""
    photos = made.parent / "photos"
    several = embedpipe.embed(photos, tmp_path / "several", backbone=TINY, layer=("conv1", "conv2"))
    options = {**FAST, "label_counts": (24,), "seeds": 1, "corruptions": "none", "learners": ["linear-probe"]}
    by_last = benchmark(several, to=tmp_path / "a", **options).cells[0]
    alone = embedpipe.embed(photos, tmp_path / "alone", backbone=TINY, layer=("conv2",))
    assert by_last.correct == benchmark(alone, to=tmp_path / "b", **options).cells[0].correct
    assert (
        len(embedpipe.finetune(several, to=tmp_path / "tuned", epochs=0, trust=True, near_duplicates="off").epochs) == 1
    )
