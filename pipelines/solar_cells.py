"""Find defective solar cells in 2,624 electroluminescence photos with a frozen network and a linear model.

The photos and the experts' defect probabilities are PyPI's elpv-dataset
(Buerhop-Lutz et al., EU PVSEC 2018; CC BY-NC-SA).

    python pipelines/solar_cells.py [--output demo-output]
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console
from rich.table import Table

import embedpipe
from embedpipe.heads import FitReport
from embedpipe.report import draw_confusion, draw_neighbours, write_table
from embedpipe.statistics import percent

LABELS = {0.0: "intact", 1.0: "defective"}
out = Console(highlight=False, soft_wrap=True)


def find_photos() -> pa.Table:
    """Return one row per photo: id, image (path), label, the experts' defect probability and the cell type.

    Photos on which the experts were undecided have no label.
    """
    package = importlib.util.find_spec("elpv_dataset")
    if package is None or package.origin is None:
        raise SystemExit("elpv-dataset is not installed: run `make install`, or `pip install elpv-dataset`")
    data = Path(package.origin).parent / "data"
    rows = [line.split() for line in (data / "labels.csv").read_text().splitlines() if line.strip()]
    paths, probabilities, types = zip(*rows, strict=True)
    return pa.table(
        {
            "id": list(paths),
            "image": [str(data / path) for path in paths],
            "label": [LABELS.get(float(value)) for value in probabilities],
            "defect_probability": [float(value) for value in probabilities],
            "cell_type": list(types),
        }
    )


def fit_or_load(store: embedpipe.FeatureStore, folder: Path) -> embedpipe.Head:
    """Return the saved head if it was fitted on this version of the store, else fit one."""
    with contextlib.suppress(embedpipe.EmbedpipeError):  # there is no head
        head = embedpipe.load_head(folder)
        if head.is_of(store):
            return head
    return embedpipe.fit(store, "logreg", to=folder, progress=True)


def metrics_table(report: FitReport) -> Table:
    """Return mean and standard deviation over the folds, beside always predicting the most frequent class."""
    table = Table(title=f"Defective or not: {report.protocol}, {report.measured_rows:,} photos")
    for heading in ("", "logistic regression", "most frequent class"):
        table.add_column(heading, justify="left" if not heading else "right")
    for name in ("accuracy", "balanced_accuracy", "roc_auc"):
        cells = [f"{np.mean(m[name]):.3f} ± {np.std(m[name], ddof=1):.3f}" for m in (report.metrics, report.baseline)]
        table.add_row(name.replace("_", " "), *cells)
    return table


def show_undecided(head: embedpipe.Head, store: embedpipe.FeatureStore, to: Path) -> None:
    """Predict the cells on which the experts were undecided; the head was not fitted on these."""
    predicted = head.predict(store)
    rows = store.to_arrow(["id", "label", "defect_probability"])
    chance = predicted.column("probability_defective").to_numpy()
    undecided = np.asarray(pc.is_null(rows.column("label")))
    by_experts = rows.column("defect_probability").to_numpy()
    write_table(predicted.filter(pa.array(undecided)), to)
    for probability in np.unique(by_experts[undecided]):
        cells = undecided & (by_experts == probability)
        out.print(
            f"   {int(cells.sum()):4} cells with the experts' probability {probability:.2f}: the head predicts "
            f"{chance[cells].mean():.2f} on average, and calls {percent((chance[cells] > 0.5).mean(), 0)} defective"
        )
    out.print(f"   all predictions: {to}\n")


def show_similar(store: embedpipe.FeatureStore, to: Path) -> None:
    """Draw a few defective cells with the cells that look most like them."""
    rows = store.to_arrow(["id", "label"])
    defective = rows.column("id").filter(pc.equal(rows.column("label"), "defective"))
    queries = [defective[i].as_py() for i in np.linspace(0, len(defective) - 1, 6).astype(int)]
    similar = embedpipe.search(store, queries, k=8)
    draw_neighbours(similar, to, title="Defective cells and their nearest neighbours")
    shares = (pc.mean(pc.equal(table["label"], "defective")).as_py() for table in (similar.table, rows))
    near, overall = (percent(share, 0) for share in shares)
    out.print(f"   {near} of their labelled neighbours are defective, {overall} of all labelled cells: {to}\n")


def main() -> None:
    """Embed, fit, predict, search, draw, and print the commands for other photos."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("demo-output"), help="folder for all results")
    output = parser.parse_args().output
    start = time.perf_counter()

    features = output / "solar-cells.features"
    out.print("[bold]1. Embed[/] the photos of elpv-dataset once, with the default backbone")
    store = embedpipe.embed(find_photos(), to=features, progress=True)
    run = store.summary
    counts = f"{run.embedded:,} embedded, {run.reused:,} reused, {run.failed:,} failed"
    out.print(f"   {counts}, in {run.seconds:.1f} s ({store.spec.provider}/{store.spec.name} on {run.device})")
    out.print(f"   the store: {features}, {len(store):,} rows, version {store.version}\n")

    out.print("[bold]2. Fit[/] a logistic regression on the stored vectors, and measure it")
    head = fit_or_load(store, output / "solar-cells.head")
    out.print(metrics_table(head.report))
    draw_confusion(head.report.confusion, head.report.classes, output / "confusion.png", subtitle=head.report.protocol)
    left_out = sum(head.report.left_out.values())
    out.print(f"   Probability 1 against 0; {left_out:,} photos on which the experts were undecided are left out.")
    out.print(
        "   Mean and standard deviation over the folds. Cells of one solar module may be in training and test rows,"
    )
    out.print(f"   so expect less on new modules. {output / 'confusion.png'}\n")

    out.print("[bold]3. Predict[/] the undecided cells, which the head was not fitted on")
    show_undecided(head, store, output / "predictions.csv")

    out.print("[bold]4. Search[/] for similar cells")
    show_similar(store, output / "similar.png")

    picture = output / "solar-cells.png"
    out.print("[bold]5. Draw[/] a map of the store, coloured by defect probability")
    embedpipe.map(store, picture, label="defect_probability", progress=True)
    out.print(f"   {picture}\n")

    out.print(
        f"Done in {time.perf_counter() - start:.0f} s. The same for your own photos, with one folder per class:\n"
    )
    out.print("   .venv/bin/embedpipe embed PHOTOS --to my.features")
    out.print("   .venv/bin/embedpipe fit my.features --to my.head --picture confusion.png")
    out.print("   .venv/bin/embedpipe predict my.head NEW_PHOTOS --to predictions.csv")
    out.print("   .venv/bin/embedpipe search my.features NEW_PHOTO.jpg --picture similar.png")


if __name__ == "__main__":
    main()
