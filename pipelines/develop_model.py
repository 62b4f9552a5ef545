"""Fine-tune a backbone on many labelled SOURCE photos, and use it, frozen, for a TARGET task with few labels.

    python pipelines/develop_model.py --source catalogue_photos --target my_photos --per-class 10

Both are folders with one folder per class; their classes may differ. The fine-tuned and the plain backbone both embed
the target. A head on each is fitted on the same few labelled photos, and measured on the same other photos: those of
the target's test split, if it has one. Photos that the target also has are left out of the source. --to gets the
stores, the backbone and result.json; a second run continues. Exit codes: 0; 3 photos failed; 2 bad usage; 1 other.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

import embedpipe
from embedpipe.sources import open_source
from embedpipe.statistics import percent

SOME_FAILED, FAILURES_SHOWN = 3, 5


def cosine_or_off(text: str) -> float | str:
    """Return the value of --near-duplicates."""
    return text if text == "off" else float(text)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", required=True, help="many labelled photos of a related task")
    parser.add_argument("--target", required=True, help="photos of the target task")
    parser.add_argument("--to", type=Path, default="developed-model", metavar="FOLDER", help="default: %(default)s")
    parser.add_argument("--backbone", default="timm/tf_efficientnet_lite0", help="default: %(default)s")
    parser.add_argument("--weights", default="default", help="none: random weights; default: published weights")
    parser.add_argument("--photos", type=int, default=500, metavar="N", help="source photos (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=3, help="epochs on the source (default: %(default)s)")
    parser.add_argument("--learning-rate", type=float, metavar="RATE", help="default: that of `embedpipe finetune`")
    parser.add_argument("--per-class", type=int, default=10, metavar="N", help="labels a class (default: %(default)s)")
    parser.add_argument("--test", type=int, default=500, metavar="N", help="test photos (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the samples and the training (default: 0)")
    parser.add_argument("--near-duplicates", type=cosine_or_off, default=0.95, help="default: %(default)s")
    arguments = parser.parse_args()
    if any(arguments.to.resolve().is_relative_to(Path(x).resolve()) for x in (arguments.source, arguments.target)):
        parser.error(f"--to must not be inside a folder of photos, got {arguments.to}")
    if min(arguments.photos, arguments.per_class, arguments.test) < 1 or not 0 <= arguments.seed < 2**32:
        parser.error("--photos, --per-class and --test must be >= 1, and --seed >= 0 and < 2^32")
    return arguments


def list_labelled(source: str) -> pa.Table:
    """Return id, image (path), label and split of the labelled photos of a source."""
    table = open_source(source).table.select(["id", "uri", "label", "split"])
    table = table.filter(pc.and_(pc.is_valid(table["label"]), pc.is_valid(table["uri"])))
    if pc.count_distinct(table["label"]).as_py() < 2:
        raise ValueError(f"{source} must have labelled photos of two classes: make one folder per class")
    return table.rename_columns(["id", "image", "label", "split"])


def draw(table: pa.Table, rows: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Return at most ``count`` of ``rows``, with the classes as even as possible."""
    labels, turn = np.asarray(table["label"])[rows], np.empty(len(rows))
    for label in np.unique(labels):
        turn[labels == label] = rng.permutation((labels == label).sum())
    return rows[np.argsort(turn + rng.random(len(rows)) / 2)[:count]]


def draw_target(table: pa.Table, arguments: argparse.Namespace) -> pa.Table:
    """Return the target's labelled photos to train on and to measure on, marked in the column ``split``."""
    rng, rows, classes = np.random.default_rng(arguments.seed), np.arange(len(table)), pc.unique(table["label"])
    in_test = np.asarray(pc.fill_null(pc.equal(pc.utf8_lower(table["split"]), "test"), False))
    few = draw(table, rows[~in_test], arguments.per_class * len(classes), rng)
    test = draw(table, rows[in_test] if in_test.any() else np.setdiff1d(rows, few), arguments.test, rng)
    if not len(test):
        raise ValueError(f"{arguments.target} has no photos left to measure on: lower --per-class")
    split = pa.array(["train"] * len(few) + ["test"] * len(test))
    return table.take(np.concatenate([few, test])).drop_columns("split").append_column("split", split)


def embed_rows(table: pa.Table, to: Path, **backbone: str | None) -> embedpipe.FeatureStore:
    """Update the store of these photos, and print the failures."""
    store = embedpipe.embed(table, to, prune=True, force=True, **backbone)
    failed, run = store.failures().slice(0, FAILURES_SHOWN).to_pylist(), store.summary
    counts = f"{to}: {run.embedded:,} embedded, {run.reused:,} reused, {run.failed:,} failed"
    print(counts, *(f"{row['id']}: {row['message']}" for row in failed), sep="\n  ")
    return store


