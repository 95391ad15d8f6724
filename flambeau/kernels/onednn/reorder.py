"""Copies from one layout to another by oneDNN, on all threads."""

from __future__ import annotations

import numpy as np

from flambeau.kernels.onednn import library
from flambeau.kernels.onednn.primitives import Plan, cached, describe_array, reorder_descriptor

#: Elements from which oneDNN copies faster than NumPy.
WORTHWHILE = 8192


def copy(source: np.ndarray, target: np.ndarray) -> None:
    """Copy between arrays of one shape and any strides; dtypes may differ."""
    if source.size >= WORTHWHILE and source.ndim <= 6 and library.available():
        key = ("copy", source.shape, source.strides, source.dtype, target.strides, target.dtype)
        plan = cached(key, _build, source, target)
        if plan is not None:
            return plan(source, target)
    target[...] = source
    return None


def _build(source, target):
    from flambeau.kernels.onednn.primitives import Unsupported

    types = library.data_types()
    if source.dtype not in types or target.dtype not in types:
        raise Unsupported("dtype")
    a, b = describe_array(source), describe_array(target)
    descriptor = reorder_descriptor(a, b)
    if descriptor.implementation.startswith(("simple", "ref")):
        raise Unsupported("no fast copy between these layouts")
    return Plan(descriptor, [(library.ARG_SRC, a), (library.ARG_DST, b)])


def dense_channels_last(x: np.ndarray) -> bool:
    """Whether an array (N, C, *S) lies in memory densely as (N, *S, C)."""
    step = x.itemsize
    order = (1, *range(x.ndim - 1, 1, -1), 0)
    shape, strides = x.shape, x.strides
    for axis in order:
        if shape[axis] != 1 and strides[axis] != step:
            return False
        step *= shape[axis]
    return True


def to_channels_last(x: np.ndarray) -> np.ndarray:
    """The array itself where it lies densely as (N, *S, C), else a copy that does."""
    if dense_channels_last(x):
        return x
    result = np.moveaxis(np.empty((x.shape[0], *x.shape[2:], x.shape[1]), x.dtype), -1, 1)
    copy(x, result)
    return result
