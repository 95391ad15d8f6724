"""functional_call, stack_module_state, replace_all_batch_norm_modules_."""

import pytest

import flambeau as torch
from flambeau import nn
from flambeau.func import (
    functional_call,
    functionalize,
    grad,
    replace_all_batch_norm_modules_,
    stack_module_state,
    vmap,
)

from .both import check


def linear():
    module = nn.Linear(2, 1)
    return module, {"weight": torch.ones(1, 2), "bias": torch.zeros(1)}, torch.tensor([[1.0, 2.0]])


CALLS = {
    "one argument": lambda F, m, p, x, t: F.functional_call(m, p, x),
    "a tuple of arguments": lambda F, m, p, x, t: F.functional_call(m, p, (x,)),
    "keywords": lambda F, m, p, x, t: F.functional_call(m, p, kwargs={"input": x}),
    "two dicts": lambda F, m, p, x, t: F.functional_call(m, ({"weight": p["weight"]}, {"bias": p["bias"]}), x),
    "a list of dicts": lambda F, m, p, x, t: F.functional_call(m, [{"weight": p["weight"]}, {"bias": p["bias"]}], x),
    "an unknown name": lambda F, m, p, x, t: F.functional_call(m, {**p, "other": x}, x),
    # errors
    "a name twice": lambda F, m, p, x, t: F.functional_call(m, (p, {"weight": x}), x),
    "a number": lambda F, m, p, x, t: F.functional_call(m, 3, x),
    "a tuple of numbers": lambda F, m, p, x, t: F.functional_call(m, (3,), x),
    "an unknown name, strictly": lambda F, m, p, x, t: F.functional_call(m, {**p, "other": x}, x, strict=True),
    "a missing name, strictly": lambda F, m, p, x, t: F.functional_call(m, {"weight": x}, x, strict=True),
    "no tensor": lambda F, m, p, x, t: F.functional_call(m, {"weight": 3.0}, x),
    "an unknown submodule": lambda F, m, p, x, t: F.functional_call(m, {"a.b": x}, x),
    "no models": lambda F, m, p, x, t: F.stack_module_state([]),
    "models of two classes": lambda F, m, p, x, t: F.stack_module_state([m, t.nn.ReLU()]),
    "training and not": lambda F, m, p, x, t: F.stack_module_state([m, t.nn.Linear(2, 1).eval()]),
    "requiring grad and not": lambda F, m, p, x, t: F.stack_module_state([m, t.nn.Linear(2, 1).requires_grad_(False)]),
}


@pytest.mark.torch
@pytest.mark.parametrize("name", CALLS)
def test_like_torch(name):
    def program(torch):
        m, p = torch.nn.Linear(2, 1), {"weight": torch.ones(1, 2), "bias": torch.zeros(1)}
        return CALLS[name](torch.func, m, p, torch.tensor([[1.0, 2.0]]), torch)

    check(program)


def test_the_module_has_its_own_back():
    module, p, x = linear()
    before = dict(module.named_parameters())
    assert functional_call(module, p, x).item() == 3
    handle = module.register_forward_pre_hook(lambda *_: {}[0])
    with pytest.raises(KeyError):
        functional_call(module, p, x)
    handle.remove()
    assert all(q is before[n] for n, q in module.named_parameters())


def test_tied_parameters():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Parameter(torch.ones(1))
            self.b = self.a

        def forward(self, x):
            return self.a * x + self.b

    module, x = Tied(), torch.tensor([10.0])
    assert functional_call(module, {"a": torch.zeros(1)}, x).item() == 0
    assert functional_call(module, {"a": torch.zeros(1)}, x, tie_weights=False).item() == 1
    with pytest.raises(ValueError, match="got multiple values for keys"):
        functional_call(module, {"a": torch.zeros(1), "b": torch.ones(1)}, x)
    assert functional_call(module, {"a": torch.zeros(1), "b": torch.ones(1)}, x, tie_weights=False).item() == 1


def test_buffers_that_the_call_changes_are_in_the_dict():
    bn = nn.BatchNorm1d(2)
    state = {n: b.clone() for n, b in bn.named_buffers()}
    functional_call(bn, state, torch.tensor([[1.0, 2.0], [3.0, 5.0]]))
    assert torch.allclose(state["running_mean"], torch.tensor([0.2, 0.35])) and state["num_batches_tracked"].item() == 1
    assert bn.running_mean.tolist() == [0, 0] and bn.num_batches_tracked.item() == 0


def test_the_older_place_warns():
    module, p, x = linear()
    with pytest.warns(FutureWarning, match="torch.func.functional_call"):
        assert nn.utils.stateless.functional_call(module, p, x).item() == 3


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 3)), torch.randn(5, 2), torch.tensor([0, 2, 1, 1, 0])


def test_gradients_of_each_example():
    net, x, y = network()

    def loss(p, x, y):
        return nn.functional.cross_entropy(functional_call(net, p, (x[None],)), y[None])

    parameters = {n: p.detach() for n, p in net.named_parameters()}
    found = vmap(grad(loss), in_dims=(None, 0, 0))(parameters, x, y)
    for i in range(5):
        net.zero_grad()
        nn.functional.cross_entropy(net(x[i : i + 1]), y[i : i + 1]).backward()
        for n, p in net.named_parameters():
            assert torch.allclose(found[n][i], p.grad, atol=1e-6), n


def test_an_ensemble():
    _, x, _ = network()
    models = [nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 3)) for _ in range(3)]
    parameters, buffers = stack_module_state(models)
    assert all(p.requires_grad and p.is_leaf and p.shape[0] == 3 for p in parameters.values()) and buffers == {}
    out = vmap(lambda p, b, x: functional_call(models[0], (p, b), (x,)), in_dims=(0, 0, None))(parameters, buffers, x)
    expected = torch.stack([m(x) for m in models])
    assert torch.allclose(out, expected, atol=1e-6)
    out.sin().sum().backward()
    expected.sin().sum().backward()
    for i, m in enumerate(models):
        for n, p in m.named_parameters():
            assert torch.allclose(parameters[n].grad[i], p.grad, atol=1e-5), n


def test_batch_norms_without_statistics():
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Sequential(nn.BatchNorm2d(3)))
    assert replace_all_batch_norm_modules_(net) is net
    for bn in (net[1], net[2][0]):
        assert bn.running_mean is None and bn.running_var is None and bn.num_batches_tracked is None and not bn.track_running_stats


def test_functionalize_says_that_it_is_not_there():
    with pytest.raises(NotImplementedError, match="torch.func.functionalize"):
        functionalize(lambda x: x)
