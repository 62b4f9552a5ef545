"""Advice: what is cheap first and without test rows, the verdict by the ceiling, and a pilot that is really run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from conftest import TINY
from PIL import Image
from stored import clusters, make_spec, make_store

import embedpipe
from embedpipe import BackboneSpec, FeatureStore
from embedpipe.backbones import LayerSpec
from embedpipe.errors import TrainingDataError, UsageError
from embedpipe.finetuning.advice.advise import advise
from embedpipe.finetuning.advice.pilot import PilotPlan, TrainingCost, pilot_runs, plan_pilot
from embedpipe.finetuning.advice.result import Advice
from embedpipe.finetuning.benchmark.result import Benchmark, Cell
from embedpipe.finetuning.options import SplitOptions
from embedpipe.finetuning.split_rows import read_split_rows
from embedpipe.store.schema import vector_column

#: The pictures look alike to the small network.
FAST = {"epochs": 1, "batch_size": 16, "trust": True, "near_duplicates": "off", "progress": False}
ONLY_ON_STORES = {"near_duplicates": "off", "progress": False}


def pictures(folder: Path, count: int, noise: float) -> Path:
    """Noisy pictures of two classes: one is a little more red, the other a little more green."""
    rng = np.random.default_rng(0)
    for i in range(count):
        pixels = rng.integers(0, 256, (34, 34, 3)).astype(float)
        pixels[..., i % 2] += 60 + noise * rng.standard_normal()
        path = folder / "ab"[i % 2] / f"{i:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels / 2).clip(0, 255).astype(np.uint8)).save(path)
    return folder


@pytest.fixture(scope="module")
def hard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of pictures whose classes overlap."""
    root = tmp_path_factory.mktemp("hard")
    embedpipe.embed(pictures(root / "photos", 200, 150), root / "store", backbone=TINY)
    return root / "store"


def layered(path: Path, layers: dict[str, npt.NDArray[np.float32]], **columns: Sequence[object]) -> FeatureStore:
    """A store with the vectors of several layers; the one named ``features`` is the last."""
    recipe = make_spec(1).preprocessing
    specs = tuple(LayerSpec(name, "none", X.shape[1]) for name, X in layers.items())
    store = FeatureStore.create(path, BackboneSpec("timm", "made_up", "0" * 64, True, specs, recipe))
    rows = len(next(iter(layers.values())))
    vectors = {spec.column: vector_column(layers[spec.name]) for spec in specs}
    ids = {"id": [f"row-{i:03d}" for i in range(rows)], "content_hash": [f"{i:064x}" for i in range(rows)]}
    store.write(pa.table({**ids, "source_root": ["made up"] * rows, **vectors, **columns}))
    return store.refresh()


def named(y: npt.NDArray[np.int64]) -> list[str]:
    return [f"class {one}" for one in y.tolist()]


def test_a_perfect_probe_leaves_nothing_to_gain_and_nothing_is_trained(tmp_path: Path) -> None:
    X, y = clusters(400, spread=0.05)
    store = make_store(tmp_path / "store", X, label=named(y))  # of no real network: none could be loaded
    found = advise(store, **ONLY_ON_STORES)
    assert found.verdict.decision == "not worth it"
    assert found.verdict.ceiling.high <= 0.01
    assert (found.pilot, found.next_step, found.device, found.verdict.minutes) == (None, None, "", None)
    assert found.frozen_baselines.chosen.value == 1
    assert found.frozen_baselines.best is found.frozen_baselines.plain
    assert found.frozen_baselines.rows == found.labels == 400 - found.test_rows
    again = advise(store, pilot=True, to=tmp_path / "runs", time_budget="1h", **ONLY_ON_STORES)
    assert (again.verdict, again.pilot) == (found.verdict, None)
    assert again.notes == ["No pilot was run: none could change the verdict."]


