"""Parts of matrices: triangles and traces."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..autograd.primitive import primitive
from ..core.errors import error
from ..core.tensor import Tensor
from .public import public
from .takes import takes
from .views import _diagonal_embed


@primitive("tril", vjp={"x": lambda g, k: _tril(g, k)}, jvp="linear", batch={})
def _tril(x: Any, /, k: int) -> Any:
    return np.tril(x, k)


@primitive("triu", vjp={"x": lambda g, k: _triu(g, k)}, jvp="linear", batch={})
def _triu(x: Any, /, k: int) -> Any:
    return np.triu(x, k)


def _matrix(name: str, x: Tensor) -> None:
    if x._a.ndim < 2:
        raise error(RuntimeError, f"{name}: input tensor must have at least 2 dimensions")


@public(inplace=True, out=True)
def tril(input: Tensor, diagonal: int = 0) -> Tensor:
    """The lower triangle of each matrix, up to ``diagonal``; 0 above it.

    >>> import flambeau as torch
    >>> torch.tril(torch.ones(2, 2))
    tensor([[1., 0.],
            [1., 1.]])
    """
    _matrix("tril", input)
    return _tril(input, int(diagonal))


@public(inplace=True, out=True)
def triu(input: Tensor, diagonal: int = 0) -> Tensor:
    """The upper triangle of each matrix, from ``diagonal`` on; 0 below it."""
    _matrix("triu", input)
    return _triu(input, int(diagonal))


@primitive(
    "trace", vjp={"x": lambda g, x_shape: _diagonal_embed(g.expand(min(x_shape)), x_shape, 0, 0, 1)}, jvp="linear",
    batch=lambda b, x: x.diagonal(0, 1, 2).sum(-1),
)  # fmt: skip
def _trace(x: Any, /) -> Any:
    total = np.trace(x.astype(np.float32) if x.dtype.kind == "V" or x.dtype == np.float16 else x)
    return np.asarray(total, np.int64 if x.dtype.kind in "iub" else x.dtype)


@public
def trace(input: Tensor) -> Tensor:
    """The sum of the diagonal of a matrix."""
    if input._a.ndim != 2:
        raise error(RuntimeError, f"trace: expected a matrix, but got tensor with dim {input._a.ndim}")
    takes("trace", input, "ihfc")
    return _trace(input)
