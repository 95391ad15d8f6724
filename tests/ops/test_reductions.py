"""Reductions: values, dtypes, derivatives, conventions at ties and zeros, errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from .harness import FLOATS, Case, F, OperatorTests, check_gradient, numpy, tensor

ANY = (*FLOATS, "int64", "int32", "uint8", "bool")
SHAPE = [(3, 2, 4)]


def case(name: str, *args: Any, ref: Any = None, label: str = "", **options: Any) -> Case:
    keywords = options.pop("keywords", {})
    options.setdefault("shapes", SHAPE)
    fn = options.pop("fn", lambda T, a: getattr(T, name)(a, *args, **keywords))
    return Case(f"{name}{label or (args + tuple(keywords.items()) or '')}", fn, ref=ref, **options)


def lse(a: np.ndarray, axis: Any, keepdims: bool = False) -> Any:
    return np.log(np.exp(a).sum(axis, keepdims=keepdims))


CASES = [
    case("sum", ref=np.sum, dtypes=(*ANY, "complex64")),
    case("sum", 1, ref=lambda a: a.sum(1), dtypes=(*FLOATS, "int64", "complex64")),
    case("sum", (0, -1), True, ref=lambda a: a.sum((0, 2), keepdims=True)),
    case("sum", keywords={"axis": 0, "keepdims": True}, ref=lambda a: a.sum(0, keepdims=True)),
    case("sum", [], ref=np.sum, node=False),
    case("mean", ref=np.mean, dtypes=(*FLOATS, "complex64")),
    case("mean", (0, 2), ref=lambda a: a.mean((0, 2)), dtypes=FLOATS),
    case("mean", -1, True, ref=lambda a: a.mean(-1, keepdims=True)),
    case("nansum", 1, ref=lambda a: a.sum(1)),
    case("nanmean", 1, ref=lambda a: a.mean(1), node=False),
    case("prod", ref=np.prod, dtypes=(*FLOATS, "int64"), low=0.5),
    case("prod", 1, ref=lambda a: a.prod(1), dtypes=("float32", "float64", "int64")),
    case("prod", 0, True, ref=lambda a: a.prod(0, keepdims=True)),
    case("all", grad=False, ref=np.all, dtypes=ANY),
    case("any", 1, grad=False, ref=lambda a: a.any(1), dtypes=("float32", "int64", "bool")),
    case("count_nonzero", 0, grad=False, ref=lambda a: (a != 0).sum(0), dtypes=ANY),
    case("max", ref=np.max, dtypes=ANY),
    case("min", ref=np.min, dtypes=ANY),
    case("max", 1, ref=lambda a: (a.max(1), a.argmax(1)), dtypes=(*FLOATS, "int64"), distinct=True, node=False),
    case("min", -1, True, ref=lambda a: (a.min(-1, keepdims=True), a.argmin(-1, keepdims=True)), node=False),
    case("amax", (0, 1), ref=lambda a: a.max((0, 1)), dtypes=ANY),
    case("amin", 1, True, ref=lambda a: a.min(1, keepdims=True), dtypes=ANY),
    case("aminmax", ref=lambda a: (a.min(), a.max())),
    case("aminmax", keywords={"dim": 1}, ref=lambda a: (a.min(1), a.max(1))),
    case("argmax", grad=False, ref=np.argmax, dtypes=ANY[:-1]),
    case("argmin", 1, True, grad=False, ref=lambda a: a.argmin(1, keepdims=True), dtypes=FLOATS),
    case("var", ref=lambda a: a.var(ddof=1), dtypes=FLOATS),
    case("var", (0, 2), ref=lambda a: a.var((0, 2), ddof=1)),
    case("var", 1, keywords={"unbiased": False, "keepdim": True}, ref=lambda a: a.var(1, keepdims=True)),
    case("var", False, ref=lambda a: a.var()),
    case("std", ref=lambda a: a.std(ddof=1), dtypes=FLOATS),
    case("std", 0, keywords={"correction": 0}, ref=lambda a: a.std(0)),
    case("std_mean", 1, keywords={"correction": 0}, ref=lambda a: (a.std(1), a.mean(1))),
    case("var_mean", ref=lambda a: (a.var(ddof=1), a.mean())),
    case("logsumexp", 1, ref=lambda a: lse(a, 1), dtypes=(*FLOATS, "int64")),
    case("logsumexp", (0, 2), True, ref=lambda a: lse(a, (0, 2), True)),
    case("norm", ref=np.linalg.norm, shapes=[(6,)], dtypes=(*FLOATS, "complex64")),
    case("norm", 1, 1, ref=lambda a: np.abs(a).sum(1)),
    case("norm", 3, ref=lambda a: (np.abs(a) ** 3).sum() ** (1 / 3)),
    case("norm", 1.5, 0, True, ref=lambda a: (np.abs(a) ** 1.5).sum(0, keepdims=True) ** (1 / 1.5)),
    case("norm", float("inf"), ref=lambda a: np.abs(a).max()),
    case("norm", 0, ref=lambda a: np.float64(a.size), second=False),
    case("vector_norm", fn=lambda T, a: T.linalg.vector_norm(a, 2, dim=(0, 2)), ref=lambda a: np.sqrt((a * a).sum((0, 2)))),
    case("dist", fn=lambda T, a, b: T.dist(a, b, 3), shapes=[(4,), (4,)], ref=lambda a, b: (np.abs(a - b) ** 3).sum() ** (1 / 3), node=False),
    case("renorm", 2, 0, 1.0, node=False, shapes=[(3, 4)], low=0.5),
    case("sum_to_size", fn=lambda T, a: a.sum_to_size(2, 1), ref=lambda a: a.sum((0, 2))[:, None], node=False),
]


class TestReductions(OperatorTests):
    cases = CASES


def slope(fn: Any, a: Any) -> list[Any]:
    from flambeau.autograd.engine import grad

    t = tensor(np.array(a, float), True)
    return grad([fn(t)], [t])[0]._a.tolist()


def test_ties_and_zeros() -> None:
    """PyTorch's conventions: max() and amax share among equals, max(dim) chooses one; norms have slope 0 at 0."""
    assert slope(lambda t: t.max(), [1, 2, 2]) == [0, 0.5, 0.5]
    assert slope(lambda t: t.amax(0), [2, 2]) == [0.5, 0.5]
    assert slope(lambda t: t.max(0)[0], [1, 2, 2]) == [0, 1, 0]
    assert slope(lambda t: t.norm(), [0, 0]) == [0, 0]
    assert slope(lambda t: t.norm(1), [0, -1]) == [0, -1]
    assert slope(lambda t: t.std(), [1, 1]) == [0, 0]
    assert slope(lambda t: t.prod(), [0, 2, 3]) == [6, 0, 0]
    assert slope(lambda t: t.prod(), [0, 0, 3]) == [0, 0, 0]


