"""Sorting, selection, medians, quantiles, unique values, counting, searching."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from .harness import FLOATS, INTS, Case, F, OperatorTests, numpy, tensor

ANY = (*FLOATS, *INTS)
SHAPE = [(3, 5)]


def case(name: str, *args: Any, ref: Any = None, dtypes: Any = ("float32", "float64"), **options: Any) -> Case:
    keywords = options.pop("keywords", {})
    options.setdefault("shapes", SHAPE)
    return Case(f"{name}{args or ''}{keywords or ''}", lambda T, a: getattr(T, name)(a, *args, **keywords), ref=ref, dtypes=dtypes,
                node=options.pop("node", False), **options)  # fmt: skip


CASES = [
    case("sort", ref=lambda a: (np.sort(a), np.argsort(a, kind="stable"))),
    case("sort", keywords={"stable": True, "dim": 0, "descending": True}, dtypes=FLOATS),
    case("argsort", 0, grad=False, ref=lambda a: np.argsort(a, 0)),
    case("msort", ref=lambda a: np.sort(a, 0)),
    case("topk", 2), case("topk", 3, 0, False), case("kthvalue", 2), case("kthvalue", 1, 0, True),
    case("median", ref=lambda a: np.median(a), dtypes=FLOATS, node=True), case("median", 1, shapes=[(3, 4)]),
    case("nanmedian"), case("nanmedian", 0, True), case("quantile", 0.3, ref=lambda a: np.quantile(a, 0.3)),
    *[case("quantile", 0.4, 1, keywords={"interpolation": i}) for i in ("linear", "lower", "higher", "midpoint", "nearest")],
    case("nanquantile", 0.5, 0, True), case("unique", grad=False, ref=np.unique, dtypes=ANY),
    case("unique", keywords={"return_inverse": True, "return_counts": True}, grad=False, dtypes=("int64", "uint8")),
    case("unique_consecutive", keywords={"return_inverse": True, "return_counts": True}, grad=False, dtypes=("int64", "bool")),
    case("unique_consecutive", keywords={"dim": 0}, grad=False), case("unique", keywords={"dim": 1}, grad=False),
    case("histc", 4, -1, 1, grad=False),
    Case("quantiles", lambda T, a, q: T.quantile(a, q, 1), lambda rng: [(rng.permutation(12) * 1.0).reshape(3, 4), np.array([0.1, 0.6])],
         lambda a, q: np.quantile(a, q, 1), grad=False, layouts=False),
]  # fmt: skip

NAN = np.array([[3.0, np.nan, 1, 1], [2, 5, np.nan, np.nan], [4, 2, 2, 0]])
CASES += [
    Case("nan " + name, fn, lambda rng: [NAN], dtypes=FLOATS, grad=False)
    for name, fn in {
        "sort": lambda T, a: T.sort(a, stable=True), "sort_falling": lambda T, a: T.sort(a, 1, True),
        "median": lambda T, a: T.median(a, 1), "median_all": lambda T, a: (T.median(a), T.nanmedian(a)),
        "nanmedian": lambda T, a: T.nanmedian(a, 1), "topk": lambda T, a: T.topk(a, 2)[0], "kthvalue": lambda T, a: T.kthvalue(a, 3)[0],
    }.items()
]  # fmt: skip
CASES += [
    Case("nan quantiles", lambda T, a: (T.quantile(a, 0.3, 1), T.nanquantile(a, 0.3, 1), T.nanquantile(a, 0.6, keepdim=True)),
         lambda rng: [NAN], grad=False),
    Case("quantiles_of_q", lambda T, a, q: T.quantile(a, q, 0, True), lambda rng: [(rng.permutation(12) * 1.0).reshape(3, 4), np.array([0.13, 0.64])],
         node=False, layouts=False),
    Case("node sort", lambda T, a: T.sort(a, 0)[0], SHAPE), Case("node topk", lambda T, a: T.topk(a, 2)[0], SHAPE),
    Case("node kthvalue", lambda T, a: T.kthvalue(a, 2)[0], SHAPE), Case("node mode", lambda T, a: T.mode(a)[0], SHAPE),
    Case("node median", lambda T, a: (T.median(a, 1)[0], T.nanmedian(a, 1)[0], T.nanmedian(a)), SHAPE),
    Case("histogram", lambda T, a: T.histogram(a, 4), SHAPE, grad=False),
    Case("histogram_range", lambda T, a: T.histogram(a, 3, range=(-1.0, 1.0), density=True), SHAPE, grad=False),
    Case("histogram_weight", lambda T, a, w: T.histogram(a, 3, weight=w), [(6,), (6,)], grad=False),
    Case("histogram_edges", lambda T, a: T.histogram(a, a.reshape(-1).sort()[0]), SHAPE, grad=False),
    Case("histogramdd", lambda T, a: T.histogramdd(a, [2, 3]), [(7, 2)], grad=False),
    Case("histc_own", lambda T, a: T.histc(a, 5), SHAPE, dtypes=("float32", "float64"), grad=False),
    Case("unique_rows", lambda T, a: T.unique(a, return_inverse=True, return_counts=True, dim=0),
         lambda rng: [rng.integers(0, 2, (8, 2))], grad=False),
    Case("unique_rows_consecutive", lambda T, a: T.unique_consecutive(a, return_inverse=True, return_counts=True, dim=1),
         lambda rng: [rng.integers(0, 2, (1, 9))], grad=False),
    Case("searchsorted", lambda T, a, v: T.searchsorted(a.sort(-1)[0], v, right=True), [(2, 5), (2, 3)], dtypes=FLOATS, grad=False),
    Case("searchsorted_sorter", lambda T, a, v: T.searchsorted(a, v, sorter=a.argsort(), out_int32=True), [(5,), (2, 3)], grad=False),
]  # fmt: skip


class TestSorting(OperatorTests):
    cases = CASES


@pytest.mark.torch
def test_ties_as_torch() -> None:
    """Sorting is stable, mode takes the smallest value and its last place, median the lower of two."""
    torch = pytest.importorskip("torch")
    a = np.array([[3, 1, 3, 1, 2], [2, 2, 5, 5, 5], [4, 3, 2, 1, 0]])
    for call in (
        lambda T, t: T.sort(t, stable=True), lambda T, t: T.sort(t, descending=True, stable=True), lambda T, t: T.median(t, 1)[0],
        lambda T, t: T.mode(t, 1)[0], lambda T, t: T.mode(t, 0)[0],
    ):  # fmt: skip
        for x, y in zip(numpy(call(F, tensor(a))), call(torch, torch.from_numpy(a)), strict=True):
            np.testing.assert_array_equal(x, y.numpy())


def test_mode_and_median() -> None:
    r = F.mode(tensor([3, 1, 3, 1, 2]))
    assert (int(r.values._a), int(r.indices._a)) == (1, 3)
    assert float(F.median(tensor([4.0, 1.0, 2.0, 3.0]))._a) == 2
    assert np.isnan(F.median(tensor([1.0, np.nan]))._a) and float(F.nanmedian(tensor([1.0, np.nan]))._a) == 1


def test_nan_is_the_largest() -> None:
    t = tensor([1.0, np.nan, 2.0])
    assert numpy(F.sort(t).indices).tolist() == [0, 2, 1]
    assert numpy(F.sort(t, descending=True).indices).tolist() == [1, 2, 0]
    assert numpy(F.topk(t, 1).indices).tolist() == [1]


def test_topk_of_many() -> None:
    a = np.random.default_rng(0).permutation(1000) * 1.0
    r = F.topk(tensor(a), 5)
    assert numpy(r.values).tolist() == [999, 998, 997, 996, 995]
    np.testing.assert_array_equal(a[numpy(r.indices)], numpy(r.values))
    assert numpy(F.topk(tensor(a), 3, largest=False).values).tolist() == [0, 1, 2]


def test_counting_and_searching() -> None:
    assert numpy(F.bincount(tensor([0, 2, 2]), minlength=4)).tolist() == [1, 0, 2, 0]
    assert numpy(F.bincount(tensor([0, 1, 1]), tensor([0.5, 1.0, 2.0]))).tolist() == [0.5, 3]
    edges = tensor([1, 3, 5])
    assert numpy(F.searchsorted(edges, tensor([3, 6]))).tolist() == [1, 3]
    assert numpy(F.searchsorted(edges, tensor([3, 6]), right=True)).tolist() == [2, 3]
    assert numpy(F.bucketize(tensor([[0, 3]]), edges)).tolist() == [[0, 1]]
    rows = tensor([[1, 3], [2, 4]])
    assert numpy(F.searchsorted(rows, tensor([[2], [2]]))).tolist() == [[1], [0]]


@pytest.mark.parametrize(
    "call, kind, phrase",
    [
        (lambda: F.topk(tensor([1.0]), 2), RuntimeError, "selected index k out of range"),
        (lambda: F.kthvalue(tensor([1.0]), 0), RuntimeError, "selected number k out of range"),
        (lambda: F.quantile(tensor([1]), 0.5), RuntimeError, "input tensor must be either float or double dtype"),
        (lambda: F.quantile(tensor([1.0]), 1.5), RuntimeError, "must be in the range [0, 1]"),
        (lambda: F.bincount(tensor([-1])), RuntimeError, "bincount only supports 1-d non-negative integral inputs."),
        (lambda: F.sort(tensor([1.0]), 2), IndexError, "Dimension out of range"),
    ],
)
def test_refusals(call: Any, kind: Any, phrase: str) -> None:
    with pytest.raises(kind) as e:
        call()
    assert phrase in str(e.value)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64", "uint8", "bool", "float16"])
@pytest.mark.parametrize("ties", [False, True])
def test_large_sorts(dtype: str, ties: bool) -> None:
    """Every way of sorting: packed keys, 64-bit keys, with equal values and with nan; stable, both ways."""
    from flambeau.kernels import sort as S

    rng = np.random.default_rng(1)
    a = (rng.integers(-9, 9, 999) if ties else rng.permutation(999) - 500).astype(dtype)
    if a.dtype.kind == "f":
        a[::50] = np.nan
        a[1::90] = -0.0
    rising = np.argsort(a, kind="stable")
    np.testing.assert_array_equal(S.argsort(a), rising)
    falling = S.argsort(a, True)
    back = 998 - np.argsort(a[::-1], kind="stable")[::-1]
    np.testing.assert_array_equal(falling, back)
    for k in (0, 1, 20, 999):
        np.testing.assert_array_equal(a[S.first(a, k, True)], a[back[:k]])
        np.testing.assert_array_equal(a[S.first(a, k)], a[rising[:k]])
    assert a[S.place_of(a, 7)] == a[rising[7]]


def test_named_and_written_results() -> None:
    t = tensor(np.array([[2.0, 1.0]]))
    values, indices = tensor(np.zeros((1, 2))), tensor(np.zeros((1, 2), np.int64))
    r = F.sort(t, out=(values, indices))
    assert r.values is values and numpy(indices).tolist() == [[1, 0]]
    assert type(F.topk(t, 1)).__name__ == "topk"
    assert F.sort(tensor(np.zeros((0, 3)))).values._a.shape == (0, 3)
    assert F.topk(tensor(np.array(2.0)), 1).values._a.shape == ()


def test_ties_share_the_gradient_of_the_full_median() -> None:
    from flambeau.autograd.engine import grad

    t = tensor(np.array([1.0, 2.0, 2.0, 3.0]), True)
    assert grad([F.median(t)], [t])[0]._a.tolist() == [0, 0.5, 0.5, 0]


def test_unique_has_no_derivative() -> None:
    from flambeau.autograd.engine import grad

    t = tensor(np.array([1.0, 2.0]), True)
    with pytest.raises(NotImplementedError, match="the derivative for '_unique2' is not implemented"):
        grad([F.unique(t).sum()], [t])
