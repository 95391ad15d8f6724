"""Transformations of transformations."""

import pytest

import flambeau as torch
from flambeau.func import grad, grad_and_value, hessian, jacfwd, jacrev, jvp, vjp, vmap

from .both import check

W = [[0.3, -0.2], [0.5, 0.7], [-0.1, 0.4]]
ROWS = [[0.5, -1.2], [0.3, 0.9], [-0.4, 0.1], [1.5, 0.2]]


def setting(torch):
    """A point, a batch of points, a scalar function and one with three outputs."""
    w = torch.tensor(W)
    return torch.tensor(ROWS[0]), torch.tensor(ROWS), lambda x: (x.sin() * x**2).sum(), lambda x: torch.tanh(w @ x)


PROGRAMS = {
    "vmap(grad)": lambda F, x, X, f, g: F.vmap(F.grad(f))(X),
    "grad(vmap)": lambda F, x, X, f, g: F.grad(lambda X: F.vmap(f)(X).sum())(X),
    "vmap(grad(vmap))": lambda F, x, X, f, g: F.vmap(F.grad(lambda x: F.vmap(lambda y: y.sin())(x).sum()))(X),
    "vmap(vmap(grad))": lambda F, x, X, f, g: F.vmap(F.vmap(F.grad(lambda y: y.sin() * y)))(X),
    "vmap(vmap(grad(grad)))": lambda F, x, X, f, g: F.vmap(F.vmap(F.grad(F.grad(lambda y: y.sin() * y))))(X),
    "vmap(grad_and_value)": lambda F, x, X, f, g: F.vmap(F.grad_and_value(lambda x: (f(x), x * 2), has_aux=True))(X),
    "the same argument for all": lambda F, x, X, f, g: F.vmap(F.grad(lambda a, b: f(a * b), argnums=(0, 1)), in_dims=(None, 0))(x, X),
    "a captured argument": lambda F, x, X, f, g: F.vmap(lambda r: F.grad(lambda a: f(a * r))(x))(X),
    "an argument that no batch reaches": lambda F, x, X, f, g: F.vmap(lambda r: F.grad(f)(x))(X),
    "a captured argument in two vmaps": lambda F, x, X, f, g: F.vmap(
        lambda a: F.vmap(lambda b: F.grad(lambda c: f(a * b * c))(x))(X)
    )(X),
    "jacrev(jacfwd)": lambda F, x, X, f, g: F.jacrev(F.jacfwd(g))(x),
    "jacfwd(jacrev)": lambda F, x, X, f, g: F.jacfwd(F.jacrev(g))(x),
    "jacrev(jacrev)": lambda F, x, X, f, g: F.jacrev(F.jacrev(g))(x),
    "jacfwd(jacfwd)": lambda F, x, X, f, g: F.jacfwd(F.jacfwd(g))(x),
    "jacrev three times": lambda F, x, X, f, g: F.jacrev(F.jacrev(F.jacrev(f)))(x),
    "jacfwd three times": lambda F, x, X, f, g: F.jacfwd(F.jacfwd(F.jacfwd(f)))(x),
    "vmap(hessian)": lambda F, x, X, f, g: F.vmap(F.hessian(f))(X),
    "hessian(vmap)": lambda F, x, X, f, g: F.hessian(lambda X: F.vmap(f)(X).sum())(X),
    "vmap(jacrev)": lambda F, x, X, f, g: F.vmap(F.jacrev(g))(X),
    "vmap(jacfwd)": lambda F, x, X, f, g: F.vmap(F.jacfwd(g))(X),
    "jacrev(vmap)": lambda F, x, X, f, g: F.jacrev(F.vmap(g))(X),
    "jacfwd(vmap)": lambda F, x, X, f, g: F.jacfwd(F.vmap(g))(X),
    "jvp(grad)": lambda F, x, X, f, g: F.jvp(F.grad(f), (x,), (X[1],)),
    "grad(jvp)": lambda F, x, X, f, g: F.grad(lambda x: F.jvp(f, (x,), (X[1],))[1])(x),
    "grad(jvp) by the tangent": lambda F, x, X, f, g: F.grad(lambda v: F.jvp(lambda x: f(x) ** 2, (x,), (v,))[1])(X[1]),
    "grad(jvp(grad)) by the tangent": lambda F, x, X, f, g: F.grad(lambda v: F.jvp(F.grad(f), (x,), (v,))[1].sum())(X[1]),
    "vjp(jvp)": lambda F, x, X, f, g: F.vjp(lambda x: F.jvp(g, (x,), (X[1],))[1], x)[1](g(x)),
    "jvp(vjp)": lambda F, x, X, f, g: F.jvp(lambda x: F.vjp(g, x)[1](g(X[1]))[0], (x,), (X[2],)),
    "jvp(vjp) by the cotangent": lambda F, x, X, f, g: F.jvp(lambda c: F.vjp(g, x)[1](c)[0], (g(x),), (g(X[1]),)),
    "grad(vjp) by the cotangent": lambda F, x, X, f, g: F.grad(lambda c: F.vjp(g, x)[1](c)[0].sin().sum())(g(x)),
    "jvp(jvp)": lambda F, x, X, f, g: F.jvp(lambda x: F.jvp(g, (x,), (x * 2,))[1], (x,), (X[1],)),
    "vmap(vjp_fn)": lambda F, x, X, f, g: F.vmap(F.vjp(g, x)[1])(F.vmap(g)(X)),
    "vmap(vmap(vjp_fn))": lambda F, x, X, f, g: F.vmap(F.vmap(F.vjp(g, x)[1]))(F.vmap(g)(X).reshape(2, 2, 3)),
    "vmap(vjp_fn of vmap)": lambda F, x, X, f, g: F.vmap(F.vjp(F.vmap(g), X)[1])(F.vmap(g)(X).expand(3, 4, 3)),
    "vmap(jvp) by the tangent": lambda F, x, X, f, g: F.vmap(lambda v: F.jvp(g, (x,), (v,)))(X),
    "vmap(jvp) by the point": lambda F, x, X, f, g: F.vmap(lambda a: F.jvp(g, (a,), (x,)))(X),
    "jvp(vmap)": lambda F, x, X, f, g: F.jvp(F.vmap(g), (X,), (X * 2,)),
    "vmap(linearize)": lambda F, x, X, f, g: F.vmap(F.linearize(g, x)[1])(X),
    "jacrev in chunks": lambda F, x, X, f, g: F.jacrev(g, chunk_size=2)(x),
    "vmap(jacrev) of a nest": lambda F, x, X, f, g: F.vmap(F.jacrev(lambda d: {"out": (g(d["a"]) * d["b"][0].sum(),)}))({"a": X, "b": [X * 2]}),
}


