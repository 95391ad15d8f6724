"""Convolution and its gradients in NumPy: unfold the windows, then one matrix product a group."""

from __future__ import annotations

from math import prod

import numpy as np

from flambeau.kernels.windows import batches, channels_first, channels_last, offsets, pad, windows


def forward(x, w, bias, out, stride, padding, dilation, groups):
    """The convolution of x (N, C, *S) with w (O, C/groups, *K); `out` is the spatial size of the result."""
    kernel = w.shape[2:]
    matrix = _weights(w, groups)
    image = pad(channels_last(x), padding)
    result = np.empty((x.shape[0], *out, w.shape[0]), x.dtype)
    for part in batches(*_cost(x, w, out, groups)):
        unfolded = _unfold(windows(image[part], out, kernel, stride, dilation), groups)
        product = np.matmul(unfolded, matrix)                                   # (G, N*O, O/G)
        result[part] = product.transpose(1, 0, 2).reshape(result[part].shape)
    if bias is not None:
        result += bias
    return channels_first(result)


def input_grad(g, w, x_shape, stride, padding, dilation, groups):
    """The gradient with respect to the input: each window's gradient, added back where it came from."""
    out, kernel, spatial = g.shape[2:], w.shape[2:], x_shape[2:]
    rank, inputs = len(out), x_shape[1]
    matrix = _weights(w, groups).swapaxes(1, 2)
    # the far side as far as the windows reach: less than the padding where the last step did not fit
    reach = [max((o - 1) * s + (k - 1) * d + 1, n + before) for o, s, k, d, n, (before, _) in
             zip(out, stride, kernel, dilation, spatial, padding, strict=True)]
    image = np.zeros((x_shape[0], *reach, inputs), g.dtype)
    g = channels_last(g)
    for part in batches(*_cost(g, w, out, groups)):
        gradients = g[part].reshape(-1, groups, w.shape[0] // groups).transpose(1, 0, 2)
        unfolded = np.matmul(gradients, matrix)                                 # (G, N*O, K*C/G)
        unfolded = unfolded.reshape(groups, -1, *out, *kernel, inputs // groups)
        unfolded = np.moveaxis(unfolded, 0, -2)
        unfolded = unfolded.reshape(*unfolded.shape[:-2], inputs)               # (N, *O, *K, C)
        whole = (slice(None),) * (rank + 1)
        for index, place in offsets(out, kernel, stride, dilation):
            image[(part, *place)] += unfolded[(*whole, *index)]
    inner = tuple(slice(before, before + n) for n, (before, _) in zip(spatial, padding, strict=True))
    return channels_first(image[(slice(None), *inner)])


def weight_grad(x, g, w_shape, stride, padding, dilation, groups):
    """The gradient with respect to the weights: unfolded windows against the output's gradient."""
    out, kernel = g.shape[2:], w_shape[2:]
    image, g = pad(channels_last(x), padding), channels_last(g)
    total = np.zeros((groups, prod(kernel) * w_shape[1], w_shape[0] // groups), x.dtype)
    for part in batches(*_cost(x, np.empty(w_shape, np.bool_), out, groups, x.itemsize)):
        unfolded = _unfold(windows(image[part], out, kernel, stride, dilation), groups)
        gradients = g[part].reshape(-1, groups, w_shape[0] // groups).transpose(1, 0, 2)
        total += np.matmul(unfolded.swapaxes(1, 2), gradients)
    total = total.reshape(groups, *kernel, w_shape[1], w_shape[0] // groups)
    total = np.moveaxis(total, (-1, -2), (1, 2))                                # (G, O/G, C/G, *K)
    return np.ascontiguousarray(total.reshape(w_shape))


def _weights(w, groups):
    """The weights (O, C/G, *K) as matrices (G, K * C/G, O/G)."""
    matrix = w.reshape(groups, w.shape[0] // groups, *w.shape[1:])
    matrix = np.moveaxis(matrix, (1, 2), (-1, -2))
    return matrix.reshape(groups, -1, w.shape[0] // groups)


def _unfold(view, groups):
    """Windows (N, *O, *K, C) as matrices (G, N*O, K * C/G)."""
    rank = (view.ndim - 2) // 2
    split = view.reshape(*view.shape[:-1], groups, -1) if groups > 1 else view[..., None, :]
    rows, positions = prod(split.shape[:rank + 1]), prod(split.shape[rank + 1:-2])
    return np.moveaxis(split, -2, 0).reshape(groups, rows, positions * split.shape[-1])


def _cost(x, w, out, groups, itemsize=None):
    return x.shape[0], prod(out) * prod(w.shape[1:]) * groups * (itemsize or x.itemsize)
