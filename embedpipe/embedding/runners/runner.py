"""What runs the backbone over rows of a listing."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from embedpipe.embedding.hash_index import Contents
from embedpipe.embedding.plan import EmbedPlan
from embedpipe.embedding.writing.messages import Message
from embedpipe.sources.listing import Listing

if TYPE_CHECKING:
    from embedpipe.backbones.backbone import Backbone
    from embedpipe.backbones.pending import PendingBackbone


@dataclass(frozen=True)
class Execution:
    """Where the network ran, and by what; empty while nothing has been embedded.

    Parameters
    ----------
    device, engine, engine_reason : str
    provenance : mapping of str to str
        What the commits record, as `Backbone.provenance`.
    batch_size : int
        Items per forward pass. It is halved when memory runs out.
    """

    device: str = ""
    engine: str = ""
    engine_reason: str = ""
    provenance: Mapping[str, str] = field(default_factory=dict)
    batch_size: int = 0

    @classmethod
    def of(cls, backbone: Backbone | PendingBackbone) -> Execution:
        """Return that of a backbone."""
        return cls(str(backbone.device), backbone.engine_name, backbone.engine_reason, backbone.provenance)


class Runner(Protocol):
    """Embeds rows of a listing, in this process or elsewhere.

    Attributes
    ----------
    done : int
        Number of embedded items so far.
    idle : float
        Seconds before the first item, in which workers started.
    threads : int
        Threads that prepare items, of one worker.
    is_fixed : bool
        Whether no other settings are tried to find faster ones.
    execution : Execution
    """

    idle: float
    threads: int
    is_fixed: bool

    @property
    def done(self) -> int: ...  # noqa: D102

    @property
    def execution(self) -> Execution: ...  # noqa: D102

    def messages(self, listing: Listing, plan: EmbedPlan, contents: Contents) -> Generator[Message, None, None]:
        """Yield messages for the writer, with each row that is to be read exactly once.

        Parameters
        ----------
        listing : Listing
        plan : EmbedPlan
        contents : Contents
            The contents of the store at the plan.
        """
        ...
