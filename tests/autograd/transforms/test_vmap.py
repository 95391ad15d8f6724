"""vmap itself: where the batch is in arguments and results, chunks, what it refuses, and that it cleans up."""

import gc
import threading
import weakref

import pytest

import flambeau as torch
from flambeau import vmap
from flambeau.core.modes import mode

X = torch.arange(12.0).reshape(3, 4)


def test_in_dims_and_out_dims():
    f = lambda a, b: a * b.sum()  # noqa: E731
    loop = torch.stack([f(X[:, i], X[i]) for i in range(3)])
    assert torch.equal(vmap(f, in_dims=(1, 0))(X[:, :3], X), loop)
    assert torch.equal(vmap(f, in_dims=(-1, 0), out_dims=-1)(X[:, :3], X), loop.T)
    assert torch.equal(vmap(f, in_dims=(None, 0), out_dims=1)(X[:, 0], X), torch.stack([f(X[:, 0], r) for r in X], 1))


def test_nests_of_arguments_and_results():
    f = lambda d: {"sum": d["a"] + d["b"][0], "more": (d["b"][0] * 2, [d["a"]])}  # noqa: E731
    out = vmap(f, in_dims=({"a": 0, "b": (1,)},), out_dims={"sum": 0, "more": (1, [0])})({"a": X, "b": (X.T,)})
    assert torch.equal(out["sum"], 2 * X) and torch.equal(out["more"][0], (2 * X).T) and torch.equal(out["more"][1][0], X)


def test_keyword_arguments_are_the_same_for_all():
    assert torch.equal(vmap(lambda x, y: x * y)(X, y=X), X[:, None] * X)


def test_a_result_without_the_batch():
    assert torch.equal(vmap(lambda x: torch.ones(2))(X), torch.ones(3, 2))
    assert vmap(lambda x: 3, out_dims=None)(X) == 3


@pytest.mark.parametrize("out_dim", [0, 1, -1, -2])
@pytest.mark.parametrize("chunk_size", [1, 2, 3, 5])
def test_chunks(chunk_size, out_dim):
    p, q = (X * 1).requires_grad_(), (X * 1).requires_grad_()
    f = lambda x: x.sin() * x.sum()  # noqa: E731
    whole, parts = vmap(f, out_dims=out_dim)(p), vmap(f, out_dims=out_dim, chunk_size=chunk_size)(q)
    assert torch.equal(whole, parts)
    (whole * whole).sum().backward()
    (parts * parts).sum().backward()
    assert torch.allclose(p.grad, q.grad)


def test_a_batch_of_none_and_of_one():
    f = lambda x: (x.softmax(0) @ x, x.sort().values[1:])  # noqa: E731
    for n in (0, 1):
        a, b = vmap(f)(X[:n])
        assert a.shape == (n,) and b.shape == (n, 3)


def test_promotion_is_that_of_one_example():
    scalar = torch.tensor([1.0, 2.0], dtype=torch.float64)
    assert vmap(lambda s: s + torch.ones(2))(scalar).dtype is torch.float32
    assert vmap(lambda s: torch.ones(2) * s.half())(scalar).dtype is torch.float32
    assert vmap(lambda s: s.long() + 0.5)(scalar).dtype is torch.float32
    assert vmap(lambda s: s.half() * 2.5)(scalar).dtype is torch.float16
    assert vmap(lambda s: torch.ones(2, dtype=torch.int8) + s.long())(scalar).dtype is torch.int8


def test_detach_in_place():
    f = lambda x: ((x * 2).detach_() * x).sum()  # noqa: E731
    assert torch.equal(vmap(torch.func.grad(f))(X), 2 * X)


def test_contiguous_is_the_tensor_itself():
    def f(x):
        y = x * 1
        y.contiguous().add_(1)
        return y

    assert torch.equal(vmap(f)(X), X + 1)


# ---- views share memory, whatever the layout below ---------------------------------------------------------------------
VIEWS = {
    "view_as": lambda u: u.view_as(u), "a slice": lambda u: u[..., 1:], "transpose": lambda u: u.transpose(0, -1), "select": lambda u: u.select(-1, 0),
    "unsqueeze": lambda u: u[None], "diagonal": lambda u: u.diagonal(0, 0, -1),
}  # fmt: skip


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("dim", [0, 1, 2])
def test_views_in_place_and_their_derivatives(view, dim):
    """A base in any order of memory, one dimension of size 1: with the batch it looks like an image, channels last."""

    def f(x):
        u = x[None] * 1
        w = VIEWS[view](u)
        u.mul_(2)
        w.sin_()
        return (w**3).sum() + (u**2).sum()

    def g(x):
        return vmap(f, in_dims=dim)(torch.stack([x, x.sin()], dim)).sum()

    x = torch.tensor([[0.9, 0.4, 0.3], [0.2, -0.5, 0.7]], dtype=torch.float64)
    loop = torch.func.hessian(lambda x: f(x) + f(x.sin()))(x)
    for outer in (torch.func.jacrev, torch.func.jacfwd):
        for inner in (torch.func.jacrev, torch.func.jacfwd):
            assert torch.allclose(outer(inner(g))(x), loop), (outer.__name__, inner.__name__)


