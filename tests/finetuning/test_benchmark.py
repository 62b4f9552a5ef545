"""Benchmarks that are run: same rows and images for all learners, resumption, time budgets, and bad input."""

from __future__ import annotations

import copy
import csv
import dataclasses
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
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
from embedpipe.finetuning import BenchmarkOptions, SplitOptions
from embedpipe.finetuning.benchmark.benchmark import benchmark
from embedpipe.finetuning.benchmark.benchmark_data import LEARNERS
from embedpipe.finetuning.benchmark.cell_files import BenchmarkFolder
from embedpipe.finetuning.benchmark.corruptions import corrupt
from embedpipe.finetuning.benchmark.label_sampling import draw_labels
from embedpipe.finetuning.benchmark.learners import randomise_weights
from embedpipe.finetuning.benchmark.result import Benchmark
from embedpipe.finetuning.benchmark.views import seed_of
from embedpipe.finetuning.linear_probe import fold_head
from embedpipe.finetuning.split_rows import SplitRows, read_split_rows
from embedpipe.heads.training.vectors import read_finite

#: The images are near-duplicates to the small network, and it learns fast.
FAST: dict[str, Any] = {"epochs": 4, "batch_size": 8, "learning_rate": 0.01, "trust": True, "near_duplicates": "off"}
SHIFT: dict[str, Any] = {"corruptions": ("gaussian_noise", "fog"), "severities": (1, 5)}


@pytest.fixture(scope="module")
def store_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of ninety images of three classes."""
    root = tmp_path_factory.mktemp("images")
    embedpipe.embed(colours(root / "photos", 90), root / "store", backbone=TINY)
    return root / "store"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the finished run."""
    return tmp_path_factory.mktemp("finished") / "run"


@pytest.fixture(scope="module")
def result(store_path: Path, folder: Path) -> Benchmark:
    """A benchmark of all learners."""
    return benchmark(store_path, to=folder, seeds=2, label_counts=(24, 72), **FAST, **SHIFT)


@pytest.fixture(scope="module")
def split(store_path: Path) -> SplitRows:
    return read_split_rows(embedpipe.FeatureStore(store_path), "label", SplitOptions(near_duplicates="off"))


@pytest.fixture(scope="module")
def shifted_features(store_path: Path, split: SplitRows) -> dict[tuple[str, int], npt.NDArray[np.float32]]:
    """Features of the corrupted test images, made without the code of the benchmark."""
    backbone = embedpipe.load_backbone(TINY)
    features = {}
    for name in SHIFT["corruptions"]:
        for severity in SHIFT["severities"]:
            images = []
            for row in split.test.tolist():
                id = split.ids[row].as_py()
                pixels = backbone.prepare((store_path.parent / "photos" / id).read_bytes()).value
                images.append(corrupt(pixels, name, severity, seed_of(id)))
            features[name, severity] = backbone.forward(images)["embedding"]
    return features


def fit_on_draw(store_path: Path, split: SplitRows, labels: int, seed: int) -> Any:
    """Return a head fitted on a draw of labels, and all features."""
    store = embedpipe.FeatureStore(store_path)
    pool = np.sort(np.concatenate([split.train, split.validation]))
    rows = draw_labels(split.y, split.splits.groups, pool, labels, seed).rows
    X = read_finite(store, store.spec.layers, split.ids)
    head = TemperatureCalibratedClassifier(TunedLogisticRegression()).fit(X[rows], split.classes[split.y[rows]])
    return head, X


def without_seconds(result: Benchmark) -> Any:
    """Return all values that do not depend on the speed of the machine."""

    def strip(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: strip(each) for key, each in value.items() if key != "seconds"}
        return [strip(each) for each in value] if isinstance(value, list) else value

    return strip(result.to_dict())


def test_result_has_all_cells(result: Benchmark, folder: Path) -> None:
    assert (result.label_counts, result.seeds, result.learners) == ([24, 72], [0, 1], list(LEARNERS))
    assert len(result.cells) == 16
    assert result.test_rows == 18
    assert sorted(path.suffix for path in (folder / "cells").iterdir()) == [".json"] * 16
    assert not list((folder / "pixels").iterdir())


