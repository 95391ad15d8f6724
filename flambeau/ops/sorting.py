"""Order: sort, topk, medians, quantiles; histograms and counts; unique values; search in what is sorted.

An operator that chooses elements gives (values, indices); the gradient of the values goes to where they came from.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from ..autograd.primitive import Primitive, primitive
from ..autograd.transforms.batching import loops
from ..core.dtypes import C_NAMES, SCALAR_NAMES, int64
from ..core.errors import error
from ..core.tensor import Tensor, wrap
from ..kernels import sort as S
from . import return_types
from .dims import wrap_dim
from .indexing import _gather_backward, gather
from .public import public, write_out
from .reductions import _ties, no_complex, not_empty, picker, reduction, spread, squeezed
from .takes import takes

ndarray = np.ndarray


# ---- elements chosen along a dimension ------------------------------------------------------------------------------
def chooser(node: str) -> Primitive:
    """``x`` at the places of an index along ``dim``."""

    @primitive(
        f"choose:{node}", node=node, vjp={"x": lambda g, x_shape, index, dim: _gather_backward(g, index, x_shape, dim)}, jvp="linear",
        batch=lambda b, x, index, dim: choose(x, b.full(index, b.has("index")), dim + 1) if x._a.ndim > 1 else x.clone(),
    )  # fmt: skip
    def choose(x: Any, index: Any, /, dim: int) -> Any:
        return np.take_along_axis(x, index, dim) if x.ndim else x.copy()

    return choose


_SORT = {None: chooser("SortBackward0"), True: chooser("SortBackward1"), False: chooser("SortBackward1")}
_topk = chooser("TopkBackward0")


def _places_batch(b: Any, x: Tensor, dim: int, find: Any, args: Any) -> Tensor:
    return _places(x, dim + 1, find, args) if x._a.ndim > 1 else x.new_zeros(b.size, dtype=int64)


@primitive("places", batch=_places_batch)
def _places(x: Any, /, dim: int, find: Any, args: Any) -> Any:
    """``find(rows, *args)``, computed along the last axis, with ``dim`` back in its place."""
    if not x.ndim:
        return np.zeros((), np.int64)
    found = find(np.moveaxis(x, dim, -1), *args)
    return np.ascontiguousarray(np.moveaxis(found, -1, dim), np.int64)


def along(x: Tensor, dim: int, find: Any, *args: Any) -> Tensor:
    """The places that ``find`` finds in every row of ``x`` along ``dim``."""
    return _places(x, dim, find, args)


def _one(index: Any) -> Any:
    """An index function that gives one place, as one that gives a row of one."""
    return lambda rows, *args: np.asarray(index(rows, *args))[..., None]


def _chosen(name: str, op: Primitive, x: Tensor, index: Tensor, dim: int, keepdim: bool = True) -> Any:
    """The named result; without ``keepdim`` the index has one place along ``dim``, which goes."""
    one = "keepdim" in op.params
    found = op(x, index, dim, keepdim) if one else op(x, index, dim)
    return getattr(return_types, name)((found, index if keepdim or not x._a.ndim else squeezed(index, dim)))


def _picker(node: str) -> Primitive:
    """``chooser`` of one place along ``dim``, which goes unless ``keepdim``."""
    return picker(f"choose_one:{node}", node)


def _no_complex(name: str, x: Tensor) -> None:
    if x._a.dtype.kind == "c":
        raise error(RuntimeError, f" {name} does not support complex dtypes on CPU")


@public(out=True)
def sort(input: Tensor, dim: int = -1, descending: bool = False, stable: bool | None = None) -> Any:
    """The values along ``dim`` in rising (or falling) order, and where they were. nan is the largest value.

    Equal values always keep their order, whether ``stable`` asks for it or not.

    >>> import flambeau as torch
    >>> torch.sort(torch.tensor([3., 1., 2.])).indices
    tensor([1, 2, 0])
    """
    _no_complex("Sort", input)
    d = wrap_dim(dim, input._a.ndim)
    return _chosen("sort", _SORT[stable], input, along(input, d, S.argsort, bool(descending)), d)


@public
def argsort(input: Tensor, dim: int = -1, descending: bool = False, stable: bool = False) -> Tensor:
    """The indices that ``sort`` gives."""
    _no_complex("Sort", input)
    return along(input, wrap_dim(dim, input._a.ndim), S.argsort, bool(descending))


@public(out=True)
def msort(input: Tensor) -> Tensor:
    """The values along the first dimension in rising order."""
    return sort(input, 0)[0]


@public(out=True)
def topk(input: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Any:
    """The ``k`` largest (or smallest) values along ``dim``, in order, and where they were.

    >>> import flambeau as torch
    >>> torch.topk(torch.arange(5.), 2).values
    tensor([4., 3.])
    """
    _no_complex("topk", input)
    a = input._a
    if a.dtype.kind == "b":
        raise error(RuntimeError, "topk does not support bool dtypes on CPU")
    d = wrap_dim(dim, a.ndim)
    n = a.shape[d] if a.ndim else 1
    if not 0 <= k <= n:
        raise error(RuntimeError, "selected index k out of range", hint=f"k is {k}, the dimension has {n}.")
    return _chosen("topk", _topk, input, along(input, d, S.first, int(k), bool(largest)), d)


_kthvalue, _mode = _picker("KthvalueBackward0"), _picker("ModeBackward0")


@reduction()
def kthvalue(input: Tensor, k: int, dim: int = -1, keepdim: bool = False) -> Any:
    """The ``k``-th smallest value along ``dim`` (the smallest is the first), and where it is."""
    takes("kthvalue_cpu", input, "ihf")
    a = input._a
    d = wrap_dim(dim, a.ndim)
    if a.ndim:
        not_empty("kthvalue", a, (d,))
    if not 1 <= k <= (a.shape[d] if a.ndim else 1):
        raise error(RuntimeError, f"kthvalue(): selected number k out of range for dimension {d}")
    return _chosen("kthvalue", _kthvalue, input, along(input, d, _one(S.place_of), int(k) - 1), d, keepdim)


@reduction()
def mode(input: Tensor, dim: int = -1, keepdim: bool = False) -> Any:
    """The value that comes most often along ``dim`` (the smallest of several), and its last place."""
    no_complex("mode_cpu", input)
    d = wrap_dim(dim, input._a.ndim)
    if input._a.ndim:
        not_empty("mode", input._a, (d,))
    return _chosen("mode", _mode, input, along(input, d, _one(S.most_frequent)), d, keepdim)


# ---- medians and quantiles ------------------------------------------------------------------------------------------
def _median_place(rows: ndarray) -> ndarray:
    """The lower median of each row, or its first nan."""
    found = S.place_of(rows, (rows.shape[-1] - 1) // 2)
    if rows.dtype.kind in "fV":
        bad = rows != rows
        found = np.where(bad.any(-1), bad.argmax(-1), found)
    return found


def _nanmedian_place(rows: ndarray) -> ndarray:
    """The lower median of what is not nan."""
    if rows.dtype.kind not in "fV":
        return _median_place(rows)
    k = np.maximum((rows == rows).sum(-1, keepdims=True) - 1, 0) // 2
    return np.take_along_axis(S.argsort(rows), k, -1)[..., 0]


_PLACE = {"median": _median_place, "nanmedian": _nanmedian_place}


def _median_of_all(name: str) -> Any:
    """The median of all elements; those that are equal to it share its gradient."""

    def slope(x: Tensor, out: Tensor, lead: int) -> tuple[Any, Tensor]:
        axes = tuple(range(lead, x._a.ndim))
        return axes, _ties(x, out._a, axes, False)

    def vjp(g: Tensor, x: Tensor, out: Tensor, lead: int) -> Tensor:
        axes, ties = slope(x, out, lead)
        return spread(g, x._a.shape, axes) * ties

    def jvp(x_t: Tensor, x: Tensor, out: Tensor, lead: int) -> Tensor:
        axes, ties = slope(x, out, lead)
        return (x_t * ties).sum(axes) if axes else x_t * ties

    @primitive(
        f"{name}_all", node=f"{name.capitalize()}Backward0", vjp={"x": vjp}, jvp=jvp, batch=lambda b, x, lead: kernel(x, lead + 1)
    )
    def kernel(x: Any, /, lead: int) -> Any:
        """Over all dimensions but the first ``lead``."""
        if not x.size:
            return np.full(x.shape[:lead], np.nan if x.dtype.kind in "fV" else np.iinfo(x.dtype).min, x.dtype)
        rows = x.reshape(*x.shape[:lead], -1)
        if not lead:
            return rows[_PLACE[name](rows)]
        return np.take_along_axis(rows, np.asarray(_PLACE[name](rows))[..., None], -1)[..., 0]

    return kernel


def _declare_median(name: str, doc: str) -> None:
    of_all, along_dim = _median_of_all(name), _picker(f"{name.capitalize()}Backward1")

    def fn(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
        takes("median_cpu" if dim is None else "median_out", input, "ihf")
        if dim is None:
            return of_all(input, 0)
        d = wrap_dim(dim, input._a.ndim)
        if input._a.ndim:
            not_empty(name, input._a, (d,))
        return _chosen(name, along_dim, input, along(input, d, _one(_PLACE[name])), d, keepdim)

    fn.__name__ = fn.__qualname__ = name
    fn.__doc__ = doc
    reduction()(fn)


_declare_median("median", "The median of all elements, or over ``dim`` (values, indices); the lower of two; nan if there is one.")
_declare_median("nanmedian", "``median`` of what isn't nan.")

_ROUND = {"linear": None, "midpoint": None, "lower": np.floor, "higher": np.ceil, "nearest": np.rint}


def _check_quantile(name: str, x: Tensor, q: Any, interpolation: str) -> None:
    if x._a.dtype.kind != "f" or x._a.dtype.itemsize < 4:
        raise error(RuntimeError, f"{name}() input tensor must be either float or double dtype")
    if not x._a.size:
        raise error(RuntimeError, f"{name}() input tensor must be non-empty")
    if interpolation not in _ROUND:
        raise error(
            RuntimeError,
            f"{name}() interpolation must be one of linear, lower, higher, midpoint or nearest, but got {interpolation}",
        )
    if not isinstance(q, Tensor):
        if not 0 <= q <= 1:
            raise error(RuntimeError, f"{name}() q must be in the range [0, 1] but got {q:g}")
        return
    if q._a.ndim > 1:
        raise error(RuntimeError, f"{name}() q must be a scalar or 1D tensor")
    if q._a.dtype != x._a.dtype:
        raise error(RuntimeError, f"{name}() q tensor must be same dtype as the input tensor")
    all_q = q._everything()
    if not ((all_q >= 0) & (all_q <= 1)).all():
        raise error(RuntimeError, f"{name}() q values must be in the range [0, 1]")


def _ranks_batch(b: Any, rows: Tensor, q: Tensor, skip_nan: bool, rounding: Any) -> Any:
    rows, q = b.aligned(rows=rows, q=q)
    return _ranks(rows.expand(b.size, *rows._a.shape[1:]), q, skip_nan, rounding)


@primitive("quantile_ranks", batch=_ranks_batch)
def _ranks(rows: Any, q: Any, /, skip_nan: bool, rounding: Any) -> Any:
    """For each quantile of rows in rising order: the places below and above it, the rank where it starts to count, the last rank.

    A row with nan gives its last element, unless they are skipped.
    """
    n = rows.shape[-1]
    if skip_nan:
        last = np.maximum((rows == rows).sum(-1, keepdims=True) - 1, 0).astype(rows.dtype)
        rank = at = q * last
        start = np.floor(at)
    else:
        last = np.full((*rows.shape[:-1], 1), n - 1, rows.dtype)
        spoiled = rows[..., -1:] != rows[..., -1:]
        rank = np.broadcast_to(q * last, (*rows.shape[:-1], q.shape[-1]))
        at = np.where(spoiled, rows.dtype.type(n - 1), rank)
        start = np.where(spoiled, rank, np.floor(at))
    if rounding is not None:
        places = rounding(at).astype(np.int64)
        return places, places, start, last
    return np.floor(at).astype(np.int64), np.ceil(at).astype(np.int64), start, last


def _quantile(name: str, input: Tensor, q: Any, dim: int | None, keepdim: bool, interpolation: str) -> Tensor:
    _check_quantile(name, input, q, interpolation)
    a = input._a
    d = 0 if dim is None else wrap_dim(dim, a.ndim)
    rows = input.reshape(-1) if dim is None or not a.ndim else input.movedim(d, -1)
    ordered = sort(rows)[0]
    several = isinstance(q, Tensor) and q._a.ndim == 1
    q = q.reshape(-1) if isinstance(q, Tensor) else wrap(np.asarray([q], a.dtype))
    rounding = _ROUND[interpolation]
    lower, upper, start, last = _ranks(ordered, q, name == "nanquantile", rounding)
    if rounding is not None:
        result = gather(ordered, -1, lower)
    else:
        below, above = gather(ordered, -1, lower), gather(ordered, -1, upper)
        result = below.lerp(above, 0.5 if interpolation == "midpoint" else q * last - start)
    result = result.movedim(-1, 0)
    if keepdim and a.ndim:
        result = result.reshape((-1, *(1,) * a.ndim)) if dim is None else result.unsqueeze(d + 1)
    return result if several else result.squeeze(0)


@public(out=True)
def quantile(input: Tensor, q: Any, dim: int | None = None, keepdim: bool = False, *, interpolation: str = "linear") -> Tensor:
    """The ``q``-quantiles over ``dim`` or of all elements; several ``q`` give a first dimension of their own.

    ``interpolation`` where a quantile lies between two values: "linear", "lower", "higher", "nearest" or "midpoint".

    >>> import flambeau as torch
    >>> torch.quantile(torch.tensor([0., 1., 2., 3.]), 0.5)
    tensor(1.5000)
    """
    return _quantile("quantile", input, q, dim, keepdim, interpolation)


@public(out=True)
def nanquantile(input: Tensor, q: Any, dim: int | None = None, keepdim: bool = False, *, interpolation: str = "linear") -> Tensor:
    """``quantile`` of what isn't nan."""
    return _quantile("nanquantile", input, q, dim, keepdim, interpolation)


