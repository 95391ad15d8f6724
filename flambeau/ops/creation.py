"""Tensors from numbers, sequences, arrays and nothing at all.

Every factory takes ``dtype``, ``device``, ``layout``, ``pin_memory`` and ``requires_grad``, and ``out`` where PyTorch's does.
"""

from __future__ import annotations

import math
import operator
import warnings
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np

from ..autograd.primitive import primitive
from ..autograd.transforms.batched import Batched
from ..core import dtypes
from ..core.device import check_device
from ..core.dtypes import COMPLEX, FLOAT, FROM_NP, INT, SCALAR_NAMES, dtype
from ..core.errors import error, memory_error
from ..core.modes import Modes, mode
from ..core.tensor import InferenceCounter, Tensor, contiguous_format, keep_layout, preserve_format, strided, wrap
from ..core.tensor import new_tensor as blank
from .convert import (
    _CHANNELS_LAST,
    cast,
    check_format,
    convert,
    in_format,
    reduce_to,
    shared,
    unsupported_array,
    warn_of_lost_history,
    window,
)
from .public import public, publish, write_out

DTYPE = dtype  # what the argument of that name hides


# ---- what the factories share -----------------------------------------------------------------------------------------------
def new(name: str, shape: tuple[int, ...], np_dtype: Any, fill: Any = np.empty) -> np.ndarray:
    """An array, or PyTorch's error where there is no memory for it."""
    try:
        return fill(shape, np_dtype)
    except MemoryError as e:
        raise memory_error(e) from None
    except ValueError:
        if any(n < 0 for n in shape):
            if name == "zeros":
                raise error(RuntimeError, "zeros: Dimension size must be non-negative.") from None
            n = next(n for n in shape if n < 0)
            raise error(RuntimeError, f"Trying to create tensor with negative dimension {n}: {list(shape)}") from None
        raise error(RuntimeError, f"Storage size calculation overflowed with sizes={list(shape)}") from None


def size_of(name: str, size: Any) -> tuple[int, ...]:
    """The shape that ``f(2, 3)``, ``f((2, 3))`` or ``f(size=...)`` asks for."""
    if len(size) == 1 and not isinstance(size[0], (int, Tensor)):
        given = size[0]
        if isinstance(given, (str, float, dict)) or not hasattr(given, "__iter__"):
            if hasattr(given, "__index__"):
                return (operator.index(given),)
            raise error(
                TypeError,
                f"{name}(): argument 'size' (position 1) must be tuple of ints, not {type(given).__name__}",
            )
        size = tuple(given)
    try:
        return tuple([n if n.__class__ is int else operator.index(n) for n in size])
    except TypeError:
        bad = next(n for n in size if not hasattr(n, "__index__"))
        raise error(
            TypeError,
            f"{name}(): argument 'size' (position 1) must be tuple of ints, but found element of type {type(bad).__name__}",
        ) from None


def np_type(name: str, d: Any, default: dtype | None = None) -> np.dtype:
    if d is None:
        return (default or dtypes.get_default_dtype()).np
    if d.__class__ is not dtype:
        d = {float: dtypes.float64, int: dtypes.int64, bool: dtypes.bool_, complex: dtypes.complex128}.get(d, d)
        if not isinstance(d, dtype):
            raise error(TypeError, f"{name}(): argument 'dtype' must be torch.dtype, not {type(d).__name__}")
    return d.np


def made(name: str, a: np.ndarray, o: dict[str, Any]) -> Tensor:
    """The finished tensor: ``o`` holds the options that do not bear on the values."""
    if o:
        check_options(name, o)
        out = o.get("out")
        if out is not None:
            write_out(name, out, wrap(a))
            return out.requires_grad_() if o.get("requires_grad") else out
    t = blank(Tensor)
    t._a = a
    t._grad_fn = None
    t._rg = False
    m = mode()
    if m.__class__ is Modes and m.inference:
        t._vc = InferenceCounter()
    if o and o.get("requires_grad"):
        want_grad(t)
    return t


OPTIONS = frozenset(("out", "layout", "device", "pin_memory", "requires_grad"))


def check_options(name: str, o: dict[str, Any]) -> None:
    for k in o:
        if k not in OPTIONS:
            raise error(TypeError, f"{name}() got an unexpected keyword argument '{k}'")
    if o.get("device") is not None:
        check_device(o["device"])
    layout = o.get("layout")
    if layout is not None and layout is not strided:
        raise error(NotImplementedError, f"{name}(layout={layout})", hint="flambeau has dense tensors: layout=torch.strided.")
    if o.get("pin_memory"):
        raise error(RuntimeError, "Cannot access accelerator device when none is available.")


def want_grad(t: Tensor) -> Tensor:
    if t._a.dtype.kind not in "fc" and t.dtype.category < FLOAT:
        raise error(RuntimeError, "Only Tensors of floating point and complex dtype can require gradients")
    t._rg = True
    return t


# ---- zeros, ones, full, empty ---------------------------------------------------------------------------------------------------
def _sized(name: str, args: tuple[Any, ...], o: dict[str, Any]) -> tuple[int, ...]:
    if not args:
        if "size" not in o:
            raise error(TypeError, f'{name}() missing 1 required positional arguments: "size"')
        args = (o.pop("size"),)
    return size_of(name, args)


