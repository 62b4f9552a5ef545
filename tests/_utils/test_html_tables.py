"""The key/value tables that notebooks show."""

from __future__ import annotations

import pytest

from embedpipe._utils.notebook.html_tables import MAX_LENGTH, html_records, html_table

LEFT = ' style="text-align:left"'


def test_html_table_shows_keys_and_values_in_order() -> None:
    rows = f"<tr><th>b</th><td{LEFT}>1</td></tr><tr><th>a</th><td{LEFT}>x</td></tr>"
    expected = f"<table><caption>Head</caption>{rows}</table>"
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
    rows = f"<tr><th{LEFT}>name</th><th>f1</th></tr><tr><td{LEFT}>a</td><td>1</td></tr>"
    expected = f"<table><caption>Heads</caption>{rows}</table>"
    assert html_records("Heads", [{"name": "a", "f1": 1}]) == expected
    assert html_records("Heads", []) == "<table><caption>Heads</caption></table>"


def test_floats_have_four_digits_and_none_is_empty() -> None:
    html = html_records("Heads", [{"name": "a", "margin": 0.9996158357983873, "uri": None}])
    assert "<td>0.9996</td><td></td>" in html


def test_html_records_escapes_titles_names_and_values() -> None:
    html = html_records("<i>", [{"<b>": "a & b"}])
    assert "<i>" not in html
    assert "<b>" not in html
    assert "a &amp; b" in html


def test_control_characters_and_changes_of_direction_are_not_in_tables() -> None:
    assert html_records("x", [{"a\x1b": "\u202eb\x00"}]) == html_records("x", [{"a\ufffd": "\ufffdb\ufffd"}])


@pytest.mark.parametrize("value", ["a long sentence " * 60, '"<&>"' * 200, 1])
@pytest.mark.parametrize("count", [3, 21, 5000])
def test_tables_are_bounded_and_count_what_they_leave_out(value: object, count: int) -> None:
    records = [{f"{value}{column}": value for column in range(40)}] * count
    tables = (html_records("All", records), html_table("All", [(str(value), value)] * count))
    for table in tables:
        assert len(table) <= MAX_LENGTH
        shown = table.count("<tr>") - (1 if table is tables[0] else 0)
        assert shown == count or f"and {count - shown + 1:,} more" in table
