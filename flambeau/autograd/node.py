"""The nodes of the graph.

A node is made when an operator is recorded. ``next`` holds the nodes of its inputs (None where no gradient is
wanted) and ``nrs`` which output of each; ``saved`` what its rule needs; ``seq`` its place in the order of
recording; ``where`` the user's line. ``apply(g, wanted)`` returns one gradient for each entry of ``next``.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from itertools import count
from typing import Any

from ..core.errors import Where, describe, error, here
from ..core.tensor import Tensor, new_tensor

next_seq = count().__next__
LAST = 1 << 63  # AccumulateGrad runs as soon as it is ready, as PyTorch's does


class Freed:
    """What ``saved`` becomes once a backward pass has used it."""

    __slots__ = ()


FREED = Freed()


class Node:
    """One recorded operation; PyTorch's ``torch.autograd.graph.Node``."""

    __slots__ = ("next", "nrs", "saved", "seq", "where", "extra", "__weakref__")
    next: tuple[Any, ...]
    nrs: tuple[int, ...] | None
    saved: Any
    seq: int
    where: Where | None
    extra: dict[str, Any] | None  # hooks, metadata: what few nodes have

    n_outputs = 1

    def apply(self, g: Any, wanted: Any = None) -> tuple[Any, ...]:
        raise NotImplementedError(f"{type(self).__name__} has no derivative rule")

    def release(self) -> None:
        """Drop what was saved, after a backward pass that doesn't retain the graph."""
        self.saved = FREED

    # ---- PyTorch's view of it ---------------------------------------------------------------------------------
    def name(self) -> str:
        return type(self).__name__

    @property
    def next_functions(self) -> tuple[tuple[Any, int], ...]:
        nrs = self.nrs or (0,) * len(self.next)
        return tuple(zip(self.next, nrs))

    @property
    def metadata(self) -> dict[Any, Any]:
        return self._extra().setdefault("metadata", {})

    def _sequence_nr(self) -> int:
        return self.seq

    def _extra(self) -> dict[str, Any]:
        if self.extra is None:
            self.extra = {}
        return self.extra

    def register_hook(self, fn: Callable[..., Any]) -> Any:
        """``fn(grad_inputs, grad_outputs)`` runs after the node; what it returns replaces the gradients of the inputs."""
        return RemovableHandle(self._extra().setdefault("post", {}), fn)

    def register_prehook(self, fn: Callable[..., Any]) -> Any:
        """``fn(grad_outputs)`` runs before the node; what it returns replaces them."""
        return RemovableHandle(self._extra().setdefault("pre", {}), fn)

    def __lt__(self, other: Node) -> bool:  # ties in the engine's heap
        return id(self) < id(other)


class RemovableHandle:
    """Returned by every ``register_*_hook``: ``remove()``, or use it in a ``with`` block."""

    _ids = count()

    def __init__(self, hooks: dict[int, Any], fn: Any = None, *, extra_dict: Any = None, prepend: bool = False) -> None:
        self.id = next(RemovableHandle._ids)
        self.hooks_dict = hooks
        self.extra_dicts = [] if extra_dict is None else [extra_dict] if isinstance(extra_dict, dict) else list(extra_dict)
        if fn is not None:
            hooks[self.id] = fn
            if prepend and hasattr(hooks, "move_to_end"):
                hooks.move_to_end(self.id, last=False)

    def remove(self) -> None:
        self.hooks_dict.pop(self.id, None)
        for d in self.extra_dicts:
            d.pop(self.id, None)

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(self, *exc: Any) -> None:
        self.remove()


class AccumulateGrad(Node):
    """The end of the road: adds what arrives to ``variable.grad``. Holds the leaf; the leaf knows it weakly."""

    __slots__ = ("variable",)

    def __init__(self, variable: Tensor) -> None:
        self.variable = variable
        self.next, self.nrs, self.saved, self.extra, self.where = (), None, None, None, None
        self.seq = LAST

    def name(self) -> str:
        return "torch::autograd::AccumulateGrad"

    def release(self) -> None:
        pass


