"""``torch.ops.aten``: PyTorch's names for operators."""

import copy
import importlib
import pickle
import pkgutil

import pytest

import flambeau
import flambeau as torch
import flambeau.ops
from flambeau._aten import NAMES, overload_of
from flambeau.autograd.pointwise import POINTWISE
from flambeau.autograd.primitive import PRIMITIVES
from flambeau.ops.public import FUNCTIONS

aten = flambeau.ops.aten


def test_overloads_are_themselves():
    mm = torch.ops.aten.mm.default
    assert mm is torch.ops.aten.mm.default and mm == aten.mm.default and mm in {aten.mm.default} and mm != aten.addmm.default
    assert pickle.loads(pickle.dumps(mm)) is mm and copy.deepcopy(mm) is mm and pickle.loads(pickle.dumps(aten.mm)) is aten.mm
    assert pickle.loads(pickle.dumps(aten)) is aten


def test_names():
    assert (str(aten.mm), repr(aten.mm)) == ("aten.mm", "<OpOverloadPacket(op='aten.mm')>")
    assert (str(aten.mm.default), repr(aten.mm.default)) == ("aten.mm.default", "<OpOverload(op='aten.mm', overload='default')>")
    assert (aten.mm.default.name(), aten.add.Tensor.name()) == ("aten::mm", "aten::add.Tensor")
    assert aten.add.Tensor.__name__ == "add.Tensor" and aten.add.__name__ == "add" and aten.add.Tensor.overloadpacket is aten.add
    assert aten.add.Tensor.namespace == "aten" and aten.add.Tensor._overloadname == "Tensor"
    assert {"Tensor", "Scalar", "out"} <= set(aten.add.overloads())
    assert "mm" in dir(aten) and repr(aten) == "<torch.ops.aten>"


def test_names_that_are_not_there():
    with pytest.raises(AttributeError, match="'_OpNamespace' 'aten' object has no attribute 'nothing'"):
        _ = aten.nothing
    with pytest.raises(AttributeError, match="The underlying op of 'aten.mm' has no overload name 'nothing'"):
        _ = aten.mm.nothing
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = torch.ops.nothing
    assert not hasattr(aten, "__wrapped__") and not hasattr(aten.mm, "__wrapped__")


def test_they_can_be_called():
    x = torch.tensor([[0.0, 1.0]])
    assert torch.equal(aten.mm.default(x, x.t()), x @ x.t())
    assert torch.equal(aten.add.Tensor(x, x, alpha=2), x * 3)
    assert torch.equal(aten.sin(x), x.sin()) and torch.equal(aten._softmax(x, 1), x.softmax(1))
    with pytest.raises(NotImplementedError, match="aten._foobar_does_not_exist|aten.cudnn_convolution is not in flambeau"):
        aten.cudnn_convolution.default(x)


def every_operator():
    for m in pkgutil.iter_modules(flambeau.ops.__path__):
        importlib.import_module(f"flambeau.ops.{m.name}")
    return {**PRIMITIVES, **POINTWISE}


def test_every_operator_has_a_name():
    x = torch.ones(1)
    ops = every_operator()
    unknown = sorted(
        {op.name for op in ops.values() for args in ((x,), (x, x), (x, 2)) if overload_of(op, args).namespace != "aten"}
    )
    # The rest are derivatives and parts of operators, which no program calls by name.
    published = {name for functions in FUNCTIONS.values() for name in functions}
    assert [n for n in unknown if n in published and n not in OWN] == []
    assert sorted(set(NAMES) - set(ops)) == []
    for name in NAMES.values():
        packet, _, overload = name.partition(".")
        assert str(getattr(getattr(aten, packet), overload)) == f"aten.{name}"


# PyTorch makes these of several operators.
OWN = {"gaussian_nll_loss", "max_unpool1d", "softsign", "tanhshrink"}


PROGRAMS = {
    "sin": lambda torch, x: x.sin(), "add": lambda torch, x: x + 1, "rsub": lambda torch, x: 2 - x,
    "mul": lambda torch, x: x * x, "square": lambda torch, x: x**2, "gt": lambda torch, x: x > 0, "le": lambda torch, x: x <= x,
    "mm": lambda torch, x: x @ x, "linear": lambda torch, x: torch.nn.functional.linear(x, x.detach(), x[0].detach()),
    "softmax": lambda torch, x: x.softmax(0), "log_softmax": lambda torch, x: x.log_softmax(1), "sum": lambda torch, x: x.sum(),
    "sum dim": lambda torch, x: x.sum(1), "mean": lambda torch, x: x.mean(), "mean dim": lambda torch, x: x.mean(0),
    "amax": lambda torch, x: x.amax(0), "max": lambda torch, x: x.max(), "max dim": lambda torch, x: x.max(0).values,
    "var": lambda torch, x: x.var(), "gelu": lambda torch, x: torch.nn.functional.gelu(x), "relu": lambda torch, x: x.relu(),
    "layer norm": lambda torch, x: torch.nn.functional.layer_norm(x, (3,)), "select": lambda torch, x: x[0],
    "slice": lambda torch, x: x[:, 1:], "transpose": lambda torch, x: x.transpose(0, 1), "t": lambda torch, x: x.t(),
    "expand": lambda torch, x: x.expand(2, 3, 3), "unsqueeze": lambda torch, x: x.unsqueeze(0), "double": lambda torch, x: x.double(),
    "cat": lambda torch, x: torch.cat([x, x]), "clamp": lambda torch, x: x.clamp(0, 1), "tril": lambda torch, x: x.tril(),
    "where": lambda torch, x: torch.where(x.detach() > 9, x, x), "gather": lambda torch, x: x.gather(0, torch.zeros(1, 3, dtype=torch.long)),
    "cumsum": lambda torch, x: x.cumsum(0), "clone": lambda torch, x: x.clone(), "norm": lambda torch, x: torch.linalg.vector_norm(x),
    "lerp": lambda torch, x: torch.lerp(x, x, 0.5), "index_select": lambda torch, x: x.index_select(0, torch.zeros(1, dtype=torch.long)),
    "logsumexp": lambda torch, x: x.logsumexp(0), "masked_fill": lambda torch, x: x.masked_fill(x.detach() > 9, 0.0),
}  # fmt: skip


@pytest.mark.torch
@pytest.mark.parametrize("name", PROGRAMS)
def test_same_names_as_pytorch(name):
    """Some operator of the call goes by the name of some operator that PyTorch calls."""
    pytorch = pytest.importorskip("torch")
    from torch.utils._python_dispatch import TorchDispatchMode

    from flambeau.utils.checkpoint.watching import Watching

    theirs, ours = [], []

    class Theirs(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            theirs.append(str(func))
            return func(*args, **kwargs or {})

    class Ours(Watching):
        def see(self, op, args, params):
            ours.append(str(overload_of(op, args)))
            return op(*args, **params)

    x = pytorch.rand(3, 3, requires_grad=True)
    with Theirs():
        PROGRAMS[name](pytorch, x)
    with Ours():
        PROGRAMS[name](torch, torch.tensor(x.tolist(), requires_grad=True))
    named = [op for op in ours if op.startswith("aten.") and op != "aten.alias.default"]
    assert named and set(named) <= set(theirs), (ours, theirs)
