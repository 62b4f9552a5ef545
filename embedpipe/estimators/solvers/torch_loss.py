"""The logistic loss of several training sets on a torch device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from embedpipe.estimators.solvers.backend import NumpyBackend
from embedpipe.estimators.solvers.logistic_loss import MIN_SCORE, Floats, LogisticLoss
from embedpipe.estimators.solvers.principal_rows import MAX_FEATURES, PrincipalRows
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

    def dot(self, a: Any, b: Any) -> float:
        """Return the sum of the products of all values."""
        return float((a * b).sum())


class TorchRows(PrincipalRows):
    """`PrincipalRows` on a device. Coefficients are rotated, so that the matrix is there once."""

    X: TorchMatrix

    def _prepare(self) -> None:
        self.backend = TorchBackend(self.X)
        self._mean = self.X.to_device(self.columns.mean.astype(self.dtype))
        self._inverse_scale = self.X.to_device((1 / self.columns.scale).astype(self.dtype))
        if self.X.shape[1] > MAX_FEATURES:
            self.squares = np.where(self.columns.varies, 1.0, 0.0)
            return
        import torch

        squares, self._axes = torch.linalg.eigh(self._correlations().double())
        self.squares = np.maximum(self.backend.to_numpy(squares), 0)

    def parts_of(self, width: int) -> Iterator[tuple[slice, Any]]:
        """Yield slices of the rows, and the standardised rows of each."""
        for part in self.X.blocks(len(self.X), width):
            yield part, (self.X.values[part] - self._mean) * self._inverse_scale

    def _correlations(self) -> Any:
        with _exact(self.X.device):
            return sum(Z.T @ Z for _, Z in self.parts_of(1)) / len(self.X)


class TorchLogisticLoss(LogisticLoss):
    """`LogisticLoss` on a device: one product gives the scores of all training sets for a block of rows.

    Rows that are not in a training set have weight 0 in it, which costs less than sorting rows by training set.
    """

    rows: TorchRows

    def _prepare(self, n_jobs: int | None) -> None:
        weights = np.zeros((len(self.rows), len(self.sets)), self.rows.dtype)
        for number, each in enumerate(self.sets):
            np.add.at(weights[:, number], each.rows, each.weights / each.total)
        to_device = self.rows.X.to_device
        self._weights, self._classes, self._absent = to_device(weights), to_device(self.y), to_device(~self.present)

    @contextmanager
    def threads(self) -> Iterator[None]:
        """Do nothing: the device schedules its own threads."""
        yield

    def __call__(self, coef: Any, intercept: Any) -> tuple[Floats, Any, Any]:
        """Return the losses and, on the device, the gradients; see `LogisticLoss.__call__`."""
        X, (sets, n_scores, _) = self.rows.X, coef.shape
        dtype = X.values.dtype
        raw = self.rows.to_features(coef).to(dtype).reshape(sets * n_scores, -1)
        constant = intercept.to(dtype)
        if n_scores > 1:
            constant = constant.masked_fill(self._absent, -np.inf)
        losses = sums = total = self.rows.backend.to_device(np.zeros(1))
        with _exact(X.device):
            for part, Z in self.rows.parts_of(2 * len(raw)):
                scores = (Z @ raw.T).reshape(-1, sets, n_scores)
                scores += constant
                losses = losses + _losses_and_gradients(scores, self._classes[part], self._weights[part])
                total = total + (scores.reshape(-1, len(raw)).T @ Z).double()
                sums = sums + scores.sum(0, dtype=coef.dtype)
        d_coef = self.rows.to_axes(total.reshape(sets, n_scores, -1))
        return self.rows.backend.to_numpy(losses), d_coef, sums


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
