"""Which arguments a transformation differentiates by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..core.errors import error
from ..core.pytree import TreeSpec, tree_flatten
from ..core.tensor import Tensor

Argnums = int | tuple[int, ...]


def positions(argnums: Any, n: int) -> tuple[int, ...]:
    """The positions as numbers from 0; RuntimeError for what isn't an int or a tuple of different ints within range."""
    if not isinstance(argnums, (int, tuple)):
        raise error(RuntimeError, f"argnums must be int or Tuple[int, ...], got: {type(argnums)}")
    given = argnums if isinstance(argnums, tuple) else (argnums,)
    if not given:
        raise error(RuntimeError, "argnums must be non-empty")
    for i in given:
        if not isinstance(i, int):
            raise error(RuntimeError, f"argnum must be int, got: {type(i)}")
        if not -n <= i < n:
            raise error(RuntimeError, f"Got argnum={i}, but only {n} positional inputs")
    found = tuple([i % n for i in given])
    if len(set(found)) != len(found):
        raise error(RuntimeError, f"argnums elements must be unique, got {found}")
    return found


class Arguments:
    """The arguments of a call, and the tensors among them that are differentiated by."""

    def __init__(self, args: tuple[Any, ...], argnums: Argnums) -> None:
        self.args, self.at, self.single = args, positions(argnums, len(args)), isinstance(argnums, int)
        self.leaves, self.spec = tensors_in(tuple([args[i] for i in self.at]))

    def replaced(self, leaves: list[Any]) -> list[Any]:
        """All arguments, with others for the tensors that are differentiated by."""
        out = list(self.args)
        for i, value in zip(self.at, self.spec.unflatten(leaves)):
            out[i] = value
        return out

    def as_given(self, leaves: list[Any]) -> Any:
        """Something for each of those tensors, in the structure of the arguments that ``argnums`` named."""
        found = self.spec.unflatten(leaves)
        return found[0] if self.single else found


def tensors_in(tree: Any) -> tuple[list[Tensor], TreeSpec]:
    """The leaves of a tree that must hold tensors only, and its shape."""
    leaves, spec = tree_flatten(tree)
    for t in leaves:
        if not isinstance(t, Tensor):
            raise error(ValueError, f"Thing passed to transform API must be Tensor, got {type(t)}")
    return leaves, spec


def with_aux(result: Any, has_aux: bool, transformation: str) -> tuple[Any, Any]:
    """(output, aux) of a function's result."""
    if not has_aux:
        return result, None
    if not isinstance(result, tuple) or len(result) != 2:
        raise error(RuntimeError, f"{transformation}: output of function f should be a tuple: (output, aux) if has_aux is True")
    return result


def output_tensors(output: Any, transformation: str, call: str) -> tuple[list[Tensor], TreeSpec]:
    """The tensors of an output that may be nested, but must have some and nothing else."""
    leaves, spec = tree_flatten(output)
    if not leaves or leaves == [None]:
        raise error(RuntimeError, f"{transformation}: Expected f to be a function that has non-empty output (got output = {leaves})")
    for t in leaves:
        if not isinstance(t, Tensor):
            raise error(RuntimeError, f"{transformation}: expected {call} to return only tensors, got unsupported type {type(t)}")
    return leaves, spec


def named(transformed: Callable[..., Any], func: Callable[..., Any]) -> Callable[..., Any]:
    """``transformed`` under the name and signature of ``func``, where that has them."""
    import functools

    try:
        return functools.wraps(func)(transformed)
    except (AttributeError, TypeError):
        return transformed
