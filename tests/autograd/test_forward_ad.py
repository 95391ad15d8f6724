"""Dual numbers: make_dual, unpack_dual, levels; what carries tangents, and what ends them."""

import gc
import weakref

import pytest

import flambeau as torch
import flambeau.autograd.forward_ad as fw
from flambeau.autograd.graph import saved_tensors_hooks
from flambeau.core.modes import mode


def dual(values, tangent, **kwargs):
    return fw.make_dual(torch.tensor(values, **kwargs), torch.tensor(tangent))


def tangent(t):
    found = fw.unpack_dual(t).tangent
    return None if found is None else found.tolist()


def test_a_product():
    with fw.dual_level():
        x = dual([2.0, 3.0], [1.0, 10.0])
        assert tangent(x * x) == [4.0, 60.0]


def test_the_primal_is_a_view_without_a_tangent():
    with fw.dual_level():
        x = torch.ones(2)
        p, t = fw.unpack_dual(fw.make_dual(x, torch.ones(2)))
        p.mul_(3)
        assert x.tolist() == [3.0, 3.0] and t.tolist() == [1.0, 1.0] and tangent(p) is None and tangent(x) is None


def test_outside_a_level_there_are_no_tangents():
    assert fw.unpack_dual(torch.ones(1)).tangent is None


def test_as_a_decorator():
    @fw.dual_level()
    def slope(x):
        return tangent(fw.make_dual(x, x) ** 2)

    assert slope(torch.tensor(3.0)) == 18.0


