"""The inputs that every Case is also tried with: each dtype, empty, zero-dimensional, expanded.

A variant is a name and arrays. What comes of it is asked of torch: the same values, shapes and dtypes where torch gives
an answer, an exception of the same class where it refuses. Without torch the classes, shapes and dtypes that torch
gave are read from ``recorded.json``, which `python -m tests.ops.variants` writes anew where torch is installed.
"""

from __future__ import annotations

import builtins
import fnmatch
import json
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from .apart import APART

RECORDED = Path(__file__).with_name("recorded.json")

DTYPES = (
    "bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64", "complex64", "complex128",
)  # fmt: skip
#: relative and absolute difference allowed, by dtype of the result
PRECISION = {"float16": 4e-3, "bfloat16": 3e-2, "float32": 3e-5, "complex64": 3e-5, "float64": 1e-9, "complex128": 1e-9}

#: what torch says of a dimension that isn't there: any refusal will do
NO_DIMENSION = ("Dimension specified as", "Dimension out of range")
#: what torch says of its own insides, in the place of the caller's mistake: it didn't mean to refuse
ACCIDENTS = (
    "select(): index 0 out of range", "setStorage: sizes", "Could this error message be improved", "INTERNAL ASSERT",
    "cannot reshape tensor of 0 elements", "view size is not compatible",
)  # fmt: skip


def dtypes(case: Any) -> Iterator[tuple[str, list[np.ndarray]]]:
    """The inputs in every dtype."""
    for dtype in DTYPES:
        yield dtype, case.arrays(dtype)


def first_dtype(case: Any) -> str:
    return "float64" if "float64" in case.dtypes else case.dtypes[0]


def empties(case: Any) -> Iterator[tuple[str, list[np.ndarray]]]:
    """For each size that occurs in the shapes: 0 in its place, everywhere, so that shapes that fitted fit still."""
    arrays = case.arrays(first_dtype(case))
    for size in sorted({n for a in arrays for n in a.shape if n}):
        yield f"empty {size}", [a[tuple([slice(0 if n == size else None) for n in a.shape])] for a in arrays]


def numbers(case: Any) -> Iterator[tuple[str, list[np.ndarray]]]:
    """Every input without dimensions, and each one alone."""
    arrays = case.arrays(first_dtype(case))
    small = [a.reshape(-1)[:1].reshape(()) if a.size else a for a in arrays]
    if any(a.ndim for a in arrays):
        yield "0-d", small
        if len(arrays) > 1:
            for i, a in enumerate(arrays):
                if a.ndim:
                    yield f"0-d {i}", [*arrays[:i], small[i], *arrays[i + 1 :]]


def expanded(case: Any) -> Iterator[tuple[str, list[np.ndarray]]]:
    """The first row, or column, of every input in place of all: stride 0 along that axis."""
    arrays = case.arrays(first_dtype(case))
    for name, axis in (("expanded rows", 0), ("expanded columns", -1)):
        if not any(a.ndim and a.shape[axis] > 1 for a in arrays):
            continue
        made = []
        for a in arrays:
            if a.ndim and a.size:
                row = a[:1] if axis == 0 else a[..., :1]
                a = np.broadcast_to(row, a.shape)
            made.append(a)
        yield name, made


FAMILIES: dict[str, Callable[[Any], Iterator[tuple[str, list[np.ndarray]]]]] = {
    "dtypes": dtypes, "empty": empties, "0-d": numbers, "expanded": expanded,
}  # fmt: skip


def gradients(case: Any) -> Iterator[tuple[str, list[np.ndarray]]]:
    """Inputs in the dtypes whose derivatives central differences don't check."""
    for dtype in ("complex128", "float16", "bfloat16"):
        yield f"gradient {dtype}", case.arrays(dtype)


def variants(case: Any, family: str, file: str) -> Iterator[tuple[str, list[np.ndarray]]]:
    """Those of a family that the case, of a test file, doesn't opt out of, by ``skip`` or in apart.py."""
    out = [*case.skip, *(v for f, c, v, _ in APART if f == file and fnmatch.fnmatchcase(case.name, c))]
    for name, arrays in (gradients if family == "gradients" else FAMILIES[family])(case):
        if not any(fnmatch.fnmatchcase(name, pattern) for pattern in out):
            yield name, arrays


