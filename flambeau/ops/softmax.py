"""Softmax and its logarithm along any dimension. Their gradients come from the result."""

from __future__ import annotations

import warnings
from typing import Any

from ..autograd.primitive import primitive
from ..core.dtypes import FLOAT, SCALAR_NAMES
from ..core.errors import error
from ..core.tensor import Tensor
from ..kernels import softmax as kernels
from .dims import wrap_dim
from .public import publish, write_out


# ---- the operators and their gradients ----------------------------------------------------------------------------------
def _one_row(op: Any, dim: int, *values: Tensor) -> Tensor:
    """Along a dimension of each example; a number is a row of one."""
    if values[0]._a.ndim > 1:
        return op(*values, dim + 1)
    return op(*[v.unsqueeze(1) for v in values], 1).squeeze(1)


def _grad_batch(op: Any) -> Any:
    return lambda b, g_, y, dim: _one_row(op(), dim, b.full(g_, b.has("g_")), b.full(y, b.has("y")))


@primitive(
    "softmax", vjp={"x": lambda g, out, dim: _softmax_grad(g, out, dim)}, jvp=lambda x_t, out, dim: _softmax_grad(x_t, out, dim),
    batch=lambda b, x, dim: _one_row(_softmax, dim, x),
)  # fmt: skip
def _softmax(x: Any, /, dim: Any) -> Any:
    return kernels.softmax(x, dim)


def _grad_by_out(g: Any, g_: Any, y: Any, dim: Any) -> Tensor:
    return g * (g_ - (g_ * y).sum(dim, keepdim=True)) - g_ * (g * y).sum(dim, keepdim=True)


def _total(*parts: Any) -> Any:
    given = [p for p in parts if p is not None]
    return given[0] if len(given) == 1 else given[0] + given[1]


def _softmax_grad_tangent(g__t: Any, g_: Any, y_t: Any, y: Any, dim: Any) -> Tensor:
    return _total(
        None if g__t is None else _softmax_grad(g__t, y, dim),
        None if y_t is None else (g_ - (g_ * y).sum(dim, keepdim=True)) * y_t - y * (g_ * y_t).sum(dim, keepdim=True),
    )


def _log_softmax_grad_tangent(g__t: Any, g_: Any, y_t: Any, y: Any, dim: Any) -> Tensor:
    return _total(
        None if g__t is None else _log_softmax_grad(g__t, y, dim),
        None if y_t is None else -(y_t * y.exp()) * g_.sum(dim, keepdim=True),
    )


# (g - sum(g y)) y is linear in g, by a symmetric matrix
@primitive(
    "softmax_backward_data",
    node="SoftmaxBackwardDataBackward0",
    vjp={"g_": lambda g, y, dim: _softmax_grad(g, y, dim), "y": _grad_by_out},
    jvp=_softmax_grad_tangent,
    batch=_grad_batch(lambda: _softmax_grad),
)
def _softmax_grad(g_: Any, y: Any, /, dim: Any) -> Any:
    return kernels.softmax_grad(g_, y, dim)


@primitive(
    "log_softmax", vjp={"x": lambda g, out, dim: _log_softmax_grad(g, out, dim)},
    jvp=lambda x_t, out, dim: x_t - (x_t * out.exp()).sum(dim, keepdim=True), batch=lambda b, x, dim: _one_row(_log_softmax, dim, x),
)  # fmt: skip
def _log_softmax(x: Any, /, dim: Any) -> Any:
    return kernels.log_softmax(x, dim)


@primitive(
    "log_softmax_backward_data",
    node="LogSoftmaxBackwardDataBackward0",
    vjp={
        "g_": lambda g, y, dim: g - (g * y.exp()).sum(dim, keepdim=True),
        "y": lambda g, g_, y, dim: -g * y.exp() * g_.sum(dim, keepdim=True),
    },
    jvp=_log_softmax_grad_tangent,
    batch=_grad_batch(lambda: _log_softmax_grad),
)
def _log_softmax_grad(g_: Any, y: Any, /, dim: Any) -> Any:
    return kernels.log_softmax_grad(g_, y, dim)


