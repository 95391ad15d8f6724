"""Images: resampling, sampling at a grid, and rearrangements of pixels, channels and patches.

Resampling is linear and goes one dimension after the other, so it is a few taps for each output: (indices, weights).
Its transpose is taps too, and is its gradient.
"""

from __future__ import annotations

import math
import warnings
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from ..autograd.primitive import primitive
from ..autograd.transforms.batching import folding
from ..core.dtypes import FLOAT, SCALAR_NAMES
from ..core.errors import error
from ..core.size import Size
from ..core.tensor import Tensor, wrap
from ..kernels import windows as W
from .public import publish
from .takes import takes

Taps = tuple[np.ndarray, np.ndarray]
MODES = {
    "nearest": (3, 4, 5), "nearest-exact": (3, 4, 5), "area": (3, 4, 5), "linear": (3,), "bilinear": (4,), "trilinear": (5,),
    "bicubic": (4,), "lanczos": (4,),
}  # fmt: skip
NAMES = {
    "nearest": "UpsampleNearest{}DBackward0", "nearest-exact": "UpsampleNearestExact{}DBackward0",
    "linear": "UpsampleLinear{}DBackward0", "bilinear": "UpsampleBilinear{}DBackward0",
    "trilinear": "UpsampleTrilinear{}DBackward0", "bicubic": "UpsampleBicubic{}DBackward0", "lanczos": "UpsampleLanczos{}DBackward0",
}  # fmt: skip


# ---- taps ------------------------------------------------------------------------------------------------------------------
def _cubic(t: np.ndarray, a: float) -> np.ndarray:
    """The cubic convolution kernel with parameter ``a``."""
    t = np.abs(t)
    near = ((a + 2) * t - (a + 3)) * t * t + 1
    far = ((a * t - 5 * a) * t + 8 * a) * t - 4 * a
    return np.where(t <= 1, near, np.where(t < 2, far, 0))


def _lanczos(t: np.ndarray) -> np.ndarray:
    return np.where(np.abs(t) < 3, np.sinc(t) * np.sinc(t / 3), 0)


# kind -> (reach on each side, weight by distance), for antialiased resampling
FILTERS = {
    "linear": (1, lambda t: np.maximum(0, 1 - np.abs(t))),
    "cubic": (2, lambda t: _cubic(t, -0.5)),
    "lanczos": (3, _lanczos),
}  # fmt: skip


@lru_cache(512)
def taps(kind: str, n: int, out: int, scale: float | None, align: bool, antialias: bool) -> Taps:
    """Which inputs make each output along one dimension, and with what weights: two arrays (out, taps).

    ``scale``: inputs for each output, where the user's factor decides it rather than the sizes.
    """
    i = np.arange(out)
    if kind in ("nearest", "nearest-exact"):
        step = np.float32(n / out if scale is None else scale)
        at = i.astype(np.float32) + np.float32(0.5 if kind == "nearest-exact" else 0)
        index = np.minimum(np.floor(at * step).astype(np.int64), n - 1)[:, None]
        return index, np.ones(index.shape)
    if align:
        step = (n - 1) / (out - 1) if out > 1 else 0.0
        centre = i * step
    else:
        step = n / out if scale is None else scale
        centre = (i + 0.5) * step - 0.5
    if antialias:
        reach, weigh = FILTERS[kind]
        stretch = max(step, 1.0)
        middle = centre + 0.5 if not align else centre
        low = np.maximum((middle - reach * stretch + 0.5).astype(np.int64), 0)
        high = np.minimum((middle + reach * stretch + 0.5).astype(np.int64), n)
        index = low[:, None] + np.arange(max(1, int((high - low).max())))
        inside = index < high[:, None]
        weight = np.where(inside, weigh((index - middle[:, None] + 0.5) / stretch), 0)
        weight /= weight.sum(1, keepdims=True)
        return np.minimum(index, n - 1), weight
    if kind == "linear":
        centre = np.maximum(centre, 0)
        low = np.minimum(np.floor(centre).astype(np.int64), n - 1)
        part = centre - low
        return np.stack([low, np.minimum(low + 1, n - 1)], 1), np.stack([1 - part, part], 1)
    low = np.floor(centre).astype(np.int64)
    index = low[:, None] + np.arange(-1, 3)
    return np.clip(index, 0, n - 1), _cubic(centre[:, None] - index, -0.75)


