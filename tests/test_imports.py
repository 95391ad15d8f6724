"""What `import flambeau` loads, and which parts of the package know each other."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def fresh(code: str) -> str:
    """What a new interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


HEAVY = "scipy llvmlite ml_dtypes numpy.random importlib.metadata subprocess tempfile safetensors rich".split()


def test_import_loads_nothing_heavy():
    loaded = fresh("import sys, numpy; before = set(sys.modules); import flambeau; print(*set(sys.modules) - before)").split()
    assert [name for name in HEAVY if name in loaded] == []
    assert [name for name in loaded if name.startswith(("flambeau.nn", "flambeau.optim", "flambeau.cli"))] == []


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc")
def test_import_loads_no_libraries():
    maps = fresh("import flambeau; print(open('/proc/self/maps').read())")
    assert "libdnnl" not in maps
    assert "llvmlite" not in maps


def test_import_starts_no_process():
    fresh(
        "import sys, numpy\n"
        "def hook(event, args):\n"
        "    assert event not in ('os.fork', 'os.posix_spawn', 'os.system', 'subprocess.Popen'), event\n"
        "sys.addaudithook(hook)\n"
        "import flambeau\n"
    )


def test_layers(monkeypatch):
    cli = pytest.importorskip("importlinter.cli", reason="needs import-linter")
    monkeypatch.chdir(ROOT)
    assert cli.lint_imports(no_cache=True) == 0
