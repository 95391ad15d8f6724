"""``torch.autograd.graph``: nodes, and hooks on what the graph saves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..core.errors import error
from ..core.modes import full, reset_mode, set_mode
from ..core.tensor import Tensor
from .node import Node, accumulator


class saved_tensors_hooks:
    """While active, every tensor that an operator saves goes through ``pack_hook``, and back through ``unpack_hook``.

    >>> import flambeau as torch
    >>> x = torch.ones(2, requires_grad=True)
    >>> with saved_tensors_hooks(lambda t: t.half(), lambda t: t.float()):
    ...     y = x * x
    >>> y.sum().backward(); x.grad
    tensor([2., 2.])
    """

    def __init__(self, pack_hook: Callable[[Tensor], Any], unpack_hook: Callable[[Any], Tensor]) -> None:
        self.hooks = (pack_hook, unpack_hook)
        self.tokens: list[Any] = []

    def __enter__(self) -> None:
        self.tokens.append(set_mode(full().replace(pack_hooks=self.hooks)))

    def __exit__(self, *exc: Any) -> None:
        reset_mode(self.tokens.pop())


class save_on_cpu(saved_tensors_hooks):
    """Keep saved tensors in CPU memory; where they are there already, as copies."""

    def __init__(self, pin_memory: bool = False, device_type: str = "cuda") -> None:
        super().__init__(lambda t: t.clone(), lambda t: t)


class GradientEdge(tuple):
    """(node, output number): a place in the graph that a gradient can be asked for at."""

    def __new__(cls, node: Node, output_nr: int = 0, ownership_token: Any = None) -> GradientEdge:
        return tuple.__new__(cls, (node, output_nr))

    node = property(lambda self: self[0])
    output_nr = property(lambda self: self[1])


def get_gradient_edge(tensor: Tensor) -> GradientEdge:
    """The edge at which the gradient of ``tensor`` arrives."""
    if not tensor._rg:
        raise error(RuntimeError, "It is not possible to get the gradient edge for a Tensor that does not require gradients")
    return GradientEdge(tensor._grad_fn if tensor._grad_fn is not None else accumulator(tensor), tensor._nr)


def increment_version(tensor: Any) -> None:
    """Count an in-place change that autograd could not see (one made through NumPy, say)."""
    from .node import note_change

    for t in (tensor,) if isinstance(tensor, Tensor) else tensor:
        note_change(t)


__all__ = ["GradientEdge", "Node", "get_gradient_edge", "increment_version", "save_on_cpu", "saved_tensors_hooks"]
