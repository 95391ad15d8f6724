"""Forward mode: ``jvp``, ``linearize``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..autograd.forward_ad import close_level, dual, open_level, split
from ..core.dtypes import FLOAT
from ..core.errors import error
from ..core.pytree import tree_flatten, tree_map
from ..core.tensor import Tensor
from .argnums import output_tensors, with_aux

_JVP = "jvp(f, primals, tangents)"


def jvp(func: Callable[..., Any], primals: Any, tangents: Any, *, strict: bool = False, has_aux: bool = False) -> Any:
    """The outputs of ``func`` at ``primals``, and ``Jv``: the product of its Jacobian with ``tangents``, in one pass.

    Args:
        func: returns a tensor, or a nest of them (and with ``has_aux``, another beside it).
        primals: the tuple of its arguments, which may be nests of floating-point tensors.
        tangents: in the same structure and shapes.
        strict: RuntimeError where an output doesn't depend on the inputs, instead of zeros.
        has_aux: ``func`` returns ``(output, aux)``, and ``jvp`` ``(output, tangents, aux)``.

    >>> import flambeau as torch
    >>> torch.func.jvp(torch.sin, (torch.tensor([0., 1.]),), (torch.tensor([1., 10.]),))
    (tensor([0.0000, 0.8415]), tensor([1.0000, 5.4030]))
    """
    if not isinstance(primals, tuple):
        raise error(RuntimeError, f"{_JVP}: Expected primals to be a tuple. E.g. it should be valid to call f(*primals).")
    xs, structure = tree_flatten(primals)
    vs, other = tree_flatten(tangents)
    if structure != other:
        raise error(
            RuntimeError,
            f"{_JVP}: Expected primals and tangents to have the same python structure. For example, if primals is a tuple of 3 "
            f"tensors, tangents also must be. Got primals with structure {structure} and tangents with structure {other}",
        )
    if not xs:
        raise error(RuntimeError, f"{_JVP}: Expected primals to contain at least one Tensor.")
    for name, leaves in (("primals", xs), ("tangents", vs)):
        for t in leaves:
            if not isinstance(t, Tensor):
                raise error(RuntimeError, f"{_JVP}: Expected {name} to only contain Tensors, got {type(t)}")
    for name, leaves in (("primal", xs), ("tangent", vs)):
        for t in leaves:
            if t.dtype.category < FLOAT:
                raise error(ValueError, f"Expected {name} to be floating point or complex, but got: {t.dtype}")
    level, token = open_level()
    try:
        duals = [dual(x, v, level) for x, v in zip(xs, vs)]
        result, aux = with_aux(func(*structure.unflatten(duals)), has_aux, _JVP)
        outputs, out_structure = output_tensors(result, _JVP, "f(*primals)")
        pairs = [split(o, level) for o in outputs]
        if strict and any([tangent is None for _, tangent in pairs]):
            raise error(
                RuntimeError,
                "jvp(f, primals, tangents, strict=True): The output of f is independent of the inputs. This is not allowed with strict=True.",
            )
        values = out_structure.unflatten([value for value, _ in pairs])
        products = out_structure.unflatten([value.new_zeros(value.shape) if t is None else t for value, t in pairs])
        rest = tree_map(lambda t: split(t, level)[0] if isinstance(t, Tensor) else t, aux)
    finally:
        close_level(level, token)
    return (values, products, rest) if has_aux else (values, products)


def linearize(func: Callable[..., Any], *primals: Any) -> tuple[Any, Callable[..., Any]]:
    """The outputs of ``func`` at ``primals``, and its derivative there: the linear function ``v ↦ Jv``.

    Each call of that function evaluates ``func`` once more, with a tangent; so ``func`` must not depend on chance.

    >>> import flambeau as torch
    >>> output, derivative = torch.func.linearize(lambda x: x ** 3, torch.tensor(2.))
    >>> derivative(torch.tensor(1.)), derivative(torch.tensor(10.))
    (tensor(12.), tensor(120.))
    """
    xs, structure = tree_flatten(primals)
    for t in xs:
        if not isinstance(t, Tensor):
            raise error(RuntimeError, f"linearize(f, *primals): Expected primals to only contain Tensors, got {type(t)}")
    output = func(*primals)

    def derivative(*tangents: Any) -> Any:
        vs, other = tree_flatten(tangents)
        if structure != other:
            raise error(RuntimeError, f"Expected the tangents {other} to have the same argspec as the primals {structure}")
        for i, (v, x) in enumerate(zip(vs, xs)):
            for what, found, wanted in (("shape", v.shape, x.shape), ("dtype", v.dtype, x.dtype)):
                if found != wanted:
                    raise error(
                        RuntimeError,
                        f"tangent:{i} with {what} {found} in flattened pytree doesn't match the {what} {wanted} of the corresponding primal.",
                    )
        return jvp(func, primals, tangents)[1]

    return output, derivative
