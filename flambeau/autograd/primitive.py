"""How an operator is declared, once: its kernel on arrays, and its derivative as rules.

    @primitive(vjp={"a": lambda g, b: g @ b.mH, "b": lambda g, a: a.mH @ g})
    def mm(a, b, /):
        return matmul(a, b)

The arguments before ``/`` are tensors (or None), those after it are parameters. The kernel gets arrays and returns
an array, or a tuple of them. A rule's parameter names say what it needs, and so what is saved for it:

===============  ===================================================================================================
``g``            gradient of the output; a tuple, zeros filled in, when there are several
``x``            an argument of the kernel, tensor or parameter
``out``          the output (a tuple when there are several)
``x_shape``      shape of an argument, without keeping its values; likewise ``x_dtype``
``needs``        which tensor arguments want a gradient, a tuple of bools
a name in aux    an extra array that the kernel returns after its outputs
===============  ===================================================================================================

``vjp`` is a dict with one rule for each differentiable argument, or one function that returns a tuple. Rules are
written with public operators, so that a backward pass that records is differentiable again. Where a rule uses
``aux`` it isn't, and ``composite``, the same operator in public operators, takes its place.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from ..core.errors import error, here, memory_error
from ..core.modes import Modes, enable_grad, mode, no_grad
from ..core.tensor import InferenceCounter, Tensor, make_view, new_tensor
from .forbidden import check_inference_saved, made_unrecorded
from .node import FREED, Node, SavedOutput, accumulator, carrying, freed_error, next_seq, unpacked_by, version_error
from .transforms.interpret import interpret

ndarray = np.ndarray
asarray = np.asarray

# What a rule may ask for.
G, TENSOR, PARAM, OUT, SHAPE, DTYPE, AUX, NEEDS = range(8)

PRIMITIVES: dict[str, Primitive] = {}


def camel(name: str) -> str:
    return "".join(p[:1].upper() + p[1:] for p in name.split("_"))


class PrimitiveNode(Node):
    """A node whose rules are its primitive's; each primitive has a subclass, named as PyTorch names it."""

    __slots__ = ("plan", "meta")
    op: Primitive
    plan: Plan
    meta: Any  # shapes and dtypes of the outputs, where there are several

    def apply(self, g: Any, wanted: Any = None) -> tuple[Any, ...]:
        saved = self.saved
        if saved is FREED:
            raise freed_error(self)
        plan, op = self.plan, self.op
        if self.n_outputs != 1:
            g = tuple([zeros_for(m) if gi is None else gi for gi, m in zip(g, self.meta)])
        m = mode()
        recording = m is not False and (m is True or m.grad)
        if op.composite is not None and (recording or m.__class__ is Modes and m.transformed):
            return through_composite(self, g, recording)
        values = [g, *saved] if not plan.packed else [g, *unpack(self, plan, saved, recording)]
        if plan.joint is not None:
            needs = tuple([n is not None and (wanted is None or n in wanted) for n in self.next])
            if plan.needs_slot:
                values[plan.needs_slot] = needs
            grads = op.joint(*[values[i] for i in plan.joint])  # type: ignore[misc]
            return grads if grads.__class__ is tuple else (grads,)
        out: list[Any] = []
        for n, rule, slots in zip(self.next, plan.rules, plan.slots):
            if n is None or rule is None or wanted is not None and n not in wanted:
                out.append(None)
            else:
                out.append(rule(*[values[i] for i in slots]))
        return tuple(out)

    def release(self) -> None:
        if self.plan.packed:
            self.saved = FREED


