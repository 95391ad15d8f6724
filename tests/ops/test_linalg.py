"""Linear algebra: values, derivatives of both orders, batches, dtypes, errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from .harness import Case, F, OperatorTests, check_gradient, close, gradients, numpy, tensor, torch_tensor

BOTH = ("float32", "float64", "complex64", "complex128")
SQUARE, BATCH, TALL, WIDE = [(3, 3)], [(2, 3, 3)], [(4, 3)], [(2, 4)]


def square(n: int = 3, *more: Any) -> Any:
    """A maker of well-conditioned matrices, and of inputs of other shapes."""
    return lambda rng: [rng.uniform(-1, 1, (n, n)) + 2 * np.eye(n), *[rng.uniform(-1, 1, s) for s in more]]


def batch(*more: Any) -> Any:
    return lambda rng: [rng.uniform(-1, 1, (2, 3, 3)) + 2 * np.eye(3), *[rng.uniform(-1, 1, s) for s in more]]


def positive(a: Any) -> Any:
    """A Hermitian positive-definite matrix made of any."""
    return a @ a.mH + a.mT * 0.0 + (a.real * 0 + 1).diagonal(0, -2, -1).diag_embed()


def spread(a: Any) -> Any:
    """A Hermitian matrix with eigenvalues that are apart."""
    n = a.shape[-1]
    steps = (a.real * 0 + 1).diagonal(0, -2, -1).cumsum(-1).diag_embed() * (n + 1.0)
    return (a + a.mH) / 2 + steps


def canonical(v: Any) -> Any:
    """Vectors in columns times the phase that makes the first element positive: independent of the library's choice."""
    first = v.narrow(-2, 0, 1)
    return v * (first.conj() / first.abs())


def eigh(T: Any, a: Any) -> Any:
    w, v = T.linalg.eigh(spread(a))
    return w, canonical(v)


def svd(T: Any, a: Any) -> Any:
    u, s, vh = T.linalg.svd(a, full_matrices=False)
    first = u.narrow(-2, 0, 1)
    phase = first.conj() / first.abs()
    return u * phase, s, vh * phase.mH


def eig(T: Any, a: Any) -> Any:
    n = a.shape[-1]
    steps = (a.real * 0 + 1).diagonal(0, -2, -1).cumsum(-1).diag_embed() * (n + 3.0)
    w, v = T.linalg.eig(a + steps)
    r = (w.unsqueeze(-2) * canonical(v)).sum(-1)
    return r.real, r.imag


def eigvals(T: Any, a: Any) -> Any:
    w = T.linalg.eigvals(a)
    return (w * w).sum(-1).real, (w * w * w).sum(-1).real


def case(name: str, fn: Any, shapes: Any, ref: Any = None, **options: Any) -> Case:
    options.setdefault("node", False)
    options.setdefault("tol", 50.0)
    options.setdefault("low", -1.0)
    options.setdefault("high", 1.0)
    return Case(name, fn, shapes, ref, **options)



