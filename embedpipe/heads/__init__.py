"""From a store to a fitted head: training rows, fitting, scoring, prediction, saving.

Names are imported on first use; the options need no scikit-learn. `__init__.pyi` lists them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
