"""L-BFGS: a quasi-Newton method with limited memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flambeau as fl
from flambeau.core.errors import error
from flambeau.core.tensor import Tensor
from flambeau.optim._line_search import Point, strong_wolfe
from flambeau.optim.optimizer import Optimizer, check_lr, number

__all__ = ["LBFGS"]


def _flat(t: Tensor) -> Tensor:
    return (fl.view_as_real(t) if t.is_complex() else t).reshape(-1)


class LBFGS(Optimizer):
    """p ← p + t d, d = -H g, H from the last `history_size` changes of p and g; step(closure) makes many such.

    The closure clears the gradients, computes the loss, calls backward, and returns the loss. Without a line
    search t is lr; with line_search_fn="strong_wolfe" it is searched for. One group of parameters only.

    >>> import flambeau as torch
    >>> p = torch.nn.Parameter(torch.tensor([3.0, -2.0]))
    >>> opt = torch.optim.LBFGS([p], line_search_fn="strong_wolfe")
    >>> def closure():
    ...     opt.zero_grad()
    ...     loss = (p * p).sum()
    ...     loss.backward()
    ...     return loss
    >>> _ = opt.step(closure)
    >>> bool(p.abs().max() < 1e-5)
    True
    """

    def __init__(
        self,
        params: Any,
        lr: Any = 1,
        max_iter: int = 20,
        max_eval: int | None = None,
        tolerance_grad: float = 1e-7,
        tolerance_change: float = 1e-9,
        history_size: int = 100,
        line_search_fn: str | None = None,
    ) -> None:
        check_lr(lr)
        defaults = {
            "lr": lr,
            "max_iter": max_iter,
            "max_eval": max_iter * 5 // 4 if max_eval is None else max_eval,
            "tolerance_grad": tolerance_grad,
            "tolerance_change": tolerance_change,
            "history_size": history_size,
            "line_search_fn": line_search_fn,
        }
        super().__init__(params, defaults)
        if len(self.param_groups) != 1:
            raise error(ValueError, "LBFGS doesn't support per-parameter options (parameter groups)")

    @property
    def _params(self) -> list[Tensor]:
        return self.param_groups[0]["params"]

    def _gather_flat_grad(self) -> Tensor:
        return fl.cat([_flat(fl.zeros_like(p) if p.grad is None else p.grad) for p in self._params])

    def _add_grad(self, step_size: float, update: Tensor) -> None:
        """p += step_size * update, for all parameters."""
        offset = 0
        for p in self._params:
            real = fl.view_as_real(p) if p.is_complex() else p
            real.add_(update[offset : offset + real.numel()].view_as(real), alpha=step_size)
            offset += real.numel()

    @fl.no_grad()
    def step(self, closure: Callable[[], Any]) -> Any:
        closure = fl.enable_grad()(closure)
        group = self.param_groups[0]
        lr, max_iter, max_eval = number(group["lr"]), group["max_iter"], group["max_eval"]
        tolerance_grad, tolerance_change = group["tolerance_grad"], group["tolerance_change"]
        search = group["line_search_fn"]
        if search not in (None, "strong_wolfe"):
            raise error(RuntimeError, "only 'strong_wolfe' is supported")

        # There is one state; it is kept with the first parameter, so that loading casts it.
        state = self.state[self._params[0]]
        state.setdefault("func_evals", 0)
        state.setdefault("n_iter", 0)

        first_loss = closure()
        loss = float(first_loss)
        evaluations = 1
        state["func_evals"] += 1
        grad = self._gather_flat_grad()
        if float(grad.abs().max()) <= tolerance_grad:
            return first_loss

        d, t, previous_grad = state.get("d"), state.get("t"), state.get("prev_flat_grad")
        previous_loss = state.get("prev_loss")
        for iteration in range(1, max_iter + 1):
            state["n_iter"] += 1
            start = state["n_iter"] == 1
            d = self._first_direction(state, grad) if start else self._direction(state, grad, previous_grad, d, t, group)
            previous_grad, previous_loss = grad.clone(), loss
            t = min(1.0, 1.0 / float(grad.abs().sum())) * lr if start else lr

            slope = float(grad.dot(d))
            if slope > -tolerance_change:
                break
            optimal = False
            if search is not None:
                begin = [p.clone() for p in self._params]

                def evaluate(t: float, d: Tensor = d, begin: list[Tensor] = begin) -> tuple[float, Tensor]:
                    self._add_grad(t, d)
                    f = float(closure())
                    g = self._gather_flat_grad()
                    for p, old in zip(self._params, begin, strict=True):
                        p.copy_(old)
                    return f, g

                found, new_evaluations = strong_wolfe(
                    evaluate, d, t, Point(0.0, loss, grad, slope), max_steps=max_eval - evaluations
                )
                loss, grad, t = found.f, found.g, found.t
                self._add_grad(t, d)
                optimal = float(grad.abs().max()) <= tolerance_grad
            else:
                new_evaluations = 0
                self._add_grad(t, d)
                if iteration != max_iter:  # the last value would not be used
                    loss = float(closure())
                    grad = self._gather_flat_grad()
                    optimal = float(grad.abs().max()) <= tolerance_grad
                    new_evaluations = 1
            evaluations += new_evaluations
            state["func_evals"] += new_evaluations

            if (
                evaluations >= max_eval
                or optimal
                or float((d * t).abs().max()) <= tolerance_change
                or abs(loss - previous_loss) < tolerance_change
            ):
                break

        state["d"], state["t"] = d, t
        state["prev_flat_grad"], state["prev_loss"] = previous_grad, previous_loss
        return first_loss

    @staticmethod
    def _first_direction(state: dict[str, Any], grad: Tensor) -> Tensor:
        state["old_dirs"], state["old_stps"], state["ro"], state["H_diag"] = [], [], [], 1
        return grad.neg()

    @staticmethod
    def _direction(
        state: dict[str, Any], grad: Tensor, previous_grad: Tensor, d: Tensor, t: float, group: dict[str, Any]
    ) -> Tensor:
        """-H g by the two loops over the remembered changes y of the gradient and s of the parameters."""
        ys, ss, ro = state["old_dirs"], state["old_stps"], state["ro"]
        y, s = grad - previous_grad, d * t
        curvature = y.dot(s)
        if float(curvature) > 1e-10:
            if len(ys) == group["history_size"]:
                for memory in (ys, ss, ro):
                    memory.pop(0)
            ys.append(y)
            ss.append(s)
            ro.append(1.0 / curvature)
            state["H_diag"] = curvature / y.dot(y)
        al = state.setdefault("al", [None] * group["history_size"])
        q = grad.neg()
        for i in range(len(ys) - 1, -1, -1):
            al[i] = ss[i].dot(q) * ro[i]
            q.sub_(ys[i] * al[i])
        r = q * state["H_diag"]
        for i in range(len(ys)):
            r.add_(ss[i] * (al[i] - ys[i].dot(r) * ro[i]))
        return r
