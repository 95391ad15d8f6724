"""Stochastic gradient descent, with momentum."""

from __future__ import annotations

from typing import Any

import flambeau as fl
from flambeau.core.errors import error
from flambeau.optim import rules
from flambeau.optim.optimizer import Elementwise, arrays, check, check_lr, number

__all__ = ["SGD"]


class SGD(Elementwise):
    """b ← momentum b + (1 - dampening) g; p ← p - lr b, g with weight_decay p added; nesterov: p - lr (g + momentum b).

    >>> import flambeau as torch
    >>> p = torch.nn.Parameter(torch.tensor([1.0]))
    >>> p.grad = torch.tensor([0.5])
    >>> torch.optim.SGD([p], lr=0.1).step()
    >>> p.data
    tensor([0.9500])
    """

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        check_lr(lr)
        check(momentum=momentum, weight_decay=weight_decay)
        if nesterov and (momentum <= 0 or dampening != 0):
            raise error(ValueError, "Nesterov momentum requires a momentum and zero dampening")
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "maximize": maximize,
            "foreach": foreach,
            "differentiable": differentiable,
            "fused": fused,
        }
        super().__init__(params, defaults)

    _group_defaults = {**Elementwise._group_defaults, "nesterov": False, "fused": False}

    def _update(self, group: dict[str, Any]) -> None:
        lr, momentum, decay = number(group["lr"]), group["momentum"], number(group["weight_decay"])
        l2, maximize = decay != 0, group["maximize"]
        if momentum == 0:
            descend = rules.sgd(maximize, l2)
            for p in group["params"]:
                grad = p._grad
                if grad is not None:
                    a, g = p._a, grad._a
                    if a.size > 1024 or a.dtype is not g.dtype or a.dtype.kind == "c":
                        a, g = arrays(p, grad)
                    descend(a, g, lr, decay)
                    p._bump()
            return
        descend = rules.sgd_momentum(maximize, l2, group["nesterov"])
        keep = 1.0 - group["dampening"]
        for p in group["params"]:
            grad = p._grad
            if grad is None:
                continue
            state = self.state[p]
            buf = state.get("momentum_buffer")
            first = buf is None
            if first:
                buf = state["momentum_buffer"] = fl.zeros_like(p, requires_grad=False)
            a, g, b = arrays(p, grad, buf)
            descend(a, g, b, lr, decay, momentum, 1.0 if first else keep)  # the first gradient is not dampened
            p._bump()
