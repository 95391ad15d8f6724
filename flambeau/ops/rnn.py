"""Recurrences: RNN, LSTM, GRU over sequences, padded or packed, and single steps of them.

Every gate's share of the input is one matrix product for the whole sequence; a step then adds the share of the
state. A padded sequence goes through one fused primitive for each layer and direction; packed sequences and
projections are composed of public operators, as is the form of the primitives that is differentiated again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import flambeau as fl

from ..autograd.primitive import primitive, wrap_any
from ..core.errors import error
from ..core.tensor import Tensor
from ..kernels import rnn as kernels
from .conv import full
from .matmul import linear, linear_each
from .public import FUNCTIONS, publish

State = tuple[Tensor, ...]


def _linear(x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    return linear_each(x, w, b) if w._a.ndim == 3 else linear(x, w, b)


# ---- one step: (the input's share of the gates, the state, its weights) -> the new state -------------------------
def _rnn_step(activation: str) -> Callable[..., State]:
    def step(x: Tensor, state: State, w_hh: Tensor, b_hh: Tensor | None) -> State:
        return (getattr(x + _linear(state[0], w_hh, b_hh), activation)(),)

    return step


def _lstm_step(
    x: Tensor, state: State, w_hh: Tensor, b_hh: Tensor | None, w_hr: Tensor | None = None
) -> State:
    h, c = state
    i, f, g, o = (x + _linear(h, w_hh, b_hh)).chunk(4, -1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    h = o.sigmoid() * c.tanh()
    return (h if w_hr is None else _linear(h, w_hr), c)


def _gru_step(x: Tensor, state: State, w_hh: Tensor, b_hh: Tensor | None) -> State:
    (h,) = state
    xr, xz, xn = x.chunk(3, -1)
    hr, hz, hn = _linear(h, w_hh, b_hh).chunk(3, -1)
    n = (xn + (xr + hr).sigmoid() * hn).tanh()
    return ((h - n) * (xz + hz).sigmoid() + n,)


# ---- one layer in one direction ---------------------------------------------------------------------------------
def _run_padded(step: Callable, x: Tensor, state: State, weights: tuple, reverse: bool) -> tuple[Tensor, State]:
    outputs = []
    steps = x.unbind(0)
    for xt in reversed(steps) if reverse else steps:
        state = step(xt, state, *weights)
        outputs.append(state[0])
    return fl.stack(outputs[::-1] if reverse else outputs), state


def _run_packed(
    step: Callable, x: Tensor, sizes: list[int], state: State, weights: tuple, reverse: bool
) -> tuple[Tensor, State]:
    """As _run_padded, the batch shrinking (or, in reverse, growing) from step to step."""
    pieces = x.split(sizes)
    outputs: list[Tensor] = []
    if reverse:
        first = state
        state = tuple(s[: sizes[-1]] for s in first)
        for xt, n in zip(reversed(pieces), reversed(sizes), strict=True):
            have = state[0].shape[0]
            if n > have:  # sequences that end here start from their own first state
                state = tuple(fl.cat((s, s0[have:n])) for s, s0 in zip(state, first, strict=True))
            state = step(xt, state, *weights)
            outputs.append(state[0])
        return fl.cat(outputs[::-1]), state
    ended: list[State] = []  # states of the sequences that are over, the last to end first
    for xt, n in zip(pieces, sizes, strict=True):
        have = state[0].shape[0]
        if n < have:
            ended.insert(0, tuple(s[n:] for s in state))
            state = tuple(s[:n] for s in state)
        state = step(xt, state, *weights)
        outputs.append(state[0])
    if ended:
        state = tuple(fl.cat([s, *(e[k] for e in ended)]) for k, s in enumerate(state))
    return fl.cat(outputs), state


# ---- one layer in one direction, fused: gradients from what the forward kernel kept -------------------------------
# `out` is among what the rules save because its array is among what the kernel keeps: a change of it is noticed.
def _turned(a: Any, reverse: bool) -> Any:
    return a if a is None or not reverse else np.ascontiguousarray(a[::-1])


def _wrapped(*grads: Any) -> tuple[Tensor | None, ...]:
    return tuple([None if a is None else wrap_any(a) for a in grads])


def _lstm_vjp(g, x, h0, c0, w_ih, w_hh, b_ih, reverse, saved, needs, out):
    gy, gh, gc = (t._a for t in g)
    x, h0, c0, w_ih, w_hh = (t._a for t in (x, h0, c0, w_ih, w_hh))
    dx, dh, dc, dw_ih, dw_hh, db = kernels.lstm_backward(
        _turned(gy, reverse), gh, gc, saved, _turned(x, reverse), h0, c0, w_ih, w_hh, b_ih is not None, needs[0]
    )
    return _wrapped(_turned(dx, reverse), dh, dc, dw_ih, dw_hh, db, None if db is None else db.copy())


def _composed(step: Callable) -> Callable[..., tuple[Tensor, ...]]:
    """One layer of one direction in public operators; its last arguments are the weights and `reverse`."""

    def run(x: Tensor, *rest: Any) -> tuple[Tensor, ...]:
        *state, w_ih, w_hh, b_ih, b_hh, reverse = rest
        out, final = _run_padded(step, _linear(x, w_ih, b_ih), tuple(state), (w_hh, b_hh), reverse)
        return (out, *final)

    return run


def _batched(step: Callable, layer: Callable[[], Any]) -> Callable[..., tuple[Tensor, ...]]:
    """The rule for vmap: with one set of weights the examples' batches are put together."""

    def rule(b: Any, x: Tensor, states: Any, weights: Any, reverse: bool) -> tuple[Tensor, ...]:
        x, states = full(b, "x", x), tuple([full(b, f"{name}0", s) for name, s in zip("hc", states)])
        if not any([b.has(name) for name in ("w_ih", "w_hh", "b_ih", "b_hh")]):
            steps, n, features = x._a.shape[1:]
            together = x.movedim(0, 1).reshape(steps, b.size * n, features)
            y, *final = layer()(together, *[s.flatten(0, 1) for s in states], *weights, reverse)
            y = y.reshape(steps, b.size, n, y._a.shape[2]).movedim(1, 0)
            return (y, *[s.reshape(b.size, n, s._a.shape[1]) for s in final])
        w_ih, w_hh, b_ih, b_hh = [full(b, name, w) for name, w in zip(("w_ih", "w_hh", "b_ih", "b_hh"), weights)]
        y, final = _run_padded(step, _linear(x, w_ih, b_ih).movedim(1, 0), states, (w_hh, b_hh), reverse)
        return (y.movedim(0, 1), *final)

    return rule


