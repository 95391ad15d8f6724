"""The text of tensors: recorded from PyTorch, and compared with it over many tensors and options."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from flambeau.core import dtypes
from flambeau.core.printing import (
    PRINT_OPTS,
    get_printoptions,
    printoptions,
    set_printoptions,
    tensor_str,
)
from flambeau.core.tensor import wrap

nan, inf = float("nan"), float("inf")


def text(values, dtype="float32", **options) -> str:
    with printoptions(**options):
        return tensor_str(wrap(np.array(values, dtypes.BY_NAME[dtype].np)))


@pytest.fixture(autouse=True)
def default_options():
    yield
    set_printoptions(profile="default")


RECORDED = [
    (([1.0, 2.0, 3.0],), "tensor([1., 2., 3.])"),
    (([0.5, -1.25],), "tensor([ 0.5000, -1.2500])"),
    (([1e-5, 1.0],), "tensor([1.0000e-05, 1.0000e+00])"),
    (([1.0, nan, inf, -inf],), "tensor([1., nan, inf, -inf])"),
    ((1.5,), "tensor(1.5000)"),
    ((3, "int64"), "tensor(3)"),
    (([True, False], "bool"), "tensor([ True, False])"),
    (([1, -100], "int32"), "tensor([   1, -100], dtype=torch.int32)"),
    (([1.5], "float64"), "tensor([1.5000], dtype=torch.float64)"),
    (([[1, 2], [3, 4]], "int64"), "tensor([[1, 2],\n        [3, 4]])"),
    (([1 + 2j, 0.5 - 1j], "complex64"), "tensor([1.0000+2.j, 0.5000-1.j])"),
    (([],), "tensor([])"),
    (([], "int64"), "tensor([], dtype=torch.int64)"),
    (([[], []],), "tensor([], size=(2, 0))"),
    (([1.0, 0.1], "bfloat16"), "tensor([1.0000, 0.1001], dtype=torch.bfloat16)"),
]


@pytest.mark.parametrize("arguments,expected", RECORDED)
def test_recorded(arguments, expected):
    assert text(*arguments) == expected


def test_summaries():
    a = wrap(np.arange(2000))
    assert tensor_str(a) == "tensor([   0,    1,    2,  ..., 1997, 1998, 1999])"
    assert tensor_str(wrap(np.arange(2000).reshape(40, 50))).count("\n") == 6
    with printoptions(profile="full"):
        assert "1000" in tensor_str(a)


def test_requires_grad_and_node():
    t = wrap(np.ones(2, np.float32))
    t._rg = True
    assert tensor_str(t) == "tensor([1., 1.], requires_grad=True)"

    class AddBackward0:
        def name(self):
            return "AddBackward0"

    t._grad_fn = AddBackward0()
    assert tensor_str(t) == "tensor([1., 1.], grad_fn=<AddBackward0>)"


def test_options():
    before = get_printoptions()
    with printoptions(precision=2, sci_mode=True):
        assert text([1.0], sci_mode=True, precision=2) == "tensor([1.00e+00])"
        assert PRINT_OPTS.precision == 2
    assert get_printoptions() == before
    set_printoptions(profile="short")
    assert (PRINT_OPTS.precision, PRINT_OPTS.edgeitems) == (2, 2)


# ---- PyTorch --------------------------------------------------------------------------------------------------------
@pytest.fixture
def torch():
    torch = pytest.importorskip("torch")
    yield torch
    torch.set_printoptions(profile="default")


VALUES = {
    "whole": lambda r, n: r.integers(-9, 10, n).astype(float),
    "normal": lambda r, n: r.standard_normal(n),
    "large": lambda r, n: r.standard_normal(n) * 1e5,
    "huge": lambda r, n: r.integers(1, 10, n) * 1e9,
    "tiny": lambda r, n: r.standard_normal(n) * 1e-6,
    "wide": lambda r, n: 10.0 ** r.uniform(-4, 4, n),
    "odd": lambda r, n: r.choice([0.0, -0.0, nan, inf, -inf, 1.0, 2.5], n),
    "none": lambda r, n: r.choice([0.0, nan, inf], n),
    "zero": lambda r, n: np.zeros(n),
}
SHAPES = [
    (),
    (1,),
    (0,),
    (2, 0),
    (5,),
    (37,),
    (1001,),
    (3, 4),
    (1, 60),
    (60, 1),
    (2, 3, 4),
    (20, 60),
    (2, 2, 2, 2),
    (11, 10, 10),
    (1, 1, 1100),
]
OPTIONS = [
    {},
    {"precision": 2},
    {"precision": 8},
    {"sci_mode": True},
    {"sci_mode": False},
    {"linewidth": 40},
    {"threshold": 5},
    {"edgeitems": 1},
    {"threshold": 4, "edgeitems": 0},
    {"profile": "short"},
    {"profile": "full"},
    {"threshold": 10, "edgeitems": 2, "linewidth": 30, "precision": 1},
]


@pytest.mark.torch
@pytest.mark.parametrize("kind", VALUES)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_floating_as_torch(torch, kind, options):
    r = np.random.default_rng(0)
    set_printoptions(**options)
    torch.set_printoptions(**options)
    for shape, name in itertools.product(SHAPES, ("float32", "float64", "float16", "bfloat16")):
        values = torch.from_numpy(np.asarray(VALUES[kind](r, int(np.prod(shape)))).reshape(shape)).to(
            getattr(torch, name)
        )
        ours = wrap(values.double().numpy().astype(dtypes.BY_NAME[name].np))
        assert tensor_str(ours) == repr(values), (shape, name)


@pytest.mark.torch
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_other_dtypes_as_torch(torch, options):
    r = np.random.default_rng(0)
    set_printoptions(**options)
    torch.set_printoptions(**options)
    for shape in SHAPES:
        n = int(np.prod(shape))
        whole = r.integers(-200, 200, n).reshape(shape)
        for a in (whole, whole.astype(np.uint8), whole.astype(np.int16), whole * 10**14, whole > 0):
            assert tensor_str(wrap(np.asarray(a))) == repr(torch.from_numpy(np.asarray(a)))
        for kind, imag in itertools.product(VALUES, ("normal", "whole", "odd")):
            z = np.empty(shape, np.complex64)
            with np.errstate(over="ignore"):
                z.real = VALUES[kind](r, n).reshape(shape)
                z.imag = VALUES[imag](r, n).reshape(shape)
            assert tensor_str(wrap(z)) == repr(torch.from_numpy(z))


@pytest.mark.torch
def test_suffixes_as_torch(torch):
    for n, linewidth in itertools.product((1, 4, 7, 8, 9, 10, 30), (80, 40)):
        set_printoptions(linewidth=linewidth)
        torch.set_printoptions(linewidth=linewidth)
        theirs = torch.linspace(0, 1, n, dtype=torch.float64).requires_grad_()
        ours = wrap(theirs.detach().numpy())
        ours._rg = True
        assert tensor_str(ours) == repr(theirs)


@pytest.mark.torch
def test_default_dtype_as_torch(torch):
    torch.set_default_dtype(torch.float64)
    dtypes.set_default_dtype(dtypes.float64)
    try:
        for a in (
            np.ones(2),
            np.ones(2, np.float32),
            np.ones(2, np.complex64),
            np.ones(2, np.complex128),
            np.ones(0),
            np.ones(0, np.int64),
        ):
            assert tensor_str(wrap(a)) == repr(torch.from_numpy(a))
    finally:
        torch.set_default_dtype(torch.float32)
        dtypes.set_default_dtype(dtypes.float32)
