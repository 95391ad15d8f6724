"""Hooks, at PyTorch's path: the handle that every register_*_hook returns, and what is said when hooks are lost."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from flambeau.autograd.node import RemovableHandle

__all__ = ["RemovableHandle", "unserializable_hook", "warn_if_has_hooks"]


def unserializable_hook(f: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: saving a tensor that has this hook does not warn that the hook is lost."""
    f.__torch_unserializable__ = True  # type: ignore[attr-defined]
    return f


def warn_if_has_hooks(tensor: Any) -> None:
    """Warns if a tensor has hooks that saving it would lose."""
    for hook in (tensor._hooks or {}).values():
        if not hasattr(hook, "__torch_unserializable__"):
            warnings.warn(
                f"backward hook {hook!r} on tensor will not be serialized.  If this is expected, you can decorate "
                "the function with @torch.utils.hooks.unserializable_hook to suppress this warning",
                stacklevel=2,
            )
