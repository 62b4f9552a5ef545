"""The page of an evaluation: correct texts, escaped names, one file that needs no network."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from page import ODD, Browser, Page
from PIL import Image

from embedpipe._utils.notebook.html_tables import visible
from embedpipe.errors import UsageError
from embedpipe.evaluation.comparison import charts, interval_charts
from embedpipe.evaluation.comparison.candidate_result import (
    CandidateResult,
    ClassScores,
    Reliability,
    RiskCoverage,
)
from embedpipe.evaluation.comparison.result import Evaluation
from embedpipe.report import wrong_items
from embedpipe.report.drawing.wording import clip, number, p_value, percent
from embedpipe.report.item_previews import preview_items
from embedpipe.report.links import link_to
from embedpipe.report.wrong_items import WrongItem
from embedpipe.statistics import Difference, Estimate


def reliability(shift: float) -> Reliability:
    confidence = [0.35, 0.55, 0.75, 0.95]
    return Reliability(confidence, [c - shift for c in confidence], [5, 20, 60, 115], shift, shift / 2, 0.21, 0.4)


def candidate(name: str, accuracy: float, verdict: str, names: list[str]) -> CandidateResult:
    n = len(names)
    counts = np.random.default_rng(n).integers(0, 2, (n, n)) + 8 * np.eye(n, dtype=int)
    at = Estimate(accuracy, accuracy - 0.02, accuracy + 0.02)
    difference = Difference(
        Estimate(accuracy - 0.9, accuracy - 0.92, accuracy - 0.88),
        "corrected t-test",
        0.01,
        0.0321,
        0.9,
        0.1,
        0,
        verdict,
    )
    return CandidateResult(
        name=name,
        store="photos.features",
        backbone="timm/a_backbone",
        layers=("features", "blocks.5"),
        head="logreg",
        dim=1280,
        metrics={"accuracy": [accuracy] * 5},
        estimates={"accuracy": at, "log_loss": Estimate(0.5, 0.4, 0.6)},
        difference=None if verdict == "best" else difference,
        calibration=reliability(0.1),
        calibrated=reliability(0.02),
        rejection=[RiskCoverage("probability", [0.2, 0.5, 1.0], [0.0, 0.02, 0.1], 0.031)],
        per_class=[ClassScores(each, 20, 0.8, 0.7, 0.5 + i / (2 * n)) for i, each in enumerate(names)],
        confusion=counts.tolist(),
        chosen={"C": [0.1, 0.1, 1.0, 0.1, 0.1]},
        fit_seconds=0.25,
        predict_seconds=0.01,
        size_bytes=51_200,
    )


#: One candidate, for what does not depend on others: their charts take most of the time of a page.
BEST = ("logreg", 0.9, "best")


def evaluation(names: list[str], *heads: tuple[str, float, str]) -> Evaluation:
    heads = heads or (BEST, ("lda", 0.897, "equivalent"), ("knn", 0.8, "worse"))
    return Evaluation(
        label="label",
        task="classification",
        metric="accuracy",
        higher_is_better=True,
        resampling="5-fold stratified cross-validation",
        n_repeats=1,
        n_folds=5,
        splits_id="ab" * 32,
        rows=200,
        classes=names,
        baseline={"accuracy": 0.4, "log_loss": 1.1},
        margin=0.01,
        left_out={"no label": 3},
        notes=["12 rows in 5 groups of near-duplicates were kept together"],
        candidates=[candidate(*head, names) for head in heads],
        predictions=pa.table({"candidate": pa.array([], pa.string())}),
        seconds=12.5,
    )


def of_numbers(count: int = 40) -> Evaluation:
    """Return an evaluation of a head that predicts numbers."""
    actual = np.linspace(0, 5, count)
    kept = {"per_class": [], "confusion": [], "calibration": None, "calibrated": None, "rejection": []}
    result = evaluation([])
    heads = [
        replace(each, **kept, metrics={"mae": [0.3] * 5}, estimates={"mae": Estimate(0.3 + i, 0.2 + i, 0.4 + i)})
        for i, each in enumerate(result.candidates)
    ]
    predictions = pa.table(
        {"candidate": ["logreg"] * count, "id": [f"{i}" for i in range(count)], "actual": actual,
         "predicted": actual.astype(np.float32)}
    )  # fmt: skip
    return replace(
        result, task="regression", metric="mae", higher_is_better=False, baseline={"mae": 1.3}, candidates=heads,
        predictions=predictions,
    )  # fmt: skip


def photo(path: Path, side: int = 400) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def items(tmp_path: Path) -> list[WrongItem]:
    """26 items: noise, the least compressible picture, but for a text, a broken file, one away and one nowhere."""
    where: list[str | None] = [str(photo(tmp_path / "noise.png"))] * 26
    (tmp_path / "message.txt").write_text("You have <b>WON</b> a prize " * 40)
    (tmp_path / "broken.png").write_bytes((tmp_path / "noise.png").read_bytes()[:1000])
    where[:4] = [str(tmp_path / "message.txt"), str(tmp_path / "broken.png"), str(tmp_path / "away.png"), None]
    return [WrongItem(f"item {ODD[i % len(ODD)]}", uri, ODD[i % 5], ODD[-1], 0.9996) for i, uri in enumerate(where)]


@pytest.fixture(scope="module")
def page_of_three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of three candidates, in a folder that did not exist."""
    return evaluation(["cat", "dog", "owl"]).to_html(tmp_path_factory.mktemp("page") / "new" / "page.html")


