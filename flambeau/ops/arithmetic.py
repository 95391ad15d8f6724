"""Arithmetic: sums, products, quotients, powers, remainders, rounding, extremes of two, and Python's operators."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from ..autograd.pointwise import NO_COMPLEX, NUMBER, Pointwise, only_floats, pointwise, without
from ..autograd.primitive import Primitive, primitive
from ..core.dtypes import BOOL, C_NAMES, COMPLEX, FLOAT, INT, SCALAR_NAMES, complex128, float64
from ..core.errors import error
from ..core.tensor import Tensor
from ..kernels import expr as E
from .public import become, public, public_pointwise, publish, write_out

x, y, z, g, out_ = E.var("x"), E.var("y"), E.var("z"), E.var("g"), E.var("out")
c = E.scalar("c")  # a Python number
LN2 = 0.6931471805599453
NO_GRADIENT = E.ZERO  # zero everywhere: zeros arrive, as PyTorch's do


def attach(op: Pointwise, name: str, *, reflected: Any = True, inplace: Any = None) -> None:
    """Make an operator Python's: ``__name__``, ``__rname__`` (True: the same) and ``__iname__``."""
    call = op.operator()
    setattr(Tensor, f"__{name}__", call)
    if reflected:
        setattr(Tensor, f"__r{name}__", call if reflected is True else reflected)
    setattr(Tensor, f"__i{name}__", inplace or op.inplace)


def give(name: str, result: Tensor, out: Tensor | None) -> Tensor:
    if out is None:
        return result
    write_out(name, out, result)
    return out


def is_bool(v: Any) -> bool:
    return v._a.dtype.kind == "b" if isinstance(v, Tensor) else isinstance(v, (bool, np.bool_))


def is_integral(v: Any) -> bool:
    return v._a.dtype.kind in "iub" if isinstance(v, Tensor) else isinstance(v, (int, np.integer))


# ---- add, sub -------------------------------------------------------------------------------------------------------
_add = pointwise("add", x + y, "x y")
_add_alpha = pointwise("add_alpha", x + c * y, "x y c", node="AddBackward0")


def _refuse_bool(xs: tuple[Any, ...]) -> None:
    flags = [is_bool(v) for v in xs[:2]]
    if all(flags):
        raise error(
            RuntimeError,
            "Subtraction, the `-` operator, with two bool tensors is not supported. Use the `^` or `logical_xor()` "
            "operator instead.",
        )
    if any(flags):
        raise error(
            RuntimeError,
            "Subtraction, the `-` operator, with a bool tensor is not supported. If you are trying to invert a mask, "
            "use the `~` or `logical_not()` operator instead.",
        )


_sub = pointwise("sub", x - y, "x y", check=_refuse_bool)
_sub_alpha = pointwise("sub_alpha", x - c * y, "x y c", node="SubBackward0", check=_refuse_bool)
_rsub = pointwise("rsub", y - x, "x y", node="RsubBackward1", check=_refuse_bool)
_rsub_tensor = pointwise("rsub_tensor", y - x, "x y", node="RsubBackward0", check=_refuse_bool)


for _op in (_add, _sub, _rsub, _rsub_tensor):
    _op.round_numbers = True


def _check_alpha(alpha: Any, *xs: Any) -> None:
    if isinstance(alpha, bool) and not all(map(is_bool, xs)):
        raise error(RuntimeError, "Boolean alpha only supported for Boolean results.")
    if isinstance(alpha, (float, complex)) and all(map(is_integral, xs)):
        raise error(RuntimeError, "For integral input tensors, argument alpha must not be a floating point number.")


def add(input: Any, other: Any, *, alpha: Any = 1, out: Tensor | None = None) -> Tensor:
    """``input + alpha * other``, with broadcasting and promotion.

    >>> import flambeau as torch
    >>> torch.add(torch.tensor([1., 2.]), 10, alpha=2)
    tensor([21., 22.])
    """
    if alpha.__class__ is int and alpha == 1:
        r = _add_call(input, other)
    else:
        _check_alpha(alpha, input, other)
        r = _add_alpha.call(input, other, bool(alpha) if is_bool(input) and is_bool(other) else alpha)
    return r if out is None else give("add", r, out)


def sub(input: Any, other: Any, *, alpha: Any = 1, out: Tensor | None = None) -> Tensor:
    """``input - alpha * other``; RuntimeError for truth values."""
    if alpha.__class__ is int and alpha == 1:
        r = _sub_call(input, other)
    else:
        _check_alpha(alpha, input, other)
        r = _sub_alpha.call(input, other, alpha)
    return r if out is None else give("sub", r, out)


def add_(input: Tensor, other: Any, *, alpha: Any = 1) -> Tensor:
    """``input += alpha * other``."""
    if alpha.__class__ is int and alpha == 1:
        return _add.inplace(input, other)
    _check_alpha(alpha, input, other)
    return _add_alpha.inplace(input, other, alpha)


