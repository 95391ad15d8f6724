"""flambeau.ops.index_batching"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import flambeau as ft
from flambeau.func import grad, vmap

from .test_indexing import keys

B = 3


@st.composite
def batches(draw: Any) -> tuple[tuple[int, ...], list[Any], bool]:
    """(shape, key, whether the tensor is batched): some lists of the key are ("batch", one for each example)."""
    shape, items = draw(keys())
    out = []
    for k in items:
        if isinstance(k, tuple) and k[0] == "list" and draw(st.booleans()):
            roll = [draw(st.integers(0, 2)) for _ in range(B)]
            each = np.stack([np.roll(np.array(k[1]), r) if np.ndim(k[1]) else np.array(k[1]) for r in roll])
            out.append(("batch", each))
        else:
            out.append(k)
    has = draw(st.booleans()) or not any(isinstance(k, tuple) and k[0] == "batch" for k in out)
    return shape, out, has


def spelled(items: list[Any], indices: list[Any]) -> tuple[Any, ...]:
    left = iter(indices)
    return tuple([next(left) if isinstance(k, tuple) and k[0] == "batch" else ft.tensor(k[1]) if isinstance(k, tuple) else k for k in items])


def spread(fn: Any, x: Any, has: bool, indices: list[Any]) -> tuple[Any, Any]:
    """(vmap, a loop)"""
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no rule loops
        got = vmap(fn, in_dims=(0 if has else None, *[0] * len(indices)))(x, *indices)
    return got.numpy(), np.stack([fn(x[b] if has else x, *[i[b] for i in indices]).numpy() for b in range(B)])


@settings(max_examples=300, deadline=None)
@given(batches())
def test_any_key(case: Any) -> None:
    shape, items, has = case
    indices = [ft.tensor(k[1]) for k in items if isinstance(k, tuple) and k[0] == "batch"]
    x = ft.tensor(np.random.default_rng(0).normal(size=(B, *shape) if has else shape))
    read = lambda x, *i: x[spelled(items, list(i))] * 1.0  # noqa: E731
    got, want = spread(read, x, has, indices)
    np.testing.assert_array_equal(got, want)

    def weighed(x: Any, *i: Any) -> Any:
        r = read(x, *i)
        return (r * r * ft.arange(float(r.numel()), dtype=ft.float64).reshape(r.shape)).sum()

    np.testing.assert_allclose(*spread(grad(weighed), x, has, indices), rtol=1e-12, atol=1e-12)
    # written places may repeat: then any of the values is right, so write one value, and add different ones
    y = ft.tensor(np.random.default_rng(1).normal(size=(B, *shape)))

    def write(y: Any, *i: Any) -> Any:
        y = y * 1.0
        y[spelled(items, list(i))] = 5.0
        return y

    np.testing.assert_array_equal(*spread(write, y, True, indices))
    if any(isinstance(k, tuple) for k in items) and all(isinstance(k, tuple) or k == slice(None) for k in items):

        def add(y: Any, *i: Any) -> Any:
            key = spelled(items, list(i))
            v = y[key] * 3.0
            tensors = [None if k == slice(None) else k for k in key] if isinstance(key, tuple) else [key]
            return y.index_put(tensors, v, accumulate=True)

        if all(not isinstance(k, tuple) or np.ndim(k[1]) > (k[0] == "batch") for k in items):
            np.testing.assert_allclose(*spread(add, y, True, indices), rtol=1e-12)


X = np.random.default_rng(2).normal(size=(B, 3, 4))
I = np.array([[2, 0], [1, 1], [0, 2]])

# f(x, i, v) of one example: x (3, 4), i (2,), v (2, 4)
RULES: dict[str, Any] = {
    "index_select": lambda x, i, v: x.index_select(0, i),
    "index_select_inside": lambda x, i, v: x.index_select(-1, i),
    "index_select_number": lambda x, i, v: x.index_select(0, i[0]),
    "index_add": lambda x, i, v: x.index_add(0, i, v, alpha=2),
    "index_add_inside": lambda x, i, v: x.index_add(1, i, v[:, :3].t()),
    "index_copy": lambda x, i, v: x.index_copy(0, i[:1], v[:1]),
    "index_fill": lambda x, i, v: x.index_fill(1, i, 2.0),
    "index_fill_value": lambda x, i, v: x.index_fill(1, i, v[0, 0]),
    "index_reduce": lambda x, i, v: x.index_reduce(0, i, v, "prod"),
    "number_index_add": lambda x, i, v: x[0, 0].index_add(0, i[:1] * 0, v[0, :1]),
    "number_index_copy": lambda x, i, v: x[0, 0].index_copy(0, i[:1] * 0, v[0, 0]),
    "gather": lambda x, i, v: x.gather(0, i[None]),
    "gather_inside": lambda x, i, v: x.gather(1, i[:, None]),
    "gather_number": lambda x, i, v: x[0].gather(0, i[0]),
    "gather_from_number": lambda x, i, v: x[0, 0].gather(0, i * 0),
    "scatter": lambda x, i, v: x.scatter(0, i[None], v[:1]),
    "scatter_number": lambda x, i, v: x.scatter(1, i[:, None], 3.0),
    "scatter_into_number": lambda x, i, v: x[0, 0].scatter(0, i[:1] * 0, v[0, :1]),
    "scatter_add": lambda x, i, v: x.scatter_add(1, i[:, None], v),
    "scatter_reduce": lambda x, i, v: x.scatter_reduce(1, i[:, None], v, "mean", include_self=False),
    "take": lambda x, i, v: x.take(i - 3),
    "put": lambda x, i, v: x.put(i[:1] + 5, v[0, :1]),
    "put_accumulate": lambda x, i, v: x.put(i - 3, v[0, :2], accumulate=True),
    "take_along_dim": lambda x, i, v: x.take_along_dim(i[:, None], 0),
    "take_along_flat": lambda x, i, v: x.take_along_dim(i, None),
    "masked_scatter": lambda x, i, v: x.masked_scatter((i > 0).repeat(2), v.repeat(2, 1)),
    "masked_fill_rows": lambda x, i, v: x.masked_fill((i > 0).repeat(2), v[0, 0]),
    "embedding": lambda x, i, v: ft.nn.functional.embedding(i, x),
    "embedding_matrix": lambda x, i, v: ft.nn.functional.embedding(i.reshape(2, 1), x, padding_idx=1),
    "embedding_frequency": lambda x, i, v: ft.nn.functional.embedding(i, x, padding_idx=0, scale_grad_by_freq=True),
    "embedding_int": lambda x, i, v: ft.nn.functional.embedding(i.int(), x),
    "one_hot": lambda x, i, v: ft.nn.functional.one_hot(i, 4) * x[:2],
    "select_scatter": lambda x, i, v: x.select_scatter(v[0], 0, 1),
    "as_strided_scatter": lambda x, i, v: x.as_strided_scatter(v, (2, 4), (4, 1), 4),
    "uint8_mask": lambda x, i, v: x[ft.tensor([True, False, True])],
}  # fmt: skip


@pytest.mark.parametrize("which", ["xiv", "x", "i", "v", "xi", "iv"])
@pytest.mark.parametrize("name", RULES)
def test_rules(name: str, which: str) -> None:
    """Values and gradients, whichever operands are batched, without a loop."""
    f = RULES[name]
    full = [ft.tensor(X), ft.tensor(I), ft.tensor(X[:, :2] * 0.7)]
    has = [n in which for n in "xiv"]
    args = [t if h else t[0] for t, h in zip(full, has)]
    dims = tuple([0 if h else None for h in has])

    def both(x: Any, i: Any, v: Any) -> Any:
        return (f(x, i, v), *grad(lambda x, v: (f(x, i, v) * f(x, i, v)).sum(), (0, 1))(x, v))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = vmap(both, dims)(*args)
    want = zip(*[both(*[t[b].clone() if h else t for t, h in zip(args, has)]) for b in range(B)])
    for g, w in zip(got, want):
        np.testing.assert_allclose(g.numpy(), np.stack([t.numpy() for t in w]), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", RULES)
def test_nested(name: str) -> None:
    """The index batched by one vmap, the rest by another; both by both."""
    f = RULES[name]
    x, i, v = ft.tensor(X), ft.tensor(I), ft.tensor(X[:, :2] * 0.7)
    got = vmap(lambda i: vmap(lambda x, v: f(x, i, v))(x, v))(i)
    want = ft.stack([ft.stack([f(x[b].clone(), i[a], v[b]) for b in range(B)]) for a in range(B)])
    np.testing.assert_allclose(got.numpy(), want.numpy())
    got = vmap(lambda x, v: vmap(lambda i: f(x, i, v))(i))(x, v)
    np.testing.assert_allclose(got.numpy(), want.numpy().swapaxes(0, 1))
    got = vmap(vmap(f), in_dims=(None, 0, None))(x, ft.stack([i, i.flip(0)]), v)
    want = ft.stack([ft.stack([f(x[b].clone(), j[b], v[b]) for b in range(B)]) for j in (i, i.flip(0))])
    np.testing.assert_allclose(got.numpy(), want.numpy())


@pytest.mark.parametrize("name", RULES)
def test_batched_cotangents(name: str) -> None:
    """Many gradients at once of what was recorded outside vmap."""
    f = RULES[name]
    x, i, v = ft.tensor(X[0], requires_grad=True), ft.tensor(I[0]), ft.tensor(X[0, :2] * 0.7, requires_grad=True)
    y = f(x, i, v)
    gs = ft.tensor(np.random.default_rng(0).normal(size=(B, *y.shape)))
    got = ft.autograd.grad(y, (x, v), gs, is_grads_batched=True, allow_unused=True, retain_graph=True)
    for b in range(B):
        want = ft.autograd.grad(y, (x, v), gs[b], allow_unused=True, retain_graph=True)
        for g, w in zip(got, want):
            assert (g is None) == (w is None)
            if g is not None:
                np.testing.assert_allclose(g[b].numpy(), w.numpy(), rtol=1e-10)


@pytest.mark.parametrize(
    "fn, message",
    [
        (lambda x: x[x > 0], "vmap: We do not support batching operators that can support dynamic shape"),
        (lambda x: x.index_put((x > 0,), x.sum()), "vmap: We do not support batching operators that can support dynamic shape"),
        (lambda x: x.masked_select(x > 0), "vmap: Attempted to vmap over `mask` in torch.masked_select"),
        (lambda x: x.nonzero(), "vmap: We do not support batching operators that can output dynamic shape"),
        (lambda x: ft.where(x > 0)[0], "vmap: We do not support batching operators that can output dynamic shape"),
        (lambda x: ft.nn.functional.one_hot(x.long().abs()), "When vmap-ing torch.nn.functional.one_hot"),
        (lambda x: ft.full((2,), x[0, 0]), r"vmap: It looks like you're calling .item\(\) on a Tensor"),
        (lambda x: ft.full_like(x, x[0, 0]), r"vmap: It looks like you're calling .item\(\) on a Tensor"),
    ],
)  # fmt: skip
def test_refused(fn: Any, message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        vmap(fn)(ft.tensor(X))


@pytest.mark.parametrize(
    "fn, cls",
    [
        (lambda x, i: x[i + 2], IndexError),
        (lambda x, i: x[:, i - 5], IndexError),
        (lambda x, i: x.index_put((i + 2,), x[0]), IndexError),
        (lambda x, i: x.gather(0, i[None] + 2), RuntimeError),
        (lambda x, i: x.index_select(0, i + 2), IndexError),
        (lambda x, i: x.take(i + 11), IndexError),
        (lambda x, i: ft.nn.functional.embedding(i + 2, x), IndexError),
        (lambda x, i: ft.nn.functional.one_hot(i, 2), RuntimeError),
        (lambda x, i: x.masked_scatter(x < 9, i.double()), RuntimeError),
    ],
)  # fmt: skip
def test_one_example_out_of_range(fn: Any, cls: type) -> None:
    """What one example refuses, the batch refuses."""
    with pytest.raises(cls):
        vmap(fn)(ft.tensor(X), ft.tensor(I))


def test_max_norm_of_batched_tables() -> None:
    w = ft.tensor(X * 10)
    w[2] /= 1000
    i = ft.tensor(I)
    want = ft.stack([ft.nn.functional.embedding(i[b], w[b].clone(), max_norm=1.0) for b in range(B)])
    got = vmap(lambda w, i: ft.nn.functional.embedding(i, w, max_norm=1.0))(w, i)
    np.testing.assert_allclose(got.numpy(), want.numpy())
    assert float(w[0, 2].norm()) <= 1.0 < float(w[0, 1].norm())
    shared = ft.tensor(X[0] * 10)
    vmap(lambda i: ft.nn.functional.embedding(i, shared, max_norm=1.0))(i[:2])
    assert (shared.norm(dim=1) <= 1).all()
