"""What a failed gradcheck says: the worst entries, the likely cause, and where the derivative is written."""

from __future__ import annotations

import inspect
import warnings

import pytest

import flambeau as torch
from flambeau.autograd import Function, gradcheck, gradgradcheck
from flambeau.autograd.gradcheck import GradcheckError


def real(*shape):
    return torch.randn(*shape, dtype=torch.double).requires_grad_()


def cplx(*shape):
    return torch.randn(*shape, dtype=torch.cdouble).requires_grad_()


def function(forward, backward, **more):
    """A Function of plain ``forward(*tensors)`` and ``backward(g, *tensors)``."""

    def run(ctx, *tensors):
        ctx.save_for_backward(*tensors)
        return forward(*tensors)

    methods = {"forward": run, "backward": lambda ctx, g: backward(g, *ctx.saved_tensors), **more}
    return type("Wrong", (Function,), {name: staticmethod(f) for name, f in methods.items()}).apply


def report(func, *inputs, check=gradcheck, **options):
    with pytest.raises(GradcheckError) as e, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check(func, inputs, **options)
    return str(e.value)


def cause(func, *inputs, **options):
    text = report(func, *inputs, **options)
    assert "Likely cause: " in text, text
    return text.split("Likely cause: ")[1].split("\n")[0]


W = torch.tensor([[1.0, 2.0, -1.0], [0.5, 3.0, 1.0], [2.0, -2.0, 0.7]], dtype=torch.double)
C = torch.tensor([1 + 2j, 3 - 1j])
SQUARE, TWICE, PRODUCT = (lambda x: x * x), (lambda x: x * 2), (lambda x, y: x * y)


def only(part, value):
    """A backward of ``TWICE`` that is wrong in a part of the gradient."""

    def backward(g, *_):
        g = (g * 2).clone()
        g[part] *= value
        return g

    return backward


