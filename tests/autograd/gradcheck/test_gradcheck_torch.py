"""gradcheck's verdicts against PyTorch's: the same functions, inputs and options, the same answer or the same error."""

from __future__ import annotations

import re
import warnings
from types import SimpleNamespace

import pytest

import flambeau

pytestmark = pytest.mark.torch


def kit(lib):
    """What a case is written in, on one of the libraries."""

    def function(forward, backward):
        def run(ctx, *tensors):
            ctx.save_for_backward(*tensors)
            return forward(*tensors)

        methods = {"forward": run, "backward": lambda ctx, *g: backward(*g, *ctx.saved_tensors)}
        return type("Custom", (lib.autograd.Function,), {name: staticmethod(f) for name, f in methods.items()}).apply

    def leaf(*values, dtype=lib.double, shape=(-1,)):
        return lib.tensor(values, dtype=dtype).reshape(shape).requires_grad_()

    return SimpleNamespace(
        lib=lib, function=function, leaf=leaf, x=leaf(0.5, -1.2, 2.0), y=leaf(1.5, 0.3, -0.7), m=leaf(0.1, 0.2, 0.3, 0.5, 0.7, 0.9, shape=(2, 3)),
        z=leaf(1 + 2j, 0.5 - 1j, dtype=lib.cdouble), check=lib.autograd.gradcheck, second=lib.autograd.gradgradcheck,
    )  # fmt: skip


SQUARE = lambda x: x * x
FORWARD = {"check_forward_ad": True}
CASES = {
    "passes": lambda k: k.check(k.lib.sin, k.x),
    "passes, broadcast": lambda k: k.check(k.lib.mul, (k.m, k.x)),
    "factor": lambda k: k.check(k.function(SQUARE, lambda g, x: g * x), k.x),
    "factor, second input": lambda k: k.check(k.function(lambda x, y: x * y, lambda g, x, y: (g * y, g * x * 2)), (k.x, k.y)),
    "factor, second output": lambda k: k.check(lambda x: (x.sin(), k.function(SQUARE, lambda g, x: g * x)(x)), k.x),
    "None": lambda k: k.check(k.function(SQUARE, lambda g, x: None), k.x),
    "complex": lambda k: k.check(lambda z: z * z.conj() + z.exp(), k.z),
    "complex to real": lambda k: k.check(lambda z: z.abs(), k.z),
    "real to complex": lambda k: k.check(lambda x: x * (1 + 2j), k.x),
    "conj missing": lambda k: k.check(k.function(SQUARE, lambda g, z: 2 * z * g), k.z),
    "conj missing, to real": lambda k: k.check(k.function(lambda z: z.abs() ** 2, lambda g, z: 2 * z.conj() * g), k.z),
    "conj missing, from real": lambda k: k.check(k.function(lambda x: x * (1 + 2j), lambda g, x: (g * (1 + 2j)).real), k.x),
    "nan": lambda k: k.check(lambda x: x * float("nan"), k.x),
    "detached": lambda k: k.check(lambda x: x.detach() * 2, k.x),
    "detached zero": lambda k: k.check(lambda x: x.detach() * 0, k.x),
    "one output detached": lambda k: k.check(lambda x: (x.sin(), x.detach() * 0), k.x),
    "output without input": lambda k: k.check(lambda x: (x.sin(), k.lib.ones(2)), k.x),
    "integers": lambda k: k.check(lambda x: (x.sin(), x.argmax()), k.x),
    "integers alone": lambda k: k.check(lambda x: x.argmax(), k.x),
    "identity": lambda k: k.check(lambda x: x, k.x),
    "view": lambda k: k.check(lambda x: x.t(), k.m),
    "int output": lambda k: k.check(lambda x: 3, k.x),
    "None output": lambda k: k.check(lambda x: None, k.x),
    "dict output": lambda k: k.check(lambda x: {"a": x}, k.x),
    "mixed outputs": lambda k: k.check(lambda x: (x, 3), k.x),
    "empty": lambda k: k.check(k.lib.sin, k.leaf()),
    "nothing requires grad": lambda k: k.check(k.lib.sin, (k.x.detach(), 3)),
    "stride 0": lambda k: k.check(k.lib.sin, k.x.detach()[:, None].expand(3, 2).requires_grad_()),
    "single precision": lambda k: k.check(lambda x: x * 2, k.x.detach().float().requires_grad_()),
    "single precision, tolerant": lambda k: k.check(lambda x: x * 2, k.x.detach().float().requires_grad_(), eps=1e-2, atol=1e-2),
    "no mode": lambda k: k.check(k.lib.sin, k.x, check_backward_ad=False),
    "batched without backward": lambda k: k.check(k.lib.sin, k.x, check_backward_ad=False, check_forward_ad=True, check_batched_grad=True),
    "batched forward without forward": lambda k: k.check(k.lib.sin, k.x, check_batched_forward_grad=True),
    "not times grad_output": lambda k: k.check(k.function(SQUARE, lambda g, x: 2 * x), k.leaf(2.0, shape=())),
    "not raising": lambda k: k.check(k.function(SQUARE, lambda g, x: g), k.x, raise_exception=False),
    "not raising passes errors on": lambda k: k.check(lambda x: x.nothing, k.x, raise_exception=False),
    "shape changes": lambda k: k.check(lambda x: x[x > 0.4999995], k.x),
    "kink": lambda k: k.check(k.lib.relu, k.leaf(0.0, 1.0)),
    "a large step": lambda k: k.check(lambda x: x**3, k.x, eps=0.1),
    "rtol": lambda k: k.check(k.function(SQUARE, lambda g, x: 2.01 * g * x), k.x, rtol=0.01),
    "atol": lambda k: k.check(k.function(SQUARE, lambda g, x: 2.01 * g * x), k.x, atol=0.03, rtol=0.0),
    "atol exceeded": lambda k: k.check(k.function(SQUARE, lambda g, x: 2.01 * g * x), k.x, atol=0.01, rtol=0.0),
    "undefined": lambda k: k.check(k.function(lambda x, y: (x * 1, y * 1), lambda g, h, x, y: (g, h)), (k.x, k.y)),
    "one tensor twice": lambda k: k.check(k.lib.mul, (k.x, k.x)),
    "forward": lambda k: k.check(k.lib.mul, (k.m, k.x), **FORWARD),
    "forward, complex": lambda k: k.check(lambda z: z.exp() * z.conj(), k.z, **FORWARD),
    "forward alone": lambda k: k.check(k.lib.sin, k.x, check_backward_ad=False, **FORWARD),
    "forward batched": lambda k: k.check(k.lib.sin, k.x, check_batched_forward_grad=True, **FORWARD),
    "batched": lambda k: k.check(k.lib.mul, (k.m, k.x), check_batched_grad=True),
    "second": lambda k: k.second(k.lib.sin, k.x),
    "second, complex": lambda k: k.second(k.lib.exp, k.z),
    "second, linear": lambda k: k.second(lambda x: 2 * x, k.x),
    "second, wrong": lambda k: k.second(k.function(SQUARE, lambda g, x: 2 * g * x.detach()), k.x),
    "second, wrong for grad_output": lambda k: k.second(k.function(SQUARE, lambda g, x: 2 * g.detach() * x), k.x),
    "second, given": lambda k: k.second(k.lib.mul, (k.m, k.x), (k.m.detach().clone(),)),
    "second, not contiguous": lambda k: k.second(k.lib.mul, (k.m, k.x), gen_non_contig_grad_outputs=True),
    "second, forward over reverse": lambda k: k.second(k.lib.mul, (k.m, k.x), check_fwd_over_rev=True),
    "second, no mode": lambda k: k.second(k.lib.sin, k.x, check_rev_over_rev=False),
    "second, undefined without reverse": lambda k: k.second(k.lib.sin, k.x, check_rev_over_rev=False, check_fwd_over_rev=True),
    "second, batched": lambda k: k.second(k.lib.mul, (k.m, k.x), check_batched_grad=True),
}  # fmt: skip


