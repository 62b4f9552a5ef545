"""The whole road from labelled photos to a head that is ready: fine-tune only if it pays.

    python pipelines/transfer.py DATA --to transferred --time-budget 30min

Embeds DATA with a frozen backbone and asks `embedpipe.advise`, which may train networks on a part of the labels for
the time budget. If fine-tuning is recommended, or the forecast is still open and the expected gain is above --min-gain,
it trains, and embeds DATA anew with the new backbone if that is better on the validation rows. Otherwise it fits the
best head on the frozen features, which is measured on a declared test split, or by folds. A network that was trained is
compared with a head on test rows, which are read once, at the end. --to gets the stores, the head and result.json; a
second run continues. DATA is a folder of photos, a table of texts, or anything else that `embedpipe.embed` takes.

Exit codes: 0 done; 3 done, but some items failed; 2 bad usage; 1 any other error.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import embedpipe
from embedpipe.statistics import percent

SOME_FAILED = 3
TRAINING = ("epochs", "learning_rate", "batch_size", "seed", "min_gain", "near_duplicates")


def cosine_or_off(text: str) -> float | str:
    """Return the value of --near-duplicates."""
    return text if text == "off" else float(text)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="photos with one folder per class, a table of texts, or others with labels")
    parser.add_argument("--text", metavar="COLUMN", help="of a table of texts (default: found)")
    parser.add_argument("--label", metavar="COLUMN", help="of a table (default: label)")
    parser.add_argument("--to", type=Path, default=Path("transferred"), metavar="FOLDER", help="default: %(default)s")
    parser.add_argument("--backbone", default="", help="default: that of `embedpipe embed`")
    parser.add_argument("--weights", default="default", help="none, default (published), or the model's file or folder")
    cosine = {"type": cosine_or_off, "metavar": "COSINE", "help": "or off (default: %(default)s)"}
    parser.add_argument("--near-duplicates", default=0.95, **cosine)
    parser.add_argument("--time-budget", metavar="TIME", help="such as 30min: train networks to find out if it pays")
    parser.add_argument("--min-gain", type=float, help="smallest gain of accuracy that is worth it (default: 0.01)")
    parser.add_argument("--epochs", type=int, help="of a network (default: that of `embedpipe finetune`)")
    parser.add_argument("--learning-rate", type=float, metavar="RATE")
    parser.add_argument("--batch-size", type=int, metavar="N")
    parser.add_argument("--seed", type=int)
    arguments = parser.parse_args()
    if arguments.to.resolve().is_relative_to(Path(arguments.data).resolve()):
        parser.error(f"--to must not be inside {arguments.data}, got {arguments.to}: its files would count as data")
    return arguments


def embed(arguments: argparse.Namespace, name: str, backbone: str, weights: str = "default") -> embedpipe.FeatureStore:
    """Update a store of the data, and print the counts."""
    given = {"backbone": backbone, "text": arguments.text, "label": arguments.label}
    options: dict[str, Any] = {option: value for option, value in given.items() if value}
    store = embedpipe.embed(arguments.data, arguments.to / name, weights=weights, **options)
    run = store.summary
    print(f"{name}: {run.embedded:,} embedded, {run.reused:,} reused, {run.failed:,} failed")
    return store


def decide(store: embedpipe.FeatureStore, arguments: argparse.Namespace) -> embedpipe.Advice:
    """Forecast the gain of fine-tuning, fine-tune if it pays, and print why."""
    chosen = {name: getattr(arguments, name) for name in TRAINING if getattr(arguments, name) is not None}
    if Path(arguments.weights).exists():
        chosen["weights"] = arguments.weights
    advice = embedpipe.advise(store, to=arguments.to / "advice", time_budget=arguments.time_budget, act=True, **chosen)
    print(f"\nrecommendation: {advice.recommendation}", *advice.sentences(), sep="\n  ")
    return advice


def fit_best_head(store: embedpipe.FeatureStore, advice: embedpipe.Advice, to: Path) -> dict[str, Any]:
    """Fit the best head on frozen features; return where it is and how accurate on rows that it was not fitted on."""
    best = advice.frozen_baselines.best
    name = best.head.rsplit(" ", 1)[-1]  # "normalised logreg" is no head of its own
    head = embedpipe.fit(store, name, to=to, task="classification", layer="+".join(best.layers))
    accuracy = head.report.metrics.get("accuracy", [])
    mean = sum(accuracy) / len(accuracy) if accuracy else None
    return {"backbone": best.backbone, "head": str(to), "accuracy": mean, "measured": head.report.protocol}


def main() -> int:
    """Embed, decide, fit or fine-tune, report, and return the exit code."""
    arguments = parse_arguments()
    store = embed(arguments, "frozen.features", arguments.backbone, arguments.weights)
    advice = decide(store, arguments)
    network = advice.network
    failed = store.summary.failed + (0 if network is None else len(network.failed))
    compared_on = "" if network is None else f"{network.test.rows:,} test rows"
    if network is not None and network.best_epoch > 0:
        failed += embed(arguments, "tuned.features", network.backbone_name).summary.failed
        chosen = {"backbone": network.backbone_name, "head": network.head, "accuracy": network.test.finetuned}
        chosen["measured"] = compared_on
    else:
        if network is not None:
            print("\na network was trained and is not kept: the head is better on the validation rows")
        chosen = fit_best_head(store, advice, arguments.to / "head")
    if network is not None:
        chosen |= {"head_accuracy": network.test.linear_probe, "head_measured": compared_on}
    shown = "not measured" if chosen["accuracy"] is None else f"{percent(chosen['accuracy'])} on {chosen['measured']}"
    print(f"\nchosen: {chosen['backbone']}, head {chosen['head']}\n  accuracy {shown}")
    if "head_accuracy" in chosen:
        print(f"  a head on the frozen backbone: {percent(chosen['head_accuracy'])} on {chosen['head_measured']}")
    if advice.next_step is not None and advice.recommendation == "find out first":
        print(f"not decided yet: --time-budget {advice.next_step.options['time_budget']} may decide")
    result = {"recommendation": advice.recommendation, "chosen": chosen, "advice": advice.to_dict()}
    (arguments.to / "result.json").write_text(json.dumps(result, indent=2), encoding="utf-8")
    print(arguments.to / "result.json")
    return SOME_FAILED if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except embedpipe.EmbedpipeError as error:
        print(f"transfer: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
