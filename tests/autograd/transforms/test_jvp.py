"""How an operator's tangent is found: each sort of rule, on operators made for the purpose and on some that exist."""

import numpy as np
import pytest

import flambeau as torch
from flambeau.autograd import forward_ad as fw
from flambeau.autograd.primitive import PRIMITIVES, primitive
from flambeau.func import hessian, jacfwd, jacrev, jvp


@pytest.fixture
def declared():
    """Declares primitives that are gone after the test."""
    before = set(PRIMITIVES)
    yield primitive
    for name in set(PRIMITIVES) - before:
        del PRIMITIVES[name]


X, Y = torch.tensor([0.5, -1.0]), torch.tensor([2.0, 3.0])
V, W = torch.tensor([1.0, 10.0]), torch.tensor([0.1, 0.2])


def test_linear(declared):
    @declared("two_minus_one", jvp="linear", vjp={"a": lambda g: 2 * g, "b": lambda g: -g})
    def op(a, b, /):
        return 2 * a - b

    assert torch.equal(jvp(op, (X, Y), (V, W))[1], 2 * V - W)
    assert torch.equal(jvp(lambda a: op(a, Y), (X,), (V,))[1], 2 * V)


def test_each(declared):
    @declared("times", jvp="each", vjp={"a": lambda g, b: g * b, "b": lambda g, a: g * a})
    def op(a, b, /):
        return a * b

    assert torch.allclose(jvp(op, (X, Y), (V, W))[1], V * Y + X * W)
    assert torch.allclose(jvp(op, (X, X), (V, V))[1], 2 * X * V)


def test_a_function_of_names(declared):
    @declared("power_of", jvp=lambda x_t, x, out, n: x_t * n * out / x, vjp={"x": lambda g, x, n: g * n * x ** (n - 1)})
    def op(x, /, n=2):
        return x**n

    assert torch.allclose(jvp(lambda x: op(x, 3), (X,), (V,))[1], 3 * X**2 * V)
    assert torch.allclose(jvp(op, (X,), (V,))[1], 2 * X * V)  # the kernel's default


def test_no_rule_is_the_transpose_of_the_vjp(declared):
    @declared("cubed", vjp={"x": lambda g, x: g * 3 * x * x})
    def op(x, /):
        return x**3

    assert torch.allclose(jvp(op, (X,), (V,))[1], 3 * X**2 * V)
    f = lambda x: (op(x) * Y).sum()  # noqa: E731
    assert torch.allclose(hessian(f)(X), torch.diag(6 * X * Y))
    assert torch.allclose(jacrev(jacfwd(f))(X), torch.diag(6 * X * Y))
    assert torch.allclose(jacfwd(jacfwd(f))(X), torch.diag(6 * X * Y))


def test_several_outputs(declared):
    @declared("both", vjp=lambda g, x: (g[0] * 2 + g[1] * 2 * x,))
    def op(x, /):
        return 2 * x, x * x

    a, b = jvp(lambda x: op(x), (X,), (V,))[1]
    assert torch.allclose(a, 2 * V) and torch.allclose(b, 2 * X * V)


def test_not_differentiable(declared):
    @declared("rank")
    def op(x, /):
        return np.argsort(np.argsort(x)).astype(x.dtype)

    assert jvp(op, (X,), (V,))[1].tolist() == [0.0, 0.0]


def test_a_function_that_is_flat_has_a_tangent_of_zeros():
    assert jvp(torch.sign, (X,), (V,), strict=True)[1].tolist() == [0.0, 0.0]


def test_a_fused_operator_with_a_composite():
    f = lambda x: torch.nn.functional.layer_norm(x, (2,), eps=0.1)  # noqa: E731
    h = 1e-3
    found = jvp(f, (X,), (V,))[1]
    assert torch.allclose(found, (f(X + h * V) - f(X - h * V)) / (2 * h), atol=1e-2)
    weights = torch.tensor([1.0, 2.0])
    by_turns = [outer(inner(lambda x: (f(x) * weights).sum()))(X) for outer in (jacfwd, jacrev) for inner in (jacfwd, jacrev)]
    for other in by_turns[1:]:
        assert torch.allclose(by_turns[0], other, atol=1e-5)


def test_complex_and_conjugate():
    z, v = torch.tensor([1 + 2j, -1j]), torch.tensor([1j, 2 + 1j])
    assert torch.allclose(jvp(lambda z: z * z.conj(), (z,), (v,))[1], v * z.conj() + z * v.conj())
    assert torch.allclose(jvp(torch.abs, (z,), (v,))[1], (v * z.conj()).real / z.abs())


def test_promoted_operands():
    with fw.dual_level():
        d = fw.make_dual(torch.ones(2), V)
        for out in (d + torch.ones(2, dtype=torch.float64), d.double() * d, d * 1j):
            assert fw.unpack_dual(out).tangent.dtype is out.dtype


@pytest.mark.parametrize("fn", [lambda x: x + 0, lambda x: torch.positive(x) * 1, lambda x: x.sum(0, keepdim=True).expand(2)])
def test_a_result_does_not_share_its_tangent_with_an_operand(fn):
    with fw.dual_level():
        d = fw.make_dual(X.clone(), V.clone())
        fn(d).clone().mul_(5)
        assert torch.equal(fw.unpack_dual(d).tangent, V)
