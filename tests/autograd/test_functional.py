"""torch.autograd.functional."""

import pytest

import flambeau as torch
from flambeau.autograd.functional import hessian, hvp, jacobian, jvp, vhp, vjp

from ..func.both import check

X = [1.0, 2.0]


def cubes(x):
    return (x**3).sum()


def grows(x):
    return x**2 * x.sum()


# Calls, each given (module, x, torch).
CALLS = {
    # vjp
    "vjp": lambda F, x, t: F.vjp(grows, x, x),
    "vjp scalar": lambda F, x, t: F.vjp(cubes, x),
    "vjp two": lambda F, x, t: F.vjp(lambda a, b: (a * b, a), (x, x * 2), (x, x)),
    "vjp tuples of one": lambda F, x, t: F.vjp(lambda a: (a * a,), (x,), (x,)),
    "vjp constant": lambda F, x, t: F.vjp(lambda x: t.ones(2), x, x),
    "vjp one unused": lambda F, x, t: F.vjp(lambda a, b: a * a, (x, x), x),
    "vjp complex": lambda F, x, t: F.vjp(lambda z: z * z, t.complex(x, x), t.complex(x, -x)),
    "vjp complex scalar": lambda F, x, t: F.vjp(lambda z: z * z, t.complex(x, x)[0]),
    "vjp another dtype": lambda F, x, t: F.vjp(lambda x: x * x, x, x.double()),
    "vjp create_graph": lambda F, x, t: F.vjp(grows, x, x, create_graph=True),
    "vjp no v": lambda F, x, t: F.vjp(grows, x),
    "vjp v size": lambda F, x, t: F.vjp(grows, x, x[0]),
    "vjp v length": lambda F, x, t: F.vjp(grows, x, (x, x)),
    "vjp v length 2": lambda F, x, t: F.vjp(lambda x: (x, x), x, x),
    "vjp v entry size": lambda F, x, t: F.vjp(lambda x: (x, x), x, (x, x[0])),
    "vjp strict": lambda F, x, t: F.vjp(lambda a, b: a * a, (x, x), x, strict=True),
    "vjp strict constant": lambda F, x, t: F.vjp(lambda x: t.ones(2), x, x, strict=True),
    "vjp strict linear": lambda F, x, t: F.vjp(lambda x: x * 2, x, x, strict=True, create_graph=True),
    "vjp list": lambda F, x, t: F.vjp(grows, [x], x),
    "vjp number in the tuple": lambda F, x, t: F.vjp(grows, (x, 3), x),
    "vjp list out": lambda F, x, t: F.vjp(lambda x: [x], x, x),
    "vjp integers": lambda F, x, t: F.vjp(grows, t.tensor([1, 2]), x),
    # jvp
    "jvp": lambda F, x, t: F.jvp(grows, x, x),
    "jvp two": lambda F, x, t: F.jvp(lambda a, b: (a * b, a), (x, x * 2), (x, x)),
    "jvp 0-d": lambda F, x, t: F.jvp(lambda x: x * x, x[0]),
    "jvp one element": lambda F, x, t: F.jvp(lambda x: x * x, x[:1]),
    "jvp constant": lambda F, x, t: F.jvp(lambda x: t.ones(2), x, x),
    "jvp one constant output": lambda F, x, t: F.jvp(lambda x: (t.ones(2), x * 2), x, x),
    "jvp complex": lambda F, x, t: F.jvp(lambda z: z * z, t.complex(x, x), t.complex(x, -x)),
    "jvp create_graph": lambda F, x, t: F.jvp(grows, x, x, create_graph=True),
    "jvp no v": lambda F, x, t: F.jvp(grows, x),
    "jvp v size": lambda F, x, t: F.jvp(grows, x, x[:1]),
    "jvp v length": lambda F, x, t: F.jvp(grows, x, (x, x)),
    "jvp v length 2": lambda F, x, t: F.jvp(lambda a, b: a * b, (x, x), x),
    "jvp v entry size": lambda F, x, t: F.jvp(lambda a, b: a * b, (x, x), (x, x[0])),
    "jvp v entry type": lambda F, x, t: F.jvp(lambda a, b: a * b, (x, x), (x, 1)),
    "jvp v type": lambda F, x, t: F.jvp(grows, x, 1),
    "jvp strict": lambda F, x, t: F.jvp(lambda a, b: a * a, (x, x), (x, x), strict=True),
    "jvp strict linear": lambda F, x, t: F.jvp(lambda x: x * 2, x, x, strict=True),
    "jvp strict linear create_graph": lambda F, x, t: F.jvp(lambda x: x * 2, x, x, strict=True, create_graph=True),
    "jvp strict constant output": lambda F, x, t: F.jvp(lambda x: (t.ones(2), x * 2), x, x, strict=True),
    "jvp number out": lambda F, x, t: F.jvp(lambda x: 3.0, x, x),
    # products with Hessians
    **{
        f"{name} {case}": lambda F, x, t, name=name, call=call: call(getattr(F, name), x, t)
        for name in ("vhp", "hvp")
        for case, call in {
            "one": lambda P, x, t: P(cubes, x, x * 2),
            "two": lambda P, x, t: P(lambda a, b: (a**2 * b).sum(), (x, x * 2), (x, x)),
            "one unused": lambda P, x, t: P(lambda a, b: cubes(a), (x, x), (x, x)),
            "linear": lambda P, x, t: P(lambda x: x.sum(), x, x),
            "constant": lambda P, x, t: P(lambda x: t.tensor(1.0), x, x),
            "one element": lambda P, x, t: P(lambda x: cubes(x).reshape(1, 1), x[:1]),
            "create_graph": lambda P, x, t: P(cubes, x, x, create_graph=True),
            "no v": lambda P, x, t: P(cubes, x),
            "v size": lambda P, x, t: P(cubes, x, x[0]),
            "vector": lambda P, x, t: P(grows, x, x),
            "tuple": lambda P, x, t: P(lambda x: (x.sum(),), x, x),
            "strict": lambda P, x, t: P(cubes, x, x, strict=True),
            "strict linear": lambda P, x, t: P(lambda x: x.sum(), x, x, strict=True),
            "strict unused": lambda P, x, t: P(lambda a, b: cubes(a), (x, x), (x, x), strict=True),
            "strict square": lambda P, x, t: P(lambda x: (x * x).sum(), x, x, strict=True),
            "strict square create_graph": lambda P, x, t: P(lambda x: (x * x).sum(), x, x, strict=True, create_graph=True),
            "strict constant": lambda P, x, t: P(lambda x: t.tensor(1.0), x, x, strict=True),
        }.items()
    },
    # jacobian
    **{
        f"jacobian {how} {case}": lambda F, x, t, options=options, call=call: call(
            lambda f, xs, **more: F.jacobian(f, xs, **options, **more), x, t
        )
        for how, options in {
            "row by row": {},
            "vectorized": {"vectorize": True},
            "by columns": {"vectorize": True, "strategy": "forward-mode"},
        }.items()
        for case, call in {
            "one": lambda J, x, t: J(grows, x),
            "0-d": lambda J, x, t: J(lambda x: x * x, x[0]),
            "constant": lambda J, x, t: J(lambda x: t.ones(3), x),
            "tuple in": lambda J, x, t: J(grows, (x,)),
            "list in": lambda J, x, t: J(grows, [x]),
            "list out": lambda J, x, t: J(lambda x: [x], x),
            "number in the tuple": lambda J, x, t: J(grows, (x, 3)),
            "integers": lambda J, x, t: J(grows, t.tensor([1, 2])),
            "strict": lambda J, x, t: J(grows, x, strict=True),
            "strict unused": lambda J, x, t: J(lambda a, b: a * 2, (x, x), strict=True),
            "strict constant": lambda J, x, t: J(lambda x: t.ones(3), x, strict=True),
            "create_graph": lambda J, x, t: J(grows, x, create_graph=True),
            "strict linear create_graph": lambda J, x, t: J(lambda x: x * 2, x, strict=True, create_graph=True),
        }.items()
        if how != "by columns" or case not in ("tuple in", "list out")  # PyTorch gives a list there, and speaks of "None"
    },
    **{
        f"jacobian {vectorize} two": lambda F, x, t, v=vectorize: F.jacobian(
            lambda a, b: (a * b, a.double().sum(), t.ones(1)), (x, x.double()), vectorize=v
        )
        for vectorize in (False, True)
    },
    "jacobian integers out": lambda F, x, t: F.jacobian(lambda x: x > 1, x),
    "jacobian complex": lambda F, x, t: F.jacobian(lambda z: z * z, t.complex(x, x)),
    "jacobian complex vectorized": lambda F, x, t: F.jacobian(lambda z: z * z, t.complex(x, x), vectorize=True),
    "jacobian complex by columns": lambda F, x, t: F.jacobian(lambda z: z * z, t.complex(x, x), vectorize=True, strategy="forward-mode"),
    "jacobian complex to real": lambda F, x, t: F.jacobian(lambda z: z.abs(), t.complex(x, x)),
    "jacobian empty": lambda F, x, t: F.jacobian(lambda x: x.sum(), x[:0]),
    "jacobian by columns, one by one": lambda F, x, t: F.jacobian(grows, x, strategy="forward-mode"),
    "jacobian strategy": lambda F, x, t: F.jacobian(grows, x, strategy="sideways"),
    # hessian
    **{
        f"hessian {how} {case}": lambda F, x, t, options=options, call=call: call(
            lambda f, xs, **more: F.hessian(f, xs, **options, **more), x, t
        )
        for how, options in {
            "row by row": {},
            "vectorized": {"vectorize": True},
            "by columns": {"vectorize": True, "outer_jacobian_strategy": "forward-mode"},
        }.items()
        for case, call in {
            "one": lambda H, x, t: H(cubes, x),
            "0-d": lambda H, x, t: H(lambda x: x**3, x[0]),
            "linear": lambda H, x, t: H(lambda x: x.sum(), x),
            "tuple": lambda H, x, t: H(lambda x: (x.sum(),), x),
            "vector": lambda H, x, t: H(grows, x),
            "one element": lambda H, x, t: H(lambda x: cubes(x).reshape(1, 1), x),
            "number": lambda H, x, t: H(lambda x: 3, x),
            "strict": lambda H, x, t: H(cubes, x, strict=True),
            "strict linear": lambda H, x, t: H(lambda x: x.sum(), x, strict=True),
            "create_graph": lambda H, x, t: H(cubes, x, create_graph=True),
        }.items()
    },
    "hessian two": lambda F, x, t: F.hessian(lambda a, b: (a**2 * b).sum(), (x, x * 2)),
    "hessian two vectorized": lambda F, x, t: F.hessian(lambda a, b: (a**2 * b).sum(), (x, x * 2), vectorize=True),
    "hessian one unused": lambda F, x, t: F.hessian(lambda a, b: cubes(a), (x, x)),
    "hessian strict unused": lambda F, x, t: F.hessian(lambda a, b: cubes(a), (x, x), strict=True),
    "hessian strict square create_graph": lambda F, x, t: F.hessian(lambda x: (x * x).sum(), x, strict=True, create_graph=True),
    "hessian by columns, one by one": lambda F, x, t: F.hessian(cubes, x, outer_jacobian_strategy="forward-mode"),
    "hessian strategy": lambda F, x, t: F.hessian(cubes, x, outer_jacobian_strategy="sideways"),
}


