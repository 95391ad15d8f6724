"""Comparisons, logic and bits: results without gradients."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..autograd.pointwise import BOOL, COMPLEX, FLOAT, pointwise
from ..autograd.primitive import primitive
from ..core.dtypes import SCALAR_NAMES, result_type
from ..core.errors import error
from ..core.tensor import Tensor, wrap
from ..kernels import expr as E
from .arithmetic import attach, both
from .public import public, public_pointwise, publish

x, y = E.var("x"), E.var("y")
_ORDER = "\"{name}_cpu\" not implemented for '{dtype}'"

for _name, _fn, _more in (
    ("eq", E.eq, ()),
    ("ne", E.ne, ("not_equal",)),
    ("lt", E.lt, ("less",)),
    ("le", E.le, ("less_equal",)),
    ("gt", E.gt, ("greater",)),
    ("ge", E.ge, ("greater_equal",)),
):
    _op = pointwise(_name, _fn(x, y), "x y", refuse={} if _name in ("eq", "ne") else {COMPLEX: _ORDER})
    public_pointwise(_op, names=_more, doc=f"``input {E._INFIX[_name]} other``, element by element: a bool tensor.")
    setattr(Tensor, f"__{_name}__", _op.operator())

for _name, _fn in (("logical_and", E.logical_and), ("logical_or", E.logical_or), ("logical_xor", E.logical_xor)):
    public_pointwise(pointwise(_name, _fn(x, y), "x y"), doc=f"``{_name[8:]}`` of truth values; numbers are true unless 0.")
public_pointwise(pointwise("logical_not", E.logical_not(x), "x"), doc="True where ``input`` is 0 or False.")

_NO_FLOAT = {FLOAT: "\"{name}_cpu\" not implemented for '{dtype}'", COMPLEX: "\"{name}_cpu\" not implemented for '{dtype}'"}
for _name, _fn, _operator in (
    ("bitwise_and", E.bitand, "and"),
    ("bitwise_or", E.bitor, "or"),
    ("bitwise_xor", E.bitxor, "xor"),
):
    _op = pointwise(_name, _fn(x, y), "x y", refuse=_NO_FLOAT, differentiable=False)
    public_pointwise(_op, doc=f"Bitwise {_operator} of integers; logical {_operator} of truth values.")
    attach(_op, _operator)
_not = pointwise("bitwise_not", E.bitnot(x), "x", refuse=_NO_FLOAT, differentiable=False)
public_pointwise(_not, doc="Every bit turned; ``not`` of truth values.")


def invert(self: Tensor) -> Tensor:
    """``~x``: the bits, or the truth value, turned over."""
    if self._a.dtype.kind not in "biu":
        raise error(TypeError, "~ (operator.invert) is only implemented on integer and Boolean-type tensors")
    return _not.call(self)


Tensor.__invert__ = invert

for _name, _fn, _operator in (
    ("bitwise_left_shift", E.lshift, "lshift"),
    ("bitwise_right_shift", E.rshift, "rshift"),
):
    _no_shift = dict.fromkeys((BOOL, FLOAT, COMPLEX), f"\"{_operator}_cpu\" not implemented for '{{dtype}}'")
    _op = pointwise(_name, _fn(x, y), "x y", refuse=_no_shift, differentiable=False)
    public_pointwise(_op, doc=f"Bits moved {_name[8:-6]} by ``other`` places.")
    _reflected = pointwise("r" + _name, _fn(y, x), "x y", refuse=_no_shift, differentiable=False)
    attach(_op, _operator, reflected=_reflected.operator())

for _name, _fn, _doc in (
    ("isnan", E.isnan, "True where ``input`` is nan."),
    ("isinf", E.isinf, "True where ``input`` is infinite."),
    ("isfinite", E.isfinite, "True where ``input`` is neither nan nor infinite."),
    ("signbit", E.signbit, "True where the sign bit is set, -0.0 included."),
):
    _refuse = {COMPLEX: "signbit is not implemented for complex tensors."} if _name == "signbit" else None
    public_pointwise(pointwise(_name, _fn(x), "x", refuse=_refuse), inplace=False, doc=_doc)
for _name, _limit in (("isposinf", float("inf")), ("isneginf", -float("inf"))):
    public_pointwise(
        pointwise(_name, E.eq(x, _limit), "x", refuse={COMPLEX: "{name} does not support complex inputs."}),
        inplace=False, doc=f"True where ``input`` is {_limit}.",
    )  # fmt: skip


@public
def isreal(input: Tensor) -> Tensor:
    """True where the imaginary part is 0."""
    return _isreal(input)


@primitive("isreal", batch={})
def _isreal(x: Any, /) -> Any:
    return np.isreal(x) if x.dtype.kind == "c" else np.ones(x.shape, bool)


@public
def isclose(input: Tensor, other: Tensor, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False) -> Tensor:
    """``|input - other| <= atol + rtol * |other|``, element by element.

    >>> import flambeau as torch
    >>> torch.isclose(torch.tensor([1., 2.]), torch.tensor([1., 2.1]))
    tensor([ True, False])
    """
    if input.dtype is not other.dtype:
        raise error(RuntimeError, f"{SCALAR_NAMES[input.dtype]} did not match {SCALAR_NAMES[other.dtype]}")
    if rtol < 0:
        raise error(RuntimeError, f"rtol must be greater than or equal to zero, but got {rtol}")
    if atol < 0:
        raise error(RuntimeError, f"atol must be greater than or equal to zero, but got {atol}")
    if input._a.__class__ is other._a.__class__ is np.ndarray:
        return wrap(_isclose.kernel(input._a, other._a, rtol, atol, equal_nan))
    return _isclose(input, other, rtol, atol, equal_nan)


@primitive("isclose", batch=lambda b, x, y, rtol, atol, equal_nan: _isclose(*b.aligned(x=x, y=y), rtol, atol, equal_nan))
def _isclose(x: Any, y: Any, /, rtol: float, atol: float, equal_nan: bool) -> Any:
    a, b = x, y
    if a.dtype.kind == "V" or a.dtype == np.float16:
        a, b = a.astype(np.float32), b.astype(np.float32)
    elif a.dtype.kind in "iub":
        a, b = a.astype(np.float64), b.astype(np.float64)
    with np.errstate(all="ignore"):
        near = np.abs(a - b) <= atol + np.abs(rtol * b)
        near &= np.isfinite(b)
    near = near | (a == b)
    if equal_nan:
        near = near | np.isnan(a) & np.isnan(b)
    return near


@public
def allclose(input: Tensor, other: Tensor, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False) -> bool:
    """Whether every element is close; see ``isclose``."""
    return bool(isclose(input, other, rtol, atol, equal_nan).all())


@public
def equal(input: Tensor, other: Tensor) -> bool:
    """Whether both have the same shape and the same elements.

    >>> import flambeau as torch
    >>> torch.equal(torch.tensor([1, 2]), torch.tensor([1, 2]))
    True
    """
    if not isinstance(other, Tensor):
        raise error(TypeError, f"equal(): argument 'other' (position 2) must be Tensor, not {type(other).__name__}")
    return input._a.shape == other._a.shape and bool((input._a == other._a).all())


@public(out=True)
def isin(elements: Any, test_elements: Any, *, assume_unique: bool = False, invert: bool = False) -> Tensor:
    """True where an element is one of ``test_elements``."""
    a, b = [v if isinstance(v, Tensor) else wrap(np.asarray(v)) for v in (elements, test_elements)]
    for t in (a, b):
        if t._a.dtype.kind in "bc":
            raise error(RuntimeError, f"Unsupported input type encountered for isin(): {SCALAR_NAMES[t.dtype]}")
    return _isin(a, b, assume_unique, invert, 0)


def _isin_batch(b: Any, x: Tensor, among: Tensor, assume_unique: bool, invert: bool, lead: int) -> Tensor:
    if not lead and not b.has("among"):
        return _isin(x, among, False, invert, 0)
    return _isin(b.full(x, b.has("x")), b.full(among, b.has("among")), assume_unique, invert, lead + 1)


@primitive("isin", batch=_isin_batch)
def _isin(x: Any, among: Any, /, assume_unique: bool, invert: bool, lead: int) -> Any:
    """Each of the first ``lead`` dimensions' examples has its own elements and its own test elements."""
    if not lead:
        return np.isin(x, among, assume_unique=assume_unique, invert=invert)
    out = np.empty(x.shape, bool)
    for i in np.ndindex(x.shape[:lead]):
        out[i] = np.isin(x[i], among[i], assume_unique=assume_unique, invert=invert)
    return out


Tensor.isin = isin


def is_nonzero(input: Tensor) -> bool:
    """Whether the one element is not 0; RuntimeError where there are none, or more."""
    if input._a.size == 0:
        raise error(RuntimeError, "Boolean value of Tensor with no values is ambiguous")
    if input._a.size > 1:
        raise error(RuntimeError, "Boolean value of Tensor with more than one value is ambiguous",
                    hint="Use .any() or .all(), or compare one element.")  # fmt: skip
    return bool(input._a.reshape(())[()])


both(is_nonzero, "is_nonzero")


def torch_result_type(tensor1: Any, tensor2: Any) -> Any:
    """The dtype that arithmetic on both would give.

    >>> import flambeau as torch
    >>> torch.result_type(torch.tensor([1, 2]), 1.0)
    torch.float32
    """
    from ..core.dtypes import of_scalar

    dims, zeros, numbers = [], [], []
    for t in (tensor1, tensor2):
        if isinstance(t, Tensor):
            (dims if t._a.ndim else zeros).append(t.dtype)
        else:
            numbers.append(of_scalar(t))
    return result_type(dims, zeros, numbers)


publish("result_type", torch_result_type)
