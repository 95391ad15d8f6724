"""The update rules: one fused kernel a rule, which reads a parameter once and writes it and its state in place.

Each function below takes the options that change the formula and returns the kernel; the numbers that vary from
step to step are arguments of the kernel, in the order of `inputs`. `updates` names what is written.

p: parameter, g: gradient; the rest is named as in the state_dict of its optimiser.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from flambeau.kernels import expr as E
from flambeau.kernels.expr import Expr, scalar, sqrt, var, where
from flambeau.kernels.ufunc import Kernel, kernel

p, g = var("p"), var("g")
lr, decay, eps = scalar("lr"), scalar("decay"), scalar("eps")


class Rule:
    """A kernel that writes in place: `rule(p, g, ..., numbers)` updates the first arrays named in `updates`."""

    def __init__(self, made: Kernel, writes: tuple[int, ...]) -> None:
        self.kernel, self.writes = made, writes
        self.functions: dict[np.dtype, Callable] = {}

    def __call__(self, *args: Any) -> None:
        dtype = args[0].dtype
        function = self.functions.get(dtype)
        if function is None:
            function = self.functions[dtype] = self.kernel.ufunc_for(dtype)
        function(*args, out=tuple([args[i] for i in self.writes]))


def rule(inputs: str) -> Callable[[Callable[..., dict[str, Expr]]], Callable[..., Rule]]:
    """Turn a function of options that returns {updated variable: its new value} into one that returns the Rule."""
    names = tuple(inputs.split())

    def wrap(formula: Callable[..., dict[str, Expr]]) -> Callable[..., Rule]:
        @functools.cache
        def make(*options: Any) -> Rule:
            updates = formula(*options)
            label = "_".join([formula.__name__, *(str(int(o)) for o in options)])
            made = kernel(list(updates.values()), names, label)
            return Rule(made, tuple(names.index(n) for n in updates))

        make.__doc__ = formula.__doc__
        return make

    return wrap


def _lerp(a: Expr, b: Expr, weight: Expr) -> Expr:
    return a + weight * (b - a)


def _gradient(maximize: bool, l2: bool) -> Expr:
    """The gradient to descend along, with the weight decay that is a part of it."""
    direction = -g if maximize else g
    return direction + decay * p if l2 else direction


@rule("p g lr decay")
def sgd(maximize: bool, l2: bool) -> dict[str, Expr]:
    """p ← p - lr g"""
    return {"p": p - lr * _gradient(maximize, l2)}


@rule("p g buf lr decay momentum keep")
def sgd_momentum(maximize: bool, l2: bool, nesterov: bool) -> dict[str, Expr]:
    """b ← momentum b + (1 - dampening) g; p ← p - lr b, or p - lr (g + momentum b)"""
    momentum = scalar("momentum")
    d = _gradient(maximize, l2)
    buf = var("buf") * momentum + scalar("keep") * d
    return {"p": p - lr * (d + momentum * buf if nesterov else buf), "buf": buf}


@rule("p g m v vmax step_size root2 eps decay keep1 beta2 keep2")
def adam(maximize: bool, l2: bool, decoupled: bool, amsgrad: bool) -> dict[str, Expr]:
    """m ← β₁ m + (1 - β₁) g; v ← β₂ v + (1 - β₂) g²; p ← p - lr m̂ / (√v̂ + eps)

    step_size = lr / (1 - β₁ᵗ), root2 = √(1 - β₂ᵗ); decoupled decay multiplies p by `decay` = 1 - lr λ first.
    """
    d = _gradient(maximize, l2)
    start = p * decay if decoupled else p
    m = _lerp(var("m"), d, scalar("keep1"))
    v = var("v") * scalar("beta2") + scalar("keep2") * d * d
    top = E.maximum(var("vmax"), v) if amsgrad else v
    new = {"p": start - scalar("step_size") * (m / (sqrt(top) / scalar("root2") + eps)), "m": m, "v": v}
    return {**new, "vmax": top} if amsgrad else new


@rule("p g square grad_avg buf lr alpha keep eps decay momentum")
def rmsprop(maximize: bool, l2: bool, centered: bool, momentum: bool) -> dict[str, Expr]:
    """s ← α s + (1 - α) g²; p ← p - lr g / (√s + eps), s less the square of the mean gradient if centered"""
    d = _gradient(maximize, l2)
    square = var("square") * scalar("alpha") + scalar("keep") * d * d
    new = {"square": square}
    if centered:
        new["grad_avg"] = _lerp(var("grad_avg"), d, scalar("keep"))
        root = sqrt(square - new["grad_avg"] * new["grad_avg"]) + eps
    else:
        root = sqrt(square) + eps
    if momentum:
        new["buf"] = var("buf") * scalar("momentum") + d / root
        return {"p": p - lr * new["buf"], **new}
    return {"p": p - lr * (d / root), **new}


@rule("p g sum lr eps decay")
def adagrad(maximize: bool, l2: bool) -> dict[str, Expr]:
    """s ← s + g²; p ← p - lr g / (√s + eps)"""
    d = _gradient(maximize, l2)
    total = var("sum") + d * d
    return {"p": p - lr * (d / (sqrt(total) + eps)), "sum": total}


@rule("p g square delta lr rho keep eps decay")
def adadelta(maximize: bool, l2: bool) -> dict[str, Expr]:
    """s ← ρ s + (1 - ρ) g²; Δ = √(d + eps) / √(s + eps) g; d ← ρ d + (1 - ρ) Δ²; p ← p - lr Δ"""
    d = _gradient(maximize, l2)
    rho, keep, delta = scalar("rho"), scalar("keep"), var("delta")
    square = var("square") * rho + keep * d * d
    move = sqrt(delta + eps) / sqrt(square + eps) * d
    return {"p": p - lr * move, "square": square, "delta": delta * rho + keep * move * move}


@rule("p g m norm lr keep1 beta2 eps decay")
def adamax(maximize: bool, l2: bool) -> dict[str, Expr]:
    """m ← β₁ m + (1 - β₁) g; u ← max(β₂ u, |g| + eps); p ← p - lr m / u, lr over 1 - β₁ᵗ"""
    d = _gradient(maximize, l2)
    m = _lerp(var("m"), d, scalar("keep1"))
    norm = E.maximum(var("norm") * scalar("beta2"), E.abs(d) + eps)
    return {"p": p - lr * (m / norm), "m": m, "norm": norm}


@rule("p g m v lr_g lr_m correction2 eps decay keep1 beta2 keep2")
def nadam(maximize: bool, l2: bool, decoupled: bool) -> dict[str, Expr]:
    """Adam with Nesterov's momentum: p ← p - lr_g g / d - lr_m m / d, d = √(v / (1 - β₂ᵗ)) + eps"""
    d = _gradient(maximize, l2)
    start = p * decay if decoupled else p
    m = _lerp(var("m"), d, scalar("keep1"))
    v = var("v") * scalar("beta2") + scalar("keep2") * d * d
    root = sqrt(v / scalar("correction2")) + eps
    return {"p": start - scalar("lr_g") * (d / root) - scalar("lr_m") * (m / root), "m": m, "v": v}


