"""Reductions: sums, means, products, extremes, moments and norms over all dimensions or some.

The derivative of nearly every one of them is ``spread``: the gradient, repeated along the dimensions that were folded.
"""

from __future__ import annotations

import functools
import inspect
import math
import warnings
from collections.abc import Callable
from math import prod as product
from typing import Any

import numpy as np

from ..autograd.pointwise import pointwise
from ..autograd.primitive import Primitive, primitive
from ..core.dtypes import FLOAT, SCALAR_NAMES, dtype, get_default_dtype, int64
from ..core.errors import error
from ..core.modes import mode
from ..core.tensor import Tensor, new_tensor, wrap
from ..kernels import expr as E
from ..kernels import reduce as R
from . import return_types
from .arithmetic import both, maximum_of, minimum_of
from .dims import INTEGERS, wrap_dim, wrap_dims
from .public import public, publish, write_out

ndarray = np.ndarray
add_reduce = np.add.reduce
quiet = np.errstate  # no warnings: PyTorch gives none
_F32, _F64 = np.dtype(np.float32), np.dtype(np.float64)
Dims = Any


# ---- the shape of gradients -----------------------------------------------------------------------------------------
def spread_array(a: ndarray, shape: tuple[int, ...], axes: tuple[int, ...] | None, keepdim: bool) -> ndarray:
    """``a``, the result of a reduction of ``shape`` over ``axes`` (None: all), repeated to that shape without a copy."""
    if axes is not None and not keepdim and a.ndim != len(shape):
        a = a.reshape([1 if i in axes else n for i, n in enumerate(shape)])
    if a.ndim == 0 and a.dtype.kind != "V":
        return np.ndarray(shape, a.dtype, a, 0, (0,) * len(shape))
    return np.broadcast_to(a, shape)


def inner(x: Tensor, axes: tuple[int, ...] | None) -> tuple[int, ...]:
    """Axes of one example as axes of the batch ``x``."""
    return tuple(range(1, x._a.ndim)) if axes is None else tuple([d + 1 for d in axes])


@primitive(
    "expand_reduced", node="ExpandBackward0", vjp={"g0": lambda g, axes, keepdim: _sum(g, axes, keepdim)}, jvp="linear",
    batch=lambda b, g0, shape, axes, keepdim: _spread(
        g0, (b.size, *shape), tuple(range(1, len(shape) + 1)) if axes is None else inner(g0, axes), keepdim
    ),
)  # fmt: skip
def _spread(g0: Any, /, shape: Any, axes: Any, keepdim: bool) -> Any:
    return spread_array(g0, shape, axes, keepdim)


def spread(g: Tensor, shape: tuple[int, ...], axes: tuple[int, ...] | None = None, keepdim: bool = False) -> Tensor:
    """The gradient of a reduced tensor, repeated along the folded axes."""
    if mode() is False:
        t = new_tensor(Tensor)
        t._a = spread_array(g._a, shape, axes, keepdim)
        t._grad_fn = None
        t._rg = False
        return t
    return _spread(g, shape, axes, keepdim)


def fold_to(a: ndarray, shape: tuple[int, ...]) -> ndarray:
    """Sum over what broadcasting from ``shape`` repeated."""
    lead = a.ndim - len(shape)
    axes = (*range(lead), *[i + lead for i, n in enumerate(shape) if n == 1 and a.shape[i + lead] != 1])
    r = add_reduce(a, axes, keepdims=True) if a.size < R.SMALL and a.dtype.kind == "f" else R.reduce(
        "sum", a, axes, True, a.dtype
    )  # fmt: skip
    return r.reshape(shape)


def _spread_to_batch(b: Any, x: Tensor, shape: Any) -> Tensor:
    own = x._a.shape[1:]
    return spread_to(x.reshape(b.size, *(1,) * (len(shape) - len(own)), *own), (b.size, *shape))


@primitive(
    "sum_to_size", node="SumBackward1", vjp={"x": lambda g, x_shape: spread_to(g, x_shape)}, jvp="linear",
    batch=lambda b, x, shape: _sum_to_size(x, (b.size, *(1,) * (x._a.ndim - 1 - len(shape)), *shape)).reshape(b.size, *shape),
)
def _sum_to_size(x: Any, /, shape: Any) -> Any:
    return fold_to(x, shape)


@primitive(
    "spread_to", node="ExpandBackward0", vjp={"x": lambda g, x_shape: sum_to_size(g, x_shape)}, jvp="linear", batch=_spread_to_batch
)
def spread_to(x: Any, /, shape: Any) -> Any:
    return np.broadcast_to(x, shape)


def sum_to_size(self: Tensor, *size: Any) -> Tensor:
    """Summed to a shape that broadcasts to the present one."""
    shape = tuple(size[0]) if len(size) == 1 and not isinstance(size[0], INTEGERS) else size
    a = self._a
    if a.shape == shape:
        return self
    own = a.shape[a.ndim - len(shape) :] if len(shape) <= a.ndim else None
    if own is None or any(m != n and m != 1 for m, n in zip(shape, own)):
        raise error(RuntimeError, f"size {{{list(shape)}}} is not expandable to size {{{list(a.shape)}}}.")
    if self.dtype.category < FLOAT:
        self = self.to(int64)
    if mode() is False:
        t = new_tensor(Tensor)
        t._a = fold_to(a, shape)
        t._grad_fn = None
        t._rg = False
        return t
    return _sum_to_size(self, shape)