def sub_(input: Tensor, other: Any, *, alpha: Any = 1) -> Tensor:
    """``input -= alpha * other``."""
    if alpha.__class__ is int and alpha == 1:
        return _sub.inplace(input, other)
    _check_alpha(alpha, input, other)
    return _sub_alpha.inplace(input, other, alpha)


def rsub(input: Any, other: Any, *, alpha: Any = 1) -> Tensor:
    """``other - alpha * input``."""
    if alpha != 1:
        return sub(other, input, alpha=alpha)
    return (_rsub_tensor if isinstance(other, Tensor) else _rsub).call(input, other)


_add_call, _sub_call = _add.call, _sub.call


def both(fn: Any, *names: str, method: bool = True) -> None:
    """Publish a function under several names, as function and method."""
    for name in names:
        publish(name, fn)
        if method:
            setattr(Tensor, name, fn)


both(add, "add")
both(add_, "add_")
both(sub, "sub", "subtract")
both(sub_, "sub_", "subtract_")
both(rsub, "rsub")
attach(_add, "add")
attach(_sub, "sub", reflected=_rsub.operator())

# ---- mul, div -------------------------------------------------------------------------------------------------------
_mul = pointwise("mul", x * y, "x y")
public_pointwise(_mul, names=("multiply",), doc="``input * other``, with broadcasting and promotion.")
attach(_mul, "mul")

_div = pointwise("div", x / y, "x y", promote="float")
# 1/x first, then the product: PyTorch's rounding of ``2 / x``
_rdiv = pointwise("rdiv", (1 / x) * y, "x y", node="MulBackward0", promote="float")


def _no_zero(xs: tuple[Any, ...]) -> None:
    if all(map(is_integral, xs)):
        d = xs[1]
        if isinstance(d, Tensor) and d._a.__class__ is not np.ndarray:
            return  # one example of a batch: the call on the batch asks again
        if not (np.all(d._a) if isinstance(d, Tensor) else d):
            raise error(RuntimeError, "ZeroDivisionError")


_NO_BOOL = {BOOL: "\"{name}_cpu\" not implemented for '{dtype}'", **NO_COMPLEX}
_floor_div = pointwise("floor_divide", E.floordiv(x, y), "x y", check=_no_zero, refuse=_NO_BOOL)
_floor_div_grad = pointwise(
    "div_floor", E.floordiv(x, y), "x y", node="DivBackward2", check=_no_zero, grad={"x": NO_GRADIENT, "y": NO_GRADIENT},
    refuse=dict(without("div_floor_cpu", BOOL, COMPLEX)),
)
_trunc_div = pointwise(
    "div_trunc", E.trunc(x / y), "x y", node="DivBackward2", grad={"x": NO_GRADIENT, "y": NO_GRADIENT},
    refuse=dict(without("div_trunc_cpu", COMPLEX)),
)
_trunc_div_int = pointwise("div_trunc_int", E.floordiv(x - E.fmod(x, y), y), "x y", check=_no_zero, refuse=dict(without("div_trunc_cpu", BOOL)))


def _div_mode(a: Any, b: Any, mode: Any) -> Pointwise:
    if mode is None:
        return _div
    if mode == "floor":
        return _floor_div_grad
    if mode == "trunc":
        return _trunc_div_int if is_integral(a) and is_integral(b) else _trunc_div
    raise error(
        RuntimeError, f"div expected rounding_mode to be one of None, 'trunc', or 'floor' but found '{mode}'"
    )


def div(input: Any, other: Any, *, rounding_mode: str | None = None, out: Tensor | None = None) -> Tensor:
    """``input / other``; integers give floats, unless ``rounding_mode`` is "floor" or "trunc".

    >>> import flambeau as torch
    >>> torch.div(torch.tensor([-7, 7]), 2, rounding_mode="floor")
    tensor([-4,  3])
    """
    r = _div_call(input, other) if rounding_mode is None else _div_mode(input, other, rounding_mode).call(input, other)
    return r if out is None else give("div", r, out)


def div_(input: Tensor, other: Any, *, rounding_mode: str | None = None) -> Tensor:
    """``input /= other``; the dtype of ``input`` must hold the result."""
    return _div_mode(input, other, rounding_mode).inplace(input, other)


_div_call = _div.call
both(div, "div", "divide")
both(div_, "div_", "divide_")


def true_divide(input: Any, other: Any, *, out: Tensor | None = None) -> Tensor:
    """``input / other``: ``div`` without rounding."""
    return give("true_divide", _div.call(input, other), out)


both(true_divide, "true_divide")
both(_div.inplace, "true_divide_")
attach(_div, "truediv", reflected=_rdiv.operator())

