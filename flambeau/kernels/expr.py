"""A small algebra of pointwise expressions: what an operator computes, said once.

An expression is a node of a graph without cycles: an operation, its arguments, and, for leaves, a value.
Nodes are interned, so two expressions that look alike are one object, `is` compares them, and a repeated
part is computed once by whatever the expression is lowered to.

>>> x = var("x")
>>> gelu = x * 0.5 * (1 + erf(x * 0.5**0.5))
>>> gelu
((x * 0.5) * (1 + erf((x * 0.7071067811865476))))
>>> (x + 1) is (x + 1)
True

`==` stays identity (nodes are used as dictionary keys): write `eq(a, b)` and `ne(a, b)` to compare values.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from weakref import WeakValueDictionary

Number = bool | int | float

#: Operations whose result is a truth value, whatever their arguments.
PREDICATES = frozenset(
    "lt le gt ge eq ne isnan isinf isfinite signbit logical_and logical_or logical_xor logical_not".split()
)
#: Operations that give truth values when they are given nothing else.
BITWISE = frozenset("bitand bitor bitxor bitnot".split())
#: Operations that only NumPy and SciPy know: expressions that hold one are never compiled.
NUMPY_ONLY = frozenset("lgamma digamma polygamma erfinv".split())

_INFIX = {"add": "+", "sub": "-", "mul": "*", "div": "/", "pow": "**", "lt": "<", "le": "<=", "gt": ">",
          "ge": ">=", "eq": "==", "ne": "!=", "bitand": "&", "bitor": "|", "bitxor": "^", "lshift": "<<",
          "rshift": ">>"}  # fmt: skip


class Expr:
    """One node. `op` names the operation, `args` its arguments, `value` a variable's name or a constant."""

    __slots__ = ("op", "args", "value", "dtype", "__weakref__")

    op: str
    args: tuple[Expr, ...]
    value: Any  # str, a Python number or None
    dtype: str | None  # of a variable with a dtype of its own; "bool" for truth values; None: the kernel's dtype

    def __repr__(self) -> str:
        if not self.args:
            return str(self.value)
        if self.op in _INFIX:
            return f"({self.args[0]} {_INFIX[self.op]} {self.args[1]})"
        return f"{self.op}({', '.join(map(repr, self.args))})"

    def __bool__(self) -> bool:
        raise TypeError("an expression has no truth value: use where, logical_and, logical_or, logical_not")

    def __add__(self, other: Operand) -> Expr:
        return add(self, other)

    def __radd__(self, other: Operand) -> Expr:
        return add(other, self)

    def __sub__(self, other: Operand) -> Expr:
        return sub(self, other)

    def __rsub__(self, other: Operand) -> Expr:
        return sub(other, self)

    def __mul__(self, other: Operand) -> Expr:
        return mul(self, other)

    def __rmul__(self, other: Operand) -> Expr:
        return mul(other, self)

    def __truediv__(self, other: Operand) -> Expr:
        return div(self, other)

    def __rtruediv__(self, other: Operand) -> Expr:
        return div(other, self)

    def __pow__(self, other: Operand) -> Expr:
        return pow(self, other)

    def __rpow__(self, other: Operand) -> Expr:
        return pow(other, self)

    def __neg__(self) -> Expr:
        return neg(self)

    def __lt__(self, other: Operand) -> Expr:
        return lt(self, other)

    def __le__(self, other: Operand) -> Expr:
        return le(self, other)

    def __gt__(self, other: Operand) -> Expr:
        return gt(self, other)

    def __ge__(self, other: Operand) -> Expr:
        return ge(self, other)


Operand = Expr | Number

# --- making nodes ------------------------------------------------------------------------------------------

_nodes: WeakValueDictionary[tuple, Expr] = WeakValueDictionary()


def _node(op: str, args: tuple[Expr, ...] = (), value: str | Number | None = None, dtype: str | None = None) -> Expr:
    # repr tells 0.0 from -0.0 and 1 from 1.0 and True, and makes every NaN the same constant.
    key = (op, args, type(value), repr(value), dtype)
    node = _nodes.get(key)
    if node is None:
        node = Expr()
        node.op, node.args, node.value, node.dtype = op, args, value, dtype
        node = _nodes.setdefault(key, node)
    return node


def var(name: str, dtype: str | None = None) -> Expr:
    """A variable. Its dtype is the kernel's, unless `dtype` fixes it: `var("mask", "bool")`."""
    return _node("var", value=name, dtype=dtype)


def scalar(name: str) -> Expr:
    """A variable for a number: passed in float32 to kernels of float16 and bfloat16, which compute in it."""
    return var(name, "scalar")


def const(value: Operand) -> Expr:
    """A constant (an expression is given back as it is)."""
    if isinstance(value, Expr):
        return value
    if isinstance(value, bool):
        return _node("const", value=value, dtype="bool")
    if isinstance(value, (int, float)):
        return _node("const", value=value)
    raise TypeError(f"an expression is made of expressions and Python numbers, not {type(value).__name__}")


