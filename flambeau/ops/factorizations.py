"""Factorisations and what solves with them: inverse, determinants, LU, Cholesky, QR, eigenvalues, singular values.

The derivatives are those of M. Giles, "An extended collection of matrix derivative results for forward and reverse mode
algorithmic differentiation" (2008), and for Cholesky of I. Murray (2016), in public operators, so that they can be
differentiated again.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..autograd.primitive import primitive
from ..autograd.transforms.batching import leading
from ..core.dtypes import SCALAR_NAMES
from ..core.errors import error
from ..core.modes import mode
from ..core.tensor import Tensor, wrap
from ..kernels import lapack as K
from . import return_types
from .joining import cat
from .matmul import adjoint
from .public import publish, with_out
from .triangles import _tril, _triu

ndarray = np.ndarray


class LinAlgError(RuntimeError):
    """A matrix that can't be inverted or factored."""


LinAlgError.__module__, LinAlgError.__name__, LinAlgError.__qualname__ = "torch._C", "_LinAlgError", "_LinAlgError"
publish("LinAlgError", LinAlgError, "linalg")


# Functions of matrices, or batches of them: inside vmap there is one more leading dimension.
LEADING = frozenset(
    "inv inv_ex solve_triangular det slogdet cholesky cholesky_ex qr householder_product lu lu_factor lu_factor_ex lu_solve eigh "
    "eigvalsh eig eigvals svd svdvals pinv cond matrix_rank matrix_power matrix_exp lstsq".split()
)


# ---- checks and publishing ------------------------------------------------------------------------------------------
def linalg(fn: Any = None, *, out: bool = True, torch: str | tuple[str, ...] = (), method: bool = True) -> Any:
    """Publish as ``torch.linalg.name``; under each name in ``torch`` also as ``torch.name`` and ``Tensor.name``."""
    if fn is None:
        return lambda f: linalg(f, out=out, torch=torch, method=method)
    if fn.__name__ in LEADING:
        fn = leading(fn, fn.__name__ not in ("lstsq", "householder_product", "lu_solve"))
    shown = with_out(fn) if out else fn
    publish(fn.__name__, shown, "linalg")
    for name in (torch,) if isinstance(torch, str) else torch:
        publish(name, shown)
        if method:
            setattr(Tensor, name, shown)
    return fn


def check_float(name: str, a: Tensor, low_precision: bool = False) -> None:
    if a._a.dtype.kind in "iub":
        raise error(
            NotImplementedError, f"{name}: Expected a floating point or complex tensor as input. Got {SCALAR_NAMES[a.dtype]}",
            hint="Convert it first, as with .float().",
        )  # fmt: skip
    if not low_precision and a._a.dtype.itemsize == 2:
        raise error(
            NotImplementedError, f"{name}: Low precision dtypes not supported. Got {SCALAR_NAMES[a.dtype]}", hint="Convert it first, as with .float()."
        )


def check_matrix(name: str, a: Tensor, which: str = "A") -> None:
    if a._a.ndim < 2:
        raise error(RuntimeError, f"{name}: The input tensor {which} must have at least 2 dimensions.")


def check_square(name: str, a: Tensor, which: str = "A") -> None:
    check_matrix(name, a, which)
    m, n = a._a.shape[-2:]
    if m != n:
        raise error(RuntimeError, f"{name}: {which} must be batches of square matrices, but they are {m} by {n} matrices")


def check_system(name: str, a: Tensor, b: Tensor, left: bool, b_shape: tuple[int, ...]) -> None:
    if a._a.dtype != b._a.dtype:
        raise error(
            RuntimeError,
            f"{name}: Expected A and B to have the same dtype, but found A of type {SCALAR_NAMES[a.dtype]} and B of type "
            f"{SCALAR_NAMES[b.dtype]} instead",
        )
    if a._a.shape[-1] != b_shape[-2 if left else -1]:
        m, n = a._a.shape[-2:]
        raise error(
            RuntimeError,
            f"{name}: Incompatible shapes of A and B for the equation {'AX' if left else 'XA'} = B "
            f"({m}x{n} and {b_shape[-2]}x{b_shape[-1]})",
        )


def refuse_info(name: str, info: ndarray, reason: str, cls: type[BaseException] = LinAlgError) -> None:
    """Raise for the first matrix whose info is not 0; ``{}`` in the reason is that number."""
    if not info.any():
        return
    which = ""
    if info.ndim:
        at = int(np.flatnonzero(info)[0])
        which = f"(Batch element {at}): "
    raise error(cls, f"{name}: {which}{reason.format(int(info.reshape(-1)[np.flatnonzero(info)[0]]))}")


_SINGULAR = "The diagonal element {} is zero, the inversion could not be completed because the input matrix is singular."
_NO_SOLUTION = "The solver failed because the input matrix is singular."
_NOT_POSITIVE = (
    "The factorization could not be completed because the input is not positive-definite (the leading minor of order {} is "
    "not positive-definite)."
)


def sum_to(g: Tensor, shape: tuple[int, ...]) -> Tensor:
    return g if g._a.shape == shape else g.sum_to_size(shape)


def real(t: Tensor) -> Tensor:
    return t.real if t._a.dtype.kind == "c" else t


def like_input(g: Tensor, dtype: Any) -> Tensor:
    """The real part, where a real matrix had complex results."""
    return g if dtype.is_complex else real(g)