@pytest.fixture
def words(page_of_three: Path) -> str:
    """Return the text of the page of three candidates."""
    return Page(page_of_three).words


def test_page_is_one_file_in_a_new_folder(page_of_three: Path) -> None:
    assert [path.name for path in page_of_three.parent.iterdir()] == ["page.html"]


def test_summary_has_best_candidate_verdicts_and_notes(words: str) -> None:
    best = "logreg has the highest accuracy: 90.0 % (95 % interval 88.0 to 92.0 %; always predicting the most frequent"
    assert best in words
    assert "Practically equivalent: within 1 point with a probability of at least 95 %: lda" in words
    assert "Significantly worse: knn" in words
    assert "3: no label" in words
    assert "near-duplicates were kept together" in words
    assert "ab" * 32 in words


def test_table_has_metrics_tests_costs_and_choices(words: str) -> None:
    assert "p-values (corrected t-test) are corrected for all 3 pairs of candidates (Holm)" in words
    knn = "80.0 % 78.0 to 82.0 % ▼ worse P(equivalent) 10.0 % -10.0 -12.0 to -8.0 0.032 0.500 0.400"
    assert knn in words.replace("\N{MINUS SIGN}", "-")
    assert "C 0.100 (4 of 5), 1.000 (1 of 5)" in words
    assert "250 ms 10 ms 51.2 kB" in words


def test_calibration_and_rejection_are_tables_too(words: str) -> None:
    assert "unscaled 10.0 % 5.0 % 0.210 0.400 after scaling 2.0 % < 1.8 % 0.210 0.400" in words
    assert "Error rate by probability after scaling 100 % 10.0 % 90 % 8.4 % 80 % 6.8 % 50 % 2.0 % AURC 0.0310" in words
    assert words.count("cat") >= 2


def test_worst_classes_are_first_and_small_matrices_are_shown(tmp_path: Path) -> None:
    result = evaluation([f"class {i}" for i in range(40)])
    result.best.confusion[3][7] = 1234
    page = Page(result.to_html(tmp_path / "page.html"))
    classes = page.words[page.words.index("Rows are those of all folds, in which each row is predicted once.") :]
    assert classes.index("class 0 20") < classes.index("class 29 20") < classes.index("The other 10 classes")
    assert page.source.count('<th scope="col">') == 40
    assert re.search(r'style="background: rgb\(0 105 166 / 0\.9\d\)">1,234</td>', page.source)


