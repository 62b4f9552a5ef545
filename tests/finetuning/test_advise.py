"""Advice: frozen baselines without test rows, the verdict by the ceiling, and a pilot that is run."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from conftest import TINY
from page import Page
from PIL import Image
from stored import clusters, make_spec, make_store

import embedpipe
from embedpipe import BackboneSpec, FeatureStore
from embedpipe.backbones import LayerSpec
from embedpipe.cli.advising import print_advice
from embedpipe.errors import TrainingDataError, UsageError
from embedpipe.finetuning.advice.advice_data import ForecastStep
from embedpipe.finetuning.advice.advise import advise
from embedpipe.finetuning.advice.experiments import Evidence, plan_experiments
from embedpipe.finetuning.advice.forecasting import forecast
from embedpipe.finetuning.advice.forecasting.gain_model import Setting
from embedpipe.finetuning.advice.pilot import TrainingCost, pilot_runs
from embedpipe.finetuning.advice.result import Advice
from embedpipe.finetuning.benchmark.benchmark_data import Cell
from embedpipe.finetuning.benchmark.result import Benchmark
from embedpipe.finetuning.options import SplitOptions
from embedpipe.finetuning.result import ProbeComparison
from embedpipe.finetuning.split_rows import SplitRows, read_split_rows
from embedpipe.statistics import Estimate
from embedpipe.store.schema import vector_column

#: The images are near-duplicates to the small network.
FAST: dict[str, Any] = {"epochs": 1, "batch_size": 16, "trust": True, "near_duplicates": "off", "progress": False}
WITHOUT_TRAINING: dict[str, Any] = {"near_duplicates": "off", "progress": False}


def write_images(folder: Path, count: int, noise: float) -> Path:
    """Write noisy images of two classes, one a little more red, the other a little more green."""
    rng = np.random.default_rng(0)
    for i in range(count):
        pixels = rng.integers(0, 256, (34, 34, 3)).astype(float)
        pixels[..., i % 2] += 60 + noise * rng.standard_normal()
        path = folder / "ab"[i % 2] / f"{i:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels / 2).clip(0, 255).astype(np.uint8)).save(path)
    return folder


def make_layered_store(
    path: Path, layers: dict[str, npt.NDArray[np.float32]], **columns: Sequence[object]
) -> FeatureStore:
    """Write a store with several layers; ``features`` is the last."""
    recipe = make_spec(1).preprocessing
    specs = tuple(LayerSpec(name, "none", X.shape[1]) for name, X in layers.items())
    store = FeatureStore.create(path, BackboneSpec("timm", "made_up", "0" * 64, True, specs, recipe))
    rows = len(next(iter(layers.values())))
    vectors = {spec.column: vector_column(layers[spec.name]) for spec in specs}
    ids = {"id": [f"row-{i:03d}" for i in range(rows)], "content_hash": [f"{i:064x}" for i in range(rows)]}
    store.write(pa.table({**ids, "source_root": ["made up"] * rows, **vectors, **columns}))
    return store.refresh()


def class_names(y: npt.NDArray[np.int64]) -> list[str]:
    return [f"class {label}" for label in y.tolist()]


@pytest.fixture(scope="module")
def hard_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of images whose classes overlap."""
    root = tmp_path_factory.mktemp("hard")
    embedpipe.embed(write_images(root / "photos", 200, 150), root / "store", backbone=TINY)
    return root / "store"


@pytest.fixture(scope="module")
def without_pilot(hard_store: Path) -> Advice:
    """Advice on the hard store, without a pilot. Of a smaller gain 32 held-out rows would not be likely to decide."""
    return advise(hard_store, seeds=2, min_gain=0.03, **FAST)


@pytest.fixture(scope="module")
def with_runs(
    without_pilot: Advice, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Advice, list[str], dict[str, Any]]:
    """Advice by the next step that `without_pilot` names, with the arguments of that step."""
    step = without_pilot.next_step
    assert step is not None
    # without the ledger, to which other tests of this process add
    options = {**step.options, "no_ledger": True, "to": str(tmp_path_factory.mktemp("runs") / "store.advice")}
    return advise(*step.sources, **options, progress=False), step.sources, options


