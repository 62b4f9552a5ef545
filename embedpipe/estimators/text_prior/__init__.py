"""Classifiers that start from vectors of class names: without labels, and with few."""
