"""``backward`` and ``grad``: what users ask of the backward pass (``loop.py``), and what is checked before it starts."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from ...core.dtypes import FLOAT, FROM_NP, dtype
from ...core.errors import error, user_level
from ...core.modes import Modes, mode, transforming
from ...core.size import Size
from ...core.tensor import Tensor, new_tensor
from ..graph import GradientEdge
from ..node import Node, accumulator
from .loop import Capture, run

_warned_of_cycle = False


# ---- what is given ------------------------------------------------------------------------------------------------
def as_tuple(x: Any) -> tuple[Any, ...]:
    return (x,) if isinstance(x, (Tensor, GradientEdge)) else tuple(x)


def inputs_of(inputs: Any, name: str) -> tuple[Any, ...]:
    if type(inputs) is dict:
        given = tuple(inputs.values())
    elif isinstance(inputs, Mapping):
        raise error(
            TypeError,
            f"`inputs` argument to `{name}()` must be a dict, not {type(inputs).__name__}. Other Mapping types are not supported.",
        )
    else:
        given = as_tuple(inputs)
    if not given:
        raise error(RuntimeError, f"`inputs` argument to `{name}()` cannot be empty.")
    return given


def given_gradients(grads: Any, n: int) -> tuple[Any, ...]:
    return (None,) * n if grads is None else (grads,) if isinstance(grads, Tensor) else tuple(grads)


def shape_and_dtype(t: Any) -> tuple[tuple[int, ...], dtype]:
    """... of an output: a tensor, or the edge at which one left the graph."""
    if t.__class__ is GradientEdge:
        meta = t.node._input_metadata[t.output_nr]
        return tuple(meta.shape), meta.dtype
    return t._a.shape, FROM_NP[t._a.dtype]


def first_gradient(t: Any, g: Any, i: int) -> Any:
    """The gradient of the ``i``-th output, which must be a scalar if it is not given."""
    if t.__class__ is not GradientEdge and not isinstance(t, Tensor):
        raise error(AssertionError, "Expected output to be a torch.Tensor", hint=f"outputs[{i}] is {type(t).__name__}.")
    if g is None:
        if isinstance(t, Tensor) and not t._rg:
            return None
        shape, d = shape_and_dtype(t)
        if any([n != 1 for n in shape]):
            raise error(
                RuntimeError,
                "grad can be implicitly created only for scalar outputs",
                hint=f"The tensor has shape {list(shape)}: reduce it (.sum(), .mean()), or pass gradient= of that shape.",
            )
        if d.category != FLOAT:
            raise error(RuntimeError, f"grad can be implicitly created only for real scalar outputs but got {d}")
        return one(shape, d.np)
    if not isinstance(g, Tensor):
        raise error(TypeError, f"gradients can be either Tensors or None, but got {type(g).__name__}")
    shape, d = shape_and_dtype(t)
    if g._a.shape != shape:
        raise error(
            RuntimeError,
            f"Mismatch in shape: grad_output[{i}] has a shape of {g.shape} and output[{i}] has a shape of {Size(shape)}.",
        )
    given = FROM_NP[g._a.dtype]
    if (given.category > FLOAT) != (d.category > FLOAT):
        raise error(
            RuntimeError,
            "For complex Tensors, both grad_output and output are required to have the same dtype. Mismatch in "
            f"dtype: grad_output[{i}] has a dtype of {given} and output[{i}] has a dtype of {d}.",
        )
    return g


def one(shape: tuple[int, ...], d: Any) -> Tensor:
    g: Tensor = new_tensor(Tensor)
    g._a, g._grad_fn, g._rg = np.empty(shape, d), None, False
    g._a.fill(1)
    return g


def root_gradients(tensors: tuple[Any, ...], grads: tuple[Any, ...]) -> list[tuple[Node, int, Tensor]]:
    """(node, output number, gradient) for each output."""
    if len(tensors) == len(grads) == 1 and grads[0] is None:  # a loss, as nearly always
        t = tensors[0]
        if isinstance(t, Tensor) and t._rg and t._a.size == 1 and t._a.dtype.kind == "f":
            fn = t._grad_fn
            return [(accumulator(t) if fn is None else fn, t._nr, one(t._a.shape, t._a.dtype))]
    given = [first_gradient(t, g, i) for i, (t, g) in enumerate(zip(tensors, grads))]
    if len(given) < len(tensors):
        raise error(RuntimeError, f"got {len(tensors)} tensors and {len(given)} gradients")
    roots = []
    for i, (t, g) in enumerate(zip(tensors, given)):
        if t.__class__ is GradientEdge:
            node, nr = t.node, t.output_nr
        else:
            if not t._rg:
                raise error(
                    RuntimeError,
                    f"element {i} of tensors does not require grad and does not have a grad_fn",
                    hint="Nothing it was computed from requires grad, or it was computed under no_grad or through detach().",
                )
            fn = t._grad_fn
            node, nr = accumulator(t) if fn is None else fn, t._nr
        if t.__class__ is GradientEdge or g._a.dtype is not t._a.dtype:
            d = shape_and_dtype(t)[1]
            g = g if g._a.dtype == d.np else g.to(d)
        roots.append((node, nr, g))
    return roots


def make_captures(inputs: tuple[Any, ...]) -> tuple[dict[Node, list[Capture]], list[Capture]]:
    """A Capture for each input, by node and in order."""
    captures: dict[Node, list[Capture]] = {}
    each: list[Capture] = []
    for t in inputs:
        if t.__class__ is GradientEdge:
            node, nr = t.node, t.output_nr
        elif not isinstance(t, Tensor):
            raise error(RuntimeError, f"all inputs have to be Tensors or GradientEdges, but got {type(t).__name__}")
        elif not t._rg:
            raise error(
                RuntimeError,
                "One of the differentiated Tensors does not require grad",
                hint=f"It is the input of shape {list(t._a.shape)}: call requires_grad_() on it before computing the output.",
            )
        else:
            fn = t._grad_fn
            node, nr = accumulator(t) if fn is None else fn, t._nr
        c = Capture(nr)
        captures.setdefault(node, []).append(c)
        each.append(c)
    return captures, each


# ---- what users call ----------------------------------------------------------------------------------------------
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
        tensors: a tensor or several, or ``GradientEdge``s.
        grad_tensors: for each, the gradient of whatever comes after with respect to it; may be None for scalars.
        retain_graph: keep what was saved, so that the graph can be used again; default: ``create_graph``.
        create_graph: record the pass itself, for higher derivatives.
        grad_variables: the old name of ``grad_tensors``.
        inputs: accumulate only into these: tensors (one that is no leaf retains its gradient from then on), edges, or
            a dict of tensors.

    Raises RuntimeError where a tensor has no history, where a gradient that is missing cannot be 1, where one doesn't
    fit its tensor, and where the graph has been freed.

    >>> import flambeau as torch
    >>> x = torch.tensor([1., 2.], requires_grad=True)
    >>> torch.autograd.backward((x * x).sum())
    >>> x.grad
    tensor([2., 4.])
    """
    m = mode()
    if transforming.get() or m.__class__ is Modes and m.batch:
        raise error(
            RuntimeError,
            "backward() called inside a functorch transform. This is not supported, please use functorch.grad or functorch.vjp "
            "instead or call backward() outside of functorch transforms.",
        )
    if grad_variables is not None:
        warnings.warn("`grad_variables` is deprecated. Use `grad_tensors` instead.", FutureWarning, stacklevel=2)
        if grad_tensors is not None:
            raise error(
                RuntimeError,
                "`grad_tensors` and `grad_variables` (deprecated) arguments both passed to `backward()`. Please only use `grad_tensors`.",
            )
        grad_tensors = grad_variables
    ins = () if inputs is None else inputs_of(inputs, "backward")
    ts = as_tuple(tensors)
    roots = root_gradients(ts, given_gradients(grad_tensors, len(ts)))
    keep = create_graph if retain_graph is None else retain_graph
    if create_graph:
        warn_of_cycle()
    if not ins:
        run(roots, keep, create_graph)
        return
    captures, _ = make_captures(ins)
    for t in ins:
        if isinstance(t, Tensor):
            t.retain_grad()
    run(roots, keep, create_graph, captures, accumulate=True)


