"""Operators with a derivative written by the user.

``Function.apply`` runs ``forward`` with recording off and makes a node, which is also the ``ctx`` that both methods
receive, as in PyTorch.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from ..core.errors import error, here, line_of
from ..core.modes import full, mode, no_grad
from ..core.tensor import Tensor, new_tensor
from . import inplace as ip
from .node import FREED, Freed, Node, SavedOutput, accumulator, freed_error, next_seq
from .primitive import save_tensor, unpack_tensor, zeros_for


class FunctionCtx:
    """What ``forward`` and ``backward`` share."""

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        """Save inputs or outputs for ``backward``: checked for in-place changes, freed with the graph."""
        for t in tensors:
            if t is not None and not isinstance(t, Tensor):
                raise error(TypeError, f"save_for_backward can only save variables, but argument {tensors.index(t)} is of type {type(t).__name__}",
                            hint="Keep what is no tensor as an attribute: ctx.name = value.")
        self.to_save = tensors

    def save_for_forward(self, *tensors: Tensor | None) -> None:
        """Save for ``jvp``."""
        self.saved_for_forward = tensors

    def mark_dirty(self, *args: Tensor) -> None:
        """Say which inputs ``forward`` changed in place; they must be among its outputs."""
        self.dirty_tensors = args

    def mark_non_differentiable(self, *args: Tensor) -> None:
        """Say which outputs have no gradient."""
        self.non_differentiable = args

    def set_materialize_grads(self, value: bool) -> None:
        """Whether ``backward`` gets zeros (the default) or None for outputs that received no gradient."""
        self.materialize_grads = value

    def mark_shared_storage(self, *pairs: Any) -> None:
        return None


class FunctionNode(Node, FunctionCtx):
    """The node of one call of a Function; PyTorch's ``BackwardCFunction``."""

    _forward_cls: Any = None
    takes_none = True
    materialize_grads = True
    to_save: tuple[Any, ...] = ()
    dirty_tensors: tuple[Any, ...] = ()
    non_differentiable: tuple[Any, ...] = ()
    needs_input_grad: tuple[bool, ...] = ()
    n_outputs = 1
    meta: list[Any]  # shape and dtype of each output that is a tensor
    given: Any  # the outputs whose gradients backward takes
    inputs: list[Any]  # shape and dtype of each argument that is a tensor

    def __init__(self) -> None:
        self.next, self.nrs, self.saved, self.extra, self.where = (), None, (), None, None
        self.seq = next_seq()

    @property
    def saved_tensors(self) -> tuple[Any, ...]:
        saved = self.saved
        if isinstance(saved, Freed):
            raise freed_error(self)
        if not saved and self.to_save:  # still inside forward
            return tuple(self.to_save)
        recording = mode() is not False and full().grad
        return tuple([s.unpack(self, recording) if s.__class__ is SavedOutput else unpack_tensor(self, s) for s in saved])

    def release(self) -> None:
        if self.saved:
            self.saved = FREED

    def apply(self, g: Any, wanted: Any = None) -> tuple[Any, ...]:
        grads = g if self.n_outputs != 1 else [g]
        if grads is None:
            grads = [None] * self.n_outputs
        if self.materialize_grads:
            grads = [zeros_for(m) if x is None and m is not None else x for x, m in zip(grads, self.meta)]
        cls = self._forward_cls
        if cls.backward is not Function.backward and cls.vjp is not Function.vjp:
            raise error(RuntimeError, "Implementing both 'backward' and 'vjp' for a custom Function is not allowed. You should only implement one of them.")
        fn = cls.vjp if cls.vjp is not Function.vjp else cls.backward
        result = fn(self, *[grads[i] for i in self.given])
        return self.checked(result)

    def checked(self, result: Any) -> tuple[Any, ...]:
        """One gradient for each tensor among the inputs, of its shape and dtype."""
        grads = result if isinstance(result, tuple) else tuple(result) if isinstance(result, list) else (result,)
        name, n = self.name(), len(self.inputs)
        at = f" (backward is at {source_of(self._forward_cls)})"
        if len(grads) > n and all(x is None for x in grads[n:]):
            grads = grads[:n]
        if len(grads) != n:
            raise error(RuntimeError, f"function {name} returned an incorrect number of gradients (expected {n}, got {len(grads)})", hint=at.strip())
        out: list[Any] = []
        for i, (x, meta) in enumerate(zip(grads, self.inputs)):
            if meta is None:
                if x is not None:
                    raise error(RuntimeError, f"function {name} returned a gradient different from None at position {i + 1}, but the corresponding forward input was not a Variable", hint=at.strip())
                continue
            if x is None:
                out.append(None)
                continue
            if not isinstance(x, Tensor):
                raise error(TypeError, f"expected Variable or None (got {type(x).__name__})", hint=at.strip())
            shape, d = meta
            if x._a.shape != shape:
                if not expandable(shape, x._a.shape):
                    raise error(RuntimeError, f"Function {name} returned an invalid gradient at index {i} - got {list(x._a.shape)} but expected shape compatible with {list(shape)}", hint=at.strip())
                x = x.sum_to_size(shape)
            if x._a.dtype != d.np:
                if x._a.dtype.kind == "c" and d.np.kind != "c":
                    x = x.real
                x = x.to(d)
            out.append(x)
        return tuple(out)