CASES = [
    case("inv", lambda T, a: T.linalg.inv(a), square(), np.linalg.inv, dtypes=BOTH, node=True),
    case("inv_batch", lambda T, a: T.inverse(a), batch(), np.linalg.inv),
    case("inv_ex", lambda T, a: T.linalg.inv_ex(a), square(), node=True),
    case("det", lambda T, a: T.linalg.det(a), square(), np.linalg.det, dtypes=BOTH, node=True),
    case("det_batch", lambda T, a: T.det(a), batch(), np.linalg.det, node=True),
    case("det_one", lambda T, a: T.det(a), [(1, 1)], np.linalg.det),
    case("slogdet", lambda T, a: T.linalg.slogdet(a), batch(), dtypes=BOTH, node=True),
    case("logdet", lambda T, a: T.logdet(positive(a)), SQUARE, lambda a: np.log(np.linalg.det(a @ a.T + np.eye(3)))),
    case("solve", lambda T, a, b: T.linalg.solve(a, b), square(3, (3, 2)), np.linalg.solve, dtypes=BOTH, node=True),
    case("solve_vector", lambda T, a, b: T.linalg.solve(a, b), square(3, (3,)), np.linalg.solve, node=True),
    case("solve_vectors", lambda T, a, b: T.linalg.solve(a, b), batch((2, 3)), node=True),
    case("solve_broadcast", lambda T, a, b: T.linalg.solve(a, b), batch((3, 2)), np.linalg.solve),
    case("solve_right", lambda T, a, b: T.linalg.solve(a, b, left=False), square(3, (2, 3)), dtypes=BOTH),
    case("solve_ex", lambda T, a, b: T.linalg.solve_ex(a, b), square(3, (3, 2))),
    *[
        case(f"solve_triangular upper={upper} left={left} unit={unit}",
             lambda T, a, b, u=upper, l=left, i=unit: T.linalg.solve_triangular(a, b, upper=u, left=l, unitriangular=i),
             square(3, (3, 3)), dtypes=BOTH, node=True)
        for upper, left, unit in ((True, True, False), (False, True, True), (True, False, True), (False, False, False))
    ],
    case("solve_triangular_broadcast", lambda T, a, b: T.linalg.solve_triangular(a, b, upper=True), batch((3, 1))),
    case("triangular_solve", lambda T, a, b: T.triangular_solve(b, a, transpose=True), square(3, (3, 2)), second=False),
    case("cholesky", lambda T, a: T.linalg.cholesky(positive(a)), SQUARE, dtypes=BOTH, node=True),
    case("cholesky_upper", lambda T, a: T.linalg.cholesky(positive(a), upper=True), BATCH, dtypes=BOTH),
    case("cholesky_ex", lambda T, a: T.linalg.cholesky_ex(positive(a)), SQUARE, node=True),
    case("torch_cholesky", lambda T, a: T.cholesky(positive(a)), SQUARE, node=True),
    case("cholesky_solve", lambda T, a, b: T.cholesky_solve(b, a), square(3, (3, 2)), layouts=False),
    case("cholesky_inverse", lambda T, a: T.cholesky_inverse(a), square(3)),
    case("qr", lambda T, a: T.linalg.qr(a), square(), dtypes=BOTH, node=True),
    case("qr_tall", lambda T, a: T.linalg.qr(a), TALL, dtypes=BOTH, node=True),
    case("qr_wide", lambda T, a: T.linalg.qr(a), WIDE, dtypes=BOTH),
    case("qr_complete", lambda T, a: T.linalg.qr(a, "complete"), TALL, grad=False),
    case("qr_r", lambda T, a: T.linalg.qr(a, "r"), TALL, grad=False),
    case("torch_qr", lambda T, a: T.qr(a), BATCH, node=True),
    case("geqrf", lambda T, a: T.geqrf(a), TALL, grad=False),
    case("householder_product", lambda T, a, t: T.linalg.householder_product(a, t), [(4, 3), (2,)], dtypes=BOTH),
    case("ormqr", lambda T, a, t, b: T.ormqr(a, t, b), [(4, 3), (3,), (4, 2)]),
    case("lu", lambda T, a: T.linalg.lu(a), square(), dtypes=BOTH, node=True),
    case("lu_batch", lambda T, a: T.linalg.lu(a), BATCH),
    case("lu_tall", lambda T, a: T.linalg.lu(a), TALL),
    case("lu_wide", lambda T, a: T.linalg.lu(a), WIDE),
    case("lu_factor", lambda T, a: T.linalg.lu_factor(a), BATCH, dtypes=BOTH, node=True),
    case("lu_factor_tall", lambda T, a: T.linalg.lu_factor_ex(a), TALL),
    case("lu_factor_wide", lambda T, a: T.linalg.lu_factor_ex(a), WIDE),
    case("lu_solve", lambda T, a, b: T.linalg.lu_solve(*T.linalg.lu_factor(a), b), square(3, (3, 2)), np.linalg.solve, dtypes=BOTH),
    case("lu_solve_adjoint", lambda T, a, b: T.linalg.lu_solve(*T.linalg.lu_factor(a), b, adjoint=True, left=False), square(3, (2, 3)), dtypes=BOTH),
    case("lu_unpack", lambda T, a: T.lu_unpack(*T.linalg.lu_factor(a)), BATCH),
    case("eigh", eigh, SQUARE, dtypes=BOTH),
    case("eigh_batch", eigh, BATCH),
    case("eigvalsh", lambda T, a: T.linalg.eigvalsh(spread(a)), SQUARE, dtypes=BOTH, node=True),
    case("eig", eig, SQUARE, dtypes=BOTH),
    case("eigvals", eigvals, SQUARE, dtypes=BOTH),
    case("svd", svd, SQUARE, dtypes=BOTH),
    case("svd_tall", svd, TALL, dtypes=BOTH),
    case("svd_wide", svd, [(2, 2, 3)], dtypes=BOTH),
    case("svdvals", lambda T, a: T.linalg.svdvals(a), BATCH, dtypes=BOTH, node=True),
    case("pinv", lambda T, a: T.linalg.pinv(a), TALL, np.linalg.pinv, dtypes=BOTH, node=True),
    case("pinv_wide", lambda T, a: T.pinverse(a), WIDE, np.linalg.pinv, dtypes=BOTH, node=True),
    case("lstsq", lambda T, a, b: T.linalg.lstsq(a, b)[0], [(4, 3), (4, 2)]),
    case("lstsq_wide", lambda T, a, b: T.linalg.lstsq(a, b)[0], [(2, 3), (2, 2)]),
    case("lstsq_residuals", lambda T, a, b: T.linalg.lstsq(a, b, driver="gelsd"), [(4, 3), (4, 2)], grad=False),
    case("matrix_power", lambda T, a: T.linalg.matrix_power(a, 3), BATCH, lambda a: np.linalg.matrix_power(a, 3), dtypes=BOTH, node=False),
    case("matrix_power_negative", lambda T, a: T.linalg.matrix_power(a, -2), square(), lambda a: np.linalg.matrix_power(a, -2)),
    case("matrix_exp", lambda T, a: T.linalg.matrix_exp(a), BATCH, dtypes=BOTH, node=True),
    case("matrix_rank", lambda T, a: T.linalg.matrix_rank(a), BATCH, grad=False),
    *[
        case(f"matrix_norm {p}", lambda T, a, p=p: T.linalg.matrix_norm(a, p), [(2, 3)],
             lambda a, p=p: np.asarray(np.linalg.norm(a, p)), dtypes=BOTH if p != 2 else ("float32", "float64"))
        for p in ("fro", "nuc", 1, -1, 2, -2, np.inf, -np.inf)
    ],
    case("matrix_norm_dims", lambda T, a: T.linalg.matrix_norm(a, 1, (2, 0), True), [(2, 2, 3)]),
    case("norm", lambda T, a: T.linalg.norm(a), [(2, 2, 2)], lambda a: np.asarray(np.linalg.norm(a)), node=True),
    case("norm_1", lambda T, a: T.linalg.norm(a, 1), SQUARE, lambda a: np.asarray(np.linalg.norm(a, 1)), node=True),
    case("norm_dim", lambda T, a: T.linalg.norm(a, 3, 1), SQUARE, lambda a: np.linalg.norm(a, 3, 1), node=True),
    case("nuclear", lambda T, a: T.norm(a, "nuc"), SQUARE, lambda a: np.asarray(np.linalg.norm(a, "nuc"))),
    case("cond", lambda T, a: T.linalg.cond(a), BATCH, np.linalg.cond),
    case("cond_fro", lambda T, a: T.linalg.cond(a, "fro"), square(), lambda a: np.linalg.cond(a, "fro")),
    case("cross", lambda T, a, b: T.linalg.cross(a, b), [(2, 3), (2, 3)], np.cross, dtypes=(*BOTH, "int64", "bfloat16"), node=True),
    case("cross_broadcast", lambda T, a, b: T.linalg.cross(a, b, dim=0), [(3, 2), (3, 1)]),
    case("torch_cross", lambda T, a, b: T.cross(a, b), [(3, 2), (3, 2)], node=True),
    case("vecdot", lambda T, a, b: T.linalg.vecdot(a, b), [(2, 3), (2, 3)], dtypes=BOTH),
    *[case(f"cdist {p}", lambda T, a, b, p=p: T.cdist(a, b, p), [(3, 2), (2, 2)], node=p == 2) for p in (0.0, 1.0, 1.5, 2.0, 3.0, np.inf)],
    case("cdist_batch", lambda T, a, b: T.cdist(a, b), [(2, 3, 2), (2, 2)]),
    case("cdist_mm", lambda T, a, b: T.cdist(a, b, 2.0, "use_mm_for_euclid_dist"), [(3, 2), (2, 2)], tol=500),
    case("cdist_many", lambda T, a: T.cdist(a, a + 0.5), [(30, 3)], grad=False, tol=500),
    case("vander", lambda T, a: T.linalg.vander(a), [(3,)], lambda a: np.vander(a, increasing=True)),
    case("vander_n", lambda T, a: T.linalg.vander(a, N=4), [(2, 3)]),
    case("tensorinv", lambda T, a: T.linalg.tensorinv(a.reshape(2, 2, 4)), square(4)),
    case("tensorsolve", lambda T, a, b: T.linalg.tensorsolve(a.reshape(2, 2, 4), b), square(4, (2, 2))),
    case("trace", lambda T, a: T.trace(a), [(2, 3)], lambda a: np.asarray(np.trace(a)), dtypes=(*BOTH, "bfloat16", "int32"), node=True),
    *[
        case(f"{name} {k}", lambda T, a, name=name, k=k: getattr(T, name)(a, k), [(2, 3, 4)],
             lambda a, name=name, k=k: getattr(np, name)(a, k), dtypes=("float32", "bfloat16", "int64", "bool", "complex64"), node=True)
        for name in ("tril", "triu") for k in (0, 1, -1)
    ],
    case("cov", lambda T, a: T.cov(a), [(2, 4)], np.cov, dtypes=BOTH),
    case("cov_vector", lambda T, a: T.cov(a, correction=0), [(4,)], lambda a: np.asarray(np.cov(a, ddof=0))),
    case("cov_weights", lambda T, a, w: T.cov(a, aweights=w), lambda rng: [rng.uniform(-1, 1, (2, 4)), rng.uniform(0.5, 1, 4)], layouts=False),
    case("corrcoef", lambda T, a: T.corrcoef(a), [(2, 4)], np.corrcoef),
]  # fmt: skip


