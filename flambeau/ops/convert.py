"""Tensors and the world around them: dtypes, copies, Python numbers, NumPy, DLPack, storages."""

from __future__ import annotations

import mmap
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..autograd import forbidden
from ..autograd import inplace as ip
from ..autograd.primitive import Primitive, primitive
from ..core import dtypes
from ..core.device import check_device, device
from ..core.dtypes import ALIASES, BY_NAME, COMPLEX, FLOAT, FROM_NP, SCALAR_NAMES, dtype
from ..core.errors import error, user_level
from ..core.modes import Modes, is_grad_enabled, is_inference_mode_enabled, mode
from ..core.size import Size
from ..core.tensor import (
    _CHANNELS_LAST,
    InferenceCounter,
    Tensor,
    address,
    channels_last,
    channels_last_3d,
    contiguous_format,
    keep_layout,
    memory_format,
    new_tensor,
    preserve_format,
    storage_array,
    wrap,
)
from .public import public

# ---- casting and copying arrays --------------------------------------------------------------------------------------
_QUIET: dict[Any, bool] = {}


def cast(a: np.ndarray, to: Any, order: str = "K") -> np.ndarray:
    """A copy of ``a`` as another dtype, cast as C does: no warning for what overflows, the real part of a complex."""
    key = (a.dtype, to)
    quiet = _QUIET.get(key)
    if quiet is None:
        quiet = _QUIET[key] = a.dtype == to or np.can_cast(a.dtype, to, "safe")
    if quiet:
        return a.astype(to, order=order)
    if a.dtype.kind == "c" and np.dtype(to).kind not in "cb":
        a = a.real
    with np.errstate(all="ignore"):
        if a.dtype.kind == "f" and np.dtype(to).kind == "u":  # by way of the signed type: -1.0 is 255
            return a.astype(np.int64, order=order).astype(to, order=order)
        return a.astype(to, order=order)


def copied(a: np.ndarray, to: Any, fmt: Any) -> np.ndarray:
    """A copy of ``a`` as ``to`` in a memory format."""
    if fmt is None or fmt is preserve_format:
        return cast(a, to, "C" if 0 in a.strides else "K")
    if fmt is contiguous_format:
        return cast(a, to, "C")
    order = _CHANNELS_LAST[fmt]
    inverse = np.argsort(order)
    return cast(a.transpose(order), to, "C").transpose(inverse)


def check_format(t: Tensor, fmt: Any) -> None:
    order = _CHANNELS_LAST.get(fmt)
    if order is not None and t._a.ndim != len(order):
        raise error(RuntimeError, f"required rank {len(order)} tensor to use {fmt.name} format")
    if fmt is not None and not isinstance(fmt, memory_format):
        raise error(TypeError, f"argument 'memory_format' must be torch.memory_format, not {type(fmt).__name__}")


def _plain(fmt: Any) -> Any:
    """A memory format is one of a whole image; with a batch before it there is none."""
    return fmt if fmt is contiguous_format else None


@primitive(
    "to_copy", vjp={"x": lambda g, x_dtype: fit_dtype(g, x_dtype)}, jvp="linear", batch=lambda b, x, to, fmt: to_copy(x, to, _plain(fmt))
)
def to_copy(x: Any, /, to: Any, fmt: Any) -> Any:
    return copied(x, to, fmt)


@primitive("clone", vjp={"x": lambda g: g}, jvp="linear", batch=lambda b, x, fmt: _clone(x, _plain(fmt)))
def _clone(x: Any, /, fmt: Any) -> Any:
    return x.copy("C" if 0 in x.strides else "K") if fmt is None else copied(x, x.dtype, fmt)


def fit_dtype(g: Tensor, d: dtype) -> Tensor:
    """A gradient as the dtype of what it belongs to: a real operand takes the real part."""
    return g if g.dtype is d else to_copy(g, d.np, None)


def like(t: Tensor, copy: Tensor, fmt: Any) -> Tensor:
    """A copy that kept its strides keeps it that they are the user's own."""
    if fmt is None and t.__dict__.get("_channels_last"):
        keep_layout(copy)
    return copy


def in_format(t: Tensor, fmt: Any) -> Tensor:
    if fmt in (channels_last, channels_last_3d):
        t.__dict__["_channels_last"] = True
    return t


