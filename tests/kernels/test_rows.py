"""Softmax and its relatives, a row at a time, against the formulas in double precision."""

import numpy as np
import pytest

from flambeau.kernels import backend, rows

pytestmark = pytest.mark.skipif(not backend.jit_available(), reason="needs generated code")

SHAPES = [(1, 1), (3, 5, 7), (2, 17), (4, 8, 16), (40, 128, 33), (1, 20_011)]
TOLERANCE = {np.float32: 4e-6, np.float64: 1e-12}


def exact(x, scale=1.0, causal=None):
    x = x.astype(np.float64) * scale
    if causal is not None:
        sees = causal + np.arange(x.shape[-2])[:, None]
        x = np.where(np.arange(x.shape[-1]) < sees, x, -np.inf)
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


@pytest.fixture(params=[np.float32, np.float64], ids=["float32", "float64"])
def dtype(request):
    return request.param


@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_gradients(shape, dtype):
    rng = np.random.default_rng(0)
    x, g = (rng.standard_normal((2, *shape)) * 3).astype(dtype)
    p, tolerance = exact(x, 0.7), TOLERANCE[dtype]
    np.testing.assert_allclose(rows.softmax(x, np.empty_like(x), 0.7), p, atol=tolerance)
    y = p.astype(dtype)
    want = 0.7 * p * (g - (g * p).sum(-1, keepdims=True))
    np.testing.assert_allclose(rows.softmax_grad(g, y, np.empty_like(x), 0.7), want, atol=4 * tolerance)
    logs = np.log(exact(x))
    np.testing.assert_allclose(rows.log_softmax(x, np.empty_like(x)), logs, atol=tolerance)
    want = g - np.exp(logs) * g.astype(np.float64).sum(-1, keepdims=True)
    got = rows.log_softmax_grad(g, logs.astype(dtype), np.empty_like(x))
    np.testing.assert_allclose(got, want, atol=max(4, np.abs(want).max()) * tolerance)


@pytest.mark.parametrize("first", [1, 4])
def test_a_causal_row_neither_reads_nor_keeps_what_lies_behind(dtype, first):
    x = np.random.default_rng(1).standard_normal((3, 20, 20)).astype(dtype)
    behind = np.arange(20) >= first + np.arange(20)[:, None]
    x[:, behind] = np.nan
    got = rows.softmax(x, np.empty_like(x), 1.0, first)
    np.testing.assert_allclose(got, exact(np.nan_to_num(x), 1.0, first), atol=TOLERANCE[dtype])
    assert not got[:, behind].any()


def test_in_place(dtype):
    x = np.random.default_rng(2).standard_normal((5, 50)).astype(dtype)
    want = rows.softmax(x, np.empty_like(x))
    assert rows.softmax(x, x) is x
    np.testing.assert_array_equal(x, want)


def test_infinities_and_nan(dtype):
    x = np.array([[1, np.nan, 2], [-np.inf] * 3, [np.inf, 0, 1], [0, -np.inf, 0]], dtype)
    got = rows.softmax(x, np.empty_like(x))
    assert np.isnan(got[:3]).all()
    np.testing.assert_array_equal(got[3], [0.5, 0, 0.5])
