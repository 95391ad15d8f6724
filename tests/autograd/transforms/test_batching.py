"""Batching rules: each sort of them, the guard that batched tensors show, and the helpers of functions that are no operators."""

import warnings

import numpy as np
import pytest

import flambeau as torch
from flambeau import vmap
from flambeau.autograd.primitive import PRIMITIVES, primitive
from flambeau.autograd.transforms import batching

X = torch.arange(12.0).reshape(3, 4) / 10
Y = torch.arange(4.0)


@pytest.fixture
def declared():
    """Declares primitives that are gone after the test."""
    before = set(PRIMITIVES)
    batching._warned.clear()
    yield primitive
    for name in set(PRIMITIVES) - before:
        del PRIMITIVES[name]


def loop(fn, *args, which):
    return torch.stack([fn(*[a[i] if w else a for a, w in zip(args, which)]) for i in range(3)])


def test_a_table_moves_dimensions_and_prefixes_sizes(declared):
    @declared("summed_over", batch={"dim": "dim"})
    def summed(x, /, dim):
        return x.sum(dim)

    @declared("spread_out", batch={"shape": "size"})
    def spread(x, /, shape):
        return np.broadcast_to(x[..., None], shape).copy()

    @declared("picked", batch={"key": "key"})
    def picked(x, /, key):
        return x[key]

    for d in (0, -1, (0,), (-1,)):
        assert torch.equal(vmap(lambda x: summed(x, d))(X), X.sum(1))  # noqa: B023
    assert torch.equal(vmap(lambda x: spread(x, (4, 2)))(X), X[..., None].expand(3, 4, 2))
    assert torch.equal(vmap(lambda x: picked(x, (slice(1, 3),)))(X), X[:, 1:3])


def test_a_table_expands_what_has_no_batch(declared):
    @declared("weighted", batch={})
    def op(x, y, /):
        assert x.shape == y.shape
        return x * y

    for which in ((True, False), (False, True), (True, True)):
        args = [X if w else Y for w in which]
        assert torch.equal(vmap(op, in_dims=tuple([0 if w else None for w in which]))(*args), loop(op, *args, which=which))


def test_a_function_is_told_who_is_batched(declared):
    seen = []

    def rule(b, x, y, scale):
        seen.append((b.size, b.has("x"), b.has("y")))
        return op(b.full(x, b.has("x")), b.full(y, b.has("y")), scale)

    @declared("scaled", batch=rule)
    def op(x, y, /, scale):
        return x * y * scale

    assert torch.equal(vmap(lambda x: op(x, Y, 2.0))(X), X * Y * 2)
    assert torch.equal(vmap(lambda x: op(Y, x, 2.0))(X), X * Y * 2)
    assert seen == [(3, True, False), (3, False, True)]


def test_operands_that_broadcast_are_lined_up(declared):
    def rule(b, x, y):
        return torch.mul(*b.aligned(x=x, y=y))

    @declared("product_of", batch=rule)
    def op(x, y, /):
        return x * y

    matrix = torch.arange(8.0).reshape(2, 4)
    assert torch.equal(vmap(lambda x: op(x, matrix))(X), X[:, None] * matrix)
    assert torch.equal(vmap(lambda x: op(matrix, x[0]))(X), X[:, 0, None, None] * matrix)


def test_nothing_is_a_loop_with_one_warning(declared):
    @declared("reversed_in_python")
    def op(x, /):
        return x[::-1].copy()

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert torch.equal(vmap(op)(X), X.flip(1))
        vmap(op)(X)
    assert [str(w.message).split(":")[0] for w in caught] == [
        "There is a performance drop because we have not yet implemented the batching rule for reversed_in_python"
    ]
    with pytest.raises(RuntimeError, match="cannot run on a batch of size 0"):
        vmap(op)(X[:0])


def test_a_loop_whose_results_differ_in_shape(declared):
    @declared("positive_ones")
    def op(x, /):
        return x[x > 0.2]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(RuntimeError, match="We do not support batching operators that can output dynamic shape"):
            vmap(op)(X)


def test_helpers_of_functions():
    @batching.leading
    def doubled(x, y):
        assert x._a.__class__ is np.ndarray
        return x * y

    @batching.folding
    def images(x):
        assert x._a.ndim == 2 and x._a.__class__ is np.ndarray
        return x.sum(1, keepdim=True)

    @batching.loops
    def alone(x):
        assert x._a.__class__ is np.ndarray
        return x * float(x._a.sum())

    assert torch.equal(vmap(lambda x: doubled(x, Y))(X), X * Y)
    assert torch.equal(vmap(lambda x: images(x[None]))(X), X.sum(1).reshape(3, 1, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert torch.allclose(vmap(alone)(X), X * X.sum(1, keepdim=True))


def test_nested_batches():
    cube = torch.arange(24.0).reshape(2, 3, 4)
    f = lambda a, b: (a * b).sum() + a.amax()  # noqa: E731
    got = vmap(vmap(f, in_dims=(0, None)), in_dims=(0, 0))(cube, cube[:, 0])
    want = torch.stack([torch.stack([f(a, b[0]) for a in b]) for b in cube])
    assert torch.equal(got, want)


# ---- the guard ---------------------------------------------------------------------------------------------------------
GUARDED = {
    "a ufunc": lambda a: np.sin(a), "an operator": lambda a: a + 1, "a method": lambda a: a.sum(), "an element": lambda a: a[0],
    "a function": lambda a: np.concatenate([a, a]), "an iteration": lambda a: list(a), "a copy": lambda a: a.copy(), "astype": lambda a: a.astype(float),
    "writing": lambda a: a.__setitem__(0, 1), "a pointer": lambda a: a.ctypes, "the interface": lambda a: a.__array_interface__, "T": lambda a: a.T,
}  # fmt: skip


@pytest.mark.parametrize("name", GUARDED)
def test_the_guard_gives_no_values(name):
    with pytest.raises(RuntimeError, match="has no batching rule: it asks for the values"):
        vmap(lambda x: GUARDED[name](x._a))(X)


def test_what_goes_round_the_guard_sees_nan():
    def peek(x):
        assert x._a.shape == (4,) and x._a.dtype == np.float32
        assert np.isnan(np.asarray(x._a).view(np.ndarray)).all()
        return x

    vmap(peek)(X)


def test_repr():
    said = []
    vmap(lambda x: said.append(repr(x)) or x)(X[:, :1])
    assert said == ["BatchedTensor(lvl=1, bdim=0, value=\n    tensor([[0.0000],\n            [0.4000],\n            [0.8000]])\n)"]


# ---- gradients inside ------------------------------------------------------------------------------------------------
def test_the_history_of_a_batched_tensor_is_that_of_its_value():
    p = X.clone().requires_grad_()
    out = vmap(lambda x: (x * 2).sum())(p)
    out.sum().backward()
    assert torch.equal(p.grad, torch.full((3, 4), 2.0))


def test_in_place_on_a_batched_tensor_shows_its_new_history():
    p = X.clone().requires_grad_()

    def f(x):
        y = torch.zeros_like(x)
        assert not y.requires_grad
        y.add_(x)
        assert y.requires_grad
        return y * y

    vmap(f)(p).sum().backward()
    assert torch.allclose(p.grad, 2 * X)
