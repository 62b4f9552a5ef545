"""A matrix on a torch device, and the products of its rows that the linear estimators need.

The estimators run the same code for both; only the products are computed on the device. scikit-learn's own estimators
accept tensors too (array API), but do less there: `LinearDiscriminantAnalysis` cannot shrink the covariance,
`RidgeClassifierCV` solves again for each penalty, and `LogisticRegression` fits each fold and C separately with L-BFGS
on the CPU, so that choosing C took eight times as long on the same tensors. All of them need
``SCIPY_ARRAY_API=1`` before SciPy is imported.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator

from embedpipe.errors import UsageError
from embedpipe.estimators.solvers.column_stats import ColumnStats, Floats, Matrix, blocks
from embedpipe.splits.mapped_rows import MappedRows

Rows = npt.NDArray[np.int64]

#: Bytes of a block of rows.
BLOCK = 1 << 28


def usable_device(name: str) -> Any:
    """Return the `torch.device` of this name. Raises UsageError if there is none, or it has no float64."""
    from embedpipe._utils.device import choose_device

    if name.startswith("mps"):
        raise UsageError(f"device {name!r} has no float64, which fitting needs: leave device out")
    return choose_device(name)[0]


def set_device(estimator: Any, device: str | None) -> bool:
    """Set the parameter ``device`` of an estimator and of all estimators inside it; return whether any has it."""
    parts = list(_with_device(estimator))
    for part in parts:
        part.set_params(device=device)
    return bool(parts)


def _with_device(value: Any) -> Iterator[Any]:
    """Yield embedpipe's estimators in ``value`` that have a parameter ``device``."""
    values: Iterable[Any] = value if isinstance(value, list | tuple) else ()
    if isinstance(value, BaseEstimator):
        values = vars(value).values()
        if type(value).__module__.startswith("embedpipe") and hasattr(value, "device"):
            yield value
    for part in values:
        yield from _with_device(part)


def move_to_device(X: Matrix, device: str | None) -> Matrix | TorchMatrix:
    """Return a copy of the matrix on the device, or the matrix itself if ``device`` is None.

    A matrix with no more rows than columns stays on the CPU, which solves small problems faster.

    Raises UsageError if the device cannot be used.
    """
    if device is None:
        return X
    torch_device = usable_device(device)
    return TorchMatrix(X, torch_device) if len(X) > X.shape[1] else X


