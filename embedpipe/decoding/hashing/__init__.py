"""Hashes of payloads: of their content, and of what a picture looks like."""