@pytest.fixture(scope="module")
def layered(tmp_path_factory: pytest.TempPathFactory) -> Advice:
    """Advice on a store whose last layer is noise, and whose other layer separates the classes."""
    X, y = clusters(120, spread=0.8)
    noise = np.random.default_rng(1).standard_normal((120, 8)).astype(np.float32)
    path = tmp_path_factory.mktemp("layered") / "store"
    store = make_layered_store(path, {"blocks.1": X, "features": noise}, label=class_names(y))
    return advise(store, weight_decay=0.0, **WITHOUT_TRAINING)


def test_imported_vectors_have_no_network_to_advise_on(tmp_path: Path) -> None:
    store = embedpipe.import_vectors(np.eye(4), tmp_path / "store", ids=list("abcd"), name="api", modality="text")
    with pytest.raises(UsageError, match=r"needs a network, and the vectors of .*store' were imported, from 'api'"):
        advise(store, progress=False)


@pytest.mark.long
def test_perfect_probe_is_not_worth_fine_tuning(tmp_path: Path) -> None:
    X, y = clusters(600, spread=0.05)
    store = make_store(tmp_path / "store", X, label=class_names(y))  # its backbone does not exist, so cannot be loaded
    advice = advise(store, **WITHOUT_TRAINING)
    assert (advice.verdict.decision, advice.recommendation) == ("not worth it", "stay")
    assert advice.verdict.ceiling.high <= 0.01
    assert (advice.benchmarks, advice.device, advice.verdict.minutes) == ([], "", None)
    assert advice.next_step is not None
    assert advice.next_step.command == f"embedpipe fit {store.path} --to store.head"
    baselines = advice.frozen_baselines
    assert (baselines.selected_accuracy.value, baselines.best) == (1, baselines.reference)
    assert baselines.rows == advice.labels > advice.held_out_rows > 0
    again = advise(store, to=tmp_path / "runs", time_budget="1h", **WITHOUT_TRAINING)
    assert (again.verdict, again.forecast, again.benchmarks) == (advice.verdict, advice.forecast, [])


def test_best_layer_is_found(layered: Advice) -> None:
    best, reference = layered.frozen_baselines.best, layered.frozen_baselines.reference
    assert reference.layers == ["features"]
    assert "blocks.1" in best.layers
    assert best.verdict == "better"
    assert best.difference is not None
    assert 0.3 < best.difference.low <= best.difference.value
    assert best.difference.value == pytest.approx(best.accuracy.value - reference.accuracy.value)
    assert (best.adjusted or 1) < 0.05
    assert 0.8 < layered.frozen_baselines.selected_accuracy.value < 1


def test_all_heads_are_measured_on_all_layers(layered: Advice) -> None:
    baselines = layered.frozen_baselines.baselines
    assert {baseline.head for baseline in baselines} == {"logreg", "normalised logreg", "lda", "knn"}
    assert len(baselines) == 12  # two layers, and both joined
    assert "normalised logreg on blocks.1+features" in [baseline.name for baseline in baselines]
    assert layered.frozen_baselines.resampling == "2 x 5-fold stratified cross-validation"


def test_unknown_training_time_is_noted(layered: Advice) -> None:
    assert any("The time of training could not be measured" in note for note in layered.notes)
    assert layered.next_step is not None
    assert layered.next_step.minutes is None


def test_next_step_repeats_options_of_zero(layered: Advice) -> None:
    assert layered.next_step is not None
    assert " --weight-decay 0.0 " in layered.next_step.command


@pytest.mark.long
def test_store_of_another_backbone_is_compared(tmp_path: Path) -> None:
    X, y = clusters(240, spread=0.2)
    noise = np.random.default_rng(1).standard_normal((240, 6)).astype(np.float32)
    poor = make_store(tmp_path / "poor", noise, "poor", label=class_names(y))
    good = make_store(tmp_path / "good", X[:236], "good", label=class_names(y)[:236])
    advice = advise([poor, good], **WITHOUT_TRAINING)
    baselines = advice.frozen_baselines
    assert (baselines.best.backbone, baselines.reference.backbone) == ("timm/good", "timm/poor")
    assert baselines.rows < advice.labels
    assert any("not in" in note for note in advice.notes)
    assert advice.next_step is not None
    assert advice.next_step.command == f"embedpipe fit {good.path} --to good.head"


