"""Checkpoints on saved-tensor hooks (``use_reentrant=False``), and what both kinds share."""

import contextlib
import gc
import sys
import threading
import types
import warnings
import weakref

import pytest

import flambeau as torch
from flambeau.utils.checkpoint import (
    CheckpointError,
    DefaultDeviceType,
    GraphExecGroup,
    checkpoint,
    checkpoint_sequential,
    get_device_states,
    noop_context_fn,
    set_checkpoint_debug_enabled,
    set_checkpoint_early_stop,
    set_device_states,
)

nn = torch.nn
KINDS = {
    "hooks": {"use_reentrant": False},
    "hooks, to the end": {"use_reentrant": False, "early_stop": False},
    "hooks, unchecked": {"use_reentrant": False, "determinism_check": "none"},
    "hooks, debug": {"use_reentrant": False, "debug": True},
    "reentrant": {"use_reentrant": True},
}


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


@pytest.fixture
def x():
    torch.manual_seed(0)
    return torch.rand(3, 4, requires_grad=True)


def network(x):
    return torch.sigmoid(x.sin().exp() @ x.t()).tanh().sum()


def gradient(f, x):
    x.grad = None
    f(x).backward()
    return x.grad


class Calls:
    """A function that counts its calls."""

    def __init__(self, f):
        self.f, self.n = f, 0

    def __call__(self, *args, **kwargs):
        self.n += 1
        return self.f(*args, **kwargs)


# ---- values ---------------------------------------------------------------------------------------------------------
def test_same_gradients(x, kind):
    f = Calls(network)
    assert torch.equal(gradient(lambda x: checkpoint(f, x, **kind), x), gradient(network, x))
    assert f.n == 2


MODELS = {
    "linear": lambda: nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.GELU()),
    "norms": lambda: nn.Sequential(nn.LayerNorm(8), nn.Softmax(-1), nn.RMSNorm(8), nn.LogSoftmax(-1)),
    "convolution": lambda: nn.Sequential(
        nn.Unflatten(-1, (1, 2, 4)), nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.GroupNorm(2, 4), nn.AvgPool2d((1, 2))
    ),
    "batch norm": lambda: nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Hardswish()),
    "dropout": lambda: nn.Sequential(nn.Dropout(0.5), nn.Linear(8, 8), nn.AlphaDropout(0.3), nn.RReLU(), nn.Dropout(0.2)),
    "transformer": lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True),
    "in place": lambda: nn.Sequential(nn.Linear(8, 8), nn.ReLU(inplace=True), nn.Linear(8, 8)),
}


@pytest.mark.parametrize("name", MODELS)
def test_models(name, kind):
    torch.manual_seed(1)
    model = MODELS[name]()
    x = torch.rand(5, 8, requires_grad=True) if name != "transformer" else torch.rand(2, 5, 8, requires_grad=True)
    found = []
    for run in (model, lambda x: checkpoint(model, x, **kind)):
        torch.manual_seed(2)
        model.zero_grad()
        x.grad = None
        out = run(x)
        (out * out).sum().backward()
        found.append([out, x.grad, *[p.grad for p in model.parameters()], torch.rand(2)])
    for plain, again in zip(*found):
        assert torch.equal(plain, again)


def test_keyword_arguments(x):
    def f(a, *, b, c=None, names=()):
        return a * b + (0 if c is None else c["t"]) + len(names)

    b, t = torch.rand(4, requires_grad=True), torch.rand(4, requires_grad=True)
    y = checkpoint(f, x, b=b, c={"t": t * 1}, names=["x"], use_reentrant=False, preserve_rng_state=False)
    assert torch.equal(y, x * b + t + 1)
    y.sum().backward()
    assert torch.equal(x.grad, b.detach().expand(3, 4)) and torch.equal(b.grad, x.detach().sum(0))
    assert torch.equal(t.grad, torch.full((4,), 3.0))


def test_outputs_of_every_kind(x, kind):
    def f(x, name, none, number):
        assert (name, none, number) == ("name", None, 3)
        return x.exp(), "text", None, x.sin().sum(), 7, x.detach()

    a, text, none, b, seven, d = checkpoint(f, x, "name", None, 3, **kind)
    assert (text, none, seven) == ("text", None, 7)
    if not kind["use_reentrant"]:
        assert not d.requires_grad
        (a.sum() + b).backward()
    else:
        (a.sum() * 1 + b).backward()
    assert torch.allclose(x.grad, x.exp() + x.cos())