#: Zero as derivatives know it: a product with it vanishes, even where the other factor may be inf or nan.
ZERO = _node("zero", value=0)


def is_bool(e: Expr) -> bool:
    """Whether the expression gives truth values."""
    return e.dtype == "bool"


def apply(op: str, *args: Operand) -> Expr:
    """The node `op(*args)`, as it stands: no simplification."""
    nodes = tuple(map(const, args))
    dtype: str | None
    if op in PREDICATES:
        dtype = "bool"
    elif op == "where":
        dtype = "bool" if is_bool(nodes[1]) and is_bool(nodes[2]) else None
    elif op in BITWISE:
        dtype = "bool" if all(map(is_bool, nodes)) else None
    else:
        dtype = None
    return _node(op, nodes, dtype=dtype)


def _fold(op: str, python: Callable[[Number, Number], Number], a: Expr, b: Expr) -> Expr:
    """The node `op(a, b)`: a constant if both are, unless Python would raise (1 / 0)."""
    if a.op == b.op == "const":
        try:
            result = python(a.value, b.value)
        except ArithmeticError:
            return apply(op, a, b)
        if isinstance(result, (int, float)):
            return const(result)
    return apply(op, a, b)


def _is(e: Expr, value: Number) -> bool:
    return e.op == "const" and e.dtype is None and e.value == value


# --- arithmetic: the only place where expressions are simplified --------------------------------------------


def add(a: Operand, b: Operand) -> Expr:
    a, b = const(a), const(b)
    if a is ZERO or _is(a, 0):
        return b
    if b is ZERO or _is(b, 0):
        return a
    if b.op == "neg":
        return sub(a, b.args[0])
    return _fold("add", operator.add, a, b)


def sub(a: Operand, b: Operand) -> Expr:
    a, b = const(a), const(b)
    if b is ZERO or _is(b, 0):
        return a
    if a is ZERO:
        return neg(b)
    if b.op == "neg":
        return add(a, b.args[0])
    return _fold("sub", operator.sub, a, b)


def mul(a: Operand, b: Operand) -> Expr:
    a, b = const(a), const(b)
    if a is ZERO or b is ZERO:
        return ZERO
    if _is(a, 1) and not is_bool(b):
        return b
    if _is(b, 1) and not is_bool(a):
        return a
    if _is(a, -1):
        return neg(b)
    if _is(b, -1):
        return neg(a)
    if a.op == "neg" and b.op == "neg":
        return mul(a.args[0], b.args[0])
    return _fold("mul", operator.mul, a, b)


def div(a: Operand, b: Operand) -> Expr:
    a, b = const(a), const(b)
    if a is ZERO:
        return ZERO
    if _is(b, 1) and not is_bool(a):
        return a
    return _fold("div", operator.truediv, a, b)


def neg(a: Operand) -> Expr:
    a = const(a)
    if a is ZERO:
        return ZERO
    if a.op == "neg":
        return a.args[0]
    if a.op == "const":
        return const(-a.value)
    return apply("neg", a)


#: Exponents that are cheaper, and as exact, without `pow`.
_POWERS: dict[float, Callable[[Expr], Expr]] = {
    0: lambda x: const(1),
    1: lambda x: x,
    2: lambda x: x * x,
    3: lambda x: x * x * x,
    4: lambda x: (x * x) * (x * x),
    0.5: lambda x: apply("sqrt", x),
    -0.5: lambda x: apply("rsqrt", x),
    -1: lambda x: 1 / x,
    -2: lambda x: 1 / (x * x),
}


def pow(a: Operand, b: Operand) -> Expr:  # noqa: A001  (the algebra's own, like abs and round below)
    a, b = const(a), const(b)
    if b.op == "const" and a.op != "const" and b.value in _POWERS:
        return _POWERS[b.value](a)
    return _fold("pow", operator.pow, a, b)


def where(condition: Expr, a: Operand, b: Operand) -> Expr:
    """`a` where `condition` holds, `b` elsewhere; what is not chosen doesn't count, be it nan."""
    a, b = const(a), const(b)
    return a if a is b else apply("where", condition, a, b)


# --- functions ----------------------------------------------------------------------------------------------


def _unary(name: str) -> Callable[[Operand], Expr]:
    def function(x: Operand) -> Expr:
        return apply(name, x)

    function.__name__ = function.__qualname__ = name
    return function


def _binary(name: str) -> Callable[[Operand, Operand], Expr]:
    def function(a: Operand, b: Operand) -> Expr:
        return apply(name, a, b)

    function.__name__ = function.__qualname__ = name
    return function


