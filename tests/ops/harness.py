"""One table, many tests: what every operator is checked for.

A test file lists its operators and gets the tests:

    CASES = [Case("exp", lambda T, x: T.exp(x), [(2, 3)], np.exp), ...]

    class TestUnary(OperatorTests):
        cases = CASES

A case's function takes the namespace first, so the same function runs on flambeau and on torch. Each case is checked
against its NumPy reference, against torch where that is installed (values, dtypes, shapes, names of nodes), on
transposed, strided, expanded and empty inputs, and, in float64, against central differences, twice.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from .apart import loops, without_rule
from .transforms import check_batched, check_forward, drawn, moving
from .variants import FAMILIES, agrees, described, difference, outcome, recorded, variants

try:
    import torch as TORCH
except ImportError:
    TORCH = None  # type: ignore[assignment]

FLOATS = ("float32", "float64", "float16", "bfloat16")
INTS = ("int64", "int32", "uint8", "int8", "int16")
COMPLEX = ("complex64", "complex128")
TOLERANCE = {"float16": 4e-3, "bfloat16": 3e-2, "float32": 2e-5, "complex64": 2e-5}


@dataclass
class Case:
    """One operator, or one way of calling it.

    Args:
        name: of the test.
        fn: ``fn(T, *tensors)`` with T flambeau or torch.
        shapes: of the inputs, or ``maker(rng) -> list of float64 arrays``.
        ref: the same on NumPy arrays, or None.
        dtypes: names of the dtypes it is tried with.
        low, high: range of the inputs.
        grad: whether its derivatives are checked; ``second``: the second ones too.
        torch: whether torch is asked; ``node``: False if torch's node has another name.
        layouts: whether transposed, strided and empty inputs are tried.
        distinct: inputs without equal values.
        skip: variants (see variants.py; patterns as of file names) that it is not tried with, each with the reason.
    """

    name: str
    fn: Callable[..., Any]
    shapes: Any = ((2, 3),)
    ref: Callable[..., Any] | None = None
    dtypes: tuple[str, ...] = ("float32", "float64")
    low: float = -2.0
    high: float = 2.0
    grad: bool = True
    second: bool = True
    torch: bool = True
    node: bool = True
    layouts: bool = True
    distinct: bool = True
    tol: float = 1.0
    skip: dict[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        return self.name

    def arrays(self, dtype: str, seed: int = 0) -> list[np.ndarray]:
        """The inputs, the same ones at each call."""
        rng = np.random.default_rng(zlib.crc32(self.name.encode()) + seed)
        if callable(self.shapes):
            made = self.shapes(rng)
        else:
            made = []
            for shape in self.shapes:
                n = int(np.prod(shape))
                if self.distinct and n:  # evenly spread, shaken: no ties, nothing within a difference step of another
                    grid = np.linspace(self.low, self.high, n + 2)[1:-1]
                    step = (self.high - self.low) / (n + 1)
                    made.append((rng.permutation(grid) + rng.uniform(-0.3, 0.3, n) * step).reshape(shape))
                else:
                    made.append(rng.uniform(self.low, self.high, shape))
        return [convert(a, dtype) for a in made]


def convert(a: np.ndarray, dtype: str) -> np.ndarray:
    """Floating arrays in the dtype asked for; others (indices, masks) as they are."""
    if a.dtype.kind not in "fc":
        return a
    if dtype == "bfloat16":
        return a.astype(ml_dtypes.bfloat16)
    if dtype.startswith("complex") and a.dtype.kind == "f":
        return (a + 1j * a[..., ::-1] * 0.7).astype(dtype) if a.ndim else (a + 0.3j).astype(dtype)
    if dtype == "bool":
        return a > 0
    if dtype.startswith(("int", "uint")):
        return np.rint(np.abs(a) * 3 if dtype == "uint8" else a * 3).astype(dtype)
    return a.astype(dtype)


class Namespace:
    """What operators have published, under torch's module paths."""

    def __init__(self, module: str = "") -> None:
        self.module = module

    def __getattr__(self, name: str) -> Any:
        from flambeau import ops  # noqa: F401
        from flambeau.core import dtypes
        from flambeau.ops.public import FUNCTIONS

        found = FUNCTIONS.get(self.module, {}).get(name)
        if found is not None:
            return found
        path = f"{self.module}.{name}".lstrip(".")
        if any(m == path or m.startswith(path + ".") for m in FUNCTIONS):
            return Namespace(path)
        if not self.module and (name in dtypes.BY_NAME or name in dtypes.ALIASES):
            return dtypes.BY_NAME.get(name) or dtypes.ALIASES[name]
        raise AttributeError(f"flambeau.{path} is not there")


