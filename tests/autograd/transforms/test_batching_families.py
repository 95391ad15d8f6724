"""Batching rules of reductions, scans, sorting, softmax, comparisons, special functions, losses and bags in unusual places.

The operators' own tests check one vmap with the batch in front. Here: a vmap in a vmap with operands batched by one of
them each, the batch behind, no examples at all, examples without dimensions, and gradients of many cotangents at once.
"""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import flambeau as T
import flambeau.nn.functional as F
from flambeau.func import jvp, vjp, vmap

OUTER, INNER = 2, 3
LABELS, PAIRS = T.tensor([2, 0]), T.tensor([[0, 1, 1], [3, 2, 0]])
TIMES, SIZES = T.tensor([4, 3]), T.tensor([2, 1])


def ctc(x):
    return F.ctc_loss(x.log_softmax(-1), T.tensor([[1, 2], [2, 0]]), TIMES, SIZES, reduction="none")


# name: (function, shapes of one example's operands)
CALLS = {
    "sum": (lambda a: a.sum(), [(2, 3)]),
    "sum_dims": (lambda a: a.sum((-1, 0), keepdim=True), [(2, 3)]),
    "sum_no_dims": (lambda a: a.sum([]), [(2, 3)]),
    "sum_to_size": (lambda a: a.sum_to_size(3), [(2, 3)]),
    "mean": (lambda a: a.mean(-1), [(2, 3)]),
    "nansum": (lambda a: T.nansum(a, 0), [(2, 3)]),
    "nanmean": (lambda a: T.nanmean(a, keepdim=True), [(2, 3)]),
    "prod": (lambda a: a.prod(), [(2, 3)]),
    "prod_dim": (lambda a: a.prod(-2, keepdim=True), [(2, 3)]),
    "all": (lambda a: (a > 0).all(-1), [(2, 3)]),
    "any": (lambda a: (a > 1).any(), [(2, 3)]),
    "count_nonzero": (lambda a: T.count_nonzero(a > 0, 0), [(2, 3)]),
    "amax": (lambda a: a.amax(), [(2, 3)]),
    "aminmax": (lambda a: T.aminmax(a, dim=-1, keepdim=True), [(2, 3)]),
    "max": (lambda a: a.max(), [(2, 3)]),
    "max_dim": (lambda a: a.max(-1), [(2, 3)]),
    "min_keepdim": (lambda a: a.min(0, keepdim=True), [(2, 3)]),
    "argmax": (lambda a: a.argmax(), [(2, 3)]),
    "argmin_dim": (lambda a: a.argmin(-1, keepdim=True), [(2, 3)]),
    "var_mean": (lambda a: T.var_mean(a, -1), [(2, 3)]),
    "std": (lambda a: a.std(correction=0), [(2, 3)]),
    "logsumexp": (lambda a: a.logsumexp((0, -1)), [(2, 3)]),
    "norm": (lambda a: a.norm(), [(2, 3)]),
    "norm_inf": (lambda a: T.linalg.vector_norm(a, float("inf"), -1), [(2, 3)]),
    "cumsum": (lambda a: a.cumsum(-1), [(2, 3)]),
    "cumprod": (lambda a: a.cumprod(0), [(2, 3)]),
    "cummax": (lambda a: T.cummax(a, -1), [(2, 3)]),
    "logcumsumexp": (lambda a: T.logcumsumexp(a, 0), [(2, 3)]),
    "trapezoid": (lambda y, x: T.trapezoid(y, x), [(2, 3), (3,)]),
    "sort": (lambda a: a.sort(0, descending=True), [(2, 3)]),
    "argsort": (lambda a: a.argsort(), [(2, 3)]),
    "topk": (lambda a: a.topk(2, -1), [(2, 3)]),
    "kthvalue": (lambda a: a.kthvalue(2, -1, keepdim=True), [(2, 3)]),
    "mode": (lambda a: a.round().mode(0), [(2, 3)]),
    "median": (lambda a: a.median(), [(2, 3)]),
    "median_dim": (lambda a: a.nanmedian(-1), [(2, 3)]),
    "quantile": (lambda a, q: T.quantile(a, q.sigmoid(), -1), [(2, 3), (2,)]),
    "searchsorted": (lambda s, x: T.searchsorted(s.sort()[0], x), [(4,), (2, 3)]),
    "searchsorted_rows": (lambda s, x: T.searchsorted(s.sort()[0], x), [(2, 4), (2, 3)]),
    "bucketize": (lambda x: T.bucketize(x, T.tensor([-1.0, 0.0, 1.0], dtype=T.float64)), [(2, 3)]),
    "histc": (lambda a: T.histc(a, 3), [(5,)]),
    "softmax": (lambda a: a.softmax(0), [(2, 3)]),
    "log_softmax": (lambda a: a.log_softmax(-1), [(2, 3)]),
    "isclose": (lambda a, b: T.isclose(a, b, atol=1.0), [(2, 3), (3,)]),
    "isin": (lambda a, b: T.isin(a.round(), b.round()), [(2, 3), (4,)]),
    "nextafter": (lambda a, b: T.nextafter(a, b), [(3,), (2, 1)]),
    "gcd": (lambda a, b: T.gcd((a * 9).long(), (b * 9).long()), [(3,), (2, 1)]),
    "i0e": (lambda a: T.special.i0e(a), [(3,)]),
    "gammaincc": (lambda a, b: T.special.gammaincc(a.detach().exp(), b.exp()), [(3,), (2, 1)]),
    "frexp": (lambda a: T.frexp(a), [(3,)]),
    "mvlgamma": (lambda a: T.mvlgamma(a.exp() + 1, 2), [(3,)]),
    "mse_loss": (lambda a, b: F.mse_loss(a, b), [(2, 3), (2, 3)]),
    "bce": (lambda a, b: F.binary_cross_entropy(a.sigmoid(), b.sigmoid(), reduction="sum"), [(2, 3), (2, 3)]),
    "gaussian_nll": (lambda a, b, v: F.gaussian_nll_loss(a, b, v * v), [(2, 3), (2, 3), (2, 3)]),
    "cross_entropy": (lambda a: F.cross_entropy(a, LABELS), [(2, 3)]),
    "cross_entropy_smooth": (lambda a, w: F.cross_entropy(a, LABELS, w.detach().exp(), ignore_index=0, label_smoothing=0.1), [(2, 3), (3,)]),
    "cross_entropy_single": (lambda a: F.cross_entropy(a, T.tensor(1)), [(3,)]),
    "nll_space": (lambda a, w: F.nll_loss(a, PAIRS[:, :2] % 3, w.detach().exp()), [(2, 3, 2), (3,)]),
    "nll_none": (lambda a: F.nll_loss(a, LABELS, reduction="none"), [(2, 3)]),
    "multi_margin": (lambda a, w: F.multi_margin_loss(a, LABELS, weight=w.detach()), [(2, 3), (3,)]),
    "multilabel_margin": (lambda a: F.multilabel_margin_loss(a, T.tensor([1, -1, 0])), [(3,)]),
    "cosine_embedding": (lambda a, b: F.cosine_embedding_loss(a, b, T.tensor([1, -1])), [(2, 3), (2, 3)]),
    "ctc": (ctc, [(4, 2, 3)]),
    "bags": (lambda w: F.embedding_bag(PAIRS, w, padding_idx=1), [(4, 2)]),
    "bags_last": (lambda w, s: F.embedding_bag(PAIRS[0], w, T.tensor([0, 1, 2]), mode="sum", include_last_offset=True, per_sample_weights=s),
                  [(4, 2), (3,)]),
    "bags_max": (lambda w: F.embedding_bag(PAIRS, w, mode="max"), [(4, 2)]),
}  # fmt: skip
NO_DERIVATIVE = {
    "all", "any", "count_nonzero", "argmax", "argmin_dim", "argsort", "searchsorted", "searchsorted_rows", "bucketize", "histc", "isclose",
    "isin", "nextafter", "gcd",
}  # fmt: skip


