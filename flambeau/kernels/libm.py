"""C's own mathematics functions as NumPy ufuncs.

NumPy's ``log``, ``sin``, ... have vector kernels of their own, which differ from the C library's in the last bit on
some machines. PyTorch's samplers call the C library, and so do these: NumPy exports inner loops that call a function
pointer for each element (``PyUFunc_d_d``, ``PyUFunc_f_f``), and ``PyUFunc_FromFuncAndData`` makes a ufunc of them.
Where that cannot be done (no C library under a known name), the names stand for NumPy's functions.

>>> import math
>>> float(log1p(0.3)) == math.log1p(0.3)
True
"""

from __future__ import annotations

import ctypes
import math
from typing import Any

import numpy as np

LIBRARIES = ("libm.so.6", "libm.dylib", "ucrtbase.dll", "libm.so")
# Places in NumPy's table of exported ufunc functions (stable: the table only ever grows).
FROM_FUNC_AND_DATA, LOOP_D_D, LOOP_F_F = 1, 5, 6

_alive: list[Any] = []  # what the ufuncs point to


def _library() -> ctypes.CDLL | None:
    for name in LIBRARIES:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None


def address(name: str) -> int | None:
    """Where a function of the C library is; None if it isn't known."""
    try:
        return ctypes.cast(getattr(_lib, name), ctypes.c_void_p).value
    except AttributeError:
        return None


def _table() -> Any:
    capsule = (getattr(np, "_core", None) or np.core)._multiarray_umath._UFUNC_API
    prototype = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)
    pointer = prototype(("PyCapsule_GetPointer", ctypes.pythonapi))(capsule, None)
    return ctypes.cast(pointer, ctypes.POINTER(ctypes.c_void_p))


def _make(name: str) -> Any:
    """The ufunc of C's ``name`` (float64) and ``namef`` (float32); NumPy's own where there is no C library."""
    if _lib is None or _api is None:
        return getattr(np, name)
    pointers = [address(n) for n in (name + "f", name)]
    if not all(pointers):
        return getattr(np, name)
    f, d = np.dtype(np.float32).num, np.dtype(np.float64).num
    loops = (ctypes.c_void_p * 2)(_api[LOOP_F_F], _api[LOOP_D_D])
    data = (ctypes.c_void_p * 2)(*pointers)
    types = ctypes.create_string_buffer(bytes((f, f, d, d)))
    text = ctypes.create_string_buffer(name.encode())
    _alive.append((loops, data, types, text))
    p, i = ctypes.c_void_p, ctypes.c_int
    create = ctypes.PYFUNCTYPE(ctypes.py_object, p, p, p, i, i, i, i, p, p, i)(_api[FROM_FUNC_AND_DATA])
    at = ctypes.addressof
    made = create(at(loops), at(data), at(types), 2, 1, 1, -1, at(text), at(text), 0)
    same = float(made(np.float64(0.7))) == getattr(math, name)(0.7)
    return made if same else getattr(np, name)


_lib = _library()
try:
    _api = _table()
except (AttributeError, ValueError):  # a NumPy, or another interpreter, without these doors
    _api = None

log, log1p, exp, sin, cos, tan = map(_make, ("log", "log1p", "exp", "sin", "cos", "tan"))
