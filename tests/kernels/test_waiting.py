"""Threads without work sleep soon."""

import os
import subprocess
import sys

import pytest

NAMES = ("GOMP_SPINCOUNT", "OPENBLAS_THREAD_TIMEOUT", "OMP_WAIT_POLICY")


@pytest.mark.parametrize(
    "given, expected",
    [
        ({}, "1000 16"),
        ({"GOMP_SPINCOUNT": "7", "OPENBLAS_THREAD_TIMEOUT": "20"}, "7 20"),
        ({"OMP_WAIT_POLICY": "active"}, "None 16"),
    ],
)
def test_environment_is_set_before_numpy_is_loaded(given, expected):
    code = (
        "import sys, os\n"
        "def hook(event, args):\n"
        "    if event == 'import' and args[0] == 'numpy' and 'numpy' not in sys.modules:\n"
        "        print(os.environ.get('GOMP_SPINCOUNT'), os.environ.get('OPENBLAS_THREAD_TIMEOUT'))\n"
        "sys.addaudithook(hook)\n"
        "import flambeau\n"
    )
    env = {k: v for k, v in os.environ.items() if k not in NAMES} | given
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.stdout.splitlines()[:1] == [expected], done.stderr
