"""Which operators' results a selective checkpoint keeps."""

import functools
import gc
import weakref

import pytest

import flambeau as torch
from flambeau.core.modes import full, reset_mode, set_mode
from flambeau.utils.checkpoint import (
    SAC_IGNORED_OPS,
    CheckpointPolicy,
    SelectiveCheckpointContext,
    checkpoint,
    create_selective_checkpoint_contexts,
)
from flambeau.utils.checkpoint.watching import Watching

nn, F = torch.nn, torch.nn.functional
aten = torch.ops.aten


@pytest.fixture
def x():
    torch.manual_seed(0)
    return torch.rand(4, 4, requires_grad=True)


def keeping(policy, **kwargs):
    return functools.partial(create_selective_checkpoint_contexts, policy, **kwargs)


class Runs:
    """Counts the kernels that run, by operator."""

    def __init__(self, monkeypatch, *ops):
        self.n = dict.fromkeys([op.name for op in ops], 0)
        for op in ops:
            monkeypatch.setattr(op, "kernel", self.counting(op))

    def counting(self, op):
        kernel = op.kernel

        def counted(*args, **kwargs):
            self.n[op.name] += 1
            return kernel(*args, **kwargs)

        return counted


def network(x):
    return (torch.sigmoid((x @ x).sin()) @ x).softmax(1).exp().sum()


def gradient(f, x):
    x.grad = None
    f(x).backward()
    return x.grad


POLICIES = {
    "nothing": [],
    "products": [aten.mm.default],
    "pointwise": [aten.sin.default, aten.sigmoid.default, aten.exp.default],
    "softmax": [aten._softmax.default],
    "all": lambda ctx, op, *args, **kwargs: CheckpointPolicy.MUST_SAVE,
    "preferred": lambda ctx, op, *args, **kwargs: CheckpointPolicy.PREFER_SAVE,
    "none": lambda ctx, op, *args, **kwargs: CheckpointPolicy.MUST_RECOMPUTE,
    "a bool": lambda ctx, op, *args, **kwargs: op is aten.mm.default,
    "offloaded": lambda ctx, op, *args, **kwargs: CheckpointPolicy.MUST_CPU_OFFLOAD,
}


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("early_stop", [True, False])
def test_same_gradients(x, name, early_stop):
    plain = gradient(network, x)
    again = gradient(
        lambda x: checkpoint(network, x, use_reentrant=False, context_fn=keeping(POLICIES[name]), early_stop=early_stop), x
    )
    assert torch.equal(plain, again)


MODELS = {
    "linear": (lambda: nn.Sequential(nn.Linear(4, 4), nn.GELU(), nn.Linear(4, 4, bias=False)), (3, 4)),
    "norms": (lambda: nn.Sequential(nn.LayerNorm(4), nn.Tanh(), nn.RMSNorm(4), nn.LogSoftmax(-1)), (3, 4)),
    "convolution": (
        lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.GroupNorm(2, 4)),
        (2, 2, 6, 6),
    ),
    "dropout": (lambda: nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.Linear(4, 4), nn.Dropout(0.5)), (3, 4)),
    "transformer": (lambda: nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), (2, 3, 4)),
    "recurrent": (lambda: Output(nn.LSTM(4, 4)), (5, 2, 4)),
}


