import math

import pytest

from flambeau.kernels import expr as E

x, y = E.var("x"), E.var("y")


def test_equal_expressions_are_one_object():
    assert E.exp(x * y) is E.exp(x * y)
    assert E.const(1) is not E.const(1.0)
    assert E.const(0.0) is not E.const(-0.0)
    assert E.const(math.nan) is E.const(float("nan"))


def test_simplifications():
    assert x * 1 is x and 1 * x is x and x + 0 is x and x - 0 is x and x / 1 is x
    assert -(-x) is x
    assert x + (-y) is x - y and x - (-y) is x + y
    assert E.const(2) * 3 is E.const(6)
    assert x * 0 is not E.ZERO, "x may be inf or nan"


def test_zero_of_derivatives_vanishes():
    assert E.ZERO * x is E.ZERO and E.ZERO + x is x and x - E.ZERO is x and E.ZERO / x is E.ZERO
    assert E.where(x > 0, E.ZERO, E.ZERO) is E.ZERO


def test_powers_with_small_exponents_are_products():
    assert x**2 is x * x
    assert x**0.5 is E.sqrt(x)
    assert (x**2.5).op == "pow"


def test_substitute_and_rename():
    out = E.var("out")
    assert E.substitute(E.tanh(x) * E.tanh(x), {E.tanh(x): out}) is out * out
    assert E.rename(x + y, {"x": "y"}) is y + y


def test_serialize_is_the_same_for_the_same_expression():
    assert E.serialize([x * x + 1]) == E.serialize([E.var("x") * x + 1])
    assert E.serialize([x * x + 1]) != E.serialize([x * x + 1.0])


def test_truth_value_is_an_error():
    with pytest.raises(TypeError, match="no truth value"):
        bool(x > 0)


def test_walk_does_not_recurse():
    e = x
    for _ in range(20_000):
        e = E.sin(e)
    assert sum(1 for _ in E.walk(e)) == 20_001
