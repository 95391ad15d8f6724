"""Order: sorting, selection, medians and quantiles, unique values, counting and searching.

Sorting finds indices; the values are then picked by them, and the gradient goes back the same way.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..core.dtypes import FLOAT, SCALAR_NAMES, int32
from ..core.errors import error
from ..core.tensor import Tensor, wrap
from . import return_types
from .dims import wrap_dim
from .public import public
from .reductions import picker, reduction

_PICK = {
    name: picker(node)
    for name, node in (
        ("sort", "SortBackward0"), ("topk", "TopkBackward0"), ("kthvalue", "KthvalueBackward0"), ("median", "MedianBackward1"),
        ("median_all", "MedianBackward0"), ("nanmedian", "NanmedianBackward1"), ("nanmedian_all", "NanmedianBackward0"),
        ("mode", "ModeBackward0"), ("quantile", "GatherBackward0"),
    )
}  # fmt: skip


def comparable(a: np.ndarray) -> np.ndarray:
    """The values in a dtype that NumPy sorts, nan last."""
    return a.astype(np.float32) if a.dtype.kind == "V" else a


def order(a: np.ndarray, dim: int, descending: bool, stable: bool = True) -> np.ndarray:
    """Indices that sort along ``dim``; equal elements stay in order."""
    a = comparable(a)
    kind = "stable" if stable else None
    if not descending:
        return np.argsort(a, axis=dim, kind=kind)
    # backwards: sort the reversed array, so that equal ones keep their order, and nan comes first
    back = (slice(None),) * dim + (slice(None, None, -1),)
    return a.shape[dim] - 1 - np.argsort(a[back], axis=dim, kind=kind)[back]


def _refuse_complex(name: str, t: Tensor) -> None:
    if t._a.dtype.kind == "c":
        raise error(RuntimeError, f"{name}(): does not support complex input", hint="Complex numbers have no order.")


def _scalar_result(name: str, t: Tensor, pick: str | None = None) -> Any:
    zero = np.zeros((), np.int64)
    return getattr(return_types, name)((_PICK[pick or name](t, zero, 0, True), wrap(zero)))


# ---- sorting --------------------------------------------------------------------------------------------------------
@public(out=True)
def sort(input: Tensor, dim: int = -1, descending: bool = False, stable: bool = False) -> Any:
    """The elements in order along ``dim``, as (values, indices); nan counts as the largest. Equal elements keep their order.

    >>> import flambeau as torch
    >>> torch.sort(torch.tensor([3., 1., 2.])).indices
    tensor([1, 2, 0])
    """
    _refuse_complex("sort", input)
    d = wrap_dim(dim, input._a.ndim)
    if not input._a.ndim:
        return _scalar_result("sort", input)
    index = order(input._a, d, descending)
    return return_types.sort((_PICK["sort"](input, index, d, True), wrap(index)))


@public
def argsort(input: Tensor, dim: int = -1, descending: bool = False, stable: bool = False) -> Tensor:
    """The indices that sort along ``dim``."""
    _refuse_complex("argsort", input)
    d = wrap_dim(dim, input._a.ndim)
    return wrap(order(input._a, d, descending) if input._a.ndim else np.zeros((), np.int64))


@public(out=True)
def msort(input: Tensor) -> Tensor:
    """Sorted along the first dimension."""
    return sort(input, 0)[0]


@public(out=True)
def topk(input: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Any:  # noqa: A002
    """The ``k`` largest (or smallest) elements along ``dim``, as (values, indices).

    >>> import flambeau as torch
    >>> torch.topk(torch.tensor([1., 5., 3.]), 2).values
    tensor([5., 3.])
    """
    _refuse_complex("topk", input)
    a = input._a
    d = wrap_dim(dim, a.ndim)
    if not 0 <= k <= (a.shape[d] if a.ndim else 1):
        raise error(RuntimeError, "selected index k out of range")
    if not a.ndim:
        return _scalar_result("topk", input)
    n = a.shape[d]
    first = (slice(None),) * d + (slice(k),)
    if n > 4 * k and n > 64:
        # partition first, then sort the few: ties are broken by position as far as the partition shows them
        values = comparable(a)
        part = (slice(None),) * d + ((slice(n - k, None) if largest else slice(k)),)
        few = np.argpartition(values, n - k if largest else k, axis=d)[part] if k else np.argsort(values, axis=d)[first]
        few = np.sort(few, axis=d)
        index = np.take_along_axis(few, order(np.take_along_axis(a, few, d), d, largest), d)
    else:
        index = order(a, d, largest)[first]
    return return_types.topk((_PICK["topk"](input, index, d, True), wrap(np.ascontiguousarray(index))))


@public(out=True)
def kthvalue(input: Tensor, k: int, dim: int = -1, keepdim: bool = False) -> Any:
    """The k-th smallest element along ``dim`` (k from 1), as (values, indices)."""
    _refuse_complex("kthvalue", input)
    a = input._a
    d = wrap_dim(dim, a.ndim)
    if not 1 <= k <= (a.shape[d] if a.ndim else 1):
        raise error(RuntimeError, "kthvalue(): selected number k out of range for dimension " + str(d))
    if not a.ndim:
        return _scalar_result("kthvalue", input)
    return _picked("kthvalue", input, np.take(order(a, d, False), [k - 1], axis=d), d, keepdim)


def _picked(name: str, input: Tensor, index: np.ndarray, d: int, keepdim: bool) -> Any:
    shown = index if keepdim else index.squeeze(d)
    return getattr(return_types, name)((_PICK[name](input, index, d, keepdim), wrap(shown)))


# ---- medians, mode, quantiles ---------------------------------------------------------------------------------------
def _median_index(a: np.ndarray, d: int, ignore_nan: bool) -> np.ndarray:
    """Where the lower median is; with a nan, the first nan, unless those are ignored."""
    values = comparable(a)
    ranks = np.argsort(values, axis=d, kind="stable")
    n = a.shape[d]
    if values.dtype.kind != "f":
        return np.take(ranks, [(n - 1) // 2], axis=d)
    count = np.sum(~np.isnan(values), axis=d, keepdims=True)
    middle = np.maximum((count - 1) // 2, 0)
    if not ignore_nan:
        middle = np.where(count < n, count, middle)
    return np.take_along_axis(ranks, middle, d)


def _median(name: str, ignore_nan: bool) -> None:
    def fn(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
        _refuse_complex(name, input)
        a = input._a
        if dim is None:
            if not a.size:
                return wrap(np.asarray(np.nan if a.dtype.kind in "fV" else np.iinfo(a.dtype).min).astype(a.dtype))
            flat = input.reshape(-1)  # type: ignore[attr-defined]
            return _PICK[name + "_all"](flat, _median_index(flat._a, 0, ignore_nan), 0, False)
        d = wrap_dim(dim, a.ndim)
        if not a.ndim:
            return _scalar_result(name, input)
        if not a.shape[d]:
            raise error(IndexError, f"{name}(): Expected reduction dim {d} to have non-zero size.")
        return _picked(name, input, _median_index(a, d, ignore_nan), d, keepdim)

    fn.__name__ = fn.__qualname__ = name
    fn.__doc__ = "The lower median of all elements, or along ``dim`` as (values, indices)" + ("; nans don't count." if ignore_nan else ".")
    reduction()(fn)


_median("median", False)
_median("nanmedian", True)


@reduction()
def mode(input: Tensor, dim: int = -1, keepdim: bool = False) -> Any:
    """The most frequent element along ``dim`` (the smallest of them), and the last place where it is."""
    _refuse_complex("mode", input)
    a = input._a
    d = wrap_dim(dim, a.ndim)
    if not a.ndim:
        return _scalar_result("mode", input)
    if not a.shape[d]:
        raise error(IndexError, f"mode(): Expected reduction dim {d} to have non-zero size.")
    ranks = np.moveaxis(np.argsort(comparable(a), axis=d, kind="stable"), d, -1)
    values = np.take_along_axis(np.moveaxis(a, d, -1), ranks, -1)
    n = a.shape[d]
    place = np.arange(n)
    fresh = np.ones(values.shape, bool)
    fresh[..., 1:] = values[..., 1:] != values[..., :-1]
    start = np.maximum.accumulate(np.where(fresh, place, 0), axis=-1)
    last = np.argmax(place - start, axis=-1)[..., None]  # the end of the first of the longest runs
    index = np.moveaxis(np.take_along_axis(ranks, last, -1), -1, d)
    return _picked("mode", input, index, d, keepdim)


def _quantile(name: str, ignore_nan: bool) -> None:
    def fn(input: Tensor, q: Any, dim: int | None = None, keepdim: bool = False, *, interpolation: str = "linear") -> Tensor:
        if input._a.dtype.kind != "f" or input._a.dtype.itemsize < 4:
            raise error(RuntimeError, f"{name}() input tensor must be either float or double dtype")
        if not isinstance(q, Tensor):
            q = wrap(np.asarray(q, input._a.dtype))
        elif q.dtype is not input.dtype:
            raise error(RuntimeError, f"{name}() q tensor must be same dtype as the input tensor")
        if q._a.ndim > 1:
            raise error(RuntimeError, f"{name}() q must be a scalar or 1D tensor")
        if ((q._a < 0) | (q._a > 1)).any():
            raise error(RuntimeError, f"{name}() q must be in the range [0, 1] but got {q._a.reshape(-1)[0]}" if q._a.ndim == 0
                        else f"{name}() q values must be in the range [0, 1]")  # fmt: skip
        if interpolation not in ("linear", "lower", "higher", "midpoint", "nearest"):
            raise error(
                RuntimeError,
                f"{name}() interpolation must be one of linear, lower, higher, midpoint or nearest, but got {interpolation}",
            )
        if not input._a.size:
            raise error(RuntimeError, f"{name}() input tensor must be non-empty")
        ndim = input._a.ndim
        x = input.reshape(-1) if dim is None else input  # type: ignore[attr-defined]
        d = 0 if dim is None or not ndim else wrap_dim(dim, ndim)
        ordered = sort(x, d)[0].movedim(d, -1)
        r = _at_quantiles(ordered, q._a.reshape(-1), ignore_nan, interpolation)  # (*, len(q))
        if keepdim:
            r = r.reshape((1,) * ndim + (-1,)) if dim is None else r.unsqueeze(d)
        r = r.movedim(-1, 0)
        return r if q._a.ndim else r.squeeze(0)

    fn.__name__ = fn.__qualname__ = name
    fn.__doc__ = "The values below which the fraction ``q`` of the elements lies" + ("; nans don't count." if ignore_nan else ".")
    reduction()(fn)


def _at_quantiles(ordered: Tensor, q: np.ndarray, ignore_nan: bool, interpolation: str) -> Tensor:
    a = ordered._a
    n = a.shape[-1]
    nans = np.isnan(a).sum(-1, keepdims=True)
    count = n - nans if ignore_nan else np.full(nans.shape, n)
    rank = q * np.maximum(count - 1, 0)
    if not ignore_nan:
        rank = np.where(nans > 0, n - 1, rank)
    elif n:
        rank = np.where(count == 0, n - 1, rank)
    rank = rank.astype(a.dtype)
    if interpolation == "nearest":
        rank = np.round(rank)
    low, high = np.floor(rank).astype(np.int64), np.ceil(rank).astype(np.int64)
    if interpolation == "higher":
        low = high
    below = _PICK["quantile"](ordered, low, a.ndim - 1, True)
    if interpolation in ("lower", "higher", "nearest"):
        return below
    weight = wrap(np.full(rank.shape, 0.5, a.dtype) if interpolation == "midpoint" else (rank - low).astype(a.dtype))
    return below.lerp(_PICK["quantile"](ordered, high, a.ndim - 1, True), weight)  # type: ignore[attr-defined, no-any-return]


_quantile("quantile", False)
_quantile("nanquantile", True)


# ---- unique values --------------------------------------------------------------------------------------------------
@public
def unique(
    input: Tensor, sorted: bool = True, return_inverse: bool = False, return_counts: bool = False, dim: int | None = None  # noqa: A002
) -> Any:
    """The different elements (or slices along ``dim``), sorted; with their inverse indices and counts if asked for.

    >>> import flambeau as torch
    >>> torch.unique(torch.tensor([3, 1, 3]), return_counts=True)
    (tensor([1, 3]), tensor([1, 2]))
    """
    a = comparable(input._a)
    axis = None if dim is None else wrap_dim(dim, a.ndim)
    values, inverse, counts = np.unique(a, return_inverse=True, return_counts=True, axis=axis, equal_nan=False)
    shape = a.shape if axis is None else (a.shape[axis],)
    return _with(values.astype(input._a.dtype), inverse.reshape(shape), counts, return_inverse, return_counts)


def _with(values: np.ndarray, inverse: np.ndarray, counts: np.ndarray, return_inverse: bool, return_counts: bool) -> Any:
    r = [wrap(values)]
    if return_inverse:
        r.append(wrap(inverse.astype(np.int64)))
    if return_counts:
        r.append(wrap(counts.astype(np.int64)))
    return r[0] if len(r) == 1 else tuple(r)


@public
def unique_consecutive(input: Tensor, return_inverse: bool = False, return_counts: bool = False, dim: int | None = None) -> Any:
    """The first of every run of equal elements (or slices along ``dim``)."""
    a = input._a if dim is not None else input._a.reshape(-1)
    d = 0 if dim is None else wrap_dim(dim, a.ndim)
    turned = np.moveaxis(a, d, 0)
    n = len(turned)
    fresh = np.ones(n, bool)
    if n:
        fresh[1:] = (turned[1:] != turned[:-1]).reshape(n - 1, -1).any(1)
    starts = np.flatnonzero(fresh)
    inverse = np.cumsum(fresh) - 1
    counts = np.diff(np.append(starts, n))
    shape = input._a.shape if dim is None else (n,)
    return _with(np.moveaxis(turned[starts], 0, d).copy(), inverse.reshape(shape), counts, return_inverse, return_counts)


# ---- counting -------------------------------------------------------------------------------------------------------
@public
def bincount(input: Tensor, weights: Tensor | None = None, minlength: int = 0) -> Tensor:
    """How often each value of a 1-d tensor of non-negative integers comes; with ``weights``, their sums."""
    a = input._a
    if a.ndim != 1 or a.dtype.kind not in "iu" or (a < 0).any():
        raise error(RuntimeError, "bincount only supports 1-d non-negative integral inputs.")
    if minlength < 0:
        raise error(RuntimeError, "minlength should be >= 0")
    if weights is not None and weights._a.shape != a.shape:
        raise error(RuntimeError, "weights should be 1-d and have the same length as input")
    w = None if weights is None else weights._a
    r = np.bincount(a, w, minlength)
    return wrap(r.astype(np.int64 if w is None else np.float32 if w.dtype == np.float32 else np.float64))


@public(out=True)
def histc(input: Tensor, bins: int = 100, min: float = 0, max: float = 0) -> Tensor:  # noqa: A002
    """How many elements lie in each of ``bins`` equal intervals of [min, max]; of the data's own range if both are 0."""
    if bins <= 0:
        raise error(RuntimeError, f"bins must be > 0, but got {bins} for dimension 0")
    a = comparable(input._a).reshape(-1)
    if a.dtype.kind != "f":
        raise error(NotImplementedError, f"\"histogram_cpu\" not implemented for '{SCALAR_NAMES[input.dtype]}'")
    low, high = float(min), float(max)
    if low == high and a.size:
        low, high = float(a.min()), float(a.max())
    if not np.isfinite([low, high]).all():
        raise error(RuntimeError, f"torch.histc: range of [{low}, {high}] is not finite")
    if low > high:
        raise error(RuntimeError, "torch.histc: max must be larger than min")
    if low == high:
        low, high = low - 1, high + 1
    return wrap(np.histogram(a, bins, (low, high))[0].astype(input._a.dtype))


