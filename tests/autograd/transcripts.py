"""Small programs, what they print, and what PyTorch printed.

A program is a few lines of text over ``T``, which is flambeau or torch. It is run like a session at the prompt: every
top-level expression is shown, every error is shown and the session goes on, so that a program also shows what an error
left behind. What torch showed is kept in a JSON file beside the test, so that the tests mean something without it::

    python -m tests.autograd.transcripts tests/autograd/test_views.py     # record anew, where torch is installed
"""

from __future__ import annotations

import ast
import importlib
import json
import linecache
import sys
import warnings
from pathlib import Path
from typing import Any

Transcript = list[str]


def run(text: str, T: Any) -> Transcript:
    """What a program shows, line by line."""
    names: dict[str, Any] = {"T": T, "__name__": "user"}
    linecache.cache["program.py"] = (len(text), None, text.splitlines(keepends=True), "program.py")
    shown: Transcript = []
    for node in ast.parse(text).body:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                if isinstance(node, ast.Expr):
                    value = eval(compile(ast.Expression(node.value), "program.py", "eval"), names)
                    if value is not None:
                        shown.append(show(value))
                else:
                    exec(compile(ast.Module([node], []), "program.py", "exec"), names)
        except Exception as e:
            shown.append(f"{type(e).__name__}: {e}")
    return shown


def show(value: Any) -> str:
    """A value in words that are the same for both: a tensor by its values and its place in the graph."""
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(show, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k}: {show(v)}" for k, v in value.items()) + "}"
    if isinstance(value, float):
        return f"{value:.4g}" if value else "0"
    if hasattr(value, "requires_grad") and hasattr(value, "detach"):
        values = show(value.detach().tolist())
        try:
            made_by = value.grad_fn
        except RuntimeError:
            return f"{values} forbidden"
        return values + (f" by {made_by.name()}" if made_by is not None else " leaf" if value.requires_grad else "")
    if hasattr(value, "next_functions"):
        return str(value.name())
    return repr(value)


def first_words(shown: str) -> str:
    return shown.split("\n")[0].split(" Hint: ")[0].rstrip()


def differences(name: str, got: Transcript, want: Transcript) -> list[str]:
    """Where two transcripts differ; of an error the class and PyTorch's words count, not what flambeau adds below."""
    out = []
    for i in range(max(len(got), len(want))):
        a = got[i] if i < len(got) else "(nothing)"
        b = want[i] if i < len(want) else "(nothing)"
        if first_words(a) != first_words(b):
            out.append(f"{name}, output {i + 1}:\n    flambeau: {a}\n    PyTorch:  {b}")
    return out


def recorded(test_file: str) -> dict[str, Transcript]:
    """What PyTorch showed for the programs of a test module."""
    path = Path(test_file).with_suffix(".json")
    return json.loads(path.read_text())


def record(test_file: str) -> None:
    import torch

    module = importlib.import_module(".".join(Path(test_file).with_suffix("").parts))
    found = {name: run(text, torch) for name, text in module.PROGRAMS.items()}
    Path(test_file).with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    for file in sys.argv[1:]:
        record(file)