def warn_of_cycle() -> None:
    global _warned_of_cycle
    if not _warned_of_cycle:
        _warned_of_cycle = True
        warnings.warn(
            "Using backward() with create_graph=True will create a reference cycle between the parameter and its gradient "
            "which can cause a memory leak. We recommend using autograd.grad when creating the graph to avoid this. If you "
            "have to use this function, make sure to reset the .grad fields of your parameters to None after use to break "
            "the cycle and avoid the leak.",
            UserWarning,
            stacklevel=user_level(),
        )


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
) -> Any:
    """Gradients of the sum of ``outputs`` with respect to ``inputs``, as a tuple; ``.grad`` is left alone.

    Args:
        outputs: a tensor or several, or ``GradientEdge``s.
        inputs: likewise, leaves or not; with a dict of tensors the result is a dict.
        grad_outputs: for each output the gradient of whatever comes after; may be None for scalars.
        retain_graph: keep what was saved; default: ``create_graph``.
        create_graph: record the pass, so that the gradients can be differentiated again.
        only_inputs: ignored, as in PyTorch.
        allow_unused: give None for an input that the outputs don't depend on, instead of raising.
        is_grads_batched: the gradients given have a batch dimension in front, and so have those returned.
        materialize_grads: give zeros instead of None.

    >>> import flambeau as torch
    >>> x = torch.tensor(3., requires_grad=True)
    >>> g, = torch.autograd.grad(x ** 3, x, create_graph=True)
    >>> torch.autograd.grad(g, x)
    (tensor(18.),)
    """
    if materialize_grads and allow_unused is False:
        raise error(ValueError, "Expected allow_unused to be True or not passed when materialize_grads=True, but got: allow_unused=False.")
    if allow_unused is None:
        allow_unused = materialize_grads
    ts, ins = as_tuple(outputs), inputs_of(inputs, "grad")
    if not only_inputs:
        warnings.warn(
            "only_inputs argument is deprecated and is ignored now (defaults to True). To accumulate gradient for other parts "
            "of the graph, please use torch.autograd.backward.",
            FutureWarning,
            stacklevel=2,
        )
    gs = given_gradients(grad_outputs, len(ts))
    keep = create_graph if retain_graph is None else retain_graph

    def found(gs: tuple[Any, ...]) -> tuple[Any, ...]:
        roots = root_gradients(ts, gs)
        captures, each = make_captures(ins)
        run(roots, keep, create_graph, captures, accumulate=False)
        out = tuple([c.grad for c in each])
        if not allow_unused and any([g is None for g in out]):
            raise unused(ins, out)
        return out

    out = found(gs) if not is_grads_batched else in_batches(found, ts, gs)
    if materialize_grads:
        out = tuple([zeros(t, create_graph) if g is None else g for t, g in zip(ins, out)])
    return dict(zip(inputs, out)) if type(inputs) is dict else out


