"""PyTorch's names for what nodes save, as data.

``TABLE`` has rows of (entries, nodes). An entry is PyTorch's name, and where its value comes from: the name of an
operand, parameter, output (``out``) or aux array in our rules (left out if it is the same); ``x.shape`` or ``x.strides``
of an operand; a literal; ``@name``, a function in ``DERIVED``. Alternatives are separated by ``|``: one node may be the
work of several operators. A node's name is short of its ``Backward0``. What a rule of ours doesn't need is not saved
and not here.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .values import Kept, Missing, as_tensor, output_of_input

TABLE = (
    # pointwise
    (
        "self=x|v|z",
        "Abs Acos Acosh Angle Asin Asinh Atan Atanh Celu Clamp ClampBackward1 ClampMin ClampMax Copysign CopysignBackward1 Cos"
        " Cosh Digamma Div Elu Erf Erfc Gelu Hardshrink Hardsigmoid Hardswish Hardtanh I0 LeakyRelu Lgamma Log Log10 Log1P"
        " Log2 LogSigmoid Logit Mish NanToNum Polygamma Pow Silu Sin Sinc Sinh Softplus Softshrink SpecialEntr"
        " SpecialErfcx SpecialI0E SpecialI1 SpecialI1E SpecialLogNdtr Threshold PreluKernel RreluWithNoise",
    ),
    ("result=out", "Exp Exp2 Expm1 Reciprocal Relu Rsqrt Sigmoid Sqrt Tan Tanh SpecialNdtri SpecialErfcx SpecialI0E SpecialI1 SpecialI1E"),
    (
        "self=x other=y",
        "Atan2 Fmax Fmin FmodBackward1 Hypot Logaddexp Logaddexp2 Maximum Minimum RemainderBackward1 SpecialXlog1Py Xlogy",
    ),
    ("self=x|@rows other=y|b|r|w", "Mul"),
    ("other=y", "Div XlogyBackward2"),
    ("self=x", "XlogyBackward2"),
    ("alpha=c|1", "Add Sub"),
    ("alpha=1", "Rsub RsubBackward1"),
    ("alpha=y", "Celu"),
    ("tensor1=y tensor2=z value=c", "Addcdiv Addcmul"),
    ("min=@low max=@high", "Clamp ClampBackward1"),
    ("min=y", "ClampMin"),
    ("max=y", "ClampMax"),
    ("rounding_mode=@rounding", "DivBackward2"),
    ("alpha=y|@selu_alpha scale=@selu_scale input_scale=1", "Elu"),
    ("approximate=@approximate", "Gelu"),
    ("lambd=y", "Hardshrink Softshrink"),
    ("min_val=y|0 max_val=z|6", "Hardtanh"),
    ("negative_slope=y", "LeakyRelu"),
    ("weight=z", "Lerp"),
    ("self=x end=y weight=z", "LerpBackward1"),
    ("n=@order", "Polygamma"),
    ("exponent=y|@exponent", "Pow"),
    ("self=x exponent=y", "PowBackward1"),
    ("self=y exponent=x", "PowBackward2"),
    ("weight=y", "PreluKernel"),
    ("beta=y|1 threshold=z|20", "Softplus"),
    ("threshold=y", "Threshold"),
    ("dim=-1", "Glu"),
    # reductions
    ("self=x result=out dim=axes keepdim", "Amax Amin Logsumexp Std"),
    ("self=x dim=axes keepdim max=@as_max min=@as_min", "Aminmax"),
    ("self=x result=out dim keepdim=False", "Cumprod Logcumsumexp"),
    ("dim", "Cumsum"),
    ("self=x result=out ord=p dim=axes keepdim", "LinalgVectorNorm"),
    ("self=x result=out p dim=axes keepdim", "NormBackward1"),
    ("self=x result=out", "MaxBackward1 MinBackward1 Median Nanmedian Prod"),
    ("self=x result=out dim=@axis keepdim", "ProdBackward1"),
    ("self=x dim=axes keepdim", "Nansum"),
    ("self=x dim=axes keepdim correction", "Var VarMean StdMean Std"),
    ("result0=out", "StdMean"),
    ("self_sym_sizes=x.shape", "Sum SumBackward1 Mean MeanBackward1 Trace"),
    ("self_sym_numel=@count", "Mean MeanBackward1"),
    ("dim=axes keepdim", "SumBackward1 MeanBackward1"),
    ("self_sym_sizes=x.shape dim keepdim indices=@indices", "Kthvalue MaxBackward0 MinBackward0 MedianBackward1 Mode NanmedianBackward1"),
    ("self_sym_sizes=x.shape dim indices=@indices", "Sort SortBackward1 Topk"),
    ("dim indices=@indices", "Cummax Cummin"),
    ("result=out dim", "LogSoftmax Softmax SafeSoftmax"),
    # products
    ("mat1=a|x mat2=@turned|b mat1_sym_sizes=a.shape|x.shape mat2_sym_sizes=@turned_shape|b.shape", "Addmm"),
    ("mat1_sym_strides=a.strides|x.strides mat2_sym_strides=@turned_strides|b.strides alpha=alpha|1 beta=beta|1", "Addmm"),
    ("self=a|x mat2=@turned|b self_sym_sizes=a.shape|x.shape mat2_sym_sizes=@turned_shape|b.shape", "Mm"),
    ("self_sym_strides=a.strides|x.strides mat2_sym_strides=@turned_strides|b.strides", "Mm"),
    ("self=a mat2=b", "Bmm"),
    ("self=a vec=v", "Mv"),
    ("self=a tensor=b", "Dot"),
    ("self=a other=b", "Vdot"),
    ("alpha beta batch1=a batch2=b", "Baddbmm"),
    ("x1=x x2=y result=out p=2.0", "Cdist"),
    # losses
    ("self=x target=y reduction=@reduction", "BinaryCrossEntropy BinaryCrossEntropyWithLogits HuberLoss MseLoss SmoothL1Loss SoftMarginLoss"),
    ("weight=@expanded_weight|None", "BinaryCrossEntropy"),
    ("weight=w|None", "BinaryCrossEntropyWithLogits"),
    ("pos_weight=p|None", "BinaryCrossEntropyWithLogits"),
    ("self=lp target=t weight=w reduction=@reduction ignore_index=ignore total_weight=@total", "NllLoss NllLoss2D"),
    # shapes and views
    ("self_sym_sizes=x.shape", "Diagonal DiagonalBackward0_copy Expand NarrowCopy Repeat Select Slice Squeeze SqueezeBackward1"),
    ("self_sym_sizes=x.shape", "SqueezeBackward2 SqueezeBackward4 Unfold UnsafeView View ReshapeAlias"),
    ("self_sym_sizes=tensors.shape|x.shape", "Split SplitWithSizes UnsafeSplit"),
    ("dim", "Cat Stack Unbind Split SplitWithSizes UnsafeSplit"),
    ("split_size=@split_size", "Split UnsafeSplit"),
    ("split_sizes=@split_sizes", "SplitWithSizes"),
    ("dim=@one_dim", "SqueezeBackward1 SqueezeBackward4"),
    ("dim=dim|@new_dim", "Unsqueeze UnsqueezeBackward1"),
    ("dim0=d0 dim1=d1", "Transpose TransposeBackward1"),
    ("dims", "Permute Flip"),
    ("offset dim1=d1 dim2=d2", "DiagEmbed Diagonal DiagonalBackward0_copy"),
    ("diagonal=k", "Tril Triu"),
    ("dims shifts", "Roll"),
    ("dims k", "Rot90"),
    ("repeats=reps", "Repeat"),
    ("dimension=dim size step", "Unfold"),
    ("dim=@picked_dim|@complex_dim index=@picked|@complex_part", "Select"),
    ("dim=@cut_dim start=@cut_start end=@cut_end step=@cut_step", "Slice"),
    ("dim=@cut_dim start=@cut_start length=@cut_length", "NarrowCopy"),
    ("size=size|@window_size stride=stride|@window_stride storage_offset=offset|@window_offset", "AsStrided"),
    ("size=@param0 stride=@param1 storage_offset=@param2", "AsStridedScatter"),
    ("offset=@param0 dim1=@param1 dim2=@param2", "DiagonalScatter"),
    ("dim=@written_dim index=@written", "SelectScatter"),
    ("dim=@written_cut_dim start=@written_start end=@written_end step=@written_step", "SliceScatter"),
    ("groups", "ChannelShuffle"),
    ("pad=@pads", "ConstantPadNd"),
    ("padding=@pairs", "ReflectionPad1D ReflectionPad2D ReflectionPad3D ReplicationPad1D ReplicationPad2D ReplicationPad3D"),
    ("upscale_factor=r", "PixelShuffle"),
    ("downscale_factor=r", "PixelUnshuffle"),
    # indices and masks
    ("dim index=i", "Gather IndexAdd IndexCopy IndexFill IndexFillBackward1 IndexSelect ScatterAdd Scatter ScatterBackward1"),
    ("sparse_grad=False", "Gather"),
    ("alpha", "IndexAdd"),
    ("source_dim=@rank_of_source", "IndexAdd IndexCopy"),
    ("self_sym_sizes=x.shape", "Index IndexSelect"),
    ("indices=@key", "Index IndexPut"),
    ("accumulate", "IndexPut Put"),
    ("index=i", "Take Put"),
    ("dim reduce include_self=include result=out self=x source=src index=@index_vector", "IndexReduce"),
    ("dim reduce include_self=include result=out self=x src index=i", "ScatterReduce"),
    ("mask", "MaskedFill MaskedFillBackward1 MaskedScatter MaskedSelect"),
    ("source_sym_sizes=source.shape", "MaskedScatter"),
    ("condition", "Where"),
    ("indices=i padding_idx=padding scale_grad_by_freq=by_frequency sparse=False weight_sym_argsize_0=@rows_of_weight", "Embedding"),
    # networks
    ("input=x weight=w stride dilation groups padding=@padding output_padding=@output_padding transposed=@transposed", "Convolution"),
    ("bias_sym_sizes_opt=b.shape", "Convolution"),
    ("kernel_size=@window0 stride=@window1 padding=@window2 ceil_mode=ceil count_include_pad=include", "AvgPool2D AvgPool3D"),
    ("divisor_override=divisor", "AvgPool2D AvgPool3D"),
    ("kernel_size=@window0 stride=@window1 padding=@window2 dilation=@window3 ceil_mode=ceil", "MaxPool2DWithIndices MaxPool3DWithIndices"),
    ("result1=places", "AdaptiveMaxPool2D AdaptiveMaxPool3D FractionalMaxPool2D FractionalMaxPool3D"),
    ("indices", "MaxUnpool2D MaxUnpool3D"),
    ("input=x weight=w eps running_mean=mean running_var=var training=@training result1=@batch_mean result2=@batch_scale", "NativeBatchNorm"),
    ("input=x weight=w eps group=groups result1=m result2=r N=@batch C=@channels HxW=@pixels", "NativeGroupNorm"),
    ("input=x weight=w bias=b normalized_shape=@normalized result1=m result2=r", "NativeLayerNorm"),
    ("query=q key=k value=v output=out attn_mask=mask dropout_p=0.0 is_causal=causal scale", "ScaledDotProductFlashAttentionForCpu"),
    ("dilation kernel_size=kernel padding stride", "Col2Im Im2Col"),
    ("self_sym_argsize_minus_1=@width self_sym_argsize_minus_2=@height", "Im2Col"),
    ("self_sym_sizes=x.shape output_size=@resized", "UpsampleNearest1D UpsampleNearest2D UpsampleNearest3D UpsampleNearestExact1D"),
    ("self_sym_sizes=x.shape output_size=@resized", "UpsampleNearestExact2D UpsampleNearestExact3D"),
    ("self_sym_sizes=x.shape output_size=@resized align_corners=@aligned", "UpsampleLinear1D UpsampleBilinear2D UpsampleBilinear2DAa"),
    ("self_sym_sizes=x.shape output_size=@resized align_corners=@aligned", "UpsampleBicubic2D UpsampleBicubic2DAa UpsampleTrilinear3D"),
    ("scales=@scale_w", "UpsampleLinear1D UpsampleNearest1D UpsampleNearestExact1D"),
    ("scales_h=@scale_h scales_w=@scale_w", "UpsampleNearest2D UpsampleNearestExact2D UpsampleBilinear2D UpsampleBilinear2DAa UpsampleBicubic2D UpsampleBicubic2DAa"),
    ("scales_d=@scale_d scales_h=@scale_h scales_w=@scale_w", "UpsampleNearest3D UpsampleNearestExact3D UpsampleTrilinear3D"),
    # matrices
    ("result=out upper", "Cholesky"),
    ("L=@out0 upper", "LinalgCholeskyEx"),
    ("self=a other=b dim", "LinalgCross"),
    ("A=a result=out", "LinalgDet"),
    ("eigenvalues=@out0 eigenvectors=@out1", "LinalgEigh"),
    ("inverse=@out0", "LinalgInvEx"),
    ("L=@out0 U=@out1", "LinalgLu"),
    ("LU=out", "LinalgLuFactorEx"),
    ("pivot=True", "LinalgLu LinalgLuFactorEx"),
    ("self=a", "LinalgMatrixExp"),
    ("self=a result=out", "LinalgPinv"),
    ("Q=@out0 R=@out1 mode=mode_", "LinalgQr"),
    ("A=a sign=@out0", "LinalgSlogdet"),
    ("A=a left result=@out0", "LinalgSolveEx"),
    ("self=a result=out upper left unitriangular=unit", "LinalgSolveTriangular"),
    ("U=@out0 S=@out1 Vh=@out2 full_matrices=False S_sym_argsize_minus_1=@rank", "LinalgSvd"),
)  # fmt: skip


END = (1 << 63) - 1  # "to the end" in PyTorch's slices


def by_suffix(s: Kept, **values: Any) -> Any:
    """What the operator's own name says, where PyTorch has a parameter."""
    for ending, v in values.items():
        if s.name.endswith(ending):
            return v
    return None


