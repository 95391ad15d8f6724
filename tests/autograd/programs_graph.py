"""Programs about the graph: gradients, hooks, what is saved, modes, checkpoints."""

from __future__ import annotations

import threading
from typing import Any


def fit_a_polynomial(T: Any, see: Any) -> None:
    x = T.linspace(-3.14159, 3.14159, 200)
    y = T.sin(x)
    parameters = [T.randn((), requires_grad=True) for _ in range(4)]
    for t in range(60):
        loss = (sum(p * x**i for i, p in enumerate(parameters)) - y).pow(2).sum()
        loss.backward()
        with T.no_grad():
            for p in parameters:
                p -= 1e-5 * p.grad
                p.grad = None
        if t % 20 == 0:
            see(loss.item())
    see(parameters)


def requires_grad_retain_grad_leaves(T: Any, see: Any) -> None:
    W, x = T.tensor([[1.0, 2.0]], requires_grad=True), T.tensor([[3.0], [4.0]])
    y = W @ x
    z = y.relu()
    loss = T.nn.functional.mse_loss(z, T.tensor([[5.0]]))
    see(W.is_leaf, x.is_leaf, y.is_leaf, y.requires_grad)
    y.retain_grad()
    loss.backward()
    see(y.grad, z.grad, W.grad, x.grad, y.retains_grad)
    see.error(lambda: x.retain_grad())
    see.error(lambda: loss.backward())
    see.error(lambda: W.detach().sum().backward())
    see.error(lambda: (W * 2).backward())


def gradients_where_there_is_none(T: Any, see: Any) -> None:
    z = T.zeros(2, requires_grad=True)
    x = T.tensor([1.0, 1.0, 0.0], requires_grad=True)
    for f in (lambda: z.norm(), lambda: z.abs().sum(), lambda: z.sqrt().sum(), lambda: z.relu().sum(), lambda: z.clamp(0, 1).sum(),
              lambda: T.where(z > 0, z.log(), z).sum(), lambda: z.pow(0).sum(), lambda: z.round().sum()):  # fmt: skip
        see(T.autograd.grad(f(), z))
    for f in (lambda: x.max(), lambda: x.max(0)[0], lambda: T.maximum(x, T.ones(3)).sum(), lambda: x.median(), lambda: x.norm()):
        see(T.autograd.grad(f(), x))
    see.error(lambda: T.autograd.grad(x.argmax(), x))


def hooks_when_modified_in_place(T: Any, see: Any) -> None:
    t = T.tensor(1.0, requires_grad=True).sin()
    t.cos_()
    t.register_hook(lambda g: see("after cos", g))
    t.backward()
    t = T.tensor(1.0, requires_grad=True).sin()
    t.register_hook(lambda g: see("sin's own", g))
    t.cos_()
    t.backward()
    t = T.tensor(1.0, requires_grad=True).sin()
    t.retain_grad()
    t.cos_()
    t.backward()
    see(t.grad, t.grad_fn)


def which_hooks_run(T: Any, see: Any) -> None:
    a = T.ones(2, requires_grad=True)
    b = a * 2
    c = b * 3
    a.register_hook(lambda g: see("a"))
    b.register_hook(lambda g: see("b"))
    a.register_post_accumulate_grad_hook(lambda p: see("a has", p.grad))
    b.grad_fn.register_hook(lambda gi, go: see("b's node", gi, go))
    b.grad_fn.register_prehook(lambda go: see("before b's node", go))
    see(T.autograd.grad(c.sum(), a, retain_graph=True))
    c.sum().backward(inputs=[a], retain_graph=True)
    c.sum().backward()


def optimizer_step_in_backward(T: Any, see: Any) -> None:
    net = T.nn.Sequential(T.nn.Linear(3, 4), T.nn.ReLU(), T.nn.Linear(4, 2))
    optimizers = {p: T.optim.Adam([p], lr=0.1) for p in net.parameters()}

    def step(p: Any) -> None:
        optimizers[p].step()
        optimizers[p].zero_grad()

    for p in net.parameters():
        p.register_post_accumulate_grad_hook(step)
    for _ in range(3):
        net(T.ones(5, 3)).sum().backward()
    see([p.sum() for p in net.parameters()], [p.grad for p in net.parameters()])


def saved_tensors_elsewhere(T: Any, see: Any) -> None:
    storage: list[Any] = []

    def pack(t: Any) -> int:
        storage.append(t.detach().half() if t.numel() > 4 else t)
        return len(storage) - 1

    x = T.linspace(0, 1, 5, requires_grad=True)
    with T.autograd.graph.saved_tensors_hooks(pack, lambda i: storage[i].float()):
        y = (x * x).sin().sum()
    y.backward()
    see(len(storage) > 0, x.grad)
    node = x.pow(2).grad_fn
    node._raw_saved_self.register_hooks(lambda t: t.detach() * 10, lambda t: t)
    see(node._saved_self)
    see.error(lambda: node._raw_saved_self.register_hooks(lambda t: t, lambda t: t))
    with T.autograd.graph.disable_saved_tensors_hooks("not here"):
        see.error(lambda: T.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t).__enter__())