@pytest.mark.long
def test_selected_accuracy_is_not_optimistic(tmp_path: Path) -> None:
    """The best of several useless baselines is above chance on the rows that select it, and not on others."""
    rng = np.random.default_rng(0)
    layers = {name: rng.standard_normal((90, 3)).astype(np.float32) for name in ("a", "b", "features")}
    store = make_layered_store(tmp_path / "store", layers, label=class_names(np.arange(90) % 2))
    baselines = advise(store, **WITHOUT_TRAINING).frozen_baselines
    assert baselines.best.accuracy.value > baselines.selected_accuracy.value + 0.03
    assert baselines.selected_accuracy.low < 0.5 < baselines.selected_accuracy.high


@pytest.mark.long
def test_test_rows_do_not_influence_baselines(tmp_path: Path) -> None:
    X, y = clusters(200, spread=0.8)
    split = ["train", "train", "train", "validation", "test"] * 40
    test = np.array(split) == "test"
    other_X, other_y = X.copy(), y.copy()
    other_X[test] = 100 + np.random.default_rng(0).standard_normal(other_X[test].shape)
    other_y[test] = (y[test] + 1) % 3
    stores = [
        make_store(tmp_path / name, vectors, label=class_names(labels), split=split)
        for name, vectors, labels in (("a", X, y), ("b", other_X, other_y))
    ]
    first, second = (advise(store, **WITHOUT_TRAINING) for store in stores)
    assert first.frozen_baselines.rows == 160
    assert first.held_out_rows == 32
    assert first.frozen_baselines.selected_accuracy == second.frozen_baselines.selected_accuracy
    assert first.verdict.ceiling == second.verdict.ceiling
    pairs = zip(first.frozen_baselines.baselines, second.frozen_baselines.baselines, strict=True)
    for baseline, other in pairs:
        assert (baseline.name, baseline.accuracy, baseline.difference) == (other.name, other.accuracy, other.difference)


def test_without_pilot_the_verdict_is_open(without_pilot: Advice) -> None:
    assert without_pilot.verdict.decision == "can't tell yet"
    assert without_pilot.benchmarks == []
    assert without_pilot.verdict.gain is None
    assert without_pilot.verdict.minutes is not None
    assert without_pilot.device
    assert any("A better layer" in sentence for sentence in without_pilot.would_change)


def test_next_step_is_the_cheapest_experiment(without_pilot: Advice, hard_store: Path) -> None:
    step = without_pilot.next_step
    assert without_pilot.recommendation == "find out first"
    assert step is not None
    assert step.minutes is not None
    assert step.chance is not None
    assert 0 < step.minutes < 5
    assert 0 < step.chance < 1
    assert step.command == (
        f"embedpipe advise {hard_store} --seeds 2 --min-gain 0.03 --epochs 1 --batch-size 16 --trust "
        f"--near-duplicates off --time-budget {step.options['time_budget']} --to store.advice"
    )
    assert json.loads(json.dumps(without_pilot.to_dict()))["next_step"]["command"] == step.command


def test_advice_shows_itself_in_one_line_and_as_html(without_pilot: Advice) -> None:
    accuracy = without_pilot.frozen_baselines.selected_accuracy.value
    gain = without_pilot.forecast.gain.value
    assert repr(without_pilot) == (
        f"Advice('find out first': frozen features reach {100 * accuracy:.1f} %, "
        f"expected gain {100 * gain:+.1f} points)"
    )
    shown = without_pilot._repr_html_()
    assert "<caption>Advice</caption>" in shown
    assert ">embedpipe advise" in shown


