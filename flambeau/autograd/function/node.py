"""The node of a custom Function's call: also the ``ctx`` that its methods receive, as in PyTorch.

What ``forward`` returns goes through ``outputs``, which makes the node their history: inputs returned as they came
become views of themselves, inputs marked dirty get a new history in place, the rest just points to the node. What
``backward`` returns goes through ``checked``.
"""

from __future__ import annotations

import warnings
import weakref
from typing import Any

from ...core.dtypes import FROM_NP
from ...core.errors import error, line_of
from ...core.modes import Modes
from ...core.tensor import Tensor, make_view
from .. import inplace as ip
from ..node import FREED, Freed, Node, SavedOutput, freed_error
from ..primitive import pack, save_tensor, unpack_tensor, zeros_for

_MISSING: Any = object()
USED = Freed()  # saved tensors that were asked for once, where once is all there is


class FunctionCtx:
    """What ``forward``, ``backward``, ``jvp`` and ``setup_context`` share. Programs may set attributes of their own."""

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        """Save inputs or outputs for ``backward``: checked for in-place changes, freed with the graph."""
        self.to_save = tensors

    def save_for_forward(self, *tensors: Tensor | None) -> None:
        """Save for ``jvp``, which finds them in ``saved_tensors``."""
        self.saved_for_forward = tensors

    def mark_dirty(self, *args: Tensor) -> None:
        """Say which inputs ``forward`` changed in place; they must be among its outputs."""
        self.dirty_tensors = args

    def mark_non_differentiable(self, *args: Tensor) -> None:
        """Say which outputs have no gradient."""
        self.non_differentiable = args

    def set_materialize_grads(self, value: bool) -> None:
        """Whether ``backward`` gets zeros (the default) or None for outputs that received no gradient."""
        if value is not True and value is not False:
            raise error(TypeError, "set_materialize_grads received an invalid combination of arguments - got (), but expected (bool)")
        self.materialize_grads = value

    def mark_shared_storage(self, *pairs: Any) -> None:
        """Does nothing, with a warning: tensors that share storage are tracked anyway."""
        warnings.warn(
            "`mark_shared_storage` is deprecated. Tensors with shared storages are automatically tracked. Note that calls to "
            "`set_()` are not tracked",
            FutureWarning,
            stacklevel=2,
        )


