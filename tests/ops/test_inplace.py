"""Every in-place form: the values and gradients of the function whose name it has, in the same tensor."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from flambeau.autograd.engine import grad
from flambeau.core.tensor import Tensor
from flambeau.ops.public import FUNCTIONS

from .harness import F, numpy, tensor

A = np.array([[0.2, 0.7, 0.45], [0.9, 0.33, 0.62]])
B = np.array([[1.5, 2.25, 1.1], [2.7, 1.9, 1.3]])
WHOLE = np.array([[5, 12, 9], [3, 8, 14]])
TRUE = A > 0.5
M, V = B[:, :2].copy(), B[0, :2].copy()

#: name without the underscore -> the tensor and what follows; others: one operand between 0 and 1
OPERANDS: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(
        "add sub subtract mul multiply div divide true_divide floor_divide remainder fmod pow atan2 arctan2 copysign hypot xlogy "
        "float_power ldexp nextafter heaviside igamma igammac eq ne not_equal lt less le less_equal gt greater ge greater_equal".split(),
        (A, B),
    ),
    **dict.fromkeys("bitwise_and bitwise_or bitwise_xor gcd lcm".split(), (WHOLE, WHOLE.T.reshape(2, 3).copy())),
    **dict.fromkeys("bitwise_left_shift bitwise_right_shift".split(), (WHOLE, 2)),
    **dict.fromkeys("logical_and logical_or logical_xor".split(), (A, TRUE)),
    **dict.fromkeys("cumsum cumprod".split(), (A, 1)),
    **dict.fromkeys("clamp_min clamp_max".split(), (A, 0.5)),
    **dict.fromkeys("clamp clip".split(), (A, 0.3, 0.6)),
    **dict.fromkeys("addcmul addcdiv".split(), (A, B, B + 1)),
    **dict.fromkeys("squeeze unsqueeze".split(), (A, 0)),
    **dict.fromkeys("transpose swapaxes swapdims".split(), (A, 0, 1)),
    "bitwise_not": (WHOLE,), "lerp": (A, B, 0.3), "threshold": (A, 0.5, 9.0), "acosh": (B,), "arccosh": (B,), "polygamma": (1, A),
    "mvlgamma": (B, 2), "addmm": (M, M, M), "addmv": (V, M, V), "addr": (M, V, V), "baddbmm": (M[None], M[None], M[None]),
    "addbmm": (M, M[None], M[None]), "renorm": (A, 2, 0, 0.5), "fill": (A, 3.0), "masked_fill": (A, TRUE, 2.0), "index_fill": (A, 1, np.array([0, 2]), 5.0),
    "masked_scatter": (A, TRUE, B), "index_add": (A, 1, np.array([0, 2]), B[:, :2]), "index_copy": (A, 1, np.array([0, 2]), B[:, :2]),
    "index_reduce": (A, 1, np.array([0, 2]), B[:, :2], "prod"), "index_put": (A, (np.array([0, 1]), np.array([2, 2])), B[0, :2]),
    "scatter": (A, 1, np.array([[0], [2]]), B), "scatter_add": (A, 1, np.array([[0], [2]]), B),
    "scatter_reduce": (A, 1, np.array([[0], [2]]), B, "amax"), "put": (A, np.array([1, 4]), B[0, :2]), "triu": (A,), "tril": (A,),
    "t": (A,), "logit": (A,),
}  # fmt: skip
#: in-place forms that change no values by a function of the same name, and where they are tested
OTHERS = {
    **dict.fromkeys("bernoulli cauchy exponential geometric log_normal normal random uniform".split(), "draw numbers: test_fill.py"),
    **dict.fromkeys("dropout alpha_dropout feature_dropout feature_alpha_dropout rrelu".split(), "draw numbers: test_dropout.py"),
    **dict.fromkeys("zero copy set resize resize_as fill_diagonal map map2 apply detach requires_grad share_memory".split(), "no function of this name"),
    **dict.fromkeys("as_strided sparse_resize".split(), "changes what the tensor is: tests/ops/test_views.py"),
}


def names() -> list[str]:
    found = {n for n in FUNCTIONS[""].names() if n.endswith("_")} | {n for n in dir(Tensor) if n.endswith("_")}
    return sorted(n for n in found if not n.startswith("_") and n[:-1] not in OTHERS)


def given(v: Any) -> Any:
    return tensor(v) if isinstance(v, np.ndarray) else tuple(given(x) for x in v) if isinstance(v, tuple) else v


def functions(name: str) -> tuple[Any, Any]:
    """(in place, not): as functions, or as methods where there is no function."""
    place = FUNCTIONS[""].get(name) or getattr(Tensor, name)
    plain = FUNCTIONS[""].get(name[:-1]) or getattr(Tensor, name[:-1], None) or getattr(F.nn.functional, name[:-1])
    return place, plain


@pytest.mark.parametrize("name", names())
def test_values_and_gradients(name: str) -> None:
    place, plain = functions(name)
    operands = OPERANDS.get(name[:-1], (A,))
    at = next(i for i, v in enumerate(operands) if isinstance(v, np.ndarray))
    if name == "polygamma_":
        place, plain, operands, at = (lambda a, n: a.polygamma_(n)), (lambda a, n: a.polygamma(n)), (A, 1), 0
    args = [given(v) for v in operands]
    want = plain(*[given(v) for v in operands])
    assert place(*args) is args[at]
    np.testing.assert_allclose(numpy(args[at]).astype(float), numpy(want).astype(float), rtol=1e-12)
    if operands[at].dtype.kind != "f" or not want.dtype.is_floating_point:
        return
    if name in ("igamma_", "igammac_"):  # not differentiable by their first operand: test_maths.py
        return
    results = []
    for fn in (place, plain):
        leaf = tensor(operands[at], True)
        y = leaf * 1.0
        out = fn(*[y if i == at else given(v) for i, v in enumerate(operands)])
        g = grad([(out * out).sum()], [leaf], allow_unused=True)[0] if out._rg else None
        results.append(np.zeros(A.shape) if g is None else numpy(g))
    np.testing.assert_allclose(*np.broadcast_arrays(*results), rtol=1e-9, err_msg="gradients")


def test_refused() -> None:
    """A leaf that requires grad stays as it is."""
    for name in ("add_", "exp_", "clamp_", "cumsum_", "masked_fill_"):
        place, _ = functions(name)
        operands = OPERANDS.get(name[:-1], (A,))
        leaf = tensor(A, True)
        with pytest.raises(RuntimeError, match="a leaf Variable that requires grad is being used in an in-place operation"):
            place(leaf, *[given(v) for v in operands[1:]])
        np.testing.assert_array_equal(leaf._a, A)
