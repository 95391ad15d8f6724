"""``torch.ops.aten``: PyTorch's names for operators, as a selective checkpoint's policy compares them.

``torch.ops.aten.mm`` is a packet, ``torch.ops.aten.mm.default`` one of its overloads. Each exists once, so ``is``, ``==``
and sets work. Calling one calls flambeau's function of that name. Which names and overloads there are is PyTorch 2.13's
list, ``_aten_overloads.txt``, so that a list of operators written for another machine is found as well.

``overload_of(op, args)`` is the way back: under which name PyTorch would show a call of one of flambeau's operators.
flambeau's are sometimes several of PyTorch's in one (``linear`` is transpose and ``addmm``, ``cross_entropy`` is
``_log_softmax`` and ``nll_loss_forward``); they go by the one that does the work.
"""

from __future__ import annotations

import functools
from importlib.resources import files
from typing import Any

from .core.errors import error
from .core.tensor import Tensor

ROOT = __name__.partition(".")[0]


class OpOverload:
    """One overload of an operator, ``torch.ops.aten.mm.default``."""

    def __init__(self, packet: OpOverloadPacket, overload: str) -> None:
        self.overloadpacket, self._overloadname = packet, overload
        self.namespace = packet.namespace
        self.__name__ = f"{packet.__name__}.{overload}"

    def name(self) -> str:
        """``aten::add.Tensor``; without an overload's name if that is "default"."""
        suffix = "" if self._overloadname == "default" else f".{self._overloadname}"
        return f"{self.namespace}::{self.overloadpacket.__name__}{suffix}"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.overloadpacket(*args, **kwargs)

    def __str__(self) -> str:
        return f"{self.overloadpacket}.{self._overloadname}"

    def __repr__(self) -> str:
        return f"<OpOverload(op='{self.overloadpacket}', overload='{self._overloadname}')>"

    def __reduce__(self) -> Any:
        return getattr, (self.overloadpacket, self._overloadname)


class OpOverloadPacket:
    """An operator with its overloads as attributes, ``torch.ops.aten.mm``."""

    def __init__(self, namespace: str, name: str, overloads: tuple[str, ...]) -> None:
        self.namespace, self.__name__, self._overloads = namespace, name, overloads

    def overloads(self) -> list[str]:
        """Their names."""
        return list(self._overloads)

    def __getattr__(self, name: str) -> OpOverload:
        if name.startswith("__") or name not in self._overloads:
            raise AttributeError(f"The underlying op of '{self}' has no overload name '{name}'")
        found = self.__dict__[name] = OpOverload(self, name)
        return found

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        import importlib

        root = importlib.import_module(ROOT)
        name = self.__name__
        for home in (root, root.Tensor, root.nn.functional):
            function = getattr(home, name, None) or getattr(home, name.lstrip("_"), None)
            if callable(function):
                return function(*args, **kwargs)
        raise error(NotImplementedError, f"{self} is not in flambeau")

    def __str__(self) -> str:
        return f"{self.namespace}.{self.__name__}"

    def __repr__(self) -> str:
        return f"<OpOverloadPacket(op='{self}')>"

    def __reduce__(self) -> Any:
        return getattr, (aten if self.namespace == "aten" else own, self.__name__)


class OpNamespace:
    """``torch.ops.aten``: packets as attributes."""

    def __init__(self, name: str, overloads: Any) -> None:
        self._name, self._known = name, overloads

    def __getattr__(self, name: str) -> OpOverloadPacket:
        overloads = () if name.startswith("__") else self._known(name)
        if not overloads:
            raise AttributeError(f"'_OpNamespace' '{self._name}' object has no attribute '{name}'")
        found = self.__dict__[name] = OpOverloadPacket(self._name, name, overloads)
        return found

    def __dir__(self) -> list[str]:
        return sorted(_overloads()) if self._name == "aten" else []

    def __repr__(self) -> str:
        return f"<torch.ops.{self._name}>"

    def __reduce__(self) -> Any:
        return _namespace, (self._name,)


def _namespace(name: str) -> OpNamespace:
    return aten if name == "aten" else own


@functools.cache
def _overloads() -> dict[str, tuple[str, ...]]:
    text = (files(__package__) / "_aten_overloads.txt").read_text(encoding="utf-8")
    return {name: tuple(overloads) for name, *overloads in map(str.split, text.splitlines())}


aten = OpNamespace("aten", lambda name: _overloads().get(name, ()))
own = OpNamespace("flambeau", lambda name: ("default",))  # what has no counterpart in PyTorch


