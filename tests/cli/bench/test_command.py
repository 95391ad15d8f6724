import json

import pytest

from flambeau.cli.bench import command
from flambeau.cli.bench.runner import CHECKPOINTS, TARGETS, comparison, summary


def test_summary():
    side = [{"seconds": s, "peak": 2**20, "steps": 3} for s in (3.0, 1.0, 2.0)]
    row = summary("mlp", {"flambeau": side, "torch": [{"seconds": 4.0, "peak": 2**21, "steps": 3}]})
    assert (row["flambeau"], row["torch"], row["ratio"], row["flambeau_peak"]) == (2.0, 4.0, 0.5, 2**20)
    row = summary("mlp", {"flambeau": side})
    assert row["torch"] is None and row["ratio"] is None
    assert command.table([row]).row_count == 1


def test_comparison():
    name = "checkpoint_every_layer"
    rounds = [
        {"seconds": 3.0, "plain_seconds": 2.5, "memory": 10, "plain_memory": 40, "steps": 3},
        {"seconds": 4.0, "plain_seconds": 2.0, "memory": 20, "plain_memory": 40, "steps": 3},
        {"error": "killed"},
    ]
    (row,) = comparison(name, {"flambeau": rounds, "torch": []})
    assert (row["side"], row["seconds"], row["plain_seconds"], row["ratio"]) == ("flambeau", 3.0, 2.0, 1.5)
    assert (row["memory"], row["memory_ratio"], row["target"]) == (10, 0.25, 1.4)
    assert command.table_of_comparisons([row, row]).row_count == 2


def test_checkpoint_stands_for_its_workloads(capsys):
    assert command.parse(["xor", "checkpoint"]).names == ["xor", *CHECKPOINTS]
    assert command.parse([]).names == list(TARGETS)


@pytest.mark.parametrize("seconds, text", [(None, ""), (2.5, "2.5 s"), (0.0123, "12.3 ms"), (1.5e-5, "15 µs")])
def test_duration(seconds, text):
    assert command.duration(seconds) == text


def test_every_target_has_a_workload():
    import ast
    from pathlib import Path

    tree = ast.parse(Path(command.__file__).with_name("workloads.py").read_text())
    assert {*TARGETS, *CHECKPOINTS} <= {f.name for f in tree.body if isinstance(f, ast.FunctionDef)}


def test_unknown_workload(capsys):
    with pytest.raises(SystemExit) as caught:
        command.main(["mpl"])
    assert caught.value.code == 2 and "no workload mpl" in capsys.readouterr().err


def test_bench_without_torch(tmp_path, monkeypatch, capsys):
    file = tmp_path / "out.json"
    assert command.main(["xor", "--rounds", "1", "--no-torch", "--json", str(file)]) == 0
    report = json.loads(file.read_text())
    assert report["summary"][0]["flambeau"] > 0 and report["summary"][0]["torch"] is None
    assert report["machine"]["cpus"] >= 1 and report["runs"]["xor"]["flambeau"][0]["steps"] >= 3
    assert "xor" in capsys.readouterr().out
