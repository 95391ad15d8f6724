"""flambeau.ops.creation"""

from __future__ import annotations

import enum
from typing import Any

import numpy as np
import pytest

import flambeau as ft


class Colour(enum.IntEnum):
    RED = 1


DATA = [
    1, 1.5, True, [], [[], []], [1, 2], [1, 2.5], [True, 1], [True, 1.5], [[1, 2], [3, 4]], (1, 2), range(3), ((1,), [2]),
    np.float64(1), [np.float64(1)], [np.int32(1), 2], np.arange(3), np.zeros((2, 0)), [np.array([1, 2]), np.array([3, 4])],
    np.array(3, np.int16),
]  # fmt: skip


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("data", DATA, ids=repr)
@pytest.mark.parametrize("dtype", [None, "float64", "int32", "bfloat16", "bool", "complex64"])
def test_tensor_is_torchs(data: Any, dtype: str | None) -> None:
    torch = pytest.importorskip("torch")
    try:
        want = torch.tensor(data, dtype=dtype and getattr(torch, dtype))
    except (RuntimeError, TypeError) as e:
        with pytest.raises(type(e)):
            ft.tensor(data, dtype=dtype and getattr(ft, dtype))
        return
    got = ft.tensor(data, dtype=dtype and getattr(ft, dtype))
    assert (str(got.dtype), tuple(got.shape), got.tolist()) == (str(want.dtype), tuple(want.shape), want.tolist())


def test_tensor_from_tensors_and_enums() -> None:
    assert ft.tensor([ft.tensor(1.5), 2]).tolist() == [1.5, 2.0]
    assert ft.tensor([ft.tensor(1, dtype=ft.int32)]).dtype is ft.int32
    assert ft.tensor([Colour.RED]).tolist() == [1]
    assert ft.tensor([ft.tensor([3.0]), 1.0]).tolist() == [3.0, 1.0]
    with pytest.warns(UserWarning, match="To copy construct from a tensor, it is recommended"):
        ft.tensor(ft.ones(2))


ERRORS = {
    "ragged": (lambda: ft.tensor([[1, 2], [1, 2, 3]]), ValueError, "expected sequence of length 2 at dim 1 (got 3)"),
    "not_a_sequence": (lambda: ft.tensor([[1, 2], 3]), TypeError, "not a sequence"),
    "nested": (lambda: ft.tensor([1, [2, 3]]), TypeError, "'list' object cannot be interpreted as an integer"),
    "string": (lambda: ft.tensor("a"), TypeError, "new(): invalid data type 'str'"),
    "strings": (lambda: ft.tensor(["a"]), ValueError, "too many dimensions 'str'"),
    "none": (lambda: ft.tensor(None), RuntimeError, "Could not infer dtype of NoneType"),
    "overflow": (lambda: ft.tensor(300, dtype=ft.uint8), RuntimeError, "value cannot be converted to type uint8 without overflow"),
    "long": (lambda: ft.tensor(2**70), ValueError, "Overflow when unpacking long long"),
    "grad": (lambda: ft.tensor([1], requires_grad=True), RuntimeError,
             "Only Tensors of floating point and complex dtype can require gradients"),
    "negative": (lambda: ft.zeros(2, -1), RuntimeError, "zeros: Dimension size must be non-negative."),
    "negative_empty": (lambda: ft.empty(-1), RuntimeError, "Trying to create tensor with negative dimension -1: [-1]"),
    "float_size": (lambda: ft.zeros(2.5), TypeError, "argument 'size' (position 1) must be tuple of ints, not float"),
    "no_size": (lambda: ft.zeros(), TypeError, 'zeros() missing 1 required positional arguments: "size"'),
    "memory": (lambda: ft.empty(10**15), RuntimeError, "DefaultCPUAllocator: can't allocate memory: you tried to allocate 4000000000000000 bytes"),
    "address_space": (lambda: ft.zeros(2**40, 2**30), RuntimeError, "you tried to allocate 4722366482869645213696 bytes"),
    "keyword": (lambda: ft.zeros(2, colour=1), TypeError, "zeros() got an unexpected keyword argument 'colour'"),
    "cuda": (lambda: ft.zeros(2, device="cuda"), AssertionError, "Torch not compiled with CUDA enabled"),
    "arange_sign": (lambda: ft.arange(0, -1), RuntimeError, "upper bound and lower bound inconsistent with step sign"),
    "arange_step": (lambda: ft.arange(0, 5, 0), RuntimeError, "step must be nonzero"),
    "linspace": (lambda: ft.linspace(0, 1, -1), RuntimeError, "number of steps must be non-negative"),
    "from_numpy": (lambda: ft.from_numpy([1]), TypeError, "expected np.ndarray (got list)"),
    "strides": (lambda: ft.from_numpy(np.zeros(3)[::-1]), ValueError, "At least one stride in the given numpy array is negative"),
    "object": (lambda: ft.from_numpy(np.array(["a"])), TypeError, "can't convert np.ndarray of type numpy.str_"),
    "buffer": (lambda: ft.frombuffer(bytearray(3), dtype=ft.int32), ValueError, "must be a multiple of element size (4)"),
    "like": (lambda: ft.zeros_like([1]), TypeError, "zeros_like(): argument 'input' (position 1) must be Tensor, not list"),
    "alias": (lambda: ft.asarray([1], copy=False), ValueError, "can't alias arbitrary sequence into a tensor."),
}  # fmt: skip


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name: str) -> None:
    fn, cls, text = ERRORS[name]
    with pytest.raises(cls) as e:
        fn()
    assert text in str(e.value)


