"""A graph dies by reference counting, at the moment its output does."""

import gc
import weakref

import pytest

import flambeau as torch

PROGRAMS = {
    "chain": lambda x: ((x * 2 + 1).exp().sin() * x).sum(),
    "saved output": lambda x: x.exp().tanh().sigmoid().sqrt().sum(),
    "matmul": lambda x: (x.reshape(2, 3) @ x.reshape(3, 2)).sum(),
    "views": lambda x: x.view(2, 3).t()[1].sum(),
    "in place": lambda x: (x * 1).add_(x).mul_(2).exp_().sum(),
    "copy slices": lambda x: _change_a_view(x * 1, x).sum(),
    "split": lambda x: sum(p.sum() for p in x.split(2)),
    "cat": lambda x: torch.cat([x, x * 2]).sum(),
    "softmax": lambda x: torch.softmax(x, 0).max(),
    "max": lambda x: x.view(2, 3).max(1)[0].sum(),
}


def _change_a_view(y, x):
    y[1:3].mul_(x.detach()[3:5])
    return y


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("run", ["forward", "backward", "double"])
def test_graph_dies_with_its_output(name, run):
    x = torch.rand(6, requires_grad=True)
    PROGRAMS[name](x)  # kernels and plans are made on first use
    gc.collect()
    gc.disable()
    try:
        y = PROGRAMS[name](x)
        nodes = [weakref.ref(n) for n in reachable(y.grad_fn)]
        if run == "backward":
            y.backward()
        elif run == "double":
            (g,) = torch.autograd.grad(y, x, create_graph=True)
            if g.requires_grad:
                nodes += [weakref.ref(n) for n in reachable(g.grad_fn)]
                g.sum().backward()
            del g
        del y
        assert [r().name() for r in nodes if r() is not None and type(r()).__name__ != "AccumulateGrad"] == []
    finally:
        gc.enable()


def reachable(node):
    seen, stack = {}, [node]
    while stack:
        n = stack.pop()
        if id(n) not in seen:
            seen[id(n)] = n
            stack += [m for m, _ in n.next_functions if m is not None]
    return list(seen.values())


def test_backward_frees_what_was_saved():
    x = torch.ones(2, requires_grad=True)
    big = torch.ones(2)
    y = x * big
    ref = weakref.ref(big)
    del big
    assert ref() is not None
    y.sum().backward()
    assert ref() is None