def test_nested_structures_take_part(x):
    """Tensors inside lists and dicts, in and out, without any tensor among the arguments themselves."""
    y = checkpoint(lambda d: [{"y": d["x"][0].exp()}], {"x": [x]}, use_reentrant=False)
    y[0]["y"].sum().backward()
    assert torch.allclose(x.grad, x.exp())


def test_inputs_that_do_not_require_grad():
    model = nn.Linear(2, 2)
    data = torch.ones(1, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        checkpoint(model, data, use_reentrant=False).sum().backward()
    assert torch.equal(model.weight.grad, torch.ones(2, 2))


def test_no_inputs_and_no_gradient():
    w = torch.ones(2, requires_grad=True)
    checkpoint(lambda: w.exp().sum(), use_reentrant=False).backward()
    assert torch.allclose(w.grad, w.exp())
    assert not checkpoint(torch.exp, torch.ones(2), use_reentrant=False).requires_grad


def test_under_no_grad(x, kind):
    f = Calls(torch.sin)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error")
        y = checkpoint(f, x, **kind)
    assert not y.requires_grad and f.n == 1


def test_function_that_is_not_recorded_inside(x):
    def f(x):
        with torch.no_grad():
            scale = x.exp()
        return x * scale + x.detach().sin()

    assert torch.equal(gradient(lambda x: checkpoint(f, x, use_reentrant=False).sum(), x), x.detach().exp())


# ---- arguments ------------------------------------------------------------------------------------------------------
def test_use_reentrant_should_be_given(x):
    with pytest.warns(UserWarning, match="torch.utils.checkpoint: the use_reentrant parameter should be passed explicitly") as w:
        y = checkpoint(torch.sin, x)
    assert w[0].filename == __file__
    assert type(y.grad_fn).__name__ == "CheckpointFunctionBackward"
    with pytest.warns(UserWarning, match=r"torch.utils.checkpoint.checkpoint_sequential: the use_reentrant") as w:
        checkpoint_sequential([torch.sin, torch.sin], 2, x)
    assert w[0].filename == __file__


@pytest.mark.parametrize(
    ("arguments", "phrase"),
    [
        ({"use_reentrant": True, "b": 1, "c": 2}, "Unexpected keyword arguments: b,c"),
        ({"use_reentrant": True, "debug": True}, "Passing `context_fn` or `debug` is only supported when use_reentrant=False."),
        ({"use_reentrant": True, "context_fn": lambda: None}, "Passing `context_fn` or `debug` is only supported when use_reentrant"),
        ({"use_reentrant": False, "debug": True, "context_fn": lambda: None}, "debug=True is incompatible with non-default context_fn"),
        ({"use_reentrant": False, "determinism_check": "all"}, r"determinism_check should be one of \['default', 'none'\], but got all"),
    ],
)
def test_arguments_that_are_refused(x, arguments, phrase):
    f = Calls(torch.sin)
    with pytest.raises(ValueError, match=phrase):
        checkpoint(f, x, **arguments)
    assert f.n == 0


# ---- checkpoint_sequential -------------------------------------------------------------------------------------------
@pytest.mark.parametrize("segments", [1, 2, 3, 5])
@pytest.mark.parametrize("reentrant", [True, False])
def test_sequential(x, segments, reentrant):
    model = nn.Sequential(*[nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Dropout(0.1)) for _ in range(5)])
    counted = [Calls(m) for m in model]
    grads = []
    for run in (model, lambda x: checkpoint_sequential(counted, segments, x, use_reentrant=reentrant),
                lambda x: checkpoint_sequential(model, segments, x, use_reentrant=reentrant, preserve_rng_state=True)):  # fmt: skip
        torch.manual_seed(0)
        model.zero_grad()
        g = gradient(lambda x, run=run: run(x).sum(), x)
        grads.append([g, *[p.grad for p in model.parameters()]])
    assert all(torch.equal(a, b) and torch.equal(a, c) for a, b, c in zip(*grads))
    checkpointed = 5 // segments * (segments - 1)
    assert [c.n for c in counted] == [2] * checkpointed + [1] * (5 - checkpointed)


