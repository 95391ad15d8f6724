import re

import numpy as np
import pytest

import flambeau


def accuracies(done):
    assert done.returncode == 0, done.stderr
    return re.findall(r"epoch +\d+.*%", done.stdout)


def test_demo_and_resume(command, tmp_path):
    whole = command("demo", "--epochs", "3", "--out", "whole")
    first = command("demo", "--epochs", "2", "--out", "parts")
    rest = command("demo", "--epochs", "3", "--out", "parts", "--resume")
    assert accuracies(whole) == accuracies(first) + accuracies(rest) and len(accuracies(whole)) == 3
    for name in ("digits.pt", "curves.svg", "graph.svg"):
        assert str(tmp_path / "whole" / name) in whole.stdout.replace("\n", "")
        assert (tmp_path / "whole" / name).stat().st_size > 500
    a, b = (flambeau.load(tmp_path / d / "digits.pt") for d in ("whole", "parts"))
    for name, value in a["model"].items():
        np.testing.assert_array_equal(value.numpy(), b["model"][name].numpy(), err_msg=name)
    assert a["history"] == b["history"]


@pytest.mark.slow
def test_demo_learns_to_read(command):
    done = command("demo")
    last = accuracies(done)[-1]
    assert float(re.search(r"([\d.]+)%", last).group(1)) >= 98, done.stdout


def test_nothing_to_resume(command):
    done = command("demo", "--resume")
    assert done.returncode == 2 and "nothing to resume" in done.stderr