def test_the_layer_that_tells_the_classes_is_found(tmp_path: Path) -> None:
    X, y = clusters(200, spread=0.8)
    rng = np.random.default_rng(1)
    noise = rng.standard_normal((200, 8)).astype(np.float32)
    store = layered(tmp_path / "store", {"blocks.1": X, "features": noise}, label=named(y))
    found = advise(store, **ONLY_ON_STORES)
    best, plain = found.frozen_baselines.best, found.frozen_baselines.plain
    assert plain.layers == ["features"]
    assert "blocks.1" in best.layers
    assert best.verdict == "better"
    assert best.difference is not None
    assert (
        0.3 < best.difference.low <= best.difference.value == pytest.approx(best.accuracy.value - plain.accuracy.value)
    )
    assert best.adjusted is not None
    assert best.adjusted < 0.05
    assert {option.head for option in found.frozen_baselines.options} == {
        "logreg",
        "logreg of unit vectors",
        "lda",
        "knn",
    }
    assert len(found.frozen_baselines.options) == 12  # two layers, and both joined
    assert "blocks.1+features" in " ".join(option.name for option in found.frozen_baselines.options)
    assert 0.8 < found.frozen_baselines.chosen.value < 1
    # It cannot be timed: there is no such network.
    assert any("could not be measured" in note for note in found.notes)
    assert found.next_step is not None
    assert found.next_step.minutes is None


def test_another_backbone_s_store_takes_part(tmp_path: Path) -> None:
    X, y = clusters(240, spread=0.2)
    noise = np.random.default_rng(1).standard_normal((240, 6)).astype(np.float32)
    poor = make_store(tmp_path / "poor", noise, "poor", label=named(y))
    good = make_store(tmp_path / "good", X[:236], "good", label=named(y)[:236])
    found = advise([poor, good], **ONLY_ON_STORES)
    assert (found.frozen_baselines.best.backbone, found.frozen_baselines.plain.backbone) == ("timm/good", "timm/poor")
    assert found.frozen_baselines.rows < found.labels
    assert any("not in" in note for note in found.notes)
    assert found.next_step is not None
    assert found.next_step.sources == [poor.path, good.path]


def test_the_best_of_useless_options_is_not_taken_at_its_word(tmp_path: Path) -> None:
    """Chosen on the rows that it is measured on, the best of many is lucky; the ceiling's probe is chosen on others."""
    rng = np.random.default_rng(0)
    layers = {name: rng.standard_normal((90, 3)).astype(np.float32) for name in ("a", "b", "features")}
    cheap = advise(
        layered(tmp_path / "store", layers, label=named(np.arange(90) % 2)), **ONLY_ON_STORES
    ).frozen_baselines
    assert cheap.best.accuracy.value > cheap.chosen.value + 0.03
    assert cheap.chosen.low < 0.5 < cheap.chosen.high


def test_test_rows_and_their_labels_take_no_part_in_what_is_cheap(tmp_path: Path) -> None:
    X, y = clusters(200, spread=0.8)
    split = ["train", "train", "train", "validation", "test"] * 40
    test = np.array(split) == "test"
    moved, shuffled = X.copy(), y.copy()
    moved[test] = 100 + np.random.default_rng(0).standard_normal(moved[test].shape)
    shuffled[test] = (y[test] + 1) % 3
    a, b = (
        advise(make_store(tmp_path / name, vectors, label=named(labels), split=split), **ONLY_ON_STORES)
        for name, vectors, labels in (("a", X, y), ("b", moved, shuffled))
    )
    assert a.frozen_baselines.rows == 160
    assert a.test_rows == 40
    assert a.frozen_baselines.chosen == b.frozen_baselines.chosen
    for one, other in zip(a.frozen_baselines.options, b.frozen_baselines.options, strict=True):
        assert (one.name, one.accuracy, one.difference) == (other.name, other.accuracy, other.difference)
    assert a.verdict.ceiling == b.verdict.ceiling


