"""Normalisation: oneDNN, NumPy and PyTorch agree."""

import ml_dtypes
import numpy as np
import pytest

from flambeau.kernels import norm as kernels
from flambeau.kernels.onednn import library

LAYOUTS = {
    "plain": lambda x: x,
    "channels last": lambda x: np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1),
    "strided": lambda x: np.repeat(x, 2, axis=-1)[..., ::2],
}


@pytest.fixture(params=["onednn", "numpy"])
def engine(request, monkeypatch):
    if request.param == "numpy":
        monkeypatch.setattr(library, "available", lambda: False)
    elif not library.available():
        pytest.skip("oneDNN is not installed")
    monkeypatch.setattr(kernels, "WORTHWHILE", 1)
    return request.param


def random(shape, dtype=np.float32, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def close(a, b, tolerance=1e-4):
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def tensors(torch, *arrays):
    return [None if a is None else torch.from_numpy(a.copy()).requires_grad_() for a in arrays]


@pytest.mark.torch
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(6, 5), (4, 3, 7), (3, 16, 4, 5), (2, 3, 2, 3, 4), (5, 1, 1, 1)], ids=str)
def test_batch_norm_is_torch(shape, dtype, layout, affine, engine):
    torch = pytest.importorskip("torch")
    x = LAYOUTS[layout](random(shape, dtype) + 1)
    w, b = (random(shape[1:2], dtype, 1), random(shape[1:2], dtype, 2)) if affine else (None, None)
    tx, tw, tb = tensors(torch, x, w, b)
    for training in (True, False):
        mean, var = random(shape[1:2], dtype, 3), np.abs(random(shape[1:2], dtype, 4))
        want = torch.nn.functional.batch_norm(
            tx, torch.from_numpy(mean.copy()), torch.from_numpy(var.copy()), tw, tb, training)
        if training:
            y, mean, var = kernels.batch_norm(x, w, b)
        else:
            y = kernels.batch_norm_inference(x, w, b, mean, var)
        assert y.dtype == dtype
        close(y, want.detach())
        g = random(shape, dtype, 5)
        leaves = [t for t in (tx, tw, tb) if t is not None]
        wanted = torch.autograd.grad(want, leaves, torch.from_numpy(g))
        for got, expected in zip(kernels.batch_norm_backward(g, x, w, mean, var, training=training), wanted):
            close(got, expected, 1e-3)


@pytest.mark.torch
@pytest.mark.parametrize("affine", ["wb", "w", ""])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape, axes", [((6, 5), 1), ((4, 3, 16), 1), ((4, 3, 16), 2), ((2, 3, 4, 5), 3)], ids=str)
def test_layer_norm_is_torch(shape, axes, dtype, layout, affine, engine):
    torch = pytest.importorskip("torch")
    x, own = LAYOUTS[layout](random(shape, dtype) + 1), shape[-axes:]
    w = random(own, dtype, 1) if "w" in affine else None
    b = random(own, dtype, 2) if "b" in affine else None
    tx, tw, tb = tensors(torch, x, w, b)
    want = torch.nn.functional.layer_norm(tx, own, tw, tb)
    y, mean, rstd = kernels.layer_norm(x, w, b, axes)
    close(y, want.detach())
    assert mean.shape == rstd.shape == (*shape[:-axes], *[1] * axes)
    g = random(shape, dtype, 3)
    leaves = [t for t in (tx, tw, tb) if t is not None]
    wanted = torch.autograd.grad(want, leaves, torch.from_numpy(g))
    got = kernels.layer_norm_backward(g, x, w, mean, rstd, axes)
    assert got[0].dtype == dtype
    for a, expected in zip(got, wanted):
        close(a, expected, 1e-3)


@pytest.mark.torch
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape, groups", [((3, 6), 2), ((2, 6, 5), 3), ((2, 8, 4, 3), 8), ((2, 8, 4, 3), 1)], ids=str)
def test_group_norm_is_torch(shape, groups, dtype, layout, affine, engine):
    torch = pytest.importorskip("torch")
    x = LAYOUTS[layout](random(shape, dtype) + 1)
    w, b = (random(shape[1:2], dtype, 1), random(shape[1:2], dtype, 2)) if affine else (None, None)
    tx, tw, tb = tensors(torch, x, w, b)
    want = torch.nn.functional.group_norm(tx, groups, tw, tb)
    y, mean, rstd = kernels.group_norm(x, groups, w, b)
    close(y, want.detach())
    g = random(shape, dtype, 3)
    leaves = [t for t in (tx, tw, tb) if t is not None]
    wanted = torch.autograd.grad(want, leaves, torch.from_numpy(g))
    for a, expected in zip(kernels.group_norm_backward(g, x, groups, w, mean, rstd), wanted):
        close(a, expected, 1e-3)


@pytest.mark.torch
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("axes", [1, 2])
def test_rms_norm_is_torch(axes, dtype):
    torch = pytest.importorskip("torch")
    x = random((4, 3, 8), dtype)
    w = random(x.shape[-axes:], dtype, 1)
    tx, tw = tensors(torch, x, w)
    want = torch.nn.functional.rms_norm(tx, x.shape[-axes:], tw)
    y, rrms = kernels.rms_norm(x, w, axes)
    close(y, want.detach())
    g = random(x.shape, dtype, 2)
    for a, expected in zip(kernels.rms_norm_backward(g, x, w, rrms, axes),
                           torch.autograd.grad(want, (tx, tw), torch.from_numpy(g))):
        close(a, expected)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision(dtype, engine):
    x, w, b = random((4, 8, 6), dtype), random((8,), dtype, 1), random((8,), dtype, 2)
    wide = [a.astype(np.float32) for a in (x, w, b)]
    y, mean, var = kernels.batch_norm(x, w, b)
    assert (y.dtype, mean.dtype) == (dtype, np.float32)
    close(y, kernels.batch_norm(*wide)[0], 0.03)
    assert {a.dtype for a in kernels.batch_norm_backward(y, x, w, mean, var)} == {np.dtype(dtype)}
    y, mean, rstd = kernels.group_norm(x, 2, w, b)
    assert {a.dtype for a in kernels.group_norm_backward(y, x, 2, w, mean, rstd)} == {np.dtype(dtype)}
    y, mean, rstd = kernels.layer_norm(x, None, None)
    assert kernels.layer_norm_backward(y, x, None, mean, rstd)[0].dtype == y.dtype == dtype
    y, rrms = kernels.rms_norm(x, None)
    assert kernels.rms_norm_backward(y, x, None, rrms)[0].dtype == y.dtype == dtype


@pytest.mark.parametrize("shape", [(0, 4), (0, 4, 5), (3, 4, 0)], ids=str)
def test_empty(shape, engine):
    x = random(shape)
    y, mean, var = kernels.batch_norm(x, None, None)
    assert y.shape == shape and mean.shape == (4,)
    assert kernels.batch_norm_backward(y, x, None, mean, var)[0].shape == shape
    y, mean, rstd = kernels.layer_norm(x, None, None)
    assert kernels.layer_norm_backward(y, x, None, mean, rstd)[0].shape == shape
