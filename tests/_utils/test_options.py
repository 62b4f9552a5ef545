"""Values of options are checked against the types of their fields."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch

from embedpipe._utils.options import build_options, split_names
from embedpipe.clustering.options import ClustersOptions
from embedpipe.errors import UsageError


@dataclass(frozen=True)
class Sample:
    count: int = field(default=1, metadata={"help": ""})
    share: float | Literal["off"] = field(default=0.5, metadata={"help": ""})
    rate: float | None = field(default=None, metadata={"help": ""})
    path: str | None = field(default=None, metadata={"help": ""})
    mode: Literal["fast", "slow"] = field(default="fast", metadata={"help": ""})
    names: tuple[str, ...] = field(default=(), metadata={"help": ""})
    sizes: tuple[int, ...] = field(default=(), metadata={"help": ""})
    quick: bool = field(default=False, metadata={"help": ""})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"count": "3"}, "count must be an integer, got '3'"),
        ({"count": 1.5}, "count must be an integer, got 1.5"),
        ({"count": True}, "count must be an integer, got True"),
        ({"count": None}, "count must be an integer, got None"),
        ({"share": [1]}, r"share must be 'off' or a number, got \[1\]"),
        ({"rate": "fast"}, "rate must be a number or None, got 'fast'"),
        ({"path": 3}, "path must be text or None, got 3"),
        ({"path": b"x"}, "path must be text or None, got b'x'"),
        ({"mode": np.array([1, 2])}, r"mode must be 'fast' or 'slow', got array\(\[1, 2\]\)"),
        ({"names": None}, "names must be a text or a list of texts, got None"),
        ({"names": [["a"]]}, "names must be a text or a list of texts"),
        ({"sizes": 1.5}, "sizes must be an integer or a list of integers, got 1.5"),
        ({"quick": "no"}, "quick must be True or False, got 'no'"),
    ],
)
def test_value_of_another_type_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build_options((Sample,), values)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"count": np.int64(3)}, 3),
        ({"share": np.float32(0.5)}, 0.5),
        ({"share": "off"}, "off"),
        ({"rate": 1}, 1.0),
        ({"path": Path("a")}, Path("a")),
        ({"path": torch.device("cpu")}, torch.device("cpu")),
        ({"names": "a"}, ("a",)),
        ({"names": ["a", "b"]}, ("a", "b")),
        ({"sizes": 3}, (3,)),
        ({"quick": np.bool_(True)}, True),
    ],
)
def test_value_is_stored_in_the_type_of_the_field(values: dict[str, Any], expected: Any) -> None:
    (sample,) = build_options((Sample,), values)
    (name,) = values
    assert getattr(sample, name) == expected
    assert type(getattr(sample, name)) is type(expected)


def test_names_are_separated_by_commas_and_none_is_no_name() -> None:
    assert split_names("features", ["a, b", "c,"]) == ("a", "b", "c")
    assert split_names("features", []) == ()
    for given in ([","], [""], [" ", ","]):
        with pytest.raises(UsageError, match="features must have at least one name"):
            split_names("features", given)
    with pytest.raises(UsageError, match="words must have at least one name, got ','"):
        ClustersOptions(words=(",",))


def test_unknown_option_is_refused_with_the_most_similar_name() -> None:
    with pytest.raises(UsageError, match=r"^unknown option 'cuont'; did you mean 'count'\? Available: count, mode"):
        build_options((Sample,), {"cuont": 3})
