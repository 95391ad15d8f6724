"""Running folds, differences, integrals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from .harness import FLOATS, Case, F, OperatorTests, check_gradient, numpy, tensor

SHAPE = [(3, 4)]
CASES = [
    Case("cumsum", lambda T, a: T.cumsum(a, 1), SHAPE, lambda a: a.cumsum(1), dtypes=(*FLOATS, "int64", "int32", "bool", "complex64"), tol=2),
    Case("cumsum0", lambda T, a: a.cumsum(0), SHAPE, lambda a: a.cumsum(0)),
    Case("cumprod", lambda T, a: T.cumprod(a, 1), SHAPE, lambda a: a.cumprod(1), dtypes=(*FLOATS, "int64", "complex64"), low=0.5, tol=2),
    Case("logcumsumexp", lambda T, a: T.logcumsumexp(a, 1), SHAPE, lambda a: np.log(np.exp(a).cumsum(1)), dtypes=FLOATS, tol=2),
    Case("cummax", lambda T, a: T.cummax(a, 1), SHAPE, dtypes=(*FLOATS, "int64"), node=False),
    Case("cummin", lambda T, a: T.cummin(a, 0), SHAPE, dtypes=(*FLOATS, "int64"), node=False),
    Case("diff", lambda T, a: T.diff(a), SHAPE, np.diff, dtypes=(*FLOATS, "int64")),
    Case("diff2", lambda T, a: T.diff(a, 2, 0), SHAPE, lambda a: np.diff(a, 2, 0)),
    Case("trapezoid", lambda T, a: T.trapezoid(a, dx=0.5), SHAPE, lambda a: np.trapezoid(a, dx=0.5), node=False),
    Case("trapezoid_x", lambda T, a, x: T.trapezoid(a, x), [(3, 4), (4,)], lambda a, x: np.trapezoid(a, x), node=False),
    Case("cumulative_trapezoid", lambda T, a: T.cumulative_trapezoid(a, dim=0), SHAPE, node=False),
]

CASES += [
    Case("node cummax", lambda T, a: (T.cummax(a, 1)[0], T.cummin(a, 1)[0]), SHAPE),
    Case("cumsum_dtype", lambda T, a: T.cumsum(a, 0, dtype=T.float64), SHAPE, dtypes=("float32", "int32"), node=False),
    Case("cumprod0", lambda T, a: a.cumprod(0), [(4,)]),
    Case("cumprod_zeros", lambda T, a: T.cumprod(a, 1), lambda rng: [np.array([[2.0, 0, 3, 4], [1, 0, 2, 0], [0, 2, 3, 0], [1, 2, 3, 4]])]),
    Case("logcumsumexp_wide", lambda T, a: T.logcumsumexp(a, 0), [(5,)], low=-40, high=40),
    Case("diff_ends", lambda T, a, b: T.diff(a, prepend=b, append=b), [(2, 3), (2, 1)], node=False),
    Case("trapezoid_rows", lambda T, a, x: T.trapezoid(a, x, dim=0), [(3, 2), (3, 2)], node=False),
    Case("trapz", lambda T, a: T.trapz(a), SHAPE, lambda a: np.trapezoid(a), node=False, dtypes=("float32", "int64")),
    Case("cumulative_trapezoid_x", lambda T, a, x: T.cumulative_trapezoid(a, x), [(3, 4), (4,)], node=False),
    Case("gradient", lambda T, a: T.gradient(a), SHAPE, lambda a: tuple(np.gradient(a)), node=False, dtypes=("float32", "int64")),
    Case("gradient_edges", lambda T, a: T.gradient(a, spacing=2.0, dim=1, edge_order=2), SHAPE,
         lambda a: np.gradient(a, 2.0, axis=1, edge_order=2), node=False),
    Case("gradient_places", lambda T, a, x: T.gradient(a, spacing=(x.cumsum(0),), dim=1, edge_order=2)[0],
         lambda rng: [rng.uniform(-1, 1, (2, 5)), rng.uniform(0.5, 1.5, 5)], lambda a, x: np.gradient(a, x.cumsum(), axis=1, edge_order=2),
         node=False, layouts=False, dtypes=("float64",)),
]  # fmt: skip


class TestScans(OperatorTests):
    cases = CASES


def test_cumprod_with_zeros() -> None:
    for a in ([0.0, 2, 3], [1.0, 0, 3, 0], [2.0, 3, 0]):
        check_gradient(lambda t: F.cumprod(t, 0), [np.array(a)])


def test_running_extremes() -> None:
    """Of equal ones the last place; once nan, always nan."""
    r = F.cummax(tensor([1.0, 3.0, 3.0, np.nan, 5.0]), 0)
    np.testing.assert_array_equal(numpy(r.values), [1, 3, 3, np.nan, np.nan])
    assert numpy(r.indices).tolist() == [0, 1, 2, 3, 3]


def test_edges() -> None:
    assert float(numpy(F.cumsum(tensor(np.array(3.0)), 0))) == 3
    assert F.cumsum(tensor(np.zeros((0, 2))), 0)._a.shape == (0, 2)
    assert numpy(F.logcumsumexp(tensor([-np.inf, 0.0, 1000.0]), 0)).tolist() == [-np.inf, 0, 1000]
    ends: Any = F.diff(tensor([1.0, 4.0]), prepend=tensor([0.0]))
    assert numpy(ends).tolist() == [1, 3]
    with pytest.raises(IndexError, match="Dimension out of range"):
        F.cumsum(tensor([1.0]), 3)
    with pytest.raises(RuntimeError, match="diff expects input to be at least one-dimensional"):
        F.diff(tensor(np.array(1.0)))


def test_in_place() -> None:
    t = tensor([1, 2, 3])
    assert t.cumsum_(0) is t and t._a.tolist() == [1, 3, 6]
    x = tensor(np.array([1.0, 2.0, 0.0]), True)
    y = x * 1
    y.cumprod_(0)
    assert y._grad_fn.name() == "CumprodBackward0"
    with pytest.raises(RuntimeError, match="Bad in-place call: input tensor dtype long int and output tensor dtype float should match"):
        t.cumsum_(0, dtype=F.float32)
    assert t._a.tolist() == [1, 3, 6]