public_pointwise(_floor_div, doc="``floor(input / other)``; RuntimeError for integers divided by zero.")
_rfloor_div = pointwise("rfloor_divide", E.floordiv(y, x), "x y", check=lambda xs: _no_zero(xs[::-1]), refuse=_NO_BOOL)
attach(_floor_div, "floordiv", reflected=_rfloor_div.operator())

_remainder = pointwise("remainder", E.remainder(x, y), "x y", node="RemainderBackward1", check=_no_zero, refuse=_NO_BOOL)
_remainder_number = pointwise("remainder_number", E.remainder(x, y), "x y", node="RemainderBackward0", check=_no_zero, refuse=_NO_BOOL)
_rremainder = pointwise("rremainder", E.remainder(y, x), "x y", check=lambda xs: _no_zero(xs[::-1]), refuse=_NO_BOOL)
_fmod = pointwise("fmod", E.fmod(x, y), "x y", node="FmodBackward1", check=_no_zero, refuse=_NO_BOOL)
_fmod_number = pointwise("fmod_number", E.fmod(x, y), "x y", node="FmodBackward0", check=_no_zero, refuse=_NO_BOOL)


def with_number(name: str, op: Pointwise, number_op: Pointwise, doc: str, names: tuple[str, ...] = ()) -> Any:
    """Publish an operator whose node has another name where the second operand is a number."""

    def fn(input: Any, other: Any, *, out: Tensor | None = None) -> Tensor:
        r = (op if isinstance(other, Tensor) else number_op).call(input, other)
        return r if out is None else give(name, r, out)

    def fn_(input: Tensor, other: Any) -> Tensor:
        return (op if isinstance(other, Tensor) else number_op).inplace(input, other)

    fn.__name__ = fn.__qualname__ = name
    fn_.__name__ = fn_.__qualname__ = name + "_"
    fn.__doc__, fn_.__doc__ = doc, f"``{name}`` in place."
    both(fn, name, *names)
    both(fn_, name + "_", *(n + "_" for n in names))
    return fn


def number_operator(op: Pointwise, number_op: Pointwise) -> Any:
    with_tensor, with_num = op.operator(), number_op.operator()

    def call(self: Tensor, other: Any) -> Any:
        return with_tensor(self, other) if isinstance(other, Tensor) else with_num(self, other)

    return call


remainder = with_number(
    "remainder", _remainder, _remainder_number, "``input - other * floor(input / other)``: the divisor's sign."
)
fmod = with_number("fmod", _fmod, _fmod_number, "``input - other * trunc(input / other)``: the dividend's sign.")
attach(_remainder, "mod", reflected=_rremainder.operator(), inplace=Tensor.remainder_)
Tensor.__mod__ = number_operator(_remainder, _remainder_number)

# ---- powers ---------------------------------------------------------------------------------------------------------
_NO_NEGATIVE = "Integers to negative integer powers are not allowed."


def _check_power(xs: tuple[Any, ...]) -> None:
    base, exponent = xs
    if not isinstance(exponent, Tensor) and is_integral(base) and is_integral(exponent) and exponent < 0:
        raise error(RuntimeError, _NO_NEGATIVE)


_pow_number = pointwise("pow_number", E.apply("pow", x, y), "x y", node="PowBackward0", check=_check_power)
_NO_BOOL_POW = {BOOL: "\"pow\" not implemented for '{dtype}'"}
_pow = pointwise("pow", E.apply("pow", x, y), "x y", node="PowBackward1", refuse=_NO_BOOL_POW)
_number_pow = pointwise("number_pow", E.apply("pow", x, y), "x y", node="PowBackward2", refuse=_NO_BOOL_POW)
_rpow = pointwise("rpow", E.apply("pow", y, x), "x y", node="PowBackward2", refuse=_NO_BOOL_POW)
_pow_bool = pointwise("pow_bool", E.logical_or(x, E.logical_not(y)), "x y")
# Exponents that need no pow. By 2 is as it stands in every dtype, the others in floating ones.
_square = pointwise("square", x * x, "x", node="PowBackward0")
_POWERS: dict[Any, Pointwise] = {2: _square}
_FLOAT_POWERS: dict[Any, Pointwise] = {
    n: pointwise(f"pow_{n}", x**n, "x", node="PowBackward0") for n in (3, 4, 0.5, -0.5, -1, -2)
}
_FLOAT_POWERS[2] = _square
_square_call = _square.call


