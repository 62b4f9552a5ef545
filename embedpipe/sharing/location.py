"""The addresses of repositories: ``hf://datasets/ORG/NAME`` for a store, ``hf://ORG/NAME`` for a head."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from embedpipe.errors import UsageError

Kind = Literal["store", "head"]

#: The hub's name for what holds a store or head.
REPO_TYPES: dict[Kind, str] = {"store": "dataset", "head": "model"}
FORMS: dict[Kind, str] = {"store": "hf://datasets/ORG/NAME", "head": "hf://ORG/NAME"}

_NAME = r"[\w][\w.-]{0,95}"
_ADDRESS = re.compile(
    rf"hf://(?P<datasets>datasets/)?(?!datasets/)(?P<repo>{_NAME}/{_NAME})(@(?P<revision>[\w./-]{{1,200}}))?/?",
    re.ASCII,
)


class Repository(NamedTuple):
    """A repository of the hub, and the revision that is meant."""

    kind: Kind
    name: str
    revision: str | None = None

    @classmethod
    def parse(cls, address: object) -> Repository:
        """Read an address. Raises UsageError unless it has one of the two forms."""
        match = _ADDRESS.fullmatch(address) if isinstance(address, str) else None
        if match is None:
            raise UsageError(
                f"the address of a repository must be {FORMS['store']} for a store or {FORMS['head']} for a head, got "
                f"{address!r}"
            )
        return cls("store" if match["datasets"] else "head", match["repo"], match["revision"])

    @property
    def type(self) -> str:
        """The hub's type of the repository."""
        return REPO_TYPES[self.kind]

    @property
    def address(self) -> str:
        """The address without the revision."""
        return FORMS[self.kind].replace("ORG/NAME", self.name)
