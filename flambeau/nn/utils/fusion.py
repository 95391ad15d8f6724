"""Folding a batch norm in evaluation mode into the layer before it."""

from __future__ import annotations

import copy
from typing import Any

import flambeau as fl
from flambeau.core.errors import error
from flambeau.core.tensor import Tensor
from flambeau.nn.parameter import Parameter

__all__ = ["fuse_conv_bn_eval", "fuse_conv_bn_weights", "fuse_linear_bn_eval", "fuse_linear_bn_weights"]


def _fuse(
    w: Tensor,
    b: Tensor | None,
    mean: Tensor,
    var: Tensor,
    eps: float,
    gamma: Tensor | None,
    beta: Tensor | None,
    axis: int,
) -> tuple[Parameter, Parameter]:
    """W γ / √(var + eps) and (b - mean) γ / √(var + eps) + β."""
    scale = fl.rsqrt(var + eps)
    if gamma is not None:
        scale = scale * gamma
    shape = [1] * w.dim()
    shape[axis] = -1
    shift = (-mean if b is None else b - mean) * scale
    if beta is not None:
        shift = shift + beta
    trained = w.requires_grad
    return (
        Parameter((w * scale.reshape(shape)).to(w.dtype).detach(), trained),
        Parameter(shift.to(w.dtype if b is None else b.dtype).detach(), trained if b is None else b.requires_grad),
    )


def fuse_conv_bn_weights(
    conv_w: Tensor,
    conv_b: Tensor | None,
    bn_rm: Tensor,
    bn_rv: Tensor,
    bn_eps: float,
    bn_w: Tensor | None,
    bn_b: Tensor | None,
    transpose: bool = False,
) -> tuple[Parameter, Parameter]:
    """Weight and bias of the one convolution that does what the two layers do."""
    return _fuse(conv_w, conv_b, bn_rm, bn_rv, bn_eps, bn_w, bn_b, 1 if transpose else 0)


def fuse_linear_bn_weights(
    linear_w: Tensor,
    linear_b: Tensor | None,
    bn_rm: Tensor,
    bn_rv: Tensor,
    bn_eps: float,
    bn_w: Tensor | None,
    bn_b: Tensor | None,
) -> tuple[Parameter, Parameter]:
    """Weight and bias of the one linear layer that does what the two layers do."""
    return _fuse(linear_w, linear_b, bn_rm, bn_rv, bn_eps, bn_w, bn_b, 0)


def _fused(layer: Any, bn: Any, axis: int) -> Any:
    if layer.training or bn.training:
        raise error(AssertionError, "Fusion only for eval!")
    if bn.running_mean is None or bn.running_var is None:
        raise error(AssertionError, "bn.running_mean and bn.running_var must not be None")
    fused = copy.deepcopy(layer)
    parts = _fuse(layer.weight, layer.bias, bn.running_mean, bn.running_var, bn.eps, bn.weight, bn.bias, axis)
    fused.weight, fused.bias = parts
    return fused


def fuse_conv_bn_eval(conv: Any, bn: Any, transpose: bool = False) -> Any:
    """A convolution that does what `conv` and then `bn` do, both in evaluation mode."""
    return _fused(conv, bn, 1 if transpose else 0)


def fuse_linear_bn_eval(linear: Any, bn: Any) -> Any:
    """A linear layer that does what `linear` and then `bn` do, both in evaluation mode."""
    if linear.out_features != bn.num_features and bn.num_features != 1:
        raise error(AssertionError, "To fuse, linear.out_features == bn.num_features or bn.num_features == 1")
    return _fused(linear, bn, 0)
