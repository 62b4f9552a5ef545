"""Frozen pretrained networks: which ones exist, how one is loaded, and what it returns.

Names are imported on first use; the spec and the options need no torch. `__init__.pyi` lists them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
