"""Black boxes, differentiated by central differences."""

import numpy as np
import pytest

import flambeau as torch
import flambeau.autograd.forward_ad as fw
from flambeau.autograd import finite_difference

F64 = torch.float64


def numpy(fn):
    """A function of tensors that computes with NumPy."""

    def box(*args):
        out = fn(*[a.numpy() if isinstance(a, torch.Tensor) else a for a in args])
        if isinstance(out, tuple):
            return tuple(torch.from_numpy(np.asarray(o)) for o in out)
        return torch.from_numpy(np.asarray(out))

    return box


# what the box computes, the same in differentiable operators, its arguments
BOXES = {
    "elementwise": (np.sin, torch.sin, [torch.linspace(-3, 3, 5)]),
    "0-d": (np.exp, torch.exp, [torch.tensor(1.5)]),
    "sum": (np.sum, torch.sum, [torch.linspace(1, 2, 4).reshape(2, 2)]),
    "norm": (lambda x: np.sqrt((x * x).sum()), lambda x: (x * x).sum().sqrt(), [torch.linspace(1, 2, 4)]),
    "matrix product": (np.matmul, torch.matmul, [torch.linspace(-1, 1, 6).reshape(2, 3), torch.linspace(0, 3, 6).reshape(3, 2)]),
    "two outputs": (
        lambda x, y: (x * y, np.cos(x).sum()), lambda x, y: (x * y, torch.cos(x).sum()), [torch.linspace(0, 1, 3), torch.linspace(2, 5, 3)],
    ),
    "a number beside": (lambda x, k: x**k, lambda x, k: x**k, [torch.linspace(1, 2, 3), 3]),
    "large": (lambda x: x**2, lambda x: x**2, [torch.tensor([1e4, -3e5, 0.0])]),
    "empty": (lambda x: x * 2, lambda x: x * 2, [torch.ones(0)]),
    "constant": (lambda x: np.ones(3) + 0 * x.sum(), lambda x: torch.ones(3).to(x.dtype) + 0 * x.sum(), [torch.ones(2)]),
}  # fmt: skip
TOLERANCE = {torch.float64: 1e-8, torch.float32: 2e-3}


def cast(args, dtype):
    return [a.to(dtype) if isinstance(a, torch.Tensor) else a for a in args]


def as_tuple(x):
    return x if isinstance(x, tuple) else (x,)


def close(a, b, dtype):
    scale = max(1.0, float(np.abs(b.detach().numpy()).max(initial=0)))
    return a.dtype is b.dtype and a.shape == b.shape and bool(np.all(np.abs((a - b).detach().numpy()) <= TOLERANCE[dtype] * scale))


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("name", BOXES)
def test_values_and_both_modes(name, dtype):
    computed, known, args = BOXES[name]
    box = finite_difference(numpy(lambda *a: in_dtype(computed(*a), dtype)))
    args = cast(args, dtype)
    tensors = [a for a in args if isinstance(a, torch.Tensor)]

    def both(f):
        leaves = [a.clone().requires_grad_() if isinstance(a, torch.Tensor) else a for a in args]
        outs = as_tuple(f(*leaves))
        total = sum([(o * torch.linspace(1, 2, max(o.numel(), 1), dtype=dtype)[: o.numel()].reshape(o.shape)).sum() for o in outs])
        gs = torch.autograd.grad(total, [x for x in leaves if isinstance(x, torch.Tensor)])
        with fw.dual_level():
            duals = [fw.make_dual(a, torch.cos(a) + 2) if isinstance(a, torch.Tensor) else a for a in args]
            ts = [fw.unpack_dual(o).tangent for o in as_tuple(f(*duals))]
        return outs, gs, ts

    ours, expected = both(box), both(known)
    for found, right in zip(ours, expected):
        assert len(found) == len(right)
        assert all(close(a, b, dtype) for a, b in zip(found, right)), (found, right)
    assert len(tensors) == len(ours[1])


def in_dtype(out, dtype):
    as_dtype = np.dtype(str(dtype).split(".")[1])
    return tuple(np.asarray(o, as_dtype) for o in out) if isinstance(out, tuple) else np.asarray(out, as_dtype)


