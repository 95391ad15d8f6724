"""What surrounds a function and must be the same when it runs again: random numbers, autocast, devices."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

from ...core.device import check_device, device
from ...ops.random import default_generator

ROOT = __name__.partition(".")[0]


class Surroundings:
    """Taken down when a checkpoint runs its function; ``with surroundings.again():`` restores them for the second run."""

    __slots__ = ("random", "autocast")

    def __init__(self, preserve_rng_state: bool) -> None:
        self.random = default_generator._mt.mark() if preserve_rng_state else None
        self.autocast = autocast_state()

    @contextlib.contextmanager
    def again(self) -> Iterator[None]:
        generator, now = default_generator._mt, None
        if self.random is not None:
            now = generator.mark()
            generator.return_to(self.random)
        try:
            with self.autocast():
                yield
        finally:
            if now is not None:
                generator.return_to(now)


def autocast_state() -> Callable[[], Any]:
    """Makes the autocast context of the present moment; as long as nobody has imported ``amp`` there is none."""
    amp = sys.modules.get(f"{ROOT}.amp")
    if amp is None:
        return contextlib.nullcontext
    root = sys.modules[ROOT]
    arguments = {
        "enabled": root.is_autocast_enabled("cpu"),
        "dtype": root.get_autocast_dtype("cpu"),
        "cache_enabled": root.is_autocast_cache_enabled(),
    }
    return lambda: amp.autocast("cpu", **arguments)


class DefaultDeviceType:
    """The kind of device, beside the CPU, whose random numbers a checkpoint keeps where no argument tells.

    >>> from flambeau.utils.checkpoint import DefaultDeviceType
    >>> DefaultDeviceType.get_device_type()
    'cpu'
    """

    _type: str | None = None

    @staticmethod
    def set_device_type(device: str = "cuda") -> None:
        """Set it."""
        DefaultDeviceType._type = device

    @staticmethod
    def get_device_type() -> str:
        """What was set; else the machine's accelerator, and flambeau knows of none: "cpu"."""
        return DefaultDeviceType._type or "cpu"


def get_device_states(*args: Any) -> tuple[list[int], list[Any]]:
    """Numbers and generator states of the devices, other than the CPU, that tensors among the arguments are on: none.

    >>> import flambeau as torch
    >>> from flambeau.utils.checkpoint import get_device_states
    >>> get_device_states(torch.ones(1))
    ([], [])
    """
    return [], []


def set_device_states(devices: Any, states: Any, *, device_type: str | None = None) -> None:
    """Set the generators of devices other than the CPU; an error if one is named, since there are none."""
    for number, _ in zip(devices, states):
        check_device(device(device_type or DefaultDeviceType.get_device_type(), number))
