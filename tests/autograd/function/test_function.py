"""Custom Functions."""

import sys
import warnings

import pytest

import flambeau as torch
from flambeau.autograd import Function
from flambeau.autograd.function import once_differentiable
from tests.autograd.function import function_cases as cases

RECORDED = cases.recorded()


@pytest.mark.parametrize("name", cases.CASES)
def test_as_pytorch_was(name):
    """What each Function of the table does is what PyTorch did when the table was recorded."""
    assert cases.result(cases.CASES[name], torch) == RECORDED[name]


@pytest.mark.torch
@pytest.mark.parametrize("name", cases.CASES)
def test_record_is_what_pytorch_says(name):
    assert cases.result(cases.CASES[name], pytest.importorskip("torch")) == RECORDED[name]


class Cube(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * 3 * x**2


class Wrong(Function):
    @staticmethod
    def forward(ctx, a, b):
        return a * b

    @staticmethod
    def backward(ctx, g):
        return g


LINE_OF_WRONG = Wrong.backward.__code__.co_firstlineno


def test_forward_and_backward():
    x = torch.tensor(2.0, requires_grad=True)
    y = Cube.apply(x)
    assert y.grad_fn.name() == "CubeBackward" and y.item() == 8
    y.backward()
    assert x.grad.item() == 12


def test_gradcheck_of_both_orders():
    x = torch.randn(3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(Cube.apply, (x,))
    assert torch.autograd.gradgradcheck(Cube.apply, (x,))


def test_errors_name_the_lines():
    """The Function's own line, the line that called it, and the line of the backward pass."""
    a = torch.ones(1, requires_grad=True)
    applied = sys._getframe().f_lineno + 1
    y = Wrong.apply(a, a)
    with pytest.raises(RuntimeError, match=r"function WrongBackward returned an incorrect number of gradients \(expected 2, got 1\)") as e:
        y.backward()
    text = str(e.value) + "".join(e.value.__notes__)
    assert f"{__file__}:{LINE_OF_WRONG}" in text
    assert f"{__file__}:{applied} in test_errors_name_the_lines: y = Wrong.apply(a, a)" in text
    assert "y.backward()" in text


def test_error_of_the_functions_own_backward():
    class Fails(Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        def backward(ctx, g):
            raise KeyError("mine")

    y = Fails.apply(torch.ones(2, requires_grad=True))
    with pytest.raises(KeyError, match="mine") as e:
        y.sum().backward()
    assert "FailsBackward" in e.value.__notes__[0]


def test_a_failed_call_leaves_recording_as_it_was():
    class Fails(Function):
        @staticmethod
        def forward(ctx, x):
            raise ValueError

    for mode in (torch.enable_grad, torch.no_grad):
        with mode():
            before = torch.is_grad_enabled()
            with pytest.raises(ValueError):
                Fails.apply(torch.ones(1))
            assert torch.is_grad_enabled() is before


def test_complex_gradient_of_a_real_input():
    class Turned(Function):
        @staticmethod
        def forward(ctx, x):
            return x * 1

        @staticmethod
        def backward(ctx, g):
            return g * 1j

    with pytest.raises(RuntimeError, match="invalid gradient at index 0 - it is complex, but the input is real"):
        Turned.apply(torch.ones(2, requires_grad=True)).sum().backward()


def test_once_differentiable_says_what_to_do():
    class Square(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        @once_differentiable
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            return 2 * x * g

    x = torch.tensor(3.0, requires_grad=True)
    v = torch.ones((), requires_grad=True)
    (g,) = torch.autograd.grad(Square.apply(x), x, v, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable") as e:
        g.backward()
    assert "differentiable operators" in str(e.value)


def test_reentrant_backward_passes_nest_deep():
    class Nest(Function):
        @staticmethod
        def forward(ctx, x, n):
            with torch.enable_grad():
                ctx.t = x.detach().requires_grad_()
                ctx.y = Nest.apply(ctx.t, n - 1) if n else ctx.t * 2
            return ctx.y.detach()

        @staticmethod
        def backward(ctx, g):
            torch.autograd.backward(ctx.y, g)
            return ctx.t.grad, None

    x = torch.ones(2, requires_grad=True)
    Nest.apply(x, 60).sum().backward()
    assert x.grad.tolist() == [2, 2]


def test_gradcheck_finds_a_missing_factor():
    class Half(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            return g * x

    x = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)
    with pytest.raises(RuntimeError, match="Jacobian mismatch for output 0 with respect to input 0"):
        torch.autograd.gradcheck(Half.apply, (x,))
    assert not torch.autograd.gradcheck(Half.apply, (x,), raise_exception=False)


def test_many_threads():
    import threading

    results = {}

    def work(i):
        x = torch.full((4,), float(i), requires_grad=True)
        for _ in range(50):
            x.grad = None
            Cube.apply(Cube.apply(x)).sum().backward()
        results[i] = x.grad[0].item()

    threads = [threading.Thread(target=work, args=(i,)) for i in range(1, 5)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert results == {i: 9.0 * i**8 for i in range(1, 5)}


def test_instantiation_warns():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DeprecationWarning, match="should not be instantiated"):
            Cube()
