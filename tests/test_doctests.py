"""The examples in docstrings, module by module."""

import ast
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


class Finder(doctest.DocTestFinder):
    """Finds also what calls itself torch's (``Size.__module__`` is "torch"): whatever the file defines."""

    def __init__(self, module):
        super().__init__()
        tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
        self.defined = {n.name for n in tree.body if isinstance(n, (ast.ClassDef, ast.FunctionDef))}

    def _from_module(self, module, object):
        if super()._from_module(module, object):
            return True
        elsewhere = str(getattr(object, "__module__", "")).startswith("flambeau.")
        return not elsewhere and getattr(object, "__name__", None) in self.defined


@pytest.mark.parametrize("name", list(modules()))
def test_examples(name):
    module = importlib.import_module(name)
    flambeau.manual_seed(0)
    names = {**vars(module), "torch": flambeau, "flambeau": flambeau}
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    for test in Finder(module).find(module, module.__name__, extraglobs=names):
        runner.run(test)
    failures, tried = runner.summarize()
    assert tried and not failures
