"""Files of ``torch.save`` before version 1.6: pickles one after the other, then the storages' bytes."""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np

from .names import Storage, StorageType

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001


def load(file: BinaryIO, size: int, unpickle: Callable[[Callable[[Any], Any]], Any], place: Callable[..., Any]) -> Any:
    """Read a whole legacy file; ``unpickle(persistent_load)`` reads its next pickle."""

    def refuse(pid: Any) -> Any:
        raise RuntimeError("a storage where a legacy file has none")

    if unpickle(refuse) != MAGIC:
        raise RuntimeError("Invalid magic number; corrupt file?")
    if unpickle(refuse) != PROTOCOL:
        raise RuntimeError("Invalid protocol version")
    system = unpickle(refuse)
    storages: dict[str, Storage] = {}

    def persistent_load(pid: Any) -> Any:
        kind, key, location, count = pid[1:5]
        if len(pid) > 5 and pid[5] is not None:
            raise NotImplementedError("views of storages in legacy files are not in flambeau; save the file anew")
        if not isinstance(kind, StorageType) or kind.dtype is None or type(count) is not int or not count >= 0:
            raise RuntimeError("a storage in the file has no type or no size")
        if str(key) not in storages:
            if count * kind.dtype.itemsize > size:
                raise RuntimeError(f"a storage in the file is larger than the file ({count} elements)")
            storages[str(key)] = Storage(np.zeros(count * kind.dtype.itemsize, np.uint8), kind.dtype)
            place(storages[str(key)], location)
        return storages[str(key)]

    result = unpickle(persistent_load)
    little = system.get("little_endian", True) if isinstance(system, dict) else True
    keys = unpickle(refuse)
    if not isinstance(keys, list):
        raise RuntimeError("a legacy file without a list of its storages; corrupt file?")
    for key in keys:
        storage = storages.get(str(key))
        head = file.read(8)
        if storage is None or len(head) != 8:
            raise RuntimeError("unexpected EOF. The file might be corrupted.")
        (count,) = struct.unpack("<q" if little else ">q", head)
        if count != len(storage):
            raise RuntimeError(f"a storage in the file has {count} elements where {len(storage)} were announced")
        if storage.data.size and file.readinto(storage.data.data) != storage.data.size:  # type: ignore[attr-defined]
            raise RuntimeError(f"unexpected EOF, expected {storage.data.size} more bytes. The file might be corrupted.")
        if little != (sys.byteorder == "little"):
            assert storage.dtype is not None
            storage.data.view(storage.dtype.np).byteswap(inplace=True)
    return result