F = Namespace()


def tensor(a: Any, requires_grad: bool = False) -> Any:
    """A flambeau tensor around a copy of an array, which keeps the strides."""
    from flambeau.core.tensor import wrap

    t = wrap(np.array(a, order="K"))
    t._rg = requires_grad
    return t


def numpy(t: Any) -> Any:
    """The values of a flambeau or torch result as NumPy arrays; tuples as tuples."""
    if isinstance(t, (tuple, list)):
        return tuple(numpy(x) for x in t)
    if hasattr(t, "_a"):
        return t._a
    if hasattr(t, "detach"):
        t = t.detach()
        return t.float().numpy().astype(ml_dtypes.bfloat16) if str(t.dtype) == "torch.bfloat16" else t.resolve_conj().numpy()
    return np.asarray(t)


def torch_tensor(torch: Any, a: np.ndarray, expanded: bool = False) -> Any:
    if expanded:  # the same strides of 0
        small = a[tuple([slice(1 if s == 0 else None) for s in a.strides])]
        return torch_tensor(torch, small).expand(a.shape)
    if a.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(np.array(a.astype(np.float32))).bfloat16()
    return torch.from_numpy(np.array(a))


def flat(r: Any) -> list[Any]:
    """The tensors of a result."""
    if isinstance(r, (tuple, list)):
        return [x for y in r for x in flat(y)]
    return [r]


def close(a: Any, b: Any, tol: float) -> None:
    for x, y in zip(flat(a), flat(b), strict=True):
        x, y = np.asarray(x), np.asarray(y)
        assert x.shape == y.shape, f"shapes {x.shape} and {y.shape}"
        if x.dtype.kind in "fcV" or y.dtype.kind in "fcV":
            wide = np.complex128 if "c" in (x.dtype.kind, y.dtype.kind) else np.float64
            np.testing.assert_allclose(x.astype(wide), y.astype(wide), rtol=tol, atol=tol)
        else:
            np.testing.assert_array_equal(x, y)


def differentiable(r: Any) -> list[Any]:
    return [t for t in flat(r) if hasattr(t, "_rg") and t._rg]


def projected(fn: Callable[..., Any], tensors: list[Any], weights: list[np.ndarray]) -> Any:
    """The sum of what ``fn`` gives, each output weighted: a number to differentiate."""
    total = None
    outs = differentiable(fn(*tensors))
    while len(weights) < len(outs):
        shape = outs[len(weights)]._a.shape
        weights.append(np.random.default_rng(len(weights)).uniform(0.5, 1.5, shape))
    for out, w in zip(outs, weights):
        part = (out * tensor(w.astype(out._a.dtype))).sum()
        total = part if total is None else total + part
    return total


def gradients(fn: Callable[..., Any], arrays: list[np.ndarray], weights: list[np.ndarray], create: bool = False) -> Any:
    from flambeau.autograd.engine import grad

    ts = [tensor(a, a.dtype.kind == "f") for a in arrays]
    y = projected(fn, ts, weights)
    wants = [t for t in ts if t._rg]
    gs = grad([y], wants, create_graph=create, allow_unused=True)
    return wants, gs, y


