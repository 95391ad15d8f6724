"""Where a backward pass ends: a gradient is added to a leaf's ``.grad``.

PyTorch's rule: the first gradient is taken over as it is if nobody else holds it and it lies in memory as the leaf
does, else copied into that layout. Later ones are added in place, so that ``.grad`` stays the same tensor; out of
place in a pass that records.
"""

from __future__ import annotations

import warnings
from _thread import RLock  # without importing threading, which takes 1.5 ms
from _thread import _count as threads  # besides the main one
from typing import Any

import numpy as np

from ...core.dtypes import C_NAMES, FROM_NP, SCALAR_NAMES, dtype
from ...core.errors import error, user_level
from ...core.modes import Modes, _ModeContext, mode
from ...core.tensor import Tensor, new_tensor
from ...kernels import expr as E
from ...kernels.ufunc import LARGE, kernel
from ..changes import announce, open_contexts
from ..holders import ALONE, owns_memory, references
from ..node import AccumulateGrad
from .hooks import through

add = np.add
add_many = kernel(E.var("a") + E.var("b"), ("a", "b"), "accumulate")  # np.add knows no threads

_lock = RLock()  # two threads may add to one leaf
_enforce_layout = True
_warned = False


def accumulate_grad(node: AccumulateGrad, g: Tensor, public: bool) -> None:
    """``variable.grad += g``. ``public``: by operators that the tape and the transformations see."""
    alone = references(g) == ALONE
    t = node.variable
    if not t._rg:  # it was switched off after the graph was made
        return
    locked = threads() and _lock.acquire()
    try:
        old = t._grad
        if old is None:
            if public:
                t._grad = recorded_copy(g, t)
            elif alone and not g._rg and owns_memory(g) and (same_layout(g._a, t._a) or not _enforce_layout):
                t._grad = g
            else:
                t._grad = copy(g, t)
            return
        if public:
            t._grad = old + g
            return
        a, b = old._a, g._a
        if open_contexts:
            announce(old)
        if a.dtype is not b.dtype or not a.flags.carray:  # the usual: writable, in C order
            if _enforce_layout and not _warned and not same_layout(a, t._a):
                warn_of_layout(old, t)
            if a.dtype is not b.dtype or not a.flags.writeable or 0 in a.strides:
                old.add_(g)
                return
        try:
            if b.size < LARGE:
                add(a, b, a)
            else:
                add_many(a, b, out=a)
        except ValueError:  # the shapes differ: .data was replaced, and .grad is of the one before
            old.add_(g)
            return
        vc = old._vc
        if vc is not None:
            vc[0] += 1
        else:
            old._vc = [1]
    finally:
        if locked:
            _lock.release()


def copy(g: Tensor, t: Tensor) -> Tensor:
    """A gradient in memory of its own, laid out as the leaf is."""
    like = t._a
    a = np.empty_like(like, dtype=g._a.dtype) if like.flags.c_contiguous or is_dense(like) else np.empty(like.shape, g._a.dtype)
    a[...] = g._a
    n = new_tensor(Tensor)
    n._a, n._grad_fn, n._rg = a, None, False
    return n


def recorded_copy(g: Tensor, t: Tensor) -> Tensor:
    m = mode()
    if m.__class__ is Modes and m.transformed:
        return g.clone()
    strides = t.stride() if is_dense(t._a) else np.empty(t._a.shape, np.int8).strides
    return g.new_empty_strided(tuple(t._a.shape), strides).copy_(g)


def is_dense(a: np.ndarray) -> bool:
    """Whether the elements fill their memory without gaps and without overlap, in some order of the axes."""
    if a.flags.c_contiguous:
        return True
    step = a.itemsize
    for stride, n in sorted([(s, n) for s, n in zip(a.strides, a.shape) if n > 1]):
        if stride != step:
            return False
        step *= n
    return True


def same_layout(g: np.ndarray, a: np.ndarray) -> bool:
    """Whether a gradient lies in memory as PyTorch wants it to: as its leaf does, or in C order where that has gaps."""
    if g.strides == a.strides:
        return True
    return g.flags.c_contiguous and (a.flags.c_contiguous or not is_dense(a))


def warn_of_layout(g: Tensor, t: Tensor) -> None:
    global _warned
    _warned = True
    warnings.warn(
        "grad and param do not obey the gradient layout contract. This is not an error, but may impair performance.\n"
        f"grad.sizes() = {list(g._a.shape)}, strides() = {list(g.stride())}\n"
        f"param.sizes() = {list(t._a.shape)}, strides() = {list(t.stride())}",
        UserWarning,
        stacklevel=user_level(),
    )


class enforce_grad_layout_policy(_ModeContext):
    """Whether ``.grad`` must lie in memory as its leaf does: as a call (at once), a context manager or a decorator.

    Without it, a gradient that nobody else holds is taken over in whatever order it has.
    """

    def __init__(self, enable: bool = True) -> None:
        global _enforce_layout
        self.prev, self.mode = _enforce_layout, bool(enable)
        _enforce_layout = self.mode

    def __call__(self, fn: Any) -> Any:
        global _enforce_layout
        _enforce_layout = self.prev
        return super().__call__(fn)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exc: Any) -> None:
        global _enforce_layout
        _enforce_layout = self.prev

    def clone(self) -> enforce_grad_layout_policy:
        return self.__class__(self.mode)


# ---- on the way in --------------------------------------------------------------------------------------------------
SAME = Tensor._grad_dtype  # it follows the tensor's dtype


def arrived(t: Tensor, g: Any) -> Any:
    """A gradient of a leaf in the dtype that it asks for."""
    d = t._grad_dtype
    return g if g is None or d is None or d is SAME or g._a.dtype == d.np else g.to(d)


def run_hooks(t: Tensor, g: Any) -> Any:
    """... and after its hooks."""
    return through(t._hooks, g) if t._hooks else g


def get_grad_dtype(self: Tensor) -> dtype | None:
    """The dtype that ``.grad`` must have: the tensor's own unless it is set; None allows any.

    Can only be set on leaves. A backward pass casts to it.

    >>> import flambeau as torch
    >>> x = torch.ones(2, requires_grad=True)
    >>> x.grad_dtype = torch.float64
    >>> (x * 2).sum().backward(); x.grad
    tensor([2., 2.], dtype=torch.float64)
    """
    if self._grad_fn is not None:
        raise error(RuntimeError, "grad_dtype can only be accessed on leaf tensors.")
    d: Any = self._grad_dtype
    return FROM_NP[self._a.dtype] if d is SAME else d


def set_grad_dtype(self: Tensor, d: Any) -> None:
    if d is not None and not isinstance(d, dtype):
        raise error(RuntimeError, f"grad_dtype must be a torch.dtype or None, but got {type(d).__name__}")
    if self._grad_fn is not None:
        raise error(RuntimeError, "grad_dtype can only be set on leaf tensors.")
    g = self._grad
    if d is not None and g is not None and g._a.dtype != d.np:
        raise error(
            RuntimeError,
            f"Cannot set grad_dtype to '{SCALAR_NAMES[d]}' because there is already a gradient with dtype "
            f"'{C_NAMES[g.dtype]}'. Please clear the gradient (.grad = None) before changing grad_dtype, or ensure the "
            "new grad_dtype matches the existing gradient's dtype.",
        )
    self._grad_dtype = SAME if d is FROM_NP[self._a.dtype] else d
    if self._hooks is None:
        self._hooks = {}  # so that the loop, which asks for hooks only, stops here


Tensor.grad_dtype = property(get_grad_dtype, set_grad_dtype, doc=get_grad_dtype.__doc__)