FACTORIES = {
    "zeros": lambda T: T.zeros(2, 3),
    "zeros_tuple": lambda T: T.zeros((2, 3), dtype=T.int32),
    "zeros_size": lambda T: T.zeros(size=(2,)),
    "zeros_scalar": lambda T: T.zeros(()),
    "ones": lambda T: T.ones(2, dtype=T.bool),
    "full_int": lambda T: T.full((2,), 3),
    "full_bool": lambda T: T.full((2,), True),
    "full_float": lambda T: T.full((2,), 2.5),
    "full_complex": lambda T: T.full((2,), 1j),
    "full_like": lambda T: T.full_like(T.zeros(2, dtype=T.int64), 3),
    "zeros_like": lambda T: T.zeros_like(T.ones(2, 3).t()),
    "ones_like": lambda T: T.ones_like(T.zeros(2), dtype=T.float64),
    "eye": lambda T: T.eye(2, 3),
    "arange": lambda T: T.arange(5),
    "arange_float": lambda T: T.arange(5.0),
    "arange_step": lambda T: T.arange(0, 1, 0.1),
    "arange_down": lambda T: T.arange(5, 0, -2),
    "arange_dtype": lambda T: T.arange(1, 4, dtype=T.float64),
    "arange_tensor": lambda T: T.arange(T.tensor(3)),
    "linspace": lambda T: T.linspace(-1, 3, 7),
    "linspace_double": lambda T: T.linspace(0, 1, 11, dtype=T.float64),
    "linspace_int": lambda T: T.linspace(0, 10, 4, dtype=T.int64),
    "linspace_one": lambda T: T.linspace(1, 2, 1),
    "linspace_none": lambda T: T.linspace(1, 2, 0),
    "logspace": lambda T: T.logspace(-1, 2, 5, base=2.0),
    "tril_indices": lambda T: T.tril_indices(3, 4, 1),
    "triu_indices": lambda T: T.triu_indices(3, 4, -1),
    "meshgrid": lambda T: T.meshgrid(T.arange(2), T.arange(3), indexing="ij"),
    "meshgrid_xy": lambda T: T.meshgrid(T.arange(2), T.arange(3), T.arange(2), indexing="xy"),
    "cartesian_prod": lambda T: T.cartesian_prod(T.arange(2), T.arange(3)),
    "combinations": lambda T: T.combinations(T.tensor([1, 2, 3]), 2),
    "combinations_again": lambda T: T.combinations(T.tensor([1, 2, 3]), 2, with_replacement=True),
    "complex": lambda T: T.complex(T.ones(2), T.arange(2.0)),
    "polar": lambda T: T.polar(T.ones(2), T.tensor([0.0, 1.0])),
    "vander": lambda T: T.vander(T.tensor([1, 2, 3])),
    "vander_up": lambda T: T.vander(T.tensor([1.0, 2.0, 3.0]), N=4, increasing=True),
    "scalar_tensor": lambda T: T.scalar_tensor(3),
    "frombuffer": lambda T: T.frombuffer(bytearray(b"abcd1234"), dtype=T.int16, count=2, offset=2),
    "new_tensor": lambda T: T.ones(2, dtype=T.float64).new_tensor([1, 2]),
    "new_zeros": lambda T: T.ones(2, dtype=T.int32).new_zeros(3),
    "new_full": lambda T: T.ones(2, dtype=T.float64).new_full((2,), 3),
    "new_ones": lambda T: T.ones(2).new_ones((2, 2)),
    "LongTensor": lambda T: T.LongTensor([1, 2]),
    "FloatTensor": lambda T: T.FloatTensor([[1, 2]]),
    **{
        f"{w}_{n}_{p}": lambda T, w=w, n=n, p=p: getattr(T, w)(n, periodic=p)
        for w in ("hann_window", "hamming_window", "blackman_window", "bartlett_window", "kaiser_window")
        for n in (0, 1, 2, 7, 8)
        for p in (True, False)
    },
}


