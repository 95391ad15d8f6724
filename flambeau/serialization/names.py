"""PyTorch's names in a pickle, and what stands for them here: one table for reading and writing.

Files carry PyTorch's names (``torch._utils._rebuild_tensor_v2``, ``torch.FloatStorage``, ...), so that either side
reads what the other wrote. Functions here check whatever they are given: their arguments come from the file.
"""

from __future__ import annotations

import sys
from collections import Counter, OrderedDict
from typing import Any

import numpy as np

from flambeau.core import dtypes
from flambeau.core.device import device
from flambeau.core.dtypes import dtype
from flambeau.core.size import Size
from flambeau.core.tensor import Tensor, is_private_layout, layout, new_tensor, strided, wrap


class StorageType:
    """``torch.FloatStorage`` and its like: in a pickle, the dtype of a storage."""

    def __init__(self, name: str, of: dtype | None) -> None:
        self.name, self.dtype = name, of


UNTYPED = StorageType("UntypedStorage", None)
STORAGES = {d: StorageType(f"{name}Storage", d) for d, name in dtypes.SCALAR_NAMES.items()}


class Storage:
    """The bytes of one storage while it is being saved or loaded; what ``map_location`` is called with."""

    def __init__(self, data: np.ndarray, of: dtype | None) -> None:
        self.data, self.dtype = data, of

    def nbytes(self) -> int:
        return self.data.nbytes

    def __len__(self) -> int:
        return self.data.nbytes // (self.dtype.itemsize if self.dtype else 1)

    size = __len__

    @property
    def device(self) -> device:
        return device("cpu")

    def cpu(self) -> Storage:
        return self


def _whole(values: Any, what: str) -> tuple[int, ...]:
    if not isinstance(values, (tuple, list)) or not all(type(v) is int for v in values):
        raise RuntimeError(f"{what} of a tensor in the file must be integers")
    return tuple(values)


def tensor_on(storage: Any, of: dtype, offset: Any, size: Any, stride: Any) -> Tensor:
    """A tensor on a storage, if the storage has the room."""
    if not isinstance(storage, Storage) or not isinstance(of, dtype):
        raise RuntimeError("a tensor in the file has no storage or no dtype")
    shape, steps = _whole(size, "sizes"), _whole(stride, "strides")
    (start,) = _whole((offset,), "the offset")
    if len(shape) != len(steps) or len(shape) > 64:
        raise RuntimeError(f"mismatch in length of strides and shape: {len(steps)} and {len(shape)}")
    if start < 0 or min(shape, default=0) < 0 or min(steps, default=0) < 0:
        raise RuntimeError(f"negative sizes, strides or offset in the file: {list(shape)}, {list(steps)}, {start}")
    item, available = of.itemsize, storage.nbytes()
    empty = 0 in shape
    last = 0 if empty else 1 + sum((n - 1) * s for n, s in zip(shape, steps))
    if (start + last) * item > available:
        raise RuntimeError(
            f"setStorage: sizes {list(shape)}, strides {list(steps)}, storage offset {start}, and itemsize {item} "
            f"requiring a storage size of {(start + last) * item} are out of bounds for storage of size {available}"
        )
    if empty:
        return wrap(np.empty(shape, of.np))
    try:
        a = np.ndarray(shape, of.np, storage.data, start * item, [s * item for s in steps])
    except ValueError as problem:  # more elements than an array can count, by strides of 0
        raise RuntimeError(f"sizes {list(shape)} in the file are too large") from problem
    t = wrap(a)
    if is_private_layout(t):  # channels-last because the file says so
        t.__dict__["_channels_last"] = True
    return t


def rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any) -> Tensor:
    return tensor_on(storage, storage.dtype, offset, size, stride)


def rebuild_tensor_v2(
    storage: Any, offset: Any, size: Any, stride: Any, requires_grad: Any, hooks: Any, metadata: Any = None
) -> Tensor:
    return tensor_on(storage, storage.dtype, offset, size, stride).requires_grad_(bool(requires_grad))


def rebuild_tensor_v3(
    storage: Any, offset: Any, size: Any, stride: Any, requires_grad: Any, hooks: Any, of: Any, metadata: Any = None
) -> Tensor:
    return tensor_on(storage, of, offset, size, stride).requires_grad_(bool(requires_grad))


def rebuild_parameter(data: Any, requires_grad: Any, hooks: Any) -> Tensor:
    if not isinstance(data, Tensor):
        raise RuntimeError("a parameter in the file has no tensor")
    return parameter_type()(data, bool(requires_grad))


