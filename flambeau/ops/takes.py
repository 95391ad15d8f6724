"""Which dtypes an operator takes: the check of those that are no pointwise expressions."""

from __future__ import annotations

from ..core.dtypes import BOOL, COMPLEX, INT, SCALAR_NAMES
from ..core.errors import error
from ..core.tensor import Tensor

#: letters for groups of dtypes
GROUPS = {BOOL: "b", INT: "i", COMPLEX: "c"}


def takes(kernel: str, t: Tensor, kinds: str) -> None:
    """Raise PyTorch's NotImplementedError, which names its ``kernel``, unless ``t`` is of one of the ``kinds``.

    They are letters: b for bool, i for integers, h for half precision, f for float and double, c for complex numbers.
    """
    d = t.dtype
    kind = GROUPS.get(d.category) or ("h" if d.itemsize == 2 else "f")
    if kind not in kinds:
        raise error(NotImplementedError, f"\"{kernel}\" not implemented for '{SCALAR_NAMES[d]}'")
