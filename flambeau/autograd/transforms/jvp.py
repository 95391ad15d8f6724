"""The tangent of an operator's result, from the tangents of its operands.

For y = f(x) the tangent of y is ``J t``. How a primitive gives it (``@primitive(jvp=...)``):

===============  ===================================================================================================
``"linear"``     f is linear in all its tensors together: f of the tangents, with zeros for those that have none
``"each"``       f is linear in each of its tensors: the sum of f with one operand replaced by its tangent
a function       of what it names: ``x_t`` is the tangent of the operand x (None: it has none), ``x`` an operand or a
                 parameter, ``out`` the result; returns the tangent, or a tuple of them (None: zero)
nothing          views are linear; where there is a ``composite``, its tangents; else the transpose of the vjp
===============  ===================================================================================================

The transpose: u -> Jᵀu, which the vjp computes, is linear in u; the vjp of *that* map at t is ``J t``. So whatever has
a derivative for reverse mode has one for forward mode. (Jamie Townsend, "A new trick for calculating Jacobian vector
products", 2017.)

A pointwise operator's tangent is Σ ∂f/∂xᵢ tᵢ, with the derivatives that its expression gives.
"""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np

from ...core.dtypes import COMPLEX, FLOAT
from ...core.modes import enable_grad, full, mode, reset_mode, set_mode
from ...core.tensor import Tensor, new_tensor, storage_array, wrap
from ...kernels import expr as E
from ...kernels.diff import diff
from ..forward_ad import Level, Tangents, levels_of, primal, set_tangent, shadow, tangent
from ..node import HandedOver, SavedOutput
from ..pointwise import Pointwise, derived
from ..primitive import Primitive, _alias


def push(op: Any, args: tuple[Any, ...], params: dict[str, Any], out: Any) -> None:
    """Hang tangents on what came out of ``op(*args, **params)``."""
    levels = levels_of(args)
    if not levels:
        return
    outs = out if out.__class__ is tuple else (out,)
    if not any([o.dtype.category >= FLOAT for o in outs]):
        return
    share_with_saved(outs)
    for level in levels:
        ps = tuple([below(a, level) for a in args])
        ts = tuple([tangents_of(a, level) for a in args])
        for o, t in zip(outs, result_tangents(op, ps, ts, params, out, level)):
            if t is not None and o.dtype.category >= FLOAT:
                t = fitted(t, o)
                # an in-place change of the result must not show in the operands' tangents
                set_tangent(o, level, t if o._base is not None or not shares_memory(t, ts) else t.clone())


def shares_memory(t: Tensor, others: Any) -> bool:
    root = storage_array(t._a)
    return any([storage_array(x._a) is root for o in others for x in (o if o.__class__ is tuple else (o,)) if x is not None])


def below(a: Any, level: Level) -> Any:
    if isinstance(a, Tensor):
        return primal(a, level)
    return tuple([primal(t, level) if isinstance(t, Tensor) else t for t in a]) if a.__class__ in (tuple, list) else a


def tangents_of(a: Any, level: Level) -> Any:
    if isinstance(a, Tensor):
        return tangent(a, level)
    return tuple([tangent(t, level) if isinstance(t, Tensor) else None for t in a]) if a.__class__ in (tuple, list) else None


def share_with_saved(outs: tuple[Any, ...]) -> None:
    """Let a node that saved its output see the output's tangents, those of later levels too."""
    for o in outs:
        if o._fw is None:
            o._fw = Tangents()
        node = o._grad_fn
        for s in node.saved if node is not None and node.saved.__class__ is tuple else ():
            for saved in s if s.__class__ is tuple else (s,):
                if saved.__class__ is SavedOutput and is_of(saved, o):
                    saved.fw = o._fw


def is_of(saved: SavedOutput, o: Tensor) -> bool:
    if saved.a.__class__ is HandedOver:
        return saved.nr == o._nr and saved.shape_and_dtype() == (o._a.shape, o._a.dtype)
    return saved.a is o._a


