"""``torch.nn.functional``: what the operators publish, and composites that only networks use."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from flambeau.core.dtypes import FLOAT
from flambeau.core.errors import error
from flambeau.core.tensor import Tensor, wrap
from flambeau.nn._reduction import get_enum
from flambeau.ops import conv as _conv
from flambeau.ops.joining import cat
from flambeau.ops.public import FUNCTIONS

_published = FUNCTIONS["nn.functional"]
globals().update(_published.complete())


# ---- multi-head attention ------------------------------------------------------------------------------------------------
def _none_or_dtype(input: Tensor | None) -> Any:
    """The dtype of a tensor, None for None."""
    if input is None:
        return None
    if isinstance(input, Tensor):
        return input.dtype
    raise error(RuntimeError, "input to _none_or_dtype() must be None or torch.Tensor")


def _canonical_mask(
    mask: Tensor | None, mask_name: str, other_type: Any, other_name: str, target_type: Any, check_other: bool = True
) -> Tensor | None:
    """A mask as numbers to add to scores: truth values, True where nothing may look, become -inf and 0."""
    if mask is None:
        return None
    boolean = mask._a.dtype == bool
    if not boolean and mask.dtype.category != FLOAT:
        raise error(AssertionError, f"only bool and floating types of {mask_name} are supported")
    if check_other and other_type is not None and mask.dtype is not other_type:
        import warnings

        warnings.warn(
            f"Support for mismatched {mask_name} and {other_name} is deprecated. Use same type for both instead.", stacklevel=3
        )
    if not boolean:
        return mask
    return wrap(np.where(mask._a, -np.inf, 0.0).astype(target_type.np))


def _mha_shape_check(
    query: Tensor, key: Tensor, value: Tensor, key_padding_mask: Tensor | None, attn_mask: Tensor | None, num_heads: int
) -> bool:
    """Whether the input is a batch; AssertionError for ranks that don't go together."""
    n = query._a.ndim
    if n not in (2, 3):
        raise error(
            AssertionError, f"query should be unbatched 2D or batched 3D tensor but received {n}-D query tensor"
        )
    batched = n == 3
    kind = "batched (3-D)" if batched else "unbatched (2-D)"
    if not key._a.ndim == value._a.ndim == n:
        raise error(
            AssertionError,
            f"For {kind} `query`, expected `key` and `value` to be {n}-D but found {key._a.ndim}-D and {value._a.ndim}-D tensors "
            "respectively",
        )
    if key_padding_mask is not None and key_padding_mask._a.ndim != n - 1:
        raise error(
            AssertionError,
            f"For {kind} `query`, expected `key_padding_mask` to be `None` or {n - 1}-D but found {key_padding_mask._a.ndim}-D tensor "
            "instead",
        )
    if attn_mask is not None:
        if attn_mask._a.ndim not in (2, 3):
            raise error(
                AssertionError,
                f"For {kind} `query`, expected `attn_mask` to be `None`, 2-D or 3-D but found {attn_mask._a.ndim}-D tensor instead",
            )
        if not batched and attn_mask._a.ndim == 3:
            want = (num_heads, query._a.shape[0], key._a.shape[0])
            if attn_mask._a.shape != want:
                raise error(AssertionError, f"Expected `attn_mask` shape to be {want} but got {tuple(attn_mask._a.shape)}")
    return batched


