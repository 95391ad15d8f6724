"""Scans: running sums, products and extremes along a dimension, and their likes: differences and integrals."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..autograd import inplace as ip
from ..autograd.primitive import primitive
from ..core.dtypes import C_NAMES, FLOAT, INT, SCALAR_NAMES, dtype, get_default_dtype, int64
from ..core.errors import error
from ..core.modes import Modes, mode
from ..core.tensor import Tensor, wrap
from . import return_types
from .dims import wrap_dim
from .joining import cat
from .public import become, public, publish
from .reductions import cast, conj, no_complex
from .sorting import chooser

ndarray = np.ndarray
quiet = np.errstate
_WIDE = {"f": np.float64, "V": np.float64, "c": np.complex128}


def _accumulate(ufunc: Any, x: ndarray, dim: int, reverse: bool = False) -> ndarray:
    """A running ``ufunc``, kept in double precision and rounded once."""
    if not x.ndim:
        return x.copy()
    if reverse:
        x = np.flip(x, dim)
    with quiet(all="ignore"):
        r = ufunc.accumulate(x, dim, _WIDE.get(x.dtype.kind)).astype(x.dtype, copy=False)
    return np.flip(r, dim) if reverse else r


# ---- sums and products ----------------------------------------------------------------------------------------------
# One number is its own sum: there the batch is the only dimension.
@primitive(
    "cumsum", vjp={"x": lambda g, dim, reverse: _cumsum(g, dim, not reverse)}, jvp="linear",
    batch=lambda b, x, dim, reverse: _cumsum(x, dim + 1, reverse) if x._a.ndim > 1 else x.clone(),
)  # fmt: skip
def _cumsum(x: Any, /, dim: int, reverse: bool) -> Any:
    return _accumulate(np.add, x, dim, reverse)


def _cumprod_rule(g: Tensor, x: Tensor, out: Tensor, dim: int) -> Tensor:
    a = x._a
    if not a.ndim:
        return g
    zero = a == 0
    if not zero.any():
        return _cumsum(g * conj(out), dim, True) / conj(x)
    if mode() is False:
        return wrap(_cumprod_gradient(g._a, a, out._a, zero, dim))
    # With zeros, to be differentiated again.
    return (conj(_without_each(x, dim)) * g.movedim(dim, -1).unsqueeze(-2)).sum(-1).movedim(-1, dim)


def _without_each(x: Tensor, dim: int) -> Tensor:
    """(..., n, n): for each element of a row the running products without it, 0 before it."""
    n = x._a.shape[dim]
    rows = x.movedim(dim, -1).unsqueeze(-2)
    square = rows.expand((*rows._a.shape[:-2], n, n)).masked_fill(wrap(np.eye(n, dtype=bool)), 1)
    return _cumprod(square, square._a.ndim - 1) * wrap(np.triu(np.ones((n, n), x._a.dtype)))


def _cumprod_tangent(x_t: Tensor, x: Tensor, out: Tensor, dim: int) -> Tensor:
    a = x._a
    if not a.ndim:
        return x_t
    if a.all():
        return _cumsum(x_t / x, dim, False) * out
    return (_without_each(x, dim) * x_t.movedim(dim, -1).unsqueeze(-1)).sum(-2).movedim(-1, dim)


def _cumprod_gradient(g: ndarray, x: ndarray, out: ndarray, zero: ndarray, dim: int) -> ndarray:
    """Before the first zero as if there were none, at it the products without it, after it nothing."""
    met = np.logical_or.accumulate(zero, dim)
    first = zero & (np.add.accumulate(zero, dim, np.int64) == 1)
    without = _accumulate(np.multiply, np.where(first, np.ones((), x.dtype), x), dim)
    at = _accumulate(np.add, g * np.conj(without), dim, True)
    before = _accumulate(np.add, g * np.conj(out), dim, True) / np.conj(np.where(zero, np.ones((), x.dtype), x))
    return np.where(first, at, np.where(met, np.zeros((), x.dtype), before)).astype(x.dtype, copy=False)


@primitive(
    "cumprod", vjp={"x": _cumprod_rule}, jvp=_cumprod_tangent,
    batch=lambda b, x, dim: _cumprod(x, dim + 1) if x._a.ndim > 1 else x.clone(),
)  # fmt: skip
def _cumprod(x: Any, /, dim: int) -> Any:
    return _accumulate(np.multiply, x, dim)


def _declare_running(name: str, op: Any, doc: str) -> None:
    def fn(input: Tensor, dim: int, *, dtype: dtype | None = None) -> Tensor:
        if dtype is None and input.dtype.category <= INT:
            dtype = int64
        return op(cast(input, dtype), wrap_dim(dim, input._a.ndim))

    def in_place(self: Tensor, dim: int, *, dtype: dtype | None = None) -> Tensor:
        if dtype is not None and dtype is not self.dtype:
            names = [C_NAMES[d] for d in (self.dtype, dtype)]
            raise error(RuntimeError, f"Bad in-place call: input tensor dtype {names[0]} and output tensor dtype {names[1]} should match")
        m = mode()
        if m.__class__ is Modes and m.transformed:
            return ip.through_value(lambda was: fn(was, dim, dtype=self.dtype), self, ())
        ip.check_writable(self)
        was = ip.before(self)
        if self._rg and m is not False:
            was._a, was._vc = self._a.copy(), None  # a rule may need the values that are overwritten
        return become(self, fn(was, dim, dtype=self.dtype))

    fn.__name__ = fn.__qualname__ = name
    fn.__doc__ = doc
    in_place.__name__ = in_place.__qualname__ = name + "_"
    in_place.__doc__ = f"``{name}`` in place."
    public(fn, out=True)
    setattr(Tensor, name + "_", in_place)
    publish(name + "_", in_place)


_declare_running("cumsum", lambda x, dim: _cumsum(x, dim, False), """The sum of the elements up to each along ``dim``; of integers in int64.

    >>> import flambeau as torch
    >>> torch.cumsum(torch.tensor([1., 2., 3.]), 0)
    tensor([1., 3., 6.])
    """)  # fmt: skip
_declare_running("cumprod", _cumprod, """The product of the elements up to each along ``dim``; of integers in int64.

    >>> import flambeau as torch
    >>> torch.cumprod(torch.tensor([1., 2., 3.]), 0)
    tensor([1., 2., 6.])
    """)  # fmt: skip


# ---- extremes -------------------------------------------------------------------------------------------------------
def _declare_extreme(name: str, compare: Any, ufunc: Any) -> None:
    op = chooser(f"{name.capitalize()}Backward0")

    @primitive(f"{name}_places", batch=lambda b, x, dim: places(x, dim + 1) if x._a.ndim > 1 else x.new_zeros(b.size, dtype=int64))
    def places(x: Any, /, dim: int) -> Any:
        if not x.ndim or not x.size:
            return np.zeros(x.shape, np.int64)
        best = ufunc.accumulate(x, dim)
        own = np.arange(x.shape[dim]).reshape([-1 if i == dim else 1 for i in range(x.ndim)])
        return np.maximum.accumulate(np.where(compare(x, best) | (x != x), own, 0), dim)

    def fn(input: Tensor, dim: int) -> Any:
        no_complex(f"{name}_cpu", input)
        d = wrap_dim(dim, input._a.ndim)
        index = places(input, d)
        return getattr(return_types, name)((op(input, index, d), index))

    fn.__name__ = fn.__qualname__ = name
    fn.__doc__ = f"The {name[3:]}imum of the elements up to each along ``dim``, and its (last) place: (values, indices)."
    public(fn, out=True)


_declare_extreme("cummax", np.greater_equal, np.maximum)
_declare_extreme("cummin", np.less_equal, np.minimum)


# ---- logcumsumexp ---------------------------------------------------------------------------------------------------
def _logaddexp(x: ndarray, dim: int) -> ndarray:
    if not x.ndim or not x.size:
        return x.copy()
    if x.dtype.kind != "c":
        with quiet(all="ignore"):
            return np.logaddexp.accumulate(x.astype(np.float64), dim).astype(x.dtype)
    rows = np.moveaxis(x, dim, 0).astype(np.complex128)
    out = rows.copy()
    with quiet(all="ignore"):
        for i in range(1, len(rows)):
            peak = np.maximum(out[i - 1].real, rows[i].real)
            peak = np.where(np.isinf(peak), 0, peak)
            out[i] = peak + np.log(np.exp(out[i - 1] - peak) + np.exp(rows[i] - peak))
    return np.moveaxis(out, 0, dim).astype(x.dtype)


def _logcumsumexp_rule(g: Tensor, x: Tensor, out: Tensor, dim: int) -> Tensor:
    """The sum over j >= k of g_j exp(x_k - out_j)."""
    a = x._a
    if not a.ndim:
        return g
    finite = out._a != -np.inf
    if mode() is False and a.dtype.kind != "c":
        with quiet(all="ignore"):
            base = np.where(finite, out._a, 0).astype(np.float64)
            size = np.log(np.abs(g._a.astype(np.float64))) - base
            total: Any = 0.0
            for sign in (1, -1):
                part = np.where(g._a * sign > 0, size, -np.inf)
                total += sign * np.exp(np.flip(_logaddexp(np.flip(part, dim), dim), dim) + a)
            return wrap(total.astype(a.dtype))
    n = a.shape[dim]
    top = out.masked_fill(wrap(~finite), 0)
    row = lambda t: t.movedim(dim, -1)  # noqa: E731
    weights = row(conj(x)).unsqueeze(-1) - row(conj(top)).unsqueeze(-2)
    weights = weights.masked_fill(wrap(np.tri(n, k=-1, dtype=bool)), -np.inf).exp()
    return (weights * row(g).unsqueeze(-2)).sum(-1).movedim(-1, dim)


def _logcumsumexp_tangent(x_t: Tensor, x: Tensor, out: Tensor, dim: int) -> Tensor:
    """The sum over j <= k of t_j exp(x_j - out_k)."""
    if not x._a.ndim:
        return x_t
    top = out.masked_fill(wrap(out._a == -np.inf), 0)
    weights = x.movedim(dim, -1).unsqueeze(-1) - top.movedim(dim, -1).unsqueeze(-2)
    weights = weights.masked_fill(wrap(np.tri(x._a.shape[dim], k=-1, dtype=bool)), -np.inf).exp()
    return (weights * x_t.movedim(dim, -1).unsqueeze(-1)).sum(-2).movedim(-1, dim)


@primitive(
    "logcumsumexp", vjp={"x": _logcumsumexp_rule}, jvp=_logcumsumexp_tangent,
    batch=lambda b, x, dim: _logcumsumexp(x, dim + 1) if x._a.ndim > 1 else x.clone(),
)  # fmt: skip
def _logcumsumexp(x: Any, /, dim: int) -> Any:
    return _logaddexp(x, dim)


@public(out=True)
def logcumsumexp(input: Tensor, dim: int) -> Tensor:
    """The log of the running sum of ``exp(input)`` along ``dim``, without overflow."""
    if input.dtype.category < FLOAT:
        raise error(NotImplementedError, f"\"logcumsumexp_out_cpu\" not implemented for '{SCALAR_NAMES[input.dtype]}'")
    return _logcumsumexp(input, wrap_dim(dim, input._a.ndim))


# ---- differences and integrals --------------------------------------------------------------------------------------
def _halves(t: Tensor, d: int) -> tuple[Tensor, Tensor]:
    """All but the last, and all but the first, along a dimension."""
    n = t._a.shape[d]
    if not n:
        return t, t
    return t.narrow(d, 0, n - 1), t.narrow(d, 1, n - 1)


@public(out=True)
def diff(input: Tensor, n: int = 1, dim: int = -1, prepend: Tensor | None = None, append: Tensor | None = None) -> Tensor:
    """The difference of each element and the one before it along ``dim``, ``n`` times over.

    >>> import flambeau as torch
    >>> torch.diff(torch.tensor([1, 3, 2]))
    tensor([ 2, -1])
    """
    if not input._a.ndim:
        raise error(RuntimeError, "diff expects input to be at least one-dimensional")
    d = wrap_dim(dim, input._a.ndim)
    if n < 0:
        raise error(RuntimeError, f"order must be non-negative but got {n}")
    ends = [t for t in (prepend, append) if t is not None]
    if any(t._a.ndim != input._a.ndim for t in ends):
        raise error(RuntimeError, "diff expects prepend or append to be the same dimension as input")
    if ends:
        input = cat([t for t in (prepend, input, append) if t is not None], d)
    if not n:
        return input.clone()
    for _ in range(min(n, input._a.shape[d])):
        before, after = _halves(input, d)
        input = after.logical_xor(before) if input._a.dtype.kind == "b" else after - before
    return input


def _spacing(name: str, y: Tensor, x: Tensor | None, dx: Any, dim: int) -> tuple[int, Any]:
    """(the dimension, the distance between samples: a number or a tensor to multiply with)."""
    if not y._a.ndim:
        raise error(IndexError, f"Dimension specified as {dim} but tensor has no dimensions")
    d = wrap_dim(dim, y._a.ndim)
    if y._a.dtype.kind == "b":
        raise error(RuntimeError, f"{name}: received a bool input for `y`, but bool is not supported")
    if x is None:
        return d, 1 if dx is None else dx
    if dx is not None:
        raise error(TypeError, f"{name}() received an invalid combination of arguments - got (Tensor, Tensor, dx={type(dx).__name__}): give x or dx")
    if x._a.dtype.kind == "b":
        raise error(RuntimeError, f"{name}: received a bool input for `x`, but bool is not supported")
    if x._a.ndim == 1:
        if x._a.size != y._a.shape[d]:
            raise error(RuntimeError, f"{name}: There must be one `x` value for each sample point")
        x = x.reshape([-1 if i == d else 1 for i in range(y._a.ndim)])
    else:
        x = x.reshape((1,) * (y._a.ndim - x._a.ndim) + x._a.shape)
        if x._a.shape[d] != y._a.shape[d]:
            raise error(RuntimeError, f"{name}: There must be one `x` value for each sample point")
    before, after = _halves(x, d)
    return d, after - before


@public(method=False)
def trapezoid(y: Tensor, x: Tensor | None = None, *, dx: Any = None, dim: int = -1) -> Tensor:
    """The integral along ``dim`` by the trapezoidal rule, of samples at ``x`` or ``dx`` (1) apart.

    >>> import flambeau as torch
    >>> torch.trapezoid(torch.tensor([1., 5., 10.]))
    tensor(10.5000)
    """
    d, step = _spacing("trapezoid", y, x, dx, dim)
    if not y._a.shape[d]:
        return y.sum(d) * 1.0
    if x is None:
        return (y.sum(d) - (y.select(d, 0) + y.select(d, -1)) * 0.5) * step
    before, after = _halves(y, d)
    return ((before + after) * step).sum(d) / 2.0


@public(method=False)
def trapz(y: Tensor, x: Tensor | None = None, *, dx: Any = None, dim: int = -1) -> Tensor:
    """``trapezoid``."""
    return trapezoid(y, x, dx=dx, dim=dim)


@public(method=False)
def cumulative_trapezoid(y: Tensor, x: Tensor | None = None, *, dx: Any = None, dim: int = -1) -> Tensor:
    """The integral up to each sample but the first, by the trapezoidal rule."""
    d, step = _spacing("cumulative_trapezoid", y, x, dx, dim)
    if not y._a.shape[d]:
        return y.clone()
    before, after = _halves(y, d)
    pairs = before + after
    if isinstance(step, Tensor):
        return (pairs * step).cumsum(d) / 2.0
    return (pairs * (step / 2.0)).cumsum(d)


def _coordinates(name: str, spacing: Any, dims: tuple[int, ...]) -> list[Any]:
    if isinstance(spacing, (int, float, complex, np.number)):
        return [spacing] * len(dims)
    each = list(spacing)
    if any([isinstance(s, Tensor) and s._a.ndim != 1 for s in each]):
        raise error(RuntimeError, f"{name} expected each element of spacing to have one dimension, but got an element with "
                    f"{next(s._a.ndim for s in each if isinstance(s, Tensor) and s._a.ndim != 1)} dimensions!")
    if len(each) != len(dims):
        raise error(
            RuntimeError,
            f"torch.gradient expected spacing to be unspecified, a scalar, or a list of length {len(dims)}, but got a list of "
            f"length {len(each)}",
        )
    return each


@public(method=False)
def gradient(input: Tensor, *, spacing: Any = 1, dim: Any = None, edge_order: int = 1) -> tuple[Tensor, ...]:
    """Estimates of the derivative along each dimension by central differences, one-sided at the edges.

    ``spacing``: the distance between samples, or for each dimension its distance or the samples' coordinates.

    >>> import flambeau as torch
    >>> torch.gradient(torch.tensor([1., 4., 9.]))
    (tensor([3., 4., 5.]),)
    """
    places = isinstance(spacing, (tuple, list)) and any([isinstance(s, Tensor) for s in spacing])
    if input._a.dtype.kind == "b" and not places:
        raise error(RuntimeError, "Subtraction, the `-` operator, with two bool tensors is not supported. Use the `^` or "
                    "`logical_xor()` operator instead.")
    if input._a.dtype == np.uint8:
        raise error(RuntimeError, "torch.gradient does not support uint8 input.")
    n = input._a.ndim
    dims = tuple(range(n)) if dim is None else tuple([wrap_dim(d, n) for d in ([dim] if isinstance(dim, int) else dim)])
    if edge_order not in (1, 2):
        raise error(RuntimeError, "torch.gradient only supports edge_order=1 and edge_order=2.")
    for d in dims:
        if input._a.shape[d] < edge_order + 1:
            raise error(RuntimeError, "torch.gradient expected each dimension size to be at least edge_order+1")
    if input.dtype.category <= INT:
        input = cast(input, get_default_dtype())
    return tuple([_slope(input, d, s, edge_order) for d, s in zip(dims, _coordinates("gradient", spacing, dims))])


def _slope(y: Tensor, d: int, spacing: Any, order: int) -> Tensor:
    """Weighted differences with the steps before and after each sample (numbers or tensors)."""
    n = y._a.shape[d]
    at = lambda lo, size: y.narrow(d, lo, size)  # noqa: E731
    if isinstance(spacing, Tensor) and spacing._a.ndim:
        steps = diff(spacing).reshape([-1 if i == d else 1 for i in range(y._a.ndim)])
        step = lambda lo, size: steps.narrow(d, lo, size)  # noqa: E731
        h, k = step(0, n - 2), step(1, n - 2)
        first, second, before, last = step(0, 1), step(min(1, n - 2), 1), step(max(n - 3, 0), 1), step(n - 2, 1)
    else:
        h = k = first = second = before = last = spacing
    middle = (at(2, n - 2) - at(1, n - 2)) * (h / (k * (h + k))) + (at(1, n - 2) - at(0, n - 2)) * (k / (h * (h + k)))
    left, right = (at(1, 1) - at(0, 1)) / first, (at(n - 1, 1) - at(n - 2, 1)) / last
    if order == 2:
        left = left * (1 + first / (first + second)) - (at(2, 1) - at(1, 1)) / second * (first / (first + second))
        right = right * (1 + last / (last + before)) - (at(n - 2, 1) - at(n - 3, 1)) / before * (last / (last + before))
    return cat([left, middle, right], d)
