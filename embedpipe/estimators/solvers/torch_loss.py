"""The logistic loss of several training sets on a torch device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from embedpipe.estimators.solvers.backend import NumpyBackend
from embedpipe.estimators.solvers.logistic_loss import MIN_SCORE, Floats, LogisticLoss
from embedpipe.estimators.solvers.torch_matrix import TorchMatrix


class TorchBackend(NumpyBackend):
    """Operations on tensors on the device of a matrix."""

    def __init__(self, X: TorchMatrix) -> None:
        import torch

        self.xp = torch
        self._matrix = X

    def to_device(self, values: npt.NDArray[Any]) -> Any:
        """Return a tensor on the device."""
        return self._matrix.to_device(values)

    def to_numpy(self, values: Any) -> npt.NDArray[Any]:
        """Return a tensor as a NumPy array."""
        return np.asarray(values.cpu().numpy())

    def cast(self, values: Any, dtype: np.dtype[Any]) -> Any:
        """Return a copy in another dtype."""
        return values.to(getattr(self.xp, dtype.name), copy=True)

    def inverse(self, gram: Any, factor: float, ridge: float) -> Callable[[Any], Any]:
        """Return the function that `NumpyBackend.inverse` returns, on the device."""
        matrix = factor * gram.double()
        matrix.diagonal().add_(ridge)
        inverse = self.xp.cholesky_inverse(self.xp.linalg.cholesky(matrix))
        return lambda rows: rows @ inverse


class TorchLogisticLoss(LogisticLoss):
    """`LogisticLoss` on a device: one product gives the scores of all training sets for a block of rows.

    Rows that are not in a training set have weight 0 in it, which costs less than sorting rows by training set.
    """

    X: TorchMatrix

    def _prepare(self, n_jobs: int | None) -> None:
        self.backend = TorchBackend(self.X)
        weights = np.zeros((len(self.X), len(self.sets)), self.X.dtype)
        for number, each in enumerate(self.sets):
            np.add.at(weights[:, number], each.rows, each.weights / each.total)
        to_device = self.X.to_device
        self._weights, self._classes, self._absent = to_device(weights), to_device(self.y), to_device(~self.present)
        self._centre, self._inverse_scale = to_device(self._shared_mean), to_device(self._shared_inverse_scale)
        self._ratios, self._offsets = to_device(self._ratio), to_device(self._offset)

    @contextmanager
    def threads(self) -> Iterator[None]:
        """Do nothing: the device schedules its own threads."""
        yield

    def _parts_of(self, width: int) -> Iterator[tuple[slice, Any]]:
        """Yield slices of the rows, and the standardised rows of each."""
        for part in self.X.blocks(len(self.X), width):
            yield part, (self.X.values[part] - self._centre) * self._inverse_scale

    def correlations(self) -> Any:
        """Return the mean product of standardised columns over all rows that any set trains on, (dim, dim)."""
        used = (self._weights > 0).any(1)
        total = 0
        with _exact(self.X.device):
            for part, Z in self._parts_of(1):
                Z *= used[part, None]
                total = total + Z.T @ Z
        return total / used.sum()

    def __call__(self, coef: Any, intercept: Any) -> tuple[Floats, Any, Any]:
        """Return the losses and, on the device, the gradients; see `LogisticLoss.__call__`."""
        sets, n_scores, dim = coef.shape
        dtype = self.X.values.dtype
        raw = (coef * self._ratios[:, None]).to(dtype).reshape(-1, dim)
        constant = (intercept + (coef * self._offsets[:, None]).sum(2)).to(dtype)
        if n_scores > 1:
            constant[self._absent] = -np.inf
        losses = sums = total = self.backend.to_device(np.zeros(1))
        with _exact(self.X.device):
            for part, Z in self._parts_of(2 * len(raw)):
                scores = (Z @ raw.T).reshape(-1, sets, n_scores)
                scores += constant
                losses = losses + _losses_and_gradients(scores, self._classes[part], self._weights[part])
                total = total + (scores.reshape(-1, len(raw)).T @ Z).double()
                sums = sums + scores.sum(0, dtype=coef.dtype)
        d_coef = total.reshape(coef.shape) * self._ratios[:, None] + sums[:, :, None] * self._offsets[:, None]
        return self.backend.to_numpy(losses), d_coef, sums


def _exact(device: Any) -> Any:
    """Return a context in which float32 products are not rounded to TF32."""
    from embedpipe._utils.device import arithmetic

    return arithmetic("fp32", device)


def _losses_and_gradients(scores: Any, y: Any, weights: Any) -> Any:
    """Replace scores (n_rows, n_sets, n_scores) by their weighted loss gradients; return the losses (n_sets,)."""
    if scores.shape[2] == 1:
        target = (y == 1).to(scores.dtype)[:, None]
        raw = scores[:, :, 0]
        losses = (-abs(raw)).exp().log1p() + raw.clamp(min=0) - target * raw
        scores.sigmoid_()
        scores -= target[:, :, None]
    else:
        classes = y[:, None, None].expand(-1, scores.shape[1], 1)
        scores -= scores.amax(2, keepdim=True)
        scores.clamp_(min=MIN_SCORE)
        true_scores = scores.gather(2, classes)[:, :, 0]
        scores.exp_()
        total = scores.sum(2)
        losses = total.log() - true_scores
        scores /= total[:, :, None]
        scores.scatter_(2, classes, scores.gather(2, classes) - 1)
    scores *= weights[:, :, None]
    return (losses.double() * weights).sum(0)
