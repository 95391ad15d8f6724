"""Running sums, products and extremes, differences, and integrals by the trapezoidal rule."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..autograd.primitive import primitive
from ..core.dtypes import SCALAR_NAMES, dtype, int64
from ..core.errors import error
from ..core.modes import mode
from ..core.tensor import Tensor, wrap
from . import return_types
from .dims import wrap_dim
from .public import public
from .reductions import cast, picker

quiet = np.errstate


def reverse(a: np.ndarray, dim: int) -> np.ndarray:
    return a[(slice(None),) * dim + (slice(None, None, -1),)] if a.ndim else a


def accumulate(ufunc: Any, a: np.ndarray, dim: int) -> np.ndarray:
    """A running fold; half precision in float32."""
    if not a.ndim or not a.size:
        return a.copy()
    half = a.dtype.kind == "V" or a.dtype == np.float16
    with quiet(all="ignore"):
        r = ufunc.accumulate(a.astype(np.float32) if half else a, axis=dim)
    return r.astype(a.dtype) if half else r


@primitive("flip_", node="FlipBackward0", vjp={"x": lambda g, dim: _flip(g, dim)})
def _flip(x: Any, /, dim: int) -> Any:
    return reverse(x, dim).copy()


@primitive("cumsum", vjp={"x": lambda g, dim: _cumsum_back(g, dim)})
def _cumsum(x: Any, /, dim: int) -> Any:
    return accumulate(np.add, x, dim)


@primitive("cumsum_back", node="CumsumBackward0", vjp={"x": lambda g, dim: _cumsum(g, dim)})
def _cumsum_back(x: Any, /, dim: int) -> Any:
    """The sum of each element and all after it."""
    return reverse(accumulate(np.add, reverse(x, dim), dim), dim)


def _integers_to_long(t: Tensor, d: dtype | None) -> Tensor:
    return cast(t, d if d is not None else int64 if t._a.dtype.kind in "iub" else None)


@public(inplace=True, out=True)
def cumsum(input: Tensor, dim: int, *, dtype: dtype | None = None) -> Tensor:
    """Running sums along ``dim``; of integers in int64.

    >>> import flambeau as torch
    >>> torch.cumsum(torch.tensor([1., 2., 3.]), 0)
    tensor([1., 3., 6.])
    """
    return _cumsum(_integers_to_long(input, dtype), wrap_dim(dim, input._a.ndim))


def _cumprod_rule(g: Tensor, x: Tensor, out: Tensor, dim: int) -> Tensor:
    conj = x._a.dtype.kind == "c"
    if not x._a.ndim or not x._a.size:
        return g
    if x._a.all():
        back = _cumsum_back(g * (out.conj() if conj else out), dim)  # type: ignore[attr-defined]
        return back / (x.conj() if conj else x)  # type: ignore[attr-defined, no-any-return]
    if mode() is False:
        return wrap(_cumprod_slope(g._a, np.conj(x._a), dim))
    # with zeros, to be differentiated again: row i of `steps` is the running product with element i taken as 1
    n = x._a.shape[dim]
    rows = x.movedim(dim, -1).unsqueeze(-2)  # type: ignore[attr-defined]
    square = rows.expand(*rows._a.shape[:-2], n, n).masked_fill(wrap(np.eye(n, dtype=bool)), 1)
    after = wrap(np.triu(np.ones((n, n), x._a.dtype)))
    steps = _cumprod(square, square._a.ndim - 1) * after
    steps = steps.conj() if conj else steps
    return (steps * g.movedim(dim, -1).unsqueeze(-2)).sum(-1).movedim(-1, dim)  # type: ignore[attr-defined, no-any-return]


def _cumprod_slope(g: np.ndarray, x: np.ndarray, dim: int) -> np.ndarray:
    """The gradient by Horner's rule, zeros and all: h[i] = g[i] + x[i+1] h[i+1], times the product of what is before i."""
    x, g = np.moveaxis(x, dim, 0), np.moveaxis(g, dim, 0)
    h, before = np.empty_like(x), np.ones_like(x)
    before[1:] = np.multiply.accumulate(x[:-1], axis=0)
    h[-1] = g[-1]
    for i in range(len(x) - 2, -1, -1):
        h[i] = g[i] + x[i + 1] * h[i + 1]
    return np.moveaxis(h * before, 0, dim)


@primitive("cumprod", vjp={"x": _cumprod_rule})
def _cumprod(x: Any, /, dim: int) -> Any:
    return accumulate(np.multiply, x, dim)


@public(inplace=True, out=True)
def cumprod(input: Tensor, dim: int, *, dtype: dtype | None = None) -> Tensor:
    """Running products along ``dim``; of integers in int64."""
    return _cumprod(_integers_to_long(input, dtype), wrap_dim(dim, input._a.ndim))


def _logcumsumexp_array(x: np.ndarray, dim: int) -> np.ndarray:
    half = x.dtype.itemsize == 2
    return accumulate(np.logaddexp, x.astype(np.float32) if half else x, dim).astype(x.dtype)


