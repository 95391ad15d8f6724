"""RAdam: Adam with its variance rectified."""

from __future__ import annotations

from typing import Any

import flambeau as fl
from flambeau.core.errors import error
from flambeau.optim import rules
from flambeau.optim.optimizer import Elementwise, arrays, check, check_betas, check_lr, count, new_step, number

__all__ = ["RAdam"]


class RAdam(Elementwise):
    """Adam's step times r_t, once ρ_t = ρ_∞ - 2t β₂ᵗ / (1 - β₂ᵗ) is over 5; before that, plain momentum: p - lr m̂."""

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        decoupled_weight_decay: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
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
            "maximize": maximize,
            "foreach": foreach,
            "capturable": capturable,
            "decoupled_weight_decay": decoupled_weight_decay,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults)

    _group_defaults = {**Elementwise._group_defaults, "capturable": False, "decoupled_weight_decay": False}

    def _update(self, group: dict[str, Any]) -> None:
        lr, eps, decay = number(group["lr"]), group["eps"], group["weight_decay"]
        beta1, beta2 = group["betas"]
        decoupled = decay != 0 and group["decoupled_weight_decay"]
        l2 = decay != 0 and not decoupled
        if decoupled:
            decay = 1 - lr * decay
        longest = 2 / (1 - beta2) - 1
        for p in group["params"]:
            grad = p._grad
            if grad is None:
                continue
            state = self.state[p]
            if not state:
                state["step"] = new_step()
                state["exp_avg"] = fl.zeros_like(p, requires_grad=False)
                state["exp_avg_sq"] = fl.zeros_like(p, requires_grad=False)
            t = count(state["step"])
            correction2 = 1 - beta2**t
            length = longest - 2 * t * beta2**t / correction2
            rectified = 0.0
            if length > 5.0:
                ratio = (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
                rectified = (ratio * correction2) ** 0.5
            descend = rules.radam(group["maximize"], l2, decoupled, length > 5.0)
            found = arrays(p, grad, state["exp_avg"], state["exp_avg_sq"])
            descend(*found, lr / (1 - beta1**t), rectified, eps, decay, 1 - beta1, beta2, 1 - beta2)
            p._bump()