def _power_op(base: Any, exponent: Any) -> Any:
    """(operator, operands)"""
    if is_bool(exponent) and not isinstance(exponent, Tensor) and is_bool(base):
        return _pow_bool, (base, exponent)
    if isinstance(exponent, Tensor):
        return (_pow if isinstance(base, Tensor) else _number_pow), (base, exponent)
    if not isinstance(base, Tensor):
        raise error(
            TypeError,
            f"pow() received an invalid combination of arguments - got ({type(base).__name__}, {type(exponent).__name__}), "
            "but expected one of:\n * (Tensor input, Tensor exponent, *, Tensor out = None)\n"
            " * (Number self, Tensor exponent, *, Tensor out = None)\n * (Tensor input, Number exponent, *, Tensor out = None)",
        )
    kind = base._a.dtype.kind
    op = None
    if exponent.__class__ in (int, float):
        if kind in "fV":
            op = _FLOAT_POWERS.get(exponent)
        elif exponent == 2 and exponent.__class__ is int and kind in "iu":
            op = _square
    return (_pow_number, (base, exponent)) if op is None else (op, (base,))


def pow(input: Any, exponent: Any, *, out: Tensor | None = None) -> Tensor:  # noqa: A001
    """``input ** exponent``; RuntimeError for integers to a negative integer power.

    >>> import flambeau as torch
    >>> torch.pow(torch.tensor([1., 2., 3.]), 2)
    tensor([1., 4., 9.])
    """
    op, xs = _power_op(input, exponent)
    return give("pow", op.call(*xs), out)


def pow_(input: Tensor, exponent: Any) -> Tensor:
    """``input **= exponent``."""
    op, xs = _power_op(input, exponent)
    return op.inplace(*xs)


def __pow__(self: Tensor, exponent: Any) -> Any:
    if exponent.__class__ is int and exponent == 2 and self._a.dtype.kind in "fiuV":
        return _square_call(self)
    if not isinstance(exponent, (Tensor, *NUMBER)):
        return NotImplemented
    op, xs = _power_op(self, exponent)
    return op.call(*xs)


both(pow, "pow")
both(pow_, "pow_")
Tensor.__pow__ = __pow__
Tensor.__rpow__ = _rpow.operator()
Tensor.__ipow__ = pow_


def square(input: Tensor, *, out: Tensor | None = None) -> Tensor:
    """``input * input``; truth values give integers.

    >>> import flambeau as torch
    >>> torch.square(torch.tensor([-3., 2.]))
    tensor([9., 4.])
    """
    r = _square_call(input.long() if is_bool(input) and isinstance(input, Tensor) else input)
    return r if out is None else give("square", r, out)


both(square, "square")
both(_square.inplace, "square_")


@public(out=True)
def float_power(input: Any, exponent: Any) -> Tensor:
    """``input ** exponent`` in float64, or complex128 where an operand is complex."""
    wide = complex128 if any(_is_complex(v) for v in (input, exponent)) else float64
    a, b = [v.to(wide) if isinstance(v, Tensor) else v for v in (input, exponent)]
    return pow(a, b)


def float_power_(input: Tensor, exponent: Any) -> Tensor:
    """``float_power`` in place, for float64 and complex128."""
    wide = complex128 if any(_is_complex(v) for v in (input, exponent)) else float64
    if input.dtype is not wide:
        raise error(
            RuntimeError,
            f"the base given to float_power_ has dtype {SCALAR_NAMES[input.dtype]} but the operation's result requires "
            f"dtype {SCALAR_NAMES[wide]}",
        )
    return pow_(input, exponent)


Tensor.float_power_ = float_power_


def _is_complex(v: Any) -> bool:
    return v._a.dtype.kind == "c" if isinstance(v, Tensor) else isinstance(v, complex)


# ---- one operand ----------------------------------------------------------------------------------------------------
_neg = pointwise(
    "neg", -x, "x",
    refuse={BOOL: "Negation, the `-` operator, on a bool tensor is not supported. If you are trying to invert a mask, "
            "use the `~` or `logical_not()` operator instead."},
)  # fmt: skip
public_pointwise(_neg, names=("negative",), doc="``-input``.")
Tensor.__neg__ = _neg.call


@public
def positive(input: Tensor) -> Tensor:
    """``input`` itself; RuntimeError for truth values."""
    if is_bool(input):
        raise error(RuntimeError, "The `+` operator, on a bool tensor is not supported.")
    return input


Tensor.__pos__ = positive

_abs = pointwise("abs", E.abs(x), "x")


@primitive(
    "abs_complex", node="AbsBackward0", vjp={"z": lambda g, z: g * sgn(z)}, jvp=lambda z_t, z: (z_t * sgn(z).conj()).real, batch={}
)
def _abs_complex(z: Any, /) -> Any:
    return np.abs(z)


def abs(input: Tensor, *, out: Tensor | None = None) -> Tensor:  # noqa: A001
    """The absolute value; real for complex numbers. Its derivative at 0 is 0."""
    if isinstance(input, Tensor) and input._a.dtype.kind == "c":
        return give("abs", _abs_complex(input), out)
    if isinstance(input, Tensor) and input._a.dtype.kind == "b":
        raise error(NotImplementedError, "\"abs_cpu\" not implemented for 'Bool'")
    else:
        r = _abs.call(input)
    return r if out is None else give("abs", r, out)


