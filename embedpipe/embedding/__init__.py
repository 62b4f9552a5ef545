"""Embedding of a source into a store, verification of a store, and the scikit-learn transformer.

Names are imported on first use. The options and the summary need no torch. `__init__.pyi` lists the names.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
