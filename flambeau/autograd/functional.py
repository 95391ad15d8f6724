"""Products with Jacobians and Hessians of a function at a point; PyTorch's ``torch.autograd.functional``.

Every function here evaluates ``func`` once, at fresh points over the inputs, so that a tensor that is given as an
argument and is also used by ``func`` from outside counts as two. Products with a Jacobian from the left are one
backward pass. A product from the right is a backward pass through a backward pass: ``g ↦ Jᵀg`` is linear, and its own
backward pass of ``v`` is ``Jv``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..core.dtypes import COMPLEX
from ..core.errors import error
from ..core.modes import enable_grad, is_grad_enabled, set_grad_enabled
from ..core.tensor import Tensor, wrap
from .engine import grad
from .primitive import PRIMITIVES, alias

__all__ = ["hessian", "hvp", "jacobian", "jvp", "vhp", "vjp"]

Tensors = Tensor | tuple[Tensor, ...]

# What strict mode says, for each kind of pass: of a derivative that isn't there, and, where a graph of it was asked
# for, of one that doesn't depend on the inputs.
_JACOBIAN_CONSTANT = (
    "The jacobian of the user-provided function is independent of input {i}. This is not allowed in strict mode when create_graph=True."
)
_HESSIAN_CONSTANT = (
    "The hessian of the user-provided function is independent of input {i}. This is not allowed in strict mode when create_graph=True."
)
_STRICT = {
    "vjp": (
        "The output of the user-provided function is independent of input {i}. This is not allowed in strict mode.",
        _JACOBIAN_CONSTANT,
    ),
    "jvp": (
        "The gradient with respect to the input is independent of entry {i} in the grad_outputs when using the double "
        "backward trick to compute forward mode gradients. This is not allowed in strict mode.",
        _JACOBIAN_CONSTANT,
    ),
    "vhp": (
        "The jacobian of the user-provided function is independent of input {i}. This is not allowed in strict mode.",
        _HESSIAN_CONSTANT,
    ),
    "hvp": (
        "The hessian of the user-provided function is independent of entry {i} in the grad_jacobian. This is not allowed "
        "in strict mode as it prevents from using the double backward trick to replace forward mode AD.",
        _HESSIAN_CONSTANT,
    ),
}
# Of what must depend on the inputs before a second pass can be made.
_NO_HISTORY = {
    "output": "Output {i} of the user-provided function does not require gradients. The outputs must be computed in a "
    "differentiable manner from the input when running in strict mode.",
    "gradient": "The gradient with respect to input {i} is independent of the inputs of the user-provided function. This "
    "is not allowed in strict mode.",
    "jacobian": "While computing the hessian, found that the jacobian of the user-provided function with respect to input "
    "{i} is independent of the input. This is not allowed in strict mode. You should ensure that your function is "
    "twice differentiable and that the jacobian depends on the inputs (this would be violated by a linear function "
    "for example).",
}


class Point:
    """The inputs of one call, as fresh points of the graph, and what the call asked for."""

    def __init__(self, caller: str, inputs: Any, create_graph: bool, strict: bool) -> None:
        self.caller, self.create_graph, self.strict = caller, create_graph, strict
        self.many, given = as_tensors(inputs, "inputs", caller)
        self.x = tuple([self.fresh(t, True) for t in given])

    def fresh(self, t: Tensor, differentiable: bool) -> Tensor:
        """Another tensor on the same values: linked to ``t`` if gradients shall flow there, else a leaf."""
        if self.create_graph and t._rg:
            return alias(t)
        return t.detach().requires_grad_(differentiable)

    def evaluate(self, func: Callable[..., Any]) -> tuple[bool, tuple[Tensor, ...]]:
        many, outputs = as_tensors(func(*self.x), "outputs of the user-provided function", self.caller)
        self.require_history(outputs, "output")
        return many, outputs

    def scalar(self, func: Callable[..., Any]) -> Tensor:
        """The one output of a function that must have one, with one element."""
        many, outputs = self.evaluate(func)
        return one_element(many, outputs, self.caller)

    def vector(self, v: Any, like: Sequence[Tensor], many: bool, missing: str) -> tuple[Tensor, ...] | None:
        """``v`` as fresh constants of the sizes of ``like``; ``missing`` says when it may not be left out."""
        if v is None:
            if len(like) != 1 or like[0].numel() != 1:
                raise error(RuntimeError, missing)
            return None
        vs = tuple([self.fresh(t, False) for t in as_tensors(v, "v", self.caller)[1]])
        if len(vs) != len(like):
            raise error(
                RuntimeError,
                f"v is a tuple of invalid length: should be {len(like)} but got {len(vs)}."
                if many
                else "The given v should contain a single Tensor.",
            )
        for i, (a, b) in enumerate(zip(vs, like)):
            if a.shape != b.shape:
                raise error(RuntimeError, f"{f'Entry {i} in ' if many else ''}v has invalid size: should be {b.shape} but got {a.shape}.")
        return vs

    def require_history(self, tensors: Sequence[Tensor | None], kind: str) -> None:
        if self.strict:
            require_history(tensors, kind)

    def complete(self, grads: Sequence[Tensor | None], like: Sequence[Tensor], kind: str) -> tuple[Tensor, ...]:
        """Zeros for gradients that aren't there, which strict mode refuses."""
        absent, constant = _STRICT[kind]
        out = []
        for i, (g, t) in enumerate(zip(grads, like)):
            if self.strict and g is None:
                raise error(RuntimeError, absent.format(i=i))
            if self.strict and self.create_graph and not g._rg:  # type: ignore[union-attr]
                raise error(RuntimeError, constant.format(i=i))
            out.append(t.new_zeros(t.shape) if g is None else g)
        return tuple(out)

    def recording(self) -> Any:
        """The mode of what is made of the last pass: recorded if a graph was asked for, else as the caller has it."""
        return set_grad_enabled(self.create_graph or is_grad_enabled())

    def result(self, tensors: Sequence[Tensor], many: bool) -> Any:
        """What the caller gets: without history unless it was asked for, and in a tuple if the caller gave one."""
        found = tuple(tensors) if self.create_graph else tuple([t.detach() for t in tensors])
        return found if many else found[0]


