"""Custom Functions in forward mode."""

import gc
import weakref

import pytest

import flambeau as torch
import flambeau.autograd.forward_ad as fw
from flambeau.autograd import Function
from tests.autograd.function import function_cases
from tests.autograd.function.function_transform_cases import FORWARD_MODE, product

RECORDED = function_cases.recorded()


@pytest.mark.parametrize("name", FORWARD_MODE)
def test_as_pytorch_was(name):
    assert function_cases.result(FORWARD_MODE[name], torch) == RECORDED[name]


@pytest.mark.torch
@pytest.mark.parametrize("name", FORWARD_MODE)
def test_record_is_what_pytorch_says(name):
    assert function_cases.result(FORWARD_MODE[name], pytest.importorskip("torch")) == RECORDED[name]


class Cube(Function):
    """In one part, which PyTorch's transformations refuse."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        ctx.save_for_forward(x)
        ctx.x = x
        return x**3

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * 3 * x**2

    @staticmethod
    def jvp(ctx, t):
        (x,) = ctx.saved_tensors
        return 3 * t * x * ctx.x


def test_every_order_in_every_mode():
    x, v = torch.tensor(2.0, dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64)
    f = Cube.apply

    def forward(f):
        return lambda x: torch.func.jvp(f, (x,), (v,))[1]

    for first in (torch.func.grad, forward):
        assert first(f)(x).item() == 12
        for second in (torch.func.grad, forward):
            assert second(first(f))(x).item() == 12
            for third in (torch.func.grad, forward):
                assert third(second(first(f)))(x).item() == 6, (first, second, third)


def test_what_is_saved_has_tangents():
    """Forward over reverse: backward computes with duals."""
    with fw.dual_level():
        x = fw.make_dual(torch.tensor(2.0, requires_grad=True), torch.tensor(1.0))
        (g,) = torch.autograd.grad(Cube.apply(x), x)
        primal, tangent = fw.unpack_dual(g)
        assert primal.item() == 12 and tangent.item() == 12


def test_saved_outputs_have_tangents():
    class Exp(Function):
        @staticmethod
        def forward(ctx, x):
            y = x.exp()
            ctx.save_for_backward(y)
            ctx.save_for_forward(y)
            return y

        @staticmethod
        def backward(ctx, g):
            return g * ctx.saved_tensors[0]

        @staticmethod
        def jvp(ctx, t):
            return t * ctx.saved_tensors[0]

    x, v = torch.tensor(0.0), torch.tensor(1.0)
    for second in (torch.func.grad(torch.func.grad(Exp.apply)), lambda x: torch.func.jvp(torch.func.grad(Exp.apply), (x,), (v,))[1]):
        assert second(x).item() == 1


def test_gradcheck_in_forward_mode():
    x, y = (torch.randn(3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(product(torch).apply, (x, y), check_forward_ad=True)


def test_a_graph_dies_with_its_output():
    gc.collect()
    gc.disable()
    try:
        with fw.dual_level():
            x = fw.make_dual(torch.tensor(2.0, requires_grad=True), torch.tensor(1.0, requires_grad=True))
            y = Cube.apply(x)
            refs = [weakref.ref(y), weakref.ref(y.grad_fn), weakref.ref(fw.unpack_dual(y).tangent)]
            torch.autograd.grad(y, x, create_graph=True)
            del x, y
        assert [r() for r in refs] == [None, None, None]
    finally:
        gc.enable()
