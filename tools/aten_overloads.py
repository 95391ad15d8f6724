"""Writes flambeau/_aten_overloads.txt: the operators that an installed PyTorch has under torch.ops.aten.

    python tools/aten_overloads.py            # rewrite the file
    python tools/aten_overloads.py --check    # exit 1 if it is out of date

A line is an operator's name and the names of its overloads, "default" first where there is one.
"""

from __future__ import annotations

import sys
from pathlib import Path

TARGET = Path(__file__).parent.parent / "flambeau" / "_aten_overloads.txt"


def lines() -> list[str]:
    import torch

    overloads: dict[str, set[str]] = {}
    for schema in torch._C._jit_get_all_schemas():
        namespace, _, name = schema.name.partition("::")
        if namespace == "aten":
            overloads.setdefault(name, set()).add(schema.overload_name or "default")
    return [f"{name} {' '.join(sorted(found, key=lambda o: (o != 'default', o)))}" for name, found in sorted(overloads.items())]


def main() -> int:
    text = "\n".join(lines()) + "\n"
    if "--check" in sys.argv[1:]:
        return int(TARGET.read_text(encoding="utf-8") != text)
    TARGET.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
