"""Convolutions: oneDNN, NumPy and PyTorch agree."""

import ml_dtypes
import numpy as np
import pytest

from flambeau.kernels import conv as kernels
from flambeau.kernels.onednn import library

# x, w, stride, padding, dilation, groups
CASES = [
    ((2, 3, 9), (4, 3, 3), 1, 0, 1, 1),
    ((2, 4, 11), (6, 2, 4), 2, 1, 2, 2),
    ((2, 3, 8, 9), (5, 3, 3, 3), 1, 1, 1, 1),
    ((2, 16, 8, 8), (16, 16, 1, 1), 1, 0, 1, 1),
    ((3, 4, 9, 7), (8, 1, 3, 2), (2, 1), (1, 0), (1, 2), 4),
    ((1, 6, 10, 10), (9, 2, 3, 3), 3, 2, 2, 3),
    ((2, 3, 8, 8), (4, 3, 2, 4), 1, ((0, 1), (1, 2)), 1, 1),
    ((2, 3, 5, 6, 7), (4, 3, 3, 2, 3), (1, 2, 1), (1, 0, 1), 1, 1),
    ((1, 1, 1, 1), (1, 1, 1, 1), 1, 0, 1, 1),
    ((4, 1, 12, 1), (2, 1, 3, 1), 1, 0, 1, 1),
    ((0, 3, 8, 8), (5, 3, 3, 3), 1, 1, 1, 1),
    ((2, 3, 8, 8), (0, 3, 3, 3), 1, 1, 1, 1),
]
LAYOUTS = {
    "plain": lambda x: x,
    "channels last": lambda x: np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1),
    "strided": lambda x: np.repeat(x, 2, axis=-1)[..., ::2],
    "reversed": lambda x: np.ascontiguousarray(x[:, :, ::-1])[:, :, ::-1],
}


@pytest.fixture(params=["onednn", "numpy"])
def engine(request, monkeypatch):
    if request.param == "numpy":
        monkeypatch.setattr(library, "available", lambda: False)
    elif not library.available():
        pytest.skip("oneDNN is not installed")
    return request.param


