"""Promotion: categories, widths, 0-d tensors, Python numbers."""

import itertools

import pytest

import flambeau as torch
from flambeau.core import dtypes

NAMES = [d.name for d in dtypes.ALL]


@pytest.mark.parametrize(
    "a, b, expected",
    [
        ("uint8", "int8", "int16"),
        ("float16", "bfloat16", "float32"),
        ("int64", "float16", "float16"),
        ("float64", "complex64", "complex128"),
        ("bool", "uint8", "uint8"),
        ("int32", "int64", "int64"),
    ],
)
def test_promote_types(a, b, expected):
    for x, y in ((a, b), (b, a)):
        assert torch.promote_types(getattr(torch, x), getattr(torch, y)) is getattr(torch, expected)


def test_a_0d_tensor_and_a_number_give_way_inside_their_category():
    x = torch.ones(2, dtype=torch.float32)
    assert (x + torch.tensor(1.0, dtype=torch.float64)).dtype is torch.float32
    assert (x + 1.5).dtype is torch.float32
    i = torch.ones(2, dtype=torch.int8)
    assert (i + 1).dtype is torch.int8
    assert (i + 1.5).dtype is torch.float32
    assert (i + torch.tensor(1.0, dtype=torch.float64)).dtype is torch.float64


def test_a_complex_of_lower_priority_keeps_the_width():
    x = torch.ones(2, dtype=torch.float64)
    assert (x + torch.tensor(1j)).dtype is torch.complex128


@pytest.mark.torch
def test_every_pair_against_torch():
    reference = pytest.importorskip("torch")
    for a, b in itertools.product(NAMES, NAMES):
        want = str(reference.promote_types(getattr(reference, a), getattr(reference, b)))
        assert str(torch.promote_types(getattr(torch, a), getattr(torch, b))) == want, (a, b)
        for p, q in itertools.product((0, 1), (0, 1)):
            x, y = torch.ones((2,) * p, dtype=getattr(torch, a)), torch.ones((2,) * q, dtype=getattr(torch, b))
            u, v = (reference.ones((2,) * p, dtype=getattr(reference, a)), reference.ones((2,) * q, dtype=getattr(reference, b)))
            if "complex32" not in str((u * v).dtype):  # flambeau has no complex32
                assert str((x * y).dtype) == str((u * v).dtype), (a, p, b, q)
        assert torch.can_cast(getattr(torch, a), getattr(torch, b)) == reference.can_cast(getattr(reference, a), getattr(reference, b)), (a, b)


@pytest.mark.torch
@pytest.mark.parametrize("number", [True, 2, 2.5, 1j])
def test_numbers_against_torch(number):
    reference = pytest.importorskip("torch")
    for a, p in itertools.product(NAMES, (0, 1)):
        x, u = torch.ones((2,) * p, dtype=getattr(torch, a)), reference.ones((2,) * p, dtype=getattr(reference, a))
        if (u * number).dtype is not reference.complex32:  # flambeau has none
            assert str((x * number).dtype) == str((u * number).dtype), (a, p)


def test_dtypes_print_pickle_and_compare_by_identity():
    import copy
    import pickle

    assert repr(torch.float32) == "torch.float32" and torch.float is torch.float32
    assert pickle.loads(pickle.dumps(torch.bfloat16)) is torch.bfloat16 is copy.deepcopy(torch.bfloat16)