@public
def histogram(input: Tensor, bins: Any, *, range: Any = None, weight: Tensor | None = None, density: bool = False) -> Any:  # noqa: A002
    """Counts in intervals and the edges of these, as (hist, bin_edges)."""
    if input.dtype.category != FLOAT:
        raise error(NotImplementedError, f"\"histogram_cpu\" not implemented for '{SCALAR_NAMES[input.dtype]}'")
    edges = bins._a if isinstance(bins, Tensor) else bins
    hist, at = np.histogram(input._a.reshape(-1), edges, range, density, None if weight is None else weight._a.reshape(-1))
    return _HISTOGRAM((wrap(hist.astype(input._a.dtype)), wrap(at.astype(input._a.dtype))))


_HISTOGRAM = return_types.return_type("histogram", "hist", "bin_edges")


# ---- searching ------------------------------------------------------------------------------------------------------
@public(method=False, out=True)
def searchsorted(
    sorted_sequence: Tensor, input: Any, *, out_int32: bool = False, right: bool = False, side: str | None = None,
    sorter: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Where values would go in sorted rows, to keep them sorted: before equal ones, or after (``right``).

    >>> import flambeau as torch
    >>> torch.searchsorted(torch.tensor([1, 3, 5]), torch.tensor([3, 6]))
    tensor([1, 3])
    """
    if side is not None and side not in ("left", "right"):
        raise error(RuntimeError, f"torch.searchsorted(): side can only be 'left' or 'right' but got {side}")
    if side == "left" and right:
        raise error(RuntimeError, "torch.searchsorted(): side and right can't be set to opposites, got side of left while right was True")
    where = "right" if right or side == "right" else "left"
    s = comparable(sorted_sequence._a)
    if sorter is not None:
        s = np.take_along_axis(s, sorter._a, -1)
    v = comparable(input._a) if isinstance(input, Tensor) else np.asarray(input)
    if s.ndim == 1:
        r = np.searchsorted(s, v, where)
    else:
        if v.shape[:-1] != s.shape[:-1]:
            raise error(
                RuntimeError,
                "torch.searchsorted(): boundaries tensor should be 1 dimension or the first N-1 dimensions of boundaries tensor "
                f"and input value tensor must match, but we got boundaries tensor {list(s.shape)} and input value tensor "
                f"{list(v.shape)}",
            )
        rows = zip(s.reshape(-1, s.shape[-1]), v.reshape(-1, v.shape[-1]))
        r = np.array([np.searchsorted(a, b, where) for a, b in rows]).reshape(v.shape)
    return wrap(np.asarray(r, int32.np if out_int32 else np.int64))


@public(method=False, out=True)
def bucketize(input: Any, boundaries: Tensor, *, out_int32: bool = False, right: bool = False) -> Tensor:
    """The interval between ``boundaries`` in which each value lies."""
    if boundaries._a.ndim != 1:
        raise error(
            RuntimeError,
            f"torch.bucketize(): boundaries tensor must be 1 dimension, but got dim({boundaries._a.ndim})",
        )
    return searchsorted(boundaries, input, out_int32=out_int32, right=right)


