"""Random tensors and the generator behind them: PyTorch's streams, seed for seed. And dropout."""

from __future__ import annotations

import contextlib
import math
import warnings
from typing import Any, Iterator

import numpy as np

from ..autograd.primitive import primitive
from ..core import dtypes
from ..core.device import check_device, device
from ..core.errors import error
from ..core.tensor import Tensor, wrap
from ..kernels import random as kernels
from ..kernels.mt19937 import MT
from .creation import _like, _out_dtype, _sized, made, new, np_type, size_of
from .public import FUNCTIONS, public, publish


class Generator:
    """A stream of random numbers with a state of its own.

    >>> import flambeau as torch
    >>> g = torch.Generator().manual_seed(0)
    >>> torch.rand(2, generator=g)
    tensor([0.4963, 0.7682])
    """

    def __init__(self, device: Any = "cpu") -> None:
        check_device(device)
        self._mt = MT()

    @property
    def device(self) -> device:
        return device("cpu")

    def manual_seed(self, seed: int) -> Generator:
        """Start the stream of a seed."""
        self._mt.manual_seed(int(seed))
        return self

    def seed(self) -> int:
        """Start a stream that nobody can foresee; returns its seed."""
        return self._mt.seed()

    def initial_seed(self) -> int:
        """The seed that the stream was started with."""
        return self._mt.initial_seed()

    def get_state(self) -> Tensor:
        """The state as a uint8 tensor."""
        return wrap(np.array(self._mt.get_state()))

    def set_state(self, new_state: Tensor) -> Generator:
        """Go on from a state that ``get_state`` gave, here or in PyTorch."""
        if not isinstance(new_state, Tensor) or new_state._a.dtype != np.uint8:
            raise error(TypeError, "expected a torch.ByteTensor, but got " + getattr(type(new_state), "__name__", "?"))
        self._mt.set_state(np.ascontiguousarray(new_state._a))
        return self

    def clone_state(self) -> Generator:
        """Another generator in the same state."""
        g = Generator()
        g._mt = self._mt.clone()
        return g

    graphsafe_get_state = clone_state

    def __reduce__(self) -> tuple[Any, ...]:
        return (_generator_from, (self.get_state(),))


def _generator_from(state: Tensor) -> Generator:
    return Generator().set_state(state)


default_generator = Generator()
publish("Generator", Generator)
publish("default_generator", default_generator)


def generator_of(g: Any) -> MT:
    if g is None:
        return default_generator._mt
    if not isinstance(g, Generator):
        raise error(TypeError, f"argument 'generator' must be torch.Generator, not {type(g).__name__}")
    return g._mt


@public(method=False)
def manual_seed(seed: Any) -> Generator:
    """Start the default generator's stream of a seed; returns the generator."""
    return default_generator.manual_seed(seed)


@public(method=False)
def seed() -> int:
    """Start a stream that nobody can foresee; returns its seed."""
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
    """Go on from a state of the default generator."""
    default_generator.set_state(new_state)


@contextlib.contextmanager
def fork_rng(
    devices: Any = None, enabled: bool = True, _caller: str = "fork_rng", _devices_kw: str = "devices", device_type: str = "cpu"
) -> Iterator[None]:
    """What is drawn inside leaves the default generator as it was."""
    if not enabled:
        yield
        return
    state = get_rng_state()
    try:
        yield
    finally:
        set_rng_state(state)


# ---- tensors of draws ----------------------------------------------------------------------------------------------------------------
def _floating(name: str, d: Any, o: dict[str, Any]) -> np.dtype:
    return np_type(name, d, _out_dtype(o))


@public(method=False)
def rand(*size: Any, generator: Any = None, dtype: Any = None, **options: Any) -> Tensor:
    """Uniform values of [0, 1)."""
    shape = _sized("rand", size, options)
    a = new("empty", shape, _floating("rand", dtype, options))
    kernels.uniform_(a, 0.0, 1.0, generator_of(generator))
    return made("rand", a, options)


@public(method=False)
def randn(*size: Any, generator: Any = None, dtype: Any = None, **options: Any) -> Tensor:
    """Normal values of mean 0 and variance 1."""
    shape = _sized("randn", size, options)
    a = new("empty", shape, _floating("randn", dtype, options))
    kernels.normal_(a, 0.0, 1.0, generator_of(generator))
    return made("randn", a, options)