# ---- public functions -----------------------------------------------------------------------------------------------------
def apply(op: Any, name: str, x: Any, dim: Any, dtype: Any) -> Tensor:
    if not isinstance(x, Tensor):
        raise error(TypeError, f"{name}(): argument 'input' (position 1) must be Tensor, not {type(x).__name__}")
    if dtype is not None and x.dtype is not dtype:
        x = x.to(dtype)
    d = wrap_dim(dim, x._a.ndim)
    if x.dtype.category != FLOAT:
        if not x._a.size:
            return x.clone()
        which = "_lastdim" if d == max(x._a.ndim, 1) - 1 else ""
        raise error(
            NotImplementedError, f"\"{name}{which}_kernel_impl\" not implemented for '{SCALAR_NAMES[x.dtype]}'",
            hint="Pass dtype=torch.float32, or convert the input.",
        )  # fmt: skip
    return op(x, d)


def implicit_dim(name: str, x: Tensor, dim: Any, stacklevel: int) -> Any:
    """The dimension that a call without one means: 0 for 0, 1 and 3 dimensions, else 1, with PyTorch's warning."""
    if dim is not None:
        return dim
    warnings.warn(
        f"Implicit dimension choice for {name} has been deprecated. Change the call to include dim=X as an argument.",
        stacklevel=stacklevel,
    )
    return 0 if x._a.ndim in (0, 1, 3) else 1


def _missing(name: str) -> BaseException:
    return error(TypeError, f'{name}() missing 1 required positional arguments: "dim"')


def softmax(input: Tensor, dim: Any = None, dtype: Any = None, *, out: Tensor | None = None) -> Tensor:
    """``exp(x) / sum(exp(x))`` along a dimension; computed in ``dtype`` where one is given.

    >>> import flambeau as torch
    >>> torch.softmax(torch.tensor([0., 0.]), 0)
    tensor([0.5000, 0.5000])
    """
    if dim is None:
        raise _missing("softmax")
    r = apply(_softmax, "softmax", input, dim, dtype)
    return r if out is None else _into("softmax", out, r)


def log_softmax(input: Tensor, dim: Any = None, dtype: Any = None, *, out: Tensor | None = None) -> Tensor:
    """``x - log(sum(exp(x)))`` along a dimension."""
    if dim is None:
        raise _missing("log_softmax")
    r = apply(_log_softmax, "log_softmax", input, dim, dtype)
    return r if out is None else _into("log_softmax", out, r)


def _into(name: str, out: Tensor, r: Tensor) -> Tensor:
    write_out(name, out, r)
    return out


def f_softmax(input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None) -> Tensor:
    """``exp(x) / sum(exp(x))`` along a dimension.

    >>> import flambeau as torch
    >>> torch.nn.functional.softmax(torch.tensor([0., 0.]), dim=0)
    tensor([0.5000, 0.5000])
    """
    return apply(_softmax, "softmax", input, implicit_dim("softmax", input, dim, _stacklevel + 1), dtype)


def f_log_softmax(input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None) -> Tensor:
    """``x - log(sum(exp(x)))`` along a dimension."""
    return apply(_log_softmax, "log_softmax", input, implicit_dim("log_softmax", input, dim, _stacklevel + 1), dtype)


def softmin(input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None) -> Tensor:
    """``softmax(-x)``."""
    d = implicit_dim("softmin", input, dim, _stacklevel + 1)
    return apply(_softmax, "softmax", -input, d, dtype)


def gumbel_softmax(logits: Tensor, tau: float = 1, hard: bool = False, eps: float = 1e-10, dim: int = -1) -> Tensor:
    """A sample of the Gumbel-softmax distribution; ``hard``: one-hot, with the gradient of the soft sample.

    ``eps`` is accepted as PyTorch accepts it, and not used.
    """
    if eps != 1e-10:
        warnings.warn("`eps` parameter is deprecated and has no effect.", stacklevel=2)
    noise = -logits.detach().clone(memory_format=None).exponential_().log()
    soft = f_softmax((logits + noise) / tau, dim)
    if not hard:
        return soft
    index = soft.max(dim, keepdim=True)[1]
    one = soft.detach().mul(0).scatter(dim, index, 1.0)
    return one - soft.detach() + soft


publish("softmax", softmax)
publish("log_softmax", log_softmax)
Tensor.softmax, Tensor.log_softmax = softmax, log_softmax
publish("softmax", f_softmax, "nn.functional")
publish("log_softmax", f_log_softmax, "nn.functional")
publish("softmin", softmin, "nn.functional")
publish("gumbel_softmax", gumbel_softmax, "nn.functional")
publish("softmax", softmax, "special")
publish("log_softmax", log_softmax, "special")
f_softmax.__name__, f_log_softmax.__name__ = "softmax", "log_softmax"
