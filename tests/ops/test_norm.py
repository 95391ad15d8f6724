"""Normalisation: values, running statistics, gradients of both orders."""

from __future__ import annotations

import numpy as np
import pytest

from .harness import Case, F, OperatorTests, close, tensor


def f(name, *args, **options):
    return lambda T, x, *ws: getattr(T.nn.functional, name)(x, *args, *ws, **options)


def batch(T, x, w=None, b=None, **options):
    return T.nn.functional.batch_norm(x, None, None, w, b, training=True, **options)


def fixed(T, x, m, v, w=None, b=None):
    return T.nn.functional.batch_norm(x, m.detach(), v.detach(), w, b)


def instance(T, x, w=None, b=None):
    return T.nn.functional.instance_norm(x, weight=w, bias=b)


def np_norm(x, axes, eps=1e-5):
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + eps)


CASES = [
    Case("batch_norm", batch, [(4, 3, 2, 2), (3,), (3,)],
         lambda x, w, b: np_norm(x, (0, 2, 3)) * w[:, None, None] + b[:, None, None], tol=10),
    Case("batch_norm_bare", batch, [(4, 3)], lambda x: np_norm(x, 0), tol=10),
    Case("batch_norm_1d", batch, [(4, 3, 5), (3,), (3,)], tol=10),
    Case("batch_norm_3d", batch, [(2, 3, 2, 2, 2), (3,), (3,)], tol=10),
    Case("batch_norm_half", batch, [(4, 3, 2, 2), (3,), (3,)], dtypes=("bfloat16", "float16"), grad=False, tol=3),
    Case("batch_norm_fixed", lambda T, x, w, b: fixed(T, x, T.ones(3, dtype=x.dtype) * 0.5, T.ones(3, dtype=x.dtype) * 2, w, b),
         [(4, 3, 2, 2), (3,), (3,)], tol=2),
    Case("layer_norm", f("layer_norm", (5,)), [(2, 3, 5), (5,), (5,)], lambda x, w, b: np_norm(x, -1) * w + b, tol=10),
    Case("layer_norm_two", f("layer_norm", (3, 4)), [(2, 3, 4), (3, 4), (3, 4)], tol=10),
    Case("layer_norm_bare", f("layer_norm", (5,)), [(2, 5)], tol=10),
    Case("layer_norm_weight", f("layer_norm", [6]), [(2, 6), (6,)], tol=10),
    Case("group_norm", f("group_norm", 2), [(2, 4, 3, 2), (4,), (4,)], tol=10),
    Case("group_norm_flat", f("group_norm", 2), [(3, 6)], tol=10),
    Case("instance_norm", instance, [(2, 3, 4, 2), (3,), (3,)], node=False, tol=10),
    Case("instance_norm_bare", instance, [(2, 3, 5)], node=False, tol=10),
    Case("rms_norm", f("rms_norm", (5,), eps=1e-5), [(2, 3, 5), (5,)],
         lambda x, w: x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * w, tol=5),
    Case("rms_norm_default_eps", f("rms_norm", (3, 4)), [(2, 3, 4)], tol=5),
    Case("local_response_norm", f("local_response_norm", 3, alpha=0.1), [(2, 5, 3, 2)], tol=5),
    Case("local_response_norm_even", f("local_response_norm", 2, alpha=0.1, k=2.0), [(2, 5, 3)], tol=5),
    Case("normalize", f("normalize"), [(2, 3, 4)], lambda x: x / np.linalg.norm(x, axis=1, keepdims=True), tol=3),
    Case("normalize_1", f("normalize", 1.0, -1), [(2, 3)], tol=3),
    Case("torch_layer_norm", lambda T, x, w: T.layer_norm(x, [4], w), [(2, 4), (4,)], tol=10),
    Case("torch_group_norm", lambda T, x: T.group_norm(x, 2), [(2, 4, 3)], tol=10),
    Case("torch_batch_norm", lambda T, x, w, b: T.batch_norm(x, w, b, None, None, True, 0.1, 1e-5, False), [(4, 3), (3,), (3,)], tol=10),
    Case("native_layer_norm", lambda T, x, w, b: T.native_layer_norm(x, [4], w, b, 1e-5), [(2, 4), (4,), (4,)], grad=False, tol=10),
    Case("native_group_norm", lambda T, x: T.native_group_norm(x, None, None, 2, 4, 3, 2, 1e-5), [(2, 4, 3)], grad=False, tol=10),
]  # fmt: skip


class TestNormalisation(OperatorTests):
    cases = CASES


@pytest.mark.torch
@pytest.mark.parametrize("name", ["batch_norm", "instance_norm"])
def test_running_statistics(name):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    x, m, v = rng.standard_normal((4, 3, 5)), rng.standard_normal(3), rng.uniform(1, 2, 3)
    on = {"batch_norm": {"training": True}, "instance_norm": {"use_input_stats": True}}[name]
    want = [torch.from_numpy(a.copy()) for a in (x, m, v)]
    got = [tensor(a) for a in (x, m, v)]
    a = getattr(torch.nn.functional, name)(*want, momentum=0.3, **on)
    b = getattr(F.nn.functional, name)(*got, momentum=0.3, **on)
    close([b._a, got[1]._a, got[2]._a], [a.numpy(), want[1].numpy(), want[2].numpy()], 1e-10)
    assert got[1]._version == want[1]._version


def test_double_backward_leaves_running_statistics_alone():
    from flambeau.autograd.engine import grad

    rng = np.random.default_rng(0)
    x, m, v = tensor(rng.standard_normal((4, 3)), True), tensor(np.zeros(3)), tensor(np.ones(3))
    y = F.nn.functional.batch_norm(x, m, v, training=True)
    after = m._a.copy()
    (g,) = grad([(y * y * y).sum()], [x], create_graph=True)
    g.sum().backward()
    close(m._a, after, 0)


def test_channels_last_input_stays_channels_last():
    rng = np.random.default_rng(0)
    x = np.moveaxis(rng.standard_normal((8, 6, 6, 16)).astype(np.float32), -1, 1)
    t = tensor(x, True)
    y = F.nn.functional.batch_norm(t, None, None, training=True)
    assert y._a.strides == t._a.strides
    close(y.detach()._a, np_norm(x.astype(np.float64), (0, 2, 3)), 1e-5)


@pytest.mark.parametrize("call, error, phrase", [
    (lambda: batch(F, tensor(np.ones((1, 3)))), ValueError, "Expected more than 1 value per channel when training, got input size torch.Size([1, 3])"),
    (lambda: batch(F, tensor(np.ones((2, 3))), tensor(np.ones(4))), RuntimeError, "weight should contain 3 elements not 4"),
    (lambda: f("layer_norm", (4,))(F, tensor(np.ones((2, 3)))), RuntimeError,
     "Given normalized_shape=[4], expected input with shape [*, 4], but got input of size[2, 3]"),
    (lambda: f("group_norm", 3)(F, tensor(np.ones((2, 4)))), RuntimeError, "Expected number of channels in input to be divisible by num_groups"),
    (lambda: instance(F, tensor(np.ones((2, 3, 1)))), ValueError, "Expected more than 1 spatial element when training"),
    (lambda: F.nn.functional.batch_norm(tensor(np.ones((2, 3))), None, None), RuntimeError, "running_mean must be defined in evaluation mode"),
])  # fmt: skip
def test_messages(call, error, phrase):
    with pytest.raises(error) as e:
        call()
    assert phrase in str(e.value)
