"""Softmax and its kin."""

from __future__ import annotations

import numpy as np
import pytest

from .harness import Case, F, OperatorTests, close, tensor


def np_softmax(x, axis=-1):
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def f(name, *args, **options):
    return lambda T, x: getattr(T.nn.functional, name)(x, *args, **options)


HALF = ("float32", "float64", "float16", "bfloat16")
CASES = [
    Case("softmax", f("softmax", -1), [(3, 4)], np_softmax, dtypes=HALF),
    Case("softmax_first", f("softmax", 0), [(3, 4)], lambda x: np_softmax(x, 0)),
    Case("softmax_middle", f("softmax", 1), [(2, 3, 4)], lambda x: np_softmax(x, 1)),
    Case("softmax_0d", f("softmax", 0), [()], layouts=False),
    Case("softmax_empty", f("softmax", 1), [(0, 3)], layouts=False),
    Case("softmax_dtype", lambda T, x: T.softmax(x, 1, dtype=T.float64), [(2, 3)], node=False),
    Case("log_softmax", f("log_softmax", -1), [(3, 4)], lambda x: np.log(np_softmax(x)), dtypes=HALF),
    Case("log_softmax_first", f("log_softmax", 0), [(3, 4)]),
    Case("log_softmax_method", lambda T, x: x.log_softmax(1), [(2, 3, 4)]),
    Case("softmin", f("softmin", 1), [(2, 3)], lambda x: np_softmax(-x)),
]  # fmt: skip


class TestSoftmax(OperatorTests):
    cases = CASES


def test_extremes():
    out = F.softmax(tensor(np.array([[1000.0, 0.0], [-np.inf, 0.0]])), 1)
    close(out._a, np.eye(2), 0)
    assert np.isnan(F.softmax(tensor(np.full(3, -np.inf)), 0)._a).all()


def test_implicit_dimension_warns():
    with pytest.warns(UserWarning, match="Implicit dimension choice for softmax has been deprecated"):
        F.nn.functional.softmax(tensor(np.ones((2, 3))))


def test_gumbel_softmax():
    import flambeau as torch

    torch.manual_seed(0)
    x = tensor(np.zeros((5, 4)), True)
    soft = F.nn.functional.gumbel_softmax(x, tau=0.5)
    close(soft.detach()._a.sum(1), np.ones(5), 1e-12)
    hard = F.nn.functional.gumbel_softmax(x, hard=True)
    assert set(np.unique(hard.detach()._a.round(9))) == {0.0, 1.0}
    hard[:, 0].sum().backward()
    assert x.grad._a.any()


def test_integers_are_refused():
    with pytest.raises(NotImplementedError, match="\"softmax_lastdim_kernel_impl\" not implemented for 'Long'"):
        F.softmax(tensor(np.ones(3, np.int64)), 0)
