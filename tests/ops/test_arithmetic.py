"""Arithmetic: values, dtypes, derivatives, Python's operators, errors."""

from __future__ import annotations

import itertools
import operator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from .harness import FLOATS, INTS, Case, F, OperatorTests, numpy, tensor

ANY = (*FLOATS, *INTS)
BOTH = [(2, 3), (2, 3)]


def binary(name: str, fn: Any = None, ref: Any = None, **options: Any) -> Case:
    fn = fn or (lambda T, a, b: getattr(T, name)(a, b))
    options.setdefault("shapes", BOTH)
    return Case(name, fn, ref=ref, **options)


def unary(name: str, ref: Any = None, **options: Any) -> Case:
    return Case(name, options.pop("fn", lambda T, a: getattr(T, name)(a)), ref=ref, **options)


CASES = [
    binary("add", ref=np.add, dtypes=(*ANY, "complex64", "bool")),
    binary("add_alpha", lambda T, a, b: T.add(a, b, alpha=3), lambda a, b: a + 3 * b, dtypes=ANY),
    binary("add_broadcast", lambda T, a, b: a + b, np.add, shapes=[(2, 1, 3), (4, 1)]),
    binary("sub", ref=np.subtract, dtypes=(*ANY, "complex128")),
    binary("sub_alpha", lambda T, a, b: T.sub(a, b, alpha=0.5), lambda a, b: a - 0.5 * b),
    binary("mul", ref=np.multiply, dtypes=(*ANY, "complex64", "bool")),
    binary("mul_broadcast", lambda T, a, b: a * b, np.multiply, shapes=[(3,), (2, 3)]),
    binary("div", ref=np.divide, low=1, dtypes=(*FLOATS, "complex64")),
    binary("div_floor", lambda T, a, b: T.div(a, b, rounding_mode="floor"), low=1, high=9, second=False),
    binary("div_trunc", lambda T, a, b: T.div(a, b, rounding_mode="trunc"), low=1, high=9, second=False),
    binary("remainder", low=1, high=4, dtypes=(*FLOATS, "int64")),
    binary("fmod", low=1, high=4, dtypes=(*FLOATS, "int64")),
    binary("pow", low=0.5, ref=np.power, dtypes=("float32", "float64", "float16")),
    binary("atan2", ref=np.arctan2),
    binary("hypot", ref=np.hypot),
    binary("copysign", ref=np.copysign),
    binary("maximum", ref=np.maximum, dtypes=ANY),
    binary("minimum", ref=np.minimum, dtypes=ANY),
    binary("fmax", ref=np.fmax),
    binary("fmin", ref=np.fmin),
    binary("logaddexp", ref=np.logaddexp),
    binary("logaddexp2", ref=np.logaddexp2),
    binary("xlogy", low=0.5, ref=lambda a, b: a * np.log(b)),
    binary("ldexp", grad=False, ref=lambda a, b: a * 2**b),
    binary("float_power", low=0.5, ref=np.power, node=False),
    binary("rsub", ref=lambda a, b: b - a),
    Case("xlog1py", lambda T, a, b: T.special.xlog1py(a, b), BOTH, low=0.1, ref=lambda a, b: a * np.log1p(b), node=False),
    Case("lerp", lambda T, a, b: T.lerp(a, b, 0.3), BOTH, ref=lambda a, b: a + 0.3 * (b - a), dtypes=FLOATS),
    Case("lerp_tensor", lambda T, a, b, w: T.lerp(a, b, w), [(2, 3)] * 3, ref=lambda a, b, w: a + w * (b - a)),
    Case("addcmul", lambda T, a, b, c: T.addcmul(a, b, c, value=0.5), [(2, 3)] * 3, ref=lambda a, b, c: a + 0.5 * b * c),
    Case("addcdiv", lambda T, a, b, c: T.addcdiv(a, b, c, value=0.5), [(2, 3)] * 3, low=0.5, ref=lambda a, b, c: a + 0.5 * b / c),
    Case("clamp", lambda T, a: T.clamp(a, -0.5, 0.7), ref=lambda a: np.clip(a, -0.5, 0.7), dtypes=FLOATS),
    Case("clamp_low", lambda T, a: T.clamp(a, min=-0.5), ref=lambda a: np.maximum(a, -0.5)),
    Case("clamp_high", lambda T, a: a.clip(max=0.5), ref=lambda a: np.minimum(a, 0.5)),
    Case("clamp_tensors", lambda T, a, b: T.clamp(a, b, b + 1), BOTH, ref=lambda a, b: np.clip(a, b, b + 1)),
    Case("clamp_min", lambda T, a: T.clamp_min(a, 0.1), ref=lambda a: np.maximum(a, 0.1)),
    Case("clamp_max", lambda T, a: T.clamp_max(a, 0.1), ref=lambda a: np.minimum(a, 0.1)),
    unary("neg", np.negative, dtypes=(*FLOATS, "int64", "complex64")),
    unary("abs", np.abs, dtypes=(*FLOATS, "int64", "complex64")),
    unary("square", np.square, dtypes=(*FLOATS, "int64")),
    unary("reciprocal", lambda a: 1 / a, low=0.5, dtypes=(*FLOATS, "int64")),
    unary("sign", np.sign, dtypes=(*FLOATS, "int64"), second=False),
    unary("sgn", np.sign, second=False, dtypes=("float32", "complex64")),
    unary("floor", np.floor, dtypes=(*FLOATS, "int64"), second=False),
    unary("ceil", np.ceil, dtypes=(*FLOATS, "int64"), second=False),
    unary("trunc", np.trunc, dtypes=(*FLOATS, "int64"), second=False),
    unary("round", np.round, dtypes=(*FLOATS, "int64"), second=False),
    unary("frac", lambda a: a - np.trunc(a), dtypes=FLOATS, second=False),
    unary("nan_to_num", np.nan_to_num, second=False),
    *[
        Case(f"pow_{p}", lambda T, a, p=p: a**p, low=0.5, ref=lambda a, p=p: a**p, dtypes=FLOATS, tol=3)
        for p in (0, 1, 2, 3, 0.5, -1, -0.5, 1.7, -2)
    ],
    Case("rpow", lambda T, a: 2**a, ref=lambda a: 2**a),
    Case("rdiv", lambda T, a: 2 / a, low=0.5, ref=lambda a: 2 / a),
    Case("rsub_number", lambda T, a: 2 - a, ref=lambda a: 2 - a),
    Case("numbers", lambda T, a: 3 * a + a / 4 - 1, ref=lambda a: 3 * a + a / 4 - 1),
    Case("mod_number", lambda T, a: a % 0.7, low=0.1, ref=lambda a: a % 0.7),
]