# ---- to, type, float, ... ----------------------------------------------------------------------------------------------
@public(function=False, method=True)
def to(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """The tensor as another dtype, device or memory format: itself if nothing changes, unless ``copy=True``.

    ``to(dtype)``, ``to(device, dtype)``, ``to(other)``, each with ``non_blocking``, ``copy`` and ``memory_format``.

    >>> import flambeau as torch
    >>> torch.tensor([1.5]).to(torch.int64)
    tensor([1])
    """
    if len(args) == 1 and not kwargs and isinstance(args[0], dtype):
        d = args[0]
        return self if self._a.dtype == d.np else convert(self, d, None)
    dev, d, non_blocking, copy, fmt = parse_to(args, kwargs)
    del non_blocking  # there is one device: nothing could overlap
    check_device(dev)
    check_format(self, fmt)
    d = d or self.dtype
    same = d is self.dtype and (fmt is None or fmt is preserve_format or self.is_contiguous(fmt))
    return self if same and not copy else convert(self, d, fmt)


def convert(t: Tensor, d: dtype, fmt: Any) -> Tensor:
    if t._a.dtype.kind == "c" and d.category < COMPLEX and d.category != dtypes.BOOL:
        warnings.warn("Casting complex values to real discards the imaginary part", UserWarning, stacklevel=3)
    return like(t, in_format(to_copy(t, d.np, fmt), fmt), fmt)


def parse_to(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any, bool, bool, Any]:
    """(device, dtype, non_blocking, copy, memory format) of any overload of ``to``."""
    args_left = list(args)
    dev = d = None
    if args_left and isinstance(args_left[0], Tensor) or isinstance(kwargs.get("other"), Tensor):
        other = args_left.pop(0) if args_left else kwargs.pop("other")
        dev, d = other.device, other.dtype
    elif args_left and isinstance(args_left[0], dtype):
        d = args_left.pop(0)
    elif args_left and (args_left[0] is None or isinstance(args_left[0], (str, int, device))):
        dev = args_left.pop(0)
        if args_left and (args_left[0] is None or isinstance(args_left[0], dtype)):
            d = args_left.pop(0)
    names = ["non_blocking", "copy"]
    values: dict[str, Any] = dict(zip(names, args_left))
    if len(args_left) > 2 or any(not isinstance(v, bool) for v in values.values()):
        raise to_error(args, kwargs)
    for k, v in kwargs.items():
        if k == "device" and dev is None:
            dev = v
        elif k == "dtype" and d is None:
            d = v
        elif k in ("non_blocking", "copy", "memory_format") and k not in values:
            values[k] = v
        else:
            raise to_error(args, kwargs)
    if d is not None and not isinstance(d, dtype):
        raise to_error(args, kwargs)
    return dev, d, values.get("non_blocking", False), values.get("copy", False), values.get("memory_format")


def to_error(args: Any, kwargs: Any) -> BaseException:
    got = ", ".join([type(a).__name__ for a in args] + [f"{k}={type(v).__name__}" for k, v in kwargs.items()])
    return error(
        TypeError,
        f"to() received an invalid combination of arguments - got ({got}), but expected one of:\n"
        " * (torch.device device = None, torch.dtype dtype = None, bool non_blocking = False, bool copy = False, *, "
        "torch.memory_format memory_format = None)\n"
        " * (torch.dtype dtype, bool non_blocking = False, bool copy = False, *, torch.memory_format memory_format = None)\n"
        " * (Tensor tensor, bool non_blocking = False, bool copy = False, *, torch.memory_format memory_format = None)",
    )


def _dtype_method(name: str, d: dtype) -> None:
    def as_dtype(self: Tensor, memory_format: Any = None) -> Tensor:
        if memory_format is None:
            return self if self._a.dtype == d.np else convert(self, d, None)
        return to(self, d, memory_format=memory_format)

    as_dtype.__name__ = as_dtype.__qualname__ = name
    as_dtype.__doc__ = f"``self.to({d})``."
    setattr(Tensor, name, as_dtype)


for _name in ("half", "float", "double", "short", "int", "long", "cfloat", "cdouble"):
    _dtype_method(_name, ALIASES[_name])
for _name, _d in (("bool", "bool"), ("byte", "uint8"), ("char", "int8"), ("bfloat16", "bfloat16")):
    _dtype_method(_name, BY_NAME[_d])


@public(function=False, method=True)
def type__(self: Tensor, dtype: Any = None, non_blocking: bool = False, **kwargs: Any) -> Any:
    """Without a dtype the legacy name, as ``'torch.FloatTensor'``; with one ``self.to(dtype)``."""
    if dtype is None:
        return f"torch.{SCALAR_NAMES[self.dtype]}Tensor"
    return self.to(dtype_of_type(dtype))


def dtype_of_type(t: Any) -> dtype:
    """The dtype that a dtype, a legacy name or a legacy tensor type stands for."""
    if isinstance(t, dtype):
        return t
    d = getattr(t, "dtype", None)
    if isinstance(d, dtype):
        return d
    if isinstance(t, str):
        name = t.removeprefix("torch.").removesuffix("Tensor")
        for d, s in SCALAR_NAMES.items():
            if s == name:
                return d
    raise error(ValueError, f"invalid type: {t!r}")


@public(function=False, method=True)
def type_as(self: Tensor, other: Tensor) -> Tensor:
    """``self.to(other.dtype)``."""
    return self.to(other.dtype)


@public(function=False, method=True)
def cpu(self: Tensor, memory_format: Any = None) -> Tensor:
    """The tensor on the CPU: itself."""
    return self if memory_format is None else self.to(memory_format=memory_format)


@public(function=False, method=True)
def cuda(self: Tensor, device: Any = None, non_blocking: bool = False, memory_format: Any = None) -> Tensor:
    """AssertionError: there is no CUDA device."""
    check_device("cuda" if device is None else device)
    return self


@public(function=False, method=True)
def pin_memory(self: Tensor, device: Any = None) -> Tensor:
    """RuntimeError: pinned memory needs an accelerator."""
    raise error(RuntimeError, "Cannot access accelerator device when none is available.")


@public(function=False, method=True)
def is_pinned(self: Tensor, device: Any = None) -> bool:
    """False: there is no accelerator."""
    return False


# ---- what it is ---------------------------------------------------------------------------------------------------------
def _tensor_only(name: str, t: Any) -> Tensor:
    if not isinstance(t, Tensor):
        raise error(TypeError, f"{name}(): argument 'input' (position 1) must be Tensor, not {t.__class__.__name__}")
    return t


@public
def is_floating_point(input: Tensor) -> bool:
    """Whether the dtype is a floating one."""
    return _tensor_only("is_floating_point", input).dtype.category == FLOAT


@public
def is_complex(input: Tensor) -> bool:
    """Whether the dtype is a complex one."""
    return _tensor_only("is_complex", input)._a.dtype.kind == "c"


@public
def is_signed(input: Tensor) -> bool:
    """Whether the dtype has negative numbers."""
    return _tensor_only("is_signed", input).dtype.is_signed


@public(method=False)
def is_tensor(obj: Any) -> bool:
    """Whether ``obj`` is a Tensor."""
    return isinstance(obj, Tensor)


@public(names=("is_neg",), function=True)
def is_conj(input: Tensor) -> bool:
    """False: conjugation is done at once here, never by a flag."""
    return False


@public
def is_inference(input: Tensor) -> bool:
    """Whether the tensor was made in inference mode, so that it can take no part in a graph."""
    return forbidden.is_inference(input)


@public
def resolve_conj(input: Tensor) -> Tensor:
    """The tensor itself: conjugation is done at once here."""
    return input


@public
def resolve_neg(input: Tensor) -> Tensor:
    """The tensor itself: negation is done at once here."""
    return input


@public
def numel(input: Tensor) -> int:
    """The number of elements."""
    return _tensor_only("numel", input)._a.size


Tensor.nelement = numel


@public
def is_same_size(input: Tensor, other: Tensor) -> bool:
    """Whether the shapes are equal."""
    return input._a.shape == other._a.shape


@public(function=False, method=True)
def size(self: Tensor, dim: int | None = None) -> Any:
    """The shape, or one entry of it."""
    shape = self._a.shape
    if dim is None:
        return Size(shape)
    n = len(shape)
    if not -n <= dim < n:
        if not n:
            raise error(IndexError, f"Dimension specified as {dim} but tensor has no dimensions")
        raise error(IndexError, f"Dimension out of range (expected to be in range of [{-n}, {n - 1}], but got {dim})")
    return shape[dim]


@public(function=False, method=True, names=("ndimension",))
def dim(self: Tensor) -> int:
    """The number of dimensions."""
    return self._a.ndim


@public(function=False, method=True)
def element_size(self: Tensor) -> int:
    """Bytes of an element."""
    return self._a.itemsize


@public(function=False, method=True)
def get_device(self: Tensor) -> int:
    """-1: the CPU."""
    return -1


@public(function=False, method=True)
def is_set_to(self: Tensor, tensor: Tensor) -> bool:
    """Whether both are the same window of the same storage."""
    a, b = self._a, tensor._a
    return (
        storage_array(a) is storage_array(b)
        and a.shape == b.shape
        and a.strides == b.strides
        and address(a) == address(b)
        and a.dtype == b.dtype
    )


# ---- Python numbers ------------------------------------------------------------------------------------------------------
@public(function=False, method=True)
def item(self: Tensor) -> Any:
    """The one element as a Python number.

    >>> import flambeau as torch
    >>> torch.tensor([2.5]).item()
    2.5
    """
    a = self._a
    if a.size != 1:
        raise error(RuntimeError, f"a Tensor with {a.size} elements cannot be converted to Scalar")
    v = a.item()
    return v if a.dtype.kind != "V" else float(v)


@public(function=False, method=True)
def tolist(self: Tensor) -> Any:
    """The elements as Python numbers in nested lists; a number for a 0-d tensor."""
    a = self._a
    return (a.astype(np.float32) if a.dtype.kind == "V" else a).tolist()


def _bool(self: Tensor) -> bool:
    a = self._a
    if a.size == 1:
        return bool(a.item())
    if a.size:
        raise error(
            RuntimeError, "Boolean value of Tensor with more than one value is ambiguous", hint="Use .any() or .all()."
        )
    raise error(RuntimeError, "Boolean value of Tensor with no values is ambiguous")


def _index(self: Tensor) -> int:
    a = self._a
    if a.size != 1 or a.dtype.kind not in "biu":
        raise error(TypeError, "only integer tensors of a single element can be converted to an index")
    return int(a.item())


def _len(self: Tensor) -> int:
    shape = self._a.shape
    if not shape:
        raise error(TypeError, "len() of a 0-d tensor")
    return shape[0]


def _iter(self: Tensor) -> Iterator[Tensor]:
    if not self._a.ndim:
        raise error(TypeError, "iteration over a 0-d tensor")
    return iter(self.unbind(0))


def _reversed(self: Tensor) -> Tensor:
    return self if not self._a.ndim else self.flip(0)


def _contains(self: Tensor, element: Any) -> bool:
    if isinstance(element, Tensor):
        element = element._a
    elif not isinstance(element, (int, float, complex, np.number)):
        raise error(
            RuntimeError, f"Tensor.__contains__ only supports Tensor or scalar, but you passed in a {element.__class__}."
        )
    return bool((self._a == element).any())


def _format(self: Tensor, spec: str) -> str:
    if not self._a.ndim and self.__class__ is Tensor:
        return format(self.item(), spec)
    return object.__format__(self, spec)


Tensor.__bool__ = Tensor.__nonzero__ = _bool


_warned = False


def warn_of_lost_history(t: Tensor) -> None:
    """Say once that the number made of ``t``, which requires grad, has no part in the graph; not asked by ``int()`` and ``item()``."""
    global _warned
    if not _warned and t._rg and is_grad_enabled():
        _warned = True
        warnings.warn(
            "Converting a tensor with requires_grad=True to a scalar may lead to unexpected behavior.\n"
            "Consider using tensor.detach() first.",
            UserWarning,
            stacklevel=user_level(),
        )


def _number(self: Tensor, kind: Any) -> Any:
    if self._a.size != 1:
        raise error(ValueError, "only one element tensors can be converted to Python scalars")
    if kind is not int:
        warn_of_lost_history(self)
    return kind(self.item())


Tensor.__float__ = lambda self: _number(self, float)
Tensor.__int__ = Tensor.__long__ = lambda self: _number(self, int)
Tensor.__complex__ = lambda self: _number(self, complex)
Tensor.__index__ = _index
Tensor.__len__ = _len
Tensor.__iter__ = _iter
Tensor.__reversed__ = _reversed
Tensor.__contains__ = _contains
Tensor.__format__ = _format  # type: ignore[assignment]


# ---- NumPy and DLPack -----------------------------------------------------------------------------------------------------
@public(function=False, method=True)
def numpy(self: Tensor, *, force: bool = False) -> np.ndarray:
    """The values as a NumPy array that shares the memory.

    RuntimeError if the tensor requires grad (``force=True`` detaches it first).
    """
    if self._rg and not force and is_grad_enabled():
        raise error(
            RuntimeError, "Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() instead."
        )
    if self._a.dtype.kind == "V":
        raise error(TypeError, f"Got unsupported ScalarType {SCALAR_NAMES[self.dtype]}", hint="Use .float().numpy().")
    return self._viewable()


def _array(self: Tensor, dtype: Any = None, copy: Any = None) -> np.ndarray:
    a = numpy(self)
    if dtype is not None and a.dtype != dtype:
        return a.astype(dtype)
    return a.copy() if copy else a


def _array_wrap(self: Tensor, array: Any, context: Any = None, return_scalar: bool = False) -> Tensor:
    array = np.asarray(array)
    return wrap(array.astype(np.uint8) if array.dtype == bool else array)


Tensor.__array__ = _array
Tensor.__array_wrap__ = _array_wrap


@public(method=False)
def from_numpy(ndarray: np.ndarray) -> Tensor:
    """A tensor that shares the memory of an array.

    >>> import numpy as np, flambeau as torch
    >>> a = np.zeros(2); t = torch.from_numpy(a); a[0] = 3; t
    tensor([3., 0.], dtype=torch.float64)
    """
    if not isinstance(ndarray, np.ndarray):
        raise error(TypeError, f"expected np.ndarray (got {ndarray.__class__.__name__})")
    return shared(ndarray)


def shared(a: np.ndarray) -> Tensor:
    """A tensor on the memory of a NumPy array of the user's."""
    if any(s < 0 for s in a.strides):
        raise error(
            ValueError,
            "At least one stride in the given numpy array is negative, and tensors with negative strides are not currently "
            "supported. (You can probably work around this by making a copy of your array  with array.copy().) ",
        )
    if not a.dtype.isnative:
        raise error(
            ValueError,
            "given numpy array has byte order different from the native byte order. Conversion between byte orders is "
            "currently not supported.",
        )
    if a.dtype not in FROM_NP:
        raise error(TypeError, unsupported_array(a))
    if a.size and any(s % a.itemsize for s in a.strides):
        raise error(
            ValueError,
            "given numpy array strides not a multiple of the element byte size. Copy the numpy array to reallocate the memory.",
        )
    if not a.flags.writeable:
        warnings.warn(
            "The given NumPy array is not writable, and PyTorch does not support non-writable tensors. This means writing to "
            "this tensor will result in undefined behavior. You may want to copy the array to protect its data or make it "
            "writable before converting it to a tensor. This type of warning will be suppressed for the rest of this program.",
            UserWarning,
            stacklevel=3,
        )
    t = wrap(a if a.__class__ is np.ndarray else a.view(np.ndarray))
    keep_layout(t)
    return t


def unsupported_array(a: np.ndarray) -> str:
    try:
        dtypes.of_array(a)
    except TypeError as e:
        return str(e)
    return ""


def _dlpack(self: Tensor, *, stream: Any = None, max_version: Any = None, dl_device: Any = None, copy: Any = None) -> Any:
    if self._rg:
        raise error(BufferError, "Can't export tensors that require gradient, use tensor.detach()")
    a = self._viewable()
    if a.dtype.kind == "V":
        raise error(BufferError, f"{self.dtype} cannot be exported by DLPack here", hint="Use .float().")
    return a.__dlpack__(stream=stream)


Tensor.__dlpack__ = _dlpack
Tensor.__dlpack_device__ = lambda self: (1, 0)


class _Capsule:
    """A bare DLPack capsule as an object with the protocol's methods."""

    def __init__(self, capsule: Any) -> None:
        self.capsule = capsule

    def __dlpack__(self, **kwargs: Any) -> Any:
        return self.capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)