def reduction(s: Kept) -> int:
    try:
        return {"none": 0, "mean": 1, "sum": 2}[s.reduction]
    except Missing:
        return by_suffix(s, _mean=1, _sum=2) or 0


def out_of(s: Kept, which: str) -> Any:
    """The output of one half of aminmax."""
    if not s.name.startswith(which):
        raise Missing
    return s.out


def total_weight(s: Kept) -> Any:
    """What a mean of losses is divided by: the weights of the targets that count."""
    try:
        return as_tensor(np.asarray(s.total, s.x.dtype.np))
    except Missing:
        pass
    targets = s.t._a[s.t._a != s.ignore]
    try:
        weights = s.w._a[targets]
    except Missing:
        weights = np.ones(len(targets), output_of_input(s.node, 0)[1])
    return as_tensor(weights.sum() if s.reduction != "none" else weights[:0].sum())


def exponent(s: Kept) -> float:
    if s.name == "square":
        return 2
    number = float(s.name.removeprefix("pow_"))
    return int(number) if number.is_integer() else number


def squeezed(s: Kept, place: Any) -> Any:
    a = np.asarray(place)
    try:
        return as_tensor(a if s.keepdim else a.squeeze(s.dim))
    except Missing:
        return as_tensor(a)


def only(key: Any, kind: type) -> tuple[int, Any]:
    """(dimension, entry) of the one entry of this kind in an index such as x[:, 1:3]."""
    for d, k in enumerate(key):
        if isinstance(k, kind) and k != slice(None):
            return d, k
    raise Missing


