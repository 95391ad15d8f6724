"""In-place changes inside vmap: of the whole batch at once, seen by bases and views, with gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import flambeau as ft
from flambeau.func import grad, jvp, vmap
from tests.ops.test_inplace import OPERANDS, A, functions, given, names

B = 3
TOO_SMALL = r"vmap: {}\(self, \*extra_args\) is not possible because there exists a Tensor `other` in extra_args that has more elements"

#: forms that change more than values, or write no values at all
NOT_HERE = {"set_data_", "squeeze_", "unsqueeze_", "transpose_", "swapaxes_", "swapdims_", "t_"}


def stacked(v: Any) -> Any:
    """A batch of an operand, its examples different."""
    if isinstance(v, tuple):
        return tuple(stacked(x) for x in v)
    if not isinstance(v, np.ndarray):
        return v
    return np.stack([v, v * 0.9, v * 1.05]) if v.dtype.kind == "f" else np.stack([v] * B)


def example(v: Any, k: int) -> Any:
    return tuple(example(x, k) for x in v) if isinstance(v, tuple) else v[k] if isinstance(v, np.ndarray) else v


def dims(v: Any) -> Any:
    return tuple(dims(x) for x in v) if isinstance(v, tuple) else 0 if isinstance(v, np.ndarray) else None


@pytest.mark.parametrize("name", [n for n in names() if n not in NOT_HERE])
def test_every_form(name: str) -> None:
    place, plain = functions(name)
    operands = OPERANDS.get(name[:-1], (A,))
    if name == "polygamma_":
        place, plain, operands = (lambda a, n: a.polygamma_(n)), (lambda a, n: a.polygamma(n)), (A, 1)
    batch = tuple(stacked(v) for v in operands)
    want = np.stack([plain(*[given(example(v, k)) for v in batch]).numpy() for k in range(B)])

    def change(*args: Any) -> Any:
        x = args[0].clone()
        whole = x.view(-1)
        assert place(x, *args[1:]) is x
        return x, whole

    x, whole = vmap(change, in_dims=tuple(dims(v) for v in batch))(*[given(v) for v in batch])
    np.testing.assert_allclose(x.numpy().astype(float), want.astype(float), rtol=1e-9)
    np.testing.assert_array_equal(whole.numpy().reshape(want.shape), x.numpy())
    # operands without a batch
    want = np.stack([plain(given(batch[0][k]), *map(given, operands[1:])).numpy() for k in range(B)])
    x = vmap(lambda x: place(x.clone(), *map(given, operands[1:])))(given(batch[0]))
    np.testing.assert_allclose(x.numpy().astype(float), want.astype(float), rtol=1e-9)


X = np.arange(24.0).reshape(B, 2, 4) / 7
V = np.linspace(-1, 1, 12).reshape(B, 4)
I = np.array([1, 0, 1])
J = np.array([[0, 3], [2, 1], [1, 1]])
MASK = X > 1.5

# what is written where: f(x, v, i, j, m) of one example, x (2, 4), v (4,), i a number, j (2,), m (2, 4)
WRITES: dict[str, Any] = {
    "number": lambda x, v, i, j, m: x.__setitem__(0, 5.0),
    "column": lambda x, v, i, j, m: x.__setitem__((..., 1), v[:2]),
    "everything": lambda x, v, i, j, m: x.__setitem__(..., v),
    "window": lambda x, v, i, j, m: x.__setitem__((slice(None), slice(1, None, 2)), v[:2]),
    "at_number": lambda x, v, i, j, m: x.__setitem__(i, v),
    "at_number_a_number": lambda x, v, i, j, m: x.__setitem__(i, -2.0),
    "number_inside": lambda x, v, i, j, m: x.__setitem__((slice(None), i), v[:2]),
    "two_numbers": lambda x, v, i, j, m: x.__setitem__((i, j[0]), v[0]),
    "number_and_list": lambda x, v, i, j, m: x.__setitem__((i, [0, 2]), v[:2]),
    "list_and_number": lambda x, v, i, j, m: x.__setitem__(([0, 1], j[0]), v[:2]),
    "list": lambda x, v, i, j, m: x.__setitem__((slice(None), [3, 0]), v[:2]),
    "vector": lambda x, v, i, j, m: x.__setitem__((0, j), v[0]),
    "vector_inside": lambda x, v, i, j, m: x.__setitem__((slice(None), j), v[1]),
    "int_and_vector": lambda x, v, i, j, m: x.__setitem__((1, j), 3.0),
    "mask_number": lambda x, v, i, j, m: x.__setitem__(m, 9.0),
    "mask_value": lambda x, v, i, j, m: x.__setitem__(m, v[2]),
    "mask_rows": lambda x, v, i, j, m: x.__setitem__(m[:, 2], 1.5),
    "mask_inside": lambda x, v, i, j, m: x.__setitem__((slice(None), m[1]), 1.5),
    "index_put": lambda x, v, i, j, m: x.index_put_((j % 2, j), v[:2], accumulate=True),
    "index_put_number": lambda x, v, i, j, m: x.index_put_((i,), v),
    "masked_fill": lambda x, v, i, j, m: x.masked_fill_(m, 2.0),
    "masked_fill_value": lambda x, v, i, j, m: x.masked_fill_(m, v[0]),
    "scatter": lambda x, v, i, j, m: x.scatter_(1, j[:, None], v[:2, None]),
    "scatter_number": lambda x, v, i, j, m: x.scatter_(1, j[:, None], 4.0),
    "scatter_reduce": lambda x, v, i, j, m: x.scatter_reduce_(1, j[:, None], v[:2, None], "prod"),
    "fill": lambda x, v, i, j, m: x.fill_(3.0),
    "fill_value": lambda x, v, i, j, m: x.fill_(v[1]),
    "fill_view": lambda x, v, i, j, m: x[0].fill_(v[1]),
    "zero": lambda x, v, i, j, m: x.zero_(),
    "zero_view": lambda x, v, i, j, m: x.t()[2].zero_(),
    "copy": lambda x, v, i, j, m: x.copy_(v),
    "copy_view": lambda x, v, i, j, m: x[:, 1].copy_(v[:2]),
    "diagonal": lambda x, v, i, j, m: x.fill_diagonal_(7.0),
    "diagonal_view": lambda x, v, i, j, m: x.diagonal().copy_(v[:2]),
    "multiply_view": lambda x, v, i, j, m: x[1].mul_(v),
    "add_at": lambda x, v, i, j, m: x.__setitem__(i, x[i] + v),
}  # fmt: skip


def run(write: Any, x: Any, v: Any, i: Any, j: Any, m: Any) -> Any:
    y = x * 1.0
    row = y[1]
    write(y, v, i, j, m)
    return y, row


@pytest.mark.parametrize("name", WRITES)
def test_writes(name: str) -> None:
    """Values, what a view of the changed shows, and the gradients of both."""
    write = WRITES[name]
    args = [ft.tensor(a) for a in (X, V, I, J, MASK)]
    y, row = vmap(lambda *a: run(write, *a))(*args)
    loop = [run(write, *[t[k] for t in args]) for k in range(B)]
    np.testing.assert_allclose(y.numpy(), np.stack([a.numpy() for a, _ in loop]))
    np.testing.assert_allclose(row.numpy(), np.stack([b.numpy() for _, b in loop]))

    def total(x: Any, v: Any, i: Any, j: Any, m: Any) -> Any:
        y, row = run(write, x, v, i, j, m)
        return (y * y).sum() + (row * 3).sum()

    of = grad(total, (0, 1))
    for got, want in zip(vmap(of)(*args), zip(*[of(*[t[k] for t in args]) for k in range(B)])):
        np.testing.assert_allclose(got.numpy(), np.stack([w.numpy() for w in want]), rtol=1e-12)
    # forward mode inside
    ones = [ft.ones_like(args[0]), ft.ones_like(args[1])]

    def moved(x: Any, v: Any, i: Any, j: Any, m: Any, tx: Any, tv: Any) -> Any:
        return jvp(lambda x, v: total(x, v, i, j, m), (x, v), (tx, tv))[1]

    got = vmap(moved)(*args, *ones)
    want = ft.stack([moved(*[t[k] for t in (*args, *ones)]) for k in range(B)])
    np.testing.assert_allclose(got.numpy(), want.numpy(), rtol=1e-12)


@pytest.mark.parametrize("name", WRITES)
def test_nested(name: str) -> None:
    """Two vmaps, of which each batches some of the operands."""
    write = WRITES[name]
    x = ft.tensor(np.stack([X, X + 1, X * 2]))
    v, i, j, m = [ft.tensor(a) for a in (V, I, J, MASK)]
    inner = vmap(lambda *a: run(write, *a)[0])
    got = vmap(inner, in_dims=(0, None, None, None, None))(x, v, i, j, m)
    want = ft.stack([ft.stack([run(write, x[a, k], v[k], i[k], j[k], m[k])[0] for k in range(B)]) for a in range(B)])
    np.testing.assert_allclose(got.numpy(), want.numpy())
    got = vmap(lambda x, i, j, m: vmap(lambda x, v: run(write, x, v, i, j, m)[0])(x, v))(x, i, j, m)
    want = ft.stack([ft.stack([run(write, x[a, k], v[k], i[a], j[a], m[a])[0] for k in range(B)]) for a in range(B)])
    np.testing.assert_allclose(got.numpy(), want.numpy())


@pytest.mark.parametrize(
    "name, write",
    [
        ("inplace arithmetic", lambda z, x, i: z.add_(x)),
        ("inplace arithmetic", lambda z, x, i: z.copy_(x)),
        ("inplace arithmetic", lambda z, x, i: z.__setitem__(0, x[0])),
        ("inplace arithmetic", lambda z, x, i: z.masked_fill_(x > 0, 1.0)),
        ("index_put_", lambda z, x, i: z.index_put_((i,), ft.ones(()))),
        ("index_put_", lambda z, x, i: z.__setitem__(i, 1.0)),
        ("fill_", lambda z, x, i: z.fill_(x[0])),
    ],
)  # fmt: skip
def test_refused_without_a_batch(name: str, write: Any) -> None:
    z = ft.zeros(4)
    with pytest.raises(RuntimeError, match=TOO_SMALL.format(name)):
        vmap(lambda x, i: write(z, x, i))(ft.ones(B, 4), ft.tensor(I))
    assert not z.any() and z._version == 0


def test_factories_like_a_batched_tensor_can_be_written() -> None:
    x = ft.tensor(X)
    for make in (
        ft.zeros_like, ft.ones_like, ft.empty_like, lambda x: ft.full_like(x, 2), lambda x: x.new_zeros(2, 4), lambda x: x.new_ones((2, 4)),
        lambda x: x.new_empty(2, 4), lambda x: x.new_full((2, 4), 1.0), lambda x: x.new_empty_strided((2, 4), (1, 2)),
    ):  # fmt: skip
        assert np.array_equal(vmap(lambda x: make(x).copy_(x))(x).numpy(), X)  # noqa: B023
        assert vmap(lambda x: make(x))(x).shape == (B, 2, 4)  # noqa: B023
    zeros = vmap(lambda x: ft.zeros_like(x, dtype=ft.int64))(x)
    assert zeros.dtype is ft.int64 and not zeros.any()


def test_caller_sees_the_change() -> None:
    """A batched tensor is the caller's: what vmap's function writes is in it."""
    x = ft.tensor(X)
    vmap(lambda x: x.fill_(1.0))(x)
    assert (x == 1).all()
    vmap(lambda x: x[0].zero_(), in_dims=1)(x)
    assert not x[0].any() and x[1].all()
