"""Comparisons, logic and bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from .harness import FLOATS, INTS, Case, F, OperatorTests, numpy, tensor

ANY = (*FLOATS, *INTS, "bool")
PAIR: Any = lambda rng: [np.rint(rng.uniform(-2, 2, (2, 3))), np.rint(rng.uniform(-2, 2, (2, 3)))]


def case(name: str, ref: Any, dtypes: Any = ANY, shapes: Any = PAIR) -> Case:
    return Case(name, lambda T, *a: getattr(T, name)(*a), shapes, ref, dtypes=dtypes, grad=False)


ODD: Any = lambda rng: [np.array([1.0, np.nan, np.inf, -np.inf, -0.0])]
CASES = [
    *[case(n, getattr(np, r)) for n, r in (
        ("eq", "equal"), ("ne", "not_equal"), ("lt", "less"), ("le", "less_equal"), ("gt", "greater"), ("ge", "greater_equal"),
        ("logical_and", "logical_and"), ("logical_or", "logical_or"), ("logical_xor", "logical_xor"),
    )],
    *[case(n, getattr(np, n), (*INTS, "bool")) for n in ("bitwise_and", "bitwise_or", "bitwise_xor")],
    case("logical_not", np.logical_not, ANY, [(2, 3)]),
    case("bitwise_not", np.invert, (*INTS, "bool"), [(2, 3)]),
    *[case(n, getattr(np, n), FLOATS, ODD) for n in ("isnan", "isinf", "isfinite", "isposinf", "isneginf", "isreal")],
    case("signbit", np.signbit, FLOATS, lambda rng: [np.array([1.0, -np.inf, -0.0])]),
    Case("isin", lambda T, a, b: T.isin(a, b), lambda rng: [np.arange(6.0).reshape(2, 3), np.array([1.0, 4, 7])], np.isin, grad=False),
    Case("isclose", lambda T, a, b: T.isclose(a, b), [(3,), (3,)], np.isclose, grad=False),
    Case("comparison_with_number", lambda T, a: a > 0.5, [(4,)], lambda a: a > 0.5, dtypes=("float32", "int64"), grad=False),
]  # fmt: skip


class TestCompare(OperatorTests):
    cases = CASES


def test_shifts() -> None:
    t = tensor([1, 2, 3])
    assert numpy(t << 2).tolist() == [4, 8, 12] and numpy(tensor([8]) >> 1).tolist() == [4]
    assert numpy(1 << t).tolist() == [2, 4, 8]


def test_operators() -> None:
    t = tensor([1.0, 2.0, 3.0])
    assert numpy((t > 1) & ~(t > 2)).tolist() == [False, True, False]
    m = t > 1
    m |= t < 2
    assert numpy(m).all()
    assert not (t > 1)._rg


def test_whole_tensors() -> None:
    t = tensor([1.0, 2.0])
    assert F.equal(t, tensor([1.0, 2.0])) is True and F.equal(t, tensor([1.0])) is False
    assert F.allclose(t, t + 1e-9) is True
    assert numpy(F.isin(tensor([1, 2, 3]), tensor([2, 3]))).tolist() == [False, True, True]
    nan = tensor([np.nan])
    assert F.allclose(nan, nan) is False and F.allclose(nan, nan, equal_nan=True) is True


@pytest.mark.parametrize(
    "call, kind, phrase",
    [
        (lambda: tensor([1.0]) & tensor([1.0]), NotImplementedError, "not implemented for 'Double'"),
        (lambda: ~tensor([1.0]), TypeError, "is only implemented on integer and Boolean-type tensors"),
        (lambda: tensor([1j]) < tensor([1j]), NotImplementedError, "not implemented for 'ComplexDouble'"),
        (lambda: F.isclose(tensor([1.0]), tensor([1])), RuntimeError, "Double did not match Long"),
        (lambda: F.is_nonzero(tensor([1.0, 2.0])), RuntimeError, "Boolean value of Tensor with more than one value is ambiguous"),
        (lambda: tensor([1.0]) < "a", TypeError, "not supported between instances"),
    ],
)  # fmt: skip
def test_refusals(call: Any, kind: Any, phrase: str) -> None:
    with pytest.raises(kind) as e:
        call()
    assert phrase in str(e.value)