def as_tensors(given: Any, what: str, caller: str) -> tuple[bool, tuple[Tensor, ...]]:
    """(whether a tuple was given, the tensors)."""
    many = isinstance(given, tuple)
    found = given if many else (given,)
    for i, t in enumerate(found):
        if not isinstance(t, Tensor):
            which = f"value at index {i}" if many else f"given {what}"
            raise error(
                TypeError,
                f"The {what} given to {caller} must be either a Tensor or a tuple of Tensors but the {which} has type {type(t)}.",
            )
    return many, found


def require_history(tensors: Sequence[Tensor | None], kind: str) -> None:
    """What strict mode refuses: a tensor that doesn't depend on the inputs."""
    for i, t in enumerate(tensors):
        if t is None:
            raise error(RuntimeError, _STRICT["vjp"][0].format(i=i))
        if not t._rg:
            raise error(RuntimeError, _NO_HISTORY[kind].format(i=i))


def one_element(many: bool, outputs: tuple[Tensor, ...], caller: str) -> Tensor:
    if many:
        raise error(RuntimeError, f"The function given to {caller} should return a single Tensor")
    if outputs[0].numel() != 1:
        raise error(RuntimeError, f"The Tensor returned by the function given to {caller} should contain a single element")
    return outputs[0]


def gradients(
    outputs: Sequence[Tensor | None],
    inputs: Sequence[Tensor],
    weights: Sequence[Tensor] | None,
    create_graph: bool,
    retain_graph: bool | None = None,
) -> tuple[Tensor | None, ...]:
    """``autograd.grad`` that takes outputs without history, or None, for constants."""
    ws: Sequence[Any] = weights if weights is not None else [None] * len(outputs)
    pairs = [(o, w) for o, w in zip(outputs, ws) if o is not None and o._rg]
    if not pairs:
        return (None,) * len(inputs)
    outs, gs = zip(*pairs)
    return grad(outs, inputs, gs, retain_graph=retain_graph, create_graph=create_graph, allow_unused=True)


def stack(rows: Sequence[Tensor]) -> Tensor:
    return PRIMITIVES["cat"](*[r.unsqueeze(0) for r in rows], dim=0)


def unit_vectors(like: Tensor) -> Tensor:
    """For n elements, n tensors of the shape of ``like``, each 1 in one place and 0 elsewhere."""
    n = like.numel()
    return wrap(np.eye(n, dtype=like._a.dtype).reshape(n, *like.shape))


