"""Where flambeau and PyTorch part on purpose, or where PyTorch promises nothing: what is not compared, and why.

(test file, pattern of the case's name, pattern of the variant, reason); see variants.py. ``[`` and ``]`` in names are
written ``?``.
"""

from __future__ import annotations

import fnmatch
from typing import Any

HALF = "PyTorch has no kernel for half precision here; flambeau computes it"
UNIQUE = "equal singular values or a matrix of low rank: the factors are not unique"
SINGULAR = "a singular matrix: what the result is, infinities or nan, depends on rounding"
TIES = "which of equal values is chosen is not specified"
GARBAGE = "PyTorch answers with memory that it did not write"
FLOATING = "flambeau computes this loss in floating dtypes only"
OUT_FILL = "PyTorch writes into the operand; flambeau broadcasts"
PIXELS = "PyTorch weighs bytes in fixed point: results differ by 1 where they are near a half"
NO_KERNEL = "PyTorch has no kernel for integers with a stride; flambeau computes it"
NO_SPACE = "flambeau refuses inputs and kernels without space whatever the number of channels"

APART: list[tuple[str, str, str, str]] = [
    ("attention", "grouped", "empty 2", "no heads: PyTorch lets 0 be divided by 0"),
    ("attention", "broadcast_batch", "empty 1", "a batch of 1 that became 0 beside one of 2"),
    ("conv", "conv*", "empty *", NO_SPACE),
    ("conv", "conv2d_stride", "*int*", NO_KERNEL),
    ("conv", "convolution", "complex*", "PyTorch computes complex convolutions in conv1d to conv3d only"),
    ("conv", "conv2d_empty_batch", "bool", "flambeau refuses truth values whether there are any or not"),
    ("indexing", "index_add", "empty 4", "indices beyond an empty dimension: PyTorch doesn't look at them"),
    ("indexing", "embedding", "empty 4", "an IndexError for an index in an empty table, as in any other"),
    ("linalg", "inv_ex", "expanded *", SINGULAR),
    ("linalg", "solve_ex", "expanded *", SINGULAR),
    ("linalg", "cond", "expanded *", SINGULAR),
    ("linalg", "*qr*", "expanded *", UNIQUE),
    ("linalg", "svd*", "expanded *", UNIQUE),
    ("linalg", "cholesky_inverse", "complex*", "the factor's diagonal is not real here: PyTorch ignores its imaginary part"),
    ("linalg", "matrix_exp", "*float16", "PyTorch overflows; flambeau computes in float32"),
    ("linalg", "matrix_norm *", "empty *", "the largest of no sums: flambeau refuses, PyTorch gives 0 for some orders"),
    ("linalg", "matrix_norm_dims", "empty *", "as matrix_norm"),
    ("linalg", "norm_1", "empty *", "as matrix_norm"),
    ("linalg", "cdist*", "*float16", HALF),
    ("loss", "soft_margin*", "complex*", FLOATING),
    ("loss", "soft_margin*", "0-d*", OUT_FILL),
    ("loss", "bce_logits_pos_weight", "0-d*", OUT_FILL),
    ("loss", "poisson_nll*", "*int*", FLOATING),
    ("loss", "poisson_nll*", "complex*", FLOATING),
    ("loss", "margin_ranking", "*int*", FLOATING),
    ("loss", "cosine_embedding", "uint8", "PyTorch's squares of bytes wrap around"),
    ("loss", "cross_entropy_2x3x*", "empty 3", "no classes: the index is out of range, says flambeau; sizes differ, says PyTorch"),
    ("loss", "multi_margin_loss_4x3*", "empty 4", GARBAGE),
    ("loss", "multilabel_margin", "empty 2", GARBAGE),
    ("matmul", "bilinear", "0-d 3", "a bias without dimensions broadcasts"),
    ("norm", "batch_norm_fixed", "0-d*", "two mistakes at once: each says one of them"),
    ("norm", "rms_norm*", "complex*", "flambeau normalises real numbers"),
    ("norm", "local_response_norm", "*float16", HALF),
    ("pool", "avg_pool3d", "*float16", HALF),
    ("pool", "lp_pool3d", "*float16", HALF),
    ("scans", "logcumsumexp_wide", "complex*", "the imaginary part is defined up to multiples of 2 pi"),
    ("sorting", "*topk*", "uint8", TIES),
    ("sorting", "*kthvalue*", "uint8", TIES),
    ("sorting", "*median*", "int64", TIES),
    ("sorting", "*topk*", "expanded *", TIES),
    ("sorting", "*kthvalue*", "expanded *", TIES),
    ("sorting", "*median*", "expanded *", GARBAGE),
    ("sorting", "histogram", "0-d", "a value on an edge: rounding decides which bin it is in"),
    ("sorting", "histogram_*", "*float16", "flambeau counts float and double"),
    ("views", "view_as_*", "float16", "flambeau has no complex32"),
    ("views", "real", "float16", "flambeau has no complex32"),
    ("views", "imag", "float16", "flambeau has no complex32"),
    ("vision", "bi*", "uint8", PIXELS),
    ("vision", "bi*_antialias*", "*float16", HALF),
    ("vision", "affine_grid_corners", "*float16", HALF),
    ("vision", "pixel_unshuffle", "empty *", "PyTorch returns an empty input unshuffled"),
    ("indexing", "as_strided_scatter", "gradient *", "PyTorch's gradient is that of another window: central differences agree with flambeau's"),
    ("linalg", "cholesky_solve", "gradient *", "PyTorch spreads the gradient over both triangles; only one is read"),
    ("linalg", "cholesky_inverse", "gradient *", "as cholesky_solve"),
    ("linalg", "matrix_exp", "gradient *float16", "PyTorch overflows; flambeau computes in float32"),
    ("loss", "poisson_nll*", "gradient complex*", FLOATING),
    ("norm", "rms_norm*", "gradient complex*", "flambeau normalises real numbers"),
    ("views", "view_as_*", "gradient float16", "flambeau has no complex32"),
    ("views", "real", "gradient float16", "flambeau has no complex32"),
    ("views", "imag", "gradient float16", "flambeau has no complex32"),
]  # fmt: skip


