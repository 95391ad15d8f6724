"""Softmax: oneDNN, NumPy and PyTorch agree."""

import ml_dtypes
import numpy as np
import pytest

from flambeau.kernels import softmax as kernels
from flambeau.kernels.onednn import library


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


@pytest.mark.torch
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(7,), (3, 10), (2, 3, 17), (2, 3, 4, 5), (0, 3), (3, 1), ()], ids=str)
def test_is_torch(shape, dtype, name, engine):
    torch = pytest.importorskip("torch")
    x = random(shape, dtype) * 5
    for axis in range(-1, len(shape) or 1):
        for layout in (x, x.T.copy().T):
            t = torch.from_numpy(np.array(layout)).requires_grad_()
            want = getattr(torch, name)(t, axis)
            y = getattr(kernels, name)(layout, axis)
            assert y.dtype == dtype and y.shape == shape
            close(y, want.detach())
            g = random(shape, dtype, 1)
            want.backward(torch.from_numpy(np.array(g)))
            close(getattr(kernels, name + "_grad")(g, y, axis), t.grad)


@pytest.mark.torch
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@pytest.mark.parametrize("columns", [3, 16, 37])
def test_nan_and_infinity_are_torch(name, columns, engine):
    torch = pytest.importorskip("torch")
    x = random((7, columns)) * 50
    x[0, 1] = np.nan
    x[1, :2] = -np.inf
    x[2] = -np.inf
    x[3, 0] = np.inf
    x[4] = 3e38
    x[5] = -3e38
    np.testing.assert_allclose(getattr(kernels, name)(x), getattr(torch, name)(torch.from_numpy(x), -1),
                               rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision(dtype, name, engine):
    x = random((4, 9), dtype)
    y = getattr(kernels, name)(x)
    assert y.dtype == dtype
    close(y, getattr(kernels, name)(x.astype(np.float32)), 0.02)
    assert getattr(kernels, name + "_grad")(x, y).dtype == dtype


def test_no_columns(engine):
    assert kernels.softmax(np.empty((3, 0), np.float32)).shape == (3, 0)
    assert kernels.log_softmax(np.empty((3, 0), np.float32)).shape == (3, 0)
