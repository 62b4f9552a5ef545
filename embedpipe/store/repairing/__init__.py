"""Damage of a store: finding it, and going back to what is whole."""
