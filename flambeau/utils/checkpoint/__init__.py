"""Memory for time: parts of a network whose intermediate results are thrown away and computed again in the backward pass.

``checkpoint(function, *args)`` runs ``function`` and keeps its inputs alone. When the backward pass arrives, the function
runs a second time, and what it saves then is used. A chain of ``n`` layers in ``sqrt(n)`` checkpointed segments keeps
about ``2 sqrt(n)`` layers' results instead of ``n``, for one more forward pass.

=======================  ==================================================================================================
``frames``               the kind that rests on ``saved_tensors_hooks`` (``use_reentrant=False``): supports everything
``reentrant``            the older kind: a Function whose backward runs a backward pass of its own
``selective``            which operators' results are kept all the same
``debugging``            what ``debug=True`` records
``state``                random numbers, autocast, devices
=======================  ==================================================================================================
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from ...core.errors import error
from . import frames
from .frames import CheckpointError, GraphExecGroup, noop_context_fn
from .reentrant import CheckpointFunction, check_backward_validity, detach_variable
from .selective import (
    SAC_IGNORED_OPS,
    CheckpointPolicy,
    SelectiveCheckpointContext,
    create_selective_checkpoint_contexts,
)
from .state import DefaultDeviceType, get_device_states, set_device_states

__all__ = [
    "checkpoint",
    "checkpoint_sequential",
    "CheckpointError",
    "CheckpointFunction",
    "check_backward_validity",
    "detach_variable",
    "get_device_states",
    "set_device_states",
    "noop_context_fn",
    "set_checkpoint_early_stop",
    "DefaultDeviceType",
    "set_checkpoint_debug_enabled",
    "CheckpointPolicy",
    "SelectiveCheckpointContext",
    "create_selective_checkpoint_contexts",
    "SAC_IGNORED_OPS",
    "GraphExecGroup",
]


def checkpoint(
    function: Callable[..., Any],
    *args: Any,
    use_reentrant: bool | None = None,
    context_fn: Callable[[], tuple[Any, Any]] = noop_context_fn,
    determinism_check: str = "default",
    debug: bool = False,
    early_stop: bool = True,
    **kwargs: Any,
) -> Any:
    """``function(*args, **kwargs)``, keeping its inputs instead of what it saves for the backward pass.

    Args:
        function: is called once now and, under the same random numbers, once more for each backward pass.
        use_reentrant: False (recommended) recomputes when a saved tensor is first needed: keyword arguments, tensors
            anywhere among the arguments, ``autograd.grad``, higher derivatives and nesting all work. True is the older
            kind, a Function: it needs a tensor that requires grad among ``args``, and a plain ``backward()``.
        preserve_rng_state: whether the second run draws the same random numbers (default: True).
        context_fn: makes two context managers, for the first and for the second run; see
            ``create_selective_checkpoint_contexts``.
        determinism_check: "default" compares shape and dtype of what both runs save; "none" only its number.
        debug: errors also list the operators of both runs.
        early_stop: the second run ends as soon as it has saved all that is needed.

    Errors: ``CheckpointError`` in the backward pass, if the second run saves other tensors than the first.

    >>> import flambeau as torch
    >>> from flambeau.utils.checkpoint import checkpoint
    >>> x = torch.tensor([0., 1.], requires_grad=True)
    >>> y = checkpoint(lambda t: t.exp().exp(), x, use_reentrant=False)
    >>> y.sum().backward()
    >>> x.grad
    tensor([ 2.7183, 41.1936])
    """
    if use_reentrant is None:
        warnings.warn(
            "torch.utils.checkpoint: the use_reentrant parameter should be passed explicitly. Without it flambeau, as "
            "PyTorch 2.13, runs the reentrant kind; use_reentrant=False is recommended.",
            stacklevel=2,
        )
        use_reentrant = True
    preserve = kwargs.pop("preserve_rng_state", True)
    if not use_reentrant:
        return frames.run(
            function, args, kwargs, preserve_rng_state=preserve, context_fn=context_fn,
            determinism_check=determinism_check, debug=_or(_debug, debug), early_stop=_or(_early_stop, early_stop),
        )  # fmt: skip
    if kwargs:
        raise error(
            ValueError, "Unexpected keyword arguments: " + ",".join(kwargs),
            hint="The reentrant kind takes positional arguments alone; use_reentrant=False takes keywords too.",
        )  # fmt: skip
    if context_fn is not noop_context_fn or debug is not False:
        raise error(ValueError, "Passing `context_fn` or `debug` is only supported when use_reentrant=False.")
    return CheckpointFunction.apply(function, preserve, *args)


def checkpoint_sequential(
    functions: Any, segments: int, input: Any, use_reentrant: bool | None = None, **kwargs: Any
) -> Any:
    """Run a ``Sequential``, or a list of functions, in ``segments`` parts, all but the last of them checkpointed.

    Of ``n`` layers in ``sqrt(n)`` parts, about ``2 sqrt(n)`` layers' results are in memory at once.

    >>> import flambeau as torch
    >>> from flambeau.utils.checkpoint import checkpoint_sequential
    >>> x = torch.tensor(1., requires_grad=True)
    >>> y = checkpoint_sequential([torch.sin] * 4, 2, x, use_reentrant=False)
    >>> torch.autograd.grad(y, x)
    (tensor(0.2059),)
    """
    if use_reentrant is None:
        warnings.warn(
            "torch.utils.checkpoint.checkpoint_sequential: the use_reentrant parameter should be passed explicitly. "
            "Without it flambeau, as PyTorch 2.13, runs the reentrant kind; use_reentrant=False is recommended.",
            stacklevel=2,
        )
        use_reentrant = True
    preserve = kwargs.pop("preserve_rng_state", True)
    if kwargs:
        raise error(ValueError, "Unexpected keyword arguments: " + ",".join(kwargs))
    if hasattr(functions, "children"):
        functions = list(functions.children())
    size = len(functions) // segments
    if size == 0 and segments > 1:
        raise error(
            ValueError, "range() arg 3 must not be zero", hint=f"There are {segments} segments for {len(functions)} functions."
        )
    last = size * (segments - 1)
    for start in range(0, last, size or 1):
        input = checkpoint(
            _Segment(functions[start : start + size]), input, use_reentrant=use_reentrant, preserve_rng_state=preserve
        )
    return _Segment(functions[last:])(input)


class _Segment:
    """Some functions, one after the other."""

    def __init__(self, functions: Any) -> None:
        self.functions = functions

    def __call__(self, input: Any) -> Any:
        for f in self.functions:
            input = f(input)
        return input


# ---- switches -------------------------------------------------------------------------------------------------------
_early_stop: bool | None = None
_debug: bool | None = None


def _or(switch: bool | None, argument: bool) -> bool:
    return argument if switch is None else switch


@contextlib.contextmanager
def set_checkpoint_early_stop(enable: bool | None) -> Iterator[None]:
    """Whether checkpoints called inside stop their second run early, whatever they are told; None: as they are told.

    >>> import flambeau as torch
    >>> from flambeau.utils.checkpoint import checkpoint, set_checkpoint_early_stop
    >>> def f(t):
    ...     y = t.sin()
    ...     print("all of f has run")
    ...     return y
    >>> x = torch.ones(1, requires_grad=True)
    >>> checkpoint(f, x, use_reentrant=False).backward()
    all of f has run
    >>> with set_checkpoint_early_stop(False):
    ...     y = checkpoint(f, x, use_reentrant=False)
    all of f has run
    >>> y.backward()
    all of f has run
    """
    global _early_stop
    before, _early_stop = _early_stop, enable
    try:
        yield
    finally:
        _early_stop = before


@contextlib.contextmanager
def set_checkpoint_debug_enabled(enabled: bool | None) -> Iterator[None]:
    """Whether checkpoints called inside record their operators (``debug=``), whatever they are told; None: as told.

    >>> import flambeau as torch
    >>> from flambeau.utils.checkpoint import checkpoint, set_checkpoint_debug_enabled
    >>> x = torch.ones(1, requires_grad=True)
    >>> with set_checkpoint_debug_enabled(True):
    ...     y = checkpoint(torch.sin, x, use_reentrant=False)
    >>> y
    tensor([0.8415], grad_fn=<SinBackward0>)
    """
    global _debug
    before, _debug = _debug, enabled
    try:
        yield
    finally:
        _debug = before
