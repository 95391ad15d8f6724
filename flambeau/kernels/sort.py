"""Sorting: stable orders, the first few of an order, and one place in it, along the last axis.

A value of 32 bits or fewer is packed with its place into one 64-bit integer: sorting those integers, which NumPy does
with vector instructions, is a stable argsort, several times faster than an argsort. nan is the largest value, as in
PyTorch, and -0.0 equals 0.0.

>>> argsort(np.array([3.0, np.nan, 1.0, 1.0]))
array([2, 3, 0, 1])
"""

from __future__ import annotations

from typing import Literal

import numpy as np

#: Under this many elements packing costs more than it saves.
SMALL = 256
_NAN = np.int32(0x7FC00000)


def plain(a: np.ndarray) -> np.ndarray:
    """16-bit floats as float32, which holds them all; anything else as it is."""
    return a.astype(np.float32) if a.dtype.kind == "V" or a.dtype == np.float16 else a


def _keys(a: np.ndarray, descending: bool) -> np.ndarray:
    """Signed integers in the order of the values (or the opposite one)."""
    if a.dtype.kind == "f":
        bits = np.dtype(f"i{a.dtype.itemsize}")
        keys = np.add(a, 0.0, order="C").view(bits)  # -0.0 becomes 0.0
        keys = np.where(keys < 0, keys ^ np.iinfo(bits).max, keys)
        keys[a != a] = np.iinfo(bits).max
    else:
        keys = a.astype(np.int64)
    return ~keys if descending else keys


def _packed(a: np.ndarray, descending: bool) -> np.ndarray | None:
    if a.dtype.itemsize > 4 or a.shape[-1] >= 1 << 31:
        return None
    return (_keys(a, descending).astype(np.int64) << 32) | np.arange(a.shape[-1], dtype=np.int64)


def argsort(a: np.ndarray, descending: bool = False) -> np.ndarray:
    """Places of the values in rising (falling) order; equal values keep their order."""
    a = plain(a)
    if not descending and a.size < SMALL:
        return a.argsort(-1, kind="stable")
    packed = _packed(a, descending)
    if packed is not None:
        packed.sort(-1)
        return packed & 0xFFFFFFFF
    keys = _keys(a, descending)
    order = keys.argsort(-1)
    ordered = np.take_along_axis(keys, order, -1)
    if (ordered[..., 1:] == ordered[..., :-1]).any():
        order = keys.argsort(-1, kind="stable")
    return order


def first(a: np.ndarray, k: int, descending: bool = False) -> np.ndarray:
    """``argsort(a, descending)[..., :k]``, without sorting the rest."""
    n = a.shape[-1]
    if n < 64 or k * 4 > n or not k:
        return argsort(a, descending)[..., :k]
    a = plain(a)
    packed = _packed(a, descending)
    if packed is not None:
        packed.partition(k - 1, -1)
        return np.sort(packed[..., :k], -1) & 0xFFFFFFFF
    keys = _keys(a, descending)
    chosen = np.sort(keys.argpartition(k - 1, -1)[..., :k], -1)
    order = np.take_along_axis(keys, chosen, -1).argsort(-1, kind="stable")
    return np.take_along_axis(chosen, order, -1)


def place_of(a: np.ndarray, k: int) -> np.ndarray:
    """Where the value number ``k`` of the rising order is."""
    a = plain(a)
    packed = _packed(a, False)
    if packed is None:
        return _keys(a, False).argpartition(k, -1)[..., k]
    packed.partition(k, -1)
    return packed[..., k] & 0xFFFFFFFF


def most_frequent(a: np.ndarray) -> np.ndarray:
    """The last place of the value that comes most often, the smallest such value."""
    order = argsort(a)
    values = np.take_along_axis(plain(a), order, -1)
    n = a.shape[-1]
    places = np.arange(n)
    starts = np.zeros(a.shape, np.int64)
    starts[..., 1:] = np.where(values[..., 1:] != values[..., :-1], places[1:], 0)
    runs = places - np.maximum.accumulate(starts, -1)  # how far each is into its run
    return np.take_along_axis(order, runs.argmax(-1)[..., None], -1)[..., 0]


def runs(different: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """From "differs from its left neighbour": (start of each run, number of the run of each place, lengths)."""
    n = len(different) + 1
    flags = np.concatenate([[True], different]) if n else np.zeros(0, bool)
    starts = np.flatnonzero(flags)
    return starts, np.cumsum(flags) - 1, np.diff(starts, append=n)


def search(boundaries: np.ndarray, values: np.ndarray, side: Literal["left", "right"]) -> np.ndarray:
    """``np.searchsorted``; rows of values in rows of boundaries where those have several."""
    boundaries, values = plain(boundaries), plain(values)
    if boundaries.ndim == 1:
        return np.asarray(np.searchsorted(boundaries, values, side))
    out = np.empty(values.shape, np.int64)
    if not values.size:
        return out
    n = boundaries.shape[-1]
    rows = boundaries.reshape(values.size // values.shape[-1], n)
    flat, given = out.reshape(len(rows), -1), values.reshape(len(rows), -1)
    for i, row in enumerate(rows):
        flat[i] = row.searchsorted(given[i], side)
    return out
