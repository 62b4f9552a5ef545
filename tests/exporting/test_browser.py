"""The example page classifies a dropped photo in a real browser, and asks nothing of another machine."""

from __future__ import annotations

import functools
import shutil
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
from exported_script import Exported
from page import Browser

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
    shutil.copy(PAGE, folder)
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
def test_page_classifies_a_dropped_photo(site: str, browser: Browser) -> None:
    browser.visit(f"{site}/index.html")
    browser.until("document.querySelector('p').textContent.startsWith('logreg on')", 120)
    browser.ask(f"{DROP}('photo.jpg')")
    browser.until("document.querySelectorAll('tr').length === 2", 60)
    rows = browser.ask("[...document.querySelectorAll('tr')].map(row => [...row.cells].map(cell => cell.textContent))")
    assert {row[0] for row in rows} == {"cat", "dog"}
    assert sum(float(row[2].split()[0]) for row in rows) == pytest.approx(100, abs=0.2)
    browser.ask(f"{DROP}('model/model.json')")
    browser.until("document.querySelector('p').textContent.startsWith('this file cannot be read as a photo')", 60)
    asked = [
        event["params"]["request"]["url"] for event in browser.events if event["method"] == "Network.requestWillBeSent"
    ]
    assert asked
    assert all(url.startswith((site, f"blob:{site}", "about:")) for url in asked)


def test_page_is_short_and_names_no_other_machine() -> None:
    source = PAGE.read_text(encoding="utf-8")
    assert len(source.splitlines()) < 70
    assert "http" not in source
