"""Which of the fast parts are in use, and why not.

`FLAMBEAU_DISABLE`, a list with commas, switches parts off: `onednn`, `jit` (generated kernels), `libmvec`
(vector maths in them), `libgomp` (threads in them). Without a part, the same results come from slower code.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

PARTS = ("onednn", "jit", "libmvec", "libgomp")


class Status(NamedTuple):
    """Whether a part is in use, and how, or why not and what to install."""

    in_use: bool
    detail: str


@cache
def disabled() -> frozenset[str]:
    """The parts that FLAMBEAU_DISABLE switches off."""
    names = frozenset(filter(None, os.environ.get("FLAMBEAU_DISABLE", "").replace(" ", "").split(",")))
    unknown = sorted(names - set(PARTS))
    if unknown:
        raise ValueError(f"FLAMBEAU_DISABLE knows {', '.join(PARTS)}; it does not know {', '.join(unknown)}")
    return names


@cache
def library(part: str) -> ctypes.CDLL | None:
    """The shared library of `libmvec` or `libgomp`, or None where it is missing or switched off."""
    if part in disabled():
        return None
    for name in _candidates(part):
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None


def _candidates(part: str) -> Iterator[str]:
    yield f"{part}.so.1"
    from ctypes.util import find_library  # runs programs to search, and imports for 7 ms what that takes

    if found := find_library(part[3:]):
        yield found


@cache
def jit_available() -> bool:
    """Whether kernels can be generated."""
    return status("jit").in_use


def status(part: str) -> Status:
    """What `flambeau info` says of one of `PARTS`."""
    if part in disabled():
        return Status(False, f"switched off by FLAMBEAU_DISABLE={os.environ['FLAMBEAU_DISABLE']}")
    if part == "jit":
        if importlib.util.find_spec("llvmlite") is None:
            return Status(False, "llvmlite is missing: pip install llvmlite")
        return Status(True, "kernels generated with llvmlite")
    if part == "onednn":
        return _onednn_status()
    if library(part) is None:
        package = {"libmvec": "glibc 2.22 or later", "libgomp": "GCC's libgomp (package libgomp1)"}[part]
        return Status(False, f"{part}.so.1 was not found; it comes with {package}")
    return Status(True, f"{part}.so.1")


def _onednn_status() -> Status:
    from flambeau.kernels.onednn import library as onednn

    if (lib := onednn.load()) is None:
        return Status(False, "libdnnl.so.3 was not found: pip install onednn-cpu-gomp")
    return Status(True, f"oneDNN {lib.version}, {lib.path}")


def report() -> dict[str, Status]:
    """The status of every part."""
    return {part: status(part) for part in PARTS}