@public(method=False)
def from_dlpack(ext_tensor: Any) -> Tensor:
    """A tensor that shares the memory of any object with ``__dlpack__`` (or of a DLPack capsule)."""
    if isinstance(ext_tensor, Tensor):
        return ext_tensor._detached()
    source = ext_tensor if hasattr(ext_tensor, "__dlpack__") else _Capsule(ext_tensor)
    a = np.from_dlpack(source)
    t = wrap(a)
    keep_layout(t)
    return t


@public(method=False)
def to_dlpack(tensor: Tensor) -> Any:
    """A DLPack capsule of the tensor's memory."""
    return _dlpack(tensor)


# ---- copies and detaching --------------------------------------------------------------------------------------------------
@public
def clone(input: Tensor, *, memory_format: Any = None) -> Tensor:
    """A copy with memory of its own, through which gradients flow."""
    fmt = None if memory_format is preserve_format else memory_format
    if fmt is not None:
        check_format(input, fmt)
    return like(input, in_format(_clone(input, fmt), fmt), fmt)


def _copy_tensor(self: Tensor) -> Tensor:
    return self.clone()


@public(function=False, method=True)
def contiguous(self: Tensor, memory_format: Any = contiguous_format) -> Tensor:
    """The tensor in C order (or another memory format): itself if it is, else a copy."""
    check_format(self, memory_format)
    if memory_format is preserve_format:
        raise error(RuntimeError, "preserve memory format is unsupported by the contiguous operator")
    return self if self.is_contiguous(memory_format) else clone(self, memory_format=memory_format)