def accumulator(t: Tensor) -> AccumulateGrad:
    """The AccumulateGrad node of a leaf, made anew when no graph holds the last one."""
    ref = t._acc
    node = ref() if ref is not None else None
    if node is None:
        node = AccumulateGrad(t)
        t._acc = weakref.ref(node)
    return node


def edges(tensors: Any) -> tuple[tuple[Any, ...], tuple[int, ...] | None]:
    """(nodes, output numbers) that a new node over these inputs points to; non-tensors give None."""
    nodes = []
    nrs = None
    for i, t in enumerate(tensors):
        if isinstance(t, Tensor) and t._rg:
            fn = t._grad_fn
            nodes.append(fn if fn is not None else accumulator(t))
            if t._nr:
                nrs = nrs or [0] * len(tensors)
                nrs[i] = t._nr
        else:
            nodes.append(None)
    return tuple(nodes), None if nrs is None else tuple(nrs)


def operation(node: Node) -> str:
    """The operator's name in PyTorch's messages: ``Exp`` for ``ExpBackward0``."""
    return node.name().removesuffix("0").removesuffix("Backward")


# ---- saved tensors ------------------------------------------------------------------------------------------------
def freed_error(node: Node) -> BaseException:
    return error(
        RuntimeError,
        "Trying to backward through the graph a second time (or directly access saved tensors after they have already "
        "been freed). Saved intermediate values of the graph are freed when you call .backward() or autograd.grad(). "
        "Specify retain_graph=True if you need to backward through the graph a second time or if you need to access "
        "saved tensors after calling backward.",
        hint=f"The node is {node.name()}, recorded at {describe(node.where)}",
    )


def version_error(node: Node, t: Tensor, saved: int, vc: list[int]) -> BaseException:
    changed = last_change(vc)
    kind = {"float32": "FloatTensor", "float64": "DoubleTensor"}.get(t.dtype.name, f"{t.dtype.name.capitalize()}Tensor")
    return error(
        RuntimeError,
        "one of the variables needed for gradient computation has been modified by an inplace operation: "
        f"[torch.{kind} {list(t._a.shape)}]"
        + (f", which is output {t._nr} of {operation(t._grad_fn)}," if t._grad_fn is not None else "")
        + f" is at version {vc[0]}; expected version {saved} instead.",
        hint=f"It was saved for {node.name()} at {describe(node.where)}"
        + (f"\n  and changed in place at {describe(changed)}" if changed else "")
        + "\n  Use an operation that makes a new tensor there, or clone() the tensor before changing it.",
    )


def note_change(t: Tensor) -> None:
    """Count an in-place change, and remember where in the user's program it was made."""
    vc = t._vc
    if vc is None:
        vc = t._vc = [0]
    vc[0] += 1
    if len(vc) == 1:
        vc.append(None)
    vc[1] = here()


def last_change(vc: Any) -> Where | None:
    return vc[1] if len(vc) > 1 else None


class SavedOutput:
    """An output that its own node's rule needs: kept without the node, which would be a cycle."""

    __slots__ = ("a", "vc", "version", "nr", "fw")

    def __init__(self, t: Tensor) -> None:
        self.a, self.vc, self.nr = t._a, t._counter(), t._nr
        self.version = self.vc[0]
        self.fw = None  # its tangents, set by forward mode

    def unpack(self, node: Node, recording: bool) -> Tensor:
        t = new_tensor(Tensor)
        t._a, t._vc = self.a, self.vc
        if self.fw is not None:
            t._fw = self.fw
        if recording:
            t._grad_fn, t._rg = node, True
            if self.nr:
                t._nr = self.nr
        else:
            t._grad_fn, t._rg = None, False
        if self.vc[0] != self.version:
            t._grad_fn, t._nr = node, self.nr
            raise version_error(node, t, self.version, self.vc)
        return t