@pytest.mark.torch
@pytest.mark.parametrize("name", CALLS)
def test_like_torch(name):
    check(lambda torch: CALLS[name](torch.autograd.functional, torch.tensor(X), torch))


@pytest.mark.torch
@pytest.mark.parametrize("name", [n for n in CALLS if "create_graph" in n and "columns" not in n])
@pytest.mark.parametrize("recording", [True, False])
def test_history_like_torch(name, recording):
    """Whether the results have one, with an input that requires grad, under no_grad too."""

    def program(torch):
        x = torch.tensor(X, requires_grad=True)
        with torch.set_grad_enabled(recording):
            found = CALLS[name](torch.autograd.functional, x, torch)
        flat = found if isinstance(found, tuple) else (found,)
        g = torch.autograd.grad(sum([t.sum() for t in flat]), x)
        return [t.requires_grad for t in flat], g

    check(program)


@pytest.mark.parametrize("product", [vjp, jvp])
def test_products_with_a_jacobian(product):
    a = torch.randn(3, 3, dtype=torch.float64)
    x, v = torch.randn(3, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    y, found = product(lambda x: a @ x, x, v)
    assert torch.allclose(y, a @ x)
    assert torch.allclose(found, v @ a if product is vjp else a @ v)


@pytest.mark.parametrize("product", [vhp, hvp])
def test_products_with_a_hessian(product):
    a = torch.randn(3, 3, dtype=torch.float64)
    x, v = torch.randn(3, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    assert torch.allclose(product(lambda x: x @ a @ x, x, v)[1], (a + a.mT) @ v)


@pytest.mark.parametrize("options", [{}, {"vectorize": True}, {"vectorize": True, "strategy": "forward-mode"}])
def test_jacobian_of_a_product(options):
    a = torch.randn(3, 4, dtype=torch.float64)
    x = torch.randn(4, dtype=torch.float64, requires_grad=True)
    found = jacobian(lambda x: a @ x, x, **options)
    assert torch.allclose(found, a) and not found.requires_grad


@pytest.mark.parametrize("options", [{}, {"vectorize": True}])
def test_results_can_be_differentiated(options):
    x = torch.randn(3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: jacobian(torch.sin, x, create_graph=True, **options), (x,))
    assert torch.autograd.gradcheck(lambda x: hessian(cubes, x, create_graph=True, **options), (x,))
    assert torch.autograd.gradcheck(lambda x: vjp(grows, x, x, create_graph=True)[1], (x,))
    assert torch.autograd.gradcheck(lambda x: jvp(grows, x, x, create_graph=True)[1], (x,))


def test_an_argument_is_another_than_what_the_function_captures():
    x = torch.tensor(X, requires_grad=True)
    assert vjp(lambda y: y * x, x, torch.ones(2))[1].tolist() == X


def test_the_jacobian_of_an_empty_output_is_empty():
    x = torch.tensor(X)
    for options in ({}, {"vectorize": True}, {"vectorize": True, "strategy": "forward-mode"}):
        assert jacobian(lambda x: x[:0], x, **options).shape == (0, 2)


def test_by_columns_with_several_inputs_and_outputs():
    x = torch.tensor(X)
    found = jacobian(lambda a, b: (a * b, a.sum()), (x, x * 2), vectorize=True, strategy="forward-mode")
    expected = jacobian(lambda a, b: (a * b, a.sum()), (x, x * 2))
    for f, e in zip(found, expected):
        for a, b in zip(f, e):
            assert torch.equal(a, b)


def test_inputs_are_left_alone():
    x = torch.tensor(X)
    for call in (lambda: hessian(cubes, x), lambda: jacobian(grows, x), lambda: hvp(cubes, x, x)):
        assert not getattr(call(), "requires_grad", False)
        assert not x.requires_grad and x.grad is None