both(abs, "abs", "absolute")
both(_abs.inplace, "abs_", "absolute_")
Tensor.__abs__ = abs

_flat = {"x": NO_GRADIENT}
_NO_SIGN = {COMPLEX: "Unlike NumPy, torch.sign is not intended to support complex numbers. Please use torch.sgn instead."}
_sign = pointwise("sign", E.sign(x), "x", grad=_flat, refuse=_NO_SIGN)


def sign(input: Tensor, *, out: Tensor | None = None) -> Tensor:
    """-1, 0 or 1; truth values stay as they are.

    >>> import flambeau as torch
    >>> torch.sign(torch.tensor([-0.5, 0., 3.]))
    tensor([-1.,  0.,  1.])
    """
    r = input.clone() if is_bool(input) and isinstance(input, Tensor) else _sign.call(input)
    return r if out is None else give("sign", r, out)


both(sign, "sign")
both(lambda input: input if is_bool(input) else _sign.inplace(input), "sign_")
_sgn = pointwise("sgn", E.sign(x), "x", grad=_flat)
for _name, _expr, _more in (("floor", E.floor(x), ()), ("ceil", E.ceil(x), ()), ("trunc", E.trunc(x), ("fix",))):
    _op = pointwise(_name, _expr, "x", grad=_flat, refuse=dict(NO_COMPLEX))

    def _round_function(input: Tensor, *, out: Tensor | None = None, _op: Pointwise = _op) -> Tensor:
        if is_bool(input):
            raise error(NotImplementedError, f"\"{_op.name}_vml_cpu\" not implemented for 'Bool'")
        r = input.clone() if is_integral(input) and isinstance(input, Tensor) else _op.call(input)
        return r if out is None else give(_op.name, r, out)

    def _round_inplace(input: Tensor, _op: Pointwise = _op) -> Tensor:
        return input if is_integral(input) else _op.inplace(input)

    _round_function.__name__ = _round_function.__qualname__ = _name
    _round_function.__doc__ = f"``{_name}`` of every element; integers stay as they are."
    both(_round_function, _name, *_more)
    both(_round_inplace, _name + "_", *(m + "_" for m in _more))

_round = pointwise("round", E.round(x), "x", grad=_flat, refuse=dict(NO_COMPLEX))


def round(input: Tensor, *, decimals: int = 0, out: Tensor | None = None) -> Tensor:  # noqa: A001
    """To the nearest integer, halves to even; to ``decimals`` places."""
    if is_bool(input):
        raise error(NotImplementedError, "\"round_vml_cpu\" not implemented for 'Bool'")
    if is_integral(input):
        r = input.clone()
    elif decimals == 0:
        r = _round.call(input)
    else:
        ten = 10.0 ** builtins_abs(decimals)
        r = div(round(mul(input, ten)), ten) if decimals > 0 else mul(round(div(input, ten)), ten)
    return r if out is None else give("round", r, out)


def round_(input: Tensor, *, decimals: int = 0) -> Tensor:
    """``round`` in place."""
    if is_integral(input):
        return input
    return _round.inplace(input) if decimals == 0 else become(input, round(input, decimals=decimals))


builtins_abs = operator.abs
mul = _mul.call
both(round, "round")
both(round_, "round_")

public_pointwise(
    pointwise("frac", x - E.trunc(x), "x", grad={"x": g}, refuse=only_floats("frac_cpu")),
    doc="What is behind the point: ``input - trunc(input)``.",
)
public_pointwise(
    pointwise("reciprocal", 1 / x, "x", promote="float", grad={"x": -g * out_ * out_}), doc="``1 / input``."
)


@public(inplace=True, out=True)
def sgn(input: Tensor) -> Tensor:
    """The sign; of complex numbers ``z / |z|``, and 0 for 0."""
    if input._a.dtype.kind != "c":
        return sign(input) if is_bool(input) else _sgn.call(input)
    size = abs(input)
    return input / where_zero(size)


def where_zero(size: Tensor) -> Tensor:
    """``size``, with 1 in place of 0."""
    return size + size.eq(0).to(size.dtype)


# ---- two operands ---------------------------------------------------------------------------------------------------
_maximum = pointwise("maximum", E.maximum(x, y), "x y", refuse=dict(NO_COMPLEX))
_minimum = pointwise("minimum", E.minimum(x, y), "x y", refuse=dict(NO_COMPLEX))
maximum_of, minimum_of = _maximum.call, _minimum.call
for _op, _word in ((_maximum, "larger"), (_minimum, "smaller")):
    public_pointwise(_op, inplace=False, doc=f"The {_word} of two; nan if either is. Ties share the gradient.")