exp, exp2, expm1 = map(_unary, ("exp", "exp2", "expm1"))
log, log2, log10, log1p = map(_unary, ("log", "log2", "log10", "log1p"))
sqrt, rsqrt = map(_unary, ("sqrt", "rsqrt"))
sin, cos, tan, asin, acos, atan = map(_unary, ("sin", "cos", "tan", "asin", "acos", "atan"))
sinh, cosh, tanh, asinh, acosh, atanh = map(_unary, ("sinh", "cosh", "tanh", "asinh", "acosh", "atanh"))
erf, erfc, erfinv, lgamma, digamma = map(_unary, ("erf", "erfc", "erfinv", "lgamma", "digamma"))
sigmoid = _unary("sigmoid")
abs, sign, floor, ceil, trunc = map(_unary, ("abs", "sign", "floor", "ceil", "trunc"))  # noqa: A001
round = _unary("round")  # noqa: A001  half to even
conj, real, imag = map(_unary, ("conj", "real", "imag"))
isnan, isinf, isfinite, signbit = map(_unary, ("isnan", "isinf", "isfinite", "signbit"))
logical_not, bitnot = map(_unary, ("logical_not", "bitnot"))

atan2, hypot, copysign = map(_binary, ("atan2", "hypot", "copysign"))
minimum, maximum = map(_binary, ("minimum", "maximum"))  # nan if either is
fmod, remainder, floordiv = map(_binary, ("fmod", "remainder", "floordiv"))  # signs: dividend's, divisor's
polygamma = _binary("polygamma")
lt, le, gt, ge, eq, ne = map(_binary, ("lt", "le", "gt", "ge", "eq", "ne"))
logical_and, logical_or, logical_xor = map(_binary, ("logical_and", "logical_or", "logical_xor"))
bitand, bitor, bitxor = map(_binary, ("bitand", "bitor", "bitxor"))
lshift, rshift = map(_binary, ("lshift", "rshift"))


# --- compositions that many operators want ------------------------------------------------------------------


def relu(x: Expr) -> Expr:
    """max(x, 0), nan for nan, derivative 0 at 0."""
    return where(x <= 0, 0, x)


def clamp(x: Expr, low: Operand | None = None, high: Operand | None = None) -> Expr:
    """min(max(x, low), high): nan for nan, and derivative 1 at both ends, as in PyTorch."""
    if low is not None:
        x = where(x < low, low, x)
    if high is not None:
        x = where(x > high, high, x)
    return x


def softplus(x: Expr) -> Expr:
    """log(1 + exp(x)), without overflow."""
    return maximum(x, 0) + log1p(exp(-abs(x)))


def logsigmoid(x: Expr) -> Expr:
    """log(sigmoid(x)), without overflow."""
    return minimum(x, 0) - log1p(exp(-abs(x)))


def xlogy(x: Expr, y: Expr) -> Expr:
    """x log(y), and 0 where x is 0, unless y is nan."""
    return where(isnan(y), math.nan, where(eq(x, 0), 0, x * log(y)))


# --- looking at expressions ---------------------------------------------------------------------------------


def walk(roots: Expr | Iterable[Expr]) -> Iterator[Expr]:
    """Every node under `roots`, once each, arguments before their users. Never recurses."""
    seen: set[Expr] = set()
    stack = [(root, False) for root in reversed([roots] if isinstance(roots, Expr) else list(roots))]
    while stack:
        node, ready = stack.pop()
        if ready:
            yield node
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack.extend((arg, False) for arg in reversed(node.args))


def variables(roots: Expr | Iterable[Expr]) -> tuple[str, ...]:
    """The names of the variables, in the order in which they first appear."""
    return tuple(dict.fromkeys(node.value for node in walk(roots) if node.op == "var"))


def rebuild(node: Expr, args: tuple[Expr, ...]) -> Expr:
    """The node's operation on other arguments, simplified again."""
    return _BUILD.get(node.op, lambda *a: apply(node.op, *a))(*args)


_BUILD: dict[str, Callable[..., Expr]] = {"add": add, "sub": sub, "mul": mul, "div": div, "neg": neg, "pow": pow, "where": where}


def substitute(root: Expr, replacements: dict[Expr, Operand]) -> Expr:
    """`root` with every occurrence of a key replaced by its value; keys may be any expressions.

    >>> x, out = var("x"), var("out")
    >>> substitute(tanh(x) * tanh(x) + x, {tanh(x): out})
    ((out * out) + x)
    """
    new = {key: const(value) for key, value in replacements.items()}
    for node in walk(root):
        if node not in new:
            new[node] = rebuild(node, tuple(new[arg] for arg in node.args)) if node.args else node
    return new[root]


def rename(root: Expr, names: dict[str, str]) -> Expr:
    """`root` with its variables renamed."""
    return substitute(root, {n: var(names[n.value], n.dtype) for n in walk(root) if n.op == "var" and n.value in names})


def serialize(roots: Iterable[Expr]) -> str:
    """One line that says what the expressions are, sharing included: the same in every process.

    >>> x = var("x")
    >>> serialize([x * x + 1])
    'var x None;mul 0 0;const 1 None;add 1 2;=3'
    """
    roots = list(roots)
    number: dict[Expr, int] = {}
    lines = []
    for node in walk(roots):
        number[node] = len(number)
        rest = " ".join(str(number[a]) for a in node.args) if node.args else f"{node.value!r} {node.dtype}"
        lines.append(f"{node.op} {rest}" if node.op != "var" else f"var {node.value} {node.dtype}")
    return ";".join(lines) + ";=" + ",".join(str(number[r]) for r in roots)
