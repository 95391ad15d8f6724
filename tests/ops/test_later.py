"""Families of operators that are imported on first use."""

from __future__ import annotations

import inspect
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import flambeau as torch

ROOT = Path(__file__).parent.parent.parent


def fresh(code: str) -> str:
    """What a new interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_list_of_names_is_up_to_date():
    tool = ROOT / "tools" / "operator_names.py"
    done = subprocess.run([sys.executable, str(tool), "--check"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"run python tools/operator_names.py {done.stderr}"


@pytest.mark.parametrize(
    "expression, expected",
    [
        ("torch.sort.__module__", "flambeau.ops.sorting"),
        ("torch.Tensor.sort is torch.sort", "True"),
        ("torch.tensor([2, 1]).sort().values.tolist()", "[1, 2]"),
        ("hasattr(torch, 'sort'), hasattr(torch, 'no_such_name'), hasattr(torch.ones(1), 'no_such_name')", "(True, False, False)"),
        ("'sort' in dir(torch), 'sort' in dir(torch.Tensor), 'sort' in dir(torch.ones(1))", "(True, True, True)"),
        ("'sort' in torch.__all__, 'nn' in torch.__all__, '_ops' in torch.__all__", "(True, False, False)"),
        ("torch.nn.functional.softmax.__module__", "flambeau.ops.softmax"),
        ("hasattr(torch.linalg, 'svd'), hasattr(torch.special, 'log_softmax')", "(True, True)"),
        ("list(__import__('inspect').signature(torch.Tensor.sort).parameters)[0]", "input"),
    ],
)
def test_first_use(expression, expected):
    assert fresh(f"import flambeau as torch; print(({expression}))") == expected


def test_star_import():
    assert fresh("from flambeau import *; print(sort(tensor([2, 1])).values.tolist())") == "[1, 2]"


def test_a_class_of_the_users_finds_the_method():
    code = (
        "import flambeau as torch\n"
        "class Mine(torch.Tensor):\n"
        "    def sort(self, *args):\n"
        "        return super().sort(*args)\n"
        "print(Mine([2, 1]).sort().values.tolist())\n"
    )
    assert fresh(code) == "[1.0, 2.0]"


def test_nothing_is_left_after_the_first_use():
    assert torch.Tensor.sort is torch.Tensor.__dict__["sort"]
    assert inspect.isfunction(torch.Tensor.__dict__["sort"])
    assert torch.sort is vars(torch)["sort"]


def test_functions_can_be_pickled():
    assert pickle.loads(pickle.dumps(torch.argsort)) is torch.argsort
