import itertools

import ml_dtypes
import numpy as np
import pytest

from flambeau.kernels import expr as E
from flambeau.kernels import threads
from flambeau.kernels.reduce import UFUNCS, map_reduce, moments, reduce

SHAPES = [
    (1,),
    (50,),
    (5000,),
    (1, 5000),
    (33, 257),
    (8, 3, 40, 40),
    (4, 64, 20, 20),
    (4096, 1, 3),
    (300, 5, 9),
    (70_000,),
]
LAYOUTS = {
    "C": lambda a: a,
    "F": lambda a: np.asfortranarray(a),
    "channels last": lambda a: np.moveaxis(
        np.ascontiguousarray(np.moveaxis(a, min(1, a.ndim - 1), -1)), -1, min(1, a.ndim - 1)
    ),
    "reversed": lambda a: a[..., ::-1],
    "broadcast": lambda a: np.broadcast_to(a[:1], a.shape),
}
DTYPES = [np.dtype(d) for d in (np.float32, np.float64, np.float16, ml_dtypes.bfloat16)]


def all_axes(ndim):
    return itertools.chain.from_iterable(itertools.combinations(range(ndim), r) for r in range(1, ndim + 1))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.filterwarnings("ignore:overflow")
def test_reduce(shape, dtype, layout):
    a = LAYOUTS[layout](np.random.default_rng(0).normal(size=shape).astype(dtype))
    exact = a.astype(np.float64)
    eps = float(ml_dtypes.finfo(dtype).eps)
    for axes in all_axes(a.ndim):
        for op in ("sum", "max", "min"):
            got, expected = reduce(op, a, axes), UFUNCS[op].reduce(exact, axis=axes)
            assert got.dtype == dtype and got.shape == expected.shape
            atol = max(eps, 1e-13) * np.abs(exact).sum(axes).max()
            np.testing.assert_allclose(got.astype(np.float64), expected, rtol=eps, atol=atol if op == "sum" else 0)
        assert reduce("sum", a, axes, keepdims=True).shape == exact.sum(axes, keepdims=True).shape
        mean, spread = moments(a, axes)
        np.testing.assert_allclose(mean, exact.mean(axes), rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(spread, exact.var(axes), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("n", [10, 100_000])
def test_nan_wins(n):
    a = np.zeros(n, np.float32)
    a[n // 3] = np.nan
    for op in ("sum", "max", "min", "prod"):
        assert np.isnan(reduce(op, a))


def test_integers_and_truth_values():
    assert reduce("sum", np.ones(10, bool)).dtype == np.int64
    assert reduce("prod", np.full(3, 100, np.int8)) == 1_000_000
    assert reduce("max", np.array([1, 5], np.int32)).dtype == np.int32
    assert reduce("any", np.array([0.0, 2.0])) and not reduce("all", np.array([0.0, 2.0]))


def test_empty():
    assert reduce("sum", np.zeros((0, 3), np.float32), (0,)).tolist() == [0, 0, 0]


def test_complex():
    a = np.full((2, 3), 1 + 2j, np.complex64)
    assert reduce("sum", a, (1,)).dtype == np.complex64
    mean, spread = moments(a, (0, 1))
    assert mean == 1 + 2j and spread == 0


@pytest.mark.parametrize("shape", [(3, 4), (100, 2000)])
def test_expressions(shape):
    x, y = E.var("x"), E.var("y")
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=shape).astype(np.float32), rng.normal(size=shape).astype(np.float32)
    products, squares = map_reduce([x * y, E.exp(x)], ("x", "y"), (a, b), (0,))
    np.testing.assert_allclose(products, (a.astype(float) * b).sum(0), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(squares, np.exp(a.astype(float)).sum(0), rtol=1e-5)
    np.testing.assert_allclose(reduce("sum", a, (1,), expr=E.abs(E.var("v"))), np.abs(a).sum(1), rtol=1e-5)


def test_small_spread_around_a_large_mean():
    a = (1e4 + np.random.default_rng(0).normal(size=100_000)).astype(np.float32)
    np.testing.assert_allclose(moments(a, (0,))[1], a.astype(float).var(), rtol=1e-6)
    wide = 1e8 + np.random.default_rng(0).normal(size=100_000)
    np.testing.assert_allclose(moments(wide, (0,))[1], wide.var(), rtol=1e-9)


def test_threads_do_not_change_a_sum():
    a = np.random.default_rng(0).normal(size=1_000_003).astype(np.float32)
    before, several = threads.get_num_threads(), reduce("sum", a)
    try:
        threads.set_num_threads(1)
        assert reduce("sum", a) == several
    finally:
        threads.set_num_threads(before)
