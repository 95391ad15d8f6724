"""Data loading and other helpers around training. Its modules are loaded when they are first used."""

from __future__ import annotations

import importlib
from types import ModuleType

__all__ = ["checkpoint", "data", "hooks"]


def __getattr__(name: str) -> ModuleType:
    if name in __all__ or name == "_pytree":
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
