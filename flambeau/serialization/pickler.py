"""Writing a pickle that PyTorch reads: tensors, dtypes, sizes and devices under PyTorch's names.

Storages are numbered as they are met and not pickled: their bytes become records of their own, once each.
"""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from typing import Any

import numpy as np

from flambeau.core.device import device
from flambeau.core.dtypes import dtype
from flambeau.core.pickling import user_attributes
from flambeau.core.size import Size
from flambeau.core.tensor import Tensor, address, layout, storage_array

from . import names
from .names import STORAGES, Storage, StorageType


class _Name:
    """Stands for a global of PyTorch's; the pickler writes the name."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name

    def __call__(self) -> None:  # what is written as the function of a call must look like one
        raise TypeError(f"{self.module}.{self.name} is a name in a file")


REBUILD = _Name("torch._utils", "_rebuild_tensor_v2")
REBUILD_PARAMETER = _Name("torch._utils", "_rebuild_parameter")
REBUILD_PARAMETER_WITH_STATE = _Name("torch._utils", "_rebuild_parameter_with_state")
REBUILD_FROM_TYPE = _Name("torch._tensor", "_rebuild_from_type_v2")
TENSOR, SIZE, DEVICE = _Name("torch", "Tensor"), _Name("torch", "Size"), _Name("torch", "device")
LAYOUT = _Name("torch.serialization", "_get_layout")


class _Reduced:
    """Writes as a call of a name."""

    def __init__(self, function: Any, arguments: tuple[Any, ...]) -> None:
        self.function, self.arguments = function, arguments


def dense_bytes(a: np.ndarray) -> np.ndarray | None:
    """The memory of an array, in order, as uint8: a view of it; None if it has gaps or overlaps itself."""
    if any(s <= 0 for n, s in zip(a.shape, a.strides) if n > 1) or not a.size:
        return np.empty(0, np.uint8) if not a.size else None
    order = sorted(range(a.ndim), key=lambda i: (-a.strides[i], -a.shape[i]))
    straight = a.transpose(order)
    if not straight.flags.c_contiguous:
        return None
    return straight.reshape(-1).view(np.uint8)


class Pickler(pickle._Pickler):
    """Python's pickler in Python: only it lets names be written that can't be imported here."""

    def __init__(self, file: io.BytesIO, protocol: int) -> None:
        super().__init__(file, protocol)
        self.storages: dict[int, Storage] = {}  # by address
        self.numbers: dict[int, str] = {}  # by id of the Storage

    # ---- names ------------------------------------------------------------------------------------------------
    def write_name(self, obj: Any, module: str, name: str) -> None:
        if self.proto >= 4:
            self.save(module)
            self.save(name)
            self.write(pickle.STACK_GLOBAL)
        else:
            self.write(pickle.GLOBAL + f"{module}\n{name}\n".encode())
        self.memoize(obj)

    def save_global(self, obj: Any, name: str | None = None) -> None:
        """Our own classes and functions go by PyTorch's module names, which are ours but for the first word."""
        module = getattr(obj, "__module__", None) or ""
        qualified = name or getattr(obj, "__qualname__", "")
        if obj is Tensor:
            self.write_name(obj, "torch", "Tensor")
        elif module.partition(".")[0] == "flambeau" and "." not in qualified:
            self.write_name(obj, "torch" + module.removeprefix("flambeau"), qualified)
        else:
            super().save_global(obj, name)

    dispatch = {**pickle._Pickler.dispatch, type(lambda: 0): save_global}

    def save(self, obj: Any, save_persistent_id: bool = True) -> None:
        if isinstance(obj, (_Name, StorageType, dtype)):
            known = self.memo.get(id(obj))
            if known is not None:
                self.write(self.get(known[0]))
            elif isinstance(obj, _Name):
                self.write_name(obj, obj.module, obj.name)
            else:
                self.write_name(obj, "torch.storage" if obj is names.UNTYPED else "torch", obj.name)
        elif isinstance(obj, _Reduced):
            self.save_reduce(obj.function, obj.arguments, obj=obj)
        else:
            super().save(obj, save_persistent_id)

    def save_type(self, obj: Any) -> None:
        if isinstance(obj, type) and obj.__module__.partition(".")[0] == "flambeau":
            self.save_global(obj)
        else:
            super().save_type(obj)

    dispatch[type] = save_type

    # ---- objects ----------------------------------------------------------------------------------------------
    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, Tensor):
            return self.reduce_tensor(obj)
        kind = type(obj)
        if kind is Size:
            return SIZE, (tuple(obj),)
        if kind is device:
            return DEVICE, ((obj.type,) if obj.index is None else (obj.type, obj.index))
        if kind is layout:
            return LAYOUT, (f"torch.{obj.name}",)
        return NotImplemented

    def reduce_tensor(self, t: Tensor) -> tuple[Any, ...]:
        cls, state = type(t), user_attributes(t)
        state.pop("_channels_last", None)
        if names.is_parameter_type(cls):
            data = _Reduced(REBUILD, self.pieces(t, False))
            if state:
                return REBUILD_PARAMETER_WITH_STATE, (data, t._rg, OrderedDict(), state)
            return REBUILD_PARAMETER, (data, t._rg, OrderedDict())
        arguments = self.pieces(t, t._rg)
        if cls is Tensor and not state:
            return REBUILD, arguments
        return REBUILD_FROM_TYPE, (REBUILD, cls, arguments, state)

    def pieces(self, t: Tensor, requires_grad: bool) -> tuple[Any, ...]:
        """What ``_rebuild_tensor_v2`` takes."""
        a = t._viewable()
        root = storage_array(a)
        data = dense_bytes(root)
        offset = address(a) - address(root)
        odd = any(n % a.itemsize or n < 0 for n in (offset, *a.strides))
        if data is None or odd or not a.size or data.size % a.itemsize:
            root = a = np.array(a, order="C")  # memory that PyTorch couldn't describe: save the values
            data, offset = dense_bytes(a), 0
        assert data is not None
        key = address(root) if a.size else id(a)
        storage = self.storages.get(key)
        if storage is None:
            storage = self.storages[key] = Storage(data, t.dtype)
            storage.root = root  # type: ignore[attr-defined]  # keeps the address taken
            self.numbers[id(storage)] = str(len(self.numbers))
        elif storage.dtype is not t.dtype:
            raise RuntimeError("Cannot save multiple tensors or storages that view the same data as different types")
        stride = tuple(s // a.itemsize for s in a.strides) if a.size else t.stride()
        return storage, offset // a.itemsize, tuple(a.shape), stride, requires_grad, OrderedDict()

    def persistent_id(self, obj: Any) -> Any:
        if not isinstance(obj, Storage):
            return None
        assert obj.dtype is not None
        return "storage", STORAGES[obj.dtype], self.numbers[id(obj)], "cpu", len(obj)
