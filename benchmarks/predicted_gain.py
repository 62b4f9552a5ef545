"""Is the advice right on data of our own? Forecasts from a pilot, and what fine-tuning then gains.

    python benchmarks/predicted_gain.py STORE[:COLUMN]... --to FOLDER [--full 250 500] [--seeds 3] [--epochs 10]
                                        [--learning-rate 3e-4] [--weights FILE]
    python benchmarks/predicted_gain.py --to FOLDER --summarise [--json FILE]

A *cell* is a store of images or texts, a label column, and a number of labels, one of ``--full``. The pilot has an
eighth and a quarter of them, as `advise` plans it, as far as that gives each class four rows. LP-FT and the linear
probe learn from the same draws, ``--seeds`` of each number of labels, and are measured on the test rows. Runs are kept
in FOLDER, an interrupted call continues, and each cell is written to ``FOLDER/results`` as one JSON file.

``--summarise`` prints all cells in ``FOLDER/results``: the forecast from published pairs and the pilot, with the probe
at the full number of labels as its ceiling; the decision at a probability of 0.9; the realised gain, which the forecast
does not know. A decision is *right* if the mean gain over the seeds is above one point and it was "fine-tune", or not
above and "stay". A *tie* is a cell whose 95 % interval of the realised gain, by the pooled spread of the seeds and by
the test rows, holds one point.

*Regret*: points lost against the better of probe and network, with the time of what was trained at 0, 0.1, 1 or 10
points an hour. Following the forecast is what `advise --act` does once the runs of the pilot are done: what the
forecast is sure of, and where it is still open fine-tuning if the expected gain is above what is asked for. Once with
--point-worth, which then asks for the gain that pays for the time, and once as it is by default, with --min-gain of one
point. Trainings keep the network or the probe by their validation rows, as `finetune` does, so "always" does, too.
The time of the pilot counts. Beside it: never, and where c x the probe's error exceeds the cost, with the c that fits
the published pairs best.

*Ledger*: the same forecasts where `advise` remembers the full runs on the other data, as its ledger does. They are of
the gain as it is measured, with the error of so few test rows and draws, and the interval score is that of the 80 %
intervals.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from common import make_parser, markdown_table, points, write_json
from gain_forecast import interval_score, read_pairs

import embedpipe
from embedpipe.finetuning.advice.experiments import Evidence
from embedpipe.finetuning.advice.forecasting.forecast import Forecast, forecast_gain
from embedpipe.finetuning.advice.forecasting.gain_model import Observed, Setting
from embedpipe.finetuning.advice.forecasting.measurement import expected_variance, observe
from embedpipe.finetuning.advice.forecasting.pretraining import pretraining_of
from embedpipe.finetuning.advice.pilot import LEARNERS, pilot_runs
from embedpipe.finetuning.advice.verdict import judge
from embedpipe.finetuning.benchmark.label_sampling import smallest_label_count
from embedpipe.finetuning.benchmark.paired_runs import PilotRun, summarise_runs
from embedpipe.finetuning.options import SplitOptions
from embedpipe.finetuning.split_rows import read_split_rows
from embedpipe.statistics import Estimate, wilson

MIN_GAIN = 0.01
#: Points of accuracy, as fractions, that an hour of training is worth.
HOUR_COSTS = (0.0, 0.001, 0.01, 0.1)


@dataclass(frozen=True)
class MeasuredCell:
    """The runs of a cell: those with ``labels`` labels, and those of its pilot, which have fewer."""

    data: str
    label: str
    modality: str
    backbone: str
    pretraining: str | None
    labels: int
    classes: int
    test_rows: int
    runs: list[PilotRun]

    @property
    def pilot(self) -> list[PilotRun]:
        """The runs that the forecast may know."""
        return [run for run in self.runs if run.labels < self.labels]

    @property
    def full(self) -> list[PilotRun]:
        """The runs on all labels."""
        return [run for run in self.runs if run.labels == self.labels]

    @property
    def probe(self) -> float:
        """The probe's accuracy on all labels."""
        return float(np.mean([run.probe for run in self.full]))

    @property
    def realised(self) -> Estimate:
        """The gain on all labels, with its 95 % interval."""
        return summarise_runs(self.runs, self.labels, self.test_rows, self.test_rows).gain.interval()

    @property
    def is_tie(self) -> bool:
        """Whether the realised gain does not differ from the minimum gain."""
        return self.realised.low <= MIN_GAIN <= self.realised.high

    @property
    def setting(self) -> Setting:
        """What the forecast knows without runs."""
        return Setting(self.probe, self.labels, self.classes, self.pretraining)

    def forecast(self, runs: Sequence[PilotRun], ledger: Sequence[Observed] = ()) -> Forecast:
        """Return the forecast that knows some runs, and some on other data."""
        return Evidence(self.setting, list(runs), self.test_rows, MIN_GAIN, ledger=list(ledger)).forecast()

    def forecast_measured(self, runs: Sequence[PilotRun], ledger: Sequence[Observed] = ()) -> Forecast:
        """Return the forecast of the gain as it is measured, on so many test rows and draws of labels."""
        observed = Evidence(self.setting, list(runs), self.test_rows, MIN_GAIN, ledger=list(ledger)).observed
        error = self.remembered().variance
        return forecast_gain(self.setting, observed, min_gain=MIN_GAIN, measurement_variance=error)

    def remembered(self) -> Observed:
        """Return the full runs as the ledger keeps them."""
        network = float(np.mean([run.finetuned for run in self.full]))
        variance = expected_variance(len(self.full), self.test_rows)
        return observe(self.setting, network, variance, self.test_rows, self.data, self.backbone)

    def proved(self) -> str:
        """Return the decision of the strict rule on the pilot."""
        ceiling = Estimate(*wilson(round(self.probe * self.test_rows), self.test_rows))
        return judge(
            self.pilot,
            probe_accuracy=ceiling,
            total_labels=self.labels,
            test_rows=self.test_rows,
            min_gain=MIN_GAIN,
        ).decision


