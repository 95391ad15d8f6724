"""Parameter and Buffer: tensors that a Module registers when they are assigned as attributes."""

from __future__ import annotations

from typing import Any

import flambeau as fl
from flambeau.core.errors import error
from flambeau.core.tensor import Tensor

__all__ = ["Buffer", "Parameter", "UninitializedBuffer", "UninitializedParameter", "is_lazy"]


class _MarkedTensor(type(Tensor)):  # type: ignore[misc]
    """isinstance(t, Parameter) also holds for other Tensor subclasses that carry the `_is_param` mark."""

    def __instancecheck__(cls, instance: Any) -> bool:
        if type.__instancecheck__(cls, instance):
            return True
        mark = cls.__dict__.get("_mark")
        return mark is not None and isinstance(instance, Tensor) and bool(getattr(instance, mark, False))


class Parameter(Tensor, metaclass=_MarkedTensor):
    """A Tensor that becomes a module's parameter when it is assigned as an attribute.

    It requires grad unless told otherwise, also where grad mode is off, and shares its data's storage.

    >>> import flambeau
    >>> flambeau.nn.Parameter(flambeau.ones(2))
    Parameter containing:
    tensor([1., 1.], requires_grad=True)
    """

    _mark = "_is_param"

    def __new__(cls, data: Tensor | None = None, requires_grad: bool = True) -> Parameter:
        if data is None:
            data = fl.empty(0)
        if type(data) is Tensor or isinstance(data, (Parameter, Buffer)):
            return Tensor._make_subclass(cls, data, requires_grad)
        t = data.detach().requires_grad_(requires_grad)
        if type(t) is not type(data):
            raise error(
                RuntimeError,
                f"Creating a Parameter from an instance of type {type(data).__name__} requires that detach() "
                f"returns an instance of the same type, but return type {type(t).__name__} was found instead.",
            )
        t._is_param = True
        return t

    def __deepcopy__(self, memo: dict[int, Any]) -> Parameter:
        known = memo.get(id(self))
        if known is not None:
            return known
        copy = type(self)(self.data.clone(), self.requires_grad)
        memo[id(self)] = copy
        return copy

    def __repr__(self, **kwargs: Any) -> str:
        return "Parameter containing:\n" + super().__repr__(**kwargs)

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return _rebuild_parameter, (self.data, self.requires_grad, type(self))


def _rebuild_parameter(data: Tensor, requires_grad: bool, cls: type = Parameter) -> Parameter:
    return cls(data, requires_grad)


class Buffer(Tensor, metaclass=_MarkedTensor):
    """A Tensor that becomes a module's buffer when it is assigned as an attribute.

    With `persistent=False` it stays out of the module's state_dict.
    """

    _mark = "_is_buffer"

    def __new__(cls, data: Tensor | None = None, *, persistent: bool = True) -> Buffer:
        if data is None:
            data = fl.empty(0)
        t = data.detach().requires_grad_(data.requires_grad)
        t.persistent = persistent
        t._is_buffer = True
        return t


class _Uninitialized:
    """What a parameter and a buffer without a shape have in common: they wait for materialize()."""

    _materialized: type

    def materialize(self, shape: Any, device: Any = None, dtype: Any = None) -> None:
        """Become an ordinary tensor of this shape, in place; the values are not set."""
        self.data = fl.empty(shape, device=device, dtype=dtype or self.data.dtype)
        self.__class__ = self._materialized

    @property
    def shape(self) -> Any:
        raise error(
            RuntimeError,
            "Can't access the shape of an uninitialized parameter or buffer. This error usually happens in "
            "`load_state_dict` when trying to load an uninitialized parameter into an initialized one. Call "
            "`forward` to initialize the parameters before accessing their attributes.",
        )

    def share_memory_(self) -> Any:
        raise error(
            RuntimeError,
            "Can't share memory on an uninitialized parameter or buffer. Call `forward` to initialize the "
            "parameters before calling `module.share_memory()`.",
        )

    def __repr__(self, **kwargs: Any) -> str:
        return f"<{type(self).__name__}>"


class UninitializedParameter(_Uninitialized, Parameter):
    """A Parameter whose shape is found out at the first forward."""

    _mark = None
    _materialized = Parameter

    def __new__(cls, requires_grad: bool = True, device: Any = None, dtype: Any = None) -> Any:
        return Tensor._make_subclass(cls, fl.empty(0, device=device, dtype=dtype), requires_grad)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        known = memo.get(id(self))
        if known is None:
            known = memo[id(self)] = type(self)(self.requires_grad, self.data.device, self.data.dtype)
        return known

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return UninitializedParameter, (self.requires_grad, None, self.data.dtype)


class UninitializedBuffer(_Uninitialized, Tensor, metaclass=_MarkedTensor):
    """A buffer whose shape is found out at the first forward."""

    _mark = None
    _materialized = Tensor

    def __new__(
        cls, requires_grad: bool = False, device: Any = None, dtype: Any = None, persistent: bool = True
    ) -> Any:
        t = Tensor._make_subclass(cls, fl.empty(0, device=device, dtype=dtype), requires_grad)
        t.persistent = persistent
        t._is_buffer = True
        return t


def is_lazy(param: Any) -> bool:
    """True for a parameter or buffer that has no shape yet."""
    return isinstance(param, _Uninitialized)