class TestLinalg(OperatorTests):
    cases = CASES


COMPLEX = {
    "inv": lambda T, a: T.linalg.inv(a), "det": lambda T, a: T.linalg.det(a), "slogdet": lambda T, a: T.linalg.slogdet(a),
    "solve": lambda T, a: T.linalg.solve(a, a.mT), "solve_right": lambda T, a: T.linalg.solve(a, a.mT, left=False),
    "triangular": lambda T, a: T.linalg.solve_triangular(a, a.mT, upper=False),
    "cholesky": lambda T, a: T.linalg.cholesky(positive(a)), "qr": lambda T, a: T.linalg.qr(a), "lu": lambda T, a: T.linalg.lu(a)[1:],
    "qr_wide": lambda T, a: T.linalg.qr(a[:2]), "eigh": eigh, "eigvalsh": lambda T, a: T.linalg.eigvalsh(spread(a)), "eig": eig,
    "svd": svd, "svdvals": lambda T, a: T.linalg.svdvals(a), "pinv": lambda T, a: T.linalg.pinv(a[:, :2]),
    "pinv_wide": lambda T, a: T.linalg.pinv(a[:2]), "matrix_exp": lambda T, a: T.linalg.matrix_exp(a),
    "householder": lambda T, a: T.linalg.householder_product(a, a[0]), "cross": lambda T, a: T.linalg.cross(a, a.mT),
    "cumprod": lambda T, a: T.cumprod(a, 0), "logcumsumexp": lambda T, a: T.logcumsumexp(a, 0),
}  # fmt: skip


