"""Random tensors and the generator behind them: PyTorch's streams, seed for seed.

The in-place samplers (``uniform_`` and its kin) are in ``fill``, dropout is in ``dropout``.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from ..autograd.pointwise import broadcast_error
from ..autograd.primitive import Primitive, primitive
from ..autograd.transforms.batched import Batched, Level, lift, lower
from ..core import dtypes
from ..core.device import CPU, check_device, device
from ..core.dtypes import FLOAT, SCALAR_NAMES, dtype
from ..core.errors import error
from ..core.modes import Modes, mode, reset_mode, set_mode
from ..core.tensor import Tensor, wrap
from ..kernels import random as kernels
from ..kernels.gamma_grad import gamma_grad
from ..kernels.mt19937 import MT, default
from .creation import _like, _out_dtype, _sized, made, new, np_type, size_of
from .public import public, publish, write_out


# ---- inside vmap ------------------------------------------------------------------------------------------------------
def drawing_levels(m: Modes) -> tuple[Level, ...]:
    """The running vmaps whose examples draw numbers of their own, outermost first; RuntimeError if one forbids drawing."""
    if any([level.randomness == "error" for level in m.batch]):
        raise error(
            RuntimeError,
            "vmap: called random operation while in randomness error mode. Please either use the 'same' or 'different' randomness flags "
            "on vmap or perform the randomness operation out of vmap",
        )
    return tuple([level for level in m.batch if level.randomness == "different"])


def filled(name: str, shape: tuple[int, ...], nt: np.dtype, options: dict[str, Any], kernel: Callable[..., Any], *args: Any) -> Tensor:
    """A new tensor that ``kernel(array, *args)`` filled; inside vmap one for each example where its randomness is "different"."""
    m = mode()
    if m.__class__ is not Modes or not m.batch:
        a = new("empty", shape, nt)
        draw(kernel, a, *args)
        return made(name, a, options)
    levels = drawing_levels(m)
    a = new("empty", (*[level.size for level in levels], *shape), nt)
    draw(kernel, a, *args)
    return lift(made(name, a, options), levels)


def sampled(op: Primitive, tensors: tuple[Tensor, ...], *args: Any) -> Tensor:
    """``op(*tensors, *args)`` for a sampler whose tensors broadcast; inside vmap, for each example where it must."""
    m = mode()
    if m.__class__ is not Modes or not m.batch:
        return draw(op, *tensors, *args)
    values, levels = for_each(m, tensors)
    token = set_mode(m.replace(batch=()))
    try:
        return lift(draw(op, *values, *args), levels)
    finally:
        reset_mode(token)


def for_each(m: Modes, tensors: tuple[Tensor, ...]) -> tuple[list[Tensor], tuple[Level, ...]]:
    """The tensors, lined up, without vmap: a value for each example of the levels whose randomness is "different"."""
    levels = drawing_levels(m)
    if any([level.randomness == "same" and batched_by(t, level) for level in m.batch for t in tensors]):
        raise error(
            RuntimeError,
            "Vmap does not currently support same randomness with a batched tensor input. Please file an issue with functorch",
            hint='randomness="different" draws for each example.',
        )
    n = max([t._a.ndim for t in tensors])
    aligned = [t if t._a.ndim == n else t.reshape((1,) * (n - t._a.ndim) + tuple(t._a.shape)) for t in tensors]
    return [lower(t, levels) for t in aligned], levels


def batched_by(t: Any, level: Level) -> bool:
    while t.__class__ is Batched:
        if t._level is level:
            return True
        t = t._value
    return False


def draw(kernel: Callable[..., Any], *args: Any) -> Any:
    """Run a sampler; what it refuses, it refuses in PyTorch's words, to which the user's line is added."""
    try:
        return kernel(*args)
    except MemoryError:
        raise
    except (RuntimeError, TypeError, ValueError) as e:
        raise error(type(e), str(e)) from None


# ---- the generator --------------------------------------------------------------------------------------------------
class Generator:
    """A stream of random numbers with a state of its own: MT19937, bit for bit PyTorch's on the CPU.

    >>> import flambeau as torch
    >>> g = torch.Generator().manual_seed(0)
    >>> torch.rand(2, generator=g)
    tensor([0.4963, 0.7682])
    """

    __slots__ = ("_mt", "__weakref__")

    def __init__(self, device: Any = "cpu") -> None:
        check_device(device)
        self._mt = MT()

    @property
    def device(self) -> device:
        """The CPU."""
        return CPU

    def manual_seed(self, seed: int) -> Generator:
        """Start the stream of a seed: an int of 64 bits, signed or unsigned."""
        draw(self._mt.manual_seed, seed)
        return self

    def seed(self) -> int:
        """Start a stream that nobody can foresee; returns its seed."""
        return self._mt.seed()

    def initial_seed(self) -> int:
        """The seed that the stream was started with."""
        return self._mt.initial_seed()

    def get_state(self) -> Tensor:
        """The state, 5056 bytes as a uint8 tensor: PyTorch's generator can go on from it."""
        return wrap(self._mt.get_state())

    def set_state(self, new_state: Tensor) -> Generator:
        """Go on from a state that ``get_state`` gave, here or in PyTorch."""
        if not isinstance(new_state, Tensor):
            raise error(TypeError, f"expected a torch.ByteTensor, but got {type(new_state).__name__}")
        draw(self._mt.set_state, new_state._a)
        return self

    def clone_state(self) -> Generator:
        """Another generator in the same state."""
        g = Generator()
        g._mt = self._mt.clone()
        return g

    def __reduce__(self) -> tuple[Any, ...]:
        return (_restored, (self.get_state(),))


