"""Adam."""

from __future__ import annotations

from typing import Any

import flambeau as fl
from flambeau.core.errors import error
from flambeau.core.tensor import Tensor
from flambeau.optim import rules
from flambeau.optim.optimizer import Elementwise, arrays, check, check_betas, check_lr, count, new_step, number

__all__ = ["Adam"]


class Adam(Elementwise):
    """m ← β₁ m + (1 - β₁) g; v ← β₂ v + (1 - β₂) g²; p ← p - lr m̂ / (√v̂ + eps), m̂ = m / (1 - β₁ᵗ), v̂ = v / (1 - β₂ᵗ).

    weight_decay is added to the gradient, or with decoupled_weight_decay, as in AdamW, taken off the parameter.
    amsgrad divides by the greatest v so far.
    """

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-3,
        betas: tuple[Any, Any] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        decoupled_weight_decay: bool = False,
    ) -> None:
        if isinstance(lr, Tensor) and foreach and not capturable:
            raise error(ValueError, "lr as a Tensor is not supported for capturable=False and foreach=True")
        check_lr(lr)
        if not 0.0 <= eps:
            raise error(ValueError, f"Invalid epsilon value: {eps}")
        check_betas(betas)
        check(weight_decay=weight_decay)
        if isinstance(betas[0], Tensor) != isinstance(betas[1], Tensor):
            raise error(ValueError, "betas must be either both floats or both Tensors")
        defaults = {
            "lr": lr,
            "betas": tuple(number(b) for b in betas),
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "maximize": maximize,
            "foreach": foreach,
            "capturable": capturable,
            "differentiable": differentiable,
            "fused": fused,
            "decoupled_weight_decay": decoupled_weight_decay,
        }
        super().__init__(params, defaults)

    _group_defaults = {
        **Elementwise._group_defaults,
        "amsgrad": False,
        "capturable": False,
        "fused": None,
        "decoupled_weight_decay": False,
    }

    def _update(self, group: dict[str, Any]) -> None:
        lr, eps, amsgrad = number(group["lr"]), group["eps"], group["amsgrad"]
        decay = number(group["weight_decay"])
        decoupled = decay != 0 and group["decoupled_weight_decay"]
        beta1, beta2 = map(number, group["betas"])
        keep1, keep2 = 1 - beta1, 1 - beta2
        descend = rules.adam(group["maximize"], decay != 0 and not decoupled, decoupled, amsgrad)
        if decoupled:
            decay = 1 - lr * decay
        all_state = self.state
        for p in group["params"]:
            grad = p._grad
            if grad is None:
                continue
            state = all_state[p]
            if not state:
                state["step"] = new_step()
                state["exp_avg"] = fl.zeros_like(p, requires_grad=False)
                state["exp_avg_sq"] = fl.zeros_like(p, requires_grad=False)
                if amsgrad:
                    state["max_exp_avg_sq"] = fl.zeros_like(p, requires_grad=False)
            t = count(state["step"])
            if amsgrad:
                a, g, m, v, top = arrays(
                    p, grad, state["exp_avg"], state["exp_avg_sq"], state["max_exp_avg_sq"]
                )
            else:
                a, g, m, v = arrays(p, grad, state["exp_avg"], state["exp_avg_sq"])
                top = v
            step_size = lr / (1 - beta1**t)
            descend(a, g, m, v, top, step_size, (1 - beta2**t) ** 0.5, eps, decay, keep1, beta2, keep2)
            p._bump()
