"""The page of a notebook: its cells and the outputs that are saved in it. Nothing is run."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from writing import write_if_changed


def write(notebook: Path, folder: Path) -> None:
    """Write the page and its pictures, which have the name of the notebook."""
    parts: list[str] = []
    for number, cell in enumerate(json.loads(notebook.read_text(encoding="utf-8"))["cells"]):
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(text)
            continue
        parts.append(f"```python\n{text}\n```")
        for place, output in enumerate(cell["outputs"]):
            parts.append(_output(output["data"], folder / f"{notebook.stem}-{number}-{place}.png"))
    write_if_changed(folder / f"{notebook.stem}.md", "\n\n".join(parts) + "\n")


def _output(data: dict[str, Any], picture: Path) -> str:
    """Return what a notebook shows of an output: the picture, else the HTML, else the text."""
    if "image/png" in data:
        picture.write_bytes(base64.b64decode("".join(data["image/png"])))
        return f"![{picture.stem}]({picture.name})"
    if "text/html" in data:
        return f'```{{raw}} html\n<div class="output">{"".join(data["text/html"])}</div>\n```'
    return f"```text\n{''.join(data['text/plain'])}\n```"