def measure(path: str, label: str, options: argparse.Namespace) -> None:
    """Run the cells of a store, and write their results."""
    store = embedpipe.FeatureStore(path)
    weights: dict[str, Any] = {}
    if store.spec.provider == "checkpoint":
        if options.weights is None:
            raise SystemExit(f"{store.path} was embedded with a checkpoint. Give its file with --weights")
        weights["weights"] = str(options.weights)
    split = read_split_rows(store, label, SplitOptions())
    pool = np.concatenate([split.train, split.validation])
    least = smallest_label_count(split.y, pool)
    for labels in options.full:
        counts = sorted({count for count in (labels // 8, labels // 4) if count >= least})
        if not counts or labels > len(pool):
            print(f"{path}, {label}: no cell of {labels} labels: a pilot needs {least}, and {len(pool)} are there")
            continue
        result = embedpipe.benchmark(
            store,
            to=options.to / f"{Path(path).stem}-{label}",
            label=label,
            learners=LEARNERS,
            label_counts=(*counts, labels),
            seeds=options.seeds,
            epochs=options.epochs,
            learning_rate=options.learning_rate,
            corruptions=("none",),
            progress=True,
            **weights,
        )
        cell = MeasuredCell(
            data=Path(path).stem,
            label=label,
            modality=store.spec.modality,
            backbone=f"{store.spec.provider}/{store.spec.name}",
            pretraining=pretraining_of(store.spec),
            labels=labels,
            classes=len(split.classes),
            test_rows=result.test_rows,
            runs=pilot_runs(result),
        )
        file = options.to / "results" / f"{cell.data}-{label}-{labels}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(asdict(cell), indent=1) + "\n", encoding="utf-8")


def read_cells(folder: Path) -> list[MeasuredCell]:
    """Return the cells in a folder, by the name of their file."""
    cells = []
    for file in sorted(folder.glob("*.json")):
        fields = json.loads(file.read_text(encoding="utf-8"))
        fields["runs"] = [PilotRun(**run) for run in fields["runs"]]
        cells.append(MeasuredCell(**fields))
    return cells


def summarise(cells: Sequence[MeasuredCell]) -> dict[str, Any]:
    """Print forecasts, realised gains and regret."""
    rows = [["data, label", "labels", "probe, %", "from published pairs", "with the pilot", "probability"]]
    rows[0] += ["decision", "proved", "realised", ""]
    outcomes = []
    for cell in cells:
        before, after = cell.forecast([]), cell.forecast(cell.pilot)
        measured = cell.forecast_measured(cell.pilot).gain
        gains = cell.realised.value > MIN_GAIN
        decided = after.recommendation != "find out first"
        right = decided and (after.recommendation == "fine-tune") == gains
        outcome = "open" if not decided else "right" if right else "wrong"
        outcomes.append(
            {
                **{name: getattr(cell, name) for name in ("data", "label", "modality", "labels", "probe", "is_tie")},
                "before": asdict(before),
                "after": asdict(after),
                "inside": measured.low <= cell.realised.value <= measured.high,
                "decision": after.recommendation,
                "choice": after.choice,
                "chosen rightly": (after.choice == "fine-tune") == gains,
                "proved": cell.proved(),
                "realised": asdict(cell.realised),
                "outcome": outcome,
            }
        )
        rows.append(
            [
                f"{cell.data}, {cell.label}",
                f"{cell.labels:,}",
                f"{100 * cell.probe:.1f}",
                in_points(before.gain),
                in_points(after.gain),
                f"{before.probability:.2f} → {after.probability:.2f}",
                after.recommendation if decided else f"{after.recommendation} (else {after.choice})",
                outcomes[-1]["proved"],
                in_points(cell.realised),
                f"{outcome}{', tie' if cell.is_tie else ''}",
            ]
        )
    print(markdown_table(rows) + "\n")
    decided = [each for each in outcomes if each["outcome"] != "open"]
    count_right(decided, len(cells), "all")
    count_right([each for each in decided if not each["is_tie"]], sum(not cell.is_tie for cell in cells), "no tie")
    chosen = sum(each["chosen rightly"] for each in outcomes)
    print(f"what --act ends with if nothing else is found out is right in {chosen} of {len(cells)} cells")
    inside = sum(each["inside"] for each in outcomes)
    print(f"{inside} of {len(cells)} realised gains lie in the 80 % intervals of what is measured\n")
    return {"cells": outcomes, "regret": measure_regret(cells), "ledger": measure_ledger(cells)}


def count_right(decided: Sequence[dict[str, Any]], cells: int, name: str) -> None:
    """Print how many cells were decided, and how many of these decisions are right."""
    right = sum(each["outcome"] == "right" for each in decided)
    share = Estimate(*wilson(right, len(decided))) if decided else Estimate(0.0, 0.0, 1.0)
    interval = f"{share.value:.0%} ({share.low:.0%} to {share.high:.0%})"
    print(f"{name}: {len(decided)} of {cells} cells decided, {right} of these right: {interval}")


def measure_regret(cells: Sequence[MeasuredCell]) -> dict[str, dict[str, float]]:
    """Print the mean regret of each way to decide, in points."""
    pairs = read_pairs()
    factor = float(np.median([pair.gain / (1 - pair.setting.accuracy) for pair in pairs]))
    regret: dict[str, dict[str, float]] = {}
    rows = [["", *(f"an hour at {100 * cost:g} points" for cost in HOUR_COSTS)]]
    for cost in HOUR_COSTS:
        column: dict[str, list[float]] = {}
        for cell in cells:
            network, pilot = (sum(run.seconds for run in runs) / 3600 for runs in (cell.full, cell.pilot))
            network /= len(cell.full)
            gain, price = cell.realised.value, cost * network
            choices: dict[str, tuple[bool, float]] = {}
            for name, runs, spent in (("with a pilot", cell.pilot, pilot), ("without", [], 0.0)):
                forecast = cell.forecast(runs)
                by_costs = replace(forecast, break_even=price).choice
                choices[f"the forecast {name}, time's worth given"] = by_costs == "fine-tune", spent
                choices[f"the forecast {name}, by default"] = forecast.choice == "fine-tune", spent
            choices |= {
                "always fine-tune": (True, 0.0),
                "never": (False, 0.0),
                "c x error": (factor * (1 - cell.probe) > price, 0.0),
            }
            for name, (tunes, spent) in choices.items():
                lost = max(gain - price, 0.0) - (gain - price if tunes else 0.0) + cost * spent
                column.setdefault(name, []).append(100 * lost)
        for name, losses in column.items():
            regret.setdefault(name, {})[f"{cost:g}"] = float(np.mean(losses))
    rows += [[name, *(f"{value:.2f}" for value in values.values())] for name, values in regret.items()]
    print(f"mean regret in points; c = {factor:.2f}\n\n{markdown_table(rows)}")
    return regret


def measure_ledger(cells: Sequence[MeasuredCell]) -> list[dict[str, Any]]:
    """Print how good the forecasts are without the runs on other data, and with them."""
    results = []
    for with_pilot in (False, True):
        for with_ledger in (False, True):
            errors, scores, intervals, decided, right = [], [], [], 0, 0
            for cell in cells:
                known = [other.remembered() for other in cells if other.data != cell.data] if with_ledger else []
                forecast = cell.forecast_measured(cell.pilot if with_pilot else [], known)
                gain, gains = cell.realised.value, cell.realised.value > MIN_GAIN
                errors.append(100 * abs(forecast.gain.value - gain))
                scores.append((forecast.probability - gains) ** 2)
                intervals.append(100 * interval_score(forecast, gain))
                decided += (decides := forecast.recommendation != "find out first")
                right += decides and (forecast.recommendation == "fine-tune") == gains
            results.append(
                {
                    "pilot": with_pilot,
                    "ledger": with_ledger,
                    "error": float(np.mean(errors)),
                    "brier": float(np.mean(scores)),
                    "interval": float(np.mean(intervals)),
                    "decided": decided,
                    "right": right,
                }
            )
    rows = [["pilot", "ledger", "mean absolute error, points", "interval score, points", "Brier score"]]
    rows[0] += ["decided", "right"]
    for each in results:
        words = ["yes" if each[name] else "no" for name in ("pilot", "ledger")]
        figures = [f"{each['error']:.2f}", f"{each['interval']:.1f}", f"{each['brier']:.3f}"]
        rows.append([*words, *figures, str(each["decided"]), str(each["right"])])
    print(f"\n{markdown_table(rows)}")
    return results


def in_points(difference: Estimate) -> str:
    """Return a difference with its interval, in percentage points."""
    return points(difference.value, difference.low, difference.high)


def main() -> None:
    """Measure, or print what was measured."""
    parser = make_parser(__doc__)
    parser.add_argument("stores", nargs="*", metavar="STORE[:COLUMN]", help="stores, and their label columns (label)")
    parser.add_argument("--to", type=Path, required=True, metavar="FOLDER", help="folder of the runs and results")
    parser.add_argument("--summarise", action="store_true", help="print the cells in FOLDER/results")
    parser.add_argument("--full", type=int, nargs="+", default=[250, 500], help="labels of the cells (250 and 500)")
    parser.add_argument("--seeds", type=int, default=3, help="draws of the labels (default: 3)")
    parser.add_argument("--epochs", type=int, default=10, help="epochs of each training (default: 10)")
    parser.add_argument("--learning-rate", type=float, help="peak learning rate (default: that of `finetune`)")
    parser.add_argument("--weights", type=Path, help="weights of stores that were embedded with a checkpoint")
    options = parser.parse_args()
    if not options.stores and not options.summarise:
        parser.error("give stores to measure, or --summarise")
    for name in options.stores:
        path, _, label = name.partition(":")
        measure(path, label or "label", options)
    if options.summarise:
        write_json(options, summarise(read_cells(options.to / "results")))


if __name__ == "__main__":
    main()
