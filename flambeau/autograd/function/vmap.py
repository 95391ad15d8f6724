"""Custom Functions under vmap.

The Function's own ``vmap`` computes on values with a batch dimension. Or, with ``generate_vmap_rule``, its ``forward``,
``backward`` and ``jvp`` each run on batched tensors: that is ``Vmapped``, a Function of the values. It is what the tape
records; a backward pass that comes when the vmap has ended starts one of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from ...core.errors import error
from ...core.modes import Modes, full, reset_mode, set_mode
from ...core.pytree import _broadcast_to_and_flatten, tree_flatten, tree_unflatten
from ...core.tensor import Tensor
from ..transforms.batched import Level, at, batched, innermost, is_batched, value_of, without
from . import Function, _SingleLevelFunction
from .node import incorrect_number, user_backward

MORE = "For more details, please see https://pytorch.org/docs/main/notes/extending.func.html"


class VmapInfo(NamedTuple):
    """What ``Function.vmap`` is told."""

    batch_size: int
    randomness: str


def through_vmap(cls: Any, m: Modes, args: tuple[Any, ...]) -> Any:
    """``cls.apply`` where an argument is batched; NotImplemented if none is."""
    leaves, spec = tree_flatten(args)
    level = innermost(leaves)
    if level is None:
        return NotImplemented
    has_rule = cls.vmap is not Function.vmap
    if cls.generate_vmap_rule and has_rule:
        raise error(
            RuntimeError,
            f"You tried to vmap over {cls.__name__}, but it has both generate_vmap_rule=True and an overridden vmap staticmethod. Please "
            f"set generate_vmap_rule=False or delete the overridden vmap staticmethod to avoid ambiguity. {MORE}",
        )
    if not cls.generate_vmap_rule and not has_rule:
        raise error(
            RuntimeError,
            f"You tried to vmap over {cls.__name__}, but it does not have vmap support. Please override and implement the vmap "
            f"staticmethod or set generate_vmap_rule=True. {MORE}",
        )
    values = [value_of(x, level) for x in leaves]
    dims = [0 if is_batched(x, level) else None for x in leaves]
    unwrapped = tree_unflatten(values, spec)
    token = set_mode(without(m, level))
    try:
        if has_rule:
            outputs, out_dims = checked_result(cls.vmap(VmapInfo(level.size, level.randomness), tree_unflatten(dims, spec), *unwrapped))
        else:
            call = Call(cls, level, tree_unflatten(dims, spec))
            outputs, out_dims = Vmapped.apply(call, *unwrapped), call.out_dims
        flat, out_spec = tree_flatten(outputs)
        given = {id(v): x for v, x in zip(values, leaves) if isinstance(v, Tensor)}  # an argument that comes back is itself
        outs = [given[id(x)] if id(x) in given else wrapped(x, d, level) for x, d in zip(flat, out_dims)]
    finally:
        reset_mode(token)
    return tree_unflatten(outs, out_spec)


def wrapped(x: Any, dim: int | None, level: Level) -> Any:
    if dim is None or not isinstance(x, Tensor):
        return x
    return batched(x.movedim(dim, 0) if dim else x, level)


def checked_result(result: Any) -> tuple[Any, list[Any]]:
    """(outputs, the batch dimension of each leaf) of what a vmap staticmethod returned."""
    base = "Expected the vmap staticmethod to have two returns, an output and out_dims with pytree structure compatible with the output. "
    if not isinstance(result, tuple):
        raise error(RuntimeError, base + f"Got a {type(result)} instead")
    if len(result) != 2:
        raise error(RuntimeError, base + f"Got {len(result)} returns instead")
    outputs, out_dims = result
    spec = tree_flatten(outputs)[1]
    flat = _broadcast_to_and_flatten(out_dims, spec)
    if flat is None:
        raise error(
            RuntimeError,
            f"The autograd.Function's vmap staticmethod returned an incompatible (output, out_dims) tuple. Expected out_dims={out_dims} "
            f"to be compatible with the structure of `output`. out_dims has structure {tree_flatten(out_dims)[1]} but output has "
            f"structure {spec}. {MORE}",
        )
    return outputs, flat


# ---- generated rules --------------------------------------------------------------------------------------------------
class Call:
    """One call of a Function on a batch: which of its arguments, outputs and saved tensors have the batch dimension."""

    __slots__ = ("cls", "size", "randomness", "dims", "out_dims", "saved", "saved_for_forward", "shapes")

    def __init__(self, cls: Any, level: Level, dims: Any) -> None:
        self.cls, self.size, self.randomness, self.dims = cls, level.size, level.randomness, dims
        self.out_dims: list[Any] = []
        self.saved: tuple[bool, ...] = ()
        self.saved_for_forward: tuple[bool, ...] | None = None
        self.shapes: list[Any] = []  # of one example of each argument

    def inside(self, fn: Callable[[Level], Any]) -> Any:
        """``fn`` of a vmap of the call's size, around it."""
        m = full()
        level = Level((m.batch[-1].number if m.batch else 0) + 1, self.size, self.randomness)
        token = set_mode(m.replace(batch=(*m.batch, level)))
        try:
            return fn(level)
        finally:
            reset_mode(token)


class Held:
    """A batched tensor that ``forward`` left on ctx, unwrapped at ``depths``; it is wrapped anew when it is asked for."""

    __slots__ = ("value", "depths")

    def __init__(self, value: Tensor, depths: tuple[int, ...]) -> None:
        self.value, self.depths = value, depths


