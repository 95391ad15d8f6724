"""From LLVM text to addresses of functions: one engine for all code, and object code cached on disk.

What is cached is the machine code itself, in `$FLAMBEAU_CACHE` or `~/.cache/flambeau`, one file for each
kernel, named by a hash of all that it depends on. On a hit nothing is generated, optimised or compiled.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flambeau.kernels import backend
from flambeau.kernels.lower_llvm import VERSION, Machine

_lock = threading.RLock()
_engine: _Engine | None = None


def cache_dir() -> Path:
    """Where object code is kept."""
    chosen = os.environ.get("FLAMBEAU_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "flambeau"


class _Engine:
    """llvmlite, set up for this machine. Never freed: NumPy holds addresses into its code."""

    def __init__(self) -> None:
        import llvmlite
        import llvmlite.binding as llvm

        self.llvm = llvm
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        cpu, features = llvm.get_host_cpu_name(), llvm.get_host_cpu_features()
        self.target = llvm.Target.from_default_triple().create_target_machine(
            opt=2, cpu=cpu, features=features.flatten(), reloc="pic", codemodel="small"
        )
        self.engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), self.target)
        self.machine = self._machine(features)
        parts = (
            VERSION,
            llvmlite.__version__,
            cpu,
            features.flatten(),
            self.machine.mvec_letter,
            self.machine.openmp,
        )
        self.fingerprint = hashlib.sha256(repr(parts).encode()).hexdigest()
        self.directory = cache_dir()
        self.addresses: dict[str, int] = {}

    def _machine(self, features: dict[str, bool]) -> Machine:
        x86 = platform.machine().lower() in ("x86_64", "amd64")
        vector_bytes, letter = 16, "b"
        if x86 and features.get("avx512f") and features.get("avx512dq") and features.get("avx512vl"):
            vector_bytes, letter = 64, "e"
        elif x86 and features.get("avx2"):
            vector_bytes, letter = 32, "d"
        mvec = backend.library("libmvec") if x86 else None
        gomp = backend.library("libgomp")
        if gomp:
            for symbol in ("GOMP_parallel", "omp_get_thread_num", "omp_get_num_threads"):
                self._add_symbol(gomp, symbol)
        return Machine(
            vector_bytes,
            letter if mvec else "",
            lambda name: mvec is not None and self._add_symbol(mvec, name),
            gomp is not None,
            x86,
        )

    def _add_symbol(self, library: ctypes.CDLL, name: str) -> bool:
        try:
            function = library[name]
        except AttributeError:
            return False
        self.llvm.add_symbol(name, ctypes.cast(function, ctypes.c_void_p).value)
        return True

    def load(self, code: bytes, name: str) -> int:
        image = self.llvm.ObjectFileRef.from_data(code)
        self.engine.add_object_file(image)
        self.engine.finalize_object()
        return self.engine.get_function_address(name)


def engine() -> _Engine:
    """The engine, started by the first kernel."""
    global _engine
    with _lock:
        if _engine is None:
            _engine = _Engine()
        return _engine


def function(key: str, text: Callable[[str, Machine], str]) -> int:
    """The address of the function that `key` stands for.

    `text(name, machine)` is the LLVM text of a module that defines `name`; it is asked for only when the
    cache has no code under the key, which must say everything that the text depends on but the machine.
    """
    with _lock:
        e = engine()
        digest = hashlib.sha256(f"{e.fingerprint} {key}".encode()).hexdigest()[:32]
        if digest in e.addresses:  # no symbol may be defined twice
            return e.addresses[digest]
        name = f"flambeau_{digest}"
        path = e.directory / f"{digest}.o"
        code = _read(path)
        if code is None:
            module = e.llvm.parse_assembly(text(name, e.machine))
            code = e.target.emit_object(module)
            _write(path, code)
        else:
            _resolve(e, code)
        e.addresses[digest] = e.load(code, name)
        return e.addresses[digest]


_MAGIC = b"flambeau-1 "


def _read(path: Path) -> bytes | None:
    """The code in a cache file; None if there is none, or if the file is not whole."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    head, code = content[: len(_MAGIC) + 32], content[len(_MAGIC) + 32 :]
    return code if head == _MAGIC + hashlib.sha256(code).digest() else None


def _write(path: Path, code: bytes) -> None:
    """Written aside, then renamed: others see the whole file or none. No directory, no cache."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", delete=False) as file:
            file.write(_MAGIC + hashlib.sha256(code).digest() + code)
    except OSError:
        return
    try:
        os.replace(file.name, path)
    except OSError:
        os.unlink(file.name)


def _resolve(e: _Engine, code: bytes) -> None:
    """Make known the libmvec functions that cached code calls."""
    start = code.find(b"_ZGV")
    while start >= 0:
        end = code.index(b"\0", start)
        e.machine.mvec(code[start:end].decode())
        start = code.find(b"_ZGV", end)


def call(address: int, result: Any, *argument_types: Any) -> Callable:
    """A generated function as a ctypes function."""
    return ctypes.CFUNCTYPE(result, *argument_types)(address)
