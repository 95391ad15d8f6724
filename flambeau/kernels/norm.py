"""Normalisation of NumPy arrays: batch, layer, group, root mean square; and their gradients.

oneDNN for float32, else NumPy; half precision is computed in float32. `w` and `b` (either may be None) scale
and shift what is normalised. Statistics have the dtype of the computation: float32 for half precision.
"""

from __future__ import annotations

from math import prod

import numpy as np

from flambeau.kernels.onednn import library

#: Elements from which oneDNN is faster than NumPy.
WORTHWHILE = 512


# --- batch ------------------------------------------------------------------------------------------------
def batch_norm(x: np.ndarray, w: np.ndarray | None, b: np.ndarray | None, eps: float = 1e-5):
    """(out, mean, biased variance) of x (N, C, *S), statistics taken over all but the channels.

    >>> out, mean, var = batch_norm(np.array([[1.0, 2.0], [3.0, 2.0]]), None, None)
    >>> mean, var
    (array([2., 2.]), array([1., 0.]))
    """
    if _is_half(x):
        return _narrow(x.dtype, *batch_norm(*_wide(x, w, b), eps))
    if _fast(x):
        from flambeau.kernels.onednn import normalization

        result = normalization.batch_norm(x, *_affine(w, b, x.shape[1]), eps)
        if result is not None:
            return result
    axes, count = _batch_axes(x), x.size // max(1, x.shape[1])
    mean = _mean(x, axes, count)
    out = x - mean
    variance = _mean(out * out, axes, count)
    np.multiply(out, 1 / np.sqrt(variance + x.dtype.type(eps)), out=out)
    _scale(out, _along(w, x), _along(b, x))
    return out, mean.reshape(-1), variance.reshape(-1)


def batch_norm_inference(x: np.ndarray, w: np.ndarray | None, b: np.ndarray | None, mean: np.ndarray,
                         var: np.ndarray, eps: float = 1e-5) -> np.ndarray:
    """(x - mean) / sqrt(var + eps) * w + b with given statistics: one multiplication and one addition."""
    if _is_half(x):
        return _narrow(x.dtype, batch_norm_inference(*_wide(x, w, b, mean, var), eps))[0]
    factor = 1 / np.sqrt(var + eps)
    if w is not None:
        factor = factor * w
    shift = -mean * factor
    if b is not None:
        shift = shift + b
    out = x * _along(factor.astype(x.dtype, copy=False), x)
    out += _along(shift.astype(x.dtype, copy=False), x)
    return out


def batch_norm_backward(g: np.ndarray, x: np.ndarray, w: np.ndarray | None, mean: np.ndarray, var: np.ndarray,
                        eps: float = 1e-5, training: bool = True):
    """(dx, dw, db) from the mean and variance that were used; constants of the graph if not `training`."""
    if _is_half(x):
        return _narrow(x.dtype, *batch_norm_backward(*_wide(g, x, w, mean, var), eps, training), all_of_it=True)
    if _fast(x):
        from flambeau.kernels.onednn import normalization

        scale, _ = _affine(w, None, x.shape[1])
        result = normalization.batch_norm_backward(
            g, x, scale, np.ascontiguousarray(mean), np.ascontiguousarray(var), eps, not training)
        if result is not None:
            return result
    axes, count = _batch_axes(x), x.size // max(1, x.shape[1])
    rstd = _along(1 / np.sqrt(var + x.dtype.type(eps)), x)
    normal = (x - _along(mean, x)) * rstd
    db, dw = g.sum(axes), (g * normal).sum(axes)
    dx = g.copy()
    if training and count:
        dx -= _along(db / count, x)
        dx -= normal * _along(dw / count, x)
    dx *= rstd if w is None else rstd * _along(w, x)
    return dx, dw, db