class Output(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(x)[0]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("save", ["all", "half"])
def test_models(name, save):
    """Kept results in place of computed ones, also where a rule takes more than the output (means, masks, positions)."""
    torch.manual_seed(1)
    make, shape = MODELS[name]
    model, x = make(), torch.rand(shape, requires_grad=True)
    calls = []

    def policy(ctx, op, *args, **kwargs):
        calls.append(op)
        return save == "all" or len(calls) % 2 == 0

    found = []
    for run in (model, lambda x: checkpoint(model, x, use_reentrant=False, context_fn=keeping(policy))):
        torch.manual_seed(2)
        model.zero_grad()
        x.grad = None
        out = run(x)
        (out * out).sum().backward()
        found.append([out, x.grad, *[p.grad for p in model.parameters()]])
    assert all(torch.allclose(plain, again) for plain, again in zip(*found))
    assert calls


def test_kernels_do_not_run_again(x, monkeypatch):
    from flambeau.autograd.primitive import PRIMITIVES

    runs = Runs(monkeypatch, PRIMITIVES["mm"], PRIMITIVES["softmax"])
    with torch.no_grad():
        network(x)
    once = dict(runs.n)
    assert once == {"mm": 2, "softmax": 1}
    ran = {}
    for kept in ((), (aten.mm.default,), (aten.mm.default, aten._softmax.default)):
        y = checkpoint(network, x, use_reentrant=False, context_fn=keeping(list(kept)), early_stop=False)
        before = dict(runs.n)
        y.backward()
        ran[len(kept)] = [runs.n[name] - before[name] for name in ("mm", "softmax")]
    products, softmaxes = ran[0]
    assert ran == {0: [products, softmaxes], 1: [products - 2, softmaxes], 2: [products - 2, softmaxes - 1]}


def test_what_the_policy_sees(x):
    seen = []

    def policy(ctx, op, *args, **kwargs):
        assert isinstance(ctx, SelectiveCheckpointContext) and ctx.is_recompute is False
        assert torch.is_tensor(ctx.op_output) and torch.is_tensor(args[0])
        seen.append((op, tuple(ctx.op_output.shape)))
        return CheckpointPolicy.PREFER_RECOMPUTE

    w, b = torch.rand(2, 4), torch.rand(2)
    y = checkpoint(lambda x: (F.linear(x, w, b) * 2 > 0).float() * F.linear(x, w).sum(1, keepdim=True), x,
                   use_reentrant=False, context_fn=keeping(policy))  # fmt: skip
    first = list(seen)
    y.sum().backward()
    assert seen == first  # it is asked in the first run alone
    assert seen == [
        (aten.addmm.default, (4, 2)), (aten.mul.Tensor, (4, 2)), (aten.gt.Scalar, (4, 2)), (aten._to_copy.default, (4, 2)),
        (aten.mm.default, (4, 2)), (aten.sum.dim_IntList, (4, 1)), (aten.mul.Tensor, (4, 2)),
    ]  # fmt: skip


def test_policy_may_compute(x):
    """What it computes is neither recorded nor shown to itself."""

    def policy(ctx, op, *args, **kwargs):
        return bool((args[0] * args[0]).sum() > 0)

    assert torch.equal(
        gradient(lambda x: checkpoint(network, x, use_reentrant=False, context_fn=keeping(policy)), x), gradient(network, x)
    )


def test_policy_is_not_asked_under_no_grad(x):
    with torch.no_grad():
        checkpoint(network, x, use_reentrant=False, context_fn=keeping(lambda *a, **k: pytest.fail("asked")))


def test_nothing_is_left_behind(x):
    checkpoint(network, x, use_reentrant=False, context_fn=keeping([aten.mm.default])).backward()
    assert full().watch is None

    def refuse(*a, **k):
        raise KeyError

    with pytest.raises(KeyError):
        checkpoint(network, x, use_reentrant=False, context_fn=keeping(refuse))
    assert full().watch is None and torch.is_grad_enabled()


def test_only_one_backward(x):
    y = checkpoint(network, x, use_reentrant=False, context_fn=keeping([aten.mm.default]))
    y.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="Trying to backward an extra time. You are only allowed to backward once on any region"):
        y.backward(retain_graph=True)


@pytest.mark.parametrize("allowed", [False, True])
def test_kept_result_that_was_changed(x, allowed):
    def f(x):
        y = x.sin()
        z = y.cos()
        y.detach().mul_(1.0) if f.detached else y.mul_(1.0)
        return (z * x).sum()

    for f.detached in (False, True):
        y = checkpoint(f, x, use_reentrant=False, context_fn=keeping([aten.sin.default], allow_cache_entry_mutation=allowed))
        if allowed and not f.detached:
            with pytest.raises(RuntimeError, match="modified by an inplace operation"):
                f(x).backward()
        if not allowed:
            with pytest.raises(RuntimeError, match="Tensor cached during selective activation checkpoint has been mutated"):
                y.backward()


