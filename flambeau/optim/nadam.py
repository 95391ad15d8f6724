"""NAdam: Adam with Nesterov's momentum."""

from __future__ import annotations

from typing import Any

import flambeau as fl
from flambeau.core.errors import error
from flambeau.optim import rules
from flambeau.optim.optimizer import Elementwise, arrays, check, check_betas, check_lr, count, new_step, number

__all__ = ["NAdam"]


class NAdam(Elementwise):
    """μ_t = β₁ (1 - 0.96^(t momentum_decay) / 2); p ← p - lr ((1 - μ_t) g / (1 - Πμ) + μ_t+1 m / (1 - Πμ μ_t+1)) / (√v̂ + eps)."""

    def __init__(
        self,
        params: Any,
        lr: Any = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum_decay: float = 4e-3,
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
        check(weight_decay=weight_decay, momentum_decay=momentum_decay)
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "momentum_decay": momentum_decay,
            "decoupled_weight_decay": decoupled_weight_decay,
            "maximize": maximize,
            "foreach": foreach,
            "capturable": capturable,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults)

    _group_defaults = {**Elementwise._group_defaults, "capturable": False, "decoupled_weight_decay": False}

    def _update(self, group: dict[str, Any]) -> None:
        lr, eps, decay = number(group["lr"]), group["eps"], group["weight_decay"]
        beta1, beta2 = group["betas"]
        psi = group["momentum_decay"]
        decoupled = decay != 0 and group["decoupled_weight_decay"]
        descend = rules.nadam(group["maximize"], decay != 0 and not decoupled, decoupled)
        if decoupled:
            decay = 1 - lr * decay
        for p in group["params"]:
            grad = p._grad
            if grad is None:
                continue
            state = self.state[p]
            if not state:
                state["step"] = new_step()
                state["mu_product"] = new_step(1.0)
                state["exp_avg"] = fl.zeros_like(p, requires_grad=False)
                state["exp_avg_sq"] = fl.zeros_like(p, requires_grad=False)
            t = count(state["step"])
            mu = beta1 * (1.0 - 0.5 * 0.96 ** (t * psi))
            mu_next = beta1 * (1.0 - 0.5 * 0.96 ** ((t + 1) * psi))
            product = state["mu_product"]._a
            product *= mu
            so_far = product.item()
            lr_g = lr * (1.0 - mu) / (1.0 - so_far)
            lr_m = lr * mu_next / (1.0 - so_far * mu_next)
            found = arrays(p, grad, state["exp_avg"], state["exp_avg_sq"])
            descend(*found, lr_g, lr_m, 1 - beta2**t, eps, decay, 1 - beta1, beta2, 1 - beta2)
            p._bump()