def _restored(state: Tensor) -> Generator:
    return Generator().set_state(state)


default_generator = Generator()
default_generator._mt = default
publish("Generator", Generator)
publish("default_generator", default_generator)


def generator_of(g: Any) -> MT:
    """The bit generator behind an argument ``generator``; None: the default one."""
    if g is None:
        return default
    if g.__class__ is not Generator and not isinstance(g, Generator):
        raise error(TypeError, f"argument 'generator' must be torch.Generator, not {type(g).__name__}")
    return g._mt


@public(method=False)
def manual_seed(seed: Any) -> Generator:
    """Start the default generator's stream of a seed; returns the generator.

    >>> import flambeau as torch
    >>> _ = torch.manual_seed(0)
    >>> torch.randint(10, (3,))
    tensor([4, 9, 3])
    """
    return default_generator.manual_seed(seed)


@public(method=False)
def seed() -> int:
    """Start a stream that nobody can foresee on the default generator; returns its seed."""
    return default_generator.seed()


@public(method=False)
def initial_seed() -> int:
    """The seed of the default generator's stream."""
    return default_generator.initial_seed()


@public(method=False)
def get_rng_state() -> Tensor:
    """The default generator's state as a uint8 tensor."""
    return default_generator.get_state()


@public(method=False)
def set_rng_state(new_state: Tensor) -> None:
    """Make the default generator go on from a state."""
    default_generator.set_state(new_state)


# ---- tensors of draws -----------------------------------------------------------------------------------------------
def _uniform(a: np.ndarray, gen: MT) -> None:
    kernels.uniform_(a, 0.0, 1.0, gen)


def _normal(a: np.ndarray, gen: MT) -> None:
    kernels.normal_(a, 0.0, 1.0, gen)


def _type(name: str, d: Any, options: dict[str, Any], default: dtype | None = None) -> np.dtype:
    """The dtype asked for, that of ``out``, or the default."""
    given = _out_dtype(options)
    nt = np_type(name, d, given or default)
    if given is not None and nt != given.np:
        raise error(
            RuntimeError,
            f"dtype {SCALAR_NAMES[dtypes.FROM_NP[nt]]} does not match dtype of out parameter ({SCALAR_NAMES[given]})",
        )
    return nt


@public(method=False)
def rand(*size: Any, generator: Any = None, dtype: Any = None, **options: Any) -> Tensor:
    """Uniform values of [0, 1).

    >>> import flambeau as torch
    >>> torch.rand(2, 3).shape
    torch.Size([2, 3])
    """
    return filled("rand", _sized("rand", size, options), _type("rand", dtype, options), options, _uniform, generator_of(generator))


@public(method=False)
def randn(*size: Any, generator: Any = None, dtype: Any = None, **options: Any) -> Tensor:
    """Normal values of mean 0 and variance 1 (complex ones: of both parts together)."""
    return filled("randn", _sized("randn", size, options), _type("randn", dtype, options), options, _normal, generator_of(generator))


