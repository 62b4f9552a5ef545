"""Pages held to be well-formed, and looked at in a browser."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import subprocess
import threading
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

ODD = [
    "<script>window.hacked=1</script>",
    "\"><img src=x onerror='window.hacked=1'>",
    "'quoted' & \"quoted\"",
    "🐈‍⬛ кошка 日本語 العربية",
    "a very long name " * 60,
    "$x_1$ {{ 7 * 7 }} {% raw %}",
    "\udcff\x00\x1b[31m",
    "#010101 var(--ink)",
]
#: The most that a test with a browser takes.
SECONDS = 120.0
VOID = {"meta", "link", "img", "br", "wbr"}


class Page(HTMLParser):
    """Reads a page and holds it to be well-formed: tags that close, ids that are unique, nothing from elsewhere.

    ``scripts``: number of scripts, which the page's policy must allow by their hashes.
    """

    def __init__(self, path: Path, scripts: int = 0) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.open: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.targets: list[str] = []
        self.links: list[str] = []
        self.text: list[str] = []
        self.feed(self.source)
        self.close()
        assert not self.open
        assert len(set(self.ids)) == len(self.ids)
        assert {link[1:] for link in self.targets if link.startswith("#")} <= set(self.ids)
        assert all(link.startswith(("#", "data:")) for link in self.targets)
        assert {urllib.parse.urlsplit(link).scheme for link in self.links} <= {"", "file", "http", "https"}
        assert self.tags.count("script") == scripts
        assert not {"iframe", "object", "embed", "form"} & set(self.tags)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            assert not name.startswith("on"), f"<{tag} {name}={value!r}>"
            if name == "id":
                self.ids.append(value or "")
            elif tag == "a" and name == "href" and not (value or "").startswith("#"):
                self.links.append(value or "")  # nothing is loaded from where a reader may go
                assert ("rel", "noreferrer") in attrs
            elif name in ("src", "href", "srcset", "data", "action", "xlink:href"):
                self.targets.append(value or "")
            elif name in ("style", "clip-path"):
                self.targets += re.findall(r"url\(([^)]*)\)", value or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)
        if self.open and self.open[-1] == "style":
            assert "url(" not in data
            assert "@import" not in data

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


class Browser:
    """Headless Chromium, spoken to by its own protocol over pipes."""

    def __init__(self, program: str, profile: Path) -> None:
        # the protocol's pipes are descriptors 3 and 4
        command = ["sh", "-c", 'exec "$@" 3<&0 4>&1 >/dev/null 2>&1', "sh", program, "--headless", "--no-sandbox"]
        flags = ["--remote-debugging-pipe", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
        flags += ["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]  # nothing but this machine is reached
        self._process = subprocess.Popen(
            [*command, *flags, f"--user-data-dir={profile}", "about:blank"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._count = 0
        self._session: dict[str, str] = {}
        self.events: list[dict[str, Any]] = []
        targets = self.call("Target.getTargets")["targetInfos"]
        page = next(target for target in targets if target["type"] == "page")
        self._session = {
            "sessionId": self.call("Target.attachToTarget", targetId=page["targetId"], flatten=True)["sessionId"]
        }

    def call(self, method: str, **params: Any) -> Any:
        self._count += 1
        message = {"id": self._count, "method": method, "params": params, **self._session}
        assert self._process.stdin
        self._process.stdin.write(json.dumps(message).encode() + b"\0")
        self._process.stdin.flush()
        while (answer := self._next()).get("id") != self._count:
            self.events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def open_alone(self, page: Path, width: int, scheme: str) -> list[float]:
        """Show a page, which loads nothing, runs nothing, complains of nothing and fits; return its charts' widths."""
        events = self.open(page, width, scheme)
        asked = [
            event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"
        ]
        assert page.as_uri() in asked
        assert all(url == page.as_uri() or url.startswith("data:") for url in asked)
        complaints = ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Network.loadingFailed")
        assert [event for event in events if event["method"] in complaints] == []
        assert self.ask("window.hacked") is None
        assert self.ask("document.documentElement.scrollWidth <= innerWidth"), "the page is wider than the screen"
        widths: list[float] = self.ask(
            "[...document.querySelectorAll('svg')].map(one => one.getBoundingClientRect().width)"
        )
        return widths

    def open(self, page: Path, width: int, scheme: str) -> list[dict[str, Any]]:
        """Show a page without a network; return what it asked for and what was complained of."""
        for domain in ("Page", "Network", "Log", "Runtime"):
            self.call(f"{domain}.enable")
        self.call("Network.emulateNetworkConditions", offline=True, latency=0, downloadThroughput=0, uploadThroughput=0)
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=width < 600
        )
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.events.clear()
        self.call("Page.navigate", url=page.as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(self._next())
        self.ask("document.querySelectorAll('details').forEach(one => one.open = true)")
        return list(self.events)

    def visit(self, url: str, width: int = 1280, scheme: str = "light") -> None:
        """Show a page of a server of this machine."""
        for domain in ("Page", "Network", "Log", "Runtime"):
            self.call(f"{domain}.enable")
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=width < 600
        )
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.events.clear()
        self.call(
            "Page.navigate", url="about:blank"
        )  # an address that differs by its fragment only would not be loaded
        self.call("Page.navigate", url=url)

    def until(self, expression: str, seconds: float = 20.0) -> float:
        """Wait until an expression is true; return the seconds that it took."""
        start = time.monotonic()
        while not self.ask(f"Boolean({expression})"):
            assert time.monotonic() - start < seconds, f"not true after {seconds} s: {expression}"
            time.sleep(0.02)
        return time.monotonic() - start

    def press(self, key: str) -> None:
        """Press a key, such as ``Enter`` or ``u``."""
        codes = {"Enter": 13, "Escape": 27, "ArrowRight": 39, "ArrowDown": 40, "End": 35, "Home": 36, "Tab": 9}
        text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
        for kind in ("keyDown", "keyUp"):
            words = {"text": text} if text and kind == "keyDown" else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=codes.get(key, 0), **words)

    def asked_and_complained(self) -> tuple[list[str], list[Any]]:
        """Return the addresses that the page asked for, and everything that was complained of."""
        asked = [
            event["params"]["request"]["url"] for event in self.events if event["method"] == "Network.requestWillBeSent"
        ]
        kinds = ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Network.loadingFailed")
        canceled = [event for event in self.events if event["params"].get("canceled")]
        return asked, [event for event in self.events if event["method"] in kinds and event not in canceled]

    def ask(self, expression: str) -> Any:
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        return answer["result"].get("value")

    def picture(self) -> Image.Image:
        data = self.call("Page.captureScreenshot", captureBeyondViewport=False)["data"]
        return Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")

    def close(self) -> None:
        self.call("Browser.close")
        self._process.communicate(timeout=20)

    def kill(self) -> None:
        self._process.kill()

    def _next(self) -> dict[str, Any]:
        assert self._process.stdout
        read = bytearray()
        while (byte := self._process.stdout.read(1)) != b"\0":
            assert byte, "the browser has gone"
            read += byte
        message: dict[str, Any] = json.loads(read)
        return message


@contextmanager
def open_browser(profile: Path) -> Iterator[Browser]:
    """Yield a browser, or skip the test where there is none."""
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("no chromium or google-chrome on the PATH: apt-get install chromium")
    opened = Browser(program, profile)
    # A browser that does not answer would have the test wait for ever.
    watch = threading.Timer(SECONDS, opened.kill)
    watch.start()
    try:
        yield opened
        opened.close()
    finally:
        watch.cancel()
        opened.kill()
