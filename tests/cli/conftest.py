import os
import subprocess
import sys
from pathlib import Path

import pytest

import flambeau


@pytest.fixture
def command(tmp_path):
    """Runs `flambeau ...` in a real process, in an empty directory."""
    root = str(Path(flambeau.__file__).parents[1])

    def run(*args, timeout=120, **environment):
        inherited = environment.pop("PYTHONPATH", os.environ.get("PYTHONPATH"))
        path = os.pathsep.join(filter(None, [root, inherited]))
        return subprocess.run(
            [sys.executable, "-m", "flambeau", *args], cwd=tmp_path, capture_output=True, text=True, timeout=timeout,
            env={**os.environ, "PYTHONPATH": path, "COLUMNS": "120", **environment},
        )  # fmt: skip

    return run


@pytest.fixture
def script(tmp_path):
    """Writes a file of the program under test."""

    def write(text, name="script.py"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return name

    return write
