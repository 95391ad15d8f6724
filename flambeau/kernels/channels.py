"""Pointwise work on images that lie channels-last, with numbers of their own for each channel.

Such an image is one long row of memory in which the channels' numbers come round again and again. They are laid out
as a few whole vectors (`lanes` of them hold every channel the same number of times), which stay in the first cache,
and one loop walks over the image and around these. Sums for each channel add up blocks that fit the first cache, in
the dtype of the image, and blocks in float64; what belongs to a unit of work never depends on the number of threads.
"""

from __future__ import annotations

import ctypes
import math
import struct
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np

from flambeau.kernels import backend, memory, threads
from flambeau.kernels import expr as E
from flambeau.kernels.expr import Expr

#: Vectors that a thread takes at a time, and from how many on there are several threads.
UNIT, PARALLEL = 512, 1024

#: The elements that sums take at a time, and how many of these blocks a thread takes.
BLOCK, BLOCKS = 2048, 32


def along_channels(x: np.ndarray) -> bool:
    """Whether these kernels take images like this one: (N, C, *S), densely channels-last, in whole vectors."""
    if x.dtype.char not in "fd" or x.ndim < 2 or not x.size or not backend.jit_available():
        return False
    if x.size % math.lcm(x.shape[1], 16):
        return False
    return x.transpose(0, *range(2, x.ndim), 1).flags.c_contiguous


class ChannelKernel:
    """An expression of images and of numbers for each channel.

    >>> x, f = E.var("x"), E.var("f")
    >>> scale = ChannelKernel(x * f, ("x",), ("f",), "scale")
    >>> scale([np.ones((8, 2), np.float32)], [np.array([1, 2], np.float32)])[:2]
    array([[1., 2.],
           [1., 2.]], dtype=float32)
    """

    def __init__(self, root: Expr, images: Sequence[str], numbers: Sequence[str], name: str) -> None:
        self.root, self.images, self.numbers, self.name = root, tuple(images), tuple(numbers), name
        self.function = cache(self._compile)

    def _compile(self, dtype: np.dtype) -> tuple[Callable, int]:
        return _function("module", [self.root], self.images, self.numbers, dtype.name)

    def __call__(
        self, images: Sequence[np.ndarray], numbers: Sequence[np.ndarray], out: np.ndarray | None = None
    ) -> np.ndarray:
        """`images` lie as `along_channels` asks, all alike; `out`, which may be one of them, too."""
        first = images[0]
        function, lanes = self.function(first.dtype)
        table = _rounds(first, numbers, lanes)
        if out is None:
            out = np.empty_like(first)
        vectors = first.size // lanes
        head = [threads.CONFIG[0] if vectors >= PARALLEL else 1, -(-vectors // UNIT), vectors, table.strides[0]]
        _call(function, head, images, out, table)
        return out


class ChannelSums:
    """The sums for each channel of expressions of images and of numbers for each channel: float64.

    >>> x, f = E.var("x"), E.var("f")
    >>> sums = ChannelSums([x, x * f], ("x",), ("f",), "sums")
    >>> sums([np.ones((8, 2), np.float32)], [np.array([1, 2], np.float32)])
    array([[ 8.,  8.],
           [ 8., 16.]])
    """

    def __init__(self, roots: Sequence[Expr], images: Sequence[str], numbers: Sequence[str], name: str) -> None:
        self.roots, self.images, self.numbers, self.name = tuple(roots), tuple(images), tuple(numbers), name
        self.function = cache(self._compile)

    def _compile(self, dtype: np.dtype) -> tuple[Callable, int]:
        return _function("sums_module", self.roots, self.images, self.numbers, dtype.name)

    def __call__(self, images: Sequence[np.ndarray], numbers: Sequence[np.ndarray] = ()) -> np.ndarray:
        """`images` lie as `along_channels` asks, all alike."""
        first = images[0]
        function, lanes = self.function(first.dtype)
        table = _rounds(first, numbers, lanes)
        width = table[0].size if len(table) else math.lcm(first.shape[1], lanes)
        rows, per = first.size // width, max(8, BLOCK // width)
        units = -(-rows // (per * BLOCKS))
        out = np.zeros((units, len(self.roots), width))
        head = [threads.CONFIG[0] if units > 1 else 1, units, rows, width * first.itemsize, per]
        _call(function, head, images, out, table)
        return out.sum(0).reshape(len(self.roots), -1, first.shape[1]).sum(1)


def _function(
    kind: str, roots: Sequence[Expr], images: Sequence[str], numbers: Sequence[str], dtype: str
) -> tuple[Callable, int]:
    """The generated function, and the lanes of a vector."""
    from flambeau.kernels import jit, lower_channels

    make = getattr(lower_channels, kind)
    key = f"channels {lower_channels.VERSION} {kind} {E.serialize(roots)} {images} {numbers} {dtype}"
    address = jit.function(key, lambda name, machine: make(name, roots, images, numbers, dtype, machine))
    lanes = jit.engine().machine.vector_bytes // np.dtype(dtype).itemsize
    return ctypes.CFUNCTYPE(None, ctypes.c_char_p)(address), lanes


def _rounds(image: np.ndarray, numbers: Sequence[np.ndarray], lanes: int) -> np.ndarray:
    """The channels' numbers, a row each, as often as it takes to fill whole vectors."""
    channels = image.shape[1]
    table = np.empty((len(numbers), math.lcm(channels, lanes) // channels, channels), image.dtype)
    for row, values in zip(table, numbers, strict=True):
        row[...] = values
    return table


def _call(function: Callable, head: list[int], images: Sequence[np.ndarray], out: np.ndarray, table: np.ndarray) -> None:
    start, width = memory.address(table), table.strides[0]
    job = [*head, *map(memory.address, images), memory.address(out), *(start + i * width for i in range(len(table)))]
    function(struct.pack(f"{len(job)}q", *job))