def outcome(call: Callable[[], Any]) -> Any:
    """What a call gives: its result, or the exception."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            return call()
        except Exception as e:
            return e


def described(r: Any) -> str:
    """A result in a few words: dtypes and shapes, or the class of the exception."""
    from .harness import flat

    if isinstance(r, Exception):
        return type(r).__name__
    return " ".join(
        f"{str(t.dtype).removeprefix('torch.').removeprefix('flambeau.')}{list(t.shape)}".replace(" ", "") if hasattr(t, "dtype") else type(t).__name__
        for t in flat(r)
    )


def difference(got: Any, want: Any, tol: float) -> str:
    """How flambeau's outcome is not torch's; '' if it is."""
    from .harness import flat, numpy

    g, w = described(got), described(want)
    if isinstance(want, Exception):
        if any(phrase in str(want) for phrase in ACCIDENTS):
            return ""
        if isinstance(got, type(want)) or isinstance(got, Exception) and any(p in str(want) for p in NO_DIMENSION):
            return ""
    if g != w:
        more = "".join(f" ({str(r).splitlines()[0][:150] if str(r) else ''})" for r in (got, want) if isinstance(r, Exception))
        return f"{g}, torch gives {w}{more}"
    if isinstance(got, Exception):
        return ""
    for x, y in zip(flat(numpy(got)), flat(numpy(want))):
        x, y = np.asarray(x), np.asarray(y)
        if not x.size:
            continue
        allowed = PRECISION.get(str(x.dtype), 0) * tol
        wide = np.complex128 if x.dtype.kind == "c" else np.float64 if x.dtype.kind in "fV" else x.dtype
        if not np.allclose(x.astype(wide), y.astype(wide), rtol=allowed, atol=allowed, equal_nan=True):
            return f"{x.reshape(-1)[:6].tolist()}, torch gives {y.reshape(-1)[:6].tolist()}"
    return ""


# ---- what torch gave once ---------------------------------------------------------------------------------------------
@cache
def _recorded() -> dict[str, dict[str, dict[str, str]]]:
    """file -> case -> variant -> what torch gave; in the file variants with one outcome stand together."""
    grouped = json.loads(RECORDED.read_text("utf-8"))
    return {
        f: {c: {v: what for what, vs in outcomes.items() for v in vs.split(", ")} for c, outcomes in cases.items()}
        for f, cases in grouped.items()
    }


def key(case: Any) -> str:
    """A case's name, which several may have, and its shapes."""
    return f"{case.name} {[list(a.shape) for a in case.arrays(first_dtype(case))]}".replace(", ", ",")


def recorded(file: str, case: Any, variant: str) -> str | None:
    return _recorded().get(file, {}).get(key(case), {}).get(variant)


def short(what: str, variant: str) -> str:
    """The variant's own dtype as ``*``, so that dtypes that give the same stand together."""
    return " ".join("*" + part[len(variant) :] if part.startswith(variant + "[") else part for part in what.split(" "))


def agrees(got: Any, want: str, variant: str) -> bool:
    """Whether an outcome is the one described; a subclass of the exception will do."""
    if not isinstance(got, Exception):
        return short(described(got), variant) == want
    return want in [c.__name__ for c in type(got).__mro__] and want not in ("Exception", "object") or want == "any refusal"


def record() -> None:
    """Write recorded.json anew, from the installed torch."""
    import importlib

    import torch

    from .harness import OperatorTests, torch_tensor

    found: dict[str, dict[str, dict[str, str]]] = {}
    for path in sorted(RECORDED.parent.glob("test_*.py")):
        module = importlib.import_module(f"{__package__}.{path.stem}")
        for tests in list(vars(module).values()):
            if not (isinstance(tests, type) and issubclass(tests, OperatorTests)):
                continue
            for case in tests.cases:
                groups: dict[str, list[str]] = {}
                for family in FAMILIES:
                    for name, arrays in variants(case, family, path.stem[5:]):
                        stretched = family == "expanded"
                        r = outcome(lambda: case.fn(torch, *[torch_tensor(torch, a, stretched) for a in arrays]))
                        if isinstance(r, Exception) and any(phrase in str(r) for phrase in ACCIDENTS):
                            continue
                        loose = isinstance(r, Exception) and any(phrase in str(r) for phrase in NO_DIMENSION)
                        what = "any refusal" if loose else described(r)
                        if what not in ("", "any refusal") and isinstance(r, Exception) and not hasattr(builtins, what):
                            what = next(c.__name__ for c in type(r).__mro__ if hasattr(builtins, c.__name__))
                        groups.setdefault(short(what, name), []).append(name)
                found.setdefault(path.stem[5:], {})[key(case)] = {what: ", ".join(names) for what, names in groups.items()}
    RECORDED.write_text(json.dumps(found, indent=0, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    from tests.ops.variants import record as write

    write()