def _bound(name: str, argument: str, position: int, value: Any) -> int:
    try:
        n = operator.index(value)
    except TypeError:
        raise error(
            TypeError, f"{name}(): argument '{argument}' (position {position}) must be int, not {type(value).__name__}"
        ) from None
    if not -(1 << 63) <= n < 1 << 63:
        raise error(ValueError, "Overflow when unpacking long long")
    return n


def _is_number(x: Any) -> bool:
    return isinstance(x, (int, float, np.number)) or isinstance(x, Tensor) and not x._a.ndim


def _bounds(name: str, args: list[Any], options: dict[str, Any], first: int = 1) -> tuple[int, int]:
    """low and high, taken off the arguments: ``(high)``, ``(low, high)`` or either by name."""
    low, high = options.pop("low", None), options.pop("high", None)
    numbers = [args.pop(0) for _ in range(2) if args and _is_number(args[0]) and (low is None or high is None)]
    if high is None and numbers:
        high = numbers.pop()
    if low is None and numbers:
        low = numbers.pop(0)
    if high is None:
        raise error(TypeError, f'{name}() missing 1 required positional arguments: "high"')
    if low is None:
        return 0, _bound(name, "high", first, high)
    return _bound(name, "low", first, low), _bound(name, "high", first + 1, high)


@public(method=False)
def randint(*args: Any, generator: Any = None, dtype: Any = None, **options: Any) -> Tensor:
    """Integers of [low, high): ``randint(high, size)`` or ``randint(low, high, size)``; int64 unless told otherwise."""
    rest = list(args)
    if len(rest) == 2 and "size" not in options and "high" not in options and _is_number(rest[1]):
        raise error(
            TypeError, f"randint(): argument 'size' (position 2) must be tuple of ints, not {type(rest[1]).__name__}"
        )
    low, high = _bounds("randint", rest, options)
    shape = _sized("randint", tuple(rest), options)
    nt = _type("randint", dtype, options, dtypes.int64)
    return filled("randint", shape, nt, options, kernels.random_from_to_, low, high, generator_of(generator))


@public(method=False)
def randperm(n: int, *, generator: Any = None, dtype: Any = None, **options: Any) -> Tensor:
    """The integers from 0 to ``n - 1`` in random order."""
    nt = _type("randperm", dtype, options, dtypes.int64)
    n, gen, m = _bound("randperm", "n", 1, n), generator_of(generator), mode()
    if m.__class__ is not Modes or not m.batch:
        return made("randperm", draw(kernels.randperm, n, nt, gen), options)
    levels = drawing_levels(m)
    sizes = [level.size for level in levels]
    orders = np.empty((math.prod(sizes), n), nt)
    for i in range(len(orders)):
        orders[i] = draw(kernels.randperm, n, nt, gen)
    return lift(made("randperm", orders.reshape(*sizes, n), options), levels)


def _filled_like(
    name: str, input: Any, dtype: Any, memory_format: Any, options: dict[str, Any], kernel: Callable[..., Any], *args: Any
) -> Tensor:
    m = mode()
    if m.__class__ is Modes and m.batch and isinstance(input, Tensor):
        nt = input._a.dtype if dtype is None else np_type(name, dtype)
        return filled(name, input._a.shape, nt, options, kernel, *args)
    if isinstance(input, Tensor):
        input._viewable()
    a = _like(name, input, dtype, memory_format, np.empty_like)
    draw(kernel, a, *args)
    return made(name, a, options)


@public(method=False)
def rand_like(
    input: Tensor, *, generator: Any = None, dtype: Any = None, memory_format: Any = None, **options: Any
) -> Tensor:
    """Uniform values of [0, 1) in another tensor's shape and dtype."""
    return _filled_like("rand_like", input, dtype, memory_format, options, _uniform, generator_of(generator))


@public(method=False)
def randn_like(
    input: Tensor, *, generator: Any = None, dtype: Any = None, memory_format: Any = None, **options: Any
) -> Tensor:
    """Normal values in another tensor's shape and dtype."""
    return _filled_like("randn_like", input, dtype, memory_format, options, _normal, generator_of(generator))


