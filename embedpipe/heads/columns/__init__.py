"""Columns of a table beside the vectors of a head: read as numbers, scaled and one-hot encoded inside the folds."""
