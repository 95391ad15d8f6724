"""In-place changes: what they refuse, and how they rewrite history.

A change of a tensor that is no view makes the new node its history. A change of a view makes a ``CopySlices`` node
the history of the base, and every living view of that base gets a new one derived from it (an ``AsStrided`` of the
base), at once, so that no tensor ever has a stale history.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..core.dtypes import SCALAR_NAMES, can_cast
from ..core.errors import error, here
from ..core.modes import Modes, mode
from ..core.tensor import Tensor, address, new_tensor
from .node import Node, accumulator, next_seq, note_change, operation
from .primitive import primitive


def check_writable(t: Tensor, through_view: bool = False) -> None:
    """Refuse, in PyTorch's words, what may not be changed in place."""
    m = mode()
    if (m is True or m is not False and m.grad) and (t._rg or t._base is not None):
        base = t._base
        if t._rg and t._grad_fn is None:
            raise error(
                RuntimeError,
                ("a view of " if through_view else "")
                + "a leaf Variable that requires grad is being used in an in-place operation.",
                hint="Change it inside `with torch.no_grad():`, or change a copy: x = x.clone().",
            )
        if base is not None:
            if base._rg and base._grad_fn is None:
                raise error(
                    RuntimeError,
                    "a view of a leaf Variable that requires grad is being used in an in-place operation.",
                    hint="Change it inside `with torch.no_grad():`, or change a view of a copy.",
                )
            kind = t._view_kind
            if kind == "multi" and (t._rg or base._rg):
                raise error(
                    RuntimeError,
                    f"Output {t._nr} of {operation(t._grad_fn) if t._grad_fn else 'a multi-output view'} is a view and is being "
                    "modified inplace. This view is the output of a function that returns multiple views. Such functions do "
                    "not allow the output views to be modified inplace. You should replace the inplace operation by an "
                    "out-of-place one.",
                )
            if kind == "no_grad" and (t._rg or base._rg):
                raise error(
                    RuntimeError,
                    "A view was created in no_grad mode and is being modified inplace with grad mode enabled. Given that "
                    "this use case is ambiguous and error-prone, it is forbidden. You can clarify your code by moving both "
                    "the view and the inplace either both inside the no_grad block (if you don't want the inplace to be "
                    "tracked) or both outside (if you want the inplace to be tracked).",
                )
    a = t._a
    if a.size > 1 and 0 in a.strides and any(n > 1 and s == 0 for n, s in zip(a.shape, a.strides)):
        raise error(
            RuntimeError,
            "unsupported operation: more than one element of the written-to tensor refers to a single memory location. "
            "Please clone() the tensor before performing the operation.",
        )
    if not a.flags.writeable:
        t._a = writable(a)


def refuse_overlap(t: Tensor, other: Tensor) -> None:
    """Refuse an operand that lies partly on what is written; lying on exactly the same elements is fine."""
    a, b = t._a, other._a
    if t._base is None and other._base is None and t is not other:
        return  # two tensors with memory of their own
    if not (a.flags.c_contiguous and b.flags.c_contiguous) or a.nbytes == 0 or b.nbytes == 0:
        return  # PyTorch decides for dense operands only
    start, first = address(a), address(b)
    if start == first and a.nbytes == b.nbytes:
        return
    if start < first + b.nbytes and first < start + a.nbytes:
        raise error(
            RuntimeError,
            "unsupported operation: some elements of the input tensor and the written-to tensor refer to a single memory "
            "location. Please clone() the tensor before performing the operation.",
        )


def writable(a: np.ndarray) -> np.ndarray:
    """The same memory, writable where NumPy only guards it (arrays over read-only buffers stay as they are)."""
    try:
        b = a.view()
        b.flags.writeable = True
        return b
    except ValueError:
        raise error(RuntimeError, "this tensor shares the memory of a NumPy array that is not writable") from None


def changed(t: Tensor) -> None:
    """Count a change that has been made."""
    note_change(t)


def before(t: Tensor) -> Tensor:
    """The tensor as it was before the change: the same storage and history, another object, so no cycle."""
    b = new_tensor(Tensor)
    b._a = t._a
    b._grad_fn = t._grad_fn
    b._rg = t._rg
    b._vc = t._counter()
    if t._nr:
        b._nr = t._nr
    if t._fw is not None:
        from .inplace_tangents import kept

        b._fw = kept(t)
    return b


def through_value(fn: Callable[..., Tensor], t: Tensor, others: tuple[Any, ...]) -> Tensor:
    """An in-place operator under a transformation: its value out of place, then written."""
    check_writable(t)
    was = before(t)
    was._a, was._vc = t._a.copy(), None
    return become(t, fn(was, *others))


def become(t: Tensor, value: Tensor) -> Tensor:
    """Write ``value`` into ``t``: values, history and tangents."""
    if not can_cast(value.dtype, t.dtype):
        raise error(
            RuntimeError,
            f"result type {SCALAR_NAMES[value.dtype]} can't be cast to the desired output type {SCALAR_NAMES[t.dtype]}",
        )
    if value._a.shape != t._a.shape:
        raise error(
            RuntimeError,
            f"output with shape {list(t._a.shape)} doesn't match the broadcast shape {list(value._a.shape)}",
        )
    if value._a.dtype != t._a.dtype and (value._rg or value._fw is not None):
        value = value.to(t.dtype)
    t._a[...] = value._a
    changed(t)
    m = mode()
    if value._rg and value._grad_fn is not None and m is not False:
        rebase(t, value._grad_fn, value._nr)
    elif t._rg and t._grad_fn is not None and m is not False:
        rebase(t, constant_node(t))
    if m.__class__ is Modes and m.forward:
        from .inplace_tangents import follow

        follow(t, value)
    return t