def unused(inputs: tuple[Any, ...], grads: tuple[Any, ...]) -> BaseException:
    i = next(i for i, g in enumerate(grads) if g is None)
    t = inputs[i]
    return error(
        RuntimeError,
        f"The differentiated Tensor at index {i} appears to not have been used in the graph. Set allow_unused=True if this is "
        "the desired behavior.",
        hint=f"Its shape is {list(t._a.shape)}." if isinstance(t, Tensor) else None,
    )


def zeros(t: Any, requires_grad: bool) -> Tensor:
    if not isinstance(t, Tensor):
        raise error(RuntimeError, "materialize_grads cannot be used when the given input is a GradientEdge")
    g: Tensor = new_tensor(Tensor)
    g._a, g._grad_fn, g._rg = np.zeros(t._a.shape, t._a.dtype), None, requires_grad
    return g


def in_batches(fn: Any, outputs: tuple[Any, ...], grads: tuple[Any, ...]) -> tuple[Any, ...]:
    """``fn(grads)`` for every example of ``grads``, at once."""
    from ..transforms.vmap import vmap

    for i, (t, g) in enumerate(zip(outputs, grads)):
        if isinstance(t, GradientEdge):
            raise error(RuntimeError, "Batched grads are not supported with GradientEdge")
        if isinstance(g, Tensor) and g._a.shape[1:] != t._a.shape:
            raise error(
                RuntimeError,
                "If `is_grads_batched=True`, we interpret the first dimension of each grad_output as the batch dimension. The sizes "
                "of the remaining dimensions are expected to match the shape of corresponding output, but a mismatch was detected: "
                f"grad_output[{i}] has a shape of {g.shape} and output[{i}] has a shape of {t.shape}. If you only want some tensors "
                "in `grad_output` to be considered batched, consider using vmap.",
            )
    batched = [i for i, g in enumerate(grads) if g is not None]
    which: list[int] = []  # of the inputs, those that have a gradient: None cannot be batched

    def of_one(*some: Any) -> tuple[Any, ...]:
        all_of_them = list(grads)
        for i, g in zip(batched, some):
            all_of_them[i] = g
        out = fn(tuple(all_of_them))
        which[:] = [i for i, g in enumerate(out) if g is not None]
        n_inputs[:] = [len(out)]
        return tuple([out[i] for i in which])

    n_inputs: list[int] = []
    found = vmap(of_one)(*[grads[i] for i in batched])
    out: list[Any] = [None] * n_inputs[0]
    for i, g in zip(which, found):
        out[i] = g
    return tuple(out)


def tensor_backward(
    self: Tensor, gradient: Any = None, retain_graph: bool | None = None, create_graph: bool = False, inputs: Any = None
) -> None:
    """Add to the ``.grad`` of every leaf the gradient of this tensor; see ``autograd.backward``.

    >>> import flambeau as torch
    >>> x = torch.tensor([1., 2.], requires_grad=True)
    >>> (x * x).backward(torch.tensor([1., 10.])); x.grad
    tensor([ 2., 40.])
    """
    backward(self, gradient, retain_graph, create_graph, inputs=inputs)


Tensor.backward = tensor_backward