# ---- products -----------------------------------------------------------------------------------------------------
def vjp(func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False) -> tuple[Any, Any]:
    """The outputs of ``func`` and ``vᵀJ``, the product of a vector with its Jacobian.

    Args:
        func: takes tensors, and returns a tensor or a tuple of tensors.
        inputs: where: a tensor or a tuple of tensors.
        v: as the outputs; may be left out for a single output with one element.
        create_graph: give results that can be differentiated further.
        strict: RuntimeError where an output doesn't depend on an input, instead of zeros.

    >>> import flambeau as torch
    >>> torch.autograd.functional.vjp(lambda x: x ** 2, torch.tensor([1., 2.]), torch.tensor([1., 10.]))
    (tensor([1., 4.]), tensor([ 2., 40.]))
    """
    with enable_grad():
        p = Point("vjp", inputs, create_graph, strict)
        many, outputs = p.evaluate(func)
        weights = p.vector(
            v, outputs, many, "The vector v can only be None if the user-provided function returns a single Tensor with a single element."
        )
    with p.recording():
        found = p.complete(gradients(outputs, p.x, weights, create_graph), p.x, "vjp")
    return p.result(outputs, many), p.result(found, p.many)


_NO_VECTOR = "The vector v can only be None if the input to the user-provided function is a single Tensor with a single element."


def jvp(func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False) -> tuple[Any, Any]:
    """The outputs of ``func`` and ``Jv``, the product of its Jacobian with a vector.

    ``v`` is as the inputs, and may be left out for a single input with one element; the other arguments are as for
    ``vjp``. The product is computed by two backward passes; ``torch.func.jvp`` needs one forward pass for it.

    >>> import flambeau as torch
    >>> torch.autograd.functional.jvp(lambda x, y: x * y, (torch.tensor(3.), torch.tensor(4.)), (torch.tensor(1.), torch.tensor(2.)))
    (tensor(12.), tensor(10.))
    """
    with enable_grad():
        p = Point("jvp", inputs, create_graph, strict)
        weights = p.vector(v, p.x, p.many, _NO_VECTOR)
        many, outputs = p.evaluate(func)
        zeros = tuple([o.new_zeros(o.shape).requires_grad_(o._rg) for o in outputs])
        linear = gradients(outputs, p.x, zeros, create_graph=True)
        p.require_history(linear, "gradient")
    with p.recording():
        probes = tuple([z for z in zeros if z._rg])
        grads = iter(gradients(linear, probes, weights, create_graph) if probes else ())
        found = p.complete([next(grads) if z._rg else None for z in zeros], outputs, "jvp")
    return p.result(outputs, many), p.result(found, many)


def vhp(func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False) -> tuple[Any, Any]:
    """The output of a scalar function and ``vᵀH``, the product of a vector with its Hessian.

    The Hessian is symmetric wherever it is continuous, so this is also ``Hv``, at less cost than ``hvp``.

    >>> import flambeau as torch
    >>> torch.autograd.functional.vhp(lambda x: (x ** 3).sum(), torch.tensor([1., 2.]), torch.tensor([1., 1.]))
    (tensor(9.), tensor([ 6., 12.]))
    """
    with enable_grad():
        p = Point("vhp", inputs, create_graph, strict)
        weights = p.vector(v, p.x, p.many, _NO_VECTOR)
        output = p.scalar(func)
        first = gradients((output,), p.x, None, create_graph=True)
        p.require_history(first, "jacobian")
    with p.recording():
        found = p.complete(gradients(first, p.x, weights, create_graph), p.x, "vhp")
    return p.result((output,), False), p.result(found, p.many)


def hvp(func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False) -> tuple[Any, Any]:
    """The output of a scalar function and ``Hv``, the product of its Hessian with a vector.

    >>> import flambeau as torch
    >>> torch.autograd.functional.hvp(lambda x: (x ** 3).sum(), torch.tensor([1., 2.]), torch.tensor([1., 1.]))
    (tensor(9.), tensor([ 6., 12.]))
    """
    with enable_grad():
        p = Point("hvp", inputs, create_graph, strict)
        weights = p.vector(v, p.x, p.many, _NO_VECTOR)
        output = p.scalar(func)
        first = gradients((output,), p.x, None, create_graph=True)
        p.require_history(first, "jacobian")
        zeros = tuple([t.new_zeros(t.shape).requires_grad_() for t in p.x])
        linear = gradients(first, p.x, zeros, create_graph=True)
    with p.recording():
        found = p.complete(gradients(linear, zeros, weights, create_graph), p.x, "hvp")
    return p.result((output,), False), p.result(found, p.many)


