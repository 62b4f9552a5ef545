"""Tables as a paper prints them: LaTeX with booktabs, Markdown, or the same columns as data.

The best value of a column is bold, and so are those that do not differ from it significantly.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from embedpipe._utils.atomic import whole_file
from embedpipe._utils.notebook.html_tables import visible
from embedpipe._utils.version import __version__
from embedpipe.report.drawing.wording import SHARES, heading, metric_interval, metric_name, metric_value
from embedpipe.report.tables import TABLE_SUFFIXES, check_table, write_table

#: Formats for people, beside those of data.
TEXT_SUFFIXES = (".tex", ".md")
SUFFIXES = (*TEXT_SUFFIXES, *TABLE_SUFFIXES)

_LATEX = {
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "\ufffd": "?",
    "²": r"$^2$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
}


class Cell(NamedTuple):
    """A value, the ends of its interval if it has one, and whether it is bold."""

    value: float
    low: float | None = None
    high: float | None = None
    bold: bool = False


@dataclass(frozen=True)
class Column:
    """A column of numbers.

    Attributes
    ----------
    name : str
        Its name in a table of data.
    title : str
        Its heading for people.
    metric : str
        A metric, whose shares are printed in percent; empty for other numbers.
    decimals : int
        Of other numbers.
    rows : int or None
        Number of test rows, which stands below the heading.
    """

    name: str
    title: str
    metric: str = ""
    decimals: int = 0
    rows: int | None = None

    def heading(self) -> str:
        """Return the title with the unit."""
        return f"{self.title} (%)" if self.metric in SHARES else self.title

    def numbers(self, cell: Cell, minus: str = "\N{MINUS SIGN}") -> list[str]:
        """Return the value of a cell, and the ends of its interval, as text."""
        values = [value for value in (cell.value, cell.low, cell.high) if value is not None]
        return [self._number(value).replace("-", minus) for value in values]

    def shown(self, cell: Cell) -> tuple[str, str]:
        """Return the value and the interval, if there is one, with their units, as on pages and terminals."""
        if not self.metric:
            return self._number(cell.value), ""
        interval = "" if cell.low is None or cell.high is None else metric_interval(cell.low, cell.high, self.metric)
        return metric_value(cell.value, self.metric), interval

    def _number(self, value: float) -> str:
        if self.metric in SHARES:
            return f"{100 * value:.1f}"
        return f"{value:.3f}" if self.metric else f"{value:,.{self.decimals}f}"


@dataclass(frozen=True)
class PaperTable:
    """A table with columns of text, then columns of numbers.

    Attributes
    ----------
    names : list of str
        Headings of the columns of text.
    columns : list of Column
    rows : list of (list of str, list of Cell or None)
    remarks : list of str
        Sentences below the table.
    """

    names: list[str]
    columns: list[Column]
    rows: list[tuple[list[str], list[Cell | None]]]
    remarks: list[str] = field(default_factory=list)

    def write(self, to: str | Path) -> list[str]:
        """Write the table in the format of the suffix; return remarks for people."""
        to = check_table(to, SUFFIXES)
        suffix = to.suffix.lower()
        if suffix not in TEXT_SUFFIXES:
            return write_table(self.to_arrow(), to)
        with whole_file(to) as part:
            text = self.to_latex() if suffix == ".tex" else self.to_markdown()
            part.write_text(text, encoding="utf-8", newline="\n")
        return []

    def to_latex(self) -> str:
        """Return a ``tabular`` with the rules of booktabs."""
        lines = [
            f"% embedpipe {__version__}; the preamble needs \\usepackage{{booktabs}}",
            *(f"% {visible(' '.join(remark.split()))}" for remark in self.remarks),
            f"\\begin{{tabular}}{{{'l' * len(self.names)}{'r' * len(self.columns)}}}",
            "\\toprule",
        ]
        heads, cells = self._cells(latex, lambda text: f"\\textbf{{{text}}}", "$-$", "--", "$n = {}$")
        lines += [*(f"{' & '.join(row)} \\\\" for row in heads), "\\midrule"]
        lines += [*(f"{' & '.join(row)} \\\\" for row in cells), "\\bottomrule", "\\end{tabular}"]
        return "\n".join(lines) + "\n"

    def to_markdown(self) -> str:
        """Return a table of Markdown, with the remarks below."""
        heads, cells = self._cells(markdown, lambda text: f"**{text}**", "\N{MINUS SIGN}", "\N{EN DASH}", "n = {}")
        head = ["<br>".join(filter(None, parts)) for parts in zip(*heads, strict=True)]
        rule = ["---"] * len(self.names) + ["---:"] * len(self.columns)
        lines = [f"| {' | '.join(row)} |" for row in (head, rule, *cells)]
        return "\n".join([*lines, "", *(markdown(remark) for remark in self.remarks)]) + "\n"

    def to_arrow(self) -> pa.Table:
        """Return the columns as data: values with ``_low`` and ``_high``, and the number of test rows ``_n``.

        The name of a dataset that is taken, such as ``head``, gets a ``_`` at its end.
        """
        data: dict[str, pa.Array] = {}

        def add(name: str, values: list[Any], type_: pa.DataType) -> None:
            while name in data:
                name += "_"
            data[name] = pa.array(values, type_)

        for i, name in enumerate(self.names):
            add(name, [texts[i] for texts, _ in self.rows], pa.string())
        for i, column in enumerate(self.columns):
            cells = [numbers[i] for _, numbers in self.rows]
            add(column.name, [cell.value if cell else None for cell in cells], pa.float64())
            if any(cell and cell.low is not None for cell in cells):
                for end in ("low", "high"):
                    add(f"{column.name}_{end}", [getattr(cell, end) if cell else None for cell in cells], pa.float64())
            if any(cell and cell.bold for cell in cells):
                add(f"{column.name}_best", [cell.bold if cell else None for cell in cells], pa.bool_())
            if column.rows is not None:
                add(f"{column.name}_n", [column.rows if cell else None for cell in cells], pa.int64())
        return pa.table(data)

    def _cells(
        self, escape: Callable[[str], str], bold: Callable[[str], str], minus: str, missing: str, count: str
    ) -> tuple[list[list[str]], list[list[str]]]:
        """Return the rows of the heading and of the body as text of a format."""
        titles = [escape(column.heading()) for column in self.columns]
        heads = [[*map(escape, map(heading, self.names)), *titles]]
        if any(column.rows is not None for column in self.columns):
            counts = ["" if column.rows is None else count.format(f"{column.rows:,}") for column in self.columns]
            heads.append([*[""] * len(self.names), *counts])
        body = []
        for texts, numbers in self.rows:
            cells = []
            for column, cell in zip(self.columns, numbers, strict=True):
                if cell is None:
                    cells.append(missing)
                    continue
                value, *ends = column.numbers(cell, minus)
                cells.append((bold(value) if cell.bold else value) + (f" [{', '.join(ends)}]" if ends else ""))
            body.append([*map(escape, texts), *cells])
        return heads, body


def metric_title(metric: str, higher_is_better: bool) -> str:
    """Return the heading of a metric, with an arrow if lower is better."""
    return heading(metric_name(metric)) + ("" if higher_is_better else " ↓")


def latex(text: str) -> str:
    """Return text that LaTeX prints as it is, on one line."""
    return "".join(_LATEX.get(letter, letter) for letter in visible(" ".join(text.split())))


def markdown(text: str) -> str:
    """Return text that Markdown shows as it is, on one line."""
    return re.sub(r"([\\`*_\[\]<>|~#])", r"\\\1", visible(" ".join(text.split())))


def unique_parts(rows: Sequence[dict[str, str]]) -> list[str]:
    """Return the names of the columns of text that a table needs: backbone and head, and what tells rows apart."""
    wanted = ["backbone", "head"]
    for name in ("layer", "store"):
        if len({tuple(row[each] for each in wanted) for row in rows}) == len(rows):
            break
        wanted.append(name)
    return [name for name in ("backbone", "store", "layer", "head") if name in wanted]
