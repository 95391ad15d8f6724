"""gradcheck of forward mode, of batched gradients, and of forward mode over reverse."""

from __future__ import annotations

import warnings

import pytest

import flambeau as torch
from flambeau.autograd import Function, gradcheck, gradgradcheck
from flambeau.autograd.gradcheck import GradcheckError

MODES = pytest.mark.parametrize("fast_mode", [False, True])


def real(*shape):
    return torch.randn(*shape, dtype=torch.double).requires_grad_()


def cplx(*shape):
    return torch.randn(*shape, dtype=torch.cdouble).requires_grad_()


class Square(Function):
    tangent = staticmethod(lambda x, t: 2 * x * t)

    @staticmethod
    def forward(x):
        return x * x

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx, g):
        return 2 * ctx.saved_tensors[0].conj() * g

    @staticmethod
    def jvp(ctx, t):
        return ctx._forward_cls.tangent(ctx.saved_tensors[0], t)


def square(tangent):
    return type("Wrong", (Square,), {"tangent": staticmethod(tangent)}).apply


PASSING = {
    "real": lambda: (torch.sin, (real(2, 3),)),
    "two inputs": lambda: (torch.mm, (real(2, 3), real(3, 2))),
    "complex to complex": lambda: (torch.exp, (cplx(3),)),
    "complex to real": lambda: (torch.abs, (cplx(3),)),
    "real to complex": lambda: (lambda x: x * (1 + 2j), (real(3),)),
    "complex and real": lambda: (torch.mul, (cplx(2), real(2))),
    "several outputs": lambda: (lambda x: (x.sin(), x.detach() * 0, x.sum()), (real(3),)),
    "an input that isn't used": lambda: (lambda x, y: x * 2, (real(3), real(2))),
    "inputs without grad": lambda: (lambda x, n, y: x * n + y, (real(3), 3, torch.ones(3))),
    "a view": lambda: (lambda x: x[:, 1:].t(), (real(2, 3),)),
    "0-d": lambda: (torch.exp, (torch.tensor(0.3, dtype=torch.double, requires_grad=True),)),
    "a Function": lambda: (Square.apply, (cplx(3),)),
}


@MODES
@pytest.mark.parametrize("name", PASSING)
def test_forward_mode_passes(name, fast_mode):
    func, inputs = PASSING[name]()
    assert gradcheck(func, inputs, check_forward_ad=True, fast_mode=fast_mode)
    assert gradcheck(func, inputs, check_forward_ad=True, check_backward_ad=False, fast_mode=fast_mode)


@MODES
def test_forward_mode_fails(fast_mode):
    wrong = square(lambda x, t: x * t)
    assert gradcheck(wrong, real(2), fast_mode=fast_mode)  # the backward is right
    with pytest.raises(GradcheckError, match="^Jacobian computed with forward mode mismatch for output 0 with respect to input 0") as e:
        gradcheck(wrong, real(2), check_forward_ad=True, fast_mode=fast_mode)
    assert "multiply the tangent by 2" in str(e.value) and "Wrong.jvp at " in str(e.value)
    assert "d output[0] / d input[0]" in str(e.value)


@MODES
def test_parts_of_complex_inputs_are_named(fast_mode):
    with pytest.raises(GradcheckError, match="^While considering the imaginary part of complex inputs only, Jacobian computed with forward mode mismatch"):
        gradcheck(square(lambda x, t: 2 * x * t.real), cplx(2), check_forward_ad=True, fast_mode=fast_mode)
    with pytest.raises(GradcheckError, match="^While considering the real part of complex inputs only, Jacobian computed with forward mode mismatch"):
        gradcheck(square(lambda x, t: 2 * x * t.imag * 1j), cplx(2), check_forward_ad=True, fast_mode=fast_mode)


def test_a_dropped_tangent():
    with pytest.raises(GradcheckError, match="the tangent is dropped: what arrives for input is zero"):
        gradcheck(square(lambda x, t: torch.zeros_like(t)), real(2), check_forward_ad=True)


