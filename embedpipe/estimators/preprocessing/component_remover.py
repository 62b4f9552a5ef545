"""`CommonComponentRemover`: subtracts the directions that all vectors share, before an estimator."""

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
    """Subtract the projection on the first singular vectors of the training rows, without centring.

    It is the second step of smooth inverse frequency (SIF): what weighted means of word vectors share is mostly
    grammar. With several components it is "all but the top" without its centring.

    Parameters
    ----------
    n_components : int
        Number of directions to remove, at least 1 and below the number of features.

    Attributes
    ----------
    components_ : float64 array (n_components, n_features)
        Orthonormal, in descending order of singular values; fewer if the rows span fewer dimensions.
    n_features_in_ : int

    References
    ----------
    Arora, Liang, Ma: A simple but tough-to-beat baseline for sentence embeddings, ICLR 2017. Mu, Viswanath:
    All-but-the-top: simple and effective postprocessing for word representations, ICLR 2018.

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
        """Compute the components, the eigenvectors of ``X.T @ X``, in float64.

        Parameters
        ----------
        X : float array (n_samples, n_features)
        y : ignored

        Raises
        ------
        ValueError
            If ``n_components`` is out of range.
        """
        X = validate_data(self, X, dtype=FLOATS)
        dim = X.shape[1]
        if not 0 < self.n_components < dim:
            raise ValueError(f"n_components must be >= 1 and < n_features={dim}, got {self.n_components!r}")
        products = np.zeros((dim, dim))
        for part in blocks(*X.shape):
            rows = X[part].astype(np.float64)
            products += rows.T @ rows
        values, vectors = eigh(products, subset_by_index=[dim - self.n_components, dim - 1])
        nonzero = values > values[-1] * dim * np.finfo(np.float64).eps
        self.components_: Floats = np.ascontiguousarray(vectors.T[nonzero][::-1])
        return self

    def transform(self, X: Any) -> npt.NDArray[Any]:
        """Return the rows without their projection on the components.

        Parameters
        ----------
        X : float array (n_samples, n_features)

        Returns
        -------
        float array (n_samples, n_features), in the dtype of ``X``
        """
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=FLOATS)
        components = self.components_.astype(X.dtype)
        result: npt.NDArray[Any] = (X @ components.T) @ components
        np.subtract(X, result, out=result)
        return result


def without_components(estimator: Any, n_components: int) -> Pipeline:
    """Return a pipeline of a `CommonComponentRemover` and the estimator (or the steps of a pipeline)."""
    steps = estimator.steps if isinstance(estimator, Pipeline) else [("head", estimator)]
    return Pipeline([("common_components", CommonComponentRemover(n_components)), *steps])


def last_step(estimator: Any) -> Any:
    """Return the last step of a pipeline; any other estimator unchanged."""
    return estimator.steps[-1][1] if isinstance(estimator, Pipeline) else estimator
