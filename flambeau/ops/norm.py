"""Normalisation: batch, layer, group, instance, root mean square, local response, and unit vectors.

Each is one fused operator; its gradient uses the statistics that the forward pass found. Where the gradient itself is
differentiated, the same formula in public operators takes its place.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from ..autograd.inplace import changed
from ..autograd.primitive import primitive
from ..autograd.transforms.batched import at, batched, innermost, is_batched, without
from ..core.dtypes import SCALAR_NAMES
from ..core.errors import error
from ..core.modes import Modes, mode, reset_mode, set_mode
from ..core.modes import full as full_modes
from ..core.size import Size
from ..core.tensor import Tensor, wrap
from ..kernels import norm as kernels
from .conv import as_batch, as_groups, from_batch, from_groups
from .matmul import folded, of_all
from .public import publish, write_out


def wrapped(arrays: tuple[Any, ...], wanted: tuple[bool, ...]) -> tuple[Any, ...]:
    """Gradients as tensors, None for those that nobody wants."""
    return tuple([wrap(a) if n else None for a, n in zip(arrays, wanted)])


def like(d: np.ndarray | None, t: Tensor | None) -> np.ndarray | None:
    """A gradient in the dtype of what it belongs to: weights may be wider than the input."""
    return d if d is None or t is None or d.dtype == t._a.dtype else d.astype(t._a.dtype)


def along_channels(v: Tensor, ndim: int) -> Tensor:
    return v.reshape(-1, *(1,) * (ndim - 2))


def affine(out: Tensor, w: Tensor | None, b: Tensor | None) -> Tensor:
    if w is not None:
        out = out * w
    return out if b is None else out + b


def standardised(x: Tensor, dims: tuple[int, ...], eps: float) -> Tensor:
    """``(x - mean) / sqrt(var + eps)`` in public operators."""
    centred = x - x.mean(dims, keepdim=True)
    return centred * ((centred * centred).mean(dims, keepdim=True) + eps).rsqrt()


# ---- batch ------------------------------------------------------------------------------------------------------------
def _batch_composite(x: Any, w: Any, b: Any, mean: Any, var: Any, momentum: Any, eps: Any) -> Tensor:
    n = x._a.ndim
    out = standardised(x, (0, *range(2, n)), eps)
    return affine(out, None if w is None else along_channels(w, n), None if b is None else along_channels(b, n))


def _batch_grads(g: Any, x: Any, w: Any, b_shape: Any, m: Any, v: Any, eps: Any, needs: Any) -> Any:
    dx, dw, db = kernels.batch_norm_backward(g._a, x._a, None if w is None else w._a, m._a, v._a, eps)
    return wrapped((dx, like(dw, w), like(db, w)), needs)


def _batch_batch(info: Any, x: Any, w: Any, b: Any, mean: Any, var: Any, momentum: Any, eps: Any) -> Tensor:
    if not info.has("x"):
        return _own_affine(info, _batch_norm(x, None, None, mean, var, momentum, eps), w, b)
    out = _batch_norm(*_as_channels(info, ("x", x), ("w", w), ("b", b)), mean, var, momentum, eps)
    return from_groups(out, info.size)


def _as_channels(info: Any, x: tuple[str, Any], *vectors: tuple[str, Any]) -> list[Any]:
    """The examples as further channels: (B, N, C, ...) -> (N, B C, ...), and their vectors (B, C) -> (B C,)."""
    return [as_groups(full(info, *x)), *[None if t is None else full(info, name, t).reshape(-1) for name, t in vectors]]


@primitive("native_batch_norm", vjp=_batch_grads, aux=("m", "v"), composite=_batch_composite, batch=_batch_batch)
def _batch_norm(x: Any, w: Any, b: Any, /, mean: Any, var: Any, momentum: Any, eps: Any) -> Any:
    """With the batch's statistics; ``mean`` and ``var``, arrays or None, move towards them."""
    out, m, v = kernels.batch_norm(x, w, b, eps)
    if mean is not None:
        mean += ((m - mean) * momentum).astype(mean.dtype, copy=False)
    if var is not None:
        n = x.size // max(1, x.shape[1])
        var += ((v * (n / max(1, n - 1)) - var) * momentum).astype(var.dtype, copy=False)
    return out, m, v


