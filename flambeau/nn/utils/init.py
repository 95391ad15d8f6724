"""Making a module without drawing its initial weights."""

from __future__ import annotations

import inspect
from typing import Any

from flambeau.core.errors import error
from flambeau.nn.modules.module import Module

__all__ = ["skip_init"]


def skip_init(module_cls: type[Module], *args: Any, **kwargs: Any) -> Module:
    """module_cls(*args, **kwargs) with reset_parameters doing nothing: for weights that are loaded next.

    The random number generator is left alone.
    """
    if not (isinstance(module_cls, type) and issubclass(module_cls, Module)):
        raise error(RuntimeError, f"Expected a Module; got {module_cls}")
    if "device" not in inspect.signature(module_cls).parameters:
        raise error(RuntimeError, "Module must support a 'device' arg to skip initialization")
    made = type(module_cls.__name__, (module_cls,), {"reset_parameters": lambda self: None})(*args, **kwargs)
    made.__class__ = module_cls
    return made
