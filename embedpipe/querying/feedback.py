"""Feedback: queries are moved towards items that are to be liked, and away from others."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from embedpipe._utils.option_names import option
from embedpipe.errors import UsageError
from embedpipe.neighbours import normalised
from embedpipe.querying.queries import Query

#: Weight of what is not liked. Of the next ten clothing photos after three likes and three dislikes, 80 % have the
#: class of the likes with 0, 83 % with 0.25, 85 % with 0.5, 80 % with 0.75 and 66 % with 1 (benchmarks/feedback.py).
UNLIKE = 0.5


def with_feedback(queries: Sequence[Query], like: Sequence[Query], unlike: Sequence[Query]) -> list[Query]:
    """Return the queries, or one of the likes alone, moved by what is liked and what is not.

    The new vector is ``query + mean(like) - UNLIKE * mean(unlike)``, where all vectors have length one (Rocchio,
    Relevance feedback in information retrieval, 1971). An image and words in `like` are then "this, but ...".

    Raises
    ------
    UsageError
        If there is nothing to move, an item has no vector, or the vectors cancel out.
    """
    if not like and not unlike:
        return list(queries)
    if not queries and not like:
        raise UsageError(f"{option('unlike')} must come with a query, or with {option('like')}: say what to look for")
    for item in (*like, *unlike):
        if item.vector is None:
            raise UsageError(f"{option('like')} and {option('unlike')} must be readable; {item.name!r}: {item.error}")
    shift = _mean(like) - UNLIKE * _mean(unlike)
    words = [f"like {item.name}" for item in like] + [f"unlike {item.name}" for item in unlike]
    rows = tuple(row for item in (*like, *unlike) for row in item.rows)
    if not queries:
        labels = {item.label for item in like}
        label = labels.pop() if len(labels) == 1 else None
        start = Query(", ".join(words), like[0].uri, label, np.zeros(shift.shape, np.float32), text=like[0].text)
        return [_moved(start, start.name, shift, rows)]
    return [_moved(query, ", ".join([query.name, *words]), shift, rows) for query in queries]


def _moved(query: Query, name: str, shift: npt.NDArray[np.float64], rows: tuple[int, ...]) -> Query:
    if query.vector is None:
        return query
    vector = _mean([query]) + shift
    # Equal vectors cancel out up to the rounding of float32.
    if np.linalg.norm(vector) < np.finfo(np.float32).eps * np.sqrt(vector.size):
        raise UsageError(f"{name}: the vectors cancel out, and no direction is left to search in")
    return dataclasses.replace(query, name=name, vector=vector.astype(np.float32), rows=(*query.rows, *rows))


def _mean(queries: Sequence[Query]) -> npt.NDArray[np.float64]:
    """Return the mean of the vectors at length one; zeros, which have any shape, for none."""
    vectors = [query.vector for query in queries if query.vector is not None]
    return normalised(np.stack(vectors)).mean(axis=0, dtype=np.float64) if vectors else np.zeros(())
