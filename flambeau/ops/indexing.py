"""Reading and writing by index: ``x[...]``, gather, scatter, masks, embeddings.

``x[key]`` runs in two steps, as in PyTorch: first ints, slices and None, which give a view; then, on that view, the
tensors among the indices, which give a copy. A gradient goes back by adding into zeros (``kernels.scatter``).
"""

from __future__ import annotations

import math
import operator
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..autograd import inplace as ip
from ..autograd.node import note_change
from ..autograd.pointwise import NUMBER, pointwise
from ..autograd.primitive import primitive
from ..autograd.transforms.batched import Batched, at, innermost, refresh
from ..autograd.transforms.batching import write
from ..core.dtypes import SCALAR_NAMES
from ..core.errors import error
from ..core.modes import Modes, mode
from ..core.tensor import Tensor, is_private_layout, wrap
from ..kernels import expr as E
from ..kernels.scatter import add_elements, add_rows, reduce_elements, sum_rows
from . import index_batching as batching
from .convert import assign, fit_dtype, recording, reduce_to, rewrite
from .creation import array_of, number
from .dims import wrap_dim
from .public import become, public, publish, write_out
from .takes import takes
from .views import (
    EVERYTHING,
    _alias,
    _as_strided_copy,
    _embed,
    _new_axis,
    _select,
    _slice,
    as_strided_geometry,
    diagonal_dims,
    writable_diagonal,
)

LONG = np.dtype(np.int64)
ndarray = np.ndarray
Key = tuple[Any, ...]


# ---- keys -------------------------------------------------------------------------------------------------------------------
def index_tensor(i: Any) -> Tensor:
    """A tensor that may stand in brackets, from a tensor, an array or a sequence: integers or bools."""
    if not isinstance(i, Tensor):
        if not hasattr(i, "__len__"):
            raise not_an_index(i)
        a = array_of(i, None)
        if not a.size and not isinstance(i, np.ndarray):
            a = a.astype(LONG)
        i = wrap(a)
    dt = i._a.dtype
    if dt == np.uint8:
        warnings.warn(
            "indexing with dtype torch.uint8 is now deprecated, please use a dtype torch.bool instead.", UserWarning, stacklevel=4
        )
        return i.bool()
    if dt.kind != "b" and dt not in (np.int64, np.int32):
        raise error(IndexError, "tensors used as indices must be long, int, byte or bool tensors")
    return i


def not_an_index(i: Any) -> BaseException:
    return error(
        IndexError,
        "only integers, slices (`:`), ellipsis (`...`), None and long or byte Variables are valid indices "
        f"(got {type(i).__name__})",
    )


def as_tuple(key: Any) -> tuple[Any, ...]:
    if key.__class__ is tuple:
        return key
    if isinstance(key, list) and len(key) < 32 and any(
        k is None or k is Ellipsis or isinstance(k, (slice, list, tuple, range, Tensor, np.ndarray)) for k in key
    ):  # NumPy's old rule, which PyTorch kept
        return tuple(key)
    return (key,)


def check_slice(s: slice) -> None:
    if s.step is not None and operator.index(s.step) <= 0:
        raise error(ValueError, "step must be greater than zero", hint="flip() reverses a dimension.")


def parse(a: np.ndarray, key: Any) -> tuple[Key, str, list[Tensor | None] | None]:
    """(basic key, the name of its last step, index tensors for the dimensions of the view or None if there are none)."""
    items = as_tuple(key)
    used, ellipses = 0, 0
    parsed: list[Any] = []
    for k in items:
        cls = k.__class__
        if cls is int or cls is slice or k is None or k is Ellipsis:
            pass
        elif isinstance(k, (bool, np.bool_)):
            k = wrap(np.array(bool(k)))
        elif isinstance(k, np.integer):
            k = int(k)
        elif isinstance(k, Tensor) and not k._a.ndim and k._a.dtype.kind in "iu" and k._a.dtype != np.uint8 and k._a.__class__ is ndarray:
            k = int(k._a)
        elif isinstance(k, (Tensor, np.ndarray)) or cls is not float and cls is not complex:
            if not isinstance(k, Tensor) and not hasattr(k, "__len__") and hasattr(k, "__index__"):
                k = operator.index(k)
            else:
                k = index_tensor(k)
        else:
            raise not_an_index(k)
        if k is Ellipsis:
            ellipses += 1
        elif isinstance(k, Tensor):
            used += k._a.ndim if k._a.dtype.kind == "b" else 1
        elif k is not None:
            used += 1
        parsed.append(k)
    if used > a.ndim:
        if not a.ndim and len(parsed) == 1:
            if isinstance(parsed[0], slice):
                raise error(IndexError, "slice() cannot be applied to a 0-dim tensor.")
            raise error(
                IndexError,
                "invalid index of a 0-dim tensor. Use `tensor.item()` in Python or `tensor.item<T>()` in C++ to convert a 0-dim "
                "tensor to a number",
            )
        raise error(IndexError, f"too many indices for tensor of dimension {a.ndim}")
    basic: list[Any] = []
    tensors: list[Tensor | None] = []
    found, dim, last = False, 0, "alias"
    spread = False
    for k in parsed:
        if k is Ellipsis:
            n = 0 if spread else a.ndim - used
            spread = True
            basic += [EVERYTHING] * n
            tensors += [None] * n
            dim += n
        elif k is None:
            basic.append(None)
            tensors.append(None)
            last = "new_axis"
        elif k.__class__ is int:
            if not -a.shape[dim] <= k < a.shape[dim]:
                raise error(IndexError, f"index {k} is out of bounds for dimension {dim} with size {a.shape[dim]}")
            basic.append(k)
            dim += 1
            last = "select"
        elif k.__class__ is slice:
            check_slice(k)
            basic.append(k)
            tensors.append(None)
            dim += 1
            last = "slice"
        else:
            found = True
            mask = k._a.dtype.kind == "b"
            if mask and not k._a.ndim:
                basic.append(None)
                tensors.append(k.reshape(1))
                last = "new_axis"
                continue
            n = k._a.ndim if mask else 1
            if mask:
                for j, (m, size) in enumerate(zip(k._a.shape, a.shape[dim : dim + n])):
                    if m != size:
                        raise error(
                            IndexError,
                            f"The shape of the mask {list(k._a.shape)} at index {j} does not match the shape of the indexed tensor "
                            f"{list(a.shape)} at index {dim + j}",
                        )
            basic += [EVERYTHING] * n
            tensors.append(k)
            dim += n
    return tuple(basic), last, tensors if found else None


_STEPS = {"select": _select, "slice": _slice, "new_axis": _new_axis, "alias": _alias}


def plain(basic: Key) -> bool:
    """Whether a basic key changes nothing."""
    return all(k is EVERYTHING or k == EVERYTHING for k in basic)


# ---- reading ------------------------------------------------------------------------------------------------------------------
def getitem(self: Tensor, key: Any) -> Tensor:
    """``self[key]``: a view for ints, slices, None and Ellipsis; a copy where tensors, lists or masks take part."""
    a = self._a
    if a.ndim > 3:
        a = self._viewable()
    cls = key.__class__
    if cls is int:
        try:
            return _select(self, (key, ...))
        except IndexError:
            raise _int_error(a, key) from None
    if cls is slice and a.ndim:
        if key.step is not None:
            check_slice(key)
        return _slice(self, (key,))
    basic, last, tensors = parse(a, key)
    if tensors is None:
        return _STEPS[last](self, (*basic, ...))
    x = self if plain(basic) else _STEPS[last if last != "alias" else "slice"](self, (*basic, ...))
    m = mode()
    if m.__class__ is Modes and m.batch:
        x, tensors = numbers_together(x, tensors)
    return index(x, tensors)