def mutation_of_saved_tensors(T: Any, see: Any) -> None:
    a = T.tensor([1.0, 2.0], requires_grad=True)
    with T.autograd.graph.allow_mutation_on_saved_tensors():
        b = a.clone()
        first = (b * b).sum()
        b.mul_(3)
        second = (b * b).sum()
        see(T.autograd.grad(first + second, a))
    b = a.exp()
    b.add_(1)
    see.error(lambda: b.sum().backward())
    with T.inference_mode():
        made = T.ones(2)
    T.autograd.graph.increment_version(made)  # which has no version: nothing to do
    see.error(lambda: made._version)


def gradient_edges(T: Any, see: Any) -> None:
    x = T.ones(3, requires_grad=True)
    y = x * 2
    edge = T.autograd.graph.get_gradient_edge(y)
    z = y.sum() * 3
    see(edge.node, edge.output_nr, T.autograd.grad(z, edge, retain_graph=True))
    T.autograd.backward(T.autograd.graph.get_gradient_edge(x.exp()), T.ones(3))
    see(x.grad)
    see.error(lambda: T.autograd.graph.get_gradient_edge(T.ones(1)))
    h = T.autograd.graph.register_multi_grad_hook((x, y), lambda gs: see([g is not None for g in gs]))
    z.backward()
    h.remove()


def serving(T: Any, see: Any) -> None:
    nn = T.nn
    model = nn.Sequential(nn.Embedding(10, 4), nn.Flatten(), nn.Linear(12, 4), nn.BatchNorm1d(4), nn.Dropout(0.3)).eval()
    ids = T.randint(0, 10, (5, 3))

    @T.inference_mode()
    def predict(ids: Any) -> Any:
        return model(ids).softmax(-1)

    p = predict(ids)
    w = T.ones(4, requires_grad=True)
    see(p, p.is_inference(), p[0].is_inference(), p.clone().is_inference())
    see.error(lambda: p * w)
    (p.clone() * w).sum().backward()
    see(w.grad)
    see.error(lambda: p.add_(1))

    @T.no_grad()
    def rows() -> Any:
        for row in ids:
            yield T.is_grad_enabled(), model(row[None]).requires_grad

    see(list(rows()), T.is_grad_enabled())


def checkpoints(T: Any, see: Any) -> None:
    import importlib

    cp = importlib.import_module(T.__name__ + ".utils.checkpoint")
    block = T.nn.Sequential(T.nn.Linear(4, 8), T.nn.Dropout(0.5), T.nn.Tanh(), T.nn.Linear(8, 4))
    x = T.randn(3, 4, requires_grad=True)

    def gradient(f: Any) -> Any:
        T.manual_seed(3)
        return T.autograd.grad(f(x).sum(), [x, *block.parameters()])

    plain = gradient(block)
    for reentrant in (False, True):
        if not reentrant:
            again = gradient(lambda x: cp.checkpoint(block, x, use_reentrant=False))
            see([T.allclose(a, b) for a, b in zip(plain, again)])
        else:
            see.error(lambda: gradient(lambda x: cp.checkpoint(block, x, use_reentrant=True)))
    flip = [0]

    def changing(x: Any) -> Any:
        flip[0] += 1
        return (x[:2] if flip[0] % 2 else x).sin()

    see.error(lambda: cp.checkpoint(changing, x, use_reentrant=False).sum().backward())
    contexts = lambda: cp.create_selective_checkpoint_contexts([T.ops.aten.mm.default])  # noqa: E731
    w = T.randn(4, 4, requires_grad=True)
    see(T.autograd.grad(cp.checkpoint(lambda x: (x @ w).sigmoid() @ w, x, use_reentrant=False, context_fn=contexts).sum(), w))


def anomalies(T: Any, see: Any) -> None:
    x = T.tensor([-1.0, 1.0], requires_grad=True)

    def masked() -> None:
        with T.autograd.detect_anomaly():
            T.where(x > 0, x.log(), T.zeros(2)).sum().backward()

    see.error(masked)

    def second() -> None:
        with T.autograd.detect_anomaly():
            z = T.tensor(0.0, requires_grad=True)
            g = T.autograd.grad(z**1.5, z, create_graph=True)[0]
            T.autograd.grad(g, z)

    see.error(second)
    see(T.is_anomaly_enabled())


def threads(T: Any, see: Any) -> None:
    x = T.ones(4, requires_grad=True)
    outputs = [(x * i).exp().sum() for i in range(4)]
    enabled = []

    def work(i: int) -> None:
        enabled.append(T.is_grad_enabled())
        outputs[i].backward()

    with T.no_grad():
        workers = [threading.Thread(target=work, args=(i,)) for i in range(4)]
        for t in workers:
            t.start()
        for t in workers:
            t.join()
    see(x.grad, set(enabled))


def step_before_the_last_backward(T: Any, see: Any) -> None:
    net = T.nn.Sequential(T.nn.Linear(2, 2), T.nn.Tanh(), T.nn.Linear(2, 1))
    opt = T.optim.SGD(net.parameters(), lr=0.1)
    y = net(T.ones(1, 2))
    y.pow(2).sum().backward(retain_graph=True)
    opt.step()
    try:
        y.sum().backward()
    except RuntimeError as e:
        see("modified by an inplace operation" in str(e))
    else:
        see(False)
