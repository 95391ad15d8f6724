"""grad, grad_and_value, vjp."""

import pytest

import flambeau as torch
from flambeau.func import grad, grad_and_value, vjp, vmap

from .both import check

X = [1.0, 2.0]


def squares(x):
    return (x * x).sum()


def product(x, y):
    return (x * y).sum()


# Calls, each given (func, x, torch).
CALLS = {
    "a scalar": lambda F, x, t: F.grad(t.sin)(x[0]),
    "twice": lambda F, x, t: F.grad(F.grad(t.sin))(x[0]),
    "keyword arguments": lambda F, x, t: F.grad(lambda x, y=None: (x * y).sum())(x, y=x),
    "both arguments": lambda F, x, t: F.grad(product, argnums=(0, 1))(x, x * 2),
    "the last argument": lambda F, x, t: F.grad(product, argnums=-1)(x, x * 2),
    "a tuple of one": lambda F, x, t: F.grad(product, argnums=(1,))(x, x * 2),
    "a nest": lambda F, x, t: F.grad(lambda d: (d["a"] * d["b"][0]).sum())({"a": x, "b": [x * 2]}),
    "an empty nest": lambda F, x, t: F.grad(lambda d: x[0])({}),
    "aux": lambda F, x, t: F.grad(lambda x: (x.sum(), {"a": x * 2}), has_aux=True)(x),
    "value": lambda F, x, t: F.grad_and_value(squares)(x),
    "value and aux": lambda F, x, t: F.grad_and_value(lambda x: (squares(x), x), has_aux=True)(x),
    "independent": lambda F, x, t: F.grad(lambda x: t.tensor(1.0))(x),
    "an integer output": lambda F, x, t: F.grad(lambda x: x.sum().long())(x),
    "complex inputs": lambda F, x, t: F.grad(lambda z: (z * z.conj()).sum().real)(t.complex(x, x)),
    "double": lambda F, x, t: F.grad(squares)(x.double()),
    "detach inside": lambda F, x, t: F.grad(lambda x: (x.detach() * x).sum())(x),
    "autograd.grad inside": lambda F, x, t: F.grad(lambda x: t.autograd.grad((x**3).sum(), x, create_graph=True)[0].sum())(x),
    "in place on an intermediate": lambda F, x, t: F.grad(lambda x: (x * 2).add_(x).mul_(3).sum())(x),
    "in place on a part": lambda F, x, t: F.grad(lambda x: t.zeros(2).index_fill_(0, t.tensor([0]), 1).mul_(x).sum())(x),
    "vjp": lambda F, x, t: F.vjp(lambda x: x * x, x)[1](x),
    "vjp's output": lambda F, x, t: F.vjp(lambda x: x * x, x)[0],
    "vjp of a nest": lambda F, x, t: F.vjp(lambda d: d["a"] * d["b"], {"a": x, "b": x})[1](x),
    "vjp of several outputs": lambda F, x, t: F.vjp(lambda x, y: (x * y, {"a": y}), x, x)[1]((x, {"a": x})),
    "vjp with aux": lambda F, x, t: F.vjp(lambda x: (x * x, x + 1), x, has_aux=True)[2],
    "vjp of a constant": lambda F, x, t: F.vjp(lambda x: t.ones(2), x)[1](x),
    "vjp of complex": lambda F, x, t: F.vjp(lambda z: z * z, t.complex(x, x))[1](t.complex(x, -x)),
    "vjp with PyTorch's options": lambda F, x, t: F.vjp(lambda x: x * x, x)[1](x, retain_graph=True, create_graph=True),
    # errors
    "a vector": lambda F, x, t: F.grad(t.sin)(x),
    "a float": lambda F, x, t: F.grad(lambda x: 3.0)(x),
    "a tuple": lambda F, x, t: F.grad(lambda x: (x.sum(), x))(x),
    "no aux": lambda F, x, t: F.grad(lambda x: x.sum(), has_aux=True)(x),
    "three things": lambda F, x, t: F.grad(lambda x: (x.sum(), 1, 2), has_aux=True)(x),
    "a list with aux": lambda F, x, t: F.grad(lambda x: [x.sum(), x], has_aux=True)(x),
    "aux that is no tensor": lambda F, x, t: F.grad(lambda x: (x.sum(), 3), has_aux=True)(x),
    "integers": lambda F, x, t: F.grad(squares)(t.tensor([1, 2])),
    "complex output": lambda F, x, t: F.grad(lambda z: (z * z).sum())(t.complex(x, x)),
    "argnums out of range": lambda F, x, t: F.grad(product, argnums=2)(x, x),
    "argnums below": lambda F, x, t: F.grad(product, argnums=-3)(x, x),
    "argnums empty": lambda F, x, t: F.grad(product, argnums=())(x, x),
    "argnums twice": lambda F, x, t: F.grad(product, argnums=(0, -2))(x, x),
    "argnums a string": lambda F, x, t: F.grad(product, argnums="x")(x, x),
    "argnums a list": lambda F, x, t: F.grad(product, argnums=[0])(x, x),
    "argnums with a string": lambda F, x, t: F.grad(product, argnums=(0, "x"))(x, x),
    "no arguments": lambda F, x, t: F.grad(lambda: 1)(),
    "a number in the nest": lambda F, x, t: F.grad(lambda d: d["a"].sum())({"a": x, "b": 3}),
    "its argument changed": lambda F, x, t: F.grad(lambda x: x.mul_(2).sum())(x),
    "its argument's part changed": lambda F, x, t: F.grad(lambda x: x[0].mul_(2).sum())(x),
    "cotangents in another structure": lambda F, x, t: F.vjp(lambda x: [x, x], x)[1]((x, x)),
    "one cotangent for two": lambda F, x, t: F.vjp(lambda x: (x, x), x)[1](x),
    "a cotangent of another shape": lambda F, x, t: F.vjp(lambda x: x * x, x)[1](x[0]),
    "no cotangent": lambda F, x, t: F.vjp(lambda x: x * x, x)[1](None),
    "vjp of a number": lambda F, x, t: F.vjp(lambda x: x * x, 3.0),
    "vjp to a number": lambda F, x, t: F.vjp(lambda x: (x, 3.0), x),
    "vjp to nothing": lambda F, x, t: F.vjp(lambda x: (), x),
    "vjp to None": lambda F, x, t: F.vjp(lambda x: None, x),
    "vjp without aux": lambda F, x, t: F.vjp(lambda x: x, x, has_aux=True),
}


