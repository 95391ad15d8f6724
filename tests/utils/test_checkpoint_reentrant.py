"""The older kind of checkpoint, ``use_reentrant=True``."""

import warnings

import pytest

import flambeau as torch
from flambeau.utils.checkpoint import CheckpointFunction, check_backward_validity, checkpoint, detach_variable


@pytest.fixture
def x():
    torch.manual_seed(0)
    return torch.rand(3, 4, requires_grad=True)


def test_inputs_without_grad():
    with pytest.warns(UserWarning, match="None of the inputs have requires_grad=True. Gradients will be None"):
        y = checkpoint(torch.sin, torch.ones(2), use_reentrant=True)
    assert not y.requires_grad
    with pytest.warns(UserWarning, match="None of the inputs have requires_grad=True. Gradients will be None") as w:
        check_backward_validity([torch.ones(1), "x"])
    assert w[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_backward_validity([torch.ones(1, requires_grad=True), "x"])


def test_grad_is_refused(x):
    y = checkpoint(torch.sin, x, use_reentrant=True).sum()
    phrase = r"When use_reentrant=True, torch.utils.checkpoint is incompatible with .grad\(\) or passing an `inputs` parameter"
    with pytest.raises(RuntimeError, match=phrase):
        torch.autograd.grad(y, x, retain_graph=True)
    with pytest.raises(RuntimeError, match=phrase):
        y.backward(inputs=[x], retain_graph=True)
    y.backward()
    assert torch.equal(x.grad, x.cos())


def test_grad_of_a_graph_without_it_that_a_backward_pass_runs(x):
    """A grad() inside a checkpointed function is no grad() of the checkpoint."""

    def f(x):
        with torch.enable_grad():
            a = x.detach().requires_grad_()
            (g,) = torch.autograd.grad(a.sin().sum(), a)
        return x * g

    checkpoint(f, x, use_reentrant=True).sum().backward()
    assert torch.equal(x.grad, x.cos())


def test_checkpoint_that_runs_inside_grad(x):
    """A backward pass in a hook of a grad() is inside it: refused there too."""
    inner = checkpoint(torch.sin, x, use_reentrant=True).sum()
    y = x * 2
    y.register_hook(lambda g: inner.backward())
    with pytest.raises(RuntimeError, match="incompatible with"):
        torch.autograd.grad(y.sum(), x)


def test_output_without_grad(x):
    y = checkpoint(lambda x: x.detach() * 2, x, use_reentrant=True)
    assert y.requires_grad
    with pytest.raises(RuntimeError, match=r"none of output has requires_grad=True, this checkpoint\(\) is not necessary"):
        y.sum().backward()


def test_outputs_some_without_grad(x):
    a, b, c = checkpoint(lambda x: (x.sin(), x.detach() * 2, "c"), x, use_reentrant=True)
    assert c == "c" and b.requires_grad
    (a * 1).sum().backward()
    assert torch.equal(x.grad, x.cos())


def test_parameters_get_their_gradients_inside(x):
    w = torch.rand(4, requires_grad=True)
    checkpoint(lambda x: (x * w).sum(), x, use_reentrant=True).backward()
    assert torch.allclose(w.grad, x.detach().sum(0))


def test_many_checkpoints(x):
    y = x
    for _ in range(50):
        y = checkpoint(torch.sin, y, use_reentrant=True)
    y.sum().backward()
    z = x.detach().requires_grad_()
    plain = z
    for _ in range(50):
        plain = plain.sin()
    plain.sum().backward()
    assert torch.allclose(x.grad, z.grad)


def test_function_itself(x):
    y = CheckpointFunction.apply(torch.sin, False, x)
    assert type(y.grad_fn).__name__ == "CheckpointFunctionBackward"
    y.sum().backward()
    assert torch.equal(x.grad, x.cos())


def test_detach_variable(x):
    y = x * 2
    a, b, c, d = detach_variable((y, "b", torch.ones(1), x))
    assert a.is_leaf and a.requires_grad and torch.equal(a, y) and b == "b" and not c.requires_grad and d is not x and d.requires_grad
    with pytest.raises(RuntimeError, match="Only tuple of tensors is supported. Got Unsupported input type: list"):
        detach_variable([x])