def check_gradient(fn: Callable[..., Any], arrays: list[np.ndarray], second: bool = True, tol: float = 1.0) -> None:
    """First and second derivatives against central differences, in float64."""
    weights: list[np.ndarray] = []
    _, gs, y = gradients(fn, arrays, weights)
    assert y is not None, "no output requires grad"
    numeric = differences(lambda *a: projected(fn, [tensor(x, x.dtype.kind == "f") for x in a], weights)._a, arrays)
    got = [np.zeros_like(n) if g is None else g._a for g, n in zip(gs, numeric)]
    for g, n, a in zip(got, numeric, [a for a in arrays if a.dtype.kind == "f"]):
        assert g.shape == a.shape, f"gradient of shape {g.shape} for an input of {a.shape}"
        np.testing.assert_allclose(g, n, rtol=1e-5 * tol, atol=2e-6 * tol)
    if not second:
        return
    rng = np.random.default_rng(5)
    directions = [rng.uniform(0.5, 1.5, g.shape) for g in got]

    def slope(*a: np.ndarray, create: bool = False) -> Any:
        wants, gs, _ = gradients(fn, list(a), weights, create=True)
        total = None
        for g, d in zip(gs, directions):
            if g is not None and (g._rg or not create):
                part = (g * tensor(d)).sum()
                total = part if total is None else total + part
        return wants, total

    from flambeau.autograd.engine import grad

    wants, total = slope(*arrays, create=True)
    numeric = differences(lambda *a: slope(*a)[1]._a, arrays)
    if total is None or not total._rg:
        seconds = [np.zeros_like(n) for n in numeric]
    else:
        gs = grad([total], wants, allow_unused=True)
        seconds = [np.zeros_like(n) if g is None else g._a for g, n in zip(gs, numeric)]
    for g, n in zip(seconds, numeric):
        np.testing.assert_allclose(g, n, rtol=1e-4 * tol, atol=1e-5 * tol)


def differences(f: Callable[..., Any], arrays: list[np.ndarray], step: float = 1e-6) -> list[np.ndarray]:
    """Central differences of a number by every element of every floating array."""
    results = []
    for i, a in enumerate(arrays):
        if a.dtype.kind != "f":
            continue
        g = np.zeros(a.shape)
        for index in np.ndindex(a.shape):
            values = []
            for sign in (1, -1):
                moved = a.copy()
                moved[index] += sign * step
                values.append(float(f(*arrays[:i], moved, *arrays[i + 1 :])))
            g[index] = (values[0] - values[1]) / (2 * step)
        results.append(g)
    return results


def cotangent(shape: tuple[int, ...], is_complex: bool) -> np.ndarray:
    """The gradient of an output, some numbers."""
    a = np.cos(np.arange(int(np.prod(shape))) * 1.3 + 0.2).reshape(shape)
    return np.asarray(a * (1 + 0.5j) if is_complex else a)


def flambeau_gradients(case: Case, arrays: list[np.ndarray]) -> Any:
    from flambeau.autograd.engine import grad

    ts = [tensor(a, a.dtype.kind in "fcV") for a in arrays]
    outs = differentiable(case.fn(F, *ts))
    gs = [tensor(cotangent(o._a.shape, o._a.dtype.kind == "c").astype(o._a.dtype)) for o in outs]
    wanted = [t for t in ts if t._rg]
    return [tensor(np.zeros_like(t._a)) if g is None else g for t, g in zip(wanted, grad(outs, wanted, gs, allow_unused=True))]


def torch_gradients(torch: Any, case: Case, arrays: list[np.ndarray]) -> Any:
    ts = [torch_tensor(torch, a) for a in arrays]
    wanted = [t.requires_grad_() for t in ts if t.is_floating_point() or t.is_complex()]
    outs = [o for o in flat(case.fn(torch, *ts)) if isinstance(o, torch.Tensor) and o.requires_grad]
    if not outs:
        return None
    gs = [torch.from_numpy(cotangent(tuple(o.shape), o.is_complex())).to(o.dtype) for o in outs]
    got = torch.autograd.grad(outs, wanted, gs, allow_unused=True)
    return [torch.zeros_like(t) if g is None else g + 0 for t, g in zip(wanted, got)]


