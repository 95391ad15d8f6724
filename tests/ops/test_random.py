"""The generator, its streams (PyTorch's, seed for seed), and how draws refuse bad arguments."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

import flambeau
from flambeau.kernels.gamma_grad import gamma_grad

DRAWS = {
    "rand": lambda T: T.rand(2, 3),
    "rand_double": lambda T: T.rand(5, dtype=T.float64),
    "rand_half": lambda T: T.rand(5, dtype=T.float16),
    "rand_complex": lambda T: T.rand(5, dtype=T.complex64),
    "rand_empty": lambda T: T.rand(0, 3),
    "rand_scalar": lambda T: T.rand(()),
    "rand_out": lambda T: T.rand(3, out=T.zeros(3, dtype=T.float64)),
    "rand_like": lambda T: T.rand_like(T.zeros(3, 4).t()),
    "randn": lambda T: T.randn(3),
    "randn_blocks": lambda T: T.randn(50),
    "randn_like": lambda T: T.randn_like(T.zeros(20), dtype=T.float64),
    "randint": lambda T: T.randint(10, (4,)),
    "randint_low": lambda T: T.randint(-3, 10, (4,)),
    "randint_size": lambda T: T.randint(3, 10, size=(4,), dtype=T.int32),
    "randint_named": lambda T: T.randint(low=3, high=10, size=(4,)),
    "randint_high_named": lambda T: T.randint(3, high=10, size=(4,)),
    "randint_wide": lambda T: T.randint(1 << 40, (4,)),
    "randint_like": lambda T: T.randint_like(T.zeros(4), 2, 9),
    "randperm": lambda T: T.randperm(100),
    "randperm_int32": lambda T: T.randperm(7, dtype=T.int32),
    "bernoulli": lambda T: T.bernoulli(T.full((2, 9), 0.3)),
    "bernoulli_p": lambda T: T.zeros(9).bernoulli(0.5),
    "poisson": lambda T: T.poisson(T.tensor([0.0, 3.0, 50.0])),
    "binomial": lambda T: T.binomial(T.tensor([[5.0, 100.0]]), T.tensor([[0.5, 0.2]])),
    "multinomial": lambda T: T.multinomial(T.tensor([[1.0, 2.0, 3.0], [5.0, 0.0, 1.0]]), 2),
    "multinomial_again": lambda T: T.multinomial(T.tensor([1.0, 2.0, 3.0]), 8, replacement=True),
    "gamma": lambda T: T._standard_gamma(T.tensor([0.5, 1.0, 20.0])),
    "normal": lambda T: T.normal(1.0, 2.0, (3,)),
    "normal_mean": lambda T: T.normal(T.tensor([0.0, 10.0]), 1.0),
    "normal_std": lambda T: T.normal(5.0, T.tensor([0.0, 10.0])),
    "normal_both": lambda T: T.normal(T.zeros(2, 1), T.ones(3)),
}


@pytest.mark.torch
@pytest.mark.parametrize("name", DRAWS)
def test_same_seed_same_numbers(name: str) -> None:
    torch = pytest.importorskip("torch")
    results = []
    for T in (flambeau, torch):
        T.manual_seed(7)
        first, second = DRAWS[name](T), DRAWS[name](T)
        results.append((first, second, T.get_rng_state()))
    for a, b in zip(*results):
        assert str(a.dtype) == str(b.dtype)
        assert tuple(a.stride()) == tuple(b.stride())
        np.testing.assert_array_equal(a.numpy(), b.numpy())


@pytest.mark.torch
def test_nodes_are_torchs() -> None:
    torch = pytest.importorskip("torch")
    for fn in (
        lambda T, x: T.bernoulli(x), lambda T, x: T.bernoulli(x, 0.5), lambda T, x: T.poisson(x), lambda T, x: T.binomial(x, x),
        lambda T, x: T._standard_gamma(x), lambda T, x: T.normal(x), lambda T, x: T.normal(1.0, x), lambda T, x: T.normal(x, x),
    ):  # fmt: skip
        names = [fn(T, T.full((2,), 0.5, requires_grad=True)).grad_fn.name().split(":")[-1] for T in (flambeau, torch)]
        assert names[0] == names[1]


@pytest.mark.torch
@pytest.mark.parametrize(
    "call",
    [
        "T.rand(2, dtype=T.int64)", "T.rand('a')", "T.rand(-1)", "T.rand(2, out=T.empty(2), dtype=T.float64)",
        "T.manual_seed(2 ** 64)", "T.manual_seed('a')", "T.randint(3, 2)", "T.randint(2.5, (2,))", "T.randint(3, 3, (2,))",
        "T.randint(0, 2 ** 63, (1,))", "T.randint(3, (2,), dtype=T.bool)", "T.randperm(3.0)", "T.randperm(-1)",
        "T.normal(0, -1.0, (2,))", "T.normal(T.zeros(2), T.ones(3))",
        "T.normal(T.zeros(2), -T.ones(2))", "T.bernoulli(T.tensor([2.0]))", "T.bernoulli(T.ones(2), 2.0)",
        "T.binomial(T.ones(2, dtype=T.int64), T.ones(2))", "T.multinomial(T.ones(2), 3)", "T.multinomial(T.zeros(2), 1)",
        "T.poisson(T.ones(2, dtype=T.int64))", "T.Generator().set_state(T.zeros(3))",
        "T.Generator().set_state(T.zeros(3, dtype=T.uint8))",
    ],
)  # fmt: skip
def test_same_errors(call: str) -> None:
    torch = pytest.importorskip("torch")
    found = []
    for T in (flambeau, torch):
        before = T.get_rng_state().numpy().copy()
        with pytest.raises(Exception) as e:
            eval(call, {"T": T, "__name__": "user"})
        found.append((e.type, str(e.value).split("\n")[0]))
        np.testing.assert_array_equal(T.get_rng_state().numpy(), before)
    assert found[0] == found[1]


def test_generators_are_independent() -> None:
    g = flambeau.Generator().manual_seed(3)
    flambeau.manual_seed(3)
    a = flambeau.rand(4, generator=g)
    assert a.equal(flambeau.rand(4))
    assert not a.equal(flambeau.rand(4, generator=g))
    assert g.initial_seed() == 3
    assert g.device == flambeau.device("cpu")
    assert g.seed() == g.initial_seed()


def test_state_is_restored() -> None:
    g = flambeau.Generator().manual_seed(3)
    flambeau.randn(3, generator=g)  # leaves the second normal of a pair behind
    state = g.get_state()
    assert state.shape == (5056,) and state.dtype == flambeau.uint8
    want = flambeau.randn(3, generator=g)
    assert flambeau.randn(3, generator=flambeau.Generator().set_state(state)).equal(want)
    g.set_state(state)
    copies = [pickle.loads(pickle.dumps(g)), copy.deepcopy(g), g.clone_state(), g]
    for c in copies:
        assert flambeau.randn(3, generator=c).equal(want)


@pytest.mark.torch
def test_state_is_torchs() -> None:
    torch = pytest.importorskip("torch")
    ours, theirs = flambeau.Generator().manual_seed(5), torch.Generator().manual_seed(5)
    flambeau.randn(3, generator=ours)
    theirs.set_state(torch.from_numpy(ours.get_state().numpy().copy()))
    np.testing.assert_array_equal(flambeau.randn(3, generator=ours).numpy(), torch.randn(3, generator=theirs).numpy())


def test_wrong_generator() -> None:
    with pytest.raises(TypeError, match="must be torch.Generator, not int"):
        flambeau.rand(2, generator=3)
    with pytest.raises(TypeError, match='missing 1 required positional arguments: "high"'):
        flambeau.randint(size=(2,))
    with pytest.raises(TypeError, match="beside tensors"):
        flambeau.normal(flambeau.zeros(2), 1.0, (2,))


def test_fork_rng() -> None:
    flambeau.manual_seed(1)
    want = flambeau.rand(2)
    flambeau.manual_seed(1)
    with flambeau.random.fork_rng():
        flambeau.rand(5)
    assert flambeau.rand(2).equal(want)
    with flambeau.random.fork_rng(enabled=False):
        flambeau.manual_seed(1)
    assert flambeau.rand(2).equal(want)
    with pytest.raises(AssertionError), flambeau.random.fork_rng(devices=[0]):
        pass
    assert flambeau.random.thread_safe_generator() is None
    for name in flambeau.random.__all__:
        assert hasattr(flambeau.random, name)


def test_set_rng_state() -> None:
    state = flambeau.get_rng_state()
    a = flambeau.rand(3)
    flambeau.set_rng_state(state)
    assert flambeau.rand(3).equal(a)
    flambeau.manual_seed(-1)
    assert flambeau.initial_seed() == 2**64 - 1
    assert flambeau.seed() == flambeau.initial_seed()


def test_options() -> None:
    assert flambeau.rand(2, requires_grad=True).requires_grad
    with pytest.raises(RuntimeError, match="Only Tensors of floating point and complex dtype can require gradients"):
        flambeau.randperm(3, requires_grad=True)
    assert flambeau.rand(2, device="cpu", layout=flambeau.strided).shape == (2,)
    out = flambeau.zeros(3, dtype=flambeau.int64)
    assert flambeau.randperm(3, out=out) is out and sorted(out.tolist()) == [0, 1, 2]


@pytest.mark.parametrize(
    "fn", [flambeau.bernoulli, flambeau.poisson, lambda x: flambeau.normal(x, x)], ids=["b", "p", "n"]
)
def test_draws_that_do_not_follow_their_parameters(fn: Any) -> None:
    x = flambeau.full((3,), 0.5, requires_grad=True)
    fn(x).sum().backward()
    assert x.grad.tolist() == [0, 0, 0]


def test_no_derivative() -> None:
    x = flambeau.full((3,), 0.5, requires_grad=True)
    with pytest.raises(NotImplementedError, match="the derivative for 'binomial' is not implemented"):
        flambeau.binomial(x, x).sum().backward()
    with pytest.raises(NotImplementedError, match="the derivative for 'bernoulli' is not implemented"):
        flambeau.bernoulli(x, 0.5).sum().backward()


@pytest.mark.parametrize("alpha", [0.05, 0.5, 1.0, 2.0, 9.0, 300.0])
def test_gamma_gradient(alpha: float) -> None:
    """Against a central difference of the distribution function: dx/dalpha = -(dF/dalpha) / density."""
    from scipy.special import gammainc
    from scipy.stats import gamma

    x = gamma(alpha).ppf(np.linspace(0.02, 0.98, 25))
    step = alpha * 1e-5
    slope = -(gammainc(alpha + step, x) - gammainc(alpha - step, x)) / (2 * step) / gamma(alpha).pdf(x)
    np.testing.assert_allclose(gamma_grad(np.full(25, alpha), x), slope, rtol=1e-5)


def test_gamma_is_reparameterised() -> None:
    alpha = flambeau.tensor([0.5, 3.0], dtype=flambeau.float64, requires_grad=True)
    x = flambeau._standard_gamma(alpha)
    x.backward(flambeau.tensor([2.0, 1.0], dtype=flambeau.float64))
    slopes = gamma_grad(alpha.detach().numpy(), x.detach().numpy())
    np.testing.assert_allclose(alpha.grad.numpy(), slopes * [2, 1])


@pytest.mark.parametrize(
    "draw",
    [
        lambda x: flambeau.bernoulli(x), lambda x: flambeau.poisson(x), lambda x: flambeau.normal(x, 1.0), lambda x: flambeau.normal(0.0, x), lambda x: flambeau.normal(x, x),
        lambda x: (x * 1).uniform_(), lambda x: (x * 1).bernoulli_(x), lambda x: (x * 1).bernoulli_(0.5),
    ],
)  # fmt: skip
def test_forward_mode_draws_once(draw: Any) -> None:
    """The tangent of draws is zero, and having it draws nothing."""
    fw = flambeau.autograd.forward_ad
    x = flambeau.tensor([0.2, 0.5, 0.9])
    flambeau.manual_seed(0)
    want, after = draw(x), flambeau.rand(1)
    flambeau.manual_seed(0)
    with fw.dual_level():
        out = fw.unpack_dual(draw(fw.make_dual(x, flambeau.ones_like(x))))
        assert flambeau.equal(out.primal, want) and flambeau.equal(flambeau.rand(1), after)
        assert out.tangent is not None and not out.tangent.any()


def test_gammas_follow_their_parameter_in_forward_mode() -> None:
    fw = flambeau.autograd.forward_ad
    x = flambeau.tensor([0.2, 0.5, 0.9], dtype=flambeau.float64)
    flambeau.manual_seed(0)
    leaf = x.clone().requires_grad_()
    (want,) = flambeau.autograd.grad(flambeau._standard_gamma(leaf).sum(), leaf)
    flambeau.manual_seed(0)
    with fw.dual_level():
        tangent = fw.unpack_dual(flambeau._standard_gamma(fw.make_dual(x, flambeau.ones_like(x)))).tangent
    np.testing.assert_allclose(tangent.numpy(), want.numpy())