# ---- histograms and counts ------------------------------------------------------------------------------------------
def _range(name: str, a: ndarray, low: Any, high: Any, margin: float = 1) -> tuple[Any, Any]:
    """The range as given, or that of the data; widened by ``margin`` at both ends where it is a point."""
    if low == high and a.size:
        low, high = a.min(), a.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        raise error(RuntimeError, f"{name}: range of [{low:g}, {high:g}] is not finite")
    return (low - margin, high + margin) if low == high else (low, high)


def _bins_given(bins: Any) -> int:
    if bins < 1:
        raise error(RuntimeError, f"torch.histogram(): bins must be > 0, but got {bins} for dimension 0")
    return int(bins)


@public(out=True)
def histc(input: Tensor, bins: int = 100, min: float = 0, max: float = 0) -> Tensor:
    """How many elements fall in each of ``bins`` equal parts of [min, max] (of the data's range if both are equal).

    >>> import flambeau as torch
    >>> torch.histc(torch.tensor([1., 2., 1.]), bins=4, min=0, max=3)
    tensor([0., 2., 1., 0.])
    """
    if input._a.dtype.kind not in "fV":
        raise error(NotImplementedError, f"\"histogram_cpu\" not implemented for '{SCALAR_NAMES[input.dtype]}'")
    bins = _bins_given(bins)
    if max < min:
        raise error(RuntimeError, "torch.histc: max must be larger than min")
    return _histc(input, bins, min, max, 0)


