"""Pairs of uniforms to pairs of normals, in the arithmetic of PyTorch's vector code.

PyTorch's float32 sampler uses short polynomials for log, sin and cos (those of the Cephes library, S. Moshier), with
fused multiply-adds. Doing the same operations in the same order gives the same bits: :func:`fma32` rounds once, as the
processor does, by computing in float64.
"""

from __future__ import annotations

import math

import numpy as np

from . import libm, random_llvm

f32, f64 = np.float32, np.float64

SQRT_HALF = f32(math.sqrt(0.5))
LN2_HIGH, LN2_LOW = f32(0.693359375), f32(-2.12194440e-4)
FOUR_OVER_PI, TWO_PI = f32(4 / math.pi), f32(2 * math.pi)
# Cody and Waite: pi/4 in three parts, so that x - j pi/4 is exact enough.
PI4_PARTS = tuple(map(f32, (-0.78515625, -2.4187564849853515625e-4, -3.77489497744594108e-8)))
LOG = tuple(
    map(
        f32,
        (
            7.0376836292e-2,
            -1.1514610310e-1,
            1.1676998740e-1,
            -1.2420140846e-1,
            1.4249322787e-1,
            -1.6668057665e-1,
            2.0000714765e-1,
            -2.4999993993e-1,
            3.3333331174e-1,
        ),
    )
)
SIN = tuple(map(f32, (-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1)))
COS = tuple(map(f32, (2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2)))


def fma32(a: np.ndarray, b: np.ndarray | np.float32, c: np.ndarray | np.float32) -> np.ndarray:
    """a b + c in float32, rounded once."""
    p = np.multiply(a, b, dtype=f64)  # exact: 24 + 24 bits
    np.add(p, c, out=p)
    return p.astype(f32)


def fma64(a: np.ndarray, b: float, c: float) -> np.ndarray:
    """a b + c in float64, rounded once: product and sum with their exact errors (Dekker, Knuth)."""
    if c == 0.0:
        return a * b + 0.0
    if b == 1.0:
        return a + c
    with np.errstate(over="ignore", invalid="ignore"):
        return _fma64(a, np.float64(b), np.float64(c))


def _fma64(a: np.ndarray, b: np.float64, c: np.float64) -> np.ndarray:
    p = a * b
    a_high, b_high = _split(a), _split(b)
    a_low, b_low = a - a_high, b - b_high
    p_error = ((a_high * b_high - p) + a_high * b_low + a_low * b_high) + a_low * b_low
    s = p + c
    back = s - p
    s_error = (p - (s - back)) + (c - back)
    result = s + (s_error + p_error)
    return np.where(np.isfinite(result), result, s)


def _split(x: np.ndarray | np.float64) -> np.ndarray | np.float64:
    t = x * 134217729.0  # 2**27 + 1
    return t - (t - x)


def _horner(coefficients: tuple[np.float32, ...], x: np.ndarray) -> np.ndarray:
    y = fma32(x, coefficients[0], coefficients[1])
    for c in coefficients[2:]:
        y = fma32(y, x, c)
    return y


def log32(x: np.ndarray) -> np.ndarray:
    """Natural logarithm of float32 in (0, 1]."""
    mantissa, exponent = np.frexp(x)  # mantissa in [0.5, 1)
    small = mantissa < SQRT_HALF
    e = (exponent - small).astype(f32)
    m = np.where(small, (mantissa - f32(1)) + mantissa, mantissa - f32(1))
    z = m * m
    y = _horner(LOG, m) * m
    y = fma32(y, z, e * LN2_LOW)
    y = fma32(z, f32(-0.5), y)
    return fma32(e, LN2_HIGH, m + y)


def sincos32(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sine and cosine of float32 in [0, 2 pi]."""
    octant = (x * FOUR_OVER_PI).astype(np.int32)
    octant += 1
    octant &= ~1
    j = octant.astype(f32)
    for part in PI4_PARTS:
        x = fma32(j, part, x)
    z = x * x
    cosine = _horner(COS, z) * z
    cosine = fma32(cosine, z, z * f32(-0.5)) + f32(1)
    sine = fma32(_horner(SIN, z) * z, x, x)
    straight = (octant & 2) == 0
    s, c = np.where(straight, sine, cosine), np.where(straight, cosine, sine)
    np.negative(s, out=s, where=(octant & 4) != 0)
    np.negative(c, out=c, where=((octant + 2) & 4) != 0)
    return s, c


def normals32(u: np.ndarray, mean: float, std: float) -> None:
    """Turn uniforms into normals in place: float32, a multiple of 16 long; entries j and j + 8 of 16 make a pair."""
    code = random_llvm.normals32()
    if code is not None:
        code(u.__array_interface__["data"][0], u.size, mean, std)
        return
    pairs = u.reshape(-1, 2, 8)
    u1, u2 = pairs[:, 0], pairs[:, 1]
    radius = np.sqrt(f32(-2) * log32(f32(1) - u1))
    s, c = sincos32(u2 * TWO_PI)
    mean32, std32 = f32(mean), f32(std)
    pairs[:, 0] = fma32(radius * c, std32, mean32)
    pairs[:, 1] = fma32(radius * s, std32, mean32)


def normals64(u: np.ndarray, mean: float, std: float) -> None:
    """The same in float64, with the C library's log, cos and sin."""
    code = random_llvm.normals64()
    if code is not None:
        code(u.__array_interface__["data"][0], u.size, mean, std)
        return
    pairs = u.reshape(-1, 2, 8)
    radius = np.sqrt(-2 * libm.log(1 - pairs[:, 0]))
    theta = (2 * math.pi) * pairs[:, 1]
    pairs[:, 0] = fma64(radius * libm.cos(theta), std, mean)
    pairs[:, 1] = fma64(radius * libm.sin(theta), std, mean)