@lru_cache(512)
def transposed(kind: str, n: int, out: int, scale: float | None, align: bool, antialias: bool) -> Taps:
    """The taps of the transpose: which outputs an input went to."""
    index, weight = taps(kind, n, out, scale, align, antialias)
    sources = index.reshape(-1)
    targets = np.repeat(np.arange(out), index.shape[1])
    order = np.argsort(sources, kind="stable")
    counts = np.bincount(sources, minlength=n)
    width = max(1, int(counts.max(initial=0)))
    place = np.arange(sources.size) - np.repeat(np.cumsum(counts) - counts, counts)
    found, factors = np.zeros((n, width), np.int64), np.zeros((n, width))
    found[sources[order], place] = targets[order]
    factors[sources[order], place] = weight.reshape(-1)[order]
    return found, factors


def along(x: np.ndarray, axis: int, t: Taps) -> np.ndarray:
    """Apply taps to one axis."""
    index, weight = t
    column = (-1, *(1,) * (x.ndim - axis - 1))
    total = None
    for j in range(index.shape[1]):
        w = weight[:, j]
        part = x.take(index[:, j], axis)
        if not (w == 1).all():
            part = part * w.astype(x.dtype).reshape(column)
        total = part if total is None else np.add(total, part, out=total)
    return total  # type: ignore[return-value]


def _resampled(x: np.ndarray, how: Any, back: bool) -> np.ndarray:
    half = x.dtype.itemsize == 2
    pixels = x.dtype.kind in "iu" and any([spec is not None and "nearest" not in spec[0] for spec in how])
    a = x.astype(np.float32) if half or pixels else x
    for d, spec in reversed(list(enumerate(how))) if pixels else enumerate(how):
        axis = a.ndim - len(how) + d
        if spec is not None:
            a = along(a, axis, (transposed if back else taps)(*spec))
            if pixels:  # each axis is rounded, the last one first
                a = np.clip(np.floor(a + 0.5), 0, 255)
    if half or x.dtype.kind in "iu":
        a = a.astype(x.dtype)
    return a.copy() if a is x else a


def _declare(mode: str, rank: int, antialias: bool) -> Any:
    name = NAMES[mode].format(rank)
    if antialias:
        name = name.replace("DBackward", "DAaBackward")

    def forward(x: Any, /, how: Any) -> Any:
        return _resampled(x, how, False)

    def backward(g_: Any, /, how: Any) -> Any:
        return _resampled(g_, how, True)

    there = primitive(name[:-9], node=name, vjp={"x": lambda g, how: back(g, how)}, jvp="linear", batch={})(forward)
    back = primitive(name[:-9] + "_grad", node=name[:-1].replace("Backward", "BackwardBackward") + "0",
                     vjp={"g_": lambda g, how: there(g, how)}, jvp="linear", batch={})(backward)  # fmt: skip
    return there


@lru_cache(64)
def operator(mode: str, rank: int, antialias: bool) -> Any:
    return _declare(mode, rank, antialias)