def verdict(lib, case, fast):
    """True, False, or the class of the error with its first line, and the warnings of gradcheck's own."""
    tools = kit(lib)
    if fast:
        check, second = tools.check, tools.second
        tools.check = lambda *a, **k: check(*a, fast_mode=True, **k)
        tools.second = lambda *a, **k: second(*a, fast_mode=True, **k)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            found = case(tools)
        except Exception as e:
            found = type(e).__name__, str(e).split("\n")[0]
    return found, [re.sub(r"\s+", " ", str(w.message)) for w in caught if "requires gradient" in str(w.message)]


@pytest.mark.parametrize("fast_mode", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_same_verdict(name, fast_mode):
    torch = pytest.importorskip("torch")
    ours, theirs = (verdict(lib, CASES[name], fast_mode) for lib in (flambeau, torch))
    assert ours == theirs


@pytest.mark.parametrize("name", ["factor", "None", "conj missing", "conj missing, from real", "second, wrong"])
def test_same_products_in_fast_mode(name):
    """The random vectors are PyTorch's, so the products in its messages are too."""
    torch = pytest.importorskip("torch")
    lines = []
    for lib in (flambeau, torch):
        tools = kit(lib)
        check = tools.check if "second" not in name else tools.second
        tools.check = tools.second = lambda *a, **k: check(*a, fast_mode=True, **({"grad_outputs": tools.y} if "second" in name else {}))
        with pytest.raises(lib.autograd.gradcheck.__globals__["GradcheckError"]) as e:
            CASES[name](tools)
        lines.append([complex(line.split(":")[1].replace("i", "j")) for line in str(e.value).split("\n")[1:3]])
    assert lines[0] == pytest.approx(lines[1], rel=1e-6)


def test_same_random_vectors():
    torch = pytest.importorskip("torch")
    from flambeau.autograd.gradcheck import vectors

    draw, generator = vectors.Uniform(), torch.Generator()
    for n in (3, 20, 0, 1000, vectors.KEPT):  # the last ones are beyond what is kept
        assert draw(n).tolist() == torch.rand(n, generator=generator).double().tolist()


@pytest.mark.parametrize("complex_", [False, True])
def test_same_jacobians(complex_):
    torch = pytest.importorskip("torch")
    found = []
    for lib in (flambeau, torch):
        import importlib

        module = importlib.import_module(lib.autograd.gradcheck.__module__)
        k = kit(lib)
        x = k.z if complex_ else k.m
        f = (lambda z: (z * z).real) if complex_ else (lambda m: m.sin())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            numerical = module.get_numerical_jacobian(lambda xs: f(*xs), (x,))
            analytical = module.get_analytical_jacobian((x,), f(x))
        single = module.get_numerical_jacobian_wrt_specific_input(f, 0, (x,), (f(x),), 1e-3)
        found.append((numerical[0].tolist(), analytical[0][0].tolist(), analytical[1:], single[0].tolist()))
    for ours, theirs in zip(*found):
        assert ours == theirs or [pytest.approx(row, abs=1e-9) for row in theirs] == ours
