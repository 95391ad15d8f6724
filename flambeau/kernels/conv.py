"""Convolutions of NumPy arrays, 1 to 3 spatial dimensions: oneDNN for float32 and bfloat16, else NumPy.

x (N, C, *S) may have any strides.  Results have the logical shape (N, C, *S) and lie channels-last in memory.
`stride`, `padding` and `dilation` are an integer, or one entry a spatial dimension; an entry of the padding
may be a pair (before, after).  The functions check no shapes: operators do, in PyTorch's words.
"""

from __future__ import annotations

import numpy as np

from flambeau.kernels import conv_numpy
from flambeau.kernels.onednn import library
from flambeau.kernels.windows import as_key, channels_first, output_size, spread, spread_pairs


def conv(x: np.ndarray, w: np.ndarray, bias: np.ndarray | None = None, stride=1, padding=0, dilation=1,
         groups: int = 1) -> np.ndarray:
    """The cross-correlation of x (N, C, *S) with w (O, C/groups, *K), plus bias (O,).

    >>> conv(np.ones((1, 2, 5, 5)), np.ones((3, 2, 3, 3)), padding=1).shape
    (1, 3, 5, 5)
    """
    stride, padding, dilation = _geometry(x, stride, padding, dilation)
    out = tuple(map(output_size, x.shape[2:], w.shape[2:], stride, padding, dilation))
    shape = (x.shape[0], w.shape[0], *out)
    if 0 in shape or x.size == 0 or w.size == 0:
        result = _zeros(shape, x.dtype)
        return result if bias is None else np.add(result, _row(bias, x.ndim), out=result)
    return _run("forward", (x, w, bias), out, stride, padding, dilation, groups)


def conv_input_grad(g: np.ndarray, w: np.ndarray, x_shape, stride=1, padding=0, dilation=1,
                    groups: int = 1) -> np.ndarray:
    """The gradient of :func:`conv` with respect to x, from g, the gradient of its result.

    >>> conv_input_grad(np.ones((1, 3, 3, 3)), np.ones((3, 2, 3, 3)), (1, 2, 5, 5)).shape
    (1, 2, 5, 5)
    """
    x_shape = tuple(x_shape)
    stride, padding, dilation = _geometry(g, stride, padding, dilation)
    if 0 in x_shape or g.size == 0 or w.size == 0:
        return _zeros(x_shape, g.dtype)
    return _run("input_grad", (g, w), x_shape, stride, padding, dilation, groups)


def conv_weight_grad(x: np.ndarray, g: np.ndarray, w_shape, stride=1, padding=0, dilation=1, groups: int = 1,
                     bias: bool = False):
    """The gradient of :func:`conv` with respect to w; with `bias` the pair (w's, bias's).

    >>> conv_weight_grad(np.ones((1, 2, 5, 5)), np.ones((1, 3, 3, 3)), (3, 2, 3, 3)).shape
    (3, 2, 3, 3)
    """
    w_shape = tuple(w_shape)
    stride, padding, dilation = _geometry(x, stride, padding, dilation)
    if x.size == 0 or g.size == 0 or 0 in w_shape:
        grad, sums = np.zeros(w_shape, x.dtype), _sums(g) if bias else None
    else:
        grad, sums = _run("weight_grad", (x, g), w_shape, stride, padding, dilation, groups, bias)
    return (grad, sums) if bias else grad


def conv_transpose(x: np.ndarray, w: np.ndarray, bias: np.ndarray | None = None, stride=1, padding=0,
                   output_padding=0, dilation=1, groups: int = 1) -> np.ndarray:
    """The transposed convolution of x (N, C, *S) with w (C, O/groups, *K), plus bias (O,).

    Its gradients are convolutions: `conv(g, w, None, ...)` for x, `conv_weight_grad(g, x, w.shape, ...)` for w.

    >>> conv_transpose(np.ones((1, 2, 3, 3)), np.ones((2, 4, 2, 2)), stride=2).shape
    (1, 4, 6, 6)
    """
    rank = x.ndim - 2
    stride, padding, dilation = _geometry(x, stride, padding, dilation)
    extra = spread(as_key(output_padding), rank)
    size = tuple((n - 1) * s - before - after + d * (k - 1) + more + 1 for n, s, (before, after), d, k, more in
                 zip(x.shape[2:], stride, padding, dilation, w.shape[2:], extra, strict=True))
    # what is added at the far side belongs to no window
    padding = tuple((before, after - more) for (before, after), more in zip(padding, extra, strict=True))
    result = conv_input_grad(x, w, (x.shape[0], w.shape[1] * groups, *size), stride, padding, dilation, groups)
    if bias is not None:
        result += _row(bias, x.ndim)
    return result


def _geometry(x, stride, padding, dilation):
    rank = x.ndim - 2
    return (spread(as_key(stride), rank), spread_pairs(as_key(padding), rank),
            spread(as_key(dilation), rank))


def _run(name, arrays, *arguments):
    """The kernel of this name: oneDNN's where there is one, else NumPy's; half precision in float32."""
    dtype = arrays[0].dtype
    if library.available() and dtype in library.data_types() and all(
            a is None or a.dtype == dtype for a in arrays):
        from flambeau.kernels.onednn import convolution

        result = getattr(convolution, name)(*arrays, *arguments)
        if result is not None:
            return result
    if dtype.itemsize == 2 and dtype.kind in "fV":
        wide = [None if a is None else a.astype(np.float32) for a in arrays]
        result = _run(name, wide, *arguments)
        if type(result) is tuple:
            return tuple(None if r is None else r.astype(dtype) for r in result)
        return result.astype(dtype)
    if name == "weight_grad":
        *arguments, bias = arguments
        return conv_numpy.weight_grad(*arrays, *arguments), _sums(arrays[1]) if bias else None
    return getattr(conv_numpy, name)(*arrays, *arguments)


def _zeros(shape, dtype):
    return channels_first(np.zeros((shape[0], *shape[2:], shape[1]), dtype))


def _row(bias, ndim):
    return bias.reshape(-1, *(1,) * (ndim - 2))


def _sums(g):
    return g.sum(axis=(0, *range(2, g.ndim)), dtype=g.dtype)
