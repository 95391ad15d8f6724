"""``torch.Size``: a tuple of ints that prints and slices as a Size."""

from __future__ import annotations

from math import prod
from typing import Any


class Size(tuple):
    """The shape of a tensor.

    >>> Size([2, 3]).numel()
    6
    """

    __slots__ = ()

    def __new__(cls, it: Any = ()) -> Size:
        return tuple.__new__(cls, it)

    def numel(self) -> int:
        return prod(self)

    def __repr__(self) -> str:
        return f"torch.Size([{', '.join(map(str, self))}])"

    __str__ = __repr__

    def __getitem__(self, i: Any) -> Any:
        r = tuple.__getitem__(self, i)
        return Size(r) if isinstance(i, slice) else r

    def __add__(self, other: Any) -> Size:
        return Size(tuple.__add__(self, tuple(other)))

    def __mul__(self, n: Any) -> Size:
        return Size(tuple.__mul__(self, n))

    __rmul__ = __mul__

    def __reduce__(self) -> tuple[Any, ...]:
        return (Size, (tuple(self),))