@pytest.mark.parametrize(("dtype", "promised"), [(torch.float64, 4e-11), (torch.float32, 2e-5), (torch.float16, 1e-2)], ids=str)
def test_accuracy_that_the_text_promises(dtype, promised):
    x = torch.linspace(0.5, 1.5, 20, dtype=torch.float64).to(dtype).requires_grad_()
    finite_difference(lambda x: torch.exp(x.double()).to(dtype))(x).sum().backward()
    exact = np.exp(x.detach().numpy().astype(np.float64))
    error = np.abs(x.grad.numpy().astype(np.float64) / exact - 1)
    assert np.sqrt(np.mean(error**2)) < 2 * promised


def test_complex_values():
    z = torch.tensor([1 + 2j, -0.5j], dtype=torch.complex128)
    for known, box in ((torch.abs, np.abs), (lambda z: z * z.conj() + z, lambda z: z * z.conj() + z), (torch.exp, np.exp)):
        found = []
        for f in (known, finite_difference(numpy(box))):
            x = z.clone().requires_grad_()
            (f(x).abs() ** 2).sum().backward()
            with fw.dual_level():
                t = fw.unpack_dual(f(fw.make_dual(z, z * 1j + 1))).tangent
            found.append([x.grad, t])
        assert all(torch.allclose(a, b, atol=1e-7) for a, b in zip(*found))


def test_gradcheck():
    x = torch.linspace(-1, 1, 4, dtype=F64).requires_grad_()
    assert torch.autograd.gradcheck(finite_difference(numpy(lambda x: np.cumsum(np.tanh(x)))), (x,), check_forward_ad=True)


def test_how_often_the_box_is_called():
    calls = []

    def box(x, y):
        calls.append(1)
        return x.sum() * y

    x, y = torch.ones(5, dtype=F64, requires_grad=True), torch.ones(2, dtype=F64)
    out = finite_difference(box)(x, y)
    assert len(calls) == 1
    out.sum().backward()
    assert len(calls) == 1 + 2 * 5  # y wants none
    with fw.dual_level():
        finite_difference(box)(fw.make_dual(x.detach(), x.detach()), y)
    assert len(calls) == 11 + 1 + 2


def test_given_step():
    rough = finite_difference(numpy(lambda x: np.floor(x * 10) / 10), eps=1.0)
    x = torch.tensor([0.33], dtype=F64, requires_grad=True)
    rough(x).backward()
    assert abs(x.grad.item() - 1) < 0.1


def test_nothing_of_the_callers_is_changed():
    def box(x):
        x.mul_(2)
        return x

    x = torch.ones(3, dtype=F64, requires_grad=True)
    y = finite_difference(box)(x)
    y.sum().backward()
    assert x.tolist() == [1, 1, 1] and y.tolist() == [2, 2, 2] and torch.allclose(x.grad, torch.full((3,), 2.0, dtype=F64))


def test_keyword_and_other_arguments():
    box = finite_difference(lambda x, *, k, words, y: x * k * len(words) + y)
    x, y = torch.ones(2, dtype=F64, requires_grad=True), torch.ones(2, dtype=F64, requires_grad=True)
    box(x, y=y, words=["a", "b"], k=3).sum().backward()
    assert torch.allclose(x.grad, torch.full((2,), 6.0, dtype=F64)) and torch.allclose(y.grad, torch.ones(2, dtype=F64))


def test_integer_outputs_have_no_gradient():
    values, index = finite_difference(lambda x: (x.max(), x.argmax()))(x := torch.tensor([1.0, 3.0], requires_grad=True))
    values.backward()
    assert not index.requires_grad and torch.allclose(x.grad, torch.tensor([0.0, 1.0]))


def test_under_vmap():
    box = finite_difference(numpy(lambda x, k: np.cumsum(x**2) * k))
    x = torch.arange(6.0, dtype=F64).reshape(3, 2).requires_grad_()
    y = torch.vmap(box, in_dims=(0, None))(x, 2)
    assert torch.allclose(y, 2 * (x * x).cumsum(1))
    y.sum().backward()
    assert torch.allclose(x.grad, 4 * x * torch.tensor([2.0, 1.0], dtype=F64))


