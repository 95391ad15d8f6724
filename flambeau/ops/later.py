"""Families of operators that are imported when one of their names is first used: `import flambeau` stays quick.

``names.py`` says which names they publish. Until then something stands in a name's place that imports the family;
afterwards nothing is left of it, and a call costs what it costs elsewhere.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from ..core.tensor import Tensor
from .names import METHODS, PUBLISHED


class Method:
    """Stands for a method of Tensor until its family is imported, which puts the method itself there."""

    __slots__ = ("name", "family")

    def __init__(self, name: str, family: str) -> None:
        self.name, self.family = name, family

    def __get__(self, t: Tensor | None, cls: type | None = None) -> Any:
        import_module(f"{__package__}.{self.family}")
        found = Tensor.__dict__[self.name]
        if found is self:
            raise AttributeError(f"{self.family} does not define Tensor.{self.name}: run tools/operator_names.py")
        return found.__get__(t, cls)


class Functions(dict[str, Any]):
    """What a module publishes, by name. A name whose family isn't imported yet is found when it is asked for."""

    def __init__(self, module: str) -> None:
        self.later = {name: family for family, names in PUBLISHED.get(module, {}).items() for name in names.split()}

    def __missing__(self, name: str) -> Any:
        import_module(f"{__package__}.{self.later[name]}")
        return dict.__getitem__(self, name)

    def get(self, name: str, default: Any = None) -> Any:
        try:
            return self[name]
        except KeyError:
            return default

    def names(self) -> set[str]:
        """Every name, imported or not."""
        return {*self, *self.later}

    def complete(self) -> dict[str, Any]:
        """Every function: imports what isn't yet."""
        return {name: self[name] for name in sorted(self.names())}


for _family, _names in METHODS.items():
    for _name in _names.split():
        setattr(Tensor, _name, Method(_name, _family))
