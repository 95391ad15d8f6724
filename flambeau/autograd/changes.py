"""Who wants to know of changes in place before they are made; see ``mutation.py``."""

from __future__ import annotations

from typing import Any

from ..core.tensor import Tensor

#: The open ``allow_mutation_on_saved_tensors``, if there is one: empty or of length 1.
open_contexts: list[Any] = []


def announce(t: Tensor) -> None:
    """Say that ``t`` is about to be changed in place."""
    if open_contexts:
        open_contexts[0].before_change(t)
