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
from ..core.modes import Modes, full, mode
from ..core.tensor import InferenceCounter, Tensor, address, new_tensor
from .changes import announce, open_contexts
from .forbidden import check_inference_write, forbid_views, refuse_change
from .node import Node, accumulator, next_seq, note_change
from .primitive import _alias, primitive

ndarray = np.ndarray


def check_writable(t: Tensor, through_view: bool = False, needs: bool = False) -> None:
    """Refuse, in PyTorch's words, what may not be changed in place.

    ``through_view``: the change is one of a view that is yet to be made, as ``t[0] = 1`` is. ``needs``: what is written
    requires grad.
    """
    if t._rg or needs or t._vc is not None or open_contexts:
        check_history(t, through_view, needs)
    a = t._a
    if a.__class__ is not ndarray:  # inside vmap: what is written to is below
        return
    if 0 in a.strides:
        check_memory(a)
    if not a.flags.writeable:
        t._a = writable(a)


def check_history(t: Tensor, through_view: bool = False, needs: bool = False) -> None:
    """The part of ``check_writable`` that concerns autograd."""
    m = mode()
    if open_contexts:
        announce(t)
    if t._vc.__class__ is InferenceCounter:
        check_inference_write(t)
    if (t._rg or needs) and (m is True or m is not False and m.grad):
        base = t._base
        if base is not None:
            if t._view_kind is not None:
                raise refuse_change(t)
            if t._rg and is_point(base):
                raise error(
                    RuntimeError,
                    "a view of a leaf Variable that requires grad is being used in an in-place operation.",
                    hint="Change it inside `with torch.no_grad():`, or change a view of a copy.",
                )
        if t._rg and is_point(t):
            raise error(
                RuntimeError,
                ("a view of " if through_view else "")
                + "a leaf Variable that requires grad is being used in an in-place operation.",
                hint="Change it inside `with torch.no_grad():`, or change a copy: x = x.clone().",
            )


def is_point(t: Tensor) -> bool:
    """Whether derivatives are taken with respect to it: a leaf, or a transformation's fresh alias (``scope.py``)."""
    return t._grad_fn is None or "_scope" in t.__dict__


def check_memory(a: np.ndarray) -> None:
    """The part of ``check_writable`` that concerns memory: each element must have a place of its own."""
    if a.size > 1 and 0 in a.strides and any(n > 1 and s == 0 for n, s in zip(a.shape, a.strides)):
        raise error(
            RuntimeError,
            "unsupported operation: more than one element of the written-to tensor refers to a single memory location. "
            "Please clone() the tensor before performing the operation.",
        )


def wanting(others: Any) -> bool:
    """Whether a tensor among these requires grad."""
    return any([isinstance(o, Tensor) and o._rg for o in others])


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
    nr = t._nr
    if nr.__class__ is not int or nr:
        b._nr = nr
    if t._fw is not None:
        from .transforms.inplace_tangents import kept

        b._fw = kept(t)
    return b


def through_value(fn: Callable[..., Tensor], t: Tensor, others: tuple[Any, ...]) -> Tensor:
    """An in-place operator under a transformation: its value out of place, then written."""
    if full().batch:
        from .transforms.batched import innermost
        from .transforms.batching import write

        if innermost((t, *others)) is not None:
            return write(t, fn(t.clone(), *others))
    check_writable(t, needs=wanting(others))
    was = before(t)
    was._a, was._vc = t._a.copy(), None
    return become(t, fn(was, *others))


def become(t: Tensor, value: Tensor) -> Tensor:
    """Write ``value`` into ``t``: values, history and tangents."""
    m = mode()
    if m.__class__ is Modes and m.batch:
        from .transforms.batched import innermost
        from .transforms.batching import write

        if innermost((t, value)) is not None:
            return write(t, value)
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
    recording = m is True or m is not False and m.grad
    if value._rg and value._grad_fn is None and recording:
        value = _alias(value)  # a leaf: its history is a node that this makes
    t._a[...] = value._a
    changed(t)
    if value._rg and recording:
        rebase(t, value._grad_fn, value._nr)
    elif t._rg and t._grad_fn is not None and recording:
        rebase(t, constant_node(t))
    if m.__class__ is Modes and m.forward:
        from .transforms.inplace_tangents import follow

        follow(t, value)
    return t