def _one_state(rule: Callable) -> Callable[..., tuple[Tensor, ...]]:
    return lambda b, x, h0, w_ih, w_hh, b_ih, b_hh, reverse: rule(b, x, (h0,), (w_ih, w_hh, b_ih, b_hh), reverse)


def _two_states(rule: Callable) -> Callable[..., tuple[Tensor, ...]]:
    return lambda b, x, h0, c0, w_ih, w_hh, b_ih, b_hh, reverse: rule(b, x, (h0, c0), (w_ih, w_hh, b_ih, b_hh), reverse)


@primitive(
    "lstm_layer", node="MkldnnRnnLayerBackward0", vjp=_lstm_vjp, aux=("saved",), composite=_composed(_lstm_step),
    batch=_two_states(_batched(_lstm_step, lambda: _lstm_layer)),
)  # fmt: skip
def _lstm_layer(x, h0, c0, w_ih, w_hh, b_ih, b_hh, /, reverse):
    y, h, c, saved = kernels.lstm_forward(_turned(x, reverse), h0, c0, w_ih, w_hh, b_ih, b_hh)
    return _turned(y, reverse), h, c, saved


def _gru_vjp(g, x, h0, w_ih, w_hh, b_ih, reverse, saved, needs, out):
    gy, gh = (t._a for t in g)
    x, h0, w_ih, w_hh = (t._a for t in (x, h0, w_ih, w_hh))
    dx, *others = kernels.gru_backward(
        _turned(gy, reverse), gh, saved, _turned(x, reverse), h0, w_ih, w_hh, b_ih is not None, needs[0]
    )
    return _wrapped(_turned(dx, reverse), *others)


@primitive(
    "gru_layer", node="GruLayerBackward0", vjp=_gru_vjp, aux=("saved",), composite=_composed(_gru_step),
    batch=_one_state(_batched(_gru_step, lambda: _gru_layer)),
)  # fmt: skip
def _gru_layer(x, h0, w_ih, w_hh, b_ih, b_hh, /, reverse):
    y, h, saved = kernels.gru_forward(_turned(x, reverse), h0, w_ih, w_hh, b_ih, b_hh)
    return _turned(y, reverse), h, saved


def _rnn_vjp(g, x, h0, w_ih, w_hh, b_ih, reverse, saved, needs, out):
    gy, gh = (t._a for t in g)
    x, h0, w_ih, w_hh = (t._a for t in (x, h0, w_ih, w_hh))
    dx, dh, dw_ih, dw_hh, db = kernels.rnn_backward(
        _turned(gy, reverse), gh, saved, _turned(x, reverse), h0, w_ih, w_hh, b_ih is not None, needs[0]
    )
    return _wrapped(_turned(dx, reverse), dh, dw_ih, dw_hh, db, None if db is None else db.copy())


