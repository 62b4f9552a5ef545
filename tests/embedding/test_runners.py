"""Tasks, workers and attempts of a runner, without an engine; and Ray on this machine."""

from __future__ import annotations

import dataclasses
import http.server
import json
import pickle
import signal
import socket
import threading
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from conftest import TINY, write_photo
from ray_here import Ray
from stored import make_spec

import embedpipe
from embedpipe.backbones.options import BackboneOptions
from embedpipe.embedding import updating
from embedpipe.embedding.hash_index import Contents
from embedpipe.embedding.options import RunOptions
from embedpipe.embedding.plan import EmbedPlan, source_values
from embedpipe.embedding.runners import on_ray, ray_cluster, worker
from embedpipe.embedding.runners.attempts import Attempts
from embedpipe.embedding.runners.choice import make_runner
from embedpipe.embedding.runners.ray_cluster import check_answers
from embedpipe.embedding.runners.runner import Execution
from embedpipe.embedding.runners.tasks import WorkerJob, in_listing, make_task
from embedpipe.embedding.runners.worker import EmbedWorker
from embedpipe.embedding.writing.messages import Message, Written
from embedpipe.embedding.writing.writer import RowWriter
from embedpipe.errors import EmbedpipeError, SpecMismatchError, StoreError, UnreachableError, UsageError
from embedpipe.sources.listing import Listing
from embedpipe.sources.reading import RowNumbers
from embedpipe.store.id_index import IdIndex
from embedpipe.store.maintenance import forget_run


class Queue:
    """The smallest engine: one worker, to which pickled tasks are given one after the other."""

    idle = 0.0
    threads = 1
    is_fixed = True
    size = 5

    def __init__(self, store: embedpipe.FeatureStore, chosen: BackboneOptions, items: int) -> None:
        self.store = store
        self.job = WorkerJob("a", store.path, store.spec, chosen, RunOptions(engine="torch"), 1, items)
        self.done = self.files = 0
        self.execution = Execution()

    def messages(self, listing: Listing, plan: EmbedPlan, contents: Contents) -> Generator[Message, None, None]:
        worker = EmbedWorker(self.job, pickle.loads(pickle.dumps(contents)))
        new, known = self.parts(plan.read[: plan.new]), self.parts(plan.read[plan.new :])
        for number, part in enumerate(new + known):
            task = pickle.dumps(make_task(number, part, number >= len(new), listing, plan.values))
            result = pickle.loads(pickle.dumps(worker.embed(pickle.loads(task))))
            if result.error is not None:
                raise result.error
            self.done += result.done
            self.files += sum(isinstance(message, Written) for message in result.messages)
            yield from (in_listing(message, part) for message in result.messages)
        forget_run(self.store.table, self.job.run)

    def parts(self, rows: RowNumbers) -> list[RowNumbers]:
        return [rows[start : start + self.size] for start in range(0, len(rows), self.size)]


@pytest.fixture
def queues(monkeypatch: pytest.MonkeyPatch) -> list[Queue]:
    """Give every run with ``runner="ray"`` to a queue; the list has those that were made."""
    made: list[Queue] = []

    def make(backbone: Any, chosen: Any, store: Any, items: int, options: RunOptions, *rest: Any) -> Any:
        if options.runner == "local":
            return make_runner(backbone, chosen, store, items, options, *rest)
        made.append(Queue(store, chosen, items))
        return made[-1]

    monkeypatch.setattr(updating, "make_runner", make)
    return made


def on_queue(source: Any, to: Path, **options: Any) -> embedpipe.FeatureStore:
    return embedpipe.embed(source, to, runner="ray", **{"backbone": TINY, **options})


def assert_equal(store: embedpipe.FeatureStore, expected: embedpipe.FeatureStore) -> None:
    names = expected.data_columns
    assert store.columns == expected.columns
    assert store.to_arrow(names) == expected.to_arrow(names)
    np.testing.assert_allclose(store.to_numpy(), expected.to_numpy(), rtol=0, atol=1e-6)


def test_a_worker_makes_the_store_of_one_process(
    queues: list[Queue], make_photos: Callable[..., Path], tmp_path: Path
) -> None:
    photos = make_photos(23)
    (photos / "cat" / "broken.jpg").write_bytes(b"no picture")
    store = on_queue(photos, tmp_path / "queue")
    assert_equal(store, embedpipe.embed(photos, tmp_path / "local", backbone=TINY))
    assert store.failures().column("id").to_pylist() == ["cat/broken.jpg"]
    assert (store.summary.embedded, store.summary.failed) == (23, 1)
    assert queues[0].files == 5
    assert not (tmp_path / "queue" / "_runs").exists()


