"""How many threads kernels use: one number for generated kernels and oneDNN, which share libgomp's pool."""

from __future__ import annotations

import ctypes
import os
import sys

from flambeau.kernels import backend

#: What generated kernels read: the number of threads. One object for ever, its address is compiled in
#: nowhere.
CONFIG = (ctypes.c_int64 * 1)(1)
#: The same with one thread, for kernels called from within a parallel region.
SERIAL = (ctypes.c_int64 * 1)(1)


def _default() -> int:
    wanted = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    if wanted.isdigit() and int(wanted) > 0:
        return int(wanted)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def get_num_threads() -> int:
    """The number of threads that a kernel may use."""
    return CONFIG[0]


def set_num_threads(n: int) -> None:
    """Let kernels use `n` threads, `n` at least 1. Without libgomp there is one, whatever is asked for."""
    gomp = backend.library("libgomp")
    if gomp is None:
        CONFIG[0] = 1
        return
    gomp.omp_set_num_threads(ctypes.c_int(n))
    CONFIG[0] = n
    # oneDNN's primitives are made for a number of threads
    if primitives := sys.modules.get("flambeau.kernels.onednn.primitives"):
        primitives.clear()


def _after_fork() -> None:
    # libgomp's pool is gone in the child, and waiting for it would hang
    set_num_threads(1)


set_num_threads(_default())
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