def _fixed_composite(x: Any, w: Any, b: Any, mean: Any, var: Any, eps: Any) -> Tensor:
    n = x._a.ndim
    out = (x - along_channels(mean, n)) * (along_channels(var, n) + eps).rsqrt()
    return affine(out, None if w is None else along_channels(w, n), None if b is None else along_channels(b, n))


def _fixed_grads(g: Any, x: Any, w: Any, mean: Any, var: Any, eps: Any, needs: Any) -> Any:
    m, v = (s._a.astype(x._a.dtype, copy=False) if s._a.dtype.itemsize > 2 and x._a.dtype.itemsize > 2 else s._a for s in (mean, var))
    dx, dw, db = kernels.batch_norm_backward(g._a, x._a, None if w is None else w._a, m, v, eps, False)
    return wrapped((dx, like(dw, w), like(db, w), None, None), (*needs[:3], False, False))


def _fixed_batch(info: Any, x: Any, w: Any, b: Any, mean: Any, var: Any, eps: Any) -> Tensor:
    names = ("w", "b", "mean", "var")
    if not any([info.has(n) for n in names]):
        return from_batch(_batch_norm_fixed(as_batch(x), w, b, mean, var, eps), info.size)
    out = _batch_norm_fixed(*_as_channels(info, ("x", x), *zip(names, (w, b, mean, var))), eps)
    return from_groups(out, info.size)


@primitive("batch_norm_fixed", node="NativeBatchNormBackward0", vjp=_fixed_grads, composite=_fixed_composite, batch=_fixed_batch)
def _batch_norm_fixed(x: Any, w: Any, b: Any, mean: Any, var: Any, /, eps: Any) -> Any:
    return kernels.batch_norm_inference(x, w, b, mean, var, eps)


def _check_channels(what: str, t: Tensor | None, channels: int) -> None:
    if t is not None and t._a.size != channels:
        raise error(RuntimeError, f"{what} should contain {channels} elements not {t._a.size}")


def _check_floating(kernel: str, x: Tensor) -> None:
    if x._a.dtype.kind not in "fV":
        raise error(NotImplementedError, f"\"{kernel}\" not implemented for '{SCALAR_NAMES[x.dtype]}'")