def _projections(
    q: Tensor, k: Tensor, v: Tensor, packed: Tensor | None, bias: Tensor | None, separate: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values by their matrices, in as few products as what is the same allows."""
    linear = _published["linear"]
    if separate is None:
        assert packed is not None
        size = q._a.shape[-1]
        if k is v and q is k:
            return tuple(linear(q, packed, bias).chunk(3, -1))
        if k is v:
            wq, wkv = packed.split([size, size * 2])
            bq, bkv = (None, None) if bias is None else bias.split([size, size * 2])
            keys, values = linear(k, wkv, bkv).chunk(2, -1)
            return linear(q, wq, bq), keys, values
        ws = packed.chunk(3)
    else:
        ws = separate
        for what, w in zip(("query", "key", "value"), ws):
            if w is None:
                raise error(AssertionError, f"use_separate_proj_weight is True but {what[0]}_proj_weight is None")
    bs = (None, None, None) if bias is None else bias.chunk(3)
    return tuple([linear(x, w, b) for x, w, b in zip((q, k, v), ws, bs)])


def multi_head_attention_forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Tensor | None,
    in_proj_bias: Tensor | None,
    bias_k: Tensor | None,
    bias_v: Tensor | None,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    training: bool = True,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: Tensor | None = None,
    k_proj_weight: Tensor | None = None,
    v_proj_weight: Tensor | None = None,
    static_k: Tensor | None = None,
    static_v: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Attention of several heads, with its projections: (L, N, E) and keys (S, N, E) to (L, N, E) and the weights.

    Masks: ``key_padding_mask`` (N, S) and ``attn_mask`` (L, S) or (N heads, L, S), True where nothing may look, or numbers
    that are added to the scores. See ``nn.MultiheadAttention``.
    """
    batched = _mha_shape_check(query, key, value, key_padding_mask, attn_mask, num_heads)
    if not batched:
        query, key, value = _with_batch(query, key, value)
        if key_padding_mask is not None:
            key_padding_mask = key_padding_mask.unsqueeze(0)
    length, batch, embed = query._a.shape
    key_padding_mask = _canonical_mask(
        key_padding_mask, "key_padding_mask", _none_or_dtype(attn_mask), "attn_mask", query.dtype
    )
    if is_causal and attn_mask is None:
        raise error(
            RuntimeError,
            "Need attn_mask if specifying the is_causal hint.",
            hint="nn.Transformer.generate_square_subsequent_mask(L) makes one.",
        )
    causal = is_causal and key_padding_mask is None and not need_weights
    if causal:
        attn_mask = None
    else:
        attn_mask = _canonical_mask(attn_mask, "attn_mask", None, "", query.dtype, False)
    if embed != embed_dim_to_check:
        raise error(AssertionError, f"was expecting embedding dimension of {embed_dim_to_check}, but got {embed}")
    head = embed // num_heads
    if head * num_heads != embed:
        raise error(AssertionError, f"embed_dim {embed} not divisible by num_heads {num_heads}")
    if use_separate_proj_weight:
        if key._a.shape[:2] != value._a.shape[:2]:
            raise error(
                AssertionError,
                f"key's sequence and batch dims {key.shape[:2]} do not match value's {value.shape[:2]}",
            )
    elif key._a.shape != value._a.shape:
        raise error(AssertionError, f"key shape {key.shape} does not match value shape {value.shape}")
    separate = (q_proj_weight, k_proj_weight, v_proj_weight) if use_separate_proj_weight else None
    if separate is None and in_proj_weight is None:
        raise error(AssertionError, "use_separate_proj_weight is False but in_proj_weight is None")
    q, k, v = _projections(query, key, value, in_proj_weight, in_proj_bias, separate)
    if attn_mask is not None:
        attn_mask = _attention_mask(attn_mask, length, key._a.shape[0], batch * num_heads)
    if bias_k is not None and bias_v is not None:
        if static_k is not None or static_v is not None:
            raise error(AssertionError, "bias cannot be added to static key or value.")
        k = cat([k, bias_k.repeat(1, batch, 1)])
        v = cat([v, bias_v.repeat(1, batch, 1)])
        attn_mask, key_padding_mask = _one_more(attn_mask), _one_more(key_padding_mask)
    elif bias_k is not None or bias_v is not None:
        raise error(AssertionError, "bias_k and bias_v go together")

    def heads(t: Tensor) -> Tensor:  # (S, N, E) to (N heads, S, head)
        return t.reshape(t._a.shape[0], batch * num_heads, head).transpose(0, 1)

    q = heads(q)
    k = heads(k) if static_k is None else _static("static_k", static_k, batch * num_heads, head)
    v = heads(v) if static_v is None else _static("static_v", static_v, batch * num_heads, head)
    if add_zero_attn:
        zeros = wrap(np.zeros((batch * num_heads, 1, head), k._a.dtype))
        k, v = cat([k, zeros], 1), cat([v, zeros], 1)
        attn_mask, key_padding_mask = _one_more(attn_mask), _one_more(key_padding_mask)
    source = k._a.shape[1]
    if key_padding_mask is not None:
        if key_padding_mask._a.shape != (batch, source):
            raise error(
                AssertionError,
                f"expecting key_padding_mask shape of {(batch, source)}, but got {key_padding_mask.shape}",
            )
        hidden = key_padding_mask.reshape(batch, 1, 1, source).expand(-1, num_heads, -1, -1)
        hidden = hidden.reshape(batch * num_heads, 1, source)
        attn_mask = hidden if attn_mask is None else attn_mask + hidden
    dropout_p = dropout_p if training else 0.0
    weights = None
    if need_weights:
        scores = (q * (1.0 / head**0.5)) @ k.mT
        if attn_mask is not None:
            scores = scores + attn_mask
        weights = _published["softmax"](scores, -1)
        if dropout_p > 0:
            weights = _published["dropout"](weights, dropout_p)
        out = weights @ v
        weights = weights.reshape(batch, num_heads, length, source)
        if average_attn_weights:
            weights = weights.mean(1)
        out = out.transpose(0, 1)
    else:
        four = [t.reshape(batch, num_heads, -1, head) for t in (q, k, v)]
        if attn_mask is not None:
            lead = (1, 1) if attn_mask._a.shape[0] == 1 else (batch, num_heads)
            attn_mask = attn_mask.reshape(*lead, *attn_mask._a.shape[1:])
        out = _published["scaled_dot_product_attention"](*four, attn_mask, dropout_p, causal)
        out = out.permute(2, 0, 1, 3)
    out = _published["linear"](out.reshape(length * batch, embed), out_proj_weight, out_proj_bias)
    out = out.reshape(length, batch, -1)
    if not batched:
        return out.squeeze(1), None if weights is None else weights.squeeze(0)
    return out, weights


def _with_batch(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Each with a batch of one; those that are the same tensor stay the same."""
    made: dict[int, Tensor] = {}
    for t in (q, k, v):
        if id(t) not in made:
            made[id(t)] = t.unsqueeze(1)
    return made[id(q)], made[id(k)], made[id(v)]


def _attention_mask(mask: Tensor, length: int, source: int, heads: int) -> Tensor:
    if mask._a.ndim == 2:
        if mask._a.shape != (length, source):
            raise error(
                RuntimeError,
                f"The shape of the 2D attn_mask is {mask.shape}, but should be {(length, source)}.",
            )
        return mask.unsqueeze(0)
    if mask._a.shape != (heads, length, source):
        raise error(
            RuntimeError,
            f"The shape of the 3D attn_mask is {mask.shape}, but should be {(heads, length, source)}.",
        )
    return mask


def _one_more(mask: Tensor | None) -> Tensor | None:
    """The mask for one key more, which all may look at."""
    return None if mask is None else _published["pad"](mask, (0, 1))


def _static(name: str, t: Tensor, heads: int, head: int) -> Tensor:
    for d, want in ((0, heads), (2, head)):
        if t._a.shape[d] != want:
            raise error(AssertionError, f"expecting {name}.size({d}) of {want}, but got {t._a.shape[d]}")
    return t


# ---- composites -----------------------------------------------------------------------------------------------------------
def linear_cross_entropy(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    *,
    linear_bias: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: str = "mean",
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    options: Any = None,
) -> Tensor:
    """``cross_entropy(linear(input, linear_weight, linear_bias), target)``."""
    if options is not None:
        raise error(NotImplementedError, "linear_cross_entropy(options=...) is not in flambeau", hint="Leave it out.")
    get_enum(reduction)
    logits = _published["linear"](input, linear_weight, linear_bias)
    flat = logits.reshape(prod(logits._a.shape[:-1]), -1) if logits._a.ndim > 2 else logits
    hard = target._a.ndim < logits._a.ndim
    index = -100 if ignore_index is None else ignore_index
    loss = _published["cross_entropy"](
        flat,
        target.reshape(-1) if hard and logits._a.ndim > 2 else target if hard else target.reshape(flat._a.shape),
        weight,
        ignore_index=index,
        reduction=reduction,
        label_smoothing=label_smoothing,
    )
    return loss.reshape(target._a.shape) if reduction == "none" and hard else loss


# ---- helpers that programs import -----------------------------------------------------------------------------------------
def _one(v: Any) -> tuple[int, ...]:
    return _conv.expand(v, 1, "value")


def _pair(v: Any) -> tuple[int, ...]:
    return _conv.expand(v, 2, "value")


def _triple(v: Any) -> tuple[int, ...]:
    return _conv.expand(v, 3, "value")


_single = _one
