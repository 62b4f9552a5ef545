"""The page in a browser without a network: pictures, search by a click, links, keys."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from page import Browser
from serving.conftest import make_viewer, serving

from embedpipe.serving.app import create_app

SHOWN = "document.querySelectorAll('.tile img[src]').length"
LOADED = "[...document.querySelectorAll('.tile img[src]')].filter(one => one.complete && one.naturalWidth).length"


@pytest.fixture(scope="module")
def address(store: Any) -> Iterator[str]:
    with serving(create_app(make_viewer(store.path))) as address:
        yield address


@pytest.mark.long
def test_pictures_come_at_once_and_a_click_shows_what_is_similar(browser: Browser, address: str) -> None:
    browser.visit(address)
    browser.until(f"{LOADED} >= 20", seconds=5)
    assert browser.ask("document.title") == "photos.features · embedpipe"
    browser.ask("document.querySelectorAll('.tile')[7].click()")
    browser.until("document.querySelector('#total').textContent.includes('nearest')", seconds=1)
    browser.until("document.querySelector('#item h2')?.textContent === 'cat/21.jpg'")
    assert "near=row%3A7" in browser.ask("location.hash")
    asked, complaints = browser.asked_and_complained()
    assert all(url.startswith((address, "about:blank")) for url in asked)
    assert [one for one in complaints if "29.jpg" not in str(one) and "410" not in str(one)] == []
