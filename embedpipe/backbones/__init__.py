"""Frozen pretrained networks: which exist, how they are loaded, and how they turn items into vectors.

Names are imported on first use; the spec and the options need no torch. `__init__.pyi` lists them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
