"""Derivatives checked against central differences.

For a function f and inputs x in double precision, column j of the numerical Jacobian is
(f(x + ε e_j) - f(x - ε e_j)) / 2ε; row i of the analytical one is the backward pass of e_i. For complex inputs the
two directions 1 and i are combined into the conjugate Wirtinger derivative, as PyTorch does.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from ..core.dtypes import COMPLEX
from ..core.errors import error
from ..core.modes import enable_grad, no_grad
from ..core.tensor import Tensor, wrap
from .engine import grad


class GradcheckError(RuntimeError):
    """A derivative disagrees with central differences."""


def _tensors(x: Any) -> tuple[Tensor, ...]:
    items = (x,) if isinstance(x, Tensor) else tuple(x)
    return tuple([t for t in items if isinstance(t, Tensor)])


def _differentiable(outputs: Any) -> tuple[Tensor, ...]:
    return tuple([o for o in _tensors(outputs) if o._rg])


def numerical_jacobians(fn: Callable[..., Any], inputs: tuple[Any, ...], x: Tensor, eps: float, which: list[int]) -> list[np.ndarray]:
    """For each output of ``which``, (size of x, size of output); complex where either is."""
    flat = x._a
    count = len(which)
    columns: list[list[np.ndarray]] = [[] for _ in range(count)]

    def probe() -> list[np.ndarray]:
        with no_grad():
            values = fn(*inputs)
        outs = _tensors(values)
        return [np.array(outs[i]._a, copy=True) for i in which]

    steps = [eps] if x.dtype.category != COMPLEX else [eps, 1j * eps]
    for index in np.ndindex(*flat.shape):
        original = flat[index]
        partial = []
        for step in steps:
            flat[index] = original + step
            plus = probe()
            flat[index] = original - step
            minus = probe()
            flat[index] = original
            partial.append([(p - m).reshape(-1) / (2 * eps) for p, m in zip(plus, minus)])
        for o in range(count):
            if len(steps) == 1:
                columns[o].append(partial[0][o])
            else:
                columns[o].append(np.stack([partial[0][o], partial[1][o]]))
    return [np.stack(c) if c else np.zeros((0, 0)) for c in columns]


def analytical_jacobian(output: Tensor, x: Tensor, create: bool = False) -> tuple[np.ndarray, bool, bool]:
    """(rows stacked: (size of x, size of output), whether two runs agree, whether shape and dtype are right).

    For a complex output the rows of e_i and of i e_i are both kept, on a leading axis.
    """
    directions = [1.0] if output.dtype.category != COMPLEX else [1.0, 1j]
    n, m = x._a.size, output._a.size
    jac = np.zeros((len(directions), n, m), x._a.dtype)
    ok = True
    again = True
    for d, direction in enumerate(directions):
        for j in range(m):
            e = np.zeros(output._a.shape, output._a.dtype)
            e.reshape(-1)[j] = direction
            runs = []
            for _ in range(2 if j == 0 and d == 0 else 1):
                (g,) = grad([output], [x], [wrap(e)], retain_graph=True, allow_unused=True)
                runs.append(np.zeros(x._a.shape) if g is None else np.array(g._a))
                if g is not None and (g._a.shape != x._a.shape or g.dtype is not x.dtype):
                    ok = False
            if len(runs) == 2 and not np.array_equal(runs[0], runs[1], equal_nan=True):
                again = False
            if runs[0].shape == x._a.shape:
                jac[d, :, j] = runs[0].reshape(-1)
    return jac, again, ok


def _compare(numerical: np.ndarray, analytical: np.ndarray, x: Tensor, out: Tensor) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Pairs of real or complex matrices that must agree."""
    x_complex, out_complex = x.dtype.category == COMPLEX, out.dtype.category == COMPLEX
    if numerical.size == 0:
        return []
    if not x_complex and not out_complex:
        return [("", numerical, analytical[0])]
    if not x_complex:  # real -> complex: gradient of Re(conj(v) f)
        return [("real part: ", numerical.real, analytical[0]), ("imaginary part: ", numerical.imag, analytical[1])]
    da, db = numerical[:, 0], numerical[:, 1]  # derivatives along 1 and i; gradient is dRe/da + i dRe/db
    pairs = [("real part: ", da.real + 1j * db.real, analytical[0])]
    if out_complex:
        pairs.append(("imaginary part: ", da.imag + 1j * db.imag, analytical[1]))
    return pairs