@primitive("histc", batch=lambda b, x, bins, low, high, lead: _histc(x, bins, low, high, lead + 1))
def _histc(x: Any, /, bins: int, low: Any, high: Any, lead: int) -> Any:
    """The counts of all dimensions but the first ``lead``."""
    a = S.plain(x)
    rows = a.reshape(prod(a.shape[:lead]), prod(a.shape[lead:]))
    counts = np.empty((len(rows), bins), np.int64)
    for row, count in zip(rows, counts):  # the range of each is its own
        first, last = _range("torch.histc", row, low, high)
        row = row[(row >= first) & (row <= last)]
        t = row.dtype.type
        places = ((row - t(first)) * t(bins) / (t(last) - t(first))).astype(np.int64)
        count[:] = np.bincount(np.minimum(places, bins - 1), minlength=bins)
    return counts.reshape(*a.shape[:lead], bins).astype(x.dtype)


def _into(edges: ndarray, x: ndarray) -> ndarray:
    """The bin of each value; -1 outside. The last bin contains its right edge."""
    n = len(edges) - 1
    places = np.searchsorted(edges, x, "right") - 1
    places[x == edges[-1]] = n - 1
    places[(places >= n) | (x != x)] = -1
    return places


def _counted(x: ndarray, edges: list[ndarray], weight: ndarray | None, density: bool, like: np.dtype) -> ndarray:
    """The histogram of the points in the rows of ``x``."""
    shape = [len(e) - 1 for e in edges]
    places = [_into(e, x[:, i]) for i, e in enumerate(edges)]
    inside = np.logical_and.reduce([p >= 0 for p in places])
    flat = np.ravel_multi_index([p[inside] for p in places], shape)
    hist = np.bincount(flat, None if weight is None else weight.reshape(-1)[inside], prod(shape)).reshape(shape).astype(np.float64)
    if density:
        volume = np.ones(())
        for e in edges:
            volume = np.multiply.outer(volume, np.diff(e.astype(np.float64)))
        with np.errstate(all="ignore"):
            hist = hist / (hist.sum() * volume)
    return hist.astype(like)


