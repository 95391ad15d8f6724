"""Adamax: Adam with the infinity norm."""

from __future__ import annotations

from typing import Any

import flambeau as fl
from flambeau.core.errors import error
from flambeau.optim import rules
from flambeau.optim.optimizer import Elementwise, arrays, check, check_betas, check_lr, count, new_step, number

__all__ = ["Adamax"]


class Adamax(Elementwise):
    """m ← β₁ m + (1 - β₁) g; u ← max(β₂ u, |g| + eps); p ← p - lr / (1 - β₁ᵗ) m / u."""

    def __init__(
        self,
        params: Any,
        lr: Any = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        capturable: bool = False,
    ) -> None:
        check_lr(lr)
        if not 0.0 <= eps:
            raise error(ValueError, f"Invalid epsilon value: {eps}")
        check_betas(betas)
        check(weight_decay=weight_decay)
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
            "capturable": capturable,
        }
        super().__init__(params, defaults)

    _group_defaults = {**Elementwise._group_defaults, "capturable": False}

    def _update(self, group: dict[str, Any]) -> None:
        lr, eps, decay = number(group["lr"]), group["eps"], group["weight_decay"]
        beta1, beta2 = group["betas"]
        descend = rules.adamax(group["maximize"], decay != 0)
        for p in group["params"]:
            grad = p._grad
            if grad is None:
                continue
            state = self.state[p]
            if not state:
                state["step"] = new_step()
                state["exp_avg"] = fl.zeros_like(p, requires_grad=False)
                state["exp_inf"] = fl.zeros_like(p, requires_grad=False)
            t = count(state["step"])
            found = arrays(p, grad, state["exp_avg"], state["exp_inf"])
            descend(*found, lr / (1 - beta1**t), 1 - beta1, beta2, eps, decay)
            p._bump()
