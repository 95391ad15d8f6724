"""Custom Functions."""

import pytest

import flambeau as torch
from flambeau.autograd import Function
from flambeau.autograd.function import once_differentiable


class Cube(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * 3 * x**2


def test_forward_and_backward():
    x = torch.tensor(2.0, requires_grad=True)
    y = Cube.apply(x)
    assert y.grad_fn.name() == "CubeBackward" and y.item() == 8
    y.backward()
    assert x.grad.item() == 12


def test_double_backward_and_gradcheck():
    x = torch.randn(3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(Cube.apply, (x,))
    assert torch.autograd.gradgradcheck(Cube.apply, (x,))


def test_setup_context_form():
    class Scale(Function):
        @staticmethod
        def forward(x, k):
            return x * k

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.k = inputs[1]

        @staticmethod
        def backward(ctx, g):
            return g * ctx.k, None

    x = torch.ones(2, requires_grad=True)
    Scale.apply(x, 4.0).sum().backward()
    assert x.grad.tolist() == [4, 4]


def test_saved_output_makes_no_cycle():
    import gc
    import weakref

    class Exp(Function):
        @staticmethod
        def forward(ctx, x):
            y = x.exp()
            ctx.save_for_backward(y)
            return y

        @staticmethod
        def backward(ctx, g):
            return g * ctx.saved_tensors[0]

    x = torch.zeros(2, requires_grad=True)
    gc.collect()
    gc.disable()
    try:
        y = Exp.apply(x)
        ref = weakref.ref(y.grad_fn)
        y.sum().backward()
        assert x.grad.tolist() == [1, 1]
        del y
        assert ref() is None
    finally:
        gc.enable()


def test_several_outputs_and_needs_input_grad():
    class Both(Function):
        @staticmethod
        def forward(ctx, a, b):
            ctx.needs = ctx.needs_input_grad
            return a + b, a - b

        @staticmethod
        def backward(ctx, g, h):
            return g + h, g - h

    a = torch.ones(2, requires_grad=True)
    b = torch.ones(2)
    s, d = Both.apply(a, b)
    assert s.grad_fn.needs_input_grad == (True, False)
    s.sum().backward()  # d's gradient comes as zeros
    assert a.grad.tolist() == [1, 1] and d.requires_grad


def test_non_differentiable_output():
    class Top(Function):
        @staticmethod
        def forward(ctx, x):
            values, index = x.max(0)
            ctx.mark_non_differentiable(index)
            ctx.save_for_backward(index)
            ctx.n = x.shape[0]
            return values, index

        @staticmethod
        def backward(ctx, g, _):
            (i,) = ctx.saved_tensors
            out = torch.zeros(ctx.n)
            out[i] = g
            return out

    x = torch.tensor([1.0, 3.0, 2.0], requires_grad=True)
    v, i = Top.apply(x)
    assert not i.requires_grad
    v.backward()
    assert x.grad.tolist() == [0, 1, 0]


def test_mark_dirty():
    class Double(Function):
        @staticmethod
        def forward(ctx, x):
            x.mul_(2)
            ctx.mark_dirty(x)
            return x

        @staticmethod
        def backward(ctx, g):
            return g * 2

    x = torch.ones(2, requires_grad=True)
    y = x * 1
    z = Double.apply(y)
    assert z is y
    z.sum().backward()
    assert x.grad.tolist() == [2, 2]


def test_wrong_number_of_gradients():
    class Wrong(Function):
        @staticmethod
        def forward(ctx, a, b):
            return a * b

        @staticmethod
        def backward(ctx, g):
            return g

    a = torch.ones(1, requires_grad=True)
    with pytest.raises(RuntimeError, match=r"function WrongBackward returned an incorrect number of gradients \(expected 2, got 1\)"):
        Wrong.apply(a, a).backward()


def test_wrong_shape():
    class Wrong(Function):
        @staticmethod
        def forward(ctx, a):
            return a * 1

        @staticmethod
        def backward(ctx, g):
            return torch.ones(5)

    a = torch.ones(2, requires_grad=True)
    with pytest.raises(RuntimeError, match=r"Function WrongBackward returned an invalid gradient at index 0 - got \[5\] but expected shape compatible with \[2\]"):
        Wrong.apply(a).sum().backward()


def test_once_differentiable():
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
    with pytest.raises(RuntimeError, match="once_differentiable"):
        g.backward()


def test_input_returned_as_it_is():
    class Same(Function):
        @staticmethod
        def forward(ctx, x):
            return x

        @staticmethod
        def backward(ctx, g):
            return g * 7

    x = torch.ones(2, requires_grad=True)
    y = Same.apply(x)
    assert y is not x
    y.sum().backward()
    assert x.grad.tolist() == [7, 7]


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
    with pytest.raises(RuntimeError, match="Jacobian mismatch for output 0 with respect to input 0") as e:
        torch.autograd.gradcheck(Half.apply, (x,))
    assert "multiply the gradient by 2" in str(e.value)
    assert not torch.autograd.gradcheck(Half.apply, (x,), raise_exception=False)
