"""Recurrent layers over a whole sequence, one layer and one direction: forward, and the gradients.

Shapes: x (T, N, I), h0 (N, H), w_ih (G H, I), w_hh (G H, H), biases (G H,) or both None; y (T, N, H). The product with
x is one for all steps; a step is one product with h and a few passes over (N, H). What the backward pass
needs is worked out for all steps at once, so that its steps are as short. Half precision is computed in float32.
"""

from __future__ import annotations

import numpy as np

from flambeau.kernels.matmul import matmul


# --- LSTM: gates in the order i, f, g, o -------------------------------------------------------------------
def lstm_forward(x, h0, c0, w_ih, w_hh, b_ih=None, b_hh=None):
    """(y, h_T, c_T, saved): c = f c + i g, h = o tanh(c), where i, f, o are sigmoids and g = tanh.

    >>> z = np.zeros
    >>> lstm_forward(z((3, 1, 2)), z((1, 4)), z((1, 4)), z((16, 2)), z((16, 4)))[0].shape
    (3, 1, 4)
    """
    if _is_half(x):
        y, h, c, saved = lstm_forward(*_wide(x, h0, c0, w_ih, w_hh, b_ih, b_hh))
        return *_narrow(x.dtype, y, h, c), saved
    hidden = h0.shape[1]
    # sigmoid(x) = tanh(x / 2) / 2 + 1 / 2: with the rows of i, f, o halved, one tanh makes all four gates
    halves = np.full(4 * hidden, 0.5, x.dtype)
    halves[2 * hidden:3 * hidden] = 1
    gates = _input_products(x, w_ih * halves[:, None], _sum_biases(b_ih, b_hh, halves))
    recurrent = np.ascontiguousarray((w_hh * halves[:, None]).T)
    steps, batch = x.shape[:2]
    cells = np.empty((steps + 1, batch, hidden), x.dtype)
    y, tanh_c = np.empty((steps, batch, hidden), x.dtype), np.empty((steps, batch, hidden), x.dtype)
    cells[0], h = c0, np.ascontiguousarray(h0)
    term = np.empty((batch, hidden), x.dtype)
    for t in range(steps):
        gate = gates[t]
        matmul(h, recurrent, out=gate, accumulate=True)
        np.tanh(gate, out=gate)
        for part in (gate[:, :2 * hidden], gate[:, 3 * hidden:]):
            part *= 0.5
            part += 0.5
        c, h = cells[t + 1], y[t]
        i, f, g, o = (gate[:, k * hidden:(k + 1) * hidden] for k in range(4))
        np.multiply(i, g, out=c)
        np.multiply(f, cells[t], out=term)
        c += term
        np.tanh(c, out=tanh_c[t])
        np.multiply(o, tanh_c[t], out=h)
    return y, h.copy(), cells[steps].copy(), (gates, cells, tanh_c, y)


def lstm_backward(gy, gh, gc, saved, x, h0, w_ih, w_hh, bias: bool = True):
    """(dx, dh0, dc0, dw_ih, dw_hh, db) from the gradients of y, h_T and c_T (each may be None).

    Both biases have the gradient db, which is None without `bias`.
    """
    if _is_half(x):
        return _narrow(x.dtype, *lstm_backward(*_wide(gy, gh, gc), saved, *_wide(x, h0, w_ih, w_hh), bias))
    gates, cells, tanh_c, y = saved
    steps, batch, hidden = y.shape
    i, f, g, o = (gates[..., k * hidden:(k + 1) * hidden] for k in range(4))
    # factors that turn dc (for i, f, g) and dh (for o) into the gradients before the activations
    factors = np.empty((steps, batch, 4, hidden), x.dtype)
    _product(factors[:, :, 0], i, 1 - i, g)
    _product(factors[:, :, 1], f, 1 - f, cells[:-1])
    np.multiply(1 - g * g, i, out=factors[:, :, 2])
    _product(factors[:, :, 3], o, 1 - o, tanh_c)
    to_c = np.multiply(tanh_c, tanh_c)
    np.subtract(1, to_c, out=to_c)
    to_c *= o
    dc = np.zeros((batch, hidden), x.dtype) if gc is None else gc.astype(x.dtype)
    dh = np.zeros((batch, hidden), x.dtype) if gh is None else gh.astype(x.dtype)
    recurrent, term = np.ascontiguousarray(w_hh), np.empty((batch, hidden), x.dtype)
    for t in range(steps - 1, -1, -1):
        if gy is not None:
            dh += gy[t]
        np.multiply(dh, to_c[t], out=term)
        dc += term
        step = factors[t]
        step[:, :3] *= dc[:, None]
        step[:, 3] *= dh
        dc *= f[t]
        matmul(step.reshape(batch, 4 * hidden), recurrent, out=dh)
    d_gates = factors.reshape(steps, batch, 4 * hidden)
    return _weight_gradients(d_gates, d_gates, x, h0, y, w_ih, bias, dh, dc)


