"""Hooks of tensors and nodes, and retain_grad. Nearly every test runs on flambeau and, as the specification, on PyTorch."""

import gc
import threading

import pytest

import flambeau


@pytest.fixture(params=["flambeau", pytest.param("torch", marks=pytest.mark.torch)])
def T(request):
    return flambeau if request.param == "flambeau" else pytest.importorskip("torch")


def leaf(T, *values, **kwargs):
    return T.tensor(values, requires_grad=True, **{"dtype": T.float32} | kwargs)


def lists(x):
    return [lists(i) for i in x] if isinstance(x, (tuple, list)) else None if x is None else x.tolist()


# ---- tensors --------------------------------------------------------------------------------------------------------
def test_tensor_hook_replaces_the_gradient(T):
    x = leaf(T, 1, 1)
    handle = x.register_hook(lambda g: g * 10)
    (x * 2).sum().backward()
    assert x.grad.tolist() == [20, 20]
    handle.remove()
    (x * 2).sum().backward()
    assert x.grad.tolist() == [22, 22]
    with x.register_hook(hook=lambda g: g * 0):
        (x * 2).sum().backward()
    (x * 2).sum().backward()
    assert x.grad.tolist() == [24, 24]


def test_each_hook_sees_what_the_one_before_made(T):
    x = leaf(T, 1, 1)
    y = x * 3
    seen = []
    y.register_hook(lambda g: seen.append(g.tolist()))
    y.register_hook(lambda g: g * 2)
    y.register_hook(lambda g: seen.append(g.tolist()))
    y.sum().backward()
    assert seen == [[1, 1], [2, 2]] and x.grad.tolist() == [6, 6]


def test_a_hook_removed_by_another_still_runs_this_time(T):
    x = leaf(T, 1)
    seen, later = [], []
    x.register_hook(lambda g: (seen.append(1), later[0].remove())[2:] or None)
    later.append(x.register_hook(lambda g: seen.append(2)))
    (x * 2).sum().backward()
    (x * 2).sum().backward()
    assert seen == [1, 2, 1]


def test_a_hook_on_the_root(T):
    y = leaf(T, 1, 1) * 2
    seen = []
    y.register_hook(lambda g: seen.append(g.tolist()))
    y.backward(T.tensor([1.0, 2.0]))
    assert seen == [[1, 2]]


def test_hooks_of_some_of_several_outputs(T):
    a, b = T.ones(4, requires_grad=True).split(2)
    seen = []
    b.register_hook(lambda g: seen.append(("b", lists(g))))
    a.register_hook(lambda g: seen.append(("a", lists(g))))
    a.grad_fn.register_prehook(lambda gs: seen.append(("node", lists(gs))))
    a.sum().backward()
    assert sorted(seen[:2], key=str) == [("a", [1, 1]), ("b", None)] and seen[2] == ("node", [[1, 1], None])


