"""Views and in-place changes: whose history is rewritten when, and what is refused, in PyTorch's words."""

import pytest

import flambeau
from tests.autograd.transcripts import differences, recorded, run

PROGRAMS = {
    "base changes, view follows": """
x = T.ones(4, requires_grad=True)
y = x * 1
v = y[:2]
w = v.view(2, 1)
y.mul_(3)
v, w
y.grad_fn.next_functions[0][0]
w.sum().backward()
x.grad
""",
    "view changes, base and other views follow": """
x = T.arange(6.).requires_grad_()
y = x * 1
v, w = y[1:4], y.view(2, 3)
v.mul_(w[1])
y, v, w
y.grad_fn.next_functions
(y * y).sum().backward()
x.grad
""",
    "view of a view changes": """
x = T.arange(12.).requires_grad_()
y = (x * 2).view(3, 4)
v = y.t()[1:3]
u = v[0].unsqueeze(1)
u.add_(1).mul_(u)
v, u, y
y._base is not None, v._base is u._base, u._is_view(), u._version
v.sum().backward()
x.grad
""",
    "chain of changes": """
x = T.tensor([1., 2., 3., 4.], requires_grad=True)
y = x.clone()
a = y[:2]
b = y[1:3]
a.mul_(2)
b.mul_(a)
y[3:].copy_(b[:1])
a.sin_()
y, a, b
y.pow(2).sum().backward()
x.grad
""",
    "constant base takes history": """
b = T.zeros(2, 3)
r, q = b[0], b[1]
w = T.ones(3, requires_grad=True)
r.copy_(w * 2)
b.requires_grad, r.requires_grad, q.requires_grad
b, r, q
b.is_leaf, r.is_leaf, q.is_leaf
(b * T.arange(6.).view(2, 3)).sum().backward()
w.grad
""",
    "view changed under no_grad": """
x = T.ones(4, requires_grad=True)
y = x * 2
v = y[:2]
with T.no_grad():
    v.mul_(3)
v.detach(), y, v._version
y.sum().backward()
x.grad
""",
    "view made under no_grad, changed inside": """
x = T.ones(4, requires_grad=True)
y = x * 2
with T.no_grad():
    v = y[:2]
    v.mul_(3)
v.requires_grad, v._is_view(), v._base is y
y.sum().backward()
x.grad
""",
    "view made under no_grad, changed outside": """
x = T.ones(4, requires_grad=True)
y = x * 2
with T.no_grad():
    v = y[:2]
v.mul_(3)
y, v, y._version
v.view(1, 2).mul_(3)
v[0] = 3
y, y._version
""",
    "view made under no_grad, base changed outside": """
x = T.ones(4, requires_grad=True)
y = x * 2
with T.no_grad():
    v = y[:2]
y.mul_(3)
v.grad_fn
v * 2
v.requires_grad
with T.no_grad():
    z = v * 2
z
y
""",
    "shown": """
x = T.ones(2, requires_grad=True)
y = x * 1
with T.no_grad():
    v = y[:1]
repr(v)
y[0] = 2
repr(v), repr(y), repr(y[:1]), repr(T.zeros(1).copy_(x[:1]))
""",
    "what a whole copy leaves": """
x = T.ones(2, requires_grad=True)
y = x.sin()
y.copy_(T.zeros(2, requires_grad=True) * 2)
y.sum().backward()
x.grad
y.copy_(y)
y._version
""",
    "kinds of views, one of another": """
x = T.ones(4, 4, requires_grad=True)
def made(y, kind):
    import contextlib
    with {'n': T.no_grad, 'i': T.inference_mode, 'g': contextlib.nullcontext}[kind[0]]():
        return y.split(1)[0] if kind[1] == 's' else y[:1]
kinds = [m + k for m in 'gni' for k in 'so']
def refused(v):
    try: v.add_(1)
    except RuntimeError as e: return str(e)[:60], [w for w in ('multiple views', 'no_grad block', 'inference_mode block') if w in str(e)]
{(a, b): refused(made(made(x * 1, a), b)) for a in kinds for b in kinds}
""",
    "changed in inference mode, out of its history": """
x = T.ones(3, requires_grad=True)
y = x * 2
with T.inference_mode():
    y.index_fill_(0, T.tensor([0]), 5.)
    y.cumsum_(0)
    y[0] = 3
    y.clamp_(0, 9)
y
y.sum().backward()
x.grad
""",
    "view of a leaf under no_grad": """
x = T.ones(4, requires_grad=True)
with T.no_grad():
    v = x[:2]
    v.add_(1)
v.requires_grad, v.is_leaf, v._is_view()
(v * 3).sum().backward()
v.grad, x.grad
v.add_(1)
x
""",
    "view under no_grad of a constant": """
b = T.zeros(4)
with T.no_grad():
    v = b[:2]
w = T.ones(2, requires_grad=True)
v.requires_grad
v.add_(w)
b, v
v.add_(1)
b, v, v.requires_grad
""",
    "constant base of a view under no_grad changed": """
b = T.zeros(4)
with T.no_grad():
    v = b[:2]
w = T.ones(4, requires_grad=True)
b.add_(w)
v.requires_grad
v + 1
""",
    **{
        f"{call}: several views refuse": f"""
x = T.ones(4, 4, requires_grad=True)
y = x * 1
a, b, *rest = y.{call}
a.mul_(2)
a.view(-1).mul_(2)
a[0] = 1
y, y._version
with T.no_grad():
    c = a.mul_(2)
y, c.requires_grad
(a * b).sum().backward()
x.grad
"""
        for call in ("split(2)", "split([1, 3])", "unbind()", "chunk(2)", "tensor_split(2)", "hsplit(2)", "vsplit(2)", "unbind(1)",
                     "tensor_split((1, 2))", "unsafe_split(2)", "unsafe_chunk(2)", "unsafe_split_with_sizes([1, 3])", "view_as(x).split(2)")
    },
    "split, then the base changes": """
x = T.ones(4, requires_grad=True)
y = x * 1
a, b = y.split(2)
y.mul_(2)
a.requires_grad
a * 2
a.grad_fn
b.view(1, 2)
y
a.detach(), a._version
""",
    "split, then a sibling under no_grad changes": """
x = T.ones(4, requires_grad=True)
y = x * 1
a, b = y.split(2)
with T.no_grad():
    a.mul_(2)
a * 1
b.sum().backward()
x.grad
""",
    "split of a constant": """
c = T.zeros(4)
a, b = c.split(2)
a.add_(1)
w = T.ones(2, requires_grad=True)
a.mul_(w)
c, a, b
c.add_(w.sum())
a.requires_grad
b + 1
""",
    "split of a leaf": """
x = T.ones(4, requires_grad=True)
a, b = x.split(2)
a.add_(1)
a.view(2, 1).add_(1)
x, x._version
""",
    "iterating gives several views": """
x = T.ones(2, 2, requires_grad=True)
y = x * 1
for row in y: row.mul_(2)
y
""",
    "unsafe_split leaves the base alone": """
x = T.ones(4, requires_grad=True)
y = x * 1
a, b = T.unsafe_split(y, 2)
a._is_view(), a._version
a.mul_(2)
a, b, y.requires_grad
(a.sum() + b.sum()).backward()
x.grad
""",
    "leaf and views of it": """
x = T.ones(2, 2, requires_grad=True)
x.add_(1)
x[0].add_(1)
x[0] = 1
x.t().add_(1)
x[0:1][0].zero_()
x.view(-1).copy_(T.zeros(4))
x.detach().add_(1)
x, x._version
x.fill_(3)
x.zero_()
x.t_()
x.unsqueeze_(0)
x.shape, x._version
""",
    "setitem on a leaf": """
x = T.ones(3, requires_grad=True)
x[0] = 2.
x[T.tensor([0])] = 1
x[x > 0] = 1
x[...] = 1
x[:] = T.zeros(3)
x[None] = 5
x[0, ...] = 5
x
""",
    "expanded memory": """
x = T.ones(3, 1, requires_grad=True)
e = x.expand(3, 2)
e.add_(1)
(x * 1).expand(3, 2).mul_(2)
e2 = T.zeros(1).expand(3)
e2.add_(1)
e2[0] = 1
e2.copy_(T.ones(3))
e2.fill_(4)
e2.zero_()
e2
""",
    "changing one row of expanded": """
x = T.ones(3, 1)
e = x.expand(3, 2)
e[0] = 2
x
""",
    "overlapping as_strided": """
x = T.arange(4., requires_grad=True)
y = x * 1
v = y.as_strided((3, 2), (1, 1))
v.sum().backward()
x.grad
v.mul_(2).shape
""",
    "as_strided": """
x = T.arange(6., requires_grad=True)
y = x * 1
v = y.as_strided((2, 2), (3, 1), 1)
v
v.mul_(10)
y, v
y.sum().backward()
x.grad
""",
    "as_strided of a view reaches the storage": """
x = T.arange(6., requires_grad=True)
y = x * 1
v = y[2:]
w = v.as_strided((2,), (1,), 0)
w, w.storage_offset()
w.sum().backward()
x.grad
""",
    "as_strided_": """
x = T.arange(6., requires_grad=True)
y = x * 1
y.as_strided_((2, 2), (3, 1), 1)
y._version, y.grad_fn
y.sum().backward()
x.grad
""",
    "in-place view operators": """
x = T.arange(6., requires_grad=True)
y = (x * 1).view(2, 3).clone()
y.t_().shape, y.grad_fn.name()[:4], y._version
y.unsqueeze_(0).shape, y._version
y.squeeze_(0).shape
y.transpose_(0, 1).shape
y.swapaxes_(0, 1).shape
y.swapdims_(0, 1).shape
y[0].mul_(2)
y
(y * T.arange(6.).view(2, 3)).sum().backward()
x.grad
""",
    "in-place view operators on a view": """
x = T.arange(6., requires_grad=True)
y = x * 1
v = y.view(2, 3)
v.t_()
v, v._is_view(), y
v.grad_fn
v[0].mul_(10)
v, y
y.sum().backward()
x.grad
""",
    "in-place view operators on a view that then changes": """
x = T.arange(4., requires_grad=True)
y = x * 1
v = y.view(2, 2)
u = v[0]
v.transpose_(0, 1)
v.mul_(T.tensor([[1., 2.], [3., 4.]]))
y, v, u
u.sum().backward()
x.grad
""",
    "in-place view operators: old views live": """
x = T.arange(4., requires_grad=True)
y = (x * 1).view(2, 2).clone()
v = y[0]
y.t_()
v.detach(), y
y.mul_(T.tensor([[1., 2.], [3., 4.]]))
v, y
(v * T.tensor([1., 10.])).sum().backward()
x.grad
""",
    "in-place view operators on several views": """
x = T.ones(4, 4, requires_grad=True)
y = x * 1
a, b = y.split(2)
a.t_()
a.shape
a.unsqueeze_(0)
with T.no_grad():
    v = y[0]
v.unsqueeze_(0)
""",
    "in-place view operators on a constant": """
c = T.arange(6.).view(2, 3)
b = c._base
c.t_().shape, c._is_view(), c._version, b._version
c.mul_(T.ones(1, requires_grad=True))
b
""",
    "squeeze_ and unsqueeze_ wrong": """
y = T.ones(2, 3, requires_grad=True) * 1
y.unsqueeze_(5)
y.t().t_()
y.transpose_(0, 7)
y.shape, y._version, y.grad_fn
""",
    "detach shares the version": """
x = T.ones(3, requires_grad=True)
y = x * 2
z = y * y
d = y.detach()
d.add_(1)
y._version, d._version, y
z.sum().backward()
x.grad
""",
    "data has a version of its own": """
x = T.ones(3, requires_grad=True)
y = x * 2
z = y * y
d = y.data
d.add_(1)
y._version, d._version, y, d.requires_grad, d.is_leaf
z.sum().backward()
x.grad
""",
    "detach": """
x = T.ones(3, requires_grad=True)
y = x * 1
d = y.detach()
d._is_view(), d.is_leaf, d.requires_grad, d._base
d.mul_(2)
y
v = d[0]
v._base is d
d.requires_grad_()
d.mul_(2)
y.mul_(2)
d, y
""",
    "detach of a view": """
y = T.ones(4, requires_grad=True) * 1
d = y[:2].detach()
d._is_view(), d._version
d.add_(1)
y, y._version
""",
    "detach_": """
x = T.ones(3, requires_grad=True)
y = x * 1
y.detach_().requires_grad, y.grad_fn, y.is_leaf, y._version
y.add_(1)
v = (x * 1)[0]
v.detach_()
v
T.zeros(3)[0].detach_()
a, b = (x.sum() * T.ones(4)).split(2)
a.detach_()
x.detach_().requires_grad
T.ones(2).detach_()
""",
    "detach_ of a base with views": """
x = T.ones(3, requires_grad=True)
y = x * 1
v = y[:2]
y.detach_()
v, v.requires_grad, y.requires_grad
v.sum().backward()
x.grad
v.mul_(2)
y
""",
    "data setter": """
x = T.ones(3, requires_grad=True)
y = (x * x).sum()
x.data = T.full((2,), 5.)
x, x._version, x.is_leaf
x.data = T.zeros(2, dtype=T.int64)
x.data = 3
x.data = None
x
v = T.zeros(4)[1:3]
v.data = T.ones(7)
v, v._is_view()
x.data = T.ones(2, dtype=T.float64)
x.dtype
""",
    "data setter shares memory, not versions": """
a, b = T.zeros(3), T.ones(3)
v = a._version
a.data = b
a.add_(1)
b, b._version, a._version
""",
    "data of a view": """
b = T.zeros(4)
v = b[:2]
v.data.add_(1)
b, b._version, v.data._is_view()
v.data = T.full((2,), 9.)
v, b
""",
    "set_": """
x = T.zeros(3)
y = T.ones(4)
x.set_(y)
x, x._version, y._version
x.add_(1)
y, y._version, x._version
x.set_()
z = T.ones(3, requires_grad=True)
z.set_(y)
with T.no_grad():
    w = T.ones(3, requires_grad=True).set_(y)
w
T.zeros(2).set_(T.zeros(2, dtype=T.int64))
""",
    "set_ on an intermediate": """
z = T.ones(3, requires_grad=True) * 1
z.set_(T.zeros(3))
z.set_(z.detach().untyped_storage(), 0, (2,), (1,))
""",
    "requires_grad_": """
T.ones(2, dtype=T.int64).requires_grad_()
T.ones(2, dtype=T.bool).requires_grad_()
T.ones(2, dtype=T.complex64).requires_grad_().requires_grad
T.ones(2, dtype=T.int64).requires_grad_(False)
x = T.ones(2, requires_grad=True)
y = x * 1
y.requires_grad_().requires_grad
y.requires_grad_(False)
y.requires_grad = False
y.requires_grad = True
x.requires_grad_(False).requires_grad
x.requires_grad = 1
x.requires_grad_(requires_grad=False)
T.zeros(2, requires_grad=True, dtype=T.int32)
T.tensor([1, 2], requires_grad=True)
T.tensor(1.).requires_grad_('a')
""",
    "requires_grad_ on a view of a constant": """
b = T.zeros(4)
v = b[:2]
v.requires_grad_()
b.requires_grad, v.is_leaf, v._is_view()
v.mul_(2)
b.mul_(2)
(v * 3).sum().backward()
v.grad
b[0] = 7
v, b
""",
    "requires_grad_ on a base with views": """
b = T.zeros(4)
v = b[:2]
b.requires_grad_()
v.requires_grad, v.grad_fn, v.is_leaf
v.add_(1)
(v * 2).sum().requires_grad
b[2:].requires_grad
b.requires_grad_(False)
v.requires_grad
v.add_(1)
b
""",
    "is_leaf": """
x = T.ones(2, requires_grad=True)
x.is_leaf, T.ones(2).is_leaf, (x * 2).is_leaf, x.detach().is_leaf, x.view(2).is_leaf, T.ones(2).view(2).is_leaf
y = T.ones(2)
y.add_(x)
y.is_leaf, y.requires_grad
(x > 0).is_leaf, x.argmax().is_leaf, x.to(T.int64).is_leaf
x.clone().is_leaf, x.data.is_leaf
""",
    "versions": """
x = T.zeros(4)
x._version
x.add_(1)._version, x.zero_()._version, x.fill_(2)._version, x.copy_(T.ones(4))._version
x[0] = 1
x[1:] = T.ones(3)
x._version
x[T.tensor([0, 1])] = 3.
x[x > 2] = 0
x._version
x.index_put_((T.tensor([0]),), T.tensor(1.))._version, x.masked_fill_(x > 0, 1)._version
x.uniform_()._version, x.clamp_(0, 1)._version, x.resize_(2)._version, x.detach().add_(1)._version
T.add(x, x, out=x)._version
x += 1
x._version
x.requires_grad_()._version, x.clone()._version, x[0]._version, x.data._version
x.data = T.zeros(2)
x._version
""",
    "gradients assigned": """
x = T.ones(2, requires_grad=True)
x.grad = T.ones(3)
x.grad = T.ones(2, dtype=T.float64)
x.grad = 3
x.grad = x
x.grad = T.ones(2, dtype=T.int64)
x.grad = [1., 2.]
x.grad
x.grad = T.ones(2)
x.grad
x.grad = None
x.grad
del x.grad
x.grad
c = T.ones(2)
c.grad = T.zeros(2)
c.grad
T.ones(2, dtype=T.int64).grad
y = x * 1
y.grad
y.grad = T.ones(2)
y.grad
""",
    "grad_dtype": """
x = T.ones(2, requires_grad=True)
x.grad_dtype
x.grad_dtype = T.float64
x.grad = T.ones(2)
x.grad = T.ones(2, dtype=T.float64)
x.grad.dtype, x.grad_dtype
(x * 2).sum().backward()
x.grad, x.grad.dtype
x.grad_dtype = T.float32
x.grad = None
x.grad_dtype = None
x.grad_dtype
x.grad = T.ones(2, dtype=T.float16)
x.grad.dtype
(x * 1).grad_dtype = T.float64
(x * 1).grad_dtype
T.ones(2).grad_dtype
x.grad_dtype = 3
""",
    "resize_": """
x = T.ones(2, requires_grad=True)
x.resize_(3)
(x * 1).resize_(1)
x.resize_as_(T.ones(3))
y = x * 1
y.resize_(2)
y.shape, y._version
with T.no_grad():
    y.resize_(2)
d = x.detach()
d.resize_(1).shape, x.shape
""",
    "broadcasting errors": """
x = T.ones(3, requires_grad=True) * 1
x.add_(T.ones(2, 3))
x.add_(T.ones(2))
x.copy_(T.ones(2, 3))
x.mul_(T.ones(4))
x[0:2] = T.ones(3)
x.masked_fill_(T.ones(4, dtype=T.bool), 1)
x.masked_fill_(T.ones(3, dtype=T.bool), T.ones(2))
x.index_put_((T.tensor([0]),), T.ones(2))
x.fill_(T.ones(2))
x, x._version
""",
    "out": """
x = T.ones(2, requires_grad=True)
o = T.zeros(2)
T.mul(x, 2, out=o)
T.exp(T.ones(2), out=x)
T.add(o, o, out=x * 1)
with T.no_grad():
    r = T.mul(x, 2, out=o)
r is o, o, o._version
with T.no_grad():
    T.mul(o, 2, out=x)
x, x._version
v = T.zeros(4)
T.mul(o, 2, out=v[:2])
v, v._version
T.mul(o, 2, out=T.zeros(2, dtype=T.int64))
""",
    "saved, then changed": """
x = T.ones(2, requires_grad=True)
y = x * 2
z = y.exp()
s = z.sum()
z.mul_(2)
s.backward()
z.sum().backward()
a = y * 3
b = a.pow(2)
a[0] = 1
b.sum().backward()
c = y[:1]
d = y * y
c.add_(1)
d.sum().backward()
x.grad
""",
    "saved, changed under no_grad": """
x = T.ones(2, requires_grad=True)
w = T.ones(2)
z = (x * w).sum()
with T.no_grad():
    w.add_(1)
z.backward()
l = (x * x).sum()
with T.no_grad():
    x.add_(1)
l.backward()
x.grad
""",
    "not saved, changed": """
x = T.ones(2, requires_grad=True)
y = x * 2
z = y + 1
y.mul_(5)
z.sum().backward()
x.grad
""",
    "overwritten": """
x = T.ones(4, requires_grad=True)
y = x * 2
y.zero_()
y
y[1:3] = x[:2] * 5
y.masked_fill_(T.tensor([True, False, False, False]), 3.)
y.sum().backward()
x.grad
y = x * 2
y[0] = 7
y[1:2].fill_(8)
y.index_fill_(0, T.tensor([2]), 1.)
y
y.sum().backward()
x.grad
""",
    "index_put_": """
x = T.arange(4., requires_grad=True)
v = T.tensor([1., 2.], requires_grad=True)
y = x * 1
y.index_put_((T.tensor([0, 2]),), v)
y
y[1:].index_put_((T.tensor([0, 0]),), v, accumulate=True)
y
y[T.tensor([True, False, False, True])] = v * 2
(y * T.arange(4.)).sum().backward()
x.grad, v.grad
""",
    "masked_scatter_ and friends on a view": """
x = T.arange(6., requires_grad=True)
v = T.tensor([1., 2., 3.], requires_grad=True)
y = (x * 1).view(2, 3)
y[0].masked_scatter_(T.tensor([True, False, True]), v)
y[1].index_add_(0, T.tensor([0, 0, 1]), v)
y.t()[0].scatter_(0, T.tensor([1]), v[:1])
y
(y * T.arange(6.).view(2, 3)).sum().backward()
x.grad, v.grad
""",
    "setitem forms": """
x = T.arange(6., requires_grad=True)
w = T.tensor(2., requires_grad=True)
y = (x * 1).view(2, 3)
y[0, 1] = w
y[..., 2] = w * T.ones(2)
y[1] = y[0]
y[:, None][0] = 3
y[T.tensor([0]), 0] = w
y
(y * T.arange(6.).view(2, 3)).sum().backward()
x.grad, w.grad
""",
    "self-overlap": """
x = T.arange(4., requires_grad=True)
y = x * 1
y[1:].add_(y[:-1])
y[1:].copy_(y[:-1].clone())
y.mul_(y)
y[:2].mul_(y[:2])
y
""",
    "the view's operand is its base": """
x = T.arange(1., 5., requires_grad=True)
y = x * 1
y[:1].mul_(y.sum())
y.mul_(y[0])
y.sum().backward()
y, x.grad
""",
    "augmented assignment": """
x = T.ones(3, requires_grad=True)
y = x * 1
z = y
y += x
y *= 2
y is z, y
y[0] += 5
y[1:] *= x[1:]
y.sum().backward()
x.grad
x += 1
""",
    "second derivatives": """
x = T.tensor([1., 2., 3.], requires_grad=True)
y = x * x
v = y[1:]
v.mul_(x[:2])
y[0] = v[0] * x[2]
g, = T.autograd.grad((y * y).sum(), x, create_graph=True)
g.detach()
T.autograd.grad(g.sum(), x)
""",
    "complex and real views": """
z = T.tensor([1+2j, 3-1j], requires_grad=True)
y = z * 1
r = T.view_as_real(y)
r[:, 0].mul_(2)
y.imag.add_(1)
y, r.detach()
y.real.pow(2).sum().backward()
z.grad
""",
    "bases": """
x = T.ones(4)
x._base, x._is_view()
v = x[1:]
v._base is x, v[1:]._base is x, v.view(3, 1).t()._base is x
x.view(4)._is_view(), x.reshape(2, 2)._is_view(), x.contiguous() is x, x.expand(2, 4)._is_view(), x.flatten()._is_view()
x.clone()._is_view(), x[T.tensor([0])]._is_view(), x.detach()._is_view(), x.data._is_view(), x.t()._is_view(), x.view_as(x)._is_view()
x.diagonal is not None, x.view(2, 2).diagonal()._is_view(), x.unfold(0, 2, 1)._is_view(), x.movedim(0, 0)._is_view()
x.numpy() is not None, x.squeeze()._is_view(), x.unsqueeze(0)._is_view(), x.narrow(0, 1, 2)._is_view(), x.select(0, 0)._is_view()
x.permute(0)._is_view(), T.swapaxes(x.view(2, 2), 0, 1)._is_view(), x.ravel()._is_view(), x.to(T.float32) is x
""",
    "the history of a view, by operator": """
y = T.ones(2, 3, requires_grad=True) * 1
y.view(6), y.t(), y[0], y[:, 1:], y.expand(2, 2, 3)
y.unsqueeze(0), y.permute(1, 0), y.transpose(0, 1), y.select(1, 0), y.narrow(0, 0, 1)
y.split(1), y.unbind(1)
y.diagonal(), y.as_strided((2,), (1,)), y.view_as(y), y.reshape(3, 2), y.squeeze(), y.unfold(0, 1, 1), y[...], y.detach()
views = [y.view(6), y.t(), y[0], y[:, 1:], y.unsqueeze(0), y.diagonal(), y.expand(2, 2, 3)]
y.mul_(2)
views
""",
    "a dead base": """
x = T.ones(4, requires_grad=True)
v = (x * 2)[1:3]
v.mul_(5)
v
v._base is not None
v.sum().backward()
x.grad
""",
    "retain_grad and in-place": """
x = T.ones(3, requires_grad=True)
y = x * 2
y.retain_grad()
y.mul_(3)
y.retains_grad
y.sum().backward()
y.grad, x.grad
""",
    "retain_grad and a changed view": """
x = T.ones(3, requires_grad=True)
y = x * 2
y.retain_grad()
v = y[:1]
v.retain_grad()
v.mul_(3)
(y * T.tensor([1., 2., 3.])).sum().backward()
y.grad, x.grad, v.grad
""",
    "retain_grad of a view, base changed": """
x = T.ones(3, requires_grad=True)
y = x * 2
v = y[:2]
v.retain_grad()
y.mul_(3)
v.sum().backward()
v.grad, x.grad
""",
    "hooks and in-place": """
x = T.ones(3, requires_grad=True)
y = x * 2
seen = []
h = y.register_hook(lambda g: seen.append(g.tolist()))
y.mul_(3)
h2 = y.register_hook(lambda g: seen.append(('new', g.tolist())))
y.sum().backward()
seen
""",
    "hooks of a leaf that took a history": """
b = T.zeros(3)
b.requires_grad_()
seen = []
h = b.register_hook(lambda g: seen.append(g.tolist()))
b.requires_grad_(False)
b.mul_(T.ones(3, requires_grad=True))
b.sum().backward()
seen
""",
    "grad of a leaf through no_grad changes": """
p = T.ones(3, requires_grad=True)
for _ in range(2):
    (p * p).sum().backward()
    with T.no_grad():
        p -= 0.1 * p.grad
        p.grad.zero_()
p, p.grad, p._version
""",
    "unsafe_preserve_version_counter": """
x = T.ones(2, requires_grad=True)
w = T.ones(2)
y = (x * w).sum()
with T.autograd._unsafe_preserve_version_counter(w):
    w.mul_(3)
w._version
y.backward()
x.grad
with T.autograd.grad_mode._unsafe_preserve_version_counter((w, x)):
    w.mul_(3)
w._version
T.autograd.graph.increment_version(w)
w._version
T.autograd.graph.increment_version([w, x])
w._version, x._version
""",
    "not differentiable in place": """
x = T.ones(3, requires_grad=True)
y = x * 1
y.round_()
y
y.floor_().sum().backward()
x.grad
y = x * 1
y.bernoulli_(1.)
y.normal_().grad_fn
y.uniform_().grad_fn
""",
    "eq_ and logical": """
y = T.ones(3, requires_grad=True) * 1
y.eq_(1)
y.requires_grad
""",
    "integer results": """
i = T.zeros(3, dtype=T.int64)
x = T.ones(3, requires_grad=True)
i.copy_(x)
i.add_(x)
i.requires_grad, i
""",
    "dtype of a copy": """
h = T.zeros(2, dtype=T.float64)
x = T.ones(2, requires_grad=True)
h.copy_(x)
h
h.sum().backward()
x.grad, x.grad.dtype
""",
    "zero elements": """
x = T.ones(0, 3, requires_grad=True)
y = x * 1
y[:, 1:].mul_(2)
y
y.sum().backward()
x.grad.shape
""",
    "force_original_view_tracking": """
x = T.arange(6., requires_grad=True)
y = x * 1
with T.autograd._force_original_view_tracking(True):
    v = y.view(2, 3)
v.mul_(2).shape
v.sum().backward()
x.grad
""",
    "freed with views": """
x = T.ones(3, requires_grad=True)
y = x * 2
v = y[:2]
v.mul_(y[1:])
""",
    "views of changed views under no_grad then outside": """
x = T.ones(4, requires_grad=True)
y = x * 1
v = y[:2]
with T.no_grad():
    u = v[0]
v.mul_(2)
u + 1
u.mul_(3)
with T.no_grad():
    u.mul_(3)
y
""",
    "view made inside no_grad of a split": """
x = T.ones(4, requires_grad=True)
y = x * 1
with T.no_grad():
    a, b = y.split(2)
a.mul_(2)
y.mul_(2)
a * 1
""",
    "enable_grad inside no_grad": """
x = T.ones(4, requires_grad=True)
with T.no_grad():
    with T.enable_grad():
        y = x * 1
        v = y[:2]
    v.mul_(3)
    w = v[:1]
v.detach()
w.mul_(2)
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