# --- GRU: gates in the order r, z, n -----------------------------------------------------------------------
def gru_forward(x, h0, w_ih, w_hh, b_ih=None, b_hh=None):
    """(y, h_T, saved): h = (1 - z) n + z h, n = tanh(W_in x + b_in + r (W_hn h + b_hn)), r and z sigmoids."""
    if _is_half(x):
        y, h, saved = gru_forward(*_wide(x, h0, w_ih, w_hh, b_ih, b_hh))
        return *_narrow(x.dtype, y, h), saved
    hidden = h0.shape[1]
    halves = np.full(3 * hidden, 0.5, x.dtype)
    halves[2 * hidden:] = 1
    gates = _input_products(x, w_ih * halves[:, None], None if b_ih is None else b_ih * halves)
    recurrent = np.ascontiguousarray((w_hh * halves[:, None]).T)
    bias = None if b_hh is None else b_hh * halves
    steps, batch = x.shape[:2]
    y, from_h = np.empty((steps, batch, hidden), x.dtype), np.empty((steps, batch, hidden), x.dtype)
    h, product = np.ascontiguousarray(h0), np.empty((batch, 3 * hidden), x.dtype)
    for t in range(steps):
        matmul(h, recurrent, bias, out=product)
        sigmoids, n = gates[t][:, :2 * hidden], gates[t][:, 2 * hidden:]
        sigmoids += product[:, :2 * hidden]
        np.tanh(sigmoids, out=sigmoids)
        sigmoids *= 0.5
        sigmoids += 0.5
        from_h[t] = product[:, 2 * hidden:]
        n += sigmoids[:, :hidden] * from_h[t]
        np.tanh(n, out=n)
        np.subtract(h, n, out=y[t])
        y[t] *= sigmoids[:, hidden:]
        y[t] += n
        h = y[t]
    return y, h.copy(), (gates, from_h, y)


def gru_backward(gy, gh, saved, x, h0, w_ih, w_hh, bias: bool = True):
    """(dx, dh0, dw_ih, dw_hh, db_ih, db_hh) from the gradients of y and h_T (each may be None)."""
    if _is_half(x):
        return _narrow(x.dtype, *gru_backward(*_wide(gy, gh), saved, *_wide(x, h0, w_ih, w_hh), bias))
    gates, from_h, y = saved
    steps, batch, hidden = y.shape
    r, z, n = (gates[..., k * hidden:(k + 1) * hidden] for k in range(3))
    before = _states_before(h0, y)
    # dh times these is the gradient before each activation; the last is of W_hn h + b_hn, which r multiplies
    factors = np.empty((steps, batch, 4, hidden), x.dtype)
    np.multiply(1 - z, 1 - n * n, out=factors[:, :, 2])
    np.multiply(factors[:, :, 2], r, out=factors[:, :, 3])
    _product(factors[:, :, 0], factors[:, :, 3], 1 - r, from_h)
    _product(factors[:, :, 1], before - n, z, 1 - z)
    dh = np.zeros((batch, hidden), x.dtype) if gh is None else gh.astype(x.dtype)
    recurrent = np.ascontiguousarray(w_hh)
    d_recurrent = np.empty((steps, batch, 3, hidden), x.dtype)
    for t in range(steps - 1, -1, -1):
        if gy is not None:
            dh += gy[t]
        step = factors[t]
        step *= dh[:, None]
        d_recurrent[t, :, :2], d_recurrent[t, :, 2] = step[:, :2], step[:, 3]
        dh = dh * z[t]
        matmul(d_recurrent[t].reshape(batch, 3 * hidden), recurrent, out=dh, accumulate=True)
    d_input = factors[:, :, :3].reshape(steps, batch, 3 * hidden)
    d_recurrent = d_recurrent.reshape(steps, batch, 3 * hidden)
    dx, dw_ih, dw_hh, db_ih, db_hh, dh0 = _weight_gradients(d_input, d_recurrent, x, h0, y, w_ih, bias, dh)
    return dx, dh0, dw_ih, dw_hh, db_ih, db_hh