# ---- flambeau's operators under PyTorch's names ---------------------------------------------------------------------
# Those whose name is another, or whose overload isn't found by the rule in `overload_of`.
NAMES = {
    # products
    "linear_bias": "addmm.default", "linear_plain": "mm.default", "outer": "mul.Tensor",
    "scaled_dot_product_attention": "_scaled_dot_product_flash_attention_for_cpu.default",
    "convolution_transposed": "convolution.default",
    # arithmetic
    "add": "add.Tensor", "add_alpha": "add.Tensor", "sub": "sub.Tensor", "sub_alpha": "sub.Tensor",
    "rsub": "rsub.Scalar", "rsub_tensor": "rsub.Tensor",
    "mul": "mul.Tensor", "div": "div.Tensor", "rdiv": "reciprocal.default", "floor_divide": "floor_divide.default",
    "rfloor_divide": "floor_divide.default", "div_floor": "div.Tensor_mode", "div_trunc": "div.Tensor_mode",
    "div_trunc_int": "div.Tensor_mode", "remainder_number": "remainder.Scalar", "rremainder": "remainder.Scalar_Tensor",
    "fmod_number": "fmod.Scalar", "pow": "pow.Tensor_Tensor", "pow_number": "pow.Tensor_Scalar",
    "number_pow": "pow.Scalar", "rpow": "pow.Scalar", "pow_bool": "pow.Tensor_Tensor", "square": "pow.Tensor_Scalar",
    "pow_3": "pow.Tensor_Scalar", "pow_4": "pow.Tensor_Scalar", "pow_0.5": "pow.Tensor_Scalar",
    "pow_-0.5": "pow.Tensor_Scalar", "pow_-1": "pow.Tensor_Scalar", "pow_-2": "pow.Tensor_Scalar",
    "copysign_number": "copysign.Scalar", "lerp_number": "lerp.Scalar", "lerp": "lerp.Tensor",
    "clamp_low_number": "clamp.default", "clamp_high_number": "clamp.default", "clamp_number": "clamp.default",
    "clamp_low_tensor": "clamp.Tensor", "clamp_high_tensor": "clamp.Tensor", "clamp_tensor": "clamp.Tensor",
    "xlogy_number": "xlogy.Scalar_Other", "where": "where.self", "abs_complex": "abs.default",
    "angle_complex": "angle.default", "bitwise_not": "bitwise_not.default",
    # activations and losses
    "softmax": "_softmax.default", "log_softmax": "_log_softmax.default", "gelu_tanh": "gelu.default",
    "log_sigmoid": "log_sigmoid_forward.default", "sigmoid_f": "sigmoid.default", "tanh_f": "tanh.default",
    "relu6": "hardtanh.default", "selu": "elu.default", "softplus_1_20": "softplus.default",
    "prelu": "_prelu_kernel.default", "rrelu": "rrelu_with_noise.default", "cross_entropy_loss": "nll_loss_forward.default",
    "nll_loss": "nll_loss_forward.default", "nll_loss2d": "nll_loss2d_forward.default", "ctc_loss": "_ctc_loss.default",
    "mse_loss_mean": "mse_loss.default", "mse_loss_sum": "mse_loss.default", "l1_loss_mean": "l1_loss.default",
    "l1_loss_sum": "l1_loss.default", "soft_margin_loss_mean": "soft_margin_loss.default",
    "soft_margin_loss_sum": "soft_margin_loss.default",
    # normalisation and pooling
    "batch_norm_fixed": "native_batch_norm.default", "instance_norm": "native_batch_norm.default",
    "rms_norm": "_fused_rms_norm.default", "pad_last": "constant_pad_nd.default",
    "max_pool1d": "max_pool2d_with_indices.default", "max_pool1d_with_indices": "max_pool2d_with_indices.default",
    "max_pool2d": "max_pool2d_with_indices.default", "max_pool3d": "max_pool3d_with_indices.default",
    "avg_pool1d": "avg_pool2d.default", "adaptive_avg_pool1d": "_adaptive_avg_pool2d.default",
    "adaptive_avg_pool2d": "_adaptive_avg_pool2d.default", "adaptive_avg_pool3d": "_adaptive_avg_pool3d.default",
    "reflect_pad1d": "reflection_pad1d.default", "reflect_pad2d": "reflection_pad2d.default",
    "reflect_pad3d": "reflection_pad3d.default", "replicate_pad1d": "replication_pad1d.default",
    "replicate_pad2d": "replication_pad2d.default", "replicate_pad3d": "replication_pad3d.default",
    # reductions
    "sum_all": "sum.default", "sum": "sum.dim_IntList", "sum_to_size": "sum.dim_IntList", "mean_all": "mean.default",
    "mean": "mean.dim", "prod_all": "prod.default", "prod": "prod.dim_int", "mean:VarMeanBackward0": "mean.dim",
    "mean:StdMeanBackward0": "mean.dim", "var": "var.correction",
    "std": "std.correction", "varMean": "var_mean.correction", "stdMean": "std_mean.correction",
    "vector_norm": "linalg_vector_norm.default", "median_all": "median.default", "nanmedian_all": "nanmedian.default",
    "max:MaxBackward1": "max.default", "min:MinBackward1": "min.default", "max:AmaxBackward0": "amax.default",
    "min:AminBackward0": "amin.default", "max:AminmaxBackward0": "aminmax.default", "min:AminmaxBackward0": "aminmax.default",
    "pick:MaxBackward0": "max.dim", "pick:MinBackward0": "min.dim", "choose:SortBackward0": "sort.default",
    "choose:SortBackward1": "sort.stable", "choose:TopkBackward0": "topk.default",
    "choose_one:KthvalueBackward0": "kthvalue.default", "choose_one:ModeBackward0": "mode.default",
    "choose_one:MedianBackward1": "median.dim", "choose_one:NanmedianBackward1": "nanmedian.dim",
    "choose:CummaxBackward0": "cummax.default", "choose:CumminBackward0": "cummin.default", "unique2": "_unique2.default",
    # shapes
    "unsafe_view": "_unsafe_view.default", "view_dtype": "view.dtype", "squeeze0": "squeeze.default",
    "squeeze1": "squeeze.dim", "squeeze2": "squeeze.dims", "squeeze_strided": "squeeze.dim",
    "select_window": "select.int", "slice_window": "slice.Tensor", "unsqueeze_window": "unsqueeze.default",
    "alias_window": "alias.default", "split": "split.Tensor", "conj": "_conj.default", "expand_reduced": "expand.default",
    "spread_to": "expand.default", "repeat_interleave": "repeat_interleave.self_int", "block_diag": "block_diag.default",
    "real": "real.default", "to_copy": "_to_copy.default", "transposed_": "t.default", "adjoint_": "adjoint.default",
    # indexing
    "index_one": "index.Tensor", "index": "index.Tensor", "index_fill": "index_fill.int_Scalar",
    "index_fill_tensor": "index_fill.int_Tensor", "scatter": "scatter.src", "scatter_value": "scatter.value",
    "scatter_reduce": "scatter_reduce.two", "masked_fill": "masked_fill.Scalar", "masked_fill_tensor": "masked_fill.Tensor",
    # random numbers
    "bernoulli_p": "bernoulli.p", "normal_of_mean": "normal.Tensor_float", "normal_of_std": "normal.float_Tensor",
    "normal_of_both": "normal.Tensor_Tensor",
}  # fmt: skip


