"""Inference mode: what is an inference tensor, and what it refuses, in PyTorch's words."""

import pytest

import flambeau
from tests.autograd.transcripts import differences, recorded, run

MADE = "with T.inference_mode(): i = T.ones(2); v = i[:1]; j = i * 2\n"
NORMAL = "x = T.ones(2, requires_grad=True)\ny = x * 1\n"

PROGRAMS = {
    "what is made inside": """
x = T.tensor([1., 2.], requires_grad=True)
with T.inference_mode():
    made = [T.tensor([1.]), T.zeros(2), T.rand(2), T.randn(2), T.arange(3), T.empty(2), T.Tensor(2), T.as_tensor([1.]), T.randperm(3),
            T.eye(2), x.new_zeros(2), T.zeros_like(x), T.full((2,), 1.), T.linspace(0, 1, 3), T.randint(3, (2,)), T.ones(2).bernoulli(),
            T.empty_like(x), x.new_tensor([1.]), T.tril_indices(2, 2), T.complex(T.ones(1), T.ones(1)), T.normal(0., 1., (2,))]
    computed = [x > 0, x.argmax(), x.sum(), x.max(0)[1], (x * 2)[0], x.half(), x @ x, x.sort()[0], x.sort()[1], T.stack([x, x]), x.clone(),
                x.exp(), x.cumsum(0), x[T.tensor([0])], x.softmax(0), x.unique(), x.nonzero(), T.where(x > 1, x, x), x.topk(1)[0], x.mean(),
                x.isnan(), x.any(), x.repeat(2), x.flip(0), T.nn.functional.linear(x, x), x.norm(), x.std(), x.tril() if x.dim() > 1 else x * 1]
    views = [x.view(2), x[0], x.split(1)[0], x.detach(), x.data, x.contiguous(), x.to(T.float32), x.expand(2, 2), x.unsqueeze(0)]
[t.is_inference() for t in made]
[t.is_inference() for t in computed]
[t.is_inference() for t in views]
[t.requires_grad for t in made + computed]
""",
    "outside": MADE + """
T.is_inference(i), i.is_inference(), v.is_inference(), j.is_inference(), i.is_leaf, i.requires_grad, v._is_view()
i[:1].is_inference(), i.view(2, 1).is_inference(), i.detach().is_inference(), i.data.is_inference(), i.reshape(2, 1).is_inference()
i.contiguous() is i, i.float() is i
(i + 1).is_inference(), i.clone().is_inference(), i.double().is_inference(), T.empty_like(i).is_inference(), T.stack([i, i]).is_inference()
(i + 1)._version
i.tolist(), i.sum().item(), i.numpy().tolist()
""",
    "no version": MADE + """
i._version
v._version
with T.inference_mode(): i.add_(1)._version
""",
    **{
        f"{change}: not outside": MADE + change + "\nwith T.inference_mode():\n    " + change + "\nT.is_inference(i)\n"
        for change in (
            "i.add_(1)", "i.mul_(i)", "i[0] = 3", "i[:] = T.ones(2)", "i[i > 0] = 2", "i.zero_()", "i.fill_(3)", "i.copy_(T.zeros(2))",
            "v.add_(1)", "i.view(2, 1).sub_(1)", "i.masked_fill_(i > 0, 2)", "i.index_put_((T.tensor([0]),), T.tensor(5.))", "i.clamp_(0, 0)",
            "T.add(T.ones(2), 1, out=i)", "T.sum(T.ones(2, 2), 0, out=i)", "i.unsqueeze_(0)", "i.detach().add_(1)", "i.resize_(1)", "i.set_(T.zeros(3))",
            "i += 1", "T.nn.functional.relu(i, inplace=True)", "i.scatter_(0, T.tensor([0]), 4.)", "i.index_add_(0, T.tensor([0]), T.ones(1))",
            "i.cumsum_(0)", "i.index_fill_(0, T.tensor([0]), 4.)", "T.sort(T.ones(2), out=(i, T.zeros(2, dtype=T.int64)))", "i.eq_(1)", "i.view(2, 1).fill_diagonal_(1)",
        )
    },
    "random changes outside": MADE + """
i.uniform_()
i.normal_()
i.bernoulli_(0.5)
""",
    "not saved for backward": NORMAL + MADE + """
i * x
x * i
x @ i
i.view(2) * x
T.nn.functional.linear(i.view(1, 2), x.view(1, 2))
x.pow(i)
T.dot(i, x)
T.where(i > 0, x, i).sum().requires_grad
x.masked_fill(i > 0, 2.).sum().requires_grad
x[i.long() - 1]
T.stack([x, i])
x + i, x - i, T.cat([x, i])
y.add_(i)
y.mul_(i)
y
x.copy_(i)
(i.clone() * x).sum().backward()
x.grad
i * 2, i.exp()
""",
    "under no_grad": NORMAL + MADE + """
with T.no_grad():
    x * i
    x.mul_(i)
x
with T.no_grad():
    i.add_(1)
""",
    "requires_grad_": MADE + """
i.requires_grad_()
i.requires_grad = True
i.requires_grad_(False)
with T.inference_mode():
    k = T.ones(2, requires_grad=True)
    i.requires_grad_()
k.requires_grad, i.requires_grad, k.is_inference()
k * 2
T.nn.Parameter(j)
T.nn.Parameter(j, requires_grad=False).is_inference()
i.backward()
j.register_hook(print)
j.retain_grad()
""",
    "modules": """
with T.inference_mode(): m = T.nn.Linear(2, 2)
m.weight.is_inference(), m.weight.requires_grad
m(T.ones(1, 2)).requires_grad
with T.inference_mode(): r = m(T.ones(1, 2))
r.is_inference(), r.requires_grad
n = T.nn.Linear(2, 2)
with T.inference_mode(): r = n(T.ones(1, 2))
r.is_inference(), r.requires_grad, n.weight.is_inference()
n(T.ones(1, 2)).sum().backward()
n.bias.grad
""",
    "normal tensors inside": NORMAL + """
c = T.zeros(2)
with T.inference_mode():
    y.mul_(3)
    y._version
    c.add_(1)
    c[0] = 7
    x.add_(1)
    x.detach().add_(1)
    c.copy_(T.ones(2))
y.grad_fn, y._version, c, c._version, x, x._version, c.is_inference(), y.is_inference()
c.add_(1)
(c * x).sum().backward()
x.grad
""",
    "views of normal tensors made inside": NORMAL + """
c = T.zeros(2)
with T.inference_mode():
    xv, yv, cv = x[:1], y[:1], c[:1]
    ys = y.split(1)
    w = y[:1]
    w.add_(1)
[(t.is_inference(), t.requires_grad, t._is_view()) for t in (yv, cv)]
xv.add_(1)
yv.add_(1)
cv.add_(1)
cv.add_(x[:1])
ys[0].add_(1)
yv * 1
yv.view(1, 1) * 1
yv.grad_fn
xv * 1
y.mul_(2)
yv * 1
y
""",
    "views inside, untouched": NORMAL + """
with T.inference_mode():
    yv = y[:1]
u = yv.view(1, 1)
u.mul_(2)
yv.sum().backward()
x.grad
""",
    "saved before, changed inside": """
x = T.ones(2, requires_grad=True)
w = T.ones(2)
l = (x * w).sum()
with T.inference_mode(): w.add_(1)
l.backward()
""",
    "nested": NORMAL + """
with T.inference_mode():
    seen = [(T.is_inference_mode_enabled(), T.is_grad_enabled())]
    with T.inference_mode(False):
        seen.append((T.is_inference_mode_enabled(), T.is_grad_enabled()))
        n = x * 2
        t = T.ones(2)
        with T.no_grad():
            seen.append((T.is_inference_mode_enabled(), T.is_grad_enabled()))
            with T.inference_mode(False): seen.append((T.is_inference_mode_enabled(), T.is_grad_enabled()))
        with T.inference_mode(): seen.append((T.is_inference_mode_enabled(), T.is_grad_enabled()))
    with T.enable_grad():
        seen.append((T.is_inference_mode_enabled(), T.is_grad_enabled()))
        e = x * 2
    with T.set_grad_enabled(True):
        f = x * 2
        g = T.ones(2)
    seen.append((T.is_inference_mode_enabled(), T.is_grad_enabled()))
seen
n, t.is_inference(), e, e.is_inference(), f.is_inference(), g.is_inference()
T.is_inference_mode_enabled(), T.is_grad_enabled()
n.sum().backward()
x.grad
""",
    "inference tensors where recording is on inside": NORMAL + """
with T.inference_mode():
    i = T.ones(2)
    with T.inference_mode(False):
        try: i * x
        except RuntimeError as e: said = str(e).split(chr(10))[0]
        try: i.add_(1)
        except RuntimeError as e: said2 = str(e).split(chr(10))[0]
        k = i + 1
said
said2
k.is_inference()
""",
    "set_grad_enabled as a call inside": """
x = T.ones(2, requires_grad=True)
with T.inference_mode():
    T.set_grad_enabled(True)
    a = T.is_grad_enabled()
    b = (x * 2).requires_grad
a, b, T.is_grad_enabled(), T.is_inference_mode_enabled()
""",
    "backward inside": """
x = T.ones(2, requires_grad=True)
l = (x * x).sum()
with T.inference_mode():
    l.backward()
x.grad
with T.inference_mode():
    (x * x).sum().backward()
""",
    "gradients from inside, outside": """
x = T.ones(2, requires_grad=True)
l = (x * x).sum()
with T.inference_mode():
    g, = T.autograd.grad(l, x)
g
with T.inference_mode(): h = T.ones(2)
T.autograd.grad((x * 2), x, h)
x.grad = h
x.grad
""",
    "data and set_": MADE + """
c = T.zeros(2)
c.data = i
c.is_inference(), c
T.zeros(2).set_(i).is_inference()
i.data = T.zeros(3)
i
j.detach_()
j.data.add_(1)
""",
    "increment_version": MADE + """
T.autograd.graph.increment_version(i)
with T.autograd._unsafe_preserve_version_counter(i): pass
""",
    "custom Function": NORMAL + MADE + """
class F(T.autograd.Function):
    @staticmethod
    def forward(ctx, a, b):
        ctx.save_for_backward(a, b)
        return a + b
    @staticmethod
    def backward(ctx, g): return g, g
F.apply(x, i)
with T.inference_mode(): o = F.apply(x, i)
o.is_inference(), o.requires_grad
""",
    "decorator": """
x = T.ones(2, requires_grad=True)
@T.inference_mode
def f(): return x * 2
@T.inference_mode()
def g(): return x * 2
@T.inference_mode(False)
def h(): return x * 2
@T.inference_mode(mode=True)
def gen():
    yield x * 2
    yield T.is_inference_mode_enabled()
class C:
    @T.inference_mode()
    def m(self, a): return a * 2
f().is_inference(), g().is_inference(), h(), f.__name__, C().m(x).is_inference()
[t if isinstance(t, bool) else t.is_inference() for t in gen()]
with T.inference_mode(): r = h()
r, T.is_inference_mode_enabled()
""",
    "pickled and copied": MADE + """
import copy, pickle
copy.deepcopy(i).is_inference()
pickle.loads(pickle.dumps(i)).is_inference()
""",
    "shown": """
with T.inference_mode(): i = T.ones(2)
repr(i)
""",
    "version counters of normal tensors": """
c = T.zeros(2)
with T.inference_mode():
    d = c.detach()
    v = c[:1]
d._version, v._version
d.add_(1)
c._version
""",
}

RECORDED = recorded(__file__)


@pytest.mark.parametrize("name", PROGRAMS)
def test_as_recorded(name):
    found = differences(name, run(PROGRAMS[name], flambeau), RECORDED[name])
    assert not found, "\n".join(found)


@pytest.mark.torch
def test_recorded_as_torch_has_it():
    torch = pytest.importorskip("torch")
    found = [d for name, text in PROGRAMS.items() for d in differences(name, RECORDED[name], run(text, torch))]
    assert not found, "\n".join(found)


def test_a_refused_change_changes_nothing():
    for change in ("i.add_(1)", "i[0] = 3", "i[i > 0] = 2", "i.zero_()", "i.copy_(T.zeros(2))", "i[:1].add_(1)", "T.add(i, 1, out=i)", "i.uniform_()"):
        shown = run(MADE + change + "\ni, i.is_inference()", flambeau)
        assert len(shown) == 2 and "Inplace update to inference tensor" in shown[0] and shown[1] == "[[1, 1], True]", shown
