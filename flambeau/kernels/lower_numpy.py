"""Expressions to NumPy: the text of one Python function, for where there are no generated kernels.

>>> from flambeau.kernels.expr import exp, var
>>> print(source([exp(var("x")) * 2], ("x",), {}, np.dtype("float32"), "twice_exp"))
def twice_exp(x):
    t1 = np.exp(x)
    t3 = np.multiply(t1, T(2))
    return (t3,)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from flambeau.kernels import expr as E
from flambeau.kernels.expr import Expr

#: Operations that are one NumPy ufunc, for every dtype.
UFUNCS: dict[str, np.ufunc] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.true_divide, "neg": np.negative,
    "pow": np.power, "exp": np.exp, "exp2": np.exp2, "expm1": np.expm1, "log": np.log, "log2": np.log2,
    "log10": np.log10, "log1p": np.log1p, "sqrt": np.sqrt, "sin": np.sin, "cos": np.cos, "tan": np.tan,
    "asin": np.arcsin, "acos": np.arccos, "atan": np.arctan, "sinh": np.sinh, "cosh": np.cosh,
    "tanh": np.tanh, "asinh": np.arcsinh, "acosh": np.arccosh, "atanh": np.arctanh, "atan2": np.arctan2,
    "hypot": np.hypot, "copysign": np.copysign, "conj": np.conjugate, "abs": np.absolute, "floor": np.floor,
    "ceil": np.ceil, "trunc": np.trunc, "round": np.rint, "minimum": np.minimum, "maximum": np.maximum,
    "fmod": np.fmod, "remainder": np.remainder, "floordiv": np.floor_divide, "lt": np.less,
    "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal, "eq": np.equal, "ne": np.not_equal,
    "isnan": np.isnan, "isinf": np.isinf, "isfinite": np.isfinite, "signbit": np.signbit,
    "logical_and": np.logical_and, "logical_or": np.logical_or, "logical_xor": np.logical_xor,
    "logical_not": np.logical_not, "bitand": np.bitwise_and, "bitor": np.bitwise_or,
    "bitxor": np.bitwise_xor, "bitnot": np.invert, "lshift": np.left_shift, "rshift": np.right_shift,
}  # fmt: skip

#: Operations that take a truth value as it is; elsewhere it counts as 0 or 1.
TAKES_BOOL = E.PREDICATES | E.BITWISE | {"where"}


def special(name: str) -> Any:
    """A function of scipy.special, for arrays of any floating dtype."""
    import scipy.special

    return getattr(scipy.special, name)


def _sign(x: np.ndarray) -> np.ndarray:
    if np.iscomplexobj(x):
        return np.sign(x)
    return np.where(np.isnan(x), x.dtype.type(0), np.sign(x)) if x.dtype.kind == "f" else np.sign(x)


def _polygamma(n: np.ndarray, x: np.ndarray) -> np.ndarray:
    return special("polygamma")(n, x).astype(x.dtype)


def _integer_power(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """NumPy refuses negative exponents; here 1 and -1 to them are what they should be, and every other base gives 0."""
    if y.dtype.kind == "u" or not (y < 0).any():
        return np.power(x, y)
    units = np.where(x == 1, 1, np.where(x == -1, 1 - 2 * (y & 1), 0)).astype(x.dtype)
    return np.where(y < 0, units, np.power(x, np.maximum(y, 0)))


#: The rest, as functions of arrays.
FUNCTIONS: dict[str, Callable] = {
    "where": np.where,
    "sign": _sign,
    "real": np.real,
    "imag": np.imag,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "erf": lambda x: special("erf")(x),
    "erfc": lambda x: special("erfc")(x),
    "erfinv": lambda x: special("erfinv")(x),
    "lgamma": lambda x: np.where(np.isinf(x), np.abs(x), special("gammaln")(x)),
    "digamma": lambda x: special("digamma")(x),
    "polygamma": _polygamma,
    "pow": _integer_power,
}


def source(roots: Sequence[Expr], args: Sequence[str], kinds: dict[str, str], dtype: np.dtype, name: str) -> str:
    """The text of a function of arrays of the dtype computed in (but for variables in `kinds`)."""
    text: dict[Expr, str] = {}
    lines = [f"def {name}({', '.join(args)}):"]

    def number(e: Expr) -> str:
        return f"np.asarray({text[e]}).astype(T)" if E.is_bool(e) and e.op != "const" else text[e]

    for i, node in enumerate(E.walk(roots)):
        if node.op == "var":
            text[node] = node.value
            if node.dtype not in (None, "bool", "scalar"):
                text[node] = f"{node.value}.astype(T)"
        elif node.op in ("const", "zero"):
            text[node] = _constant(node.value, dtype)
        else:
            text[node] = f"t{i}"
            arguments = ", ".join(text[a] if node.op in TAKES_BOOL else number(a) for a in node.args)
            if node.op == "where" and not E.is_bool(node):
                arguments = ", ".join([text[node.args[0]], *map(number, node.args[1:])])
            ours = node.op not in UFUNCS or node.op == "pow" and dtype.kind in "iu"
            call = f"F[{node.op!r}]" if ours else f"np.{UFUNCS[node.op].__name__}"
            lines.append(f"    t{i} = {call}({arguments})")
    lines.append(f"    return ({', '.join(text[r] for r in roots)},)")
    return "\n".join(lines)


def _constant(value: Any, dtype: np.dtype) -> str:
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return f"T({str(value)!r})" if dtype.kind in "fc" else f"float({str(value)!r})"
    # NumPy scalars of the dtype computed in, so that no constant widens a result
    return f"T({value!r})" if dtype.kind in "fc" or isinstance(value, int) else repr(value)


def lower(roots: Sequence[Expr], args: Sequence[str], kinds: dict[str, str], dtype: np.dtype, name: str) -> Callable:
    """A function with a ufunc's calling convention: `f(*arrays, out=None)`; it always gives arrays."""
    compute = np.dtype(np.float32) if is_half(dtype) else dtype
    scope: dict[str, Any] = {"np": np, "F": FUNCTIONS, "T": compute.type}
    exec(source(roots, args, kinds, compute, "f"), scope)
    body = scope["f"]
    results = [np.dtype(bool) if E.is_bool(r) else dtype for r in roots]
    if dtype.kind == "c":
        real = np.dtype(f"f{dtype.itemsize // 2}")
        results = [real if r.op in ("real", "imag", "abs") else d for r, d in zip(roots, results, strict=True)]
    own = {a: np.dtype(numpy_name(kind)) for a, kind in kinds.items() if kind != "scalar"}
    wants = [own.get(a, compute) for a in args]
    ignore = np.errstate(all="ignore")

    @ignore
    def function(*given: Any, out: Any = None) -> Any:
        arrays = [np.asanyarray(a, d) for a, d in zip(given, wants, strict=True)]  # a subclass may refuse to be read
        values = [np.asarray(v).astype(d, copy=False) for v, d in zip(body(*arrays), results, strict=True)]
        if out is not None and out is not Ellipsis:
            for to, value in zip(out if isinstance(out, tuple) else (out,), values, strict=True):
                np.copyto(to, value, casting="same_kind")
            return out
        shape = np.broadcast_shapes(*(a.shape for a in arrays))
        # a result that is an argument (the identity, conj of reals) or that misses an argument's shape is
        # copied
        values = [
            np.array(np.broadcast_to(v, shape))
            if v.shape != shape or any(np.shares_memory(v, a) for a in arrays)
            else v
            for v in values
        ]
        return values[0] if len(values) == 1 else tuple(values)

    function.__name__ = name
    return function


def numpy_name(name: str) -> Any:
    """What np.dtype takes for the dtype of this name."""
    if name != "bfloat16":
        return name
    import ml_dtypes

    return ml_dtypes.bfloat16


def is_bfloat16(dtype: np.dtype) -> bool:
    """Whether this is ml_dtypes' bfloat16, the only dtype of kind "V" here; asking does not import ml_dtypes."""
    return dtype.kind == "V"


def is_half(dtype: np.dtype) -> bool:
    """Whether this is float16 or bfloat16."""
    return dtype.itemsize == 2 and dtype.kind in "fV"


def single_ufunc(roots: Sequence[Expr], args: Sequence[str]) -> np.ufunc | None:
    """The NumPy ufunc that is the whole expression, its arguments in order, if there is one."""
    root = roots[0]
    if len(roots) != 1 or root.op not in UFUNCS or any(a.op != "var" for a in root.args):
        return None
    same = tuple(a.value for a in root.args) == tuple(args) and all(a.dtype is None for a in root.args)
    return UFUNCS[root.op] if same else None
