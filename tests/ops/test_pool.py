"""Pooling: values, indices, gradients of both orders."""

from __future__ import annotations

import numpy as np
import pytest

from .harness import Case, OperatorTests, close, tensor


def pool(name, *args, **options):
    return lambda T, x: getattr(T.nn.functional, name)(x, *args, **options)


def unpool(rank, *args):
    def run(T, x):
        F = T.nn.functional
        values, indices = getattr(F, f"max_pool{rank}d")(x, *args, return_indices=True)
        return getattr(F, f"max_unpool{rank}d")(values, indices, *args)

    return run


def samples(rank):
    return np.linspace(0.05, 0.95, 2 * 2 * rank).reshape(2, 2, rank)


def fractional(rank):
    def run(T, x, u):
        return getattr(T.nn.functional, f"fractional_max_pool{rank}d")(x, 2, output_size=3, return_indices=True, _random_samples=u)

    return run


def windows2(x):
    return x.reshape(*x.shape[:2], 2, 2, 3, 2).swapaxes(3, 4).reshape(*x.shape[:2], 2, 3, 4)


IMAGE, LINE, VOLUME = [(2, 3, 4, 6)], [(2, 3, 7)], [(1, 2, 4, 4, 3)]
CASES = [
    Case("max_pool2d", pool("max_pool2d", 2), IMAGE, lambda x: windows2(x).max(-1), dtypes=("float32", "float64", "bfloat16", "float16")),
    Case("max_pool2d_indices", pool("max_pool2d", 2, return_indices=True), IMAGE),
    Case("max_pool2d_geometry", pool("max_pool2d", (3, 2), stride=2, padding=1, ceil_mode=True), IMAGE),
    Case("max_pool2d_dilation", pool("max_pool2d", 2, stride=1, dilation=(1, 2)), IMAGE),
    Case("max_pool2d_unbatched", pool("max_pool2d", 2), [(2, 4, 4)]),
    Case("max_pool2d_empty", pool("max_pool2d", 2), [(0, 2, 4, 4)], layouts=False),
    Case("max_pool1d", pool("max_pool1d", 3, 2, 1), LINE, node=False),
    Case("max_pool1d_indices", pool("max_pool1d", 2, return_indices=True), LINE, node=False),
    Case("max_pool3d", pool("max_pool3d", 2, 1), VOLUME),
    Case("max_pool3d_indices", pool("max_pool3d", 2, return_indices=True), VOLUME),
    Case("avg_pool2d", pool("avg_pool2d", 2), IMAGE, lambda x: windows2(x).mean(-1), dtypes=("float32", "float64", "bfloat16")),
    Case("avg_pool2d_geometry", pool("avg_pool2d", 3, 2, 1, True), IMAGE),
    Case("avg_pool2d_inside", pool("avg_pool2d", 3, 2, 1, count_include_pad=False), IMAGE),
    Case("avg_pool2d_divisor", pool("avg_pool2d", 2, divisor_override=3), IMAGE),
    Case("avg_pool2d_unbatched", pool("avg_pool2d", 2), [(2, 4, 4)]),
    Case("avg_pool1d", pool("avg_pool1d", 3, 2, 1), LINE, node=False),
    Case("avg_pool3d", pool("avg_pool3d", 2, 1), VOLUME),
    Case("lp_pool1d", pool("lp_pool1d", 2, 2), LINE, low=0.5),
    Case("lp_pool2d", pool("lp_pool2d", 3.0, 2), IMAGE, low=0.5),
    Case("lp_pool3d", pool("lp_pool3d", 2.0, 2, 1), VOLUME, low=0.5),
    Case("adaptive_avg_pool1d", pool("adaptive_avg_pool1d", 3), LINE, node=False),
    Case("adaptive_avg_pool2d", pool("adaptive_avg_pool2d", (3, 4)), IMAGE),
    Case("adaptive_avg_pool2d_one", pool("adaptive_avg_pool2d", 1), IMAGE, lambda x: x.mean((2, 3), keepdims=True)),
    Case("adaptive_avg_pool2d_none", pool("adaptive_avg_pool2d", (None, 2)), IMAGE),
    Case("adaptive_avg_pool3d", pool("adaptive_avg_pool3d", (2, 3, 2)), VOLUME),
    Case("adaptive_max_pool1d", pool("adaptive_max_pool1d", 3), LINE, node=False),
    Case("adaptive_max_pool2d", pool("adaptive_max_pool2d", (3, 4), return_indices=True), IMAGE),
    Case("adaptive_max_pool3d", pool("adaptive_max_pool3d", 2), VOLUME),
    Case("max_unpool1d", unpool(1, 2), LINE, node=False),
    Case("max_unpool2d", unpool(2, 2), IMAGE),
    Case("max_unpool3d", unpool(3, 2), [(1, 2, 4, 4, 2)]),
]  # fmt: skip


class TestPooling(OperatorTests):
    cases = CASES


@pytest.mark.torch
@pytest.mark.parametrize("rank", [2, 3])
def test_fractional(rank):
    torch = pytest.importorskip("torch")
    import flambeau as fl

    x = np.random.default_rng(0).standard_normal((2, 2, *(7,) * rank)).astype(np.float32)
    u = samples(rank).astype(np.float32)
    want = fractional(rank)(torch, torch.from_numpy(x), torch.from_numpy(u))
    t = tensor(x, True)
    import flambeau.nn.functional

    got = fractional(rank)(fl, t, tensor(u))
    close([g.detach()._a for g in got], [w.numpy() for w in want], 1e-6)
    got[0].sum().backward()
    assert t.grad.sum().item() == got[0].numel()


def test_nan_wins():
    from flambeau.ops.pool import adaptive_max_pool2d, max_pool2d

    x = np.zeros((1, 1, 4, 4), np.float32)
    x[0, 0, 1, 1] = np.nan
    for out in (max_pool2d(tensor(x), 2), adaptive_max_pool2d(tensor(x), 2)):
        assert np.isnan(out._a).sum() == 1


def test_gradient_is_put_back_after_channels_last_layout():
    from flambeau.ops.conv import conv2d
    from flambeau.ops.pool import max_pool2d

    rng = np.random.default_rng(1)
    x, w = tensor(rng.standard_normal((1, 2, 6, 6)), True), tensor(rng.standard_normal((3, 2, 3, 3)))
    y = conv2d(x, w)
    max_pool2d(y, 2).flatten(1)[:, :5].sum().backward()
    assert np.isfinite(x.grad._a).all() and x.grad._a.any()


@pytest.mark.parametrize("call, error, phrase", [
    (pool("max_pool2d", 2, padding=2), RuntimeError, "pad should be at most half of effective kernel size, but got pad=2, kernel_size=2"),
    (pool("max_pool2d", 9), RuntimeError, "Output size is too small"),
    (pool("max_pool2d", 2, stride=0), RuntimeError, "stride should not be zero"),
    (pool("avg_pool2d", 2, divisor_override=0), RuntimeError, "divisor must be not zero"),
    (pool("adaptive_avg_pool2d", (1, 1, 1)), RuntimeError, "adaptive_avg_pool2d: output_size must be 2"),
    (pool("fractional_max_pool2d", 2), ValueError, "fractional_max_pool2d requires specifying either an output_size or an output_ratio"),
])  # fmt: skip
def test_messages(call, error, phrase):
    from .harness import F

    with pytest.raises(error) as e:
        call(F, tensor(np.ones((1, 2, 4, 4), np.float32)))
    assert phrase in str(e.value)