def random(shape, dtype=np.float32, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def reference(x, w, bias, stride, padding, dilation, groups):
    """The definition, one output element at a time of float64."""
    rank = x.ndim - 2
    stride, dilation = np.broadcast_to(stride, rank), np.broadcast_to(dilation, rank)
    pairs = [tuple(p) if np.ndim(p) else (p, p) for p in (padding if np.ndim(padding) else [padding] * rank)]
    x, w = np.pad(x.astype(np.float64), [(0, 0), (0, 0), *pairs]), w.astype(np.float64)
    out = [(n - d * (k - 1) - 1) // s + 1
           for n, k, s, d in zip(x.shape[2:], w.shape[2:], stride, dilation, strict=True)]
    y = np.zeros((x.shape[0], w.shape[0], *out))
    per_in, per_out = w.shape[1], w.shape[0] // groups
    for o in range(w.shape[0]):
        channels = slice(o // per_out * per_in, (o // per_out + 1) * per_in)
        for index in np.ndindex(*out):
            place = tuple(slice(i * s, i * s + d * (k - 1) + 1, d) for i, s, d, k in
                          zip(index, stride, dilation, w.shape[2:], strict=True))
            y[(slice(None), o, *index)] = (x[(slice(None), channels, *place)] * w[o]).sum(
                axis=tuple(range(1, rank + 2)))
    return y if bias is None else y + bias.reshape(-1, *[1] * rank)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_forward(case, layout, engine):
    x_shape, w_shape, *geometry = case
    x, w, bias = LAYOUTS[layout](random(x_shape)), random(w_shape, seed=1), random(w_shape[:1], seed=2)
    for b in (None, bias):
        y = kernels.conv(x, w, b, *geometry)
        assert y.dtype == np.float32
        np.testing.assert_allclose(y, reference(x, w, b, *geometry), rtol=1e-4, atol=1e-4)
    assert np.moveaxis(y, 1, -1).flags.c_contiguous


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_gradients_are_the_adjoint(case, layout, dtype, engine):
    """<g, conv(x, w)> = <conv_input_grad(g), x> = <conv_weight_grad(x, g), w>, for all x, w, g."""
    x_shape, w_shape, *geometry = case
    x, w = LAYOUTS[layout](random(x_shape, dtype)), random(w_shape, dtype, 1)
    y = kernels.conv(x, w, None, *geometry)
    g = LAYOUTS[layout](random(y.shape, dtype, 2))
    dx = kernels.conv_input_grad(g, w, x_shape, *geometry)
    dw, db = kernels.conv_weight_grad(x, g, w_shape, *geometry, bias=True)
    assert (dx.shape, dw.shape, db.shape) == (x_shape, w_shape, w_shape[:1])
    assert dx.dtype == dw.dtype == db.dtype == dtype
    want = float((g * y).sum(dtype=np.float64))
    scale = 1e-5 * (1 + float(np.abs(g * y).sum(dtype=np.float64)))
    assert abs(float((dx * x).sum(dtype=np.float64)) - want) < scale
    assert abs(float((dw * w).sum(dtype=np.float64)) - want) < scale
    np.testing.assert_allclose(db, g.sum(axis=(0, *range(2, g.ndim))), rtol=1e-4, atol=1e-4)
    assert np.array_equal(kernels.conv_weight_grad(x, g, w_shape, *geometry), dw)


@pytest.mark.skipif(not library.available(), reason="oneDNN is not installed")
@pytest.mark.parametrize("case", CASES, ids=str)
def test_engines_agree_on_gradients(case, monkeypatch):
    x_shape, w_shape, *geometry = case
    x, w = random(x_shape), random(w_shape, seed=1)
    g = random(kernels.conv(x, w, None, *geometry).shape, seed=2)

    def gradients():
        return kernels.conv_input_grad(g, w, x_shape, *geometry), kernels.conv_weight_grad(
            x, g, w_shape, *geometry)

    fast = gradients()
    monkeypatch.setattr(library, "available", lambda: False)
    for a, b in zip(fast, gradients(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision(dtype, engine):
    x, w = random((2, 8, 9, 9), dtype), random((4, 8, 3, 3), dtype, 1)
    y = kernels.conv(x, w, random((4,), dtype), 1, 1)
    assert y.dtype == dtype
    want = reference(x.astype(np.float32), w.astype(np.float32), random((4,)).astype(dtype).astype(np.float32),
                     1, 1, 1, 1)
    np.testing.assert_allclose(y.astype(np.float32), want, rtol=0.02, atol=0.1)
    dw, db = kernels.conv_weight_grad(x, y, w.shape, 1, 1, bias=True)
    dx = kernels.conv_input_grad(y, w, x.shape, 1, 1)
    assert dw.dtype == db.dtype == dx.dtype == dtype


def test_integers_and_complex(engine):
    x, w = np.arange(50).reshape(1, 2, 5, 5), np.ones((1, 2, 3, 3), np.int64)
    assert kernels.conv(x, w).dtype == np.int64
    np.testing.assert_array_equal(kernels.conv(x, w), reference(x, w, None, 1, 0, 1, 1))
    np.testing.assert_allclose(kernels.conv(x * 1j, w * 1j), -reference(x, w, None, 1, 0, 1, 1))


def test_large_batch_in_parts(monkeypatch):
    from flambeau.kernels import windows

    x, w = random((5, 2, 6, 6), np.float64), random((4, 1, 3, 3), np.float64, 1)
    whole = kernels.conv(x, w, None, 1, 1, 1, 2)
    g = random(whole.shape, np.float64, 2)
    gradients = kernels.conv_input_grad(g, w, x.shape, 1, 1, 1, 2), kernels.conv_weight_grad(
        x, g, w.shape, 1, 1, 1, 2)
    monkeypatch.setattr(windows, "CHUNK", 1)
    np.testing.assert_allclose(kernels.conv(x, w, None, 1, 1, 1, 2), whole)
    np.testing.assert_allclose(kernels.conv_input_grad(g, w, x.shape, 1, 1, 1, 2), gradients[0])
    np.testing.assert_allclose(kernels.conv_weight_grad(x, g, w.shape, 1, 1, 1, 2), gradients[1])


TRANSPOSED = [
    # x, w, stride, padding, output_padding, dilation, groups
    ((2, 3, 7), (3, 4, 3), 2, 1, 1, 1, 1),
    ((2, 4, 5, 6), (4, 3, 3, 3), (2, 3), (1, 0), (1, 2), 1, 2),
    ((2, 4, 5, 6), (4, 3, 2, 3), 1, 0, 0, 2, 1),
    ((1, 4, 5, 5), (4, 2, 3, 3), 1, 1, 1, 2, 1),        # output padding as large as the stride
    ((1, 2, 3, 4, 3), (2, 3, 2, 2, 2), 2, 0, 0, 1, 1),
    ((0, 2, 3, 3), (2, 3, 2, 2), 2, 0, 0, 1, 1),
]


@pytest.mark.torch
@pytest.mark.parametrize("case", TRANSPOSED, ids=str)
def test_transposed_is_torch(case, engine):
    torch = pytest.importorskip("torch")
    x_shape, w_shape, stride, padding, output_padding, dilation, groups = case
    x, w = random(x_shape), random(w_shape, seed=1)
    b = random((w_shape[1] * groups,), seed=2)
    f = getattr(torch.nn.functional, f"conv_transpose{len(x_shape) - 2}d")
    want = f(*map(torch.from_numpy, (x, w, b)), stride, padding, output_padding, groups, dilation)
    y = kernels.conv_transpose(x, w, b, stride, padding, output_padding, dilation, groups)
    np.testing.assert_allclose(y, want.numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.torch
@pytest.mark.parametrize("case", [c for c in CASES if c[1][0] and c[3] != ((0, 1), (1, 2))], ids=str)
def test_is_torch(case, engine):
    torch = pytest.importorskip("torch")
    x_shape, w_shape, stride, padding, dilation, groups = case
    x, w = random(x_shape), random(w_shape, seed=1)
    tx, tw = torch.from_numpy(x).requires_grad_(), torch.from_numpy(w).requires_grad_()
    want = getattr(torch.nn.functional, f"conv{len(x_shape) - 2}d")(
        tx, tw, None, stride, padding, dilation, groups)
    y = kernels.conv(x, w, None, stride, padding, dilation, groups)
    np.testing.assert_allclose(y, want.detach().numpy(), rtol=1e-4, atol=1e-4)
    g = random(y.shape, seed=2)
    want.backward(torch.from_numpy(g))
    dx = kernels.conv_input_grad(g, w, x_shape, stride, padding, dilation, groups)
    dw = kernels.conv_weight_grad(x, g, w_shape, stride, padding, dilation, groups)
    np.testing.assert_allclose(dx, tx.grad.numpy(), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(dw, tw.grad.numpy(), rtol=1e-4, atol=2e-4)
