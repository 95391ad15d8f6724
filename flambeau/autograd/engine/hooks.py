"""Hooks of tensors and nodes.

What PyTorch promises about their order: the hooks of a tensor run first, in the order in which they were registered,
then ``retain_grad``'s, then the node's pre-hooks, then the node, then its post-hooks. A hook sees None where no
gradient arrived. A tensor's hooks belong to the node that made it when they were registered, so an in-place change
leaves them with the old value; what ``retain_grad`` keeps moves on to the new one.

A node keeps them in ``extra``: "tensor" (output number -> hooks), "retain" (output number -> weak reference to the
tensor), "pre" and "post". Those of a leaf lie with the tensor: its AccumulateGrad comes and goes with the graphs.
"""

from __future__ import annotations

import functools
import weakref
from _thread import allocate_lock
from collections.abc import Callable, Sequence
from typing import Any

from ...core.errors import error
from ...core.tensor import Tensor
from ..node import Node, RemovableHandle, accumulator
from .passes import running


# ---- registering ----------------------------------------------------------------------------------------------------
def register_tensor_hook(self: Tensor, hook: Callable[[Any], Any]) -> RemovableHandle:
    """``hook(grad)`` runs when the gradient of the tensor is known; a tensor that it returns is used instead.

    Returns a handle with ``remove()``. The hook gets None where no gradient arrives, and must not change its argument.

    >>> import flambeau as torch
    >>> x = torch.tensor([1., 2.], requires_grad=True)
    >>> handle = x.register_hook(lambda g: g * 10)
    >>> x.sum().backward(); x.grad
    tensor([10., 10.])
    """
    if not self._rg:
        raise error(RuntimeError, "cannot register a hook on a tensor that doesn't require gradient")
    fn = self._grad_fn
    if fn is None:
        if self._hooks is None:
            self._hooks = {}
        return RemovableHandle(self._hooks, hook)
    return RemovableHandle(fn._extra().setdefault("tensor", {}).setdefault(self._nr, {}), hook)


def register_post_accumulate_grad_hook(self: Tensor, hook: Callable[[Tensor], None]) -> RemovableHandle:
    """``hook(tensor)`` runs after the gradient of the leaf has been added to ``.grad``. Returns a handle.

    >>> import flambeau as torch
    >>> x = torch.tensor([1., 2.], requires_grad=True)
    >>> handle = x.register_post_accumulate_grad_hook(lambda t: print(t.grad))
    >>> x.sum().backward()
    tensor([1., 1.])
    """
    if not self._rg:
        raise error(RuntimeError, "cannot register a hook on a tensor that doesn't require gradient")
    if self._grad_fn is not None:
        raise error(RuntimeError, "post accumulate grad hooks cannot be registered on non-leaf tensors")
    if self._post_hooks is None:
        self._post_hooks = {}
    return RemovableHandle(self._post_hooks, hook)


def retain_grad(self: Tensor) -> None:
    """Let a tensor that is no leaf keep its gradient in ``.grad``. Does nothing for a leaf.

    >>> import flambeau as torch
    >>> x = torch.tensor([1., 2.], requires_grad=True)
    >>> y = x * 2
    >>> y.retain_grad()
    >>> (y * y).sum().backward(); y.grad
    tensor([4., 8.])
    """
    if not self._rg:
        raise error(RuntimeError, "can't retain_grad on Tensor that has requires_grad=False")
    if self._grad_fn is not None and self._retains is None:
        self._retains = True
        follow(self)


def follow(t: Tensor) -> None:
    """Let the node that is now the history of ``t`` keep its gradient; those before it no longer do."""
    t._grad_fn._extra().setdefault("retain", {})[t._nr] = weakref.ref(t)


# ---- running ------------------------------------------------------------------------------------------------------
def slots(node: Node, g: Any) -> list[Any]:
    """The gradients of a node's outputs as a list."""
    n = node.n_outputs
    return [g] if n == 1 else [None] * n if g is None else list(g)


def joined(node: Node, gs: list[Any]) -> Any:
    """The engine's form of a list of gradients."""
    return gs[0] if node.n_outputs == 1 else None if all([g is None for g in gs]) else gs


def run_tensor_hooks(node: Node, extra: dict[str, Any], g: Any) -> Any:
    """Hooks of the tensors that the node made, then what ``retain_grad`` keeps."""
    if "tensor" not in extra and "retain" not in extra:
        return g
    gs = slots(node, g)
    for nr, hooks in tuple(extra.get("tensor", {}).items()):
        gs[nr] = through(hooks, gs[nr])
    for nr, ref in tuple(extra.get("retain", {}).items()):
        t = ref()
        if t is not None and gs[nr] is not None and t._grad_fn is node and t._nr == nr:
            old = t._grad
            t._grad = contiguous_copy(gs[nr]) if old is None else old + gs[nr]
    return joined(node, gs)


def contiguous_copy(g: Tensor) -> Tensor:
    copy = g.clone()
    return copy if copy.__class__ is not Tensor or copy._a.flags.c_contiguous else copy.contiguous()


def through(hooks: dict[int, Any], g: Any) -> Any:
    """A gradient after all the hooks of its tensor."""
    for hook in tuple(hooks.values()):
        r = hook(g)
        if r is not None:
            check_one(g, r, hook)
            g = r
    return g


def run_prehooks(node: Node, extra: dict[str, Any], g: Any) -> Any:
    hooks = extra.get("pre")
    if not hooks:
        return g
    gs = tuple(slots(node, g))
    for hook in tuple(hooks.values()):
        r = hook(gs)
        if r is not None:
            check_all(gs, r, hook)
            gs = r
    return joined(node, list(gs))