class BackwardCFunction(Node, FunctionCtx):
    """The node of one call of a Function. Each Function has a subclass, ``ExpBackward`` for ``Exp``."""

    __slots__ = (
        "needs_input_grad", "to_save", "dirty_tensors", "non_differentiable", "saved_for_forward", "materialize_grads",
        "n_outputs", "_saved", "_meta", "_inputs",
    )  # fmt: skip

    _forward_cls: Any
    takes_none = True
    needs_input_grad: tuple[bool, ...]
    to_save: Any
    dirty_tensors: Any
    non_differentiable: Any
    saved_for_forward: Any
    materialize_grads: bool
    _saved: Any  # an entry for each saved tensor, FREED or USED
    _meta: list[Any]  # shape and dtype of each output, None for what is no tensor
    _inputs: list[Any]  # for each argument: None (no tensor), False (no gradient wanted), or shape and dtype

    # ---- saved tensors --------------------------------------------------------------------------------------------
    @property
    def saved_tensors(self) -> tuple[Any, ...]:
        """What ``save_for_backward`` was given (in ``jvp``: ``save_for_forward``)."""
        if self.saved_for_forward is not None:
            return tuple(self.saved_for_forward)
        saved = self._saved
        if saved.__class__ is Freed:
            raise self.used_error() if saved is USED else freed_error(self)
        if not saved:
            return ()
        found = tuple([unpacked(self, s) for s in saved])
        if self._forward_cls.clear_saved_tensors_on_access:
            self._saved = USED
        return found

    saved_variables = saved_tensors

    @property
    def _raw_saved_tensors(self) -> tuple[Any, ...]:
        from ..saved.values import SavedTensor

        saved = self._saved
        if saved.__class__ is Freed:
            raise self.used_error() if saved is USED else freed_error(self)
        return tuple([SavedTensor(Saved(self), i if s is not None else None) for i, s in enumerate(saved)])

    def used_error(self) -> BaseException:
        return error(
            RuntimeError,
            "saved_tensors can only be accessed once when clear_saved_tensors_on_access=True is set on the autograd.Function. "
            "Either access saved_tensors only once, or set clear_saved_tensors_on_access=False.",
        )

    def release(self) -> None:
        if self._saved:
            self._saved = FREED

    def _extra(self) -> dict[str, Any]:
        if self.extra is None:
            set_extra(self, {})
        return self.extra  # type: ignore[return-value]

    # ---- the backward pass ----------------------------------------------------------------------------------------
    def apply(self, g: Any = None, wanted: Any = _MISSING, *more: Any) -> Any:
        """``backward``, called by the engine with (gradients, nodes wanted), by programs with one gradient per output."""
        if wanted is not None and (wanted is _MISSING or more or isinstance(wanted, Tensor)):
            return self.call_backward((g, *more) if wanted is _MISSING else (g, wanted, *more))
        if self.n_outputs == 1:
            if g is None and self.materialize_grads and self._meta[0] is not None:
                g = zeros_for(self._meta[0])
            grads: Any = (g,)
        else:
            grads = [None] * self.n_outputs if g is None else g
            if self.materialize_grads:
                grads = [zeros_for(m) if x is None and m is not None else x for x, m in zip(grads, self._meta)]
        return self.checked(self.call_backward(grads))

    def call_backward(self, grads: Any) -> Any:
        cls = self._forward_cls
        fn = user_backward(cls)
        return fn(self, list(grads)) if cls.boxed_grads_call else fn(self, *grads)

    def checked(self, result: Any) -> tuple[Any, ...]:
        """One gradient for each tensor among the inputs, of its shape and dtype."""
        grads = result if isinstance(result, tuple) else (result,)
        expected = self._inputs
        if len(grads) != len(expected):
            grads = incorrect_number(self._forward_cls, grads, len(expected))
        out: list[Any] = []
        for i, (x, meta) in enumerate(zip(grads, expected)):
            if x is None:
                if meta is not None:
                    out.append(None)
            elif meta is None:
                raise error(
                    RuntimeError,
                    f"function {self.name()} returned a gradient different than None at position {i + 1}, but the corresponding "
                    "forward input was not a Variable",
                    hint=source(self._forward_cls),
                )
            elif not isinstance(x, Tensor):
                raise error(RuntimeError, f"expected Variable or None (got {type(x).__name__})", hint=source(self._forward_cls))
            elif meta is False:
                out.append(None)
            elif x._a.shape == meta[0] and x._a.dtype is meta[1]:
                out.append(x)
            else:
                out.append(self.fitted(x, i, *meta))
        return tuple(out)

    def fitted(self, x: Tensor, i: int, shape: tuple[int, ...], dtype: Any) -> Tensor:
        """A gradient summed over what was broadcast, in the input's dtype."""
        name = self.name()
        if x._a.shape != shape:
            if not expandable(shape, x._a.shape):
                raise error(
                    RuntimeError,
                    f"Function {name} returned an invalid gradient at index {i} - got {list(x._a.shape)} but expected shape compatible "
                    f"with {list(shape)}",
                    hint=source(self._forward_cls),
                )
            x = x.sum_to_size(shape)
        if x._a.dtype != dtype:
            if x._a.dtype.kind == "c" and dtype.kind != "c":
                raise error(
                    RuntimeError,
                    f"Function {name} returned an invalid gradient at index {i} - it is complex, but the input is real",
                    hint=source(self._forward_cls) + "\n  Return its real part.",
                )
            x = x.to(FROM_NP[dtype])
        return x

    # ---- PyTorch's view of it -------------------------------------------------------------------------------------
    def known_outputs(self) -> list[Any]:
        """Shape and dtype of each output, for ``_input_metadata``."""
        return self._meta

    def shown_inputs(self) -> None:
        return None

    def _set_sequence_nr(self, n: int) -> None:
        set_seq(self, n)


