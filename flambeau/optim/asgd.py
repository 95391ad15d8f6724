"""Averaged stochastic gradient descent."""

from __future__ import annotations

from typing import Any

import flambeau as fl
from flambeau.optim import rules
from flambeau.optim.optimizer import Elementwise, arrays, check, check_lr, count, new_step, number

__all__ = ["ASGD"]


class ASGD(Elementwise):
    """p ← (1 - λ η) p - η g, η = lr / (1 + λ lr t)^alpha; the average of p from step t0 on is state[p]["ax"]."""

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-2,
        lambd: float = 1e-4,
        alpha: float = 0.75,
        t0: float = 1e6,
        weight_decay: float = 0,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
        capturable: bool = False,
    ) -> None:
        check_lr(lr)
        check(weight_decay=weight_decay)
        defaults = {
            "lr": lr,
            "lambd": lambd,
            "alpha": alpha,
            "t0": t0,
            "weight_decay": weight_decay,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
            "capturable": capturable,
        }
        super().__init__(params, defaults)

    _group_defaults = {**Elementwise._group_defaults, "capturable": False}

    def _update(self, group: dict[str, Any]) -> None:
        lr, lambd, decay = number(group["lr"]), group["lambd"], group["weight_decay"]
        for p in group["params"]:
            grad = p._grad
            if grad is None:
                continue
            state = self.state[p]
            if not state:
                state["step"] = new_step()
                state["eta"] = new_step(lr)
                state["mu"] = new_step(1.0)
                state["ax"] = fl.zeros_like(p, requires_grad=False)
            t = count(state["step"])
            eta, mu = state["eta"]._a, state["mu"]._a
            now, weight = eta.item(), mu.item()
            descend = rules.asgd(group["maximize"], decay != 0, weight != 1)
            descend(*arrays(p, grad, state["ax"]), now, weight, 1 - lambd * now, decay)
            p._bump()
            eta[()] = lr / (1 + lambd * lr * t) ** group["alpha"]
            mu[()] = 1 / max(1, t - group["t0"])
