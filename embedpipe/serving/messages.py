"""What the JSON API takes and gives: the schemas of its OpenAPI description."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field


class Problem(BaseModel):
    """Why a request was refused."""

    error: str


class Column(BaseModel):
    """A column to filter and colour by. ``values``: its classes, the most frequent first, or both ends of a scale."""

    name: str
    kind: Literal["class", "number"]
    values: list[str]


class HeadInfo(BaseModel):
    """A head whose predictions are shown once ``state`` is ready; ``note`` says what to know of them.

    ``separator`` stands between the labels of an item, where it may have several.
    """

    name: str
    label: str
    state: Literal["computing", "ready", "failed"]
    note: str
    orders: list[Literal["uncertain", "wrong"]]
    separator: str | None = None


class FindingsKind(BaseModel):
    """The findings of a kind, and what they mean."""

    kind: str
    heading: str
    meaning: str
    count: int


class StoreInfo(BaseModel):
    """A store. ``key`` names its items, for which row numbers hold; ``at`` is its version; ``label`` can be edited.

    ``words`` and ``pictures`` say by what items can be searched.
    """

    name: str
    rows: int
    key: str
    at: int
    modality: Literal["image", "text"]
    words: bool
    pictures: bool
    backbone: str
    columns: list[Column]
    edit: bool
    label: str
    head: HeadInfo | None = None
    findings: list[FindingsKind] = []


class Row(BaseModel):
    """An item of a selection. ``score`` is its cosine to the query of a search; ``excluded`` why it is not used."""

    row: int
    id: str
    label: str | None = None
    text: str | None = None
    score: float | None = None
    prediction: str | float | None = None
    confidence: float | None = None
    excluded: str | None = None


class Rows(BaseModel):
    """A part of a selection of ``total`` rows. ``how`` says how the neighbours of a search were found."""

    total: int
    start: int
    how: str
    rows: list[Row]


class FindingRow(BaseModel):
    """A finding on an item, which had a ``label``. ``elsewhere`` names a related item that the store does not have."""

    row: Row
    related: Row | None = None
    elsewhere: str | None = None
    score: float | None = None
    label: str | None = None
    proposed: str | None = None


class FindingRows(BaseModel):
    """A part of the ``total`` findings of a kind."""

    total: int
    start: int
    findings: list[FindingRow]


class Item(BaseModel):
    """All that is known of an item."""

    row: int
    id: str
    text: str | None = None
    values: dict[str, Any]
    probabilities: dict[str, float]


class Count(BaseModel):
    """Rows that have a class; ``value`` is null for rows without one."""

    value: str | None
    count: int


class MapInfo(BaseModel):
    """The state of the map; ``note`` says how it was computed, or why it could not be."""

    state: Literal["computing", "ready", "failed"]
    note: str


class ValueEdit(BaseModel):
    """A label to set, or why an item is excluded; ``was`` is what the editor saw, null for none."""

    row: int = Field(ge=0, le=2**40)
    value: str | None = Field(max_length=500)
    was: str | None = Field(max_length=4_001)


class ValueEdits(BaseModel):
    """Values to set, all or none."""

    edits: list[ValueEdit] = Field(min_length=1, max_length=1_000)


class Version(BaseModel):
    """The version of the store after a change."""

    at: int


class Words(BaseModel):
    """A text to search for."""

    words: str = Field(min_length=1, max_length=2_000)


class QueryInfo(BaseModel):
    """A query that was embedded; ``near=query:KEY`` selects its neighbours."""

    key: str
    text: str
