"""Tracebacks of programs run by `flambeau run`: the user's own lines, without flambeau's.

FLAMBEAU_TRACEBACK=full shows every frame.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from traceback import StackSummary, TracebackException
from types import TracebackType

__all__ = ["install", "lines"]

OURS = str(Path(__file__).parents[1]) + os.sep
MACHINERY = (
    "<frozen importlib",
    "<frozen runpy",
    OURS + "cli",
    OURS + "__main__.py",
)  # how the program was started


def install() -> None:
    """Shows uncaught exceptions this way from now on, unless the program has its own way already."""
    if sys.excepthook is sys.__excepthook__:
        sys.excepthook = show
    if threading.excepthook is threading.__excepthook__:
        threading.excepthook = show_in_thread


def show(kind: type[BaseException], exception: BaseException, trace: TracebackType | None) -> None:
    if os.environ.get("FLAMBEAU_TRACEBACK") == "full":
        sys.__excepthook__(kind, exception, trace)
    else:
        print("".join(lines(exception)), end="", file=sys.stderr)


def show_in_thread(args: threading.ExceptHookArgs) -> None:
    full = os.environ.get("FLAMBEAU_TRACEBACK") == "full"
    if full or args.exc_value is None or issubclass(args.exc_type, SystemExit):
        threading.__excepthook__(args)
        return
    name = args.thread.name if args.thread is not None else threading.get_ident()
    print(f"Exception in thread {name}:\n" + "".join(lines(args.exc_value)), end="", file=sys.stderr)


def lines(exception: BaseException) -> list[str]:
    """The traceback's text, with a last line that says how much is hidden."""
    report = TracebackException.from_exception(exception)
    hidden = _prune(report, set())
    text = list(report.format())
    if hidden:
        frames = "one line" if hidden == 1 else f"{hidden} lines"
        text.append(f"({frames} inside flambeau hidden; FLAMBEAU_TRACEBACK=full shows all)\n")
    return text


def _prune(report: TracebackException, seen: set[int]) -> int:
    """Takes flambeau's frames out, here and in the exceptions behind this one; gives their number."""
    if id(report) in seen:
        return 0
    seen.add(id(report))
    hidden = 0
    kept = [frame for frame in report.stack if not frame.filename.startswith((OURS, *MACHINERY))]
    launch = [frame for frame in report.stack if frame.filename.startswith(MACHINERY)]
    if kept or issubclass(report.exc_type or BaseException, SyntaxError):
        hidden = len(report.stack) - len(kept) - len(launch)
        report.stack = StackSummary.from_list(kept) if kept else None  # type: ignore[assignment]
    others = [report.__cause__, report.__context__, *(getattr(report, "exceptions", None) or ())]
    return hidden + sum(_prune(other, seen) for other in others if other is not None)
