"""Pooling of NumPy arrays (N, C, *S), 1 to 3 spatial dimensions: oneDNN for float32 and bfloat16, else NumPy.

Results have the logical shape (N, C, *S) and lie channels-last in memory. `kernel`, `stride`, `padding` and
`dilation` are an integer or one entry a spatial dimension; `stride=None` is the kernel's size.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from flambeau.kernels import pool_numpy
from flambeau.kernels.onednn import library
from flambeau.kernels.windows import as_key, channels_first, channels_last, output_size, spread, spread_pairs


# --- maximum ----------------------------------------------------------------------------------------------
def max_pool(x: np.ndarray, kernel, stride=None, padding=0, dilation=1, ceil_mode: bool = False):
    """The largest value of each window, and where it is: int64, counted through the flattened image.

    >>> max_pool(np.arange(16.0).reshape(1, 1, 4, 4), 2)[1].ravel()
    array([ 5,  7, 13, 15])
    """
    out, positions = max_pool_positions(x, kernel, stride, padding, dilation, ceil_mode)
    return out, indices_of(positions, x.shape, kernel, stride, padding, dilation)


def max_pool_positions(x: np.ndarray, kernel, stride=None, padding=0, dilation=1, ceil_mode: bool = False):
    """The largest value of each window and, (N, *out, C), the number of its place in the window.

    This is what training needs and costs nothing: see :func:`max_pool_positions_grad`. NaN wins, as in PyTorch.
    """
    geometry = _geometry(x.ndim - 2, kernel, stride, padding, dilation)
    out = _output(x.shape, *geometry, ceil_mode)
    if _fast(x) and prod(out):
        # oneDNN passes over NaN, and has -3.4e38 for -inf
        x = _dense(x)
        if _all_finite(x):
            from flambeau.kernels.onednn import pooling

            result = pooling.forward("max", x, out, *geometry)
            if result is not None:
                return result
    return pool_numpy.max_forward(x, out, *geometry)


def max_pool_positions_grad(g: np.ndarray, positions: np.ndarray, x_shape, kernel, stride=None, padding=0,
                            dilation=1) -> np.ndarray:
    """The gradient of :func:`max_pool_positions` with respect to x."""
    geometry = _geometry(g.ndim - 2, kernel, stride, padding, dilation)
    if _fast(g):
        from flambeau.kernels.onednn import pooling

        result = pooling.backward("max", g, positions, tuple(x_shape), *geometry)
        if result is not None:
            return result
    return _in_float32(pool_numpy.max_backward, g, positions, x_shape, *geometry)


def indices_of(positions: np.ndarray, x_shape, kernel, stride=None, padding=0, dilation=1) -> np.ndarray:
    """Positions in windows as :func:`max_pool`'s indices into the flattened image, (N, C, *out)."""
    kernel, stride, padding, dilation = _geometry(len(x_shape) - 2, kernel, stride, padding, dilation)
    rank = len(kernel)
    place = np.array(list(np.ndindex(*kernel)))                     # (positions, rank)
    pitch = np.array([prod(x_shape[axis + 3:]) for axis in range(rank)])
    steps = (place * np.array(dilation) * pitch).sum(axis=1)
    result = steps[positions]
    for axis in range(rank):
        origin = (np.arange(positions.shape[axis + 1]) * stride[axis] - padding[axis][0]) * pitch[axis]
        result += origin.reshape(-1, *(1,) * (rank - axis))
    return channels_first(result)


def max_pool_grad(g: np.ndarray, indices: np.ndarray, x_shape) -> np.ndarray:
    """Each element of g added at its index in the flattened image: the gradient of all pooling with indices.

    >>> max_pool_grad(np.ones((1, 1, 2)), np.array([[[1, 1]]]), (1, 1, 4))
    array([[[0., 2., 0., 0.]]])
    """
    planes, size = x_shape[0] * x_shape[1], prod(x_shape[2:])
    origin = np.arange(0, planes * size, size) if size else np.zeros(planes, np.int64)
    target = (indices + origin.reshape(*x_shape[:2], *(1,) * (g.ndim - 2))).ravel()
    values = g.reshape(-1)
    if g.dtype.kind in "fV":
        sums = np.bincount(target, values.astype(np.float64), planes * size)
        return sums.astype(g.dtype).reshape(x_shape)
    result = np.zeros(planes * size, g.dtype)
    np.add.at(result, target, values)
    return result.reshape(x_shape)


