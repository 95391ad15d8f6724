"""Checkpoints on saved-tensor hooks (``use_reentrant=False``).

While the function runs, the pack hook gives a *holder* for every tensor that is to be saved, and drops the tensor. The
first holder that a backward pass opens makes the function run again, under a hook that counts along and keeps the
tensor of every holder that is still alive; when the last one has come, the run ends, by an exception.

* What was recomputed belongs to one backward pass, and is given away when it is taken: after the pass nothing is left,
  also with ``retain_graph``. A second pass computes again.
* Only the innermost checkpoint sees what is saved in it. Its inputs are saved tensors of the one around it, so that
  opening an inner holder recomputes from the outside in.
* A holder knows its place and nothing else, and the frame knows its holders weakly: no cycle.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from typing import Any

from ...autograd.engine.passes import Pass, running
from ...autograd.graph import saved_tensors_hooks
from ...autograd.primitive import save_tensor, unpack_tensor
from ...core.errors import Where, describe, error, here
from ...core.modes import enable_grad, is_grad_enabled, mode
from ...core.tensor import Tensor
from .state import Surroundings


class CheckpointError(RuntimeError):
    """The second run of a checkpointed function saved other tensors than the first."""


def noop_context_fn() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """The contexts of a checkpoint that is given none."""
    return nullcontext(), nullcontext()


_group: ContextVar[GraphExecGroup | None] = ContextVar("flambeau.graph_exec_group", default=None)


class GraphExecGroup:
    """Backward passes run inside share what checkpoints recompute; no saved tensor may be needed by two of them.

    >>> import flambeau as torch
    >>> from flambeau.utils.checkpoint import GraphExecGroup, checkpoint
    >>> def f(x, y):
    ...     print("run")
    ...     return x.exp().sin(), y.exp().cos()
    >>> x, y = torch.ones(1, requires_grad=True), torch.ones(1, requires_grad=True)
    >>> a, b = checkpoint(f, x, y, use_reentrant=False)
    run
    >>> with GraphExecGroup():
    ...     a.backward()
    ...     b.backward()
    run
    """

    def __enter__(self) -> GraphExecGroup:
        inside = _group.get()
        if inside is not None:
            raise error(RuntimeError, f"GraphExecGroup contexts cannot be nested. Already inside group {inside}")
        _group.set(self)
        return self

    def __exit__(self, *exc: object) -> None:
        _group.set(None)

    @classmethod
    def _get_current_group(cls) -> GraphExecGroup | None:
        return _group.get()


class Complete(BaseException):
    """Ends the second run: all is there. No ``except Exception`` of the function may catch it."""

    def __init__(self, run: Recomputed) -> None:
        self.run = run


class Holder:
    """Stands in the graph for a tensor that was dropped: the number it had among the saved ones."""

    __slots__ = ("index", "__weakref__")

    def __init__(self, index: int) -> None:
        self.index = index


Metadata = tuple[Any, ...]


def shape_dtype_device(t: Tensor) -> Metadata:
    return (t._a.shape, t._a.dtype, t.device)


def nothing(t: Tensor) -> Metadata:
    return ()


DETERMINISM_CHECKS: dict[Any, Callable[[Tensor], Metadata]] = {"default": shape_dtype_device, "none": nothing}


class Frame:
    """One call of a checkpoint: what it takes to run the function again, and the holders it gave out."""

    __slots__ = ("again", "early_stop", "metadata", "on_error", "args", "holders", "found", "finished", "unequal", "runs", "where")
    name = staticmethod(lambda: "checkpoint")  # where an input that was changed in place is reported, as of a node

    def __init__(self, again: Callable[..., Any], early_stop: bool, metadata: Any, on_error: Any, args: tuple[Any, ...]) -> None:
        self.again, self.early_stop, self.metadata, self.on_error = again, early_stop, metadata, on_error
        m = mode()
        self.args = [save_tensor(x, m) if isinstance(x, Tensor) else Given(x) for x in args]
        self.holders: list[weakref.ref[Holder]] = []
        self.found: list[Metadata] = []  # of each tensor that the first run saved
        self.finished = False  # the first run
        self.unequal = False  # the first run saved less than the second may: it had a backward pass inside
        self.runs: weakref.WeakKeyDictionary[Any, Recomputed] = weakref.WeakKeyDictionary()
        self.where: Where | None = here(2)

    def pack(self, t: Tensor) -> Holder:
        holder = Holder(len(self.holders))
        self.holders.append(weakref.ref(holder))
        self.found.append(self.metadata(t))
        return holder

    def unpack(self, holder: Holder) -> Tensor:
        try:
            return self.value(holder)
        except CheckpointError as e:
            if self.on_error is not None:
                raise self.on_error(e) from e
            raise

    def value(self, holder: Holder) -> Tensor:
        key = _group.get() or running() or Pass()  # saved tensors that are looked at between passes are for once
        run = self.runs.get(key)
        if run is None:
            run = Recomputed(self)
            run.compute()
            self.runs[key] = run
        value = run.values.pop(holder.index, None)
        if value is None:
            raise error(
                CheckpointError,
                "torch.utils.checkpoint: Unpack is being triggered for a tensor that was already unpacked once."
                + (
                    " Performing two backward calls that overlap (i.e. require the same saved activation in order to compute "
                    "gradients) is not allowed while under the torch.utils.checkpoint.GraphExecGroup context."
                    if _group.get() is not None
                    else ""
                ),
                hint="A custom Function's backward may read ctx.saved_tensors once.",
            )
        return value

    def inputs(self) -> list[Any]:
        return [x.value if x.__class__ is Given else unpack_tensor(self, x) for x in self.args]  # type: ignore[arg-type]


class Given:
    """An argument that is no tensor."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


