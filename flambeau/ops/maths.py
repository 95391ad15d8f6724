"""Functions of one variable: exponentials, circular and hyperbolic functions, and the special ones.

Integers give the default floating dtype. Derivatives follow from the expression, or, for functions that only SciPy
knows, from the rule in their line.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np

from ..autograd.pointwise import Pointwise, pointwise
from ..autograd.primitive import primitive
from ..core.dtypes import COMPLEX, FLOAT, SCALAR_NAMES, get_default_dtype, int32
from ..core.errors import error
from ..core.tensor import Tensor, wrap
from ..kernels import expr as E
from . import return_types
from .arithmetic import NO_GRADIENT, both, give
from .public import inplace_form, public, public_pointwise, publish
from .takes import takes

x, g, out = E.var("x"), E.var("g"), E.var("out")
_NO_COMPLEX = {COMPLEX: "\"{name}_cpu\" not implemented for '{dtype}'"}

# name, expression, further names, node ("" for CamelCase), derivative where a better one is known, complex numbers
_TABLE: tuple[tuple[str, Any, tuple[str, ...], str, Any, bool], ...] = (
    ("exp", E.exp(x), (), "", None, True),
    ("exp2", E.exp2(x), (), "", None, True),
    ("expm1", E.expm1(x), (), "", None, True),
    ("log", E.log(x), (), "", None, True),
    ("log2", E.log2(x), (), "", None, True),
    ("log10", E.log10(x), (), "", None, True),
    ("log1p", E.log1p(x), (), "", None, True),
    ("sqrt", E.sqrt(x), (), "", None, True),
    ("rsqrt", E.rsqrt(x), (), "", None, True),
    ("sin", E.sin(x), (), "", None, True),
    ("cos", E.cos(x), (), "", None, True),
    ("tan", E.tan(x), (), "", None, True),
    ("asin", E.asin(x), ("arcsin",), "", None, True),
    ("acos", E.acos(x), ("arccos",), "", None, True),
    ("atan", E.atan(x), ("arctan",), "", None, True),
    ("sinh", E.sinh(x), (), "", None, True),
    ("cosh", E.cosh(x), (), "", None, True),
    ("tanh", E.tanh(x), (), "", g * (1 - out * out), True),
    ("asinh", E.asinh(x), ("arcsinh",), "", None, True),
    ("acosh", E.acosh(x), ("arccosh",), "", None, True),
    ("atanh", E.atanh(x), ("arctanh",), "", None, True),
    ("sigmoid", E.sigmoid(x), (), "", g * ((1 - out) * out), True),
    ("erf", E.erf(x), (), "", None, False),
    ("erfc", E.erfc(x), (), "", None, False),
    ("erfinv", E.erfinv(x), (), "", None, False),
    ("lgamma", E.lgamma(x), (), "", None, False),
    ("digamma", E.digamma(x), (), "", None, False),
    ("deg2rad", x * (math.pi / 180), (), "Deg2RadBackward0", None, False),
    ("rad2deg", x * (180 / math.pi), (), "Rad2DegBackward0", None, False),
)  # fmt: skip

_NODES = {"log1p": "Log1PBackward0"}
for _name, _expr, _more, _node, _grad, _complex in _TABLE:
    _op = pointwise(
        _name, _expr, "x", promote="float", node=_node or _NODES.get(_name), grad={} if _grad is None else {"x": _grad},
        refuse={} if _complex else dict(_NO_COMPLEX),
    )  # fmt: skip
    public_pointwise(_op, names=_more, doc=f"``{_expr}``, element by element; integers give floats.")

# sinc and its derivative need another form near 0, of every order: a table of Taylor coefficients
_t = x * math.pi
_sinc_far = E.sin(_t) / _t
_sinc_near = 1 - _t * _t / 6 + (_t * _t) * (_t * _t) / 120
public_pointwise(
    pointwise(
        "sinc", E.where(E.eq(x, 0), 1, _sinc_far), "x", promote="float",
        grad={"x": g * E.where(E.abs(x) < 1e-3, (-_t / 3 + _t * _t * _t / 30) * math.pi,
                               (E.cos(_t) * _t - E.sin(_t)) / (_t * x))},
    ),
    doc="``sin(pi x) / (pi x)``, and 1 at 0.",
)  # fmt: skip

_angle = pointwise("angle", E.where(E.isnan(x), x, E.where(x < 0, math.pi, 0)), "x", promote="float", grad={"x": NO_GRADIENT})


@primitive(
    "angle_complex", node="AngleBackward0", vjp={"z": lambda g, z: z * 1j * (g / _square_of(z))},
    jvp=lambda z_t, z: (z_t * z.conj()).imag / _square_of(z), batch={},
)  # fmt: skip
def _angle_complex(z: Any, /) -> Any:
    return np.angle(z).astype(np.float32 if z.dtype == np.complex64 else np.float64)


def _square_of(z: Tensor) -> Tensor:
    """|z|², infinite in place of 0."""
    size = z.abs()
    return (size * size).masked_fill(size.eq(0), math.inf)


@public(out=True)
def angle(input: Tensor) -> Tensor:
    """The argument of complex numbers; 0 or pi for real ones."""
    return _angle_complex(input) if input._a.dtype.kind == "c" else _angle.call(input)


def _logit_op(eps: float | None) -> Pointwise:
    op = _LOGIT.get(eps)
    if op is None:
        if eps is None:
            expr, grad = E.log(x / (1 - x)), g / (x * (1 - x))
            grad = E.where(E.logical_or(x < 0, x > 1), math.nan, grad)
        else:
            z = E.clamp(x, eps, 1 - eps)
            expr = E.log(z / (1 - z))
            grad = E.where(E.logical_or(x < eps, x > 1 - eps), 0, g / (x * (1 - x)))
        op = _LOGIT[eps] = pointwise("logit", expr, "x", promote="float", grad={"x": grad}, refuse=dict(_NO_COMPLEX))
    return op


_LOGIT: dict[float | None, Pointwise] = {}


def logit(input: Tensor, eps: float | None = None, *, out: Tensor | None = None) -> Tensor:
    """``log(p / (1 - p))``, the inverse of sigmoid; with ``eps``, of p clamped to [eps, 1 - eps]."""
    return give("logit", _logit_op(eps).call(input), out)


def logit_(input: Tensor, eps: float | None = None) -> Tensor:
    """``logit`` in place."""
    return _logit_op(eps).inplace(input)


both(logit, "logit")
both(logit_, "logit_")


def _polygamma_op(n: int) -> Pointwise:
    if n < 0:
        raise error(RuntimeError, "polygamma(n, x) does not support negative n.")
    op = _POLYGAMMA.get(n)
    if op is None:
        expr = E.digamma(x) if n == 0 else E.polygamma(n, x)
        op = pointwise(f"polygamma_{n}", expr, "x", promote="float", node="PolygammaBackward0", refuse=dict(_NO_COMPLEX))
        _POLYGAMMA[n] = op
    return op


_POLYGAMMA: dict[int, Pointwise] = {}


def polygamma(n: int, input: Tensor, *, out: Tensor | None = None) -> Tensor:
    """The n-th derivative of digamma."""
    return give("polygamma", _polygamma_op(n).call(input), out)


publish("polygamma", polygamma)
Tensor.polygamma = lambda self, n: polygamma(n, self)
Tensor.polygamma_ = lambda self, n: _polygamma_op(n).inplace(self)


@public(inplace=True, out=True)
def mvlgamma(input: Tensor, p: int) -> Tensor:
    """The logarithm of the multivariate gamma function of dimension p."""
    if input.dtype.category >= FLOAT and (input._everything() <= (p - 1) / 2).any():
        raise error(RuntimeError, "All elements must be greater than (p-1)/2")
    total = sum(((input - j / 2).lgamma() for j in range(1, p)), input.lgamma())
    return total + p * (p - 1) / 4 * math.log(math.pi)


# ---- functions that SciPy knows -------------------------------------------------------------------------------------
def scipy_kernel(name: str) -> Callable[..., np.ndarray]:
    """A function of scipy.special on arrays of one floating dtype; half precision by way of float32."""

    def kernel(*arrays: Any) -> np.ndarray:
        import scipy.special

        dtype = arrays[0].dtype
        wide = [a.astype(np.float32) if dtype.itemsize == 2 else a for a in arrays]
        with np.errstate(all="ignore"):
            return np.asarray(getattr(scipy.special, name)(*wide)).astype(dtype)

    return kernel


def _zero_at(t: Tensor, mask: np.ndarray) -> Tensor:
    return t.masked_fill(wrap(mask), 0)


_HALF_SQRT_PI, _SQRT_TWO_PI = math.sqrt(math.pi) / 2, math.sqrt(2 * math.pi)


def _i1_over_x(v: Tensor) -> Tensor:
    """I1(x) / x, which is 1/2 at 0."""
    safe = v.masked_fill(wrap(v._a == 0), 1.0)
    return (i1(safe) / safe).masked_fill(wrap(v._a == 0), 0.5)


def _i1e_rule(g: Tensor, v: Tensor, out: Tensor) -> Tensor:
    safe = v.masked_fill(wrap(v._a == 0), 1.0)
    slope = i0e(safe) - i1e(safe) * (safe.sgn() + 1 / safe)
    return g * slope.masked_fill(wrap(v._a == 0), 0.5)


def _log_ndtr_rule(g: Tensor, v: Tensor) -> Tensor:
    near = v < 1.0
    left = 1 / erfcx(-v / math.sqrt(2)) * (math.sqrt(2) / math.sqrt(math.pi))
    right = (-v * v / 2).exp() / ndtr(v) / _SQRT_TWO_PI
    return g * (left.masked_fill(~near, 0) + right.masked_fill(near, 0))


# name, SciPy's name, node, derivative (None: none, as in PyTorch), modules
_SCIPY: tuple[tuple[str, str, str, Any, tuple[str, ...]], ...] = (
    ("i0", "i0", "I0Backward0", lambda g, v: g * i1(v), ("", "special")),
    ("i0e", "i0e", "SpecialI0EBackward0", lambda g, v, out: g * (i1e(v) - v.sgn() * out), ("special",)),
    ("i1", "i1", "SpecialI1Backward0", lambda g, v, out: g * (i0(v) - _i1_over_x(v)), ("special",)),
    ("i1e", "i1e", "SpecialI1EBackward0", _i1e_rule, ("special",)),
    ("ndtri", "ndtri", "SpecialNdtriBackward0", lambda g, out: g * _SQRT_TWO_PI * (out * out / 2).exp(), ("special",)),
    ("log_ndtr", "log_ndtr", "SpecialLogNdtrBackward0", _log_ndtr_rule, ("special",)),
    ("erfcx", "erfcx", "SpecialErfcxBackward0", lambda g, v, out: g * (2 * v * out - 1 / _HALF_SQRT_PI), ("special",)),
    ("bessel_j0", "j0", "", None, ("special",)),
    ("bessel_j1", "j1", "", None, ("special",)),
    ("bessel_y0", "y0", "", None, ("special",)),
    ("bessel_y1", "y1", "", None, ("special",)),
    ("modified_bessel_i0", "i0", "", None, ("special",)),
    ("modified_bessel_i1", "i1", "", None, ("special",)),
    ("modified_bessel_k0", "k0", "", None, ("special",)),
    ("modified_bessel_k1", "k1", "", None, ("special",)),
    ("scaled_modified_bessel_k0", "k0e", "", None, ("special",)),
    ("scaled_modified_bessel_k1", "k1e", "", None, ("special",)),
)


def floating(t: Tensor, name: str = "") -> Tensor:
    """Integers as the default floating dtype."""
    if not isinstance(t, Tensor):
        raise error(TypeError, f"{name}(): argument 'input' (position 1) must be Tensor, not {type(t).__name__}")
    if t.dtype.category == COMPLEX:
        raise error(NotImplementedError, f"\"{name}_cpu\" not implemented for '{SCALAR_NAMES[t.dtype]}'")
    return t if t.dtype.category == FLOAT else t.to(get_default_dtype())


def as_tangent(rule: Any, arg: str) -> Any:
    """The rule for ``J t`` where ``g`` times a slope, which ``rule`` computes, is the derivative by ``arg``."""

    def tangent(*values: Any) -> Any:
        return rule(*values)

    tangent.__signature__ = inspect.Signature([  # type: ignore[attr-defined]
        inspect.Parameter(arg + "_t" if n == "g" else n, inspect.Parameter.POSITIONAL_ONLY) for n in inspect.signature(rule).parameters
    ])  # fmt: skip
    return tangent


def _scipy_function(name: str, theirs: str, node: str, rule: Any, modules: tuple[str, ...]) -> Any:
    kernel = scipy_kernel(theirs)

    @primitive(
        f"special_{name}", node=node or "NotImplemented", vjp={"v": rule} if rule else None, jvp=as_tangent(rule, "v") if rule else None, batch={}
    )
    def op(v: Any, /) -> Any:
        return kernel(v)

    def fn(input: Tensor, *, out: Tensor | None = None) -> Tensor:
        t = floating(input, name)
        if name not in _HALF:
            takes(name + "_cpu", t, "f")
        return give(name, op(t), out)

    fn.__name__ = fn.__qualname__ = name
    fn.__doc__ = f"The special function ``{name}``, element by element" + ("." if rule else "; it has no derivative here.")
    for m in modules:
        publish(name, fn, m)
    return fn


_HALF = ("i0", "i0e", "i1", "i1e")  # PyTorch has them in half precision
for _row in _SCIPY:
    globals()[_row[0]] = _scipy_function(*_row)
i0, i0e, i1, i1e, erfcx = (globals()[n] for n in ("i0", "i0e", "i1", "i1e", "erfcx"))
Tensor.i0 = i0
Tensor.i0_ = inplace_form(i0, "i0_")

_ndtr = pointwise("ndtr", 0.5 * E.erfc(x * -math.sqrt(0.5)), "x", promote="float", node="SpecialNdtrBackward0",
                  grad={"x": g * E.exp(-0.5 * x * x) * (1 / _SQRT_TWO_PI)}, refuse=dict(_NO_COMPLEX))  # fmt: skip
ndtr = public_pointwise(_ndtr, module="special", method=False, inplace=False, doc="The normal distribution function.")
_entr = pointwise(
    "entr", E.where(E.isnan(x), x, E.where(x > 0, -x * E.log(x), E.where(E.eq(x, 0), 0, -math.inf))), "x", promote="float",
    node="SpecialEntrBackward0", grad={"x": g * (-E.log(x) - 1)}, refuse=dict(_NO_COMPLEX),
)  # fmt: skip
public_pointwise(_entr, module="special", method=False, inplace=False, doc="``-x log(x)``, 0 at 0, -inf below.")


def _pair(a: Any, b: Any, name: str) -> tuple[Tensor, Tensor]:
    """Two operands as floating tensors of one shape and dtype."""
    like = a if isinstance(a, Tensor) else b
    a, b = [floating(t, name) if isinstance(t, Tensor) else wrap(np.asarray(t, floating(like)._a.dtype)) for t in (a, b)]
    if a.dtype is not b.dtype:
        from ..core.dtypes import promote_types

        d = promote_types(a.dtype, b.dtype)
        a, b = a.to(d), b.to(d)
    return a, b


def _two_argument(name: str, theirs: str, node: str, unknown: str, slope: Any, names: tuple[str, ...] = (), published: tuple[str, ...] = ("special",)) -> Any:
    kernel = scipy_kernel(theirs)
    kernel_name = {"gammainc": "igamma_cpu", "gammaincc": "igammac_cpu"}.get(name, name)

    def refuse(x: Any) -> Any:
        raise error(
            NotImplementedError, f"the derivative for '{unknown}' is not implemented.", hint="It is differentiable by the second operand only."
        )

    @primitive(
        f"special_{name}", node=node, vjp={"x": refuse, "y": lambda g, x, y, y_shape: _to(g * slope(x, y), y_shape)},
        jvp=lambda x_t, x, y_t, y: y_t * slope(x, y) if x_t is None else refuse(x), batch=lambda b, x, y: op(*b.aligned(x=x, y=y)),
    )  # fmt: skip
    def op(x: Any, y: Any, /) -> Any:
        return kernel(x, y)

    def fn(input: Any, other: Any, *, out: Tensor | None = None) -> Tensor:
        if name == "zeta":
            takes("zeta_cpu", floating(input if isinstance(input, Tensor) else other, name), "f")
        else:
            for t in (input, other):
                if isinstance(t, Tensor):
                    takes(kernel_name, t, "hf")
        a, b = _pair(input, other, name)
        return give(name, op(a, b), out)

    fn.__name__ = fn.__qualname__ = name
    fn.__doc__ = f"The special function ``{name}`` of two variables; differentiable by the second one."
    for m in published:
        for n in (name, *names):
            publish(n, fn, m)
    return fn


def _to(t: Tensor, shape: tuple[int, ...]) -> Tensor:
    return t if t._a.shape == shape else t.sum_to_size(shape)


def _gamma_density(a: Tensor, b: Tensor) -> Tensor:
    return ((a - 1) * b.log() - b - a.lgamma()).exp()


gammainc = _two_argument(
    "gammainc", "gammainc", "IgammaBackward0", "igamma: input", lambda a, b: _gamma_density(a, b)
)
gammaincc = _two_argument(
    "gammaincc", "gammaincc", "IgammacBackward0", "igammac: input", lambda a, b: -_gamma_density(a, b)
)
zeta = _two_argument(
    "zeta", "zeta", "SpecialZetaBackward0", "zeta", lambda a, b: -a * zeta(a + 1, b)
)
for _name, _fn in (("igamma", gammainc), ("igammac", gammaincc)):
    both(_fn, _name)
    setattr(Tensor, _name + "_", inplace_form(_fn, _name + "_"))


@public(out=True)
def frexp(input: Tensor) -> Any:
    """Mantissas in [0.5, 1) and exponents: ``input = mantissa * 2 ** exponent``."""
    if input.dtype.category != FLOAT:
        raise error(RuntimeError, "torch.frexp() only supports floating-point dtypes")
    return return_types.frexp(_frexp(input))


@primitive(
    "frexp", vjp={"x": lambda g, out: _scaled_down(g[0], out[1])}, jvp=lambda x_t, out: (_scaled_down(x_t, out[1]), None), batch={}
)
def _frexp(x: Any, /) -> Any:
    wide = x.astype(np.float32) if x.dtype == ml_dtypes.bfloat16 else x
    mantissa, exponent = np.frexp(wide)
    return np.asarray(mantissa).astype(x.dtype), np.asarray(exponent).astype(int32.np)


def _scaled_down(t: Tensor, exponent: Tensor) -> Tensor:
    return t / exponent.detach().to(t.dtype).exp2()  # type: ignore[attr-defined]


# torch.special's names for what is above, and for what others publish
from .public import FUNCTIONS  # noqa: E402

for _name, _theirs in (
    ("erf", "erf"), ("erfc", "erfc"), ("erfinv", "erfinv"), ("exp2", "exp2"), ("expit", "sigmoid"), ("expm1", "expm1"),
    ("gammaln", "lgamma"), ("psi", "digamma"), ("digamma", "digamma"), ("log1p", "log1p"), ("logit", "logit"),
    ("polygamma", "polygamma"), ("multigammaln", "mvlgamma"), ("sinc", "sinc"), ("round", "round"),
):  # fmt: skip
    publish(_name, FUNCTIONS[""][_theirs], "special")
