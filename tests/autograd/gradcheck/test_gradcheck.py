"""gradcheck and gradgradcheck: what passes, what fails, and what each option does."""

from __future__ import annotations

import warnings

import numpy as np
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
    """Right, unless ``slope`` says otherwise."""

    slope = staticmethod(lambda x, g: 2 * x.conj() * g)

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @classmethod
    def backward(cls, ctx, g):
        return ctx._forward_cls.slope(*ctx.saved_tensors, g)


def square(slope):
    return type("Wrong", (Square,), {"slope": staticmethod(slope)}).apply


# ---- what passes --------------------------------------------------------------------------------------------------
PASSING = {
    "real": lambda: (torch.sin, (real(2, 3),)),
    "broadcast": lambda: (torch.mul, (real(2, 3), real(3))),
    "complex to complex": lambda: (lambda z: z * z.exp(), (cplx(3),)),
    "complex to real": lambda: (lambda z: z.abs() ** 2, (cplx(3),)),
    "real to complex": lambda: (lambda x: x * (1 + 2j), (real(3),)),
    "complex and real": lambda: (torch.mul, (cplx(2), real(2))),
    "not holomorphic": lambda: (lambda z: z.conj() * z.real, (cplx(2),)),
    "several outputs": lambda: (lambda x: (x.sin(), x.sum(), x.exp()), (real(3),)),
    "a list of outputs": lambda: (lambda x: [x.sin(), x.cos()], (real(3),)),
    "real and complex outputs": lambda: (lambda x: (x * 1j, x * 2), (real(2),)),
    "one output has no gradient": lambda: (lambda x: (x.detach() * 0, x.sin()), (real(2),)),
    "an output of integers first": lambda: (lambda x: (x.argmax(), x * 2), (real(3),)),
    "only integers": lambda: (lambda x: x.argmax(), (real(3),)),
    "an output without inputs": lambda: (lambda x: (x * 2, torch.ones(2)), (real(3),)),
    "independent": lambda: (lambda x: x.detach() * 0, (real(3),)),
    "an input that isn't used": lambda: (lambda x, y: x * 2, (real(3), real(2))),
    "inputs without grad": lambda: (lambda x, n, y: x * n + y, (real(3), 3, torch.ones(3))),
    "the input itself": lambda: (lambda x: x, (real(3),)),
    "a view of the input": lambda: (lambda x: x.view(3, 1), (real(3),)),
    "0-d": lambda: (torch.exp, (torch.tensor(0.3, dtype=torch.double, requires_grad=True),)),
    "empty": lambda: (torch.exp, (real(0, 2),)),
    "not contiguous": lambda: (torch.sin, (torch.randn(3, 2, dtype=torch.double).t().requires_grad_(),)),
    "every other": lambda: (torch.sin, (torch.randn(6, dtype=torch.double)[::2].requires_grad_(),)),
    "not a leaf": lambda: (torch.sin, (real(3) * 2,)),
    "in place inside": lambda: (lambda x: x.clone().mul_(3), (real(3),)),
    "a gradient inside": lambda: (lambda x: torch.autograd.grad((x**3).sum(), x, create_graph=True)[0], (real(3),)),
    "a tensor": lambda: (torch.sin, real(3)),
    "a list": lambda: (torch.mul, [real(3), real(3)]),
}


@MODES
@pytest.mark.parametrize("name", PASSING)
def test_passes(name, fast_mode):
    func, inputs = PASSING[name]()
    assert gradcheck(func, inputs, fast_mode=fast_mode) is True


SECOND = ["real", "broadcast", "complex to complex", "complex to real", "several outputs", "an input that isn't used", "0-d", "not contiguous", "not a leaf"]


@MODES
@pytest.mark.parametrize("name", SECOND)
def test_second_derivatives_pass(name, fast_mode):
    func, inputs = PASSING[name]()
    assert gradgradcheck(func, inputs, fast_mode=fast_mode) is True


