"""Central differences.

The input is changed in its own storage and put back, as in PyTorch: so the function may also reach it by a closure,
and gradients inside the function see the very tensor they are asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ...core.errors import error
from ...core.size import Size
from ...core.tensor import Tensor
from .problem import Problem, is_complex, output_tensors


def evaluate(func: Callable[..., Any], args: tuple[Any, ...], which: list[int]) -> list[np.ndarray]:
    """The outputs ``which``, copied: they may share the memory of an input."""
    outs = output_tensors(func(*args))
    return [outs[i]._a.copy() for i in which]


def difference(func: Callable[..., Any], args: tuple[Any, ...], which: list[int], x: Tensor, index: Any, step: Any, eps: float) -> list[np.ndarray]:
    """``(f(x + step) - f(x - step)) / (2 eps)``, flat, where ``step`` is added at ``x[index]``."""
    old = x._a[index].copy()
    try:
        x._a[index] = old - step
        below = evaluate(func, args, which)
        x._a[index] = old + step
        above = evaluate(func, args, which)
    finally:
        x._a[index] = old
    found = []
    for a, b in zip(below, above):
        if a.shape != b.shape or a.dtype != b.dtype:
            changed(a, b, index, eps)
        found.append((b - a).reshape(-1) / (2 * eps))
    return found


def changed(a: np.ndarray, b: np.ndarray, index: Any, eps: float) -> None:
    what, one, other = ("shape", Size(a.shape), Size(b.shape)) if a.shape != b.shape else ("dtype", a.dtype, b.dtype)
    place = "" if index is ... else f"on index {index} "
    raise error(
        AssertionError,
        f"Expected `func` to return outputs with the same {what} when inputs are perturbed {place}by {eps}, "
        f"but got: {what}s {one} and {other}.",
    )


def columns(func: Callable[..., Any], args: tuple[Any, ...], x: Tensor, eps: float, which: list[int]) -> list[np.ndarray]:
    """The derivative of each output along each entry of ``x``: (directions, entries of x, entries of the output).

    There is one direction, 1, or two for a complex ``x``: 1 and i.
    """
    steps = (eps, 1j * eps) if is_complex(x) else (eps,)
    found = [[difference(func, args, which, x, index, step, eps) for index in np.ndindex(x._a.shape)] for step in steps]
    if not x._a.size:
        return [np.zeros((len(steps), 0, o.size), o.dtype) for o in evaluate(func, args, which)]
    return [np.array([[entry[o] for entry in direction] for direction in found]) for o in range(len(which))]


def along(p: Problem, j: int, directions: list[np.ndarray]) -> list[np.ndarray]:
    """The derivative of each output along whole directions of input ``j``: (directions, entries of the output)."""
    x, eps = p.wanted[j], p.options.eps
    found = [difference(p.probe, p.args, p.seen_at, x, ..., (eps * d).reshape(x._a.shape), eps) for d in directions]
    return [np.array([f[o] for f in found]) for o in range(len(p.seen_at))]


def gradient_of(d: np.ndarray, part: str) -> np.ndarray:
    """From derivatives along 1 (and i) the gradient that backward should give for a part of the output.

    For a real function f of z = a + bi it is ∂f/∂a + i ∂f/∂b.
    """
    if d.dtype.kind == "c":
        d = d.imag if part == "imaginary" else d.real
    return d[0] if len(d) == 1 else d[0] + 1j * d[1]
