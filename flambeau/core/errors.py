"""Errors that speak of the user's own lines.

``error(RuntimeError, "PyTorch's phrase", hint="what to do")`` builds the exception: first the words that programs
match on, then the line of the user's program, then the advice.
"""

from __future__ import annotations

import linecache
import sys
from types import CodeType, FrameType
from typing import Any

Where = tuple[CodeType, int]

_getframe = sys._getframe


def user_frame(depth: int = 1) -> FrameType | None:
    """The innermost frame that is not flambeau's own."""
    f: FrameType | None = _getframe(depth)
    while f is not None and f.f_globals.get("__name__", "").startswith("flambeau."):
        f = f.f_back
    return f


def here(depth: int = 2) -> Where | None:
    """(code, instruction offset) of the user's line that is running: 0.1 µs, and no frame is kept alive.

    ``depth``: how many frames up the search may start.
    """
    f: FrameType | None = _getframe(depth)
    while f.f_globals.get("__name__", "").startswith("flambeau."):  # type: ignore[union-attr]
        f = f.f_back  # type: ignore[union-attr]
        if f is None:
            return None
    return f.f_code, f.f_lasti  # type: ignore[union-attr]


def line_of(where: Where) -> tuple[str, int, str]:
    """(file, line number, function) of a place that ``here`` noted."""
    code, lasti = where
    line = code.co_firstlineno
    for start, end, ln in code.co_lines():
        if start <= lasti < end and ln is not None:
            line = ln
            break
    return code.co_filename, line, code.co_name


def describe(where: Where | None) -> str:
    """``file.py:12 in f: y = x * 2``, or "an unknown line"."""
    if where is None:
        return "an unknown line"
    file, line, func = line_of(where)
    text = linecache.getline(file, line).strip()
    place = f"{file}:{line}" + (f" in {func}" if func != "<module>" else "")
    return f"{place}: {text}" if text else place


def error(cls: type[BaseException], phrase: str, hint: str | None = None, **attrs: Any) -> BaseException:
    """An exception of ``cls``: PyTorch's phrase, the user's line, the hint."""
    text = phrase
    f = user_frame(2)
    if f is not None:
        text += f"\n  at {describe((f.f_code, f.f_lasti))}"
    if hint:
        text += f"\n  {hint}"
    e = cls(text)
    for k, v in attrs.items():
        setattr(e, k, v)
    return e


def memory_error(problem: MemoryError) -> BaseException:
    """PyTorch's RuntimeError for memory that NumPy couldn't have, naming the bytes."""
    from ..kernels.memory import allocation_message, requested

    nbytes = requested(problem)
    if nbytes is None:
        return error(RuntimeError, f"DefaultCPUAllocator: can't allocate memory: {problem}".rstrip(": "))
    return error(RuntimeError, allocation_message(nbytes))
