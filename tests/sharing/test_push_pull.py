"""`push` and `pull`: what arrives at the hub, what does not, and that it comes back whole."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command import run
from conftest import TINY
from hub_server import Hub, serve_hub
from stored import make_store

import embedpipe
from embedpipe.errors import (
    EmbedpipeError,
    HeadError,
    HubError,
    StoreError,
    StoreNotFoundError,
    UnreachableError,
    UsageError,
)
from embedpipe.sharing.hub import hub_errors
from embedpipe.sharing.location import Repository
from embedpipe.sharing.xet import xet_if_it_answers

# huggingface_hub uploads without xet by an argument that its client no longer wants.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

DATA, MODEL = "hf://datasets/lab/photos", "hf://lab/photos-head"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """An empty hub."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", "hf_secretsecretsecret")
    (tmp_path / "served").mkdir()
    with serve_hub(tmp_path / "served") as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.address)
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.partition("{repo_id}")
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{hub.address}/{''.join(template[1:])}")
        monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", hub.address)
        yield hub


@pytest.fixture
def store(photos: Path, tmp_path: Path) -> embedpipe.FeatureStore:
    return embedpipe.embed(photos, tmp_path / "photos.features", backbone=TINY)


def served(hub: Hub, address: str = DATA) -> Path:
    return hub.root / address.removeprefix("hf://")


def contents(folder: Path) -> bytes:
    """Return all bytes of a repository, with those of compressed columns."""
    tables = [pq.read_table(path).drop_columns(["embedding"]).to_pydict() for path in folder.glob("*.parquet")]
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file()) + json.dumps(tables).encode()


def test_a_store_comes_back_as_it_was(hub: Hub, store: embedpipe.FeatureStore, tmp_path: Path) -> None:
    embedpipe.reduce(store, dimensions=4, sample=0)
    store.refresh()
    report = embedpipe.push(store, DATA, license="cc-by-4.0")
    pulled = embedpipe.pull(DATA, tmp_path / "pulled")
    assert isinstance(pulled, embedpipe.FeatureStore)
    assert pulled.spec == store.spec
    assert pulled.ids() == store.ids()
    for layer in store.layers:
        assert (pulled.to_numpy(layer=layer) == store.to_numpy(layer=layer)).all()
    assert pulled.to_arrow(["label", "content_hash"]) == store.to_arrow(["label", "content_hash"])
    assert pulled.spec.layers[-1].reduction.read().matrix.shape == (12, 4)
    assert embedpipe.pull(report.repository, tmp_path / "again").ids() == store.ids()
    assert embedpipe.verify(pulled, sample=0).ok


def test_no_place_of_this_machine_is_pushed(
    hub: Hub, store: embedpipe.FeatureStore, photos: Path, tmp_path: Path
) -> None:
    (photos / "cat/broken.jpg").write_bytes(b"no image")
    embedpipe.embed(photos, store.path, backbone=TINY)
    report = embedpipe.push(store.path, DATA)
    assert str(tmp_path).encode() not in contents(served(hub))
    assert b"hf_secret" not in contents(served(hub))
    assert report.notes == ["places of items on this machine, left out of the column 'uri': 12"]
    assert not (served(hub) / "_failures").exists()
    pulled = embedpipe.pull(DATA, tmp_path / "pulled")
    assert set(pulled.to_arrow(["uri"])["uri"].to_pylist()) == {None}
    assert pulled.counts("source_root") == {"/elsewhere": 12}
    later = embedpipe.embed(photos, pulled.path, backbone=TINY)
    assert (later.summary.embedded, later.summary.reused, later.summary.failed) == (0, 12, 1)
    embedpipe.push(store.path, DATA, keep_paths=True)
    assert embedpipe.pull(DATA, tmp_path / "kept").counts("source_root") == {str(photos): 12}


@pytest.mark.usefixtures("hub")
def test_names_with_paths_are_refused_in_any_letters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "jürgen"
    monkeypatch.setattr(Path, "home", lambda: home)
    X = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    ids, labels = [str(number) for number in range(20)], ["a", "b"] * 10
    store = embedpipe.import_vectors(X, tmp_path / "s", ids=ids, labels=labels, name=f"{home}/net")
    embedpipe.fit(store, "lda", to=tmp_path / "head", folds=0)
    for source, address in ((store, DATA), (tmp_path / "head", MODEL)):
        with pytest.raises(UsageError, match="what is pushed must not hold paths of this machine"):
            embedpipe.push(source, address)


