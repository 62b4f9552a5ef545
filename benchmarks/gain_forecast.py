"""Is the forecast of the gain of fine-tuning right on sources that it was not fitted on?

    python benchmarks/gain_forecast.py [--write] [--json FILE]

Fits the model of `embedpipe.finetuning.advice.forecasting.gain_model` on `data/published_pairs.csv`: published
accuracies of a probe and of the fine-tuned network on the same data and labels. Pairs whose metric is not an accuracy
are left out. All rows on ImageNet-1k are one source, and so are the sources that share VTAB's data sets and weights.

Penalties of the coefficients are fixed. The variances of errors and of sources maximise the marginal likelihood, in
which all rows of a source share an effect, so that a source of 220 rows does not count 220 times.

Each source is left out in turn. Reported: the Brier score of "the gain is above 1 point" against that of always giving
the share of the other sources; the share that came true in each fifth of the probabilities; how many gains lie in the
80 % intervals; the mean absolute error beside that of simpler forecasts. "balanced" weighs each source alike.

*Regret*: points lost against the better of probe and network, where a training costs so many points, and the network is
kept if it is better on a fifth of the labels, as `embedpipe.finetune` does. Following the forecast: fine-tune if the
expected gain is above the cost. Beside it: always, never, and where c x the probe's error is above the cost.

The same with a ledger: the forecast also knows some other pairs of the source, on other data sets, as `advise` knows
the fine-tunings of its user. Interval scores are those of the 80 % intervals, in points: the lower the better.

Then `data/probe_and_finetuned.csv`: 44 pairs at 1, 10 and 100 % of the labels, none of them among those of
the fit. Their gains at 1 and 10 % are a pilot, from which and from the probe at 100 % the gain there is forecast.

Last a bound: how many of these pairs, and of the cells of `predicted_gain.py`, would be decided if pilots at a quarter
of the labels measured their gains without any error (more test rows, more seeds).

``--write`` replaces the fitted model in the package.
"""

from __future__ import annotations

import csv
import json
import math
from collections import defaultdict
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from common import make_parser, markdown_table, write_json
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit
from sklearn.linear_model import Ridge

from embedpipe.finetuning.advice.forecasting import gain_model
from embedpipe.finetuning.advice.forecasting.forecast import Forecast, chance_to_decide, forecast_gain, kept_gain
from embedpipe.finetuning.advice.forecasting.gain_model import GainModel, Observed, Setting, features, logit
from embedpipe.finetuning.advice.forecasting.measurement import expected_variance, observe

Floats = npt.NDArray[np.float64]
PAIRS, SWEEPS = (Path(__file__).parent / "data" / name for name in ("published_pairs.csv", "probe_and_finetuned.csv"))
MIN_GAIN = 0.01
UNKNOWN_ROWS = 1000
#: What a training costs, in accuracy.
PRICES = (0.0, 0.001, 0.005, 0.01, 0.02, 0.05)
#: Sizes of the ledgers that are tried.
LEDGERS = (1, 3, 10, 30)
#: Prior variances: the intercept, the three slopes, the pretrainings.
PRIOR = np.array([4.0, 1, 1, 1, *[0.25] * len(gain_model.PRETRAININGS)])
#: Training rows and classes of the data sets of `SWEEPS`, which gives labels in per cent.
SIZES = {
    "BloodMNIST": (11_959, 8),
    "DermaMNIST": (7_007, 7),
    "ESC-50": (1_600, 50),
    "EuroSAT": (21_600, 10),
    "Imagenette": (9_469, 10),
    "PathMNIST": (89_996, 9),
    "Pets": (3_680, 37),
    "UCI HAR": (7_352, 6),
}
#: Labels, classes, accuracy of the probe and pretraining of the cells of `predicted_gain.py`, by RESULTS.md.
OWN_CELLS = (
    (400, 20, 0.528, "text-lm"),
    (250, 10, 0.710, "cnn-sup"),
    (250, 10, 0.893, "cnn-sup"),
    (500, 10, 0.926, "cnn-sup"),
    (250, 2, 0.989, "cnn-sup"),
    (250, 2, 0.823, "cnn-sup"),
    (250, 10, 0.752, "cnn-sup"),
    (500, 10, 0.784, "cnn-sup"),
    (250, 4, 0.685, "cnn-sup"),
    (832, 52, 0.862, "text-lm"),
    (250, 8, 0.910, "text-lm"),
    (500, 8, 0.930, "text-lm"),
    (250, 2, 0.948, "text-lm"),
    (500, 2, 0.959, "text-lm"),
)
SHARED = {"V-PETL Bench (copies VPT, Jia 2022)", "OSU ViT-PEFT (Mai 2024)", "FourierFT/LoLDU ViT table"}


