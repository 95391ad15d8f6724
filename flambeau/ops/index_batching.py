"""vmap's rules for indexing.

An index without a batch reads the values of all examples at once, one dimension further on. An index with a batch
becomes a key with one index more in front, the examples' numbers: ``x[i]`` becomes ``x[arange(B)[:, None], i]``. NumPy
then puts the dimensions of the indices first, from where they are moved to where they belong.

While a key waits for vmaps further out it holds tensors; at the bottom all its items are arrays.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..autograd.primitive import PRIMITIVES
from ..autograd.transforms.batched import Guard
from ..autograd.transforms.batching import Batch
from ..core.errors import error
from ..core.tensor import Tensor, wrap

EVERYTHING = slice(None)
Key = tuple[Any, ...]


def refused_mask() -> BaseException:
    return error(
        RuntimeError,
        "vmap: We do not support batching operators that can support dynamic shape. Attempting to batch over indexing with a boolean mask.",
        hint="Each example would choose another number of elements: use torch.where or masked_fill.",
    )


def refused_shape(what: str) -> BaseException:
    return error(
        RuntimeError,
        "vmap: We do not support batching operators that can output dynamic shape. Attempted to vmap over "
        f"{what}. Please file an issue at https://github.com/pytorch/pytorch/issues if you need this feature.",
        hint="The values of each example decide the shape of what comes out.",
    )


def is_guard(t: Tensor) -> bool:
    """Whether the values of ``t`` are those of a whole batch, so not to be had."""
    return t._a.__class__ is Guard


def bottom(key: Key) -> Key:
    """A key whose tensors are arrays, where they have values."""
    return tuple([k._a.copy() if isinstance(k, Tensor) and not is_guard(k) else k for k in key])


class Plan:
    """The key for a batch of what one example has a key for, and where its dimensions are."""

    __slots__ = ("key", "own", "moves", "rank")

    def __init__(self, size: int, key: Key, flags: Any, ndim: int, has: bool = True) -> None:
        """``flags``: which items of ``key`` are batched; ``ndim``: dimensions of one example; ``has``: the indexed is batched."""
        arrays = [k._a if isinstance(k, Tensor) else k for k in key]
        if any([f and a.dtype.kind == "b" for a, f in zip(arrays, flags)]):
            raise refused_mask()
        if any(flags):
            key, flags = without_masks(key, flags)
            arrays = [k._a if isinstance(k, Tensor) else k for k in key]
        indexed = [(p, a, f) for p, (a, f) in enumerate(zip(arrays, flags)) if not isinstance(a, slice)]
        shapes = [(1,) if a.dtype.kind == "b" else a.shape[1:] if f else a.shape for _, a, f in indexed]
        places = [p for p, _, _ in indexed]
        own = self.own = max(map(len, shapes))
        used = sum([a.ndim if a.dtype.kind == "b" else 1 for _, a, _ in indexed])
        self.rank = ndim - used + own
        adjacent = places == list(range(places[0], places[0] + len(places)))
        self.moves: Any = None  # (from, to): dimensions of what the key gives
        if not any(flags):
            self.key: Key = bottom((EVERYTHING, *key))
            if not adjacent and own:
                self.moves = (own,), (0,)
            return
        items = [k if isinstance(k, slice) or not f else k.reshape(size, *(1,) * (own - k._a.ndim + 1), *k._a.shape[1:]) for k, f in zip(key, flags)]
        if not has:  # the batch is one more dimension of the indices
            self.key = bottom(tuple(items))
            if adjacent and places[0]:
                self.moves = (places[0],), (0,)
            return
        self.key = bottom((np.arange(size).reshape(size, *(1,) * own), *items))
        if adjacent and places[0] and own:
            self.moves = tuple(range(1, 1 + own)), tuple(range(1 + places[0], 1 + places[0] + own))

    def shown(self, r: Tensor) -> Tensor:
        """What the key gave, the batch first and then an example's dimensions in their order."""
        return r if self.moves is None else r.movedim(*self.moves)

    def laid(self, r: Tensor) -> Tensor:
        """The inverse."""
        return r if self.moves is None else r.movedim(*self.moves[::-1])


