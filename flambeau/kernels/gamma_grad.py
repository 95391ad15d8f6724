"""How a gamma sample moves with its shape parameter: the derivative that reparameterised samples need.

With F(x; a) the distribution function, a sample x of a fixed probability obeys dx/da = -(dF/da) / (dF/dx). Below
x = a + 1, F is its power series, differentiated term by term; above, 1 - F is a continued fraction (Lentz's method,
value and derivative together), which loses no digits in the tail.
"""

from __future__ import annotations

import numpy as np

_ROUNDS = 100_000  # far more than any finite input takes


def gamma_grad(alpha: np.ndarray, x: np.ndarray) -> np.ndarray:
    """dx/dalpha of samples ``x`` with shape parameters ``alpha``, in the dtype of ``alpha``.

    >>> gamma_grad(np.array([1.0]), np.array([0.5])).round(6)
    array([0.806979])
    """
    a, v = np.broadcast_arrays(alpha.astype(np.float64), x.astype(np.float64))
    out = np.empty(a.shape)
    low = v <= a + 1
    with np.errstate(all="ignore"):
        out[low] = _series(a[low], v[low])
        out[~low] = _fraction(a[~low], v[~low])
    return out.astype(alpha.dtype)


def _series(a: np.ndarray, x: np.ndarray) -> np.ndarray:
    """F / (dF/dx) is the sum of x^(k+1) / (a (a+1) ... (a+k)); each term's logarithm has the slope log x - psi(a+k+1)."""
    from scipy.special import digamma

    term = x / a
    slope = np.log(x) - digamma(a + 1)
    total = term * slope
    for k in range(1, _ROUNDS):
        term = term * x / (a + k)
        slope = slope - 1 / (a + k)
        step = term * slope
        total = total + step
        if not (np.abs(step) > 1e-17 * np.abs(total)).any() and not (x > a + k).any():
            break
    return -total


def _fraction(a: np.ndarray, x: np.ndarray) -> np.ndarray:
    """1 - F is dF/dx times x / (b0 + a1 / (b1 + a2 / ...)), b_n = x + 2 n + 1 - a, a_n = -n (n - a)."""
    from scipy.special import digamma

    b = x + 1 - a
    f, c, d = b, b, np.zeros_like(b)
    dc, dd, slope = -np.ones_like(b), np.zeros_like(b), -1 / b  # by a; slope is that of log f
    for n in range(1, _ROUNDS):
        b = b + 2
        top = -n * (n - a)
        d, dd = b + top * d, -1 + n * d + top * dd
        d, dd = 1 / d, -dd / (d * d)
        c, dc = b + top / c, -1 + n / c - top * dc / (c * c)
        f = f * c * d
        step = dc / c + dd / d
        slope = slope + step
        if not (np.abs(step) > 1e-16 * (1 + np.abs(slope))).any():
            break
    return x / f * (np.log(x) - digamma(a) - slope)
