"""The old size_average and reduce arguments of losses, in terms of `reduction`."""

from __future__ import annotations

import warnings

from flambeau.core.errors import error

_NUMBER = {"none": 0, "mean": 1, "sum": 2}


def get_enum(reduction: str) -> int:
    """PyTorch's number of a reduction."""
    if reduction == "elementwise_mean":
        warnings.warn(
            "reduction='elementwise_mean' is deprecated. Please use reduction='mean' instead.", stacklevel=2
        )
        return 1
    if reduction not in _NUMBER:
        raise error(ValueError, f"{reduction} is not a valid value for reduction")
    return _NUMBER[reduction]


def legacy_get_string(size_average: bool | None, reduce: bool | None, emit_warning: bool = True) -> str:
    """The `reduction` that the old pair of arguments means."""
    if reduce is False:
        reduction = "none"
    else:
        reduction = "sum" if size_average is False else "mean"
    if emit_warning:
        warnings.warn(
            f"size_average and reduce args will be deprecated, please use reduction='{reduction}' instead.",
            stacklevel=2,
        )
    return reduction