def likely_cause(num: np.ndarray, ana: np.ndarray) -> str:
    """A guess, from the two matrices, at what is wrong with a backward."""
    scale = np.abs(num).max() if num.size else 0
    if not np.abs(ana).max() and scale:
        return "The analytical Jacobian is zero: the gradient is dropped, or never reaches this input."
    both = (np.abs(num) > 1e-8 * (scale or 1)) & (np.abs(ana) > 1e-300)
    if both.any():
        ratio = num[both] / ana[both]
        if np.allclose(ratio, ratio.flat[0], rtol=1e-4) and not np.allclose(ratio.flat[0], 1, rtol=1e-4):
            return f"Every entry is off by the same factor: multiply the gradient by {ratio.flat[0]:.6g}."
    if num.shape[0] == num.shape[1] and np.allclose(num, ana.T, rtol=1e-4, atol=1e-6):
        return "The analytical Jacobian is the transpose of the numerical one."
    return ""


def _message(kind: str, i: int, o: int, num: np.ndarray, ana: np.ndarray, rtol: float, atol: float) -> str:
    diff = np.abs(num - ana) - rtol * np.abs(num)
    worst = np.argsort(np.where(np.isnan(diff), np.inf, diff), axis=None)[::-1][:5]
    rows = []
    for k in worst:
        a, b = np.unravel_index(k, num.shape)
        rows.append(f"  d output[{b}] / d input[{a}]: numerical {num[a, b]:.8g}, analytical {ana[a, b]:.8g}")
    cause = likely_cause(num, ana)
    return (
        f"{kind}Jacobian mismatch for output {o} with respect to input {i},\nnumerical:{wrap(num)!r}\nanalytical:{wrap(ana)!r}\n"
        "The worst entries (flat indices):\n" + "\n".join(rows) + ("\n" + cause if cause else "") + "\n"
    )


def gradcheck(
    func: Callable[..., Any],
    inputs: Any,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
    nondet_tol: float = 0.0,
    check_undefined_grad: bool = True,
    check_grad_dtypes: bool = False,
    check_batched_grad: bool = False,
    check_batched_forward_grad: bool = False,
    check_forward_ad: bool = False,
    check_backward_ad: bool = True,
    fast_mode: bool = False,
    masked: bool | None = None,
) -> bool:
    """Whether the backward pass of ``func`` agrees with central differences at ``inputs`` (double precision).

    Raises GradcheckError with the worst entries and a guess at the cause, or returns False if ``raise_exception`` is
    False.

    >>> import flambeau as torch
    >>> x = torch.randn(3, dtype=torch.double, requires_grad=True)
    >>> gradcheck(torch.sin, (x,))
    True
    """
    for name, flag in (
        ("check_batched_grad", check_batched_grad),
        ("check_batched_forward_grad", check_batched_forward_grad),
        ("check_forward_ad", check_forward_ad),
        ("masked", masked),
    ):
        if flag:
            raise error(NotImplementedError, f"gradcheck({name}=True) is not in flambeau yet")
    if not check_backward_ad:
        raise error(NotImplementedError, "gradcheck(check_backward_ad=False) is not in flambeau yet")
    args = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    try:
        _gradcheck(func, args, eps, atol, rtol, nondet_tol, check_undefined_grad, check_grad_dtypes, fast_mode)
    except GradcheckError:
        if raise_exception:
            raise
        return False
    return True


def _gradcheck(func: Any, args: tuple[Any, ...], eps: float, atol: float, rtol: float, nondet_tol: float, undefined: bool, dtypes_: bool, fast: bool) -> None:
    checked = [(i, t) for i, t in enumerate(args) if isinstance(t, Tensor) and t._rg]
    if not checked:
        raise error(ValueError, "gradcheck expects at least one input tensor to require gradient, but none of the them have requires_grad=True.")
    for i, t in checked:
        if t._a.dtype not in (np.float64, np.complex128):
            warnings.warn(
                f"Input #{i} requires gradient and is not a double precision floating point or complex. This check will likely "
                "fail if all the inputs are not of double precision floating point or complex. ",
                stacklevel=4,
            )
        if any(s == 0 and n > 1 for s, n in zip(t._a.strides, t._a.shape)):
            raise error(RuntimeError, f"The {i}th input has a dimension with stride 0. gradcheck only supports inputs that are non-overlapping "
                        "to be able to compute the numerical gradients correctly. You should call .contiguous on the input before passing it to gradcheck.")
    outputs = func(*args)
    all_outputs = _tensors(outputs)
    which = [i for i, o in enumerate(all_outputs) if o._rg]
    outs = [all_outputs[i] for i in which]
    if not outs:
        for _, t in checked:
            for num in numerical_jacobians(func, args, t, eps, list(range(len(all_outputs)))):
                if not np.allclose(num, 0, atol=atol):
                    raise GradcheckError("Numerical gradient for function expected to be zero")
        return
    for i, t in checked:
        numerical = numerical_jacobians(func, args, t, eps, which)
        for o, out in enumerate(outs):
            analytical, again, well_formed = analytical_jacobian(out, t)
            if not well_formed:
                raise GradcheckError("Gradient has incorrect sizes or dtype mismatch for input " + str(i))
            if not again and nondet_tol == 0.0:
                raise GradcheckError(
                    "Backward is not reentrant, i.e., running backward with same input and grad_output multiple times gives different "
                    "values, although analytical gradient matches numerical gradient. The tolerance for nondeterminism was "
                    f"{nondet_tol}."
                )
            for kind, num, ana in _compare(numerical[o], analytical, t, out):
                if fast:
                    rng = np.random.default_rng(0)
                    u, v = rng.standard_normal(num.shape[0]), rng.standard_normal(num.shape[1])
                    num, ana = (u @ num @ v).reshape(1, 1), (u @ ana @ v).reshape(1, 1)
                if not np.allclose(ana, num, rtol=rtol, atol=atol, equal_nan=True):
                    raise GradcheckError(_message(kind, i, o, num, ana, rtol, atol))
    if undefined:
        _check_undefined(func, args, outs)


