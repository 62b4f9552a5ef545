"""Finished rows: the messages that name them, their tables, and the thread that commits them."""