@pytest.mark.torch
@pytest.mark.parametrize("name", PROGRAMS)
def test_like_torch(name):
    def program(torch):
        return PROGRAMS[name](torch.func, *setting(torch))

    check(program)


def close(a, b):
    assert torch.allclose(a, b, atol=1e-6), (a, b)


def test_second_and_third_derivatives():
    x = torch.tensor(0.7)
    close(grad(grad(torch.sin))(x), -torch.sin(x))
    close(grad(grad(grad(torch.sin)))(x), -torch.cos(x))


def test_mixed_second_derivatives_agree():
    x = torch.tensor([0.3, -0.8, 1.1], dtype=torch.float64)

    def f(x):
        return (x.exp() * x.roll(1)).sum() + x.prod()

    expected = hessian(f)(x)
    for transformed in (jacrev(jacrev(f)), jacfwd(jacfwd(f)), jacrev(jacfwd(f)), jacrev(grad(f)), jacfwd(grad(f))):
        close(transformed(x), expected)
    close(expected, expected.mT)


def test_a_vector_times_the_hessian_in_three_ways():
    x, v = torch.tensor([0.5, 1.5]), torch.tensor([1.0, -2.0])

    def f(x):
        return (x**3).sum() * x[0]

    expected = hessian(f)(x) @ v
    close(jvp(grad(f), (x,), (v,))[1], expected)
    close(vjp(grad(f), x)[1](v)[0], expected)
    close(grad(lambda x: jvp(f, (x,), (v,))[1])(x), expected)


