"""Views: other shapes, orders and windows of the same memory, and the few rearrangements that copy.

Every view is a primitive whose kernel gives a NumPy view. Public functions re-lay an image that a kernel left
channels-last (``Tensor._viewable``) before they make one.
"""

from __future__ import annotations

import math
import operator
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..autograd import forbidden
from ..autograd import inplace as ip
from ..autograd.primitive import Primitive, primitive
from ..core.dtypes import SCALAR_NAMES, dtype
from ..core.errors import error
from ..core.size import Size
from ..core.tensor import Tensor, address, storage_array, wrap
from .convert import reduce_to, to_copy
from .dims import wrap_dim, wrap_dims
from .public import public, publish

Index = int | np.integer


def ints(values: Sequence[Any]) -> tuple[int, ...]:
    """``f(1, 2)`` and ``f((1, 2))`` alike, as ints."""
    if len(values) == 1:
        v = values[0]
        if v.__class__ is not int and not hasattr(v, "__index__") or isinstance(v, Tensor) and v._a.ndim:
            values = tuple(v)
    try:
        return tuple([v if v.__class__ is int else operator.index(v) for v in values])
    except TypeError:
        bad = next(v for v in values if not hasattr(v, "__index__"))
        raise error(TypeError, f"expected a tuple of ints, but found element of type {type(bad).__name__}") from None


def ready(t: Any, name: str) -> Tensor:
    """The tensor, in an order that may be viewed."""
    if not isinstance(t, Tensor):
        raise error(TypeError, f"{name}(): argument 'input' (position 1) must be Tensor, not {type(t).__name__}")
    if t._a.ndim > 3:
        t._viewable()
    return t


def restride(a: np.ndarray, shape: Any, strides: Any, offset: int = 0, dt: Any = None) -> np.ndarray:
    """A view of the memory of ``a``: strides in bytes, offset in bytes from the first element of ``a``."""
    root = storage_array(a)
    if root.size and 0 not in shape:
        flat = root.ravel(order="K")  # no copy where the memory is dense, in whatever order
        if root.flags.forc or address(flat) == address(root):
            return np.ndarray(shape, dt or a.dtype, flat.view(np.uint8), address(a) - address(root) + offset, strides)
    if 0 in shape:
        return np.empty(shape, dt or a.dtype)
    one = np.lib.stride_tricks.as_strided(a, (1,), (a.itemsize,))
    return np.lib.stride_tricks.as_strided(one, shape, strides)


