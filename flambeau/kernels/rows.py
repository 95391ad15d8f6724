"""Softmax along dense rows, its logarithm, and their gradients: each row in one visit, by generated code.

A row is read while it lies in the first cache: the largest value, the exponentials and their sum (in float64), the
result. A causal row sees no more than its own place: what lies behind is 0, and is neither read nor computed.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable
from functools import cache

import numpy as np

from flambeau.kernels import backend, memory, threads

#: The elements that a unit of work has, and from how many in all there are several threads.
UNIT, PARALLEL = 8192, 16_384


def takes(x: np.ndarray) -> bool:
    """Whether there is generated code for this dtype."""
    return x.size > 0 and x.dtype.char in "fd" and backend.jit_available()


def softmax(x: np.ndarray, out: np.ndarray, scale: float = 1.0, causal: int | None = None) -> np.ndarray:
    """exp(scale x) / sum(exp(scale x)) along the last axis, `scale` above 0; all arrays C-contiguous, out may be x.

    `causal`: the entries that the first row of each matrix sees; every next row sees one more.

    >>> x = np.array([[0.0, 0.0], [0.0, 0.0]])
    >>> softmax(x, np.empty_like(x), causal=1)
    array([[1. , 0. ],
           [0.5, 0.5]])
    """
    return _run("softmax", (x, out), scale, causal)


def log_softmax(x: np.ndarray, out: np.ndarray) -> np.ndarray:
    """x - log(sum(exp(x))) along the last axis."""
    return _run("log_softmax", (x, out))


def softmax_grad(g: np.ndarray, y: np.ndarray, out: np.ndarray, scale: float = 1.0) -> np.ndarray:
    """scale (g - sum(g y)) y: the gradient of :func:`softmax` from its result; out may be g."""
    return _run("softmax_grad", (g, y, out), scale)


def log_softmax_grad(g: np.ndarray, y: np.ndarray, out: np.ndarray) -> np.ndarray:
    """g - exp(y) sum(g): the gradient of :func:`log_softmax` from its result; out may be g."""
    return _run("log_softmax_grad", (g, y, out))


def _run(name: str, arrays: tuple[np.ndarray, ...], scale: float = 1.0, causal: int | None = None) -> np.ndarray:
    first = arrays[0]
    columns = first.shape[-1]
    rows = first.size // columns
    per = max(1, UNIT // columns)
    share = threads.CONFIG[0] if first.size >= PARALLEL else 1
    head = [share, -(-rows // per), rows, columns, per, 0 if causal is None else first.shape[-2], causal or 0]
    count = len(arrays)
    job = struct.pack(f"7qd{count}q", *head, scale, *map(memory.address, arrays))
    _compiled(name, first.dtype.char)(job)
    return arrays[-1]


@cache
def _compiled(name: str, kind: str) -> Callable:
    from flambeau.kernels import jit, lower_rows

    compute = {"f": "float", "d": "double"}[kind]
    key = f"rows {lower_rows.VERSION} {name} {compute}"
    address = jit.function(key, lambda symbol, machine: lower_rows.module(symbol, name, compute, machine))
    return ctypes.CFUNCTYPE(None, ctypes.c_char_p)(address)
