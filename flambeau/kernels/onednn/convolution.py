"""Convolutions and their gradients by oneDNN, on channels-last activations.

Weights come in the plain layout and are reordered to the one oneDNN chooses at each call: that is some
microseconds for small weights, a few per cent of the convolution for large ones, and no stale copy can exist.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from flambeau.kernels.onednn import library
from flambeau.kernels.onednn.primitives import (
    Descriptor,
    Plan,
    PrimitiveDescriptor,
    cached,
    describe,
    describe_any,
    describe_array,
    reorder_descriptor,
    temporary,
)
from flambeau.kernels.onednn.reorder import to_channels_last


class Entry(NamedTuple):
    plan: Plan
    reorder: Plan | None        # between the plain weights and oneDNN's; None where these are the same
    weight_bytes: int
    physical: tuple[int, ...]   # (N, *S, C) of the activation that is made
    view: tuple[int, ...]       # the axes that make it (N, C, *S)


def forward(x, w, bias, out, stride, padding, dilation, groups):
    """The convolution, or None where oneDNN has none."""
    key = ("conv", x.shape, w.shape, w.strides, x.dtype, bias is None, stride, padding, dilation, groups)
    entry = cached(key, _build_forward, x, w, bias is not None, out, stride, padding, dilation, groups)
    if entry is None:
        return None
    result = np.empty(entry.physical, x.dtype)
    arrays = to_channels_last(x), _chosen(entry, w), result
    if bias is None:
        entry.plan(*arrays)
    else:
        entry.plan(*arrays, np.ascontiguousarray(bias))
    return result.transpose(entry.view)


def input_grad(g, w, x_shape, stride, padding, dilation, groups):
    """The gradient with respect to the input, or None."""
    key = ("conv dx", g.shape, w.shape, w.strides, x_shape, g.dtype, stride, padding, dilation, groups)
    entry = cached(key, _build_input_grad, g, w, x_shape, stride, padding, dilation, groups)
    if entry is None:
        return None
    result = np.empty(entry.physical, g.dtype)
    entry.plan(to_channels_last(g), _chosen(entry, w), result)
    return result.transpose(entry.view)


def weight_grad(x, g, w_shape, stride, padding, dilation, groups, bias):
    """The gradients (weights, bias or None) with respect to these, or None."""
    key = ("conv dw", x.shape, g.shape, w_shape, x.dtype, bias, stride, padding, dilation, groups)
    entry = cached(key, _build_weight_grad, x, g, w_shape, stride, padding, dilation, groups, bias)
    if entry is None:
        return None
    result = np.empty(w_shape, x.dtype)
    made = result if entry.reorder is None else temporary(entry.weight_bytes)
    arrays = to_channels_last(x), to_channels_last(g), made
    sums = np.empty(w_shape[0], x.dtype) if bias else None
    if bias:
        entry.plan(*arrays, sums)
    else:
        entry.plan(*arrays)
    if entry.reorder is not None:
        entry.reorder(made, result)
    return result, sums


def _chosen(entry: Entry, w):
    """The weights in the layout the plan takes."""
    if entry.reorder is None:
        return w
    chosen = temporary(entry.weight_bytes)
    entry.reorder(w, chosen)
    return chosen


# --- building ---------------------------------------------------------------------------------------------
def activation(shape, dtype) -> Descriptor:
    """The descriptor of a dense channels-last array (N, C, *S)."""
    batch, channels, *spatial = shape
    steps: list[int] = []
    step = channels
    for n in reversed(spatial):
        steps.insert(0, step)
        step *= n
    return describe(shape, [step, 1, *steps], dtype)


def _grouped(w, groups):
    """Weights (O, C/G, *K) as oneDNN has them where there are groups: (G, O/G, C/G, *K), a view."""
    if groups == 1:
        return w
    return np.lib.stride_tricks.as_strided(
        w, (groups, w.shape[0] // groups, *w.shape[1:]),
        (w.strides[0] * (w.shape[0] // groups), *w.strides), writeable=False)


def _steps(stride, padding, dilation):
    """Strides, dilations (0 is none), padding before and after, as oneDNN's creators take them."""
    return stride, [d - 1 for d in dilation], [p for p, _ in padding], [p for _, p in padding]