class Plan:
    """For one choice of inputs that require grad: what to save, and which of it each rule takes."""

    __slots__ = ("kinds", "rules", "slots", "joint", "packed", "needs_slot", "names")

    def __init__(self, op: Primitive, needs: tuple[bool, ...]) -> None:
        self.names: list[str] = []
        self.needs_slot = 0
        self.rules: list[Any] = []
        self.slots: list[Any] = []
        self.joint: list[int] | None = None
        if op.joint is not None:
            self.joint = [self._slot(n) for n in op.joint_needs]
        else:
            for name, needed in zip(op.tensors, needs):
                rule = op.rules.get(name) if needed else None
                self.rules.append(rule)
                self.slots.append([self._slot(n) for n in op.rule_needs[name]] if rule is not None else ())
        if op.composite is not None:
            for name in (*op.tensors, *op.params):
                self._slot(name)
        self.kinds = [op.kind_of(n) for n in self.names]
        # Only tensors have versions to check and memory to free.
        self.packed = any(k in (TENSOR, OUT, AUX) for k, _ in self.kinds)

    def _slot(self, name: str) -> int:
        if name == "g":
            return 0
        if name not in self.names:
            self.names.append(name)
        i = self.names.index(name) + 1
        if name == "needs":
            self.needs_slot = i
        return i


