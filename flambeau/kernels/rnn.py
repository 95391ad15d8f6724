"""Recurrent layers over a whole sequence, one layer and one direction: forward, and the gradients.

Shapes: x (T, N, I), h0 (N, H), w_ih (G H, I), w_hh (G H, H), biases (G H,) or both None; y (T, N, H). The product with
x is one for all steps; a step is one product with h, and one generated kernel over (N, H) that is the whole cell.
The backward pass runs the same way; the weights' gradients are products over all steps at once. Half precision
is computed in float32.
"""

from __future__ import annotations

import numpy as np

from flambeau.kernels.expr import var
from flambeau.kernels.matmul import matmul, multiplier
from flambeau.kernels.ufunc import Kernel, kernel


# --- LSTM: gates in the order i, f, g, o -------------------------------------------------------------------
def _lstm_cell() -> tuple[Kernel, Kernel]:
    """One step and its gradient, as kernels over (N, H)."""
    i, f, g, o, c, tanh_c, dh, gy, dc = map(var, ("i", "f", "g", "o", "c", "tanh_c", "dh", "gy", "dc"))
    # given tanh of all gates' sums, halved where a sigmoid is wanted: sigmoid(x) = tanh(x / 2) / 2 + 1 / 2
    new_i, new_f, new_o = (0.5 * v + 0.5 for v in (i, f, o))
    step = kernel([new_i, new_f, g + 0, new_o, new_f * c + new_i * g], ("i", "f", "g", "o", "c"), "lstm_cell")
    h = dh + gy
    total = dc + h * o * (1 - tanh_c * tanh_c)
    back = kernel(
        [total * g * i * (1 - i), total * c * f * (1 - f), total * i * (1 - g * g), h * tanh_c * o * (1 - o),
         total * f],
        ("dh", "gy", "dc", "i", "f", "g", "o", "c", "tanh_c"), "lstm_cell_grad")
    return step, back


_LSTM, _LSTM_GRAD = _lstm_cell()


def lstm_forward(x, h0, c0, w_ih, w_hh, b_ih=None, b_hh=None):
    """(y, h_T, c_T, saved): c = f c + i g, h = o tanh(c), where i, f, o are sigmoids and g = tanh.

    >>> z = np.zeros
    >>> lstm_forward(z((3, 1, 2)), z((1, 4)), z((1, 4)), z((16, 2)), z((16, 4)))[0].shape
    (3, 1, 4)
    """
    if _is_half(x):
        y, h, c, saved = lstm_forward(*_wide(x, h0, c0, w_ih, w_hh, b_ih, b_hh))
        return *_narrow(x.dtype, y, h, c), saved
    (steps, batch), hidden = x.shape[:2], h0.shape[1]
    # NumPy's tanh is vectorised and faster than any sigmoid: halve what is to become one
    halves = np.full((4 * hidden, 1), 0.5, x.dtype)
    halves[2 * hidden:3 * hidden] = 1
    bias = _sum_biases(b_ih, b_hh)
    products = _input_products(x, w_ih * halves, None if bias is None else bias * halves[:, 0])
    add_recurrent = multiplier((w_hh * halves).T, batch, accumulate=True)
    gates = np.empty((steps, 4, batch, hidden), x.dtype)
    cells = np.empty((steps + 1, batch, hidden), x.dtype)
    y, tanh_c = np.empty((steps, batch, hidden), x.dtype), np.empty((steps, batch, hidden), x.dtype)
    cells[0], h = c0, np.ascontiguousarray(h0)
    for t in range(steps):
        product = products[t]
        add_recurrent(h, product)
        np.tanh(product, out=product)
        _LSTM(*_parts(product, 4), cells[t], out=(*gates[t], cells[t + 1]))
        np.tanh(cells[t + 1], out=tanh_c[t])
        h = np.multiply(gates[t, 3], tanh_c[t], out=y[t])
    return y, h.copy(), cells[steps].copy(), (gates, cells, tanh_c, y)