def test_gradients_of_each_example():
    X, w = torch.randn(5, 3), torch.randn(3)

    def loss(w, x):
        return torch.tanh(w @ x)

    each = vmap(grad(loss), in_dims=(None, 0))(w, X)
    close(each, (1 - torch.tanh(X @ w) ** 2)[:, None] * X)
    close(each.sum(0), grad(lambda w: vmap(loss, in_dims=(None, 0))(w, X).sum())(w))


def test_an_inner_derivative_is_a_constant_to_no_other():
    """Perturbation confusion: each derivative must be with respect to its own variable."""
    one, s = torch.tensor(1.0), torch.tensor(0.7)
    assert grad(lambda x: x * grad(lambda y: x + y)(one))(one).item() == 1
    assert grad(lambda x: x * grad(lambda y: x * y)(one))(s).item() == pytest.approx(1.4)
    assert grad(lambda x: grad(lambda y: (x + y) ** 3)(x))(s).item() == pytest.approx(24 * 0.7)
    assert jvp(lambda x: x * jvp(lambda y: x + y, (one,), (one,))[1], (one,), (one,))[1].item() == 1
    assert jvp(lambda x: x * jvp(lambda y: x * y, (s,), (one,))[1], (s,), (one,))[1].item() == pytest.approx(1.4)
    assert jvp(lambda x: grad(lambda y: x * y * y)(x), (s,), (one,))[1].item() == pytest.approx(2.8)
    assert grad(lambda x: jvp(lambda y: x * y * y, (x,), (one,))[1])(s).item() == pytest.approx(2.8)


@pytest.mark.parametrize("transformed", [grad, jacrev, jacfwd, hessian, lambda f: lambda x: vmap(grad(f))(x.expand(3, 2))])
def test_the_users_own_backward_goes_through(transformed):
    def f(x):
        return (x**3).sum() * x[0]

    x = torch.tensor([0.5, -1.5], requires_grad=True)
    transformed(f)(x).sum().backward()
    expected = jacrev(lambda x: transformed(f)(x).sum())(x.detach())
    close(x.grad, expected)


@pytest.mark.parametrize(
    "transformed",
    [
        grad(lambda x: (x**3).sum()),
        lambda x: grad_and_value(lambda x: (x**3).sum())(x)[1],
        lambda x: grad(lambda x: ((x**3).sum(), x * 2), has_aux=True)(x)[1],
        lambda x: vjp(torch.sin, x)[0],
        lambda x: vjp(torch.sin, x)[1](x)[0],
        lambda x: jvp(grad(lambda x: (x**3).sum()), (x,), (x,))[1],
        hessian(lambda x: (x**3).sum()),
        jacfwd(torch.sin),
        jacrev(torch.sin),
        lambda x: vmap(grad(torch.sin))(x),
        grad(lambda x: x[0] * grad(lambda y: y**2 * x[1])(torch.tensor(3.0))),
    ],
)
def test_results_remember_nothing_of_what_is_over(transformed):
    x = torch.tensor([0.5, -1.5])
    assert not transformed(x).requires_grad
    assert not x.requires_grad and x.grad is None


def test_gradients_of_gradients_free_their_graphs():
    import gc
    import weakref

    freed = []

    def f(x):
        y = x.sin()
        weakref.finalize(y, freed.append, 1)
        return y.sum()

    gc.collect()
    gc.disable()
    try:
        for transformed in (grad(f), hessian(f), jacrev(grad(f)), vmap(grad(f))):
            freed.clear()
            transformed(torch.ones(2, 2) if transformed is not hessian else torch.ones(2))
            assert freed
    finally:
        gc.enable()
