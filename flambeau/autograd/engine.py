"""The backward pass.

One loop, never recursive: count how often each node will be reached, then run nodes as they become ready, the most
recently recorded first (PyTorch's order, so that sums of gradients come out in the same order). What a node saved is
freed as soon as it has run.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import Any

import numpy as np

from ..core.dtypes import FLOAT
from ..core.errors import describe, error
from ..core.modes import Modes, mode, reset_mode, set_mode, with_grad
from ..core.tensor import Tensor, new_tensor
from ..kernels import expr as E
from ..kernels.ufunc import LARGE, kernel
from .holders import ALONE, IN_BUFFER, owns_memory, references
from .node import AccumulateGrad, Node, accumulator
from .passes import Pass, reset_pass, set_pass

_add = np.add
_add_many = kernel(E.var("a") + E.var("b"), ("a", "b"), "accumulate")  # np.add knows no threads
ndarray = np.ndarray


class Capture:
    """Where ``autograd.grad`` wants the gradient of an input: at output ``nr`` of a node."""

    __slots__ = ("nr", "grad", "tensor")

    def __init__(self, nr: int, tensor: Tensor) -> None:
        self.nr, self.tensor, self.grad = nr, tensor, None


def run(
    roots: list[tuple[Node, int, Tensor]],
    keep: bool,
    create: bool,
    captures: dict[Node, list[Capture]] | None = None,
    accumulate: bool = True,
) -> None:
    """Push gradients from ``roots`` (node, output number, gradient) through the graph.

    ``captures`` None means: into every leaf. Otherwise only nodes on a path to a captured one run; an AccumulateGrad
    among them accumulates only if ``accumulate``.
    """
    wanted = None if captures is None else needed_nodes([r[0] for r in roots], captures)
    waits = count_waits(roots, wanted)
    buffers: dict[Node, Any] = {}
    owned: set[Node] = set()  # nodes whose buffer is a sum that we made, free to be added to
    node: Any
    g: Any
    outs: Any
    m = mode()
    public = create or m.__class__ is Modes and m.transformed  # sums must be seen by the tape, tangents or batches
    for node, nr, g in roots:
        feed(buffers, owned, node, nr, g, public)
    ready: list[tuple[int, Node]] = []
    for node in dict.fromkeys(r[0] for r in roots):
        if not waits.get(node):
            heappush(ready, (-node.seq, node))
    token = set_mode(with_grad(create))
    outer = set_pass(Pass(captures is None))
    node = None
    try:
        node = heappop(ready)[1] if ready else None
        while node is not None:
            g = buffers.pop(node, None)
            if owned:
                owned.discard(node)
            extra = node.extra
            if extra is not None and "pre" in extra:
                g = run_prehooks(extra["pre"], g, node.n_outputs)
            if captures is not None and node in captures:
                for c in captures[node]:
                    c.grad = g[c.nr] if node.n_outputs != 1 and g is not None else g
            if node.__class__ is AccumulateGrad:
                if accumulate and g is not None:
                    accumulate_grad(node, g, create)
                    if extra is not None and "post" in extra:
                        run_leaf_posthooks(extra["post"], g)
                node = heappop(ready)[1] if ready else None
                continue
            if wanted is not None and node not in wanted[1]:
                outs = ()
            elif g is None and not node_takes_none(node):
                outs = (None,) * len(node.next)
            else:
                outs = node.apply(g, None if wanted is None else wanted[0])
                if extra is not None and "post" in extra:
                    outs = run_posthooks(extra["post"], outs, g)
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
    except Exception as e:
        where = getattr(node, "where", None)
        if where is not None and describe(where) not in str(e):
            e.add_note(f"in the backward pass of {node.name()}, recorded at {describe(where)}")
        raise
    finally:
        reset_mode(token)
        reset_pass(outer)


def node_takes_none(node: Node) -> bool:
    """A custom Function runs even when no gradient arrives: it may want to know."""
    return getattr(node, "takes_none", False)


def count_waits(roots: Any, wanted: Any) -> dict[Node, int]:
    """How many gradients each node will receive before it may run."""
    waits: dict[Node, int] = {}
    seen = dict.fromkeys(r[0] for r in roots)
    stack = list(seen)
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
                    if n not in seen:
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
            _add(a, g._a, a)
        else:
            _add_many(a, g._a, out=a)
        owned.add(node)
    else:
        r = (_add if g._a.size < LARGE else _add_many)(old._a, g._a)
        t = new_tensor(Tensor)
        t._a = r if r.__class__ is ndarray else np.asarray(r)
        t._grad_fn = None
        t._rg = False
        buffers[node] = t
        owned.add(node)


# ---- leaves -------------------------------------------------------------------------------------------------------
def accumulate_grad(node: AccumulateGrad, g: Tensor, create: bool) -> None:
    """``variable.grad += g``: in place when nobody recorded it, stealing a buffer that nobody else holds."""
    alone = references(g) == ALONE
    t = node.variable
    hooks = t._hooks
    if hooks:
        for fn in tuple(hooks.values()):
            r = call_tensor_hook(fn, g)
            if r is not None:
                g = r
    old = t._grad
    if old is None:
        if create:
            t._grad = g
        elif alone and owns_memory(g) and same_layout(g._a, t._a):
            t._grad = g
        else:
            a = np.empty_like(t._a, dtype=g._a.dtype)
            a[...] = g._a
            n = new_tensor(Tensor)
            n._a, n._grad_fn, n._rg = a, None, False
            t._grad = n
    elif create or mode() is True:
        t._grad = old + g
    else:
        if old._grad_fn is not None:  # left by a pass with create_graph: PyTorch changes it in place too
            old = t._grad = old._detached()
        if g._a.size < LARGE or g._a.dtype is not old._a.dtype:
            _add(old._a, g._a, old._a)
        else:
            _add_many(old._a, g._a, out=old._a)
        if old._vc is not None:
            old._vc[0] += 1
        else:
            old._vc = [1]
    if t._post_hooks:
        for fn in tuple(t._post_hooks.values()):
            if fn(t) is not None:
                raise error(RuntimeError, "post accumulate grad hooks should return None.")


def same_layout(a: np.ndarray, b: np.ndarray) -> bool:
    return a.strides == b.strides or a.flags.c_contiguous and b.flags.c_contiguous


# ---- hooks --------------------------------------------------------------------------------------------------------
def call_tensor_hook(fn: Any, g: Tensor) -> Tensor | None:
    r = fn(g)
    if r is not None:
        if not isinstance(r, Tensor):
            raise error(TypeError, f"expected Tensor from hook, but got {type(r).__name__}")
        if r._a.shape != g._a.shape:
            raise error(RuntimeError, f"hook '{getattr(fn, '__name__', fn)}' has changed the size of value")
        if r._a.dtype != g._a.dtype:
            raise error(RuntimeError, f"hook '{getattr(fn, '__name__', fn)}' has changed the type of value "
                        f"(was torch.{g.dtype.name} got torch.{r.dtype.name})")
    return r


def run_prehooks(hooks: dict[int, Any], g: Any, n_outputs: int) -> Any:
    """Tensor hooks (kept as (output number, dict)) and node prehooks, in the order they were registered."""
    for fn in tuple(hooks.values()):
        if isinstance(fn, TensorHook):
            one = g if n_outputs == 1 else None if g is None else g[fn.nr]
            if one is None:
                continue
            r = call_tensor_hook(fn.fn, one)
            if r is not None:
                if n_outputs == 1:
                    g = r
                else:
                    g[fn.nr] = r
        else:
            r = fn((g,) if n_outputs == 1 else tuple(g))
            if r is not None:
                given = r if isinstance(r, tuple) else (r,)
                g = given[0] if n_outputs == 1 else list(given)
    return g


def run_posthooks(hooks: dict[int, Any], outs: tuple[Any, ...], g: Any) -> tuple[Any, ...]:
    g = g if isinstance(g, (tuple, list)) else (g,)
    for fn in tuple(hooks.values()):
        r = fn(tuple(outs), tuple(g))
        if r is not None:
            outs = r if isinstance(r, tuple) else (r,)
    return outs


def run_leaf_posthooks(hooks: dict[int, Any], g: Tensor) -> None:
    for fn in tuple(hooks.values()):
        fn((), (g,))


class TensorHook:
    """A hook of one output of a node, kept among the node's prehooks."""

    __slots__ = ("fn", "nr")

    def __init__(self, fn: Any, nr: int) -> None:
        self.fn, self.nr = fn, nr