def lstm_backward(gy, gh, gc, saved, x, h0, w_ih, w_hh, bias: bool = True):
    """(dx, dh0, dc0, dw_ih, dw_hh, db) from the gradients of y, h_T and c_T (each may be None).

    Both biases have the gradient db, which is None without `bias`.
    """
    if _is_half(x):
        return _narrow(x.dtype, *lstm_backward(*_wide(gy, gh, gc), saved, *_wide(x, h0, w_ih, w_hh), bias))
    gates, cells, tanh_c, y = saved
    steps, batch, hidden = y.shape
    d_gates = np.empty((steps, batch, 4 * hidden), x.dtype)
    dh, dc, gy = _copy(gh, h0), _copy(gc, h0), _each_step(gy, y)
    recurrent = multiplier(w_hh, batch)
    for t in range(steps - 1, -1, -1):
        _LSTM_GRAD(dh, gy[t], dc, *gates[t], cells[t], tanh_c[t], out=(*_parts(d_gates[t], 4), dc))
        recurrent(d_gates[t], dh)
    return _weight_gradients(d_gates, d_gates, x, h0, y, w_ih, bias, dh, dc)


# --- GRU: gates in the order r, z, n -----------------------------------------------------------------------
def _gru_cell() -> tuple[Kernel, Kernel, Kernel]:
    """One step in two parts, and its gradient; s and w are n's products with x and with h, biases included."""
    w, h, dh, gy, r, z, n, s = map(var, ("w", "h", "dh", "gy", "r", "z", "n", "s"))
    new_r, new_z = 0.5 * r + 0.5, 0.5 * z + 0.5         # as in an LSTM's cell
    gates = kernel([new_r, new_z, s + new_r * w], ("r", "z", "s", "w"), "gru_gates")
    mix = kernel(n + z * (h - n), ("n", "z", "h"), "gru_mix")
    total = dh + gy
    d_n = total * (1 - z) * (1 - n * n)
    d_r, d_z = d_n * w * r * (1 - r), total * (h - n) * z * (1 - z)
    back = kernel([d_r, d_z, d_n, d_r, d_z, d_n * r, total * z],
                  ("dh", "gy", "r", "z", "n", "w", "h"), "gru_cell_grad")
    return gates, mix, back


_GRU_GATES, _GRU_MIX, _GRU_GRAD = _gru_cell()


def gru_forward(x, h0, w_ih, w_hh, b_ih=None, b_hh=None):
    """(y, h_T, saved): h = (1 - z) n + z h, n = tanh(W_in x + b_in + r (W_hn h + b_hn)), r and z sigmoids."""
    if _is_half(x):
        y, h, saved = gru_forward(*_wide(x, h0, w_ih, w_hh, b_ih, b_hh))
        return *_narrow(x.dtype, y, h), saved
    (steps, batch), hidden = x.shape[:2], h0.shape[1]
    halves = np.full((3 * hidden, 1), 0.5, x.dtype)
    halves[2 * hidden:] = 1
    from_x = _input_products(x, w_ih * halves, None if b_ih is None else b_ih * halves[:, 0])
    add_recurrent = multiplier((w_hh * halves).T, batch, accumulate=True)
    gates, y = np.empty((steps, 3, batch, hidden), x.dtype), np.empty((steps, batch, hidden), x.dtype)
    from_h, h = np.zeros((steps, batch, 3 * hidden), x.dtype), np.ascontiguousarray(h0)
    if b_hh is not None:
        from_h[...] = b_hh * halves[:, 0]
    sigmoids = np.empty((batch, 2 * hidden), x.dtype)
    for t in range(steps):
        add_recurrent(h, from_h[t])
        np.add(from_x[t, :, :2 * hidden], from_h[t, :, :2 * hidden], out=sigmoids)
        np.tanh(sigmoids, out=sigmoids)
        n = gates[t, 2]
        _GRU_GATES(*_parts(sigmoids, 2), from_x[t, :, 2 * hidden:], from_h[t, :, 2 * hidden:], out=(*gates[t],))
        np.tanh(n, out=n)
        h = _GRU_MIX(n, gates[t, 1], h, out=y[t])
    return y, h.copy(), (gates, from_h, y)