# --- layer ------------------------------------------------------------------------------------------------
def layer_norm(x: np.ndarray, w: np.ndarray | None, b: np.ndarray | None, axes: int = 1, eps: float = 1e-5):
    """(out, mean, rstd) of x normalised over its last `axes` dimensions; mean and rstd keep these as size 1.

    >>> layer_norm(np.array([[1.0, 3.0]]), None, None, eps=0.0)[0]
    array([[-1.,  1.]])
    """
    if _is_half(x):
        return _narrow(x.dtype, *layer_norm(*_wide(x, w, b), axes, eps))
    lead, count = x.shape[:x.ndim - axes], prod(x.shape[x.ndim - axes:])
    kept = (*lead, *(1,) * axes)
    if _fast(x) and count > 1:
        from flambeau.kernels.onednn import normalization

        scales = (None, None) if w is None and b is None else _affine(w, b, count)
        result = normalization.layer_norm(np.ascontiguousarray(x).reshape(-1, count), *scales, eps)
        if result is not None:
            out, mean, variance = result
            variance += np.float32(eps)
            np.sqrt(variance, out=variance)
            return out.reshape(x.shape), mean.reshape(kept), np.reciprocal(variance, out=variance).reshape(kept)
    last = tuple(range(x.ndim - axes, x.ndim))
    mean = _mean(x, last, count)
    out = x - mean
    rstd = 1 / np.sqrt(_mean(out * out, last, count) + x.dtype.type(eps))
    out *= rstd
    _scale(out, w, b)
    return out, mean, rstd


def layer_norm_backward(g: np.ndarray, x: np.ndarray, w: np.ndarray | None, mean: np.ndarray, rstd: np.ndarray,
                        axes: int = 1):
    """(dx, dw, db); dw and db as if there were both."""
    if _is_half(x):
        return _narrow(x.dtype, *layer_norm_backward(*_wide(g, x, w, mean, rstd), axes), all_of_it=True)
    lead, own = x.shape[:x.ndim - axes], x.shape[x.ndim - axes:]
    count = prod(own)
    if _fast(x) and count > 1:
        from flambeau.kernels.onednn import normalization

        rows = [np.ascontiguousarray(a).reshape(-1, count) for a in (g, x)]
        variance = np.ascontiguousarray(1 / (rstd * rstd)).reshape(-1)
        result = normalization.layer_norm_backward(
            *rows, _affine(w, None, count)[0], np.ascontiguousarray(mean).reshape(-1), variance)
        if result is not None:
            dx, dw, db = result
            return dx.reshape(x.shape), dw.reshape(own), db.reshape(own)
    last, first = tuple(range(len(lead), x.ndim)), tuple(range(len(lead)))
    normal = (x - mean) * rstd
    dw, db = (g * normal).sum(first), g.sum(first)
    scaled = g if w is None else g * w
    dx = scaled - _mean(scaled, last, count)
    dx -= normal * _mean(scaled * normal, last, count)
    dx *= rstd
    return dx, dw, db


# --- group ------------------------------------------------------------------------------------------------
def group_norm(x: np.ndarray, groups: int, w: np.ndarray | None, b: np.ndarray | None, eps: float = 1e-5):
    """(out, mean (N, groups), rstd (N, groups)) of x (N, C, *S) normalised within groups of channels.

    >>> group_norm(np.arange(8.0).reshape(1, 4, 2), 2, None, None)[1]
    array([[1.5, 5.5]])
    """
    if _is_half(x):
        return _narrow(x.dtype, *group_norm(_wide(x)[0], groups, *_wide(w, b), eps))
    split = _split(x, groups)
    count = prod(split.shape[2:])
    axes = tuple(range(2, split.ndim))
    if x.flags.c_contiguous:
        out, mean, rstd = layer_norm(split.reshape(-1, count), None, None, 1, eps)
        out = out.reshape(split.shape)
    else:
        mean = _mean(split, axes, count)
        out = split - mean
        rstd = 1 / np.sqrt(_mean(out * out, axes, count) + x.dtype.type(eps))
        out *= rstd
    out = out.reshape(x.shape)
    _scale(out, _along(w, x), _along(b, x))
    return out, mean.reshape(x.shape[0], groups), rstd.reshape(x.shape[0], groups)


