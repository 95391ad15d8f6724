"""Overwriting in place: values, history, what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import flambeau

CHANGES = [
    "uniform_()", "uniform_(1, 2)", "uniform_(**{'from': -1.0})", "normal_()", "normal_(mean=1, std=3)", "random_()", "random_(5)",
    "random_(2, 7)", "random_(2, None)", "random_(to=5)", "bernoulli_()", "bernoulli_(0.3)", "bernoulli_(T.full((4,), 0.3))",
    "exponential_(2)", "exponential_(lambd=0.5)", "geometric_(0.3)", "log_normal_()", "log_normal_(1, 0.5)", "cauchy_()", "cauchy_(2, 3)",
    "zero_()", "fill_(3)", "fill_(-1.5)", "fill_(True)", "fill_(value=2)", "fill_(T.tensor(2.0))", "fill_(T.tensor(2))",
    "fill_diagonal_(2)", "fill_diagonal_(T.tensor(2.0))", "fill_diagonal_(2, wrap=True)",
]  # fmt: skip
SHAPES = {
    "contiguous": lambda T, dtype: T.ones(11, 4, dtype=dtype),
    "transposed": lambda T, dtype: T.ones(4, 11, dtype=dtype).t(),
    "strided": lambda T, dtype: T.ones(11, 8, dtype=dtype)[:, ::2],
    "empty": lambda T, dtype: T.ones(0, 4, dtype=dtype),
}


def outcome(T: Any, change: str, start: Any, grad: bool) -> tuple[Any, ...]:
    T.manual_seed(11)
    x = start.detach().requires_grad_() if grad else start
    y = x + 0 if grad else x
    try:
        z = eval("y." + change, {"T": T, "y": y, "__name__": "user"})
    except Exception as e:
        return type(e), str(e).split("\n")[0]
    if not grad:
        return str(z.dtype), z.float().numpy().tolist() if "complex" not in str(z.dtype) else z.numpy().tolist(), z is y
    node = z.grad_fn.name().removeprefix("torch::autograd::")
    (z * 2).sum().backward()
    return z.detach().numpy().tolist(), x.grad.numpy().tolist(), node


@pytest.mark.torch
@pytest.mark.parametrize("change", CHANGES)
def test_against_torch(change: str) -> None:
    torch = pytest.importorskip("torch")
    for layout, shape in SHAPES.items():
        if "wrap" in change and layout != "contiguous":
            continue  # PyTorch counts in the memory's strides there, and leaves the tensor
        for dtype in ("float32", "float64", "float16", "bfloat16", "int64", "uint8", "bool", "complex64"):
            a, b = (outcome(T, change, shape(T, getattr(T, dtype)), False) for T in (flambeau, torch))
            if isinstance(a[0], type) and (layout == "empty" or dtype == "complex64"):
                continue  # PyTorch looks at the dtype later, or in other words
            np.testing.assert_equal(a, b, err_msg=f"{change} on {dtype}")
    for dtype in ("float32", "float64"):
        a, b = (outcome(T, change, SHAPES["contiguous"](T, getattr(T, dtype)), True) for T in (flambeau, torch))
        assert a == b


REFUSED = [
    "T.ones(2).geometric_()", "T.ones(2).uniform_(2, 1)", "T.ones(2).normal_(0, -1)", "T.ones(2).random_(5, 3)",
    "T.ones(2).random_(-5)", "T.ones(2).exponential_(0)", "T.ones(2).geometric_(2)", "T.ones(2).log_normal_(0, 0)",
    "T.ones(2).cauchy_(0, -1)", "T.ones(2).bernoulli_(2)", "T.ones(2).bernoulli_(T.ones(3))", "T.ones(2).uniform_(low=1)",
    "T.ones(2).fill_(T.ones(2))", "T.ones(2).fill_(1j)", "T.ones(2, dtype=T.uint8).fill_(300)",
    "T.ones(2, dtype=T.int64).fill_(float('nan'))", "T.ones(2, dtype=T.uint8).fill_(-0.5)", "T.ones(2, dtype=T.uint8).fill_(255.5)",
    "T.ones(2).fill_diagonal_(1)", "T.ones(2, 3, 3).fill_diagonal_(1)",
    "T.zeros(1).expand(3).normal_()", "T.zeros(1).expand(3).fill_(T.tensor(1.0))", "T.ones(2, requires_grad=True).zero_()",
    "T.ones(2, requires_grad=True).uniform_()", "T.ones(2, requires_grad=True)[:1].fill_(1)",
]  # fmt: skip


@pytest.mark.torch
@pytest.mark.parametrize("call", REFUSED)
def test_same_errors(call: str) -> None:
    torch = pytest.importorskip("torch")
    found = []
    for T in (flambeau, torch):
        with pytest.raises(Exception) as e:
            eval(call, {"T": T, "__name__": "user"})
        found.append((e.type, str(e.value).split("\n")[0]))
    assert found[0] == found[1]


def test_zero_and_fill() -> None:
    x = flambeau.ones(2, 3)
    assert x.zero_() is x and x.tolist() == [[0, 0, 0], [0, 0, 0]]
    assert x.t().fill_(2).shape == (3, 2) and x.tolist() == [[2, 2, 2], [2, 2, 2]]
    assert flambeau.zero_(x) is x and flambeau.fill_(x, 4.0) is x and x[0, 0].item() == 4
    assert flambeau.fill(x, 1).tolist() == [[1, 1, 1], [1, 1, 1]] and x[0, 0].item() == 4


@pytest.mark.torch
def test_functional_fill() -> None:
    torch = pytest.importorskip("torch")
    for value in (lambda T: 3, lambda T: T.tensor(3.0)):
        results = []
        for T in (flambeau, torch):
            x = T.ones(3, 2, requires_grad=True)
            y = T.fill(x.t(), value(T))
            (y * 2).sum().backward()
            results.append((y.tolist(), y.grad_fn.name(), x.grad.tolist(), y.stride()))
        assert results[0] == results[1]


def test_expanded_tensors_are_filled() -> None:
    x = flambeau.zeros(2, 1)
    x.expand(2, 3).fill_(5)
    assert x.tolist() == [[5], [5]]
    x.expand(2, 3).zero_()
    assert x.tolist() == [[0], [0]]


def test_not_a_number() -> None:
    with pytest.raises(TypeError, match="must be Number, not str"):
        flambeau.ones(2).fill_("a")


def test_changes_are_counted() -> None:
    x = flambeau.ones(3, requires_grad=True)
    for change in (lambda t: t.zero_(), lambda t: t.fill_(1), lambda t: t.uniform_(), lambda t: t[:1].zero_()):
        y = x * 1
        z = y * y
        change(y.detach())
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            z.sum().backward()


def test_a_failing_call_changes_nothing() -> None:
    x = flambeau.ones(3)
    version, state = x._version, flambeau.get_rng_state()
    for change in (lambda: x.uniform_(2, 1), lambda: x.fill_(1j), lambda: x.bernoulli_(2.0), lambda: x.random_(3, 3)):
        with pytest.raises(RuntimeError):
            change()
    assert x.tolist() == [1, 1, 1] and x._version == version and flambeau.get_rng_state().equal(state)


def test_part_of_a_tensor() -> None:
    """A gradient passes where nothing was written."""
    for change in (lambda t: t.zero_(), lambda t: t.fill_(3), lambda t: t.normal_()):
        x = flambeau.ones(4, requires_grad=True)
        y = x * 2
        change(y[1:3])
        y.sum().backward()
        assert x.grad.tolist() == [2, 0, 0, 2]


def test_fill_with_a_tensor() -> None:
    x, v = flambeau.ones(4, requires_grad=True), flambeau.tensor(3.0, dtype=flambeau.float64, requires_grad=True)
    (x.clone().fill_(v) * flambeau.arange(4.0)).sum().backward()
    assert v.grad.item() == 6 and v.grad.dtype is flambeau.float64 and x.grad.tolist() == [0] * 4
    y = flambeau.ones(2, 2)
    y[0].fill_(v)
    y.sum().backward()
    assert v.grad.item() == 8


def test_leaf_under_no_grad() -> None:
    x = flambeau.ones(4, requires_grad=True)
    with flambeau.no_grad():
        x.fill_(2).uniform_().zero_()
    assert x.requires_grad and x.is_leaf and x.tolist() == [0] * 4


def test_diagonals() -> None:
    assert flambeau.zeros(3, 3, 3).fill_diagonal_(2).sum().item() == 6
    tall = np.zeros((9, 3), np.float32)
    np.fill_diagonal(tall, 1, wrap=True)
    np.testing.assert_array_equal(flambeau.zeros(9, 3).fill_diagonal_(1, wrap=True).numpy(), tall)
    assert flambeau.zeros(4, 4).t()[1:].fill_diagonal_(1).tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]]
    x = flambeau.ones(2, 2, requires_grad=True)
    (x * 3).fill_diagonal_(0).sum().backward()
    assert x.grad.tolist() == [[0, 3], [3, 0]]
