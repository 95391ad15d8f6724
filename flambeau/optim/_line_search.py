"""A line search for the strong Wolfe conditions, by bracketing and cubic interpolation."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from flambeau.core.tensor import Tensor


@dataclass
class Point:
    """Along the line: how far, the loss there, its gradient, and the slope."""

    t: float
    f: float
    g: Tensor
    slope: float


def cubic_minimum(a: Point, b: Point, bounds: tuple[float, float] | None = None) -> float:
    """Where the cubic through both points with both slopes is least, kept within `bounds` or between them."""
    low, high = bounds if bounds is not None else (min(a.t, b.t), max(a.t, b.t))
    if a.t > b.t:
        a, b = b, a
    d1 = a.slope + b.slope - 3 * (a.f - b.f) / (a.t - b.t)
    square = d1 * d1 - a.slope * b.slope
    if not square >= 0:
        return (low + high) / 2.0
    d2 = math.sqrt(square)
    bottom = b.slope - a.slope + 2 * d2
    t = b.t - (b.t - a.t) * ((b.slope + d2 - d1) / bottom) if bottom else math.nan
    return min(max(t, low), high)


def strong_wolfe(
    evaluate: Callable[[float], tuple[float, Tensor]],
    direction: Tensor,
    t: float,
    start: Point,
    *,
    c1: float = 1e-4,
    c2: float = 0.9,
    tolerance_change: float = 1e-9,
    max_steps: int = 25,
) -> tuple[Point, int]:
    """The point found, and how often the loss was evaluated.

    The strong Wolfe conditions: f(t) ≤ f(0) + c1 t f'(0), and |f'(t)| ≤ c2 |f'(0)|.
    """
    evaluations = 0

    def at(t: float) -> Point:
        nonlocal evaluations
        evaluations += 1
        f, g = evaluate(t)
        return Point(t, f, g, float(g.dot(direction)))

    def too_high(p: Point) -> bool:
        return p.f > start.f + c1 * p.t * start.slope

    def flat(p: Point) -> bool:
        return abs(p.slope) <= -c2 * start.slope

    # 1. Go out until a bracket holds a good point.
    previous, new, steps = start, at(t), 0
    bracket: list[Point] = []
    done = False
    while steps < max_steps:
        if too_high(new) or (steps > 1 and new.f >= previous.f):
            bracket = [previous, new]
            break
        if flat(new):
            bracket, done = [new], True
            break
        if new.slope >= 0:
            bracket = [previous, new]
            break
        bounds = (new.t + 0.01 * (new.t - previous.t), new.t * 10)
        t = cubic_minimum(previous, new, bounds)
        previous, new = new, at(t)
        steps += 1
    if not bracket:
        bracket = [start, new]

    # 2. Narrow the bracket; `low` is the better of its ends.
    def order() -> tuple[int, int]:
        return (0, 1) if bracket[0].f <= bracket[-1].f else (1, 0)

    low, high = order()
    stalled = False
    reach = float(direction.abs().max())
    while not done and steps < max_steps:
        left, right = sorted((bracket[0].t, bracket[1].t))
        if (right - left) * reach < tolerance_change:
            break
        t = cubic_minimum(bracket[0], bracket[1])
        margin = 0.1 * (right - left)
        if min(right - t, t - left) < margin:  # too close to an end: twice in a row, or at it, step away
            if stalled or t >= right or t <= left:
                t = right - margin if abs(t - right) < abs(t - left) else left + margin
                stalled = False
            else:
                stalled = True
        else:
            stalled = False
        new = at(t)
        steps += 1
        if too_high(new) or new.f >= bracket[low].f:
            bracket[high] = new
            low, high = order()
        else:
            if flat(new):
                done = True
            elif new.slope * (bracket[high].t - bracket[low].t) >= 0:
                bracket[high] = bracket[low]
            bracket[low] = new
    return bracket[low if len(bracket) > 1 else 0], evaluations
