"""The logistic loss of several training sets on a device of torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from embedpipe.estimators.solvers.arrays import Arrays
from embedpipe.estimators.solvers.logistic_loss import LEAST, Floats, LogisticLoss
from embedpipe.estimators.solvers.torch_matrix import DeviceMatrix


class DeviceArrays(Arrays):
    """Tensors where a matrix is."""

    def __init__(self, X: DeviceMatrix) -> None:
        import torch

        self.xp = torch
        self._matrix = X

    def there(self, values: npt.NDArray[Any]) -> Any:
        """Return a tensor on the device."""
        return self._matrix.there(values)

    def back(self, values: Any) -> npt.NDArray[Any]:
        """Return an array of NumPy's."""
        return np.asarray(values.cpu().numpy())

    def cast(self, values: Any, dtype: np.dtype[Any]) -> Any:
        """Return a copy in another type."""
        return values.to(getattr(self.xp, dtype.name), copy=True)

    def inverse(self, gram: Any, factor: float, more: float) -> Callable[[Any], Any]:
        """Do what `Arrays.inverse` does."""
        matrix = factor * gram.double()
        matrix.diagonal().add_(more)
        inverse = self.xp.cholesky_inverse(self.xp.linalg.cholesky(matrix))
        return lambda rows: rows @ inverse


class DeviceLoss(LogisticLoss):
    """`LogisticLoss` where the rows are: all sets' scores of a block of rows are one product.

    A row that a set does not train on has weight 0 there, which costs less than sorting the rows by sets.
    """

    X: DeviceMatrix

    def _prepare(self, n_jobs: int | None) -> None:
        self.arrays = DeviceArrays(self.X)
        weights = np.zeros((len(self.X), len(self.sets)), self.X.dtype)
        for number, one in enumerate(self.sets):
            np.add.at(weights[:, number], one.rows, one.weights / one.total)
        there = self.X.there
        self._weights, self._classes, self._unknown = there(weights), there(self.y), there(~self.known)
        self._centre, self._scale = there(self._shift), there(self._per_unit)
        self._ratios, self._offsets = there(self._ratio), there(self._offset)

    @contextmanager
    def threads(self) -> Iterator[None]:
        """Nothing: the device has its own."""
        yield

    def _parts_of(self, width: int) -> Iterator[tuple[slice, Any]]:
        """Yield slices of the rows, and their rows standardised."""
        for part in self.X.blocks(len(self.X), width):
            yield part, (self.X.values[part] - self._centre) * self._scale

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
        """Return each set's loss and its gradients, as `LogisticLoss` does, the gradients on the device."""
        sets, n_scores, dim = coef.shape
        dtype = self.X.values.dtype
        raw = (coef * self._ratios[:, None]).to(dtype).reshape(-1, dim)
        constant = (intercept + (coef * self._offsets[:, None]).sum(2)).to(dtype)
        if n_scores > 1:
            constant[self._unknown] = -np.inf
        losses = sums = total = self.arrays.there(np.zeros(1))
        with _exact(self.X.device):
            for part, Z in self._parts_of(2 * len(raw)):
                scores = (Z @ raw.T).reshape(-1, sets, n_scores)
                scores += constant
                losses = losses + _to_slopes(scores, self._classes[part], self._weights[part])
                total = total + (scores.reshape(-1, len(raw)).T @ Z).double()
                sums = sums + scores.sum(0, dtype=coef.dtype)
        d_coef = total.reshape(coef.shape) * self._ratios[:, None] + sums[:, :, None] * self._offsets[:, None]
        return self.arrays.back(losses), d_coef, sums


def _exact(device: Any) -> Any:
    """Return a context in which float32 products keep all their digits."""
    from embedpipe._utils.device import arithmetic

    return arithmetic("fp32", device)


def _to_slopes(scores: Any, y: Any, weights: Any) -> Any:
    """Turn scores (n_rows, n_sets, n_scores) into the loss's slopes in place; return the weighted losses (n_sets,)."""
    if scores.shape[2] == 1:
        wanted = (y == 1).to(scores.dtype)[:, None]
        raw = scores[:, :, 0]
        losses = (-abs(raw)).exp().log1p() + raw.clamp(min=0) - wanted * raw
        scores.sigmoid_()
        scores -= wanted[:, :, None]
    else:
        own = y[:, None, None].expand(-1, scores.shape[1], 1)
        scores -= scores.amax(2, keepdim=True)
        scores.clamp_(min=LEAST)
        right = scores.gather(2, own)[:, :, 0]
        scores.exp_()
        total = scores.sum(2)
        losses = total.log() - right
        scores /= total[:, :, None]
        scores.scatter_(2, own, scores.gather(2, own) - 1)
    scores *= weights[:, :, None]
    return (losses.double() * weights).sum(0)
