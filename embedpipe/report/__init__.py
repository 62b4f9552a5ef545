"""Pictures of what a store holds."""

from embedpipe.report.map import draw_map

__all__ = ["draw_map"]
