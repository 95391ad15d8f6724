"""`flambeau run`, each time through a real process."""

import pytest


def output(done, code=0):
    assert (done.returncode, done.stderr) == (code, "")
    return done.stdout.splitlines()


def test_torch_is_flambeau_everywhere(command, script):
    script("import torch\nfrom torch import nn\nfrom torch.autograd import Function\n", "helper.py")
    script(
        """
import torch, flambeau, helper, sys
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset
import flambeau.utils.data
assert torch is flambeau and nn is flambeau.nn and F is flambeau.nn.functional
assert helper.Function is flambeau.autograd.Function and helper.torch is torch
assert DataLoader is flambeau.utils.data.DataLoader
assert sys.modules["torch.nn"] is sys.modules["flambeau.nn"] is torch.nn
assert torch.nn.__spec__.name == "flambeau.nn"
x = torch.ones(3, requires_grad=True)
(x * 2).sum().backward()
print(x.grad.tolist())
"""
    )
    assert output(command("run", "script.py")) == ["[2.0, 2.0, 2.0]"]


def test_the_old_module_functorch(command, script):
    script(
        """
from functorch import grad, vmap
import flambeau, torch
assert grad is torch.func.grad is flambeau.func.grad and vmap is torch.vmap
print(vmap(grad(torch.sin))(torch.zeros(2)).tolist())
"""
    )
    assert output(command("run", "script.py")) == ["[1.0, 1.0]"]


def test_an_installed_torch_is_not_imported(command, script, tmp_path):
    script("raise SystemExit('the real one was imported')", "site/torch/__init__.py")
    script("import torch, sys; print(torch.__name__)")
    assert output(command("run", "script.py", PYTHONPATH=str(tmp_path / "site"))) == ["flambeau"]


def test_processes_that_the_script_starts(command, script):
    script(
        """
import multiprocessing as mp, subprocess, sys
import torch

def work(queue):
    import torch.nn
    queue.put((torch.__name__, torch.nn.__name__, __name__))

if __name__ == "__main__":
    for method in mp.get_all_start_methods():
        context = mp.get_context(method)
        queue = context.Queue()
        process = context.Process(target=work, args=(queue,))
        process.start()
        print(method, *queue.get(timeout=60))
        process.join()
    code = "from torch import nn; import torch; print('child', torch.__name__, nn.__name__)"
    print(subprocess.run([sys.executable, "-c", code], cwd="/", capture_output=True, text=True).stdout, end="")
"""
    )
    lines = output(command("run", "script.py"))
    for line in lines[:-1]:
        method, *rest = line.split()
        assert rest == ["flambeau", "flambeau.nn", "__main__" if method == "fork" else "__mp_main__"]
    assert lines[-1] == "child flambeau flambeau.nn"


def test_main_is_the_scripts(command, script, tmp_path):
    script(
        """
import pickle, sys
class C: pass
print(sys.argv, sys.path[0], __file__, __name__)
print(type(pickle.loads(pickle.dumps(C()))) is C, sys.modules["__main__"].C is C)
if __name__ == "__main__": sys.exit(5)
""",
        "sub/script.py",
    )
    lines = output(command("run", "sub/script.py", "-m", "--x", "1"), code=5)
    directory = tmp_path / "sub"
    assert lines == [
        f"['sub/script.py', '-m', '--x', '1'] {directory} {directory / 'script.py'} __main__",
        "True True",
    ]


@pytest.mark.parametrize("statement, code", [("sys.exit()", 0), ("sys.exit(3)", 3), ("sys.exit('no')", 1)])
def test_exit_codes(command, script, statement, code):
    script(f"import sys; {statement}")
    assert command("run", "script.py").returncode == code


def test_modules(command, script, tmp_path):
    script("import sys, torch; print(__name__, sys.argv[1:], torch.__name__, __package__)", "package/__main__.py")
    script("", "package/__init__.py")
    script("from torch import nn; print(nn.__name__, __spec__.name)", "package/part.py")
    assert output(command("run", "-m", "package", "a")) == ["__main__ ['a'] flambeau package"]
    assert output(command("run", "-m", "package.part")) == ["flambeau.nn package.part"]
    assert output(command("run", "package")) == ["__main__ [] flambeau "]