def _histogram(x: Tensor, rows: ndarray, bins: list[Any], ranges: Any, weight: Tensor | None, density: bool) -> tuple[Tensor, list[Tensor]]:
    a = x._a
    if a.dtype.kind != "f" or a.dtype.itemsize < 4:
        raise error(NotImplementedError, f"\"histogramdd\" not implemented for '{SCALAR_NAMES[x.dtype]}'")
    if weight is not None and weight._a.size != len(rows):
        raise error(
            RuntimeError,
            "torch.histogramdd: if weight tensor is provided it should have the same shape as the input tensor excluding its "
            f"innermost dimension, but got input with shape {list(rows.shape)} and weight with shape {list(weight._a.shape)}",
        )
    edges = []
    for i, b in enumerate(bins):
        if isinstance(b, Tensor):
            if not b._a.size:
                raise error(
                    RuntimeError,
                    "torch.histogramdd: bins tensor should have at least 1 element, but got 0 elements in the bins tensor for "
                    f"dimension {i}",
                )
            if b._a.size == 1:
                raise error(RuntimeError, f"torch.histogram(): bins must be > 0, but got 0 for dimension {i}")
            if b._a.dtype != a.dtype:
                raise error(
                    RuntimeError,
                    "torch.histogramdd: input tensor and bins tensors should have the same dtype, but got input with dtype "
                    f"{C_NAMES[x.dtype]} and bins for dimension {i} with dtype {C_NAMES[b.dtype]}",
                )
            edges.append(b._a)
            continue
        low, high = (0, 0) if ranges is None else (ranges[2 * i], ranges[2 * i + 1])
        if low > high:
            raise error(RuntimeError, f"torch.histogramdd: min should not exceed max, but got min {low:g} max {high:g} for dimension {i}")
        if ranges is None and not len(rows):
            low, high = 0, 1
        low, high = _range("torch.histogramdd", rows[:, i] if ranges is None else rows[:0, i], low, high, 0.5)
        edges.append(np.linspace(low, high, _bins_given(b) + 1).astype(a.dtype))
    hist = _counted(rows, edges, None if weight is None else weight._a, density, a.dtype)
    return wrap(hist), [wrap(e) for e in edges]


