import os
import subprocess
import sys

import numpy as np
import pytest

from flambeau.kernels import backend, jit

pytestmark = pytest.mark.skipif(not backend.jit_available(), reason="no llvmlite")

SCRIPT = """
import numpy as np
from flambeau.kernels import expr as E, lower_llvm
from flambeau.kernels.ufunc import kernel
made = []
text = lower_llvm.module
lower_llvm.module = lambda *a: made.append(a) or text(*a)
x = E.var("x")
assert kernel(E.tanh(x) * 3, ("x",), "t")(np.zeros(5, np.float32)).tolist() == [0] * 5
print(len(made))
"""


def run(cache, script=SCRIPT, **environment):
    env = os.environ | {"FLAMBEAU_CACHE": str(cache)} | environment
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_second_process_generates_nothing(tmp_path):
    assert run(tmp_path) == "1"
    assert run(tmp_path) == "0"


def test_damaged_file_is_ignored_and_written_again(tmp_path):
    run(tmp_path)
    for path in tmp_path.glob("*.o"):
        path.write_bytes(path.read_bytes()[:-7])
    assert run(tmp_path) == "1"
    assert run(tmp_path) == "0"


def test_directory_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    assert run(tmp_path / "file" / "below") == "1"


def test_switched_off(tmp_path):
    assert run(tmp_path, FLAMBEAU_DISABLE="jit") == "0"


def test_child_process_has_one_thread(tmp_path):
    script = """
import os, numpy as np
from flambeau.kernels import expr as E, threads
from flambeau.kernels.ufunc import kernel
from flambeau.kernels.reduce import reduce
k, a = kernel(E.var("x") + 1, ("x",), "k"), np.ones(1_000_000, np.float32)
k(a); reduce("sum", a)
pid = os.fork()
if pid == 0:
    os._exit(0 if threads.get_num_threads() == 1 and k(a)[7] == 2 and reduce("sum", a) == 1e6 else 1)
print(os.waitpid(pid, 0)[1])
"""
    assert run(tmp_path, script) == "0"


@pytest.mark.parametrize("off", ["libmvec", "libgomp", "libmvec,libgomp"])
def test_without_a_library(tmp_path, off):
    assert run(tmp_path, FLAMBEAU_DISABLE=off) == "1"


def test_cache_dir(monkeypatch, tmp_path):
    monkeypatch.setenv("FLAMBEAU_CACHE", str(tmp_path))
    assert jit.cache_dir() == tmp_path


def test_used_from_several_threads():
    from concurrent.futures import ThreadPoolExecutor

    from flambeau.kernels import expr as E
    from flambeau.kernels.ufunc import kernel

    x = E.var("x")
    kernels = [kernel(E.exp(x) + i, ("x",), f"k{i}") for i in range(8)]
    a = np.zeros(100, np.float32)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda k: k(a)[0], kernels * 2))
    assert results == [1 + i for i in range(8)] * 2


def test_the_same_expression_twice_is_one_function():
    from flambeau.kernels import expr as E
    from flambeau.kernels.ufunc import kernel

    first, second = (kernel(E.var("x") * 5.5, ("x",), name) for name in "ab")
    dtype = np.dtype(np.float32)
    assert first.address(dtype) == second.address(dtype)
    assert second(np.ones(2, dtype)).tolist() == [5.5, 5.5]
