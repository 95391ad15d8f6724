"""What a tensor looks like: PyTorch's text, character for character.

All numbers of a tensor are written alike. Floating numbers are integers with a point if all are whole, scientific if
the largest is over 1e8 or over 1000 times the smallest or the smallest is under 1e-4, else fixed; zeros, infinities
and nan have no say. Tensors of more than ``threshold`` elements show ``edgeitems`` at each end of a dimension, and
only these decide.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from . import dtypes
from .tensor import Tensor


@dataclass
class PrintOptions:
    precision: int = 4
    threshold: float = 1000
    edgeitems: int = 3
    linewidth: int = 80
    sci_mode: bool | None = None


PRINT_OPTS = PrintOptions()
PROFILES: dict[str, dict[str, Any]] = {
    "default": {"precision": 4, "threshold": 1000, "edgeitems": 3, "linewidth": 80},
    "short": {"precision": 2, "threshold": 1000, "edgeitems": 2, "linewidth": 80},
    "full": {"precision": 4, "threshold": math.inf, "edgeitems": 3, "linewidth": 80},
}


def set_printoptions(
    precision: int | None = None,
    threshold: float | None = None,
    edgeitems: int | None = None,
    linewidth: int | None = None,
    profile: str | None = None,
    sci_mode: bool | None = None,
) -> None:
    """Set how tensors are printed; None leaves an option as it is, save ``sci_mode``, where None means automatic.

    ``precision``: digits after the point (4). ``threshold``: elements from which the middle is left out (1000).
    ``edgeitems``: elements shown at each end then (3). ``linewidth``: characters a line (80). ``profile``: "default",
    "short" or "full". ``sci_mode``: scientific notation always (True) or never (False).
    """
    given = {"precision": precision, "threshold": threshold, "edgeitems": edgeitems, "linewidth": linewidth}
    values = PROFILES.get(profile or "", {}) | {k: v for k, v in given.items() if v is not None}
    for name, value in values.items():
        setattr(PRINT_OPTS, name, value)
    PRINT_OPTS.sci_mode = sci_mode


def get_printoptions() -> dict[str, Any]:
    """The options in force, as arguments for :func:`set_printoptions`."""
    return asdict(PRINT_OPTS)


@contextmanager
def printoptions(**options: Any) -> Iterator[None]:
    """Set options for the time of a ``with`` block."""
    before = get_printoptions()
    set_printoptions(**options)
    try:
        yield
    finally:
        set_printoptions(**before)


class Formatter:
    """How the numbers of one tensor are written: decided once, from the numbers that will be shown."""

    def __init__(self, shown: np.ndarray, floating: bool) -> None:
        self.floating, self.whole, self.scientific, self.width = floating, True, False, 1
        if not floating:
            self.width = max(map(len, map(str, set(shown.reshape(-1).tolist()))), default=1)
            return
        values = shown.reshape(-1).astype(np.float64)
        values = values[np.isfinite(values) & (values != 0)]
        if not values.size:
            return
        size = np.abs(values)
        smallest, largest = size.min(), size.max()
        self.whole = bool((values == np.ceil(values)).all())
        if PRINT_OPTS.sci_mode is not None:
            self.scientific = PRINT_OPTS.sci_mode
        else:
            with np.errstate(over="ignore"):
                self.scientific = bool(largest / smallest > 1000.0 or largest > 1.0e8 or smallest < 1.0e-4)
        self.width = max(len(self.number(v)) for v in values.tolist())

    def number(self, value: Any) -> str:
        if not self.floating:
            return str(value)
        if self.scientific:
            return f"{value:.{PRINT_OPTS.precision}e}"
        if self.whole:
            return f"{value:.0f}" + ("." if math.isfinite(value) else "")
        return f"{value:.{PRINT_OPTS.precision}f}"

    def __call__(self, value: Any) -> str:
        return self.number(value).rjust(self.width)


class ComplexFormatter:
    """Real and imaginary parts, each written alike."""

    def __init__(self, shown: np.ndarray) -> None:
        self.real, self.imag = Formatter(shown.real, True), Formatter(shown.imag, True)
        self.width = self.real.width + self.imag.width + 1

    def __call__(self, value: complex) -> str:
        imag = (self.imag(value.imag) + "j").lstrip()
        return self.real(value.real) + ("" if imag[0] in "+-" else "+") + imag


def _edges(a: np.ndarray) -> np.ndarray:
    """Only what a summary shows."""
    n = PRINT_OPTS.edgeitems
    for axis, size in enumerate(a.shape):
        if n == 0 and a.ndim > 1:
            return a[:0]
        if size > 2 * n:
            a = np.take(a, [*range(n), *range(size - n, size)], axis)
    return a


def _vector(a: np.ndarray, indent: int, summarize: bool, write: Any) -> str:
    n = PRINT_OPTS.edgeitems
    per_line = max(1, math.floor((PRINT_OPTS.linewidth - indent) / (write.width + 2)))
    if summarize and not n:
        items = ["..."]
    elif summarize and len(a) > 2 * n:
        items = [*map(write, a[:n].tolist()), " ...", *map(write, a[-n:].tolist())]
    else:
        items = [*map(write, a.tolist())]
    lines = [", ".join(items[i : i + per_line]) for i in range(0, len(items), per_line)]
    return "[" + (",\n" + " " * (indent + 1)).join(lines) + "]"


def _nested(a: np.ndarray, indent: int, summarize: bool, write: Any) -> str:
    if a.ndim == 0:
        return write(a.item())
    if a.ndim == 1:
        return _vector(a, indent, summarize, write)
    n = PRINT_OPTS.edgeitems
    if summarize and len(a) > 2 * n:
        rows = [*range(n), None, *range(len(a) - n, len(a))]
    else:
        rows = [*range(len(a))]
    parts = ["..." if i is None else _nested(a[i], indent + 1, summarize, write) for i in rows]
    return "[" + ("," + "\n" * (a.ndim - 1) + " " * (indent + 1)).join(parts) + "]"


def array_str(a: np.ndarray, indent: int) -> str:
    """The numbers, in brackets; lines after the first are indented."""
    if not a.size:
        return "[]"
    if a.dtype.kind not in "biufc":  # bfloat16
        a = a.astype(np.float32)
    summarize = a.size > PRINT_OPTS.threshold
    shown = _edges(a) if summarize else a
    if a.dtype.kind == "c":
        return _nested(a, indent, summarize, ComplexFormatter(shown))
    return _nested(a, indent, summarize, Formatter(shown, a.dtype.kind not in "biu"))


def _is_parameter(t: Tensor) -> bool:
    return "_is_param" in t.__dict__ or any(
        c.__name__ == "Parameter" and c.__module__ == "flambeau.nn.parameter" for c in type(t).__mro__
    )


def _suffixes(t: Tensor) -> Iterator[str]:
    a, d, default = t._a, t.dtype, dtypes.get_default_dtype()
    if not a.size:
        if a.ndim != 1:
            yield f"size={a.shape}"
        if d is not default:
            yield f"dtype={d}"
    else:
        if not PRINT_OPTS.edgeitems:
            yield f"size={a.shape}"
        if d not in (default, dtypes.default_complex(), dtypes.int64, dtypes.bool_):
            yield f"dtype={d}"
    if t._grad_fn is not None:
        try:
            name = t.grad_fn.name().rpartition("::")[2]
        except RuntimeError:  # a view that lost its history
            name = "Invalid"
        yield f"grad_fn=<{name}>"
    elif t._rg:
        yield "requires_grad=True"
    if t._fw is not None and t._fw.by_level:
        yield f"tangent={t._fw.by_level[max(t._fw.by_level, key=lambda level: level.number)]}"


def tensor_str(t: Tensor, *, tensor_contents: str | None = None) -> str:
    """The text of ``repr(t)``; ``tensor_contents`` replaces the numbers."""
    cls = type(t)
    plain = cls is Tensor or (cls.__name__ == "Parameter" and cls.__module__ == "flambeau.nn.parameter")
    prefix = "tensor(" if plain else f"{cls.__name__}("
    indent = len(prefix)
    text = prefix + (array_str(t._a, indent) if tensor_contents is None else tensor_contents)
    line = len(text) - text.rfind("\n") + 1
    for suffix in _suffixes(t):
        if line + len(suffix) + 2 > PRINT_OPTS.linewidth:
            text += ",\n" + " " * indent + suffix
            line = indent + len(suffix)
        else:
            text += ", " + suffix
            line += len(suffix) + 2
    text += ")"
    return f"Parameter({text})" if not plain and _is_parameter(t) else text