def group_norm_backward(g: np.ndarray, x: np.ndarray, groups: int, w: np.ndarray | None, mean: np.ndarray,
                        rstd: np.ndarray):
    """(dx, dw, db); dw and db as if there were both."""
    if _is_half(x):
        wide = [*_wide(g, x), groups, *_wide(w, mean, rstd)]
        return _narrow(x.dtype, *group_norm_backward(*wide), all_of_it=True)
    split = _split(x, groups)
    kept = (*mean.shape, *(1,) * (split.ndim - 2))
    count = prod(split.shape[2:])
    mean, rstd = mean.reshape(kept), rstd.reshape(kept)
    # sums over space first: one number a channel, from which all the rest follows
    space = tuple(range(2, x.ndim))
    sums, products = g.sum(space), np.multiply(g, x).sum(space)                 # (N, C)
    by_group = (*mean.shape[:2], -1)
    sums_g, products_g = sums.reshape(by_group), products.reshape(by_group)
    mean_g, rstd_g = mean.reshape(by_group), rstd.reshape(by_group)
    dw = ((products_g - sums_g * mean_g) * rstd_g).sum(0).reshape(-1)
    db = sums.sum(0)
    scale = np.ones(x.shape[1], x.dtype) if w is None else w
    scale_g = scale.reshape(groups, -1)
    a = (sums_g * scale_g).sum(-1, keepdims=True)
    c = (products_g * scale_g).sum(-1, keepdims=True)
    on_x = (a * mean_g - c) * rstd_g ** 3 / max(1, count)                       # dx = g w rstd + x on_x + rest
    rest = -on_x * mean_g - a * rstd_g / max(1, count)
    dx = _split(g, groups) * _split_along(scale_g * rstd_g, split)
    dx += split * _split_along(on_x, split)
    dx += _split_along(rest, split)
    return dx.reshape(x.shape), dw.astype(x.dtype, copy=False), db


def _split(x, groups):
    """(N, groups, C/groups, *S), a view whatever the strides."""
    own = x.shape[1] // groups
    return np.lib.stride_tricks.as_strided(
        x, (x.shape[0], groups, own, *x.shape[2:]),
        (x.strides[0], own * x.strides[1], *x.strides[1:]), writeable=False)


def _split_along(values, split):
    return values.reshape(*values.shape, *(1,) * (split.ndim - 3))


# --- root mean square -------------------------------------------------------------------------------------
def rms_norm(x: np.ndarray, w: np.ndarray | None, axes: int = 1, eps: float | None = None):
    """(out, rrms): x / sqrt(mean(x²) + eps) * w over the last `axes` dimensions; rrms keeps these as size 1."""
    if _is_half(x):
        return _narrow(x.dtype, *rms_norm(*_wide(x, w), axes, eps))
    eps = np.finfo(x.dtype).eps if eps is None else eps
    last = tuple(range(x.ndim - axes, x.ndim))
    square = _mean(x * x, last, prod(x.shape[x.ndim - axes:]))
    rrms = 1 / np.sqrt(square + x.dtype.type(eps))
    out = x * rrms
    _scale(out, w, None)
    return out, rrms


def rms_norm_backward(g: np.ndarray, x: np.ndarray, w: np.ndarray | None, rrms: np.ndarray, axes: int = 1):
    """(dx, dw); dw as if there were one."""
    if _is_half(x):
        return _narrow(x.dtype, *rms_norm_backward(*_wide(g, x, w, rrms), axes), all_of_it=True)
    last = tuple(range(x.ndim - axes, x.ndim))
    normal = x * rrms
    dw = (g * normal).sum(tuple(range(x.ndim - axes)))
    scaled = g if w is None else g * w
    dx = normal * -_mean(scaled * normal, last, prod(x.shape[x.ndim - axes:]))
    dx += scaled
    dx *= rrms
    return dx, dw


# --- shared -----------------------------------------------------------------------------------------------
def _fast(x) -> bool:
    return x.dtype == np.float32 and x.size >= WORTHWHILE and library.available()


def _affine(w, b, size):
    """Both scale and shift as contiguous float32 vectors, ones and zeros where there is none."""
    w = np.ones(size, np.float32) if w is None else np.ascontiguousarray(w, np.float32).reshape(-1)
    b = np.zeros(size, np.float32) if b is None else np.ascontiguousarray(b, np.float32).reshape(-1)
    return w, b


def _batch_axes(x):
    return (0, *range(2, x.ndim))


def _along(values, x):
    """A value for each channel, shaped to broadcast over x."""
    return None if values is None else values.reshape(-1, *(1,) * (x.ndim - 2))


def _mean(x, axes, count):
    # summed in float64: NumPy adds rows one after the other, which in float32 loses digits
    wide = np.float64 if x.dtype == np.float32 else None
    return (x.sum(axes, keepdims=True, dtype=wide) / max(1, count)).astype(x.dtype, copy=False)


def _scale(out, w, b):
    if w is not None:
        out *= w
    if b is not None:
        out += b


def _is_half(x) -> bool:
    return x.dtype.itemsize == 2


def _wide(*arrays):
    return [None if a is None else a.astype(np.float32, copy=False) for a in arrays]


def _narrow(dtype, first, *others, all_of_it: bool = False):
    """The first array (or all) in the half precision that was asked for; statistics stay float32."""
    return (first.astype(dtype), *(o.astype(dtype) if all_of_it else o for o in others))
