"""The memory map of the vectors of a store."""
