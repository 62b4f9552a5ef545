"""Find what in a FOLDER of photos looks like each QUERY; without a query, look around and list likely copies.

    python pipelines/near_neighbours.py photos holiday.jpg --to neighbours
    python pipelines/near_neighbours.py photos --copies 0.98

A query is a photo, a folder of photos, or an id (a path relative to FOLDER). Into --to go the photos' vectors,
neighbours.csv and neighbours.png. Without a query a few photos spread over the folder are asked for, and
copies.csv lists the pairs of photos, of the whole folder, that are at least as near as --copies says. The photos
themselves are only read. Run it again when photos came, went or changed: only new ones are embedded.

Exit codes: 0 done; 3 done, but some photos or queries failed; 2 bad usage (no such folder or query); 1 anything
else.
"""

from __future__ import annotations

import argparse
import os
import sys
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import csv

import embedpipe
from embedpipe.report import draw_neighbours

DONE, SOME_FAILED = 0, 3
SPREAD = 6
FAILURES_SHOWN, COPIES_SHOWN = 10, 20
#: Photos whose neighbours are looked for at a time, and of how many copies of one photo pairs are listed.
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
    parser.add_argument("-k", type=int, default=8, help="how many neighbours of each query (default: 8)")
    parser.add_argument("--copies", type=float, default=0.98, metavar="COSINE", help="default: 0.98")
    parser.add_argument("--backbone", help="by default embedpipe's own default")
    arguments = parser.parse_args()
    if arguments.to.resolve().is_relative_to(Path(arguments.folder).resolve()):
        parser.error(f"--to {arguments.to} lies in {arguments.folder}: its pictures would be taken for photos")
    if not 0 < arguments.copies <= 1:
        parser.error(f"--copies {arguments.copies} is no cosine above 0 and up to 1")
    if arguments.k < 1:
        parser.error(f"-k {arguments.k} is less than 1")
    return arguments


def embed_source(arguments: argparse.Namespace) -> embedpipe.FeatureStore:
    """Bring the folder's store in line with what is there now, and say what failed; each source has its own."""
    source = arguments.folder
    place = source if "://" in source else Path(source).absolute()
    options = {"backbone": arguments.backbone} if arguments.backbone else {}
    to = arguments.to / f"photos-{zlib.crc32(os.fsencode(place)):08x}.features"
    # Forced, as all that pruning can lose here is the time to embed again.
    store = embedpipe.embed(source, to=to, prune=True, force=True, **options)
    failed = store.failures()
    if failed.num_rows:
        store.remove(failed["id"].to_pylist())  # a photo that broke must not pass for what it was
    run = store.summary
    counts = f"{run.embedded:,} embedded, {run.reused:,} reused, {run.pruned:,} gone, {run.failed:,} failed"
    print(f"photos of {source}: {counts}")
    for row in failed.slice(0, FAILURES_SHOWN).to_pylist():
        print(f"  failed: {row['id']}: {row['message']}", file=sys.stderr)
    if failed.num_rows > FAILURES_SHOWN:
        print(f"  ... and {failed.num_rows - FAILURES_SHOWN:,} more", file=sys.stderr)
    return store.refresh()


def with_direction(index: embedpipe.SimilarityIndex) -> np.ndarray:
    """Return the rows whose vector is not all zeros, as that has no neighbours."""
    return np.flatnonzero(index.vectors.any(axis=1))


def find_copies(index: embedpipe.SimilarityIndex, cosine: float) -> pa.Table:
    """Return the pairs at least as near as ``cosine``, the nearest first: ask for more only where all are near."""
    n = len(index.ids)
    most = min(MOST_COPIES + 1, n)
    rows, parts = with_direction(index), [np.empty((0, 3))]
    for start in range(0, len(rows), BLOCK):
        asked, k = rows[start : start + BLOCK], min(2, n)
        while len(asked):
            scores, found = index.search(index.vectors[asked], k)
            more = (scores[:, -1] >= cosine) & (k < most)
            near = (scores >= cosine) & (found != asked[:, None]) & ~more[:, None]
            one = np.broadcast_to(asked[:, None], found.shape)[near]
            parts.append(np.column_stack([np.minimum(one, found[near]), np.maximum(one, found[near]), scores[near]]))
            asked, k = asked[more], min(4 * k, most)
    pairs = np.concatenate(parts)
    _, first = np.unique(pairs[:, 0] * n + pairs[:, 1], return_index=True)  # each was found from both sides
    pairs = pairs[first][np.argsort(-pairs[first, 2], kind="stable")]
    about = index.store.to_arrow(["id", "uri", "content_hash"])
    one, other = (about.take(pa.array(pairs[:, side].astype(np.int64))) for side in (0, 1))
    columns = {"id": one["id"], "uri": one["uri"], "copy_id": other["id"], "copy_uri": other["uri"]}
    same = [a == b for a, b in zip(one["content_hash"].to_pylist(), other["content_hash"].to_pylist(), strict=True)]
    return pa.table({**columns, "score": pairs[:, 2], "same_bytes": pa.array(same, pa.bool_())})


def main() -> int:
    """Embed, search, and return the exit code."""
    arguments = parse_arguments()
    to = arguments.to
    store = embed_source(arguments)
    index = embedpipe.SimilarityIndex(store)
    rows = with_direction(index)
    spread = rows[np.unique(np.linspace(0, len(rows) - 1, SPREAD).round().astype(int))]
    queries = arguments.query or index.ids.take(pa.array(spread)).to_pylist()
    # What --backbone names was typed, and is what the store was made with: it may run again for the queries.
    found = embedpipe.search(index, queries, k=arguments.k, trust=arguments.backbone is not None)
    columns = [name for name in COLUMNS if name in found.table.column_names]
    csv.write_csv(found.table.select(columns), to / "neighbours.csv")
    if len(found.failed) < len(found):
        draw_neighbours(found, to / "neighbours.png", title=f"What looks alike in {arguments.folder}")
        print(f"neighbours of each query: {to / 'neighbours.csv'} and neighbours.png")
    for name, reason in found.failed:
        print(f"  failed: {name}: {reason}", file=sys.stderr)
    if not arguments.query:
        copies = find_copies(index, arguments.copies)
        csv.write_csv(copies, to / "copies.csv")
        print(
            f"pairs of likely copies, cosine of at least {arguments.copies}: {copies.num_rows:,} in {to / 'copies.csv'}"
        )
        for row in copies.slice(0, COPIES_SHOWN).to_pylist():
            print(f"  {row['score']:.4f}  {row['id']}  {row['copy_id']}{'  same bytes' if row['same_bytes'] else ''}")
    return SOME_FAILED if store.summary.failed or found.failed else DONE


if __name__ == "__main__":
    try:
        sys.exit(main())
    except embedpipe.EmbedpipeError as error:
        print(f"near_neighbours: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
