"""Factorisations of matrices and batches of them: NumPy's where it has them, SciPy's LAPACK and BLAS for the rest.

Functions with an ``info`` give, for every matrix, 0 or the number (from 1) of the diagonal element that stopped it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

ndarray = np.ndarray


def _lapack(name: str, dtype: np.dtype) -> Any:
    from scipy.linalg import lapack

    return getattr(lapack, {"f": "s", "d": "d", "F": "c", "D": "z"}[dtype.char] + name)


def over_batch(f: Callable[..., Any], *arrays: ndarray) -> tuple[ndarray, ...]:
    """``f`` of every matrix of a batch, its results stacked; one batch shape for all."""
    batch = arrays[0].shape[:-2]
    if not batch:
        return tuple([np.asarray(r) for r in f(*arrays)])
    flat = [a.reshape(-1, *a.shape[-2:]) for a in arrays]
    results = [f(*[a[i] for a in flat]) for i in range(len(flat[0]))]
    if not results:
        results = [f(*[np.ones(a.shape[-2:], a.dtype) for a in arrays])]
        return tuple([np.empty((*batch, *np.shape(r)), np.asarray(r).dtype) for r in results[0]])
    return tuple([np.stack(r).reshape(*batch, *np.shape(r[0])) for r in zip(*results)])


def lu(a: ndarray) -> tuple[ndarray, ndarray, ndarray]:
    """(L and U packed, pivots from 1, info)."""
    k = min(a.shape[-2:])
    if not a.size:
        return a.copy(), np.zeros((*a.shape[:-2], k), np.int32), np.zeros(a.shape[:-2], np.int32)
    getrf = _lapack("getrf", a.dtype)

    def one(m: ndarray) -> tuple[Any, ...]:
        packed, pivots, info = getrf(m)
        return np.ascontiguousarray(packed), (pivots + 1).astype(np.int32), np.int32(info)

    return over_batch(one, a)  # type: ignore[return-value]


def permutation(pivots: ndarray, n: int) -> ndarray:
    """The order that the row swaps of ``pivots`` put ``n`` rows in."""
    out = np.empty((*pivots.shape[:-1], n), np.int64)
    for index in np.ndindex(pivots.shape[:-1]):
        order = np.arange(n)
        for i, p in enumerate(pivots[index]):
            j = p - 1
            order[i], order[j] = order[j], order[i]
        out[index] = order
    return out


def _where_singular(a: ndarray) -> ndarray:
    return lu(a)[2]


def inverse(a: ndarray) -> tuple[ndarray, ndarray]:
    """(inverse, info); a singular matrix gives nan."""
    try:
        return np.linalg.inv(a), np.zeros(a.shape[:-2], np.int32)
    except np.linalg.LinAlgError:
        info = _where_singular(a)
        bad = (info != 0)[..., None, None]
        out = np.linalg.inv(np.where(bad, np.eye(a.shape[-1], dtype=a.dtype), a))
        return np.where(bad, np.asarray(np.nan, a.dtype), out), info


def solve(a: ndarray, b: ndarray) -> tuple[ndarray, ndarray]:
    """(the X of a X = b for matrices b, info)."""
    zeros = np.zeros(a.shape[:-2], np.int32)
    if not a.size or not b.size:
        batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        return np.zeros((*batch, *b.shape[-2:]), b.dtype), zeros
    try:
        return np.linalg.solve(a, b), zeros
    except np.linalg.LinAlgError:
        info = _where_singular(a)
        bad = (info != 0)[..., None, None]
        out = np.linalg.solve(np.where(bad, np.eye(a.shape[-1], dtype=a.dtype), a), b)
        return np.where(bad, np.asarray(np.nan, a.dtype), out), info


def solve_triangular(a: ndarray, b: ndarray, upper: bool, left: bool, unit: bool) -> ndarray:
    """The X of a X = b, or of X a = b; zeros on the diagonal give inf and nan."""
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    if not a.size or not b.size:
        return np.zeros((*batch, *b.shape[-2:]), b.dtype)
    from scipy.linalg import blas

    trsm = getattr(blas, {"f": "s", "d": "d", "F": "c", "D": "z"}[a.dtype.char] + "trsm")
    a, b = np.broadcast_to(a, (*batch, *a.shape[-2:])), np.broadcast_to(b, (*batch, *b.shape[-2:]))
    with np.errstate(all="ignore"):
        return over_batch(lambda m, r: (np.ascontiguousarray(trsm(1, m, r, int(not left), int(not upper), 0, int(unit))),), a, b)[0]


def cholesky(a: ndarray, upper: bool) -> tuple[ndarray, ndarray]:
    """(the factor, info); of ``a`` only the triangle that is asked for is read."""
    try:
        return np.linalg.cholesky(a, upper=upper), np.zeros(a.shape[:-2], np.int32)
    except np.linalg.LinAlgError:
        potrf = _lapack("potrf", a.dtype)
        c, info = over_batch(lambda m: potrf(m, lower=not upper, clean=True), a)
        return np.ascontiguousarray(c), info.astype(np.int32)


def svd(a: ndarray, full: bool) -> tuple[ndarray, ndarray, ndarray]:
    return tuple(np.linalg.svd(a, full_matrices=full))  # type: ignore[return-value]


def expm(a: ndarray) -> ndarray:
    if not a.size:
        return a.copy()
    from scipy.linalg import expm as scipy_expm

    return np.asarray(scipy_expm(a), a.dtype)


def geqrf(a: ndarray) -> tuple[ndarray, ndarray]:
    """(Householder vectors below R, their factors)."""
    if not a.size:
        return a.copy(), np.zeros((*a.shape[:-2], min(a.shape[-2:])), a.dtype)
    f = _lapack("geqrf", a.dtype)

    def one(m: ndarray) -> tuple[Any, ...]:
        qr, tau = f(m)[:2]
        return np.ascontiguousarray(qr), tau

    return over_batch(one, a)  # type: ignore[return-value]


def adjugate_adjoint(a: ndarray) -> ndarray:
    """The conjugate transpose of the adjugate, the derivative of the determinant, of singular matrices too."""
    u, s, vh = np.linalg.svd(a)
    n = a.shape[-1]
    before, after = np.ones_like(s), np.ones_like(s)
    if n > 1:
        np.multiply.accumulate(s[..., :-1], axis=-1, out=before[..., 1:])
        np.multiply.accumulate(s[..., :0:-1], axis=-1, out=after[..., -2::-1])
    phase = np.conj(np.linalg.det(u) * np.linalg.det(vh))[..., None, None]
    return phase * ((u * (before * after)[..., None, :]) @ vh)