def fitted(t: Tensor, o: Tensor) -> Tensor:
    """A tangent in the shape and dtype of its primal."""
    if t.dtype is not o.dtype:
        if t.dtype.category == COMPLEX and o.dtype.category < COMPLEX:
            t = t.real
        t = t.to(o.dtype)
    return t if t._a.shape == o._a.shape else t.expand(o._a.shape)


def result_tangents(op: Any, ps: Any, ts: Any, params: dict[str, Any], out: Any, level: Level) -> tuple[Any, ...]:
    """One tangent, or None, for each output of a call whose primals and tangents these are."""
    if isinstance(op, Pointwise):
        return (pointwise_tangent(op, ps, ts, primal(out, level)),) if op.differentiable else (None,)
    rule = op.jvp
    if not op.differentiable and rule is None:
        return (None,) * (len(out) if out.__class__ is tuple else 1)
    if callable(rule):
        result = by_rule(op, rule, ps, ts, params, out, level)
    elif rule == "linear" or rule is None and op.view is not None:
        result = linear(op, ps, ts, params)
    elif rule == "each":
        result = each(op, ps, ts, params)
    elif op.composite is not None:
        result = by_composite(op, ps, ts, params, level)
    else:
        result = transposed(op, ps, ts, params)
    return result if result.__class__ is tuple else (result,)


# ---- pointwise ----------------------------------------------------------------------------------------------------
def pointwise_tangent(op: Pointwise, ps: Any, ts: Any, out: Tensor) -> Tensor | None:
    total = flat = None
    values = dict(zip(op.args, ps))
    values["out"] = out
    for i, t in enumerate(ts):
        if t is None:
            continue
        for d, g in slopes(op, i, t, out._a.dtype.kind == "c"):
            if d is None:
                flat = t
                continue
            part = g if d.call is None else d.call(*[g if a == "g" else values[a] for a in d.args])
            total = part if total is None else total + part
    return total if total is not None or flat is None else zeros(flat)


def slopes(op: Pointwise, i: int, t: Tensor, is_complex: bool) -> list[tuple[Any, Tensor]]:
    """(operator of the derivative, what it multiplies); two where the expression also holds the conjugate."""
    arg = op.args[i]
    if is_complex and op.given.get(arg) is None:
        bar = E.conj(E.var(arg))
        if bar in E.walk(op.expr):
            split = E.substitute(op.expr, {bar: E.var("bar")})
            holomorphic, other = [E.substitute(diff(split, v), {E.var("bar"): bar}) for v in (arg, "bar")]
            g = E.var("g")
            return [(derived(op, g * holomorphic), t), (derived(op, g * other), t.conj())]
    return [(op.derivative(i, False), t)]


# ---- primitives ----------------------------------------------------------------------------------------------------
def zeros(t: Any) -> Tensor | None:
    return None if t is None else wrap(np.zeros(t._a.shape, t._a.dtype))


def operands(op: Primitive, ps: Any) -> tuple[Any, ...]:
    return ps if op.variadic else ps[: op.nt]


def differentiable(t: Any) -> bool:
    return t is not None and t.dtype.category >= FLOAT


def linear(op: Primitive, ps: Any, ts: Any, params: dict[str, Any]) -> Any:
    n = len(operands(op, ps))
    given: list[Any] = [t if t is not None else zeros(p) if differentiable(p) else p for p, t in zip(ps[:n], ts[:n])]
    if op.view is not None:
        given[0]._viewable()  # what is viewed must not be laid out anew behind the view's back
    return op(*given, *ps[n:], **params)


def each(op: Primitive, ps: Any, ts: Any, params: dict[str, Any]) -> Any:
    total = None
    for i in range(len(operands(op, ps))):
        if ts[i] is not None:
            part = op(*ps[:i], ts[i], *ps[i + 1 :], **params)
            total = part if total is None else total + part
    return total


