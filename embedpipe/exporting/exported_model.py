"""`ExportedModel`: predicts with an exported folder, reading items as embedpipe reads them, without torch's network."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedpipe._utils.checksums import file_sha256, without_checksum
from embedpipe._utils.config import usable_cores
from embedpipe._utils.folder_kinds import but_is
from embedpipe._utils.importing import import_extra, import_without_telemetry
from embedpipe._utils.machine.regular_files import read_regular
from embedpipe._utils.messages.json_values import parse_json
from embedpipe._utils.options import build_options, takes_options
from embedpipe._utils.progress import Progress
from embedpipe._utils.version import other_format
from embedpipe.backbones.spec import read_recipe
from embedpipe.decoding import decode_pixels, decode_text, to_pixels
from embedpipe.errors import Failure, ForwardError, HeadError, ItemError, UsageError
from embedpipe.exporting.known_settings import MODELS, require_known
from embedpipe.exporting.script.table import BATCH, PASSES, batches, load_model
from embedpipe.exporting.script.texts import EXCERPT, collate, encode
from embedpipe.heads.doubt import least_confident_first as sort_by_doubt
from embedpipe.heads.options import Task
from embedpipe.heads.predicting.predictions import Predictions
from embedpipe.heads.predicting.sources import Predicted
from embedpipe.heads.predicting.table import prediction_table
from embedpipe.sources.listing import Listing
from embedpipe.sources.opening import open_source
from embedpipe.sources.options import SourceOptions, modality_of
from embedpipe.store import FeatureStore

SETTINGS, FORMAT = "model.json", 1
NOT_FINITE = ForwardError("the outputs of the model have NaN or infinite values")


class ExportedModel:
    """A model that `embedpipe.export` wrote; made by `load_exported`.

    Attributes
    ----------
    name : str
        Of the head.
    task : str
    label : str
    label_separator : str
    classes : list or None
    settings : dict
        The content of ``model.json``.

    Examples
    --------
    >>> model = embedpipe.exporting.load_exported("photos.model")  # doctest: +SKIP
    >>> model.predict("new_photos")["label"].to_pylist()  # doctest: +SKIP
    ['cat', 'coffee']
    """

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.folder, self.settings = folder, settings
        self.name, self.label = str(settings["head"]), str(settings["label"])
        self.task: Task = settings["task"]
        self.label_separator: str = settings["separator"]
        self.classes: list[Any] | None = settings["classes"]

    def __repr__(self) -> str:
        kind = f"{self.settings['format']}, {self.settings['precision']}"
        return f"ExportedModel({str(self.folder)!r}, head={self.name!r}, label={self.label!r}, model={kind!r})"

    @takes_options(SourceOptions)
    def predict(
        self,
        source: Any,
        *,
        least_confident_first: bool = False,
        progress: bool | None = None,
        **options: Any,
    ) -> pa.Table:
        """Predict every item of a source, as `embedpipe.Head.predict` does.

        Parameters
        ----------
        source : str, path-like or in-memory data
            Images or texts, in any form that `embedpipe.embed` takes.
        least_confident_first : bool, default False
            Sort by ``confidence``, or by ``margin``, the items that a person should look at first.
        progress : bool, optional
            Show progress; by default in a notebook and on a terminal (standard error).

        Returns
        -------
        pyarrow.Table
            The table of `embedpipe.Head.predict`, but ``fitted_on``, which needs the store.

        Raises
        ------
        UsageError
            If the source is a feature store, whose vectors an exported model does not take.
        EmbedpipeError
            If the source cannot be listed.
        """
        (source_options,) = build_options((SourceOptions,), options)
        if isinstance(source, FeatureStore) or (
            isinstance(source, str | os.PathLike) and FeatureStore.exists(os.fspath(source))
        ):
            raise UsageError(
                f"an exported model takes {self.settings['modality']}s, and the source is a feature store: predict it "
                "with the head, or give the items"
            )
        show = Progress(progress)
        with modality_of("the model"):
            listing = open_source(source, source_options, self.settings["modality"])
        done = self._predict(listing, show)
        same_label = self.label == "label" or source_options.label is not None
        done = done if same_label else done._replace(rows=done.rows.drop_columns("label"))
        table, _ = prediction_table(done, self.label, "label" if same_label else None)
        return sort_by_doubt(table) if least_confident_first else table

    def _predict(self, listing: Listing, show: Progress) -> Predicted:
        run = self._model()
        prepare, collate = self._texts() if self.settings["modality"] == "text" else self._pictures()
        predictions = Predictions(_Outputs(self.settings), self.task, len(listing), self.label_separator)
        failures = list(listing.failures)
        texts: list[str | None] = [None] * len(listing)
        ids, uris = listing.table["id"], listing.table["uri"]

        def attempt(row: int) -> tuple[int, Any, str | None] | Failure:
            try:
                return row, *prepare(listing.read(row))
            except ItemError as error:
                return Failure.of(ids[row].as_py(), uris[row].as_py(), error)

        with (
            ThreadPoolExecutor(usable_cores()) as pool,
            show.step("predicting", len(listing), f"{self.settings['modality']}s") as advance,
        ):
            for rows in _parts(len(listing), BATCH * PASSES[self.settings["modality"]]):
                good: dict[int, Any] = {}
                for done in pool.map(attempt, rows):
                    if isinstance(done, Failure):
                        failures.append(done)
                    else:
                        row, good[row], texts[row] = done
                for batch in batches(good):
                    outputs = run(collate([good[row] for row in batch]), len(batch))
                    places, finite = np.array(batch), np.isfinite(outputs).all(axis=1)
                    predictions.add(places[finite], outputs[finite])
                    failures += [Failure.of(ids[row].as_py(), uris[row].as_py(), NOT_FINITE) for row in places[~finite]]
                advance(len(rows))
        table = listing.table.select(["id", "uri", "label"])
        if self.settings["modality"] == "text":
            table = table.append_column("text", pa.array(texts, pa.string()))
        return Predicted(predictions, table, failures, [])

    def _model(self) -> Callable[[dict[str, Any], int], npt.NDArray[np.float32]]:
        """Return a function from the tensors of n items and n to float32 (n, n_outputs)."""
        path, width = str(self.folder / self.settings["model"]), self.settings["outputs"]

        @contextmanager
        def naming_model() -> Iterator[None]:
            try:
                yield
            except Exception as error:  # the libraries' own errors have no common class
                reason = (str(error).splitlines() or [type(error).__name__])[0]
                raise HeadError(
                    f"{path!r} cannot be run: {reason}. Copy the folder again, or export the head again"
                ) from error

        with naming_model():
            model = load_model(path, self.settings["format"], usable_cores())

        def run(tensors: dict[str, Any], count: int) -> npt.NDArray[np.float32]:
            with naming_model():
                outputs = np.asarray(model(tensors), np.float32)
                if outputs.shape != (count, width):
                    raise ValueError(f"its outputs must have the shape {(count, width)}, got {outputs.shape}")
            return outputs

        return run

    def _pictures(self) -> tuple[Callable[[Any], Any], Callable[[list[Any]], dict[str, Any]]]:
        recipe = read_recipe(self.settings["preprocessing"])

        def prepare(payload: Any) -> tuple[npt.NDArray[np.uint8], None]:
            return to_pixels(decode_pixels(payload, recipe), recipe), None

        return prepare, lambda pixels: {"pixels": np.stack(pixels)}

    def _texts(self) -> tuple[Callable[[Any], Any], Callable[[list[Any]], dict[str, Any]]]:
        declared = self.settings["tokens"]
        library, file = import_extra("tokenizers", "text"), str(self.folder / "tokenizer.json")
        try:
            core = library.Tokenizer.from_file(file)
        except Exception as error:  # the library has no other class
            raise HeadError(f"{file!r} is not a tokenizer ({error}): export the head again") from error

        def prepare(payload: Any) -> tuple[Any, str]:
            text = decode_text(payload).text
            return encode(core, text, declared), text[:EXCERPT]

        return prepare, lambda pieces: collate(pieces, declared)


class _Outputs:
    """Outputs of a model as an estimator gives them, for `Predictions`."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._settings = settings
        if settings["classes"] is not None:
            self.classes_ = np.asarray(settings["classes"])
        kind = settings["output"]
        if kind == "probabilities":
            self.predict_proba = lambda outputs: outputs
        elif kind == "scores":
            self.decision_function = lambda outputs: outputs
        if settings["reject_above"] is not None:
            self.reject_score = _uncertainty
            self.rejected = lambda outputs: _uncertainty(outputs) > settings["reject_above"]

    def predict(self, outputs: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        """Return the classes, the labels as bools, or the numbers."""
        if self._settings["task"] == "regression":
            return outputs[:, 0].astype(np.float64)
        if self._settings["task"] == "multilabel":
            return np.asarray(outputs > (0.5 if self._settings["output"] == "probabilities" else 0))
        best = (outputs[:, 0] > 0).astype(int) if outputs.shape[1] == 1 else outputs.argmax(axis=1)
        chosen: npt.NDArray[Any] = self.classes_[best]
        return chosen


def _uncertainty(outputs: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    return np.asarray(1 - outputs.max(axis=1).astype(np.float64))


def _parts(count: int, size: int) -> Iterator[Sequence[int]]:
    starts = range(0, count, size)
    return (range(start, stop) for start, stop in itertools.pairwise([*starts, count]))


def _folder_of(path: str | os.PathLike[str]) -> Path:
    return Path(path).parent if Path(path).suffix in (".onnx", ".xml") else Path(path)


def load_exported(path: str | os.PathLike[str]) -> ExportedModel:
    """Read a folder that `embedpipe.export` wrote; nothing in it is run.

    Parameters
    ----------
    path : str or path-like
        The folder, or the model in it.

    Returns
    -------
    ExportedModel

    Raises
    ------
    HeadError
        If there is no exported model, or it is damaged or was changed.
    MissingExtraError
        If onnxruntime or OpenVINO is not installed.

    Examples
    --------
    >>> embedpipe.exporting.load_exported("photos.model").task  # doctest: +SKIP
    'classification'
    """
    folder = _folder_of(path)
    try:
        settings = without_checksum(parse_json(read_regular(folder / SETTINGS)))
        version = settings["format_version"]
        if version != FORMAT:
            problem = other_format(version, FORMAT, settings.get("embedpipe"))
            raise HeadError(f"{str(folder / SETTINGS)!r} {problem}. Or export the head again")
        files = dict(settings["files"])
        model = ExportedModel(folder, settings)
        require_known(settings)
    except OSError as error:
        reason = "" if isinstance(error, FileNotFoundError) else f" ({error})"
        raise HeadError(
            f"{str(folder)!r} is not an exported model{but_is(folder)}: it has no {SETTINGS}{reason}"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise HeadError(
            f"{str(folder / SETTINGS)!r} is damaged or was edited ({reason}): copy the folder again, or export "
            "the head again"
        ) from error
    weights = MODELS[settings["format"]][1]
    listed = {name for name in files if name not in ("predict.py", "README.md")}
    for name in sorted(listed | ({weights} if (folder / weights).exists() else set())):
        if not _is_unchanged(folder, name, files):
            raise HeadError(
                f"{str(folder / name)!r} is missing or was changed: copy the folder again, or export it again"
            )
    if settings["format"] == "onnx":
        import_extra("onnxruntime", "onnx")
        from embedpipe.exporting.graph_checks import check_graph

        check_graph(folder / settings["model"])
    else:
        import_without_telemetry("openvino")
    return model


def _is_unchanged(folder: Path, name: str, files: Mapping[str, Any]) -> bool:
    """Return whether a file lies in the folder itself, and is the one that was exported."""
    if Path(name).name != name or os.path.islink(folder / name) or not os.path.isfile(folder / name):  # noqa: PTH113, PTH114  pathlib raises for a name that is too long
        return False
    return file_sha256(folder / name) == files.get(name)
