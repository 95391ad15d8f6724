"""A factor that is missing: a number, or something known that varies from entry to entry."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import e, log, pi, prod, sqrt

import numpy as np

from ...core.tensor import Tensor
from .evidence import Evidence, matters
from .problem import wide


def constant_factor(it: Evidence) -> str | None:
    c = ratio(it.num, it.ana)
    if c is None or not matters(it) or not it.same(it.ana * c):
        return None
    return f"a factor is missing: multiply the {it.gradient} by {name_factor(it, c)}; every entry is off by it."


def ratio(num: np.ndarray, ana: np.ndarray) -> complex | None:
    """The one number that takes ``ana`` to ``num``, by the largest entry."""
    if not ana.any():
        return None
    k = int(np.abs(ana).argmax())
    c = num.flat[k] / ana.flat[k]
    return None if not np.isfinite(c) or c == 0 else complex(c) if np.iscomplexobj(c) else float(c)


NUMBERS = {
    "pi": pi, "2 * pi": 2 * pi, "e": e, "log(2)": log(2), "1 / log(2)": 1 / log(2), "log(10)": log(10), "1 / log(10)": 1 / log(10),
    "sqrt(2)": sqrt(2), "1 / sqrt(2)": 1 / sqrt(2), "sqrt(pi)": sqrt(pi), "2 / sqrt(pi)": 2 / sqrt(pi), "sqrt(2 * pi)": sqrt(2 * pi),
    "1 / sqrt(2 * pi)": 1 / sqrt(2 * pi), "1j": 1j, "-1j": -1j,
}  # fmt: skip


def _sizes(it: Evidence) -> Iterator[tuple[str, int]]:
    small, large = it.x._a.shape, it.out._a.shape
    x, out = it.p.input_name(it.j), it.p.output_name(it.o)
    if it.broadcast_axes:
        yield f"how often {x} is repeated by broadcasting: sum over its broadcast axes, don't take the mean", prod([large[k] for k in it.broadcast_axes])
    yield f"{x}.numel()", prod(small)
    yield f"{out}.numel()", prod(large)
    for name, shape in ((x, small), (out, large)):
        for k, n in enumerate(shape):
            yield f"{name}.shape[{k}]", n


def name_factor(it: Evidence, c: complex, sizes: bool = True) -> str:
    """``2``, ``1 / 6, which is 1 / input.numel()``, ``2 * pi``."""
    near = 1e-4
    value = f"{c:.6g}"
    if abs(c.imag) < near * abs(c):
        r = c.real
        for text, n in ((f"{round(r)}", r), (f"1 / {round(1 / r)}", 1 / r)):
            if round(n) and abs(n - round(n)) < near * abs(n):
                value = text
                for name, size in _sizes(it) if sizes else ():
                    if size > 2 and size == abs(round(n)):
                        return f"{value}, which is {'1 / ' if text.startswith('1 /') else ''}{name}"
                return value
    for name, known in NUMBERS.items():
        for s, factor in (("", known), ("-", -known)):
            if abs(c - factor) < near * abs(factor):
                return f"{s}{name}" if not s or name[0] not in "-" else name[1:]
    return value


def known_factor(it: Evidence) -> str | None:
    """The ratio varies as the input, the output, another input, or a simple function of one of them."""
    mask = (np.abs(it.num) > 10 * it.p.options.atol) & (it.ana != 0)
    if not mask.any():
        return None
    with np.errstate(all="ignore"):
        ratios = it.num[mask] / it.ana[mask]
        if np.ptp(ratios.real) < 1e-6 and np.ptp(ratios.imag) < 1e-6:
            return None
        for name, factor in _quantities(it):
            c = np.median((ratios / factor[mask]).real)
            if np.isfinite(c) and c and _plain(c) and it.same(np.where(it.ana == 0, 0, it.ana * factor * c)):
                times = "" if abs(c - 1) < 1e-4 else "-" if abs(c + 1) < 1e-4 else f"{c:.4g} * "
                return f"a factor is missing: multiply the {it.gradient} by {times}{name}."
    return None


def _plain(c: float) -> bool:
    return any(abs(n - round(n)) < 1e-3 * abs(n) and 0 < abs(round(n)) <= 12 for n in (c, 1 / c))


FUNCTIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "{}": lambda v: v, "{} ** 2": lambda v: v * v, "1 / {}": lambda v: 1 / v, "1 / {} ** 2": lambda v: 1 / (v * v), "1 - {}": lambda v: 1 - v,
    "{} * (1 - {})": lambda v: v * (1 - v), "(1 - {} ** 2)": lambda v: 1 - v * v, "1 / (1 + {} ** 2)": lambda v: 1 / (1 + v * v),
    "sign({})": np.sign, "exp({})": np.exp, "exp(-{})": lambda v: np.exp(-v), "cos({})": np.cos, "sin({})": np.sin,
    "sqrt({})": lambda v: np.sqrt(v), "1 / sqrt({})": lambda v: 1 / np.sqrt(v), "log({})": lambda v: np.log(v),
}  # fmt: skip


def _quantities(it: Evidence) -> Iterator[tuple[str, np.ndarray]]:
    """(what it is called, its value for every entry of the Jacobian)."""
    n, m = it.num.shape
    small, large = it.x._a.shape, it.out._a.shape
    for name, a, by_row in _values(it):
        a = a.conj() if np.iscomplexobj(a) and not it.forward else a
        shape = small if by_row else large
        v = np.broadcast_to(np.broadcast_to(a, shape).reshape((n, 1) if by_row else (1, m)), (n, m))
        for text, function in FUNCTIONS.items():
            yield text.replace("{}", name + (".conj()" if np.iscomplexobj(a) and not it.forward else "")), function(v)


def _values(it: Evidence) -> Iterator[tuple[str, np.ndarray, bool]]:
    p = it.p
    yield p.input_name(it.j), wide(it.x._a), True
    yield p.output_name(it.o), wide(it.out._a), False
    for i, t in enumerate(p.args):
        if isinstance(t, Tensor) and t is not it.x and t._a.dtype.kind in "fiuc":
            for shape, by_row in ((it.x._a.shape, True), (it.out._a.shape, False)):
                try:
                    np.broadcast_to(t._a, shape)
                except ValueError:
                    continue
                yield p.argument_name(i), wide(t._a), by_row