@rule("p g m v lr rectified eps decay keep1 beta2 keep2")
def radam(maximize: bool, l2: bool, decoupled: bool, adaptive: bool) -> dict[str, Expr]:
    """Adam whose variance is trusted once it can be: p ← p - lr m · rectified / (√v + eps), or p - lr m"""
    d = _gradient(maximize, l2)
    start = p * decay if decoupled else p
    m = _lerp(var("m"), d, scalar("keep1"))
    v = var("v") * scalar("beta2") + scalar("keep2") * d * d
    step = lr * m * (scalar("rectified") / (sqrt(v) + eps)) if adaptive else lr * m
    return {"p": start - step, "m": m, "v": v}


@rule("p g prev size shrink grow smallest largest")
def rprop(maximize: bool) -> dict[str, Expr]:
    """Each step size grows where the gradient keeps its sign and shrinks where it turns; p ← p - sign(g) size"""
    d = -g if maximize else g
    agreement = d * var("prev")
    turned = E.lt(agreement, 0)
    factor = where(E.gt(agreement, 0), scalar("grow"), where(turned, scalar("shrink"), 1.0))
    size = E.minimum(E.maximum(var("size") * factor, scalar("smallest")), scalar("largest"))
    d = where(turned, 0.0, d)
    return {"p": p - E.sign(d) * size, "prev": d, "size": size}


@rule("p g average eta mu shrink decay")
def asgd(maximize: bool, l2: bool, averaging: bool) -> dict[str, Expr]:
    """p ← (1 - λ η) p - η g; average ← average + μ (p - average), or p itself before averaging begins"""
    new = p * scalar("shrink") - scalar("eta") * _gradient(maximize, l2)
    return {"p": new, "average": _lerp(var("average"), new, scalar("mu")) if averaging else new}
