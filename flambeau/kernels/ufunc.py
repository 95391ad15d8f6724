"""Kernels: pointwise expressions as functions of arrays, one NumPy ufunc for each dtype.

NumPy does what it does for its own ufuncs (broadcasting, allocation that keeps the order of axes, `out=`, any
strides), for less than its own cost; the inner loop is generated.

>>> from flambeau.kernels.expr import exp, var
>>> x, s = var("x"), var("s")
>>> damp = kernel(exp(-x) * s, ("x", "s"), "damp")
>>> damp(np.array([0.0, 1.0]), 2.0).round(3)
array([2.   , 0.736])
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy._core import _multiarray_umath  # type: ignore[attr-defined]

from flambeau.kernels import backend, lower_numpy, threads
from flambeau.kernels import expr as E
from flambeau.kernels.expr import Expr
from flambeau.kernels.lower_numpy import is_bfloat16, is_half

#: From this many elements of the result on, `Kernel.large` is worth its cost.
LARGE = 16_384


class Kernel:
    """Expressions as a function of arrays and numbers, in the order of `args`.

    Inputs are of one dtype, Python numbers aside, and variables made with a dtype of their own; the results
    are of that dtype too, but for truth values.
    """

    def __init__(self, roots: Sequence[Expr], args: Sequence[str], name: str) -> None:
        missing = set(E.variables(roots)) - set(args)
        if missing:
            raise ValueError(f"kernel {name}: {', '.join(sorted(missing))} not among its arguments {tuple(args)}")
        self.roots, self.args, self.name = tuple(roots), tuple(args), name
        self.kinds = {n.value: n.dtype for n in E.walk(self.roots) if n.op == "var" and n.dtype}
        self._generated: dict[np.dtype, Callable] = {}
        self._addresses: dict[np.dtype, int] = {}
        self._small: dict[np.dtype, Callable] = {}
        self._large: dict[np.dtype, Callable] = {}

    def __repr__(self) -> str:
        return f"<kernel {self.name}({', '.join(self.args)}) = {', '.join(map(repr, self.roots))}>"

    def __call__(self, *arrays: Any, out: Any = None) -> Any:
        dtype = self._dtype_of(arrays)
        size = max((a.size for a in arrays if isinstance(a, np.ndarray)), default=1)
        function = self.large(dtype) if size >= LARGE else self.small(dtype)
        if out is not None:
            return function(*arrays, out=out)
        result = function(*arrays)
        # NumPy makes scalars of results without axes
        return tuple(map(np.asarray, result)) if isinstance(result, tuple) else np.asarray(result)

    def _dtype_of(self, arrays: Sequence[Any]) -> np.dtype:
        for name, array in zip(self.args, arrays, strict=True):
            if name not in self.kinds and isinstance(array, (np.ndarray, np.generic)):
                return array.dtype
        return np.dtype(np.float64)

    def small(self, dtype: np.dtype) -> Callable:
        """A function for arrays of this dtype, quick to call: a ufunc wherever there is one."""
        function = self._small.get(dtype)
        if function is None:
            plain = lower_numpy.single_ufunc(self.roots, self.args)
            # on floats NumPy's would warn of overflow, division by zero and invalid values: PyTorch doesn't
            quiet = dtype.kind in "iub" and self.roots[0].op != "pow" or self.roots[0].op in _NEVER_WARN
            function = plain if plain and quiet and not is_bfloat16(dtype) else self.ufunc_for(dtype)
            self._small[dtype] = function
        return function

    def large(self, dtype: np.dtype) -> Callable:
        """A function for large arrays of this dtype: threads whatever the broadcasting."""
        function = self._large.get(dtype)
        if function is None:
            function = self.ufunc_for(dtype)
            if len(self.args) > 1 and self.generated(dtype):
                from flambeau.kernels import broadcast

                dtypes = [np.dtype(lower_numpy.numpy_name(d)) for d in self.dtypes(dtype)]
                function = broadcast.driver(function, self.address(dtype), dtypes, len(self.args))
            self._large[dtype] = function
        return function

    def ufunc_for(self, dtype: np.dtype) -> Callable:
        """The generated ufunc for this dtype; where none can be, a function that is called like it."""
        function = self._generated.get(dtype)
        if function is None:
            if self.generated(dtype):
                function = self._generate(dtype)
            else:
                function = lower_numpy.lower(self.roots, self.args, self.kinds, dtype, self.name)
            self._generated[dtype] = function
        return function

    def generated(self, dtype: np.dtype) -> bool:
        """Whether arrays of this dtype have a generated kernel."""
        if not backend.jit_available():
            return False
        from flambeau.kernels import lower_llvm

        return lower_llvm.supported(self.roots, dtype.name)

    def _generate(self, dtype: np.dtype) -> Callable:
        dtypes = self.dtypes(dtype)
        ufunc = make_ufunc(self.address(dtype), self.name, len(self.args), dtypes, repr(self))
        return _with_numbers(ufunc, dtypes) if is_bfloat16(dtype) else ufunc

    def dtypes(self, dtype: np.dtype) -> list[str]:
        """The dtypes of the inputs, then of the outputs."""
        wide = "float32" if is_half(dtype) else dtype.name
        inputs = [wide if self.kinds.get(a) == "scalar" else self.kinds.get(a, dtype.name) for a in self.args]
        return inputs + ["bool" if E.is_bool(r) else dtype.name for r in self.roots]

    def address(self, dtype: np.dtype) -> int:
        """The address of the generated inner loop."""
        found = self._addresses.get(dtype)
        if found is None:
            found = self._addresses[dtype] = self._compile(dtype)
        return found

    def _compile(self, dtype: np.dtype) -> int:
        from flambeau.kernels import jit, lower_llvm

        dtypes = self.dtypes(dtype)
        key = f"pointwise {E.serialize(self.roots)} {self.args} {dtypes} {dtype.name}"
        return jit.function(
            key,
            lambda name, machine: lower_llvm.module(name, self.roots, self.args, dtypes, dtype.name, machine),
        )


#: NumPy's ufuncs that raise no floating-point flag that NumPy would warn of.
_NEVER_WARN = frozenset(
    "neg abs conj floor ceil trunc copysign isnan isinf isfinite signbit lt le gt ge eq ne "
    "logical_and logical_or logical_xor logical_not".split()
)


def kernel(expressions: Expr | Sequence[Expr], args: Sequence[str], name: str) -> Kernel:
    """The kernel that computes one expression, or several at once.

    `args` names the variables in the order of the call. Nothing is compiled before the first call for a
    dtype.
    """
    return Kernel([expressions] if isinstance(expressions, Expr) else expressions, args, name)


# --- NumPy's C interface ------------------------------------------------------------------------------------

_FROM_FUNC_AND_DATA, _REGISTER_LOOP_FOR_TYPE = 1, 2  # places in NumPy's table of ufunc functions
_keep: list[Any] = []  # NumPy keeps addresses only


def _numpy_function(index: int, result: Any, *arguments: Any) -> Callable:
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    table = ctypes.cast(pointer(_multiarray_umath._UFUNC_API, None), ctypes.POINTER(ctypes.c_void_p))
    return ctypes.PYFUNCTYPE(result, *arguments)(table[index])


_from_func_and_data = _numpy_function(
    _FROM_FUNC_AND_DATA,
    ctypes.py_object,
    *[ctypes.c_void_p] * 3,
    *[ctypes.c_int] * 4,
    *[ctypes.c_char_p] * 2,
    ctypes.c_int,
)
_register_loop = _numpy_function(
    _REGISTER_LOOP_FOR_TYPE, ctypes.c_int, ctypes.py_object, ctypes.c_int, *[ctypes.c_void_p] * 3
)


def _with_numbers(ufunc: np.ufunc, dtypes: Sequence[str]) -> Callable:
    """The ufunc, taking Python numbers too: NumPy converts them for its own dtypes only."""
    wants = [np.dtype(lower_numpy.numpy_name(d)) for d in dtypes]

    def function(*given: Any, out: Any = None) -> Any:
        arrays = [a if isinstance(a, np.ndarray) else np.asarray(a, d) for a, d in zip(given, wants, strict=False)]
        return ufunc(*arrays) if out is None else ufunc(*arrays, out=out)

    return function


def make_ufunc(address: int, name: str, inputs: int, dtypes: Sequence[str], doc: str) -> np.ufunc:
    """A NumPy ufunc of one loop: the inner loop at `address`."""
    numbers = [np.dtype(lower_numpy.numpy_name(d)).num for d in dtypes]
    outputs = len(dtypes) - inputs
    data = ctypes.addressof(threads.CONFIG)
    texts = name.encode(), doc.encode()
    if "bfloat16" not in dtypes:
        functions, datas = (ctypes.c_void_p * 1)(address), (ctypes.c_void_p * 1)(data)
        types = (ctypes.c_char * len(numbers))(*numbers)
        _keep.append((functions, datas, types, texts))
        pointers = [ctypes.addressof(c) for c in (functions, datas, types)]
        return _from_func_and_data(*pointers, 1, inputs, outputs, -1, *texts, 0)
    ufunc = _from_func_and_data(None, None, None, 0, inputs, outputs, -1, *texts, 0)
    codes = (ctypes.c_int * len(numbers))(*numbers)
    _keep.append((codes, texts))
    _register_loop(ufunc, numbers[list(dtypes).index("bfloat16")], address, ctypes.addressof(codes), data)
    return ufunc