def is_nothing(g: Tensor) -> bool:
    """Whether a gradient is the zeros that were filled in."""
    return not g._rg and g._fw is None and not g._everything().any()


def eye(n: int, like: Tensor) -> Tensor:
    return wrap(np.eye(n, dtype=like._a.dtype))


def outside_diagonal(t: Tensor, value: Any = 1) -> Tensor:
    """With ``value`` on the diagonal."""
    return t.masked_fill(wrap(np.eye(t._a.shape[-1], dtype=bool)), value)


# ---- inverse and solve ----------------------------------------------------------------------------------------------
@primitive(
    "linalg_inv_ex", vjp=lambda g, out: -(adjoint(out[0]) @ g[0] @ adjoint(out[0])), jvp=lambda a_t, out: (-(out[0] @ a_t @ out[0]), None),
    batch={},
)  # fmt: skip
def _inv_ex(a: Any, /) -> Any:
    return K.inverse(a)


def _inv(name: str, a: Tensor) -> tuple[Tensor, Tensor]:
    check_float(name, a)
    check_square(name, a)
    return _inv_ex(a)


@linalg(torch="inverse")
def inv(A: Tensor) -> Tensor:
    """The inverse of each matrix; LinAlgError where there is none.

    >>> import flambeau as torch
    >>> torch.linalg.inv(torch.tensor([[2., 0.], [0., 4.]]))
    tensor([[0.5000, 0.0000],
            [0.0000, 0.2500]])
    """
    r, info = _inv("linalg.inv", A)
    refuse_info("linalg.inv", info._everything(), _SINGULAR)
    return r


@linalg
def inv_ex(A: Tensor, *, check_errors: bool = False) -> Any:
    """(inverse, info): info is 0, or which diagonal element made the matrix singular (the inverse is then nan)."""
    r, info = _inv("linalg.inv_ex", A)
    if check_errors:
        refuse_info("linalg.inv_ex", info._everything(), _SINGULAR)
    return return_types.linalg_inv_ex((r, info))


def _solve_rule(g: Any, a: Tensor, out: Any, b_shape: Any, left: bool, vector: bool) -> tuple[Any, ...]:
    gx, x = g[0], out[0]
    gb = _solve_ex(adjoint(a), gx, left, vector)[0]
    wide, x = (gb.unsqueeze(-1), x.unsqueeze(-1)) if vector else (gb, x)
    ga = -(wide @ adjoint(x)) if left else -(adjoint(x) @ wide)
    return sum_to(ga, a._a.shape), sum_to(gb, b_shape)


def _solve_batch(info: Any, a: Tensor, b: Tensor, left: bool, vector: bool) -> Any:
    if not vector:
        a, b = info.aligned(a=a, b=b)
        return _solve_ex(a.expand(info.size, *a._a.shape[1:]), b, left, False)
    own = b._a.shape[info.has("b") :]
    if len(own) == 1 and info.has("b"):
        b = b.reshape(info.size, *(1,) * (a._a.ndim - info.has("a") - 2), *own)
    x, failed = _solve_ex(info.full(a, info.has("a")), b.unsqueeze(-1), left, False)
    return x.squeeze(-1), failed


@primitive("linalg_solve_ex", vjp=_solve_rule, batch=_solve_batch)
def _solve_ex(a: Any, b: Any, /, left: bool, vector: bool) -> Any:
    if vector:
        x, info = K.solve(a, b[..., None])
        return x[..., 0], info
    if left:
        return K.solve(a, b)
    x, info = K.solve(a.swapaxes(-1, -2), b.swapaxes(-1, -2))
    return x.swapaxes(-1, -2), info


def _solve(name: str, a: Tensor, b: Tensor, left: bool) -> tuple[Tensor, Tensor]:
    check_float(name, a)
    check_square(name, a)
    if not b._a.ndim:
        raise error(RuntimeError, f"{name}: The input tensor B must have at least 2 dimensions.")
    vector = b._a.ndim == 1 or a._a.ndim - 1 == b._a.ndim and b._a.shape == a._a.shape[:-1]
    check_system(name, a, b, left, (*b._a.shape, 1) if vector else b._a.shape)
    return _solve_ex(a, b, left, vector)


@linalg
def solve(A: Tensor, B: Tensor, *, left: bool = True) -> Tensor:
    """The X of ``A X = B`` (of ``X A = B`` with ``left=False``) for vectors or matrices B.

    >>> import flambeau as torch
    >>> torch.linalg.solve(torch.tensor([[2., 0.], [0., 4.]]), torch.tensor([2., 2.]))
    tensor([1.0000, 0.5000])
    """
    r, info = _solve("linalg.solve", A, B, left)
    refuse_info("torch.linalg.solve", info._everything(), _NO_SOLUTION)
    return r


@linalg
def solve_ex(A: Tensor, B: Tensor, *, left: bool = True, check_errors: bool = False) -> Any:
    """(result, info) of ``solve``, without an error for singular matrices."""
    r, info = _solve("linalg.solve_ex", A, B, left)
    if check_errors:
        refuse_info("torch.linalg.solve_ex", info._a, _NO_SOLUTION)
    return return_types.linalg_solve_ex((r, info))


def _triangular_rule(g: Tensor, a: Tensor, out: Tensor, b_shape: Any, upper: bool, left: bool, unit: bool, needs: Any) -> tuple[Any, ...]:
    gb = _solve_triangular(adjoint(a), g, not upper, left, unit)
    ga = None
    if needs[0]:
        ga = sum_to(-(gb @ adjoint(out)) if left else -(adjoint(out) @ gb), a._a.shape)
        ga = _triu(ga, int(unit)) if upper else _tril(ga, -int(unit))
    return ga, sum_to(gb, b_shape)


