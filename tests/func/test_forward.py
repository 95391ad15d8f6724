"""jvp and linearize."""

import pytest

import flambeau as torch
from flambeau.func import jvp, linearize

from .both import check

X = [1.0, 2.0]

CALLS = {
    "one input": lambda F, x, t: F.jvp(lambda x: x * x, (x,), (x,)),
    "two inputs": lambda F, x, t: F.jvp(lambda x, y: x * y, (x, x), (x, x * 2)),
    "nests": lambda F, x, t: F.jvp(lambda d: {"o": (d["a"] * d["b"][0],)}, ({"a": x, "b": [x]},), ({"a": x, "b": [x * 2]},)),
    "a constant": lambda F, x, t: F.jvp(lambda x: t.ones(2), (x,), (x,)),
    "aux": lambda F, x, t: F.jvp(lambda x: (x * x, {"a": x + 1}), (x,), (x,), has_aux=True),
    "twice": lambda F, x, t: F.jvp(lambda x: F.jvp(t.sin, (x,), (t.ones_like(x),))[1], (x,), (t.ones(2),)),
    "complex": lambda F, x, t: F.jvp(lambda z: z * z, (t.complex(x, x),), (t.complex(x, -x),)),
    "detach inside": lambda F, x, t: F.jvp(lambda x: x.detach() * x, (x,), (x,)),
    "changed in place": lambda F, x, t: F.jvp(lambda x: (x * 2).mul_(x), (x,), (x * 3,)),
    "linearize": lambda F, x, t: F.linearize(lambda x: x * x, x)[1](x),
    "linearize's output": lambda F, x, t: F.linearize(lambda x: x * x, x)[0],
    "linearize of two": lambda F, x, t: F.linearize(lambda x, y: x * y, x, x)[1](x, x * 2),
    "linearize of a nest": lambda F, x, t: F.linearize(lambda d: d["a"] * 2, {"a": x})[1]({"a": x}),
    # errors
    "no tuple": lambda F, x, t: F.jvp(lambda x: x, x, x),
    "a tuple and a tensor": lambda F, x, t: F.jvp(lambda x: x, (x,), x),
    "lists": lambda F, x, t: F.jvp(lambda x: x, [x], [x]),
    "one and two": lambda F, x, t: F.jvp(lambda x: x, (x,), (x, x)),
    "nothing": lambda F, x, t: F.jvp(lambda: x, (), ()),
    "a number as primal": lambda F, x, t: F.jvp(lambda a, b: a, (x, 3.0), (x, 1.0)),
    "a number as tangent": lambda F, x, t: F.jvp(lambda a, b: a, (x, x), (x, 1.0)),
    "another shape": lambda F, x, t: F.jvp(lambda a: a, (x,), (x[0],)),
    "integers": lambda F, x, t: F.jvp(lambda a: a * 2, (t.tensor([1]),), (t.tensor([1]),)),
    "strict": lambda F, x, t: F.jvp(lambda x: t.ones(2), (x,), (x,), strict=True),
    "no aux": lambda F, x, t: F.jvp(lambda x: x * x, (x,), (x,), has_aux=True),
    "to a number": lambda F, x, t: F.jvp(lambda x: (x, 3.0), (x,), (x,)),
    "linearize with two for one": lambda F, x, t: F.linearize(lambda x: x * x, x)[1](x, x),
    "linearize with another shape": lambda F, x, t: F.linearize(lambda x: x * x, x)[1](x[0]),
    "linearize with another dtype": lambda F, x, t: F.linearize(lambda x: x * x, x)[1](x.double()),
}


@pytest.mark.torch
@pytest.mark.parametrize("name", CALLS)
def test_like_torch(name):
    check(lambda torch: CALLS[name](torch.func, torch.tensor(X), torch))


def test_values_and_tangents():
    y, t = jvp(lambda x: x.sin(), (torch.tensor([0.0, 1.0]),), (torch.tensor([1.0, 10.0]),))
    assert torch.allclose(y, torch.tensor([0.0, 1.0]).sin())
    assert torch.allclose(t, torch.tensor([1.0, 10.0]) * torch.tensor([0.0, 1.0]).cos())


def test_no_grad_changes_nothing():
    def f(x):
        with torch.no_grad():
            c = x**2
        return x - c

    with torch.no_grad():
        assert jvp(f, (torch.tensor(3.0),), (torch.tensor(1.0),))[1].item() == -5


def test_the_derivative_is_linear():
    _, derivative = linearize(lambda x: x**3, torch.tensor([1.0, 2.0]))
    u, v = torch.tensor([1.0, -1.0]), torch.tensor([0.5, 2.0])
    assert torch.allclose(derivative(2 * u + v), 2 * derivative(u) + derivative(v))


def test_tangents_are_gone_afterwards():
    kept = []
    with pytest.raises(KeyError):
        jvp(lambda x: kept.append(x) or {}[0], (torch.ones(2),), (torch.ones(2),))
    _, t = jvp(lambda x: x * kept[0], (torch.ones(2),), (torch.ones(2) * 3,))
    assert t.tolist() == [3, 3]
