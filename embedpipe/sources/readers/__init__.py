"""One file for each kind of source: folder, file list, table, tar shards, memory."""
