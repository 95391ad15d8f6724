"""Functions under further names, and those that no family's table has: each in the harness's tests all the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.special as sp

from .harness import Case, F, OperatorTests, tensor

PAIR = [(2, 3), (2, 3)]


def call(name: str, *args: Any, module: str = "", **options: Any) -> Any:
    def run(T: Any, *tensors: Any) -> Any:
        for part in module.split(".") if module else ():
            T = getattr(T, part)
        return getattr(T, name)(*tensors, *args, **options)

    return run


def whole(low: int, high: int, *shapes: Any) -> Any:
    return lambda rng: [rng.integers(low, high, s) for s in shapes]


def indices(name: str, *args: Any, **options: Any) -> Case:
    rank = int(name[name.index("pool") + 4])
    return Case(name, call(name, *args, module="nn.functional", **options), [(1, 2, *(4, 6, 4)[:rank])], node=False)


def bessel(name: str, ref: Any, low: float = 0.1) -> Case:
    return Case(f"special.{name}", call(name, module="special"), ((2, 3),), ref, low=low, high=2, tol=10, grad=False)


def fractional(T: Any, x: Any) -> Any:
    rank = x.ndim - 2
    samples = T.tensor(np.linspace(0.05, 0.95, 2 * rank).reshape(1, 2, rank).tolist(), dtype=x.dtype)
    name = f"fractional_max_pool{rank}d_with_indices"
    return getattr(T.nn.functional, name)(x, 2, (2,) * rank, _random_samples=samples)


SQUARE = [(3, 3)]
CASES = [
    Case("absolute", call("absolute"), ref=np.abs), Case("fix", call("fix"), ref=np.trunc, second=False),
    Case("positive", call("positive"), ref=lambda a: a, node=False), Case("true_divide", call("true_divide"), PAIR, np.divide, low=0.5),
    Case("swapdims", call("swapdims", 0, 1), ref=lambda a: a.T), Case("ger", call("ger"), [(3,), (4,)], np.outer, node=False),
    Case("conj_physical", call("conj_physical"), ref=np.conj, dtypes=("float32", "float64", "complex64"), node=False),
    Case("resolve_neg", call("resolve_neg"), ref=lambda a: a, node=False), Case("vdot", call("vdot"), [(3,), (3,)], np.vdot),
    Case("floor_divide", call("floor_divide"), PAIR, low=1, high=9, dtypes=("float32", "float64"), grad=False),
    Case("floor_divide_number", lambda T, a: a // 2, ref=lambda a: a // 2, grad=False),
    Case("number_floor_divide", lambda T, a: 7 // a, low=1, high=5, ref=lambda a: 7 // a, grad=False),
    Case("number_remainder", lambda T, a: 7 % a, low=1, high=5, ref=lambda a: 7 % a, grad=False),
    Case("fmod_number", lambda T, a: T.fmod(a, 0.7), ref=lambda a: np.fmod(a, 0.7), second=False),
    Case("div_trunc_number", lambda T, a: T.div(a, 2, rounding_mode="trunc"), ref=lambda a: np.trunc(a / 2), second=False),
    Case("copysign_number", lambda T, a: T.copysign(a, -1.0), ref=lambda a: np.copysign(a, -1.0)),
    Case("xlogy_number", lambda T, a: T.xlogy(a, 2.5), ref=lambda a: a * np.log(2.5)),
    Case("pow_4", lambda T, a: a**4, ref=lambda a: a**4), Case("pow_bool", lambda T, m: m**True, lambda r: [r.random(5) > 0.5], grad=False),
    Case("clamp_low_tensor", lambda T, a, b: T.clamp(a, min=b), PAIR, np.maximum), Case("clamp_high_tensor", lambda T, a, b: T.clamp(a, max=b), PAIR, np.minimum),
    Case("heaviside", call("heaviside"), PAIR, np.heaviside, grad=False), Case("nextafter", call("nextafter"), PAIR, grad=False),
    Case("gcd", call("gcd"), whole(1, 40, (2, 3), (2, 3)), np.gcd, grad=False), Case("lcm", call("lcm"), whole(1, 40, (2, 3), (2, 3)), np.lcm, grad=False),
    Case("bitwise_left_shift", call("bitwise_left_shift"), whole(0, 5, (4,), (4,)), np.left_shift, grad=False),
    Case("bitwise_right_shift", call("bitwise_right_shift"), whole(0, 40, (4,), (1,)), np.right_shift, grad=False),
    Case("number_shifts", lambda T, a: (3 << a, 300 >> a), whole(0, 5, (4,)), lambda a: (3 << a, 300 >> a), grad=False),
    Case("igamma", call("igamma"), [(3,), (3,)], sp.gammainc, low=0.5, high=3, grad=False, tol=4),
    Case("igammac", call("igammac"), [(3,), (3,)], sp.gammaincc, low=0.5, high=3, grad=False, tol=4),
    Case("special.gammaincc", call("gammaincc", module="special"), [(3,), (3,)], sp.gammaincc, low=0.5, high=3, grad=False, tol=4),
    Case("special.psi", call("psi", module="special"), ref=sp.psi, low=0.5, high=4, tol=4),
    bessel("bessel_j1", sp.j1), bessel("bessel_y0", sp.y0), bessel("modified_bessel_i0", sp.i0), bessel("modified_bessel_i1", sp.i1),
    bessel("modified_bessel_k1", sp.k1), bessel("scaled_modified_bessel_k0", sp.k0e), bessel("scaled_modified_bessel_k1", sp.k1e),
    Case("angle_complex", lambda T, a: T.angle(T.complex(a, a * a)), node=False, skip={"float16": "flambeau has no complex32"}),
    Case("view_dtype", lambda T, a: a.view(T.int32), dtypes=("float32",), grad=False),
    Case("nuclear_norm", call("nuclear_norm"), SQUARE, lambda a: np.linalg.norm(a, "nuc"), node=False),
    Case("frobenius_norm", call("frobenius_norm", (0, 1)), SQUARE, np.linalg.norm, node=False),
    Case("orgqr", call("orgqr"), [(4, 2), (2,)], low=0.2, node=False, second=False),
    Case("rrelu", lambda T, a: T.rrelu(a, 0.2, 0.2, True), PAIR[:1], node=False, skip={"*": "draws, even where both bounds agree"}),
    Case("grid_sampler", call("grid_sampler", 0, 0, True), [(1, 2, 3, 3), (1, 2, 2, 2)], low=-0.9, high=0.9, node=False),
    Case("upsample_nearest", call("upsample_nearest", 5, module="nn.functional"), [(1, 2, 3, 3)]),
    Case("upsample_bilinear", call("upsample_bilinear", 5, module="nn.functional"), [(1, 2, 3, 3)]),
    Case("native_channel_shuffle", call("native_channel_shuffle", 2), [(1, 4, 2)], node=False),
    Case("channel_shuffle_functional", call("native_channel_shuffle", 2, module="nn.functional"), [(1, 4, 2)], node=False),
    indices("max_pool1d_with_indices", 2), indices("max_pool2d_with_indices", 2), indices("max_pool3d_with_indices", 2),
    indices("adaptive_max_pool1d_with_indices", 2), indices("adaptive_max_pool2d_with_indices", 2), indices("adaptive_max_pool3d_with_indices", 2),
    Case("torch.max_pool1d_with_indices", call("max_pool1d_with_indices", 2), [(1, 2, 4)], node=False),
    Case("fractional_max_pool2d_with_indices", fractional, [(1, 2, 4, 4)], node=False, skip={"*": "the window needs four pixels and its dtype"}),
    Case("fractional_max_pool3d_with_indices", fractional, [(1, 2, 4, 4, 4)], node=False, skip={"*": "the window needs four pixels and its dtype"}),
    Case("native_batch_norm", call("native_batch_norm", None, None, True, 0.1, 1e-5), [(4, 3), (3,), (3,)], node=False, second=False, tol=10,
         skip={"*": "as batch_norm"}),
    *[Case(f"{name}_cell", call(name + "_cell"), [(2, 3), (2, 4), (4, 3), (4, 4), (4,), (4,)], node=False, skip={"*": "as the layers of tests/nn"})
      for name in ("rnn_tanh", "rnn_relu")],
    Case("gru_cell", call("gru_cell"), [(2, 3), (2, 4), (12, 3), (12, 4), (12,), (12,)], node=False, second=False, skip={"*": "as the layers of tests/nn"}),
    Case("lstm_cell", lambda T, x, h, c, *w: T.lstm_cell(x, (h, c), *w), [(2, 3), (2, 4), (2, 4), (16, 3), (16, 4), (16,), (16,)], node=False,
         second=False, skip={"*": "as the layers of tests/nn"}),
]  # fmt: skip


class TestNames(OperatorTests):
    cases = CASES


def test_result_type() -> None:
    assert F.result_type(tensor(np.ones(2, np.int32)), 1.5) is F.float32
    assert F.result_type(tensor(np.ones(2, np.uint8)), tensor(np.ones(2, np.int8))) is F.int16


def test_legacy_constructors() -> None:
    for name, dtype in (
        ("BoolTensor", "bool"), ("ByteTensor", "uint8"), ("CharTensor", "int8"), ("ShortTensor", "int16"), ("IntTensor", "int32"),
        ("LongTensor", "int64"), ("HalfTensor", "float16"), ("BFloat16Tensor", "bfloat16"), ("FloatTensor", "float32"),
        ("DoubleTensor", "float64"),
    ):  # fmt: skip
        t = getattr(F, name)([1, 0])
        assert (t.dtype.name, tuple(t.shape), t.tolist()) == (dtype, (2,), [1, 0])


def test_memory_without_values() -> None:
    like = tensor(np.zeros((2, 3)))
    assert (F.empty_like(like).shape, F.empty_like(like).dtype) == ((2, 3), like.dtype)
    assert F.empty_strided((2, 3), (1, 2)).stride() == (1, 2)
    permuted = F.empty_permuted((2, 3, 5), (0, 2, 1))
    assert (tuple(permuted.shape), permuted.stride()) == ((2, 3, 5), (15, 1, 3))


def test_questions_with_one_answer() -> None:
    x = tensor(np.ones(2))
    assert not F.is_conj(x) and not F.is_neg(x) and not F.is_inference(x)


def test_default_device() -> None:
    import flambeau

    assert flambeau.get_default_device() == flambeau.device("cpu")
    flambeau.set_default_device("cpu")
    assert flambeau.get_default_device() == flambeau.device("cpu")


def test_default_tensor_type() -> None:
    import flambeau

    try:
        flambeau.set_default_tensor_type(flambeau.DoubleTensor)
        assert flambeau.zeros(1).dtype is flambeau.float64
    finally:
        flambeau.set_default_tensor_type(flambeau.FloatTensor)
    assert flambeau.zeros(1).dtype is flambeau.float32