def test_changed_and_moved_photos_keep_what_was_set_by_hand(
    queues: list[Queue], make_photos: Callable[..., Path], tmp_path: Path
) -> None:
    stores = []
    for name, embed in (("local", embedpipe.embed), ("queue", on_queue)):
        photos = make_photos(12, name=name)
        to = tmp_path / f"{name}.features"
        set_by_hand = {"cat/0000.jpg": "lynx", "dog/0001.jpg": "wolf", "owl/0002.jpg": "bat"}
        embed(photos, to, backbone=TINY).label(pa.table({"id": list(set_by_hand), "label": list(set_by_hand.values())}))
        write_photo(photos / "cat" / "0000.jpg", seed=1000)
        (photos / "dog" / "0001.jpg").rename(photos / "owl" / "moved.jpg")
        stores.append(embed(photos, to, backbone=TINY, prune=True))
    assert_equal_but_roots(*stores)
    labels = {row["id"]: row["label"] for row in stores[1].to_arrow(["id", "label"]).to_pylist()}
    assert [labels[id] for id in ("cat/0000.jpg", "owl/moved.jpg", "owl/0002.jpg")] == ["lynx", "wolf", "bat"]


def assert_equal_but_roots(first: embedpipe.FeatureStore, second: embedpipe.FeatureStore) -> None:
    names = ["id", "label", "content_hash", "source_size"]
    assert first.to_arrow(names) == second.to_arrow(names)
    np.testing.assert_allclose(first.to_numpy(), second.to_numpy(), rtol=0, atol=1e-6)


def test_rows_that_another_run_commits_first_are_reused(
    queues: list[Queue], make_photos: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos, to = make_photos(20), tmp_path / "f"
    expected = embedpipe.embed(photos, tmp_path / "local", backbone=TINY)

    def put(self: RowWriter, message: Message) -> None:
        if isinstance(message, Written) and not len(embedpipe.FeatureStore(to)):
            monkeypatch.setattr(RowWriter, "put", before)
            embedpipe.embed(photos, to, backbone=TINY)  # as another process would
        before(self, message)

    before = RowWriter.put
    monkeypatch.setattr(RowWriter, "put", put)
    store = on_queue(photos, to)
    assert store.ids() == expected.ids()
    assert (store.summary.embedded, store.summary.reused) == (0, 20)
    files = {file.path for file in store.refresh().table.files}
    assert {path.name for path in to.glob("part-*.parquet")} == files


def test_a_task_that_was_begun_twice_is_done_row_by_row_without_the_deadly_row(
    queues: list[Queue], make_photos: Callable[..., Path], tmp_path: Path
) -> None:
    photos = make_photos(12)
    for _ in range(2):
        attempts = Attempts(str(tmp_path / "f"), "a", 1)
        embedpipe.FeatureStore.create(tmp_path / "f", embedpipe.load_backbone(TINY).spec)
        attempts.begin()
    attempts.begin_row(2)
    store = on_queue(photos, tmp_path / "f")
    (failure,) = store.failures().to_pylist()
    assert (failure["exception"], failure["id"]) == ("WorkerDied", sorted(expected_ids(photos))[7])
    assert len(store) == 11


def test_a_folder_that_machines_do_not_share_is_an_error_and_no_damage(
    queues: list[Queue], make_photos: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos, to = make_photos(12), tmp_path / "f"
    on_queue(photos, to)
    (photos / "new.jpg").write_bytes((photos / "cat" / "0000.jpg").read_bytes() + b"\0")
    write = worker.write_new_files

    def write_elsewhere(*given: Any) -> Any:  # as on a machine with another disk at this path
        files = write(*given)
        for file in files:
            (to / file.action.path).unlink()
        return files

    monkeypatch.setattr(worker, "write_new_files", write_elsewhere)
    with pytest.raises(StoreError, match="give a folder that all machines share"):
        on_queue(photos, to)
    monkeypatch.setattr(worker, "write_new_files", write)
    assert embedpipe.FeatureStore(to).to_numpy().shape[0] == 12
    assert on_queue(photos, to).summary.embedded == 1


def test_a_run_that_cannot_note_its_tasks_says_where_it_cannot_write(
    queues: list[Queue], photos: Path, tmp_path: Path
) -> None:
    embedpipe.FeatureStore.create(tmp_path / "f", embedpipe.load_backbone(TINY).spec)
    (tmp_path / "f" / "_runs").write_text("a file in place of the folder")
    with pytest.raises(StoreError, match=r"cannot write to .*f'"):
        on_queue(photos, tmp_path / "f")


def expected_ids(photos: Path) -> list[str]:
    return [path.relative_to(photos).as_posix() for path in photos.rglob("*.jpg")]


def test_a_worker_with_other_weights_ends_the_run(queues: list[Queue], photos: Path, tmp_path: Path) -> None:
    store = embedpipe.FeatureStore.create(tmp_path / "f", embedpipe.load_backbone(TINY).spec)
    other = WorkerJob(
        "a", store.path, store.spec, BackboneOptions("python:tiny_backbone.make_fussy"), RunOptions(), 1, 3
    )
    listing = embedpipe.sources.open_source(photos)
    ids = listing.table.column("id")
    task = make_task(0, np.arange(3), False, listing, source_values(listing.table, store))
    result = EmbedWorker(other, Contents((), ids, IdIndex(ids))).embed(task)
    assert isinstance(result.error, SpecMismatchError)
    assert "Put the same weights on all machines" in str(result.error)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"runner": "spark"}, "runner must be one of"),
        ({"workers": 2}, "workers=2 needs runner='ray'"),
        ({"runner": "ray", "workers": 0}, "workers must be an integer >= 1, got 0"),
        ({"runner": "ray", "gpus_per_worker": -1}, "gpus_per_worker must be a number >= 0, got -1"),
        ({"runner": "ray", "cpus_per_worker": 1.5}, "cpus_per_worker must be an integer >= 1, got 1.5"),
    ],
)
def test_wrong_options_of_workers_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        RunOptions(**options)