_first_max, _first_min = E.logical_or(x >= y, E.isnan(y)), E.logical_or(x <= y, E.isnan(y))
for _name, _pick in (("fmax", _first_max), ("fmin", _first_min)):
    public_pointwise(
        pointwise(
            _name, E.where(_pick, x, y), "x y", refuse=dict(NO_COMPLEX),
            grad={"x": E.where(_pick, g, 0), "y": E.where(_pick, 0, g)},
        ),  # fmt: skip
        inplace=False, doc="Of two numbers the one wanted; of a number and nan, the number.",
    )  # fmt: skip
public_pointwise(
    pointwise("hypot", E.hypot(x, y), "x y", refuse=only_floats("hypot_cpu")),
    doc="``sqrt(input² + other²)``, without overflow.",
)
_atan2 = pointwise("atan2", E.atan2(x, y), "x y", promote="float", refuse=without("atan2_cpu", COMPLEX))
public_pointwise(_atan2, names=("arctan2",), doc="The angle of the point (other, input).")
copysign = with_number(
    "copysign",
    pointwise("copysign", E.copysign(x, y), "x y", promote="float", refuse=without("copysign_cpu", COMPLEX)),
    pointwise("copysign_number", E.copysign(x, y), "x y", promote="float", node="CopysignBackward1", refuse=without("copysign_cpu", COMPLEX)),
    "The magnitude of ``input`` with the sign of ``other``.",
)
public_pointwise(
    pointwise(
        "logaddexp", E.where(E.eq(x, y), x + LN2, E.where(x >= y, x + E.log1p(E.exp(y - x)), y + E.log1p(E.exp(x - y)))), "x y",
        grad={"x": g * E.exp(x - out_), "y": g * E.exp(y - out_)}, refuse=without("logaddexp_cpu", BOOL, INT),
    ),  # fmt: skip
    inplace=False, doc="``log(exp(input) + exp(other))``, without overflow.",
)  # fmt: skip
_S = 1.4426950408889634
public_pointwise(
    pointwise(
        "logaddexp2", E.where(E.eq(x, y), x + 1, E.maximum(x, y) + _S * E.log1p(E.exp2(-E.abs(x - y)))), "x y",
        grad={"x": g * E.exp2(x - out_), "y": g * E.exp2(y - out_)}, refuse=only_floats("logaddexp2_cpu"),
    ),  # fmt: skip
    inplace=False, doc="``log2(2**input + 2**other)``, without overflow.",
)  # fmt: skip
public_pointwise(
    pointwise("heaviside", E.where(E.eq(x, 0), y, E.where(x > 0, 1, 0)), "x y", differentiable=False,
              refuse={COMPLEX: "heaviside is not yet implemented for complex tensors."}),
    doc="0 below zero, 1 above it, ``values`` at it.",
)


def by_numpy(name: str, ufunc: Any) -> Primitive:
    """A function of two operands that broadcast, without a derivative."""

    @primitive(name, batch=lambda b, x, y: op(*b.aligned(x=x, y=y)))
    def op(x: Any, y: Any, /) -> Any:
        return ufunc(x, y)

    return op


for _name, _ufunc in (("gcd", np.gcd), ("lcm", np.lcm)):

    def _integers(
        input: Tensor, other: Tensor, *, out: Tensor | None = None, _op: Primitive = by_numpy(_name, _ufunc), _n: str = _name
    ) -> Tensor:
        """Of integers, element by element."""
        for t in (input, other):
            if not is_integral(t) or is_bool(t):
                raise error(NotImplementedError, f"\"{_n}_cpu\" not implemented for '{SCALAR_NAMES[t.dtype]}'")
        return give(_n, _op(input, other), out)

    _integers.__name__ = _integers.__qualname__ = _name
    both(_integers, _name)
    setattr(Tensor, _name + "_", lambda self, other, _f=_integers: become(self, _f(self, other)))


@public(inplace=True, out=True)
def nextafter(input: Tensor, other: Tensor) -> Tensor:
    """The next floating number from ``input`` towards ``other``."""
    if input.dtype.category != FLOAT:
        raise error(NotImplementedError, f"\"nextafter\" not implemented for '{SCALAR_NAMES[input.dtype]}'")
    return _nextafter(input, other)


_nextafter = by_numpy("nextafter", np.nextafter)


@public(inplace=True, out=True)
def ldexp(input: Tensor, other: Tensor) -> Tensor:
    """``input * 2 ** other``."""
    return mul(input, pow(2.0, other))


# ---- three and more operands ----------------------------------------------------------------------------------------
_addcmul = pointwise("addcmul", x + c * y * z, "x y z c", refuse=without("addcmul_cpu_out", BOOL))
_addcdiv = pointwise("addcdiv", x + c * (y / z), "x y z c")


