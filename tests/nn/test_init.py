"""Initialisers: gains, fans, ranges, structure."""

import math

import pytest

import flambeau as torch
from flambeau.nn import init


def test_gains_and_fans():
    assert init.calculate_gain("relu") == math.sqrt(2) and init.calculate_gain("tanh") == 5 / 3
    assert init.calculate_gain("leaky_relu", 0.2) == pytest.approx(math.sqrt(2 / 1.04))
    assert init._calculate_fan_in_and_fan_out(torch.zeros(4, 3, 5, 5)) == (75, 100)
    with pytest.raises(ValueError, match="Unsupported nonlinearity what"):
        init.calculate_gain("what")
    with pytest.raises(ValueError, match="Fan in and fan out can not be computed"):
        init.xavier_normal_(torch.zeros(3))


@pytest.mark.parametrize("a, b", [(-2.0, 2.0), (2.0, 3.0)])
def test_truncated_normal_stays_inside(a, b):
    w = init.trunc_normal_(torch.empty(2000), a=a, b=b)
    assert a <= float(w.min()) and float(w.max()) <= b


def test_orthogonal():
    w = init.orthogonal_(torch.empty(3, 2, 4))
    flat = w.reshape(3, 8)
    assert torch.allclose(flat @ flat.t(), torch.eye(3), atol=1e-5)


def test_dirac_eye_sparse():
    w = init.dirac_(torch.empty(4, 2, 3), groups=2)
    assert float(w.sum()) == 4 and float(w[3, 1, 1]) == 1
    assert torch.equal(init.eye_(torch.empty(2, 3)), torch.eye(2, 3))
    assert ((init.sparse_(torch.empty(10, 4), 0.3) == 0).sum(0) == 3).all()


def test_old_names_warn():
    with pytest.warns(FutureWarning, match="nn.init.constant_"):
        init.constant(torch.empty(1), 1.0)


@pytest.mark.torch
def test_the_numbers_are_pytorchs():
    real = pytest.importorskip("torch")
    calls = [
        ("uniform_", (2.0, 3.0)), ("normal_", (1.0, 2.0)), ("xavier_uniform_", ()), ("xavier_normal_", (2.0,)),
        ("kaiming_uniform_", ()), ("kaiming_normal_", (0.1, "fan_out")), ("trunc_normal_", ()),
        ("trunc_normal_", (0.0, 1.0, 2.0, 4.0)), ("sparse_", (0.3,)), ("orthogonal_", ()),
    ]  # fmt: skip
    for name, args in calls:
        torch.manual_seed(5)
        mine = getattr(init, name)(torch.empty(20, 10), *args).numpy()
        real.manual_seed(5)
        theirs = getattr(real.nn.init, name)(real.empty(20, 10), *args).numpy()
        assert abs(mine - theirs).max() < 2e-5, name
