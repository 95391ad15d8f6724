"""Stand-ins for what PyTorch has and flambeau lacks: importing one is fine, using it raises, naming it."""

from __future__ import annotations

import dis
import sys
from abc import ABCMeta
from types import FrameType, ModuleType
from typing import Any, NoReturn

from flambeau.core.errors import error
from flambeau.version import __version__, torch_version

from . import torch_names

__all__ = ["Missing", "MissingModule", "is_attribute_access", "placeholder"]


def fail(name: str) -> NoReturn:
    raise error(
        NotImplementedError,
        f"{name} is not in flambeau {__version__} (PyTorch {torch_version} has it)",
        hint="It could be imported, but not used: take this use out, or run this part with PyTorch.",
    )


def _refuses(*methods: str) -> Any:
    def decorate(cls: type) -> type:
        for method in methods:
            setattr(cls, method, lambda self, *args, **kwargs: fail(self._flambeau_missing))
        return cls

    return decorate


@_refuses(
    "__call__", "__bool__", "__len__", "__iter__", "__next__", "__enter__", "__exit__", "__contains__",
    "__setitem__", "__delitem__", "__int__", "__float__", "__index__", "__lt__", "__le__", "__gt__", "__ge__",
    "__add__", "__radd__", "__sub__", "__rsub__", "__mul__", "__rmul__", "__truediv__", "__rtruediv__", "__neg__",
)  # fmt: skip
class Missing(ABCMeta):
    """The type of the stand-ins. They are classes, so that programs may derive from them and name them in
    annotations, `isinstance` (nothing is one) and `except`; calling one, or a class derived from one, raises."""

    _flambeau_missing: str

    def __new__(mcs, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **options: Any) -> Missing:
        return super().__new__(mcs, name, bases, namespace)

    def __init__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **options: Any) -> None:
        super().__init__(name, bases, namespace)

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        return placeholder(f"{cls._flambeau_missing}.{name}")

    def __setattr__(cls, name: str, value: Any) -> None:
        if cls.__dict__.get("_flambeau_placeholder") and not name.startswith(("__", "_abc_")):
            fail(f"{cls._flambeau_missing}.{name}")
        super().__setattr__(name, value)

    def __getitem__(cls, item: Any) -> Any:
        return cls

    def __instancecheck__(cls, instance: Any) -> bool:
        return False

    def __subclasscheck__(cls, subclass: type) -> bool:
        return cls in type.mro(subclass) if isinstance(subclass, Missing) else False

    def __repr__(cls) -> str:
        if cls.__dict__.get("_flambeau_placeholder"):
            return f"<{cls._flambeau_missing}, which is not in flambeau>"
        return super().__repr__()

    __hash__ = type.__hash__


def placeholder(full_name: str, exception: bool = False) -> Missing:
    """The stand-in for a name such as "torch.foo.Bar"; for an exception class, one that `except` accepts."""
    module, _, name = full_name.rpartition(".")
    namespace = {"_flambeau_missing": full_name, "_flambeau_placeholder": True, "__module__": module}
    return Missing(name, (Exception,) if exception else (), namespace)


class MissingModule(ModuleType):
    """A module that PyTorch has and flambeau lacks."""

    def __init__(self, name: str) -> None:
        super().__init__(name, f"{name} is not in flambeau {__version__}.")
        self.__dict__["__path__"] = []
        self.__dict__["__all__"] = torch_names.names_of(name)

    def __getattr__(self, name: str) -> Any:
        full_name = f"{self.__name__}.{name}"
        known = torch_names.has_name(self.__name__, name) or torch_names.has_module(full_name)
        if not known or not is_attribute_access(sys._getframe(1)):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return stand_in(self.__name__, name)

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        fail(self.__name__)  # of private modules' contents it is not known which are modules

    def __setattr__(self, name: str, value: Any) -> None:
        inner = isinstance(value, ModuleType | Missing)
        if not inner and not (name.startswith("__") and name.endswith("__")):
            fail(f"{self.__name__}.{name}")
        super().__setattr__(name, value)

    def __repr__(self) -> str:
        return f"<module {self.__name__!r}, which is not in flambeau>"


def stand_in(module: str, name: str) -> Any:
    full_name = f"{module}.{name}"
    if torch_names.has_module(full_name):
        return MissingModule(full_name)
    return placeholder(full_name, torch_names.is_exception(module, name))


READS = {dis.opmap[name] for name in ("LOAD_ATTR", "LOAD_METHOD", "IMPORT_FROM") if name in dis.opmap}


def is_attribute_access(frame: FrameType | None) -> bool:
    """Whether the frame is at `module.name` or `from module import name`, and not in a call such as
    `hasattr(module, "name")`: programs that ask first are to hear the truth."""
    return frame is not None and frame.f_code.co_code[frame.f_lasti] in READS