# ---- what users call ----------------------------------------------------------------------------------------------
def as_tuple(x: Any) -> tuple[Any, ...]:
    return (x,) if isinstance(x, Tensor) or x is None else tuple(x)


def root_gradients(tensors: tuple[Tensor, ...], grads: tuple[Any, ...], create: bool) -> list[tuple[Node, int, Tensor]]:
    roots = []
    for i, (t, g) in enumerate(zip(tensors, grads)):
        if not isinstance(t, Tensor):
            raise error(TypeError, f"expected a Tensor to differentiate, got {type(t).__name__}")
        if not t._rg:
            raise error(
                RuntimeError,
                f"element {i} of tensors does not require grad and does not have a grad_fn",
                hint="Nothing it was computed from requires grad, or it was computed under no_grad or through detach().",
            )
        if g is None:
            if t._a.size != 1:
                raise error(
                    RuntimeError,
                    "grad can be implicitly created only for scalar outputs",
                    hint=f"The tensor has shape {list(t._a.shape)}: reduce it (.sum(), .mean()), or pass gradient= of that shape.",
                )
            if t.dtype.category != FLOAT:
                raise error(RuntimeError, f"grad can be implicitly created only for real scalar outputs but got {t.dtype}")
            g = new_tensor(Tensor)
            g._a = np.ones_like(t._a)
            g._grad_fn = None
            g._rg = False
        elif not isinstance(g, Tensor):
            raise error(TypeError, f"gradients can be either Tensors or None, but got {type(g).__name__}")
        else:
            if g._a.shape != t._a.shape:
                raise error(
                    RuntimeError,
                    f"Mismatch in shape: grad_output[{i}] has a shape of {g.shape} and output[{i}] has a shape of {t.shape}.",
                )
            if (g.dtype.category > FLOAT) != (t.dtype.category > FLOAT):
                raise error(
                    RuntimeError,
                    "For complex Tensors, both grad_output and output are required to have the same dtype. Mismatch in "
                    f"dtype: grad_output[{i}] has a dtype of {g.dtype} and output[{i}] has a dtype of {t.dtype}.",
                )
            if g._a.dtype != t._a.dtype:
                g = g.to(t.dtype)
            elif not create and g._rg:
                g = g._detached()
        fn = t._grad_fn
        roots.append((fn if fn is not None else accumulator(t), t._nr, g))
    return roots