# ---- interpolate --------------------------------------------------------------------------------------------------------------
def interpolate(
    input: Tensor, size: Any = None, scale_factor: Any = None, mode: str = "nearest", align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None, antialias: bool = False,
) -> Tensor:  # fmt: skip
    """Resample (N, C, ...) to a size, or by a factor.

    ``mode``: nearest, nearest-exact, area, linear (3D), bilinear, bicubic, lanczos (4D), trilinear (5D).
    ``align_corners``: the centres of the corner pixels stay where they are, rather than the image's edges.

    >>> import flambeau as torch
    >>> torch.nn.functional.interpolate(torch.tensor([[[1., 2.]]]), scale_factor=2)
    tensor([[[1., 1., 2., 2.]]])
    """
    n = input._a.ndim
    if mode in ("nearest", "area", "nearest-exact"):
        if align_corners is not None:
            raise error(
                ValueError, "align_corners option can only be set with the interpolating modes: linear | bilinear | bicubic | trilinear"
            )
    elif align_corners is None:
        align_corners = False
    rank, space = n - 2, input._a.shape[2:]
    if size is not None and scale_factor is not None:
        raise error(ValueError, "only one of size or scale_factor should be defined")
    scales: Any = None
    if size is not None:
        if isinstance(size, (list, tuple)):
            if len(size) != rank:
                raise error(
                    ValueError,
                    f"Input and output must have the same number of spatial dimensions, but got input with spatial dimensions of "
                    f"{list(space)} and output size of {size}. Please provide input tensor in (N, C, d1, d2, ...,dK) format and output "
                    "size in (o1, o2, ...,oK) format.",
                )
            size = tuple([int(s) for s in size])
        else:
            size = (int(size),) * rank
    elif scale_factor is not None:
        if isinstance(scale_factor, (list, tuple)):
            if len(scale_factor) != rank:
                raise error(
                    ValueError,
                    f"Input and scale_factor must have the same number of spatial dimensions, but got input with spatial dimensions "
                    f"of {list(space)} and scale_factor of shape {scale_factor}. Please provide input tensor in (N, C, d1, d2, ...,dK) "
                    "format and scale_factor in (s1, s2, ...,sK) format.",
                )
            scales = tuple([float(s) for s in scale_factor])
        else:
            scales = (float(scale_factor),) * rank
    else:
        raise error(ValueError, "either size or scale_factor should be defined")
    if recompute_scale_factor and size is not None:
        raise error(ValueError, "recompute_scale_factor is not meaningful with an explicit size.")
    if antialias and not (mode in ("bilinear", "bicubic", "lanczos") and n == 4):
        raise error(
            ValueError, "Anti-alias option is restricted to bilinear, bicubic, and lanczos modes and requires a 4-D tensor as input"
        )
    if mode == "lanczos" and not antialias:
        raise error(ValueError, "lanczos mode requires antialias=True")
    if size is None:
        size = tuple([math.floor(length * s) for length, s in zip(space, scales)])
    if recompute_scale_factor or mode == "area":
        scales = None
    _check_mode(mode, n)
    check_sizes(space, size)
    if mode == "area":
        from . import pool

        return getattr(pool, f"adaptive_avg_pool{rank}d")(input, size)
    if min(input._a.shape[1:]) == 0:
        raise error(RuntimeError, f"Non-empty {n}D data tensor expected but got a tensor with sizes {list(input._a.shape)}")
    if mode in ("linear", "trilinear"):
        takes("compute_indices_weights_linear", input, "hf")
    if input.dtype.category != FLOAT and input._a.dtype != np.uint8:
        raise error(NotImplementedError, f"\"upsample_{mode}{rank}d\" not implemented for '{SCALAR_NAMES[input.dtype]}'")
    kind = {"bilinear": "linear", "trilinear": "linear", "bicubic": "cubic"}.get(mode, mode)
    how = []
    for d, (length, o) in enumerate(zip(space, size)):
        s = None if scales is None or align_corners else 1 / scales[d]
        plain = length == o and (s is None or s == 1.0) and kind != "lanczos"
        how.append(None if plain else (kind, length, o, s, bool(align_corners), bool(antialias)))
    return operator(mode, rank, bool(antialias))(input, tuple(how))


def _check_mode(mode: str, n: int) -> None:
    ranks = MODES.get(mode, ())
    if n in ranks:
        return
    if n in (3, 4, 5) and mode in ("linear", "bilinear", "trilinear"):
        raise error(NotImplementedError, f"Got {n}D input, but {mode} mode needs {ranks[0]}D input")
    raise error(
        NotImplementedError,
        f"Input Error: Only 3D, 4D and 5D input Tensors supported (got {n}D) for the modes: nearest | linear | bilinear | bicubic "
        f"| trilinear | lanczos | area | nearest-exact (got {mode})",
    )


def check_sizes(space: tuple[int, ...], size: tuple[int, ...]) -> None:
    if min(size) <= 0 or min(space) <= 0:
        names = ("D", "H", "W")[3 - len(size) :]
        said = [", ".join(f"{a}: {v}" for a, v in zip(names, vs)) for vs in (space, size)]
        raise error(
            RuntimeError, f"Input and output sizes should be greater than 0, but got input ({said[0]}) output ({said[1]})"
        )


def upsample(input: Tensor, size: Any = None, scale_factor: Any = None, mode: str = "nearest", align_corners: bool | None = None) -> Tensor:
    """The old name of ``interpolate``."""
    warnings.warn("`nn.functional.upsample` is deprecated. Use `nn.functional.interpolate` instead.", stacklevel=2)
    return interpolate(input, size, scale_factor, mode, align_corners)


def upsample_nearest(input: Tensor, size: Any = None, scale_factor: Any = None) -> Tensor:
    """``interpolate(..., mode="nearest")``."""
    warnings.warn("`nn.functional.upsample_nearest` is deprecated. Use `nn.functional.interpolate` instead.", stacklevel=2)
    return interpolate(input, size, scale_factor, mode="nearest")