@pytest.mark.torch
@pytest.mark.parametrize("name", COMPLEX)
def test_complex_gradients(name: str) -> None:
    """The same gradients as torch's, of a real function of complex matrices."""
    torch = pytest.importorskip("torch")
    from flambeau.autograd.engine import grad

    rng = np.random.default_rng(3)
    a = rng.standard_normal((3, 3)) + 1j * rng.standard_normal((3, 3)) + 2 * np.eye(3)
    weights: list[np.ndarray] = []

    def loss(T: Any, x: Any, make: Any) -> Any:
        outs = COMPLEX[name](T, x)
        outs = outs if isinstance(outs, tuple) else (outs,)
        total = 0.0
        for i, o in enumerate(outs):
            if len(weights) <= i:
                weights.append(rng.uniform(0.5, 1.5, tuple(o.shape)))
            w = make(weights[i])
            total = total + (o.real * w).sum() + ((o.imag * w * 0.3).sum() if o.is_complex() else 0.0)
        return total

    x = tensor(a, True)
    got = grad([loss(F, x, tensor)], [x])[0]
    y = torch_tensor(torch, a).requires_grad_()
    (want,) = torch.autograd.grad(loss(torch, y, lambda w: torch_tensor(torch, w)), [y])
    close(numpy(got), numpy(want), 1e-8)


@pytest.mark.parametrize("rank", [3, 2, 1, 0])
def test_det_of_singular_matrices(rank: int) -> None:
    """The derivative is the matrix of cofactors, whatever the rank."""
    rng = np.random.default_rng(rank)
    a = rng.integers(-2, 3, (4, rank)).astype(float) @ rng.integers(-2, 3, (rank, 4)).astype(float)
    minors = np.array([[np.linalg.det(np.delete(np.delete(a, i, 0), j, 1)) * (-1) ** (i + j) for j in range(4)] for i in range(4)])
    _, gs, _ = gradients(F.linalg.det, [a], [np.ones(())])
    np.testing.assert_allclose(gs[0]._a, minors, atol=1e-9)
    check_gradient(F.linalg.det, [a])


