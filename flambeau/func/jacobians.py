"""Whole Jacobians and Hessians: products with unit vectors, all of them in one vmap."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..autograd.transforms.vmap import vmap
from ..core.dtypes import COMPLEX
from ..core.errors import error
from ..core.pytree import TreeSpec, tree_flatten, tree_map
from ..core.tensor import Tensor, wrap
from .argnums import Argnums, Arguments, named
from .forward import jvp
from .reverse import pullback


def jacrev(
    func: Callable[..., Any],
    argnums: Argnums = 0,
    *,
    has_aux: bool = False,
    chunk_size: int | None = None,
    _preallocate_and_copy: bool = False,
) -> Callable[..., Any]:
    """A function that returns the Jacobian of ``func``, by reverse mode: row after row.

    For an output and an input the Jacobian is a tensor of shape ``[*output.shape, *input.shape]``; where there are
    several, the structure of the outputs holds the structure of the inputs.

    Args:
        func: returns a tensor, or a nest of them.
        argnums: the positions of the arguments to differentiate by: an int, or a tuple. They may be nests of tensors.
        has_aux: ``func`` returns ``(output, aux)``, and the transformed function ``(jacobian, aux)``.
        chunk_size: how many rows are computed at a time; default: all.

    >>> import flambeau as torch
    >>> torch.func.jacrev(torch.sin)(torch.tensor([0., 1.]))
    tensor([[1.0000, 0.0000],
            [0.0000, 0.5403]])
    """
    if chunk_size is not None and chunk_size <= 0:
        raise error(ValueError, "jacrev: `chunk_size` should be greater than 0.")

    def transformed(*args: Any) -> Any:
        given = Arguments(args, argnums)
        refuse_complex(given.leaves, "jacrev")

        def of_leaves(leaves: list[Tensor]) -> Any:
            return func(*given.replaced(leaves))

        output, products, aux = pullback(of_leaves, (given.leaves,), has_aux)
        outputs, structure = tree_flatten(output)
        refuse_complex(outputs, "jacrev", "outputs")
        blocks = []
        for i, o in enumerate(outputs):
            n, shapes = o._a.size, [(*o._a.shape, *x._a.shape) for x in given.leaves]
            if n:
                rows = vmap(lambda unit, i=i: products.rows(i, unit), chunk_size=chunk_size)(unit_vectors(o))
                rows = [r.reshape(shape) for r, shape in zip(rows, shapes)]
            else:
                rows = [x.new_zeros(shape) for x, shape in zip(given.leaves, shapes)]
            blocks.append(given.as_given(rows))
        jacobian = structure.unflatten(blocks)
        return (jacobian, aux) if has_aux else jacobian

    return named(transformed, func)


def jacfwd(func: Callable[..., Any], argnums: Argnums = 0, has_aux: bool = False, *, randomness: str = "error") -> Callable[..., Any]:
    """A function that returns the Jacobian of ``func``, by forward mode: column after column.

    It returns what ``jacrev`` does, at less cost where there are more outputs than inputs. ``randomness`` is vmap's:
    what random operators in ``func`` do ("error", "same", "different").

    >>> import flambeau as torch
    >>> torch.func.jacfwd(torch.sin)(torch.tensor([0., 1.]))
    tensor([[1.0000, 0.0000],
            [0.0000, 0.5403]])
    """

    def transformed(*args: Any) -> Any:
        given = Arguments(args, argnums)
        xs = given.leaves
        refuse_complex(xs, "jacfwd")
        structure: TreeSpec | None = None

        def column(*units: Tensor) -> Any:
            nonlocal structure
            found = jvp(lambda *leaves: func(*given.replaced(list(leaves))), tuple(xs), units, has_aux=has_aux)
            tangents, structure = tree_flatten(found[1])
            refuse_complex(tangents, "jacfwd", "outputs")
            return tangents, found[2] if has_aux else ()

        ends = np.cumsum([x._a.size for x in xs])
        total = int(ends[-1]) if len(ends) else 0
        # Without elements there are no columns; one that is thrown away says what shapes there are.
        units = [block_of_units(x, int(end) - x._a.size, max(total, 1)) for x, end in zip(xs, ends)]
        tangents, aux = vmap(column, randomness=randomness)(*units)
        assert structure is not None
        starts = [int(end) - x._a.size for x, end in zip(xs, ends)]
        blocks = []
        for t in tangents:
            columns = t.movedim(0, -1)
            parts = [columns.narrow(-1, s, x._a.size).reshape(*columns.shape[:-1], *x._a.shape) for x, s in zip(xs, starts)]
            blocks.append(given.as_given(parts))
        jacobian = structure.unflatten(blocks)
        return (jacobian, tree_map(lambda t: t[0], aux)) if has_aux else jacobian

    return named(transformed, func)


def hessian(func: Callable[..., Any], argnums: Argnums = 0) -> Callable[..., Any]:
    """A function that returns the Hessian of ``func``: ``jacfwd(jacrev(func))``.

    >>> import flambeau as torch
    >>> torch.func.hessian(lambda x: (x ** 3).sum())(torch.tensor([1., 2.]))
    tensor([[ 6.,  0.],
            [ 0., 12.]])
    """
    return jacfwd(jacrev(func, argnums), argnums)


def unit_vectors(like: Tensor) -> Tensor:
    """For n elements, n tensors of this shape, each 1 in one place and 0 elsewhere."""
    return block_of_units(like, 0, like._a.size)


def block_of_units(like: Tensor, start: int, total: int) -> Tensor:
    """``total`` tensors of this shape: from ``start`` on, the unit vectors; zeros before and after."""
    n = like._a.size
    rows = np.zeros((total, n), like._a.dtype)
    rows[np.arange(start, start + n), np.arange(n)] = 1
    return wrap(rows.reshape(total, *like._a.shape))


def refuse_complex(leaves: list[Tensor], name: str, which: str = "inputs") -> None:
    for i, t in enumerate(leaves):
        if t.dtype.category == COMPLEX:
            raise error(RuntimeError, f"{name}: Expected all {which} to be real but received complex tensor at flattened input idx: {i}")
