"""Every operator under every transformation: what tests of operators inherit.

Reverse mode is checked against central differences (harness.py). The others are checked against it, exactly: for random
t and u, forward mode satisfies <u, J t> = <Jᵀ u, t>; the derivative of that number by the inputs, through the tangent
and through the gradient, is the same (reverse over forward, reverse over reverse), and so is the tangent of the gradient
(forward over reverse). vmap is checked against a loop.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

BATCH = 3


def flat(r: Any) -> list[Any]:
    return [x for y in r for x in flat(y)] if isinstance(r, (tuple, list)) else [r]


def direction(shape: tuple[int, ...], seed: int, is_complex: bool) -> np.ndarray:
    rng = np.random.default_rng(seed)
    a = rng.uniform(0.5, 1.5, shape)
    return a + 1j * rng.uniform(0.5, 1.5, shape) if is_complex else a


def make(a: np.ndarray) -> Any:
    from flambeau.core.tensor import wrap

    return wrap(np.array(a, order="K"))


def leaf(a: np.ndarray) -> Any:
    t = make(a)
    t._rg = a.dtype.kind in "fc"
    return t


def inner(a: Any, b: Any) -> Any:
    """Re<a, b>, in public operators."""
    p = (a.conj() * b if a._a.dtype.kind == "c" else a * b).sum()
    return p.real if p._a.dtype.kind == "c" else p


def total(parts: list[Any]) -> Any:
    out = None
    for p in parts:
        out = p if out is None else out + p
    return out


def drawn(fn: Any, arrays: list[np.ndarray]) -> bool:
    """Whether the results are random."""
    once, again = [flat(fn(*map(make, arrays))) for _ in range(2)]
    return any(hasattr(a, "_a") and not np.array_equal(a._a, b._a, equal_nan=a._a.dtype.kind in "fc") for a, b in zip(once, again))


def moving(arrays: list[np.ndarray]) -> list[int]:
    return [i for i, a in enumerate(arrays) if a.dtype.kind in "fc"]


def check_forward(fn: Any, arrays: list[np.ndarray], second: bool, tol: float) -> None:
    from flambeau.autograd import forward_ad as fw
    from flambeau.autograd.engine import grad

    which = moving(arrays)
    ts = [make(direction(a.shape, 7 + i, a.dtype.kind == "c").astype(a.dtype)) for i, a in enumerate(arrays)]

    def pushed(xs: list[Any]) -> tuple[list[Any], list[Any]]:
        outs = [o for o in flat(fn(*[fw.make_dual(x, ts[i]) if i in which else x for i, x in enumerate(xs)])) if hasattr(o, "_a")]
        return outs, [fw.unpack_dual(o).tangent if o._a.dtype.kind in "fcV" else None for o in outs]

    xs = list(map(leaf, arrays))
    plain = [o for o in flat(fn(*xs)) if hasattr(o, "_a") and o._rg]
    us = [make(direction(o._a.shape, 77 + i, o._a.dtype.kind == "c").astype(o._a.dtype)) for i, o in enumerate(plain)]
    if not plain:
        return
    wants = [xs[i] for i in which]
    gs = grad(plain, wants, us, create_graph=second, allow_unused=True)
    reverse = total([inner(g, ts[i]) for g, i in zip(gs, which) if g is not None])
    with fw.dual_level():
        zs = list(map(leaf, arrays))
        outs, tangents = pushed(zs)
        for o, t in zip(outs, tangents):
            assert t is None or (t._a.shape == o._a.shape and t._a.dtype == o._a.dtype), f"tangent {t._a.shape} {t.dtype} of {o._a.shape} {o.dtype}"
        moved = [t for o, t in zip(outs, tangents) if o._rg]
        forward = total([inner(u, t) for u, t in zip(us, moved) if t is not None])
        near(forward, reverse, 1e-9 * tol, "forward against reverse mode")
        if not second or reverse is None:
            return
        over = grad([reverse], wants, retain_graph=True, allow_unused=True) if reverse._rg else [None] * len(wants)
        if forward is not None:
            mixed = grad([forward], [zs[i] for i in which], allow_unused=True) if forward._rg else [None] * len(which)
            for a, b in zip(mixed, over):
                near(a, b, 1e-7 * tol, "reverse over forward")
        zs = list(map(leaf, arrays))
        outs, _ = pushed(zs)
        found = grad([o for o in outs if o._rg], [zs[i] for i in which], us, allow_unused=True)
        for g, b in zip(found, over):
            near(None if g is None else fw.unpack_dual(g).tangent, b, 1e-7 * tol, "forward over reverse")


def near(a: Any, b: Any, tol: float, what: str) -> None:
    """Equal; None is zero."""
    a, b = [0.0 if t is None else t._a for t in (a, b)]
    np.testing.assert_allclose(a, b, rtol=tol, atol=10 * tol, err_msg=what)


def examples(arrays: list[np.ndarray], which: list[bool]) -> list[np.ndarray]:
    """Arrays with a batch before them, its examples different."""
    stacked = []
    for a, batched in zip(arrays, which):
        if not batched:
            stacked.append(a)
        elif a.dtype.kind in "fc":
            stacked.append(np.stack([a, a * 0.9, a * 1.01]))
        else:
            stacked.append(np.stack([a] * BATCH))
    return stacked


def check_batched(fn: Any, arrays: list[np.ndarray], tol: float, gradient: bool) -> list[str]:
    """vmap against a loop, with all inputs batched, and with each but the last; returns the warnings of loops."""
    from flambeau.autograd.transforms import batching
    from flambeau.autograd.transforms.vmap import vmap

    batching._warned.clear()

    n = len(arrays)
    choices = [[True] * n]
    if n > 1:
        choices += [[i != k for i in range(n)] for k in (0, n - 1)]
    said: list[str] = []
    for which in choices:
        inputs = examples(arrays, which)
        one = vjp_of(fn, inputs, which) if gradient else fn
        in_dims = tuple(0 if b else None for b in which)
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                got = vmap(lambda *xs: tuple(tensors(one(*xs))), in_dims)(*map(make, inputs))  # noqa: B023
        except RuntimeError as e:
            if "vmap: inplace arithmetic" in str(e) and not all(which):
                continue  # a tensor without a batch cannot take one in
            raise
        said += [str(w.message) for w in caught if "performance drop" in str(w.message)]
        runs = [tensors(one(*[make(a[k] if b else a) for a, b in zip(inputs, which)])) for k in range(BATCH)]
        for i, g in enumerate(got):
            want = np.stack([r[i]._a for r in runs])
            assert g._a.shape == want.shape, f"shape {g._a.shape}, a loop gives {want.shape}"
            assert g._a.dtype == want.dtype, f"dtype {g._a.dtype}, a loop gives {want.dtype}"
            if want.dtype.kind in "fcV":
                eps = tol * {2: 3e-2, 4: 2e-5}.get(want.dtype.itemsize, 1e-9)
                np.testing.assert_allclose(g._a, want, rtol=eps, atol=eps, err_msg=f"batched: {which}")
            else:
                np.testing.assert_array_equal(g._a, want, err_msg=f"batched: {which}")
    return said


def tensors(r: Any) -> list[Any]:
    return [t for t in flat(r) if hasattr(t, "_a")]


def vjp_of(fn: Any, inputs: list[np.ndarray], which: list[bool]) -> Any:
    """The gradients of one example, inside vmap or not."""
    from flambeau.func import vjp

    movable = moving(inputs)

    def gradients(*xs: Any) -> Any:
        def f(*ms: Any) -> Any:
            full = list(xs)
            for i, m in zip(movable, ms):
                full[i] = m
            return tuple([o for o in tensors(fn(*full)) if o._a.dtype.kind in "fc"])

        outs, back = vjp(f, *[xs[i] for i in movable])
        return back(tuple([make(direction(o._a.shape, 77, o._a.dtype.kind == "c").astype(o._a.dtype)) for o in outs]))

    return gradients
