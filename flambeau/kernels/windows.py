"""Sliding windows over images: their geometry, views of them, and the sum back into an image.

Arrays here are channels-last, (N, *S, C).  A geometry is (kernel, stride, padding, dilation), each a tuple with one
entry a spatial dimension; the padding's entries are pairs (before, after).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import product

import numpy as np

#: Bytes of unfolded windows that the NumPy kernels make at a time.
CHUNK = 32 << 20


@lru_cache(4096)
def spread(value, rank: int) -> tuple[int, ...]:
    """An integer, or one integer a dimension, as a tuple of `rank` integers."""
    if isinstance(value, int):
        return (value,) * rank
    values = tuple(value)
    return values * rank if len(values) == 1 else values


@lru_cache(4096)
def spread_pairs(value, rank: int) -> tuple[tuple[int, int], ...]:
    """Padding as one pair (before, after) a dimension, from an integer, integers or pairs."""
    return tuple(tuple(p) if isinstance(p, tuple) else (p, p) for p in spread(value, rank))


def as_key(value):
    """A list of the user's as a tuple, so that it can be looked up."""
    return tuple(value) if isinstance(value, list) else value


def output_size(size: int, kernel: int, stride: int, padding: tuple[int, int], dilation: int,
                ceil: bool = False) -> int:
    """How many windows fit: floor((size + before + after - dilation (kernel - 1) - 1) / stride) + 1.

    With `ceil` the quotient is rounded up, but no window starts in the padding after the image.
    """
    room = size + sum(padding) - dilation * (kernel - 1) - 1
    if not ceil:
        return room // stride + 1
    count = -(-room // stride) + 1
    return count - 1 if (count - 1) * stride >= size + padding[0] else count


def channels_last(x: np.ndarray) -> np.ndarray:
    """The view (N, *S, C) of an array (N, C, *S)."""
    return np.moveaxis(x, 1, -1)


def channels_first(x: np.ndarray) -> np.ndarray:
    """The view (N, C, *S) of an array (N, *S, C)."""
    return np.moveaxis(x, -1, 1)


def pad(x: np.ndarray, padding, value=0) -> np.ndarray:
    """A channels-last image with padding (which may be negative: then it is cut) on its spatial sides."""
    if not any(before or after for before, after in padding):
        return x
    cut = tuple(slice(max(0, -before), n - max(0, -after))
                for n, (before, after) in zip(x.shape[1:-1], padding, strict=True))
    x = x[(slice(None), *cut)]
    grow = [(max(0, before), max(0, after)) for before, after in padding]
    inner = tuple(slice(before, before + n) for n, (before, _) in zip(x.shape[1:-1], grow, strict=True))
    result = np.full((x.shape[0], *(n + b + a for n, (b, a) in zip(x.shape[1:-1], grow, strict=True)),
                      x.shape[-1]), value, x.dtype)
    result[(slice(None), *inner)] = x
    return result


def windows(x: np.ndarray, out: tuple[int, ...], kernel, stride, dilation) -> np.ndarray:
    """The view (N, *out, *kernel, C) of a padded channels-last image: window by window, nothing copied."""
    spatial = x.strides[1:-1]
    return np.lib.stride_tricks.as_strided(
        x, (x.shape[0], *out, *kernel, x.shape[-1]),
        (x.strides[0], *(s * t for s, t in zip(spatial, stride, strict=True)),
         *(s * d for s, d in zip(spatial, dilation, strict=True)), x.strides[-1]), writeable=False)


def offsets(out: tuple[int, ...], kernel, stride, dilation) -> Iterator[tuple[tuple[int, ...], tuple]]:
    """For each position in the window: its index, and the slices of the padded image that it visits."""
    for index in product(*map(range, kernel)):
        yield index, tuple(slice(i * d, i * d + (n - 1) * s + 1, s)
                           for i, n, s, d in zip(index, out, stride, dilation, strict=True))


def batches(count: int, bytes_each: int) -> Iterator[slice]:
    """Slices of the batch small enough that their unfolded windows take about CHUNK bytes."""
    step = max(1, CHUNK // max(1, bytes_each))
    return (slice(start, min(start + step, count)) for start in range(0, count, step))
