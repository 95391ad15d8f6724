"""`flambeau run`: runs a PyTorch program as `python` would, with `torch` meaning flambeau."""

from __future__ import annotations

import builtins
import importlib.util
import io
import os
import pkgutil
import sys
import zipfile
from importlib.machinery import ModuleSpec, SourceFileLoader
from types import CodeType, ModuleType
from typing import Any

from . import alias

__all__ = ["main"]

replaced: list[ModuleType] = []

USAGE = """usage: flambeau run SCRIPT [ARGS...]
       flambeau run -m MODULE [ARGS...]

Runs a PyTorch program, unedited: wherever it or anything it imports or starts says `import torch`, it gets flambeau.
An installed PyTorch is neither imported nor changed. What flambeau lacks raises NotImplementedError when it is used.

Tracebacks show the program's own lines; FLAMBEAU_TRACEBACK=full shows flambeau's as well."""


def main(args: list[str]) -> int:
    """Runs the program and returns when it ends; its exceptions and SystemExit pass through."""
    if not args or args[0] in ("-h", "--help"):
        print(USAGE, file=sys.stderr if not args else sys.stdout)
        return 0 if args else 2
    if args[0] == "-m":
        if len(args) == 1:
            print("flambeau run: -m needs the name of a module", file=sys.stderr)
            return 2
        return run_module(args[1], args[2:])
    if args[0].startswith("-") and not os.path.exists(args[0]):
        print(f"flambeau run: no option {args[0]!r}\n\n{USAGE}", file=sys.stderr)
        return 2
    return run_script(args[0], args[1:])


def run_script(path: str, args: list[str]) -> int:
    if os.path.isdir(path) or zipfile.is_zipfile(path):
        return _run_container(path, args)
    full = os.path.abspath(path)
    try:
        with io.open_code(full) as file:
            source = file.read()
    except OSError as why:
        return _complain(f"can't open file {full!r}: [Errno {why.errno}] {why.strerror}", 2)
    _prepare([path, *args], os.path.dirname(os.path.realpath(path)))
    code = compile(source, full, "exec", dont_inherit=True)
    _execute(code, file=full, loader=SourceFileLoader("__main__", full))
    return 0


def _run_container(path: str, args: list[str]) -> int:
    """A directory or a zip file with a `__main__.py`."""
    importer: Any = pkgutil.get_importer(path)
    spec = importer.find_spec("__main__") if importer is not None else None
    if spec is None:
        return _complain(f"can't find '__main__' module in {os.path.abspath(path)!r}", 1)
    _prepare([path, *args], path)
    _execute(spec.loader.get_code("__main__"), file=spec.origin, loader=spec.loader, spec=spec)
    return 0


def run_module(name: str, args: list[str]) -> int:
    _prepare(["-m", *args], os.getcwd())
    try:
        spec = _main_spec(name)
        code = spec.loader.get_code(spec.name)  # type: ignore[union-attr]
    except ImportError as why:
        return _complain(str(why), 1)
    if code is None:
        return _complain(f"No code object available for {name}", 1)
    sys.argv[0] = spec.origin or name
    _execute(code, file=spec.origin, loader=spec.loader, spec=spec)
    return 0


def _main_spec(name: str) -> ModuleSpec:
    """Where the code of `-m name` is: a module, or a package's `__main__`."""
    try:
        spec = importlib.util.find_spec(name)
    except ModuleNotFoundError as why:
        raise ImportError(f"Error while finding module specification for {name!r} ({why})") from why
    if spec is None:
        raise ImportError(f"No module named {name}")
    if spec.submodule_search_locations is not None:
        if name.endswith("__main__") or importlib.util.find_spec(f"{name}.__main__") is None:
            raise ImportError(f"No module named {name}.__main__; {name!r} is a package and cannot be directly executed")
        return _main_spec(f"{name}.__main__")
    return spec


def _prepare(argv: list[str], directory: str) -> None:
    sys.argv[:] = argv
    if not getattr(sys.flags, "safe_path", False):
        sys.path[0] = directory  # until now the directory of the command `flambeau` itself
    alias.activate()


def _execute(code: CodeType, file: str | None, loader: Any, spec: ModuleSpec | None = None) -> None:
    """Runs the code as the module `__main__`."""
    module = ModuleType("__main__")
    module.__dict__.update(
        __file__=file, __loader__=loader, __spec__=spec, __builtins__=builtins, __cached__=None,
        __package__=spec.parent if spec is not None else None,
    )  # fmt: skip
    replaced.append(sys.modules["__main__"])  # a module that nobody holds loses its names
    sys.modules["__main__"] = module
    exec(code, module.__dict__)


def _complain(message: str, status: int) -> int:
    print(f"flambeau run: {message}", file=sys.stderr)
    return status
