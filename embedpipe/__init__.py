"""embedpipe: embed a dataset once with a frozen pretrained backbone, then train, search and compare on the store.

Names are imported on first use, so that ``import embedpipe`` is fast and loads no torch; `__init__.pyi` lists them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
