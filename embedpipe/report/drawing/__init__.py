"""Canvases, colours, SVG charts, and numbers as text."""