@dataclass(frozen=True)
class Pair:
    """A published pair; accuracies are fractions."""

    source: str
    dataset: str
    backbone: str
    setting: Setting
    tuned: float
    rows: int

    @property
    def gain(self) -> float:
        """The accuracy of the network less that of the probe."""
        return self.tuned - self.setting.accuracy

    @property
    def logit_gain(self) -> float:
        """The gain on the logit scale."""
        return float(logit(self.tuned) - logit(self.setting.accuracy))

    @property
    def variance(self) -> float:
        """The variance of `logit_gain` by the choice of test rows, as if the two erred independently."""
        return sum(1 / (self.rows * p * (1 - p)) for p in np.clip((self.tuned, self.setting.accuracy), 0.002, 0.998))


def read_pairs() -> list[Pair]:
    """Return the published pairs whose metric is an accuracy."""
    pairs = []
    with PAIRS.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if "AUC" in row["metric"]:
                continue
            kind = row["protocol"].removeprefix("kind=").split(";")[0].strip()
            imagenet = "ImageNet" in row["dataset"] and int(row["labels"]) > 1e6
            source = "ImageNet-1k" if imagenet else "VTAB" if row["source"] in SHARED else row["source"]
            setting = Setting(float(row["probe"]) / 100, int(row["labels"]), int(row["classes"]), kind)
            rows = int(float(row["test_rows"] or UNKNOWN_ROWS))
            tuned = float(row["tuned"]) / 100
            pairs.append(Pair(source, row["dataset"], row["backbone"], setting, tuned, rows))
    return pairs


def read_sweeps() -> dict[tuple[str, ...], list[dict[str, str]]]:
    """Return the rows of `SWEEPS` by source, data set and backbone."""
    cells: dict[tuple[str, ...], list[dict[str, str]]] = defaultdict(list)
    with SWEEPS.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            cells[row["source"], row["dataset"], row["backbone"]].append(row)
    return cells


class Fit:
    """The marginal likelihood of pairs, and the posterior at its maximum."""

    def __init__(self, pairs: list[Pair]) -> None:
        self.X = features([pair.setting for pair in pairs])
        self.y = np.array([pair.logit_gain for pair in pairs])
        self.noise = np.array([pair.variance for pair in pairs])
        sources = sorted({pair.source for pair in pairs})
        data = np.array([f"{pair.source}\n{pair.dataset}" for pair in pairs])
        cells = np.array([f"{pair.source}\n{pair.dataset}\n{pair.backbone}" for pair in pairs])
        self.same_data, self.same_cell = (each[:, None] == each[None, :] for each in (data, cells))
        self.member = np.array([[pair.source == source for source in sources] for pair in pairs], float)

    def parts(self, theta: Floats) -> tuple[Floats, Floats, Floats]:
        """Return the variances of rows, all columns (coefficients, then sources), and their prior variances."""
        log_variance, slope, log_source = theta
        errors = np.exp(log_variance + slope * self.X[:, 1])
        effects = np.sqrt(np.exp(slope * self.X[:, 1]))[:, None] * self.member
        prior = np.concatenate([PRIOR, np.full(self.member.shape[1], np.exp(log_source))])
        return errors + self.noise, np.hstack([self.X, effects]), prior

    def loss(self, theta: Floats) -> float:
        """Return the negative log marginal likelihood, with a weak prior on the slope."""
        variances, columns, prior = self.parts(theta)
        weighted = columns.T / variances
        factor = np.linalg.cholesky(weighted @ columns + np.diag(1 / prior))
        solved = np.linalg.solve(factor, weighted @ self.y)
        squares = (self.y**2 / variances).sum() - solved @ solved
        logs = np.log(variances).sum() / 2 + np.log(np.diag(factor)).sum() + np.log(prior).sum() / 2
        return float(squares / 2 + logs + 2 * theta[1] ** 2)

    def model(self) -> GainModel:
        """Return the model at the maximum."""
        start = np.array([-1.5, 0.0, -1.5])
        theta = minimize(self.loss, start, method="Nelder-Mead", options={"xatol": 0.01, "fatol": 0.01}).x
        variances, columns, prior = self.parts(theta)
        weighted = columns.T / variances
        covariance = np.linalg.inv(weighted @ columns + np.diag(1 / prior))
        mean, k = covariance @ (weighted @ self.y), self.X.shape[1]
        return GainModel(
            coefficients=tuple(np.round(mean[:k], 5).tolist()),
            covariance=tuple(map(tuple, np.round(covariance[:k, :k], 6).tolist())),
            log_variance=round(float(theta[0]), 4),
            slope=round(float(theta[1]), 4),
            source_variance=round(float(np.exp(theta[2] - theta[0])), 4),
            backbone_share=round(self.backbone_share(theta, mean[:k]), 3),
            doublings=DOUBLINGS,
        )

    def backbone_share(self, theta: Floats, coefficients: Floats) -> float:
        """Return the share of the errors' variance by which backbones differ on the same data, by the likelihood.

        The coefficients and the other variances stay: fitted together, the effects of data sets take the place of those
        of sources, and unknown sources are forecast worse.
        """
        log_variance, slope, log_source = theta
        scale = np.exp((log_variance + slope * self.X[:, 1]) / 2)
        source, errors = np.exp(log_source - log_variance) * self.member @ self.member.T, self.y - self.X @ coefficients

        def loss(share: float) -> float:
            shared = source + (1 - share) * self.same_data + share * self.same_cell
            factor = np.linalg.cholesky(np.outer(scale, scale) * shared + np.diag(self.noise))
            return float((np.linalg.solve(factor, errors) ** 2).sum() / 2 + np.log(np.diag(factor)).sum())

        return float(minimize_scalar(loss, bounds=(0, 1), method="bounded", options={"xatol": 0.01}).x)


