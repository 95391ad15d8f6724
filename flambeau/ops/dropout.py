"""Dropout in its forms: a product with a random mask, drawn as PyTorch draws it.

    y = x * mask / (1 - p),    mask = 1 with probability 1 - p, else 0

The mask is drawn once, scaled, and is what the graph keeps. Nothing happens (the input itself comes back) in
evaluation, where p is 0, and for empty inputs.
"""

from __future__ import annotations

import math
import warnings

import numpy as np

from ..autograd.transforms.batched import Level, lift
from ..core.dtypes import FLOAT, SCALAR_NAMES
from ..core.errors import error
from ..core.modes import Modes, mode
from ..core.tensor import Tensor, is_private_layout, wrap
from ..kernels.random import bernoulli_
from .public import public, publish
from .random import default_generator, draw, drawing_levels

SELU_LIMIT = 1.7580993408473766  # minus the value that SELU tends to: what alpha dropout drops to


def mask_of(x: Tensor, per_channel: bool, keep: float) -> np.ndarray:
    """Ones, each with probability ``keep``, and zeros: for every element, or for every channel of every sample."""
    a = x._a
    gen = default_generator._mt
    if per_channel:
        if a.ndim < 2:
            raise error(RuntimeError, "Feature dropout requires at least 2 dimensions in the input")
        mask = np.empty(a.shape[:2] + (1,) * (a.ndim - 2), a.dtype)
    elif is_private_layout(x):  # the user sees C order, so the draws follow that; the product is quicker in x's own
        drawn = np.empty(a.shape, a.dtype)
        draw(bernoulli_, drawn, keep, gen)
        mask = np.empty_like(a)
        mask[...] = drawn
        return mask
    else:
        mask = np.empty_like(a)
    draw(bernoulli_, mask, keep, gen)
    return mask


def mask_for_each(x: Tensor, levels: tuple[Level, ...], per_channel: bool, keep: float) -> np.ndarray:
    """``mask_of`` for each example of the vmaps ``levels``."""
    shape = x._a.shape
    if per_channel:
        if len(shape) < 2:
            raise error(RuntimeError, "Feature dropout requires at least 2 dimensions in the input")
        shape = shape[:2] + (1,) * (len(shape) - 2)
    mask = np.empty((*[level.size for level in levels], *shape), x._a.dtype)
    draw(bernoulli_, mask, keep, default_generator._mt)
    return mask


def drop(x: Tensor, p: float, training: bool, inplace: bool, per_channel: bool, alpha: bool) -> Tensor:
    """Every form of dropout but what concerns dimensions."""
    if not 0.0 <= p <= 1.0:
        raise error(RuntimeError, f"dropout probability has to be between 0 and 1, but got {p:g}")
    a = x._a
    if not training or p == 0 or not a.size:
        return x
    if p == 1:
        zero = wrap(np.zeros((), np.float32))
        return x.mul_(zero) if inplace else x * zero
    if x.dtype.category < FLOAT:
        raise error(RuntimeError, f"result type Float can't be cast to the desired output type {SCALAR_NAMES[x.dtype]}")
    m = mode()
    levels = drawing_levels(m) if m.__class__ is Modes and m.batch else None
    mask = mask_of(x, per_channel, 1 - p) if levels is None else mask_for_each(x, levels, per_channel, 1 - p)
    work = np.float64 if a.dtype == np.float64 else np.float32
    if not alpha:
        mask *= (work(1) / work(1 - p)).astype(a.dtype)
        scale = lift(wrap(mask), levels or ())
        return x.mul_(scale) if inplace else x * scale
    # The dropped become -SELU_LIMIT; then all are scaled and shifted so that mean and variance stay 0 and 1.
    gain = 1.0 / math.sqrt((SELU_LIMIT * SELU_LIMIT * p + 1) * (1 - p))
    offset = ((mask - 1) * work(SELU_LIMIT * gain)).astype(a.dtype) + work(SELU_LIMIT * gain * p)
    mask *= np.asarray(gain, work).astype(a.dtype)
    scale, shift = [lift(wrap(v), levels or ()) for v in (mask, offset.astype(a.dtype, copy=False))]
    if inplace:
        return x.mul_(scale).add_(shift)
    return x * scale + shift