def test_runs_go_on_until_the_forecast_decides_or_the_budget_ends(
    with_runs: tuple[Advice, list[str], dict[str, Any]],
) -> None:
    advice = with_runs[0]
    assert len(advice.steps) >= 2
    assert advice.steps[0].experiment is None
    open_steps = [step.forecast.recommendation == "find out first" for step in advice.steps]
    assert all(open_steps[:-1])
    assert not open_steps[-1] or any("The time budget ended" in note or "No further" in note for note in advice.notes)
    trained = sum(step.experiment.seeds for step in advice.steps if step.experiment)
    assert advice.forecast.runs == trained == sum(len(result.seeds) for result in advice.benchmarks)


def test_strict_verdict_is_that_of_the_runs(
    with_runs: tuple[Advice, list[str], dict[str, Any]], without_pilot: Advice
) -> None:
    advice, verdict = with_runs[0], with_runs[0].verdict
    assert advice.frozen_baselines == without_pilot.frozen_baselines
    assert verdict.ceiling == without_pilot.verdict.ceiling
    assert verdict.gain is not None
    largest = advice.benchmarks[-1]
    probes, finetuned = (largest.cells_of(learner, largest.label_counts[0]) for learner in ("linear-probe", "lp-ft"))
    gain = np.mean([cell.accuracy for cell in finetuned]) - np.mean([cell.accuracy for cell in probes])
    if advice.frozen_baselines.best is advice.frozen_baselines.reference:
        assert verdict.gain.value == pytest.approx(gain)
    assert verdict.gain.value <= gain + 1e-9


