"""Decoding of payloads: bytes to uint8 pixels, text files and e-mails to strings. Needs no torch.

Names are imported on first use; `__init__.pyi` lists them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
