"""A head as a module of torch, from vectors to logits."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge, RidgeClassifier
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, Normalizer, StandardScaler
from torch import Tensor, nn
from torch.nn.functional import normalize

from embedpipe._utils.option_names import option
from embedpipe.errors import UsageError
from embedpipe.heads.conversion.linear_head import of_all_classes
from embedpipe.heads.conversion.plain_sklearn import plain_pipeline


class UnitRows(nn.Module):
    """Scales rows to length one; rows of zeros stay zero."""

    def forward(self, rows: Tensor) -> Tensor:
        """Return float32 (n, dim)."""
        return normalize(rows)


class Columns(nn.Module):
    """Takes the columns of one layer out of rows of several."""

    def __init__(self, start: int, stop: int) -> None:
        super().__init__()
        self.start, self.stop = start, stop

    def forward(self, rows: Tensor) -> Tensor:
        """Return float32 (n, stop - start)."""
        return rows[:, self.start : self.stop]


class Scale(nn.Module):
    """Subtracts a mean from rows and divides by a deviation."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, mean: Any, deviation: Any) -> None:
        super().__init__()
        self.register_buffer("mean", _tensor(mean))
        self.register_buffer("deviation", _tensor(deviation))

    def forward(self, rows: Tensor) -> Tensor:
        """Return float32 (n, dim)."""
        scaled: Tensor = (rows - self.mean) / self.deviation
        return scaled


class Votes(nn.Module):
    """Weighs the nearest rows by exp(cosine / temperature), and averages what these rows have.

    Parameters
    ----------
    rows : float32 Tensor (n_rows, dim)
        Of length one.
    values : float32 Tensor (n_rows, n_values)
        Class indicators, or numbers.
    k : int
    temperature : float
    logs : bool
        Return logarithms of the averages, which are logits where values are class indicators.
    """

    rows: Tensor
    values: Tensor

    def __init__(self, rows: Tensor, values: Tensor, k: int, temperature: float, logs: bool) -> None:
        super().__init__()
        self.register_buffer("rows", rows)
        self.register_buffer("values", values)
        self.k, self.temperature, self.logs = k, temperature, logs

    def forward(self, vectors: Tensor) -> Tensor:
        """Return float32 (n, n_values)."""
        cosines, nearest = (normalize(vectors) @ self.rows.T).topk(self.k, dim=1)
        weights = torch.softmax(cosines / self.temperature, dim=1)
        averages: Tensor = (weights.unsqueeze(1) @ self.values[nearest]).squeeze(1)
        return averages.log() if self.logs else averages


def to_module(estimator: Any, name: str, problem: str = "has no equal in torch") -> nn.Sequential:
    """Return the module of a fitted estimator; see `plain_pipeline` and `torch_module`."""
    return torch_module(plain_pipeline(estimator, name, problem), name, problem)


def torch_module(pipeline: Pipeline, name: str, problem: str = "has no equal in torch") -> nn.Sequential:
    """Return a plain pipeline of `plain_sklearn` as a module in float32 and in eval mode.

    Parameters
    ----------
    pipeline : Pipeline
    name : str
        Name of the head, for messages.
    problem : str
        What the head is not or cannot, in the message of the error.

    Returns
    -------
    nn.Sequential
        From float32 (n, dim) to logits (n, n_classes), or to numbers (n,).

    Raises
    ------
    UsageError
        If a step has no equal in torch.
    """
    modules: list[nn.Module] = []
    for _, step in pipeline.steps:
        made = list(_modules(step))
        if None in made:
            raise UsageError(
                f"head {name!r} {problem}: its steps must be linear, or nearest neighbours by cosine, got "
                f"{type(step).__name__}. Fit logreg, ridge, lda or knn ({option('head', ...)}) on vectors alone"
            )
        modules += made
    return nn.Sequential(*modules).eval()


def _modules(step: Any) -> Iterator[Any]:
    """Yield the modules of a step of the pipeline; None if torch has no equal."""
    if isinstance(step, FunctionTransformer):
        if step.func is np.dot:
            yield _linear(step.kw_args["b"].T, None)
    elif isinstance(step, Normalizer) and step.norm == "l2":
        yield UnitRows()
    elif isinstance(step, StandardScaler):
        dim = step.n_features_in_
        yield Scale(step.mean_ if step.with_mean else np.zeros(dim), step.scale_ if step.with_std else np.ones(dim))
    elif isinstance(step, ColumnTransformer) and step.transformers[0][0] == "layer":
        columns = step.transformers[0][2]
        yield Columns(columns.start, columns.stop)
    elif isinstance(step, LogisticRegression | RidgeClassifier):
        yield _linear(*of_all_classes(step.coef_, step.intercept_))
    elif isinstance(step, Ridge | LinearRegression):
        yield _linear(np.atleast_2d(step.coef_), np.ravel(step.intercept_))
        yield nn.Flatten(0)
    elif isinstance(step, OneVsRestClassifier) and all(
        isinstance(model, LogisticRegression | RidgeClassifier) for model in step.estimators_
    ):
        coefs, intercepts = zip(*((model.coef_, model.intercept_) for model in step.estimators_), strict=True)
        yield _linear(np.concatenate(coefs), np.concatenate(intercepts))
    elif isinstance(step, KNeighborsClassifier) and _is_softmax(step):
        yield _votes(step, np.eye(len(step.classes_))[step._y], logs=True)
    elif isinstance(step, KNeighborsRegressor) and _is_softmax(step) and step._y.ndim == 1:
        yield _votes(step, step._y[:, None], logs=False)
        yield nn.Flatten(0)
    else:
        yield None


def _is_softmax(step: Any) -> bool:
    return step.metric == "cosine" and isinstance(step.weights, functools.partial) and step.weights.func is np.power


def _votes(step: Any, values: Any, *, logs: bool) -> Votes:
    temperature = -1 / np.log(step.weights.args[0])
    return Votes(_tensor(step._fit_X), _tensor(values), step.n_neighbors, float(temperature), logs)


def _linear(weight: Any, bias: Any) -> nn.Linear:
    made = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    made.weight = nn.Parameter(_tensor(weight), requires_grad=False)
    if bias is not None:
        made.bias = nn.Parameter(_tensor(bias), requires_grad=False)
    return made


def _tensor(values: Any) -> Tensor:
    return torch.from_numpy(np.array(values, np.float32))
