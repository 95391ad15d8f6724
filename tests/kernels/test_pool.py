"""Pooling: oneDNN, NumPy and PyTorch agree."""

import ml_dtypes
import numpy as np
import pytest

from flambeau.kernels import pool as kernels
from flambeau.kernels.onednn import library

# x, kernel, stride, padding, dilation, ceil
CASES = [
    ((2, 3, 9), 3, None, 1, 1, False),
    ((2, 3, 10), 3, 2, 1, 2, True),
    ((2, 3, 8, 9), 2, None, 0, 1, False),
    ((2, 17, 8, 9), (3, 2), (2, 1), (1, 0), (1, 2), True),
    ((1, 4, 7, 7), 3, 2, 1, 1, True),
    ((2, 16, 12, 12), 3, 2, 0, 1, False),
    ((2, 3, 20, 20), 17, 1, 8, 1, False),
    ((2, 3, 5, 6, 7), 2, 2, 1, 1, True),
    ((2, 3, 5, 6, 7), (2, 3, 2), (1, 2, 2), 0, 1, False),
    ((0, 3, 8, 8), 2, None, 0, 1, False),
]


@pytest.fixture(params=["onednn", "numpy"])
def engine(request, monkeypatch):
    if request.param == "numpy":
        monkeypatch.setattr(library, "available", lambda: False)
    elif not library.available():
        pytest.skip("oneDNN is not installed")
    return request.param


