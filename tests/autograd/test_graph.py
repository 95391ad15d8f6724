"""What the graph saves: hooks, copies before changes. Nearly every test runs on flambeau and on PyTorch."""

import gc
import weakref

import pytest

import flambeau


@pytest.fixture(params=["flambeau", pytest.param("torch", marks=pytest.mark.torch)])
def T(request):
    return flambeau if request.param == "flambeau" else pytest.importorskip("torch")


def leaf(T, *values, **kwargs):
    return T.tensor(values, requires_grad=True, **{"dtype": T.float32} | kwargs)


def gradient(T, pack, unpack, f=lambda x: (x * x).sum(), x=None):
    x = leaf(T, 3, 3) if x is None else x
    with T.autograd.graph.saved_tensors_hooks(pack, unpack):
        y = f(x)
    y.backward()
    return x.grad.tolist()


# ---- saved_tensors_hooks --------------------------------------------------------------------------------------------
def test_saved_tensors_hooks(T):
    x = leaf(T, 3, 3)
    packed, unpacked = [], []
    with T.autograd.graph.saved_tensors_hooks(lambda t: packed.append(t.tolist()) or t.tolist(), lambda v: unpacked.append(v) or T.tensor(v)):
        y = x * x
        z = y.exp()
    assert packed == [[3, 3], [3, 3], z.tolist()] and not unpacked
    z.sum().backward()
    assert sorted(unpacked) == sorted(packed)
    assert x.grad.tolist() == pytest.approx((6 * z).tolist())


def test_what_the_pack_hook_is_given(T):
    x = leaf(T, 3, 3)
    seen = []
    with T.autograd.graph.saved_tensors_hooks(lambda t: seen.append((t is x, t.requires_grad, T.is_grad_enabled())) or t.detach(), lambda t: t):
        y = x * x
        y * x
    assert sorted(seen) == [(False, True, False)] + [(True, True, False)] * 3


def test_unpacked_values_are_what_counts(T):
    assert gradient(T, lambda t: 5, lambda p: T.full((2,), 7.0)) == [14, 14]
    assert gradient(T, lambda t: None, lambda p: T.full((2,), 7.0, dtype=T.float64)) == [14, 14]
    assert gradient(T, lambda t: t.detach(), lambda t: t * 2) == [12, 12]


def test_wrong_hooks(T):
    with pytest.raises(TypeError, match="Output of saved tensor unpack_hook expected to be a Tensor but got result of type int"):
        gradient(T, lambda t: t, lambda t: 5)
    with pytest.raises(TypeError, match="unpack_hook expected to be a Tensor but got result of type int"):
        gradient(T, lambda t: t, lambda t: 5, lambda x: x.exp().sum())
    for change in (lambda t: t.mul_(2), lambda t: t.detach().mul_(2)):
        with pytest.raises(RuntimeError, match="A saved tensor pack hook is modifying its input in place."):
            gradient(T, change, lambda t: t)
    with pytest.raises(ZeroDivisionError):
        gradient(T, lambda t: 1 / 0, lambda t: t)
    with pytest.raises(TypeError, match="incompatible function arguments"), T.autograd.graph.saved_tensors_hooks(1, 2):
        pass


def test_innermost_hooks_win(T):
    x = leaf(T, 3, 3)
    seen = []
    hooks = T.autograd.graph.saved_tensors_hooks
    with hooks(lambda t: seen.append("outer"), lambda p: T.ones(2)):
        with hooks(lambda t: seen.append("inner"), lambda p: T.ones(2)):
            x * x
        x * x
    x * x
    assert seen == ["inner", "inner", "outer", "outer"]


def test_hooks_and_higher_derivatives(T):
    x = leaf(T, 3, 3)
    with T.autograd.graph.saved_tensors_hooks(lambda t: t.detach().clone(), lambda t: t):
        y = (x * x * x).exp().sum() * 1e-9
    (g,) = T.autograd.grad(y, x, create_graph=True)
    (h,) = T.autograd.grad(g.sum(), x)
    z = leaf(T, 3, 3)
    (g,) = T.autograd.grad((z * z * z).exp().sum() * 1e-9, z, create_graph=True)
    assert h.tolist() == pytest.approx(T.autograd.grad(g.sum(), z)[0].tolist())


