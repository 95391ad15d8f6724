"""Custom Functions under vmap."""

import gc
import weakref

import pytest

import flambeau as torch
from flambeau.autograd import Function
from tests.autograd.function import function_cases
from tests.autograd.function.function_transform_cases import VMAP, product, rows

RECORDED = function_cases.recorded()


@pytest.mark.parametrize("name", VMAP)
def test_as_pytorch_was(name):
    assert function_cases.result(VMAP[name], torch) == RECORDED[name]


@pytest.mark.torch
@pytest.mark.parametrize("name", VMAP)
def test_record_is_what_pytorch_says(name):
    assert function_cases.result(VMAP[name], pytest.importorskip("torch")) == RECORDED[name]


def test_in_place_with_a_generated_rule():
    class Doubled(Function):
        generate_vmap_rule = True

        @staticmethod
        def forward(x):
            return x.mul_(2)

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.mark_dirty(inputs[0])

        @staticmethod
        def backward(ctx, g):
            return g * 2

    x = rows(torch).requires_grad_()

    def run(row):
        y = row * 1
        return Doubled.apply(y) + y

    out = torch.func.vmap(run)(x)
    out.sum().backward()
    assert out.tolist() == [[4, 8], [12, 16], [20, 24]] and x.grad.unique().tolist() == [4]


class Square(Function):
    """In one part, with an attribute of its own; PyTorch's transformations refuse the one, and lose the other."""

    generate_vmap_rule = True

    @staticmethod
    def forward(ctx, x, k):
        ctx.save_for_backward(x)
        ctx.slope = 2 * k
        ctx.half = x / 2
        return x * x * k

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * (x + ctx.half * 2) / 2 * ctx.slope, None


def test_forward_in_one_part():
    x = rows(torch).requires_grad_()
    out = torch.func.vmap(Square.apply, in_dims=(0, None))(x, 3)
    out.sum().backward()
    assert x.grad.tolist() == (6 * x).tolist()
    nested = torch.func.vmap(torch.func.vmap(torch.func.grad(lambda x: Square.apply(x, 3))))(rows(torch))
    assert nested.tolist() == (6 * rows(torch)).tolist()


def test_backward_pass_after_the_vmap_and_in_another():
    y = torch.func.vmap(lambda x: Square.apply(x, 1))(x := rows(torch).requires_grad_())
    rows_of_jacobian = torch.func.vmap(lambda v: torch.autograd.grad(y, x, v, retain_graph=True)[0])
    eye = torch.eye(6).reshape(6, 3, 2)
    assert rows_of_jacobian(eye).tolist() == (eye * 2 * x).tolist()


def test_wrong_number_of_gradients():
    F = type(Function)("Short", (Square,), {"backward": staticmethod(lambda ctx, g: g)})
    y = torch.func.vmap(F.apply, in_dims=(0, None))(rows(torch).requires_grad_(), 3)
    with pytest.raises(RuntimeError, match=r"function ShortBackward returned an incorrect number of gradients \(expected 2, got 1\)"):
        y.sum().backward()


def test_nothing_batched_needs_no_rule():
    F = product(torch)
    y = torch.ones(2)
    assert torch.func.vmap(lambda x: x + F.apply(y, y))(rows(torch)).tolist() == (rows(torch) + 1).tolist()


def test_a_graph_dies_with_its_output():
    x = rows(torch).requires_grad_()
    gc.collect()
    gc.disable()
    try:
        y = torch.func.vmap(Square.apply, in_dims=(0, None))(x, 3)
        ref = weakref.ref(y.grad_fn)
        torch.autograd.grad(y.sum(), x, create_graph=True)
        del y
        assert ref() is None
    finally:
        gc.enable()


def test_a_batched_tensor_that_is_no_argument():
    y = torch.ones(2, requires_grad=True)

    def run(row):
        return type(Function)("Closed", (Function,), {"forward": staticmethod(lambda ctx, y: y * row)}).apply(y)

    with pytest.raises(RuntimeError, match="Closed.forward used a tensor that is being vmapped over without being given it"):
        torch.vmap(run)(rows(torch))
    with torch.no_grad():
        assert torch.vmap(run)(rows(torch)).tolist() == rows(torch).tolist()
