"""Errors that speak of the user's own lines.

``error(RuntimeError, "PyTorch's phrase", hint="what to do")`` builds the exception: first the words that programs
match on, then the line of the user's program, then the advice.
"""

from __future__ import annotations

import linecache
import sys
from types import CodeType, FrameType
from typing import Any

from ..kernels.memory import allocation_message, requested

Where = tuple[CodeType, int]

_getframe = sys._getframe


def user_frame(depth: int = 1) -> FrameType | None:
    """The innermost frame that is neither flambeau's own nor of a context manager or NumPy on the way to it."""
    f: FrameType | None = _getframe(depth)
    while f is not None and f.f_globals.get("__name__", "").startswith(("flambeau.", "numpy.", "contextlib")):
        f = f.f_back
    return f


def user_level() -> int:
    """The ``stacklevel`` with which the caller's warning points at the user's line."""
    level = 1
    f: FrameType | None = _getframe(1)
    while f is not None and f.f_globals.get("__name__", "").startswith("flambeau."):
        f, level = f.f_back, level + 1
    return level


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


def running_module() -> str | None:
    """``encoder.layers.0 (Linear)``: the module whose forward is running, under its name in the outermost one.

    Read off the stack when an error is made, so that calling a module costs nothing for it.
    """
    calls: list[Any] = []
    f: FrameType | None = _getframe(1)
    while f is not None:
        if f.f_code.co_name == "_call_impl" and f.f_globals.get("__name__") == "flambeau.nn.modules.module":
            calls.append(f.f_locals["self"])
        f = f.f_back
    if not calls:
        return None
    inner, outer = calls[0], calls[-1]
    kind = type(inner).__name__
    name = next((name for name, m in outer.named_modules() if m is inner), "")
    return f"{name} ({kind})" if name else kind


def error(cls: type[BaseException], phrase: str, hint: str | None = None, **attrs: Any) -> BaseException:
    """An exception of ``cls``: PyTorch's phrase, the user's line, the hint."""
    text = phrase
    f = user_frame(2)
    if f is not None:
        text += f"\n  at {describe((f.f_code, f.f_lasti))}"
    module = running_module()
    if module is not None:
        text += f"\n  in module {module}"
    if hint:
        text += f"\n  {hint}"
    e = cls(text)
    for k, v in attrs.items():
        setattr(e, k, v)
    return e



def memory_error(problem: MemoryError) -> BaseException:
    """PyTorch's RuntimeError for memory that NumPy couldn't have, naming the bytes."""
    nbytes = requested(problem)
    if nbytes is None:
        return error(RuntimeError, f"DefaultCPUAllocator: can't allocate memory {problem}".rstrip())
    return error(RuntimeError, allocation_message(nbytes))



def name_memory_errors() -> bool:
    """Let every MemoryError that NumPy raises be PyTorch's RuntimeError too; False where that can't be.

    Operators turn what their kernels raise into ``memory_error``. This is for all the rest, wherever an array is
    made: in a rule, an optimiser, a user's own Function. What NumPy raises stays a MemoryError and says what it said;
    PyTorch's words and the user's line come before it. NumPy keeps its class in C, so it is changed, not replaced.
    """
    from numpy._core import _exceptions as numpy_exceptions

    cls = getattr(numpy_exceptions, "_ArrayMemoryError", None)
    if cls is None or issubclass(cls, RuntimeError):
        return cls is not None
    try:
        cls.__bases__ = (*cls.__bases__, RuntimeError)
    except TypeError:  # an interpreter that lays the two out differently
        return False
    numpys_words = cls.__str__

    def __str__(self: Any) -> str:
        where, tb = None, self.__traceback__
        while tb is not None:
            if not tb.tb_frame.f_globals.get("__name__", "").startswith("flambeau."):
                where = tb.tb_frame.f_code, tb.tb_lasti
            tb = tb.tb_next
        return f"{allocation_message(requested(self) or 0)}\n  at {describe(where)}\n  {numpys_words(self)}"

    cls.__str__ = __str__
    return True
