"""Nodes as PyTorch shows them."""

import copy
import importlib.util
import os
import pickle
import subprocess
import sys
import warnings
import weakref

import pytest

import flambeau as torch
from flambeau.autograd.graph import Node


def leaf(*shape):
    return torch.ones(*shape, requires_grad=True)


class Double(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * 2

    @staticmethod
    def backward(ctx, g):
        return g * 2


def drawn(node, seen=None):
    """A graph as a line of text: names, output numbers, and #n for what was drawn before."""
    seen = {} if seen is None else seen
    if node is None:
        return "None"
    if id(node) in seen:
        return f"#{seen[id(node)]}"
    seen[id(node)] = len(seen)
    inputs = [drawn(n, seen) + (f":{nr}" if nr else "") for n, nr in node.next_functions]
    return f"{node.name().rpartition('::')[2]}({', '.join(inputs)})"


def test_name_class_and_repr():
    x = leaf(2)
    node = (x * x).grad_fn
    assert node.name() == type(node).__name__ == "MulBackward0"
    assert repr(node) == f"<MulBackward0 object at {id(node):#x}>"
    acc = node.next_functions[0][0]
    assert (acc.name(), type(acc).__name__) == ("torch::autograd::AccumulateGrad", "AccumulateGrad")
    assert acc.variable is x and acc.next_functions == () and acc.requires_grad
    assert isinstance(node, Node) and isinstance(acc, Node) and issubclass(type(node), Node)
    assert isinstance(Double.apply(x).grad_fn, Node)
    assert not isinstance(x, Node)


def test_nodes_are_compared_by_identity():
    x = leaf(2)
    y = x * x
    assert y.grad_fn is y.grad_fn and y.grad_fn == y.grad_fn and y.grad_fn != (x * x).grad_fn
    assert len({y.grad_fn, y.grad_fn, (x * x).grad_fn}) == 2
    assert y.grad_fn.next_functions[0][0] is y.grad_fn.next_functions[1][0]


def test_nodes_cannot_be_made_pickled_or_copied():
    node = (leaf(2) * 2).grad_fn
    for action in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="cannot pickle 'MulBackward0' object"):
            action(node)
    with pytest.raises(TypeError, match="cannot create 'MulBackward0' instances"):
        type(node)()
    with pytest.raises(TypeError, match="Can't instantiate abstract class Node"):
        Node()
    with pytest.raises(AttributeError):
        node.something = 1
    with pytest.raises(AttributeError):
        node.next_functions = ()
    assert weakref.ref(node)() is node


def test_metadata_is_kept():
    node = (leaf(2) * 2).grad_fn
    node.metadata["note"] = 1
    assert node.metadata == {"note": 1} and node.metadata is node.metadata


def test_sequence_numbers():
    x = leaf(2)
    a = x * 2
    b = a + 1
    assert b.grad_fn._sequence_nr() > a.grad_fn._sequence_nr()
    assert a.grad_fn.next_functions[0][0]._sequence_nr() > b.grad_fn._sequence_nr()
    a.grad_fn._set_sequence_nr(5)
    assert a.grad_fn._sequence_nr() == 5


def test_input_metadata():
    x = leaf(4, 3)
    y = x.double() * 2
    (m,) = y.grad_fn._input_metadata
    assert m.shape == (4, 3) and m.dtype is torch.float64 and m.device == torch.device("cpu")
    assert isinstance(m.shape, torch.Size) and not m.is_nested_tensor and not m.is_cpp_nested_tensor
    assert [m.shape for m in x.split(3)[0].grad_fn._input_metadata] == [(3, 3), (1, 3)]
    y = x @ leaf(3, 2)
    assert y.exp().grad_fn._input_metadata[0].shape == y.grad_fn._input_metadata[0].shape == (4, 2)
    b = x * 1
    v = b[1:]
    v.mul_(2)
    assert [t.grad_fn._input_metadata[0].shape for t in (b, v)] == [(4, 3), (3, 3)]
    assert x.exp().grad_fn.next_functions[0][0]._input_metadata[0].shape == (4, 3)
    assert Double.apply(x).grad_fn._input_metadata[0].shape == (4, 3)


def test_input_metadata_of_what_has_died():
    x = leaf(4, 3)
    for y, shape in ((x + 1).neg() * 2, (4, 3)), (x.exp().sum(), (4, 3)):
        assert y.grad_fn.next_functions[0][0]._input_metadata[0].shape == shape


