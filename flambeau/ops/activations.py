"""Pointwise activations: ``torch.nn.functional.relu`` and its kin.

Derivatives at kinks are PyTorch's. Those that change their input in place take the derivative from the output.
"""

from __future__ import annotations

import math
from typing import Any

from ..autograd.pointwise import OfTensors, Pointwise, only_floats, pointwise, without
from ..core.dtypes import BOOL, COMPLEX, INT, uint8
from ..core.errors import error
from ..core.tensor import Tensor
from ..kernels import expr as E
from .public import publish, write_out

x, y, z, g, out = E.var("x"), E.var("y"), E.var("z"), E.var("g"), E.var("out")
NN = "nn.functional"


def zero_outside(inside: Any, slope: Any = g) -> Any:
    return E.where(inside, slope, 0)


def publish_all(fn: Any, name: str, fn_: Any = None, *, torch: bool = False, method: bool = False, function_: bool = True) -> None:
    """``nn.functional.name`` and, where PyTorch has them, ``torch.name``, ``Tensor.name``, ``name_`` in all three."""
    publish(name, fn, NN)
    if torch:
        publish(name, fn)
    if method:
        setattr(Tensor, name, fn)
    if fn_ is not None:
        fn_.__name__ = fn_.__qualname__ = name + "_"
        if function_:
            publish(name + "_", fn_, NN)
        if torch:
            publish(name + "_", fn_)
        if method:
            setattr(Tensor, name + "_", fn_)


def _tensor(name: str, t: Any) -> None:
    if not isinstance(t, Tensor):
        raise error(TypeError, f"{name}(): argument 'input' (position 1) must be Tensor, not {type(t).__name__}")


_NO_CLAMP = "clamp is not supported for complex types"
_NO_BOOLS = "Bool inputs not supported for hardtanh"
_NO_HARDTANH = OfTensors({BOOL: _NO_BOOLS, COMPLEX: _NO_CLAMP})
_NO_MINUS = (
    "Subtraction, the `-` operator, with a bool tensor is not supported. If you are trying to invert a mask, use the `~` or "
    "`logical_not()` operator instead."
)


def _whole(input: Tensor, *numbers: float) -> tuple[float, ...]:
    """The numbers as the input's dtype holds them: an integer input stays one."""
    return tuple([int(n) for n in numbers]) if isinstance(input, Tensor) and input._a.dtype.kind in "iu" else numbers


# ---- relu -----------------------------------------------------------------------------------------------------------
_relu = pointwise("relu", E.relu(x), "x", grad={"x": E.where(out <= 0, 0, g)}, refuse={BOOL: "Boolean inputs not supported for relu", COMPLEX: _NO_CLAMP})
_relu_call = _relu.call


def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """``max(x, 0)``; its derivative at 0 is 0.

    >>> import flambeau as torch
    >>> torch.relu(torch.tensor([-1., 0., 2.]))
    tensor([0., 0., 2.])
    """
    return _relu.inplace(input) if inplace else _relu_call(input)


publish_all(relu, "relu", lambda input: _relu.inplace(input), torch=True, method=True)

# ---- without parameters ---------------------------------------------------------------------------------------------
_SCALE, _ALPHA = 1.0507009873554804934193349852946, 1.6732632423543772848170429916717
_inner = math.sqrt(2 / math.pi) * (x + 0.044715 * (x * x * x))
_gelu = pointwise("gelu", x * 0.5 * (1 + E.erf(x * math.sqrt(0.5))), "x", grad={
    "x": g * (0.5 * (1 + E.erf(x * math.sqrt(0.5))) + x * (E.exp(-0.5 * x * x) * (1 / math.sqrt(2 * math.pi))))
}, refuse=only_floats("GeluKernelImpl"))  # fmt: skip
_gelu_tanh = pointwise("gelu_tanh", 0.5 * x * (1 + E.tanh(_inner)), "x", node="GeluBackward0", refuse=only_floats("GeluKernelImpl"))
_silu = pointwise("silu", x * E.sigmoid(x), "x", grad={"x": g * (E.sigmoid(x) * (1 + x * (1 - E.sigmoid(x))))}, refuse=without("silu_cpu", BOOL, INT))
_mish = pointwise("mish", x * E.tanh(E.where(x > 20, x, E.log1p(E.exp(x)))), "x", refuse=only_floats("mish_cpu"))
_inside = E.logical_and(x > -3, x < 3)
_hardswish = pointwise(
    "hardswish", x * E.clamp(x + 3, 0, 6) / 6, "x",
    grad={"x": E.where(x <= -3, 0, E.where(x < 3, g * (x / 3 + 0.5), g))}, refuse=only_floats("hardswish_cpu")
)  # fmt: skip
_hardsigmoid = pointwise("hardsigmoid", E.clamp(x + 3, 0, 6) / 6, "x", grad={"x": zero_outside(_inside, g / 6)}, refuse=only_floats("hardsigmoid_cpu"))
_relu6 = pointwise("relu6", E.clamp(x, 0, 6), "x", node="HardtanhBackward0",
                   grad={"x": zero_outside(E.logical_and(out > 0, out < 6))}, refuse={BOOL: _NO_BOOLS, COMPLEX: _NO_CLAMP})  # fmt: skip
