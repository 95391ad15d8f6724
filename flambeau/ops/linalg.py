"""``torch.linalg`` but for the factorisations: norms, powers, functions of matrices, distances, and what is composed."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np

from ..autograd.pointwise import broadcast_error
from ..autograd.primitive import primitive
from ..autograd.transforms.batching import leading
from ..core.dtypes import FLOAT, SCALAR_NAMES, dtype
from ..core.errors import error
from ..core.tensor import Tensor, wrap
from ..kernels import lapack as K
from . import factorizations as _factorizations
from . import return_types
from .dims import wrap_dim
from .factorizations import (
    adjoint,
    check_float,
    check_matrix,
    check_square,
    eye,
    householder_product,
    inv,
    linalg,
    sum_to,
    tolerances,
)
from .joining import cat
from .public import public
from .reductions import _ratio, cast, conj, vector_norm
from .takes import takes

inv_ex, solve, det, svdvals = (
    _factorizations.inv_ex, _factorizations.solve, _factorizations.det, _factorizations.svdvals,
)  # fmt: skip


leading_unaligned = partial(leading, align=False)


# ---- norms ----------------------------------------------------------------------------------------------------------
def _pair(name: str, x: Tensor, dim: Any) -> tuple[int, int]:
    if not isinstance(dim, (tuple, list)) or len(dim) != 2:
        raise error(RuntimeError, f"{name}: dim must be a 2-tuple. Got {dim if isinstance(dim, int) else ' '.join(map(str, dim))}")
    first, second = wrap_dim(dim[0], x._a.ndim), wrap_dim(dim[1], x._a.ndim)
    if first == second:
        raise error(RuntimeError, f"{name}: dims must be different. Got ({dim[0]}, {dim[1]})")
    return first, second


def matrix_norm(
    A: Tensor, ord: Any = "fro", dim: Any = (-2, -1), keepdim: bool = False, *, dtype: dtype | None = None
) -> Tensor:
    """The norm of matrices: "fro" (of all elements), "nuc" (sum of singular values), 2 and -2 (the largest and the
    smallest one), 1, -1, inf and -inf (of sums over columns and over rows).

    >>> import flambeau as torch
    >>> torch.linalg.matrix_norm(torch.tensor([[3., 0.], [0., 4.]]))
    tensor(5.)
    """
    name = "linalg.matrix_norm"
    check_matrix(name, A)
    check_float(name, A, low_precision=True)
    if not (ord in ("fro", "nuc") if isinstance(ord, str) else abs(ord) in (1, 2, math.inf)):
        raise error(RuntimeError, f"{name}: Order {ord} not supported.")
    d = _pair(name, A, dim)
    A = cast(A, dtype)
    if ord == "fro":
        return vector_norm(A, 2, d, keepdim)
    if ord in ("nuc", 2, -2):
        s = svdvals(A.movedim(d, (-2, -1)))
        r = s.sum(-1) if ord == "nuc" else s.amax(-1) if ord == 2 else s.amin(-1)
    else:
        folded, left = d if abs(ord) == 1 else d[::-1]
        sums = vector_norm(A, 1, folded, False)
        left -= left > folded
        r = sums.amax(left) if ord > 0 else sums.amin(left)
    if keepdim:
        for i in sorted(d):
            r = r.unsqueeze(i)
    return r


linalg(matrix_norm)


@linalg
def norm(A: Tensor, ord: Any = None, dim: Any = None, keepdim: bool = False, *, dtype: dtype | None = None) -> Tensor:
    """A vector norm over one dimension (or, without ``ord``, over everything), a matrix norm over two."""
    if isinstance(ord, str):
        if dim is None and A._a.ndim > 2:
            raise error(RuntimeError, f"linalg.norm: If dim is not specified but ord is, the input must be 1D or 2D. Got {A._a.ndim}D.")
        return matrix_norm(A, ord, (-2, -1) if dim is None else dim, keepdim, dtype=dtype)
    if dim is None and ord is not None and A._a.ndim not in (1, 2):
        raise error(RuntimeError, f"linalg.norm: If dim is not specified but ord is, the input must be 1D or 2D. Got {A._a.ndim}D.")
    several = A._a.ndim == 2 if dim is None else isinstance(dim, (tuple, list)) and len(dim) == 2
    if ord is not None and several:
        return matrix_norm(A, ord, (0, 1) if dim is None else dim, keepdim, dtype=dtype)
    return vector_norm(A, 2 if ord is None else ord, dim, keepdim, dtype=dtype)


@public(method=False)
def nuclear_norm(input: Tensor, dim: Any = (-2, -1), keepdim: bool = False) -> Tensor:
    """The sum of the singular values."""
    return matrix_norm(input, "nuc", dim, keepdim)


@public(method=False)
def frobenius_norm(input: Tensor, dim: Any, keepdim: bool = False) -> Tensor:
    """The square root of the sum of squares over ``dim``."""
    return vector_norm(input, 2, dim, keepdim)


@linalg
def cond(A: Tensor, p: Any = None) -> Tensor:
    """The condition number ``norm(A, p) * norm(inv(A), p)``; for 2 (default) and -2 the ratio of singular values."""
    name = "linalg.cond"
    check_matrix(name, A)
    check_float(name, A)
    if p is None or p in (2, -2):
        if not A._a.size:
            return wrap(np.zeros(A._a.shape[:-2], A._a.real.dtype))
        s = svdvals(A)
        first, last = s.select(-1, 0), s.select(-1, -1)
        return last / first if p == -2 else first / last
    check_square(f"{name}(ord={p})", A)
    if not A._a.size:
        return wrap(np.zeros(A._a.shape[:-2], A._a.real.dtype))
    inverse, info = inv_ex(A)
    r = matrix_norm(A, p) * matrix_norm(inverse, p)
    return r.masked_fill(wrap(info._a != 0), math.inf) if info._a.any() else r


@linalg
def matrix_rank(A: Tensor, tol: Any = None, hermitian: bool = False, *, atol: Any = None, rtol: Any = None) -> Tensor:
    """How many singular values are above max(atol, rtol * the largest)."""
    check_matrix("linalg.matrix_rank", A)
    check_float("linalg.matrix_rank", A)
    if tol is not None:
        atol, rtol = tol, 0.0
    if not A._a.size:
        return wrap(np.zeros(A._a.shape[:-2], np.int64))
    atol, rtol = tolerances(A, atol, rtol)
    s = np.abs(np.linalg.eigvalsh(A._a)) if hermitian else np.linalg.svd(A._a, compute_uv=False)
    return wrap(np.asarray((s > np.maximum(atol, rtol * s.max(-1, keepdims=True))).sum(-1), np.int64))


# ---- powers and the exponential -------------------------------------------------------------------------------------
@linalg(torch="matrix_power")
def matrix_power(A: Tensor, n: int) -> Tensor:
    """``A`` multiplied with itself n times; of the inverse for negative n.

    >>> import flambeau as torch
    >>> torch.linalg.matrix_power(torch.tensor([[1., 1.], [0., 1.]]), 3)
    tensor([[1., 3.],
            [0., 1.]])
    """
    check_square("linalg.matrix_power", A)
    if n == 0:
        return wrap(np.broadcast_to(np.eye(A._a.shape[-1], dtype=A._a.dtype), A._a.shape).copy())
    if n < 0:
        A, n = inv(A), -n
    r = None
    square = A
    while True:  # the binary digits of n
        if n & 1:
            r = square if r is None else r @ square
        n >>= 1
        if not n:
            break
        square = square @ square
    return r.clone() if r is A else r


def _exp_rule(g: Tensor, a: Tensor) -> Tensor:
    """The upper right block of exp([[A^H, g], [0, A^H]]) (Najfeld and Havel, 1995)."""
    n = a._a.shape[-1]
    ah = adjoint(a)
    zero = wrap(np.zeros(a._a.shape, a._a.dtype))
    big = cat([cat([ah, g], -1), cat([zero, ah], -1)], -2)
    return _matrix_exp(big).narrow(-2, 0, n).narrow(-1, n, n)


@primitive("linalg_matrix_exp", vjp={"a": _exp_rule}, batch={})
def _matrix_exp(a: Any, /) -> Any:
    return K.expm(a)


@linalg(torch="matrix_exp", out=False)
def matrix_exp(A: Tensor) -> Tensor:
    """The exponential of each matrix: the sum of ``A^k / k!``."""
    check_float("linalg.matrix_exp", A, low_precision=True)
    check_square("linalg.matrix_exp", A)
    if A._a.dtype.itemsize == 2:
        return cast(_matrix_exp(A.float()), A.dtype)
    return _matrix_exp(A)


# ---- products of vectors --------------------------------------------------------------------------------------------
@primitive("linalg_cross", jvp="each", batch=lambda info, a, b, dim: _cross(*info.aligned(a=a, b=b), dim), vjp={
    "a": lambda g, b, a_shape, dim: sum_to(_cross(conj(b), g, dim), a_shape),
    "b": lambda g, a, b_shape, dim: sum_to(_cross(g, conj(a), dim), b_shape),
})  # fmt: skip
def _cross(a: Any, b: Any, /, dim: int) -> Any:
    a, b = np.moveaxis(a, dim, 0), np.moveaxis(b, dim, 0)
    turn = [a[i] * b[j] - a[j] * b[i] for i, j in ((1, 2), (2, 0), (0, 1))]
    return np.stack(turn, dim)


@linalg
def cross(input: Tensor, other: Tensor, *, dim: int = -1) -> Tensor:
    """The vector product of 3-vectors along ``dim``.

    >>> import flambeau as torch
    >>> torch.linalg.cross(torch.tensor([1., 0., 0.]), torch.tensor([0., 1., 0.]))
    tensor([0., 0., 1.])
    """
    if input._a.ndim != other._a.ndim:
        raise error(RuntimeError, "linalg.cross: inputs must have the same number of dimensions.")
    d = wrap_dim(dim, input._a.ndim)
    m, n = input._a.shape[d], other._a.shape[d]
    if m != 3 or n != 3:
        raise error(RuntimeError, f"linalg.cross: inputs dimension {dim} must have length 3. Got {m} and {n}")
    if input._a.dtype != other._a.dtype:
        both = np.result_type(input._a.dtype, other._a.dtype)
        input, other = [t.to(wrap(np.empty(0, both)).dtype) for t in (input, other)]
    takes("cross", input, "ihfc")
    try:
        np.broadcast_shapes(input._a.shape, other._a.shape)
    except ValueError as e:
        raise broadcast_error((input._a, other._a), e) from None
    return _cross(input, other, d - input._a.ndim)


@public(out=True)
def cross__(input: Tensor, other: Tensor, dim: int | None = None) -> Tensor:
    """The vector product along ``dim``, or along the first dimension of size 3."""
    if dim is None:
        if 3 not in input._a.shape:
            raise error(RuntimeError, "no dimension of size 3 in input")
        dim = input._a.shape.index(3)
    return cross(input, other, dim=dim)


@linalg
def vecdot(x: Tensor, y: Tensor, *, dim: int = -1) -> Tensor:
    """The sum of ``conj(x) * y`` over ``dim``."""
    check_float("linalg.vecdot", x, low_precision=True)
    return (conj(x) * y).sum(dim)


@linalg(out=False)
def diagonal(A: Tensor, *, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    """The diagonal of each matrix, a view."""
    return A.diagonal(offset, dim1, dim2)


@linalg(out=False)
def vander(x: Tensor, *, N: int | None = None) -> Tensor:
    """Rows of powers 0, 1, ..., N - 1 of each element."""
    if x._a.dtype.kind == "b" or x._a.dtype.itemsize == 2 and x._a.dtype.kind in "fV":
        raise error(
            RuntimeError, f"linalg.vander supports floating point, complex, and integer tensors, but got {SCALAR_NAMES[x.dtype]}"
        )
    x = x.unsqueeze(0) if not x._a.ndim else x
    n = x._a.shape[-1] if N is None else N
    if n <= 1:
        raise error(RuntimeError, "N must be greater than 1.")
    ones = wrap(np.ones((*x._a.shape, 1), x._a.dtype if x._a.dtype.kind != "b" else np.int64))
    powers = x.unsqueeze(-1).expand((*x._a.shape, n - 1)).cumprod(-1)
    return cat([ones.to(powers.dtype), powers], -1)


# ---- distances ------------------------------------------------------------------------------------------------------
def _euclid_rule(g: Tensor, x: Tensor, y: Tensor, out: Tensor, mm: bool, needs: Any) -> tuple[Any, ...]:
    w = _ratio.call(g, out)
    gx = sum_to(x * w.sum(-1).unsqueeze(-1) - w @ y, x._a.shape) if needs[0] else None
    gy = sum_to(y * w.sum(-2).unsqueeze(-1) - w.mT @ x, y._a.shape) if needs[1] else None
    return gx, gy


@primitive("cdist", vjp=_euclid_rule, batch=lambda info, x, y, mm: _euclid(*info.aligned(x=x, y=y), mm))
def _euclid(x: Any, y: Any, /, mm: bool) -> Any:
    if mm:
        squares = (x * x).sum(-1)[..., :, None] + (y * y).sum(-1)[..., None, :] - 2 * (x @ y.swapaxes(-1, -2))
        return np.sqrt(np.maximum(squares, 0)).astype(x.dtype, copy=False)
    return np.sqrt(np.square(x[..., :, None, :] - y[..., None, :, :]).sum(-1))


_MODES = ("use_mm_for_euclid_dist_if_necessary", "use_mm_for_euclid_dist", "donot_use_mm_for_euclid_dist")


@public(method=False)
def cdist(x1: Tensor, x2: Tensor, p: float = 2.0, compute_mode: str | None = _MODES[0]) -> Tensor:
    """The p-norm distances between the rows of two matrices (or batches of them).

    >>> import flambeau as torch
    >>> torch.cdist(torch.tensor([[0., 0.]]), torch.tensor([[3., 4.]]))
    tensor([[5.]])
    """
    for which, x in (("X1", x1), ("X2", x2)):
        if x._a.ndim < 2:
            raise error(RuntimeError, f"cdist only supports at least 2D tensors, {which} got: {x._a.ndim}D")
        if x.dtype.category != FLOAT:
            raise error(RuntimeError, f"cdist only supports floating-point dtypes, {which} got: {SCALAR_NAMES[x.dtype]}")
    m, n = x1._a.shape[-1], x2._a.shape[-1]
    if m != n:
        raise error(RuntimeError, f"X1 and X2 must have the same number of columns. X1: {m} X2: {n}")
    if p < 0:
        raise error(RuntimeError, "cdist only supports non-negative p values")
    compute_mode = compute_mode or _MODES[0]
    if compute_mode not in _MODES:
        raise ValueError(f"{compute_mode} is not a valid value for compute_mode")
    if p == 2:
        many = x1._a.shape[-2] > 25 or x2._a.shape[-2] > 25
        return _euclid(x1, x2, compute_mode == _MODES[1] or compute_mode == _MODES[0] and many)
    if not n or not x1._a.size or not x2._a.size:
        batch = np.broadcast_shapes(x1._a.shape[:-2], x2._a.shape[:-2])
        return wrap(np.zeros((*batch, x1._a.shape[-2], x2._a.shape[-2]), x1._a.dtype))
    return vector_norm(x1.unsqueeze(-2) - x2.unsqueeze(-3), p, -1)


# ---- least squares --------------------------------------------------------------------------------------------------
_DRIVERS = ("gels", "gelsy", "gelsd", "gelss")


@linalg(out=False)
def lstsq(A: Tensor, B: Tensor, rcond: float | None = None, *, driver: str | None = None) -> Any:
    """(solution, residuals, rank, singular_values) of the least squares problem ``min |A X - B|``.

    The solution is the smallest one, through the pseudo-inverse, whatever the driver; the driver ("gels", "gelsy",
    "gelsd", "gelss") says, as in PyTorch, which of the other results are filled in.
    """
    name = "torch.linalg.lstsq"
    driver = "gelsy" if driver is None else driver
    if driver not in _DRIVERS:
        raise error(RuntimeError, f"{name}: parameter `driver` should be one of (gels, gelsy, gelsd, gelss)")
    check_matrix(name, A, "input")
    check_float(name, A)
    vector = A._a.ndim - 1 == B._a.ndim and A._a.shape[:-1] == B._a.shape
    b = B.unsqueeze(-1) if vector else B
    if b._a.ndim < 2 or A._a.shape[-2] != b._a.shape[-2]:
        raise error(RuntimeError, f"{name}: input.size(-2) should match other.size(-{1 if vector else 2})")
    if A._a.dtype != B._a.dtype:
        raise error(RuntimeError, f"{name}: input and other must have the same dtype, got {A.dtype} and {B.dtype}")
    m, n = A._a.shape[-2:]
    rtol = max(m, n) * float(np.finfo(A._a.dtype).eps) if rcond is None else rcond
    x = _factorizations._pinv(A, 0.0, rtol, False) @ b
    none = wrap(np.zeros(0, A._a.real.dtype))
    s = np.linalg.svd(A._a, compute_uv=False) if A._a.size else np.zeros((*A._a.shape[:-2], 0), A._a.real.dtype)
    rank = np.asarray((s > rtol * s.max(-1, initial=0, keepdims=True)).sum(-1), np.int64)
    residuals = none
    if m > n and driver != "gelsy" and (rank == n).all():
        left = A @ x - b
        residuals = (left * conj(left)).sum(-2)
        residuals = residuals.real if residuals._a.dtype.kind == "c" else residuals
    return return_types.linalg_lstsq((
        x.squeeze(-1) if vector else x, residuals, wrap(rank) if driver != "gels" else wrap(np.zeros(0, np.int64)),
        wrap(s) if driver in ("gelsd", "gelss") else none,
    ))  # fmt: skip


# ---- tensors as matrices --------------------------------------------------------------------------------------------
@linalg
def tensorinv(A: Tensor, ind: int = 2) -> Tensor:
    """The inverse of a tensor as a map from its dimensions from ``ind`` on to those before."""
    if ind <= 0:
        raise error(RuntimeError, "Expected a strictly positive integer for 'ind'")
    shape = A._a.shape
    first, last = math.prod(shape[:ind]), math.prod(shape[ind:])
    if first != last:
        raise error(
            RuntimeError, f"Expected self to satisfy the requirement prod(self.shape[ind:]) == prod(self.shape[:ind]), but got {last} != {first}"
        )
    return inv(A.reshape(first, last)).reshape([*shape[ind:], *shape[:ind]])


@linalg
def tensorsolve(A: Tensor, B: Tensor, dims: Any = None) -> Tensor:
    """The X with ``tensordot(A, X, X.ndim) = B``."""
    if dims is not None:
        dims = [wrap_dim(d, A._a.ndim) for d in dims]
        A = A.movedim(dims, list(range(A._a.ndim - len(dims), A._a.ndim)))
    shape = A._a.shape[B._a.ndim :]
    n = math.prod(shape)
    if n != B._a.size:
        raise error(
            RuntimeError,
            "Expected self to satisfy the requirement prod(self.shape[other.ndim:]) == prod(self.shape[:other.ndim]), but got "
            f"{n} != {B._a.size}",
        )
    return solve(A.reshape(-1, n), B.reshape(-1)).reshape(shape)


@public(out=True)
@leading_unaligned
def ormqr(input: Tensor, tau: Tensor, other: Tensor, left: bool = True, transpose: bool = False) -> Tensor:
    """``other`` multiplied with the whole orthogonal matrix of ``householder_product(input, tau)``, or its adjoint."""
    check_float("torch.ormqr", input)
    if input._a.ndim < 2 or other._a.ndim < 2:
        raise error(RuntimeError, f"torch.ormqr: {'input' if input._a.ndim < 2 else 'other'} must have at least 2 dimensions.")
    m, k = input._a.shape[-2], tau._a.shape[-1] if tau._a.ndim else 0
    if k != min(other._a.shape[-2 if left else -1], input._a.shape[-1]):
        raise error(
            RuntimeError,
            f"torch.ormqr: tau.shape[-1] must be equal to min(other.shape[-{2 if left else 1}], input.shape[-1])",
        )
    square = cat([input, wrap(np.zeros((*input._a.shape[:-1], m - input._a.shape[-1]), input._a.dtype))], -1)
    q = householder_product(square, tau) if k else eye(m, input)
    if transpose:
        q = adjoint(q)
    return q @ other if left else other @ q


# ---- statistics of variables in rows --------------------------------------------------------------------------------
@public
def cov(input: Tensor, *, correction: int = 1, fweights: Tensor | None = None, aweights: Tensor | None = None) -> Tensor:
    """The covariance matrix of variables in rows, observations in columns."""
    if input._a.ndim > 2:
        raise error(RuntimeError, f"cov(): expected input to have two or fewer dimensions but got an input with {input._a.ndim} dimensions")
    if input._a.dtype.kind == "b":
        raise error(RuntimeError, "cov(): bool dtype is not supported for input")
    if aweights is not None and aweights._a.dtype.kind not in "fV":
        raise error(RuntimeError, "cov(): expected aweights to have floating point dtype but got aweights with "
                    f"{SCALAR_NAMES[aweights.dtype]} dtype")
    x = input.reshape(1, -1) if input._a.ndim < 2 else input
    for what, given in (("fweights", fweights), ("aweights", aweights)):
        if given is not None and given._a.size != x._a.shape[-1]:
            raise error(
                RuntimeError,
                f"cov(): expected {what} to have the same numel as there are observations in the input but got {given._a.size} "
                f"!= {x._a.shape[-1]}",
            )
    x = cast(x, None if x.dtype.category >= FLOAT else (x * 1.0).dtype)
    w = None
    for given in (fweights, aweights):
        if given is not None:
            w = given if w is None else w * given
    n: Any = x._a.shape[-1]
    if w is None:
        mean = x.mean(1, True)
    else:
        n = w.sum()
        if (n._everything() == 0).any():
            raise error(RuntimeError, "cov(): weights sum to zero, can't be normalized")
        mean = (x * w).sum(1, True) / n
    factor = n - correction
    if aweights is not None and correction:
        factor = n - correction * (w * aweights).sum() / n
    centred = x - mean
    weighted = centred if w is None else centred * w
    factor = factor.clamp(min=0) if isinstance(factor, Tensor) else max(factor, 0)
    r = (weighted @ adjoint(centred)) / (factor if isinstance(factor, Tensor) else wrap(np.asarray(factor, np.zeros(0, x._a.dtype).real.dtype)))
    return r if input._a.ndim == 2 else r.reshape(())


@public
def corrcoef(input: Tensor) -> Tensor:
    """The correlation coefficients of variables in rows."""
    c = cov(input)
    if not c._a.ndim:
        return c / c
    d = c.diagonal()
    scale = (d.real if d._a.dtype.kind == "c" else d).sqrt()
    r = c / scale.unsqueeze(-1) / scale.unsqueeze(0)
    return r.clamp(-1, 1) if r._a.dtype.kind == "f" else r


