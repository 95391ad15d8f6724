"""Where a reverse-mode transformation begins and ends on the tape.

There is one tape, and no levels: a transformation gives its function fresh points over the inputs, runs it with
recording on, and takes gradients with respect to those points. What it must see to:

- *Derivatives from outside.* A fresh point over a tensor that requires grad (because of an outer transformation or of
  the user's own ``requires_grad``) is an alias of it, so that its own derivatives flow on. Over any other tensor it is a
  leaf.
- *What comes out must not know of the fresh leaves.* A result whose history ends in nothing but leaves of
  transformations that are over is a constant, and handed out without it.
- *No more recording than needed.* The backward pass is recorded only if its result can matter to somebody outside: the
  graph of the outputs, or of their tangents in forward mode, reaches a leaf that is neither of this nor of a finished
  transformation.
- *Examples stay apart.* Inside vmap a fresh point is made of an input that has been expanded over the batch; the tape
  itself knows the physical tensors only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from ...core.modes import full, is_grad_enabled, reset_mode, set_mode, transforming
from ...core.tensor import InferenceCounter, Tensor, keep_layout, new_tensor, wrap
from ..engine import grad
from ..forward_ad import Tangents
from ..node import AccumulateGrad
from ..primitive import alias
from .batched import Batched, innermost, lift, lower


class Mark:
    """What fresh points carry: whose they are, and whether that is still open. (Not the scope itself, which holds them.)"""

    __slots__ = ("open",)

    def __init__(self) -> None:
        self.open = True


class Scope:
    """One call of a function that is being differentiated: a context while the function runs."""

    def __init__(self) -> None:
        self.mark = Mark()
        self.recorded = is_grad_enabled()  # whether who called wants derivatives
        self.levels = full().batch
        self.points: list[Tensor] = []  # physical
        self.tokens: Any = None

    def __enter__(self) -> Scope:
        self.tokens = set_mode(full().replace(grad=True, inference=False)), transforming.set(True)
        return self

    def __exit__(self, *exc: Any) -> None:
        self.mark.open = False
        reset_mode(self.tokens[0])
        transforming.reset(self.tokens[1])

    def point(self, t: Tensor) -> Tensor:
        """A fresh point over ``t``, to be differentiated by."""
        physical = lower(t, self.levels)
        if physical._rg and self.recorded:
            p = alias(physical)
        else:
            p = history_free(physical, physical._fw).requires_grad_()
        p.__dict__["_scope"] = self.mark
        self.points.append(p)
        return lift(p, self.levels)

    # ---- what the graph reaches ---------------------------------------------------------------------------------
    def reaches_outside(self, tensors: Iterable[Tensor]) -> bool:
        """Whether derivatives of these tensors, or of their tangents, can be wanted by anybody else."""
        return any([self.history_reaches_outside(t) for t in with_tangents(tensors) if t._rg])

    def history_reaches_outside(self, t: Tensor) -> bool:
        if t._grad_fn is None:
            return not self.owns(t)
        stack = [t._grad_fn]
        seen = set(stack)
        while stack:
            node = stack.pop()
            if node.__class__ is AccumulateGrad and not self.owns(node.variable):
                return True
            for n in node.next:
                if n is not None and n not in seen:
                    seen.add(n)
                    stack.append(n)
        return False

    def owns(self, leaf: Tensor) -> bool:
        """Whether a leaf was made for this transformation, or for one that is over."""
        of = leaf.__dict__.get("_scope")
        return of is not None and (of is self.mark or not of.open)

    def result(self, t: Tensor) -> Tensor:
        """``t`` for the world outside: without history if that ends in leaves of transformations only."""
        if t.__class__ is Batched:
            return t.like(self.result(t._value))
        fw = t._fw
        if fw is not None and any([x._rg for x in fw.by_level.values()]):
            fw = Tangents({level: self.result(x) for level, x in fw.by_level.items()})
            for level in fw.by_level:
                level.given.add(fw)
        if t._rg and not (self.recorded and self.history_reaches_outside(t)):
            return history_free(t, fw)
        if fw is not t._fw:
            t._fw = fw
        return t

    # ---- the backward pass --------------------------------------------------------------------------------------
    def pull(self, outputs: Sequence[Tensor], weights: Sequence[Tensor], outside: bool) -> list[Tensor]:
        """The gradient at every point, zeros where the outputs don't depend on it.

        ``outside``: whether the outputs' graph reaches outside. The weights may be batched by vmaps that weren't
        running when the outputs were computed: those batches stay on the gradients while they pass through the tape.
        """
        old = self.levels
        new = full().batch[len(old) :]
        if new and innermost(weights) not in new:
            new = ()
        outs = [lower(o, old) for o in outputs]
        ws = [lift(rotated(lower(w, old + new), len(old), len(new)), new) for w in weights]
        pairs = [(o, w) for o, w in zip(outs, ws) if o._rg]
        create = is_grad_enabled() and (outside or any([t._rg for t in with_tangents(ws)]))
        found: Sequence[Tensor | None] = [None] * len(self.points)
        if pairs and self.points:
            token = set_mode(full().replace(batch=new, inference=False))
            try:
                tops, gs = zip(*pairs)
                found = grad(tops, self.points, gs, retain_graph=True, create_graph=create, allow_unused=True)
            finally:
                reset_mode(token)
        self.recorded = is_grad_enabled()
        grads = []
        for p, g in zip(self.points, found):
            g = wrap(np.zeros(p._a.shape, p._a.dtype)) if g is None else self.result(g)
            grads.append(lift(rotated(lower(g, new), len(new), len(old)), old + new))
        return grads


def rotated(t: Tensor, first: int, second: int) -> Tensor:
    """``t`` with its ``first`` leading dimensions after the ``second`` that follow them."""
    if not first or not second:
        return t
    n = first + second
    return t.permute(*range(first, n), *range(first), *range(n, t._a.ndim))


def history_free(t: Tensor, tangents: Any) -> Tensor:
    """The same values without history, with these tangents."""
    r = new_tensor(Tensor)
    r._a, r._grad_fn, r._rg = t._viewable(), None, False
    if t._vc.__class__ is not InferenceCounter:  # an inference tensor's counter would forbid to record
        r._vc = t._counter()
    if tangents is not None:
        r._fw = tangents
    keep_layout(r)
    return r


def physical(t: Tensor) -> Tensor:
    """The tensor under the batches."""
    while t.__class__ is Batched:
        t = t._value
    return t


def with_tangents(tensors: Iterable[Tensor]) -> Iterator[Tensor]:
    """The physical tensors, and their tangents, and those of the tangents."""
    for t in tensors:
        t = physical(t)
        yield t
        if t._fw is not None:
            yield from with_tangents(t._fw.by_level.values())


def ones(t: Tensor) -> Tensor:
    """The gradient that a scalar output starts with."""
    return wrap(np.ones(t._a.shape, t._a.dtype))
