"""Verification of a store: files, ids and vectors, and the drift of a cheaper precision or decoding."""