@public
def detach(input: Tensor) -> Tensor:
    """The same memory without history."""
    t = input._detached()
    if t._vc.__class__ is InferenceCounter and not is_inference_mode_enabled():
        t._vc = InferenceCounter(free=True)
    return t


@public
def detach_(input: Tensor) -> Tensor:
    """Forget the history, in place: the tensor becomes a leaf that requires no grad."""
    if input._base is not None:
        raise error(
            RuntimeError,
            "Can't detach views in-place. Use detach() instead. If you are using DistributedDataParallel (DDP) for training, "
            "and gradient_as_bucket_view is set as True, gradients are views of DDP buckets, and hence detach_() cannot be "
            "called on these gradients. To fix this error, please refer to the Optimizer.zero_grad() function in "
            "torch/optim/optimizer.py as the solution.",
        )
    if input._a.__class__ is not np.ndarray:  # inside vmap
        detach_(input._value)  # type: ignore[attr-defined]
    input._grad_fn, input._rg = None, False
    if input._nr:
        input._nr = 0
    if input._fw is not None:
        input._fw = None
    forbidden.follow_flag(input)
    return input


# ---- in-place writing -------------------------------------------------------------------------------------------------------
def recording(*tensors: Any) -> bool:
    """Whether an operator on these would be recorded."""
    m = mode()
    return (m is True or m is not False and m.grad) and any(t is not None and t._rg for t in tensors)