@public(method=False)
def randint_like(
    input: Tensor, *args: Any, generator: Any = None, dtype: Any = None, memory_format: Any = None, **options: Any
) -> Tensor:
    """Integers of [low, high) in another tensor's shape and dtype: ``randint_like(x, high)``, ``(x, low, high)``."""
    low, high = _bounds("randint_like", list(args), options, 2)
    gen = generator_of(generator)
    return _filled_like("randint_like", input, dtype, memory_format, options, kernels.random_from_to_, low, high, gen)


# ---- draws whose parameters are tensors -----------------------------------------------------------------------------
def no_slope(g: Tensor, shape: Any) -> Tensor:
    """The gradient of a parameter that draws don't follow: zero."""
    return wrap(np.zeros(shape, g._a.dtype))


def no_tangent(out: Tensor) -> Tensor:
    """The tangent of draws: zero. (Without a rule it would be had by drawing again.)"""
    return wrap(np.zeros(out._a.shape, out._a.dtype))


def _refused(name: str) -> Callable[[Tensor], Tensor]:
    def rule(g: Tensor) -> Tensor:
        raise error(NotImplementedError, f"the derivative for '{name}' is not implemented.")

    return rule


@primitive("bernoulli", vjp={"p": lambda g, p_shape: no_slope(g, p_shape)}, jvp=no_tangent)
def _bernoulli(p: Any, /, gen: Any) -> Any:
    out = np.empty(p.shape, p.dtype)
    kernels.bernoulli_each_(out, p, gen)
    return out


@primitive("bernoulli_p", node="NotImplemented", vjp={"x": _refused("bernoulli")})
def _bernoulli_p(x: Any, /, p: Any, gen: Any) -> Any:
    out = np.empty(x.shape, x.dtype)
    kernels.bernoulli_(out, p, gen)
    return out


@public(out=True)
def bernoulli(input: Tensor, p: float | None = None, *, generator: Any = None) -> Tensor:
    """Ones with the probabilities in ``input`` (or ``p``, of its shape), and zeros.

    Raises RuntimeError for probabilities outside [0, 1].
    """
    gen = generator_of(generator)
    return sampled(_bernoulli, (input,), gen) if p is None else sampled(_bernoulli_p, (input,), float(p), gen)


@primitive("poisson", vjp={"rate": lambda g, rate_shape: no_slope(g, rate_shape)}, jvp=no_tangent)
def _poisson(rate: Any, /, gen: Any) -> Any:
    return kernels.poisson(rate, gen)


@public(method=False)
def poisson(input: Tensor, generator: Any = None) -> Tensor:
    """Poisson counts with the rates in ``input``, in its dtype."""
    return sampled(_poisson, (input,), generator_of(generator))


@primitive("binomial", node="NotImplemented", vjp=lambda g: _refused("binomial")(g))
def _binomial(count: Any, prob: Any, /, gen: Any) -> Any:
    n, p = np.broadcast_arrays(count, prob)
    return kernels.binomial(n, p, gen)


@public(method=False)
def binomial(count: Tensor, prob: Tensor, generator: Any = None) -> Tensor:
    """Successes in ``count`` trials of probability ``prob``, broadcast; floating tensors."""
    for t, name in ((count, "count"), (prob, "prob")):
        if t.dtype.category != FLOAT:
            raise error(
                ValueError, f"binomial only supports floating-point dtypes for {name}, got: {SCALAR_NAMES[t.dtype]}"
            )
    _check_broadcast(count, prob)
    return sampled(_binomial, (count, prob), generator_of(generator))


def _check_broadcast(a: Tensor, b: Tensor) -> None:
    try:
        np.broadcast_shapes(a._a.shape, b._a.shape)
    except ValueError as e:
        raise broadcast_error([a._a, b._a], e) from None


