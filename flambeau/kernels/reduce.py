"""Reductions: sums, products, extremes and moments over any axes, of arrays or of expressions of arrays.

Axes are taken in the order in which they lie in memory and merged where they can be, so a channels-last
array is read as fast as any other. Sums of float32, float16 and bfloat16 are kept in float64 and rounded
once. The result never depends on the number of threads or on their timing.

>>> reduce("sum", np.arange(6.0).reshape(2, 3), (0,))
array([3., 5., 7.])
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable, Sequence
from functools import cache
from math import prod
from typing import Any

import numpy as np

from flambeau.kernels import backend, channels, memory, threads
from flambeau.kernels import expr as E
from flambeau.kernels.expr import Expr
from flambeau.kernels.lower_numpy import is_half
from flambeau.kernels.ufunc import Kernel

UFUNCS: dict[str, np.ufunc] = {
    "sum": np.add,
    "prod": np.multiply,
    "max": np.maximum,
    "min": np.minimum,
    "any": np.logical_or,
    "all": np.logical_and,
}

#: Under this many elements NumPy is quicker than setting out the work.
SMALL = 4096
#: From this many elements on, several threads.
PARALLEL = 65_536
#: A last axis shorter than this does not make good vectors.
NARROW = 32

#: From this length of rows on, sums down the columns take a few rows at a time.
LONG = 256

_X = E.var("x")
_COLUMN_SUMS = channels.ChannelSums([_X], ("x",), (), "columns")
#: What generated kernels fold.
_FOLDED = ("sum", "prod", "max", "min")


def reduce(
    op: str,
    array: np.ndarray,
    axes: tuple[int, ...] | None = None,
    keepdims: bool = False,
    dtype: np.dtype | None = None,
    expr: Expr | None = None,
) -> np.ndarray:
    """Fold `array` (or `expr` of it, in its only variable) over `axes` (None: all) with one of `UFUNCS`.

    `dtype` is the result's; without it, it is the array's, but int64 for sums and products of integers and of
    truth values, and bool for `any` and `all`. max and min give nan where there is one.
    """
    if dtype is None:
        dtype = _result_dtype(op, array.dtype)
    root = _X if expr is None else E.rename(expr, {E.variables(expr)[0]: "x"})
    return _map_reduce((root,), ("x",), (array,), axes, op, keepdims, dtype)[0]


def map_reduce(
    exprs: Sequence[Expr],
    args: Sequence[str],
    arrays: Sequence[np.ndarray],
    axes: tuple[int, ...] | None,
    op: str = "sum",
    keepdims: bool = False,
    dtype: np.dtype | None = None,
) -> list[np.ndarray]:
    """Fold several expressions of the same arrays in one pass: one result for each.

    >>> x, y = E.var("x"), E.var("y")
    >>> map_reduce([x * y, x * x], ("x", "y"), (np.ones((2, 3)), np.full((2, 3), 2.0)), (1,))
    [array([6., 6.]), array([3., 3.])]
    """
    dtype = dtype or _result_dtype(op, arrays[0].dtype)
    return _map_reduce(tuple(exprs), tuple(args), arrays, axes, op, keepdims, dtype)


def moments(array: np.ndarray, axes: tuple[int, ...] | None, keepdims: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """The mean, and the mean squared distance from it, over `axes`: float64, or the array's dtype if complex.

    Narrower dtypes take one pass that sums x and x² in float64, where no square is rounded; float64 takes
    two.
    """
    axes = _normal_axes(axes, array.ndim)
    count = prod(array.shape[a] for a in axes)
    with np.errstate(all="ignore"):
        if array.dtype.kind in "fV" and array.dtype != np.float64:
            wide = np.dtype(np.float64)
            total, squares = _map_reduce((_X, _X * _X), ("x",), (array,), axes, "sum", keepdims, wide, wide=True)
            mean = total / count
            return np.asarray(mean), np.asarray(np.maximum(squares / count - mean * mean, 0))
        mean = reduce("sum", array, axes, True) / count
        centred = array - mean
        square = (centred * centred.conj()).real if array.dtype.kind == "c" else centred * centred
        spread = reduce("sum", square, axes, keepdims) / count
        return np.asarray(mean if keepdims else mean.reshape(spread.shape)), np.asarray(spread)


def _result_dtype(op: str, dtype: np.dtype) -> np.dtype:
    if op in ("any", "all"):
        return np.dtype(bool)
    return np.dtype(np.int64) if op in ("sum", "prod") and dtype.kind in "iub" else dtype


def _normal_axes(axes: tuple[int, ...] | None, ndim: int) -> tuple[int, ...]:
    return tuple(range(ndim)) if axes is None else tuple(sorted({a % ndim for a in axes})) if ndim else ()


def _map_reduce(
    roots: tuple[Expr, ...],
    args: tuple[str, ...],
    arrays: Sequence[np.ndarray],
    axes: tuple[int, ...] | None,
    op: str,
    keepdims: bool,
    dtype: np.dtype,
    wide: bool = False,
) -> list[np.ndarray]:
    key = (roots, args, axes, op, keepdims, dtype, wide, *((a.shape, a.strides, a.dtype) for a in arrays))
    plan = _plans.get(key)
    if plan is None:
        if len(_plans) > 4096:
            _plans.clear()
        plan = _plans[key] = _make_plan(roots, args, arrays, axes, op, keepdims, dtype, wide)
    return plan(arrays)


_plans: dict[tuple, Callable[[Sequence[np.ndarray]], list[np.ndarray]]] = {}


def _make_plan(
    roots: tuple[Expr, ...],
    args: tuple[str, ...],
    arrays: Sequence[np.ndarray],
    axes: tuple[int, ...] | None,
    op: str,
    keepdims: bool,
    dtype: np.dtype,
    wide: bool,
) -> Callable[[Sequence[np.ndarray]], list[np.ndarray]]:
    first = arrays[0]
    axes = _normal_axes(axes, first.ndim)
    fits = first.size and first.dtype.kind in "fV" and op in _FOLDED and axes and dtype.kind in "fV"
    fits = fits and all(a.shape == first.shape for a in arrays) and backend.jit_available()
    if fits and _generated(roots, first.dtype.name):
        plan = _Plan(arrays, axes, roots, args, op, keepdims, dtype, wide)
        if _long_columns(plan, roots, first, op, dtype, wide):
            return lambda arrays: [_COLUMN_SUMS([arrays[0].reshape(-1, plan.inner)])[0].astype(dtype).reshape(plan.final)]
        if (plan.direct and not 1 < plan.inner < NARROW) or first.size >= SMALL:
            return plan.run
    return lambda arrays: _by_numpy(roots, args, arrays, axes, op, dtype, wide, keepdims)


def _long_columns(plan: _Plan, roots: tuple[Expr, ...], array: np.ndarray, op: str, dtype: np.dtype, wide: bool) -> bool:
    """Whether this is the sum of the rows of a matrix whose rows are long: taken a few at a time, as they lie."""
    if op != "sum" or wide or roots != (_X,) or dtype != array.dtype or not (plan.direct and array.flags.c_contiguous):
        return False
    wanted = plan.inner >= LONG and plan.fold.size * plan.inner == array.size and plan.place is None
    return wanted and channels.along_channels(array.reshape(-1, plan.inner))


def _generated(roots: tuple[Expr, ...], dtype: str) -> bool:
    from flambeau.kernels import lower_llvm

    return lower_llvm.supported(roots, dtype)


def _by_numpy(
    roots: tuple[Expr, ...],
    args: tuple[str, ...],
    arrays: Sequence[np.ndarray],
    axes: tuple[int, ...],
    op: str,
    dtype: np.dtype,
    wide: bool = False,
    keepdims: bool = False,
) -> list[np.ndarray]:
    if wide:
        arrays = [a.astype(np.float64) for a in arrays]
    elif is_half(arrays[0].dtype):
        arrays = [a.astype(np.float32) for a in arrays]
    values = arrays[:1] if roots == (E.var(args[0]),) else _pointwise(roots, args)(*arrays)
    values = values if isinstance(values, (tuple, list)) else [values]
    keep: dict[str, Any] = {"dtype": _accumulator(values[0].dtype, dtype)} if op in ("sum", "prod") else {}
    with np.errstate(all="ignore"):
        values = [UFUNCS[op].reduce(v, axis=axes, keepdims=keepdims, **keep) for v in values]
        return [np.asarray(v).astype(dtype, copy=False) for v in values]


def _accumulator(values: np.dtype, result: np.dtype) -> np.dtype:
    """What sums and products are kept in."""
    if values.kind == "f" and result.kind != "c":
        return np.dtype(np.float64)
    return result


@cache
def _pointwise(roots: tuple[Expr, ...], args: tuple[str, ...]) -> Kernel:
    return Kernel(roots, args, "map")


# --- the generated path -------------------------------------------------------------------------------------


class _Plan:
    """How arrays of given shapes and strides are seen as (outer, reduce, inner), and cut into units."""

    def __init__(
        self,
        arrays: Sequence[np.ndarray],
        axes: tuple[int, ...],
        roots: tuple[Expr, ...],
        args: tuple[str, ...],
        op: str,
        keepdims: bool,
        dtype: np.dtype,
        wide: bool,
    ) -> None:
        self.roots, self.args, self.op, self.wide, self.dtype = roots, args, op, wide, dtype
        first = arrays[0]
        self.order = sorted(range(first.ndim), key=lambda d: -first.strides[d])  # as they lie in memory
        reduced = [d in axes for d in self.order]
        turned = [a.transpose(self.order) for a in arrays]
        dims = _merge(turned, reduced)
        self.direct = _plain(dims, turned)
        if not self.direct:
            turned = [np.ascontiguousarray(t) for t in turned]
            dims = _merge(turned, reduced)
        if not dims[-1].reduced and dims[-1].size < NARROW and len(dims) > 2:
            # too short for vectors, and not one block of memory: the reduced axes go last, by a copy
            self.direct = False
            self.order = [d for d in self.order if d not in axes] + [d for d in self.order if d in axes]
            turned = [np.ascontiguousarray(a.transpose(self.order)) for a in arrays]
            dims = _merge(turned, sorted(reduced))
        rows = dims[-1].reduced
        self.fold, before = (dims[-1], dims[:-1]) if rows else (dims[-2], dims[:-2])
        self.inner = 1 if rows else dims[-1].size
        self.shape = [d.size for d in before] + ([] if rows else [self.inner])
        self.left = tuple(i for i, d in enumerate(before) if d.reduced)
        kept = [d for d in self.order if d not in axes]
        self.kept_shape = [first.shape[d] for d in kept]
        place = np.argsort(kept).tolist() if kept else []
        self.place = place if place != sorted(place) else None
        logical = [first.shape[d] for d in sorted(kept)]
        self.final = [1 if d in axes else n for d, n in enumerate(first.shape)] if keepdims else logical
        if not 1 < self.inner < NARROW:
            outer_steps = before[-1].steps if before else (0,) * len(arrays)
            wanted = np.dtype(np.float64) if self.left else dtype
            outer = prod(d.size for d in before)
            names = tuple(a.dtype.name for a in arrays)
            self.units = _Units(roots, args, names, op, wide, wanted, outer, outer_steps, self.fold, self.inner)
            self.quick = not self.left and self.place is None and self.direct
        else:
            group = -(-64 // self.inner)
            zeros, names = (0,) * len(arrays), tuple(a.dtype.name for a in arrays)
            fold = _Dim(True, self.fold.size // group, tuple(group * s for s in self.fold.steps))
            self.units = _Units(roots, args, names, op, wide, np.dtype(np.float64), 1, zeros, fold, group * self.inner)
            self.group, self.quick = group, False

    def run(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        if self.quick:
            return [r.reshape(self.final) for r in self.units.run(arrays)]
        arrays = [a.transpose(self.order) for a in arrays]
        if not self.direct:
            arrays = [np.ascontiguousarray(a) for a in arrays]
        with np.errstate(all="ignore"):
            results = self._narrow(arrays) if 1 < self.inner < NARROW else self.units.run(arrays)
            # what is left to fold has been made smaller by the length of an axis: NumPy's
            if self.left:
                results = [UFUNCS[self.op].reduce(r.reshape(self.shape), axis=self.left) for r in results]
            results = [np.asarray(r).astype(self.dtype, copy=False).reshape(self.kept_shape) for r in results]
            if self.place is not None:
                results = [r.transpose(self.place) for r in results]
            return [r.reshape(self.final) for r in results]

    def _narrow(self, arrays: Sequence[np.ndarray]) -> list:
        """Short rows without gaps: as many as fill some vectors make one long row, the last few go apart."""
        combine, size = UFUNCS[self.op], self.fold.size
        results = []
        if size >= self.group:
            results.append([combine.reduce(r.reshape(self.group, -1), axis=0) for r in self.units.run(arrays)])
        if size % self.group:
            rest = [a.reshape(size, self.inner)[size - size % self.group :] for a in arrays]
            results.append(_by_numpy(self.roots, self.args, rest, (0,), self.op, np.dtype(np.float64), self.wide))
        return results[0] if len(results) == 1 else [combine(a, b) for a, b in zip(*results, strict=True)]


class _Dim:
    """Neighbouring axes of one kind, as one: its size, and its step in each array."""

    __slots__ = ("reduced", "size", "steps")

    def __init__(self, reduced: bool, size: int, steps: tuple[int, ...]) -> None:
        self.reduced, self.size, self.steps = reduced, size, steps


def _merge(arrays: Sequence[np.ndarray], reduced: Sequence[bool]) -> list[_Dim]:
    dims: list[_Dim] = []
    for i, size in enumerate(arrays[0].shape):
        steps = tuple(a.strides[i] for a in arrays)
        if size == 1:
            continue
        last = dims[-1] if dims else None
        if last and last.reduced == reduced[i] and all(a == size * b for a, b in zip(last.steps, steps, strict=True)):
            dims[-1] = _Dim(reduced[i], last.size * size, steps)
        else:
            dims.append(_Dim(reduced[i], size, steps))
    if not any(d.reduced for d in dims):  # every reduced axis has one element
        dims.append(_Dim(True, 1, tuple(a.itemsize for a in arrays)))
    return dims


def _plain(dims: list[_Dim], arrays: Sequence[np.ndarray]) -> bool:
    """Whether the last axis has no gaps, and what lies before the folded axis is one axis."""
    if any(s != a.itemsize for s, a in zip(dims[-1].steps, arrays, strict=True)):
        return False
    if not dims[-1].reduced and not dims[-2].reduced:
        return False
    before = dims[:-1] if dims[-1].reduced else dims[:-2]
    return all(
        s == b.size * t for a, b in zip(before, before[1:], strict=False) for s, t in zip(a.steps, b.steps, strict=True)
    )


@cache
def _compiled(
    roots: tuple[Expr, ...], args: tuple[str, ...], dtypes: tuple[str, ...], result: str, op: str, wide: bool
) -> Callable:
    from flambeau.kernels import jit, lower_reduce

    key = f"reduce {lower_reduce.VERSION} {E.serialize(roots)} {args} {dtypes} {result} {op} {wide}"
    address = jit.function(
        key, lambda name, machine: lower_reduce.module(name, roots, args, dtypes, result, op, machine, wide)
    )
    return ctypes.CFUNCTYPE(None, ctypes.c_char_p)(address)


class _Units:
    """(outer, reduce, inner) folded to (outer, inner), in units that depend on the sizes alone."""

    def __init__(
        self,
        roots: tuple[Expr, ...],
        args: tuple[str, ...],
        dtypes: tuple[str, ...],
        op: str,
        wide: bool,
        dtype: np.dtype,
        outer: int,
        outer_steps: Sequence[int],
        fold: _Dim,
        inner: int,
    ) -> None:
        part, strip = max(fold.size, 1), inner
        if inner == 1:
            if outer < 64 and fold.size > 32_768:
                part = max(16_384, -(-fold.size // 64 // 1024) * 1024)
        else:
            if fold.size > 512:
                part = 256
            if outer * -(-fold.size // part) < 16:
                strip = max(64, -(-inner // 16 // 64) * 64)
        parts, strips = max(1, -(-fold.size // part)), -(-inner // strip)
        self.count, self.parts, self.op, self.dtype = len(roots), parts, op, dtype
        self.large = outer * fold.size * inner >= PARALLEL
        stored = np.dtype(np.float64) if parts > 1 else dtype
        self.results = ((outer, parts, inner), stored)
        self.head = [outer * parts * strips, parts, part, fold.size, strips, strip, inner]
        self.steps = [s for pair in zip(outer_steps, fold.steps, strict=True) for s in pair]
        self.function = _compiled(roots, args, dtypes, stored.name, op, wide)
        count = 1 + len(self.head) + len(args) + len(roots) + len(self.steps)
        self.job = struct.Struct(f"{count}q").pack  # bytes: the quickest way to an array of int64

    def run(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        results = [np.empty(*self.results) for _ in range(self.count)]
        data = map(memory.address, (*arrays, *results))
        self.function(self.job(threads.CONFIG[0] if self.large else 1, *self.head, *data, *self.steps))
        if self.parts == 1:
            return results
        with np.errstate(all="ignore"):
            return [UFUNCS[self.op].reduce(r, axis=1).astype(self.dtype) for r in results]
