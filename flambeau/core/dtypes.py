"""Data types and PyTorch's promotion rules.

A ``dtype`` is a named value (``flambeau.float32``); ``dtype.np`` is the NumPy type that stores it. Promotion is a
function of categories (bool < integral < floating < complex) and of widths inside a category, see
https://docs.pytorch.org/docs/stable/tensor_attributes.html#type-promotion-doc.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

BOOL, INT, FLOAT, COMPLEX = range(4)


class dtype:
    """The type of a tensor's elements, e.g. ``flambeau.float32``; there is one object for each type."""

    __slots__ = ("name", "np", "category", "itemsize", "is_signed", "rank", "__weakref__")
    name: str
    np: np.dtype
    category: int
    itemsize: int
    is_signed: bool
    rank: int  # order inside a category

    def __init__(self, name: str, np_type: Any, category: int, rank: int) -> None:
        self.name, self.np, self.category, self.rank = name, np.dtype(np_type), category, rank
        self.itemsize = self.np.itemsize
        self.is_signed = name not in ("bool", "uint8", "uint16", "uint32", "uint64")

    @property
    def is_floating_point(self) -> bool:
        return self.category == FLOAT

    @property
    def is_complex(self) -> bool:
        return self.category == COMPLEX

    def to_real(self) -> dtype:
        return {"complex64": float32, "complex128": float64, "complex32": float16}.get(self.name, self)

    def to_complex(self) -> dtype:
        return {"float64": complex128, "float32": complex64, "float16": complex64, "bfloat16": complex64}.get(
            self.name, self if self.category == COMPLEX else complex64
        )

    def __repr__(self) -> str:
        return f"torch.{self.name}"

    def __reduce__(self) -> str | tuple[Any, ...]:
        return (by_name, (self.name,))

    def __copy__(self) -> dtype:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> dtype:
        return self


class _BFloat16(dtype):
    """bfloat16 until its NumPy type is asked for: ``ml_dtypes``, which has it, takes 6 ms to import."""

    __slots__ = ()

    def __init__(self) -> None:
        self.name, self.category, self.rank, self.itemsize, self.is_signed = "bfloat16", FLOAT, 0, 2, True

    def __getattr__(self, name: str) -> Any:
        if name != "np":
            raise AttributeError(name)
        import ml_dtypes

        self.np = np.dtype(ml_dtypes.bfloat16)
        FROM_NP[self.np] = self
        object.__setattr__(self, "__class__", dtype)
        return self.np


class _FromNumPy(dict[Any, dtype]):
    """NumPy's dtypes to ours, also a bfloat16 of the user's that comes before ours was used."""

    def __missing__(self, np_type: Any) -> dtype:
        if getattr(np_type, "name", None) == "bfloat16" and bfloat16.np == np_type:
            return bfloat16
        raise KeyError(np_type)

    def get(self, np_type: Any, default: Any = None) -> Any:
        return self[np_type] if np_type in self else default

    def __contains__(self, np_type: Any) -> bool:
        return super().__contains__(np_type) or getattr(np_type, "name", None) == "bfloat16"


bool_ = dtype("bool", np.bool_, BOOL, 0)
uint8 = dtype("uint8", np.uint8, INT, 0)
int8 = dtype("int8", np.int8, INT, 0)
int16 = dtype("int16", np.int16, INT, 1)
int32 = dtype("int32", np.int32, INT, 2)
int64 = dtype("int64", np.int64, INT, 3)
float16 = dtype("float16", np.float16, FLOAT, 0)
bfloat16: dtype = _BFloat16()
float32 = dtype("float32", np.float32, FLOAT, 1)
float64 = dtype("float64", np.float64, FLOAT, 2)
complex64 = dtype("complex64", np.complex64, COMPLEX, 1)
complex128 = dtype("complex128", np.complex128, COMPLEX, 2)

