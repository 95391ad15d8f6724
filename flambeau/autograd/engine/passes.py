"""Which backward pass is running: what checkpoints, hooks on several tensors and queued callbacks ask about it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextvars import ContextVar, copy_context
from typing import Any

from ...core.errors import error


class Pass:
    """One run of the engine.

    ``into_leaves``: it accumulates into every leaf, and so do those that it runs inside of. ``waits`` and ``roots``
    hold the nodes that it will reach. ``callbacks`` run when it is done.
    """

    __slots__ = ("into_leaves", "waits", "roots", "callbacks", "__weakref__")
    into_leaves: bool
    waits: Any
    roots: Any

    def __init__(self, into_leaves: bool = True, waits: Any = (), roots: Any = ()) -> None:
        outer = running()
        self.into_leaves = into_leaves and (outer is None or outer.into_leaves)
        self.waits, self.roots = waits, roots
        self.callbacks: list[Callable[[], Any]] | None = None

    def reaches(self, node: Any) -> bool:
        """Whether a gradient arrives at ``node`` in this pass."""
        return node in self.waits or node in self.roots

    def finish(self) -> None:
        """Run the callbacks; each may queue others."""
        while self.callbacks:
            self.callbacks.pop(0)()


_var: ContextVar[Pass | None] = ContextVar("flambeau.pass", default=None)
running = _var.get
set_pass = _var.set
reset_pass = _var.reset


def is_checkpoint_valid() -> bool:
    """Whether reentrant checkpoints can run in the present backward pass: not where it has chosen inputs."""
    p = running()
    return p is None or p.into_leaves


def queue_callback(callback: Callable[[], Any]) -> None:
    """Run ``callback()`` when the present backward pass is done; for hooks to call."""
    p = running()
    if p is None:
        raise error(RuntimeError, "Final callbacks can only be installed during backward pass.", hint="Call it from a hook.")
    if p.callbacks is None:
        p.callbacks = []
    p.callbacks.append(callback)


# ---- backward inside backward -------------------------------------------------------------------------------------
def stack_is_deep() -> bool:
    """Whether a third of the frames that Python allows are in use."""
    try:
        sys._getframe(sys.getrecursionlimit() // 3)
    except ValueError:
        return False
    return True


def on_another_stack(fn: Callable[..., Any], *args: Any) -> None:
    """Call ``fn`` in a thread of its own, in the present context, and wait: its stack begins anew."""
    failed: list[BaseException] = []

    from threading import Thread

    def body() -> None:
        try:
            fn(*args)
        except BaseException as e:
            failed.append(e)

    thread = Thread(target=copy_context().run, args=(body,), name="flambeau backward", daemon=True)
    thread.start()
    thread.join()
    if failed:
        raise failed.pop()  # emptied, so that the error and its frames make no cycle