OPERATIONS = {
    "detach": (lambda d: d.detach(), None),
    "data": (lambda d: d.data, None),
    "clone": (lambda d: d.clone(), [1.0, 2.0]),
    "double": (lambda d: d.double(), [1.0, 2.0]),
    "int": (lambda d: d.int(), None),
    "compare": (lambda d: d > 0, None),
    "view": (lambda d: d.view(2, 1), [[1.0], [2.0]]),
    "an element": (lambda d: d[1], 2.0),
    "requires_grad_": (lambda d: d.requires_grad_(), [1.0, 2.0]),
    "a flat function": (lambda d: d.round(), [0.0, 0.0]),
    "zeros_like": (lambda d: torch.zeros_like(d), None),
    "detach_": (lambda d: d.clone().detach_(), None),
    "under no_grad": (lambda d: torch.no_grad()(lambda: d * 3)(), [3.0, 6.0]),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations(name):
    fn, expected = OPERATIONS[name]
    with fw.dual_level():
        assert tangent(fn(dual([1.5, 2.5], [1.0, 2.0]))) == expected


def test_switched_off():
    with fw.dual_level():
        d = dual([1.0], [1.0])
        with fw._set_fwd_grad_enabled(False):
            assert tangent(d * 2) is None and not fw._is_fwd_grad_enabled()
        assert tangent(d * 2) == [2.0] and fw._is_fwd_grad_enabled()


# ---- in place ------------------------------------------------------------------------------------------------------
def test_a_view_of_a_dual_changes_it():
    with fw.dual_level():
        d = dual([[1.0, 1.0], [1.0, 1.0]], [[1.0, 2.0], [3.0, 4.0]])
        row = d[0]
        row.mul_(3)
        assert tangent(d) == [[3.0, 6.0], [3.0, 4.0]] and tangent(row) == [3.0, 6.0]
        d.zero_()
        assert tangent(row) == [0.0, 0.0]


@pytest.mark.parametrize("layout", ["dense", "transposed", "with gaps"])
def test_a_dual_written_into_a_view(layout):
    base = {"dense": torch.zeros(3, 2), "transposed": torch.zeros(2, 3).t() * 1.0, "with gaps": torch.zeros(3, 4)[:, ::2].detach()}[layout]
    with fw.dual_level():
        row, column = base[1], base[:, 0]
        row.copy_(dual([1.0, 2.0], [5.0, 6.0]))
        assert tangent(base) == [[0.0, 0.0], [5.0, 6.0], [0.0, 0.0]] and tangent(column) == [0.0, 5.0, 0.0]
        base.fill_(2)
        assert tangent(row) == [0.0, 0.0]


def test_a_change_leaves_the_operand_alone():
    with fw.dual_level():
        d = dual([1.0], [2.0])
        (d + 0).mul_(5)
        assert tangent(d) == [2.0]


# ---- together with reverse mode -----------------------------------------------------------------------------------------
HOOKS = {"none": None, "the tensor itself": (lambda t: t, lambda t: t), "copies": (lambda t: t.clone(), lambda t: t * 1)}


@pytest.mark.parametrize("hooks", HOOKS)
@pytest.mark.parametrize("fn", ["exp", "sin", "tanh", "softmax", "sort"])
def test_gradients_have_tangents(fn, hooks):
    """Forward over reverse, whoever keeps what was saved."""
    f = {"softmax": lambda x: x.softmax(0), "sort": lambda x: x.sort().values ** 2}.get(fn, lambda x: getattr(x, fn)())
    weights = torch.tensor([1.0, 3.0])
    x = torch.tensor([0.5, 0.2], requires_grad=True)
    with fw.dual_level():
        d = fw.make_dual(x, torch.tensor([1.0, -1.0]))
        if HOOKS[hooks] is None:
            y = f(d)
        else:
            with saved_tensors_hooks(*HOOKS[hooks]):
                y = f(d)
        (g,) = torch.autograd.grad((y * weights).sum(), x, create_graph=True)
        found = fw.unpack_dual(g).tangent
    hessian = torch.func.hessian(lambda x: (f(x) * weights).sum())(x.detach())
    assert torch.allclose(found, hessian @ torch.tensor([1.0, -1.0]), atol=1e-6)


def test_checkpoint():
    from flambeau.utils.checkpoint import checkpoint

    x = torch.tensor([0.5, 0.2], requires_grad=True)
    with fw.dual_level():
        d = fw.make_dual(x, torch.ones(2))
        (g,) = torch.autograd.grad(checkpoint(lambda a: a.exp().tanh(), d, use_reentrant=False).sum(), x, create_graph=True)
        (plain,) = torch.autograd.grad(d.exp().tanh().sum(), x, create_graph=True)
        assert tangent(g) == tangent(plain) is not None


def test_a_third_derivative_of_three_sorts():
    x = torch.tensor(0.7, requires_grad=True)
    with fw.dual_level():
        d = fw.make_dual(x, torch.tensor(1.0))
        (g,) = torch.autograd.grad(d.sin(), x, create_graph=True)
        second = fw.unpack_dual(g).tangent
        (third,) = torch.autograd.grad(second, x)
    assert torch.allclose(third, -x.detach().cos())


# ---- the end of a level ---------------------------------------------------------------------------------------------------
def test_tangents_end_with_their_level():
    with fw.dual_level():
        y = dual([1.0], [1.0]) * 2
    with fw.dual_level():
        assert tangent(y) is None
    assert "tangent" not in repr(y)


@pytest.mark.parametrize("fails", [False, True])
def test_nothing_stays_alive(fails):
    gc.collect()
    gc.disable()
    try:
        x = torch.tensor([0.1, 0.2], requires_grad=True)
        refs = []
        try:
            with fw.dual_level():
                t = torch.ones(2)
                y = fw.make_dual(x, t).exp().softmax(0) * 2
                y[1:].mul_(2)
                (g,) = torch.autograd.grad(y[0], x, create_graph=True)
                refs = [weakref.ref(o) for o in (t, y, g, y._fw, fw.unpack_dual(g).tangent)]
                if fails:
                    raise ValueError
        except ValueError:
            pass
        del t, y, g
        assert [r() for r in refs] == [None] * len(refs)
        assert mode() is True
    finally:
        gc.enable()


def test_repr():
    with fw.dual_level():
        assert repr(dual([1.0, 2.0], [3.0, 4.0])) == "tensor([1., 2.], tangent=tensor([3., 4.]))"


# ---- errors ----------------------------------------------------------------------------------------------------------
def inside(fn):
    def run():
        with fw.dual_level():
            fn()

    return run


ERRORS = {
    "no level": (lambda: fw.make_dual(torch.ones(1), torch.ones(1)), "Trying to create a dual Tensor for forward AD but no level exists"),
    "nested": (inside(lambda: fw.enter_dual_level()), "Nested forward mode AD is not supported at the moment"),
    "left too often": (fw.exit_dual_level, "Dual level must be a positive number."),
    "another level": (inside(lambda: fw.exit_dual_level(level=1)), "Trying to exit a forward AD level that was not the last one"),
    "shapes": (inside(lambda: dual([1.0], [1.0, 2.0])), "Trying to set a forward gradient that has a different size than that of the original"),
    "integers": (inside(lambda: dual([1], [1.0])), "Expected primal to be floating point or complex, but got: torch.int64"),
    "an integer tangent": (inside(lambda: dual([1.0], [1])), "Expected tangent to be floating point or complex, but got: torch.int64"),
    "twice": (inside(lambda: fw.make_dual(dual([1.0], [1.0]), torch.ones(1))), "already has a forward gradient at the same level 0"),
    "a dual tangent": (inside(lambda: fw.make_dual(torch.ones(1), dual([1.0], [1.0]))), "itself has a forward gradient at the same level0"),
    "out=": (inside(lambda: torch.add(dual([1.0], [1.0]), 1, out=torch.ones(1))), "Trying to use forward AD with add_out that does not support it"),
    "into a dual": (inside(lambda: torch.add(torch.ones(1), 1, out=dual([1.0], [1.0]))), "because it is an out= function"),
    "resize_": (inside(lambda: dual([1.0], [1.0]).resize_(3)), "cannot resize variables that has a forward grad"),
    "set_": (inside(lambda: dual([1.0], [1.0]).set_(torch.ones(1))), "Trying to use forward AD with set_"),
    "no tensor": (inside(lambda: fw.unpack_dual(3)), "must be Tensor, not int"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name):
    fn, phrase = ERRORS[name]
    with pytest.raises((RuntimeError, ValueError, TypeError), match=".*") as caught:
        fn()
    assert phrase in str(caught.value)
    assert mode() is True and not fw._levels