def test_nodes_can_be_called():
    x = leaf(2)
    node = (x * 3).grad_fn
    g, none = node(torch.ones(2))
    assert g.tolist() == [3, 3] and none is None and x.grad is None
    assert node(None) == (None, None)
    assert (x.exp().grad_fn(torch.zeros(2))).tolist() == [0, 0]
    with pytest.raises(TypeError, match="expected 1 arguments, got 2 instead"):
        node(torch.ones(2), torch.ones(2))
    with pytest.raises(TypeError, match="argument 0 is not a Variable"):
        node(3)


def test_next_functions_hold_only_what_could_have_a_gradient():
    x = leaf(4, 3)
    i = torch.tensor([0, 2])
    assert drawn(x.index_select(0, i).grad_fn) == "IndexSelectBackward0(AccumulateGrad())"
    assert drawn((x * 2).grad_fn) == "MulBackward0(AccumulateGrad(), None)"
    assert drawn(x.clamp(0, 1).grad_fn) == "ClampBackward1(AccumulateGrad())"
    assert drawn(torch.add(x, x, alpha=2).grad_fn) == "AddBackward0(AccumulateGrad(), #1)"
    assert drawn(torch.where(x > 0, x, 0.0).grad_fn) == "WhereBackward0(AccumulateGrad(), None)"
    assert drawn(x.unbind()[2].grad_fn) == "UnbindBackward0(AccumulateGrad())"
    assert drawn((x.unbind()[2] + 1).grad_fn) == "AddBackward0(UnbindBackward0(AccumulateGrad()):2, None)"


GRAPHS = {
    "in place on a row": lambda T, x, w: change(x * 1, lambda b: b[0].mul_(2)),
    "in place on a row, by a tensor": lambda T, x, w: change(x * 1, lambda b: b[0].mul_(w)),
    "a row written": lambda T, x, w: change(x * 1, lambda b: b.__setitem__(0, w)),
    "a row written in constants": lambda T, x, w: change(T.zeros(4, 3), lambda b: b.__setitem__(0, w)),
    "in place on all": lambda T, x, w: (x * 1).add_(w),
    "a view of what changed": lambda T, x, w: change(x * 1, lambda b: b[0].exp_())[1:],
    "views": lambda T, x, w: x.t()[1:, :].unsqueeze(0),
    "products": lambda T, x, w: (x @ x.t()).sum(0) + w.sum(),
    "several outputs": lambda T, x, w: x.max(1).values + x.split(2)[1].sum(),
    "numbers": lambda T, x, w: (2**x + (x**2) / 2 - 1).clamp_min(0),
    "joined": lambda T, x, w: T.cat([x, x * 2]).mean(0),
    "indices": lambda T, x, w: x.gather(1, T.zeros(4, 1, dtype=T.int64)) + x[T.tensor([0, 1, 2, 3])],
    "double": lambda T, x, w: T.autograd.grad((x.exp() * x).sum(), x, create_graph=True)[0],
    "loss": lambda T, x, w: T.nn.functional.mse_loss(x, x.detach()),
    "normalised": lambda T, x, w: T.nn.functional.layer_norm(x, (3,), w).softmax(1),
}  # fmt: skip


def change(t, by):
    by(t)
    return t


@pytest.mark.torch
@pytest.mark.parametrize("name", GRAPHS)
def test_graph_is_pytorchs(name):
    pytorch = pytest.importorskip("torch")
    ours, theirs = [
        GRAPHS[name](T, T.ones(4, 3, requires_grad=True), T.ones(3, requires_grad=True)).grad_fn for T in (torch, pytorch)
    ]
    assert drawn(ours) == drawn(theirs)


@pytest.mark.torch
def test_public_names_are_pytorchs():
    pytorch = pytest.importorskip("torch")
    for make in (lambda T: T.ones(2, requires_grad=True).exp().grad_fn, lambda T: T.ones(2, requires_grad=True).exp().grad_fn.next_functions[0][0]):
        want = {n for n in dir(make(pytorch)) if not n.startswith("__") and n != "_register_hook_dict"}
        assert want <= set(dir(make(torch)))