def without_masks(key: Key, flags: Any) -> tuple[Key, Any]:
    """Masks without a batch as the indices of what they choose."""
    items: list[Any] = []
    has: list[bool] = []
    for k, f in zip(key, flags):
        a = k._a if isinstance(k, Tensor) else k
        if isinstance(a, slice) or a.dtype.kind != "b":
            items.append(k)
            has.append(f)
        elif a.__class__ is Guard:  # of a vmap further out
            raise refused_mask()
        else:
            items += a.nonzero()
            has += [False] * a.ndim
    return tuple(items), tuple(has)


def read(size: int, x: Tensor, has: bool, key: Key, flags: Any) -> Tensor:
    """``x[key]``."""
    plan = Plan(size, key, flags, x._a.ndim - has, has or not any(flags))
    return plan.shown(PRIMITIVES["index"](x, plan.key))


def add_back(size: int, g: Tensor, has: bool, shape: tuple[int, ...], key: Key, flags: Any) -> Tensor:
    """Zeros of ``shape`` for each example with ``g`` added at ``key``."""
    plan = Plan(size, key, flags, len(shape))
    full = g if has else g.expand(size, *g._a.shape)
    return PRIMITIVES["index_backward"](plan.laid(full), (size, *shape), plan.key)


def put(size: int, x: Tensor, has: bool, values: Tensor, each: bool, key: Key, flags: Any, accumulate: bool) -> Tensor:
    """``x`` with ``values`` at ``key``."""
    plan = Plan(size, key, flags, x._a.ndim - has)
    own = values._a.shape[1:] if each else values._a.shape
    values = values.reshape(size if each else 1, *(1,) * (plan.rank - len(own)), *own)
    return PRIMITIVES["index_put"](x if has else x.expand(size, *x._a.shape), plan.laid(values), plan.key, accumulate)


def one(i: Any, dim: int, flag: bool) -> tuple[Key, Any]:
    """(key, flags) of one index."""
    return (EVERYTHING,) * dim + (i,), (False,) * dim + (flag,)


# ---- rules -------------------------------------------------------------------------------------------------------------
def index(b: Batch, x: Tensor, key: Key) -> Tensor:
    return read(b.size, x, b.has("x"), key, b.flags["key"])


def index_backward(b: Batch, g: Tensor, shape: tuple[int, ...], key: Key) -> Tensor:
    return add_back(b.size, g, b.has("g"), shape, key, b.flags["key"])


def index_put(b: Batch, x: Tensor, values: Tensor, key: Key, accumulate: bool) -> Tensor:
    return put(b.size, x, b.has("x"), values, b.has("values"), key, b.flags["key"], accumulate)


def index_erase(b: Batch, g: Tensor, key: Key) -> Tensor:
    plan = Plan(b.size, key, b.flags["key"], g._a.ndim - b.has("g"))
    return PRIMITIVES["index_erase"](b.full(g, b.has("g")), plan.key)


def reading(name: str) -> Any:
    """The rule of an operator that reads at one index ``i`` of a dimension."""

    def rule(b: Batch, x: Tensor, i: Tensor, dim: int) -> Tensor:
        if x._a.ndim == b.has("x"):  # of an example without dimensions
            x = x.unsqueeze(-1)
        if not b.has("i"):
            return PRIMITIVES[name](x, i, dim + 1)
        return read(b.size, x, b.has("x"), *one(i, dim, True))

    return rule


def index_one_backward(b: Batch, g: Tensor, i: Tensor, shape: tuple[int, ...], dim: int) -> Tensor:
    if not b.has("i"):
        return PRIMITIVES["index_one_backward"](g, i, (b.size, *shape), dim + 1)
    return add_back(b.size, g, b.has("g"), shape, *one(i, dim, True))


def by_slices(b: Batch, name: str, x: Tensor, source: Tensor, i: Tensor, dim: int, accumulate: bool, *more: Any) -> Tensor:
    """Slices put at the entries ``i`` of a dimension. An example without dimensions is one of a single entry."""
    has, each = b.has("x"), b.has("source")
    ndim, own = x._a.ndim - has, source._a.shape[1:] if each else source._a.shape
    x = b.full(x, has)
    if not ndim:
        x = x.unsqueeze(-1)
    source = source.reshape(b.size if each else 1, *(1,) * (max(ndim, 1) - len(own)), *own)
    if b.has("i"):
        r = put(b.size, x, True, source if each else source.squeeze(0), each, *one(i, dim, True), accumulate)
    else:
        r = PRIMITIVES[name](x, source, i, dim + 1, *more)
    return r if ndim else r.squeeze(-1)


