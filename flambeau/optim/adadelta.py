"""Adadelta."""

from __future__ import annotations

from typing import Any

import flambeau as fl
from flambeau.core.errors import error
from flambeau.optim import rules
from flambeau.optim.optimizer import Elementwise, arrays, check, check_lr, count, new_step, number

__all__ = ["Adadelta"]


class Adadelta(Elementwise):
    """s ← ρ s + (1 - ρ) g²; Δ = √(d + eps) / √(s + eps) g; d ← ρ d + (1 - ρ) Δ²; p ← p - lr Δ."""

    def __init__(
        self,
        params: Any,
        lr: Any = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0,
        foreach: bool | None = None,
        *,
        capturable: bool = False,
        maximize: bool = False,
        differentiable: bool = False,
    ) -> None:
        check_lr(lr)
        if not 0.0 <= rho <= 1.0:
            raise error(ValueError, f"Invalid rho value: {rho}")
        if not 0.0 <= eps:
            raise error(ValueError, f"Invalid epsilon value: {eps}")
        check(weight_decay=weight_decay)
        defaults = {
            "lr": lr,
            "rho": rho,
            "eps": eps,
            "weight_decay": weight_decay,
            "maximize": maximize,
            "capturable": capturable,
            "foreach": foreach,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults)

    _group_defaults = {**Elementwise._group_defaults, "capturable": False}

    def _update(self, group: dict[str, Any]) -> None:
        lr, rho, eps, decay = number(group["lr"]), group["rho"], group["eps"], group["weight_decay"]
        descend = rules.adadelta(group["maximize"], decay != 0)
        for p in group["params"]:
            grad = p._grad
            if grad is None:
                continue
            state = self.state[p]
            if not state:
                state["step"] = new_step()
                state["square_avg"] = fl.zeros_like(p, requires_grad=False)
                state["acc_delta"] = fl.zeros_like(p, requires_grad=False)
            count(state["step"])
            descend(*arrays(p, grad, state["square_avg"], state["acc_delta"]), lr, rho, 1 - rho, eps, decay)
            p._bump()
