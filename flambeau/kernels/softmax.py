"""Softmax and its logarithm along any axis of NumPy arrays, and their gradients from the result.

oneDNN for float32 and bfloat16, else NumPy; float16 is computed in float32.
"""

from __future__ import annotations

import numpy as np

from flambeau.kernels.onednn import library


def softmax(x: np.ndarray, axis: int = -1) -> np.ndarray:
    """exp(x) / sum(exp(x)) along the axis.

    >>> softmax(np.array([0.0, 0.0]))
    array([0.5, 0.5])
    """
    return _run("forward", _softmax, (x,), axis, False)


def log_softmax(x: np.ndarray, axis: int = -1) -> np.ndarray:
    """x - log(sum(exp(x))) along the axis.

    >>> log_softmax(np.array([0.0, 0.0])).round(4)
    array([-0.6931, -0.6931])
    """
    return _run("forward", _log_softmax, (x,), axis, True)


def softmax_grad(g: np.ndarray, out: np.ndarray, axis: int = -1) -> np.ndarray:
    """(g - sum(g out)) out: the gradient of :func:`softmax` from its result."""
    return _run("backward", _softmax_grad, (g, out), axis, False)


def log_softmax_grad(g: np.ndarray, out: np.ndarray, axis: int = -1) -> np.ndarray:
    """g - exp(out) sum(g): the gradient of :func:`log_softmax` from its result."""
    return _run("backward", _log_softmax_grad, (g, out), axis, True)


def _run(name, in_numpy, arrays, axis, log):
    first = arrays[0]
    if first.ndim == 0:
        return _run(name, in_numpy, tuple(a.reshape(1) for a in arrays), 0, log).reshape(())
    dtype = first.dtype
    if first.size and library.available() and dtype in library.data_types():
        from flambeau.kernels.onednn import softmax as fast

        moved = [np.ascontiguousarray(np.moveaxis(a, axis, -1)) for a in arrays]
        shape = moved[0].shape
        result = getattr(fast, name)(*(a.reshape(-1, shape[-1]) for a in moved), log)
        # where one element of a row is NaN oneDNN leaves others 0; and its exponential of NaN is 0
        if result is not None and not _has_nan(moved[1] if name == "backward" else result):
            return np.moveaxis(result.reshape(shape), -1, axis)
    if dtype.itemsize == 2:
        return _run(name, in_numpy, tuple(a.astype(np.float32) for a in arrays), axis, log).astype(dtype)
    return in_numpy(*arrays, axis)


def _has_nan(dense) -> bool:
    flat = dense.reshape(-1)
    return bool(np.isnan(np.dot(flat, flat) if flat.dtype == np.float32 else flat.astype(np.float32).sum()))


def _shifted(x, axis):
    """x less its largest value, so that no exponential overflows."""
    if not x.shape[axis]:
        return x.copy()
    with np.errstate(invalid="ignore"):     # a row of only -inf is NaN, as in PyTorch
        return x - x.max(axis, keepdims=True)


def _softmax(x, axis):
    result = _shifted(x, axis)
    np.exp(result, out=result)
    with np.errstate(invalid="ignore"):
        result /= result.sum(axis, keepdims=True)
    return result


def _log_softmax(x, axis):
    result = _shifted(x, axis)
    if result.size:
        result -= np.log(np.exp(result).sum(axis, keepdims=True))
    return result


def _softmax_grad(g, out, axis):
    result = g * out
    result -= out * result.sum(axis, keepdims=True)
    return result


def _log_softmax_grad(g, out, axis):
    return g - np.exp(out) * g.sum(axis, keepdims=True)
