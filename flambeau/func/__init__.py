"""Transformations of functions: derivatives, batches, and modules as functions. PyTorch's ``torch.func``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..autograd.transforms.batched import Batched
from ..autograd.transforms.vmap import vmap
from ..core.errors import error
from ..core.tensor import Tensor
from .forward import jvp, linearize
from .jacobians import hessian, jacfwd, jacrev
from .modules import functional_call, replace_all_batch_norm_modules_, stack_module_state
from .reverse import grad, grad_and_value, vjp


def functionalize(func: Callable[..., Any], *, remove: str = "mutations") -> Callable[..., Any]:
    """Not in flambeau: it prepares programs for PyTorch's tracing compilers."""
    raise error(
        NotImplementedError,
        "torch.func.functionalize is not in flambeau",
        hint="Tracing needs it in PyTorch; the other transformations take functions with in-place changes as they are.",
    )


def debug_unwrap(tensor: Tensor, *, recurse: bool = True) -> Tensor:
    """What a tensor inside ``vmap`` stands for, batch first: for looking at while debugging, not for computing with.

    ``recurse``: through all vmaps, or the innermost only. Tensors inside ``grad`` and ``jvp`` are what they seem.
    """
    while isinstance(tensor, Batched):
        tensor = tensor._value
        if not recurse:
            break
    return tensor


__all__ = [
    "debug_unwrap", "functional_call", "functionalize", "grad", "grad_and_value", "hessian", "jacfwd", "jacrev", "jvp", "linearize",
    "replace_all_batch_norm_modules_", "stack_module_state", "vjp", "vmap",
]  # fmt: skip
