"""Softmax and its logarithm along the last axis by oneDNN."""

from __future__ import annotations

import numpy as np

from flambeau.kernels.onednn import library
from flambeau.kernels.onednn.primitives import Plan, PrimitiveDescriptor, Unsupported, cached, describe


def forward(x, log: bool):
    """Softmax of the rows of x, a contiguous matrix, or None."""
    plan = cached(("softmax", x.shape, x.dtype, log), _build_forward, x.shape, x.dtype, log)
    if plan is None:
        return None
    out = np.empty_like(x)
    plan(x, out)
    return out


def backward(g, out, log: bool):
    """The gradient from the result, both contiguous matrices, or None."""
    plan = cached(("softmax dx", g.shape, g.dtype, log), _build_backward, g.shape, g.dtype, log)
    if plan is None:
        return None
    dx = np.empty_like(g)
    plan(out, g, dx)
    return dx


def _parts(shape, dtype, log):
    rows, columns = shape
    data = describe([rows, columns], [columns, 1], dtype)
    algorithm = library.LOG_SOFTMAX if log else library.SOFTMAX
    return data, algorithm, PrimitiveDescriptor(
        "softmax_forward", library.FORWARD_TRAINING, algorithm, data, data, 1)


def _build_forward(shape, dtype, log):
    data, _, descriptor = _parts(shape, dtype, log)
    return Plan(_fast(descriptor), [(library.ARG_SRC, data), (library.ARG_DST, data)])


def _build_backward(shape, dtype, log):
    data, algorithm, hint = _parts(shape, dtype, log)
    descriptor = PrimitiveDescriptor("softmax_backward", algorithm, data, data, data, 1, hint)
    return Plan(_fast(descriptor), [
        (library.ARG_DST, data), (library.ARG_DIFF_DST, data), (library.ARG_DIFF_SRC, data)])


def _fast(descriptor):
    if descriptor.implementation.startswith("ref"):
        raise Unsupported("only a reference implementation")
    return descriptor
