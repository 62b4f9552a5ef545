"""Tables of papers: LaTeX and Markdown are escaped, the right cells are bold, data keep all digits."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from stored import clusters, make_store

from embedpipe.evaluation import EvaluationGrid, evaluate, evaluate_datasets
from embedpipe.evaluation.paper_table import Cell, Column, PaperTable, latex, markdown
from embedpipe.evaluation.tables import average_ranks

TABLE = PaperTable(
    ["backbone", "head"],
    [Column("photos_1", "photos_1", "accuracy", rows=1372), Column("error", "MAE ↓", "mae"), Column("n", "n")],
    [
        (["timm/a_b", "50% & more"], [Cell(0.94142, 0.9, 0.98, bold=True), Cell(-0.5), Cell(1372)]),
        (["timm/c", "x"], [Cell(0.5, 0.4, 0.6), None, Cell(1372)]),
    ],
    ["A remark.\n\\end{tabular}"],
)


def test_latex() -> None:
    assert TABLE.to_latex().splitlines()[1:] == [
        r"% A remark. \end{tabular}",
        r"\begin{tabular}{llrrr}",
        r"\toprule",
        r"Backbone & Head & photos\_1 (\%) & MAE $\downarrow$ & n \\",
        r" &  & $n = 1,372$ &  &  \\",
        r"\midrule",
        r"timm/a\_b & 50\% \& more & \textbf{94.1} [90.0, 98.0] & $-$0.500 & 1,372 \\",
        r"timm/c & x & 50.0 [40.0, 60.0] & -- & 1,372 \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


def test_markdown() -> None:
    assert TABLE.to_markdown().splitlines() == [
        r"| Backbone | Head | photos\_1 (%)<br>n = 1,372 | MAE ↓ | n |",
        "| --- | --- | ---: | ---: | ---: |",
        "| timm/a\\_b | 50% & more | **94.1** [90.0, 98.0] | \N{MINUS SIGN}0.500 | 1,372 |",
        "| timm/c | x | 50.0 [40.0, 60.0] | \N{EN DASH} | 1,372 |",
        "",
        r"A remark. \\end{tabular}",
    ]


def test_data_keep_all_digits(tmp_path: Path) -> None:
    assert TABLE.write(tmp_path / "table.csv") == []
    assert (tmp_path / "table.csv").read_text().splitlines() == [
        '"backbone","head","photos_1","photos_1_low","photos_1_high","photos_1_best","photos_1_n","error","n"',
        '"timm/a_b","50% & more",0.94142,0.9,0.98,true,1372,-0.5,1372',
        '"timm/c","x",0.5,0.4,0.6,false,1372,,1372',
    ]


def test_datasets_named_as_other_columns_are_kept() -> None:
    columns = [Column(name, name, "accuracy") for name in ("head", "x", "x_low")]
    table = PaperTable(["backbone", "head"], columns, [(["a", "b"], [Cell(0.1), Cell(0.2, 0.0, 0.3), Cell(0.4)])], [])
    row = {"backbone": "a", "head": "b", "head_": 0.1, "x": 0.2, "x_low": 0.0, "x_high": 0.3, "x_low_": 0.4}
    assert table.to_arrow().to_pylist() == [row]


def test_text_that_formats_take_for_commands_is_escaped() -> None:
    assert latex('\\input{x}\n#1 ~^$ <a> "b"\x1b') == (
        r"\textbackslash{}input\{x\} \#1 \textasciitilde{}\textasciicircum{}\$ \textless{}a\textgreater{} "
        r"\textquotedbl{}b\textquotedbl{}?"
    )
    assert markdown("a|b *c* [d](e) `f` <img>") == r"a\|b \*c\* \[d\](e) \`f\` \<img\>"


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> EvaluationGrid:
    """Return two heads on an easy and a hard dataset."""
    folder, stores = tmp_path_factory.mktemp("common"), {}
    for name, spread in (("easy", 0.3), ("hard", 3.0)):
        X, y = clusters(60, spread=spread)
        stores[name] = make_store(folder / name, X, label=np.array(["cat", "dog", "owl"])[y].tolist())
    return evaluate_datasets(stores, heads=["centroid", "knn"], folds=3, repeats=1, progress=False)


def test_bold_are_the_best_and_those_that_are_not_worse(grid: EvaluationGrid) -> None:
    table = grid.table()
    assert [column.title for column in table.columns] == ["easy", "hard", "Average rank"]
    for i, evaluation in enumerate(grid.datasets.values()):
        verdicts = {candidate.head: candidate.verdict for candidate in evaluation.candidates}
        for (_, head), cells in table.rows:
            cell = cells[i]
            assert cell is not None
            assert cell.bold == (verdicts[head] != "worse")


def test_average_ranks_share_ties(grid: EvaluationGrid) -> None:
    ranks = average_ranks(grid.datasets)
    assert sum(ranks.values()) == pytest.approx(3)
    means = [{each.head: each.estimates["accuracy"].value for each in one.candidates} for one in grid.datasets.values()]
    for row, rank in ranks.items():
        (other,) = {"centroid", "knn"} - {row.head}
        expected = [1.5 if mean[row.head] == mean[other] else 1.0 + (mean[row.head] < mean[other]) for mean in means]
        assert rank == pytest.approx(np.mean(expected))


def test_one_candidate_is_not_bold(grid: EvaluationGrid, tmp_path: Path) -> None:
    store = grid.datasets["easy"].best.store
    evaluate(store, heads=["centroid"], folds=3, repeats=1, progress=False).to_table(tmp_path / "table.tex")
    text = (tmp_path / "table.tex").read_text()
    assert "\\textbf" not in text
    assert " & 60 \\\\\n\\bottomrule" in text


def test_table_says_which_backbones_have_random_weights(grid: EvaluationGrid, tmp_path: Path) -> None:
    """Their rows have the names of the published ones."""
    note = "RANDOM weights (--weights none), which have learned nothing: timm/made_up"
    one = dataclasses.replace(grid.datasets["easy"], notes=[note, "another"])
    for result in (one, EvaluationGrid({"easy": one, "hard": one})):
        result.to_table(tmp_path / "table.md")
        text = (tmp_path / "table.md").read_text()
        assert text.count("RANDOM weights") == 1
        assert "another" not in text


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex here")
def test_latex_is_accepted_by_latex(tmp_path: Path) -> None:
    TABLE.write(tmp_path / "table.tex")
    document = "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\\input{table}\\end{document}"
    (tmp_path / "paper.tex").write_text(document)
    done = subprocess.run(["pdflatex", "-halt-on-error", "paper.tex"], cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout
