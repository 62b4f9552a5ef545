"""Vectors that were made elsewhere become a feature store."""