def make_captures(inputs: tuple[Any, ...]) -> tuple[dict[Node, list[Capture]], list[Capture | None]]:
    captures: dict[Node, list[Capture]] = {}
    each: list[Capture | None] = []
    for t in inputs:
        if not t._rg:
            raise error(
                RuntimeError,
                "One of the differentiated Tensors does not require grad",
                hint=f"It is the input of shape {list(t._a.shape)}: call requires_grad_() on it before computing the output.",
            )
        node = t._grad_fn
        if node is None:
            node = accumulator(t)
        c = Capture(t._nr, t)
        captures.setdefault(node, []).append(c)
        each.append(c)
    return captures, each


def backward(
    tensors: Any,
    grad_tensors: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    grad_variables: Any = None,
    inputs: Any = None,
) -> None:
    """Add to every leaf's ``.grad`` the gradient of the sum of ``tensors`` (weighted by ``grad_tensors``).

    Args:
        tensors: a tensor or several.
        grad_tensors: for each, the gradient of whatever comes after with respect to it; may be None for scalars.
        retain_graph: keep what was saved, so that the graph can be used again; default: ``create_graph``.
        create_graph: record the pass itself, for higher derivatives.
        inputs: accumulate only into these.

    >>> import flambeau as torch
    >>> x = torch.tensor([1., 2.], requires_grad=True)
    >>> torch.autograd.backward((x * x).sum())
    >>> x.grad
    tensor([2., 4.])
    """
    if grad_variables is not None:
        if grad_tensors is not None:
            raise error(RuntimeError, "`grad_tensors` and `grad_variables` (deprecated) arguments both passed to `backward()`. "
                        "Please only use `grad_tensors`.")
        grad_tensors = grad_variables
    if inputs is not None and not isinstance(inputs, Tensor) and len(inputs) == 0:
        raise error(RuntimeError, "`inputs` argument to `backward()` cannot be empty.")
    ts = as_tuple(tensors)
    gs = (None,) * len(ts) if grad_tensors is None else as_tuple(grad_tensors)
    if len(gs) != len(ts):
        raise error(RuntimeError, f"got {len(ts)} tensors and {len(gs)} gradients")
    keep = create_graph if retain_graph is None else retain_graph
    roots = root_gradients(ts, gs, create_graph)
    if inputs is None:
        run(roots, keep, create_graph)
        return
    ins = as_tuple(inputs)
    captures, each = make_captures(ins)
    run(roots, keep, create_graph, captures, accumulate=True)
    for t, c in zip(ins, each):
        if t._grad_fn is not None and c is not None and c.grad is not None:
            g = c.grad
            t._grad = g if t._grad is None else t._grad + g


