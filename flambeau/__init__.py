"""flambeau: automatic differentiation and neural networks, with PyTorch's API, in Python.

``import flambeau as torch`` runs a PyTorch program; ``flambeau run script.py`` runs it without that edit.
"""

from __future__ import annotations

import importlib
import warnings as _warnings
from math import e, inf, nan, pi
from typing import Any

from .kernels import waiting as _waiting  # isort: skip  (before NumPy)
from . import autograd
from . import ops as _ops
from .core import dtypes as _dtypes
from .core.collector import run_less_often as _run_less_often
from .core.device import device
from .core.dtypes import (
    bfloat16,
    can_cast,
    complex64,
    complex128,
    dtype,
    float16,
    float32,
    float64,
    get_default_dtype,
    int8,
    int16,
    int32,
    int64,
    promote_types,
    set_default_dtype,
    uint8,
)
from .core.errors import name_memory_errors as _name_memory_errors
from .core.modes import (
    enable_grad,
    inference_mode,
    is_grad_enabled,
    is_inference_mode_enabled,
    no_grad,
    set_grad_enabled,
)
from .core.size import Size
from .core.tensor import (
    Tensor,
    channels_last,
    channels_last_3d,
    contiguous_format,
    layout,
    memory_format,
    preserve_format,
    sparse_coo,
    strided,
)
from .kernels.memory import keep_freed_memory as _keep_freed_memory
from .ops.public import FUNCTIONS as _FUNCTIONS
from .version import __version__ as _version
from .version import torch_version as _torch_version

_keep_freed_memory()
_name_memory_errors()
_run_less_often()
# Arithmetic on inf and nan is silent in PyTorch; NumPy, which does the small products and sums, would warn of it.
_warnings.filterwarnings("ignore", category=RuntimeWarning, module=r"flambeau\.")
globals().update(_dtypes.ALIASES)
bool = _dtypes.bool_
globals().update(_FUNCTIONS[""])

newaxis = None
__version__ = f"{_torch_version}+flambeau.{_version}"  # programs compare it with PyTorch's
Tensor.__module__ = Size.__module__ = dtype.__module__ = device.__module__ = "flambeau"

_SETTINGS = (
    "set_float32_matmul_precision", "get_float32_matmul_precision", "set_num_interop_threads", "get_num_interop_threads",
    "use_deterministic_algorithms", "are_deterministic_algorithms_enabled", "set_deterministic_debug_mode",
    "is_deterministic_algorithms_warn_only_enabled", "get_deterministic_debug_mode", "set_flush_denormal",
    "set_warn_always", "is_warn_always_enabled",
)  # fmt: skip
# Modules that are imported when they are first asked for, so that `import flambeau` stays quick.
_LAZY = {
    "nn", "optim", "utils", "linalg", "special", "random", "serialization", "cuda", "backends", "cli",
    "testing", "version", "return_types", "_VF", "func",
}  # fmt: skip
# Names that live in such a module.
_FROM = {
    "save": "serialization", "load": "serialization",
    "set_printoptions": "core.printing", "get_printoptions": "core.printing", "printoptions": "core.printing",
    "finfo": "core.limits", "iinfo": "core.limits",
    "get_num_threads": "kernels.threads",
    "set_num_threads": "kernels.threads", "return_types": "ops.return_types", "vmap": "func",
}  # fmt: skip
_FROM.update(dict.fromkeys(_SETTINGS, "core.settings"))
_FROM.update(dict.fromkeys(("is_anomaly_check_nan_enabled", "is_anomaly_enabled", "set_anomaly_enabled"), "autograd.anomaly_mode"))


def __getattr__(name: str) -> Any:
    if name == "__all__":  # for `from torch import *`
        return [n for n in __dir__() if n[:1] != "_" and n not in _LAZY]
    if (value := _FUNCTIONS[""].get(name)) is not None:
        pass
    elif name in _FROM:
        path = _FROM[name]
        module = importlib.import_module(f".{path}", __name__)
        value = module if path.endswith("." + name) else getattr(module, name)
    elif name in _LAZY:
        try:
            value = importlib.import_module(f".{name}", __name__)
        except ModuleNotFoundError as e:
            if e.name != f"{__name__}.{name}":
                raise
            raise AttributeError(f"module 'torch' has no attribute '{name}'") from None
    else:
        raise AttributeError(f"module 'torch' has no attribute '{name}'")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_FUNCTIONS[""].names(), *_FROM, *_LAZY})


def is_storage(obj: Any) -> Any:
    """Whether ``obj`` is a storage."""
    from .ops.convert import UntypedStorage

    return isinstance(obj, UntypedStorage)


def typename(obj: Any) -> str:
    """The name of a value's type, as ``torch.FloatTensor`` for tensors."""
    if isinstance(obj, Tensor):
        return obj.type()
    t = obj if isinstance(obj, type) else type(obj)
    return f"{t.__module__}.{t.__qualname__}" if t.__module__ not in ("builtins", "") else t.__qualname__
