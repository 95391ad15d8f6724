"""Overwriting a tensor in place: with a number, or with random draws. Nothing is allocated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..autograd import inplace as ip
from ..autograd.node import note_change
from ..autograd.primitive import Primitive, primitive
from ..autograd.transforms.batched import Batched, innermost, lift, refresh
from ..autograd.transforms.batching import too_small, write
from ..core.errors import error
from ..core.modes import Modes, mode, reset_mode, set_mode
from ..core.tensor import Tensor, wrap
from ..kernels import random as kernels
from .convert import assign, fit_dtype, reduce_to, rewrite
from .creation import number
from .public import public
from .random import batched_by, draw, drawing_levels, for_each, generator_of, no_slope

LEAST_LARGEST = 65504.0  # the largest number that every floating dtype holds


def overwritten(name: str, node: str) -> Primitive:
    """What a tensor remembers of being overwritten: its former self gets a gradient of zero."""

    def kernel(x: Any, /) -> Any:
        return x

    return primitive(name, node=node, vjp={"x": lambda g, x_shape: no_slope(g, x_shape)}, jvp=lambda: None)(kernel)


def each_once(a: np.ndarray) -> np.ndarray:
    """The elements of an expanded tensor, each once."""
    if a.size > 1 and 0 in a.strides:
        return a[tuple([slice(1) if s == 0 else slice(None) for s in a.strides])]
    return a


def put_number(t: Tensor, value: Any, op: Primitive) -> Tensor:
    """Set every element to a number that the dtype holds."""
    a, base = t._a, t._base
    if t.__class__ is Batched:
        put_number(t._value, value, op)
        refresh(t)
        return t
    ip.check_inference_write(t)
    ip.announce(t)
    if not t._rg and (base is None or not base._rg) and t._fw is None:
        a = each_once(a)
        if not a.flags.writeable:
            a = ip.writable(a)
        a.fill(value)
        note_change(t)
        return t
    ip.check_history(t)
    was = ip.before(t)
    a = each_once(a)
    (a if a.flags.writeable else ip.writable(a)).fill(value)
    return rewrite(op, t, was, (), ())


_zero = overwritten("zero_", "ZeroBackward0")
_fill_number = overwritten("fill_number_", "FillBackward2")


@public
def zero_(input: Tensor) -> Tensor:
    """Set every element to zero, in place."""
    return put_number(input, 0, _zero)


def as_number(value: Any, like: Tensor, name: str) -> Any:
    """A value to fill with, if the dtype holds it."""
    if value.__class__ is float and like._a.dtype.kind == "f" and -LEAST_LARGEST <= value <= LEAST_LARGEST:
        return value
    if not isinstance(value, (int, float, complex, np.number, np.bool_)):
        raise error(
            TypeError,
            f"{name}(): argument 'value' (position 1) must be Number, not {type(value).__name__}",
            hint="Give a number, or a tensor without dimensions.",
        )
    if like._a.dtype.kind in "iu" and isinstance(value, (float, np.floating)):
        info = np.iinfo(like._a.dtype)
        if not info.min <= value <= info.max:
            value = 1 << 64  # nothing is rounded or wrapped into the range: number() refuses this
    return number(value, like._a.dtype)


def _one_element(value: Tensor, name: str) -> None:
    if value._a.ndim:
        raise error(
            RuntimeError,
            f"{name} only supports 0-dimension value tensor but got tensor with {value._a.ndim} dimensions.",
        )


def _to_value(g: Tensor, value_shape: tuple[int, ...], value_dtype: Any) -> Tensor:
    return fit_dtype(reduce_to(g, value_shape), value_dtype)


_FILL_TENSOR = {"x": lambda g, x_shape: no_slope(g, x_shape), "value": _to_value}
_fill_tensor = primitive("fill_tensor_", node="FillBackward3", vjp=_FILL_TENSOR, jvp=lambda value_t: value_t)(lambda x, value, /: x)


@public
def fill_(input: Tensor, value: Any) -> Tensor:
    """Set every element to a number, or to the one element of a tensor (which gets a gradient), in place.

    >>> import flambeau as torch
    >>> torch.empty(2).fill_(3)
    tensor([3., 3.])
    """
    if not isinstance(value, Tensor):
        return put_number(input, as_number(value, input, "fill_"), _fill_number)
    _one_element(value, "fill_")
    m = mode()
    if m.__class__ is Modes and m.batch and innermost((input, value)) is not None:
        return write(input, value.to(input.dtype), "fill_")
    ip.check_writable(input, needs=value._rg)
    was = ip.before(input)
    assign(input._a, value._a)
    return rewrite(_fill_tensor, input, was, (value,), ())


@primitive("fill", vjp={"x": _FILL_TENSOR["x"]}, jvp=lambda: None, batch={})
def _full_of(x: Any, /, value: Any) -> Any:
    return np.full_like(x, value)


def _fill_each(b: Any, x: Tensor, value: Tensor) -> Tensor:
    x = b.full(x, b.has("x"))
    return _full_of_tensor(x, value.reshape(b.size, *(1,) * (x._a.ndim - 1)) if b.has("value") else value)


@primitive("fill_tensor", node="FillBackward1", vjp=_FILL_TENSOR, jvp=lambda value_t: value_t, batch=_fill_each)
def _full_of_tensor(x: Any, value: Any, /) -> Any:
    out = np.empty_like(x)
    assign(out, value)
    return out


@public(method=False)
def fill(input: Tensor, value: Any) -> Tensor:
    """A tensor of the same shape and dtype with one value everywhere: a number, or the one element of a tensor."""
    if isinstance(value, Tensor):
        _one_element(value, "fill")
        return _full_of_tensor(input, value)
    return _full_of(input, as_number(value, input, "fill"))


@public(function=False, method=True)
def fill_diagonal_(self: Tensor, fill_value: Any, wrap: bool = False) -> Tensor:
    """Set the main diagonal to a number, in place; ``wrap``: again below it, in tall matrices.

    Raises RuntimeError for less than 2 dimensions, and for more than 2 unless all are equal.
    """
    a = self._viewable()
    if a.ndim < 2:
        raise error(RuntimeError, "dimensions must larger than 1")
    if a.ndim > 2 and len(set(a.shape)) > 1:
        raise error(RuntimeError, "all dimensions of input must be of equal length")
    if isinstance(fill_value, Tensor):
        fill_value = fill_value.item()
    value = as_number(fill_value, self, "fill_diagonal_")
    ip.check_writable(self)  # of the tensor itself, before a view of it is made
    if a.ndim > 2 and self.__class__ is Batched:
        self[(np.arange(a.shape[0]),) * a.ndim] = fill_value
        return self
    if a.ndim > 2:
        diagonal = self.as_strided((a.shape[0],), (sum(self.stride()),), self.storage_offset())
        diagonal.fill_(value)
        return self
    height, width = a.shape
    put_number(self.diagonal(), value, _fill_number)
    if wrap:
        for top in range(width + 1, height, width + 1):
            block = self.narrow(0, top, min(width, height - top))
            put_number(block.diagonal(), value, _fill_number)
    return self


# ---- random ---------------------------------------------------------------------------------------------------------
REQUIRED = object()


def _sampler(name: str, doc: str, defaults: dict[str, Any], sample: Callable[..., Primitive]) -> None:
    """Publish ``Tensor.name(*parameters, generator=None)``.

    ``sample(array, generator, *values)`` fills the array and returns the operator to record. The parameters are looked
    up by name, as one of them is called "from".
    """
    names, values_by_default = tuple(defaults), tuple(defaults.values())

    def fill_in_place(self: Tensor, *args: Any, generator: Any = None, **kwargs: Any) -> Tensor:
        if len(args) > len(names):
            raise error(TypeError, f"{name}() takes {len(names)} positional arguments but {len(args)} were given")
        values = [*args, *values_by_default[len(args) :]]
        for k, v in kwargs.items():
            if k not in names:
                raise error(TypeError, f"{name}() got an unexpected keyword argument '{k}'")
            values[names.index(k)] = v
        for k, v in zip(names, values):
            if v is REQUIRED:
                raise error(TypeError, f'{name}() missing 1 required positional arguments: "{k}"')
        m = mode()
        if m.__class__ is Modes and m.batch:
            return fill_batched(sample, self, m, generator_of(generator), values)
        ip.check_writable(self)
        was = ip.before(self) if self._rg else self
        op = draw(sample, self._viewable(), generator_of(generator), *values)
        others = (values[0],) if op is _bernoulli_of_tensor else ()
        return rewrite(op, self, was, others, ())

    fill_in_place.__name__ = fill_in_place.__qualname__ = name
    fill_in_place.__doc__ = doc
    setattr(Tensor, name, fill_in_place)


def fill_batched(sample: Callable[..., Primitive], t: Tensor, m: Modes, gen: Any, values: list[Any]) -> Tensor:
    """Fill a tensor inside vmap: each example by itself, or all alike."""
    levels = drawing_levels(m)
    if not all([batched_by(t, level) for level in levels]):
        if values and isinstance(values[0], Tensor) and any([batched_by(values[0], level) for level in levels]):
            raise too_small("inplace bernoulli")
        raise error(
            RuntimeError,
            "vmap: Cannot ask for different inplace randomness on an unbatched tensor. This will appear like same randomness. If this is "
            "necessary for your usage, please file an issue with functorch.",
        )
    shape = (*[level.size for level in levels], *t._a.shape)
    if values and isinstance(values[0], Tensor):  # probabilities
        (p,), _ = for_each(m, (values[0].expand(t._a.shape),))
        values = [p, *values[1:]]
    drawn = np.empty(shape, t._a.dtype)
    token = set_mode(False)
    try:
        draw(sample, drawn, gen, *values)
    finally:
        reset_mode(token)
    return t.copy_(lift(wrap(drawn), levels))


def _simple(name: str, node: str, doc: str, defaults: dict[str, Any], kernel: Callable[..., Any]) -> None:
    op = overwritten(name, node)

    def sample(a: np.ndarray, gen: Any, *values: Any) -> Primitive:
        kernel(a, *[float(v) for v in values], gen)
        return op

    _sampler(name, doc, defaults, sample)


# name, node, what it fills with, parameters and their defaults, kernel
for _row in (
    ("uniform_", "UniformBackward0", "uniform values of [from, to)", {"from": 0.0, "to": 1.0}, kernels.uniform_),
    ("normal_", "NormalBackward0", "normal values", {"mean": 0.0, "std": 1.0}, kernels.normal_),
    ("log_normal_", "LogNormalBackward0", "exp of normal values", {"mean": 1.0, "std": 2.0}, kernels.log_normal_),
    ("cauchy_", "CauchyBackward0", "Cauchy values", {"median": 0.0, "sigma": 1.0}, kernels.cauchy_),
    ("exponential_", "ExponentialBackward0", "exponential values", {"lambd": 1.0}, kernels.exponential_),
    ("geometric_", "GeometricBackward0", "numbers of trials up to a success", {"p": REQUIRED}, kernels.geometric_),
):
    _simple(_row[0], _row[1], f"Fill with {_row[2]}, in place.", _row[3], _row[4])

_RANDOM = [overwritten(f"random_{i}", f"RandomBackward{i}") for i in range(3)]


def _random(a: np.ndarray, gen: Any, low: Any, high: Any) -> Primitive:
    if low is None and high is not JUST_TO:
        low, high = high, JUST_TO
    if low is None:
        kernels.random_(a, gen)
        return _RANDOM[2]
    if high is JUST_TO:
        kernels.random_from_to_(a, 0, int(low), gen)
        return _RANDOM[1]
    kernels.random_from_to_(a, int(low), None if high is None else int(high), gen)
    return _RANDOM[0]


JUST_TO = object()  # random_(to) and random_(from, None) differ
_sampler(
    "random_",
    "Fill with integers, in place: of [from, to); ``random_(to)``: of [0, to); ``random_()``: whatever the dtype holds.",
    {"from": None, "to": JUST_TO},
    _random,
)

_bernoulli_of_number = overwritten("bernoulli_number_", "BernoulliBackward2")
_bernoulli_of_tensor = primitive(
    "bernoulli_tensor_",
    node="BernoulliBackward1",
    vjp={"x": _FILL_TENSOR["x"], "p": lambda g, p_shape, p_dtype: fit_dtype(no_slope(g, p_shape), p_dtype)},
    jvp=lambda: None,
)(lambda x, p, /: x)


def _bernoulli(a: np.ndarray, gen: Any, p: Any) -> Primitive:
    if isinstance(p, Tensor):
        kernels.bernoulli_each_(a, p.expand(a.shape)._a, gen)
        return _bernoulli_of_tensor
    kernels.bernoulli_(a, float(p), gen)
    return _bernoulli_of_number


_sampler(
    "bernoulli_",
    "Fill with ones, with probability ``p`` (a number or a tensor), and zeros, in place.",
    {"p": 0.5},
    _bernoulli,
)
