"""Heads: estimators fitted on the vectors of a store, with how they were measured, saved as folders.

Names are imported on first use; the options need no scikit-learn. `__init__.pyi` lists them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
