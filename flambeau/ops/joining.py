"""Putting tensors together, and padding them."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..autograd.primitive import Primitive, primitive
from ..core.dtypes import get_default_dtype, promote_types
from ..core.errors import error
from ..core.tensor import Tensor, is_private_layout, wrap
from .creation import number
from .dims import wrap_dim
from .public import public
from .views import EVERYTHING, _select, _slice, atleast_1, atleast_2, atleast_3, reshape


def tensors_of(name: str, tensors: Any) -> list[Tensor]:
    """The tensors given, as a list; TypeError for anything else."""
    if isinstance(tensors, Tensor) or not isinstance(tensors, Sequence):
        raise error(
            TypeError,
            f"{name}(): argument 'tensors' (position 1) must be tuple of Tensors, not {type(tensors).__name__}",
        )
    for i, t in enumerate(tensors):
        if not isinstance(t, Tensor):
            raise error(TypeError, f"expected Tensor as element {i} in argument 0, but got {type(t).__name__}")
    return list(tensors)


def same_dtype(ts: list[Tensor]) -> list[Tensor]:
    """The tensors in the dtype to which all can be promoted."""
    d = ts[0]._a.dtype
    if all(t._a.dtype == d for t in ts):
        return ts
    out = ts[0].dtype
    for t in ts:
        out = promote_types(out, t.dtype)
    return [t.to(out) for t in ts]


LEGACY = (0,)  # the shape that PyTorch lets join anything, and leaves out


def channels_last(a: np.ndarray) -> bool:
    """Whether an image is stored with its channels last, and only so."""
    return a.ndim > 3 and not a.flags.c_contiguous and a.transpose((0, *range(2, a.ndim), 1)).flags.c_contiguous


def laid_out_like(a: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Memory for a shape, channels-last if ``a`` is, else in C order."""
    if not channels_last(a):
        return np.empty(shape, a.dtype)
    n = a.ndim
    return np.empty((shape[0], *shape[2:], shape[1]), a.dtype).transpose((0, n - 1, *range(1, n - 1)))


def _cat_rule(g: Tensor, tensors_shape: Any, dim: int, needs: Any) -> tuple[Any, ...]:
    out: list[Any] = []
    at = 0
    before = (EVERYTHING,) * dim
    for shape, needed in zip(tensors_shape, needs):
        if shape == LEGACY:
            out.append(wrap(np.zeros(LEGACY, g._a.dtype)) if needed else None)
            continue
        n = shape[dim]
        out.append(_slice(g, (*before, slice(at, at + n))) if needed else None)
        at += n
    return tuple(out)


def _cat_batch(b: Any, tensors: Any, dim: int) -> Tensor:
    """What may be left out of one example may be left out of all."""
    pairs = list(zip(tensors, b.has("tensors")))
    kept = [b.full(t, has) for t, has in pairs if t._a.shape[has:] != LEGACY] or [b.full(*pairs[0])]
    return _cat(*kept, dim=dim + 1)


@primitive("cat", vjp=_cat_rule, jvp="linear", batch=_cat_batch)
def _cat(*tensors: Any, dim: Any) -> Any:
    arrays = [a for a in tensors if a.shape != LEGACY] or tensors[:1]
    r = np.concatenate(arrays, dim)  # in the order of the inputs' memory where they agree
    return r if r.flags.c_contiguous or channels_last(r) else np.ascontiguousarray(r)


@public(method=False, out=True, names=("concat", "concatenate"))
def cat(tensors: Sequence[Tensor], dim: int = 0, *, axis: int | None = None) -> Tensor:
    """The tensors one after the other along a dimension, in the dtype to which all can be promoted.

    Raises RuntimeError unless their other dimensions are the same.

    >>> import flambeau as torch
    >>> torch.cat([torch.zeros(1, 2), torch.ones(1, 2)])
    tensor([[0., 0.],
            [1., 1.]])
    """
    ts = tensors_of("cat", tensors)
    if not ts:
        raise error(ValueError, "torch.cat(): expected a non-empty list of Tensors")
    first: Any = None
    d = 0
    for i, t in enumerate(ts):
        shape = t._a.shape
        if shape == LEGACY:
            continue
        if first is None:
            if not shape:
                raise error(RuntimeError, f"zero-dimensional tensor (at position {i}) cannot be concatenated")
            first, d = shape, wrap_dim(dim if axis is None else axis, len(shape))
        elif shape != first and (len(shape) != len(first) or shape[:d] + shape[d + 1 :] != first[:d] + first[d + 1 :]):
            raise _mismatch(ts, first, shape, d, i)
    out = _cat(*same_dtype(ts), dim=d)
    if out._a.ndim > 3 and out._a.__class__ is np.ndarray and channels_last(out._a) and any(not is_private_layout(t) for t in ts):
        out.__dict__["_channels_last"] = True  # an order that the inputs show
    return out


