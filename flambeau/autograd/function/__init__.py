"""Operators with a derivative written by the user.

``Function.apply`` runs ``forward`` with recording off and makes a node, which is also the ``ctx`` that the methods
receive (``function_node.py``).
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

from ...core.errors import error, here
from ...core.modes import Modes, mode, no_grad, reset_mode, set_mode
from ...core.tensor import Tensor
from ..node import Node, accumulator, edges, next_seq
from .node import (
    UNSET,
    BackwardCFunction,
    FunctionCtx,
    outputs,
    save,
    set_extra,
    set_next,
    set_nrs,
    set_outputs,
    set_seq,
    set_where,
)  # fmt: skip

new_node: Callable[[type], Any] = object.__new__


NO_BACKWARD = "You must implement either the backward or vjp method for your custom autograd.Function to use it with backward mode AD."


class FunctionMeta(type):
    """Gives every Function the class of its nodes."""

    _backward_cls: Any

    def __init__(cls, name: str, bases: Any, attrs: Any) -> None:
        super().__init__(name, bases, attrs)
        cls._backward_cls = type(name + "Backward", (BackwardCFunction,), {"_forward_cls": cls, "__module__": attrs.get("__module__", __name__)})


class _SingleLevelFunction(metaclass=FunctionMeta):
    """What a Function may define."""

    generate_vmap_rule = False
    clear_saved_tensors_on_access = False
    boxed_grads_call = False

    @staticmethod
    def forward(*args: Any, **kwargs: Any) -> Any:
        """``forward(ctx, *args)``, or ``forward(*args)`` where ``setup_context`` is defined: the operator itself."""
        raise NotImplementedError("You must implement the forward function for custom autograd.Function.")

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> Any:
        """Save what ``backward`` needs, after a ``forward`` that takes no ctx."""
        raise NotImplementedError("setup_context is not implemented.")

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        """One gradient for each argument of ``forward``, from one for each output."""
        raise NotImplementedError(NO_BACKWARD)

    @staticmethod
    def vjp(ctx: Any, *grad_outputs: Any) -> Any:
        """Another name for ``backward``."""
        raise NotImplementedError(NO_BACKWARD)

    @staticmethod
    def jvp(ctx: Any, *grad_inputs: Any) -> Any:
        """One tangent for each output, from one for each argument of ``forward`` (None: no tangent)."""
        raise NotImplementedError("You must implement the jvp function for custom autograd.Function to use it with forward mode AD.")


class Function(_SingleLevelFunction):
    """Base class of custom operators: define static methods ``forward`` and ``backward``, call ``apply``.

    ==================================  =================================================================================
    ``forward(ctx, *args)``             the operator; ``ctx.save_for_backward(...)`` keeps tensors
    ``setup_context(ctx, inputs, out)``  if defined, ``forward`` takes no ctx, and this saves
    ``backward(ctx, *grads)``           one gradient for each argument, None for what is no tensor; or name it ``vjp``
    ``jvp(ctx, *tangents)``             one tangent for each output: for forward mode
    ``vmap(info, in_dims, *args)``      (outputs, their batch dimensions): for vmap; or ``generate_vmap_rule = True``
    ==================================  =================================================================================

    A ``backward`` written in operators of flambeau can be differentiated again; mark one that is not with
    ``once_differentiable``. ``autograd.gradcheck`` compares it with central differences.

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

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> Any:
        """The operator on batches: (outputs, the batch dimension of each).

        ``info.batch_size`` and ``info.randomness`` describe the vmap; ``in_dims`` says for each argument which of its
        dimensions is the batch, None where it has none.
        """
        raise NotImplementedError("To use autograd.Function with vmap, you must either override the vmap staticmethod or set generate_vmap_rule=True.")

    @classmethod
    def apply(cls, *args: Any, **kwargs: Any) -> Any:
        """Run ``forward`` on the arguments and record the call.

        Keyword arguments are put in their places: ``backward`` returns a gradient for each of them too.
        """
        two_parts = cls.setup_context is not _SingleLevelFunction.setup_context
        if two_parts or kwargs:
            args = placed(cls.forward, args, kwargs, two_parts)
        m = mode()
        if m.__class__ is Modes and m.batch:
            from .vmap import through_vmap

            mapped = through_vmap(cls, m, args)
            if mapped is not NotImplemented:
                return mapped
        needs = tuple([a._rg if isinstance(a, Tensor) else False for a in args])
        node = new_node(cls._backward_cls)
        set_where(node, here())
        set_seq(node, next_seq())
        set_extra(node, None)
        set_outputs(node, 1)
        node.needs_input_grad = needs
        node.to_save = node.dirty_tensors = node.non_differentiable = node.saved_for_forward = node.saved = None
        node.materialize_grads = True
        node._saved = ()
        recording = (m is True or m is not False and m.grad) and True in needs
        if recording:
            connect(node, args)
        else:
            set_next(node, ())
            set_nrs(node, None)
        token = set_mode(False if m is True or m is False else m.replace(grad=False, forward=0))
        try:
            if two_parts:
                result = cls.forward(*args)
                cls.setup_context(node, args, result)
            else:
                result = cls.forward(node, *args)
        finally:
            reset_mode(token)
        return finish(node, args, result, recording, m)