@primitive(
    "linalg_solve_triangular", vjp=_triangular_rule,
    batch=lambda info, a, b, upper, left, unit: _solve_triangular(*info.aligned(a=a, b=b), upper, left, unit),
)  # fmt: skip
def _solve_triangular(a: Any, b: Any, /, upper: bool, left: bool, unit: bool) -> Any:
    return K.solve_triangular(a, b, upper, left, unit)


@linalg
def solve_triangular(A: Tensor, B: Tensor, *, upper: bool, left: bool = True, unitriangular: bool = False) -> Tensor:
    """The X of ``A X = B`` for a triangular A, of which only that triangle is read."""
    name = "linalg.solve_triangular"
    check_float(name, A)
    check_square(name, A)
    check_matrix(name, B, "B")
    check_system(name, A, B, left, B._a.shape)
    return _solve_triangular(A, B, upper, left, unitriangular)


def triangular_solve(input: Tensor, A: Tensor, upper: bool = True, transpose: bool = False, unitriangular: bool = False) -> Any:
    """(solution of ``A X = input``, copy of A); ``torch.linalg.solve_triangular`` is the newer name."""
    a = A.mT if transpose else A
    x = solve_triangular(a, input, upper=upper != transpose, unitriangular=unitriangular)
    return return_types.triangular_solve((x, A.clone()))


publish("triangular_solve", with_out(triangular_solve))
Tensor.triangular_solve = triangular_solve


# ---- determinants ---------------------------------------------------------------------------------------------------
def _minors(a: Tensor) -> Tensor:
    """The determinants of the matrices without row i and column j."""
    n = a._a.shape[-1]
    rest = np.array([[k for k in range(n) if k != i] for i in range(n)], np.int64).reshape(n, n - 1)
    rows = a[..., wrap(rest), :]  # (*, i, n-1, n)
    parts = rows[..., wrap(rest)]  # (*, i, n-1, j, n-1)
    return _det(parts.movedim(-2, -3))


def _det_rule(g: Tensor, a: Tensor, out: Tensor) -> Tensor:
    wide = lambda t: t.unsqueeze(-1).unsqueeze(-1)  # noqa: E731
    conj = out.conj() if out._a.dtype.kind == "c" else out
    n = a._a.shape[-1]
    if not n:
        return wrap(np.zeros(a._a.shape, a._a.dtype))
    values = out._everything()
    if (np.abs(values) > 0).all() and np.isfinite(values).all():
        inverse, info = _inv_ex(a)
        if not info._everything().any() and np.isfinite(inverse._everything()).all():
            return wide(g * conj) * adjoint(inverse)
    if mode() is False:
        return wide(g) * wrap(K.adjugate_adjoint(a._a).astype(a._a.dtype))
    signs = (-1.0) ** np.add.outer(np.arange(n), np.arange(n))
    minors = _minors(a)
    return wide(g) * (minors.conj() if minors._a.dtype.kind == "c" else minors) * wrap(signs.astype(a._a.dtype))


@primitive("linalg_det", vjp={"a": _det_rule}, batch={})
def _det(a: Any, /) -> Any:
    return np.linalg.det(a).astype(a.dtype)


@linalg(torch="det")
def det(A: Tensor) -> Tensor:
    """The determinant of each matrix.

    >>> import flambeau as torch
    >>> torch.linalg.det(torch.tensor([[2., 0.], [0., 4.]]))
    tensor(8.)
    """
    check_float("linalg.det", A)
    check_square("linalg.det", A)
    return _det(A)


def _slogdet_rule(g: Any, a: Tensor, out: Any) -> Tensor:
    c = g[1]
    if a._a.dtype.kind == "c":  # d sign = i sign Im(tr(A^-1 dA))
        c = c - 1j * (g[0].conj() * out[0]).imag
    return c.unsqueeze(-1).unsqueeze(-1) * adjoint(_inv_ex(a)[0])


@primitive("linalg_slogdet", vjp=_slogdet_rule, batch={})
def _slogdet(a: Any, /) -> Any:
    sign, size = np.linalg.slogdet(a)
    return np.asarray(sign, a.dtype), np.asarray(size, np.zeros(0, a.dtype).real.dtype)


@linalg
def slogdet(A: Tensor) -> Any:
    """(sign, log |det|) of each matrix."""
    check_float("linalg.slogdet", A)
    check_square("linalg.slogdet", A)
    return return_types.linalg_slogdet(_slogdet(A))


def _torch_slogdet(input: Tensor) -> Any:
    """(sign, log |det|) of each matrix."""
    return return_types.slogdet(slogdet(input))


publish("slogdet", with_out(_torch_slogdet))
Tensor.slogdet = _torch_slogdet


def logdet(input: Tensor) -> Tensor:
    """The log of the determinant; nan where that is negative."""
    check_float("logdet", input)
    check_square("logdet", input)
    sign, size = _slogdet(input)
    if input._a.dtype.kind == "c":
        return sign.log() + size
    return size.masked_fill(sign == -1, np.nan)


publish("logdet", logdet)
Tensor.logdet = logdet


