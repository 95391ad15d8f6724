"""What is checked: a function at certain inputs, with the outputs it has there."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ...core.dtypes import COMPLEX, FLOAT
from ...core.errors import error
from ...core.tensor import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The arguments of ``gradcheck``."""

    eps: float = 1e-6
    atol: float = 1e-5
    rtol: float = 1e-3
    nondet_tol: float = 0.0
    undefined_grad: bool = True
    grad_dtypes: bool = False
    batched_grad: bool = False
    batched_forward_grad: bool = False
    forward_ad: bool = False
    backward_ad: bool = True
    fast: bool = False


def is_complex(t: Tensor) -> bool:
    return t.dtype.category == COMPLEX


def as_tuple(x: Any) -> tuple[Any, ...]:
    return x if isinstance(x, tuple) else tuple(x) if isinstance(x, list) else (x,)


def differentiable(outputs: Any) -> tuple[Tensor, ...]:
    return tuple([o for o in output_tensors(outputs) if o._rg])


def output_tensors(outputs: Any) -> tuple[Tensor, ...]:
    """The outputs as a tuple; all must be tensors, as for PyTorch."""
    outs = as_tuple(outputs)
    for i, o in enumerate(outs):
        if not isinstance(o, Tensor):
            kind = type(o).__name__
            raise error(AttributeError, f"{kind!r} object has no attribute 'requires_grad'",
                        hint=f"gradcheck's function must return a tensor or a tuple of tensors; its output {i} is of type {kind}.")
    return outs


class Problem:
    """A function at its inputs.

    ``wanted`` are the inputs whose derivatives are checked, ``wanted_at`` their places among the arguments;
    ``outs`` the outputs that require grad, ``outs_at`` their places among all. ``func.probe`` may be a form of the
    function that records nothing, for central differences.
    """

    def __init__(self, func: Callable[..., Any], inputs: Any, options: Options) -> None:
        self.func = func
        self.probe: Callable[..., Any] = getattr(func, "probe", func)
        self.args = as_tuple(inputs)
        self.options = options
        self.wanted_at = [i for i, t in enumerate(self.args) if isinstance(t, Tensor) and t._rg]
        self.wanted: list[Tensor] = [self.args[i] for i in self.wanted_at]
        check_inputs(self)
        self.all_outs = output_tensors(func(*self.args))
        self.outs_at = [i for i, o in enumerate(self.all_outs) if o._rg]
        self.outs = [self.all_outs[i] for i in self.outs_at]
        # What central differences look at: where nothing requires grad, nothing may depend on the inputs.
        self.seen_at = self.outs_at or [i for i, o in enumerate(self.all_outs) if o.dtype.category >= FLOAT]
        self._numerical: dict[int, list[np.ndarray]] = {}

    def rerun(self) -> tuple[Tensor, ...]:
        """The differentiable outputs with a graph of their own."""
        return differentiable(self.func(*self.args))

    def numerical(self, j: int) -> list[np.ndarray]:
        """``numerical.columns`` of input ``j``, computed once."""
        if j not in self._numerical:
            from .numerical import columns

            self._numerical[j] = columns(self.probe, self.args, self.wanted[j], self.options.eps, self.seen_at)
        return self._numerical[j]

    @cached_property
    def output_parts(self) -> tuple[str, ...]:
        """The passes over the outputs: the imaginary parts come first, as in PyTorch."""
        return ("imaginary", "real") if any(is_complex(o) for o in self.all_outs) else ("real",)

    @cached_property
    def input_parts(self) -> tuple[str, ...]:
        return ("imaginary", "real") if any(isinstance(a, Tensor) and is_complex(a) for a in self.args) else ("real",)

    def output_name(self, o: int) -> str:
        """What messages call output ``o`` of those that are looked at; a function may have names of its own."""
        i, count = self.seen_at[o], len(self.all_outs)
        return self.func.output_name(i, count) if hasattr(self.func, "output_name") else numbered("output", i, count)

    def input_name(self, j: int) -> str:
        return self.argument_name(self.wanted_at[j])

    def argument_name(self, i: int) -> str:
        return self.func.argument_name(i) if hasattr(self.func, "argument_name") else numbered("input", i, len(self.args))


def numbered(name: str, i: int, count: int) -> str:
    return name if count == 1 else f"{name}s[{i}]"


def check_inputs(p: Problem) -> None:
    if not p.wanted:
        raise error(
            ValueError,
            "gradcheck expects at least one input tensor to require gradient, but none of them have requires_grad=True.",
        )
    for i, t in zip(p.wanted_at, p.wanted):
        if t._a.dtype not in (np.float64, np.complex128):
            warnings.warn(
                f"Input #{i} requires gradient and is not a double precision floating point or complex. This check will likely "
                "fail if all the inputs are not of double precision floating point or complex. ",
                stacklevel=5,
            )
        t._viewable()  # a private layout is settled now, not by a view that the function makes
        if t._a.size and any(s == 0 and n > 1 for s, n in zip(t._a.strides, t._a.shape)):
            raise error(
                RuntimeError,
                f"The {i}th input has a dimension with stride 0. gradcheck only supports inputs that are non-overlapping "
                "to be able to compute the numerical gradients correctly. You should call .contiguous on the input before "
                "passing it to gradcheck.",
            )


def close(a: np.ndarray, b: np.ndarray, rtol: float, atol: float) -> np.ndarray:
    """Where ``|a - b| <= atol + rtol |b|``; nan is close to nothing."""
    a, b = wide(a), wide(b)
    with np.errstate(invalid="ignore", over="ignore"):
        return (np.abs(a - b) <= atol + rtol * np.abs(b)) | (a == b)


def wide(a: np.ndarray) -> np.ndarray:
    return a if a.dtype == np.float64 or a.dtype == np.complex128 else a.astype(np.complex128 if a.dtype.kind == "c" else np.float64)
