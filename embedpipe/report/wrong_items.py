"""Wrongly predicted items on a page: what each looks like, and a link to its file, within a bound on size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from embedpipe.report.item_previews import Preview, preview_items
from embedpipe.report.links import link_to

#: Longer side of a picture in pixels, of up to `MAX_LARGE` items and of more.
LARGE, SMALL, MAX_LARGE = 320, 176, 300
#: Characters of all shown items, of all that are listed by name, and of the markup of one.
MAX_CHARACTERS, MAX_LISTED, MARKUP = 12_000_000, 6_000_000, 600
#: After so many items that cannot be read, if they are most, the source is taken to be gone, and no more are tried.
MAX_UNREADABLE = 50
#: Items that are read at once.
CHUNK = 64


@dataclass(frozen=True)
class WrongItem:
    """A wrongly predicted row.

    Attributes
    ----------
    id : str
    uri : str or None
        As the store holds it.
    actual, predicted : str
    probability : float or None
        That of the predicted class; None if the head has none.
    text : str or None
        The text of the item, if the store has it.
    """

    id: str
    uri: str | None
    actual: str
    predicted: str
    probability: float | None
    text: str | None = None


@dataclass(frozen=True)
class Card:
    """An item on a page: its preview, and a link to its file or ``""``."""

    item: WrongItem
    link: str
    preview: Preview


@dataclass(frozen=True)
class ShownItems:
    """Items on a page: those with a preview, and the others, which are listed by name.

    Attributes
    ----------
    cards, listed : list of Card
    left_out : int
        Number of items that are neither shown nor listed.
    unreadable : bool
        Whether most items could not be read, so that the others were not tried.
    megabytes : int
        The bound on the size of the page.
    """

    cards: list[Card]
    listed: list[Card]
    left_out: int
    unreadable: bool
    megabytes: int = 20


def show_wrong_items(items: Sequence[WrongItem], page: Path, *, pictures: bool = True) -> ShownItems:
    """Return what a page shows of items, in their order: previews until the page is full, then names.

    Parameters
    ----------
    items : sequence of WrongItem
    page : pathlib.Path
        The page; files in its folder are linked relative to it, so that both can be moved.
    pictures : bool, default True
        Show pictures and texts.
    """
    side = LARGE if len(items) <= MAX_LARGE else SMALL
    folder = page.absolute().parent
    cards: list[Card] = []
    size = first = failures = 0
    unreadable = False
    while pictures and first < len(items) and size < MAX_CHARACTERS and not unreadable:
        chunk = items[first : first + CHUNK]
        for item, preview in zip(chunk, preview_items([(item.uri, item.text) for item in chunk], side), strict=True):
            card = Card(item, link_to(item.uri, folder), preview)
            size += len(preview.picture) + len(preview.text) + 2 * len(card.link) + MARKUP
            failures += bool(preview.reason)
            cards.append(card)
        first += CHUNK
        unreadable = failures > max(MAX_UNREADABLE, len(cards) / 2)
    listed: list[Card] = []
    size = 0
    for item in items[len(cards) :]:
        card = Card(item, link_to(item.uri, folder), Preview())
        size += len(card.link) + MARKUP
        if size > MAX_LISTED:
            break
        listed.append(card)
    return ShownItems(cards, listed, len(items) - len(cards) - len(listed), unreadable)
