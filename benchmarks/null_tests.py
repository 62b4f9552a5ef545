"""How often does each paired test call two heads of equal skill different, and how often does it find 2 points?

    python benchmarks/null_tests.py [--simulations 10000] [--seed 0] [--json FILE]

A simulation draws rows of two classes whose features have two halves, and fits the same kind of head on each half in
5 x 5-fold stratified cross-validation, as `evaluate` does. The halves have the same distribution, and labels are drawn
from both alike, so that swapping the heads changes nothing: neither is better, and a test that rejects at 0.05 in more
than 5 % of the simulations finds differences that do not exist. Each simulation draws rows, noise and folds anew.
`shared` is the share of the noise that the halves have in common; it makes the heads err on the same rows.

Then the classes of the second half are moved apart until its head is 2 points better (the mean over all simulations is
printed): the share of rejections is then the power. Each share has its 95 % interval (Wilson's).

"corrected t" is `corrected_t` over the 25 differences with `repeats`, "published" without (Nadeau and Bengio's own),
"1 x 5" over the 5 of the first repeat; "naive t" is the paired t-test over the 25; "McNemar" is `mcnemar` on the pooled
predictions of the first repeat; "bootstrap" resamples rows as `paired_bootstrap` does, of the first repeat, and of all
five with the predictions of a row kept together. The exit code is 1 if a limit is missed.
"""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from common import make_parser, write_json
from scipy.special import stdtr
from threadpoolctl import threadpool_limits

from embedpipe.statistics import corrected_t, mcnemar, wilson

Floats = npt.NDArray[np.float32]

ALPHA, FOLDS, REPEATS, DRAWS = 0.05, 5, 5, 2000
RATIO = 1 / (FOLDS - 1)
#: Shrinkage of LDA's covariance towards a multiple of the identity.
SHRINKAGE = 0.1
#: Difference in skill at which the power is measured.
POINTS = 0.02
#: Simulations of each step of the search for that difference.
PILOT = 1000
#: Most values in memory at once.
MAX_VALUES = 4_000_000
TESTS = ("corrected t", "published", "1 x 5", "naive t", "McNemar", "bootstrap", "bootstrap, 5 x 5")
#: Limits of the share of false rejections.
LIMITS = {"corrected t": ("at most", 0.06), "naive t": ("at least", 0.10)}


@dataclass(frozen=True)
class Setting:
    """A simulation: rows, features of a half, the head, share of common noise, distance of the classes in each half."""

    rows: int
    dim: int
    head: str
    shared: float = 0.0
    apart: tuple[float, float] = (2.0, 2.0)


SETTINGS = (
    Setting(100, 5, "lda"),
    Setting(100, 50, "lda"),
    Setting(300, 20, "lda"),
    Setting(300, 20, "lda", shared=0.7),
    Setting(300, 20, "lda", apart=(4.0, 4.0)),
    Setting(300, 20, "lda", apart=(0.0, 0.0)),
    Setting(1000, 20, "lda"),
    Setting(300, 20, "centroid"),
    Setting(100, 10, "1-nn"),
    Setting(200, 10, "1-nn"),
    Setting(200, 10, "5-nn"),
    Setting(200, 10, "15-nn"),
)
#: Settings of the power.
POWER = (
    Setting(300, 20, "lda"),
    Setting(1000, 20, "lda"),
    Setting(1000, 20, "lda", shared=0.7),
    Setting(3000, 5, "lda", shared=0.7),
    Setting(200, 10, "5-nn"),
)