def test_what_stands_between_backticks_is_code(tmp_path: Path) -> None:
    result = evaluation(["a"])
    result.notes = ["`embedpipe evaluate` keeps <b> together", "a ` alone"]
    source = Page(result.to_html(tmp_path / "page.html")).source
    assert "<li><code>embedpipe evaluate</code> keeps &lt;b&gt; together</li>" in source
    assert "<li>a ` alone</li>" in source


def test_names_are_escaped(tmp_path: Path, items: list[WrongItem]) -> None:
    result = evaluation(ODD, *((name, 0.9 - i / 50, "worse" if i else "best") for i, name in enumerate(ODD)))
    result.label, result.notes, result.left_out = ODD[0], ODD, dict.fromkeys(ODD, 2)
    result.best.wrong = items
    for each in result.candidates:
        each.store, each.backbone, each.layers, each.chosen = ODD[1], ODD[0], (ODD[0], ODD[1]), {ODD[0]: [ODD[1]]}
    page = Page(result.to_html(tmp_path / "page.html"))
    for name in ODD[:4]:
        assert name in page.words
    assert "{{ 7 * 7 }}" in page.words
    assert "#010101 var(--ink)" in page.words
    assert "\0" not in page.source


@pytest.mark.long
def test_page_of_many_classes_and_pictures_is_small(tmp_path: Path, items: list[WrongItem]) -> None:
    result = evaluation([f"{ODD[i % len(ODD)]} {i}" for i in range(1000)])
    result.best.wrong = items
    to = result.to_html(tmp_path / "page.html")
    page = Page(to)
    assert to.stat().st_size < 3_000_000
    assert "The other 970 classes" in page.words
    assert "The most confused pairs of 1,000 classes" in page.words
    assert page.tags.count("img") == 22
    for source in re.findall(r'src="data:image/jpeg;base64,([^"]*)"', page.source):
        with Image.open(io.BytesIO(base64.b64decode(source))) as picture:
            assert max(picture.size) == wrong_items.LARGE


def test_items_are_shown_or_a_reason(tmp_path: Path, items: list[WrongItem]) -> None:
    result = evaluation(["cat", "dog"], BEST)
    result.best.wrong = items
    words = Page(result.to_html(tmp_path / "page.html")).words
    assert "You have <b>WON</b> a prize" in words
    assert "cannot be shown" in words
    assert "away.png" in words
    assert "the store has no location of this item" in words
    assert ">99.9 %" in words
    without = Page(result.to_html(tmp_path / "page.html", pictures=False))
    assert "cannot be shown" not in without.words
    assert "Mistakes" in without.words
    assert "By name item" in without.words
    assert "img" not in without.tags


def test_mistakes_come_first_and_are_linked_to_their_files(tmp_path: Path, items: list[WrongItem]) -> None:
    result = evaluation(["cat", "dog"], BEST)
    result.best.wrong = [*items, WrongItem("web", "https://example.org/a b.jpg", "a", "b", None, "text")]
    result.best.wrong.append(WrongItem("bucket", "s3://bucket/a.jpg", "a", "b", None, "text"))
    result.best.wrong.append(WrongItem("script", "javascript:alert(1)", "a", "b", None, "text"))
    page = Page(result.to_html(tmp_path / "page.html"))
    assert page.source.index('<section id="wrong">') < page.source.index('<section id="candidates">')
    assert set(page.links) == {"message.txt", "broken.png", "away.png", "noise.png", "https://example.org/a b.jpg"}
    elsewhere = Page(result.to_html(tmp_path / "reports/page.html"))
    assert (tmp_path / "noise.png").as_uri() in elsewhere.links


