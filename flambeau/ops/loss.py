"""Losses.

A loss that compares element by element is one expression: from it come the loss of each element, a kernel that takes
the mean or the sum in the same pass, and both gradients. Cross entropy of class indices is one operator from the logits
to the number. The rest are composites.
"""

from __future__ import annotations

import math
import warnings
from functools import cache, lru_cache
from inspect import Parameter, Signature
from math import prod
from typing import Any

import numpy as np

from ..autograd.pointwise import Pointwise, broadcast_error, pointwise
from ..autograd.primitive import primitive
from ..core.dtypes import FLOAT, SCALAR_NAMES, result_type
from ..core.errors import error
from ..core.size import Size
from ..core.tensor import Tensor, wrap
from ..kernels import expr as E
from ..kernels import softmax as softmax_kernels
from ..kernels.diff import diff
from ..kernels.reduce import SMALL, map_reduce
from ..kernels.ufunc import LARGE, kernel
from . import softmax as soft
from .public import publish
from .takes import takes

x, y, w, p, g_ = E.var("x"), E.var("y"), E.var("w"), E.var("p"), E.var("g")
REDUCTIONS = {"none": 0, "mean": 1, "sum": 2}


def chosen(size_average: Any, reduce: Any, reduction: str) -> str:
    """The reduction, checked; the old pair of arguments, where given, goes first."""
    if size_average is not None or reduce is not None:
        reduction = "none" if reduce is False else "sum" if size_average is False else "mean"
        warnings.warn(
            f"size_average and reduce args will be deprecated, please use reduction='{reduction}' instead.", stacklevel=3
        )
    if reduction not in REDUCTIONS:
        if reduction == "elementwise_mean":
            warnings.warn(
                "reduction='elementwise_mean' is deprecated. Please use reduction='mean' instead.", stacklevel=3
            )
            return "mean"
        raise error(ValueError, f"{reduction} is not a valid value for reduction")
    return reduction


def reduced(loss: Tensor, reduction: str) -> Tensor:
    if reduction == "none":
        return loss
    return loss.mean() if reduction == "mean" else loss.sum()


# ---- element by element --------------------------------------------------------------------------------------------------
class Elementwise:
    """A loss that is one expression of its operands, and its means and sums as operators of one kernel each.

    Args:
        node: of the graph; default: what the mean and the sum of a composite have.
        grad: forms of derivatives that are better than the symbolic ones, as in ``pointwise``.
    """

    def __init__(self, name: str, expr: Any, args: str = "x y", node: str | None = None, grad: dict[str, Any] | None = None) -> None:
        self.args = tuple(args.split())
        self.point: Pointwise = pointwise(name, expr, args, node=node, grad=grad)
        grad = grad or {}
        forms = [grad[a] if a in grad else g_ * diff(expr, a) for a in self.args]
        self.slopes = [None if f is E.ZERO else kernel(f, ("g", *self.args), name + "_backward") for f in forms]
        self.mean = self._reduced("mean", node or "MeanBackward0")
        self.sum = self._reduced("sum", node or "SumBackward0")

    def _reduced(self, reduction: str, node: str) -> Any:
        expr, args, point = self.point.expr, self.args, self.point
        mean = reduction == "mean"

        def total(*xs: Any) -> Any:
            dt = xs[0].dtype
            size = max([a.size for a in xs])
            shape = xs[0].shape
            same = all([a.shape == shape for a in xs])
            if not same:
                try:
                    shape = np.broadcast_shapes(*[a.shape for a in xs])
                except ValueError as e:
                    raise broadcast_error(xs, e) from None
                size = prod(shape)
            if size < SMALL:
                r = point.kernels(dt)[0](*xs)
                r = np.add.reduce(r, axis=None, dtype=np.float32 if dt.itemsize == 2 else None)
            else:
                r = map_reduce((expr,), args, xs if same else [np.broadcast_to(a, shape) for a in xs], None)[0]
            return np.asarray(r / size if mean and size else r * math.nan if mean else r, dt)

        def grads(g: Any, *rest: Any) -> Any:
            *xs, needs = rest
            arrays = [t._a for t in xs]
            dt, shape = arrays[0].dtype, np.broadcast_shapes(*[a.shape for a in arrays])
            size = prod(shape)
            scaled = np.asarray(g._a / max(1, size), dt) if mean else g._a
            out = []
            for a, slope, needed in zip(arrays, self.slopes, needs):
                if not needed or slope is None:
                    out.append(None)
                    continue
                f = slope.large(dt) if size > LARGE else slope.small(dt)
                d = np.asarray(f(scaled, *arrays))
                if d.shape != shape:
                    d = np.broadcast_to(d, shape)
                out.append(wrap(d if a.shape == shape else to_shape(d, a.shape)))
            return tuple(out)

        def composite(*xs: Any) -> Tensor:
            return reduced(point.call(*xs), reduction)

        named = [Parameter(a, Parameter.POSITIONAL_ONLY) for a in args]
        total.__signature__ = Signature(named)  # type: ignore[attr-defined]
        grads.__signature__ = Signature(  # type: ignore[attr-defined]
            [Parameter(a, Parameter.POSITIONAL_ONLY) for a in ("g", *args, "needs")]
        )
        return primitive(f"{point.name}_{reduction}", node=node, vjp=grads, composite=composite)(total)

    def __call__(self, name: str, reduction: str, *xs: Any) -> Tensor:
        dt = xs[0]._a.dtype
        for t in xs:
            if t._a.dtype is not dt or dt.kind not in "fV":
                xs = common(name, xs)
                break
        op = self.mean if reduction == "mean" else self.sum if reduction == "sum" else self.point.call
        return op(*xs)