def walk(var):
    """What drawing programs (torchviz's ``make_dot`` among them) ask nodes and tensors, and nothing else."""
    seen, lines = set(), []

    def add(fn):
        assert not torch.is_tensor(fn)
        if fn in seen:
            return
        seen.add(fn)
        saved = {}
        for attr in dir(fn):
            if attr.startswith("_saved_"):
                value = getattr(fn, attr)
                seen.add(value)
                if torch.is_tensor(value):
                    saved[attr] = tuple(value.size())
                elif isinstance(value, tuple) and any(torch.is_tensor(t) for t in value):
                    saved[attr] = [None if t is None else tuple(t.size()) for t in value]
                else:
                    saved[attr] = str(value)
        if hasattr(fn, "variable"):
            seen.add(fn.variable)
            saved["variable"] = tuple(fn.variable.size())
        if hasattr(fn, "saved_tensors"):
            saved["saved_tensors"] = [tuple(t.size()) for t in fn.saved_tensors]
        lines.append((type(fn).__name__, saved))
        if hasattr(fn, "next_functions"):
            for following in fn.next_functions:
                if following[0] is not None:
                    add(following[0])

    add(var.grad_fn)
    if var._is_view():
        assert torch.is_tensor(var._base)
    return lines


def test_a_graph_can_be_drawn():
    x = leaf(2, 3)
    w = leaf(3)
    y = (Double.apply(x) * w).sum(0)
    assert walk(y) == [
        ("SumBackward1", {"_saved_dim": "(0,)", "_saved_keepdim": "False", "_saved_self_sym_sizes": "(2, 3)"}),
        ("MulBackward0", {"_saved_self": (2, 3), "_saved_other": (3,)}),
        ("DoubleBackward", {"saved_tensors": [(2, 3)]}),
        ("AccumulateGrad", {"variable": (2, 3)}),
        ("AccumulateGrad", {"variable": (3,)}),
    ]
    assert [name for name, _ in walk(x.t()[0])] == ["SelectBackward0", "TBackward0", "AccumulateGrad"]


VISUAL = '''
import re, warnings
warnings.simplefilter("ignore")
import torch
from torchviz import make_dot

def net():
    x = torch.linspace(-1, 1, 12).view(4, 3).requires_grad_()
    w = torch.ones(3, 2, requires_grad=True)
    h = (x @ w).tanh() * 2
    h[0].mul_(3)
    y = torch.cat([p.exp() for p in h.split(2)]).softmax(1).pow(2).mean()
    g, = torch.autograd.grad(y, w, create_graph=True)
    return (y, h.t()), (y + g.sum(),), {"x": x, "w": w}

def text(dot):
    ids = {}
    return re.sub(r"(?<![.0-9])[0-9]{9,}", lambda m: "n%d" % ids.setdefault(m[0], len(ids)), dot.source)

once, twice, params = net()
for out in (once, twice):
    for options in ({}, {"show_attrs": True}, {"show_saved": True}):
        print(text(make_dot(out, params=params, **options)))
'''