def test_eigenvalues_of_equal_ones() -> None:
    """Where only the values are used, equal ones do no harm."""
    for fn in (F.linalg.eigvalsh, F.linalg.svdvals):
        _, gs, _ = gradients(lambda t, fn=fn: fn(t).sum(), [np.eye(3)], [np.ones(())])
        np.testing.assert_allclose(gs[0]._a, np.eye(3), atol=1e-12)


def ones(*shape: int) -> Any:
    return tensor(np.ones(shape))


ZERO = np.zeros((2, 2))
TWO = np.stack([np.eye(2), ZERO])


@pytest.mark.parametrize(
    "call, phrase",
    [
        (lambda: F.linalg.inv(tensor(ZERO)), "linalg.inv: The diagonal element 1 is zero, the inversion could not be completed because the input matrix is singular."),
        (lambda: F.linalg.inv(tensor(TWO)), "linalg.inv: (Batch element 1): The diagonal element 1 is zero"),
        (lambda: F.linalg.solve(tensor(ZERO), ones(2)), "torch.linalg.solve: The solver failed because the input matrix is singular."),
        (lambda: F.linalg.solve(tensor(TWO), ones(2, 2, 1)), "torch.linalg.solve: (Batch element 1): The solver failed"),
        (lambda: F.linalg.cholesky(tensor(-np.eye(2))), "linalg.cholesky: The factorization could not be completed because the input is not positive-definite (the leading minor of order 1 is not positive-definite)."),
        (lambda: F.linalg.cholesky(tensor([[1.0, 2], [2, 1]])), "(the leading minor of order 2 is not positive-definite)"),
        (lambda: F.linalg.svd(tensor([[np.nan, 1.0]])), "linalg.svd: The algorithm failed to converge because the input matrix contained non-finite values."),
    ],
)  # fmt: skip
def test_failures(call: Any, phrase: str) -> None:
    with pytest.raises(F.linalg.LinAlgError) as e:
        call()
    assert phrase in str(e.value)
    assert isinstance(e.value, RuntimeError)


@pytest.mark.parametrize(
    "call, phrase",
    [
        (lambda: F.linalg.inv(ones(2, 3)), "linalg.inv: A must be batches of square matrices, but they are 2 by 3 matrices"),
        (lambda: F.linalg.inv(ones(3)), "linalg.inv: The input tensor A must have at least 2 dimensions."),
        (lambda: F.linalg.inv(tensor([[1]])), "linalg.inv: Expected a floating point or complex tensor as input. Got Long"),
        (lambda: F.linalg.inv(tensor(np.eye(2, dtype=np.float16))), "linalg.inv: Low precision dtypes not supported. Got Half"),
        (lambda: F.linalg.solve(tensor(np.eye(3)), ones(2, 3)), "linalg.solve: Incompatible shapes of A and B for the equation AX = B (3x3 and 2x3)"),
        (lambda: F.linalg.qr(ones(2, 2), "foo"), "qr received unrecognized mode 'foo' but expected one of 'reduced' (default), 'r', or 'complete'"),
        (lambda: F.linalg.eigh(ones(2, 2), "X"), "Expected UPLO argument to be 'L' or 'U', but got X"),
        (lambda: F.linalg.lu(ones(2, 2), pivot=False), "LU without pivoting is not implemented on the CPU"),
        (lambda: F.linalg.lu_factor(tensor(ZERO)), "U[1,1] is zero and using it on lu_solve would result in a division by zero."),
        (lambda: F.linalg.cross(ones(2), ones(2)), "linalg.cross: inputs dimension -1 must have length 3. Got 2 and 2"),
        (lambda: F.cross(ones(2), ones(2)), "no dimension of size 3 in input"),
        (lambda: F.cdist(ones(2, 3), ones(2, 4)), "X1 and X2 must have the same number of columns. X1: 3 X2: 4"),
        (lambda: F.trace(ones(2)), "trace: expected a matrix, but got tensor with dim 1"),
        (lambda: F.tril(ones(2)), "tril: input tensor must have at least 2 dimensions"),
        (lambda: F.linalg.matrix_norm(ones(2, 2), 3), "linalg.matrix_norm: Order 3 not supported."),
        (lambda: F.linalg.norm(ones(2, 2, 2), "fro"), "linalg.norm: If dim is not specified but ord is, the input must be 1D or 2D. Got 3D."),
        (lambda: F.linalg.lstsq(ones(3, 3), ones(2, 3)), "torch.linalg.lstsq: input.size(-2) should match other.size(-2)"),
        (lambda: gradients(lambda a: F.linalg.qr(a, "complete"), [np.arange(6.0).reshape(3, 2)], []), "The QR decomposition is not differentiable when mode='complete' and nrows > ncols"),
        (lambda: gradients(lambda a: F.linalg.qr(a, "r")[1], [np.arange(6.0).reshape(3, 2)], []), "The derivative of linalg.qr depends on Q"),
    ],
)  # fmt: skip
def test_refusals(call: Any, phrase: str) -> None:
    with pytest.raises(RuntimeError) as e:
        call()
    assert phrase in str(e.value)