#: See `gain_model.GainModel.doublings`: by the sweeps of labels that `measure_sweeps` prints.
DOUBLINGS = 4.0


def measure_left_out(pairs: list[Pair]) -> dict[str, Any]:
    """Forecast each source from the others, and print how good that was."""
    sources = np.array([pair.source for pair in pairs])
    names = sorted(set(sources))
    gains = np.array([pair.gain for pair in pairs])
    came_true = gains > MIN_GAIN
    forecasts: list[Any] = [None] * len(pairs)
    base = np.zeros(len(pairs))
    with_ledger: dict[int, list[Any]] = {size: [None] * len(pairs) for size in LEDGERS}
    rng = np.random.default_rng(0)
    for name in names:
        others = [pair for pair in pairs if pair.source != name]
        model = Fit(others).model()
        for i in np.flatnonzero(sources == name):
            forecasts[i] = forecast_gain(
                pairs[i].setting, min_gain=MIN_GAIN, model=model, measurement_variance=pairs[i].variance
            )
            same = [j for j in np.flatnonzero(sources == name) if pairs[j].dataset != pairs[i].dataset]
            drawn = [remembered(pairs[j]) for j in rng.permutation(same)]
            for size, ledger in with_ledger.items():
                ledger[i] = forecast_gain(
                    pairs[i].setting,
                    drawn[:size],
                    min_gain=MIN_GAIN,
                    model=model,
                    measurement_variance=pairs[i].variance,
                )
        base[sources == name] = np.mean([pair.gain > MIN_GAIN for pair in others])
    chance = np.array([each.probability for each in forecasts])
    inside = np.array([each.gain.low <= gain <= each.gain.high for each, gain in zip(forecasts, gains, strict=True)])
    measure_ledgers(pairs, sources, {0: forecasts, **with_ledger})
    simple = simple_forecasts(pairs, sources)
    simple["this model"] = np.array([each.gain.value for each in forecasts])
    balanced = np.array([1 / (sources == source).sum() for source in sources]) / len(names)
    weights = {"pooled": np.full(len(pairs), 1 / len(pairs)), "balanced": balanced}
    results: dict[str, Any] = {
        "regret": measure_regret(pairs, {"the forecast": forecasts}, simple["c x error, median"], balanced)
    }
    rows = [["", "pairs", "Brier score", "base rate's", "less", "in the 80 % interval"]]
    for name, weight in weights.items():
        brier, base_brier = (float(weight @ (each - came_true) ** 2) for each in (chance, base))
        held = float(weight @ inside)
        results[name] = {"brier": brier, "base": base_brier, "inside": held}
        rows.append(
            [name, str(len(pairs)), f"{brier:.4f}", f"{base_brier:.4f}", f"{1 - brier / base_brier:.0%}", f"{held:.1%}"]
        )
    print(markdown_table(rows) + "\n")
    rows = [["forecast", *(f"mean absolute error, {name}" for name in weights)]]
    for name, forecast in simple.items():
        errors = {each: float(weight @ np.abs(forecast - gains)) * 100 for each, weight in weights.items()}
        results.setdefault("errors", {})[name] = errors
        rows.append([name, *(f"{error:.2f}" for error in errors.values())])
    print(markdown_table(rows) + "\n")
    rows = [["fifth", "mean probability", "came true"]]
    for number, fifth in enumerate(np.array_split(np.argsort(chance, kind="stable"), 5)):
        rows.append([str(number + 1), f"{chance[fifth].mean():.3f}", f"{came_true[fifth].mean():.3f}"])
        results.setdefault("fifths", []).append([float(chance[fifth].mean()), float(came_true[fifth].mean())])
    print(markdown_table(rows) + "\n")
    return results


