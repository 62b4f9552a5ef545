"""What the command line prints of `verify`: checks, and how far a cheaper precision or decode moves vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedpipe.cli.show import pairs, print_table

if TYPE_CHECKING:
    from embedpipe.embedding import Drift, HeadDrift, LayerDrift, VerifyReport


def checks(report: VerifyReport) -> None:
    """Print what `verify` found."""
    print_table(pairs([(f"{'ok' if check.ok else 'WRONG':5} {check.name}", check.detail) for check in report.checks]))
    if report.drift is not None:
        drift(report.drift)
    print("verified" if report.ok else "NOT verified")


def drift(found: Drift) -> None:
    """Print how far vectors move."""
    decode = f", {found.decode} decoding" if found.decode else ""
    against = "fp32, full decoding" if found.decode else "fp32"
    print(f"\n{found.precision}{decode}, against {against}, on {found.rows:,} items of the store:")
    rows: list[tuple[str, str]] = []
    if found.not_finite:
        rows.append(("WRONG", f"{found.not_finite:,} more items get NaN or infinite values"))
    for layer in found.layers:
        if len(found.layers) > 1:
            rows.append((layer.column, ""))
        rows += _layer(layer)
    if found.no_head:
        rows.append(("head", found.no_head))
    print_table(pairs([(f"  {name}", value) for name, value in rows]))
    print()


def _layer(layer: LayerDrift) -> list[tuple[str, str]]:
    rows = [
        (
            "1 - cosine",
            f"median {layer.median:.1e}, 95th percentile {layer.p95:.1e}, largest {layer.largest:.1e}",
        )
    ]
    if layer.neighbours_kept is not None and layer.nearest_kept is not None:
        kept = (
            f"{layer.neighbours_kept:.1%} of the {layer.k} nearest stay; the nearest does for {layer.nearest_kept:.1%}"
        )
        rows.append(("neighbours", f"{kept} (within the sample)"))
    return [*rows, *_head(layer.head)] if layer.head else rows


def _head(head: HeadDrift) -> list[tuple[str, str]]:
    if head.metric == "accuracy":
        about = f"accuracy {head.reference:.1%} becomes {head.cheaper:.1%}: {100 * head.difference:+.1f} points"
        between = f"95 % interval {100 * head.low:+.1f} to {100 * head.high:+.1f}"
        on = f"{head.rows:,} items, {head.classes} classes"
    else:
        about = f"R2 {head.reference:.3f} becomes {head.cheaper:.3f}: {head.difference:+.3f}"
        between = f"95 % interval {head.low:+.3f} to {head.high:+.3f}"
        on = f"{head.rows:,} items"
    left_out = "".join(f"; left out: {count:,} {why}" for why, count in head.left_out.items())
    return [("head", f"{about} ({between}; cross-validated on {on}{left_out})")]