def overload_of(op: Any, args: tuple[Any, ...]) -> OpOverload:
    """PyTorch's name for a call of a primitive or a pointwise operator.

    >>> import flambeau as torch
    >>> from flambeau.autograd.pointwise import POINTWISE
    >>> overload_of(POINTWISE["gt"], (torch.ones(1), 0)), overload_of(POINTWISE["gt"], (torch.ones(1), torch.ones(1)))
    (<OpOverload(op='aten.gt', overload='Scalar')>, <OpOverload(op='aten.gt', overload='Tensor')>)
    """
    numbers = any(not isinstance(x, Tensor) for x in args[1:2])
    return _overload_of(op.name, numbers)


@functools.cache
def _overload_of(name: str, numbers: bool) -> OpOverload:
    if name in NAMES:
        packet, _, overload = NAMES[name].partition(".")
        return getattr(getattr(aten, packet), overload)
    known = _overloads()
    plain = name.partition(":")[0].rstrip("_") or name
    for candidate in (name, plain, f"special_{plain}", f"linalg_{plain}", f"_{plain}"):
        if candidate in known:
            overloads = known[candidate]
            wanted = ("Scalar", "default") if numbers and "Scalar" in overloads else ("default", "Tensor", "self", "int")
            if "Tensor" in overloads and not (numbers and "Scalar" in overloads):
                wanted = ("Tensor", *wanted)
            overload = next((o for o in wanted if o in overloads), overloads[0])
            return getattr(getattr(aten, candidate), overload)
    return getattr(own, name.replace(":", "_").replace(".", "_").replace("-", "m")).default