def reserve(*names: str) -> None:
    """Refuse programs that keep something on ctx under a name that the graph itself needs."""

    def refusal(name: str) -> Any:
        def refuse(self: Any, value: Any) -> None:
            raise error(AttributeError, f"ctx.{name} holds a part of the graph", hint=f"Keep the value under another name, such as ctx.my_{name}.")

        return refuse

    for name in names:
        descriptor: Any = getattr(BackwardCFunction, name)
        setattr(BackwardCFunction, name, property(descriptor.__get__, refusal(name)))


slot: Any = BackwardCFunction  # the slots themselves, through which the graph's part is set
set_next, set_nrs, set_seq = slot.next.__set__, slot.nrs.__set__, slot.seq.__set__
set_where, set_extra, set_outputs = slot.where.__set__, slot.extra.__set__, slot.n_outputs.__set__
reserve("next", "nrs", "seq", "where", "extra", "n_outputs", "release")
UNSET: dict[str, Any] = {}  # Function's own backward and vjp, by name: what a subclass that defines none inherits


def user_backward(cls: Any) -> Any:
    """The Function's ``backward``, or the ``vjp`` that it has in its place."""
    if cls.vjp is UNSET["vjp"]:
        return cls.backward
    if cls.backward is not UNSET["backward"]:
        raise error(
            RuntimeError,
            "Implementing both 'backward' and 'vjp' for a custom Function is not allowed. You should only implement one of them.",
        )
    return cls.vjp


def source(cls: Any) -> str:
    """Where the Function's own backward is written."""
    fn: Any = cls.backward if cls.vjp is UNSET["vjp"] else cls.vjp
    fn = getattr(fn, "__wrapped__", fn)
    code = getattr(fn, "__code__", None)
    if code is None:
        return f"Its backward is {fn!r}"
    return f"Its backward is at {code.co_filename}:{line_of((code, 0))[1]}"


def incorrect_number(cls: Any, grads: tuple[Any, ...], n: int) -> tuple[Any, ...]:
    """The gradients without the Nones that may follow them; an error if there are too few or too many."""
    if len(grads) > n and all([x is None for x in grads[n:]]):
        return grads[:n]
    raise error(
        RuntimeError,
        f"function {cls._backward_cls.__name__} returned an incorrect number of gradients (expected {n}, got {len(grads)})",
        hint=source(cls) + "\n  It returns one for each argument of forward, None for those that are no tensors.",
    )