# Operators that vmap cannot take, as PyTorch's cannot: (test file, pattern of the case's name, reason).
NOT_BATCHED: list[tuple[str, str, str]] = [
    ("indexing", "mask", "the mask decides the shape"),
    ("indexing", "mask_rows", "the mask decides the shape"),
    ("indexing", "mask_and_list", "the mask decides the shape"),
    ("indexing", "masked_select", "the mask decides the shape"),
    ("indexing", "*nonzero*", "the values decide the shape"),
    ("indexing", "argwhere", "the values decide the shape"),
    ("names", "rrelu", "draws, even where both bounds agree"),
    ("sorting", "*unique*", "the values decide the shape"),
    ("views", "repeat_interleave_each", "the counts decide the shape"),
]

# Operators whose batching rule is a loop over the examples: (test file, pattern of the case's name, reason).
LOOPS: list[tuple[str, str, str]] = [
    ("sorting", "bincount*", "the values decide the shape, which may be the same for all"),
    ("sorting", "histogram*", "each example has edges of its own"),
]


def _found(rows: list[tuple[str, str, str]], test: Any, case: Any) -> str | None:
    file = type(test).__module__.rpartition("test_")[2]
    return next((why for f, pattern, why in rows if f == file and fnmatch.fnmatchcase(case.name, pattern)), None)


def without_rule(test: Any, case: Any, _: str) -> str | None:
    """Why vmap doesn't take an operator, or None."""
    return _found(NOT_BATCHED, test, case)


def loops(test: Any, case: Any) -> str | None:
    """Why an operator may loop over the examples, or None."""
    return _found(LOOPS, test, case)
