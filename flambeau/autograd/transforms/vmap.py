"""``vmap``: a function of one example, made one of a batch. The work is in ``batching.py``."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from ...core.errors import error
from ...core.modes import full, reset_mode, set_mode
from ...core.pytree import _broadcast_to_and_flatten, tree_flatten, tree_unflatten
from ...core.tensor import Tensor
from .batched import Batched, Level, batched

RANDOMNESS = ("error", "different", "same")


def vmap(
    func: Callable[..., Any],
    in_dims: Any = 0,
    out_dims: Any = 0,
    randomness: str = "error",
    *,
    chunk_size: int | None = None,
) -> Callable[..., Any]:
    """The function that maps ``func`` over a dimension of its arguments.

    Args:
        func: of one example; returns a tensor or a nest of tensors.
        in_dims: which dimension of each argument is mapped over, None for an argument that is the same for all: one
            number for all arguments, or a tuple with one entry, a number or a nest of them, for each.
        out_dims: where the batch's dimension goes in each output: a number, or a nest of them.
        randomness: "error": drawing random numbers is refused; "different": each example draws its own; "same": all
            get the same numbers.
        chunk_size: map over so many examples at once, which takes less memory; None: over all.

    Keyword arguments of the new function are not mapped over: all examples get them as they are.

    >>> import flambeau as torch
    >>> dot = torch.vmap(torch.dot)
    >>> dot(torch.tensor([[1., 2.], [3., 4.]]), torch.tensor([[1., 1.], [2., 2.]]))
    tensor([ 3., 14.])
    """
    if randomness not in RANDOMNESS:
        raise error(RuntimeError, f"Only allowed values for randomness are 'error', 'different', or 'same'. Got {randomness}")
    if not (chunk_size is None or chunk_size > 0):
        raise error(ValueError, f"vmap: chunk_size should be None or greater than 0. (got {chunk_size})")
    name = getattr(func, "__name__", repr(func))

    @functools.wraps(func)
    def mapped(*args: Any, **kwargs: Any) -> Any:
        leaves, dims, spec, size = mapped_inputs(name, in_dims, args)
        fn = functools.partial(func, **kwargs) if kwargs else func
        if chunk_size is None or chunk_size >= size:
            flat, out_spec, where = run(fn, name, leaves, dims, spec, size, out_dims, randomness)
        else:
            parts = []
            for start in range(0, size, chunk_size):
                n = min(chunk_size, size - start)
                part = [x if d is None else x.narrow(d, start, n) for x, d in zip(leaves, dims)]
                parts.append(run(fn, name, part, dims, spec, n, out_dims, randomness))
            _, out_spec, where = parts[0]
            joined = zip(*[p[0] for p in parts])
            flat = [xs[0] if d is None else concatenated(xs, d) for xs, d in zip(joined, where)]
        return tree_unflatten(flat, out_spec)

    return mapped


def concatenated(tensors: Any, dim: int) -> Tensor:
    from ..primitive import PRIMITIVES

    return PRIMITIVES["cat"](*tensors, dim=dim % tensors[0]._a.ndim)


def mapped_inputs(name: str, in_dims: Any, args: tuple[Any, ...]) -> tuple[list[Any], list[Any], Any, int]:
    """(leaves of the arguments, the dimension of each that is mapped or None, their structure, size of the batch)."""
    where = f"vmap({name}, in_dims={in_dims}, ...)(<inputs>): "
    if not isinstance(in_dims, (int, tuple)):
        raise error(
            ValueError, where + f"expected `in_dims` to be int or a (potentially nested) tuple matching the structure of inputs, got: {type(in_dims)}."
        )
    if not args:
        raise error(
            ValueError,
            f"vmap({name})(<inputs>): got no inputs. Maybe you forgot to add inputs, or you are trying to vmap over a function with no inputs. "
            "The latter is unsupported.",
        )
    leaves, spec = tree_flatten(args)
    dims = _broadcast_to_and_flatten(in_dims, spec)
    if dims is None:
        raise error(
            ValueError,
            where + f"in_dims is not compatible with the structure of `inputs`. in_dims has structure {tree_flatten(in_dims)[1]} but inputs has "
            f"structure {spec}.",
        )
    sizes = []
    for i, (x, d) in enumerate(zip(leaves, dims)):
        if d is None:
            continue
        if isinstance(d, bool) or not isinstance(d, int):
            raise error(ValueError, where + f"Got in_dim={d} for an input but in_dim must be either an integer dimension or None.")
        if not isinstance(x, Tensor):
            raise error(
                ValueError,
                where + f"Got in_dim={d} for an input but the input is of type {type(x)}. We cannot vmap over non-Tensor arguments, please use "
                "None as the respective in_dim",
            )
        n = x._a.ndim
        if not -n <= d < n:
            raise error(
                ValueError,
                where + f"Got in_dim={d} for some input, but that input is a Tensor of dimensionality {n} so expected in_dim to satisfy "
                f"-{n} <= in_dim < {n}.",
            )
        dims[i] = d % n
        sizes.append(x._a.shape[dims[i]])
    if not sizes:
        raise error(ValueError, "vmap: Expected at least one Tensor to vmap over")
    if len(set(sizes)) > 1:
        raise error(ValueError, f"vmap: Expected all tensors to have the same size in the mapped dimension, got sizes {sizes} for the mapped dimension")
    return leaves, dims, spec, sizes[0]


def run(
    func: Callable[..., Any], name: str, leaves: list[Any], dims: list[Any], spec: Any, size: int, out_dims: Any, randomness: str
) -> tuple[list[Any], Any, list[Any]]:
    """One call of ``func`` on all examples: (leaves of what it returned, their structure, where the batch is in each)."""
    m = full()
    level = Level(len(m.batch) + 1, size, randomness)
    token = set_mode(m.replace(batch=(*m.batch, level)))
    try:
        inside = [x if d is None else batched(x.movedim(d, 0) if d else x, level) for x, d in zip(leaves, dims)]
        out = func(*tree_unflatten(inside, spec))
    finally:
        reset_mode(token)
    flat, out_spec = tree_flatten(out)
    if any([not isinstance(d, int | None) for d in tree_flatten(out_dims)[0]]):
        raise error(
            ValueError,
            f"vmap({name}, ..., out_dims={out_dims}): `out_dims` must be an int, None or a python collection of ints representing where in "
            "the outputs the vmapped dimension should appear.",
        )
    where = _broadcast_to_and_flatten(out_dims, out_spec)
    if where is None and isinstance(out_dims, tuple) and len(out_dims) == 1:
        where = _broadcast_to_and_flatten(out_dims[0], out_spec)
    if where is None:
        raise error(
            ValueError,
            f"vmap({name}, ..., out_dims={out_dims})(<inputs>): out_dims is not compatible with the structure of `outputs`. out_dims has structure "
            f"{tree_flatten(out_dims)[1]} but outputs has structure {out_spec}.",
        )
    return [outside(x, d, level, name) for x, d in zip(flat, where)], out_spec, where


def outside(x: Any, dim: Any, level: Level, name: str) -> Any:
    """What the whole batch gives for an output, the batch at dimension ``dim``."""
    inside = x.__class__ is Batched and x._level is level
    if dim is None:
        if inside:
            raise error(ValueError, f"vmap({name}, ...): `{name}` can not return a BatchedTensor when out_dim is None")
        return x
    if not isinstance(x, Tensor):
        raise error(
            ValueError,
            f"vmap({name}, ...): `{name}` must only return Tensors, got type {type(x)}. Did you mean to set out_dims= to None for output?",
        )
    value = x._value if inside else x.expand(level.size, *x._a.shape)
    n = value._a.ndim
    if not isinstance(dim, int) or not -n <= dim < n:
        raise error(IndexError, f"Dimension out of range (expected to be in range of [-{n}, {n - 1}], but got {dim})")
    return value.movedim(0, dim) if dim else value


__all__ = ["vmap"]