def test_one_tensor_given_twice():
    x = real(3)
    assert gradcheck(torch.mul, (x, x))
    assert gradcheck(torch.mul, (x, x), fast_mode=True)


def test_functions_that_ignore_their_arguments():
    w = real(2, 2)
    x = real(2)
    assert gradcheck(lambda *_: w @ x, (w, x))


# ---- what it leaves behind -----------------------------------------------------------------------------------------
@MODES
def test_nothing_is_changed(fast_mode):
    torch.manual_seed(1)
    x, z = real(3), cplx(3)
    before, state = (x.tolist(), z.tolist(), x._version), torch.get_rng_state()
    gradcheck(torch.mul, (x, z), fast_mode=fast_mode)
    gradgradcheck(torch.mul, (x, z), fast_mode=fast_mode)
    assert (x.tolist(), z.tolist(), x._version) == before
    assert x.grad is None and z.grad is None
    assert torch.equal(torch.get_rng_state(), state)


@MODES
def test_inputs_are_restored_when_the_function_fails(fast_mode):
    x = real(3)
    before = x.tolist()

    def f(x):
        if x.tolist() != before:
            raise KeyError("mine")
        return x * 2

    with pytest.raises(KeyError, match="mine"):
        gradcheck(f, x, fast_mode=fast_mode, raise_exception=False)
    assert x.tolist() == before


# ---- what fails ---------------------------------------------------------------------------------------------------
@MODES
def test_mismatch(fast_mode):
    with pytest.raises(GradcheckError, match="^Jacobian mismatch for output 0 with respect to input 0,\nnumerical:(.|\n)*\nanalytical:") as e:
        gradcheck(square(lambda x, g: g * x), real(2), fast_mode=fast_mode)
    assert isinstance(e.value, RuntimeError)


@MODES
def test_the_indices_count_what_requires_grad(fast_mode):
    def f(n, x, y):
        return x.detach() * 0, x * 2, square(lambda x, g: g)(y)

    with pytest.raises(GradcheckError, match="output 1 with respect to input 1") as e:
        gradcheck(f, (torch.ones(2), real(2), real(2)), fast_mode=fast_mode)
    assert "d outputs[2][0] / d inputs[2][0]" in str(e.value)


@pytest.mark.parametrize("check", [gradcheck, gradgradcheck])
def test_raise_exception_false(check):
    f = square(lambda x, g: g * x.detach())
    assert check(f, real(2), raise_exception=False) is False
    assert check(torch.sin, real(2), raise_exception=False) is True


@MODES
def test_complex_parts_are_named(fast_mode):
    with pytest.raises(GradcheckError, match="^While considering the imaginary part of complex outputs only, Jacobian mismatch for output 0"):
        gradcheck(square(lambda x, g: 2 * x * g), cplx(2), fast_mode=fast_mode)
    only_real = lambda x: torch.complex(square(lambda x, g: x * g)(x), x)
    with pytest.raises(GradcheckError, match="^While considering the real part of complex outputs only, Jacobian mismatch for output 0"):
        gradcheck(only_real, real(2), fast_mode=fast_mode)


@MODES
def test_a_detached_output_must_not_depend(fast_mode):
    with pytest.raises(GradcheckError, match="^Numerical gradient for function expected to be zero"):
        gradcheck(lambda x: x.detach() * 2, real(3), fast_mode=fast_mode)


def test_nan_agrees_with_nothing():
    assert not gradcheck(lambda x: x * float("nan"), real(2), raise_exception=False)


def test_not_multiplied_by_grad_output():
    x = torch.tensor(2.0, dtype=torch.double, requires_grad=True)
    with pytest.raises(GradcheckError, match="^backward not multiplied by grad_output"):
        gradcheck(square(lambda x, g: 2 * x), x)