def rebase(t: Tensor, node: Node, nr: int = 0) -> None:
    """Make ``node`` the history of ``t`` after an in-place change."""
    base = t._base
    if base is None:
        renew(t, node, nr)
        if t._views:
            refresh_views(t)
        return
    renew(base, CopySlices(base, t, node, nr), 0)
    refresh_views(base)


def renew(t: Tensor, node: Node, nr: int) -> None:
    """Give ``t`` a new history; what was to be kept of its gradient is kept of the new one's."""
    old = t._grad_fn
    t._grad_fn, t._rg = node, True
    if nr or t._nr:
        t._nr = nr
    if t._retains is not None and old is not None:
        from .engine.hooks import follow

        follow(t)


def refresh_views(base: Tensor) -> None:
    """Give the living views of a changed base new histories, or forbid those that cannot have one."""
    views = base._views or ()
    cannot = False
    for ref in views:
        v = ref()
        if v is None or v._a.dtype.kind in "biu":
            continue
        if v._view_kind is not None:
            cannot = True
        else:
            renew(v, view_history(base, v), 0)
    if cannot:
        forbid_views(base)


class Window:
    """Where a view lies in its base: in bytes of the base's dtype, to be scaled to a gradient's.

    A real view of a complex base (``view_as_real``), or the other way round, is a window too: the parts of a gradient
    lie where the parts of the values do.
    """

    __slots__ = ("shape", "strides", "offset", "base_shape", "base_strides", "itemsize", "complex")

    def __init__(self, base: Tensor, v: Tensor) -> None:
        a, b = v._a, base._a
        self.shape, self.strides, self.offset = a.shape, a.strides, address(a) - address(b)
        self.base_shape, self.base_strides, self.itemsize = b.shape, b.strides, b.itemsize
        self.complex = (b.dtype.kind == "c", a.dtype.kind == "c")

    def arrays(self, dt: Any) -> tuple[np.ndarray, np.ndarray]:
        """A base of zeros, and the window onto it, for a gradient of the base of dtype ``dt``."""
        return self.arrays_and_memory(dt)[:2]

    def arrays_and_memory(self, dt: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        part = dt if self.complex[0] == self.complex[1] else real_of(dt) if self.complex[0] else complex_of(dt)

        def scaled(n: int) -> int:
            return n * dt.itemsize // self.itemsize

        low = min(0, self.offset)
        end = max(extent(self.base_shape, self.base_strides), self.offset + extent(self.shape, self.strides))
        root = np.zeros(scaled(end - low + self.itemsize), np.uint8)
        base = np.ndarray(self.base_shape, dt, root, scaled(-low), tuple([scaled(s) for s in self.base_strides]))
        if 0 in self.shape:
            return base, np.zeros(self.shape, part), root
        start = scaled(self.offset - low)
        return base, np.ndarray(self.shape, part, root, start, tuple([scaled(s) for s in self.strides])), root[start:]

    def of_part(self, dt: Any) -> Any:
        """The base's dtype for a gradient of the view of dtype ``dt``."""
        return dt if self.complex[0] == self.complex[1] else complex_of(dt) if self.complex[0] else real_of(dt)


def real_of(dt: Any) -> Any:
    return np.zeros((), dt).real.dtype


def complex_of(dt: Any) -> Any:
    return np.result_type(dt, np.complex64)


def extent(shape: tuple[int, ...], strides: tuple[int, ...]) -> int:
    """Bytes from the first element to the last."""
    return 0 if 0 in shape else sum([(n - 1) * s for n, s in zip(shape, strides)])


def overlaps(a: np.ndarray) -> bool:
    """Whether several elements may lie on one."""
    reach = a.itemsize
    for step, n in sorted([(s, n) for n, s in zip(a.shape, a.strides) if n > 1]):
        if step < reach:
            return True
        reach += (n - 1) * step
    return False


class CopySlices(Node):
    """History of a base, one of whose views was changed: the window's gradient goes to ``value``, the rest passes through."""

    __slots__ = ("window",)

    def __init__(self, base: Tensor, view: Tensor, value: Node, nr: int) -> None:
        before = base._grad_fn if base._grad_fn is not None else accumulator(base) if base._rg else None
        self.window = Window(base, view)
        self.next, self.nrs = (before, value), (base._nr, nr)
        self.saved, self.extra, self.where, self.seq = None, None, here(), next_seq()

    def name(self) -> str:
        return "torch::autograd::CopySlices"

    @property
    def next_functions(self) -> tuple[tuple[Any, int], ...]:
        """As PyTorch shows it: the base, then whatever else the operator on the view was given."""
        base, value = self.next
        return ((base, 0 if base is None or self.nrs is None else self.nrs[0]), *value.next_functions[1:])

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


def each(kernel: Any, x: np.ndarray, window: Window) -> np.ndarray:
    """The kernel on every entry of the first dimension, which is the batch of vmap."""
    return np.stack([kernel(v, window) for v in x])


@primitive("into_window", node="AsStridedBackward0", vjp={"x": _out_of}, jvp="linear", batch={})
def into_window(x: Any, /, window: Window) -> Any:
    """The window's part of a base."""
    if x.ndim > len(window.base_shape):
        return each(into_window.kernel, x, window)
    base, part = window.arrays(x.dtype)
    base[...] = x
    return part.copy()


@primitive(
    "from_window", node="AsStridedBackwardBackward0", vjp={"x": lambda g, window: into_window(g, window)}, jvp="linear", batch={}
)
def from_window(x: Any, /, window: Window) -> Any:
    """A base of zeros around the window's part; what lies on one element is summed."""
    if x.ndim > len(window.shape):
        return each(from_window.kernel, x, window)
    base, part, memory = window.arrays_and_memory(window.of_part(x.dtype))
    if part.size and overlaps(part):
        places: Any = 0  # of the elements, counted from the window's first
        for d, (n, step) in enumerate(zip(window.shape, part.strides)):
            places = places + np.arange(n).reshape(-1, *(1,) * (part.ndim - d - 1)) * (step // part.itemsize)
        last = int(np.max(places))
        np.add.at(np.ndarray(last + 1, part.dtype, memory), places, x)
    else:
        part[...] = x
    return base


@primitive("erase_window", node="CopySlicesBackward", vjp={"x": _erased}, jvp="linear", batch={})
def erase_window(x: Any, /, window: Window) -> Any:
    """A base with zeros in the window."""
    if x.ndim > len(window.base_shape):
        return each(erase_window.kernel, x, window)
    base, part = window.arrays(x.dtype)
    base[...] = x
    part[...] = 0
    return base


class NotImplementedNode(Node):
    """History of a change that has no derivative."""

    __slots__ = ("operator",)

    def __init__(self, operator: str, t: Tensor) -> None:
        self.operator = operator
        self.next, self.nrs = (t._grad_fn if t._grad_fn is not None else accumulator(t),), (t._nr,)
        self.saved, self.extra, self.where, self.seq = None, None, here(), next_seq()

    def name(self) -> str:
        return "torch::autograd::NotImplemented"

    def apply(self, g: Any, wanted: Any = None) -> tuple[Any, ...]:
        raise error(RuntimeError, f"derivative for {self.operator} is not implemented")

    def release(self) -> None:
        pass


class ConstantBackward0(Node):
    """History of a tensor that was overwritten by values without history: nothing flows through."""

    __slots__ = ()

    def apply(self, g: Any, wanted: Any = None) -> tuple[Any, ...]:
        return (None,) * len(self.next)

    def release(self) -> None:
        pass


_CONSTANTS: dict[str, Any] = {}


def constant_node(t: Tensor, name: str = "ConstantBackward0") -> Node:
    cls: Any = _CONSTANTS.get(name)
    if cls is None:
        cls = _CONSTANTS[name] = type(name, (ConstantBackward0,), {"__slots__": ()})
    node = cls.__new__(cls)
    node.next, node.nrs = (None,), (0,)
    node.saved, node.extra, node.where, node.seq = None, None, here(), next_seq()
    return node
