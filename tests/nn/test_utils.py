"""Clipping, vectors of parameters, parametrizations, fusion, stateless calls."""

import copy

import pytest

import flambeau as torch
from flambeau import nn
from flambeau.nn.utils import parametrize


def test_clipping():
    p = torch.zeros(2).requires_grad_()
    p.grad = torch.tensor([3.0, 4.0])
    assert nn.utils.clip_grad_norm_([p], 1.0).item() == pytest.approx(5)
    assert torch.allclose(p.grad, torch.tensor([0.6, 0.8]))
    nn.utils.clip_grad_value_(p, 0.7)
    assert torch.allclose(p.grad, torch.tensor([0.6, 0.7]))
    p.grad = torch.tensor([float("inf"), 0.0])
    with pytest.raises(RuntimeError, match="is non-finite, so it cannot be clipped"):
        nn.utils.clip_grad_norm_([p], 1.0, error_if_nonfinite=True)


def test_vectors():
    a, b = nn.Linear(2, 3), nn.Linear(2, 3)
    vec = nn.utils.parameters_to_vector(a.parameters())
    nn.utils.vector_to_parameters(vec, b.parameters())
    assert torch.equal(a.weight, b.weight) and torch.equal(a.bias, b.bias)


class Positive(nn.Module):
    def forward(self, x):
        return x.exp()

    def right_inverse(self, y):
        return y.log()


def test_parametrize():
    m = nn.Linear(2, 2)
    with torch.no_grad():
        m.weight.copy_(torch.ones(2, 2) * 2)
    w = m.weight
    parametrize.register_parametrization(m, "weight", Positive())
    assert torch.allclose(m.weight, torch.ones(2, 2) * 2) and m.parametrizations.weight.original is w
    assert list(m.state_dict()) == ["bias", "parametrizations.weight.original"]
    m.weight = torch.ones(2, 2) * 3
    assert torch.allclose(copy.deepcopy(m).weight, torch.ones(2, 2) * 3)
    m(torch.ones(1, 2)).sum().backward()
    assert w.grad is not None
    parametrize.remove_parametrizations(m, "weight")
    assert type(m) is nn.Linear and m.weight is w and torch.allclose(w, torch.ones(2, 2) * 3)


def test_weight_norm_both_ways():
    m = nn.Linear(3, 2)
    before = m.weight.detach().clone()
    nn.utils.parametrizations.weight_norm(m)
    assert torch.allclose(m.weight, before, atol=1e-6)
    assert sorted(m.parametrizations.weight.state_dict()) == ["original0", "original1"]
    n = nn.Linear(3, 2)
    before = n.weight.detach().clone()
    with pytest.warns(FutureWarning, match="weight_norm"):
        nn.utils.weight_norm(n)
    assert list(n.state_dict()) == ["bias", "weight_g", "weight_v"]
    assert torch.allclose(nn.utils.remove_weight_norm(n).weight, before, atol=1e-6)


def test_spectral_norm():
    m = nn.utils.parametrizations.spectral_norm(nn.Linear(6, 4), n_power_iterations=50)
    assert float(torch.linalg.matrix_norm(m.weight, 2)) == pytest.approx(1, abs=1e-3)


def test_fusion():
    conv, bn = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
    bn(torch.randn(5, 4, 2, 2) * 2 + 1)
    conv.eval(), bn.eval()
    x = torch.randn(2, 3, 5, 5)
    assert torch.allclose(nn.utils.fuse_conv_bn_eval(conv, bn)(x), bn(conv(x)), atol=1e-5)


def test_functional_call_and_skip_init():
    m = nn.utils.skip_init(nn.Linear, 2, 1)
    assert type(m) is nn.Linear
    given = {"weight": torch.ones(1, 2).requires_grad_(), "bias": torch.zeros(1)}
    with pytest.warns(FutureWarning):
        out = nn.utils.stateless.functional_call(m, given, torch.ones(1, 2))
    out.backward()
    assert out.item() == 2 and given["weight"].grad is not None and m.weight.grad is None