@public(method=False)
def zeros(*size: Any, dtype: Any = None, **options: Any) -> Tensor:
    """Zeros of a shape.

    >>> import flambeau as torch
    >>> torch.zeros(2, dtype=torch.int32)
    tensor([0, 0], dtype=torch.int32)
    """
    shape = _sized("zeros", size, options)
    return made("zeros", new("zeros", shape, np_type("zeros", dtype, _out_dtype(options)), np.zeros), options)


def _out_dtype(o: dict[str, Any]) -> dtype | None:
    out = o.get("out") if o else None
    return None if out is None else out.dtype


@public(method=False)
def ones(*size: Any, dtype: Any = None, **options: Any) -> Tensor:
    """Ones of a shape."""
    shape = _sized("ones", size, options)
    return made("ones", new("ones", shape, np_type("ones", dtype, _out_dtype(options)), np.ones), options)


@public(method=False)
def empty(*size: Any, dtype: Any = None, memory_format: Any = None, **options: Any) -> Tensor:
    """Uninitialised memory of a shape."""
    shape = _sized("empty", size, options)
    nt = np_type("empty", dtype, _out_dtype(options))
    out = options.get("out")
    if out is not None and out._a.shape == shape:
        return out
    if memory_format in _CHANNELS_LAST:
        order = _CHANNELS_LAST[memory_format]
        if len(order) != len(shape):
            raise error(RuntimeError, f"required rank {len(order)} tensor to use {memory_format.name} format")
        a = new("empty", tuple(shape[i] for i in order), nt).transpose(np.argsort(order))
        return in_format(made("empty", a, options), memory_format)
    return made("empty", new("empty", shape, nt), options)


@public(method=False)
def full(size: Any, fill_value: Any, *, dtype: Any = None, **options: Any) -> Tensor:
    """A shape filled with one value, whose dtype is the default (a Python float: the default floating dtype).

    >>> import flambeau as torch
    >>> torch.full((2,), 7)
    tensor([7, 7])
    """
    shape = size_of("full", (size,))
    value = fill_value.item() if isinstance(fill_value, Tensor) else fill_value
    if isinstance(value, (str, bytes)) or not hasattr(value, "__complex__") and not hasattr(value, "__float__"):
        raise error(TypeError, f"full(): argument 'fill_value' (position 2) must be Number, not {type(value).__name__}")
    default = fill_value.dtype if isinstance(fill_value, Tensor) else dtypes.of_scalar(value)
    nt = np_type("full", dtype, _out_dtype(options) or default)
    a = new("full", shape, nt)
    a.fill(number(value, nt))
    return made("full", a, options)


def number(value: Any, nt: np.dtype) -> Any:
    """A Python number as a scalar of a NumPy dtype; RuntimeError if it does not fit."""
    d = FROM_NP[nt]
    if d.category == INT:
        value = value.real if isinstance(value, complex) else value
        if not math.isfinite(value):
            raise error(RuntimeError, f"value cannot be converted to type {overflow_name(d)} without overflow")
        v = int(value)
        info = np.iinfo(nt)
        if not -(info.max) - 1 <= v <= info.max:
            raise error(RuntimeError, f"value cannot be converted to type {overflow_name(d)} without overflow")
        return nt.type(v & info.max if v < 0 and info.min == 0 else v)
    if d.category < COMPLEX and isinstance(value, complex):
        if value.imag:
            raise error(RuntimeError, f"value cannot be converted to type {overflow_name(d)} without overflow")
        value = value.real
    with np.errstate(all="ignore"):
        v = np.asarray(value).astype(nt)[()]
    if d.category == FLOAT and math.isfinite(value) and not math.isfinite(v):
        raise error(RuntimeError, f"value cannot be converted to type {overflow_name(d)} without overflow")
    return v


def overflow_name(d: dtype) -> str:
    return {"int8": "int8_t", "int16": "int16_t", "int32": "int", "int64": "int64_t", "uint8": "uint8_t"}.get(
        d.name, dtypes.C_NAMES[d]
    )


def _like(name: str, input: Any, dtype: Any, fmt: Any, fill: Any) -> np.ndarray:
    if not isinstance(input, Tensor):
        raise error(TypeError, f"{name}(): argument 'input' (position 1) must be Tensor, not {type(input).__name__}")
    a = input._a
    nt = a.dtype if dtype is None else np_type(name, dtype)
    if fmt is None or fmt is preserve_format:
        return new(name, a.shape, nt, lambda shape, nt: fill(a, dtype=nt, order="K"))
    check_format(input, fmt)
    if fmt is contiguous_format:
        return new(name, a.shape, nt, lambda shape, nt: fill(a, dtype=nt, order="C"))
    order = _CHANNELS_LAST[fmt]
    return fill(np.empty([a.shape[i] for i in order], nt)).transpose(np.argsort(order))


def plain_format(fmt: Any) -> Any:
    """The memory format of a batch of what has a format."""
    return contiguous_format if fmt is contiguous_format else None


