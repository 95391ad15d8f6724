"""Parametrizations: a parameter or buffer computed, at each access, from others."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import flambeau as fl
from flambeau.core.errors import error
from flambeau.core.tensor import Tensor
from flambeau.nn.modules.container import ModuleDict, ModuleList
from flambeau.nn.modules.module import Module
from flambeau.nn.parameter import Parameter

__all__ = [
    "ParametrizationList",
    "cached",
    "is_parametrized",
    "register_parametrization",
    "remove_parametrizations",
    "transfer_parametrizations_and_params",
    "type_before_parametrizations",
]

_cache_depth = 0
_cache: dict[tuple[int, str], Tensor] = {}


@contextmanager
def cached() -> Iterator[None]:
    """While it lasts, each parametrized tensor is computed once."""
    global _cache_depth
    _cache_depth += 1
    try:
        yield
    finally:
        _cache_depth -= 1
        if not _cache_depth:
            _cache.clear()


def _register(module: Module, name: str, tensor: Tensor) -> None:
    if isinstance(tensor, Parameter):
        module.register_parameter(name, tensor)
    else:
        module.register_buffer(name, tensor)


class ParametrizationList(ModuleList):
    """The parametrizations of one tensor, and what they start from: `original`, or `original0`, `original1`, ..."""

    def __init__(self, modules: Any, original: Tensor, unsafe: bool = False) -> None:
        if not modules:
            raise error(ValueError, "ParametrizationList requires one or more modules.")
        super().__init__(modules)
        self.unsafe = unsafe
        shape, dtype = original.shape, original.dtype
        with fl.no_grad():
            new: Any = original
            for module in reversed(list(self)):
                inverse = getattr(module, "right_inverse", None)
                if inverse is not None:
                    new = inverse(new)
        if not isinstance(new, (Tensor, tuple, list)):
            raise error(
                ValueError,
                "'right_inverse' must return a Tensor or a Sequence of tensors (list, tuple...). "
                f"Got {type(new).__name__}",
            )
        self.is_tensor = isinstance(new, Tensor)
        self.ntensors = 1 if self.is_tensor else len(new)
        if self.is_tensor:
            if not unsafe and new.dtype != dtype:
                raise error(
                    ValueError,
                    "When `right_inverse` outputs one tensor, it may not change the dtype.\n"
                    f"original.dtype: {dtype}\nright_inverse(original).dtype: {new.dtype}",
                )
            if isinstance(original, Parameter):  # the same parameter, so that optimisers keep it
                original.data = new.data
            else:
                original = new
            _register(self, "original", original)
        else:
            for i, part in enumerate(new):
                if not isinstance(part, Tensor):
                    raise error(
                        ValueError,
                        "'right_inverse' must return a Tensor or a Sequence of tensors (list, tuple...). "
                        f"Got element {i} of the sequence with type {type(part).__name__}.",
                    )
                if isinstance(original, Parameter):
                    part = Parameter(part, requires_grad=original.requires_grad)
                _register(self, f"original{i}", part)
        if not unsafe:
            value = self()
            if not isinstance(value, Tensor):
                raise error(ValueError, f"A parametrization must return a tensor. Got {type(value).__name__}.")
            for what, got, wanted in (("dtype", value.dtype, dtype), ("shape", value.shape, shape)):
                if got != wanted:
                    raise error(
                        ValueError,
                        f"Registering a parametrization may not change the {what} of the tensor, unless `unsafe` "
                        f"flag is enabled.\nunparametrized {what}: {wanted}\nparametrized {what}: {got}",
                    )

    def _originals(self) -> list[Tensor]:
        if self.is_tensor:
            return [self.original]
        return [getattr(self, f"original{i}") for i in range(self.ntensors)]

    def right_inverse(self, value: Tensor) -> None:
        """Set the originals so that the tensor becomes `value`."""
        with fl.no_grad():
            for module in reversed(list(self)):
                inverse = getattr(module, "right_inverse", None)
                if inverse is None:
                    raise error(
                        RuntimeError,
                        f"parametrization {type(module).__name__} does not implement right_inverse.",
                    )
                value = inverse(value)
            for old, new in zip(self._originals(), [value] if self.is_tensor else value, strict=True):
                old.data = new.data

    def forward(self) -> Tensor:
        first, *rest = list(self)
        value = first(*self._originals())
        for module in rest:
            value = module(value)
        return value


def _parametrized_property(name: str) -> property:
    def get(self: Any) -> Tensor:
        if not _cache_depth:
            return self.parametrizations[name]()
        key = (id(self), name)
        if key not in _cache:
            _cache[key] = self.parametrizations[name]()
        return _cache[key]

    def set(self: Any, value: Tensor) -> None:
        self.parametrizations[name].right_inverse(value)

    return property(get, set)


def _new_class(module: Module) -> None:
    """Give the module a class of its own, where properties can stand for its parameters."""
    cls = type(module)

    def __deepcopy__(self: Any, memo: dict[int, Any]) -> Any:
        if id(self) in memo:
            return memo[id(self)]
        new = self.__new__(type(self))
        memo[id(self)] = new
        new.__dict__ = copy.deepcopy(self.__dict__, memo)
        _new_class_like(new, cls)
        return new

    def __reduce_ex__(self: Any, protocol: Any) -> Any:
        raise error(
            RuntimeError,
            "Serialization of parametrized modules is only supported through state_dict().",
        )

    fields = {"__deepcopy__": __deepcopy__, "__reduce_ex__": __reduce_ex__, "__module__": cls.__module__}
    module.__class__ = type(f"Parametrized{cls.__name__}", (cls,), fields)


def _new_class_like(module: Any, cls: type) -> None:
    """The same for a copy, whose parametrizations are in place already."""
    module.__class__ = cls
    _new_class(module)
    for name in module.parametrizations:
        setattr(type(module), name, _parametrized_property(name))


def register_parametrization(
    module: Module, tensor_name: str, parametrization: Module, *, unsafe: bool = False
) -> Module:
    """From now on module.tensor_name is parametrization(original); more of them apply one after the other.

    >>> import flambeau as torch
    >>> class Symmetric(torch.nn.Module):
    ...     def forward(self, x):
    ...         return x.triu() + x.triu(1).mT
    >>> m = register_parametrization(torch.nn.Linear(3, 3), "weight", Symmetric())
    >>> bool((m.weight == m.weight.mT).all())
    True
    """
    parametrization.train(module.training)
    if is_parametrized(module, tensor_name):
        known = module.parametrizations[tensor_name]
        if not unsafe:
            value = getattr(module, tensor_name)
            with fl.no_grad():
                new = parametrization(value)
            if not isinstance(new, Tensor) or new.dtype != value.dtype or new.shape != value.shape:
                raise error(
                    ValueError,
                    "Registering a parametrization may not change the dtype or shape of the tensor, unless the "
                    "`unsafe` flag is enabled.",
                )
        with fl.no_grad():
            value = getattr(module, tensor_name)
            inverse = getattr(parametrization, "right_inverse", None)
            if inverse is not None:
                known.right_inverse(inverse(value))
        known.append(parametrization)
        known.unsafe |= unsafe
        return module
    if tensor_name not in module._parameters and tensor_name not in module._buffers:
        raise error(ValueError, f"Module '{module}' does not have a parameter, a buffer, or a parametrized element with name '{tensor_name}'")
    made = ParametrizationList([parametrization], getattr(module, tensor_name), unsafe=unsafe)
    delattr(module, tensor_name)
    if not is_parametrized(module):
        _new_class(module)
        module.parametrizations = ModuleDict()
    setattr(type(module), tensor_name, _parametrized_property(tensor_name))
    module.parametrizations[tensor_name] = made
    return module


def is_parametrized(module: Module, tensor_name: str | None = None) -> bool:
    """Has the module (or this tensor of it) a parametrization?"""
    known = module.__dict__.get("_modules", {}).get("parametrizations")
    if not isinstance(known, ModuleDict):
        return False
    return len(known) > 0 if tensor_name is None else tensor_name in known


def remove_parametrizations(module: Module, tensor_name: str, leave_parametrized: bool = True) -> Module:
    """Make the tensor ordinary again, with its computed value or, if not `leave_parametrized`, its original."""
    if not is_parametrized(module, tensor_name):
        raise error(ValueError, f"Module {module} does not have a parametrization on {tensor_name}")
    known = module.parametrizations[tensor_name]
    originals = known._originals()
    if leave_parametrized:
        with fl.no_grad():
            value = getattr(module, tensor_name)
        if known.is_tensor:
            original = originals[0]
            original.data = value
        else:
            was_parameter = isinstance(originals[0], Parameter)
            original = Parameter(value) if was_parameter else value
    else:
        if not known.is_tensor:
            raise error(
                ValueError,
                "Cannot leave unparametrized (`leave_parametrized=False`) a tensor that is parametrized in terms "
                "of a sequence of tensors.",
            )
        original = originals[0]
    delattr(type(module), tensor_name)
    del module.parametrizations[tensor_name]
    _register(module, tensor_name, original)
    if not is_parametrized(module):
        delattr(module, "parametrizations")
        module.__class__ = type(module).__bases__[0]
    return module


def type_before_parametrizations(module: Module) -> type:
    """The class of the module, as it was."""
    return type(module).__bases__[0] if is_parametrized(module) else type(module)


def transfer_parametrizations_and_params(
    from_module: Module, to_module: Module, tensor_name: str | None = None
) -> Module:
    """Register the parametrizations of one module on another, with its parameters."""
    if not is_parametrized(from_module):
        return to_module
    names = list(from_module.parametrizations) if tensor_name is None else [tensor_name]
    for name in names:
        known = from_module.parametrizations[name]
        if not hasattr(to_module, name):
            setattr(to_module, name, copy.deepcopy(getattr(from_module, name)))
        for parametrization in known:
            register_parametrization(to_module, name, parametrization, unsafe=known.unsafe)
        for old, new in zip(known._originals(), to_module.parametrizations[name]._originals(), strict=True):
            new.data = old.data.clone()
    return to_module
