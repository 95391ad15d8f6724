"""Convolutions and transposed convolutions in 1 to 3 dimensions.

A convolution is linear in the input and in the weight, and so are its two derivatives: three operators, each of whose
derivatives are the other two, give gradients of every order.

===================  ==================================  ===================================
operator             derivative by its first operand     derivative by its second operand
===================  ==================================  ===================================
convolution(x, w)    input_grad(g, w)                    weight_grad(x, g)
input_grad(g, w)     convolution(gg, w)                  weight_grad(gg, g)
weight_grad(x, g)    input_grad(g, gg)                   convolution(x, gg)
===================  ==================================  ===================================

A transposed convolution is ``input_grad`` seen as an operator of its own.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from ..autograd.primitive import primitive
from ..core.dtypes import C_NAMES, SCALAR_NAMES
from ..core.errors import error
from ..core.tensor import Tensor
from ..kernels import conv as kernels
from .matmul import conj, folded, of_all
from .public import publish
from .takes import takes

Pairs = tuple[tuple[int, int], ...]


# ---- the three linear operators ---------------------------------------------------------------------------------------
def laid(a: np.ndarray) -> np.ndarray:
    """A kernel's channels-last result: as it is for images and volumes, in C order for sequences."""
    return a if a.ndim > 3 else np.ascontiguousarray(a)


def _convolution_grads(g: Any, x: Any, w: Any, stride: Any, padding: Any, dilation: Any, groups: Any, needs: Any) -> Any:
    at = (stride, padding, dilation, groups)
    dx = _input_grad(g, conj(w), x._a.shape, *at) if needs[0] else None
    if needs[1]:
        dw = _weight_grad(conj(x), g, w._a.shape, *at, needs[2])
        return (dx, *dw) if needs[2] else (dx, dw, None)
    return dx, None, over_channels(g) if needs[2] else None


def over_channels(g: Tensor) -> Tensor:
    """The gradient of a bias: the sum over all but the channels."""
    return g.sum((0, *range(2, g._a.ndim)))


# Inside vmap: with one weight for all the examples' batches are put together; with a weight for each, see below.
def as_batch(t: Tensor) -> Tensor:
    """(B, N, C, ...) -> (B N, C, ...)."""
    return _merge(t)


def from_batch(t: Tensor, size: int) -> Tensor:
    """(B N, C, ...) -> (B, N, C, ...)."""
    return _split(t, size)


# Images stay laid out as they are, which a view of the user's would see. What is split is an operator's own result.
@primitive("merge_batch", view="one", vjp={"x": lambda g, x_shape: _split(g, x_shape[0])},
           batch=lambda b, x: x.reshape(b.size, x._a.shape[1] * x._a.shape[2], *x._a.shape[3:]))  # fmt: skip
def _merge(x: Any, /) -> Any:
    return x.reshape(x.shape[0] * x.shape[1], *x.shape[2:])


