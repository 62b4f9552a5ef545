"""Taking off what all vectors have in common, before a head."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import numpy.typing as npt
from scipy.linalg import eigh
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted, validate_data

from embedpipe._utils.public import public_in
from embedpipe.estimators.linear.base import FLOATS
from embedpipe.estimators.solvers.column_stats import Floats, blocks


@public_in("embedpipe.estimators")
class CommonComponentRemover(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Subtract the projection on the first singular vectors of the training rows, which are not centred.

    The second step of smooth inverse frequency (Arora, Liang, Ma: A simple but tough-to-beat baseline for sentence
    embeddings, ICLR 2017): what weighted means of word vectors share is mostly grammar. With several components it is
    "all but the top" (Mu and Viswanath, ICLR 2018) without its centring.

    Parameters
    ----------
    n_components : int

    Attributes
    ----------
    components_ : float64 array (n_components, n_features)
        Orthonormal, of the largest singular value first; fewer where the rows span fewer dimensions.

    Examples
    --------
    >>> import numpy as np
    >>> from embedpipe import CommonComponentRemover
    >>> X = np.array([[3.0, 1.0], [3.0, -1.0]])
    >>> CommonComponentRemover().fit_transform(X).round(6) + 0.0
    array([[ 0.,  1.],
           [ 0., -1.]])
    """

    def __init__(self, n_components: int = 1) -> None:
        self.n_components = n_components

    def fit(self, X: Any, y: Any = None) -> Self:
        """Find the components of ``X``, float (n_samples, n_features): the eigenvectors of ``X.T @ X`` in float64."""
        X = validate_data(self, X, dtype=FLOATS)
        dim = X.shape[1]
        if not 0 < self.n_components < dim:
            raise ValueError(f"n_components={self.n_components!r} must be at least 1 and below n_features={dim}")
        products = np.zeros((dim, dim))
        for part in blocks(*X.shape):
            rows = X[part].astype(np.float64)
            products += rows.T @ rows
        values, vectors = eigh(products, subset_by_index=[dim - self.n_components, dim - 1])
        there = values > values[-1] * dim * np.finfo(np.float64).eps
        self.components_: Floats = np.ascontiguousarray(vectors.T[there][::-1])
        return self

    def transform(self, X: Any) -> npt.NDArray[Any]:
        """Return the rows (n_samples, n_features) without their part along the components, in the type of ``X``."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=FLOATS)
        components = self.components_.astype(X.dtype)
        rest: npt.NDArray[Any] = (X @ components.T) @ components
        np.subtract(X, rest, out=rest)
        return rest


def without_components(estimator: Any, n_components: int) -> Pipeline:
    """Return an estimator, or the steps of a pipeline, behind a `CommonComponentRemover`."""
    steps = estimator.steps if isinstance(estimator, Pipeline) else [("head", estimator)]
    return Pipeline([("common_components", CommonComponentRemover(n_components)), *steps])


def last_step(estimator: Any) -> Any:
    """Return the last step of a pipeline; any other estimator as it is."""
    return estimator.steps[-1][1] if isinstance(estimator, Pipeline) else estimator
