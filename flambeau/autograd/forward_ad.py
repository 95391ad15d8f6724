"""Forward mode: tangents that travel with the values.

A dual number x + ε t is a tensor whose tangent t hangs on it under the dual level ε. An operator computes its value
as always, and then the tangent of its result, ``J t`` (see ``transforms/jvp.py``). Rules are written in public operators, so a
tangent may have a history (reverse over forward) or tangents of lower levels (forward over forward); what the tape
saves are the duals, so gradients get tangents too (forward over reverse).

Sources: Wengert 1964; Griewank and Walther, Evaluating Derivatives, chapter 3.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

from ..core.dtypes import FLOAT
from ..core.errors import error
from ..core.modes import full, reset_mode, set_mode
from ..core.tensor import Tensor, new_tensor
from .node import accumulator


class Level:
    """One ε. Its tangents die with it, which also breaks the cycles between a tangent's history and its primal's."""

    __slots__ = ("number", "open", "given", "__weakref__")

    def __init__(self, number: int) -> None:
        self.number, self.open = number, True
        self.given: weakref.WeakSet[Tangents] = weakref.WeakSet()

    def close(self) -> None:
        self.open = False
        for tangents in list(self.given):
            tangents.by_level.pop(self, None)
        self.given = weakref.WeakSet()


class Tangents:
    """The tangents of one tensor, by level; shared with what a node saved of it."""

    __slots__ = ("by_level", "__weakref__")

    def __init__(self, by_level: dict[Level, Tensor] | None = None) -> None:
        self.by_level: dict[Level, Tensor] = by_level or {}


_levels: list[Level] = []  # those that dual_level opened; PyTorch too has one stack for all threads


def open_level() -> tuple[Level, Any]:
    """A new innermost level, and the token that ``close_level`` takes."""
    m = full()
    level = Level(m.forward + 1)
    return level, set_mode(m.replace(forward=level.number))


def close_level(level: Level, token: Any) -> None:
    reset_mode(token)
    level.close()


# ---- tangents of a tensor ----------------------------------------------------------------------------------------
def tangent(t: Tensor, level: Level) -> Tensor | None:
    """The tangent of ``t`` at a level, or None."""
    fw = t._fw
    return None if fw is None else fw.by_level.get(level)


def set_tangent(t: Tensor, level: Level, value: Tensor) -> None:
    fw = t._fw
    if fw is None:
        fw = t._fw = Tangents()
    fw.by_level[level] = value
    level.given.add(fw)


def levels_of(tensors: Any) -> list[Level]:
    """The levels at which any of them has a tangent, outermost first."""
    found: set[Level] = set()
    for t in tensors:
        if t.__class__ is tuple or t.__class__ is list:
            found.update(levels_of(t))
        elif isinstance(t, Tensor) and t._fw is not None:
            found.update(t._fw.by_level)
    return list(found) if len(found) < 2 else sorted(found, key=lambda level: level.number)


def shadow(t: Tensor) -> Tensor:
    """The same values and history under another object, without tangents."""
    r = new_tensor(Tensor)
    r._a, r._rg = t._viewable(), t._rg
    r._grad_fn = t._grad_fn if t._grad_fn is not None or not t._rg else accumulator(t)
    r._vc = t._counter()
    if t._nr:
        r._nr = t._nr
    return r


def primal(t: Tensor, level: Level) -> Tensor:
    """``t`` as it is below ``level``: without its tangents there and above."""
    fw = t._fw
    if fw is None or not any([lv.number >= level.number for lv in fw.by_level]):
        return t
    r = shadow(t)
    below = {lv: x for lv, x in fw.by_level.items() if lv.number < level.number}
    if below:
        r._fw = Tangents(below)
        for lv in below:
            lv.given.add(r._fw)
    return r


# ---- what users call ---------------------------------------------------------------------------------------------
class dual_level:
    """Context in which dual numbers exist; their tangents are gone when it ends.

    >>> import flambeau as torch
    >>> import flambeau.autograd.forward_ad as fwAD
    >>> with fwAD.dual_level():
    ...     x = fwAD.make_dual(torch.tensor(3.), torch.tensor(1.))
    ...     fwAD.unpack_dual(x * x).tangent
    tensor(6.)
    """

    def __enter__(self) -> int:
        return enter_dual_level()

    def __exit__(self, *exc: Any) -> None:
        exit_dual_level()

    def __call__(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        import functools

        @functools.wraps(fn)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with dual_level():
                return fn(*args, **kwargs)

        return wrapped


_tokens: list[Any] = []


def enter_dual_level() -> int:
    """Open a dual level; returns its number, 0."""
    if _levels:
        raise error(
            RuntimeError, "Nested forward mode AD is not supported at the moment",
            hint="torch.func.jvp nests: jvp of jvp gives second derivatives.",
        )
    level, token = open_level()
    _levels.append(level)
    _tokens.append(token)
    return 0


def exit_dual_level(*, level: int | None = None) -> None:
    """Close the dual level: the tangents made in it are gone."""
    if not _levels:
        raise error(RuntimeError, "Dual level must be a positive number.", hint="No dual level is open: enter_dual_level() comes first.")
    if level is not None and level != len(_levels) - 1:
        raise error(RuntimeError, "Trying to exit a forward AD level that was not the last one that was created. This is not supported.")
    ended, token = _levels.pop(), _tokens.pop()
    try:
        reset_mode(token)
    except ValueError:  # left in another context than it was entered in
        set_mode(full().replace(forward=ended.number - 1))
    ended.close()


class UnpackedDualTensor(NamedTuple):
    """What ``unpack_dual`` returns."""

    primal: Any
    tangent: Any


def make_dual(tensor: Tensor, tangent: Tensor, *, level: int | None = None) -> Tensor:
    """The dual number ``tensor + ε tangent``: a view of ``tensor`` that carries ``tangent``.

    Both have the same shape and dtype, which must be floating point or complex.

    >>> import flambeau as torch
    >>> import flambeau.autograd.forward_ad as fwAD
    >>> with fwAD.dual_level():
    ...     d = fwAD.make_dual(torch.ones(2), torch.tensor([1., 2.]))
    ...     fwAD.unpack_dual(d.exp())
    UnpackedDualTensor(primal=tensor([2.7183, 2.7183]), tangent=tensor([2.7183, 5.4366]))
    """
    if not _levels:
        raise error(RuntimeError, "Trying to create a dual Tensor for forward AD but no level exists, make sure to enter_dual_level() first.")
    if level not in (None, 0):
        raise error(RuntimeError, "Invalid level given to _make_dual", hint="dual_level doesn't nest: the only level is 0.")
    for t, name in ((tensor, "primal"), (tangent, "tangent")):
        if not isinstance(t, Tensor):
            raise error(TypeError, f"_make_dual(): argument '{name}' must be Tensor, not {type(t).__name__}")
        if t.dtype.category < FLOAT:
            raise error(ValueError, f"Expected {name} to be floating point or complex, but got: {t.dtype}")
    return dual(tensor, tangent, _levels[-1])


def dual(tensor: Tensor, with_tangent: Tensor, level: Level) -> Tensor:
    """A view of ``tensor`` with a tangent; inside vmap both are taken down to the physical tensors first."""
    from .transforms.batched import Batched, together

    if isinstance(tensor, Batched) or isinstance(with_tangent, Batched):
        values, rewrap = together(tensor, with_tangent)
        return rewrap(dual(values[0], values[1], level))
    if tensor._a.shape != with_tangent._a.shape:
        raise error(
            RuntimeError,
            "Trying to set a forward gradient that has a different size than that of the original Tensor, this is not supported. "
            f"Tensor is of size {list(tensor._a.shape)} while the given forward gradient is of size {list(with_tangent._a.shape)}.",
        )
    if tangent(tensor, level) is not None:
        raise error(
            RuntimeError, "Making a dual Tensor based on a Tensor that already has a forward gradient at the same level 0 is not supported."
        )
    if tangent(with_tangent, level) is not None:
        raise error(RuntimeError, "Setting a forward grad that itself has a forward gradient at the same level0 is not supported.")
    view = _alias_view(tensor)
    set_tangent(view, level, primal(with_tangent, level))
    return view


def _alias_view(t: Tensor) -> Tensor:
    return t.view_as(t)


def unpack_dual(tensor: Tensor, *, level: int | None = None) -> UnpackedDualTensor:
    """(primal, tangent) of a dual; the tangent of another tensor is None."""
    if not isinstance(tensor, Tensor):
        raise error(TypeError, f"_unpack_dual(): argument 'dual' (position 1) must be Tensor, not {type(tensor).__name__}")
    if not _levels:
        return UnpackedDualTensor(tensor, None)
    return UnpackedDualTensor(*split(tensor, _levels[-1]))


def split(t: Tensor, level: Level) -> tuple[Tensor, Tensor | None]:
    """(the primal as a view, the tangent at ``level`` or None), also of a batched tensor."""
    from .transforms.batched import Batched

    if isinstance(t, Batched):
        p, its = split(t._value, level)
        return t.like(p), None if its is None else t.like(its)
    if tangent(t, level) is None:
        return t, None
    return _alias_view(primal(t, level)), tangent(t, level)


class _set_fwd_grad_enabled:
    """Switch forward mode off and on again; as a context manager or a call."""

    def __init__(self, mode: bool) -> None:
        m = full()
        self.token = set_mode(m.replace(forward=(len(_levels) and _levels[-1].number) if mode else 0))

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exc: Any) -> None:
        reset_mode(self.token)


def _is_fwd_grad_enabled() -> bool:
    return not _levels or full().forward > 0


__all__ = ["UnpackedDualTensor", "dual_level", "enter_dual_level", "exit_dual_level", "make_dual", "unpack_dual"]
