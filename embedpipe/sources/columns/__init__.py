"""Columns of tables: frames in memory, conversions, numbers and labels."""
