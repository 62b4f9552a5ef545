"""The forecast of what fine-tuning gains, and what to do: fine-tune, stay with the head, or find out first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.special import expit, ndtr, ndtri, stdtr, stdtrit  # scipy.stats checks each call

from embedpipe.finetuning.advice.forecasting.gain_model import (
    GainModel,
    Normal,
    Observed,
    Setting,
    load_gain_model,
    logit,
)
from embedpipe.finetuning.advice.forecasting.measurement import EXPECTED_DISAGREEMENT
from embedpipe.finetuning.split_rows import VALIDATION_FOLDS
from embedpipe.statistics import Estimate

Choice = Literal["fine-tune", "stay"]
Recommendation = Literal["fine-tune", "stay", "find out first"]

#: Degrees of freedom of the forecast's tails: variances were estimated from few sources.
FREEDOM = 8
#: Quantiles of these tails at equal steps of probability; the mean of a function of the gain is taken over them.
QUANTILES = stdtrit(FREEDOM, (np.arange(100) + 0.5) / 100)
NORMAL_QUANTILES = ndtri((np.arange(100) + 0.5) / 100)
#: The forecast decides at this probability, or at one less this.
SURE = 0.9
#: An experiment that decides less often than this is not recommended before one that does more often.
ENOUGH = 0.5
#: One that decides less often than this is not recommended at all.
SELDOM = 0.2


@dataclass(frozen=True)
class Forecast:
    """What fine-tuning on all labels is expected to gain over the best head on frozen features.

    Attributes
    ----------
    gain : Estimate
        The median, and the interval that holds the gain with a probability of 80 %, as fractions.
    mean : float
        The expected gain of what `embedpipe.finetune` keeps: the network, or the head where that is better on the
        validation rows. A choice by costs needs it.
    probability : float
        That the gain exceeds the minimum gain.
    min_gain : float
    pretraining : str or None
        How the backbone was pretrained, as far as its name tells.
    runs : int
        Networks trained in a pilot that the forecast takes into account.
    ledger_rows : int
        Fine-tunings on other data of this user that it takes into account.
    break_even : float or None
        The gain that is worth the time of fine-tuning, as a fraction; None if a point's worth is not given.
    pays_to_find_out : bool
        Whether further runs are likely enough to decide or, with a break-even, expected to be worth their time.
    """

    gain: Estimate
    mean: float
    probability: float
    min_gain: float
    pretraining: str | None
    runs: int
    ledger_rows: int = 0
    break_even: float | None = None
    pays_to_find_out: bool = True

    @property
    def is_sure(self) -> bool:
        """Whether the probability is at least 0.9 either way; with a break-even, costs decide instead."""
        return self.break_even is None and not 1 - SURE < self.probability < SURE

    @property
    def choice(self) -> Choice:
        """*fine-tune* or *stay*, without further runs: the likely one, or by the expected gain if none is sure."""
        if self.is_sure:
            return "fine-tune" if self.probability >= SURE else "stay"
        return "fine-tune" if self.mean > (self.min_gain if self.break_even is None else self.break_even) else "stay"

    @property
    def recommendation(self) -> Recommendation:
        """*find out first* where no choice is sure and further runs pay; else the choice."""
        return "find out first" if self.pays_to_find_out and not self.is_sure else self.choice


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
        The probability that the forecast decides after these runs; with a break-even, that they change what it
        recommends.
    net : float or None
        With a break-even: by how much the gain is expected to rise if these runs come first, less their time, as a
        fraction.
    """

    labels: int
    seeds: int
    minutes: float | None
    chance: float
    net: float | None = None

    @property
    def pays(self) -> bool:
        """Whether it is worth its time or, without a break-even, likely enough to decide."""
        return self.chance >= SELDOM if self.net is None else self.net > 0


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
        Gains of pilot runs on the same data and backbone, and gains on other data of the same user.
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
    quantile = float(stdtrit(FREEDOM, 0.9)) * deviation
    median, low, high = (float(_gain(target, normal.mean + shift)) for shift in (0.0, -quantile, quantile))
    return Forecast(
        gain=Estimate(median, low, high),
        mean=float(kept_gain(target, _gain(target, normal.mean + deviation * QUANTILES)).mean()),
        probability=float(stdtr(FREEDOM, (normal.mean - needed) / deviation)),
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
    today, later, moves = _look_ahead(target, observed, planned, model)
    needed, margin = _needed(target, min_gain), float(stdtrit(FREEDOM, SURE)) * later.deviation
    if math.isinf(needed):
        return 1.0
    above = ndtr(-(needed + margin - today.mean) / moves)
    below = ndtr((needed - margin - today.mean) / moves)
    return float(above + below)


def value_of_finding_out(
    target: Setting, observed: Sequence[Observed], planned: Observed, break_even: float, model: GainModel | None = None
) -> tuple[float, float]:
    """Return what ``planned`` is expected to add to the gain, and the probability that it changes the recommendation.

    Without it, the better of fine-tuning and staying is chosen by the forecast of today; after it, by that of then
    (expected value of sample information; Raiffa and Schlaifer, 1961). Fine-tuning costs ``break_even``.
    """
    today, later, moves = _look_ahead(target, observed, planned, model)
    means = today.mean + moves * NORMAL_QUANTILES
    net = kept_gain(target, _gain(target, means[:, None] + later.deviation * QUANTILES)).mean(axis=1) - break_even
    now = float(net.mean())
    return float(np.maximum(net, 0).mean()) - max(now, 0.0), float(((net > 0) != (now > 0)).mean())


def kept_gain(target: Setting, gains: Any) -> Any:
    """Return what is gained on average where the better of network and head on the validation rows is kept."""
    error = math.sqrt(EXPECTED_DISAGREEMENT * VALIDATION_FOLDS / target.labels)
    return gains * ndtr(gains / error)


def cheapest_experiment(experiments: Sequence[Experiment]) -> Experiment | None:
    """Return the cheapest experiment that is likely to decide; if there is none, the one that is most likely to.

    With a break-even, the one that is worth most. None if no experiment pays.
    """
    experiments = [each for each in experiments if each.pays]
    nets = {each: each.net for each in experiments if each.net is not None}
    if nets:
        return max(nets, key=nets.__getitem__)
    likely = [each for each in experiments if each.chance >= ENOUGH]
    if likely:
        return min(likely, key=lambda each: each.labels * each.seeds if each.minutes is None else each.minutes)
    return max(experiments, key=lambda each: each.chance, default=None)


def _look_ahead(
    target: Setting, observed: Sequence[Observed], planned: Observed, model: GainModel | None
) -> tuple[Normal, Normal, float]:
    """Return the forecasts before and after ``planned``, and the deviation of the mean between them."""
    model = model or load_gain_model()
    today, later = model.predict(target, observed), model.predict(target, [*observed, planned])
    return today, later, math.sqrt(max(today.deviation**2 - later.deviation**2, 1e-12))


def _gain(target: Setting, logit_gain: Any) -> Any:
    return expit(logit(target.accuracy) + logit_gain) - target.accuracy


def _needed(target: Setting, min_gain: float) -> float:
    """Return the gain on the logit scale that is the minimum gain; infinite if the probe's errors do not allow it."""
    wanted = target.accuracy + min_gain
    return math.inf if wanted >= 1 else float(logit(wanted) - logit(target.accuracy))
