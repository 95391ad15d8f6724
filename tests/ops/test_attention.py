"""Scaled dot-product attention: values, masks, gradients of both orders, layouts."""

from __future__ import annotations

import numpy as np
import pytest

from .harness import Case, F, OperatorTests, close, tensor


def f(**options):
    return lambda T, q, k, v, *mask: T.nn.functional.scaled_dot_product_attention(q, k, v, *mask, **options)


def np_attention(q, k, v, mask=None):
    s = q @ np.swapaxes(k, -1, -2) / np.sqrt(q.shape[-1])
    if mask is not None:
        s = s + mask
    p = np.exp(s - s.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True) @ v


def lower(rows, columns):
    return np.where(np.tri(rows, columns, dtype=bool), 0, -np.inf)


def with_bools(*shape, dead=False):
    def make(rng):
        mask = rng.uniform(size=shape) > 0.4
        mask[..., 0] = True
        if dead:
            mask[..., 1, :] = False
        return [rng.standard_normal((2, 2, 3, 4)), rng.standard_normal((2, 2, 5, 4)), rng.standard_normal((2, 2, 5, 6)), mask]

    return make


FOUR = [(2, 2, 3, 4), (2, 2, 5, 4), (2, 2, 5, 6)]
SQUARE = [(2, 2, 4, 3)] * 3
CASES = [
    Case("plain", f(), SQUARE, np_attention, tol=3),
    Case("values_of_another_size", f(), FOUR, np_attention, node=False, tol=3),
    Case("causal", f(is_causal=True), SQUARE, lambda q, k, v: np_attention(q, k, v, lower(4, 4)), tol=3),
    Case("causal_oblong", f(is_causal=True), FOUR, node=False, tol=3),
    Case("scale", f(scale=0.3), SQUARE, tol=3),
    Case("half", f(), SQUARE, dtypes=("bfloat16", "float16"), grad=False, tol=3),
    Case("three_dimensions", f(), [(2, 3, 4), (2, 5, 4), (2, 5, 4)], np_attention, node=False, tol=3),
    Case("two_dimensions", f(), [(3, 4), (5, 4), (5, 2)], np_attention, node=False, tol=3),
    Case("float_mask", f(), [*FOUR, (3, 5)], np_attention, node=False, tol=3),
    Case("float_mask_of_each_head", f(), [*FOUR, (1, 2, 3, 5)], np_attention, node=False, tol=3),
    Case("bool_mask", f(), with_bools(3, 5), node=False, tol=3),
    Case("bool_mask_of_each_batch", f(), with_bools(2, 1, 3, 5), node=False, tol=3),
    Case("bool_mask_that_hides_all", f(), with_bools(3, 5, dead=True), node=False, tol=3),
    Case("grouped", f(enable_gqa=True), [(1, 4, 3, 2), (1, 2, 3, 2), (1, 2, 3, 2)], node=False, tol=3),
    Case("broadcast_batch", f(), [(2, 2, 3, 4), (1, 2, 5, 4), (1, 2, 5, 4)], node=False, tol=3),
]  # fmt: skip


class TestAttention(OperatorTests):
    cases = CASES


def heads(rows=200):
    """Heads as a GPT makes them: views of one product, transposed; rows enough for several blocks."""
    rng = np.random.default_rng(0)
    x = tensor(rng.standard_normal((2, rows, 3 * 4 * 16)).astype(np.float32), True)
    q, k, v = (t.reshape(2, rows, 4, 16).transpose(1, 2) for t in x.chunk(3, -1))
    return x, q, k, v


def test_heads_are_merged_without_a_copy():
    _, q, k, v = heads()
    y = F.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    assert y.transpose(1, 2).is_contiguous()
    close(y.detach()._a, np_attention(*(t.detach()._a.astype(np.float64) for t in (q, k, v)), lower(200, 200)), 1e-5)


def test_large_gradient_agrees_with_the_composite():
    from flambeau.ops.attention import _mixed

    x, q, k, v = heads()
    y = F.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    (y * y).sum().backward()
    other, q, k, v = heads()
    y = _mixed(q, k, v, None, True, 0.25, 0.0)
    (y * y).sum().backward()
    close(x.grad._a, other.grad._a, 1e-4)


@pytest.mark.parametrize("wanted", [0, 1, 2])
def test_gradients_one_at_a_time(wanted):
    _, *both = heads(130)
    one = [t.detach().requires_grad_(i == wanted) for i, t in enumerate(both)]
    every = [t.detach().requires_grad_(True) for t in both]
    for ts in (one, every):
        y = F.nn.functional.scaled_dot_product_attention(*ts, is_causal=True)
        (y * y).sum().backward()
    close(one[wanted].grad._a, every[wanted].grad._a, 1e-6)
    assert all(t.grad is None for i, t in enumerate(one) if i != wanted)


def test_dropout():
    import flambeau as torch

    torch.manual_seed(0)
    _, q, k, v = heads()
    one = F.nn.functional.scaled_dot_product_attention(q, k, v, dropout_p=0.5)
    none = F.nn.functional.scaled_dot_product_attention(q, k, v, dropout_p=0.0)
    assert not np.allclose(one.detach()._a, none.detach()._a)
    one.sum().backward()


@pytest.mark.parametrize("shapes, options, phrase", [
    (((2, 4, 8), (2, 4, 7), (2, 4, 8)), {}, "Expected size for first two dimensions of batch2 tensor to be: [2, 8] but got: [2, 7]."),
    (((8,), (2, 4, 8), (2, 4, 8)), {}, "Expected query, key, and value to all be  at least 2 dimensional"),
    (((2, 4, 8), (2, 4, 8), (2, 4, 8)), {"attn_mask": tensor(np.zeros((4, 3)))}, "The size of tensor a (4) must match the size of tensor b (3)"),
    (((2, 4, 8), (2, 4, 8), (2, 4, 8)), {"attn_mask": tensor(np.zeros((4, 4))), "is_causal": True}, "Explicit attn_mask should not be set"),
    (((2, 4, 8), (2, 4, 8), (2, 4, 8)), {"dropout_p": 2.0}, "dropout probability has to be between 0 and 1, but got 2"),
])  # fmt: skip
def test_messages(shapes, options, phrase):
    with pytest.raises(RuntimeError) as e:
        F.nn.functional.scaled_dot_product_attention(*[tensor(np.ones(s)) for s in shapes], **options)
    assert phrase in str(e.value)
