"""Values that people set: labels and other columns from a table, and rows that are excluded."""
