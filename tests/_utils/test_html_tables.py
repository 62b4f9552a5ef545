"""The key/value tables that notebooks show."""

from __future__ import annotations

import pytest

from embedpipe._utils.html_repr import html_records, html_table


def test_html_table_shows_keys_and_values_in_order() -> None:
    expected = "<table><caption>Head</caption><tr><th>b</th><td>1</td></tr><tr><th>a</th><td>x</td></tr></table>"
    assert html_table("Head", {"b": 1, "a": "x"}) == expected
    assert html_table("Head", [("b", 1), ("a", "x")]) == expected


@pytest.mark.parametrize("text", ["<script>alert(1)</script>", "<b>", "a & b", '"quoted"'])
def test_html_table_escapes_titles_keys_and_values(text: str) -> None:
    html = html_table(text, {text: text})
    assert text not in html
    assert html.count("<") == html.count(">") == 10


def test_html_table_shortens_long_values() -> None:
    html = html_table("Store", {"path": "x" * 100_000})
    assert len(html) < 1000
    assert "x…</td>" in html


def test_html_records_has_one_row_for_each_record() -> None:
    expected = "<table><caption>Heads</caption><tr><th>name</th><th>f1</th></tr><tr><td>a</td><td>1</td></tr></table>"
    assert html_records("Heads", [{"name": "a", "f1": 1}]) == expected
    assert html_records("Heads", []) == "<table><caption>Heads</caption><tr></tr></table>"


def test_html_records_escapes_titles_names_and_values() -> None:
    html = html_records("<i>", [{"<b>": "a & b"}])
    assert "<i>" not in html
    assert "<b>" not in html
    assert "a &amp; b" in html