def upsample_bilinear(input: Tensor, size: Any = None, scale_factor: Any = None) -> Tensor:
    """``interpolate(..., mode="bilinear", align_corners=True)``."""
    warnings.warn("`nn.functional.upsample_bilinear` is deprecated. Use `nn.functional.interpolate` instead.", stacklevel=2)
    return interpolate(input, size, scale_factor, mode="bilinear", align_corners=True)


# ---- sampling at a grid ---------------------------------------------------------------------------------------------------------
def affine_grid(theta: Tensor, size: Any, align_corners: bool | None = None) -> Tensor:
    """Where each pixel of an output of ``size`` (N, C, H, W) or (N, C, D, H, W) lies under affine maps (N, 2, 3) or (N, 3, 4)."""
    if align_corners is None:
        warnings.warn(
            "Default grid_sample and affine_grid behavior has changed to align_corners=False since 1.3.0. Please specify "
            "align_corners=True if the old behavior is desired. See the documentation of grid_sample for details.",
            stacklevel=2,
        )
        align_corners = False
    if theta.dtype.category != FLOAT:
        raise error(ValueError, f"Expected theta to have floating point type, but got {theta.dtype}")
    size = tuple([int(n) for n in size])
    if len(size) not in (4, 5):
        raise error(
            NotImplementedError,
            "affine_grid only supports 4D and 5D sizes, for 2D and 3D affine transforms, respectively. Got size "
            f"{Size(size)}.".replace("torch.Size([", "(").replace("])", ")"),
        )
    rank = len(size) - 2
    if theta._a.shape[1:] != (rank, rank + 1):
        raise error(
            ValueError,
            f"Expected a batch of {rank}D affine matrices of shape Nx{rank}x{rank + 1} for size {size}. Got {Size(theta._a.shape)}.",
        )
    if min(size) <= 0:
        raise error(ValueError, f"Expected non-zero, positive output size. Got {size}")
    axes = []
    for n in size[2:]:
        line = np.linspace(-1, 1, n) if n > 1 else np.zeros(1)
        axes.append(line if align_corners else line * (n - 1) / n)
    mesh = np.meshgrid(*axes, indexing="ij")[::-1]  # x first
    base = np.stack([*(m.reshape(-1) for m in mesh), np.ones(prod(size[2:]))], 1).astype(theta._a.dtype)
    grid = wrap(base) @ theta.transpose(1, 2)
    return grid.reshape(size[0], *size[2:], rank)


def _to_pixels(c: Tensor, n: int, align: bool) -> Tensor:
    """From [-1, 1] to pixels."""
    return (c + 1) * ((n - 1) / 2) if align else ((c + 1) * n - 1) * 0.5


def _reflected(c: Tensor, n: int, align: bool) -> Tensor:
    """Fold positions back into the image at its edges (or at the centres of the corner pixels)."""
    low, span = (0.0, float(n - 1)) if align else (-0.5, float(n))
    if span == 0:
        return c * 0
    away = (c - low).abs()
    flips = np.floor(away._a / span)
    rest = away - wrap((flips * span).astype(away._a.dtype))
    odd = (flips % 2).astype(away._a.dtype)
    return rest * wrap(1 - 2 * odd) + wrap(odd * away._a.dtype.type(span)) + low


def _padded(c: Tensor, n: int, padding: str, align: bool) -> Tensor:
    if padding == "reflection":
        c = _reflected(c, n, align)
    if padding != "zeros":
        c = c.clamp(0, n - 1)
    return c


def _pixels(x: Tensor, places: list[np.ndarray]) -> Tensor:
    """Values (N, C, *out) of x (N, C, *S) at integer places, one array (N, *out) a dimension; zeros outside."""
    shape, out = x._a.shape, places[0].shape[1:]
    inside = np.ones(places[0].shape, bool)
    flat = np.zeros(places[0].shape, np.int64)
    for n, at in zip(shape[2:], places):
        inside &= (at >= 0) & (at < n)
        flat = flat * n + np.clip(at, 0, n - 1)
    index = np.broadcast_to(flat.reshape(shape[0], 1, prod(out)), (*shape[:2], prod(out)))
    values = x.reshape(*shape[:2], prod(shape[2:])).gather(2, wrap(index)).reshape(*shape[:2], *out)
    return values if inside.all() else values * wrap(inside[:, None].astype(x._a.dtype))


