"""jacrev, jacfwd, hessian."""

import pytest

import flambeau as torch
from flambeau.func import hessian, jacfwd, jacrev

from .both import check

X = [1.0, 2.0]

CALLS = {
    "one": lambda J, x, t: J(lambda x: x * x)(x),
    "0-d": lambda J, x, t: J(lambda x: x * x)(x[0]),
    "two arguments": lambda J, x, t: J(lambda x, y: x * y, argnums=(0, 1))(x, x * 2),
    "a tuple of one": lambda J, x, t: J(lambda x, y: x * y, argnums=(1,))(x, x * 2),
    "nests of outputs": lambda J, x, t: J(lambda x: {"a": x * x, "b": (x.sum(),)})(x),
    "nests of inputs": lambda J, x, t: J(lambda d: d["a"] * d["b"][0])({"a": x, "b": [x * 2]}),
    "a constant": lambda J, x, t: J(lambda x: t.ones(3))(x),
    "several outputs and inputs": lambda J, x, t: J(lambda x, y: (x * y, x.sum(), y.exp()), argnums=(0, 1))(x, x * 2),
    "matrices": lambda J, x, t: J(lambda a: a @ a)(t.tensor([X, X])),
    "no outputs": lambda J, x, t: J(lambda x: x[:0])(x),
    "no inputs": lambda J, x, t: J(lambda x: x.sum())(x[:0]),
    # errors
    "argnums out of range": lambda J, x, t: J(lambda x, y: x * y, argnums=2)(x, x),
    "argnums twice": lambda J, x, t: J(lambda x, y: x * y, argnums=(0, 0))(x, x),
    "argnums empty": lambda J, x, t: J(lambda x, y: x * y, argnums=())(x, x),
    "to a number": lambda J, x, t: J(lambda x: 3.0)(x),
    "to nothing": lambda J, x, t: J(lambda x: ())(x),
    "complex": lambda J, x, t: J(lambda x: x * x)(t.complex(x, x)),
    "to complex": lambda J, x, t: J(lambda x: t.complex(x, x * x))(x),
    "integers": lambda J, x, t: J(lambda x: x * x)(t.tensor([1, 2])),
}


@pytest.mark.torch
@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("transformation", ["jacrev", "jacfwd"])
def test_like_torch(transformation, name):
    check(lambda torch: CALLS[name](getattr(torch.func, transformation), torch.tensor(X), torch))


@pytest.mark.torch
@pytest.mark.parametrize("transformation", ["jacrev", "jacfwd"])
def test_aux_like_torch(transformation):
    check(lambda torch: getattr(torch.func, transformation)(lambda x: (x * x, {"a": x + 1}), has_aux=True)(torch.tensor(X)))


@pytest.mark.torch
@pytest.mark.parametrize("size", [1, 2, 3, 100, 0, -1])
def test_chunks_like_torch(size):
    check(lambda torch: torch.func.jacrev(lambda x: torch.outer(x, x), chunk_size=size)(torch.tensor(X)))


HESSIANS = {
    "one": lambda H, x: H(lambda x: (x**3).sum())(x),
    "several outputs": lambda H, x: H(lambda x: x**3)(x),
    "two arguments": lambda H, x: H(lambda x, y: (x**3 * y).sum(), argnums=(0, 1))(x, x),
    "a nest": lambda H, x: H(lambda d: (d["a"] ** 3 * d["b"]).sum())({"a": x, "b": x}),
}


@pytest.mark.torch
@pytest.mark.parametrize("name", HESSIANS)
def test_hessian_like_torch(name):
    check(lambda torch: HESSIANS[name](torch.func.hessian, torch.tensor(X)))


@pytest.mark.parametrize("transformation", [jacrev, jacfwd])
def test_closed_forms(transformation):
    a = torch.randn(3, 4, dtype=torch.float64)
    x = torch.randn(4, dtype=torch.float64)
    assert torch.allclose(transformation(lambda x: a @ x)(x), a)
    assert torch.allclose(transformation(lambda x: x.exp())(x), torch.diag(x.exp()))
    assert torch.allclose(transformation(lambda x: (x**2).sum())(x), 2 * x)


@pytest.mark.parametrize("transformation", [jacrev, jacfwd])
def test_the_last_argument(transformation):
    x = torch.tensor(X)
    assert torch.equal(transformation(lambda x, y: x * y, argnums=-1)(x, x * 2), torch.diag(x))


def test_hessian_of_a_quadratic_form():
    a = torch.randn(4, 4, dtype=torch.float64)
    x = torch.randn(4, dtype=torch.float64)
    assert torch.allclose(hessian(lambda x: x @ a @ x)(x), a + a.mT)


def test_mixed_dtypes_keep_the_inputs_dtype_by_rows_and_the_outputs_by_columns():
    x = torch.tensor(X)
    for transformation in (jacrev, jacfwd):
        found = transformation(lambda x, y: x * y, argnums=(0, 1))(x, x.double())
        assert torch.allclose(found[0].double(), torch.diag(x).double()) and torch.allclose(found[1], torch.diag(x).double())


def test_random_functions_in_jacfwd():
    x = torch.tensor(X)
    assert jacfwd(lambda x: x * torch.rand(2), randomness="same")(x).shape == (2, 2)
