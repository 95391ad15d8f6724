"""Losses: values, reductions, gradients of both orders, messages."""

from __future__ import annotations

import numpy as np
import pytest

from .harness import Case, F, OperatorTests, close, gradients, numpy, tensor, torch_tensor


def f(name, *args, **options):
    return lambda T, *xs: getattr(T.nn.functional, name)(*xs, *args, **options)


def log_np(x, axis=1):
    x = x - x.max(axis, keepdims=True)
    return x - np.log(np.exp(x).sum(axis, keepdims=True))


def cases(name, shapes, low=-2.0, high=2.0, reductions=("mean", "sum", "none"), node=True, **options):
    """The loss in every reduction, on operands that are all differentiable."""
    return [
        Case(f"{name}_{r}{''.join(f'_{k}' for k in options)}", f(name, reduction=r, **options), shapes, low=low, high=high, node=node, tol=3)
        for r in reductions
    ]


def classes(n, c, *space, seed=0):
    return np.random.default_rng(seed).integers(0, c, (n, *space))


def indexed(name, shape, ignore=False, weighted=False, **options):
    """A loss of logits and class indices."""
    n, c, *space = shape

    def make(rng):
        t = rng.integers(0, c, (n, *space))
        if ignore:
            t.flat[0] = -100
        return [rng.standard_normal(shape), t]

    def run(T, x, t):
        w = constant(T, [0.7, 1.2, 0.9][:c], x) if weighted else None
        return getattr(T.nn.functional, name)(x, t, weight=w, **options)

    said = "_".join([name, "x".join(map(str, shape)), *(["ignore"] if ignore else []), *(["weight"] if weighted else []),
                     *(f"{k}{v}" for k, v in options.items())])
    return Case(said, run, make, node=False, tol=3, layouts=False)


def constant(T, values, like):
    """A tensor that is no operand to be differentiated."""
    return T.tensor(values, dtype=like.dtype)


SIGNS = [[1.0, -1, 1, -1]] * 3