def test_tasks_are_a_64th_of_the_work_of_a_worker_or_as_large_as_may_be_where_rows_cost_nothing() -> None:
    network, words = make_spec(512), dataclasses.replace(make_spec(50), provider="word-vectors")
    assert on_ray.rows_of_a_task(200_000, 2, network) == 1563  # 128 tasks
    assert on_ray.rows_of_a_task(100, 2, network) == 16
    assert on_ray.rows_of_a_task(10**8, 2, network) == on_ray.rows_of_a_task(200, 2, words) == 8192
    assert on_ray.rows_of_a_task(10**8, 2, make_spec(4096)) < 4096  # a file of 64 MB


def test_errors_of_ray_are_one_sentence_and_say_whether_to_run_again() -> None:
    ray = pytest.importorskip("ray")
    from embedpipe.embedding.runners.on_ray import _explained

    lost = _explained(ray.exceptions.OwnerDiedError("1" * 56, None, "the driver is gone"), ray)
    assert lost.exit_code == 75
    assert str(lost).startswith("the Ray cluster ended the run (OwnerDiedError: ")
    task = ray.exceptions.RayTaskError("f", "Traceback\nKeyError: 'x'", KeyError("x")).as_instanceof_cause()
    assert str(_explained(task, ray)) == "a worker of the Ray cluster failed (KeyError: 'x')"
    assert _explained(task, ray).exit_code == 1


@pytest.mark.parametrize(
    "address", ["rubbish", "head", "head:", "head:port", "head:70000", ":6379", "ray://head:10001"]
)
def test_an_address_of_ray_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(UsageError, match=f"RAY_ADDRESS must be HOST:PORT, .* got '{address}'"):
        check_answers(address)


