"""The samplers against PyTorch: values and the generator's state, bit for bit; and recorded values without it."""

from __future__ import annotations

import hashlib
import warnings

import ml_dtypes
import numpy as np
import pytest

from flambeau.kernels import boxmuller, random
from flambeau.kernels.mt19937 import MT

SIZES = (0, 1, 2, 3, 15, 16, 17, 31, 32, 100, 625, 20_011)
FLOATS = ("float32", "float64", "float16", "bfloat16")
INTS = ("uint8", "int8", "int16", "int32", "int64")
NP = {
    name: np.dtype(getattr(ml_dtypes, name, None) or name)
    for name in (*FLOATS, *INTS, "bool", "complex64", "complex128")
}


def digest(a: np.ndarray) -> str:
    return hashlib.sha256(a.tobytes()).hexdigest()[:12]


def array(shape, name="float32") -> np.ndarray:
    return np.zeros(shape, NP[name])


# ---- against PyTorch ----------------------------------------------------------------------------------------------
@pytest.fixture
def torch():
    return pytest.importorskip("torch")


def to_numpy(torch, t) -> np.ndarray:
    return (
        t.contiguous().view(torch.uint16).numpy().view(ml_dtypes.bfloat16) if t.dtype == torch.bfloat16 else t.numpy()
    )


def same(a: np.ndarray, b: np.ndarray) -> None:
    assert a.shape == b.shape and a.dtype == b.dtype
    assert np.ascontiguousarray(a).tobytes() == np.ascontiguousarray(b).tobytes()


def both(torch, ours, theirs, shape, name, seed=7, layout=lambda x: x):
    """Fill the same array here and there, twice; values and the states after each must be the same."""
    g, t = MT(seed), torch.Generator().manual_seed(seed)
    for _ in range(2):
        a, b = array(shape, name), torch.zeros(shape, dtype=getattr(torch, name))
        ours(layout(a), g)
        theirs(layout(b), t)
        same(a, to_numpy(torch, b))
        same(g.get_state(), t.get_state().numpy())


SAMPLERS = {
    "rand": (lambda a, g: random.uniform_(a, 0, 1, g), lambda b, t: b.uniform_(generator=t), FLOATS),
    "uniform": (
        lambda a, g: random.uniform_(a, -0.37, 1.91, g),
        lambda b, t: b.uniform_(-0.37, 1.91, generator=t),
        FLOATS,
    ),
    "kaiming": (lambda a, g: random.uniform_(a, -0.2, 0.2, g), lambda b, t: b.uniform_(-0.2, 0.2, generator=t), FLOATS),
    "randn": (lambda a, g: random.normal_(a, 0, 1, g), lambda b, t: b.normal_(generator=t), FLOATS),
    "normal": (lambda a, g: random.normal_(a, 0.3, 1.7, g), lambda b, t: b.normal_(0.3, 1.7, generator=t), FLOATS),
    "std": (lambda a, g: random.normal_(a, 0, 0.02, g), lambda b, t: b.normal_(0, 0.02, generator=t), FLOATS),
    "log_normal": (
        lambda a, g: random.log_normal_(a, 0.1, 1.1, g),
        lambda b, t: b.log_normal_(0.1, 1.1, generator=t),
        FLOATS,
    ),
    "cauchy": (lambda a, g: random.cauchy_(a, 0.1, 1.1, g), lambda b, t: b.cauchy_(0.1, 1.1, generator=t), FLOATS),
    "exponential": (lambda a, g: random.exponential_(a, 1.7, g), lambda b, t: b.exponential_(1.7, generator=t), FLOATS),
    "geometric": (
        lambda a, g: random.geometric_(a, 0.1, g),
        lambda b, t: b.geometric_(0.1, generator=t),
        ("float32", "float64", *INTS[1:]),
    ),
    "bernoulli": (
        lambda a, g: random.bernoulli_(a, 0.3, g),
        lambda b, t: b.bernoulli_(0.3, generator=t),
        (*FLOATS, *INTS, "bool"),
    ),
    "random": (lambda a, g: random.random_(a, g), lambda b, t: b.random_(generator=t), (*FLOATS, *INTS, "bool")),
    "randint": (
        lambda a, g: random.random_from_to_(a, 0, 10, g),
        lambda b, t: b.random_(0, 10, generator=t),
        (*FLOATS, *INTS),
    ),
    "range": (
        lambda a, g: random.random_from_to_(a, -5, 2**28 - 5, g),
        lambda b, t: b.random_(-5, 2**28 - 5, generator=t),
        ("int32", "int64"),
    ),
    "wide": (
        lambda a, g: random.random_from_to_(a, -(2**40), 2**62 + 3, g),
        lambda b, t: b.random_(-(2**40), 2**62 + 3, generator=t),
        ("int64",),
    ),
    "from": (
        lambda a, g: random.random_from_to_(a, 3, None, g),
        lambda b, t: b.random_(3, None, generator=t),
        (*FLOATS, *INTS),
    ),
    "any": (
        lambda a, g: random.random_from_to_(a, -(2**63), None, g),
        lambda b, t: b.random_(-(2**63), None, generator=t),
        ("int64", "float64", "float32", "bfloat16"),
    ),
}
CASES = [(s, name) for s, (_, _, names) in SAMPLERS.items() for name in names]


