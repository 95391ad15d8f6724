"""Automatic differentiation: the graph, the backward pass, custom Functions, checks. PyTorch's ``torch.autograd``."""

from __future__ import annotations

import importlib
from typing import Any

from ..core.modes import enable_grad, inference_mode, no_grad, set_grad_enabled
from . import grad_mode, graph
from .engine import backward, grad
from .engine.leaves import enforce_grad_layout_policy
from .engine.passes import is_checkpoint_valid as _is_checkpoint_valid
from .function import Function, NestedIOFunction
from .grad_mode import (
    _force_original_view_tracking,
    _unsafe_preserve_version_counter,
    is_multithreading_enabled,
    is_view_replay_enabled,
    set_multithreading_enabled,
)
from .gradcheck import GradcheckError, gradcheck, gradgradcheck
from .variable import Variable, variable

# Imported when first asked for. The function finite_difference hides its module, as gradcheck does.
_FROM = {
    "functional": "", "anomaly_mode": "", "detect_anomaly": "anomaly_mode", "set_detect_anomaly": "anomaly_mode",
    "finite_difference": "finite_difference",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    where = _FROM.get(name)
    if where is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f".{where or name}", __name__)
    value = globals()[name] = getattr(module, name) if where else module
    return value


__all__ = [
    "Function", "GradcheckError", "NestedIOFunction", "Variable", "anomaly_mode", "backward", "detect_anomaly",
    "enable_grad", "enforce_grad_layout_policy", "finite_difference", "functional", "grad", "grad_mode",
    "gradcheck", "gradgradcheck", "graph", "inference_mode", "no_grad", "set_grad_enabled", "set_detect_anomaly",
    "set_multithreading_enabled", "is_multithreading_enabled", "is_view_replay_enabled", "variable", "_force_original_view_tracking", "_unsafe_preserve_version_counter",
]  # fmt: skip
