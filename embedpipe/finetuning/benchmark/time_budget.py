"""Which budgets and seeds of a benchmark fit into the time that is allowed."""

from __future__ import annotations

from collections.abc import Sequence

from embedpipe.finetuning.benchmark.cell_runner import CellRunner
from embedpipe.finetuning.benchmark.label_sampling import ladders
from embedpipe.finetuning.benchmark.options import BenchmarkOptions
from embedpipe.finetuning.benchmark.result import Learner


def plan_label_counts(
    run: CellRunner, options: BenchmarkOptions, learners: Sequence[Learner]
) -> tuple[list[int], list[int], list[str]]:
    """Return budgets and seeds that fit into the time that is allowed, and what was left out for that.

    The first cell of a network, at the smallest budget, says what a label takes; probes take next to nothing. Where not
    even the smallest budget fits, seeds are left out, all but one.
    """
    sizes = list(ladders(options.label_counts, run.split.y, run.pool))
    seeds = [run.options.seed + number for number in range(options.seeds)]
    networks = [learner for learner in learners if learner != "linear-probe"]
    allowed = options.seconds_allowed
    if allowed is None or not networks:
        return sizes[0], seeds, []
    labels, epochs = sizes[0][0], run.options.epochs
    (first,) = run.cells([labels], seeds[:1], networks[:1])
    per_label = first.cell.seconds / (labels * len(first.cell.epochs)) * (epochs + 1)

    def needed(ladder: Sequence[int]) -> float:
        return len(networks) * sum(per_label * size + first.measuring for size in ladder)

    # Probes need the network once, too: for vectors of the corrupted pictures.
    once = run.folder.facts["setup"] + ("linear-probe" in learners) * first.measuring
    left = allowed - once
    taken = next((ladder for ladder in sizes if len(seeds) * needed(ladder) <= left), sizes[-1])
    kept = seeds[: max(1, min(len(seeds), int(left / needed(taken))))]
    if taken == sizes[0] and kept == seeds:
        return taken, kept, []
    speed = labels * len(first.cell.epochs) / first.cell.seconds
    whole = (len(seeds) * needed(sizes[0]) + once) / 60
    return (
        taken,
        kept,
        [
            f"budgets of {_listed(sizes[0])} labels with {len(seeds)} seeds would take about {whole:,.1f} minutes, at "
            f"{speed:,.0f} labels a second and epoch and {first.measuring:,.1f} s to measure a network: "
            f"{_listed(taken)} with {len(kept)} were taken to fit into {options.time_budget}"
        ],
    )


def _listed(sizes: Sequence[int]) -> str:
    return ", ".join(f"{size:,}" for size in sizes)