def test_what_is_not_there(command, script, tmp_path):
    done = command("run", "nowhere.py")
    assert done.returncode == 2
    assert f"can't open file '{tmp_path / 'nowhere.py'}': [Errno 2] No such file or directory" in done.stderr
    done = command("run", "-m", "nowhere")
    assert done.returncode == 1 and "No module named nowhere" in done.stderr
    assert command("run").returncode == 2
    assert "usage: flambeau run SCRIPT" in command("run", "--help").stdout


def test_traceback_shows_the_users_lines(command, script):
    script(
        """
import torch
def train(x):
    return x @ torch.ones(4, 5)
train(torch.ones(2, 3))
"""
    )
    done = command("run", "script.py")
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert "mat1 and mat2 shapes cannot be multiplied" in done.stderr
    files = [line for line in lines if line.startswith("  File ")]
    assert len(files) == 2 and all("script.py" in line for line in files)
    full = command("run", "script.py", FLAMBEAU_TRACEBACK="full").stderr
    assert full.count("  File ") > 2


def test_traceback_of_a_syntax_error_and_a_cause(command, script):
    script("x = = 2\n")
    done = command("run", "script.py")
    assert done.returncode == 1 and done.stderr.startswith('  File "') and "SyntaxError" in done.stderr
    script("try:\n    1 / 0\nexcept Exception as e:\n    raise ValueError('b') from e\n")
    done = command("run", "script.py")
    assert "ZeroDivisionError" in done.stderr and "direct cause" in done.stderr and "flambeau" not in done.stderr


def test_traceback_of_a_thread(command, script):
    script("import torch, threading\nt = threading.Thread(target=lambda: torch.ones(2) + torch.ones(3))\nt.start()\n")
    done = command("run", "script.py")
    assert done.stderr.startswith("Exception in thread ") and "/flambeau/" not in done.stderr


def test_missing_names_fail_at_use(command, script):
    script(
        """
import torch
import torch.distributed as dist
import torch._dynamo
from torch.distributed.fsdp import FullyShardedDataParallel as FSDP
from torch.distributed import DistBackendError
from torch import distributed, compile

class Sharded(FSDP): pass
def annotated(x: FSDP | None, y: dist.ProcessGroup) -> torch.distributed.Work: pass

def attempt(f):
    try:
        print("fine:", f())
    except Exception as e:
        print(type(e).__name__ + ":", str(e).splitlines()[0])

attempt(lambda: FSDP(1))
attempt(lambda: Sharded(1))
attempt(lambda: dist.init_process_group("gloo"))
attempt(lambda: torch.compile(annotated))
attempt(lambda: FSDP.state_dict_type(1))
attempt(lambda: (isinstance(1, FSDP), isinstance(1, Sharded), issubclass(int, FSDP)))
attempt(lambda: (hasattr(torch, "compile"), hasattr(dist, "init_process_group")))
attempt(lambda: bool(dist.ReduceOp.SUM))
attempt(lambda: torch._dynamo.reset())
try:
    raise KeyError
except DistBackendError: pass
except KeyError: print("fine")
"""
    )
    missing = "is not in flambeau"
    lines = output(command("run", "script.py"))
    for line, name in zip(
        lines,
        [
            "torch.distributed.fsdp.FullyShardedDataParallel",
            "torch.distributed.fsdp.FullyShardedDataParallel",
            "torch.distributed.init_process_group",
            "torch.compile",
            "torch.distributed.fsdp.FullyShardedDataParallel.state_dict_type",
        ],
    ):
        assert line.startswith(f"NotImplementedError: {name} {missing}"), line
    assert lines[5] == "fine: (False, False, False)"
    assert lines[6] == "fine: (False, False)"
    assert lines[7].startswith(f"NotImplementedError: torch.distributed.ReduceOp.SUM {missing}")
    assert lines[8].startswith(f"NotImplementedError: torch._dynamo.reset {missing}")
    assert lines[9] == "fine"


@pytest.mark.parametrize(
    "statement, error",
    [
        ("import torch.nonsense", "ModuleNotFoundError: No module named 'torch.nonsense'"),
        ("from torch.nn import Liner", "ImportError: cannot import name 'Liner'"),
        ("import torch; torch.tenser", "AttributeError: module 'torch' has no attribute 'tenser'"),
        ("import torch.cli", "ModuleNotFoundError: No module named 'torch.cli'"),
        ("import torch.distributed as d; d.nonsense", "AttributeError: module 'torch.distributed' has no"),
    ],
)
def test_typos_fail_as_in_torch(command, script, statement, error):
    script(statement)
    done = command("run", "script.py")
    assert done.returncode == 1 and error in done.stderr
