"""The protocols by name, and `run_protocol`.

A result is comparable with a paper only if the vectors (layer, scaling) and the splits are those of the paper. The
settings of a result hold everything else that it depends on.
"""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from embedpipe._utils.options import check_seed
from embedpipe.errors import UsageError, suggest
from embedpipe.evaluation.protocols import clip_lp, dino_knn, few_shot, mteb_cls, retrieval
from embedpipe.evaluation.protocols.problem import Protocol, ProtocolResult, make_problem

PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            "clip-lp",
            1,
            "logistic regression by L-BFGS on raw vectors, C chosen on held-out rows, refitted on all rows",
            "Radford et al., Learning Transferable Visual Models From Natural Language Supervision, ICML 2021, A.3",
            clip_lp.run,
        ),
        Protocol(
            "dino-knn",
            1,
            "weighted vote of the k nearest neighbours by cosine, weights exp(cosine / 0.07), k = 10, 20, 100, 200",
            "Caron et al., Emerging Properties in Self-Supervised Vision Transformers, ICCV 2021, 4.1",
            dino_knn.run,
        ),
        Protocol(
            "mteb-cls",
            1,
            "mean of 10 logistic regressions, each on 8 (and 16) rows per class",
            "Muennighoff et al., MTEB: Massive Text Embedding Benchmark, EACL 2023, 3.2",
            mteb_cls.run,
        ),
        Protocol(
            "few-shot",
            1,
            "tuned logistic regression on 1, 2, 4, 8, 16 and all rows per class, 5 draws",
            "Radford et al., ICML 2021, 3.1 (the curve); Owen, Annals of Applied Statistics 1, 2007 (the interval)",
            few_shot.run,
        ),
        Protocol(
            "retrieval",
            1,
            "test rows search the training rows by cosine: mAP, recall@k and NDCG@k of the class",
            "Oh Song et al., CVPR 2016 (recall@k); Jarvelin, Kekalainen, ACM TOIS 20, 2002 (NDCG)",
            retrieval.run,
        ),
    )
}


def find_protocol(name: str) -> Protocol:
    """Return a protocol by its name; raise UsageError if it is unknown."""
    if name not in PROTOCOLS:
        raise UsageError(f"unknown protocol {name!r}{suggest(name, PROTOCOLS)}")
    return PROTOCOLS[name]


def run_protocol(
    name: str, X_train: Any, y_train: Any, X_test: Any, y_test: Any, *, held_out: Any = None, seed: int = 0
) -> ProtocolResult:
    """Measure vectors by a published protocol.

    Parameters
    ----------
    name : str
        One of `PROTOCOLS`.
    X_train, X_test : float array (n, dim)
        float32 or float64, unscaled.
    y_train, y_test : array (n,)
        Labels.
    held_out : bool array (n_train,) or int array, optional
        Training rows of the published validation split, on which ``clip-lp`` chooses C. Other protocols ignore them.
    seed : int, default 0
        Seed of everything that is drawn, from 0 to 2^32 - 1; ``dino-knn`` draws nothing.

    Returns
    -------
    ProtocolResult

    Raises
    ------
    UsageError
        If the protocol is unknown, or the seed is out of range.
    TrainingDataError
        If the arrays do not fit each other, or there are too few rows or classes.

    Examples
    --------
    >>> import numpy as np
    >>> from embedpipe.evaluation import run_protocol
    >>> rng = np.random.default_rng(0)
    >>> y = np.arange(60) % 2
    >>> X = rng.normal(size=(60, 4)) + 5 * y[:, None]
    >>> run_protocol("clip-lp", X[:40], y[:40], X[40:], y[40:]).metrics["accuracy"]
    1.0
    """
    return predict_by_protocol(name, X_train, y_train, X_test, y_test, held_out=held_out, seed=seed).result


class Measured(NamedTuple):
    """A result, the predicted labels of the test rows in each setting, and metrics of each test row, if there are."""

    result: ProtocolResult
    predicted: dict[str, npt.NDArray[Any]]
    values: dict[str, npt.NDArray[np.float64]]


def predict_by_protocol(
    name: str, X_train: Any, y_train: Any, X_test: Any, y_test: Any, *, held_out: Any = None, seed: int = 0
) -> Measured:
    """Return what `run_protocol` returns, and what it knows of each test row."""
    protocol = find_protocol(name)
    start = time.perf_counter()
    problem = make_problem(X_train, y_train, X_test, y_test, held_out, check_seed(seed))
    outcome = protocol.run(problem)
    predicted = {setting: problem.classes[positions] for setting, positions in outcome.predicted.items()}
    result = ProtocolResult(
        f"{protocol.name}/{protocol.version}",
        outcome.metrics,
        outcome.settings,
        outcome.details,
        time.perf_counter() - start,
    )
    return Measured(result, predicted, outcome.values)