def test_only_the_first_mistakes_are_open_so_that_the_comparison_is_near(tmp_path: Path) -> None:
    result = evaluation(["cat", "dog"], BEST)
    result.best.wrong = [WrongItem(f"row {i}", None, "cat", "dog", 0.9, "a text") for i in range(15)]
    source = Page(result.to_html(tmp_path / "page.html")).source
    first, folded = source[: source.index('<section id="candidates">')].split("<summary>3 more</summary>")
    assert [part.count('class="frame"') for part in (first, folded)] == [12, 3]


@pytest.mark.long
def test_a_full_page_lists_the_others_by_name_and_says_so(
    tmp_path: Path, items: list[WrongItem], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wrong_items, "MAX_CHARACTERS", 20_000)
    monkeypatch.setattr(wrong_items, "CHUNK", 5)
    monkeypatch.setattr(wrong_items, "MAX_LISTED", 15 * 620)
    result = evaluation(["cat", "dog"])
    result.best.wrong = items
    page = Page(result.to_html(tmp_path / "page.html"))
    assert page.source.count('class="frame"') == 5
    assert "15 more, by name Pictures and texts of more items would make this page larger than 20 MB" in page.words
    assert "6 more are not listed, to keep this page below 20 MB" in page.words
    monkeypatch.setattr(wrong_items, "MAX_UNREADABLE", 1)
    result.best.wrong = [WrongItem(f"{i}", str(tmp_path / f"gone {i}.jpg"), "a", "b", 0.9) for i in range(9)]
    page = Page(result.to_html(tmp_path / "page.html"))
    assert "4 more, by name Most items could not be read, so the others were not tried" in page.words


@pytest.mark.parametrize(
    ("uri", "link"),
    [
        ("/data/ä b.jpg", "file:///data/%C3%A4%20b.jpg"),
        ("file:///data/%FF.jpg", "file:///data/%FF.jpg"),
        ("/pages/photos/1#2.jpg", "photos/1%232.jpg"),
        ("/pages/javascript:x", "javascript%3Ax"),
        ("//server/share/x.jpg", "file:///server/share/x.jpg"),
        ("tar:///data/a.tar#x.jpg", ""),
        ("table://0123/4", ""),
        ("relative.jpg", ""),
        (None, ""),
    ],
)
def test_links_lead_to_local_files_and_the_web_only(uri: str | None, link: str) -> None:
    assert link_to(uri, Path("/pages")) == link


def test_page_of_a_regression(tmp_path: Path) -> None:
    words = Page(of_numbers().to_html(tmp_path / "page.html")).words
    assert "logreg has the lowest MAE: 0.300" in words
    assert "always predicting the mean has 1.300" in words
    assert "Predicted against actual numbers of 40 rows" in words
    for of_classes in ("Classes", "predicted as", "probabilities", "F1", "ECE"):
        assert of_classes not in words


def test_page_of_one_candidate_has_no_comparison(tmp_path: Path) -> None:
    words = Page(evaluation(["a", "b"], ("logreg", 0.9, "best")).to_html(tmp_path / "page.HTM")).words
    assert "The accuracy of logreg is 90.0 % (95 % interval 88.0 to 92.0 %" in words
    for of_several in ("Holm", "Verdict", "Costs", "Practical equivalence"):
        assert of_several not in words


def test_heads_without_probabilities(tmp_path: Path) -> None:
    result = evaluation(["a", "b"])
    result.candidates[0] = replace(result.best, calibration=None, calibrated=None, rejection=[])
    result.candidates[1] = replace(result.candidates[1], calibrated=None)
    words = Page(result.to_html(tmp_path / "page.html")).words
    assert "logreg has no probabilities. Shown are those of the next best candidate that has" in words
    assert "Rejection of uncertain rows" not in words


