"""Sums into places given by indices: what gradients of indexing are made of.

``numpy.add.at`` takes one element at a time. Here rows are added by SciPy's product of a sparse matrix (a one in each
column, at the row's place), and single elements by ``bincount``: both are one pass in C, in the order of the indices.
"""

from __future__ import annotations

from typing import Any

import numpy as np

FEW = 32  # rows up to which a loop is quicker than anything that must be set up
NARROW = {2: np.dtype(np.float32)}


def add_rows(out: np.ndarray, index: np.ndarray, rows: np.ndarray) -> None:
    """``out[index[i]] += rows[i]`` for every i, one after the other; ``out`` is contiguous.

    >>> out = np.zeros((2, 1))
    >>> add_rows(out, np.array([1, 1]), np.ones((2, 1)))
    >>> out
    array([[0.],
           [2.]])
    """
    if not rows.size:
        return
    if index.size <= FEW:
        for i, row in zip(index.tolist(), rows):
            out[i] += row
        return
    if out.dtype.kind in "biu" or out.dtype == np.longdouble:
        np.add.at(out, index, rows)
        return
    width = rows[0].size
    if width == 1:
        add_elements(out.reshape(-1), index, rows.reshape(-1))
        return
    rows = rows.reshape(len(index), width)
    flat = out.reshape(len(out), width)
    if len(out) > 2 * len(index):  # few places are touched: leave the others alone
        touched, index = np.unique(index, return_inverse=True)
        flat[touched] += _product(index, rows, len(touched)).astype(out.dtype, copy=False)
    else:
        flat += _product(index, rows, len(out)).astype(out.dtype, copy=False)


def sum_rows(index: np.ndarray, rows: np.ndarray, n: int) -> np.ndarray:
    """Rows added into ``n`` places of zeros.

    >>> sum_rows(np.array([1, 1]), np.ones((2, 1)), 2)
    array([[0.],
           [2.]])
    """
    if FEW < index.size and n <= 2 * index.size and rows[0].size > 1 and rows.dtype.kind in "fcV":
        sums = _product(index, rows.reshape(len(index), -1), n)
        return sums.reshape(n, *rows.shape[1:]).astype(rows.dtype, copy=False)
    out = np.zeros((n, *rows.shape[1:]), rows.dtype)
    add_rows(out, index, rows)
    return out


def _product(index: np.ndarray, rows: np.ndarray, n: int) -> np.ndarray:
    """The sums of the rows that go to each of ``n`` places, in float32 at least."""
    from scipy.sparse import csc_matrix

    if rows.dtype.itemsize == 2:
        rows = rows.astype(np.float32)
    k = len(index)
    kind = np.int32 if max(n, k) < 2**31 else np.int64
    ones = np.ones(k, rows.real.dtype)
    m = csc_matrix((ones, index.astype(kind, copy=False), np.arange(k + 1, dtype=kind)), shape=(n, k))
    return m @ rows


def add_elements(out: np.ndarray, index: np.ndarray, values: np.ndarray) -> None:
    """``out[index[i]] += values[i]`` for every i; all three are flat."""
    kind = out.dtype.kind
    if kind in "biu" or out.size > 64 * index.size:
        np.add.at(out, index, values)
    elif kind == "c":
        out.real += np.bincount(index, values.real, out.size)
        out.imag += np.bincount(index, values.imag, out.size)
    else:
        out += np.bincount(index, values.astype(np.float64), out.size).astype(out.dtype)


_AT: dict[str, Any] = {"sum": np.add, "mean": np.add, "prod": np.multiply, "amax": np.maximum, "amin": np.minimum}
NEUTRAL: dict[str, Any] = {"sum": 0, "mean": 0, "prod": 1}


def neutral(how: str, dtype: np.dtype) -> Any:
    """What a reduction starts from."""
    if how in NEUTRAL:
        return NEUTRAL[how]
    if dtype.kind == "b":
        return how == "amin"
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        return info.min if how == "amax" else info.max
    return -np.inf if how == "amax" else np.inf


def reduce_elements(out: np.ndarray, index: np.ndarray, values: np.ndarray, how: str, include: bool) -> None:
    """Reduce ``values`` into the places ``index`` of ``out``, all flat; ``include``: with what was there."""
    if not index.size:
        return
    if not include:
        out[index] = neutral(how, out.dtype)
    if how in ("sum", "mean"):
        add_elements(out, index, values)
    else:
        work = out.astype(np.float32) if out.dtype.kind == "V" else out
        _AT[how].at(work, index, values.astype(work.dtype, copy=False))
        if work is not out:
            out[...] = work
    if how == "mean":
        counts = np.bincount(index, minlength=out.size) + int(include)
        counts = np.maximum(counts, 1)
        if out.dtype.kind in "iu":
            out[...] = out // counts
        else:
            out /= counts.astype(out.real.dtype)