def test_fields_of_each_cell_agree(result: Benchmark) -> None:
    for cell in result.cells:
        assert cell.accuracy == cell.correct_rows(18).mean() > 0.6
        assert {name: len(values) for name, values in cell.shifted.items()} == {"gaussian_noise": 2, "fog": 2}
        assert cell.shifted_accuracy == pytest.approx(np.mean(cell.shifted_correct), abs=1e-5)
        assert cell.seconds > 0
        if cell.epochs:
            assert cell.initial_accuracy == cell.epochs[0].validation_accuracy
        assert bool(cell.epochs) == (cell.learner != "linear-probe")


@pytest.mark.parametrize("labels", [24, 72])
def test_lp_ft_starts_from_the_linear_probe(result: Benchmark, labels: int) -> None:
    probes = [cell.initial_accuracy for cell in result.cells_of("linear-probe", labels)]
    assert probes == [cell.initial_accuracy for cell in result.cells_of("lp-ft", labels)]
    assert max(cell.initial_accuracy for cell in result.cells_of("scratch", labels)) < min(probes)


def test_all_pairs_of_learners_are_compared(result: Benchmark) -> None:
    assert [(each.learner, each.reference, each.labels) for each in result.differences][:3] == [
        ("lp-ft", "linear-probe", 24),
        ("lp-ft", "linear-probe", 72),
        ("lp-ft", "finetune", 24),
    ]
    # LP-FT is the linear probe before training.
    for each in result.differences[:2]:
        assert each.initial_accuracy.value == 0
        assert each.initial_accuracy.low == -each.initial_accuracy.high < 0  # few validation rows
    assert len(result.differences) == 12
    assert len(result.savings) == 6


