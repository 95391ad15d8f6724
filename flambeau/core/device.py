"""``torch.device``: where a tensor lives. The CPU is the one device so far."""

from __future__ import annotations

from typing import Any

from .errors import error

_TYPES = ("cpu", "cuda", "meta", "mps", "xpu", "mkldnn", "hip", "ipu", "vulkan", "xla", "hpu", "mtia", "privateuseone")


class device:
    """A device by type and index.

    >>> device("cpu")
    device(type='cpu')
    >>> device("cuda", 1).index
    1
    """

    __slots__ = ("type", "index")
    type: str
    index: int | None

    def __new__(cls, type: Any = None, index: int | None = None) -> device:
        if isinstance(type, device):
            return type
        self = object.__new__(cls)
        if isinstance(type, int):
            type, index = "cuda", type
        if not isinstance(type, str):
            raise error(TypeError, f"Device(): argument 'type' must be str, not {type.__class__.__name__}")
        name, colon, number = type.partition(":")
        if colon:
            if index is not None:
                raise error(RuntimeError, f"type (string) must not include an index because index was passed explicitly: {type}")
            if not number.isdigit():
                raise error(RuntimeError, f"Invalid device string: '{type}'")
            index = int(number)
        if name not in _TYPES:
            raise error(
                RuntimeError,
                f"Expected one of cpu, cuda, ipu, xpu, mkldnn, opengl, opencl, ideep, hip, ve, fpga, maia, xla, lazy, "
                f"vulkan, mps, meta, hpu, mtia, privateuseone device type at start of device string: {name}",
            )
        self.type, self.index = name, index
        return self

    def __repr__(self) -> str:
        index = "" if self.index is None else f", index={self.index}"
        return f"device(type='{self.type}'{index})"

    def __str__(self) -> str:
        return self.type if self.index is None else f"{self.type}:{self.index}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, device) and (self.type, self.index) == (other.type, other.index)

    def __hash__(self) -> int:
        return hash((self.type, self.index))

    def __reduce__(self) -> tuple[Any, ...]:
        return (device, (self.type,) if self.index is None else (self.type, self.index))

    def __enter__(self) -> device:
        check_device(self)
        return self

    def __exit__(self, *exc: Any) -> None:
        return None


CPU = device("cpu")


def check_device(d: Any) -> device:
    """The device asked for, if it is here: ``None`` and every spelling of the CPU are."""
    if d is None:
        return CPU
    d = device(d)
    if d.type == "cpu":
        return d
    if d.type == "cuda":
        raise error(AssertionError, "Torch not compiled with CUDA enabled", hint="flambeau runs on the CPU: use device='cpu'.")
    raise error(NotImplementedError, f"device type '{d.type}' is not in flambeau yet", hint="Use device='cpu'.")
