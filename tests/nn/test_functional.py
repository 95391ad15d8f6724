"""What networks' functions add to the operators: multi-head attention and composites."""

from __future__ import annotations

import numpy as np
import pytest

E, H = 8, 2


def operands(L=3, S=3, N=2, kdim=E, vdim=E, seed=0):
    rng = np.random.default_rng(seed)
    made = {
        "query": (L, N, E), "key": (S, N, kdim), "value": (S, N, vdim), "in_proj_weight": (3 * E, E), "in_proj_bias": (3 * E,),
        "out_proj_weight": (E, E), "out_proj_bias": (E,), "bias_k": (1, 1, E), "bias_v": (1, 1, E),
        "q_proj_weight": (E, E), "k_proj_weight": (E, kdim), "v_proj_weight": (E, vdim),
    }  # fmt: skip
    return {name: rng.standard_normal(shape) * 0.3 for name, shape in made.items()}


def attend(T, given, same=False, masks=None, unbatched=False, **options):
    """Call multi_head_attention_forward on tensors that require grad; returns outputs and gradients as arrays."""
    t = {k: T.from_numpy(np.array(v)).requires_grad_(True) for k, v in given.items()}
    q, k, v = t["query"], t["key"], t["value"]
    if same:
        k = v = q
    if unbatched:
        q, k, v = (x[:, 0] for x in (q, k, v))
    with_bias = options.pop("with_bias", False)
    masks = {n: T.from_numpy(np.array(m)) for n, m in (masks or {}).items()}
    separate = options.get("use_separate_proj_weight", False)
    more = {n: t[n] for n in ("q_proj_weight", "k_proj_weight", "v_proj_weight")} if separate else {}
    out, weights = T.nn.functional.multi_head_attention_forward(
        q, k, v, E, H, None if separate else t["in_proj_weight"], t["in_proj_bias"], t["bias_k"] if with_bias else None,
        t["bias_v"] if with_bias else None, options.pop("add_zero_attn", False), 0.0, t["out_proj_weight"], t["out_proj_bias"],
        **masks, **options, **more,
    )  # fmt: skip
    (out * out).sum().backward()
    arrays = [out.detach().numpy(), None if weights is None else weights.detach().numpy()]
    return arrays + [x.grad.numpy() if x.grad is not None else None for x in t.values()]


LATER = np.triu(np.ones((3, 3), bool), 1)
HIDDEN = np.array([[False, False, True], [False, True, False]])


@pytest.mark.torch
@pytest.mark.parametrize("options", [
    {}, {"same": True}, {"need_weights": False}, {"average_attn_weights": False}, {"with_bias": True}, {"add_zero_attn": True},
    {"use_separate_proj_weight": True}, {"unbatched": True}, {"masks": {"attn_mask": LATER}},
    {"masks": {"attn_mask": np.where(LATER, -1.0, 0.5)}, "need_weights": False}, {"masks": {"key_padding_mask": HIDDEN}},
    {"masks": {"attn_mask": LATER, "key_padding_mask": HIDDEN}, "need_weights": False, "with_bias": True, "add_zero_attn": True},
    {"masks": {"attn_mask": LATER}, "is_causal": True, "need_weights": False},
    {"masks": {"attn_mask": np.zeros((4, 3, 3))}},
], ids=lambda o: "-".join(o) or "plain")  # fmt: skip
def test_multi_head_attention(options):
    torch = pytest.importorskip("torch")
    import flambeau

    for want, got in zip(attend(torch, operands(), **dict(options)), attend(flambeau, operands(), **dict(options))):
        assert (want is None) == (got is None)
        if want is not None:
            np.testing.assert_allclose(got, want, rtol=1e-7, atol=1e-9)


def test_multi_head_attention_messages():
    import flambeau as torch

    x = torch.ones(3, 8)
    w, b, o = torch.ones(24, 8), torch.ones(24), torch.ones(8, 8)

    def call(embed, heads, **options):
        torch.nn.functional.multi_head_attention_forward(x, x, x, embed, heads, w, b, None, None, False, 0.0, o, None, **options)

    with pytest.raises(AssertionError, match="was expecting embedding dimension of 9, but got 8"):
        call(9, 2)
    with pytest.raises(AssertionError, match="embed_dim 8 not divisible by num_heads 3"):
        call(8, 3)
    with pytest.raises(RuntimeError, match="Need attn_mask if specifying the is_causal hint"):
        call(8, 2, is_causal=True)


@pytest.mark.torch
def test_composites():
    torch = pytest.importorskip("torch")
    import flambeau

    rng = np.random.default_rng(0)
    x, w, b, t = rng.standard_normal((4, 3)), rng.standard_normal((5, 3)), rng.standard_normal(5), np.array([0, 4, 2, 1])

    def both(fn):
        return [fn(T, *(T.from_numpy(np.array(a)) for a in (x, w, b, t))).numpy() for T in (torch, flambeau)]

    np.testing.assert_allclose(*both(lambda T, x, w, b, t: T.nn.functional.pdist(x)), rtol=1e-9)
    np.testing.assert_allclose(*both(lambda T, x, w, b, t: T.nn.functional.linear_cross_entropy(x, w, t, linear_bias=b)), rtol=1e-6)


@pytest.mark.torch
def test_names():
    torch = pytest.importorskip("torch")
    import flambeau.nn.functional as F

    foreign = {"grouped_mm", "scaled_grouped_mm", "scaled_mm", "boolean_dispatch", "assert_int_or_pair", "handle_torch_function",
               "has_torch_function", "has_torch_function_unary", "has_torch_function_variadic"}  # fmt: skip
    own = {n for n in dir(torch.nn.functional) if n.islower() and not n.startswith("_")}
    wanted = {n for n in own if callable(getattr(torch.nn.functional, n))} - foreign
    assert not sorted(n for n in wanted if not hasattr(F, n))