def test_prod_with_zeros_is_differentiable_twice() -> None:
    for a in ([0.0, 2, 3], [0.0, 0, 3], [1.0, 2, 0]):
        check_gradient(lambda t: t.prod(), [np.array(a)])
    check_gradient(lambda t: t.prod(1), [np.array([[0.0, 2, 3], [1, 2, 3], [0, 0, 5]])])


def ones(*shape: int) -> Any:
    return tensor(np.ones(shape))


@pytest.mark.parametrize(
    "call, kind, phrase",
    [
        (lambda: ones(2, 3).sum(5), IndexError, "Dimension out of range (expected to be in range of [-2, 1], but got 5)"),
        (lambda: ones(2, 3).sum((0, 0)), RuntimeError, "dim 0 appears multiple times in the list of dims"),
        (lambda: ones(0).max(), RuntimeError, "max(): Expected reduction dim to be specified for input.numel() == 0."),
        (lambda: ones(2, 0).max(1), IndexError, "max(): Expected reduction dim 1 to have non-zero size."),
        (lambda: ones(2, 0).amax(1), IndexError, "amax(): Expected reduction dim 1 to have non-zero size."),
        (lambda: ones(0).argmax(), IndexError, "argmax(): Expected reduction dim to be specified for input.numel() == 0."),
        (lambda: tensor([1, 2]).mean(), RuntimeError, "mean(): could not infer output dtype. Input dtype must be either a floating point or complex dtype. Got: Long"),
        (lambda: tensor([1, 2]).std(), RuntimeError, "std and var only support floating point and complex dtypes"),
        (lambda: F.norm(tensor([1, 2])), RuntimeError, "Expected a floating point or complex tensor as input. Got Long"),
        (lambda: F.sum(3), TypeError, "sum(): argument 'input' (position 1) must be Tensor, not int"),
        (lambda: ones(2, 3).sum_to_size(4), RuntimeError, "is not expandable to size"),
    ],
)  # fmt: skip
def test_refusals(call: Any, kind: Any, phrase: str) -> None:
    with pytest.raises(kind) as e:
        call()
    assert phrase in str(e.value)