ALL = (bool_, uint8, int8, int16, int32, int64, float16, bfloat16, float32, float64, complex64, complex128)
FROM_NP = _FromNumPy({d.np: d for d in ALL if d is not bfloat16})
BY_NAME = {d.name: d for d in ALL}
ALIASES = {
    "half": float16,
    "float": float32,
    "double": float64,
    "short": int16,
    "int": int32,
    "long": int64,
    "cfloat": complex64,
    "cdouble": complex128,
}
# The names that legacy messages and `Tensor.type()` use.
SCALAR_NAMES = {
    bool_: "Bool",
    uint8: "Byte",
    int8: "Char",
    int16: "Short",
    int32: "Int",
    int64: "Long",
    float16: "Half",
    bfloat16: "BFloat16",
    float32: "Float",
    float64: "Double",
    complex64: "ComplexFloat",
    complex128: "ComplexDouble",
}
# The names that "mat1 and mat2 must have the same dtype, but got float and double" and its kin use.
C_NAMES = {
    bool_: "bool",
    uint8: "unsigned char",
    int8: "signed char",
    int16: "short",
    int32: "int",
    int64: "long int",
    float16: "c10::Half",
    bfloat16: "c10::BFloat16",
    float32: "float",
    float64: "double",
    complex64: "c10::complex<float>",
    complex128: "c10::complex<double>",
}

_default = float32


def by_name(name: str) -> dtype:
    return BY_NAME[name]


def get_default_dtype() -> dtype:
    """The floating dtype that Python floats and factory functions give: float32 unless changed."""
    return _default


def set_default_dtype(d: dtype) -> None:
    """Set the floating dtype of new tensors; TypeError unless ``d`` is a floating dtype."""
    global _default
    if not isinstance(d, dtype) or d.category != FLOAT:
        raise TypeError(f"only floating-point types are supported as the default type, got {d}")
    _default = d


def default_complex() -> dtype:
    return complex128 if _default is float64 else complex64


def of_array(a: np.ndarray) -> dtype:
    """The dtype of a NumPy array; TypeError, in PyTorch's words, for one that has no counterpart."""
    d = FROM_NP.get(a.dtype)
    if d is None:
        raise TypeError(
            f"can't convert np.ndarray of type {a.dtype.type.__module__}.{a.dtype.type.__name__}. The only supported types are: "
            "float64, float32, float16, complex64, complex128, int64, int32, int16, int8, uint64, uint32, "
            "uint16, uint8, and bool."
        )
    return d


@cache
def promote_types(a: dtype, b: dtype) -> dtype:
    """The smallest dtype, in PyTorch's lattice, to which both can be cast.

    >>> promote_types(uint8, int8)
    torch.int16
    >>> promote_types(float16, bfloat16)
    torch.float32
    """
    if a is b:
        return a
    if a.category > b.category:
        a, b = b, a
    if a.category != b.category:  # b wins, widened where a complex must hold a double
        return complex128 if b.category == COMPLEX and a is float64 else b
    if {a, b} == {uint8, int8}:
        return int16
    if {a, b} == {float16, bfloat16}:
        return float32
    return a if a.rank > b.rank else b


def of_scalar(value: Any) -> dtype:
    """The dtype that a Python number stands for in promotion."""
    if isinstance(value, (bool, np.bool_)):
        return bool_
    if isinstance(value, (int, np.integer)):
        return int64
    if isinstance(value, (float, np.floating)):
        return _default
    return default_complex()


def _combine(higher: dtype | None, lower: dtype | None) -> dtype | None:
    """Result of a higher-priority group (tensors with dimensions) and a lower one (0-d tensors, then numbers)."""
    if higher is None or lower is None:
        return higher or lower
    if higher.category >= lower.category:
        return higher
    if higher.category == FLOAT:  # with a complex of lower priority: keep the higher's width
        return higher.to_complex()
    return promote_types(higher, lower)


def result_type(dims: list[dtype], zeros: list[dtype], numbers: list[dtype]) -> dtype:
    """Promotion over tensors with dimensions, 0-d tensors and Python numbers, in falling priority."""
    groups = []
    for group in (dims, zeros, numbers):
        r: dtype | None = None
        for d in group:
            r = d if r is None else promote_types(r, d)
        groups.append(r)
    out = _combine(_combine(groups[0], groups[1]), groups[2])
    assert out is not None
    return out


def can_cast(src: dtype, dst: dtype) -> bool:
    """Whether PyTorch lets ``src`` be written into ``dst``: never to a lower category, save float kinds among themselves.

    >>> can_cast(float64, float32), can_cast(float32, int64)
    (True, False)
    """
    if src.category > dst.category and not (src.category == INT and dst.category == INT):
        return False
    return not (src.category == INT and dst.category == BOOL)
