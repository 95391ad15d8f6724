"""``allow_mutation_on_saved_tensors``: what a graph saved is copied just before somebody changes it in place.

Whoever changes a tensor announces it first (``inplace.check_history`` does, for most). Whoever shares the changed storage, and was saved
while the context was open, is then cloned; the rest stays as it is.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, MutableMapping
from weakref import WeakKeyDictionary, WeakSet, WeakValueDictionary

from ..core.errors import error
from ..core.modes import no_grad
from ..core.tensor import Tensor, storage_array
from .changes import open_contexts


class Handle:
    """What a graph keeps in place of a tensor."""

    __slots__ = ("__weakref__",)


class SavedBeforeChange:
    """The tensors that were saved in the context: ``original`` as long as nobody changed them, else ``cloned``."""

    def __init__(self) -> None:
        self.cloned: MutableMapping[Handle, Tensor] = WeakKeyDictionary()
        self.original: MutableMapping[Handle, Tensor] = WeakKeyDictionary()
        self.handles: MutableMapping[tuple[int, int], Handle] = WeakValueDictionary()  # (id, version) of a tensor
        self.by_storage: dict[int, WeakSet[Handle]] = {}

    def clear(self) -> None:
        """Forget all: a backward pass that needs any of it raises."""
        self.cloned.clear()
        self.original.clear()
        self.handles.clear()
        self.by_storage.clear()

    def pack(self, t: Tensor) -> Handle:
        key = (id(t), t._version)
        handle = self.handles.get(key)
        if handle is None or self.original.get(handle) is not t:
            handle = self.handles[key] = Handle()
            self.original[handle] = t
            self.by_storage.setdefault(id(storage_array(t._a)), WeakSet()).add(handle)
        return handle

    def unpack(self, handle: Handle) -> Tensor:
        t = self.cloned.get(handle)
        if t is None:
            t = self.original.get(handle)
        if t is None or self not in open_contexts:
            raise error(
                AssertionError,
                "Trying to backward outside of the 'allow_mutation_on_saved_tensors' context"
                "in which the graph was originally recorded.",
            )
        return t

    def before_change(self, t: Tensor) -> None:
        """Copy what lies in the storage of ``t``."""
        for handle in self.by_storage.pop(id(storage_array(t._a)), ()):
            was = self.original.pop(handle, None)
            if was is not None:
                with no_grad():
                    self.cloned[handle] = was._detached().clone()


@contextlib.contextmanager
def allow_mutation_on_saved_tensors() -> Iterator[SavedBeforeChange]:
    """Context in which tensors that were saved for a backward pass may be changed: they are cloned first.

    The forward and the backward pass must both run in it. Yields an object with ``clear()``.

    >>> import flambeau as torch
    >>> with torch.autograd.graph.allow_mutation_on_saved_tensors():
    ...     a = torch.ones(2, requires_grad=True)
    ...     b = a.clone()
    ...     out = (b ** 2).sum()
    ...     _ = b.sin_()
    ...     out.backward()
    >>> a.grad
    tensor([2., 2.])
    """
    from .graph import saved_tensors_hooks

    if open_contexts:
        raise error(RuntimeError, "allow_mutation_on_saved_tensors contexts cannot be nested")
    context = SavedBeforeChange()
    with saved_tensors_hooks(context.pack, context.unpack):
        open_contexts.append(context)
        try:
            yield context
        finally:
            open_contexts.remove(context)
            context.clear()
