"""Derivatives checked against central differences: PyTorch's ``torch.autograd.gradcheck``.

================  ==================================================================================================
``check``         what a check consists of, and in which order
``problem``       the function with its inputs and outputs, as every part of a check wants it
``numerical``     central differences: Jacobians, and products with a random direction (``vectors``)
``analytical``    the same by backward passes and by forward mode
``further``       undefined and zero gradients, gradients under vmap
``second``        the backward pass as a function of its own, which ``gradgradcheck`` checks
``report``        what a failed check says; ``causes`` guesses from the ``evidence`` what is wrong, ``factors`` which factor
``jacobians``     the Jacobians alone, under the names that PyTorch keeps for older programs
================  ==================================================================================================

Only this file is imported with flambeau; the others come with the first check.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...core.errors import error


class GradcheckError(RuntimeError):
    """A derivative disagrees with central differences, or a backward breaks a rule that all must keep."""


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
    """Whether the derivatives of ``func`` agree with central differences at ``inputs``.

    Column i of the numerical Jacobian is ``(func(x + eps e_i) - func(x - eps e_i)) / (2 eps)``, row o of the
    analytical one the backward pass of ``e_o``; they must agree to ``atol + rtol * |numerical|`` in every entry. For
    complex inputs the derivatives along 1 and i make the conjugate Wirtinger derivative; of complex outputs the real
    and the imaginary part are checked one after the other.

    - ``inputs``: a tensor or a tuple; those that require grad are checked, and should be float64 or complex128.
    - ``fast_mode``: compare ``vᵀ J u`` for random u and v: two calls for an input, one backward pass for an output.
    - ``check_forward_ad``, ``check_backward_ad``: which of the two modes to check.
    - ``nondet_tol``: how much two backward passes with the same arguments may differ.
    - ``check_undefined_grad``: outputs that get no gradient must count as getting zeros.
    - ``check_grad_dtypes``: gradients must have the dtype of their input.
    - ``check_batched_grad``, ``check_batched_forward_grad``: gradients under vmap must agree with those one by one.

    Raises GradcheckError, with the worst entries, the likely cause and the line of the backward, or returns False if
    ``raise_exception`` is False. What ``func`` itself raises passes through.

    >>> import flambeau as torch
    >>> x = torch.randn(3, dtype=torch.double, requires_grad=True)
    >>> torch.autograd.gradcheck(torch.sin, (x,))
    True
    """
    for wrong, phrase in (
        (not (check_forward_ad or check_backward_ad), "Expected at least one of check_forward_ad or check_backward_ad to be True"),
        (check_batched_grad and not check_backward_ad, "Setting check_batched_grad=True requires check_backward_ad to be True"),
        (check_batched_forward_grad and not check_forward_ad, "Setting check_batched_forward_grad=True requires check_forward_ad to be True"),
    ):
        if wrong:
            raise error(AssertionError, phrase)
    if masked:
        raise error(NotImplementedError, "gradcheck(masked=True) is for sparse tensors, which flambeau doesn't have", hint="Leave `masked` out.")
    from .check import Options, run

    options = Options(
        eps=eps, atol=atol, rtol=rtol, nondet_tol=nondet_tol, undefined_grad=check_undefined_grad, grad_dtypes=check_grad_dtypes,
        batched_grad=check_batched_grad, batched_forward_grad=check_batched_forward_grad, forward_ad=check_forward_ad,
        backward_ad=check_backward_ad, fast=fast_mode,
    )  # fmt: skip
    try:
        return run(func, inputs, options)
    except GradcheckError:
        if raise_exception:
            raise
        return False


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
    """``gradcheck`` of the backward pass of ``func``: second derivatives.

    What is checked is the function of ``inputs`` and ``grad_outputs`` that returns the gradients of the inputs.
    ``grad_outputs`` are random in [-1, 1] unless given (not contiguous, if ``gen_non_contig_grad_outputs``).
    ``check_rev_over_rev`` and ``check_fwd_over_rev`` choose the mode of the second derivative; the rest is as for
    ``gradcheck``.

    >>> import flambeau as torch
    >>> x = torch.randn(3, dtype=torch.double, requires_grad=True)
    >>> torch.autograd.gradgradcheck(torch.exp, (x,))
    True
    """
    for wrong, phrase in (
        (not (check_fwd_over_rev or check_rev_over_rev), "Expected at least one of check_fwd_over_rev or check_rev_over_rev to be True"),
        (check_undefined_grad and not check_rev_over_rev, "Setting check_undefined_grad=True requires check_rev_over_rev to be True"),
        (check_batched_grad and not check_rev_over_rev, "Setting check_batched_grad=True requires check_rev_over_rev to be True"),
    ):
        if wrong:
            raise error(AssertionError, phrase)
    from .second import Backward

    backward = Backward(func, inputs, grad_outputs, gen_non_contig_grad_outputs)
    return gradcheck(
        backward, backward.arguments, eps=eps, atol=atol, rtol=rtol, raise_exception=raise_exception, nondet_tol=nondet_tol,
        check_undefined_grad=check_undefined_grad, check_grad_dtypes=check_grad_dtypes, check_batched_grad=check_batched_grad,
        check_forward_ad=check_fwd_over_rev, check_backward_ad=check_rev_over_rev, fast_mode=fast_mode, masked=masked,
    )  # fmt: skip


_OLDER = ("get_analytical_jacobian", "get_numerical_jacobian", "get_numerical_jacobian_wrt_specific_input")


def __getattr__(name: str) -> Any:
    if name in _OLDER:
        from . import jacobians

        return getattr(jacobians, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "gradcheck", "gradgradcheck", "GradcheckError", "get_numerical_jacobian", "get_analytical_jacobian",
    "get_numerical_jacobian_wrt_specific_input",
]  # fmt: skip
