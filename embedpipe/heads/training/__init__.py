"""Rows that a head is fitted on: labels, splits, vectors; and the estimator in its wrappers."""
