"""Reductions: sums, products, extremes and moments over any axes, of arrays or of expressions of arrays.

Axes are taken in the order in which they lie in memory and merged where they can be, so a channels-last array is
read as fast as any other. Sums of float32, float16 and bfloat16 are kept in float64 and rounded once. The result
never depends on the number of threads or on their timing.

>>> reduce("sum", np.arange(6.0).reshape(2, 3), (0,))
array([3., 5., 7.])
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import cache
from math import prod
from typing import Any

import numpy as np

from flambeau.kernels import backend, lower_llvm, lower_reduce, threads
from flambeau.kernels import expr as E
from flambeau.kernels.expr import Expr
from flambeau.kernels.lower_numpy import BFLOAT16, numpy_name
from flambeau.kernels.ufunc import Kernel

UFUNCS: dict[str, np.ufunc] = {
    "sum": np.add, "prod": np.multiply, "max": np.maximum, "min": np.minimum, "any": np.logical_or,
    "all": np.logical_and,
}  # fmt: skip

#: Under this many elements NumPy is quicker than setting out the work.
SMALL = 4096
#: From this many elements on, several threads.
PARALLEL = 65_536
#: A last axis shorter than this does not make good vectors.
NARROW = 32

_X = E.var("x")
_FLOATS = frozenset(map(np.dtype, (np.float32, np.float64, np.float16, BFLOAT16)))


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

    Narrower dtypes take one pass that sums x and x² in float64, where no square is rounded; float64 takes two.
    """
    axes = _normal_axes(axes, array.ndim)
    count = prod(array.shape[a] for a in axes)
    with np.errstate(all="ignore"):
        if array.dtype in _FLOATS and array.dtype != np.float64:
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
    roots: tuple[Expr, ...], args: tuple[str, ...], arrays: Sequence[np.ndarray], axes: tuple[int, ...] | None, op: str,
    keepdims: bool, dtype: np.dtype, wide: bool = False,
) -> list[np.ndarray]:  # fmt: skip
    first = arrays[0]
    axes = _normal_axes(axes, first.ndim)
    fits = first.size >= SMALL and first.dtype in _FLOATS and op in lower_reduce.IDENTITY and axes
    fits = fits and all(a.shape == first.shape for a in arrays) and backend.jit_available()
    if fits and lower_llvm.supported(roots, first.dtype.name):
        results = _Plan(first, arrays, axes).run(roots, args, op, wide)
    else:
        results = _by_numpy(roots, args, arrays, axes, op, dtype, wide)
    if keepdims:
        results = [np.expand_dims(r, axes) for r in results]
    with np.errstate(all="ignore"):
        return [np.asarray(r).astype(dtype, copy=False) for r in results]


def _by_numpy(
    roots: tuple[Expr, ...], args: tuple[str, ...], arrays: Sequence[np.ndarray], axes: tuple[int, ...], op: str,
    dtype: np.dtype, wide: bool = False,
) -> list[np.ndarray]:  # fmt: skip
    if wide:
        arrays = [a.astype(np.float64) for a in arrays]
    elif arrays[0].dtype == BFLOAT16 or arrays[0].dtype == np.float16:
        arrays = [a.astype(np.float32) for a in arrays]
    values = arrays[:1] if roots == (E.var(args[0]),) else _pointwise(roots, args)(*arrays)
    values = values if isinstance(values, (tuple, list)) else [values]
    keep = {} if op in ("max", "min", "any", "all") else {"dtype": _accumulator(values[0].dtype, dtype)}
    with np.errstate(all="ignore"):
        return [np.asarray(UFUNCS[op].reduce(v, axis=axes, **keep)) for v in values]


def _accumulator(values: np.dtype, result: np.dtype) -> np.dtype:
    return values if values.kind in "fc" and result.kind not in "c" and values.itemsize >= result.itemsize else result


@cache
def _pointwise(roots: tuple[Expr, ...], args: tuple[str, ...]) -> Kernel:
    return Kernel(roots, args, "map")


# --- the generated path -------------------------------------------------------------------------------------------


