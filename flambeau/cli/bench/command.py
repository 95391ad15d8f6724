"""`flambeau bench`: its options, the turns, the table."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from flambeau.cli.machine import describe

from .runner import CHECKPOINTS, SIDES, TARGETS, Runs, comparison, summary

__all__ = ["main"]


def main(args: list[str]) -> int:
    options = parse(args)
    console = Console(stderr=True)
    runs = Runs(options.threads, options.python)
    sides = ["flambeau"]
    version = None if options.no_torch else runs.torch_version()
    if version is not None:
        sides.append("torch")
    elif not options.no_torch:
        console.print("PyTorch is not installed here: only flambeau's side is measured (pip install torch).")

    results = {name: alternate(runs, name, sides, options.rounds, console) for name in options.names}
    rows = [summary(name, results[name]) for name in options.names if name in TARGETS]
    compared = [row for name in options.names if name in CHECKPOINTS for row in comparison(name, results[name])]
    if rows:
        Console().print(table(rows))
    if compared:
        Console().print(table_of_comparisons(compared))
    if options.json:
        report = {
            "machine": describe(), "threads": options.threads, "rounds": options.rounds, "torch": version,
            "summary": rows, "comparisons": compared, "runs": results,
        }  # fmt: skip
        Path(options.json).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        console.print(f"All of it: {options.json}")
    failed = {name for name in options.names if "error" in results[name]["flambeau"][-1]}
    return int(bool(failed))


def alternate(
    runs: Runs, name: str, sides: list[str], rounds: int, console: Console
) -> dict[str, list[dict[str, Any]]]:
    """The results of a workload's rounds, of each side; a side that fails has its error as its last one."""
    results: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
    failed = set()
    for turn in range(rounds + 1):  # turn 0 fills the caches, and does not count
        for side in sides:
            if side in failed or (turn == 0 and side == "torch" and name != "first_step"):
                continue
            with console.status(f"{name}, {side}, round {max(turn, 1)} of {rounds}"):
                result = runs.run(name, side)
            if "error" in result:
                failed.add(side)
                console.print(f"{name} on {side} failed:\n{result['error']}", markup=False, highlight=False)
            if turn > 0 or side in failed:
                results[side].append(result)
    return results


def parse(args: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="flambeau bench",
        description="Times whole training steps in fresh processes, flambeau and PyTorch in turn. A ratio under 1 "
        "means that flambeau is faster.",
        epilog="Workloads: " + ", ".join(TARGETS) + "; `checkpoint` compares a deep network's memory and time with and without "
        "checkpoints (" + ", ".join(CHECKPOINTS) + ").",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="workloads (default: all but checkpoint)")
    parser.add_argument("--rounds", type=int, default=5, help="how often each side runs (default: 5)")
    parser.add_argument("--threads", type=int, default=2, help="threads of each side (default: 2)")
    parser.add_argument("--json", metavar="FILE", help="write every figure, and what machine it is, to FILE")
    parser.add_argument("--no-torch", action="store_true", help="measure flambeau only")
    parser.add_argument(
        "--python",
        default=sys.executable,
        metavar="EXE",
        help="the Python that has PyTorch (default: this one)",
    )
    options = parser.parse_args(args)
    options.names = [n for name in options.names for n in (CHECKPOINTS if name == "checkpoint" else (name,))]
    unknown = [name for name in options.names if name not in TARGETS and name not in CHECKPOINTS]
    if unknown:
        parser.error(f"no workload {', '.join(unknown)}; there are {', '.join(TARGETS)}, checkpoint")
    if options.rounds < 1 or options.threads < 1:
        parser.error("--rounds and --threads are at least 1")
    options.names = options.names or list(TARGETS)
    return options


def table(rows: list[dict[str, Any]]) -> Table:
    out = Table(title="one step: median over rounds, and peak memory", title_justify="left")
    out.add_column("workload")
    for side in SIDES:
        out.add_column(side, justify="right")
    for heading in ("ratio", "target", "peak, flambeau", "peak, torch", ""):
        out.add_column(heading, justify="right")
    for row in rows:
        ratio, target = row["ratio"], row["target"]
        met = "" if ratio is None else "[green]" if ratio <= target else "[red]"
        out.add_row(
            row["workload"],
            *(duration(row[side]) for side in SIDES),
            "" if ratio is None else f"{met}{ratio:.2f}",
            f"{target:g}",
            *(memory(row[f"{side}_peak"]) for side in SIDES),
            " / ".join(f"{row[f'{side}_bytes_per_node']:.0f}" for side in SIDES if row.get(f"{side}_bytes_per_node"))
            + (" B a node" if row.get("flambeau_bytes_per_node") else ""),
        )
    return out


def table_of_comparisons(rows: list[dict[str, Any]]) -> Table:
    out = Table(
        title="64 layers with checkpoints and without: best step of all rounds, and MiB beyond the parameters",
        title_justify="left",
    )
    for heading in ("checkpoints", "side"):
        out.add_column(heading)
    for heading in ("plain", "with", "ratio", "MiB plain", "with", "ratio"):
        out.add_column(heading, justify="right")
    for row in rows:
        met = "[green]" if row["ratio"] <= row["target"] else "[red]"
        out.add_row(
            row["workload"].removeprefix("checkpoint_"), row["side"], duration(row["plain_seconds"]), duration(row["seconds"]),
            f"{met}{row['ratio']:.2f}", *(f"{row[key] / 2**20:.0f}" for key in ("plain_memory", "memory")),
            f"{row['memory_ratio']:.2f}",
        )  # fmt: skip
    return out


def duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / 1e-6:.2g} µs"


def memory(size: float | None) -> str:
    return "" if size is None else f"{size / 2**20:.0f} MiB"
