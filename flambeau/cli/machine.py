"""What machine this is, for reports."""

from __future__ import annotations

import os
import platform
import re
from importlib import metadata
from pathlib import Path

__all__ = ["cpu_name", "describe", "instruction_sets", "usable_cpus", "versions"]

PACKAGES = ("numpy", "scipy", "llvmlite", "ml-dtypes", "onednn-cpu-gomp", "safetensors", "rich", "torch")
SETS = ("sse4_2", "avx", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx512_bf16",
        "avx512_fp16", "amx_tile", "amx_bf16", "neon", "asimd", "sve")  # fmt: skip


def describe() -> dict[str, object]:
    """The machine and the versions, as plain values."""
    return {
        "system": platform.platform(),
        "python": platform.python_version(),
        "cpu": cpu_name(),
        "cpus": usable_cpus(),
        "instruction_sets": instruction_sets(),
        "packages": versions(),
    }


def usable_cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_name() -> str:
    match = re.search(r"^model name\s*:\s*(.+)$", _cpuinfo(), re.MULTILINE)
    return match.group(1) if match else platform.processor() or platform.machine()


def instruction_sets() -> list[str]:
    """The vector instruction sets that matter here; empty where the system doesn't say."""
    match = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", _cpuinfo(), re.MULTILINE)
    flags = set(match.group(1).split()) if match else set()
    return [name for name in SETS if name in flags]


def versions() -> dict[str, str | None]:
    """Versions of the packages that count, None for what is not installed."""
    found: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return found


def _cpuinfo() -> str:
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""
