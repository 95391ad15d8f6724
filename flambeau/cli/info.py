"""`flambeau info`: versions, hardware, threads, and which kernels are in use or why not."""

from __future__ import annotations

import argparse
import json
import os
import platform

from rich.console import Console
from rich.table import Table

from flambeau.version import __version__, torch_version

from . import machine

__all__ = ["main"]

PARTS = {
    "onednn": "oneDNN: matrix products, convolution, pooling, normalisation, recurrent layers",
    "jit": "llvmlite: pointwise operators and reductions, compiled",
    "libmvec": "libmvec: vector exp, log, sin, ... in compiled kernels",
    "libgomp": "libgomp: threads in compiled kernels",
}


def main(args: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="flambeau info",
        description="Shows versions, hardware, and which kernels are in use, or why not.",
    )
    parser.add_argument("--json", action="store_true", help="the same as JSON")
    if parser.parse_args(args).json:
        print(json.dumps(collect(), indent=1))
    else:
        show(collect(), Console())
    return 0


def collect() -> dict:
    """Everything that is shown, as plain values."""
    from flambeau.kernels import backend, jit, threads

    return {
        "flambeau": __version__,
        "pytorch_api": torch_version,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": platform.platform(),
        "cpu": machine.cpu_name(),
        "cpus": machine.usable_cpus(),
        "threads": threads.get_num_threads(),
        "instruction_sets": machine.instruction_sets(),
        "kernels": {part: {"in_use": s.in_use, "detail": s.detail} for part, s in backend.report().items()},
        "cache": str(jit.cache_dir()),
        "packages": machine.versions(),
        "environment": {name: value for name, value in os.environ.items() if name.startswith("FLAMBEAU_")},
    }


def show(facts: dict, console: Console) -> None:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold")
    grid.add_column(overflow="fold")
    grid.add_row("flambeau", f"{facts['flambeau']} (the API of PyTorch {facts['pytorch_api']})")
    grid.add_row("Python", facts["python"])
    grid.add_row("system", facts["system"])
    grid.add_row("CPU", f"{facts['cpu']}, {facts['cpus']} usable")
    grid.add_row("instruction sets", " ".join(facts["instruction_sets"]) or "the system does not say")
    grid.add_row("threads", f"{facts['threads']} (set_num_threads, OMP_NUM_THREADS)")
    grid.add_row("kernel cache", f"{facts['cache']} (FLAMBEAU_CACHE)")
    grid.add_row("packages", ", ".join(f"{n} {v}" for n, v in facts["packages"].items() if v is not None))
    missing = ", ".join(n for n, v in facts["packages"].items() if v is None)
    if missing:
        grid.add_row("not installed", missing)
    if facts["environment"]:
        grid.add_row("environment", " ".join(f"{n}={v}" for n, v in facts["environment"].items()))
    console.print(grid, highlight=False)
    console.print()
    table = Table("kernels", "in use", "how, or why not", title_justify="left")
    for part, text in PARTS.items():
        status = facts["kernels"][part]
        mark = "[green]yes[/]" if status["in_use"] else "[yellow]no[/]"
        table.add_row(text, mark, status["detail"])
    console.print(table, highlight=False)
    if not all(s["in_use"] for s in facts["kernels"].values()):
        console.print("Where a part is missing, NumPy does its work: the same results, slower.")
