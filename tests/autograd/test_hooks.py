"""Hooks of tensors and nodes, retain_grad, saved_tensors_hooks."""

import pytest

import flambeau as torch


def test_tensor_hook_replaces_the_gradient():
    x = torch.ones(2, requires_grad=True)
    handle = x.register_hook(lambda g: g * 10)
    (x * 2).sum().backward()
    assert x.grad.tolist() == [20, 20]
    handle.remove()
    (x * 2).sum().backward()
    assert x.grad.tolist() == [22, 22]


def test_hook_on_an_intermediate_runs_before_its_node():
    x = torch.ones(2, requires_grad=True)
    y = x * 3
    seen = []
    y.register_hook(lambda g: seen.append(g.tolist()))
    y.register_hook(lambda g: g * 2)
    y.sum().backward()
    assert seen == [[1, 1]] and x.grad.tolist() == [6, 6]


def test_hook_that_changes_the_shape():
    x = torch.ones(2, requires_grad=True)
    x.register_hook(lambda g: torch.ones(3))
    with pytest.raises(RuntimeError, match="has changed the size of value"):
        x.sum().backward()


def test_hook_needs_a_gradient():
    with pytest.raises(RuntimeError, match="cannot register a hook on a tensor that doesn't require gradient"):
        torch.ones(2).register_hook(lambda g: g)


def test_retain_grad():
    x = torch.ones(2, requires_grad=True)
    y = x * 2
    y.retain_grad()
    (y * y).sum().backward()
    assert y.grad.tolist() == [4, 4] and y.retains_grad


def test_post_accumulate_grad_hook():
    x = torch.ones(2, requires_grad=True)
    seen = []
    x.register_post_accumulate_grad_hook(lambda t: seen.append(t.grad.tolist()))
    (x * 2).sum().backward()
    assert seen == [[2, 2]]


def test_node_hooks():
    x = torch.ones(2, requires_grad=True)
    y = x * 3
    order = []
    y.grad_fn.register_prehook(lambda gs: order.append(("pre", gs[0].tolist())))
    y.grad_fn.register_hook(lambda gi, go: order.append(("post", gi[0].tolist(), go[0].tolist())))
    y.sum().backward()
    assert order == [("pre", [1, 1]), ("post", [3, 3], [1, 1])]


def test_node_hook_replaces_the_gradients():
    x = torch.ones(2, requires_grad=True)
    y = x * 3
    y.grad_fn.register_hook(lambda gi, go: (gi[0] * 2, *gi[1:]))
    y.sum().backward()
    assert x.grad.tolist() == [6, 6]


def test_saved_tensors_hooks():
    packed, unpacked = [], []

    def pack(t):
        packed.append(t.shape)
        return t.numpy().copy()

    def unpack(a):
        unpacked.append(a.shape)
        return torch.from_numpy(a)

    x = torch.full((2,), 3.0, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: pack(t.detach()), unpack):
        y = x * x
    assert len(packed) == 2
    y.sum().backward()
    assert len(unpacked) == 2 and x.grad.tolist() == [6, 6]
