"""Custom Functions under forward mode: after ``forward``, ``jvp`` gives the outputs' tangents from the arguments'."""

from __future__ import annotations

from typing import Any

from ...core.dtypes import FLOAT
from ...core.errors import error
from ...core.modes import Modes, reset_mode, set_mode
from ...core.tensor import Tensor
from ..forward_ad import Level, levels_of, primal, set_tangent, tangent
from ..primitive import zeros_for
from .node import BackwardCFunction


def push_tangents(node: BackwardCFunction, args: tuple[Any, ...], final: list[Any], m: Modes) -> None:
    """Hang tangents on the outputs of a call, one dual level after the other, outermost first."""
    given = node.saved_for_forward
    dirty = {id(t) for t in node.dirty_tensors or ()}
    skip = {id(t) for t in node.non_differentiable or ()}
    for level in levels_of(args):
        ts = tuple([input_tangent(a, level, node.materialize_grads) for a in args])
        if given is not None:
            node.saved_for_forward = tuple([primal(t, level) if isinstance(t, Tensor) else t for t in given])
        token = set_mode(m.replace(forward=level.number - 1))  # ctx may hold tensors that have tangents of this level
        try:
            result = node._forward_cls.jvp(node, *ts)
            found = result if isinstance(result, tuple) else (result,)
            check_count(found, final)
            for i, (o, t) in enumerate(zip(final, found)):
                differentiable = isinstance(o, Tensor) and o.dtype.category >= FLOAT and id(o) not in skip
                check_tangent(i, o, t, differentiable)
                if id(o) in dirty:
                    check_in_place(t, tangent(o, level))
                if t is None:
                    continue
                if id(o) not in dirty:
                    check_view(o, t, args, ts)
                set_tangent(o, level, primal(t, level))
        finally:
            reset_mode(token)
    node.saved_for_forward = given


def input_tangent(a: Any, level: Level, materialize: bool) -> Tensor | None:
    if not isinstance(a, Tensor):
        return None
    t = tangent(a, level)
    return zeros_for((a._a.shape, a._a.dtype)) if t is None and materialize and a.dtype.category >= FLOAT else t


def check_count(found: tuple[Any, ...], final: list[Any]) -> None:
    if len(found) != len(final):
        raise error(
            RuntimeError, f"Function's jvp returned an invalid number of forward gradients (expected {len(final)} but got {len(found)})",
            hint="It returns one for each output of forward, None for those that have none.",
        )  # fmt: skip


def check_tangent(i: int, o: Any, t: Any, differentiable: bool) -> None:
    if t is None:
        return
    if not isinstance(t, Tensor):
        raise error(RuntimeError, f"expected Variable or None (got {type(t).__name__}) for grad output {i}.")
    if not differentiable:
        raise error(
            RuntimeError,
            f"Function's jvp returned a gradient at position {i}, but  the corresponding forward output is not a differentiable "
            "Tensor.You should return None at that position instead.",
        )
    if t._a.shape != o._a.shape:
        raise error(
            RuntimeError,
            "Trying to set a forward gradient that has a different size than that of the original Tensor, this is not supported. "
            f"Tensor is of size {list(o._a.shape)} while the given forward gradient is of size {list(t._a.shape)}.",
        )


def check_in_place(t: Any, before: Tensor | None) -> None:
    """An argument that was changed in place has its tangent changed in place."""
    if before is not None and t is not before:
        raise error(
            RuntimeError,
            "An inplace custom Function is not modifying the forward mode gradients inplace. If the forward is modifying an input "
            "inplace, then the jvp function must modify the corresponding gradient inplace.",
        )


def check_view(o: Tensor, t: Tensor, args: tuple[Any, ...], ts: tuple[Any, ...]) -> None:
    """A view of an argument has a view of the argument's tangent for its tangent."""
    if o._base is None:
        return
    for a, x in zip(args, ts):
        if isinstance(a, Tensor) and root(a) is o._base and x is not None:
            if t._base is None:
                raise error(
                    RuntimeError, "A custom Function's forward is returning a view (or an input as-is) but the jvp is not returning a view.",
                    hint="Of an input returned as it is, the tangent is tangent.view_as(tangent).",
                )  # fmt: skip
            if root(t) is not root(x):
                raise error(RuntimeError, "A custom Function is returning a view but the jvp is not returning a view of the given grad input.")


def root(t: Tensor) -> Tensor:
    return t if t._base is None else t._base
