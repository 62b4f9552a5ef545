"""The script that goes the whole road: what it chooses, its output, files and exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiny_transformer
from script import Done, run_script, striped

import embedpipe
from embedpipe.finetuning.advice.forecasting import forecast
from embedpipe.statistics import percent

SCRIPT = Path(__file__).parents[2] / "pipelines" / "transfer.py"
SMALL = ["--backbone", "timm/test_resnet", "--weights", "none", "--near-duplicates", "off", "--epochs", "1"]


@pytest.fixture
def transfer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Done]:
    """Return a function that runs the script as the main program of this process, which spares many imports."""
    photos = striped(tmp_path / "photos", "ab", 60, seed=0)

    def run(*options: str, data: Path = photos) -> Done:
        words = [str(data), "--to", str(tmp_path / "transferred"), *SMALL, *options]
        return run_script(SCRIPT, words, monkeypatch, capsys)

    return run


@pytest.mark.long
def test_head_is_kept_where_little_can_be_gained(transfer: Callable[..., Done], tmp_path: Path) -> None:
    done = transfer("--min-gain", "0.9")
    assert (done.code, done.err) == (0, "")
    assert "recommendation: stay" in done.out
    result = json.loads((tmp_path / "transferred" / "result.json").read_text())
    assert result["advice"]["network"] is None
    head = embedpipe.load_head(result["chosen"]["head"])
    assert head.predict(embedpipe.FeatureStore(tmp_path / "transferred" / "frozen.features")).num_rows == 60


@pytest.mark.long
def test_network_is_trained_where_it_is_expected_to_pay(
    transfer: Callable[..., Done], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forecast, "SURE", 0.0)
    done = transfer("--learning-rate", "0.003")
    assert (done.code, done.err) == (0, "")
    assert "recommendation: fine-tune" in done.out
    result = json.loads((tmp_path / "transferred" / "result.json").read_text())
    is_better = result["advice"]["network"]["best_epoch"] > 0
    assert embedpipe.FeatureStore.exists(str(tmp_path / "transferred" / "tuned.features")) == is_better
    assert result["chosen"]["backbone"].startswith("checkpoint/") == is_better
    assert embedpipe.load_head(result["chosen"]["head"]).classes.tolist() == ["a", "b"]
    assert ("a network was trained and is not kept" in done.out) != is_better
    test = result["advice"]["network"]["test"]
    assert f"a head on the frozen backbone: {percent(test['linear_probe'])} on {test['rows']} test rows" in done.out
    again = transfer("--learning-rate", "0.003")
    assert (again.code, again.err) == (0, "")
    assert json.loads((tmp_path / "transferred" / "result.json").read_text())["chosen"] == result["chosen"]


@pytest.mark.long
def test_table_of_texts_goes_the_whole_road(
    transfer: Callable[..., Done], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forecast, "SURE", 0.0)
    model = tiny_transformer.save(tmp_path / "bert", "bert")
    rng = np.random.default_rng(0)
    rows = [f"{' '.join(rng.choice(['the', 'a', 'sits', name], 6))},{name}" for name in ["cat", "man"] * 40]
    table = tmp_path / "messages.csv"
    table.write_text("\n".join(["message,kind", *rows]))
    options = ["--backbone", model, "--weights", str(tmp_path / "bert"), "--text", "message", "--label", "kind"]
    done = transfer(*options, "--learning-rate", "0.003", data=table)
    assert done.code == 0
    result = json.loads((tmp_path / "transferred" / "result.json").read_text())
    network = result["advice"]["network"]
    assert network["modality"] == "text"
    assert embedpipe.FeatureStore.exists(str(tmp_path / "transferred" / "tuned.features")) == (
        network["best_epoch"] > 0
    )
    assert embedpipe.load_head(result["chosen"]["head"]).classes.tolist() == ["cat", "man"]


def test_folder_inside_the_data_is_refused(tmp_path: Path, transfer: Callable[..., Done]) -> None:
    done = transfer("--to", str(tmp_path / "photos" / "inside"))
    assert done.code == 2
    assert "--to must not be inside" in done.err


def test_wrong_option_is_refused_before_anything_is_embedded(transfer: Callable[..., Done], tmp_path: Path) -> None:
    done = transfer("--near-duplicates", "much")
    assert done.code == 2
    assert "argument --near-duplicates: invalid cosine_or_off value: 'much'" in done.err
    assert not (tmp_path / "transferred").exists()
