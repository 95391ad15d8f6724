"""The course of a check: derivatives first, then the rules that every backward must keep."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ...core.errors import error
from . import GradcheckError, analytical, numerical
from .problem import Options, Problem, close, is_complex
from .vectors import Uniform


def run(func: Callable[..., Any], inputs: Any, options: Options) -> bool:
    """True, or GradcheckError."""
    p = Problem(func, inputs, options)
    if not p.outs:
        independent(p)
    else:
        derivatives(p)
    if not (options.backward_ad and p.outs) and not options.batched_forward_grad and not (options.forward_ad and options.undefined_grad):
        return True
    from . import further

    if options.forward_ad and options.undefined_grad and p.outs:
        further.undefined_tangents(p)
    if options.batched_forward_grad:
        further.batched_tangents(p)
    if options.backward_ad and p.outs:
        if options.batched_grad:
            further.batched_gradients(p)
        further.multiplied_by_grad_output(p)
        if options.undefined_grad:
            further.undefined_gradients(p)
    return True


def derivatives(p: Problem) -> None:
    if p.options.backward_ad:
        fast_backward(p) if p.options.fast else slow_backward(p)
    if p.options.forward_ad:
        fast_forward(p) if p.options.fast else slow_forward(p)


def independent(p: Problem) -> None:
    """Where no output requires grad, none may depend on the inputs that do."""
    draw = Uniform()
    for j, x in enumerate(p.wanted):
        for o, d in enumerate(numerical.along(p, j, draw.directions(x)) if p.options.fast else p.numerical(j)):
            if (np.abs(d) > (p.options.nondet_tol if p.options.fast else 0)).any():
                raise error(
                    GradcheckError,
                    "Numerical gradient for function expected to be zero",
                    hint=f"{p.output_name(o)} changes with {p.input_name(j)}, but doesn't require grad: something on the way cuts the "
                    "graph (detach(), .data, no_grad, .numpy(), .item()).",
                )


def over_parts(parts: tuple[str, ...], things: Any) -> list[tuple[str, int]]:
    """(part, number): first all imaginary parts and what is real, then the real parts."""
    return [(part, i) for part in parts for i, t in enumerate(things) if part == parts[0] or is_complex(t)]


# ---- every entry -------------------------------------------------------------------------------------------------
def slow_backward(p: Problem) -> None:
    """Jacobians by central differences and by backward passes."""
    wanted = range(len(p.wanted))
    for j in wanted:
        p.numerical(j)
    for part, o in over_parts(p.output_parts, p.outs):
        found = analytical.jacobians(p, o, part)
        for j in wanted:
            num = numerical.gradient_of(p.numerical(j)[o], part)
            ana = found[j].jacobian
            if not close(ana, num, p.options.rtol, p.options.atol).all():
                from .report import mismatch

                raise mismatch(p, o, j, part, num, ana, found[j].unused)


def slow_forward(p: Problem) -> None:
    """Jacobians by central differences and by tangents."""
    found: dict[tuple[str, int], list[np.ndarray]] = {}
    for part in p.input_parts:
        for o in range(len(p.outs)):
            for j, x in enumerate(p.wanted):
                if part != p.input_parts[0] and not is_complex(x):
                    continue
                if (part, j) not in found:
                    found[part, j] = analytical.forward_columns(p, j, part)
                num, ana = p.numerical(j)[o][part_number(x, part)], found[part, j][o]
                if not close(ana, num, p.options.rtol, p.options.atol).all():
                    from .report import mismatch

                    raise mismatch(p, o, j, part, num, ana, forward=True)


def part_number(x: Any, part: str) -> int:
    return int(part == "imaginary" and is_complex(x))


# ---- random directions -------------------------------------------------------------------------------------------
def fast_backward(p: Problem) -> None:
    """``vᵀ J u`` by central differences along u and by the backward pass of v."""
    draw = Uniform()
    us = [draw.directions(x) for x in p.wanted]
    vs = [draw.direction(o) for o in p.outs]
    moved = [numerical.along(p, j, us[j] if len(us[j]) == 1 else [us[j][0], 1j * us[j][1]]) for j in range(len(p.wanted))]
    for part, o in over_parts(p.output_parts, p.outs):
        found = analytical.products(p, o, part, vs[o])
        for j, u in enumerate(us):
            num = (numerical.gradient_of(moved[j][o], part) * vs[o]).sum()
            g = found[j].jacobian[:, 0]
            ana = g @ u[0] if len(u) == 1 else g.real @ u[0] + 1j * (g.imag @ u[1])
            atol = p.options.atol * float(sum(x.sum() for x in u)) * float(vs[o].sum())
            if not close(np.asarray(ana), np.asarray(num), p.options.rtol, atol).all():
                from .report import mismatch

                raise mismatch(p, o, j, part, np.asarray(num), np.asarray(ana), found[j].unused, fast=True)


def fast_forward(p: Problem) -> None:
    """``J u`` by central differences and by a tangent u."""
    for part in p.input_parts:
        draw = Uniform()
        us = [draw.direction(x) for x in p.wanted]
        found = []
        for j, x in enumerate(p.wanted):
            d = us[j].reshape(x._a.shape) * analytical.direction_of(x, part)
            found.append([(n[0], a[0]) for n, a in zip(numerical.along(p, j, [d]), analytical.tangents_along(p, j, [d]))])
        for j, (x, u) in enumerate(zip(p.wanted, us)):
            if part != p.input_parts[0] and not is_complex(x):
                continue
            for o, (num, ana) in enumerate(found[j]):
                if not close(ana, num, p.options.rtol, p.options.atol * float(u.sum())).all():
                    from .report import mismatch

                    raise mismatch(p, o, j, part, num, ana, forward=True, fast=True)
