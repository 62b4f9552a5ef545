"""The shares of a run's time add up, and the slowest stage is named with what would help."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedpipe.backbones import BackboneSpec, LayerSpec, TextPreprocessing
from embedpipe.decoding import Preprocessing
from embedpipe.embedding.bottleneck import ADVICE, Bottleneck, find_bottleneck

SPEC = BackboneSpec("timm", "a", "", True, (LayerSpec("features", "none", 2),), Preprocessing())
SECONDS = st.floats(0, 1e4, allow_nan=False)


def test_work_ahead_counts_only_as_far_as_the_loop_waited_for_it():
    stages = {"read": 1.0, "decode": 6.0, "resize": 1.0, "copy": 0.5, "forward": 5.0, "stall": 0.5}
    taking_turns = find_bottleneck(stages, wall=10.0, items=1000, threads=2)
    assert taking_turns.stage == "forward"
    assert taking_turns.shares == pytest.approx(
        {"read": 0.05, "decode": 0.3, "resize": 0.05, "copy": 0.05, "forward": 0.5, "write": 0.05, "waiting": 0.0}
    )
    assert (taking_turns.rate, taking_turns.limit) == (100, 200)
    behind = find_bottleneck(stages, wall=6.5, items=1000, threads=2)
    assert behind.shares["decode"] == pytest.approx(0.5 * 0.75 / 6.5)
    assert "forward alone would make 200/s" in str(behind)


def test_time_in_which_nothing_worked_is_waiting():
    found = find_bottleneck({"forward": 1.0, "read": 1.0}, wall=10.0, items=10, threads=1)
    assert found.stage == "waiting"
    assert found.shares["waiting"] == pytest.approx(0.8)
    assert found.limit == 0
    assert found.advice(SPEC, "cpu") == ADVICE["waiting"]


def test_a_run_with_nothing_to_do_has_none():
    assert find_bottleneck({}, 1.0, 0, 2) is None
    assert find_bottleneck({"read": 1.0}, 1.0, 0, 2) is None


@given(
    st.fixed_dictionaries(dict.fromkeys(("read", "decode", "resize", "copy", "stall"), SECONDS)),
    st.floats(1e-3, 1e4),
    st.floats(1e-3, 1e5),
    st.integers(1, 64),
)
def test_shares_add_up_to_one(seconds, forward, wall, threads):
    found = find_bottleneck({**seconds, "forward": forward}, wall, 10, threads)
    assert sum(found.shares.values()) == pytest.approx(1)
    assert min(found.shares.values()) >= 0
    assert found.stage in ADVICE


@pytest.mark.parametrize(
    ("stage", "spec", "device", "said", "unsaid"),
    [
        ("forward", SPEC, "cpu", "a lower --precision, or a GPU", "scaled"),
        ("forward", dataclasses.replace(SPEC, precision="int8"), "cuda", "smaller", "--precision"),
        ("decode", SPEC, "cpu", "--decode scaled", "GPU"),
        ("decode", dataclasses.replace(SPEC, preprocessing=Preprocessing(decode="scaled")), "cpu", "cores", "--decode"),
        ("decode", dataclasses.replace(SPEC, preprocessing=TextPreprocessing("")), "cpu", "cores", "--decode"),
    ],
)
def test_advice_can_be_followed(stage, spec, device, said, unsaid):
    advice = Bottleneck({}, stage, 1.0, 1.0).advice(spec, device)
    assert said in advice
    assert unsaid not in advice