def _like_function(name: str, fill: Any, doc: str) -> Any:
    def like(input: Tensor, *, dtype: Any = None, memory_format: Any = None, **options: Any) -> Tensor:
        if input.__class__ is Batched:  # so that the values of each example may be written into it
            return input.like(like(input._value, dtype=dtype, memory_format=plain_format(memory_format), **options))
        return in_format(made(name, _like(name, input, dtype, memory_format, fill), options), memory_format)

    like.__name__ = like.__qualname__ = name
    like.__doc__ = doc
    return public(like, method=False)


zeros_like = _like_function("zeros_like", np.zeros_like, "Zeros of another tensor's shape and dtype.")
ones_like = _like_function("ones_like", np.ones_like, "Ones of another tensor's shape and dtype.")
empty_like = _like_function("empty_like", np.empty_like, "Uninitialised memory of another tensor's shape and dtype.")


@public(method=False)
def full_like(input: Tensor, fill_value: Any, *, dtype: Any = None, memory_format: Any = None, **options: Any) -> Tensor:
    """One value in another tensor's shape and dtype."""
    value = fill_value.item() if isinstance(fill_value, Tensor) else fill_value
    if input.__class__ is Batched:
        fmt = plain_format(memory_format)
        return input.like(full_like(input._value, value, dtype=dtype, memory_format=fmt, **options))
    a = _like("full_like", input, dtype, memory_format, np.empty_like)
    a.fill(number(value, a.dtype))
    return in_format(made("full_like", a, options), memory_format)


@public(method=False)
def empty_strided(size: Any, stride: Any, *, dtype: Any = None, **options: Any) -> Tensor:
    """Uninitialised memory of a shape and strides."""
    return made("empty_strided", _strided(size, stride, np_type("empty_strided", dtype)), options)


def _strided(size: Any, stride: Any, nt: np.dtype) -> np.ndarray:
    size, stride = tuple(size), tuple(stride)
    if len(size) != len(stride):
        raise error(
            RuntimeError,
            f"mismatch in length of strides and shape: {len(stride)} strides for {len(size)} dimensions",
        )
    span = 0 if 0 in size else 1 + sum((n - 1) * s for n, s in zip(size, stride))
    return window(new("empty", (span,), nt), nt, size, stride, 0)


@public(method=False)
def empty_permuted(size: Any, physical_layout: Any, *, dtype: Any = None, **options: Any) -> Tensor:
    """Uninitialised memory of a shape, laid out in memory in the order of dimensions given."""
    order = tuple(physical_layout)
    a = new("empty", tuple([size[i] for i in order]), np_type("empty_permuted", dtype)).transpose(np.argsort(order))
    t = made("empty_permuted", a, options)
    keep_layout(t)
    return t


@public(method=False)
def scalar_tensor(s: Any, *, dtype: Any = None, **options: Any) -> Tensor:
    """A 0-d tensor."""
    nt, s = np_type("scalar_tensor", dtype), _scalar(s)
    return made("scalar_tensor", np.array(number(s, nt), nt), options)


# ---- new_* -------------------------------------------------------------------------------------------------------------------------
def _new_sized(name: str, fill: Any) -> None:
    def method(self: Tensor, *size: Any, dtype: Any = None, **options: Any) -> Tensor:
        shape = _sized(name, size, options)
        if self.__class__ is Batched:
            return self.like(method(self._value, self._value._a.shape[0], *shape, dtype=dtype, **options))
        return made(name, new(name, shape, np_type(name, dtype, self.dtype), fill), options)

    method.__name__ = method.__qualname__ = name
    method.__doc__ = f"``torch.{name[4:]}`` with this tensor's dtype."
    setattr(Tensor, name, method)


_new_sized("new_zeros", np.zeros)
_new_sized("new_ones", np.ones)
_new_sized("new_empty", np.empty)


@public(function=False, method=True)
def new_full(self: Tensor, size: Any, fill_value: Any, *, dtype: Any = None, **options: Any) -> Tensor:
    """``torch.full`` with this tensor's dtype."""
    if self.__class__ is Batched:
        shape = (self._value._a.shape[0], *size_of("new_full", (size,)))
        return self.like(self._value.new_full(shape, fill_value, dtype=dtype, **options))
    return full(size, fill_value, dtype=dtype or self.dtype, **options)


@public(function=False, method=True)
def new_empty_strided(self: Tensor, size: Any, stride: Any, *, dtype: Any = None, **options: Any) -> Tensor:
    """``torch.empty_strided`` with this tensor's dtype."""
    if self.__class__ is Batched:
        size, stride = tuple(size), tuple(stride)
        span = 0 if 0 in size else 1 + sum((n - 1) * s for n, s in zip(size, stride))
        return self.like(self._value.new_empty_strided((self._value._a.shape[0], *size), (span, *stride), dtype=dtype, **options))
    return empty_strided(size, stride, dtype=dtype or self.dtype, **options)


