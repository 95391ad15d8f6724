"""The order in which images lie in memory: what works on several of them wants them alike.

Convolutions make images channels-last. Where one meets another image in C order, the other is re-laid, on all threads,
and the result is channels-last again: so the order that is quick to compute on is lost at no operator.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def channels_last(a: np.ndarray) -> bool:
    """Whether an image (N, C, H, W), or a volume, lies densely channels-last, and not in C order as well."""
    return (a.ndim == 4 or a.ndim == 5) and not a.flags.c_contiguous and (
        a.transpose(0, *range(2, a.ndim), 1).flags.c_contiguous)


def batches_of_channels_last(a: np.ndarray) -> bool:
    """The same of (B, N, C, H, W) and (B, N, C, D, H, W), which images and volumes are inside vmap."""
    return (a.ndim == 5 or a.ndim == 6) and not a.flags.c_contiguous and (
        a.transpose(0, 1, *range(3, a.ndim), 2).flags.c_contiguous)


def as_laid(a: np.ndarray, like: np.ndarray) -> np.ndarray:
    """`a`, in the order of `like`, which has its shape, where that is channels-last; else as it is.

    >>> images = np.moveaxis(np.ones((2, 3, 4, 5)), -1, 1)
    >>> as_laid(np.ones((2, 5, 3, 4)), images).strides == images.strides
    True
    """
    if a.strides == like.strides or not (channels_last(like) or batches_of_channels_last(like)):
        return a
    result = np.empty_like(like, dtype=a.dtype)
    if 0 in a.strides:
        result[...] = a
    else:
        from flambeau.kernels.onednn.reorder import copy

        copy(a, result)
    return result


def agree(arrays: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
    """The arrays, those of one shape re-laid channels-last where one of them is so; repeated values stay views."""
    for like in arrays:
        if channels_last(like) or batches_of_channels_last(like):
            return [as_laid(a, like) if a.shape == like.shape and 0 not in a.strides else a for a in arrays]
    return arrays
