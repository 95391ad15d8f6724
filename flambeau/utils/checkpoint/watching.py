"""Contexts that see every operator's call: ``Modes.watch``."""

from __future__ import annotations

import copy
from typing import Any

from ...autograd.pointwise import Pointwise, record
from ...autograd.primitive import Primitive, wrap_any
from ...core.modes import full, mode, reset_mode, set_mode
from ...core.tensor import Tensor


class Watching:
    """While active, ``see(op, args, params)`` is called for every operator, and answers with its result.

    One that is entered inside another sees a call first; what it calls itself is seen by the other.
    """

    def __init__(self) -> None:
        self.tokens: list[Any] = []

    def see(self, op: Any, args: tuple[Any, ...], params: dict[str, Any]) -> Any:
        raise NotImplementedError

    def __enter__(self) -> Watching:
        m = full()
        outer = m.watch

        def watch(op: Any, args: tuple[Any, ...], params: dict[str, Any]) -> Any:
            if outer is None:
                return self.see(op, args, params)
            token = set_mode(full().replace(watch=outer))
            try:
                return self.see(op, args, params)
            finally:
                reset_mode(token)

        self.tokens.append(set_mode(m.replace(watch=watch)))
        return self

    def __exit__(self, *exc: Any) -> None:
        reset_mode(self.tokens.pop())


class Result:
    """What an operator's kernel gave, and all it takes to give it again without running: also the arrays for its rule."""

    __slots__ = ("arrays", "versions")

    def __init__(self, arrays: Any, out: Any) -> None:
        self.arrays = arrays
        counters = [t._counter() for t in (out if isinstance(out, tuple) else (out,))]
        self.versions = [(c, c[0]) for c in counters]

    def changed(self) -> bool:
        """Whether somebody has written into it since."""
        return any(c[0] != version for c, version in self.versions)


def perform(op: Any, args: tuple[Any, ...], params: dict[str, Any]) -> tuple[Any, Result | None]:
    """The operator's result, and what ``replay`` needs; None for views, which cost nothing."""
    if isinstance(op, Pointwise):
        out = op(*args, **params)
        return out, Result(out._a, out)
    if op.view is not None or full().transformed:
        return op(*args, **params), None
    given: list[Any] = []

    def kernel(*arrays: Any, **numbers: Any) -> Any:
        given.append(op.kernel(*arrays, **numbers))
        return given[-1]

    out = with_kernel(op, kernel)(*args, **params)
    return out, Result(given[-1], out)


def replay(op: Any, args: tuple[Any, ...], params: dict[str, Any], result: Result) -> Any:
    """The operator's call again, recorded as always, with the result that it had."""
    if not isinstance(op, Pointwise):
        return with_kernel(op, lambda *arrays, **numbers: result.arrays)(*args, **params)
    out = wrap_any(result.arrays)
    m = mode()
    if op.differentiable and m is not False and any(isinstance(x, Tensor) and x._rg for x in args):
        record(op, args, out, m)
    return out


def with_kernel(op: Primitive, kernel: Any) -> Primitive:
    """The same operator, its nodes too, but for how it computes."""
    op.nt  # noqa: B018  (worked out at the first use, of the original)
    twin = copy.copy(op)
    twin.kernel = kernel
    return twin