def _mismatch(ts: list[Tensor], first: tuple[int, ...], shape: tuple[int, ...], d: int, i: int) -> BaseException:
    hint = f"The shapes are {', '.join(str(list(t._a.shape)) for t in ts[:8])}{', ...' if len(ts) > 8 else ''}."
    if not shape:
        return error(RuntimeError, f"zero-dimensional tensor (at position {i}) cannot be concatenated")
    if len(shape) != len(first):
        return error(
            RuntimeError, f"Tensors must have same number of dimensions: got {len(first)} and {len(shape)}", hint
        )
    m, n = next((m, n) for k, (m, n) in enumerate(zip(first, shape)) if k != d and m != n)
    return error(
        RuntimeError,
        f"Sizes of tensors must match except in dimension {d}. Expected size {m} but got size {n} for tensor number {i} in the "
        "list.",
        hint,
    )


def _stack_rule(g: Tensor, tensors_shape: Any, dim: int, needs: Any) -> tuple[Any, ...]:
    before = (EVERYTHING,) * dim
    return tuple([_select(g, (*before, i, ...)) if needed else None for i, needed in enumerate(needs)])


@primitive("stack", vjp=_stack_rule, jvp="linear", batch={"dim": "dim"})
def _stack(*tensors: Any, dim: Any) -> Any:
    return np.stack(tensors, dim)