class Primitive:
    """A declared operator. Calling it runs the kernel and, if a gradient may be wanted, records a node."""

    def __init__(
        self,
        kernel: Callable[..., Any],
        name: str,
        node: str,
        vjp: Any,
        aux: tuple[str, ...],
        composite: Any,
        view: str | None,
        jvp: Any = None,
        batch: Any = None,
    ) -> None:
        self.kernel, self.name, self.aux, self.composite, self.view = kernel, name, aux, composite, view
        self.jvp, self.batch = jvp, batch
        self.joint = vjp if callable(vjp) else None
        self.rules: dict[str, Any] = vjp if isinstance(vjp, dict) else {}
        self.differentiable = bool(vjp)
        self.plans: dict[tuple[bool, ...], Plan] = {}
        self.node_name = node
        self.__doc__, self.__name__ = kernel.__doc__, name
        PRIMITIVES[name] = self

    def __getattr__(self, name: str) -> Any:
        """What follows from the signatures is worked out at the first use: importing declares hundreds of operators."""
        if name not in ("variadic", "tensors", "params", "nt", "rule_needs", "joint_needs", "Node"):
            raise AttributeError(name)
        parameters = inspect.signature(self.kernel).parameters.values()
        self.variadic = any(p.kind is p.VAR_POSITIONAL for p in parameters)
        tensors = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.VAR_POSITIONAL)]
        params = [p.name for p in parameters if p.name not in tensors]
        if not tensors:  # no "/": every argument is a tensor
            tensors, params = params, []
        self.tensors, self.params = tuple(tensors), tuple(params)
        self.nt = len(tensors)
        self.rule_needs = {k: rule_parameters(r) for k, r in self.rules.items()}
        self.joint_needs = rule_parameters(self.joint) if self.joint else ()
        self.Node = type(self.node_name, (PrimitiveNode,), {"__slots__": (), "op": self})
        return getattr(self, name)

    def kind_of(self, name: str) -> tuple[int, int]:
        """Where the value called ``name`` comes from: (kind, position)."""
        if name in self.tensors:
            return TENSOR, self.tensors.index(name)
        if name in self.params:
            return PARAM, self.nt + self.params.index(name)
        if name == "out":
            return OUT, 0
        if name == "needs":
            return NEEDS, 0
        if name in self.aux:
            return AUX, self.aux.index(name)
        for suffix, kind in (("_shape", SHAPE), ("_dtype", DTYPE)):
            if name.endswith(suffix) and name[: -len(suffix)] in self.tensors:
                return kind, self.tensors.index(name[: -len(suffix)])
        raise TypeError(f"{self.name}: a rule asks for {name!r}, which is no argument, output or aux of it")

    def __call__(self, *args: Any, **params: Any) -> Any:
        m = mode()
        if m.__class__ is Modes and m.transformed:
            return interpret(self, m, args, params)
        try:
            if self.variadic:
                tensors: Any = args
                result = self.kernel(*[t._a for t in args], **params)
                args = (args, *[params[p] for p in self.params])
            else:
                nt = self.nt
                if nt == 1:
                    x = args[0]
                    tensors = (x,)
                    result = self.kernel(x._a, *args[1:])
                else:
                    tensors = args[:nt]
                    result = self.kernel(*[None if t is None else t._a for t in tensors], *args[nt:])
        except MemoryError as e:
            raise memory_error(e) from None
        except AttributeError:
            self.check_tensors(args)
            raise
        if result.__class__ is tuple:
            return self.several(tensors, args, result, m)
        if self.view is not None:
            out = make_view(tensors[0], result)
            if m is not True:
                made_unrecorded(out, m)
        else:
            out = new_tensor(Tensor)
            out._a = result if result.__class__ is ndarray else asarray(result)
            out._grad_fn = None
            out._rg = False
            if m.__class__ is Modes and m.inference:
                out._vc = InferenceCounter()
        if self.differentiable:
            for t in tensors:
                if t is not None and t._rg:
                    if m is True or m is not False and m.grad:
                        self.record(tensors, args, out, None, (), m)
                    break
        return out

    def check_tensors(self, args: Any) -> None:
        """Raise PyTorch's TypeError if something else was given for a tensor."""
        for i, x in enumerate(args if self.variadic else args[: self.nt]):
            if x is not None and not isinstance(x, Tensor):
                name = self.tensors[0] if self.variadic else self.tensors[i]
                raise error(TypeError, f"{self.name}(): argument '{name}' (position {i + 1}) must be Tensor, not {type(x).__name__}")

    def several(self, tensors: Any, args: Any, result: tuple[Any, ...], m: Any) -> Any:
        """The outputs of a kernel that returned a tuple: those before the aux arrays."""
        n = len(result) - len(self.aux)
        if self.view is not None:
            outs = tuple([make_view(tensors[0], r, self.view) for r in result])
            if m is not True:
                for o in outs:
                    made_unrecorded(o, m)
        else:
            outs = tuple([wrap_any(r) for r in result[:n]])
            if m.__class__ is Modes and m.inference:
                for o in outs:
                    o._vc = InferenceCounter()
        single = n == 1 and self.view is None
        if self.differentiable and any(t is not None and t._rg for t in tensors):
            if m is True or m is not False and m.grad:
                self.record(tensors, args, outs[0] if single else None, outs, result[n:], m)
        return outs[0] if single else outs

    def record(self, tensors: Any, args: Any, out: Tensor | None, outs: tuple[Tensor, ...] | None, aux: Any, m: Any) -> None:
        """Make the node of a call; ``out`` is the one output, or None and ``outs`` are several."""
        if out is not None:
            if out._a.dtype.kind in "biu":
                return
        elif all([o._a.dtype.kind in "biu" for o in outs]):  # type: ignore[union-attr]
            return
        nodes: list[Any] = []
        nrs = None
        i = 0
        for t in tensors:
            if t is None or not t._rg:
                nodes.append(None)
            else:
                fn = t._grad_fn
                nodes.append(accumulator(t) if fn is None else fn)
                if t._nr:
                    if nrs is None:
                        nrs = [0] * len(tensors)
                    nrs[i] = t._nr
            i += 1
        needs = (True,) if self.variadic else (True,) if i == 1 else tuple([n is not None for n in nodes])
        plan = self.plans.get(needs)
        if plan is None:
            plan = self.plans[needs] = Plan(self, needs)
        node = new_node(self.Node if out is not None else multi(self.Node, len(outs)))  # type: ignore[arg-type]
        node.next = tuple(nodes)
        node.nrs = None if nrs is None else tuple(nrs)
        node.seq = next_seq()
        node.extra = None
        node.where = here(3)
        node.plan = plan
        if out is not None:
            out._grad_fn = node
            out._rg = True
            outs = (out,)
        else:
            node.meta = tuple([(o._a.shape, o._a.dtype) for o in outs])  # type: ignore[union-attr]
            for nr, o in enumerate(outs):  # type: ignore[arg-type]
                if o._a.dtype.kind not in "biu":
                    o._grad_fn = node
                    o._rg = True
                    o._nr = nr
        node.saved = save(plan, args, outs, aux, m) if plan.kinds else ()  # type: ignore[arg-type]
        if m is not True and m.anomaly is not None:
            from .anomaly_mode import note

            note(node)


new_node: Callable[[type], Any] = object.__new__


def multi(cls: type, n: int) -> type:
    """The node class with ``n`` slots of gradient."""
    found = _MULTI.get((cls, n))
    if found is None:
        found = _MULTI[cls, n] = type(cls.__name__, (cls,), {"__slots__": (), "n_outputs": n})
    return found


