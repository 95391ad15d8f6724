"""flambeau.ops.joining"""

from __future__ import annotations

import numpy as np
import pytest

import flambeau as ft

from .harness import Case, F, OperatorTests

ANY = ("float32", "float64", "int64", "bool", "bfloat16", "complex64")


def pad(mode: str, *pads: int, **kw: float) -> object:
    return lambda T, x: T.nn.functional.pad(x, pads, mode=mode, **kw)


CASES = [
    Case("cat", lambda T, x, y: T.cat([x, y], 1), [(2, 3), (2, 1)], lambda x, y: np.concatenate([x, y], 1), ANY),
    Case("concat", lambda T, x, y: T.concat((x, y), dim=-2), [(2, 3), (1, 3)], lambda x, y: np.concatenate([x, y])),
    Case("cat_same_twice", lambda T, x: T.cat([x, x, x]), [(2, 3)], lambda x: np.concatenate([x, x, x])),
    Case("stack", lambda T, x, y: T.stack([x, y], -1), [(2, 3)] * 2, lambda x, y: np.stack([x, y], -1), ANY),
    Case("hstack", lambda T, x, y: T.hstack((x, y)), [(2, 3), (2, 1)], lambda x, y: np.hstack([x, y])),
    Case("hstack_vectors", lambda T, x, y: T.hstack((x, y)), [(3,), ()], lambda x, y: np.hstack([x, y])),
    Case("vstack", lambda T, x, y: T.vstack((x, y)), [(3,), (2, 3)], lambda x, y: np.vstack([x, y])),
    Case("dstack", lambda T, x, y: T.dstack((x, y)), [(2, 3)] * 2, lambda x, y: np.dstack([x, y])),
    Case("column_stack", lambda T, x, y: T.column_stack((x, y)), [(3,), (3, 2)], lambda x, y: np.column_stack([x, y])),
    Case("block_diag", lambda T, x, y: T.block_diag(x, y), [(2, 3), (2,)],
         lambda x, y: np.block([[x, np.zeros((2, 2))], [np.zeros((1, 3)), y[None]]])),
    Case("pad", pad("constant", 1, 2), [(2, 3)], lambda x: np.pad(x, ((0, 0), (1, 2))), ANY),
    Case("pad_value", pad("constant", 1, 0, 2, 1, value=3.0), [(2, 2, 3)],
         lambda x: np.pad(x, ((0, 0), (2, 1), (1, 0)), constant_values=3)),
    Case("pad_negative", pad("constant", -1, 2, 1, -1), [(3, 4)], lambda x: np.pad(x[:-1, 1:], ((1, 0), (0, 2)))),
    *[
        Case(
            f"pad_{mode}_{n}",
            pad(mode, *(1, 2, 2, 1, 0, 1)[: 2 * n]),
            [(2, 4, 3, 4, 3)[-n - 2 :]],
            lambda x, how=how, n=n: np.pad(x, [(0, 0), (0, 0), *[(0, 1), (2, 1), (1, 2)][-n:]], mode=how),
            node=mode != "circular",
        )
        for mode, how in (("reflect", "reflect"), ("replicate", "edge"), ("circular", "wrap"))
        for n in (1, 2, 3)
    ],
]


class TestJoining(OperatorTests):
    cases = CASES


def test_dtypes_are_promoted() -> None:
    assert ft.cat([ft.ones(2, dtype=ft.int64), ft.ones(1)]).dtype is ft.float32
    assert ft.stack([ft.ones(2, dtype=ft.float16), ft.ones(2, dtype=ft.float64)]).dtype is ft.float64


def test_an_empty_vector_joins_anything() -> None:
    assert ft.cat([ft.empty(0), ft.ones(2, 3)]).shape == (2, 3)


def test_out() -> None:
    out = ft.empty(0)
    assert ft.cat([ft.ones(2), ft.zeros(1)], out=out) is out
    assert out.tolist() == [1, 1, 0]


ERRORS = {
    "none": (lambda x: ft.cat([]), ValueError, "expected a non-empty list of Tensors"),
    "dims": (lambda x: ft.cat([x, x[0]]), RuntimeError, "Tensors must have same number of dimensions: got 2 and 1"),
    "sizes": (
        lambda x: ft.cat([x, ft.ones(3, 3)], 1),
        RuntimeError,
        "Sizes of tensors must match except in dimension 1. Expected size 2 but got size 3 for tensor number 1 in the list.",
    ),
    "scalar": (lambda x: ft.cat([x[0, 0]]), RuntimeError, "zero-dimensional tensor (at position 0) cannot be concatenated"),
    "tensor": (lambda x: ft.cat(x), TypeError, "argument 'tensors' (position 1) must be tuple of Tensors, not Tensor"),
    "element": (lambda x: ft.cat([x, None]), TypeError, "expected Tensor as element 1 in argument 0, but got NoneType"),
    "stack": (lambda x: ft.stack([x, x[:1]]), RuntimeError, "stack expects each tensor to be equal size, but got [2, 3] at entry 0"),
    "odd": (lambda x: F.nn.functional.pad(x, (1,)), RuntimeError, "Padding length must be divisible by 2"),
    "reflect": (
        lambda x: F.nn.functional.pad(x, (3, 3), mode="reflect"),
        RuntimeError,
        "Padding size should be less than the corresponding input dimension",
    ),
    "mode": (lambda x: F.nn.functional.pad(x, (1, 1), mode="foo"), NotImplementedError, "Unrecognised padding mode foo"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name: str) -> None:
    fn, cls, text = ERRORS[name]
    with pytest.raises(cls) as e:
        fn(ft.zeros(2, 3))
    assert text in str(e.value)