def _entry(descriptor, arguments, plain, chosen, made_shape, towards_plain=False):
    plan = Plan(descriptor, arguments)
    reorder = None
    if not chosen == plain:
        source, target = (chosen, plain) if towards_plain else (plain, chosen)
        reorder = Plan(reorder_descriptor(source, target),
                       [(library.ARG_SRC, source), (library.ARG_DST, target)])
    batch, channels, *spatial = made_shape
    rank = len(made_shape)
    return Entry(plan, reorder, chosen.size, (batch, *spatial, channels), (0, rank - 1, *range(1, rank - 1)))


def _build_forward(x, w, bias, out, stride, padding, dilation, groups):
    grouped, made = _grouped(w, groups), (x.shape[0], w.shape[0], *out)
    source, target = activation(x.shape, x.dtype), activation(made, x.dtype)
    row = describe([w.shape[0]], [1], x.dtype) if bias else None
    descriptor = _forward_descriptor(source, grouped, row, target, stride, padding, dilation, x.dtype)
    chosen = descriptor.memory(library.QUERY_WEIGHTS)
    arguments = [(library.ARG_SRC, source), (library.ARG_WEIGHTS, chosen), (library.ARG_DST, target)]
    if bias:
        arguments.append((library.ARG_BIAS, row))
    return _entry(descriptor, arguments, describe_array(grouped), chosen, made)


def _forward_descriptor(source, grouped, row, target, stride, padding, dilation, dtype):
    return PrimitiveDescriptor(
        "convolution_forward", library.FORWARD_TRAINING, library.CONVOLUTION_DIRECT, source,
        describe_any(grouped.shape, dtype), row, target, *_steps(stride, padding, dilation))


def _build_input_grad(g, w, x_shape, stride, padding, dilation, groups):
    grouped = _grouped(w, groups)
    source, target = activation(x_shape, g.dtype), activation(g.shape, g.dtype)
    hint = _forward_descriptor(source, grouped, None, target, stride, padding, dilation, g.dtype)
    descriptor = PrimitiveDescriptor(
        "convolution_backward_data", library.CONVOLUTION_DIRECT, source, describe_any(grouped.shape, g.dtype),
        target, *_steps(stride, padding, dilation), hint)
    chosen = descriptor.memory(library.QUERY_WEIGHTS)
    arguments = [(library.ARG_DIFF_DST, target), (library.ARG_WEIGHTS, chosen), (library.ARG_DIFF_SRC, source)]
    return _entry(descriptor, arguments, describe_array(grouped), chosen, x_shape)


def _build_weight_grad(x, g, w_shape, stride, padding, dilation, groups, bias):
    grouped = _grouped(np.empty(w_shape, x.dtype), groups)
    source, target = activation(x.shape, x.dtype), activation(g.shape, g.dtype)
    row = describe([w_shape[0]], [1], x.dtype) if bias else None
    hint = _forward_descriptor(source, grouped, row, target, stride, padding, dilation, x.dtype)
    descriptor = PrimitiveDescriptor(
        "convolution_backward_weights", library.CONVOLUTION_DIRECT, source,
        describe_any(grouped.shape, x.dtype), row, target, *_steps(stride, padding, dilation), hint)
    chosen = descriptor.memory(library.QUERY_DIFF_WEIGHTS)
    arguments = [(library.ARG_SRC, source), (library.ARG_DIFF_DST, target),
                 (library.ARG_DIFF_WEIGHTS, chosen)]
    if bias:
        arguments.append((library.ARG_DIFF_BIAS, row))
    return _entry(descriptor, arguments, describe_array(grouped), chosen, x.shape, towards_plain=True)