def test_sequential_refuses(x):
    with pytest.raises(ValueError, match="Unexpected keyword arguments: a"):
        checkpoint_sequential([torch.sin], 1, x, use_reentrant=False, a=1)
    with pytest.raises(ValueError, match="must not be zero"):
        checkpoint_sequential([torch.sin], 2, x, use_reentrant=False)
    with pytest.raises(ZeroDivisionError):
        checkpoint_sequential([torch.sin], 0, x, use_reentrant=False)


# ---- random numbers, autocast, devices -------------------------------------------------------------------------------
def noisy(x):
    return (x * torch.rand(4) + torch.randn(4) * x).exp().sum()


def test_random_numbers_are_drawn_again(x, kind):
    torch.manual_seed(3)
    plain = gradient(noisy, x)
    after = torch.rand(1)
    torch.manual_seed(3)
    y = checkpoint(noisy, x, **kind)
    assert torch.equal(after, torch.rand(1))  # what follows draws what it would have drawn
    between = torch.get_rng_state()
    x.grad = None
    y.backward()
    assert torch.equal(x.grad, plain)
    assert torch.equal(between, torch.get_rng_state())  # the second run leaves no trace


@pytest.mark.parametrize("reentrant", [True, False])
def test_random_numbers_are_left_alone(x, reentrant):
    drawn = []

    def f(x):
        drawn.append(torch.rand(1).item())
        return x.exp().exp().sum()

    checkpoint(f, x, use_reentrant=reentrant, preserve_rng_state=False).backward()
    assert drawn[0] != drawn[1]


def test_generator_is_restored_after_an_error(x):
    def f(x):
        y = x.exp() * torch.rand(4)
        if f.fails:
            raise KeyError("second")
        return y.sum()

    f.fails = False
    y = checkpoint(f, x, use_reentrant=False)
    f.fails, state = True, torch.get_rng_state()
    with set_checkpoint_early_stop(False), pytest.raises(KeyError):
        checkpoint(f, x, use_reentrant=False)
    torch.set_rng_state(state)
    f.fails = True
    y2 = y
    with contextlib.suppress(KeyError):
        y2.backward()
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("reentrant", [True, False])
def test_autocast_is_restored(x, reentrant, monkeypatch):
    """As soon as there is an ``amp`` module that has been imported: whatever its state was."""
    state = {"enabled": False, "dtype": torch.bfloat16, "cache_enabled": True}
    seen = []

    @contextlib.contextmanager
    def autocast(device, **arguments):
        assert device == "cpu"
        before = dict(state)
        state.update(arguments)
        try:
            yield
        finally:
            state.update(before)

    root = sys.modules["flambeau"]
    monkeypatch.setitem(sys.modules, "flambeau.amp", types.SimpleNamespace(autocast=autocast))
    monkeypatch.setattr(root, "is_autocast_enabled", lambda device: state["enabled"], raising=False)
    monkeypatch.setattr(root, "get_autocast_dtype", lambda device: state["dtype"], raising=False)
    monkeypatch.setattr(root, "is_autocast_cache_enabled", lambda: state["cache_enabled"], raising=False)

    def f(x):
        seen.append(dict(state))
        return x.exp().sum()

    with autocast("cpu", enabled=True, dtype=torch.float16):
        y = checkpoint(f, x, use_reentrant=reentrant)
    y.backward()
    assert seen == [{"enabled": True, "dtype": torch.float16, "cache_enabled": True}] * 2
    assert state["enabled"] is False


def test_devices(monkeypatch):
    monkeypatch.setattr(DefaultDeviceType, "_type", None)
    assert DefaultDeviceType.get_device_type() == "cpu"
    DefaultDeviceType.set_device_type("meta")
    assert DefaultDeviceType.get_device_type() == "meta"
    DefaultDeviceType.set_device_type()
    assert DefaultDeviceType.get_device_type() == "cuda"
    assert get_device_states(torch.ones(1), "x", [torch.ones(1)]) == ([], [])
    assert set_device_states([], []) is None
    with pytest.raises((RuntimeError, AssertionError)):
        set_device_states([0], [torch.get_rng_state()])


