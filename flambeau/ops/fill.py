"""Overwriting a tensor in place: with a number, or with random draws. Nothing is copied."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..autograd import inplace as ip
from ..autograd.primitive import Primitive, primitive
from ..core.errors import error
from ..core.tensor import Tensor
from ..kernels import random as kernels
from .convert import rewrite
from .creation import number
from .public import public
from .random import generator_of


def _history(name: str, node: str) -> Primitive:
    """What a tensor that was overwritten remembers: that no gradient passes."""

    def kernel(x: Any, /) -> Any:
        return x

    return primitive(name, node=node)(kernel)


_zero = _history("zero", "ZeroBackward0")
_fill_number = _history("fill_number", "FillBackward2")
_fill_tensor = primitive("fill_tensor", node="FillBackward1", vjp={"value": lambda g: g.sum()})(lambda x, value, /: x)


@public
def zero_(input: Tensor) -> Tensor:
    """Set every element to zero, in place."""
    ip.check_writable(input)
    was = ip.before(input) if input._rg else input
    input._a.fill(0)
    return rewrite(_zero, input, was, (), ())


@public
def fill_(input: Tensor, value: Any) -> Tensor:
    """Set every element to a number, or to the one element of a tensor, in place."""
    if isinstance(value, Tensor):
        if value._a.ndim:
            raise error(
                RuntimeError, f"fill_ only supports 0-dimension value tensor but got tensor with {value._a.ndim} dimensions."
            )
        ip.check_writable(input)
        was = ip.before(input)
        v = value.to(input.dtype)  # type: ignore[attr-defined]
        input._a[...] = v._a
        return rewrite(_fill_tensor, input, was, (v,), ())
    v = number(value, input._a.dtype)
    ip.check_writable(input)
    was = ip.before(input) if input._rg else input
    input._a.fill(v)
    return rewrite(_fill_number, input, was, (), ())


@public
def fill(input: Tensor, value: Any) -> Tensor:
    """A copy of the shape, with one value everywhere."""
    return fill_(input.clone(), value)  # type: ignore[attr-defined]


def _erase_diagonal(g: Tensor, wrap: bool) -> Tensor:
    out = g.clone()  # type: ignore[attr-defined]
    return fill_diagonal_(out, 0, wrap)


_fill_diagonal = primitive("fill_diagonal", vjp={"x": lambda g, around: _erase_diagonal(g, around)})(lambda x, /, around: x)


@public(function=False, method=True)
def fill_diagonal_(self: Tensor, fill_value: Any, wrap: bool = False) -> Tensor:
    """Set the main diagonal to a number, in place; ``wrap``: again below, in tall matrices."""
    a = self._viewable()
    if a.ndim < 2:
        raise error(RuntimeError, "dimensions must larger than 1")
    if a.ndim > 2 and len(set(a.shape)) > 1:
        raise error(RuntimeError, "all dimensions of input must be of equal length")
    v = number(fill_value, a.dtype)
    ip.check_writable(self)
    was = ip.before(self)
    n = min(a.shape)
    i = np.arange(n)
    a[(i,) * a.ndim] = v
    if wrap and a.ndim == 2 and a.shape[0] > a.shape[1] + 1:
        rows = np.arange(a.shape[0])
        columns = rows % (a.shape[1] + 1)
        keep = columns < a.shape[1]
        a[rows[keep], columns[keep]] = v
    return rewrite(_fill_diagonal, self, was, (), (wrap,))


# ---- random ---------------------------------------------------------------------------------------------------------------------
def _drawn(name: str, draw: Any, doc: str, defaults: dict[str, Any]) -> None:
    """Publish ``Tensor.name(*parameters, generator=None)``, which fills in place."""
    node = _history(name, {"random_": "RandomBackward0"}.get(name, name[:-1].title().replace("_", "") + "Backward0"))
    names = list(defaults)

    def fill_in_place(self: Tensor, *args: Any, generator: Any = None, **kwargs: Any) -> Tensor:
        values = dict(defaults)
        if len(args) > len(names):
            raise error(TypeError, f"{name}() takes from 1 to {len(names) + 1} positional arguments but {len(args) + 1} were given")
        for k, v in (*zip(names, args), *kwargs.items()):
            if k not in values:
                raise error(TypeError, f"{name}() got an unexpected keyword argument '{k}'")
            values[k] = v
        missing = [k for k, v in values.items() if v is REQUIRED]
        if missing:
            raise error(TypeError, f'{name}() missing 1 required positional arguments: "{missing[0]}"')
        ip.check_writable(self)
        was = ip.before(self)
        a = self._viewable()
        draw(a, generator_of(generator), **values)
        return rewrite(node, self, was, (), ())

    fill_in_place.__name__ = fill_in_place.__qualname__ = name
    fill_in_place.__doc__ = doc
    setattr(Tensor, name, fill_in_place)


REQUIRED = object()


def _uniform(a: Any, gen: Any, **v: Any) -> None:
    kernels.uniform_(a, v["from"], v["to"], gen)


def _random(a: Any, gen: Any, **v: Any) -> None:
    low, high = v["from"], v["to"]
    if low is None:
        kernels.random_(a, gen)
    elif high is None:
        kernels.random_from_to_(a, 0, low, gen)
    else:
        kernels.random_from_to_(a, low, high, gen)


def _bernoulli(a: Any, gen: Any, p: Any) -> None:
    if isinstance(p, Tensor):
        kernels.bernoulli_each_(a, p._a, gen)
    else:
        kernels.bernoulli_(a, p, gen)


_drawn("uniform_", _uniform, "Fill with uniform values of [from, to).", {"from": 0.0, "to": 1.0})
_drawn("normal_", lambda a, gen, mean, std: kernels.normal_(a, mean, std, gen), "Fill with normal values.", {"mean": 0.0, "std": 1.0})
_drawn("random_", _random, "Fill with integers of [from, to), or of [0, from), or as the dtype has.", {"from": None, "to": None})
_drawn("bernoulli_", _bernoulli, "Fill with ones, with probability ``p`` each, and zeros.", {"p": 0.5})
_drawn(
    "exponential_", lambda a, gen, lambd: kernels.exponential_(a, lambd, gen), "Fill with exponential values.", {"lambd": 1.0}
)
_drawn("geometric_", lambda a, gen, p: kernels.geometric_(a, p, gen), "Fill with geometric values.", {"p": REQUIRED})
_drawn(
    "cauchy_", lambda a, gen, median, sigma: kernels.cauchy_(a, median, sigma, gen), "Fill with Cauchy values.",
    {"median": 0.0, "sigma": 1.0},
)  # fmt: skip
_drawn(
    "log_normal_", lambda a, gen, mean, std: kernels.log_normal_(a, mean, std, gen), "Fill with exp of normal values.",
    {"mean": 1.0, "std": 2.0},
)  # fmt: skip

