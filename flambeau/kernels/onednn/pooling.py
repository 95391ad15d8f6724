"""Pooling by oneDNN, on channels-last activations."""

from __future__ import annotations

from math import prod

import numpy as np

from flambeau.kernels.onednn import library
from flambeau.kernels.onednn.convolution import activation
from flambeau.kernels.onednn.primitives import Plan, PrimitiveDescriptor, Unsupported, cached
from flambeau.kernels.onednn.reorder import to_channels_last
from flambeau.kernels.windows import channels_first

ALGORITHMS = {"max": library.POOLING_MAX, "avg": library.POOLING_AVG_WITH_PADDING}
#: Windows of up to so many elements have their position stored in a byte.
BYTE_POSITIONS = 255


def position_type(kernel) -> type:
    """The dtype of positions in a window."""
    return np.uint8 if prod(kernel) <= BYTE_POSITIONS else np.int32


def forward(kind, x, out, kernel, stride, padding, dilation):
    """The pair (pooled, positions (N, *out, C) or None), or None where oneDNN cannot."""
    key = ("pool", kind, x.shape, x.dtype, out, kernel, stride, padding, dilation)
    plan = cached(key, _build_forward, kind, x, out, kernel, stride, padding, dilation)
    if plan is None:
        return None
    physical = (x.shape[0], *out, x.shape[1])
    result = np.empty(physical, x.dtype)
    if kind != "max":
        plan(to_channels_last(x), result)
        return channels_first(result), None
    positions = np.empty(physical, position_type(kernel))
    plan(to_channels_last(x), result, positions)
    return channels_first(result), positions


def backward(kind, g, positions, x_shape, kernel, stride, padding, dilation):
    """The gradient with respect to the input, or None."""
    key = ("pool dx", kind, g.shape, g.dtype, x_shape, kernel, stride, padding, dilation)
    plan = cached(key, _build_backward, kind, g, x_shape, kernel, stride, padding, dilation)
    if plan is None:
        return None
    result = np.empty((x_shape[0], *x_shape[2:], x_shape[1]), g.dtype)
    if kind == "max":
        plan(to_channels_last(g), result, np.ascontiguousarray(positions))
    else:
        plan(to_channels_last(g), result)
    return channels_first(result)


def _steps(out, x_shape, kernel, stride, padding, dilation):
    # the far padding, such that exactly `out` windows fit
    far = [(o - 1) * s + d * (k - 1) + 1 - n - before for o, s, d, k, n, (before, _) in
           zip(out, stride, dilation, kernel, x_shape[2:], padding, strict=True)]
    return stride, kernel, [d - 1 for d in dilation], [before for before, _ in padding], [max(0, f) for f in far]


def _forward_descriptor(kind, source, target, steps):
    return PrimitiveDescriptor(
        "pooling_forward", library.FORWARD_TRAINING, ALGORITHMS[kind], source, target, *steps)


def _build_forward(kind, x, out, kernel, stride, padding, dilation):
    source, target = activation(x.shape, x.dtype), activation((*x.shape[:2], *out), x.dtype)
    descriptor = _forward_descriptor(
        kind, source, target, _steps(out, x.shape, kernel, stride, padding, dilation))
    arguments = [(library.ARG_SRC, source), (library.ARG_DST, target)]
    return Plan(_fast(descriptor), arguments + _workspace(kind, descriptor, target, x.dtype, kernel))


def _build_backward(kind, g, x_shape, kernel, stride, padding, dilation):
    source, target = activation(x_shape, g.dtype), activation(g.shape, g.dtype)
    steps = _steps(g.shape[2:], x_shape, kernel, stride, padding, dilation)
    hint = _forward_descriptor(kind, source, target, steps)
    descriptor = PrimitiveDescriptor("pooling_backward", ALGORITHMS[kind], source, target, *steps, hint)
    arguments = [(library.ARG_DIFF_DST, target), (library.ARG_DIFF_SRC, source)]
    return Plan(_fast(descriptor), arguments + _workspace(kind, descriptor, target, g.dtype, kernel))


def _fast(descriptor):
    if descriptor.implementation.startswith("ref"):
        raise Unsupported("only a reference implementation")
    return descriptor


def _workspace(kind, descriptor, target, dtype, kernel):
    if kind != "max":
        return []
    workspace = descriptor.memory(library.QUERY_WORKSPACE)
    # NumPy's kernels read the workspace too: it must be what they expect, one position for each result
    if workspace.size * dtype.itemsize != target.size * np.dtype(position_type(kernel)).itemsize:
        raise Unsupported("an unknown workspace")
    return [(library.ARG_WORKSPACE, workspace)]