class TestArithmetic(OperatorTests):
    cases = CASES


OPERATORS = ["add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "and_", "or_", "xor", "eq", "lt", "ge", "lshift"]
KINDS = ("float32", "float64", "int64", "int32", "uint8", "int8", "bool", "float16", "complex64")


def value(kind: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    a = rng.integers(1, 4, shape)
    return np.asarray(a.astype(kind))


@pytest.mark.torch
@pytest.mark.parametrize("name", OPERATORS)
def test_promotion_is_torchs(name: str) -> None:
    """Every pair of dtypes, with dimensions, without, and as Python numbers: the same dtype, values or refusal."""
    torch = pytest.importorskip("torch")
    fn = getattr(operator, name)
    for k1, k2 in itertools.product(KINDS, KINDS):
        if {k1, k2} == {"float16", "complex64"}:
            continue  # torch's complex32 is not in flambeau
        for shapes in (((2,), (2,)), ((2,), ()), ((), (2,))):
            a, b = value(k1, shapes[0], 1), value(k2, shapes[1], 2)
            compare(torch, fn, (a, b), f"{name} {k1}{shapes[0]} {k2}{shapes[1]}")
        for number in (True, 2, 2.5, 1 + 2j):
            if k1 == "float16" and number == 1 + 2j:
                continue
            compare(torch, fn, (value(k1, (2,), 3), number), f"{name} {k1} {number}")
            compare(torch, fn, (number, value(k1, (2,), 3)), f"{name} {number} {k1}")


def compare(torch: Any, fn: Any, operands: Any, what: str) -> None:
    ours = [tensor(v) if isinstance(v, np.ndarray) else v for v in operands]
    theirs = [torch.from_numpy(np.array(v)) if isinstance(v, np.ndarray) else v for v in operands]
    try:
        want = fn(*theirs)
    except (RuntimeError, TypeError, NotImplementedError):
        with pytest.raises((RuntimeError, TypeError, NotImplementedError)):
            fn(*ours)
            pytest.fail(f"{what}: torch refuses this")
        return
    try:
        got = fn(*ours)
    except Exception as e:
        pytest.fail(f"{what}: {e!r}; torch gives {want}")
    assert str(got.dtype) == str(want.dtype), f"{what}: {got.dtype}, torch gives {want.dtype}"
    np.testing.assert_allclose(numpy(got), want.numpy(), rtol=2e-3, err_msg=what)


SHAPE = st.lists(st.sampled_from([1, 2, 3]), max_size=3).map(tuple)


@settings(max_examples=60, deadline=None)
@given(SHAPE, SHAPE, st.sampled_from(["add", "mul", "maximum"]))
def test_broadcasting(s: tuple[int, ...], t: tuple[int, ...], name: str) -> None:
    """NumPy's rules, and gradients of the operands' shapes."""
    a, b = np.ones(s), np.full(t, 2.0)
    try:
        shape = np.broadcast_shapes(s, t)
    except ValueError:
        with pytest.raises(RuntimeError, match=r"The size of tensor a \(\d\) must match the size of tensor b \(\d\)"):
            getattr(F, name)(tensor(a), tensor(b))
        return
    from flambeau.autograd.engine import grad

    x, y = tensor(a, True), tensor(b, True)
    r = getattr(F, name)(x, y)
    assert r._a.shape == shape
    gx, gy = grad([r.sum()], [x, y])
    assert gx._a.shape == s and gy._a.shape == t
    if name == "add":
        assert float(gx._a.sum()) == float(gy._a.sum()) == np.prod(shape)


@pytest.mark.parametrize(
    "call, phrase",
    [
        (lambda: tensor([True]) - tensor([True]), "Subtraction, the `-` operator, with two bool tensors is not supported"),
        (lambda: tensor([1.0]) - True, "Subtraction, the `-` operator, with a bool tensor is not supported"),
        (lambda: -tensor([True]), "Negation, the `-` operator, on a bool tensor is not supported"),
        (lambda: tensor([2]) ** -1, "Integers to negative integer powers are not allowed."),
        (lambda: tensor([2]) // 0, "ZeroDivisionError"),
        (lambda: tensor([2]) % 0, "ZeroDivisionError"),
        (lambda: F.add(tensor([1]), 1, alpha=0.5), "For integral input tensors, argument alpha must not be a floating point"),
        (lambda: tensor([1, 2]).add_(1.5), "result type Float can't be cast to the desired output type Long"),
        (lambda: F.clamp(tensor([1.0])), "torch.clamp: At least one of 'min' or 'max' must not be None"),
        (lambda: F.lerp(tensor([1.0]), tensor(np.float32([1])), 0.5), "expected dtype double for `end` but got dtype float"),
        (lambda: F.div(tensor([1.0]), 2, rounding_mode="up"), "div expected rounding_mode to be one of None"),
        (lambda: tensor([1.0]).add_(tensor([[1.0], [2.0]])), "output with shape"),
    ],
)
def test_refusals(call: Any, phrase: str) -> None:
    with pytest.raises(RuntimeError) as e:
        call()
    assert phrase in str(e.value)


def test_other_classes() -> None:
    """Operators leave classes they don't know to those classes; arrays are taken as tensors."""

    class Other:
        def __radd__(self, t: Any) -> str:
            return "added"

        def __rmatmul__(self, t: Any) -> str:
            return "multiplied"

    t = tensor([1.0, 2.0])
    assert t + Other() == "added" and t @ Other() == "multiplied"
    assert (t == None) is False and (t != "a") is True  # noqa: E711
    with pytest.raises(TypeError, match="unsupported operand"):
        t + [1]
    with pytest.raises(TypeError, match=r"add\(\): argument 'other' \(position 2\) must be Tensor, not str"):
        F.add(t, "a")
    assert numpy(t + np.ones(2)).tolist() == numpy(np.ones(2) + t).tolist() == [2.0, 3.0]


def test_in_place_keeps_what_rules_need() -> None:
    """A rule that needs the overwritten values has them."""
    from flambeau.autograd.engine import grad

    a = np.array([0.5, 1.0])
    x, y = tensor(a, True), tensor([3.0, 4.0], True)
    z = x * 1.0
    z.mul_(y).sin_()
    gx, gy = grad([z.sum()], [x, y])
    np.testing.assert_allclose(gx._a, np.cos(a * y._a) * y._a)
    np.testing.assert_allclose(gy._a, np.cos(a * y._a) * a)
    z = x * 1.0
    z **= 2
    z /= y
    z -= 1
    z += z
    gx, gy = grad([z.sum()], [x, y])
    np.testing.assert_allclose(gx._a, 4 * a / y._a)
    np.testing.assert_allclose(gy._a, -2 * a**2 / y._a**2)


def test_kinks() -> None:
    """PyTorch's choices where a derivative has none: ties halve, clamp passes its ends, abs(0) gives 0."""
    from flambeau.autograd.engine import grad

    def slope(fn: Any, *values: float) -> list[float]:
        ts = [tensor(np.array(v), True) for v in values]
        return [float(g._a) for g in grad([fn(*ts)], ts)]

    assert slope(F.maximum, 1.0, 1.0) == [0.5, 0.5]
    assert slope(F.fmax, 1.0, 1.0) == [1.0, 0.0]
    assert slope(lambda t: F.clamp(t, 0, 1), 1.0) == [1.0]
    assert slope(F.abs, 0.0) == [0.0]
    assert slope(lambda t: t**2, 0.0) == [0.0]
    assert slope(F.pow, 0.0, 2.0) == [0.0, 0.0]
    assert slope(F.floor, 0.5) == [0.0]


def test_out() -> None:
    out = tensor(np.zeros(2))
    assert F.add(tensor([1.0, 2.0]), 1, out=out) is out
    assert numpy(out).tolist() == [2.0, 3.0]
    F.mul(out, out, out=out)
    assert numpy(out).tolist() == [4.0, 9.0]


def test_empty_and_extreme_values() -> None:
    empty = tensor(np.zeros((0, 3)))
    for fn in (F.add, F.mul, F.div, F.pow, F.maximum):
        assert fn(empty, empty)._a.shape == (0, 3)
    inf, nan = np.inf, np.nan
    t = tensor([inf, -inf, nan, 0.0])
    np.testing.assert_array_equal(numpy(F.nan_to_num(t, nan=1.0, posinf=2.0, neginf=3.0)), [2, 3, 1, 0])
    np.testing.assert_array_equal(numpy(F.clamp(t, -1, 1)), [1, -1, nan, 0])
    np.testing.assert_array_equal(numpy(t / 0), [inf, -inf, nan, nan])
    assert numpy(tensor(np.array([200], np.uint8)) + 100).tolist() == [44]
