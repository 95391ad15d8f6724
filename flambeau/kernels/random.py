"""Samplers that fill arrays, draw for draw as PyTorch's on the CPU: one seed, one stream, the same bits.

Every sampler takes the array to fill and the generator (:class:`~flambeau.kernels.mt19937.MT`), and leaves the
generator as PyTorch would. Most compute a double from two draws, u in [0, 1), and:

=================  =====================================================================================
uniform            u (high - low) + low, u of 24 bits from one draw, for all but float64
normal             below 16 values, or not contiguous: Box and Muller on pairs of doubles; else on blocks
                   of 16 (see ``boxmuller``); the last 16 are drawn anew where the size is no multiple
integers           one draw modulo the range; two from a range of 2**28 on
bernoulli          u < p;  exponential: -log1p(-u) / rate;  geometric: ceil(log u / log1p(-p))
cauchy             median + sigma tan(pi (u - 1/2));  log-normal: exp of a normal
=================  =====================================================================================

Multiplications followed by additions are fused, as the compiler of PyTorch's kernels makes them. An array that isn't
contiguous is filled in the order of its memory. PyTorch on an Intel CPU takes ``bernoulli_(p)`` and
``exponential_`` from MKL's generators; the streams here are those it has everywhere else.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import ml_dtypes
import numpy as np

from . import boxmuller, libm, random_llvm
from .boxmuller import fma32, fma64
from .mt19937 import MT

f32, f64 = np.float32, np.float64
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
CHUNK = 16384  # values at a time: what the steps pass on stays in the cache
WIDE_RANGE = 1 << 28  # integer ranges from here on take two draws
RANDPERM_WIDE = (2**32 - 1) // 20

# What PyTorch's messages call a dtype: (scalar type, the C type).
NAMES = {
    "bool": ("Bool", "bool"), "uint8": ("Byte", "unsigned char"), "int8": ("Char", "signed char"),
    "int16": ("Short", "short"), "int32": ("Int", "int"), "int64": ("Long", "long"),
    "float16": ("Half", "c10::Half"), "bfloat16": ("BFloat16", "c10::BFloat16"), "float32": ("Float", "float"),
    "float64": ("Double", "double"), "complex64": ("ComplexFloat", "c10::complex<float>"),
    "complex128": ("ComplexDouble", "c10::complex<double>"),
}  # fmt: skip
# Bits of a floating dtype's significand, the hidden one included.
DIGITS = {"float16": 11, "bfloat16": 8, "float32": 24, "float64": 53}
LARGEST = {name: float(ml_dtypes.finfo(name).max) for name in DIGITS}


# ---- where values go ------------------------------------------------------------------------------------------------
def fill_axes(a: np.ndarray) -> tuple[int, ...]:
    """The dimensions of ``a`` in the order in which PyTorch walks them: the largest step outermost."""
    order = list(range(a.ndim))[::-1]  # fastest first

    def later(i: int, j: int) -> int:
        si, sj = a.strides[i], a.strides[j]
        if si == 0 or sj == 0:
            return 0
        return (si > sj) - (si < sj) or int(a.shape[i] > a.shape[j])

    for i in range(1, a.ndim):
        moving = i
        for j in range(i - 1, -1, -1):
            c = later(order[j], order[moving])
            if c > 0:
                order[j], order[moving] = order[moving], order[j]
                moving = j
            elif c < 0:
                break
    return tuple(order[::-1])


def _fill(a: np.ndarray, gen: MT, write: Callable[[np.ndarray], None], step: int = CHUNK) -> None:
    """Give ``write`` the elements of ``a``, in PyTorch's order, as contiguous rows to be filled: under the lock."""
    with gen.lock:
        straight = a.flags.c_contiguous
        row = a.reshape(-1) if straight else np.empty(a.size, a.dtype)
        if row.size <= step:
            write(row)
        else:
            for i in range(0, row.size, step):
                write(row[i : i + step])
        if not straight:
            view = a.transpose(fill_axes(a))
            view[...] = row.reshape(view.shape)


def _pieces(row: np.ndarray) -> Iterator[np.ndarray]:
    for i in range(0, row.size, CHUNK):
        yield row[i : i + CHUNK]


