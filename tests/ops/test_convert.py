"""flambeau.ops.convert"""

from __future__ import annotations

import copy
import multiprocessing
import warnings
from typing import Any

import numpy as np
import pytest

import flambeau as ft

from .harness import Case, OperatorTests


class TestConvert(OperatorTests):
    cases = [
        Case("clone", lambda T, x: T.clone(x), [(2, 3)], lambda x: x, ("float32", "int64", "bool", "bfloat16")),
        Case("to", lambda T, x: x.to(T.float16 if x.dtype == T.float32 else T.float32), [(2, 3)], tol=1e-4, second=False, grad=False),
        Case("double", lambda T, x: x.float().double(), [(3,)], grad=False),
        Case("copy_", lambda T, x, y: x.clone().copy_(y), [(2, 3), (3,)], lambda x, y: np.broadcast_to(y, (2, 3)), node=False),
        Case("copy_into_view", lambda T, x, y: [z := x * 1, z[:, 1].copy_(y), z][2], [(2, 3), (2,)], node=False),
        Case("conj", lambda T, x: T.conj(x), [(2, 3)], np.conj, ("float32", "complex64"), node=False),
    ]


NAMES = "bool uint8 int8 int16 int32 int64 float16 bfloat16 float32 float64 complex64 complex128".split()


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore:Casting complex")
@pytest.mark.parametrize("source", NAMES)
@pytest.mark.parametrize("target", NAMES)
def test_casts_are_torchs(source: str, target: str) -> None:
    torch = pytest.importorskip("torch")
    values = [0, 1, 2, 100, -1, -3.5, 2.75, 70.25] if source != "bool" else [True, False]
    if source.startswith(("int", "uint")):
        values = [int(abs(v)) if source == "uint8" else int(v) for v in values]
    got = ft.tensor(values, dtype=getattr(ft, source)).to(getattr(ft, target))
    want = torch.tensor(values, dtype=getattr(torch, source)).to(getattr(torch, target))
    assert str(got.dtype) == str(want.dtype) and got.tolist() == want.tolist()


def test_casts_carry_gradients_in_their_own_dtypes() -> None:
    x = ft.tensor([1.5, 2.5], requires_grad=True)
    y = x.to(ft.float64)
    assert y.grad_fn.name() == "ToCopyBackward0"
    (y * y).sum().backward()
    assert x.grad.dtype is ft.float32 and x.grad.tolist() == [3, 5]


def test_to_overloads() -> None:
    x = ft.ones(2)
    assert x.to("cpu") is x and x.to(ft.float32) is x and x.to(ft.zeros(1)) is x
    assert x.to("cpu", ft.int64).dtype is ft.int64
    assert x.to(dtype=ft.float64, device="cpu", non_blocking=True).dtype is ft.float64
    assert x.to(ft.float32, copy=True) is not x
    assert x.to(ft.zeros(1, dtype=ft.int8)).dtype is ft.int8
    assert x.to(ft.float64, False, True).dtype is ft.float64
    with pytest.raises(TypeError, match="received an invalid combination of arguments"):
        x.to(1, 2, 3)
    with pytest.raises(AssertionError, match="Torch not compiled with CUDA enabled"):
        x.to("cuda")
    with pytest.raises(AssertionError, match="Torch not compiled with CUDA enabled"):
        x.cuda()
    with pytest.warns(UserWarning, match="Casting complex values to real discards the imaginary part"):
        ft.tensor([1 + 2j]).float()


def test_memory_formats() -> None:
    x = ft.arange(48.0).reshape(2, 3, 4, 2)
    y = x.to(memory_format=ft.channels_last)
    assert y.stride() == (24, 1, 6, 3) and y.is_contiguous(memory_format=ft.channels_last) and not y.is_contiguous()
    assert y.contiguous().stride() == x.stride()
    d = y.detach()
    d.zero_()
    assert d.stride() == y.stride() and not y.numpy().any()
    p = x.permute(0, 2, 3, 1)
    p.detach().zero_()
    assert not x.numpy().any()
    with pytest.raises(RuntimeError, match="required rank 4 tensor to use channels_last format"):
        ft.ones(2).clone(memory_format=ft.channels_last)


