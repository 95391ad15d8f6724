"""``checkpoint(..., debug=True)``: the operators of both runs, for the message when they differ."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

from ..._aten import overload_of
from ...core.tensor import Tensor
from .frames import CheckpointError
from .watching import Watching

ROOT = __name__.partition(".")[0] + "."


class Log(Watching):
    """A list of (call, the user's lines that led to it)."""

    def __init__(self) -> None:
        super().__init__()
        self.entries: list[tuple[str, list[str]]] = []

    def __enter__(self) -> Watching:
        self.entries = []
        return super().__enter__()

    def see(self, op: Any, args: tuple[Any, ...], params: dict[str, Any]) -> Any:
        out = op(*args, **params)
        given = [shown(x) for x in args] + [f"{k}={shown(x)}" for k, x in params.items()]
        self.entries.append((f"torch.ops.{overload_of(op, args)}({', '.join(given)}) -> {shown(out)}", list(lines())))
        return out


class Logs:
    """The logs of one checkpoint's two runs."""

    def __init__(self) -> None:
        self.first, self.second = Log(), Log()

    def contexts(self) -> tuple[Watching, Watching]:
        return self.first, self.second

    def explain(self, problem: CheckpointError) -> CheckpointError:
        """The error with everything that is known about it."""
        first, second = self.first.entries, self.second.entries
        differ = next((i for i, (a, b) in enumerate(zip(first, second)) if a[0] != b[0]), min(len(first), len(second)))
        return CheckpointError(
            "An error happened while unpacking tensors; dumping logs of latest computation\n"
            "because you passed `debug=True` to `torch.utils.checkpoint.checkpoint()`.\n\n"
            f"{stacks('original', first)}\n{stacks('recompute', second)}\n"
            f"Operations executed during the original forward:\n\n{operations(first, differ)}\n\n"
            f"Operations executed during recomputation:\n\n{operations(second, differ)}\n\n"
            f"The first {differ} are the same in both (the recomputation ends as soon as it has saved as much); the next is "
            f"marked with >.\n\n{problem}"
        )


def stacks(label: str, entries: list[tuple[str, list[str]]]) -> str:
    out = [f"Where the operators of the {'original forward' if label == 'original' else 'recomputation'} were called:\n"]
    for i, (call, where) in enumerate(entries):
        out += [f"{call}   ({i + 1} of {len(entries)} in {label})", *[f"    {w}" for w in where], ""]
    return "\n".join(out)


def operations(entries: list[tuple[str, list[str]]], marked: int) -> str:
    return "\n".join(f"{'>' if i == marked else ' '} {call}" for i, (call, _) in enumerate(entries))


def lines() -> Iterator[str]:
    """The user's lines that are running, innermost first."""
    f: FrameType | None = sys._getframe(2)
    while f is not None:
        if not f.f_globals.get("__name__", "").startswith(ROOT):
            yield f"{f.f_code.co_filename}:{f.f_lineno}:{f.f_code.co_name}"
        f = f.f_back


def shown(x: Any) -> str:
    """``f32[2, 3]`` for tensors."""
    if isinstance(x, Tensor):
        d = x._a.dtype
        return f"{x.dtype.name if d.kind not in 'fiuc' else d.kind + str(d.itemsize * 8)}{list(x._a.shape)}"
    if isinstance(x, (tuple, list)):
        return f"({', '.join(shown(v) for v in x)})"
    return repr(x)