def rebuild_parameter_with_state(data: Any, requires_grad: Any, hooks: Any, state: Any) -> Tensor:
    return set_state(rebuild_parameter(data, requires_grad, hooks), state)


def rebuild_from_type_v2(function: Any, cls: Any, arguments: Any, state: Any) -> Tensor:
    t = function(*arguments)
    if not isinstance(t, Tensor) or not (isinstance(cls, type) and issubclass(cls, Tensor)):
        raise RuntimeError("a tensor in the file is not made as one")
    if type(t) is not cls:
        other = new_tensor(cls)
        other._a, other._grad_fn, other._rg = t._a, None, t._rg
        t = other
    return set_state(t, state)


def set_state(t: Tensor, state: Any) -> Tensor:
    """What a user had hung on the tensor; names that are the class's own are refused."""
    if isinstance(state, tuple) and len(state) == 2:  # (dict, slots)
        state = {**(state[0] or {}), **(state[1] or {})}
    for name, value in (state or {}).items():
        if type(name) is not str or hasattr(Tensor, name):
            raise RuntimeError(f"the file sets {name:.80} on a tensor" if type(name) is str else "not a name")
        t.__dict__[name] = value
    return t


def make_size(values: Any = ()) -> Size:
    return Size(_whole(values, "sizes"))


def make_device(kind: Any, index: Any = None) -> device:
    return device(kind, index)


def get_layout(name: Any) -> layout:
    if name != "torch.strided":
        raise NotImplementedError("layouts other than torch.strided are not in flambeau")
    return strided


def encode(text: Any, encoding: Any = "latin1") -> bytes:
    """bytes in pickles of protocol 2."""
    if type(text) is not str or encoding not in ("latin1", "latin-1"):
        raise RuntimeError("bytes in the file are not encoded as pickle does it")
    return text.encode("latin1")


def make_bytes() -> bytes:
    """Empty bytes in pickles of protocol 2."""
    return b""


def make_bytearray(*arguments: Any) -> bytearray:
    if not arguments:
        return bytearray()
    if type(arguments[0]) is str:
        return bytearray(encode(*arguments))
    if type(arguments[0]) not in (bytes, list, tuple):  # not a number: that would allocate
        raise RuntimeError("a bytearray in the file is not made of bytes")
    return bytearray(arguments[0])


def is_parameter_type(cls: Any) -> bool:
    """Whether it is nn.Parameter, without importing nn to ask."""
    module = sys.modules.get("flambeau.nn.parameter")
    return module is not None and cls is getattr(module, "Parameter", None)


def parameter_type() -> Any:
    from flambeau.nn.parameter import Parameter

    return Parameter


#: What a file may call.
CALLABLE: dict[str, Any] = {
    "torch._utils._rebuild_tensor": rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": rebuild_tensor_v2,
    "torch._utils._rebuild_tensor_v3": rebuild_tensor_v3,
    "torch._utils._rebuild_parameter": rebuild_parameter,
    "torch._utils._rebuild_parameter_with_state": rebuild_parameter_with_state,
    "torch._tensor._rebuild_from_type_v2": rebuild_from_type_v2,
    "torch.serialization._get_layout": get_layout,
    "torch.Size": make_size,
    "torch.device": make_device,
    "collections.OrderedDict": OrderedDict,
    "collections.Counter": Counter,
    "_codecs.encode": encode,
    "builtins.bytes": make_bytes,
    "builtins.bytearray": make_bytearray,
    "builtins.set": set,
    "builtins.frozenset": frozenset,
    "builtins.complex": complex,
}
#: What a file may name, but not call.
NAMED: dict[str, Any] = {
    "torch.Tensor": Tensor,
    "torch.storage.UntypedStorage": UNTYPED,
    **{f"torch.{s.name}": s for s in STORAGES.values()},
    **{f"torch.{d.name}": d for d in dtypes.ALL},
}
_ABSENT_DTYPES = (
    "uint16 uint32 uint64 float8_e4m3fn float8_e5m2 float8_e4m3fnuz float8_e5m2fnuz float8_e8m0fnu "
    "float4_e2m1fn_x2 complex32 qint8 quint8 qint32 quint4x2 quint2x4"
)
ABSENT = {f"torch.{n}" for n in _ABSENT_DTYPES.split()} | {
    f"torch.{n}Storage" for n in ("QInt8", "QUInt8", "QInt32", "QUInt4x2", "QUInt2x4")
} | {
    f"torch._utils._rebuild_{n}"
    for n in ("qtensor", "sparse_tensor", "meta_tensor_no_storage", "nested_tensor", "wrapper_subclass")
}  # fmt: skip
