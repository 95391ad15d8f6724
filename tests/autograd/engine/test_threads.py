"""Many threads at once, and passes inside passes."""

import sys
import threading

import pytest

import flambeau


@pytest.fixture(params=["flambeau", pytest.param("torch", marks=pytest.mark.torch)])
def T(request):
    return flambeau if request.param == "flambeau" else pytest.importorskip("torch")


@pytest.fixture
def often():
    """Switch threads as often as Python can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def in_threads(n, fn):
    failed = []

    def body(i):
        try:
            fn(i)
        except BaseException as e:
            failed.append(e)

    threads = [threading.Thread(target=body, args=(i,)) for i in range(n)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60)
    assert not any(t.is_alive() for t in threads)
    if failed:
        raise failed[0]


def leaf(T, *values):
    return T.tensor(values, requires_grad=True)


# ---- threads --------------------------------------------------------------------------------------------------------
def test_separate_graphs(T, often):
    def run(i):
        for _ in range(20):
            x = leaf(T, float(i), 1.0)
            (x * x * x).sum().backward()
            assert x.grad.tolist() == [3.0 * i * i, 3.0]

    in_threads(8, run)


def test_one_leaf_loses_nothing(T, often):
    x = leaf(T, 1.0, 1.0)

    def run(i):
        for _ in range(100):
            (x * 2).sum().backward()

    in_threads(8, run)
    assert x.grad.tolist() == [1600, 1600]


def test_gradients_of_one_leaf_in_many_threads(T, often):
    x = leaf(T, 1.0, 2.0)

    def run(i):
        for _ in range(100):
            (g,) = T.autograd.grad((x * x).sum(), x)
            assert g.tolist() == [2, 4]

    in_threads(8, run)
    assert x.grad is None


def test_one_graph(T, often):
    x = leaf(T, 1.0, 2.0)
    y = x
    for _ in range(20):
        y = y * 1.0 + x.sin() * 0
    loss = (y * y).sum()
    in_threads(8, lambda i: loss.backward(retain_graph=True))
    assert x.grad.tolist() == [16, 32]


def test_hooks_in_threads(often):
    x = leaf(flambeau, 1.0)
    y = x * 2
    seen = []
    y.register_hook(lambda g: seen.append(g.item()))
    flambeau.autograd.graph.register_multi_grad_hook((x, y), lambda gs: seen.append(None))
    in_threads(8, lambda i: (y * (i + 1)).backward(retain_graph=True))
    assert sorted([s for s in seen if s]) == [1, 2, 3, 4, 5, 6, 7, 8] and seen.count(None) == 8


def test_modes_belong_to_a_thread(often):
    T = flambeau
    x = leaf(T, 1.0)

    def run(i):
        if i % 2:
            with T.no_grad():
                for _ in range(50):
                    assert not (x * 2).requires_grad
        else:
            for _ in range(50):
                assert (x * 2).requires_grad

    in_threads(6, run)


# ---- passes inside passes -------------------------------------------------------------------------------------------
def test_a_thousand_passes_inside_each_other_in_a_function(T):
    class Nest(T.autograd.Function):
        @staticmethod
        def forward(ctx, x, n):
            ctx.n = n
            ctx.save_for_backward(x)
            return x.clone()

        @staticmethod
        def backward(ctx, g):
            if not ctx.n:
                return g * 2, None
            (x,) = ctx.saved_tensors
            with T.enable_grad():
                d = x.detach().requires_grad_()
                Nest.apply(d, ctx.n - 1).backward(g)
            return d.grad, None

    x = leaf(T, 3.0)
    Nest.apply(x, 1000).backward()
    assert x.grad.tolist() == [2]


def test_a_thousand_passes_inside_each_other_in_hooks(T):
    done = []

    def nest(n):
        x = leaf(T, 1.0)
        y = x * 2

        def hook(g):
            if n:
                with T.enable_grad():
                    nest(n - 1)

        y.register_hook(hook)
        y.backward()
        assert x.grad.item() == 2
        done.append(n)

    nest(1000)
    assert done == list(range(1001))


def test_an_error_deep_inside():
    T = flambeau  # PyTorch raises a SystemError here

    class Boom(Exception):
        pass

    def nest(n):
        y = leaf(T, 1.0) * 2

        def hook(g):
            if not n:
                raise Boom("at the bottom")
            with T.enable_grad():
                nest(n - 1)

        y.register_hook(hook)
        y.backward()

    with pytest.raises(Boom, match="at the bottom"):
        nest(300)
    x = leaf(T, 1.0)  # and all works as before
    (x * 2).backward()
    assert x.grad.item() == 2


def test_passes_inside_passes_in_many_threads(T):
    def nest(n):
        x = leaf(T, 1.0)
        y = x * 2

        def hook(g):
            if n:
                with T.enable_grad():
                    nest(n - 1)

        y.register_hook(hook)
        y.backward()
        assert x.grad.item() == 2

    in_threads(4, lambda i: nest(150))


def test_a_pass_through_the_same_leaf_inside_a_pass(T):
    x = leaf(T, 1.0)
    y = x * 2

    def hook(g):
        with T.enable_grad():
            (x * 10).backward()

    y.register_hook(hook)
    y.backward()
    assert x.grad.item() == 12


def test_modes_inside_a_deep_pass_are_those_of_the_hook():
    T = flambeau
    seen = []

    def nest(n):
        y = leaf(T, 1.0) * 2

        def hook(g):
            if n:
                with T.enable_grad():
                    nest(n - 1)
            else:
                seen.append((T.is_grad_enabled(), T.is_anomaly_enabled()))

        y.register_hook(hook)
        y.backward()

    with T.autograd.set_detect_anomaly(True):
        nest(200)
    assert seen == [(False, True)]
