"""What transformations are used for, as whole programs, against PyTorch."""

import pytest

import flambeau
from flambeau.func import grad, hessian

from .both import check


def network(torch):
    """A small network with fixed parameters, the dict of them, its scalar output as a function, and a batch."""
    net = torch.nn.Sequential(torch.nn.Linear(2, 5), torch.nn.Tanh(), torch.nn.Linear(5, 5), torch.nn.Tanh(), torch.nn.Linear(5, 1))
    with torch.no_grad():
        for i, p in enumerate(net.parameters()):
            p.copy_(torch.sin(torch.arange(p.numel()) * 1.7 + i).reshape(p.shape) * 0.5)
    parameters = {n: p.detach() for n, p in net.named_parameters()}

    def u(p, x):
        return torch.func.functional_call(net, p, (x[None],)).squeeze()

    return net, parameters, u, torch.cos(torch.arange(8.0)).reshape(4, 2)


def second(F, f, x, v):
    return F.jvp(lambda x: F.jvp(f, (x,), (v,))[1], (x,), (v,))[1]


LAPLACIANS = {
    "hessian": lambda torch, f, x: torch.func.hessian(f)(x).diagonal().sum(),
    "jacrev of jacrev": lambda torch, f, x: torch.func.jacrev(torch.func.jacrev(f))(x).diagonal().sum(),
    "jvp of jvp": lambda torch, f, x: torch.func.vmap(lambda v: second(torch.func, f, x, v))(torch.eye(2)).sum(),
}


@pytest.mark.torch
@pytest.mark.parametrize("name", LAPLACIANS)
def test_training_on_a_laplacian(name):
    def program(torch):
        net, parameters, u, X = network(torch)
        F = torch.func

        def loss(p):
            return F.vmap(lambda x: LAPLACIANS[name](torch, lambda x: u(p, x), x))(X).pow(2).mean()

        functional = F.grad(loss)(parameters)
        loss(dict(net.named_parameters())).backward()
        return functional, {n: p.grad for n, p in net.named_parameters() if p.grad is not None}

    check(program)


@pytest.mark.torch
def test_learning_to_learn():
    def program(torch):
        net, parameters, u, X = network(torch)
        F = torch.func
        Y = X.sum(1).sin()

        def loss(p, X, Y):
            return (F.vmap(u, in_dims=(None, 0))(p, X) - Y).pow(2).mean()

        def after_three_steps(p, X, Y):
            for _ in range(3):
                g = F.grad(loss)(p, X, Y)
                p = {n: p[n] - 0.1 * g[n] for n in p}
            return loss(p, X + 0.1, Y)

        tasks = F.vmap(F.grad(after_three_steps), in_dims=(None, 0, 0))(parameters, X.reshape(2, 2, 2), Y.reshape(2, 2))
        after_three_steps(dict(net.named_parameters()), X, Y).backward()
        return F.grad(after_three_steps)(parameters, X, Y), tasks, [p.grad for p in net.parameters()]

    check(program)


@pytest.mark.torch
def test_neural_tangent_kernel_in_two_ways():
    def program(torch):
        _, parameters, u, X = network(torch)
        F = torch.func
        rows = F.vmap(F.jacrev(u), in_dims=(None, 0))(parameters, X)
        whole = sum([r.flatten(1) @ r.flatten(1).mT for r in rows.values()])

        def entry(a, b):
            _, pull = F.vjp(lambda p: u(p, a), parameters)
            return F.jvp(lambda p: u(p, b), (parameters,), pull(torch.ones(())))[1]

        entries = F.vmap(F.vmap(entry, in_dims=(None, 0)), in_dims=(0, None))(X, X)
        assert torch.allclose(whole, entries, atol=1e-5)
        return whole

    check(program)


def test_newtons_method():
    def f(x):
        return (x**4).sum() + (x - 1).pow(2).sum()

    x = flambeau.tensor([1.0, -0.5, 2.0], dtype=flambeau.float64)
    for _ in range(20):
        x = x - flambeau.linalg.solve(hessian(f)(x), grad(f)(x))
    assert grad(f)(x).abs().max() < 1e-12
