"""Random vectors that leave the user's random numbers alone: always the same ones, which are PyTorch's."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from ...core.tensor import Tensor
from ...kernels.mt19937 import DEFAULT_SEED, MT
from ...kernels.random import uniform_

KEPT = 1 << 14  # numbers; a new generator costs as much as a small check


class Uniform:
    """Numbers in [0, 1), as ``torch.rand`` draws them one after the other from a new ``torch.Generator()``."""

    def __init__(self) -> None:
        self.drawn = 0

    def __call__(self, n: int) -> np.ndarray:
        start, self.drawn = self.drawn, self.drawn + n
        numbers = kept() if self.drawn <= KEPT else first(self.drawn)
        return numbers[start : self.drawn].astype(np.float64)

    def direction(self, t: Tensor) -> np.ndarray:
        """A vector of length 1, flat, with an entry for each one of ``t``, none of them negative."""
        v = self(t._a.size)
        return v / np.linalg.norm(v) if v.size else v

    def directions(self, x: Tensor) -> list[np.ndarray]:
        """One, or for a complex input two: of its real and of its imaginary part."""
        return [self.direction(x) for _ in range(2 if x._a.dtype.kind == "c" else 1)]


def first(n: int) -> np.ndarray:
    a = np.empty(n, np.float32)
    uniform_(a, 0.0, 1.0, MT(DEFAULT_SEED))
    return a


@lru_cache(maxsize=1)
def kept() -> np.ndarray:
    return first(KEPT)