def rewrite(op: Primitive, t: Tensor, was: Tensor, others: tuple[Any, ...], params: tuple[Any, ...]) -> Tensor:
    """Count the change that was made to ``t``, and make ``op`` on (its former self, *others) its history."""
    ip.changed(t)
    if recording(was, *others):
        stand_in = new_tensor(Tensor)
        stand_in._a, stand_in._grad_fn, stand_in._rg = t._a, None, False
        tensors = (was, *others)
        op.record(tensors, (*tensors, *params), stand_in, None, (), mode())
        if stand_in._grad_fn is not None:
            ip.rebase(t, stand_in._grad_fn)
    m = mode()
    if m.__class__ is Modes and m.forward:
        from ..autograd.transforms.inplace_tangents import push_inplace

        push_inplace(op, t, (was, *others), params)
    return t


def _overwritten(x: Any, src: Any, /) -> Any:
    out = np.empty(x.shape, x.dtype)
    out[...] = src
    return out


def _to_source(g: Tensor, src_shape: tuple[int, ...], src_dtype: dtype) -> Tensor:
    return fit_dtype(reduce_to(g, src_shape), src_dtype)


def _to_nobody(g: Tensor, x_shape: tuple[int, ...]) -> Tensor:
    return wrap(np.zeros(x_shape, g._a.dtype))