def test_finished_run_is_read_and_can_be_extended(store_path: Path, result: Benchmark, folder: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in (folder / "cells").iterdir()}
    assert benchmark(store_path, to=folder, seeds=2, label_counts=(24, 72), **FAST, **SHIFT) == result
    extended = benchmark(store_path, to=folder, seeds=3, label_counts=(24,), learners=["linear-probe"], **FAST, **SHIFT)
    assert extended.cells_of("linear-probe", 24)[:2] == result.cells_of("linear-probe", 24)
    after = {path.name: path.stat().st_mtime_ns for path in (folder / "cells").iterdir()}
    assert after.keys() - before.keys() == {"linear-probe-24-2.json"}
    assert before.items() <= after.items()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({**FAST, "epochs": 5, **SHIFT}, r"other settings \(epochs \d+ then, 5 now\)"),
        ({**FAST, "corruptions": "none"}, r"other settings \(corruptions .* then, none now\)"),
    ],
)
def test_folder_of_other_options_is_refused(
    store_path: Path, result: Benchmark, folder: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        benchmark(store_path, to=folder, **options)


def test_linear_probe_equals_a_fitted_head(
    store_path: Path, result: Benchmark, split: SplitRows, shifted_features: dict[tuple[str, int], Any]
) -> None:
    head, X = fit_on_draw(store_path, split, 24, 1)
    cell = result.cells_of("linear-probe", 24)[1]
    actual = split.classes[split.y[split.test]]
    np.testing.assert_array_equal(cell.correct_rows(18), head.predict(X[split.test]) == actual)
    probabilities = head.predict_proba(X[split.test])[np.arange(18), split.y[split.test]]
    assert cell.log_loss == pytest.approx(-np.log(probabilities).mean(), rel=1e-4, abs=1e-9)
    for name, accuracies in cell.shifted.items():
        for severity, accuracy in zip((1, 5), accuracies, strict=True):
            assert (head.predict(shifted_features[name, severity]) == actual).mean() == accuracy


def test_untrained_lp_ft_equals_the_linear_probe(
    store_path: Path, tmp_path: Path, split: SplitRows, shifted_features: dict[tuple[str, int], Any]
) -> None:
    """The network without training is the head of all its labels, on corrupted images as well."""
    options = {**FAST, "epochs": 0, **SHIFT}
    run = benchmark(store_path, to=tmp_path / "run", seeds=1, label_counts=(30,), learners=["lp-ft"], **options)
    head, X = fit_on_draw(store_path, split, 30, 0)
    fitted = dataclasses.replace(embedpipe.fit(store_path, "logreg", folds=0), estimator=head)
    linear = fold_head(fitted)
    correct = [linear.logits(features).argmax(axis=1) == split.y[split.test] for features in shifted_features.values()]
    np.testing.assert_allclose(run.cells[0].shifted_correct, np.mean(correct, axis=0), atol=1e-6)
    expected = log_softmax(linear.logits(X[split.test]), axis=1)[np.arange(18), split.y[split.test]]
    assert run.cells[0].log_loss == pytest.approx(-expected.mean(), rel=1e-3, abs=1e-6)


#: Options of the run that is killed.
KILLED: dict[str, Any] = {
    **FAST,
    "seeds": 1,
    "label_counts": (16, 32),
    "learners": ("linear-probe", "lp-ft", "scratch"),
    "epochs": 3,
    "batch_size": 4,
    "augment": "strong",
    "patience": 9,
    "corruptions": ("fog",),
    "severities": (2,),
}
RUN = f"""
import sys
from embedpipe.finetuning.training import trainer
from embedpipe.finetuning.benchmark.benchmark import benchmark
trainer.SAVE_SECONDS = 0
benchmark(sys.argv[1], to=sys.argv[2], **{KILLED})
"""


@pytest.mark.long
@pytest.mark.parametrize("kills", [4])
def test_killed_run_gives_the_result_of_an_uninterrupted_one(store_path: Path, tmp_path: Path, kills: int) -> None:
    killed, log = tmp_path / "killed", tmp_path / "forwarded"
    env = {**os.environ, "TINY_LOG": str(log), "OMP_NUM_THREADS": "1"}
    rng = random.Random(0)
    with Forks(env) as forks:
        for _ in range(kills):
            # 36 images go through the network before training continues; the whole run takes about 500.
            code = f"import sys\nsys.argv = {['', str(store_path), str(killed)]}\n{RUN}"
            forks.kill(code, log, rng.randint(60, 150))
    suffixes = [path.suffix for path in (killed / "cells").iterdir()]
    assert 0 < suffixes.count(".json") < 6
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        resumed, whole = (
            without_seconds(benchmark(store_path, to=to, **KILLED)) for to in (killed, tmp_path / "whole")
        )
    finally:
        torch.set_num_threads(threads)
    assert resumed == whole
    assert sorted(path.suffix for path in (killed / "cells").iterdir()) == [".json"] * 6


@pytest.mark.long
def test_time_budget_drops_the_largest_label_counts(store_path: Path, tmp_path: Path) -> None:
    options = {**FAST, "corruptions": "none", "learners": ["linear-probe", "finetune"]}
    counts = (12, 24, 72)
    short = benchmark(store_path, to=tmp_path / "run", label_counts=counts, seeds=3, time_budget="0.01s", **options)
    assert (short.label_counts, short.seeds) == ([12], [0])
    assert "label counts reduced to 12 and seeds to 1, to fit into 0.01s" in short.notes[-1]
    assert "12, 24, 72 with 3 seeds would take about" in short.notes[-1]
    assert [(each.learner, each.after_one_epoch) for each in short.differences] == [("finetune", None)]
    longer = benchmark(store_path, to=tmp_path / "run", label_counts=(12, 24), seeds=2, time_budget="2h", **options)
    assert (longer.label_counts, longer.seeds, longer.notes) == ([12, 24], [0, 1], [])
    assert longer.cells_of("finetune", 12)[0] == short.cells_of("finetune", 12)[0]
    assert (longer.severities, longer.cells[0].shifted_accuracy) == ([], None)


def test_unreadable_images_are_left_out_for_all_learners(tmp_path: Path) -> None:
    store = embedpipe.embed(colours(tmp_path / "photos", 60), tmp_path / "store", backbone=TINY)
    split = read_split_rows(store, "label", SplitOptions(near_duplicates="off"))
    lost = [split.ids[int(rows[0])].as_py() for rows in (split.test, split.train)]
    for name in lost:
        (tmp_path / "photos" / name).unlink()
    options = {**FAST, "epochs": 1, "corruptions": "fog", "severities": (1,), "seeds": 1}
    result = benchmark(store, to=tmp_path / "run", label_counts=(48,), **options)
    assert result.test_rows == 11
    assert {len(cell.shifted_correct) for cell in result.cells} == {11}
    assert [note.split(" could")[0] for note in result.notes] == ["1 test images", "1 training images"]
    assert lost[0] in result.notes[0]
    (tmp_path / "photos" / split.ids[int(split.test[1])].as_py()).unlink()
    with pytest.raises(UsageError, match="became readable or unreadable since the first cell"):
        benchmark(store, to=tmp_path / "run", label_counts=(24, 48), **options)


@pytest.mark.long
def test_shifted_rows_of_the_user_replace_corruptions(tmp_path: Path) -> None:
    photos = colours(tmp_path / "photos", 72)
    with (tmp_path / "list.csv").open("w", newline="") as file:
        write = csv.writer(file)
        write.writerow(["path", "label", "split"])
        for i, path in enumerate(sorted(photos.rglob("*.png"))):
            write.writerow([path, path.parent.name, ("train", "train", "test", "shifted")[i % 4]])
    options = {**FAST, "seeds": 2, "label_counts": (24,), "learners": ["linear-probe", "lp-ft"]}
    result = benchmark(tmp_path / "list.csv", to=tmp_path / "run", backbone=TINY, **options)
    assert result.test_rows == 18
    assert result.severities == []
    for cell in result.cells:
        assert len(cell.shifted_correct) == 18
        assert cell.shifted == {"shifted": [pytest.approx(np.mean(cell.shifted_correct))]}
    assert all(each.shifted_accuracy is not None for each in result.differences)


@pytest.mark.parametrize("name", ["timm/test_vit", "timm/test_resnet"])
def test_random_weights_depend_on_the_seed_only(name: str) -> None:
    """Every tensor keeps the entries of the architecture's initialisation, in an order that the seed decides."""
    module = embedpipe.load_backbone(name, weights="none").network.module
    random_state = module.state_dict()
    drawn = []
    for seed in (0, 0, 1):
        other = copy.deepcopy(module)
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.fill_(7.0)
        randomise_weights(other, random_state, seed)
        drawn.append(dict(other.named_parameters()))
    shuffled = 0
    for key, original in module.named_parameters():
        first, same, second = (parameters[key] for parameters in drawn)
        assert torch.equal(first, same)
        assert torch.equal(first.flatten().sort().values, original.flatten().sort().values)
        if original.unique().numel() > 1:
            shuffled += 1
            assert not torch.equal(first, second)
            assert not torch.equal(first, original)
    assert shuffled > 10


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learners": ["prob"]}, "unknown learner 'prob'; did you mean 'linear-probe'"),
        ({"learners": []}, "learners must be at least one of linear-probe, .*, got none"),
        ({"label_counts": (5,)}, "label_counts must be from 12 .*, got 5"),
        ({"label_counts": (500,)}, r"to 72 \(all rows but the test rows\), got 500"),
        ({"label_counts": ("many",)}, r"label_counts must be integers, got \('many',\)"),
        ({"label_counts": (0,)}, r"label_counts must be >= 1, got \[0\]"),
        ({"seeds": 0}, "seeds must be >= 1, got 0"),
        ({"severities": (6,)}, r"severities must be at least one of 1 to 5, got \[6\]"),
        ({"corruptions": ("rain",)}, "unknown corruption 'rain'"),
        ({"time_budget": "soon"}, "time_budget must be a time such as 90s, 10min or 2h, got 'soon'"),
        ({"backbone": TINY}, "backbone is only for items that are not in a store"),
        ({"epochs": -1}, "epochs must be an integer >= 0, got -1"),
        ({"label": "species"}, "species"),
    ],
)
def test_bad_options_are_refused(store_path: Path, tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises((UsageError, TrainingDataError), match=message):
        benchmark(store_path, to=tmp_path / "run", **{**FAST, **options})
    assert not (tmp_path / "run").exists()


def test_folder_with_other_files_is_refused(store_path: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("important")
    with pytest.raises(UsageError, match="holds other files: give another"):
        benchmark(store_path, to=tmp_path / "full", **FAST)
    with pytest.raises(UsageError, match="needs a local folder, got the URL"):
        BenchmarkFolder("s3://bucket/run")


def test_damaged_cell_is_refused(tmp_path: Path) -> None:
    folder = BenchmarkFolder(tmp_path / "run")
    folder.claim({})
    folder.state("linear-probe", 24, 0).with_suffix(".json").write_text('{"cell": {}}')
    with pytest.raises(UsageError, match=r"linear-probe-24-0.json' is damaged: delete it"):
        folder.read("linear-probe", 24, 0)


def test_options_of_the_command_line_are_converted() -> None:
    texts: dict[str, Any] = {"label_counts": ("400", "100"), "severities": ("3",), "time_budget": "1.5h"}
    assert BenchmarkOptions(label_counts="400,100", corruptions="fog,snow") == BenchmarkOptions(  # type: ignore[arg-type]
        label_counts=(100, 400), corruptions=("fog", "snow")
    )
    options = BenchmarkOptions(**texts)
    assert (options.label_counts, options.severities, options.budget_seconds) == ((100, 400), (3,), 5400.0)


def test_cells_of_other_options_and_edited_cells_are_refused(store_path: Path, tmp_path: Path) -> None:
    options = {**FAST, "label_counts": (24,), "corruptions": "none", "learners": ["linear-probe", "finetune"]}
    first = benchmark(store_path, to=tmp_path, seeds=1, **options)
    (tmp_path / "run.json").unlink()
    message = r"the cell .* was made with other settings \(epochs \d+ then, 1 now\): delete it"
    with pytest.raises(UsageError, match=message):
        benchmark(store_path, to=tmp_path, seeds=1, **{**options, "epochs": 1})
    (tmp_path / "run.json").unlink()
    assert benchmark(store_path, to=tmp_path, seeds=1, **options).cells == first.cells
    cell = tmp_path / "cells" / "finetune-24-0.json"
    text = cell.read_text()
    edits = {'"seed": 0': '"seed": 1', '"correct": "': '"correct": "xyz', '"cell": {': '"cell": "", "old": {'}
    for old, new in edits.items():
        cell.write_text(text.replace(old, new))
        with pytest.raises(UsageError, match="is damaged: delete it"):
            benchmark(store_path, to=tmp_path, seeds=1, **options)


@pytest.mark.long
def test_store_of_several_layers_is_trained_on_its_last(store_path: Path, tmp_path: Path) -> None:
    photos = store_path.parent / "photos"
    several = embedpipe.embed(photos, tmp_path / "several", backbone=TINY, layer=("conv1", "conv2"))
    options = {**FAST, "label_counts": (24,), "seeds": 1, "corruptions": "none", "learners": ["linear-probe"]}
    on_last = benchmark(several, to=tmp_path / "a", **options).cells[0]
    alone = embedpipe.embed(photos, tmp_path / "alone", backbone=TINY, layer=("conv2",))
    assert on_last.correct == benchmark(alone, to=tmp_path / "b", **options).cells[0].correct
    tuned = embedpipe.finetune(several, to=tmp_path / "tuned", epochs=0, trust=True, near_duplicates="off")
    assert len(tuned.epochs) == 1
