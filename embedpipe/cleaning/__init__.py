"""`clean`: what is likely to be wrong with the rows of a store: duplicates, labels, outliers.

Notes
-----
Everything comes from one graph of nearest neighbours, and from predictions of rows by heads that were not fitted on
them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
