"""``_saved_*`` and ``_raw_saved_*``: what nodes saved, under PyTorch's names."""

import importlib
import pathlib
import warnings

import numpy as np
import pytest

import flambeau as torch
from flambeau.autograd.saved.names import NAMES
from flambeau.autograd.saved.table import DERIVED, TABLE


def leaf(*shape):
    return torch.full(shape, 2.0, requires_grad=True)


def saved(node):
    return [n for n in dir(node) if n.startswith(("_saved_", "_raw_saved_"))]


# ---- the table ---------------------------------------------------------------------------------------------------------
def test_names_are_the_tables():
    assert NAMES.split() == sorted({item.partition("=")[0] for spec, _ in TABLE for item in spec.split()})


def test_every_derived_entry_is_used():
    used = {a[1:] for spec, _ in TABLE for item in spec.split() for a in item.partition("=")[2].split("|") if a.startswith("@")}
    assert used == set(DERIVED)


# ---- values ------------------------------------------------------------------------------------------------------------
def test_operands_and_outputs():
    x, w = leaf(2, 3), leaf(3)
    y = x * w
    node = y.grad_fn
    assert saved(node) == ["_raw_saved_other", "_raw_saved_self", "_saved_other", "_saved_self"]
    assert node._saved_self is x and node._saved_other is w
    e = y.exp()
    result = e.grad_fn._saved_result
    assert result is not e and result.grad_fn is e.grad_fn and result.tolist() == e.tolist()


def test_what_no_rule_needs_is_none():
    x = leaf(2)
    node = (x * torch.ones(2)).grad_fn
    assert node._saved_self is None and node._saved_other.tolist() == [1, 1]
    assert node._raw_saved_self.unpack() is None


def test_numbers_sizes_and_dimensions():
    x = leaf(2, 3)
    node = x.sum(1, keepdim=True).grad_fn
    assert (node._saved_dim, node._saved_keepdim, node._saved_self_sym_sizes) == ((1,), True, (2, 3))
    assert not hasattr(node, "_raw_saved_dim")
    assert torch.add(x, x, alpha=3).grad_fn._saved_alpha == 3
    assert (x**3).grad_fn._saved_exponent == 3
    assert x.clamp(0, 1).grad_fn._saved_max == 1 and x.clamp(min=0).grad_fn._saved_max is None
    node = x[:, 1:].grad_fn
    assert (node._saved_dim, node._saved_start, node._saved_end, node._saved_step) == (1, 1, (1 << 63) - 1, 1)


def test_index_tensors():
    x = leaf(4, 3)
    node = x[torch.tensor([0, 2])].grad_fn
    assert [t.tolist() for t in node._saved_indices] == [[0, 2]]
    assert x.index_select(1, torch.tensor([1])).grad_fn._saved_index.tolist() == [1]


def test_names_that_a_node_lacks():
    node = leaf(2).exp().grad_fn
    with pytest.raises(AttributeError, match="'ExpBackward0' object has no attribute '_saved_other'"):
        node._saved_other
    assert not hasattr(node, "_saved_nonsense")
    with pytest.raises(AttributeError, match="attribute '_saved_result' of 'ExpBackward0' objects is not writable"):
        node._saved_result = 1
    assert saved(node.next_functions[0][0]) == []


