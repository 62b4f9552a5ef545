"""Providers of the text encoders of transformers and sentence-transformers."""
