"""Recurrent layers over a whole sequence, one layer and one direction: forward, and the gradients.

Shapes: x (T, N, I), h0 (N, H), w_ih (G H, I), w_hh (G H, H), biases (G H,) or both None; y (T, N, H). The product with
x is one for all steps; the steps are one recurrence: the product with h, and a cell over (N, H). The backward pass
runs the same way; the weights' gradients are products over all steps at once. Half precision is computed in float32.
"""

from __future__ import annotations

from typing import Any, TypeVarTuple

import numpy as np

from flambeau.kernels import expr as E
from flambeau.kernels.expr import var
from flambeau.kernels.matmul import matmul
from flambeau.kernels.recurrence import Recurrence

Arrays = TypeVarTuple("Arrays")


#: Sums over the steps, which a bias's gradient is made of.
_SUMS = "sum0", "sum1", "sum2", "sum3"


def _summed(gradients):
    return [var(name) + d for name, d in zip(_SUMS, gradients, strict=False)]


# --- LSTM: gates in the order i, f, g, o -------------------------------------------------------------------
def _lstm_steps() -> tuple[Recurrence, Recurrence]:
    i, f, g, o, c, new_c, dh, gy, dc = map(var, ("i", "f", "g", "o", "c", "new_c", "dh", "gy", "dc"))
    gates = E.sigmoid(i), E.sigmoid(f), E.tanh(g), E.sigmoid(o)
    next_c = gates[1] * c + gates[0] * gates[2]
    forward = Recurrence([*gates, next_c, gates[3] * E.tanh(next_c)], ["i", "f", "g", "o", "c"], "lstm",
                         product_first=True, accumulate=True)
    h, tanh_c = dh + gy, E.tanh(new_c)
    total = dc + h * o * (1 - tanh_c * tanh_c)
    d_gates = [total * g * i * (1 - i), total * c * f * (1 - f), total * i * (1 - g * g), h * tanh_c * o * (1 - o)]
    backward = Recurrence(
        [*d_gates, *_summed(d_gates), total * f],
        ["dh", "gy", "dc", "i", "f", "g", "o", "c", "new_c", *_SUMS], "lstm_grad", product_first=False, accumulate=False)
    return forward, backward


_LSTM, _LSTM_GRAD = _lstm_steps()


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
    gates = _input_products(x, w_ih, None if b_ih is None else b_ih + b_hh)     # then the gates themselves
    cells, y = (np.empty((steps, batch, hidden), x.dtype) for _ in range(2))
    parts = _parts(gates, 4)
    _LSTM(w_hh.T, _before(h0, y), gates, [*parts, _before(c0, cells)], [*parts, cells, y])
    return y, _last(h0, y), _last(c0, cells), (gates, cells, y)


def lstm_backward(gy, gh, gc, saved, x, h0, c0, w_ih, w_hh, bias: bool = True, needs_x: bool = True):
    """(dx, dh0, dc0, dw_ih, dw_hh, db) from the gradients of y, h_T and c_T (each may be None).

    Both biases have the gradient db, which is None without `bias`; dx is None without `needs_x`.
    """
    if _is_half(x):
        wide = *_wide(gy, gh, gc), saved, *_wide(x, h0, c0, w_ih, w_hh)
        return _narrow(x.dtype, *lstm_backward(*wide, bias, needs_x))
    gates, cells, y = saved
    d_gates, sums = np.empty_like(gates), np.zeros(gates.shape[1:], gates.dtype)
    dh, dc, every_sum = _copy(gh, h0), _copy(gc, h0), _parts(_each_step(sums, gates), 4)
    every_dh, every_dc = _each_step(dh, y), _each_step(dc, y)
    _LSTM_GRAD(
        w_hh, d_gates[::-1], every_dh,
        [every_dh, _gradient_backwards(gy, y), every_dc, *_parts(gates[::-1], 4), _before_backwards(c0, cells),
         cells[::-1], *every_sum],
        [*_parts(d_gates[::-1], 4), *every_sum, every_dc])
    dx, dw_ih = _input_gradients(d_gates, x, w_ih, needs_x)
    return dx, dh, dc, dw_ih, _recurrent_gradient(d_gates, h0, y), sums.sum(0) if bias else None


