"""Softmax and its logarithm along any axis of NumPy arrays, and their gradients from the result.

Along the last axis a generated kernel visits each row once (`rows.py`); bfloat16, and float32 where nothing can be
generated, go to oneDNN; along other axes there are generated kernels of a pass each. float16 is computed in float32.
The logarithm's forward is always generated.
"""

from __future__ import annotations

import numpy as np

from flambeau.kernels import rows as by_rows
from flambeau.kernels.expr import exp, var
from flambeau.kernels.onednn import library
from flambeau.kernels.reduce import map_reduce, reduce
from flambeau.kernels.ufunc import kernel

_x, _m, _s, _y = map(var, "xmsy")
_EXP = kernel(exp(_x - _m), ("x", "m"), "exp_less")
_SHIFTED = kernel(_x - _m - _s, ("x", "m", "s"), "less_both")
_GRAD = kernel((_x - _m) * _y, ("x", "m", "y"), "softmax_grad")
_LOG_GRAD = kernel(_x - exp(_m) * _s, ("x", "m", "s"), "log_softmax_grad")


_BY_ROWS = {
    ("forward", False): by_rows.softmax,
    ("forward", True): by_rows.log_softmax,
    ("backward", False): by_rows.softmax_grad,
    ("backward", True): by_rows.log_softmax_grad,
}


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


def _run(name, otherwise, arrays, axis, log):
    first = arrays[0]
    if first.ndim == 0:
        return _run(name, otherwise, tuple(a.reshape(1) for a in arrays), 0, log).reshape(())
    dtype, shape = first.dtype, first.shape
    last = axis == -1 or axis == first.ndim - 1
    if last and by_rows.takes(first) and all(a.dtype == dtype for a in arrays):
        dense = [np.ascontiguousarray(a) for a in arrays]
        return _BY_ROWS[name, log](*dense, np.empty(shape, dtype))
    # oneDNN's logarithm of the sum is off by up to 5e-6, mostly to one side: a loss curve shows it
    if last and first.size and library.available() and dtype in library.data_types() and not (
            log and name == "forward"):
        from flambeau.kernels.onednn import softmax as fast

        rows = [np.ascontiguousarray(a).reshape(-1, shape[-1]) for a in arrays]
        result = getattr(fast, name)(*rows, log)
        # where one element of a row is NaN oneDNN leaves others 0; and its exponential of NaN is 0
        if result is not None and not _has_nan(rows[1] if name == "backward" else result):
            return result.reshape(shape)
    if dtype.itemsize == 2:
        return _run(name, otherwise, tuple(a.astype(np.float32) for a in arrays), axis, log).astype(dtype)
    return otherwise(*arrays, axis)


def _has_nan(dense) -> bool:
    flat = dense.reshape(-1)
    total = np.dot(flat, flat) if flat.dtype == np.float32 else flat.astype(np.float32).sum()
    return total != total


def _top(x, axis):
    """The largest value, which is subtracted so that no exponential overflows."""
    return reduce("max", x, (axis,), True) if x.shape[axis] else np.zeros((), x.dtype)


def _softmax(x, axis):
    result = _EXP(x, _top(x, axis))
    with np.errstate(all="ignore"):     # a row of only -inf is NaN, as in PyTorch
        factor = 1 / reduce("sum", result, (axis,), True)
    return np.multiply(result, factor, out=result)


def _log_softmax(x, axis):
    top = _top(x, axis)
    total, = map_reduce((exp(_x - _m),), ("x", "m"), (x, np.broadcast_to(top, x.shape)), (axis,), keepdims=True)
    with np.errstate(all="ignore"):
        return _SHIFTED(x, top, np.log(total))


def _softmax_grad(g, out, axis):
    total, = map_reduce((_x * _y,), ("x", "y"), (g, out), (axis,), keepdims=True)
    return _GRAD(g, total, out)


def _log_softmax_grad(g, out, axis):
    return _LOG_GRAD(g, out, reduce("sum", g, (axis,), True))
