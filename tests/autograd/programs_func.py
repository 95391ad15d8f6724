"""Programs about functional transformations: the tutorials of torch.func, and what their limits are."""

from __future__ import annotations

import copy
from typing import Any


def jacobians_hessians_and_products(T: Any, see: Any) -> None:
    func, F = T.func, T.nn.functional
    W, b, x = T.randn(4, 4), T.randn(4), T.randn(4)
    predict = lambda W, b, x: F.linear(x, W, b).tanh()  # noqa: E731
    pull = func.vjp(lambda x: predict(W, b, x), x)[1]
    rows = func.vmap(pull)(T.eye(4))[0]
    see(rows, T.allclose(rows, func.jacrev(predict, 2)(W, b, x)), T.allclose(rows, func.jacfwd(predict, 2)(W, b, x)))
    see(func.vmap(func.hessian(predict, 2), (None, None, 0))(W, b, T.stack([x, -x])).sum((1, 3)))
    f = lambda x: x.sin().sum()  # noqa: E731
    see(func.jvp(func.grad(f), (x,), (T.ones(4),))[1] + x.sin())
    see.error(lambda: func.jacrev(lambda x: x > 0)(x))
    see.error(lambda: func.grad(lambda x: x)(x))
    see.error(lambda: func.jvp(f, x, x))


def per_sample_gradients(T: Any, see: Any) -> None:
    nn, func = T.nn, T.func
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(18, 3))
    x, y = T.randn(4, 1, 8, 8), T.tensor([0, 2, 1, 1])
    p = {k: v.detach() for k, v in net.named_parameters()}

    def loss(p: Any, x: Any, y: Any) -> Any:
        return nn.functional.cross_entropy(func.functional_call(net, p, (x[None],)), y[None])

    grads = func.vmap(func.grad(loss), (None, 0, 0))(p, x, y)
    norms = T.stack([g.flatten(1).norm(dim=1) for g in grads.values()]).norm(dim=0)
    alone = T.autograd.grad(nn.functional.cross_entropy(net(x[1:2]), y[1:2]), list(net.parameters()))
    see(norms, [T.allclose(g[1], a, atol=1e-5) for g, a in zip(grads.values(), alone)])
    chunked = func.vmap(func.grad(loss), (None, 0, 0), chunk_size=3)(p, x, y)
    see([T.allclose(a, b, atol=1e-6) for a, b in zip(grads.values(), chunked.values())])
    scale = (1 / (norms + 1e-6)).clamp(max=1)  # DP-SGD
    see([T.einsum("n,n...->...", scale, g).norm() for g in grads.values()])


def an_ensemble(T: Any, see: Any) -> None:
    nn, func = T.nn, T.func
    models = [nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2)) for _ in range(3)]
    p, b = func.stack_module_state(models)
    base = copy.deepcopy(models[0])
    x = T.randn(5, 3)
    out = func.vmap(lambda p, b, x: func.functional_call(base, (p, b), (x,)), (0, 0, None))(p, b, x)
    see(T.allclose(out, T.stack([m(x) for m in models]), atol=1e-6), b["1.num_batches_tracked"])
    see(T.allclose(b["1.running_mean"], T.stack([m[1].running_mean for m in models]), atol=1e-6))
    out.sum().backward()
    see({k: v.grad.norm() for k, v in p.items()})
    see.error(lambda: func.stack_module_state([models[0], nn.Linear(1, 1)]))
    see.error(lambda: func.stack_module_state([]))


def neural_tangent_kernel(T: Any, see: Any) -> None:
    func = T.func
    net = T.nn.Sequential(T.nn.Linear(3, 6), T.nn.Tanh(), T.nn.Linear(6, 2))
    p = {k: v.detach() for k, v in net.named_parameters()}
    a, b = T.randn(3, 3), T.randn(2, 3)
    f = lambda p, x: func.functional_call(net, p, (x[None],))[0]  # noqa: E731
    jac = [func.vmap(func.jacrev(f), (None, 0))(p, x) for x in (a, b)]
    first = sum(T.einsum("Naf,Mbf->NMab", i.flatten(2), j.flatten(2)) for i, j in zip(jac[0].values(), jac[1].values()))

    def entry(x: Any, y: Any) -> Any:
        pull = func.vjp(lambda p: f(p, x), p)[1]
        return func.vmap(lambda v: func.jvp(lambda p: f(p, y), (p,), pull(v))[1])(T.eye(2))

    second = func.vmap(func.vmap(entry, (None, 0)), (0, None))(a, b)
    see(first, T.allclose(first, second, atol=1e-4))