# --- GRU: gates in the order r, z, n -----------------------------------------------------------------------
def _gru_steps() -> tuple[Recurrence, Recurrence]:
    """s and w are the products with x and with h, biases included."""
    s_r, s_z, s_n, w_r, w_z, w, h = map(var, ("s_r", "s_z", "s_n", "w_r", "w_z", "w", "h"))
    dh, gy, r, z, n = map(var, ("dh", "gy", "r", "z", "n"))
    new_r, new_z = E.sigmoid(s_r + w_r), E.sigmoid(s_z + w_z)
    new_n = E.tanh(s_n + new_r * w)
    forward = Recurrence([new_r, new_z, new_n, new_n + new_z * (h - new_n)],
                         ["s_r", "s_z", "s_n", "w_r", "w_z", "w", "h"], "gru", product_first=True, accumulate=True)
    total = dh + gy
    d_n = total * (1 - z) * (1 - n * n)
    d_r, d_z = d_n * w * r * (1 - r), total * (h - n) * z * (1 - z)
    d_gates = [d_r, d_z, d_n, d_n * r]
    backward = Recurrence([d_r, d_z, d_n, d_r, d_z, d_n * r, *_summed(d_gates), total * z],
                          ["dh", "gy", "r", "z", "n", "w", "h", *_SUMS], "gru_grad", product_first=False, accumulate=True)
    return forward, backward


_GRU, _GRU_GRAD = _gru_steps()


def gru_forward(x, h0, w_ih, w_hh, b_ih=None, b_hh=None):
    """(y, h_T, saved): h = (1 - z) n + z h, n = tanh(W_in x + b_in + r (W_hn h + b_hn)), r and z sigmoids."""
    if _is_half(x):
        y, h, saved = gru_forward(*_wide(x, h0, w_ih, w_hh, b_ih, b_hh))
        return *_narrow(x.dtype, y, h), saved
    (steps, batch), hidden = x.shape[:2], h0.shape[1]
    gates, y = _input_products(x, w_ih, b_ih), np.empty((steps, batch, hidden), x.dtype)
    from_h = np.empty_like(gates)
    from_h[...] = 0 if b_hh is None else b_hh
    parts = _parts(gates, 3)
    _GRU(w_hh.T, _before(h0, y), from_h, [*parts, *_parts(from_h, 3), _before(h0, y)], [*parts, y])
    return y, _last(h0, y), (gates, from_h, y)


def gru_backward(gy, gh, saved, x, h0, w_ih, w_hh, bias: bool = True, needs_x: bool = True):
    """(dx, dh0, dw_ih, dw_hh, db_ih, db_hh) from the gradients of y and h_T (each may be None)."""
    if _is_half(x):
        return _narrow(x.dtype, *gru_backward(*_wide(gy, gh), saved, *_wide(x, h0, w_ih, w_hh), bias, needs_x))
    gates, from_h, y = saved
    d_input, d_recurrent = np.empty_like(gates), np.empty_like(gates)
    dh, sums = _copy(gh, h0), np.zeros((*h0.shape[:1], 4 * h0.shape[1]), x.dtype)
    every_dh, every_sum = _each_step(dh, y), _parts(_each_step(sums, y), 4)
    _GRU_GRAD(
        w_hh, d_recurrent[::-1], every_dh,
        [every_dh, _gradient_backwards(gy, y), *_parts(gates[::-1], 3), _parts(from_h[::-1], 3)[2],
         _before_backwards(h0, y), *every_sum],
        [*_parts(d_input[::-1], 3), *_parts(d_recurrent[::-1], 3), *every_sum, every_dh])
    dx, dw_ih = _input_gradients(d_input, x, w_ih, needs_x)
    dw_hh = _recurrent_gradient(d_recurrent, h0, y)
    if not bias:
        return dx, dh, dw_ih, dw_hh, None, None
    both, new, recurrent = np.split(sums.sum(0), [2 * h0.shape[1], 3 * h0.shape[1]])
    return dx, dh, dw_ih, dw_hh, np.concatenate([both, new]), np.concatenate([both, recurrent])


# --- plain -------------------------------------------------------------------------------------------------
def _rnn_steps() -> dict[str, tuple[Recurrence, Recurrence]]:
    s, h, dh, gy = map(var, ("s", "h", "dh", "gy"))
    made = {}
    for name, new, back in (("tanh", E.tanh(s), (dh + gy) * (1 - h * h)), ("relu", E.relu(s), E.where(h > 0, dh + gy, 0))):
        made[name] = (
            Recurrence([new], ["s"], f"rnn_{name}", product_first=True, accumulate=True),
            Recurrence([back, *_summed([back])], ["dh", "gy", "h", _SUMS[0]], f"rnn_{name}_grad",
                       product_first=False, accumulate=False),
        )
    return made


_RNN = _rnn_steps()