def test_without_a_pilot_it_names_a_run_that_works(hard: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = advise(hard, seeds=2, **FAST)
    assert found.verdict.decision == "can't tell yet"
    assert found.pilot is None
    assert found.verdict.gain is None
    assert found.device
    step = found.next_step
    assert step is not None
    assert step.minutes is not None
    assert 0 < step.minutes < 5
    assert found.verdict.minutes is not None
    assert step.command == (
        f"embedpipe advise {hard} --seeds 2 --epochs 1 --batch-size 16 --trust --near-duplicates off "
        "--pilot --to store.pilot"
    )
    assert step.description == "a pilot on 20 and 40 labels, 2 seeds each"
    assert not any("labels with" in line for line in found.would_change)  # one run is named, not two
    assert json.loads(json.dumps(found.to_dict()))["next_step"]["command"] == step.command
    assert any("A better layer" in line for line in found.would_change)
    settled = advise(*step.sources, **step.options, progress=False)
    check_pilot(settled, found)
    again = advise(*step.sources, **step.options, progress=False)
    assert again.pilot == settled.pilot  # read, not run
    after = settled.next_step
    if settled.verdict.decision == "can't tell yet":
        assert after is not None
        assert (after.verb == "benchmark") == ("label_counts" in after.options)
        assert after.options["to"] == "store.pilot"


def check_pilot(settled: Advice, before: Advice) -> None:
    """What a pilot says is in the verdict, and adds up with its cells."""
    pilot, verdict = settled.pilot, settled.verdict
    assert pilot is not None
    assert pilot.label_counts == [20, 40]
    assert settled.labels == 160
    assert pilot.seeds == [0, 1]
    assert pilot.learners == ["linear-probe", "lp-ft"]
    assert settled.frozen_baselines == before.frozen_baselines
    assert verdict.ceiling == before.verdict.ceiling
    assert verdict.gain is not None
    assert verdict.trend is not None
    assert verdict.shift is not None
    assert verdict.minutes is not None
    tuned = np.mean([cell.accuracy for cell in pilot.cells_of("lp-ft", 40)])
    plain = np.mean([cell.accuracy for cell in pilot.cells_of("linear-probe", 40)])
    if settled.frozen_baselines.best is settled.frozen_baselines.plain:
        assert verdict.gain.value == pytest.approx(tuned - plain)
    assert verdict.gain.value <= tuned - plain + 1e-9
    shifts = [
        a.shifted_accuracy - b.shifted_accuracy
        for a, b in zip(pilot.cells_of("lp-ft", 40), pilot.cells_of("linear-probe", 40), strict=True)
    ]
    assert verdict.shift.value == pytest.approx(np.mean(shifts))


def test_pairs_of_a_pilot_add_up() -> None:
    """Of ten rows, and of two that could stand for what is cheap the better one at each size."""
    rows = {"linear-probe": "1111100000", "lp-ft": "0111111100"}

    def cell(learner: str, labels: int, seed: int) -> Cell:
        right = np.array([digit == "1" for digit in rows[learner]])
        shifted = {
            "shifted": {"fog": [0.5]},
            "shifted_correct": [0.25, 0.75] if learner == "linear-probe" else [0.25, 1.0],
        }
        packed = np.packbits(right).tobytes().hex()
        return Cell(learner, labels, seed, right.mean(), 1.0, 0.1, [], 0, 2.0, correct=packed, **shifted)

    cells = [cell(learner, labels, seed) for learner in rows for labels in (20, 40) for seed in (1, 0)]
    found = Benchmark("", "", "", "", [], [20, 40], [0, 1], ["linear-probe", "lp-ft"], 10, [3], cells, [], [], "")
    first = pilot_runs(found)
    assert [(run.labels, run.seed) for run in first] == [(20, 0), (20, 1), (40, 0), (40, 1)]
    assert {(run.probe, run.tuned, run.paired) for run in first} == {(0.5, 0.7, (4, 1, 3, 2))}
    assert first[0].shifted_error == pytest.approx(np.std([0, 0.25], ddof=1) / np.sqrt(2))
    better = pilot_runs(found, lambda labels, seed: np.arange(10) < (9 if labels == 40 else 4))
    assert [run.probe for run in better] == [0.5, 0.5, 0.9, 0.9]
    assert better[2].paired == (7, 2, 0, 1)
    assert better[2].shifted_probe == 0.5


def test_a_pilot_is_held_against_the_best_of_what_is_cheap(hard: Path, tmp_path: Path) -> None:
    """Of a backbone that is not tuned, vectors that tell the classes: its head is what has to be beaten."""
    mine = FeatureStore(hard)
    table = mine.to_arrow(["id", "label"])
    y = np.array([label == "b" for label in table["label"].to_pylist()], np.int64)
    X = (y[:, None] + 0.4 * np.random.default_rng(0).standard_normal((len(y), 4))).astype(np.float32)
    X[::12] *= -1  # or there would be nothing to gain
    other = FeatureStore.create(tmp_path / "other", make_spec(4, "other"))
    others = {"content_hash": ["0" * 64] * len(y), "source_root": ["made up"] * len(y), "embedding": vector_column(X)}
    other.write(pa.table({"id": table["id"], **others}))
    found = advise([mine, other.refresh()], to=tmp_path / "runs", pilot=True, seeds=2, **FAST)
    assert found.pilot is not None
    assert found.frozen_baselines.best.backbone == "timm/other"
    assert found.verdict.gain is not None
    plain = np.mean([cell.accuracy for cell in found.pilot.cells_of("linear-probe", 40)])
    tuned = np.mean([cell.accuracy for cell in found.pilot.cells_of("lp-ft", 40)])
    assert found.verdict.gain.value < tuned - plain - 0.1
    assert any("of timm/other" in note and "on corrupted pictures" in note for note in found.notes)


def test_images_that_are_in_no_store_yet(tmp_path: Path) -> None:
    photos = pictures(tmp_path / "photos", 60, 0)
    found = advise(photos, to=tmp_path / "runs", backbone=TINY, **FAST)
    assert found.labels + found.test_rows == 60
    assert FeatureStore.exists(str(tmp_path / "runs" / "features"))


def test_a_pilot_that_fits_into_a_time(tmp_path: Path) -> None:
    X, y = clusters(800, classes=2)
    split = read_split_rows(
        make_store(tmp_path / "store", X, label=named(y)), "label", SplitOptions(near_duplicates="off")
    )
    labels = len(split.train) + len(split.validation)
    assert labels == 640
    cost = TrainingCost(full=640.0, picture=0.0, device="cpu")  # a second a label
    assert plan_pilot(split, 2, cost) == PilotPlan((80, 160), 8.0)
    assert plan_pilot(split, 2, cost, 480) == PilotPlan((80, 160), 8.0)
    assert plan_pilot(split, 2, cost, 479) == PilotPlan((40, 80), 4.0)
    assert plan_pilot(split, 3, cost, 479) == PilotPlan((40, 80), 6.0)
    assert plan_pilot(split, 2, cost, 40) is None
    assert plan_pilot(split, 2, None) == PilotPlan((80, 160), None)
    measured = plan_pilot(split, 2, TrainingCost(0.0, 0.06, "cpu"))
    assert measured == PilotPlan((80, 160), pytest.approx(5 * 160 * 5 * 0.001))  # four networks and the frozen one


def test_a_time_too_short_for_a_pilot_is_said(hard: Path, tmp_path: Path) -> None:
    found = advise(hard, to=tmp_path / "runs", time_budget="0.01s", **FAST)
    assert found.pilot is None
    assert "No pilot was run: none fits into 0.01s." in found.notes
    assert found.next_step is not None
    assert "time_budget" not in found.next_step.options
    assert found.next_step.options["to"] == str(tmp_path / "runs")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_gain": 1.0}, "min_gain=1.0 is no share"),
        ({"shift_margin": -0.1}, "shift_margin=-0.1 is no share"),
        ({"seeds": 1}, "seeds=1 is too few"),
        ({"time_budget": "soon"}, "time_budget='soon' is no time"),
        ({"time_budget": "1min"}, "name a folder for its runs"),
        ({"pilot": True}, "name a folder for its runs"),
        ({"min_gian": 0.1}, "did you mean 'min_gain'"),
        ({"label": "species"}, "species"),
        ({"backbone": TINY}, "is a store: leave it out"),
    ],
)
def test_bad_options(hard: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises((UsageError, TrainingDataError), match=message):
        advise(hard, **options)


def test_what_cannot_be_advised_on(hard: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no feature store at"):
        advise(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="the same store is given twice"):
        advise([hard, hard])
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("important")
    with pytest.raises(UsageError, match="holds no run of"):
        advise(hard, to=tmp_path / "full", pilot=True)
    X, y = clusters(60)
    other = make_store(tmp_path / "other", X, "other", label=named(y))
    with pytest.raises(UsageError, match="none of the ids"):
        advise([hard, other], near_duplicates="off")
    texts = embedpipe.embed([f"text {i}" for i in range(4)], tmp_path / "texts", modality="text",
                            backbone="python:tiny_text_backbone.make")  # fmt: skip
    with pytest.raises(UsageError, match="holds vectors of texts"):
        advise(texts)