def _check_addc(name: str, value: Any, xs: tuple[Any, ...]) -> Any:
    """The number, for integers as one of them."""
    for i, t in enumerate(xs):
        if not isinstance(t, Tensor):
            which = ("input", "tensor1", "tensor2")[i]
            raise error(TypeError, f"{name}(): argument '{which}' (position {i + 1}) must be Tensor, not {type(t).__name__}")
    if name == "addcdiv" and is_integral(xs[1]) and is_integral(xs[2]):
        raise error(
            RuntimeError,
            "Integer division with addcdiv is no longer supported, and in a future  release addcdiv will perform a true "
            "division of tensor1 and tensor2. The historic addcdiv behavior can be implemented as (input + value * "
            "torch.trunc(tensor1 / tensor2)).to(input.dtype) for integer inputs and as (input + value * tensor1 / tensor2) "
            "for float inputs. The future addcdiv behavior is just the latter implementation: (input + value * tensor1 / "
            "tensor2), for all dtypes.",
        )
    return int(value) if isinstance(value, float) and all(map(is_integral, xs)) else value


for _name, _op in (("addcmul", _addcmul), ("addcdiv", _addcdiv)):

    def _addc(
        input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: Any = 1, out: Tensor | None = None,
        _op: Pointwise = _op,
    ) -> Tensor:  # fmt: skip
        value = _check_addc(_op.name, value, (input, tensor1, tensor2))
        return give(_op.name, _op.call(input, tensor1, tensor2, value), out)

    def _addc_(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: Any = 1, _op: Pointwise = _op) -> Tensor:
        value = _check_addc(_op.name, value, (input, tensor1, tensor2))
        return _op.inplace(input, tensor1, tensor2, value)

    _addc.__name__ = _addc.__qualname__ = _name
    _addc_.__name__ = _addc_.__qualname__ = _name + "_"
    _addc.__doc__ = f"``input + value * tensor1 {'*' if _name == 'addcmul' else '/'} tensor2``."
    _addc_.__doc__ = _addc.__doc__
    both(_addc, _name)
    both(_addc_, _name + "_", method=True)


def _lerp_expr(w: Any) -> Any:
    # from the nearer end, so that weight 1 gives `end` exactly
    return E.where(E.abs(w) < 0.5, x + w * (y - x), y - (y - x) * (1 - w))


_lerp_number = pointwise(
    "lerp_number", _lerp_expr(z), "x y z", node="LerpBackward0", grad={"x": g * (1 - z), "y": g * z},
    refuse=without("lerp_kernel_scalar", BOOL, INT),
)
_lerp = pointwise(
    "lerp", _lerp_expr(z), "x y z", node="LerpBackward1", grad={"x": g * (1 - z), "y": g * z, "z": g * (y - x)},
    refuse=without("lerp_kernel_tensor", BOOL, INT),
)


def _lerp_op(input: Tensor, end: Tensor, weight: Any) -> Pointwise:
    for name, t in (("end", end), ("weight", weight)):
        if isinstance(t, Tensor) and t.dtype is not input.dtype:
            raise error(RuntimeError, f"expected dtype {C_NAMES[input.dtype]} for `{name}` but got dtype {C_NAMES[t.dtype]}")
    return _lerp if isinstance(weight, Tensor) else _lerp_number


def lerp(input: Tensor, end: Tensor, weight: Any, *, out: Tensor | None = None) -> Tensor:
    """``input + weight * (end - input)``.

    >>> import flambeau as torch
    >>> torch.lerp(torch.tensor([0., 10.]), torch.tensor([10., 20.]), 0.5)
    tensor([ 5., 15.])
    """
    return give("lerp", _lerp_op(input, end, weight).call(input, end, weight), out)


def lerp_(input: Tensor, end: Tensor, weight: Any) -> Tensor:
    """``lerp`` in place."""
    return _lerp_op(input, end, weight).inplace(input, end, weight)


both(lerp, "lerp")
both(lerp_, "lerp_")

# Clamping passes the gradient on at both ends.
_low, _high = E.clamp(x, y), E.clamp(x, None, y)
_NO_CLAMP = {COMPLEX: "clamp is not supported for complex types"}
_CLAMP: dict[Any, Pointwise] = {}
for _node, _kind in (("ClampBackward1", "number"), ("ClampBackward0", "tensor")):
    _CLAMP[_kind, True, False] = pointwise(f"clamp_low_{_kind}", _low, "x y", node=_node, refuse=_NO_CLAMP)
    _CLAMP[_kind, False, True] = pointwise(f"clamp_high_{_kind}", _high, "x y", node=_node, refuse=_NO_CLAMP)
    _CLAMP[_kind, True, True] = pointwise(f"clamp_{_kind}", E.clamp(x, y, z), "x y z", node=_node, refuse=_NO_CLAMP)