def made(shape, seed=0):
    return T.tensor(np.random.default_rng(seed).standard_normal(shape))


def tensors(r):
    return [t for x in r for t in tensors(x)] if isinstance(r, (tuple, list)) else [r]


def compare(got, want):
    for g, w in zip(tensors(got), want, strict=True):
        assert g.dtype is w.dtype
        np.testing.assert_allclose(g.numpy(), w.numpy(), rtol=1e-9, atol=1e-11)


def stacked(results):
    return [T.stack(parts) for parts in zip(*map(tensors, results))]


@pytest.fixture(autouse=True)
def no_loops():
    """A loop over the examples says so."""
    from flambeau.autograd.transforms import batching

    batching._warned.clear()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*performance drop")
        warnings.filterwarnings("ignore", message=".*degrees of freedom")
        yield


@pytest.mark.parametrize("name", CALLS)
def test_nested(name):
    """Every operand batched by both; the first by the outer vmap alone; the last by the inner one alone."""
    f, shapes = CALLS[name]
    n = len(shapes)
    for outer, inner in {((True,) * n, (True,) * n), ((True,) + (False,) * (n - 1), (True,) * n), ((True,) * n, (False,) * (n - 1) + (True,))}:
        if not (any(outer) and any(inner)):
            continue
        lead = [(OUTER,) * o + (INNER,) * i for o, i in zip(outer, inner)]
        xs = [made(ls + s, k) for k, (ls, s) in enumerate(zip(lead, shapes))]
        got = vmap(vmap(f, tuple(0 if i else None for i in inner)), tuple(0 if o else None for o in outer))(*xs)
        one = lambda r, c: f(*[x[(r,) * o + (c,) * i] for x, o, i in zip(xs, outer, inner)])  # noqa: B023, E731
        compare(got, stacked([tuple(stacked([one(r, c) for c in range(INNER)])) for r in range(OUTER)]))