def test_changed_results_are_right_where_allowed(x):
    def f(x):
        y = x @ x
        y.add_(1.0)
        return (y.sin() * x).sum()

    kept = keeping([aten.mm.default], allow_cache_entry_mutation=False)
    with pytest.raises(RuntimeError, match="has been mutated"):
        checkpoint(f, x, use_reentrant=False, context_fn=kept).backward()
    kept = keeping([aten.sin.default], allow_cache_entry_mutation=False)
    assert torch.equal(gradient(lambda x: checkpoint(f, x, use_reentrant=False, context_fn=kept), x), gradient(f, x))


@pytest.mark.parametrize(
    ("second", "phrase"),
    [
        (lambda x: x.tanh().sin(), "aten.tanh.default encountered during backward but not found in storage"),
        (lambda x: x.sin().sin(), "aten.sin.default invocation index 1 encountered during backward but not found in storage"),
    ],
)
def test_other_operators_the_second_time(x, second, phrase):
    runs = [lambda x: x.sin().exp().cos(), second]
    y = checkpoint(lambda x: runs.pop(0)(x), x, use_reentrant=False, context_fn=keeping([aten.sin.default]))
    with pytest.raises(RuntimeError, match=phrase):
        y.sum().backward()


def test_arguments_that_are_refused():
    with pytest.raises(ValueError, match="Expected op in `op_list` to be an OpOverload but got: aten.mm of type") as e:
        create_selective_checkpoint_contexts([aten.mm])
    assert "torch.ops.aten.mm.default" in str(e.value)
    with pytest.raises(ValueError, match="Expected op in `op_list` to be an OpOverload but got: mm of type"):
        create_selective_checkpoint_contexts(["mm"])
    with pytest.raises(TypeError, match="policy_fn_or_list must be either a function or a list of ops."):
        create_selective_checkpoint_contexts({aten.mm.default})


def test_names():
    assert [p.value for p in CheckpointPolicy] == list(range(6))
    assert [p.name for p in CheckpointPolicy][:4] == ["MUST_SAVE", "PREFER_SAVE", "MUST_RECOMPUTE", "PREFER_RECOMPUTE"]
    assert aten.detach.default in SAC_IGNORED_OPS
    ctx = SelectiveCheckpointContext(is_recompute=True, op_output=3)
    assert (ctx.is_recompute, ctx.op_output) == (True, 3)


@pytest.mark.parametrize("inner", [None, [], [aten.sin.default]])
@pytest.mark.parametrize("outer", [None, [], [aten.mm.default]])
def test_nested(x, inner, outer):
    def arguments(kept):
        return {} if kept is None else {"context_fn": keeping(kept)}

    def f(x):
        y = checkpoint(lambda x: (x @ x).sin().cos(), x.tanh(), use_reentrant=False, **arguments(inner))
        return (y @ y).sin().sum()

    plain = gradient(lambda x: (lambda y: (y @ y).sin().sum())((x.tanh() @ x.tanh()).sin().cos()), x)
    assert torch.allclose(gradient(lambda x: checkpoint(f, x, use_reentrant=False, **arguments(outer)), x), plain)


def test_watching_inside_watching(x):
    """Both see every call, and what the inner one calls itself only the outer."""

    class Note(Watching):
        def __init__(self):
            super().__init__()
            self.seen = []

        def see(self, op, args, params):
            self.seen.append(op.name)
            return op(*args, **params)

    outer, inner = Note(), Note()
    with outer:
        x.sin()
        with inner:
            x.cos()
            with inner:
                x.exp()
        x @ x
    x.tanh()
    assert outer.seen == ["sin", "cos", "exp", "mm"] and inner.seen == ["cos", "exp", "exp"]
    reset_mode(set_mode(full()))


def test_memory(x):
    """What is kept lives until the second run has taken it, the rest dies after the first."""
    gc.collect()
    gc.disable()
    try:
        made = {}

        def f(x):
            a = x @ x
            b = a.sin()
            for name, t in (("kept", a), ("dropped", b)):
                made.setdefault(name, []).append(weakref.ref(t._a))
            return b.cos().sum()

        y = checkpoint(f, x, use_reentrant=False, context_fn=keeping([aten.mm.default]))
        assert made["kept"][0]() is not None and made["dropped"][0]() is None
        y.backward()
        assert [r() for r in made["dropped"]] == [None] * 2
        del y
        assert [r() for r in made["kept"]] == [None] * 2
    finally:
        gc.enable()