def batch_norm(
    input: Tensor, running_mean: Tensor | None, running_var: Tensor | None, weight: Tensor | None = None,
    bias: Tensor | None = None, training: bool = False, momentum: float = 0.1, eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    """``(x - mean) / sqrt(var + eps) * weight + bias`` for each channel of (N, C, ...).

    In training the statistics are the batch's, and the running ones, where given, move towards them by ``momentum``
    (the variance being the unbiased one); else the running ones are used. ValueError for one value a channel in training.

    >>> import flambeau as torch
    >>> torch.nn.functional.batch_norm(torch.tensor([[1.], [3.]]), None, None, training=True, eps=0.)
    tensor([[-1.],
            [ 1.]])
    """
    shape = input._a.shape
    if training and (not shape or input._a.size == shape[min(1, len(shape) - 1)]) and len(shape) > 1:
        if prod(shape) // max(1, shape[1]) == 1:
            raise error(ValueError, f"Expected more than 1 value per channel when training, got input size {Size(shape)}",
                        hint="Use a batch of two or more, or eval mode.")
    if len(shape) < 2:
        raise error(IndexError, f"Dimension out of range (expected to be in range of [-{len(shape) or 1}, {(len(shape) or 1) - 1}], but got 1)")
    return _batch(input, running_mean, running_var, weight, bias, training, momentum, eps)


def _batch(x: Any, mean: Any, var: Any, w: Any, b: Any, training: bool, momentum: Any, eps: float) -> Tensor:
    c = x._a.shape[1] if x._a.ndim > 1 else 0
    for what, t in (("running_mean", mean), ("running_var", var), ("weight", w), ("bias", b)):
        _check_channels(what, t, c)
        if t is None and not training and what.startswith("running"):
            raise error(RuntimeError, f"{what} must be defined in evaluation mode")
    _check_floating("batch_norm", x)
    if not training:
        return _batch_norm_fixed(x, w, b, mean, var, eps)
    if mean is not None or var is not None:
        level = batch_of(x, mean, var)
        if level is not None:
            return _for_examples(level, lambda *ts: _batch(*ts, True, momentum, eps), x, mean, var, w, b)
    # The running statistics change without a count of versions, as PyTorch's do: a graph that used them stays valid.
    return _batch_norm(x, w, b, None if mean is None else mean._a, None if var is None else var._a, momentum or 0.0, eps)


def batch_of(*tensors: Any) -> Any:
    """The innermost vmap that any of them is batched by, or None."""
    m = mode()
    return innermost(tensors) if m.__class__ is Modes and m.batch else None


def _for_examples(level: Any, op: Any, x: Any, mean: Any, var: Any, w: Any, b: Any) -> Tensor:
    """``op`` where running statistics change inside vmap: every example has its own, and is further channels."""
    if not all([is_batched(t, level) for t in (mean, var) if t is not None]):
        raise error(
            RuntimeError,
            "Batch norm got a batched tensor as input while the running_mean or running_var, which will be updated in place, were not "
            "batched.\nIf you are using a module and do not need eval mode, please set `track_running_stats` to be False.If you are using "
            "a prebuilt module and do not need eval mode, please see the functorch website for resources on how to patch your module to "
            "work with vmap",
            hint="torch.func.replace_all_batch_norm_modules_(model) takes the statistics out.",
        )
    token = set_mode(without(full_modes(), level))
    try:
        statistics = [None if t is None else t._value.view(-1) for t in (mean, var)]
        weights = [None if t is None else at(t, level).reshape(-1) for t in (w, b)]
        out = op(as_groups(at(x, level)), *statistics, *weights)
        return batched(from_groups(out, level.size), level)
    finally:
        reset_mode(token)


def torch_batch_norm(
    input: Tensor, weight: Tensor | None, bias: Tensor | None, running_mean: Tensor | None, running_var: Tensor | None,
    training: bool, momentum: float, eps: float, cudnn_enabled: bool = True,
) -> Tensor:  # fmt: skip
    """``nn.functional.batch_norm``, its arguments in another order; ``cudnn_enabled`` changes nothing on the CPU."""
    return _batch(input, running_mean, running_var, weight, bias, training, momentum, eps)


def native_batch_norm(
    input: Tensor, weight: Tensor | None, bias: Tensor | None, running_mean: Tensor | None, running_var: Tensor | None,
    training: bool, momentum: float, eps: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Batch normalisation, and in training the mean and the reciprocal standard deviation that were used."""
    out = _batch(input, running_mean, running_var, weight, bias, training, momentum, eps)
    if not training:
        none = wrap(np.empty(0, input._a.dtype))
        return out, none, none
    x = input.detach()
    dims = (0, *range(2, x._a.ndim))
    mean = x.mean(dims, keepdim=True)
    rstd = (((x - mean) * (x - mean)).mean(dims) + eps).rsqrt()
    return out, mean.reshape(-1), rstd


# ---- layer ------------------------------------------------------------------------------------------------------------
def _layer_composite(x: Any, w: Any, b: Any, axes: Any, eps: Any) -> Tensor:
    return affine(standardised(x, tuple(range(-axes, 0)), eps), w, b)


def _layer_grads(g: Any, x: Any, w: Any, m: Any, r: Any, axes: Any, needs: Any) -> Any:
    dx, dw, db = kernels.layer_norm_backward(g._a, x._a, None if w is None else w._a, m._a, r._a, axes)
    return wrapped((dx, like(dw, w), like(db, w)), needs)


def _layer_batch(info: Any, x: Any, w: Any, b: Any, axes: Any, eps: Any) -> Tensor:
    x = info.full(x, info.has("x"))
    if not (info.has("w") or info.has("b")):
        return _layer_norm(x, w, b, axes, eps)
    return _layer_norm_each(x, full(info, "w", w), full(info, "b", b), axes, eps)


def full(info: Any, name: str, t: Any) -> Any:
    return None if t is None else info.full(t, info.has(name))


@primitive("native_layer_norm", vjp=_layer_grads, aux=("m", "r"), composite=_layer_composite, batch=_layer_batch)
def _layer_norm(x: Any, w: Any, b: Any, /, axes: Any, eps: Any) -> Any:
    return kernels.layer_norm(x, w, b, axes, eps)


# Inside vmap, weights for each example: where gradients for each example are asked for, one expanded over the batch.
def _each_affine(out: Any, ndim: int, w: Any, b: Any) -> Any:
    for_each = [None if t is None else t.reshape(t.shape[0], *(1,) * (ndim - t.ndim), *t.shape[1:]) for t in (w, b)]
    return affine(out, *for_each)


def _layer_each_grads(g: Any, x: Any, w: Any, m: Any, r: Any, axes: Any, needs: Any) -> Any:
    dx, dw, db = kernels.layer_norm_backward_each(g._a, x._a, None if w is None else w._a, m._a, r._a, axes)
    return wrapped((dx, like(dw, w), like(db, w)), needs)


@primitive(
    "layer_norm_each", node="NativeLayerNormBackward0", vjp=_layer_each_grads, aux=("m", "r"),
    composite=lambda x, w, b, axes, eps: _each_affine(standardised(x, tuple(range(-axes, 0)), eps), x._a.ndim, w, b),
    batch=lambda info, x, w, b, axes, eps: folded(
        info, lambda x, w, b: _layer_norm_each(x, w, b, axes, eps), ("x", x), ("w", w), ("b", b)
    ),
)  # fmt: skip
def _layer_norm_each(x: Any, w: Any, b: Any, /, axes: Any, eps: Any) -> Any:
    """x (B, *, *own), w and b (B, *own)."""
    if of_all(w) and of_all(b):
        return kernels.layer_norm(x, *[None if a is None else a[0] for a in (w, b)], axes, eps)
    out, m, r = kernels.layer_norm(x, None, None, axes, eps)
    return _each_affine(out, x.ndim, w, b).astype(x.dtype, copy=False), m, r


def _normalized(name: str, x: Tensor, shape: Any, w: Tensor | None, b: Tensor | None) -> int:
    """How many dimensions are normalised, checked."""
    if not isinstance(shape, (tuple, list)):
        raise error(TypeError, f"{name}(): argument 'normalized_shape' (position 2) must be tuple of ints, not {type(shape).__name__}")
    own = tuple([int(n) for n in shape])
    if not own:
        raise error(
            RuntimeError,
            "Expected normalized_shape to be at least 1-dimensional, i.e., containing at least one element, but got "
            "normalized_shape = []",
        )
    for what, t in (("weight", w), ("bias", b)):
        if t is not None and t._a.shape != own:
            raise error(
                RuntimeError,
                f"Expected {what} to be of same shape as normalized_shape, but got {what} of shape {list(t._a.shape)} and "
                f"normalized_shape = {list(own)}",
            )
    if name == "rms_norm" and x._a.ndim < len(own):
        raise error(ValueError, f"Input tensor must have at least {len(own)} dimensions, but got {x._a.ndim}")
    if x._a.shape[x._a.ndim - len(own) :] != own or x._a.ndim < len(own):
        star = "*" if name == "rms_norm" else "*, "
        raise error(
            RuntimeError,
            f"Given normalized_shape={list(own)}, expected input with shape [{star}{', '.join(map(str, own))}], but got input of "
            f"size{list(x._a.shape)}",
            hint="Layer normalisation takes the last dimensions.",
        )
    return len(own)


def layer_norm(
    input: Tensor, normalized_shape: Any, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """``(x - mean) / sqrt(var + eps) * weight + bias``, statistics over the last dimensions, whose shape is given.

    >>> import flambeau as torch
    >>> torch.nn.functional.layer_norm(torch.tensor([[1., 3.]]), (2,), eps=0.)
    tensor([[-1.,  1.]])
    """
    axes = _normalized("layer_norm", input, normalized_shape, weight, bias)
    for t in (weight, bias):
        if t is not None and t._a.dtype != input._a.dtype and (input._a.dtype.itemsize != 2 or t._a.dtype.name != "float32"):
            raise error(RuntimeError, "mixed dtype (CPU): all inputs must share same datatype.")
    _check_floating("LayerNormKernelImpl", input)
    return _layer_norm(input, weight, bias, axes, eps)


def torch_layer_norm(
    input: Tensor, normalized_shape: Any, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> Tensor:  # fmt: skip
    """``nn.functional.layer_norm``; ``cudnn_enable`` changes nothing on the CPU."""
    return layer_norm(input, normalized_shape, weight, bias, eps)


def native_layer_norm(
    input: Tensor, normalized_shape: Any, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Layer normalisation, the mean and the reciprocal standard deviation."""
    out = layer_norm(input, normalized_shape, weight, bias, eps)
    x = input.detach()
    dims = tuple(range(-len(normalized_shape), 0))
    mean = x.mean(dims, keepdim=True)
    return out, mean, (((x - mean) * (x - mean)).mean(dims, keepdim=True) + eps).rsqrt()


# ---- group and instance --------------------------------------------------------------------------------------------------
def _group_composite(x: Any, w: Any, b: Any, groups: Any, eps: Any) -> Tensor:
    n, shape = x._a.ndim, x._a.shape
    out = standardised(x.reshape(shape[0], groups, -1), (2,), eps).reshape(shape)
    return affine(out, None if w is None else along_channels(w, n), None if b is None else along_channels(b, n))


def _group_grads(g: Any, x: Any, w: Any, m: Any, r: Any, groups: Any, needs: Any) -> Any:
    dx, dw, db = kernels.group_norm_backward(g._a, x._a, groups, None if w is None else w._a, m._a, r._a)
    return wrapped((dx, like(dw, w), like(db, w)), needs)


def _group_batch(info: Any, x: Any, w: Any, b: Any, groups: Any, eps: Any) -> Tensor:
    return _by_instance(info, lambda x, w, b: _group_norm(x, w, b, groups, eps), x, w, b)


def _by_instance(info: Any, op: Any, x: Any, w: Any, b: Any) -> Tensor:
    """A batching rule for (N, C, ...) whose instances are normalised apart: the examples' instances are put together."""
    if not (info.has("w") or info.has("b")):
        return from_batch(op(as_batch(x), w, b), info.size)
    out = from_batch(op(as_batch(x), None, None), info.size) if info.has("x") else op(x, None, None)
    return _own_affine(info, out, w, b)


def _own_affine(info: Any, out: Tensor, w: Any, b: Any) -> Tensor:
    """``affine`` of (N, C, ...), or of a batch of them, with vectors for channels of which each example may have its own."""
    n = out._a.ndim - (2 if not info.has("x") else 3)
    for_channels = [None if t is None else t.reshape(*(info.size, 1) if info.has(k) else (), -1, *(1,) * n) for k, t in (("w", w), ("b", b))]
    return affine(out, *for_channels)


@primitive("native_group_norm", vjp=_group_grads, aux=("m", "r"), composite=_group_composite, batch=_group_batch)
def _group_norm(x: Any, w: Any, b: Any, /, groups: Any, eps: Any) -> Any:
    return kernels.group_norm(x, groups, w, b, eps)


def _instance_batch(info: Any, x: Any, w: Any, b: Any, groups: Any, eps: Any, mean: Any, var: Any, momentum: Any) -> Tensor:
    return _by_instance(info, lambda x, w, b: _instance_norm(x, w, b, groups, eps, mean, var, momentum), x, w, b)


@primitive(
    "instance_norm", node="NativeBatchNormBackward0", vjp=_group_grads, aux=("m", "r", "v"),
    composite=lambda x, w, b, groups, eps, mean, var, momentum: _group_composite(x, w, b, groups, eps), batch=_instance_batch,
)  # fmt: skip
def _instance_norm(x: Any, w: Any, b: Any, /, groups: Any, eps: Any, mean: Any, var: Any, momentum: Any) -> Any:
    out, m, r = kernels.group_norm(x, groups, w, b, eps)
    if mean is not None:
        mean += ((m.mean(0) - mean) * momentum).astype(mean.dtype, copy=False)
    if var is not None:
        n = prod(x.shape[2:])
        v = (1 / (r * r) - eps).mean(0) * (n / max(1, n - 1))
        var += ((v - var) * momentum).astype(var.dtype, copy=False)
    return out, m, r, None


def group_norm(
    input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """``(x - mean) / sqrt(var + eps) * weight + bias``, statistics over each of ``num_groups`` groups of channels.

    >>> import flambeau as torch
    >>> torch.nn.functional.group_norm(torch.tensor([[1., 3., 10., 20.]]), 2, eps=0.)
    tensor([[-1.,  1., -1.,  1.]])
    """
    shape = input._a.shape
    if len(shape) < 2:
        raise error(RuntimeError, f"Expected at least 2 dimensions for input tensor but received {len(shape)}")
    if shape[0] * shape[1] // num_groups * prod(shape[2:]) == 1:
        raise error(ValueError, f"Expected more than 1 value per channel when training, got input size {list(shape)}")
    return torch_group_norm(input, num_groups, weight, bias, eps)


def torch_group_norm(
    input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Tensor:  # fmt: skip
    """``nn.functional.group_norm``; ``cudnn_enabled`` changes nothing on the CPU."""
    shape = input._a.shape
    if num_groups <= 0:
        raise error(RuntimeError, f"Expected num groups to be greater than 0, got {num_groups}")
    if shape[1] % num_groups:
        raise error(
            RuntimeError,
            f"Expected number of channels in input to be divisible by num_groups, but got input of shape {list(shape)} and "
            f"num_groups={num_groups}",
        )
    for what, t in (("weight", weight), ("bias", bias)):
        if t is not None and t._a.shape != (shape[1],):
            raise error(
                RuntimeError,
                f"Expected {what} to be a vector of size equal to the number of channels in input, but got {what} of shape "
                f"{list(t._a.shape)} and input of shape {list(shape)}",
            )
    _check_floating("GroupNormKernelImpl", input)
    return _group_norm(input, weight, bias, int(num_groups), eps)


def native_group_norm(
    input: Tensor, weight: Tensor | None, bias: Tensor | None, N: int, C: int, HxW: int, group: int, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Group normalisation, the mean and the reciprocal standard deviation of each group."""
    out = torch_group_norm(input, group, weight, bias, eps)
    x = input.detach().reshape(N, group, -1)
    mean = x.mean(2, keepdim=True)
    return out, mean.reshape(N, group), (((x - mean) * (x - mean)).mean(2) + eps).rsqrt()


def instance_norm(
    input: Tensor, running_mean: Tensor | None = None, running_var: Tensor | None = None, weight: Tensor | None = None,
    bias: Tensor | None = None, use_input_stats: bool = True, momentum: float = 0.1, eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    """``(x - mean) / sqrt(var + eps) * weight + bias``, statistics over the space of each channel of each instance."""
    shape = input._a.shape
    if use_input_stats and prod(shape[2:]) == 1:
        raise error(ValueError, f"Expected more than 1 spatial element when training, got input size {Size(shape)}")
    return torch_instance_norm(input, weight, bias, running_mean, running_var, use_input_stats, momentum, eps)


def torch_instance_norm(
    input: Tensor, weight: Tensor | None, bias: Tensor | None, running_mean: Tensor | None, running_var: Tensor | None,
    use_input_stats: bool, momentum: float, eps: float, cudnn_enabled: bool = True,
) -> Tensor:  # fmt: skip
    """``nn.functional.instance_norm``, its arguments in another order."""
    if not use_input_stats:
        if running_mean is None or running_var is None:
            raise error(RuntimeError, "Expected running_mean and running_var to be defined when use_input_stats is false")
        return _batch(input, running_mean, running_var, weight, bias, False, momentum, eps)
    c = input._a.shape[1]
    for what, t in (("running_mean", running_mean), ("running_var", running_var), ("weight", weight), ("bias", bias)):
        _check_channels(what, t, c)
    _check_floating("batch_norm", input)
    if running_mean is not None or running_var is not None:
        level = batch_of(input, running_mean, running_var)
        if level is not None:
            return _for_examples(
                level, lambda x, mean, var, w, b: torch_instance_norm(x, w, b, mean, var, True, momentum, eps),
                input, running_mean, running_var, weight, bias,
            )  # fmt: skip
    arrays = [None if t is None else t._a for t in (running_mean, running_var)]
    out = _instance_norm(input, weight, bias, c, eps, *arrays, momentum)
    for t in (running_mean, running_var):
        if t is not None:
            changed(t)
    return out


# ---- root mean square ------------------------------------------------------------------------------------------------------
def _rms_composite(x: Any, w: Any, axes: Any, eps: Any) -> Tensor:
    e = np.finfo(x._a.dtype if x._a.dtype.itemsize > 2 else np.float32).eps.item() if eps is None else eps
    out = x * ((x * x).mean(tuple(range(-axes, 0)), keepdim=True) + e).rsqrt()
    return out if w is None else out * w


def _rms_grads(g: Any, x: Any, w: Any, r: Any, axes: Any, needs: Any) -> Any:
    dx, dw = kernels.rms_norm_backward(g._a, x._a, None if w is None else w._a, r._a, axes)
    return wrapped((dx, like(dw, w)), needs)


def _rms_batch(info: Any, x: Any, w: Any, axes: Any, eps: Any) -> Tensor:
    x = info.full(x, info.has("x"))
    if w is None or not info.has("w"):
        return _rms_norm(x, w, axes, eps)
    return _rms_norm(x, None, axes, eps) * w.reshape(info.size, *(1,) * (x._a.ndim - w._a.ndim), *w._a.shape[1:])


@primitive("rms_norm", node="MulBackward0", vjp=_rms_grads, aux=("r",), composite=_rms_composite, batch=_rms_batch)
def _rms_norm(x: Any, w: Any, /, axes: Any, eps: Any) -> Any:
    return kernels.rms_norm(x, w, axes, eps)


def rms_norm(input: Tensor, normalized_shape: Any, weight: Tensor | None = None, eps: float | None = None) -> Tensor:
    """``x / sqrt(mean(x²) + eps) * weight`` over the last dimensions; ``eps`` is by default the dtype's.

    >>> import flambeau as torch
    >>> torch.rms_norm(torch.tensor([3., 4.]), (2,), eps=0.)
    tensor([0.8485, 1.1314])
    """
    axes = _normalized("rms_norm", input, normalized_shape, weight, None)
    _check_floating("rms_norm", input)
    return _rms_norm(input, weight, axes, eps)


# ---- composites -----------------------------------------------------------------------------------------------------------
def local_response_norm(input: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Tensor:
    """``x / (k + alpha mean(x² over size neighbouring channels))^beta``; a window at the edge counts zeros."""
    n = input._a.ndim
    if n < 3:
        raise error(ValueError, f"Expected 3D or higher dimensionality                          input (got {n} dimensions)")
    if not input._a.size:
        return input
    from .pool import avg_pool1d

    square = input * input
    # channels last, so that a mean over a window of one dimension is a mean over channels
    rows = square.movedim(1, -1).reshape(1, -1, input._a.shape[1])
    before = size // 2
    padded = pad_last(rows, before, size - 1 - before)
    mean = avg_pool1d(padded, size, 1).reshape(square.movedim(1, -1).shape).movedim(-1, 1)
    return input / (mean * alpha + k).pow(beta)


def pad_last(t: Tensor, before: int, after: int) -> Tensor:
    """Zeros before and after the last dimension."""
    return _pad_last(t, before, after)


@primitive(
    "pad_last", node="ConstantPadNdBackward0",
    vjp={"x": lambda g, x_shape, before, after: g[..., before : before + x_shape[-1]]},
    jvp="linear", batch={},
)  # fmt: skip
def _pad_last(x: Any, /, before: Any, after: Any) -> Any:
    return np.pad(x, [(0, 0)] * (x.ndim - 1) + [(before, after)])


def normalize(input: Tensor, p: float = 2.0, dim: Any = 1, eps: float = 1e-12, out: Tensor | None = None) -> Tensor:
    """``x / max(|x|_p, eps)`` along a dimension.

    >>> import flambeau as torch
    >>> torch.nn.functional.normalize(torch.tensor([[3., 4.]]))
    tensor([[0.6000, 0.8000]])
    """
    length = input.norm(p, dim, keepdim=True).clamp_min(eps).expand_as(input)
    r = input / length
    if out is None:
        return r
    write_out("normalize", out, r)
    return out


for _f in (batch_norm, layer_norm, group_norm, instance_norm, rms_norm, local_response_norm, normalize):
    publish(_f.__name__, _f, "nn.functional")
for _name, _f in (
    ("batch_norm", torch_batch_norm), ("layer_norm", torch_layer_norm), ("group_norm", torch_group_norm),
    ("instance_norm", torch_instance_norm), ("rms_norm", rms_norm), ("native_batch_norm", native_batch_norm),
    ("native_layer_norm", native_layer_norm), ("native_group_norm", native_group_norm),
):  # fmt: skip
    publish(_name, _f)
