"""From payloads to what a backbone takes: bytes to uint8 pixels, files and messages to text. Needs no torch.

Names are imported on first use; `__init__.pyi` lists them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