class TorchMatrix:
    """A copy of a matrix on a torch device. Its methods compute there and return float64 NumPy arrays.

    Parameters
    ----------
    X : float array (n_samples, n_features), or MappedRows
    device : torch.device
    """

    def __init__(self, X: Matrix, device: Any) -> None:
        import torch

        self.shape, self.dtype, self.device = X.shape, X.dtype, device
        if isinstance(X, MappedRows):
            self.values = torch.empty(X.shape, dtype=torch.float32, device=device)
            for part in blocks(*X.shape):
                self.values[part] = torch.tensor(X[part])
        else:
            self.values = torch.tensor(np.ascontiguousarray(X), device=device)

    def __len__(self) -> int:
        return len(self.values)

    def to_device(self, values: npt.NDArray[Any]) -> Any:
        """Return a NumPy array as a tensor on the device."""
        import torch

        return torch.tensor(np.ascontiguousarray(values), device=self.device)

    def blocks(self, count: int, width: int) -> Iterator[slice]:
        """Yield slices that divide ``count`` rows of ``width`` values into blocks of at most `BLOCK` bytes."""
        step = max(16, BLOCK // (8 * max(width, self.shape[1])))
        return (slice(start, min(start + step, count)) for start in range(0, count, step))

    def _parts(self, rows: Rows, width: int = 1) -> Iterator[tuple[slice, Any]]:
        """Yield slices of ``rows`` and the matrix rows of each, float64 (n, n_features)."""
        numbers = self.to_device(rows)
        return ((part, self.values[numbers[part]].double()) for part in self.blocks(len(rows), width))

    def _zeros(self, width: int) -> Any:
        return self.values.new_zeros((self.shape[1], width)).double()

    def moments(self, rows: Rows, shares: Floats) -> tuple[Floats, Floats]:
        """Return mean and variance of each column of ``X[rows]``, weighted by ``shares``, which sum to 1."""
        weights = self.to_device(shares)
        mean = sum(weights[part] @ Z for part, Z in self._parts(rows))
        variances = sum(weights[part] @ (Z - mean) ** 2 for part, Z in self._parts(rows))
        return mean.cpu().numpy(), variances.cpu().numpy()

    def scores(self, coef: Floats, intercept: Floats, rows: Rows) -> Floats:
        """Return ``X[rows] @ coef.T + intercept``, float64 (n_rows, n_outputs)."""
        weights, constant = self.to_device(coef.T), self.to_device(intercept)
        scores = np.empty((len(rows), len(coef)))
        for part, Z in self._parts(rows, len(coef)):
            scores[part] = (Z @ weights + constant).cpu().numpy()
        return scores

    def log_losses(self, coef: Floats, intercept: Floats, rows: Rows, y: Rows) -> Floats:
        """Return the log-loss of each row, (n_rows,); ``y`` holds its class. With two classes, ``coef`` has one row."""
        import torch

        weights, constant, classes = self.to_device(coef.T), self.to_device(intercept), self.to_device(y)[:, None]
        losses = np.empty(len(rows))
        for part, Z in self._parts(rows, len(coef)):
            scores = Z @ weights + constant
            if len(coef) == 1:
                scores = torch.hstack([torch.zeros_like(scores), scores])
            true_scores = scores.gather(1, classes[part])[:, 0]
            losses[part] = (scores.logsumexp(1) - true_scores).cpu().numpy()
        return losses

    def eigen_gram(self, rows: Rows, columns: ColumnStats, roots: Floats, Y: Floats) -> tuple[Floats, Floats, Floats]:
        """Decompose Z'Z, where Z are standardised rows times ``roots`` (n_rows, 1).

        Returns the ascending eigenvalues (n_features,), the eigenvectors V (n_features, n_features), and V'Z'Y for
        ``Y`` (n_rows, n_outputs).
        """
        import torch

        mean, scale, row_roots, targets = (self.to_device(values) for values in (columns.mean, columns.scale, roots, Y))
        gram, right = self._zeros(self.shape[1]), self._zeros(Y.shape[1])
        for part, Z in self._parts(rows):
            Z = (Z - mean) / scale * row_roots[part]
            gram += Z.T @ Z
            right += Z.T @ targets[part]
        squares, basis = torch.linalg.eigh(gram)
        return squares.cpu().numpy(), basis.cpu().numpy(), (basis.T @ right).cpu().numpy()

    def gram(self, rows: Rows, columns: ColumnStats) -> tuple[Floats, Floats]:
        """Return the smaller of Z'Z and ZZ' for standardised rows Z, and the squared norms of the rows (n_rows,)."""
        mean, scale = self.to_device(columns.mean), self.to_device(columns.scale)
        if len(rows) < self.shape[1]:
            Z = (self.values[self.to_device(rows)].double() - mean) / scale
            product = (Z @ Z.T).cpu().numpy()
            return product, product.diagonal()
        total, lengths = self._zeros(self.shape[1]), np.empty(len(rows))
        for part, Z in self._parts(rows):
            Z = (Z - mean) / scale
            total += Z.T @ Z
            lengths[part] = (Z**2).sum(1).cpu().numpy()
        return total.cpu().numpy(), lengths

    def within_gram(self, rows: Rows, classes: Rows, means: Floats, roots: Floats) -> Floats:
        """Return B'B (n_features, n_features) for B = (X[rows] - means[classes]) * roots[classes]."""
        index, centres, row_roots = self.to_device(classes), self.to_device(means), self.to_device(roots)
        total = self._zeros(self.shape[1])
        for part, Z in self._parts(rows):
            B = (Z - centres[index[part]]) * row_roots[index[part]][:, None]
            total += B.T @ B
        return np.asarray(total.cpu().numpy())
