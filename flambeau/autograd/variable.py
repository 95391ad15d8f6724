"""``Variable``: PyTorch's old name for a tensor, and what hangs on it."""

from __future__ import annotations

from typing import Any

from ..core.errors import error
from ..core.tensor import Tensor, wrap
from .engine.passes import is_checkpoint_valid, queue_callback


class ImperativeEngine:
    """The backward pass, as some programs reach for it: ``Variable._execution_engine``."""

    queue_callback = staticmethod(queue_callback)
    is_checkpoint_valid = staticmethod(is_checkpoint_valid)

    @staticmethod
    def run_backward(
        tensors: Any,
        grad_tensors: Any,
        keep_graph: bool,
        create_graph: bool,
        inputs: Any = (),
        allow_unreachable: bool = False,
        accumulate_grad: bool = False,
    ) -> Any:
        """``autograd.grad``, or ``autograd.backward`` where ``accumulate_grad``."""
        from .engine import backward, grad

        if accumulate_grad:
            return backward(tensors, grad_tensors, keep_graph, create_graph, inputs=inputs or None)
        return grad(tensors, inputs, grad_tensors, keep_graph, create_graph, allow_unused=allow_unreachable)


class VariableMeta(type):
    def __instancecheck__(cls, other: Any) -> bool:
        return isinstance(other, Tensor)


class Variable(metaclass=VariableMeta):
    """PyTorch's old name: ``Variable(t)`` gives a tensor on the same values; every tensor is an instance.

    >>> import flambeau as torch
    >>> torch.autograd.Variable(torch.ones(1), requires_grad=True)
    tensor([1.], requires_grad=True)
    """

    _execution_engine = ImperativeEngine()

    def __new__(cls, data: Any = None, requires_grad: bool = False, volatile: bool = False) -> Any:
        if data is None:
            import numpy as np

            from ..core.dtypes import get_default_dtype

            data = wrap(np.empty(0, get_default_dtype().np))
        if not isinstance(data, Tensor):
            raise error(TypeError, f"Variable data has to be a tensor, but got {type(data).__name__}")
        return data._detached().requires_grad_(requires_grad)


def variable(*args: Any, **kwargs: Any) -> Any:
    """PyTorch's old name of ``tensor``: raises RuntimeError."""
    raise error(RuntimeError, "torch.autograd.variable(...) is deprecated, use torch.tensor(...) instead")


variable.Variable = Variable  # type: ignore[attr-defined]  # where a program imported the module, and found the function
