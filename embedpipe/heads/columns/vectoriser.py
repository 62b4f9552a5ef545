"""The first step of a head with columns: scikit-learn's `ColumnTransformer`, fitted inside the folds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.pipeline import Pipeline

from embedpipe._utils.option_names import option
from embedpipe.errors import UsageError
from embedpipe.estimators.knn import FaissKNNClassifier, FaissKNNRegressor
from embedpipe.estimators.linear.centroid import CentroidClassifier
from embedpipe.estimators.preprocessing.component_remover import CommonComponentRemover
from embedpipe.estimators.text_prior.zero_shot import ZeroShotClassifier
from embedpipe.estimators.wrappers.base import innermost_estimator
from embedpipe.heads.columns.table_columns import TableColumn

#: Estimators that compare vectors by their distance, in which a column would count by its unit.
OF_DISTANCES = (CentroidClassifier, FaissKNNClassifier, FaissKNNRegressor, ZeroShotClassifier)


def takes_columns(estimator: Any) -> bool:
    """Return whether an estimator learns a weight for a column, and does not compare rows by distances."""
    return not isinstance(innermost_estimator(estimator), OF_DISTANCES)


def with_columns(name: str, estimator: Any, columns: Sequence[TableColumn], dim: int) -> tuple[str, Pipeline]:
    """Return the name and the pipeline of a head on rows that hold a vector and then the columns.

    The vectors stay as they are, or lose their common components. Missing numbers become the median and get a mark,
    numbers are standardised, categories one-hot encoded; a category that no training row has is all zeros.

    Parameters
    ----------
    name : str
    estimator : scikit-learn estimator
    columns : sequence of TableColumn
    dim : int
        Length of the vectors.

    Raises
    ------
    UsageError
        If the estimator compares rows by their distance.
    """
    if not takes_columns(estimator):
        raise UsageError(
            f"{name} compares rows by distances, in which a column counts by its unit: leave {option('features')} out, "
            f"or choose logreg, ridge or lda ({option('head', ...)})"
        )
    # Loaded here, as a head without columns needs none of them.
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    steps = estimator.steps if isinstance(estimator, Pipeline) else [("head", estimator)]
    of_vectors: Any = "passthrough"
    if isinstance(steps[0][1], CommonComponentRemover):
        (_, of_vectors), *steps = steps
    numbers = Pipeline(
        [
            ("impute", SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True)),
            ("scale", StandardScaler()),
        ]
    )
    categories = OneHotEncoder(handle_unknown="ignore", sparse_output=False, dtype=np.float32)
    places = {kind: [dim + i for i, c in enumerate(columns) if c.kind == kind] for kind in ("number", "category")}
    parts: list[tuple[str, Any, Any]] = [("vectors", of_vectors, slice(0, dim))]
    parts += [
        (kind, part, places[kind]) for kind, part in (("number", numbers), ("category", categories)) if places[kind]
    ]
    named = ", ".join(column.name for column in columns)
    return f"{name} with {named}", Pipeline([("columns", ColumnTransformer(parts)), *steps])