@public
@loops
def histogram(
    input: Tensor, bins: Any, *, range: Any = None, weight: Tensor | None = None, density: bool = False, out: Any = None
) -> Any:
    """(hist, bin_edges): the weight of the elements in each bin; ``bins``: how many over ``range``, or their edges."""
    hist, edges = _histogram(input, input._a.reshape(-1, 1), [bins], range, weight, density)
    r = return_types.histogram((hist, edges[0]))
    if out is None:
        return r
    for o, v in zip(out, r):
        write_out("histogram", o, v)
    return return_types.histogram(out)


@public(method=False)
@loops
def histogramdd(input: Tensor, bins: Any, range: Any = None, weight: Tensor | None = None, density: bool = False) -> Any:
    """``histogram`` of points, the last dimension of ``input`` being their coordinates: (hist, list of bin_edges)."""
    if input._a.ndim < 2:
        raise error(RuntimeError, "torch.histogramdd: input tensor should have at least 2 dimensions")
    n = input._a.shape[-1]
    each = [bins] * n if isinstance(bins, int) else list(bins)
    if len(each) != n:
        raise error(RuntimeError, f"torch.histogramdd: expected {n} sequences of bin edges for a {n}-dimensional histogram but got {len(each)}")
    return return_types.histogramdd(_histogram(input, input._a.reshape(-1, n), each, range, weight, density))