# ---- Cholesky -------------------------------------------------------------------------------------------------------
def _cholesky_rule(g: Any, out: Any, upper: bool) -> Tensor:
    """L^-H (lower(L^H g), its diagonal halved, made Hermitian) L^-1."""
    l, gl = (adjoint(out[0]), adjoint(g[0])) if upper else (out[0], g[0])
    p = adjoint(l) @ gl
    below = _tril(p, -1)
    middle = below + adjoint(below) + real(p.diagonal(0, -2, -1)).diag_embed()
    lh = adjoint(l)
    half = _solve_triangular(lh, middle * 0.5, True, True, False)
    return _solve_triangular(l, half, False, False, False)


@primitive("linalg_cholesky_ex", vjp=_cholesky_rule, batch={})
def _cholesky_ex(a: Any, /, upper: bool) -> Any:
    return K.cholesky(a, upper)


@primitive("cholesky", vjp=lambda g, out, upper: _cholesky_rule((g,), (out,), upper), batch={})
def _cholesky_old(a: Any, /, upper: bool) -> Any:
    factor, info = K.cholesky(a, upper)
    refuse_info("cholesky", info, _NOT_POSITIVE)
    return factor


def _checked_cholesky(name: str, a: Tensor, upper: bool) -> tuple[Tensor, Tensor]:
    check_float(name, a)
    check_square(name, a)
    return _cholesky_ex(a, upper)


@linalg
def cholesky(A: Tensor, *, upper: bool = False) -> Tensor:
    """The lower triangular L with ``A = L @ L.mH`` of a Hermitian positive-definite matrix; LinAlgError if it isn't."""
    r, info = _checked_cholesky("linalg.cholesky", A, upper)
    refuse_info("linalg.cholesky", info._everything(), _NOT_POSITIVE)
    return r


@linalg
def cholesky_ex(A: Tensor, *, upper: bool = False, check_errors: bool = False) -> Any:
    """(L, info): info is 0, or the order of the leading minor that is not positive-definite."""
    r, info = _checked_cholesky("linalg.cholesky_ex", A, upper)
    if check_errors:
        refuse_info("linalg.cholesky_ex", info._everything(), _NOT_POSITIVE)
    return return_types.linalg_cholesky_ex((r, info))


def torch_cholesky(input: Tensor, upper: bool = False) -> Tensor:
    """``torch.linalg.cholesky``, the older name."""
    check_float("cholesky", input)
    check_square("cholesky", input)
    return _cholesky_old(input, upper)


def cholesky_solve(input: Tensor, L: Tensor, upper: bool = False) -> Tensor:
    """The X of ``A X = input``, given the Cholesky factor of A."""
    check_matrix("cholesky_solve", L)
    first, second = (adjoint(L), L) if upper else (L, adjoint(L))
    return solve_triangular(second, solve_triangular(first, input, upper=False), upper=True)


def cholesky_inverse(input: Tensor, upper: bool = False) -> Tensor:
    """The inverse of the matrix whose Cholesky factor is given."""
    check_square("cholesky_inverse", input)
    return cholesky_solve(eye(input._a.shape[-1], input).expand(input._a.shape), input, upper)


for _name, _fn in (("cholesky", torch_cholesky), ("cholesky_solve", cholesky_solve), ("cholesky_inverse", cholesky_inverse)):
    _fn = leading(_fn)
    publish(_name, with_out(_fn))
    setattr(Tensor, _name, _fn)


# ---- QR -------------------------------------------------------------------------------------------------------------
def _qr_rule(g: Any, out: Any, mode_: str) -> Tensor:
    (gq, gr), (q, r) = g, out
    if mode_ == "r":
        raise error(
            RuntimeError,
            "The derivative of linalg.qr depends on Q, which is not computed when mode='r'. Please use linalg.qr(A, "
            "mode='reduced') if you are going to require gradients",
        )
    if q._a.shape[-1] != r._a.shape[-1]:
        raise error(RuntimeError, "The QR decomposition is not differentiable when mode='complete' and nrows > ncols")
    m = _triu(gr @ adjoint(r) - adjoint(q) @ gq, 0)
    above = _triu(m, 1)
    middle = above + adjoint(above) + real(m.diagonal(0, -2, -1)).diag_embed()
    if m._a.dtype.kind == "c":
        middle = middle.to(m.dtype)
    return _solve_triangular(adjoint(r), gq + q @ middle, False, False, False)


@primitive("linalg_qr", vjp=_qr_rule, batch={})
def _qr(a: Any, /, mode_: str) -> Any:
    if mode_ == "r":
        return np.zeros(0, a.dtype), np.linalg.qr(a, "r")
    return tuple(np.linalg.qr(a, mode_))


def _qr_of(A: Tensor, mode_: str) -> tuple[Tensor, Tensor]:
    check_float("linalg.qr", A)
    check_matrix("linalg.qr", A)
    if mode_ not in ("reduced", "complete", "r"):
        raise error(RuntimeError, f"qr received unrecognized mode '{mode_}' but expected one of 'reduced' (default), 'r', or 'complete'")
    m, n = A._a.shape[-2:]
    if m < n and A._rg and mode() is not False and mode_ != "r":  # Q is that of the first columns, the rest of R follows
        q, r = _qr(A.narrow(-1, 0, m), mode_)
        return q, cat([r, adjoint(q) @ A.narrow(-1, m, n - m)], -1)
    return _qr(A, mode_)


