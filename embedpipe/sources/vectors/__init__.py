"""Vectors that were made elsewhere: reading arrays and tables of them, and the ids and labels of their rows."""
