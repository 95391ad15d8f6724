"""Automatic differentiation: the graph, the backward pass, custom Functions, checks. PyTorch's ``torch.autograd``."""

from __future__ import annotations

from typing import Any

from ..core.modes import enable_grad, inference_mode, no_grad, set_grad_enabled
from ..core.tensor import Tensor
from . import functional, grad_mode, graph
from .engine import backward, grad
from .grad_mode import _force_original_view_tracking, _unsafe_preserve_version_counter, set_multithreading_enabled
from .function import Function, NestedIOFunction
from .gradcheck import GradcheckError, gradcheck, gradgradcheck


class _VariableMeta(type):
    def __instancecheck__(cls, other: Any) -> bool:
        return isinstance(other, Tensor)


class Variable(metaclass=_VariableMeta):
    """PyTorch's old name: ``Variable(t)`` gives a tensor on the same values."""

    def __new__(cls, data: Tensor, requires_grad: bool = False, volatile: bool = False) -> Any:
        return data._detached().requires_grad_(requires_grad)


__all__ = [
    "Function", "GradcheckError", "NestedIOFunction", "Variable", "backward", "enable_grad", "functional", "grad", "grad_mode",
    "gradcheck", "gradgradcheck", "graph", "inference_mode", "no_grad", "set_grad_enabled", "set_multithreading_enabled",
    "_force_original_view_tracking", "_unsafe_preserve_version_counter",
]  # fmt: skip
