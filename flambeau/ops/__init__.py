"""Operators, one file a family.

Here are imported those that nearly every program uses. The others follow when one of their names is first used
(``later.py``); tools/operator_names.py lists their names in ``names.py``, a test says when that list is out of date.
"""

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
