"""Which rows train and which rows measure: splits without leaks, for heads, evaluations and fine-tuning.

Names are imported on first use; `__init__.pyi` lists them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