def index_add(b: Batch, x: Tensor, source: Tensor, i: Tensor, dim: int, alpha: Any) -> Tensor:
    if not b.has("i"):
        return by_slices(b, "index_add", x, source, i, dim, True, alpha)
    return by_slices(b, "index_add", x, source if alpha == 1 else source * alpha, i, dim, True)


def index_copy(b: Batch, x: Tensor, source: Tensor, i: Tensor, dim: int) -> Tensor:
    return by_slices(b, "index_copy", x, source, i, dim, False)


def index_fill(name: str) -> Any:
    def rule(b: Batch, x: Tensor, value: Tensor, i: Tensor, dim: int) -> Tensor:
        b.flags["source"] = b.has("value")
        return by_slices(b, name, x, value, i, dim, False)

    return rule


def all_batched(name: str, *sized: str) -> Any:
    """The rule of gather, scatter and their kin, whose operands have the same dimensions: all are expanded.

    An example without dimensions is one of a single entry. ``sized``: "shape" where that is a parameter.
    """

    def run(b: Batch, operands: dict[str, Tensor], dim: int, like: str, *more: Any, shape: Any = None) -> Tensor:
        values = {n: b.full(t, b.has(n)) for n, t in operands.items()}
        out_shape = values[like]._a.shape if shape is None else (b.size, *shape)
        values = {n: t if t._a.ndim > 1 else t.unsqueeze(-1) for n, t in values.items()}
        if shape is None:
            r = PRIMITIVES[name](*values.values(), dim + 1, *more)
        else:
            r = PRIMITIVES[name](*values.values(), (b.size, *(shape or (1,))), dim + 1, *more)
        return r if r._a.shape == out_shape else r.reshape(out_shape)

    return run


_gather, _gather_backward = all_batched("gather"), all_batched("gather_backward")
_scatter, _scatter_add, _scatter_value = all_batched("scatter"), all_batched("scatter_add"), all_batched("scatter_value")


def gather(b: Batch, x: Tensor, i: Tensor, dim: int) -> Tensor:
    return _gather(b, {"x": x, "i": i}, dim, "i")


def gather_backward(b: Batch, g: Tensor, i: Tensor, shape: tuple[int, ...], dim: int) -> Tensor:
    return _gather_backward(b, {"g": g, "i": i}, dim, "g", shape=shape)


def scatter(b: Batch, x: Tensor, src: Tensor, i: Tensor, dim: int) -> Tensor:
    return _scatter(b, {"x": x, "src": src, "i": i}, dim, "x")


def scatter_add(b: Batch, x: Tensor, src: Tensor, i: Tensor, dim: int) -> Tensor:
    return _scatter_add(b, {"x": x, "src": src, "i": i}, dim, "x")


def scatter_value(b: Batch, x: Tensor, i: Tensor, dim: int, value: Any) -> Tensor:
    return _scatter_value(b, {"x": x, "i": i}, dim, "x", value)


def scatter_reduce(name: str) -> Any:
    run = all_batched(name)

    def rule(b: Batch, x: Tensor, src: Tensor, i: Tensor, dim: int, reduce: str, include: bool) -> Tensor:
        return run(b, {"x": x, "src": src, "i": i}, dim, "x", reduce, include)

    return rule