@linalg
def qr(A: Tensor, mode: str = "reduced") -> Any:
    """(Q, R): ``A = Q @ R`` with orthonormal columns in Q and R upper triangular; ``mode`` "reduced", "complete" or "r"."""
    return return_types.linalg_qr(_qr_of(A, mode))


def torch_qr(input: Tensor, some: bool = True) -> Any:
    """``torch.linalg.qr``, the older name."""
    return return_types.qr(_qr_of(input, "reduced" if some else "complete"))


def geqrf(input: Tensor) -> Any:
    """(a, tau): R, and below it the Householder vectors, that ``householder_product`` makes into Q."""
    check_float("geqrf", input)
    check_matrix("geqrf", input)
    if input._rg and mode() is not False:
        raise error(NotImplementedError, "the derivative for 'geqrf' is not implemented.", hint="Use torch.linalg.qr.")
    return return_types.geqrf([wrap(r) for r in K.geqrf(input._a)])


@linalg(torch="orgqr")
def householder_product(A: Tensor, tau: Tensor) -> Tensor:
    """The first columns of the product of the reflections ``I - tau_i v_i v_i^H``, v_i in the columns of A below the 1s."""
    name = "linalg.householder_product"
    check_float(name, A)
    check_matrix(name, A)
    m, n = A._a.shape[-2:]
    if m < n:
        raise error(RuntimeError, "torch.linalg.householder_product: input.shape[-2] must be greater than or equal to input.shape[-1]")
    k = tau._a.shape[-1]
    if k > n:
        raise error(RuntimeError, "torch.linalg.householder_product: input.shape[-1] must be greater than or equal to tau.shape[-1]")
    q = wrap(np.broadcast_to(np.eye(m, n, dtype=A._a.dtype), A._a.shape).copy())
    vectors = _tril(A, -1) + wrap(np.eye(m, n, dtype=A._a.dtype))
    for i in reversed(range(k)):
        v = vectors.narrow(-1, i, 1)
        q = q - tau.narrow(-1, i, 1).unsqueeze(-1) * (v @ (adjoint(v) @ q))
    return q


for _name, _fn in (("qr", torch_qr), ("geqrf", geqrf)):
    _fn = leading(_fn)
    publish(_name, with_out(_fn))
    setattr(Tensor, _name, _fn)


# ---- LU -------------------------------------------------------------------------------------------------------------
def _lu_gradient(gl: Tensor, gu: Tensor, l: Tensor, u: Tensor, order: ndarray) -> Tensor:
    """P L^-H (lower(L^H gL) + upper(gU U^H)) U^-H, of square matrices."""
    middle = _tril(adjoint(l) @ gl, -1) + _triu(gu @ adjoint(u), 0)
    half = _solve_triangular(adjoint(l), middle, True, True, True)
    return _rows(_solve_triangular(adjoint(u), half, False, False, False), np.argsort(order, -1))


@primitive("permute_rows", vjp={"x": lambda g, order: _rows(g, np.argsort(order, -1))}, jvp="linear", batch={})
def _rows(x: Any, /, order: ndarray) -> Any:
    return np.take_along_axis(x, np.broadcast_to(order, (*x.shape[:-2], order.shape[-1]))[..., None], -2)


def _unpack_lu(lu: ndarray) -> tuple[ndarray, ndarray]:
    m, n = lu.shape[-2:]
    k = min(m, n)
    return np.tril(lu[..., :k], -1) + np.eye(m, k, dtype=lu.dtype), np.triu(lu[..., :k, :])


@primitive("linalg_lu", vjp=lambda g, out, lu, order: _lu_gradient(g[0], g[1], out[0], out[1], order))
def _lu_parts(a: Any, /, lu: ndarray, order: ndarray) -> Any:
    return _unpack_lu(lu)


def _packed_rule(g: Tensor, out: Tensor, lu: ndarray, order: ndarray) -> Tensor:
    l = _tril(out, -1) + eye(out._a.shape[-1], out)
    return _lu_gradient(_tril(g, -1), _triu(g, 0), l, _triu(out, 0), order)


@primitive("linalg_lu_factor_ex", vjp={"a": _packed_rule})
def _lu_packed(a: Any, /, lu: ndarray, order: ndarray) -> Any:
    return lu


def _lu_of(name: str, A: Tensor, pivot: bool) -> tuple[ndarray, ndarray, ndarray, ndarray]:
    """(packed, pivots, info, order of the rows)."""
    check_float(name, A)
    check_matrix(name, A)
    if not pivot:
        raise error(RuntimeError, "linalg.lu_factor: LU without pivoting is not implemented on the CPU")
    packed, pivots, info = K.lu(A._a)
    return packed, pivots, info, K.permutation(pivots, A._a.shape[-2])


def _rectangular_lu(A: Tensor, packed: ndarray, order: ndarray) -> tuple[Tensor, Tensor]:
    """L and U through those of the square part, to be differentiated."""
    m, n = A._a.shape[-2:]
    k = min(m, n)
    a = _rows(A, order)
    l, u = _lu_parts(a.narrow(-2, 0, k).narrow(-1, 0, k), packed[..., :k, :k], np.broadcast_to(np.arange(k), (*order.shape[:-1], k)))
    if m > k:
        l = cat([l, _solve_triangular(u, a.narrow(-2, k, m - k), True, False, False)], -2)
    if n > k:
        u = cat([u, _solve_triangular(l, a.narrow(-1, k, n - k), False, True, True)], -1)
    return l, u


