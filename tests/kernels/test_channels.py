"""Kernels of channels-last images, with numbers for each channel, against NumPy in double precision."""

import numpy as np
import pytest

from flambeau.kernels import backend
from flambeau.kernels import expr as E
from flambeau.kernels.channels import ChannelKernel, ChannelSums, along_channels
from flambeau.kernels.threads import get_num_threads, set_num_threads

pytestmark = pytest.mark.skipif(not backend.jit_available(), reason="needs generated code")

SHAPES = [(64, 16, 32, 32), (3, 48, 5, 7), (8, 3, 16, 16), (128, 512), (2, 24, 4, 6, 8), (64, 1, 8, 8), (32, 1000)]
x, y, m, f = map(E.var, "xymf")
KERNEL = ChannelKernel((x - m) * f + y, ("x", "y"), ("m", "f"), "test")
SUMS = ChannelSums([x - m, (x - m) * y], ("x", "y"), ("m",), "test_sums")


def image(shape, dtype, seed):
    made = np.random.default_rng(seed).standard_normal((shape[0], *shape[2:], shape[1])).astype(dtype)
    return np.moveaxis(made, -1, 1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_against_numpy(shape, dtype):
    a, b = image(shape, dtype, 0), image(shape, dtype, 1)
    assert along_channels(a)
    mean, factor = np.random.default_rng(2).standard_normal((2, shape[1])).astype(dtype)
    along = (-1, *(1,) * (len(shape) - 2))
    tolerance = 1e-5 if dtype == np.float32 else 1e-12
    centred = a.astype(np.float64) - mean.reshape(along)
    got = KERNEL([a, b], [mean, factor])
    assert along_channels(got)
    np.testing.assert_allclose(got, centred * factor.reshape(along) + b, rtol=tolerance, atol=tolerance)
    axes = (0, *range(2, a.ndim))
    want = [centred.sum(axes), (centred * b).sum(axes)]
    np.testing.assert_allclose(SUMS([a, b], [mean]), want, rtol=tolerance, atol=tolerance * a.size / shape[1] ** 0.5)


def test_sums_do_not_depend_on_the_number_of_threads():
    a, b = image((64, 16, 32, 32), np.float32, 0), image((64, 16, 32, 32), np.float32, 1)
    many = SUMS([a, b], [np.ones(16, np.float32)])
    before = get_num_threads()
    try:
        set_num_threads(1)
        np.testing.assert_array_equal(SUMS([a, b], [np.ones(16, np.float32)]), many)
    finally:
        set_num_threads(before)


def test_what_it_refuses():
    assert not along_channels(np.zeros((2, 16, 4, 4), np.float32))  # C order
    assert not along_channels(image((1, 3, 3, 3), np.float32, 0))  # no whole vectors
    assert not along_channels(image((2, 16, 4, 4), np.float32, 0).astype(np.int32))
    assert not along_channels(np.zeros((0, 16), np.float32))