def maml(T: Any, see: Any) -> None:
    func, F = T.func, T.nn.functional
    p = [T.randn(8, 1) * 0.5, T.zeros(8), T.randn(1, 8) * 0.5, T.zeros(1)]
    net = lambda p, x: F.linear(F.relu(F.linear(x, p[0], p[1])), p[2], p[3])  # noqa: E731
    phase = T.tensor([0.0, 1.0, 2.0])[:, None, None]
    x = T.linspace(-3, 3, 7)[None, :, None].expand(3, 7, 1)
    y = T.sin(x + phase)

    def task(p: Any, x: Any, y: Any) -> Any:
        inner = lambda p: F.mse_loss(net(p, x[:4]), y[:4])  # noqa: E731
        q = [w - 0.1 * g for w, g in zip(p, func.grad(inner)(p))]
        return F.mse_loss(net(q, x[4:]), y[4:])

    for _ in range(3):
        g, loss = func.grad_and_value(lambda p: func.vmap(task, (None, 0, 0))(p, x, y).mean())(p)
        p = [w - 0.1 * d for w, d in zip(p, g)]
        see(loss)
    see([w.norm() for w in p])


def limits_of_vmap(T: Any, see: Any) -> None:
    vmap = T.vmap
    x = T.tensor([[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]])
    see.error(lambda: vmap(lambda x: x.sum().item())(x))
    see.error(lambda: vmap(lambda x: x if x.sum() > 0 else -x)(x))
    see.error(lambda: vmap(T.nonzero)(x))
    see.error(lambda: vmap(lambda x: T.zeros(3).copy_(x))(x))
    see.error(lambda: vmap(lambda x: T.randn(2))(x))
    see.error(lambda: vmap(lambda x: 3.0)(x))
    see.error(lambda: vmap(lambda x: x, in_dims=5)(x))
    see.error(lambda: vmap(lambda x: x, out_dims="a")(x))
    see.error(lambda: vmap(lambda x, y: x)(x, T.ones(3)))
    see(vmap(lambda x: x.new_zeros(3, 3).diagonal_scatter(x) if hasattr(x, "diagonal_scatter") else T.diag(x))(x))
    see(vmap(lambda x, *, scale: x.sum() * scale)(x, scale=T.tensor([2.0, 3.0])))  # keyword arguments aren't mapped
    escaped = []
    vmap(lambda x: (escaped.append(x * 2), x)[1])(x)
    try:
        escaped[0] + 1
    except RuntimeError as e:
        see("escaped from inside a function being vmapped" in str(e))


def randomness(T: Any, see: Any) -> None:
    vmap, x = T.vmap, T.zeros(3, 2)
    for how in ("same", "different"):
        for f in (lambda x: x + T.rand(2), lambda x: T.nn.functional.dropout(x + 1, 0.5), lambda x: T.randint(0, 10, (2,)), lambda x: x.clone().normal_()):
            T.manual_seed(0)
            see(how, vmap(f, randomness=how)(x))
    see.error(lambda: vmap(lambda x: x, randomness="any")(x))


def where_dims_go(T: Any, see: Any) -> None:
    vmap, x, y = T.vmap, T.arange(6.0).view(2, 3), T.arange(3.0)
    see(vmap(T.dot, in_dims=(0, None))(x, y))
    see(vmap(lambda d: d["x"] * d["y"], in_dims=({"x": 1, "y": 0},), out_dims=1)({"x": x, "y": y}))
    see(vmap(lambda x: {"a": x, "b": [x.sum()]}, out_dims={"a": 1, "b": [0]})(x))
    see(vmap(vmap(lambda x, y: x * y, in_dims=(None, 0)), in_dims=(0, None))(y, y))
    see(vmap(lambda x: x.sum(), in_dims=-1, chunk_size=2)(x))
    see.error(lambda: vmap(lambda x: (x, x), out_dims=(0, 0, 0))(y))