@primitive("split_batch", vjp={"x": lambda g: _merge(g)}, jvp="linear",
           batch=lambda b, x, size: x.reshape(b.size, size, x._a.shape[1] // max(1, size), *x._a.shape[2:]))  # fmt: skip
def _split(x: Any, /, size: Any) -> Any:
    return x.reshape(size, x.shape[0] // max(1, size), *x.shape[1:])


def as_groups(t: Tensor) -> Tensor:
    """(B, N, C, ...) -> (N, B C, ...)."""
    b, n, c = t._a.shape[:3]
    return t.movedim(0, 1).reshape(n, b * c, *t._a.shape[3:])


def from_groups(t: Tensor, size: int) -> Tensor:
    """(N, B C, ...) -> (B, N, C, ...)."""
    n, c = t._a.shape[:2]
    return t.reshape(n, size, c // size, *t._a.shape[2:]).movedim(1, 0)


def _shared_weight(b: Any, op: Any, x: Tensor, w: Tensor, bias: Any, channels: int) -> Tensor:
    """A convolution of either kind, ``op(x, w, bias)``, with one weight and perhaps a bias for each example."""
    if b.has("b"):
        y = op(as_batch(x), w, None) if b.has("x") else op(x, w, None)
        y = from_batch(y, b.size) if b.has("x") else y.unsqueeze(0)
        return y + bias.reshape(b.size, 1, channels, *(1,) * (y._a.ndim - 3))
    return from_batch(op(as_batch(x), w, bias), b.size)


def full(info: Any, name: str, t: Any) -> Any:
    return None if t is None else info.full(t, info.has(name))


def _convolution_batch(batch: Any, x: Tensor, w: Tensor, b: Any, stride: Any, padding: Any, dilation: Any, groups: Any) -> Tensor:
    at = (stride, padding, dilation, groups)
    if not batch.has("w"):
        return _shared_weight(batch, lambda x, w, b: _convolution(x, w, b, *at), x, w, b, w._a.shape[0])
    return _convolution_each(full(batch, "x", x), w, full(batch, "b", b), *at)


def _sum(parts: list[Any]) -> Any:
    return sum(parts[1:], parts[0]) if parts else None


def _convolution_jvp(x: Any, x_t: Any, w: Any, w_t: Any, b_t: Any, stride: Any, padding: Any, dilation: Any, groups: Any) -> Any:
    at = (stride, padding, dilation, groups)
    parts = [] if x_t is None else [_convolution(x_t, w, None, *at)]
    if w_t is not None:
        return _sum([*parts, _convolution(x, w_t, b_t, *at)])
    if b_t is not None:
        parts.append(b_t.reshape(-1, *(1,) * (x._a.ndim - 2)))
    return _sum(parts)


@primitive("convolution", vjp=_convolution_grads, jvp=_convolution_jvp, batch=_convolution_batch)
def _convolution(x: Any, w: Any, b: Any, /, stride: Any, padding: Any, dilation: Any, groups: Any) -> Any:
    return laid(kernels.conv(x, w, b, stride, padding, dilation, groups))


def _input_grad_batch(b: Any, g_: Tensor, w: Tensor, x_shape: Any, stride: Any, padding: Any, dilation: Any, groups: Any) -> Tensor:
    at = (stride, padding, dilation, groups)
    if not b.has("w"):
        return from_batch(_input_grad(as_batch(g_), w, (b.size * x_shape[0], *x_shape[1:]), *at), b.size)
    return _input_grad_each(full(b, "g_", g_), w, x_shape, *at)


@primitive(
    "convolution_input_grad",
    node="ConvolutionBackwardBackward0",
    jvp="each",
    batch=_input_grad_batch,
    vjp={
        "g_": lambda g, w, stride, padding, dilation, groups: _convolution(
            g, conj(w), None, stride, padding, dilation, groups
        ),
        "w": lambda g, g_, w_shape, stride, padding, dilation, groups: _weight_grad(
            g, conj(g_), w_shape, stride, padding, dilation, groups, False
        ),
    },
)
def _input_grad(g_: Any, w: Any, /, x_shape: Any, stride: Any, padding: Any, dilation: Any, groups: Any) -> Any:
    return laid(kernels.conv_input_grad(g_, w, x_shape, stride, padding, dilation, groups))


def _weight_grad_grads(g: Any, x: Any, g_: Any, stride: Any, padding: Any, dilation: Any, groups: Any, needs: Any) -> Any:
    at = (stride, padding, dilation, groups)
    gw, gb = g if g.__class__ is tuple else (g, None)
    return (
        _input_grad(conj(g_), gw, x._a.shape, *at) if needs[0] else None,
        _convolution(conj(x), gw, gb, *at) if needs[1] else None,
    )


def _weight_grad_batch(
    b: Any, x: Tensor, g_: Tensor, w_shape: Any, stride: Any, padding: Any, dilation: Any, groups: Any, bias: Any
) -> Any:
    return _weight_grad_each(full(b, "x", x), full(b, "g_", g_), w_shape, stride, padding, dilation, groups, bias)


def _weight_grad_jvp(
    x: Any, x_t: Any, g_: Any, g__t: Any, w_shape: Any, stride: Any, padding: Any, dilation: Any, groups: Any, bias: Any
) -> Any:
    at = (w_shape, stride, padding, dilation, groups)
    parts = [_weight_grad(p, q, *at, False) for p, q in ((x_t, g_), (x, g__t)) if p is not None and q is not None]
    total = _sum(parts)
    return (total, None if g__t is None else over_channels(g__t)) if bias else total


@primitive(
    "convolution_weight_grad", node="ConvolutionBackwardBackward0", vjp=_weight_grad_grads, jvp=_weight_grad_jvp, batch=_weight_grad_batch
)
def _weight_grad(x: Any, g_: Any, /, w_shape: Any, stride: Any, padding: Any, dilation: Any, groups: Any, bias: Any) -> Any:
    return kernels.conv_weight_grad(x, g_, w_shape, stride, padding, dilation, groups, bias)


def _transposed_grads(g: Any, x: Any, w: Any, stride: Any, padding: Any, dilation: Any, groups: Any, needs: Any) -> Any:
    at = (stride, padding, dilation, groups)
    return (
        _convolution(g, conj(w), None, *at) if needs[0] else None,
        _weight_grad(g, conj(x), w._a.shape, *at, False) if needs[1] else None,
        over_channels(g) if needs[2] else None,
    )


def _transposed_batch(
    batch: Any, x: Tensor, w: Tensor, b: Any, stride: Any, padding: Any, dilation: Any, groups: Any, out_shape: Any
) -> Tensor:
    at = (stride, padding, dilation)
    if not batch.has("w"):
        op = lambda x, w, b: _transposed(x, w, b, *at, groups, (x._a.shape[0], *out_shape[1:]))  # noqa: E731
        return _shared_weight(batch, op, x, w, b, out_shape[1])
    # the examples are groups
    shape = (out_shape[0], batch.size * out_shape[1], *out_shape[2:])
    bias = None if b is None else full(batch, "b", b).reshape(-1)
    y = _transposed(as_groups(full(batch, "x", x)), w.reshape(-1, *w._a.shape[2:]), bias, *at, groups * batch.size, shape)
    return from_groups(y, batch.size)


def _transposed_jvp(
    x: Any, x_t: Any, w: Any, w_t: Any, b_t: Any, stride: Any, padding: Any, dilation: Any, groups: Any, out_shape: Any
) -> Any:
    at = (stride, padding, dilation, groups, out_shape)
    parts = [_transposed(p, q, None, *at) for p, q in ((x_t, w), (x, w_t)) if p is not None and q is not None]
    if b_t is not None:
        parts.append(b_t.reshape(-1, *(1,) * (x._a.ndim - 2)))
    return _sum(parts)


@primitive("convolution_transposed", node="ConvolutionBackward0", vjp=_transposed_grads, jvp=_transposed_jvp, batch=_transposed_batch)
def _transposed(x: Any, w: Any, b: Any, /, stride: Any, padding: Any, dilation: Any, groups: Any, out_shape: Any) -> Any:
    out = kernels.conv_input_grad(x, w, out_shape, stride, padding, dilation, groups)
    if b is not None:
        out += b.reshape(-1, *(1,) * (x.ndim - 2))
    return laid(out)


# ---- the three, with a weight for each example -------------------------------------------------------------------------
# Inside vmap: (B, N, C, ...) with (B, O, C/groups, ...). One weight expanded over the batch, as it is where gradients for
# each example are asked for, makes one convolution of all the examples; else the examples are groups.
def _merged(a: np.ndarray) -> np.ndarray:
    return a.reshape(a.shape[0] * a.shape[1], *a.shape[2:])


def _grouped(a: np.ndarray) -> np.ndarray:
    return _merged(a.swapaxes(0, 1).reshape(a.shape[1], 1, a.shape[0] * a.shape[2], *a.shape[3:]))


def _ungrouped(a: np.ndarray, size: int) -> np.ndarray:
    a = a.reshape(a.shape[0], size, a.shape[1] // max(1, size), *a.shape[2:]).swapaxes(0, 1)
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(a, 2, -1)), -1, 2) if a.ndim > 4 else np.ascontiguousarray(a)


def _each_grads(g: Any, x: Any, w: Any, stride: Any, padding: Any, dilation: Any, groups: Any, needs: Any) -> Any:
    at = (stride, padding, dilation, groups)
    dx = _input_grad_each(g, conj(w), x._a.shape[1:], *at) if needs[0] else None
    if needs[1]:
        dw = _weight_grad_each(conj(x), g, w._a.shape[1:], *at, needs[2])
        return (dx, *dw) if needs[2] else (dx, dw, None)
    return dx, None, over_channels_each(g) if needs[2] else None


def over_channels_each(g: Tensor) -> Tensor:
    return g.sum((1, *range(3, g._a.ndim)))


def _each_jvp(x: Any, x_t: Any, w: Any, w_t: Any, b_t: Any, stride: Any, padding: Any, dilation: Any, groups: Any) -> Any:
    at = (stride, padding, dilation, groups)
    parts = [_convolution_each(p, q, None, *at) for p, q in ((x_t, w), (x, w_t)) if p is not None and q is not None]
    if b_t is not None:
        parts.append(b_t.reshape(b_t._a.shape[0], 1, -1, *(1,) * (x._a.ndim - 3)))
    return _sum(parts)


@primitive(
    "convolution_each", node="ConvolutionBackward0", vjp=_each_grads, jvp=_each_jvp,
    batch=lambda batch, x, w, b, stride, padding, dilation, groups: folded(
        batch, lambda *ts: _convolution_each(*ts, stride, padding, dilation, groups), ("x", x), ("w", w), ("b", b)
    ),
)  # fmt: skip
def _convolution_each(x: Any, w: Any, b: Any, /, stride: Any, padding: Any, dilation: Any, groups: Any) -> Any:
    size, n = x.shape[:2]
    at = (stride, padding, dilation)
    if of_all(w) and of_all(b):
        y = laid(kernels.conv(_merged(x), w[0], None if b is None else b[0], *at, groups))
        return y.reshape(size, n, *y.shape[1:])
    bias = None if b is None else b.reshape(-1)
    if of_all(x) and groups == 1:  # one input: more channels
        return _ungrouped(kernels.conv(x[0], _merged(w), bias, *at, 1), size)
    return _ungrouped(kernels.conv(_grouped(x), _merged(w), bias, *at, groups * size), size)


@primitive(
    "convolution_input_grad_each", node="ConvolutionBackwardBackward0", jvp="each",
    vjp={
        "g_": lambda g, w, stride, padding, dilation, groups: _convolution_each(g, conj(w), None, stride, padding, dilation, groups),
        "w": lambda g, g_, w_shape, stride, padding, dilation, groups: _weight_grad_each(
            g, conj(g_), w_shape[1:], stride, padding, dilation, groups, False
        ),
    },
    batch=lambda batch, g_, w, x_shape, stride, padding, dilation, groups: folded(
        batch, lambda *ts: _input_grad_each(*ts, x_shape, stride, padding, dilation, groups), ("g_", g_), ("w", w)
    ),
)  # fmt: skip
def _input_grad_each(g_: Any, w: Any, /, x_shape: Any, stride: Any, padding: Any, dilation: Any, groups: Any) -> Any:
    size = g_.shape[0]
    at = (stride, padding, dilation)
    if of_all(w):
        whole = (size * x_shape[0], *x_shape[1:])
        return laid(kernels.conv_input_grad(_merged(g_), w[0], whole, *at, groups)).reshape(size, *x_shape)
    wide = (x_shape[0], size * x_shape[1], *x_shape[2:])
    return _ungrouped(kernels.conv_input_grad(_grouped(g_), _merged(w), wide, *at, groups * size), size)


def _weight_grad_each_grads(g: Any, x: Any, g_: Any, stride: Any, padding: Any, dilation: Any, groups: Any, needs: Any) -> Any:
    at = (stride, padding, dilation, groups)
    gw, gb = g if g.__class__ is tuple else (g, None)
    return (
        _input_grad_each(conj(g_), gw, x._a.shape[1:], *at) if needs[0] else None,
        _convolution_each(conj(x), gw, gb, *at) if needs[1] else None,
    )


def _weight_grad_each_jvp(
    x: Any, x_t: Any, g_: Any, g__t: Any, w_shape: Any, stride: Any, padding: Any, dilation: Any, groups: Any, bias: Any
) -> Any:
    at = (w_shape, stride, padding, dilation, groups)
    total = _sum([_weight_grad_each(p, q, *at, False) for p, q in ((x_t, g_), (x, g__t)) if p is not None and q is not None])
    return (total, None if g__t is None else over_channels_each(g__t)) if bias else total


@primitive(
    "convolution_weight_grad_each", node="ConvolutionBackwardBackward0", vjp=_weight_grad_each_grads, jvp=_weight_grad_each_jvp,
    batch=lambda batch, x, g_, w_shape, stride, padding, dilation, groups, bias: folded(
        batch, lambda *ts: _weight_grad_each(*ts, w_shape, stride, padding, dilation, groups, bias), ("x", x), ("g_", g_)
    ),
)  # fmt: skip
def _weight_grad_each(x: Any, g_: Any, /, w_shape: Any, stride: Any, padding: Any, dilation: Any, groups: Any, bias: Any) -> Any:
    size = x.shape[0]
    wide = (size * w_shape[0], *w_shape[1:])
    out = kernels.conv_weight_grad(_grouped(x), _grouped(g_), wide, stride, padding, dilation, groups * size, bias)
    if not bias:
        return out.reshape(size, *w_shape)
    return out[0].reshape(size, *w_shape), out[1].reshape(size, w_shape[0])


# ---- what users give ----------------------------------------------------------------------------------------------------
def expand(value: Any, rank: int, what: str) -> tuple[int, ...]:
    """One integer, or one a dimension, as a tuple."""
    if value.__class__ is int:
        return (value,) * rank
    if isinstance(value, (int, np.integer)):
        return (int(value),) * rank
    value = tuple([int(v) for v in value])
    if len(value) == 1:
        return value * rank
    if len(value) != rank:
        raise error(
            RuntimeError,
            f"expected {what} to be a single integer value or a list of {rank} values to match the convolution dimensions, "
            f"but got {what}={list(value)}",
        )
    return value


def as_key(value: Any) -> Any:
    return value if value.__class__ in (int, str, tuple) else int(value) if isinstance(value, np.integer) else tuple(value)


@lru_cache(4096)
def geometry(
    x: tuple[int, ...], w: tuple[int, ...], b: tuple[int, ...] | None, stride: Any, padding: Any, dilation: Any, groups: int
) -> tuple[tuple[int, ...], Pairs, tuple[int, ...]]:
    """Stride, padding as pairs, dilation; RuntimeError, in PyTorch's words, for shapes that don't fit."""
    rank = len(w) - 2
    stride, dilation = expand(stride, rank, "stride"), expand(dilation, rank, "dilation")
    pairs = pad_pairs(padding, w, stride, dilation)
    check_positive(stride, pairs, dilation, groups)
    check_ranks(x, w)
    if w[0] < groups:
        raise error(
            RuntimeError,
            f"Given groups={groups}, expected weight to be at least {groups} at dimension 0, but got weight of size {list(w)} instead",
        )
    if w[0] % groups:
        raise error(
            RuntimeError,
            f"Given groups={groups}, expected weight to be divisible by {groups} at dimension 0, but got weight of size "
            f"[{list(w)}] instead",
        )
    if x[1] != w[1] * groups:
        raise error(
            RuntimeError,
            f"Given groups={groups}, weight of size {list(w)}, expected input{list(x)} to have {w[1] * groups} channels, but "
            f"got {x[1]} channels instead",
            hint="Dimension 1 of a batch (N, C, ...) holds the channels: is a permute or an unsqueeze missing?",
        )
    if b is not None and b != (w[0],):
        raise error(
            RuntimeError,
            f"Given weight of size {list(w)}, expected bias to be 1-dimensional with {w[0]} elements, but got bias of size "
            f"{list(b)} instead",
        )
    check_sizes(x, w)
    padded = [n + before + after for n, (before, after) in zip(x[2:], pairs)]
    reach = [d * (k - 1) + 1 for k, d in zip(w[2:], dilation)]
    if any(n < r for n, r in zip(padded, reach)):
        raise error(
            RuntimeError,
            f"Calculated padded input size per channel: ({' x '.join(map(str, padded))}). Kernel size: "
            f"({' x '.join(map(str, reach))}). Kernel size can't be greater than actual input size",
        )
    return stride, pairs, dilation


def pad_pairs(padding: Any, w: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...]) -> Pairs:
    rank = len(w) - 2
    if padding.__class__ is not str:
        return tuple([(p, p) for p in expand(padding, rank, "padding")])
    if padding == "valid":
        return ((0, 0),) * rank
    if padding != "same":
        raise error(RuntimeError, f"Invalid padding string: '{padding}'")
    if any(s != 1 for s in stride):
        raise error(RuntimeError, "padding='same' is not supported for strided convolutions")
    total = [d * (k - 1) for k, d in zip(w[2:], dilation)]
    return tuple([(t // 2, t - t // 2) for t in total])


def check_positive(stride: Any, pairs: Pairs, dilation: Any, groups: int) -> None:
    if any(p < 0 for pair in pairs for p in pair):
        raise error(RuntimeError, "negative padding is not supported")
    if any(s <= 0 for s in stride):
        raise error(RuntimeError, "non-positive stride is not supported")
    if any(d <= 0 for d in dilation):
        raise error(RuntimeError, f"dilation should be greater than zero, but got {list(dilation)}")
    if groups <= 0:
        raise error(RuntimeError, "non-positive groups is not supported")


def check_ranks(x: tuple[int, ...], w: tuple[int, ...]) -> None:
    if len(x) != len(w):
        raise error(
            RuntimeError,
            f"Expected {len(w)}-dimensional input for {len(w)}-dimensional weight {list(w)}, but got {len(x)}-dimensional input "
            f"of size {list(x)} instead",
        )


def check_sizes(x: tuple[int, ...], w: tuple[int, ...]) -> None:
    if 0 in w[2:]:
        names = ("kernel_depth", "kernel_height", "kernel_width")[5 - len(w) :]
        said = " ".join(f"{name}: {n}" for name, n in zip(names, w[2:]))
        raise error(RuntimeError, f"kernel size should be greater than zero, but got {said}")
    if 0 in x[2:]:
        raise error(RuntimeError, f"Only zero batch or zero channel inputs are supported, but got input shape: {list(x)}")


@lru_cache(4096)
def transposed_geometry(
    x: tuple[int, ...], w: tuple[int, ...], b: Any, stride: Any, padding: Any, extra: Any, dilation: Any, groups: int
) -> tuple[tuple[int, ...], Pairs, tuple[int, ...], tuple[int, ...]]:
    """As ``geometry`` for a transposed convolution; and the output's shape."""
    rank = len(w) - 2
    stride, dilation = expand(stride, rank, "stride"), expand(dilation, rank, "dilation")
    pad, extra = expand(padding, rank, "padding"), expand(extra, rank, "output_padding")
    check_positive(stride, tuple([(p, p) for p in pad]), dilation, groups)
    if any(e < 0 for e in extra):
        raise error(RuntimeError, "negative output_padding is not supported")
    check_ranks(x, w)
    if w[0] < groups:
        raise error(
            RuntimeError,
            f"Given groups={groups}, expected weight to be at least {groups} at dimension 0, but got weight of size {list(w)} instead",
        )
    if w[0] % groups:
        raise error(
            RuntimeError,
            f"Given groups={groups}, expected weight to be divisible by {groups} at dimension 0, but got weight of size "
            f"[{list(w)}] instead",
        )
    if x[1] != w[0]:
        raise error(
            RuntimeError,
            f"Given transposed=1, weight of size {list(w)}, expected input{list(x)} to have {w[0]} channels, but got {x[1]} "
            "channels instead",
        )
    if b is not None and b != (w[1] * groups,):
        raise error(
            RuntimeError,
            f"Given transposed=1, weight of size {list(w)}, expected bias to be 1-dimensional with {w[1] * groups} elements, but "
            f"got bias of size {list(b)} instead",
        )
    check_sizes(x, w)
    if any(e >= s and e >= d for e, s, d in zip(extra, stride, dilation)):
        names = ("depth", "height", "width")[3 - rank :]
        said = [f"{what}_{n}: {v}" for what, vs in (("output_padding", extra), ("stride", stride), ("dilation", dilation))
                for n, v in zip(names, vs)]
        raise error(
            RuntimeError, "output padding must be smaller than either stride or dilation, but got " + " ".join(said)
        )
    size = [(n - 1) * s - 2 * p + d * (k - 1) + e + 1 for n, s, p, d, k, e in zip(x[2:], stride, pad, dilation, w[2:], extra)]
    if any(n <= 0 for n in size):
        raise error(
            RuntimeError,
            f"Given input size per channel: ({' x '.join(map(str, x[2:]))}). Calculated output size per channel: "
            f"({' x '.join(map(str, size))}). Output size is too small",
        )
    # What is added at the far side belongs to no window.
    pairs = tuple([(p, p - e) for p, e in zip(pad, extra)])
    return stride, pairs, dilation, (x[0], w[1] * groups, *size)


def check_operands(name: str, rank: int, x: Any, w: Any, b: Any) -> None:
    for what, t in (("input", x), ("weight", w), ("bias", b)):
        if not isinstance(t, Tensor) and not (t is None and what == "bias"):
            given = ", ".join(type(v).__name__ if not isinstance(v, Tensor) else "Tensor" for v in (x, w))
            raise error(
                TypeError,
                f"{name}() received an invalid combination of arguments - got ({given}), but expected one of:\n"
                " * (Tensor input, Tensor weight, Tensor bias = None, tuple of ints stride = 1, tuple of ints padding = 0, "
                "tuple of ints dilation = 1, int groups = 1)",
                hint=f"The {what} must be a tensor.",
            )
    n = x._a.ndim
    if n != rank + 2 and n != rank + 1:
        raise error(
            RuntimeError,
            f"Expected {rank + 1}D (unbatched) or {rank + 2}D (batched) input to {name}, but got input of size: {list(x._a.shape)}",
        )
    if b is not None and b._a.dtype != x._a.dtype:
        raise error(
            RuntimeError, f"Input type ({C_NAMES[x.dtype]}) and bias type ({C_NAMES[b.dtype]}) should be the same"
        )
    if w._a.dtype != x._a.dtype:
        raise error(
            RuntimeError,
            f"expected scalar type {SCALAR_NAMES[x.dtype]} but found {SCALAR_NAMES[w.dtype]}",
            hint=f"The input is {x.dtype}, the weight {w.dtype}: convert one of them.",
        )


def follow_format(x: Tensor, out: Tensor) -> Tensor:
    """The result of a tensor whose user chose channels-last is the user's channels-last too."""
    if x.__dict__.get("_channels_last") and out._a.ndim > 3:
        out.__dict__["_channels_last"] = True
    return out


# ---- public functions ----------------------------------------------------------------------------------------------------
def _conv(name: str, rank: int, x: Any, w: Any, b: Any, stride: Any, padding: Any, dilation: Any, groups: int) -> Tensor:
    check_operands(name, rank, x, w, b)
    shape = x._a.shape
    unbatched = len(shape) == rank + 1
    if unbatched:
        x = x.unsqueeze(0)
        shape = (1, *shape)
    if w._a.ndim != rank + 2:
        stride = expand(stride, rank, "stride")
    if x._a.dtype.kind == "b":
        takes("slow_conv2d_cpu", x, "ihfc")
    stride, pairs, dilation = geometry(
        shape, w._a.shape, None if b is None else b._a.shape, as_key(stride), as_key(padding), as_key(dilation), groups
    )
    out = _convolution(x, w, b, stride, pairs, dilation, groups)
    if unbatched:
        return out.squeeze(0)
    return follow_format(x, out) if rank > 1 and x.__dict__ else out


def _conv_transpose(
    name: str, rank: int, x: Any, w: Any, b: Any, stride: Any, padding: Any, extra: Any, groups: int, dilation: Any
) -> Tensor:
    check_operands(name, rank, x, w, b)
    if x._a.dtype != np.int64:
        takes(f"slow_conv_transpose{max(rank, 2)}d_out_cpu", x, "hfc")
    unbatched = x._a.ndim == rank + 1
    if unbatched:
        x = x.unsqueeze(0)
    stride, pairs, dilation, shape = transposed_geometry(
        x._a.shape, w._a.shape, None if b is None else b._a.shape, as_key(stride), as_key(padding), as_key(extra),
        as_key(dilation), groups,
    )  # fmt: skip
    out = _transposed(x, w, b, stride, pairs, dilation, groups, shape)
    if unbatched:
        return out.squeeze(0)
    return follow_format(x, out) if rank > 1 and x.__dict__ else out


def conv1d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> Tensor:
    """Cross-correlation of (N, C, L) or (C, L) with (O, C/groups, K): ``out[o, t] = bias[o] + sum w[o, c, k] x[c, s t + d k - p]``.

    ``padding`` may be "valid" or "same". RuntimeError for shapes that don't fit.

    >>> import flambeau as torch
    >>> torch.conv1d(torch.tensor([[[1., 2., 3.]]]), torch.tensor([[[1., 1.]]]))
    tensor([[[3., 5.]]])
    """
    return _conv("conv1d", 1, input, weight, bias, stride, padding, dilation, groups)


def conv2d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> Tensor:
    """Cross-correlation of images (N, C, H, W) or (C, H, W) with filters (O, C/groups, KH, KW).

    >>> import flambeau as torch
    >>> torch.conv2d(torch.ones(1, 1, 3, 3), torch.ones(1, 1, 2, 2)).shape
    torch.Size([1, 1, 2, 2])
    """
    return _conv("conv2d", 2, input, weight, bias, stride, padding, dilation, groups)


def conv3d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> Tensor:
    """Cross-correlation of volumes (N, C, D, H, W) or (C, D, H, W) with filters (O, C/groups, KD, KH, KW)."""
    return _conv("conv3d", 3, input, weight, bias, stride, padding, dilation, groups)


def conv_transpose1d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0, output_padding: Any = 0,
    groups: int = 1, dilation: Any = 1,
) -> Tensor:  # fmt: skip
    """The transpose of the linear map ``conv1d``, of (N, C, L) with (C, O/groups, K): each input spreads over K outputs."""
    return _conv_transpose("conv_transpose1d", 1, input, weight, bias, stride, padding, output_padding, groups, dilation)


def conv_transpose2d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0, output_padding: Any = 0,
    groups: int = 1, dilation: Any = 1,
) -> Tensor:  # fmt: skip
    """The transpose of the linear map ``conv2d``, of (N, C, H, W) with (C, O/groups, KH, KW).

    >>> import flambeau as torch
    >>> torch.conv_transpose2d(torch.ones(1, 1, 2, 2), torch.ones(1, 1, 2, 2), stride=2).shape
    torch.Size([1, 1, 4, 4])
    """
    return _conv_transpose("conv_transpose2d", 2, input, weight, bias, stride, padding, output_padding, groups, dilation)


def conv_transpose3d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0, output_padding: Any = 0,
    groups: int = 1, dilation: Any = 1,
) -> Tensor:  # fmt: skip
    """The transpose of the linear map ``conv3d``, of (N, C, D, H, W) with (C, O/groups, KD, KH, KW)."""
    return _conv_transpose("conv_transpose3d", 3, input, weight, bias, stride, padding, output_padding, groups, dilation)


def convolution(
    input: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any, dilation: Any, transposed: bool,
    output_padding: Any, groups: int,
) -> Tensor:  # fmt: skip
    """Every convolution in one function: the rank is the weight's."""
    rank = weight._a.ndim - 2
    if transposed:
        return _conv_transpose("convolution", rank, input, weight, bias, stride, padding, output_padding, groups, dilation)
    return _conv("convolution", rank, input, weight, bias, stride, padding, dilation, groups)


def conv_tbc(input: Tensor, weight: Tensor, bias: Tensor, pad: int = 0) -> Tensor:
    """Convolution of sequences (time, batch, channels) with a weight (K, channels, out)."""
    out = conv1d(input.permute(1, 2, 0), weight.permute(2, 1, 0), bias, padding=pad)
    return out.permute(2, 0, 1)


for _f in (conv1d, conv2d, conv3d, conv_transpose1d, conv_transpose2d, conv_transpose3d, conv_tbc):
    publish(_f.__name__, _f)
    publish(_f.__name__, _f, "nn.functional")
publish("convolution", convolution)
