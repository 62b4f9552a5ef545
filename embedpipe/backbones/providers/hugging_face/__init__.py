"""Providers of the encoders of transformers, for texts and images, and of sentence-transformers."""
