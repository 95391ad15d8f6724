import numpy as np
import pytest

from flambeau.kernels import expr as E
from flambeau.kernels.diff import FLAT, RULES, diff
from flambeau.kernels.lower_numpy import lower

x, y = E.var("x"), E.var("y")
F64 = np.dtype(np.float64)


def evaluate(e, *values, args=("x", "y")):
    return lower([e], args[: len(values)], {}, F64, "f")(*map(np.asarray, values))


POINTS = {"acosh": [1.5, 2.0, 7.0], "lgamma": [0.3, 1.7, 5.0], "digamma": [0.3, 1.7, 5.0]}
POSITIVE = {"log", "log2", "log10", "log1p", "sqrt", "rsqrt"}
UNARY = sorted(op for op in RULES if RULES[op].__code__.co_argcount == 3 and op not in ("conj", "real", "imag", "neg"))
BINARY = [
    "add",
    "sub",
    "mul",
    "div",
    "pow",
    "atan2",
    "hypot",
    "maximum",
    "minimum",
    "fmod",
    "remainder",
    "copysign",
]


@pytest.mark.parametrize("op", UNARY)
def test_unary_against_differences(op):
    points = np.array(POINTS.get(op, [0.2, 0.5, 0.9] if op in POSITIVE else [-0.9, -0.3, 0.2, 0.7]))
    e, h = getattr(E, op)(x), 1e-6
    expected = (evaluate(e, points + h) - evaluate(e, points - h)) / (2 * h)
    np.testing.assert_allclose(evaluate(diff(e, "x"), points), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("op", BINARY)
@pytest.mark.parametrize("name", ["x", "y"])
def test_binary_against_differences(op, name):
    a, b, h = np.array([0.3, 1.2, 2.5]), np.array([0.7, 0.45, 1.1]), 1e-6
    e = getattr(E, op)(x, y)
    da, db = (h, 0) if name == "x" else (0, h)
    expected = (evaluate(e, a + da, b + db) - evaluate(e, a - da, b - db)) / (2 * h)
    np.testing.assert_allclose(evaluate(diff(e, name), a, b), expected, rtol=1e-6, atol=1e-7)


def test_every_function_is_covered():
    assert set(UNARY) | set(BINARY) | FLAT | {"conj", "real", "imag", "neg", "where", "polygamma"} == set(RULES) | FLAT


def test_conventions_at_kinks():
    at = np.array([-1.0, 0.0, 1.0])
    np.testing.assert_array_equal(evaluate(diff(E.abs(x), "x"), at), [-1, 0, 1])
    np.testing.assert_array_equal(evaluate(diff(E.relu(x), "x"), at), [0, 0, 1])
    np.testing.assert_array_equal(evaluate(diff(E.clamp(x, -1, 1), "x"), at), [1, 1, 1])
    np.testing.assert_array_equal(evaluate(diff(E.maximum(x, y), "x"), at, at), [0.5] * 3)


def test_what_where_does_not_choose_does_not_count():
    e = E.where(x > 0, E.sqrt(x), 0)
    np.testing.assert_array_equal(evaluate(diff(e, "x"), np.array([-1.0, 0.0, 4.0])), [0, 0, 0.25])


def test_power_of_zero():
    assert evaluate(diff(x**y, "y"), np.array([0.0]), np.array([2.0])) == 0
    assert evaluate(diff(x**y, "x"), np.array([0.0]), np.array([0.0])) == 0


def test_second_order():
    second = diff(diff(E.sin(x) * x, "x"), "x")
    at = np.array([0.3, 2.0])
    np.testing.assert_allclose(evaluate(second, at), 2 * np.cos(at) - at * np.sin(at))


def test_missing_rule_names_the_operation():
    with pytest.raises(NotImplementedError, match="whatever"):
        diff(E.apply("whatever", x), "x")