UNSET.update(backward=_SingleLevelFunction.backward, vjp=_SingleLevelFunction.vjp)


def connect(node: BackwardCFunction, args: tuple[Any, ...]) -> None:
    """Point the node to those of its arguments."""
    nodes: list[Any] = []
    nrs = None
    inputs: list[Any] = []
    for a in args:
        if not isinstance(a, Tensor):
            inputs.append(None)
            continue
        if a._rg:
            fn = a._grad_fn
            if a._nr:
                if nrs is None:
                    nrs = [0] * len(args)
                nrs[len(nodes)] = a._nr
            nodes.append(accumulator(a) if fn is None else fn)
            inputs.append((a._a.shape, a._a.dtype))
        else:
            nodes.append(None)
            inputs.append(False)
    set_next(node, tuple(nodes))
    set_nrs(node, None if nrs is None else tuple(nrs[: len(nodes)]))
    node._inputs = inputs


def finish(node: BackwardCFunction, args: tuple[Any, ...], result: Any, recording: bool, m: Any) -> Any:
    """Give the outputs their history, save what is to be saved."""
    several = isinstance(result, tuple)
    if recording and result.__class__ is Tensor and is_plain(node, args, result):
        node._meta = [(result._a.shape, result._a.dtype)]
        result._grad_fn, result._rg = node, True
        if result._nr:
            result._nr = 0
        outs: Any = (result,)
        final: list[Any] = [result]
    else:
        outs = result if several else (result,)
        if recording:
            node._meta = [(o._a.shape, o._a.dtype) if isinstance(o, Tensor) else None for o in outs]
            if len(outs) != 1:
                set_outputs(node, len(outs))
            if m.__class__ is Modes and m.batch:
                refuse_captured(node, outs)
        final = outputs(node, args, outs, recording)
    if m.__class__ is Modes and m.forward:
        from .tangents import push_tangents

        push_tangents(node, args, final, m)
    if node.to_save is not None:
        if recording:
            node._saved = save(node, node.to_save, outs, final, args, m)
        node.to_save = None
    node.dirty_tensors = node.non_differentiable = node.saved_for_forward = None
    if recording and m.__class__ is Modes and m.anomaly is not None:
        from ..anomaly_mode import note

        note(node)
    return tuple(final) if several else final[0]


def refuse_captured(node: BackwardCFunction, outs: tuple[Any, ...]) -> None:
    """No argument is batched by a vmap, but an output is: there is no telling the history of which example it has."""
    from ..transforms.batched import Batched

    if any([isinstance(o, Batched) for o in outs]):
        raise error(
            RuntimeError, f"{node._forward_cls.__name__}.forward used a tensor that is being vmapped over without being given it",
            hint="Make it an argument of the Function.",
        )  # fmt: skip


