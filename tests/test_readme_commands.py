"""The README's two commands, each in an empty clone, with a virtual environment of its own."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.slow


@pytest.fixture
def clone(tmp_path):
    if not (ROOT / ".git").exists() or shutil.which("git") is None or shutil.which("make") is None:
        pytest.skip("needs git, make, and the repository")
    subprocess.run(["git", "clone", "-q", str(ROOT), str(tmp_path / "clone")], check=True)
    return tmp_path / "clone"


def make(clone, target, *options):
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return subprocess.run(
        ["make", target, f"PYTHON={getattr(sys, '_base_executable', sys.executable)}", *options],
        cwd=clone, env=environment, capture_output=True, text=True, timeout=900,
    )  # fmt: skip


def test_make_demo(clone):
    done = make(clone, "demo")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "of the held-out digits are read correctly" in done.stdout
    assert (clone / "demo-output" / "digits.pt").is_file()


def test_make_test(clone):
    # One directory is enough: the clone's set-up is what is under test, and this very test is in the suite.
    done = make(clone, "test", "TESTS=tests/data")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed" in done.stdout
