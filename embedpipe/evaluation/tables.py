"""The tables of evaluations, protocols and several datasets, as a paper prints them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from embedpipe.backbones.spec import RANDOM
from embedpipe.evaluation.comparison.candidate_result import CandidateResult
from embedpipe.evaluation.comparison.evaluation_data import EvaluationData
from embedpipe.evaluation.paper_table import Cell, Column, PaperTable, metric_title, unique_parts

#: Numbers of a protocol that are hyperparameters, or measured on other rows than those of test.
NOT_METRICS = ("C", "held_out_accuracy")


def evaluation_table(evaluation: EvaluationData) -> PaperTable:
    """Return one row for each candidate, the best first: backbone, head, the metric with its interval, test rows."""
    parts = [_parts(candidate) for candidate in evaluation.candidates]
    names = unique_parts(parts)
    metric, rows = evaluation.metric, evaluation.test_rows or None
    columns = [Column(metric, metric_title(metric, evaluation.higher_is_better), metric), Column("n", "n")]
    lines: list[tuple[list[str], list[Cell | None]]] = [
        ([row[name] for name in names], [_cell(candidate, evaluation), Cell(rows) if rows else None])
        for candidate, row in zip(evaluation.candidates, parts, strict=True)
    ]
    title = metric_title(metric, True)
    remarks = [
        f"{title} of {evaluation.label}, 95 % intervals; {evaluation.resampling}; splits {evaluation.splits_id}."
    ]
    return PaperTable(names, columns, lines, [*remarks, *_bold_remark([evaluation]), *_random_remarks([evaluation])])


def protocol_table(records: Sequence[Mapping[str, Any]], test_rows: int, remark: str) -> PaperTable:
    """Return one row for each layer of each store, and a column for each metric of the protocol."""
    known = list(dict.fromkeys(name for record in records for name in record))
    metrics = [name for name in known if name not in ("store", "backbone", "layer", "verdict", *NOT_METRICS)]
    metrics = [name for name in metrics if name.removesuffix("_low").removesuffix("_high") not in {*metrics} - {name}]
    names = ["backbone"]
    for name in ("layer", "store"):
        if len({tuple(record[each] for each in names) for record in records}) < len(records):
            names.append(name)
    columns = [Column(name, metric_title(name, True), "accuracy") for name in metrics]  # all are shares
    columns.append(Column("n", "n"))
    rows: list[tuple[list[str], list[Cell | None]]] = [
        (
            [record[name] for name in names],
            [*(_protocol_cell(record, name, name == metrics[0]) for name in metrics), Cell(test_rows)],
        )
        for record in records
    ]
    remarks = [remark]
    if any(f"{metrics[0]}_low" in record for record in records):
        remarks.append("95 % intervals: bootstrap over the test rows.")
    if any("verdict" in record for record in records):
        remarks.append("Bold: the best, and those that are not significantly worse (corrected for all pairs).")
    return PaperTable(names, columns, rows, remarks)


def _protocol_cell(record: Mapping[str, Any], name: str, decides: bool) -> Cell | None:
    """Return the value of a metric with its interval; the metric that the verdict is on is bold unless it is worse."""
    if name not in record:
        return None
    bold = decides and record.get("verdict", "worse") != "worse"
    return Cell(record[name], record.get(f"{name}_low"), record.get(f"{name}_high"), bold)


def datasets_table(datasets: Mapping[str, EvaluationData]) -> PaperTable:
    """Return one row for each backbone and head, a column for each dataset, and the average rank."""
    rows = {name: _rows(evaluation) for name, evaluation in datasets.items()}
    keys = list(dict.fromkeys(key for each in rows.values() for key in each))
    ranks = average_ranks(datasets)
    parts = [key._asdict() for key in keys]
    names = unique_parts(parts)
    titles = {name: metric_title(each.metric, each.higher_is_better) for name, each in datasets.items()}
    several = len({*titles.values()}) > 1
    columns = [
        Column(name, f"{name}: {titles[name]}" if several else name, each.metric, rows=each.test_rows or None)
        for name, each in datasets.items()
    ]
    if ranks:
        columns.append(Column("average_rank", "Average rank", decimals=2))
    lines: list[tuple[list[str], list[Cell | None]]] = []
    for key in sorted(keys, key=lambda key: ranks.get(key, len(keys))):
        cells = [_cell(rows[name][key], each) if key in rows[name] else None for name, each in datasets.items()]
        if ranks:
            cells.append(Cell(ranks[key]) if key in ranks else None)
        lines.append(([key._asdict()[name] for name in names], cells))
    what = "Metrics" if several else next(iter(titles.values())).removesuffix(" ↓")
    remarks = [f"{what} with 95 % intervals; n: test rows."]
    remarks += [f"{name}: {each.resampling}; splits {each.splits_id}." for name, each in datasets.items()]
    remarks += _bold_remark([*datasets.values()])
    if ranks:
        remarks.append(
            "Average rank: the mean over the datasets of the rank by the metric, ties shared; 1 is the best."
        )
    remarks += _random_remarks([*datasets.values()])
    return PaperTable(names, columns, lines, remarks)


def _random_remarks(evaluations: Sequence[EvaluationData]) -> list[str]:
    """Return the notes on backbones with random weights, whose names are those of the published ones."""
    return [*dict.fromkeys(note for each in evaluations for note in each.notes if note.startswith(RANDOM))]


class Row(NamedTuple):
    """What names a candidate, whichever dataset it was measured on. ``store`` is empty for all but repeated rows."""

    backbone: str
    store: str
    layer: str
    head: str


def _rows(evaluation: EvaluationData) -> dict[Row, CandidateResult]:
    rows: dict[Row, CandidateResult] = {}
    for candidate in evaluation.candidates:
        parts = _parts(candidate)
        row = Row(**parts | {"store": ""})
        rows[Row(**parts) if row in rows else row] = candidate
    return rows


def average_ranks(datasets: Mapping[str, EvaluationData]) -> dict[Row, float]:
    """Return the mean rank of each row that all datasets have (Demsar, JMLR 7, 2006); empty for one row or dataset."""
    from scipy.stats import rankdata

    values = []
    for evaluation in datasets.values():
        sign = -1 if evaluation.higher_is_better else 1
        rows = _rows(evaluation)
        values.append({row: sign * each.estimates[evaluation.metric].value for row, each in rows.items()})
    shared = [row for row in values[0] if all(row in others for others in values)]
    if len(values) < 2 or len(shared) < 2:
        return {}
    ranks = rankdata([[each[row] for row in shared] for each in values], axis=1).mean(axis=0)
    return dict(zip(shared, ranks.tolist(), strict=True))


def _parts(candidate: CandidateResult) -> dict[str, str]:
    """Return what names a candidate in a table, whichever dataset it was measured on."""
    return {
        "backbone": candidate.backbone,
        "store": candidate.store,
        "layer": " + ".join(candidate.layers),
        "head": candidate.head,
    }


def _cell(candidate: CandidateResult, evaluation: EvaluationData) -> Cell:
    estimate = candidate.estimates[evaluation.metric]
    bold = len(evaluation.candidates) > 1 and candidate.verdict != "worse"
    return Cell(estimate.value, estimate.low, estimate.high, bold)


def _bold_remark(evaluations: Sequence[EvaluationData]) -> list[str]:
    tests = {each.difference.test for every in evaluations for each in every.candidates if each.difference}
    if not tests:
        return []
    return [
        "Bold: the best, and those not significantly worse "
        f"(5 %; {', '.join(sorted(tests))}, Holm's correction for all pairs)."
    ]
