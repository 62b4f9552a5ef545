"""Whether a tokenizer belongs to a network: its files, its words, and as many of them as the network has vectors for.

Without files transformers makes a tokenizer of a few special tokens, in which all texts are the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from embedpipe.errors import WeightsError

#: The vocabulary may be smaller than the network's matrix by this many rows or this share: rows are padded to a
#: multiple of 64 to 256, and some are kept for later tokens.
_SPARE_ROWS, _SPARE_SHARE = 256, 0.1

_ADVICE = "copy the tokenizer's files (tokenizer.json) of this model into its folder"


def count_embeddings(module: nn.Module) -> int | None:
    """Return for how many tokens a network of transformers has a vector; None if it has no such matrix."""
    try:
        matrix = module.get_input_embeddings()  # type: ignore[operator]
    except (AttributeError, NotImplementedError):
        return None
    weight = getattr(matrix, "weight", None)
    return len(weight) if weight is not None and weight.ndim == 2 else None


def require_vocabulary(tokenizer: Any, rows: int | None, origin: str) -> None:
    """Raise WeightsError unless a fast tokenizer has words, and those of the network.

    Parameters
    ----------
    tokenizer : transformers.PreTrainedTokenizerBase
    rows : int, optional
        For how many tokens the network has a vector, if that is known.
    origin : str
        The origin of the weights, for messages.
    """
    folder = Path(tokenizer.name_or_path)
    names = {"tokenizer.json", *tokenizer.vocab_files_names.values()}
    # Modules of sentence-transformers may have folders of their own.
    places = (folder, *(place for place in folder.glob("*") if place.is_dir()))
    if folder.is_dir() and not any((place / name).is_file() for name in names for place in places):
        raise WeightsError(f"{origin} must have a tokenizer, but has none of {', '.join(sorted(names))}: {_ADVICE}")
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    special = set(tokenizer.all_special_tokens)
    if not any(word not in special and word.strip("\u2581") for word in vocabulary):
        raise WeightsError(
            f"the tokenizer of {origin} must know words, but its vocabulary of {len(vocabulary)} has special tokens "
            f"only, so that all texts have one vector: {_ADVICE}"
        )
    if rows is None:
        return
    added = set(tokenizer.get_added_vocab())  # some tokens are never in a text, such as <image_soft_token>
    used = [id for word, id in vocabulary.items() if word not in added]
    used += [id for id in (tokenizer.pad_token_id, *tokenizer("")["input_ids"]) if id is not None]
    if used and max(used) >= rows:
        raise WeightsError(
            f"the tokenizer of {origin} must be the network's, but it numbers its tokens up to {max(used)} and the "
            f"network has {rows} vectors of tokens: {_ADVICE}"
        )
    if rows - len(vocabulary) > max(_SPARE_ROWS, _SPARE_SHARE * rows):
        raise WeightsError(
            f"the tokenizer of {origin} must be the network's, but it knows {len(vocabulary)} tokens and the network "
            f"has {rows} vectors of tokens: {_ADVICE}"
        )
