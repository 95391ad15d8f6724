"""Programs that differentiate gradients: penalties, physics, implicit functions, curvature, learning to learn."""

from __future__ import annotations

from typing import Any


def wasserstein_gradient_penalty(T: Any, see: Any) -> None:
    nn = T.nn
    critic = nn.Sequential(nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.LeakyReLU(0.2), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(16, 1))
    opt = T.optim.Adam(critic.parameters(), lr=1e-2)
    for _ in range(3):
        real, fake, alpha = T.randn(3, 1, 4, 4), T.rand(3, 1, 4, 4), T.rand(3, 1, 1, 1)
        x = (alpha * real + (1 - alpha) * fake).requires_grad_()
        g = T.autograd.grad(critic(x).sum(), x, create_graph=True)[0]
        penalty = ((g.flatten(1).norm(dim=1) - 1) ** 2).mean()
        loss = critic(fake).mean() - critic(real).mean() + 10 * penalty
        opt.zero_grad()
        loss.backward()
        opt.step()
        see(loss, penalty)


def physics_informed_network(T: Any, see: Any) -> None:
    nn, func = T.nn, T.func
    net = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 1))
    x = T.linspace(0, 3.14, 9)[:, None].requires_grad_()
    opt = T.optim.SGD(net.parameters(), lr=0.05)
    for _ in range(4):
        u = net(x)
        ux = T.autograd.grad(u, x, T.ones_like(u), create_graph=True)[0]
        uxx = T.autograd.grad(ux, x, T.ones_like(ux), create_graph=True)[0]
        loss = (uxx + x.sin()).pow(2).mean() + net(T.zeros(1, 1)).pow(2).sum()
        opt.zero_grad()
        loss.backward()
        opt.step()
        see(loss)
    p = {k: v.detach() for k, v in net.named_parameters()}
    f = lambda p, s: func.functional_call(net, p, (s[None, None],))[0, 0]  # noqa: E731
    second = func.vmap(func.grad(func.grad(f, 1), 1), (None, 0))
    points = x.detach().squeeze(1)
    u = net(x)
    ux = T.autograd.grad(u, x, T.ones_like(u), create_graph=True)[0]
    see(T.allclose(second(p, points), T.autograd.grad(ux.sum(), x)[0].squeeze(1), atol=1e-5))
    see({k: v.norm() for k, v in func.grad(lambda p: (second(p, points) + points.sin()).pow(2).mean())(p).items()})


def hamiltonian_and_lagrangian(T: Any, see: Any) -> None:
    nn, func = T.nn, T.func
    H = nn.Sequential(nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, 1)).double()
    p = {k: v.detach() for k, v in H.named_parameters()}
    J = T.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=T.double)
    field = lambda s: J @ func.grad(lambda s: func.functional_call(H, p, (s[None],)).sum())(s)  # noqa: E731
    s = T.randn(3, 2, dtype=T.double)
    see(func.vmap(field)(s), func.vmap(lambda s: func.jacfwd(field)(s).trace())(s).abs().max() < 1e-12)
    energy = lambda q, v: func.functional_call(H, p, (T.cat([q, v])[None],)).sum() + v.pow(2).sum()  # noqa: E731

    def acceleration(q: Any, v: Any) -> Any:
        M, C = func.hessian(energy, 1)(q, v), func.jacrev(func.grad(energy, 1), 0)(q, v)
        return T.linalg.solve(M, func.grad(energy, 0)(q, v) - C @ v)

    see(func.vmap(acceleration)(s[:, :1], s[:, 1:]))


def newton_and_the_functional_interface(T: Any, see: Any) -> None:
    functional = T.autograd.functional
    f = lambda x: ((1 - x[:-1]) ** 2 + 100 * (x[1:] - x[:-1] ** 2) ** 2).sum()  # noqa: E731
    x = T.tensor([-1.2, 1.0, 0.5], dtype=T.double)
    for _ in range(4):
        x = x - T.linalg.solve(T.func.hessian(f)(x), T.func.grad(f)(x))
    see(x, f(x))
    v = T.ones(3, dtype=T.double)
    see(functional.hvp(f, x, v), functional.vhp(f, x, v), T.allclose(functional.hessian(f, x), T.func.hessian(f)(x)))
    see(functional.jacobian(lambda x, y: 2 * x.exp() + 3 * y, (x, x)), functional.jvp(lambda x: x**2, x, v))
    see.error(lambda: functional.jacobian(lambda x: x.detach(), x, strict=True))
    see.error(lambda: functional.hessian(lambda x: x.sum(), x, strict=True))
    see.error(lambda: functional.vjp(lambda x: x**2, x))
    see.error(lambda: functional.hessian(lambda x: x, x))


