"""Which layers of a network become vectors, and how their outputs are pooled."""
