"""The exponential and the error function that kernels compute themselves: accuracy and special values."""

import math

import numpy as np
import pytest

from flambeau.kernels import backend
from flambeau.kernels import expr as E
from flambeau.kernels.ufunc import kernel

pytestmark = pytest.mark.skipif(not backend.jit_available(), reason="needs generated code")

x = E.var("x")
SINGLE = np.dtype(np.float32)


def units(got, want):
    """The error in units in the last place."""
    return np.abs(got.astype(np.float64) - want) / np.spacing(np.abs(want).astype(np.float32))


def test_exp():
    values = np.linspace(-104, 88.7, 200_001).astype(np.float32)
    got = kernel(E.exp(x), ("x",), "exp").large(SINGLE)(values)
    assert units(got, np.exp(values.astype(np.float64))).max() < 4


def test_erf():
    values = np.concatenate([np.linspace(-6, 6, 200_001), np.logspace(-38, 0, 1000)]).astype(np.float32)
    got = kernel(E.erf(x), ("x",), "erf").large(SINGLE)(values)
    assert units(got, np.array([math.erf(v) for v in values])).max() < 7
    assert np.abs(got).max() == 1


@pytest.mark.parametrize(("function", "given", "wanted"), [
    (E.exp, [np.nan, np.inf, -np.inf, 0, -0.0, 1e38, -1e38, -103.9], [np.nan, np.inf, 0, 1, 1, np.inf, 0, 1e-45]),
    (E.erf, [np.nan, np.inf, -np.inf, 0, -0.0, 1e38], [np.nan, 1, -1, 0, -0.0, 1]),
])  # fmt: skip
def test_special_values(function, given, wanted):
    got = kernel(function(x), ("x",), "special").large(SINGLE)(np.array(given, np.float32))
    np.testing.assert_array_equal(got, np.array(wanted, np.float32))
    np.testing.assert_array_equal(np.signbit(got[1:]), np.signbit(wanted[1:]))
