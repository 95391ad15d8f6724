"""Automatic differentiation: the graph, the backward pass, custom Functions, checks. PyTorch's ``torch.autograd``."""

from __future__ import annotations

from ..core.modes import enable_grad, inference_mode, no_grad, set_grad_enabled
from . import anomaly_mode, functional, grad_mode, graph
from .anomaly_mode import detect_anomaly, set_detect_anomaly
from .engine import backward, grad
from .finite_difference import finite_difference
from .function import Function, NestedIOFunction
from .grad_mode import (
    _force_original_view_tracking,
    _unsafe_preserve_version_counter,
    is_multithreading_enabled,
    is_view_replay_enabled,
    set_multithreading_enabled,
)
from .gradcheck import GradcheckError, gradcheck, gradgradcheck
from .leaves import enforce_grad_layout_policy
from .passes import is_checkpoint_valid as _is_checkpoint_valid
from .variable import Variable, variable

__all__ = [
    "Function", "GradcheckError", "NestedIOFunction", "Variable", "anomaly_mode", "backward", "detect_anomaly",
    "enable_grad", "enforce_grad_layout_policy", "finite_difference", "functional", "grad", "grad_mode",
    "gradcheck", "gradgradcheck", "graph", "inference_mode", "no_grad", "set_grad_enabled", "set_detect_anomaly",
    "set_multithreading_enabled", "is_multithreading_enabled", "is_view_replay_enabled", "variable", "_force_original_view_tracking", "_unsafe_preserve_version_counter",
]  # fmt: skip
