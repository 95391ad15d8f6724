"""Padding layers: constant, zero, reflection, replication, circular."""

from __future__ import annotations

from typing import Any

from flambeau.core.errors import error
from flambeau.core.tensor import Tensor
from flambeau.nn import functional as F
from flambeau.nn.modules.module import Module
from flambeau.nn.modules.utils import _ntuple

__all__ = [
    "CircularPad1d",
    "CircularPad2d",
    "CircularPad3d",
    "ConstantPad1d",
    "ConstantPad2d",
    "ConstantPad3d",
    "ReflectionPad1d",
    "ReflectionPad2d",
    "ReflectionPad3d",
    "ReplicationPad1d",
    "ReplicationPad2d",
    "ReplicationPad3d",
    "ZeroPad1d",
    "ZeroPad2d",
    "ZeroPad3d",
]


class _PadNd(Module):
    """Pads the last n dimensions: (left, right, top, bottom, front, back), or one number for all."""

    __constants__ = ["padding"]
    _n: int
    _mode: str

    def __init__(self, padding: int | tuple[int, ...]) -> None:
        super().__init__()
        self.padding = _ntuple(2 * self._n)(padding)

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(input, self.padding, self._mode)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class _ConstantPadNd(_PadNd):
    __constants__ = ["padding", "value"]

    def __init__(self, padding: int | tuple[int, ...], value: Any) -> None:
        super().__init__(padding)
        self.value = value

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(input, self.padding, "constant", self.value)

    def extra_repr(self) -> str:
        return f"padding={self.padding}, value={self.value}"


class ConstantPad1d(_ConstantPadNd):
    """Pad with `value`. Shape: (*, L) -> (*, L + left + right)"""

    _n = 1


class ConstantPad2d(_ConstantPadNd):
    """Pad with `value`. Shape: (*, H, W) -> (*, H + top + bottom, W + left + right)"""

    _n = 2


class ConstantPad3d(_ConstantPadNd):
    """Pad with `value`. Shape: (*, D, H, W) -> (*, D', H', W')"""

    _n = 3


class _Zeros:
    def __init__(self, padding: int | tuple[int, ...]) -> None:
        super().__init__(padding, 0.0)  # type: ignore[call-arg]

    def extra_repr(self) -> str:
        return f"{self.padding}"  # type: ignore[attr-defined]


class ZeroPad1d(_Zeros, ConstantPad1d):
    """Pad with 0. Shape: (*, L) -> (*, L + left + right)"""


class ZeroPad2d(_Zeros, ConstantPad2d):
    """Pad with 0. Shape: (*, H, W) -> (*, H + top + bottom, W + left + right)"""


class ZeroPad3d(_Zeros, ConstantPad3d):
    """Pad with 0. Shape: (*, D, H, W) -> (*, D', H', W')"""


class _ReflectionPadNd(_PadNd):
    _mode = "reflect"


class ReflectionPad1d(_ReflectionPadNd):
    """Pad by reflection at the border, which is not repeated. Shape: (N, C, L) or (C, L)"""

    _n = 1


class ReflectionPad2d(_ReflectionPadNd):
    """Pad by reflection at the border, which is not repeated. Shape: (N, C, H, W) or (C, H, W)"""

    _n = 2


class ReflectionPad3d(_ReflectionPadNd):
    """Pad by reflection at the border, which is not repeated. Shape: (N, C, D, H, W) or (C, D, H, W)"""

    _n = 3


class _ReplicationPadNd(_PadNd):
    _mode = "replicate"


class ReplicationPad1d(_ReplicationPadNd):
    """Pad with the value at the border. Shape: (N, C, L) or (C, L)"""

    _n = 1


class ReplicationPad2d(_ReplicationPadNd):
    """Pad with the value at the border. Shape: (N, C, H, W) or (C, H, W)"""

    _n = 2


class ReplicationPad3d(_ReplicationPadNd):
    """Pad with the value at the border. Shape: (N, C, D, H, W) or (C, D, H, W)"""

    _n = 3


class _CircularPadNd(_PadNd):
    _mode = "circular"

    def _check_input_dim(self, input: Tensor) -> None:
        n = self._n
        if input.dim() not in (n + 1, n + 2):
            raise error(ValueError, f"expected {n + 1}D or {n + 2}D input (got {input.dim()}D input)")

    def forward(self, input: Tensor) -> Tensor:
        self._check_input_dim(input)
        return super().forward(input)


class CircularPad1d(_CircularPadNd):
    """Pad with what is at the other end. Shape: (N, C, L) or (C, L)"""

    _n = 1


class CircularPad2d(_CircularPadNd):
    """Pad with what is at the other end. Shape: (N, C, H, W) or (C, H, W)"""

    _n = 2


class CircularPad3d(_CircularPadNd):
    """Pad with what is at the other end. Shape: (N, C, D, H, W) or (C, D, H, W)"""

    _n = 3
