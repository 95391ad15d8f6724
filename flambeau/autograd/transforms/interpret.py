"""What an operator's call goes through while a transformation is on.

An operator asks ``mode()`` once. Where forward mode, vmap or a watcher is on, the answer sends the call here:

1. a watcher gets it first (selective checkpointing);
2. operands that are batched: the operator's batching rule calls it again on physical tensors (``batching.py``);
3. otherwise the operator runs as always, so that the tape records what it is given, tangents and all; then forward
   mode computes the tangents of what came out (``jvp.py``), in public operators, which the tape records too.

So reverse mode lies at the bottom, tangents hang on physical tensors, and batches wrap both.
"""

from __future__ import annotations

from typing import Any

from ...core.modes import Modes, reset_mode, set_mode


def interpret(op: Any, m: Modes, args: tuple[Any, ...], params: dict[str, Any]) -> Any:
    """The call ``op(*args, **params)`` under the transformations that ``m`` names."""
    if m.watch is not None:
        token = set_mode(m.replace(watch=None))
        try:
            return m.watch(op, args, params)
        finally:
            reset_mode(token)
    if m.batch:
        from .batched import innermost
        from .batching import through_rule

        level = innermost(args)
        if level is not None:
            return through_rule(op, level, m, args, params)
    try:
        below = m.below
    except AttributeError:
        below = m.below = m.replace(forward=0, batch=())
    token = set_mode(below)
    try:
        out = op(*args, **params)
    finally:
        reset_mode(token)
    if m.forward:
        from .jvp import push

        push(op, args, params, out)
    return out