def draw(tmp_path, *command):
    """What the script prints, run by ``command``; skips where the published package is not installed."""
    for package in ("graphviz", "torchviz"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"the published package {package} is not installed")
    script = tmp_path / "draw.py"
    script.write_text(VISUAL)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run([sys.executable, *command, script], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_torchviz_draws_our_graphs(tmp_path):
    drawing = draw(tmp_path, "-m", "flambeau", "run")
    assert drawing.count("digraph {") == 6
    for part in ("MmBackward0", "CopySlices", "TanhBackward0", "AccumulateGrad", "x\n (4, 3)", "fillcolor=orange", "result: [saved tensor]"):
        assert part in drawing, part


@pytest.mark.torch
def test_torchviz_draws_the_same_graphs(tmp_path):
    pytest.importorskip("torch")
    ours, theirs = draw(tmp_path, "-m", "flambeau", "run").split("digraph"), draw(tmp_path).split("digraph")
    assert ours[:4] == theirs[:4]  # the graphs of derivatives go through other operators


# Where our node does the work of several of PyTorch's, or several of ours that of one: (ours, PyTorch's) of an output.
OTHER_NAMES = """
AdaptiveAvgPool2DBackward0 SqueezeBackward1
AdaptiveMaxPool2DBackward0 SqueezeBackward1
AddBackward0 AddbmmBackward0
AddBackward0 AddmvBackward0
AddBackward0 AddrBackward0
AddBackward0 GridSampler2DBackward0
AddBackward0 GridSampler3DBackward0
AddBackward0 LinalgLuFactorExBackward0
AddBackward0 LuUnpackBackward0
AddBackward0 MvlgammaBackward0
AddmmBackward0 ViewBackward0
AvgPool2DBackward0 SqueezeBackward1
BmmBackward0 CloneBackward0
BmmBackward0 UnsafeViewBackward0
CatBackward0 LinalgLuBackward0
CatBackward0 LinalgQrBackward0
CdistBackward0 ViewBackward0
ChannelShuffleBackward0 NotImplemented
CircularPad1DBackward0 CopySlices
CircularPad2DBackward0 CopySlices
CircularPad3DBackward0 CopySlices
CloneBackward0 TriangularSolveBackward0
DiagonalBackward0 PermuteBackward0
DivBackward0 DivBackward1
DivBackward0 SqueezeBackward0
DivBackward0 SqueezeBackward1
GaussianNllLossBackward0 AddBackward0
GaussianNllLossBackward0 MulBackward0
KlDivBackward0 SubBackward0
KlDivLogTargetBackward0 MulBackward0
L1LossBackward0 AbsBackward0
LeakyReluBackward0 RreluWithNoiseBackward0
LinalgSolveTriangularBackward0 CholeskyInverseBackward0
LinalgSolveTriangularBackward0 CholeskySolveBackward0
LinalgSolveTriangularBackward0 LinalgLuSolveBackward0
LinalgSolveTriangularBackward0 TriangularSolveBackward0
LinalgVectorNormBackward0 CdistBackward0
LinalgVectorNormBackward0 DistBackward0
LinalgVectorNormBackward0 NormBackward1
MaskedFillBackward0 WhereBackward0
MaxPool2DWithIndicesBackward0 SqueezeBackward1
MaxUnpool2DBackward0 SqueezeBackward1
MeanBackward0 MultiMarginLossBackward0
MeanBackward0 MultilabelMarginLossBackward0
MmBackward0 LinalgLstsqBackward0
MmBackward0 OrmqrBackward0
MmBackward0 ViewBackward0
MulBackward0 GridSampler2DBackward0
MulBackward0 GridSampler3DBackward0
MulBackward0 MulBackward1
MulBackward0 NanToNumBackward0
MulBackward0 RenormBackward0
MvBackward0 SqueezeBackward4
NativeBatchNormBackward0 ViewBackward0
NllLossBackward0 AddBackward0
NllLossBackward0 NllLoss2DBackward0
NllLossBackward0 ViewBackward0
PermuteBackward0 ConvTbcBackward0
PermuteBackward0 ViewBackward0
PoissonNllLossBackward0 AddBackward0
PoissonNllLossBackward0 SubBackward0
ScaledDotProductFlashAttentionForCpuBackward0 MmBackward0
ScaledDotProductFlashAttentionForCpuBackward0 UnsafeViewBackward0
SpecialNdtrBackward0 MulBackward1
SqueezeBackward1 Col2ImBackward0
SqueezeBackward1 Im2ColBackward0
SqueezeBackward1 SqueezeBackward4
SqueezeBackward1 UnsafeViewBackward0
SqueezeBackward1 ViewBackward0
SubBackward0 LinalgHouseholderProductBackward0
SumBackward0 MultiMarginLossBackward0
SumBackward1 ViewBackward0
TransposeBackward0 LinalgLuSolveBackward0
TriuBackward0 LuUnpackBackward0
UnsqueezeBackward0 AmaxBackward0
UnsqueezeBackward0 SqueezeBackward4
ViewBackward0 AffineGridGeneratorBackward0
ViewBackward0 GridSampler2DBackward0
ViewBackward0 GridSampler3DBackward0
ViewBackward0 MulBackward0
ViewBackward0 ReshapeAliasBackward0
ViewBackward0 SqueezeBackward0
ViewBackward0 UnsafeViewBackward0
"""


@pytest.mark.torch
def test_names_of_every_operators_node():
    pytorch = pytest.importorskip("torch")
    from tests.ops.harness import F, flat, tensor, torch_tensor

    from .saved.test_saved_names import cases

    known = {tuple(line.split()) for line in OTHER_NAMES.strip().splitlines()}
    equal, different = 0, {}
    for case in cases():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            arrays = case.arrays("float64")
            ours = flat(case.fn(F, *[tensor(a, a.dtype.kind == "f") for a in arrays]))
            theirs = flat(case.fn(pytorch, *[torch_tensor(pytorch, a).requires_grad_(a.dtype.kind == "f") for a in arrays]))
        for t, u in zip(ours, theirs):
            if torch.is_tensor(t) and t.grad_fn is not None:
                pair = t.grad_fn.name(), u.grad_fn.name().rpartition("::")[2]
                equal += pair[0] == u.grad_fn.name()
                if pair[0] != u.grad_fn.name() and pair not in known:
                    different[case.name] = pair
    assert not different
    assert equal > 4 * sum(1 for _ in known)
