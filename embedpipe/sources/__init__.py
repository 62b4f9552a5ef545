"""What goes in: folders, lists, tables, WebDataset shards and objects in memory, as light listings."""

from embedpipe.sources.listing import Listing
from embedpipe.sources.memory import is_position, list_items
from embedpipe.sources.opening import open_source, read_uri, root_exists, same_root
from embedpipe.sources.options import SourceOptions
from embedpipe.sources.payloads import EmailBytes
from embedpipe.sources.table_files import read_table

__all__ = [
    "EmailBytes",
    "Listing",
    "SourceOptions",
    "is_position",
    "list_items",
    "open_source",
    "read_table",
    "read_uri",
    "root_exists",
    "same_root",
]
