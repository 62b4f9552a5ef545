"""Embedding on the workers of a Ray cluster, by Ray Data.

Ray Data schedules: it starts workers as the cluster has room for them, also on nodes that join, and begins a task again
whose worker or node died. This process gives it the tasks and commits the files that come back.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import pickle
import time
import uuid
from collections.abc import Generator, Iterator
from typing import Any

import pyarrow as pa

from embedpipe._utils.importing import collect_rarely, import_extra
from embedpipe._utils.messages.counting import counted
from embedpipe._utils.option_names import option
from embedpipe._utils.progress import Progress
from embedpipe.backbones import BackboneSpec
from embedpipe.backbones.options import BackboneOptions
from embedpipe.embedding.hash_index import Contents
from embedpipe.embedding.options import ALL_DEVICES, RunOptions
from embedpipe.embedding.plan import EmbedPlan
from embedpipe.embedding.runners.ray_cluster import connect
from embedpipe.embedding.runners.runner import Execution
from embedpipe.embedding.runners.tasks import Task, TaskResult, WorkerJob, in_listing, make_task
from embedpipe.embedding.summary import StageTimer
from embedpipe.embedding.writing.messages import Message
from embedpipe.errors import EmbedpipeError, UnreachableError, UsageError
from embedpipe.sources.listing import Listing
from embedpipe.sources.reading import RowNumbers
from embedpipe.store import FeatureStore
from embedpipe.store.data_files import FILE_BYTES, ROW_BYTES
from embedpipe.store.maintenance import forget_run, runs_noted

#: Tasks per worker, if there are enough rows: what a kill loses, and how evenly the work is shared.
TASKS_PER_WORKER = 64

#: Fewest and most rows of a task: fewer make many small files, more are lost with a worker.
TASK_ROWS = (16, 8192)

#: Backbones that only look vectors up. A task by itself takes Ray and embedpipe as long as 400 rows, so that it is as
#: large as tasks may be, and is still done within a second.
LOOKUPS = ("word-vectors",)

#: Most tasks that this process and Ray hold at a time; with 8192 rows, each is about 1 MB.
MOST_TASKS = 4096


class RayRunner:
    """Runs a backbone on workers of a Ray cluster; see `Runner`.

    Raises
    ------
    MissingExtraError
        Ray is not installed.
    UnreachableError
        There is no cluster at the address.
    UsageError
        The address is not one of a Ray cluster, or no node of the cluster has room for a worker.
    """

    def __init__(
        self,
        store: FeatureStore,
        backbone: BackboneOptions,
        items: int,
        options: RunOptions,
        timer: StageTimer,
        progress: Progress,
    ) -> None:
        here = options.device == ALL_DEVICES
        self._ray = connect(progress, "local" if here else None)
        self._store, self._timer = store, timer
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        self._gpus = _gpus(options, nodes)
        if here and not any(node.get("GPU", 0) for node in nodes):
            raise UsageError(f"{option('device', ALL_DEVICES)} needs GPUs, and Ray found none on this machine")
        self.threads = cpus = _cpus(options, nodes, self._gpus)
        fitting = sum(_room(node, cpus, self._gpus) for node in nodes)
        if not fitting:
            raise UsageError(
                f"a node must have {cpus} cores and {self._gpus:g} GPUs for a worker, and the largest has "
                f"{max(node.get('CPU', 0) for node in nodes):g} and {max(node.get('GPU', 0) for node in nodes):g}: "
                f"give {option('cpus_per_worker', ...)} or {option('gpus_per_worker', ...)}"
            )
        self._most = options.workers
        self._workers = min(fitting, options.workers or fitting)
        compute = dataclasses.replace(options, device=None) if here else options
        self._job = WorkerJob(
            uuid.uuid4().hex, store.path, store.spec, backbone, compute, options.threads or cpus, items
        )
        self.done, self.idle, self.is_fixed, self.execution = 0, 0.0, True, Execution()
        if runs := len(runs_noted(store.table)):
            progress.say(
                f"{counted(runs, 'other run')} into this store: killed, or still going on. `embedpipe vacuum` deletes "
                "the files that a killed run has not committed"
            )
        progress.say(f"Ray nodes: {len(nodes)}; workers: {self._workers}; for each: cores {cpus}, GPUs {self._gpus:g}")

    def messages(self, listing: Listing, plan: EmbedPlan, contents: Contents) -> Generator[Message, None, None]:
        """Yield the messages of each task when it is done, in no order."""
        parts = self._parts(plan.read[: plan.new])
        first_known = len(parts)
        parts += self._parts(plan.read[plan.new :])
        shared = self._ray.put(contents)
        begin = time.perf_counter()
        try:
            for start in range(0, len(parts), MOST_TASKS):
                wave = range(start, min(start + MOST_TASKS, len(parts)))
                tasks = (make_task(n, parts[n], n >= first_known, listing, plan.values) for n in wave)
                for result in self._run(tasks, shared):
                    self.idle = self.idle or time.perf_counter() - begin - result.wall
                    self._note(result)
                    for message in result.messages:
                        yield in_listing(message, parts[result.number])
        finally:
            with contextlib.suppress(OSError):
                forget_run(self._store.table, self._job.run)

    def _parts(self, rows: RowNumbers) -> list[RowNumbers]:
        size = rows_of_a_task(len(rows), self._workers, self._store.spec)
        return [rows[start : start + size] for start in range(0, len(rows), size)]

    def _run(self, tasks: Iterator[Task], contents: Any) -> Iterator[TaskResult]:
        data = import_extra("ray.data", "ray")
        context = data.DataContext.get_current()
        context.enable_progress_bars = context.print_on_execution_start = False
        dumps = self._ray.cloudpickle.dumps  # also takes objects of the user's script
        items = [{"task": task.pickled(dumps)} for task in tasks]
        # A block for each: unlike `from_arrow`, this starts no workers that look at every block first.
        results = data.from_items(items, override_num_blocks=len(items)).map_batches(
            RayWorker,
            fn_constructor_args=(self._job, contents),
            batch_size=None,
            batch_format="pyarrow",
            num_cpus=self.threads,
            num_gpus=self._gpus or None,
            compute=data.ActorPoolStrategy(
                min_size=1, initial_size=self._workers, max_size=self._most, max_tasks_in_flight_per_actor=1
            ),
        )
        try:
            for batch in results.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
                for blob in batch.column("result").to_pylist():
                    yield pickle.loads(blob)
        except self._ray.exceptions.RayError as error:
            raise _explained(error, self._ray) from error

    def _note(self, result: TaskResult) -> None:
        if result.error is not None:
            raise result.error
        self.done += result.done
        self.execution = result.execution
        for stage, seconds in result.seconds.items():
            self._timer.add(stage, seconds / self._workers)


def rows_of_a_task(rows: int, workers: int, spec: BackboneSpec) -> int:
    """Return how many of the rows a task has, at most."""
    fair = math.ceil(rows / (workers * TASKS_PER_WORKER))
    fewest, most = TASK_ROWS
    in_file = FILE_BYTES // (ROW_BYTES + 4 * sum(layer.dim for layer in spec.layers))
    return max(1, min(max(fair, most if spec.provider in LOOKUPS else fewest), most, in_file))


class RayWorker:
    """An `EmbedWorker` that Ray Data calls with batches of pickled tasks."""

    def __init__(self, job: WorkerJob, contents: Any) -> None:
        collect_rarely()
        from embedpipe.embedding.runners.worker import EmbedWorker  # needs torch

        self._worker = EmbedWorker(job, import_extra("ray", "ray").get(contents))

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the pickled results of the tasks in a batch."""
        results = [pickle.dumps(self._worker.embed(pickle.loads(blob))) for blob in batch.column("task").to_pylist()]
        return pa.table({"result": pa.array(results, pa.large_binary())})


