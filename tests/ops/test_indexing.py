"""flambeau.ops.indexing"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import flambeau as ft

from .harness import Case, F, OperatorTests

ANY = ("float32", "float64", "int64", "bool", "bfloat16", "complex64")


def data(*shapes: Any, **indices: Any) -> Any:
    """Floating arrays of the shapes, then index arrays: (shape, bound) each."""
    return lambda r: [
        *[r.permutation(int(np.prod(s))).reshape(s) * 0.37 + 0.5 + 0.1 * k for k, s in enumerate(shapes)],
        *[r.integers(0, n, s) for s, n in indices.values()],
    ]


def mask(shape: tuple[int, ...], *more: tuple[int, ...]) -> Any:
    return lambda r: [*[r.normal(size=s) for s in (shape, *more)], r.random(shape) > 0.4]


def along(x: np.ndarray, dim: int, i: np.ndarray, src: Any, op: Any) -> np.ndarray:
    """Scatter, one element after the other."""
    out = x.copy()
    for place in np.ndindex(i.shape):
        to = list(place)
        to[dim] = i[place]
        v = src if np.isscalar(src) else src[place]
        out[tuple(to)] = op(out[tuple(to)], v)
    return out


def rows(x: np.ndarray, dim: int, i: np.ndarray, src: np.ndarray, op: Any) -> np.ndarray:
    out = np.moveaxis(x.copy(), dim, 0)
    for k, place in enumerate(i):
        out[place] = op(out[place], np.moveaxis(src, dim, 0)[k])
    return np.moveaxis(out, 0, dim)


NEW, ADD, MUL = (lambda old, v: v), (lambda old, v: old + v), (lambda old, v: old * v)
X, I = (3, 4, 2), ((2, 4, 2), 3)
M = (2, 3, 4)

CASES = [
    Case("int", lambda T, x: x[1], [M], lambda x: x[1], ANY),
    Case("negative", lambda T, x: x[-1, ..., -2], [M], lambda x: x[-1, ..., -2], ANY, node=False),
    Case("slice", lambda T, x: x[:, 1:], [M], lambda x: x[:, 1:], ANY),
    Case("step", lambda T, x: x[..., 1::2], [M], lambda x: x[..., 1::2]),
    Case("none", lambda T, x: x[:, None], [M], lambda x: x[:, None]),
    Case("everything", lambda T, x: x[...], [M], lambda x: x),
    Case("list", lambda T, x: x[[1, 0, 1]], [M], lambda x: x[[1, 0, 1]], ANY),
    Case("list_second", lambda T, x: x[:, [2, 0]], [M], lambda x: x[:, [2, 0]]),
    Case("two_lists", lambda T, x: x[[0, 1, 1], :, [3, 0, 0]], [M], lambda x: x[[0, 1, 1], :, [3, 0, 0]]),
    Case("adjacent", lambda T, x: x[:, [[0], [2]], [1, 3]], [M], lambda x: x[:, [[0], [2]], [1, 3]]),
    Case("int_and_list", lambda T, x: x[1, :, [0, 2]], [M], lambda x: x[1][:, [0, 2]]),
    Case("tensor_index", lambda T, x, i: x[i], data(X, i=((5,), 3)), lambda x, i: x[i], ANY),
    Case("matrix_index", lambda T, x, i: x[i], data(X, i=((2, 5), 3)), lambda x, i: x[i]),
    Case("matrix_index_inside", lambda T, x, i: x[:, i], data(X, i=((2, 5), 4)), lambda x, i: x[:, i]),
    Case("negative_index", lambda T, x, i: x[i - 3], data(X, i=((5,), 3)), lambda x, i: x[i - 3]),
    Case("mask", lambda T, x, m: x[m], mask(M), lambda x, m: x[m], ANY),
    Case("mask_rows", lambda T, x, y, m: x[m], lambda r: [r.normal(size=(4, 2)), r.normal(size=1), np.array([True, False, True, True])],
         lambda x, y, m: x[m]),
    Case("mask_and_list", lambda T, x, m: x[m, [1]], lambda r: [r.normal(size=(3, 4)), np.array([True, False, True])],
         lambda x, m: x[m, [1]]),
    Case("many_rows", lambda T, x, i: x[i], data((3, 2), i=((50,), 3)), lambda x, i: x[i]),
    Case("many_elements", lambda T, x, i: x[i], data((3,), i=((50,), 3)), lambda x, i: x[i]),
    Case("index_select", lambda T, x, i: T.index_select(x, 1, i), data(X, i=((5,), 4)), lambda x, i: x[:, i], ANY),
    Case("gather", lambda T, x, i: T.gather(x, 0, i), data(X, i=((2, 3, 2), 3)), lambda x, i: np.take_along_axis(x[:, :3], i, 0), ANY),
    Case("gather_last", lambda T, x, i: T.gather(x, -1, i), data(X, i=((3, 4, 5), 2)), lambda x, i: np.take_along_axis(x, i, -1)),
    Case("scatter", lambda T, x, s, i: T.scatter(x, 0, i * 0 + T.arange(2).view(2, 1, 1), s), data(X, (3, 4, 2), i=I),
         lambda x, s, i: along(x, 0, i * 0 + np.arange(2)[:, None, None], s, NEW)),
    Case("scatter_number", lambda T, x, i: T.scatter(x, 1, i, 2.5), data(X, i=((3, 2, 2), 4)), lambda x, i: along(x, 1, i, 2.5, NEW)),
    Case("scatter_add", lambda T, x, s, i: T.scatter_add(x, 0, i, s), data(X, (3, 4, 2), i=I), lambda x, s, i: along(x, 0, i, s, ADD)),
    Case("scatter_multiply", lambda T, x, s, i: T.scatter(x, 0, i, s, reduce="multiply"), data(X, X, i=I),
         lambda x, s, i: along(x, 0, i, s, MUL), grad=False),
    *[Case(f"scatter_reduce_{how}_{inc}", lambda T, x, s, i, how=how, inc=inc: T.scatter_reduce(x, 0, i, s, how, include_self=inc),
           data(X, X, i=((3, 4, 2), 3)), tol=10) for how in ("sum", "prod", "mean", "amax", "amin") for inc in (True, False)],
    Case("index_add", lambda T, x, s, i: T.index_add(x, 1, i, s, alpha=2), data(X, (3, 5, 2), i=((5,), 4)),
         lambda x, s, i: rows(x, 1, i, s, lambda old, v: old + 2 * v)),
    Case("index_copy", lambda T, x, s: T.index_copy(x, 1, T.tensor([2, 0]), s), [X, (3, 2, 2)],
         lambda x, s: rows(x, 1, np.array([2, 0]), s, NEW)),
    Case("index_fill", lambda T, x: T.index_fill(x, 1, T.tensor([2, 0]), 1.5), [X],
         lambda x: rows(x, 1, np.array([2, 0]), np.full((3, 2, 2), 1.5), NEW)),
    Case("index_fill_tensor", lambda T, x, v: T.index_fill(x, 1, T.tensor([2, 0]), v), [X, ()],
         lambda x, v: rows(x, 1, np.array([2, 0]), np.full((3, 2, 2), v), NEW)),
    *[Case(f"index_reduce_{how}", lambda T, x, s, i, how=how: T.index_reduce(x, 1, i, s, how), data(X, (3, 5, 2), i=((5,), 4)),
           node=False, tol=10) for how in ("prod", "mean", "amax", "amin")],
    Case("index_put", lambda T, x, v: T.index_put(x, (T.tensor([0, 2]), T.tensor([1, 1])), v), [(3, 4), (2,)],
         lambda x, v: put(x, ([0, 2], [1, 1]), v)),
    Case("index_put_accumulate", lambda T, x, v, i: T.index_put(x, (i,), v, accumulate=True), data((3, 2), (5, 2), i=((5,), 3)),
         lambda x, v, i: rows(x, 0, i, v, ADD)),
    Case("masked_fill", lambda T, x, m: T.masked_fill(x, m, 2.0), mask(M), lambda x, m: np.where(m, 2.0, x)),
    Case("masked_fill_tensor", lambda T, x, v, m: T.masked_fill(x, m, v), mask(M, ()), lambda x, v, m: np.where(m, v, x)),
    Case("masked_fill_broadcast", lambda T, x, m: T.masked_fill(x[:, :1], m, 2.0), mask(M), lambda x, m: np.where(m, 2.0, x[:, :1])),
    Case("masked_select", lambda T, x, m: T.masked_select(x, m), mask(M), lambda x, m: x[m]),
    Case("masked_scatter", lambda T, x, s, m: T.masked_scatter(x, m, s), mask(M, (5, 6)),
         lambda x, s, m: put(x, m, s.ravel()[: m.sum()])),
    Case("take", lambda T, x, i: T.take(x, i - 3), data(X, i=((2, 5), 20)), lambda x, i: np.take(x, i - 3)),
    Case("put", lambda T, x, s: x.put(T.tensor([3, -1]), s), [X, (2,)],
         lambda x, s: put(x.ravel(), [3, -1], s).reshape(x.shape)),
    Case("put_accumulate", lambda T, x, s, i: x.put(i, s, accumulate=True), data(X, (6,), i=((6,), 24)),
         lambda x, s, i: along(x.ravel(), 0, i, s, ADD).reshape(x.shape)),
    Case("where", lambda T, x, y, m: T.where(m, x, y[0]), mask(M, M), lambda x, y, m: np.where(m, x, y[0]), ("float32", "float64")),
    Case("where_number", lambda T, x, m: T.where(m, x, 2.0), mask(M), lambda x, m: np.where(m, x, 2.0), node=False),
    Case("where_numbers", lambda T, m: T.where(m, 1, 0), lambda r: [r.random((2, 3)) > 0.5], lambda m: m.astype(int), grad=False,
         layouts=False),
    Case("nonzero", lambda T, x: T.nonzero(x > 0), [M], lambda x: np.argwhere(x > 0), grad=False),
    Case("nonzero_tuple", lambda T, x: T.nonzero(x > 0, as_tuple=True), [M], lambda x: (x > 0).nonzero(), grad=False),
    Case("argwhere", lambda T, x: T.argwhere(x > 0), [M], lambda x: np.argwhere(x > 0), grad=False),
    Case("select_scatter", lambda T, x, s: T.select_scatter(x, s, 1, -1), [M, (2, 4)], lambda x, s: put(x, np.s_[:, -1], s)),
    Case("slice_scatter", lambda T, x, s: T.slice_scatter(x, s, 2, 1, None, 2), [M, (2, 3, 2)], lambda x, s: put(x, np.s_[..., 1::2], s)),
    Case("diagonal_scatter", lambda T, x, s: T.diagonal_scatter(x, s, 1, 1, 2), [M, (2, 3)],
         lambda x, s: put(x, np.s_[:, [0, 1, 2], [1, 2, 3]], s)),
    Case("as_strided_scatter", lambda T, x, s: T.as_strided_scatter(x, s, (2, 2), (4, 1), 1), [(3, 4), (2, 2)],
         lambda x, s: put(x, np.s_[:2, 1:3], s), layouts=False),
    Case("embedding", lambda T, w, i: T.nn.functional.embedding(i, w), data((4, 3), i=((2, 3), 4)), lambda w, i: w[i]),
    Case("embedding_padding", lambda T, w, i: T.nn.functional.embedding(i, w, padding_idx=-2), data((4, 3), i=((2, 30), 4)),
         lambda w, i: w[i], grad=False),
    Case("one_hot", lambda T, i: T.nn.functional.one_hot(i, 5), lambda r: [r.integers(0, 5, (2, 3))], lambda i: np.eye(5, dtype=int)[i],
         grad=False, layouts=False),
]  # fmt: skip


def put(x: np.ndarray, key: Any, v: Any) -> np.ndarray:
    out = x.copy()
    out[key] = v
    return out


class TestIndexing(OperatorTests):
    cases = CASES


# ---- any key ----------------------------------------------------------------------------------------------------------------
def slices(n: int) -> Any:
    bound = st.one_of(st.none(), st.integers(-n - 1, n + 1))
    return st.builds(slice, bound, bound, st.one_of(st.none(), st.integers(1, 3)))


@st.composite
def keys(draw: Any, advanced: bool = True) -> tuple[tuple[int, ...], list[Any]]:
    """(shape, key): each item an int, a slice, None, "...", ("list", ...) or ("mask", ...)."""
    shape = tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=4)))
    many = draw(st.integers(1, 3))  # index lists of one key have one length
    items: list[Any] = []
    dim, dots = 0, False
    while dim < len(shape) and draw(st.booleans()) | (dim == 0):
        n = shape[dim]
        kinds = ["int", "slice", "none"] + (["list", "mask", "zero_d", "matrix"] if advanced else []) + ([] if dots else ["..."])
        kind = draw(st.sampled_from(kinds))
        if kind == "none":
            items.append(None)
            if len(items) > 6:
                break
            continue
        if kind == "...":
            items.append(...)
            dots = True
            skip = draw(st.integers(0, len(shape) - dim))
            if skip == len(shape) - dim:
                break
            # what follows the dots counts from the end: only safe with the dims that are left
            rest = len(shape) - dim - skip
            items += [draw(slices(shape[dim + skip + k])) for k in range(rest)]
            break
        if kind == "int":
            items.append(draw(st.integers(-n, n - 1)))
        elif kind == "slice":
            items.append(draw(slices(n)))
        elif kind == "list":
            items.append(("list", [draw(st.integers(-n, n - 1)) for _ in range(many)]))
        elif kind == "matrix":
            items.append(("list", [[draw(st.integers(-n, n - 1)) for _ in range(many)] for _ in range(2)]))
        elif kind == "zero_d":
            items.append(("list", draw(st.integers(-n, n - 1))))
        else:
            bits = draw(st.lists(st.booleans(), min_size=n, max_size=n))
            true = [i for i, b in enumerate(bits) if b][:many]
            if len(true) not in (1, many):
                continue
            items.append(("mask", [i in true for i in range(n)]))
        dim += 1
    return shape, items


def spelled(items: list[Any], tensor: Any) -> tuple[Any, ...]:
    return tuple([tensor(i[1]) if isinstance(i, tuple) else i for i in items])


@settings(max_examples=200, deadline=None)
@given(keys(advanced=False))
def test_basic_keys_are_numpys(case: Any) -> None:
    shape, items = case
    a = np.arange(float(np.prod(shape))).reshape(shape)
    x = ft.tensor(a)
    key = tuple(items)
    got = x[key]
    assert np.array_equal(got.numpy(), a[key])
    got += 100.0  # a view
    a[key] += 100.0
    assert np.array_equal(x.numpy(), a)
    x[key] = -1.0
    a[key] = -1.0
    assert np.array_equal(x.numpy(), a)


@settings(max_examples=200, deadline=None)
@given(keys())
def test_lists_without_ints_are_numpys(case: Any) -> None:
    shape, items = case
    items = [slice(None) if isinstance(i, int) or isinstance(i, tuple) and isinstance(i[1], int) else i for i in items]
    a = np.arange(float(np.prod(shape))).reshape(shape)
    key = spelled(items, np.array)
    x = ft.tensor(a)
    assert np.array_equal(x[spelled(items, ft.tensor)].numpy(), a[key])
    x[spelled(items, ft.tensor)] = 7.0
    a[key] = 7.0
    assert np.array_equal(x.numpy(), a)


@pytest.mark.torch
@settings(max_examples=300, deadline=None)
@given(keys(), st.booleans())
def test_any_key_is_torchs(case: Any, grad: bool) -> None:
    torch = pytest.importorskip("torch")
    shape, items = case
    a = np.arange(float(np.prod(shape))).reshape(shape)

    def run(T: Any) -> Any:
        x = T.tensor(a.copy(), requires_grad=grad)
        y = x * 2.0
        key = spelled(items, T.tensor)
        got = y[key]
        out = [got.detach().numpy().copy(), tuple(got.shape)]
        v = T.arange(got.numel(), dtype=T.float64).reshape(got.shape)
        if grad:
            (got * v).sum().backward()
            out.append(x.grad.numpy().copy())
        # written places may repeat: then any of the values is right, so write one value
        value = T.tensor(5.0, dtype=T.float64, requires_grad=grad)
        y = x * 2.0
        y[key] = value
        out.append(y.detach().numpy().copy())
        if grad:
            (y * y).sum().backward()
            out += [x.grad.numpy().copy(), None if value.grad is None else value.grad.numpy().copy()]
        return out

    for got, want in zip(run(ft), run(torch), strict=True):
        np.testing.assert_array_equal(got, want)


FORMS = [
    0, -1, (1, 2), (slice(None), 1), True, False, [0, 1], [[0, 1], [1, 2]], range(2), np.array([0]), np.int64(1), (0, [1, 2]),
    (None, ..., None, [0]), [], [True, False], ((0, 1), slice(1, None)), (..., ...), np.array([[0, 1], [1, 0]]), (), ..., None,
]  # fmt: skip


@pytest.mark.torch
@pytest.mark.parametrize("form", FORMS, ids=repr)
def test_forms_of_a_key(form: Any) -> None:
    torch = pytest.importorskip("torch")
    x, u = ft.arange(6.0).reshape(2, 3), torch.arange(6.0).reshape(2, 3)
    assert (tuple(x[form].shape), x[form].tolist()) == (tuple(u[form].shape), u[form].tolist())
    x[form], u[form] = 9.0, 9.0
    assert x.tolist() == u.tolist()


def test_zero_dimensional_and_byte_masks() -> None:
    x = ft.arange(6.0).reshape(2, 3)
    assert x[ft.tensor(1)].tolist() == [3, 4, 5]
    assert x[ft.tensor(1)]._is_view()
    assert x[ft.tensor(True)].shape == (1, 2, 3)
    with pytest.warns(UserWarning, match="torch.uint8 is now deprecated"):
        assert x[ft.tensor([1, 0], dtype=ft.uint8)].tolist() == [[0, 1, 2]]


def test_writing_counts_versions_and_keeps_history() -> None:
    x = ft.zeros(3, requires_grad=True)
    y = x * 1
    y[1] = 5.0
    assert y._version == 1 and y.grad_fn.name() == "torch::autograd::CopySlices"
    v = ft.ones(2, requires_grad=True)
    y[[0, 2]] = v * 3
    y.sum().backward()
    assert x.grad.tolist() == [0, 0, 0] and v.grad.tolist() == [3, 3]


def test_index_tensor_changed_before_backward_is_noticed() -> None:
    x, i = ft.ones(3, requires_grad=True), ft.tensor([0, 1])
    y = x[i].sum()
    i[0] = 2
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward()


IN_PLACE = {
    "scatter_": lambda T, x: x.scatter_(0, T.tensor([[0, 1, 0]]), T.ones(1, 3)),
    "scatter_add_": lambda T, x: x.scatter_add_(0, T.tensor([[0, 1, 0]]), T.ones(1, 3)),
    "scatter_reduce_": lambda T, x: x.scatter_reduce_(0, T.tensor([[0, 1, 0]]), T.ones(1, 3), "amax"),
    "index_add_": lambda T, x: x.index_add_(0, T.tensor([1, 1]), T.ones(2, 3)),
    "index_copy_": lambda T, x: x.index_copy_(0, T.tensor([1]), T.ones(1, 3)),
    "index_fill_": lambda T, x: x.index_fill_(1, T.tensor([1]), 4.0),
    "index_put_": lambda T, x: x.index_put_((T.tensor([1]),), T.tensor(3.0)),
    "masked_fill_": lambda T, x: x.masked_fill_(T.tensor([True, False, True]), 4.0),
    "masked_scatter_": lambda T, x: x.masked_scatter_(T.tensor([[True, False, True]] * 2), T.ones(4)),
    "put_": lambda T, x: x.put_(T.tensor([4]), T.ones(1)),
}


@pytest.mark.torch
@pytest.mark.parametrize("name", IN_PLACE)
def test_in_place_forms(name: str) -> None:
    torch = pytest.importorskip("torch")

    def run(T: Any) -> Any:
        x = T.arange(6.0).reshape(2, 3).clone().requires_grad_()
        y = x * 2
        r = IN_PLACE[name](T, y)
        assert r is y
        (y * y).sum().backward()
        return y.detach().tolist(), x.grad.tolist(), y._version, y.grad_fn.name()

    assert run(ft) == run(torch)


@pytest.mark.torch
def test_embedding_options() -> None:
    torch = pytest.importorskip("torch")

    def run(T: Any, f: Any) -> Any:
        w = T.arange(12.0).reshape(4, 3).clone()
        i = T.tensor([[0, 2, 2], [1, 2, 0]])
        y = f(i, w.requires_grad_(False), max_norm=2.0).tolist()
        w = w.detach().requires_grad_()
        (f(i, w, padding_idx=2, scale_grad_by_freq=True) * T.arange(18.0).reshape(2, 3, 3)).sum().backward()
        return y, w.tolist(), w.grad.tolist()

    for a, b in zip(run(ft, F.nn.functional.embedding), run(torch, torch.nn.functional.embedding)):
        np.testing.assert_allclose(a, b, rtol=1e-6)


ERRORS = {
    "out": (lambda x: x[5], IndexError, "index 5 is out of bounds for dimension 0 with size 2"),
    "second": (lambda x: x[0, 5], IndexError, "index 5 is out of bounds for dimension 1 with size 3"),
    "many": (lambda x: x[0, 0, 0], IndexError, "too many indices for tensor of dimension 2"),
    "tensor_out": (lambda x: x[ft.tensor([5])], IndexError, "index 5 is out of bounds for dimension 0 with size 2"),
    "float": (lambda x: x[ft.tensor([0.5])], IndexError, "tensors used as indices must be long, int, byte or bool tensors"),
    "step": (lambda x: x[::-1], ValueError, "step must be greater than zero"),
    "number": (lambda x: x[1.5], IndexError, "only integers, slices (`:`), ellipsis (`...`), None and long or byte Variables"),
    "shapes": (lambda x: x[ft.tensor([0, 1]), ft.tensor([0, 1, 2])], IndexError,
               "shape mismatch: indexing tensors could not be broadcast together with shapes [2], [3]"),
    "mask": (lambda x: x[ft.tensor([True, False, True])], IndexError,
             "The shape of the mask [3] at index 0 does not match the shape of the indexed tensor [2, 3] at index 0"),
    "zero_d": (lambda x: ft.tensor(1.0)[0], IndexError, "invalid index of a 0-dim tensor"),
    "value": (lambda x: x.__setitem__(0, ft.ones(2)), RuntimeError,
              "The expanded size of the tensor (3) must match the existing size (2) at non-singleton dimension 0"),
    "values": (lambda x: x.__setitem__([0, 1], ft.ones(2)), RuntimeError,
               "shape mismatch: value tensor of shape [2] cannot be broadcast to indexing result of shape [2, 3]"),
    "dtype": (lambda x: x.__setitem__([0], ft.ones(3, dtype=ft.float64)), RuntimeError,
              "Index put requires the source and destination dtypes match, got Float for the destination and Double for the source."),
    "assign_list": (lambda x: x.__setitem__(0, [1, 2, 3]), TypeError, "can't assign a list to a torch.FloatTensor"),
    "leaf": (lambda x: x.requires_grad_().__setitem__(0, 1.0), RuntimeError, "a leaf Variable that requires grad"),
    "gather": (lambda x: x.gather(0, ft.tensor([[5, 0, 0]])), RuntimeError, "index 5 is out of bounds for dimension 0 with size 2"),
    "scatter": (lambda x: x.scatter(0, ft.tensor([[0, 0, 0]]), ft.ones(1, 2)), RuntimeError, "Expected index [1, 3] to be no larger"),
    "index_select": (lambda x: x.index_select(0, ft.tensor([-1])), IndexError, "index out of range in self"),
    "masked_fill": (lambda x: x.masked_fill(ft.tensor([1, 0, 1]), 0.0), RuntimeError, "masked_fill_ only supports boolean masks"),
    "embedding": (lambda x: F.nn.functional.embedding(ft.tensor([5]), x), IndexError, "index out of range in self"),
    "one_hot": (lambda x: F.nn.functional.one_hot(ft.tensor([-1])), RuntimeError, "Class values must be non-negative."),
    "take": (lambda x: x.take(ft.tensor([7])), IndexError, "out of range: tried to access index 7 on a tensor of 6 elements."),
    "where": (lambda x: ft.where(x, 1, 0), RuntimeError, "where expected condition to be a boolean tensor"),
}  # fmt: skip


@pytest.mark.parametrize("name", ERRORS)
def test_errors_change_nothing(name: str) -> None:
    fn, cls, text = ERRORS[name]
    x = ft.zeros(2, 3)
    with pytest.raises(cls) as e:
        fn(x)
    assert text in str(e.value)
    assert "test_indexing.py" in str(e.value)
    assert x._version == 0 and not x.detach().numpy().any()


def test_empty_tensors() -> None:
    x = ft.zeros(0, 3, requires_grad=True)
    for y in (x[[]], x[x > 0], x.gather(0, ft.zeros(0, 3, dtype=ft.int64)), x.index_select(0, ft.zeros(0, dtype=ft.int64))):
        y.sum().backward()
    assert x.grad.shape == (0, 3)
    assert ft.nonzero(ft.tensor(3.0)).shape == (1, 0)


def test_gather_with_a_number() -> None:
    x = ft.tensor([1.0, 2.0, 3.0], requires_grad=True)
    y = x.gather(0, ft.tensor(1))
    assert y.shape == () and y.item() == 2.0
    assert ft.autograd.grad(y, x)[0].tolist() == [0.0, 1.0, 0.0]
    assert ft.tensor(5.0).gather(0, ft.tensor([0, 0])).tolist() == [5.0, 5.0]
