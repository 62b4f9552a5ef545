"""`doctor` on this machine: what it finds, measures, and says of what is broken."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from conftest import TINY
from PIL import Image
from tiny_text_backbone import TINY_TEXT

from embedpipe import doctor
from embedpipe.diagnosis import Finding, samples
from embedpipe.diagnosis.doctor import PROBES
from embedpipe.diagnosis.findings import look
from embedpipe.errors import SourceError, UsageError


def test_every_part_of_this_machine_is_looked_at() -> None:
    found = doctor(seconds=0)
    assert [finding.name for finding in found.findings] == list(PROBES)
    assert found.ok, [finding for finding in found.findings if not finding.ok]
    values = {finding.name: finding.values for finding in found.findings}
    assert values["cpu"]["usable_cores"] >= 1
    assert 0 <= values["cpu"]["busy_percent"] <= 100
    assert values["memory"]["total"] >= values["memory"]["available"] > 0
    assert values["versions"]["torch"] != "not installed"
    assert all(place["free"] > 0 for place in values["disk"].values())
    assert not values["extras"]["text"]["missing"]
    assert values["extras"]["text"]["install"] == "pip install 'embedpipe[text]'"
    assert json.loads(json.dumps(found.to_dict()))["ok"] is True


def test_a_broken_probe_is_reported_and_hides_no_other() -> None:
    def broken() -> Finding:
        raise RuntimeError("the driver is gone")

    gone, whole = look({"gpu": broken, "memory": PROBES["memory"]})
    assert (gone.name, gone.ok) == ("gpu", False)
    assert "RuntimeError: the driver is gone" in gone.detail
    assert (whole.name, whole.ok) == ("memory", True)


def test_threads_that_the_environment_holds_back(monkeypatch: pytest.MonkeyPatch) -> None:
    cores = next(f for f in doctor(seconds=0).findings if f.name == "cpu").values["usable_cores"]
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    held = any("OMP_NUM_THREADS=1" in warning for warning in doctor(seconds=0).warnings)
    assert held == (cores > 1)
    monkeypatch.setenv("OMP_NUM_THREADS", str(cores))
    assert not any("OMP_NUM_THREADS" in warning for warning in doctor(seconds=0).warnings)


def test_a_source_is_measured_by_embedding_a_sample_of_it(photos: Path) -> None:
    (photos / "cat/broken.jpg").write_bytes(b"no image")
    found = doctor(photos, backbones=[TINY], seconds=0.2, batch_size=13)
    (measured,) = found.estimates
    assert found.ok
    assert measured.items % 13 == 0
    assert measured.failed == measured.items // 13
    assert measured.rate == pytest.approx(measured.items / measured.seconds)
    assert measured.hours == {13: pytest.approx(13 / measured.rate / 3600)}
    assert sum(measured.shares.values()) == pytest.approx(1)
    assert {"decode", "forward", "write"} <= set(measured.shares)
    assert measured.engine == "torch"
    assert measured.advice
    assert str(photos) in measured.source


def test_without_a_source_what_is_at_hand_is_measured() -> None:
    (images,) = doctor(backbones=[TINY], seconds=0.1).estimates
    (texts,) = doctor(backbones=[TINY_TEXT], modality="text", seconds=0.1, items=500).estimates
    assert ("photographs" in images.source, "paragraphs" in texts.source) == (True, True)
    assert (images.decode, texts.decode) == ("full", None)
    assert (list(images.hours), list(texts.hours)) == ([10_000, 100_000, 1_000_000], [500])


def test_a_backbone_that_does_not_load_hides_no_other(tmp_path: Path) -> None:
    found = doctor(backbones=["timm/resnet1800", f"checkpoint/{tmp_path / 'none.pth'}", TINY], seconds=0.1)
    assert not found.ok
    assert len(found.estimates) == 1
    assert "UnknownBackboneError" in found.not_measured["timm/resnet1800"]
    assert len(found.not_measured) == 2


def test_a_source_of_broken_items_is_said(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.jpg").write_bytes(b"no image")
    found = doctor(tmp_path / "photos", backbones=[TINY], seconds=0.1)
    assert "could be embedded" in found.not_measured[TINY]


def test_bad_usage() -> None:
    with pytest.raises(SourceError, match="there is no file or folder"):
        doctor("nowhere", backbones=[TINY], seconds=0.1)
    with pytest.raises(UsageError, match="unknown option 'batchsize'"):
        doctor(batchsize=3)
    with pytest.raises(UsageError, match="items=0"):
        doctor(items=0)


def test_samples_are_real_and_varied() -> None:
    sizes = set()
    for payload in samples.photographs():
        with Image.open(io.BytesIO(payload)) as picture:
            assert picture.format == "JPEG"
            sizes.add(picture.size)
    assert len(sizes) >= 5
    lengths = [len(text.split()) for text in samples.texts()]
    assert min(lengths) < 10 < 60 < max(lengths)