# What a view was before gets its zeros from the history of its base; another tensor gets them here.
_copy = primitive("copy", node="CopyBackwards", vjp={"src": _to_source}, jvp=lambda src_t: src_t)(_overwritten)
_copy_over = primitive("copy_over", node="CopyBackwards", vjp={"x": _to_nobody, "src": _to_source}, jvp=lambda src_t: src_t)(_overwritten)


def reduce_to(g: Tensor, shape: tuple[int, ...]) -> Tensor:
    return g if g._a.shape == shape else g.sum_to_size(shape)


def assign(into: np.ndarray, values: np.ndarray) -> None:
    """``into[...] = values``, cast as C does."""
    if values.dtype != into.dtype and not np.can_cast(values.dtype, into.dtype, "safe"):
        values = cast(values, into.dtype)
    into[...] = values


@public(function=False, method=True)
def copy_(self: Tensor, src: Any, non_blocking: bool = False) -> Tensor:
    """Overwrite the tensor with ``src``, broadcast and cast to it."""
    if not isinstance(src, Tensor):
        raise error(TypeError, f"copy_(): argument 'other' (position 1) must be Tensor, not {src.__class__.__name__}")
    m = mode()
    if m.__class__ is Modes and m.batch:
        from ..autograd.transforms.batched import innermost
        from ..autograd.transforms.batching import write

        if innermost((self, src)) is not None:
            return write(self, src if src.dtype is self.dtype else to_copy(src, self.dtype.np, None))
    ip.check_writable(self, needs=src._rg)
    a, b = self._a, src._a
    if b.shape != a.shape:
        _check_expands(b.shape, a.shape)
    if a is b:
        ip.changed(self)
        return self
    was = ip.before(self)
    assign(a, b)
    return rewrite(_copy if self._base is not None else _copy_over, self, was, (src,), ())


def _check_expands(small: tuple[int, ...], large: tuple[int, ...]) -> None:
    n = max(len(small), len(large))
    for i in range(1, min(len(small), len(large)) + 1):
        if small[-i] != large[-i] and 1 not in (small[-i], large[-i]):
            d = n - i
            raise error(
                RuntimeError,
                f"The size of tensor a ({large[-i]}) must match the size of tensor b ({small[-i]}) at non-singleton dimension {d}",
                hint=f"A tensor of shape {list(small)} cannot be written into one of shape {list(large)}.",
            )
    both = np.broadcast_shapes(small, large)
    if both != large:
        raise error(RuntimeError, f"output with shape {list(large)} doesn't match the broadcast shape {list(both)}")