def test_other_columns_with_paths_are_refused(hub: Hub, tmp_path: Path) -> None:
    places = [f"{tmp_path}/photos/{i}.jpg" for i in range(4)]
    store = make_store(tmp_path / "store", np.eye(4), place=places)
    store.write(store.to_arrow().set_column(3, "source_root", pa.array([f"{tmp_path}/photos"] * 4)))
    store.label(pa.table({"id": store.refresh().ids()[:1], "label": ["x"]}))
    with pytest.raises(UsageError, match=r"column 'place' holds .*exclude='place'"):
        embedpipe.push(store.refresh(), DATA)
    assert not served(hub).exists()
    assert "column 'place' is left out" in embedpipe.push(store, DATA, exclude=["place"]).notes
    with pytest.raises(UsageError, match="did you mean 'place'"):
        embedpipe.push(store, DATA, exclude=["plase"])
    with pytest.raises(UsageError, match="can be left out, got 'id'"):
        embedpipe.push(store, DATA, exclude=["id"])


def test_public_places_stay_and_keys_in_them_do_not(hub: Hub, tmp_path: Path) -> None:
    uris = ["https://a.org/1.jpg", "s3://bucket/2.jpg", "https://a.org/3.jpg?token=abc", "tar://x.jpg::/data/4.tar"]
    embedpipe.push(make_store(tmp_path / "store", np.eye(4), uri=uris), DATA)
    pulled = embedpipe.pull(DATA, tmp_path / "pulled").to_arrow(["uri"])["uri"].to_pylist()
    assert pulled == [*uris[:2], None, None]


def test_the_card_says_what_is_known(hub: Hub, store: embedpipe.FeatureStore) -> None:
    embedpipe.push(store, DATA, license="cc-by-4.0")
    card = (served(hub) / "README.md").read_text()
    assert card.startswith("---\nlicense: cc-by-4.0\n")
    for part in ("12 rows", "python/tiny_backbone", store.spec.fingerprint(), "| cat | 4 |", f"embedpipe pull {DATA}"):
        assert part in card
    embedpipe.push(store, DATA)
    card = (served(hub) / "README.md").read_text()
    assert "license:" not in card
    assert "No licence was given" in card


