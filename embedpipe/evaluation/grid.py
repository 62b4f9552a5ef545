"""`EvaluationGrid`: the result of `evaluate_datasets`, backbones and heads on several datasets."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from embedpipe._utils.messages.counting import counted
from embedpipe._utils.notebook.html_tables import html_records
from embedpipe.evaluation.comparison.result import Evaluation
from embedpipe.evaluation.paper_table import PaperTable
from embedpipe.evaluation.saving import save_results
from embedpipe.evaluation.tables import average_ranks, datasets_table

if TYPE_CHECKING:
    import pandas as pd


@dataclass(repr=False)
class EvaluationGrid:
    """Backbones and heads on several datasets; what `embedpipe.evaluate_datasets` returns.

    Attributes
    ----------
    datasets : dict
        Name of a dataset -> its `Evaluation`.
    failed : dict
        Dataset and backbone that could not be embedded -> reason.

    Examples
    --------
    >>> grid = embedpipe.evaluate_datasets(["photos.features", "messages.features"], heads=["lda"])
    >>> list(grid.datasets)
    ['photos', 'messages']
    >>> grid.to_table("results.tex")
    []
    """

    datasets: dict[str, Evaluation]
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def predictions(self) -> pa.Table:
        """All predictions, with the name of the ``dataset`` as the first column; labels are text."""
        tables = []
        for name, evaluation in self.datasets.items():
            if (table := evaluation.predictions).num_columns:
                for column in ("actual", "predicted"):
                    place = table.column_names.index(column)
                    table = table.set_column(place, column, table.column(column).cast(pa.string()))
                tables.append(table.add_column(0, "dataset", pa.array([name] * table.num_rows, pa.string())))
        return pa.concat_tables(tables, promote_options="default") if tables else pa.table({})

    def table(self) -> PaperTable:
        """Return one row for each backbone and head, a column for each dataset, and the average rank."""
        return datasets_table(self.datasets)

    def to_table(self, path: str | Path) -> list[str]:
        """Write `table` in the format of the suffix; see `Evaluation.to_table`."""
        return self.table().write(path)

    def to_html(self, path: str | Path, *, pictures: bool = True) -> Path:
        """Write the table as one HTML page, and the page of each dataset beside it, such as ``page-photos.html``."""
        # Matplotlib and Jinja are loaded only when a page is written.
        from embedpipe.evaluation.table_page import write_table_page
        from embedpipe.report.page import check_page

        path, links, used = check_page(path), [], set[str]()
        for name, evaluation in self.datasets.items():
            slug = re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-.") or "dataset"
            while slug.lower() in used:
                slug += "_"
            used.add(slug.lower())
            file = path.with_name(f"{path.stem}-{slug}{path.suffix}")
            evaluation.to_html(file, pictures=pictures)
            links.append((name, file.name))
        facts = [(name, f"{each.label}, {each.rows:,} rows; {each.resampling}") for name, each in self.datasets.items()]
        notes = [f"{name} could not be measured: {reason}" for name, reason in self.failed.items()]
        title = f"{len(self.table().rows)} candidates on {_count(self)}"
        return write_table_page(
            self.table(), path, kicker="Evaluation", title=title, facts=facts, notes=notes, links=links
        )

    def save(self, path: str | Path) -> list[str]:
        """Write everything as one JSON file, which `embedpipe.load_evaluation` reads; see `Evaluation.save`."""
        return save_results("datasets", self, path)

    def records(self) -> list[dict[str, Any]]:
        """Return one flat dict for each candidate on each dataset: ``dataset``, then those of `Evaluation.to_frame`."""
        return [
            {"dataset": name, **candidate.record(), "test_rows": evaluation.test_rows}
            for name, evaluation in self.datasets.items()
            for candidate in evaluation.candidates
        ]

    def to_frame(self) -> pd.DataFrame:
        """Return `records` as a pandas DataFrame (pandas is not a dependency of embedpipe)."""
        import pandas as pd

        return pd.DataFrame(self.records())

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the predictions as plain numbers, strings, lists and dicts."""
        ranks = {" ".join(filter(None, row)): rank for row, rank in average_ranks(self.datasets).items()}
        datasets = {name: evaluation.to_dict() for name, evaluation in self.datasets.items()}
        return {"datasets": datasets, "average_ranks": ranks, "failed": self.failed}

    def __repr__(self) -> str:
        """Return the best candidate of each dataset on one line."""
        best = ", ".join(f"{name}: {evaluation.best.name!r}" for name, evaluation in self.datasets.items())
        return f"EvaluationGrid({_count(self)}, best {best})"

    def _repr_html_(self) -> str:
        table = self.table()
        shown = [
            dict(zip(table.names, texts, strict=True))
            | {
                column.title: "" if cell is None else column.numbers(cell)[0]
                for column, cell in zip(table.columns, cells, strict=True)
            }
            for texts, cells in table.rows
        ]
        return html_records(f"Evaluation on {_count(self)}", shown)


def _count(grid: EvaluationGrid) -> str:
    return counted(len(grid.datasets), "dataset")