@public
@loops
def bincount(input: Tensor, weights: Tensor | None = None, minlength: int = 0) -> Tensor:
    """How often (or with what total weight) each of 0, 1, 2, ... comes.

    >>> import flambeau as torch
    >>> torch.bincount(torch.tensor([0, 1, 1, 3]))
    tensor([1, 2, 0, 1])
    """
    a = input._a
    if minlength < 0:
        raise error(RuntimeError, "minlength should be >= 0")
    if a.dtype.kind not in "iu":
        raise error(NotImplementedError, f"\"bincount_cpu\" not implemented for '{SCALAR_NAMES[input.dtype]}'")
    if a.ndim != 1 or a.size and a.min() < 0:
        raise error(RuntimeError, "bincount only supports 1-d non-negative integral inputs.")
    if weights is None:
        return wrap(np.bincount(a, minlength=minlength).astype(np.int64, copy=False))
    w = weights._a
    if w.shape != a.shape:
        raise error(RuntimeError, "weights should be 1-d and have the same length as input")
    return wrap(np.bincount(a, w, minlength).astype(np.float32 if w.dtype == np.float32 else np.float64))


# ---- unique values --------------------------------------------------------------------------------------------------
_NONE = (np.zeros(0, np.int64),) * 3


def _unique_all(x: ndarray) -> tuple[ndarray, ndarray, ndarray]:
    flat = x.reshape(-1)
    order = S.argsort(flat)
    ordered = flat[order]
    starts, number, counts = S.runs(ordered[1:] != ordered[:-1]) if flat.size else _NONE
    inverse = np.empty(flat.shape, np.int64)
    inverse[order] = number
    return ordered[starts], inverse.reshape(x.shape), counts


def _unique_rows(x: ndarray, dim: int) -> tuple[ndarray, ndarray, ndarray]:
    rows = np.moveaxis(x, dim, 0)
    flat = S.plain(rows.reshape(len(rows), prod(rows.shape[1:])))
    order = np.lexsort(flat.T[::-1]) if flat.size else np.arange(len(rows))
    ordered = flat[order]
    starts, number, counts = S.runs((ordered[1:] != ordered[:-1]).any(1)) if len(rows) else _NONE
    inverse = np.empty(len(rows), np.int64)
    inverse[order] = number
    return np.moveaxis(rows[order[starts]], 0, dim), inverse, counts


