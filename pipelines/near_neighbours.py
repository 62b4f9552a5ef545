"""Find the photos of FOLDER that look most like each QUERY; without a query, list likely copies.

    python pipelines/near_neighbours.py photos holiday.jpg --to neighbours
    python pipelines/near_neighbours.py photos --copies 0.98

A query is a photo, a folder of photos, or an id (a path relative to FOLDER). --to gets the vectors,
neighbours.csv and neighbours.png. Without a query, a few photos of the folder are the queries, and copies.csv lists all
pairs of photos in the folder with a cosine of at least --copies. The photos are only read. Run it again after photos
were added, removed or changed: it embeds only new ones.

Exit codes: 0 done; 3 done, but some photos or queries failed; 2 bad usage (no such folder or query); 1 any other
error.
"""

from __future__ import annotations

import argparse
import os
import sys
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa

import embedpipe
from embedpipe.errors import UsageError
from embedpipe.report import draw_neighbours, write_table

DONE, SOME_FAILED = 0, 3
#: Number of photos that are queries where none is given.
SAMPLE = 6
FAILURES_SHOWN, COPIES_SHOWN = 10, 20
#: Photos that are searched at a time, and the most copies of one photo that are listed.
BLOCK, MOST_COPIES = 1024, 64
COLUMNS = ("query", "query_uri", "query_label", "rank", "score", "id", "uri", "label", "error")


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    text, _, epilog = (__doc__ or "").partition("\n\n")
    as_written = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=text, epilog=epilog, formatter_class=as_written)
    parser.add_argument("folder", help="photos: a folder, or any other source")
    parser.add_argument("query", nargs="*", help="a photo, a folder of photos, or an id")
    parser.add_argument("--to", type=Path, default=Path("neighbours"), metavar="FOLDER", help="default: neighbours")
    parser.add_argument("-k", type=int, default=8, help="number of neighbours per query (default: 8)")
    parser.add_argument("--copies", type=float, default=0.98, metavar="COSINE", help="default: 0.98")
    parser.add_argument("--backbone", help="default: that of `embedpipe embed`")
    arguments = parser.parse_args()
    if arguments.to.resolve().is_relative_to(Path(arguments.folder).resolve()):
        parser.error(
            f"--to must not be inside {arguments.folder}, got {arguments.to}: its pictures would count as photos"
        )
    if not 0 < arguments.copies <= 1:
        parser.error(f"--copies must be a cosine in (0, 1], got {arguments.copies}")
    if arguments.k < 1:
        parser.error(f"-k must be >= 1, got {arguments.k}")
    return arguments


def embed_source(arguments: argparse.Namespace) -> embedpipe.FeatureStore:
    """Update the store of the folder, one store per folder, and print the failures."""
    source = arguments.folder
    place = source if "://" in source else Path(source).absolute()
    options = {"backbone": arguments.backbone} if arguments.backbone else {}
    to = arguments.to / f"photos-{zlib.crc32(os.fsencode(place)):08x}.features"
    # force: pruning many rows by mistake costs only the time to embed them again.
    store = embedpipe.embed(source, to=to, prune=True, force=True, **options)
    failed = store.failures()
    if failed.num_rows:
        store.remove(
            failed["id"].to_pylist()
        )  # a photo that cannot be read now may still have the vector of an earlier version
    run = store.summary
    counts = f"{run.embedded:,} embedded, {run.reused:,} reused, {run.pruned:,} removed, {run.failed:,} failed"
    print(f"photos of {source}: {counts}")
    for row in failed.slice(0, FAILURES_SHOWN).to_pylist():
        print(f"  failed: {row['id']}: {row['message']}", file=sys.stderr)
    if failed.num_rows > FAILURES_SHOWN:
        print(f"  ... and {failed.num_rows - FAILURES_SHOWN:,} more", file=sys.stderr)
    return store.refresh()


