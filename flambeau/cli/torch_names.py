"""What PyTorch's public modules hold: read from torch_names.txt, which tools/torch_names.py writes."""

from __future__ import annotations

from functools import cache
from pathlib import Path

__all__ = ["has_module", "has_name", "is_exception", "names_of"]


@cache
def table() -> dict[str, frozenset[str]]:
    text = Path(__file__).with_name("torch_names.txt").read_text(encoding="ascii")
    rows = (line.partition(":") for line in text.splitlines())
    return {module: frozenset(names.split()) for module, _, names in rows}


def has_module(module: str) -> bool:
    """Whether PyTorch has this module. Of private ones only the first levels are listed; deeper ones count as there.

    >>> has_module("torch.nn.utils.rnn"), has_module("torch.nm")
    (True, False)
    """
    if module in table():
        return True
    parent = module.rpartition(".")[0]
    return "._" in parent and has_module(parent)


def has_name(module: str, name: str) -> bool:
    """Whether PyTorch's module holds this name. Where the list says nothing of a module's names, every name counts.

    >>> has_name("torch.nn", "Linear"), has_name("torch.nn", "Liner")
    (True, False)
    """
    names = table().get(module)
    if not names:
        return has_module(module) and not (name.startswith("__") and name.endswith("__"))
    return name in names or name + "!" in names


def is_exception(module: str, name: str) -> bool:
    return name + "!" in table().get(module, ())


def names_of(module: str) -> list[str]:
    return sorted(name.rstrip("!") for name in table().get(module, ()))