def expandable(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    return len(shape) <= len(to) and all(a == b or a == 1 for a, b in zip(reversed(shape), reversed(to)))


def source_of(cls: type) -> str:
    fn = getattr(cls.backward, "__wrapped__", cls.backward)  # type: ignore[attr-defined]
    code = getattr(fn, "__code__", None)
    if code is None:
        return cls.__name__
    return f"{code.co_filename}:{line_of((code, 0))[1]}"


class FunctionMeta(type):
    def __init__(cls, name: str, bases: Any, attrs: Any) -> None:
        super().__init__(name, bases, attrs)
        cls._backward_cls = type(name + "Backward", (FunctionNode,), {"_forward_cls": cls})


class Function(metaclass=FunctionMeta):
    """Base class of custom operators: define static methods ``forward`` and ``backward``, call ``apply``.

    >>> import flambeau as torch
    >>> class Cube(torch.autograd.Function):
    ...     @staticmethod
    ...     def forward(ctx, x):
    ...         ctx.save_for_backward(x)
    ...         return x ** 3
    ...     @staticmethod
    ...     def backward(ctx, g):
    ...         x, = ctx.saved_tensors
    ...         return g * 3 * x ** 2
    >>> x = torch.tensor(2., requires_grad=True)
    >>> Cube.apply(x).backward(); x.grad
    tensor(12.)
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        import warnings

        warnings.warn(
            f"{type(self)} should not be instantiated. Methods on autograd functions are all static, so you should invoke "
            "them on the class itself. Instantiating an autograd function will raise an error in a future version of PyTorch.",
            DeprecationWarning,
            stacklevel=2,
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise error(
            RuntimeError,
            "Legacy autograd function with non-static forward method is deprecated. Please use new-style autograd function "
            "with static forward method. (Example: https://pytorch.org/docs/stable/autograd.html#torch.autograd.Function)",
        )

    generate_vmap_rule = False

    @staticmethod
    def forward(*args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError("You must implement the forward function for custom autograd.Function.")

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> Any:
        raise NotImplementedError("setup_context is not implemented.")

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        raise NotImplementedError(
            "You must implement either the backward or vjp method for your custom autograd.Function to use it with backward mode AD."
        )

    @staticmethod
    def vjp(ctx: Any, *grad_outputs: Any) -> Any:
        raise NotImplementedError("You must implement either the backward or vjp method for your custom autograd.Function.")

    @staticmethod
    def jvp(ctx: Any, *grad_inputs: Any) -> Any:
        raise NotImplementedError("You must implement the jvp function for custom autograd.Function to use it with forward mode AD.")

    @classmethod
    def apply(cls, *args: Any, **kwargs: Any) -> Any:
        """Run ``forward`` on the arguments and record the call."""
        ctx = cls._backward_cls()
        ctx.where = here()
        ctx.needs_input_grad = tuple([isinstance(a, Tensor) and a._rg for a in args])
        m = mode()
        recording = (m is True or m is not False and m.grad) and any(ctx.needs_input_grad)
        with no_grad():
            if cls.setup_context is not Function.setup_context:
                result = cls.forward(*args, **kwargs)
                cls.setup_context(ctx, args, result)
            else:
                result = cls.forward(ctx, *args, **kwargs)
        return record_call(ctx, cls, args, result, recording)


def record_call(ctx: FunctionNode, cls: type, args: tuple[Any, ...], result: Any, recording: bool) -> Any:
    tensors = [a for a in args if isinstance(a, Tensor)]
    outs = list(result) if isinstance(result, (tuple, list)) else [result]
    dirty = {id(t) for t in ctx.dirty_tensors}
    for t in ctx.dirty_tensors:
        if not any(t is o for o in outs):
            raise error(RuntimeError, "Some elements marked as dirty during the forward method were not returned as output. The inputs "
                        "that are modified inplace must all be outputs of the Function.")
    if recording:
        ctx.next = tuple([None if not t._rg else t._grad_fn if t._grad_fn is not None else accumulator(t) for t in tensors])
        ctx.nrs = tuple([t._nr for t in tensors])
    ctx.inputs = [(a._a.shape, a.dtype) if isinstance(a, Tensor) else None for a in args]
    count = len(outs)
    if count != 1:
        ctx.n_outputs = count
    ctx.meta = [(o._a.shape, o._a.dtype) if isinstance(o, Tensor) else None for o in outs]
    ctx.given = range(count)
    final: list[Any] = []
    skip = {id(t) for t in ctx.non_differentiable}
    for nr, o in enumerate(outs):
        if not isinstance(o, Tensor):
            final.append(o)
            continue
        is_input = any(o is t for t in tensors)
        if id(o) in dirty:
            if recording and id(o) not in skip:
                ip.check_writable(o)
                ip.changed(o)
                ip.rebase(o, ctx, nr)
            else:
                ip.changed(o)
            final.append(o)
            continue
        if is_input:  # returned as it came: an output of its own over the same storage
            o = o._detached() if o._grad_fn is not None or o._rg else shallow(o)
        if recording and id(outs[nr]) not in skip and o._a.dtype.kind not in "biu":
            if o._base is not None and (o._base._rg or any(o._base is t for t in tensors)):
                o._view_kind = "multi" if count > 1 else o._view_kind
            o._grad_fn, o._rg, o._nr = ctx, True, nr
        elif o._rg and recording:
            o = o._detached()
        final.append(o)
    if recording:
        ctx.saved = tuple([save_one(ctx, t, outs, final) for t in ctx.to_save])
    if "to_save" in ctx.__dict__:
        del ctx.to_save
    for name in ("dirty_tensors", "non_differentiable"):
        ctx.__dict__.pop(name, None)
    if isinstance(result, (tuple, list)):
        return tuple(final)
    return final[0]


def save_one(ctx: FunctionNode, t: Tensor | None, outs: list[Any], final: list[Any]) -> Any:
    """An output is saved without its history, which is this very node."""
    if t is None:
        return None
    for o, f in zip(outs, final):
        if t is o and isinstance(f, Tensor) and f._grad_fn is ctx:
            return SavedOutput(f)
    return save_tensor(t, mode())


def shallow(t: Tensor) -> Tensor:
    r = new_tensor(Tensor)
    r._a, r._grad_fn, r._rg, r._vc = t._a, None, False, t._counter()
    return r


def once_differentiable(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Mark a ``backward`` whose result cannot be differentiated again: doing so raises, instead of giving zeros."""

    @functools.wraps(fn)
    def wrapper(ctx: Any, *args: Any) -> Any:
        with no_grad():
            outputs = fn(ctx, *args)
        m = mode()
        if not (m is True or m is not False and m.grad):
            return outputs
        if not any(isinstance(a, Tensor) and a._rg for a in args):
            return outputs
        many = isinstance(outputs, tuple)
        out = []
        for o in outputs if many else (outputs,):
            if isinstance(o, Tensor):
                o = o._detached()
                node = NotDifferentiable()
                o._grad_fn, o._rg = node, True
            out.append(o)
        return tuple(out) if many else out[0]

    return wrapper


class NotDifferentiable(Node):
    __slots__ = ()

    def __init__(self) -> None:
        self.next, self.nrs, self.saved, self.extra = (), None, None, None
        self.seq, self.where = next_seq(), here()

    def name(self) -> str:
        return "Error"

    def apply(self, g: Any, wanted: Any = None) -> tuple[Any, ...]:
        raise error(RuntimeError, "trying to differentiate twice a function that was marked with @once_differentiable")


class NestedIOFunction(Function):
    """PyTorch's legacy class, kept so that its subclasses fail with a message."""


class InplaceFunction(Function):
    """Base class of Functions that may work in place; ``mark_dirty`` says so."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace


