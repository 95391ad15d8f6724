"""Recurrences: for each step of a sequence a matrix product, then a pointwise cell, or the other way round.

Where kernels can be generated, the whole sequence is one call (`lower_recurrence`); elsewhere each step is one
product and one call of the cell.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from flambeau.kernels import backend, lower_llvm, lower_recurrence, threads
from flambeau.kernels import expr as E
from flambeau.kernels.expr import Expr
from flambeau.kernels.matmul import multiplier
from flambeau.kernels.memory import address
from flambeau.kernels.onednn.reorder import copy
from flambeau.kernels.ufunc import kernel

#: Multiply-adds of a whole sequence from which threads are worth waking.
SHARED = 500_000

#: Bytes of a line of the cache.
LINE = 64

#: What an operand is for all steps: an array (steps, rows, columns), or several, one after another.
Steps = Any


class Recurrence:
    """A step: `into = left @ weights` (or `+=`, with `accumulate`), then the cell; `product_first` False: after it.

    The cell is expressions over rows of the same number of columns; it may write where it reads. Rows don't
    depend on each other.

    >>> h, s = E.var("h"), E.var("s")
    >>> decay = Recurrence([0.5 * s], ["s"], "decay", product_first=True, accumulate=False)
    >>> y = np.empty((3, 1, 2))
    >>> decay(np.eye(2), [np.ones((1, 1, 2)), y[:-1]], y, [y], [y])
    >>> y[:, 0, 0]
    array([0.5  , 0.25 , 0.125])
    """

    def __init__(
        self, roots: Sequence[Expr], args: Sequence[str], name: str, product_first: bool, accumulate: bool
    ) -> None:
        self.cell = kernel(roots, args, name)
        self.product_first, self.accumulate = product_first, accumulate
        self._functions: dict[np.dtype, tuple[Callable, int, int]] = {}

    def __call__(
        self, weights: np.ndarray, left: Steps, into: Steps, inputs: Sequence[Steps], outputs: Sequence[Steps]
    ) -> None:
        """Run all steps: `weights` (inner, columns), `left` (rows, inner) and `into` (rows, columns) at each step."""
        operands = [s if isinstance(s, (list, tuple)) else [s] for s in (left, into, *inputs, *outputs)]
        steps, rows = sum(len(piece) for piece in operands[1]), operands[1][0].shape[1]
        if not steps or not rows:
            return
        if self._generated(weights, operands):
            self._run(weights, operands, steps, rows)
        else:
            self._loop(weights, operands, rows)

    def _generated(self, weights: np.ndarray, operands: Sequence[Sequence[np.ndarray]]) -> bool:
        dtype = weights.dtype
        if dtype.name not in lower_recurrence.TYPES or not backend.jit_available() or not weights.size:
            return False
        for pieces in operands:
            if len({p.strides[1] for p in pieces if len(p)}) > 1:
                return False
            if any(p.dtype != dtype or (p.strides[2] != p.itemsize and p.shape[2] != 1) for p in pieces):
                return False
        return True

    def _function(self, dtype: np.dtype) -> tuple[Callable, int, int]:
        """The generated function, the lanes of a vector, the vectors of a wide panel."""
        found = self._functions.get(dtype)
        if found is None:
            from flambeau.kernels import jit

            machine, cell = jit.engine().machine, self.cell
            options = dtype.name, self.product_first, self.accumulate
            key = f"recurrence {lower_recurrence.VERSION} {E.serialize(cell.roots)} {cell.args} {options}"
            at = jit.function(
                key, lambda name, machine: lower_recurrence.module(name, cell.roots, cell.args, *options, machine)
            )
            scalar = lower_llvm.COMPUTE[dtype.name]
            found = self._functions[dtype] = (
                jit.call(at, None, ctypes.c_void_p),
                lower_llvm.lanes_for(scalar, machine),
                lower_recurrence.panel_vectors(machine),
            )
        return found

    def _run(self, weights: np.ndarray, operands: Sequence[Sequence[np.ndarray]], steps: int, rows: int) -> None:
        function, lanes, vectors = self._function(weights.dtype)
        inner, columns = weights.shape
        wide, others = divmod(columns, vectors * lanes)
        packed, scratch = _pack(weights, vectors * lanes, lanes), np.empty((rows, lanes), weights.dtype)
        table = np.empty((steps, len(operands)), np.int64)
        row_bytes: list[int] = []
        for k, pieces in enumerate(operands):
            at = 0
            for piece in pieces:
                count = len(piece)
                table[at:at + count, k] = np.arange(count) * piece.strides[0] + address(piece)
                at += count
                if count:
                    row_bytes[k:] = [piece.strides[1]]
        several = min(threads.CONFIG[0], rows) if steps * rows * weights.size >= SHARED else 1
        job = [several, steps, rows, inner, wide, *divmod(others, lanes), *divmod(operands[2][0].shape[2], lanes),
               *map(address, (packed, scratch, table)), *row_bytes]
        function((ctypes.c_int64 * len(job))(*job))

    def _loop(self, weights: np.ndarray, operands: Sequence[Sequence[np.ndarray]], rows: int) -> None:
        multiply, count = multiplier(weights, rows, self.accumulate), len(self.cell.args)
        product_first = self.product_first
        for left, into, *arrays in zip(*([a for piece in o for a in piece] for o in operands), strict=True):
            if product_first:
                multiply(np.ascontiguousarray(left), into)
            self.cell(*arrays[:count], out=tuple(arrays[count:]))
            if not product_first:
                multiply(np.ascontiguousarray(left), into)


def _pack(weights: np.ndarray, wide: int, narrow: int) -> np.ndarray:
    """The weights (inner, columns) in panels, each (inner, panel's columns): wide ones, narrow ones, zeros at the end."""
    inner, columns = weights.shape
    whole = -(-columns // narrow) * narrow
    if whole != columns:
        weights = np.concatenate([weights, np.zeros((inner, whole - columns), weights.dtype)], 1)
    memory = np.empty(weights.nbytes + LINE, np.uint8)  # vectors that straddle lines of the cache are slow to read
    start = -address(memory) % LINE
    packed = memory[start:start + weights.nbytes].view(weights.dtype)
    at = columns // wide * wide
    for start, stop, width in (0, at, wide), (at, whole, narrow):
        panels = packed[start * inner:stop * inner].reshape((stop - start) // width, inner, width)
        copy(weights[:, start:stop].reshape(inner, (stop - start) // width, width).swapaxes(0, 1), panels)
    return packed
