"""``torch.cuda``: says that there is no GPU here, in the ways that programs ask."""

from __future__ import annotations

from typing import Any

from .core.errors import error


class OutOfMemoryError(RuntimeError):
    """Never raised here; programs name it in ``except`` clauses."""


def is_available() -> bool:
    """False: flambeau runs on the CPU so far."""
    return False


def is_initialized() -> bool:
    return False


def is_bf16_supported(including_emulation: bool = True) -> bool:
    return False


def device_count() -> int:
    return 0


def manual_seed(seed: int) -> None:
    """Nothing to seed; accepted, as in PyTorch without a GPU."""


manual_seed_all = manual_seed


def empty_cache() -> None:
    """Nothing to free; accepted, as in PyTorch without a GPU."""


def __getattr__(name: str) -> Any:
    if name.startswith("_") or name[:1].isupper():
        raise AttributeError(name)

    def missing(*args: Any, **kwargs: Any) -> Any:
        raise error(AssertionError, "Torch not compiled with CUDA enabled", hint=f"torch.cuda.{name} needs a GPU; ask torch.cuda.is_available() first.")

    missing.__name__ = name
    return missing
