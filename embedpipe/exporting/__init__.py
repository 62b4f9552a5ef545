"""Heads out of Python: a backbone and its head as one graph, in a folder that needs no embedpipe.

Names are imported on first use; the options need no torch. `__init__.pyi` lists them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
