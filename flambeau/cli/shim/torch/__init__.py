"""Stands in for PyTorch in the processes that a program under `flambeau run` starts: `import torch` is flambeau."""

import sys
from pathlib import Path

try:
    from flambeau.cli import alias
except ModuleNotFoundError as why:
    if why.name != "flambeau":
        raise
    sys.path.append(str(Path(__file__).parents[4]))  # flambeau was run from its source, not installed
    from flambeau.cli import alias

alias.activate()
sys.modules["torch"] = alias.resolve("torch")