def _check(p: float) -> None:
    if p < 0.0 or p > 1.0:
        raise error(ValueError, f"dropout probability has to be between 0 and 1, but got {p}")


@public(module="nn.functional", method=False)
def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Each element becomes zero with probability ``p``; the others are divided by ``1 - p``, so that the mean stays.

    >>> import flambeau as torch
    >>> _ = torch.manual_seed(0)
    >>> torch.nn.functional.dropout(torch.ones(4))
    tensor([0., 0., 2., 0.])
    """
    _check(p)
    return drop(input, p, training, inplace, False, False)


@public(module="nn.functional", method=False)
def alpha_dropout(input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False) -> Tensor:
    """Dropout to SELU's limit, scaled and shifted so that mean 0 and variance 1 stay what they are."""
    _check(p)
    return drop(input, p, training, inplace, False, True)


@public(module="nn.functional", method=False)
def feature_alpha_dropout(input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False) -> Tensor:
    """``alpha_dropout`` of whole channels: the first two dimensions are (N, C)."""
    _check(p)
    return drop(input, p, training, inplace, True, True)


@public(module="nn.functional", method=False)
def dropout1d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Dropout of whole channels of (C, L) or (N, C, L)."""
    _check(p)
    n = input._a.ndim
    if n not in (2, 3):
        raise error(
            RuntimeError,
            f"dropout1d: Expected 2D or 3D input, but received a {n}D input. Note that dropout1d exists to provide "
            "channel-wise dropout on inputs with 1 spatial dimension, a channel dimension, and an optional batch "
            "dimension (i.e. 2D or 3D inputs).",
        )
    return _batched(input, n == 3, p, training, inplace)


@public(module="nn.functional", method=False)
def dropout2d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Dropout of whole channels of (N, C, H, W)."""
    _check(p)
    n = input._a.ndim
    if n not in (3, 4):
        _warn_dimensions("dropout2d", n, 2, "3D or 4D")
    if n == 3:
        warnings.warn(
            "dropout2d: Received a 3D input to dropout2d and assuming that channel-wise 1D dropout behavior is desired - "
            "input is interpreted as shape (N, C, L), where C is the channel dim. This behavior will change in a future "
            "release to interpret the input as one without a batch dimension, i.e. shape (C, H, W). To maintain the 1D "
            "channel-wise dropout behavior, please switch to using dropout1d instead.",
            UserWarning,
            stacklevel=2,
        )
    return drop(input, p, training, inplace, True, False)


@public(module="nn.functional", method=False)
def dropout3d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Dropout of whole channels of (C, D, H, W) or (N, C, D, H, W)."""
    _check(p)
    n = input._a.ndim
    if n not in (4, 5):
        _warn_dimensions("dropout3d", n, 3, "4D or 5D")
    return _batched(input, n == 5, p, training, inplace)


def _warn_dimensions(name: str, n: int, spatial: int, wanted: str) -> None:
    warnings.warn(
        f"{name}: Received a {n}-D input to {name}, which is deprecated and will result in an error in a future release. "
        "To retain the behavior and silence this warning, please use dropout instead. Note that "
        f"{name} exists to provide channel-wise dropout on inputs with {spatial} spatial dimensions, a channel dimension, "
        f"and an optional batch dimension (i.e. {wanted} inputs).",
        UserWarning,
        stacklevel=3,
    )


def _batched(x: Tensor, batched: bool, p: float, training: bool, inplace: bool) -> Tensor:
    if batched or not training or p == 0:
        return drop(x, p, training, inplace, True, False)
    y = drop(x.unsqueeze(0), p, True, inplace, True, False)
    return x if inplace else y.squeeze(0)


def _publish(name: str, per_channel: bool, alpha: bool) -> None:
    """``torch.name(input, p, train)`` and its in-place form."""
    for inplace in (False, True):

        def f(input: Tensor, p: float, train: bool, _inplace: bool = inplace) -> Tensor:
            return drop(input, p, train, _inplace, per_channel, alpha)

        f.__name__ = f.__qualname__ = name + "_" * inplace
        f.__doc__ = (
            f"``nn.functional.{name}`` with every argument given" + ", in place." * inplace + "." * (not inplace)
        )
        publish(f.__name__, f)


_publish("dropout", False, False)
_publish("alpha_dropout", False, True)
_publish("feature_dropout", True, False)
_publish("feature_alpha_dropout", True, True)
