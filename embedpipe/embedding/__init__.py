"""From a source to a store: the plan, the loop and the writer; verification; the scikit-learn transformer.

Names are imported on first use; the options and the summary need no torch. `__init__.pyi` lists them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
