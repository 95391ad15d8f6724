"""Adagrad."""

from __future__ import annotations

from typing import Any

import flambeau as fl
from flambeau.core.errors import error
from flambeau.optim import rules
from flambeau.optim.optimizer import Elementwise, arrays, check, check_lr, count, new_step, number

__all__ = ["Adagrad"]


class Adagrad(Elementwise):
    """s ← s + g²; p ← p - lr / (1 + (t - 1) lr_decay) g / (√s + eps)."""

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-2,
        lr_decay: float = 0,
        weight_decay: float = 0,
        initial_accumulator_value: float = 0,
        eps: float = 1e-10,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        check_lr(lr)
        check(
            lr_decay=lr_decay,
            weight_decay=weight_decay,
            initial_accumulator_value=initial_accumulator_value,
        )
        if not 0.0 <= eps:
            raise error(ValueError, f"Invalid epsilon value: {eps}")
        defaults = {
            "lr": lr,
            "lr_decay": lr_decay,
            "eps": eps,
            "weight_decay": weight_decay,
            "initial_accumulator_value": initial_accumulator_value,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
            "fused": fused,
        }
        super().__init__(params, defaults)
        for group in self.param_groups:
            for p in group["params"]:
                value = group["initial_accumulator_value"]
                start = complex(value, value) if p.is_complex() else value
                self.state[p] = {"step": new_step(), "sum": fl.full_like(p, start, requires_grad=False)}

    _group_defaults = {**Elementwise._group_defaults, "fused": None}

    def share_memory(self) -> None:
        """Move the state to shared memory, for training by several processes."""
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p]["sum"].share_memory_()

    def _update(self, group: dict[str, Any]) -> None:
        lr, lr_decay, eps, decay = number(group["lr"]), group["lr_decay"], group["eps"], group["weight_decay"]
        descend = rules.adagrad(group["maximize"], decay != 0)
        for p in group["params"]:
            grad = p._grad
            if grad is not None:
                state = self.state[p]
                t = count(state["step"])
                descend(*arrays(p, grad, state["sum"]), lr / (1 + (t - 1) * lr_decay), eps, decay)
                p._bump()
