"""Vectors of further layers for the items of a store."""
