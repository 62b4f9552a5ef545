"""From vectors to points on a plane: PCA, then t-SNE."""

from __future__ import annotations

import contextlib
import io
import re
import sys

import numpy as np
import numpy.typing as npt

from embedpipe._utils.progress import Advance, Progress

#: With fewer points, t-SNE shows nothing useful, and PCA alone is used.
FEWEST_FOR_TSNE = 10
PCA_DIMS = 50
PERPLEXITY = 30.0
ITERATIONS = 1000


def project(vectors: npt.NDArray[np.float32], seed: int, progress: Progress) -> tuple[npt.NDArray[np.float64], str]:
    """Project vectors to two dimensions by their angles: they are scaled to length 1 first.

    PCA to 50 dimensions, then t-SNE (van der Maaten and Hinton, JMLR 9, 2008), initialised with the first two
    (Kobak and Berens, Nature Communications 10, 2019). With fewer than 10 vectors, or if all are equal, PCA alone.

    Parameters
    ----------
    vectors : float32 array (n, dim), n >= 1
    seed : int

    Returns
    -------
    points : float64 array (n, 2)
        The direction of the largest variance is horizontal.
    method : str
        A description, for the picture's footer.
    """
    count = len(vectors)
    unit = vectors.astype(np.float64)
    unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    with progress.step("PCA"):
        reduced = _principal(unit, PCA_DIMS, seed)
    spread = reduced[:, 0].std()
    if count < FEWEST_FOR_TSNE or spread < 1e-9:
        return reduced[:, :2], "PCA of the vectors, scaled to length 1: points that are near have similar vectors."

    from sklearn.manifold import TSNE

    perplexity = min(PERPLEXITY, (count - 1) / 3)
    start = (reduced[:, :2] / spread * 1e-4).astype(np.float32)
    tsne = TSNE(perplexity=perplexity, init=start, random_state=seed, max_iter=ITERATIONS, verbose=2)
    with contextlib.ExitStack() as stack:
        advance = stack.enter_context(progress.step("t-SNE", ITERATIONS, "iterations"))
        stack.enter_context(contextlib.redirect_stdout(_Iterations(advance)))
        points = tsne.fit_transform(reduced.astype(np.float32))
    return _principal(points.astype(np.float64), 2, seed), (
        f"t-SNE (perplexity {perplexity:.3g}, seed {seed}) of the vectors, scaled to length 1 and reduced to "
        f"{reduced.shape[1]} dimensions by PCA.\n"
        "Points that are near have similar vectors; distances between groups and sizes of groups mean little."
    )


def _principal(points: npt.NDArray[np.float64], dims: int, seed: int) -> npt.NDArray[np.float64]:
    """Return the first principal components, padded with zeros to at least two columns."""
    from sklearn.utils.extmath import randomized_svd

    centred = points - points.mean(axis=0)
    dims = min(dims, *centred.shape)
    left, scale, _ = randomized_svd(centred, n_components=dims, random_state=seed)
    return np.pad(left * scale, ((0, 0), (0, max(0, 2 - dims))))


class _Iterations(io.TextIOBase):
    """Turns the log lines of t-SNE, which has no callback, into progress; other output passes through."""

    def __init__(self, advance: Advance) -> None:
        self._advance = advance
        self._done = 0
        self._out = sys.stdout
        self._swallow_newline = False

    def write(self, text: str) -> int:
        if text.startswith("[t-SNE]"):
            self._swallow_newline = True  # print() writes the newline in a call of its own
            if match := re.match(r"\[t-SNE\] Iteration (\d+)", text):
                self._advance(int(match[1]) - self._done)
                self._done = int(match[1])
        elif text != "\n" or not self._swallow_newline:
            self._out.write(text)
        else:
            self._swallow_newline = False
        return len(text)