def rnn_forward(x, h0, w_ih, w_hh, b_ih=None, b_hh=None, nonlinearity: str = "tanh"):
    """(y, h_T, saved): h = tanh(W_ih x + b_ih + W_hh h + b_hh), or relu."""
    if _is_half(x):
        y, h, saved = rnn_forward(*_wide(x, h0, w_ih, w_hh, b_ih, b_hh), nonlinearity)
        return *_narrow(x.dtype, y, h), saved
    y = _input_products(x, w_ih, None if b_ih is None else b_ih + b_hh)
    _RNN[nonlinearity][0](w_hh.T, _before(h0, y), y, [y], [y])
    return y, _last(h0, y), (y, nonlinearity)


def rnn_backward(gy, gh, saved, x, h0, w_ih, w_hh, bias: bool = True, needs_x: bool = True):
    """(dx, dh0, dw_ih, dw_hh, db) from the gradients of y and h_T (each may be None); the rest as for an LSTM."""
    if _is_half(x):
        return _narrow(x.dtype, *rnn_backward(*_wide(gy, gh), saved, *_wide(x, h0, w_ih, w_hh), bias, needs_x))
    y, nonlinearity = saved
    factors, dh, sums = np.empty_like(y), _copy(gh, h0), np.zeros(h0.shape, y.dtype)
    every_dh, every_sum = _each_step(dh, y), _each_step(sums, y)
    _RNN[nonlinearity][1](
        w_hh, factors[::-1], every_dh, [every_dh, _gradient_backwards(gy, y), y[::-1], every_sum],
        [factors[::-1], every_sum])
    dx, dw_ih = _input_gradients(factors, x, w_ih, needs_x)
    return dx, dh, dw_ih, _recurrent_gradient(factors, h0, y), sums.sum(0) if bias else None


# --- shared ------------------------------------------------------------------------------------------------
def _input_products(x, w_ih, bias):
    steps, batch, size = x.shape
    return matmul(x.reshape(steps * batch, size), w_ih.T, bias).reshape(steps, batch, w_ih.shape[0])


def _before(first, states):
    """At each step, the state that it starts from."""
    return [np.ascontiguousarray(first)[None], states[:-1]]


def _before_backwards(first, states):
    return [states[:-1][::-1], np.ascontiguousarray(first)[None]]


def _last(first, states):
    return (states[-1] if len(states) else first).copy()


def _parts(gates, count: int):
    """The gates (T, N, count H) one by one."""
    hidden = gates.shape[2] // count
    return [gates[:, :, k * hidden:(k + 1) * hidden] for k in range(count)]


def _copy(gradient, like):
    """A gradient that may be written to, zeros where there is none."""
    return np.zeros(like.shape, like.dtype) if gradient is None else np.array(gradient, like.dtype, order="C")


def _each_step(array, like):
    """One array (N, H) at every step: as many as `like` has."""
    return np.lib.stride_tricks.as_strided(array, (len(like), *array.shape), (0, *array.strides))


def _gradient_backwards(gy, y):
    """The gradient of y from the last step to the first; zeros with little memory of their own where there is none."""
    if gy is None:
        return np.broadcast_to(np.zeros(y.shape[2:], y.dtype), y.shape)
    return (gy if gy.shape[2] == 1 or gy.strides[2] == gy.itemsize else np.ascontiguousarray(gy))[::-1]


def _flat(steps):
    return steps.reshape(steps.shape[0] * steps.shape[1], steps.shape[2])


def _input_gradients(d_input, x, w_ih, needs_x):
    """Of x and of its weights: dense products over all steps at once."""
    flat = _flat(d_input)
    return matmul(flat, w_ih).reshape(x.shape) if needs_x else None, matmul(flat.T, _flat(x))


def _recurrent_gradient(d_recurrent, h0, y):
    """Of w_hh: the sum over all steps of the gates' gradients times the states before."""
    if not len(y):
        return np.zeros((d_recurrent.shape[2], y.shape[2]), y.dtype)
    dw = matmul(_flat(d_recurrent[1:]).T, _flat(y[:-1]))
    return matmul(d_recurrent[0].T, h0, out=dw, accumulate=True)


def _is_half(x) -> bool:
    return x.dtype.itemsize == 2


def _wide(*arrays: *Arrays) -> tuple[*Arrays]:
    every: Any = arrays
    wide: Any = tuple(None if a is None else a.astype(np.float32) for a in every)
    return wide


def _narrow(dtype, *arrays):
    return tuple(None if a is None else a.astype(dtype) for a in arrays)
