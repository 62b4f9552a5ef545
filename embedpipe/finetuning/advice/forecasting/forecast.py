"""The forecast of what fine-tuning gains, and what to do: fine-tune, stay with the head, or find out first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.special import expit
from scipy.stats import norm
from scipy.stats import t as student

from embedpipe.finetuning.advice.forecasting.gain_model import (
    GainModel,
    Normal,
    Observed,
    Setting,
    load_gain_model,
    logit,
)
from embedpipe.statistics import Estimate

Recommendation = Literal["fine-tune", "stay", "find out first"]

#: Degrees of freedom of the forecast's tails: variances were estimated from few sources.
FREEDOM = 8
#: Quantiles of these tails at equal steps of probability; the mean of a function of the gain is taken over them.
QUANTILES = student.ppf((np.arange(100) + 0.5) / 100, FREEDOM)
#: The forecast decides at this probability, or at one less this.
SURE = 0.9
#: An experiment that decides less often than this is not recommended before one that does more often.
ENOUGH = 0.5


@dataclass(frozen=True)
class Forecast:
    """What fine-tuning on all labels is expected to gain over the best head on frozen features.

    Attributes
    ----------
    gain : Estimate
        The median, and the interval that holds the gain with a probability of 80 %, as fractions.
    mean : float
        The expected gain, which is what a choice by costs needs.
    probability : float
        That the gain exceeds the minimum gain.
    min_gain : float
    pretraining : str or None
        How the backbone was pretrained, as far as its name tells.
    runs : int
        Networks trained in a pilot that the forecast takes into account.
    """

    gain: Estimate
    mean: float
    probability: float
    min_gain: float
    pretraining: str | None
    runs: int

    @property
    def recommendation(self) -> Recommendation:
        """*fine-tune* or *stay* where the probability is at least 0.9 either way; else *find out first*."""
        if self.probability >= SURE:
            return "fine-tune"
        return "stay" if self.probability <= 1 - SURE else "find out first"


@dataclass(frozen=True)
class Experiment:
    """Runs that would sharpen the forecast.

    Attributes
    ----------
    labels, seeds : int
        Networks are trained on ``labels`` labels, with ``seeds`` new seeds.
    minutes : float or None
        Expected time; None if unknown.
    chance : float
        The probability that the forecast decides after these runs.
    """

    labels: int
    seeds: int
    minutes: float | None
    chance: float


def forecast_gain(
    target: Setting,
    observed: Sequence[Observed] = (),
    *,
    min_gain: float = 0.01,
    model: GainModel | None = None,
    measurement_variance: float = 0.0,
) -> Forecast:
    """Forecast the gain of fine-tuning.

    Parameters
    ----------
    target : Setting
        The probe with all labels.
    observed : sequence of Observed
        Gains of pilot runs on the same data and backbone.
    min_gain : float
        As a fraction.
    model : GainModel, optional
        By default the one that was fitted on published pairs.
    measurement_variance : float
        Variance of the error with which the gain will be measured, on the logit scale; 0 forecasts the true gain.

    Examples
    --------
    >>> forecast = forecast_gain(Setting(accuracy=0.8, labels=5000, classes=10, pretraining="cnn-sup"))
    >>> forecast.recommendation, forecast.gain.low < forecast.gain.value < forecast.gain.high
    ('fine-tune', True)
    """
    normal = (model or load_gain_model()).predict(target, observed)
    deviation = math.hypot(normal.deviation, math.sqrt(measurement_variance))
    needed = _needed(target, min_gain)
    quantile = float(student.ppf(0.9, FREEDOM)) * deviation
    median, low, high = (float(_gain(target, normal.mean + shift)) for shift in (0.0, -quantile, quantile))
    return Forecast(
        gain=Estimate(median, low, high),
        mean=float(_gain(target, normal.mean + deviation * QUANTILES).mean()),
        probability=float(student.sf((needed - normal.mean) / deviation, FREEDOM)),
        min_gain=min_gain,
        pretraining=target.pretraining,
        runs=len(observed),
    )


def chance_to_decide(
    target: Setting, observed: Sequence[Observed], planned: Observed, min_gain: float, model: GainModel | None = None
) -> float:
    """Return the probability that the forecast decides after ``planned``, whose measured gain is not known yet.

    The forecast after it is a normal distribution whose deviation does not depend on what is measured, and whose mean
    is normally distributed around that of today (preposterior analysis; Raiffa and Schlaifer, 1961).
    """
    model = model or load_gain_model()
    today: Normal = model.predict(target, observed)
    later = model.predict(target, [*observed, planned])
    moves = math.sqrt(max(today.deviation**2 - later.deviation**2, 1e-12))
    needed, margin = _needed(target, min_gain), float(student.ppf(SURE, FREEDOM)) * later.deviation
    if math.isinf(needed):
        return 1.0
    above = norm.sf((needed + margin - today.mean) / moves)
    below = norm.cdf((needed - margin - today.mean) / moves)
    return float(above + below)


def cheapest_experiment(experiments: Sequence[Experiment]) -> Experiment | None:
    """Return the cheapest experiment that is likely to decide; if there is none, the one that is most likely to."""
    likely = [each for each in experiments if each.chance >= ENOUGH]
    if likely:
        return min(likely, key=lambda each: each.labels * each.seeds if each.minutes is None else each.minutes)
    return max(experiments, key=lambda each: each.chance, default=None)


def _gain(target: Setting, logit_gain: Any) -> Any:
    return expit(logit(target.accuracy) + logit_gain) - target.accuracy


def _needed(target: Setting, min_gain: float) -> float:
    """Return the gain on the logit scale that is the minimum gain; infinite if the probe's errors do not allow it."""
    wanted = target.accuracy + min_gain
    return math.inf if wanted >= 1 else float(logit(wanted) - logit(target.accuracy))