def test_python_numbers() -> None:
    t = ft.tensor([2.5])
    assert t.item() == float(t) == 2.5 and int(t) == 2 and bool(t) and complex(t) == 2.5
    assert [10, 20][ft.tensor(1)] == 20 and f"{ft.tensor(1.234):.2f}" == "1.23"
    assert ft.tensor([1.5], dtype=ft.bfloat16).item() == 1.5 and type(ft.tensor(True).item()) is bool
    assert len(ft.ones(3, 2)) == 3 and [x.item() for x in ft.arange(3)] == [0, 1, 2]
    assert 2.0 in ft.arange(3.0) and 5 not in ft.arange(3.0)
    assert list(reversed(ft.arange(3)))[0] == 2


ERRORS = {
    "item": (lambda: ft.ones(2).item(), RuntimeError, "a Tensor with 2 elements cannot be converted to Scalar"),
    "float": (lambda: float(ft.ones(2)), ValueError, "only one element tensors can be converted to Python scalars"),
    "bool": (lambda: bool(ft.ones(2)), RuntimeError, "Boolean value of Tensor with more than one value is ambiguous"),
    "bool_empty": (lambda: bool(ft.ones(0)), RuntimeError, "Boolean value of Tensor with no values is ambiguous"),
    "index": (lambda: [1][ft.tensor(0.0)], TypeError, "only integer tensors of a single element can be converted to an index"),
    "len": (lambda: len(ft.tensor(1)), TypeError, "len() of a 0-d tensor"),
    "iter": (lambda: iter(ft.tensor(1)), TypeError, "iteration over a 0-d tensor"),
    "in": (lambda: "a" in ft.ones(2), RuntimeError, "Tensor.__contains__ only supports Tensor or scalar"),
    "numpy": (lambda: ft.ones(2, requires_grad=True).numpy(), RuntimeError,
              "Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() instead."),
    "numpy_bfloat16": (lambda: ft.ones(2, dtype=ft.bfloat16).numpy(), TypeError, "Got unsupported ScalarType BFloat16"),
    "copy": (lambda: ft.ones(3).copy_(ft.ones(2)), RuntimeError, "The size of tensor a (3) must match the size of tensor b (2)"),
    "copy_larger": (lambda: ft.ones(3).copy_(ft.ones(2, 3)), RuntimeError,
                    "output with shape [3] doesn't match the broadcast shape [2, 3]"),
    "copy_leaf": (lambda: ft.ones(3, requires_grad=True).copy_(ft.ones(3)), RuntimeError,
                  "a leaf Variable that requires grad is being used in an in-place operation."),
    "detach_view": (lambda: ft.ones(3)[1:].detach_(), RuntimeError, "Can't detach views in-place."),
    "size": (lambda: ft.ones(2).size(3), IndexError, "Dimension out of range (expected to be in range of [-1, 0], but got 3)"),
    "pin": (lambda: ft.ones(2).pin_memory(), RuntimeError, "Cannot access accelerator device when none is available."),
    "type": (lambda: ft.ones(2).type("foo"), ValueError, "invalid type: 'foo'"),
    "dlpack": (lambda: ft.ones(2, requires_grad=True).__dlpack__(), BufferError, "Can't export tensors that require gradient"),
}  # fmt: skip


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name: str) -> None:
    fn, cls, text = ERRORS[name]
    with pytest.raises(cls) as e:
        fn()
    assert text in str(e.value)


def test_numpy_and_dlpack_share_memory() -> None:
    t = ft.zeros(2, 3)
    a = t.numpy()
    b = np.from_dlpack(t)
    u = ft.from_dlpack(a)
    c = np.asarray(t)
    t[0, 0] = 5.0
    assert a[0, 0] == b[0, 0] == u[0, 0] == c[0, 0] == 5.0
    assert np.asarray(t, dtype=np.float64).dtype == np.float64
    assert ft.from_dlpack(ft.to_dlpack(t)).data_ptr() == t.data_ptr()
    assert t.__dlpack_device__() == (1, 0)


@pytest.mark.torch
def test_dlpack_with_torch() -> None:
    torch = pytest.importorskip("torch")
    t = ft.zeros(3)
    u = torch.from_dlpack(t)
    u[1] = 2.0
    v = ft.from_dlpack(u)
    v[2] = 3.0
    assert t.tolist() == u.tolist() == v.tolist() == [0, 2, 3]