def test_info_instead_of_errors() -> None:
    assert numpy(F.linalg.inv_ex(tensor(TWO)).info).tolist() == [0, 1]
    assert numpy(F.linalg.solve_ex(tensor(TWO), ones(2, 2, 1)).info).tolist() == [0, 1]
    assert numpy(F.linalg.cholesky_ex(tensor(-np.eye(2))).info).tolist() == 1
    assert numpy(F.linalg.lu_factor_ex(tensor(ZERO)).info).tolist() == 1
    np.testing.assert_array_equal(numpy(F.linalg.inv_ex(tensor(TWO)).inverse)[0], np.eye(2))


def test_empty() -> None:
    none, many = tensor(np.zeros((0, 0))), tensor(np.zeros((0, 3, 3)))
    assert F.linalg.inv(none)._a.shape == (0, 0)
    assert float(F.linalg.det(none)._a) == 1
    for fn in ("inv", "cholesky", "matrix_exp", "pinv"):
        assert getattr(F.linalg, fn)(many)._a.shape == (0, 3, 3)
    assert [r._a.shape for r in F.linalg.lu(many)] == [(0, 3, 3)] * 3
    assert F.linalg.solve(many, tensor(np.zeros((0, 3, 2))))._a.shape == (0, 3, 2)
    assert F.linalg.solve_triangular(none, tensor(np.zeros((0, 2))), upper=True)._a.shape == (0, 2)
    assert F.linalg.svdvals(many)._a.shape == (0, 3)
    assert F.cdist(tensor(np.zeros((0, 3))), ones(2, 3))._a.shape == (0, 2)
    assert F.cdist(ones(1, 0), ones(2, 0))._a.tolist() == [[0, 0]]


def test_in_place_triangles() -> None:
    t = ones(2, 2)
    assert t.tril_() is t and t._a.tolist() == [[1, 0], [1, 1]]
    assert t.triu_(1)._a.tolist() == [[0, 0], [0, 0]]
    x = tensor(np.ones((2, 2)), True)
    y = x * 2
    y.tril_()
    assert y._grad_fn.name() == "TrilBackward0"


@pytest.mark.torch
@pytest.mark.parametrize("fn", [
    lambda T, x: (x * x * x).sum().real, lambda T, x: (x.conj() * x * x).sum().real, lambda T, x: (x / (x.mT + 3)).sum().real,
    lambda T, x: T.linalg.eigvals(x).pow(3).sum().real, lambda T, x: T.linalg.inv(x).sum().real, lambda T, x: (T.linalg.qr(x)[0] * x).sum().real,
    lambda T, x: T.linalg.det(x).real, lambda T, x: T.linalg.svdvals(x).pow(3).sum(),
])  # fmt: skip
def test_second_derivatives_of_complex(fn: Any) -> None:
    torch = pytest.importorskip("torch")
    from flambeau.autograd.engine import grad

    rng = np.random.default_rng(0)
    a, c = [rng.standard_normal((3, 3)) + 1j * rng.standard_normal((3, 3)) for _ in range(2)]

    def second(T: Any, x: Any, c: Any, derive: Any) -> Any:
        (g,) = derive([fn(T, x)], [x], create_graph=True)
        return derive([(g * c).sum().real], [x])[0]

    want = second(torch, torch_tensor(torch, a).requires_grad_(), torch_tensor(torch, c), torch.autograd.grad)
    close(numpy(second(F, tensor(a, True), tensor(c), grad)), numpy(want), 1e-9)
