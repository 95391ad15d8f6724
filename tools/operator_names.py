"""Writes flambeau/ops/names.py: the names of the families of operators that are imported on first use.

    python tools/operator_names.py            # rewrite the file
    python tools/operator_names.py --check    # exit 1 if it is out of date

Those families are the modules of flambeau/ops that `import flambeau` does not import.
"""

from __future__ import annotations

import ast
import importlib
import pkgutil
import sys
from graphlib import TopologicalSorter
from pathlib import Path
from textwrap import fill
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
OPS = ROOT / "flambeau" / "ops"
TARGET = OPS / "names.py"
EMPTY = "PUBLISHED = {}\nMETHODS = {}\n"


def families() -> list[str]:
    """The families in question, each after those that it imports."""
    later = {m.name for m in pkgutil.iter_modules([str(OPS)]) if f"flambeau.ops.{m.name}" not in sys.modules}
    graph: dict[str, set[str]] = {}
    for name in sorted(later):
        tree = ast.parse((OPS / f"{name}.py").read_text(encoding="utf-8"))
        imports = [n for n in tree.body if isinstance(n, ast.ImportFrom) and n.level == 1]
        graph[name] = {a for n in imports for a in ([n.module] if n.module else [x.name for x in n.names])} & later
    return list(TopologicalSorter(graph).static_order())


def published() -> dict[str, dict[str, Any]]:
    """What is there now: module -> name -> function; "Tensor" for its methods."""
    from flambeau.core.tensor import Tensor
    from flambeau.ops.later import Method
    from flambeau.ops.public import FUNCTIONS

    there = {module: dict(functions) for module, functions in FUNCTIONS.items()}
    there["Tensor"] = {name: value for name, value in vars(Tensor).items() if not isinstance(value, Method)}
    return there


def index() -> dict[str, dict[str, list[str]]]:
    """module -> family -> the names that the family adds to it."""
    found: dict[str, dict[str, list[str]]] = {}
    before = published()
    for family in families():
        importlib.import_module(f"flambeau.ops.{family}")
        after = published()
        for module, functions in after.items():
            old = before.get(module, {})
            changed = [name for name in old if functions[name] is not old[name]]
            added = sorted(functions.keys() - old.keys())
            special = [name for name in added if module == "Tensor" and name.startswith("__")]
            if changed or special:
                sys.exit(f"{family} changes {module or 'torch'}.{(changed or special)[0]}: import it in flambeau/ops/__init__.py")
            if added:
                found.setdefault(module, {})[family] = added
        before = after
    return found


def source(found: dict[str, dict[str, list[str]]]) -> str:
    def table(families: dict[str, list[str]], indent: str) -> str:
        lines = []
        for family, names in sorted(families.items()):
            text = fill(" ".join(names), 104 - len(indent), break_on_hyphens=False, break_long_words=False)
            rows = [f'"{row} "' for row in text.splitlines()]
            rows[-1] = rows[-1][:-2] + '"'
            joined = f"\n{indent}    ".join(rows)
            lines.append(f'{indent}"{family}": (\n{indent}    {joined}\n{indent}),\n' if len(rows) > 1 else f'{indent}"{family}": {rows[0]},\n')
        return "".join(lines)

    modules = "".join(f'    "{m}": {{\n{table(found[m], " " * 8)}    }},\n' for m in sorted(found) if m != "Tensor")
    return (
        '"""What the families of operators publish that are imported on first use (see later.py).\n\n'
        'Written by tools/operator_names.py; a test compares.\n"""\n\n'
        "#: module -> family -> names of functions\n"
        f"PUBLISHED: dict[str, dict[str, str]] = {{\n{modules}}}\n\n"
        "#: family -> names of Tensor's methods\n"
        f"METHODS: dict[str, str] = {{\n{table(found.get('Tensor', {}), ' ' * 4)}}}\n"
    )


def main() -> int:
    sys.path.insert(0, str(ROOT))
    if not TARGET.exists():
        TARGET.write_text(EMPTY)
    old = TARGET.read_text(encoding="utf-8")
    importlib.import_module("flambeau")
    text = source(index())
    if "--check" in sys.argv:
        return int(old != text)
    TARGET.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
