"""Random functions under random nests of transformations.

A function is a walk: operators are drawn for a pool of tensors, by a generator that starts from the same seed at every
call, so that it is the same function for every library and under every transformation. A nest of transformations is a
chain of maps from functions of (x, y) to such functions. What comes out is compared with PyTorch's result, and with
other ways to compute the same.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import flambeau

Fn = Callable[[Any, Any], Any]
Rng = random.Random


# ---- operators: (library, generator, pool, tensor) -> tensor -----------------------------------------------------
def dim(r: Rng, t: Any) -> int:
    return r.randrange(-t.ndim, t.ndim)


def like(T: Any, r: Rng, p: list[Any], t: Any) -> Any:
    """A tensor that broadcasts with ``t``: another of the pool, or a number."""
    same = [o for o in p if tuple(o.shape) == tuple(t.shape) or not o.ndim or not t.ndim or o.shape[-1] == t.shape[-1] and o.ndim == 1]
    return r.choice([*same, round(r.uniform(0.3, 1.5), 2), 2])


def unary(names: str) -> dict[str, Any]:
    return {n: lambda T, r, p, t, n=n: getattr(t, n)() for n in names.split()}


def binary(names: str) -> dict[str, Any]:
    return {n: lambda T, r, p, t, n=n: getattr(t, n)(like(T, r, p, t)) for n in names.split()}


def tensor_like(T: Any, r: Rng, p: list[Any], t: Any) -> Any:
    o = like(T, r, p, t)
    return o if hasattr(o, "shape") else T.full((), float(o), dtype=t.dtype)


def index(T: Any, r: Rng, n: int, count: int) -> Any:
    return T.tensor([r.randrange(n) for _ in range(count)])


def mask(T: Any, r: Rng, t: Any) -> Any:
    return T.tensor([r.random() < 0.5 for _ in range(t.shape[-1])]) if t.ndim else T.tensor(r.random() < 0.5)


def set_slice(T: Any, r: Rng, p: list[Any], t: Any) -> Any:
    u = t * 1
    u[..., r.randrange(u.shape[-1])] = r.choice([0.5, t.sum(-1) * 0.2, (u.sin().mean(-1))])
    return u


def change_view(T: Any, r: Rng, p: list[Any], t: Any) -> Any:
    u = t.clone() if r.random() < 0.5 else t * 1.5
    v = r.choice([lambda: u.narrow(-1, 0, 1), lambda: u.select(dim(r, u), 0), lambda: u.transpose(0, -1), lambda: u.view(-1), lambda: u[..., 1:]])()
    r.choice([
        lambda: v.mul_(2), lambda: v.add_(u.detach().sum() * 0.1), lambda: v.sin_(), lambda: v.copy_(t.sum() * 0.3), lambda: v.zero_(),
        lambda: v.fill_(0.5), lambda: v.mul_(t.mean()), lambda: v.add_(v), lambda: v.div_(u.exp().sum()), lambda: v.addcmul_(t.mean().cos(), t.sum().exp()),
    ])()  # fmt: skip
    return r.choice([u, v, u * 1])


def change(T: Any, r: Rng, p: list[Any], t: Any) -> Any:
    u = t * 1
    w = u.view_as(u)
    r.choice([
        lambda: u.add_(like(T, r, [q for q in p if tuple(q.shape) == tuple(t.shape)], t)), lambda: u.tanh_(), lambda: u.mul_(t.cos()), lambda: u.copy_(t.cos()),
        lambda: u.masked_fill_(mask(T, r, u), 0.3), lambda: u.clamp_(-0.5, 0.7), lambda: u.exp_(), lambda: u.sub_(t),
    ])()  # fmt: skip
    return r.choice([u, w, u + w])


OF_ANY = {
    **unary("sin cos tanh sigmoid exp abs neg square relu atan erf log1p_ softplus_ detach clone"),
    **binary("add sub mul maximum_ atan2_ __rsub__ __radd__ __rmul__"),
    "softplus_": lambda T, r, p, t: T.nn.functional.softplus(t),
    "log1p_": lambda T, r, p, t: T.log1p(t * t),
    "maximum_": lambda T, r, p, t: T.maximum(t, tensor_like(T, r, p, t)),
    "atan2_": lambda T, r, p, t: T.atan2(t, tensor_like(T, r, p, t) + 3),
    "div": lambda T, r, p, t: t / (tensor_like(T, r, p, t) ** 2 + 1),
    "pow": lambda T, r, p, t: t ** r.choice([2, 3, 1.0]),
    "rpow": lambda T, r, p, t: 1.5**t,
    "sqrt": lambda T, r, p, t: (t * t + 1).sqrt(),
    "sum": lambda T, r, p, t: t.sum(),
    "where": lambda T, r, p, t: T.where(r.choice([t > 0, mask(T, r, t)]), t.sin(), like(T, r, p, t)),
    "masked_fill": lambda T, r, p, t: t.masked_fill(r.choice([t > 0.2, mask(T, r, t)]), 0.25),
    "clamp": lambda T, r, p, t: t.clamp(-0.6, 0.9),
    "lerp": lambda T, r, p, t: T.lerp(t, tensor_like(T, r, [q for q in p if q.shape == t.shape], t), 0.3) if t.ndim else t * 1,
    "unsqueeze": lambda T, r, p, t: t.unsqueeze(r.randrange(t.ndim + 1)),
    "stack": lambda T, r, p, t: T.stack([t, t.cos()], r.randrange(-1, t.ndim + 1)),
    "no_grad": lambda T, r, p, t: t * quiet(T, lambda: t.sin() + 1),
    "full_like": lambda T, r, p, t: t + T.full_like(t, 0.5) * T.ones_like(t),
    "new_zeros": lambda T, r, p, t: t + t.new_zeros(t.shape),
    "compare": lambda T, r, p, t: (t > 0.1) * t,
}
# (No layer_norm: PyTorch's reverse over forward mode takes its mean and deviation for constants.)
OF_DIMS = {
    "sum_": lambda T, r, p, t: t.sum(dim(r, t), keepdim=r.random() < 0.5),
    "mean": lambda T, r, p, t: t.mean(dim(r, t), keepdim=r.random() < 0.5),
    "prod": lambda T, r, p, t: t.prod(dim(r, t)),
    "var": lambda T, r, p, t: t.var(dim(r, t), correction=0),
    "max": lambda T, r, p, t: t.max(dim(r, t)).values,
    "amin": lambda T, r, p, t: t.amin(dim(r, t), keepdim=True),
    "logsumexp": lambda T, r, p, t: t.logsumexp(dim(r, t)),
    "softmax": lambda T, r, p, t: t.softmax(dim(r, t)),
    "log_softmax": lambda T, r, p, t: t.log_softmax(dim(r, t)),
    "cumsum": lambda T, r, p, t: t.cumsum(dim(r, t)),
    "cumprod": lambda T, r, p, t: (t + 2).cumprod(dim(r, t)),  # PyTorch's tangent of it is nan at 0
    "norm": lambda T, r, p, t: (t + 2).norm(dim=dim(r, t)),
    "sort": lambda T, r, p, t: t.sort(dim(r, t), descending=r.random() < 0.5).values,
    "flip": lambda T, r, p, t: t.flip(dim(r, t)),
    "roll": lambda T, r, p, t: t.roll(1, dim(r, t)),
    "transpose": lambda T, r, p, t: t.transpose(dim(r, t), dim(r, t)),
    "flatten": lambda T, r, p, t: t.flatten(),
    "reshape": lambda T, r, p, t: t.reshape(-1, t.shape[0]),
    "select": lambda T, r, p, t: t.select(dim(r, t), -1),
    "slice": lambda T, r, p, t: t[1:] if t.shape[0] > 2 else t[..., :-1] if t.shape[-1] > 1 else t[:1],
    "none": lambda T, r, p, t: t[None, ..., 0],
    "expand": lambda T, r, p, t: t.expand(2, *t.shape) * 1.1,
    "unbind": lambda T, r, p, t: r.choice(t.unbind(dim(r, t))),
    "split": lambda T, r, p, t: sum_of(t.split(1, dim(r, t))),
    "cat": lambda T, r, p, t: T.cat([t, t.sin()], dim(r, t)),
    "gather": lambda T, r, p, t: t.gather(-1, index(T, r, t.shape[-1], 2).expand(*t.shape[:-1], 2)),
    "index": lambda T, r, p, t: t[..., index(T, r, t.shape[-1], 3)],
    "index_0": lambda T, r, p, t: t[index(T, r, t.shape[0], 2)],
    "index_select": lambda T, r, p, t: t.index_select(dim(r, t) * 0, index(T, r, t.shape[0], 2)),
    "scatter_add": lambda T, r, p, t: T.zeros_like(t).scatter_add(-1, index(T, r, t.shape[-1], t.shape[-1]).expand(t.shape), t),
    "pad": lambda T, r, p, t: T.nn.functional.pad(t, (1, 0)),
    "outer": lambda T, r, p, t: T.outer(t.flatten(), t.flatten()[:2]),
    "mv": lambda T, r, p, t: t.reshape(t.shape[0], -1).mT @ t.reshape(t.shape[0], -1).select(1, 0),
    "matmul": lambda T, r, p, t: t.reshape(t.shape[0], -1).mT @ t.reshape(t.shape[0], -1).tanh(),
    "linear": lambda T, r, p, t: T.nn.functional.linear(t, T.ones(2, t.shape[-1], dtype=t.dtype) * 0.3),
    "bmm": lambda T, r, p, t: T.einsum("i,j->ij", t.flatten()[:3], t.flatten()[-2:]),
    "dot": lambda T, r, p, t: t.flatten().dot(t.flatten().sin()),
    "einsum": lambda T, r, p, t: T.einsum("...i,...i->...", t, t.cos()),
    "diag": lambda T, r, p, t: T.diag_embed(t).diagonal(0, -2, -1) + 1,
    "set_slice": set_slice,
    "change_view": change_view,
    "change": change,
    "tril": lambda T, r, p, t: (t.unsqueeze(-1) * t.unsqueeze(-2)).tril(),
    "movedim": lambda T, r, p, t: t.unsqueeze(0).movedim(0, -1),
    "repeat": lambda T, r, p, t: t.repeat(2, *(1,) * (t.ndim - 1)),
    "topk": lambda T, r, p, t: t.topk(1, -1).values,
    "mse": lambda T, r, p, t: T.nn.functional.mse_loss(t, T.zeros_like(t), reduction=r.choice(["none", "mean", "sum"])),
}  # fmt: skip


def quiet(T: Any, fn: Callable[[], Any]) -> Any:
    with T.no_grad():
        return fn()


def sum_of(parts: Any) -> Any:
    total = parts[0]
    for p in parts[1:]:
        total = total * 0.5 + p
    return total


def small(t: Any) -> Any:
    """No more than 8 elements and 2 dimensions."""
    while t.ndim > 2 or t.numel() > 8:
        t = t.sum(0) if t.ndim > 1 else t[:4]
    return t


def function(T: Any, seed: int) -> Fn:
    """A random function of two tensors."""

    def f(x: Any, y: Any) -> Any:
        r = Rng(seed)
        pool = [small(x), small(y)]
        for _ in range(r.randint(3, 7)):
            t = r.choice(pool[-3:])
            name = r.choice([*OF_ANY, *OF_DIMS, *OF_DIMS] if t.ndim else [*OF_ANY])
            trace.append(name)
            pool.append(small({**OF_ANY, **OF_DIMS}[name](T, r, pool, t)).tanh())
        last = [p.reshape(-1)[:2] for p in pool[-2:]]
        return T.cat(last) + (x.sum() * y.sin().sum()) * 0.1

    return f


trace: list[str] = []


# ---- transformations: (library, generator, function) -> function ---------------------------------------------------
def weighted(T: Any, t: Any) -> Any:
    """A number, into which every element goes with a weight of its own."""
    return (t * T.linspace(0.5, 1.5, t.numel(), dtype=T.float64).reshape(t.shape)).sum()


def by_grad(T: Any, r: Rng, f: Fn) -> Fn:
    n = r.choice([0, 1, (0, 1), (1,)])

    def g(x: Any, y: Any) -> Any:
        out = T.func.grad(lambda x, y: weighted(T, f(x, y)), argnums=n)(x, y)
        return out if not isinstance(n, tuple) else sum_of([o.flatten()[:2] for o in out])

    return g


def by_grad_and_value(T: Any, r: Rng, f: Fn) -> Fn:
    def g(x: Any, y: Any) -> Any:
        def scalar(x: Any) -> Any:
            out = f(x, y)
            return weighted(T, out), out * 2

        grads, (value, aux) = T.func.grad_and_value(scalar, has_aux=True)(x)
        return T.cat([grads.flatten(), aux.flatten()[:2], value.reshape(1)])

    return g


def by_vjp(T: Any, r: Rng, f: Fn) -> Fn:
    both = r.random() < 0.5

    def g(x: Any, y: Any) -> Any:
        out, pull = T.func.vjp(f, x, y) if both else T.func.vjp(lambda x: f(x, y), x)
        gs = pull(out.detach() * 0.5 + y.sum() if both else T.ones_like(out))
        return T.cat([p.flatten()[:3] for p in gs] + [out.flatten()[:1]])

    return g


def by_jvp(T: Any, r: Rng, f: Fn) -> Fn:
    kind = r.randrange(3)

    def g(x: Any, y: Any) -> Any:
        if kind == 0:
            out, t = T.func.jvp(f, (x, y), (x * 0.5, T.ones_like(y)))
        elif kind == 1:
            out, t = T.func.jvp(lambda x: f(x, y), (x,), (x.cos(),))
        else:
            out, t = T.func.jvp(lambda y: f(x, y * x.sum()), (y.sin(),), (y,))
        return t + out * 0.3

    return g


def by_jacobian(T: Any, r: Rng, f: Fn) -> Fn:
    jac, n, cut = r.choice([T.func.jacrev, T.func.jacfwd]), r.choice([0, 1]), r.random() < 0.7

    def g(x: Any, y: Any) -> Any:
        out = jac(lambda x, y: small(f(x, y)), n)(x, y)
        return out.flatten(0, -1)[:6] if cut else out

    return g


def by_hessian(T: Any, r: Rng, f: Fn) -> Fn:
    return lambda x, y: T.func.hessian(lambda x: weighted(T, f(x, y)))(x).flatten()[:5]


def by_vmap(T: Any, r: Rng, f: Fn) -> Fn:
    kind, d, o, total = r.randrange(6), r.choice([0, 1, -1]), r.choice([0, 0, -1]), r.random() < 0.5

    def g(x: Any, y: Any) -> Any:
        X, Y = T.stack([x, x.sin(), x * 0.5], d if x.ndim else 0), T.stack([y.cos(), y, y * y], d if y.ndim else 0)
        dx, dy = (d if x.ndim else 0), (d if y.ndim else 0)
        if kind == 0:
            out = T.func.vmap(f, in_dims=(dx, dy), out_dims=o)(X, Y)
        elif kind == 1:
            out = T.func.vmap(f, in_dims=(dx, None), out_dims=o)(X, y)
        elif kind == 2:
            out = T.func.vmap(lambda x: f(x, y), in_dims=dx, out_dims=o)(X)
        elif kind == 3:
            out = T.func.vmap(lambda s: f(x * s, y + s), out_dims=o)(T.tensor([0.5, 1.0], dtype=T.float64))
        elif kind == 4:
            out = T.func.vmap(lambda p: f(p["x"], p["y"][0]), in_dims=({"x": dx, "y": (dy,)},), out_dims=o)({"x": X, "y": (Y,)})
        else:
            out = T.func.vmap(lambda y: f(x, y), in_dims=dy, out_dims=o, chunk_size=2)(Y)
        return out.sum(o) if total else out

    return g


def by_dict(T: Any, r: Rng, f: Fn) -> Fn:
    def g(x: Any, y: Any) -> Any:
        out = T.func.grad(lambda p: weighted(T, f(p["x"], p["more"][0])))({"x": x, "more": [y]})
        return out["x"] * 0.5 + out["more"][0].sum()

    return g


def by_linearize(T: Any, r: Rng, f: Fn) -> Fn:
    return lambda x, y: T.func.vmap(T.func.vjp(lambda x: small(f(x, y)), x)[1])(T.stack([(o := small(f(x, y))), o.sin()]))[0].sum(0)


TRANSFORMATIONS = [by_grad, by_grad_and_value, by_vjp, by_jvp, by_jacobian, by_hessian, by_vmap, by_vmap, by_dict, by_linearize, by_jvp]


def nest(T: Any, seed: int, depth: int) -> Fn:
    r = Rng(seed)
    f = function(T, seed)
    for _ in range(depth):
        kind = r.choice(TRANSFORMATIONS)
        trace.append(kind.__name__)
        f = kind(T, r, f)
    return f


def inputs(T: Any, seed: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(-1, 1, 3), rng.uniform(-1, 1, (2, 2) if seed % 3 == 0 else 2)
    return T.tensor(x.tolist(), dtype=T.float64), T.tensor(y.tolist(), dtype=T.float64)


def outcome(T: Any, seed: int, depth: int) -> Any:
    """Values of the nest, and the gradients of its sum by whole-program reverse mode."""
    trace.clear()
    f = nest(T, seed, depth)
    x, y = inputs(T, seed)
    outer = seed % 4
    if outer == 1:
        x.requires_grad_()
    if outer >= 2:
        x.requires_grad_()
        y.requires_grad_()
    out = f(x, y)
    found = [out.detach().numpy(), out.requires_grad]
    if out.requires_grad:
        out.sum().backward()
        found += [None if t.grad is None else t.grad.numpy() for t in (x, y)]
    return found


def assert_close(ours: Any, theirs: Any) -> None:
    assert ours.shape == theirs.shape
    scale = max(1.0, float(np.abs(theirs).max(initial=0)))
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-9 * scale)


def compare(torch: Any, seed: int, depth: int) -> None:
    try:
        theirs = outcome(torch, seed, depth)
    except RuntimeError:
        return  # a limit of PyTorch's, or a change of a saved tensor
    ours = outcome(flambeau, seed, depth)
    assert_close(ours[0], theirs[0])
    for a, b in zip(ours[2:], theirs[2:]):
        assert_close(np.zeros(b.shape) if a is None and b is not None else a, b) if b is not None else None


@pytest.mark.torch
@pytest.mark.parametrize("seed", range(60))
def test_as_in_pytorch(seed):
    compare(pytest.importorskip("torch"), seed, 1 + seed % 3)


# ---- against itself --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("seed", range(100, 124))
def test_jacobians_agree(seed):
    """By columns, by rows, and by one product after the other."""
    T = flambeau
    f = nest(T, seed, seed % 2)
    x, y = inputs(T, seed)
    by_rows, by_columns = T.func.jacrev(f)(x, y), T.func.jacfwd(f)(x, y)
    assert_close(by_columns.numpy(), by_rows.numpy())
    columns = [T.func.jvp(lambda x: f(x, y), (x,), (e,))[1] for e in T.eye(3, dtype=T.float64)]
    assert_close(T.stack(columns, -1).numpy(), by_rows.numpy())
    _, pull = T.func.vjp(lambda x: f(x, y), x)
    shape = tuple(by_rows.shape[:-1])
    units = T.eye(int(np.prod(shape)), dtype=T.float64)
    rows = [pull(e.reshape(shape))[0] for e in units]
    assert_close(T.stack(rows).reshape(*shape, 3).numpy(), by_rows.numpy())


@pytest.mark.parametrize("seed", range(200, 224))
def test_a_batch_is_a_loop(seed):
    T = flambeau
    f = nest(T, seed, seed % 2)
    x, y = inputs(T, seed)
    X, Y = T.stack([x, x.sin(), x * 0.5], seed % 2), T.stack([y, y.cos(), y * 2], -1)
    got = T.vmap(f, in_dims=(seed % 2, -1), out_dims=-1)(X, Y)
    assert_close(got.numpy(), T.stack([f(a, b) for a, b in zip(X.unbind(seed % 2), Y.unbind(-1))], -1).numpy())