def test_a_value_cannot_leave_its_cell_of_the_card(hub: Hub, tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", np.eye(3), label=["<script>x</script>", "a | b", "c\n# d"])
    embedpipe.push(store, DATA)
    card = (served(hub) / "README.md").read_text()
    assert "<script>" not in card
    assert "a \\| b" in card
    assert "\n# d" not in card
    spec = {"a`b\n# c": ["x", "y", "x"]}
    embedpipe.push(make_store(tmp_path / "other", np.eye(3), **spec), DATA)
    assert "`a'b # c`" in (served(hub) / "README.md").read_text()


@pytest.mark.parametrize("head", ["centroid", "knn"])
def test_a_head_comes_back_as_it_was(hub: Hub, store: embedpipe.FeatureStore, tmp_path: Path, head: str) -> None:
    embedpipe.reduce(store, dimensions=4, sample=0)
    fitted = embedpipe.fit(store.refresh(), head=head, layer="features.pca4", folds=2, to=tmp_path / "head")
    embedpipe.push(tmp_path / "head", MODEL, license="mit")
    assert str(tmp_path).encode() not in b"".join(p.read_bytes() for p in served(hub, MODEL).glob("*.*"))
    pulled = embedpipe.pull(MODEL, tmp_path / "pulled")
    assert isinstance(pulled, embedpipe.Head)
    assert pulled.predict(store)["label"] == fitted.predict(store)["label"]
    card = (served(hub, MODEL) / "README.md").read_text()
    accuracy = fitted.report.accuracy
    interval = f"{accuracy.value:.3f} ({accuracy.low:.3f} to {accuracy.high:.3f})"
    assert "2-fold cross-validation, 12 rows" in card
    assert f"| accuracy | {interval} |" in card
    assert "`cat`" in card
    assert ("It holds the vectors of 12 rows" in card) == (head == "knn")
    embedpipe.push(fitted, MODEL)


def test_a_second_push_replaces_the_first(hub: Hub, tmp_path: Path) -> None:
    first = embedpipe.push(make_store(tmp_path / "one", np.eye(5)), DATA)
    (served(hub) / "figure.png").write_bytes(b"mine")
    second = embedpipe.push(make_store(tmp_path / "two", np.eye(3)), DATA)
    replaced = "what was pushed before is replaced, and stays at "
    assert not [note for note in first.notes if note.startswith(replaced)]
    assert second.notes[-1].startswith(f"{replaced}{DATA}@")
    assert len(embedpipe.pull(DATA, tmp_path / "pulled")) == 3
    assert len(list(served(hub).glob("*.parquet"))) == 1
    assert (served(hub) / "figure.png").read_bytes() == b"mine"


def test_what_a_repository_holds_already_is_not_pushed_again(hub: Hub, tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", np.eye(5))
    first = embedpipe.push(store, DATA, license="mit")
    (served(hub) / "figure.png").write_bytes(b"mine")
    hub.requests.clear()
    again = embedpipe.push(store.path, DATA, license="mit")
    assert not [request for request in hub.requests if request.startswith(("POST", "PUT"))]
    assert (again.files, again.bytes) == (0, 0)
    assert again.notes == ["nothing is pushed: the repository holds this version with these options already"]
    assert again.repository.partition("@")[0] == DATA
    assert again.url == f"{hub.address}/datasets/lab/photos/commit/{again.repository.partition('@')[2]}"
    assert first.files == embedpipe.push(store, DATA, license="cc0-1.0").files
    store.label(pa.table({"id": store.ids()[:1], "label": ["x"]}))
    assert embedpipe.push(store.refresh(), DATA, license="cc0-1.0").files
    (part,) = served(hub).glob("*.parquet")
    part.unlink()
    assert embedpipe.push(store, DATA, license="cc0-1.0").files
    assert len(embedpipe.pull(DATA, tmp_path / "pulled")) == 5


@pytest.mark.parametrize("storage", ["", "http://127.0.0.1:9"])
def test_without_the_storage_of_xet_files_take_the_other_way(
    storage: str, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    hub.storage += [storage] if storage else []
    embedpipe.push(make_store(tmp_path / "store", np.eye(5)), DATA)
    assert [request for request in hub.requests if request.startswith("PUT")]
    assert len(embedpipe.pull(DATA, tmp_path / "pulled")) == 5
    assert not constants.HF_HUB_DISABLE_XET


def test_xet_is_used_where_its_storage_answers(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    served(hub).mkdir(parents=True)
    hub.storage.append(hub.address)
    with xet_if_it_answers(Repository.parse(DATA), "write"):
        assert not constants.HF_HUB_DISABLE_XET


def test_a_repository_of_something_else_is_left_alone(hub: Hub, tmp_path: Path) -> None:
    served(hub).mkdir(parents=True)
    (served(hub) / "train.csv").write_text("a,b\n")
    with pytest.raises(HubError, match=r"holds other files, such as 'train\.csv'"):
        embedpipe.push(make_store(tmp_path / "store", np.eye(3)), DATA)
    with pytest.raises(HubError, match="holds no store"):
        embedpipe.pull(DATA, tmp_path / "pulled")
    assert not (tmp_path / "pulled").exists()


def test_damage_is_noticed_and_nothing_is_kept(hub: Hub, store: embedpipe.FeatureStore, tmp_path: Path) -> None:
    embedpipe.fit(store, head="centroid", folds=0, to=tmp_path / "head")
    embedpipe.push(store, DATA)
    embedpipe.push(tmp_path / "head", MODEL)
    (part,) = served(hub).glob("*.parquet")
    skops = served(hub, MODEL) / "head.skops"
    for file, address, error in ((part, DATA, StoreError), (skops, MODEL, HeadError)):
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
        with pytest.raises(error, match="damaged"):
            embedpipe.pull(address, tmp_path / "pulled")
        assert not (tmp_path / "pulled").exists()
    (served(hub) / "_delta_log/00000000000000000000.json").write_text("{")
    with pytest.raises(StoreError, match=rf"of '{DATA}' is damaged: .*\. Nothing is kept: ask who pushed it"):
        embedpipe.pull(DATA, tmp_path / "pulled")
    assert not list(tmp_path.glob(".pulled*"))


def test_answers_that_are_not_those_of_the_hub_are_named() -> None:
    for problem, message in (
        (ValueError("Expecting value"), "was not the hub, but perhaps a proxy: Expecting value"),
        (TypeError("must be a mapping"), "was not the hub, but perhaps a proxy: must be a mapping"),
        (OSError("Consistency check failed"), "does not give the files of .* as it lists them: Consistency"),
    ):
        with pytest.raises(HubError, match=message), hub_errors(DATA):
            raise problem
    with pytest.raises(OSError, match="full"), hub_errors(DATA):
        raise OSError(28, "the disk is full")


def test_other_files_of_a_repository_are_not_pulled(hub: Hub, store: embedpipe.FeatureStore, tmp_path: Path) -> None:
    embedpipe.push(store, DATA)
    (served(hub) / "run_me.py").write_text("raise SystemExit")
    (served(hub) / "_delta_log/evil.py").write_text("raise SystemExit")
    embedpipe.pull(DATA, tmp_path / "pulled")
    assert not list((tmp_path / "pulled").rglob("*.py"))
    assert not (tmp_path / "pulled/.cache").exists()


def test_the_token_is_asked_for_and_never_shown(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = make_store(tmp_path / "store", np.eye(3))
    hub.tokens.add("hf_othertokenothertoken")
    with pytest.raises(HubError, match="HF_TOKEN") as refused:
        embedpipe.push(store, DATA)
    assert "hf_secret" not in str(refused.value)
    monkeypatch.setenv("HF_TOKEN", "hf_othertokenothertoken")
    embedpipe.push(store, DATA, private=True)
    assert (served(hub) / ".gitattributes").read_text() == "private"
    assert "***" in str(EmbedpipeError("the header was Bearer hf_othertokenothertoken"))
    assert "hf_other" not in "".join(capsys.readouterr())


def test_a_hub_that_is_away_is_reported(tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    with pytest.raises(HubError, match="there is no repository hf://lab/photos-head"):
        embedpipe.pull(MODEL, tmp_path / "pulled")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UnreachableError, match="cannot be reached"):
        embedpipe.pull(DATA, tmp_path / "pulled")


@pytest.mark.parametrize(
    "address", ["lab/photos", "hf://photos", "hf://datasets/photos", "https://huggingface.co/lab/a", "hf://a/../b", ""]
)
def test_addresses_have_two_forms(address: str) -> None:
    with pytest.raises(UsageError, match="hf://datasets/ORG/NAME"):
        Repository.parse(address)
    assert Repository.parse("hf://lab/head@v1") == Repository("head", "lab/head", "v1")


def test_what_does_not_fit_is_refused(hub: Hub, store: embedpipe.FeatureStore, tmp_path: Path) -> None:
    embedpipe.fit(store, head="centroid", folds=0, to=tmp_path / "head")
    with pytest.raises(UsageError, match="a store is pushed to hf://datasets"):
        embedpipe.push(store, MODEL)
    with pytest.raises(StoreNotFoundError, match=r"no feature store and no head at '.*absent'"):
        embedpipe.push(tmp_path / "absent", MODEL)
    with pytest.raises(UsageError, match="a head is pushed to hf://ORG/NAME"):
        embedpipe.push(tmp_path / "head", DATA)
    with pytest.raises(UsageError, match="leave it out"):
        embedpipe.push(store, f"{DATA}@v1")
    with pytest.raises(UsageError, match=r"needs a new or empty folder, and .* is a feature store: give another"):
        embedpipe.pull(DATA, store.path)


def test_on_the_command_line(hub: Hub, store: embedpipe.FeatureStore, tmp_path: Path) -> None:
    pushed = run("push", store.path, DATA, "--license", "mit", "--exclude", "label")
    assert pushed.exit_code == 0, pushed.output
    assert "column 'label' is left out" in pushed.stdout
    pulled = run("pull", DATA, tmp_path / "pulled")
    assert pulled.exit_code == 0, pulled.output
    assert "FeatureStore" in pulled.stdout
    assert run("pull", "hf://nothing", tmp_path / "x").exit_code == 2