def expandable(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    return len(shape) <= len(to) and all([a == b or a == 1 for a, b in zip(reversed(shape), reversed(to))])


# ---- saved tensors ------------------------------------------------------------------------------------------------
def unpacked(node: Node, s: Any) -> Tensor | None:
    return s.unpack(node, True) if s.__class__ is SavedOutput else unpack_tensor(node, s)


def save(node: BackwardCFunction, given: Any, outs: Any, final: list[Any], args: tuple[Any, ...], m: Any) -> tuple[Any, ...]:
    """An entry for each tensor to save. Outputs are saved without their history, which would be a cycle."""
    entries: list[Any] = []
    for i, t in enumerate(given):
        if t is not None and not isinstance(t, Tensor):
            raise error(
                TypeError, f"save_for_backward can only save variables, but argument {i} is of type {type(t).__name__}",
                hint="Keep what is no tensor as an attribute: ctx.name = value.",
            )  # fmt: skip
        nr = output_number(t, outs, final, args)
        if t is None:
            entries.append(None)
        elif nr is None:
            entries.append(save_tensor(t, m))
        else:
            s = SavedOutput(final[nr])
            s.nr, s.fw = nr, final[nr]._fw
            if m.__class__ is Modes and m.pack_hooks is not None:
                packed = pack(s.kept(), m.pack_hooks)
                s.hand_over(packed.value, packed.unpack)
            entries.append(s)
    return tuple(entries)


def output_number(t: Any, outs: Any, final: list[Any], args: tuple[Any, ...]) -> int | None:
    """Which differentiable output ``t`` is; an input that is returned as it came counts as an input."""
    for nr in range(len(outs) - 1, -1, -1):
        o = outs[nr]
        if t is o and t is not None and final[nr]._rg:
            return nr if final[nr] is o or not any([t is a for a in args]) else None
    return None


class Saved:
    """What ``saved_values.SavedTensor`` takes for a node: ``saved`` itself is a name that programs may use on ctx."""

    __slots__ = ("node",)

    def __init__(self, node: BackwardCFunction) -> None:
        self.node = node

    @property
    def saved(self) -> Any:
        return self.node._saved

    @saved.setter
    def saved(self, entries: Any) -> None:
        self.node._saved = entries

    def __getattr__(self, name: str) -> Any:
        return getattr(self.node, name)


# ---- outputs ------------------------------------------------------------------------------------------------------
def outputs(node: BackwardCFunction, args: tuple[Any, ...], outs: tuple[Any, ...], recording: bool) -> list[Any]:
    """What ``apply`` returns for what ``forward`` returned."""
    dirty = marked(node.dirty_tensors, "mark_dirty can only accept variables, but argument is of type")
    skip = marked(node.non_differentiable, "mark_non_differentiable only accepts variable arguments, but got")
    given = {id(a) for a in args if isinstance(a, Tensor)}
    count = len(outs)
    if dirty and not dirty <= {id(o) for o in outs}:
        raise error(
            RuntimeError,
            "Some elements marked as dirty during the forward method were not returned as output. The inputs that are modified "
            "inplace must all be outputs of the Function.",
        )
    for t in node.dirty_tensors or ():
        refuse_dirty(t, id(t) in given, recording and id(t) not in skip, count)
    for t in node.dirty_tensors or ():
        ip.changed(t)
    for nr, o in enumerate(outs if recording else ()):
        if id(o) in dirty and id(o) not in skip and o._a.dtype.kind not in "biu":
            ip.rebase(o, node, nr)
    final: list[Any] = []
    differentiable: list[Tensor] = []
    views: list[Tensor] = []
    for nr, o in enumerate(outs):
        if not isinstance(o, Tensor):
            final.append(o)
            continue
        is_input, is_dirty = id(o) in given, id(o) in dirty
        if not recording or id(o) in skip or o._a.dtype.kind in "biu":
            if o._rg:
                o = o._detached()
            elif is_input and not is_dirty:
                o = make_view(o, o._a)
        elif is_dirty:
            differentiable.append(o)
        else:
            if is_input:
                o = make_view(o, o._viewable())
            o._grad_fn, o._rg, o._nr = node, True, nr
            differentiable.append(o)
        final.append(o)
        if o._base is not None and not (is_input and is_dirty):
            views.append(o)
    for v in views:
        v._view_kind = "function"
        remembered(v)
    if len(differentiable) > 1:
        for o in differentiable:
            if o._base is not None:
                o._view_kind = "multi"
    return final


def remembered(v: Tensor) -> None:
    """Let the base know the view again, which it may have forgotten when ``forward`` changed it."""
    views = v._base._views  # type: ignore[union-attr]
    if views is None:
        v._base._views = [weakref.ref(v)]  # type: ignore[union-attr]
    elif not any([r() is v for r in views]):
        views.append(weakref.ref(v))


def marked(tensors: Any, complaint: str) -> set[int]:
    for t in tensors or ():
        if not isinstance(t, Tensor):
            raise error(RuntimeError, f"{complaint} {type(t).__name__}")
    return {id(t) for t in tensors or ()}


def refuse_dirty(t: Tensor, is_input: bool, differentiable: bool, count: int) -> None:
    """Refuse, in PyTorch's words, what a Function may not change in place."""
    if not differentiable:
        return
    if t._rg and t._grad_fn is None:
        raise error(
            RuntimeError, "a leaf Variable that requires grad has been used in an in-place operation.",
            hint="Give the Function a copy: x.clone().",
        )  # fmt: skip
    if not is_input:
        warnings.warn(
            "ctx.mark_dirty() received a tensor that was not an input. Only input Tensors that have been mutated should be passed to "
            "ctx.mark_dirty().",
            UserWarning,
            stacklevel=4,
        )
    if t._base is not None and count > 1:
        raise error(
            RuntimeError,
            "If your Function modifies inplace an input that is a view of another Tensor, your Function cannot return more than one "
            "Tensor. This is not supported by the current autograd engine. You should either make sure the input is not a view (using "
            ".clone() for example) or make your Function only return one Tensor (potentially splitting it into two Functions: one doing "
            "the inplace that returns a single Tensor and a second one that does the other operations).",
        )
    ip.check_writable(t)