# ---- storages -----------------------------------------------------------------------------------------------------------------
class UntypedStorage:
    """The memory behind a tensor, as bytes."""

    def __init__(self, root: np.ndarray) -> None:
        self._root = root

    def nbytes(self) -> int:
        return self._root.nbytes

    def size(self) -> int:
        return self._root.nbytes

    def __len__(self) -> int:
        return self._root.nbytes

    def data_ptr(self) -> int:
        return address(self._root)

    def element_size(self) -> int:
        return 1

    def _bytes(self) -> np.ndarray:
        r = self._root
        return r.ravel(order="A").view(np.uint8) if r.flags.forc else np.frombuffer(r.tobytes(), np.uint8)

    def tolist(self) -> list[int]:
        return self._bytes().tolist()

    def __getitem__(self, i: Any) -> Any:
        r = self._bytes()[i]
        return r.tolist() if isinstance(r, np.generic) else UntypedStorage(r)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, UntypedStorage) and other.data_ptr() == self.data_ptr()

    def __hash__(self) -> int:
        return self.data_ptr()

    @property
    def device(self) -> device:
        return device("cpu")

    @property
    def _cdata(self) -> int:
        return id(self._root)

    def is_shared(self) -> bool:
        return _is_shared(self._root)


class TypedStorage:
    """The memory behind a tensor, as elements of its dtype."""

    def __init__(self, root: np.ndarray, dtype: dtype) -> None:
        self._root, self.dtype = root, dtype

    def size(self) -> int:
        return self._root.nbytes // self.dtype.itemsize

    __len__ = size

    def nbytes(self) -> int:
        return self._root.nbytes

    def element_size(self) -> int:
        return self.dtype.itemsize

    def data_ptr(self) -> int:
        return address(self._root)

    def untyped(self) -> UntypedStorage:
        return UntypedStorage(self._root)

    def tolist(self) -> list[Any]:
        return tolist(wrap(self.untyped()._bytes().view(self.dtype.np)))

    def __getitem__(self, i: Any) -> Any:
        return self.tolist()[i]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.tolist())


@public(function=False, method=True)
def untyped_storage(self: Tensor) -> UntypedStorage:
    """The memory behind the tensor, as bytes."""
    return UntypedStorage(storage_array(self._viewable()))


@public(function=False, method=True)
def storage(self: Tensor) -> TypedStorage:
    """The memory behind the tensor, as elements."""
    return TypedStorage(storage_array(self._viewable()), self.dtype)


def storage_type(self: Tensor) -> Any:
    """The class of ``storage()``."""
    return TypedStorage


def window(root: np.ndarray, dt: np.dtype, shape: Any, strides: Any, offset: int) -> np.ndarray:
    """The array of a shape, strides and offset (in elements) on the memory of ``root``; RuntimeError if it is too small."""
    shape = tuple(shape)
    size = dt.itemsize
    span = 0 if 0 in shape else offset + 1 + sum((n - 1) * s for n, s in zip(shape, strides))
    if span * size > root.nbytes:
        raise error(
            RuntimeError,
            f"setStorage: sizes {list(shape)}, strides {list(strides)}, storage offset {offset}, and itemsize {size} requiring "
            f"a storage size of {span * size} are out of bounds for storage of size {root.nbytes}",
        )
    strides = tuple(s * size for s in strides)
    if 0 in shape:
        return np.ndarray(shape, dt, root, 0, strides) if root.nbytes else np.empty(shape, dt)
    return np.ndarray(shape, dt, root, offset * size, strides)


def storage_offset(a: np.ndarray, root: np.ndarray) -> int:
    return (address(a) - address(root)) // a.itemsize