def searchable_rows(index: embedpipe.SimilarityIndex) -> np.ndarray:
    """Return the rows that are not excluded, and whose vector is not all zeros: a zero vector has no cosine."""
    return np.setdiff1d(np.flatnonzero(index.vectors.any(axis=1)), index.excluded)


def find_copies(index: embedpipe.SimilarityIndex, cosine: float) -> pa.Table:
    """Return the pairs with a cosine of at least ``cosine``, the nearest first."""
    n = len(index.ids)
    most = min(MOST_COPIES + 1, n)
    rows, parts = searchable_rows(index), [np.empty((0, 3))]
    for start in range(0, len(rows), BLOCK):
        queries, k = rows[start : start + BLOCK], min(2, n)
        while len(queries):
            scores, neighbours = index.search(index.vectors[queries], k)
            more = (scores[:, -1] >= cosine) & (k < most)
            near = (scores >= cosine) & (neighbours != queries[:, None]) & ~more[:, None]
            left, right = np.broadcast_to(queries[:, None], neighbours.shape)[near], neighbours[near]
            parts.append(np.column_stack([np.minimum(left, right), np.maximum(left, right), scores[near]]))
            queries, k = queries[more], min(4 * k, most)  # all their k neighbours are near: ask for more
    pairs = np.concatenate(parts)
    _, first = np.unique(pairs[:, 0] * n + pairs[:, 1], return_index=True)  # each pair is found from both photos
    pairs = pairs[first][np.argsort(-pairs[first, 2], kind="stable")]
    photos = index.store.to_arrow(["id", "uri", "content_hash"])
    left, right = (photos.take(pa.array(pairs[:, side].astype(np.int64))) for side in (0, 1))
    columns = {"id": left["id"], "uri": left["uri"], "copy_id": right["id"], "copy_uri": right["uri"]}
    same = [a == b for a, b in zip(left["content_hash"].to_pylist(), right["content_hash"].to_pylist(), strict=True)]
    return pa.table({**columns, "score": pairs[:, 2], "same_bytes": pa.array(same, pa.bool_())})


def main() -> int:
    """Embed, search, and return the exit code."""
    arguments = parse_arguments()
    to = arguments.to
    store = embed_source(arguments)
    index = embedpipe.SimilarityIndex.load(store)
    rows = searchable_rows(index)
    if not len(rows):
        raise UsageError("no photo can be searched for: all are excluded, or have a vector of zeros")
    sample = rows[np.unique(np.linspace(0, len(rows) - 1, SAMPLE).round().astype(int))]
    queries = arguments.query or index.ids.take(pa.array(sample)).to_pylist()
    # trust: a backbone of the user's own code was named by --backbone just now, and may run for the queries too.
    neighbours = embedpipe.search(index, queries, k=arguments.k, trust=arguments.backbone is not None)
    columns = [name for name in COLUMNS if name in neighbours.table.column_names]
    write_table(neighbours.table.select(columns), to / "neighbours.csv")
    if len(neighbours.failed) < len(neighbours):
        draw_neighbours(neighbours, to / "neighbours.png", title=f"Nearest photos in {arguments.folder}")
        print(f"neighbours of each query: {to / 'neighbours.csv'} and neighbours.png")
    for name, reason in neighbours.failed:
        print(f"  failed: {name}: {reason}", file=sys.stderr)
    if not arguments.query:
        copies = find_copies(index, arguments.copies)
        write_table(copies, to / "copies.csv")
        print(
            f"pairs of likely copies, cosine of at least {arguments.copies}: {copies.num_rows:,} in {to / 'copies.csv'}"
        )
        for row in copies.slice(0, COPIES_SHOWN).to_pylist():
            print(f"  {row['score']:.4f}  {row['id']}  {row['copy_id']}{'  same bytes' if row['same_bytes'] else ''}")
    return SOME_FAILED if store.summary.failed or neighbours.failed else DONE


if __name__ == "__main__":
    try:
        sys.exit(main())
    except embedpipe.EmbedpipeError as error:
        print(f"near_neighbours: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
