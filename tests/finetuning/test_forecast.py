"""The forecast of the gain: its model, what pilots change, what an experiment can be expected to decide."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stored import make_spec

from embedpipe.finetuning.advice.experiments import Evidence
from embedpipe.finetuning.advice.forecasting.forecast import (
    Experiment,
    chance_to_decide,
    cheapest_experiment,
    forecast_gain,
    value_of_finding_out,
)
from embedpipe.finetuning.advice.forecasting.gain_model import Observed, Setting, load_gain_model, logit
from embedpipe.finetuning.advice.forecasting.pretraining import pretraining_of
from embedpipe.finetuning.benchmark.paired_runs import PilotRun

TARGET = Setting(0.8, 4000, 10, "cnn-sup")
shares = st.floats(0.02, 0.98)


def observed(gain: float, labels: int = 1000, variance: float = 0.01, accuracy: float = 0.75) -> Observed:
    setting = replace(TARGET, accuracy=accuracy, labels=labels)
    return Observed(setting, float(logit(accuracy + gain) - logit(accuracy)), variance)


@given(shares, st.integers(10, 10**6), st.integers(2, 1000), st.floats(0, 0.2))
@settings(max_examples=100, deadline=None)
def test_forecast_is_a_distribution_within_what_is_possible(
    accuracy: float, labels: int, classes: int, min_gain: float
) -> None:
    forecast = forecast_gain(Setting(accuracy, labels, classes, None), min_gain=min_gain)
    gain = forecast.gain
    assert -accuracy <= gain.low < gain.value < gain.high <= 1 - accuracy
    assert 0 <= forecast.probability <= 1
    assert (forecast.probability > 0.5) == (gain.value > min_gain) or gain.value == pytest.approx(min_gain, abs=1e-6)


def test_gain_that_the_errors_do_not_allow_has_no_probability() -> None:
    forecast = forecast_gain(replace(TARGET, accuracy=0.995), min_gain=0.01)
    assert (forecast.probability, forecast.recommendation) == (0.0, "stay")


def test_more_labels_and_more_errors_raise_the_forecast() -> None:
    few, many = (forecast_gain(replace(TARGET, labels=labels)).gain.value for labels in (100, 100_000))
    good, poor = (forecast_gain(replace(TARGET, accuracy=accuracy)).gain.value for accuracy in (0.95, 0.7))
    assert few < many
    assert good < poor


def test_pilots_move_the_forecast_and_narrow_it() -> None:
    before = forecast_gain(TARGET)
    high, low = (forecast_gain(TARGET, [observed(gain)]) for gain in (0.12, -0.05))
    assert low.gain.value < before.gain.value < high.gain.value
    assert low.probability < before.probability < high.probability
    assert high.gain.high - high.gain.low < before.gain.high - before.gain.low
    near = forecast_gain(TARGET, [observed(-0.05, labels=4000, variance=1e-4, accuracy=0.8)])
    assert near.recommendation == "stay"
    assert near.gain.value == pytest.approx(-0.05, abs=0.005)


def test_noisy_pilot_says_little() -> None:
    before, after = forecast_gain(TARGET), forecast_gain(TARGET, [observed(-0.05, variance=1e6)])
    assert after.gain.value == pytest.approx(before.gain.value, abs=1e-3)


def test_model_conditions_as_the_normal_distribution_does() -> None:
    """The posterior by brute force: weights of draws from the prior by the likelihood of the observation."""
    model = load_gain_model()
    seen = observed(0.06, variance=0.05)
    means = np.array([model.predict(TARGET).mean, model.predict(seen.setting).mean])
    covariance = np.empty((2, 2))
    covariance[0, 0], covariance[1, 1] = (model.predict(s).deviation ** 2 for s in (TARGET, seen.setting))
    exact = model.predict(TARGET, [replace(seen, variance=1e-9)])
    covariance[0, 1] = covariance[1, 0] = math.sqrt((covariance[0, 0] - exact.deviation**2) * covariance[1, 1])
    draws = np.random.default_rng(0).multivariate_normal(means, covariance, 400_000)
    weights = np.exp(-((draws[:, 1] - seen.logit_gain) ** 2) / (2 * seen.variance))
    after = model.predict(TARGET, [seen])
    mean = np.average(draws[:, 0], weights=weights)
    assert after.mean == pytest.approx(mean, abs=0.01)
    assert after.deviation == pytest.approx(np.sqrt(np.average((draws[:, 0] - mean) ** 2, weights=weights)), abs=0.01)


def test_chance_to_decide_is_how_often_simulated_experiments_decide() -> None:
    model, planned = load_gain_model(), observed(0.0, labels=2000, variance=0.02)
    chance = chance_to_decide(TARGET, [], planned, 0.01)
    prior = model.predict(planned.setting)
    draws = np.random.default_rng(1).normal(prior.mean, math.hypot(prior.deviation, math.sqrt(planned.variance)), 2000)
    forecasts = (forecast_gain(TARGET, [replace(planned, logit_gain=float(draw))]) for draw in draws)
    assert chance == pytest.approx(np.mean([each.recommendation != "find out first" for each in forecasts]), abs=0.03)


def test_expected_gain_and_break_even_recommend() -> None:
    forecast = forecast_gain(TARGET)
    for break_even, recommended in ((forecast.mean - 0.001, "fine-tune"), (forecast.mean + 0.001, "stay")):
        by_costs = replace(forecast, break_even=break_even)
        assert (by_costs.recommendation, by_costs.choice) == ("find out first", recommended)
        assert replace(by_costs, pays_to_find_out=False).recommendation == recommended


def test_open_forecast_is_chosen_by_the_expected_gain_where_no_run_is_likely_to_decide() -> None:
    target = replace(TARGET, accuracy=0.95)
    forecast = forecast_gain(target)
    assert forecast.recommendation == "find out first"
    for min_gain, choice in ((forecast.mean - 0.001, "fine-tune"), (forecast.mean + 0.001, "stay")):
        asked = forecast_gain(target, min_gain=min_gain)
        assert asked.recommendation == "find out first"
        assert replace(asked, pays_to_find_out=False).recommendation == asked.choice == choice


@given(shares, st.integers(40, 10**6), st.floats(-0.5, 0.5), st.floats(1e-4, 1))
@settings(max_examples=50, deadline=None)
def test_expected_gain_is_that_of_keeping_the_better_on_few_validation_rows(
    accuracy: float, labels: int, gain: float, variance: float
) -> None:
    """By simulation: a draw of the true gain, one of the gain on the validation rows, and what is kept then."""
    target = Setting(accuracy, labels, 5, None)
    seen = Observed(target, gain, variance)
    forecast, normal = forecast_gain(target, [seen]), load_gain_model().predict(target, [seen])
    rng = np.random.default_rng(0)
    true = 1 / (1 + np.exp(-(logit(accuracy) + normal.mean + normal.deviation * rng.standard_t(8, 40_000)))) - accuracy
    measured = true + rng.normal(0, math.sqrt(0.1 / (labels / 5)), len(true))
    assert forecast.mean == pytest.approx(np.where(measured > 0, true, 0).mean(), abs=0.005)


@pytest.mark.parametrize("break_even", [0.01, 0.05, 0.1])
def test_value_of_finding_out_is_what_simulated_experiments_add(break_even: float) -> None:
    model, planned = load_gain_model(), observed(0.0, labels=2000, variance=0.02)
    added, changes = value_of_finding_out(TARGET, [], planned, break_even)
    prior = model.predict(planned.setting)
    draws = np.random.default_rng(1).normal(prior.mean, math.hypot(prior.deviation, math.sqrt(planned.variance)), 1500)
    forecasts = (forecast_gain(TARGET, [replace(planned, logit_gain=float(draw))]) for draw in draws)
    net = np.array([each.mean for each in forecasts]) - break_even
    assert added == pytest.approx(np.maximum(net, 0).mean() - max(net.mean(), 0), abs=0.002)
    assert changes == pytest.approx(np.mean((net > 0) != (net.mean() > 0)), abs=0.03)


def test_experiment_with_a_break_even_must_be_worth_its_time() -> None:
    cheap, dear = Experiment(100, 2, 1.0, 0.2, net=0.004), Experiment(800, 2, 50.0, 0.9, net=-0.01)
    assert cheapest_experiment([dear, cheap]) == cheap
    assert cheapest_experiment([dear]) is None


def test_cheapest_likely_experiment_is_recommended() -> None:
    small, middle, full = (Experiment(n, 2, n / 10, chance) for n, chance in ((100, 0.3), (200, 0.6), (800, 0.9)))
    assert cheapest_experiment([full, small, middle]) == middle
    assert cheapest_experiment([small, replace(middle, chance=0.4)]) == replace(middle, chance=0.4)
    assert cheapest_experiment([replace(small, chance=0.1), replace(full, chance=0.15)]) is None
    assert cheapest_experiment([]) is None
    assert cheapest_experiment([replace(full, minutes=None), replace(middle, minutes=None)]).labels == 200  # type: ignore[union-attr]


def test_evidence_takes_the_mean_over_seeds_with_its_error() -> None:
    runs = [PilotRun(1000, seed, 0.75, 0.80 + moved, 60) for seed, moved in enumerate((-0.01, 0.01))]
    evidence = Evidence(TARGET, runs, 500, 0.01)
    (seen,) = evidence.observed
    assert seen.logit_gain == pytest.approx(logit(0.80) - logit(0.75))
    assert seen.setting == replace(TARGET, accuracy=pytest.approx(0.75), labels=1000)
    more = replace(evidence, runs=[*runs, *(replace(run, seed=run.seed + 2) for run in runs)])
    assert more.observed[0].variance < seen.variance
    assert replace(evidence, test_rows=50).observed[0].variance > seen.variance
    assert evidence.forecast().runs == 2


def test_perfect_network_has_a_finite_gain() -> None:
    runs = [PilotRun(1000, seed, 0.99, 1.0, 60) for seed in range(2)]
    (seen,) = Evidence(TARGET, runs, 100, 0.01).observed
    assert math.isfinite(seen.logit_gain)
    assert seen.logit_gain > 0
    assert math.isfinite(seen.variance)


@pytest.mark.parametrize(
    ("provider", "name", "expected"),
    [
        ("timm", "resnet50.a1_in1k", "cnn-sup"),
        ("torchvision", "vgg16", "cnn-sup"),
        ("timm", "tf_efficientnet_lite0.in1k", "cnn-sup"),
        ("timm", "vit_base_patch16_224.augreg_in21k", "vit-sup"),
        ("timm", "vit_small_patch14_dinov2.lvd142m", "ssl-inst"),
        ("timm", "vit_base_patch16_224.mae", "ssl-mim"),
        ("timm", "vit_base_patch16_clip_224.openai", "vlm"),
        ("open_clip", "ViT-B-32/laion2b_s34b_b79k", "vlm"),
        ("timm", "samvit_base_patch16.sa1b", "sam"),
        ("transformers", "facebook/dinov2-small", "ssl-inst"),
        ("checkpoint", "ab12", None),
        ("python", "my_models:encoder", None),
    ],
)
def test_pretraining_is_known_by_the_name(provider: str, name: str, expected: str | None) -> None:
    spec = replace(make_spec(4), provider=provider, name=name)
    assert pretraining_of(spec) == expected
    assert pretraining_of(replace(spec, pretrained=False)) is None


def test_texts_are_a_kind_of_their_own() -> None:
    spec: Any = replace(make_spec(4), provider="sentence-transformers", name="MiniLM", modality="text")
    assert pretraining_of(spec) == "text-lm"