class Recomputed:
    """What one second run of a frame's function has saved so far."""

    __slots__ = ("frame", "count", "values")

    def __init__(self, frame: Frame) -> None:
        self.frame = frame
        self.count = 0
        self.values: dict[int, Tensor] = {}

    def compute(self) -> None:
        frame = self.frame
        args = frame.inputs()
        try:
            with saved_tensors_hooks(self.pack, as_it_is), enable_grad():
                frame.again(*args)
        except Complete as stop:
            if stop.run is not self:
                raise
        self.check()
        del self.frame  # it holds this

    def pack(self, t: Tensor) -> Tensor:
        frame, index = self.frame, self.count
        self.count += 1
        t = t._detached() if t._rg else t  # whoever holds it must not hold the second run's graph
        if index >= len(frame.holders):
            if frame.finished:
                raise error(
                    CheckpointError,
                    "torch.utils.checkpoint: trying to save more tensors during recomputation than during the original "
                    "forward pass.",
                    hint=advice(frame),
                )
            frame.unequal = True
            return t
        if frame.holders[index]() is not None:  # else the backward pass that needed it has been
            self.values[index] = t
        if frame.early_stop and self.count == len(frame.holders):
            raise Complete(self)
        return t

    def check(self) -> None:
        """Raise CheckpointError unless both runs saved the same, as far as the metadata tell."""
        frame = self.frame
        if frame.unequal:
            return
        if self.count != len(frame.holders):
            raise error(
                CheckpointError,
                "torch.utils.checkpoint: A different number of tensors was saved during the original forward and "
                f"recomputation.\nNumber of tensors saved during forward: {len(frame.holders)}\n"
                f"Number of tensors saved during recomputation: {self.count}.",
                hint=advice(frame),
            )
        different = [(i, m) for i, t in self.values.items() if (m := frame.metadata(t)) != frame.found[i]]
        if different:
            raise error(
                CheckpointError,
                "torch.utils.checkpoint: Recomputed values for the following tensors have different metadata than during the "
                "forward pass.\n"
                + "\n".join(
                    f"tensor at position {i}:\nsaved metadata: {shown(frame.found[i])}\nrecomputed metadata: {shown(m)}"
                    for i, m in different
                ),
                hint=advice(frame),
            )


def as_it_is(t: Tensor) -> Tensor:
    return t


def shown(found: Metadata) -> dict[str, Any]:
    from ...core.dtypes import FROM_NP
    from ...core.size import Size

    shape, dtype, device = found
    return {"shape": Size(shape), "dtype": FROM_NP[dtype], "device": device}


def advice(frame: Frame) -> str:
    return (
        f"The checkpoint was called at {describe(frame.where)}\n"
        "  Its function must do the same both times: look for global state, counters, or modes that have changed since.\n"
        "  checkpoint(..., debug=True), or `with set_checkpoint_debug_enabled(True):`, lists the operators of both runs."
    )


def run(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    preserve_rng_state: bool,
    context_fn: Callable[[], tuple[Any, Any]],
    determinism_check: str,
    debug: bool,
    early_stop: bool,
) -> Any:
    """The first run."""
    on_error = None
    if debug:
        if context_fn is not noop_context_fn:
            raise error(ValueError, "debug=True is incompatible with non-default context_fn")
        from .debugging import Logs

        logs = Logs()
        context_fn, on_error = logs.contexts, logs.explain
    if determinism_check not in DETERMINISM_CHECKS:
        raise error(
            ValueError, f"determinism_check should be one of {list(DETERMINISM_CHECKS)}, but got {determinism_check}"
        )
    first, second = context_fn()
    if not is_grad_enabled():
        return function(*args, **kwargs)
    surroundings = Surroundings(preserve_rng_state)

    def again(*inputs: Any) -> None:
        with surroundings.again(), second:
            function(*inputs, **kwargs)

    frame = Frame(again, early_stop, DETERMINISM_CHECKS[determinism_check], on_error, args)
    with saved_tensors_hooks(frame.pack, frame.unpack), first:
        result = function(*args, **kwargs)
        frame.finished = True
    if not frame.finished:
        raise error(
            RuntimeError,
            "torch.utils.checkpoint: the forward context provided by context_fn suppressed an exception raised during the "
            "checkpointed forward. This is not supported because checkpoint cannot return a value for a failed forward.",
        )
    return result