PAIR = [(3, 4), (3, 4)]
CASES = [
    Case("mse_reference", f("mse_loss"), PAIR, lambda x, y: ((x - y) ** 2).mean()),
    Case("mse_half", f("mse_loss"), PAIR, dtypes=("float16", "bfloat16"), grad=False),
    Case("mse_broadcast", lambda T, x, y: ((x - y) ** 2).mean(), [(3, 4), (4,)], node=False),
    Case("mse_weight", lambda T, x, y, w: T.nn.functional.mse_loss(x, y, weight=w), [*PAIR, (3, 4)], low=0.5, node=False, tol=3),
    Case("mse_0d", f("mse_loss"), [(), ()], layouts=False),
    *cases("mse_loss", PAIR), *cases("l1_loss", PAIR, node=False), *cases("smooth_l1_loss", PAIR), *cases("smooth_l1_loss", PAIR, beta=0.5),
    *cases("huber_loss", PAIR, delta=0.7),
    *[Case(f"soft_margin_{r}", lambda T, x, r=r: T.nn.functional.soft_margin_loss(x, constant(T, SIGNS, x), reduction=r), [(3, 4)])
      for r in ("mean", "sum", "none")],
    *cases("binary_cross_entropy", PAIR, 0.05, 0.95),
    *cases("binary_cross_entropy_with_logits", PAIR), *cases("kl_div", PAIR, 0.1, node=False),
    *cases("kl_div", PAIR, 0.1, node=False, log_target=True), *cases("poisson_nll_loss", PAIR, 0.1, node=False),
    *cases("poisson_nll_loss", PAIR, 1.1, node=False, full=True), *cases("poisson_nll_loss", PAIR, 0.5, node=False, log_input=False),
    Case("gaussian_nll_loss_small", f("gaussian_nll_loss", eps=0.5), [*PAIR, (3, 4)], low=0.02, grad=False, tol=3),
    *cases("gaussian_nll_loss", [*PAIR, (3, 4)], 0.2, node=False), *cases("gaussian_nll_loss", [*PAIR, (3, 1)], 0.2, node=False, full=True),
    Case("kl_div_batchmean", f("kl_div", reduction="batchmean"), PAIR, lambda x, y: (y * np.log(y) - y * x).sum() / 3, low=0.1),
    Case("bce_weight", lambda T, x, y: T.nn.functional.binary_cross_entropy(x, y, constant(T, [0.5, 1.0, 2.0, 1.5], x)), PAIR, low=0.1, high=0.9, tol=3),
    Case("bce_logits_pos_weight",
         lambda T, x, y: T.nn.functional.binary_cross_entropy_with_logits(
             x, y, constant(T, [[0.5], [1.0], [2.0]], x), pos_weight=constant(T, [0.5, 1.0, 2.0, 1.5], x)), PAIR, low=0.2, tol=3),
    Case("hinge_embedding", lambda T, x: T.nn.functional.hinge_embedding_loss(x, constant(T, SIGNS, x), 0.5), [(3, 4)], node=False),
    Case("margin_ranking", lambda T, x, y: T.nn.functional.margin_ranking_loss(x, y, constant(T, SIGNS, x), 0.3), PAIR, node=False),
    Case("cosine_embedding", lambda T, x, y: T.nn.functional.cosine_embedding_loss(x, y, constant(T, [1.0, -1, 1], x), 0.1), PAIR, node=False, tol=3),
    Case("cosine_similarity", f("cosine_similarity"), PAIR, tol=3, node=False),
    Case("cosine_similarity_broadcast", lambda T, x, y: T.cosine_similarity(x.unsqueeze(1), y.unsqueeze(0), dim=-1), PAIR, tol=3, node=False),
    Case("pairwise_distance", f("pairwise_distance"), PAIR, lambda x, y: np.sqrt(((x - y + 1e-6) ** 2).sum(1)), node=False, tol=3),
    Case("pairwise_distance_1", f("pairwise_distance", 1.0, keepdim=True), PAIR, node=False, tol=3),
    Case("triplet", f("triplet_margin_loss", swap=True), [*PAIR, (3, 4)], node=False, tol=3),
    Case("triplet_distance", f("triplet_margin_with_distance_loss", reduction="sum"), [*PAIR, (3, 4)], node=False, tol=3),
    Case("multilabel_soft", lambda T, x, y: T.nn.functional.multilabel_soft_margin_loss(x, y), PAIR, low=0.1, high=0.9, node=False, tol=3),
    *[indexed("cross_entropy", (4, 3), ignore, weighted, reduction=r, label_smoothing=s)
      for ignore in (False, True) for weighted in (False, True) for r in ("mean", "sum", "none") for s in (0.0, 0.2)],
    indexed("cross_entropy", (2, 3, 4), True), indexed("cross_entropy", (2, 3, 2, 2), True, True, label_smoothing=0.1),
    indexed("cross_entropy", (2, 3, 2, 1, 2), reduction="none"),
    *[indexed("nll_loss", (4, 3), True, weighted, reduction=r) for weighted in (False, True) for r in ("mean", "sum", "none")],
    indexed("nll_loss", (2, 3, 2, 2), True, True),
    indexed("multi_margin_loss", (4, 3)), indexed("multi_margin_loss", (4, 3), weighted=True, p=2, margin=0.5, reduction="sum"),
    Case("cross_entropy_reference", lambda T, x, t: T.nn.functional.cross_entropy(x, t), lambda rng: [rng.standard_normal((4, 3)), classes(4, 3)],
         lambda x, t: -log_np(x)[np.arange(4), t].mean(), dtypes=("float32", "float64"), tol=3),
    Case("cross_entropy_half", lambda T, x, t: T.nn.functional.cross_entropy(x, t), lambda rng: [rng.standard_normal((4, 3)), classes(4, 3)],
         dtypes=("bfloat16", "float16"), grad=False, tol=2),
    Case("cross_entropy_unbatched", lambda T, x, t: T.nn.functional.cross_entropy(x, t), lambda rng: [rng.standard_normal(3), np.array(1)],
         layouts=False),
    Case("cross_entropy_probabilities", f("cross_entropy", label_smoothing=0.1), PAIR, low=0.1, node=False, tol=3),
    Case("cross_entropy_probabilities_none", f("cross_entropy", reduction="none"), [(2, 3, 4), (2, 3, 4)], low=0.1, node=False, tol=3),
    Case("multilabel_margin", lambda T, x, t: T.nn.functional.multilabel_margin_loss(x, t),
         lambda rng: [rng.standard_normal((2, 4)), np.array([[3, 0, -1, 1], [1, 2, 3, 0]])], node=False, layouts=False),
    Case("mse_empty", f("mse_loss", reduction="sum"), [(0, 3), (0, 3)], layouts=False),
]  # fmt: skip


