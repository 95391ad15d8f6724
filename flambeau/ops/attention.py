"""Scaled dot-product attention: one operator from queries, keys and values to their mixture.

Heads are read where they lie (a transposed view costs no copy), and the result lies (N, L, H, D) in memory, so that
merging the heads again costs none either. Saved for the gradient: the operands, the result and the probabilities.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

from ..autograd.primitive import primitive
from ..core.dtypes import C_NAMES, SCALAR_NAMES
from ..core.errors import error
from ..core.tensor import Tensor, wrap
from ..kernels import expr as E
from ..kernels import rows as row_kernels
from ..kernels import softmax as softmax_kernels
from ..kernels.matmul import matmul
from ..kernels.ufunc import LARGE, kernel
from .loss import to_shape
from .public import FUNCTIONS, publish

_p, _d, _s, _c = E.var("p"), E.var("d"), E.var("s"), E.var("c")
# from probabilities and their gradient to that of the scores: p (d - sum(p d)), scaled
_score_grad = kernel(_p * (_d - _s) * _c, ("p", "d", "s", "c"), "attention_scores_backward")

#: Rows of queries under a causal mask that are taken together.
BLOCK = 64


@lru_cache(64)
def _causal(rows: int, columns: int, dtype: Any) -> np.ndarray:
    """0 where a query may look, -inf at what comes after it."""
    mask = np.zeros((rows, columns), dtype)
    mask[~np.tri(rows, columns, dtype=bool)] = -np.inf
    mask.flags.writeable = False
    return mask


def _heads_inside(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """An array (..., H, L, D) that lies (..., L, H, D) in memory."""
    if len(shape) < 4:
        return np.empty(shape, dtype)
    return np.empty((*shape[:-3], shape[-2], shape[-3], shape[-1]), dtype).swapaxes(-3, -2)


def _dead_rows(mask: np.ndarray) -> np.ndarray | None:
    """Which rows of a mask let nothing through; None if there is no such row."""
    dead = ~mask.any(-1, keepdims=True) if mask.dtype == bool else (mask == -np.inf).all(-1, keepdims=True)
    return dead if dead.any() else None


def _blocks(rows: int, columns: int, causal: bool) -> list[tuple[int, int, int]]:
    """(first row, last row, keys that these may see): with a causal mask, what no row of a block sees isn't computed."""
    if not causal or rows != columns or rows < 2 * BLOCK:
        return [(0, rows, columns)]
    count = min(rows // BLOCK, 8)
    edges = [rows * i // count for i in range(count + 1)]
    return [(start, end, end) for start, end in zip(edges, edges[1:])]


def _attend(q: Any, k: Any, v: Any, mask: Any, /, causal: Any, scale: Any) -> Any:
    """The mixture; kept for the gradient: the probabilities of each block of queries."""
    dt = q.dtype
    fused = mask is None and scale > 0 and row_kernels.takes(q)
    if not fused:
        q = q * dt.type(scale)
    kt = k.swapaxes(-1, -2)
    rows, columns = q.shape[-2], k.shape[-2]
    out = _heads_inside((*q.shape[:-1], v.shape[-1]), dt)
    probabilities = []
    for start, end, seen in _blocks(rows, columns, causal):
        scores = matmul(q[..., start:end, :], kt[..., :seen])
        if fused:
            p = row_kernels.softmax(scores, scores, scale, start + 1 if causal else None)
            matmul(p, v[..., :seen, :], out=out[..., start:end, :])
            probabilities.append(p)
            continue
        dead = None
        if causal:
            corner = scores if start == 0 else scores[..., start:]
            corner += _causal(*corner.shape[-2:], dt)
        elif mask is not None:
            dead = _dead_rows(mask) if mask.shape[-1] else None
            scores += np.where(mask, dt.type(0), dt.type(-np.inf)) if mask.dtype == bool else mask
        p = softmax_kernels.softmax(scores, -1)
        if dead is not None:
            np.copyto(p, 0, where=dead)
        matmul(p, v[..., :seen, :], out=out[..., start:end, :])
        probabilities.append(p)
    return out, tuple(probabilities)


def _attend_grads(
    g: Any, q: Any, k: Any, v: Any, mask_shape: Any, mask_dtype: Any, out: Any, p: Any, causal: Any, scale: Any, needs: Any
) -> Any:
    g, q, k, v, out = g._a, q._a, k._a, v._a, out._a
    dt = q.dtype
    vt = v.swapaxes(-1, -2)
    fused = not needs[3] and row_kernels.takes(g)
    if fused:
        sums = None
    elif dt.kind == "V":  # einsum doesn't know bfloat16
        sums = (g.astype(np.float32) * out).sum(-1, keepdims=True).astype(dt)
    else:
        sums = np.einsum("...d,...d->...", g, out)[..., None]
    dq, dk, dv = (_heads_inside(a.shape, dt) if needed else None for a, needed in zip((q, k, v), needs))
    dm = None
    # the last block sees every key: it writes, the others add
    for (start, end, seen), pi in reversed(list(zip(_blocks(q.shape[-2], k.shape[-2], causal), p))):
        gi, add = g[..., start:end, :], end != q.shape[-2]
        if dv is not None:
            matmul(pi.swapaxes(-1, -2), gi, out=dv[..., :seen, :], accumulate=add)
        if dq is None and dk is None and not needs[3]:
            continue
        dp = matmul(gi, vt[..., :seen])
        if fused:
            ds = row_kernels.softmax_grad(dp, pi, dp, scale)
        else:
            f = (_score_grad.large if dp.size > LARGE else _score_grad.small)(dt)
            ds = f(pi, dp, sums[..., start:end, :], 1.0 if needs[3] else scale, out=dp)
        if needs[3]:
            dm = wrap(to_shape(ds, mask_shape).astype(mask_dtype.np, copy=False))
            ds = ds * dt.type(scale)
        if dq is not None:
            matmul(ds, k[..., :seen, :], out=dq[..., start:end, :])
        if dk is not None:
            matmul(ds.swapaxes(-1, -2), q[..., start:end, :], out=dk[..., :seen, :], accumulate=add)
    return tuple([None if d is None else wrap(d) for d in (dq, dk, dv)]) + (dm,)


def _attend_composite(q: Any, k: Any, v: Any, mask: Any, causal: Any, scale: Any) -> Tensor:
    return _mixed(q, k, v, mask, causal, scale, 0.0)


def _attend_batch(b: Any, q: Tensor, k: Tensor, v: Tensor, mask: Any, causal: Any, scale: Any) -> Tensor:
    q, k, v = b.full(q, b.has("q")), b.full(k, b.has("k")), b.full(v, b.has("v"))
    if mask is not None and b.has("mask"):
        mask = mask.reshape(b.size, *(1,) * (q._a.ndim - mask._a.ndim), *mask._a.shape[1:])
    return _attention(q, k, v, mask, causal, scale)


_attention = primitive(
    "scaled_dot_product_attention",
    node="ScaledDotProductFlashAttentionForCpuBackward0",
    vjp=_attend_grads,
    aux=("p",),
    composite=_attend_composite,
    batch=_attend_batch,
)(_attend)


def _mixed(q: Any, k: Any, v: Any, mask: Any, causal: bool, scale: float, dropout: float) -> Tensor:
    """The same in public operators, and with dropout."""
    from .softmax import _softmax

    scores = (q * scale) @ k.mT
    dead = None
    if causal:
        scores = scores + wrap(_causal(*scores._a.shape[-2:], scores._a.dtype))
    elif mask is not None:
        if mask._a.__class__ is not np.ndarray:  # inside vmap
            dead = (mask.logical_not() if mask._a.dtype == bool else mask == -math.inf).all(-1, True)
            bias = wrap(np.zeros((), q._a.dtype)).where(mask, -math.inf) if mask._a.dtype == bool else mask
        else:
            rows = _dead_rows(mask._a) if mask._a.shape[-1] else None
            dead = None if rows is None else wrap(rows)
            bias = wrap(np.where(mask._a, 0, -np.inf).astype(q._a.dtype)) if mask._a.dtype == bool else mask
        if dead is not None:  # rows that see nothing: finite scores, whose probabilities are then 0
            bias = bias.masked_fill(dead, 0.0)
        scores = scores + bias
    p = _softmax(scores, scores._a.ndim - 1)
    if dead is not None:
        p = p.masked_fill(dead, 0.0)
    if dropout:
        p = FUNCTIONS["nn.functional"]["dropout"](p, dropout, True)
    return p @ v


def scaled_dot_product_attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0, is_causal: bool = False,
    scale: float | None = None, enable_gqa: bool = False,
) -> Tensor:  # fmt: skip
    """``softmax(query key^T * scale + mask) value`` for (..., L, E), (..., S, E) and (..., S, Ev).

    A boolean mask is True where a query may look; a floating one is added to the scores. ``is_causal``: queries look at
    no later keys. ``scale`` is by default ``1 / sqrt(E)``. ``enable_gqa``: several heads of queries share one of keys.
    A query that may look nowhere gets zeros.

    >>> import flambeau as torch
    >>> q, k, v = torch.zeros(1, 2, 4), torch.zeros(1, 3, 4), torch.ones(1, 3, 5)
    >>> torch.nn.functional.scaled_dot_product_attention(q, k, v).shape
    torch.Size([1, 2, 5])
    """
    _check(query, key, value, attn_mask, dropout_p, is_causal)
    q, k, v = query._a, key._a, value._a
    if enable_gqa:
        key, value = _repeat_heads(query, key), _repeat_heads(query, value)
        k, v = key._a, value._a
    if scale is None:
        scale = 1 / math.sqrt(q.shape[-1]) if q.shape[-1] else 1.0
    plain = q.shape[:-2] == k.shape[:-2] == v.shape[:-2] and q.size and k.size and v.size
    if plain and not dropout_p:
        if k.shape[-1] != q.shape[-1] or v.shape[-2] != k.shape[-2]:
            raise _shape_error(q, k, v)
        if attn_mask is not None:
            _check_mask(attn_mask, (*q.shape[:-1], k.shape[-2]))
        return _attention(query, key, value, attn_mask, bool(is_causal), float(scale))
    return _mixed(query, key, value, attn_mask, bool(is_causal), float(scale), float(dropout_p))


def _check(q: Any, k: Any, v: Any, mask: Any, dropout: float, causal: bool) -> None:
    for i, (what, t) in enumerate((("query", q), ("key", k), ("value", v))):
        if not isinstance(t, Tensor):
            raise error(
                TypeError,
                f"scaled_dot_product_attention(): argument '{what}' (position {i + 1}) must be Tensor, not {type(t).__name__}",
            )
    if not q._a.dtype == k._a.dtype == v._a.dtype:
        names = [C_NAMES[t.dtype] for t in (q, k, v)]
        raise error(
            RuntimeError,
            f"Expected query, key, and value to have the same dtype, but got query.dtype: {names[0]} key.dtype: {names[1]} and "
            f"value.dtype: {names[2]} instead.",
        )
    if q._a.dtype.kind not in "fV":
        if q._a.dtype.kind == "c":
            raise error(NotImplementedError, f"\"softmax_lastdim_kernel_impl\" not implemented for '{SCALAR_NAMES[q.dtype]}'")
        raise error(RuntimeError, f"expected scalar type Float but found {SCALAR_NAMES[q.dtype]}", hint="Convert the operands.")
    if min(q._a.ndim, k._a.ndim, v._a.ndim) < 2:
        raise error(
            RuntimeError,
            f"Expected query, key, and value to all be  at least 2 dimensional, but got query.dim: {q._a.ndim} key.dim: "
            f"{k._a.ndim} and value.dim: {v._a.ndim} instead.",
        )
    if mask is not None:
        if causal:
            raise error(RuntimeError, "_scaled_dot_product_attention: Explicit attn_mask should not be set when is_causal=True",
                        hint="Pass the one or the other.")
        if mask._a.dtype != bool and mask._a.dtype != q._a.dtype and mask._a.dtype != np.float32:
            dt = C_NAMES[mask.dtype]
            raise error(
                RuntimeError,
                f"Expected attn_mask dtype to be bool or float or to match query dtype, but got attn_mask.dtype: {dt} and  "
                f"query.dtype: {C_NAMES[q.dtype]} instead.",
            )
    if not 0 <= dropout <= 1:
        raise error(RuntimeError, f"dropout probability has to be between 0 and 1, but got {dropout:g}")


def _shape_error(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> BaseException:
    batch = math.prod(q.shape[:-2])
    want, got = (q.shape[-1], k.shape[-1]) if q.shape[-1] != k.shape[-1] else (k.shape[-2], v.shape[-2])
    return error(
        RuntimeError,
        f"Expected size for first two dimensions of batch2 tensor to be: [{batch}, {want}] but got: [{batch}, {got}].",
        hint=f"query is {list(q.shape)}, key {list(k.shape)}, value {list(v.shape)}.",
    )


def _check_mask(mask: Tensor, shape: tuple[int, ...]) -> None:
    own = mask._a.shape
    for d in range(1, len(own) + 1):
        if len(shape) < d or own[-d] not in (1, shape[-d]):
            n = max(len(shape), len(own))
            raise error(
                RuntimeError,
                f"The size of tensor a ({shape[-d] if d <= len(shape) else 1}) must match the size of tensor b ({own[-d]}) at "
                f"non-singleton dimension {n - d}",
                hint=f"The mask {list(own)} has to broadcast to the scores' shape {list(shape)}.",
            )


def _repeat_heads(q: Tensor, t: Tensor) -> Tensor:
    heads, own = q._a.shape[-3], t._a.shape[-3]
    if own == heads:
        return t
    if not own or heads % own:
        raise error(RuntimeError, "Number of heads in key and value must divide the number of heads in query",
                    hint=f"query has {heads}, key or value {own}.")
    return t.repeat_interleave(heads // own, -3)


publish("scaled_dot_product_attention", scaled_dot_product_attention, "nn.functional")