def remembered(pair: Pair) -> Observed:
    """Return a pair as a row of the ledger."""
    variance = expected_variance(1, pair.rows)
    return observe(pair.setting, pair.tuned, variance, pair.rows, pair.dataset, pair.backbone)


def measure_ledgers(pairs: list[Pair], sources: npt.NDArray[Any], forecasts: dict[int, list[Any]]) -> None:
    """Print how good the forecasts are with ledgers of several sizes, on the sources with several data sets."""
    counts = {name: len({pair.dataset for pair in pairs if pair.source == name}) for name in set(sources)}
    kept = np.array([counts[name] > 1 for name in sources])
    gains = np.array([pair.gain for pair in pairs])
    weight = np.array([1 / (sources == name).sum() for name in sources]) * kept
    rows = [["rows of the ledger", "mean absolute error, balanced", "pooled", "interval score, balanced", "pooled"]]
    rows[0] += ["Brier score, balanced", "pooled"]
    rows[0] += ["decided", "of these right", "in the 80 % interval"]
    for size, each in forecasts.items():
        error = np.abs(np.array([forecast.gain.value for forecast in each]) - gains) * 100
        chance = np.array([forecast.probability for forecast in each])
        brier = (chance - (gains > MIN_GAIN)) ** 2
        decided = kept & ((chance >= 0.9) | (chance <= 0.1))
        right = decided & ((chance >= 0.5) == (gains > MIN_GAIN))
        inside = np.array([f.gain.low <= gain <= f.gain.high for f, gain in zip(each, gains, strict=True)])
        scores = np.array([100 * interval_score(f, gain) for f, gain in zip(each, gains, strict=True)])
        means = [np.average(values, weights=by) for values in (error, scores, brier) for by in (weight, kept)]
        figures = [f"{value:.{digits}f}" for value, digits in zip(means, (2, 2, 1, 1, 4, 4), strict=True)]
        rows.append(
            [str(size), *figures, f"{decided.sum()} of {kept.sum()}", str(right.sum()), f"{inside[kept].mean():.0%}"]
        )
    print(markdown_table(rows) + "\n")
    briers = {
        size: (np.array([f.probability for f in each]) - (gains > MIN_GAIN)) ** 2 for size, each in forecasts.items()
    }
    _, data = np.unique([f"{pair.source}\n{pair.dataset}" for pair in pairs], return_inverse=True)
    rng = np.random.default_rng(0)
    for size in LEDGERS:
        difference = briers[size] - briers[0]
        sums, counts = (np.bincount(data[kept], values[kept]) for values in (difference, np.ones(len(pairs))))
        sums, counts = sums[counts > 0], counts[counts > 0]
        draws = rng.integers(len(sums), size=(2000, len(sums)))
        low, high = np.quantile(sums[draws].sum(axis=1) / counts[draws].sum(axis=1), (0.025, 0.975))
        mean = sums.sum() / counts.sum()
        print(
            f"{size} rows, Brier score less that without: {mean:+.4f} ({low:+.4f} to {high:+.4f}, data sets drawn anew)"
        )
    print()