class OperatorTests:
    """Subclass with ``cases``."""

    cases: list[Case] = []

    def pytest_generate_tests(self, metafunc: Any) -> None:
        name = metafunc.function.__name__
        if "case" not in metafunc.fixturenames:
            return
        keep = {
            "test_reference": lambda c: c.ref is not None,
            "test_gradient": lambda c: c.grad,
            "test_gradient_dtypes": lambda c: c.grad,
            "test_against_torch": lambda c: c.torch,
            "test_layouts": lambda c: c.layouts,
            "test_forward_mode": lambda c: c.grad,
            "test_batched_gradient": lambda c: c.grad,
        }.get(name, lambda c: True)
        cases = [c for c in self.cases if keep(c)]
        metafunc.parametrize("case", cases, ids=[c.name for c in cases])

    def test_reference(self, case: Case) -> None:
        for dtype in case.dtypes:
            if dtype == "bfloat16":
                continue
            arrays = case.arrays(dtype)
            got = case.fn(F, *map(tensor, arrays))
            with np.errstate(all="ignore"):
                wide = [a.astype(np.float64) if a.dtype.kind == "f" else a for a in arrays]
                if dtype == "bool" and any(t.dtype.category > 1 for t in flat(got)):
                    wide = [a.astype(np.float64) for a in arrays]  # NumPy would answer in float16
                want = case.ref(*wide)  # type: ignore[misc]
            close(numpy(got), want, case.tol * TOLERANCE.get(dtype, 1e-9 if dtype == "float64" else 1e-6))

    @pytest.mark.torch
    def test_against_torch(self, case: Case) -> None:
        torch = pytest.importorskip("torch")
        for dtype in case.dtypes:
            arrays = case.arrays(dtype)
            want = case.fn(torch, *[torch_tensor(torch, a) for a in arrays])
            got = case.fn(F, *map(tensor, arrays))
            for g, w in zip(flat(got), flat(want), strict=True):
                if hasattr(w, "dtype"):
                    assert str(g.dtype) == str(w.dtype), f"{dtype}: {g.dtype}, torch gives {w.dtype}"
                    assert tuple(g.shape) == tuple(w.shape)
            close(numpy(got), numpy(want), case.tol * TOLERANCE.get(dtype, 1e-7))
        if case.grad and case.node:
            arrays = case.arrays("float64")
            ts = [tensor(a, a.dtype.kind == "f") for a in arrays]
            us = [torch_tensor(torch, a).requires_grad_(a.dtype.kind == "f") for a in arrays]
            names = [o._grad_fn.name() if o._grad_fn else None for o in flat(case.fn(F, *ts)) if hasattr(o, "_a")]
            wants = [o.grad_fn.name() if o.grad_fn else None for o in flat(case.fn(torch, *us)) if hasattr(o, "grad_fn")]
            assert names == wants

    def test_gradient(self, case: Case) -> None:
        check_gradient(lambda *ts: case.fn(F, *ts), case.arrays("float64"), case.second, case.tol)

    def test_forward_mode(self, case: Case) -> None:
        """Forward mode, reverse over forward, forward over reverse, each against reverse mode; complex too."""
        fn = lambda *ts: case.fn(F, *ts)  # noqa: E731
        arrays = case.arrays("float64")
        if drawn(fn, arrays):
            pytest.skip("its results are random")
        check_forward(fn, arrays, case.second, case.tol)
        if "complex128" in case.dtypes:
            check_forward(fn, case.arrays("complex128"), False, case.tol)

    def test_batched(self, case: Case) -> None:
        """vmap gives what a loop gives, without looping."""
        fn = lambda *ts: case.fn(F, *ts)  # noqa: E731
        arrays = case.arrays("float64" if "float64" in case.dtypes else case.dtypes[0])
        if not arrays or drawn(fn, arrays):
            pytest.skip("no inputs, or results are random")
        reason = without_rule(self, case, "values")
        if reason:
            pytest.skip(reason)
        said = check_batched(fn, arrays, case.tol, gradient=False)
        assert not said or loops(self, case), said

    def test_batched_gradient(self, case: Case) -> None:
        """vmap of the gradient."""
        fn = lambda *ts: case.fn(F, *ts)  # noqa: E731
        arrays = case.arrays("float64")
        if not moving(arrays) or drawn(fn, arrays):
            pytest.skip("no inputs, or results are random")
        reason = without_rule(self, case, "gradient")
        if reason:
            pytest.skip(reason)
        said = check_batched(fn, arrays, case.tol, gradient=True)
        assert not said or loops(self, case), said

    def test_layouts(self, case: Case) -> None:
        """The same values however the inputs lie in memory; empty inputs give what they can without a crash."""
        dtype = "float64" if "float64" in case.dtypes else case.dtypes[0]
        arrays = case.arrays(dtype)
        want = numpy(case.fn(F, *map(tensor, arrays)))
        for relaid in (strided, transposed):
            ts = [wrapped(relaid(a)) for a in arrays]
            close(numpy(case.fn(F, *ts)), want, (1e-12 if dtype == "float64" else TOLERANCE.get(dtype, 0)) * case.tol)

    @pytest.mark.parametrize("family", FAMILIES)
    def test_variants(self, case: Case, family: str) -> None:
        """Every dtype; empty, zero-dimensional and expanded inputs: torch's answer, or torch's kind of refusal."""
        if TORCH is None:
            return self.as_recorded(case, family)
        wrong = []
        for name, arrays in variants(case, family, type(self).__module__.rpartition("test_")[2]):
            want = outcome(lambda: case.fn(TORCH, *[torch_tensor(TORCH, a, family == "expanded") for a in arrays]))
            got = outcome(lambda: case.fn(F, *[wrapped(a) if family == "expanded" else tensor(a) for a in arrays]))
            if text := difference(got, want, case.tol):
                wrong.append(f"{name}: {text}")
        assert not wrong, "\n" + "\n".join(wrong)

    @pytest.mark.torch
    def test_gradient_dtypes(self, case: Case) -> None:
        """Gradients of complex numbers and in half precision are torch's."""
        torch = pytest.importorskip("torch")
        wrong = []
        for name, arrays in variants(case, "gradients", type(self).__module__.rpartition("test_")[2]):
            want = outcome(lambda: torch_gradients(torch, case, arrays))
            if want is None or isinstance(want, Exception):
                continue
            got = outcome(lambda: flambeau_gradients(case, arrays))
            if text := difference(got, want, 6 * case.tol):
                wrong.append(f"{name}: {text}")
        assert not wrong, "\n" + "\n".join(wrong)

    def as_recorded(self, case: Case, family: str) -> None:
        """The same, from what torch gave once: shapes and dtypes, classes of exceptions."""
        file = type(self).__module__.rpartition("test_")[2]
        wrong = []
        for name, arrays in variants(case, family, file):
            got = outcome(lambda: case.fn(F, *[wrapped(a) if family == "expanded" else tensor(a) for a in arrays]))
            want = recorded(file, case, name)
            if want is not None and not agrees(got, want, name):
                wrong.append(f"{name}: {described(got)}, torch gave {want}")
        assert not wrong, "\n" + "\n".join(wrong)


def wrapped(a: np.ndarray) -> Any:
    from flambeau.core.tensor import wrap

    return wrap(a)


def strided(a: np.ndarray) -> np.ndarray:
    """The same values, every other element of a larger array, backwards in memory along the last axis."""
    if not a.ndim:
        return a
    big = np.zeros((*a.shape[:-1], 2 * a.shape[-1]), a.dtype)
    big[..., ::2] = a
    return big[..., ::2]


def transposed(a: np.ndarray) -> np.ndarray:
    return np.array(a.T, order="C").T