def test_fast_failure_shows_slow_mode():
    with pytest.raises(GradcheckError, match=r"slow mode.*Numerical:\ntensor.*Analytical:\ntensor.*max per-element difference \(slow mode\) is: ") as e:
        try:
            gradcheck(square(lambda x, g: g * x), real(2), fast_mode=True)
        except GradcheckError as found:
            raise GradcheckError(str(found).replace("\n", " ").replace(": tensor", ":\ntensor")) from found
    assert "multiply the gradient by 2" in str(e.value)


def test_fast_failure_where_slow_mode_passes():
    x = torch.tensor([1.0, -1.0], dtype=torch.double, requires_grad=True)  # whose derivatives nearly cancel in a sum
    f = square(lambda x, g: 2 * x * g * (1 + 9e-4 * x.sign()))
    assert gradcheck(f, x, atol=0.0)
    with pytest.raises(GradcheckError, match="Fast gradcheck failed but element-wise differences are small"):
        gradcheck(f, x, atol=0.0, fast_mode=True)


def test_fast_failure_of_something_large():
    with pytest.raises(GradcheckError, match="too large to be computed for this message: fast_mode=False does it"):
        gradcheck(square(lambda x, g: g * x), torch.ones(60, 50, dtype=torch.double).requires_grad_(), fast_mode=True)


def test_fast_mode_takes_one_pass_for_an_output():
    calls = {"forward": 0, "backward": 0}

    def slope(x, g):
        calls["backward"] += 1
        return 2 * x * g

    def f(x, w):
        calls["forward"] += 1
        return square(slope)(x) + w

    gradcheck(f, (real(30), real(30)), fast_mode=True, check_undefined_grad=False)
    # twice for each input and once for the graph; twice to see that it is the same, and once with zeros
    assert calls == {"forward": 5, "backward": 3}


# ---- tolerances ---------------------------------------------------------------------------------------------------
@MODES
def test_tolerances(fast_mode):
    off = square(lambda x, g: 2.02 * x * g)
    x = torch.tensor([1.0, 2.0], dtype=torch.double, requires_grad=True)
    assert not gradcheck(off, x, raise_exception=False, fast_mode=fast_mode)
    assert gradcheck(off, x, rtol=0.02, fast_mode=fast_mode)
    assert gradcheck(off, x, atol=0.05, rtol=0.0, fast_mode=fast_mode)
    assert not gradcheck(off, x, atol=0.01, rtol=0.0, raise_exception=False, fast_mode=fast_mode)


def test_eps():
    x = torch.tensor([0.5], dtype=torch.double, requires_grad=True)
    assert not gradcheck(lambda x: x**3, x, eps=0.5, raise_exception=False)
    assert gradcheck(lambda x: x**2, x, eps=0.5)  # central differences are exact for parabolas


def test_single_precision_with_larger_tolerances():
    x = torch.rand(3).requires_grad_()
    with pytest.warns(UserWarning, match="Input #0 requires gradient and is not a double precision floating point or complex"):
        assert gradcheck(torch.sin, x, eps=1e-2, atol=1e-2, rtol=1e-2)


def test_half_precision_outputs():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert gradcheck(lambda x: x * 2, torch.ones(2, dtype=torch.bfloat16, requires_grad=True), eps=0.125)


# ---- inputs and outputs ---------------------------------------------------------------------------------------------
def test_something_must_require_grad():
    with pytest.raises(ValueError, match="gradcheck expects at least one input tensor to require gradient, but none of them have requires_grad=True"):
        gradcheck(torch.sin, (torch.ones(3, dtype=torch.double), 3))


def test_expanded_inputs_are_refused():
    x = torch.randn(3, 1, dtype=torch.double).expand(3, 2).requires_grad_()
    with pytest.raises(RuntimeError, match="The 1th input has a dimension with stride 0. gradcheck only supports inputs that are non-overlapping"):
        gradcheck(lambda n, x: x, (1, x))


