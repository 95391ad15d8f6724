"""Modules as functions of their parameters: ``functional_call``, ``stack_module_state``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..core.errors import error
from ..core.tensor import Tensor

if TYPE_CHECKING:
    from ..nn import Module


def functional_call(
    module: Module,
    parameter_and_buffer_dicts: dict[str, Tensor] | Sequence[dict[str, Tensor]],
    args: Any = None,
    kwargs: dict[str, Any] | None = None,
    *,
    tie_weights: bool = True,
    strict: bool = False,
) -> Any:
    """``module(*args, **kwargs)`` with other tensors in the places of its parameters and buffers.

    The module has its own back afterwards, also if the call fails. A buffer that the call replaces or changes, as a batch
    norm's statistics, is found under its name in the dict that was given.

    Args:
        module: any module.
        parameter_and_buffer_dicts: tensors by the names of ``named_parameters`` and ``named_buffers``; several dicts, with
            different names, are one. What isn't named stays the module's own.
        args: a tuple of arguments, or the only one.
        kwargs: keyword arguments.
        tie_weights: a tensor given for a parameter is used under all its names.
        strict: RuntimeError unless the names are exactly the module's.

    >>> import flambeau as torch
    >>> linear = torch.nn.Linear(2, 1)
    >>> torch.func.functional_call(linear, {"weight": torch.ones(1, 2), "bias": torch.zeros(1)}, torch.tensor([1., 2.]))
    tensor([3.])
    """
    from ..nn.utils.stateless import _functional_call

    given: Any = parameter_and_buffer_dicts
    if isinstance(given, (list, tuple)):
        if not all([isinstance(d, dict) for d in given]):
            raise error(ValueError, "Expected all elements of parameter_and_buffer_dicts to be dictionaries")
        names = [name for d in given for name in d]
        repeated = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) != len(names) else []
        if repeated:
            raise error(ValueError, f"{repeated} appeared in multiple dictionaries; behavior of functional call is ambiguous")
        given = {name: t for d in given for name, t in d.items()}
    elif not isinstance(given, dict):
        raise error(ValueError, f"Expected parameter_and_buffer_dicts to be a dict, or a list/tuple of dicts, but got {type(given)}")
    return _functional_call(module, given, args, kwargs, tie_weights=tie_weights, strict=strict)


def stack_module_state(models: Any) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(parameters, buffers) of models of one class, each stacked along a new dimension 0: an ensemble for ``vmap``.

    The stacked parameters are leaves that require grad if the models' do.

    >>> import flambeau as torch
    >>> models = [torch.nn.Linear(3, 2) for _ in range(4)]
    >>> parameters, buffers = torch.func.stack_module_state(models)
    >>> parameters["weight"].shape
    torch.Size([4, 2, 3])
    >>> x = torch.randn(5, 3)
    >>> torch.vmap(lambda p: torch.func.functional_call(models[0], p, (x,)))(parameters).shape
    torch.Size([4, 5, 2])
    """
    from ..ops.joining import stack

    members = list(models)
    if not members:
        raise error(RuntimeError, "stack_module_state: Expected at least one model, got 0.")
    if len({m.training for m in members}) > 1:
        raise error(RuntimeError, "stack_module_state: Expected all models to have the same training/eval mode.")
    if len({type(m) for m in members}) > 1:
        raise error(RuntimeError, "stack_module_state: Expected all models to be of the same class.")

    def stacked(dicts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        out = {}
        for name in dicts[0]:
            tensors = [d[name] for d in dicts]
            if len({t.requires_grad for t in tensors}) > 1:
                raise error(RuntimeError, f"Expected {name} from each model to have the same .requires_grad")
            out[name] = stack([t.detach() for t in tensors]).requires_grad_(tensors[0].requires_grad)
        return out

    return stacked([dict(m.named_parameters()) for m in members]), stacked([dict(m.named_buffers()) for m in members])


def replace_all_batch_norm_modules_(root: Module) -> Module:
    """Take the running statistics out of every batch norm in ``root``, in place; returns it.

    Under vmap they would have to be changed for all examples at once. Without them a batch is normalised by its own.
    """
    from ..nn.modules.batchnorm import _BatchNorm

    for module in root.modules():
        if isinstance(module, _BatchNorm):
            module.running_mean = module.running_var = module.num_batches_tracked = None
            module.track_running_stats = False
    return root
