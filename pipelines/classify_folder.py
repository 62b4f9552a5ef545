"""Fit a classifier on the photos in LABELLED, a folder with one folder per class, and classify the photos in NEW.

    python pipelines/classify_folder.py labelled_photos new_photos --to classified

--to gets the vectors of both folders, the head, confusion.png (of photos that the head was not fitted on) and
predictions.csv with one row per new photo, failed ones included. The photos are only read. Run it again after photos
were added, removed or changed, or with another NEW: it embeds only new photos, and fits the head again only if the
labelled photos changed.

Exit codes: 0 done; 3 done, but some photos failed; 2 bad usage (a folder or the labels are missing); 1 any other
error.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import zlib
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

import embedpipe
from embedpipe.report import draw_confusion, write_table

DONE, SOME_FAILED = 0, 3
FOLDS = 5
FAILURES_SHOWN = UNCERTAIN_SHOWN = 10


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    text, _, epilog = (__doc__ or "").partition("\n\n")
    as_written = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=text, epilog=epilog, formatter_class=as_written)
    parser.add_argument("labelled", help="photos in one folder per class, or any other source with labels")
    parser.add_argument("new", help="photos to classify: a folder, or any other source")
    parser.add_argument("--to", type=Path, default=Path("classified"), metavar="FOLDER", help="default: classified")
    parser.add_argument("--head", default="logreg", help="logreg (default), ridge, lda, centroid or knn")
    parser.add_argument("--backbone", help="default: that of `embedpipe embed`")
    arguments = parser.parse_args()
    for source in (arguments.labelled, arguments.new):
        if arguments.to.resolve().is_relative_to(Path(source).resolve()):
            parser.error(f"--to must not be inside {source}, got {arguments.to}: its pictures would count as photos")
    return arguments


def embed_source(source: str, name: str, arguments: argparse.Namespace) -> embedpipe.FeatureStore:
    """Update the store of a source, one store per source, and print the failures."""
    place = source if "://" in source else Path(source).absolute()
    options = {"backbone": arguments.backbone} if arguments.backbone else {}
    to = arguments.to / f"{name}-{zlib.crc32(os.fsencode(place)):08x}.features"
    # force: pruning many rows by mistake costs only the time to embed them again.
    store = embedpipe.embed(source, to=to, prune=True, force=True, **options)
    failed = store.failures()
    run = store.summary
    counts = f"{run.embedded:,} embedded, {run.reused:,} reused, {run.pruned:,} removed, {run.failed:,} failed"
    print(f"{name} photos of {source}: {counts}")
    for row in failed.slice(0, FAILURES_SHOWN).to_pylist():
        print(f"  failed: {row['id']}: {row['message']}", file=sys.stderr)
    if failed.num_rows > FAILURES_SHOWN:
        print(f"  ... and {failed.num_rows - FAILURES_SHOWN:,} more", file=sys.stderr)
    return store


def current_head(folder: Path, name: str, store: embedpipe.FeatureStore) -> embedpipe.Head | None:
    """Return the saved head if it has this name and was fitted on this version of the store."""
    try:
        head = embedpipe.load_head(folder)
    except embedpipe.EmbedpipeError:
        return None
    return head if head.name == name and head.is_of(store) else None


def fit_head(store: embedpipe.FeatureStore, name: str, to: Path) -> embedpipe.Head:
    """Fit and save a head. If a class has fewer than five photos, fewer folds measure it."""
    labels = store.to_arrow(["label"])["label"] if "label" in store.data_columns else pa.array([], pa.string())
    fewest = min((pair["counts"] for pair in pc.value_counts(labels.drop_null()).to_pylist()), default=0)
    folds = min(FOLDS, fewest) if fewest > 1 else 0
    if 0 < folds < FOLDS:
        print(f"measuring with {folds} folds: the smallest class has {fewest} photos")
    return embedpipe.fit(store, name, to=to, task="classification", folds=folds)


def print_metrics(head: embedpipe.Head) -> None:
    """Print the metrics on photos that the head was not fitted on, beside always predicting the most frequent class."""

    def cell(values: list[float]) -> str:
        return f"{statistics.fmean(values):.3f}" + (f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else "")

    report = head.report
    left_out = "".join(f"; left out: {count:,} {reason}" for reason, count in report.left_out.items())
    print(f"\n{head.name}, fitted on {report.rows:,} photos of {len(head.classes)} classes{left_out}")
    if not report.metrics:
        print("  not measured: a class has a single photo; add photos to measure the head")
        return
    print(f"  {f'{report.protocol}, {report.measured_rows:,} photos':40}{'the head':>16}{'most frequent class':>22}")
    for name, values in report.metrics.items():
        print(f"  {name.replace('_', ' '):40}{cell(values):>16}{cell(report.baseline[name]):>22}")


def main() -> int:
    """Embed, fit, predict, and return the exit code."""
    arguments = parse_arguments()
    to = arguments.to
    labelled = embed_source(arguments.labelled, "labelled", arguments)
    head = current_head(to / "head", arguments.head, labelled) or fit_head(labelled, arguments.head, to / "head")
    print_metrics(head)
    if confusion := head.report.confusion:
        titles = {"title": f"{head.name}: {Path(arguments.labelled).name}", "subtitle": head.report.protocol}
        draw_confusion(confusion, head.report.classes, to / "confusion.png", **titles)
    print()
    new = embed_source(arguments.new, "new", arguments)
    predicted = head.predict(new)
    good = predicted.filter(predicted["error"].is_null())
    if good.num_rows:
        print("\nleast certain, check these first:")
        for row in good.sort_by("margin").slice(0, UNCERTAIN_SHOWN).to_pylist():
            print(f"  {row['id']}: {row['label']}, or {row['second']} ({row['margin']:.3f} behind)")
    write_table(predicted, to / "predictions.csv")
    print(f"\n{good.num_rows:,} predicted, {predicted.num_rows - good.num_rows:,} failed: {to / 'predictions.csv'}")
    return SOME_FAILED if labelled.summary.failed or new.summary.failed else DONE


if __name__ == "__main__":
    try:
        sys.exit(main())
    except embedpipe.EmbedpipeError as error:
        print(f"classify_folder: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
