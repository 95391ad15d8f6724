"""Gradients are reused in place only where nobody else can see it."""

import pytest

import flambeau as torch
from flambeau.kernels import ufunc

N = ufunc.LARGE + 1


def test_values_of_a_chain_that_reuses_its_gradient():
    x = torch.linspace(-1, 1, N, dtype=torch.float64).requires_grad_()
    x.sin().exp().mul(3.0).sum().backward()
    want = 3 * x.detach().cos() * x.detach().sin().exp()
    torch.testing.assert_close(x.grad, want)


def test_the_gradient_that_was_given_is_left_alone():
    x = torch.ones(N, requires_grad=True)
    g = torch.full((N,), 2.0)
    x.exp().backward(g)
    assert torch.equal(g, torch.full((N,), 2.0))


def test_a_gradient_that_a_hook_keeps_is_left_alone():
    x = torch.ones(N, requires_grad=True)
    kept = []
    y = (x * 2.0).neg()
    z = y.exp()
    y.register_hook(lambda g: kept.append(g))
    y.retain_grad()
    z.sum().backward()
    assert torch.equal(kept[0], z.detach()) and torch.equal(y.grad, z.detach())
    assert torch.equal(x.grad, -2 * z.detach())


def test_a_gradient_shared_by_two_branches():
    x = torch.full((N,), 0.5, requires_grad=True)
    y = x.exp()
    (y.sin() + y.cos()).sum().backward()
    e = x.detach().exp()
    torch.testing.assert_close(x.grad, e * (e.cos() - e.sin()))


def test_hooks_of_nodes_see_what_arrived():
    x = torch.ones(N, requires_grad=True)
    y = (x * 3.0).exp()
    seen = []
    y.grad_fn.register_hook(lambda inputs, outputs: seen.append((inputs[0][0].item(), outputs[0][0].item())))
    (y * 1.0).sum().backward()
    assert seen[0][1] == 1 and seen[0][0] == pytest.approx(20.085537, rel=1e-5)


def test_captured_and_retained_graphs():
    x = torch.full((N,), 0.5, requires_grad=True)
    y = x.sin()
    z = y.exp() * 2.0
    (gy,) = torch.autograd.grad(z.sum(), y, retain_graph=True)
    first = gy.clone()
    (gx,) = torch.autograd.grad(z.sum(), x, retain_graph=True)
    z.sum().backward()
    assert torch.equal(gy, first) and torch.equal(gx, x.grad)
