"""A graph dies by reference counting, at the moment its output does."""

import contextlib
import gc
import importlib
import pathlib
import warnings
import weakref

import numpy as np
import pytest

import flambeau as torch
from tests.ops.harness import OperatorTests, differentiable, flat, tensor

Function = torch.autograd.Function


@contextlib.contextmanager
def without_collector():
    """Nothing but reference counts frees memory inside."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def reachable(*nodes):
    seen, stack = {}, [n for n in nodes if n is not None]
    while stack:
        n = stack.pop()
        if id(n) not in seen:
            seen[id(n)] = n
            stack += [m for m in n.next if m is not None]
    return list(seen.values())


def watch(*tensors):
    """Weak references to all nodes behind the tensors but those of leaves."""
    nodes = reachable(*[t.grad_fn for t in tensors if t.requires_grad])
    return [weakref.ref(n) for n in nodes if type(n).__name__ != "AccumulateGrad"]


def alive(refs):
    return sorted({r().name() for r in refs if r() is not None})


# ---- every operator --------------------------------------------------------------------------------------------------
FILES = sorted(p.stem for p in (pathlib.Path(__file__).parent.parent / "ops").glob("test_*.py"))


def cases(file):
    module = importlib.import_module(f"tests.ops.{file}")
    classes = [v for v in vars(module).values() if isinstance(v, type) and issubclass(v, OperatorTests)]
    return {id(c): c for cls in classes for c in cls.cases if c.grad}.values()


def forward(F, case):
    ts = [tensor(a, a.dtype.kind == "f") for a in case.arrays("float64")]
    return ts, differentiable(case.fn(F, *ts))


def left_over(F, case, run):
    ts, outs = forward(F, case)
    refs = watch(*outs)
    if run == "forward":
        del ts, outs
        return alive(refs)
    seeds = [tensor(np.ones_like(o._a)) for o in outs]
    wanted = [t for t in ts if t._rg]
    create = run == "double"
    grads = [g for g in torch.autograd.grad(outs, wanted, seeds, create_graph=create, allow_unused=True) if g is not None]
    refs += watch(*grads)
    if create and case.second:
        roots = [g for g in grads if g.requires_grad]
        if roots:
            last = torch.autograd.grad(roots, wanted, [tensor(np.ones_like(g._a)) for g in roots], allow_unused=True)
            del last
        del roots
    del ts, outs, seeds, wanted, grads
    return alive(refs)


@pytest.mark.parametrize("run", ["forward", "backward", "double"])
@pytest.mark.parametrize("file", FILES)
def test_graphs_of_every_operator(file, run):
    from tests.ops.harness import F

    wrong = {}
    with warnings.catch_warnings(), without_collector():
        warnings.simplefilter("ignore")
        for case in cases(file):
            if left_over(F, case, run) and (left := left_over(F, case, run)):  # the first time, things may be set up
                wrong[case.name] = left
    assert not wrong


# ---- everything else -------------------------------------------------------------------------------------------------
class Square(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return 2 * g * x


class SavesItsOutput(Function):
    @staticmethod
    def forward(ctx, x):
        y = x.exp()
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, g):
        (y,) = ctx.saved_tensors
        return g * y


class SetUp(Function):
    @staticmethod
    def forward(x, n):
        return x * n, x + n

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.n = inputs[1]
        ctx.save_for_backward(inputs[0], output[0])

    @staticmethod
    def backward(ctx, g, h):
        return g * ctx.n + h, None


class InPlace(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.mark_dirty(x)
        x.mul_(2)
        return x

    @staticmethod
    def backward(ctx, g):
        return g * 2


class ReturnsItsInput(Function):
    @staticmethod
    def forward(ctx, x):
        return x

    @staticmethod
    def backward(ctx, g):
        return g


class ReturnsAView(Function):
    @staticmethod
    def forward(ctx, x):
        return x.view(3, 2)

    @staticmethod
    def backward(ctx, g):
        return g.reshape(-1)


def change(t, by):
    by(t)
    return t


def hooked(x):
    y = x * 2
    y.register_hook(lambda g: g * 2)
    y.grad_fn.register_hook(lambda grads, outs: None)
    y.grad_fn.register_prehook(lambda grads: None)
    y.grad_fn.metadata["note"] = y.shape
    return y.exp().sum()


def retained(x):
    y = x.exp()
    y.retain_grad()
    return y.sin().sum()


def removed(x):
    y = x.exp()
    handle = y.register_hook(lambda g: g)
    out = y.sum()
    handle.remove()
    return out


def packed(x, pack, unpack):
    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        return (x.exp() * x).tanh().sum()


def raw_hooks(x):
    y = x.exp() * x
    y.grad_fn._raw_saved_other.register_hooks(lambda t: t.clone(), lambda t: t)
    z = y.exp()
    z.grad_fn._raw_saved_result.register_hooks(lambda t: t.clone(), lambda t: t)
    return z.sum()


def introspected(x):
    y = (x.exp() * x)[1:].sum()
    for node in reachable(y.grad_fn):
        for name in dir(node):
            if name.startswith(("_saved_", "_raw_saved_")):
                getattr(node, name)
        assert node.next_functions is not None and node.metadata is not None and repr(node)
    assert y.grad_fn._input_metadata[0].shape == ()
    return y


def view_before_change(x):
    b = x * 1
    v = b[1:4]
    w = v[1:]
    b.mul_(2)
    v.add_(w.sum())
    return b.sum() + v.sum() + w.exp().sum()


def inner_gradient(x):
    (g,) = torch.autograd.grad((x.exp() * x).sum(), x, create_graph=True)
    return g.pow(2).sum()


def twice(x):
    (g,) = torch.autograd.grad(Square.apply(x.sin()).sum(), x, create_graph=True)
    (h,) = torch.autograd.grad(g.tanh().sum(), x, create_graph=True)
    return h.sum()


def dual(x):
    forward = torch.autograd.forward_ad
    with forward.dual_level():
        d = forward.make_dual(x, torch.ones(6))
        y = (d.exp() * d).sum()
        primal, tangent = forward.unpack_dual(y)
    return primal + tangent


def sine(a):
    return (a * a).sin()


def sum_of_sines(a):
    return sine(a).sum()


def multi_hooked(x):
    torch.autograd.graph.register_multi_grad_hook((x,), lambda grads: None)
    return x.exp().sum()


PROGRAMS = {
    "chain": lambda x: ((x * 2 + 1).exp().sin() * x).sum(),
    "saved outputs": lambda x: x.exp().tanh().sigmoid().sqrt().sum(),
    "views": lambda x: x.view(2, 3).t()[1].sum(),
    "in place": lambda x: (x * 1).add_(x).mul_(2).exp_().sum(),
    "copy slices": lambda x: change(x * 1, lambda y: y[1:3].mul_(x.detach()[3:5])).sum(),
    "copy slices by a tensor": lambda x: change(x * 1, lambda y: y[1:3].mul_(x[3:5])).sum(),
    "written": lambda x: change(x * 1, lambda y: y.__setitem__(slice(2), x[4:])).exp().sum(),
    "written constants": lambda x: change(torch.zeros(6), lambda y: y.__setitem__(slice(2), x[4:])).exp().sum(),
    "copy_": lambda x: change(torch.zeros(6), lambda y: y.copy_(x)).exp().sum(),
    "views before a change": view_before_change,
    "several views": lambda x: sum(p.sum() for p in x.split(2)) + x.unbind()[2],
    "hooks": hooked,
    "a hook that was removed": removed,
    "retain_grad": retained,
    "saved_tensors_hooks": lambda x: packed(x, lambda t: t.numpy().copy(), torch.from_numpy),
    "saved_tensors_hooks, as it is": lambda x: packed(x, lambda t: t, lambda t: t),
    "saved_tensors_hooks, in a list": lambda x: packed(x, lambda t: [t], lambda s: s[0]),
    "hooks of saved tensors": raw_hooks,
    "asked for everything": introspected,
    "Function": lambda x: Square.apply(Square.apply(x)).sum(),
    "Function that saves its output": lambda x: SavesItsOutput.apply(x).sum(),
    "Function with setup_context": lambda x: sum(t.sum() for t in SetUp.apply(x, 3)),
    "Function in place": lambda x: InPlace.apply(x * 1).sum(),
    "Function in place on a view": lambda x: change(x * 1, lambda y: InPlace.apply(y[:2])).sum(),
    "Function that returns its input": lambda x: ReturnsItsInput.apply(x).sum(),
    "Function that returns a view": lambda x: ReturnsAView.apply(x).sum(),
    "gradient": inner_gradient,
    "gradient of a gradient": twice,
    "forward mode": dual,
    "func.grad": lambda x: torch.func.grad(sum_of_sines)(x).sum(),
    "func.vjp": lambda x: torch.func.vjp(sine, x)[1](torch.ones(6))[0].sum(),
    "func.vmap": lambda x: torch.func.vmap(sine)(x.view(2, 3)).sum(),
    "func.vmap of func.grad": lambda x: torch.func.vmap(torch.func.grad(sum_of_sines))(x.view(2, 3)).sum(),
    "func.hessian": lambda x: torch.func.hessian(sum_of_sines)(x).sum(),
    "func.jacfwd": lambda x: torch.func.jacfwd(sine)(x).sum(),
    "functional.hessian": lambda x: torch.autograd.functional.hessian(sum_of_sines, x, create_graph=True).sum(),
    "functional.jacobian": lambda x: torch.autograd.functional.jacobian(sine, x, create_graph=True).sum(),
    "register_multi_grad_hook": multi_hooked,
    "LSTM": lambda x: torch.nn.LSTM(3, 2)(x.view(2, 1, 3))[0].sum(),
    "attention": lambda x: torch.nn.MultiheadAttention(6, 2)(*[x.view(1, 1, 6)] * 3)[0].sum(),
    "module": lambda x: torch.nn.functional.layer_norm(x.view(2, 3), (3,)).softmax(1).max(1)[0].sum(),
}  # fmt: skip


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("run", ["forward", "backward", "double"])
def test_graph_dies_with_its_output(name, run):
    x = torch.rand(6, requires_grad=True)
    PROGRAMS[name](x)  # kernels and plans are made on first use
    with without_collector():
        y = PROGRAMS[name](x)
        refs = watch(y)
        if run == "backward":
            y.backward()
        elif run == "double":
            (g,) = torch.autograd.grad(y, x, create_graph=True)
            if g.requires_grad:
                refs += watch(g)
                g.sum().backward()
            del g
        del y
        assert alive(refs) == []


@pytest.mark.parametrize("name", PROGRAMS)
def test_leaves_and_outputs_die_too(name):
    PROGRAMS[name](torch.rand(6, requires_grad=True))
    with without_collector():
        x = torch.rand(6, requires_grad=True)
        y = PROGRAMS[name](x)
        refs = [weakref.ref(t) for t in (x, y, y.grad_fn)]
        y.backward()
        del y
        assert refs[1]() is refs[2]() is None
        del x
        assert refs[0]() is None


def test_hooks_of_leaves():
    with without_collector():
        x = torch.rand(6, requires_grad=True)
        x.register_hook(lambda g: g * 2)
        handle = x.register_post_accumulate_grad_hook(lambda t: None)
        x.exp().sum().backward()
        ref = weakref.ref(x)
        del x
        assert ref() is None
        del handle


def test_what_a_hook_holds_dies_with_the_graph():
    class Held:
        pass

    with without_collector():
        x = torch.rand(2, requires_grad=True)
        held = Held()
        ref = weakref.ref(held)
        y = x * 2
        y.register_hook(lambda g, held=held: None)
        y.grad_fn.register_hook(lambda i, o, held=held: None)
        del held
        assert ref() is not None
        del y
        assert ref() is None


def test_anomaly_mode():
    x = torch.rand(6, requires_grad=True)
    if not hasattr(torch.autograd, "detect_anomaly"):
        pytest.skip("detect_anomaly is not there")
    with warnings.catch_warnings(), without_collector():
        warnings.simplefilter("ignore")
        with torch.autograd.detect_anomaly():
            y = (x.exp() * x).sum()
            (g,) = torch.autograd.grad(y, x, create_graph=True)
            refs = watch(y, g)
            g.sum().backward()
        del y, g
        assert alive(refs) == []


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("run", ["forward", "backward"])
def test_checkpoint(reentrant, run):
    checkpoint = pytest.importorskip("flambeau.utils.checkpoint").checkpoint

    def program(x):
        return checkpoint(lambda t: (t.exp() * t).tanh(), x * 1, use_reentrant=reentrant).sum()

    x = torch.rand(6, requires_grad=True)
    program(x).backward()
    with without_collector():
        y = program(x)
        refs = watch(y)
        if run == "backward":
            y.backward()
        del y
        assert alive(refs) == []


def test_a_failed_pass_keeps_nothing():
    class Fails(Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        def backward(ctx, g):
            raise ValueError("no")

    x = torch.rand(3, requires_grad=True)
    with without_collector():
        y = Fails.apply(x.exp()).sum()
        refs = watch(y)
        try:
            y.backward()
        except ValueError:
            pass
        del y
        assert alive(refs) == []


def test_backward_frees_what_was_saved():
    with without_collector():
        x = torch.ones(2, requires_grad=True)
        big = torch.ones(2)
        y = x * big
        ref = weakref.ref(big)
        del big
        assert ref() is not None
        z = y.sum()
        z.backward()
        assert ref() is None and y.grad_fn is not None


def test_a_graph_of_a_hundred_thousand_nodes_dies_without_recursion():
    with without_collector():
        x = torch.ones(1, requires_grad=True)
        y = x
        for _ in range(100_000):
            y = y + 1
        ref = weakref.ref(y.grad_fn)
        del y
        assert ref() is None


def test_a_cycle_would_be_seen():
    with without_collector():
        y = torch.rand(2, requires_grad=True) * 2
        y.grad_fn.metadata["made"] = y
        refs = watch(y)
        del y
        assert alive(refs) == ["MulBackward0"]
        refs[0]().metadata.clear()
        assert alive(refs) == []


def test_every_kind_of_node_was_met():
    """What the operators' cases build, over all files: most of the node classes that exist."""
    from flambeau.autograd.pointwise import PointwiseNode
    from flambeau.autograd.primitive import PrimitiveNode
    from tests.ops.harness import F

    met = set()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for file in FILES:
            for case in cases(file):
                ts, outs = forward(F, case)
                met |= {type(n) for o in flat(outs) for n in reachable(o.grad_fn)}
    assert sum(issubclass(c, PrimitiveNode) for c in met) > 100 and sum(issubclass(c, PointwiseNode) for c in met) > 100