# ---- early stop ------------------------------------------------------------------------------------------------------
def test_early_stop(x):
    reached = []

    def f(x):
        y = x.sin().cos()
        reached.append("saved")
        z = y * 2
        reached.append("end")
        return z

    gradient(lambda x: checkpoint(f, x, use_reentrant=False).sum(), x)
    assert reached == ["saved", "end"]  # the second run ended in cos()
    reached.clear()
    gradient(lambda x: checkpoint(f, x, use_reentrant=False, early_stop=False).sum(), x)
    assert reached == ["saved", "end", "saved", "end"]
    for switch, argument, runs in ((False, True, 2), (True, False, 1), (None, True, 1), (None, False, 2)):
        reached.clear()
        with set_checkpoint_early_stop(switch):
            y = checkpoint(f, x, use_reentrant=False, early_stop=argument)
        y.sum().backward()
        assert reached.count("end") == runs


def test_early_stop_passes_handlers_of_the_function(x):
    def f(x):
        try:
            return x.exp().sin()
        except Exception:
            pytest.fail("the end of the second run is nobody's business")

    gradient(lambda x: checkpoint(f, x, use_reentrant=False).sum(), x)


def test_early_stop_switch_is_put_back_after_an_error(x):
    with contextlib.suppress(KeyError), set_checkpoint_early_stop(False):
        raise KeyError
    f = Calls(lambda x: (x.sin(), f.calls.append(1))[0])
    f.calls = []
    gradient(lambda x: checkpoint(f, x, use_reentrant=False).sum(), x)
    assert len(f.calls) == 1


# ---- determinism -----------------------------------------------------------------------------------------------------
class Changing:
    """A function that does something else the second time."""

    def __init__(self, first, second):
        self.runs = [first, second, second]

    def __call__(self, *args):
        return self.runs.pop(0)(*args)


@pytest.mark.parametrize("early_stop", [True, False])
def test_fewer_tensors(x, early_stop):
    f = Changing(lambda x: x.sin().cos().sin(), lambda x: x.sin() * 2)
    y = checkpoint(f, x, use_reentrant=False, early_stop=early_stop).sum()
    with pytest.raises(
        CheckpointError,
        match=r"torch.utils.checkpoint: A different number of tensors was saved during the original forward and recomputation.\n"
        r"Number of tensors saved during forward: 3\nNumber of tensors saved during recomputation: 1\.",
    ) as e:
        y.backward()
    assert "debug=True" in str(e.value) and "test_checkpoint.py" in str(e.value)


def test_more_tensors(x):
    f = Changing(lambda x: x.sin(), lambda x: x.sin().cos())
    y = checkpoint(f, x, use_reentrant=False, early_stop=False).sum()
    with pytest.raises(CheckpointError, match="trying to save more tensors during recomputation than during the original forward pass"):
        y.backward()
    f = Changing(lambda x: x.sin(), lambda x: x.sin().cos())
    gradient(lambda x: checkpoint(f, x, use_reentrant=False).sum(), x)  # nobody gets there


@pytest.mark.parametrize("second", [lambda x: x[:2].sin(), lambda x: x.double().sin()], ids=["shape", "dtype"])
def test_other_metadata(x, second):
    y = checkpoint(Changing(lambda x: x.sin(), second), x, use_reentrant=False).sum()
    with pytest.raises(
        CheckpointError,
        match=r"torch.utils.checkpoint: Recomputed values for the following tensors have different metadata than during the forward "
        r"pass.\ntensor at position 0:\nsaved metadata: \{'shape': torch.Size\(\[3, 4\]\), 'dtype': torch.float32, 'device': "
        r"device\(type='cpu'\)\}\nrecomputed metadata: \{'shape': ",
    ):
        y.backward()


def test_unchecked_metadata(x):
    y = checkpoint(Changing(lambda x: x.sin(), lambda x: x.double().sin()), x, use_reentrant=False, determinism_check="none").sum()
    y.backward()
    assert torch.allclose(x.grad.double(), x.double().cos())


def test_error_is_a_runtime_error():
    assert issubclass(CheckpointError, RuntimeError)


