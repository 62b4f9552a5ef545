"""Models in float16, in int8, and in OpenVINO's format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from exported_script import Exported

import embedpipe
from embedpipe.errors import HeadError
from embedpipe.exporting import load_exported

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]


@pytest.mark.parametrize(
    ("format", "precision"), [("onnx", "float16"), ("openvino", "float32"), ("openvino", "float16")]
)
def test_model_gives_the_predictions_of_the_head(
    exported: Exported, format: str, precision: str, tmp_path: Path
) -> None:
    done = embedpipe.export(exported.head, tmp_path / "model", format=format, precision=precision, trust=True)
    assert done.comparison.different_labels == 0
    names = {"onnx": {"model.onnx"}, "openvino": {"model.xml", "model.bin"}}[format]
    assert {*done.files} == {*names, "model.json", "predict.py", "README.md"}
    given = load_exported(tmp_path / "model").predict(exported.photos)
    expected = exported.head.predict(exported.photos, trust=True)
    np.testing.assert_allclose(given["confidence"], expected["confidence"], atol=5e-3)


def test_int8_is_refused_where_few_rows_cannot_prove_it(exported: Exported, tmp_path: Path) -> None:
    with pytest.raises(HeadError, match=r"8 rows cannot show that less than 1 point of accuracy is lost"):
        embedpipe.export(exported.head, tmp_path / "model", precision="int8", trust=True)
    assert not (tmp_path / "model").exists()


def test_weights_of_a_large_graph_do_not_stay_beside_another_precision(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embedpipe.exporting.graph.LARGE", 0)
    exact, half = (
        embedpipe.export(exported.head, tmp_path / name, precision=name, trust=True).files
        for name in ("float32", "float16")
    )
    assert {*exact} - {*half} == {"model.onnx.data"}