@pytest.mark.parametrize("outputs, kind", [(3, "int"), (None, "NoneType"), ({"a": 1}, "dict")])
def test_outputs_must_be_tensors(outputs, kind):
    with pytest.raises(AttributeError, match=f"'{kind}' object has no attribute 'requires_grad'"):
        gradcheck(lambda x: outputs, real(2))
    with pytest.raises(AttributeError, match=f"'{kind}' object has no attribute 'requires_grad'\n.*\n.*output 1 is of type {kind}"):
        gradcheck(lambda x: (x, outputs), real(2))


@MODES
@pytest.mark.parametrize("change", ["shape", "dtype"])
def test_outputs_must_keep_shape_and_dtype(change, fast_mode):
    calls = []

    def f(x):
        calls.append(x)
        if len(calls) % 2:
            return x * 2
        return (x * 2)[:1] if change == "shape" else (x * 2).float()

    with pytest.raises(AssertionError, match=f"Expected `func` to return outputs with the same {change} when inputs are perturbed"):
        gradcheck(f, real(3), fast_mode=fast_mode)


# ---- options --------------------------------------------------------------------------------------------------------
def noisy(amount):
    return square(lambda x, g: 2 * x * g + amount * torch.rand(x.shape, dtype=torch.double) * g)


@MODES
def test_nondeterminism(fast_mode):
    with pytest.raises(GradcheckError, match="^Backward is not reentrant, i.e., running backward with same input and grad_output multiple times"):
        gradcheck(noisy(1e-8), real(3), fast_mode=fast_mode)
    assert gradcheck(noisy(1e-8), real(3), nondet_tol=1e-7, fast_mode=fast_mode)
    assert not gradcheck(noisy(1e-6), real(3), nondet_tol=1e-9, raise_exception=False, fast_mode=fast_mode)


def test_nondeterminism_in_one_row():
    count = iter(range(1000))
    f = square(lambda x, g: 2 * x * g + 1e-9 * (g[2] != 0) * next(count))
    with pytest.raises(GradcheckError, match=r"not reentrant.*\n.*\n.*The gradient for input\[\d\] changed by 3e-09"):
        gradcheck(f, real(3))


class Both(Function):
    """Two outputs, and whatever ``rule`` makes of their gradients, which may be None."""

    rule = staticmethod(lambda g, h: (g, h))

    @staticmethod
    def forward(ctx, x, y):
        ctx.set_materialize_grads(False)
        return x * 1, y * 1

    @staticmethod
    def backward(ctx, g, h):
        return ctx._forward_cls.rule(g, h)


def both(rule):
    return type("Both", (Both,), {"rule": staticmethod(rule)}).apply


@MODES
def test_undefined_gradients(fast_mode):
    x, y = real(2), real(2)
    zeros = lambda t: torch.zeros(2, dtype=torch.double) if t is None else t
    assert gradcheck(both(lambda g, h: (g, h)), (x, y), fast_mode=fast_mode)
    assert gradcheck(both(lambda g, h: (zeros(g), zeros(h))), (x, y), fast_mode=fast_mode)

    def fails(g, h):
        if g is None and h is None:
            raise RuntimeError("mine")
        return g, h

    with pytest.raises(GradcheckError, match="Expected backward function to handle undefined output grads") as e:
        gradcheck(both(fails), (x, y), fast_mode=fast_mode)
    assert "mine" in str(e.value) and "check_undefined_grad=False" in str(e.value)
    assert gradcheck(both(fails), (x, y), check_undefined_grad=False, fast_mode=fast_mode)

    def ones(g, h):
        return (torch.ones(2, dtype=torch.double), None) if g is None and h is None else (g, h)

    with pytest.raises(GradcheckError, match="Expected all input grads to be undefined or zero when all output grads are undefined or zero"):
        gradcheck(both(ones), (x, y), fast_mode=fast_mode)


def test_each_output_is_left_undefined_in_turn():
    seen = set()

    def rule(g, h):
        seen.add((g is None, h is None))
        return g, h

    gradcheck(both(rule), (real(2), real(2)))
    assert seen == {(False, True), (True, False), (True, True), (False, False)}


