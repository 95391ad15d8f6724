"""``torch.autograd.grad_mode``: the context managers under the path that programs import them from."""

from __future__ import annotations

from typing import Any

from ..core.errors import error
from ..core.modes import _ModeContext, enable_grad, inference_mode, no_grad, set_grad_enabled
from ..core.tensor import InferenceCounter, Tensor
from .engine.leaves import enforce_grad_layout_policy

_multithreading = True
_original_views = False


def is_multithreading_enabled() -> bool:
    """What ``set_multithreading_enabled`` was last told."""
    return _multithreading


def is_view_replay_enabled() -> bool:
    """What ``_force_original_view_tracking`` was last told."""
    return _original_views


class set_multithreading_enabled(_ModeContext):
    """Whether the backward pass may use threads of its own for devices; on the CPU it never does."""

    def __init__(self, mode: bool) -> None:
        global _multithreading
        self.prev, self.mode = _multithreading, bool(mode)
        _multithreading = self.mode

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exc: Any) -> None:
        global _multithreading
        _multithreading = self.prev

    def clone(self) -> set_multithreading_enabled:
        return self.__class__(self.mode)


class _force_original_view_tracking(_ModeContext):
    """Ask that views be followed through their own operators; here they are followed by where they lie, to the same end."""

    def __init__(self, mode: bool) -> None:
        global _original_views
        self.prev, self.mode = _original_views, bool(mode)
        _original_views = self.mode

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exc: Any) -> None:
        global _original_views
        _original_views = self.prev

    def clone(self) -> _force_original_view_tracking:
        return self.__class__(self.mode)


class _unsafe_preserve_version_counter(_ModeContext):
    """Leave the version counters of tensors as they were: what changes inside is not noticed by a backward pass.

    >>> import flambeau as torch
    >>> t = torch.ones(2)
    >>> with torch.autograd._unsafe_preserve_version_counter(t):
    ...     _ = t.mul_(2)
    >>> t._version
    0
    """

    def __init__(self, tensors: Tensor | tuple[Tensor, ...]) -> None:
        self.tensors = (tensors,) if isinstance(tensors, Tensor) else tuple(tensors)
        for t in self.tensors:
            if not isinstance(t, Tensor):
                raise error(TypeError, f"expected a Tensor or a tuple of them, but got {type(t).__name__}")
        self.versions = [t._version for t in self.tensors]

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exc: Any) -> None:
        for t, version in zip(self.tensors, self.versions):
            vc = t._vc
            if vc is not None and vc.__class__ is not InferenceCounter:
                vc[0] = version

    def clone(self) -> _unsafe_preserve_version_counter:
        return self.__class__(self.tensors)


__all__ = ["enable_grad", "enforce_grad_layout_policy", "inference_mode", "no_grad", "set_grad_enabled", "set_multithreading_enabled"]