def _check_undefined(func: Any, args: tuple[Any, ...], outs: list[Tensor]) -> None:
    """A backward whose gradients are all zero must give zero or None, not fail."""
    diff_inputs = [t for t in args if isinstance(t, Tensor) and t._rg]
    fresh = _differentiable(func(*args))
    for k in range(len(fresh)):
        zeros = [wrap(np.zeros_like(o._a)) for o in fresh]
        try:
            gs = grad(list(fresh[k : k + 1]), diff_inputs, zeros[k : k + 1], allow_unused=True, retain_graph=True)
        except RuntimeError as e:
            raise GradcheckError("Expected backward function to handle undefined output grads. Please look at 'Notes about undefined output "
                                 "gradients' in tools/autograd/derivatives.yaml\n\nThe error was: " + str(e)) from e
        for g in gs:
            if g is not None and np.any(np.nan_to_num(np.asarray(g._a)) != 0):
                raise GradcheckError("Expected all input grads to be undefined or zero when all output grads are undefined or zero.")


def gradgradcheck(
    func: Callable[..., Any],
    inputs: Any,
    grad_outputs: Any = None,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    gen_non_contig_grad_outputs: bool = False,
    raise_exception: bool = True,
    nondet_tol: float = 0.0,
    check_undefined_grad: bool = True,
    check_grad_dtypes: bool = False,
    check_batched_grad: bool = False,
    check_fwd_over_rev: bool = False,
    check_rev_over_rev: bool = True,
    fast_mode: bool = False,
    masked: bool = False,
) -> bool:
    """``gradcheck`` of the backward pass: second derivatives, with random ``grad_outputs`` unless they are given."""
    if check_fwd_over_rev:
        raise error(NotImplementedError, "gradgradcheck(check_fwd_over_rev=True) is not in flambeau yet")
    args = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    if grad_outputs is None:
        rng = np.random.default_rng(0)
        made = []
        for o in _differentiable(func(*args)):
            v = rng.standard_normal(o._a.shape)
            if o.dtype.category == COMPLEX:
                v = v + 1j * rng.standard_normal(o._a.shape)
            a = np.asarray(v).astype(o._a.dtype)
            if gen_non_contig_grad_outputs and a.ndim:
                a = np.repeat(a, 2, axis=-1)[..., ::2]
            t = wrap(a)
            t._rg = True
            made.append(t)
        gs: tuple[Tensor, ...] = tuple(made)
    else:
        gs = (grad_outputs,) if isinstance(grad_outputs, Tensor) else tuple(grad_outputs)
    n = len(gs)

    def backward_of(*xs: Any) -> tuple[Tensor, ...]:
        args_, gs_ = xs[:-n], xs[-n:]
        with enable_grad():  # central differences call this with recording off; the inner pass needs it
            outs = _differentiable(func(*args_))
            ins = [t for t in args_ if isinstance(t, Tensor) and t._rg]
            found = grad(outs, ins, gs_, create_graph=True, allow_unused=True)
        return tuple([g for g in found if g is not None])

    return gradcheck(
        backward_of, (*args, *gs), eps=eps, atol=atol, rtol=rtol, raise_exception=raise_exception, nondet_tol=nondet_tol,
        check_undefined_grad=False, check_grad_dtypes=check_grad_dtypes, check_batched_grad=check_batched_grad,
        fast_mode=fast_mode, masked=masked,
    )