def influence_by_conjugate_gradients(T: Any, see: Any) -> None:
    X = T.randn(12, 3, dtype=T.double)
    y = (X.sum(1) > 0).double()
    w = T.tensor([1.0, 0.5, 0.8], dtype=T.double)
    bce = T.nn.functional.binary_cross_entropy_with_logits
    risk = lambda w: bce(X @ w, y) + 0.05 * (w**2).sum()  # noqa: E731
    v = T.func.grad(lambda w: bce(X[:1] @ w, y[:1]))(w)
    r, z, d = v.clone(), T.zeros(3, dtype=T.double), v.clone()
    for _ in range(5):
        Ad = T.autograd.functional.hvp(risk, w, d)[1]
        a = (r @ r) / (d @ Ad)
        z, new = z + a * d, r - a * Ad
        if new @ new < 1e-24:
            break
        d, r = new + (new @ new) / (r @ r) * d, new
    see(z, T.allclose(T.func.hessian(risk)(w) @ z, v, atol=1e-8))
    per_example = T.vmap(T.func.grad(lambda w, x, t: bce(x @ w, t)), (None, 0, 0))(w, X, y)
    see(-per_example @ z)


def equilibrium_by_a_hook(T: Any, see: Any) -> None:
    W, x = (T.randn(3, 3) * 0.2).requires_grad_(), T.randn(3)
    cell = lambda z: T.tanh(W @ z + x)  # noqa: E731
    with T.no_grad():
        z = T.zeros(3)
        for _ in range(60):
            z = cell(z)
    z = cell(z)
    point = z.detach().requires_grad_()
    image = cell(point)

    def solve(g: Any) -> Any:
        u = g
        for _ in range(60):
            u = T.autograd.grad(image, point, u, retain_graph=True)[0] + g
        return u

    z.register_hook(solve)
    z.sum().backward()
    J = T.autograd.functional.jacobian(cell, point.detach())
    direct = T.autograd.grad(cell(point.detach()), W, T.linalg.solve((T.eye(3) - J).T, T.ones(3)))[0]
    see(W.grad, T.allclose(W.grad, direct, atol=1e-5))


def learning_to_learn(T: Any, see: Any) -> None:
    lr, start = T.tensor(0.1, requires_grad=True), T.tensor([1.0, -2.0], requires_grad=True)
    q = start
    for _ in range(4):
        q = q - lr * 0.1 * T.autograd.grad((q**4).sum(), q, create_graph=True)[0]
    see(T.autograd.grad((q**2).sum(), (lr, start)))
    w = T.tensor(1.5, requires_grad=True)
    for create in (True, False):
        v = w
        for _ in range(3):
            v = v - 0.01 * T.autograd.grad((v - 3) ** 2 * v, v, create_graph=create)[0]
        see(T.autograd.grad(v, w))
    lam = T.tensor(0.1, requires_grad=True)
    X = T.linspace(-1, 1, 6)[:, None] ** T.arange(3.0)
    y = X[:, 1].sin()
    ridge = lambda lam: T.linalg.solve(X.T @ X + lam * T.eye(3), X.T @ y)  # noqa: E731
    see(T.autograd.grad(((X[::2] @ ridge(lam) - y[::2]) ** 2).sum(), lam))


def second_derivatives_of_layers(T: Any, see: Any) -> None:
    F, hessian = T.nn.functional, T.func.hessian
    x = T.tensor([2.0, 1.0, 3.0, 0.5], dtype=T.double)
    rnn = T.nn.GRU(2, 2).double()
    for f in (
        lambda x: F.layer_norm(x, (4,)).pow(3).sum(),
        lambda x: F.batch_norm(x.view(4, 1), None, None, training=True).pow(3).sum(),
        lambda x: F.conv1d(x.view(1, 1, 4), T.ones(1, 1, 2, dtype=T.double)).pow(3).sum(),
        lambda x: F.max_pool1d(x.view(1, 1, 4), 2).pow(3).sum(),
        lambda x: F.cross_entropy(x[None], T.tensor([1])),
        lambda x: F.gelu(x).sum() * F.softplus(x).sum(),
        lambda x: T.linalg.slogdet(T.diag(x) + 1)[1],
        lambda x: T.linalg.cholesky(T.eye(2, dtype=T.double) * 9 + x.view(2, 2) + x.view(2, 2).T).sum(),
        lambda x: F.normalize(x, dim=0)[0] * x.std() * T.logsumexp(x, 0),
        lambda x: x[T.tensor([0, 0, 1])].pow(3).sum() * x.cumprod(0).sum(),
        lambda x: rnn(x.view(2, 1, 2))[0].sum(),
    ):
        see(hessian(f)(x))
