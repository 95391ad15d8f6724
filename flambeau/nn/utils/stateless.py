"""Calling a module with other parameters and buffers than its own."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flambeau.core.errors import error
from flambeau.core.tensor import Tensor
from flambeau.nn.modules.module import Module

__all__ = ["functional_call"]


def _with_tied(module: Module, given: dict[str, Tensor]) -> dict[str, Tensor]:
    """The given tensors, also under all other names of the tensors that they replace."""
    own = dict(module.named_parameters(remove_duplicate=False))
    own.update(module.named_buffers(remove_duplicate=False))
    names: dict[int, list[str]] = {}
    for name, tensor in own.items():
        names.setdefault(id(tensor), []).append(name)
    result = dict(given)
    for tied in names.values():
        values = [given[n] for n in tied if n in given]
        if len({id(v) for v in values}) > 1:
            raise error(
                ValueError,
                f"functional_call got multiple values for keys {sorted(tied)}, which are tied. Consider using "
                "tie_weights=False",
            )
        if values:
            result.update(dict.fromkeys(tied, values[0]))
    return result


_MISSING: Any = object()


class _Attributes:
    """A module's other attributes as a mapping: tensors that are neither parameters nor buffers, parametrized ones."""

    def __init__(self, owner: Module) -> None:
        self.owner = owner

    def __getitem__(self, name: str) -> Any:
        return getattr(self.owner, name, _MISSING)

    def __setitem__(self, name: str, value: Any) -> None:
        if value is _MISSING:
            delattr(self.owner, name)
        else:
            setattr(self.owner, name, value)


def _place(module: Module, name: str) -> tuple[Any, str]:
    """What holds the parameter, the buffer or the attribute of this dotted name."""
    path, _, last = name.rpartition(".")
    owner: Any = module
    for part in path.split(".") if path else ():
        if part not in owner._modules:
            if hasattr(owner, part):
                raise error(
                    TypeError, f"submodule `{part}`: {getattr(owner, part)} is not an instance of torch.nn.Module", hint=f"The name given is {name!r}."
                )
            raise error(AttributeError, f"{owner._get_name()} has no attribute `{part}`", hint=f"The name given is {name!r}.")
        owner = owner._modules[part]
    if not last:
        raise error(KeyError, 'tensor name can\'t be empty string ""')
    for where in (owner._parameters, owner._buffers):
        if last in where:
            return where, last
    return _Attributes(owner), last


@contextmanager
def _reparametrize_module(
    module: Module, given: dict[str, Tensor], tie_weights: bool = False, strict: bool = False
) -> Iterator[None]:
    """While it lasts, the module has the given tensors for its own."""
    wanted = _with_tied(module, given) if tie_weights else given
    places = {name: _place(module, name) for name in wanted}
    if strict:
        own = {n for n, _ in module.named_parameters(remove_duplicate=False)}
        own |= {n for n, _ in module.named_buffers(remove_duplicate=False)}
        messages = []
        unexpected = [n for n, (holder, _) in places.items() if isinstance(holder, _Attributes)]
        missing = sorted(own - set(wanted))
        if unexpected:
            messages.append(f"Unexpected key(s): {', '.join(map(repr, unexpected))}.")
        if missing:
            messages.append(f"Missing key(s): {', '.join(map(repr, missing))}.")
        if messages:
            listed = "\n\t".join(messages)
            raise error(RuntimeError, f"Error(s) in reparametrizing for {module._get_name()}:\n\t{listed}")
    for name, (holder, key) in places.items():
        if wanted[name] is not None and not isinstance(wanted[name], Tensor):
            raise error(TypeError, f"{wanted[name]} is not an instance of torch.Tensor", hint=f"It was given for {name!r}.")
        if isinstance(holder, _Attributes) and not (holder[key] is _MISSING or isinstance(holder[key], Tensor)):
            raise error(TypeError, f"attribute `{key}`: {holder[key]} is not an instance of torch.Tensor", hint=f"The name given is {name!r}.")
    before = []
    try:
        for name, (holder, key) in places.items():
            own = holder[key]
            holder[key] = wanted[name]
            before.append((name, holder, key, own))
        yield
    finally:
        for name, holder, key, _ in before:  # what the call itself replaced, as batch norm's statistics may be
            if name in given:
                given[name] = holder[key]
        for _, holder, key, own in reversed(before):
            holder[key] = own


def _functional_call(
    module: Module,
    parameters_and_buffers: dict[str, Tensor],
    args: Any = None,
    kwargs: dict[str, Any] | None = None,
    *,
    tie_weights: bool = True,
    strict: bool = False,
) -> Any:
    """module(*args, **kwargs) with the given tensors in the places of its own; gradients flow to them."""
    args = () if args is None else args if isinstance(args, tuple) else (args,)
    with _reparametrize_module(module, parameters_and_buffers, tie_weights, strict):
        return module(*args, **(kwargs or {}))


def functional_call(
    module: Module,
    parameters_and_buffers: dict[str, Tensor],
    args: Any = None,
    kwargs: dict[str, Any] | None = None,
    *,
    tie_weights: bool = True,
    strict: bool = False,
) -> Any:
    """The older place of flambeau.func.functional_call."""
    warnings.warn(
        "`torch.nn.utils.stateless.functional_call` is deprecated as of PyTorch 2.0 and will be removed in a "
        "future version of PyTorch. Please use `torch.func.functional_call` instead which is a drop-in replacement.",
        FutureWarning,
        stacklevel=2,
    )
    return _functional_call(
        module, parameters_and_buffers, args, kwargs, tie_weights=tie_weights, strict=strict
    )
