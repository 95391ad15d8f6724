"""The older kind of checkpoint: a Function whose backward runs the function again, and a backward pass inside."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from typing import Any

from ...autograd import Function, backward
from ...autograd.engine.passes import is_checkpoint_valid
from ...core.errors import error
from ...core.modes import enable_grad
from ...core.tensor import Tensor
from .state import Surroundings


def detach_variable(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """The same tuple with its tensors as leaves, each requiring grad as before.

    >>> import flambeau as torch
    >>> from flambeau.utils.checkpoint import detach_variable
    >>> x = torch.ones(1, requires_grad=True) * 2
    >>> detach_variable((x, "an argument"))
    (tensor([2.], requires_grad=True), 'an argument')
    """
    if not isinstance(inputs, tuple):
        raise error(
            RuntimeError, f"Only tuple of tensors is supported. Got Unsupported input type: {type(inputs).__name__}"
        )
    return tuple([x.detach().requires_grad_(x.requires_grad) if isinstance(x, Tensor) else x for x in inputs])


def check_backward_validity(inputs: Iterable[Any]) -> None:
    """Warn if no tensor among the inputs requires grad: then the checkpoint has no gradient."""
    if not any(x.requires_grad for x in inputs if isinstance(x, Tensor)):
        warnings.warn("None of the inputs have requires_grad=True. Gradients will be None", stacklevel=2)


class CheckpointFunction(Function):
    """``CheckpointFunction.apply(function, preserve_rng_state, *args)``: what ``use_reentrant=True`` runs.

    >>> import flambeau as torch
    >>> from flambeau.utils.checkpoint import CheckpointFunction
    >>> x = torch.ones(1, requires_grad=True)
    >>> CheckpointFunction.apply(torch.sin, True, x).backward(); x.grad
    tensor([0.5403])
    """

    @staticmethod
    def forward(ctx: Any, run_function: Callable[..., Any], preserve_rng_state: bool, *args: Any) -> Any:
        check_backward_validity(args)
        ctx.run_function = run_function
        ctx.surroundings = Surroundings(preserve_rng_state)
        ctx.others = [None if isinstance(x, Tensor) else x for x in args]
        ctx.places = [i for i, x in enumerate(args) if isinstance(x, Tensor)]
        ctx.save_for_backward(*[args[i] for i in ctx.places])
        return run_function(*args)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Any, ...]:
        if not is_checkpoint_valid():
            raise error(
                RuntimeError,
                "When use_reentrant=True, torch.utils.checkpoint is incompatible with .grad() or passing an `inputs` "
                "parameter to .backward(). To resolve this error, you can either set use_reentrant=False, or call "
                ".backward() without passing the `inputs` argument.",
            )
        given = list(ctx.others)
        for i, x in zip(ctx.places, ctx.saved_tensors):
            given[i] = x
        args = detach_variable(tuple(given))
        with ctx.surroundings.again(), enable_grad():
            outputs = ctx.run_function(*args)
        if not isinstance(outputs, (tuple, list)):
            outputs = (outputs,)
        pairs = [(o, g) for o, g in zip(outputs, grads) if isinstance(o, Tensor) and o.requires_grad]
        if not pairs:
            raise error(
                RuntimeError,
                "none of output has requires_grad=True, this checkpoint() is not necessary",
                hint="The function's outputs do not depend on anything that requires grad: call it without checkpoint().",
            )
        backward([o for o, _ in pairs], [g for _, g in pairs])
        return (None, None, *[x.grad if isinstance(x, Tensor) else None for x in args])