Tensor.sum_to_size = sum_to_size


# ---- arguments ------------------------------------------------------------------------------------------------------
def reduction(*, inplace: bool = False, module: str = "", method: bool = True, names: tuple[str, ...] = ()) -> Any:
    """Publish a reduction: NumPy's ``axis`` and ``keepdims`` mean ``dim`` and ``keepdim``; ``out=`` where it is not taken."""

    def decorate(fn: Callable[..., Any]) -> Callable[..., Any]:
        takes_out = "out" in inspect.signature(fn).parameters

        @functools.wraps(fn)
        def call(input: Any, *args: Any, **kwargs: Any) -> Any:
            if input.__class__ is not Tensor and not isinstance(input, Tensor):
                raise error(
                    TypeError, f"{fn.__name__}(): argument 'input' (position 1) must be Tensor, not {type(input).__name__}"
                )
            out = None
            if kwargs:
                if "axis" in kwargs:
                    kwargs["dim"] = kwargs.pop("axis")
                if "keepdims" in kwargs:
                    kwargs["keepdim"] = kwargs.pop("keepdims")
                if not takes_out:
                    out = kwargs.pop("out", None)
            r = fn(input, *args, **kwargs)
            if out is None:
                return r
            if isinstance(r, tuple):
                for o, v in zip(out, r):
                    write_out(fn.__name__, o, v)
                return type(r)(out)
            write_out(fn.__name__, out, r)
            return out

        for name in (fn.__name__, *names):
            publish(name, call, module)
            if method:
                setattr(Tensor, name, call)
        return call

    return decorate


def axes_of(dim: Dims, ndim: int) -> tuple[int, ...] | None:
    """NumPy axes for ``dim``; None where every dimension is meant (an empty list means that too)."""
    if dim is None or dim.__class__ in (tuple, list) and not dim:
        return None
    return wrap_dims(dim, ndim)


def cast(t: Tensor, d: dtype | None) -> Tensor:
    return t if d is None or t.dtype is d else t.to(d)


def not_empty(name: str, a: ndarray, axes: tuple[int, ...] | None, cls: type[BaseException] = RuntimeError, advice: bool = True) -> None:
    """Refuse extremes of nothing."""
    if a.size:
        return
    if axes is None:
        raise error(
            cls,
            f"{name}(): Expected reduction dim to be specified for input.numel() == 0."
            + (" Specify the reduction dim with the 'dim' argument." if advice else ""),
        )
    for d in axes:
        if not a.shape[d]:
            raise error(IndexError, f"{name}(): Expected reduction dim {d} to have non-zero size.")


def no_complex(name: str, t: Tensor) -> None:
    if t._a.dtype.kind == "c":
        raise error(NotImplementedError, f"\"{name}\" not implemented for '{SCALAR_NAMES[t.dtype]}'")


# ---- sum and mean ---------------------------------------------------------------------------------------------------
@quiet(all="ignore")
def sum_array(a: ndarray, axes: tuple[int, ...] | None, keepdim: bool) -> ndarray:
    if a.size < R.SMALL and (a.dtype is _F32 or a.dtype is _F64):
        return add_reduce(a, axes, None, None, keepdim)
    return R.reduce("sum", a, axes, keepdim)


@primitive(
    "sum_all", node="SumBackward0", vjp={"x": lambda g, x_shape: spread(g, x_shape)}, jvp="linear",
    batch=lambda b, x: _sum(x, inner(x, None), False),
)  # fmt: skip
def _sum_all(x: Any, /) -> Any:
    return sum_array(x, None, False)


@primitive(
    "sum", node="SumBackward1", vjp={"x": lambda g, x_shape, axes, keepdim: spread(g, x_shape, axes, keepdim)}, jvp="linear",
    batch=lambda b, x, axes, keepdim: _sum(x, inner(x, axes), keepdim),
)  # fmt: skip
def _sum(x: Any, /, axes: Any, keepdim: bool) -> Any:
    return sum_array(x, axes, keepdim)


def sum(  # noqa: A001
    input: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: dtype | None = None, out: Tensor | None = None,
    axis: Dims = None, keepdims: bool | None = None,
) -> Tensor:  # fmt: skip
    """The sum over ``dim`` (all dimensions by default); of integers and truth values in int64.

    >>> import flambeau as torch
    >>> torch.sum(torch.tensor([[1., 2.], [3., 4.]]), dim=0)
    tensor([4., 6.])
    """
    if not isinstance(input, Tensor):
        raise error(TypeError, f"sum(): argument 'input' (position 1) must be Tensor, not {type(input).__name__}")
    if axis is not None:
        dim = axis
    if keepdims is not None:
        keepdim = keepdims
    if dtype is not None:
        input = cast(input, dtype)
    if dim is None and not keepdim:
        r = _sum_all(input)
    else:
        r = _sum(input, axes_of(dim, input._a.ndim), keepdim)
    if dtype is not None and r.dtype is not dtype:
        r = r.to(dtype)
    if out is not None:
        write_out("sum", out, r)
        return out
    return r


both(sum, "sum")


def count_of(shape: tuple[int, ...], axes: tuple[int, ...] | None) -> int:
    return product(shape) if axes is None else product([shape[d] for d in axes])