def gru_backward(gy, gh, saved, x, h0, w_ih, w_hh, bias: bool = True):
    """(dx, dh0, dw_ih, dw_hh, db_ih, db_hh) from the gradients of y and h_T (each may be None)."""
    if _is_half(x):
        return _narrow(x.dtype, *gru_backward(*_wide(gy, gh), saved, *_wide(x, h0, w_ih, w_hh), bias))
    gates, from_h, y = saved
    steps, batch, hidden = y.shape
    d_input = np.empty((steps, batch, 3 * hidden), x.dtype)
    d_recurrent = np.empty((steps, batch, 3 * hidden), x.dtype)
    dh, gy = _copy(gh, h0), _each_step(gy, y)
    add_recurrent = multiplier(w_hh, batch, accumulate=True)
    for t in range(steps - 1, -1, -1):
        _GRU_GRAD(dh, gy[t], *gates[t], _parts(from_h[t], 3)[2], y[t - 1] if t else h0,
                  out=(*_parts(d_input[t], 3), *_parts(d_recurrent[t], 3), dh))
        add_recurrent(d_recurrent[t], dh)
    dx, dw_ih, dw_hh, db_ih, db_hh, dh0 = _weight_gradients(d_input, d_recurrent, x, h0, y, w_ih, bias, dh)
    return dx, dh0, dw_ih, dw_hh, db_ih, db_hh


# --- plain -------------------------------------------------------------------------------------------------
def rnn_forward(x, h0, w_ih, w_hh, b_ih=None, b_hh=None, nonlinearity: str = "tanh"):
    """(y, h_T, saved): h = tanh(W_ih x + b_ih + W_hh h + b_hh), or relu."""
    if _is_half(x):
        y, h, saved = rnn_forward(*_wide(x, h0, w_ih, w_hh, b_ih, b_hh), nonlinearity)
        return *_narrow(x.dtype, y, h), saved
    y = _input_products(x, w_ih, _sum_biases(b_ih, b_hh))
    h, add_recurrent = np.ascontiguousarray(h0), multiplier(w_hh.T, x.shape[1], accumulate=True)
    for t in range(x.shape[0]):
        add_recurrent(h, y[t])
        h = np.tanh(y[t], out=y[t]) if nonlinearity == "tanh" else np.maximum(y[t], 0, out=y[t])
    return y, h.copy(), (y, nonlinearity)


def rnn_backward(gy, gh, saved, x, h0, w_ih, w_hh, bias: bool = True):
    """(dx, dh0, dw_ih, dw_hh, db) from the gradients of y and h_T (each may be None); db as for an LSTM."""
    if _is_half(x):
        return _narrow(x.dtype, *rnn_backward(*_wide(gy, gh), saved, *_wide(x, h0, w_ih, w_hh), bias))
    y, nonlinearity = saved
    factors = 1 - y * y if nonlinearity == "tanh" else (y > 0).astype(x.dtype)
    dh = _copy(gh, h0)
    recurrent = multiplier(w_hh, y.shape[1])
    for t in range(y.shape[0] - 1, -1, -1):
        if gy is not None:
            dh += gy[t]
        factors[t] *= dh
        recurrent(factors[t], dh)
    return _weight_gradients(factors, factors, x, h0, y, w_ih, bias, dh)


# --- shared ------------------------------------------------------------------------------------------------
def _input_products(x, w_ih, bias):
    steps, batch, size = x.shape
    return matmul(x.reshape(steps * batch, size), w_ih.T, bias).reshape(steps, batch, w_ih.shape[0])


def _sum_biases(b_ih, b_hh, factor=1):
    return None if b_ih is None else (b_ih + b_hh) * factor


def _states_before(h0, y):
    return np.concatenate([h0[None], y[:-1]]) if len(y) else y


def _parts(gates, count: int):
    """The gates (N, count H) one by one."""
    hidden = gates.shape[1] // count
    return [gates[:, k * hidden:(k + 1) * hidden] for k in range(count)]


def _copy(gradient, like):
    """A gradient that may be written to, zeros where there is none."""
    return np.zeros(like.shape, like.dtype) if gradient is None else np.array(gradient, like.dtype, order="C")


def _each_step(gy, y):
    """The gradient of y, zeros without memory of their own where there is none."""
    return np.broadcast_to(np.zeros((), y.dtype), y.shape) if gy is None else gy


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
