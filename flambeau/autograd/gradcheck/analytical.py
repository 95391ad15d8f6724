"""Jacobians, and their products with a vector, by the backward pass and by forward mode."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...core.errors import error
from ...core.tensor import Tensor, wrap
from ..engine import grad
from . import GradcheckError
from .problem import Problem, is_complex, output_tensors


@dataclass(slots=True)
class Gradient:
    """What backward passes gave for one input: ``jacobian`` has an entry of the input for a row, a pass for a column."""

    jacobian: np.ndarray
    unused: bool = True  # no pass gave a gradient
    sizes_ok: bool = True
    types_ok: bool = True


def backward(out: Tensor, wanted: list[Tensor], vectors: Any, count: int) -> list[Gradient]:
    """One backward pass of ``out`` for each vector; of the graph nothing is freed."""
    found = [Gradient(np.zeros((x._a.size, count), x._a.dtype)) for x in wanted]
    for c, v in enumerate(vectors):
        for x, g, into in zip(wanted, grad((out,), wanted, (wrap(v),), retain_graph=True, allow_unused=True), found):
            if g is None:
                continue
            into.unused = False
            a = g._a
            if a.shape != x._a.shape:
                into.sizes_ok = False
                continue
            if a.dtype != x._a.dtype:
                into.types_ok = False
                if a.dtype.kind == "c" and into.jacobian.dtype.kind != "c":
                    into.jacobian = into.jacobian.astype(np.complex128)
            into.jacobian[:, c] = a.reshape(-1)
    return found


def unit_vectors(out: Tensor, direction: complex) -> Any:
    """One after the other in the same array."""
    e = np.zeros(out._a.shape, out._a.dtype)
    flat = e.reshape(-1)
    for k in range(flat.size):
        flat.fill(0)
        flat[k] = direction
        yield e


def direction_of(out: Tensor, part: str) -> complex:
    """The gradient of a part of ``out``, for one entry: of the imaginary part it is i."""
    return 1j if part == "imaginary" and is_complex(out) else 1.0


def jacobians(p: Problem, o: int, part: str) -> list[Gradient]:
    """The Jacobian of a part of output ``o`` for each input, computed twice to see that it is the same."""
    out = p.outs[o]
    direction, n = direction_of(out, part), out._a.size
    found = backward(out, p.wanted, unit_vectors(out, direction), n)
    check_attributes(p, o, found, backward(out, p.wanted, unit_vectors(out, direction), n))
    return found


def products(p: Problem, o: int, part: str, v: np.ndarray) -> list[Gradient]:
    """``vᵀ J`` of a part of output ``o`` for each input, likewise."""
    out = p.outs[o]
    vector = (v * direction_of(out, part)).astype(out._a.dtype).reshape(out._a.shape)
    found = backward(out, p.wanted, [vector], 1)
    check_attributes(p, o, found, backward(out, p.wanted, [vector], 1))
    return found


def check_attributes(p: Problem, o: int, found: list[Gradient], again: list[Gradient]) -> None:
    """Sizes, dtypes, and that a second run gave the same."""
    for j, one in enumerate(found):
        name = f"of {p.output_name(o)} for {p.input_name(j)}"
        if not one.types_ok and p.options.grad_dtypes:
            raise error(GradcheckError, "Gradient has dtype mismatch", hint=f"The gradient {name} should be {p.wanted[j].dtype}, as its input is.")
        if not one.sizes_ok:
            raise error(GradcheckError, "Analytical gradient has incorrect size", hint=f"The gradient {name} should have shape {list(p.wanted[j].shape)}.")
    tolerance = p.options.nondet_tol
    for j, (one, two) in enumerate(zip(found, again)):
        if not one.jacobian.size:
            continue
        with np.errstate(invalid="ignore"):
            differ = np.nan_to_num(np.abs(one.jacobian - two.jacobian))
        if (differ > tolerance).any():
            worst = int(differ.max(axis=1).argmax())
            place = ", ".join(map(str, np.unravel_index(worst, p.wanted[j]._a.shape)))
            raise error(
                GradcheckError,
                "Backward is not reentrant, i.e., running backward with same input and grad_output multiple times gives "
                "different values, although analytical gradient matches numerical gradient."
                f"The tolerance for nondeterminism was {tolerance}.",
                hint=f"The gradient for {p.input_name(j)}{f'[{place}]' if place else ''} changed by {differ.max():.3g} from one run to the next. "
                "If that is intended (random or unordered work in the backward), pass nondet_tol.",
            )


# ---- forward mode ------------------------------------------------------------------------------------------------
def tangents_along(p: Problem, j: int, directions: Any) -> list[np.ndarray]:
    """The tangents of the outputs when input ``j`` moves along each direction: (directions, entries of the output)."""
    from .. import forward_ad

    with forward_ad.dual_level():
        args = list(p.args)
        for i, x in zip(p.wanted_at, p.wanted):
            args[i] = forward_ad.make_dual(x.detach(), wrap(np.zeros_like(x._a)))
        found = []
        for d in directions:
            x = p.wanted[j]
            args[p.wanted_at[j]] = forward_ad.make_dual(x.detach(), wrap(d.astype(x._a.dtype).reshape(x._a.shape)))
            outs = output_tensors(p.func(*args))
            found.append([flat_tangent(p, forward_ad.unpack_dual, outs[i]) for i in p.seen_at])
    return [np.array([f[o] for f in found]) if found else np.zeros((0, p.all_outs[i]._a.size)) for o, i in enumerate(p.seen_at)]


def flat_tangent(p: Problem, unpack: Callable[[Tensor], Any], out: Tensor) -> np.ndarray:
    value, tangent = unpack(out)
    if tangent is None:
        return np.zeros(value._a.size, value._a.dtype)
    if p.options.grad_dtypes and is_complex(tangent) != is_complex(value):
        raise error(GradcheckError, "Forward AD gradient has dtype mismatch.")
    return np.array(tangent._a).reshape(-1)


def forward_columns(p: Problem, j: int, part: str) -> list[np.ndarray]:
    """The Jacobian of each output for input ``j``, one tangent for each entry; the imaginary part moves it along i."""
    x = p.wanted[j]
    direction = direction_of(x, part)
    return tangents_along(p, j, unit_vectors(x, direction))
