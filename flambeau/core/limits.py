"""``torch.finfo`` and ``torch.iinfo``: what a dtype can hold."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

from . import dtypes
from .dtypes import COMPLEX, FLOAT, INT, dtype
from .errors import error


class finfo:
    """Limits of a floating dtype (of the real part's, for a complex one).

    >>> finfo(dtypes.float32).eps
    1.1920928955078125e-07
    """

    def __init__(self, type: dtype | None = None) -> None:
        d = dtypes.get_default_dtype() if type is None else type
        if d.category == COMPLEX:
            d = d.to_real()
        if d.category != FLOAT:
            raise error(TypeError, f"torch.finfo() requires a floating point input type. Use torch.iinfo to handle '{d}'")
        i: Any = ml_dtypes.finfo(d.np)
        self.bits, self.dtype = d.itemsize * 8, d.name
        self.eps, self.max, self.min = float(i.eps), float(i.max), float(i.min)
        self.tiny = self.smallest_normal = float(i.smallest_normal)
        self.resolution = float(f"1e-{i.precision}")

    def __repr__(self) -> str:
        def g(v: float) -> str:
            return f"{v:g}"

        return (
            f"finfo(resolution={g(self.resolution)}, min={g(self.min)}, max={g(self.max)}, eps={g(self.eps)}, "
            f"smallest_normal={g(self.smallest_normal)}, tiny={g(self.tiny)}, dtype={self.dtype})"
        )


class iinfo:
    """Limits of an integral dtype.

    >>> iinfo(dtypes.int8).max
    127
    """

    def __init__(self, type: dtype) -> None:
        if type.category != INT:
            raise error(TypeError, f"torch.iinfo() requires an integer input type. Use torch.finfo to handle '{type}'")
        i = np.iinfo(type.np)
        self.bits, self.min, self.max, self.dtype = i.bits, int(i.min), int(i.max), type.name

    def __repr__(self) -> str:
        return f"iinfo(min={self.min}, max={self.max}, dtype={self.dtype})"