def measure_regret(
    pairs: list[Pair], forecasts: dict[str, list[Forecast]], by_error: Floats, weight: Floats
) -> dict[str, list[float]]:
    """Print the points lost by each way to decide, at each price of a training."""
    gains = np.array([float(kept_gain(pair.setting, pair.gain)) for pair in pairs])
    regret: dict[str, list[float]] = {}
    for price in PRICES:
        choices = {
            name: np.array([replace(each, break_even=price).choice == "fine-tune" for each in some])
            for name, some in forecasts.items()
        }
        choices |= {
            "always fine-tune": np.ones(len(pairs), bool),
            "never": np.zeros(len(pairs), bool),
            "c x error": by_error > price,
        }
        for name, tunes in choices.items():
            lost = np.maximum(gains - price, 0) - np.where(tunes, gains - price, 0)
            regret.setdefault(name, []).append(100 * float(weight @ lost))
    rows = [["mean regret, points", *(f"a training costs {100 * price:g}" for price in PRICES)]]
    rows += [[name, *(f"{value:.2f}" for value in values)] for name, values in regret.items()]
    print(markdown_table(rows) + "\n")
    return regret


def interval_score(forecast: Forecast, gain: float) -> float:
    """Return the width of the 80 % interval, and ten times what the gain is outside of it (Winkler, 1972)."""
    low, high = forecast.gain.low, forecast.gain.high
    return high - low + 10 * max(low - gain, gain - high, 0.0)


def simple_forecasts(pairs: list[Pair], sources: npt.NDArray[Any]) -> dict[str, Floats]:
    """Return forecasts of each source by simple models of the others."""
    X = features([pair.setting for pair in pairs])[:, 1:]
    error, gain, logit_gain = (
        np.array(values)
        for values in zip(*((1 - pair.setting.accuracy, pair.gain, pair.logit_gain) for pair in pairs), strict=True)
    )
    forecasts: dict[str, Floats] = defaultdict(lambda: np.zeros(len(pairs)))
    for source in set(sources):
        test, train = sources == source, sources != source
        forecasts["mean gain"][test] = gain[train].mean()
        forecasts["c x error, least squares"][test] = (
            (gain[train] @ error[train]) / (error[train] @ error[train]) * error[test]
        )
        forecasts["c x error, median"][test] = np.median(gain[train] / error[train]) * error[test]
        ridge = Ridge(1).fit(np.column_stack([X, error])[train], gain[train])
        forecasts["ridge on the gain"][test] = ridge.predict(np.column_stack([X, error])[test])
        for name, columns in (("ridge on the logit gain", X[:, :3]), ("the same with pretraining", X)):
            moved = X[test, 0] + Ridge(1).fit(columns[train], logit_gain[train]).predict(columns[test])
            forecasts[name][test] = expit(moved) - (1 - error[test])
    return dict(forecasts)


def measure_sweeps(model: GainModel) -> dict[str, Any]:
    """Forecast the gain with all labels from the gains with 1 and 10 % of them, and print the outcomes."""
    cells = read_sweeps()
    results = {}
    rows = [
        ["doublings", "with a pilot", "log score", "MAE", "Brier score", "decided", "right", "in the 80 % interval"]
    ]
    for doublings in sorted({3.0, 4.0, 5.0, 8.0, model.doublings}):
        for with_pilot in (False, True):
            scores = [
                _score(cell, GainModel(**{**asdict(model), "doublings": doublings}), with_pilot)
                for cell in cells.values()
            ]
            log_score, error, brier, decided, right, inside = np.array(scores).T
            results[f"{doublings:g} {with_pilot}"] = {"mae": float(error.mean()), "brier": float(brier.mean())}
            rows.append(
                [
                    f"{doublings:g}",
                    "yes" if with_pilot else "no",
                    f"{log_score.mean():.3f}",
                    f"{100 * error.mean():.2f}",
                    f"{brier.mean():.4f}",
                    f"{int(decided.sum())} of {len(cells)}",
                    str(int(right.sum())),
                    f"{inside.mean():.0%}",
                ]
            )
    print(markdown_table(rows) + "\n")
    results["regret"] = _sweep_regret(list(cells.values()), model)
    return results