def _bounds(name: str, args: tuple[Any, ...], options: dict[str, Any], least: int) -> tuple[int, int, list[Any]]:
    """(low, high, the arguments after them)."""
    rest = list(args)
    low, high = options.pop("low", None), options.pop("high", None)
    ints_given = [v for v in rest[:2] if isinstance(v, (int, np.integer)) or isinstance(v, Tensor) and not v._a.ndim]
    if high is None:
        if low is None and len(ints_given) == 2:
            low, high = rest[0], rest[1]
            rest = rest[2:]
        elif ints_given:
            high = rest.pop(0)
    if high is None:
        raise error(TypeError, f'{name}() missing 1 required positional arguments: "high"')
    return int(low or 0), int(high), rest


@public(method=False)
def randint(*args: Any, generator: Any = None, dtype: Any = None, **options: Any) -> Tensor:
    """Integers of [low, high): ``randint(high, size)`` or ``randint(low, high, size)``, int64 unless a dtype is given."""
    if len(args) == 2 and all(isinstance(v, int) for v in args) and "size" not in options:
        raise error(TypeError, "randint(): argument 'size' (position 2) must be tuple of ints, not int")
    low, high, rest = _bounds("randint", args, options, 1)
    shape = _sized("randint", tuple(rest), options)
    a = new("empty", shape, np_type("randint", dtype, _out_dtype(options) or dtypes.int64))
    kernels.random_from_to_(a, low, high, generator_of(generator))
    return made("randint", a, options)


@public(method=False)
def rand_like(input: Tensor, *, generator: Any = None, dtype: Any = None, memory_format: Any = None, **options: Any) -> Tensor:
    """Uniform values of [0, 1) in another tensor's shape and dtype."""
    a = _like("rand_like", input, dtype, memory_format, np.empty_like)
    kernels.uniform_(a, 0.0, 1.0, generator_of(generator))
    return made("rand_like", a, options)


@public(method=False)
def randn_like(input: Tensor, *, generator: Any = None, dtype: Any = None, memory_format: Any = None, **options: Any) -> Tensor:
    """Normal values in another tensor's shape and dtype."""
    a = _like("randn_like", input, dtype, memory_format, np.empty_like)
    kernels.normal_(a, 0.0, 1.0, generator_of(generator))
    return made("randn_like", a, options)


@public(method=False)
def randint_like(
    input: Tensor, *args: Any, generator: Any = None, dtype: Any = None, memory_format: Any = None, **options: Any
) -> Tensor:
    """Integers of [low, high) in another tensor's shape and dtype."""
    low, high, _ = _bounds("randint_like", args, options, 1)
    a = _like("randint_like", input, dtype, memory_format, np.empty_like)
    kernels.random_from_to_(a, low, high, generator_of(generator))
    return made("randint_like", a, options)


@public(method=False)
def randperm(n: int, *, generator: Any = None, dtype: Any = None, **options: Any) -> Tensor:
    """The integers from 0 to n - 1 in random order."""
    nt = np_type("randperm", dtype, _out_dtype(options) or dtypes.int64)
    return made("randperm", kernels.randperm(int(n), nt, generator_of(generator)), options)


def _no_slope(g: Tensor) -> Tensor:
    return wrap(np.zeros(g._a.shape, g._a.dtype))


def _drawn_from(name: str, node: str, draw: Any) -> Any:
    """Draws whose parameters are a tensor: recorded, with a slope of zero."""

    def kernel(x: Any, /, gen: Any) -> Any:
        return draw(x, gen)

    return primitive(name, node=node, vjp={"x": _no_slope})(kernel)


def _bernoulli_of(x: np.ndarray, gen: MT) -> np.ndarray:
    out = np.empty_like(x)
    kernels.bernoulli_each_(out, x, gen)
    return out


_bernoulli = _drawn_from("bernoulli", "BernoulliBackward0", _bernoulli_of)
_poisson = _drawn_from("poisson", "PoissonBackward0", kernels.poisson)
_gamma = _drawn_from("standard_gamma_sample", "StandardGammaBackward0", kernels.standard_gamma)


