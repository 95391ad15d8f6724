"""Full backward hooks: identity nodes around a module that catch its gradients on the way in and out."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import flambeau as fl
from flambeau.autograd import Function
from flambeau.core.errors import error
from flambeau.core.tensor import Tensor


class BackwardHookFunction(Function):
    """The identity on any number of tensors, as one node."""

    @staticmethod
    def forward(ctx: Any, *args: Tensor) -> tuple[Tensor, ...]:
        ctx.mark_non_differentiable(*[a for a in args if not a.requires_grad])
        return args

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
        return grads


def _identity(values: tuple) -> tuple[tuple, Any, list[int] | None]:
    """(values, with the tensors among them sent through one identity node; the node; where the tensors are)."""
    where = [i for i, v in enumerate(values) if isinstance(v, Tensor)]
    if not fl.is_grad_enabled() or not any(values[i].requires_grad for i in where):
        return values, None, None
    passed = BackwardHookFunction.apply(*[values[i] for i in where])
    changed = list(values)
    for i, v in zip(where, passed, strict=True):
        changed[i] = v
    node = next(v.grad_fn for v in passed if v.grad_fn is not None)
    return (tuple(changed) if type(values) is tuple else type(values)(*changed)), node, where


def _spread(where: Sequence[int], grads: Sequence[Any], size: int) -> tuple:
    """The gradients at the places of the tensors, None elsewhere."""
    full = [None] * size
    for i, g in zip(where, grads, strict=True):
        full[i] = g
    return tuple(full)


class BackwardHook:
    """Joins the gradients caught behind a module's output with those at its input, and calls the hooks."""

    def __init__(self, module: Any, hooks: list[Callable], pre_hooks: list[Callable]) -> None:
        self.module, self.hooks, self.pre_hooks = module, hooks, pre_hooks
        self.grad_outputs: Any = None

    def setup_input_hook(self, args: tuple) -> tuple:
        """Wrap the module's inputs; their gradients, when known, go to the hooks."""
        self.n_inputs = len(args)
        args, node, self.inputs_at = _identity(args)
        if node is not None:
            node.register_hook(self._at_input)
        return args

    def setup_output_hook(self, result: Any) -> Any:
        """Wrap the module's output; its gradient goes to the pre-hooks and waits for the input's."""
        outputs = result if isinstance(result, tuple) else (result,)
        self.n_outputs = len(outputs)
        outputs, node, self.outputs_at = _identity(outputs)
        if node is not None:
            node.register_hook(self._at_output)
        return outputs if isinstance(result, tuple) else outputs[0]

    def _at_input(self, grad_input: tuple, _: Any) -> tuple | None:
        if self.grad_outputs is None:  # a gradient that came around the module's output, as in double backward
            return None
        grads = _spread(self.inputs_at, grad_input, self.n_inputs)
        for hook in self.hooks:
            new = hook(self.module, grads, self.grad_outputs)
            if new is None:
                continue
            if isinstance(new, Tensor):
                new = (new,)
            if len(new) != len(grads):
                raise error(
                    RuntimeError,
                    "Backward hook returned an invalid number of grad_input, "
                    f"got {len(new)}, but expected {len(grads)}",
                )
            grads = new
        self.grad_outputs = None
        return tuple(grads[i] for i in self.inputs_at)

    def _at_output(self, _: Any, grad_output: tuple) -> tuple:
        grads = _spread(self.outputs_at, grad_output, self.n_outputs)
        for hook in self.pre_hooks:
            new = hook(self.module, grads)
            if new is None:
                continue
            if isinstance(new, Tensor):
                new = (new,)
            if len(new) != len(grads):
                raise error(
                    RuntimeError,
                    "Backward pre hook returned an invalid number of grad_output, "
                    f"got {len(new)}, but expected {len(grads)}",
                )
            grads = new
        if self.inputs_at is None:
            self._without_input(grads)
        else:
            self.grad_outputs = grads
        return tuple(grads[i] for i in self.outputs_at)

    def _without_input(self, grads: tuple) -> None:
        """No input needs a gradient, so nothing will arrive there: the hooks are called at once."""
        if self.hooks:
            warnings.warn(
                "Full backward hook is firing when gradients are computed with respect to module outputs "
                "since no inputs require gradients.",
                stacklevel=2,
            )
        for hook in self.hooks:
            new = hook(self.module, (None,) * self.n_inputs, grads)
            if new is not None and not (isinstance(new, tuple) and all(g is None for g in new)):
                raise error(
                    RuntimeError,
                    "Backward hook for Modules where no input requires gradient should always return None "
                    "or None for all gradients.",
                )
