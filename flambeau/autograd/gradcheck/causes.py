"""What is probably wrong with a derivative, from the two Jacobians.

Each cause looks at the evidence and answers with a sentence, or None. The first answer counts, so the order goes from
what would make every comparison meaningless (a random function, a kink) over simple relations between the two
Jacobians (a factor, a transposed gradient) to the place of what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from math import prod

import numpy as np

from ...core.tensor import Tensor
from ..node import Node
from . import analytical, numerical
from .evidence import Evidence, matters, region
from .factors import constant_factor, known_factor, name_factor, ratio
from .problem import Problem, is_complex, wide

DELAYED_ERROR = "Error"  # what PyTorch too calls the node that once_differentiable leaves
MANY = 200  # above that many entries of the input no search among its rows


def likely_cause(p: Problem, o: int, j: int, part: str, num: np.ndarray, ana: np.ndarray, unused: bool, forward: bool) -> str | None:
    """A sentence or two, or None."""
    it = Evidence(p, o, j, part, wide(num), wide(ana), unused, forward)
    try:
        with np.errstate(all="ignore"):
            return next(filter(None, (cause(it) for cause in CAUSES)), None)
    except Exception:  # the user's function is called again here; should it fail now, the verdict stands all the same
        return None


# ---- the comparison itself is in question -------------------------------------------------------------------------
def not_a_function(it: Evidence) -> str | None:
    """Two calls must agree, and leave the input alone."""
    p = it.p
    before = it.x._a.copy()
    one, two = (numerical.evaluate(p.probe, p.args, p.seen_at)[it.o] for _ in range(2))
    if not np.array_equal(before, it.x._a, equal_nan=True):
        it.x._a[...] = before
        return f"the function changes {p.input_name(it.j)} in place: let it work on a clone()."
    if not np.array_equal(one, two, equal_nan=True):
        return "the function isn't deterministic: two calls with the same inputs differ. Seed its random numbers inside, or switch dropout off."
    return None


def overlapping_memory(it: Evidence) -> str | None:
    a = it.x._a
    if a.size < 2 or a.flags.c_contiguous or a.size > 100_000:
        return None
    places = sum((np.arange(n).reshape([-1 if k == axis else 1 for k in range(a.ndim)]) * s for axis, (n, s) in enumerate(zip(a.shape, a.strides))), np.zeros(a.shape, np.int64))
    if np.unique(places).size == a.size:
        return None
    return f"entries of {it.p.input_name(it.j)} share memory (as_strided, unfold, expand), so that changing one changes others: pass a clone()."


def low_precision(it: Evidence) -> str | None:
    x, out = it.x._a, it.out._a
    coarse = [a for a in (x, out) if a.dtype.itemsize < (16 if a.dtype.kind == "c" else 8)]
    if not coarse:
        return None
    step = max(_resolution(a) for a in coarse)
    scale = max(1.0, float(np.abs(wide(out)).max(initial=0)), float(np.abs(wide(x)).max(initial=0)) * float(np.abs(it.num).max(initial=0)))
    if np.nan_to_num(np.abs(it.num - it.ana)).max(initial=0) > 10 * step * scale / it.p.options.eps:
        return None
    return f"rounding: in {it.x.dtype if coarse[0] is x else it.out.dtype}, differences over eps={it.p.options.eps} are this coarse. Use double precision inputs, or a larger eps and atol."


def _resolution(a: np.ndarray) -> float:
    return float(np.finfo(a.dtype).eps) if a.dtype.kind in "fc" else 2.0**-8


def not_finite(it: Evidence) -> str | None:
    for name, a in ((f"the {it.gradient}", it.ana), ("the function's own difference quotient", it.num)):
        bad = ~np.isfinite(a)
        if bad.any():
            at = region(bad.any(axis=1), it.x._a.shape, it.p.input_name(it.j))
            other = it.num if a is it.ana else it.ana
            also = "" if np.isfinite(other).all() else ", and so is the other one"
            return f"{name} is {'nan' if np.isnan(a).any() else 'infinite'} at {at}{also}: look for 0 * inf, 0 / 0 or a root of 0 there."
    return None


def not_smooth(it: Evidence) -> str | None:
    """At the worst entry, the slopes to the left and to the right, with the analytical one between them."""
    if is_complex(it.x) or is_complex(it.out) or not it.wrong.any():
        return None
    p, x, eps = it.p, it.x._a, it.p.options.eps
    for row in np.flatnonzero(it.wrong.any(axis=1))[:5]:
        index = tuple(int(i) for i in np.unravel_index(row, x.shape))
        old = x[index].copy()
        values = []
        try:
            for step in (-eps, 0.0, eps):
                x[index] = old + step
                values.append(wide(numerical.evaluate(p.probe, p.args, p.seen_at)[it.o]).reshape(-1))
        finally:
            x[index] = old
        left, right = (values[1] - values[0]) / eps, (values[2] - values[1]) / eps
        kink = np.abs(right - left) > 0.01 * (np.abs(left) + np.abs(right)) + 1e-3
        low, high = np.minimum(left, right), np.maximum(left, right)
        between = (it.ana[row] >= low - 1e-3) & (it.ana[row] <= high + 1e-3)
        for column in np.flatnonzero(kink & between & it.wrong[row]):
            from .report import entry

            return (
                f"the function isn't smooth at {entry(p.input_name(it.j), row, x.shape)}: its slope is {left[column]:.6g} on one side and "
                f"{right[column]:.6g} on the other. Check at another point."
            )
    return None


# ---- relations between the two ------------------------------------------------------------------------------------
def dropped(it: Evidence) -> str | None:
    if it.ana.any() or not it.num.any():
        return None
    name = it.p.input_name(it.j)
    if it.unused and not it.forward and once_differentiable(it.out):
        return "a backward on the way is marked once_differentiable: its result has no derivative."
    if it.unused and not it.forward:
        return f"the gradient is dropped: no gradient arrives at {name} (backward returns None for it, or detach() cuts the graph)."
    return f"the {it.gradient} is dropped: what arrives for {name} is zero."


def once_differentiable(out: Tensor) -> bool:
    """Whether the graph of ``out`` ends where a backward may not be differentiated again."""
    seen: set[Node] = set()
    stack: list[Node | None] = [out._grad_fn]
    while stack:
        node = stack.pop()
        if node is not None and node not in seen:
            if node.name() == DELAYED_ERROR:
                return True
            seen.add(node)
            stack += node.next
    return False


def not_linear(it: Evidence) -> str | None:
    """The backward of zeros must be zero."""
    if it.forward:
        return None
    (found,) = analytical.backward(it.out, [it.x], [np.zeros(it.out._a.shape, it.out._a.dtype)], 1)
    constant = wide(found.jacobian)
    if not constant.any():
        return None
    if it.same(it.ana - constant):
        return f"something is added to the gradient that doesn't depend on grad_output ({constant.flat[np.abs(constant).argmax()]:.6g})."
    if it.same(np.broadcast_to(constant, it.ana.shape), it.ana):
        return "the gradient doesn't depend on grad_output: multiply by it."
    return "the gradient isn't linear in grad_output: for zeros it isn't zero."


def not_conjugated(it: Evidence) -> str | None:
    """∂f for the conjugate: then, of the two parts, one has the conjugate gradient and the other minus that."""
    if not (is_complex(it.x) or is_complex(it.out)) or it.forward or not matters(it):
        return None
    imaginary = it.part == "imaginary" and is_complex(it.out)
    if it.same(-it.ana.conj() if imaginary else it.ana.conj()):
        return "a conjugate is missing: the gradient of a complex function is grad_output * derivative.conj()."
    return None


def sign(it: Evidence) -> str | None:
    if matters(it) and it.same(-it.ana):
        return f"the sign: the {it.gradient} is the negative of what it should be."
    return None


def transposed(it: Evidence) -> str | None:
    num, ana = it.by_axes
    x, out = it.x._a.shape, it.out._a.shape
    name, of = it.p.input_name(it.j), it.p.output_name(it.o)
    for a, b in combinations(range(len(x)), 2):
        if x[a] == x[b] and it.same(np.swapaxes(ana, a, b), num):
            return f"the {it.gradient} for {name} is transposed: exchange its axes {a} and {b}."
        if x[a] != x[b]:
            turned = list(x)
            turned[a], turned[b] = turned[b], turned[a]
            if it.same(np.swapaxes(ana.reshape(tuple(turned) + out), a, b), num):
                return f"the {it.gradient} for {name} is transposed: it was brought to its shape by reshape or view, where transpose({a}, {b}) is needed."
    for a, b in combinations(range(len(out)), 2):
        if out[a] == out[b] and it.same(np.swapaxes(ana, len(x) + a, len(x) + b), num):
            summed = [k for k in (a, b) if k in it.broadcast_axes]
            if len(summed) == 1 and not it.forward:
                wrong = a if summed[0] == b else b
                return f"the sum is over the wrong axis of grad_output: over {wrong} instead of {summed[0]}, along which {name} is broadcast."
            return f"the result is transposed: the {it.gradient} for {name} takes {'grad_output' if not it.forward else of} with its axes {a} and {b} exchanged."
    if it.num.shape[0] == it.num.shape[1] and it.same(it.ana.T):
        return "the result is transposed: the derivative multiplies by J where it needs Jᵀ (as in grad_output @ W for grad_output @ W.T)."
    return None


def reversed_or_moved(it: Evidence) -> str | None:
    num, ana = it.by_axes
    name = it.p.input_name(it.j)
    for axis, n in enumerate(it.x._a.shape):
        if n > 1 and it.same(np.flip(ana, axis), num):
            return f"the {it.gradient} for {name} is in reversed order along axis {axis}."
        for k in range(1, min(n, 20)):
            if it.same(np.roll(ana, k, axis), num):
                return f"the {it.gradient} for {name} is shifted by {-k if k <= n - k else n - k} along axis {axis} (rolled back by as much, it is right)."
    if 1 < len(it.num) <= MANY:
        found = [next((i for i, row in enumerate(it.ana) if it.same(row, wanted)), -1) for wanted in it.num]
        if sorted(found) == list(range(len(found))):
            from .report import entry

            moved = next(k for k, i in enumerate(found) if i != k)
            shape = it.x._a.shape
            return f"the right values in the wrong places: what {entry(name, moved, shape)} should get is at {entry(name, found[moved], shape)}."
    return None


def broadcasting(it: Evidence) -> str | None:
    """A slice taken where the sum is needed, or a sum where there should be none."""
    num, ana = it.by_axes
    small = it.x._a.shape
    name = it.p.input_name(it.j)
    d = len(small)
    for k in it.broadcast_axes:
        others = tuple(a for a in range(ana.ndim) if a != d + k)
        used = np.flatnonzero(np.abs(ana).max(axis=others, initial=0) > 0)
        if len(used) == 1 and it.same(np.take(ana, used, d + k), np.take(num, used, d + k)):
            return (
                f"a sum over a broadcast axis is left out: {name} is repeated along axis {k} of the output, but its {it.gradient} takes only "
                f"what arrives at index {used[0]} there. Sum grad_output over axis {k} (or sum_to_size({tuple(small)}))."
            )
    axes = [k for k, n in enumerate(small) if n > 1]
    for count in range(1, len(axes) + 1):
        for some in combinations(axes, count):
            total = np.broadcast_to(num.sum(axis=some, keepdims=True), num.shape)
            which = f"axis {some[0]}" if count == 1 else f"axes {', '.join(map(str, some))}"
            for how, value in (("summed", total), ("averaged", total / prod([small[k] for k in some]))):
                if it.same(value, ana):
                    return f"the {it.gradient} for {name} is {how} over {which} and then repeated: it should differ from index to index."
    return None


def exchanged(it: Evidence) -> str | None:
    """The gradient of another input."""
    for k, other in enumerate(it.p.wanted):
        if k == it.j or other._a.shape != it.x._a.shape or is_complex(other) != is_complex(it.x):
            continue
        num = numerical.gradient_of(it.p.numerical(k)[it.o], it.part) if not it.forward else it.p.numerical(k)[it.o][0]
        if it.same(it.ana, num) and it.num.any():
            return f"the {it.gradient} of {it.p.input_name(k)} is given for {it.p.input_name(it.j)}: are the two returned in the wrong order?"
    return None


def doesnt_depend(it: Evidence) -> str | None:
    if it.num.any() or not it.ana.any():
        return None
    return f"the output doesn't change with {it.p.input_name(it.j)} here, so its {it.gradient} must be zero (is a mask or a clamp left out?)."


# ---- where it is wrong ----------------------------------------------------------------------------------------------

def some_places(it: Evidence) -> str | None:
    """Only some entries of the input, or of the output, are wrong; and what is wrong with these."""
    p = it.p
    for axis, (name, shape) in enumerate(((p.input_name(it.j), it.x._a.shape), (p.output_name(it.o), it.out._a.shape))):
        bad = np.asarray(it.wrong.any(axis=1 - axis))
        if bad.all() or not bad.any():
            continue
        keep = bad if axis == 0 else slice(None), bad if axis == 1 else slice(None)
        part = replace(it, num=it.num[keep], ana=it.ana[keep])
        whose = f"the {it.gradient} for" if axis == 0 else "what comes from"
        text = f"only {whose} {region(bad, shape, name)} is wrong"
        return f"{text}: {_what(part)}." if _what(part) else f"{text}."
    return None


def _what(it: Evidence) -> str | None:
    if not it.ana.any():
        return "it is dropped there (zero)"
    if not it.num.any():
        return "it should be zero there"
    if it.same(-it.ana):
        return "its sign"
    c = ratio(it.num, it.ana)
    if c is not None and it.same(it.ana * c):
        return f"it must be multiplied by {name_factor(it, c, sizes=False)} there"
    return None


CAUSES: tuple[Callable[[Evidence], str | None], ...] = (
    not_a_function, overlapping_memory, low_precision, not_finite, not_smooth, dropped, doesnt_depend, not_linear, not_conjugated, sign,
    constant_factor, exchanged, transposed, broadcasting, known_factor, reversed_or_moved, some_places,
)  # fmt: skip
