"""Arrays of .npy files, which are read only if they are such files."""

from __future__ import annotations

import os
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from embedpipe._utils.machine.regular_files import open_regular

MAGIC = b"\x93NUMPY"


def read_npy(path: str | os.PathLike[str], mmap_mode: Literal["r"] | None = None) -> npt.NDArray[Any]:
    """Return the array of a .npy file; Python objects in it are not made.

    NumPy takes every other file for objects, and its error advises to make them all the same.

    Raises
    ------
    ValueError
        The message is the reason, such as ``there is no such file``.
    """
    try:
        with open_regular(os.fspath(path)) as file:
            start = file.read(len(MAGIC))
    except FileNotFoundError as error:
        raise ValueError("there is no such file") from error
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from error
    if start != MAGIC:
        raise ValueError("it is no .npy file, which numpy.save writes")
    try:
        array: npt.NDArray[Any] = np.load(path, mmap_mode=mmap_mode, allow_pickle=False)
    except Exception as error:  # NumPy raises many types on a damaged header
        objects = "allow_pickle" in str(error) or "Python objects" in str(error)
        raise ValueError(
            "it holds Python objects, and must hold numbers or texts" if objects else str(error)
        ) from error
    return array