def numbers_together(x: Tensor, tensors: list[Tensor | None]) -> tuple[Tensor, list[Tensor | None]]:
    """Batched numbers among other index tensors: the dimensions they choose from are moved beside the others'.

    For they are indices only inside vmap: of a single example a number is a step of its own, before the others.
    """
    if all([t is None or t._a.ndim for t in tensors]) or any([t is not None and t._a.dtype.kind == "b" and batching.is_guard(t) for t in tensors]):
        return x, tensors
    items: list[Tensor | None] = []
    for t in tensors:
        if t is not None and t._a.dtype.kind == "b":
            items += nonzero(t, as_tuple=True)
        else:
            items.append(t)
    numbers = [d for d, t in enumerate(items) if t is not None and not t._a.ndim]
    others = [d for d, t in enumerate(items) if t is not None and t._a.ndim]
    if not others:
        return x, items
    before = [d for d in range(others[0]) if d not in numbers]
    order = [*before, *numbers, *[d for d in range(others[0], len(items)) if d not in numbers]]
    return x.movedim(order, tuple(range(len(order)))), [items[d] for d in order]


def _int_error(a: np.ndarray, i: int) -> BaseException:
    if not a.ndim:
        return error(
            IndexError,
            "invalid index of a 0-dim tensor. Use `tensor.item()` in Python or `tensor.item<T>()` in C++ to convert a 0-dim tensor "
            "to a number",
        )
    return error(IndexError, f"index {i} is out of bounds for dimension 0 with size {a.shape[0]}")


def index(x: Tensor, tensors: Sequence[Tensor | None]) -> Tensor:
    """``x`` at index tensors, one for each dimension (for several, if it is a mask), None for all of it."""
    given = [t for t in tensors if t is not None]
    if len(given) == 1:
        dim = 0
        for t in tensors:
            if t is not None:
                break
            dim += 1
        return _checked(_index_one, x, given[0], dim)
    return _checked(_index, x, full_key(tensors))


def full_key(tensors: Sequence[Tensor | None]) -> Key:
    """A NumPy key; its arrays are copied, for the graph keeps them and a user may change his. Batched tensors stay."""
    return tuple([EVERYTHING if t is None else t._a.copy() if t._a.__class__ is ndarray else t for t in tensors])


def _checked(op: Any, *args: Any) -> Any:
    try:
        return op(*args)
    except IndexError as e:
        raise index_error(e, args) from None


def index_error(e: IndexError, args: Any) -> BaseException:
    """NumPy's complaint about index arrays in PyTorch's words."""
    text = str(e)
    if "could not be broadcast" in text:
        shapes = [list(k.shape) for k in args[-1] if isinstance(k, np.ndarray)] if isinstance(args[-1], tuple) else []
        return error(
            IndexError,
            "shape mismatch: indexing tensors could not be broadcast together with shapes " + ", ".join(map(str, shapes)),
        )
    return error(IndexError, text.replace(" axis ", " dimension "))


def _one_key(i: Any, dim: int) -> Key:
    return (EVERYTHING,) * dim + (i,)


@primitive(
    "index_one", node="IndexBackward0", vjp={"x": lambda g, x_shape, i, dim: _index_one_backward(g, i, x_shape, dim)},
    jvp="linear", batch=batching.reading("index_one"),
)
def _index_one(x: Any, i: Any, /, dim: Any) -> Any:
    if i.dtype.kind == "b" or i.ndim != 1 and dim:
        return x[_one_key(i, dim)]
    if i.size and i.dtype.kind != "b" and i.min() < 0:
        return x[_one_key(i, dim)]
    return x.take(i, axis=dim)


@primitive(
    "index_one_backward", node="IndexBackwardBackward0", vjp={"g": lambda g, i, dim: _index_one(g, i, dim)},
    jvp="linear", batch=batching.index_one_backward,
)
def _index_one_backward(g: Any, i: Any, /, shape: Any, dim: Any) -> Any:
    if not dim and i.ndim == 1 and i.size and i.dtype.kind == "i" and i.min() >= 0:
        return sum_rows(i, g, shape[0])
    return scatter_key(g, shape, _one_key(i, dim))


@primitive("index", vjp={"x": lambda g, x_shape, key: _index_backward(g, x_shape, key)}, jvp="linear", batch=batching.index)
def _index(x: Any, /, key: Any) -> Any:
    return np.asarray(x[key])


@primitive(
    "index_backward", node="IndexBackwardBackward0", vjp={"g": lambda g, key: _index(g, key)}, jvp="linear", batch=batching.index_backward
)
def _index_backward(g: Any, /, shape: Any, key: Any) -> Any:
    return scatter_key(g, shape, key)


def scatter_key(g: np.ndarray, shape: tuple[int, ...], key: Key) -> np.ndarray:
    """Zeros of a shape with ``g`` added at ``key``."""
    out = np.zeros(shape, g.dtype)
    add_at(out, key, g)
    return out


def add_at(out: np.ndarray, key: Key, g: np.ndarray) -> None:
    """``out[key] += g``, where a place may be named many times; ``out`` is contiguous."""
    arrays = [k for k in key if isinstance(k, np.ndarray)]
    if all(k.dtype.kind == "b" for k in arrays) and len(arrays) == 1:  # a mask names each place once
        out[key] += g
        return
    # Integer indices for each dimension that is indexed, and where those dimensions are.
    where, parts = [], []
    dim = 0
    for k in key:
        if isinstance(k, np.ndarray):
            for part in k.nonzero() if k.dtype.kind == "b" else (k,):
                where.append(dim)
                parts.append(part)
                dim += 1
        else:
            dim += 1
    sizes = [out.shape[d] for d in where]
    broad = np.broadcast_shapes(*[p.shape for p in parts])
    place = np.zeros(broad, LONG)
    for p, n in zip(parts, sizes):
        place *= n
        place += np.where(p < 0, p + n, p) if p.size and p.min() < 0 else p
    adjacent = where == list(range(where[0], where[0] + len(where)))
    at = where[0] if adjacent else 0
    nb = len(broad)
    rest = [d for d in range(out.ndim) if d not in where]
    before = out.shape[:at]
    g = np.broadcast_to(g, (*before, *broad, *[out.shape[d] for d in rest[len(before) :]]))
    rows = np.moveaxis(g, range(at, at + nb), range(nb)).reshape(place.size, *[out.shape[d] for d in rest])
    if not rows.size:
        return
    front = out.transpose(*where, *rest)
    work = np.ascontiguousarray(front)
    add_rows(work.reshape(-1, *front.shape[len(where) :]), place.reshape(-1), rows)
    if not np.may_share_memory(work, front):
        front[...] = work


# ---- writing ------------------------------------------------------------------------------------------------------------------
def setitem(self: Tensor, key: Any, value: Any) -> None:
    """``self[key] = value``, a number or a tensor that broadcasts."""
    cls = key.__class__
    if value.__class__ is float and -6e4 < value < 6e4 and (cls is int or cls is slice and key.step is None) and not self._rg and self._fw is None:
        a = self._a
        if a.__class__ is ndarray and a.ndim and a.dtype.kind == "f" and (cls is slice or -a.shape[0] <= key < a.shape[0]):
            ip.check_history(self, through_view=True)
            if 0 in a.strides:
                ip.check_memory(a[key] if cls is slice else a[key : key + 1 or None])
            if not is_private_layout(self):
                if not a.flags.writeable:
                    self._a = ip.writable(a)
                self._a[key] = value
                note_change(self)
                return
    if not isinstance(value, Tensor):
        if not isinstance(value, NUMBER):
            raise error(
                TypeError, f"can't assign a {value_type(value)} to a torch.{SCALAR_NAMES[self.dtype]}Tensor"
            )
        value = wrap(np.array(number(value, self._a.dtype), self._a.dtype))
    basic, last, tensors = parse(self._viewable(), key)
    m = mode()
    if m.__class__ is Modes and m.batch and innermost((self, value, *(tensors or ()))) is not None:
        return set_batched(self, basic, last, tensors, value)
    whole = tensors is not None or key is ... or key.__class__ is slice and key == slice(None)
    if self._view_kind is None or whole:  # otherwise the view that is written is asked
        ip.check_history(self, not whole, value._rg)
    if tensors is not None:
        x = self if plain(basic) else _STEPS[last if last != "alias" else "slice"](self, (*basic, ...))
        if x is not self and x._view_kind == "no_grad" and self._view_kind is None:
            x._view_kind = None
        given = [t for t in tensors if t is not None]
        if len(given) == 1 and given[0]._a.dtype.kind == "b" and not value._a.ndim and given[0]._a.ndim == x._a.ndim:
            x.masked_fill_(given[0], value)
        else:
            index_put_(x, tensors, drop_ones(value, x, tensors))
        return
    if not recording(self, value) and self._fw is None and value._fw is None:
        if not self._a.flags.writeable:
            self._a = ip.writable(self._a)
        window = self._a[(*basic, ...)]
        ip.check_memory(window)
        b = value._a
        if b.shape != window.shape:
            b = b.reshape(without_leading_ones(b.shape, window.ndim))
            _check_fits(b.shape, window.shape)
        assign(window, b)
        ip.changed(self)
        return
    v = _STEPS[last](self, (*basic, ...))
    if value._a.ndim > v._a.ndim:
        value = value.reshape(without_leading_ones(value._a.shape, v._a.ndim))
    _check_fits(value._a.shape, v._a.shape)
    v.copy_(value)


