"""What a failed check says: PyTorch's words and the two Jacobians, the worst entries, the likely cause, where to look."""

from __future__ import annotations

import linecache
from typing import Any

import numpy as np

from ...core.errors import describe
from ...core.tensor import Tensor, wrap
from ..node import Node, accumulator
from . import GradcheckError, analytical, numerical
from .problem import Problem, close, is_complex

SHOWN = 5  # entries, nodes
AFFORDABLE = 2000  # calls and passes that a failure of fast mode may cost to be explained


@np.errstate(invalid="ignore", over="ignore")
def mismatch(
    p: Problem, o: int, j: int, part: str, num: np.ndarray, ana: np.ndarray, unused: bool = False, forward: bool = False, fast: bool = False
) -> GradcheckError:
    """The error for output ``o`` and input ``j``, whose Jacobians (or, in fast mode, products of them) disagree."""
    complex_here = is_complex(p.wanted[j] if forward else p.outs[o])
    text = f"While considering the {part} part of complex {'inputs' if forward else 'outputs'} only, " if complex_here else ""
    text += f"Jacobian {'computed with forward mode ' if forward else ''}mismatch for output {o} with respect to input {j},\n"
    text += f"numerical:{shown(num)}\nanalytical:{shown(ana)}\n"
    if fast:
        full = affordable_jacobians(p, o, j, part, forward)
        if full is None:
            note = "\nThese are products with random vectors (fast mode), and the Jacobians are too large to be computed for this message: fast_mode=False does it.\n"
            return GradcheckError(text + note + origin(p, o, j, forward))
        num, ana, unused = full
        text += "\nThese are products with random vectors (fast mode). The Jacobians themselves (slow mode):\n\n"
        text += f"Numerical:\n{shown(num)}\nAnalytical:\n{shown(ana)}\n\nThe max per-element difference (slow mode) is: {greatest_difference(num, ana):.6g}.\n"
        if close(ana, num, p.options.rtol, p.options.atol).all():
            text += "Fast gradcheck failed but element-wise differences are small: fast_mode=False may pass.\n"
            return GradcheckError(text + origin(p, o, j, forward))
    from .causes import likely_cause

    cause = likely_cause(p, o, j, part, num, ana, unused, forward)
    return GradcheckError(text + worst_entries(p, o, j, num, ana) + (f"Likely cause: {cause}\n" if cause else "") + origin(p, o, j, forward))


def shown(a: np.ndarray) -> str:
    return repr(wrap(a)) if a.ndim else str(a.item())


def greatest_difference(num: np.ndarray, ana: np.ndarray) -> float:
    return float(np.abs(num - ana).max()) if num.size else 0.0


def affordable_jacobians(p: Problem, o: int, j: int, part: str, forward: bool) -> tuple[np.ndarray, np.ndarray, bool] | None:
    """(numerical, analytical, whether the input is unused), unless that is too much work."""
    x, out = p.wanted[j], p.outs[o]
    if x._a.size + out._a.size > AFFORDABLE:
        return None
    if forward:
        from .check import part_number

        return p.numerical(j)[o][part_number(x, part)], analytical.forward_columns(p, j, part)[o], False
    units = analytical.unit_vectors(out, analytical.direction_of(out, part))
    (found,) = analytical.backward(out, [x], units, out._a.size)
    return numerical.gradient_of(p.numerical(j)[o], part), found.jacobian, found.unused


def entry(name: str, flat: Any, shape: tuple[int, ...]) -> str:
    """``name[1, 2]``."""
    at = ", ".join([str(int(i)) for i in np.unravel_index(flat, shape)])
    return f"{name}[{at}]" if at else name


def worst_entries(p: Problem, o: int, j: int, num: np.ndarray, ana: np.ndarray) -> str:
    """The entries that differ most, by their indices in the output and the input."""
    excess = np.abs(ana - num) - p.options.rtol * np.abs(num)
    wrong = int((~close(ana, num, p.options.rtol, p.options.atol)).sum())
    order = np.argsort(-np.where(np.isnan(excess), np.inf, excess), axis=None, kind="stable")[: min(SHOWN, wrong)]
    lines = []
    for k in order:
        row, column = np.unravel_index(k, num.shape)
        d_out = entry(p.output_name(o), column, p.outs[o]._a.shape)
        d_in = entry(p.input_name(j), row, p.wanted[j]._a.shape)
        lines.append(f"  d {d_out} / d {d_in}: numerical {number(num[row, column])}, analytical {number(ana[row, column])}")
    return f"\n{wrong} of {num.size} entries differ; the worst:\n" + "\n".join(lines) + "\n"


def number(v: Any) -> str:
    return f"{v.item():.8g}"


# ---- where the derivative is written ------------------------------------------------------------------------------
def origin(p: Problem, o: int, j: int, forward: bool) -> str:
    """The nodes between output and input: custom Functions by the line of their backward, others by that of their call."""
    places = [place(node, forward) for node in nodes_between(p.outs[o], p.wanted[j])]
    places = list(dict.fromkeys(sorted(places, key=lambda it: not it[0])))  # what users wrote comes first
    if not places:
        return ""
    title = f"The {'derivatives' if len(places) > 1 else 'derivative'} between the two:\n"
    more = [f"  and {len(places) - SHOWN} more"] if len(places) > SHOWN else []
    return title + "\n".join([f"  {text}" for _, text in places[:SHOWN]] + more) + "\n"


def nodes_between(out: Tensor, x: Tensor) -> list[Node]:
    """The nodes on a path from one to the other, latest first."""
    target = node_of(x)
    parents: dict[Node, list[Node]] = {}
    seen = {target}
    stack = [node_of(out)]
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        for following in node.next:
            if following is not None:
                parents.setdefault(following, []).append(node)
                stack.append(following)
    between: set[Node] = set()
    stack = list(parents.get(target, ()))
    while stack:
        node = stack.pop()
        if node not in between:
            between.add(node)
            stack += parents.get(node, ())
    return sorted(between, key=lambda n: -n.seq)


def node_of(t: Tensor) -> Node:
    return t._grad_fn if t._grad_fn is not None else accumulator(t)


def place(node: Node, forward: bool) -> tuple[bool, str]:
    """(whether a user wrote the derivative, where it is)."""
    cls = getattr(node, "_forward_cls", None)
    if cls is None:
        return False, f"{node.name()}, recorded at {describe(node.where)}"
    from ..function import Function

    method = "jvp" if forward else "backward" if cls.backward is not Function.backward else "vjp"
    return True, f"{cls.__qualname__}.{method} at {definition(getattr(cls, method))}"


def definition(fn: Any) -> str:
    """``file.py:12``, the line of the ``def``."""
    fn = getattr(fn, "__wrapped__", fn)
    code = getattr(fn, "__code__", None)
    if code is None:
        return repr(fn)
    line = code.co_firstlineno
    while linecache.getline(code.co_filename, line).lstrip().startswith("@"):
        line += 1
    return f"{code.co_filename}:{line}"
