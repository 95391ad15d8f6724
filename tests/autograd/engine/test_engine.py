"""The backward pass: values, order, accumulation, what it frees, what it refuses."""

import pytest

import flambeau as torch


def leaf(*values, **kwargs):
    return torch.tensor(values if len(values) != 1 else values[0], requires_grad=True, **kwargs)


def test_sum_of_products():
    x, y = leaf(2.0), leaf(5.0)
    (x * y + x * x).backward()
    assert x.grad.item() == 9 and y.grad.item() == 2


def test_gradients_accumulate_over_passes():
    x = leaf(1.0, 2.0)
    for _ in range(3):
        (x * 2).sum().backward()
    assert x.grad.tolist() == [6, 6]


def test_gradient_argument_weights_the_outputs():
    x = leaf(1.0, 2.0)
    (x * x).backward(torch.tensor([1.0, 10.0]))
    assert x.grad.tolist() == [2, 40]


def test_gradient_given_by_the_user_is_not_kept_as_grad():
    x = leaf(1.0, 2.0)
    g = torch.tensor([1.0, 10.0])
    (x + 0).backward(g)
    (x + 0).backward(g)
    assert g.tolist() == [1, 10] and x.grad.tolist() == [2, 20]


def test_one_gradient_to_two_leaves_is_not_shared():
    x, y = leaf(1.0, 2.0), leaf(3.0, 4.0)
    (x + y).sum().backward()
    x.grad.add_(1)
    assert y.grad.tolist() == [1, 1]


def test_diamond_runs_each_node_once():
    x = leaf(3.0)
    y = x * x
    calls = []
    y.register_hook(lambda g: calls.append(g.item()))
    (y * 2 + y * 3).backward()
    assert calls == [5.0] and x.grad.item() == 30


def test_broadcast_gradients_are_summed():
    x, y = torch.ones(3, 1, requires_grad=True), torch.ones(4, requires_grad=True)
    (x * y).sum().backward()
    assert x.grad.tolist() == [[4], [4], [4]] and y.grad.tolist() == [3] * 4


def test_mixed_dtypes_give_gradients_of_the_inputs_dtype():
    x = torch.ones(2, requires_grad=True)
    y = torch.ones(2, dtype=torch.float64, requires_grad=True)
    (x * y).sum().backward()
    assert x.grad.dtype == torch.float32 and y.grad.dtype == torch.float64


def test_grad_leaves_grad_alone():
    x = leaf(2.0)
    (g,) = torch.autograd.grad(x**3, x)
    assert g.item() == 12 and x.grad is None


def test_grad_of_an_intermediate():
    x = leaf(2.0)
    y = x * x
    z = y * y
    (gy,) = torch.autograd.grad(z, y)
    assert gy.item() == 8


def test_grad_unused():
    x, y = leaf(1.0), leaf(1.0)
    with pytest.raises(RuntimeError, match="appears to not have been used in the graph"):
        torch.autograd.grad(x * 2, [x, y])
    assert torch.autograd.grad(x * 2, [x, y], allow_unused=True)[1] is None
    assert torch.autograd.grad(x * 2, [x, y], materialize_grads=True)[1].item() == 0


def test_backward_inputs_accumulates_only_there():
    x, y = leaf(2.0), leaf(3.0)
    (x * y).backward(inputs=[x])
    assert x.grad.item() == 3 and y.grad is None
    with pytest.raises(RuntimeError, match="cannot be empty"):
        (x * y).backward(inputs=[])


def test_higher_derivatives():
    x = leaf(2.0, dtype=torch.float64)
    y = torch.sin(x) * x
    derivatives = []
    for _ in range(4):
        (y,) = torch.autograd.grad(y, x, create_graph=True)
        derivatives.append(y.item())
    import math

    s, c = math.sin(2), math.cos(2)
    assert derivatives == pytest.approx([s + 2 * c, 2 * c - 2 * s, -3 * s - 2 * c, -4 * c + 2 * s])


def test_create_graph_accumulates_a_differentiable_grad():
    x = leaf(3.0)
    (x**3).backward(create_graph=True)
    assert x.grad.requires_grad
    (g2,) = torch.autograd.grad(x.grad, x)
    assert g2.item() == 18


def test_second_backward_through_a_freed_graph():
    x = leaf(2.0)
    y = x * x
    y.backward()
    with pytest.raises(RuntimeError, match="Trying to backward through the graph a second time") as e:
        y.backward()
    assert "y = x * x" in str(e.value)
    assert x.grad.item() == 4


def test_nodes_that_saved_nothing_may_run_twice():
    x = leaf(2.0)
    y = x + x
    y.backward()
    y.backward()
    assert x.grad.item() == 4


def test_retain_graph():
    x = leaf(2.0)
    y = x * x
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad.item() == 8


def test_non_scalar_needs_a_gradient():
    with pytest.raises(RuntimeError, match="grad can be implicitly created only for scalar outputs"):
        (leaf(1.0, 2.0) * 2).backward()


def test_output_without_history():
    with pytest.raises(RuntimeError, match="does not require grad and does not have a grad_fn"):
        torch.ones(1).backward()


def test_gradient_of_another_shape():
    with pytest.raises(RuntimeError, match="Mismatch in shape"):
        (leaf(1.0, 2.0) * 2).backward(torch.ones(3))


def test_no_grad_records_nothing():
    x = leaf(2.0)
    with torch.no_grad():
        y = x * x
        with torch.enable_grad():
            z = x * x
    assert not y.requires_grad and y.grad_fn is None and z.requires_grad


