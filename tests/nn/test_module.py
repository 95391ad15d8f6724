"""Module: registering, looking up, converting, printing, hooks."""

import copy
import pickle

import pytest

import flambeau as torch
from flambeau import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(2, 3)
        self.b = nn.Sequential(nn.Linear(3, 1), nn.ReLU())
        self.scale = nn.Parameter(torch.ones(1))
        self.register_buffer("seen", torch.zeros(1))
        self.register_buffer("temp", torch.zeros(1), persistent=False)

    def forward(self, x):
        return self.b(self.a(x)) * self.scale


def test_names_in_order():
    net = Net()
    assert [n for n, _ in net.named_parameters()] == ["scale", "a.weight", "a.bias", "b.0.weight", "b.0.bias"]
    assert [n for n, _ in net.named_buffers()] == ["seen", "temp"]
    assert [n for n, _ in net.named_modules()] == ["", "a", "b", "b.0", "b.1"]
    assert [n for n, _ in net.named_children()] == ["a", "b"]
    assert list(net.state_dict()) == ["scale", "seen", "a.weight", "a.bias", "b.0.weight", "b.0.bias"]
    assert net.get_submodule("b.0") is net.b[0] and net.get_parameter("b.0.bias") is net.b[0].bias


def test_shared_parameters_are_named_once():
    net = Net()
    net.tied = net.a
    assert len(list(net.parameters())) == 5
    assert len(list(net.named_parameters(remove_duplicate=False))) == 7
    assert "tied.weight" in net.state_dict()


def test_assignment_moves_a_name_between_registries():
    net = Net()
    net.scale = None
    assert net.scale is None and "scale" in net._parameters
    net.scale = nn.Parameter(torch.zeros(2))
    net.fresh = 3
    net.fresh = nn.Linear(1, 1)
    assert "fresh" in net._modules and "fresh" not in net.__dict__
    del net.fresh
    assert not hasattr(net, "fresh")
    net.stat = nn.Buffer(torch.ones(1), persistent=False)
    assert "stat" in net._buffers and "stat" not in net.state_dict()


BAD = [
    (TypeError, "cannot assign 'int' as parameter 'scale'", lambda m: setattr(m, "scale", 1)),
    (TypeError, "cannot assign 'int' as child module 'a'", lambda m: setattr(m, "a", 1)),
    (TypeError, "cannot assign 'int' as buffer 'seen'", lambda m: setattr(m, "seen", 1)),
    (KeyError, "attribute 'forward' already exists", lambda m: m.register_buffer("forward", None)),
    (KeyError, 'parameter name can\'t contain "."', lambda m: m.register_parameter("a.b", None)),
    (ValueError, "Cannot assign non-leaf Tensor to parameter 'w'",
     lambda m: m.register_parameter("w", _non_leaf())),
    (AttributeError, "'Net' object has no attribute 'nothing'", lambda m: m.nothing),
    (AttributeError, "Net has no attribute `c`", lambda m: m.get_submodule("c.d")),
    (ValueError, "training mode is expected to be boolean", lambda m: m.train(1)),
    (NotImplementedError, 'missing the required "forward" function', lambda m: nn.Module()(1)),
    (NotImplementedError, "compile", lambda m: m.compile()),
    (TypeError, "nn.Module.to only accepts floating point", lambda m: m.to(torch.int64)),
]  # fmt: skip


def _non_leaf():
    p = nn.Parameter(torch.ones(1))
    q = nn.Parameter(torch.ones(1))
    q._grad_fn = (p * 2).grad_fn
    return q


@pytest.mark.parametrize("cls, phrase, call", BAD, ids=[b[1][:25] for b in BAD])
def test_errors(cls, phrase, call):
    with pytest.raises(cls) as e:
        call(Net())
    assert phrase in str(e.value).replace("\\'", "'")


def test_assigning_before_init():
    class Early(nn.Module):
        def __init__(self):
            self.w = nn.Parameter(torch.ones(1))

    with pytest.raises(AttributeError, match="cannot assign parameters before Module.__init__"):
        Early()


def test_repr():
    assert repr(Net()) == (
        "Net(\n  (a): Linear(in_features=2, out_features=3, bias=True)\n  (b): Sequential(\n"
        "    (0): Linear(in_features=3, out_features=1, bias=True)\n    (1): ReLU()\n  )\n)"
    )


def test_modes_and_apply():
    net = Net().eval()
    assert not any(m.training for m in net.modules())
    seen = []
    net.train().apply(lambda m: seen.append(type(m).__name__))
    assert seen == ["Linear", "Linear", "ReLU", "Sequential", "Net"]
    assert not any(p.requires_grad for p in net.requires_grad_(False).parameters())


def test_conversion_keeps_the_parameters_themselves():
    net = Net()
    w = net.a.weight
    net.seen = torch.zeros(1, dtype=torch.int64)
    net.double()
    assert net.a.weight is w and w.dtype == torch.float64 and net.seen.dtype == torch.int64
    assert net.to(torch.float32).scale.dtype == torch.float32
    assert net.to("cpu").scale.dtype == torch.float32


def test_zero_grad():
    net = Net()
    net(torch.ones(1, 2)).sum().backward()
    net.zero_grad(set_to_none=False)
    assert float(net.scale.grad.abs().sum()) == 0
    net.zero_grad()
    assert net.scale.grad is None


def test_copies_and_pickles():
    net = Net()
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert repr(other) == repr(net)
        assert isinstance(other.a.weight, nn.Parameter) and other.a.weight is not net.a.weight
        assert torch.equal(other(torch.ones(1, 2)), net(torch.ones(1, 2)))


def test_forward_hooks_in_order():
    seen = []
    m = nn.Identity()
    m.register_forward_pre_hook(lambda m, a: seen.append("pre"))
    m.register_forward_pre_hook(lambda m, a, k: seen.append("first") or (a, k), with_kwargs=True, prepend=True)
    m.register_forward_hook(lambda m, a, out: seen.append("post") or out + 1)
    handle = nn.modules.module.register_module_forward_hook(lambda m, a, out: seen.append("global"))
    assert m(torch.zeros(1)).item() == 1
    handle.remove()
    assert seen == ["first", "pre", "global", "post"]


def test_always_called_hook_sees_a_failure():
    class Fails(nn.Module):
        def forward(self):
            raise RuntimeError("no")

    seen = []
    m = Fails()
    m.register_forward_hook(lambda m, a, out: seen.append(out), always_call=True)
    with pytest.raises(RuntimeError, match="no"):
        m()
    assert seen == [None]


def test_full_backward_hooks():
    m = nn.Linear(2, 1, bias=False)
    seen = []
    m.register_full_backward_pre_hook(lambda m, go: seen.append("pre"))
    m.register_full_backward_hook(lambda m, gi, go: seen.append((gi[0].shape, go[0].shape)) or (gi[0] * 0,))
    x = torch.ones(3, 2).requires_grad_()
    m(x).sum().backward()
    assert seen == ["pre", (torch.Size([3, 2]), torch.Size([3, 1]))]
    assert float(x.grad.abs().sum()) == 0 and m.weight.grad is not None
    with pytest.raises(RuntimeError, match="Cannot use both regular backward hooks and full"):
        m.register_backward_hook(lambda *a: None)


def test_a_parameter_of_integers_needs_requires_grad_false():
    with pytest.raises(RuntimeError, match="Only Tensors of floating point and complex dtype can require gradients"):
        nn.Parameter(torch.arange(3))
    assert not nn.Parameter(torch.arange(3), requires_grad=False).requires_grad
