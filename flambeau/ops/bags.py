"""Bags of embeddings: rows of a table, added up, averaged, or compared, bag by bag."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..autograd.primitive import primitive
from ..autograd.transforms.batched import at, innermost, is_batched, without
from ..autograd.transforms.batching import wrapped
from ..core.dtypes import FLOAT, SCALAR_NAMES
from ..core.errors import error
from ..core.modes import full, reset_mode, set_mode
from ..core.tensor import Tensor, wrap
from .indexing import embedding
from .public import publish


def _segment_sum_batch(b: Any, x: Tensor, bag: Any, bags: Any) -> Tensor:
    """The batch as further features."""
    return _segment_sum(x.movedim(0, 1), bag, bags).movedim(1, 0)


@primitive(
    "segment_sum", node="EmbeddingBagBackward0", vjp={"x": lambda g, bag: g.index_select(0, wrap(bag))}, jvp="linear", batch=_segment_sum_batch
)
def _segment_sum(x: Any, /, bag: Any, bags: Any) -> Any:
    """The sums of runs of rows; ``bag`` says, in rising order, which run a row belongs to."""
    out = np.zeros((bags, *x.shape[1:]), x.dtype)
    if bag.size:
        starts = np.flatnonzero(np.diff(bag, prepend=-1))
        out[bag[starts]] = np.add.reduceat(x, starts, axis=0)
    return out


def _segment_max(x: Tensor, bag: np.ndarray, bags: int) -> Tensor:
    """The largest of each run, feature by feature; zeros for an empty one."""
    n, features = x._a.shape
    if not n:
        return x.new_zeros((bags, features))
    starts = np.flatnonzero(np.diff(bag, prepend=-1))
    best = np.maximum.reduceat(x._a, starts, axis=0)
    each = np.repeat(best, np.diff(starts, append=n), axis=0)
    rows = np.where((x._a == each) | (x._a != x._a), np.arange(n)[:, None], n - 1)
    first = np.minimum.reduceat(rows, starts, axis=0)
    picked = x.gather(0, wrap(first))
    return _segment_sum(picked, bag[starts], bags)


def embedding_bag(
    input: Tensor, weight: Tensor, offsets: Tensor | None = None, max_norm: float | None = None, norm_type: float = 2,
    scale_grad_by_freq: bool = False, mode: str = "mean", sparse: bool = False, per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False, padding_idx: int | None = None,
) -> Tensor:  # fmt: skip
    """Sums, means or maxima of rows of ``weight`` (rows, features), one for each bag of indices.

    Bags are the rows of a 2-d ``input``, or the runs of a 1-d one that begin at ``offsets``. An empty bag gives zeros; rows
    equal to ``padding_idx`` don't count. ``per_sample_weights`` scale the rows of sums.

    >>> import flambeau as torch
    >>> table = torch.tensor([[1., 2.], [3., 4.], [5., 6.]])
    >>> torch.nn.functional.embedding_bag(torch.tensor([[0, 2]]), table)
    tensor([[3., 4.]])
    """
    if per_sample_weights is not None and per_sample_weights._a.shape != input._a.shape:
        raise error(
            ValueError,
            f"embedding_bag: If per_sample_weights ({per_sample_weights.shape}) is not None, then it must have the same shape as the "
            f"input ({input.shape})",
        )
    if weight._a.ndim != 2:
        raise error(ValueError, f"weight has to be a 2D Tensor, but got Tensor of dimension {weight._a.ndim}")
    _check_offsets(input, offsets)
    if mode not in ("sum", "mean", "max"):
        raise error(ValueError, "mode has to be one of sum, mean or max")
    if per_sample_weights is not None and mode != "sum":
        raise error(
            NotImplementedError,
            f"embedding_bag: per_sample_weights was not None. per_sample_weights is only supported for mode='sum' (got mode='{mode}'). "
            "Please open a feature request on GitHub.",
        )
    if sparse:
        raise error(NotImplementedError, "embedding_bag(sparse=True)", hint="flambeau's gradients are dense: leave sparse out.")
    every = input._everything().reshape(-1)
    if every.dtype not in (np.int64, np.int32):
        raise error(
            RuntimeError,
            "Expected tensor for argument #1 'indices' to have one of the following scalar types: Long, Int; but got "
            f"torch.{SCALAR_NAMES[input.dtype]}Tensor instead (while checking arguments for embedding_bag)",
        )
    if weight.dtype.category != FLOAT:
        raise error(
            RuntimeError,
            "Expected tensor for argument #1 'weight' to have one of the following scalar types: Half, BFloat16, Float, Double; but "
            f"got torch.{SCALAR_NAMES[weight.dtype]}Tensor instead (while checking arguments for embedding_bag)",
        )
    n = weight._a.shape[0]
    wrong = np.flatnonzero((every < 0) | (every >= n))
    if wrong.size:
        raise error(
            RuntimeError, f"Index {wrong[0]} of input takes value {every[wrong[0]]} which is not in the valid range [0, {n})"
        )
    if padding_idx is not None:
        if not -n <= padding_idx < n:
            raise error(AssertionError, "padding_idx must be within the number of embeddings")
        padding_idx %= n
    return _bags(input, weight, offsets, per_sample_weights, include_last_offset, (n, max_norm, norm_type, scale_grad_by_freq, mode, padding_idx))


def _bags(input: Tensor, weight: Tensor, offsets: Tensor | None, scales: Tensor | None, last: bool, options: tuple[Any, ...]) -> Tensor:
    """What ``embedding_bag`` computes, of arguments that are checked; ``options`` begin with the rows of one table."""
    level = innermost((input, weight, offsets, scales))
    if level is not None:
        m = full()
        token = set_mode(without(m, level))
        try:
            return wrapped(_bags_of_batch(level, input, weight, offsets, scales, last, options), level)
        finally:
            reset_mode(token)
    n, max_norm, norm_type, by_frequency, mode, padding = options
    flat = input._a.reshape(-1)
    starts = np.arange(input._a.shape[0]) * input._a.shape[1] if offsets is None else offsets._a.astype(np.int64)
    if last and offsets is not None:
        flat, starts = flat[: starts[-1]], starts[:-1]
        if scales is not None:
            scales = scales[: flat.size]
    bags = starts.size
    bag = np.repeat(np.arange(bags), np.diff(starts, append=flat.size))
    if padding is not None:
        kept = flat % n != padding
        flat, bag = flat[kept], bag[kept]
        if scales is not None:
            scales = scales.reshape(-1)[wrap(kept)]
    rows = embedding(wrap(flat), weight, None, max_norm, norm_type, by_frequency)
    if mode == "max":
        return _segment_max(rows, bag, bags)
    if scales is not None:
        rows = rows * scales.reshape(-1, 1)
    elif mode == "mean":
        counts = np.bincount(bag, minlength=bags)
        rows = rows * wrap((1 / np.maximum(counts, 1))[bag].astype(weight._a.dtype)[:, None])
    return _segment_sum(rows, bag, bags)


def _bags_of_batch(level: Any, input: Tensor, weight: Tensor, offsets: Any, scales: Any, last: bool, options: tuple[Any, ...]) -> Tensor:
    """The bags of all examples as those of one; tables of their own one below the other."""
    size, (rows, features), by_frequency = level.size, weight._a.shape, options[3]
    x = at(input, level)
    each = wrap(np.arange(size).reshape(-1, *(1,) * input._a.ndim))
    if is_batched(weight, level) or by_frequency:  # frequencies are counted in each example
        weight = at(weight, level).reshape(size * rows, features)
        x = x + each * rows
    scales = None if scales is None else at(scales, level)
    if offsets is None:
        bags, length = input._a.shape
        scales = None if scales is None else scales.reshape(size * bags, length)
        return _bags(x.reshape(size * bags, length), weight, None, scales, False, options).reshape(size, bags, features)
    length = input._a.shape[0]
    starts = at(offsets, level) + each * length  # the last offset, too: the bag behind it is dropped
    bags = starts._a.shape[1]
    scales = None if scales is None else scales.reshape(size * length)
    r = _bags(x.reshape(size * length), weight, starts.reshape(size * bags), scales, False, options).reshape(size, bags, features)
    return r.narrow(1, 0, bags - 1) if last else r


def _check_offsets(input: Tensor, offsets: Tensor | None) -> None:
    """What says where each bag begins in the flattened input."""
    if input._a.ndim == 2:
        if offsets is not None:
            raise error(
                ValueError,
                "if input is 2D, then offsets has to be None, as input is treated is a mini-batch of fixed length sequences. However, "
                f"found offsets of type {type(offsets)}",
            )
        return
    if input._a.ndim != 1:
        raise error(ValueError, f"input has to be 1D or 2D Tensor, but got Tensor of dimension {input._a.ndim}")
    if not isinstance(offsets, Tensor):
        raise error(ValueError, f"offsets has to be a 1D Tensor but got {offsets}")
    if offsets._a.ndim != 1:
        raise error(ValueError, "offsets has to be a 1D Tensor")
    if not offsets._a.size:
        return
    starts = offsets._everything()
    first, end = starts[..., 0].reshape(-1), starts[..., -1].reshape(-1)
    if first.any():
        raise error(
            RuntimeError,
            "offsets[0] has to be 0, i.e., the first sequence in the mini-batch has to start from position 0. However, got "
            f"{first[first != 0][0]}",
        )
    if end.max(initial=0) > input._a.size:
        raise error(
            RuntimeError,
            f"offsets[-1] can not be greater than input's length {input._a.size} but got offsets[-1] of {end.max()}",
        )


publish("embedding_bag", embedding_bag, "nn.functional")