def to_shape(d: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Sum over what was broadcast."""
    lead = d.ndim - len(shape)
    d = d.sum(tuple(range(lead)), dtype=d.dtype)
    ones = tuple([i for i, n in enumerate(shape) if n == 1 and d.shape[i] != 1])
    return d.sum(ones, keepdims=True, dtype=d.dtype) if ones else d


def common(name: str, xs: tuple[Any, ...]) -> tuple[Tensor, ...]:
    """The operands as tensors of their common dtype, which has to be floating."""
    for i, t in enumerate(xs):
        if not isinstance(t, Tensor):
            raise error(TypeError, f"{name}(): argument '{('input', 'target', 'weight', 'pos_weight')[i]}' (position {i + 1}) "
                        f"must be Tensor, not {type(t).__name__}")
    d = result_type([t.dtype for t in xs if t._a.ndim], [t.dtype for t in xs if not t._a.ndim], [])
    if d.category != FLOAT:
        raise error(NotImplementedError, f"\"{name}_cpu\" not implemented for '{SCALAR_NAMES[d]}'",
                    hint="Losses are computed in floating point: convert the operands.")
    return tuple([t if t.dtype is d else t.to(d) for t in xs])


def warn_sizes(name: str, a: Any, b: Any) -> None:
    if a._a.shape != b._a.shape:
        warnings.warn(
            f"Using a target size ({Size(b._a.shape)}) that is different to the input size ({Size(a._a.shape)}). This will likely "
            "lead to incorrect results due to broadcasting. Please ensure they have the same size.",
            stacklevel=3,
        )


d_ = x - y
_mse = Elementwise("mse_loss", d_ * d_, node="MseLossBackward0")
_l1 = Elementwise("l1_loss", E.abs(d_))
_soft_margin = Elementwise("soft_margin_loss", E.softplus(-(y * x)), node="SoftMarginLossBackward0",
                           grad={"x": -g_ * y * E.sigmoid(-(y * x)), "y": -g_ * x * E.sigmoid(-(y * x))})


def _weighted(errors: Tensor, weight: Tensor, like: Tensor, reduction: str) -> Tensor:
    if weight._a.shape != like._a.shape:
        raise error(ValueError, "Inputs and weight must have the same size.")
    loss = errors * weight
    if reduction == "mean":
        return loss.sum() / weight.sum()
    return reduced(loss, reduction)


def mse_loss(
    input: Tensor, target: Tensor, size_average: Any = None, reduce: Any = None, reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """The mean of ``(input - target)²``, or their sum, or each of them; with ``weight`` the weighted mean.

    >>> import flambeau as torch
    >>> torch.nn.functional.mse_loss(torch.tensor([1., 2.]), torch.tensor([1., 4.]))
    tensor(2.)
    """
    if input._a.shape != target._a.shape:
        warn_sizes("mse_loss", input, target)
    reduction = chosen(size_average, reduce, reduction)
    if weight is not None:
        plain = input.dtype.category == FLOAT or target.dtype.category == FLOAT
        each = _mse("mse", "none", input, target) if plain else (input - target) ** 2
        return _weighted(each, weight, input, reduction)
    return _mse("mse", reduction, input, target)


def l1_loss(
    input: Tensor, target: Tensor, size_average: Any = None, reduce: Any = None, reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """The mean of ``|input - target|``, or their sum, or each of them."""
    if input._a.shape != target._a.shape:
        warn_sizes("l1_loss", input, target)
    reduction = chosen(size_average, reduce, reduction)
    if "c" in (input._a.dtype.kind, target._a.dtype.kind) or input.dtype.category < FLOAT > target.dtype.category:
        return reduced((input - target).abs(), reduction)
    if weight is not None:
        return _weighted(_l1("l1", "none", input, target), weight, input, reduction)
    return _l1("l1", reduction, input, target)


@lru_cache(256)
def _smooth_l1(beta: float) -> Elementwise:
    a = E.abs(d_)
    return Elementwise("smooth_l1_loss", E.where(a < beta, d_ * d_ * (0.5 / beta), a - 0.5 * beta), node="SmoothL1LossBackward0")


def smooth_l1_loss(
    input: Tensor, target: Tensor, size_average: Any = None, reduce: Any = None, reduction: str = "mean", beta: float = 1.0
) -> Tensor:
    """``d²/(2 beta)`` where ``d = |input - target| < beta``, else ``d - beta/2``."""
    if input._a.shape != target._a.shape:
        warn_sizes("smooth_l1_loss", input, target)
    reduction = chosen(size_average, reduce, reduction)
    if beta < 0:
        raise error(RuntimeError, "smooth_l1_loss does not support negative values for beta.")
    if beta == 0:
        return _l1("l1", reduction, input, target)
    return _smooth_l1(float(beta))("smooth_l1", reduction, input, target)


@lru_cache(256)
def _huber(delta: float) -> Elementwise:
    a = E.abs(d_)
    return Elementwise("huber_loss", E.where(a <= delta, 0.5 * d_ * d_, delta * (a - 0.5 * delta)), node="HuberLossBackward0")


def huber_loss(
    input: Tensor, target: Tensor, reduction: str = "mean", delta: float = 1.0, weight: Tensor | None = None
) -> Tensor:
    """``d²/2`` where ``d = |input - target| <= delta``, else ``delta (d - delta/2)``."""
    if input._a.shape != target._a.shape:
        warn_sizes("huber_loss", input, target)
    reduction = chosen(None, None, reduction)
    if delta <= 0:
        raise error(RuntimeError, "huber_loss does not support non-positive values for delta.")
    op = _huber(float(delta))
    if weight is not None:
        return _weighted(op("huber", "none", input, target), weight, input, reduction)
    return op("huber", reduction, input, target)


def soft_margin_loss(
    input: Tensor, target: Tensor, size_average: Any = None, reduce: Any = None, reduction: str = "mean"
) -> Tensor:
    """The mean of ``log(1 + exp(-target * input))``, targets 1 and -1."""
    return _soft_margin("soft_margin", chosen(size_average, reduce, reduction), input, target)


@cache
def _bce(weighted: bool) -> Elementwise:
    loss = (y - 1) * E.maximum(E.log1p(-x), -100) - y * E.maximum(E.log(x), -100)
    slope = g_ * (x - y) / E.maximum(x * (1 - x), 1e-12)
    by_target = g_ * (E.log1p(-x) - E.log(x))
    name = "BinaryCrossEntropyBackward0"
    if weighted:
        return Elementwise("binary_cross_entropy_weighted", loss * w, "x y w", name, {"x": slope * w, "y": by_target * w})
    return Elementwise("binary_cross_entropy", loss, "x y", name, {"x": slope, "y": by_target})


def binary_cross_entropy(
    input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: Any = None, reduce: Any = None,
    reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """The mean of ``-(y log x + (1 - y) log(1 - x)) * weight``; logarithms are kept above -100.

    RuntimeError unless inputs and targets lie in [0, 1].

    >>> import flambeau as torch
    >>> torch.nn.functional.binary_cross_entropy(torch.tensor([0.5]), torch.tensor([1.]))
    tensor(0.6931)
    """
    reduction = chosen(size_average, reduce, reduction)
    if input._a.shape != target._a.shape:
        raise error(
            ValueError,
            f"Using a target size ({Size(target._a.shape)}) that is different to the input size ({Size(input._a.shape)}) is "
            "deprecated. Please ensure they have the same size.",
        )
    if target._a.dtype != input._a.dtype:
        raise error(RuntimeError, f"Found dtype {SCALAR_NAMES[target.dtype]} but expected {SCALAR_NAMES[input.dtype]}")
    takes("binary_cross_entropy", input, "hf")
    for what, t in (("input", input), ("target", target)):
        if t._everything().size:
            every = t._everything()
            low, high = every.min(), every.max()
            if not (low >= 0 and high <= 1) and low == low and high == high:
                raise error(RuntimeError, f"all elements of {what} should be between 0 and 1",
                            hint="For scores without a sigmoid use binary_cross_entropy_with_logits." if what == "input" else None)
    if weight is None:
        return _bce(False)("binary_cross_entropy", reduction, input, target)
    return _bce(True)("binary_cross_entropy", reduction, input, target, expanded(weight, input._a.shape))


def expanded(weight: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A weight that broadcasts to ``shape``, checked."""
    try:
        fits = np.broadcast_shapes(weight._a.shape, shape) == shape
    except ValueError:
        fits = False
    if not fits:
        n = len(weight._a.shape)
        wrong = next(i for i in range(1, n + 1) if weight._a.shape[-i] not in (1, shape[-i] if i <= len(shape) else 1))
        raise error(
            RuntimeError,
            f"Attempting to broadcast a dimension of length {weight._a.shape[-wrong]} at -{wrong}! Mismatching argument at index 1 "
            f"had {Size(weight._a.shape)}; but expected shape should be broadcastable to {list(shape)}",
        )
    return weight


@cache
def _bce_logits(weighted: bool, scaled: bool) -> Elementwise:
    soft_ = E.log1p(E.exp(-E.abs(x))) + E.maximum(-x, 0)  # log(1 + exp(-x)), without overflow
    if scaled:
        more = 1 + (p - 1) * y
        loss, slope = (1 - y) * x + more * soft_, (1 - y) + more * (E.sigmoid(x) - 1)
        by_target, by_scale = (p - 1) * soft_ - x, y * soft_
    else:
        loss, slope = (1 - y) * x + soft_, E.sigmoid(x) - y
        by_target, by_scale = -x, soft_
    args = "x y" + " w" * weighted + " p" * scaled
    forms = {"x": slope, "y": by_target, "p": by_scale}
    grad = {a: g_ * f * w if weighted else g_ * f for a, f in forms.items() if a in args.split()}
    if weighted:
        grad["w"] = g_ * loss
        loss = loss * w
    name = "binary_cross_entropy_with_logits" + "_weighted" * weighted + "_scaled" * scaled
    return Elementwise(name, loss, args, "BinaryCrossEntropyWithLogitsBackward0", grad)


def binary_cross_entropy_with_logits(
    input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: Any = None, reduce: Any = None,
    reduction: str = "mean", pos_weight: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Binary cross entropy of ``sigmoid(input)``, without overflow; ``pos_weight`` scales the term of positive targets.

    >>> import flambeau as torch
    >>> torch.nn.functional.binary_cross_entropy_with_logits(torch.tensor([0.]), torch.tensor([1.]))
    tensor(0.6931)
    """
    reduction = chosen(size_average, reduce, reduction)
    if input._a.shape != target._a.shape:
        raise error(ValueError, f"Target size ({Size(target._a.shape)}) must be the same as input size ({Size(input._a.shape)})")
    more = [t for t in (weight, pos_weight) if t is not None]
    return _bce_logits(weight is not None, pos_weight is not None)(
        "binary_cross_entropy_with_logits", reduction, input, target, *more
    )


@cache
def _kl(log_target: bool) -> Elementwise:
    if log_target:
        return Elementwise("kl_div_log_target", E.exp(y) * (y - x), "x y", None)
    return Elementwise("kl_div", E.xlogy(y, y) - y * x, "x y", None)


def kl_div(
    input: Tensor, target: Tensor, size_average: Any = None, reduce: Any = None, reduction: str = "mean", log_target: bool = False
) -> Tensor:
    """``target (log target - input)``, the input being log-probabilities: mean, "batchmean" (sum / batch), sum or each.

    >>> import flambeau as torch
    >>> torch.nn.functional.kl_div(torch.tensor([0.5]).log(), torch.tensor([1.]), reduction="batchmean")
    tensor(0.6931)
    """
    batchmean = reduction == "batchmean" and size_average is None and reduce is None
    reduction = "sum" if batchmean else chosen(size_average, reduce, reduction)
    if reduction == "mean":
        warnings.warn(
            "reduction: 'mean' divides the total loss by both the batch size and the support size.'batchmean' divides only by "
            "the batch size, and aligns with the KL div math definition.'mean' will be changed to behave the same as "
            "'batchmean' in the next major release.",
            stacklevel=2,
        )
    loss = _kl(bool(log_target))("kl_div", reduction, input, target)
    if batchmean and input._a.ndim:
        return loss / input._a.shape[0]
    return loss


@lru_cache(64)
def _poisson(log_input: bool, full: bool, eps: float) -> Elementwise:
    loss = E.exp(x) - y * x if log_input else x - y * E.log(x + eps)
    if full:
        stirling = y * E.log(y) - y + 0.5 * E.log(2 * math.pi * y)
        loss = loss + E.where(y <= 1, 0, stirling)
    return Elementwise("poisson_nll_loss", loss, "x y", None)


def poisson_nll_loss(
    input: Tensor, target: Tensor, log_input: bool = True, full: bool = False, size_average: Any = None, eps: float = 1e-8,
    reduce: Any = None, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """``exp(x) - y x`` (or ``x - y log(x + eps)`` without ``log_input``); ``full`` adds Stirling's term for targets over 1."""
    reduction = chosen(size_average, reduce, reduction)
    return _poisson(bool(log_input), bool(full), float(eps))("poisson_nll_loss", reduction, input, target)


@cache
def _gaussian(full: bool) -> Elementwise:
    loss = 0.5 * (E.log(w) + d_ * d_ / w)
    return Elementwise("gaussian_nll_loss", loss + 0.5 * math.log(2 * math.pi) if full else loss, "x y w", None)


@primitive("raised", node="CloneBackward0", vjp={"x": lambda g: g}, jvp=lambda x_t: x_t, batch={})
def _raised(x: Any, /, low: float) -> Any:
    """At least ``low``; the gradient goes through as if nothing had been clamped."""
    return np.maximum(x, np.asarray(low, x.dtype))


def gaussian_nll_loss(
    input: Tensor, target: Tensor, var: Any, full: bool = False, eps: float = 1e-6, reduction: str = "mean"
) -> Tensor:
    """``(log var + (input - target)² / var) / 2``, variances kept above ``eps``; ``full`` adds ``log(2π) / 2``."""
    if isinstance(var, (int, float)):
        if var < 0:
            raise error(ValueError, "var has negative entry/entries")
        var = wrap(np.full(input._a.shape, var, input._a.dtype))
    elif var._everything().size and var._everything().min() < 0:
        raise error(ValueError, "var has negative entry/entries")
    shape, given = input._a.shape, var._a.shape
    if given != shape:
        if shape[:-1] == given:
            var = var.unsqueeze(-1)
        elif not (shape[:-1] == given[:-1] and given[-1] == 1) and not (
            len(shape) == len(given) and all(a == b or b == 1 for a, b in zip(shape, given))
        ):
            raise error(ValueError, "var is of incorrect size")
    if reduction not in REDUCTIONS:
        raise error(ValueError, f"{reduction} is not valid")
    if var._a.__class__ is not np.ndarray or var._a.size and var._a.min() < np.asarray(eps, var._a.dtype):
        var = _raised(var, eps)
    return _gaussian(bool(full))("gaussian_nll_loss", reduction, input, target, var)


@lru_cache(256)
def _hinge(margin: float) -> Elementwise:
    gap = margin - x
    loss = E.where(E.ne(y, 1), E.where(gap < 0, 0, gap), 0) + E.where(E.ne(y, -1), x, 0)
    return Elementwise("hinge_embedding_loss", loss, "x y", None)


def hinge_embedding_loss(
    input: Tensor, target: Tensor, margin: float = 1.0, size_average: Any = None, reduce: Any = None, reduction: str = "mean"
) -> Tensor:
    """``x`` where the target is 1, ``max(0, margin - x)`` where it is -1."""
    return _hinge(float(margin))("hinge_embedding_loss", chosen(size_average, reduce, reduction), input, target)


@lru_cache(256)
def _ranking(margin: float) -> Elementwise:
    gap = margin - w * (x - y)
    return Elementwise("margin_ranking_loss", E.where(gap < 0, 0, gap), "x y w", None)


def margin_ranking_loss(
    input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0, size_average: Any = None, reduce: Any = None,
    reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """``max(0, -target * (input1 - input2) + margin)``."""
    reduction = chosen(size_average, reduce, reduction)
    if not input1._a.ndim == input2._a.ndim == target._a.ndim:
        sizes = [Size(t._a.shape) for t in (input1, input2, target)]
        raise error(
            RuntimeError,
            "margin_ranking_loss : All input tensors should have same dimension but got sizes: "
            f"input1: {sizes[0]}, input2: {sizes[1]}, target: {sizes[2]} ",
        )
    return _ranking(float(margin))("margin_ranking_loss", reduction, input1, input2, target)


# ---- class indices -----------------------------------------------------------------------------------------------------
@lru_cache(64)
def _rows(n: int) -> np.ndarray:
    return np.arange(n)


def by_class(a: np.ndarray) -> np.ndarray:
    """(N, C, *S) as (N S, C), without a copy where the classes lie innermost already."""
    return a[None] if a.ndim == 1 else a if a.ndim == 2 else np.moveaxis(a, 1, -1).reshape(a.shape[0] * prod(a.shape[2:]), a.shape[1])


def from_rows(d: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The inverse of ``by_class``."""
    if len(shape) < 3:
        return d.reshape(shape)
    return np.moveaxis(d.reshape(shape[0], *shape[2:], shape[1]), -1, 1)


def class_indices(t: np.ndarray, classes: int, ignore: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Targets as a flat array of indices, and which of them count (None: all). IndexError for a target out of bounds."""
    flat = t.reshape(-1)
    if flat.dtype != np.int64:
        flat = flat.astype(np.int64)
    if not flat.size or flat.min() >= 0 and flat.max() < classes and not 0 <= ignore < classes:
        return flat, None
    counts = flat != ignore
    wrong = counts & ((flat < 0) | (flat >= classes))
    if wrong.any():
        raise error(IndexError, f"Target {flat[wrong][0]} is out of bounds.",
                    hint=f"There are {classes} classes: targets are 0 to {classes - 1}, or ignore_index ({ignore}).")
    return (flat, None) if counts.all() else (np.where(counts, flat, 0), counts)


def weights_of(index: np.ndarray, counts: np.ndarray | None, weight: np.ndarray | None, dtype: Any) -> np.ndarray | None:
    """The weight of each row; None if all are 1."""
    if weight is None:
        return None if counts is None else counts.astype(dtype)
    rows = weight[index].astype(dtype, copy=False)
    return rows if counts is None else rows * counts


_scaled_exp = kernel(E.exp(x) * p, ("x", "p"), "scaled_exp")


def _ce_composite(x: Any, t: Any, w: Any, ignore: Any, reduction: Any, smoothing: Any) -> Tensor:
    lp = soft._log_softmax(x, 1 if x._a.ndim > 1 else 0)
    nll = _nll(lp, t, w, ignore, reduction)
    if not smoothing:
        return nll
    dim = 1 if x._a.ndim > 1 else 0
    classes = x._a.shape[dim]
    each = lp if w is None else lp * w.reshape(-1, *(1,) * max(0, x._a.ndim - 2))
    smooth = -each.sum(dim)
    smooth = smooth * t.reshape(smooth._a.shape).ne(ignore).to(x.dtype)
    if reduction == "sum":
        smooth = smooth.sum()
    elif reduction == "mean":
        smooth = smooth.sum() / _weight_of_rows(lp, t, w, ignore).sum()
    return nll * (1 - smoothing) + smooth * (smoothing / classes)


def _ce_grads(
    g: Any, x_shape: Any, lp: Any, index: Any, rows: Any, total: Any, w: Any, reduction: Any, smoothing: Any
) -> Any:
    lp = lp._a
    n, classes = lp.shape
    dt = lp.dtype
    scale = g._a.reshape(-1, 1)  # (1, 1), or one a row
    if reduction == "mean":
        scale = (scale / total).astype(dt)
    if rows is not None:
        scale = scale * rows._a[:, None]
    index = index._a
    if not smoothing:
        d = (_scaled_exp.large if lp.size > LARGE else _scaled_exp.small)(dt)(lp, scale)
        d[_rows(n), index] -= scale[:, 0]
    else:
        # each row's target distribution q: d = scale (sum(q) softmax - q), the row's weight being in scale
        hit = (scale * (1 - smoothing)).astype(dt, copy=False)
        share = g._a.reshape(-1, 1) * (smoothing / classes)
        if reduction == "mean":
            share = share / total
        share = share.astype(dt)
        if rows is not None:
            share = share * (rows._a[:, None] != 0)
        spread = share if w is None else share * w._a.astype(dt, copy=False)
        whole = (share * classes if w is None else share * w._a.sum(dtype=dt)).astype(dt, copy=False)
        d = np.exp(lp) * (hit + whole)
        d -= spread
        d[_rows(n), index] -= np.broadcast_to(hit[:, 0], (n,))
    return wrap(from_rows(d, x_shape)), None, None


@primitive("cross_entropy_loss", node="NllLossBackward0", vjp=_ce_grads, aux=("lp", "index", "rows", "total"), composite=_ce_composite)
def _cross_entropy(x: Any, t: Any, w: Any, /, ignore: Any, reduction: Any, smoothing: Any) -> Any:
    """From logits (N, C, *S) and indices to the loss; kept for the gradient: the log-probabilities."""
    lp = softmax_kernels.log_softmax(by_class(x), -1)
    n, classes = lp.shape
    index, counts = class_indices(t, classes, ignore)
    rows = weights_of(index, counts, w, lp.dtype)
    loss = lp[_rows(n), index]
    np.negative(loss, out=loss)
    if rows is not None:
        loss *= rows
    if smoothing:
        each = -(lp.sum(1) if w is None else (lp @ w.astype(lp.dtype, copy=False)).astype(lp.dtype, copy=False))
        if counts is not None:
            each *= counts
        loss = loss * lp.dtype.type(1 - smoothing) + each * lp.dtype.type(smoothing / classes)
    if reduction == "none":
        return loss.reshape(t.shape if x.ndim > 1 else ()), lp, index, rows, None
    value = np.add.reduce(loss, dtype=np.float32 if lp.dtype.itemsize == 2 else None)
    total = float(n if rows is None else rows.sum(dtype=np.float64))
    if reduction == "mean":
        with np.errstate(all="ignore"):
            value = np.float64(value) / total
    return np.asarray(value, lp.dtype), lp, index, rows, total


def _nll_of(g: Any, t: Any, w: Any, ignore: Any, reduction: Any) -> Any:
    return _nll(g, t, w, ignore, reduction)


# Linear in the log-probabilities: the gradient is its transpose, whose gradient is the loss itself.
def _nll_kernel(x: Any, t: Any, w: Any, /, ignore: Any, reduction: Any) -> Any:
    rows = by_class(x)
    n, classes = rows.shape
    index, counts = class_indices(t, classes, ignore)
    weight = weights_of(index, counts, w, x.dtype)
    loss = -rows[_rows(n), index]
    if weight is not None:
        loss = np.where(weight == 0, 0, loss) * weight
    if reduction == "none":
        return loss.reshape(t.shape if x.ndim > 1 else ())
    value = loss.sum(dtype=np.float64)
    if reduction == "mean":
        with np.errstate(all="ignore"):
            value = value / (n if weight is None else weight.sum(dtype=np.float64))
    return np.asarray(value, x.dtype)


def _weight_of_rows(x: Tensor, t: Tensor, w: Any, ignore: int) -> Tensor:
    """What each target counts: its class's weight, 1 where there are none, 0 if it is ignored."""
    return _nll(wrap(np.full((), -1, x._a.dtype)).expand(x._a.shape), t, w, ignore, "none")  # type: ignore[attr-defined]


def _by_class_weight(x: Tensor, w: Tensor) -> Tensor:
    """Weights of each example's own, (B, C), in x, (B, C) or (B, N, C, ...), instead of beside it."""
    w = w if x._a.ndim == 2 else w.reshape(w._a.shape[0], 1, w._a.shape[1], *(1,) * (x._a.ndim - 3))
    return (x * w).masked_fill(w.eq(0), 0)


def _together(t: Tensor, single: bool) -> Tensor:
    """The rows of all examples as rows of one; an example may be a single one."""
    return t.reshape(t._a.shape[0] if single else t._a.shape[0] * t._a.shape[1], *t._a.shape[1 if single else 2 :])


def _nll_batch(b: Any, x: Tensor, t: Tensor, w: Any, ignore: int, reduction: str) -> Tensor:
    x, t = b.full(x, b.has("x")), b.full(t, b.has("t"))
    like = wrap(np.full((), -1, x._a.dtype)).expand(x._a.shape)
    if w is not None and b.has("w"):
        x, like, w = _by_class_weight(x, w), _by_class_weight(like, w), None
    single = x._a.ndim == 2
    shape = (b.size,) if single else t._a.shape
    t = t.reshape(b.size) if single else _together(t, False)
    loss = _nll(_together(x, single), t, w, ignore, "none").reshape(shape)
    if reduction == "none":
        return loss
    total = loss.reshape(b.size, prod(shape[1:])).sum(1)
    if reduction == "sum":
        return total
    return total / _nll(_together(like, single), t, w, ignore, "none").reshape(b.size, prod(shape[1:])).sum(1)


def _nll_grad_batch(b: Any, g_: Tensor, t: Tensor, w: Any, x_shape: Any, ignore: int, reduction: str) -> Tensor:
    g_, t = b.full(g_, b.has("g_")), b.full(t, b.has("t"))
    single = len(x_shape) == 1
    shape = (b.size,) if single else t._a.shape
    own, w = (w, None) if w is not None and b.has("w") else (None, w)
    rows = t.reshape(b.size) if single else _together(t, False)
    full = (b.size, *x_shape)
    if reduction == "mean":
        like = wrap(np.full((), -1, g_._a.dtype)).expand(full)
        like = like if own is None else _by_class_weight(like, own)
        g_ = g_ / _nll(_together(like, single), rows, w, ignore, "none").reshape(b.size, prod(shape[1:])).sum(1)
    if reduction != "none":
        g_ = g_.reshape(b.size, *(1,) * (len(shape) - 1)).expand(shape)
    d = _nll_grad(g_.reshape(rows._a.shape), rows, w, full if single else (b.size * x_shape[0], *x_shape[1:]), ignore, "none").reshape(full)
    return d if own is None else _by_class_weight(d, own)


def _nll_tangent(x_t: Tensor, t: Tensor, w: Any, ignore: int, reduction: str) -> Tensor:
    return _nll(x_t, t, w, ignore, reduction)


_NLL_RULE = {"x": lambda g, t, w, x_shape, ignore, reduction: _nll_grad(g, t, w, x_shape, ignore, reduction)}
_nll = primitive("nll_loss", vjp=_NLL_RULE, jvp=_nll_tangent, batch=_nll_batch)(_nll_kernel)
_nll2d = primitive("nll_loss2d", node="NllLoss2DBackward0", vjp=_NLL_RULE, jvp=_nll_tangent, batch=_nll_batch)(_nll_kernel)


@primitive(
    "nll_loss_grad", node="NllLossBackwardBackward0", vjp={"g_": _nll_of},
    jvp=lambda g__t, t, w, x_shape, ignore, reduction: _nll_grad(g__t, t, w, x_shape, ignore, reduction), batch=_nll_grad_batch,
)  # fmt: skip
def _nll_grad(g_: Any, t: Any, w: Any, /, x_shape: Any, ignore: Any, reduction: Any) -> Any:
    classes = x_shape[0] if len(x_shape) == 1 else x_shape[1]
    index, counts = class_indices(t, classes, ignore)
    weight = weights_of(index, counts, w, g_.dtype)
    d = np.zeros((index.size, classes), g_.dtype)
    scale = -g_.reshape(-1)
    if reduction == "mean":
        with np.errstate(all="ignore"):
            scale = (scale / (index.size if weight is None else weight.sum(dtype=np.float64))).astype(g_.dtype)
    d[_rows(index.size), index] = scale if weight is None else scale * weight
    return from_rows(d, x_shape)


def _check_targets(name: str, x: Any, t: Any, weight: Any) -> None:
    """What PyTorch checks of log-probabilities and class indices, in its words."""
    for what, v, i in (("input", x, 1), ("target", t, 2)):
        if not isinstance(v, Tensor):
            raise error(TypeError, f"{name}(): argument '{what}' (position {i}) must be Tensor, not {type(v).__name__}")
    s, ts = x._a.shape, t._a.shape
    if not s:
        raise error(ValueError, "Expected 1 or more dimensions (got 0)")
    if len(s) != 1 and (ts[0] if ts else 1) != s[0]:
        raise error(ValueError, f"Expected input batch_size ({s[0]}) to match target batch_size ({ts[0] if ts else 1}).")
    if len(s) <= 2:
        if len(ts) > 1:
            raise error(RuntimeError, "0D or 1D target tensor expected, multi-target not supported",
                        hint=f"Targets are class indices of shape {list(s[:1])}, or probabilities of shape {list(s)}; these have shape {list(ts)}.")
    elif len(s) == 4:
        if len(ts) != 3:
            raise error(RuntimeError, f"only batches of spatial targets supported (3D tensors) but got targets of dimension: {len(ts)}")
        if ts[1:] != s[2:]:
            raise error(RuntimeError, f"size mismatch (got input: {list(s)} , target: {list(ts)}")
    elif ts[1:] != s[2:]:
        raise error(RuntimeError, f"Expected target size {[s[0], *s[2:]]}, got {list(ts)}")
    classes = s[0] if len(s) == 1 else s[1]
    if t._a.dtype not in (np.int64, np.uint8):
        raise error(RuntimeError, f"expected target dtype to be Long or Byte, but got {SCALAR_NAMES[t.dtype]}",
                    hint="Class indices are integers: target.long().")
    if weight is not None and weight._a.size != classes:
        raise error(
            RuntimeError,
            f"weight tensor should be defined either for all {classes} classes or no classes but got weight tensor of shape: "
            f"{list(weight._a.shape)}",
        )


def nll_loss(
    input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: Any = None, ignore_index: int = -100,
    reduce: Any = None, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """``-weight[t] input[t]``: the mean (weighted), sum or each, of log-probabilities (N, C, ...) and class indices (N, ...).

    >>> import flambeau as torch
    >>> torch.nn.functional.nll_loss(torch.tensor([[-1., -2.]]), torch.tensor([1]))
    tensor(2.)
    """
    reduction = chosen(size_average, reduce, reduction)
    _check_targets("nll_loss_nd", input, target, weight)
    takes("nll_loss_out_frame" if input._a.ndim < 3 else "nll_loss2d_forward_out_frame", input, "hf")
    op = _nll if input._a.ndim < 3 else _nll2d
    return op(input, target, weight, int(ignore_index), reduction)


def cross_entropy(
    input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: Any = None, ignore_index: int = -100,
    reduce: Any = None, reduction: str = "mean", label_smoothing: float = 0.0,
) -> Tensor:  # fmt: skip
    """Cross entropy of logits (N, C, ...) or (C,), and class indices (N, ...) or class probabilities (N, C, ...).

    ``-sum_c weight[c] q[c] log_softmax(input)[c]``, ``q`` being the target's distribution, smoothed to
    ``(1 - s) q + s / C``; targets equal to ``ignore_index`` don't count.

    >>> import flambeau as torch
    >>> torch.nn.functional.cross_entropy(torch.tensor([[0., 0.]]), torch.tensor([1]))
    tensor(0.6931)
    """
    reduction = chosen(size_average, reduce, reduction)
    for what, v, i in (("input", input, 1), ("target", target, 2)):
        if not isinstance(v, Tensor):
            raise error(TypeError, f"cross_entropy_loss(): argument '{what}' (position {i}) must be Tensor, not {type(v).__name__}")
    if input._a.shape == target._a.shape:
        return _from_probabilities(input, target, weight, ignore_index, reduction, float(label_smoothing))
    if not 0.0 <= label_smoothing <= 1.0:
        raise error(RuntimeError, f"label_smoothing must be between 0.0 and 1.0. Got: {label_smoothing:g}")
    if input.dtype.category != FLOAT:
        raise error(NotImplementedError, f"\"log_softmax_lastdim_kernel_impl\" not implemented for '{SCALAR_NAMES[input.dtype]}'")
    _check_targets("cross_entropy_loss", input, target, weight)
    return _cross_entropy(input, target, weight, int(ignore_index), reduction, float(label_smoothing))


def _from_probabilities(x: Tensor, q: Tensor, weight: Tensor | None, ignore: int, reduction: str, smoothing: float) -> Tensor:
    if q.dtype.category < FLOAT:
        raise error(RuntimeError, f"Expected floating point type for target with class probabilities, got {SCALAR_NAMES[q.dtype]}",
                    hint="A target of the input's shape holds probabilities; class indices have one dimension less.")
    if ignore >= 0:
        raise error(RuntimeError, "ignore_index is not supported for floating point target")
    dim = 1 if x._a.ndim > 1 else 0
    classes = x._a.shape[dim]
    if weight is not None and weight._a.shape != (classes,):
        raise error(
            RuntimeError,
            f"cross_entropy: weight tensor should be defined either for all {classes} classes or no classes but got weight tensor "
            f"of shape: {list(weight._a.shape)}",
        )
    lp = soft.apply(soft._log_softmax, "log_softmax", x, dim, None)
    if smoothing > 0:
        q = q * (1 - smoothing) + smoothing / max(1, classes)
    each = lp * q
    if weight is not None:
        each = each * weight.reshape(-1, *(1,) * max(0, x._a.ndim - 2))
    if reduction == "none":
        return -each.sum(dim)
    loss = -each.sum()
    return loss / (x._a.size // max(1, classes) or math.nan) if reduction == "mean" else loss


# ---- margins between classes -----------------------------------------------------------------------------------------------
def multi_margin_loss(
    input: Tensor, target: Tensor, p: int = 1, margin: float = 1.0, weight: Tensor | None = None, size_average: Any = None,
    reduce: Any = None, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """``sum_i max(0, margin - x[y] + x[i])^p / C`` over the wrong classes, times ``weight[y]``."""
    reduction = chosen(size_average, reduce, reduction)
    if p not in (1, 2):
        raise error(ValueError, "only p == 1 and p == 2 supported")
    takes("multi_margin_loss_cpu_kernel", input, "f")
    rows = input if input._a.ndim == 2 else input.reshape(1, -1)
    n, classes = rows._a.shape
    index = target.reshape(-1)
    if index._a.size != n:
        raise error(
            RuntimeError,
            "multi_margin_loss: target tensor should be 1-D with size equal to the number of input samples (batch size). Expected "
            f"target size [{n}], but got {list(target._a.shape)}. Input has shape {list(input._a.shape)}.",
        )
    if weight is not None and weight._a.size != classes:
        raise error(RuntimeError, f"inconsistent weight size, expected {classes} but got {list(weight._a.shape)}")
    wrong = _wrong_classes(index, None if weight is None else weight.reshape(-1), classes, rows._a.dtype)
    gap = (rows - rows.gather(1, index.unsqueeze(1).long()) + margin).clamp_min(0)
    loss = ((gap if p == 1 else gap * gap) * wrong).sum(1) / classes
    return reduced(loss if input._a.ndim == 2 else loss.squeeze(0), reduction)


@primitive("wrong_classes", batch={})
def _wrong_classes(t: Any, w: Any, /, classes: int, dtype: Any) -> Any:
    """For targets (..., N) and weights (..., C): (..., N, C), 0 at the target, the target's weight at the other classes."""
    if t.size and (t.min() < 0 or t.max() >= classes):
        raise error(RuntimeError, "target out of range")
    wrong = (np.arange(classes) != t[..., None]).astype(dtype)
    if w is not None:
        wrong *= np.take_along_axis(w, t.astype(np.int64), -1)[..., None]
    return wrong


@primitive("margin_pairs", batch={})
def _margin_pairs(labels: Any, /, dtype: Any) -> Any:
    """Labels (..., N, C) up to the first -1: (0 in place of those behind it; 1 for each pair of a label and a class that is none)."""
    classes = labels.shape[-1]
    if labels.size and (labels.min() < -1 or labels.max() >= classes):
        raise error(RuntimeError, "argument #2 'target' is out of range")
    given = np.logical_and.accumulate(labels >= 0, -1)
    index = np.where(given, labels, 0).astype(np.int64)
    none = ~((index[..., None] == np.arange(classes)) & given[..., None]).any(-2)
    return index, (given[..., None] & none[..., None, :]).astype(dtype)


def multilabel_margin_loss(
    input: Tensor, target: Tensor, size_average: Any = None, reduce: Any = None, reduction: str = "mean"
) -> Tensor:
    """``sum max(0, 1 - (x[y_j] - x[i])) / C`` over labels y_j (those before the first -1) and classes i that are none."""
    reduction = chosen(size_average, reduce, reduction)
    if target._a.shape != input._a.shape:
        raise error(RuntimeError, f"inconsistent target size: {list(target._a.shape)} for input of size: {list(input._a.shape)}")
    takes("multilabel_margin_loss_forward_out_frame", input, "f")
    rows = input.reshape(-1, input._a.shape[-1] if input._a.ndim else 1)
    n, classes = rows._a.shape
    index, pairs = _margin_pairs(target.reshape(n, classes), rows._a.dtype)
    gap = (1 - rows.gather(1, index).unsqueeze(2) + rows.unsqueeze(1)).clamp_min(0)
    loss = (gap * pairs).sum((1, 2)) / classes
    return reduced(loss if input._a.ndim == 2 else loss.squeeze(0), reduction)


def multilabel_soft_margin_loss(
    input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: Any = None, reduce: Any = None,
    reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """The mean over classes of ``-(y log sigmoid(x) + (1 - y) log sigmoid(-x)) * weight``; then over the batch."""
    if size_average is not None or reduce is not None:
        reduction = chosen(size_average, reduce, reduction)
    if reduction not in REDUCTIONS:
        raise error(ValueError, f"{reduction} is not valid")
    if not input._a.ndim:
        raise error(IndexError, "Dimension specified as -1 but tensor has no dimensions")
    more = [] if weight is None else [weight]
    loss = _bce_logits(weight is not None, False)("multilabel_soft_margin_loss", "none", input, target, *more)
    return reduced(loss.mean(-1), reduction)


# ---- distances -----------------------------------------------------------------------------------------------------------------
def pairwise_distance(x1: Tensor, x2: Tensor, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> Tensor:
    """``|x1 - x2 + eps|_p`` along the last dimension.

    >>> import flambeau as torch
    >>> torch.pairwise_distance(torch.tensor([0., 0.]), torch.tensor([3., 4.]), eps=0.)
    tensor(5.)
    """
    return (x1 - x2 + eps).norm(p, -1, keepdim)


def pdist(input: Tensor, p: float = 2) -> Tensor:
    """``|x[i] - x[j]|_p`` for every pair of rows i < j.

    >>> import flambeau as torch
    >>> torch.pdist(torch.tensor([[0., 0.], [3., 4.]]))
    tensor([5.])
    """
    if input._a.ndim != 2:
        raise error(RuntimeError, f"pdist only supports 2D tensors, got: {input._a.ndim}D")
    if p < 0:
        raise error(RuntimeError, "pdist only supports non-negative p values")
    i, j = np.triu_indices(input._a.shape[0], 1)
    rows, columns = input.index_select(0, wrap(i)), input.index_select(0, wrap(j))
    return (rows - columns).norm(p, 1)


def cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """``x1 · x2 / (max(|x1|, eps) max(|x2|, eps))`` along a dimension, with broadcasting.

    >>> import flambeau as torch
    >>> torch.cosine_similarity(torch.tensor([1., 0.]), torch.tensor([1., 1.]), dim=0)
    tensor(0.7071)
    """
    d = result_type([t.dtype for t in (x1, x2) if t._a.ndim], [t.dtype for t in (x1, x2) if not t._a.ndim], [])
    if d.category != FLOAT:
        raise error(RuntimeError, f"expected common dtype to be floating point, yet common dtype is {SCALAR_NAMES[d]}")
    x1, x2 = (t if t.dtype is d else t.to(d) for t in (x1, x2))
    try:
        shape = np.broadcast_shapes(x1._a.shape, x2._a.shape)
    except ValueError as e:
        raise broadcast_error((x1._a, x2._a), e) from None
    # extended first, so that `dim` means the same in both
    x1, x2 = (t if t._a.shape == shape else t.expand(shape) for t in (x1, x2))
    a, b = (t / _length(t, dim).clamp_min(eps) for t in (x1, x2))
    return (a * b).sum(dim)


def _length(t: Tensor, dim: int) -> Any:
    return t.norm(2, dim, keepdim=True)


def cosine_embedding_loss(
    input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0, size_average: Any = None, reduce: Any = None,
    reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """``1 - cos`` where the target is 1, ``max(0, cos - margin)`` where it is -1."""
    reduction = chosen(size_average, reduce, reduction)
    n, sizes = target._a.ndim, (list(input1._a.shape), list(input2._a.shape))
    if n > 1:
        raise error(RuntimeError, "0D or 1D target tensor expected, multi-target not supported")
    if n == 0 and not input1._a.ndim == input2._a.ndim == 1:
        raise error(RuntimeError, f"0D target tensor expects 1D input tensors, but found inputs with sizes {sizes[0]} and {sizes[1]}.")
    if n == 1 and not input1._a.ndim == input2._a.ndim == 2:
        raise error(RuntimeError, f"1D target tensor expects 2D input tensors, but found inputs with sizes {sizes[0]} and {sizes[1]}.")
    dot = (input1 * input2).sum(n)
    tiny = 1e-12
    cos = dot / (((input1 * input1).sum(n) + tiny) * ((input2 * input2).sum(n) + tiny)).sqrt()
    same, other = target.eq(1).to(cos.dtype), target.eq(-1).to(cos.dtype)
    return reduced((1 - cos) * same + (cos - margin).clamp_min(0) * other, reduction)


def triplet_margin_loss(
    anchor: Tensor, positive: Tensor, negative: Tensor, margin: float = 1.0, p: float = 2, eps: float = 1e-6, swap: bool = False,
    size_average: Any = None, reduce: Any = None, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """``max(0, d(anchor, positive) - d(anchor, negative) + margin)``; ``swap``: the nearer of anchor and positive counts."""
    reduction = chosen(size_average, reduce, reduction)
    if margin <= 0:
        raise error(ValueError, f"margin must be greater than 0, got {margin}")
    _same_ranks(anchor, positive, negative)
    near, far = pairwise_distance(anchor, positive, p, eps), pairwise_distance(anchor, negative, p, eps)
    if swap:
        far = far.minimum(pairwise_distance(positive, negative, p, eps))
    return reduced((near - far + margin).clamp_min(0), reduction)


def _same_ranks(a: Tensor, b: Tensor, c: Tensor) -> None:
    if not a._a.ndim == b._a.ndim == c._a.ndim:
        raise error(
            RuntimeError,
            "The anchor, positive, and negative tensors are expected to have the same number of dimensions, but got: "
            f"anchor {a._a.ndim}D, positive {b._a.ndim}D, and negative {c._a.ndim}D inputs",
        )


def triplet_margin_with_distance_loss(
    anchor: Tensor, positive: Tensor, negative: Tensor, *, distance_function: Any = None, margin: float = 1.0,
    swap: bool = False, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """``triplet_margin_loss`` with a distance of one's own; by default ``pairwise_distance``."""
    if reduction not in REDUCTIONS:
        raise error(ValueError, f"{reduction} is not a valid value for reduction")
    if margin <= 0:
        raise error(ValueError, f"margin must be greater than 0, got {margin}")
    _same_ranks(anchor, positive, negative)
    distance = distance_function or pairwise_distance
    near, far = distance(anchor, positive), distance(anchor, negative)
    if swap:
        far = far.minimum(distance(positive, negative))
    return reduced((near - far + margin).clamp_min(0), reduction)


# ---- connectionist temporal classification ----------------------------------------------------------------------------------
def _log_add(*terms: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        return np.logaddexp.reduce(np.stack(terms), 0)


def _shift(a: np.ndarray, by: int) -> np.ndarray:
    """Columns moved to the right (left, if negative); -inf moves in."""
    out = np.full_like(a, -np.inf)
    if by > 0:
        out[:, by:] = a[:, :-by]
    else:
        out[:, :by] = a[:, -by:]
    return out


def _ctc_tables(lp: np.ndarray, labels: np.ndarray, lengths: np.ndarray, sizes: np.ndarray, blank: int) -> Any:
    """For each sequence the extended labels, where a step of two is allowed, and alpha: log-probabilities of prefixes."""
    time, n, _ = lp.shape
    states = 2 * labels.shape[1] + 1
    extended = np.full((n, states), blank, np.int64)
    extended[:, 1::2] = labels
    skip = np.zeros((n, states), bool)
    skip[:, 2:] = (extended[:, 2:] != blank) & (extended[:, 2:] != extended[:, :-2])
    inside = np.arange(states) < 2 * sizes[:, None] + 1
    emit = np.take_along_axis(lp, np.broadcast_to(np.where(inside, extended, 0), (time, n, states)), 2)
    emit = np.where(inside, emit, -np.inf)
    alpha = np.full((time, n, states), -np.inf)
    if time:
        alpha[0, :, :2] = emit[0, :, :2]
    for t in range(1, time):
        a = alpha[t - 1]
        alpha[t] = _log_add(a, _shift(a, 1), np.where(skip, _shift(a, 2), -np.inf)) + emit[t]
    return extended, skip, emit, inside, alpha


_WHILE_CHECKING = "(while checking arguments for ctc_loss_allocate_outputs)"


def _ctc_labels(given: np.ndarray, sizes: np.ndarray, n: int, classes: int) -> np.ndarray:
    """The targets as rows (n, longest), checked."""
    longest = int(sizes.max(initial=0))
    inside = np.arange(longest) < sizes[:, None]
    if given.ndim == 1:
        if given.size != int(sizes.sum()):
            raise error(
                RuntimeError,
                f"Expected tensor to have size {int(sizes.sum())} at dimension 0, but got size {given.size} for argument #2 'targets' "
                + _WHILE_CHECKING,
            )
        labels = np.zeros((n, longest), np.int64)
        labels[inside] = given
    else:
        if given.shape[1] < longest:
            raise error(
                RuntimeError,
                f"Expected tensor to have size at least {longest} at dimension 1, but got size {given.shape[1]} for argument #2 "
                f"'targets' {_WHILE_CHECKING}",
            )
        labels = given[:, :longest].astype(np.int64)
    used = labels[inside]
    if used.size and (used.min() < 0 or used.max() >= classes):
        raise error(RuntimeError, f"ctc_loss: target labels must lie in 0 to {classes - 1}")
    return np.where((labels >= 0) & (labels < classes), labels, 0)


def _ctc(lp: Any, given: Any, lengths: Any, sizes: Any, /, blank: Any, zero_infinity: Any) -> Any:
    wide = lp.astype(np.float64)
    time, n, classes = lp.shape
    labels = _ctc_labels(given, sizes, n, classes)
    if lengths.max(initial=0) > time:
        raise error(
            RuntimeError, f"Expected input_lengths to have value at most {time}, but got value {int(lengths.max())} {_WHILE_CHECKING}"
        )
    tables = _ctc_tables(wide, labels, lengths, sizes, blank)
    alpha = tables[-1]
    rows = np.arange(n)
    if time:
        last = alpha[np.maximum(lengths - 1, 0), rows]
    else:
        last = np.full((n, 2 * labels.shape[1] + 1), -np.inf)
    ends = [last[rows, 2 * sizes], np.where(sizes > 0, last[rows, np.maximum(2 * sizes - 1, 0)], -np.inf)]
    nothing = np.where(sizes == 0, 0.0, np.inf)
    loss = np.where(lengths == 0, nothing, -_log_add(*ends))
    out = np.where(np.isinf(loss), 0, loss) if zero_infinity else loss
    return out.astype(lp.dtype), (*tables, loss, lengths, sizes)


def _ctc_grads(g: Any, lp: Any, state: Any, zero_infinity: Any) -> Any:
    return _ctc_grad(g, lp, state, zero_infinity), None, None, None


def _ctc_batch(b: Any, lp: Tensor, given: Tensor, lengths: Tensor, sizes: Tensor, blank: int, zero_infinity: bool) -> Tensor:
    """Sequences are computed side by side already: those of all examples are."""
    lp, given = b.full(lp, b.has("lp")).movedim(0, 1), b.full(given, b.has("given"))
    lengths, sizes = b.full(lengths, b.has("lengths")), b.full(sizes, b.has("sizes"))
    time, _, n, classes = lp._a.shape
    given = given.flatten() if given._a.ndim == 2 else given.reshape(b.size * n, given._a.shape[2])
    many = lp.reshape(time, b.size * n, classes)
    return _ctc_loss(many, given, lengths.flatten(), sizes.flatten(), blank, zero_infinity).reshape(b.size, n)


def _ctc_tangent(lp_t: Tensor) -> Any:
    raise error(
        NotImplementedError,
        "Trying to use forward AD with _ctc_loss that does not support it because it has not been implemented yet.",
        hint="ctc_loss can be differentiated in reverse mode, once.",
    )


def _no_second(g: Any, needs: Any) -> Any:
    raise error(NotImplementedError, "derivative for aten::_ctc_loss_backward is not implemented",
                hint="ctc_loss can be differentiated once.")


def _ctc_grad_batch(b: Any, g_: Tensor, lp: Tensor, state: Any, zero_infinity: bool) -> Tensor:
    """Linear in the gradient of each sequence; the tables are those of one batch of sequences, for all examples."""
    one = _ctc_grad(wrap(np.ones(g_._a.shape[1:], g_._a.dtype)), lp, state, zero_infinity)
    return one * g_.reshape(b.size, 1, g_._a.shape[1], 1)


@primitive("ctc_loss_grad", node="CtcLossBackwardBackward0", vjp=_no_second, batch=_ctc_grad_batch)
def _ctc_grad(g_: Any, lp: Any, /, state: Any, zero_infinity: Any) -> Any:
    """PyTorch's gradient: exp(lp) - (posterior of each symbol), which is the logits' when a log_softmax follows."""
    extended, skip, emit, inside, alpha, loss, lengths, sizes = state
    wide = lp.astype(np.float64)
    time, n, classes = wide.shape
    rows = np.arange(n)
    out = np.zeros((time, n, classes))
    beta = np.full(alpha.shape[1:], -np.inf)
    ahead = np.zeros_like(skip)
    ahead[:, :-2] = skip[:, 2:]
    with np.errstate(all="ignore"):
        for t in range(time - 1, -1, -1):
            step = _log_add(beta, _shift(beta, -1), np.where(ahead, _shift(beta, -2), -np.inf)) + emit[t]
            start = np.full_like(beta, -np.inf)
            start[rows, 2 * sizes] = emit[t, rows, 2 * sizes]
            some = sizes > 0
            start[rows[some], 2 * sizes[some] - 1] = emit[t, rows[some], 2 * sizes[some] - 1]
            beta = np.where((lengths - 1 == t)[:, None], start, np.where((t < lengths - 1)[:, None], step, -np.inf))
            both = np.where(inside, alpha[t] + beta, -np.inf)  # the emission is counted twice
            total = np.full((n, classes), -np.inf)
            np.logaddexp.at(total, (rows[:, None], np.where(inside, extended, 0)), both)
            out[t] = np.exp(wide[t]) - np.exp(total + loss[:, None] - wide[t])
        out[np.arange(time)[:, None] >= lengths] = 0
        if zero_infinity:
            out[:, np.isinf(loss)] = 0
        out *= g_[:, None]
        if zero_infinity:
            out[:, np.isinf(loss)] = 0
    return out.astype(lp.dtype)


_ctc_loss = primitive("ctc_loss", vjp=_ctc_grads, aux=("state",), jvp=_ctc_tangent, batch=_ctc_batch)(_ctc)


def _as_lengths(v: Any) -> Tensor:
    return v.reshape(-1).long() if isinstance(v, Tensor) else wrap(np.asarray(v, np.int64).reshape(-1))


def ctc_loss(
    log_probs: Tensor, targets: Tensor, input_lengths: Any, target_lengths: Any, blank: int = 0, reduction: str = "mean",
    zero_infinity: bool = False,
) -> Tensor:  # fmt: skip
    """Minus the log-probability of each target over all its alignments with (T, N, C) or (T, C) log-probabilities.

    ``targets``: (N, S), or all of them one after the other. The mean divides each loss by its target's length first.
    ``zero_infinity``: targets that are too long for their input count nothing.
    """
    reduction = chosen(None, None, reduction)
    unbatched = log_probs._a.ndim == 2
    lp = log_probs.unsqueeze(1) if unbatched else log_probs
    time, n, classes = lp._a.shape
    lengths, sizes = _as_lengths(input_lengths), _as_lengths(target_lengths)
    if lp.dtype.category != FLOAT:
        raise error(RuntimeError, f"\"ctc_loss_cpu\" not implemented for '{SCALAR_NAMES[lp.dtype]}'")
    if not 0 <= blank < classes:
        raise error(RuntimeError, "blank must be in label range")
    for what, v in (("input_lengths", lengths), ("target_lengths", sizes)):
        if v._a.size != n:
            raise error(RuntimeError, f"{what} must be of size batch_size")
    loss = _ctc_loss(lp, targets, lengths, sizes, int(blank), bool(zero_infinity))
    if unbatched and reduction == "none":
        return loss.squeeze(0)
    if reduction == "mean":
        return (loss / sizes.clamp_min(1).to(lp.dtype)).mean()
    return reduced(loss, reduction)


for _f in (
    mse_loss, l1_loss, smooth_l1_loss, huber_loss, soft_margin_loss, binary_cross_entropy, binary_cross_entropy_with_logits,
    kl_div, poisson_nll_loss, gaussian_nll_loss, hinge_embedding_loss, margin_ranking_loss, nll_loss, cross_entropy,
    multi_margin_loss, multilabel_margin_loss, multilabel_soft_margin_loss, pairwise_distance, cosine_similarity,
    cosine_embedding_loss, triplet_margin_loss, triplet_margin_with_distance_loss, ctc_loss,
):  # fmt: skip
    publish(_f.__name__, _f, "nn.functional")
publish("pdist", pdist)
publish("pdist", pdist, "nn.functional")
publish("pairwise_distance", pairwise_distance)
publish("cosine_similarity", cosine_similarity)


# torch.name takes the number of the reduction where nn.functional takes its name
NUMBERED = ("none", "mean", "sum")


def _numbered(reduction: Any) -> str:
    return reduction if isinstance(reduction, str) else NUMBERED[reduction]


def torch_ctc_loss(
    log_probs: Tensor, targets: Tensor, input_lengths: Any, target_lengths: Any, blank: int = 0, reduction: Any = 1,
    zero_infinity: bool = False,
) -> Tensor:  # fmt: skip
    """``nn.functional.ctc_loss``; the reduction by its number: 0 none, 1 mean, 2 sum."""
    return ctc_loss(log_probs, targets, input_lengths, target_lengths, blank, _numbered(reduction), zero_infinity)


def torch_bce_with_logits(
    input: Tensor, target: Tensor, weight: Tensor | None = None, pos_weight: Tensor | None = None, reduction: Any = 1
) -> Tensor:
    """``nn.functional.binary_cross_entropy_with_logits``; the reduction by its number."""
    return binary_cross_entropy_with_logits(input, target, weight, reduction=_numbered(reduction), pos_weight=pos_weight)


def torch_kl_div(input: Tensor, target: Tensor, reduction: Any = 1, *, log_target: bool = False) -> Tensor:
    """``nn.functional.kl_div``; the reduction by its number."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return kl_div(input, target, reduction=_numbered(reduction), log_target=log_target)


def torch_poisson_nll_loss(input: Tensor, target: Tensor, log_input: bool, full: bool, eps: float, reduction: Any) -> Tensor:
    """``nn.functional.poisson_nll_loss``; the reduction by its number."""
    return poisson_nll_loss(input, target, log_input, full, eps=eps, reduction=_numbered(reduction))


def torch_cosine_embedding_loss(input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0.0, reduction: Any = 1) -> Tensor:
    """``nn.functional.cosine_embedding_loss``; the reduction by its number."""
    return cosine_embedding_loss(input1, input2, target, margin, reduction=_numbered(reduction))


def torch_hinge_embedding_loss(input: Tensor, target: Tensor, margin: float = 1.0, reduction: Any = 1) -> Tensor:
    """``nn.functional.hinge_embedding_loss``; the reduction by its number."""
    return hinge_embedding_loss(input, target, margin, reduction=_numbered(reduction))


def torch_margin_ranking_loss(input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0.0, reduction: Any = 1) -> Tensor:
    """``nn.functional.margin_ranking_loss``; the reduction by its number."""
    return margin_ranking_loss(input1, input2, target, margin, reduction=_numbered(reduction))


def torch_triplet_margin_loss(
    anchor: Tensor, positive: Tensor, negative: Tensor, margin: float = 1.0, p: float = 2.0, eps: float = 1e-6, swap: bool = False,
    reduction: Any = 1,
) -> Tensor:  # fmt: skip
    """``nn.functional.triplet_margin_loss``; the reduction by its number."""
    return triplet_margin_loss(anchor, positive, negative, margin, p, eps, swap, reduction=_numbered(reduction))


for _name, _f in (
    ("ctc_loss", torch_ctc_loss), ("binary_cross_entropy_with_logits", torch_bce_with_logits), ("kl_div", torch_kl_div),
    ("poisson_nll_loss", torch_poisson_nll_loss), ("cosine_embedding_loss", torch_cosine_embedding_loss),
    ("hinge_embedding_loss", torch_hinge_embedding_loss), ("margin_ranking_loss", torch_margin_ranking_loss),
    ("triplet_margin_loss", torch_triplet_margin_loss),
):  # fmt: skip
    publish(_name, _f)
