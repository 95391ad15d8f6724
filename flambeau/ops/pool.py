"""Pooling: maxima and means over windows.

Maxima remember where they came from, so their gradient is a linear map that puts values back, and its own derivative
takes values from the same places. Means are linear maps whose transposes are written out.
"""

from __future__ import annotations

import inspect
from math import prod
from typing import Any

import numpy as np

from ..autograd.primitive import primitive
from ..core.dtypes import SCALAR_NAMES
from ..core.errors import error
from ..core.tensor import Tensor
from ..kernels import pool as kernels
from ..kernels.windows import output_size
from .conv import as_batch, from_batch
from .public import publish

ORDINAL = {1: "one", 2: "two", 3: "three"}


def batched(x: np.ndarray, rank: int) -> np.ndarray:
    return x if x.ndim == rank + 2 else x[None]


def laid(r: np.ndarray, ndim: int) -> np.ndarray:
    """A kernel's (N, C, *S) result for an input of ``ndim`` dimensions: in C order unless it is a batch of images."""
    if r.ndim != ndim:
        r = r[0]
    return r if r.ndim > 3 else np.ascontiguousarray(r)


def folding(op: Any, kernel: Any) -> Any:
    """The batching rule of an operator on (N, C, *S) or (C, *S): examples go into N, or are it. ``op()`` gives it."""
    names = list(inspect.signature(kernel).parameters)

    def rule(b: Any, *values: Any) -> Any:
        v = dict(zip(names, values))
        rank, merged = v["rank"], False
        for name in names:
            t = v[name]
            if isinstance(t, Tensor):
                t = b.full(t, b.has(name))
                if t._a.ndim == rank + 3:
                    merged = merged or name in ("x", "g_")
                    t = as_batch(t)
                v[name] = t
        if "x_shape" in v:
            s = v["x_shape"]
            v["x_shape"] = (b.size * s[0], *s[1:]) if len(s) == rank + 2 else (b.size, *s)
        if "samples" in v:
            v["samples"] = np.concatenate([v["samples"]] * b.size)
        out = op()(*v.values())
        if not merged:
            return out
        apart = [from_batch(o, b.size) for o in (out if out.__class__ is tuple else (out,))]
        return tuple(apart) if out.__class__ is tuple else apart[0]

    rule.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter(n, inspect.Parameter.POSITIONAL_OR_KEYWORD) for n in ("b", *names)]
    )
    return rule


# ---- maxima ---------------------------------------------------------------------------------------------------------------
def _max_back(g: Any, positions: Any, x_shape: Any, rank: Any, window: Any, ceil: Any) -> Any:
    return _max_pool_grad(g[0] if g.__class__ is tuple else g, positions, x_shape, rank, window)


def _positions(x: np.ndarray, rank: int, window: Any, ceil: bool) -> tuple[np.ndarray, np.ndarray]:
    return kernels.max_pool_positions(batched(x, rank), *window, ceil)


def _max_pool(x: Any, /, rank: Any, window: Any, ceil: Any) -> Any:
    out, positions = _positions(x, rank, window, ceil)
    return laid(out, x.ndim), positions


def _max_pool_with_indices(x: Any, /, rank: Any, window: Any, ceil: Any) -> Any:
    out, positions = _positions(x, rank, window, ceil)
    indices = kernels.indices_of(positions, batched(x, rank).shape, *window)
    return laid(out, x.ndim), np.ascontiguousarray(laid(indices, x.ndim)), positions


def _names(rank: int) -> str:
    return f"MaxPool{max(rank, 2)}DWithIndicesBackward0"


def _declare(name: str, table: dict[int, Any], kernel: Any, node: Any, **how: Any) -> dict[int, Any]:
    """One operator a rank."""
    for r in (1, 2, 3):
        batch = folding(lambda r=r: table[r], kernel)
        table[r] = primitive(name.format(r), node=node(r), batch=batch, **how)(kernel)
    return table


MAX: dict[int, Any] = {}
MAX_INDICES: dict[int, Any] = {}
_MAX_RULES = {"vjp": {"x": _max_back}, "aux": ("positions",)}
_declare("max_pool{}d", MAX, _max_pool, _names, **_MAX_RULES)
_declare("max_pool{}d_with_indices", MAX_INDICES, _max_pool_with_indices, _names, **_MAX_RULES)


