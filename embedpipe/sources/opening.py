"""`open_source`: the listing of any kind of source, and reading one payload by its URI."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from embedpipe._utils.folder_kinds import folder_kind
from embedpipe._utils.option_names import option
from embedpipe.errors import EmbedpipeError, ReadError, SourceError, nearest
from embedpipe.sources.access.outage import outages_raised
from embedpipe.sources.access.roots import access_of_store
from embedpipe.sources.boxes import Crop, split_box
from embedpipe.sources.file_types import (
    COMPRESSED_TAR_SUFFIXES,
    TABLE_SUFFIXES,
    TAR_SUFFIX,
    TEXT_SUFFIXES,
    is_payload_name,
    list_suffixes,
    read_payload,
    suffix_of,
)
from embedpipe.sources.in_memory import as_pairs, is_stream
from embedpipe.sources.listing import ROOT, Listing, check_unique
from embedpipe.sources.locations import (
    absolute,
    exists,
    expand,
    is_url,
    local_path,
    require_no_secret,
    size_and_time,
    split_location,
)
from embedpipe.sources.options import Modality, SourceOptions, modality_holder
from embedpipe.sources.parts import PICTURE
from embedpipe.sources.readers.coco import list_coco
from embedpipe.sources.readers.dataset import is_dataset, list_dataset
from embedpipe.sources.readers.file_list import list_file_list, list_single_file
from embedpipe.sources.readers.folder import list_folder
from embedpipe.sources.readers.memory import list_items, list_pairs
from embedpipe.sources.readers.stream import list_stream
from embedpipe.sources.readers.table import list_frame, list_table, list_tables
from embedpipe.sources.readers.tar_shards import list_shards, read_member, split_member_uri
from embedpipe.sources.readers.yolo import FILE, is_yolo, list_yolo
from embedpipe.sources.tables.cell_uris import read_cell_uri
from embedpipe.sources.tables.shards import only_shard, shards_of, shards_of_folder
from embedpipe.sources.tiff_pages import read_page, split_page, with_pages
from embedpipe.sources.videos import is_video, parse_every, read_frame, split_time, with_frames

_DEFAULTS = SourceOptions()
#: End of the message for a missing file whose name has spaces. A text may have been meant.
TEXT_HINT = "; in Python, a text to embed must be in a list"


@outages_raised()
def open_source(source: Any, options: SourceOptions = _DEFAULTS, modality: Modality = "image") -> Listing:
    """List the images or texts of a source without reading them.

    Parameters
    ----------
    source : str, path-like, table or sequence
        A path or URL of a folder; of a single file; of a file of paths (``.lst``, for images also ``.txt``); of a
        ``.csv``, ``.tsv``, ``.parquet``, ``.arrow``, ``.jsonl`` or ``.ndjson`` table; of several such tables
        (``data/train-*.parquet``, or a folder of Parquet files or of `Dataset.save_to_disk`); for images of ``.tar``
        shards (``shards/*.tar``, ``train-{000..012}.tar``), and of boxes: a COCO file (``.json``) or a folder of YOLO
        with its ``data.yaml``. Or a pyarrow, pandas or polars table or another object with an Arrow stream; a data set
        of `datasets` or torchvision; a sequence or Series of items (see `list_items`) or of pairs of an item and its
        label; an iterator of these. A ``str`` is a path; a single text must be in a list.
    options : SourceOptions
        Roles of the columns of a table, and a prefix for the ids.
    modality : str
        ``"image"`` or ``"text"``, as the backbone takes it.

    Raises
    ------
    SourceError
        The source does not exist or cannot be listed.
    DuplicateIdError
        Two items have the same id.
    UnreachableError
        The storage or server does not answer.
    """
    _refuse_the_other_modality(options, modality)
    if isinstance(source, str | os.PathLike):
        if not os.fspath(source):
            raise SourceError("a source must not be an empty string: '.' is the working folder")
        require_no_secret(os.fsdecode(source), "a source")
        if kind := folder_kind(source):
            raise SourceError(f"a source must hold {modality}s or a table of them, and {str(source)!r} is {kind}")
    listing = _list(source, options, modality)
    given = "boxes" if options.boxes else "box_margin" if options.box_margin else ""
    if given and PICTURE not in listing.table.column_names:
        kind = "tables" if given == "boxes" else "boxes"
        raise SourceError(f"{option(given)} is for {kind}, and {listing.root!r} has none: leave it out")
    if options.every is not None:
        listing = with_frames(listing, parse_every(options.every))
    if options.tiff_pages == "all":
        listing = with_pages(listing)
    if options.prefix:
        listing = _with_prefix(listing, options.prefix.rstrip("/") + "/")
    if not listing.table.num_rows and not listing.failures:
        raise SourceError(f"a source must have at least one item, and {listing.root!r} has none")
    has_columns = suffix_of(listing.root) in TABLE_SUFFIXES or hasattr(source, "__arrow_c_stream__")
    advice = "drop the repeated items"
    check_unique(
        listing.table,
        listing.root,
        f"{advice}, or name a column with unique ids ({option('id', ...)})" if has_columns else advice,
    )
    return listing


def read_uri(uri: str, modality: Modality = "image") -> Any:
    """Read the payload of a ``uri`` of a store: bytes, a part of a picture, or a string for a text in a table.

    Raises ReadError, also for a uri that a store may not name (`access_of_store`).
    """
    file, box = split_box(uri) if modality == "image" else (uri, None)
    if box is not None and size_and_time(uri)[0] is None:  # no file has this very name
        return Crop(read_uri(file), box)
    file, page = split_page(uri) if modality == "image" else (uri, None)
    if page is not None and size_and_time(uri)[0] is None:  # no file has this very name
        return read_page(_read_uri(file, modality), page)
    return _read_uri(uri, modality)


def file_of(uri: str) -> str:
    """Return the uri of the file that a page, a part of a picture or a frame of a video is in."""
    return split_page(split_time(split_box(uri)[0])[0])[0]


def _read_uri(uri: str, modality: Modality) -> Any:
    access = access_of_store()
    file, time = split_time(uri)
    if time is not None and modality == "image" and size_and_time(uri)[0] is None:
        access.check_file(file)
        return read_frame(file, time)
    if uri.startswith("tar://"):
        member, shard = split_member_uri(uri)
        access.check_file(shard)
        return read_member(member, shard)
    if uri.startswith(("parquet://", "table://")):
        return read_cell_uri(uri, modality)
    return read_payload(uri, modality, access)


def root_exists(root: str) -> bool:
    """Return whether the root of a stored row still exists. True if that cannot be determined."""
    try:
        access_of_store().check_file(root)
        if root == ROOT or exists(root):
            return True
    except (ReadError, SourceError):
        return True
    if suffix_of(split_location(root)[1]) not in (TAR_SUFFIX, *TABLE_SUFFIXES):
        return False
    try:
        return bool(expand(root))
    except EmbedpipeError:
        return False


def same_root(first: str, second: str) -> bool:
    """Return whether two roots are the same folder or file, also through symbolic links."""
    paths = [local_path(root) for root in (first, second)]
    return first == second or (None not in paths and os.path.realpath(str(paths[0])) == os.path.realpath(str(paths[1])))


def _refuse_the_other_modality(options: SourceOptions, modality: Modality) -> None:
    for name in ("tiff_pages", "every", "boxes", "box_margin"):
        if modality == "text" and getattr(options, name) != getattr(_DEFAULTS, name):
            raise SourceError(f"{option(name)} applies to images, and this backbone takes {modality}s: leave it out")
    other: Modality = "text" if modality == "image" else "image"
    if column := getattr(options, other):
        holder = modality_holder()
        advice = "leave it out" if holder else f"give {option(modality, ...)}, or another backbone"
        raise SourceError(
            f"{option(other, column)} needs a backbone for {other}s, and {holder or 'this backbone'} takes "
            f"{modality}s: {advice}"
        )


def _list(source: Any, options: SourceOptions, modality: Modality) -> Listing:
    if isinstance(source, str | os.PathLike):
        return _list_location(os.fsdecode(source), options, modality)
    if is_dataset(source):
        return list_dataset(source, options, modality)
    # A Series or Arrow column exports a stream too, but has a single type.
    is_column = isinstance(source, pa.ChunkedArray) or hasattr(type(source), "dtype")
    if hasattr(source, "__arrow_c_stream__") and not is_column:
        return list_frame(source, options, modality)
    if is_stream(source):
        return list_stream(source, options, modality)
    if (pairs := as_pairs(source)) is not None:
        return list_pairs(pairs, modality, options.allow_root)
    return list_items(source, modality=modality, allow_root=options.allow_root)


def _list_location(text: str, options: SourceOptions, modality: Modality) -> Listing:
    location = absolute(text)
    path = local_path(location)
    name = split_location(location)[1].lower()
    if path is not None and exists(path) and Path(path).is_dir():
        is_open = os.access(path, os.X_OK)  # otherwise listing it gives the reason
        if is_open and modality == "image" and is_yolo(Path(path)):
            return list_yolo(Path(path) / FILE, options)
        if is_open and (shards := shards_of_folder(Path(path), modality)):
            return list_tables(location, shards, options, modality)
        return list_folder(location, modality, options.every is not None)
    if modality == "text" and name.endswith((TAR_SUFFIX, *COMPRESSED_TAR_SUFFIXES)):
        raise SourceError(
            f"texts cannot be read from a tar file, got {text!r}: unpack it to a folder, or write a table"
        )
    if name.endswith(COMPRESSED_TAR_SUFFIXES):
        raise SourceError(f"tar files must not be compressed, got {text!r}: decompress it to .tar")
    suffix = suffix_of(name)
    if suffix == TAR_SUFFIX:
        return list_shards(text)
    if suffix in TABLE_SUFFIXES and _has_wildcard(location):
        return list_tables(location, shards_of(expand(location)), options, modality)
    if not exists(location):
        raise SourceError(_missing(text, location))
    if suffix in TABLE_SUFFIXES:
        return list_table(only_shard(location), options, modality)
    if suffix == ".json" and modality == "image":
        return list_coco(location, options)
    if suffix in (".yaml", ".yml") and modality == "image" and path is not None:
        return list_yolo(Path(path), options)
    if suffix in list_suffixes(modality):
        return list_file_list(location, options, modality)
    # Web servers list no folders, and the URL of a picture there need not end as a file name does.
    on_web = location.lower().startswith(("http://", "https://")) and not text.endswith("/")
    if is_payload_name(name, modality) or on_web:
        return list_single_file(location, modality)
    if is_video(name) and modality == "image":
        if options.every is None:
            raise SourceError(f"{text!r} is a video: say how often to take a frame ({option('every', '1s')})")
        return list_single_file(location, modality)
    if path is None:
        return list_folder(location, modality, options.every is not None)
    known = (*TABLE_SUFFIXES, *list_suffixes(modality), *((TAR_SUFFIX,) if modality == "image" else TEXT_SUFFIXES))
    kinds = "a folder, an image, or a file" if modality == "image" else "a folder, or a file"
    raise SourceError(f"a source must be {kinds} with a suffix in {', '.join(known)}, got {text!r}")


def _has_wildcard(location: str) -> bool:
    """Return whether a location is a pattern of several files, and not the name of one."""
    signs = "*{" if is_url(location) else "*{?["
    return any(sign in location for sign in signs) and not (not is_url(location) and exists(location))


def _missing(text: str, location: str) -> str:
    if any(sign in text for sign in "*{"):
        return f"patterns are for .tar shards and tables only, got {text!r}: give the folder"
    folder, name = split_location(location)
    is_listable = not is_url(location) and exists(folder) and Path(folder).is_dir()
    try:
        names = [path.name for path in Path(folder).iterdir()] if is_listable else []
    except OSError as error:
        return f"cannot look for {text!r}: {error}"
    hint = nearest(name, names, cutoff=0.8) or (TEXT_HINT if " " in text else "")
    return f"there is no file or folder {text!r}{hint}"


def _with_prefix(listing: Listing, prefix: str) -> Listing:
    ids = pc.binary_join_element_wise(pa.scalar(prefix), listing.table.column("id"), "")
    failures = tuple(dataclasses.replace(failure, id=prefix + failure.id) for failure in listing.failures)
    table = listing.table.set_column(0, "id", ids)
    return dataclasses.replace(listing, table=table, failures=failures)
