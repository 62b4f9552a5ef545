"""`doctor` on this machine: its findings, its measurements and its reports of failures."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import TINY
from PIL import Image
from tiny_text_backbone import TINY_TEXT

from embedpipe import doctor
from embedpipe.diagnosis import Diagnosis, Finding, samples
from embedpipe.diagnosis.doctor import PROBES
from embedpipe.diagnosis.findings import run_probes
from embedpipe.errors import SourceError, UsageError


@pytest.fixture(scope="module")
def diagnosis() -> Diagnosis:
    """The state of this machine, without measurements."""
    return doctor(seconds=0)


def test_every_probe_has_a_finding(diagnosis: Diagnosis) -> None:
    assert [finding.name for finding in diagnosis.findings] == list(PROBES)
    assert diagnosis.ok, [finding for finding in diagnosis.findings if not finding.ok]
    assert json.loads(json.dumps(diagnosis.to_dict()))["ok"] is True


def test_findings_have_plausible_values(diagnosis: Diagnosis) -> None:
    values = {finding.name: finding.values for finding in diagnosis.findings}
    assert values["cpu"]["usable_cores"] >= 1
    assert 0 <= values["cpu"]["busy_percent"] <= 100
    assert values["memory"]["total"] >= values["memory"]["available"] > 0
    assert values["versions"]["torch"] != "not installed"
    assert all(place["free"] > 0 for place in values["disk"].values())
    assert not values["extras"]["text"]["missing"]
    assert values["extras"]["text"]["install"] == "pip install 'embedpipe[text]'"


def test_diagnosis_has_a_one_line_repr_and_an_html_table(diagnosis: Diagnosis) -> None:
    assert repr(diagnosis).startswith("Diagnosis(ok=True, findings=9, warnings=")
    assert "\n" not in repr(diagnosis)
    assert diagnosis._repr_html_().startswith("<table><caption>Diagnosis</caption><tr><th>devices</th>")


def test_failing_probe_is_reported_beside_the_others() -> None:
    def broken() -> Finding:
        raise RuntimeError("the driver is gone")

    failed, memory = run_probes({"gpu": broken, "memory": PROBES["memory"]})
    assert (failed.name, failed.ok) == ("gpu", False)
    assert "RuntimeError: the driver is gone" in failed.detail
    assert (memory.name, memory.ok) == ("memory", True)


def test_thread_limit_in_the_environment_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    cores = next(f for f in doctor(seconds=0).findings if f.name == "cpu").values["usable_cores"]
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    warned = any("OMP_NUM_THREADS=1" in warning for warning in doctor(seconds=0).warnings)
    assert warned == (cores > 1)
    monkeypatch.setenv("OMP_NUM_THREADS", str(cores))
    assert not any("OMP_NUM_THREADS" in warning for warning in doctor(seconds=0).warnings)


def test_source_is_measured_by_embedding_a_sample(photos: Path) -> None:
    (photos / "cat/broken.jpg").write_bytes(b"no image")
    diagnosis = doctor(photos, backbones=[TINY], seconds=0.2, batch_size=13)
    (measured,) = diagnosis.estimates
    assert diagnosis.ok
    assert measured.items % 13 == 0
    assert measured.failed == measured.items // 13
    assert measured.rate == pytest.approx(measured.items / measured.seconds)
    assert measured.hours == {13: pytest.approx(13 / measured.rate / 3600)}
    assert sum(measured.shares.values()) == pytest.approx(1)
    assert {"decode", "forward", "write"} <= set(measured.shares)
    assert (measured.engine, bool(measured.advice), str(photos) in measured.source) == ("torch", True, True)


def test_without_a_source_samples_of_scikit_learn_are_measured() -> None:
    (images,) = doctor(backbones=[TINY], seconds=0.1).estimates
    (texts,) = doctor(backbones=[TINY_TEXT], modality="text", seconds=0.1, items=500).estimates
    assert ("photographs" in images.source, "paragraphs" in texts.source) == (True, True)
    assert (images.decode, texts.decode) == ("full", None)
    assert (list(images.hours), list(texts.hours)) == ([10_000, 100_000, 1_000_000], [500])


def test_backbone_that_does_not_load_is_reported_beside_the_others(tmp_path: Path) -> None:
    diagnosis = doctor(backbones=["timm/resnet1800", f"checkpoint/{tmp_path / 'none.pth'}", TINY], seconds=0.1)
    assert not diagnosis.ok
    assert len(diagnosis.estimates) == 1
    assert "UnknownBackboneError" in diagnosis.not_measured["timm/resnet1800"]
    assert len(diagnosis.not_measured) == 2


BROKEN = """
import embedpipe
from embedpipe.diagnosis.software import versions
print(versions().warnings)
embedpipe.load_backbone("timm/test_resnet", weights="none")
"""


def test_torchvision_of_another_build_is_named_and_doctor_is_advised(tmp_path: Path) -> None:
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]])}
    done = subprocess.run(
        [sys.executable, "-c", BROKEN], env=environment, capture_output=True, text=True, check=False, timeout=250
    )
    assert "do not work together" in done.stdout
    assert "one release and one build" in done.stdout
    assert "operator torchvision::nms does not exist. `embedpipe doctor` checks" in done.stderr.splitlines()[-1]


def test_source_of_broken_items_is_reported(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.jpg").write_bytes(b"no image")
    diagnosis = doctor(tmp_path / "photos", backbones=[TINY], seconds=0.1)
    assert "could be embedded" in diagnosis.not_measured[TINY]


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(SourceError, match="there is no file or folder"):
        doctor("nowhere", backbones=[TINY], seconds=0.1)
    with pytest.raises(UsageError, match="unknown option 'batchsize'"):
        doctor(batchsize=3)
    with pytest.raises(UsageError, match=r"items >= 1, got .* and 0"):
        doctor(items=0)


def test_samples_are_jpegs_and_texts_of_many_sizes() -> None:
    sizes = set()
    for payload in samples.photographs():
        with Image.open(io.BytesIO(payload)) as picture:
            assert picture.format == "JPEG"
            sizes.add(picture.size)
    assert len(sizes) >= 5
    lengths = [len(text.split()) for text in samples.texts()]
    assert min(lengths) < 10 < 60 < max(lengths)
