"""Functions of one variable against SciPy's, torch's and their own differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.special as sp

from .harness import FLOATS, Case, F, OperatorTests, numpy, tensor

ALL = (*FLOATS, "int64", "bool", "complex64")
REAL = (*FLOATS, "int64")


def case(name: str, ref: Any, low: float = -2, high: float = 2, dtypes: Any = ALL, **options: Any) -> Case:
    options.setdefault("tol", 4)
    return Case(name, lambda T, a: getattr(T, name)(a), ((2, 3),), ref, dtypes=dtypes, low=low, high=high, **options)


def special(name: str, ref: Any, *args: Any, low: float = 0.1, high: float = 2, dtypes: Any = ("float32", "float64"), **options: Any) -> Case:
    return Case(f"special.{name}", lambda T, a: getattr(T.special, name)(a, *args), ((2, 3),), ref, dtypes=dtypes, low=low,
                high=high, tol=options.pop("tol", 10), **options)  # fmt: skip


CASES = [
    case("exp", np.exp), case("exp2", np.exp2), case("expm1", np.expm1), case("log", np.log, 0.1), case("log2", np.log2, 0.1),
    case("log10", np.log10, 0.1), case("log1p", np.log1p, -0.5), case("sqrt", np.sqrt, 0.1), case("rsqrt", lambda a: a**-0.5, 0.4),
    case("sin", np.sin), case("cos", np.cos), case("tan", np.tan, -1, 1), case("asin", np.arcsin, -0.9, 0.9, FLOATS),
    case("acos", np.arccos, -0.9, 0.9, FLOATS), case("atan", np.arctan), case("sinh", np.sinh), case("cosh", np.cosh),
    case("tanh", np.tanh), case("asinh", np.arcsinh, dtypes=REAL), case("acosh", np.arccosh, 1.2, 3, FLOATS),
    case("atanh", np.arctanh, -0.8, 0.8, FLOATS), case("sigmoid", lambda a: 1 / (1 + np.exp(-a)), dtypes=(*REAL, "complex64")), case("erf", sp.erf, dtypes=REAL),
    case("erfc", sp.erfc, dtypes=REAL), case("erfinv", sp.erfinv, -0.9, 0.9, FLOATS), case("lgamma", sp.gammaln, 0.5, 4, REAL),
    case("digamma", sp.digamma, 0.5, 4, REAL), case("deg2rad", np.deg2rad, dtypes=REAL), case("rad2deg", np.rad2deg, dtypes=REAL),
    case("sinc", np.sinc, dtypes=REAL), case("logit", sp.logit, 0.1, 0.9, FLOATS),
    case("angle", np.angle, dtypes=("float32", "complex64"), second=False), case("i0", sp.i0, dtypes=("float32", "float64")),
    Case("logit_eps", lambda T, a: T.logit(a, 0.2), ((2, 3),), None, low=0.05, high=0.95, tol=4),
    Case("polygamma", lambda T, a: T.polygamma(1, a), ((2, 3),), lambda a: sp.polygamma(1, a), low=0.5, high=3, tol=10),
    Case("mvlgamma", lambda T, a: T.mvlgamma(a, 2), ((2, 3),), lambda a: np.vectorize(lambda v: sp.multigammaln(v, 2))(a),
         low=1, high=4, node=False, tol=4),
    special("i0e", sp.i0e, low=-2), special("i1", sp.i1, low=-2), special("i1e", sp.i1e, low=-2), special("ndtr", sp.ndtr, low=-2, node=False),
    special("ndtri", sp.ndtri, high=0.9), special("log_ndtr", sp.log_ndtr, low=-2), special("erfcx", sp.erfcx, low=-1),
    special("entr", sp.entr), special("bessel_j0", sp.j0, grad=False), special("bessel_y1", sp.y1, grad=False),
    special("modified_bessel_k0", sp.k0, grad=False), special("expit", sp.expit), special("gammaln", sp.gammaln),
    Case("frexp", lambda T, a: T.frexp(a), ((2, 3),), lambda a: tuple(np.frexp(a))),
    Case("special.gammainc", lambda T, a, b: T.special.gammainc(a, b), [(3,), (3,)], sp.gammainc, low=0.5, high=3, grad=False, tol=4),
    Case("special.zeta", lambda T, a, b: T.special.zeta(a, b), [(3,), (3,)], sp.zeta, low=1.5, high=3, grad=False, tol=4),
]  # fmt: skip


class TestMaths(OperatorTests):
    cases = CASES


def test_extreme_values() -> None:
    inf, nan = np.inf, np.nan
    t = tensor([-inf, inf, nan, 0.0])
    with np.errstate(all="ignore"):
        for name in ("exp", "log", "sqrt", "tanh", "sin", "log1p", "rsqrt"):
            ref = getattr(np, name)(t._a) if name != "rsqrt" else 1 / np.sqrt(t._a)
            np.testing.assert_allclose(numpy(getattr(F, name)(t)), ref)
    assert numpy(F.sigmoid(tensor([-1e4, 1e4]))).tolist() == [0, 1]
    assert numpy(F.sinc(tensor([0.0]))).tolist() == [1]


def test_no_warnings(recwarn: Any) -> None:
    for dtype in (np.float32, np.float64):
        t = tensor(np.array([-1.0, 0.0, 1e30], dtype))
        for name in ("log", "sqrt", "exp", "asin", "rsqrt", "atanh", "reciprocal"):
            getattr(F, name)(t)
        t.sum(), (t * t).sum(), t / 0, t.prod()
    assert not [w for w in recwarn if issubclass(w.category, RuntimeWarning)]


def test_large_arrays_agree() -> None:
    a = np.random.default_rng(0).uniform(0.1, 0.9, 70_000).astype(np.float32)
    for name in ("exp", "log", "tanh", "erf", "asin", "sigmoid"):
        whole = numpy(getattr(F, name)(tensor(a)))
        parts = np.concatenate([numpy(getattr(F, name)(tensor(p))) for p in np.split(a, 70)])
        np.testing.assert_allclose(whole, parts, rtol=3e-6, err_msg=name)


def test_refusals() -> None:
    with pytest.raises(TypeError, match=r"sin\(\): argument 'input' \(position 1\) must be Tensor, not str"):
        F.sin("a")
    with pytest.raises(RuntimeError, match="does not support negative n"):
        F.polygamma(-1, tensor([1.0]))


def test_frexp() -> None:
    mantissa, exponent = F.frexp(tensor([3.0, -0.25]))
    assert numpy(mantissa).tolist() == [0.75, -0.5] and numpy(exponent).tolist() == [2, -1]


def test_gamma_by_its_parameter() -> None:
    """Differentiable by the second operand only, as in PyTorch: the other's gradient is refused, not zero."""
    from flambeau.autograd.engine import grad

    a, b = tensor([1.0, 2.0], True), tensor([0.5, 1.5], True)
    for fn, said in ((F.special.gammainc, "igamma: input"), (F.special.gammaincc, "igammac: input"), (F.special.zeta, "zeta")):
        y = fn(a + 1, b).sum()
        assert grad([y], [b], retain_graph=True)[0]._a.shape == (2,)
        with pytest.raises(NotImplementedError, match=f"the derivative for '{said}' is not implemented"):
            grad([y], [a])