# ---- the end -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("fails", [False, True])
def test_nothing_stays_alive(fails):
    gc.collect()
    gc.disable()
    try:
        refs = []

        def f(x):
            y = x.exp()
            y[1:].mul_(2)
            refs.extend([weakref.ref(y), weakref.ref(y._value), weakref.ref(x)])
            if fails:
                raise ValueError
            return y.sum() * torch.func.grad(lambda v: (v * y).sum())(x).sum()

        try:
            vmap(f)(X)
        except ValueError:
            pass
        assert refs and [r() for r in refs] == [None] * len(refs)
        assert mode() is True
    finally:
        gc.enable()


def test_a_tensor_that_escapes():
    kept = []
    vmap(lambda x: kept.append(x * 1) or x)(X)
    with pytest.raises(RuntimeError, match="escaped from inside a function being vmapped"):
        kept[0] + 1


def test_another_thread_is_outside():
    def f(x):
        caught = []

        def work():
            try:
                x * 2
            except RuntimeError as e:
                caught.append(e)

        t = threading.Thread(target=work)
        t.start()
        t.join()
        raise caught[0]

    with pytest.raises(RuntimeError, match="escaped"):
        vmap(f)(X)


# ---- errors ----------------------------------------------------------------------------------------------------------
def f(x):
    return x


ERRORS = {
    "randomness": (lambda: vmap(f, randomness="no"), "Only allowed values for randomness are 'error', 'different', or 'same'. Got no"),
    "chunk_size": (lambda: vmap(f, chunk_size=0), "vmap: chunk_size should be None or greater than 0. (got 0)"),
    "no inputs": (lambda: vmap(f)(), "vmap(f)(<inputs>): got no inputs."),
    "in_dims a list": (lambda: vmap(f, in_dims=[0])(X), "expected `in_dims` to be int or a (potentially nested) tuple matching"),
    "in_dims too many": (lambda: vmap(f, in_dims=(0, 0))(X), "in_dims is not compatible with the structure of `inputs`"),
    "in_dim a string": (lambda: vmap(f, in_dims=("a",))(X), "Got in_dim=a for an input but in_dim must be either an integer dimension or None."),
    "no tensor": (lambda: vmap(f)(3), "Got in_dim=0 for an input but the input is of type <class 'int'>. We cannot vmap over non-Tensor arguments"),
    "in_dim too large": (lambda: vmap(f, in_dims=2)(X), "but that input is a Tensor of dimensionality 2 so expected in_dim to satisfy -2 <= in_dim < 2."),
    "all None": (lambda: vmap(f, in_dims=(None,))(X), "vmap"),
    "sizes": (lambda: vmap(lambda a, b: a, in_dims=(0, 1))(X, X), "vmap: Expected all tensors to have the same size in the mapped dimension, got sizes [3, 4]"),
    "a result that is none": (lambda: vmap(lambda x: None)(X), "must only return Tensors, got type <class 'NoneType'>"),
    "out_dims": (lambda: vmap(f, out_dims=(0, 0))(X), "out_dims is not compatible with the structure of `outputs`"),
    "out_dim None": (lambda: vmap(f, out_dims=None)(X), "can not return a BatchedTensor when out_dim is None"),
    "out_dim too large": (lambda: vmap(f, out_dims=2)(X), "Dimension out of range (expected to be in range of [-2, 1], but got 2)"),
}  # fmt: skip


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name):
    fn, phrase = ERRORS[name]
    with pytest.raises((ValueError, RuntimeError, IndexError)) as caught:
        fn()
    assert phrase in str(caught.value)
    assert mode() is True


REFUSED = {
    "item": (lambda x: x.sum().item(), "vmap: It looks like you're calling .item() on a Tensor."),
    "float": (lambda x: float(x.sum()), "vmap: It looks like you're calling .item() on a Tensor."),
    "a format": (lambda x: f"{x.sum():.2f}", "vmap: It looks like you're calling .item() on a Tensor."),
    "bool": (lambda x: x if x.sum() > 0 else -x, "attempting to use a Tensor in some data-dependent control flow"),
    "numpy": (lambda x: x.numpy(), "vmap: .numpy() is not possible"),
    "copy": (lambda x: __import__("copy").copy(x), "cannot be copied or pickled"),
    "deepcopy": (lambda x: __import__("copy").deepcopy(x), "cannot be copied or pickled"),
    "pickle": (lambda x: __import__("pickle").dumps(x), "cannot be copied or pickled"),
    "data": (lambda x: setattr(x, "data", x), "mutating directly with `.data` under vmap transform is not allowed."),
    "backward": (lambda x: x.sum().backward(), "backward() called inside a functorch transform."),
    "requires_grad_": (lambda x: x.requires_grad_(), "You are attempting to call Tensor.requires_grad_()"),
    "out=": (lambda x: torch.add(x, 1, out=torch.empty(4)), "Batching rule not implemented for aten::add.out"),
    "out= of batched": (lambda x: torch.add(x, 1, out=torch.empty_like(x)), "Batching rule not implemented for aten::add.out"),
    "a shape that values decide": (lambda x: x[x > 2], "vmap"),
    "in place into what has no batch": (lambda x: torch.zeros(4).add_(x), "that has more elements than `self`"),
    "random numbers": (lambda x: x + torch.rand(4), "vmap: called random operation while in randomness error mode."),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused_inside(name):
    fn, phrase = REFUSED[name]
    with pytest.raises(RuntimeError) as caught:
        vmap(fn)(X)
    assert phrase in str(caught.value)
    assert mode() is True
