"""The nodes of custom Functions: what ctx keeps, and for how long."""

import gc
import weakref

import pytest

import flambeau as torch
from flambeau.autograd import Function
from flambeau.autograd.function import BackwardCFunction, FunctionCtx


def make(forward, backward, **others):
    methods = {"forward": staticmethod(forward), "backward": staticmethod(backward)}
    return type(Function)("Fn", (Function,), methods | others)


@pytest.mark.parametrize("name", ["next", "nrs", "seq", "where", "extra", "n_outputs", "release"])
def test_names_that_the_graph_needs_are_refused(name):
    F = make(lambda ctx, x: (setattr(ctx, name, 3), x * 2)[1], lambda ctx, g: g)
    with pytest.raises(AttributeError, match=rf"ctx\.{name} holds a part of the graph") as e:
        F.apply(torch.ones(1, requires_grad=True))
    assert f"ctx.my_{name}" in str(e.value)


def test_ctx_of_ones_own():
    """Programs test their forward with a ctx that they made."""
    ctx = FunctionCtx()
    ctx.save_for_backward(torch.ones(1))
    ctx.mark_dirty()
    assert len(ctx.to_save) == 1 and not isinstance(ctx, BackwardCFunction)


def exp_forward(ctx, x):
    y = x.exp()
    ctx.save_for_backward(x, y)
    return y


def two_forward(ctx, x):
    y, z = x * 2, x * 3
    ctx.save_for_backward(y, z)
    return y, z


def dirty_forward(ctx, x):
    x.exp_()
    ctx.mark_dirty(x)
    ctx.save_for_backward(x)
    return x


def same_forward(ctx, x):
    ctx.save_for_backward(x)
    return x


def view_forward(ctx, x):
    v = x[:1]
    ctx.save_for_backward(v)
    return v


def raising(ctx, *grads):
    raise ValueError("mine")


@pytest.mark.parametrize("forward", [exp_forward, two_forward, dirty_forward, same_forward, view_forward])
@pytest.mark.parametrize("how", ["unused", "once", "twice", "differentiated", "hooked", "packed", "failed"])
def test_a_graph_dies_with_its_output(forward, how):
    def backward(ctx, *grads):
        return grads[0].sum() * ctx.saved_tensors[0].sum().expand(2)

    F = make(forward, raising if how == "failed" else backward)
    x = torch.ones(2, requires_grad=True)
    gc.collect()
    gc.disable()
    try:
        if how == "packed":
            with torch.autograd.graph.saved_tensors_hooks(lambda t: t * 1, lambda t: t):
                out = F.apply(x * 1)
        else:
            out = F.apply(x * 1)
        y = out[0] if isinstance(out, tuple) else out
        del out
        refs = [weakref.ref(y.grad_fn), weakref.ref(y)]
        if how == "hooked":
            y.grad_fn.register_hook(lambda gi, go: None)
            y.register_hook(lambda g: None)
        if how == "once":
            y.sum().backward()
        if how == "twice":
            y.sum().backward(retain_graph=True)
            y.sum().backward()
        if how == "differentiated":
            (g,) = torch.autograd.grad(y.sum(), x, create_graph=True)
            torch.autograd.grad(g.sum(), x, allow_unused=True)
            del g
        if how == "failed":
            with pytest.raises(ValueError) as e:
                y.sum().backward()
            del e
        x.grad = None
        del y
        assert [r() for r in refs] == [None, None]
    finally:
        gc.enable()


def test_saved_tensors_are_dropped_as_the_pass_goes():
    F = make(exp_forward, lambda ctx, g: g * ctx.saved_tensors[1])
    x = torch.ones(2, requires_grad=True)
    mid = x * 1
    y = F.apply(mid)
    ref = weakref.ref(mid)
    del mid
    assert ref() is not None
    y.sum().backward()
    assert ref() is None


def test_input_metadata():
    F = make(lambda ctx, x: (x * 2, x[:1] * 3), lambda ctx, g, h: g)
    y, _ = F.apply(torch.ones(2, requires_grad=True))
    found = y.grad_fn._input_metadata
    assert [tuple(m.shape) for m in found] == [(2,), (1,)] and found[0].dtype is torch.float32


def test_nodes_of_several_functions_do_not_mix():
    F = make(lambda ctx, x: x * 2, lambda ctx, g: g)
    x = torch.ones(1, requires_grad=True)
    a, b = F.apply(x).grad_fn, F.apply(x).grad_fn
    a.register_hook(lambda gi, go: None)
    a.k = 1
    assert not hasattr(b, "k") and a.metadata is not b.metadata and a._sequence_nr() < b._sequence_nr()
