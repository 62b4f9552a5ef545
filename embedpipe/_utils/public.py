"""Public paths of classes: where users import a class from, whichever file defines it.

pickle, joblib and skops store a class as ``module.name``. With the module of the defining file in that name, every move
of a file would make saved heads unreadable.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

Class = TypeVar("Class", bound=type)


def public_in(package: str) -> Callable[[Class], Class]:
    """Set ``__module__`` of a class to the package that exports it, as NumPy's ``set_module`` does.

    ``inspect.getsource`` finds the methods of such a class, but not the class itself: it searches the package's
    ``__init__.py``. `source_module` returns the module that defines the class.

    Parameters
    ----------
    package : str
        Such as ``embedpipe.estimators``. It must resolve the class's name, at the latest on first use.

    Examples
    --------
    >>> from embedpipe.estimators import TunedRidge
    >>> TunedRidge.__module__, source_module(TunedRidge)
    ('embedpipe.estimators', 'embedpipe.estimators.linear.ridge')
    """

    def decorate(cls: Class) -> Class:
        cls._source_module = cls.__module__  # type: ignore[attr-defined]
        cls.__module__ = package
        return cls

    return decorate


def source_module(cls: type) -> str:
    """Return the name of the module that defines a class."""
    # A subclass elsewhere inherits the attribute, which is not meant for it.
    return str(vars(cls).get("_source_module", cls.__module__))
