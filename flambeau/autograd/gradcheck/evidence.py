"""Two Jacobians that disagree, with what helps to explain it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod

import numpy as np

from ...core.tensor import Tensor
from .problem import Problem, close


@dataclass
class Evidence:
    """Both Jacobians: an entry of the input for a row, an entry of the output for a column."""

    p: Problem
    o: int
    j: int
    part: str
    num: np.ndarray
    ana: np.ndarray
    unused: bool
    forward: bool

    @property
    def x(self) -> Tensor:
        return self.p.wanted[self.j]

    @property
    def out(self) -> Tensor:
        return self.p.outs[self.o]

    @property
    def gradient(self) -> str:
        return "tangent" if self.forward else "gradient"

    def same(self, a: np.ndarray, b: np.ndarray | None = None) -> bool:
        """Whether ``a`` is the numerical Jacobian (or ``b``), as nearly as central differences can tell."""
        b = self.num if b is None else b
        return a.shape == b.shape and bool(close(a, b, self.p.options.rtol, self.p.options.atol).all())

    @cached_property
    def wrong(self) -> np.ndarray:
        return ~close(self.ana, self.num, self.p.options.rtol, self.p.options.atol)

    @cached_property
    def by_axes(self) -> tuple[np.ndarray, np.ndarray]:
        """(numerical, analytical) with the axes of the input and then those of the output."""
        shape = self.x._a.shape + self.out._a.shape
        return self.num.reshape(shape), self.ana.reshape(shape)

    @cached_property
    def broadcast_axes(self) -> list[int]:
        """The axes of the output along which the input would be repeated."""
        small, large = self.x._a.shape, self.out._a.shape
        lead = len(large) - len(small)
        if lead < 0 or any(s not in (1, n) for s, n in zip(small, large[lead:])):
            return []
        return [k for k, n in enumerate(large) if n > 1 and (k < lead or small[k - lead] == 1)]


def matters(it: Evidence) -> bool:
    return bool(np.abs(it.num).max(initial=0) > 10 * it.p.options.atol)


def region(bad: np.ndarray, shape: tuple[int, ...], name: str) -> str:
    """``input[0, :]``, ``input[[0, 2], :]``, or the first few entries."""
    from .report import SHOWN, entry

    where = bad.reshape(shape)
    if where.all():
        return name
    used = [np.flatnonzero(where.any(axis=tuple(a for a in range(where.ndim) if a != k))) for k in range(where.ndim)]
    if prod([len(u) for u in used]) == where.sum() and all(len(u) in (1, n) or len(u) <= 8 for u, n in zip(used, shape)):
        texts = [":" if len(u) == n and n > 1 else str(u[0]) if len(u) == 1 else str(u.tolist()) for u, n in zip(used, shape)]
        return f"{name}[{', '.join(texts)}]"
    places = np.flatnonzero(bad)
    more = f" and {len(places) - SHOWN} more" if len(places) > SHOWN else ""
    return ", ".join([entry(name, k, shape) for k in places[:SHOWN]]) + more