class _Plan:
    """How arrays of one shape are seen as (outer, reduce, inner)."""

    def __init__(self, first: np.ndarray, arrays: Sequence[np.ndarray], axes: tuple[int, ...]) -> None:
        order = sorted(range(first.ndim), key=lambda d: -first.strides[d])  # as they lie in memory
        self.kept = [d for d in order if d not in axes]
        self.shape = tuple(first.shape[d] for d in self.kept)
        turned = [a.transpose(order) for a in arrays]
        reduced = [d in axes for d in order]
        dims = _merge(turned, reduced)
        if not _plain(dims, turned):
            turned = [np.ascontiguousarray(t) for t in turned]
            dims = _merge(turned, reduced)
        if not dims[-1].reduced and dims[-1].size < NARROW and len(dims) > 2:
            # too short for vectors, and not one block of memory: the reduced axes go last, by a copy
            rows = [i for i, r in enumerate(reduced) if not r] + [i for i, r in enumerate(reduced) if r]
            turned = [np.ascontiguousarray(t.transpose(rows)) for t in turned]
            dims = _merge(turned, sorted(reduced))
        self.arrays, self.dims = turned, dims

    def run(self, roots: tuple[Expr, ...], args: tuple[str, ...], op: str, wide: bool) -> list[np.ndarray]:
        dims = self.dims
        rows = dims[-1].reduced
        fold, before = (dims[-1], dims[:-1]) if rows else (dims[-2], dims[:-2])
        inner = 1 if rows else dims[-1].size
        outer = prod(d.size for d in before)
        outer_steps = before[-1].steps if before else (0,) * len(self.arrays)
        if 1 < inner < NARROW:
            results = self._narrow(roots, args, op, wide, fold, inner)
        else:
            results = fold_units(roots, args, self.arrays, op, wide, outer, outer_steps, fold.size, fold.steps, inner)
        # what is left to fold has been made smaller by the length of an axis: NumPy's
        shape = [d.size for d in before] + ([] if rows else [inner])
        left = tuple(i for i, d in enumerate(before) if d.reduced)
        place = tuple(np.argsort(self.kept)) if self.kept else ()
        with np.errstate(all="ignore"):
            folded = [UFUNCS[op].reduce(r.reshape(shape), axis=left) if left else r for r in results]
        return [np.asarray(f).reshape(self.shape).transpose(place) for f in folded]


    def _narrow(self, roots: tuple[Expr, ...], args: tuple[str, ...], op: str, wide: bool, fold: _Dim, inner: int) -> list:
        """Short rows without gaps: as many as fill some vectors are taken as one long row, the last few apart."""
        group = -(-64 // inner)
        count = fold.size // group
        zeros = (0,) * len(self.arrays)
        steps = tuple(group * s for s in fold.steps)
        long = fold_units(roots, args, self.arrays, op, wide, 1, zeros, count, steps, group * inner)
        rest = [np.ascontiguousarray(a).reshape(fold.size, inner)[count * group :] for a in self.arrays]
        short = _by_numpy(roots, args, rest, (0,), op, np.dtype(np.float64), wide) if rest[0].size else long
        combine = UFUNCS[op]
        with np.errstate(all="ignore"):
            return [combine(combine.reduce(a.reshape(group, inner), axis=0), b) if rest[0].size else
                    combine.reduce(a.reshape(group, inner), axis=0) for a, b in zip(long, short, strict=True)]  # fmt: skip


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
    """Whether the last axis has no gaps, and what lies before the folded axis can be stepped through as one axis."""
    if any(s != a.itemsize for s, a in zip(dims[-1].steps, arrays, strict=True)):
        return False
    if not dims[-1].reduced and not dims[-2].reduced:
        return False
    before = dims[:-1] if dims[-1].reduced else dims[:-2]
    return all(
        s == b.size * t for a, b in zip(before, before[1:], strict=False) for s, t in zip(a.steps, b.steps, strict=True)
    )


@cache
def _compiled(roots: tuple[Expr, ...], args: tuple[str, ...], dtypes: tuple[str, ...], op: str, wide: bool) -> Callable:
    from flambeau.kernels import jit

    key = f"reduce {lower_reduce.VERSION} {E.serialize(roots)} {args} {dtypes} {op} {wide}"
    address = jit.function(
        key, lambda name, machine: lower_reduce.module(name, roots, args, dtypes, op, machine, wide)
    )
    return ctypes.CFUNCTYPE(None, ctypes.c_void_p)(address)


def fold_units(
    roots: tuple[Expr, ...], args: tuple[str, ...], arrays: Sequence[np.ndarray], op: str, wide: bool, outer: int,
    outer_steps: Sequence[int], reduce: int, reduce_steps: Sequence[int], inner: int,
) -> list[np.ndarray]:  # fmt: skip
    """Fold (outer, reduce, inner) to (outer, inner), in float64, in units that depend on the sizes alone."""
    total = outer * reduce * inner
    part, strip = reduce, inner
    if inner == 1:
        if outer < 64 and reduce > 32_768:
            part = max(16_384, -(-reduce // 64 // 1024) * 1024)
    else:
        if reduce > 512:
            part = 256
        if outer * (-(-reduce // part)) < 16:
            strip = max(64, -(-inner // 16 // 64) * 64)
    parts, strips = -(-reduce // part), -(-inner // strip)
    results = [np.empty((outer, parts, inner)) for _ in roots]
    job = [threads.CONFIG[0] if total >= PARALLEL else 1, outer * parts * strips, parts, part, reduce, strips, strip, inner]
    job += [a.ctypes.data for a in arrays] + [r.ctypes.data for r in results]
    for steps in zip(outer_steps, reduce_steps, strict=True):
        job += steps
    _compiled(roots, args, tuple(a.dtype.name for a in arrays), op, wide)((ctypes.c_int64 * len(job))(*job))
    with np.errstate(all="ignore"):
        return [UFUNCS[op].reduce(r, axis=1) if parts > 1 else r[:, 0] for r in results]
