"""The Tensor: a NumPy array, its place in the graph, and its history of views and in-place changes.

Fields (operators read them directly; users see the properties):

==============  ====================================================================================================
``_a``          the values: an ``ndarray``, never a NumPy scalar. A view's array is a NumPy view of its base's
``_grad_fn``    the node that made it, or None (a leaf, or a constant)
``_rg``         whether gradients flow into it
``_nr``         which output of ``_grad_fn`` it is
``_vc``         version counter, ``[n]``, shared by all who share the storage; None as long as nobody counted
``_base``       for a view, the tensor that owns the storage
``_views``      for a base, weak references to its views: an in-place change gives them a new history at once
``_grad``       accumulated gradient of a leaf
``_acc``        weak reference to its AccumulateGrad node (which holds the tensor strongly)
``_hooks``      dict of gradient hooks
``_fw``         its tangents in forward mode, by dual level
==============  ====================================================================================================

The first three are slots, set on every tensor. The others are class attributes until somebody sets them.
Operators are attached as methods by ``flambeau.ops``.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from . import dtypes
from .device import CPU, device
from .dtypes import FROM_NP, dtype
from .errors import error
from .modes import Modes, is_inference_mode_enabled, mode
from .size import Size

ndarray = np.ndarray
asarray = np.asarray


LEAVES_ONLY = "you can only change requires_grad flags of leaf variables."
DETACH_INSTEAD = (
    " If you want to use a computed variable in a subgraph that doesn't require differentiation use var_no_grad = var.detach()."
)


class TensorMeta(type):
    """Lets ``isinstance(x, torch.FloatTensor)``-like classes and Parameter share Tensor's machinery."""

    if TYPE_CHECKING:  # the methods that operators attach

        def __getattr__(cls, name: str) -> Any: ...
        def __setattr__(cls, name: str, value: Any) -> None: ...


class InferenceCounter(list[Any]):
    """The version counter of an inference tensor: counts nothing, and is not zero, so that who looks at versions stops."""

    def __init__(self, free: bool = False) -> None:
        super().__init__((1,))
        self.free = free  # whether changes in place are allowed outside inference mode, as of ``.data``


