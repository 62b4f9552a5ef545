"""Sources of items: folders, file lists, tables, tar shards and objects in memory, as listings without payloads.

Names are imported on first use; `__init__.pyi` lists them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
