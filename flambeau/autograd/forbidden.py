"""Views that autograd cannot follow, and what they refuse.

A view from an operator with several outputs, one made while nothing was recorded, and one that a custom Function
returned, have histories that cannot be rewritten. Changing one in place is refused. When its base (or another view of
it) is changed, the view itself becomes unusable wherever its history is needed: its node is a ``ForbiddenView``, and
its output number is a ``Guard``, which raises when an operator that is being recorded asks whether it is zero.
"""

from __future__ import annotations

from typing import Any

from ..core.errors import error
from ..core.modes import Modes, mode, transforming
from ..core.tensor import InferenceCounter, Tensor
from .node import Node, next_seq, operation

SEVERAL = (
    " This view is the output of a function that returns multiple views. Such functions do not allow the output views to be "
    "modified inplace. You should replace the inplace operation by an out-of-place one."
)
FUNCTION = (
    " This view was created inside a custom Function (or because an input was returned as-is) and the autograd logic to handle "
    "view+inplace would override the custom backward associated with the custom Function, leading to incorrect gradients. This "
    "behavior is forbidden. You can fix this by cloning the output of the custom Function."
)


def clarify(block: str) -> str:
    return (
        " Given that this use case is ambiguous and error-prone, it is forbidden. You can clarify your code by moving both the "
        f"view and the inplace either both inside the {block} block (if you don't want the inplace to be tracked) or both "
        "outside (if you want the inplace to be tracked)."
    )


# kind of view -> (the mode that it was made in, the mode of the change, why it is refused)
KINDS = {
    "multi": ("no_grad mode", "with grad mode enabled", SEVERAL),
    "function": ("no_grad mode", "with grad mode enabled", FUNCTION),
    "no_grad": ("no_grad mode", "with grad mode enabled", clarify("no_grad")),
    "inference": ("inference mode", "in normal mode", clarify("inference_mode")),
}


def phrase(v: Tensor, event: str) -> str:
    """PyTorch's words for a change of a view that cannot be followed; ``event``: what happened to what."""
    made_in, changed_in, why = KINDS[v._view_kind]  # type: ignore[index]
    fn, nr = v._grad_fn, v._nr
    if fn.__class__ is ForbiddenView:
        fn, nr = fn.was, fn.was_nr
    if fn is None:
        return f"A view was created in {made_in} and {event} modified inplace {changed_in}.{why}"
    subject = f"Output {nr} of {operation(fn)} is a view"
    if v._view_kind in ("multi", "function"):
        return f"{subject} and {event} modified inplace.{why}"
    return f"{subject} of a view which was created in {made_in} and {event} modified inplace {changed_in}.{why}"


def refuse_change(v: Tensor) -> BaseException:
    """The error of changing such a view in place."""
    return error(RuntimeError, phrase(v, "is being"))


class Guard:
    """The output number of a forbidden view."""

    __slots__ = ("phrase",)

    def __init__(self, phrase: str) -> None:
        self.phrase = phrase

    def __bool__(self) -> bool:
        raise error(RuntimeError, self.phrase)


class ForbiddenView(Node):
    """The history of a view that has none any more."""

    __slots__ = ("phrase", "was", "was_nr")

    def __init__(self, phrase: str, was: Any, was_nr: int) -> None:
        self.phrase, self.was, self.was_nr = phrase, was, was_nr
        self.next, self.nrs, self.saved, self.extra, self.where = (), None, None, None, None
        self.seq = next_seq()

    def apply(self, g: Any, wanted: Any = None) -> tuple[Any, ...]:
        raise error(RuntimeError, self.phrase)

    def release(self) -> None:
        pass


def forbid(v: Tensor) -> None:
    """Make a view unusable where its history is needed: its base was changed."""
    if v._grad_fn.__class__ is ForbiddenView:
        return
    words = phrase(v, "its base or another view of its base has been")
    v._grad_fn, v._rg = ForbiddenView(words, v._grad_fn, v._nr), True
    v._nr = Guard(words)  # type: ignore[assignment]


def forbid_views(base: Tensor) -> None:
    """Forbid the living views of a changed base that cannot follow the change. They are not asked again."""
    views = base._views
    if not views or not base._rg:
        return
    followers = []
    for ref in views:
        v = ref()
        if v is None:
            continue
        if v._view_kind is None:
            followers.append(ref)
        elif v._a.dtype.kind not in "biu":
            forbid(v)
    if len(followers) != len(views):
        views[:] = followers


def made_unrecorded(v: Tensor, m: Any) -> None:
    """Mark a view that was made while nothing is recorded; it requires grad if its base does, as a leaf."""
    if m is not False and m.grad:
        return
    v._view_kind = "inference" if v._view_kind == "inference" or m is not False and m.inference else "no_grad"
    base = v._base
    if base is not None and base._rg and v._a.dtype.kind not in "biu":
        v._rg = True


def follow_flag(base: Tensor) -> None:
    """A view without a history of its own requires grad if its base does."""
    for ref in base._views or ():
        v = ref()
        if v is not None and v._grad_fn is None and v._a.dtype.kind not in "biu":
            v._rg = base._rg


# ---- inference tensors ----------------------------------------------------------------------------------------------
def is_inference(t: Tensor) -> bool:
    """Whether the tensor was made in inference mode."""
    return t._vc.__class__ is InferenceCounter


def check_inference_write(t: Tensor) -> None:
    """Refuse a change of an inference tensor outside inference mode."""
    vc: Any = t._vc
    if vc.__class__ is not InferenceCounter or vc.free:
        return
    m = mode()
    if m.__class__ is not Modes or not m.inference:
        raise error(
            RuntimeError,
            "Inplace update to inference tensor outside InferenceMode is not allowed.You can make a clone to get a normal tensor "
            "before doing inplace update.See https://github.com/pytorch/rfcs/pull/17 for more details.",
            hint="It was made under `torch.inference_mode()`.",
        )


def check_inference_saved(t: Tensor) -> None:
    """Refuse to save an inference tensor for a backward pass, other than that of a transformation."""
    if t._vc.__class__ is InferenceCounter and not transforming.get():
        raise error(
            RuntimeError,
            "Inference tensors cannot be saved for backward. Please do not use Tensors created in inference mode in computation "
            "tracked by autograd. To work around this, you can make a clone to get a normal tensor and use it in autograd, or use "
            "`torch.no_grad()` instead of `torch.inference_mode()`.",
        )