def test_storage() -> None:
    x = ft.arange(6.0).reshape(2, 3).clone()
    v = x[1:, 1:]
    assert v.storage_offset() == 4 and v.untyped_storage().data_ptr() == x.data_ptr() and x.untyped_storage().nbytes() == 24
    assert v.storage().tolist() == [0, 1, 2, 3, 4, 5] and len(v.storage()) == 6
    y = ft.empty(0).set_(x)
    assert y.is_set_to(x)
    z = ft.empty(0).set_(x.untyped_storage(), 1, (2, 2), (2, 1))
    assert z.tolist() == [[1, 2], [3, 4]]
    b = ft.ones(4, dtype=ft.bfloat16)
    assert ft.empty(0, dtype=ft.bfloat16).set_(b.storage(), 1, (2,), (1,)).tolist() == [1, 1]


def test_resize() -> None:
    x = ft.arange(6.0).clone()
    x.resize_(2, 2)
    assert x.tolist() == [[0, 1], [2, 3]]
    x.resize_(6)
    assert x.tolist() == [0, 1, 2, 3, 4, 5]
    x.resize_(3, 4)
    assert x.shape == (3, 4) and x.reshape(-1)[:6].tolist() == [0, 1, 2, 3, 4, 5]


def test_shared_memory_reaches_forked_processes() -> None:
    x = ft.zeros(3)
    v = x[1:]
    assert not x.is_shared()
    x.share_memory_()
    p = multiprocessing.get_context("fork").Process(target=lambda: x.fill_(7.0))
    p.start()
    p.join()
    assert x.is_shared() and x.tolist() == [7, 7, 7] and v.tolist() == [7, 7]


def test_detach_and_copies() -> None:
    x = ft.ones(2, requires_grad=True)
    y = x * 2
    d = y.detach()
    assert not d.requires_grad and d.data_ptr() == y.data_ptr()
    d.zero_()
    assert y._version == 1
    y.detach_()
    assert y.grad_fn is None and not y.requires_grad
    c = copy.copy(x)
    assert c.data_ptr() == x.data_ptr() and c.requires_grad
    assert copy.deepcopy(x).data_ptr() != x.data_ptr()


def test_python_callbacks() -> None:
    x = ft.arange(4.0).reshape(2, 2).clone()
    assert x.apply_(lambda v: v * 2).tolist() == [[0, 2], [4, 6]]
    assert x.map_(ft.ones(2), lambda v, w: v + w).tolist() == [[1, 3], [5, 7]]


def test_questions() -> None:
    x = ft.ones(2, 3)
    assert ft.is_tensor(x) and ft.is_floating_point(x) and not ft.is_complex(x) and ft.numel(x) == x.nelement() == 6
    assert x.dim() == x.ndimension() == 2 and x.element_size() == 4 and x.size() == (2, 3) and x.size(-1) == 3
    assert ft.is_signed(x) and not ft.zeros(1, dtype=ft.uint8).is_signed()
    assert x.type() == "torch.FloatTensor" and x.type(ft.LongTensor).dtype is ft.int64 and x.type("torch.IntTensor").dtype is ft.int32
    assert ft.is_same_size(x, x * 2) and x.get_device() == -1


def as_array(x: Any) -> Any:
    return x.__array__()


def test_numpy_functions_take_tensors() -> None:
    assert np.array_equal(np.add(ft.ones(2), 1), [2, 2])
    assert as_array(ft.ones(2)).dtype == np.float32


def test_a_number_of_a_tensor_that_requires_grad_is_warned_of_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from flambeau.ops import convert

    x = ft.tensor(2.0, requires_grad=True)
    for make in (float, complex, lambda t: ft.tensor([t, t])):
        monkeypatch.setattr(convert, "_warned", False)
        with pytest.warns(UserWarning, match="Converting a tensor with requires_grad=True to a scalar may lead to unexpected behavior") as seen:
            make(x), make(x)
        assert len(seen) == 1 and seen[0].filename == __file__
    monkeypatch.setattr(convert, "_warned", False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert x.item() == 2 and int(x) == 2 and float(x.detach()) == 2 and bool(x) and f"{x:.1f}" == "2.0"
        with ft.no_grad():
            assert float(x) == 2