def random(shape, dtype=np.float32, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def close(a, b, tolerance=1e-5):
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_max_is_the_value_at_its_index(case, dtype, engine):
    shape, *arguments = case
    x = random(shape, dtype)
    y, indices = kernels.max_pool(x, *arguments)
    if x.size:
        flat, where = x.reshape(*shape[:2], -1), indices.reshape(*shape[:2], -1)
        np.testing.assert_array_equal(y, np.take_along_axis(flat, where, 2).reshape(y.shape))
    assert indices.dtype == np.int64


@pytest.mark.parametrize("case", CASES, ids=str)
def test_both_gradients_of_max_agree(case, engine):
    shape, *arguments, ceil = case
    x = random(shape)
    y, positions = kernels.max_pool_positions(x, *arguments, ceil)
    _, indices = kernels.max_pool(x, *arguments, ceil)
    g = random(y.shape, seed=1)
    close(kernels.max_pool_positions_grad(g, positions, shape, *arguments),
          kernels.max_pool_grad(g, indices, shape))


@pytest.mark.torch
@pytest.mark.parametrize("case", CASES, ids=str)
def test_max_is_torch(case, engine):
    torch = pytest.importorskip("torch")
    shape, kernel, stride, padding, dilation, ceil = case
    x = random(shape)
    x[x > 1] = 1          # ties: the first wins
    want, where = getattr(torch.nn.functional, f"max_pool{len(shape) - 2}d")(
        torch.from_numpy(x), kernel, stride, padding, dilation, ceil, True)
    y, indices = kernels.max_pool(x, kernel, stride, padding, dilation, ceil)
    np.testing.assert_array_equal(y, want)
    np.testing.assert_array_equal(indices, where)


@pytest.mark.torch
def test_nan_and_infinity_are_torch(engine):
    torch = pytest.importorskip("torch")
    x = random((2, 16, 8, 8))
    x[0, :, 2:5, 3] = np.nan
    x[1, :, :4] = -np.inf
    x[1, :, 6] = np.inf
    want, where = torch.nn.functional.max_pool2d(torch.from_numpy(x), 3, 2, 1, return_indices=True)
    y, indices = kernels.max_pool(x, 3, 2, 1)
    np.testing.assert_array_equal(y, want)
    np.testing.assert_array_equal(indices, where)


AVERAGES = [(True, None), (False, None), (True, 5), (False, 3)]


@pytest.mark.torch
@pytest.mark.parametrize("count_include_pad, divisor", AVERAGES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", [c for c in CASES if c[4] == 1], ids=str)
def test_avg_is_torch(case, dtype, count_include_pad, divisor, engine):
    torch = pytest.importorskip("torch")
    shape, kernel, stride, padding, _, ceil = case
    if len(shape) == 3 and divisor:
        return
    x = random(shape, dtype)
    t = torch.from_numpy(x).requires_grad_()
    more = (divisor,) if len(shape) > 3 else ()
    want = getattr(torch.nn.functional, f"avg_pool{len(shape) - 2}d")(
        t, kernel, stride, padding, ceil, count_include_pad, *more)
    y = kernels.avg_pool(x, kernel, stride, padding, ceil, count_include_pad, divisor)
    assert y.dtype == dtype
    close(y, want.detach())
    g = random(y.shape, dtype, 1)
    want.backward(torch.from_numpy(g))
    dx = kernels.avg_pool_grad(g, shape, kernel, stride, padding, count_include_pad, divisor)
    assert dx.dtype == dtype
    close(dx, t.grad)


@pytest.mark.torch
@pytest.mark.parametrize("shape, size", [
    ((2, 3, 10), 3), ((2, 3, 10), 5), ((2, 3, 4), 7), ((2, 3, 7, 9), (3, 4)), ((2, 3, 8, 8), 1),
    ((2, 3, 6, 5), (6, 2)), ((2, 3, 5, 6, 7), (2, 4, 3)), ((0, 3, 5, 5), 2)], ids=str)
def test_adaptive_is_torch(shape, size, engine):
    torch = pytest.importorskip("torch")
    x, rank = random(shape), len(shape) - 2
    for kind in ("avg", "max"):
        t = torch.from_numpy(x).requires_grad_()
        function = getattr(torch.nn.functional, f"adaptive_{kind}_pool{rank}d")
        if kind == "avg":
            want = function(t, size)
            y = kernels.adaptive_avg_pool(x, size)
        else:
            want, where = function(t, size, return_indices=True)
            y, indices = kernels.adaptive_max_pool(x, size)
            np.testing.assert_array_equal(indices, where)
        close(y, want.detach())
        g = random(y.shape, seed=1)
        want.backward(torch.from_numpy(g))
        if kind == "avg":
            close(kernels.adaptive_avg_pool_grad(g, shape), t.grad)
        else:
            close(kernels.max_pool_grad(g, indices, shape), t.grad)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision(dtype, engine):
    x = random((2, 8, 9, 9), dtype)
    wide = x.astype(np.float32)
    y, positions = kernels.max_pool_positions(x, 3, 2, 1)
    assert y.dtype == dtype
    close(y, kernels.max_pool(wide, 3, 2, 1)[0])
    g = random(y.shape, dtype, 1)
    dx = kernels.max_pool_positions_grad(g, positions, x.shape, 3, 2, 1)
    assert dx.dtype == dtype
    close(dx, kernels.max_pool_positions_grad(g.astype(np.float32), positions, x.shape, 3, 2, 1), 0.05)
    y = kernels.avg_pool(x, 3, 2, 1, False, False)
    assert y.dtype == dtype
    close(y, kernels.avg_pool(wide, 3, 2, 1, False, False), 0.02)
    assert kernels.avg_pool_grad(y, x.shape, 3, 2, 1).dtype == dtype
    assert kernels.adaptive_avg_pool(x, 4).dtype == kernels.adaptive_avg_pool_grad(
        kernels.adaptive_avg_pool(x, 4), x.shape).dtype == dtype


def test_integers():
    x = np.arange(16).reshape(1, 1, 4, 4)
    y, indices = kernels.max_pool(x, 2)
    assert y.dtype == np.int64
    np.testing.assert_array_equal(y.ravel(), [5, 7, 13, 15])
    np.testing.assert_array_equal(kernels.avg_pool(x, 2).ravel(), [2, 4, 10, 12])
