import subprocess
import sys
from pathlib import Path

import pytest

from flambeau.cli import torch_names


def test_lookups():
    assert torch_names.has_module("torch.nn.functional") and not torch_names.has_module("torch.nn.functonal")
    assert torch_names.has_module("torch._dynamo.config.deeper") and not torch_names.has_module("torchx")
    assert torch_names.has_name("torch", "vmap") and not torch_names.has_name("torch", "vamp")
    assert torch_names.is_exception("torch.cuda", "OutOfMemoryError")
    assert not torch_names.is_exception("torch.nn", "Linear")
    assert "relu" in torch_names.names_of("torch.nn.functional")


@pytest.mark.torch
@pytest.mark.slow
def test_the_list_is_torchs():
    torch = pytest.importorskip("torch")
    if not torch.__version__.startswith("2.13.0"):
        pytest.skip("the list is that of torch 2.13.0")
    tool = Path(__file__).parents[2] / "tools" / "torch_names.py"
    listed = torch_names.table()
    code = f"import runpy; g = runpy.run_path({str(tool)!r}); [print(m) for m, v in g['modules']().items() if v]"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    found = set(done.stdout.split())
    assert len(found) > 500
    assert len(found - set(listed)) < 20  # what optional packages add