@quiet(all="ignore")
def mean_array(a: ndarray, axes: tuple[int, ...] | None, keepdim: bool) -> ndarray:
    n = count_of(a.shape, axes)
    if a.size < R.SMALL and (a.dtype is _F32 or a.dtype is _F64):
        return add_reduce(a, axes, None, None, keepdim) / a.dtype.type(n)
    if a.dtype.kind == "c":
        return R.reduce("sum", a, axes, keepdim) / n
    return (R.reduce("sum", a, axes, keepdim, _F64) / n).astype(a.dtype)


@primitive(
    "mean_all", node="MeanBackward0", vjp={"x": lambda g, x_shape: spread(g / max_(product(x_shape)), x_shape)}, jvp="linear",
    batch=lambda b, x: _mean(x, inner(x, None), False),
)  # fmt: skip
def _mean_all(x: Any, /) -> Any:
    return mean_array(x, None, False)


def _mean_batch(b: Any, x: Tensor, axes: Any, keepdim: bool) -> Tensor:
    return _mean(x, inner(x, axes), keepdim)


@primitive("mean", node="MeanBackward1", vjp={
    "x": lambda g, x_shape, axes, keepdim: spread(g / max_(count_of(x_shape, axes)), x_shape, axes, keepdim)
}, jvp="linear", batch=_mean_batch)  # fmt: skip
def _mean(x: Any, /, axes: Any, keepdim: bool) -> Any:
    return mean_array(x, axes, keepdim)


def max_(n: int) -> float:
    return float(n or 1)


def mean(
    input: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: dtype | None = None, out: Tensor | None = None,
    axis: Dims = None, keepdims: bool | None = None,
) -> Tensor:  # fmt: skip
    """The mean over ``dim`` (all dimensions by default) of floating or complex numbers.

    >>> import flambeau as torch
    >>> torch.mean(torch.tensor([1., 2., 6.]))
    tensor(3.)
    """
    if axis is not None:
        dim = axis
    if keepdims is not None:
        keepdim = keepdims
    if dtype is not None:
        input = cast(input, dtype)
    if input._a.dtype.kind in "iub":
        raise error(
            RuntimeError,
            "mean(): could not infer output dtype. Input dtype must be either a floating point or complex dtype. Got: "
            f"{SCALAR_NAMES[input.dtype]}",
            hint="Convert it first, as with .float(), or pass dtype=.",
        )
    if dim is None and not keepdim:
        r = _mean_all(input)
    else:
        r = _mean(input, axes_of(dim, input._a.ndim), keepdim)
    if out is not None:
        write_out("mean", out, r)
        return out
    return r


both(mean, "mean")


def _not_nan(x: Tensor) -> Tensor:
    return wrap((x._a == x._a).astype(x._a.dtype))


@primitive(
    "nansum", vjp={"x": lambda g, x, axes, keepdim: spread(g, x._a.shape, axes, keepdim) * _not_nan(x)},
    jvp=lambda x_t, x, axes, keepdim: _sum(x_t * _not_nan(x), axes, keepdim),
    batch=lambda b, x, axes, keepdim: _nansum(x, inner(x, axes), keepdim),
)  # fmt: skip
def _nansum(x: Any, /, axes: Any, keepdim: bool) -> Any:
    return R.reduce("sum", np.where(x == x, x, np.zeros((), x.dtype)), axes, keepdim)


@reduction()
def nansum(input: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: dtype | None = None) -> Tensor:
    """The sum of what isn't nan."""
    input = cast(input, dtype)
    no_complex("nansum", input)
    return _nansum(input, axes_of(dim, input._a.ndim), keepdim)


@reduction()
def nanmean(input: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: dtype | None = None) -> Tensor:
    """The mean of what isn't nan."""
    if input.dtype.category < FLOAT and dtype is None:
        raise error(RuntimeError, "nanmean(): expected input to have floating point or complex dtype but got " + SCALAR_NAMES[input.dtype])
    input = cast(input, dtype)
    if input._a.dtype.kind == "c":
        raise error(RuntimeError, "nansum on CPU does not support complex inputs")
    axes = axes_of(dim, input._a.ndim)
    return _nansum(input, axes, keepdim) / _sum(input.eq(input), axes, keepdim).to(input.dtype)


# ---- products -------------------------------------------------------------------------------------------------------
def _others(x: ndarray, axes: tuple[int, ...]) -> ndarray:
    """For each element the product of all the others along ``axes``, zeros and all, in linear time."""
    keep = [d for d in range(x.ndim) if d not in axes]
    order = (*keep, *axes)
    turned = x.transpose(order)
    rows = turned.reshape(*[x.shape[d] for d in keep], -1)
    before, after = np.ones_like(rows), np.ones_like(rows)
    with quiet(all="ignore"):
        np.multiply.accumulate(rows[..., :-1], axis=-1, out=before[..., 1:])
        np.multiply.accumulate(rows[..., :0:-1], axis=-1, out=after[..., -2::-1])
        return (before * after).reshape(turned.shape).transpose(np.argsort(order))


