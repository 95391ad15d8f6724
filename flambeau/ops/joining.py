"""Putting tensors together, and padding them."""

from __future__ import annotations

from typing import Any, Sequence

import numpy as np

from ..autograd.primitive import Primitive, primitive
from ..core.dtypes import promote_types
from ..core.errors import error
from ..core.tensor import Tensor, wrap
from ..kernels.scatter import add_rows
from .creation import number
from .dims import wrap_dim
from .public import public
from .views import EVERYTHING, _select, _slice, atleast_1, atleast_2, atleast_3, ints, reshape


def tensors_of(name: str, tensors: Any) -> list[Tensor]:
    """The tensors of one dtype, the promoted one of all."""
    if isinstance(tensors, Tensor) or not isinstance(tensors, Sequence):
        raise error(
            TypeError, f"{name}(): argument 'tensors' (position 1) must be tuple of Tensors, not {type(tensors).__name__}"
        )
    for i, t in enumerate(tensors):
        if not isinstance(t, Tensor):
            raise error(TypeError, f"expected Tensor as element {i} in argument 0, but got {type(t).__name__}")
    return list(tensors)


def same_dtype(ts: list[Tensor]) -> list[Tensor]:
    d = ts[0]._a.dtype
    if all(t._a.dtype == d for t in ts):
        return ts
    out = ts[0].dtype
    for t in ts:
        out = promote_types(out, t.dtype)
    return [t.to(out) for t in ts]  # type: ignore[attr-defined]


def _cat_rule(g: Tensor, tensors_shape: Any, dim: int, needs: Any) -> tuple[Any, ...]:
    out: list[Any] = []
    at = 0
    before = (EVERYTHING,) * dim
    for shape, needed in zip(tensors_shape, needs):
        n = shape[dim]
        out.append(_slice(g, (*before, slice(at, at + n))) if needed else None)
        at += n
    return tuple(out)


@primitive("cat", vjp=_cat_rule)
def _cat(*tensors: Any, dim: Any) -> Any:
    return np.concatenate(tensors, dim)


@public(method=False, out=True, names=("concat", "concatenate"))
def cat(tensors: Sequence[Tensor], dim: int = 0, *, axis: int | None = None) -> Tensor:
    """The tensors one after the other along a dimension.

    >>> import flambeau as torch
    >>> torch.cat([torch.zeros(1, 2), torch.ones(1, 2)])
    tensor([[0., 0.],
            [1., 1.]])
    """
    ts = tensors_of("cat", tensors)
    if not ts:
        raise error(ValueError, "torch.cat(): expected a non-empty list of Tensors")
    for i, t in enumerate(ts):
        if not t._a.ndim:
            raise error(RuntimeError, f"zero-dimensional tensor (at position {i}) cannot be concatenated")
    ts = same_dtype(ts)
    full = [t for t in ts if t._a.shape != (0,)] or ts  # PyTorch lets shape (0,) join anything
    first = full[0]._a.shape
    d = wrap_dim(dim if axis is None else axis, len(first))
    for i, t in enumerate(full):
        shape = t._a.shape
        if len(shape) != len(first):
            raise error(RuntimeError, f"Tensors must have same number of dimensions: got {len(first)} and {len(shape)}")
        if shape != first:
            for k, (m, n) in enumerate(zip(first, shape)):
                if k != d and m != n:
                    raise error(
                        RuntimeError,
                        f"Sizes of tensors must match except in dimension {d}. Expected size {m} but got size {n} for tensor number "
                        f"{i} in the list.",
                        hint=f"The shapes are {[list(x._a.shape) for x in ts]}.",
                    )
    return _cat(*full, dim=d)


def _stack_rule(g: Tensor, tensors_shape: Any, dim: int, needs: Any) -> tuple[Any, ...]:
    before = (EVERYTHING,) * dim
    return tuple([_select(g, (*before, i, ...)) if needed else None for i, needed in enumerate(needs)])


@primitive("stack", vjp=_stack_rule)
def _stack(*tensors: Any, dim: Any) -> Any:
    return np.stack(tensors, dim)


