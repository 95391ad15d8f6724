"""Reverse mode: ``grad``, ``grad_and_value``, ``vjp``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..autograd.transforms.scope import Scope, ones
from ..core.dtypes import COMPLEX, FLOAT
from ..core.errors import error
from ..core.pytree import TreeSpec, tree_flatten, tree_map
from ..core.tensor import Tensor
from .argnums import Argnums, Arguments, named, output_tensors, tensors_in, with_aux

_GRAD = "grad_and_value(f)(*args)"
_VJP = "vjp(f, *primals)"


def grad_and_value(func: Callable[..., Any], argnums: Argnums = 0, has_aux: bool = False) -> Callable[..., Any]:
    """A function that returns the gradient of a scalar function, and its value: ``(∇f(x), f(x))``.

    The arguments are those of ``grad``; with ``has_aux`` it returns ``(gradient, (value, aux))``.

    >>> import flambeau as torch
    >>> torch.func.grad_and_value(lambda x: x ** 3)(torch.tensor(2.))
    (tensor(12.), tensor(8.))
    """

    def transformed(*args: Any, **kwargs: Any) -> Any:
        given = Arguments(args, argnums)
        scope = Scope()
        with scope:
            points = [scope.point(t) for t in given.leaves]
            output, aux = with_aux(func(*given.replaced(points), **kwargs), has_aux, _GRAD)
            check_scalar(output)
        outside = scope.recorded and scope.reaches_outside([output])
        grads = scope.pull([output], [ones(output)], outside)
        value = scope.result(output)
        aux = constants(scope, aux, "grad") if has_aux else None
        return given.as_given(grads), (value, aux) if has_aux else value

    return named(transformed, func)


def grad(func: Callable[..., Any], argnums: Argnums = 0, has_aux: bool = False) -> Callable[..., Any]:
    """A function that returns the gradient of a scalar function: ``∇f(x)``, in the structure of the arguments.

    Args:
        func: returns a tensor without dimensions (and with ``has_aux``, any nest of tensors beside it).
        argnums: the positions of the arguments to differentiate by: an int, or a tuple for a tuple of gradients. They may
            be nests of floating-point tensors.
        has_aux: ``func`` returns ``(output, aux)``, and the transformed function ``(gradient, aux)``.

    It composes: ``grad(grad(f))`` is the second derivative, ``vmap(grad(f))`` gives gradients for each example.

    >>> import flambeau as torch
    >>> torch.func.grad(torch.func.grad(torch.sin))(torch.tensor(0.5))
    tensor(-0.4794)
    """
    both = grad_and_value(func, argnums, has_aux)

    def transformed(*args: Any, **kwargs: Any) -> Any:
        grads, value = both(*args, **kwargs)
        return (grads, value[1]) if has_aux else grads

    return named(transformed, func)


def vjp(func: Callable[..., Any], *primals: Any, has_aux: bool = False) -> Any:
    """The outputs of ``func`` at ``primals``, and the function that takes vectors to ``vᵀJ``, their product with the Jacobian.

    ``vjp_fn(cotangents)`` takes tensors in the structure of the outputs, and returns a tuple with a gradient in the
    structure of each primal. With ``has_aux`` the function returns ``(output, aux)``, and ``vjp`` ``(output, vjp_fn, aux)``.

    >>> import flambeau as torch
    >>> output, vjp_fn = torch.func.vjp(torch.sin, torch.tensor([0., 1.]))
    >>> vjp_fn(torch.ones(2))
    (tensor([1.0000, 0.5403]),)
    """
    output, vjp_fn, aux = pullback(func, primals, has_aux)
    return (output, vjp_fn, aux) if has_aux else (output, vjp_fn)


class Pullback:
    """``vᵀJ`` of a function at a point, for any ``v``."""

    def __init__(self, scope: Scope, outputs: list[Tensor], structure: TreeSpec, inputs: TreeSpec) -> None:
        self.scope, self.outputs, self.structure, self.inputs = scope, outputs, structure, inputs
        self.outside = scope.recorded and scope.reaches_outside(outputs)
        self.__name__ = "vjp_fn"

    def __call__(self, cotangents: Any, retain_graph: bool = True, create_graph: bool | None = None) -> Any:
        """PyTorch's further arguments are accepted; the graph is kept, and recorded where it matters, in any case."""
        given, structure = tree_flatten(cotangents)
        if structure != self.structure:
            raise error(
                RuntimeError,
                "Expected pytree structure of cotangents to be the same as pytree structure of outputs to the function. "
                f"cotangents: {pretty(structure)}, primal output: {pretty(self.structure)}",
            )
        weights = []
        for i, (w, o) in enumerate(zip(given, self.outputs)):
            if w is None and o._a.size != 1:
                raise error(RuntimeError, "grad can be implicitly created only for scalar outputs")
            w = ones(o) if w is None else w
            if w._a.shape != o._a.shape:
                raise error(
                    RuntimeError,
                    f"Mismatch in shape: grad_output[{i}] has a shape of {w.shape} and output[{i}] has a shape of {o.shape}.",
                )
            weights.append(w)
        return self.inputs.unflatten(self.scope.pull(self.outputs, weights, self.outside))

    def rows(self, i: int, weight: Tensor) -> list[Tensor]:
        """The gradients of the i-th output alone, flat."""
        return self.scope.pull([self.outputs[i]], [weight], self.outside)


def pullback(func: Callable[..., Any], primals: tuple[Any, ...], has_aux: bool) -> tuple[Any, Pullback, Any]:
    """(outputs, vjp_fn, aux) of ``func`` at ``primals``."""
    leaves, spec = tensors_in(primals)
    scope = Scope()
    with scope:
        points = [scope.point(t) for t in leaves]
        result, aux = with_aux(func(*spec.unflatten(points)), has_aux, _VJP)
        outputs, structure = output_tensors(result, _VJP, "f(*primals)")
        for o in outputs:
            if o.dtype.category < FLOAT:
                raise error(RuntimeError, f"vjp(f, ...): All outputs of f must be floating-point or complex Tensors, got Tensor with dtype {o.dtype}")
    vjp_fn = Pullback(scope, outputs, structure, spec)
    return structure.unflatten([scope.result(o) for o in outputs]), vjp_fn, constants(scope, aux, "vjp") if has_aux else None


def constants(scope: Scope, tree: Any, transformation: str) -> Any:
    """An aux value for the world outside."""

    def one(t: Any) -> Tensor:
        if not isinstance(t, Tensor):
            raise error(RuntimeError, f"Expected tensors, got unsupported type {type(t)}", hint=f"It is in the aux output of {transformation}.")
        return scope.result(t)

    return tree_map(one, tree)


def check_scalar(output: Any) -> None:
    """Refuse what has no gradient: anything but a real tensor without dimensions."""
    if not isinstance(output, Tensor):
        raise error(RuntimeError, f"{_GRAD}: Expected f(*args) to return a Tensor, got {type(output)}")
    if output._a.ndim:
        raise error(
            RuntimeError,
            f"{_GRAD}: Expected f(*args) to return a scalar Tensor, got tensor with {output._a.ndim} dims. Maybe you wanted to use the "
            "vjp or jacrev APIs instead?",
        )
    if output._rg and output.dtype.category == COMPLEX:
        raise error(RuntimeError, f"grad can be implicitly created only for real scalar outputs but got {output.dtype}")


def pretty(spec: TreeSpec) -> Any:
    """A structure with stars for its leaves."""
    return spec.unflatten([Star()] * spec.num_leaves)


class Star:
    def __repr__(self) -> str:
        return "*"