def is_plain(node: BackwardCFunction, args: tuple[Any, ...], result: Tensor) -> bool:
    """Whether the one output is a tensor of the Function's own, as of nearly every Function: it just points to the node."""
    if result._base is not None or node.dirty_tensors is not None or node.non_differentiable is not None or result._a.dtype.kind in "biu":
        return False
    for a in args:
        if a is result:
            return False
    return True


def placed(forward: Any, args: tuple[Any, ...], kwargs: dict[str, Any], two_parts: bool) -> tuple[Any, ...]:
    """All arguments by position; with defaults filled in where ``setup_context`` will be told of them."""
    code = getattr(forward, "__code__", None)
    if not kwargs and code is not None and len(args) == code.co_argcount and not code.co_kwonlyargcount:
        return args
    import inspect

    signature = inspect.signature(forward)
    if not two_parts:
        names = [p.name for p in signature.parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD][1:]
        return by_position(names, args, kwargs)
    bound = signature.bind(*args, **kwargs)
    bound.apply_defaults()
    return by_position([], bound.args, bound.kwargs)


def by_position(names: list[str], args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    """``args`` and then the keyword arguments in the order of ``names``, without gaps."""
    for name in kwargs:
        if name not in names:
            raise error(TypeError, f"forward() got an unexpected keyword argument '{name}'", hint="Arguments of a Function are given by position.")
        if name in names[: len(args)]:
            raise error(TypeError, f"forward() got multiple values for argument '{name}'")
    found = list(args)
    last = max([names.index(name) for name in kwargs], default=-1)
    for i in range(len(args), last + 1):
        if names[i] not in kwargs:
            raise error(TypeError, f"forward() missing required argument: '{names[i]}' (position {i})")
        found.append(kwargs[names[i]])
    return tuple(found)


def once_differentiable(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Mark a ``backward`` whose result cannot be differentiated again: doing so raises, instead of giving zeros."""

    @functools.wraps(fn)
    def wrapper(ctx: Any, *args: Any, **kwargs: Any) -> Any:
        with no_grad():
            results = fn(ctx, *args, **kwargs)
        m = mode()
        if m is False or m is not True and not m.grad or not any([isinstance(a, Tensor) and a._rg for a in args]):
            return results
        many = isinstance(results, tuple)
        node = Error(
            "trying to differentiate twice a function that was marked with @once_differentiable",
            "Its backward must be written in differentiable operators for that, and the mark taken off.",
        )
        found = [o if o is None else refusing(o, node) for o in (results if many else (results,))]
        return tuple(found) if many else found[0]

    return wrapper


def refusing(t: Tensor, node: Error) -> Tensor:
    """The same values with ``node`` for their history."""
    r: Any = t._detached()
    part = r
    while part is not None:  # inside vmap the history is that of the batch
        part._grad_fn, part._rg = node, True
        part = getattr(part, "_value", None)
    return r


class Error(Node):
    """The history of what cannot be differentiated: a backward pass that reaches it raises."""

    __slots__ = ("phrase", "hint")

    def __init__(self, phrase: str, hint: str, inputs: tuple[Any, ...] = ()) -> None:
        self.next, self.nrs = edges(inputs)
        self.saved, self.extra = None, None
        self.seq, self.where = next_seq(), here(3)
        self.phrase, self.hint = phrase, hint

    def apply(self, g: Any, wanted: Any = None) -> tuple[Any, ...]:
        raise error(RuntimeError, self.phrase, hint=self.hint)


class InplaceFunction(Function):
    """Base class of old Functions that could work in place."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace


class NestedIOFunction(Function):
    """PyTorch's old class of Functions with nested arguments: it can no longer be called, there as here."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise error(AttributeError, "'super' object has no attribute '_do_forward'", hint="NestedIOFunction is of PyTorch's past: derive from Function.")

    def forward_extended(self, *input: Any) -> None:
        """The operator, in subclasses."""
        raise NotImplementedError

    def backward_extended(self, *grad_output: Any) -> None:
        """Its derivative, in subclasses."""
        raise NotImplementedError


__all__ = ["BackwardCFunction", "Function", "FunctionCtx", "FunctionMeta", "InplaceFunction", "NestedIOFunction", "once_differentiable"]