CAUSES = {
    "a number": (SQUARE, lambda g, x: g * x, [(3,)], "a factor is missing: multiply the gradient by 2; "),
    "a fraction": (TWICE, lambda g, x: g * 6, [(5,)], "multiply the gradient by 1 / 3; "),
    "a negative number": (TWICE, lambda g, x: -g, [(5,)], "multiply the gradient by -2; "),
    "pi": (lambda x: x * 2 * torch.pi, lambda g, x: g, [(3,)], "multiply the gradient by 2 * pi; "),
    "log(2)": (torch.exp2, lambda g, x: g * torch.exp2(x), [(3,)], "multiply the gradient by log(2); "),
    "some number": (lambda x: x * 1.2345, lambda g, x: g, [(3,)], "multiply the gradient by 1.2345; "),
    "the size": (torch.mean, lambda g, x: g.expand(4, 5), [(4, 5)], "multiply the gradient by 1 / 20, which is 1 / input.numel(); "),
    "the length of an axis": (lambda x: x.mean(1), lambda g, x: g[:, None].expand(4, 5), [(4, 5)], "by 1 / 5, which is 1 / input.shape[1]; "),
    "the input": (SQUARE, lambda g, x: g * 2, [(3,)], "a factor is missing: multiply the gradient by input."),
    "its square": (lambda x: x**3, lambda g, x: g * 3, [(4,)], "multiply the gradient by input ** 2."),
    "with a number": (lambda x: x**3, lambda g, x: g, [(4,)], "multiply the gradient by 3 * input ** 2."),
    "cos": (torch.sin, lambda g, x: g, [(4,)], "multiply the gradient by cos(input)."),
    "the output": (torch.tanh, lambda g, x: g, [(4,)], "multiply the gradient by (1 - output ** 2)."),
    "another input": (PRODUCT, lambda g, x, y: (g, g * x), [(3,), (3,)], "multiply the gradient by inputs[1]."),
    "another input, broadcast": (PRODUCT, lambda g, x, y: (g, (g * x).sum(0)), [(2, 3), (3,)], "multiply the gradient by inputs[1]."),
    "sign": (SQUARE, lambda g, x: -2 * g * x, [(3,)], "the sign: the gradient is the negative"),
    "dropped (None)": (SQUARE, lambda g, x: None, [(3,)], "the gradient is dropped: no gradient arrives at input (backward returns None"),
    "dropped (zero)": (SQUARE, lambda g, x: g * 0, [(3,)], "the gradient is dropped: what arrives for input is zero."),
    "one of two dropped": (PRODUCT, lambda g, x, y: (g * y, None), [(3,), (3,)], "no gradient arrives at inputs[1] "),
    "in the wrong order": (PRODUCT, lambda g, x, y: (g * x, g * y), [(3,), (3,)], "the gradient of inputs[1] is given for inputs[0]"),
    "transposed Jacobian": (lambda x: x @ W, lambda g, x: g @ W, [(3,)], "the result is transposed: the derivative multiplies by J where it needs Jᵀ"),
    "transposed gradient": (lambda x: x @ W, lambda g, x: (g @ W.T).T, [(3, 3)], "the gradient for input is transposed: exchange its axes 0 and 1."),
    "reshaped, not transposed": (lambda x: x.T * 2, lambda g, x: g.reshape(2, 3) * 2, [(2, 3)], "by reshape or view, where transpose(0, 1) is needed."),
    "reversed": (lambda x: x.flip(0) * 2, lambda g, x: g * 2, [(4,)], "the gradient for input is in reversed order along axis 0."),
    "shifted": (lambda x: x.roll(1, 0) * 2, lambda g, x: g * 2, [(5,)], "the gradient for input is shifted by 1 along axis 0"),
    "sum left out": (lambda x: x.expand(4, 3) * 2, lambda g, x: g[0] * 2, [(3,)], "a sum over a broadcast axis is left out: input is repeated along axis 0"),
    "sum left out (size 1)": (lambda x: x * torch.ones(2, 5), lambda g, x: g[:, 2:3], [(2, 1)], "repeated along axis 1 of the output, but its gradient takes only what arrives at index 2 "),
    "mean for sum": (lambda x: x.expand(4, 3) * 2, lambda g, x: g.mean(0) * 2, [(3,)], "by 4, which is how often input is repeated by broadcasting: sum over"),
    "sum over the wrong axis": (lambda x: x.expand(3, 3) * 2, lambda g, x: g.sum(1) * 2, [(3,)], "the sum is over the wrong axis of grad_output: over 1 instead of 0"),
    "sum too much": (TWICE, lambda g, x: (g.sum(1, keepdim=True) * 2).expand(2, 3), [(2, 3)], "the gradient for input is summed over axis 1 and then repeated"),
    "mean too much": (TWICE, lambda g, x: (g.mean() * 2).expand(2, 3), [(2, 3)], "the gradient for input is averaged over axes 0, 1 and then repeated"),
    "a row dropped": (TWICE, only(1, 0), [(3, 2)], "only the gradient for input[1, :] is wrong: it is dropped there (zero)."),
    "a column with a factor": (TWICE, only((slice(None), 1), 3), [(3, 4)], "only the gradient for input[:, 1] is wrong: it must be multiplied by 1 / 3 there."),
    "two entries with the wrong sign": (TWICE, only(torch.tensor([0, 3]), -1), [(5,)], "only the gradient for input[[0, 3]] is wrong: its sign."),
    "a mask left out": (lambda x: x.clamp(-0.5, 0.5), lambda g, x: g, None, "only the gradient for input[[0, 3]] is wrong: it should be zero there."),
    "a constant added": (SQUARE, lambda g, x: 2 * g * x + 0.5, [(3,)], "something is added to the gradient that doesn't depend on grad_output (0.5)."),
    "not linear": (TWICE, lambda g, x: (g + x).exp(), [(3,)], "the gradient isn't linear in grad_output: for zeros it isn't zero."),
    "not times grad_output": (TWICE, lambda g, x: torch.full_like(g, 2), [(3,)], "the gradient doesn't depend on grad_output: multiply by it."),
}  # fmt: skip