_selu = pointwise(
    "selu", E.where(x > 0, _SCALE * x, (_SCALE * _ALPHA) * E.expm1(x)), "x", node="EluBackward0",
    grad={"x": E.where(out > 0, g * _SCALE, g * (out + _SCALE * _ALPHA))}, refuse=only_floats("elu_cpu")
)  # fmt: skip
_logsigmoid = pointwise("log_sigmoid", E.logsigmoid(x), "x", node="LogSigmoidBackward0", grad={"x": g * E.sigmoid(-x)}, refuse=only_floats("log_sigmoid_cpu"))
_softsign = pointwise("softsign", x / (1 + E.abs(x)), "x", node="DivBackward0", promote="float", refuse=without("abs_cpu", BOOL))
_tanhshrink = pointwise("tanhshrink", x - E.tanh(x), "x", node="SubBackward0",
                        grad={"x": g * (E.tanh(x) * E.tanh(x))}, promote="float", refuse={BOOL: _NO_MINUS})  # fmt: skip


def _plain(name: str, op: Pointwise, doc: str, inplace: bool = True, torch: bool = False, function_: bool = False) -> Any:
    call, into = op.call, op.inplace
    if inplace:

        def fn(input: Tensor, inplace: bool = False) -> Tensor:
            return into(input) if inplace else call(input)

    else:

        def fn(input: Tensor) -> Tensor:  # type: ignore[misc]
            return call(input)

    fn.__name__ = fn.__qualname__ = name
    fn.__doc__ = doc
    publish_all(fn, name, (lambda input: into(input)) if function_ else None, torch=torch)
    return fn


silu = _plain("silu", _silu, "``x * sigmoid(x)``, also called swish.")
mish = _plain("mish", _mish, "``x * tanh(softplus(x))``.")
hardswish = _plain("hardswish", _hardswish, "``x * relu6(x + 3) / 6``.")
hardsigmoid = _plain("hardsigmoid", _hardsigmoid, "``relu6(x + 3) / 6``.")
relu6 = _plain("relu6", _relu6, "``min(max(x, 0), 6)``.")
selu = _plain("selu", _selu, "The scaled elu, whose constants keep mean 0 and variance 1.", torch=True, function_=True)
logsigmoid = _plain("logsigmoid", _logsigmoid, "``log(sigmoid(x))``, without overflow.", inplace=False)


def softsign(input: Tensor) -> Tensor:
    """``x / (1 + |x|)``."""
    if isinstance(input, Tensor) and input._a.dtype.kind == "c":  # |x| has no derivative as a function of a complex number
        return input / (1 + input.abs())  # type: ignore[attr-defined,no-any-return]
    return _softsign.call(input)


publish_all(softsign, "softsign")
tanhshrink = _plain("tanhshrink", _tanhshrink, "``x - tanh(x)``.", inplace=False)
_plain("sigmoid", pointwise("sigmoid_f", E.sigmoid(x), "x", node="SigmoidBackward0", promote="float",
                            grad={"x": g * ((1 - out) * out)}), "``1 / (1 + exp(-x))``.", inplace=False)  # fmt: skip
_plain("tanh", pointwise("tanh_f", E.tanh(x), "x", node="TanhBackward0", promote="float",
                         grad={"x": g * (1 - out * out)}), "The hyperbolic tangent.", inplace=False)  # fmt: skip


def gelu(input: Tensor, approximate: str = "none", *, out: Tensor | None = None) -> Tensor:
    """``x * Phi(x)``, Phi the normal distribution function; ``approximate="tanh"`` for the usual approximation.

    >>> import flambeau as torch
    >>> torch.nn.functional.gelu(torch.tensor([-1., 0., 1.]))
    tensor([-0.1587,  0.0000,  0.8413])
    """
    _tensor("gelu", input)
    if approximate == "none":
        r = _gelu.call(input)
    elif approximate == "tanh":
        r = _gelu_tanh.call(input)
    else:
        raise error(RuntimeError, "approximate argument must be either none or tanh.")
    if out is not None:
        write_out("gelu", out, r)
        return out
    return r


publish_all(gelu, "gelu")