def _clamp_op(input: Tensor, min: Any, max: Any) -> tuple[Pointwise, tuple[Any, ...]]:
    if min is None and max is None:
        raise error(RuntimeError, "torch.clamp: At least one of 'min' or 'max' must not be None")
    kind = "tensor" if isinstance(min, Tensor) or isinstance(max, Tensor) else "number"
    ends = tuple([v for v in (min, max) if v is not None])
    return _CLAMP[kind, min is not None, max is not None], (input, *ends)


def clamp(input: Tensor, min: Any = None, max: Any = None, *, out: Tensor | None = None) -> Tensor:
    """``min(max(input, min), max)``; either end may be left out, and be a number or a tensor.

    >>> import flambeau as torch
    >>> torch.clamp(torch.tensor([-2., 0.5, 2.]), -1, 1)
    tensor([-1.0000,  0.5000,  1.0000])
    """
    op, xs = _clamp_op(input, min, max)
    r = op.call(*xs)
    return r if out is None else give("clamp", r, out)


def clamp_(input: Tensor, min: Any = None, max: Any = None) -> Tensor:
    """``clamp`` in place."""
    op, xs = _clamp_op(input, min, max)
    return op.inplace(*xs)


both(clamp, "clamp", "clip")
both(clamp_, "clamp_", "clip_")
clamp_min = pointwise("clamp_min", _low, "x y", refuse=_NO_CLAMP)
clamp_max = pointwise("clamp_max", _high, "x y", refuse=_NO_CLAMP)


def _one_sided(name: str, op: Pointwise, end: str) -> None:
    def fn(input: Tensor, *args: Any, out: Tensor | None = None, **kwargs: Any) -> Tensor:
        (bound,) = (*args, *kwargs.values())
        return give(name, op.call(input, bound), out)

    def fn_(input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        (bound,) = (*args, *kwargs.values())
        return op.inplace(input, bound)

    fn.__name__ = fn.__qualname__ = name
    fn_.__name__ = fn_.__qualname__ = name + "_"
    fn.__doc__ = fn_.__doc__ = f"``{name[6:]}imum(input, {end})``."
    both(fn, name)
    both(fn_, name + "_")


_one_sided("clamp_min", clamp_min, "min")
_one_sided("clamp_max", clamp_max, "max")

_xlogy_grad = {"x": g * E.where(E.logical_and(E.eq(x, 0), y <= 0), 0, E.log(y)), "y": g * x / y}
xlogy = with_number(
    "xlogy",
    pointwise("xlogy", E.xlogy(x, y), "x y", promote="float", grad=_xlogy_grad, refuse=without("xlogy_cpu", COMPLEX)),
    pointwise("xlogy_number", E.xlogy(x, y), "x y", promote="float", node="XlogyBackward2", grad=_xlogy_grad, refuse=without("xlogy_cpu", COMPLEX)),
    "``input * log(other)``, and 0 where ``input`` is 0 and ``other`` isn't nan.",
)
publish("xlogy", xlogy, "special")
_xlog1py = E.where(E.isnan(y), float("nan"), E.where(E.eq(x, 0), 0, x * E.log1p(y)))
public_pointwise(
    pointwise(
        "xlog1py", _xlog1py, "x y", promote="float", node="SpecialXlog1PyBackward0",
        grad={"x": g * E.where(E.logical_and(E.eq(x, 0), y <= -1), 0, E.log1p(y)), "y": g * x / (y + 1)},
        refuse=without("xlog1py_cpu", COMPLEX),
    ),  # fmt: skip
    module="special", method=False, inplace=False, doc="``input * log1p(other)``, and 0 where ``input`` is 0.",
)  # fmt: skip


@public(inplace=True, out=True)
def nan_to_num(input: Tensor, nan: float | None = None, posinf: float | None = None, neginf: float | None = None) -> Tensor:
    """nan replaced by ``nan`` (0), infinities by ``posinf`` and ``neginf`` (the dtype's largest and smallest)."""
    if is_integral(input):
        return input.clone()
    info = np.finfo(np.float64 if input._a.dtype.itemsize == 8 else np.float32)
    if input._a.dtype.itemsize == 2:
        import ml_dtypes

        info = ml_dtypes.finfo(input._a.dtype)
    low = float(info.min) if neginf is None else neginf
    high = float(info.max) if posinf is None else posinf
    return _nan_to_num.call(input, 0.0 if nan is None else nan, high, low)


_a, _b, _c = E.var("a"), E.var("b"), E.var("c0")
_nan_to_num = pointwise(
    "nan_to_num",
    E.where(E.isnan(x), _a, E.where(E.isinf(x), E.where(x > 0, _b, _c), x)), "x a b c0",
    grad={"x": E.where(E.isfinite(x), g, 0)},
)  # fmt: skip