@pytest.mark.parametrize("answers", ["nothing", "silence", "http"])
def test_a_cluster_that_does_not_answer_is_unreachable_at_once(
    answers: str, make_photos: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        if answers == "silence":
            with pytest.raises(UnreachableError, match=r"no Ray cluster answers at .* \(timed out\)"):
                check_answers(address, seconds=0.1)
    if answers == "nothing":
        pytest.importorskip("ray")
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(UnreachableError, match=f"no Ray cluster answers at {address} .*refused") as raised:
            embedpipe.embed(make_photos(1), tmp_path / "f", backbone=TINY, runner="ray")
        assert raised.value.exit_code == 75
    if answers == "http":
        web = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
        threading.Thread(target=web.handle_request, daemon=True).start()
        with pytest.raises(
            UnreachableError, match=r"does not answer as a Ray cluster: RAY_ADDRESS must be HOST:PORT of its head"
        ):
            check_answers(f"127.0.0.1:{web.server_port}")
        web.server_close()


@pytest.fixture
def ray_here(monkeypatch: pytest.MonkeyPatch) -> Ray:
    """Put what embedpipe uses of Ray in place of its modules."""
    ray = Ray()
    modules = {"ray": ray, "ray.data": ray.data}
    for user in (ray_cluster, on_ray):
        monkeypatch.setattr(user, "import_extra", lambda name, extra: modules[name])
    monkeypatch.setenv("RAY_ADDRESS", "local")
    return ray


ON_RAY: dict[str, Any] = {"backbone": TINY, "engine": "torch", "runner": "ray", "workers": 1, "cpus_per_worker": 1}


def test_tasks_on_ray_make_the_store_of_one_process(
    ray_here: Ray, make_photos: Callable[..., Path], tmp_path: Path
) -> None:
    photos = make_photos(40)
    store = embedpipe.embed(photos, tmp_path / "ray", **ON_RAY)
    assert_equal(store, embedpipe.embed(photos, tmp_path / "local", backbone=TINY))
    assert (store.summary.embedded, store.summary.device, store.summary.engine) == (40, "cpu", "torch")
    assert '"engine": "torch"' in store.history(1)[0]["embedpipe.run"]
    assert (ray_here.addresses, (tmp_path / "ray" / "_runs").exists()) == ([None], False)


def test_a_run_says_that_another_was_killed_before(
    ray_here: Ray, make_photos: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos, to = make_photos(2), tmp_path / "ray"
    embedpipe.embed(photos, to, **ON_RAY, progress=True)
    assert "other run" not in capsys.readouterr().err
    (to / "_runs" / "killed" / "00000000").mkdir(parents=True)
    (photos / "new.jpg").write_bytes((photos / "cat" / "0000.jpg").read_bytes())
    embedpipe.embed(photos, to, **ON_RAY, progress=True)
    assert "1 other run into this store: killed, or still going on. `embedpipe vacuum`" in capsys.readouterr().err
    assert [path.name for path in (to / "_runs").iterdir()] == ["killed"]


def test_a_job_file_embeds_on_ray_and_a_second_run_does_nothing(
    ray_here: Ray, make_photos: Callable[..., Path], tmp_path: Path
) -> None:
    make_photos(40, name="photos")
    job = tmp_path / "job.toml"
    options = "".join(f"{name} = {json.dumps(value)}\n" for name, value in ON_RAY.items())
    job.write_text(f"""
[embed]
source = "photos"
to = "f"
{options}
[fit]
to = "head"
head = "centroid"
folds = 2
""")
    first, second = (embedpipe.run_job(job, progress=False) for _ in range(2))
    assert [step.status for step in first.steps + second.steps] == ["done", "done", "done", "skipped"]
    assert (len(embedpipe.FeatureStore(tmp_path / "f")), ray_here.addresses) == (40, [None])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gpus_per_worker": 99}, r"must have 1 cores and 99 GPUs for a worker.*gpus_per_worker"),
        ({"cpus_per_worker": 2}, r"must have 2 cores and 0 GPUs for a worker, and the largest has 1 and 0"),
        ({"device": "all"}, "device=.all. needs GPUs, and Ray found none on this machine"),
    ],
)
@pytest.mark.usefixtures("ray_here")
def test_workers_that_no_node_has_room_for_are_refused(photos: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        embedpipe.embed(photos, photos.with_suffix(".features"), **{**ON_RAY, **options})


def test_an_error_of_a_worker_is_one_sentence(ray_here: Ray, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EmbedWorker, "embed", lambda self, task: {}["x"])
    with pytest.raises(EmbedpipeError, match=r"^a worker of the Ray cluster failed \(KeyError: 'x'\)$"):
        embedpipe.embed(photos, photos.with_suffix(".features"), **ON_RAY)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::FutureWarning")  # of Ray
def test_ray_on_this_machine_makes_the_store_of_one_process(
    make_photos: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = pytest.importorskip("ray")
    monkeypatch.setenv("RAY_ADDRESS", "local")
    photos = make_photos(40)
    handler = signal.getsignal(signal.SIGTERM)
    try:
        options = {"backbone": TINY, "engine": "torch", "runner": "ray", "workers": 1, "cpus_per_worker": 1}
        store = embedpipe.embed(photos, tmp_path / "ray", **options)
        with pytest.raises(UsageError, match=r"must have 1 cores and 99 GPUs for a worker.*gpus_per_worker"):
            embedpipe.embed(make_photos(3, name="few"), tmp_path / "few.features", **options, gpus_per_worker=99)
        assert signal.getsignal(signal.SIGTERM) is handler
    finally:
        ray.shutdown()
    assert_equal(store, embedpipe.embed(photos, tmp_path / "local", backbone=TINY))
    assert (store.summary.embedded, store.summary.device, store.summary.engine) == (40, "cpu", "torch")
    assert '"engine": "torch"' in store.history(1)[0]["embedpipe.run"]
