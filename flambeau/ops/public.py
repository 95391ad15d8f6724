"""How a function becomes ``torch.name``, ``Tensor.name``, ``Tensor.name_`` and takes ``out=``.

    @public                                   # torch.name and Tensor.name
    @public(method=False)                     # torch.name only
    @public(inplace=True, out=True)           # also Tensor.name_ and torch.name(..., out=t)
    @public(names=("absolute",))              # further names for the same function
    @public(module="nn.functional")           # flambeau.nn.functional.name (and no method)

``FUNCTIONS[module]`` is what ``flambeau/__init__.py`` and the other public modules publish.
"""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from ..autograd import inplace as ip
from ..autograd.inplace import become
from ..autograd.pointwise import Pointwise
from ..core.dtypes import SCALAR_NAMES, can_cast
from ..core.errors import error
from ..core.modes import Modes, full, mode
from ..core.tensor import Tensor
from .later import Functions
from .names import PUBLISHED

FUNCTIONS: dict[str, Functions] = {module: Functions(module) for module in ("", *PUBLISHED)}


def publish(name: str, fn: Any, module: str = "") -> None:
    if module not in FUNCTIONS:
        FUNCTIONS[module] = Functions(module)
    FUNCTIONS[module][name] = fn


def public(
    fn: Callable[..., Any] | None = None,
    *,
    function: bool = True,
    method: bool | None = None,
    inplace: bool = False,
    out: bool = False,
    names: tuple[str, ...] = (),
    module: str | tuple[str, ...] = "",
) -> Any:
    """Publish a function; see the module's text."""
    if fn is None:
        return functools.partial(
            public, function=function, method=method, inplace=inplace, out=out, names=names, module=module
        )
    shown = with_out(fn) if out else fn
    modules = (module,) if isinstance(module, str) else module
    for name in (fn.__name__.rstrip("_") if fn.__name__.endswith("__") else fn.__name__, *names):
        if function:
            for m in modules:
                publish(name, shown, m)
        if method or method is None and "" in modules:
            setattr(Tensor, name, shown)
        if inplace:
            setattr(Tensor, name + "_", inplace_form(fn, name + "_"))
            if function:
                publish(name + "_", getattr(Tensor, name + "_"))
    return fn