def _logcumsumexp_rule(g: Tensor, x: Tensor, out: Tensor, dim: int) -> Tensor:
    """The sum over all later ones of g exp(x - out), the positive and negative parts of g in logarithms apart."""
    parts = []
    for sign in (1.0, -1.0):
        mask = wrap(g._a * sign > 0)
        logs = (g * sign).masked_fill(~mask, 1.0).log().masked_fill(~mask, -math.inf)  # type: ignore[attr-defined]
        total = _flip(_logcumsumexp(_flip(logs - out, dim), dim), dim)
        parts.append((total + x).exp() * sign)  # type: ignore[attr-defined]
    return parts[0] + parts[1]  # type: ignore[no-any-return]


@primitive("logcumsumexp", vjp={"x": _logcumsumexp_rule})
def _logcumsumexp(x: Any, /, dim: int) -> Any:
    return _logcumsumexp_array(x, dim)


@public(out=True)
def logcumsumexp(input: Tensor, dim: int) -> Tensor:
    """The logarithm of running sums of ``exp(input)``, without overflow."""
    if input._a.dtype.kind not in "fV":
        raise error(NotImplementedError, f"\"logcumsumexp_out_cpu\" not implemented for '{SCALAR_NAMES[input.dtype]}'")
    return _logcumsumexp(input, wrap_dim(dim, input._a.ndim))


_PICK = {"cummax": picker("CummaxBackward0"), "cummin": picker("CumminBackward0")}


def _running_extreme(name: str, ufunc: Any) -> None:
    def fn(input: Tensor, dim: int) -> Any:
        a = input._a
        d = wrap_dim(dim, a.ndim)
        if not a.ndim:
            return getattr(return_types, name)((_PICK[name](input, np.zeros((), np.int64), 0, True), wrap(np.zeros((), np.int64))))
        values = accumulate(ufunc, a, d)
        # the last place so far at which the running extreme was met (a nan counts as met)
        places = np.arange(a.shape[d]).reshape([-1 if i == d else 1 for i in range(a.ndim)])
        met = np.where((a == values) | (a != a), places, -1)
        index = np.maximum.accumulate(met, axis=d) if a.size else met.astype(np.int64)
        return getattr(return_types, name)((_PICK[name](input, index.astype(np.int64), d, True), wrap(index.astype(np.int64))))

    fn.__name__ = fn.__qualname__ = name
    fn.__doc__ = f"Running {name[3:]}ima along ``dim``, as (values, indices)."
    public(fn, out=True)


_running_extreme("cummax", np.maximum)
_running_extreme("cummin", np.minimum)


@public(out=True)
def diff(input: Tensor, n: int = 1, dim: int = -1, prepend: Tensor | None = None, append: Tensor | None = None) -> Tensor:
    """Differences of neighbours along ``dim``, ``n`` times."""
    if not input._a.ndim:
        raise error(RuntimeError, "diff expects input to be at least one-dimensional")
    if n < 0:
        raise error(RuntimeError, f"order must be non-negative but got {n}")
    d = wrap_dim(dim, input._a.ndim)
    ends = [t for t in (prepend, input, append) if t is not None]
    if len(ends) > 1:
        from .public import FUNCTIONS

        input = FUNCTIONS[""]["cat"](ends, d)
    for _ in range(min(n, input._a.shape[d])):
        m = input._a.shape[d] - 1
        later, earlier = input.narrow(d, 1, m), input.narrow(d, 0, m)  # type: ignore[attr-defined]
        input = later ^ earlier if input._a.dtype.kind == "b" else later - earlier
    return input


def _steps(y: Tensor, x: Tensor | None, dx: Any, d: int) -> Any:
    """Widths of the intervals along ``d``."""
    if x is None:
        return dx
    if x._a.ndim == 1:
        if x._a.shape[0] != y._a.shape[d]:
            raise error(RuntimeError, "trapezoid: There must be one `x` value for each sample point")
        x = x.reshape([-1 if i == d else 1 for i in range(y._a.ndim)])  # type: ignore[attr-defined]
    return diff(x, dim=d - y._a.ndim)


def _areas(y: Tensor, x: Tensor | None, dx: Any, d: int) -> Tensor:
    n = y._a.shape[d]
    left, right = y.narrow(d, 0, max(n - 1, 0)), y.narrow(d, min(1, n), max(n - 1, 0))  # type: ignore[attr-defined]
    return (left + right) * _steps(y, x, dx, d) / 2  # type: ignore[no-any-return]


@public(method=False, names=("trapz",))
def trapezoid(y: Tensor, x: Tensor | None = None, *, dx: Any = 1, dim: int = -1) -> Tensor:
    """The integral of samples ``y`` at points ``x`` (or ``dx`` apart) along ``dim``, by the trapezoidal rule.

    >>> import flambeau as torch
    >>> torch.trapezoid(torch.tensor([1., 5., 10.]))
    tensor(10.5000)
    """
    return _areas(y, x, dx, wrap_dim(dim, y._a.ndim)).sum(dim)  # type: ignore[attr-defined, no-any-return]


@public(method=False)
def cumulative_trapezoid(y: Tensor, x: Tensor | None = None, *, dx: Any = 1, dim: int = -1) -> Tensor:
    """``trapezoid`` up to each point."""
    d = wrap_dim(dim, y._a.ndim)
    return cumsum(_areas(y, x, dx, d), d)