def test_packed_values_are_not_watched_for_changes(T):
    x = leaf(T, 3, 3)
    with T.autograd.graph.saved_tensors_hooks(lambda t: t.detach().clone(), lambda t: t):
        y = x * x * x
    with T.no_grad():
        x.add_(1)
    y.sum().backward()
    assert x.grad.tolist() == [27, 27]


def test_hooks_of_a_function(T):
    class Square(T.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            y = x * x
            ctx.save_for_backward(x, y)
            return y

        @staticmethod
        def backward(ctx, g):
            x, y = ctx.saved_tensors
            return g * 2 * x + 0 * y

    seen = []
    assert gradient(T, lambda t: seen.append(t.tolist()) or t.tolist(), lambda v: T.tensor(v), lambda x: Square.apply(x).sum()) == [6, 6]
    assert seen == [[3, 3], [9, 9]]


def test_hooks_on_an_operator_in_place(T):
    seen = []
    assert gradient(T, lambda t: seen.append(t.tolist()) or t.tolist(), lambda v: T.tensor(v), lambda x: (x * 0).exp_().sum()) == [0, 0]
    assert [1, 1] in seen


def test_hooks_disabled(T):
    graph = T.autograd.graph
    use = lambda: gradient(T, lambda t: t, lambda t: t)  # noqa: E731
    with graph.disable_saved_tensors_hooks("outer"):
        with graph.disable_saved_tensors_hooks("inner"), pytest.raises(RuntimeError, match="inner"):
            use()
        with pytest.raises(RuntimeError, match="outer"):
            use()
    use()
    with (
        graph.saved_tensors_hooks(lambda t: t, lambda t: t),
        pytest.raises(RuntimeError, match="not here"),
        graph.disable_saved_tensors_hooks("not here"),
    ):
        pass


@pytest.mark.parametrize("pin", [False, True])
def test_save_on_cpu(T, pin):
    x = leaf(T, 3, 3)
    with T.autograd.graph.save_on_cpu(pin_memory=pin):
        y = (x * x).exp().sum() * 1e-3
    y.backward()
    assert x.grad.tolist() == pytest.approx([6 * 8.10308] * 2, rel=1e-4)


def test_a_graph_under_hooks_dies_at_once():
    gc.disable()
    try:
        x = leaf(flambeau, 3, 3)
        with flambeau.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t):
            y = (x * x).exp()
        node = weakref.ref(y.grad_fn)
        del y
        assert node() is None
        with flambeau.autograd.graph.save_on_cpu():
            y = (x * x).exp()
        node = weakref.ref(y.grad_fn)
        del y
        assert node() is None
    finally:
        gc.enable()


# ---- allow_mutation_on_saved_tensors ----------------------------------------------------------------------------------
def test_allow_mutation_on_saved_tensors(T):
    with T.autograd.graph.allow_mutation_on_saved_tensors() as context:
        a = T.ones(2, 3, requires_grad=True)
        b = a.clone()
        out = (b * b).sum()
        assert len(context.cloned) == 0
        b.sin_()
        assert len(context.cloned) == 1
        out.backward()
        assert a.grad.tolist() == [[2] * 3] * 2


def test_what_is_changed_in_many_ways(T):
    with T.autograd.graph.allow_mutation_on_saved_tensors():
        a = leaf(T, 1, 1)

        def check(out, expected):
            assert T.autograd.grad(out.sum(), a, retain_graph=True)[0].tolist() == expected

        b = a.clone()
        out = b * b
        b.mul_(3)
        b.mul_(2)
        check(out, [2, 2])
        b = a.clone()
        out = b * b
        b[0].mul_(3)
        check(out, [2, 2])
        b = a.clone()
        v = b[:1]
        out = v * v
        b.mul_(5)
        check(out, [2, 0])
        out = (b * 0).exp()
        out2 = (out * a).exp() * 0 + out * a
        out.add_(1)  # the output of exp, saved by exp, and by the product
        check(out2, [1, 1])
        out = a * a
        with T.no_grad():
            a.zero_()
        check(out, [2, 2])
        b = a + 1
        out = b * b
        b[0] = 7
        b.fill_(3)
        b.copy_(T.zeros(2))
        check(out, [2, 2])
        b = a + 1
        out = b * b
        with T.no_grad():
            T.mul(b, 5, out=b)
        check(out, [2, 2])


