"""Plots of the benchmark page, drawn from the tables of RESULTS.md when the docs are built."""

from __future__ import annotations

import re
from pathlib import Path

import matplotlib as mpl
from writing import write_if_changed

mpl.use("svg")
mpl.rcParams["svg.hashsalt"] = "embedpipe"  # the same file for the same numbers

BLUE, ORANGE, GREY = "#0068b5", "#e8702a", "#9aa0a6"


def write(results: Path, folder: Path) -> None:
    """Draw the plots, and write the part of the page that shows them."""
    text = results.read_text(encoding="utf-8")
    peers = _table(text, "times embedpipe's time |")
    networks = peers[0][1:]
    libraries = [row for row in peers[1:] if row[0] != "embedpipe, images/s" and not row[0].startswith("1 - cosine")]
    _draw_bars(
        folder / "peers.svg",
        "embed, beside other libraries on the same files and weights",
        "times embedpipe's time",
        networks,
        {row[0]: [_number(cell) for cell in row[1:]] for row in libraries},
    )
    heads = _table(text, "| head | elpv 0 or 1: accuracy")
    at = next(i for i, name in enumerate(heads[0]) if name.startswith("clothing"))
    names = [row[0].strip("`").replace(" or ", "\nor ") for row in heads[1:]]
    _draw_bars(
        folder / "heads.svg",
        "heads on frozen features of the default backbone",
        "accuracy",
        names,
        {
            "elpv, 5-fold": [_number(row[1]) for row in heads[1:]],
            "clothing, test split": [_number(row[at]) for row in heads[1:]],
        },
    )
    write_if_changed(
        folder / "plots.md",
        "![Time of other libraries as a multiple of embedpipe's](/_generated/peers.svg)\n\n"
        "![Accuracy of the heads on elpv and clothing](/_generated/heads.svg)\n",
    )


def _table(text: str, start: str) -> list[list[str]]:
    """Return the rows of the first Markdown table whose header has these words, without the rule below the header."""
    lines = text[text.rindex("\n", 0, text.index(start)) + 1 :].splitlines()
    rows: list[list[str]] = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return [rows[0], *rows[2:]]


def _number(cell: str) -> float:
    """Return the number at the start of a cell, or NaN where there is none."""
    found = re.match(r"\**([\d.]+)", cell)
    return float(found[1]) if found else float("nan")


def _draw_bars(path: Path, title: str, axis: str, groups: list[str], series: dict[str, list[float]]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.4), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(series)
    colours = [BLUE, ORANGE, "#58a55c", "#a142f4", GREY]
    for i, (name, values) in enumerate(series.items()):
        places = [group + (i - (len(series) - 1) / 2) * width for group in range(len(groups))]
        axes.bar(places, values, width * 0.92, label=name, color=colours[i % len(colours)])
    axes.set_xticks(range(len(groups)), groups)
    axes.set_ylabel(axis)
    axes.set_title(title, loc="left", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", frameon=False, fontsize=9)
    figure.savefig(path, metadata={"Date": None})
