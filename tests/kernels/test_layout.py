"""Images that meet are laid out alike, and pointwise results stay channels-last."""

import numpy as np
import pytest

from flambeau.kernels import backend, layout
from flambeau.kernels import expr as E
from flambeau.kernels.ufunc import kernel


@pytest.fixture
def pair():
    rng = np.random.default_rng(0)
    plain = rng.standard_normal((4, 16, 32, 32)).astype(np.float32)
    last = np.moveaxis(rng.standard_normal((4, 32, 32, 16)).astype(np.float32), -1, 1)
    return plain, last


def test_as_laid(pair):
    plain, last = pair
    got = layout.as_laid(plain, last)
    assert got.strides == last.strides
    np.testing.assert_array_equal(got, plain)
    assert layout.as_laid(last, plain) is last  # C order is not asked for
    repeated = np.broadcast_to(np.arange(16, dtype=np.float32).reshape(16, 1, 1), plain.shape)
    np.testing.assert_array_equal(layout.as_laid(repeated, last), repeated)


def test_batches_of_images(pair):
    plain = pair[0].reshape(4, 1, 16, 32, 32)  # as they are inside vmap
    last = np.moveaxis(np.ones((4, 1, 32, 32, 16), np.float32), -1, 2)
    got, same = layout.agree([plain, last])
    assert same is last and got.strides == last.strides
    np.testing.assert_array_equal(got, plain)
    assert layout.as_laid(last, plain) is last


@pytest.mark.skipif(not backend.jit_available(), reason="needs generated code")
@pytest.mark.parametrize("turn", [1, -1])
def test_pointwise_results_stay_channels_last(pair, turn):
    x, y = E.var("x"), E.var("y")
    a, b = pair[::turn]
    add = kernel(x + y, ("x", "y"), "add").large(np.dtype(np.float32))
    got = add(a, b)
    assert layout.channels_last(got)
    np.testing.assert_array_equal(got, a + b)
    scalars = np.ones((4, 16, 1, 1), np.float32)
    got = add(np.broadcast_to(scalars, a.shape), pair[1])
    assert layout.channels_last(got)
    np.testing.assert_array_equal(got, pair[1] + 1)