# ---- with parameters ------------------------------------------------------------------------------------------------
_leaky = pointwise("leaky_relu", E.where(x > 0, x, x * y), "x y", grad={"x": E.where(x > 0, g, g * y)}, refuse=only_floats("leaky_relu_cpu"))
_leaky_ = pointwise("leaky_relu_", E.where(x > 0, x, x * y), "x y", node="LeakyReluBackward0",
                    grad={"x": E.where(out > 0, g, g * y)}, refuse=only_floats("leaky_relu_cpu"))  # fmt: skip
_elu = pointwise("elu", E.where(x > 0, x, y * E.expm1(x)), "x y", grad={"x": E.where(x > 0, g, g * (y * E.exp(x)))}, refuse=only_floats("elu_cpu"))
_elu_ = pointwise("elu_", E.where(x > 0, x, y * E.expm1(x)), "x y", node="EluBackward0",
                  grad={"x": E.where(out > 0, g, g * (out + y))}, refuse=only_floats("elu_cpu"))  # fmt: skip
_celu = pointwise("celu", E.where(x > 0, x, y * E.expm1(x / y)), "x y", grad={"x": E.where(x > 0, g, g * E.exp(x / y))}, refuse=only_floats("elu_cpu"))
_celu_ = pointwise("celu_", E.where(x > 0, x, y * E.expm1(x / y)), "x y", node="CeluBackward0",
                   grad={"x": E.where(out > 0, g, g * (out / y + 1))}, refuse=only_floats("elu_cpu"))  # fmt: skip
_hardtanh = pointwise("hardtanh", E.clamp(x, y, z), "x y z", grad={"x": zero_outside(E.logical_and(x > y, x < z))}, refuse=_NO_HARDTANH)
_hardtanh_ = pointwise("hardtanh_", E.clamp(x, y, z), "x y z", node="HardtanhBackward0",
                       grad={"x": zero_outside(E.logical_and(out > y, out < z))}, refuse=_NO_HARDTANH)  # fmt: skip
_threshold = pointwise("threshold", E.where(x <= y, z, x), "x y z", grad={"x": E.where(x <= y, 0, g)}, refuse=without("threshold_cpu", BOOL, COMPLEX))
_softplus1 = pointwise("softplus_1_20", E.where(x > 20, x, E.log1p(E.exp(x))), "x", node="SoftplusBackward0",
                       grad={"x": E.where(x > 20, g, g * E.sigmoid(x))}, refuse=only_floats("softplus_cpu"))  # fmt: skip
_softplus = pointwise("softplus", E.where(x * y > z, x, E.log1p(E.exp(x * y)) / y), "x y z",
                      grad={"x": E.where(x * y > z, g, g * E.sigmoid(x * y))}, refuse=only_floats("softplus_cpu"))  # fmt: skip
_softshrink = pointwise("softshrink", E.where(x > y, x - y, E.where(x < -y, x + y, x * 0)), "x y",
                        grad={"x": E.where(E.abs(x) <= y, 0, g)}, refuse=only_floats("softshrink_check"))  # fmt: skip
_hardshrink = pointwise("hardshrink", E.where(E.abs(x) <= y, 0, x), "x y", grad={"x": E.where(E.abs(x) <= y, 0, g)}, refuse=only_floats("hardshrink_cpu"))


def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """``max(x, 0) + negative_slope * min(x, 0)``."""
    return _leaky_.inplace(input, negative_slope) if inplace else _leaky.call(input, negative_slope)


def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """x above 0, ``alpha * (exp(x) - 1)`` below."""
    return _elu_.inplace(input, alpha) if inplace else _elu.call(input, alpha)


def celu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """x above 0, ``alpha * (exp(x / alpha) - 1)`` below."""
    if alpha == 0:
        raise error(RuntimeError, "ZeroDivisionError: alpha cannot be 0 for CELU")
    return _celu_.inplace(input, alpha) if inplace else _celu.call(input, alpha)


