"""Normalisation of NumPy arrays: batch, layer, group, root mean square; and their gradients.

Layer normalisation of float32 and small batches go to oneDNN. The rest is two passes with generated kernels,
one for the sums and one for the result, in whatever order the array lies. Half precision is computed in
float32. `w` and `b` (either may be None) scale and shift what is normalised. Statistics have the dtype of the
computation: float32 for half precision.
"""

from __future__ import annotations

from math import prod
from typing import Any, TypeVarTuple

import numpy as np

from flambeau.kernels import backend
from flambeau.kernels.channels import ChannelKernel, ChannelSums, along_channels
from flambeau.kernels.expr import var
from flambeau.kernels.layout import as_laid
from flambeau.kernels.onednn import library
from flambeau.kernels.reduce import map_reduce, moments
from flambeau.kernels.ufunc import kernel

Arrays = TypeVarTuple("Arrays")

#: Elements from which oneDNN is faster than NumPy.
WORTHWHILE = 512
#: Elements from which generated kernels are faster than oneDNN's batch normalisation.
LARGE = 1 << 17

_x, _g, _m, _f, _b, _a, _k, _w = map(var, "xgmfbakw")
#: The array less its mean, scaled and shifted.
_NORMAL = kernel((_x - _m) * _f + _b, ("x", "m", "f", "b"), "normalise")
#: The gradient with respect to x: of what is scaled (w), less what the mean (a) and the variance (k) take up.
_NORMAL_GRAD = kernel((_g * _w - _a - (_x - _m) * _k) * _f, ("g", "x", "m", "f", "w", "a", "k"), "normalise_grad")
#: The same, both, for images that lie channels-last; in the gradient w and k come multiplied by f.
_CHANNELS = ChannelKernel((_x - _m) * _f + _b, ("x",), ("m", "f", "b"), "normalise")
_CHANNELS_GRAD = ChannelKernel(_g * _w - _a - (_x - _m) * _k, ("g", "x"), ("w", "a", "m", "k"), "normalise_grad")
#: What the statistics follow from, about a number near the mean (m); and what the gradients do.
_CHANNELS_MOMENTS = ChannelSums([_x - _m, (_x - _m) * (_x - _m)], ("x",), ("m",), "moments")
_CHANNELS_PRODUCTS = ChannelSums([_g, _g * (_x - _m)], ("g", "x"), ("m",), "products")
_SCALED = kernel(_x * _f * _w, ("x", "f", "w"), "scale")


# --- batch ------------------------------------------------------------------------------------------------
@np.errstate(all="ignore")
def batch_norm(x: np.ndarray, w: np.ndarray | None, b: np.ndarray | None, eps: float = 1e-5):
    """(out, mean, biased variance) of x (N, C, *S), statistics taken over all but the channels.

    >>> out, mean, var = batch_norm(np.array([[1.0, 2.0], [3.0, 2.0]]), None, None)
    >>> mean, var
    (array([2., 2.]), array([1., 0.]))
    """
    if _is_half(x):
        return _narrow(x.dtype, *batch_norm(*_wide(x, w, b), eps))
    if _for_onednn(x):
        from flambeau.kernels.onednn import normalization

        result = normalization.batch_norm(x, *_affine(w, b, x.shape[1]), eps)
        if result is not None:
            return result
    mean, variance = (v.astype(x.dtype) for v in (_moments(x) if along_channels(x) else moments(x, _batch_axes(x))))
    return batch_norm_inference(x, w, b, mean, variance, eps), mean, variance


@np.errstate(all="ignore")
def batch_norm_inference(x: np.ndarray, w: np.ndarray | None, b: np.ndarray | None, mean: np.ndarray,
                         var: np.ndarray, eps: float = 1e-5) -> np.ndarray:
    """(x - mean) / sqrt(var + eps) * w + b with given statistics."""
    if _is_half(x):
        return _narrow(x.dtype, batch_norm_inference(*_wide(x, w, b, mean, var), eps))[0]
    factor = 1 / np.sqrt(var + x.dtype.type(eps))
    if w is not None:
        factor = factor * w
    shift = np.zeros(1, x.dtype) if b is None else b
    if along_channels(x):
        return _CHANNELS([x], [mean, factor, shift])
    return _NORMAL(x, *(_along(v.astype(x.dtype, copy=False), x) for v in (mean, factor, shift)))


