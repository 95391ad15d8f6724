"""Jacobians alone, under the names that PyTorch has kept for older programs."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from ...core.dtypes import FLOAT
from ...core.errors import error
from ...core.tensor import Tensor, wrap
from . import analytical, numerical
from .problem import as_tuple, is_complex, output_tensors


def _requiring(x: Any) -> list[Tensor]:
    if isinstance(x, Tensor):
        return [x] if x._rg else []
    return [t for each in x for t in _requiring(each)] if isinstance(x, (tuple, list)) else []


def _check(name: str, outputs: tuple[Tensor, ...], grad_out: float) -> None:
    warnings.warn(
        f"`{name}` was part of PyTorch's private API and not meant to be exposed. It will be removed in a future version of PyTorch: use gradcheck.",
        FutureWarning,
        stacklevel=3,
    )
    if grad_out != 1.0:
        raise error(ValueError, f"Expected grad_out to be 1.0. {name} no longer supports values of grad_out != 1.0.")
    if any(is_complex(o) for o in outputs):
        raise error(ValueError, f"Expected output to be non-complex. {name} no longer supports functions that return complex outputs.")


def get_numerical_jacobian(fn: Callable[..., Any], inputs: Any, target: Any = None, eps: float = 1e-3, grad_out: float = 1.0) -> tuple[Tensor, ...]:
    """Of the first output of ``fn(inputs)``, by central differences: one (entries of the input, entries of the output) for each target.

    ``target``: the tensors to change, by default the inputs; those that require grad count.

    >>> import flambeau as torch, warnings
    >>> x = torch.tensor([1., 2.], dtype=torch.double, requires_grad=True)
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore")
    ...     get_numerical_jacobian(lambda xs: xs[0] * 3, (x,))
    (tensor([[3.0000, 0.0000],
            [0.0000, 3.0000]], dtype=torch.float64),)
    """
    _check("get_numerical_jacobian", output_tensors(fn(inputs)), grad_out)
    found = []
    for t in _requiring(inputs if target is None else target):
        d = numerical.columns(lambda *xs: fn(inputs), (), t, eps, [0])[0]
        found.append(wrap(numerical.gradient_of(d, "real")))
    return tuple(found)


def get_numerical_jacobian_wrt_specific_input(
    fn: Callable[..., Any], input_idx: int, inputs: Any, outputs: Any, eps: float, input: Tensor | None = None, is_forward_ad: bool = False
) -> tuple[Tensor, ...]:
    """Of every floating output of ``fn(*inputs)`` with respect to one input."""
    args = as_tuple(inputs)
    t: Tensor = args[input_idx] if input is None else input
    if not t._rg:
        raise error(AssertionError, "Expected input to have requires_grad=True")
    which = [i for i, o in enumerate(as_tuple(outputs)) if o.dtype.category >= FLOAT]
    found = numerical.columns(fn, args, t, eps, which)
    if is_forward_ad:
        return tuple([wrap(d[0] if len(d) == 1 else d[0] + 1j * d[1]) for d in found])
    return tuple([wrap(numerical.gradient_of(d, "real")) for d in found])


def get_analytical_jacobian(inputs: Any, output: Tensor, nondet_tol: float = 0.0, grad_out: float = 1.0) -> tuple[tuple[Tensor, ...], bool, bool, bool]:
    """(the Jacobians of ``output`` by backward passes, whether two runs agree, whether sizes are right, whether dtypes are)."""
    _check("get_analytical_jacobian", (output,), grad_out)
    wanted = _requiring(inputs)
    n = output._a.size
    one, two = (analytical.backward(output, wanted, analytical.unit_vectors(output, 1.0), n) for _ in range(2))
    agree = not any((np.abs(a.jacobian - b.jacobian) > nondet_tol).any() for a, b in zip(one, two))
    return tuple([wrap(g.jacobian) for g in one]), agree, all(g.sizes_ok for g in one), all(g.types_ok for g in one)
