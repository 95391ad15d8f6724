"""The backward pass.

One loop, never recursive: count how often each node will be reached, then run nodes as they become ready, the most
recently recorded first (PyTorch's order, so that sums of gradients come out in the same order). What a node saved is
freed as soon as it has run.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import Any

import numpy as np

from ...core.errors import describe
from ...core.modes import Modes, mode, reset_mode, set_mode, with_grad
from ...core.tensor import Tensor, new_tensor
from ...kernels.ufunc import LARGE
from ..holders import IN_BUFFER, owns_memory, references
from ..node import AccumulateGrad, Node
from . import hooks, leaves
from .leaves import accumulate_grad, add, add_many
from .passes import Pass, on_another_stack, reset_pass, running, set_pass, stack_is_deep

ndarray = np.ndarray
NOTE = "in the backward pass of "


class Capture:
    """Where a gradient is asked for: at output ``nr`` of a node."""

    __slots__ = ("nr", "grad")

    def __init__(self, nr: int) -> None:
        self.nr = nr
        self.grad: Any = None


Root = tuple[Node, int, Tensor]


def run(
    roots: list[Root],
    keep: bool,
    create: bool,
    captures: dict[Node, list[Capture]] | None = None,
    accumulate: bool = True,
) -> None:
    """Push gradients from ``roots`` (node, output number, gradient) through the graph.

    ``captures`` None means: into every leaf. Otherwise only nodes on a path to a captured one run; an AccumulateGrad
    among them accumulates only if ``accumulate``. A pass inside a pass moves to a thread of its own before Python's
    stack is full, so that they can be nested without end.
    """
    if running() is not None and stack_is_deep():
        on_another_stack(run, roots, keep, create, captures, accumulate)
        return
    wanted = None
    if captures is not None:
        wanted = needed_nodes([r[0] for r in roots], captures)
        roots = [r for r in roots if r[0] in wanted[0]]
    first = dict.fromkeys([r[0] for r in roots])
    waits = count_waits(first, wanted)
    m = mode()
    public = create or m.__class__ is Modes and m.transformed  # sums must be seen by the tape, tangents or batches
    check: Any = None
    report: Any = None
    if m.__class__ is Modes and m.anomaly is not None:
        from .. import anomaly_mode

        check, report = anomaly_mode.checked, anomaly_mode.report
    buffers: dict[Node, Any] = {}
    owned: set[Node] = set()  # nodes whose buffer is a sum that we made, free to be added to
    node: Any
    g: Any
    outs: Any
    for node, nr, g in roots:
        feed(buffers, owned, node, nr, g, public)
    ready: list[tuple[int, Node]] = []
    for node in first:
        if not waits.get(node):
            heappush(ready, (-node.seq, node))
    this = Pass(captures is None, waits, first)
    token, outer = set_mode(with_grad(create)), set_pass(this)
    node = None
    try:
        node = heappop(ready)[1] if ready else None
        while node is not None:
            g = buffers.pop(node, None)
            if owned:
                owned.discard(node)
            extra = node.extra
            if captures is not None and node in captures:
                runs = node in wanted[1] or accumulate and node.__class__ is AccumulateGrad  # type: ignore[index]
                g = capture(node, g, captures[node], runs)
                if not runs:
                    node = heappop(ready)[1] if ready else None
                    continue
            if node.__class__ is AccumulateGrad:
                leaf = node.variable
                if leaf._hooks is not None:
                    g = leaves.run_hooks(leaf, leaves.arrived(leaf, g))
                if extra is not None:
                    g = hooks.run_prehooks(node, extra, g)
                if g is not None:
                    accumulate_grad(node, g, public)
                if leaf._post_hooks:
                    hooks.run_leaf_posthooks(leaf)
                if extra is not None and "post" in extra:
                    hooks.run_posthooks(node, extra["post"], (), g)
                node = heappop(ready)[1] if ready else None
                continue
            if extra is not None:
                g = hooks.run_prehooks(node, extra, hooks.run_tensor_hooks(node, extra, g))
            if g is None and not node_takes_none(node):
                outs = (None,) * len(node.next)
            elif check is None:
                outs = node.apply(g, None if wanted is None else wanted[0])
            else:
                outs = check(node, g, None if wanted is None else wanted[0])
            if extra is not None and "post" in extra:
                outs = hooks.run_posthooks(node, extra["post"], outs, g)
            if not keep:
                node.release()
            g = None
            nrs = node.nrs
            i = 0
            following = None
            for gi in outs:
                n = node.next[i]
                i += 1
                if n is None or wanted is not None and n not in wanted[0]:
                    continue
                if gi is not None:
                    if n in buffers or n.n_outputs != 1:
                        feed(buffers, owned, n, 0 if nrs is None else nrs[i - 1], gi, public)
                    else:
                        buffers[n] = gi
                left = waits[n] - 1
                if left:
                    waits[n] = left
                elif following is None and not ready:
                    following = n
                else:
                    if following is not None:
                        heappush(ready, (-following.seq, following))
                        following = None
                    heappush(ready, (-n.seq, n))
            gi = outs = None
            node = following if following is not None else heappop(ready)[1] if ready else None
        if this.callbacks is not None:
            this.finish()
    except Exception as e:
        if report is not None and node is not None:
            report(node)
        where = getattr(node, "where", None)
        if where is not None and describe(where) not in str(e) and len(getattr(e, "__notes__", ())) < 5:
            e.add_note(f"{NOTE}{node.name()}, recorded at {describe(where)}")
        raise
    finally:
        reset_mode(token)
        reset_pass(outer)


def node_takes_none(node: Node) -> bool:
    """A custom Function runs even when no gradient arrives: it may want to know."""
    return getattr(node, "takes_none", False)


def capture(node: Node, g: Any, captures: list[Capture], runs: bool) -> Any:
    """Keep a gradient that was asked for. As in PyTorch: after the tensor's hooks, unless the pass goes on from here."""
    is_leaf = node.__class__ is AccumulateGrad
    if is_leaf:
        g = leaves.arrived(node.variable, g)
    if not runs:
        if is_leaf:
            g = leaves.run_hooks(node.variable, g)
        elif node.extra is not None:
            g = hooks.run_tensor_hooks(node, node.extra, g)
    for c in captures:
        c.grad = g[c.nr] if node.n_outputs != 1 and g is not None else g
    return g


