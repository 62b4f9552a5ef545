"""Make a spam filter from a table of labelled messages, with a guaranteed false-positive rate.

    python pipelines/spam_filter.py sms.tsv --header label,text --false-positives 0.01 --query "you have won"
    python pipelines/spam_filter.py mails.csv --text body --label folder --spam Junk --predict new.csv --to filter

Messages that differ only in case, digits and punctuation are copies; one of them is used. The others are split at
random: 60 % train, 20 % set the threshold, 20 % test. The threshold is the k-th largest score of n ham messages,
k = floor(share * (n + 1)); a message with a higher score is spam. New ham of the same distribution then exceeds it with
at most the given probability, on average over splits, for any scores (split conformal prediction, Vovk et al. 2005).
--to gets vectors, head, threshold.json, decisions.csv. Exit codes: 0; 3 messages failed; 2 bad usage; 1 other errors.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
import zlib
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from scipy.stats import beta, binomtest

import embedpipe
from embedpipe.report import write_table
from embedpipe.statistics import percent

SOME_FAILED, SHOWN, KIND = 3, 5, "spam_or_ham"


def parse_arguments() -> argparse.Namespace:
    """Read the command line; without arguments, print the help."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", metavar="TABLE", help="labelled messages: a CSV, TSV, JSON-lines or Parquet file")
    parser.add_argument("--text", metavar="COLUMN", help="column of the messages; default: text, body, message...")
    parser.add_argument("--label", metavar="COLUMN", default="label", help="default: label")
    parser.add_argument("--spam", metavar="VALUE", default="spam", help="the label that means spam; default: spam")
    parser.add_argument("--header", metavar="A,B", help="names of all columns, if a CSV or TSV file has no header line")
    parser.add_argument("--false-positives", type=Fraction, default="0.01", metavar="SHARE", help="default: 0.01")
    parser.add_argument("--to", type=Path, default="spam-filter", metavar="FOLDER", help="default: spam-filter")
    parser.add_argument("--backbone", help="default: that of `embedpipe embed` for texts")
    parser.add_argument("--query", metavar="TEXT", help="print the messages nearest to this text")
    parser.add_argument("--predict", metavar="NEW", help="classify the messages of another table with the same columns")
    arguments = parser.parse_args(sys.argv[1:] or ["--help"])
    if not 0 < arguments.false_positives < 1:
        parser.error(f"--false-positives must be between 0 and 1, got {float(arguments.false_positives):g}")
    return arguments


def embed_table(table: str, arguments: argparse.Namespace, **options: Any) -> embedpipe.FeatureStore:
    """Update the store of a table (force: a wrong removal costs only time), and print the failures."""
    given = {name: value for name in ("backbone", "header", "text") if (value := getattr(arguments, name))}
    to = arguments.to / f"{Path(table).stem}-{zlib.crc32(bytes(Path(table).absolute())):08x}.features"
    store = embedpipe.embed(table, to, modality="text", prune=True, force=True, **given, **options)
    run, failures = store.summary, store.failures().to_pylist()
    store.remove(row["id"] for row in failures)  # these may have the vector of an earlier version
    counts = f"{table}: {run.embedded:,} messages embedded, {run.reused:,} reused, {run.failed:,} failed"
    print(counts, *(f"{row['id']}: {row['message']}" for row in failures[:SHOWN]), sep="\n  ")
    return store