@primitive(
    "max_pool_grad",
    node="MaxPoolBackwardBackward0",
    vjp={"g_": lambda g, positions, x_shape, rank, window: _max_take(g, positions, rank, window)},
    jvp=lambda g__t, positions, x_shape, rank, window: _max_pool_grad(g__t, positions, x_shape, rank, window),
)
def _max_pool_grad(g_: Any, positions: Any, /, x_shape: Any, rank: Any, window: Any) -> Any:
    shape = x_shape if len(x_shape) == rank + 2 else (1, *x_shape)
    return laid(kernels.max_pool_positions_grad(batched(g_, rank), positions, shape, *window), len(x_shape))


@primitive(
    "max_pool_take",
    node="MaxPoolBackwardBackward0",
    vjp={"x": lambda g, positions, x_shape, rank, window: _max_pool_grad(g, positions, x_shape, rank, window)},
    jvp=lambda x_t, positions, rank, window: _max_take(x_t, positions, rank, window),
)
def _max_take(x: Any, positions: Any, /, rank: Any, window: Any) -> Any:
    full = batched(x, rank)
    r = take(full, kernels.indices_of(positions, full.shape, *window))
    return r if r.ndim == x.ndim else r[0]


def take(x: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """The values of each plane of (N, C, *S) at indices into the flattened plane."""
    planes = x.reshape(*x.shape[:2], prod(x.shape[2:]))
    found = np.take_along_axis(planes, indices.reshape(*x.shape[:2], prod(indices.shape[2:])), 2)
    return found.reshape(indices.shape)


@primitive(
    "pool_scatter",
    node="MaxPoolBackwardBackward0",
    vjp={"g_": lambda g, indices, rank: _gather(g, indices, rank)},
    jvp=lambda g__t, indices, x_shape, rank: _scatter(g__t, indices, x_shape, rank),
)
def _scatter(g_: Any, indices: Any, /, x_shape: Any, rank: Any) -> Any:
    shape = x_shape if len(x_shape) == rank + 2 else (1, *x_shape)
    return kernels.max_pool_grad(batched(g_, rank), batched(indices, rank), shape).reshape(x_shape)


@primitive(
    "pool_gather",
    node="MaxPoolBackwardBackward0",
    vjp={"x": lambda g, indices, x_shape, rank: _scatter(g, indices, x_shape, rank)},
    jvp=lambda x_t, indices, rank: _gather(x_t, indices, rank),
)
def _gather(x: Any, indices: Any, /, rank: Any) -> Any:
    return take(batched(x, rank), batched(indices, rank)).reshape(indices.shape)


def _pooled(kernel: Any, nodes: str) -> dict[int, Any]:
    """Operators that return (values, indices) and whose gradient goes back to the indices, one a rank."""

    def back(g: Any, places: Any, x_shape: Any, rank: Any) -> Any:
        return _scatter(g[0], places, x_shape, rank)

    def declare(r: int) -> Any:
        name = nodes.format(max(r, 2))
        batch = folding(lambda: table[r], kernel)
        return primitive(f"{name[:-9]}_{r}", node=name, vjp={"x": back}, aux=("places",), batch=batch)(kernel)

    table = {r: declare(r) for r in (1, 2, 3)}
    return table


def _adaptive_max(x: Any, /, rank: Any, size: Any) -> Any:
    out, indices = kernels.adaptive_max_pool(batched(x, rank), size)
    indices = np.ascontiguousarray(laid(indices, x.ndim))
    return laid(out, x.ndim), indices, indices


def _fractional_max(x: Any, /, rank: Any, kernel: Any, size: Any, samples: Any) -> Any:
    full = batched(x, rank)
    n, c, *space = full.shape
    shape = (n, c, *(s for o, k in zip(size, kernel) for s in (o, k)))
    flat = np.zeros(shape, np.int64)
    for d, (length, o, k) in enumerate(zip(space, size, kernel)):
        u = samples[:, :, d if rank == 3 else rank - 1 - d, None]
        if o > 1:
            alpha = x.dtype.type((length - k) / (o - 1))
            start = ((np.arange(o) + u) * alpha).astype(np.int64) - (u * alpha).astype(np.int64)
        else:
            start = np.zeros((n, c, 1), np.int64)
        start[..., -1] = length - k
        where = (start[..., None] + np.arange(k)) * prod(space[d + 1 :])
        flat += where.reshape(n, c, *(1,) * (2 * d), o, k, *(1,) * (2 * (rank - d - 1)))
    order = (0, 1, *range(2, 2 + 2 * rank, 2), *range(3, 3 + 2 * rank, 2))
    flat = flat.transpose(order).reshape(n, c, *size, -1)
    values = take(full, flat)
    best = np.argmax(np.where(values != values, np.inf, values), -1)[..., None]  # NaN wins
    pick = [np.take_along_axis(v, best, -1)[..., 0] for v in (values, flat)]
    values, indices = [p if p.ndim == x.ndim else p[0] for p in pick]
    return values, indices, indices


ADAPTIVE_MAX = _pooled(_adaptive_max, "AdaptiveMaxPool{}DBackward0")
FRACTIONAL = _pooled(_fractional_max, "FractionalMaxPool{}DBackward0")


def _unpool(x: Any, indices: Any, /, rank: Any, size: Any) -> Any:
    full, at = batched(x, rank), batched(indices, rank)
    n, c = full.shape[:2]
    out = np.zeros((n, c, prod(size)), x.dtype)
    m = prod(at.shape[2:])
    np.put_along_axis(out, at.reshape(n, c, m), full.reshape(n, c, m), 2)
    return out.reshape(*x.shape[: x.ndim - rank], *size)


UNPOOL = _declare(
    "max_unpool{}d", {}, _unpool, lambda r: f"MaxUnpool{max(r, 2)}DBackward0", vjp={"x": lambda g, indices, rank: _gather(g, indices, rank)},
    jvp=lambda x_t, indices, rank, size: UNPOOL[rank](x_t, indices, rank, size),
)  # fmt: skip


# ---- means ----------------------------------------------------------------------------------------------------------------
def _avg(x: Any, /, rank: Any, window: Any, ceil: Any, include: Any, divisor: Any) -> Any:
    return laid(kernels.avg_pool(batched(x, rank), *window, ceil, include, divisor), x.ndim)


def _avg_back(g: Any, x_shape: Any, rank: Any, window: Any, ceil: Any, include: Any, divisor: Any) -> Any:
    return _avg_grad(g, x_shape, rank, window, ceil, include, divisor)


AVG = _declare("avg_pool{}d", {}, _avg, lambda r: f"AvgPool{max(r, 2)}DBackward0", vjp={"x": _avg_back}, jvp="linear")


@primitive(
    "avg_pool_grad",
    node="AvgPoolBackwardBackward0",
    vjp={"g_": lambda g, rank, window, ceil, include, divisor: AVG[rank](g, rank, window, ceil, include, divisor)},
    jvp="linear",
)
def _avg_grad(g_: Any, /, x_shape: Any, rank: Any, window: Any, ceil: Any, include: Any, divisor: Any) -> Any:
    shape = x_shape if len(x_shape) == rank + 2 else (1, *x_shape)
    return laid(kernels.avg_pool_grad(batched(g_, rank), shape, *window, include, divisor), len(x_shape))


def _adaptive_avg(x: Any, /, rank: Any, size: Any) -> Any:
    return laid(kernels.adaptive_avg_pool(batched(x, rank), size), x.ndim)


ADAPTIVE_AVG = _declare(
    "adaptive_avg_pool{}d", {}, _adaptive_avg, lambda r: f"AdaptiveAvgPool{max(r, 2)}DBackward0", jvp="linear",
    vjp={"x": lambda g, x_shape, rank, size: _adaptive_avg_grad(g, x_shape, rank, size)},
)  # fmt: skip


@primitive(
    "adaptive_avg_pool_grad",
    node="AdaptiveAvgPoolBackwardBackward0",
    vjp={"g_": lambda g, rank, size: ADAPTIVE_AVG[rank](g, rank, size)},
    jvp="linear",
)
def _adaptive_avg_grad(g_: Any, /, x_shape: Any, rank: Any, size: Any) -> Any:
    shape = x_shape if len(x_shape) == rank + 2 else (1, *x_shape)
    return laid(kernels.adaptive_avg_pool_grad(batched(g_, rank), shape), len(x_shape))


for _op in (_max_pool_grad, _max_take, _scatter, _gather, _avg_grad, _adaptive_avg_grad):
    _op.batch = folding(lambda op=_op: op, _op.kernel)


# ---- what users give --------------------------------------------------------------------------------------------------------
def expand(name: str, what: str, value: Any, rank: int) -> tuple[int, ...]:
    """One integer, or one a dimension, as a tuple."""
    if isinstance(value, (int, np.integer)):
        return (int(value),) * rank
    value = tuple([int(v) for v in value])
    if len(value) == 1:
        return value * rank
    if len(value) != rank:
        raise error(
            RuntimeError,
            f"{name}: {what} must either be a single int, or a tuple of {ORDINAL[rank]} ints"
            if what != "stride" else f"{name}: stride must either be omitted, a single int, or a tuple of {ORDINAL[rank]} ints",
        )
    return value


def windows_of(name: str, x: Any, rank: int, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil: bool) -> Any:
    """(kernel, stride, padding, dilation), checked."""
    check_tensor(name, x)
    if x._a.ndim not in (rank + 1, rank + 2):
        raise _rank_error(name, x, rank)
    k = expand(name, "kernel_size", kernel, rank)
    s = k if stride is None or isinstance(stride, (tuple, list)) and not stride else expand(name, "stride", stride, rank)
    p, d = expand(name, "padding", padding, rank), expand(name, "dilation", dilation, rank)
    if any(v == 0 for v in s):
        raise error(RuntimeError, "stride should not be zero")
    if any(v <= 0 for v in k):
        raise error(RuntimeError, "kernel size should be greater than zero, but got " + " ".join(map(str, k)))
    if any(v <= 0 for v in s):
        raise error(RuntimeError, "stride should be greater than zero, but got " + " ".join(map(str, s)))
    if any(v <= 0 for v in d):
        raise error(RuntimeError, "dilation should be greater than zero, but got " + " ".join(map(str, d)))
    for pad, size, step in zip(p, k, d):
        if pad < 0:
            raise error(RuntimeError, f"pad must be non-negative, but got pad: {pad}")
        if pad > ((size - 1) * step + 1) // 2:
            if rank == 1 and name == "max_pool1d":
                raise error(RuntimeError, "max_pool1d() padding should be at most half of kernel size, but got "
                            f"padding={pad} and kernel_size={size}")
            raise error(
                RuntimeError,
                f"pad should be at most half of effective kernel size, but got pad={pad}, kernel_size={size} and dilation={step}",
            )
    space = x._a.shape[-rank:]
    out = [output_size(n, kk, ss, (pp, pp), dd, ceil) for n, kk, ss, pp, dd in zip(space, k, s, p, d)]
    if any(n <= 0 for n in out):
        if rank == 1 and name == "max_pool1d":
            raise error(RuntimeError, f"max_pool1d() Invalid computed output size: {out[0]}")
        channels = x._a.shape[-rank - 1]
        lead = "1x" if rank == 1 else ""
        raise error(
            RuntimeError,
            f"Given input size: ({channels}x{lead}{'x'.join(map(str, space))}). Calculated output size: "
            f"({channels}x{lead}{'x'.join(map(str, out))}). Output size is too small",
        )
    return k, s, p, d


def check_tensor(name: str, x: Any) -> None:
    if not isinstance(x, Tensor):
        raise error(TypeError, f"{name}(): argument 'input' (position 1) must be Tensor, not {type(x).__name__}")


def _rank_error(name: str, x: Tensor, rank: int) -> BaseException:
    shape = list(x._a.shape)
    if name == "max_pool1d":
        return error(RuntimeError, "max_pool1d: Expected 2D or 3D (batch mode) tensor with optional 0 dim batch size for input, "
                     f"but got:{shape}")
    if rank == 1:
        return error(RuntimeError, f"Expected 2 to 3 dimensions, but got {len(shape)}-dimensional tensor for argument #1 'self' "
                     f"(while checking arguments for {name})")
    if name == "avg_pool2d" and len(shape) < 3:
        return error(IndexError, f"Dimension out of range (expected to be in range of [-{len(shape)}, {len(shape) - 1}], but got -3)")
    return error(RuntimeError, f"non-empty {rank + 1}D or {rank + 2}D (batch mode) tensor expected for input")


def check_elements(x: Tensor, rank: int) -> None:
    """Only the batch may be empty."""
    shape = x._a.shape
    if 0 in shape[-rank - 1 :]:
        raise error(RuntimeError, f"Expected {rank + 1}D or {rank + 2}D (batch mode) tensor with optional 0 dim batch size for input, but got:{list(shape)}")


def check_dtype(name: str, x: Tensor, kinds: str) -> None:
    if x._a.dtype.kind not in kinds:
        raise error(NotImplementedError, f"\"{name}\" not implemented for '{SCALAR_NAMES[x.dtype]}'")


# ---- public functions ---------------------------------------------------------------------------------------------------------
def _max(name: str, rank: int, x: Any, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil: bool, indices: bool) -> Any:
    window = windows_of(name, x, rank, kernel, stride, padding, dilation, ceil)
    check_elements(x, rank)
    if rank == 1 and not indices and not x._rg:
        check_dtype("max_pool1d_impl", x, "fV")
    check_dtype(name, x, "fViu")
    return (MAX_INDICES if indices else MAX)[rank](x, rank, window, bool(ceil))


def max_pool1d(
    input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:  # fmt: skip
    """The largest value in each window of (N, C, L) or (C, L); with ``return_indices`` also where it is.

    >>> import flambeau as torch
    >>> torch.max_pool1d(torch.tensor([[1., 3., 2., 0.]]), 2)
    tensor([[3., 2.]])
    """
    return _max("max_pool1d", 1, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool2d(
    input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:  # fmt: skip
    """The largest value in each window of (N, C, H, W) or (C, H, W); with ``return_indices`` also where it is."""
    return _max("max_pool2d", 2, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool3d(
    input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:  # fmt: skip
    """The largest value in each window of (N, C, D, H, W) or (C, D, H, W); with ``return_indices`` also where it is."""
    return _max("max_pool3d", 3, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def _mean(name: str, rank: int, x: Any, kernel: Any, stride: Any, padding: Any, ceil: bool, include: bool, divisor: Any = None) -> Tensor:
    k, s, p, _ = windows_of(name, x, rank, kernel, stride, padding, 1, ceil)
    check_elements(x, rank)
    if x._a.dtype != np.int64:
        check_dtype(name, x, "fV")
    if divisor is not None and divisor == 0:
        raise error(RuntimeError, "divisor must be not zero")
    return AVG[rank](x, rank, (k, s, p), bool(ceil), bool(include), divisor)


def avg_pool1d(
    input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False, count_include_pad: bool = True
) -> Tensor:
    """The mean of each window of (N, C, L) or (C, L).

    >>> import flambeau as torch
    >>> torch.avg_pool1d(torch.tensor([[1., 3., 2., 0.]]), 2)
    tensor([[2., 1.]])
    """
    return _mean("avg_pool1d", 1, input, kernel_size, stride, padding, ceil_mode, count_include_pad)


def avg_pool2d(
    input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: int | None = None,
) -> Tensor:  # fmt: skip
    """The mean of each window of (N, C, H, W) or (C, H, W)."""
    return _mean("avg_pool2d", 2, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)


def avg_pool3d(
    input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: int | None = None,
) -> Tensor:  # fmt: skip
    """The mean of each window of (N, C, D, H, W) or (C, D, H, W)."""
    return _mean("avg_pool3d", 3, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)


def _adaptive_size(name: str, x: Any, rank: int, size: Any) -> tuple[int, ...]:
    check_tensor(name, x)
    shape = x._a.shape
    if rank > 1 and isinstance(size, (tuple, list)) and len(shape) <= len(size):
        raise error(ValueError, f"Input dimension should be at least {len(size) + 1}")
    if isinstance(size, (int, np.integer)):
        size = (int(size),) * rank
    size = tuple([n if s is None else int(s) for s, n in zip(size, shape[-rank:])] + [0] * (len(size) - len(shape[-rank:]))
                 if len(size) == rank else size)
    if len(shape) not in (rank + 1, rank + 2):
        if rank == 1:
            raise _rank_error(name, x, 1)
        got = "but got" if "avg" in name else "but got:"
        raise error(RuntimeError, f"{name}(): Expected {rank + 1}D or {rank + 2}D tensor, {got} {list(shape)}")
    if len(size) != rank:
        raise error(RuntimeError, f"{name}: output_size must be {rank}")
    if any(s < 0 for s in size):
        raise error(
            RuntimeError,
            f"{name}: elements of output_size must be greater than or equal to 0 but received {{{', '.join(map(str, size))}}}",
        )
    channels = "max" in name or rank == 3  # whether those have to be some, too
    for d in range(len(shape) - rank - channels, len(shape)):
        if shape[d] == 0:
            raise error(
                RuntimeError,
                f"{name}(): Expected input to have non-zero size for non-batch dimensions, but input has sizes {list(shape)} with "
                f"dimension {d} being empty",
            )
    return size


def _adaptive_mean(name: str, rank: int, x: Any, size: Any) -> Tensor:
    check_tensor(name, x)
    if rank > 1 and (size == 1 or isinstance(size, (tuple, list)) and tuple(size) == (1,) * rank):
        return x.mean(tuple(range(-rank, 0)), keepdim=True)  # type: ignore[no-any-return]
    size = _adaptive_size(name, x, rank, size)
    check_dtype(name, x, "fV")
    if all(s == 1 for s in size):
        return x.mean(tuple(range(-rank, 0)), keepdim=True)
    return ADAPTIVE_AVG[rank](x, rank, size)


def adaptive_avg_pool1d(input: Tensor, output_size: Any) -> Tensor:
    """Means over ``output_size`` windows that divide (N, C, L) or (C, L) as evenly as can be."""
    return _adaptive_mean("adaptive_avg_pool1d", 1, input, output_size)


def adaptive_avg_pool2d(input: Tensor, output_size: Any) -> Tensor:
    """Means over windows that divide (N, C, H, W) or (C, H, W) into ``output_size``; None keeps a dimension's size.

    >>> import flambeau as torch
    >>> torch.nn.functional.adaptive_avg_pool2d(torch.ones(1, 2, 5, 7), (2, None)).shape
    torch.Size([1, 2, 2, 7])
    """
    return _adaptive_mean("adaptive_avg_pool2d", 2, input, output_size)


def adaptive_avg_pool3d(input: Tensor, output_size: Any) -> Tensor:
    """Means over windows that divide (N, C, D, H, W) or (C, D, H, W) into ``output_size``."""
    return _adaptive_mean("adaptive_avg_pool3d", 3, input, output_size)


def _adaptive_maximum(name: str, rank: int, x: Any, size: Any, indices: bool) -> Any:
    size = _adaptive_size(name, x, rank, size)
    check_dtype(name, x, "fV")
    r = ADAPTIVE_MAX[rank](x, rank, size)
    return r if indices else r[0]


def adaptive_max_pool1d(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """Maxima over ``output_size`` windows that divide (N, C, L) or (C, L) as evenly as can be."""
    return _adaptive_maximum("adaptive_max_pool1d", 1, input, output_size, return_indices)


def adaptive_max_pool2d(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """Maxima over windows that divide (N, C, H, W) or (C, H, W) into ``output_size``."""
    return _adaptive_maximum("adaptive_max_pool2d", 2, input, output_size, return_indices)


def adaptive_max_pool3d(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """Maxima over windows that divide (N, C, D, H, W) or (C, D, H, W) into ``output_size``."""
    return _adaptive_maximum("adaptive_max_pool3d", 3, input, output_size, return_indices)


def _fractional(name: str, rank: int, x: Any, kernel: Any, size: Any, ratio: Any, indices: bool, samples: Any) -> Any:
    check_tensor(name, x)
    if size is None and ratio is None:
        raise error(ValueError, f"{name} requires specifying either an output_size or an output_ratio")
    if x._a.ndim not in (rank + 1, rank + 2):
        raise error(RuntimeError, f"{name}(): Expected {rank + 1}D or {rank + 2}D tensor, but got: {list(x._a.shape)}")
    space = x._a.shape[-rank:]
    if size is None:
        if ratio is not None and size is not None:
            raise error(ValueError, "only one of output_size and output_ratio may be given")
        ratio = (ratio,) * rank if isinstance(ratio, float) else tuple(ratio)
        size = tuple([int(n * r) for n, r in zip(space, ratio)])
    size, kernel = expand(name, "output_size", size, rank), expand(name, "kernel_size", kernel, rank)
    for what, n, o, k in zip(("time", "height", "width")[3 - rank :], space, size, kernel):
        if o + k - 1 > n:
            raise error(RuntimeError, f"{name}(): pool {what} {k} too large relative to input {what} {n}")
    lead = x._a.shape[: x._a.ndim - rank]
    n, c = lead if len(lead) == 2 else (1, *lead)
    if samples is None:
        from .public import FUNCTIONS

        samples = FUNCTIONS[""]["rand"](n, c, rank, dtype=x.dtype)
    r = FRACTIONAL[rank](x, rank, kernel, size, samples._a)
    return r if indices else r[0]


def fractional_max_pool2d(
    input: Tensor, kernel_size: Any, output_size: Any = None, output_ratio: Any = None, return_indices: bool = False,
    _random_samples: Tensor | None = None,
) -> Any:  # fmt: skip
    """Maxima over windows at random places, so many that the output has the size, or share of the size, asked for."""
    return _fractional("fractional_max_pool2d", 2, input, kernel_size, output_size, output_ratio, return_indices, _random_samples)


def fractional_max_pool3d(
    input: Tensor, kernel_size: Any, output_size: Any = None, output_ratio: Any = None, return_indices: bool = False,
    _random_samples: Tensor | None = None,
) -> Any:  # fmt: skip
    """Maxima over windows at random places of volumes (N, C, D, H, W)."""
    return _fractional("fractional_max_pool3d", 3, input, kernel_size, output_size, output_ratio, return_indices, _random_samples)


def _unpooled(name: str, rank: int, x: Any, indices: Any, kernel: Any, stride: Any, padding: Any, size: Any) -> Tensor:
    check_tensor(name, x)
    check_dtype(f"max_unpool{max(rank, 2)}d", x, "fV")
    check_elements(x, rank)
    k = expand(name, "kernel_size", kernel, rank)
    s = k if stride is None else expand(name, "stride", stride, rank)
    p = expand(name, "padding", padding, rank)
    if indices._a.dtype != np.int64:
        raise error(RuntimeError, f"elements in indices should be type int64 but got: {SCALAR_NAMES[indices.dtype]}")
    if indices._a.shape != x._a.shape:
        raise error(
            RuntimeError,
            f"Expected shape of indices to be same as that of the input tensor ({list(x._a.shape)}) but got indices tensor with "
            f"shape: {list(indices._a.shape)}",
        )
    usual = [(n - 1) * ss + kk - 2 * pp for n, kk, ss, pp in zip(x._a.shape[-rank:], k, s, p)]
    if size is None:
        size = tuple(usual)
    else:
        size = tuple([int(n) for n in size])
        if len(size) == rank + 2:
            size = size[2:]
        if len(size) != rank:
            raise error(
                ValueError, f"output_size should be a sequence containing {rank} or {rank + 2} elements, but it has a length of '{len(size)}'"
            )
        for d, (n, u, ss) in enumerate(zip(size, usual, s)):
            if not u - ss < n < u + ss:
                raise error(ValueError, f'invalid output_size "{size}" (dim {d} must be between {u - ss} and {u + ss})')
    at = indices._everything()
    if at.size and (at.min() < 0 or at.max() >= prod(size)):
        wrong = int(at[(at < 0) | (at >= prod(size))].flat[0])
        volumes = "x".join(map(str, size)) if rank > 1 else f"{size[0]}x1"
        raise error(RuntimeError, f"Found an invalid max index: {wrong} (output volumes are of size {volumes})")
    return UNPOOL[rank](x, indices, rank, size)


def max_unpool1d(
    input: Tensor, indices: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, output_size: Any = None
) -> Tensor:
    """Put each value back where ``max_pool1d(..., return_indices=True)`` found it; zeros elsewhere."""
    return _unpooled("max_unpool1d", 1, input, indices, kernel_size, stride, padding, output_size)


def max_unpool2d(
    input: Tensor, indices: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, output_size: Any = None
) -> Tensor:
    """Put each value back where ``max_pool2d(..., return_indices=True)`` found it; zeros elsewhere."""
    return _unpooled("max_unpool2d", 2, input, indices, kernel_size, stride, padding, output_size)


def max_unpool3d(
    input: Tensor, indices: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, output_size: Any = None
) -> Tensor:
    """Put each value back where ``max_pool3d(..., return_indices=True)`` found it; zeros elsewhere."""
    return _unpooled("max_unpool3d", 3, input, indices, kernel_size, stride, padding, output_size)


def _power_mean(rank: int, x: Tensor, norm_type: float, kernel: Any, stride: Any, ceil: bool) -> Tensor:
    k = expand(f"lp_pool{rank}d", "kernel_size", kernel, rank)
    mean = _mean(f"avg_pool{rank}d", rank, x.pow(norm_type), k, stride, 0, ceil, True)
    return (mean.sign() * mean.abs().relu() * prod(k)).pow(1.0 / norm_type)


def lp_pool1d(input: Tensor, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False) -> Tensor:
    """``(sum x^p)^(1/p)`` over each window."""
    return _power_mean(1, input, norm_type, kernel_size, stride, ceil_mode)


def lp_pool2d(input: Tensor, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False) -> Tensor:
    """``(sum x^p)^(1/p)`` over each window of images."""
    return _power_mean(2, input, norm_type, kernel_size, stride, ceil_mode)


def lp_pool3d(input: Tensor, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False) -> Tensor:
    """``(sum x^p)^(1/p)`` over each window of volumes."""
    return _power_mean(3, input, norm_type, kernel_size, stride, ceil_mode)


def with_indices(fn: Any, name: str) -> Any:
    """The form that returns indices too, and nothing else."""

    def pooled(input: Tensor, *args: Any, **kwargs: Any) -> Any:
        kwargs["return_indices"] = True
        return fn(input, *args, **kwargs)

    pooled.__name__ = pooled.__qualname__ = name
    pooled.__doc__ = f"``{fn.__name__}(..., return_indices=True)``."
    return pooled


for _f in (
    max_pool1d, max_pool2d, max_pool3d, avg_pool1d, avg_pool2d, avg_pool3d, adaptive_avg_pool1d, adaptive_avg_pool2d,
    adaptive_avg_pool3d, adaptive_max_pool1d, adaptive_max_pool2d, adaptive_max_pool3d, fractional_max_pool2d,
    fractional_max_pool3d, max_unpool1d, max_unpool2d, max_unpool3d, lp_pool1d, lp_pool2d, lp_pool3d,
):  # fmt: skip
    publish(_f.__name__, _f, "nn.functional")
for _f in (max_pool1d, max_pool2d, max_pool3d, avg_pool1d, adaptive_avg_pool1d):
    publish(_f.__name__, _f)
for _f in (max_pool1d, max_pool2d, max_pool3d, adaptive_max_pool1d, adaptive_max_pool2d, adaptive_max_pool3d,
           fractional_max_pool2d, fractional_max_pool3d):  # fmt: skip
    publish(f"{_f.__name__}_with_indices", with_indices(_f, f"{_f.__name__}_with_indices"), "nn.functional")
publish("max_pool1d_with_indices", with_indices(max_pool1d, "max_pool1d_with_indices"))
publish("adaptive_max_pool1d", with_indices(adaptive_max_pool1d, "adaptive_max_pool1d"))