@pytest.mark.parametrize("name", CAUSES)
def test_likely_cause(name):
    forward, backward, shapes, wanted = CAUSES[name]
    torch.manual_seed(3)
    inputs = [torch.tensor([-2.0, -0.1, 0.1, 3.0], dtype=torch.double, requires_grad=True)] if shapes is None else [real(*s) for s in shapes]
    assert wanted in cause(function(forward, backward), *inputs)


@pytest.mark.parametrize("name", ["a number", "sign", "dropped (None)", "sum left out", "a row dropped", "transposed gradient"])
def test_fast_mode_finds_the_same_cause(name):
    forward, backward, shapes, wanted = CAUSES[name]
    torch.manual_seed(3)
    assert wanted in cause(function(forward, backward), *[real(*s) for s in shapes], fast_mode=True)


CONJUGATES = {
    "complex to complex": (SQUARE, lambda g, z: 2 * g * z, cplx),
    "complex to real": (lambda z: z.abs() ** 2, lambda g, z: 2 * g * z.conj(), cplx),
    "real to complex": (lambda x: x * C, lambda g, x: (g * C).real, real),
}


@pytest.mark.parametrize("name", CONJUGATES)
def test_missing_conjugate(name):
    forward, backward, kind = CONJUGATES[name]
    assert cause(function(forward, backward), kind(2)) == "a conjugate is missing: the gradient of a complex function is grad_output * derivative.conj()."


def test_a_complex_factor():
    assert "a factor is missing: multiply the gradient by 2; " in cause(function(SQUARE, lambda g, z: g * z.conj()), cplx(2))


def test_wrong_places():
    weights = torch.arange(1.0, 5, dtype=torch.double)
    wrong = function(lambda x: x * weights, lambda g, x: (g * weights)[torch.tensor([1, 0, 2, 3])])
    assert cause(wrong, real(4)) == "the right values in the wrong places: what input[0] should get is at input[1]."


def test_swapped_entries_of_grad_output():
    weights = torch.arange(1.0, 10, dtype=torch.double).reshape(3, 3)
    f = function(lambda x: x * weights, lambda g, x: g.T * weights)
    assert "transposed" in cause(f, real(3, 3))
    f = function(lambda x: (x * weights).sum() * weights, lambda g, x: (g.T * weights).sum() * weights)
    assert "the gradient for input takes grad_output with its axes 0 and 1 exchanged." in cause(f, real(3, 3))


# ---- not the derivative's fault -------------------------------------------------------------------------------------
def test_kinks():
    zero = torch.zeros(2, dtype=torch.double, requires_grad=True)
    assert cause(torch.relu, zero) == "the function isn't smooth at input[0]: its slope is 0 on one side and 1 on the other. Check at another point."
    assert "the function isn't smooth at input[" in cause(lambda x: x.max(), torch.ones(3, dtype=torch.double, requires_grad=True))


def test_random_functions():
    assert "the function isn't deterministic" in cause(lambda x: torch.nn.functional.dropout(x), real(20))


def test_functions_that_change_their_input():
    def f(x):
        with torch.no_grad():
            x.data.mul_(1.5)
        return x * x

    assert "the function changes input in place: let it work on a clone()." in cause(f, real(2))


def test_overlapping_inputs():
    x = torch.randn(4, dtype=torch.double).unfold(0, 2, 1).detach().requires_grad_()
    assert "entries of input share memory" in cause(lambda x: x * 2, x)


def test_low_precision():
    assert "rounding: in torch.float32, differences over eps=1e-06 are this coarse" in cause(lambda x: x * 2, torch.rand(3).requires_grad_())
    wrong = function(SQUARE, lambda g, x: -2 * g * x)
    assert "the sign" in cause(wrong, torch.tensor([1.0, 2.0], requires_grad=True), eps=1e-2, atol=1e-2)