def test_changes_of_another_part_of_the_storage():
    T = flambeau  # PyTorch gives [10, 2] here: it looks for what begins at the same address
    with T.autograd.graph.allow_mutation_on_saved_tensors():
        a = leaf(T, 1, 1)
        b = a.clone()
        out = (b * b).sum()
        b[1].mul_(5)
        out.backward()
        assert a.grad.tolist() == [2, 2]


def test_the_context_must_be_open(T):
    allow = T.autograd.graph.allow_mutation_on_saved_tensors
    words = "Trying to backward outside of the 'allow_mutation_on_saved_tensors' contextin which the graph was originally recorded."
    with allow() as context:
        b = leaf(T, 1, 1) * 1
        out = (b * b).sum()
        b.mul_(3)
        with pytest.raises(RuntimeError, match="allow_mutation_on_saved_tensors contexts cannot be nested"), allow():
            pass
    with pytest.raises(AssertionError, match=words):
        out.backward()
    with allow() as context:
        out = (b * b).sum()
        context.clear()
        with pytest.raises(AssertionError, match=words):
            out.backward()


def test_optimizers_may_step_between_forward_and_backward(T):
    with T.autograd.graph.allow_mutation_on_saved_tensors():
        a = leaf(T, 1, 1)
        opt = T.optim.SGD([a], lr=1.0)
        out = (a * a).sum()
        a.grad = T.ones(2)
        opt.step()
        assert T.autograd.grad(out, a)[0].tolist() == [2, 2]


# ---- the rest ---------------------------------------------------------------------------------------------------------
def test_increment_version(T):
    x = T.ones(1)
    T.autograd.graph.increment_version(x)
    T.autograd.graph.increment_version([x, x])
    assert x._version == 3
    with pytest.raises(RuntimeError, match=r"increment_version expect a Iterable\[Tensor\] as input"):
        T.autograd.graph.increment_version(5)


def test_nodes_are_instances_of_node(T):
    fn = (leaf(T, 1) * 2).grad_fn
    Node = T.autograd.graph.Node
    assert isinstance(fn, Node) and isinstance(fn.next_functions[0][0], Node) and issubclass(type(fn), Node)
    with pytest.raises(TypeError, match="Can't instantiate abstract class Node"):
        Node()


def test_settings_for_other_machines(T):
    graph = T.autograd.graph
    graph.set_warn_on_accumulate_grad_stream_mismatch(True)
    graph.set_override_stale_capture_stream(False)
    with pytest.raises(RuntimeError, match="can only be used inside a torch.compile region"):
        graph.region_activation_memory_budget(0.5)
    with pytest.raises(ValueError, match=r"must be in \[0, 1\], got 5"):
        graph.region_activation_memory_budget(5)
    with pytest.raises(TypeError, match="expects a float, got str"):
        graph.region_activation_memory_budget("a")
    assert set(T.autograd.graph.__all__) == set(flambeau.autograd.graph.__all__)


def test_variable(T):
    Variable = T.autograd.Variable
    t = T.ones(2)
    v = Variable(t, requires_grad=True)
    assert v.requires_grad and v.data_ptr() == t.data_ptr() and isinstance(t, Variable)
    assert not Variable(v).requires_grad and Variable().shape == (0,)
    for wrong in (5, [1.0]):
        with pytest.raises(TypeError, match=f"Variable data has to be a tensor, but got {type(wrong).__name__}"):
            Variable(wrong)
    with pytest.raises(RuntimeError, match="is deprecated, use torch.tensor"):
        T.autograd.variable(5)
    assert T.autograd.variable.Variable is Variable


def test_multithreading_flag(T):
    autograd = T.autograd
    autograd.set_multithreading_enabled(True)  # whatever other tests left
    assert autograd.is_multithreading_enabled()
    with autograd.set_multithreading_enabled(False):
        assert not autograd.is_multithreading_enabled()
    autograd.set_multithreading_enabled(False)
    assert not autograd.is_multithreading_enabled()
    autograd.set_multithreading_enabled(True)


@pytest.mark.torch
def test_every_name_of_pytorch():
    torch = pytest.importorskip("torch")
    missing = [n for n in torch.autograd.__all__ if not hasattr(flambeau.autograd, n)]
    assert not missing
