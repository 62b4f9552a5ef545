"""Log-loss of predicted probabilities: the one function behind every log-loss that is reported."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def log_losses(probabilities: npt.ArrayLike, y: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return minus the logarithm of the probability of each row's true class; their mean is the log-loss.

    Probabilities are clipped to ``[eps, 1 - eps]``, with ``eps`` = 2.2e-16 that of float64, as
    `sklearn.metrics.log_loss` does. A class of probability 0 that is the true one, such as a class that none of k
    neighbours has, thus costs 36.04 and not infinity.

    Parameters
    ----------
    probabilities : float array (n, n_classes)
        Rows sum to 1.
    y : int array (n,)
        The true class, as a column number.

    Returns
    -------
    float64 array (n,)

    Examples
    --------
    >>> from embedpipe.statistics import log_losses
    >>> log_losses([[0.75, 0.25], [1.0, 0.0]], [0, 1]).round(3).tolist()
    [0.288, 36.044]
    """
    probabilities, y = np.asarray(probabilities, np.float64), np.asarray(y, np.int64)
    eps = np.finfo(np.float64).eps
    return np.asarray(-np.log(np.clip(probabilities[np.arange(len(y)), y], eps, 1 - eps)))
