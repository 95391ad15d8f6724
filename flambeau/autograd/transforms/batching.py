"""vmap: what operators do with batched tensors (``batched.py``).

An operator given such tensors (``interpret.py``) takes the innermost vmap's off, applies its batching rule, which calls
it, or another operator, on the values, and wraps what comes out. The tape and the tangents of forward mode are below, on
the values: they know of no batch.

A primitive's rule (``@primitive(batch=...)``):

===============  ===================================================================================================
a dict           the operator itself, on values that are all expanded over the batch, its parameters changed so:
                 ``"dim"``: dimension numbers, moved by one; ``"size"``: sizes, with the batch's before them;
                 ``"key"``: a basic index, with ``:`` before it. ``{}``: the kernel takes leading dimensions as they come
a function       of the call's ``Batch``, ``b``, and of what it names: an operand (its value; ``b.has("x")`` says
                 whether it is batched, ``b.full(x)`` expands it) or a parameter; returns value(s), the batch first
nothing          the ``composite``, where there is one; else a loop over the examples, with one warning that names it
===============  ===================================================================================================

A pointwise operator's rule is that its operands' dimensions are lined up.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

from ...core.errors import error, user_level
from ...core.modes import Modes, full, mode, reset_mode, set_mode
from ...core.tensor import Tensor
from ..pointwise import Pointwise
from ..primitive import PRIMITIVES, Primitive
from .batched import Level, at, batched, innermost, is_batched, refresh, value_of, without


# ---- operators on batched tensors ---------------------------------------------------------------------------------------
class Batch:
    """What a batching rule is told: ``size`` of the batch, and which operands have it."""

    __slots__ = ("size", "flags", "randomness")

    def __init__(self, level: Level, flags: dict[str, Any]) -> None:
        self.size, self.flags, self.randomness = level.size, flags, level.randomness

    def has(self, name: str) -> bool:
        """Whether the operand of this name is batched."""
        return self.flags[name]

    def full(self, t: Tensor, has: bool = False) -> Tensor:
        """An operand without the batch, expanded over it (as it is if it ``has`` it)."""
        return t if has else t.expand(self.size, *t._a.shape)

    def aligned(self, **operands: Tensor) -> list[Tensor]:
        """Operands that broadcast, lined up: the batch first (of size 1 where there is none), ones, their own dimensions."""
        own = [t._a.shape[1:] if self.flags[name] else t._a.shape for name, t in operands.items()]
        n = max(map(len, own))
        return [
            t.reshape(self.size if self.flags[name] else 1, *(1,) * (n - len(shape)), *shape) for (name, t), shape in zip(operands.items(), own)
        ]


def through_rule(op: Any, level: Level, m: Modes, args: tuple[Any, ...], params: dict[str, Any]) -> Any:
    """The call on the values of ``level``, by the operator's batching rule."""
    rule = None if isinstance(op, Pointwise) else op.batch
    if rule is not None and op.view is not None:  # what is viewed must not be laid out anew behind the view's back
        value_of(args[0], level)._viewable()
    if rule is None and not isinstance(op, Pointwise) and op.composite is not None:
        return op.composite(*args, **params)
    token = set_mode(without(m, level))
    try:
        if isinstance(op, Pointwise):
            return batched(pointwise_rule(op, level, args), level)
        if rule is None:
            out = loop(op, op.name, level, args, params)
        elif rule.__class__ is dict:
            out = by_table(op, rule, level, args, params)
        else:
            out = by_function(op, rule, level, args, params)
    finally:
        reset_mode(token)
    return wrapped(out, level)


def wrapped(out: Any, level: Level) -> Any:
    if isinstance(out, (tuple, list)):
        items = [wrapped(o, level) for o in out]
        return type(out)._make(items) if hasattr(out, "_make") else type(out)(items)
    return batched(out, level) if isinstance(out, Tensor) else out


REAL = (int, float)  # Python numbers that change no floating dtype