def by_rule(op: Primitive, rule: Any, ps: Any, ts: Any, params: dict[str, Any], out: Any, level: Level) -> Any:
    asked = rule_arguments(rule)
    if op.variadic:
        values: dict[str, Any] = {op.tensors[0]: ps, op.tensors[0] + "_t": ts, **params}
    else:
        values = bound(op, ps, params) | {n + "_t": t for n, t in zip(op.tensors, ts)}
    if "out" in asked:
        values["out"] = tuple([primal(o, level) for o in out]) if out.__class__ is tuple else primal(out, level)
    return rule(*[values[n] for n in asked])


def bound(op: Primitive, args: Any, params: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a call by name, with the kernel's defaults."""
    values = dict(zip((*op.tensors, *op.params), args)) | params
    if len(values) < op.nt + len(op.params):
        for n, p in inspect.signature(op.kernel).parameters.items():
            values.setdefault(n, p.default)
    return values


def rule_arguments(rule: Any) -> tuple[str, ...]:
    found = _asked.get(rule)
    if found is None:
        found = _asked[rule] = tuple(inspect.signature(rule).parameters)
    return found


_asked: dict[Any, tuple[str, ...]] = {}


def by_composite(op: Primitive, ps: Any, ts: Any, params: dict[str, Any], level: Level) -> Any:
    """Tangents of the operator written out in public operators."""
    n = len(operands(op, ps))
    duals = []
    for p, t in zip(ps[:n], ts[:n]):
        if t is not None:
            fw = p._fw
            p = shadow(p)
            for lv, x in fw.by_level.items() if fw is not None else ():
                set_tangent(p, lv, x)
            set_tangent(p, level, t)
        duals.append(p)
    m = full()
    token = set_mode(m.replace(forward=max(m.forward, level.number)))
    try:
        outs = op.composite(*duals, *ps[n:], **params)
    finally:
        reset_mode(token)
    return tuple([tangent(o, level) for o in outs]) if outs.__class__ is tuple else tangent(outs, level)


def transposed(op: Primitive, ps: Any, ts: Any, params: dict[str, Any]) -> Any:
    """J t as the derivative of u -> Jᵀu."""
    from ..engine import grad

    m = mode()
    recording = m is True or m is not False and m.grad
    history = recording and any([isinstance(x, Tensor) and x._rg for x in (*ps, *ts)])
    n = len(operands(op, ps))
    with enable_grad():
        xs = [p if t is None else point(p, history) for p, t in zip(ps[:n], ts[:n])]
        ys = op(*xs, *ps[n:], **params)
        several = ys.__class__ is tuple
        ys = ys if several else (ys,)
        us = [leaf(np.zeros_like(y._a)) if y._rg else None for y in ys]
        moved = [(x, t) for x, t in zip(xs, ts) if t is not None]
        pairs = [(y, u) for y, u in zip(ys, us) if u is not None]
        if not pairs:
            return (None,) * len(ys)
        gs = grad([y for y, _ in pairs], [x for x, _ in moved], [u for _, u in pairs], create_graph=True, allow_unused=True)
        roots = [(g, fitted(t, g)) for g, (_, t) in zip(gs, moved) if g is not None and g._rg]
        if not roots:
            return (None,) * len(ys)
        wanted = [u for u in us if u is not None]
        found = iter(grad([g for g, _ in roots], wanted, [t for _, t in roots], create_graph=history, allow_unused=True))
    return tuple([None if u is None else next(found) for u in us])


class Temporary:
    """The mark of leaves that only a tangent's computation knows: to ``Scope.owns`` they are a finished transformation's."""

    open = False


def leaf(a: np.ndarray) -> Tensor:
    t = new_tensor(Tensor)
    t._a, t._grad_fn, t._rg = a, None, True
    t.__dict__["_scope"] = Temporary
    return t


def point(p: Tensor, history: bool) -> Tensor:
    """``p`` as a point of the graph that a gradient can be asked for at; with its history if that will be needed."""
    if history and p._rg:
        return _alias(p)
    x = leaf(p._a)
    x._vc = p._counter()
    x._fw = p._fw
    return x