def _whole(a: np.ndarray) -> np.ndarray:
    """Floors as integers; positions that are none (nan, inf) lie outside."""
    with np.errstate(invalid="ignore"):
        return np.where(np.isfinite(a), np.clip(np.floor(a.astype(np.float64)), -(2.0**40), 2.0**40), -(2.0**40)).astype(np.int64)


def _cubic_weights(t: Tensor) -> list[Tensor]:
    """Weights of the four neighbours for a position ``t`` in [0, 1) after the second."""
    a = -0.75

    def far(u: Any) -> Any:
        return ((a * u - 5 * a) * u + 8 * a) * u - 4 * a

    def near(u: Any) -> Any:
        return ((a + 2) * u - (a + 3)) * u * u + 1

    return [far(t + 1), near(t), near(1 - t), far(2 - t)]


@folding
def grid_sample(
    input: Tensor, grid: Tensor, mode: str = "bilinear", padding_mode: str = "zeros", align_corners: bool | None = None
) -> Tensor:
    """Values of (N, C, H, W) at the places of a grid (N, H', W', 2), or in 3D; places run from -1 to 1, x first.

    ``mode``: bilinear, nearest, bicubic (2D). ``padding_mode``: what lies outside: zeros, border, reflection.
    """
    if mode not in ("bilinear", "nearest", "bicubic"):
        raise error(ValueError, f"nn.functional.grid_sample(): expected mode to be 'bilinear', 'nearest' or 'bicubic', but got: '{mode}'")
    if padding_mode not in ("zeros", "border", "reflection"):
        raise error(
            ValueError,
            "nn.functional.grid_sample(): expected padding_mode to be 'zeros', 'border', or 'reflection', but got: "
            f"'{padding_mode}'",
        )
    if align_corners is None:
        warnings.warn(
            "Default grid_sample and affine_grid behavior has changed to align_corners=False since 1.3.0. Please specify "
            "align_corners=True if the old behavior is desired. See the documentation of grid_sample for details.",
            stacklevel=2,
        )
        align_corners = False
    s, gs = input._a.shape, grid._a.shape
    rank = len(s) - 2
    if s[0] != gs[0]:
        raise error(
            RuntimeError,
            f"grid_sampler(): expected grid and input to have same batch size, but got input with sizes {list(s)} and grid with "
            f"sizes {list(gs)}",
        )
    if gs[-1] != rank:
        raise error(RuntimeError, f"grid_sampler(): expected grid to have size {rank} in last dimension, but got grid with sizes {list(gs)}")
    if rank not in (2, 3) or len(gs) != len(s):
        raise error(
            RuntimeError,
            f"grid_sampler(): expected 4D or 5D input and grid with same number of dimensions, but got input with sizes {list(s)} and "
            f"grid with sizes {list(gs)}",
        )
    for d in range(2, len(s)):
        if s[d] <= 0:
            raise error(RuntimeError, f"grid_sampler(): expected input to have non-empty spatial dimensions, but input has sizes {list(s)} "
                        f"with dimension {d} being empty")
    if mode == "bicubic" and rank == 3:
        raise error(RuntimeError, "grid_sampler(): bicubic interpolation only supports 4D input")
    if input._a.dtype != grid._a.dtype:
        raise error(RuntimeError, "grid_sampler(): expected input and grid to have same dtype, but input has "
                    f"{input.dtype.name} and grid has {grid.dtype.name}")
    takes("grid_sampler_2d_cpu_kernel_impl" if rank == 2 else "grid_sampler3d_cpu", input, "hf")
    # one coordinate a spatial dimension, the last one's first in the grid
    position = [_to_pixels(grid[..., rank - 1 - d], s[2 + d], align_corners) for d in range(rank)]
    if mode == "bicubic":
        return _bicubic(input, position, padding_mode, align_corners)
    position = [_padded(c, s[2 + d], padding_mode, align_corners) for d, c in enumerate(position)]
    if mode == "nearest":
        with np.errstate(invalid="ignore"):
            return _pixels(input, [_whole(np.rint(c._a)) for c in position])
    corners = [_whole(c._a) for c in position]
    part = [c - wrap(f.astype(c._a.dtype)) for c, f in zip(position, corners)]
    total: Any = None
    for corner in np.ndindex(*(2,) * rank):
        weight: Any = None
        for bit, t in zip(corner, part):
            factor = t if bit else 1 - t
            weight = factor if weight is None else weight * factor
        term = _pixels(input, [f + bit for f, bit in zip(corners, corner)]) * weight.unsqueeze(1)
        total = term if total is None else total + term
    return total