@pytest.mark.torch
@pytest.mark.parametrize("sampler,name", CASES)
def test_contiguous(torch, sampler, name):
    ours, theirs, _ = SAMPLERS[sampler]
    for size in SIZES:
        both(torch, ours, theirs, (size,), name)
    both(torch, ours, theirs, (), name)


LAYOUTS = {
    "transposed": lambda x: x.transpose(0, 1) if hasattr(x, "numpy") else x.swapaxes(0, 1),
    "strided": lambda x: x[::2, 1::2],
    "column": lambda x: x[:, 1],
    "last first": lambda x: x.permute(2, 0, 1) if hasattr(x, "numpy") else x.transpose(2, 0, 1),
    "a gap": lambda x: x[:, :3].permute(1, 2, 0) if hasattr(x, "numpy") else x[:, :3].transpose(1, 2, 0),
}


@pytest.mark.torch
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "sampler,name", [(s, names[0]) for s, (_, _, names) in SAMPLERS.items()] + [("normal", "float64")]
)
def test_in_the_order_of_memory(torch, sampler, name, layout):
    ours, theirs, _ = SAMPLERS[sampler]
    both(torch, ours, theirs, (5, 4, 6), name, layout=LAYOUTS[layout])
    both(torch, ours, theirs, (1, 4, 1), name, layout=LAYOUTS["transposed"])


@pytest.mark.torch
@pytest.mark.parametrize("name", ["complex64", "complex128"])
def test_complex(torch, name):
    for shape, layout in [
        ((), None),
        ((3,), None),
        ((40,), None),
        ((3, 7), None),
        ((6, 8), "transposed"),
        ((6, 8), "strided"),
    ]:
        for sampler in ("randn", "normal", "rand", "uniform"):
            ours, theirs, _ = SAMPLERS[sampler]
            both(torch, ours, theirs, shape, name, layout=LAYOUTS[layout] if layout else lambda x: x)


@pytest.mark.torch
@pytest.mark.parametrize("n", [0, 1, 2, 3, 17, 255, 1000, 30_011])
@pytest.mark.parametrize("name", ["int64", "int32", "float32", "int16", "float64", "bfloat16", "float16", "uint8"])
def test_randperm(torch, n, name):
    limit = {"uint8": 255, "bfloat16": 257, "float16": 2049}.get(name, 1 << 15)
    if n > limit:
        with pytest.raises(RuntimeError):
            random.randperm(n, NP[name], MT(3))
        return
    g, t = MT(3), torch.Generator().manual_seed(3)
    same(random.randperm(n, NP[name], g), to_numpy(torch, torch.randperm(n, generator=t, dtype=getattr(torch, name))))
    same(g.get_state(), t.get_state().numpy())