class Tensor(metaclass=TensorMeta):
    """A multi-dimensional array that records what is done to it.

    Made by ``flambeau.tensor`` and the other factory functions; ``Tensor(2, 3)`` and ``Tensor([1, 2])`` are
    PyTorch's legacy constructors.
    """

    __slots__ = ("_a", "_grad_fn", "_rg", "__dict__", "__weakref__")
    _a: np.ndarray
    _grad_fn: Any
    _rg: bool
    _nr: int = 0
    _vc: list[Any] | None = None  # the count and, after an in-place change, where it was made
    _base: Tensor | None = None
    _view_kind: str | None = None  # "multi" (split, unbind, ...), "no_grad": views that in-place changes must refuse
    _views: list[Any] | None = None
    _grad: Tensor | None = None
    _grad_dtype: Any = "same"  # that .grad must have: a dtype, None (any), or "same" as the tensor's
    _acc: Any = None
    _hooks: dict[int, Any] | None = None
    _post_hooks: dict[int, Any] | None = None
    _retains: bool | None = None  # whether a tensor that is no leaf keeps its gradient
    _fw: Any = None  # tangents of forward mode, by dual level

    __array_priority__ = 1000

    if TYPE_CHECKING:  # likewise

        def __getattr__(self, name: str) -> Any: ...
        def __add__(self, other: Any) -> Tensor: ...
        def __radd__(self, other: Any) -> Tensor: ...
        def __sub__(self, other: Any) -> Tensor: ...
        def __rsub__(self, other: Any) -> Tensor: ...
        def __mul__(self, other: Any) -> Tensor: ...
        def __rmul__(self, other: Any) -> Tensor: ...
        def __truediv__(self, other: Any) -> Tensor: ...
        def __rtruediv__(self, other: Any) -> Tensor: ...
        def __pow__(self, other: Any) -> Tensor: ...
        def __matmul__(self, other: Any) -> Tensor: ...
        def __neg__(self) -> Tensor: ...
        def __lt__(self, other: Any) -> Tensor: ...
        def __le__(self, other: Any) -> Tensor: ...
        def __gt__(self, other: Any) -> Tensor: ...
        def __ge__(self, other: Any) -> Tensor: ...
        def __and__(self, other: Any) -> Tensor: ...
        def __or__(self, other: Any) -> Tensor: ...
        def __invert__(self) -> Tensor: ...
        def __getitem__(self, index: Any) -> Tensor: ...
        def __setitem__(self, index: Any, value: Any) -> None: ...
        def __len__(self) -> int: ...
        def __iter__(self) -> Any: ...
        def __float__(self) -> float: ...
        def __int__(self) -> int: ...
        def __index__(self) -> int: ...

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        return legacy_constructor(cls, args, kwargs)

    # ---- what it is -------------------------------------------------------------------------------------------
    @property
    def shape(self) -> Size:
        return Size(self._a.shape)

    @property
    def dtype(self) -> dtype:
        return FROM_NP[self._a.dtype]

    @property
    def device(self) -> device:
        return CPU

    @property
    def ndim(self) -> int:
        return self._a.ndim

    @property
    def itemsize(self) -> int:
        return self._a.itemsize

    @property
    def nbytes(self) -> int:
        return self._a.size * self._a.itemsize

    @property
    def layout(self) -> Any:
        return strided

    @property
    def is_cuda(self) -> bool:
        return False

    is_cpu = property(lambda self: True)
    is_sparse = property(lambda self: False)
    is_sparse_csr = property(lambda self: False)
    is_quantized = property(lambda self: False)
    is_mkldnn = property(lambda self: False)
    is_meta = property(lambda self: False)
    is_mps = property(lambda self: False)
    is_xpu = property(lambda self: False)
    is_nested = property(lambda self: False)
    names = property(lambda self: (None,) * self._a.ndim)

    # ---- its place in the graph -------------------------------------------------------------------------------
    @property
    def requires_grad(self) -> bool:
        return self._rg

    @requires_grad.setter
    def requires_grad(self, flag: bool) -> None:
        if not isinstance(flag, (bool, np.bool_)):
            raise error(RuntimeError, "requires_grad must be a bool")
        if self._grad_fn is not None:
            raise error(RuntimeError, LEAVES_ONLY if flag else LEAVES_ONLY + DETACH_INSTEAD)
        self.requires_grad_(flag)

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Set in place whether gradients are recorded for this leaf; returns it.

        Raises RuntimeError for a tensor that was computed, unless the flag is True, and for integers.
        """
        if not isinstance(requires_grad, (bool, np.bool_)):
            raise error(
                TypeError, f"requires_grad_(): argument 'requires_grad' (position 1) must be bool, not {type(requires_grad).__name__}"
            )
        flag = bool(requires_grad)
        if self._grad_fn is not None:
            if not flag:
                raise error(RuntimeError, LEAVES_ONLY + DETACH_INSTEAD)
            return self
        if flag and self._a.dtype.kind not in "fc" and self.dtype.category < dtypes.FLOAT:
            raise error(
                RuntimeError,
                "only Tensors of floating point dtype can require gradients",
                hint=f"This one is {self.dtype}: make it floating first, as with .float().",
            )
        if flag and self._vc.__class__ is InferenceCounter and not is_inference_mode_enabled():
            raise error(
                RuntimeError,
                "Setting requires_grad=True on inference tensor outside InferenceMode is not allowed.",
                hint="It was made under `torch.inference_mode()`: use its clone().",
            )
        self._rg = flag
        for ref in self._views or ():  # a view of a leaf requires grad as it does
            v = ref()
            if v is not None and v._grad_fn is None and v._a.dtype.kind not in "biu":
                v._rg = flag
        return self

    @property
    def is_leaf(self) -> bool:
        return not self._rg or self.grad_fn is None

    @property
    def grad_fn(self) -> Any:
        if self._nr:  # asking a forbidden view raises
            pass
        return self._grad_fn

    @property
    def output_nr(self) -> int:
        return self._nr

    @property
    def _version(self) -> int:
        vc = self._vc
        if vc.__class__ is InferenceCounter:
            raise error(RuntimeError, "Inference tensors do not track version counter.", hint="It was made under `torch.inference_mode()`.")
        return 0 if vc is None else vc[0]

    @property
    def grad(self) -> Tensor | None:
        """The accumulated gradient, or None."""
        g = self._grad
        if g is None and self._grad_fn is not None and self._retains is None:
            _warn_non_leaf_grad()
        return g

    @grad.setter
    def grad(self, g: Tensor | None) -> None:
        if g is not None:
            check_grad_assignment(self, g)
        self._grad = g

    @grad.deleter
    def grad(self) -> None:
        self._grad = None

    # ---- storage ----------------------------------------------------------------------------------------------
    def _bump(self) -> None:
        """Count an in-place change; where it was made is not noted."""
        vc = self._vc
        if vc is None:
            self._vc = [1]
        else:
            vc[0] += 1
            if len(vc) > 1:
                vc[1] = None

    def _counter(self) -> list[int]:
        vc = self._vc
        if vc is None:
            vc = self._vc = [0]
        return vc

    def _viewable(self) -> np.ndarray:
        """The values in PyTorch's default order, ready to be viewed.

        Convolutions and what follows them keep images channels-last while nobody looks; a view would see it, so
        such an array is re-laid here, in this tensor's own storage.
        """
        a = self._a
        if a.ndim > 3 and is_private_layout(self):
            a = self._a = np.ascontiguousarray(a)
        return a

    def _everything(self) -> np.ndarray:
        """The array behind it, for checks of values: inside vmap that of the whole batch."""
        return self._a

    def _detached(self) -> Tensor:
        """The same storage and version counter, without history."""
        t = new_tensor(Tensor)
        t._a = self._viewable()
        t._grad_fn = None
        t._rg = False
        t._vc = self._counter()
        keep_layout(t)
        return t

    @staticmethod
    def _make_subclass(cls: type, data: Tensor, require_grad: bool = False) -> Any:
        """A leaf of a subclass on the same storage, as Parameter needs."""
        if require_grad and data._a.dtype.kind not in "fc" and data.dtype.category < dtypes.FLOAT:
            raise error(
                RuntimeError,
                "Only Tensors of floating point and complex dtype can require gradients",
                hint=f"This one is {data.dtype}: make it floating first, or pass requires_grad=False.",
            )
        t = new_tensor(cls)
        t._a = data._viewable()
        t._grad_fn = None
        t._rg = False
        t._vc = data._counter()
        keep_layout(t)
        return t.requires_grad_(require_grad) if require_grad else t

    @property
    def data(self) -> Tensor:
        t = new_tensor(type(self) if type(self) is Tensor else Tensor)
        t._a = self._viewable()
        t._grad_fn = None
        t._rg = False
        if self._vc.__class__ is InferenceCounter:
            t._vc = InferenceCounter(free=True)
        keep_layout(t)
        return t

    @data.setter
    def data(self, other: Tensor) -> None:
        if not isinstance(other, Tensor):
            raise error(TypeError, f"Variable data has to be a tensor, but got {type(other).__name__}")
        if self._rg and other.dtype.category < dtypes.FLOAT:
            raise error(RuntimeError, "data set to a tensor that requires gradients must be floating point or complex dtype")
        self._a = other._viewable()
        if other._vc.__class__ is InferenceCounter:
            self._vc = InferenceCounter()
        keep_layout(self)

    def stride(self, dim: int | None = None) -> Any:
        """Steps between neighbours, in elements: a tuple, or one of them."""
        s = element_strides(self)
        if dim is None:
            return s
        if not -len(s) <= dim < max(len(s), 1):
            raise error(IndexError, f"Dimension out of range (expected to be in range of [{-len(s)}, {len(s) - 1}], but got {dim})")
        return s[dim]

    def storage_offset(self) -> int:
        a = self._viewable()
        return (address(a) - address(storage_array(a))) // a.itemsize

    def data_ptr(self) -> int:
        a = self._viewable()
        return address(a) if a.size else 0

    def is_contiguous(self, memory_format: Any = None) -> bool:
        if memory_format is None or memory_format is contiguous_format:
            return self._a.flags.c_contiguous or is_private_layout(self)
        order = _CHANNELS_LAST.get(memory_format)
        if order is None:
            raise error(NotImplementedError, f"is_contiguous(memory_format={memory_format})")
        return self._a.ndim == len(order) and self._a.transpose(order).flags.c_contiguous

    def __reduce_ex__(self, protocol: Any) -> Any:
        from .pickling import reduce_tensor

        return reduce_tensor(self, protocol)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        from .pickling import deepcopy_tensor

        return deepcopy_tensor(self, memo)

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        from .printing import tensor_str

        return tensor_str(self)

    def __hash__(self) -> int:
        return id(self)

    def __dir__(self) -> Any:
        return [k for k in super().__dir__() if not k[:1].isdigit()]


new_tensor: Callable[[type], Any] = object.__new__


def wrap(a: Any) -> Tensor:
    """A plain tensor around an array (a NumPy scalar becomes a 0-d array)."""
    t = new_tensor(Tensor)
    t._a = a if a.__class__ is ndarray else asarray(a)
    t._grad_fn = None
    t._rg = False
    m = mode()
    if m.__class__ is Modes and m.inference:
        t._vc = InferenceCounter()
    return t


def address(a: np.ndarray) -> int:
    return a.__array_interface__["data"][0]


def storage_array(a: np.ndarray) -> np.ndarray:
    """The array that owns the memory of ``a``, as far as NumPy knows it."""
    while isinstance(a.base, ndarray):
        a = a.base
    return a


def is_private_layout(t: Tensor) -> bool:
    """Whether ``t`` is an image that a kernel laid out channels-last on its own account."""
    a = t._a
    if a.ndim < 4 or a.flags.c_contiguous or t._base is not None:
        return False
    laid = a.transpose(0, *range(2, a.ndim), 1).flags.c_contiguous
    if not laid and a.ndim > 4:  # a batch of images, inside vmap
        laid = a.transpose(0, 1, *range(3, a.ndim), 2).flags.c_contiguous
    return laid and not t.__dict__.get("_channels_last", False)


def keep_layout(t: Tensor) -> None:
    """Note that others share ``t._a`` with its strides: it must not be taken for a kernel's private image."""
    if t._a.ndim > 3 and not t._a.flags.c_contiguous:
        t.__dict__["_channels_last"] = True