# --- mean -------------------------------------------------------------------------------------------------
def avg_pool(x: np.ndarray, kernel, stride=None, padding=0, ceil_mode: bool = False,
             count_include_pad: bool = True, divisor_override: int | None = None) -> np.ndarray:
    """The mean of each window; of what lies in the image only, without `count_include_pad`.

    >>> avg_pool(np.arange(16.0).reshape(1, 1, 4, 4), 2).ravel()
    array([ 2.5,  4.5, 10.5, 12.5])
    """
    kernel, stride, padding, dilation = _geometry(x.ndim - 2, kernel, stride, padding, 1)
    out = _output(x.shape, kernel, stride, padding, dilation, ceil_mode)
    ratio = _ratio(x.shape, out, kernel, stride, padding, count_include_pad, divisor_override)
    if x.dtype.kind in "iu" and ratio is not None:
        exact = pool_numpy.avg_forward(x.astype(np.float64), out, kernel, stride, padding)
        return np.trunc(exact * ratio).astype(x.dtype)
    result = None
    if _fast(x) and prod(out):
        from flambeau.kernels.onednn import pooling

        result = pooling.forward("avg", x, out, kernel, stride, padding, dilation)
        result = result and result[0]
    if result is None:
        result = _in_float32(pool_numpy.avg_forward, x, out, kernel, stride, padding)
    return result if ratio is None else np.multiply(result, ratio, out=result, casting="unsafe")


def avg_pool_grad(g: np.ndarray, x_shape, kernel, stride=None, padding=0, count_include_pad: bool = True,
                  divisor_override: int | None = None) -> np.ndarray:
    """The gradient of :func:`avg_pool` with respect to x."""
    kernel, stride, padding, dilation = _geometry(g.ndim - 2, kernel, stride, padding, 1)
    x_shape = tuple(x_shape)
    ratio = _ratio(x_shape, g.shape[2:], kernel, stride, padding, count_include_pad, divisor_override)
    if ratio is not None:
        g = (g * ratio).astype(g.dtype, copy=False)
    if _fast(g):
        from flambeau.kernels.onednn import pooling

        result = pooling.backward("avg", g, None, x_shape, kernel, stride, padding, dilation)
        if result is not None:
            return result
    return _in_float32(pool_numpy.avg_backward, g, x_shape, kernel, stride, padding)


def _ratio(x_shape, out, kernel, stride, padding, count_include_pad, divisor_override):
    """What the mean over the whole window is to be multiplied with, (*out); None where that is 1."""
    if divisor_override is not None:
        return prod(kernel) / np.full(out, divisor_override, np.float64)
    counted = np.ones(out)
    rank, full = len(out), True
    for axis, (o, k, s, (before, after)) in enumerate(zip(out, kernel, stride, padding, strict=True)):
        start = np.arange(o) * s - before
        if count_include_pad:
            # a window that `ceil_mode` lets hang over counts no further than the padding
            length = np.minimum(start + k, x_shape[axis + 2] + after) - start
        else:
            length = np.minimum(start + k, x_shape[axis + 2]) - np.maximum(start, 0)
        if (length != k).any():
            full = False
            counted = counted * length.reshape(-1, *(1,) * (rank - axis - 1))
        else:
            counted = counted * k
    return None if full else prod(kernel) / counted