@pytest.mark.torch
def test_interleaved(torch):
    """Any order of calls, of any size: the kept second normal survives what lies between."""
    choose = np.random.default_rng(0)
    g, t = MT(11), torch.Generator().manual_seed(11)
    for _ in range(400):
        sampler, name = CASES[choose.integers(len(CASES))]
        size = int(choose.choice([1, 2, 3, 7, 16, 21, 40]))
        ours, theirs, _ = SAMPLERS[sampler]
        a, b = array(size, name), torch.zeros(size, dtype=getattr(torch, name))
        ours(a, g)
        theirs(b, t)
        same(a, to_numpy(torch, b))
        if choose.random() < 0.1:
            t = torch.Generator()
            t.set_state(torch.from_numpy(g.get_state()))
        if choose.random() < 0.1:
            g = MT()
            g.set_state(t.get_state().numpy())
        same(g.get_state(), t.get_state().numpy())


@pytest.mark.torch
@pytest.mark.parametrize("seed", [0, 1, -1, 2**32 - 1, 2**32, 2**40 + 7, 2**64 - 1, -(2**63), 123])
def test_seeds(torch, seed):
    g, t = MT(seed), torch.Generator().manual_seed(seed)
    same(g.get_state(), t.get_state().numpy())
    assert g.initial_seed() == t.initial_seed()
    assert MT().initial_seed() == torch.Generator().initial_seed()


@pytest.mark.torch
@pytest.mark.parametrize("draws", [1, 311, 623, 624, 625, 1248])
def test_state_at_the_ends_of_a_block(torch, draws):
    g, t = MT(5), torch.Generator().manual_seed(5)
    a, b = array(draws), torch.empty(draws)
    random.uniform_(a, 0, 1, g)
    b.uniform_(generator=t)
    same(g.get_state(), t.get_state().numpy())
    h = g.clone()
    same(h.u32(3), g.u32(3))
    same(h.get_state(), g.get_state())


def test_mark():
    g = MT(5)
    for draws in (0, 1, 700):
        g.u32(draws)
        random.normal_(array(1), 0, 1, g)  # half of a pair: the other half is kept
        mark, state = g.mark(), g.get_state()
        drawn = [g.u32(1000), random.normal_(array(3), 0, 1, g), g.u64(2)]
        g.manual_seed(1)
        g.return_to(mark)
        same(state, g.get_state())
        for a, b in zip(drawn, [g.u32(1000), random.normal_(array(3), 0, 1, g), g.u64(2)]):
            assert a is None or (a == b).all()


@pytest.mark.torch
@pytest.mark.parametrize("p_name", FLOATS)
@pytest.mark.parametrize("name", ["float32", "bool", "int64", "bfloat16"])
def test_bernoulli_of_probabilities(torch, p_name, name):
    p = np.linspace(0, 1, 60).reshape(3, 20).astype(NP[p_name])
    tp = torch.linspace(0, 1, 60, dtype=torch.float64).reshape(3, 20).to(getattr(torch, p_name))
    for shape, layout in [((3, 20), lambda x: x), ((4, 3, 20), lambda x: x), ((20, 3), LAYOUTS["transposed"])]:
        both(
            torch,
            lambda a, g: random.bernoulli_each_(a, p, g),
            lambda b, t: b.bernoulli_(tp, generator=t),
            shape,
            name,
            layout=layout,
        )


@pytest.mark.torch
def test_dropout_is_bernoulli(torch):
    torch.manual_seed(5)
    theirs = torch.nn.functional.dropout(torch.ones(6, 50), 0.4)
    mask = array((6, 50))
    random.bernoulli_(mask, 1 - 0.4, MT(5))
    assert ((theirs.numpy() != 0) == mask).all()


@pytest.mark.torch
@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize("replacement", [True, False])
@pytest.mark.parametrize("shape", [(7,), (3, 40), (1, 1)])
def test_multinomial(torch, name, replacement, shape):
    weights = torch.rand(shape, generator=torch.Generator().manual_seed(1)).to(getattr(torch, name))
    weights[..., 0] = 0 if shape[-1] > 1 else 1
    narrow = name in ("float16", "bfloat16")
    for n in {1, min(4, shape[-1])} | ({200} if replacement else set()):
        if narrow and not replacement and n > 1:
            continue  # ties, whose order PyTorch leaves open
        g, t = MT(9), torch.Generator().manual_seed(9)
        ours = random.multinomial(to_numpy(torch, weights), n, replacement, g)
        same(ours, torch.multinomial(weights, n, replacement, generator=t).numpy())
        same(g.get_state(), t.get_state().numpy())


