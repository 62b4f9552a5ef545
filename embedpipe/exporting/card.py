"""The card of an exported model: what it is, how good it is, and how it was compared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from embedpipe.exporting.result import Comparison
from embedpipe.heads.head import Head
from embedpipe.heads.measured_table import measured_table

_NEEDS = {
    ("onnx", "image"): "onnxruntime numpy pillow",
    ("onnx", "text"): "onnxruntime numpy tokenizers",
    ("openvino", "image"): "openvino numpy pillow",
    ("openvino", "text"): "openvino numpy tokenizers",
}


def card_text(head: Head, settings: Mapping[str, Any], comparison: Comparison, sizes: Mapping[str, int]) -> str:
    """Return the card as Markdown."""
    spec, report = head.spec, head.report
    items = "photos" if spec.modality == "image" else "messages.csv"
    rows = [
        ("backbone", spec.title),
        ("weights", f"sha256 {spec.weights_sha256}"),
        ("head", f"{head.name}, {report.task} of {_text(head.label)}, fitted on {report.rows:,} rows"),
        ("model", f"{settings['format']}, {settings['precision']}, {sizes[settings['model']] / 1e6:,.1f} MB"),
    ]
    if settings["format"] == "onnx":
        rows.append(("operators", f"ONNX opset {settings['opset']}"))
    classes = [f"## Classes\n\n{', '.join(_code(name) for name in settings['classes'])}"] if settings["classes"] else []
    return (
        "\n\n".join(
            [
                f"# {_text(head.name)}: {report.task} of {_text(head.label)}",
                "Exported by embedpipe. The folder is whole: it needs neither embedpipe nor torch.",
                f"```bash\npip install {_NEEDS[settings['format'], spec.modality]}\n"
                f"python predict.py {items} --to predictions.csv\n```",
                "| | |\n|---|---|\n" + "\n".join(f"| {name} | {_text(value)} |" for name, value in rows),
                "## Input and output\n\n" + _tensors(settings),
                "## Figures of the head\n\n" + measured_table(report),
                f"## Compared with the head\n\n{comparison.words}. "
                f"The item with the largest is {_code(comparison.worst_id)}.",
                *classes,
                "## Licence\n\nThat of the backbone's weights applies to this model; the photos or texts that the head "
                "learned from are not in it.",
            ]
        )
        + "\n"
    )


def _tensors(settings: Mapping[str, Any]) -> str:
    outputs = settings["outputs"]
    kind = settings["output"]
    given = f"`outputs`: float32 (n, {outputs}), the {kind}" + (" in the order of the classes." if outputs > 1 else ".")
    if settings["modality"] == "text":
        names = ", ".join(f"`{name}`" for name in settings["inputs"])
        return f"{names}: int64 (n, length), from `tokenizer.json`.\n\n{given}"
    recipe = settings["preprocessing"]
    height, width = recipe["crop"]
    return (
        f"`pixels`: uint8 (n, {height}, {width}, 3), RGB, upright. The graph normalises them. `predict.py` resizes as "
        f"embedpipe does: shorter side or size {list(recipe['resize'])}, {recipe['interpolation']} with antialiasing, "
        f"centre crop. The resize is not part of the graph, as ONNX's own gives other pixels.\n\n{given}"
    )


def _text(value: Any) -> str:
    """Return text that cannot leave its cell of a table, nor begin an element of HTML."""
    return " ".join(str(value).replace("|", "\\|").replace("<", "&lt;").split())


def _code(value: Any) -> str:
    return "`" + " ".join(str(value).replace("`", "'").split()) + "`"