# ---- shapes ----------------------------------------------------------------------------------------------------------------
def _shape_batch(b: Any, x: Any, shape: Any) -> Any:
    if not b.size and -1 in shape:  # the values don't tell
        known = math.prod([n for n in shape if n != -1])
        shape = tuple([math.prod(x._a.shape[1:]) // max(known, 1) if n == -1 else n for n in shape])
    return x.reshape(b.size, *shape)


@primitive("view", view="one", vjp={"x": lambda g, x_shape: g.reshape(x_shape)}, batch=_shape_batch)
def _view(x: Any, /, shape: Any) -> Any:
    return x.reshape(shape)


@primitive(
    "unsafe_view", vjp={"x": lambda g, x_shape: g.reshape(x_shape)}, jvp="linear", batch=_shape_batch
)
def _unsafe_view(x: Any, /, shape: Any) -> Any:
    return x.reshape(shape)


def shape_error(a: np.ndarray, shape: tuple[int, ...]) -> BaseException:
    if shape.count(-1) > 1:
        return error(RuntimeError, "only one dimension can be inferred")
    if any(n < -1 for n in shape):
        i = next(i for i, n in enumerate(shape) if n < -1)
        return error(RuntimeError, f"invalid shape dimension {shape[i]} at index {i} of shape {list(shape)}")
    if not a.size and -1 in shape and 0 in shape:
        return error(
            RuntimeError,
            f"cannot reshape tensor of 0 elements into shape {list(shape)} because the unspecified dimension size -1 can be "
            "any value and is ambiguous",
        )
    known = math.prod(n for n in shape if n >= 0)
    hint = f"The tensor has shape {list(a.shape)}: {a.size} elements"
    if -1 in shape:
        hint += f", which is no multiple of the {known} in the dimensions given."
    else:
        hint += f"; the new shape has {known}."
    return error(RuntimeError, f"shape '{list(shape)}' is invalid for input of size {a.size}", hint=hint)


def reshaped(x: Tensor, shape: tuple[int, ...]) -> np.ndarray:
    a = x._a
    if shape and min(shape) < -1:
        raise shape_error(a, shape)
    try:
        return a.reshape(shape)
    except ValueError:
        raise shape_error(a, shape) from None


def is_view_of(r: np.ndarray, a: np.ndarray) -> bool:
    return not a.size or address(r) == address(a)


@public(function=False, method=True)
def view(self: Tensor, *shape: Any) -> Tensor:
    """The same memory in another shape (one entry may be -1), or read as another dtype: ``view(torch.int32)``.

    Raises RuntimeError where the strides make that impossible; ``reshape`` copies then.

    >>> import flambeau as torch
    >>> torch.arange(6).view(2, -1)
    tensor([[0, 1, 2],
            [3, 4, 5]])
    """
    if len(shape) == 1 and isinstance(shape[0], dtype):
        return _view_dtype(self, shape[0])
    if not shape:
        raise error(TypeError, "view() received an invalid combination of arguments - got (), but expected a shape or a dtype")
    x, size = ready(self, "view"), ints(shape)
    a = x._a
    if not a.flags.c_contiguous and a.__class__ is np.ndarray:
        if not is_view_of(reshaped(x, size), a):
            raise error(
                RuntimeError,
                "view size is not compatible with input tensor's size and stride (at least one dimension spans across two "
                "contiguous subspaces). Use .reshape(...) instead.",
            )
    return _to_shape(x, size)


def _to_shape(x: Tensor, size: tuple[int, ...]) -> Tensor:
    try:
        if size and min(size) < -1:  # NumPy takes any negative entry for -1
            raise ValueError
        return _view(x, size)
    except ValueError:
        raise shape_error(x._a, size) from None


@primitive("view_dtype", view="one", batch={})
def _reinterpret(x: Any, /, to: Any) -> Any:
    return x.view(to)


def _view_dtype(t: Tensor, d: dtype) -> Tensor:
    a = ready(t, "view")._a
    new, old = d.itemsize, a.itemsize
    if new != old:
        if not a.ndim:
            raise error(
                RuntimeError, f"self.dim() cannot be 0 to view {t.dtype} as {d} (different element sizes)"
            )
        if a.strides[-1] != old and a.shape[-1] != 1:
            raise error(RuntimeError, f"self.stride(-1) must be 1 to view {t.dtype} as {d} (different element sizes), but got "
                        f"{a.strides[-1] // old}")
        if a.shape[-1] * old % new:
            raise error(
                RuntimeError,
                f"self.size(-1) must be divisible by {new // old} to view {t.dtype} as {d} (different element sizes), but got "
                f"{a.shape[-1]}",
            )
    return _reinterpret(t, d.np)


@public
def reshape(input: Tensor, *shape: Any) -> Tensor:
    """Another shape of as many elements: a view where the strides allow it, else a copy."""
    size = ints(shape)
    x = ready(input, "reshape")
    a = x._a
    if a.flags.c_contiguous or a.__class__ is not np.ndarray:
        return _to_shape(x, size)
    return _view(x, size) if is_view_of(reshaped(x, size), a) else _unsafe_view(x, size)


def _reshape_function(input: Tensor, shape: Any) -> Tensor:
    return reshape(input, *(shape if isinstance(shape, (tuple, list)) else (shape,)))


_reshape_function.__doc__ = reshape.__doc__
_reshape_function.__name__ = "reshape"
publish("reshape", _reshape_function)


@public(function=False, method=True)
def view_as(self: Tensor, other: Tensor) -> Tensor:
    """``self.view(other.shape)``."""
    return view(self, other._a.shape)


@public(function=False, method=True)
def reshape_as(self: Tensor, other: Tensor) -> Tensor:
    """``self.reshape(other.shape)``."""
    return reshape(self, other._a.shape)


@public
def flatten(input: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """The dimensions from ``start_dim`` to ``end_dim`` as one."""
    shape = input._a.shape
    first, last = wrap_dim(start_dim, len(shape)), wrap_dim(end_dim, len(shape))
    if not shape:
        return reshape(input, 1)
    if first > last:
        raise error(RuntimeError, "flatten() has invalid args: start_dim cannot come after end_dim")
    if first == last:
        return input
    return reshape(input, (*shape[:first], math.prod(shape[first : last + 1]), *shape[last + 1 :]))


@public
def unflatten(input: Tensor, dim: int, sizes: Sequence[int]) -> Tensor:
    """One dimension as several; an entry of ``sizes`` may be -1."""
    shape = input._a.shape
    d = wrap_dim(dim, len(shape))
    if not shape:
        raise error(RuntimeError, "unflatten: a tensor without dimensions has none to unflatten")
    sizes = ints((sizes,))
    if not sizes:
        raise error(RuntimeError, "unflatten: sizes must be non-empty")
    known = math.prod(n for n in sizes if n != -1)
    if (known != shape[d] if -1 not in sizes else not known or shape[d] % known):
        raise error(
            RuntimeError,
            f"unflatten: Provided sizes {list(sizes)} don't multiply up to the size of dim {d} ({shape[d]}) in the input tensor",
        )
    if -1 in sizes:
        sizes = tuple([shape[d] // known if n == -1 else n for n in sizes])
    return view(input, (*shape[:d], *sizes, *shape[d + 1 :]))


@public
def ravel(input: Tensor) -> Tensor:
    """One dimension, a view where that can be."""
    return reshape(input, -1)


def _squeeze_rule(g: Tensor, x_shape: Any) -> Tensor:
    return g.reshape(x_shape)


def _squeezed(x: Any, /, shape: Any) -> Any:
    return x.reshape(shape)


_SQUEEZE = [
    primitive(
        f"squeeze{i}", node=f"SqueezeBackward{i}", view="one", vjp={"x": _squeeze_rule}, batch=_shape_batch
    )(_squeezed)
    for i in range(3)
]


def _squeeze_plan(t: Tensor, dim: Any) -> tuple[Primitive, tuple[int, ...]]:
    shape = t._a.shape
    if dim is None:
        return _SQUEEZE[0], tuple([n for n in shape if n != 1])
    several = isinstance(dim, (tuple, list))
    drop = {d for d in wrap_dims(dim, len(shape)) if shape[d] == 1}
    return _SQUEEZE[1 + several], tuple([n for i, n in enumerate(shape) if i not in drop])


@public
def squeeze(input: Tensor, dim: Any = None) -> Tensor:
    """Without the dimensions of size 1, or without those among ``dim``."""
    x = ready(input, "squeeze")
    op, shape = _squeeze_plan(x, dim)
    a = x._a
    if a.flags.c_contiguous or a.__class__ is not np.ndarray:
        return op(x, shape)
    keep = _squeeze_keeps(a, dim)
    return _squeeze_nc(x, keep)


def _squeeze_keeps(a: np.ndarray, dim: Any) -> tuple[int, ...]:
    if dim is None:
        return tuple([i for i, n in enumerate(a.shape) if n == 1])
    return tuple([d for d in wrap_dims(dim, a.ndim) if a.shape[d] == 1])


@primitive("squeeze_strided", node="SqueezeBackward1", view="one", vjp={"x": _squeeze_rule}, batch={"axes": "dim"})
def _squeeze_nc(x: Any, /, axes: Any) -> Any:
    return x.squeeze(axes)


@primitive("unsqueeze", view="one", vjp={"x": lambda g, dim: g.squeeze(dim)}, batch={"dim": "dim"})
def _unsqueeze(x: Any, /, dim: Any) -> Any:
    return x[(slice(None),) * dim + (None,)] if x.ndim else x.reshape(1)


@public
def unsqueeze(input: Tensor, dim: int) -> Tensor:
    """With a new dimension of size 1 at ``dim``."""
    x = ready(input, "unsqueeze")
    n = x._a.ndim + 1
    return _unsqueeze(x, dim if dim.__class__ is int and 0 <= dim < n else wrap_dim(dim, n))


# ---- orders -----------------------------------------------------------------------------------------------------------------
@primitive(
    "transpose", view="one", vjp={"x": lambda g, d0, d1: g.transpose(d0, d1)},
    batch=lambda b, x, d0, d1: _transpose(x, d0 + 1, d1 + 1) if x._a.ndim > 1 else x,
)  # fmt: skip
def _transpose(x: Any, /, d0: Any, d1: Any) -> Any:
    return x.swapaxes(d0, d1) if x.ndim else x.view()


@public(names=("swapaxes", "swapdims"))
def transpose(input: Tensor, dim0: int, dim1: int) -> Tensor:
    """Two dimensions exchanged."""
    x = ready(input, "transpose")
    n = x._a.ndim
    return _transpose(x, wrap_dim(dim0, n), wrap_dim(dim1, n))


@primitive(
    "t", node="TBackward0", view="one", vjp={"x": lambda g: g.t()}, batch=lambda b, x: _transpose(x, 1, 2) if x._a.ndim == 3 else x
)
def _t(x: Any, /) -> Any:
    return x.T


@public
def t(input: Tensor) -> Tensor:
    """A matrix transposed; a vector as it is."""
    x = ready(input, "t")
    if x._a.ndim > 2:
        raise error(RuntimeError, f"t() expects a tensor with <= 2 dimensions, but self is {x._a.ndim}D")
    return _t(x)


def _inverse(dims: tuple[int, ...]) -> tuple[int, ...]:
    out = [0] * len(dims)
    for i, d in enumerate(dims):
        out[d] = i
    return tuple(out)


@primitive(
    "permute", view="one", vjp={"x": lambda g, dims: _permute(g, _inverse(dims))},
    batch=lambda b, x, dims: _permute(x, (0, *[d + 1 for d in dims])),
)  # fmt: skip
def _permute(x: Any, /, dims: Any) -> Any:
    return x.transpose(dims)


@public
def permute(input: Tensor, *dims: Any) -> Tensor:
    """The dimensions in another order."""
    x = ready(input, "permute")
    order, n = ints(dims) if dims != ((),) else (), x._a.ndim
    if len(order) != n:
        raise error(
            RuntimeError,
            f"permute(sparse_coo): number of dimensions in the tensor input does not match the length of the desired ordering of "
            f"dimensions i.e. input.dim() = {n} is not equal to len(dims) = {len(order)}",
        )
    order = tuple([wrap_dim(d, n) for d in order])
    if len(set(order)) != n:
        raise error(RuntimeError, "permute(): duplicate dims are not allowed.")
    return _permute(x, order)


def _T(self: Tensor) -> Tensor:
    x = ready(self, "T")
    n = x._a.ndim
    if n != 2:
        warnings.warn(
            "The use of `x.T` on tensors of dimension other than 2 to reverse their shape is deprecated and it will throw an "
            "error in a future release. Consider `x.mT` to transpose batches of matrices or `x.permute(*torch.arange(x.ndim - "
            "1, -1, -1))` to reverse the dimensions of a tensor.",
            UserWarning,
            stacklevel=2,
        )
    return _permute(x, tuple(range(n - 1, -1, -1)))


def _mT(self: Tensor) -> Tensor:
    x = ready(self, "mT")
    n = x._a.ndim
    if not n:
        return self
    if n < 2:
        raise error(RuntimeError, f"tensor.mT is only supported on matrices or batches of matrices. Got {n}-D tensor.")
    return _transpose(x, n - 2, n - 1)


def _H(self: Tensor) -> Tensor:
    n = self._a.ndim
    if n not in (0, 2):
        raise error(RuntimeError, f"tensor.H is only supported on matrices (2-D tensors). Got {n}-D tensor.")
    return adjoint(self) if n else conj(self)


def _mH(self: Tensor) -> Tensor:
    if not self._a.ndim:
        return conj(self)
    if self._a.ndim < 2:
        raise error(
            RuntimeError, f"tensor.mH is only supported on matrices or batches of matrices. Got {self._a.ndim}-D tensor."
        )
    return adjoint(self)


Tensor.T, Tensor.mT, Tensor.H, Tensor.mH = property(_T), property(_mT), property(_H), property(_mH)


@public
def adjoint(input: Tensor) -> Tensor:
    """The last two dimensions exchanged, and conjugated."""
    n = input._a.ndim
    if not n:
        return conj(input)
    if n < 2:
        raise error(RuntimeError, f"tensor.adjoint() is only supported on matrices or batches of matrices. Got {n}-D tensor.")
    r = _mT(input)
    if input._a.dtype.kind != "c":
        return r
    return _conj(r)


@public(names=("moveaxis",))
def movedim(input: Tensor, source: Any, destination: Any) -> Tensor:
    """Dimensions ``source`` moved to the places ``destination``; the others keep their order."""
    n = input._a.ndim
    src = [wrap_dim(d, n) for d in ((source,) if isinstance(source, Index) else source)]
    dst = [wrap_dim(d, n) for d in ((destination,) if isinstance(destination, Index) else destination)]
    if len(src) != len(dst):
        raise error(
            RuntimeError,
            "movedim: Invalid source or destination dims: source "
            f"({src} dims) should contain the same number of dims as destination ({dst} dims)",
        )
    for name, dims in (("source", src), ("destination", dst)):
        if len(set(dims)) != len(dims):
            raise error(RuntimeError, f"movedim: repeated dim in `{name}` ({dims})")
    if not n:
        return _permute(input, ())
    order = [d for d in range(n) if d not in src]
    for d, s in sorted(zip(dst, src)):
        order.insert(d, s)
    return _permute(ready(input, "movedim"), tuple(order))


# ---- broadcasting -----------------------------------------------------------------------------------------------------------
def _expand_batch(b: Any, x: Tensor, shape: Any) -> Tensor:
    own = x._a.shape[1:]
    lined_up = x if len(own) == len(shape) else x.reshape(b.size, *(1,) * (len(shape) - len(own)), *own)
    return _expand(lined_up, (b.size, *shape))


@primitive("expand", view="one", vjp={"x": lambda g, x_shape: reduce_to(g, x_shape)}, batch=_expand_batch)
def _expand(x: Any, /, shape: Any) -> Any:
    pad = len(shape) - x.ndim
    strides = (0,) * pad + tuple([s if n == m else 0 for s, n, m in zip(x.strides, x.shape, shape[pad:])])
    return restride(x, shape, strides)


@public(function=False, method=True)
def expand(self: Tensor, *sizes: Any, implicit: bool = False) -> Tensor:
    """Dimensions of size 1 repeated without copying; new ones in front; -1 keeps a size."""
    x, target = ready(self, "expand"), ints(sizes) if sizes != ((),) else ()
    shape = x._a.shape
    pad = len(target) - len(shape)
    if pad < 0:
        raise error(
            RuntimeError,
            f"expand(torch.{SCALAR_NAMES[x.dtype]}Tensor{{{list(shape)}}}, size={list(target)}): the number of sizes provided "
            f"({len(target)}) must be greater or equal to the number of dimensions in the tensor ({len(shape)})",
        )
    out = list(target)
    for i, n in enumerate(target):
        have = shape[i - pad] if i >= pad else 1
        if n == -1:
            if i < pad:
                raise error(
                    RuntimeError,
                    f"The expanded size of the tensor ({n}) isn't allowed in a leading, non-existing dimension {i}",
                )
            out[i] = have
        elif n < 0:
            raise error(RuntimeError, f"The expanded size of the tensor ({n}) isn't allowed")
        elif have not in (1, n):
            raise error(
                RuntimeError,
                f"The expanded size of the tensor ({n}) must match the existing size ({have}) at non-singleton dimension {i}.  "
                f"Target sizes: {list(target)}.  Tensor sizes: {list(shape)}",
            )
    return _expand(x, tuple(out))


@public(function=False, method=True)
def expand_as(self: Tensor, other: Tensor) -> Tensor:
    """``self.expand(other.shape)``."""
    return expand(self, other._a.shape)


@public
def broadcast_to(input: Tensor, size: Any) -> Tensor:
    """``input.expand(size)``."""
    return expand(input, size)


@public(method=False)
def broadcast_shapes(*shapes: Any) -> Size:
    """The shape to which all of these broadcast."""
    shapes = tuple([(s,) if isinstance(s, int) else tuple(s) for s in shapes])
    try:
        return Size(np.broadcast_shapes(*shapes))
    except ValueError:
        raise error(
            RuntimeError, "Shape mismatch: objects cannot be broadcast to a single shape", hint=f"The shapes are {list(shapes)}."
        ) from None


@public(method=False)
def broadcast_tensors(*tensors: Any) -> tuple[Tensor, ...]:
    """Each tensor expanded to the shape of all together."""
    ts = tensors[0] if len(tensors) == 1 and isinstance(tensors[0], (tuple, list)) else tensors
    try:
        shape = np.broadcast_shapes(*[t._a.shape for t in ts])
    except ValueError as e:
        from ..autograd.pointwise import broadcast_error

        raise broadcast_error([t._a for t in ts], e) from None
    return tuple([expand(t, shape) for t in ts])


# ---- windows ------------------------------------------------------------------------------------------------------------------
@primitive(
    "put_window", node="SliceBackwardBackward0", vjp={"g": lambda g, key: _slice(g, key)}, jvp="linear", batch={"shape": "size", "key": "key"}
)
def _embed(g: Any, /, shape: Any, key: Any) -> Any:
    """Zeros of a shape with ``g`` in the window ``key``."""
    out = np.zeros(shape, g.dtype)
    out[key] = g
    return out


def _window(x: Any, /, key: Any) -> Any:
    return x[key]


def window_op(node: str) -> Primitive:
    """Indexing by ints, slices, None and a final Ellipsis; its nodes are called ``node``."""
    return primitive(
        node.removesuffix("Backward0").lower() + "_window", node=node, view="one",
        vjp={"x": lambda g, x_shape, key: _embed(g, x_shape, key)}, batch={"key": "key"},
    )(_window)  # fmt: skip


_slice, _select, _new_axis, _alias = (
    window_op(n) for n in ("SliceBackward0", "SelectBackward0", "UnsqueezeBackward0", "AliasBackward0")
)
EVERYTHING = slice(None)


def _index_in(index: Any, size: int, dim: int, what: str = "select()") -> int:
    i = operator.index(index)
    if not -size <= i < size:
        raise error(IndexError, f"{what}: index {i} out of range for tensor of size {size} at dimension {dim}")
    return i


@public
def select(input: Tensor, dim: int, index: int) -> Tensor:
    """The slice at ``index`` of a dimension, which goes."""
    x = ready(input, "select")
    if not x._a.ndim:
        raise error(IndexError, "select() cannot be applied to a 0-dim tensor.")
    d = wrap_dim(dim, x._a.ndim)
    i = operator.index(index)
    if not -x._a.shape[d] <= i < x._a.shape[d]:
        raise error(IndexError, f"select(): index {i} out of range for tensor of size {list(x._a.shape)} at dimension {dim}")
    return _select(x, (EVERYTHING,) * d + (i, ...))


def _narrowed(x: Tensor, dim: int, start: int, length: int) -> tuple[Any, ...]:
    if not x._a.ndim:
        raise error(RuntimeError, "narrow() cannot be applied to a 0-dim tensor.")
    d = wrap_dim(dim, x._a.ndim)
    n = x._a.shape[d]
    start, length = operator.index(start), operator.index(length)
    if length < 0:
        raise error(RuntimeError, "narrow(): length must be non-negative.")
    if not -n <= start <= n:
        raise error(IndexError, f"start out of range (expected to be in range of [{-n}, {n}], but got {start})")
    if start < 0:
        start += n
    if start + length > n:
        raise error(RuntimeError, f"start ({start}) + length ({length}) exceeds dimension size ({n}).")
    return (EVERYTHING,) * d + (slice(start, start + length),)


@public
def narrow(input: Tensor, dim: int, start: Any, length: int) -> Tensor:
    """``length`` entries of a dimension from ``start`` on."""
    x = ready(input, "narrow")
    return _slice(x, _narrowed(x, dim, start, length))


@primitive("narrow_copy", vjp={"x": lambda g, x_shape, key: _embed(g, x_shape, key)}, jvp="linear", batch={"key": "key"})
def _narrow_copy(x: Any, /, key: Any) -> Any:
    return x[key].copy()


@public
def narrow_copy(input: Tensor, dim: int, start: int, length: int) -> Tensor:
    """``narrow``, copied."""
    return _narrow_copy(input, _narrowed(input, dim, start, length))


def _tuple(g: Any) -> tuple[Tensor, ...]:
    return g if g.__class__ is tuple else (g,)


def _cat(g: Any, dim: int) -> Tensor:
    from .joining import cat

    return cat(_tuple(g), dim)


@primitive("unbind", view="multi", vjp=lambda g, dim: _stack(g, dim), batch={"dim": "dim"})
def _unbind(x: Any, /, dim: Any) -> Any:
    before = (EVERYTHING,) * dim
    return tuple([x[(*before, i, ...)] for i in range(x.shape[dim])])


def _stack(g: Any, dim: int) -> Tensor:
    from .joining import stack

    return stack(_tuple(g), dim)


@public
def unbind(input: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    """The slices of a dimension, each a view."""
    x = ready(input, "unbind")
    if not x._a.ndim:
        raise error(IndexError, "Dimension specified as 0 but tensor has no dimensions")
    return _unbind(x, wrap_dim(dim, x._a.ndim))


def _pieces(x: Any, /, dim: Any, sizes: Any) -> Any:
    before, at, out = (EVERYTHING,) * dim, 0, []
    for n in sizes:
        out.append(x[(*before, slice(at, at + n))])
        at += n
    return tuple(out)


_split, _split_sizes = (
    primitive(name, view="multi", vjp=lambda g, dim: _cat(g, dim), batch={"dim": "dim"})(_pieces) for name in ("split", "split_with_sizes")
)
_unsafe_split, _unsafe_split_sizes = (
    primitive(name, vjp=lambda g, dim: _cat(g, dim), jvp="linear", batch={"dim": "dim"})(_pieces)
    for name in ("unsafe_split", "unsafe_split_with_sizes")
)


def _dim_to_split(x: Tensor, dim: int) -> int:
    if not x._a.ndim:
        raise error(RuntimeError, "split expects at least a 1-dimensional tensor")
    return wrap_dim(dim, x._a.ndim)


@public
def split(tensor: Tensor, split_size_or_sections: Any, dim: int = 0) -> tuple[Tensor, ...]:
    """Views of ``split_size`` entries each (the last one of what is left), or of the sizes in a list."""
    if not isinstance(split_size_or_sections, Index):
        return split_with_sizes(tensor, split_size_or_sections, dim)
    x = ready(tensor, "split")
    d, sizes = _even_sizes(x, int(split_size_or_sections), dim)
    return _split(x, d, sizes)


def _even_sizes(x: Tensor, size: int, dim: int) -> tuple[int, tuple[int, ...]]:
    d = _dim_to_split(x, dim)
    n = x._a.shape[d]
    if size < 0:
        raise error(RuntimeError, f"split expects split_size be non-negative, but got split_size={size}")
    if not size:
        if n:
            raise error(RuntimeError, f"split_size can only be 0 if dimension size is 0, but got dimension size of {n}")
        return d, (0,)
    sizes = [size] * (n // size)
    if n % size or not n:
        sizes.append(n % size)
    return d, tuple(sizes)


@public
def split_with_sizes(input: Tensor, split_sizes: Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """Views of the sizes given, which must sum to the dimension's."""
    x = ready(input, "split_with_sizes")
    d, sizes = _given_sizes(x, split_sizes, dim)
    return _split_sizes(x, d, sizes)


def _given_sizes(x: Tensor, split_sizes: Sequence[int], dim: int) -> tuple[int, tuple[int, ...]]:
    d, sizes = _dim_to_split(x, dim), ints((split_sizes,)) if len(split_sizes) else ()
    if any(n < 0 for n in sizes):
        raise error(
            RuntimeError, f"split_with_sizes expects split_sizes have only non-negative entries, but got split_sizes={list(sizes)}"
        )
    if sum(sizes) != x._a.shape[d]:
        raise error(
            RuntimeError,
            f"split_with_sizes expects split_sizes to sum exactly to {x._a.shape[d]} (input tensor's size at dimension {dim}), "
            f"but got split_sizes={list(sizes)}",
        )
    return d, sizes


@public
def chunk(input: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """At most ``chunks`` views of equal size, the last one of what is left."""
    if not input._a.ndim:
        raise error(RuntimeError, "chunk expects at least a 1-dimensional tensor")
    if chunks <= 0:
        raise error(RuntimeError, f"chunk expects `chunks` to be greater than 0, got: {chunks}")
    d = wrap_dim(dim, input._a.ndim)
    n = input._a.shape[d]
    if not n:
        return split_with_sizes(input, [0] * chunks, d)
    return split(input, -(-n // chunks), d)


# The unsafe forms give tensors that share the memory, but are no views: changing one in place changes its history alone.
@public
def unsafe_split(tensor: Tensor, split_size: int, dim: int = 0) -> tuple[Tensor, ...]:
    """``split``, whose outputs may be changed in place if nobody uses the tensor or the others afterwards."""
    x = ready(tensor, "unsafe_split")
    d, sizes = _even_sizes(x, int(split_size), dim)
    return _unsafe(_unsafe_split, x, d, sizes)


@public
def unsafe_split_with_sizes(input: Tensor, split_sizes: Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """``split_with_sizes``, whose outputs may be changed in place if nobody uses the tensor or the others afterwards."""
    x = ready(input, "unsafe_split_with_sizes")
    d, sizes = _given_sizes(x, split_sizes, dim)
    return _unsafe(_unsafe_split_sizes, x, d, sizes)


@public
def unsafe_chunk(input: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """``chunk``, whose outputs may be changed in place if nobody uses the tensor or the others afterwards."""
    if not input._a.ndim:
        raise error(RuntimeError, "chunk expects at least a 1-dimensional tensor")
    if chunks <= 0:
        raise error(RuntimeError, f"chunk expects `chunks` to be greater than 0, got: {chunks}")
    d = wrap_dim(dim, input._a.ndim)
    n = input._a.shape[d]
    if not n:
        return unsafe_split_with_sizes(input, [0] * chunks, d)
    return unsafe_split(input, -(-n // chunks), d)


def _unsafe(op: Primitive, x: Tensor, d: int, sizes: tuple[int, ...]) -> tuple[Tensor, ...]:
    pieces = op(x, d, sizes)
    return pieces if isinstance(pieces, tuple) else (pieces,)


def _split_at(x: Tensor, cuts: Sequence[int], d: int) -> tuple[Tensor, ...]:
    before = (EVERYTHING,) * d
    ends = [*cuts, None]
    return tuple([_slice(x, (*before, slice(a, b))) for a, b in zip([0, *cuts], ends)])


def _tensor_split(x: Tensor, how: Any, dim: int) -> tuple[Tensor, ...]:
    if not x._a.ndim:
        raise error(RuntimeError, "tensor_split expected at least a 1-dimensional tensor, but got a tensor with 0 dims")
    d = wrap_dim(dim, x._a.ndim)
    if isinstance(how, Tensor):
        how = how.tolist()
    if isinstance(how, Index):
        if how <= 0:
            raise error(RuntimeError, f"number of sections must be larger than 0, got {how}")
        n, k = x._a.shape[d], int(how)
        small, larger = divmod(n, k)
        how = [i * small + min(i, larger) for i in range(1, k)]
    return _split_at(x, list(ints((tuple(how),)) if len(how) else []), d)


@public
def tensor_split(input: Tensor, indices_or_sections: Any = None, dim: int = 0, **names: Any) -> tuple[Tensor, ...]:
    """Views cut at the indices given, or a number of them of nearly equal size."""
    how = indices_or_sections
    for k in ("indices", "sections", "tensor_indices_or_sections"):
        how = names.pop(k, how)
    return _tensor_split(ready(input, "tensor_split"), how, dim)


def _split_along(name: str, least: int, dim_of: Any) -> None:
    def f(input: Tensor, indices_or_sections: Any) -> tuple[Tensor, ...]:
        x = ready(input, name)
        if x._a.ndim < least:
            raise error(
                RuntimeError,
                f"torch.{name} requires a tensor with at least {least} dimension{'s' * (least > 1)}, but got a tensor with "
                f"{x._a.ndim} dimensions!",
            )
        d = dim_of(x._a.ndim)
        if isinstance(indices_or_sections, Index) and (indices_or_sections <= 0 or x._a.shape[d] % indices_or_sections):
            raise error(
                RuntimeError,
                f"torch.{name} attempted to split along dimension {d}, but the size of the dimension {x._a.shape[d]} is not "
                f"divisible by the split_size {indices_or_sections}!",
            )
        return _tensor_split(x, indices_or_sections, d)

    f.__name__ = f.__qualname__ = name
    f.__doc__ = "``tensor_split`` along the dimension that the name says."
    public(f)


_split_along("hsplit", 1, lambda n: 0 if n == 1 else 1)
_split_along("vsplit", 2, lambda n: 0)
_split_along("dsplit", 3, lambda n: 2)


# ---- diagonals -------------------------------------------------------------------------------------------------------------------
def writable_diagonal(a: np.ndarray, offset: int, d1: int, d2: int) -> np.ndarray:
    d = a.diagonal(offset, d1, d2)
    d.flags.writeable = a.flags.writeable
    return d


def _diagonal_kernel(x: Any, /, offset: Any, d1: Any, d2: Any) -> Any:
    return writable_diagonal(x, offset, d1, d2)


_DIAGONAL_RULE = {"x": lambda g, x_shape, offset, d1, d2: _diagonal_embed(g, x_shape, offset, d1, d2)}
_TWO_DIMS = {"d1": "dim", "d2": "dim"}
_diagonal = primitive("diagonal", view="one", vjp=_DIAGONAL_RULE, batch=_TWO_DIMS)(_diagonal_kernel)


@primitive("diagonal_copy", node="DiagonalBackward0_copy", vjp=_DIAGONAL_RULE, jvp="linear", batch=_TWO_DIMS)
def _diagonal_copy(x: Any, /, offset: Any, d1: Any, d2: Any) -> Any:
    return x.diagonal(offset, d1, d2).copy()


@primitive(
    "diagonal_backward", vjp={"g": lambda g, offset, d1, d2: _diagonal(g, offset, d1, d2)}, jvp="linear",
    batch={"shape": "size", **_TWO_DIMS},
)  # fmt: skip
def _diagonal_embed(g: Any, /, shape: Any, offset: Any, d1: Any, d2: Any) -> Any:
    out = np.zeros(shape, g.dtype)
    writable_diagonal(out, offset, d1, d2)[...] = g
    return out


def diagonal_dims(x: Tensor, dim1: int, dim2: int) -> tuple[int, int]:
    d1, d2 = wrap_dim(dim1, x._a.ndim), wrap_dim(dim2, x._a.ndim)
    if d1 == d2:
        raise error(RuntimeError, f"diagonal dimensions cannot be identical {dim1}, {dim2}")
    return d1, d2


@public
def diagonal(input: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """The diagonal of two dimensions, as the last one."""
    x = ready(input, "diagonal")
    return _diagonal(x, offset, *diagonal_dims(x, dim1, dim2))


@primitive("diag_embed", vjp={"x": lambda g, offset, d1, d2: _diagonal(g, offset, d1, d2)}, jvp="linear", batch=_TWO_DIMS)
def _diag_embed(x: Any, /, offset: Any, d1: Any, d2: Any) -> Any:
    n = x.shape[-1] + abs(offset)
    shape = list(x.shape[:-1])
    for d in sorted((d1, d2)):
        shape.insert(d, n)
    out = np.zeros(shape, x.dtype)
    writable_diagonal(out, offset, d1, d2)[...] = x
    return out


@public
def diag_embed(input: Tensor, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    """Matrices, in dimensions ``dim1`` and ``dim2``, with the last dimension on their diagonals."""
    n = input._a.ndim + 1
    d1, d2 = wrap_dim(dim1, n), wrap_dim(dim2, n)
    if d1 == d2:
        raise error(RuntimeError, f"diagonal dimensions cannot be identical {dim1}, {dim2}")
    return _diag_embed(input, offset, d1, d2)


@public(out=True)
def diag(input: Tensor, diagonal: int = 0) -> Tensor:
    """The matrix with a vector on its diagonal, or a copy of the diagonal of a matrix."""
    n = input._a.ndim
    if n not in (1, 2):
        raise error(RuntimeError, f"diag(): Supports 1D or 2D tensors. Got {n}D")
    return _diag_embed(input, diagonal, 0, 1) if n == 1 else _diagonal_copy(input, diagonal, 0, 1)


@public
def diagflat(input: Tensor, offset: int = 0) -> Tensor:
    """The matrix with all elements of the input on its diagonal."""
    return _diag_embed(reshape(input, -1), offset, 0, 1)


# ---- any strides -----------------------------------------------------------------------------------------------------------------
def _unfold_batch(b: Any, x: Tensor, dim: int, size: int, step: int) -> Tensor:
    return _unfold(x, dim + 1, size, step) if x._a.ndim > 1 else x.unsqueeze(1).narrow(1, 0, size)


def _fold_batch(b: Any, g: Tensor, shape: Any, dim: int, size: int, step: int) -> Tensor:
    return _fold(g, (b.size, *shape), dim + 1, size, step) if shape else g.sum(1)


@primitive("unfold", view="one", vjp={"x": lambda g, x_shape, dim, size, step: _fold(g, x_shape, dim, size, step)}, batch=_unfold_batch)
def _unfold(x: Any, /, dim: Any, size: Any, step: Any) -> Any:
    if not x.ndim:
        return x.reshape(1)[:size]
    n = (x.shape[dim] - size) // step + 1
    shape = (*x.shape[:dim], n, *x.shape[dim + 1 :], size)
    s = x.strides
    return restride(x, shape, (*s[:dim], s[dim] * step, *s[dim + 1 :], s[dim]))


@primitive("unfold_backward", vjp={"g": lambda g, dim, size, step: _unfold(g, dim, size, step)}, jvp="linear", batch=_fold_batch)
def _fold(g: Any, /, shape: Any, dim: Any, size: Any, step: Any) -> Any:
    out = np.zeros(shape, g.dtype)
    if not out.ndim:
        out[...] = g.sum()
        return out
    before = (EVERYTHING,) * dim
    n = g.shape[dim]
    for k in range(size):
        out[(*before, slice(k, k + (n - 1) * step + 1, step))] += g[..., k]
    return out


@public(function=False, method=True)
def unfold(self: Tensor, dimension: int, size: int, step: int) -> Tensor:
    """All slices of ``size`` entries of a dimension, ``step`` apart; the slices are a new last dimension."""
    x = ready(self, "unfold")
    d = wrap_dim(dimension, x._a.ndim)
    n = x._a.shape[d] if x._a.ndim else 1
    if size < 0:
        raise error(RuntimeError, f"size is {size} but must be >= 0")
    if size > n:
        raise error(RuntimeError, f"maximum size for tensor at dimension {d} is {n} but size is {size}")
    if step <= 0:
        raise error(RuntimeError, f"step is {step} but must be > 0")
    return _unfold(x, d, size, step)


Geometry = tuple[tuple[int, ...], tuple[int, ...], int]  # shape, strides and offset in elements


def _places(g: Geometry) -> np.ndarray:
    """The place in the storage of every element of a geometry."""
    shape, strides, offset = g
    out = np.full((1,) * len(shape), offset, np.int64)
    for i, (n, s) in enumerate(zip(shape, strides)):
        out = out + (np.arange(n) * s).reshape((-1,) + (1,) * (len(shape) - i - 1))
    return out.reshape(shape)


def _through_storage(x: np.ndarray, source: Geometry, target: Geometry, add: bool) -> np.ndarray:
    """Lay ``x`` out by ``source`` in an empty storage, and read that by ``target``."""
    src, dst = _places(source), _places(target)
    size = int(max([p.max() + 1 for p in (src, dst) if p.size], default=0))
    store = np.zeros(size, x.dtype)
    if add:
        np.add.at(store, src.reshape(-1), x.reshape(-1))
    else:
        store[src] = x
    return store[dst]


def _stacked(b: Any, size: Any, stride: Any, offset: int, source: Geometry) -> tuple[Any, ...]:
    """The geometries of a batch of storages, one behind the other."""
    ends = [o + 1 + sum((n - 1) * s for n, s in zip(shape, steps)) for shape, steps, o in ((size, stride, offset), source) if 0 not in shape]
    n = max(ends, default=1)
    return (b.size, *size), (n, *stride), offset, ((b.size, *source[0]), (n, *source[1]), source[2])


def _strided_backward(g: Any, /, size: Any, stride: Any, offset: Any, source: Any) -> Any:
    out = _through_storage(g, (size, stride, offset), source, True)
    places = _places(source)
    if np.unique(places).size != places.size:  # elements of the input that share a place share its gradient
        _, inverse, counts = np.unique(places, return_inverse=True, return_counts=True)
        out = out / counts[inverse.reshape(places.shape)].astype(out.dtype)
    return out


_as_strided_backward = primitive(
    "as_strided_backward", jvp="linear",
    batch=lambda b, g, size, stride, offset, source: _as_strided_backward(g, *_stacked(b, size, stride, offset, source)),
    vjp={"g": lambda g, size, stride, offset, source: _as_strided_copy(g, size, stride, offset, source)}
)(_strided_backward)


@primitive(
    "as_strided_copy",
    jvp="linear",
    batch=lambda b, x, size, stride, offset, source: _as_strided_copy(x, *_stacked(b, size, stride, offset, source)),
    vjp={"x": lambda g, size, stride, offset, source: _as_strided_backward(g, size, stride, offset, source)},
)
def _as_strided_copy(x: Any, /, size: Any, stride: Any, offset: Any, source: Any) -> Any:
    return _through_storage(x, source, (size, stride, offset), False)


@primitive(
    "as_strided",
    view="one",
    vjp={"x": lambda g, size, stride, offset, source: _as_strided_backward(g, size, stride, offset, source)},
)
def _as_strided(x: Any, /, size: Any, stride: Any, offset: Any, source: Any) -> Any:
    k = x.itemsize
    return restride(x, size, tuple([s * k for s in stride]), (offset - source[2]) * k)


def as_strided_geometry(name: str, x: Tensor, size: Any, stride: Any, offset: Any) -> tuple[Any, ...]:
    size, stride = ints((tuple(size),)) if len(size) else (), ints((tuple(stride),)) if len(stride) else ()
    if len(size) != len(stride):
        raise error(RuntimeError, "mismatch in length of strides and shape")
    own = x.storage_offset()
    offset = own if offset is None else operator.index(offset)
    if offset < 0:
        raise error(RuntimeError, f"Tensor: invalid storage offset {offset}")
    if any(s < 0 for s in stride):
        raise error(RuntimeError, f"as_strided: Negative strides are not supported at the moment, got strides: {list(stride)}")
    a = x._a
    last = 0 if 0 in size else offset + 1 + sum((n - 1) * s for n, s in zip(size, stride))
    nbytes = storage_array(a).nbytes
    if last * a.itemsize > nbytes:
        raise error(
            RuntimeError,
            f"setStorage: sizes {list(size)}, strides {list(stride)}, storage offset {offset}, and itemsize {a.itemsize} "
            f"requiring a storage size of {last * a.itemsize} are out of bounds for storage of size {nbytes}",
        )
    return size, stride, offset, (a.shape, x.stride(), own)


@public
def as_strided(input: Tensor, size: Any, stride: Any, storage_offset: int | None = None) -> Tensor:
    """A view of the storage with a shape, strides and offset of its own, in elements."""
    x = ready(input, "as_strided")
    if x._a.__class__ is not np.ndarray:
        return _as_strided_examples(x, size, stride, storage_offset or 0)
    return _as_strided(x, *as_strided_geometry("as_strided", x, size, stride, storage_offset))


def _as_strided_examples(x: Any, size: Any, stride: Any, offset: int) -> Tensor:
    """Inside vmap: each example is a storage of its own, in C order."""
    value = x._value.contiguous()
    return x.like(as_strided(value, (value._a.shape[0], *size), (math.prod(value._a.shape[1:]), *stride), value.storage_offset() + offset))


# ---- complex -----------------------------------------------------------------------------------------------------------------------
@primitive("conj", vjp={"x": lambda g: conj(g)}, jvp="linear", batch={})
def _conj(x: Any, /) -> Any:
    return x.conj()


@public(names=("conj_physical",))
def conj(input: Tensor) -> Tensor:
    """The complex conjugates; a real tensor is returned itself."""
    return input if input._a.dtype.kind != "c" else _conj(input)


def _to_imaginary(g: Tensor) -> Tensor:
    from .creation import complex__, zeros_like

    return complex__(zeros_like(g), g)


@primitive("real", node="SelectBackward0", view="one", batch={}, vjp={"x": lambda g, x_dtype: to_copy(g, x_dtype.np, None)})
def _real(x: Any, /) -> Any:
    return x.real


@primitive("imag", node="SelectBackward0", view="one", batch={}, vjp={"x": lambda g: _to_imaginary(g)})
def _imag(x: Any, /) -> Any:
    return x.imag


@public(method=False)
def real(input: Tensor) -> Tensor:
    """The real parts, a view; a real tensor is returned itself."""
    return input if input._a.dtype.kind != "c" else _real(ready(input, "real"))


@public(method=False)
def imag(input: Tensor) -> Tensor:
    """The imaginary parts, a view; RuntimeError for a real tensor."""
    if input._a.dtype.kind != "c":
        raise error(RuntimeError, "imag is not implemented for tensors with non-complex dtypes.")
    return _imag(ready(input, "imag"))


Tensor.real = property(real, lambda self, value: _assign_part(real(self), value))
Tensor.imag = property(imag, lambda self, value: _assign_part(imag(self), value))


def _assign_part(part: Tensor, value: Any) -> None:
    part.copy_(value if isinstance(value, Tensor) else wrap(np.asarray(value, part._a.dtype)))


@primitive("view_as_real", view="one", batch={}, vjp={"x": lambda g: view_as_complex(g.contiguous())})
def _view_as_real(x: Any, /) -> Any:
    half = x.itemsize // 2
    return restride(x, (*x.shape, 2), (*x.strides, half), 0, x.real.dtype)


@public(method=False)
def view_as_real(input: Tensor) -> Tensor:
    """Real and imaginary parts as a last dimension of 2."""
    if input._a.dtype.kind != "c":
        raise error(RuntimeError, f"view_as_real is only supported for complex tensors, but got a tensor of scalar type: "
                    f"{SCALAR_NAMES[input.dtype]}")
    return _view_as_real(ready(input, "view_as_real"))


@primitive("view_as_complex", view="one", batch=lambda b, x: view_as_complex(x), vjp={"x": lambda g: view_as_real(g)})
def _view_as_complex(x: Any, /) -> Any:
    to = np.dtype(np.complex128 if x.dtype == np.float64 else np.complex64)
    return restride(x, x.shape[:-1], x.strides[:-1], 0, to)


@public(method=False)
def view_as_complex(input: Tensor) -> Tensor:
    """A last dimension of 2 as real and imaginary parts."""
    a = ready(input, "view_as_complex")._a
    if a.dtype.kind != "f" or a.itemsize < 4:
        raise error(
            RuntimeError,
            f"view_as_complex is only supported for half, float and double tensors, but got a tensor of scalar type: "
            f"{SCALAR_NAMES[input.dtype]}",
        )
    if not a.ndim:
        raise error(RuntimeError, "Input tensor must have one or more dimensions")
    if a.shape[-1] != 2:
        raise error(RuntimeError, "Tensor must have a last dimension of size 2")
    if a.__class__ is not np.ndarray:
        return _view_as_complex(input)
    k = a.itemsize
    if a.strides[-1] != k:
        raise error(RuntimeError, "Tensor must have a last dimension with stride 1")
    if any(s % (2 * k) for s in a.strides[:-1]):
        raise error(RuntimeError, "Tensor must have a stride divisible by 2 for all but last dimension")
    return _view_as_complex(input)


# ---- at least so many dimensions ----------------------------------------------------------------------------------------------------
def _at_least(name: str, grow: Any) -> None:
    def f(*tensors: Any) -> Any:
        if len(tensors) == 1 and isinstance(tensors[0], (tuple, list)):
            return tuple([grow(x) for x in tensors[0]])
        return grow(tensors[0]) if len(tensors) == 1 else tuple([grow(x) for x in tensors])

    f.__name__ = f.__qualname__ = name
    f.__doc__ = f"Each tensor with new dimensions of size 1, so that it has {name[8]} at least."
    public(f, method=False)


def atleast_1(x: Tensor) -> Tensor:
    return x if x._a.ndim else reshape(x, 1)


def atleast_2(x: Tensor) -> Tensor:
    return x if x._a.ndim > 1 else unsqueeze(x, 0) if x._a.ndim else reshape(x, 1, 1)


def atleast_3(x: Tensor) -> Tensor:
    if x._a.ndim == 2:
        return unsqueeze(x, -1)
    return x if x._a.ndim > 2 else unsqueeze(unsqueeze(x, 0), -1) if x._a.ndim else reshape(x, 1, 1, 1)


_at_least("atleast_1d", atleast_1)
_at_least("atleast_2d", atleast_2)
_at_least("atleast_3d", atleast_3)


# ---- in place ---------------------------------------------------------------------------------------------------------------------------
_INPLACE_NODES: dict[type, type] = {}


def _inplace_node(cls: type) -> type:
    """PyTorch gives the in-place forms nodes of their own names: ``TBackward1`` for ``t_``."""
    found = _INPLACE_NODES.get(cls)
    if found is None:
        number = int(cls.__name__[-1]) + (3 if cls.__name__.startswith("Squeeze") else 1)
        found = _INPLACE_NODES[cls] = type(cls.__name__[:-1] + str(number), (cls,), {"__slots__": ()})
    return found


def _metadata_inplace(fn: Any, *names: str) -> None:
    """``name_``: the tensor itself becomes the view that ``name`` gives."""

    def changed(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if self._a.__class__ is not np.ndarray:  # inside vmap
            return self.become_view(fn(self, *args, **kwargs))
        ip.check_writable(self)
        self._viewable()
        was = ip.before(self)
        v = fn(was, *args, **kwargs)
        if v._fw is not None:
            self._fw = v._fw
        if v._grad_fn is not None and v._grad_fn is not was._grad_fn:
            v._grad_fn.__class__ = _inplace_node(v._grad_fn.__class__)
        self._a = v._a
        if v._grad_fn is not None and v._grad_fn is not was._grad_fn:
            ip.renew(self, v._grad_fn, v._nr)
        ip.changed(self)
        return self

    changed.__name__ = changed.__qualname__ = names[0]
    changed.__doc__ = f"``{names[0][:-1]}`` of the tensor itself, in place."
    for name in names:
        setattr(Tensor, name, changed)


_metadata_inplace(squeeze, "squeeze_")
_metadata_inplace(unsqueeze, "unsqueeze_")
_metadata_inplace(transpose, "transpose_", "swapaxes_", "swapdims_")
_metadata_inplace(t, "t_")
_metadata_inplace(as_strided, "as_strided_")
publish("squeeze_", Tensor.squeeze_)
publish("unsqueeze_", Tensor.unsqueeze_)


# ---- copies ---------------------------------------------------------------------------------------------------------------------------------
@primitive("flip", vjp={"x": lambda g, dims: _flip(g, dims)}, jvp="linear", batch={"dims": "dim"})
def _flip(x: Any, /, dims: Any) -> Any:
    return np.flip(x, dims).copy()


@public
def flip(input: Tensor, *dims: Any) -> Tensor:
    """The entries of the dimensions given in reverse order."""
    return _flip(input, wrap_dims(ints(dims), input._a.ndim))


def _flip_function(input: Tensor, dims: Any) -> Tensor:
    return flip(input, *(dims if isinstance(dims, (tuple, list)) else (dims,)))


_flip_function.__name__, _flip_function.__doc__ = "flip", flip.__doc__
publish("flip", _flip_function)


@public
def fliplr(input: Tensor) -> Tensor:
    """The second dimension in reverse order."""
    if input._a.ndim < 2:
        raise error(RuntimeError, "Input must be >= 2-d.")
    return _flip(input, (1,))


@public
def flipud(input: Tensor) -> Tensor:
    """The first dimension in reverse order."""
    if not input._a.ndim:
        raise error(RuntimeError, "Input must be >= 1-d.")
    return _flip(input, (0,))


@primitive("rot90", vjp={"x": lambda g, k, dims: _rot90(g, -k, dims)}, jvp="linear", batch={"dims": "dim"})
def _rot90(x: Any, /, k: Any, dims: Any) -> Any:
    return np.rot90(x, k, dims).copy()


@public
def rot90(input: Tensor, k: int = 1, dims: Sequence[int] = (0, 1)) -> Tensor:
    """Turned by ``k`` quarter turns, from the first dimension of ``dims`` towards the second."""
    n = input._a.ndim
    if len(dims) != 2:
        raise error(RuntimeError, f"expected total rotation dims == 2, but got dims = {len(dims)}")
    if n < 2:
        raise error(RuntimeError, f"expected total dims >= 2, but got total dims = {n}")
    d = tuple([wrap_dim(x, n) for x in dims])
    if d[0] == d[1]:
        raise error(RuntimeError, f"expected rotation dims to be different, but got dim0 = {dims[0]} and dim1 = {dims[1]}")
    return _rot90(input, k, d)


def _roll_batch(b: Any, x: Tensor, shifts: Any, dims: Any) -> Tensor:
    if dims:
        return _roll(x, shifts, tuple([d + 1 for d in dims]))
    return _roll(x.reshape(b.size, -1), shifts, (1,)).reshape(x._a.shape)


@primitive("roll", vjp={"x": lambda g, shifts, dims: _roll(g, tuple([-s for s in shifts]), dims)}, jvp="linear", batch=_roll_batch)
def _roll(x: Any, /, shifts: Any, dims: Any) -> Any:
    return np.roll(x, shifts if dims else shifts[0], dims or None)


@public
def roll(input: Tensor, shifts: Any, dims: Any = None) -> Tensor:
    """The entries moved by ``shifts`` along ``dims``, round the end; without ``dims``, along the flattened tensor."""
    s = ints((shifts,))
    d = () if dims is None or not isinstance(dims, Index) and not len(dims) else ints((dims,))
    if not s:
        raise error(RuntimeError, "`shifts` required")
    if len(s) != len(d) and (d or len(s) != 1):
        raise error(RuntimeError, f"shifts and dimensions must align. shifts: {len(s)}, dims:{len(d)}")
    if d and not input._a.ndim:
        raise error(IndexError, f"Dimension specified as {d[0]} but tensor has no dimensions")
    d = tuple([wrap_dim(x, input._a.ndim) for x in d])
    return _roll(input, s, d)


def _unrepeat(g: Tensor, shape: tuple[int, ...], reps: tuple[int, ...]) -> Tensor:
    full = (1,) * (len(reps) - len(shape)) + shape
    if 0 in reps:
        from .creation import zeros

        return zeros(shape, dtype=g.dtype)
    split_shape = [k for r, n in zip(reps, full) for k in (r, n)]
    return g.reshape(split_shape).sum(tuple(range(0, 2 * len(reps), 2))).reshape(shape)


def _repeat_batch(b: Any, x: Tensor, reps: Any) -> Tensor:
    own = x._a.shape[1:]
    return _repeat(x.reshape(b.size, *(1,) * (len(reps) - len(own)), *own), (1, *reps))


@primitive("repeat", vjp={"x": lambda g, x_shape, reps: _unrepeat(g, x_shape, reps) if reps else g}, jvp="linear", batch=_repeat_batch)
def _repeat(x: Any, /, reps: Any) -> Any:
    return np.tile(x, reps)


@public(function=False, method=True)
def repeat(self: Tensor, *repeats: Any) -> Tensor:
    """The tensor so many times along each dimension (copied)."""
    reps = ints(repeats) if repeats != ((),) else ()
    if len(reps) < self._a.ndim:
        raise error(
            RuntimeError, "Number of dimensions of repeat dims can not be smaller than number of dimensions of tensor"
        )
    if any(r < 0 for r in reps):
        raise error(RuntimeError, f"Trying to create tensor with negative dimension {min(reps)}: {list(reps)}")
    return _repeat(self, reps)


@public
def tile(input: Tensor, *dims: Any) -> Tensor:
    """``repeat``, with ones in front where ``dims`` are fewer than the tensor's."""
    reps = ints(dims) if dims != ((),) else ()
    return repeat(input, (1,) * (input._a.ndim - len(reps)) + reps)


@primitive(
    "repeat_interleave", node="ViewBackward0", vjp={"x": lambda g, x_shape, n, dim: _uninterleave(g, x_shape, n, dim)},
    jvp="linear", batch={"dim": "dim"},
)  # fmt: skip
def _repeat_interleave(x: Any, /, n: Any, dim: Any) -> Any:
    return np.repeat(x, n, dim)


def _uninterleave(g: Tensor, shape: tuple[int, ...], n: int, dim: int) -> Tensor:
    return g.reshape((*shape[: dim + 1], n, *shape[dim + 1 :])).sum(dim + 1)


@public
def repeat_interleave(
    input: Tensor, repeats: Any = None, dim: int | None = None, *, output_size: int | None = None
) -> Tensor:
    """Each entry of a dimension ``repeats`` times in a row: a number, or one for each entry.

    >>> import flambeau as torch
    >>> torch.tensor([1, 2]).repeat_interleave(2)
    tensor([1, 1, 2, 2])
    """
    if dim is not None and not input._a.ndim:
        raise error(IndexError, f"Dimension specified as {dim} but tensor has no dimensions")
    if repeats is None:
        counts = input._a
        if counts.dtype not in (np.int32, np.int64):
            raise error(RuntimeError, "repeats has to be Long or Int tensor")
        if counts.ndim != 1:
            raise error(RuntimeError, "repeat_interleave only accept 1D vector as repeat")
        return wrap(np.repeat(np.arange(counts.size), _counts(counts)).astype(counts.dtype))
    if dim is None:
        input, dim = reshape(input, -1), 0
    x = input if input._a.ndim else reshape(input, 1)
    d = wrap_dim(dim, x._a.ndim)
    if isinstance(repeats, Tensor) and repeats._a.size == 1 and repeats._a.__class__ is np.ndarray:
        repeats = int(repeats._a.reshape(-1)[0])
    if isinstance(repeats, Index):
        if repeats < 0:
            raise error(RuntimeError, "Repeats must be non-negative")
        return _repeat_interleave(x, int(repeats), d)
    counts = repeats._a if isinstance(repeats, Tensor) else np.asarray(repeats)
    if counts.ndim != 1 or counts.size != x._a.shape[d]:
        raise error(
            RuntimeError,
            f"repeats must have the same size as input along dim, but got repeats.size(0) = {counts.size} and input.size({d}) = "
            f"{x._a.shape[d]}",
        )
    return x.index_select(d, wrap(np.repeat(np.arange(counts.size), _counts(counts))))


def _counts(counts: np.ndarray) -> np.ndarray:
    if counts.size and counts.min() < 0:
        raise error(RuntimeError, "repeats can not be negative")
    return counts


@public(out=True)
def take_along_dim(input: Tensor, indices: Tensor, dim: int | None = None) -> Tensor:
    """The entries at ``indices`` along a dimension, the others broadcast; of the flattened tensor without ``dim``."""
    if indices._a.dtype != np.int64:
        raise error(
            RuntimeError, f"torch.take_along_dim(): dtype of indices should be Long but got {SCALAR_NAMES[indices.dtype]}"
        )
    if dim is None:
        return reshape(input, -1).gather(0, reshape(indices, -1))
    if input._a.ndim != indices._a.ndim:
        raise error(
            RuntimeError,
            f"torch.take_along_dim(): input and indices should have the same number of dimensions, but got {input._a.ndim} "
            f"dimensions for input, and {indices._a.ndim} dimensions for indices",
        )
    d = wrap_dim(dim, input._a.ndim)
    both = list(broadcast_shapes(*[s[:d] + (1,) + s[d + 1 :] for s in (input._a.shape, indices._a.shape)]))
    both[d] = input._a.shape[d]
    x = expand(input, both)
    both[d] = indices._a.shape[d]
    return x.gather(d, expand(indices, both))


Tensor._is_view = lambda self: self._base is not None and not forbidden.is_inference(self)