def test_not_finite():
    zero = torch.zeros(2, dtype=torch.double, requires_grad=True)
    assert "the gradient is nan at input" in cause(lambda x: (x * x).sqrt(), zero)
    assert "the gradient is infinite at input[0]" in cause(function(TWICE, lambda g, x: g * 2 + torch.tensor([torch.inf, 0.0])), zero)


def test_an_output_that_doesnt_change():
    f = function(lambda x: x.round(), lambda g, x: g)
    assert "the output doesn't change with input here, so its gradient must be zero" in cause(f, torch.tensor([0.3, 1.2], dtype=torch.double, requires_grad=True))


# ---- entries and places ---------------------------------------------------------------------------------------------
def test_worst_entries_have_the_indices_of_output_and_input():
    text = report(function(TWICE, only((1, 2), 2)), real(2, 3))
    assert "\n1 of 36 entries differ; the worst:\n  d output[1, 2] / d input[1, 2]: numerical 2, analytical 4\n" in text
    text = report(lambda a, n, b: (a, function(TWICE, only((0,), 3))(b)), real(2), 1, real(2))
    assert "  d outputs[1][0] / d inputs[2][0]: numerical 2, analytical 6\n" in text
    text = report(function(lambda x: x.sum(), lambda g, x: only((1,), 2)(g.expand(2) / 2)), real(2))
    assert "  d output / d input[1]: numerical 1, analytical 2\n" in text


def test_the_worst_comes_first_and_five_are_shown():
    factors = torch.arange(1.0, 8, dtype=torch.double)
    text = report(function(lambda x: x * 1, lambda g, x: g * factors**2), real(7))
    shown = [line for line in text.splitlines() if line.startswith("  d output")]
    assert len(shown) == 5 and "6 of 49 entries differ" in text
    assert shown[0].startswith("  d output[6] / d input[6]: numerical 1, analytical 49") and "output[5]" in shown[1]


class Halved(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        return g * ctx.saved_tensors[0]


def test_the_line_of_a_functions_backward():
    lines, start = inspect.getsourcelines(Halved)
    line = start + next(i for i, text in enumerate(lines) if "def backward" in text)
    assert f"The derivative between the two:\n  Halved.backward at {__file__}:{line}\n" in report(Halved.apply, real(2))


def test_the_line_of_an_operators_call():
    def f(x):
        y = Halved.apply(x.sin())
        return y * 3

    text = report(f, real(2))
    start = inspect.getsourcelines(f)[1]
    places = text.split("The derivatives between the two:\n")[1].splitlines()
    assert places[0].startswith("  Halved.backward at ")  # what the user wrote, before operators
    assert places[1] == f"  MulBackward0, recorded at {__file__}:{start + 2} in f: return y * 3"
    assert places[2] == f"  SinBackward0, recorded at {__file__}:{start + 1} in f: y = Halved.apply(x.sin())"


def test_only_what_lies_between_is_listed():
    text = report(lambda x, y: Halved.apply(x) + y.exp(), real(2), real(2))
    assert "Halved.backward" in text and "ExpBackward0" not in text


def test_many_nodes():
    def f(x):
        for _ in range(9):
            x = x.sin()
        return Halved.apply(x)

    assert "SinBackward0" in report(f, real(2))


def test_second_derivatives_name_grad_outputs():
    class Detached(Function):
        @staticmethod
        def forward(ctx, x, y):
            ctx.save_for_backward(x, y)
            return x * y

        @staticmethod
        def backward(ctx, g):
            x, y = ctx.saved_tensors
            return g.detach() * y, g * x

    text = report(Detached.apply, real(2), real(2), check=gradgradcheck)
    assert "d grad_inputs[0][0] / d grad_output[0]: " in text
    assert "no gradient arrives at grad_output " in text


def test_a_detached_output():
    text = report(lambda x: x.detach() * 2, real(2))
    assert "output changes with input, but doesn't require grad: something on the way cuts the graph" in text
