"""Fine-tuning of a backbone from a linear head (LP-FT), its benchmark, and the advice whether to do it.

Names are imported on first use; `__init__.pyi` lists them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