# ---- whole matrices -----------------------------------------------------------------------------------------------
_STRATEGIES = ("forward-mode", "reverse-mode")


def jacobian(
    func: Callable[..., Any],
    inputs: Any,
    create_graph: bool = False,
    strict: bool = False,
    vectorize: bool = False,
    strategy: str = "reverse-mode",
) -> Any:
    """The Jacobian of ``func``: for an output and an input, a tensor of shape ``[*output.shape, *input.shape]``.

    A tuple of outputs gives a tuple, a tuple of inputs a tuple in it: ``jacobian[output][input]``.

    Args:
        func: takes tensors, and returns a tensor or a tuple of tensors.
        inputs: where: a tensor or a tuple of tensors.
        create_graph: give a result that can be differentiated further.
        strict: RuntimeError where an output doesn't depend on an input, instead of zeros.
        vectorize: all rows (or columns) in one batched pass instead of one pass for each.
        strategy: "reverse-mode", by rows, or "forward-mode", by columns, which needs ``vectorize``.

    >>> import flambeau as torch
    >>> torch.autograd.functional.jacobian(lambda x: x ** 2, torch.tensor([1., 2.]))
    tensor([[2., 0.],
            [0., 4.]])
    """
    if strategy not in _STRATEGIES:
        raise error(
            AssertionError,
            'Expected strategy to be either "forward-mode" or "reverse-mode". Hint: If your function has more outputs than '
            'inputs, "forward-mode" tends to be more performant. Otherwise, prefer to use "reverse-mode".',
        )
    if strategy == "forward-mode":
        return _by_columns(func, inputs, create_graph, strict, vectorize)
    with enable_grad():
        p = Point("jacobian", inputs, create_graph, strict)
        many, outputs = p.evaluate(func)
        if strict and vectorize:
            raise error(
                RuntimeError,
                "torch.autograd.functional.jacobian: `strict=True` and `vectorized=True` are not supported together. Please "
                "either set `strict=False` or `vectorize=False`.",
            )
        rows = _rows_at_once if vectorize else _rows_one_by_one
        found = [p.result(rows(p, o, i), p.many) for i, o in enumerate(outputs)]
    return tuple(found) if many else found[0]


def _rows_one_by_one(p: Point, output: Tensor, i: int) -> list[Tensor]:
    """For each input its block of rows: one backward pass for each element of the output."""
    if output._rg and output.dtype.category == COMPLEX:
        raise error(
            RuntimeError,
            f"grad can be implicitly created only for real scalar outputs but got {output.dtype}",
            hint="vectorize=True gives the Jacobian of complex outputs too.",
        )
    rows: list[list[Tensor]] = [[] for _ in p.x]
    for unit in unit_vectors(output) if output._rg else ():
        grads = gradients((output,), p.x, (unit,), p.create_graph, retain_graph=True)
        for k, (x, g) in enumerate(zip(p.x, grads)):
            if p.strict and g is None:
                raise error(
                    RuntimeError, f"Output {i} of the user-provided function is independent of input {k}. This is not allowed in strict mode."
                )
            if p.strict and p.create_graph and not g._rg:  # type: ignore[union-attr]
                raise error(RuntimeError, _JACOBIAN_CONSTANT.format(i=k))
            rows[k].append(x.new_zeros(x.shape) if g is None else g)
    return [_block(r, output, x) for r, x in zip(rows, p.x)]


def _block(rows: list[Tensor], output: Tensor, x: Tensor) -> Tensor:
    shape = (*output.shape, *x.shape)
    return stack(rows).reshape(shape) if rows else x.new_zeros(shape)


def _rows_at_once(p: Point, output: Tensor, i: int) -> list[Tensor]:
    """For each input its block of rows: one backward pass of all unit vectors."""
    from .transforms.vmap import vmap

    used: list[bool] = []

    def row(unit: Tensor) -> tuple[Tensor, ...]:
        grads = gradients((output,), p.x, (unit,), p.create_graph, retain_graph=True)
        used[:] = [g is not None for g in grads]
        return tuple([g for g in grads if g is not None])

    blocks: Any = iter(())
    if output._rg and output.numel():
        blocks = iter(vmap(row)(unit_vectors(output)))
    shapes = [(*output.shape, *x.shape) for x in p.x]
    return [next(blocks).reshape(s) if k < len(used) and used[k] else x.new_zeros(s) for k, (x, s) in enumerate(zip(p.x, shapes))]


