"""Pooling in NumPy: one pass over the image for each position in the window."""

from __future__ import annotations

from math import prod

import numpy as np

from flambeau.kernels.onednn.pooling import position_type
from flambeau.kernels.windows import channels_first, channels_last, offsets, pad


def _reach(out, x_shape, kernel, stride, padding, dilation):
    """The padding with its far side such that exactly `out` windows fit (negative where some is left over)."""
    return tuple((before, (o - 1) * s + d * (k - 1) + 1 - n - before) for o, s, d, k, n, (before, _) in
                 zip(out, stride, dilation, kernel, x_shape[2:], padding, strict=True))


def lowest(dtype: np.dtype):
    """What loses against every value of the dtype."""
    return np.iinfo(dtype).min if dtype.kind in "iu" else dtype.type(-np.inf) if dtype.kind in "fV" else False


def max_forward(x, out, kernel, stride, padding, dilation):
    """The largest value of each window and its position in it; the last NaN where there is one."""
    image = pad(channels_last(x), _reach(out, x.shape, kernel, stride, padding, dilation), lowest(x.dtype))
    positions = _first_inside(x, out, kernel, stride, padding, dilation)
    best = np.full(positions.shape, lowest(x.dtype), x.dtype)
    inexact = x.dtype.kind in "fV"
    for number, (_, place) in enumerate(offsets(out, kernel, stride, dilation)):
        value = image[(slice(None), *place)]
        better = value > best
        if inexact:
            better |= value != value
        np.copyto(best, value, where=better)
        np.copyto(positions, positions.dtype.type(number), where=better)
    return channels_first(best), positions


def _first_inside(x, out, kernel, stride, padding, dilation):
    """For each window the first of its positions that lies in the image: what is chosen if all are -inf."""
    rank = len(out)
    number = np.zeros(out, np.int64)
    for axis, (o, s, (before, _), d) in enumerate(zip(out, stride, padding, dilation, strict=True)):
        first = -(-np.maximum(0, before - np.arange(o) * s) // d)
        number += (first * prod(kernel[axis + 1:])).reshape(-1, *(1,) * (rank - axis - 1))
    result = np.empty((x.shape[0], *out, x.shape[1]), position_type(kernel))
    result[...] = number[..., None]
    return result


def max_backward(g, positions, x_shape, kernel, stride, padding, dilation):
    """Each window's gradient, added where its largest value came from."""
    g, out = channels_last(g), g.shape[2:]
    return _gather(lambda number: np.where(positions == number, g, g.dtype.type(0)),
                   out, g.dtype, x_shape, kernel, stride, padding, dilation)


def avg_forward(x, out, kernel, stride, padding):
    """The mean of each window, with the padding counted as zeros."""
    ones = (1,) * len(kernel)
    image = pad(channels_last(x), _reach(out, x.shape, kernel, stride, padding, ones))
    total = np.zeros((x.shape[0], *out, x.shape[1]), x.dtype)
    for _, place in offsets(out, kernel, stride, ones):
        total += image[(slice(None), *place)]
    if x.dtype.kind in "iu":  # towards 0, as in C
        return channels_first((np.abs(total) // prod(kernel)) * np.sign(total))
    total = np.divide(total, prod(kernel), out=total)
    return channels_first(total)


def avg_backward(g, x_shape, kernel, stride, padding):
    """Each window's gradient, spread evenly over it."""
    share = channels_last(g) / g.dtype.type(prod(kernel))
    return _gather(lambda number: share, g.shape[2:], g.dtype, x_shape, kernel, stride, padding,
                   (1,) * len(kernel))


def _gather(contribution, out, dtype, x_shape, kernel, stride, padding, dilation):
    spatial = x_shape[2:]
    size = [max((o - 1) * s + d * (k - 1) + 1, n + before) for o, s, d, k, n, (before, _) in
            zip(out, stride, dilation, kernel, spatial, padding, strict=True)]
    image = np.zeros((x_shape[0], *size, x_shape[1]), dtype)
    for number, (_, place) in enumerate(offsets(out, kernel, stride, dilation)):
        image[(slice(None), *place)] += contribution(number)
    inner = tuple(slice(before, before + n) for n, (before, _) in zip(spatial, padding, strict=True))
    return channels_first(image[(slice(None), *inner)])
