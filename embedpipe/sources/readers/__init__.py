"""Readers, one per kind of source: folder, file list, table, tar shards, memory."""