def _records(A: Tensor) -> bool:
    return A._rg and mode() is not False and A._a.shape[-1] != A._a.shape[-2]


def _factors(A: Tensor, packed: ndarray, order: ndarray) -> Tensor:
    if not _records(A):
        return _lu_packed(A, packed, order)
    l, u = _rectangular_lu(A, packed, order)
    m, n = A._a.shape[-2:]
    k = min(m, n)
    pad = lambda t, d, size: cat([t, wrap(np.zeros([size if i == t._a.ndim + d else s for i, s in enumerate(t._a.shape)], t._a.dtype))], d)  # noqa: E731
    lower = _tril(l, -1)
    return (pad(lower, -1, n - k) if n > k else lower) + (pad(u, -2, m - k) if m > k else u)


def permutation_matrix(order: ndarray, dtype: np.dtype) -> ndarray:
    """P with ``A = P @ A[order]``."""
    return np.ascontiguousarray(np.eye(order.shape[-1], dtype=dtype)[order].swapaxes(-1, -2))


@linalg
def lu(A: Tensor, *, pivot: bool = True) -> Any:
    """(P, L, U) with ``A = P @ L @ U``."""
    packed, _, _, order = _lu_of("linalg.lu", A, pivot)
    l, u = _rectangular_lu(A, packed, order) if _records(A) else _lu_parts(A, packed, order)
    return return_types.linalg_lu((wrap(permutation_matrix(order, A._a.dtype)), l, u))


@linalg
def lu_factor(A: Tensor, *, pivot: bool = True) -> Any:
    """(LU, pivots): L and U in one matrix, and the row swaps (from 1), for ``lu_solve``."""
    packed, pivots, info, order = _lu_of("linalg.lu_factor", A, pivot)
    refuse_info(
        "torch.linalg.lu_factor", info,
        "U[{0},{0}] is zero and using it on lu_solve would result in a division by zero. If you still want to perform the "
        "factorization, consider calling linalg.lu(A, pivot) or linalg.lu_factor_ex(A, pivot)", RuntimeError,
    )  # fmt: skip
    return return_types.linalg_lu_factor((_factors(A, packed, order), wrap(pivots)))


@linalg
def lu_factor_ex(A: Tensor, *, pivot: bool = True, check_errors: bool = False) -> Any:
    """(LU, pivots, info) of ``lu_factor``, without an error for singular matrices."""
    if check_errors:
        lu_factor(A, pivot=pivot)
    packed, pivots, info, order = _lu_of("linalg.lu_factor_ex", A, pivot)
    return return_types.linalg_lu_factor_ex((_factors(A, packed, order), wrap(pivots), wrap(info)))


def torch_lu(A: Tensor, pivot: bool = True, get_infos: bool = False) -> Any:
    """(LU, pivots), and the infos if asked; ``torch.linalg.lu_factor`` is the newer name."""
    r = lu_factor_ex(A, pivot=pivot)
    return tuple(r) if get_infos else tuple(r[:2])


@linalg
def lu_solve(LU: Tensor, pivots: Tensor, B: Tensor, *, left: bool = True, adjoint: bool = False) -> Tensor:
    """The X of ``A X = B`` (``X A = B``; with ``adjoint`` A^H) from the LU factors of A."""
    from .matmul import adjoint as h

    check_square("linalg.lu_solve", LU)
    check_matrix("linalg.lu_solve", B, "B")
    check_system("linalg.lu_solve", LU, B, left, B._a.shape)
    order = K.permutation(pivots._a, LU._a.shape[-1])
    if not left:
        return h(lu_solve(LU, pivots, h(B), adjoint=not adjoint))
    if not adjoint:
        return _solve_triangular(LU, _solve_triangular(LU, _rows(B, order), False, True, True), True, True, False)
    x = _solve_triangular(h(LU), _solve_triangular(h(LU), B, False, True, False), True, True, True)
    return _rows(x, np.argsort(order, -1))


def torch_lu_solve(b: Tensor, LU_data: Tensor, LU_pivots: Tensor) -> Tensor:
    """The X of ``A X = b``; ``torch.linalg.lu_solve`` is the newer name."""
    return lu_solve(LU_data, LU_pivots, b)


def lu_unpack(LU_data: Tensor, LU_pivots: Tensor, unpack_data: bool = True, unpack_pivots: bool = True) -> Any:
    """(P, L, U) from what ``lu_factor`` gave."""
    m, n = LU_data._a.shape[-2:]
    k = min(m, n)
    none = wrap(np.zeros(0, LU_data._a.dtype))
    p = wrap(permutation_matrix(K.permutation(LU_pivots._a, m), LU_data._a.dtype)) if unpack_pivots else none
    l = u = none
    if unpack_data:
        l = _tril(LU_data.narrow(-1, 0, k), -1) + wrap(np.eye(m, k, dtype=LU_data._a.dtype))
        u = _triu(LU_data.narrow(-2, 0, k), 0)
    return return_types.lu_unpack((p, l, u))


torch_lu_solve, lu_unpack, torch_lu = leading(torch_lu_solve, False), leading(lu_unpack, False), leading(torch_lu)
for _name, _fn in (("lu_solve", torch_lu_solve), ("lu_unpack", lu_unpack), ("lu", torch_lu)):
    publish(_name, _fn if _name == "lu" else with_out(_fn))
Tensor.lu, Tensor.lu_solve = torch_lu, torch_lu_solve