def whole(key: Any) -> tuple[int, slice]:
    try:
        return only(key, slice)
    except Missing:
        return 0, slice(None)


def one_dim(s: Kept) -> int:
    """The dimension that was squeezed, where there can be no doubt."""
    dims = [d for d, n in enumerate(s.x_shape) if n == 1]
    if len(dims) != 1:
        raise Missing
    return dims[0]


def tensors_of(s: Kept) -> tuple[Any, ...]:
    """The index tensors, None in the place of a dimension that is taken whole."""
    try:
        key = s.key
    except Missing:
        return (None,) * s.dim + (s.i,)
    parts = [None if isinstance(k, slice) else as_tensor(k) for k in (key if isinstance(key, tuple) else (key,))]
    while parts[-1] is None:
        parts.pop()
    return tuple(parts)


def flat_pairs(pairs: Any) -> tuple[int, ...]:
    """((before, after) of each dimension) as PyTorch's list, which begins with the last one."""
    return tuple([n for pair in reversed(tuple(pairs)) for n in pair])


def without_zeros(pads: tuple[int, ...]) -> tuple[int, ...]:
    while pads[-2:] == (0, 0):
        pads = pads[:-2]
    return pads


def how(s: Kept, d: int) -> Any:
    """How dimension ``d`` (from the end) is resized, or None where it keeps its size."""
    return s.how[d] if len(s.how) >= -d else None