@pytest.mark.long
def test_heads_with_scores_only_are_shown_after_scaling(tmp_path: Path) -> None:
    result = evaluation(["a", "b"])
    result.candidates[0] = replace(result.best, calibration=None)
    result.candidates[2] = replace(result.candidates[2], calibration=None)
    result.best.wrong = [WrongItem("1", None, "a", "b", 0.9)]
    words = Page(result.to_html(tmp_path / "page.html")).words
    assert "logreg has no probabilities. Those shown are made from its scores" in words
    assert "log-loss after scaling 2.0 % < 1.8 % 0.210 0.400" in words
    assert "knn : no probabilities; these are after scaling" in words
    assert "and the probability of the predicted one after temperature scaling" in words
    result.candidates[0] = replace(result.best, calibration=reliability(0.1), calibrated=None)
    words = Page(result.to_html(tmp_path / "page.html")).words
    assert "and the probability of the predicted one. The most confident come first" in words
    assert "Error rate by probability 100 % 10.0 %" in words


def test_page_names_the_repeat_whose_rows_are_counted(tmp_path: Path) -> None:
    result = replace(evaluation(["a", "b"]), n_repeats=5)
    result.best.confusion = [[90, 6], [2, 102]]
    words = Page(result.to_html(tmp_path / "page.html")).words
    once = "of the first repeat, in which each row is predicted once"
    assert (
        f"Rows are those {once}. Their error rate is 4.0 %; the accuracy above is the mean over all 5 repeats" in words
    )
    assert f"Counts are {once}." in words
    assert words.count(once) == 5
    for each in result.candidates:
        each.metrics = {"accuracy": [0.9]}
    words = Page(replace(result, n_repeats=1, n_folds=1).to_html(tmp_path / "page.html")).words
    assert "Counts are of the test rows." in words
    assert "first repeat" not in words


def test_bins_of_few_rows_are_faint() -> None:
    few = Reliability([0.35, 0.55, 0.75, 0.95], [1.0, 0.0, 0.7, 0.9], [3, 2, 60, 115], 0.1, 0.05, 0.2, 0.4)
    drawn = charts.draw_reliability(None, few, "few")
    assert len(re.findall(r"opacity: 0\.3\b", drawn)) == 2
    many = replace(few, rows=[30, 20, 60, 115])
    assert "opacity: 0.3" not in charts.draw_reliability(None, many, "many")


def test_wrong_names_and_empty_evaluations_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"must end in \.html, got .*page\.pdf"):
        evaluation(["a"]).to_html(tmp_path / "page.pdf")
    with pytest.raises(UsageError, match="at least one candidate"):
        replace(evaluation(["a"]), candidates=[]).to_html(tmp_path / "page.html")
    assert list(tmp_path.iterdir()) == []


def test_charts_are_deterministic_and_follow_the_data() -> None:
    result = evaluation(["a", "b"])
    first, again = interval_charts.draw_scores(result), interval_charts.draw_scores(result)
    assert first == again
    result.best.estimates["accuracy"] = Estimate(0.95, 0.9, 0.97)
    assert interval_charts.draw_scores(result) != first
    assert "var(--blue)" in first
    on_the_scale = replace(result, baseline={"accuracy": 0.78})
    assert "off the scale" in first
    assert "off the scale" not in interval_charts.draw_scores(on_the_scale)
    assert "#0" not in re.sub(r'(id|href)="[^"]*"|url\([^)]*\)', "", first)


def test_pareto_frontier_of_costs() -> None:
    result = evaluation(["a", "b"], *((f"head {i}", 0.9 - i / 10, "worse" if i else "best") for i in range(5)))
    for each, seconds in zip(result.candidates, (4.0, 4.0, 1.0, 2.0, 0.0), strict=True):
        each.fit_seconds = seconds  # that of the last head is unknown
    drawn = charts.draw_costs(result, "fit_seconds")
    assert drawn
    assert drawn[1] == [0, 2]
    assert "3 head 2: 70.0\xa0% at 1.000" in drawn[0]
    assert "head 4" not in drawn[0]
    result.higher_is_better = False
    drawn = charts.draw_costs(result, "fit_seconds")
    assert drawn
    assert drawn[1] == [2, 3]
    result.candidates = result.candidates[3:]
    assert charts.draw_costs(result, "fit_seconds") is None