_MULTI: dict[Any, Any] = {}


def zeros_for(meta: tuple[Any, Any]) -> Tensor:
    t = new_tensor(Tensor)
    t._a, t._grad_fn, t._rg = np.zeros(meta[0], meta[1]), None, False
    return t


def wrap_any(r: Any) -> Tensor:
    t = new_tensor(Tensor)
    t._a = r if r.__class__ is ndarray else asarray(r)
    t._grad_fn, t._rg = None, False
    return t


def rule_parameters(rule: Any) -> tuple[str, ...]:
    return tuple(inspect.signature(rule).parameters)


def save(plan: Plan, args: Any, outs: tuple[Tensor, ...], aux: Any, m: Any) -> tuple[Any, ...]:
    """What the plan asks for: tensors as (tensor, version), outputs without their history, the rest as it is."""
    values: list[Any] = []
    for kind, i in plan.kinds:
        if kind == TENSOR:
            t = args[i]
            if t is None:
                values.append(None)
            elif t.__class__ is tuple:
                values.append(tuple([save_tensor(x, m) for x in t]))
            else:
                values.append(save_tensor(t, m))
        elif kind == PARAM:
            values.append(args[i])
        elif kind == SHAPE:
            t = args[i]
            values.append(None if t is None else tuple([x._a.shape for x in t]) if t.__class__ is tuple else t._a.shape)
        elif kind == OUT:
            values.append(save_output(outs[0], m) if len(outs) == 1 else tuple([save_output(o, m) for o in outs]))
        elif kind == AUX:
            a = aux[i]
            values.append(pack(wrap_any(a), m.pack_hooks) if m is not True and m.pack_hooks is not None and a.__class__ is ndarray else a)
        elif kind == DTYPE:
            t = args[i]
            values.append(None if t is None else tuple([x.dtype for x in t]) if t.__class__ is tuple else t.dtype)
        else:
            values.append(None)
    return tuple(values)


class Packed:
    """A saved tensor in the hands of ``saved_tensors_hooks``."""

    __slots__ = ("value", "unpack", "node", "nr", "rg", "fw")
    value: Any
    unpack: Any
    node: Node | None
    nr: int
    rg: bool
    fw: Any  # its tangents


def save_tensor(t: Tensor, m: Any) -> Any:
    if m is not True and m.pack_hooks is not None:
        check_inference_saved(t)
        return pack(t, m.pack_hooks)
    vc = t._vc
    if vc is None:
        return (t, 0)
    if vc.__class__ is InferenceCounter:
        check_inference_saved(t)
    return (t, vc[0])


def save_output(t: Tensor, m: Any) -> SavedOutput:
    s = SavedOutput(t)
    if m is not True and m is not False and m.pack_hooks is not None:
        packed = pack(s.kept(), m.pack_hooks)
        s.hand_over(packed.value, packed.unpack)
    return s


def pack(t: Tensor, hooks: Any) -> Packed:
    p = Packed()
    pack_hook, p.unpack = hooks
    p.node = t._grad_fn if t._grad_fn is not None else accumulator(t) if t._rg else None
    p.nr, p.rg, p.fw = t._nr, t._rg, t._fw
    p.value = packed_by(pack_hook, t)
    return p


def packed_by(pack_hook: Callable[[Tensor], Any], t: Tensor) -> Any:
    """What a pack hook makes of a tensor, with recording off."""
    before = t._version
    with no_grad():
        made = pack_hook(t)
    if t._version != before:
        raise error(
            RuntimeError,
            "A saved tensor pack hook is modifying its input in place. Tensors provided as input to pack hook cannot be "
            "modified by in-place operations as this can lead to unexpected side-effects. Please open an issue if you need "
            "to perform in-place operations on the input to a pack hook.",
        )
    return made