@public(out=True)
def multinomial(input: Tensor, num_samples: int, replacement: bool = False, *, generator: Any = None) -> Tensor:
    """Indices drawn with the weights in each row of ``input``: (categories,) or (rows, categories) -> (..., num_samples).

    >>> import flambeau as torch
    >>> torch.multinomial(torch.tensor([0.0, 1.0]), 3, replacement=True)
    tensor([1, 1, 1])
    """
    n = _bound("multinomial", "num_samples", 2, num_samples)
    gen, m = generator_of(generator), mode()
    if m.__class__ is not Modes or not m.batch:
        return wrap(draw(kernels.multinomial, input._a, n, replacement, gen))
    (x,), levels = for_each(m, (input,))
    rows = x._a if input._a.ndim > 2 or not levels else x._a.reshape(-1, *x._a.shape[-1:])
    drawn = draw(kernels.multinomial, rows, n, replacement, gen)
    return lift(wrap(drawn.reshape(*x._a.shape[:-1], n)), levels)


def _standard_gamma_grad_rule(g: Tensor, alpha: Tensor, out: Tensor) -> Tensor:
    return g * _standard_gamma_grad(alpha, out)


@primitive(
    "_standard_gamma", node="StandardGammaBackward0", vjp={"alpha": _standard_gamma_grad_rule},
    jvp=lambda alpha_t, alpha, out: alpha_t * _standard_gamma_grad(alpha, out),
)
def _gamma(alpha: Any, /, gen: Any) -> Any:
    return kernels.standard_gamma(alpha, gen)


@primitive(
    "_standard_gamma_grad", node="NotImplemented", vjp=lambda g: _refused("_standard_gamma_grad")(g),
    batch=lambda b, alpha, sample: _gamma_grad(*b.aligned(alpha=alpha, sample=sample)),
)
def _gamma_grad(alpha: Any, sample: Any, /) -> Any:
    return gamma_grad(alpha, sample)


@public(method=False)
def _standard_gamma(input: Tensor, generator: Any = None) -> Tensor:
    """Gamma values of scale 1 with the shape parameters in ``input``; they follow it, so gradients flow."""
    return sampled(_gamma, (input,), generator_of(generator))


@public(method=False)
def _standard_gamma_grad(input: Tensor, output: Tensor) -> Tensor:
    """How ``_standard_gamma``'s samples ``output`` move with their shape parameters."""
    return _gamma_grad(input, output)


publish("standard_gamma", _standard_gamma)


@primitive("normal_of_mean", node="NormalBackward1", vjp={"mean": lambda g, mean_shape: no_slope(g, mean_shape)}, jvp=no_tangent)
def _normal_mean(mean: Any, /, std: Any, gen: Any) -> Any:
    return kernels.normal(mean, std, gen)


@primitive("normal_of_std", node="NormalBackward2", vjp={"std": lambda g, std_shape: no_slope(g, std_shape)}, jvp=no_tangent)
def _normal_std(std: Any, /, mean: Any, gen: Any) -> Any:
    return kernels.normal(mean, std, gen)


@primitive(
    "normal_of_both",
    node="NormalBackward3",
    vjp={
        "mean": lambda g, mean_shape: no_slope(g, mean_shape),
        "std": lambda g, std_shape: no_slope(g, std_shape),
    },
    jvp=no_tangent,
)
def _normal_both(mean: Any, std: Any, /, gen: Any) -> Any:
    return kernels.normal(mean, std, gen)


@public(method=False)
def normal(
    mean: Any = 0.0, std: Any = 1.0, size: Any = None, *, generator: Any = None, out: Any = None, **options: Any
) -> Tensor:
    """Normal values: with means and deviations from tensors, or from numbers and then of a ``size``."""
    gen = generator_of(generator)
    by_mean, by_std = isinstance(mean, Tensor), isinstance(std, Tensor)
    if not by_mean and not by_std:
        if size is None:
            raise error(TypeError, 'normal() missing 1 required positional arguments: "size"')
        if out is not None:
            options["out"] = out
        nt = _type("normal", options.pop("dtype", None), options)
        return filled("normal", size_of("normal", (size,)), nt, options, kernels.normal_, float(mean), float(std), gen)
    if options or size is not None:
        extra = next(iter(options), "size")
        raise error(TypeError, f"normal() got an unexpected keyword argument '{extra}' beside tensors")
    if by_mean and by_std:
        _check_broadcast(mean, std)
        t = sampled(_normal_both, (mean, std), gen)
    else:
        t = sampled(_normal_mean, (mean,), float(std), gen) if by_mean else sampled(_normal_std, (std,), float(mean), gen)
    if out is None:
        return t
    write_out("normal", out, t)
    return out