def _sweep_regret(cells: list[list[dict[str, str]]], model: GainModel) -> dict[str, list[float]]:
    """Print the regret with all labels, following the forecast with the pilot and without it."""
    pairs = read_pairs()
    factor = float(np.median([pair.gain / (1 - pair.setting.accuracy) for pair in pairs]))
    sweeps = [[_sweep_pair(row) for row in sorted(cell, key=lambda row: int(row["labels"]))] for cell in cells]
    full = [last for *_, last in sweeps]
    forecasts = {
        "the forecast with a pilot": [
            forecast_gain(last.setting, _pilot_of(pilot), model=model) for *pilot, last in sweeps
        ],
        "the forecast without": [forecast_gain(last.setting, model=model) for last in full],
    }
    by_error = factor * (1 - np.array([last.setting.accuracy for last in full]))
    return measure_regret(full, forecasts, by_error, np.full(len(full), 1 / len(full)))


def measure_bound(model: GainModel) -> dict[str, float]:
    """Print how many cells are decided by pilots of a quarter of the labels as they are, and by pilots without error.

    The gains of the pilots of the own cells are not needed: the forecast says how probable a decision is.
    """
    cells = list(read_sweeps().values())
    rows, bound = [["pilots", f"decided of the {len(cells)} pairs", f"expected of the {len(OWN_CELLS)} own cells"]], {}
    for name, share in (("as they are", 1.0), ("without error", 1e-6)):
        published = sum(_score(cell, model, with_pilot=True, error=share)[3] for cell in cells)
        own = 0.0
        for labels, classes, accuracy, pretraining in OWN_CELLS:
            full = Setting(accuracy, labels, classes, pretraining)
            quarter = replace(full, labels=labels // 4)
            error = expected_variance(2, labels // 5) / (accuracy * (1 - accuracy)) ** 2
            own += chance_to_decide(full, [], Observed(quarter, 0.0, share * error), MIN_GAIN, model)
        rows.append([name, f"{published:.0f}", f"{own:.1f}"])
        bound[name] = (published + own) / (len(cells) + len(OWN_CELLS))
    print(markdown_table(rows) + "\n")
    return bound


def _pilot_of(pairs: list[Pair], error: float = 1.0) -> list[Observed]:
    return [Observed(pair.setting, pair.logit_gain, error * (pair.variance + 0.02)) for pair in pairs]


def _score(cell: list[dict[str, str]], model: GainModel, with_pilot: bool, error: float = 1.0) -> tuple[float, ...]:
    *pilot, full = sorted(cell, key=lambda row: int(row["labels"]))
    pairs = [_sweep_pair(row) for row in (*pilot, full)]
    observed = _pilot_of(pairs[:-1], error) if with_pilot else []
    last = pairs[-1]
    forecast = forecast_gain(last.setting, observed, min_gain=MIN_GAIN, model=model, measurement_variance=last.variance)
    normal = model.predict(last.setting, observed)
    deviation = math.hypot(normal.deviation, math.sqrt(last.variance))
    log_score = -((last.logit_gain - normal.mean) ** 2) / (2 * deviation**2) - math.log(deviation)
    true = last.gain > MIN_GAIN
    decided = forecast.probability >= 0.9 or forecast.probability <= 0.1
    return (
        log_score,
        abs(forecast.gain.value - last.gain),
        (forecast.probability - true) ** 2,
        decided,
        decided and (forecast.probability >= 0.5) == true,
        forecast.gain.low <= last.gain <= forecast.gain.high,
    )


def _sweep_pair(row: dict[str, str]) -> Pair:
    size, classes = SIZES["UCI HAR" if "UCI HAR" in row["source"] else row["dataset"]]
    kind = "cnn-sup" if row["backbone"].endswith("ImageNet") else None
    setting = Setting(float(row["probe"]) / 100, size * int(row["labels"]) // 100, classes, kind)
    rows, tuned = int(row["test_rows"] or UNKNOWN_ROWS), float(row["tuned"]) / 100
    return Pair(row["source"], row["dataset"], row["backbone"], setting, tuned, rows)


def main() -> None:
    """Fit, measure and print."""
    parser = make_parser(__doc__)
    parser.add_argument("--write", action="store_true", help="replace the fitted model in the package")
    options = parser.parse_args()
    pairs = read_pairs()
    model = Fit(pairs).model()
    results = {"left out": measure_left_out(pairs), "sweeps": measure_sweeps(model), "model": asdict(model)}
    results["bound"] = measure_bound(model)
    if options.write:
        target = Path(gain_model.__file__).with_name(gain_model.FILE)
        target.write_text(json.dumps(asdict(model), indent=1) + "\n", encoding="utf-8")
    write_json(options, results)


if __name__ == "__main__":
    main()
