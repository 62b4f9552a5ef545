"""Transformers of features: scaling, and removal of common components."""
