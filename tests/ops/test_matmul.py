"""Products of matrices: values, shapes, derivatives, errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from .harness import FLOATS, Case, F, OperatorTests, numpy, tensor

MM = [(2, 3), (3, 4)]


def linear(T: Any, *args: Any) -> Any:
    return T.nn.functional.linear(*args)


CASES = [
    Case("mm", lambda T, a, b: T.mm(a, b), MM, np.matmul, dtypes=(*FLOATS, "int64", "complex64")),
    Case("matmul", lambda T, a, b: a @ b, MM, np.matmul),
    Case("matmul_vector", lambda T, a, v: T.matmul(a, v), [(2, 3), (3,)], np.matmul),
    Case("matmul_left_vector", lambda T, v, a: T.matmul(v, a), [(3,), (3, 2)], np.matmul, node=False),
    Case("matmul_vectors", lambda T, a, b: T.matmul(a, b), [(3,), (3,)], np.matmul),
    Case("matmul_batch", lambda T, a, b: T.matmul(a, b), [(2, 1, 2, 3), (4, 3, 2)], np.matmul, node=False),
    Case("matmul_batch_matrix", lambda T, a, b: T.matmul(a, b), [(2, 2, 3), (3, 2)], np.matmul, node=False),
    Case("matmul_matrix_batch", lambda T, a, b: T.matmul(a, b), [(2, 3), (4, 3, 2)], np.matmul, node=False),
    Case("matmul_batch_vector", lambda T, a, b: T.matmul(a, b), [(2, 2, 3), (3,)], np.matmul, node=False),
    Case("matmul_vector_batch", lambda T, a, b: T.matmul(a, b), [(3,), (2, 3, 2)], np.matmul, node=False),
    Case("bmm", lambda T, a, b: T.bmm(a, b), [(2, 2, 3), (2, 3, 4)], np.matmul, dtypes=(*FLOATS, "int64")),
    Case("mv", lambda T, a, v: T.mv(a, v), [(2, 3), (3,)], np.matmul, dtypes=(*FLOATS, "int64")),
    Case("dot", lambda T, a, b: T.dot(a, b), [(3,), (3,)], np.dot, dtypes=(*FLOATS, "int64", "complex64")),
    Case("vdot", lambda T, a, b: T.vdot(a, b), [(3,), (3,)], np.vdot, dtypes=("float32", "complex64")),
    Case("outer", lambda T, a, b: T.outer(a, b), [(2,), (3,)], np.outer, dtypes=(*FLOATS, "int64")),
    Case("inner", lambda T, a, b: T.inner(a, b), [(2, 3), (4, 3)], np.inner, node=False),
    Case("addmm", lambda T, c, a, b: T.addmm(c, a, b), [(2, 4), *MM], lambda c, a, b: c + a @ b, dtypes=(*FLOATS, "int64")),
    Case("addmm_row", lambda T, c, a, b: T.addmm(c, a, b), [(4,), *MM], lambda c, a, b: c + a @ b),
    Case("addmm_scaled", lambda T, c, a, b: T.addmm(c, a, b, beta=0.5, alpha=2), [(2, 4), *MM], lambda c, a, b: c / 2 + 2 * (a @ b)),
    Case("baddbmm", lambda T, c, a, b: T.baddbmm(c, a, b, beta=0.5, alpha=2), [(2, 2, 4), (2, 2, 3), (2, 3, 4)],
         lambda c, a, b: c / 2 + 2 * (a @ b)),
    Case("addbmm", lambda T, c, a, b: T.addbmm(c, a, b), [(2, 4), (2, 2, 3), (2, 3, 4)],
         lambda c, a, b: c + (a @ b).sum(0), node=False),
    Case("addmv", lambda T, c, a, b: T.addmv(c, a, b), [(2,), (2, 3), (3,)], lambda c, a, b: c + a @ b, node=False),
    Case("addr", lambda T, c, a, b: T.addr(c, a, b), [(2, 3), (2,), (3,)], lambda c, a, b: c + np.outer(a, b), node=False),
    Case("linear", linear, [(2, 3), (4, 3), (4,)], lambda x, w, b: x @ w.T + b, dtypes=FLOATS),
    Case("linear_plain", linear, [(2, 3), (4, 3)], lambda x, w: x @ w.T),
    Case("linear_batch", linear, [(2, 2, 3), (4, 3), (4,)], lambda x, w, b: x @ w.T + b, node=False),
    Case("linear_vector", linear, [(3,), (4, 3), (4,)], lambda x, w, b: x @ w.T + b, node=False),
    Case("bilinear", lambda T, *a: T.nn.functional.bilinear(*a), [(2, 3), (2, 4), (5, 3, 4), (5,)],
         lambda x, y, w, b: np.einsum("ni,kij,nj->nk", x, w, y) + b, node=False),
    Case("tensordot", lambda T, a, b: T.tensordot(a, b, dims=([1, 0], [0, 1])), [(3, 4, 5), (4, 3, 2)],
         lambda a, b: np.tensordot(a, b, ([1, 0], [0, 1])), second=False),
    Case("kron", lambda T, a, b: T.kron(a, b), [(2, 3), (2, 2)], np.kron, node=False),
    Case("chain_matmul", lambda T, *m: T.chain_matmul(*m), [(2, 3), (3, 4), (4, 2)], lambda a, b, c: a @ b @ c, node=False),
    Case("multi_dot", lambda T, *m: T.linalg.multi_dot(m), [(3,), (3, 4), (4, 2), (2,)], lambda a, b, c, d: a @ b @ c @ d, node=False),
]  # fmt: skip

EQUATIONS = [
    ("ij,jk->ik", (2, 3), (3, 4)), ("ij,kj", (2, 3), (4, 3)), ("bij,bjk->bik", (2, 2, 3), (2, 3, 2)), ("ij->ji", (2, 3)),
    ("ij->", (2, 3)), ("ii->i", (3, 3)), ("ii", (3, 3)), ("i,j->ij", (2,), (3,)), ("ij,ij->ij", (2, 3), (2, 3)),
    ("...ij,...jk->...ik", (2, 2, 3), (3, 2)), ("bhqd,bhkd->bhqk", (2, 2, 2, 3), (2, 2, 2, 3)), ("ijk,ijl,ljk->il", (2, 3, 2), (2, 3, 4), (4, 3, 2)),
    ("ij,j", (2, 3), (3,)), ("i...->...", (2, 3)), ("abc,cd,ad->ab", (2, 2, 3), (3, 2), (2, 2)), ("ij,ij->", (2, 3), (2, 3)),
]  # fmt: skip
CASES += [
    Case(f"einsum {e}", lambda T, *a, e=e: T.einsum(e, *a), list(shapes), lambda *a, e=e: np.asarray(np.einsum(e, *a)),
         node=False, second=False)
    for e, *shapes in EQUATIONS
]  # fmt: skip


class TestMatmul(OperatorTests):
    cases = CASES


def ones(*shape: int, dtype: Any = np.float32) -> Any:
    return tensor(np.ones(shape, dtype))


@pytest.mark.parametrize(
    "call, phrase",
    [
        (lambda: ones(2, 3) @ ones(4, 5), "mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"),
        (lambda: F.mm(ones(2, 3), ones(4, 5)), "mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"),
        (lambda: linear(F, ones(2, 3), ones(4, 5)), "mat1 and mat2 shapes cannot be multiplied (2x3 and 5x4)"),
        (lambda: ones(2, 2) @ ones(2, 2, dtype=np.float64), "expected m1 and m2 to have the same dtype, but got: float != double"),
        (lambda: F.bmm(ones(2, 2, 3), ones(2, 4, 5)), "Expected size for first two dimensions of batch2 tensor to be: [2, 3] but got: [2, 4]."),
        (lambda: F.mm(ones(2), ones(2, 2)), "self must be a matrix"),
        (lambda: F.dot(ones(2), ones(3)), "inconsistent tensor size, expected tensor [2] and src [3] to have the same number of elements"),
        (lambda: F.dot(ones(2, 2), ones(2)), "1D tensors expected, but got 2D and 1D tensors"),
        (lambda: F.matmul(tensor(1.0), ones(2)), "both arguments to matmul need to be at least 1D, but they are 0D and 1D"),
        (lambda: F.einsum("ij,jk", ones(2, 3)), "fewer operands were provided than specified in the equation"),
        (lambda: F.einsum("ij->k", ones(2, 3)), "output subscript k does not appear in the equation for any input operand"),
        (lambda: F.einsum("ijk", ones(2, 3)), "number of subscripts in the equation (3)"),
        (lambda: F.einsum("ij,jk", ones(2, 3), ones(4, 2)), "operands do not broadcast"),
        (lambda: F.tensordot(ones(2, 3), ones(4, 5), 1), "contracted dimensions need to match"),
    ],
)  # fmt: skip
def test_refusals(call: Any, phrase: str) -> None:
    with pytest.raises(RuntimeError) as e:
        call()
    assert phrase in str(e.value)


def test_empty() -> None:
    assert numpy(F.mm(ones(2, 0), ones(0, 3))).tolist() == [[0.0] * 3] * 2
    assert F.bmm(ones(0, 2, 3), ones(0, 3, 4))._a.shape == (0, 2, 4)
    assert linear(F, ones(0, 3), ones(4, 3), ones(4))._a.shape == (0, 4)


def test_linear_is_one_node() -> None:
    x, w, b = ones(2, 3), ones(4, 3), ones(4)
    for t in (x, w, b):
        t._rg = True
    node = linear(F, x, w, b)._grad_fn
    assert node.name() == "AddmmBackward0"
    assert [type(n).__name__ for n in node.next] == ["AccumulateGrad"] * 3


def test_beta_zero_ignores_the_input() -> None:
    bad = tensor(np.full((2, 2), np.nan, np.float32))
    assert numpy(F.addmm(bad, ones(2, 3), ones(3, 2), beta=0)).tolist() == [[3.0, 3.0]] * 2


def test_large_products_agree() -> None:
    """The kernels for large matrices, transposed operands too, forward and backward."""
    from flambeau.autograd.engine import grad

    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((128, 100), np.float32), rng.standard_normal((90, 100), np.float32)
    x, y = tensor(a, True), tensor(b, True)
    r = linear(F, x, y)
    np.testing.assert_allclose(r._a, a @ b.T, rtol=1e-4, atol=1e-4)
    gx, gy = grad([(r * r).sum()], [x, y])
    np.testing.assert_allclose(gx._a, 2 * (a @ b.T) @ b, rtol=1e-3, atol=1e-2)
    np.testing.assert_allclose(gy._a, 2 * (a @ b.T).T @ a, rtol=1e-3, atol=1e-2)