@public(out=True)
def bernoulli(input: Tensor, p: float | None = None, *, generator: Any = None) -> Tensor:
    """Ones with the probabilities in ``input`` (or ``p``), and zeros."""
    if p is None:
        return _bernoulli(input, generator_of(generator))
    a = np.empty_like(input._a)
    kernels.bernoulli_(a, float(p), generator_of(generator))
    return wrap(a)


@public(method=False)
def poisson(input: Tensor, generator: Any = None) -> Tensor:
    """Poisson counts with the rates in ``input``."""
    return _poisson(input, generator_of(generator))


@public(method=False)
def binomial(count: Tensor, prob: Tensor, generator: Any = None) -> Tensor:
    """Successes in ``count`` trials of probability ``prob``."""
    n, p = np.broadcast_arrays(count._a, prob._a)
    return wrap(kernels.binomial(n, p, generator_of(generator)))


@public(out=True)
def multinomial(input: Tensor, num_samples: int, replacement: bool = False, *, generator: Any = None) -> Tensor:
    """Indices drawn with the weights in each row of ``input``."""
    return wrap(kernels.multinomial(input._a, int(num_samples), replacement, generator_of(generator)))


@public(method=False)
def normal(mean: Any = 0.0, std: Any = 1.0, size: Any = None, *, generator: Any = None, dtype: Any = None, **options: Any) -> Tensor:
    """Normal values: of a number's mean and deviation in a ``size``, or of those in tensors."""
    gen = generator_of(generator)
    if isinstance(mean, Tensor) or isinstance(std, Tensor):
        m = mean._a if isinstance(mean, Tensor) else float(mean)
        s = std._a if isinstance(std, Tensor) else float(std)
        t = made("normal", kernels.normal(m, s, gen), options)
        return t
    if size is None:
        raise error(TypeError, 'normal() missing 1 required positional arguments: "size"')
    a = new("empty", size_of("normal", (size,)), np_type("normal", dtype))
    kernels.normal_(a, float(mean), float(std), gen)
    return made("normal", a, options)


# ---- dropout -------------------------------------------------------------------------------------------------------------------------
def _check_p(p: float) -> None:
    if p < 0.0 or p > 1.0:
        raise error(ValueError, f"dropout probability has to be between 0 and 1, but got {p}")


def noise_of(x: Tensor, shape: tuple[int, ...], p: float) -> np.ndarray:
    """Zeros, and with probability 1 - p, ones, in a tensor's dtype."""
    a = np.empty_like(x._a) if shape == x._a.shape else np.empty(shape, x._a.dtype)
    if shape == x._a.shape and not a.flags.c_contiguous:  # draws follow the order that a user sees
        c = np.empty(shape, a.dtype)
        kernels.bernoulli_(c, 1 - p, default_generator._mt)
        a[...] = c
    else:
        kernels.bernoulli_(a, 1 - p, default_generator._mt)
    return a


def _dropped(x: Tensor, p: float, training: bool, inplace: bool, per_channel: bool, alpha: bool) -> Tensor:
    _check_p(p)
    if not training or p == 0 or not x._a.size:
        return x
    shape = x._a.shape
    if p == 1:
        zero = wrap(np.zeros(shape, x._a.dtype))
        return x.mul_(zero) if inplace else x * zero  # type: ignore[attr-defined,operator]
    if per_channel:
        if len(shape) < 2:
            raise error(RuntimeError, "Feature dropout requires at least 2 dimensions in the input")
        shape = shape[:2] + (1,) * (len(shape) - 2)
    noise = noise_of(x, shape, p)
    kind = noise.dtype.type
    if not alpha:
        np.divide(noise, kind(1 - p), out=noise)
        mask = wrap(noise)
        return x.mul_(mask) if inplace else x * mask  # type: ignore[attr-defined,operator]
    slope = 1.7580993408473766
    a = 1.0 / math.sqrt((slope * slope * p + 1) * (1 - p))
    shift = wrap((noise - kind(1)) * kind(slope * a) + kind(slope * a * p))
    mask = wrap(noise * kind(a))
    if inplace:
        return x.mul_(mask).add_(shift)  # type: ignore[attr-defined]
    return x * mask + shift  # type: ignore[operator]