@pytest.mark.torch
@pytest.mark.parametrize("name", FLOATS)
def test_by_rates(torch, name):
    kind = getattr(torch, name)
    rates = torch.tensor([0.0, 0.1, 1.0, 5.0, 9.9, 10.0, 30.0, 200.0] * 20).to(kind)
    checks = [
        (random.poisson, lambda x, t: torch.poisson(x, generator=t)),
        (random.standard_gamma, lambda x, t: torch._standard_gamma(x, generator=t)),
    ]
    for ours, theirs in checks[: 2 if name in ("float32", "float64") else 1]:
        g, t = MT(2), torch.Generator().manual_seed(2)
        for _ in range(2):
            same(ours(to_numpy(torch, rates), g), to_numpy(torch, theirs(rates, t)))
            same(g.get_state(), t.get_state().numpy())


@pytest.mark.torch
@pytest.mark.parametrize("name", ["float32", "float64"])
def test_binomial_and_dirichlet(torch, name):
    kind = getattr(torch, name)
    n = torch.tensor([0.0, 1, 5, 20, 100, 1000] * 30, dtype=kind)
    p = torch.tensor([0.2, 0.5, 0.77, 0.9, 0.01, 1.0, 0.0], dtype=kind).repeat(30)[: n.numel()]
    g, t = MT(2), torch.Generator().manual_seed(2)
    same(random.binomial(n.numpy(), p.numpy(), g), torch.binomial(n, p, generator=t).numpy())
    same(g.get_state(), t.get_state().numpy())
    alpha = torch.tensor([[0.3, 1.0, 5.0], [2.0, 2.0, 2.0]], dtype=kind)
    ours, theirs = random.dirichlet(alpha.numpy(), g), torch._sample_dirichlet(alpha, t).numpy()
    np.testing.assert_array_max_ulp(ours, theirs, 1)
    same(g.get_state(), t.get_state().numpy())


@pytest.mark.torch
def test_normal_of_arrays(torch):
    mean, std = np.linspace(-3, 3, 60, dtype=np.float32).reshape(20, 3), np.linspace(0, 2, 3, dtype=np.float32)
    tm, ts = torch.from_numpy(mean), torch.from_numpy(std)
    for ours, theirs in [((mean, std), (tm, ts)), ((mean, 0.7), (tm, 0.7)), ((0.7, std), (0.7, ts))]:
        g, t = MT(2), torch.Generator().manual_seed(2)
        same(random.normal(*ours, g), torch.normal(*theirs, generator=t).numpy())
        same(g.get_state(), t.get_state().numpy())


REFUSED = {
    "p": (lambda a: random.bernoulli_(a, 1.5, MT(0)), lambda b: b.bernoulli_(1.5)),
    "p nan": (lambda a: random.bernoulli_(a, float("nan"), MT(0)), lambda b: b.bernoulli_(float("nan"))),
    "std": (lambda a: random.normal_(a, 0, -1, MT(0)), lambda b: b.normal_(0, -1)),
    "order": (lambda a: random.uniform_(a, 2, 1, MT(0)), lambda b: b.uniform_(2, 1)),
    "bounds": (lambda a: random.uniform_(a, 0, 1e39, MT(0)), lambda b: b.uniform_(0, 1e39)),
    "log_normal": (lambda a: random.log_normal_(a, 0, 0, MT(0)), lambda b: b.log_normal_(0, 0)),
    "cauchy": (lambda a: random.cauchy_(a, 0, 0, MT(0)), lambda b: b.cauchy_(0, 0)),
    "exponential": (lambda a: random.exponential_(a, 0, MT(0)), lambda b: b.exponential_(0)),
    "geometric": (lambda a: random.geometric_(a, 0.0, MT(0)), lambda b: b.geometric_(0.0)),
    "range": (lambda a: random.random_from_to_(a, 5, 3, MT(0)), lambda b: b.random_(5, 3)),
}
REFUSED_INT = {
    "uniform": (lambda a: random.uniform_(a, 0, 1, MT(0)), lambda b: b.uniform_()),
    "normal": (lambda a: random.normal_(a, 0, 1, MT(0)), lambda b: b.normal_()),
    "exponential": (lambda a: random.exponential_(a, 1, MT(0)), lambda b: b.exponential_()),
    "cauchy": (lambda a: random.cauchy_(a, 0, 1, MT(0)), lambda b: b.cauchy_()),
}


