"""Derivatives of expressions: one line per function, in PyTorch's conventions.

A rule receives the node `y`, its arguments, and the derivatives of its arguments (`da`, `db`), and gives the
derivative of the node. Derivatives that vanish are `ZERO` and drop out of products and sums as these are
made, so a rule needs no cases. Since a derivative is an expression again, there are derivatives of every
order.

>>> from flambeau.kernels.expr import tanh, var
>>> diff(tanh(var("x")), "x")
(1 - (tanh(x) * tanh(x)))
"""

from __future__ import annotations

import math
from collections.abc import Callable

from flambeau.kernels.expr import (
    PREDICATES,
    ZERO,
    Expr,
    conj,
    const,
    cos,
    cosh,
    digamma,
    eq,
    exp,
    floor,
    imag,
    log,
    logical_and,
    polygamma,
    real,
    rsqrt,
    sign,
    sin,
    sinh,
    trunc,
    walk,
    where,
)

LN2, LN10 = math.log(2), math.log(10)
TWO_BY_SQRT_PI = 2 / math.sqrt(math.pi)


def _pow(y: Expr, a: Expr, b: Expr, da: Expr, db: Expr) -> Expr:
    slope = b * a ** (b - 1)
    by_base = (slope if b.op == "const" else where(eq(b, 0), ZERO, slope)) * da
    # 0 to a positive power, or to 0: the exponent's derivative is 0, where log would give nan
    by_exponent = where(logical_and(eq(a, 0), b >= 0), ZERO, y * log(a)) * db
    return by_base + by_exponent


def _larger(y: Expr, a: Expr, b: Expr, da: Expr, db: Expr) -> Expr:
    """Ties are shared half and half; a nan passes the gradient to both."""
    return _choice(eq(a, b), a < b, da) + _choice(eq(a, b), a > b, db)


def _smaller(y: Expr, a: Expr, b: Expr, da: Expr, db: Expr) -> Expr:
    return _choice(eq(a, b), a > b, da) + _choice(eq(a, b), a < b, db)


def _choice(tie: Expr, loses: Expr, d: Expr) -> Expr:
    return where(tie, 0.5, where(loses, ZERO, 1)) * d


RULES: dict[str, Callable[..., Expr]] = {
    "add": lambda y, a, b, da, db: da + db,
    "sub": lambda y, a, b, da, db: da - db,
    "mul": lambda y, a, b, da, db: da * b + a * db,
    "div": lambda y, a, b, da, db: (da - y * db) / b,
    "neg": lambda y, a, da: -da,
    "pow": _pow,
    "where": lambda y, c, a, b, dc, da, db: where(c, da, db),
    "maximum": _larger,
    "minimum": _smaller,
    "fmod": lambda y, a, b, da, db: da - db * trunc(a / b),
    "remainder": lambda y, a, b, da, db: da - db * floor(a / b),
    # exponentials and logarithms
    "exp": lambda y, a, da: y * da,
    "exp2": lambda y, a, da: y * LN2 * da,
    "expm1": lambda y, a, da: (y + 1) * da,
    "log": lambda y, a, da: da / a,
    "log2": lambda y, a, da: da / (a * LN2),
    "log10": lambda y, a, da: da / (a * LN10),
    "log1p": lambda y, a, da: da / (a + 1),
    "sqrt": lambda y, a, da: da / (2 * y),
    "rsqrt": lambda y, a, da: -0.5 * (y * y * y) * da,
    "sigmoid": lambda y, a, da: y * (1 - y) * da,
    # circular
    "sin": lambda y, a, da: cos(a) * da,
    "cos": lambda y, a, da: -sin(a) * da,
    "tan": lambda y, a, da: (1 + y * y) * da,
    "asin": lambda y, a, da: rsqrt(1 - a * a) * da,
    "acos": lambda y, a, da: -rsqrt(1 - a * a) * da,
    "atan": lambda y, a, da: da / (1 + a * a),
    "atan2": lambda y, a, b, da, db: (da * b - a * db) / (a * a + b * b),
    "hypot": lambda y, a, b, da, db: (a / y) * da + (b / y) * db,
    # hyperbolic
    "sinh": lambda y, a, da: cosh(a) * da,
    "cosh": lambda y, a, da: sinh(a) * da,
    "tanh": lambda y, a, da: (1 - y * y) * da,
    "asinh": lambda y, a, da: rsqrt(1 + a * a) * da,
    "acosh": lambda y, a, da: rsqrt(a * a - 1) * da,
    "atanh": lambda y, a, da: da / (1 - a * a),
    # special
    "erf": lambda y, a, da: TWO_BY_SQRT_PI * exp(-(a * a)) * da,
    "erfc": lambda y, a, da: -TWO_BY_SQRT_PI * exp(-(a * a)) * da,
    "erfinv": lambda y, a, da: (1 / TWO_BY_SQRT_PI) * exp(y * y) * da,
    "lgamma": lambda y, a, da: digamma(a) * da,
    "digamma": lambda y, a, da: polygamma(1, a) * da,
    "polygamma": lambda y, n, a, dn, da: polygamma(n + 1, a) * da,
    # magnitude
    "abs": lambda y, a, da: sign(a) * da,
    "copysign": lambda y, a, b, da, db: where(eq(a, 0), ZERO, y / a) * da,
    "conj": lambda y, a, da: conj(da),
    "real": lambda y, a, da: real(da),
    "imag": lambda y, a, da: imag(da),
}

#: Piecewise constant: their derivative is 0 wherever there is one, and PyTorch takes 0 elsewhere too.
FLAT = PREDICATES | frozenset(
    "sign floor ceil trunc round floordiv bitand bitor bitxor bitnot lshift rshift const zero".split()
)


def diff(root: Expr, name: str) -> Expr:
    """The derivative of `root` by the variable `name`; `ZERO` where it does not depend on it.

    >>> from flambeau.kernels.expr import exp, var
    >>> x, y = var("x"), var("y")
    >>> diff(exp(x * y) + y, "x")
    (exp((x * y)) * y)
    """
    slope: dict[Expr, Expr] = {}
    for node in walk(root):
        if node.op == "var":
            slope[node] = const(1) if node.value == name and node.dtype != "bool" else ZERO
        elif node.op in FLAT or all(slope[arg] is ZERO for arg in node.args):
            slope[node] = ZERO
        elif node.op in RULES:
            slope[node] = RULES[node.op](node, *node.args, *(slope[arg] for arg in node.args))
        else:
            raise NotImplementedError(f"{node.op} has no derivative: add its line to flambeau/kernels/diff.py")
    return slope[root]
