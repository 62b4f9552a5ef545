"""The feature store: a Delta table of vectors and metadata with unique ids, its failures and its memory map.

Names are imported on first use; `__init__.pyi` lists them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