# ---- in place -------------------------------------------------------------------------------------------------------
def inplace_form(fn: Callable[..., Any], name: str) -> Callable[..., Tensor]:
    """``name_``: compute from the tensor's present values, then put the result into it."""

    @functools.wraps(fn)
    def changed_in_place(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        m = mode()
        if m.__class__ is Modes and m.transformed:
            return ip.through_value(lambda was: fn(was, *args, **kwargs), self, ())
        ip.check_writable(self, needs=ip.wanting((*args, *kwargs.values())))
        was = ip.before(self)
        if self._rg and m is not False:
            was._a, was._vc = self._a.copy(), None  # a rule may need the values that are overwritten
        return become(self, fn(was, *args, **kwargs))

    changed_in_place.__name__ = changed_in_place.__qualname__ = name
    return changed_in_place


# ---- out= -----------------------------------------------------------------------------------------------------------
def with_out(fn: Callable[..., Any]) -> Callable[..., Any]:
    """The function with a keyword ``out``: a tensor, or a tuple where the function returns one."""

    @functools.wraps(fn)
    def with_out_argument(*args: Any, out: Any = None, **kwargs: Any) -> Any:
        result = fn(*args, **kwargs)
        if out is None:
            return result
        if isinstance(out, (tuple, list)):
            for o, r in zip(out, result):
                write_out(fn.__name__, o, r)
            return type(result)(out) if hasattr(result, "_fields") else tuple(out)
        write_out(fn.__name__, out, result)
        return out

    with_out_argument.__signature__ = _WithOut(fn)  # type: ignore[attr-defined]
    return with_out_argument


class _WithOut(inspect.Signature):
    """A function's signature and ``out``; read when somebody asks: for hundreds of functions that takes a while."""

    __slots__ = ("_fn",)

    def __init__(self, fn: Callable[..., Any]) -> None:
        self._fn = fn

    def _read(self) -> inspect.Signature:
        sig = inspect.signature(self._fn)
        parameters = list(sig.parameters.values())
        at = len(parameters) - (1 if parameters and parameters[-1].kind is inspect.Parameter.VAR_KEYWORD else 0)
        parameters.insert(at, inspect.Parameter("out", inspect.Parameter.KEYWORD_ONLY, default=None))
        return sig.replace(parameters=parameters)

    @property
    def parameters(self) -> Any:
        return self._read().parameters

    @property
    def return_annotation(self) -> Any:
        return self._read().return_annotation

    def replace(self, **changes: Any) -> inspect.Signature:  # type: ignore[override]
        return self._read().replace(**changes)

    def __reduce__(self) -> Any:
        return _WithOut, (self._fn,)


def write_out(name: str, out: Tensor, result: Tensor) -> None:
    """Put a result into the tensor given as ``out``, which is resized if its shape is another."""
    if not isinstance(out, Tensor):
        raise error(TypeError, f"{name}(): argument 'out' must be Tensor, not {type(out).__name__}")
    if (out._rg or result._rg) and full().grad:
        raise error(
            RuntimeError, f"{name}(): functions with out=... arguments don't support automatic differentiation, but one of the "
            "arguments requires grad."
        )
    m = mode()
    if m.__class__ is Modes and m.transformed:
        refuse_transformed(name, out, result)
    if not can_cast(result.dtype, out.dtype):
        raise error(
            RuntimeError,
            f"result type {SCALAR_NAMES[result.dtype]} can't be cast to the desired output type {SCALAR_NAMES[out.dtype]}",
        )
    ip.check_inference_write(out)
    ip.announce(out)
    if out._a.shape != result._a.shape:
        if out._a.size:
            warnings.warn(
                f"An output with one or more elements was resized since it had shape {list(out._a.shape)}, which does not "
                f"match the required output shape {list(result._a.shape)}. This behavior is deprecated, and in a future "
                "PyTorch release outputs will not be resized unless they have zero elements. You can explicitly reuse an "
                "out tensor t by resizing it, inplace, to zero elements with t.resize_(0).",
                UserWarning,
                stacklevel=3,
            )
        out._a = np.empty(result._a.shape, out._a.dtype)
    out._a[...] = result._a
    ip.changed(out)


def refuse_transformed(name: str, out: Tensor, result: Tensor) -> None:
    """Refuse to write what would lose its batch or its tangents."""
    if out._a.__class__ is not np.ndarray or result._a.__class__ is not np.ndarray:
        raise error(
            RuntimeError, f"Batching rule not implemented for aten::{name}.out; the fallback path doesn't work on out= or view ops.",
            hint="Use the result of the call without out=.",
        )
    if any([t._fw is not None and t._fw.by_level for t in (out, result)]):
        raise error(
            NotImplementedError, f"Trying to use forward AD with {name}_out that does not support it because it is an out= function",
            hint="Use the result of the call without out=.",
        )


# ---- pointwise operators --------------------------------------------------------------------------------------------
def public_pointwise(
    op: Pointwise, *, names: tuple[str, ...] = (), method: bool = True, inplace: bool = True, module: str | tuple[str, ...] = "", doc: str = ""
) -> Any:
    """Publish a pointwise operator of one or two operands under its name: function, method, in-place form, ``out=``."""
    call = op.call
    if len(op.args) == 1:

        def fn(input: Any, *, out: Any = None) -> Any:
            return call(input) if out is None else _out(call(input), out)

    elif len(op.args) == 2:

        def fn(input: Any, other: Any, *, out: Any = None) -> Any:  # type: ignore[misc]
            return call(input, other) if out is None else _out(call(input, other), out)

    else:
        raise TypeError(f"{op.name}: give an operator of {len(op.args)} operands a signature of its own")

    def _out(r: Tensor, out: Tensor) -> Tensor:
        write_out(op.name, out, r)
        return out

    fn.__name__ = fn.__qualname__ = op.name
    fn.__doc__ = doc or f"``{op.expr}``, element by element."
    for name in (op.name, *names):
        for m in (module,) if isinstance(module, str) else module:
            publish(name, fn, m)
        if method:
            setattr(Tensor, name, fn)
        if inplace:
            setattr(Tensor, name + "_", op.inplace)
            publish(name + "_", op.inplace)
    return fn