def _prod_gradient(g: Tensor, x: Tensor, out: Tensor, axes: tuple[int, ...] | None, keepdim: bool) -> Tensor:
    a = x._a
    axes_ = tuple(range(a.ndim)) if axes is None else axes
    if mode() is False:
        with quiet(all="ignore"):
            others = _others(np.conj(a) if a.dtype.kind == "c" else a, axes_) if a.ndim else np.ones_like(a)
            return wrap(spread_array(g._a, a.shape, axes, keepdim) * others)
    if a.all() and a.ndim:
        quotient = spread(g * conj(out), a.shape, axes, keepdim) / conj(x)
        return quotient
    if not a.ndim:
        return g
    # with zeros, and to be differentiated again: every element with itself replaced by 1, multiplied out
    n = count_of(a.shape, axes_)
    keep = [d for d in range(a.ndim) if d not in axes_]
    order = [*keep, *axes_]
    rows = x.permute(order).reshape([*[a.shape[d] for d in keep], 1, n])
    eye = wrap(np.eye(n, dtype=bool))
    square = rows.expand([*rows._a.shape[:-2], n, n])
    others = _prod(square.masked_fill(eye, 1), (square._a.ndim - 1,), False)
    others = others.reshape([a.shape[d] for d in order]).permute([int(d) for d in np.argsort(order)])
    return spread(g, a.shape, axes, keepdim) * conj(others)


def conj(t: Tensor) -> Tensor:
    return t if t._a.dtype.kind != "c" else t.conj()


def _prod_array(x: ndarray, axes: Any, keepdim: bool) -> ndarray:
    return R.reduce("prod", x, axes, keepdim)


def _prod_tangent(x_t: Tensor, x: Tensor, out: Tensor, axes: Any, keepdim: bool) -> Tensor:
    return _sum(x_t * conj(_prod_gradient(ones_like(out), x, out, axes, keepdim)), axes, keepdim)


def ones_like(t: Tensor) -> Tensor:
    return wrap(np.ones(t._a.shape, t._a.dtype))


@primitive(
    "prod_all", node="ProdBackward0", vjp={"x": lambda g, x, out: _prod_gradient(g, x, out, None, False)},
    jvp=lambda x_t, x, out: _prod_tangent(x_t, x, out, None, False), batch=lambda b, x: _prod(x, inner(x, None), False),
)  # fmt: skip
def _prod_all(x: Any, /) -> Any:
    return _prod_array(x, None, False)


@primitive(
    "prod", node="ProdBackward1", vjp={"x": lambda g, x, out, axes, keepdim: _prod_gradient(g, x, out, axes, keepdim)},
    jvp=_prod_tangent, batch=lambda b, x, axes, keepdim: _prod(x, inner(x, axes), keepdim),
)  # fmt: skip
def _prod(x: Any, /, axes: Any, keepdim: bool) -> Any:
    return _prod_array(x, axes, keepdim)


@reduction()
def prod(input: Tensor, dim: int | None = None, keepdim: bool = False, *, dtype: dtype | None = None) -> Tensor:
    """The product over one dimension, or all.

    >>> import flambeau as torch
    >>> torch.prod(torch.tensor([2., 3., 4.]))
    tensor(24.)
    """
    if isinstance(dim, (tuple, list)):
        raise error(
            TypeError,
            f"prod() received an invalid combination of arguments - got (Tensor, {type(dim).__name__}): dim must be int",
        )
    input = cast(input, dtype)
    return _prod_all(input) if dim is None else _prod(input, wrap_dims(dim, input._a.ndim), keepdim)