# ---- debug -----------------------------------------------------------------------------------------------------------
def test_debug_lists_both_runs(x):
    def first(x):
        return x.sin().cos().sin()

    y = checkpoint(Changing(first, lambda x: x.exp() + x), x, use_reentrant=False, debug=True).sum()
    with pytest.raises(CheckpointError, match="An error happened while unpacking tensors") as e:
        y.backward()
    text = str(e.value)
    assert "torch.ops.aten.cos.default(f32[3, 4]) -> f32[3, 4]   (2 of 3 in original)" in text
    assert "torch.ops.aten.exp.default" in text and "in recompute" in text
    assert f"{__file__}:{first.__code__.co_firstlineno + 1}:first" in text
    assert "> torch.ops.aten.sin.default" in text and "> torch.ops.aten.exp.default" in text
    assert isinstance(e.value.__cause__, CheckpointError)


@pytest.mark.parametrize(("switch", "argument", "shown"), [(True, False, True), (False, True, False), (None, True, True)])
def test_debug_switch(x, switch, argument, shown):
    f = Changing(lambda x: x.sin().cos(), lambda x: x * 2)
    with set_checkpoint_debug_enabled(switch):
        y = checkpoint(f, x, use_reentrant=False, debug=argument).sum()
    with pytest.raises(CheckpointError) as e:
        y.backward()
    assert ("Operations executed during recomputation" in str(e.value)) == shown


# ---- passes ----------------------------------------------------------------------------------------------------------
def test_grad_with_chosen_inputs(x):
    w = torch.rand(4, requires_grad=True)
    y = checkpoint(lambda x: (x * w).exp().sin().sum(), x, use_reentrant=False)
    (gw,) = torch.autograd.grad(y, w, retain_graph=True)
    plain = torch.autograd.grad((x * w).exp().sin().sum(), (x, w))
    assert torch.equal(gw, plain[1])
    y.backward(inputs=[x])
    assert torch.equal(x.grad, plain[0]) and w.grad is None


def test_twice_with_retain_graph(x):
    f = Calls(network)
    y = checkpoint(f, x, use_reentrant=False)
    first = torch.autograd.grad(y, x, retain_graph=True)[0]
    second = torch.autograd.grad(y, x)[0]
    assert torch.equal(first, second) and f.n == 3
    with pytest.raises(RuntimeError, match="Trying to backward through the graph a second time"):
        y.backward()


def test_higher_derivatives(x):
    def orders(f):
        y = f(x)
        (g,) = torch.autograd.grad(y, x, create_graph=True)
        (h,) = torch.autograd.grad(g.sin().sum(), x, create_graph=True)
        return g, h, *torch.autograd.grad(h.exp().sum(), x)

    plain = orders(network)
    again = orders(lambda x: checkpoint(network, x, use_reentrant=False))
    assert all(torch.allclose(a, b) for a, b in zip(plain, again))


def test_gradcheck():
    x = torch.rand(3, dtype=torch.float64, requires_grad=True)
    f = lambda x: checkpoint(lambda x: (x.exp() * x.sin()).cumsum(0), x, use_reentrant=False)
    assert torch.autograd.gradcheck(f, x) and torch.autograd.gradgradcheck(f, x)


def test_backward_inside_the_function(x):
    def f(x):
        y = x.sin()
        (g,) = torch.autograd.grad(y.cos().sum(), x, create_graph=keep, retain_graph=keep)
        return (x.cos() * g + (y if keep else 0)).sum()

    for keep in (False, True):
        plain = gradient(f, x)
        for early_stop in (True, False):
            again = gradient(lambda x: checkpoint(f, x, use_reentrant=False, early_stop=early_stop), x)  # noqa: B023
            assert torch.allclose(plain, again)


def test_part_of_a_function_that_is_never_differentiated(x):
    def f(x):
        x.exp().sin()  # its holders die at once
        return x.cos()

    assert torch.equal(gradient(lambda x: checkpoint(f, x, use_reentrant=False).sum(), x), gradient(lambda x: x.cos().sum(), x))


def test_hooks(x, kind):
    seen = []

    def f(x):
        y = x.exp()
        if y.requires_grad:
            y.register_hook(lambda g: seen.append("inside") or g * 2)
        return y.sin().sum()

    y = checkpoint(f, x, **kind)
    x.register_hook(lambda g: seen.append("x"))
    y.register_hook(lambda g: seen.append("y"))
    y.backward()
    assert torch.allclose(x.grad, 2 * x.exp().cos() * x.exp())
    assert seen == ["y", "inside", "x"]