def test_missing_and_constant_metrics(tmp_path: Path) -> None:
    result = evaluation(["a", "b"])
    result.margin, result.baseline, nothing = 0.0, {}, Estimate(0.0, float("nan"), float("nan"))
    for head in result.candidates:
        head.estimates, head.metrics, head.fit_seconds, head.size_bytes = (
            {"accuracy": nothing},
            {"accuracy": [0.0]},
            0,
            0,
        )
        if head.difference:
            head.difference = replace(head.difference, estimate=nothing, adjusted=float("nan"))
    words = Page(result.to_html(tmp_path / "page.html")).words
    assert "0.0 % (95 % interval — to —)" in words
    assert "Costs" not in words


def test_numbers_as_text() -> None:
    assert [number(x) for x in (0.5, 12.345, 1234.5, 0.00123, -0.1, 0.0, None, float("nan"))] == [
        "0.500", "12.3", "1,234", "0.00123", "\N{MINUS SIGN}0.100", "0.000", "—", "—",
    ]  # fmt: skip
    assert number(0.00012, 0.8) == number(-0.00012, 0.8) == "0.000"
    assert number(0.012, 0.8, sign=True) == "+0.012"
    assert percent(0.99999) == ">99.9\xa0%"
    assert p_value(0.0004) == "< 0.001"
    assert clip("abcdefghij", 5) == "ab…ij"
    assert visible("a\0\udcff\tb") == "a\ufffd\ufffd\tb"


@pytest.mark.long
def test_in_a_browser_without_a_network(tmp_path: Path, browser: Browser, items: list[WrongItem]) -> None:
    result = evaluation([f"{name} {i}" for i, name in enumerate(ODD * 3)])
    result.best.wrong, result.best.name = items, ODD[0]
    page = result.to_html(tmp_path / "page.html")
    shades = {}
    for width, scheme in ((1280, "light"), (390, "dark")):
        wide = browser.open_alone(page, width, scheme)
        assert browser.ask("[...document.images].filter(each => each.complete && each.naturalWidth > 300).length") == 22
        assert min(wide) > 300
        picture = np.asarray(browser.picture())
        assert picture.shape == (800, width, 3)
        assert picture.std() > 15
        shades[scheme] = np.median(picture)
    assert shades["dark"] < 60 < 240 < shades["light"]


@pytest.mark.long
@pytest.mark.parametrize("heads", [1, 3])
def test_a_phone_is_told_to_scroll_where_a_table_is_wider(tmp_path: Path, browser: Browser, heads: int) -> None:
    result = evaluation(["a", "b"])
    result.candidates = result.candidates[:heads]
    for each in result.candidates if heads == 1 else ():
        each.estimates.pop("log_loss")
    hint = "document.querySelector('#candidates .hint')"
    browser.open_alone(result.to_html(tmp_path / "page.html"), 390, "light")
    scrolls = browser.ask(f"{hint}.parentElement.scrollWidth > {hint}.parentElement.clientWidth")
    assert (browser.ask(f"{hint}.clientHeight > 0"), scrolls) == (heads == 3, heads == 3)


def test_text_of_a_file_without_the_suffix_of_a_text_is_not_shown(tmp_path: Path) -> None:
    for name in ("id_rsa", "note.txt"):
        (tmp_path / name).write_text("a secret")
    items = [WrongItem(name, str(tmp_path / name), "a", "b", 0.9) for name in ("id_rsa", "note.txt")]
    first, second = preview_items([(item.uri, None) for item in items], 100)
    assert (first.text, second.text) == ("", "a secret")
    assert first.reason.startswith("cannot be shown")