@public(method=False, out=True)
def stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Tensors of one shape along a new dimension.

    >>> import flambeau as torch
    >>> torch.stack([torch.tensor(1), torch.tensor(2)])
    tensor([1, 2])
    """
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
        m, n = shape[-2:]
        out.append(_slice(g, (..., slice(r, r + m), slice(c, c + n))) if needed else None)
        r, c = r + m, c + n
    return tuple(out)


@primitive("block_diag", vjp=_block_rule, jvp="linear", batch={})
def _block_diag(*tensors: Any) -> Any:
    lead = tensors[0].shape[:-2]
    out = np.zeros((*lead, sum(t.shape[-2] for t in tensors), sum(t.shape[-1] for t in tensors)), tensors[0].dtype)
    r = c = 0
    for t in tensors:
        m, n = t.shape[-2:]
        out[..., r : r + m, c : c + n] = t
        r, c = r + m, c + n
    return out


@public(method=False)
def block_diag(*tensors: Tensor) -> Tensor:
    """The matrix with the tensors, as matrices, along its diagonal."""
    for i, t in enumerate(tensors_of("block_diag", tensors)):
        if t._a.ndim > 2:
            raise error(
                RuntimeError,
                f"torch.block_diag: Input tensors must have 2 or fewer dimensions. Input {i} has {t._a.ndim} dimensions",
            )
    if not tensors:
        return wrap(np.empty((1, 0), get_default_dtype().np))
    return _block_diag(*[atleast_2(t) for t in same_dtype(list(tensors))])


# ---- padding --------------------------------------------------------------------------------------------------------
def _constant_pad_rule(g: Tensor, pads: Any) -> Tensor:
    return _constant_pad(g, tuple([(-a, -b) for a, b in pads]), 0)


@primitive(
    "constant_pad_nd", vjp={"x": _constant_pad_rule}, jvp=lambda x_t, pads: _constant_pad(x_t, pads, 0),
    batch=lambda b, x, pads, value: _constant_pad(x, ((0, 0), *pads), value),
)  # fmt: skip
def _constant_pad(x: Any, /, pads: Any, value: Any) -> Any:
    """``pads``: (before, after) of every dimension; negative ones cut."""
    if not x.ndim:
        return x.copy()
    out = laid_out_like(x, [n + a + b for n, (a, b) in zip(x.shape, pads)])
    inner = tuple([slice(max(a, 0), n + a + b - max(b, 0)) for n, (a, b) in zip(x.shape, pads)])
    kept = tuple([slice(max(-a, 0), n - max(-b, 0)) for n, (a, b) in zip(x.shape, pads)])
    out[inner] = x[kept]
    rest = out  # what the dimensions before leave to be filled
    for d, s in enumerate(inner):
        before = (EVERYTHING,) * d
        rest[(*before, slice(s.start))] = value
        rest[(*before, slice(s.stop, None))] = value
        rest = rest[(*before, s)]
    return out


def _places(n: int, before: int, after: int, mode: str) -> np.ndarray:
    """Which entry each place of a padded dimension shows."""
    if mode == "circular":  # around what negative padding leaves
        first, left = max(-before, 0), n + min(before, 0) + min(after, 0)
        return first + np.arange(-max(before, 0), left + max(after, 0)) % left
    i = np.arange(-before, n + after)
    if mode == "replicate":
        return i.clip(0, n - 1)
    return np.where(i < 0, -i, np.where(i >= n, 2 * (n - 1) - i, i))


def _show(x: Any, /, mode: Any, pairs: Any) -> Any:
    first = x.ndim - len(pairs)
    if min(map(min, pairs)) >= 0:  # every entry that a border shows is in the result already
        sizes = [n + a + b for n, (a, b) in zip(x.shape[first:], pairs)]
        out = laid_out_like(x, [*x.shape[:first], *sizes])
        middle: Any = (..., *[slice(a, a + n) for n, (a, _) in zip(x.shape[first:], pairs)])
        out[middle] = x
        for k, (before, after) in enumerate(pairs, first):
            n, rows = x.shape[k], np.moveaxis(out, k, 0)
            places = (_places(n, before, after, mode) + before).tolist()
            for j in (*range(before), *range(before + n, len(places))):
                rows[j] = rows[places[j]]
        return out
    for k, (before, after) in enumerate(pairs, first):
        x = x.take(_places(x.shape[k], before, after, mode), axis=k)
    return x


def _gather_back(g: Any, /, mode: Any, pairs: Any, sizes: Any) -> Any:
    """The transpose of ``_show``: the middle is copied, then each border is added where it came from."""
    first = g.ndim - len(pairs)
    for k, (before, after), n in zip(range(first, g.ndim), pairs, sizes):
        places = _places(n, before, after, mode)
        out = np.zeros((*g.shape[:k], n, *g.shape[k + 1 :]), g.dtype)
        to, of = np.moveaxis(out, k, 0), np.moveaxis(g, k, 0)
        start, stop = max(before, 0), min(before + n, len(places))
        if start < stop:
            to[places[start] : places[start] + stop - start] = of[start:stop]
        for j, i in enumerate(places.tolist()):
            if not start <= j < stop:
                to[i] += of[j]
        g = out
    return g


def _bordered(mode: str, name: str, n: int) -> Primitive:
    """Padding of the last ``n`` dimensions by entries of the tensor, and its transpose: each one's rule is the other."""
    node = f"{name}{n}DBackward"
    back = primitive(
        f"{mode}_pad{n}d_backward", node=node + "Backward0", vjp={"g": lambda g, mode, pairs: forward(g, mode, pairs)},
        jvp="linear", batch={},
    )(_gather_back)
    forward: Primitive = primitive(
        f"{mode}_pad{n}d",
        node=node + "0",
        vjp={"x": lambda g, x_shape, mode, pairs: back(g, mode, pairs, x_shape[len(x_shape) - len(pairs) :])},
        jvp="linear",
        batch={},
    )(_show)
    return forward


_NAMES = {"reflect": "ReflectionPad", "replicate": "ReplicationPad", "circular": "CircularPad"}
_BORDERED = {(mode, n): _bordered(mode, name, n) for mode, name in _NAMES.items() for n in (1, 2, 3)}


def _pairs(pad: Any) -> tuple[tuple[int, int], ...]:
    """(before, after) of the padded dimensions, the first of them first."""
    if isinstance(pad, Tensor) or not isinstance(pad, Sequence):
        raise error(TypeError, f"pad(): argument 'pad' (position 2) must be tuple of ints, not {type(pad).__name__}")
    for i, n in enumerate(pad):
        if not hasattr(n, "__index__"):
            raise error(
                TypeError,
                f"pad(): argument 'pad' (position 2) must be tuple of ints, but found element of type {type(n).__name__} at "
                f"pos {i}",
            )
    p = [operator.index(n) for n in pad]
    if len(p) % 2:
        raise error(RuntimeError, "Padding length must be divisible by 2")
    return tuple([(p[i], p[i + 1]) for i in range(len(p) - 2, -1, -2)])