def test_grad_dtypes():
    """A Function's gradients are converted by the engine; an operator's own rule is what could break this."""
    from flambeau.autograd.primitive import primitive

    @primitive(vjp={"a": lambda g: (2 * g).float()})
    def twice(a, /):
        return a * 2

    x = real(2)
    with pytest.raises(GradcheckError, match="Gradient has dtype mismatch"):
        gradcheck(twice, x, check_grad_dtypes=True)
    with pytest.raises(GradcheckError, match="grad is incorrect type"):
        gradcheck(twice, x)


def test_wrong_sizes():
    from flambeau.autograd.primitive import primitive

    @primitive(vjp={"a": lambda g: g[:1] * 2})
    def twice(a, /):
        return a * 2

    with pytest.raises(GradcheckError, match="Analytical gradient has incorrect size"):
        gradcheck(twice, real(2))


@pytest.mark.parametrize(
    "options, phrase",
    [
        ({"check_backward_ad": False}, "Expected at least one of check_forward_ad or check_backward_ad to be True"),
        ({"check_backward_ad": False, "check_forward_ad": True, "check_batched_grad": True}, "Setting check_batched_grad=True requires check_backward_ad"),
        ({"check_batched_forward_grad": True}, "Setting check_batched_forward_grad=True requires check_forward_ad to be True"),
    ],
)
def test_options_that_exclude_each_other(options, phrase):
    with pytest.raises(AssertionError, match=phrase):
        gradcheck(torch.sin, real(2), **options)


def test_options_of_gradgradcheck_that_exclude_each_other():
    for options, phrase in (
        ({"check_rev_over_rev": False}, "Expected at least one of check_fwd_over_rev or check_rev_over_rev to be True"),
        ({"check_rev_over_rev": False, "check_fwd_over_rev": True}, "Setting check_undefined_grad=True requires check_rev_over_rev to be True"),
        (
            {"check_rev_over_rev": False, "check_fwd_over_rev": True, "check_undefined_grad": False, "check_batched_grad": True},
            "Setting check_batched_grad=True requires check_rev_over_rev to be True",
        ),
    ):
        with pytest.raises(AssertionError, match=phrase):
            gradgradcheck(torch.sin, real(2), **options)


def test_masked_is_for_sparse_tensors():
    for check in (gradcheck, gradgradcheck):
        with pytest.raises(NotImplementedError, match="masked"):
            check(torch.sin, real(2), masked=True)
        assert check(torch.sin, real(2), masked=False)
    assert gradcheck(torch.sin, real(2), masked=None)


# ---- second derivatives ---------------------------------------------------------------------------------------------
@MODES
def test_a_backward_that_isnt_differentiable(fast_mode):
    f = square(lambda x, g: 2 * x.detach() * g)
    assert gradcheck(f, real(2), fast_mode=fast_mode)
    with pytest.raises(GradcheckError, match="Jacobian mismatch for output 0 with respect to input 0") as e:
        gradgradcheck(f, real(2), fast_mode=fast_mode)
    assert "d grad_input[0] / d input[0]" in str(e.value)


def test_once_differentiable_has_no_second_derivative():
    class Once(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, g):
            return 2 * ctx.saved_tensors[0] * g

    assert gradcheck(Once.apply, real(2))
    with pytest.raises(GradcheckError, match="Jacobian mismatch for output 0 with respect to input 0") as e:
        gradgradcheck(Once.apply, real(2))
    assert "Likely cause: a backward on the way is marked once_differentiable" in str(e.value)


def test_given_grad_outputs():
    x = real(3)
    g = real(3)
    assert gradgradcheck(torch.exp, x, g)
    assert gradgradcheck(torch.exp, (x,), (g.detach(),))
    assert gradgradcheck(lambda x: (x.exp(), x.sin()), (x,), (g, real(3)))


