"""``torch.backends``: which accelerators and libraries are there. Switches of those that aren't are kept and ignored."""

from __future__ import annotations

from typing import Any


class Backend:
    """One backend's switches: any attribute can be set and read back, as programs do without asking."""

    def __init__(self, name: str, available: bool, **switches: Any) -> None:
        self.__dict__.update(switches, __name__=f"torch.backends.{name}")
        self._available = available

    def is_available(self) -> bool:
        return self._available

    is_built = is_available


class _Mkldnn(Backend):
    def is_available(self) -> bool:
        from ..kernels import backend

        return backend.enabled("onednn")


cudnn = Backend("cudnn", False, enabled=True, benchmark=False, deterministic=False, allow_tf32=True, benchmark_limit=10)
cuda = Backend("cuda", False, matmul=Backend("cuda.matmul", False, allow_tf32=False, allow_fp16_reduced_precision_reduction=True))
mps = Backend("mps", False)
mkl = Backend("mkl", False)
openmp = Backend("openmp", True)
mkldnn = _Mkldnn("mkldnn", True, enabled=True)