def _bicubic(x: Tensor, position: list[Tensor], padding: str, align: bool) -> Tensor:
    base = [_whole(c._a) for c in position]
    weights = [_cubic_weights(c - wrap(f.astype(c._a.dtype))) for c, f in zip(position, base)]

    def place(d: int, step: int) -> np.ndarray:
        at = base[d] + step
        if padding == "zeros":
            return at
        return _padded(wrap(at.astype(np.float64)), x._a.shape[2 + d], padding, align)._a.astype(np.int64)

    total: Any = None
    for i in range(4):
        row: Any = None
        for j in range(4):
            term = _pixels(x, [place(0, i - 1), place(1, j - 1)]) * weights[1][j].unsqueeze(1)
            row = term if row is None else row + term
        row = row * weights[0][i].unsqueeze(1)
        total = row if total is None else total + row
    return total


def grid_sampler(input: Tensor, grid: Tensor, interpolation_mode: int, padding_mode: int, align_corners: bool) -> Tensor:
    """``nn.functional.grid_sample``, the modes by their numbers."""
    modes, paddings = ("bilinear", "nearest", "bicubic"), ("zeros", "border", "reflection")
    return grid_sample(input, grid, modes[interpolation_mode], paddings[padding_mode], align_corners)


# ---- pixels and channels ----------------------------------------------------------------------------------------------------
@primitive("pixel_shuffle", vjp={"x": lambda g, r: _unshuffle(g, r)}, jvp="linear", batch={})
def _shuffle(x: Any, /, r: Any) -> Any:
    *lead, c, h, w = x.shape
    a = x.reshape(*lead, c // (r * r), r, r, h, w)
    n = len(lead)
    return a.transpose(*range(n), n, n + 3, n + 1, n + 4, n + 2).reshape(*lead, c // (r * r), h * r, w * r)


@primitive("pixel_unshuffle", vjp={"x": lambda g, r: _shuffle(g, r)}, jvp="linear", batch={})
def _unshuffle(x: Any, /, r: Any) -> Any:
    *lead, c, h, w = x.shape
    a = x.reshape(*lead, c, h // r, r, w // r, r)
    n = len(lead)
    return a.transpose(*range(n), n, n + 2, n + 4, n + 1, n + 3).reshape(*lead, c * r * r, h // r, w // r)


def pixel_shuffle(input: Tensor, upscale_factor: int) -> Tensor:
    """(..., C r², H, W) as (..., C, H r, W r).

    >>> import flambeau as torch
    >>> torch.pixel_shuffle(torch.arange(4.).reshape(1, 4, 1, 1), 2)
    tensor([[[[0., 1.],
              [2., 3.]]]])
    """
    n, r = input._a.ndim, int(upscale_factor)
    if n < 3:
        raise error(RuntimeError, f"pixel_shuffle expects input to have at least 3 dimensions, but got input with {n} dimension(s)")
    if r <= 0:
        raise error(RuntimeError, f"pixel_shuffle expects a positive upscale_factor, but got {r}")
    c = input._a.shape[-3]
    if c % (r * r):
        raise error(
            RuntimeError,
            "pixel_shuffle expects its input's 'channel' dimension to be divisible by the square of upscale_factor, but "
            f"input.size(-3)={c} is not divisible by {r * r}",
        )
    return _shuffle(input, r)


def pixel_unshuffle(input: Tensor, downscale_factor: int) -> Tensor:
    """(..., C, H r, W r) as (..., C r², H, W)."""
    n, r = input._a.ndim, int(downscale_factor)
    if n < 3:
        raise error(RuntimeError, f"pixel_unshuffle expects input to have at least 3 dimensions, but got input with {n} dimension(s)")
    if r <= 0:
        raise error(RuntimeError, f"pixel_unshuffle expects a positive downscale_factor, but got {r}")
    for what, d in (("height", -2), ("width", -1)):
        if input._a.shape[d] % r:
            raise error(
                RuntimeError,
                f"pixel_unshuffle expects {what} to be divisible by downscale_factor, but input.size({d})={input._a.shape[d]} is not "
                f"divisible by {r}",
            )
    return _unshuffle(input, r)


def _folded(b: Any, op: Any, x: Tensor, *params: Any) -> Tensor:
    """(B, N, ...): the examples go into N."""
    out = op(x.flatten(0, 1), *params)
    return out.reshape(b.size, -1, *out._a.shape[1:])


@primitive(
    "channel_shuffle", vjp={"x": lambda g, x_shape, groups: _shuffle_channels(g, x_shape[1] // groups if groups else 1)}, jvp="linear",
    batch=lambda b, x, groups: _folded(b, _shuffle_channels, x, groups),
)  # fmt: skip
def _shuffle_channels(x: Any, /, groups: Any) -> Any:
    n, c, *space = x.shape
    return x.reshape(n, groups, c // groups, *space).swapaxes(1, 2).reshape(x.shape)


def channel_shuffle(input: Tensor, groups: int) -> Tensor:
    """Channels as a (groups, C / groups) table, read by columns."""
    shape, groups = input._a.shape, int(groups)
    if len(shape) <= 2:
        raise error(RuntimeError, f"channel_shuffle expects input with > 2 dims, but got input with sizes {list(shape)}")
    if groups <= 0:
        raise error(RuntimeError, f"Number of groups to divide channels in must be positive. Value of groups:{groups}")
    if shape[1] % groups:
        raise error(RuntimeError, f"Number of channels must be divisible by groups. Got {shape[1]} channels and {groups} groups.")
    return _shuffle_channels(input, groups)


# ---- patches --------------------------------------------------------------------------------------------------------------------
def _pairs(padding: tuple[int, int]) -> tuple[tuple[int, int], ...]:
    return tuple([(p, p) for p in padding])


def _blocks(size: Any, kernel: Any, dilation: Any, padding: Any, stride: Any) -> tuple[int, ...]:
    return tuple([
        (n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, d, p, s in zip(size, kernel, dilation, padding, stride)
    ])  # fmt: skip


@primitive("im2col", node="Im2ColBackward0",
           vjp={"x": lambda g, x_shape, kernel, dilation, padding, stride: _col2im(g, x_shape[2:], kernel, dilation, padding, stride)},
           jvp="linear", batch=lambda b, x, kernel, dilation, padding, stride: _folded(b, _im2col, x, kernel, dilation, padding, stride))
def _im2col(x: Any, /, kernel: Any, dilation: Any, padding: Any, stride: Any) -> Any:
    n, c, *size = x.shape
    out = _blocks(size, kernel, dilation, padding, stride)
    padded = W.pad(W.channels_last(x), _pairs(padding))
    patches = W.windows(padded, out, kernel, stride, dilation)  # (N, *out, *kernel, C)
    return np.ascontiguousarray(patches.transpose(0, 5, 3, 4, 1, 2)).reshape(n, c * prod(kernel), prod(out))


@primitive("col2im", node="Col2ImBackward0",
           vjp={"x": lambda g, kernel, dilation, padding, stride: _im2col(g, kernel, dilation, padding, stride)}, jvp="linear",
           batch=lambda b, x, size, kernel, dilation, padding, stride: _folded(b, _col2im, x, size, kernel, dilation, padding, stride))
def _col2im(x: Any, /, size: Any, kernel: Any, dilation: Any, padding: Any, stride: Any) -> Any:
    n = x.shape[0]
    c = x.shape[1] // prod(kernel)
    out = _blocks(size, kernel, dilation, padding, stride)
    columns = x.reshape(n, c, *kernel, *out)
    image = np.zeros((n, c, *(s + 2 * p for s, p in zip(size, padding))), x.dtype)
    for place, window in W.offsets(out, kernel, stride, dilation):
        image[(slice(None), slice(None), *window)] += columns[(slice(None), slice(None), *place)]
    return np.ascontiguousarray(image[(..., *(slice(p, p + s) for s, p in zip(size, padding)))])


def _pair(v: Any) -> tuple[int, int]:
    if isinstance(v, (int, np.integer)):
        return int(v), int(v)
    v = tuple([int(i) for i in v])
    return v * 2 if len(v) == 1 else v


def _patches(kernel: Any, dilation: Any, padding: Any, stride: Any) -> tuple[Any, ...]:
    found = kernel, dilation, padding, stride = tuple([_pair(v) for v in (kernel, dilation, padding, stride)])
    for what, v in (("kernel", kernel), ("stride", stride), ("dilation", dilation)):
        if min(v) <= 0:
            title = "kernel size" if what == "kernel" else what
            raise error(RuntimeError, f"{title} should be greater than zero, but got {what}_height: {v[0]} {what}_width: {v[1]}")
    if min(padding) < 0:
        raise error(RuntimeError, f"padding should be non-negative, but got pad_height: {padding[0]} pad_width: {padding[1]}")
    return found


def unfold(input: Tensor, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1) -> Tensor:
    """The patches of (N, C, H, W) as columns: (N, C KH KW, patches).

    >>> import flambeau as torch
    >>> torch.nn.functional.unfold(torch.ones(1, 2, 3, 3), 2).shape
    torch.Size([1, 8, 4])
    """
    shape = input._a.shape
    kernel, dilation, padding, stride = _patches(kernel_size, dilation, padding, stride)
    if len(shape) not in (3, 4):
        if len(shape) < 3:
            n = len(shape)
            raise error(IndexError, f"Dimension out of range (expected to be in range of [-{n}, {n - 1}], but got {n})")
        raise error(
            RuntimeError,
            "Expected 3D or 4D (batch mode) tensor with possibly 0 batch size and other non-zero dimensions for input, but got: "
            f"{list(shape)}",
        )
    takes("im2col_out_cpu", input, "bhfc")
    if 0 in shape[-3:]:
        raise error(
            RuntimeError,
            "Expected 3D or 4D (batch mode) tensor with possibly 0 batch size and other non-zero dimensions for input, but got: "
            f"{list(shape)}",
        )
    out = _blocks(shape[-2:], kernel, dilation, padding, stride)
    if min(out) < 1:
        raise error(
            RuntimeError,
            f"Given input with spatial size {shape[-2:]}, kernel_size={kernel}, dilation={dilation}, padding={padding}, calculated "
            f"shape of the array of sliding blocks as {out}, but its components must be at least one.",
        )
    if len(shape) == 3:
        return _im2col(input.unsqueeze(0), kernel, dilation, padding, stride).squeeze(0)
    return _im2col(input, kernel, dilation, padding, stride)


def fold(
    input: Tensor, output_size: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1
) -> Tensor:
    """Columns (N, C KH KW, patches) added up where ``unfold`` took them from: (N, C, H, W)."""
    shape, size = input._a.shape, _pair(output_size)
    kernel, dilation, padding, stride = _patches(kernel_size, dilation, padding, stride)
    takes("col2im_out_cpu", input, "bhfc")
    if len(shape) not in (2, 3) or 0 in shape[-2:]:
        raise error(
            RuntimeError,
            "Expected 2D or 3D (batch mode) tensor for input with possibly 0 batch size and non-zero dimensions for input, but got: "
            f"{list(shape)}",
        )
    if shape[-2] % prod(kernel):
        raise error(
            RuntimeError,
            "Expected size of input's dimension 1 to be divisible by the product of kernel_size, but got "
            f"input.size(1)={shape[-2]} and kernel_size={kernel}.",
        )
    out = _blocks(size, kernel, dilation, padding, stride)
    given = f"Given output_size={size}, kernel_size={kernel}, dilation={dilation}, padding={padding}, stride={stride}, "
    if shape[-1] != prod(out):
        raise error(
            RuntimeError,
            f"{given}expected size of input's dimension 2 to match the calculated number of sliding blocks {out[0]} * {out[1]} = "
            f"{prod(out)}, but got input.size(2)={shape[-1]}.",
        )
    if min(out) < 1:
        raise error(RuntimeError, f"{given}calculated shape of the array of sliding blocks as {out}, which is too small (non-positive)")
    if len(shape) == 2:
        return _col2im(input.unsqueeze(0), size, kernel, dilation, padding, stride).squeeze(0)
    return _col2im(input, size, kernel, dilation, padding, stride)


for _f in (
    interpolate, upsample, upsample_nearest, upsample_bilinear, affine_grid, grid_sample, pixel_shuffle, pixel_unshuffle,
    channel_shuffle, fold, unfold,
):  # fmt: skip
    publish(_f.__name__, _f, "nn.functional")
for _f in (pixel_shuffle, pixel_unshuffle, channel_shuffle):
    publish(_f.__name__, _f)
    publish("native_" + _f.__name__, _f)
for _name in ("grid_sampler", "grid_sampler_2d", "grid_sampler_3d"):
    publish(_name, grid_sampler)
publish("affine_grid_generator", affine_grid)
publish("native_channel_shuffle", channel_shuffle, "nn.functional")
