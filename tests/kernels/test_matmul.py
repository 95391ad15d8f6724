"""Matrix products: oneDNN and NumPy agree, whatever the strides."""

import threading

import ml_dtypes
import numpy as np
import pytest

from flambeau.kernels import matmul as kernels
from flambeau.kernels.onednn import library, primitives


@pytest.fixture(params=["onednn", "numpy"])
def engine(request, monkeypatch):
    if request.param == "numpy":
        monkeypatch.setattr(library, "available", lambda: False)
    elif not library.available():
        pytest.skip("oneDNN is not installed")
    monkeypatch.setattr(kernels, "ONE_MATRIX", 0)
    monkeypatch.setattr(kernels, "BATCH", 0)
    return request.param


def random(*shape, dtype=np.float32, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def close(a, b, tolerance=1e-4):
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def windows(n, k):
    return np.lib.stride_tricks.sliding_window_view(random(n + k - 1), k)


PAIRS = {
    "plain": lambda: (random(5, 6), random(6, 7)),
    "transposed": lambda: (random(6, 5).T, random(7, 6).T),
    "wide rows": lambda: (random(5, 9)[:, :6], random(6, 11)[:, 2:9]),
    "every other": lambda: (random(5, 12)[:, ::2], random(12, 7)[::2]),
    "reversed": lambda: (random(5, 6)[::-1], random(6, 7)[:, ::-1]),
    "row": lambda: (random(1, 6), random(6, 7)),
    "column": lambda: (random(5, 6).T[:, :1].T, random(7, 6).T[:, 3:4]),
    "inner 1": lambda: (random(5, 1), random(1, 7)),
    "all 1": lambda: (random(1, 1), random(1, 1)),
    "batch": lambda: (random(2, 3, 5, 6), random(2, 3, 6, 7)),
    "batch and matrix": lambda: (random(2, 3, 5, 6), random(6, 7)),
    "matrix and batch": lambda: (random(5, 6), random(2, 3, 6, 7)),
    "broadcast": lambda: (random(2, 1, 5, 6), random(3, 6, 7)),
    "broadcast by stride": lambda: (np.broadcast_to(random(5, 6), (4, 5, 6)), random(4, 6, 7)),
    "one matrix for a batch": lambda: (random(2, 3, 5, 6), np.broadcast_to(random(6, 7), (2, 3, 6, 7))),
    "one matrix for a batch that lies otherwise": lambda: (random(4, 6, 5).swapaxes(1, 2), np.broadcast_to(random(6, 7), (4, 6, 7))),
    "one matrix for columns": lambda: (np.broadcast_to(random(5, 6), (4, 5, 6)), random(4, 6, 1)),
    "rows repeated": lambda: (np.broadcast_to(random(6), (5, 6)), random(6, 7)),
    "inner repeated": lambda: (np.broadcast_to(random(5, 1), (5, 6)), random(6, 7)),
    "heads": lambda: (random(2, 5, 3, 6).swapaxes(1, 2), random(2, 7, 3, 6).transpose(0, 2, 3, 1)),
    "batch swapped": lambda: (random(3, 2, 5, 6).swapaxes(0, 1), random(6, 7)),
    "overlapping": lambda: (windows(5, 6), random(6, 7)),
    "no rows": lambda: (random(0, 6), random(6, 7)),
    "no inner": lambda: (random(5, 0), random(0, 7)),
    "no batch": lambda: (random(0, 5, 6), random(6, 7)),
}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("pair", PAIRS)
def test_product(pair, bias, engine):
    a, b = PAIRS[pair]()
    row = random(b.shape[-1], seed=1) if bias else None
    want = np.matmul(a.astype(np.float64), b.astype(np.float64)) + (row if bias else 0)
    y = kernels.matmul(a, b, row)
    assert y.dtype == np.float32
    close(y, want)
    close(kernels.matmul(a, b, row, activation="relu"), np.maximum(want, 0))
    for out in (np.ones(want.shape, np.float32), np.ones(want.shape[::-1], np.float32).T,
                np.ones((*want.shape[:-1], 2 * want.shape[-1]), np.float32)[..., ::2]):
        assert kernels.matmul(a, b, row, out=out) is out
        close(out, want)
        kernels.matmul(a, b, row, out=out, accumulate=True)
        close(out, 2 * want)


def test_relu_keeps_nan(engine):
    a = random(4, 4)
    a[0, 0] = np.nan
    assert np.isnan(kernels.matmul(a, a, activation="relu")[0]).all()


def test_unknown_activation(engine):
    with pytest.raises(NotImplementedError, match="swish"):
        kernels.matmul(random(2, 2), random(2, 2), activation="swish")


def test_products_of_truth_values_are_refused():
    a = np.ones((2, 2), bool)
    with pytest.raises(NotImplementedError, match="not implemented for 'Bool'"):
        kernels.matmul(a, a)


@pytest.mark.parametrize("dtype", [np.float64, np.int64, np.complex64])
def test_other_dtypes(dtype, engine):
    a, b = random(3, 4).astype(dtype), random(4, 5).astype(dtype)
    y = kernels.matmul(a, b)
    assert y.dtype == dtype
    np.testing.assert_array_equal(y, np.matmul(a, b))


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision(dtype, engine):
    a, b, row = random(9, 8, dtype=dtype), random(8, 7, dtype=dtype), random(7, dtype=dtype)
    want = a.astype(np.float64) @ b.astype(np.float64) + row.astype(np.float64)
    y = kernels.matmul(a, b, row)
    assert y.dtype == dtype
    close(y, want, 0.05)
    out = np.ones((9, 7), dtype)
    kernels.matmul(a, b, row, out=out, accumulate=True)
    close(out, want + 1, 0.05)
    assert kernels.matmul(a[:0], b).shape == (0, 7)


def test_shapes_that_do_not_fit(engine):
    with pytest.raises(ValueError):
        kernels.matmul(random(3, 4), random(5, 6))
    with pytest.raises(ValueError):
        kernels.matmul(random(2, 3, 4), random(3, 4, 5))


def test_linear(engine):
    x, w, b = random(2, 3, 4), random(5, 4), random(5)
    close(kernels.linear(x, w, b), x @ w.T + b)
    close(kernels.linear(x[0], w), x[0] @ w.T)
    assert kernels.linear(random(2, 0, 4), w, b).shape == (2, 0, 5)


def test_threads_share_plans(engine):
    pairs = [(random(40, 50, seed=k), random(50, 60, seed=k + 9)) for k in range(4)]
    failures = []

    def work(a, b):
        want = a.astype(np.float64) @ b
        for _ in range(50):
            if not np.allclose(kernels.matmul(a, b), want, atol=1e-3):
                failures.append(1)

    threads = [threading.Thread(target=work, args=pair) for pair in pairs]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failures


@pytest.mark.skipif(not library.available(), reason="oneDNN is not installed")
def test_cache_is_bounded_and_keeps_what_is_used(monkeypatch):
    monkeypatch.setattr(kernels, "ONE_MATRIX", 0)
    monkeypatch.setattr(primitives, "CAPACITY", 4)
    primitives.clear()
    used = random(2, 3), random(3, 4)
    kernels.matmul(*used)
    plan = next(iter(primitives._young.values()))
    for n in range(2, 20):
        kernels.matmul(random(n, 5), random(5, 6))
        kernels.matmul(*used)
        assert len(primitives._young) + len(primitives._old) <= 8
    assert plan in primitives._young.values()
    primitives.clear()
    assert not primitives._young and not primitives._old


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("accumulate", [True, False])
def test_multiplier(accumulate, dtype, engine):
    for b in (random(6, 7, dtype=dtype), random(7, 6, dtype=dtype).T, random(6, 14, dtype=dtype)[:, ::2]):
        times, a = kernels.multiplier(b, 5, accumulate), random(5, 6, dtype=dtype)
        out = np.ones((5, 7), dtype)
        times(a, out)
        close(out, a @ b + accumulate)
