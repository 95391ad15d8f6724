"""``torch.autograd.graph``: nodes, edges, and hooks on what the graph saves."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from ..core.errors import error
from ..core.modes import full, reset_mode, set_mode
from ..core.tensor import Tensor
from .engine.hooks import register_multi_grad_hook
from .node import Node, accumulator, note_change


# ---- edges --------------------------------------------------------------------------------------------------------
class GradientEdge(NamedTuple):
    """A place in the graph at which a gradient arrives: an output of a node.

    ``backward`` and ``grad`` take edges in place of tensors, so that a tensor need not be kept alive for that.
    """

    node: Node
    output_nr: int
    ownership_token: Any = None


def get_gradient_edge(tensor: Tensor) -> GradientEdge:
    """The edge at which the gradient of ``tensor`` arrives; RuntimeError if it requires none.

    >>> import flambeau as torch
    >>> x = torch.tensor(2., requires_grad=True)
    >>> y = x * x
    >>> edge = torch.autograd.graph.get_gradient_edge(y)
    >>> torch.autograd.grad(y * 5, edge)
    (tensor(5.),)
    """
    if not tensor._rg:
        raise error(RuntimeError, "It is not possible to get the gradient edge for a Tensor that does not require gradients")
    fn = tensor._grad_fn
    return GradientEdge(accumulator(tensor) if fn is None else fn, tensor._nr)


def increment_version(tensor: Tensor | Iterable[Tensor]) -> None:
    """Count an in-place change that autograd could not see (one made through NumPy, say), of one tensor or several.

    Inference tensors, which count none, are left out.
    """
    tensors: Any = (tensor,) if isinstance(tensor, Tensor) else tensor
    try:
        tensors = tuple(tensors)
    except TypeError:
        tensors = (None,)
    if not all([isinstance(t, Tensor) for t in tensors]):
        raise error(RuntimeError, "increment_version expect a Iterable[Tensor] as input")
    for t in tensors:
        if not t.is_inference():
            note_change(t)


# ---- hooks on what is saved -----------------------------------------------------------------------------------------
class saved_tensors_hooks:
    """While active, every tensor that an operator saves goes through ``pack_hook``, and back through ``unpack_hook``.

    Args:
        pack_hook: ``pack_hook(tensor)`` returns anything; it must not change its argument. Runs at once.
        unpack_hook: given that, returns a tensor of the same shape and dtype. Runs each time the backward pass, or
            somebody who looks at the node, asks for it.

    Of nested pairs the innermost is used. Both hooks run with recording off.

    >>> import flambeau as torch
    >>> x = torch.ones(2, requires_grad=True)
    >>> with saved_tensors_hooks(lambda t: t.half(), lambda t: t.float()):
    ...     y = x * x
    >>> y.sum().backward(); x.grad
    tensor([2., 2.])
    """

    def __init__(self, pack_hook: Callable[[Tensor], Any], unpack_hook: Callable[[Any], Tensor]) -> None:
        self.pack_hook, self.unpack_hook = pack_hook, unpack_hook
        self.tokens: list[Any] = []

    def __enter__(self) -> None:
        m = full()
        if not callable(self.pack_hook) or not callable(self.unpack_hook):
            raise error(TypeError, "_push_saved_tensors_default_hooks(): incompatible function arguments.",
                        hint="saved_tensors_hooks takes two callables: pack_hook and unpack_hook.")  # fmt: skip
        if m.hooks_disabled is not None:
            raise error(RuntimeError, m.hooks_disabled)
        self.tokens.append(set_mode(m.replace(pack_hooks=(self.pack_hook, self.unpack_hook))))

    def __exit__(self, *exc: Any) -> None:
        reset_mode(self.tokens.pop())


class save_on_cpu(saved_tensors_hooks):
    """Keep what the graph saves in CPU memory, where it is already: the tensors themselves, unwatched for changes.

    Args:
        pin_memory: keep copies, as of tensors that come from an accelerator.
        device_type: the accelerator; there is none.

    >>> import flambeau as torch
    >>> x = torch.tensor([3.], requires_grad=True)
    >>> with torch.autograd.graph.save_on_cpu(pin_memory=True):
    ...     y = x * x
    >>> y.backward(); x.grad
    tensor([6.])
    """

    def __init__(self, pin_memory: bool = False, device_type: str = "cuda") -> None:
        super().__init__((lambda t: t.clone()) if pin_memory else (lambda t: t.detach()), lambda t: t)


@contextlib.contextmanager
def disable_saved_tensors_hooks(error_message: str) -> Iterator[None]:
    """Context in which ``saved_tensors_hooks`` raises a RuntimeError with this message.

    >>> import flambeau as torch
    >>> with torch.autograd.graph.disable_saved_tensors_hooks("not here"):
    ...     try:
    ...         with torch.autograd.graph.save_on_cpu(): pass
    ...     except RuntimeError as e: print(str(e).splitlines()[0])
    not here
    """
    m = full()
    if m.pack_hooks is not None:
        raise error(RuntimeError, error_message)
    token = set_mode(m.replace(hooks_disabled=error_message))
    try:
        yield
    finally:
        reset_mode(token)


# ---- settings of other machines -------------------------------------------------------------------------------------
def region_activation_memory_budget(budget: float) -> None:
    """For regions that ``torch.compile`` compiles; raises RuntimeError elsewhere, as PyTorch does."""
    name = "torch.autograd.graph.region_activation_memory_budget"
    if isinstance(budget, bool) or not isinstance(budget, (int, float)):
        raise error(TypeError, f"{name}: expects a float, got {type(budget).__name__}")
    if not 0.0 <= budget <= 1.0:
        raise error(ValueError, f"{name}: must be in [0, 1], got {budget}")
    raise error(RuntimeError, f"{name} can only be used inside a torch.compile region; it has no effect in eager mode.")


def set_warn_on_accumulate_grad_stream_mismatch(enabled: bool) -> None:
    """Whether to warn when a gradient arrives on another CUDA stream than its leaf's; the CPU has one stream."""


def set_override_stale_capture_stream(enabled: bool) -> None:
    """What to do about a stale stream in the capture of a CUDA graph; the CPU captures none."""


def __getattr__(name: str) -> Any:
    if name != "allow_mutation_on_saved_tensors":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .mutation import allow_mutation_on_saved_tensors  # seldom used, and it takes a millisecond to import

    return allow_mutation_on_saved_tensors


__all__ = [
    "GradientEdge", "Node", "allow_mutation_on_saved_tensors",  # noqa: F822
    "disable_saved_tensors_hooks", "get_gradient_edge",
    "increment_version", "region_activation_memory_budget", "register_multi_grad_hook", "save_on_cpu",
    "saved_tensors_hooks", "set_override_stale_capture_stream", "set_warn_on_accumulate_grad_stream_mismatch",
]  # fmt: skip