def _real_view(a: np.ndarray) -> np.ndarray:
    """Real and imaginary parts of a complex array as a last dimension of 2."""
    return np.lib.stride_tricks.as_strided(a.real, (*a.shape, 2), (*a.strides, a.itemsize // 2))


def _narrow(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Cast as C++ does: a double becomes a half by way of float."""
    if dtype.itemsize == 2 and dtype.kind in "fV" and values.dtype == f64:
        values = values.astype(f32)
    with np.errstate(invalid="ignore", over="ignore"):
        return values.astype(dtype)


def _refuse(a: np.ndarray, kernel: str, kinds: str) -> None:
    """Unless the dtype is of one of the kinds: b, i, u, f (floating), or only the wide ones of these, as "fd"."""
    kind = "f" if a.dtype == BFLOAT16 else a.dtype.kind
    if kind not in kinds or "d" in kinds and a.dtype.itemsize < 4:
        raise NotImplementedError(f"\"{kernel}\" not implemented for '{NAMES[a.dtype.name][0]}'")


# ---- uniforms -------------------------------------------------------------------------------------------------------
def uniform_(a: np.ndarray, low: float, high: float, gen: MT) -> None:
    """Fill with values of [low, high).

    >>> a = np.empty(2, np.float32)
    >>> uniform_(a, 0, 1, MT(0))
    >>> a
    array([0.4962566, 0.7682218], dtype=float32)
    """
    if a.dtype.kind == "c":
        if a.size:
            uniform_(_real_view(a), low, high, gen)
        return
    _refuse(a, "check_uniform_bounds", "f")
    largest = LARGEST[a.dtype.name]
    for value, name in ((low, "from"), (high, "to")):
        if not -largest <= value <= largest:
            raise RuntimeError(f"{name} is out of bounds for {NAMES[a.dtype.name][1]}")
    if not low <= high:
        raise RuntimeError(f"uniform_ expects to return a [from, to) range, but found from={low:g} > to={high:g}")
    if high - low > largest:
        raise RuntimeError(
            f"uniform_ expects to-from <= std::numeric_limits<{NAMES[a.dtype.name][0]}>::max(), but found to={high:g} "
            f"and from={low:g} which result in to-from to exceed the limit"
        )
    if not a.size:
        return
    unit = low == 0.0 and high == 1.0
    if a.dtype == f64:
        low, width = float(low), float(high) - float(low)

        def write(row: np.ndarray) -> None:
            gen.unit64(row)
            if not unit:
                _below(fma64(row, width, low), low, high, row)
    else:
        bottom, span, single = f32(low), f32(high) - f32(low), a.dtype == f32

        def write(row: np.ndarray) -> None:
            u = gen.unit32(row if single else np.empty(row.size, f32))
            if not (unit and single):
                _below(fma32(u, span, bottom), low, high, row)

    _fill(a, gen, write)


def _below(values: np.ndarray, low: float, high: float, out: np.ndarray) -> None:
    """Cast into ``out``; a value that rounding took to ``high`` becomes ``low``."""
    out[...] = values
    out[out == np.asarray(high).astype(out.dtype)] = low


# ---- normals --------------------------------------------------------------------------------------------------------
def normal_(a: np.ndarray, mean: float, std: float, gen: MT) -> None:
    """Fill with normals; a complex array with independent parts, of half the variance each.

    >>> a = np.empty(3, np.float32)
    >>> normal_(a, 0, 1, MT(0))
    >>> a
    array([ 1.5409961, -0.2934289, -2.1787894], dtype=float32)
    """
    if not std >= 0.0:
        raise RuntimeError(f"normal expects std >= 0.0, but found std {std:g}")
    if not a.size:
        return
    if a.dtype.kind == "c":
        normal_(_real_view(a), mean, std / math.sqrt(2), gen)
        return
    _refuse(a, "normal_kernel_cpu", "f")
    mean, std = float(mean), float(std)
    if a.size >= 16 and a.flags.c_contiguous:
        with gen.lock:
            _normal_blocks(a.reshape(-1), mean, std, gen)
        return

    def write(row: np.ndarray) -> None:
        row[...] = _narrow(fma64(pair_normals(row.size, gen), std, mean), a.dtype)

    _fill(a, gen, write)


def _normal_blocks(row: np.ndarray, mean: float, std: float, gen: MT) -> None:
    unit, transform, work = gen.unit32, boxmuller.normals32, np.dtype(f32)
    if row.dtype == f64:
        unit, transform, work = gen.unit64, boxmuller.normals64, row.dtype
    whole = row.size & ~15
    in_place = row.dtype == work
    for piece in _pieces(row[:whole]):
        u = unit(piece if in_place else np.empty(piece.size, work))
        transform(u, mean, std)
        if not in_place:
            piece[...] = u
    if whole != row.size:
        if in_place:  # PyTorch draws for all before it transforms; the narrow types draw block by block
            unit(np.empty(row.size - whole, work))
        u = unit(np.empty(16, work))
        transform(u, mean, std)
        row[-16:] = u


def pair_normals(n: int, gen: MT) -> np.ndarray:
    """``n`` standard normals in float64, two from each pair of uniforms; a second one left over is kept in ``gen``."""
    out = np.empty(n, f64)
    start = 0
    if n and gen.next_normal is not None:
        out[0] = gen.next_normal
        gen.next_normal, start = None, 1
    for piece in _pieces(out[start:]):
        pairs = gen.unit64(np.empty(piece.size + 1 & ~1, f64)).reshape(-1, 2)
        radius = np.sqrt(-2.0 * libm.log1p(-pairs[:, 1]))
        theta = (2.0 * math.pi) * pairs[:, 0]
        pairs[:, 0] = radius * libm.cos(theta)
        pairs[:, 1] = radius * libm.sin(theta)
        piece[...] = pairs.reshape(-1)[: piece.size]
        if piece.size & 1:
            gen.next_normal = float(pairs[-1, 1])
    return out


def normal(mean: np.ndarray | float, std: np.ndarray | float, gen: MT) -> np.ndarray:
    """Normals with a mean and a deviation for each entry; the dtype is that of ``mean`` if it is an array."""
    shape = np.broadcast_shapes(np.shape(mean), np.shape(std))
    out = np.empty(shape, (mean if isinstance(mean, np.ndarray) else np.asarray(std)).dtype)
    if not isinstance(std, np.ndarray):
        normal_(out, 0.0, std, gen)
    else:
        if std.dtype.kind == "c":
            raise RuntimeError("normal expects standard deviation to be non-complex")
        if std.size and not std.min() >= 0:
            raise RuntimeError("normal expects all elements of std >= 0.0")
        normal_(out, 0.0, 1.0, gen)
        np.multiply(out, std, out=out, casting="same_kind")
    np.add(out, mean, out=out, casting="same_kind")
    return out


def log_normal_(a: np.ndarray, mean: float, std: float, gen: MT) -> None:
    """Fill with exp of normals."""
    if not std > 0.0:
        raise RuntimeError(f"log_normal_ expects std > 0.0, but found std={std:g}")
    if not a.size:
        return
    _refuse(a, "log_normal_cpu", "f")
    mean, std = float(mean), float(std)

    def write(row: np.ndarray) -> None:
        row[...] = _narrow(libm.exp(fma64(pair_normals(row.size, gen), std, mean)), a.dtype)

    _fill(a, gen, write)


# ---- from one double each -------------------------------------------------------------------------------------------
def _from_doubles(a: np.ndarray, gen: MT, f: Callable[[np.ndarray], np.ndarray]) -> None:
    def write(row: np.ndarray) -> None:
        row[...] = _narrow(f(gen.unit64(np.empty(row.size, f64))), a.dtype)

    _fill(a, gen, write)


def cauchy_(a: np.ndarray, median: float, sigma: float, gen: MT) -> None:
    """Fill with Cauchy values."""
    if not sigma > 0.0:
        raise RuntimeError(f"cauchy_ expects sigma > 0.0, but found sigma={sigma:g}")
    if a.dtype.kind != "f" and a.dtype != BFLOAT16:
        raise RuntimeError(
            "Cauchy distribution is a continuous probability distribution. dtype must be a floating point but you "
            f"specified {NAMES[a.dtype.name][1] + ' int' * (a.dtype == np.int64)}"
        )
    _from_doubles(a, gen, lambda u: fma64(libm.tan(math.pi * (u - 0.5)), float(sigma), float(median)))


def exponential_(a: np.ndarray, rate: float, gen: MT) -> None:
    """Fill with exponential values, density ``rate exp(-rate x)``."""
    if not rate > 0.0:
        raise RuntimeError(f"exponential_ expects lambda > 0.0, but found lambda={rate:g}")
    if a.dtype.kind != "f" and a.dtype != BFLOAT16:
        raise RuntimeError(
            "Exponential distribution is a continuous probability distribution. dtype must be a floating point but "
            f"you specified {NAMES[a.dtype.name][0]}"
        )
    _from_doubles(a, gen, lambda u: (-1.0 / rate) * libm.log1p(-u))


def geometric_(a: np.ndarray, p: float, gen: MT) -> None:
    """Fill with the number of trials up to the first success."""
    if not 0 < p < 1:
        raise RuntimeError(f"geometric_ expects p to be in (0, 1), but got p={p:g}")
    if not a.size:
        return
    _refuse(a, "geometric_cpu", "iuf")
    scale = math.log1p(-p)

    def trials(u: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore"):
            return np.ceil(libm.log(u) / scale)

    _from_doubles(a, gen, trials)


def bernoulli_(a: np.ndarray, p: float, gen: MT) -> None:
    """Fill with ones, each with probability ``p``, and zeros: also the mask of dropout.

    >>> a = np.empty(5)
    >>> bernoulli_(a, 0.5, MT(5))
    >>> a
    array([0., 1., 1., 1., 1.])
    """
    if not 0 <= p <= 1:
        raise RuntimeError(f"bernoulli_ expects p to be in [0, 1], but got p={p:g}")
    if not a.size:
        return
    _refuse(a, "bernoulli_scalar_cpu_", "biuf")
    limit = np.uint64(math.ceil(p * 2.0**53))  # u < p, in integers

    def write(row: np.ndarray) -> None:
        draws = gen.u64(row.size)
        draws &= np.uint64((1 << 53) - 1)
        row[...] = draws < limit

    _fill(a, gen, write)


def bernoulli_each_(a: np.ndarray, p: np.ndarray, gen: MT) -> None:
    """Fill with ones with the probability that ``p``, broadcast, has there; float32 draws unless it is float64."""
    if not a.size:
        return
    _refuse(a, "bernoulli_tensor_cpu_self_", "biuf")
    _refuse(p, "bernoulli_tensor_cpu_p_", "f")
    work, unit = (f64, gen.unit64) if p.dtype == f64 else (f32, gen.unit32)
    if not bool(((p >= 0) & (p <= 1)).all()):
        raise RuntimeError(
            "Expected p_in >= 0 && p_in <= 1 to be true, but got false.  (Could this error message be improved?  If "
            "so, please report an enhancement request to PyTorch.)"
        )
    axes = tuple(range(a.ndim)) if a.flags.c_contiguous else fill_axes(a)
    wanted = np.broadcast_to(p, a.shape).transpose(axes).astype(work).reshape(-1)

    def write(row: np.ndarray) -> None:
        row[...] = unit(np.empty(row.size, work)) < wanted

    _fill(a, gen, write, a.size)


# ---- integers -------------------------------------------------------------------------------------------------------
def _modulo(draws: np.ndarray, m: int) -> np.ndarray:
    """``draws % m``, in place (by a division that NumPy vectorises for a constant)."""
    t = draws.dtype.type
    if m & (m - 1) == 0:
        draws &= t(m - 1)
    else:
        whole = draws // t(m)
        whole *= t(m)
        draws -= whole
    return draws


def random_(a: np.ndarray, gen: MT) -> None:
    """Fill with integers from 0 to the dtype's largest, or to 2**digits for a floating dtype."""
    if not a.size:
        return
    _refuse(a, "random_kernel_cpu", "biuf")
    digits = DIGITS.get(a.dtype.name)
    if digits is not None:
        m = (1 << digits) + 1
    else:
        m = 2 if a.dtype.kind == "b" else int(np.iinfo(a.dtype).max) + 1
    draw = gen.u64 if a.dtype in (np.int64, f64) else gen.u32

    def write(row: np.ndarray) -> None:
        row[...] = _cast_integers(_modulo(draw(row.size), m), a.dtype)

    _fill(a, gen, write)


def random_from_to_(a: np.ndarray, low: int, high: int | None, gen: MT) -> None:
    """Fill with integers of [low, high); to the dtype's largest (2**digits for a floating dtype) without ``high``.

    >>> a = np.empty(4, np.int64)
    >>> random_from_to_(a, 0, 10, MT(0))
    >>> a
    array([4, 9, 3, 0])
    """
    low, digits = int(low), DIGITS.get(a.dtype.name)
    if high is None and low == -(1 << 63):
        _random_any(a, gen)
        return
    if digits is None and a.dtype.kind not in "biu":
        raise RuntimeError("check_random_bounds handles only integral, floating-point and boolean types")
    if high is not None:
        high = int(high)
        if low >= high:
            raise RuntimeError(f"random_ expects 'from' to be less than 'to', but got from={low} >= to={high}")
        if digits is not None:
            low, high = _representable(low, digits, a.dtype, +1), _representable(high, digits, a.dtype, -1)
            if low >= high:
                raise RuntimeError(
                    "random_ expects 'from' casted to dtype to be less than 'to' casted to dtype, but got "
                    f"from={low} >= to={high}"
                )
        last = high - 1
    elif digits is not None:
        last = 1 << digits
        low = _representable(low, digits, a.dtype, +1)
        if low >= last:
            raise RuntimeError(
                "random_ expects 'from' casted to dtype to be less than or equal to 'to_inc' casted to dtype, but got "
                f"from={low} > to_inc={last}"
            )
    else:
        last = 1 if a.dtype.kind == "b" else int(np.iinfo(a.dtype).max)
    _check_range(a.dtype, low, last, digits)
    if not a.size:
        return
    span = last - low + 1
    wide = span >= WIDE_RANGE
    draw = gen.u64 if wide else gen.u32

    def write(row: np.ndarray) -> None:
        values = _modulo(draw(row.size), span)
        if low or wide:
            values = values.view(np.int64) if wide else values.astype(np.int64)
            values += low
        row[...] = _cast_integers(values, a.dtype)

    _fill(a, gen, write)


def _random_any(a: np.ndarray, gen: MT) -> None:
    """All 64 bits of two draws."""
    if not a.size:
        return
    if a.dtype not in (np.int64, f64, f32, BFLOAT16):
        raise RuntimeError("random_full_64_bits_range_kernel_cpu handles only int64, double, float and bfloat16")

    def write(row: np.ndarray) -> None:
        row[...] = _cast_integers(gen.u64(row.size).view(np.int64), a.dtype)

    _fill(a, gen, write)


def _cast_integers(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    if dtype.itemsize == 2 and dtype.kind in "fV":  # by way of float, as C++ casts
        return values.astype(f32).astype(dtype)
    return values


def _representable(bound: int, digits: int, dtype: np.dtype, step: int) -> int:
    """The bound moved inwards to where casting to the floating dtype stays inside the range."""
    inner = bound + 1 if step > 0 else bound - 1
    with np.errstate(over="ignore"):
        rounded = float(np.array(inner, np.int64).astype(f32 if digits < 24 else dtype).astype(dtype))
    if not math.isfinite(rounded):
        return bound
    cast = int(rounded)
    if (cast < bound) if step > 0 else (cast >= bound):
        exponent = abs(inner).bit_length() - 1
        return cast + step * (1 << max(exponent - digits + 1, 0))
    return bound


def _check_range(dtype: np.dtype, low: int, last: int, digits: int | None) -> None:
    if digits is not None:
        smallest, largest = -LARGEST[dtype.name], LARGEST[dtype.name]
    elif dtype.kind == "b":
        smallest, largest = 0, 1
    else:
        smallest, largest = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
    c_name = NAMES[dtype.name][1]
    for value, name in ((low, "from"), (last, "to - 1")):
        if not smallest <= value <= largest:
            raise RuntimeError(f"{name} is out of bounds for {c_name}")
    if digits is not None:
        for value, name in ((low, "from"), (last, "to - 1")):
            if abs(value) > 1 << digits:
                warnings.warn(
                    f"{name} is out of bounds [-(2^{digits}), 2^{digits}]. Due to precision limitations {c_name} can "
                    "support discrete uniform distribution only within this range. This warning will become an error "
                    "in version 1.7 release, please fix the code in advance",
                    UserWarning,
                    stacklevel=4,
                )


def randperm(n: int, dtype: Any, gen: MT) -> np.ndarray:
    """A random order of 0 .. n - 1: swap each i with i + draw % (n - i).

    >>> randperm(5, np.int64, MT(0))
    array([4, 0, 1, 3, 2])
    """
    dtype = np.dtype(dtype)
    if n < 0:
        raise RuntimeError(f"Trying to create tensor with negative dimension {n}: [{n}]")
    check_randperm(n, dtype)
    steps = max(n - 1, 0)
    order = np.arange(n, dtype=np.int64)
    with gen.lock:
        if n < RANDPERM_WIDE:
            draws = gen.u32(steps)
        else:
            draws = gen.u64(steps) % np.arange(n, n - steps, -1, dtype=np.uint64)
    code = random_llvm.swaps() if n >= 64 and draws.dtype == np.uint32 else None
    if code is not None:
        code(order.ctypes.data, draws.ctypes.data, n)
    else:
        order = np.array(
            _swapped(order.tolist(), (draws % np.arange(n, n - steps, -1, dtype=draws.dtype)).tolist()), np.int64
        )
    return _cast_integers(order, dtype).astype(dtype, copy=False)


def _swapped(order: list[int], steps: list[int]) -> list[int]:
    for i, z in enumerate(steps):
        z += i
        order[i], order[z] = order[z], order[i]
    return order


def check_randperm(n: int, dtype: np.dtype) -> None:
    """Whether the dtype can count to ``n``."""
    digits = DIGITS.get(dtype.name)
    if digits is None and dtype.kind not in "iu":
        raise NotImplementedError(f"\"randperm\" not implemented for '{NAMES[dtype.name][0]}'")
    if digits is not None and n > (1 << digits) + 1:
        raise RuntimeError(f"n cannot be greater than {(1 << digits) + 1} for {NAMES[dtype.name][0]} type.")
    if digits is None and n > int(np.iinfo(dtype).max):
        raise RuntimeError(f"value cannot be converted to type {dtype.name}_t without overflow")


# ---- by weights and rates -------------------------------------------------------------------------------------------
def multinomial(p: np.ndarray, n: int, replacement: bool, gen: MT) -> np.ndarray:
    """Indices drawn with the weights in each row of ``p`` (categories,) or (rows, categories): int64 (..., n).

    With replacement by looking a double up in the cumulated weights; without, the n largest p / Exp(1).
    """
    if not 0 < p.ndim <= 2:
        raise RuntimeError("prob_dist must be 1 or 2 dim")
    _floating = p.dtype.kind == "f" or p.dtype == BFLOAT16
    if not _floating:
        raise RuntimeError(f"multinomial only supports floating-point dtypes for input, got: {NAMES[p.dtype.name][0]}")
    if n <= 0:
        raise RuntimeError("cannot sample n_sample <= 0 samples")
    if not replacement and n > p.shape[-1]:
        raise RuntimeError("cannot sample n_sample > prob_dist.size(-1) samples without replacement")
    if p.shape[-1] > 1 << 24:
        raise RuntimeError("number of categories cannot exceed 2^24")
    rows = p.reshape(-1, p.shape[-1])
    out = np.empty((rows.shape[0], n), np.int64)
    if out.size:
        if not bool((rows.max() < np.inf) & (rows.min() >= 0)):
            raise RuntimeError("probability tensor contains either `inf`, `nan` or element < 0")
        work = rows.astype(f32) if rows.dtype.itemsize == 2 else rows
        if not bool((work.sum(1) > 0).all()):
            raise RuntimeError("invalid multinomial distribution (sum of probabilities <= 0)")
        if replacement and n > 1:  # a single one is the largest p / Exp(1) too
            _look_up(work, out, gen)
        else:
            q = np.empty(p.shape, p.dtype)
            exponential_(q, 1.0, gen)
            np.divide(p, q, out=q)
            q = q.reshape(rows.shape)
            if n == 1:
                out[:, 0] = q.argmax(1)
            else:
                out[...] = np.argsort(-q, axis=1, kind="stable")[:, :n]
    return out.reshape(*p.shape[:-1], n)


def _look_up(weights: np.ndarray, out: np.ndarray, gen: MT) -> None:
    with gen.lock:
        u = gen.unit64(np.empty(out.size, f64)).reshape(out.shape)
    for i, row in enumerate(weights):
        cumulated = np.add.accumulate(row)
        cumulated /= cumulated[-1]
        cumulated[-1] = 1
        out[i] = np.searchsorted(cumulated.astype(f64), u[i], "left")


def poisson(rate: np.ndarray, gen: MT) -> np.ndarray:
    """Poisson counts, in the rates' dtype: by products of uniforms below 10, by transformed rejection above."""
    _refuse(rate, "poisson_cpu", "f")
    rates = rate.astype(f64).reshape(-1).tolist()
    if not all(r >= 0 for r in rates):
        raise RuntimeError("invalid Poisson rate, expected rate to be non-negative")
    with gen.lock, gen.doubles() as u:
        values = [_poisson(r, u) for r in rates]
    return _narrow(np.array(values, f64), rate.dtype).reshape(rate.shape)


def _poisson(rate: float, u: Callable[[], float]) -> float:
    if rate == 0:
        return 0.0
    if rate < 10:
        bound, product, k = math.exp(-rate), 1.0, -1
        while product > bound or k < 0:
            product *= u()
            k += 1
        return k
    root, log_rate = math.sqrt(rate), math.log(rate)
    b = 0.931 + 2.53 * root
    a = -0.059 + 0.02483 * b
    inv_alpha = 1.1239 + 1.1328 / (b - 3.4)
    v_r = 0.9277 - 3.6224 / (b - 2)
    while True:
        x = u() - 0.5
        v = u()
        us = 0.5 - abs(x)
        if us == 0.0:
            continue
        k = math.floor((2 * a / us + b) * x + rate + 0.43)
        if us >= 0.07 and v <= v_r:
            return k
        if k < 0 or (us < 0.013 and v > us) or v == 0.0:
            continue
        if math.log(v) + math.log(inv_alpha) - math.log(a / (us * us) + b) <= -rate + k * log_rate - math.lgamma(k + 1):
            return k


def standard_gamma(alpha: np.ndarray, gen: MT) -> np.ndarray:
    """Gamma values of scale 1 (Marsaglia and Tsang), never below the dtype's smallest normal number."""
    _refuse(alpha, "gamma_cpu", "fd")
    return _gammas(alpha, alpha.dtype.type, alpha.dtype, gen)


def _gammas(alpha: np.ndarray, shape_type: Any, dtype: np.dtype, gen: MT) -> np.ndarray:
    with gen.lock, gen.doubles() as u:
        normal = _normals_one_by_one(gen, u)
        values = [_gamma(x, u, normal) for x in alpha.astype(shape_type).reshape(-1)]
    tiny = ml_dtypes.finfo(dtype).tiny
    return np.maximum(_narrow(np.array(values, f64), dtype), tiny).reshape(alpha.shape)


def _normals_one_by_one(gen: MT, u: Callable[[], float]) -> Callable[[], float]:
    def draw() -> float:
        kept = gen.next_normal
        if kept is not None:
            gen.next_normal = None
            return kept
        u1, u2 = u(), u()
        radius, theta = math.sqrt(-2.0 * math.log1p(-u2)), 2.0 * math.pi * u1
        gen.next_normal = radius * math.sin(theta)
        return radius * math.cos(theta)

    return draw


def _gamma(alpha: np.floating, u: Callable[[], float], normal: Callable[[], float]) -> float:
    one, scale = type(alpha)(1), 1.0
    if alpha < 1:
        if alpha == 0:
            return 0.0
        scale = math.pow(1 - u(), float(one / alpha))
        alpha = alpha + one
    d = float(alpha - type(alpha)(f32(1) / f32(3)))
    c = 1.0 / math.sqrt(9.0 * d)
    while True:
        y = 0.0
        while y <= 0:
            x = normal()
            y = 1.0 + c * x
        v = y * y * y
        w = 1 - u()
        xx = x * x
        if w < 1.0 - _SQUEEZE * xx * xx or math.log(w) < 0.5 * xx + d * (1.0 - v + math.log(v)):
            return scale * d * v


_SQUEEZE = float(f32(0.0331))


def dirichlet(alpha: np.ndarray, gen: MT) -> np.ndarray:
    """Points of the simplex along the last dimension: gammas over their sum."""
    _refuse(alpha, "dirichlet", "fd")
    g = _gammas(alpha, f64, np.dtype(f64), gen)
    info = ml_dtypes.finfo(alpha.dtype)
    ratio = _narrow(g / g.sum(-1, keepdims=True), alpha.dtype)
    below_one = np.nextafter(alpha.dtype.type(1), alpha.dtype.type(0))
    return np.minimum(below_one, np.maximum(info.tiny, ratio))


def binomial(count: np.ndarray, p: np.ndarray, gen: MT) -> np.ndarray:
    """Successes in ``count`` trials: by geometric jumps, or Hörmann's BTRS from 10 expected ones on."""
    _refuse(count, "binomial_cpu", "fd")
    kind = count.dtype.type
    with gen.lock, gen.doubles() as u:
        values = [_binomial(n, q, u, kind) for n, q in zip(count.reshape(-1), p.astype(count.dtype).reshape(-1))]
    return np.array(values, f64).astype(count.dtype).reshape(count.shape)


def _binomial(n: Any, p: Any, u: Callable[[], float], kind: Any) -> float:
    if n <= 0 or p <= 0:
        return 0.0
    if p >= 1:
        return n
    if p != p:
        return math.nan
    q = p if p <= 0.5 else kind(1.0 - float(p))
    k = _btrs(n, q, u) if n * q >= 10 else _jumps(n, q, u)
    return k if p <= 0.5 else n - k


def _jumps(n: Any, p: Any, u: Callable[[], float]) -> float:
    scale = float(libm.log1p(-p))
    total, k = 0.0, 0
    while True:
        x = u()
        total += math.ceil(math.log(x) / scale) if x else math.inf
        if total > n:
            return k
        k += 1


def _btrs(n: Any, p: Any, u: Callable[[], float]) -> float:
    one = type(n)(1)
    deviation = float(np.sqrt(n * p * (one - p)))
    b = 1.15 + 2.53 * deviation
    a = -0.0873 + 0.0248 * b + 0.01 * float(p)
    c = float(n * p) + 0.5
    v_r = 0.92 - 4.2 / b
    r = float(p / (one - p))
    alpha = (2.83 + 5.1 / b) * deviation
    m = float(np.floor((n + one) * p))
    n = float(n)
    while True:
        x = u() - 0.5
        v = u()
        us = 0.5 - abs(x)
        k = float(math.floor((2 * a / us + b) * x + c)) if us else -1.0
        if k < 0 or k > n:
            continue
        if us >= 0.07 and v <= v_r:
            return k
        v = math.log(v * alpha / (a / (us * us) + b)) if v else -math.inf
        bound = (
            (m + 0.5) * math.log((m + 1) / (r * (n - m + 1)))
            + (n + 1) * math.log((n - m + 1) / (n - k + 1))
            + (k + 0.5) * math.log(r * (n - k + 1) / (k + 1))
            + _stirling_tail(m) + _stirling_tail(n - m) - _stirling_tail(k) - _stirling_tail(n - k)
        )  # fmt: skip
        if v <= bound:
            return k


def _stirling_tail(k: float) -> float:
    """log k! less Stirling's approximation of it."""
    if k < 10:
        return _TAILS[int(k)]
    square = (k + 1) * (k + 1)
    return (1.0 / 12 - (1.0 / 360 - 1.0 / 1260 / square) / square) / (k + 1)


_TAILS = (
    0.0810614667953272, 0.0413406959554092, 0.0276779256849983, 0.02079067210376509, 0.0166446911898211,
    0.0138761288230707, 0.0118967099458917, 0.0104112652619720, 0.00925546218271273, 0.00833056343336287,
)  # fmt: skip
