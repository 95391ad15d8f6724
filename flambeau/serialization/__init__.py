"""Saving and loading in PyTorch's file format: a ``.pt`` written by either side is read by the other.

>>> import io, flambeau
>>> from flambeau.core.tensor import wrap
>>> import numpy as np
>>> file = io.BytesIO()
>>> save({"step": 3, "w": wrap(np.arange(3.0))}, file)
>>> _ = file.seek(0)
>>> sorted(load(file))
['step', 'w']
"""

from __future__ import annotations

import io
import os
import pickle
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pickle import UnpicklingError
from typing import Any, BinaryIO

import numpy as np

from flambeau.core.device import device
from flambeau.core.errors import error

from . import legacy, names
from .archive import Reader, Writer, is_archive, whole
from .names import Storage, StorageType
from .pickler import Pickler
from .unpickler import (
    SafeUnpickler,
    add_safe_globals,
    clear_safe_globals,
    get_safe_globals,
    modern_name,
    safe_globals,
)

__all__ = ["add_safe_globals", "clear_safe_globals", "get_safe_globals", "load", "safe_globals", "save"]

DEFAULT_PROTOCOL = 2


def _is_path(f: Any) -> bool:
    return isinstance(f, (str, os.PathLike))


# ---- saving ---------------------------------------------------------------------------------------------------------
def save(
    obj: Any,
    f: Any,
    pickle_module: Any = pickle,
    pickle_protocol: int = DEFAULT_PROTOCOL,
    _use_new_zipfile_serialization: bool = True,
    _disable_byteorder_record: bool = False,
) -> None:
    """Save an object to a file: a path, or a file object with ``write``.

    Tensors that share a storage share it again when they are loaded. A path is written beside and then renamed: a save
    that is interrupted leaves the old file as it was.

    Raises RuntimeError if the directory isn't there, or if tensors of different dtypes share a storage.
    """
    if not _use_new_zipfile_serialization:
        raise error(
            NotImplementedError,
            "save(_use_new_zipfile_serialization=False) is not in flambeau",
            hint="Every PyTorch since 1.6 reads the format that save() writes without it.",
        )
    if pickle_module is not pickle:
        raise error(NotImplementedError, "save(pickle_module=...) other than pickle is not in flambeau")
    if not _is_path(f) and not hasattr(f, "write"):
        raise error(
            AttributeError,
            f"expected 'f' to be string, path, or a file-like object with a 'write' attribute, not {type(f).__name__}",
        )
    pickled = io.BytesIO()
    pickler = Pickler(pickled, pickle_protocol)
    pickler.dump(obj)
    if not _is_path(f):
        _write(f, "archive", pickled, pickler, _disable_byteorder_record, seekable=False)
        return
    path = os.fspath(f)
    name = os.path.splitext(os.path.basename(path))[0] or "archive"
    with _replacing(path) as file:
        _write(file, name, pickled, pickler, _disable_byteorder_record, seekable=True)


def _write(file: Any, name: str, pickled: io.BytesIO, pickler: Pickler, no_order: bool, seekable: bool) -> None:
    records = [("data.pkl", pickled.getbuffer()), (".format_version", b"1"), (".storage_alignment", b"64")]
    if not no_order:
        records.append(("byteorder", sys.byteorder.encode()))
    for number, storage in enumerate(pickler.storages.values()):
        records.append((f"data/{number}", storage.data.data if storage.data.size else b""))
    records.append(("version", b"3\n"))
    writer = Writer(file, name, seekable)
    try:
        for record in records:
            writer.record(*record)
        writer.close()
    finally:
        writer.abandon()