class MappedCtx:
    """The ctx of the Function's methods while they see one example: keeps everything on the ctx of the whole batch."""

    __slots__ = ("_ctx", "_call", "_level", "_saved", "_depth")

    def __init__(self, ctx: Any, call: Call, level: Level, saved: Any = None) -> None:
        keep = object.__setattr__
        keep(self, "_ctx", ctx)
        keep(self, "_call", call)
        keep(self, "_level", level)
        keep(self, "_saved", saved)
        keep(self, "_depth", depth(ctx) + 1)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._ctx, name)
        if value.__class__ is not Held or self._depth not in value.depths:
            return value
        t = batched(value.value, self._level)
        others = tuple([d for d in value.depths if d != self._depth])
        return Held(t, others) if others else t

    def __setattr__(self, name: str, value: Any) -> None:
        t, depths = (value.value, value.depths) if value.__class__ is Held else (value, ())
        setattr(self._ctx, name, Held(t._value, (*depths, self._depth)) if is_batched(t, self._level) else value)

    @property
    def needs_input_grad(self) -> tuple[bool, ...]:
        return self._ctx.needs_input_grad[1:]

    @property
    def saved_tensors(self) -> tuple[Any, ...]:
        return self._ctx.saved_tensors if self._saved is None else self._saved

    def save_for_backward(self, *tensors: Any) -> None:
        self._call.saved = tuple([is_batched(t, self._level) for t in tensors])
        self._ctx.save_for_backward(*self.values(tensors))

    def save_for_forward(self, *tensors: Any) -> None:
        self._call.saved_for_forward = tuple([is_batched(t, self._level) for t in tensors])
        self._ctx.save_for_forward(*self.values(tensors))

    def mark_dirty(self, *tensors: Any) -> None:
        self._ctx.mark_dirty(*self.values(tensors))

    def mark_non_differentiable(self, *tensors: Any) -> None:
        self._ctx.mark_non_differentiable(*self.values(tensors))

    def values(self, tensors: Any) -> list[Any]:
        return [value_of(t, self._level) for t in tensors]


def depth(ctx: Any) -> int:
    return ctx._depth if ctx.__class__ is MappedCtx else 0


def call_of(ctx: Any) -> Call:
    return getattr(ctx, f"_call_{depth(ctx)}")


def example(values: Any, flags: Any, level: Level) -> list[Any]:
    """One example of each value that has the batch dimension."""
    return [batched(v, level) if f and isinstance(v, Tensor) else v for v, f in zip(values, flags)]


def flat_dims(dims: Any) -> list[bool]:
    return [d is not None for d in tree_flatten(dims)[0]]


class Vmapped(Function):
    """A Function on a batch: its arguments are a ``Call`` and the Function's own, with batch dimensions."""

    generate_vmap_rule = True

    @staticmethod
    def forward(ctx: Any, call: Call, *args: Any) -> Any:
        cls = call.cls
        setattr(ctx, f"_call_{depth(ctx)}", call)
        leaves, spec = tree_flatten(args)

        def run(level: Level) -> Any:
            mine = MappedCtx(ctx, call, level)
            given = tree_unflatten(example(leaves, flat_dims(call.dims), level), spec)
            call.shapes = [a._a.shape if isinstance(a, Tensor) else None for a in given]
            if cls.setup_context is not _SingleLevelFunction.setup_context:
                result = cls.forward(*given)
                cls.setup_context(mine, given, result)
            else:
                result = cls.forward(mine, *given)
            outs, out_spec = tree_flatten(result)
            call.out_dims = [0 if is_batched(o, level) else None for o in outs]
            return tree_unflatten([value_of(o, level) for o in outs], out_spec)

        return call.inside(run)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        call = call_of(ctx)
        saved = ctx.saved_tensors

        def run(level: Level) -> Any:
            mine = MappedCtx(ctx, call, level, tuple(example(saved, call.saved, level)))
            fn = user_backward(call.cls)
            gs = example(grads, [d is not None for d in call.out_dims], level)
            result = fn(mine, gs) if call.cls.boxed_grads_call else fn(mine, *gs)
            result = result if isinstance(result, tuple) else (result,)
            if len(result) != len(call.shapes):
                result = incorrect_number(call.cls, result, len(call.shapes))
            return [whole(g, d, s, level) for g, d, s in zip(result, call.dims, call.shapes)]

        return (None, *call.inside(run))

    @staticmethod
    def jvp(ctx: Any, _: None, *tangents: Any) -> Any:
        call = call_of(ctx)
        saved = ctx.saved_tensors
        flags = call.saved if call.saved_for_forward is None else call.saved_for_forward

        def run(level: Level) -> Any:
            mine = MappedCtx(ctx, call, level, tuple(example(saved, flags, level)))
            ts = [batched(t, level) if isinstance(t, Tensor) and d == 0 else t for t, d in zip(tangents, call.dims)]
            result = call.cls.jvp(mine, *ts)
            found = result if isinstance(result, tuple) else (result,)
            found = tuple([t if d is None or not isinstance(t, Tensor) else at(t, level) for t, d in zip(found, call.out_dims)])
            return found if isinstance(result, tuple) else found[0]

        return call.inside(run)


def whole(g: Any, dim: Any, shape: Any, level: Level) -> Any:
    """The gradient of an argument from what ``backward`` returned for one example."""
    if not isinstance(g, Tensor) or shape is None:
        return g
    if g._a.shape != shape:
        g = g.sum_to_size(shape)
    if dim is not None:
        return at(g, level)
    return g._value.sum(0) if is_batched(g, level) else g