def _by_columns(func: Callable[..., Any], inputs: Any, create_graph: bool, strict: bool, vectorize: bool) -> Any:
    """The Jacobian by forward mode: one batched pass over the unit vectors of each input."""
    both = 'and `strategy="forward-mode"` are not supported together (yet). Please either set'
    if create_graph:
        raise error(
            NotImplementedError,
            f'torch.autograd.functional.jacobian: `create_graph=True` {both} `create_graph=False` or `strategy="reverse-mode"`.',
        )
    if strict:
        raise error(RuntimeError, f'torch.autograd.functional.jacobian: `strict=True` {both} `strict=False` or `strategy="reverse-mode"`.')
    many_inputs, xs = as_tensors(inputs, "inputs", "jacobian")
    if not vectorize:
        raise error(
            NotImplementedError,
            "Computing Jacobian using forward-AD or forward-over-reverse Hessian isonly implemented for `vectorize=True`.",
        )
    from . import forward_ad
    from .transforms.vmap import vmap

    many_outputs = False

    def column(k: int, unit: Tensor) -> tuple[Tensor, ...]:
        nonlocal many_outputs
        with forward_ad.dual_level():
            point = [forward_ad.make_dual(x.detach(), unit) if j == k else x.detach() for j, x in enumerate(xs)]
            many_outputs, outputs = as_tensors(func(*point), "outputs of the user-provided function", "jacobian")
            tangents = []
            for o in outputs:
                primal, tangent = forward_ad.unpack_dual(o)
                tangents.append(primal.new_zeros(primal.shape) if tangent is None else tangent)
            return tuple(tangents)

    blocks = []  # blocks[input][output], of shape [*output.shape, *input.shape]
    for k, x in enumerate(xs):
        units = unit_vectors(x)
        if x.numel():
            columns = vmap(lambda unit, k=k: column(k, unit), out_dims=-1)(units)
        else:
            columns = tuple([c.unsqueeze(-1)[..., :0] for c in column(k, x)])
        blocks.append([c.detach().reshape(*c.shape[:-1], *x.shape) for c in columns])
    found = [by_input if many_inputs else by_input[0] for by_input in zip(*blocks)]
    return tuple(found) if many_outputs else found[0]


def gradient(func: Callable[..., Tensor], x: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The gradient of a scalar function, where ``x`` may be batched and may have tangents."""
    from .transforms.scope import Scope, ones

    scope = Scope()
    with scope:
        output = func(*[scope.point(t) for t in x])
    return tuple(scope.pull([output], [ones(output)], outside=False))


def hessian(
    func: Callable[..., Any],
    inputs: Any,
    create_graph: bool = False,
    strict: bool = False,
    vectorize: bool = False,
    outer_jacobian_strategy: str = "reverse-mode",
) -> Any:
    """The Hessian of a scalar function: a tensor of shape ``[*input.shape, *input.shape]``, or a tuple of tuples of them.

    The arguments are those of ``jacobian``, of which this is two, one of the other; ``outer_jacobian_strategy`` is the
    strategy of the outer one, and the inner one is always by reverse mode.

    >>> import flambeau as torch
    >>> torch.autograd.functional.hessian(lambda x: (x ** 3).sum(), torch.tensor([1., 2.]))
    tensor([[ 6.,  0.],
            [ 0., 12.]])
    """
    many, _ = as_tensors(inputs, "inputs", "hessian")
    if outer_jacobian_strategy not in _STRATEGIES:
        raise error(AssertionError, 'Expected strategy to be either "forward-mode" or "reverse-mode".')

    def scalar(*x: Tensor) -> Tensor:
        tupled, outputs = as_tensors(func(*x), "outputs of the user-provided function", "hessian")
        if strict:
            require_history(outputs, "output")
        return one_element(tupled, outputs, "hessian").squeeze()

    def first(*x: Tensor) -> tuple[Tensor, ...]:
        if outer_jacobian_strategy == "forward-mode":
            return gradient(scalar, x)
        found = jacobian(scalar, x, create_graph=True)
        if strict:
            require_history(found, "jacobian")
        return found

    found = jacobian(first, inputs, create_graph, strict, vectorize, outer_jacobian_strategy)
    return found if many else found[0]