@public(function=False, method=True)
def new_tensor__(self: Tensor, data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A copy of ``data`` with this tensor's dtype."""
    return tensor(data, dtype=dtype or self.dtype, device=device, requires_grad=requires_grad)


def _legacy_new(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """``new(2, 3)``, ``new([1, 2])``: the legacy constructor with this tensor's dtype."""
    return of_type(self.dtype, args)


Tensor.new = _legacy_new


# ---- from data -----------------------------------------------------------------------------------------------------------------------
_PLAIN = frozenset((int, float, bool, complex))


def _is_sequence(x: Any) -> bool:
    if isinstance(x, (list, tuple)):
        return True
    if isinstance(x, (str, bytes, dict, set, Tensor, np.generic)):
        return False
    return hasattr(x, "__len__") and hasattr(x, "__getitem__") and not (isinstance(x, np.ndarray) and not x.ndim)


def array_of(data: Any, d: dtype | None) -> np.ndarray:
    """A new array of the values in ``data``, of PyTorch's dtype for them unless one is given."""
    if isinstance(data, np.ndarray) or not isinstance(data, (list, tuple)) and hasattr(data, "__array__") and not isinstance(data, (np.generic, Tensor)):
        a = np.asarray(data)
        if a.dtype not in FROM_NP:
            raise error(TypeError, unsupported_array(a))
        return cast(a, a.dtype if d is None else d.np, "C")
    if isinstance(data, str):
        raise error(TypeError, "new(): invalid data type 'str'")
    shape = []
    x = data
    while _is_sequence(x):
        shape.append(len(x))
        if not shape[-1]:
            break
        x = x[0]
    leaves: Any = [data]
    for depth, n in enumerate(shape):
        for s in leaves:
            if not _is_sequence(s):
                raise error(TypeError, "not a sequence")
            if len(s) != n:
                raise error(ValueError, f"expected sequence of length {n} at dim {depth} (got {len(s)})")
        leaves = leaves[0] if len(leaves) == 1 else list(chain.from_iterable(leaves))
    if not isinstance(leaves, list):
        leaves = list(leaves)
    types = set(map(type, leaves))
    if not types <= _PLAIN:
        for i, v in enumerate(leaves):
            if v.__class__ in _PLAIN or isinstance(v, np.generic) and v.dtype in FROM_NP:
                continue
            if isinstance(v, Tensor) or isinstance(v, np.ndarray) and not v.ndim:
                continue
            if _is_sequence(v):
                raise error(TypeError, f"'{type(v).__name__}' object cannot be interpreted as an integer")
            if isinstance(v, str):
                raise error(ValueError, "too many dimensions 'str'")
            if isinstance(v, (int, float, complex)):  # enums, and numbers of the user's own
                leaves[i] = next(k(v) for k in (int, float, complex) if isinstance(v, k))
                continue
            raise error(RuntimeError, f"Could not infer dtype of {type(v).__name__}")
    found = d or _infer(leaves, set(map(type, leaves)))
    if not types <= _PLAIN:
        leaves = [_value(v) for v in leaves]
    return _fill_from(leaves, found).reshape(shape)


def _infer(leaves: list[Any], types: set[type]) -> dtype:
    if not leaves:
        return dtypes.get_default_dtype()
    kinds = [dtypes.of_scalar(t()) for t in types if t in _PLAIN]
    if len(kinds) != len(types):
        kinds += {v.dtype if isinstance(v, Tensor) else FROM_NP[v.dtype] for v in leaves if v.__class__ not in _PLAIN}
    out = kinds[0]
    for k in kinds[1:]:
        out = dtypes.promote_types(out, k)
    return out


def _value(v: Any) -> Any:
    if isinstance(v, Tensor):
        if v._a.size != 1:
            raise error(ValueError, "only one element tensors can be converted to Python scalars")
        warn_of_lost_history(v)
        return v.item()
    return v


def _fill_from(leaves: list[Any], d: dtype) -> np.ndarray:
    try:
        if d.category >= FLOAT or d is dtypes.bool_:
            if d.np.kind == "V" or d is dtypes.float16:
                return cast(cast(np.array(leaves, np.float64), np.float32), d.np)
            try:
                with np.errstate(over="ignore"):
                    return np.array(leaves, d.np)
            except TypeError:
                raise error(TypeError, "must be real number, not complex") from None
        if any(isinstance(v, (float, np.floating)) for v in leaves):
            leaves = [int(v) for v in leaves]
        a = np.array(leaves, np.int64)
    except OverflowError:
        raise error(ValueError, "Overflow when unpacking long long") from None
    if d is not dtypes.int64:
        info = np.iinfo(d.np)
        if a.size and (a.max() > info.max or a.min() < (info.min or -info.max)):
            raise error(RuntimeError, f"value cannot be converted to type {overflow_name(d).removesuffix('_t')} without overflow")
        a = a.astype(d.np)
    return a


@public(method=False)
def tensor(
    data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False, pin_memory: bool = False
) -> Tensor:
    """A new tensor with a copy of ``data``: a number, nested sequences of numbers, an array, a tensor.

    Raises ValueError where nested sequences differ in length.

    >>> import flambeau as torch
    >>> torch.tensor([[1, 2], [3, 4]])
    tensor([[1, 2],
            [3, 4]])
    """
    if device is not None:
        check_device(device)
    if pin_memory:
        check_options("tensor", {"pin_memory": True})
    d = None if dtype is None else FROM_NP[np_type("tensor", dtype)]
    if isinstance(data, Tensor):
        warnings.warn(
            "To copy construct from a tensor, it is recommended to use sourceTensor.detach().clone() or "
            "sourceTensor.detach().clone().requires_grad_(True), rather than torch.tensor(sourceTensor).",
            UserWarning,
            stacklevel=2,
        )
        if data.__class__ is Batched:
            t = convert(data.detach(), d or data.dtype, None)
            return t.requires_grad_() if requires_grad else t
        a = cast(data._viewable(), (d or data.dtype).np)
    else:
        a = array_of(data, d)
    t = wrap(a)
    return want_grad(t) if requires_grad else t


@public(method=False)
def as_tensor(data: Any, dtype: Any = None, device: Any = None) -> Tensor:
    """``data`` as a tensor: itself, or on the same memory, where that can be."""
    if device is not None:
        check_device(device)
    if isinstance(data, Tensor):
        return data if dtype is None else data.to(dtype)
    if isinstance(data, np.ndarray):
        t = shared(data)
        return t if dtype is None else t.to(dtype)
    return tensor(data, dtype=dtype)


@public(method=False)
def asarray(
    obj: Any, *, dtype: Any = None, device: Any = None, copy: bool | None = None, requires_grad: bool = False
) -> Tensor:
    """``obj`` as a tensor; ``copy`` True: always a copy, False: never (ValueError if it needs one), None: if needed."""
    if device is not None:
        check_device(device)
    if isinstance(obj, Tensor):
        t: Tensor = obj
    elif isinstance(obj, np.ndarray):
        t = shared(obj)
    elif hasattr(obj, "__dlpack__") and not isinstance(obj, np.generic):
        t = wrap(np.from_dlpack(obj))
    elif isinstance(obj, (bytes, bytearray, memoryview)):
        t = frombuffer(obj, dtype=dtype or dtypes.get_default_dtype())
    else:
        if copy is False:
            raise error(ValueError, "can't alias arbitrary sequence into a tensor.")
        t = tensor(obj, dtype=dtype)
        return want_grad(t) if requires_grad else t
    if dtype is not None and t.dtype is not dtype:
        if copy is False:
            raise error(ValueError, f"can't alias tensor with dtype '{t.dtype}' into dtype '{dtype}'.")
        t = convert(t, dtype, None)
    elif copy:
        t = t.clone()
    if requires_grad and not t._rg:
        t = want_grad(t if t is not obj else t._detached())
    elif not requires_grad and t._rg:
        t = t._detached()
    return t


@public(method=False)
def frombuffer(buffer: Any, *, dtype: Any, count: int = -1, offset: int = 0, requires_grad: bool = False) -> Tensor:
    """A 1-d tensor on the memory of an object with the buffer protocol; ``offset`` is in bytes."""
    nt = np_type("frombuffer", dtype)
    length, size = memoryview(buffer).nbytes, nt.itemsize
    if not length or not count:
        raise error(ValueError, f"both buffer length ({length}) and count ({count}) must not be 0")
    if not 0 <= offset < length:
        raise error(ValueError, f"offset ({offset} bytes) must be non-negative and no greater than buffer length ({length} bytes) - 1")
    if count < 0 and (length - offset) % size:
        raise error(
            ValueError, f"buffer length ({length - offset} bytes) after offset ({offset} bytes) must be a multiple of element size ({size})"
        )
    if count > 0 and offset + count * size > length:
        raise error(
            ValueError,
            f"requested buffer length ({count} * {size} bytes) after offset ({offset} bytes) must not be greater than actual "
            f"buffer length ({length} bytes)",
        )
    n = count if count > 0 else (length - offset) // size
    a = np.frombuffer(buffer, np.uint8, n * size, offset)
    if not a.flags.writeable:
        warnings.warn(
            "The given buffer is not writable, and PyTorch does not support non-writable tensors. This means you can write to "
            "the underlying (supposedly non-writable) buffer using the tensor. You may want to copy the buffer to protect its "
            "data or make it writable before converting it to a tensor.",
            UserWarning,
            stacklevel=2,
        )
    t = wrap(a.view(nt))
    return want_grad(t) if requires_grad else t


# ---- the legacy types ------------------------------------------------------------------------------------------------------------------
def of_type(d: dtype, args: tuple[Any, ...]) -> Tensor:
    if len(args) == 1 and isinstance(args[0], Tensor):
        return args[0].to(d)
    if len(args) == 1 and not isinstance(args[0], int) and not isinstance(args[0], tuple) or not args:
        return wrap(array_of(args[0] if args else [], d))
    if len(args) == 1 and args[0].__class__ is tuple:
        return wrap(array_of(args[0], d))
    return wrap(new("empty", size_of("new", args), d.np))


class LegacyType(type):
    """``torch.FloatTensor`` and its kin: constructors, and what ``isinstance`` compares with."""

    dtype: DTYPE

    def __call__(cls, *args: Any, device: Any = None) -> Tensor:
        check_device(device)
        return of_type(cls.dtype, args)

    def __instancecheck__(cls, t: Any) -> bool:
        return isinstance(t, Tensor) and t.dtype is cls.dtype

    def __repr__(cls) -> str:
        return f"<class 'torch.{cls.__name__}'>"


for _d, _name in SCALAR_NAMES.items():
    if _d.category < COMPLEX:
        publish(f"{_name}Tensor", LegacyType(f"{_name}Tensor", (), {"dtype": _d}))


# ---- sequences of numbers ----------------------------------------------------------------------------------------------------------------
def _scalar(x: Any) -> Any:
    return x.item() if isinstance(x, (Tensor, np.generic)) else x


@public(method=False)
def arange(start: Any, end: Any = None, step: Any = 1, *, dtype: Any = None, **options: Any) -> Tensor:
    """``start, start + step, ...`` before ``end``: int64 if all three are integers, else the default floating dtype.

    >>> import flambeau as torch
    >>> torch.arange(1, 2.5, 0.5)
    tensor([1.0000, 1.5000, 2.0000])
    """
    start, end, step = (0, _scalar(start), _scalar(step)) if end is None else (_scalar(start), _scalar(end), _scalar(step))
    whole = all(isinstance(v, int) for v in (start, end, step))
    nt = np_type("arange", dtype, _out_dtype(options) or (dtypes.int64 if whole else None))
    if not step:
        raise error(RuntimeError, "step must be nonzero")
    if not (math.isfinite(start) and math.isfinite(end)):
        raise error(RuntimeError, f"unsupported range: {start} -> {end}")
    if (end - start) * (1 if step > 0 else -1) < 0:
        raise error(RuntimeError, "upper bound and lower bound inconsistent with step sign")
    if nt.kind in "iu" and not whole:
        start, end, step = int(start), int(end), int(step)
        whole = True
    n = -((start - end) // step) if whole else math.ceil((end - start) / step)
    if nt.kind in "biu":
        a = new("arange", (n,), np.int64)
        a[...] = np.arange(n)
        a = a * int(step) + int(start) if step != 1 or start else a
    else:
        a = np.arange(n, dtype=np.float64) * step + start
    return made("arange", a if a.dtype == nt else cast(a, nt), options)


@public(method=False)
def range__(start: Any = 0, end: Any = None, step: Any = 1, *, dtype: Any = None, **options: Any) -> Tensor:
    """``start, start + step, ..., end``, the end included. Deprecated by PyTorch: use ``arange``."""
    warnings.warn(
        "torch.range is deprecated and will be removed in a future release because its behavior is inconsistent with "
        "Python's range builtin. Instead, use torch.arange, which produces values in [start, end).",
        UserWarning,
        stacklevel=2,
    )
    if end is None:
        start, end = 0, start
    n = math.floor((end - start) / step) + 1
    nt = np_type("range", dtype)
    return made("range", cast(np.arange(n, dtype=np.float64) * step + start, nt), options)


def _linspace(start: Any, end: Any, steps: int, nt: np.dtype) -> np.ndarray:
    """From both ends towards the middle, as PyTorch does."""
    if steps < 0:
        raise error(RuntimeError, "number of steps must be non-negative")
    work = np.float64 if nt.kind in "biu" else np.float32 if nt.itemsize == 2 else nt
    start, end = np.asarray(start).astype(work), np.asarray(end).astype(work)
    if steps == 1:
        return cast(start[None], nt)
    i = np.arange(steps).astype(work)
    step = (end - start) / work_type(work)(max(steps - 1, 1))
    a = np.where(i < steps // 2, start + step * i, end - step * (steps - 1 - i))
    return cast(np.trunc(a) if nt.kind in "iu" else a, nt)


def _linspace_each(start: Any, end: Any, steps: int, d: dtype) -> Tensor:
    """``linspace`` between the ends that each example of a batch has."""
    if steps < 0:
        raise error(RuntimeError, "number of steps must be non-negative")
    work = d if d.category >= FLOAT else dtypes.float64
    i = arange(steps, dtype=work)
    step = (end - start) / max(steps - 1, 1)
    a = (start + step * i).where(i < max(steps // 2, int(steps == 1)), end - step * (steps - 1 - i))
    return (a.trunc() if d.category == INT else a).to(d)


def work_type(w: Any) -> Any:
    return np.dtype(w).type


@public(method=False)
def linspace(start: Any, end: Any, steps: Any = None, *, dtype: Any = None, **options: Any) -> Tensor:
    """``steps`` values at equal distances from ``start`` to ``end``, both included."""
    if steps is None:
        raise error(TypeError, 'linspace() missing 1 required positional arguments: "steps"')
    if start.__class__ is Batched or end.__class__ is Batched:
        return _linspace_each(start, end, int(steps), FROM_NP[np_type("linspace", dtype)])
    start, end = _scalar(start), _scalar(end)
    default = dtypes.default_complex() if isinstance(start, complex) or isinstance(end, complex) else None
    return made("linspace", _linspace(start, end, int(steps), np_type("linspace", dtype, default)), options)


@public(method=False)
def logspace(start: Any, end: Any, steps: Any = None, base: float = 10.0, *, dtype: Any = None, **options: Any) -> Tensor:
    """``base`` to the power of ``linspace(start, end, steps)``."""
    if steps is None:
        raise error(TypeError, 'logspace() missing 1 required positional arguments: "steps"')
    nt = np_type("logspace", dtype)
    work = np.dtype(np.float64) if nt.kind in "biu" or nt.itemsize == 2 else nt
    powers = _linspace(_scalar(start), _scalar(end), int(steps), work)
    return made("logspace", cast(np.power(work.type(base), powers), nt), options)


@public(method=False)
def eye(n: int, m: int | None = None, *, dtype: Any = None, **options: Any) -> Tensor:
    """Ones on the diagonal, zeros elsewhere."""
    m = n if m is None else m
    for name, v in (("n", n), ("m", m)):
        if v < 0:
            raise error(RuntimeError, f"{name} must be greater or equal to 0, got {v}")
    nt = np_type("eye", dtype)
    a = new("eye", (n, m), nt, np.zeros)
    np.fill_diagonal(a[: min(n, m), : min(n, m)], nt.type(1))
    return made("eye", a, options)


def _triangle(name: str, a: Any, dtype: Any, options: Any) -> Tensor:
    return made(name, np.stack(a).astype(np_type(name, dtype, dtypes.int64)), options)


@public(method=False)
def tril_indices(row: int, col: int, offset: int = 0, *, dtype: Any = None, **options: Any) -> Tensor:
    """Indices (2, n) of the lower triangle of a ``row`` by ``col`` matrix."""
    return _triangle("tril_indices", np.tril_indices(row, offset, col), dtype, options)


@public(method=False)
def triu_indices(row: int, col: int, offset: int = 0, *, dtype: Any = None, **options: Any) -> Tensor:
    """Indices (2, n) of the upper triangle of a ``row`` by ``col`` matrix."""
    return _triangle("triu_indices", np.triu_indices(row, offset, col), dtype, options)


# ---- from tensors -------------------------------------------------------------------------------------------------------------------------
@public(method=False)
def meshgrid(*tensors: Any, indexing: str | None = None) -> tuple[Tensor, ...]:
    """Each vector expanded over the grid of all of them, as views."""
    ts: Sequence[Tensor] = tensors[0] if len(tensors) == 1 and isinstance(tensors[0], (tuple, list)) else tensors
    if indexing is None:
        warnings.warn(
            "torch.meshgrid: in an upcoming release, it will be required to pass the indexing argument.",
            UserWarning,
            stacklevel=2,
        )
        indexing = "ij"
    if indexing not in ("ij", "xy"):
        raise error(RuntimeError, f'torch.meshgrid: indexing must be one of "xy" or "ij", but received: {indexing}')
    if not ts:
        raise error(RuntimeError, "meshgrid expects a non-empty TensorList")
    for t in ts:
        if t._a.ndim > 1:
            raise error(RuntimeError, f"torch.meshgrid: Expected 0D or 1D tensor in the tensor list but got: {list(t._a.shape)}")
        if t._a.dtype != ts[0]._a.dtype:
            raise error(RuntimeError, "torch.meshgrid expects all tensors to have the same dtype")
    swap = indexing == "xy" and len(ts) >= 2
    if swap:
        ts = (ts[1], ts[0], *ts[2:])
    shape = tuple([t._a.size for t in ts])
    grids = []
    for i, t in enumerate(ts):
        grids.append(t.view((1,) * i + (-1,) + (1,) * (len(ts) - i - 1)).expand(shape))
    if swap:
        grids = [grids[1], grids[0], *grids[2:]]
    return tuple(grids)


@public(method=False)
def cartesian_prod(*tensors: Tensor) -> Tensor:
    """Every choice of one entry from each vector: (n1 n2 ..., number of vectors)."""
    if len(tensors) == 1:
        return tensors[0]
    from .joining import stack

    return stack([g.flatten() for g in meshgrid(*tensors, indexing="ij")], 1)


@public
def combinations(input: Tensor, r: int = 2, with_replacement: bool = False) -> Tensor:
    """Every choice of ``r`` entries of a vector, in order."""
    if input._a.ndim != 1:
        raise error(RuntimeError, f"Expect a 1D vector, but got shape {list(input._a.shape)}")
    if r < 0:
        raise error(RuntimeError, f"Expect a non-negative number, but got {r}")
    from itertools import combinations as choose
    from itertools import combinations_with_replacement as choose_again

    n = input._a.size
    rows = list((choose_again if with_replacement else choose)(range(n), r))
    if not r or not rows:
        return wrap(np.empty((0, r) if r else (0,), input._a.dtype))
    return input[wrap(np.array(rows, np.int64))]


def _complex_kernel(real: Any, imag: Any) -> Any:
    out = np.empty(np.broadcast_shapes(real.shape, imag.shape), np.complex128 if real.dtype == np.float64 else np.complex64)
    out.real, out.imag = real, imag
    return out


_complex = primitive(
    "complex",
    node="ComplexBackward0",
    vjp={
        "real": lambda g, real_shape: reduce_to(g.real, real_shape),
        "imag": lambda g, imag_shape: reduce_to(g.imag, imag_shape),
    },
    jvp="linear",
    batch=lambda b, real, imag: _complex(*b.aligned(real=real, imag=imag)),
)(_complex_kernel)


@public(method=False, out=True)
def complex__(real: Tensor, imag: Tensor) -> Tensor:
    """``real + i imag``."""
    if real._a.dtype.name not in ("float16", "float32", "float64") or imag._a.dtype.name not in ("float16", "float32", "float64"):
        raise error(
            RuntimeError,
            f"Expected both inputs to be Half, Float or Double tensors but got {SCALAR_NAMES[real.dtype]} and {SCALAR_NAMES[imag.dtype]}",
        )
    if real._a.dtype != imag._a.dtype:
        raise error(
            RuntimeError,
            f"Expected object of scalar type {SCALAR_NAMES[real.dtype]} but got scalar type {SCALAR_NAMES[imag.dtype]} for second argument",
        )
    return _complex(real, imag)


@public(method=False, out=True)
def polar(abs: Tensor, angle: Tensor) -> Tensor:
    """``abs (cos angle + i sin angle)``."""
    return complex__(abs * angle.cos(), abs * angle.sin())


@public
def vander(x: Tensor, N: int | None = None, increasing: bool = False) -> Tensor:
    """Powers of the entries of a vector, in columns."""
    from .joining import stack

    n = x._a.shape[0] if N is None else N
    if not n:
        return wrap(np.empty((x._a.shape[0], 0), x._a.dtype))
    powers = range(n) if increasing else range(n - 1, -1, -1)
    return stack([x**p for p in powers], 1)


# ---- windows --------------------------------------------------------------------------------------------------------------------------------
def _window(name: str, n: int, periodic: bool, dtype: Any, options: Any, shape: Any) -> Tensor:
    """A window of ``n`` points; a periodic one is a symmetric one of one point more, without the last."""
    nt = np_type(name, dtype)
    if nt.kind not in "fV":
        raise error(RuntimeError, f"{name} expects floating point dtypes, got: {FROM_NP[nt]}")
    if n < 0:
        raise error(RuntimeError, f"{name} requires non-negative window_length, got window_length={n}")
    if n <= 1:
        return made(name, np.ones(n, nt), options)
    points = n + 1 if periodic else n
    work = np.float64 if nt == np.float64 else np.float32
    return made(name, cast(shape(np.arange(points).astype(work), points, work)[:n], nt), options)


def _cosine(alpha: float, beta: float) -> Any:
    return lambda i, n, w: np.cos(i * w(2 * math.pi / (n - 1))) * w(-beta) + w(alpha)


@public(method=False)
def hann_window(window_length: int, periodic: bool = True, *, dtype: Any = None, **options: Any) -> Tensor:
    """``(1 - cos(2πi / (N - 1))) / 2``."""
    return _window("hann_window", window_length, periodic, dtype, options, _cosine(0.5, 0.5))


@public(method=False)
def hamming_window(
    window_length: int, periodic: bool = True, alpha: float = 0.54, beta: float = 0.46, *, dtype: Any = None, **options: Any
) -> Tensor:
    """``alpha - beta cos(2πi / (N - 1))``."""
    return _window("hamming_window", window_length, periodic, dtype, options, _cosine(alpha, beta))


@public(method=False)
def blackman_window(window_length: int, periodic: bool = True, *, dtype: Any = None, **options: Any) -> Tensor:
    """``0.42 - 0.5 cos(2πi / (N - 1)) + 0.08 cos(4πi / (N - 1))``."""

    def shape(i: Any, n: int, w: Any) -> Any:
        x = i * w(math.pi / (n - 1))
        return np.cos(x * 4) * w(0.08) - np.cos(x * 2) * w(0.5) + w(0.42)

    return _window("blackman_window", window_length, periodic, dtype, options, shape)


@public(method=False)
def bartlett_window(window_length: int, periodic: bool = True, *, dtype: Any = None, **options: Any) -> Tensor:
    """``1 - |2i / (N - 1) - 1|``."""

    def shape(i: Any, n: int, w: Any) -> Any:
        x = i * w(2 / (n - 1))
        x[((n - 1) >> 1) + 1 :] = 2 - x[((n - 1) >> 1) + 1 :]
        return x

    return _window("bartlett_window", window_length, periodic, dtype, options, shape)


@public(method=False)
def kaiser_window(
    window_length: int, periodic: bool = True, beta: float = 12.0, *, dtype: Any = None, **options: Any
) -> Tensor:
    """``I0(beta sqrt(1 - (2i / (N - 1) - 1)²)) / I0(beta)``."""

    def shape(i: Any, n: int, w: Any) -> Any:
        x = 2.0 * i.astype(np.float64) / (n - 1) - 1
        return (np.i0(beta * np.sqrt(np.maximum(1 - x * x, 0))) / np.i0(beta)).astype(w)

    return _window("kaiser_window", window_length, periodic, dtype, options, shape)


# ---- defaults ----------------------------------------------------------------------------------------------------------------------------------
@public(method=False)
def get_default_device() -> Any:
    """The CPU."""
    return check_device(None)


@public(method=False)
def set_default_device(device: Any) -> None:
    """Accepts the CPU."""
    check_device(device)


@public(method=False)
def set_default_tensor_type(t: Any) -> None:
    """``set_default_dtype`` by a legacy type."""
    from .convert import dtype_of_type

    dtypes.set_default_dtype(dtype_of_type(t))