def _explained(error: Any, ray: Any) -> EmbedpipeError:
    """Return the error for one of Ray: of the code that ran there, or of the cluster, which may do better next time."""
    cause = error.cause if isinstance(error, ray.exceptions.RayTaskError) else error
    text = f"{type(cause).__name__}: {(str(cause).strip().splitlines() or ['no message'])[0][:300]}"
    if isinstance(cause, ray.exceptions.RayError):
        return UnreachableError(f"the Ray cluster ended the run ({text}). What was finished is in the store: run again")
    return EmbedpipeError(f"a worker of the Ray cluster failed ({text})")


def _gpus(options: RunOptions, nodes: list[dict[str, float]]) -> float:
    """Return the GPUs of each worker."""
    if options.gpus_per_worker is not None:
        return options.gpus_per_worker
    return 1.0 if any(node.get("GPU", 0) for node in nodes) and options.device != "cpu" else 0.0


def _cpus(options: RunOptions, nodes: list[dict[str, float]], gpus: float) -> int:
    """Return the cores of each worker: those of the smallest node that has any to give, shared by its GPUs."""
    if options.cpus_per_worker is not None:
        return options.cpus_per_worker
    shares = [
        node["CPU"] / max(1, node.get("GPU", 0) / gpus if gpus else 1)
        for node in nodes
        if node.get("CPU", 0) >= 1 and node.get("GPU", 0) >= gpus
    ]
    return max(1, int(min(shares, default=1)))


def _room(node: dict[str, float], cpus: int, gpus: float) -> int:
    """Return how many workers a node has room for."""
    by_gpus = node.get("GPU", 0) / gpus if gpus else math.inf
    return int(min(node.get("CPU", 0) / cpus, by_gpus))
