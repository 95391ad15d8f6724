"""The same programs on flambeau and on PyTorch: what runs how often, what is refused in which words, what comes out."""

import contextlib
import functools
import warnings

import pytest

import flambeau
import flambeau.utils.checkpoint


def values(t):
    return [round(float(v), 5) for v in t.detach().reshape(-1)]


def start(torch):
    return (torch.arange(6.0).reshape(2, 3) / 7).requires_grad_()


def attempt(f):
    """What f returns, or the error's first line."""
    try:
        return f()
    except Exception as e:
        kind = "CheckpointError" if type(e).__name__ == "CheckpointError" else type(e).__mro__[-3].__name__
        return kind, str(e).splitlines()[0].removesuffix(".")[:70]


def counted(f, calls):
    @functools.wraps(f)
    def g(*args, **kwargs):
        calls.append(f.__name__)
        return f(*args, **kwargs)

    return g


def part(x):
    return x.sin().cos() * x


def runs(torch, C, **arguments):
    x, calls = start(torch), []
    C.checkpoint(counted(part, calls), x, **arguments).sum().backward()
    return calls, values(x.grad)


def nested(torch, C, outer, inner, early_stop):
    x, calls = start(torch), []

    def core(x):
        return part(x)

    def shell(x):
        a = C.checkpoint(counted(core, calls), x.cos(), use_reentrant=inner)
        return C.checkpoint(counted(part, calls), a.tanh(), use_reentrant=inner).sin()

    with C.set_checkpoint_early_stop(early_stop):
        y = C.checkpoint(counted(shell, calls), x, use_reentrant=outer).sum()
    result = attempt(lambda: y.backward())
    return calls, result, None if x.grad is None else values(x.grad)


def changed(torch, C, first, second, **arguments):
    x, both = start(torch), [first, second]
    y = C.checkpoint(lambda x: both.pop(0)(x), x, use_reentrant=False, **arguments).sum()
    return attempt(lambda: (y.backward(), values(x.grad))[1])


def twice(torch, C, retain, group):
    x, calls = start(torch), []
    y = C.checkpoint(counted(part, calls), x, use_reentrant=False).sum()
    out = []
    with C.GraphExecGroup() if group else contextlib.nullcontext():
        for _ in range(2):
            out.append(attempt(lambda: y.backward(retain_graph=retain)))
    return calls, out, values(x.grad)


def grad(torch, C, reentrant):
    x = start(torch)
    y = C.checkpoint(part, x, use_reentrant=reentrant).sum()
    return attempt(lambda: values(torch.autograd.grad(y, x)[0])), attempt(lambda: y.backward(inputs=[x]))


def second_derivative(torch, C):
    x, calls = start(torch), []
    y = C.checkpoint(counted(part, calls), x, use_reentrant=False).sum()
    (g,) = torch.autograd.grad(y, x, create_graph=True)
    return calls, values(torch.autograd.grad(g.sum(), x)[0]), len(calls)


def backward_inside(torch, C, early_stop, retain):
    x, calls = start(torch), []

    def f(x):
        y = x.sin()
        (g,) = torch.autograd.grad(y.cos().sum(), x, retain_graph=retain)
        return x.cos() * g

    y = C.checkpoint(counted(f, calls), x, use_reentrant=False, early_stop=early_stop).sum()
    return attempt(lambda: y.backward()), calls, None if x.grad is None else values(x.grad)


def warned(torch, C, reentrant, needs):
    x = start(torch).detach().requires_grad_(needs)
    with warnings.catch_warnings(record=True) as w:
        warnings.simplefilter("always")
        y = C.checkpoint(part, x, **({} if reentrant is None else {"use_reentrant": reentrant}))
    return sorted((m.category.__name__, str(m.message)[:75]) for m in w), y.requires_grad


def arguments(torch, C, **given):
    x = start(torch)
    return attempt(lambda: values(C.checkpoint(part, x, **given)))


def keywords(torch, C):
    x, b = start(torch), start(torch)
    C.checkpoint(lambda x, *, b, n: (x.sin() * b.cos()).sum() * n, x, b=b, n=3, use_reentrant=False).backward()
    return values(x.grad), values(b.grad)


def outputs(torch, C, reentrant):
    x = start(torch)
    out = C.checkpoint(lambda x, n: (x.sin(), n, None, x.detach(), {"a": x * 2}), x, 5, use_reentrant=reentrant)
    return [type(o).__name__ for o in out], [getattr(o, "requires_grad", None) for o in out], type(out).__name__


def sequential(torch, C, layers, segments, reentrant):
    x, calls = start(torch), []
    fs = [counted(functools.update_wrapper(lambda x: x.sin(), part), calls) for _ in range(layers)]
    result = attempt(lambda: C.checkpoint_sequential(fs, segments, x, use_reentrant=reentrant).sum().backward())
    return result, len(calls), None if x.grad is None else values(x.grad)


def input_changed(torch, C):
    x = start(torch)
    a = x * 1
    y = C.checkpoint(part, a, use_reentrant=False).sum()
    a.detach().add_(1)
    kind, phrase = attempt(lambda: y.backward())
    return kind, phrase[:60]


