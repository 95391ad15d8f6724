"""Activations: values, derivatives, kinks, in-place forms."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.special as sp

from .harness import FLOATS, Case, F, OperatorTests, numpy, tensor

WIDE: Any = [(3, 4)]


def case(name: str, ref: Any = None, *args: Any, **options: Any) -> Case:
    label = f"{name}{args or ''}"
    options.setdefault("dtypes", FLOATS)
    return Case(label, lambda T, a: getattr(T.nn.functional, name)(a, *args), options.pop("shapes", WIDE), ref, low=-4, high=4,
                tol=options.pop("tol", 3), **options)  # fmt: skip


CASES = [
    case("relu", lambda a: np.maximum(a, 0), dtypes=(*FLOATS, "int64")), case("relu6", lambda a: np.clip(a, 0, 6)),
    case("elu", lambda a: np.where(a > 0, a, np.expm1(a))), case("elu", None, 0.3), case("celu", None, 0.7), case("selu"),
    case("leaky_relu", lambda a: np.where(a > 0, a, 0.01 * a)), case("leaky_relu", None, 0.2),
    case("gelu", lambda a: a * 0.5 * (1 + sp.erf(a / np.sqrt(2)))),
    Case("gelu_tanh", lambda T, a: T.nn.functional.gelu(a, approximate="tanh"), WIDE, dtypes=FLOATS, low=-4, high=4, tol=3),
    case("silu", lambda a: a * sp.expit(a)), case("mish", lambda a: a * np.tanh(np.log1p(np.exp(a)))), case("hardtanh"),
    case("hardtanh", None, -2.0, 0.5), case("hardswish"), case("hardsigmoid"), case("softplus", lambda a: np.log1p(np.exp(a))),
    case("softplus", None, 3.0, 5.0), case("softsign", lambda a: a / (1 + np.abs(a))), case("tanhshrink"), case("softshrink"),
    case("softshrink", None, 0.9), case("hardshrink"), case("threshold", None, 0.1, 20.0), case("logsigmoid", lambda a: -np.logaddexp(0, -a)),
    case("sigmoid", sp.expit), case("tanh", np.tanh), case("rrelu", node=False), case("glu", lambda a: a[:, :2] * sp.expit(a[:, 2:]), tol=4),
    Case("prelu", lambda T, a, w: T.nn.functional.prelu(a, w), [(2, 3, 2), (3,)]),
    Case("prelu_one", lambda T, a, w: T.nn.functional.prelu(a, w), [(2, 3), (1,)]),
]  # fmt: skip


class TestActivations(OperatorTests):
    cases = CASES


IN_PLACE = ["relu", "relu6", "elu", "selu", "celu", "leaky_relu", "hardtanh", "silu", "mish", "hardswish", "hardsigmoid"]


@pytest.mark.parametrize("name", IN_PLACE)
def test_in_place(name: str) -> None:
    """``inplace=True`` gives the same values and gradients."""
    from flambeau.autograd.engine import grad

    fn = getattr(F.nn.functional, name)
    a = np.linspace(-3.3, 3.1, 12)
    results = []
    for inplace in (False, True):
        x = tensor(a, True)
        y = fn(x * 1.0, inplace=inplace)
        results.append((numpy(y), grad([(y * y).sum()], [x])[0]._a))
    np.testing.assert_allclose(results[0], results[1], rtol=1e-12)


def test_kinks_and_nan() -> None:
    from flambeau.autograd.engine import grad

    f = F.nn.functional
    for name, at, want in (("relu", 0, 0), ("leaky_relu", 0, 0.01), ("hardtanh", 1, 0), ("hardswish", -3, 0), ("hardsigmoid", 3, 0)):
        x = tensor(np.array(float(at)), True)
        assert float(grad([getattr(f, name)(x)], [x])[0]._a) == want
    nan = tensor([np.nan])
    for name in IN_PLACE:
        assert np.isnan(numpy(getattr(f, name)(nan))).all(), name
    assert numpy(f.softplus(tensor([1000.0]))).tolist() == [1000]


@pytest.mark.parametrize(
    "call, phrase",
    [
        (lambda: F.nn.functional.gelu(tensor([1.0]), approximate="x"), "approximate argument must be either none or tanh."),
        (lambda: F.nn.functional.glu(tensor([1.0, 2.0, 3.0])), "Halving dimension must be even, but dimension 0 is size 3"),
        (lambda: F.nn.functional.softshrink(tensor([1.0]), -1.0), "lambda must be greater or equal to 0, but found to be -1.0."),
        (lambda: F.nn.functional.prelu(tensor(np.ones((2, 3))), tensor([1.0, 1.0])), "Mismatch of parameter numbers and input channel size"),
    ],
)  # fmt: skip
def test_refusals(call: Any, phrase: str) -> None:
    with pytest.raises(RuntimeError) as e:
        call()
    assert phrase in str(e.value)
