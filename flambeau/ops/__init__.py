"""Operators, one file a family.

Here are imported those that nearly every program uses. The others follow when one of their names is first used
(``later.py``); tools/operator_names.py lists their names in ``names.py``, a test says when that list is out of date.
"""

from typing import Any

from . import (
    arithmetic,
    compare,
    convert,
    creation,
    indexing,
    joining,
    matmul,
    reductions,
    views,
)


def __getattr__(name: str) -> Any:
    """``torch.ops.aten``: PyTorch's names for operators."""
    if name == "aten":
        from .._aten import aten

        return aten
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