# --- plain -------------------------------------------------------------------------------------------------
def rnn_forward(x, h0, w_ih, w_hh, b_ih=None, b_hh=None, nonlinearity: str = "tanh"):
    """(y, h_T, saved): h = tanh(W_ih x + b_ih + W_hh h + b_hh), or relu."""
    if _is_half(x):
        y, h, saved = rnn_forward(*_wide(x, h0, w_ih, w_hh, b_ih, b_hh), nonlinearity)
        return *_narrow(x.dtype, y, h), saved
    y = _input_products(x, w_ih, _sum_biases(b_ih, b_hh))
    h, recurrent = np.ascontiguousarray(h0), np.ascontiguousarray(w_hh.T)
    for t in range(x.shape[0]):
        matmul(h, recurrent, out=y[t], accumulate=True)
        h = np.tanh(y[t], out=y[t]) if nonlinearity == "tanh" else np.maximum(y[t], 0, out=y[t])
    return y, h.copy(), (y, nonlinearity)


def rnn_backward(gy, gh, saved, x, h0, w_ih, w_hh, bias: bool = True):
    """(dx, dh0, dw_ih, dw_hh, db) from the gradients of y and h_T (each may be None); db as for an LSTM."""
    if _is_half(x):
        return _narrow(x.dtype, *rnn_backward(*_wide(gy, gh), saved, *_wide(x, h0, w_ih, w_hh), bias))
    y, nonlinearity = saved
    factors = 1 - y * y if nonlinearity == "tanh" else (y > 0).astype(x.dtype)
    dh = np.zeros(y.shape[1:], x.dtype) if gh is None else gh.astype(x.dtype)
    recurrent = np.ascontiguousarray(w_hh)
    for t in range(y.shape[0] - 1, -1, -1):
        if gy is not None:
            dh += gy[t]
        factors[t] *= dh
        matmul(factors[t], recurrent, out=dh)
    return _weight_gradients(factors, factors, x, h0, y, w_ih, bias, dh)


# --- shared ------------------------------------------------------------------------------------------------
def _input_products(x, w_ih, bias):
    steps, batch, size = x.shape
    return matmul(x.reshape(steps * batch, size), w_ih.T, bias).reshape(steps, batch, w_ih.shape[0])


def _sum_biases(b_ih, b_hh, factor=1):
    return None if b_ih is None else (b_ih + b_hh) * factor


def _states_before(h0, y):
    return np.concatenate([h0[None], y[:-1]]) if len(y) else y


def _product(out, a, b, c):
    np.multiply(a, b, out=out)
    out *= c


def _weight_gradients(d_input, d_recurrent, x, h0, y, w_ih, bias, dh, dc=None):
    """All gradients from those before the activations: dense products over all steps at once."""
    rows = x.shape[0] * x.shape[1]
    flat, inputs = d_input.reshape(rows, d_input.shape[2]), x.reshape(rows, x.shape[2])
    states = _states_before(h0, y).reshape(rows, y.shape[2])
    dx, dw_ih = matmul(flat, w_ih).reshape(x.shape), matmul(flat.T, inputs)
    db = flat.sum(0) if bias else None
    if d_recurrent is d_input:
        dw_hh = matmul(flat.T, states)
        return (dx, dh, dw_ih, dw_hh, db) if dc is None else (dx, dh, dc, dw_ih, dw_hh, db)
    other = d_recurrent.reshape(rows, d_recurrent.shape[2])
    return dx, dw_ih, matmul(other.T, states), db, other.sum(0) if bias else None, dh


def _is_half(x) -> bool:
    return x.dtype.itemsize == 2


def _wide(*arrays):
    return [None if a is None else a.astype(np.float32) for a in arrays]


def _narrow(dtype, *arrays):
    return tuple(None if a is None else a.astype(dtype) for a in arrays)