@pytest.mark.parametrize("name", CALLS)
def test_batch_behind(name):
    f, shapes = CALLS[name]
    xs = [made((*s, INNER), k) for k, s in enumerate(shapes)]
    got = vmap(f, -1, -1)(*xs)
    want = stacked([f(*[x[..., i] for x in xs]) for i in range(INNER)])
    compare(got, [w.movedim(0, -1) for w in want])


@pytest.mark.parametrize("name", CALLS)
def test_no_examples(name):
    f, shapes = CALLS[name]
    got = tensors(vmap(f)(*[made((0, *s)) for s in shapes]))
    want = tensors(f(*[made(s, k) for k, s in enumerate(shapes)]))
    assert [(tuple(g.shape), g.dtype) for g in got] == [((0, *w.shape), w.dtype) for w in want]


@pytest.mark.parametrize("name", [n for n in CALLS if n not in NO_DERIVATIVE])
def test_cotangents(name):
    """The gradient for several cotangents at once: what rules do with a batched gradient of unbatched operands."""
    f, shapes = CALLS[name]
    xs = [made(s, k) for k, s in enumerate(shapes)]
    out, back = vjp(lambda *a: tuple(t for t in tensors(f(*a)) if t.is_floating_point()), *xs)
    us = tuple(made((INNER, *o.shape), 7 + k) for k, o in enumerate(out))
    got = vmap(back)(us)
    compare(got, stacked([back(tuple(u[i] for u in us)) for i in range(INNER)]))


@pytest.mark.parametrize("name", [n for n in CALLS if n not in NO_DERIVATIVE | {"ctc"}])
def test_tangents(name):
    """Several tangents at once, of operands that are the same for all."""
    f, shapes = CALLS[name]
    xs, ts = [made(s, k) for k, s in enumerate(shapes)], [made((INNER, *s), 7 + k) for k, s in enumerate(shapes)]
    floats = lambda *a: tuple(t for t in tensors(f(*a)) if t.is_floating_point())  # noqa: E731
    pushed = lambda *t: jvp(floats, tuple(xs), t)[1]  # noqa: E731
    compare(vmap(pushed)(*ts), stacked([pushed(*[t[i] for t in ts]) for i in range(INNER)]))


SCALARS = {
    "sum": lambda a: a.sum(0), "sum_keepdim": lambda a: a.sum(keepdim=True), "mean": lambda a: a.mean(-1), "prod": lambda a: a.prod(0),
    "any": lambda a: (a > 0).any(0), "count_nonzero": lambda a: a.count_nonzero(0), "amax": lambda a: a.amax(0), "max": lambda a: a.max(0),
    "argmax": lambda a: a.argmax(0), "argmin": lambda a: a.argmin(), "logsumexp": lambda a: a.logsumexp(0), "norm": lambda a: a.norm(dim=0),
    "var": lambda a: a.var(correction=0), "cumsum": lambda a: a.cumsum(0), "cumprod": lambda a: a.cumprod(-1), "cummin": lambda a: T.cummin(a, 0),
    "logcumsumexp": lambda a: T.logcumsumexp(a, 0), "sort": lambda a: a.sort(), "topk": lambda a: a.topk(1), "kthvalue": lambda a: a.kthvalue(1),
    "mode": lambda a: a.mode(), "median": lambda a: a.median(), "nanmedian": lambda a: a.nanmedian(0, keepdim=True),
    "quantile": lambda a: a.quantile(0.5), "softmax": lambda a: a.softmax(0), "log_softmax": lambda a: a.log_softmax(-1),
    "mse_loss": lambda a: F.mse_loss(a, a * a), "isclose": lambda a: T.isclose(a, a), "searchsorted": lambda a: T.searchsorted(made((4,)).sort()[0], a),
}  # fmt: skip