def run_posthooks(node: Node, hooks: dict[int, Any], outs: tuple[Any, ...], g: Any) -> tuple[Any, ...]:
    """The gradients of the node's inputs after its hooks, which see the inputs that PyTorch's node of this name has."""
    given = tuple(slots(node, g))
    shown = node.shown_inputs()
    seen = tuple(outs) if shown is None else tuple([None if i is None else outs[i] for i in shown])
    for hook in tuple(hooks.values()):
        r = hook(seen, given)
        if r is not None:
            check_all(seen, r, hook)
            seen = r
    if shown is None:
        return seen
    found = list(outs)
    for i, x in zip(shown, seen):
        if i is not None:
            found[i] = x
    return tuple(found)


def run_leaf_posthooks(t: Tensor) -> None:
    for hook in tuple(t._post_hooks.values()):  # type: ignore[union-attr]
        r = hook(t)
        if r is not None:
            check_one(t, r, hook)
            raise error(RuntimeError, "Tensor post accumulate grad hooks should return None.")


# ---- what hooks may return ----------------------------------------------------------------------------------------
def name_of(hook: Any) -> str:
    return str(getattr(hook, "__name__", "<unknown>"))


def check_one(g: Any, r: Any, hook: Any) -> None:
    if g is None:
        raise error(RuntimeError, "can't replace a None gradient with a non-None value", hint=f"The hook is {name_of(hook)}.")
    if not isinstance(r, Tensor):
        raise error(TypeError, f"expected Variable, but hook returned '{type(r).__name__}'", hint="A hook returns a tensor, or None.")
    if r._a.dtype != g._a.dtype:
        raise error(RuntimeError, f"hook '{name_of(hook)}' has changed the type of value (was {g.type()} got {r.type()})")
    if r._a.shape != g._a.shape:
        raise error(
            RuntimeError,
            f"hook '{name_of(hook)}' has changed the size of value",
            hint=f"It was given {list(g._a.shape)} and returned {list(r._a.shape)}.",
        )


def check_all(gs: tuple[Any, ...], r: Any, hook: Any) -> None:
    if not isinstance(r, tuple):
        raise error(TypeError, f"expected tuple, but hook returned '{type(r).__name__}'", hint="A node's hook returns a tuple, or None.")
    if len(r) != len(gs):
        raise error(RuntimeError, f"hook '{name_of(hook)}' has returned an incorrect number of values (got {len(r)}, but expected {len(gs)})")
    for g, x in zip(gs, r):
        if x is not None:
            check_one(g, x, hook)


# ---- several tensors ------------------------------------------------------------------------------------------------
class MultiHandle(RemovableHandle):
    """One handle for several."""

    def __init__(self, handles: Sequence[RemovableHandle]) -> None:
        self.handles = tuple(handles)

    def remove(self) -> None:
        for handle in self.handles:
            handle.remove()

    def __getstate__(self) -> Any:
        return self.handles

    def __setstate__(self, state: Any) -> None:
        self.handles = state


def register_multi_grad_hook(tensors: Sequence[Tensor], fn: Callable[[Any], None], *, mode: str = "all") -> RemovableHandle:
    """A hook on several tensors.

    Args:
        tensors: all must require grad (with "any": those that don't are left out).
        fn: with "all": called with the list of their gradients when all that the pass will compute are known, None in
            place of the others. With "any": called with the first that is known.
        mode: "all" or "any".

    >>> import flambeau as torch
    >>> a, b = torch.ones(1, requires_grad=True), torch.ones(1, requires_grad=True)
    >>> handle = torch.autograd.graph.register_multi_grad_hook((a, b), lambda grads: print([g.item() for g in grads]))
    >>> (2 * a + 3 * b).backward()
    [2.0, 3.0]
    """
    if mode not in ("all", "any"):
        raise error(ValueError, f"Expects mode to be one of ('all', 'any') but got {mode}")
    lock = allocate_lock()
    if mode == "any":
        served: weakref.WeakSet[Any] = weakref.WeakSet()

        @functools.wraps(fn)
        def first(g: Any) -> None:
            p = running()
            with lock:
                if p in served:
                    return
                served.add(p)
            fn(g)

        return MultiHandle([t.register_hook(first) for t in tensors if t._rg])
    for t in tensors:
        if not t._rg:
            raise error(AssertionError, "Expected gradient function to be set", hint="Every tensor must require grad.")
    # Weakly, for the hooks lie with them: a leaf by itself, since its node comes and goes, other tensors by their node.
    places = [weakref.ref(t if t._grad_fn is None else t._grad_fn) for t in tensors]
    # for each pass: [how many gradients are still to come, those that came]
    collected: weakref.WeakKeyDictionary[Any, list[Any]] = weakref.WeakKeyDictionary()

    def collect(i: int, g: Any) -> None:
        p = running()
        with lock:
            state = collected.get(p)
            if state is None:
                state = collected[p] = [sum([is_reached(p, r()) for r in places]), [None] * len(places)]
            state[1][i] = g
            state[0] -= 1
            done = not state[0]
        if done:
            fn(state[1])

    return MultiHandle([t.register_hook(functools.partial(collect, i)) for i, t in enumerate(tensors)])


def is_reached(p: Any, place: Any) -> bool:
    """Whether a gradient arrives at a node, or at a leaf, in the pass ``p``."""
    node = accumulator(place) if isinstance(place, Tensor) else place
    return node is not None and p.reaches(node)


Tensor.register_hook = register_tensor_hook
Tensor.register_post_accumulate_grad_hook = register_post_accumulate_grad_hook
Tensor.retain_grad = retain_grad
Tensor.retains_grad = property(lambda self: self._retains is not None)