# --- adaptive ---------------------------------------------------------------------------------------------
def adaptive_avg_pool(x: np.ndarray, size) -> np.ndarray:
    """The mean over windows floor(i S / size) : ceil((i + 1) S / size) of each spatial dimension.

    >>> adaptive_avg_pool(np.arange(5.0).reshape(1, 1, 5), 2)
    array([[[1., 3.]]])
    """
    size = spread(as_key(size), x.ndim - 2)
    if size == (1,) * len(size) and x.size and x.dtype.kind in "fc" and not _fast(x):
        return x.mean(tuple(range(2, x.ndim)), keepdims=True)
    if _divisible(x.shape, size) and x.size:
        return avg_pool(x, tuple(n // o for n, o in zip(x.shape[2:], size, strict=True)))
    return _in_float32(_adaptive_avg, x, size)


def _adaptive_avg(x, size):
    x = channels_last(x)
    for axis, o in enumerate(size, 1):
        start, end = _bounds(x.shape[axis], o)
        total = np.zeros((*x.shape[:axis], o, *x.shape[axis + 1:]), x.dtype)
        column = (-1, *(1,) * (x.ndim - axis - 1))
        for step in range(max(end - start, default=0)):
            inside = start + step < end
            value = x.take(np.minimum(start + step, end - 1), axis)
            if not inside.all():
                value[(slice(None),) * axis + (~inside,)] = 0
            total += value
        total /= (end - start).astype(x.dtype).reshape(column)
        x = total
    return channels_first(x)


def adaptive_avg_pool_grad(g: np.ndarray, x_shape) -> np.ndarray:
    """The gradient of :func:`adaptive_avg_pool` with respect to x."""
    size = g.shape[2:]
    if _divisible(x_shape, size) and g.size:
        return avg_pool_grad(g, x_shape, tuple(n // o for n, o in zip(x_shape[2:], size, strict=True)))
    return _in_float32(_adaptive_avg_grad, g, x_shape)


def _adaptive_avg_grad(g, x_shape):
    g = channels_last(g)
    for axis, n in enumerate(x_shape[2:], 1):
        start, end = _bounds(n, g.shape[axis])
        share = np.moveaxis(g, axis, 0)
        share = share / (end - start).astype(g.dtype).reshape(-1, *(1,) * (g.ndim - 1))
        total = np.zeros((n, *share.shape[1:]), g.dtype)
        for step in range(max(end - start, default=0)):
            inside = np.flatnonzero(start + step < end)
            np.add.at(total, start[inside] + step, share[inside])
        g = np.moveaxis(total, 0, axis)
    return channels_first(np.ascontiguousarray(g))


def adaptive_max_pool(x: np.ndarray, size):
    """The largest value of each adaptive window and its index in the flattened image (int64).

    The gradient is :func:`max_pool_grad`.

    >>> adaptive_max_pool(np.arange(5.0).reshape(1, 1, 5), 2)[1]
    array([[[2, 4]]])
    """
    size = spread(as_key(size), x.ndim - 2)
    if _divisible(x.shape, size) and x.size:
        return max_pool(x, tuple(n // o for n, o in zip(x.shape[2:], size, strict=True)))
    bounds = [_bounds(n, o) for n, o in zip(x.shape[2:], size, strict=True)]
    image = channels_last(x)
    best: Any = None
    indices: Any = None
    for offset in np.ndindex(*(max(end - start, default=0) for start, end in bounds)):
        places = [np.minimum(start + o, end - 1) for o, (start, end) in zip(offset, bounds, strict=True)]
        value = image[(slice(None), *np.ix_(*places))]
        index = np.zeros((), np.int64)
        for n, place in zip(x.shape[2:], places, strict=True):
            index = index[..., None] * n + place
        index = np.broadcast_to(index[..., None], value.shape)
        if best is None:
            best, indices = value, index.copy()
            continue
        better = (value > best) | (value != value)
        np.copyto(best, value, where=better)
        np.copyto(indices, index, where=better)
    if best is None:
        shape = (x.shape[0], *size, x.shape[1])
        best, indices = np.zeros(shape, x.dtype), np.zeros(shape, np.int64)
    return channels_first(best), channels_first(indices)


def _divisible(x_shape, size) -> bool:
    return all(o and n and n % o == 0 for n, o in zip(x_shape[2:], size, strict=True))


def _bounds(n: int, size: int):
    number = np.arange(size)
    return number * n // size, -(-(number + 1) * n // size)


# --- shared -----------------------------------------------------------------------------------------------
def _geometry(rank, kernel, stride, padding, dilation) -> tuple[Any, Any, Any, Any]:
    kernel = spread(as_key(kernel), rank)
    stride = as_key(stride)
    return (kernel, spread(stride, rank) if stride not in (None, ()) else kernel,
            spread_pairs(as_key(padding), rank), spread(as_key(dilation), rank))


def _output(x_shape, kernel, stride, padding, dilation, ceil):
    return tuple(output_size(*each, ceil) for each in
                 zip(x_shape[2:], kernel, stride, padding, dilation, strict=True))


def _fast(x) -> bool:
    return x.size > 0 and library.available() and x.dtype in library.data_types()


def _dense(x):
    from flambeau.kernels.onednn.reorder import to_channels_last

    return to_channels_last(x)


def _all_finite(x) -> bool:
    """Whether a dense channels-last array surely has no infinity or NaN (values over 1e19 count as one)."""
    flat = channels_last(x).reshape(-1)
    if flat.dtype == np.float32:
        return bool(np.isfinite(np.dot(flat, flat)))
    return bool(np.isfinite(flat).all())


def _in_float32(kernel, x, *arguments):
    """The kernel applied in float32 to half precision, else as it is."""
    if x.dtype.itemsize == 2 and x.dtype.kind in "fV":
        return kernel(x.astype(np.float32), *arguments).astype(x.dtype)
    return kernel(x, *arguments)