def test_empty_and_scalars() -> None:
    assert float(numpy(ones(0).sum())) == 0 and float(numpy(ones(0).prod())) == 1
    assert np.isnan(numpy(ones(0).mean()))
    assert numpy(ones(2, 0).sum(1)).tolist() == [0, 0]
    assert numpy(ones(0).logsumexp(0)) == -np.inf
    three = tensor(np.array(3.0), True)
    assert three.sum(0)._a.shape == () and float(three.max(0)[0]._a) == 3 and float(three.max(0)[1]._a) == 0
    assert slope(lambda t: t.max(0)[0], 3.0) == 1


def test_nan() -> None:
    nan = np.nan
    t = tensor([1.0, nan, 3.0])
    assert np.isnan(numpy(t.max())) and int(t.argmax()._a) == 1 and np.isnan(numpy(t.amin(0)))
    assert float(numpy(F.nansum(t))) == 4 and float(numpy(F.nanmean(t))) == 2


def test_half_precision_sums_in_wider_ones() -> None:
    t = tensor(np.ones(5000, np.float16))
    assert float(numpy(t.sum())) == 5000 and float(numpy(t.mean())) == 1
    assert t.sum().dtype is t.dtype


def test_large() -> None:
    """The generated kernels: any axes, any strides."""
    a = np.random.default_rng(0).standard_normal((40, 33, 50))
    for axes in (None, 0, 1, 2, (0, 2), (1, 2), (0, 1)):
        for b in (a, a.transpose(2, 0, 1), a[::2, :, ::3]):
            t = tensor(b)
            np.testing.assert_allclose(numpy(t.sum(axes)), b.sum(axes), atol=1e-9)
            np.testing.assert_allclose(numpy(t.var(axes)), b.var(axes, ddof=1), atol=1e-9)
            np.testing.assert_allclose(numpy(t.amax(() if axes is None else axes)), b.max(axes))


def test_printing_and_unpacking() -> None:
    r = tensor([1.0, 5.0]).max(0)
    values, indices = r
    assert values is r.values and indices is r.indices and type(r).__name__ == "max"
    assert repr(r).startswith("torch.return_types.max(\nvalues=")


def test_out() -> None:
    out = tensor(np.zeros(2))
    assert F.sum(ones(2, 3), 1, out=out) is out and numpy(out).tolist() == [3, 3]
    values, indices = tensor(np.zeros(2)), tensor(np.zeros(2, np.int64))
    r = F.max(tensor([[1.0, 2.0], [4.0, 3.0]]), 1, out=(values, indices))
    assert numpy(values).tolist() == [2, 4] and r.indices is indices


def test_gradient_of_extremes_that_are_nan() -> None:
    """max() and median() give it to the nan; amax and aminmax, which divide it among equals, find none."""
    from flambeau.autograd.engine import grad

    nan = np.nan
    for fn, want in (
        (lambda x: x.max(), [[0, 1, 0], [0, 0, 0]]),
        (lambda x: x.median(), [[0, 1, 0], [0, 0, 0]]),
        (lambda x: x.max(1)[0], [[0, 1, 0], [1, 0, 0]]),
        (lambda x: x.amax(1), [[nan, nan, nan], [0.5, 0.5, 0]]),
        (lambda x: F.aminmax(x, dim=1)[1], [[nan, nan, nan], [0.5, 0.5, 0]]),
    ):
        x = tensor(np.array([[1.0, nan, 2.0], [3.0, 3.0, 1.0]]), True)
        np.testing.assert_array_equal(grad([fn(x).sum()], [x])[0]._a, want)