def set_batched(self: Tensor, basic: Key, last: str, tensors: list[Tensor | None] | None, value: Tensor) -> None:
    """``self[key] = value`` inside vmap, where anything of it is batched."""
    if tensors is None:
        v = _STEPS[last](self, (*basic, ...))
        if value._a.ndim > v._a.ndim:
            value = value.reshape(without_leading_ones(value._a.shape, v._a.ndim))
        _check_fits(value._a.shape, v._a.shape)
        v.copy_(value)
    else:
        x = self if plain(basic) else _STEPS[last if last != "alias" else "slice"](self, (*basic, ...))
        given = [t for t in tensors if t is not None]
        mask = given[0]
        if len(given) == 1 and mask._a.dtype.kind == "b" and value._a.size == 1:  # a write that every example can make
            at = next(d for d, t in enumerate(tensors) if t is not None)
            x.masked_fill_(mask.reshape(*mask._a.shape, *(1,) * (x._a.ndim - at - mask._a.ndim)), value.reshape(()))
        else:
            index_put_(*numbers_together(x, tensors), drop_ones(value, x, tensors))
    refresh(self)


def value_type(value: Any) -> str:
    cls = type(value)
    return cls.__name__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__name__}"


def without_leading_ones(shape: tuple[int, ...], ndim: int) -> tuple[int, ...]:
    i = 0
    while len(shape) - i > ndim and shape[i] == 1:
        i += 1
    return shape[i:]


def drop_ones(value: Tensor, x: Tensor, tensors: Any) -> Tensor:
    i = 0
    shape = value._a.shape
    while i < len(shape) and shape[i] == 1:
        i += 1
    return value.reshape(shape[i:]) if i else value


def _check_fits(small: tuple[int, ...], large: tuple[int, ...]) -> None:
    if len(small) > len(large):
        raise error(
            RuntimeError,
            f"expand(torch.FloatTensor{{{list(small)}}}, size={list(large)}): the number of sizes provided ({len(large)}) must be "
            f"greater or equal to the number of dimensions in the tensor ({len(small)})",
        )
    for i in range(1, len(small) + 1):
        if small[-i] not in (1, large[-i]):
            raise error(
                RuntimeError,
                f"The expanded size of the tensor ({large[-i]}) must match the existing size ({small[-i]}) at non-singleton "
                f"dimension {len(large) - i}.  Target sizes: {list(large)}.  Tensor sizes: {list(small)}",
            )


Tensor.__getitem__ = getitem
Tensor.__setitem__ = setitem


def _delitem(self: Tensor, key: Any) -> None:
    raise error(TypeError, "Tensor does not support deleting items")


Tensor.__delitem__ = _delitem


def _put_rule(g: Tensor, key: Key, accumulate: bool) -> Tensor:
    return g if accumulate else _erase_at(g, key)


@primitive(
    "index_put",
    vjp={
        "x": lambda g, key, accumulate: _put_rule(g, key, accumulate),
        "values": lambda g, values_shape, key: reduce_to(_index(g, key), values_shape),
    },
    jvp="linear",
    batch=batching.index_put,
)
def _index_put(x: Any, values: Any, /, key: Any, accumulate: Any) -> Any:
    out = np.array(x, order="C", copy=True)
    put_at(out, key, values, accumulate)
    return out


def put_at(out: np.ndarray, key: Key, values: np.ndarray, accumulate: bool) -> None:
    if not accumulate:
        out[key] = values
    elif out.flags.c_contiguous:
        add_at(out, key, values)
    else:
        work = np.ascontiguousarray(out)
        add_at(work, key, values)
        out[...] = work


@primitive("index_erase", node="IndexPutBackward0", vjp={"g": lambda g, key: _erase_at(g, key)}, jvp="linear", batch=batching.index_erase)
def _erase_at(g: Any, /, key: Any) -> Any:
    out = g.copy()
    out[key] = 0
    return out


def _put_arguments(x: Tensor, indices: Any, values: Tensor) -> tuple[Key, Tensor]:
    tensors = [None if i is None else index_tensor(i) for i in indices]
    key = full_key(tensors)
    if values._a.dtype != x._a.dtype:
        raise error(
            RuntimeError,
            f"Index put requires the source and destination dtypes match, got {SCALAR_NAMES[x.dtype]} for the destination and "
            f"{SCALAR_NAMES[values.dtype]} for the source.",
        )
    try:
        shape = np.broadcast_to(np.int8(0), x._a.shape)[stand_ins(key)].shape
    except IndexError as e:
        raise index_error(e, (key,)) from None
    try:
        fits = np.broadcast_shapes(values._a.shape, shape) == shape
    except ValueError:
        fits = False
    if not fits:
        raise error(
            RuntimeError,
            f"shape mismatch: value tensor of shape {list(values._a.shape)} cannot be broadcast to indexing result of shape "
            f"{list(shape)}",
        )
    return key, values


def stand_ins(key: Key) -> Key:
    """A key that gives the same shape, with zeros for batched indices."""
    if not any([isinstance(k, Tensor) for k in key]):
        return key
    if any([isinstance(k, Tensor) and k._a.dtype.kind == "b" for k in key]):
        raise batching.refused_mask()
    return tuple([np.zeros(k._a.shape, LONG) if isinstance(k, Tensor) else k for k in key])


@public
def index_put(input: Tensor, indices: Sequence[Any], values: Tensor, accumulate: bool = False) -> Tensor:
    """A copy with ``values`` at the index tensors (added there with ``accumulate``)."""
    key, values = _put_arguments(input, indices, values)
    return _checked(_index_put, input, values, key, accumulate)


@public
def index_put_(input: Tensor, indices: Sequence[Any], values: Tensor, accumulate: bool = False) -> Tensor:
    """``index_put`` in place."""
    m = mode()
    if m.__class__ is Modes and m.batch and innermost((input, values, *indices)) is not None:
        return write(input, index_put(input, indices, values, accumulate), "index_put_")
    key, values = _put_arguments(input, indices, values)
    ip.check_writable(input, needs=values._rg)
    was = ip.before(input)
    put_at(input._viewable(), key, values._a, accumulate)
    return rewrite(_index_put, input, was, (values,), (key, accumulate))


# ---- along one dimension -----------------------------------------------------------------------------------------------------------
def _rows(name: str, x: Tensor, dim: Any, i: Tensor) -> tuple[int, np.ndarray]:
    """The dimension and the indices, checked."""
    if i._a.dtype not in (np.int64, np.int32):
        raise error(RuntimeError, f"{name}(): Expected dtype int32 or int64 for index")
    if i._a.ndim > 1:
        raise error(IndexError, f"{name}(): Index is supposed to be a vector")
    return wrap_dim(dim, x._a.ndim), i._everything().reshape(-1)


def _in_range(i: np.ndarray, n: int, make: Any) -> None:
    if i.size and (i.min() < 0 or i.max() >= n):
        raise make(int(i[(i < 0) | (i >= n)].flat[0]))


def out_of_bounds(cls: Any, dim: int, n: int, prefix: str = "") -> Any:
    return lambda bad: error(cls, f"{prefix}index {bad} is out of bounds for dimension {dim} with size {n}")


@primitive(
    "index_select", vjp={"x": lambda g, x_shape, i, dim: _index_one_backward(g, i, x_shape, dim)},
    jvp="linear", batch=batching.reading("index_select"),
)
def _index_select(x: Any, i: Any, /, dim: Any) -> Any:
    return x.take(i, axis=dim)


