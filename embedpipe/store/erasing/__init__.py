"""Erasing items: the flow, and the search for traces."""
