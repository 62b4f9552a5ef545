"""Verbs that change or share a store as a whole."""