class TestLosses(OperatorTests):
    cases = CASES


@pytest.mark.parametrize("shape, dtype", [((300, 70), "float32"), ((4, 5), "float64")])
def test_large_means_agree_with_small(shape, dtype):
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(shape).astype(dtype) for _ in range(2))
    x, y = tensor(a, True), tensor(b, True)
    loss = F.nn.functional.mse_loss(x, y)
    close(loss.detach()._a, np.asarray(((a.astype("f8") - b) ** 2).mean()), 1e-6)
    loss.backward()
    close(x.grad._a, 2 * (a - b) / a.size, 1e-6)
    close(y.grad._a, -2 * (a - b) / a.size, 1e-6)


def test_all_ignored_is_nan():
    t = tensor(np.full(3, -100))
    assert np.isnan(F.nn.functional.cross_entropy(tensor(np.zeros((3, 2))), t).item())
    assert F.nn.functional.cross_entropy(tensor(np.zeros((3, 2))), t, reduction="sum").item() == 0


# ---- ctc ------------------------------------------------------------------------------------------------------------
def ctc_by_paths(lp, target, blank=0):
    """The sum over all alignments, by trying each."""
    from itertools import product

    total = 0.0
    time, c = lp.shape
    for path in product(range(c), repeat=time):
        merged = [s for i, s in enumerate(path) if (i == 0 or s != path[i - 1])]
        if [s for s in merged if s != blank] == list(target):
            total += np.exp(sum(lp[t, s] for t, s in enumerate(path)))
    return -np.log(total) if total else np.inf


def ctc(T, x, t, lengths, sizes, **options):
    lp = T.nn.functional.log_softmax(x, -1)
    return T.nn.functional.ctc_loss(lp, t, lengths, sizes, **options)


def test_ctc_by_definition():
    x = np.random.default_rng(0).standard_normal((4, 1, 3))
    lp = log_np(x, -1)
    for target in ([1, 2], [1, 1], [2], []):
        t = np.array([target + [0] * (2 - len(target))], np.int64)
        got = F.nn.functional.ctc_loss(tensor(lp), tensor(t), (4,), (len(target),), reduction="sum")
        close(got._a, np.asarray(ctc_by_paths(lp[:, 0], target)), 1e-9)