def test_open_forecast_that_no_run_is_likely_to_decide_is_not_to_be_found_out(
    without_pilot: Advice, tmp_path: Path
) -> None:
    forecast = replace(without_pilot.forecast, min_gain=0.001, probability=0.6, mean=0.004, pays_to_find_out=False)
    advice = replace(without_pilot, forecast=forecast)
    assert advice.recommendation == "fine-tune"
    acted: Any = object()
    assert "The forecast is still open, so" in replace(without_pilot, network=acted).sentences()[2]
    reason = advice.sentences()[2]
    assert "so the expected gain decides: +0.4 points" in reason
    assert reason in advice.to_html(tmp_path / "advice.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(("epoch", "heading"), [(1, "The network is kept"), (0, "The head is kept")])
def test_page_of_a_trained_network_begins_with_the_outcome(
    without_pilot: Advice, tmp_path: Path, epoch: int, heading: str
) -> None:
    network: Any = SimpleNamespace(best_epoch=epoch, test=ProbeComparison(372, 0.85, 0.89, 0.04, 0.012, 0.068))
    advice = replace(without_pilot, network=network)
    words = Page(advice.to_html(tmp_path / "advice.html")).words
    assert f"{heading} The network was trained" in words
    assert "The recommendation before was: find out first." in words
    assert "below" not in words
    assert ("+4.0 points (95 % interval" in words) == (epoch > 0)  # a head that is kept does not differ from itself


def test_page_shows_every_forecast_and_the_recommendation(
    with_runs: tuple[Advice, list[str], dict[str, Any]], tmp_path: Path
) -> None:
    advice = with_runs[0]
    page = advice.to_html(tmp_path / "advice.html").read_text(encoding="utf-8")
    assert page.count("<svg") == 1
    for step in advice.steps:
        assert f"<td>{step.forecast.probability:.2f}</td>" in page
    assert f"<strong>{advice.verdict.decision}</strong>".replace("'", "&#39;") in page
    words = page.replace("<span>", "").replace("</span>", "")
    assert (advice.next_step.command in words) if advice.next_step else True


def test_worth_of_a_point_is_shown_with_the_expected_gain(without_pilot: Advice, tmp_path: Path) -> None:
    forecast = replace(without_pilot.forecast, mean=0.02, break_even=0.0042, ledger_rows=3, pays_to_find_out=False)
    advice = replace(without_pilot, forecast=forecast, steps=[ForecastStep(None, forecast)])
    asked = "0.42 points, the worth of its time (expected: +2.0 points)"
    assert f"it gains more than {asked}." in advice.sentences()[1]
    page = advice.to_html(tmp_path / "advice.html").read_text(encoding="utf-8")
    assert asked in page
    assert "The expected gain is worth more than the time." in page
    assert "from published results and 3 fine-tunings of other data" in page
    assert "begins with published pairs of a head and a fine-tuned network, and the ledger of this machine;" in page
    assert "changes the recommendation with a probability of" in page


def test_page_has_one_minus_sign(without_pilot: Advice, tmp_path: Path) -> None:
    forecast = replace(without_pilot.forecast, gain=Estimate(-0.012, -0.03, 0.004), mean=-0.012, probability=0.5)
    forecast = replace(forecast, pays_to_find_out=False)
    verdict = replace(without_pilot.verdict, evidence=["It changes accuracy by -1.2 points (-3.0 to +0.4)."])
    advice = replace(without_pilot, forecast=forecast, steps=[ForecastStep(None, forecast)], verdict=verdict)
    words = Page(advice.to_html(tmp_path / "advice.html")).words
    assert words.count("\N{MINUS SIGN}1.2") >= 4
    assert not re.search(r"-(1\.2|3\.0)", words)


@pytest.mark.long
def test_recommendation_follows_the_worth_of_a_point(hard_store: Path) -> None:
    dear, cheap = (advise(hard_store, point_worth=worth, **FAST) for worth in ("1000h", "0.001s"))
    assert dear.forecast.break_even is not None
    assert dear.forecast.break_even < 1e-4
    assert dear.recommendation != "stay"
    assert cheap.forecast.min_gain == cheap.forecast.break_even
    assert cheap.recommendation == "stay"
    assert cheap.next_step is not None
    assert cheap.next_step.verb == "fit"


@pytest.mark.long
def test_finished_runs_are_read_and_count(with_runs: tuple[Advice, list[str], dict[str, Any]]) -> None:
    advice, sources, options = with_runs
    again = advise(
        *sources, **{name: value for name, value in options.items() if name != "time_budget"}, progress=False
    )
    assert again.benchmarks == advice.benchmarks
    assert again.forecast == advice.forecast
    assert [(step.experiment, step.forecast.runs) for step in again.steps] == [(None, 0), (None, advice.forecast.runs)]
    assert again.steps[0].forecast == advice.steps[0].forecast


def test_held_out_images_that_cannot_be_read_are_left_out_of_the_runs(tmp_path: Path) -> None:
    photos = write_images(tmp_path / "photos", 200, 150)
    store = embedpipe.embed(photos, tmp_path / "store", backbone=TINY)
    for photo in sorted(photos.rglob("*.png"))[::4]:
        photo.unlink()
    options = {"time_budget": "10min", "seeds": 2, "min_gain": 0.03, "no_ledger": True}
    advice = advise(store, to=tmp_path / "runs", **options, **FAST)
    assert advice.verdict.gain is not None
    assert advice.held_out_rows == advice.benchmarks[0].test_rows < 32
    assert any("test images could not be read and were left out" in note for note in advice.notes)


@pytest.mark.long
def test_act_trains_nothing_where_the_head_stays(hard_store: Path, tmp_path: Path) -> None:
    stays = advise(hard_store, to=tmp_path / "stays", act=True, min_gain=0.9, **FAST)
    assert (stays.recommendation, stays.network) == ("stay", None)


@pytest.mark.long
def test_act_trains_the_network_that_is_recommended(
    hard_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(forecast, "SURE", 0.05)
    acts = advise(hard_store, to=tmp_path / "acts", act=True, **FAST)
    assert acts.recommendation == "fine-tune"
    assert acts.network is not None
    assert acts.network.folder == str(tmp_path / "acts" / "network")
    assert acts.network.test.rows == 40
    assert acts.next_step is None
    assert acts.to_dict()["network"]["best_epoch"] == acts.network.best_epoch
    print_advice(acts, verbose=False)
    kept = "network" if acts.network.best_epoch else "head"
    assert (shown := capsys.readouterr().out).startswith(f"the {kept} is kept, as it is better on the validation rows")
    assert (", difference " in shown) == (kept == "network")


@pytest.mark.long
def test_act_continues_where_no_run_of_a_pilot_is(
    hard_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forecast, "SURE", 0.05)
    first, again = (advise(hard_store, to=tmp_path / "acts", act=True, **FAST) for _ in range(2))
    assert first.network is not None
    assert again.network is not None
    assert (again.network.epochs, again.network.test) == (first.network.epochs, first.network.test)


@pytest.fixture
def made_pilot() -> Benchmark:
    """A pilot of ten test rows in which LP-FT is correct on three rows more than the linear probe, and on one less."""
    rows = {"linear-probe": "1111100000", "lp-ft": "0111111100"}

    def cell(learner: Any, labels: int, seed: int) -> Cell:
        correct = np.array([digit == "1" for digit in rows[learner]])
        shifted_correct = [0.25, 0.75] if learner == "linear-probe" else [0.25, 1.0]
        packed = np.packbits(correct).tobytes().hex()
        shifted: dict[str, Any] = {"shifted": {"fog": [0.5]}, "shifted_correct": shifted_correct}
        return Cell(learner, labels, seed, correct.mean(), 1.0, 0.1, [], 0, 2.0, correct=packed, **shifted)

    cells = [cell(learner, labels, seed) for learner in rows for labels in (20, 40) for seed in (1, 0)]
    return Benchmark("", "", "", "", [], [20, 40], [0, 1], ["linear-probe", "lp-ft"], 10, [3], cells, [], [], "")


def test_runs_of_a_pilot_are_paired(made_pilot: Benchmark) -> None:
    runs = pilot_runs(made_pilot)
    assert [(run.labels, run.seed) for run in runs] == [(20, 0), (20, 1), (40, 0), (40, 1)]
    assert {(run.probe, run.finetuned, run.paired_counts) for run in runs} == {(0.5, 0.7, (4, 1, 3, 2))}
    assert runs[0].shifted_error == pytest.approx(np.std([0, 0.25], ddof=1) / np.sqrt(2))


def test_better_baseline_replaces_the_probe_at_each_label_count(made_pilot: Benchmark) -> None:
    runs = pilot_runs(made_pilot, lambda labels, seed: np.arange(10) < (9 if labels == 40 else 4))
    assert [run.probe for run in runs] == [0.5, 0.5, 0.9, 0.9]
    assert runs[2].paired_counts == (7, 2, 0, 1)
    assert runs[2].shifted_probe == 0.5


@pytest.mark.long
def test_pilot_is_compared_with_the_best_baseline(hard_store: Path, tmp_path: Path) -> None:
    """The best head is on a store of another backbone, which is not trained."""
    store = FeatureStore(hard_store)
    table = store.to_arrow(["id", "label", "content_hash"])
    y = np.array([label == "b" for label in table["label"].to_pylist()], np.int64)
    X = (y[:, None] + 0.4 * np.random.default_rng(0).standard_normal((len(y), 4))).astype(np.float32)
    X[::12] *= -1  # otherwise there is nothing to gain
    other = FeatureStore.create(tmp_path / "other", make_spec(4, "other"))
    columns = {"source_root": ["made up"] * len(y), "embedding": vector_column(X)}
    other.write(pa.table({"id": table["id"], "content_hash": table["content_hash"], **columns}))
    advice = advise([store, other.refresh()], to=tmp_path / "runs", time_budget="2min", seeds=2, min_gain=0.03, **FAST)
    assert advice.benchmarks
    assert advice.frozen_baselines.best.backbone == "timm/other"
    assert advice.verdict.gain is not None
    largest = advice.benchmarks[-1]
    probe, finetuned = (
        np.mean([cell.accuracy for cell in largest.cells_of(learner, largest.label_counts[0])])
        for learner in ("linear-probe", "lp-ft")
    )
    assert advice.verdict.gain.value < finetuned - probe - 0.05
    assert any("of timm/other" in note and "on corrupted images" in note for note in advice.notes)


@pytest.mark.long
def test_images_are_embedded_first(tmp_path: Path) -> None:
    photos = write_images(tmp_path / "photos", 60, 0)
    advice = advise(photos, to=tmp_path / "runs", backbone=TINY, **FAST)
    assert advice.held_out_rows < advice.labels < 60
    assert FeatureStore.exists(str(tmp_path / "runs" / "features"))


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> SplitRows:
    """Rows of which 640 are for training and validation, and 160 for testing."""
    X, y = clusters(800, classes=2)
    store = make_store(tmp_path_factory.mktemp("clusters") / "store", X, label=class_names(y))
    split = read_split_rows(store, "label", SplitOptions(near_duplicates="off"))
    assert len(split.train) + len(split.validation) == 640
    return split


@pytest.fixture
def evidence() -> Evidence:
    return Evidence(Setting(0.85, 640, 2, "cnn-sup"), [], 160, 0.01)


def test_experiments_reach_from_an_eighth_to_all_labels(split: SplitRows, evidence: Evidence) -> None:
    experiments = plan_experiments(evidence, split, 3, TrainingCost(full=640.0, item=0.0, device="cpu"))
    # One second for each label; the first runs of a label count are two, as one does not show how much they differ.
    assert [(each.labels, each.seeds, each.minutes) for each in experiments] == [
        (labels, seeds, labels * seeds / 60) for labels in (80, 160, 320, 640) for seeds in (2, 3)
    ]
    chances = {(each.labels, each.seeds): each.chance for each in experiments}
    assert all(0 < chance < 1 for chance in chances.values())
    assert chances[80, 2] < chances[320, 2] < chances[640, 2] < chances[640, 3]


def test_experiments_include_measuring_and_may_have_no_time(split: SplitRows, evidence: Evidence) -> None:
    assert {each.minutes for each in plan_experiments(evidence, split, 2, None)} == {None}
    # Two networks and the frozen one measure 160 rows.
    timed = plan_experiments(evidence, split, 2, TrainingCost(0.0, 0.06, "cpu"))
    assert timed[0].minutes == pytest.approx(3 * 160 * 0.001)


@pytest.mark.long
def test_budget_too_small_for_a_run_is_noted(hard_store: Path, tmp_path: Path) -> None:
    advice = advise(hard_store, to=tmp_path / "runs", time_budget="0.01s", min_gain=0.03, **FAST)
    assert advice.benchmarks == []
    assert any(note.startswith("The time budget ended before the forecast decided") for note in advice.notes)
    assert advice.next_step is not None
    assert advice.next_step.options["to"] == str(tmp_path / "runs")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_gain": 1.0}, r"min_gain must be in \[0, 1\), got 1.0"),
        ({"shift_margin": -0.1}, r"shift_margin must be in \[0, 1\), got -0.1"),
        ({"seeds": 1}, "seeds must be >= 2, got 1"),
        ({"time_budget": "soon"}, "time_budget must be a time such as 90s, 10min or 2h, got 'soon'"),
        ({"point_worth": "much"}, "point_worth must be a time such as 90s, 10min or 2h, got 'much'"),
        ({"point_worth": "1h", "min_gain": 0.02}, "got point_worth='1h' and min_gain=0.02: leave one out"),
        ({"act": True}, "needs a folder for its runs"),
        ({"time_budget": "1min"}, "a time budget needs a folder for its runs"),
        ({"min_gian": 0.1}, "did you mean 'min_gain'"),
        ({"label": "species"}, "species"),
        ({"backbone": TINY}, "leave it out"),
    ],
)
def test_bad_options_are_refused(hard_store: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises((UsageError, TrainingDataError), match=message):
        advise(hard_store, **options)


def test_bad_stores_are_refused(hard_store: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"source must be a feature store, got .*nowhere': nothing is there"):
        advise(tmp_path / "nowhere")
    with pytest.raises(UsageError, match=r"source must be a feature store, got .*: embed the items first"):
        advise(tmp_path)
    with pytest.raises(UsageError, match="twice"):
        advise([hard_store, hard_store])
    X, y = clusters(60)
    other = make_store(tmp_path / "other", X, "other", label=class_names(y))
    with pytest.raises(UsageError, match="has none of the ids of"):
        advise([hard_store, other], near_duplicates="off")


def test_folder_with_other_files_is_refused(hard_store: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("important")
    with pytest.raises(UsageError, match="holds other files: give another"):
        advise(hard_store, to=tmp_path / "full")
