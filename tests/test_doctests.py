"""The examples in docstrings, module by module."""

import doctest
import importlib
from pathlib import Path

import pytest

import flambeau

ROOT = Path(flambeau.__file__).parent
# Programs, and the stand-in for torch: importing them does something.
PROGRAMS = ("flambeau.__main__", "flambeau.cli.bench.workloads", "flambeau.cli.shim.torch")


def modules():
    for path in sorted(ROOT.rglob("*.py")):
        name = ".".join(["flambeau", *path.relative_to(ROOT).with_suffix("").parts]).removesuffix(".__init__")
        if name not in PROGRAMS and ">>> " in path.read_text(encoding="utf-8"):
            yield name


@pytest.mark.parametrize("name", modules())
def test_examples(name):
    module = importlib.import_module(name)
    flambeau.manual_seed(0)
    names = {**vars(module), "torch": flambeau, "flambeau": flambeau}
    failures, tried = doctest.testmod(module, extraglobs=names, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert tried and not failures
