"""SparseAdam: there are no sparse gradients here, so it says so."""

from __future__ import annotations

from typing import Any

from flambeau.optim.optimizer import Optimizer

__all__ = ["SparseAdam"]


class SparseAdam(Optimizer):
    """Raises NotImplementedError: gradients are dense in flambeau; Adam takes them."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError("SparseAdam needs sparse gradients, which flambeau lacks: use optim.Adam")
