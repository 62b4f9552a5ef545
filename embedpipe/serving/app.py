"""The web application of a store: its page, and the JSON API that the page uses."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Body, FastAPI, Query
from fastapi import Path as PathParameter
from fastapi.responses import Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from embedpipe._utils.option_names import option
from embedpipe.errors import ConcurrentWriteError, ItemError
from embedpipe.report.page import read_template
from embedpipe.serving.base_app import MOST_UPLOADED, STATIC, GoneError, base_app, problems
from embedpipe.serving.guard import LOCAL
from embedpipe.serving.messages import (
    Count,
    FindingRow,
    FindingRows,
    Item,
    MapInfo,
    QueryInfo,
    Row,
    Rows,
    StoreInfo,
    ValueEdits,
    Version,
    Words,
)
from embedpipe.serving.viewing.labels import Edit
from embedpipe.serving.viewing.layout import as_bytes
from embedpipe.serving.viewing.selection import Filter, Order
from embedpipe.serving.viewing.viewer import Viewer

#: Rows of one answer.
MOST_ROWS = 200
#: What is named by content never changes.
FOREVER = {"cache-control": "private, max-age=31536000, immutable"}
BINARY = "application/octet-stream"
BYTES: dict[int | str, dict[str, Any]] = {200: {"content": {BINARY: {}}}}
JPEG: dict[int | str, dict[str, Any]] = {200: {"content": {"image/jpeg": {}}}}

Key = Annotated[str, Query(max_length=64, description="The key of the store's items.")]
Where = Annotated[str, Query(max_length=2_000, description="Condition over the columns, as in SQL's WHERE.")]
Classes = Annotated[str, Query(max_length=20_000, description='JSON: {"column": ["class", null]}.')]
Within = Annotated[str, Query(max_length=20_000, description="Polygon on the map: x,y,x,y,x,y.")]
RowNumber = Annotated[int, PathParameter(ge=0, le=2**40)]


def create_app(viewer: Viewer, hosts: Iterable[str] = LOCAL, token: str | None = None) -> FastAPI:
    """Return the application that serves a store.

    Parameters
    ----------
    viewer : Viewer
    hosts : iterable of str
        Names by which it may be called; ``*`` stands for all addresses.
    token : str, optional
        What every request must bring.
    """
    app = base_app("embedpipe view", hosts, token)
    app.include_router(_routes(viewer))
    app.get("/scatter.js", include_in_schema=False)(_scatter)
    app.mount("/", StaticFiles(directory=STATIC, html=True))
    return app


def _scatter() -> Response:
    """Return the script that draws points, which the page of `map` has too."""
    return Response(read_template("scatter.js"), media_type="text/javascript")


def _routes(viewer: Viewer) -> APIRouter:
    router = APIRouter(prefix="/api", responses=problems(400, 410))

    @router.get("/store")
    def store() -> StoreInfo:
        """Describe the store, in its newest version."""
        return StoreInfo(**viewer.describe(viewer.refresh()))

    @router.get("/rows")
    def rows(
        key: Key,
        start: Annotated[int, Query(ge=0, le=2**40)] = 0,
        count: Annotated[int, Query(ge=0, le=MOST_ROWS)] = 100,
        where: Where = "",
        classes: Classes = "",
        within: Within = "",
        near: Annotated[str, Query(max_length=64, description="row:NUMBER or query:KEY: its neighbours.")] = "",
        order: Order = "id",
        at: Annotated[int, Query(ge=0, le=2**40)] = 0,
    ) -> Rows:
        """List a part of the rows that satisfy all conditions, in order."""
        collection, _ = viewer.at(key)
        chosen = viewer.select(collection, Filter.parse(where, classes, within), near, order, at)
        part = chosen.rows[start : start + count].tolist()
        scores = [None] * len(part) if chosen.scores is None else chosen.scores[start : start + count].tolist()
        listed = [Row(**viewer.brief(collection, row), score=score) for row, score in zip(part, scores, strict=True)]
        return Rows(total=len(chosen.rows), start=start, how=chosen.how, rows=listed)

    @router.get("/rows/{row}")
    def item(row: RowNumber, key: Key) -> Item:
        """Show all that is known of an item."""
        collection, pictures = viewer.at(key)
        return Item(**viewer.detail(collection, pictures, viewer.row(collection, row)))

    @router.get("/rows/{row}/picture", response_class=Response, responses=JPEG)
    def picture(row: RowNumber, key: Key, size: Literal["small", "large"] = "small") -> Response:
        """Return a JPEG of an item, made anew; 410 with the reason if there is none."""
        collection, pictures = viewer.at(key)
        row = viewer.row(collection, row)
        try:
            data = pictures.thumbnail(row) if size == "small" else pictures.large(row)
        except ItemError as error:
            raise GoneError(str(error)) from error
        return Response(data, media_type="image/jpeg", headers=FOREVER)

    @router.get("/counts")
    def counts(key: Key, where: Where = "", classes: Classes = "", within: Within = "") -> dict[str, list[Count]]:
        """Count the rows of each class of each column, among those that satisfy the conditions on other columns."""
        collection, _ = viewer.at(key)
        counted = viewer.counts(collection, Filter.parse(where, classes, within))
        return {name: [Count(value=value, count=count) for value, count in pairs] for name, pairs in counted.items()}

    @router.get("/map")
    def map_state(key: Key) -> MapInfo:
        """Say whether the map is ready; it is computed once somebody asks."""
        layout = viewer.layout(key)
        return MapInfo(state=layout.state, note=layout.note)

    @router.get("/map/points", response_class=Response, responses=BYTES)
    def points(key: Key) -> Response:
        """Return x and y of each row as uint16, 0 to 65534 for 0 to 1."""
        layout = viewer.layout(key)
        if layout.points is None:
            raise GoneError("the map is not ready")
        return Response(as_bytes(layout.points), media_type=BINARY, headers=FOREVER)

    @router.get("/codes", response_class=Response, responses=BYTES)
    def codes(key: Key, column: Annotated[str, Query(max_length=200)]) -> Response:
        """Return the value of each row in a column as uint16: its place among the column's values; 65535 for none."""
        return Response(viewer.codes(viewer.at(key)[0], column).as_bytes(), media_type=BINARY)

    @router.get("/mask", response_class=Response, responses=BYTES)
    def mask(key: Key, where: Where = "", classes: Classes = "", within: Within = "") -> Response:
        """Return a bit for each row, set where it satisfies all conditions; the first row is the lowest bit."""
        collection, _ = viewer.at(key)
        chosen = viewer.mask(collection, Filter.parse(where, classes, within))
        bits = np.ones(len(collection), bool) if chosen is None else chosen
        return Response(np.packbits(bits, bitorder="little").tobytes(), media_type=BINARY)

    @router.get("/findings")
    def findings(
        key: Key,
        kind: Annotated[str, Query(max_length=64)],
        start: Annotated[int, Query(ge=0, le=2**40)] = 0,
        count: Annotated[int, Query(ge=0, le=MOST_ROWS)] = 50,
    ) -> FindingRows:
        """List a part of the findings of a kind, the surest first."""
        collection, _ = viewer.at(key)
        found = viewer.findings(collection, kind)
        listed = [
            FindingRow(
                row=Row(**viewer.brief(collection, each.row)),
                related=None if each.related is None else Row(**viewer.brief(collection, each.related)),
                elsewhere=each.elsewhere,
                score=each.score,
                label=each.label,
                proposed=each.proposed,
            )
            for each in found[start : start + count]
        ]
        return FindingRows(total=len(found), start=start, findings=listed)

    @router.put("/labels", responses=problems(403, 409))
    def labels(key: Key, body: ValueEdits) -> Version:
        """Set labels, all or none: 409 if a row has another label by now than the one that its editor saw."""
        return _write(viewer, key, body, excludes=False)

    @router.put("/excluded", responses=problems(403, 409))
    def excluded(key: Key, body: ValueEdits) -> Version:
        """Exclude rows for the reasons in ``value``, or use them again where it is null; as `labels`."""
        return _write(viewer, key, body, excludes=True)

    @router.get("/labels.csv", response_class=Response, responses={200: {"content": {"text/csv": {}}}})
    def labels_csv() -> Response:
        """Return the ids and labels of all items whose label was set by hand."""
        headers = {"content-disposition": 'attachment; filename="labels.csv"'}
        return Response(viewer.labels_csv(), media_type="text/csv", headers=headers)

    @router.post("/queries/picture", max_body_size=MOST_UPLOADED)
    def query_picture(
        key: Key, data: Annotated[bytes, Body(media_type="application/octet-stream", max_length=MOST_UPLOADED)]
    ) -> QueryInfo:
        """Embed an uploaded picture, the body of the request, as a query."""
        collection, _ = viewer.at(key)
        return QueryInfo(key=viewer.searcher.embed_picture(collection, data).key, text="")

    @router.post("/queries/words")
    def query_words(key: Key, body: Words) -> QueryInfo:
        """Embed words as a query, where the backbone embeds texts."""
        collection, _ = viewer.at(key)
        query = viewer.searcher.embed_words(collection, body.words)
        return QueryInfo(key=query.key, text=query.text)

    @router.get("/queries/{query}/picture", response_class=Response, responses=JPEG)
    def uploaded(query: Annotated[str, PathParameter(max_length=64)]) -> Response:
        """Return a JPEG of a picture that was uploaded as a query."""
        data = viewer.query(query).picture
        if not data:
            raise GoneError("the query has no picture")
        return Response(data, media_type="image/jpeg", headers=FOREVER)

    return router


def _write(viewer: Viewer, key: str, body: ValueEdits, excludes: bool) -> Version:
    if not viewer.edit:
        raise HTTPException(403, f"items are changed only where the server was started with {option('edit', True)}")
    collection, _ = viewer.at(key)
    try:
        edits = [Edit(each.row, each.value, each.was) for each in body.edits]
        return Version(at=viewer.set_values(collection, edits, excludes))
    except ConcurrentWriteError as error:
        raise HTTPException(409, str(error)) from error
