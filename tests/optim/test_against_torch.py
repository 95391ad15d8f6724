"""Optimisers and schedules against PyTorch: numbers, state_dicts both ways, reprs."""

import copy
import warnings

import numpy as np
import pytest

import flambeau as fl

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

CASES = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "maximize": True}),
    ("Adam", {}),
    ("Adam", {"weight_decay": 0.1, "amsgrad": True}),
    ("AdamW", {"lr": 0.1}),
    ("RMSprop", {}),
    ("RMSprop", {"momentum": 0.9, "centered": True, "weight_decay": 0.1}),
    ("Adagrad", {"lr_decay": 0.1, "initial_accumulator_value": 0.2}),
    ("Adadelta", {"weight_decay": 0.1}),
    ("Adamax", {"weight_decay": 0.1}),
    ("NAdam", {}),
    ("NAdam", {"weight_decay": 0.1, "decoupled_weight_decay": True}),
    ("RAdam", {"weight_decay": 0.1}),
    ("Rprop", {}),
    ("ASGD", {"t0": 5, "weight_decay": 0.1}),
]


def run(m, name, options, dtype="float32", steps=12, load=None):
    rng = np.random.default_rng(0)
    ps = [m.tensor(rng.standard_normal(s).astype(dtype)).requires_grad_() for s in [(4, 5), (), (2000,)]]
    opt = getattr(m.optim, name)(ps, **options)
    if load is not None:
        opt.load_state_dict(load)
    for _ in range(steps):
        for p in ps:
            p.grad = m.tensor(rng.standard_normal(tuple(p.shape)).astype(dtype))
        opt.step()
    return ps, opt


def converted(m, value):
    """A state_dict with its tensors made those of the module m."""
    if hasattr(value, "detach"):
        return m.tensor(np.array(value.detach().numpy()))
    if isinstance(value, dict):
        return {k: converted(m, v) for k, v in value.items()}
    return [converted(m, v) for v in value] if isinstance(value, list) else copy.copy(value)


@pytest.mark.parametrize("name, options", CASES)
@pytest.mark.parametrize("dtype", ["float32", "complex64"])
def test_numbers_state_and_repr(name, options, dtype):
    (ps, mine), (qs, theirs) = run(fl, name, options, dtype), run(torch, name, options, dtype)
    for p, q in zip(ps, qs, strict=True):
        np.testing.assert_allclose(p.detach().numpy(), q.detach().numpy(), rtol=1e-5, atol=1e-6)
    assert repr(mine) == repr(theirs)
    a, b = mine.state_dict(), theirs.state_dict()
    assert a["param_groups"] == b["param_groups"]
    for k in b["state"]:
        assert list(a["state"][k]) == list(b["state"][k])
        for n, v in b["state"][k].items():
            np.testing.assert_allclose(a["state"][k][n].numpy(), v.numpy(), rtol=1e-4, atol=1e-6)
    # each goes on from the other's state
    (ps, _), (qs, _) = run(fl, name, options, dtype, 3, converted(fl, b)), run(torch, name, options, dtype, 3, b)
    for p, q in zip(ps, qs, strict=True):
        np.testing.assert_allclose(p.detach().numpy(), q.detach().numpy(), rtol=1e-5, atol=1e-6)
    theirs.load_state_dict(converted(torch, a))


@pytest.mark.parametrize("options", [{}, {"lr": 0.5, "history_size": 3}, {"line_search_fn": "strong_wolfe"}])
def test_lbfgs(options):
    rng = np.random.default_rng(1)
    a, b, start = rng.standard_normal((20, 5)), rng.standard_normal(20), rng.standard_normal(5)

    def losses(m):
        x, y, p = m.tensor(a), m.tensor(b), m.tensor(start).requires_grad_()
        opt = m.optim.LBFGS([p], **options)

        def closure():
            opt.zero_grad()
            loss = (((x * p).sum(1).tanh() - y) ** 2).mean()
            loss.backward()
            return loss

        return [opt.step(closure).item() for _ in range(3)]

    np.testing.assert_allclose(losses(fl), losses(torch), rtol=1e-4)  # steps of lr=1 magnify rounding


SCHEDULES = [
    ("StepLR", {"step_size": 3}),
    ("MultiStepLR", {"milestones": [2, 5, 5]}),
    ("ConstantLR", {}),
    ("LinearLR", {}),
    ("ExponentialLR", {"gamma": 0.9}),
    ("PolynomialLR", {"power": 2.0}),
    ("CosineAnnealingLR", {"T_max": 4, "eta_min": 0.01}),
    ("CosineAnnealingWarmRestarts", {"T_0": 3, "T_mult": 2}),
    ("LambdaLR", {"lr_lambda": lambda e: 0.9**e}),
    ("MultiplicativeLR", {"lr_lambda": lambda e: 0.9}),
    ("CyclicLR", {"base_lr": 0.1, "max_lr": 1.0, "step_size_up": 3, "mode": "triangular2"}),
    ("CyclicLR", {"base_lr": 0.1, "max_lr": 1.0, "step_size_up": 3, "step_size_down": 2, "mode": "exp_range"}),
    ("OneCycleLR", {"max_lr": 1.0, "total_steps": 20}),
    ("OneCycleLR", {"max_lr": 1.0, "total_steps": 20, "three_phase": True, "anneal_strategy": "linear"}),
]


def optimizer(m):
    ps = [m.zeros(2).requires_grad_(), m.zeros(2).requires_grad_()]
    return m.optim.SGD([{"params": ps[:1]}, {"params": ps[1:], "lr": 0.5}], lr=0.1, momentum=0.9)


@pytest.mark.parametrize("name, options", SCHEDULES)
def test_schedules(name, options):
    def history(m):
        opt = optimizer(m)
        sched = getattr(m.optim.lr_scheduler, name)(opt, **options)
        seen = []
        for _ in range(18):
            seen.append([(g["lr"], g["momentum"]) for g in opt.param_groups])
            opt.step()
            sched.step()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            sched.step(5)
        return [*seen, sched.get_last_lr(), sorted(sched.state_dict())]

    assert history(fl) == history(torch)


def test_schedules_of_schedules_and_plateau():
    def history(m):
        lrs = m.optim.lr_scheduler
        opt = optimizer(m)
        parts = [lrs.ConstantLR(opt, 0.1, 2), lrs.ExponentialLR(opt, 0.9), lrs.CosineAnnealingLR(opt, 5)]
        sequence = lrs.SequentialLR(opt, parts, [3, 7])
        other = optimizer(m)
        chain = lrs.ChainedScheduler([lrs.ConstantLR(other, 0.1, 2), lrs.ExponentialLR(other, 0.9)])
        third = optimizer(m)
        plateau = lrs.ReduceLROnPlateau(third, patience=1, cooldown=1, min_lr=0.001)
        seen = []
        for i in range(12):
            for o in (opt, other):
                o.step()
            sequence.step()
            chain.step()
            plateau.step([3.0, 2.0, 2.0, 2.0, 1.0][i % 5])
            seen.append([g["lr"] for o in (opt, other, third) for g in o.param_groups])
        return seen

    assert history(fl) == history(torch)
