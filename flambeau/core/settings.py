"""Process-wide settings that programs switch: those that have a meaning here are kept, the others are accepted."""

from __future__ import annotations

from typing import Any

from .errors import error

_state: dict[str, Any] = {"precision": "highest", "interop": 1, "deterministic": 0, "warn_always": False}


def set_float32_matmul_precision(precision: str) -> None:
    """"highest", "high" or "medium": all are full float32 here."""
    if precision not in ("highest", "high", "medium"):
        raise error(RuntimeError, f"{precision} is not one of 'highest', 'high', or 'medium'. Please set this to a valid value.")
    _state["precision"] = precision


def get_float32_matmul_precision() -> str:
    return _state["precision"]


def set_num_interop_threads(n: int) -> None:
    """Operators run one after another here; the number is kept."""
    if n <= 0:
        raise error(RuntimeError, "expected a positive number of threads")
    _state["interop"] = n


def get_num_interop_threads() -> int:
    return _state["interop"]


def use_deterministic_algorithms(mode: bool, *, warn_only: bool = False) -> None:
    """Accepted: every kernel here gives the same result each time."""
    _state["deterministic"] = (1 if warn_only else 2) if mode else 0


def are_deterministic_algorithms_enabled() -> bool:
    return _state["deterministic"] > 0


def is_deterministic_algorithms_warn_only_enabled() -> bool:
    return _state["deterministic"] == 1


def set_deterministic_debug_mode(debug_mode: int | str) -> None:
    levels: dict[Any, int] = {"default": 0, "warn": 1, "error": 2, 0: 0, 1: 1, 2: 2}
    if debug_mode not in levels:
        raise error(RuntimeError, f"invalid value of debug_mode, expected 0, 1, or 2, but got {debug_mode}")
    _state["deterministic"] = levels[debug_mode]


def get_deterministic_debug_mode() -> int:
    return _state["deterministic"]


def set_flush_denormal(mode: bool) -> bool:
    """False, PyTorch's answer where denormal numbers cannot be flushed: kernels here keep them."""
    return False


def set_warn_always(b: bool) -> None:
    _state["warn_always"] = b


def is_warn_always_enabled() -> bool:
    return _state["warn_always"]
