"""Anomaly detection: which forward call does a nan, or an error, of the backward pass come from?

While it is on, every node that is recorded notes the user's frames, and the node whose backward recorded it; the pass
looks for nan in what every node returns. Without it, errors still name the user's line; this adds the whole stack.
The mode belongs to the thread (and asyncio task) that switches it on.
"""

from __future__ import annotations

import sys
import warnings
from contextvars import ContextVar
from typing import Any

from ..core.errors import describe, error, user_level
from ..core.modes import full, set_mode
from ..core.tensor import Tensor
from .node import Node

_evaluating: ContextVar[Node | None] = ContextVar("flambeau.evaluating", default=None)


# ---- the mode -------------------------------------------------------------------------------------------------------
def is_anomaly_enabled() -> bool:
    """Whether anomaly detection is on."""
    return full().anomaly is not None


def is_anomaly_check_nan_enabled() -> bool:
    """Whether anomaly detection, if it is on, looks for nan."""
    return full().anomaly is not False


def set_anomaly_enabled(mode: bool, check_nan: bool = True) -> None:
    """Switch anomaly detection on or off."""
    if not isinstance(mode, bool) or not isinstance(check_nan, bool):
        wrong, position = (mode, 1) if not isinstance(mode, bool) else (check_nan, 2)
        name = "enabled" if position == 1 else "check_nan"
        raise error(TypeError, f"set_anomaly_enabled(): argument '{name}' (position {position}) must be bool, not {type(wrong).__name__}")
    set_mode(full().replace(anomaly=check_nan if mode else None))


class detect_anomaly:
    """Context manager: errors in a backward pass come with the forward call they belong to, and nan is an error.

    Args:
        check_nan: raise RuntimeError when a node returns nan.

    Slow; for debugging.

    >>> import flambeau as torch, warnings
    >>> warnings.simplefilter("ignore")
    >>> x = torch.zeros(1, requires_grad=True)
    >>> with torch.autograd.detect_anomaly():
    ...     y = x.sqrt() * 0
    ...     try: y.backward()
    ...     except RuntimeError as e: print(str(e).splitlines()[0])
    Function 'SqrtBackward0' returned nan values in its 0th output.
    """

    def __init__(self, check_nan: bool = True) -> None:
        self.check_nan = check_nan
        self.prev, self.prev_check_nan = is_anomaly_enabled(), is_anomaly_check_nan_enabled()
        warnings.warn(
            "Anomaly Detection has been enabled. This mode will increase the runtime and should only be enabled for debugging.",
            stacklevel=2,
        )

    def __enter__(self) -> None:
        set_anomaly_enabled(True, self.check_nan)

    def __exit__(self, *exc: Any) -> None:
        set_anomaly_enabled(self.prev, self.prev_check_nan)


class set_detect_anomaly:
    """Switch anomaly detection on or off: as a call (at once) or a context manager.

    >>> import flambeau as torch
    >>> with torch.autograd.set_detect_anomaly(True):
    ...     torch.is_anomaly_enabled()
    True
    """

    def __init__(self, mode: bool, check_nan: bool = True) -> None:
        self.prev, self.prev_check_nan = is_anomaly_enabled(), is_anomaly_check_nan_enabled()
        set_anomaly_enabled(mode, check_nan)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exc: Any) -> None:
        set_anomaly_enabled(self.prev, self.prev_check_nan)


# ---- while recording ------------------------------------------------------------------------------------------------
def note(node: Node) -> None:
    """Keep with a new node the user's frames, and the node whose backward is recording it."""
    import traceback

    frames = [(f, line) for f, line in traceback.walk_stack(sys._getframe(1)) if not f.f_globals.get("__name__", "").startswith("flambeau.")]
    node.metadata["traceback_"] = traceback.StackSummary.extract(reversed(frames)).format()
    parent = _evaluating.get()
    if parent is not None:
        node.metadata["parent_"] = parent


# ---- during the backward pass ---------------------------------------------------------------------------------------
def checked(node: Node, g: Any, wanted: Any) -> tuple[Any, ...]:
    """``node.apply``, looking at what comes out."""
    token = _evaluating.set(node)
    try:
        outs = node.apply(g, wanted)
    finally:
        _evaluating.reset(token)
    if full().anomaly:
        for i, x in enumerate(outs):
            if x.__class__ is Tensor and x._a.dtype.kind not in "biu" and (x._a != x._a).any():
                raise error(
                    RuntimeError,
                    f"Function '{node.name()}' returned nan values in its {i}th output.",
                    hint=f"It was recorded at {describe(node.where)}" if node.where else None,
                )
    return outs


def report(node: Node | None) -> None:
    """Warn which forward call an error in a node's backward belongs to, and which backward that call was part of."""
    is_parent, seen = False, set()
    while node is not None and id(node) not in seen:
        seen.add(id(node))
        name, stack = node.name(), node.metadata.get("traceback_")
        start = f"\n\nPrevious calculation was induced by {name}. " if is_parent else f"Error detected in {name}. "
        if stack is None:
            text = "No forward pass information available. Enable detect anomaly during forward pass for more information."
            if node.where is not None:
                text += f"\n  It was recorded at {describe(node.where)}"
        elif is_parent:
            text = "Traceback of forward call that induced the previous calculation:\n" + "".join(stack)
        else:
            text = "Traceback of forward call that caused the error:\n" + "".join(stack)
        warnings.warn(start + text, UserWarning, stacklevel=user_level())
        node, is_parent = node.metadata.get("parent_"), True