def pointwise_rule(op: Pointwise, level: Level, args: tuple[Any, ...]) -> Tensor:
    """Line the operands up: the batch first, then ones, then each one's own dimensions."""
    ndim, first, alike, numbers = 0, None, True, False
    for a in args:
        if isinstance(a, Tensor):
            array = a._a
            if array.ndim > ndim:
                ndim = array.ndim
            if first is None:
                first = array.dtype
            elif array.dtype is not first:
                alike = False
        elif a.__class__ in REAL:
            numbers = True
        else:
            alike = False
    values = []
    for a in args:
        v = value_of(a, level)
        if v is not a and a._a.ndim < ndim:
            v = v.reshape(level.size, *(1,) * (ndim - a._a.ndim), *a._a.shape)
        values.append(v)
    if not alike or numbers and first.kind != "f":  # type: ignore[union-attr]
        # A tensor without dimensions weighs less in promotion; with the batch it has one.
        wanted = op.compute_dtype(args)
        if op.compute_dtype(tuple(values)) is not wanted:
            values = [v.to(wanted) if isinstance(v, Tensor) and n not in op.bools else v for v, n in zip(values, op.args)]
    return op.call(*values)


def by_table(op: Primitive, table: dict[str, str], level: Level, args: tuple[Any, ...], params: dict[str, Any]) -> Any:
    n = len(args) if op.variadic else op.nt
    values = [None if a is None else at(a, level) for a in args[:n]]
    rest = [shifted(table.get(name), v, level) for name, v in zip(op.params, args[n:])]
    return op(*values, *rest, **{k: shifted(table.get(k), v, level) for k, v in params.items()})


def shifted(kind: str | None, value: Any, level: Level) -> Any:
    """A parameter of one example, as the batch needs it."""
    if kind is None or value is None:
        return value
    if kind == "dim":
        return tuple([d + 1 if d >= 0 else d for d in value]) if isinstance(value, (tuple, list)) else value + 1 if value >= 0 else value
    return (level.size, *value) if kind == "size" else (slice(None), *value)


def by_function(op: Primitive, rule: Any, level: Level, args: tuple[Any, ...], params: dict[str, Any]) -> Any:
    from .jvp import bound, rule_arguments

    names: dict[str, Any]
    if op.variadic:
        names = {op.tensors[0]: args, **params}
    else:
        names = bound(op, args, params)
    flags = {k: tuple([is_batched(t, level) for t in v]) if v.__class__ is tuple else is_batched(v, level) for k, v in names.items()}
    values = {k: tuple([value_of(t, level) for t in v]) if v.__class__ is tuple else value_of(v, level) for k, v in names.items()}
    return rule(Batch(level, flags), *[values[k] for k in rule_arguments(rule)[1:]])


_warned: set[str] = set()


def loop(op: Callable[..., Any], name: str, level: Level, args: tuple[Any, ...], params: dict[str, Any]) -> Any:
    """The call on one example after the other, with one warning."""
    if name not in _warned:
        _warned.add(name)
        warnings.warn(
            f"There is a performance drop because we have not yet implemented the batching rule for {name}: vmap runs it on one "
            "example after the other.",
            UserWarning,
            stacklevel=user_level(),
        )
    if level.size == 0:
        raise error(RuntimeError, f"vmap: {name} has no batching rule, and cannot run on a batch of size 0")

    def example(a: Any, i: int) -> Any:
        if is_batched(a, level):
            return a._value.select(0, i)
        return type(a)([example(x, i) for x in a]) if a.__class__ in (tuple, list) else a

    outs = [op(*[example(a, i) for a in args], **{k: example(v, i) for k, v in params.items()}) for i in range(level.size)]
    return stacked(outs)


def stacked(outs: list[Any]) -> Any:
    first = outs[0]
    if isinstance(first, (tuple, list)):
        items = [stacked([o[i] for o in outs]) for i in range(len(first))]
        return type(first)._make(items) if hasattr(first, "_make") else type(first)(items)
    if not isinstance(first, Tensor):
        return first
    if any([o._a.shape != first._a.shape for o in outs]):
        raise error(
            RuntimeError, "vmap: We do not support batching operators that can output dynamic shape. Attempted to batch an operator "
            "whose results have different shapes for different examples.",
        )
    return PRIMITIVES["stack"](*outs, dim=0)


