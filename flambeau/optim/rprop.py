"""Rprop: resilient backpropagation."""

from __future__ import annotations

from typing import Any

import flambeau as fl
from flambeau.core.errors import error
from flambeau.optim import rules
from flambeau.optim.optimizer import Elementwise, arrays, check_lr, count, new_step, number

__all__ = ["Rprop"]


class Rprop(Elementwise):
    """p ← p - sign(g) size; each size times etas[1] where g keeps its sign, etas[0] (and no move) where it turns."""

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-2,
        etas: tuple[float, float] = (0.5, 1.2),
        step_sizes: tuple[float, float] = (1e-6, 50),
        *,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
    ) -> None:
        check_lr(lr)
        if not 0.0 < etas[0] < 1.0 < etas[1]:
            raise error(ValueError, f"Invalid eta values: {etas[0]}, {etas[1]}")
        defaults = {
            "lr": lr,
            "etas": etas,
            "step_sizes": step_sizes,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
            "capturable": capturable,
        }
        super().__init__(params, defaults)

    _group_defaults = {**Elementwise._group_defaults, "capturable": False}

    def _update(self, group: dict[str, Any]) -> None:
        descend = rules.rprop(group["maximize"])
        for p in group["params"]:
            grad = p._grad
            if grad is None:
                continue
            state = self.state[p]
            if not state:
                lr = number(group["lr"])
                state["step"] = new_step()
                state["prev"] = fl.zeros_like(p, requires_grad=False)
                start = complex(lr, lr) if p.is_complex() else lr
                state["step_size"] = fl.full_like(grad, start, requires_grad=False)
            count(state["step"])
            descend(*arrays(p, grad, state["prev"], state["step_size"]), *group["etas"], *group["step_sizes"])
            p._bump()
