"""Generated recurrences agree with a loop of products and cells."""

import numpy as np
import pytest

from flambeau.kernels import backend, threads
from flambeau.kernels import expr as E
from flambeau.kernels.recurrence import Recurrence

S, C = E.var("s"), E.var("c")


def recurrence(product_first, accumulate):
    name = f"test_recurrence_{product_first}_{accumulate}"
    return Recurrence([E.tanh(0.1 * S + C), S * C], ["s", "c"], name, product_first, accumulate)


def operands(steps, rows, hidden, dtype):
    rng = np.random.default_rng(0)
    make = lambda *shape: rng.standard_normal(shape).astype(dtype)  # noqa: E731
    return make(hidden, hidden), make(1, rows, hidden), make(steps, rows, hidden), make(steps, rows, hidden)


def run(step, weights, first, y, c, reverse):
    """In place: each step reads the state that the step before has written."""
    y, product = y.copy(), np.empty_like(y)
    if reverse:
        step(weights, [first, y[1:][::-1]], y[::-1], [y[::-1], c[::-1]], [y[::-1], product[::-1]])
    else:
        step(weights, [first, y[:-1]], y, [y, c], [y, product])
    return y, product


@pytest.mark.skipif(not backend.jit_available(), reason="generated kernels are switched off")
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize("product_first", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rows, hidden", [(1, 1), (3, 16), (5, 7), (7, 64), (16, 100), (13, 77), (32, 130)])
def test_is_the_loop(rows, hidden, dtype, product_first, accumulate, count, monkeypatch):
    step, given = recurrence(product_first, accumulate), operands(4, rows, hidden, dtype)
    before = threads.get_num_threads()
    threads.set_num_threads(count)
    try:
        for reverse in (False, True):
            fast = run(step, *given, reverse)
            with monkeypatch.context() as patch:
                patch.setattr(step, "_generated", lambda *_: False)
                slow = run(step, *given, reverse)
            tolerance = 2e-3 if dtype == np.float32 else 1e-10
            for a, b in zip(fast, slow, strict=True):
                np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)
    finally:
        threads.set_num_threads(before)


@pytest.mark.skipif(not backend.jit_available(), reason="generated kernels are switched off")
def test_a_row_does_not_depend_on_the_others():
    step, (weights, first, y, c) = recurrence(True, True), operands(5, 9, 100, np.float32)
    together = run(step, weights, first, y, c, False)[0]
    for n in (1, 4):
        few = run(step, weights, first[:, :n], y[:, :n], c[:, :n], False)[0]
        np.testing.assert_array_equal(few, together[:, :n])


@pytest.mark.parametrize("same_strides", [True, False])
def test_writes_nowhere_else(same_strides):
    step, (weights, first, y, c) = recurrence(True, True), operands(3, 4, 21, np.float32)
    wide = np.full((4, 4, 40), 7, np.float32)
    wide[:, :, 5:26] = np.concatenate([first, y])
    part = wide[1:, :, 5:26]
    start = wide[:1, :, 5:26] if same_strides else first
    step(weights, [start, part[:-1]], part, [part, c], [part, np.empty_like(y)])
    np.testing.assert_allclose(part, run(step, weights, first, y, c, False)[0], rtol=1e-4, atol=1e-4)
    assert (wide[:, :, :5] == 7).all()
    assert (wide[:, :, 26:] == 7).all()
