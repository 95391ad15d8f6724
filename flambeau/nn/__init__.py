"""Neural networks: modules, their functions, initialisers and tools, at PyTorch's paths."""

from flambeau.nn import functional, init  # isort: skip  (the modules build on them)
from flambeau.nn.modules import *  # noqa: F403
from flambeau.nn.modules import __all__ as _modules
from flambeau.nn.parameter import Buffer, Parameter, UninitializedBuffer, UninitializedParameter

from flambeau.nn import modules, parameter, utils  # isort: skip

__all__ = [
    *_modules,
    "Buffer",
    "Parameter",
    "UninitializedBuffer",
    "UninitializedParameter",
    "factory_kwargs",
    "functional",
    "init",
    "modules",
    "parameter",
    "utils",
]


def factory_kwargs(kwargs: dict | None) -> dict:
    """The device and dtype among a layer's keyword arguments, and nothing else.

    >>> factory_kwargs({"device": None, "dtype": None})
    {'device': None, 'dtype': None}
    """
    if kwargs is None:
        return {}
    simple = ("device", "dtype", "memory_format")
    expected = {*simple, "factory_kwargs"}
    if not kwargs.keys() <= expected:
        raise TypeError(f"unexpected kwargs {kwargs.keys() - expected}")
    found = dict(kwargs.get("factory_kwargs", {}))
    for key in simple:
        if key not in kwargs:
            continue
        if key in found:
            raise TypeError(f"{key} specified twice, in **kwargs and in factory_kwargs")
        found[key] = kwargs[key]
    return found
