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
    Case("quantiles", lambda T, a, q: T.quantile(a, q, 1), lambda rng: [rng.permutation(12.0).reshape(3, 4), np.array([0.1, 0.6])],
         lambda a, q: np.quantile(a, q, 1), grad=False, layouts=False),
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
    a = np.random.default_rng(0).permutation(1000.0)
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