def test_backward_isnt_needed_for_forward_mode_alone():
    class NoBackward(Function):
        forward, setup_context, jvp = Square.forward, Square.setup_context, lambda ctx, t: 2 * ctx.saved_tensors[0] * t

    assert gradcheck(NoBackward.apply, real(2), check_forward_ad=True, check_backward_ad=False)


class Product(Function):
    """Whose tangent is wrong where an argument has none."""

    @staticmethod
    def forward(x, y):
        return x * y

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_forward(*inputs)
        ctx.save_for_backward(*inputs)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx, g):
        x, y = ctx.saved_tensors
        return (None, None) if g is None else (g * y, g * x)

    @staticmethod
    def jvp(ctx, t, u):
        x, y = ctx.saved_tensors
        if t is None or u is None:
            return x * 100
        return t * y + u * x


def test_undefined_tangents():
    inputs = real(2), real(2)
    with pytest.raises(GradcheckError, match="Mismatch in tangent values for output with index: 0 when input: (.|\n)* has an undefined tangent value"):
        gradcheck(Product.apply, inputs, check_forward_ad=True)
    assert gradcheck(Product.apply, inputs, check_forward_ad=True, check_undefined_grad=False)


# ---- batches --------------------------------------------------------------------------------------------------------
@MODES
@pytest.mark.parametrize("name", ["real", "two inputs", "complex to complex", "several outputs", "an input that isn't used", "a view"])
def test_batched_gradients_pass(name, fast_mode):
    func, inputs = PASSING[name]()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # slow batching rules are nothing to warn of here
        assert gradcheck(func, inputs, check_batched_grad=True, fast_mode=fast_mode)
        assert gradcheck(func, inputs, check_forward_ad=True, check_batched_forward_grad=True, fast_mode=fast_mode)


def test_a_backward_that_doesnt_batch():
    class ThroughNumbers(Function):
        @staticmethod
        def forward(ctx, x):
            return x * 1

        @staticmethod
        def backward(ctx, g):
            return torch.tensor(g.tolist(), dtype=g.dtype)

    assert gradcheck(ThroughNumbers.apply, real(3))
    with pytest.raises(GradcheckError, match="^While computing batched gradients, got: ") as e:
        gradcheck(ThroughNumbers.apply, real(3), check_batched_grad=True)
    assert "check_batched_grad=False" in str(e.value)


def test_a_backward_that_batches_wrongly():
    from flambeau.autograd.transforms.batched import Batched

    class Wrong(Function):
        @staticmethod
        def forward(ctx, x):
            return x * 1

        @staticmethod
        def backward(ctx, g):
            return g * 2 if isinstance(g, Batched) else g

    with pytest.raises(GradcheckError, match="For output 0 and input 0:(.|\n)*Got:(.|\n)*Expected:"):
        gradcheck(Wrong.apply, real(3), check_batched_grad=True)


# ---- second derivatives -----------------------------------------------------------------------------------------------
@MODES
@pytest.mark.parametrize("name", ["real", "two inputs", "complex to complex", "0-d"])
def test_forward_over_reverse(name, fast_mode):
    func, inputs = PASSING[name]()
    assert gradgradcheck(func, inputs, check_fwd_over_rev=True, fast_mode=fast_mode)
    assert gradgradcheck(func, inputs, check_fwd_over_rev=True, check_rev_over_rev=False, check_undefined_grad=False, fast_mode=fast_mode)


@MODES
def test_forward_over_reverse_fails(fast_mode):
    class Cube(Square):
        @staticmethod
        def forward(x):
            return x**3

        @staticmethod
        def backward(ctx, g):
            return 3 * g * square(lambda x, t: x * t)(ctx.saved_tensors[0])

    assert gradgradcheck(Cube.apply, real(2), fast_mode=fast_mode)
    with pytest.raises(GradcheckError, match="^Jacobian computed with forward mode mismatch for output 0 with respect to input 0") as e:
        gradgradcheck(Cube.apply, real(2), check_fwd_over_rev=True, fast_mode=fast_mode)
    assert "multiply the tangent by 2" in str(e.value) and "d grad_input[0] / d input[0]" in str(e.value)


@MODES
def test_batched_second_derivatives(fast_mode):
    assert gradgradcheck(lambda x: x.sin() * x, real(3), check_batched_grad=True, fast_mode=fast_mode)
