"""Heads from class names, for backbones that embed texts into the space of the vectors: without labels, or with few."""
