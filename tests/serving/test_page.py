"""The page in a browser without a network and without a GPU."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from page import ODD, Browser
from serving.conftest import make_viewer, serving
from stored import clusters, make_store

import embedpipe
from embedpipe.backbones import reload_backbone
from embedpipe.backbones.options import ReloadOptions
from embedpipe.embedding.options import ComputeOptions
from embedpipe.serving.app import create_app
from embedpipe.serving.guard import LOCAL
from embedpipe.serving.head_app import HeadService, create_head_app
from embedpipe.serving.viewing.predictions import Predictions
from embedpipe.serving.viewing.searching import Searcher
from embedpipe.serving.viewing.viewer import Viewer

pytestmark = pytest.mark.long

LOADED = "[...document.querySelectorAll('.tile img[src]')].filter(one => one.complete && one.naturalWidth).length"
#: Milliseconds in which a map of a million points is drawn.
MOST_MILLISECONDS = 300
#: Bytes by which the page may grow while a long gallery is scrolled.
MOST_GROWTH = 4_000_000


@pytest.fixture(scope="module")
def address(store: Any) -> Iterator[str]:
    with serving(create_app(make_viewer(store.path))) as address:
        yield address


@pytest.fixture
def edited(copied: Callable[[], Path]) -> Iterator[tuple[str, Path]]:
    path = copied()
    with serving(create_app(make_viewer(path, edit=True))) as address:
        yield address, path


def test_pictures_come_at_once_and_a_click_shows_what_is_similar(browser: Browser, address: str) -> None:
    browser.visit(address)
    browser.until(f"{LOADED} >= 20")
    assert browser.ask("document.title") == "photos.features · embedpipe"
    browser.ask("document.querySelectorAll('.tile')[7].click()")
    browser.until("document.querySelector('#total').textContent.includes('nearest')")
    browser.until("document.querySelector('#item h2')?.textContent === 'cat/21.jpg'")
    assert "near=row%3A7" in browser.ask("location.hash")
    asked, complaints = browser.asked_and_complained()
    assert all(url.startswith((address, "about:blank")) for url in asked)
    # One picture of the store has lost its file.
    assert [entry for entry in complaints if "status of 410" not in str(entry)] == []


def test_a_link_shows_the_same_again(browser: Browser, address: str, store: Any) -> None:
    browser.visit(address)
    browser.until(f"{LOADED} >= 20")
    browser.ask("document.querySelectorAll('.tile')[3].click()")
    browser.until("document.querySelector('#item h2')?.textContent")
    link, shown = browser.ask("location.href"), browser.ask("document.querySelector('#item h2').textContent")
    browser.visit(link)
    browser.until(f"document.querySelector('#item h2')?.textContent === {json.dumps(shown)}")
    browser.until("document.querySelector('#total').textContent.includes('nearest')")
    browser.visit(link.replace("key=", "key=0"))  # row numbers of other items
    browser.until("!document.querySelector('#notice').hidden")
    assert browser.ask("document.querySelector('#item').hidden")


def test_the_keyboard_alone_is_enough(browser: Browser, edited: tuple[str, Path]) -> None:
    address, path = edited
    browser.visit(address)
    browser.until(f"{LOADED} >= 20")
    for key in ("ArrowRight", "ArrowRight", "ArrowRight", "Enter"):
        browser.press(key)
    browser.until("document.querySelector('#total').textContent.includes('nearest')")
    browser.press("Escape")
    browser.press("Escape")
    browser.until("document.querySelector('#total').textContent === '30 items'")
    browser.press("ArrowRight")
    browser.press("3")  # the third class, and on to the next item
    browser.until("document.querySelector('#saved').textContent === 'saved'")
    labels = embedpipe.FeatureStore(path).to_arrow(["label"])["label"].to_pylist()
    assert labels[:3] == ["owl", "cat", "cat"]
    browser.press("u")
    browser.until(
        "document.querySelector('#undo').disabled && document.querySelector('#saved').textContent === 'saved'"
    )
    assert embedpipe.FeatureStore(path).to_arrow(["label"])["label"][0].as_py() == "cat"


def test_keys_do_not_change_an_item_of_a_gallery_that_is_hidden(browser: Browser, edited: tuple[str, Path]) -> None:
    address, path = edited
    browser.visit(address)
    browser.until(f"{LOADED} >= 20")
    for key in ("ArrowRight", "v", "v", "3"):  # the map alone is shown
        browser.press(key)
    assert browser.ask("document.querySelector('#gallery').hidden && document.querySelector('#undo').disabled")
    for key in ("v", "3"):
        browser.press(key)
    browser.until("document.querySelector('#saved').textContent === 'saved'")
    assert embedpipe.FeatureStore(path).to_arrow(["label"])["label"].to_pylist()[:2] == ["owl", "cat"]


def test_filters_show_labels_that_were_changed_on_the_page(browser: Browser, edited: tuple[str, Path]) -> None:
    browser.visit(edited[0])
    browser.until(f"{LOADED} >= 20")
    cat = "[...document.querySelectorAll('#filters li')].find(one => one.textContent.startsWith('cat'))"
    browser.ask(f"{cat}.querySelector('input').click()")
    browser.until("document.querySelector('#total').textContent === '10 of 30 items'")
    browser.press("ArrowRight")
    browser.press("2")
    browser.until("document.querySelector('#saved').textContent === 'saved'")
    for total in ("30 items", "9 of 30 items"):
        browser.ask(f"{cat}.querySelector('input').click()")
        browser.until(f"document.querySelector('#total').textContent === '{total}'")


def test_other_items_are_shown_with_their_predictions(
    browser: Browser, copied: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    add_to = Predictions.add_to
    monkeypatch.setattr(Predictions, "add_to", lambda *given: (time.sleep(1.5), add_to(*given)))
    store = embedpipe.FeatureStore(copied())
    head = embedpipe.fit(store, "logreg", folds=0, progress=False)
    searcher = Searcher(None, ReloadOptions(trust=True), ComputeOptions())
    viewer = Viewer(embedpipe.FeatureStore(store.path), searcher, head=head)
    viewer.start()
    predicted = "document.querySelector('[id^=tile-] .score')?.textContent.includes('%')"
    with serving(create_app(viewer)) as address:
        browser.visit(address)
        browser.until(predicted)
        store.remove(store.ids()[:1])
        browser.ask("fetch('api/store').then(() => document.querySelectorAll('.tile')[3].click())")
        browser.until("document.querySelector('#notice button.primary')?.textContent === 'Show them'")
        browser.ask("document.querySelector('#notice button.primary').click()")
        browser.until("document.querySelector('#total').textContent === '29 items'")
        browser.until(predicted)


def test_several_labels_are_compared_without_their_order(browser: Browser, address: str) -> None:
    browser.visit(address)
    browser.until(f"{LOADED} >= 20")
    captions = browser.ask(
        """import('/gallery.js').then(async ({ Gallery }) => {
            const root = document.createElement('div'), sheet = document.createElement('div');
            root.id = 'gallery'; sheet.id = 'sheet'; root.append(sheet);
            document.querySelector('#split').replaceChildren(root);
            const of = (row, label, prediction) => (
                {row, id: `${row}`, label, prediction, text: '', score: null, confidence: null});
            const gallery = new Gallery(root, sheet, {load: async () => [], open() {}, focus() {}, colourOf: () => ''});
            gallery.separator = ';';
            gallery.reset(3, [of(0, 'round; red', 'red;round'), of(1, 'red', 'red;round'), of(2, 'red', '')]);
            await new Promise(done => setTimeout(done, 400));
            const tiles = [0, 1, 2].map(index => gallery.tiles.get(index));
            const words = ({label, instead}) => [label.textContent, instead.textContent];
            return tiles.map(tile => [...words(tile.parts), tile.classList.contains('mistaken')]);
        })"""
    )
    assert captions == [["round; red", "", False], ["red", "→ red;round", True], ["red", "→ ", True]]


def test_labels_and_ids_are_text(browser: Browser, copied: Callable[[], Path]) -> None:
    path = copied()
    opened = embedpipe.FeatureStore(path)
    ids = opened.ids()
    labels = [ODD[i % 4].replace("\x00", "") for i in range(len(ids))]
    opened.label(pa.table({"id": ids, "label": labels}))
    with serving(create_app(make_viewer(path))) as address:
        browser.visit(f"{address}#view=both")
        browser.until(f"{LOADED} >= 8")
        browser.ask("document.querySelectorAll('.tile')[1].click()")
        browser.until("document.querySelector('#item h2')?.textContent")
        assert browser.ask("window.hacked") is None
        assert browser.ask("document.querySelectorAll('script').length") == 1
        assert ODD[0] in browser.ask("document.querySelector('#filters').textContent")


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")])
def test_axe_finds_nothing_serious(browser: Browser, edited: tuple[str, Path], width: int, scheme: str) -> None:
    axe = pytest.importorskip("axe_core_python")
    script = (Path(axe.__path__[0]) / "axe.min.js").read_text(encoding="utf-8")
    browser.visit(f"{edited[0]}#view=both", width, scheme)
    browser.until(f"{LOADED} >= 4")
    browser.until("document.querySelector('.map-note').textContent.includes('t-SNE')", 60)
    assert browser.ask("document.documentElement.scrollWidth <= innerWidth"), "the page is wider than the screen"
    for step in ("1", "document.querySelectorAll('.tile')[1].click()", "document.querySelector('#open-help').click()"):
        browser.ask(step)
        browser.ask("new Promise(done => setTimeout(done, 800))")
        browser.ask(script)
        found = browser.ask("axe.run(document, {resultTypes: ['violations']}).then(found => found.violations)")
        serious = [entry for entry in found if entry["impact"] in ("serious", "critical")]
        assert [(entry["id"], entry["nodes"][0]["html"][:200]) for entry in serious] == []


def test_a_million_points_are_drawn_fast(browser: Browser, address: str) -> None:
    browser.visit(f"{address}#view=map")
    browser.until("document.querySelector('.map-note').textContent.includes('t-SNE')", 60)
    fastest = browser.ask(
        """import('/map.js').then(({ MapView }) => {
            const root = document.querySelector('#map');
            root.replaceChildren();
            const view = new MapView(root, {});
            view.setPoints(Uint16Array.from({length: 2e6}, () => Math.random() * 65534));
            const codes = Uint16Array.from({length: 1e6}, (_, i) => i % 12);
            view.setCodes({kind: 'class', values: [...'abcdefghijkl']}, codes);
            return Math.min(...[1, 2, 3, 4, 5].map(() => (view.scatter.draw(), view.scatter.milliseconds)));
        })"""
    )
    assert 0 < fastest <= MOST_MILLISECONDS


def test_a_long_gallery_needs_no_more_memory(browser: Browser, store: Any, tmp_path: Path) -> None:
    few = store.to_arrow(["uri", "content_hash", "source_root", "label", "embedding"]).slice(0, 20)
    many = few.take([i % 20 for i in range(100_000)]).add_column(0, "id", [[f"{i:06d}" for i in range(100_000)]])
    long = embedpipe.FeatureStore.create(tmp_path / "long.features", store.spec)
    long.write(many)
    with serving(create_app(make_viewer(long.path))) as address:
        browser.visit(address)
        browser.until(f"{LOADED} >= 20")
        sizes, nodes = [], []
        for step in range(24):
            bar = "document.querySelector('#gallery').scrollTop"
            place = f"({bar} = {step / 23} * document.querySelector('#sheet').clientHeight)"
            browser.ask(f"{place}, new Promise(done => setTimeout(done, 200))")
            browser.until(f"{LOADED} >= 10")
            if step % 6 == 5:
                browser.call("HeapProfiler.collectGarbage")
                sizes.append(browser.call("Runtime.getHeapUsage")["usedSize"])
                nodes.append(browser.ask("document.querySelectorAll('*').length"))
        assert (
            browser.ask("Math.max(...[...document.querySelectorAll('.tile[id]')].map(one => one.dataset.index))")
            == 99_999
        )
    assert max(sizes) - sizes[0] < MOST_GROWTH, sizes
    assert max(nodes) < nodes[0] + 500, nodes


def test_a_million_items_can_be_scrolled_to_the_end_and_row_by_row(browser: Browser, address: str) -> None:
    """Browsers cut off what is as tall, so that the bar stands for more than it shows."""
    browser.visit(address)
    browser.until(f"{LOADED} >= 20")
    found = browser.ask(
        """import('/gallery.js').then(async ({ Gallery }) => {
            const root = document.createElement('div'), sheet = document.createElement('div');
            root.id = 'gallery'; sheet.id = 'sheet'; root.append(sheet);
            document.querySelector('#split').replaceChildren(root);
            const load = async (start, count) => Array.from({length: count}, (_, i) => (
                {row: start + i, id: `${start + i}`, label: null, text: `text ${start + i}`, score: null,
                 prediction: null, confidence: null}));
            const gallery = new Gallery(root, sheet, {load, open() {}, focus() {}, colourOf: () => ''});
            gallery.isText = true;
            const still = () => new Promise(done => setTimeout(done, 400));
            await still();
            gallery.reset(1e6, null);
            await still();
            const shown = () => [...gallery.tiles.values()].filter(one => one.row).map(one => one.row.row);
            root.scrollTop = sheet.clientHeight / 2;
            await still();
            const middle = Math.min(...shown()), before = gallery.top;
            root.scrollTop += 40;
            await new Promise(done => setTimeout(done, 60));
            const step = gallery.top - before;
            root.scrollTop = sheet.clientHeight;
            await still();
            const last = Math.max(...shown());
            gallery.setCurrent(500000);
            await still();
            const seen = document.getElementById('tile-500000').getBoundingClientRect();
            const inside = seen.top >= 0 && seen.bottom <= innerHeight;
            return {middle, step, last, height: sheet.clientHeight, inside};
        })"""
    )
    assert found["height"] <= 8_000_000
    assert 400_000 < found["middle"] < 600_000
    assert (found["step"], found["last"], found["inside"]) == (40, 999_999, True)


def test_the_map_shows_items_under_the_pointer_and_selects_by_a_lasso(browser: Browser, address: str) -> None:
    browser.visit(f"{address}#view=map")
    browser.until("document.querySelector('.map-note').textContent.includes('t-SNE')", 60)
    stage = "document.querySelector('.stage').getBoundingClientRect()"
    x, y, width, height = browser.ask(f"(({{x, y, width, height}}) => [x, y, width, height])({stage})")

    def mouse(kind: str, a: float, b: float, **more: Any) -> None:
        browser.call("Input.dispatchMouseEvent", type=kind, x=x + a, y=y + b, **more)

    points = "api/map/points?key=" + browser.ask("fetch('api/store').then(one => one.json()).then(one => one.key)")
    first = browser.ask(
        f"fetch('{points}').then(one => one.arrayBuffer()).then(one => [...new Uint16Array(one, 0, 2)])"
    )
    side = min(width, height)
    across, down = (
        place / 65534 * side + (size - side) / 2 for place, size in zip(first, (width, height), strict=True)
    )
    mouse("mouseMoved", across, down)
    browser.until("!document.querySelector('.tip').hidden && document.querySelector('.tip img').naturalWidth")
    held = {"button": "left", "buttons": 1, "clickCount": 1, "modifiers": 8}  # with Shift
    mouse("mousePressed", 1, 1, **held)
    for a, b in ((width / 2, 1), (width / 2, height - 2), (1, height - 2)):
        mouse("mouseMoved", a, b, **held)
    mouse("mouseReleased", 1, height - 2, **held)
    browser.until("location.hash.includes('within=')")
    browser.until("document.querySelector('#total').textContent.includes('of 30 items')")
    browser.ask("[...document.querySelectorAll('.map-tools button')].find(one => one.textContent === 'Clear').click()")
    browser.until("document.querySelector('#total').textContent === '30 items'")


@pytest.mark.parametrize("width", [1280, 390])
def test_captions_of_mistakes_show_the_whole_prediction(
    browser: Browser, copied: Callable[[], Path], width: int
) -> None:
    store = embedpipe.FeatureStore(copied())
    names = {"cat": "house cat", "dog": "garden dog", "owl": "forest owl"}
    labels = [names[id.split("/")[0]] for id in store.ids()]
    labels[0], labels[1] = names["owl"], names["dog"]  # both are cats
    store.label(pa.table({"id": store.ids(), "label": labels}))
    head = embedpipe.fit(store, "lda", progress=False)
    viewer = Viewer(store, Searcher(None, ReloadOptions(), ComputeOptions()), head=head)
    viewer.predictions.add_to(viewer.collection)  # type: ignore[union-attr]
    with serving(create_app(viewer)) as address:
        browser.visit(f"{address}#order=wrong", width)
        browser.until("document.querySelector('.predicted .mistaken .wrong')")
        captions = "[...document.querySelectorAll('.mistaken .wrong')]"
        assert browser.ask(f"{captions}.every(one => one.textContent.startsWith('→ '))")
        assert browser.ask(f"{captions}.every(one => one.scrollWidth <= one.clientWidth)")


def test_numbers_keep_their_digits_and_are_no_classes(browser: Browser, tmp_path: Path) -> None:
    numbers = {"label": [i / 7 for i in range(60)], "tweet": [2**60 + i for i in range(60)]}
    store = make_store(tmp_path / "s.features", clusters(60)[0], **numbers)
    with serving(create_app(make_viewer(store.path, edit=True))) as address:
        browser.visit(f"{address}#item=3")
        browser.until("document.querySelector('#item .labels')")
        assert str(2**60 + 3) in browser.ask("document.querySelector('#item').innerText")
        assert browser.ask("[...document.querySelectorAll('#item .choices button')].map(one => one.innerText)") == [
            "0\nnone"
        ]
        browser.press("1")
        assert browser.ask("document.querySelector('#undo').disabled")


def test_classes_that_are_numbers_stand_in_the_order_of_their_probabilities(
    browser: Browser, copied: Callable[[], Path]
) -> None:
    store = embedpipe.FeatureStore(copied())
    store.label(
        pa.table({"id": store.ids(), "digit": [len(id.split("/")[0]) % 2 + i % 3 for i, id in enumerate(store.ids())]}),
        label="digit",
        into="digit",
    )
    head = embedpipe.fit(store, "lda", label="digit", task="classification", progress=False)
    viewer = Viewer(store, Searcher(None, ReloadOptions(), ComputeOptions()), head=head)
    viewer.predictions.add_to(viewer.collection)  # type: ignore[union-attr]
    with serving(create_app(viewer)) as address:
        for row in (3, 4, 5):
            browser.visit(f"{address}#item={row}")
            browser.until("document.querySelectorAll('#item .shares li').length > 1")
            shares = browser.ask(
                "[...document.querySelectorAll('#item .shares .count')].map(one => parseFloat(one.innerText))"
            )
            assert shares == sorted(shares, reverse=True)


def test_the_page_of_serve_shows_scores_as_scores(browser: Browser, store: Any) -> None:
    head = embedpipe.fit(store, "ridge", task="classification", progress=False)
    backbone = reload_backbone(head.spec, ReloadOptions(trust=True), "cpu", "the head")
    picture = json.dumps(list(Path(store.to_arrow(["uri"])["uri"][0].as_py()).read_bytes()))
    with serving(create_head_app(HeadService(head, backbone), LOCAL)) as address:
        browser.visit(address)
        browser.until("document.querySelector('#try input')")
        browser.ask(
            f"""(() => {{ const files = new DataTransfer();
                files.items.add(new File([Uint8Array.from({picture})], 'a.jpg'));
                dispatchEvent(new DragEvent('drop', {{ dataTransfer: files }})); }})()"""
        )
        browser.until("document.querySelectorAll('#answer .count').length === 3")
        assert "%" not in browser.ask("document.querySelector('#answer').innerText")


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_of_serve_is_no_wider_than_the_screen(browser: Browser, store: Any, width: int) -> None:
    head = embedpipe.fit(store, "centroid", progress=False)
    backbone = reload_backbone(head.spec, ReloadOptions(trust=True), "cpu", "the head")
    with serving(create_head_app(HeadService(head, backbone), LOCAL)) as address:
        browser.visit(address, width)
        browser.until("document.querySelectorAll('#routes section').length && document.querySelector('#try input')")
        assert browser.ask("document.documentElement.scrollWidth <= innerWidth")
        assert browser.ask("document.querySelector('main').scrollWidth <= innerWidth")


def test_the_api_is_described_on_a_page(browser: Browser, address: str) -> None:
    browser.visit(f"{address.rstrip('/')}/api.html")
    browser.until("document.querySelectorAll('section').length > 10")
    words = browser.ask("document.body.innerText")
    assert "GET /api/rows" in words
    assert "Condition over the columns" in words
    assert "undefined" not in words