@public(out=True)
def index_select(input: Tensor, dim: int, index: Tensor) -> Tensor:
    """The entries ``index`` (a vector) of a dimension."""
    d, i = _rows("index_select", input, dim, index)
    if i.size and input._a.ndim and not input._a.shape[d]:
        raise error(RuntimeError, "index_select(): self indexing axis dim should be positive")
    _in_range(i, input._a.shape[d] if input._a.ndim else 1, lambda bad: error(IndexError, "index out of range in self"))
    if not input._a.ndim:
        return input.reshape(1).index_select(0, index).reshape(())
    return _index_select(input, index if index._a.ndim else index.reshape(1), d)


@primitive(
    "index_add",
    vjp={
        "x": lambda g: g,
        "source": lambda g, source_shape, i, dim, alpha: reduce_to(scaled(_index_select(g, i, dim), alpha), source_shape),
    },
    jvp="linear",
    batch=batching.index_add,
)
def _index_add(x: Any, source: Any, i: Any, /, dim: Any, alpha: Any) -> Any:
    out = np.array(x, order="C", copy=True)
    key = _one_key(i, dim)
    add_at(out.reshape(1) if not out.ndim else out, key, (source if alpha == 1 else source * out.dtype.type(alpha)))
    return out


def scaled(g: Tensor, alpha: Any) -> Tensor:
    return g if alpha == 1 else g * alpha


def _source_fits(name: str, x: Tensor, dim: int, i: Tensor, source: Tensor) -> None:
    if source._a.dtype != x._a.dtype:
        raise error(
            RuntimeError,
            f"{name}(): self ({SCALAR_NAMES[x.dtype]}) and source ({SCALAR_NAMES[source.dtype]}) must have the same scalar type",
        )
    n = source._a.shape[dim] if source._a.ndim else 1
    if i._a.size != n:
        raise error(
            IndexError if name.startswith("index_copy") else RuntimeError,
            f"{name}(): Number of indices ({i._a.size}) should be equal to source.size(dim): ({n}), for dim: {dim}",
        )
    a, b = list(x._a.shape), list(source._a.shape)
    if len(a) == len(b) and a:
        a[dim] = b[dim] = 0
        if a != b:
            raise error(
                RuntimeError,
                f"source tensor shape must match self tensor shape, excluding the specified dimension. Got self.shape = "
                f"{list(x._a.shape)} source.shape = {list(source._a.shape)}",
            )


@public(inplace=True, out=True)
def index_add(input: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: Any = 1) -> Tensor:
    """A copy with ``alpha`` times the slices of ``source`` added at the entries ``index`` of a dimension."""
    d, i = _rows("index_add", input, dim, index)
    _source_fits("index_add_", input, d, index, source)
    n = input._a.shape[d] if input._a.ndim else 1
    _in_range(i, n, out_of_bounds(RuntimeError, d, n))
    return _index_add(input, source, index if index._a.ndim else index.reshape(1), d, alpha)


@primitive(
    "index_copy",
    vjp={
        "x": lambda g, i, dim: index_fill(g, dim, i, 0),
        "source": lambda g, source_shape, i, dim: reduce_to(_index_select(g, i, dim), source_shape),
    },
    jvp="linear",
    batch=batching.index_copy,
)
def _index_copy(x: Any, source: Any, i: Any, /, dim: Any) -> Any:
    out = x.copy()
    (out if out.ndim else out.reshape(1))[_one_key(i, dim)] = source
    return out