@pytest.mark.parametrize("name", SCALARS)
def test_examples_without_dimensions(name):
    f, x = SCALARS[name], made((INNER,))
    compare(vmap(f)(x), stacked([f(x[i]) for i in range(INNER)]))
    if any(t.is_floating_point() for t in tensors(f(x[0]))):
        floats = lambda a: tuple(t for t in tensors(f(a)) if t.is_floating_point())  # noqa: E731

        def gradient(a):
            out, back = vjp(floats, a)
            return back(tuple(o.detach() * 0 + 1.5 for o in out))

        if floats(x[0].clone().requires_grad_())[0].requires_grad:
            slopes = [sum(jvp(floats, (x[i],), (T.ones_like(x[i]) * 1.5,))[1], T.zeros(())).sum() for i in range(INNER)]
            np.testing.assert_allclose(slopes, [gradient(x[i])[0] for i in range(INNER)], rtol=1e-6)
            compare(vmap(gradient)(x), stacked([gradient(x[i]) for i in range(INNER)]))


def test_batched_class_indices():
    """Targets, ignored ones among them, and weights that differ by example."""
    x, w = made((INNER, 4, 3)), made((INNER, 3), 1).exp()
    t = T.tensor([[0, 1, 2, -100], [2, 2, -100, -100], [1, 0, 1, 1]])
    for reduction in ("mean", "sum", "none"):
        f = lambda x, t, w: F.cross_entropy(x, t, w, reduction=reduction, label_smoothing=0.2)  # noqa: B023, E731
        compare(vmap(f)(x, t, w), stacked([f(x[i], t[i], w[i]) for i in range(INNER)]))


def test_batched_bags():
    """Indices, offsets and tables that differ by example, and a padding index."""
    w, i = made((INNER, 4, 2)), T.tensor([[0, 1, 2, 3], [3, 3, 1, 0], [1, 1, 1, 2]])
    starts = T.tensor([[0, 1, 3], [0, 0, 4], [0, 2, 2]])
    for options in ({}, {"mode": "sum", "padding_idx": -1}, {"mode": "max", "include_last_offset": True}, {"scale_grad_by_freq": True}):
        f = lambda i, w, s: F.embedding_bag(i, w, s, **options)  # noqa: B023, E731
        compare(vmap(f)(i, w, starts), stacked([f(i[k], w[k], starts[k]) for k in range(INNER)]))
        compare(vmap(f, (0, None, None))(i, w[0], starts[1]), stacked([f(i[k], w[0], starts[1]) for k in range(INNER)]))


def test_batched_ctc():
    """Targets and lengths that differ by example; targets one after the other too."""
    x, t = made((INNER, 4, 2, 3)), T.tensor([[[1, 2], [2, 0]], [[1, 1], [2, 1]], [[2, 2], [1, 0]]])
    lengths, sizes = T.tensor([[4, 3], [3, 4], [4, 4]]), T.tensor([[2, 1], [1, 2], [2, 1]])
    for reduction in ("mean", "none"):
        f = lambda x, t, a, b: F.ctc_loss(x.log_softmax(-1), t, a, b, reduction=reduction)  # noqa: B023, E731
        compare(vmap(f)(x, t, lengths, sizes), stacked([f(x[i], t[i], lengths[i], sizes[i]) for i in range(INNER)]))
    flat = T.tensor([[1, 2, 2], [1, 2, 1], [2, 1, 1]])
    compare(vmap(f)(x, flat, lengths, sizes), stacked([f(x[i], flat[i], lengths[i], sizes[i]) for i in range(INNER)]))


def test_checks_see_every_example():
    """What a function asks of its operands it asks of all examples."""
    x = T.tensor([[0.5, 0.5], [0.5, 1.5]])
    for f in (
        lambda a: F.binary_cross_entropy(a, a),
        lambda a: T.quantile(made((3,)).float(), a),
        lambda a: F.embedding_bag((a * 4).long().reshape(1, 2), made((4, 2))),
        lambda a: F.multi_margin_loss(made((2, 3)), (a * 2).long()),
    ):
        with pytest.raises(RuntimeError):
            vmap(f)(x)


def test_values_decide_the_shape():
    with pytest.raises(RuntimeError, match="can output dynamic shape. Attempted to vmap over aten::_unique2"):
        vmap(T.unique)(T.tensor([[1, 1], [1, 2]]))
