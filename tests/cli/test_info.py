import json

import pytest


def test_info(command):
    done = command("info")
    assert done.returncode == 0
    for word in (
        "Python",
        "CPU",
        "instruction sets",
        "threads",
        "kernel cache",
        "oneDNN",
        "libgomp",
        "numpy",
    ):
        assert word in done.stdout


@pytest.mark.parametrize("part", ["onednn", "jit"])
def test_info_says_why_not(command, part):
    facts = json.loads(command("info", "--json", FLAMBEAU_DISABLE=part).stdout)
    assert facts["kernels"][part] == {"in_use": False, "detail": f"switched off by FLAMBEAU_DISABLE={part}"}