def test_names_on_ctx_are_the_users():
    class Keeps(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx._saved_self = 5
            return x * 2

        @staticmethod
        def backward(ctx, g):
            assert ctx._saved_self == 5 and not hasattr(ctx, "_saved_other")
            return g * 2

    x = leaf(2)
    Keeps.apply(x).sum().backward()
    assert x.grad.tolist() == [2, 2]


# ---- freed, changed ----------------------------------------------------------------------------------------------------
def test_after_a_backward_pass():
    x = leaf(2)
    y = (x * x).exp()
    y.sum().backward()
    for node, name in ((y.grad_fn, "result"), (y.grad_fn.next_functions[0][0], "self")):
        with pytest.raises(RuntimeError, match="directly access saved tensors after they have already been freed"):
            getattr(node, "_saved_" + name)
        assert "_saved_" + name in dir(node)
        raw = getattr(node, "_raw_saved_" + name)
        assert raw.data is None
        with pytest.raises(RuntimeError, match="after they have already been freed"):
            raw.unpack()
        with pytest.raises(RuntimeError, match="Calling register_hooks on a saved tensor after it has been freed"):
            raw.register_hooks(lambda t: t, lambda t: t)


def test_after_a_change_in_place():
    x, w = leaf(2), torch.ones(2)
    y = x * w
    e = x.exp()
    w.add_(1)
    e.add_(1)
    for node, name in ((y.grad_fn, "other"), (e.grad_fn.next_functions[0][0], "result")):
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            getattr(node, "_saved_" + name)
    assert y.grad_fn._raw_saved_other.data.tolist() == [2, 2]


# ---- hooks of one saved tensor -----------------------------------------------------------------------------------------
def test_register_hooks():
    x, w = leaf(2), torch.full((2,), 3.0)
    y = x * w
    raw = y.grad_fn._raw_saved_other
    assert raw.data.tolist() == [3, 3] and raw.unpack() is w and raw.unpack_hook is None
    calls = []

    def pack(t):
        calls.append((t.requires_grad, torch.is_grad_enabled()))
        return "packed"

    def unpack(p):
        calls.append(p)
        return torch.full((2,), 5.0)

    raw.register_hooks(pack, unpack)
    assert raw.data == "packed" and y.grad_fn._saved_other.tolist() == [5, 5] and raw.unpack_hook is unpack
    y.sum().backward()
    assert x.grad.tolist() == [5, 5]
    assert calls == [(False, False), "packed", "packed"]


def test_register_hooks_on_an_output():
    x = leaf(2)
    y = x.exp()
    y.grad_fn._raw_saved_result.register_hooks(lambda t: t.tolist(), lambda p: torch.tensor(p) * 2)
    assert y.grad_fn._saved_result.grad_fn is y.grad_fn
    y.sum().backward()
    assert x.grad.tolist() == (y * 2).tolist()


def test_register_hooks_of_operators_that_are_not_pointwise():
    a, b = leaf(2, 3), leaf(3, 2)
    y = a @ b
    y.grad_fn._raw_saved_mat2.register_hooks(lambda t: t.clone(), lambda t: t * 10)
    assert y.grad_fn._saved_mat2.requires_grad
    s = torch.softmax(a, 1)
    s.grad_fn._raw_saved_result.register_hooks(lambda t: t.clone(), lambda t: t)
    y.sum().backward()
    assert a.grad.tolist() == [[40, 40, 40], [40, 40, 40]]
    (s * s).sum().backward()


def test_hooked_tensors_keep_their_history():
    x = leaf(2)
    y = x * 3
    z = y * y
    z.grad_fn._raw_saved_self.register_hooks(lambda t: t.clone(), lambda t: t)
    assert z.grad_fn._saved_self.grad_fn is y.grad_fn
    (g,) = torch.autograd.grad(z.sum(), x, create_graph=True)
    (h,) = torch.autograd.grad(g.sum(), x)
    assert g.tolist() == [36, 36] and h.tolist() == [18, 18]


def test_what_register_hooks_refuses():
    x, w = leaf(2), torch.ones(2)
    y = x * w
    raw = y.grad_fn._raw_saved_other
    with pytest.raises(TypeError, match="incompatible function arguments"):
        raw.register_hooks(1, 2)
    with pytest.raises(RuntimeError, match="Calling register_hooks on a saved tensor with value None is forbidden"):
        y.grad_fn._raw_saved_self.register_hooks(lambda t: t, lambda t: t)
    with pytest.raises(RuntimeError, match="A saved tensor pack hook is modifying its input in place"):
        raw.register_hooks(lambda t: t.add_(1), lambda t: t)
    with pytest.raises(ZeroDivisionError):
        (x * torch.ones(2)).grad_fn._raw_saved_other.register_hooks(lambda t: 1 / 0, lambda t: t)
    y = x * torch.ones(2)
    raw = y.grad_fn._raw_saved_other
    raw.register_hooks(lambda t: t, lambda t: t)
    with pytest.raises(RuntimeError, match="whose hooks have already been set. Hint: only one pair of hooks is allowed at a time"):
        raw.register_hooks(lambda t: t, lambda t: t)
    y = x.exp()
    y.grad_fn._raw_saved_result.register_hooks(lambda t: 3, lambda t: t)
    with pytest.raises(TypeError, match="Output of saved tensor unpack_hook expected to be a Tensor but got result of type int"):
        y.grad_fn._saved_result


# ---- PyTorch's values --------------------------------------------------------------------------------------------------
FILES = sorted(p.stem for p in (pathlib.Path(__file__).parent.parent.parent / "ops").glob("test_*.py"))
NORMALISED = {"dim", "dims", "dim0", "dim1", "dim2", "index"}  # from the front, where PyTorch keeps what it was given
DEFAULTS = {"stride", "correction", "scale", "storage_offset", "padding", "output_padding"}  # None or empty where PyTorch was given none
SIGNS = {"U", "Vh", "L", "Q"}  # of decompositions that are not unique
FUSED = {
    "rdiv", "rms_norm", "repeat_interleave", "grouped", "eig", "eigvals", "negative", "conv2d_same", "matrix_power_negative",
    "gru_cell", "gradient_places", "repeat_interleave_flat", "tensor_split", "tensor_split_at", "hsplit", "vsplit", "dsplit",
    "cross_entropy_unbatched", "qr_wide", "lu_tall", "lu_wide", "svd_tall", "svd_wide", "svd", "rnn_tanh_cell", "rnn_relu_cell",
}  # fmt: skip  # cases where one of our nodes does the work of several


def cases():
    from tests.ops.harness import OperatorTests

    seen = {}
    for file in FILES:
        for v in vars(importlib.import_module(f"tests.ops.{file}")).values():
            if isinstance(v, type) and issubclass(v, OperatorTests):
                seen.update({id(c): c for c in v.cases if c.grad and c.torch})
    return list(seen.values())


def side_by_side(ours, theirs):
    """Nodes of two graphs that have the same place and name."""
    stack, seen = list(zip(ours, theirs)), set()
    while stack:
        a, b = stack.pop()
        if a is None or b is None or (id(a), id(b)) in seen or a.name() != b.name():
            continue
        seen.add((id(a), id(b)))
        yield a, b
        stack += [(m, n) for (m, _), (n, _) in zip(a.next_functions, b.next_functions)]


def signed(v):
    """PyTorch shows negative numbers as unsigned ones."""
    if isinstance(v, (tuple, list)):
        return tuple(signed(x) for x in v)
    return v - (1 << 64) if isinstance(v, int) and v >= 1 << 63 else v


def same(a, b, pytorch):
    if isinstance(b, (tuple, list)):
        return isinstance(a, tuple) and len(a) == len(b) and all(same(x, y, pytorch) for x, y in zip(a, b))
    if isinstance(b, pytorch.Tensor):
        y = b.detach().resolve_conj().numpy()
        return torch.is_tensor(a) and tuple(a.shape) == y.shape and np.allclose(a.detach().numpy(), y, rtol=1e-5, equal_nan=True)
    return a is b if a is None or b is None else a == b


@pytest.mark.torch
def test_values_and_coverage():
    """Every value that we show is PyTorch's; of all that PyTorch's nodes show in the operators' cases, most is there."""
    pytorch = pytest.importorskip("torch")
    from tests.ops.harness import F, flat, tensor, torch_tensor

    theirs, there, wrong = set(), set(), {}
    for case in cases():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            arrays = case.arrays("float64")
            ts = [tensor(a, a.dtype.kind == "f") for a in arrays]
            us = [torch_tensor(pytorch, a).requires_grad_(a.dtype.kind == "f") for a in arrays]
            ours = [t for t in flat(case.fn(F, *ts)) if torch.is_tensor(t)]
            want = [u for u in flat(case.fn(pytorch, *us)) if isinstance(u, pytorch.Tensor)]
        for a, b in side_by_side([t.grad_fn for t in ours], [u.grad_fn for u in want]):
            for name in [n for n in dir(b) if n.startswith("_saved_")]:
                theirs.add((a.name(), name))
                assert hasattr(a, name) == (name in dir(a))
                if not hasattr(a, name):
                    continue
                there.add((a.name(), name))
                short = name.removeprefix("_saved_")
                if short in NORMALISED | DEFAULTS | SIGNS or case.name in FUSED or case.name.startswith(("einsum", "eigh")):
                    continue
                got, expected = getattr(a, name), signed(getattr(b, name))
                if not same(got, expected, pytorch):
                    wrong[f"{case.name}: {a.name()}.{name}"] = (got, expected)
    assert not wrong, "\n".join(wrong)
    assert len(there) / len(theirs) > 0.85, f"{len(there)} of {len(theirs)}, without {sorted(theirs - there)}"
