"""`find_bottleneck`: shares of the stages, the slowest stage, and advice."""

from __future__ import annotations

import dataclasses

import pytest
from conftest import TINY
from hypothesis import given
from hypothesis import strategies as st

import embedpipe
from embedpipe._utils import device
from embedpipe.backbones import BackboneSpec, LayerSpec, TextPreprocessing
from embedpipe.decoding import Preprocessing
from embedpipe.embedding.bottleneck import Bottleneck, find_bottleneck, stage_advice
from embedpipe.embedding.options import RunOptions
from embedpipe.embedding.runners.choice import contention
from embedpipe.embedding.runners.local import LocalRunner
from embedpipe.embedding.summary import StageTimer

SPEC = BackboneSpec("timm", "a", "", True, (LayerSpec("features", "none", 2),), Preprocessing())
SECONDS = st.floats(0, 1e4, allow_nan=False)


def test_work_of_threads_counts_only_as_far_as_the_loop_waited():
    stages = {"read": 1.0, "decode": 6.0, "resize": 1.0, "copy": 0.5, "forward": 5.0, "stall": 0.5}
    alternating = find_bottleneck(stages, wall=10.0, items=1000, threads=2)
    assert alternating.stage == "forward"
    assert alternating.shares == pytest.approx(
        {"read": 0.05, "decode": 0.3, "resize": 0.05, "copy": 0.05, "forward": 0.5, "write": 0.05, "waiting": 0.0}
    )
    assert (alternating.rate, alternating.limit) == (100, 200)
    behind = find_bottleneck(stages, wall=6.5, items=1000, threads=2)
    assert behind.shares["decode"] == pytest.approx(0.5 * 0.75 / 6.5)
    assert "forward alone: 200/s" in str(behind)


def test_idle_time_is_waiting():
    bottleneck = find_bottleneck({"forward": 1.0, "read": 1.0}, wall=10.0, items=10, threads=1)
    assert bottleneck.stage == "waiting"
    assert bottleneck.shares["waiting"] == pytest.approx(0.8)
    assert bottleneck.limit == 0
    assert bottleneck.advice(SPEC, "cpu") == stage_advice()["waiting"]


def test_run_without_items_has_no_bottleneck():
    assert find_bottleneck({}, 1.0, 0, 2) is None
    assert find_bottleneck({"read": 1.0}, 1.0, 0, 2) is None


@given(
    st.fixed_dictionaries(dict.fromkeys(("read", "decode", "resize", "copy", "stall"), SECONDS)),
    st.floats(1e-3, 1e4),
    st.floats(1e-3, 1e5),
    st.integers(1, 64),
)
def test_shares_add_up_to_one(seconds, forward, wall, threads):
    bottleneck = find_bottleneck({**seconds, "forward": forward}, wall, 10, threads)
    assert sum(bottleneck.shares.values()) == pytest.approx(1)
    assert min(bottleneck.shares.values()) >= 0
    assert bottleneck.stage in stage_advice()


@pytest.mark.parametrize(
    ("stage", "spec", "device", "included", "excluded"),
    [
        ("forward", SPEC, "cpu", "a lower precision, or a GPU", "scaled"),
        ("forward", dataclasses.replace(SPEC, precision="int8"), "cuda", "smaller", "precision"),
        ("decode", SPEC, "cpu", "decode='scaled'", "GPU"),
        ("decode", dataclasses.replace(SPEC, preprocessing=Preprocessing(decode="scaled")), "cpu", "cores", "decode="),
        ("decode", dataclasses.replace(SPEC, preprocessing=TextPreprocessing("")), "cpu", "cores", "decode="),
    ],
)
def test_advice_depends_on_spec_and_device(stage, spec, device, included, excluded):
    advice = Bottleneck({}, stage, 1.0, 1.0).advice(spec, device)
    assert included in advice
    assert excluded not in advice


def test_advice_where_other_programs_kept_threads_of_torch_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    runner = LocalRunner(embedpipe.load_backbone(TINY), RunOptions(engine="torch"), StageTimer())
    forward = find_bottleneck({"forward": 9.0}, 10, 10, 2)
    decode = find_bottleneck({"forward": 1.0, "decode": 18.0}, 10, 10, 2)
    monkeypatch.setattr(device, "cores", lambda: 2)
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    (note,) = contention(runner, forward, processor=4, wall=10)
    assert note.startswith("other programs left this run 20 % of the processor")
    assert contention(runner, forward, processor=19, wall=10) == []
    assert contention(runner, forward, processor=0.4, wall=1) == []
    assert contention(runner, decode, processor=4, wall=10) == []
    assert contention(None, forward, processor=4, wall=10) == []
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    assert contention(runner, forward, processor=4, wall=10) == []
    monkeypatch.delenv("OMP_WAIT_POLICY")
    monkeypatch.setattr(device, "cores", lambda: 1)
    assert contention(runner, forward, processor=4, wall=10) == []