def masked_fill(name: str) -> Any:
    def rule(b: Batch, x: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        x, value, mask = b.aligned(x=x, value=value, mask=mask)
        if not b.has("x") and not b.has("mask"):
            x = x.expand(b.size, *x._a.shape[1:])
        return PRIMITIVES[name](x, value, mask)

    return rule


def masked_select(b: Batch, x: Tensor, mask: Tensor) -> Tensor:
    if b.has("mask"):
        raise error(
            RuntimeError,
            "vmap: Attempted to vmap over `mask` in torch.masked_select(self, mask) We cannot support this because for each batch this "
            "would return a differently shaped Tensor. Please file an issue at https://github.com/pytorch/pytorch/issues if you need "
            "this feature.",
            hint="torch.where or masked_fill keep the shape.",
        )
    return PRIMITIVES["index_one"](x, mask, 1)


def masked_scatter(b: Batch, x: Tensor, source: Tensor, mask: Tensor) -> Tensor:
    """The n-th place that a mask chooses takes the n-th element of the source."""
    x, mask = b.full(x, b.has("x")), b.full(mask, b.has("mask"))
    flat = b.full(source, b.has("source")).reshape(b.size, -1)
    if not flat._a.shape[1]:
        return x
    which = (mask.reshape(b.size, -1).cumsum(1) - 1).clamp(0, flat._a.shape[1] - 1)
    return PRIMITIVES["gather"](flat, which, 1).reshape(x._a.shape).where(mask, x)


# ---- flat places --------------------------------------------------------------------------------------------------------
def take(b: Batch, x: Tensor, i: Tensor) -> Tensor:
    if not b.has("x"):
        return PRIMITIVES["take"](x, i)
    return read(b.size, x.reshape(b.size, -1), True, *one(i, 0, b.has("i")))


def take_backward(b: Batch, g: Tensor, i: Tensor, shape: tuple[int, ...]) -> Tensor:
    return add_back(b.size, g, b.has("g"), (math.prod(shape),), *one(i, 0, b.has("i"))).reshape(b.size, *shape)


def put_flat(b: Batch, x: Tensor, source: Tensor, i: Tensor, accumulate: bool) -> Tensor:
    x = b.full(x, b.has("x"))
    each = b.has("source")
    own = i._a.shape[1:] if b.has("i") else i._a.shape
    source = source.reshape(b.size, *own) if each else source.reshape(own)
    return put(b.size, x.reshape(b.size, -1), True, source, each, *one(i, 0, b.has("i")), accumulate).reshape(x._a.shape)


# ---- embeddings -----------------------------------------------------------------------------------------------------------
def frequency_scale(b: Batch, i: Tensor, n: int, padding: int, by_frequency: bool, dtype: Any) -> Tensor | None:
    """What each looked-up row's gradient is multiplied by, in public operators; None for ones. ``i`` is batched."""
    scale = None
    if by_frequency:
        flat = i.reshape(b.size, -1).long()
        counts = flat.new_zeros((b.size, n)).scatter_add(1, flat, flat.new_ones(flat._a.shape))
        scale = counts.gather(1, flat).reshape(i._a.shape).to(dtype).reciprocal()
    if padding >= 0:
        keep = i.ne(padding).to(dtype)
        scale = keep if scale is None else scale * keep
    return None if scale is None else scale.unsqueeze(-1)


def embedding(b: Batch, weight: Tensor, i: Tensor, padding: int, by_frequency: bool) -> Tensor:
    op = PRIMITIVES["embedding"]
    if not b.has("weight") and not by_frequency:
        return op(weight, i, padding, False)
    n = weight._a.shape[1 if b.has("weight") else 0]
    i = b.full(i, b.has("i"))
    if b.has("weight"):  # one table for all, the examples' rows one after the other
        first = first_rows(b.size, n, i)
        rows = op(weight.reshape(b.size * n, weight._a.shape[2]), i + first, -1, False)
    else:
        rows = op(weight, i, -1, False)
    scale = frequency_scale(b, i, n, padding, by_frequency, weight.dtype)
    if scale is None:
        return rows
    still = rows.detach()
    return still + (rows - still) * scale  # the rows themselves; only their gradient is scaled


def first_rows(size: int, n: int, i: Tensor) -> Tensor:
    """Where each example's rows begin, to be added to indices (batch, ...)."""
    return wrap((np.arange(size) * n).reshape(size, *(1,) * (i._a.ndim - 1)))


def embedding_backward(b: Batch, g: Tensor, i: Tensor, n: int, padding: int, by_frequency: bool) -> Tensor:
    g, i = b.full(g, b.has("g")), b.full(i, b.has("i"))
    scale = frequency_scale(b, i, n, padding, by_frequency, g.dtype)
    rows = g if scale is None else g * scale
    sums = PRIMITIVES["embedding_backward"](rows, i + first_rows(b.size, n, i), b.size * n, -1, False)
    return sums.reshape(b.size, n, sums._a.shape[-1])