def resized(s: Kept) -> tuple[int, ...]:
    shape = s.x_shape[-len(s.how):]
    return tuple([n if h is None else h[2] for n, h in zip(shape, s.how)])


def scale(d: int) -> Any:
    def of(s: Kept) -> float | None:
        h = how(s, d)
        return None if h is None or h[3] is None else 1 / h[3]

    return of


def window(part: str) -> Any:
    def of(s: Kept) -> Any:
        w = getattr(s.node, "window", None)
        if w is None:
            raise Missing
        n = w.itemsize
        return {"size": w.shape, "stride": tuple([x // n for x in w.strides]), "offset": w.offset // n}[part]

    return of


def saved_out(i: int) -> Any:
    def of(s: Kept) -> Any:
        out = s.out
        return out[i] if isinstance(out, tuple) else out

    return of


DERIVED = {
    "selu_alpha": lambda s: 1.6732632423543772 if s.name == "selu" else 1.0,
    "selu_scale": lambda s: 1.0507009873554805 if s.name == "selu" else 1,
    "low": lambda s: None if "high_" in s.name else s.y,
    "high": lambda s: s.y if "high_" in s.name else None if "low_" in s.name else s.z,
    "rounding": lambda s: s.name.removeprefix("div_"),
    "approximate": lambda s: "tanh" if s.name == "gelu_tanh" else "none",
    "exponent": exponent,
    "order": lambda s: int(s.name.rpartition("_")[2]),
    "reduction": reduction,
    "expanded_weight": lambda s: s.w.expand(s.x.shape),
    "total": total_weight,
    "rows": lambda s: s.a.unsqueeze(-1),
    "as_max": lambda s: out_of(s, "max"),
    "as_min": lambda s: out_of(s, "min"),
    "axis": lambda s: s.axes[0],
    "count": lambda s: math.prod(s.x_shape),
    "indices": lambda s: squeezed(s, s.index),
    "turned": lambda s: s.w.detach().t(),
    "turned_shape": lambda s: s.w_shape[::-1],
    "turned_strides": lambda s: tuple(s.w.t().stride()),
    "one_dim": one_dim,
    "new_dim": lambda s: s.key.index(None),
    "split_size": lambda s: output_size(s, 0),
    "split_sizes": lambda s: tuple([m[0][s.dim] for m in s.node.meta]),
    "picked_dim": lambda s: only(s.key, int)[0],
    "picked": lambda s: only(s.key, int)[1],
    "complex_dim": lambda s: len(s.x_shape),
    "complex_part": lambda s: int(s.name == "imag"),
    "cut_dim": lambda s: whole(s.key)[0],
    "cut_start": lambda s: whole(s.key)[1].start or 0,
    "cut_end": lambda s: END if whole(s.key)[1].stop is None else whole(s.key)[1].stop,
    "cut_step": lambda s: whole(s.key)[1].step or 1,
    "cut_length": lambda s: (lambda k: k.stop - k.start)(whole(s.key)[1]),
    "window_size": window("size"),
    "window_stride": window("stride"),
    "window_offset": window("offset"),
    "param0": lambda s: s.params[0],
    "param1": lambda s: s.params[1],
    "param2": lambda s: s.params[2],
    "written_dim": lambda s: only(s.params[0], int)[0],
    "written": lambda s: only(s.params[0], int)[1],
    "written_cut_dim": lambda s: whole(s.params[0])[0],
    "written_start": lambda s: whole(s.params[0])[1].start,
    "written_end": lambda s: whole(s.params[0])[1].stop,
    "written_step": lambda s: whole(s.params[0])[1].step or 1,
    "pads": lambda s: without_zeros(flat_pairs(s.pads)),
    "pairs": lambda s: flat_pairs(s.pairs),
    "rank_of_source": lambda s: len(s.source_shape),
    "key": tensors_of,
    "index_vector": lambda s: s.i.movedim(s.dim, 0).flatten(1)[:, 0],
    "rows_of_weight": lambda s: s.weight_shape[0],
    "padding": lambda s: tuple([p[0] for p in s.padding]),
    "transposed": lambda s: s.name.endswith("transposed"),
    "output_padding": lambda s: tuple([p[0] - p[1] if s.name.endswith("transposed") else 0 for p in s.padding]),
    "window0": lambda s: s.window[0],
    "window1": lambda s: s.window[1],
    "window2": lambda s: s.window[2],
    "window3": lambda s: s.window[3],
    "training": lambda s: s.name == "native_batch_norm",
    "batch_mean": lambda s: s.m if s.name == "native_batch_norm" else as_tensor(np.empty(0, s.x.dtype.np)),
    "batch_scale": lambda s: (s.v + s.eps).rsqrt() if s.name == "native_batch_norm" else as_tensor(np.empty(0, s.x.dtype.np)),
    "batch": lambda s: s.x_shape[0],
    "channels": lambda s: s.x_shape[1],
    "pixels": lambda s: math.prod(s.x_shape[2:]),
    "normalized": lambda s: s.x_shape[-s.axes :],
    "width": lambda s: s.x_shape[-1],
    "height": lambda s: s.x_shape[-2],
    "resized": resized,
    "aligned": lambda s: any(h is not None and h[4] for h in s.how),
    "scale_w": scale(-1),
    "scale_h": scale(-2),
    "scale_d": scale(-3),
    "out0": saved_out(0),
    "out1": saved_out(1),
    "out2": saved_out(2),
    "rank": lambda s: s.out[1].shape[-1],
}


def output_size(s: Kept, nr: int) -> int:
    return s.node.meta[nr][0][s.dim]


#: Which of our operands (by operator or node) PyTorch's node has as inputs; None: one that never has a gradient here.
INPUTS: dict[str, tuple[int | None, ...]] = {
    **dict.fromkeys(
        "ClampBackward1 ClampMinBackward0 ClampMaxBackward0 CeluBackward0 CopysignBackward1 EluBackward0 FmodBackward0 HardshrinkBackward0 HardtanhBackward0"
        " LeakyReluBackward0 NanToNumBackward0 PowBackward0 PowBackward2 RemainderBackward0 RreluWithNoiseBackward0 RsubBackward1 SoftMarginLossBackward0"
        " SoftplusBackward0 SoftshrinkBackward0 ThresholdBackward0 XlogyBackward2 MaskedFillBackward0 IndexFillBackward0 NllLossBackward0 NllLoss2DBackward0"
        " ScatterBackward1".split(),
        (0,),
    ),
    **dict.fromkeys("add_alpha sub_alpha lerp_number BinaryCrossEntropyBackward0 BinaryCrossEntropyWithLogitsBackward0".split(), (0, 1)),
    **dict.fromkeys("IndexFillBackward1 MaskedFillBackward1 ScatterReduceBackward0 IndexReduceBackward0 WhereBackward1".split(), (0, 1)),
    **dict.fromkeys("addcmul addcdiv NativeBatchNormBackward0 ScaledDotProductFlashAttentionForCpuBackward0".split(), (0, 1, 2)),
    "WhereBackward0": (1, 2),
    "CopyBackwards": (0, 1),
    "clamp_low_tensor": (0, 1, None),
    "clamp_high_tensor": (0, None, 1),
}  # fmt: skip