def test_hooks_run_where_no_gradient_arrives(T):
    class Stop(T.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 1

        @staticmethod
        def backward(ctx, g):
            return None

    x = leaf(T, 1, 1)
    y = x * 2
    seen = []
    y.register_hook(lambda g: seen.append(("y", g)))
    y.grad_fn.register_prehook(lambda gs: seen.append(("pre", gs)))
    y.grad_fn.register_hook(lambda gi, go: seen.append(("post", gi, go)))
    x.register_hook(lambda g: seen.append(("x", g)))
    x.register_post_accumulate_grad_hook(lambda t: seen.append("accumulated"))
    Stop.apply(y).sum().backward()
    assert seen == [("y", None), ("pre", (None,)), ("post", (None, None), (None,)), ("x", None), "accumulated"]
    assert x.grad is None


@pytest.mark.parametrize("where", ["leaf", "other"])
def test_what_a_tensor_hook_may_not_return(T, where):
    def give(r):
        x = leaf(T, 1, 1)
        y = x * 3
        (x if where == "leaf" else y).register_hook(lambda g: r)
        y.sum().backward()

    for r in (1, (T.ones(2),), (None,)):
        with pytest.raises(TypeError, match=f"expected Variable, but hook returned '{type(r).__name__}'"):
            give(r)
    with pytest.raises(RuntimeError, match="hook '<lambda>' has changed the size of value"):
        give(T.ones(3))
    with pytest.raises(RuntimeError, match=r"changed the type of value \(was torch.FloatTensor got torch.DoubleTensor\)"):
        give(T.ones(2, dtype=T.float64))


def test_hooks_need_a_gradient(T):
    for register in ("register_hook", "register_post_accumulate_grad_hook"):
        with pytest.raises(RuntimeError, match="cannot register a hook on a tensor that doesn't require gradient"):
            getattr(T.ones(2), register)(lambda g: g)
    with pytest.raises(RuntimeError, match="post accumulate grad hooks cannot be registered on non-leaf tensors"):
        (leaf(T, 1) * 2).register_post_accumulate_grad_hook(lambda t: None)


def test_hooks_run_in_the_mode_of_the_pass(T):
    x = leaf(T, 1, 1)
    seen = []
    x.register_hook(lambda g: seen.append((g.requires_grad, T.is_grad_enabled())))
    T.autograd.grad((x * x).sum(), x, create_graph=True)
    T.autograd.grad((x * x).sum(), x)
    assert seen == [(True, True), (False, False)]


# ---- leaves ---------------------------------------------------------------------------------------------------------
def test_post_accumulate_grad_hook(T):
    x = leaf(T, 1, 1)
    seen = []
    x.register_post_accumulate_grad_hook(lambda t: seen.append((t is x, t.grad.tolist())))
    (x * 2).sum().backward()
    T.autograd.grad((x * 2).sum(), x)  # accumulates nothing
    assert seen == [(True, [2, 2])]
    x.register_post_accumulate_grad_hook(lambda t: setattr(t, "grad", None))
    (x * 2).sum().backward()
    assert x.grad is None


def test_what_a_post_accumulate_grad_hook_may_not_return(T):
    for r, cls, phrase in (
        (1, TypeError, "expected Variable, but hook returned 'int'"),
        (T.ones(3), RuntimeError, "has changed the size of value"),
        (T.ones(2), RuntimeError, "ensor post accumulate grad hooks should return None."),
    ):
        x = leaf(T, 1, 1)
        x.register_post_accumulate_grad_hook(lambda t, r=r: r)
        with pytest.raises(cls, match=phrase):
            (x * 2).sum().backward()


def test_order_at_a_leaf(T):
    x = leaf(T, 1, 2)
    y = x * 3
    order = []
    node = y.grad_fn.next_functions[0][0]
    node.register_hook(lambda gi, go: order.append(("post", gi, lists(go))))
    x.register_post_accumulate_grad_hook(lambda t: order.append(("accumulated", t.grad.tolist())))
    node.register_prehook(lambda gs: (order.append(("pre", lists(gs))), (gs[0] * 10,))[1])
    x.register_hook(lambda g: (order.append(("tensor", g.tolist())), g * 2)[1])
    expected = [("tensor", [3, 3]), ("pre", [[6, 6]]), ("accumulated", [60, 60]), ("post", (), [[60, 60]])]
    y.sum().backward(retain_graph=True)
    assert order == expected and x.grad.tolist() == [60, 60]
    order.clear()
    assert T.autograd.grad(y.sum(), x, retain_graph=True)[0].tolist() == [6, 6] and order == expected[:1]
    order.clear()
    x.grad = None
    y.sum().backward(inputs=[x])
    assert order == expected


# ---- nodes ----------------------------------------------------------------------------------------------------------
def test_order_at_a_node(T):
    x = leaf(T, 1, 2)
    y = x * 3
    order = []
    y.grad_fn.register_hook(lambda gi, go: order.append(("post", lists(gi), lists(go))))
    y.grad_fn.register_prehook(lambda gs: (order.append(("pre", lists(gs))), (gs[0] * 10,))[1])
    y.retain_grad()
    y.register_hook(lambda g: (order.append(("first", g.tolist())), g * 2)[1])
    y.register_hook(lambda g: order.append(("second", g.tolist())))
    gx, gy = T.autograd.grad(y.sum(), [x, y], retain_graph=True)
    tensors = [("first", [1, 1]), ("second", [2, 2])]
    assert order == [*tensors, ("pre", [[2, 2]]), ("post", [[60, 60], None], [[20, 20]])]
    assert y.grad.tolist() == [2, 2]  # before the node's own hooks
    assert gx.tolist() == [60, 60] and gy.tolist() == [1, 1]  # asked for where the pass goes on: before all hooks
    order.clear()
    assert T.autograd.grad(y.sum(), y)[0].tolist() == [2, 2] and order == tensors  # where it ends: after the tensor's


def test_node_hooks_replace_the_gradients(T):
    x = leaf(T, 1, 1)
    y = x * 3
    post = y.grad_fn.register_hook(lambda gi, go: (gi[0] * 2, *gi[1:]))
    pre = y.grad_fn.register_prehook(lambda gs: (gs[0] * 5,))
    y.sum().backward(retain_graph=True)
    assert x.grad.tolist() == [30, 30]
    post.remove()
    pre.remove()
    y.sum().backward()
    assert x.grad.tolist() == [33, 33]


@pytest.mark.parametrize("where", ["pre", "post"])
def test_what_a_node_hook_may_not_return(T, where):
    def give(r):
        x = leaf(T, 1, 1)
        y = x.exp()
        if where == "pre":
            y.grad_fn.register_prehook(lambda gs: r)
        else:
            y.grad_fn.register_hook(lambda gi, go: r)
        y.sum().backward()
        return x.grad

    for r in (1, T.ones(2)):
        with pytest.raises(TypeError, match=f"expected tuple, but hook returned '{type(r).__name__}'"):
            give(r)
    with pytest.raises(TypeError, match="expected Variable, but hook returned 'int'"):
        give((1,))
    with pytest.raises(RuntimeError, match=r"returned an incorrect number of values \(got 2, but expected 1\)"):
        give((T.ones(2), None))
    assert give((None,)) is None


def test_a_missing_gradient_cannot_be_replaced(T):
    y = leaf(T, 1, 1) * 3
    y.grad_fn.register_hook(lambda gi, go: (T.ones(2), T.ones(2)))
    with pytest.raises(RuntimeError, match="can't replace a None gradient with a non-None value"):
        y.sum().backward()


# ---- retain_grad ----------------------------------------------------------------------------------------------------
def test_retain_grad(T):
    x = leaf(T, 1, 1)
    y = x * 2
    y.retain_grad()
    y.retain_grad()
    (y * y).sum().backward(retain_graph=True)
    assert y.grad.tolist() == [4, 4] and y.retains_grad
    (y * y).sum().backward()
    assert y.grad.tolist() == [8, 8]
    x.retain_grad()
    assert not x.retains_grad
    with pytest.raises(RuntimeError, match="can't retain_grad on Tensor that has requires_grad=False"):
        T.ones(2).retain_grad()


def test_retained_gradients_can_be_differentiated(T):
    x = leaf(T, 1, 2)
    y = x * 2
    y.retain_grad()
    T.autograd.grad((y * y).sum(), x, create_graph=True)
    assert y.grad.requires_grad and T.autograd.grad(y.grad.sum(), x)[0].tolist() == [4, 4]


# ---- in-place changes -----------------------------------------------------------------------------------------------
def test_hooks_stay_with_the_value_and_retain_grad_with_the_tensor(T):
    x = leaf(T, 1, 1)
    y = x * 2
    seen = []
    y.register_hook(lambda g: seen.append(("before", g.tolist())))
    y.retain_grad()
    y.mul_(3)
    y.register_hook(lambda g: seen.append(("after", g.tolist())))
    (y * 5).sum().backward()
    assert seen == [("after", [5, 5]), ("before", [15, 15])] and y.grad.tolist() == [5, 5]


def test_change_through_a_view(T):
    y = leaf(T, 1, 1) * 2
    seen = []
    y.retain_grad()
    v = y[:1]
    v.retain_grad()
    y.register_hook(lambda g: seen.append(("y", g.tolist())))
    v.register_hook(lambda g: seen.append(("v before", g.tolist())))
    v.mul_(3)
    v.register_hook(lambda g: seen.append(("v after", g.tolist())))
    (v * 5).sum().backward()
    assert y.grad.tolist() == [5, 0] and v.grad.tolist() == [5]
    assert [s for s in seen if s[0] != "v before"] == [("v after", [5]), ("y", [15, 0])]  # PyTorch skips the old view


def test_change_of_a_base(T):
    y = leaf(T, 1, 1) * 2
    y.retain_grad()
    v = y[:1]
    v.retain_grad()
    v.register_hook(lambda g: pytest.fail("belongs to the old value"))
    y.mul_(3)
    (v * 5).sum().backward()
    assert y.grad.tolist() == [5, 0] and v.grad.tolist() == [5]


# ---- several tensors ------------------------------------------------------------------------------------------------
def test_multi_grad_hook(T):
    a, b = leaf(T, 1, 1), leaf(T, 1, 1)
    c, d = a * b, a * b
    seen = []
    handle = T.autograd.graph.register_multi_grad_hook((a, b, c, d), lambda gs: seen.append(lists(gs)))
    c.sum().backward(retain_graph=True)
    c.sum().backward(inputs=(a,), retain_graph=True)
    (c + d).sum().backward(retain_graph=True)
    assert seen == [[[1, 1], [1, 1], [1, 1], None], [[1, 1], None, [1, 1], None], [[2, 2], [2, 2], [1, 1], [1, 1]]]
    handle.remove()
    c.sum().backward()
    assert len(seen) == 3


def test_multi_grad_hook_on_the_first(T):
    a = leaf(T, 1, 1)
    c, d = a * 1, a * 1
    seen = []
    T.autograd.graph.register_multi_grad_hook((c, d, T.ones(1)), lambda g: seen.append(g.tolist()), mode="any")
    (c * 2 + d).sum().backward(retain_graph=True)
    (c * 2 + d).sum().backward()
    assert seen == [[1, 1], [1, 1]]
    with pytest.raises(ValueError, match=r"Expects mode to be one of \('all', 'any'\) but got x"):
        T.autograd.graph.register_multi_grad_hook((c,), lambda g: None, mode="x")
    with pytest.raises(AssertionError, match="Expected gradient function to be set"):
        T.autograd.graph.register_multi_grad_hook((c, T.ones(1)), lambda g: None)


def test_multi_grad_hook_in_autograd_grad():
    a, b = leaf(flambeau, 1), leaf(flambeau, 1)  # PyTorch raises here
    seen = []
    flambeau.autograd.graph.register_multi_grad_hook((a, b), lambda gs: seen.append(lists(gs)))
    flambeau.autograd.grad(a * b, a)
    assert seen == [[[1], None]]


# ---- callbacks ------------------------------------------------------------------------------------------------------
def test_queued_callbacks_run_when_the_pass_is_done(T):
    queue = T.autograd.Variable._execution_engine.queue_callback
    with pytest.raises(RuntimeError, match="Final callbacks can only be installed during backward pass."):
        queue(lambda: None)
    x = leaf(T, 1)
    y = x * 2
    seen = []

    def inner():
        with T.enable_grad():
            w = leaf(T, 1) * 3
            w.register_hook(lambda g: queue(lambda: seen.append("inner")))
            w.backward()

    def hook(g):
        queue(lambda: (seen.append(("outer", x.grad.item())), queue(lambda: seen.append("queued by it"))))
        inner()
        seen.append("hook")

    y.register_hook(hook)
    (y * 2).backward()
    assert seen == ["inner", "hook", ("outer", 4.0), "queued by it"]


def test_an_error_in_a_callback(T):
    y = leaf(T, 1) * 2
    y.register_hook(lambda g: T.autograd.Variable._execution_engine.queue_callback(lambda: 1 / 0))
    with pytest.raises(ZeroDivisionError):
        y.backward()
    with pytest.raises(RuntimeError, match="Final callbacks"):
        T.autograd.Variable._execution_engine.queue_callback(lambda: None)


# ---- threads and memory ---------------------------------------------------------------------------------------------
def test_hooks_run_in_the_thread_of_the_pass():
    T = flambeau
    x = leaf(T, 1, 1)
    seen = []
    x.register_hook(lambda g: seen.append(threading.get_ident()))
    threads = [threading.Thread(target=lambda: (x * 2).sum().backward()) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(seen) == 4 and x.grad.tolist() == [8, 8]


def test_hooks_die_with_their_tensor():
    import weakref

    gc.disable()
    try:
        x = leaf(flambeau, 1)
        y = x * 2
        y.retain_grad()
        y.register_hook(lambda g: None)
        y.grad_fn.register_prehook(lambda gs: None)
        flambeau.autograd.graph.register_multi_grad_hook((x, y), lambda gs: None)
        y.backward()
        node, ref = weakref.ref(y.grad_fn), weakref.ref(y)
        del y
        assert ref() is None and node() is None
    finally:
        gc.enable()
