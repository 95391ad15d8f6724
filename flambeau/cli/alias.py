"""Makes `import torch` mean flambeau, in this process and in those it starts.

A finder ahead of all others resolves `torch` and `torch.x.y` to the very module objects of `flambeau` and
`flambeau.x.y`. What PyTorch has and flambeau lacks resolves to stand-ins that fail when they are used. Child
processes that do not inherit the finder by forking find the directory `shim` on their path, whose package `torch`
sets it up.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from . import missing, torch_names, tracebacks

__all__ = ["activate", "resolve", "shim"]

shim = str(Path(__file__).with_name("shim"))


def activate() -> None:
    """Sets the alias up in this process, and in the environment for those it starts."""
    if any(isinstance(finder, Finder) for finder in sys.meta_path):
        return
    sys.meta_path.insert(0, Finder())
    tracebacks.install()
    if shim not in sys.path:
        sys.path.insert(1, shim)  # where PYTHONPATH would put it: spawned processes get a copy of sys.path
    inherited = os.environ.get("PYTHONPATH", "")
    if shim not in inherited.split(os.pathsep):
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [shim, inherited]))


#: Old modules beside PyTorch's package, and where what they hold is now.
OTHERS = {"functorch": "flambeau.func"}


class Finder:
    """Finds `torch` and everything below it, and its old companions; finds nothing else."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name in OTHERS:
            return ModuleSpec(name, Loader(), is_package=True)
        if name != "torch" and not name.startswith("torch."):
            return None
        if not torch_names.has_module(name):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return ModuleSpec(name, Loader(), is_package=True)


class Loader:
    """Puts the resolved module in the place of the one that the import system made."""

    def create_module(self, spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        name = module.__name__
        resolved = sys.modules[name] = resolve(name)
        if isinstance(resolved, missing.MissingModule):
            resolved.__spec__ = module.__spec__
        for child in hidden_children(resolved):
            # Known before anyone imports it: then the import system won't put it in the place of its namesake.
            sys.modules.setdefault(f"{name}.{child}", resolve(f"{name}.{child}"))


def hidden_children(package: ModuleType) -> list[str]:
    """The loaded submodules whose name in the package means something else, as the function `autograd.gradcheck` does."""
    prefix = package.__name__ + "."
    loaded = {name.removeprefix(prefix): m for name, m in list(sys.modules.items()) if name.startswith(prefix)}
    return [n for n, m in loaded.items() if "." not in n and isinstance(m, ModuleType) and package.__dict__.get(n, m) is not m]


def exists(name: str) -> bool:
    """Whether flambeau has the module that is called `name` in PyTorch."""
    ours = "flambeau" + name.removeprefix("torch")
    if ours in sys.modules:
        return True
    try:
        return importlib.util.find_spec(ours) is not None
    except ModuleNotFoundError:  # a parent is no package, or is not there
        return False


def resolve(name: str) -> ModuleType:
    """The module that `name` ("torch", "torch.nn", ...) stands for: flambeau's own, or a stand-in."""
    if name in OTHERS:
        return importlib.import_module(OTHERS[name])
    if not exists(name):
        return missing.MissingModule(name)
    module = importlib.import_module("flambeau" + name.removeprefix("torch"))
    _answer_for_missing_names(module, name)
    return module


def _answer_for_missing_names(module: ModuleType, torch_name: str) -> None:
    """Gives a module of ours stand-ins for the names that its counterpart in PyTorch has and it lacks."""
    own = module.__dict__.get("__getattr__")
    if getattr(own, "flambeau_alias", False):
        return

    def answer(name: str) -> Any:
        if own is not None:
            try:
                return own(name)
            except (AttributeError, NotImplementedError):
                pass
        full_name = f"{torch_name}.{name}"
        read = missing.is_attribute_access(sys._getframe(1))
        if read and torch_names.has_module(full_name):
            return importlib.import_module(full_name)
        if torch_names.has_name(torch_name, name):
            if read:
                return missing.stand_in(torch_name, name)
            raise AttributeError(f"module {torch_name!r} has no attribute {name!r} in flambeau", name=name)
        raise AttributeError(f"module {torch_name!r} has no attribute {name!r}", name=name)

    answer.flambeau_alias = True  # type: ignore[attr-defined]
    module.__dict__["__getattr__"] = answer