def develop(source: embedpipe.FeatureStore, arguments: argparse.Namespace) -> embedpipe.FineTuneResult:
    """Fine-tune on the source, and print the accuracies before and after."""
    name = arguments.backbone
    options = {option: getattr(arguments, option) for option in ("epochs", "learning_rate", "seed", "near_duplicates")}
    options["weights"] = name.removeprefix("checkpoint/") if name.startswith("checkpoint/") else "default"
    options["batch_norm"] = "trained" if arguments.weights == "none" else "frozen"  # none: no statistics to keep
    result = embedpipe.finetune(source, to=arguments.to / "developed", trust=name.startswith("python:"), **options)
    print(f"\ntrained on {result.train_rows:,} photos of the source for {result.seconds:,.0f} s on {result.device}")
    before, after = percent(result.test.linear_probe), percent(result.test.finetuned)
    print(f"  accuracy on {result.test.rows:,} other photos: {before} before, {after} after")
    print(f"  kept: epoch {result.best_epoch} of {len(result.epochs) - 1} (0 is the plain backbone)")
    return result


def compare(stores: dict[str, embedpipe.FeatureStore], near: float | str) -> dict[str, object]:
    """Print and return the accuracy of a head on each backbone on the target's test photos."""
    result = embedpipe.evaluate(list(stores.values()), heads=["logreg"], metric="accuracy", near_duplicates=near)
    test, classes = pc.count_distinct(result.predictions["id"]).as_py(), len(result.classes)
    print(f"\n{result.rows - test:,} labelled photos of {classes} classes, {test:,} to measure on; accuracy:")
    print(f"  {'most frequent class':28}{percent(result.baseline['accuracy']):>8}")
    accuracies = {candidate.store: candidate.estimates["accuracy"] for candidate in result.candidates}
    for name, each in ((name, accuracies[store.path]) for name, store in stores.items()):
        value, low, high = map(percent, (each.value, each.low, each.high))
        print(f"  {f'head on {name} backbone':28}{value:>8}   ({low} to {high})")
    second = result.candidates[1]  # its difference is to the best, whichever that is
    gap, sign = second.difference.estimate, 1 if second.store == stores["developed"].path else -1
    low, gain, high = sorted(100 * sign * end for end in (gap.low, gap.value, gap.high))
    print(f"  {'developed less plain':28}{gain:+6.1f} points ({low:+.1f} to {high:+.1f}; paired, 95 %)")
    better = "the developed backbone" if low > 0 else "the plain backbone" if high < 0 else "neither (may be chance)"
    print(f"better: {better}, with these labelled photos; --seed draws others", *result.notes, sep="\n  note: ")
    return {"gain": gain, "low": low, "high": high, "evaluation": result.to_dict()}


def main() -> int:
    """Embed the source, fine-tune on it, embed the target twice, compare, and return the exit code."""
    arguments = parse_arguments()
    to, plain = arguments.to, {"backbone": arguments.backbone, "weights": arguments.weights}
    photos = list_labelled(arguments.source)
    rows = draw(photos, np.arange(len(photos)), arguments.photos, np.random.default_rng(arguments.seed))
    target = draw_target(list_labelled(arguments.target), arguments)
    source = embed_rows(photos.take(rows).drop_columns("split"), to / "source.features", **plain)
    before = embed_rows(target, to / "target-plain.features", **plain)
    about, known = source.to_arrow(["id", "content_hash"]), before.to_arrow(["content_hash"])["content_hash"]
    if copies := about.filter(pc.is_in(about["content_hash"], value_set=known.combine_chunks()))["id"].to_pylist():
        print(f"  left out of the source, because the target has them: {len(copies):,}")
        source.remove(copies)
    run = develop(source, arguments)
    arch = arguments.backbone if arguments.backbone.startswith("python:") else None  # a checkpoint never names code
    after = embed_rows(target, to / "target-developed.features", backbone=run.backbone_name, arch=arch)
    compared = compare({"plain": before, "developed": after}, arguments.near_duplicates)
    (to / "result.json").write_text(json.dumps({"training": run.to_dict(), **compared}, indent=2), encoding="utf-8")
    print(f"\n{to / 'result.json'}; the backbone: {run.backbone_name}")
    return SOME_FAILED if any(store.summary.failed for store in (source, before, after)) else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (embedpipe.EmbedpipeError, ValueError) as error:
        print(f"develop_model: {error}", file=sys.stderr)
        sys.exit(getattr(error, "exit_code", 2))
