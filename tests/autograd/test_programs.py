"""Whole programs, as users write them: those of PyTorch's tutorials and notes, and what people build from them.

A program is a function of ``T``, which is flambeau or torch, and of ``see``, which it shows its results to. What torch
showed is kept in ``test_programs.json``; numbers may differ by a thousandth, of an error the class and the first line
count::

    python -m tests.autograd.test_programs     # record anew, where torch is installed
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import flambeau

from . import programs_func, programs_function, programs_graph, programs_second_order
from .transcripts import first_words

Program = Callable[[Any, Any], None]
PROGRAMS: dict[str, Program] = {
    name: f
    for module in (programs_graph, programs_function, programs_func, programs_second_order)
    for name, f in vars(module).items()
    if getattr(f, "__module__", None) == module.__name__ and not name.startswith("_")
}
RECORD = Path(__file__).with_suffix(".json")
NUMBER = re.compile(r"-?(?:\d+\.?\d*(?:e[-+]?\d+)?|nan|inf)\b")


class See:
    """What a program shows, line by line."""

    def __init__(self, T: Any) -> None:
        self.T, self.lines = T, []

    def __call__(self, *values: Any) -> None:
        self.lines.append("; ".join(map(self.text, values)))

    def error(self, call: Callable[[], Any]) -> None:
        """Show the error that ``call`` ends in, or that there was none."""
        try:
            call()
        except Exception as e:
            self.lines.append(first_words(f"{type(e).__name__}: {e}"))
        else:
            self.lines.append("no error")

    def text(self, value: Any) -> str:
        if isinstance(value, self.T.Tensor):
            return self.text(value.detach().tolist()) + (" requires grad" if value.requires_grad else "")
        if isinstance(value, (list, tuple)):
            return "[" + ", ".join(map(self.text, value)) + "]"
        if isinstance(value, dict):
            return "{" + ", ".join(f"{k}: {self.text(v)}" for k, v in value.items()) + "}"
        if isinstance(value, float):
            return f"{value:.6g}"
        return value.name() if hasattr(value, "next_functions") else str(value)


def run(program: Program, T: Any) -> list[str]:
    see = See(T)
    state = T.get_rng_state()
    T.manual_seed(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program(T, see)
    finally:
        T.set_rng_state(state)
    return see.lines


def same(got: str, want: str) -> bool:
    """Equal but for a thousandth of a number, or of the largest one shown with it."""
    if got == want:
        return True
    if NUMBER.sub("#", got) != NUMBER.sub("#", want) or "Error:" in want:
        return False
    a, b = ([float(x) for x in NUMBER.findall(s)] for s in (got, want))
    scale = max([abs(x) for x in b if abs(x) < 1e300], default=1.0)
    return all([x == y or (x != x and y != y) or abs(x - y) <= 1e-3 * max(abs(y), 1e-3 * scale, 1e-5) for x, y in zip(a, b)])


def compare(got: list[str], want: list[str]) -> None:
    assert len(got) == len(want)
    for i, (a, b) in enumerate(zip(got, want)):
        assert same(a, b), f"line {i + 1}:\n  flambeau: {a}\n  PyTorch:  {b}"


@pytest.mark.parametrize("name", PROGRAMS)
def test_as_recorded(name):
    compare(run(PROGRAMS[name], flambeau), json.loads(RECORD.read_text())[name])


@pytest.mark.torch
@pytest.mark.parametrize("name", PROGRAMS)
def test_as_torch(name):
    torch = pytest.importorskip("torch")
    compare(run(PROGRAMS[name], flambeau), run(PROGRAMS[name], torch))


if __name__ == "__main__":
    import torch

    RECORD.write_text(json.dumps({name: run(program, torch) for name, program in PROGRAMS.items()}, indent=1) + "\n")
