"""RMSprop."""

from __future__ import annotations

from typing import Any

import flambeau as fl
from flambeau.core.errors import error
from flambeau.optim import rules
from flambeau.optim.optimizer import Elementwise, arrays, check, check_lr, count, new_step, number

__all__ = ["RMSprop"]


class RMSprop(Elementwise):
    """s ← α s + (1 - α) g²; p ← p - lr g / (√s + eps); centered: s less the square of the mean gradient.

    With momentum, b ← momentum b + g / (√s + eps) and p ← p - lr b.
    """

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum: float = 0,
        centered: bool = False,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
    ) -> None:
        check_lr(lr)
        if not 0.0 <= eps:
            raise error(ValueError, f"Invalid epsilon value: {eps}")
        check(momentum=momentum, weight_decay=weight_decay, alpha=alpha)
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "alpha": alpha,
            "eps": eps,
            "centered": centered,
            "weight_decay": weight_decay,
            "capturable": capturable,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults)

    _group_defaults = {**Elementwise._group_defaults, "momentum": 0, "centered": False, "capturable": False}

    def _update(self, group: dict[str, Any]) -> None:
        lr, alpha, eps, momentum = number(group["lr"]), group["alpha"], group["eps"], group["momentum"]
        decay, centered = group["weight_decay"], group["centered"]
        descend = rules.rmsprop(group["maximize"], decay != 0, centered, momentum > 0)
        for p in group["params"]:
            grad = p._grad
            if grad is None:
                continue
            state = self.state[p]
            if not state:
                state["step"] = new_step()
                state["square_avg"] = fl.zeros_like(p, requires_grad=False)
                if momentum > 0:
                    state["momentum_buffer"] = fl.zeros_like(p, requires_grad=False)
                if centered:
                    state["grad_avg"] = fl.zeros_like(p, requires_grad=False)
            count(state["step"])
            square = state["square_avg"]
            mean = state["grad_avg"] if centered else square
            buf = state["momentum_buffer"] if momentum > 0 else square
            descend(*arrays(p, grad, square, mean, buf), lr, alpha, 1 - alpha, eps, decay, momentum)
            p._bump()