def test_grad_modes_as_decorators_and_on_generators():
    x = leaf(2.0)

    @torch.no_grad()
    def f():
        return x * x

    @torch.no_grad()
    def g():
        yield torch.is_grad_enabled()
        yield torch.is_grad_enabled()

    assert not f().requires_grad
    for inside in g():
        assert not inside and torch.is_grad_enabled()


def test_set_grad_enabled_as_a_call_and_a_context():
    torch.set_grad_enabled(False)
    try:
        assert not torch.is_grad_enabled()
        with torch.set_grad_enabled(True):
            assert torch.is_grad_enabled()
        assert not torch.is_grad_enabled()
    finally:
        torch.set_grad_enabled(True)


def test_modes_are_per_thread():
    import threading

    seen = []
    with torch.no_grad():
        t = threading.Thread(target=lambda: seen.append(torch.is_grad_enabled()))
        t.start()
        t.join()
    assert seen == [True]


def test_detach_cuts_and_shares():
    x = leaf(1.0, 2.0)
    y = x.detach()
    assert not y.requires_grad and y.data_ptr() == x.data_ptr()
    assert y.is_leaf


def test_a_long_chain_needs_no_stack():
    x = leaf(1.0)
    y = x
    for _ in range(50_000):
        y = y * 1.0
    y.backward()
    assert x.grad.item() == 1
    del y


def test_nodes_have_pytorchs_names():
    x = torch.ones(2, 2, requires_grad=True)
    assert (x + 1).grad_fn.name() == "AddBackward0"
    assert (x * 2).grad_fn.name() == "MulBackward0"
    assert (x @ x).grad_fn.name() == "MmBackward0"
    assert x.exp().grad_fn.name() == "ExpBackward0"
    fn = (x * 2).grad_fn
    ((acc, nr), (none, _)) = fn.next_functions
    assert type(acc).__name__ == "AccumulateGrad" and acc.variable is x and nr == 0 and none is None


def test_errors_in_backward_name_the_forward_line():
    class Bad(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 1

        @staticmethod
        def backward(ctx, g):
            raise ValueError("broken")

    y = Bad.apply(leaf(1.0))  # the forward line
    with pytest.raises(ValueError) as e:
        y.backward()
    assert "# the forward line" in "".join(e.value.__notes__)


def test_backward_inside_a_hook():
    x = leaf(2.0)
    inner = leaf(3.0)
    y = x * x

    def hook(g):
        with torch.enable_grad():  # hooks run with recording off
            (inner * inner).backward()

    y.register_hook(hook)
    y.backward()
    assert inner.grad.item() == 6 and x.grad.item() == 4


def test_grad_assignment_is_checked():
    x = leaf(1.0, 2.0)
    with pytest.raises(RuntimeError):
        x.grad = torch.ones(3)
    with pytest.raises(TypeError):
        x.grad = 1
    x.grad = torch.ones(2)
    x.grad = None


def test_integers_cannot_require_grad():
    with pytest.raises(RuntimeError, match="only Tensors of floating point dtype can require gradients"):
        torch.ones(2, dtype=torch.int64).requires_grad_()


def test_non_leaf_keeps_requires_grad():
    y = leaf(1.0) * 2
    with pytest.raises(RuntimeError, match="you can only change requires_grad flags of leaf variables"):
        y.requires_grad_(False)


def test_complex_gradient_convention():
    z = torch.tensor([1 + 2j, 3 - 1j], requires_grad=True)
    (z * z.conj()).real.sum().backward()  # |z|^2: gradient 2z
    assert z.grad.tolist() == [2 + 4j, 6 - 2j]


@pytest.mark.parametrize("retain", [False, True])
def test_what_was_saved_is_freed_as_the_pass_goes(retain):
    import weakref

    x = leaf(1.0, 2.0)
    y = (x * 2).exp()
    values = weakref.ref(y._a)
    y = y.sum()
    gone = []
    x.register_hook(lambda g: gone.append(values() is None))
    y.backward(retain_graph=retain)
    assert gone == [not retain]


def test_branches_without_a_way_to_the_inputs_do_not_run():
    x, w = leaf(1.0), leaf(1.0)
    side = w * 2
    side.register_hook(lambda g: pytest.fail("not needed"))
    (g,) = torch.autograd.grad(x * 3 + side.exp(), x)
    assert g.item() == 3
    x.register_hook(lambda g: pytest.fail("not needed"))
    assert torch.autograd.grad(x * 3 + w, w)[0].item() == 1


def test_a_root_that_others_lead_to():
    x = leaf(2.0)
    y = x * x
    torch.autograd.backward([y, y * 3, x])
    assert x.grad.item() == 17


def test_a_gradient_of_another_shape_than_the_one_there():
    x = leaf(1.0, 1.0)
    x.grad = torch.ones(2)
    x.data = torch.ones(4)
    with pytest.raises(RuntimeError, match=r"The size of tensor a \(2\) must match the size of tensor b \(4\)"):
        x.sum().backward()
    assert x.grad.tolist() == [1, 1]


def test_an_optimizers_step_is_not_blamed_on_another_line():
    weight = torch.nn.Parameter(torch.zeros(2, 2))
    torch.nn.init.ones_(weight)  # the last change whose line is known
    y = weight @ weight
    y.sum().backward(retain_graph=True)
    torch.optim.SGD([weight], lr=0.1).step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation") as e:
        y.sum().backward()
    assert "optimizer's step()" in str(e.value) and "init.ones_" not in str(e.value)