def unpack_tensor(node: Node, s: Any) -> Tensor | None:
    """The tensor behind a saved entry, if it is unchanged."""
    if s is None:
        return None
    if s.__class__ is tuple:
        t, version = s
        vc = t._vc
        if vc is not None and vc[0] != version:
            raise version_error(node, t, version, vc)
        return t
    value = unpacked_by(s.unpack, s.value)
    if s.rg:
        r = value._detached()
        r._rg = True
        if isinstance(s.node, Node) and type(s.node).__name__ != "AccumulateGrad":
            r._grad_fn = s.node
        else:
            r = s.node.variable if value is s.node.variable else _leaf_alias(r, s.node)
        if s.nr:
            r._nr = s.nr
        if s.fw is not None:
            r._fw = s.fw
        return r
    return carrying(value, s.fw)


def _leaf_alias(t: Tensor, acc: Any) -> Tensor:
    t._grad_fn = acc  # gradients of the unpacked copy go to the leaf itself
    return t


def unpack(node: Node, plan: Plan, saved: tuple[Any, ...], recording: bool) -> list[Any]:
    values: list[Any] = []
    for (kind, _), s in zip(plan.kinds, saved):
        if kind == TENSOR:
            if s.__class__ is tuple and len(s) == 2 and s[1].__class__ is int:
                t, version = s
                vc = t._vc
                if vc is not None and vc[0] != version:
                    raise version_error(node, t, version, vc)
                values.append(t)
            elif s.__class__ is tuple:
                values.append(tuple([unpack_tensor(node, x) for x in s]))
            else:
                values.append(unpack_tensor(node, s))
        elif kind == OUT:
            values.append(s.unpack(node, recording) if s.__class__ is SavedOutput else tuple([x.unpack(node, recording) for x in s]))
        elif kind == AUX:
            if s.__class__ is Packed:
                values.append(unpack_tensor(node, s))
            else:
                values.append(wrap_any(s) if s.__class__ is ndarray or isinstance(s, np.generic) else s)
        else:
            values.append(s)
    return values


def through_composite(node: PrimitiveNode, g: Any, recording: bool) -> tuple[Any, ...]:
    """Gradients by differentiating the composite form: for passes that record or are transformed."""
    from .engine import grad

    op, plan = node.op, node.plan
    by_name = dict(zip(plan.names, unpack(node, plan, node.saved, True)))
    inputs = [by_name[n] for n in op.tensors]
    with enable_grad():
        if op.variadic:
            aliases: list[Any] = [alias(t) for t in inputs[0]]
            outs = op.composite(*aliases, **{p: by_name[p] for p in op.params})
        else:
            aliases = [None if t is None else alias(t) for t in inputs]
            outs = op.composite(*aliases, *[by_name[p] for p in op.params])
    outs = outs if isinstance(outs, tuple) else (outs,)
    gs = g if isinstance(g, tuple) else (g,)
    pairs = [(o, gi) for o, gi in zip(outs, gs) if isinstance(o, Tensor) and o._rg]
    wants = [a for a, n in zip(aliases, node.next) if n is not None]
    if not pairs:
        return (None,) * len(node.next)
    found = iter(
        grad([o for o, _ in pairs], wants, [gi for _, gi in pairs], create_graph=recording, allow_unused=True)
    )
    return tuple([next(found) if n is not None else None for n in node.next])


def alias(t: Tensor) -> Tensor:
    """The same values as a point of the graph of its own."""
    if not t._rg:
        return t
    return _alias(t)


def primitive(
    name: str | None = None,
    *,
    node: str | None = None,
    vjp: Any = None,
    aux: tuple[str, ...] = (),
    composite: Any = None,
    view: str | None = None,
    jvp: Any = None,
    batch: Any = None,
) -> Callable[[Callable[..., Any]], Primitive]:
    """Declare an operator; see the module's text.

    Args:
        name: PyTorch's name; default: the kernel's.
        node: name of its nodes; default ``CamelCaseBackward0``.
        view: for operators whose kernel returns NumPy views: "one", or "multi" where several come out.
        jvp: its rule for forward mode; see ``transforms/jvp.py``.
        batch: its rule for vmap; see ``transforms/batching.py``.
    """

    def declare(kernel: Callable[..., Any]) -> Primitive:
        n = name or kernel.__name__
        return Primitive(kernel, n, node or camel(n) + "Backward0", vjp, aux, composite, view, jvp, batch)

    return declare


@primitive("alias", vjp={"x": lambda g: g}, jvp="linear", batch={})
def _alias(x: Any, /) -> Any:
    return x