def draw_rows(setting: Setting, simulations: int, rng: np.random.Generator) -> list[Floats]:
    """Return the two halves of the features, (simulations, rows, dim) each; rows of class 0 come first."""
    shape = (simulations, setting.rows, setting.dim)
    common_noise = rng.standard_normal(shape, dtype=np.float32) if setting.shared else 0
    sign = np.where(np.arange(setting.rows) < setting.rows // 2, -1, 1).astype(np.float32)[:, None]
    halves = []
    for apart in setting.apart:
        noise = rng.standard_normal(shape, dtype=np.float32)
        noise *= np.float32(np.sqrt(1 - setting.shared))
        if setting.shared:
            noise += np.float32(np.sqrt(setting.shared)) * common_noise
        halves.append(noise + sign * np.float32(apart / 2 / np.sqrt(setting.dim)))
    return halves


def draw_folds(setting: Setting, simulations: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Return the rows of stratified folds, (simulations, FOLDS, rows / FOLDS), those of class 0 first in each fold."""
    half = setting.rows // 2
    order = rng.random((simulations, 2, half)).argsort(axis=2) + np.array([0, half])[:, None]
    return np.asarray(order.reshape(simulations, 2, FOLDS, -1).swapaxes(1, 2).reshape(simulations, FOLDS, -1), np.int64)


def linear(X: Floats, head: str) -> npt.NDArray[np.bool_]:
    """Return which rows a linear head fitted on the other folds classifies correctly.

    X is (simulations, folds, rows, dim).
    """
    size, dim = X.shape[2], X.shape[3]
    train = (FOLDS - 1) * size // 2
    means = np.stack([X[:, :, : size // 2].sum(axis=2), X[:, :, size // 2 :].sum(axis=2)], axis=2)
    means = (means.sum(axis=1, keepdims=True) - means) / train  # (simulations, folds, 2, dim)
    weights = means[:, :, 1] - means[:, :, 0]
    if head == "lda":
        products = X.swapaxes(2, 3) @ X
        spread = products.sum(axis=1, keepdims=True) - products
        spread -= train * (means.swapaxes(2, 3) @ means)
        spread /= 2 * train - 2
        scale = np.trace(spread, axis1=2, axis2=3) / dim
        spread *= 1 - SHRINKAGE
        spread[:, :, range(dim), range(dim)] += SHRINKAGE * scale[..., None]
        weights = np.linalg.solve(spread, weights[..., None])[..., 0]
    scores = (X - means.mean(axis=2, keepdims=True)[:, :, 0, None]) @ weights[..., None]
    return np.asarray((scores[..., 0] > 0) == (np.arange(size) >= size // 2), np.bool_)


def nearest(X: Floats, k: int) -> npt.NDArray[np.bool_]:
    """Return which rows kNN on the other folds classifies correctly; X as for `linear`."""
    simulations, folds, size, dim = X.shape
    rows = X.reshape(simulations, folds * size, dim)
    distances = np.square(rows).sum(axis=2)[:, None] - 2 * (rows @ rows.swapaxes(1, 2))
    blocks = distances.reshape(simulations, folds, size, folds, size)
    for fold in range(folds):
        blocks[:, fold, :, fold] = np.inf
    neighbours = distances.argpartition(k - 1, axis=2)[..., :k] if k > 1 else distances.argmin(axis=2)[..., None]
    votes = (neighbours % size >= size // 2).mean(axis=2).reshape(simulations, folds, size)
    return np.asarray((votes > 0.5) == (np.arange(size) >= size // 2), np.bool_)


def simulate(
    setting: Setting, simulations: int, repeats: int, seed: int
) -> Iterator[tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64]]]:
    """Yield which test rows each head classifies correctly, and the numbers of these rows, part by part.

    Shapes: (part, repeats, 2 heads, folds, rows / folds), and the same without the axis of the heads.
    """
    rng = np.random.default_rng(seed)
    k = int(setting.head[:-3]) if setting.head.endswith("-nn") else 0
    part_size = max(1, MAX_VALUES // (setting.rows * (setting.rows if k else 2 * setting.dim)))
    for start in range(0, simulations, part_size):
        count = min(part_size, simulations - start)
        halves = draw_rows(setting, count, rng)
        orders = np.stack([draw_folds(setting, count, rng) for _ in range(repeats)], axis=1)
        correct = np.empty((count, repeats, 2, *orders.shape[2:]), bool)
        for repeat in range(repeats):
            for head, half in enumerate(halves):
                X = half[np.arange(count)[:, None, None], orders[:, repeat]]
                correct[:, repeat, head] = nearest(X, k) if k else linear(X, setting.head)
        yield correct, orders


def p_values(correct: npt.NDArray[np.bool_], orders: npt.NDArray[np.int64], seed: int) -> dict[str, npt.NDArray[Any]]:
    """Return the p-value of every test in each simulation."""
    simulations, repeats = correct.shape[:2]
    rows = orders.shape[2] * orders.shape[3]
    by_fold = correct.mean(axis=4)
    differences = (by_fold[:, :, 1] - by_fold[:, :, 0]).reshape(simulations, -1)
    spread = differences.std(axis=1, ddof=1)
    constant = spread == 0
    t = differences.mean(axis=1) / np.where(constant, 1, spread / np.sqrt(differences.shape[1]))
    naive = np.where(constant, differences.mean(axis=1) == 0, 2 * stdtr(differences.shape[1] - 1, -np.abs(t)))
    first = correct[:, 0].reshape(simulations, 2, rows)
    by_row = np.empty((simulations, repeats, rows), np.float32)
    gained = correct[:, :, 1].astype(np.float32) - correct[:, :, 0]
    np.put_along_axis(by_row, orders.reshape(simulations, repeats, rows), gained.reshape(simulations, repeats, rows), 2)
    weights = np.random.default_rng(seed).multinomial(rows, np.full(rows, 1 / rows), DRAWS).astype(np.float32)
    # Heads that agree on all rows differ by 0 in every fold: a least spread makes that p = 1.
    test = functools.partial(corrected_t, ratio=RATIO, min_standard_error=1e-12)
    return {
        "corrected t": np.array([test(values, repeats=REPEATS).p for values in differences]),
        "published": np.array([test(values).p for values in differences]),
        "1 x 5": np.array([test(values[:FOLDS]).p for values in differences]),
        "naive t": naive,
        "McNemar": np.array([mcnemar(a, b) for a, b in first]),
        "bootstrap": bootstrapped(by_row[:, 0], weights),
        "bootstrap, 5 x 5": bootstrapped(by_row.sum(axis=1), weights),
    }


def bootstrapped(differences: Floats, weights: Floats) -> npt.NDArray[np.float64]:
    """Return the p-value of each simulation.

    ``differences`` is by row, (simulations, rows); ``weights`` is how often each draw has a row, (draws, rows).
    """
    drawn = weights @ differences.T
    beyond = np.minimum((drawn <= 0).sum(axis=0), (drawn >= 0).sum(axis=0))
    return np.asarray(np.minimum(2 * (beyond + 1) / (len(weights) + 1), 1), np.float64)


def rejections(setting: Setting, simulations: int, seed: int) -> dict[str, Any]:
    """Return the share of rejections of each test, with its interval, and the accuracies of the heads."""
    counts = dict.fromkeys(TESTS, 0)
    skill = np.zeros(2)
    for part, (correct, orders) in enumerate(simulate(setting, simulations, REPEATS, seed)):
        skill += correct.mean(axis=(1, 3, 4)).sum(axis=0)
        for name, p in p_values(correct, orders, seed + 1 + part).items():
            counts[name] += int((p <= ALPHA).sum())
    shares = {name: wilson(count, simulations) for name, count in counts.items()}
    return {"accuracy": (skill / simulations).tolist(), "shares": shares}


def apart_by(setting: Setting, points: float, seed: int) -> Setting:
    """Return the setting with the second half's classes moved apart until its head is better by ``points``."""

    def skill(apart: float) -> float:
        candidate = replace(setting, apart=(setting.apart[0], apart))
        return float(np.concatenate([correct[:, 0, 1] for correct, _ in simulate(candidate, PILOT, 1, seed)]).mean())

    low, high = setting.apart[0], setting.apart[0] + 1
    aim = skill(low) + points  # each step has the same noise, so that few simulations suffice
    for _ in range(6):
        middle = (low + high) / 2
        low, high = (middle, high) if skill(middle) < aim else (low, middle)
    return replace(setting, apart=(setting.apart[0], (low + high) / 2))


def in_percent(share: tuple[float, float, float]) -> str:
    """Return a share with its interval, in percent."""
    return f"{100 * share[0]:.1f} ({100 * share[1]:.1f}-{100 * share[2]:.1f})"


def main() -> int:
    """Measure and print; return 1 if a limit is missed."""
    parser = make_parser(__doc__)
    parser.add_argument("--simulations", type=int, default=10_000, help="simulations per setting (default: 10,000)")
    parser.add_argument("--seed", type=int, default=0, help="seed of everything that is drawn (default: 0)")
    options = parser.parse_args()
    results: list[dict[str, Any]] = []
    start = time.perf_counter()
    for question, points, settings in (("false rejections", 0.0, SETTINGS), ("power at 2 points", POINTS, POWER)):
        print(f"{question}, in percent of {options.simulations:,} simulations")
        print(f"{'':<34}{'accuracies':<12}" + "".join(f"{name:<17}" for name in TESTS))
        for setting in settings:
            with threadpool_limits(1, user_api="blas"):  # faster for many small products
                drawn = apart_by(setting, points, options.seed) if points else setting
                result = rejections(drawn, options.simulations, options.seed + 1)
            results.append({"question": question, **asdict(drawn), **result})
            name = f"{setting.rows} x {setting.dim} {setting.head}"
            name += f", shared {setting.shared:g}" if setting.shared else ""
            skill = " ".join(f"{100 * accuracy:.1f}" for accuracy in result["accuracy"])
            print(
                f"{name:<34}{skill:<12}" + "".join(f"{in_percent(result['shares'][test]):<17}" for test in TESTS),
                flush=True,
            )
    missed = 0
    for test, (bound, limit) in LIMITS.items():
        shares = [result["shares"][test][0] for result in results if result["question"] == "false rejections"]
        met = max(shares) <= limit if bound == "at most" else min(shares) >= limit
        missed += not met
        print(f"{test}: {min(shares):.1%} to {max(shares):.1%}, {bound} {limit:.0%}: {'yes' if met else 'NO'}")
    print(f"{time.perf_counter() - start:.0f} s")
    summary = {
        "simulations": options.simulations,
        "alpha": ALPHA,
        "folds": FOLDS,
        "repeats": REPEATS,
        "results": results,
    }
    write_json(options, summary)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