@public(module="nn.functional")
def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Each element zero with probability ``p``, else divided by ``1 - p``, so that the mean stays."""
    return _dropped(input, p, training, inplace, False, False)


@public(module="nn.functional")
def alpha_dropout(input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False) -> Tensor:
    """Dropout that keeps mean and variance of what SELU gives."""
    return _dropped(input, p, training, inplace, False, True)


@public(module="nn.functional")
def feature_alpha_dropout(input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False) -> Tensor:
    """``alpha_dropout`` of whole channels."""
    return _dropped(input, p, training, inplace, True, True)


@public(module="nn.functional")
def dropout1d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Dropout of whole channels: (C, L) or (N, C, L)."""
    _check_p(p)
    n = input._a.ndim
    if n not in (2, 3):
        raise error(
            RuntimeError,
            f"dropout1d: Expected 2D or 3D input, but received a {n}D input. Note that dropout1d exists to provide channel-wise "
            "dropout on inputs with 1 spatial dimension, a channel dimension, and an optional batch dimension (i.e. 2D or 3D "
            "inputs).",
        )
    return _unbatched(input, n == 2, p, training, inplace)


def _unbatched(x: Tensor, single: bool, p: float, training: bool, inplace: bool) -> Tensor:
    if not single:
        return _dropped(x, p, training, inplace, True, False)
    if inplace:
        _dropped(x.unsqueeze(0), p, training, True, True, False)  # type: ignore[attr-defined]
        return x
    return _dropped(x.unsqueeze(0), p, training, False, True, False).squeeze(0)  # type: ignore[attr-defined]


@public(module="nn.functional")
def dropout2d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Dropout of whole channels: (N, C, H, W)."""
    _check_p(p)
    n = input._a.ndim
    if n not in (3, 4):
        warnings.warn(
            f"dropout2d: Received a {n}-D input to dropout2d, which is deprecated and will result in an error in a future release. "
            "To retain the behavior and silence this warning, please use dropout instead. Note that dropout2d exists to provide "
            "channel-wise dropout on inputs with 2 spatial dimensions, a channel dimension, and an optional batch dimension "
            "(i.e. 3D or 4D inputs).",
            UserWarning,
            stacklevel=2,
        )
    if n == 3:
        warnings.warn(
            "dropout2d: Received a 3D input to dropout2d and assuming that channel-wise 1D dropout behavior is desired - input is "
            "interpreted as shape (N, C, L), where C is the channel dim. This behavior will change in a future release to "
            "interpret the input as one without a batch dimension, i.e. shape (C, H, W). To maintain the 1D channel-wise dropout "
            "behavior, please switch to using dropout1d instead.",
            UserWarning,
            stacklevel=2,
        )
    return _dropped(input, p, training, inplace, True, False)


@public(module="nn.functional")
def dropout3d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Dropout of whole channels: (C, D, H, W) or (N, C, D, H, W)."""
    _check_p(p)
    n = input._a.ndim
    if n not in (4, 5):
        warnings.warn(
            f"dropout3d: Received a {n}-D input to dropout3d, which is deprecated and will result in an error in a future release. "
            "To retain the behavior and silence this warning, please use dropout instead. Note that dropout3d exists to provide "
            "channel-wise dropout on inputs with 3 spatial dimensions, a channel dimension, and an optional batch dimension "
            "(i.e. 4D or 5D inputs).",
            UserWarning,
            stacklevel=2,
        )
    return _unbatched(input, n == 4, p, training, inplace)


for _name in ("dropout", "alpha_dropout", "feature_alpha_dropout"):
    def _top_level(input: Tensor, p: float, train: bool, _f: Any = FUNCTIONS["nn.functional"][_name]) -> Tensor:
        return _f(input, p, train)

    def _top_level_(input: Tensor, p: float, train: bool, _f: Any = FUNCTIONS["nn.functional"][_name]) -> Tensor:
        return _f(input, p, train, True)

    publish(_name, _top_level)
    publish(_name + "_", _top_level_)

