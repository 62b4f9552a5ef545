"""The example page classifies a dropped photo in a real browser, and asks nothing of another machine."""

from __future__ import annotations

import dataclasses
import functools
import json
import shutil
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from exported_script import Exported
from page import Browser

from embedpipe.decoding.picture import Picture
from embedpipe.decoding.recipe import Preprocessing
from embedpipe.decoding.resizing import to_pixels

PAGE = Path(__file__).parents[2] / "pipelines" / "browser" / "index.html"
RUNTIME = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
#: Drops the photo at an address on the page.
DROP = """(async url => {
  const file = new File([await (await fetch(url)).blob()], "photo.jpg")
  document.ondrop({preventDefault() {}, dataTransfer: {files: [file]}})
})"""


class _Handler(SimpleHTTPRequestHandler):
    extensions_map: ClassVar[dict[str, str]] = {
        **SimpleHTTPRequestHandler.extensions_map,
        ".mjs": "text/javascript",
        ".wasm": "application/wasm",
    }

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""


@pytest.fixture
def site(exported: Exported, tmp_path: Path) -> Iterator[str]:
    """Serve the page, the model and npm's onnxruntime-web from a local folder; yield the address."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed, by which the page gets onnxruntime-web")
    packed = subprocess.run(["npm", "pack", "onnxruntime-web@1.30"], cwd=tmp_path, capture_output=True, check=False)
    if packed.returncode:
        pytest.skip("npm's registry cannot be reached")
    folder = tmp_path / "site"
    shutil.copytree(exported.folder, folder / "model")
    for file in PAGE.parent.iterdir():
        shutil.copy(file, folder)
    shutil.copy(exported.photos / "train" / "dog" / "01.jpg", folder / "photo.jpg")
    (folder / "ort").mkdir()
    with tarfile.open(next(tmp_path.glob("onnxruntime-web-*.tgz"))) as archive:
        for name in RUNTIME:
            member = archive.extractfile(f"package/dist/{name}")
            assert member is not None
            (folder / "ort" / name).write_bytes(member.read())
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.long
@pytest.mark.timeout(240)
def test_page_classifies_a_dropped_photo(site: str, exported: Exported, browser: Browser) -> None:
    browser.visit(f"{site}/index.html")
    browser.until("document.querySelector('p').textContent.startsWith('logreg on')", 120)
    browser.ask(f"{DROP}('photo.jpg')")
    browser.until("document.querySelectorAll('tr').length === 2", 60)
    rows = browser.ask("[...document.querySelectorAll('tr')].map(row => [...row.cells].map(cell => cell.textContent))")
    assert {row[0] for row in rows} == {"cat", "dog"}
    table = exported.head.predict(exported.photos / "train" / "dog" / "01.jpg", trust=True)
    for name, _, percent in rows:
        assert float(percent.split()[0]) == pytest.approx(100 * table[f"probability_{name}"][0].as_py(), abs=0.2)
    browser.ask("document.querySelector('td').textContent = 'name_of_a_class_'.repeat(5)")
    browser.call("Emulation.setDeviceMetricsOverride", width=320, height=800, deviceScaleFactor=1, mobile=True)
    assert browser.ask("document.documentElement.scrollWidth") == 320
    browser.ask(f"{DROP}('model/model.json')")
    browser.until("document.querySelector('p').textContent.startsWith('this file cannot be read as a photo')", 60)
    asked = [
        event["params"]["request"]["url"] for event in browser.events if event["method"] == "Network.requestWillBeSent"
    ]
    assert asked
    assert all(url.startswith((site, f"blob:{site}", "about:")) for url in asked)


@pytest.mark.long
@pytest.mark.timeout(240)
def test_page_refuses_a_model_of_scores(site: str, tmp_path: Path, browser: Browser) -> None:
    file = tmp_path / "site" / "model" / "model.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "output": "scores"}))
    browser.visit(f"{site}/index.html")
    browser.until("document.querySelector('p').textContent.endsWith('scores: fit logreg, or calibrate the head')", 60)


def test_page_is_short_and_names_no_other_machine() -> None:
    assert {file.name for file in PAGE.parent.iterdir()} == {"index.html", "resize.js"}
    for file in PAGE.parent.iterdir():
        source = file.read_text(encoding="utf-8")
        assert len(source.splitlines()) < 70
        assert "http" not in source


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node, which runs JavaScript")
def test_resize_of_the_page_gives_the_bytes_of_embedpipe(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    cases, expected = [], []
    for number in range(12):
        height, width = random.integers(20, 140, 2).tolist()
        pixels = random.integers(0, 256, (height, width, 3), np.uint8)
        recipe = Preprocessing(
            resize=(40,) if number % 3 else (40, 30),
            crop=(24, 23),
            interpolation=("bilinear", "bicubic")[number % 2],
            crop_rounding=("even", "down")[number // 2 % 2],
        )
        expected.append(to_pixels(Picture(pixels, (width, height)), recipe).ravel().tolist())
        opaque = np.dstack([pixels, np.full((height, width), 255, np.uint8)])
        photo = {"width": width, "height": height, "data": opaque.ravel().tolist()}
        cases.append({"photo": photo, "recipe": dataclasses.asdict(recipe)})
    shutil.copy(PAGE.parent / "resize.js", tmp_path / "resize.mjs")
    (tmp_path / "run.mjs").write_text(
        'import {resize} from "./resize.mjs"; import fs from "fs"\n'
        'const cases = JSON.parse(fs.readFileSync(0, "utf8"))\n'
        "console.log(JSON.stringify(cases.map(({photo, recipe}) => [...resize(photo, recipe)])))"
    )
    done = subprocess.run(
        ["node", tmp_path / "run.mjs"], input=json.dumps(cases), capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == expected
