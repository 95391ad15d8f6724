"""The nodes of the graph.

A node is made when an operator is recorded. ``next`` holds the nodes of its inputs (None where no gradient is
wanted) and ``nrs`` which output of each; ``saved`` what its rule needs; ``seq`` its place in the order of
recording; ``where`` the user's line. ``apply(g, wanted)`` returns one gradient for each entry of ``next``.
"""

from __future__ import annotations

import weakref
from _thread import RLock
from collections.abc import Callable
from itertools import count
from typing import Any

from ..core.dtypes import SCALAR_NAMES
from ..core.errors import Where, describe, error, here
from ..core.modes import no_grad
from ..core.tensor import InferenceCounter, Tensor, new_tensor
from .saved.names import SavedAttributes

next_seq = count().__next__
LAST = (1 << 64) - 1  # AccumulateGrad runs as soon as it is ready, as PyTorch's does


class Freed:
    """What ``saved`` becomes once a backward pass has used it."""

    __slots__ = ()


FREED = Freed()


class Node(SavedAttributes):  # type: ignore[valid-type,misc]
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
    def __init__(self) -> None:
        if type(self) is Node:
            raise TypeError(
                "Can't instantiate abstract class Node with abstract methods _input_metadata, _register_hook_dict, "
                "_sequence_nr, metadata, name, next_functions, register_hook, register_prehook"
            )
        raise TypeError(f"cannot create '{type(self).__name__}' instances")

    def name(self) -> str:
        """The operator's name: ``MulBackward0``."""
        name = type(self).__name__
        return "torch::autograd::" + name if name in ("CopyBackwards", "CopySlices") else name

    def shown_inputs(self) -> tuple[int | None, ...] | None:
        """Which entries of ``next`` PyTorch's node of this name has too; None: all of them."""
        from .saved.values import shown_inputs

        return shown_inputs(self)

    @property
    def next_functions(self) -> tuple[tuple[Any, int], ...]:
        """(node, number of its output) for each input that could have a gradient; (None, 0) where none is wanted."""
        both = tuple(zip(self.next, self.nrs or (0,) * len(self.next)))
        shown = self.shown_inputs()
        return both if shown is None else tuple([both[i] if i is not None else (None, 0) for i in shown])

    @property
    def metadata(self) -> dict[Any, Any]:
        """A dict for whoever wants to note something about the node."""
        return self._extra().setdefault("metadata", {})

    @property
    def _input_metadata(self) -> tuple[Any, ...]:
        """Of each output of the operator, which is an input of the backward pass: shape, dtype, device."""
        from .saved.values import input_metadata

        return input_metadata(self)

    requires_grad = property(lambda self: True, doc="Always True.")

    def _sequence_nr(self) -> int:
        return self.seq

    def _set_sequence_nr(self, n: int) -> None:
        self.seq = n

    def __call__(self, *grads: Any) -> Any:
        """The gradients of the inputs for these gradients of the outputs; hooks don't run, nothing is freed."""
        from .saved.values import call

        return call(self, grads)

    def __dir__(self) -> list[str]:
        from .saved.values import shown_names

        return [n for n in object.__dir__(self) if not n.startswith(("_saved_", "_raw_saved_"))] + shown_names(self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} object at {id(self):#x}>"

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError(f"cannot pickle '{type(self).__name__}' object")

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
        with _making:  # two threads that use a leaf for the first time must get the same one
            ref = t._acc
            node = ref() if ref is not None else None
            if node is None:
                node = AccumulateGrad(t)
                t._acc = weakref.ref(node)
    return node


_making = RLock()


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
    name, mark, number = node.name().rpartition("Backward")
    return name + number.removesuffix("0") if mark and (not number or number.isdigit()) else node.name()


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
    fn = t._grad_fn
    made_by = "" if fn is None else "AsStrided" if t._base is not None else operation(fn)  # a view's history is made anew
    kind = SCALAR_NAMES[t.dtype]
    kind += "Type" if kind in ("Bool", "BFloat16") or "Complex" in kind else "Tensor"
    return error(
        RuntimeError,
        "one of the variables needed for gradient computation has been modified by an inplace operation: "
        f"[torch.{kind} {list(t._a.shape)}]"
        + (f", which is output {t._nr or 0} of {made_by}," if made_by else "")
        + f" is at version {vc[0]}; expected version {saved} instead.",
        hint=f"It was saved for {node.name()} at {describe(node.where)}"
        + (
            f"\n  and changed in place at {describe(changed)}"
            "\n  Use an operation that makes a new tensor there, or clone() the tensor before changing it."
            if changed
            else "\n  and changed in place since, by an optimizer's step() perhaps: call that after the last backward() through the graph."
        ),
    )


def note_change(t: Tensor) -> None:
    """Count an in-place change, and remember where in the user's program it was made."""
    vc = t._vc
    if vc is None:
        vc = t._vc = [0]
    elif vc.__class__ is InferenceCounter:
        from .forbidden import check_inference_write

        check_inference_write(t)
        return
    vc[0] += 1
    if len(vc) == 1:
        vc.append(None)
    vc[1] = here()
    base = t if t._base is None else t._base
    if base._rg and base._views:
        from .forbidden import forbid_views

        forbid_views(base)


def last_change(vc: Any) -> Where | None:
    return vc[1] if len(vc) > 1 else None


class SavedOutput:
    """An output that its own node's rule needs: kept without the node, which would be a cycle."""

    __slots__ = ("a", "vc", "version", "nr", "fw")
    a: Any  # the array, or HandedOver

    def __init__(self, t: Tensor) -> None:
        self.a, self.vc, self.nr = t._a, t._counter(), t._nr
        self.version = self.vc[0]
        self.fw = None  # its tangents, set by forward mode

    def unpack(self, node: Node, recording: bool) -> Tensor:
        if self.a.__class__ is HandedOver:
            return carrying(self.a.unpack(node, recording, self.nr), self.fw)
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

    def kept(self) -> Any:
        """The values as a tensor without history, or what a pack hook made of them."""
        if self.a.__class__ is HandedOver:
            return self.a.value
        t = new_tensor(Tensor)
        t._a, t._vc, t._grad_fn, t._rg = self.a, self.vc, None, False
        return t

    def hook(self) -> Any:
        """The unpack hook, or None."""
        return self.a.hook if self.a.__class__ is HandedOver else None

    def shape_and_dtype(self) -> tuple[Any, Any]:
        return (self.a.shape, self.a.dtype)

    def hand_over(self, value: Any, unpack_hook: Any) -> None:
        """From now on keep ``value``, of which ``unpack_hook`` makes the output again."""
        self.a = HandedOver(value, unpack_hook, *self.shape_and_dtype())


def carrying(t: Tensor, tangents: Any) -> Tensor:
    """What an unpack hook returned, with the tangents that the packed tensor has."""
    if tangents is None or t._fw is tangents:
        return t
    r = t._detached()
    r._grad_fn, r._rg, r._fw = t._grad_fn if t._grad_fn is not None or not t._rg else accumulator(t), t._rg, tangents
    if t._nr:
        r._nr = t._nr
    return r


def unpacked_by(hook: Callable[[Any], Any], value: Any) -> Tensor:
    """What an unpack hook makes of a packed value, with recording off."""
    with no_grad():
        t = hook(value)
    if not isinstance(t, Tensor):
        raise error(TypeError, f"Output of saved tensor unpack_hook expected to be a Tensor but got result of type {type(t).__name__}")
    return t


class HandedOver:
    """An output in the hands of ``saved_tensors_hooks``, in place of its array."""

    __slots__ = ("value", "hook", "shape", "dtype")

    def __init__(self, value: Any, hook: Any, shape: Any, dtype: Any) -> None:
        self.value, self.hook, self.shape, self.dtype = value, hook, shape, dtype

    def unpack(self, node: Node, recording: bool, nr: int) -> Tensor:
        t = unpacked_by(self.hook, self.value)
        if recording:
            t = t._detached()
            t._grad_fn, t._rg = node, True
            if nr:
                t._nr = nr
        return t