def count_waits(first: dict[Node, None], wanted: Any) -> dict[Node, int]:
    """How many gradients each node will receive before it may run."""
    waits: dict[Node, int] = {}
    stack = list(first)
    pop, push = stack.pop, stack.append
    while stack:
        node = pop()
        if wanted is not None and node not in wanted[1]:
            continue
        for n in node.next:
            if n is not None and (wanted is None or n in wanted[0]):
                if n in waits:
                    waits[n] += 1
                else:
                    waits[n] = 1
                    if n not in first:
                        push(n)
    return waits


def needed_nodes(roots: list[Node], captures: dict[Node, list[Capture]]) -> tuple[set[Node], set[Node]]:
    """(nodes on a path from a root to a captured node, those of them that must run)."""
    order: list[Node] = []
    seen = set(roots)
    stack = list(seen)
    while stack:
        node = stack.pop()
        order.append(node)
        for n in node.next:
            if n is not None and n not in seen:
                seen.add(n)
                stack.append(n)
    parents: dict[Node, list[Node]] = {}
    for node in order:
        for n in node.next:
            if n is not None:
                parents.setdefault(n, []).append(node)
    needed: set[Node] = set()
    run_: set[Node] = set()
    stack = [n for n in captures if n in seen]
    needed.update(stack)
    while stack:
        for p in parents.get(stack.pop(), ()):
            run_.add(p)
            if p not in needed:
                needed.add(p)
                stack.append(p)
    return needed, run_


def feed(buffers: dict[Node, Any], owned: set[Node], node: Node, nr: int, g: Any, public: bool) -> None:
    """Add ``g`` to what has arrived for output ``nr`` of ``node``."""
    if node.n_outputs != 1:
        slots = buffers.get(node)
        if slots is None:
            slots = buffers[node] = [None] * node.n_outputs
        old = slots[nr]
        slots[nr] = g if old is None else old + g
        return
    old = buffers.get(node)
    if old is None:
        buffers[node] = g
    elif public or old._a.dtype is not g._a.dtype:
        buffers[node] = old + g
    elif node in owned or references(old) == IN_BUFFER and owns_memory(old) and old._a.strides == g._a.strides:
        a = old._a
        if a.size < LARGE:
            add(a, g._a, a)
        else:
            add_many(a, g._a, out=a)
        owned.add(node)
    else:
        r = (add if g._a.size < LARGE else add_many)(old._a, g._a)
        t = new_tensor(Tensor)
        t._a = r if r.__class__ is ndarray else np.asarray(r)
        t._grad_fn = None
        t._rg = False
        buffers[node] = t
        owned.add(node)