def nested_transformations(T: Any, see: Any) -> None:
    func = T.func
    w, x = T.randn(3, dtype=T.double), T.randn(4, 3, dtype=T.double)
    f = lambda w, x: T.tanh(x @ w) * (w * x).sum() + (w**3).sum()  # noqa: E731
    see(func.grad(lambda w: func.vmap(func.grad(f), (None, 0))(w, x).pow(2).sum())(w))
    see(func.vmap(func.jacrev(func.jacfwd(f)), (None, 0))(w, x).sum(0), func.hessian(lambda w: func.vmap(f, (None, 0))(w, x).sum())(w))
    see(func.jvp(lambda w: func.jvp(lambda w: f(w, x[0]), (w,), (w,))[1], (w,), (T.ones_like(w),)))
    wr = w.clone().requires_grad_()
    v = func.vmap(func.grad(f), (None, 0))(wr, x)
    v.pow(2).sum().backward()
    see(v.requires_grad, wr.grad)
    see(func.hessian(lambda x: T.linalg.matrix_exp(x.view(2, 2)).sum())(T.tensor([0.2, 0.1, 0.3, 0.1])))  # a constant
    step = lambda lr: w - lr * func.grad(lambda w: f(w, x[0]))(w)  # noqa: E731
    see(func.vmap(func.grad(lambda lr: f(step(lr), x[1])))(T.tensor([0.1, 0.2], dtype=T.double)))


def duals(T: Any, see: Any) -> None:
    import importlib

    fwAD = importlib.import_module(T.__name__ + ".autograd.forward_ad")
    x, t = T.tensor([1.0, 2.0]), T.tensor([1.0, 10.0])
    with fwAD.dual_level():
        d = fwAD.make_dual(x, t)
        see(repr(d), fwAD.unpack_dual(d**2).tangent)
        e = d.clone()
        e[0] = 0
        see(fwAD.unpack_dual(e).tangent, fwAD.unpack_dual(e.view(2, 1)).tangent)
        see.error(lambda: fwAD.make_dual(x, T.ones(3)))
        see.error(lambda: fwAD.dual_level().__enter__())
        r = fwAD.make_dual(x.clone().requires_grad_(), t)
        see(T.autograd.grad(fwAD.unpack_dual((r**3).sum()).tangent, r)[0])
    see(fwAD.unpack_dual(d).tangent)
    see.error(lambda: fwAD.make_dual(x, t))
    layer = T.nn.Linear(2, 1)
    p = {k: v.detach() for k, v in layer.named_parameters()}
    see(T.func.jvp(lambda p: T.func.functional_call(layer, p, (x,)), (p,), ({"weight": T.ones(1, 2), "bias": T.ones(1)},))[1])


def other_tensors_in_a_module(T: Any, see: Any) -> None:
    nn, call = T.nn, T.func.functional_call

    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Parameter(T.tensor(1.0))
            self.b = self.a
            self.mask = T.tensor(1.0)

        def forward(self, x: Any) -> Any:
            return x + self.a + self.b * self.mask

    m, x = Tied(), T.tensor(1.0)
    see(call(m, {"a": T.tensor(3.0)}, x), call(m, {"a": T.tensor(3.0)}, x, tie_weights=False))
    see.error(lambda: call(m, {"a": T.tensor(3.0), "b": T.tensor(5.0)}, x))
    see(call(m, {"mask": T.tensor(0.0)}, x), m.mask, m.a)
    see.error(lambda: call(m, {"c": x}, x, strict=True))
    see.error(lambda: call(m, {"a": 1}, x))
    see.error(lambda: call(m, {"a.x": x}, x))
    see.error(lambda: call(m, {"forward.x": x, "q.x": x}, x))
    norm = nn.BatchNorm1d(2)
    own = {"running_mean": T.zeros(2), "running_var": T.ones(2), "num_batches_tracked": T.tensor(0)}
    call(norm, own, T.tensor([[1.0, 2.0], [3.0, 4.0]]))
    see(own, norm.running_mean)
