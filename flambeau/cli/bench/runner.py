"""Runs one workload in a fresh process, and sums the rounds up."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from flambeau.cli import alias

__all__ = ["CHECKPOINTS", "SIDES", "TARGETS", "Runs", "comparison", "summary"]

SIDES = ("flambeau", "torch")

# The ratios to reach, flambeau's time over PyTorch's.
TARGETS = {
    "xor": 1.0,
    "pointwise_small": 1.0,
    "mlp": 0.5,
    "resnet20": 0.55,
    "gpt": 0.5,
    "lstm": 0.8,
    "pointwise_large": 0.5,
    "chain": 0.6,
    "per_sample": 1.0,
    "first_step": 0.3,
}

# The ratios to stay under, time of a step with checkpoints over that of the plain one. `flambeau bench checkpoint`.
CHECKPOINTS = {"checkpoint_sequential_8": 1.4, "checkpoint_every_layer": 1.4}

WORKLOADS = str(Path(__file__).with_name("workloads.py"))


class Runs:
    """How a process of either side is started."""

    def __init__(self, threads: int, torch_python: str) -> None:
        self.threads = threads
        self.python = {"flambeau": sys.executable, "torch": torch_python}

    def environment(self, side: str) -> dict[str, str]:
        paths = [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p and p != alias.shim]
        if side == "flambeau":  # its directory `torch` comes before an installed one
            paths.insert(0, alias.shim)
        threads = str(self.threads)
        return {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(paths),
            "OMP_NUM_THREADS": threads,
            "MKL_NUM_THREADS": threads,
            "OPENBLAS_NUM_THREADS": threads,
        }

    def torch_version(self) -> str | None:
        """The version of PyTorch that would be measured; None where there is none."""
        code = "import importlib.metadata as m; print(m.version('torch'))"
        done = subprocess.run(
            [self.python["torch"], "-c", code], capture_output=True, text=True, env=self.environment("torch")
        )
        return done.stdout.strip() or None

    def run(self, name: str, side: str) -> dict[str, Any]:
        """What the workload measured, and the seconds of the whole process; `error` if it failed."""
        command = [self.python[side], WORKLOADS, name, str(self.threads)]
        start = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, env=self.environment(side))
        wall = time.perf_counter() - start
        if done.returncode != 0:
            return {"error": done.stderr.strip() or f"exit status {done.returncode}"}
        result = json.loads(done.stdout.splitlines()[-1])
        result["process_seconds"] = wall
        result.setdefault("seconds", wall)
        return result


def summary(name: str, results: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """One row of the table: medians over the rounds; None for a side that was not measured or failed."""
    row: dict[str, Any] = {"workload": name, "target": TARGETS[name], "ratio": None}
    for side in SIDES:
        rounds = [r for r in results.get(side, []) if "error" not in r]
        row[side] = statistics.median(r["seconds"] for r in rounds) if rounds else None
        row[f"{side}_peak"] = statistics.median(r["peak"] for r in rounds) if rounds else None
        if rounds and "bytes_per_node" in rounds[0]:
            row[f"{side}_bytes_per_node"] = statistics.median(r["bytes_per_node"] for r in rounds)
    if row["flambeau"] is not None and row["torch"] is not None:
        row["ratio"] = row["flambeau"] / row["torch"]
    return row


def comparison(name: str, results: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The rows of a workload that compares each side with itself: the best times of all rounds, and the least memory."""
    rows = []
    for side in SIDES:
        rounds = [r for r in results.get(side, []) if "error" not in r]
        if rounds:
            row = {key: min(r[key] for r in rounds) for key in ("plain_seconds", "seconds", "plain_memory", "memory")}
            rows.append({
                "workload": name, "side": side, "target": CHECKPOINTS[name], **row,
                "ratio": row["seconds"] / row["plain_seconds"], "memory_ratio": row["memory"] / row["plain_memory"],
            })  # fmt: skip
    return rows