@pytest.mark.torch
@pytest.mark.parametrize("name", CALLS)
def test_like_torch(name):
    check(lambda torch: CALLS[name](torch.func, torch.tensor(X), torch))


@pytest.mark.torch
@pytest.mark.parametrize("name", CALLS)
def test_like_torch_where_the_input_requires_grad(name):
    check(lambda torch: CALLS[name](torch.func, torch.tensor(X, requires_grad=True), torch))


def test_no_grad_inside_makes_constants():
    def f(x):
        with torch.no_grad():
            c = x**2
        return x - c

    assert grad(f)(torch.tensor(3.0)).item() == 1
    assert vjp(f, torch.tensor(3.0))[1](torch.tensor(1.0))[0].item() == 1


def test_no_grad_outside_hides_the_result_only():
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    with torch.no_grad():
        g, v = grad_and_value(lambda x: (x**3).sum())(x)
        assert g.tolist() == [3, 12] and not g.requires_grad and not v.requires_grad
        y, pull = vjp(torch.sin, x)
        assert not y.requires_grad and not pull(torch.ones(2))[0].requires_grad


def test_no_grad_around_an_inner_gradient_makes_it_a_constant():
    def f(x):
        with torch.no_grad():
            c = grad(lambda y: y**3)(x)
        return x * c

    assert grad(f)(torch.tensor(2.0)).item() == 12


def test_what_is_captured_keeps_its_derivatives():
    c = torch.tensor([3.0, 4.0], requires_grad=True)
    g = grad(lambda x: (x * c**2).sum())(torch.ones(2))
    g.sum().backward()
    assert c.grad.tolist() == [6, 8]


def test_inside_the_tensor_requires_grad():
    seen = []
    grad(lambda x: (seen.append((x.requires_grad, x.is_leaf)), x.sum())[1])(torch.ones(2))
    assert seen == [(True, True)]


def test_a_tensor_that_requires_grad_cannot_be_changed_through_its_point():
    for x in (torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True) * 1):
        with pytest.raises(RuntimeError, match="a leaf Variable that requires grad is being used in an in-place operation"):
            grad(lambda x: x.mul_(2).sum())(x)
        with pytest.raises(RuntimeError, match="a view of a leaf Variable that requires grad"):
            grad(lambda x: x[0].mul_(2).sum())(x)
        assert x.tolist() == [1, 1]
    with pytest.raises(RuntimeError, match="a leaf Variable that requires grad"):
        vmap(grad(lambda x: x.mul_(2).sum()))(torch.ones(2, 2))


def test_vjp_may_be_called_again():
    _, pull = vjp(lambda x: x * x, torch.tensor([1.0, 2.0]))
    assert pull(torch.ones(2))[0].tolist() == [2, 4]
    assert pull(torch.tensor([1.0, 0.0]))[0].tolist() == [2, 0]


def test_a_failing_function_leaves_nothing_behind():
    x = torch.ones(2)
    with pytest.raises(KeyError):
        grad(lambda x: {}[0])(x)
    with pytest.raises(KeyError):
        vjp(lambda x: {}[0], x)
    assert torch.is_grad_enabled() and not x.requires_grad
    with torch.no_grad():
        with pytest.raises(KeyError):
            grad(lambda x: {}[0])(x)
        assert not torch.is_grad_enabled()


def test_the_name_is_kept():
    def potential(x):
        """An energy."""
        return x.sum()

    assert grad(potential).__name__ == "potential" and grad(potential).__doc__ == "An energy."


def test_inference_mode_outside():
    """What is made there may be captured and differentiated by, and what comes out is ordinary."""
    with torch.inference_mode():
        x, c = torch.tensor([1.0, 2.0]) * 1, torch.tensor([3.0, 4.0]) * 1
        g = grad(lambda x: (x * x * c).sum())(x)
        assert g.tolist() == [6, 16] and not g.is_inference()
        assert vmap(grad(lambda x: x * x))(x).tolist() == [2, 4]
        assert vjp(lambda x: x * c, x)[1](x)[0].tolist() == [3, 8]


def test_saved_tensor_hooks_and_tensor_hooks_take_part():
    packed = []

    def f(x):
        y = x.sin()
        y.register_hook(lambda g: 10 * g)
        return y.sum()

    with torch.autograd.graph.saved_tensors_hooks(lambda t: packed.append(t) or t, lambda t: t):
        found = grad(f)(torch.zeros(2))
    assert found.tolist() == [10, 10] and packed


def test_backward_is_refused_inside():
    c = torch.ones(2, requires_grad=True)
    with pytest.raises(RuntimeError, match="backward\\(\\) called inside a functorch transform"):
        grad(lambda x: [c.sum().backward(), x.sum()][1])(torch.ones(2))
    assert c.grad is None
    c.sum().backward()
