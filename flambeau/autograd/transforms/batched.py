"""Tensors inside vmap.

A ``Batched`` tensor looks like one example and holds them all: ``_value`` is a tensor whose dimension 0 is the batch.
Nested vmaps nest the wrappers, the innermost vmap outermost. The array that it shows has the shape and dtype of one
example and no values (``Guard``), so that nothing can compute with one example by mistake. What operators do with
batched tensors is in ``batching.py``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from ...core.errors import error
from ...core.modes import Modes, full
from ...core.tensor import Tensor, contiguous_format, new_tensor


class Level:
    """One running vmap."""

    __slots__ = ("number", "size", "randomness")

    def __init__(self, number: int, size: int, randomness: str) -> None:
        self.number, self.size, self.randomness = number, size, randomness


# ---- the array that a batched tensor shows ------------------------------------------------------------------------
def _no_values(*_: Any, **__: Any) -> Any:
    if not full().batch:
        raise error(
            RuntimeError,
            "Either your tensor may have escaped from inside a function being vmapped and this is a user error "
            "(see https://pytorch.org/functorch/stable/ux_limitations.html)",
            hint="That function has returned, and its batch is gone: return the tensor from it instead of keeping it elsewhere.",
        )
    frame, name = sys._getframe(1), "this operation"
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("flambeau."):
        name, frame = frame.f_code.co_name, frame.f_back
    raise error(
        RuntimeError,
        f"vmap: {name} has no batching rule: it asks for the values of a tensor that stands for a whole batch.",
        hint="Compute it outside the vmapped function, or loop over the examples.",
    )


class Guard(np.ndarray):
    """Shape and dtype of one example without values: who asks for those gets an error, not a wrong number."""

    __array_ufunc__ = _no_values
    __array_function__ = _no_values


for _name in (
    "all any argmax argmin argpartition argsort astype byteswap choose clip compress conj conjugate copy cumprod cumsum "
    "diagonal dot dump dumps fill flatten getfield item max mean min nonzero partition prod put ravel repeat reshape "
    "resize round searchsorted setfield sort squeeze std sum swapaxes take tobytes tofile tolist trace transpose var view "
    "__getitem__ __setitem__ __bool__ __float__ __int__ __complex__ __index__ __iter__ __copy__ __deepcopy__ __reduce__ "
    "__contains__"
).split():
    setattr(Guard, _name, _no_values)
for _name in ("T", "mT", "real", "imag", "flat", "ctypes", "data", "__array_interface__"):
    setattr(Guard, _name, property(_no_values))

# What a reader that goes round the guard would see: nan, or -1. (A byte of 255 is no bool.)
_NOTHING, _NO_BOOL = b"\xff" * 16, bytes(1)


def guard(shape: tuple[int, ...], dt: Any) -> np.ndarray:
    return np.ndarray.__new__(Guard, shape, dt, _NO_BOOL if dt.kind == "b" else _NOTHING, 0, (0,) * len(shape))


# ---- batched tensors -------------------------------------------------------------------------------------------------
class Batched(Tensor):
    """A tensor inside vmap: one example to look at, the whole batch in ``_value``."""

    __slots__ = ("_value", "_level")
    _value: Tensor
    _level: Level

    def like(self, value: Tensor) -> Batched:
        return batched(value, self._level)

    def become_view(self, v: Batched) -> Batched:
        """``t_`` and the like: the tensor itself becomes a view of itself."""
        self._value, self._a, self._grad_fn, self._rg = v._value, v._a, v._grad_fn, v._rg
        return self

    def _viewable(self) -> np.ndarray:
        self._value._viewable()
        return self._a

    def _everything(self) -> np.ndarray:
        return self._value._everything()

    def _detached(self) -> Tensor:
        return self.like(self._value._detached())

    def _set_data(self, value: Any) -> None:
        raise error(RuntimeError, "mutating directly with `.data` under vmap transform is not allowed.", hint="Use copy_().")

    data = property(lambda self: self.like(self._value.data), _set_data)
    _version = property(lambda self: self._value._version)

    def stride(self, dim: int | None = None) -> Any:
        s = self._value.stride()[1:]
        return s if dim is None else s[dim]

    def is_contiguous(self, memory_format: Any = None) -> bool:
        return self._value.is_contiguous() if memory_format is None or memory_format is contiguous_format else False

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        raise error(
            RuntimeError,
            "You are attempting to call Tensor.requires_grad_() (or perhaps using torch.autograd.functional.* APIs) inside of a function "
            "being transformed by a functorch transform. "
            "This is unsupported, please attempt to use the functorch transforms (e.g. grad, vjp, jacrev, jacfwd, hessian) or call "
            "requires_grad_() outside of a function being transformed instead.",
        )

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"BatchedTensor(lvl={self._level.number}, bdim=0, value=\n    " + repr(self._value).replace("\n", "\n    ") + "\n)"


def batched(value: Tensor, level: Level) -> Batched:
    """One example of ``value``, whose dimension 0 is the batch of ``level``."""
    t = new_tensor(Batched)
    t._value, t._level = value, level
    t._a = guard(value._a.shape[1:], value._a.dtype)
    t._grad_fn, t._rg = value._grad_fn, value._rg
    return t


def _asks_for(what: str, message: str) -> None:
    def refuse(self: Tensor, *args: Any, **kwargs: Any) -> Any:
        raise error(RuntimeError, message, hint="Inside vmap a tensor stands for a whole batch: use torch.where, masks and the like.")

    refuse.__name__ = what
    setattr(Batched, what, refuse)


_DATA_DEPENDENT = (
    "vmap: It looks like you're attempting to use a Tensor in some data-dependent control flow. We don't support that yet, "
    "please file an issue at https://github.com/pytorch/pytorch/issues ."
)
_ITEM = (
    "vmap: It looks like you're calling .item() on a Tensor. We don't support vmap over calling .item() on a Tensor, please try to "
    "rewrite what you're doing with other operations. If error is occurring somewhere inside PyTorch internals, please file a bug report."
)
for _name in ("__bool__", "is_nonzero"):
    _asks_for(_name, _DATA_DEPENDENT)
for _name in ("item", "__float__", "__int__", "__index__", "__complex__", "__format__"):
    _asks_for(_name, _ITEM)
for _name in ("numpy", "tolist", "__array__", "data_ptr", "storage", "untyped_storage", "__dlpack__"):
    _asks_for(_name, f"vmap: .{_name.strip('_')}() is not possible on a tensor inside a vmapped function: it holds a whole batch.")
for _name in ("__copy__", "__deepcopy__", "__reduce_ex__"):
    _asks_for(_name, "vmap: a tensor inside a vmapped function cannot be copied or pickled: it holds a whole batch.")
_asks_for(
    "backward",
    "backward() called inside a functorch transform. This is not supported, please use functorch.grad or functorch.vjp instead or call "
    "backward() outside of functorch transforms.",
)


# ---- levels ------------------------------------------------------------------------------------------------------------
def innermost(args: Any) -> Level | None:
    """The innermost vmap that any of the operands is batched by."""
    found: Level | None = None
    for a in args:
        if a.__class__ is Batched:
            level = a._level
        elif a.__class__ is tuple or a.__class__ is list:
            inner = innermost(a)
            if inner is None:
                continue
            level = inner
        else:
            continue
        if found is None or level.number > found.number:
            found = level
    return found


def at(t: Any, level: Level) -> Any:
    """The value of ``t`` with the batch of ``level`` first, expanded if it has none."""
    if t.__class__ is Batched and t._level is level:
        return t._value
    return t.expand(level.size, *t._a.shape) if isinstance(t, Tensor) else t


def together(*tensors: Tensor) -> tuple[list[Tensor], Callable[[Tensor], Tensor]]:
    """The tensors' values at the innermost vmap among them, and what wraps a value again."""
    level = innermost(tensors)
    assert level is not None
    return [at(t, level) for t in tensors], lambda v: batched(v, level)


def lower(t: Tensor, levels: tuple[Level, ...]) -> Tensor:
    """The physical tensor of ``t``, expanded over all of ``levels`` (outermost first): (B1, B2, ..., *t.shape)."""
    for level in reversed(levels):
        t = at(t, level)
    return t


def lift(t: Tensor, levels: tuple[Level, ...]) -> Tensor:
    """The inverse of ``lower``."""
    for level in levels:
        t = batched(t, level)
    return t


def without(m: Modes, level: Level) -> Any:
    """The modes in which the values of ``level`` are computed with: those of the vmaps around it."""
    try:
        known, outer = m.outer
    except AttributeError:
        known = None
    if known is not level:
        outer = m.replace(batch=tuple([lv for lv in m.batch if lv.number < level.number]))
        m.outer = (level, outer)
    return outer


def is_batched(t: Any, level: Level) -> bool:
    return t.__class__ is Batched and t._level is level


def value_of(t: Any, level: Level) -> Any:
    return t._value if t.__class__ is Batched and t._level is level else t


def refresh(t: Tensor) -> None:
    """Let a batched tensor show the history that its value has by now."""
    if t.__class__ is Batched:
        refresh(t._value)
        t._grad_fn, t._rg = t._value._grad_fn, t._value._rg