@public(function=False, method=True)
def set_(
    self: Tensor, source: Any = None, storage_offset: int = 0, size: Any = None, stride: Any = None
) -> Tensor:
    """Make the tensor a window of another one's memory (or of a storage's); without a source, empty it."""
    ip.check_writable(self)
    if self._fw is not None and self._fw.by_level:
        raise error(
            NotImplementedError,
            "Trying to use forward AD with set_ that does not support it because it has not been implemented yet.",
        )
    if source is None:
        a = np.empty(0, self._a.dtype)
    elif isinstance(source, Tensor) and size is None:
        if source._a.dtype != self._a.dtype:
            raise error(
                RuntimeError,
                f"Could not set tensor of type {dtypes.C_NAMES[source.dtype]} to a tensor of type {dtypes.C_NAMES[self.dtype]}",
            )
        a = source._viewable()
    else:
        root = storage_array(source._viewable()) if isinstance(source, Tensor) else source._root
        if size is None:
            size = (root.nbytes // self._a.itemsize,)
        size = tuple(size)
        from ..core.tensor import contiguous_strides

        a = window(root, self._a.dtype, size, contiguous_strides(size) if stride is None else tuple(stride), storage_offset)
    self._a = a
    keep_layout(self)
    ip.changed(self)
    if recording(self):
        ip.rebase(self, ip.NotImplementedNode("set_", self))
    return self


@public(function=False, method=True)
def resize_(self: Tensor, *sizes: Any, memory_format: Any = None) -> Tensor:
    """Change the shape in place; the memory grows if it is too small, and new elements are not initialised."""
    shape = tuple(int(n) for n in (sizes[0] if len(sizes) == 1 and not isinstance(sizes[0], int) else sizes))
    if self._rg:
        raise error(RuntimeError, "cannot resize variables that require grad")
    if self._fw is not None and self._fw.by_level:
        raise error(RuntimeError, "cannot resize variables that has a forward grad")
    ip.check_inference_write(self)
    if any(n < 0 for n in shape):
        raise error(RuntimeError, f"Trying to create tensor with negative dimension {min(shape)}: {list(shape)}")
    if memory_format is not None:
        check_format(self, memory_format)
    a = self._viewable()
    if a.shape == shape:
        return self
    from ..core.tensor import contiguous_strides

    root = storage_array(a)
    offset = storage_offset(a, root)
    needed = (offset + int(np.prod(shape, dtype=object))) * a.itemsize
    if 0 not in shape and needed > root.nbytes:
        grown = np.empty(needed, np.uint8)
        old = root.ravel(order="K").view(np.uint8)
        grown[: old.size] = old
        root = grown
    self._a = window(root, a.dtype, shape, contiguous_strides(shape), offset)
    ip.changed(self)
    return self


@public(function=False, method=True)
def resize_as_(self: Tensor, tensor: Tensor, memory_format: Any = None) -> Tensor:
    """``self.resize_(tensor.shape)``."""
    return self.resize_(tensor._a.shape, memory_format=memory_format)


def _is_shared(root: np.ndarray) -> bool:
    b = root.base
    while isinstance(b, (np.ndarray, memoryview)):
        b = b.base if isinstance(b, np.ndarray) else b.obj
    return isinstance(b, mmap.mmap)


@public(function=False, method=True)
def is_shared(self: Tensor) -> bool:
    """Whether the memory is shared with processes forked from this one."""
    return _is_shared(storage_array(self._a))


@public(function=False, method=True)
def share_memory_(self: Tensor) -> Tensor:
    """Move the values to memory that processes forked from here on share.

    A view shares with its base: call it on the base.
    """
    if is_shared(self) or not self._a.size:
        return self
    if self._base is not None:
        raise error(NotImplementedError, "share_memory_() on a view", hint="Call it on the tensor that the view is of.")
    old = self._viewable()
    root = storage_array(old)
    fresh = np.frombuffer(mmap.mmap(-1, root.nbytes), np.uint8)
    fresh[:] = root.ravel(order="K").view(np.uint8)

    def moved(a: np.ndarray) -> np.ndarray:
        return np.ndarray(a.shape, a.dtype, fresh, address(a) - address(root), a.strides)

    for ref in self._views or ():
        v = ref()
        if v is not None:
            v._a = moved(v._a)
    self._a = moved(old)
    return self


# ---- element by element in Python -----------------------------------------------------------------------------------------------
@public(function=False, method=True)
def apply_(self: Tensor, callable: Any) -> Tensor:
    """Replace each element by ``callable(element)``, in Python: slow."""
    ip.check_writable(self)
    if self._rg:
        raise error(RuntimeError, "Can't call apply_() on Variable that requires grad. Use var.detach().apply_() instead.")
    flat = [callable(v) for v in self.reshape(-1).tolist()]
    self._a[...] = np.array(flat).astype(self._a.dtype).reshape(self._a.shape)
    ip.changed(self)
    return self


@public(function=False, method=True)
def map_(self: Tensor, tensor: Tensor, callable: Any) -> Tensor:
    """Replace each element by ``callable(element, element of tensor)``, in Python: slow."""
    ip.check_writable(self)
    if self._rg or tensor._rg:
        raise error(RuntimeError, "Can't call map_() on Variable that requires grad. Use var.detach().map_() instead.")
    other = np.broadcast_to(tensor._a, self._a.shape)
    flat = [callable(v, w) for v, w in zip(self._a.ravel().tolist(), other.ravel().tolist())]
    self._a[...] = np.array(flat).astype(self._a.dtype).reshape(self._a.shape)
    ip.changed(self)
    return self


Tensor.__copy__ = lambda self: _shallow(self)


def _shallow(t: Tensor) -> Tensor:
    """What ``copy.copy`` gives: another leaf on the same memory."""
    c = new_tensor(t.__class__)
    c.__dict__.update({k: v for k, v in t.__dict__.items() if k not in ("_acc", "_hooks", "_views")})
    c._a, c._grad_fn, c._rg, c._vc = t._viewable(), t._grad_fn, t._rg, t._counter()
    return c


