"""Recurrent layers agree with PyTorch's."""

import ml_dtypes
import numpy as np
import pytest

from flambeau.kernels import rnn as kernels
from flambeau.kernels.onednn import library

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


@pytest.fixture(params=["onednn", "numpy"])
def engine(request, monkeypatch):
    if request.param == "numpy":
        monkeypatch.setattr(library, "available", lambda: False)
    elif not library.available():
        pytest.skip("oneDNN is not installed")
    return request.param


def random(shape, dtype=np.float32, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def close(a, b, tolerance):
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def weights(gates, inputs, hidden, dtype, bias=True):
    shapes = (gates * hidden, inputs), (gates * hidden, hidden), (gates * hidden,), (gates * hidden,)
    made = [random(s, dtype, 3 + k) * 0.3 for k, s in enumerate(shapes)]
    return [w.astype(dtype) for w in made[:2]] + ([w.astype(dtype) for w in made[2:]] if bias else [None, None])


def run(kind, x, states, parameters, gradients, nonlinearity="tanh"):
    """(outputs, gradients in the order x, states, w_ih, w_hh, b_ih, b_hh) by the kernels."""
    bias = parameters[2] is not None
    if kind == "LSTM":
        *outputs, saved = kernels.lstm_forward(x, *states, *parameters)
        dx, dh, dc, *dw, db = kernels.lstm_backward(*gradients, saved, x, *states, *parameters[:2], bias)
        return outputs, [dx, dh, dc, *dw, db, db]
    if kind == "GRU":
        *outputs, saved = kernels.gru_forward(x, *states, *parameters)
        return outputs, kernels.gru_backward(*gradients, saved, x, states[0], *parameters[:2], bias)
    *outputs, saved = kernels.rnn_forward(x, *states, *parameters, nonlinearity)
    *grads, db = kernels.rnn_backward(*gradients, saved, x, states[0], *parameters[:2], bias)
    return outputs, [*grads, db, db]


@pytest.mark.torch
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(5, 3, 4, 6), (1, 1, 1, 1), (9, 40, 16, 130), (6, 20, 3, 80)], ids=str)
@pytest.mark.parametrize("kind, nonlinearity", [("LSTM", "tanh"), ("GRU", "tanh"), ("RNN", "tanh"), ("RNN", "relu")])
def test_is_torch(kind, nonlinearity, shape, dtype, bias, engine):
    torch = pytest.importorskip("torch")
    steps, batch, inputs, hidden = shape
    more = {"nonlinearity": nonlinearity} if kind == "RNN" else {}
    layer = getattr(torch.nn, kind)(inputs, hidden, bias=bias, dtype=getattr(torch, np.dtype(dtype).name), **more)
    scale = dtype(0.2 if hidden > 100 else 1)
    parameters = [w if w is None else w * scale for w in weights(GATES[kind], inputs, hidden, dtype, bias)]
    with torch.no_grad():
        for p, w in zip(layer.parameters(), parameters):
            p.copy_(torch.from_numpy(w))
    count = 2 if kind == "LSTM" else 1
    x, states = random((steps, batch, inputs), dtype), [random((batch, hidden), dtype, 1 + k) for k in range(count)]
    tx, *ts = [torch.from_numpy(a.copy()).requires_grad_() for a in (x, *states)]
    initial = tuple(s[None] for s in ts)
    out, last = layer(tx, initial if count == 2 else initial[0])
    last = last if count == 2 else (last,)
    gradients = [random((steps, batch, hidden), dtype, 8)] + [random((batch, hidden), dtype, 9) for _ in states]
    wanted = torch.autograd.grad(
        (out, *last), (tx, *ts, *layer.parameters()),
        [torch.from_numpy(g.reshape(o.shape)) for g, o in zip(gradients, (out, *last))])
    outputs, grads = run(kind, x, states, parameters, gradients, nonlinearity)
    tolerance = 1e-9 if dtype == np.float64 else 2e-3
    for a, b in zip(outputs, (out, *(h[0] for h in last))):
        assert a.dtype == dtype
        close(a, b.detach(), tolerance / 10)
    for a, b in zip(grads, wanted):
        close(a, b, tolerance)


@pytest.mark.parametrize("kind", GATES)
def test_missing_gradients_are_zero(kind):
    states = [random((2, 5), np.float64, k) for k in range(2 if kind == "LSTM" else 1)]
    x, parameters = random((4, 2, 3), np.float64), weights(GATES[kind], 3, 5, np.float64)
    zeros = [np.zeros((4, 2, 5)), *[np.zeros((2, 5)) for _ in states]]
    gy = random((4, 2, 5), np.float64, 7)
    for given in ([gy, *zeros[1:]], [zeros[0], zeros[1] + 1, *zeros[2:]]):
        absent = [g if g.any() else None for g in given]
        for a, b in zip(run(kind, x, states, parameters, given)[1], run(kind, x, states, parameters, absent)[1]):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision(dtype, kind, engine):
    states = [random((2, 5), dtype, k) for k in range(2 if kind == "LSTM" else 1)]
    x, parameters = random((4, 2, 3), dtype), weights(GATES[kind], 3, 5, dtype)
    gradients = [random((4, 2, 5), dtype), *states]
    outputs, grads = run(kind, x, states, parameters, gradients)
    wide = run(kind, x.astype("f4"), [s.astype("f4") for s in states], [p.astype("f4") for p in parameters],
               [g.astype("f4") for g in gradients])
    for a, b in zip([*outputs, *grads], [*wide[0], *wide[1]]):
        assert a.dtype == dtype
        close(a, b, 0.05)


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("steps, batch", [(0, 2), (3, 0)])
def test_empty(kind, steps, batch, engine):
    states = [random((batch, 5)) for _ in range(2 if kind == "LSTM" else 1)]
    parameters = weights(GATES[kind], 3, 5, np.float32)
    gradients = [random((steps, batch, 5)), *states]
    outputs, grads = run(kind, random((steps, batch, 3)), states, parameters, gradients)
    assert outputs[0].shape == (steps, batch, 5)
    assert grads[0].shape == (steps, batch, 3)
    assert [g.shape for g in grads[-4:]] == [p.shape for p in parameters]
