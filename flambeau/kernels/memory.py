"""Memory for arrays: kept by the process between uses, and PyTorch's words when there is none left."""

from __future__ import annotations

import ctypes
import platform

import numpy as np

# glibc's malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
#: The most that glibc lets the threshold be, on 64-bit machines.
_LARGEST_FROM_HEAP = 32 * 1024 * 1024
#: What may lie free at the top of the heap before it goes back to the system.
_KEEP = 512 * 1024 * 1024


def keep_freed_memory() -> bool:
    """Let arrays of up to 32 MiB come from the heap and freed ones stay there; False where that can't be.

    Otherwise each large temporary is new pages from the system, which zeroes every one of them on first
    touch: that can take longer than the arithmetic on them.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    mallopt.argtypes, mallopt.restype = [ctypes.c_int, ctypes.c_int], ctypes.c_int
    return bool(mallopt(_M_MMAP_THRESHOLD, _LARGEST_FROM_HEAP) and mallopt(_M_TRIM_THRESHOLD, _KEEP))


_HEADER = object.__basicsize__  # an ndarray's data pointer comes right after it
_pointer_at = ctypes.c_void_p.from_address


def _address_fast(array: np.ndarray) -> int:
    return _pointer_at(id(array) + _HEADER).value or 0


def _address_plain(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


def _fast_is_right() -> bool:
    sample = np.zeros(3)
    return platform.python_implementation() == "CPython" and _address_fast(sample) == _address_plain(sample)


#: `address(array)`: where an array's first element lies. NumPy's own ways to ask take 1 µs.
address = _address_fast if _fast_is_right() else _address_plain


def allocation_message(nbytes: int) -> str:
    """The message of PyTorch's RuntimeError when `nbytes` could not be had.

    >>> allocation_message(4)[-69:]
    'you tried to allocate 4 bytes. Error code 12 (Cannot allocate memory)'
    """
    return (
        "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: "
        f"you tried to allocate {nbytes} bytes. Error code 12 (Cannot allocate memory)"
    )


def requested(problem: MemoryError) -> int | None:
    """The bytes that the array was to have for which NumPy raised MemoryError; None if it doesn't say."""
    shape, dtype = getattr(problem, "shape", None), getattr(problem, "dtype", None)
    if shape is None or dtype is None:
        return None
    size = dtype.itemsize
    for n in shape:
        size *= n
    return size
