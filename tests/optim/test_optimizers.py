"""Optimisers: one step against the formula, options, state_dict, hooks, errors."""

import copy
import pickle

import numpy as np
import pytest

import flambeau as fl
from flambeau import optim


def leaf(*values, dtype=None):
    return fl.tensor(list(values), dtype=dtype or fl.float64).requires_grad_()


def with_grad(p, *grad):
    p.grad = fl.tensor(list(grad), dtype=p.dtype)
    return p


P, G = np.array([1.0, -2.0, 3.0]), np.array([0.5, 0.25, -1.0])
EXPECTED = {
    "SGD": ({"lr": 0.1}, P - 0.1 * G),
    "Adam": ({"lr": 0.1}, P - 0.1 * np.sign(G)),
    "AdamW": ({"lr": 0.1, "weight_decay": 0.5}, P * (1 - 0.05) - 0.1 * np.sign(G)),
    "RMSprop": ({"lr": 0.1, "alpha": 0.75}, P - 0.1 * G / (np.sqrt(0.25 * G**2) + 1e-8)),
    "Adagrad": ({"lr": 0.1}, P - 0.1 * np.sign(G)),
    "Adadelta": ({}, P - np.sqrt(1e-6) / np.sqrt(0.1 * G**2 + 1e-6) * G),
    "Adamax": ({"lr": 0.1}, P - 0.1 * np.sign(G)),
    "RAdam": ({"lr": 0.1}, P - 0.1 * G),
    "Rprop": ({"lr": 0.1}, P - 0.1 * np.sign(G)),
    "ASGD": ({"lr": 0.1, "lambd": 0.01}, P * (1 - 0.001) - 0.1 * G),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_first_step_is_the_formula(name):
    options, expected = EXPECTED[name]
    p = with_grad(leaf(*P), *G)
    getattr(optim, name)([p], **options).step()
    np.testing.assert_allclose(p.detach().numpy(), expected, rtol=1e-6)


def test_momentum_and_nesterov_by_hand():
    p, q = with_grad(leaf(1.0), 1.0), with_grad(leaf(1.0), 1.0)
    a = optim.SGD([p], lr=0.1, momentum=0.5, dampening=0.5)
    b = optim.SGD([q], lr=0.1, momentum=0.5, nesterov=True)
    for _ in range(2):
        a.step()
        b.step()
    assert p.item() == pytest.approx(1 - 0.1 * 1 - 0.1 * (0.5 + 0.5))
    assert q.item() == pytest.approx(1 - 0.1 * 1.5 - 0.1 * (1 + 0.5 * 1.5))


@pytest.mark.parametrize("name", sorted({*EXPECTED, "NAdam"}))
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16", "complex64"])
def test_a_quadratic_goes_down_in_every_dtype(name, dtype):
    p = fl.tensor([1.0, -2.0], dtype=getattr(fl, dtype)).requires_grad_()
    opt = getattr(optim, name)([p], lr=10.0 if name == "Adadelta" else 0.05)
    before = p.detach().clone()
    for _ in range(3):
        p.grad = p.detach().clone()
        opt.step()
    assert p.dtype == getattr(fl, dtype)
    assert float(p.detach().abs().sum()) < float(before.abs().sum())


def test_maximize_and_weight_decay():
    p = with_grad(leaf(1.0), 1.0)
    optim.SGD([p], lr=0.1, maximize=True).step()
    assert p.item() == pytest.approx(1.1)
    q = with_grad(leaf(2.0), 0.0)
    optim.SGD([q], lr=0.1, weight_decay=0.5).step()
    assert q.item() == pytest.approx(1.9)


def test_parameters_without_gradients_are_left_alone():
    p, q = with_grad(leaf(1.0), 1.0), leaf(1.0)
    opt = optim.Adam([p, q])
    opt.step()
    assert q.item() == 1.0 and q not in opt.state


def test_a_step_counts_as_a_change_in_place():
    p = with_grad(leaf(1.0), 1.0)
    before = p._version
    optim.SGD([p], lr=0.1).step()
    assert p._version == before + 1


def test_a_transposed_gradient_is_read_by_its_strides():
    p = fl.zeros(40, 60).requires_grad_()
    p.grad = fl.arange(2400.0).reshape(60, 40).t()
    optim.SGD([p], lr=1.0).step()
    np.testing.assert_array_equal(p.detach().numpy(), -np.arange(2400.0).reshape(60, 40).T)


def test_closure_runs_with_grad_and_gives_the_loss():
    p = leaf(1.0)
    opt = optim.SGD([p], lr=0.1)

    def closure():
        opt.zero_grad()
        loss = (p * p).sum()
        loss.backward()
        return loss

    with fl.no_grad():
        assert opt.step(closure).item() == 1.0
    assert p.item() == pytest.approx(0.8)


def test_zero_grad():
    p = with_grad(leaf(1.0), 1.0)
    opt = optim.SGD([p], lr=0.1)
    opt.zero_grad(set_to_none=False)
    assert p.grad.item() == 0.0
    opt.zero_grad()
    assert p.grad is None


@pytest.mark.parametrize("name", sorted({*EXPECTED, "NAdam"}))
def test_a_resumed_run_gives_the_same_numbers(name):
    def run(steps, opt, p):
        for k in range(*steps):
            p.grad = fl.tensor([0.1 * k, -1.0 + 0.2 * k], dtype=p.dtype)
            opt.step()

    p = leaf(1.0, 2.0)
    opt = getattr(optim, name)([p], lr=0.1)
    run((0, 4), opt, p)
    saved, values = copy.deepcopy(opt.state_dict()), p.detach().clone()
    run((4, 8), opt, p)
    q = values.requires_grad_()
    again = getattr(optim, name)([q], lr=5.0)
    again.load_state_dict(saved)
    run((4, 8), again, q)
    # scalars of the state are float32 until a load casts them to the parameter's dtype, as in PyTorch
    np.testing.assert_allclose(p.detach().numpy(), q.detach().numpy(), rtol=1e-7)


def test_groups_names_and_repr():
    p, q = leaf(1.0), leaf(2.0)
    opt = optim.SGD([{"params": [("a", p)]}, {"params": [("b", q)], "lr": 0.5}], lr=0.1)
    assert [g["lr"] for g in opt.param_groups] == [0.1, 0.5]
    assert opt.state_dict()["param_groups"][1]["param_names"] == ["b"]
    assert repr(opt).startswith("SGD (\nParameter Group 0\n    dampening: 0\n")
    r = leaf(3.0)
    opt.add_param_group({"params": [("c", r)]})
    assert len(opt.param_groups) == 3


def test_hooks():
    seen = []
    p = with_grad(leaf(1.0), 1.0)
    opt = optim.SGD([p], lr=0.1)
    opt.register_step_pre_hook(lambda o, args, kwargs: seen.append("pre"))
    handle = opt.register_step_post_hook(lambda o, args, kwargs: seen.append("post"))
    opt.register_state_dict_post_hook(lambda o, d: {**d, "extra": 1})
    opt.step()
    handle.remove()
    opt.step()
    assert seen == ["pre", "post", "pre"] and opt.state_dict()["extra"] == 1


def test_pickling():
    p = with_grad(leaf(1.0), 1.0)
    opt = optim.Adam([p], lr=0.1)
    opt.step()
    again = pickle.loads(pickle.dumps(opt))
    q = again.param_groups[0]["params"][0]
    assert q.item() == p.item() and float(again.state[q]["step"]) == 1.0


BAD = [
    (ValueError, "optimizer got an empty parameter list", lambda: optim.SGD([], lr=0.1)),
    (TypeError, "params argument given to the optimizer should be an iterable", lambda: optim.SGD(leaf(1.0), lr=0.1)),
    (ValueError, "can't optimize a non-leaf Tensor", lambda: optim.SGD([leaf(1.0) * 2], lr=0.1)),
    (ValueError, "Invalid learning rate: -1", lambda: optim.Adam([leaf(1.0)], lr=-1)),
    (ValueError, "Invalid beta parameter at index 0: 1.0", lambda: optim.Adam([leaf(1.0)], betas=(1.0, 0.9))),
    (ValueError, "Nesterov momentum requires a momentum", lambda: optim.SGD([leaf(1.0)], lr=0.1, nesterov=True)),
    (TypeError, "optimizer can only optimize Tensors, but one of the params is int", lambda: optim.SGD([1], lr=0.1)),
    (TypeError, "optimizer parameters need to be organized in ordered", lambda: optim.SGD([{"params": {1}}], lr=0.1)),
    (NotImplementedError, "differentiable", lambda: optim.Adam([leaf(1.0)], differentiable=True)),
    (NotImplementedError, "SparseAdam", lambda: optim.SparseAdam([leaf(1.0)])),
]


@pytest.mark.parametrize("cls, phrase, call", BAD, ids=[b[1][:30] for b in BAD])
def test_errors(cls, phrase, call):
    with pytest.raises(cls) as e:
        call()
    assert phrase in str(e.value)


def test_a_parameter_twice_and_a_misshapen_state_change_nothing():
    p, q = leaf(1.0), leaf(2.0)
    opt = optim.SGD([p], lr=0.1)
    with pytest.raises(ValueError, match="some parameters appear in more than one parameter group"):
        opt.add_param_group({"params": [p]})
    assert len(opt.param_groups) == 1
    other = optim.SGD([p, q], lr=0.3).state_dict()
    with pytest.raises(ValueError, match="doesn't match the size of optimizer's group"):
        opt.load_state_dict(other)
    assert opt.param_groups[0]["lr"] == 0.1


def test_lbfgs_finds_the_minimum():
    p = leaf(-1.2, 1.0)
    opt = optim.LBFGS([p], line_search_fn="strong_wolfe", max_iter=100)

    def closure():
        opt.zero_grad()
        loss = (1 - p[0]) ** 2 + 100 * (p[1] - p[0] ** 2) ** 2
        loss.backward()
        return loss

    opt.step(closure)
    np.testing.assert_allclose(p.detach().numpy(), [1, 1], atol=1e-4)
