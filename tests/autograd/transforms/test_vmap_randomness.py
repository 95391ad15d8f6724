"""Random numbers inside vmap: refused, drawn for each example, or the same for all; from PyTorch's streams."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import flambeau as ft

REFUSED = (
    "vmap: called random operation while in randomness error mode. Please either use the 'same' or 'different' randomness flags on vmap "
    "or perform the randomness operation out of vmap"
)
SAME = "Vmap does not currently support same randomness with a batched tensor input"
UNBATCHED = "vmap: Cannot ask for different inplace randomness on an unbatched tensor"
X = np.random.default_rng(0).uniform(0.1, 0.9, (3, 4)).astype(np.float32)

FACTORIES: dict[str, Any] = {
    "rand": lambda T, x: T.rand(2),
    "randn": lambda T, x: T.randn(2, dtype=T.float64),
    "randint": lambda T, x: T.randint(100, (2,)),
    "randperm": lambda T, x: T.randperm(4),
    "normal": lambda T, x: T.normal(0.0, 2.0, (2,)),
    "rand_like": lambda T, x: T.rand_like(x),
    "randn_like": lambda T, x: T.randn_like(x[:2]),
    "randint_like": lambda T, x: T.randint_like(x, 3, 100),
    "rand_like_unbatched": lambda T, x: T.rand_like(T.zeros(2)),
    "bernoulli_unbatched": lambda T, x: T.bernoulli(T.full((4,), 0.5)),
    "bernoulli_p_unbatched": lambda T, x: T.bernoulli(T.zeros(4), 0.5),
    "normal_unbatched": lambda T, x: T.normal(T.zeros(2), T.ones(1)),
    "poisson_unbatched": lambda T, x: T.poisson(T.full((4,), 3.0)),
    "multinomial_unbatched": lambda T, x: T.multinomial(T.ones(4), 3),
    "multinomial_rows_unbatched": lambda T, x: T.multinomial(T.ones(2, 4), 2, replacement=True),
    "gumbel_softmax": lambda T, x: T.nn.functional.gumbel_softmax(x),
}  # fmt: skip
DROPOUTS: dict[str, Any] = {
    "dropout": lambda T, x: T.nn.functional.dropout(x),
    "dropout_unbatched": lambda T, x: T.nn.functional.dropout(T.ones(4), 0.3),
    "dropout_inplace": lambda T, x: T.nn.functional.dropout(x * 1, 0.5, True, True),
    "alpha_dropout": lambda T, x: T.nn.functional.alpha_dropout(x, 0.5, True),
    "dropout1d": lambda T, x: T.nn.functional.dropout1d(x.reshape(2, 2)),
    "dropout2d": lambda T, x: T.nn.functional.dropout2d(x.reshape(1, 2, 1, 2)),
    "feature_alpha_dropout": lambda T, x: T.nn.functional.feature_alpha_dropout(x.reshape(2, 2, 1), 0.5, True),
    "attention": lambda T, x: T.nn.functional.scaled_dot_product_attention(*[x.reshape(1, 2, 2)] * 3, dropout_p=0.5),
}  # fmt: skip
IN_PLACE: dict[str, Any] = {
    "uniform_": lambda T, x: (x * 1).uniform_(),
    "normal_": lambda T, x: (x * 1).normal_(1.0, 2.0),
    "log_normal_": lambda T, x: (x * 1).log_normal_(),
    "cauchy_": lambda T, x: (x * 1).cauchy_(),
    "exponential_": lambda T, x: (x * 1).exponential_(2.0),
    "geometric_": lambda T, x: (x * 1).geometric_(0.5),
    "random_": lambda T, x: (x * 1).random_(100),
    "bernoulli_": lambda T, x: (x * 1).bernoulli_(0.5),
    "bernoulli_tensor_unbatched": lambda T, x: (x * 1).bernoulli_(T.full((4,), 0.5)),
}  # fmt: skip
OF_TENSORS: dict[str, Any] = {  # numbers whose distribution is each example's own
    "bernoulli": lambda T, x: T.bernoulli(x),
    "bernoulli_p": lambda T, x: T.bernoulli(x, 0.5),
    "poisson": lambda T, x: T.poisson(x * 5),
    "binomial": lambda T, x: T.binomial(T.full((4,), 5.0), x),
    "normal_mean": lambda T, x: T.normal(x, 1.0),
    "normal_std": lambda T, x: T.normal(0.0, x),
    "normal_both": lambda T, x: T.normal(x, T.ones(2, 4)),
    "multinomial": lambda T, x: T.multinomial(x, 3),
    "multinomial_rows": lambda T, x: T.multinomial(x.reshape(2, 2), 2, replacement=True),
    "gamma": lambda T, x: T._standard_gamma(x),
    "bernoulli_tensor_": lambda T, x: (x * 1).bernoulli_(x),
}  # fmt: skip
ALIKE = {**FACTORIES, **DROPOUTS, **IN_PLACE}
EVERY = {**ALIKE, **OF_TENSORS}


def run(T: Any, f: Any, randomness: str, seed: int = 3) -> Any:
    T.manual_seed(seed)
    out = T.vmap(lambda x: f(T, x), randomness=randomness)(T.tensor(X))
    after = T.rand(1)
    return out.numpy(), after.numpy()


@pytest.mark.parametrize("name", EVERY)
def test_error(name: str) -> None:
    with pytest.raises(RuntimeError, match=REFUSED):
        ft.vmap(lambda x: EVERY[name](ft, x))(ft.tensor(X))


@pytest.mark.parametrize("name", [n for n in FACTORIES if n != "gumbel_softmax"])
def test_same_is_one_draw(name: str) -> None:
    got, after = run(ft, FACTORIES[name], "same")
    ft.manual_seed(3)
    want = FACTORIES[name](ft, ft.tensor(X[0])).numpy()
    for one in got:
        np.testing.assert_array_equal(one, want)
    np.testing.assert_array_equal(after, ft.rand(1).numpy())


@pytest.mark.parametrize("name", ["dropout", "dropout_inplace", "dropout1d", "dropout2d"])
def test_same_mask(name: str) -> None:
    got, _ = run(ft, DROPOUTS[name], "same")
    assert len({tuple((one != 0).reshape(-1)) for one in got}) == 1


@pytest.mark.parametrize("name", OF_TENSORS)
def test_same_is_refused_where_distributions_differ(name: str) -> None:
    with pytest.raises(RuntimeError, match=SAME):
        run(ft, OF_TENSORS[name], "same")


@pytest.mark.parametrize("name", EVERY)
def test_different(name: str) -> None:
    got, _ = run(ft, EVERY[name], "different", 5)
    more = [run(ft, EVERY[name], "different", seed)[0] for seed in range(8)]
    assert any(not np.array_equal(one[0], one[1]) for one in (got, *more))


@pytest.mark.torch
@pytest.mark.parametrize("randomness", ["same", "different"])
@pytest.mark.parametrize("name", EVERY)
def test_numbers_are_torchs(name: str, randomness: str) -> None:
    torch = pytest.importorskip("torch")
    if randomness == "same" and name in OF_TENSORS:
        return
    for got, want in zip(run(ft, EVERY[name], randomness), run(torch, EVERY[name], randomness)):
        assert got.dtype == want.dtype
        np.testing.assert_allclose(got, want, rtol=2e-5, atol=1e-6)


def test_in_place_without_a_batch() -> None:
    z = ft.zeros(4)
    with pytest.raises(RuntimeError, match=UNBATCHED):
        ft.vmap(lambda x: z.uniform_(), randomness="different")(ft.tensor(X))
    assert not z.any() and z._version == 0
    with pytest.raises(RuntimeError, match=r"vmap: inplace bernoulli\(self, \*extra_args\) is not possible"):
        ft.vmap(lambda x: z.bernoulli_(x), randomness="different")(ft.tensor(X))
    assert not z.any() and z._version == 0
    ft.vmap(lambda x: z.uniform_() + x, randomness="same")(ft.tensor(X))
    assert z.all()


def test_in_place_is_in_place() -> None:
    """Views show it, and no gradient flows through it."""

    def f(x: Any) -> Any:
        y = x * 2
        row = y[:2]
        assert y.normal_() is y
        return y, row

    x = ft.tensor(X, requires_grad=True)
    y, row = ft.vmap(f, randomness="different")(x)
    np.testing.assert_array_equal(y[:, :2].detach().numpy(), row.detach().numpy())
    (g,) = ft.autograd.grad(y.sum(), x, allow_unused=True)
    assert g is None or not g.any()


@pytest.mark.parametrize("outer, inner", [("same", "different"), ("different", "same"), ("different", "different"), ("same", "same")])
def test_nested(outer: str, inner: str) -> None:
    """Each vmap decides for its own examples."""
    for f in (lambda x: ft.rand(2), lambda x: ft.nn.functional.dropout(ft.ones(64)), lambda x: ft.randperm(20)):
        ft.manual_seed(1)
        out = ft.vmap(ft.vmap(f, randomness=inner), randomness=outer)(ft.ones(2, 3)).numpy()
        assert (not np.array_equal(out[0], out[1])) == (outer == "different")
        assert (not np.array_equal(out[:, 0], out[:, 1])) == (inner == "different")


@pytest.mark.parametrize("modes", [("error", "same"), ("different", "error")])
def test_nested_error(modes: tuple[str, str]) -> None:
    with pytest.raises(RuntimeError, match=REFUSED):
        ft.vmap(ft.vmap(lambda x: ft.rand(2), randomness=modes[1]), randomness=modes[0])(ft.ones(2, 3))


def test_nested_distributions() -> None:
    """A batch of the inner vmap under an outer one that draws for each."""
    ft.manual_seed(0)
    x = ft.tensor(X)
    out = ft.vmap(lambda k: ft.vmap(lambda p: ft.normal(p, 1.0), randomness="different")(x), randomness="different")(ft.ones(2))
    assert out.shape == (2, 3, 4) and len(np.unique(out.numpy())) == 24
    with pytest.raises(RuntimeError, match=SAME):
        ft.vmap(lambda x: ft.vmap(lambda k: ft.bernoulli(x), randomness="different")(ft.ones(2)), randomness="same")(x)


def test_gradients_through_dropout_are_each_examples() -> None:
    w = ft.tensor(X)
    ft.manual_seed(0)
    loss = ft.func.grad_and_value(lambda x: (ft.nn.functional.dropout(x) * 2).sum())
    g, value = ft.vmap(loss, randomness="different")(w)
    assert set(np.unique(g.numpy())) == {0.0, 4.0}
    np.testing.assert_allclose((g * w).sum(1).numpy(), value.numpy(), rtol=1e-6)
    one = ft.vmap(loss, randomness="same")(w)[0].numpy()
    assert (one == one[0]).all()


def test_without_draws_nothing_is_asked() -> None:
    """Evaluation, probabilities of 0 and 1: nothing is drawn, so nothing is refused."""
    F, x = ft.nn.functional, ft.tensor(X)
    np.testing.assert_array_equal(ft.vmap(lambda x: F.dropout(x, 0.5, training=False))(x).numpy(), X)
    np.testing.assert_array_equal(ft.vmap(lambda x: F.dropout(x, 0.0))(x).numpy(), X)
    assert not ft.vmap(lambda x: F.dropout(x, 1.0))(x).any()


def test_options() -> None:
    g = ft.Generator().manual_seed(7)
    out = ft.vmap(lambda x: ft.rand(2, generator=g, dtype=ft.float64), randomness="different")(ft.ones(3))
    want = ft.rand(3, 2, generator=ft.Generator().manual_seed(7), dtype=ft.float64)
    np.testing.assert_array_equal(out.numpy(), want.numpy())
    with pytest.raises(RuntimeError, match="Only allowed values for randomness are 'error', 'different', or 'same'"):
        ft.vmap(lambda x: x, randomness="never")