# ---- eigenvalues ----------------------------------------------------------------------------------------------------
def _gaps(w: Tensor) -> Tensor:
    """w_j - w_i, 1 on the diagonal."""
    return outside_diagonal(w.unsqueeze(-2) - w.unsqueeze(-1))


def _eigh_rule(g: Any, out: Any) -> Tensor:
    (gw, gv), (w, v) = g, out
    if is_nothing(gv):
        return (v * gw.unsqueeze(-2)) @ adjoint(v)
    middle = outside_diagonal(adjoint(v) @ gv / _gaps(w), 0) + gw.diag_embed()
    return v @ middle @ adjoint(v)


@primitive("linalg_eigh", vjp=_eigh_rule, batch={})
def _eigh(a: Any, /, uplo: str) -> Any:
    try:
        return tuple(np.linalg.eigh(a, uplo))
    except np.linalg.LinAlgError:
        raise error(LinAlgError, "linalg.eigh: The algorithm failed to converge because the input matrix is ill-conditioned or has "
                    "too many repeated eigenvalues.") from None  # fmt: skip


def _checked_eigh(name: str, A: Tensor, UPLO: str) -> tuple[Tensor, Tensor]:
    if A._a.dtype.kind in "iub":
        raise error(NotImplementedError, f"\"linalg_eigh_cpu\" not implemented for '{SCALAR_NAMES[A.dtype]}'")
    check_float(name, A)
    check_square(name, A)
    if UPLO.upper() not in ("L", "U"):
        raise error(RuntimeError, f"Expected UPLO argument to be 'L' or 'U', but got {UPLO}")
    return _eigh(A, UPLO.upper())


@linalg
def eigh(A: Tensor, UPLO: str = "L") -> Any:
    """(eigenvalues in rising order, eigenvectors in columns) of Hermitian matrices, of which one triangle is read."""
    return return_types.linalg_eigh(_checked_eigh("linalg.eigh", A, UPLO))


@linalg
def eigvalsh(A: Tensor, UPLO: str = "L") -> Tensor:
    """The eigenvalues of Hermitian matrices, in rising order."""
    return _checked_eigh("linalg.eigvalsh", A, UPLO)[0]


def _eig_rule(g: Any, out: Any, a_dtype: Any) -> Tensor:
    (gw, gv), (w, v) = g, out
    vh = adjoint(v)
    if is_nothing(gv):
        middle = gw.unsqueeze(-1) * vh
    else:
        vg = vh @ gv
        vg = vg - (vh @ v) * vg.diagonal(0, -2, -1).real.unsqueeze(-2)
        middle = (outside_diagonal(vg / _gaps(w).conj(), 0) + gw.diag_embed()) @ vh
    return like_input(_solve_ex(vh, middle, True, False)[0], a_dtype)


@primitive("linalg_eig", vjp=_eig_rule, batch={})
def _eig(a: Any, /) -> Any:
    w, v = np.linalg.eig(a)
    wide = np.result_type(a.dtype, np.complex64)
    return w.astype(wide), v.astype(wide)


def _checked_eig(name: str, A: Tensor) -> tuple[Tensor, Tensor]:
    check_float(name, A)
    check_square(name, A)
    if not np.isfinite(A._everything()).all():
        raise error(RuntimeError, "torch.linalg.eig: input tensor should not contain infs or NaNs.")
    return _eig(A)


@linalg
def eig(A: Tensor) -> Any:
    """(eigenvalues, eigenvectors in columns) of square matrices, always complex."""
    return return_types.linalg_eig(_checked_eig("linalg.eig", A))


@linalg
def eigvals(A: Tensor) -> Tensor:
    """The eigenvalues of square matrices, always complex."""
    return _checked_eig("linalg.eigvals", A)[0]


# ---- singular values ------------------------------------------------------------------------------------------------
def _skew(x: Tensor) -> Tensor:
    return x - adjoint(x)


def _svd_rule(g: Any, out: Any, a_shape: Any) -> Tensor:
    (gu, gs, gvh), (u, s, vh) = g, out
    m, n = a_shape[-2:]
    k = min(m, n)
    u, gu, vh, gvh = u.narrow(-1, 0, k), gu.narrow(-1, 0, k), vh.narrow(-2, 0, k), gvh.narrow(-2, 0, k)
    no_u, no_v = is_nothing(gu), is_nothing(gvh)
    if no_u and no_v:
        return (u * gs.unsqueeze(-2)) @ vh
    row, column = s.unsqueeze(-2), s.unsqueeze(-1)
    gaps = outside_diagonal((row - column) * (row + column))
    middle = gs.diag_embed()
    if not no_u:
        ug = _skew(adjoint(u) @ gu)
        middle = middle + outside_diagonal(ug / gaps, 0) * row
        if u._a.dtype.kind == "c":
            middle = middle + (ug.diagonal(0, -2, -1) / (2.0 * s)).diag_embed()
    if not no_v:
        middle = middle + column * outside_diagonal(_skew(vh @ adjoint(gvh)) / gaps, 0)
    ga = u @ middle.to(u.dtype) @ vh
    if m > k and not no_u:
        rest = gu / row
        ga = ga + (rest - u @ (adjoint(u) @ rest)) @ vh
    if n > k and not no_v:
        rest = gvh / column
        ga = ga + u @ (rest - (rest @ adjoint(vh)) @ vh)
    return ga


@primitive("linalg_svd", vjp=_svd_rule, batch={})
def _svd(a: Any, /, full: bool) -> Any:
    return K.svd(a, full)


