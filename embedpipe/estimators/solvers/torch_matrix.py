"""A matrix on a device of torch, and what heads need to know of its rows, computed there.

The heads are the same on both: what they choose and how they step is decided in one place, and only products move.
scikit-learn's own estimators take tensors, too (its array API), but are no such heads: `LinearDiscriminantAnalysis`
cannot shrink there, `RidgeClassifierCV` solves anew for each penalty, and `LogisticRegression` fits one fold and one C
after the other, its L-BFGS on the processor; on the same tensors the choice of C took eight times as long. All of it
wants ``SCIPY_ARRAY_API=1`` set before SciPy is imported.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator

from embedpipe.errors import UsageError
from embedpipe.estimators.solvers.column_stats import Columns, Floats

Rows = npt.NDArray[np.int64]

#: Bytes of a block.
BLOCK = 1 << 28


def usable_device(name: str) -> Any:
    """Return the `torch.device` of this name. Raises UsageError if there is none, or no head can be fitted on it."""
    from embedpipe._utils.device import choose_device

    if name.startswith("mps"):
        raise UsageError(f"device {name!r} has no float64, which fitting needs: leave it out")
    return choose_device(name)[0]


def set_device(estimator: Any, device: str | None) -> bool:
    """Set the device of all that has one: the estimator and what it holds, fitted or not; say whether any has."""
    parts = list(_with_device(estimator))
    for part in parts:
        part.set_params(device=device)
    return bool(parts)


def _with_device(value: Any) -> Iterator[Any]:
    """Yield the estimators of ours that have a device."""
    held: Iterable[Any] = value if isinstance(value, list | tuple) else ()
    if isinstance(value, BaseEstimator):
        held = vars(value).values()
        if type(value).__module__.startswith("embedpipe") and hasattr(value, "device"):
            yield value
    for one in held:
        yield from _with_device(one)


def place(X: npt.NDArray[Any], device: str | None) -> npt.NDArray[Any] | DeviceMatrix:
    """Return a matrix where heads are to be fitted on it.

    One with no more rows than columns stays where it is: its problems are as small as its rows.

    Raises UsageError if the device cannot be used.
    """
    if device is None:
        return X
    there = usable_device(device)
    return DeviceMatrix(X, there) if len(X) > X.shape[1] else X


class DeviceMatrix:
    """A copy of a matrix on a device. What is asked of it comes back as NumPy's arrays, of float64.

    Parameters
    ----------
    X : float array (n_samples, n_features)
    device : torch.device
    """

    def __init__(self, X: npt.NDArray[Any], device: Any) -> None:
        import torch

        self.shape, self.dtype, self.device = X.shape, X.dtype, device
        self.values = torch.tensor(np.ascontiguousarray(X), device=device)

    def __len__(self) -> int:
        return len(self.values)

    def there(self, values: npt.NDArray[Any]) -> Any:
        """Return an array as a tensor on the device."""
        import torch

        return torch.tensor(np.ascontiguousarray(values), device=self.device)

    def blocks(self, count: int, width: int) -> Iterator[slice]:
        """Yield slices that cover ``count`` rows, of which so many values take a block of bounded size."""
        step = max(16, BLOCK // (8 * max(width, self.shape[1])))
        return (slice(start, min(start + step, count)) for start in range(0, count, step))

    def _parts(self, rows: Rows, width: int = 1) -> Iterator[tuple[slice, Any]]:
        """Yield parts of some rows, as float64 (n, n_features), and where they stand among them."""
        numbers = self.there(rows)
        return ((part, self.values[numbers[part]].double()) for part in self.blocks(len(rows), width))

    def _zeros(self, width: int) -> Any:
        return self.values.new_zeros((self.shape[1], width)).double()

    def moments(self, rows: Rows, shares: Floats) -> tuple[Floats, Floats]:
        """Return the mean and the variance of each column of some rows, whose ``shares`` sum to 1."""
        there = self.there(shares)
        mean = sum(there[part] @ Z for part, Z in self._parts(rows))
        variances = sum(there[part] @ (Z - mean) ** 2 for part, Z in self._parts(rows))
        return mean.cpu().numpy(), variances.cpu().numpy()

    def scores(self, coef: Floats, intercept: Floats, rows: Rows) -> Floats:
        """Do what `scores_of` does."""
        weights, constant = self.there(coef.T), self.there(intercept)
        found = np.empty((len(rows), len(coef)))
        for part, Z in self._parts(rows, len(coef)):
            found[part] = (Z @ weights + constant).cpu().numpy()
        return found

    def log_losses(self, coef: Floats, intercept: Floats, rows: Rows, y: Rows) -> Floats:
        """Return the log-loss of rows (n_rows,) whose classes are ``y``; of two classes the second is scored."""
        import torch

        weights, constant, classes = self.there(coef.T), self.there(intercept), self.there(y)[:, None]
        found = np.empty(len(rows))
        for part, Z in self._parts(rows, len(coef)):
            scores = Z @ weights + constant
            if len(coef) == 1:
                scores = torch.hstack([torch.zeros_like(scores), scores])
            right = scores.gather(1, classes[part])[:, 0]
            found[part] = (scores.logsumexp(1) - right).cpu().numpy()
        return found

    def decomposed(self, rows: Rows, columns: Columns, roots: Floats, Y: Floats) -> tuple[Floats, Floats, Floats]:
        """Decompose Z'Z of standardised rows that are multiplied with ``roots``, (n_rows, 1).

        Returns eigenvalues (n_features,), going up, eigenvectors V (n_features, n_features), and V'Z'Y for ``Y``
        (n_rows, n_outputs).
        """
        import torch

        mean, scale, by, targets = (self.there(values) for values in (columns.mean, columns.scale, roots, Y))
        gram, right = self._zeros(self.shape[1]), self._zeros(Y.shape[1])
        for part, Z in self._parts(rows):
            Z = (Z - mean) / scale * by[part]
            gram += Z.T @ Z
            right += Z.T @ targets[part]
        squares, basis = torch.linalg.eigh(gram)
        return squares.cpu().numpy(), basis.cpu().numpy(), (basis.T @ right).cpu().numpy()

    def product(self, rows: Rows, columns: Columns) -> tuple[Floats, Floats]:
        """Return the smaller of Z'Z and ZZ' of standardised rows Z, and the rows' squared lengths (n_rows,)."""
        mean, scale = self.there(columns.mean), self.there(columns.scale)
        if len(rows) < self.shape[1]:
            Z = (self.values[self.there(rows)].double() - mean) / scale
            product = (Z @ Z.T).cpu().numpy()
            return product, product.diagonal()
        total, lengths = self._zeros(self.shape[1]), np.empty(len(rows))
        for part, Z in self._parts(rows):
            Z = (Z - mean) / scale
            total += Z.T @ Z
            lengths[part] = (Z**2).sum(1).cpu().numpy()
        return total.cpu().numpy(), lengths

    def gram_apart(self, rows: Rows, own: Rows, means: Floats, roots: Floats) -> Floats:
        """Return B'B, (n_features, n_features), of rows less ``means[own]``, times ``roots[own]``."""
        classes, centres, by = self.there(own), self.there(means), self.there(roots)
        total = self._zeros(self.shape[1])
        for part, Z in self._parts(rows):
            B = (Z - centres[classes[part]]) * by[classes[part]][:, None]
            total += B.T @ B
        return np.asarray(total.cpu().numpy())
