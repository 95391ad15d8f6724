"""Dimensions as users give them: negative, one or several, or none."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..core.errors import error

INTEGERS = (int, np.integer)


def wrap_dim(dim: Any, ndim: int) -> int:
    """The dimension counted from the front; a 0-d tensor is taken to have one.

    >>> wrap_dim(-1, 3)
    2
    """
    n = ndim or 1
    if dim.__class__ is not int:
        dim = as_int(dim)
    if not -n <= dim < n:
        raise error(IndexError, f"Dimension out of range (expected to be in range of [{-n}, {n - 1}], but got {dim})")
    return dim + n if dim < 0 else dim


def as_int(dim: Any) -> int:
    try:
        return dim.__index__()
    except (AttributeError, TypeError):
        raise error(TypeError, f"argument 'dim' must be int, not {type(dim).__name__}") from None


def wrap_dims(dim: Any, ndim: int) -> tuple[int, ...]:
    """Dimensions given as an int, a sequence or None (all) as NumPy axes: () for a 0-d tensor."""
    if dim is None:
        return tuple(range(ndim))
    if isinstance(dim, INTEGERS):
        d = wrap_dim(dim, ndim)
        return (d,) if ndim else ()
    dims = tuple([wrap_dim(d, ndim) for d in dim])
    if len(set(dims)) != len(dims):
        twice = next(d for d in dims if dims.count(d) > 1)
        raise error(RuntimeError, f"dim {twice} appears multiple times in the list of dims")
    return dims if ndim else ()