def grad(
    outputs: Any,
    inputs: Any,
    grad_outputs: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    only_inputs: bool = True,
    allow_unused: bool | None = None,
    is_grads_batched: bool = False,
    materialize_grads: bool = False,
) -> tuple[Tensor | None, ...]:
    """Gradients of the sum of ``outputs`` with respect to ``inputs``; ``.grad`` is left alone.

    >>> import flambeau as torch
    >>> x = torch.tensor(3., requires_grad=True)
    >>> g, = torch.autograd.grad(x ** 3, x, create_graph=True)
    >>> torch.autograd.grad(g, x)
    (tensor(18.),)
    """
    if is_grads_batched:
        raise error(NotImplementedError, "autograd.grad(is_grads_batched=True) is not in flambeau yet",
                    hint="Call autograd.grad once for each gradient.")
    if materialize_grads and allow_unused is False:
        raise error(ValueError, "Expected allow_unused to be True or not passed when materialize_grads=True, but got: allow_unused=False.")
    if allow_unused is None:
        allow_unused = materialize_grads
    ts, ins = as_tuple(outputs), as_tuple(inputs)
    if not ins:
        raise error(RuntimeError, "`inputs` argument to `grad()` cannot be empty.")
    gs = (None,) * len(ts) if grad_outputs is None else as_tuple(grad_outputs)
    if len(gs) != len(ts):
        raise error(RuntimeError, f"got {len(ts)} tensors and {len(gs)} gradients")
    keep = create_graph if retain_graph is None else retain_graph
    roots = root_gradients(ts, gs, create_graph)
    captures, each = make_captures(ins)
    run(roots, keep, create_graph, captures, accumulate=False)
    out: list[Tensor | None] = []
    for i, (t, c) in enumerate(zip(ins, each)):
        g = c.grad if c is not None else None
        if g is not None and t._grad_fn is None and t._hooks:
            for fn in tuple(t._hooks.values()):
                r = call_tensor_hook(fn, g)
                g = g if r is None else r
        if g is None:
            if materialize_grads:
                g = new_tensor(Tensor)
                g._a, g._grad_fn, g._rg = np.zeros(t._a.shape, t._a.dtype), None, False
            elif not allow_unused:
                raise error(
                    RuntimeError,
                    f"The differentiated Tensor at index {i} appears to not have been used in the graph. Set allow_unused=True "
                    "if this is the desired behavior.",
                    hint=f"Its shape is {list(t._a.shape)}.",
                )
        out.append(g)
    return tuple(out)


def register_tensor_hook(t: Tensor, fn: Any) -> Any:
    """``fn(grad)`` runs when the gradient of ``t`` is known; a tensor it returns is used instead. Returns a handle."""
    from .node import RemovableHandle

    if not t._rg:
        raise error(RuntimeError, "cannot register a hook on a tensor that doesn't require gradient")
    if t._grad_fn is None:
        if t._hooks is None:
            t._hooks = {}
        return RemovableHandle(t._hooks, fn)
    return RemovableHandle(t._grad_fn._extra().setdefault("pre", {}), TensorHook(fn, t._nr))


def register_post_accumulate_grad_hook(t: Tensor, fn: Any) -> Any:
    """``fn(tensor)`` runs after the gradient of the leaf has been added to ``.grad``."""
    from .node import RemovableHandle

    if not t._rg:
        raise error(RuntimeError, "cannot register a hook on a tensor that doesn't require gradient")
    if t._grad_fn is not None:
        raise error(RuntimeError, "post accumulate grad hooks cannot be registered on non-leaf tensors")
    if t._post_hooks is None:
        t._post_hooks = {}
    return RemovableHandle(t._post_hooks, fn)


def retain_grad(t: Tensor) -> None:
    """Make a non-leaf keep its gradient in ``.grad`` too."""
    import weakref

    if not t._rg:
        raise error(RuntimeError, "can't retain_grad on Tensor that has requires_grad=False")
    if t._grad_fn is None or t._retains:
        return
    ref = weakref.ref(t)

    def keep_it(g: Tensor) -> None:
        target = ref()
        if target is not None:
            if target._grad is None:
                target._grad = g if g._rg else g.clone()
            else:
                target._grad = target._grad + g

    t._retains = register_tensor_hook(t, keep_it)
    # the handle and the weak reference die with the tensor; the hook stays with the node, or moves (inplace.renew)


def tensor_backward(
    self: Tensor, gradient: Any = None, retain_graph: bool | None = None, create_graph: bool = False, inputs: Any = None
) -> None:
    """Add to the ``.grad`` of every leaf the gradient of this tensor; see ``autograd.backward``."""
    backward(self, gradient, retain_graph, create_graph, inputs=inputs)


Tensor.backward = tensor_backward
Tensor.register_hook = register_tensor_hook
Tensor.register_post_accumulate_grad_hook = register_post_accumulate_grad_hook
Tensor.retain_grad = retain_grad
Tensor.retains_grad = property(lambda self: self._retains is not None)