def _consecutive(x: ndarray, dim: int | None) -> tuple[ndarray, ndarray, ndarray]:
    rows = x.reshape(-1) if dim is None else np.moveaxis(x, dim, 0)
    n = len(rows)
    starts, number, counts = S.runs((rows[1:] != rows[:-1]).any(tuple(range(1, rows.ndim)))) if n else _NONE
    if dim is None:
        return rows[starts], number.reshape(x.shape), counts
    return np.moveaxis(rows[starts], 0, dim), number, counts


def _refuse(name: str) -> Any:
    def rule(g: Any) -> Any:
        raise error(NotImplementedError, f"the derivative for '{name}' is not implemented.", hint="Detach its input.")

    return rule


def _dynamic(name: str) -> Any:
    def batch(b: Any) -> Any:
        raise error(
            RuntimeError,
            f"vmap: We do not support batching operators that can output dynamic shape. Attempted to vmap over aten::{name}. Please file "
            "an issue at https://github.com/pytorch/pytorch/issues if you need this feature.",
            hint="How many values an example has depends on the example: loop over them.",
        )

    return batch


@primitive("unique2", vjp={"x": _refuse("_unique2")}, batch=_dynamic("_unique2"))
def _unique2(x: Any, /) -> Any:
    return _unique_all(x)


@primitive("unique_dim", vjp={"x": _refuse("unique_dim")}, batch=_dynamic("unique_dim"))
def _unique_dim(x: Any, /, dim: int) -> Any:
    return _unique_rows(x, dim)


@primitive("unique_consecutive", vjp={"x": _refuse("unique_consecutive")}, batch=_dynamic("unique_consecutive"))
def _unique_consecutive(x: Any, /, dim: int | None) -> Any:
    return _consecutive(x, dim)


def _asked(r: Any, inverse: bool, counts: bool) -> Any:
    wanted = (r[0], *([r[1]] if inverse else []), *([r[2]] if counts else []))
    return wanted if len(wanted) > 1 else wanted[0]


@public
def unique(input: Tensor, sorted: bool = True, return_inverse: bool = False, return_counts: bool = False, dim: int | None = None) -> Any:
    """The different values, in rising order, or the different slices along ``dim``; also, if asked, for each element
    where its value is among them, and how often each comes.

    >>> import flambeau as torch
    >>> torch.unique(torch.tensor([3, 1, 3]), return_counts=True)
    (tensor([1, 3]), tensor([1, 2]))
    """
    a = input._a
    no_complex("unique", input)
    if dim is not None and not a.ndim:
        raise error(IndexError, f"Dimension specified as {dim} but tensor has no dimensions")
    if dim is None:
        return _asked(_unique2(input), return_inverse, return_counts)
    d = wrap_dim(dim, a.ndim)
    if not a.shape[d] and 0 in [n for i, n in enumerate(a.shape) if i != d] or a.shape[d] and not a.size:
        raise error(RuntimeError, "There are 0 sized dimensions, and they aren't selected, so unique cannot be applied")
    return _asked(_unique_dim(input, d), return_inverse, return_counts)


@public
def unique_consecutive(input: Tensor, return_inverse: bool = False, return_counts: bool = False, dim: int | None = None) -> Any:
    """One value for each run of equal values (or slices along ``dim``), in the order they come."""
    no_complex("unique", input)
    shape = input._a.shape
    if dim is not None and not shape:
        raise error(IndexError, f"Dimension specified as {dim} but tensor has no dimensions")
    d = None if dim is None else wrap_dim(dim, len(shape))
    if d is not None and 0 in [n for i, n in enumerate(shape) if i != d]:
        raise error(RuntimeError, "There are 0 sized dimensions, and they aren't selected, so unique cannot be applied")
    return _asked(_unique_consecutive(input, d), return_inverse, return_counts)