@pytest.mark.torch
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_ctc_against_torch(reduction, dtype):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(3)
    x = rng.standard_normal((7, 4, 5)).astype(dtype)
    t = rng.integers(1, 5, (4, 3))
    lengths, sizes = (7, 6, 5, 2), (3, 2, 0, 3)
    for zero in (False, True):
        a, b = torch_tensor(torch, x).requires_grad_(), tensor(x, True)
        want = ctc(torch, a, torch.from_numpy(t), lengths, sizes, reduction=reduction, zero_infinity=zero)
        got = ctc(F, b, tensor(t), lengths, sizes, reduction=reduction, zero_infinity=zero)
        close(numpy(got.detach()), numpy(want), 1e-5)
        if zero:
            want.sum().backward()
            got.sum().backward()
            close(b.grad._a, a.grad.numpy(), 1e-5)
    flat = np.concatenate([row[:n] for row, n in zip(t, sizes)])
    close(ctc(F, tensor(x), tensor(flat), lengths, sizes, zero_infinity=True)._a,
          ctc(F, tensor(x), tensor(t), lengths, sizes, zero_infinity=True)._a, 1e-7)  # fmt: skip


def test_ctc_second_derivative_is_refused():
    from flambeau.autograd.engine import grad

    x = tensor(np.random.default_rng(0).standard_normal((4, 1, 3)), True)
    (g,) = grad([ctc(F, x, tensor(np.array([[1, 2]])), (4,), (2,))], [x], create_graph=True)
    with pytest.raises(NotImplementedError, match="_ctc_loss_backward is not implemented"):
        g.sum().backward()


# ---- messages ----------------------------------------------------------------------------------------------------------
def r(*shape):
    return tensor(np.random.default_rng(0).uniform(0.1, 0.9, shape))


@pytest.mark.parametrize("call, error, phrase", [
    (lambda N: N.cross_entropy(r(2, 3), tensor(np.array([0, 5]))), IndexError, "Target 5 is out of bounds."),
    (lambda N: N.cross_entropy(r(3, 3), tensor(np.array([0, 1, 2, 0]))), ValueError,
     "Expected input batch_size (3) to match target batch_size (4)."),
    (lambda N: N.cross_entropy(r(4, 3), r(4)), RuntimeError, "expected target dtype to be Long or Byte, but got Double"),
    (lambda N: N.cross_entropy(r(4, 3), r(4, 2)), RuntimeError, "0D or 1D target tensor expected, multi-target not supported"),
    (lambda N: N.nll_loss(r(2, 3), tensor(np.array([0, 1])), r(2)), RuntimeError,
     "weight tensor should be defined either for all 3 classes or no classes"),
    (lambda N: N.mse_loss(r(2), r(2), reduction="x"), ValueError, "x is not a valid value for reduction"),
    (lambda N: N.binary_cross_entropy(r(2) + 1, r(2)), RuntimeError, "all elements of input should be between 0 and 1"),
    (lambda N: N.binary_cross_entropy_with_logits(r(2, 3), r(3)), ValueError, "must be the same as input size (torch.Size([2, 3]))"),
])  # fmt: skip
def test_messages(call, error, phrase):
    with pytest.raises(error) as e:
        call(F.nn.functional)
    assert phrase in str(e.value)


def test_size_warning():
    with pytest.warns(UserWarning, match=r"Using a target size \(torch.Size\(\[3\]\)\) that is different to the input size"):
        F.nn.functional.mse_loss(r(2, 3), r(3))


def test_gradient_with_broadcasting():
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wants, gs, _ = gradients(lambda x, y: F.nn.functional.mse_loss(x, y), [np.ones((2, 3)), np.zeros(3)], [])
    assert gs[1]._a.shape == (3,)


@pytest.mark.torch
def test_small_variances_keep_their_gradient():
    torch = pytest.importorskip("torch")
    from flambeau.autograd.engine import grad

    x, t, v = np.array([1.0, 2.0]), np.array([0.5, 1.0]), np.array([0.01, 0.5])
    theirs = torch.tensor(v, requires_grad=True)
    torch.nn.functional.gaussian_nll_loss(torch.tensor(x), torch.tensor(t), theirs, eps=0.1).backward()
    ours = tensor(v, True)
    g = grad([F.nn.functional.gaussian_nll_loss(tensor(x), tensor(t), ours, eps=0.1)], [ours])[0]
    close(numpy(g), theirs.grad.numpy(), 1e-9)