@pytest.mark.torch
@pytest.mark.parametrize("name,case", [("float32", c) for c in REFUSED] + [("int64", c) for c in REFUSED_INT])
def test_messages(torch, name, case):
    ours, theirs = (REFUSED if name == "float32" else REFUSED_INT)[case]
    with pytest.raises(Exception) as theirs_raised:
        theirs(torch.zeros(3, dtype=getattr(torch, name)))
    a = array(3, name)
    with pytest.raises(type(theirs_raised.value)) as raised:
        ours(a)
    assert str(raised.value) == str(theirs_raised.value).splitlines()[0]
    assert not a.any()


@pytest.mark.torch
def test_bounds_that_a_narrow_dtype_rounds(torch):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for low, high, name in [
            (2**24 + 2, 2**24 + 3, "float32"),
            (0, 65504, "float16"),
            (2**24 + 1, 2**25, "float32"),
            (-3001, 3001, "float16"),
            (-300, 300, "bfloat16"),
            (0, 2**53 + 1, "float64"),
            (0, 2**33, "float32"),
            (-(2**62), 2**62, "float32"),
        ]:
            both(
                torch,
                lambda a, g, low=low, high=high: random.random_from_to_(a, low, high, g),
                lambda b, t, low=low, high=high: b.random_(low, high, generator=t),
                (50,),
                name,
            )


# ---- without PyTorch ------------------------------------------------------------------------------------------------
def test_recorded():
    g = MT(0)
    a = array(4)
    random.uniform_(a, 0, 1, g)
    np.testing.assert_array_equal(a, np.array([0.4962566, 0.7682218, 0.08847743, 0.13203049], np.float32))
    random.normal_(a[:3], 0, 1, g)
    assert g.next_normal is not None
    assert digest(g.get_state()) == RECORDED["state"]
    b = array(1000)
    random.normal_(b, 0, 1, g)
    assert digest(b) == RECORDED["randn"]
    assert random.randperm(6, np.int64, MT(1)).tolist() == RECORDED["randperm"]


# made with PyTorch 2.13
RECORDED = {"state": "3d9bb8ca5dee", "randn": "d9783a5219a3", "randperm": [1, 5, 2, 0, 3, 4]}


def test_a_failing_call_draws_nothing():
    g = MT(3)
    before = g.get_state()
    for bad in (
        lambda: random.bernoulli_each_(array(3), np.float32([0.5, 2, 0.1]), g),
        lambda: random.poisson(np.float32([1, -1]), g),
        lambda: random.multinomial(np.float32([1, -1]), 1, True, g),
        lambda: random.multinomial(np.float32([0, 0]), 1, False, g),
        lambda: random.normal(np.float32([0]), np.float32([-1]), g),
        lambda: g.set_state(np.zeros(5056, np.uint8)),
        lambda: g.set_state(np.zeros(3, np.uint8)),
    ):
        with pytest.raises(RuntimeError):
            bad()
    assert (g.get_state() == before).all()
    with pytest.raises(TypeError, match="RNG state must be a torch.ByteTensor"):
        g.set_state(before.astype(np.int64))


def test_seed_is_fresh():
    g = MT(0)
    assert g.seed() != g.seed()
    assert 0 <= g.initial_seed() < 1 << 53


def test_fused_multiply_add_rounds_once():
    from fractions import Fraction

    r = np.random.default_rng(0)
    for scale in (1.0, 1e-8, 1e8):
        a, b, c = r.standard_normal(300), 1.7, 0.3 * scale
        exact = [float(Fraction(float(x)) * Fraction(b) + Fraction(c)) for x in a]
        assert boxmuller.fma64(a, b, c).tolist() == exact
    assert boxmuller.fma64(np.array([np.inf, 1e300]), 1e300, 1.0).tolist() == [np.inf, np.inf]
