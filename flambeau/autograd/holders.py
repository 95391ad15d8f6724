"""Who else holds a gradient: CPython's reference counts, calibrated at import.

A gradient that only the engine holds may be added to, taken over as a leaf's ``.grad``, or overwritten by the gradient
that is computed from it. Each question is asked from a place of known shape; what the count is there when nobody else
holds the tensor is measured here, by a function of that shape, rather than assumed for every version of Python.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from ..core.tensor import Tensor, new_tensor

references = sys.getrefcount


def _callee(node: Any, g: Tensor, more: Any = None) -> int:
    return references(g)


def _in_call() -> int:
    g = new_tensor(Tensor)
    return _callee(None, g)


def _in_buffer() -> int:
    buffers = {0: new_tensor(Tensor)}
    old = buffers.get(0)
    return references(old)


def _of_array() -> int:
    t = new_tensor(Tensor)
    t._a = np.empty(1)
    return references(t._a)


#: ``references(g)`` in a function that the engine's loop called with its one reference.
ALONE = _in_call()
#: ``references(old)`` where ``old`` was just taken from the engine's buffers.
IN_BUFFER = _in_buffer()
_ARRAY = _of_array()


def owns_memory(t: Tensor) -> bool:
    """Whether the memory of ``t`` is its own and nobody else's: no view, no other tensor on the same array."""
    return t._a.base is None and references(t._a) == _ARRAY and t._a.flags.writeable