def _rnn_primitive(activation: str) -> Any:
    step = _rnn_step(activation)

    @primitive(
        f"rnn_{activation}_layer", node="RnnLayerBackward0", vjp=_rnn_vjp, aux=("saved",), composite=_composed(step),
        batch=_one_state(_batched(step, lambda: layer)),
    )  # fmt: skip
    def layer(x, h0, w_ih, w_hh, b_ih, b_hh, /, reverse):
        y, h, saved = kernels.rnn_forward(_turned(x, reverse), h0, w_ih, w_hh, b_ih, b_hh, activation)
        return _turned(y, reverse), h, saved

    return layer


# ---- all layers -------------------------------------------------------------------------------------------------
def _layers(
    step: Callable,
    fused: Any,
    x: Tensor,
    sizes: list[int] | None,
    states: State,
    params: Sequence[Tensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
) -> tuple[Tensor, ...]:
    """(output, final states ...); `states` have one row for each layer and direction."""
    directions = 2 if bidirectional else 1
    per = len(params) // (num_layers * directions)
    finals: list[State] = []
    for layer in range(num_layers):
        outputs = []
        for d in range(directions):
            k = layer * directions + d
            mine = params[k * per : (k + 1) * per]
            w_ih, w_hh = mine[:2]
            b_ih, b_hh = mine[2:4] if has_biases else (None, None)
            extra = mine[4 if has_biases else 2 :]  # the projection of an LSTM
            state = tuple([s[k] for s in states])
            if sizes is None and not extra:
                out, *state = fused(x, *state, w_ih, w_hh, b_ih, b_hh, d == 1)
            elif sizes is None:
                out, state = _run_padded(step, _linear(x, w_ih, b_ih), state, (w_hh, b_hh, *extra), d == 1)
            else:
                out, state = _run_packed(step, _linear(x, w_ih, b_ih), sizes, state, (w_hh, b_hh, *extra), d == 1)
            outputs.append(out)
            finals.append(state)
        x = outputs[0] if directions == 1 else fl.cat(outputs, -1)
        if dropout and train and layer < num_layers - 1:
            x = FUNCTIONS["nn.functional"]["dropout"](x, dropout, True)
    return (x, *(fl.stack([f[k] for f in finals]) for k in range(len(states))))


def _sequence(step: Callable, fused: Any, name: str) -> Callable[..., tuple[Tensor, ...]]:
    def run(x: Tensor, second: Any, third: Any, fourth: Any, *rest: Any) -> tuple[Tensor, ...]:
        # Two forms, as PyTorch has: (x, hx, params, biases, ..., batch_first) and (data, sizes, hx, params, ...).
        packed = isinstance(third, Tensor) or (isinstance(third, (tuple, list)) and isinstance(fourth, (tuple, list)))
        if packed:
            sizes, hx, params, options = [int(n) for n in second.tolist()], third, fourth, rest
            states = (hx,) if isinstance(hx, Tensor) else tuple(hx)
            return _layers(step, fused, x, sizes, states, params, *options)
        hx, params, options = second, third, (fourth, *rest[:-1])
        batch_first = rest[-1]
        states = (hx,) if isinstance(hx, Tensor) else tuple(hx)
        if batch_first:
            x = x.transpose(0, 1)
        if x.shape[0] == 0:
            raise error(RuntimeError, "Expected sequence length to be larger than 0 in RNN")
        out, *finals = _layers(step, fused, x, None, states, params, *options)
        return (out.transpose(0, 1) if batch_first else out, *finals)

    run.__name__ = run.__qualname__ = name
    run.__doc__ = f"{name} over a sequence: (output, final states), what nn.{name.split('_')[0].upper()} runs."
    return run


rnn_tanh = _sequence(_rnn_step("tanh"), _rnn_primitive("tanh"), "rnn_tanh")
rnn_relu = _sequence(_rnn_step("relu"), _rnn_primitive("relu"), "rnn_relu")
lstm = _sequence(_lstm_step, _lstm_layer, "lstm")
gru = _sequence(_gru_step, _gru_layer, "gru")


def _check_cell(input: Tensor, states: Sequence[Tensor], w_ih: Tensor, w_hh: Tensor) -> None:
    x, features, hidden = input._a.shape, w_ih._a.shape[1], w_hh._a.shape[1]
    if x[-1] != features:
        raise error(RuntimeError, f"input has inconsistent input_size: got {x[-1]} expected {features}")
    for i, h in enumerate(states):
        if h._a.shape[0] != x[0]:
            raise error(RuntimeError, f"Input batch size {x[0]} doesn't match hidden{i} batch size {h._a.shape[0]}")
        if h._a.shape[-1] != hidden:
            raise error(RuntimeError, f"hidden{i} has inconsistent hidden_size: got {h._a.shape[-1]}, expected {hidden}")


def lstm_cell(
    input: Tensor,
    hx: Sequence[Tensor],
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
) -> State:
    """One step of an LSTM: (h, c)."""
    _check_cell(input, hx, w_ih, w_hh)
    return _lstm_step(_linear(input, w_ih, b_ih), tuple(hx), w_hh, b_hh)


def _cell(step: Callable, name: str) -> Callable[..., Tensor]:
    def run(
        input: Tensor,
        hx: Tensor,
        w_ih: Tensor,
        w_hh: Tensor,
        b_ih: Tensor | None = None,
        b_hh: Tensor | None = None,
    ) -> Tensor:
        _check_cell(input, (hx,), w_ih, w_hh)
        return step(_linear(input, w_ih, b_ih), (hx,), w_hh, b_hh)[0]

    run.__name__ = run.__qualname__ = name
    run.__doc__ = f"One step: what nn's cell runs as {name}."
    return run


gru_cell = _cell(_gru_step, "gru_cell")
rnn_tanh_cell = _cell(_rnn_step("tanh"), "rnn_tanh_cell")
rnn_relu_cell = _cell(_rnn_step("relu"), "rnn_relu_cell")


# ---- packing ----------------------------------------------------------------------------------------------------
def _pack_padded_sequence(input: Tensor, lengths: Tensor, batch_first: bool = False) -> tuple[Tensor, Tensor]:
    """(data, batch_sizes) of padded sequences, (T, B, *), with descending lengths."""
    if batch_first:
        input = input.transpose(0, 1)
    steps, batch = input.shape[:2]
    ns = [int(n) for n in lengths.tolist()]
    if len(ns) != batch:
        raise error(
            RuntimeError,
            f"Expected `len(lengths)` to be equal to batch_size, but got {len(ns)} (batch_size={batch})",
        )
    if not ns or min(ns) <= 0:
        raise error(
            RuntimeError,
            "Length of all samples has to be greater than 0, but found an element in 'lengths' that is <= 0",
        )
    if any(a < b for a, b in zip(ns, ns[1:], strict=False)):
        raise error(
            RuntimeError,
            "`lengths` array must be sorted in decreasing order when `enforce_sorted` is True. You can pass "
            "`enforce_sorted=False` to pack_padded_sequence and/or pack_sequence to sidestep this requirement "
            "if you do not need ONNX exportability.",
        )
    if ns[0] > steps:
        raise error(
            RuntimeError, f"Expected `lengths` to be at most the length of the input, {steps}, but got {ns[0]}"
        )
    sizes = [sum(n > t for n in ns) for t in range(ns[0])]
    rows = [t * batch + b for t, n in enumerate(sizes) for b in range(n)]
    data = input.reshape(steps * batch, *input.shape[2:]).index_select(0, fl.tensor(rows))
    return data, fl.tensor(sizes)


def _pad_packed_sequence(
    data: Tensor, batch_sizes: Tensor, batch_first: bool, padding_value: float, total_length: int
) -> tuple[Tensor, Tensor]:
    """(padded sequences, lengths): the inverse of _pack_padded_sequence."""
    sizes = [int(n) for n in batch_sizes.tolist()]
    batch = sizes[0]
    lengths = [sum(n > b for n in sizes) for b in range(batch)]
    padding = data.shape[0]  # the row that is appended for all places without data
    rows, start = [], 0
    for n in [*sizes, *[0] * (total_length - len(sizes))]:
        rows += [*range(start, start + n), *[padding] * (batch - n)]
        start += n
    fill = fl.full((1, *data.shape[1:]), padding_value, dtype=data.dtype, device=data.device)
    padded = fl.cat((data, fill)).index_select(0, fl.tensor(rows))
    padded = padded.reshape(total_length, batch, *data.shape[1:])
    return padded.transpose(0, 1) if batch_first else padded, fl.tensor(lengths)


NAMES = (
    "lstm",
    "gru",
    "rnn_tanh",
    "rnn_relu",
    "lstm_cell",
    "gru_cell",
    "rnn_tanh_cell",
    "rnn_relu_cell",
    "_pack_padded_sequence",
    "_pad_packed_sequence",
)
for _name in NAMES:
    publish(_name, globals()[_name])
