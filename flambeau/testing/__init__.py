"""``torch.testing``: comparing tensors in tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..core.tensor import Tensor

# PyTorch's default tolerances: (rtol, atol) by dtype.
_TOLERANCES = {
    "float16": (1e-3, 1e-5),
    "bfloat16": (1.6e-2, 1e-5),
    "float32": (1.3e-6, 1e-5),
    "float64": (1e-7, 1e-7),
    "complex64": (1.3e-6, 1e-5),
    "complex128": (1e-7, 1e-7),
}


def assert_close(
    actual: Any,
    expected: Any,
    *,
    allow_subclasses: bool = True,
    rtol: float | None = None,
    atol: float | None = None,
    equal_nan: bool = False,
    check_device: bool = True,
    check_dtype: bool = True,
    check_layout: bool = True,
    check_stride: bool = False,
    msg: Any = None,
) -> None:
    """AssertionError unless ``|actual - expected| <= atol + rtol * |expected|`` everywhere.

    Sequences and mappings are compared entry by entry. Both tolerances, or neither, may be given; the default
    depends on the dtype.
    """
    if (rtol is None) != (atol is None):
        raise ValueError(f"Either both 'rtol' and 'atol' must be specified or both be left unset, but got rtol={rtol} and atol={atol}")
    again = {"rtol": rtol, "atol": atol, "equal_nan": equal_nan, "check_dtype": check_dtype, "check_stride": check_stride, "msg": msg}

    def fail(text: str) -> None:
        raise AssertionError(msg(text) if callable(msg) else msg or text)

    if isinstance(actual, Mapping) and isinstance(expected, Mapping):
        if actual.keys() != expected.keys():
            fail(f"The keys of the mappings do not match: {sorted(map(str, actual))} and {sorted(map(str, expected))}")
        for k in actual:
            assert_close(actual[k], expected[k], **again)
        return
    if isinstance(actual, Sequence) and isinstance(expected, Sequence) and not isinstance(actual, str):
        if len(actual) != len(expected):
            fail(f"The length of the sequences mismatch: {len(actual)} != {len(expected)}")
        for a, e in zip(actual, expected):
            assert_close(a, e, **again)
        return
    from ..ops.creation import as_tensor

    number = not isinstance(actual, Tensor) and not isinstance(expected, Tensor)
    a, e = as_tensor(actual).detach(), as_tensor(expected).detach()
    if a.shape != e.shape:
        fail(f"The values for attribute 'shape' do not match: {a.shape} != {e.shape}.")
    if check_dtype and not number and a.dtype is not e.dtype:
        fail(f"The values for attribute 'dtype' do not match: {a.dtype} != {e.dtype}.")
    if check_stride and a.stride() != e.stride():
        fail(f"The values for attribute 'stride()' do not match: {a.stride()} != {e.stride()}.")
    tolerances = [_TOLERANCES.get(t.dtype.name, (0.0, 0.0)) for t in (a, e)]
    r = max(t[0] for t in tolerances) if rtol is None else rtol
    at = max(t[1] for t in tolerances) if atol is None else atol
    kind = np.complex128 if "c" in (a._a.dtype.kind, e._a.dtype.kind) else np.float64
    if a._a.dtype.kind in "biu" and e._a.dtype.kind in "biu":
        x, y = a._a.astype(object), e._a.astype(object)
        close = np.asarray(np.abs(x - y) <= at + r * np.abs(y), bool) if r or at else np.asarray(a._a == e._a)
        x, y = a._a.astype(np.float64), e._a.astype(np.float64)
    else:
        x, y = a._a.astype(kind), e._a.astype(kind)
        close = np.isclose(x, y, rtol=r, atol=at, equal_nan=equal_nan)
    if close.all():
        return
    with np.errstate(all="ignore"):
        diff = np.where(close, 0, np.abs(x - y))
        relative = diff / np.abs(y)
    wrong, total = int((~close).sum()), close.size
    if close.ndim == 0:
        fail(f"Scalars are not close!\n\nExpected {e.item()} but got {a.item()}.\nAbsolute difference: {float(diff)} (up to {at} allowed)\n"
             f"Relative difference: {float(relative)} (up to {r} allowed)")
    worst = tuple(int(i) for i in np.unravel_index(np.nanargmax(diff), diff.shape))
    worst_relative = tuple(int(i) for i in np.unravel_index(np.nanargmax(np.where(np.isfinite(relative), relative, -1)), diff.shape))
    fail(
        f"Tensor-likes are not close!\n\nMismatched elements: {wrong} / {total} ({100 * wrong / total:.1f}%)\n"
        f"Greatest absolute difference: {float(diff[worst])} at index {worst} (up to {at} allowed)\n"
        f"Greatest relative difference: {float(relative[worst_relative])} at index {worst_relative} (up to {r} allowed)"
    )


__all__ = ["assert_close"]