def test_batched_gradients():
    """The box is called no more often for many gradients than for one."""
    calls = []

    def box(z):
        calls.append(1)
        return torch.from_numpy(np.stack([(abs(z.numpy()) ** 2).sum(), (z.numpy() ** 2).real.sum()]))

    z = torch.tensor([1 + 2j, 3 - 1j], dtype=torch.complex128)
    pull, eye = torch.func.vjp(finite_difference(box), z)[1], torch.eye(2, dtype=F64)
    found = torch.vmap(lambda g: pull(g)[0])(eye)
    assert len(calls) == 1 + 4 * 2
    known = torch.func.vjp(lambda z: torch.stack([(z.abs() ** 2).sum(), (z * z).real.sum()]), z)[1]
    assert torch.allclose(found, torch.vmap(lambda g: known(g)[0])(eye))
    rows = torch.arange(6.0, dtype=F64).reshape(3, 2)
    each = torch.vmap(torch.func.jacrev(finite_difference(numpy(lambda x: np.cumsum(x**2)))))(rows)
    assert torch.allclose(each, torch.tensor([[1.0, 0.0], [1.0, 1.0]], dtype=F64) * 2 * rows[:, None])


SQUARE = finite_difference(lambda x: x * x)


def ask_in_reverse(x):
    (g,) = torch.autograd.grad(SQUARE(x).sum(), x, create_graph=True)
    return torch.autograd.grad(g.sum(), x)


def reverse_of_forward(x):
    with fw.dual_level():
        t = fw.unpack_dual(SQUARE(fw.make_dual(x, torch.ones_like(x)))).tangent
        return torch.autograd.grad(t.sum(), x)


@pytest.mark.parametrize(
    "ask",
    [
        ask_in_reverse,
        reverse_of_forward,
        lambda x: torch.func.jvp(torch.func.grad(lambda x: SQUARE(x).sum()), (x.detach(),), (x.detach(),)),
        lambda x: torch.func.jvp(lambda x: torch.func.jvp(SQUARE, (x,), (x,))[1], (x.detach(),), (x.detach(),)),
        lambda x: torch.func.hessian(lambda x: SQUARE(x).sum())(x.detach()),
        lambda x: torch.func.jacrev(torch.func.jacrev(lambda x: SQUARE(x).sum()))(x.detach()),
        lambda x: torch.vmap(torch.func.grad(torch.func.grad(SQUARE)))(x.detach()),
        lambda x: torch.func.jvp(torch.vmap(torch.func.grad(SQUARE)), (x.detach(),), (x.detach(),)),
    ],
    ids=[
        "reverse of reverse", "reverse of forward", "forward of reverse", "forward of forward", "hessian", "jacrev of jacrev", "in vmap",
        "around vmap",
    ],  # fmt: skip
)
def test_second_derivatives_are_refused(ask):
    with pytest.raises(RuntimeError, match="finite_difference gives first derivatives only"):
        ask(torch.ones(2, dtype=F64, requires_grad=True))


@pytest.mark.parametrize(
    ("kind", "message", "call"),
    [
        (TypeError, "argument 1 is of dtype torch.int64, which has no derivative", lambda: SQUARE(torch.ones(1), torch.ones(1).long())),
        (TypeError, "argument 'k' is of dtype torch.bool", lambda: SQUARE(torch.ones(1), k=torch.ones(1) > 0)),
        (TypeError, "expects a function, got int", lambda: finite_difference(3)),
        (ValueError, "eps must be positive, got -1", lambda: finite_difference(abs, eps=-1)),
        (TypeError, "must return a Tensor or a tuple of Tensors, got ndarray", lambda: finite_difference(lambda x: x.numpy())(torch.ones(1))),
        (TypeError, "must return a Tensor or a tuple of Tensors, got list", lambda: finite_difference(lambda x: [x])(torch.ones(1))),
    ],
)
def test_errors(kind, message, call):
    with pytest.raises(kind, match=message.replace("(", r"\(")):
        call()


def test_a_shape_that_depends_on_the_values():
    box = finite_difference(lambda x: x[x > 1])
    y = box(torch.tensor([1.0, 2.0], requires_grad=True))
    with pytest.raises(RuntimeError, match=r"other shapes for slightly different arguments: \[\[2\]\], and \[\[1\]\] before"):
        y.sum().backward()