@public(method=False)
def constant_pad_nd(input: Tensor, pad: Sequence[int], value: Any = 0) -> Tensor:
    """``nn.functional.pad`` with a number."""
    pairs, shape = _pairs(pad), input._a.shape
    if len(pairs) > len(shape):
        raise error(
            RuntimeError,
            "Padding length should be less than or equal to two times the input dimension but got padding length "
            f"{len(pad)} and input of dimension {len(shape)}",
        )
    pads = ((0, 0),) * (len(shape) - len(pairs)) + pairs
    for d, (n, (a, b)) in enumerate(zip(shape, pads)):
        if n + min(a, 0) + min(b, 0) < 0:
            raise error(
                RuntimeError,
                "narrow(): length must be non-negative.",
                hint=f"Dimension {d} has {n} entries, and the padding is ({a}, {b}).",
            )
    return _constant_pad(input, pads, number(value, input._a.dtype))


@public(module="nn.functional", method=False)
def pad(input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor:
    """Widened by ``pad = (left, right, top, bottom, ...)``, the last dimension first; negative entries cut.

    ``mode``: "constant" (filled with ``value``, any number of dimensions), or "reflect", "replicate" or "circular": the
    last 1 to 3 dimensions, behind which are one or two more.

    >>> import flambeau as torch
    >>> torch.nn.functional.pad(torch.tensor([[1, 2, 3]]), (2, 1), mode="reflect")
    tensor([[3, 2, 1, 2, 3, 2]])
    """
    if mode == "constant":
        return constant_pad_nd(input, pad, value or 0)
    pairs, shape = _pairs(pad), input._a.shape
    if mode not in _NAMES:
        raise error(
            NotImplementedError, f"Unrecognised padding mode {mode}", hint=f"There are constant, {', '.join(_NAMES)}."
        )
    if value is not None and value != 0:
        raise error(RuntimeError, f'Padding mode "{mode}" doesn\'t take in value argument')
    k = len(pairs)
    if not 1 <= k <= 3 or len(shape) not in (k + 1, k + 2):
        raise error(
            NotImplementedError,
            f"Padding size {len(pad)} is not supported for {len(shape)}D input tensor.\n"
            "Supported combinations for non-constant padding:\n"
            "  - 2D or 3D input: padding size = 2 (pads last dimension)\n"
            "  - 3D or 4D input: padding size = 4 (pads last 2 dimensions)\n"
            "  - 4D or 5D input: padding size = 6 (pads last 3 dimensions)",
        )
    if input._a.dtype.kind == "b" and mode != "circular":
        raise error(NotImplementedError, f"\"{_NAMES[mode][:-3].lower()}_pad{k}d\" not implemented for 'Bool'")
    if mode != "circular" and 0 in shape[len(shape) - k - 1 :]:
        raise error(
            RuntimeError,
            f"Expected {k + 1}D or {k + 2}D (batch mode) tensor with possibly 0 batch size and other non-zero dimensions for "
            f"input, but got: {list(shape)}",
        )
    for d, (n, (a, b)) in enumerate(zip(shape[len(shape) - k :], pairs), len(shape) - k):
        _check_borders(mode, shape, d, n, a, b)
    return _BORDERED[mode, k](input, mode, pairs)


def _check_borders(mode: str, shape: tuple[int, ...], d: int, n: int, a: int, b: int) -> None:
    """Whether a dimension of ``n`` entries has what its borders are to show."""
    if mode == "reflect" and (a >= n or b >= n):
        raise error(
            RuntimeError,
            f"Argument #{2 * (len(shape) - d) + 2}: Padding size should be less than the corresponding input dimension, but got: "
            f"padding ({a}, {b}) at dimension {d} of input {list(shape)}",
        )
    left = n + min(a, 0) + min(b, 0)
    if mode == "circular" and (a > n or b > n or left < 1 and (a > 0 or b > 0 or not n)):
        raise error(RuntimeError, "Padding value causes wrapping around more than once.")
    if n + a + b < (0 if mode == "circular" else 1):
        phrase = "Negative padding value is resulting in an empty dimension"
        if mode != "circular":
            phrase = f"input (with size {n} at dimension {d}) is too small for the padding ({a}, {b})"
        raise error(RuntimeError, phrase)