def rebase(t: Tensor, node: Node, nr: int = 0) -> None:
    """Make ``node`` the history of ``t`` after an in-place change."""
    base = t._base
    if base is None:
        t._grad_fn, t._rg = node, True
        t._nr = nr
        if t._views:
            refresh_views(t)
        return
    slices = CopySlices(base, t, node, nr)
    base._grad_fn, base._rg = slices, True
    base._nr = 0
    refresh_views(base)
    if t._grad_fn is None:  # a view that the base had forgotten cannot be: it is in base._views
        t._grad_fn, t._rg = view_history(base, t), True


def refresh_views(base: Tensor) -> None:
    for ref in base._views or ():
        v = ref()
        if v is not None:
            v._grad_fn, v._rg = view_history(base, v), True
            v._nr = 0


class Window:
    """Where a view lies in its base: shape, strides in bytes, offset in bytes, for a base in C order."""

    __slots__ = ("shape", "strides", "offset", "base_shape", "base_strides", "dtype")

    def __init__(self, base: Tensor, v: Tensor) -> None:
        a, b = v._a, base._a
        self.shape, self.strides, self.offset = a.shape, a.strides, address(a) - address(b)
        self.base_shape, self.base_strides = b.shape, b.strides
        self.dtype = b.dtype

    def of(self, array: np.ndarray) -> np.ndarray:
        """The same window onto another array of the base's shape and strides."""
        if array.strides != self.base_strides:
            raise AssertionError("a window needs its base's strides")
        if not array.size or 0 in self.shape:
            return np.zeros(self.shape, array.dtype)
        # the gradient's dtype may be wider or narrower than the values' (real parts of complex)
        return np.ndarray(self.shape, array.dtype, array_buffer(array), self.offset, self.strides)

    def fresh(self, g: np.ndarray) -> np.ndarray:
        """A copy of ``g`` laid out as the base is."""
        out = as_base(self.base_shape, self.base_strides, g.dtype)
        out[...] = g
        return out


def as_base(shape: Any, strides: Any, dt: Any) -> np.ndarray:
    """An array of the given strides with memory of its own."""
    span = sum((n - 1) * s for n, s in zip(shape, strides)) + dt.itemsize if 0 not in shape else dt.itemsize
    return np.ndarray(shape, dt, np.zeros(span, np.uint8), 0, strides)


def array_buffer(a: np.ndarray) -> Any:
    """The memory behind an array made by ``as_base``."""
    b = a
    while isinstance(b.base, np.ndarray):
        b = b.base
    return b


class CopySlices(Node):
    """History of a base, one of whose views was changed: the window's gradient goes to ``value``, the rest passes through."""

    __slots__ = ("window",)

    def __init__(self, base: Tensor, view: Tensor, value: Node, nr: int) -> None:
        before = base._grad_fn if base._grad_fn is not None else accumulator(base) if base._rg else None
        self.window = Window(base, view)
        self.next, self.nrs = (before, value), (base._nr, nr)
        self.saved, self.extra, self.where, self.seq = None, None, here(), next_seq()

    def apply(self, g: Any, wanted: Any = None) -> tuple[Any, ...]:
        rest = None if self.next[0] is None else erase_window(g, self.window)
        return rest, into_window(g, self.window)

    def release(self) -> None:
        pass


class AsStridedBackward0(Node):
    """History of a view that was renewed after an in-place change of its base."""

    __slots__ = ("window",)
    window: Window

    def apply(self, g: Any, wanted: Any = None) -> tuple[Any, ...]:
        return (from_window(g, self.window),)

    def release(self) -> None:
        pass


def view_history(base: Tensor, v: Tensor) -> Node:
    node = AsStridedBackward0.__new__(AsStridedBackward0)
    node.next, node.nrs = (base._grad_fn,), (base._nr,)
    node.window = Window(base, v)
    node.saved, node.extra, node.where, node.seq = None, None, here(), next_seq()
    return node


# Linear maps of gradients by a window, each other's transposes.
def _out_of(g: Tensor, window: Window) -> Any:
    return from_window(g, window)


def _erased(g: Tensor, window: Window) -> Any:
    return erase_window(g, window)


@primitive("into_window", node="AsStridedBackward0", vjp={"x": _out_of})
def into_window(x: Any, /, window: Window) -> Any:
    """The window's part of a base."""
    return window.of(window.fresh(x)).copy()


@primitive("from_window", node="AsStridedBackwardBackward0", vjp={"x": lambda g, window: into_window(g, window)})
def from_window(x: Any, /, window: Window) -> Any:
    """A base of zeros around the window's part; what lies on one element is summed."""
    base = as_base(window.base_shape, window.base_strides, x.dtype)
    part = window.of(base)
    if any(s == 0 and n > 1 for n, s in zip(window.shape, window.strides)):
        for i in np.ndindex(x.shape):
            part[i] += x[i]
    else:
        part[...] = x
    return base


@primitive("erase_window", node="CopySlicesBackward", vjp={"x": _erased})
def erase_window(x: Any, /, window: Window) -> Any:
    """A base with zeros in the window."""
    base = window.fresh(x)
    window.of(base)[...] = 0
    return base


class ConstantBackward0(Node):
    """History of a tensor that was overwritten by values without history: nothing flows through."""

    __slots__ = ()

    def apply(self, g: Any, wanted: Any = None) -> tuple[Any, ...]:
        return (None,) * len(self.next)

    def release(self) -> None:
        pass


def constant_node(t: Tensor) -> Node:
    node = ConstantBackward0.__new__(ConstantBackward0)
    node.next, node.nrs = (None,), (0,)
    node.saved, node.extra, node.where, node.seq = None, None, here(), next_seq()
    return node