@contextmanager
def _replacing(path: str) -> Iterator[BinaryIO]:
    """A file that takes the place of ``path`` when the block ends well, and vanishes when it doesn't."""
    target = os.path.realpath(path)
    parent = os.path.dirname(target)
    if not os.path.isdir(parent):
        raise error(RuntimeError, f"Parent directory {os.path.dirname(os.fspath(path))} does not exist.")
    try:
        mode = os.stat(target).st_mode
    except FileNotFoundError:
        mask = os.umask(0)
        os.umask(mask)
        mode = 0o666 & ~mask
    else:
        if not stat.S_ISREG(mode):  # a device, a pipe: nothing to replace; open() says what is wrong with a directory
            with open(target, "wb") as file:
                yield file
            return
    handle, beside = tempfile.mkstemp(prefix=f".{os.path.basename(target)}.", suffix=".tmp", dir=parent)
    try:
        with os.fdopen(handle, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(beside, stat.S_IMODE(mode))
        os.replace(beside, target)
    except BaseException:
        os.unlink(beside)
        raise


# ---- loading --------------------------------------------------------------------------------------------------------
def load(
    f: Any,
    map_location: Any = None,
    pickle_module: Any = None,
    *,
    weights_only: bool | None = True,
    mmap: bool | None = None,
    **pickle_load_args: Any,
) -> Any:
    """Load what ``save``, here or in PyTorch, wrote to a path or file object.

    By default the file's pickle is read as data: it can name only what PyTorch allows (tensors, containers, numbers,
    strings) and what ``add_safe_globals`` added; anything else is refused and nothing is executed.
    ``weights_only=False`` unpickles whatever is named, which lets a file run code: only for files you trust.

    ``map_location``: where tensors go, as a device, a dict from saved to wanted devices, or a function of (storage,
    location). ``mmap=True`` maps the file rather than read it, so that only what is used is read.

    Raises UnpicklingError for a name that isn't allowed, RuntimeError for a damaged file.
    """
    weights_only = True if weights_only is None else weights_only
    if weights_only and pickle_module is not None:
        raise error(RuntimeError, "Can not safely load weights when explicit pickle_module is specified")
    if mmap and not _is_path(f):
        raise error(ValueError, "f must be a file path in order to use the mmap argument")
    if not _is_path(f) and not all(hasattr(f, m) for m in ("read", "readline", "tell", "seek")):
        raise error(
            AttributeError,
            "You can only torch.load from a file that is seekable. Please pre-load the data into a buffer like "
            "io.BytesIO and try to load from it instead.",
        )
    unpickler = _Unpicklers(weights_only, pickle_module or pickle, pickle_load_args)
    try:
        if not _is_path(f):
            return _load(whole(f), None, map_location, unpickler)
        with open(f, "rb") as file:
            return _load(file, os.fspath(f) if mmap else None, map_location, unpickler)
    except RuntimeError as problem:  # what a damaged file gives, where it was found: the user's line is added
        if type(problem) is not RuntimeError or "\n  at " in str(problem):
            raise
        raise error(RuntimeError, str(problem)) from problem.__cause__


def _load(file: BinaryIO, mapped: str | None, map_location: Any, unpickler: _Unpicklers) -> Any:
    place = _Placer(map_location)
    if not is_archive(file):
        if mapped is not None:
            raise error(
                RuntimeError,
                "mmap can only be used with files saved with `torch.save(_use_new_zipfile_serialization=True), please "
                "torch.save your checkpoint with this option in order to use mmap.",
            )
        size = os.fstat(file.fileno()).st_size if not isinstance(file, io.BytesIO) else file.getbuffer().nbytes
        return legacy.load(file, size, lambda persistent_load: unpickler(file, persistent_load), place)
    reader = Reader(file, mapped)
    if "constants.pkl" in reader:
        raise NotImplementedError("TorchScript archives are not in flambeau: load them with torch.jit.load in PyTorch")
    swapped = "byteorder" in reader and reader.read("byteorder").tobytes() not in (sys.byteorder.encode(), b"")
    storages: dict[str, Storage] = {}

    def persistent_load(pid: Any) -> Storage:
        if len(pid) < 5:
            raise RuntimeError("a storage in the file is not described")
        kind, key, location, count = pid[1:5]
        if not isinstance(kind, StorageType) or type(key) is not str or type(count) is not int:
            raise RuntimeError("a storage in the file has no type or no number")
        if key not in storages:
            storages[key] = place(_storage(reader, key, kind, count, swapped), location)
        return storages[key]

    return unpickler(io.BytesIO(reader.read("data.pkl").tobytes()), persistent_load)


def _storage(reader: Reader, key: str, kind: StorageType, count: int, swapped: bool) -> Storage:
    name = f"data/{key}"
    item = kind.dtype.itemsize if kind.dtype is not None else 1
    available = reader.size_of(name)
    if not 0 <= count * item <= available:
        raise RuntimeError(
            f"PytorchStreamReader failed reading file {name}: {count} elements of {item} bytes were announced, it has "
            f"{available} bytes"
        )
    data = reader.read(name)[: count * item]
    if swapped and kind.dtype is not None:
        data = data.view(kind.dtype.np).byteswap().view(np.uint8)
    return Storage(data, kind.dtype)


class _Placer:
    """Where a storage goes: everything ends on the CPU, or the load says why it can't."""

    def __init__(self, map_location: Any) -> None:
        self.map_location = map_location

    def __call__(self, storage: Storage, location: Any) -> Storage:
        wanted = self.map_location
        if isinstance(wanted, dict):
            location = wanted.get(location, location)
        elif isinstance(wanted, (str, device)):
            location = str(wanted)
        elif callable(wanted):
            result = wanted(storage, location)
            if result is not None:
                return result
        elif wanted is not None:
            kind = type(wanted).__name__
            raise error(TypeError, f"map_location must be None, a device, a dict or a function, not {kind}")
        kind = device(location).type if isinstance(location, (str, device)) else str(location)
        if kind == "cpu":
            return storage
        if kind == "cuda":
            raise error(
                RuntimeError,
                "Attempting to deserialize object on a CUDA device but torch.cuda.is_available() is False. If you are "
                "running on a CPU-only machine, please use torch.load with map_location=torch.device('cpu') to map your "
                "storages to the CPU.",
            )
        raise error(RuntimeError, f"don't know how to restore data location of torch storage (tagged with {location})")


class _Unpicklers:
    """Unpickles as the arguments of ``load`` ask."""

    def __init__(self, safe: bool, module: Any, options: dict[str, Any]) -> None:
        self.safe, self.module = safe, module
        self.options = {"encoding": "utf-8", **options}

    def __call__(self, file: BinaryIO, persistent_load: Callable[[Any], Any]) -> Any:
        if self.safe:
            return _safely(file, persistent_load, self.options["encoding"])
        return _freely(self.module, file, persistent_load, self.options)


def _safely(file: BinaryIO, persistent_load: Callable[[Any], Any], encoding: str) -> Any:
    try:
        return SafeUnpickler(file, persistent_load, encoding).load()
    except (RuntimeError, MemoryError):  # also NotImplementedError; a RecursionError can't come
        raise
    except UnpicklingError as problem:
        reason = str(problem)
    except Exception as problem:  # whatever damaged data makes of a step
        reason = f"the pickle is damaged ({type(problem).__name__}: {problem})"
    raise error(
        UnpicklingError,
        "Weights only load failed. With `weights_only=True`, the default, a file is read as data and nothing in it is "
        "executed. Re-running `torch.load` with `weights_only` set to `False` would unpickle whatever it names, and can "
        "result in arbitrary code execution: do it only if you got the file from a trusted source.\n"
        f"\tWeightsUnpickler error: {reason}",
    )


def _freely(module: Any, file: BinaryIO, persistent_load: Callable[[Any], Any], options: dict[str, Any]) -> Any:
    class Unpickler(module.Unpickler):
        def find_class(self, module_name: str, name: str) -> Any:
            module_name, name = modern_name(module_name, name)
            full = f"{module_name}.{name}"
            if full == "torch.nn.parameter.Parameter":
                return names.parameter_type()
            if full.startswith("torch."):
                if full in names.CALLABLE:
                    return names.CALLABLE[full]
                if full in names.NAMED:
                    return names.NAMED[full]
                if full in names.ABSENT:
                    raise NotImplementedError(f"{full} is not in flambeau: this file can't be loaded")
            if module_name.partition(".")[0] == "torch":  # PyTorch's modules have their like here
                module_name = "flambeau" + module_name.removeprefix("torch")
            return super().find_class(module_name, name)

        def persistent_load(self, pid: Any) -> Any:
            return persistent_load(pid)

    return Unpickler(file, **options).load()