# ---- search ---------------------------------------------------------------------------------------------------------
def _check_search(s: ndarray, x: Any, side: str | None, right: bool, sorter: Tensor | None) -> None:
    if side not in (None, "left", "right"):
        raise error(RuntimeError, f"torch.searchsorted(): side can only be 'left' or 'right' but got {side}")
    if side == "left" and right:
        raise error(RuntimeError, "torch.searchsorted(): side and right can't be set to opposites, got side of left while right was True")
    if not s.ndim:
        raise error(RuntimeError, "torch.searchsorted(): boundaries tensor should have positive dimension, but got 0 dimension")
    if s.ndim > 1 and not x.ndim:
        raise error(
            RuntimeError,
            "torch.searchsorted(): input value can be a scalar only when boundaries tensor dimension is 1, but we got "
            f"boundaries tensor dim({s.ndim}) and input value's dim(0) numel(1)",
        )
    if s.ndim > 1 and s.shape[:-1] != x.shape[:-1]:
        raise error(
            RuntimeError,
            "torch.searchsorted(): boundaries tensor should be 1 dimension or the first N-1 dimensions of boundaries tensor "
            f"and input value tensor must match, but we got boundaries tensor {list(s.shape)} and input value tensor {list(x.shape)}",
        )
    if sorter is None:
        return
    if sorter._a.dtype != np.int64:
        raise error(RuntimeError, f"torch.searchsorted(): sorter must be a tensor of long dtype but got dtype {SCALAR_NAMES[sorter.dtype]}")
    if sorter._a.shape != s.shape:
        raise error(
            RuntimeError,
            "torch.searchsorted(): boundary and sorter must have the same size, but got boundary tensor "
            f"{list(s.shape)}and got sorter tensor {list(sorter._a.shape)}",
        )


@public(method=False, out=True)
def searchsorted(
    sorted_sequence: Tensor, input: Any, *, out_int32: bool = False, right: bool = False, side: str | None = None,
    sorter: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Where each value would go in a sorted sequence (in each row of several): before its equals, or after (``right``).

    >>> import flambeau as torch
    >>> torch.searchsorted(torch.tensor([1, 3, 5]), torch.tensor([3, 6]))
    tensor([1, 3])
    """
    x = input if isinstance(input, Tensor) else wrap(np.asarray(input))
    _check_search(sorted_sequence._a, x._a, side, right, sorter)
    takes("searchsorted_out_cpu", sorted_sequence, "ihf")
    to_right, out = "right" if right or side == "right" else "left", np.int32 if out_int32 else np.int64
    if sorter is None and sorted_sequence._a.__class__ is x._a.__class__ is ndarray:
        return wrap(_search.kernel(sorted_sequence._a, x._a, None, to_right, out))
    return _search(sorted_sequence, x, sorter, to_right, out)


def _search_batch(b: Any, s: Tensor, x: Tensor, sorter: Tensor | None, side: str, out: Any) -> Tensor:
    if b.has("s") or b.has("sorter") or s._a.ndim > 1:  # each example's sequences are rows
        single = s._a.ndim == 1 + b.has("s")
        s, x = b.full(s, b.has("s")), b.full(x, b.has("x"))
        sorter = None if sorter is None else b.full(sorter, b.has("sorter"))
        if single:
            return _search(s, x.reshape(b.size, prod(x._a.shape[1:])), sorter, side, out).reshape(x._a.shape)
    return _search(s, x, sorter, side, out)


@primitive("searchsorted", batch=_search_batch)
def _search(s: Any, x: Any, sorter: Any, /, side: Any, out: Any) -> Any:
    if sorter is not None:
        s = np.take_along_axis(s, sorter, -1)
    return S.search(s, x, side).astype(out, copy=False)


@public(method=False, out=True)
def bucketize(input: Any, boundaries: Tensor, *, out_int32: bool = False, right: bool = False) -> Tensor:
    """The number of the bucket that each value falls in, given the buckets' boundaries.

    >>> import flambeau as torch
    >>> torch.bucketize(torch.tensor([3, 6, 9]), torch.tensor([1, 3, 5, 7, 9]))
    tensor([1, 3, 4])
    """
    if boundaries._a.ndim != 1:
        raise error(RuntimeError, f"boundaries tensor must be 1 dimension, but got dim({boundaries._a.ndim})")
    return searchsorted(boundaries, input, out_int32=out_int32, right=right)