def split_messages(texts: list[str], hashes: list[str], spam: npt.NDArray[np.bool_]) -> npt.NDArray[Any]:
    """Return the part of each message: train, calibration, test or copy. Stored texts are cut at 1,000 characters."""
    whole = [text if len(text) < 1000 else digest for text, digest in zip(texts, hashes, strict=True)]
    keys = [re.sub(r"\W+", " ", re.sub(r"\d+", "0", text.casefold())).strip() or text for text in whole]
    _, first = np.unique(np.array(keys, dtype=object), return_index=True)
    parts, random = np.full(len(texts), "copy", dtype=object), np.random.default_rng(0)
    for kind in (False, True):
        rows = random.permutation(first[spam[first] == kind])
        for part, begin, end in (("train", 0, 3), ("calibration", 3, 4), ("test", 4, 5)):
            parts[rows[len(rows) * begin // 5 : len(rows) * end // 5]] = part
    return parts


def conformal_threshold(ham: npt.NDArray[np.float64], share: Fraction) -> tuple[float, list[float]]:
    """Return the threshold from scores of ham, and the 95 % range of the false-positive rates of such thresholds."""
    n, k = len(ham), math.floor(share * (len(ham) + 1))
    if not k:
        need = f"a false-positive rate of {float(share):g} needs {math.ceil(1 / share) - 1:,} ham messages for the"
        raise embedpipe.EmbedpipeError(f"{need} threshold (a fifth of all), got {n:,}: add messages, or raise the rate")
    return float(np.sort(ham)[-k]), beta(k, n + 1 - k).ppf([0.025, 0.975]).tolist()


def print_share(marked: npt.NDArray[np.bool_], name: str) -> dict[str, float]:
    """Print and return a share with its 95 % Clopper-Pearson interval."""
    low, high = binomtest(int(marked.sum()), len(marked)).proportion_ci(0.95, method="exact")
    value, *ends = (percent(share, 2) for share in (marked.mean(), low, high))
    print(f"  {name}: {value} ({' to '.join(ends)}; {marked.sum():,} of {len(marked):,})")
    return {"share": float(marked.mean()), "low": float(low), "high": float(high), "of": len(marked)}


def make_filter(store: embedpipe.FeatureStore, arguments: argparse.Namespace) -> tuple[embedpipe.Head, float]:
    """Split, fit, set the threshold, measure on the test messages, and save."""
    rows = store.to_arrow(["id", "text", "content_hash", "label"]).filter(pc.field("label").is_valid())
    labels = np.array([str(label) for label in rows["label"].to_pylist()], dtype=object)
    spam = labels == arguments.spam
    parts = split_messages(rows["text"].to_pylist(), rows["content_hash"].to_pylist(), spam)
    if min((parts[kind] != "copy").sum() for kind in (spam, ~spam)) < 5:
        raise embedpipe.EmbedpipeError(f"{arguments.spam!r} and other labels need 5 messages: {sorted({*labels})[:9]}")
    for name, values in ((KIND, np.where(spam, "spam", "ham")), ("split", parts)):
        store.label(pa.table({"id": rows["id"], name: values}), label=name, into=name)
    head = embedpipe.fit(store, label=KIND, to=arguments.to / "head")
    predicted = head.predict(store)
    score = predicted["probability_spam"].take(pc.index_in(rows["id"], value_set=predicted["id"])).to_numpy()
    threshold, (low, high) = conformal_threshold(score[(parts == "calibration") & ~spam], arguments.false_positives)
    marked, test, auc = score > threshold, parts == "test", head.report.metrics["roc_auc"][0]
    sizes = {part: int((parts == part).sum()) for part in ("train", "calibration", "test", "copy")}
    print(f"threshold {threshold:.4g}, messages {sizes}; on the test messages, with 95 % intervals:")
    report = {"threshold": threshold, "messages": sizes, "allowed": float(arguments.false_positives), "roc_auc": auc}
    report["false_positives"] = print_share(marked[test & ~spam], "false positives (ham called spam)")
    mean, *ends = (percent(share, 2) for share in (report["allowed"], low, high))
    print(f"    (over many splits, the mean is {mean}, and 95 % lie in {' to '.join(ends)})")
    report["recall"] = print_share(marked[test & spam], "recall (spam found)")
    (arguments.to / "threshold.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(f"  ROC AUC: {auc:.4f}\nwrong with the highest confidence:")
    for kind, wrong, sign in (("ham", test & ~spam & marked, -1), ("spam", test & spam & ~marked, 1)):
        for row in np.flatnonzero(wrong)[np.argsort(sign * score[wrong])][:SHOWN].tolist():
            print(f"  {kind} with score {score[row]:.3g}: {rows['text'][row].as_py()[:100]!r}")
    return head, threshold


def main() -> int:
    """Embed, make the filter, search and predict, and return the exit code."""
    arguments = parse_arguments()
    store = embed_table(arguments.table, arguments, label=arguments.label)
    (head, threshold), failed = make_filter(store, arguments), store.summary.failed
    if arguments.query:
        for row in embedpipe.search(store, [arguments.query], k=SHOWN).to_pylist():
            print(f"cosine {row['score']:.3f} to the query: {row['label']}: {row['text'][:100]!r}")
    if arguments.predict:
        new = embed_table(arguments.predict, arguments)
        failed += new.summary.failed
        predicted, to = head.predict(new), arguments.to / "decisions.csv"
        decision = pc.if_else(pc.greater(predicted["probability_spam"], threshold), "spam", "ham")
        write_table(predicted.select(["id", "probability_spam", "error"]).append_column("decision", decision), to)
        print(f"{pc.sum(pc.equal(decision, 'spam')).as_py() or 0:,} of {len(predicted):,} are spam: {to}")
    return SOME_FAILED if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except embedpipe.EmbedpipeError as error:
        print(f"spam_filter: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