@pytest.mark.torch
@pytest.mark.parametrize("name", FACTORIES)
def test_factories_are_torchs(name: str) -> None:
    torch = pytest.importorskip("torch")
    got, want = FACTORIES[name](ft), FACTORIES[name](torch)
    for g, w in zip(*([r] if hasattr(r, "shape") else r for r in (got, want)), strict=True):
        assert (str(g.dtype), tuple(g.shape)) == (str(w.dtype), tuple(w.shape))
        if w.numel():
            assert g.stride() == w.stride()
        np.testing.assert_allclose(g.numpy(), w.numpy(), rtol=1e-6, atol=1e-7)


def test_memory_is_shared() -> None:
    a = np.zeros(3)
    t = ft.from_numpy(a)
    a[0] = 1.0
    t[1] = 2.0
    assert t.tolist() == a.tolist() == [1, 2, 0]
    assert ft.as_tensor(t) is t
    assert ft.as_tensor(a).data_ptr() == t.data_ptr()
    assert ft.asarray(a, copy=True).data_ptr() != t.data_ptr()
    b = bytearray(8)
    ft.frombuffer(b, dtype=ft.int32)[0] = 1
    assert b[0] == 1
    a.flags.writeable = False
    with pytest.warns(UserWarning, match="The given NumPy array is not writable"):
        ft.from_numpy(a)


def test_huge_empty_tensors_cost_nothing() -> None:
    resource = pytest.importorskip("resource")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    x = ft.empty(2**30, dtype=ft.uint8)
    z = ft.zeros(2**30, dtype=ft.uint8)
    z[5] = 1
    assert x.numel() == 2**30 and z[5] == 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**18


def test_out_and_requires_grad() -> None:
    out = ft.empty(3)
    assert ft.ones(3, out=out) is out and out.tolist() == [1, 1, 1]
    assert ft.arange(3, out=out).dtype is ft.float32
    assert ft.zeros(2, requires_grad=True).requires_grad


def test_complex_derivative() -> None:
    a, b = ft.ones(2, requires_grad=True), ft.ones(2, requires_grad=True)
    z = ft.complex(a, b * 2)
    (z.real * 3 + z.imag * 5).sum().backward()
    assert a.grad.tolist() == [3, 3] and b.grad.tolist() == [10, 10]


def test_legacy_types() -> None:
    assert isinstance(ft.ones(2), ft.FloatTensor) and not isinstance(ft.ones(2), ft.LongTensor)
    assert ft.LongTensor(2, 3).shape == (2, 3)


def test_inside_vmap() -> None:
    """Copies of batched tensors, and values between ends that each example has."""
    x = ft.arange(12.0).reshape(3, 4)
    with pytest.warns(UserWarning, match="To copy construct from a tensor"):
        copies = ft.vmap(lambda x: ft.tensor(x, dtype=ft.float64).mul_(2))(x)
    assert copies.dtype is ft.float64 and ft.equal(copies, x.double() * 2) and x[0, 1] == 1
    for n in (0, 1, 4, 7):
        got = ft.vmap(lambda x: ft.linspace(x[0], x[3], n))(x)  # noqa: B023
        assert ft.equal(got, ft.stack([ft.linspace(r[0], r[3], n) for r in x]))
    whole = ft.vmap(lambda x: ft.linspace(x[0], 20, 6, dtype=ft.int64))(x)
    assert ft.equal(whole, ft.stack([ft.linspace(r[0], 20, 6, dtype=ft.int64) for r in x]))
    with pytest.raises(RuntimeError, match=r"vmap: It looks like you're calling .item\(\) on a Tensor"):
        ft.vmap(lambda x: ft.scalar_tensor(x[0]))(x)
