"""`clusters`: groups of rows that the vectors form by themselves, with words and representatives."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