def hardtanh(input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Tensor:
    """x between ``min_val`` and ``max_val``, those outside."""
    if min_val > max_val:
        raise error(ValueError, "min_val cannot be greater than max_val")
    if isinstance(input, Tensor) and input.dtype is uint8 and (min_val < 0 or max_val < 0):
        raise error(RuntimeError, "cannot do hardtanh on an unsigned type with negative limits")
    min_val, max_val = _whole(input, min_val, max_val)
    return _hardtanh_.inplace(input, min_val, max_val) if inplace else _hardtanh.call(input, min_val, max_val)


def threshold(input: Tensor, threshold: float, value: float, inplace: bool = False) -> Tensor:
    """x where it is above ``threshold``, ``value`` elsewhere."""
    return (_threshold.inplace if inplace else _threshold.call)(input, *_whole(input, threshold, value))


def softplus(input: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """``log(1 + exp(beta * x)) / beta``; x itself where ``beta * x`` is above ``threshold``."""
    if beta == 1 and threshold == 20:
        return _softplus1.call(input)
    return _softplus.call(input, beta, threshold)


def softshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """x moved towards 0 by ``lambd``, 0 where it would pass it."""
    if lambd < 0:
        raise error(RuntimeError, f"lambda must be greater or equal to 0, but found to be {lambd}.")
    return _softshrink.call(input, lambd)


def hardshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """0 within ``lambd`` of 0, x elsewhere."""
    return _hardshrink.call(input, lambd)


publish_all(leaky_relu, "leaky_relu", lambda input, negative_slope=0.01: leaky_relu(input, negative_slope, True))
publish_all(elu, "elu", lambda input, alpha=1.0: elu(input, alpha, True))
publish_all(celu, "celu", lambda input, alpha=1.0: celu(input, alpha, True), torch=True)
publish_all(hardtanh, "hardtanh", lambda input, min_val=-1.0, max_val=1.0: hardtanh(input, min_val, max_val, True))
publish_all(threshold, "threshold", lambda input, threshold_, value: threshold(input, threshold_, value, True), torch=True)
publish_all(softplus, "softplus")
publish_all(softshrink, "softshrink")
publish_all(hardshrink, "hardshrink", torch=True, method=True)

# ---- prelu, rrelu, glu ----------------------------------------------------------------------------------------------
_prelu = pointwise("prelu", E.where(x > 0, x, y * x), "x y", node="PreluKernelBackward0", refuse=only_floats("prelu_cpu"))


def prelu(input: Tensor, weight: Tensor) -> Tensor:
    """x above 0, ``weight * x`` below: one weight, or one for each channel (dimension 1)."""
    a, w = input._a, weight._a
    if input.dtype is not weight.dtype:
        raise error(RuntimeError, f"prelu: Type promoting not supported. Got {input.dtype} and {weight.dtype}")
    if w.size != 1:
        channels = a.shape[1] if a.ndim > 1 else 1
        if not a.ndim:
            raise error(RuntimeError, "Not allow zero-dim input tensor.")
        if channels != w.size:
            raise error(
                RuntimeError,
                f"Mismatch of parameter numbers and input channel size. Found parameter numbers = {w.size} and channel size "
                f"= {channels}.",
            )
    if w.ndim > 1:
        raise error(RuntimeError, f"prelu: Expected `weight` to be a scalar or 1D tensor, but got: ndim = {w.ndim}")
    if a.ndim > 1 and w.ndim == 1:
        weight = weight.reshape([w.size if i == 1 else 1 for i in range(a.ndim)])
    elif a.ndim == 0 and w.ndim == 1:
        weight = weight.reshape(())
    return _prelu.call(input, weight)


publish_all(prelu, "prelu", torch=True, method=True)
_noisy_leaky = pointwise("rrelu", E.where(x > 0, x, x * y), "x y", node="RreluWithNoiseBackward0", refuse=only_floats("rrelu_with_noise_out_cpu"),
                         grad={"x": E.where(x > 0, g, g * y)})  # fmt: skip


def rrelu(
    input: Tensor, lower: float = 1.0 / 8, upper: float = 1.0 / 3, training: bool = False, inplace: bool = False,
    generator: Any = None,
) -> Tensor:  # fmt: skip
    """leaky_relu with slopes drawn from [lower, upper] in training, their mean otherwise."""
    if lower > upper:
        raise error(RuntimeError, f"Lower bound should be less than or equal to the upper bound, but got lower={lower}, upper={upper}")
    if not training:
        return leaky_relu(input, (lower + upper) / 2, inplace)
    slopes = input.detach().clone().uniform_(lower, upper, generator=generator)
    return (_noisy_leaky.inplace if inplace else _noisy_leaky.call)(input, slopes)


publish_all(rrelu, "rrelu", lambda input, *args, **kwargs: rrelu(input, *args, inplace=True, **kwargs), torch=True)


def glu(input: Tensor, dim: int = -1) -> Tensor:
    """``a * sigmoid(b)``, a and b the halves of the input along ``dim``."""
    from .dims import wrap_dim

    shape = input._a.shape
    if not shape:
        raise error(RuntimeError, "glu does not support 0-dimensional tensors")
    d = wrap_dim(dim, len(shape))
    if shape[d] % 2:
        raise error(RuntimeError, f"Halving dimension must be even, but dimension {d} is size {shape[d]}")
    half = shape[d] // 2
    return _glu.call(input.narrow(d, 0, half), input.narrow(d, half, half))


_glu = pointwise("glu", x * E.sigmoid(y), "x y", grad={"y": g * x * (E.sigmoid(y) * (1 - E.sigmoid(y)))}, refuse=only_floats("glu_cpu"))
publish("glu", glu, NN)