def _checked_svd(name: str, A: Tensor, full: bool) -> tuple[Tensor, Tensor, Tensor]:
    check_float(name, A)
    check_matrix(name, A)
    if not np.isfinite(A._everything()).all():
        raise error(LinAlgError, f"{name}: The algorithm failed to converge because the input matrix contained non-finite values.")
    return _svd(A, full)


@linalg
def svd(A: Tensor, full_matrices: bool = True, *, driver: str | None = None) -> Any:
    """(U, S, Vh) with ``A = U @ diag(S) @ Vh``, the singular values in falling order."""
    _no_driver("linalg.svd", driver)
    return return_types.linalg_svd(_checked_svd("linalg.svd", A, full_matrices))


@linalg
def svdvals(A: Tensor, *, driver: str | None = None) -> Tensor:
    """The singular values, in falling order."""
    _no_driver("linalg.svdvals", driver)
    return _checked_svd("linalg.svdvals", A, False)[1]


def _no_driver(name: str, driver: Any) -> None:
    if driver is not None:
        raise error(RuntimeError, f"{name}: keyword argument `driver=` is only supported on CUDA inputs with cuSOLVER backend.")


@leading
def torch_svd(input: Tensor, some: bool = True, compute_uv: bool = True) -> Any:
    """(U, S, V) with ``input = U @ diag(S) @ V.mH``; ``torch.linalg.svd`` is the newer name."""
    u, s, vh = _checked_svd("linalg.svd", input, not some)
    if not compute_uv:
        m, n = input._a.shape[-2:]
        zeros = lambda k: wrap(np.zeros((*input._a.shape[:-2], k, k), input._a.dtype))  # noqa: E731
        return return_types.svd((zeros(m), s, zeros(n)))
    return return_types.svd((u, s, adjoint(vh)))


publish("svd", with_out(torch_svd))
Tensor.svd = torch_svd


# ---- pseudo-inverse -------------------------------------------------------------------------------------------------
def _pinv_rule(g: Tensor, a: Tensor, out: Tensor) -> Tensor:
    """Golub and Pereyra (1973), multiplied out in the order that keeps the products small."""
    p, ph, gh = out, adjoint(out), adjoint(g)
    m, n = a._a.shape[-2:]
    if m <= n:
        k = gh @ p
        kp = k @ ph
        return kp - adjoint(p @ k) - (a @ p) @ kp + (ph @ p) @ (gh - k @ a)
    k = p @ gh
    pk = ph @ k
    return pk - adjoint(k @ p) + (gh - a @ k) @ p @ ph - (pk @ p) @ a


@primitive("linalg_pinv", vjp={"a": _pinv_rule}, batch={})
def _pinv(a: Any, /, atol: Any, rtol: Any, hermitian: bool) -> Any:
    if not a.size:
        return np.zeros((*a.shape[:-2], a.shape[-1], a.shape[-2]), a.dtype)
    if hermitian:
        w, v = np.linalg.eigh(a)
        size = np.abs(w)
        keep = size > np.maximum(atol, rtol * size.max(-1, keepdims=True))
        with np.errstate(all="ignore"):
            return ((v * np.where(keep, 1 / w, 0)[..., None, :]) @ v.swapaxes(-1, -2).conj()).astype(a.dtype, copy=False)
    u, s, vh = np.linalg.svd(a, full_matrices=False)
    keep = s > np.maximum(atol, rtol * s.max(-1, keepdims=True))
    with np.errstate(all="ignore"):
        scaled = vh.swapaxes(-1, -2).conj() * np.where(keep, 1 / s, 0)[..., None, :]
    return (scaled @ u.swapaxes(-1, -2).conj()).astype(a.dtype, copy=False)


def tolerances(A: Tensor, atol: Any, rtol: Any) -> tuple[Any, Any]:
    """(absolute, relative) as arrays that broadcast against singular values; PyTorch's defaults."""
    value = lambda t: t._a[..., None] if isinstance(t, Tensor) else t  # noqa: E731
    given = atol is not None and np.any(value(atol) > 0)
    if rtol is None:
        rtol = 0.0 if given else max(A._a.shape[-2:]) * float(np.finfo(A._a.dtype).eps)
    return (0.0 if atol is None else value(atol)), value(rtol)


def _pinv_of(A: Tensor, atol: Any, rtol: Any, hermitian: bool) -> Tensor:
    if A._a.ndim < 2 or A._a.dtype.kind not in "fc" or A._a.dtype.itemsize == 2:
        raise error(
            RuntimeError,
            f"linalg.pinv({SCALAR_NAMES[A.dtype]}{{{list(A._a.shape)}}}): expected a tensor with 2 or more dimensions of float, "
            "double, cfloat or cdouble types",
        )
    return _pinv(A, *tolerances(A, atol, rtol), hermitian)


@linalg
def pinv(A: Tensor, rcond: Any = None, *, atol: Any = None, rtol: Any = None, hermitian: bool = False) -> Tensor:
    """The pseudo-inverse; singular values up to max(atol, rtol * the largest) count as 0."""
    return _pinv_of(A, atol, rcond if rtol is None else rtol, hermitian)


@leading
def pinverse(input: Tensor, rcond: float = 1e-15) -> Tensor:
    """``torch.linalg.pinv``, the older name."""
    return _pinv_of(input, None, rcond, False)


publish("pinverse", pinverse)
Tensor.pinverse = pinverse
