"""Writes flambeau/cli/torch_names.txt: the public modules and names of an installed PyTorch.

    python tools/torch_names.py            # rewrite the file
    python tools/torch_names.py --check    # exit 1 if it is out of date

`flambeau run` reads it to tell a name that PyTorch has and flambeau lacks (an error when it is used) from one that
nobody has (an error when it is imported). A line is a module, a colon, and its names; `name!` is an exception class.
A private module's line says only that it is there.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
import types
import warnings
from pathlib import Path

TARGET = Path(__file__).parent.parent / "flambeau" / "cli" / "torch_names.txt"
SKIP = ("torch.utils.benchmark.examples", "torch.bin", "torch.lib")


def modules() -> dict[str, types.ModuleType | None]:
    """Every module of torch by name: public ones imported (None where that fails), private ones only named."""
    import torch

    found: dict[str, types.ModuleType | None] = {"torch": torch}

    def walk(package: types.ModuleType) -> None:
        for info in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
            name = info.name
            if name.startswith(SKIP) or name.endswith("__main__"):
                continue
            if any(part.startswith("_") for part in name.split(".")):
                if name.count(".") <= 2:
                    found[name] = None
                continue
            try:
                module = importlib.import_module(name)
            except BaseException as why:  # a module for another system, or with an optional dependency
                print(f"{name}: {type(why).__name__}: {why}"[:150], file=sys.stderr)
                found[name] = None
                continue
            found[name] = module
            if hasattr(module, "__path__"):
                walk(module)

    walk(torch)
    for name, module in sorted(sys.modules.items()):  # modules made by hand, as torch.ops.aten and torch.classes
        if name.startswith("torch.") and name not in found and isinstance(module, types.ModuleType):
            if not any(part.startswith("_") for part in name.split(".")):
                found[name] = module
    return found


def names(module: types.ModuleType) -> list[str]:
    """The module's own names: not what it imported from elsewhere, and nothing private."""
    exported = vars(module).get("__all__", ())
    exported = set(exported) if isinstance(exported, list | tuple) else set()
    listed = []
    for name in sorted(exported | set(vars(module))):
        if name.startswith("_") or not name.isidentifier():
            continue
        try:
            value = getattr(module, name)
        except Exception:
            if name in exported:
                listed.append(name)
            continue
        if isinstance(value, types.ModuleType):
            continue  # a submodule has a line of its own
        home = getattr(value, "__module__", None) or type(value).__module__
        if name in exported or (isinstance(home, str) and home.split(".")[0] == "torch"):
            error = isinstance(value, type) and issubclass(value, BaseException)
            listed.append(name + "!" * error)
    return listed


def main() -> int:
    warnings.simplefilter("ignore")
    lines = []
    for name, module in sorted(modules().items()):
        own = "" if module is None else " ".join(names(module))
        lines.append(f"{name}: {own}".rstrip() + "\n")
    text = "".join(lines)
    if "--check" in sys.argv:
        return int(TARGET.read_text() != text)
    TARGET.write_text(text)
    print(f"{TARGET}: {len(lines)} modules, {len(text):,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
