"""A Gaussian model of the gain of fine-tuning on the logit scale, fitted on published pairs of probe and network.

`benchmarks/gain_forecast.py` fits it, and measures it on sources that it was not fitted on.
"""

from __future__ import annotations

import functools
import importlib.resources
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
#: The order of the pretraining's columns in `features`.
PRETRAININGS = ("cnn-sup", "vit-sup", "ssl-inst", "ssl-mim", "vlm", "sam", "text-lm")
#: Accuracies are kept this far from 0 and 1, where the logit has no value.
LEAST = 0.002
FILE = "gain_model.json"


@dataclass(frozen=True)
class Setting:
    """What is known before a network is fine-tuned.

    Attributes
    ----------
    accuracy : float
        That of the probe on frozen features, in [0, 1].
    labels, classes : int
    pretraining : str or None
        One of `PRETRAININGS`; None if unknown.
    """

    accuracy: float
    labels: int
    classes: int
    pretraining: str | None


@dataclass(frozen=True)
class Observed:
    """A measured gain on the logit scale, with the variance of its error.

    ``data`` and ``backbone`` name other data of the same user and what was fine-tuned on them; they are empty for what
    is forecast.
    """

    setting: Setting
    logit_gain: float
    variance: float
    data: str = ""
    backbone: str = ""


@dataclass(frozen=True)
class Normal:
    """A normal distribution of the gain on the logit scale."""

    mean: float
    deviation: float


def logit(share: Any) -> Any:
    """Return the logit of a share, which is kept `LEAST` from 0 and 1."""
    kept = np.clip(share, LEAST, 1 - LEAST)
    return np.log(kept / (1 - kept))


def features(settings: Sequence[Setting]) -> Floats:
    """Return one row a setting: 1, the logit of the accuracy, labels and classes on log scales, the pretraining."""
    return np.array(
        [
            [
                1.0,
                float(logit(setting.accuracy)),
                np.log10(setting.labels) - 3.5,
                np.log(max(setting.classes, 2)) - 2.3,
                *(float(setting.pretraining == name) for name in PRETRAININGS),
            ]
            for setting in settings
        ]
    )


@dataclass(frozen=True)
class GainModel:
    """The logit of the network's accuracy less that of the probe's, as a linear function of `features` and an error.

    The error has a part of the source, one of the data set, and one of the backbone on this data set, all of which
    change slowly with each doubling of the labels. Its spread depends on the probe's accuracy.

    Attributes
    ----------
    coefficients : tuple of float
        The mean of the posterior, one value for each column of `features`.
    covariance : tuple of tuple of float
        Their posterior covariance.
    log_variance, slope : float
        The variance of the parts of data set and backbone is ``exp(log_variance + slope * logit(accuracy))``.
    source_variance : float
        That of the part of the source, as a share of it. A user is a new source.
    backbone_share : float
        The part of the backbone, as a share of it: by so much of the variance, backbones differ on the same data.
    doublings : float
        The correlation of the errors at two numbers of labels is ``exp(-(d / doublings)^2 / 2)`` for ``d``
        doublings: the gain changes smoothly with the labels.
    """

    coefficients: tuple[float, ...]
    covariance: tuple[tuple[float, ...], ...]
    log_variance: float
    slope: float
    source_variance: float
    backbone_share: float
    doublings: float

    def predict(self, target: Setting, observed: Sequence[Observed] = ()) -> Normal:
        """Return the distribution of the gain in ``target``, given gains that were measured.

        Those of the same data have their error in common with it. Those of other data of this user have in common what
        the rows of a published source have; several of the same data count little more than one.
        """
        settings = [target, *(each.setting for each in observed)]
        X = features(settings)
        scale = np.exp((self.log_variance + self.slope * X[:, 1]) / 2)
        steps = np.log2([setting.labels for setting in settings])
        correlation = np.exp(-(((steps[:, None] - steps[None, :]) / self.doublings) ** 2) / 2)
        covariance = X @ np.array(self.covariance) @ X.T
        same_data = _equal(["", *(each.data for each in observed)])
        same_backbone = same_data & _equal(["", *(each.backbone for each in observed)])
        shared = self.source_variance + (1 - self.backbone_share) * same_data + self.backbone_share * same_backbone
        covariance += np.outer(scale, scale) * shared * correlation
        means = X @ np.array(self.coefficients)
        if not observed:
            return Normal(float(means[0]), float(np.sqrt(covariance[0, 0])))
        noise = np.diag([each.variance for each in observed])
        weights = np.linalg.solve(covariance[1:, 1:] + noise, covariance[1:, 0])
        errors = np.array([each.logit_gain for each in observed]) - means[1:]
        variance = covariance[0, 0] - weights @ covariance[1:, 0]
        return Normal(float(means[0] + weights @ errors), float(np.sqrt(max(variance, 1e-9))))


def _equal(names: Sequence[str]) -> npt.NDArray[np.bool_]:
    array = np.array(names)
    return np.asarray(array[:, None] == array[None, :])


@functools.cache
def load_gain_model() -> GainModel:
    """Return the model that was fitted on published pairs."""
    text = importlib.resources.files(__package__).joinpath(FILE).read_text(encoding="utf-8")
    fitted = json.loads(text)
    return GainModel(
        coefficients=tuple(fitted.pop("coefficients")),
        covariance=tuple(map(tuple, fitted.pop("covariance"))),
        **fitted,
    )