@public(inplace=True, out=True)
def index_copy(input: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    """A copy with the slices of ``source`` at the entries ``index`` of a dimension."""
    d, i = _rows("index_copy_", input, dim, index)
    _source_fits("index_copy_", input, d, index, source)
    n = input._a.shape[d] if input._a.ndim else 1
    _in_range(i, n, out_of_bounds(IndexError, d, n, "index_copy_(): "))
    return _index_copy(input, source, index if index._a.ndim else index.reshape(1), d)


_INDEX_FILL_RULES = {
    "x": lambda g, i, dim: index_fill(g, dim, i, 0),
    "value": lambda g, value_shape, i, dim: reduce_to(_index_select(g, i, dim), value_shape),
}


def _index_fill(x: Any, value: Any, i: Any, /, dim: Any) -> Any:
    out = x.copy()
    (out if out.ndim else out.reshape(1))[_one_key(i, dim)] = value
    return out


_index_fill_number = primitive("index_fill", vjp=_INDEX_FILL_RULES, jvp="linear", batch=batching.index_fill("index_fill"))(_index_fill)
_index_fill_tensor = primitive(
    "index_fill_tensor", node="IndexFillBackward1", vjp=_INDEX_FILL_RULES, jvp="linear", batch=batching.index_fill("index_fill_tensor")
)(_index_fill)


def _as_value(name: str, x: Tensor, value: Any) -> Tensor:
    if isinstance(value, Tensor):
        if value._a.ndim:
            raise error(
                RuntimeError,
                f"{name} only supports a 0-dimensional value tensor, but got tensor with {value._a.ndim} dimension(s).",
            )
        return fit_dtype(value, x.dtype)
    return wrap(np.array(number(value, x._a.dtype), x._a.dtype))


@public(inplace=True)
def index_fill(input: Tensor, dim: int, index: Tensor, value: Any) -> Tensor:
    """A copy with one value at the entries ``index`` of a dimension."""
    d, i = _rows("index_fill_", input, dim, index)
    n = input._a.shape[d] if input._a.ndim else 1
    _in_range(np.where(i < 0, i + n, i), n, out_of_bounds(IndexError, d, n))
    i = index if index._a.ndim else index.reshape(1)
    op = _index_fill_tensor if isinstance(value, Tensor) else _index_fill_number
    return op(input, _as_value("index_fill_", input, value), i, d)


# ---- gather and scatter --------------------------------------------------------------------------------------------------------------
def _check_gather(name: str, x: Tensor, dim: int, i: Tensor, src: Tensor | None = None) -> int:
    if i._a.dtype not in (np.int64, np.int32):
        raise error(RuntimeError, f"{name}(): Expected dtype int32/int64 for index")
    d = wrap_dim(dim, x._a.ndim)
    xs, n_i = x._a.shape or (1,), i._a.shape or (1,)
    if i._a.size:
        if len(xs) != len(n_i):
            raise error(RuntimeError, "Index tensor must have the same number of dimensions as input tensor")
        too_large = any(n_i[k] > xs[k] for k in range(len(xs)) if k != d)
        if src is not None:
            ss = src._a.shape or (1,)
            if len(ss) != len(n_i):
                raise error(RuntimeError, "Index tensor must have the same number of dimensions as src tensor")
            if too_large or any(a > b for a, b in zip(n_i, ss)):
                raise error(
                    RuntimeError,
                    f"Expected index {list(i._a.shape)} to be no larger than self {list(x._a.shape)} apart from dimension {d} and "
                    f"to be no larger size than src {list(src._a.shape)}",
                )
        elif too_large:
            raise error(
                RuntimeError,
                f"Size does not match at dimension {next(k for k in range(len(xs)) if k != d and n_i[k] > xs[k])} expected index "
                f"{list(i._a.shape)} to be no larger than self {list(x._a.shape)} apart from dimension {d}",
            )
    _in_range(i._everything(), xs[d], out_of_bounds(RuntimeError, d, xs[d]))
    return d


def grid(i: np.ndarray, dim: int) -> Key:
    """The key that pairs every entry of ``i``, along ``dim``, with its own place in the other dimensions."""
    key: list[Any] = []
    for d, n in enumerate(i.shape):
        key.append(i if d == dim else np.arange(n).reshape((-1,) + (1,) * (i.ndim - d - 1)))
    return tuple(key)


def flat_places(shape: tuple[int, ...], i: np.ndarray, dim: int) -> np.ndarray:
    """The places of ``grid`` in a contiguous array of a shape, flat."""
    out: Any = 0
    step = 1
    for d in range(len(shape) - 1, -1, -1):
        own = i if d == dim else np.arange(i.shape[d]).reshape((-1,) + (1,) * (i.ndim - d - 1))
        out = out + own * step
        step *= shape[d]
    return np.broadcast_to(out, i.shape).reshape(-1)


def _corner(shape: tuple[int, ...]) -> Key:
    return tuple([slice(0, n) for n in shape])


@primitive("gather", vjp={"x": lambda g, x_shape, i, dim: _gather_backward(g, i, x_shape, dim)}, jvp="linear", batch=batching.gather)
def _gather(x: Any, i: Any, /, dim: Any) -> Any:
    if not i.ndim:
        return x.reshape(-1)[i]
    if not x.ndim or not i.size:
        return np.broadcast_to(x.reshape(-1)[:1].reshape((1,) * i.ndim), i.shape).copy() if i.size else np.empty(i.shape, x.dtype)
    return x[grid(i, dim)]


@primitive(
    "gather_backward", node="GatherBackwardBackward0", vjp={"g": lambda g, i, dim: _gather(g, i, dim)},
    jvp="linear", batch=batching.gather_backward,
)
def _gather_backward(g: Any, i: Any, /, shape: Any, dim: Any) -> Any:
    out = np.zeros(shape, g.dtype)
    if i.size:
        add_elements(out.reshape(-1), flat_places(shape or (1,), i if i.ndim else i.reshape(1), dim), g.reshape(-1))
    return out


@public(out=True)
def gather(input: Tensor, dim: int, index: Tensor, *, sparse_grad: bool = False) -> Tensor:
    """``out[i][j][k] = input[index[i][j][k]][j][k]`` for dim 0, and so on.

    >>> import flambeau as torch
    >>> torch.tensor([[1, 2], [3, 4]]).gather(1, torch.tensor([[0, 0], [1, 0]]))
    tensor([[1, 1],
            [4, 3]])
    """
    if sparse_grad:
        raise error(NotImplementedError, "gather(sparse_grad=True)", hint="flambeau's gradients are dense.")
    return _gather(input, index, _check_gather("gather", input, dim, index))


def _scatter_src(g: Tensor, i: Tensor, dim: int, shape: tuple[int, ...]) -> Tensor:
    r = _gather(g, i, dim)
    return r if r._a.shape == shape else _embed(r, shape, _corner(r._a.shape))


@primitive(
    "scatter",
    vjp={
        "x": lambda g, i, dim: _scatter_value(g, i, dim, 0),
        "src": lambda g, src_shape, i, dim: _scatter_src(g, i, dim, src_shape),
    },
    jvp="linear",
    batch=batching.scatter,
)
def _scatter(x: Any, src: Any, i: Any, /, dim: Any) -> Any:
    out = np.array(x, order="C", copy=True)
    if i.size:
        out.reshape(-1)[flat_places(out.shape or (1,), i if i.ndim else i.reshape(1), dim)] = src[_corner(i.shape)].reshape(-1)
    return out


@primitive(
    "scatter_value", node="ScatterBackward1", vjp={"x": lambda g, i, dim: _scatter_value(g, i, dim, 0)},
    jvp=lambda x_t, i, dim: _scatter_value(x_t, i, dim, 0), batch=batching.scatter_value,
)
def _scatter_value(x: Any, i: Any, /, dim: Any, value: Any) -> Any:
    out = np.array(x, order="C", copy=True)
    if i.size:
        out.reshape(-1)[flat_places(out.shape or (1,), i if i.ndim else i.reshape(1), dim)] = value
    return out


@primitive(
    "scatter_add",
    vjp={"x": lambda g: g, "src": lambda g, src_shape, i, dim: _scatter_src(g, i, dim, src_shape)},
    jvp="linear",
    batch=batching.scatter_add,
)
def _scatter_add(x: Any, src: Any, i: Any, /, dim: Any) -> Any:
    out = np.array(x, order="C", copy=True)
    if i.size:
        places = flat_places(out.shape or (1,), i if i.ndim else i.reshape(1), dim)
        add_elements(out.reshape(-1), places, src[_corner(i.shape)].reshape(-1))
    return out


def _same_dtype(x: Tensor, src: Tensor) -> None:
    if x._a.dtype != src._a.dtype:
        raise error(RuntimeError, "scatter(): Expected self.dtype to be equal to src.dtype")


@public(inplace=True, out=True)
def scatter(input: Tensor, dim: int, index: Tensor, src: Any = None, *, value: Any = None, reduce: str | None = None) -> Tensor:
    """A copy with ``out[index[i][j]][j] = src[i][j]`` for dim 0, and so on; ``src`` may be a number.

    ``reduce``: "add" or "multiply" combines with what is there.
    """
    if src is None:
        src = value
    if not isinstance(src, Tensor):
        d = _check_gather("scatter", input, dim, index)
        v = number(src, input._a.dtype)
        if reduce is None:
            return _scatter_value(input, index, d, v)
        from .creation import full

        src = full(index._a.shape, src, dtype=input.dtype)
    d = _check_gather("scatter", input, dim, index, src)
    _same_dtype(input, src)
    if reduce is None:
        return _scatter(input, src, index, d)
    if reduce == "add":
        return _scatter_add(input, src, index, d)
    if reduce != "multiply":
        raise error(RuntimeError, "reduce argument must be either add or multiply.")
    return scatter_reduce(input, d, index, src, "prod")


@public(inplace=True, out=True)
def scatter_add(input: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    """A copy with ``src`` added at ``index`` along a dimension."""
    d = _check_gather("scatter_add", input, dim, index, src)
    _same_dtype(input, src)
    return _scatter_add(input, src, index, d)


REDUCTIONS = ("sum", "prod", "mean", "amax", "amin")


def _scatter_reduce_rule(
    g: Tensor, x: Tensor, src: Tensor, i: Tensor, dim: int, reduce: str, include: bool, out: Tensor, needs: Any
) -> tuple[Any, ...]:
    def spread(t: Tensor) -> Tensor:
        return _scatter_src(t, i, dim, src._a.shape)

    def zeros() -> Tensor:
        return wrap(np.zeros(x._a.shape, x._a.dtype))

    here = src[_corner(i._a.shape)] if src._a.shape != i._a.shape else src
    if reduce == "sum":
        gx, gs = g, spread(g)
    elif reduce == "mean":
        ones = wrap(np.ones(i._a.shape, x._a.dtype))
        n = _scatter_add(wrap(np.full(x._a.shape, float(include), x._a.dtype)), ones, i, dim)
        n = wrap(np.maximum(n._a, 1))
        gx = g / n
        gs = spread(gx)
    elif reduce == "prod":
        gx, gs = _prod_rule(g, x, here, i, dim, include, out)
        if gs._a.shape != src._a.shape:
            gs = _embed(gs, src._a.shape, _corner(gs._a.shape))
    else:
        top = _gather(out, i, dim)
        mine, theirs = x._a == out._a, here._a == top._a
        kept = wrap(mine.astype(x._a.dtype))
        won = wrap(theirs.astype(x._a.dtype))
        start = kept if include else zeros()
        n = _scatter_add(start, won, i, dim)
        share = g / wrap(np.maximum(n._a, 1))
        gx = share * kept
        gs = _gather(share, i, dim) * won
        if gs._a.shape != src._a.shape:
            gs = _embed(gs, src._a.shape, _corner(gs._a.shape))
    if not include:
        gx = _scatter_value(gx, i, dim, 0)
    return (gx if needs[0] else None, gs if needs[1] else None, None)


def _prod_rule(g: Tensor, x: Tensor, src: Tensor, i: Tensor, dim: int, include: bool, out: Tensor) -> tuple[Tensor, Tensor]:
    """A product's slopes are products of the others: by division, save where exactly one factor is zero."""
    ones = wrap(np.ones(x._a.shape, x._a.dtype))
    no_x = wrap(x._a == 0)
    gx = g * _scatter_reduce(x.masked_fill(no_x, 1), src, i, dim, "prod", True) / x.masked_fill(no_x, 1)
    zero = wrap(src._a == 0)
    count = _gather(_scatter_add(wrap(np.zeros_like(ones._a)), wrap(zero._a.astype(x._a.dtype)), i, dim), i, dim)
    single = wrap(zero._a & (count._a == 1))
    others = _scatter_reduce(x, src.masked_fill(single, 1), i, dim, "prod", include)
    by_others = _gather(g * others, i, dim)
    by_division = _gather(g * out, i, dim) / src.masked_fill(zero, 1)
    return gx, where(single, by_others, by_division)


def _reduce_into(x: Any, src: Any, i: Any, /, dim: Any, reduce: Any, include: Any) -> Any:
    out = np.array(x, order="C", copy=True)
    places = flat_places(out.shape or (1,), i if i.ndim else i.reshape(1), dim)
    reduce_elements(out.reshape(-1), places, src[_corner(i.shape)].reshape(-1), reduce, include)
    return out


_scatter_reduce, _index_reduce = [
    primitive(name, vjp=_scatter_reduce_rule, batch=batching.scatter_reduce(name))(_reduce_into) for name in ("scatter_reduce", "index_reduce")
]


def reducing_in_place(fn: Any) -> None:
    """``fn_``: the rules of reductions need the values from before the change, so these are copied."""

    def changed(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        m = mode()
        if m.__class__ is Modes and m.batch and innermost((self, *args, *kwargs.values())) is not None:
            return write(self, fn(self.clone(), *args, **kwargs), name)
        ip.check_writable(self, needs=ip.wanting((*args, *kwargs.values())))
        was = ip.before(self)
        was._a, was._vc = was._a.copy(), None
        return become(self, fn(was, *args, **kwargs))

    changed.__name__ = changed.__qualname__ = name = fn.__name__ + "_"
    changed.__doc__ = f"``{fn.__name__}`` in place."
    setattr(Tensor, name, changed)
    publish(name, changed)


@public(out=True)
def scatter_reduce(
    input: Tensor, dim: int, index: Tensor, src: Tensor, reduce: str, *, include_self: bool = True
) -> Tensor:
    """A copy in which ``src`` is reduced into the places ``index``: sum, prod, mean, amax or amin."""
    if reduce not in REDUCTIONS:
        raise error(RuntimeError, f"reduce argument must be either sum, prod, mean, amax or amin, got {reduce}")
    d = _check_gather("scatter_reduce", input, dim, index, src)
    _same_dtype(input, src)
    if reduce != "sum" and reduce != "prod":
        takes(f"scatter_gather_tensor_cpu_reduce_{reduce}", input, "ihfc" if reduce == "mean" else "bihf")
    return _scatter_reduce(input, src, index, d, reduce, include_self)


reducing_in_place(scatter_reduce)


@public(out=True)
def index_reduce(
    input: Tensor, dim: int, index: Tensor, source: Tensor, reduce: str, *, include_self: bool = True
) -> Tensor:
    """A copy in which the slices of ``source`` are reduced into the entries ``index`` of a dimension."""
    if reduce not in ("prod", "mean", "amax", "amin"):
        raise error(RuntimeError, f"index_reduce(): Expected reduce to be one of prod, mean, amax or amin but got {reduce}.")
    if reduce != "prod":
        name = {"mean": "div_floor_cpu", "amax": "maximum_cpu", "amin": "minimum_cpu"}[reduce]
        takes(name, input, "ihfc" if reduce == "mean" else "bihf")
    d, i = _rows("index_reduce", input, dim, index)
    _source_fits("index_reduce", input, d, index, source)
    n = input._a.shape[d]
    _in_range(i, n, out_of_bounds(IndexError, d, n))
    shape = [1] * input._a.ndim
    shape[d] = -1
    full = index.reshape(shape).expand(source._a.shape)
    full = full if batching.is_guard(full) else wrap(full._a.copy())
    return _index_reduce(input, source, full, d, reduce, include_self)


reducing_in_place(index_reduce)


# ---- masks -----------------------------------------------------------------------------------------------------------------------------
_MASKED_FILL_RULES = {
    "x": lambda g, x_shape, mask: reduce_to(_masked_fill(g, _zero(g), mask), x_shape),
    "value": lambda g, mask, value_shape: reduce_to(where(mask, g, _zero(g)), value_shape),
}


def _fill_where(x: Any, value: Any, mask: Any, /) -> Any:
    if x.shape == mask.shape:
        out = x.copy("K")
    else:
        shape = np.broadcast_shapes(x.shape, mask.shape)
        out = x.copy("K") if shape == x.shape else np.array(np.broadcast_to(x, shape))
    np.copyto(out, value, where=mask)
    return out


_masked_fill, _masked_fill_tensor = [
    primitive(name, node=f"MaskedFillBackward{n}", vjp=_MASKED_FILL_RULES, jvp="linear", batch=batching.masked_fill(name))(_fill_where)
    for n, name in enumerate(("masked_fill", "masked_fill_tensor"))
]


def _fill_op(value: Any) -> Any:
    return _masked_fill_tensor if isinstance(value, Tensor) else _masked_fill


def _zero(g: Tensor) -> Tensor:
    return wrap(np.zeros((), g._a.dtype))


def _check_mask(name: str, x: Tensor, mask: Tensor) -> None:
    if mask._a.dtype.kind != "b":
        kind = {"int64": "long int", "int32": "int", "uint8": "unsigned char", "float32": "float", "float64": "double"}
        raise error(
            RuntimeError,
            f"{name} only supports boolean masks, but got mask with dtype {kind.get(mask.dtype.name, mask.dtype.name)}",
            hint="Compare, as in x > 0, or convert it with .bool().",
        )


def _broadcasts(x: Tensor, mask: Tensor) -> tuple[int, ...]:
    try:
        return np.broadcast_shapes(x._a.shape, mask._a.shape)
    except ValueError as e:
        from ..autograd.pointwise import broadcast_error

        raise broadcast_error((mask._a, x._a), e) from None


@public
def masked_fill(input: Tensor, mask: Tensor, value: Any) -> Tensor:
    """A copy with ``value`` where ``mask`` is True."""
    _check_mask("masked_fill_", input, mask)
    _broadcasts(input, mask)
    return _fill_op(value)(input, _as_value("masked_fill_", input, value), mask)


@public
def masked_fill_(input: Tensor, mask: Tensor, value: Any) -> Tensor:
    """``masked_fill`` in place."""
    m = mode()
    if m.__class__ is Modes and m.batch and innermost((input, mask, value)) is not None:
        return write(input, masked_fill(input, mask, value))
    _check_mask("masked_fill_", input, mask)
    both = _broadcasts(mask, input)
    if both != input._a.shape:
        raise error(RuntimeError, f"output with shape {list(input._a.shape)} doesn't match the broadcast shape {list(both)}")
    v = _as_value("masked_fill_", input, value)
    ip.check_history(input, needs=v._rg)
    a = input._a
    if a.size > 1 and 0 in a.strides:
        warnings.warn(
            "Use of masked_fill_ on expanded tensors is deprecated. Please clone() the tensor before performing this operation. This "
            "also applies to advanced indexing e.g. tensor[mask] = scalar",
            UserWarning,
            stacklevel=2,
        )
    was = ip.before(input)
    np.copyto(a if a.flags.writeable else ip.writable(a), v._a, where=mask._a)
    return rewrite(_fill_op(value), input, was, (v, mask), ())


@primitive(
    "masked_select", vjp={"x": lambda g, x_shape, mask: _index_one_backward(g, mask, x_shape, 0)},
    jvp="linear", batch=batching.masked_select,
)
def _masked_select(x: Any, mask: Any, /) -> Any:
    return x[mask]


@public(out=True)
def masked_select(input: Tensor, mask: Tensor) -> Tensor:
    """The elements where ``mask`` is True, flat; the two broadcast."""
    if mask._a.dtype.kind != "b":
        raise error(RuntimeError, "masked_select: expected BoolTensor for mask")
    shape = _broadcasts(input, mask)
    x = input if input._a.shape == shape else input.expand(shape)
    m = mask if mask._a.shape == shape else mask.expand(shape)
    return _masked_select(x, m)


def _unselect(g: Tensor, mask: Tensor, shape: tuple[int, ...]) -> Tensor:
    part = _masked_select(g, mask)
    n = 1
    for k in shape:
        n *= k
    return _embed(part, (n,), (slice(0, part._a.size),)).reshape(shape)


@primitive(
    "masked_scatter",
    vjp={
        "x": lambda g, mask: _masked_fill(g, _zero(g), mask),
        "source": lambda g, mask, source_shape: _unselect(g, mask, source_shape),
    },
    jvp="linear",
    batch=batching.masked_scatter,
)
def _masked_scatter(x: Any, source: Any, mask: Any, /) -> Any:
    out = x.copy()
    out[mask] = source.reshape(-1)[: np.count_nonzero(mask)]
    return out


@public(inplace=True)
def masked_scatter(input: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    """A copy with the elements of ``source``, in order, where ``mask`` is True."""
    if mask._a.dtype.kind != "b":
        raise error(RuntimeError, f"masked_scatter_ only supports boolean masks, but got mask with dtype {SCALAR_NAMES[mask.dtype]}")
    if source._a.dtype != input._a.dtype:
        raise error(RuntimeError, f"masked_scatter: expected self and source to have same dtypes but got {SCALAR_NAMES[input.dtype]} "
                    f"and {SCALAR_NAMES[source.dtype]}")
    shape = _broadcasts(input, mask)
    x = input if input._a.shape == shape else input.expand(shape)
    m = mask if mask._a.shape == shape else mask.expand(shape)
    if source._a.size < np.count_nonzero(m._everything().reshape(-1, max(m._a.size, 1)), 1).max(initial=0):
        raise error(RuntimeError, "Number of elements of source < number of ones in mask")
    return _masked_scatter(x, source, m)


c, x_, y_ = E.var("condition", dtype="bool"), E.var("x"), E.var("y")
_where = pointwise("where", E.where(c, x_, y_), "condition x y", bools="condition")


@public
def where(condition: Tensor, input: Any = None, other: Any = None, *, out: Tensor | None = None) -> Any:
    """``input`` where ``condition`` is True, ``other`` elsewhere; with the condition alone ``nonzero(as_tuple=True)``."""
    if input is None and other is None:
        return nonzero(condition, as_tuple=True)
    if isinstance(condition, Tensor) and condition._a.dtype == np.uint8:
        condition = condition.bool()
    if not isinstance(condition, Tensor):
        raise error(TypeError, f"where(): argument 'condition' (position 1) must be Tensor, not {type(condition).__name__}")
    if condition._a.dtype.kind != "b":
        raise error(
            RuntimeError,
            f"where expected condition to be a boolean tensor, but got a tensor with dtype {SCALAR_NAMES[condition.dtype]}",
        )
    r = _where.call(condition, input, other)
    if out is not None:
        write_out("where", out, r)
        return out
    return r


def _tensor_where(self: Tensor, condition: Tensor, other: Any) -> Tensor:
    return where(condition, self, other)


Tensor.where = _tensor_where


@public
def nonzero(input: Tensor, *, as_tuple: bool = False, out: Tensor | None = None) -> Any:
    """The indices of the elements that are not zero: (n, dimensions), or a vector for each dimension."""
    a = input._a
    if batching.is_guard(input):
        raise batching.refused_shape("aten::nonzero")
    if as_tuple:
        return tuple([wrap(i) for i in np.atleast_1d(a).nonzero()])
    r = wrap(np.stack(a.nonzero(), 1) if a.ndim else np.empty((int(bool(a)), 0), LONG))
    if out is not None:
        write_out("nonzero", out, r)
        return out
    return r


@public
def argwhere(input: Tensor) -> Tensor:
    """``nonzero(input)``."""
    return nonzero(input)


# ---- flat places ------------------------------------------------------------------------------------------------------------------------
def _check_flat(x: Tensor, i: Tensor) -> None:
    if i._a.dtype != LONG:
        raise error(RuntimeError, f"take(): Expected a long tensor for index, but got {SCALAR_NAMES[i.dtype]}")
    n, a = x._a.size, i._everything()
    if a.size and (a.min() < -n or a.max() >= n):
        bad = int(a[(a < -n) | (a >= n)].flat[0])
        raise error(IndexError, f"out of range: tried to access index {bad} on a tensor of {n} elements.")


@primitive("take", vjp={"x": lambda g, x_shape, i: _take_backward(g, i, x_shape)}, jvp="linear", batch=batching.take)
def _take(x: Any, i: Any, /) -> Any:
    return x.reshape(-1)[i]


@primitive(
    "take_backward", node="TakeBackwardBackward0", vjp={"g": lambda g, i: _take(g, i)}, jvp="linear", batch=batching.take_backward
)
def _take_backward(g: Any, i: Any, /, shape: Any) -> Any:
    out = np.zeros(shape, g.dtype)
    add_elements(out.reshape(-1), np.where(i < 0, i + out.size, i).reshape(-1), g.reshape(-1))
    return out


@public(out=True)
def take(input: Tensor, index: Tensor) -> Tensor:
    """The elements at places of the flattened tensor."""
    _check_flat(input, index)
    return _take(input, index)


@primitive(
    "put",
    vjp={
        "x": lambda g, i, accumulate: g if accumulate else _put(g, wrap(np.zeros(i._a.shape, g._a.dtype)), i, False),
        "source": lambda g, source_shape, i: _take(g, i).reshape(source_shape),
    },
    jvp="linear",
    batch=batching.put_flat,
)
def _put(x: Any, source: Any, i: Any, /, accumulate: Any) -> Any:
    out = np.array(x, order="C", copy=True)
    flat, at = out.reshape(-1), np.where(i < 0, i + out.size, i).reshape(-1)
    if accumulate:
        add_elements(flat, at, source.reshape(-1))
    else:
        flat[at] = source.reshape(-1)
    return out


@public(inplace=True)
def put(input: Tensor, index: Tensor, source: Tensor, accumulate: bool = False) -> Tensor:
    """A copy with ``source`` at places of the flattened tensor."""
    _check_flat(input, index)
    if source._a.dtype != input._a.dtype:
        raise error(RuntimeError, f"put_(): self and source expected to have the same dtype, but got self.dtype = {input.dtype} and "
                    f"source.dtype = {source.dtype}")
    if index._a.size != source._a.size:
        raise error(
            IndexError,
            f"put_(): Expected source and index to have the same number of elements, but got source.numel() = {source._a.size}, "
            f"index.numel() = {index._a.size}",
        )
    return _put(input, source, index, accumulate)


# ---- into a window ----------------------------------------------------------------------------------------------------------------------
def _scatter_family(name: str, node: str, window: Any, read: Any, batched: Any) -> Any:
    """A copy of x with src in a window: the operator and its erasure. ``window(array, *params)`` is the part, writable.

    ``batched(examples, *params)``: the parameters of the window into (batch, ...).
    """

    def erase_kernel(g: Any, /, params: Any) -> Any:
        out = g.copy()
        window(out, *params)[...] = 0
        return out

    erase = primitive(
        f"{name}_erase", node=node, vjp={"g": lambda g, params: erase(g, params)}, jvp="linear",
        batch=lambda b, g, params: erase(g, batched(g._a.shape, *params)),
    )(erase_kernel)

    def kernel(x: Any, src: Any, /, params: Any) -> Any:
        out = x.copy()
        window(out, *params)[...] = src
        return out

    def rule(b: Any, x: Tensor, src: Tensor, params: Any) -> Tensor:
        x = b.full(x, b.has("x"))
        return op(x, b.full(src, b.has("src")), batched(x._a.shape, *params))

    op = primitive(
        name, node=node,
        vjp={"x": lambda g, params: erase(g, params), "src": lambda g, params: read(g, *params)}, jvp="linear", batch=rule,
    )(kernel)  # fmt: skip
    return op


def _in_every(shape: tuple[int, ...], key: Key) -> tuple[Key]:
    return ((EVERYTHING, *key),)


def _by_key(a: np.ndarray, key: Key) -> np.ndarray:
    return a[key]


_select_scatter = _scatter_family("select_scatter", "SelectScatterBackward0", _by_key, lambda g, key: _slice(g, key), _in_every)
_slice_scatter = _scatter_family("slice_scatter", "SliceScatterBackward0", _by_key, lambda g, key: _slice(g, key), _in_every)
_diagonal_scatter = _scatter_family(
    "diagonal_scatter", "DiagonalScatterBackward0", writable_diagonal, lambda g, o, d1, d2: g.diagonal(o, d1, d2),
    lambda shape, o, d1, d2: (o, d1 + 1, d2 + 1),
)


def shell(t: Tensor) -> np.ndarray:
    """An array of the tensor's shape to ask shapes of."""
    return np.broadcast_to(np.int8(0), t._a.shape) if batching.is_guard(t) else t._a


def _check_src(src: Tensor, shape: tuple[int, ...]) -> None:
    if src._a.shape != shape:
        raise error(
            RuntimeError,
            f"expected src to have a size equal to the slice of self. src size = {list(src._a.shape)}, slice size = {list(shape)}",
        )


@public
def select_scatter(input: Tensor, src: Tensor, dim: int, index: int) -> Tensor:
    """A copy with ``src`` as the slice at ``index`` of a dimension."""
    d = wrap_dim(dim, input._a.ndim)
    n = input._a.shape[d]
    if not -n <= index < n:
        raise error(IndexError, f"select(): index {index} out of range for tensor of size {list(input._a.shape)} at dimension {dim}")
    key = (EVERYTHING,) * d + (index, ...)
    _check_src(src, shell(input)[key].shape)
    return _select_scatter(input, src, (key,))


@public
def slice_scatter(input: Tensor, src: Tensor, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1) -> Tensor:
    """A copy with ``src`` as the slice ``start:end:step`` of a dimension."""
    s = slice(start, end, step)
    check_slice(s)
    key = (EVERYTHING,) * wrap_dim(dim, input._a.ndim) + (s,)
    _check_src(src, shell(input)[key].shape)
    return _slice_scatter(input, src, (key,))


@public
def diagonal_scatter(input: Tensor, src: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """A copy with ``src`` as a diagonal."""
    d1, d2 = diagonal_dims(input, dim1, dim2)
    _check_src(src, shell(input).diagonal(offset, d1, d2).shape)
    return _diagonal_scatter(input, src, (offset, d1, d2))


@public
def as_strided_scatter(input: Tensor, src: Tensor, size: Any, stride: Any, storage_offset: int | None = None) -> Tensor:
    """A copy with ``src`` as the window that ``as_strided`` gives."""
    if batching.is_guard(input):
        base, layout = input, wrap(np.empty(input._a.shape, input._a.dtype))
    else:
        base = layout = input if input._a.flags.c_contiguous and not input.storage_offset() else input.contiguous()
    geometry = as_strided_geometry("as_strided_scatter", layout, size, stride, storage_offset)
    _check_src(src, geometry[0])
    return _strided_scatter(base, src, geometry)


def _strided_window(a: np.ndarray, size: Any, stride: Any, offset: Any, source: Any) -> np.ndarray:
    from .views import restride

    k = a.itemsize
    return restride(a, size, tuple([s * k for s in stride]), (offset - source[2]) * k)


def _strided_in_every(shape: tuple[int, ...], size: Any, stride: Any, offset: Any, source: Any) -> tuple[Any, ...]:
    n = math.prod(shape[1:])  # each example is a storage of its own, in C order
    return (shape[0], *size), (n, *stride), offset, (shape, (n, *source[1]), source[2])


_strided_scatter = _scatter_family(
    "as_strided_scatter", "AsStridedScatterBackward0", _strided_window, lambda g, *geometry: _as_strided_copy(g, *geometry),
    _strided_in_every,
)


# ---- embeddings --------------------------------------------------------------------------------------------------------------------------
@primitive(
    "embedding",
    vjp={
        "weight": lambda g, weight_shape, i, padding, by_frequency: _embedding_backward(g, i, weight_shape[0], padding, by_frequency)
    },
    jvp="linear",
    batch=batching.embedding,
)
def _embedding(weight: Any, i: Any, /, padding: Any, by_frequency: Any) -> Any:
    return weight.take(i, axis=0)


def _embedding_scale(i: np.ndarray, padding: int, by_frequency: bool, dt: Any) -> np.ndarray | None:
    """What each looked-up row's gradient is multiplied by; None for ones."""
    scale = None
    if by_frequency:
        scale = 1.0 / np.bincount(i.reshape(-1))[i] if i.size else None
    if padding >= 0:
        keep = i != padding
        scale = keep if scale is None else scale * keep
    return None if scale is None else scale.astype(dt)[..., None]


@primitive(
    "embedding_backward",
    node="EmbeddingDenseBackward0",
    vjp={"g": lambda g, i, padding, by_frequency: _embedding_double(g, i, padding, by_frequency)},
    jvp="linear",
    batch=batching.embedding_backward,
)
def _embedding_backward(g: Any, i: Any, /, n: Any, padding: Any, by_frequency: Any) -> Any:
    scale = _embedding_scale(i, padding, by_frequency, g.dtype)
    rows = g if scale is None else g * scale
    return sum_rows(i.reshape(-1), rows.reshape(-1, g.shape[-1]), n)


def _embedding_double(g: Tensor, i: Tensor, padding: int, by_frequency: bool) -> Tensor:
    r = _embedding(g, i, -1, False)
    scale = _embedding_scale(i._a, padding, by_frequency, g._a.dtype)
    return r if scale is None else r * wrap(scale)


@public(module="nn.functional")
def embedding(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """The rows ``input`` of ``weight``: (...) -> (..., features).

    ``padding_idx``: a row that gets no gradient; ``max_norm``: rows looked up are first shortened, in place, to that norm.
    """
    if input._a.dtype not in (np.int64, np.int32):
        raise error(
            RuntimeError,
            "Expected tensor for argument #1 'indices' to have one of the following scalar types: Long, Int; but got "
            f"torch.{SCALAR_NAMES[input.dtype]}Tensor instead (while checking arguments for embedding)",
        )
    if sparse:
        raise error(NotImplementedError, "embedding(sparse=True)", hint="flambeau's gradients are dense: leave sparse out.")
    if weight._a.ndim != 2:
        raise error(RuntimeError, "'weight' must be 2-D")
    n = weight._a.shape[0]
    if padding_idx is not None:
        if not -n <= padding_idx < n:
            raise error(AssertionError, "Padding_idx must be within num_embeddings")
        padding_idx += n if padding_idx < 0 else 0
    _in_range(
        input._everything(), n, lambda bad: error(IndexError, "index out of range in self", hint=f"The index is {bad}; there are {n} rows.")
    )
    if max_norm is not None:
        renormalise(weight, input, max_norm, norm_type)
    return _embedding(weight, input, -1 if padding_idx is None else padding_idx, scale_grad_by_freq)


def renormalise(weight: Tensor, i: Tensor, max_norm: float, norm_type: float) -> None:
    """Shorten the rows ``i`` to a norm, in place."""
    if weight.__class__ is Batched:
        each = at(i, weight._level)
        for k in range(weight._level.size):
            renormalise(weight._value.select(0, k), each.select(0, k), max_norm, norm_type)
        return
    rows = np.unique(i._everything())
    values = weight._a[rows]
    norms = np.linalg.norm(values.astype(np.float64), norm_type, axis=1)
    long = norms > max_norm
    if long.any():
        weight._a[rows[long]] = values[long] * (max_norm / (norms[long] + 1e-7))[:, None].astype(values.dtype)
        ip.changed(weight)


@public(module="nn.functional")
def one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
    """Each class index as a vector of zeros with a one: (...) -> (..., classes)."""
    if tensor._a.dtype != LONG:
        raise error(RuntimeError, "one_hot is only applicable to index tensor of type LongTensor.")
    a = tensor._everything()
    if a is not tensor._a and num_classes <= 0:
        raise error(RuntimeError, "When vmap-ing torch.nn.functional.one_hot, please provide an explicit positive num_classes argument.")
    if not a.size:
        if num_classes <= 0:
            raise error(RuntimeError, "Can not infer total number of classes from empty tensor.")
        return _one_hot(tensor, num_classes)
    if a.min() < 0:
        raise error(RuntimeError, "Class values must be non-negative.")
    top = int(a.max())
    if num_classes == -1:
        num_classes = top + 1
    elif num_classes < 1:
        raise error(RuntimeError, "num_classes should be positive")
    elif top >= num_classes:
        raise error(RuntimeError, "Class values must be smaller than num_classes.")
    return _one_hot(tensor, num_classes)


@primitive("one_hot", batch={})
def _one_hot(i: Any, /, n: Any) -> Any:
    return (i[..., None] == np.arange(n)).astype(LONG)