def test_grad_outputs_that_arent_contiguous():
    seen = []

    def slope(x, g):
        seen.append(g.is_contiguous())
        return 2 * x * g

    gradgradcheck(square(slope), real(3), gen_non_contig_grad_outputs=True)
    assert not seen[0]
    seen.clear()
    gradgradcheck(square(slope), real(3))
    assert seen[0]


def test_random_grad_outputs_are_always_the_same():
    from flambeau.autograd.gradcheck.second import Backward

    one, two = (Backward(torch.sin, real(4), None, False).arguments[1] for _ in range(2))
    assert torch.equal(one, two)
    assert (one.abs() <= 1).all() and one.requires_grad and one.dtype is torch.double


# ---- names ----------------------------------------------------------------------------------------------------------
def test_the_module_and_the_function_have_one_name():
    import importlib

    module = importlib.import_module("flambeau.autograd.gradcheck")
    assert torch.autograd.gradcheck is module.gradcheck
    assert set(module.__all__) >= {"gradcheck", "gradgradcheck", "GradcheckError"}
    assert all(hasattr(module, name) for name in module.__all__)
    with pytest.raises(AttributeError):
        module.nothing  # noqa: B018


def test_one_name_under_flambeau_run(tmp_path):
    import subprocess
    import sys

    script = tmp_path / "script.py"
    script.write_text(
        "import torch.autograd.gradcheck\n"
        "from torch.autograd.gradcheck import GradcheckError, get_numerical_jacobian, gradcheck\n"
        "x = torch.ones(2, dtype=torch.double, requires_grad=True)\n"
        "print(torch.autograd.gradcheck(torch.sin, x), torch.autograd.gradcheck is gradcheck, issubclass(GradcheckError, RuntimeError))\n"
    )
    done = subprocess.run([sys.executable, "-m", "flambeau", "run", str(script)], capture_output=True, text=True)
    assert done.stdout.split() == ["True"] * 3, done.stderr


def test_jacobians():
    from flambeau.autograd.gradcheck import (
        get_analytical_jacobian,
        get_numerical_jacobian,
        get_numerical_jacobian_wrt_specific_input,
    )

    x, y = torch.tensor([1.0, 2.0], dtype=torch.double, requires_grad=True), real(2)
    with pytest.warns(FutureWarning, match="get_numerical_jacobian"):
        (found,) = get_numerical_jacobian(lambda xs: xs[0] * xs[0], (x,), eps=1e-6)
    assert np.allclose(found.numpy(), [[2, 0], [0, 4]], atol=1e-8)
    with pytest.warns(FutureWarning, match="get_analytical_jacobian"):
        jacobians, reentrant, sizes_ok, types_ok = get_analytical_jacobian((x,), x * x)
    assert jacobians[0].tolist() == [[2, 0], [0, 4]] and reentrant and sizes_ok and types_ok
    found = get_numerical_jacobian_wrt_specific_input(lambda a, b: (a * b, a + b), 1, (x, y), (x, x), 1e-6)
    assert len(found) == 2 and np.allclose(found[0].numpy(), np.diag([1, 2])) and np.allclose(found[1].numpy(), np.eye(2))
    z = cplx(2)
    (found,) = get_numerical_jacobian_wrt_specific_input(lambda z: z.abs() ** 2, 0, (z,), (x,), 1e-6)
    assert np.allclose(found.numpy(), np.diag(2 * z.detach().numpy()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ValueError, match="Expected grad_out to be 1.0"):
            get_numerical_jacobian(lambda xs: xs[0], (x,), grad_out=2.0)
        with pytest.raises(ValueError, match="Expected output to be non-complex"):
            get_analytical_jacobian((z,), z * 2)
    with pytest.raises(AssertionError, match="Expected input to have requires_grad=True"):
        get_numerical_jacobian_wrt_specific_input(lambda a: a, 0, (x.detach(),), (x,), 1e-6)
