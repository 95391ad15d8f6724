"""Schedules: values by hand, warnings, errors."""

import pytest

import flambeau as fl
from flambeau.optim import SGD, lr_scheduler


def optimizer(lr=1.0):
    return SGD([fl.zeros(1).requires_grad_()], lr=lr)


def lrs(sched, n):
    seen = []
    for _ in range(n):
        seen.append(sched.optimizer.param_groups[0]["lr"])
        sched.optimizer.step()
        sched.step()
    return seen


def test_values_by_hand():
    assert lrs(lr_scheduler.StepLR(optimizer(), 2, 0.5), 5) == [1, 1, 0.5, 0.5, 0.25]
    assert lrs(lr_scheduler.LambdaLR(optimizer(), lambda e: 1 / (e + 1)), 3) == [1, 1 / 2, 1 / 3]
    assert lrs(lr_scheduler.CosineAnnealingLR(optimizer(), 2), 3) == pytest.approx([1, 0.5, 0])
    assert lrs(lr_scheduler.LinearLR(optimizer(), 0.5, total_iters=2), 4) == pytest.approx([0.5, 0.75, 1, 1])


def test_plateau():
    opt = optimizer()
    sched = lr_scheduler.ReduceLROnPlateau(opt, patience=1, factor=0.5)
    for metric in (1.0, 1.0, 1.0):
        sched.step(metric)
    assert opt.param_groups[0]["lr"] == 0.5


def test_stepping_in_the_wrong_order_warns():
    sched = lr_scheduler.StepLR(optimizer(), 2)
    with pytest.warns(UserWarning, match="before `optimizer.step"):
        sched.step()


def test_asking_for_get_lr_warns():
    with pytest.warns(UserWarning, match="get_last_lr"):
        lr_scheduler.StepLR(optimizer(), 2).get_lr()


def test_state_dict_round_trip():
    a = lr_scheduler.StepLR(optimizer(), 2)
    lrs(a, 3)
    b = lr_scheduler.StepLR(optimizer(), 7)
    b.load_state_dict(a.state_dict())
    assert (b.step_size, b.last_epoch) == (2, 3)


def test_tensor_lr_is_changed_in_place():
    lr = fl.tensor(1.0)
    opt = SGD([fl.zeros(1).requires_grad_()], lr=lr)
    lrs(lr_scheduler.StepLR(opt, 1, 0.5), 2)
    assert lr.item() == 0.25


def test_errors():
    with pytest.raises(TypeError, match="is not an Optimizer"):
        lr_scheduler.StepLR(object(), 2)
    with pytest.raises(ValueError, match="Factor should be < 1.0"):
        lr_scheduler.ReduceLROnPlateau(optimizer(), factor=1.0)
    with pytest.raises(KeyError, match="initial_lr"):
        lr_scheduler.StepLR(optimizer(), 2, last_epoch=3)
    with pytest.raises(ValueError, match="one more than the number of milestone points"):
        opt = optimizer()
        lr_scheduler.SequentialLR(opt, [lr_scheduler.StepLR(opt, 1)], [1])