def policy(torch, C, kept, passes=1, mutate=None, allow=False):
    x, seen = start(torch), []
    aten = torch.ops.aten

    def choose(ctx, op, *args, **kwargs):
        seen.append(str(op))
        return C.CheckpointPolicy.MUST_SAVE if op in [getattr(getattr(aten, k), "default") for k in kept] else C.CheckpointPolicy.PREFER_RECOMPUTE

    def f(x):
        a = (x @ x.t()).sin()
        b = a.exp() @ x
        if mutate:
            a.detach().add_(1.0)
        return b.cos()

    context = functools.partial(C.create_selective_checkpoint_contexts, choose, allow_cache_entry_mutation=allow)
    y = C.checkpoint(f, x, use_reentrant=False, context_fn=context).sum()
    out = [attempt(lambda: y.backward(retain_graph=True)) for _ in range(passes)]
    wanted = [s for s in seen if s.split(".")[1] in ("mm", "sin", "exp", "cos")]
    return out, wanted, None if x.grad is None else values(x.grad)


def validity(torch, C):
    x = start(torch)
    with warnings.catch_warnings(record=True) as w:
        warnings.simplefilter("always")
        C.check_backward_validity([x.detach(), 3])
    return [str(m.message) for m in w], [
        attempt(lambda: C.detach_variable(x)), attempt(lambda: C.create_selective_checkpoint_contexts(3)),
        C.get_device_states(x), C.DefaultDeviceType.get_device_type(), [p.name for p in C.CheckpointPolicy],
    ]  # fmt: skip


def contexts(torch, C, grad_mode):
    x, seen = start(torch), []

    @contextlib.contextmanager
    def note(name):
        seen.append(name)
        yield
        seen.append(name + " end")

    with torch.set_grad_enabled(grad_mode):
        y = C.checkpoint(counted(part, seen), x, use_reentrant=False, early_stop=False, context_fn=lambda: (note("1"), note("2")))
    if grad_mode:
        y.sum().backward()
    return seen


SIN = lambda x: x.sin().cos()
SCENARIOS = {
    "hooks": (runs, {"use_reentrant": False}), "reentrant": (runs, {"use_reentrant": True}),
    "to the end": (runs, {"use_reentrant": False, "early_stop": False}),
    "unchecked": (runs, {"use_reentrant": False, "determinism_check": "none"}),
    "debug": (runs, {"use_reentrant": False, "debug": True}),
    **{
        f"nested {outer} {inner} {stop}": (nested, {"outer": outer, "inner": inner, "early_stop": stop})
        for outer in (True, False) for inner in (True, False) for stop in (True, False)
    },
    "fewer": (changed, {"first": SIN, "second": lambda x: x.sin()}),
    "none": (changed, {"first": SIN, "second": lambda x: x * 2}),
    "fewer, to the end": (changed, {"first": SIN, "second": lambda x: x.sin(), "early_stop": False}),
    "more": (changed, {"first": lambda x: x.sin(), "second": SIN}),
    "more, to the end": (changed, {"first": lambda x: x.sin(), "second": SIN, "early_stop": False}),
    "other shape": (changed, {"first": SIN, "second": lambda x: x[:1].sin().cos()}),
    "other dtype": (changed, {"first": SIN, "second": lambda x: x.double().sin().cos()}),
    **{f"twice {r} {g}": (twice, {"retain": r, "group": g}) for r in (True, False) for g in (True, False)},
    "grad": (grad, {"reentrant": False}), "grad, reentrant": (grad, {"reentrant": True}),
    "second derivative": (second_derivative, {}),
    **{
        f"backward inside {stop} {keep}": (backward_inside, {"early_stop": stop, "retain": keep})
        for stop in (True, False) for keep in (True, False)
    },
    **{f"warned {r} {n}": (warned, {"reentrant": r, "needs": n}) for r in (True, False, None) for n in (True, False)},
    "argument check": (arguments, {"use_reentrant": False, "determinism_check": "x"}),
    "argument keyword": (arguments, {"use_reentrant": True, "b": 1}),
    "argument unknown keyword": (arguments, {"use_reentrant": False, "b": 1}),
    "argument debug": (arguments, {"use_reentrant": True, "debug": True}),
    "argument context": (arguments, {"use_reentrant": True, "context_fn": lambda: None}),
    "argument both": (arguments, {"use_reentrant": False, "debug": True, "context_fn": lambda: None}),
    "keywords": (keywords, {}), "outputs": (outputs, {"reentrant": False}), "outputs, reentrant": (outputs, {"reentrant": True}),
    **{
        f"sequential {n} {s} {r}": (sequential, {"layers": n, "segments": s, "reentrant": r})
        for n, s in ((5, 1), (5, 2), (6, 3), (5, 5), (2, 3), (2, 0)) for r in (True, False)
    },
    "input changed": (input_changed, {}),
    "policy mm": (policy, {"kept": ["mm"]}), "policy all": (policy, {"kept": ["mm", "sin", "exp"]}), "policy none": (policy, {"kept": []}),
    "policy twice": (policy, {"kept": ["mm"], "passes": 2}), "policy changed": (policy, {"kept": ["sin"], "mutate": True}),
    "policy changed, allowed": (policy, {"kept": ["sin"], "mutate": True, "allow": True}),
    "validity": (validity, {}), "contexts": (contexts, {"grad_mode": True}), "contexts, no grad": (contexts, {"grad_mode": False}),
}  # fmt: skip


@pytest.mark.torch
@pytest.mark.parametrize("name", SCENARIOS)
def test_as_pytorch(name):
    torch = pytest.importorskip("torch")
    pytest.importorskip("torch.utils.checkpoint")

    program, given = SCENARIOS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = program(torch, torch.utils.checkpoint, **given)
        ours = program(flambeau, flambeau.utils.checkpoint, **given)
    assert str(ours) == str(theirs)