@np.errstate(all="ignore")
def batch_norm_backward(g: np.ndarray, x: np.ndarray, w: np.ndarray | None, mean: np.ndarray, var: np.ndarray,
                        eps: float = 1e-5, training: bool = True):
    """(dx, dw, db) from the mean and variance that were used; constants of the graph if not `training`."""
    if _is_half(x):
        return _narrow(x.dtype, *batch_norm_backward(*_wide(g, x, w, mean, var), eps, training), all_of_it=True)
    if _for_onednn(x):
        from flambeau.kernels.onednn import normalization

        scale, _ = _affine(w, None, x.shape[1])
        result = normalization.batch_norm_backward(
            g, x, scale, np.ascontiguousarray(mean), np.ascontiguousarray(var), eps, not training)
        if result is not None:
            return result
    g = as_laid(g, x)
    rstd = 1 / np.sqrt(var + x.dtype.type(eps))
    centre = _along(mean, x)
    if along_channels(x) and g.strides == x.strides:
        db, dw = _CHANNELS_PRODUCTS([g, x], [mean]).astype(x.dtype)
    else:
        db, dw = map_reduce((_g, _g * (_x - _m)), ("g", "x", "m"), (g, x, np.broadcast_to(centre, x.shape)),
                            _batch_axes(x))
    dw *= rstd
    count = max(1, x.size // max(1, x.shape[1]))
    from_mean, from_variance = (db / count, dw * rstd / count) if training else np.zeros((2, *db.shape), x.dtype)
    factor = rstd if w is None else rstd * w
    if along_channels(x) and g.strides == x.strides:
        return _CHANNELS_GRAD([g, x], [factor, from_mean * factor, mean, from_variance * factor]), dw, db
    dx = _NORMAL_GRAD(g, x, centre, _along(factor, x), 1.0, _along(from_mean, x), _along(from_variance, x))
    return dx, dw, db


@np.errstate(all="ignore")
def _moments(x):
    """Mean and variance of each channel. About the mean of a few rows, the squares need no more digits than x has."""
    rows = x.transpose(0, *range(2, x.ndim), 1).reshape(-1, x.shape[1])
    about = rows[::-(-len(rows) // 32)].mean(0)
    about[~np.isfinite(about)] = 0
    shift, square = _CHANNELS_MOMENTS([x], [about]) / len(rows)
    return about + shift, np.maximum(square - shift * shift, 0)


# --- layer ------------------------------------------------------------------------------------------------
@np.errstate(all="ignore")
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

        scales: tuple[Any, Any] = (None, None) if w is None and b is None else _affine(w, b, count)
        result = normalization.layer_norm(np.ascontiguousarray(x).reshape(-1, count), *scales, eps)
        if result is not None:
            out, mean, variance = result
            variance += np.float32(eps)
            np.sqrt(variance, out=variance)
            return out.reshape(x.shape), mean.reshape(kept), np.reciprocal(variance, out=variance).reshape(kept)
    mean, variance = moments(x, tuple(range(x.ndim - axes, x.ndim)), True)
    mean, rstd = mean.astype(x.dtype), (1 / np.sqrt(variance + eps)).astype(x.dtype)
    out = _NORMAL(x, mean, rstd, 0.0)
    if w is not None:
        out *= w
    if b is not None:
        out += b
    return out, mean, rstd


@np.errstate(all="ignore")
def layer_norm_backward(g: np.ndarray, x: np.ndarray, w: np.ndarray | None, mean: np.ndarray, rstd: np.ndarray,
                        axes: int = 1):
    """(dx, dw, db); dw and db as if there were both."""
    if _is_half(x):
        return _narrow(x.dtype, *layer_norm_backward(*_wide(g, x, w, mean, rstd), axes), all_of_it=True)
    lead, own = x.shape[:x.ndim - axes], x.shape[x.ndim - axes:]
    count = prod(own)
    if _fast(x) and count > 1:
        from flambeau.kernels.onednn import normalization

        g_rows, x_rows = (np.ascontiguousarray(a).reshape(-1, count) for a in (g, x))
        variance = np.ascontiguousarray(1 / (rstd * rstd)).reshape(-1)
        result = normalization.layer_norm_backward(
            g_rows, x_rows, _affine(w, None, count)[0], np.ascontiguousarray(mean).reshape(-1), variance)
        if result is not None:
            dx, dw, db = result
            return dx.reshape(x.shape), dw.reshape(own), db.reshape(own)
    last, first = tuple(range(len(lead), x.ndim)), tuple(range(len(lead)))
    scale = np.ones((), x.dtype) if w is None else w
    arrays = [g, x, *(np.broadcast_to(v, x.shape) for v in (mean, rstd, scale))]
    names, scaled, normal = ("g", "x", "m", "f", "w"), _g * _w, (_x - _m) * _f
    db, dw = map_reduce((_g, _g * normal), names[:4], arrays[:4], first)
    from_mean, from_variance = (v / max(1, count) for v in map_reduce(
        (scaled, scaled * normal), names, arrays, last, keepdims=True))
    return _NORMAL_GRAD(g, x, mean, rstd, scale, from_mean, from_variance * rstd), dw, db


@np.errstate(all="ignore")
def layer_norm_backward_each(g: np.ndarray, x: np.ndarray, w: np.ndarray | None, mean: np.ndarray, rstd: np.ndarray, axes: int = 1):
    """(dx, dw, db) where dimension 0 is of examples with weights of their own, w (B, *own): dw and db are (B, *own)."""
    if _is_half(x):
        return _narrow(x.dtype, *layer_norm_backward_each(*_wide(g, x, w, mean, rstd), axes), all_of_it=True)
    if w is None or not w.strides[0]:
        dx = layer_norm_backward(g, x, None if w is None else w[0], mean, rstd, axes)[0]
    else:
        scale = w.reshape(w.shape[0], *(1,) * (x.ndim - w.ndim), *w.shape[1:])
        dx = layer_norm_backward(g * scale, x, None, mean, rstd, axes)[0]
    arrays = [g, x, *(np.broadcast_to(v, x.shape) for v in (mean, rstd))]
    db, dw = map_reduce((_g, _g * ((_x - _m) * _f)), ("g", "x", "m", "f"), arrays, tuple(range(1, x.ndim - axes)))
    return dx, dw, db


# --- group ------------------------------------------------------------------------------------------------
@np.errstate(all="ignore")
def group_norm(x: np.ndarray, groups: int, w: np.ndarray | None, b: np.ndarray | None, eps: float = 1e-5):
    """(out, mean (N, groups), rstd (N, groups)) of x (N, C, *S) normalised within groups of channels.

    >>> group_norm(np.arange(8.0).reshape(1, 4, 2), 2, None, None)[1]
    array([[1.5, 5.5]])
    """
    if _is_half(x):
        return _narrow(x.dtype, *group_norm(_wide(x)[0], groups, *_wide(w, b), eps))
    # moments of each channel, (N, groups, C/groups) in float64, then of the groups: so x keeps its long loops
    means, variances = (v.reshape(x.shape[0], groups, x.shape[1] // groups if groups else 0) for v in moments(x, tuple(range(2, x.ndim))))
    mean = means.mean(-1)
    variance = variances.mean(-1) + ((means - mean[..., None]) ** 2).mean(-1)
    mean, rstd = mean.astype(x.dtype), (1 / np.sqrt(variance + eps)).astype(x.dtype)
    own, shift = (d if v is None else v for v, d in ((w, np.ones(x.shape[1], x.dtype)), (b, np.zeros(1, x.dtype))))
    out = _NORMAL(x, _spread(mean, x), _spread(rstd, x, own), _along(shift, x))
    return out, mean, rstd


@np.errstate(all="ignore")
def group_norm_backward(g: np.ndarray, x: np.ndarray, groups: int, w: np.ndarray | None, mean: np.ndarray,
                        rstd: np.ndarray):
    """(dx, dw, db); dw and db as if there were both."""
    if _is_half(x):
        wide: Any = [*_wide(g, x), groups, *_wide(w, mean, rstd)]
        return _narrow(x.dtype, *group_norm_backward(*wide), all_of_it=True)
    count = max(1, prod(x.shape[1:]) // groups)
    centre = _spread(mean, x)
    # one number a channel, (N, C), from which all sums follow
    sums, products = map_reduce((_g, _g * (_x - _m)), ("g", "x", "m"), (g, x, np.broadcast_to(centre, x.shape)),
                                tuple(range(2, x.ndim)))
    products *= _spread(rstd, x).reshape(products.shape)
    own = np.ones(x.shape[1], x.dtype) if w is None else w
    from_mean, from_variance = (
        (v * own).reshape(*mean.shape, x.shape[1] // groups if groups else 0).sum(-1) / count for v in (sums, products))
    dx = _NORMAL_GRAD(g, x, centre, _spread(rstd, x), _along(own, x), _spread(from_mean, x),
                      _spread(from_variance * rstd, x))
    return dx, products.sum(0), sums.sum(0)


def _spread(values, x, own=None):
    """(N, groups) for each channel, times `own` (C,), shaped to broadcast over x."""
    result = np.repeat(values, x.shape[1] // max(1, values.shape[1]), axis=1)
    if own is not None:
        result = result * own
    return result.reshape(*result.shape, *(1,) * (x.ndim - 2))


# --- root mean square -------------------------------------------------------------------------------------
@np.errstate(all="ignore")
def rms_norm(x: np.ndarray, w: np.ndarray | None, axes: int = 1, eps: float | None = None):
    """(out, rrms): x / sqrt(mean(x²) + eps) * w over the last `axes` dimensions; rrms keeps these as size 1."""
    if _is_half(x):
        return _narrow(x.dtype, *rms_norm(*_wide(x, w), axes, eps))
    eps = np.finfo(x.dtype).eps if eps is None else eps
    square, = map_reduce((_x * _x,), ("x",), (x,), tuple(range(x.ndim - axes, x.ndim)), keepdims=True)
    rrms = 1 / np.sqrt(square / max(1, prod(x.shape[x.ndim - axes:])) + x.dtype.type(eps))
    return _SCALED(x, rrms, 1.0 if w is None else w), rrms


@np.errstate(all="ignore")
def rms_norm_backward(g: np.ndarray, x: np.ndarray, w: np.ndarray | None, rrms: np.ndarray, axes: int = 1):
    """(dx, dw); dw as if there were one."""
    if _is_half(x):
        return _narrow(x.dtype, *rms_norm_backward(*_wide(g, x, w, rrms), axes), all_of_it=True)
    last, count = tuple(range(x.ndim - axes, x.ndim)), max(1, prod(x.shape[x.ndim - axes:]))
    factor, scale = np.broadcast_to(rrms, x.shape), np.ones((), x.dtype) if w is None else w
    dw, = map_reduce((_g * _x * _f,), ("g", "x", "f"), (g, x, factor), tuple(range(x.ndim - axes)))
    taken, = map_reduce((_g * _w * _x,), ("g", "x", "w"), (g, x, np.broadcast_to(scale, x.shape)), last,
                        keepdims=True)
    return _NORMAL_GRAD(g, x, 0.0, rrms, scale, 0.0, taken * rrms * rrms / count), dw


# --- shared -----------------------------------------------------------------------------------------------
def _fast(x) -> bool:
    return x.dtype == np.float32 and x.size >= WORTHWHILE and library.available()


def _for_onednn(x) -> bool:
    """Whether oneDNN is the faster for batch normalisation: small arrays, channels last."""
    if not _fast(x) or (x.flags.c_contiguous and prod(x.shape[2:]) > 1):
        return False
    return x.size < LARGE or not backend.jit_available()


def _affine(w, b, size) -> tuple[np.ndarray, np.ndarray]:
    """Both scale and shift as contiguous float32 vectors, ones and zeros where there is none."""
    w = np.ones(size, np.float32) if w is None else np.ascontiguousarray(w, np.float32).reshape(-1)
    b = np.zeros(size, np.float32) if b is None else np.ascontiguousarray(b, np.float32).reshape(-1)
    return w, b


def _batch_axes(x):
    return (0, *range(2, x.ndim))


def _along(values, x):
    """A value for each channel, shaped to broadcast over x."""
    return None if values is None else values.reshape(-1, *(1,) * (x.ndim - 2))


def _is_half(x) -> bool:
    return x.dtype.itemsize == 2


def _wide(*arrays: *Arrays) -> tuple[*Arrays]:
    every: Any = arrays
    wide: Any = tuple(None if a is None else a.astype(np.float32, copy=False) for a in every)
    return wide


def _narrow(dtype, first, *others, all_of_it: bool = False):
    """The first array (or all) in the half precision that was asked for; statistics stay float32."""
    return (first.astype(dtype), *(o.astype(dtype) if all_of_it else o for o in others))
