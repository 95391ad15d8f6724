"""Finding and loading oneDNN, and the part of its C interface that the kernels use.

oneDNN comes as a bare shared library (`libdnnl.so.3`), from the wheel `onednn-cpu-gomp` or from the
system.  Nothing is loaded until :func:`load` is first called.  The constants below are those of version 3.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from functools import cache
from types import SimpleNamespace

import numpy as np

#: Distributions whose files include the library, in the order they are tried.
DISTRIBUTIONS = ("onednn-cpu-gomp", "onednn", "onednn-cpu-iomp", "onednn-cpu-tbb")
MAJOR_VERSION = 3

# --- enumerations of dnnl_types.h -------------------------------------------------------------------------
FORWARD_TRAINING, FORWARD_INFERENCE, BACKWARD, BACKWARD_DATA = 64, 96, 128, 160
F16, BF16, F32, S32 = 1, 2, 3, 4
TAG_ANY = 1
CONVOLUTION_DIRECT, CONVOLUTION_AUTO = 0x1, 0x3
POOLING_MAX, POOLING_AVG_WITH_PADDING = 0x1FF, 0x2FF
SOFTMAX, LOG_SOFTMAX = 0x30000, 0x30001
USE_GLOBAL_STATS, USE_SCALE, USE_SHIFT = 1, 2, 4
SCRATCHPAD_USER = 1
QUERY_INPUTS, QUERY_IMPLEMENTATION = 3, 8
QUERY_SRC, QUERY_DIFF_SRC, QUERY_WEIGHTS, QUERY_DIFF_WEIGHTS = 129, 130, 131, 132
QUERY_DST, QUERY_DIFF_DST, QUERY_WORKSPACE, QUERY_SCRATCHPAD = 133, 134, 135, 136

# --- names of a primitive's arguments ---------------------------------------------------------------------
ARG_SRC, ARG_DST, ARG_WEIGHTS, ARG_BIAS = 1, 17, 33, 41
ARG_MEAN, ARG_VARIANCE, ARG_SCALE, ARG_SHIFT = 49, 50, 51, 52
ARG_WORKSPACE, ARG_SCRATCHPAD = 64, 80
ARG_DIFF_SRC, ARG_DIFF_DST, ARG_DIFF_WEIGHTS, ARG_DIFF_BIAS = 129, 145, 161, 169
ARG_DIFF_SCALE, ARG_DIFF_SHIFT = 255, 256

handle = ctypes.c_void_p
dims = ctypes.POINTER(ctypes.c_int64)
_out = ctypes.POINTER(ctypes.c_void_p)
_int, _float, _unsigned, _size = ctypes.c_int, ctypes.c_float, ctypes.c_uint, ctypes.c_size_t

#: Arguments of every function used; each returns a status, save those in RESULTS.
SIGNATURES = {
    "dnnl_engine_create": [_out, _int, _size],
    "dnnl_stream_create": [_out, handle, _unsigned],
    "dnnl_memory_desc_create_with_strides": [_out, _int, dims, _int, dims],
    "dnnl_memory_desc_create_with_tag": [_out, _int, dims, _int, _int],
    "dnnl_memory_desc_destroy": [handle],
    "dnnl_memory_desc_get_size": [handle],
    "dnnl_memory_desc_equal": [handle, handle],
    "dnnl_memory_create": [_out, handle, handle, handle],
    "dnnl_memory_destroy": [handle],
    "dnnl_primitive_attr_create": [_out],
    "dnnl_primitive_attr_destroy": [handle],
    "dnnl_primitive_attr_set_scratchpad_mode": [handle, _int],
    "dnnl_primitive_attr_set_post_ops": [handle, handle],
    "dnnl_post_ops_create": [_out],
    "dnnl_post_ops_destroy": [handle],
    "dnnl_post_ops_append_sum": [handle, _float, ctypes.c_int32, _int],
    "dnnl_primitive_create": [_out, handle],
    "dnnl_primitive_destroy": [handle],
    "dnnl_primitive_execute": [handle, handle, _int, handle],
    "dnnl_primitive_desc_destroy": [handle],
    "dnnl_primitive_desc_query": [handle, _int, _int, _out],
    "dnnl_primitive_desc_query_md": [handle, _int, _int],
    "dnnl_primitive_desc_query_s32": [handle, _int, _int],
    # below, what follows (descriptor out, engine) for each kind of primitive
    "dnnl_reorder_primitive_desc_create": [_out, handle, handle, handle, handle, handle],
    "dnnl_matmul_primitive_desc_create": [_out, handle, handle, handle, handle, handle, handle],
    "dnnl_convolution_forward_primitive_desc_create":
        [_out, handle, _int, _int] + [handle] * 4 + [dims] * 4 + [handle],
    "dnnl_convolution_backward_data_primitive_desc_create":
        [_out, handle, _int] + [handle] * 3 + [dims] * 4 + [handle] * 2,
    "dnnl_convolution_backward_weights_primitive_desc_create":
        [_out, handle, _int] + [handle] * 4 + [dims] * 4 + [handle] * 2,
    "dnnl_pooling_forward_primitive_desc_create":
        [_out, handle, _int, _int, handle, handle] + [dims] * 5 + [handle],
    "dnnl_pooling_backward_primitive_desc_create":
        [_out, handle, _int, handle, handle] + [dims] * 5 + [handle] * 2,
    "dnnl_softmax_forward_primitive_desc_create": [_out, handle, _int, _int, handle, handle, _int, handle],
    "dnnl_softmax_backward_primitive_desc_create":
        [_out, handle, _int, handle, handle, handle, _int, handle, handle],
    "dnnl_batch_normalization_forward_primitive_desc_create":
        [_out, handle, _int, handle, handle, _float, _unsigned, handle],
    "dnnl_batch_normalization_backward_primitive_desc_create":
        [_out, handle, _int, handle, handle, handle, _float, _unsigned, handle, handle],
    "dnnl_layer_normalization_forward_primitive_desc_create":
        [_out, handle, _int, handle, handle, handle, _float, _unsigned, handle],
    "dnnl_layer_normalization_backward_primitive_desc_create":
        [_out, handle, _int, handle, handle, handle, handle, _float, _unsigned, handle, handle],
}
RESULTS = {"dnnl_memory_desc_get_size": _size, "dnnl_primitive_desc_query_md": handle}


class Version(ctypes.Structure):
    _fields_ = [("major", _int), ("minor", _int), ("patch", _int), ("hash", ctypes.c_char_p),
                ("cpu_runtime", _unsigned), ("gpu_runtime", _unsigned)]


def switched_off() -> bool:
    """Whether `FLAMBEAU_DISABLE` forbids oneDNN."""
    from flambeau.kernels import backend

    return "onednn" in backend.disabled()


def candidates() -> Iterator[str]:
    """Yield places where the library may be: wheels' files first, then the system's."""
    import importlib.metadata
    from ctypes.util import find_library

    for name in DISTRIBUTIONS:
        try:
            files = importlib.metadata.files(name) or ()
        except importlib.metadata.PackageNotFoundError:
            continue
        for file in files:
            if file.name == f"libdnnl.so.{MAJOR_VERSION}":
                yield str(file.locate())
    if found := find_library("dnnl"):
        yield found
    yield f"libdnnl.so.{MAJOR_VERSION}"


@cache
def load() -> SimpleNamespace | None:
    """The loaded library: its functions (without the prefix `dnnl_`), engine and stream; None if absent."""
    if not ctypes.sizeof(ctypes.c_void_p) == 8:
        return None
    for path in candidates():
        try:
            library = ctypes.CDLL(path)
            library.dnnl_version.restype = ctypes.POINTER(Version)
            version = library.dnnl_version().contents
        except (OSError, AttributeError):
            continue
        if version.major == MAJOR_VERSION:
            return _bind(library, path, version)
    return None


def _bind(library: ctypes.CDLL, path: str, version: Version) -> SimpleNamespace | None:
    api = SimpleNamespace(path=path, version=f"{version.major}.{version.minor}.{version.patch}")
    for name, arguments in SIGNATURES.items():
        function = getattr(library, name)
        function.argtypes, function.restype = arguments, RESULTS.get(name, _int)
        setattr(api, name.removeprefix("dnnl_"), function)
    # Storing a pointer takes no time: keep the interpreter's lock rather than let it go and take it back.
    api.set_data_handle = ctypes.PyDLL(path).dnnl_memory_set_data_handle
    api.set_data_handle.argtypes, api.set_data_handle.restype = [handle, handle], _int
    engine, stream = handle(), handle()
    cpu, in_order = 1, 1
    if api.engine_create(engine, cpu, 0) or api.stream_create(stream, engine, in_order):
        return None
    api.engine, api.stream = engine.value, stream.value
    return api


def functions() -> SimpleNamespace:
    """The loaded library, for those who know that it is there."""
    api = load()
    assert api is not None
    return api


@cache
def available() -> bool:
    """Whether oneDNN is installed and not switched off."""
    return not switched_off() and load() is not None


@cache
def data_types() -> dict[np.dtype, int]:
    """oneDNN's name of each NumPy dtype that the kernels give it."""
    types = {np.dtype(np.float32): F32}
    try:
        import ml_dtypes
    except ImportError:
        return types
    return types | {np.dtype(ml_dtypes.bfloat16): BF16}
