"""Forward mode and in-place changes: a tangent changes in place with its primal.

A view's tangent is a view of its base's tangent. So writing into the one shows in the other, as with the values. Where
a tensor without a tangent is given one by a change, its base gets zeros around it, and every living view its window.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...core.tensor import Tensor, address, element_strides, wrap
from ..forward_ad import Level, Tangents, levels_of, set_tangent, tangent


def kept(t: Tensor) -> Tangents:
    """The tangents as they are now, safe from the change to come."""
    return Tangents({level: x.clone() for level, x in t._fw.by_level.items()})


def follow(t: Tensor, value: Tensor) -> None:
    """Give ``t`` the tangents of the value that was written into it."""
    for level in levels_of((t, value)):
        write(t, level, tangent(value, level))


def push_inplace(op: Any, t: Tensor, operands: tuple[Any, ...], params: tuple[Any, ...]) -> None:
    """Tangents after ``op(*operands, *params)`` was written into ``t``; the first operand is its former self."""
    from .jvp import below, result_tangents, share_with_saved, tangents_of

    args = (*operands, *params)
    levels = levels_of((t, *operands))
    if not levels:
        return
    found = []
    for level in levels:
        ps, ts = tuple([below(a, level) for a in args]), tuple([tangents_of(a, level) for a in args])
        if any([x is not None for x in ts]):
            found.append((level, result_tangents(op, ps, ts, {}, t, level)[0]))
    for level, x in found:
        write(t, level, x)
    share_with_saved((t,))


def write(t: Tensor, level: Level, new: Tensor | None) -> None:
    """Make ``new`` (None: zero) the tangent of ``t``."""
    old = tangent(t, level)
    if old is None and new is None:
        return
    if old is None:
        base = t if t._base is None else t._base
        given = tangent(base, level)
        if given is not None and element_strides(given) == element_strides(base):
            whole = given
        else:
            whole = zeros_laid_like(base)
            if given is not None:
                whole.copy_(given)
            set_tangent(base, level, whole)
        for ref in base._views or ():
            v = ref()
            if v is not None and (whole is not given or tangent(v, level) is None):
                set_tangent(v, level, window(whole, base, v))
        old = tangent(t, level)
        assert old is not None
    if new is None:
        old.zero_()
    else:
        old.copy_(new)


def zeros_laid_like(base: Tensor) -> Tensor:
    """Zeros whose elements lie as those of ``base``, gaps and all, so that its windows fit."""
    a = base._viewable()
    z = np.zeros_like(a)
    if z.strides != a.strides and a.size:
        end = sum([(n - 1) * s for n, s in zip(a.shape, a.strides)]) + a.itemsize
        z = np.ndarray(a.shape, a.dtype, np.zeros(end, np.uint8), 0, a.strides)
    return wrap(z)


def window(whole: Tensor, base: Tensor, v: Tensor) -> Tensor:
    """What lies in ``whole`` where ``v`` lies in ``base``."""
    offset = (address(v._a) - address(base._a)) // v._a.itemsize if v._a.size else 0
    return whole.as_strided(v._a.shape, element_strides(v), offset)