# ---- functions that are no operators ---------------------------------------------------------------------------------------
def on_batches(fn: Callable[..., Any], on_batch: Callable[..., Any]) -> Callable[..., Any]:
    """``fn`` which, given batched tensors, is ``on_batch(itself, level, args, kwargs)`` in the modes outside that vmap."""

    @functools.wraps(fn)
    def on_any(*args: Any, **kwargs: Any) -> Any:
        m = mode()
        if m.__class__ is Modes and m.batch:
            level = innermost((*args, *kwargs.values()))
            if level is not None:
                token = set_mode(without(m, level))
                try:
                    return on_batch(on_any, level, args, kwargs)
                finally:
                    reset_mode(token)
        return fn(*args, **kwargs)

    return on_any


def loops(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator for a function that computes on arrays itself: on batched tensors it runs example by example."""
    return on_batches(fn, lambda on_any, level, args, kwargs: wrapped(loop(on_any, fn.__name__, level, args, kwargs), level))


def leading(fn: Callable[..., Any], align: bool = True) -> Callable[..., Any]:
    """Decorator for a function that takes leading dimensions as they come: on batched tensors it runs once, on the values.

    ``align``: its operands' leading dimensions broadcast; they are lined up first.
    """

    def on_batch(on_any: Callable[..., Any], level: Level, args: Any, kwargs: Any) -> Any:
        rank = max([t._a.ndim for t in (*args, *kwargs.values()) if isinstance(t, Tensor)]) if align else 0
        return led_out(on_any(*[led(a, level, rank) for a in args], **{k: led(v, level, rank) for k, v in kwargs.items()}), level)

    return on_batches(fn, on_batch)


def led(a: Any, level: Level, rank: int) -> Any:
    if not isinstance(a, Tensor):
        return a
    v = at(a, level)
    return v if a._a.ndim >= rank else v.reshape(level.size, *(1,) * (rank - a._a.ndim), *a._a.shape)


def led_out(out: Any, level: Level) -> Any:
    if isinstance(out, (tuple, list)):
        items = [led_out(o, level) for o in out]
        return type(out)(items) if type(out) is not tuple else tuple(items)
    has = isinstance(out, Tensor) and out._a.ndim and out._a.shape[0] == level.size  # an empty placeholder has no batch
    return batched(out, level) if has else out


def folding(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator for a function all of whose tensors are (N, ...): inside vmap the examples go into N."""

    def on_batch(on_any: Callable[..., Any], level: Level, args: Any, kwargs: Any) -> Any:
        fold = lambda a: at(a, level).flatten(0, 1) if isinstance(a, Tensor) else a  # noqa: E731
        out = on_any(*[fold(a) for a in args], **{k: fold(v) for k, v in kwargs.items()})
        return batched(out.reshape(level.size, -1, *out._a.shape[1:]), level)

    return on_batches(fn, on_batch)


# ---- in place --------------------------------------------------------------------------------------------------------------
def too_small(name: str = "inplace arithmetic") -> BaseException:
    """The refusal to write a value for each example where there is place for one."""
    return error(
        RuntimeError,
        f"vmap: {name}(self, *extra_args) is not possible because there exists a Tensor `other` in extra_args that has "
        "more elements than `self`. This happened due to `other` being vmapped over but `self` not being vmapped over in a vmap. Please "
        f"try to use out-of-place operators instead of {name}. If said operator is being called inside the PyTorch framework, "
        "please file a bug report instead.",
        hint="The tensor that is changed would need a value for each example.",
    )


def write(t: Tensor, value: Tensor, name: str = "inplace arithmetic") -> Tensor:
    """Write ``value`` into ``t``, where one of them is batched; ``name``: of what does."""
    from ..inplace import become, check_history

    level = innermost((t, value))
    assert level is not None
    if not is_batched(t, level):
        raise too_small(name)
    m = full()
    token = set_mode(without(m, level))
    try:
        check_history(t._value)
        v = at(value, level)
        if v._a.ndim < t._value._a.ndim:
            v = v.reshape(level.size, *(1,) * (t._value._a.ndim - v._a.ndim), *v._a.shape[1:])
        become(t._value, v if v._a.shape == t._value._a.shape else v.expand(t._value._a.shape))
    finally:
        reset_mode(token)
    refresh(t)
    return t