# ---- truth ----------------------------------------------------------------------------------------------------------
def _truth(name: str) -> None:
    @primitive(name, batch=lambda b, x, axes, keepdim: op(x, inner(x, axes), keepdim))
    def op(x: Any, /, axes: Any, keepdim: bool) -> Any:
        r = R.reduce(name, x, axes, keepdim)
        return r.astype(np.uint8) if x.dtype == np.uint8 else r

    def fn(input: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
        return op(input, axes_of(dim, input._a.ndim), keepdim)

    fn.__name__ = fn.__qualname__ = name
    fn.__doc__ = f"Whether {name} elements are true (not 0), over ``dim`` or all dimensions."
    reduction()(fn)


_truth("all")
_truth("any")


@primitive("count_nonzero", batch=lambda b, x, axes: _count_nonzero(x, inner(x, axes)))
def _count_nonzero(x: Any, /, axes: Any) -> Any:
    return np.asarray(np.count_nonzero(x, axis=axes), np.int64)


@reduction()
def count_nonzero(input: Tensor, dim: Dims = None) -> Tensor:
    """How many elements are not 0."""
    return _count_nonzero(input, axes_of(dim, input._a.ndim))


# ---- extremes -------------------------------------------------------------------------------------------------------
def _ties(x: Tensor, out: ndarray, axes: tuple[int, ...] | None, keepdim: bool, nan_is_one: bool = True) -> Tensor:
    """1 / (number of elements that are the extreme) at each of them, 0 elsewhere.

    An extreme that is nan is each nan, or, where that is not one, none: all of its elements get 0 / 0.
    """
    a = x._a
    mask = a == spread_array(out, a.shape, axes, keepdim)
    if nan_is_one and a.dtype.kind in "fV":
        bad = out != out
        if bad.any():
            mask |= spread_array(bad, a.shape, axes, keepdim) & (a != a)
    count = np.add.reduce(mask, axis=axes, keepdims=True, dtype=a.dtype if a.dtype.kind == "f" else np.float32)
    with quiet(all="ignore"):
        return wrap((mask / count).astype(a.dtype))


def extreme(op: str, node: str, nan_is_one: bool) -> Primitive:
    """The largest or smallest; its gradient is shared by ties."""

    def rule(g: Tensor, x: Tensor, out: Tensor, axes: Any, keepdim: bool) -> Tensor:
        return spread(g, x._a.shape, axes, keepdim) * _ties(x, out._a, axes, keepdim, nan_is_one)

    @primitive(
        f"{op}:{node}", node=node, vjp={"x": rule},
        jvp=lambda x_t, x, out, axes, keepdim: _sum(x_t * _ties(x, out._a, axes, keepdim, nan_is_one), axes, keepdim),
        batch=lambda b, x, axes, keepdim: kernel(x, inner(x, axes), keepdim),
    )  # fmt: skip
    def kernel(x: Any, /, axes: Any, keepdim: bool) -> Any:
        return R.reduce(op, x, axes, keepdim)

    return kernel


_EXTREME = {
    (op, kind): extreme(op, node, kind == "all")
    for op in ("max", "min")
    for kind, node in (
        ("all", f"{op.capitalize()}Backward1"), ("dim", f"A{op}Backward0"), ("both", "AminmaxBackward0"),
    )
}  # fmt: skip


def _place_batch(b: Any, g0: Tensor, index: Tensor, shape: Any, dim: int, keepdim: bool) -> Tensor:
    g0, index = b.full(g0, b.has("g0")), b.full(index, b.has("index"))
    return _place(g0, index, (b.size, *shape), dim + 1, keepdim) if shape else g0


@primitive(
    "place", node="ScatterBackward0", vjp={"g0": lambda g, index, dim, keepdim: _take(g, index, dim, keepdim)}, jvp="linear",
    batch=_place_batch,
)  # fmt: skip
def _place(g0: Any, /, index: Tensor, shape: Any, dim: int, keepdim: bool) -> Any:
    """``g0`` at the places of ``index`` along ``dim``, 0 elsewhere; places that come twice add up."""
    out = np.zeros(shape, g0.dtype)
    if not shape:
        return g0.reshape(())
    if not keepdim:
        g0 = np.expand_dims(g0, dim)
    places = index._a
    if places.shape[dim] == 1:
        np.put_along_axis(out, places, g0, dim)
    else:
        where = list(np.ogrid[tuple(slice(n) for n in places.shape)])
        where[dim] = places
        np.add.at(out, tuple(where), g0)
    return out


def picker(name: str, node: str) -> Primitive:
    """Elements chosen by ``index`` along ``dim`` (which goes unless ``keepdim``); the gradient goes back to them."""

    def batch(b: Any, x: Tensor, index: Tensor, dim: int, keepdim: bool) -> Tensor:
        x = b.full(x, b.has("x"))
        return pick(x, b.full(index, b.has("index")), dim + 1, keepdim) if x._a.ndim > 1 else x

    @primitive(
        name, node=node, vjp={"x": lambda g, x_shape, index, dim, keepdim: _place(g, index, x_shape, dim, keepdim)}, jvp="linear",
        batch=batch,
    )  # fmt: skip
    def pick(x: Any, /, index: Tensor, dim: int, keepdim: bool) -> Any:
        return take_array(x, index._a, dim, keepdim)

    return pick


_take = picker("pick", "GatherBackward0")


def take_array(x: ndarray, index: ndarray, dim: int, keepdim: bool) -> ndarray:
    if not x.ndim:
        return x.copy()
    r = np.take_along_axis(x, index, dim)
    return r if keepdim else r.squeeze(dim)


_PICK = {"max": picker("pick:MaxBackward0", "MaxBackward0"), "min": picker("pick:MinBackward0", "MinBackward0")}


def arg_array(op: str, a: ndarray, axis: int | None, keepdim: bool = False) -> ndarray:
    """Where the extreme is: the first nan, or the first of equals."""
    if a.dtype.kind == "V" or a.dtype == np.float16:
        a = a.astype(np.float32)
    return np.asarray((np.argmax if op == "max" else np.argmin)(a, axis=axis, keepdims=keepdim), np.int64)


def _arg_batch(b: Any, x: Tensor, op: str, axis: int | None, keepdim: bool) -> Tensor:
    return _arg(x.reshape(b.size, product(x._a.shape[1:])), op, 1, keepdim) if axis is None else _arg(x, op, axis + 1, keepdim)


@primitive("arg", batch=_arg_batch)
def _arg(x: Any, /, op: str, axis: int | None, keepdim: bool) -> Any:
    return arg_array(op, x, axis, keepdim)


def places_of(x: Tensor, op: str, axis: int | None, keepdim: bool) -> Tensor:
    a = x._a
    return wrap(arg_array(op, a, axis, keepdim)) if a.__class__ is ndarray else _arg(x, op, axis, keepdim)


def squeezed(index: Tensor, dim: int) -> Tensor:
    """Places without the dimension that they were found along."""
    a = index._a
    return wrap(a.squeeze(dim)) if a.__class__ is ndarray else index.squeeze(dim)


def _extremes(op: str, pairwise: Any) -> None:
    def fn(input: Tensor, dim: Any = None, keepdim: bool = False, *, other: Any = None) -> Any:
        if isinstance(dim, Tensor) or other is not None:
            return pairwise(input, dim if other is None else other)
        no_complex(op, input)
        a = input._a
        if dim is None:
            not_empty(op, a, None)
            return _EXTREME[op, "all"](input, None, False)
        if not isinstance(dim, INTEGERS):
            raise error(
                TypeError,
                f"{op}() received an invalid combination of arguments - got (Tensor, {type(dim).__name__}), but expected one "
                "of:\n * (Tensor input, *, Tensor out = None)\n * (Tensor input, Tensor other, *, Tensor out = None)\n"
                " * (Tensor input, int dim, bool keepdim = False, *, tuple of Tensors out = None)",
            )
        d = wrap_dim(dim, a.ndim)
        if a.ndim:
            not_empty(op, a, (d,))
        index = places_of(input, op, d, True) if a.ndim else wrap(np.zeros((), np.int64))
        values = _PICK[op](input, index, d, keepdim)
        return getattr(return_types, op)((values, index if keepdim or not a.ndim else squeezed(index, d)))

    fn.__name__ = fn.__qualname__ = op
    fn.__doc__ = f"The {op}imum of all elements; over ``dim``, (values, indices); of two tensors, the {op}imum of each pair."
    reduction()(fn)

    def amax(input: Tensor, dim: Dims = (), keepdim: bool = False) -> Tensor:
        no_complex("a" + op, input)
        axes = axes_of(dim, input._a.ndim)
        not_empty("a" + op, input._a, axes)
        return _EXTREME[op, "dim"](input, axes, keepdim)

    amax.__name__ = amax.__qualname__ = "a" + op
    amax.__doc__ = f"The {op}imum over one or several dimensions; ties share the gradient."
    reduction()(amax)

    def arg(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
        no_complex("arg" + op, input)
        a = input._a
        if a.dtype.kind == "b":
            raise error(RuntimeError, f"arg{op}(): does not support bool input")
        if dim is None:
            not_empty("arg" + op, a, None, IndexError, False)
            r = places_of(input, op, None, False)
            return r.reshape((1,) * a.ndim) if keepdim else r
        d = wrap_dim(dim, a.ndim)
        if not a.ndim:
            return wrap(np.zeros((), np.int64))
        not_empty("arg" + op, a, (d,))
        return places_of(input, op, d, keepdim)

    arg.__name__ = arg.__qualname__ = "arg" + op
    arg.__doc__ = f"Where the {op}imum is: its index in the flattened tensor, or along ``dim``."
    reduction()(arg)


_extremes("max", maximum_of)
_extremes("min", minimum_of)


@reduction()
def aminmax(input: Tensor, *, dim: int | None = None, keepdim: bool = False) -> Any:
    """Both extremes, as (min, max)."""
    no_complex("aminmax", input)
    axes = None if dim is None else wrap_dims(dim, input._a.ndim)
    if axes is None and not input._a.size:
        raise error(RuntimeError, "aminmax(): cannot compute aminmax over an empty dimension as the operation has no identity.")
    not_empty("aminmax", input._a, axes)
    return return_types.aminmax([_EXTREME[op, "both"](input, axes, keepdim) for op in ("min", "max")])


# ---- moments --------------------------------------------------------------------------------------------------------
_slope = pointwise(  # g / (2 std), 0 where std is
    "std_slope", E.where(E.eq(E.var("x"), 0), 0, E.var("v") / (2 * E.var("x"))), "v x", node="StdBackward0"
)


def _var_array(x: ndarray, axes: Any, keepdim: bool, correction: float) -> ndarray:
    n = count_of(x.shape, axes)
    real = np.dtype(f"f{x.dtype.itemsize // 2}") if x.dtype.kind == "c" else x.dtype
    _, spread_ = R.moments(x, axes, keepdim)
    with quiet(all="ignore"):
        return np.asarray(spread_ * np.float64(n) / np.float64(max(n - correction, 0)) if n else spread_ * np.nan).astype(real)


def _var_rule(g: Tensor, x: Tensor, axes: Any, keepdim: bool, correction: float) -> Tensor:
    n = count_of(x._a.shape, axes)
    factor = 2.0 / (n - correction) if n > correction else math.inf if n == correction else math.nan
    centred = x - _mean(x, axes, True)
    return spread(g * factor, x._a.shape, axes, keepdim) * centred


def _std_rule(g: Tensor, x: Tensor, out: Tensor, axes: Any, keepdim: bool, correction: float) -> Tensor:
    return _var_rule(_slope.call(g, out), x, axes, keepdim, correction)


def _var_tangent(x_t: Tensor, x: Tensor, axes: Any, keepdim: bool, correction: float) -> Tensor:
    r = _sum(x_t * conj(_var_rule(ones_like(_mean(x, axes, keepdim)), x, axes, keepdim, correction)), axes, keepdim)
    return r.real if r._a.dtype.kind == "c" else r


def _std_tangent(x_t: Tensor, x: Tensor, out: Tensor, axes: Any, keepdim: bool, correction: float) -> Tensor:
    return _slope.call(_var_tangent(x_t, x, axes, keepdim, correction), out)


def _moment_primitives(suffix: str) -> tuple[Primitive, Primitive]:
    @primitive(
        "var" + suffix, node=f"Var{suffix}Backward0", vjp={"x": _var_rule}, jvp=_var_tangent,
        batch=lambda b, x, axes, keepdim, correction: var_(x, inner(x, axes), keepdim, correction),
    )  # fmt: skip
    def var_(x: Any, /, axes: Any, keepdim: bool, correction: float) -> Any:
        return _var_array(x, axes, keepdim, correction)

    @primitive(
        "std" + suffix, node=f"Std{suffix}Backward0", vjp={"x": _std_rule}, jvp=_std_tangent,
        batch=lambda b, x, axes, keepdim, correction: std_(x, inner(x, axes), keepdim, correction),
    )  # fmt: skip
    def std_(x: Any, /, axes: Any, keepdim: bool, correction: float) -> Any:
        return np.sqrt(_var_array(x, axes, keepdim, correction))

    return var_, std_


def _mean_with(node: str) -> Primitive:
    @primitive(f"mean:{node}", node=node, vjp=_mean.rules, jvp="linear", batch=_mean_batch)
    def mean_(x: Any, /, axes: Any, keepdim: bool) -> Any:
        return mean_array(x, axes, keepdim)

    return mean_


_var, _std = _moment_primitives("")
_var_of_pair, _std_of_pair = _moment_primitives("Mean")
_mean_of_var, _mean_of_std = _mean_with("VarMeanBackward0"), _mean_with("StdMeanBackward0")


def _moment_arguments(name: str, input: Tensor, dim: Any, args: tuple[Any, ...], unbiased: Any, correction: Any, keepdim: Any) -> Any:
    """(axes, keepdim, correction) from the spellings ``(unbiased)``, ``(dim, unbiased, keepdim)``, ``(dim, *, correction)``."""
    if isinstance(dim, bool):
        unbiased, dim = dim, None
    if args:
        unbiased = args[0]
        keepdim = args[1] if len(args) > 1 else keepdim
    if unbiased is not None:
        correction = int(unbiased)
    if correction is None:
        correction = 1
    if input._a.dtype.kind in "iub":
        raise error(RuntimeError, "std and var only support floating point and complex dtypes")
    axes = axes_of(dim, input._a.ndim)
    if count_of(input._a.shape, axes) <= correction:
        warnings.warn(
            f"{name}(): degrees of freedom is <= 0. Correction should be strictly less than the reduction factor (input "
            "numel divided by output numel).", UserWarning, stacklevel=4,
        )  # fmt: skip
    return axes, bool(keepdim), correction


def _moment(name: str, op: Primitive, average: Primitive | None = None) -> None:
    def fn(
        input: Tensor, dim: Dims = None, *args: Any, unbiased: bool | None = None, correction: Any = None, keepdim: bool = False
    ) -> Any:
        axes, keepdim, correction = _moment_arguments(name, input, dim, args, unbiased, correction, keepdim)
        r = op(input, axes, keepdim, correction)
        return r if average is None else (r, average(input, axes, keepdim))

    fn.__name__ = fn.__qualname__ = name
    what = {"var": "The variance", "std": "The standard deviation"}[name[:3]]
    fn.__doc__ = f"{what} over ``dim``: the sum of squared distances over n - ``correction`` (1)." + (
        " Also the mean." if average else ""
    )
    reduction(method=average is None)(fn)


_moment("var", _var)
_moment("std", _std)
_moment("var_mean", _var_of_pair, _mean_of_var)
_moment("std_mean", _std_of_pair, _mean_of_std)


# ---- logsumexp ------------------------------------------------------------------------------------------------------
def _logsumexp_rule(g: Tensor, x: Tensor, out: Tensor, axes: Any, keepdim: bool) -> Tensor:
    shape = x._a.shape
    return spread(g, shape, axes, keepdim) * conj((x - spread(out, shape, axes, keepdim)).exp())


def _logsumexp_tangent(x_t: Tensor, x: Tensor, out: Tensor, axes: Any, keepdim: bool) -> Tensor:
    return _sum(x_t * (x - spread(out, x._a.shape, axes, keepdim)).exp(), axes, keepdim)


@primitive(
    "logsumexp", vjp={"x": _logsumexp_rule}, jvp=_logsumexp_tangent,
    batch=lambda b, x, axes, keepdim: _logsumexp(x, inner(x, axes), keepdim),
)  # fmt: skip
def _logsumexp(x: Any, /, axes: Any, keepdim: bool) -> Any:
    if not x.size:
        shape = R.reduce("sum", x, axes, keepdim).shape
        return np.full(shape, -np.inf, x.dtype)
    a = x.astype(np.float32) if x.dtype.itemsize == 2 else x
    peak = R.reduce("max", a, axes, True)
    peak = np.where(np.isinf(peak), np.zeros((), a.dtype), peak)
    with quiet(all="ignore"):
        total = R.reduce("sum", np.exp(a - peak), axes, True)
        r = np.log(total) + peak
    if not keepdim:
        r = r.reshape([n for i, n in enumerate(x.shape) if axes is not None and i not in axes])
    return r.astype(x.dtype, copy=False)


@reduction()
def logsumexp(input: Tensor, dim: Dims, keepdim: bool = False) -> Tensor:
    """``log(sum(exp(input)))`` over ``dim``, without overflow.

    >>> import flambeau as torch
    >>> torch.logsumexp(torch.tensor([100., 0.]), 0)
    tensor(100.)
    """
    if input.dtype.category < FLOAT:
        input = cast(input, get_default_dtype())
    return _logsumexp(input, axes_of(dim, input._a.ndim), keepdim)


publish("logsumexp", logsumexp, "special")


# ---- norms ----------------------------------------------------------------------------------------------------------
def _norm_array(x: ndarray, p: float, axes: Any, keepdim: bool) -> ndarray:
    if x.dtype.kind == "c":
        x = np.abs(x)
    half = x.dtype.itemsize == 2
    with quiet(all="ignore"):
        v = E.var("x")
        wide = np.dtype(np.float32) if half else x.dtype
        if p == 0:
            r = R.reduce("sum", x != 0, axes, keepdim)
        elif p == 1:
            r = R.reduce("sum", x, axes, keepdim, wide, E.abs(v))
        elif p == 2:
            r = np.sqrt(R.reduce("sum", x, axes, keepdim, _F64, v * v))
        elif math.isinf(p):
            if not x.size and count_of(x.shape, axes) == 0:
                raise error(
                    RuntimeError,
                    f"linalg.vector_norm cannot compute the {'inf' if p > 0 else '-inf'} norm on an empty tensor because the "
                    "operation does not have an identity",
                )
            r = R.reduce("max" if p > 0 else "min", np.abs(x), axes, keepdim)
        else:
            r = R.reduce("sum", np.abs(x.astype(wide, copy=False)) ** p, axes, keepdim) ** (1 / p)
        return np.asarray(r).astype(x.dtype, copy=False)


def _norm_rule(g: Tensor, x: Tensor, out: Tensor, p: float, axes: Any, keepdim: bool) -> Tensor:
    shape = x._a.shape
    wide = lambda t: spread(t, shape, axes, keepdim)  # noqa: E731
    if p == 0:
        return wrap(np.zeros_like(x._a))
    if p == 1:
        return wide(g) * x.sgn()
    if p == 2:
        return x * wide(_ratio.call(g, out))
    if math.isinf(p):
        size = wrap(np.abs(x._a))
        return wide(g) * x.sgn() * _ties(size, out._a, axes, keepdim)
    slope = wide(_ratio.call(g, out ** (p - 1)))
    if p < 2:  # |x|^(p-1) sgn(x): finite at 0 for p > 1
        size = x.abs()
        power = size ** (p - 1)
        if p < 1:
            power = power.masked_fill(wrap(x._a == 0), 0)
        return slope * x.sgn() * power
    return slope * x * x.abs() ** (p - 2)


_ratio = pointwise(  # g / norm, 0 where the norm is
    "norm_ratio", E.where(E.eq(E.var("x"), 0), 0, E.var("v") / E.var("x")), "v x", node="DivBackward0"
)


def _norm_tangent(x_t: Tensor, x: Tensor, out: Tensor, p: float, axes: Any, keepdim: bool) -> Tensor:
    r = _sum(x_t * conj(_norm_rule(ones_like(out), x, out, p, axes, keepdim)), axes, keepdim)
    return r.real if r._a.dtype.kind == "c" else r


@primitive(
    "vector_norm", node="LinalgVectorNormBackward0", vjp={"x": _norm_rule}, jvp=_norm_tangent,
    batch=lambda b, x, p, axes, keepdim: _vector_norm(x, p, inner(x, axes), keepdim),
)  # fmt: skip
def _vector_norm(x: Any, /, p: float, axes: Any, keepdim: bool) -> Any:
    return _norm_array(x, p, axes, keepdim)


def vector_norm(
    x: Tensor, ord: float = 2, dim: Dims = None, keepdim: bool = False, *, dtype: dtype | None = None, out: Tensor | None = None
) -> Tensor:
    """``(sum |x|^ord)^(1/ord)`` over ``dim`` or everything; ord may be inf, -inf and 0 (the count of non-zeros).

    >>> import flambeau as torch
    >>> torch.linalg.vector_norm(torch.tensor([3., 4.]))
    tensor(5.)
    """
    x = cast(x, dtype)
    if x.dtype.category < FLOAT:
        raise error(
            RuntimeError,
            f"linalg.vector_norm: Expected a floating point or complex tensor as input. Got {SCALAR_NAMES[x.dtype]}",
        )
    r = _vector_norm(x, float(ord), axes_of(dim, x._a.ndim), keepdim)
    if out is not None:
        write_out("linalg_vector_norm", out, r)
        return out
    return r


publish("vector_norm", vector_norm, "linalg")


@reduction()
def norm(input: Tensor, p: Any = "fro", dim: Dims = None, keepdim: bool = False, dtype: dtype | None = None) -> Tensor:
    """The norm of a vector (of all elements, or over ``dim``); ``p``: a number, "fro" (2) or "nuc".

    >>> import flambeau as torch
    >>> torch.norm(torch.tensor([3., 4.]))
    tensor(5.)
    """
    if p == "nuc":
        from .linalg import matrix_norm

        return matrix_norm(input, "nuc", (-2, -1) if dim is None else dim, keepdim, dtype=dtype)
    if isinstance(p, str) and p != "fro":
        raise error(RuntimeError, f"only valid string values are 'fro' and 'nuc', found {p}")
    return vector_norm(input, 2 if p is None or p == "fro" else p, dim, keepdim, dtype=dtype)


@public
def dist(input: Tensor, other: Tensor, p: float = 2) -> Tensor:
    """The p-norm of ``input - other``."""
    return vector_norm(input - other, p)


@public(inplace=True, out=True)
def renorm(input: Tensor, p: float, dim: int, maxnorm: float) -> Tensor:
    """Every slice along ``dim`` scaled down to a p-norm of at most ``maxnorm``."""
    d = wrap_dim(dim, input._a.ndim)
    if input._a.ndim < 2:
        raise error(RuntimeError, f"renorm: input needs at least 2 dimensions, got {input._a.ndim} dimensions")
    if input.dtype.category < FLOAT:
        raise error(
            RuntimeError, f"linalg.vector_norm: Expected a floating point or complex tensor as input. Got {SCALAR_NAMES[input.dtype]}"
        )
    axes = tuple(i for i in range(input._a.ndim) if i != d)
    size = _vector_norm(input, float(p), axes, True)
    factor = maxnorm / (size + 1e-7)
    scale = factor.masked_fill(size.le(maxnorm), 1.0)
    return input * scale
