"""Averages of a model's weights over its training, and the learning rates that go with them."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable
from typing import Any

import flambeau as fl
from flambeau.core.errors import error
from flambeau.core.tensor import Tensor
from flambeau.nn import Module
from flambeau.nn.modules.batchnorm import _BatchNorm
from flambeau.optim.lr_scheduler import LRScheduler
from flambeau.optim.optimizer import Optimizer

__all__ = [
    "SWALR",
    "AveragedModel",
    "get_ema_avg_fn",
    "get_ema_multi_avg_fn",
    "get_swa_avg_fn",
    "get_swa_multi_avg_fn",
    "update_bn",
]


def get_ema_avg_fn(decay: float = 0.999) -> Callable[..., Tensor]:
    """average ← decay average + (1 - decay) weight."""
    _check_decay(decay)

    def ema(average: Tensor, weight: Tensor, num_averaged: Any) -> Tensor:
        return decay * average + (1 - decay) * weight

    return ema


def get_swa_avg_fn() -> Callable[..., Tensor]:
    """average ← average + (weight - average) / (n + 1): the plain mean."""

    def swa(average: Tensor, weight: Tensor, num_averaged: Any) -> Tensor:
        return average + (weight - average) / (num_averaged + 1)

    return swa


def _multi(avg_fn: Callable[..., Tensor]) -> Callable[..., None]:
    def update(averages: list[Tensor], weights: list[Tensor], num_averaged: Any) -> None:
        with fl.no_grad():
            for average, weight in zip(averages, weights, strict=True):
                average.copy_(avg_fn(average, weight, num_averaged))

    return update


def get_ema_multi_avg_fn(decay: float = 0.999) -> Callable[..., None]:
    """get_ema_avg_fn for lists of tensors, in place."""
    return _multi(get_ema_avg_fn(decay))


def get_swa_multi_avg_fn() -> Callable[..., None]:
    """get_swa_avg_fn for lists of tensors, in place."""
    return _multi(get_swa_avg_fn())


def _check_decay(decay: float) -> None:
    if decay < 0.0 or decay > 1.0:
        raise error(ValueError, f"Invalid decay value {decay} provided. Please provide a value in [0,1] range.")


class AveragedModel(Module):
    """A copy of a model whose weights are averages of the model's: call update_parameters(model) after steps.

    The plain mean unless avg_fn(average, weight, n) or multi_avg_fn(averages, weights, n) is given.
    """

    def __init__(
        self,
        model: Module,
        device: Any = None,
        avg_fn: Callable[..., Tensor] | None = None,
        multi_avg_fn: Callable[..., None] | None = None,
        use_buffers: bool = False,
    ) -> None:
        super().__init__()
        if avg_fn is not None and multi_avg_fn is not None:
            raise error(AssertionError, "Only one of avg_fn and multi_avg_fn should be provided")
        self.module = copy.deepcopy(model)
        if device is not None:
            self.module = self.module.to(device)
        self.register_buffer("n_averaged", fl.tensor(0, dtype=fl.long, device=device))
        self.avg_fn = avg_fn
        self.multi_avg_fn = multi_avg_fn
        self.use_buffers = use_buffers

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)

    def _tensors(self, module: Module) -> list[Tensor]:
        buffers = module.buffers() if self.use_buffers else ()
        return [*module.parameters(), *buffers]

    def update_parameters(self, model: Module) -> None:
        """Take the model's present weights into the averages."""
        averages = [t.detach() for t in self._tensors(self.module)]
        weights = [t.detach() for t in self._tensors(model)]
        first = int(self.n_averaged) == 0
        with fl.no_grad():
            if first:
                for average, weight in zip(averages, weights, strict=True):
                    average.copy_(weight)
            elif self.multi_avg_fn is not None:
                self.multi_avg_fn(averages, weights, self.n_averaged)
            else:
                avg_fn = self.avg_fn or get_swa_avg_fn()
                for average, weight in zip(averages, weights, strict=True):
                    average.copy_(avg_fn(average, weight, self.n_averaged))
            if not self.use_buffers:
                for mine, theirs in zip(self.module.buffers(), model.buffers(), strict=True):
                    mine.detach().copy_(theirs.detach())
            self.n_averaged += 1


@fl.no_grad()
def update_bn(loader: Iterable[Any], model: Module, device: Any = None) -> None:
    """Compute the statistics of the model's batch norms anew, from one pass over the data."""
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
    if not norms:
        return
    momenta = {m: m.momentum for m in norms}
    was_training = model.training
    model.train()
    for m in norms:
        m.reset_running_stats()
        m.momentum = None
    for batch in loader:
        input = batch[0] if isinstance(batch, (list, tuple)) else batch
        model(input if device is None else input.to(device))
    for m, momentum in momenta.items():
        m.momentum = momentum
    model.train(was_training)


class SWALR(LRScheduler):
    """lr goes to swa_lr over anneal_epochs, by a cosine or a line, and stays there."""

    def __init__(
        self,
        optimizer: Optimizer,
        swa_lr: Any,
        anneal_epochs: int = 10,
        anneal_strategy: str = "cos",
        last_epoch: int = -1,
    ) -> None:
        n = len(optimizer.param_groups)
        lrs = list(swa_lr) if isinstance(swa_lr, (list, tuple)) else [swa_lr] * n
        if len(lrs) != n:
            raise error(
                ValueError,
                "swa_lr must have the same length as optimizer.param_groups: "
                f"swa_lr has {len(lrs)}, optimizer.param_groups has {n}",
            )
        if anneal_strategy not in ("cos", "linear"):
            raise error(
                ValueError,
                f"anneal_strategy must by one of 'cos' or 'linear', instead got {anneal_strategy}",
            )
        if not isinstance(anneal_epochs, int) or anneal_epochs < 0:
            raise error(
                ValueError, f"anneal_epochs must be equal or greater than 0, got {anneal_epochs}"
            )
        for group, lr in zip(optimizer.param_groups, lrs, strict=True):
            group["swa_lr"] = lr
        self._anneal_strategy = anneal_strategy
        self.anneal_epochs = anneal_epochs
        super().__init__(optimizer, last_epoch)

    def _share(self, t: float) -> float:
        """How much of the way is gone, t from 0 to 1."""
        return (1 - math.cos(math.pi * t)) / 2 if self._anneal_strategy == "cos" else t

    def get_lr(self) -> list[Any]:
        self._warn_outside_step()
        step = self._step_count - 1
        if self.anneal_epochs == 0:
            step = max(1, step)
        before = self._share(max(0, min(1, (step - 1) / max(1, self.anneal_epochs))))
        now = self._share(max(0, min(1, step / max(1, self.anneal_epochs))))
        lrs = []
        for group in self.optimizer.param_groups:
            target = group["swa_lr"]
            start = target if before == 1 else (group["lr"] - before * target) / (1 - before)
            lrs.append(target * now + start * (1 - now))
        return lrs
