"""Batch and layer normalisation by oneDNN, float32."""

from __future__ import annotations

import numpy as np

from flambeau.kernels.onednn import library
from flambeau.kernels.onednn.primitives import Plan, PrimitiveDescriptor, Unsupported, cached, describe
from flambeau.kernels.onednn.reorder import dense_channels_last, to_channels_last

AFFINE = library.USE_SCALE | library.USE_SHIFT
FLOAT = np.dtype(np.float32)


# --- batch ------------------------------------------------------------------------------------------------
def _images(shape, plain: bool):
    """The descriptor of (N, C, *S): channels-last as rows of channels, plain as (N, C, S)."""
    channels, rest = shape[1], int(np.prod(shape[2:]))
    if plain:
        return describe([shape[0], channels, rest, 1], [channels * rest, rest, 1, 1], FLOAT)
    rows = shape[0] * rest
    return describe([rows, channels, 1, 1], [channels, 1, channels, channels], FLOAT)


def _is_plain(x) -> bool:
    return x.flags.c_contiguous and not dense_channels_last(x)


def batch_norm(x, w, b, eps):
    """(out, mean, variance) over all but axis 1, or None; w and b are given, contiguous."""
    plain = _is_plain(x)
    if not plain:
        x = to_channels_last(x)
    plan = cached(("bn", x.shape, plain, eps), _build_batch_norm, x.shape, plain, eps)
    if plan is None:
        return None
    out = np.empty_like(x)
    mean, variance = np.empty(x.shape[1], FLOAT), np.empty(x.shape[1], FLOAT)
    plan(x, out, mean, variance, w, b)
    return out, mean, variance


def batch_norm_backward(g, x, w, mean, variance, eps, fixed):
    """(dx, dw, db), or None; `fixed` where the statistics do not depend on x."""
    plain = _is_plain(x)
    if not plain:
        x, g = to_channels_last(x), to_channels_last(g)
    elif not g.flags.c_contiguous:
        g = np.ascontiguousarray(g)
    plan = cached(("bn dx", x.shape, plain, eps, fixed), _build_batch_norm_backward, x.shape, plain, eps, fixed)
    if plan is None:
        return None
    dx, dw, db = np.empty_like(x), np.empty(x.shape[1], FLOAT), np.empty(x.shape[1], FLOAT)
    plan(x, mean, variance, g, w, dx, dw, db)
    return dx, dw, db


def _batch_norm_descriptor(data, eps, fixed):
    flags = AFFINE | (library.USE_GLOBAL_STATS if fixed else 0)
    return PrimitiveDescriptor(
        "batch_normalization_forward", library.FORWARD_TRAINING, data, data, eps, flags)


def _build_batch_norm(shape, plain, eps):
    data, row = _images(shape, plain), describe([shape[1]], [1], FLOAT)
    return Plan(_fast(_batch_norm_descriptor(data, eps, False)), [
        (library.ARG_SRC, data), (library.ARG_DST, data), (library.ARG_MEAN, row),
        (library.ARG_VARIANCE, row), (library.ARG_SCALE, row), (library.ARG_SHIFT, row)])


def _build_batch_norm_backward(shape, plain, eps, fixed):
    data, row = _images(shape, plain), describe([shape[1]], [1], FLOAT)
    flags = AFFINE | (library.USE_GLOBAL_STATS if fixed else 0)
    descriptor = PrimitiveDescriptor(
        "batch_normalization_backward", library.BACKWARD, data, data, data, eps, flags,
        _batch_norm_descriptor(data, eps, fixed))
    return Plan(_fast(descriptor), [
        (library.ARG_SRC, data), (library.ARG_MEAN, row), (library.ARG_VARIANCE, row),
        (library.ARG_DIFF_DST, data), (library.ARG_SCALE, row), (library.ARG_DIFF_SRC, data),
        (library.ARG_DIFF_SCALE, row), (library.ARG_DIFF_SHIFT, row)])


# --- layer ------------------------------------------------------------------------------------------------
def layer_norm(x, w, b, eps):
    """(out, mean, variance) of the rows of x, a contiguous matrix, or None; w and b both or neither."""
    affine = w is not None
    plan = cached(("ln", x.shape, eps, affine), _build_layer_norm, x.shape, eps, affine)
    if plan is None:
        return None
    out, mean, variance = np.empty_like(x), np.empty(x.shape[0], FLOAT), np.empty(x.shape[0], FLOAT)
    plan(x, out, mean, variance, *((w, b) if affine else ()))
    return out, mean, variance


def layer_norm_backward(g, x, w, mean, variance):
    """(dx, dw, db) from the rows' means and variances (which include epsilon), or None."""
    affine = w is not None
    plan = cached(("ln dx", x.shape, affine), _build_layer_norm_backward, x.shape, affine)
    if plan is None:
        return None
    dx = np.empty_like(x)
    if not affine:
        plan(x, mean, variance, g, dx)
        return dx, None, None
    dw, db = np.empty(x.shape[1], FLOAT), np.empty(x.shape[1], FLOAT)
    plan(x, mean, variance, g, dx, w, dw, db, *((w,) if plan.takes > 8 else ()))
    return dx, dw, db


def _layer_parts(shape):
    rows, columns = shape
    return (describe([rows, columns], [columns, 1], FLOAT), describe([rows], [1], FLOAT),
            describe([columns], [1], FLOAT))


def _layer_norm_descriptor(data, statistics, eps, affine):
    return PrimitiveDescriptor("layer_normalization_forward", library.FORWARD_TRAINING, data, data, statistics,
                               eps, AFFINE if affine else 0)


def _build_layer_norm(shape, eps, affine):
    data, statistics, row = _layer_parts(shape)
    arguments = [(library.ARG_SRC, data), (library.ARG_DST, data), (library.ARG_MEAN, statistics),
                 (library.ARG_VARIANCE, statistics)]
    if affine:
        arguments += [(library.ARG_SCALE, row), (library.ARG_SHIFT, row)]
    return Plan(_fast(_layer_norm_descriptor(data, statistics, eps, affine)), arguments)


def _build_layer_norm_backward(shape, affine):
    data, statistics, row = _layer_parts(shape)
    descriptor = PrimitiveDescriptor(
        "layer_normalization_backward", library.BACKWARD if affine else library.BACKWARD_DATA, data, data, data,
        statistics, 0.0, AFFINE if affine else 0, _layer_norm_descriptor(data, statistics, 0.0, affine))
    arguments = [(library.ARG_SRC, data), (library.ARG_MEAN, statistics), (library.ARG_VARIANCE, statistics),
                 (library.ARG_DIFF_DST, data), (library.ARG_DIFF_SRC, data)]
    if affine:
        arguments += [(library.ARG_SCALE, row), (library.ARG_DIFF_SCALE, row), (library.ARG_DIFF_SHIFT, row)]
        # version 3.2 asks for the shift too, though it does not read it
        if descriptor.inputs == 6:
            arguments.append((library.ARG_SHIFT, row))
    return Plan(_fast(descriptor), arguments)


def _fast(descriptor):
    if descriptor.implementation.startswith("ref"):
        raise Unsupported("only a reference implementation")
    return descriptor