def test_module_hooks_run_both_times(x, kind):
    model = nn.Sequential(nn.Linear(4, 4), nn.Sigmoid())
    seen = []
    model[0].register_forward_pre_hook(lambda *a: seen.append("before"))
    model[0].register_full_backward_hook(lambda *a: seen.append("backward"))
    checkpoint(model, x, **kind).sum().backward()
    assert seen == ["before", "before", "backward"]


def test_own_saved_tensor_hooks_inside_and_outside(x):
    packed = []

    def pack(t):
        packed.append(t.shape)
        return t

    def f(x):
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            return x.sin().cos()

    plain = gradient(lambda x: x.sin().cos().sum(), x)
    assert torch.equal(gradient(lambda x: checkpoint(f, x, use_reentrant=False).sum(), x), plain)
    assert packed == [x.shape] * 2  # the innermost hooks have them: no checkpoint
    packed.clear()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        y = checkpoint(lambda x: x.sin().cos(), x, use_reentrant=False).sum()
    assert packed == [x.shape]  # the checkpoint's input
    assert torch.equal(torch.autograd.grad(y, x)[0], plain)


def test_custom_function_reads_its_saved_tensors_twice(x):
    class Twice(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x.sin()

        @staticmethod
        def backward(ctx, g):
            (a,), (_,) = ctx.saved_tensors, ctx.saved_tensors
            return g * a.cos()

    y = checkpoint(Twice.apply, x, use_reentrant=False).sum()
    with pytest.raises(CheckpointError, match="Unpack is being triggered for a tensor that was already unpacked once"):
        y.backward()


def test_saved_tensor_seen_between_passes(x):
    y = checkpoint(torch.sin, x, use_reentrant=False)
    assert torch.equal(y.grad_fn._saved_self, x) and torch.equal(y.grad_fn._saved_self, x)


# ---- errors ----------------------------------------------------------------------------------------------------------
def test_error_in_the_first_run(x, kind):
    def f(x):
        raise KeyError("first")

    with pytest.raises(KeyError, match="first"):
        checkpoint(f, x, **kind)
    assert torch.is_grad_enabled()
    assert gradient(lambda x: x.exp().sum(), x) is not None  # no hook is left behind


def test_error_in_the_second_run(x, kind):
    def fail(x):
        x.exp()
        raise KeyError("second")

    f = Changing(network, fail)
    y = checkpoint(f, x, **kind)
    with pytest.raises(KeyError, match="second"):
        y.backward(retain_graph=True)
    assert x.grad is None and torch.is_grad_enabled()
    f.runs = [network]
    y.backward()
    assert torch.equal(x.grad, gradient(network, x))


def test_input_that_was_changed(x):
    a = x * 1
    y = checkpoint(lambda a: a.exp().sum(), a, use_reentrant=False)
    with torch.no_grad():
        a.mul_(2)
    with pytest.raises(RuntimeError, match="has been modified by an inplace operation") as e:
        y.backward()
    assert "checkpoint" in str(e.value)


# ---- contexts --------------------------------------------------------------------------------------------------------
def test_context_fn(x):
    seen = []

    @contextlib.contextmanager
    def note(name):
        seen.append(f"{name} in")
        try:
            yield
        finally:
            seen.append(f"{name} out")

    y = checkpoint(lambda x: seen.append("f") or x.exp().sin(), x, use_reentrant=False, context_fn=lambda: (note("1"), note("2")))
    y.sum().backward()
    assert seen == ["1 in", "f", "1 out", "2 in", "f", "2 out"]
    assert [type(c) for c in noop_context_fn()] == [contextlib.nullcontext] * 2


def test_context_fn_is_not_entered_without_grad(x):
    def refuse():
        class Refuse:
            def __enter__(self):
                pytest.fail("entered")

            def __exit__(self, *e):
                pass

        return Refuse(), Refuse()

    with torch.no_grad():
        checkpoint(torch.sin, x, use_reentrant=False, context_fn=refuse)


def test_context_that_swallows_an_error(x):
    def f(x):
        raise KeyError

    with pytest.raises(RuntimeError, match="the forward context provided by context_fn suppressed an exception"):
        checkpoint(f, x, use_reentrant=False, context_fn=lambda: (contextlib.suppress(KeyError), contextlib.nullcontext()))


# ---- nesting ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("outer", [True, False])
@pytest.mark.parametrize("inner", [True, False])
@pytest.mark.parametrize("early_stop", [True, False])
def test_nested(x, outer, inner, early_stop):
    def part(x):
        return x.exp().sin() * x

    def f(x):
        a = checkpoint(part, x.cos(), use_reentrant=inner, early_stop=early_stop)
        b = checkpoint(lambda a: checkpoint(part, a.tanh(), use_reentrant=inner, early_stop=early_stop), a, use_reentrant=inner)
        return (a * b).sigmoid().sum()

    plain = gradient(lambda x: ((a := part(x.cos())) * part(a.tanh())).sigmoid().sum(), x)
    assert torch.allclose(gradient(lambda x: checkpoint(f, x, use_reentrant=outer, early_stop=early_stop), x), plain)


def test_nested_runs(x):
    """Of three checkpoints inside one another, the innermost function runs once for each around it, and once first."""
    inner = Calls(lambda x: x.exp().sin())
    middle = Calls(lambda x: checkpoint(inner, x.cos(), use_reentrant=False))
    outer = Calls(lambda x: checkpoint(middle, x.tanh(), use_reentrant=False).sum())
    gradient(lambda x: checkpoint(outer, x, use_reentrant=False), x)
    assert (outer.n, middle.n, inner.n) == (2, 2, 2)
    with set_checkpoint_early_stop(False):
        for c in (inner, middle, outer):
            c.n = 0
        gradient(lambda x: checkpoint(outer, x, use_reentrant=False), x)
    assert (outer.n, middle.n, inner.n) == (2, 3, 4)


def test_nested_higher_derivatives(x):
    def f(x):
        return checkpoint(lambda x: x.exp().sin(), x.cos(), use_reentrant=False).tanh().sum()

    def second(f):
        (g,) = torch.autograd.grad(f(x), x, create_graph=True)
        return torch.autograd.grad(g.exp().sum(), x)[0]

    plain = second(lambda x: x.cos().exp().sin().tanh().sum())
    assert torch.allclose(second(lambda x: checkpoint(f, x, use_reentrant=False)), plain)


def test_nested_deep(x):
    def level(n):
        return lambda x: x.sin() if n == 0 else checkpoint(level(n - 1), x.cos(), use_reentrant=False)

    plain = x.detach().requires_grad_()
    y = plain
    for _ in range(12):
        y = y.cos()
    y.sin().sum().backward()
    assert torch.allclose(gradient(lambda x: level(12)(x).sum(), x), plain.grad)


def test_threads():
    """Passes at once over one graph, and over graphs of their own."""
    x = torch.rand(20, 20, requires_grad=True)
    shared = checkpoint(network, x, use_reentrant=False)
    (plain,) = torch.autograd.grad(network(x), x)
    wrong = []

    def work():
        for _ in range(5):
            for y in (shared, checkpoint(network, x, use_reentrant=False)):
                (g,) = torch.autograd.grad(y, x, retain_graph=True)
                if not torch.equal(g, plain):
                    wrong.append(g)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert wrong == []


def test_forward_mode_through_a_checkpoint(x):
    fwd = torch.autograd.forward_ad
    t = torch.rand(3, 4)
    with fwd.dual_level():
        y = checkpoint(lambda x: x.sin().exp(), fwd.make_dual(x, t), use_reentrant=False)
        tangent = fwd.unpack_dual(y).tangent
    assert torch.allclose(tangent, x.sin().exp() * x.cos() * t)


# ---- groups ----------------------------------------------------------------------------------------------------------
def two_ends(x, y):
    return x.exp().sin(), y.exp().cos()


def test_group_computes_once():
    x, y = torch.rand(3, requires_grad=True), torch.rand(3, requires_grad=True)
    f = Calls(two_ends)
    a, b = checkpoint(f, x, y, use_reentrant=False)
    with GraphExecGroup():
        a.sum().backward()
        b.sum().backward()
    assert f.n == 2
    a, b = checkpoint(f, x, y, use_reentrant=False)
    a.sum().backward()
    b.sum().backward()
    assert f.n == 5


def test_group_refuses_overlap_and_nesting(x):
    y = checkpoint(network, x, use_reentrant=False)
    with GraphExecGroup():
        y.backward(retain_graph=True)
        with pytest.raises(CheckpointError, match="Performing two backward calls that overlap"):
            y.backward(retain_graph=True)
        with pytest.raises(RuntimeError, match="GraphExecGroup contexts cannot be nested"), GraphExecGroup():
            pass
    with pytest.raises(RuntimeError), GraphExecGroup():
        raise RuntimeError
    y.backward()


# ---- memory ----------------------------------------------------------------------------------------------------------
@pytest.fixture
def no_collector():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


LAYERS = {
    "pointwise": lambda x: (x * x).sin(),
    "from the output": lambda x: x.exp().tanh().sqrt(),
    "products": lambda x: (x @ x.t()) @ x,
    "softmax": lambda x: x.softmax(1) * x,
    "layer norm": lambda x: nn.functional.layer_norm(x.exp(), (4,)),
    "dropout": lambda x: nn.functional.dropout(x.exp(), 0.5),
    "in place": lambda x: x.sin().mul_(2).relu_() * x,
}


@pytest.mark.parametrize("name", LAYERS)
def test_intermediate_results_die(x, name, kind, no_collector):
    """What is made inside is gone when the function has run, and again after the backward pass."""
    made = []

    def f(x):
        for _ in range(3):
            x = LAYERS[name](x)
            made.append(weakref.ref(x._a))
            if x.grad_fn is not None:
                made.append(weakref.ref(x.grad_fn))
        return x.sum()

    y = checkpoint(f, x, **kind)
    arrays = [r() for r in made if r() is not None and not hasattr(r(), "next_functions")]
    assert arrays == []
    y.backward(retain_graph=not kind["use_reentrant"])
    assert [r() for r in made if r() is not None and not hasattr(r(), "next_functions")] == []
    del y
    assert [r() for r in made if r() is not None] == []


def test_inputs_die_with_the_graph(x, kind, no_collector):
    a = x * 2
    ref = weakref.ref(a)
    y = checkpoint(network, a, **kind)
    del a
    assert ref() is not None
    y.backward()
    assert ref() is None or kind["use_reentrant"]
    del y
    assert ref() is None


def test_graph_dies_without_backward(x, kind, no_collector):
    a = x * 2
    refs = [weakref.ref(a), weakref.ref(a.grad_fn)]
    y = checkpoint(lambda a: checkpoint(network, a.sin(), **kind), a, **kind)
    refs.append(weakref.ref(y.grad_fn))
    del a, y
    assert [r() for r in refs] == [None] * 3


def test_failed_second_run_leaves_nothing(x, no_collector):
    made = []

    def fail(x):
        y = x.exp()
        made.append(weakref.ref(y))
        raise KeyError

    y = checkpoint(Changing(network, fail), x, use_reentrant=False)
    with contextlib.suppress(KeyError):
        y.backward()
    assert made[0]() is None


@pytest.mark.parametrize("segments", [4, 8, 16])
def test_memory_falls_to_the_root_of_the_depth(segments, no_collector):
    """Of 64 layers' results, only those at the borders and those of one segment are alive at once."""
    made, alive = [], []

    def layer(x):
        y = x.sin()
        made.append(weakref.ref(y._a))
        alive.append(sum(r() is not None for r in made))
        if y.requires_grad:
            y.register_hook(lambda g: alive.append(sum(r() is not None for r in made)))
        return y

    def most(run):
        made.clear()
        alive.clear()
        run(torch.ones(2, requires_grad=True)).sum().backward()
        return max(alive)

    assert most(nn.Sequential(*[Layer(layer) for _ in range(64)])) == 64
    functions = [layer] * 64
    for kind in ({"use_reentrant": False}, {"use_reentrant": True}):
        assert most(lambda x: checkpoint_sequential(functions, segments, x, **kind)) <= segments + 64 // segments + 2  # noqa: B023


class Layer(nn.Module):
    def __init__(self, f):
        super().__init__()
        self.f = f

    def forward(self, x):
        return self.f(x)