@public(method=False, out=True)
def stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Tensors of one shape along a new dimension."""
    ts = tensors_of("stack", tensors)
    if not ts:
        raise error(RuntimeError, "stack expects a non-empty TensorList")
    shape = ts[0]._a.shape
    for i, t in enumerate(ts):
        if t._a.shape != shape:
            raise error(
                RuntimeError,
                f"stack expects each tensor to be equal size, but got {list(shape)} at entry 0 and {list(t._a.shape)} at entry {i}",
            )
    return _stack(*same_dtype(ts), dim=wrap_dim(dim, len(shape) + 1))


def _join(name: str, grow: Any, axis: Any, names: tuple[str, ...] = ()) -> None:
    def f(tensors: Sequence[Tensor]) -> Tensor:
        ts = tensors_of(name, tensors)
        if not ts:
            raise error(RuntimeError, f"{name} expects a non-empty TensorList")
        ts = [grow(t) for t in ts]
        return cat(ts, axis(ts))

    f.__name__ = f.__qualname__ = name
    f.__doc__ = f"``cat`` as NumPy's ``{name}`` does it."
    public(f, method=False, out=True, names=names)


def _column(t: Tensor) -> Tensor:
    return reshape(t, t._a.size, 1) if t._a.ndim < 2 else t


_join("hstack", atleast_1, lambda ts: 0 if ts[0]._a.ndim == 1 else 1)
_join("vstack", atleast_2, lambda ts: 0, ("row_stack",))
_join("dstack", atleast_3, lambda ts: 2)
_join("column_stack", _column, lambda ts: 1)


def _block_rule(g: Tensor, tensors_shape: Any, needs: Any) -> tuple[Any, ...]:
    out: list[Any] = []
    r = c = 0
    for shape, needed in zip(tensors_shape, needs):
        m, n = shape
        out.append(_slice(g, (slice(r, r + m), slice(c, c + n))) if needed else None)
        r, c = r + m, c + n
    return tuple(out)


@primitive("block_diag", vjp=_block_rule)
def _block_diag(*tensors: Any) -> Any:
    out = np.zeros((sum(t.shape[0] for t in tensors), sum(t.shape[1] for t in tensors)), tensors[0].dtype)
    r = c = 0
    for t in tensors:
        m, n = t.shape
        out[r : r + m, c : c + n] = t
        r, c = r + m, c + n
    return out


@public(method=False)
def block_diag(*tensors: Tensor) -> Tensor:
    """The matrix with the tensors, as matrices, along its diagonal."""
    for i, t in enumerate(tensors):
        if t._a.ndim > 2:
            raise error(
                RuntimeError, f"torch.block_diag: Input tensors must have 2 or fewer dimensions. Input {i} has {t._a.ndim} dimensions"
            )
    if not tensors:
        return wrap(np.empty((1, 0), np.float32))
    return _block_diag(*[atleast_2(t) for t in same_dtype(list(tensors))])


# ---- padding -----------------------------------------------------------------------------------------------------------------
@primitive("constant_pad_nd", vjp={"x": lambda g, pads: _constant_pad(g, tuple([(-a, -b) for a, b in pads]), 0)})
def _constant_pad(x: Any, /, pads: Any, value: Any) -> Any:
    """``pads``: (before, after) of every dimension; negative ones cut."""
    out = np.full([n + a + b for n, (a, b) in zip(x.shape, pads)], value, x.dtype)
    inner = tuple([slice(max(a, 0), n + a + b - max(b, 0)) for n, (a, b) in zip(x.shape, pads)])
    kept = tuple([slice(max(-a, 0), n - max(-b, 0)) for n, (a, b) in zip(x.shape, pads)])
    out[inner] = x[kept]
    return out


def _indices(n: int, before: int, after: int, mode: str) -> np.ndarray:
    """Which entry each place of a padded dimension shows."""
    i = np.arange(-before, n + after)
    if mode == "replicate":
        return np.clip(i, 0, n - 1)
    if mode == "circular":
        return i % n
    return np.where(i < 0, -i, np.where(i >= n, 2 * (n - 1) - i, i))


def _take_all(x: Any, /, places: Any) -> Any:
    first = x.ndim - len(places)
    for k, i in enumerate(places):
        x = x.take(i, axis=first + k)
    return x


def _add_back(g: Any, /, places: Any, sizes: Any) -> Any:
    first = g.ndim - len(places)
    for k, (i, n) in enumerate(zip(places, sizes)):
        d = first + k
        rows = np.moveaxis(g, d, 0)
        out = np.zeros((n, *rows.shape[1:]), g.dtype)
        add_rows(out, i, np.ascontiguousarray(rows))
        g = np.moveaxis(out, 0, d)
    return np.ascontiguousarray(g)


def _index_pad(mode: str, n: int) -> Primitive:
    """Padding of the last ``n`` dimensions by entries of the tensor."""
    name = {"reflect": "ReflectionPad", "replicate": "ReplicationPad", "circular": "CircularPad"}[mode] + f"{n}DBackward0"

    back = primitive(f"{mode}_pad{n}d_backward", node=name.replace("Backward0", "BackwardBackward0"),
                     vjp={"g": lambda g, places: forward(g, places)})(_add_back)  # fmt: skip
    forward = primitive(
        f"{mode}_pad{n}d", node=name,
        vjp={"x": lambda g, x_shape, places: back(g, places, x_shape[len(x_shape) - len(places) :])},
    )(_take_all)  # fmt: skip
    return forward


_INDEX_PADS = {(mode, n): _index_pad(mode, n) for mode in ("reflect", "replicate", "circular") for n in (1, 2, 3)}


@public(module="nn.functional", method=False)
def pad(input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor:
    """Widened by ``pad = (left, right, top, bottom, ...)``, the last dimension first; negative entries cut.

    ``mode``: "constant" (filled with ``value``), "reflect", "replicate" or "circular", these of 1 to 3 dimensions.
    """
    p = ints((tuple(pad),)) if len(pad) else ()
    shape = input._a.shape
    if len(p) % 2:
        raise error(RuntimeError, "Padding length must be divisible by 2")
    k = len(p) // 2
    if k > len(shape):
        raise error(
            RuntimeError,
            "Padding length should be less than or equal to two times the input dimension but got padding length "
            f"{len(p)} and input of dimension {len(shape)}",
        )
    pairs = [(p[2 * i], p[2 * i + 1]) for i in range(k)][::-1]  # the first dimension first
    if mode == "constant":
        pads = tuple([(0, 0)] * (len(shape) - k) + pairs)
        for d, (n, (a, b)) in enumerate(zip(shape, pads)):
            if n + a + b < 0:
                raise error(
                    RuntimeError,
                    "narrow(): length must be non-negative.",
                    hint=f"Dimension {d} has {n} entries, and the padding is ({a}, {b}).",
                )
        return _constant_pad(input, pads, number(value or 0, input._a.dtype))
    if mode not in ("reflect", "replicate", "circular"):
        raise error(NotImplementedError, f"Unrecognised padding mode {mode}")
    if value is not None and value != 0:
        raise error(RuntimeError, f'Padding mode "{mode}" doesn\'t take in value argument')
    if not 1 <= k <= 3 or len(shape) not in (k + 1, k + 2):
        raise error(NotImplementedError, "Only 2D, 3D, 4D, 5D padding with non-constant padding are supported for now")
    for d, (n, (a, b)) in enumerate(zip(shape[len(shape) - k :], pairs), len(shape) - k):
        if mode == "reflect" and (a >= n or b >= n):
            raise error(
                RuntimeError,
                "Argument #4: Padding size should be less than the corresponding input dimension, but got: padding "
                f"({a}, {b}) at dimension {d} of input {list(shape)}",
            )
        if mode == "circular" and (a > n or b > n):
            raise error(RuntimeError, "Padding value causes wrapping around more than once.")
        if n + a + b < 0 or not n:
            raise error(RuntimeError, f"padding ({a}, {b}) leaves nothing of dimension {d} of input {list(shape)}")
    places = tuple([_indices(n, a, b, mode) for n, (a, b) in zip(shape[len(shape) - k :], pairs)])
    return _INDEX_PADS[mode, k](input, places)