def contiguous_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    out, step = [], 1
    for n in reversed(shape):
        out.append(step)
        step *= max(n, 1)
    return tuple(reversed(out))


def element_strides(t: Tensor) -> tuple[int, ...]:
    a = t._a
    if a.flags.c_contiguous and 0 in a.shape or is_private_layout(t):
        return contiguous_strides(a.shape)
    strides = [s // a.itemsize for s in a.strides]
    if 0 in strides:  # NumPy gives a new axis a step of 0, PyTorch the size of what lies behind it
        for i in range(len(strides) - 1, -1, -1):
            if a.shape[i] == 1 and not strides[i]:
                strides[i] = a.shape[i + 1] * strides[i + 1] if i + 1 < len(strides) else 1
    return tuple(strides)


def make_view(t: Tensor, a: np.ndarray, kind: str | None = None) -> Tensor:
    """A tensor on ``a``, a NumPy view of ``t._a``: shares its version counter and is known to the base."""
    v = new_tensor(Tensor)
    v._a = a
    v._grad_fn = None
    v._rg = False
    base = t if t._base is None else t._base
    v._base = base
    v._vc = t._vc or t._counter()
    if kind is not None and t._view_kind != "inference":
        v._view_kind = kind
    elif t._view_kind is not None:
        v._view_kind = t._view_kind
    views = base._views
    if views is None:
        base._views = [weakref.ref(v)]
    else:
        n = len(views)
        if n >= 16 and n & (n - 1) == 0:  # at each power of two: drop the dead, so the list stays linear in the living
            views[:] = [r for r in views if r() is not None]
        views.append(weakref.ref(v))
    return v


class layout:
    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"torch.{self.name}"

    def __reduce__(self) -> str:
        return self.name


class memory_format(layout):
    pass


strided = layout("strided")
sparse_coo = layout("sparse_coo")
contiguous_format = memory_format("contiguous_format")
preserve_format = memory_format("preserve_format")
channels_last = memory_format("channels_last")
channels_last_3d = memory_format("channels_last_3d")
_CHANNELS_LAST = {channels_last: (0, 2, 3, 1), channels_last_3d: (0, 2, 3, 4, 1)}


def check_grad_assignment(t: Tensor, g: Any) -> None:
    if not isinstance(g, Tensor):
        raise error(TypeError, f"assigned grad expected to be a Tensor or None but got grad of type {type(g).__name__}")
    if g is t:
        raise error(RuntimeError, "can't assign Variable as its own grad")
    wanted = t.__dict__.get("_grad_dtype", "same")
    if wanted == "same":
        wanted = t.dtype
    if wanted is not None and g.dtype is not wanted:
        raise error(
            RuntimeError,
            f"attempting to assign a gradient with dtype '{dtypes.C_NAMES[g.dtype]}' to a tensor with grad_dtype "
            f"'{dtypes.SCALAR_NAMES[wanted]}'. The gradient must match the tensor's grad_dtype (defaults to the "
            "tensor's dtype). You can set the tensor's grad_dtype attribute with a specific dtype, or None to allow any dtype. Set "
            "grad_dtype with caution. Diverging the dtypes of a tensor and its gradient may break downstream systems that "
            "assume they match.",
        )
    if g._a.shape != t._a.shape:
        raise error(
            RuntimeError,
            f"attempting to assign a gradient of size '{list(g._a.shape)}' to a tensor of size '{list(t._a.shape)}'. Please "
            "ensure that the gradient and the tensor are the same size",
        )


def _warn_non_leaf_grad() -> None:
    import warnings

    warnings.warn(
        "The .grad attribute of a Tensor that is not a leaf Tensor is being accessed. Its .grad attribute won't be "
        "populated during autograd.backward(). If you indeed want the .grad field to be populated for a non-leaf Tensor, "
        "use .retain_grad() on the non-leaf Tensor. If you access the non-leaf Tensor by mistake, make sure you access "
        "the leaf Tensor instead. See github.com/pytorch/pytorch/pull/30531 for more information.",
        UserWarning,
        stacklevel=3,
    )


def legacy_constructor(cls: type, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """``Tensor()``, ``Tensor(2, 3)`` (uninitialised), ``Tensor([1, 2])``, ``Tensor(other)``."""
    kwargs.pop("device", None)
    if kwargs:
        raise error(TypeError, f"new() received an invalid combination of arguments - got {list(kwargs)}")
    np_type = dtypes.get_default_dtype().np
    t = new_tensor(cls)
    t._grad_fn, t._rg = None, False
    if is_inference_mode_enabled():
        t._vc = InferenceCounter()
    if len(args) == 1 and isinstance(args[0], Tensor):
        t._a, t._vc = args[0]._viewable(), args[0]._counter()
    elif len(args) == 1 and isinstance(args[0], Size) or args and all(isinstance(n, (int, np.integer)) for n in args):
        t._a = np.empty(args[0] if isinstance(args[0], Size) else args, np_type)
    elif not args:
        t._a = np.empty(0, np_type)
    else:
        t._a = np.array(args[0], np_type)
    return t
