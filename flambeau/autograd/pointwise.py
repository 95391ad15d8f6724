"""Pointwise operators: each is one expression.

    sigmoid = pointwise("sigmoid", F.sigmoid(x), grad={"x": g * out * (1 - out)})

From the expression come the kernels (``flambeau.kernels``), the derivative with respect to every operand, by symbolic
differentiation unless a better form is given, and, since the derivative is an operator of the same sort, derivatives
of every order. Operands are tensors or Python numbers; broadcasting and promotion are PyTorch's. For complex
operands a rule's other values are conjugated, which is PyTorch's convention for holomorphic functions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..core import dtypes
from ..core.dtypes import BOOL, COMPLEX, FLOAT, FROM_NP, INT, dtype
from ..core.errors import error, here, memory_error
from ..core.modes import Modes, full, mode
from ..core.tensor import InferenceCounter, Tensor, new_tensor, wrap
from ..kernels import expr as E
from ..kernels import ufunc
from ..kernels.diff import diff
from ..kernels.ufunc import kernel
from .changes import open_contexts
from .forbidden import check_inference_saved
from .holders import ALONE, owns_memory, references
from .node import FREED, Node, SavedOutput, accumulator, freed_error, next_seq, note_change, version_error
from .primitive import camel, pack, save_output, unpack_tensor
from .transforms.interpret import interpret

ndarray = np.ndarray
asarray = np.asarray
new_node: Callable[[type], Any] = object.__new__
LARGE = ufunc.LARGE  # elements from which the threaded kernel beats the quick one

POINTWISE: dict[str, Pointwise] = {}
_declared: list[Pointwise] = []  # not yet in _BY_EXPR
_BY_EXPR: dict[Any, Pointwise] = {}  # canonical form -> operator, so that d(x*y)/dx is mul itself

NUMBER = (int, float, complex, bool, np.number, np.bool_)
QUICK = frozenset((int, float))

# How the result's dtype follows from the promoted one.
PROMOTE: dict[str, Callable[[dtype], dtype]] = {
    "default": lambda d: d,
    "float": lambda d: d if d.category >= FLOAT else dtypes.get_default_dtype(),
}


class PointwiseNode(Node):
    """A node whose rules are derived from its operator's expression."""

    __slots__ = ("plan", "versions", "fix")
    op: Pointwise
    plan: Plan
    versions: tuple[int, ...] | None  # None: only floats and tensors at version 0 are saved, as nearly always
    fix: Any  # per input: (shape to sum to or None, dtype to cast to or None), or None if nothing is to be fixed

    def apply(self, g: Any, wanted: Any = None) -> tuple[Any, ...]:
        values = self.saved
        if values:
            if self.versions is not None or values is FREED:
                values = self.unpack(values)
            else:
                for v in values:
                    if v is not None and v.__class__ is not float:
                        vc = v._vc
                        if vc is not None and vc[0]:
                            raise version_error(self, v, 0, vc)
        nodes, rules, fix = self.next, self.plan.rules, self.fix
        if g._a.size > LARGE and references(g) == ALONE and wanted is None and fix is None and self.extra is None:
            overwritten = self.overwrite(g, values)
            if overwritten is not None:
                return overwritten
        if wanted is None and fix is None and len(nodes) == 2:  # the common case, without a loop
            n, m = nodes
            gx = gy = None
            if n is not None:
                rule, slots = rules[0]
                gx = g if rule is None else rule(g, values[slots]) if slots.__class__ is int else rule(*[g if s < 0 else values[s] for s in slots])
            if m is not None:
                rule, slots = rules[1]
                gy = g if rule is None else rule(g, values[slots]) if slots.__class__ is int else rule(*[g if s < 0 else values[s] for s in slots])
            return gx, gy
        out: list[Any] = []
        i = 0
        for n in nodes:
            if n is None or wanted is not None and n not in wanted:
                out.append(None)
            else:
                rule, slots = rules[i]
                if rule is None:
                    gi = g
                elif slots.__class__ is int:
                    gi = rule(g, values[slots])
                else:
                    gi = rule(*[g if s < 0 else values[s] for s in slots])
                if fix is not None and fix[i] is not None:
                    gi = fit(gi, fix[i])
                out.append(gi)
            i += 1
        return tuple(out)

    def overwrite(self, g: Tensor, values: Any) -> tuple[Any, ...] | None:
        """The gradient, computed in the memory of ``g``, which the engine gives up; None where that can't be.

        For one operand that wants it, of the same shape and dtype: saves allocating, and touching, a large array.
        """
        wanting = [i for i, n in enumerate(self.next) if n is not None]
        if len(wanting) != 1 or mode() is not False or not owns_memory(g):
            return None
        op, slots = self.plan.ops[wanting[0]], self.plan.slots[wanting[0]]
        if op is None or op.bools:
            return None
        dt = g._a.dtype
        pair = op.table.get(dt)
        arrays: list[Any] = []
        for s in slots:
            v = g if s < 0 else values[s]
            if v.__class__ is float and dt.kind == "f" and dt.itemsize > 2:
                arrays.append(number(v, FROM_NP[dt]))
            elif isinstance(v, Tensor) and v._a.shape == g._a.shape and v._a.dtype is dt:
                arrays.append(v._a)
            else:
                return None
        if pair is None:
            return None
        pair[1](*arrays, out=g._a)
        return tuple([g if n is not None else None for n in self.next])

    def unpack(self, saved: Any) -> list[Any]:
        """The saved values, where one is an output, was changed before it was saved, or is in the hands of a hook."""
        if saved is FREED:
            raise freed_error(self)
        recording = mode() is not False and full().grad
        values: list[Any] = []
        for i, v in enumerate(saved):
            if v.__class__ is SavedOutput:
                v = v.unpack(self, recording)
            elif isinstance(v, Tensor):
                v = unpack_tensor(self, (v, self.versions[i]))  # type: ignore[index]
            elif v is not None and not isinstance(v, NUMBER):
                v = unpack_tensor(self, v)
            values.append(v)
        return values

    def release(self) -> None:
        if self.plan.tensors:
            self.saved = FREED


def fit(g: Tensor, fix: tuple[Any, Any]) -> Tensor:
    """Undo broadcasting and promotion on a gradient."""
    shape, d = fix
    if d is not None:
        if d.category < COMPLEX and g._a.dtype.kind == "c":
            g = g.real
        if g.dtype is not d:
            g = g.to(d)
    return g if shape is None or g._a.shape == shape else g.sum_to_size(shape)


def zeros_like(g: Tensor) -> Tensor:
    return wrap(np.zeros(g._a.shape, g._a.dtype))


class Plan:
    """For one choice of operands that require grad: what to save, and each one's rule.

    A rule is (operator, slots): its operands are ``g`` (slot -1), the saved operands (their position) and the output
    (the last position); one int stands for ``(g, that slot)``. (None, ()) passes ``g`` on. A derivative that is zero
    everywhere gives zeros, as PyTorch's do.
    """

    __slots__ = ("keep", "keep_out", "rules", "tensors", "ops", "slots")

    def __init__(self, op: Pointwise, needs: tuple[bool, ...], conj: bool) -> None:
        derivs = [op.derivative(i, conj) if needed else None for i, needed in enumerate(needs)]
        names = {v for d in derivs if d is not None for v in d.args}
        self.keep = tuple([i for i, a in enumerate(op.args) if a in names])
        self.keep_out = "out" in names
        slot = {a: i for i, a in enumerate((*op.args, "out"))}
        slot["g"] = -1
        self.rules: list[Any] = []
        self.ops = [None if d is None else d.op for d in derivs]
        self.slots: list[tuple[int, ...]] = []
        for d, needed in zip(derivs, needs):
            slots: Any = () if d is None else tuple([slot[a] for a in d.args])
            self.slots.append(slots)
            if d is None:
                self.rules.append((zeros_like, (-1,)) if needed else None)
            elif d.expr is _G:
                self.rules.append((None, ()))
            else:
                self.rules.append((d.call, slots[1] if len(slots) == 2 and slots[0] == -1 else slots))
        self.tensors = bool(self.keep) or self.keep_out


_G, _OUT = E.var("g"), E.var("out")


class Pointwise:
    """A pointwise operator. ``call(*operands)`` computes and records; ``inplace`` writes into the first operand."""

    def __init__(
        self,
        name: str,
        expr: Any,
        args: tuple[str, ...],
        node: str,
        grad: dict[str, Any] | None,
        promote: str,
        differentiable: bool,
        refuse: dict[Any, str],
        bools: tuple[str, ...],
        check: Callable[[tuple[Any, ...]], None] | None = None,
    ) -> None:
        self.name, self.expr, self.args, self.promote, self.check = name, expr, args, promote, check
        self.given, self.differentiable, self.refuse, self.bools = grad or {}, differentiable, refuse, bools
        self.derivs: dict[tuple[int, bool], Renamed | None] = {}
        self.plans: dict[tuple[bool, ...], Plan] = {}
        self.conj_plans: dict[tuple[bool, ...], Plan] = {}
        self.table: dict[Any, tuple[Any, Any]] = {}  # NumPy dtype -> (kernel for few elements, for many)
        self._kernel: Any = None
        self.node_name = node
        self.call: Callable[..., Tensor] = {1: unary, 2: binary}.get(len(args), nary)(self)
        # a plain function, which a class binds as a method
        self.inplace: Callable[..., Tensor] = lambda input, *others: self.write(input, *others)

    def __getattr__(self, name: str) -> Any:
        if name != "Node":
            raise AttributeError(name)
        self.Node = type(self.node_name, (PointwiseNode,), {"__slots__": (), "op": self})
        return self.Node

    round_numbers = False  # whether Python numbers are rounded to half precision first, as PyTorch's sums do

    # ---- kernels ----------------------------------------------------------------------------------------------
    def kernels(self, np_dtype: Any) -> tuple[Any, Any]:
        """The two kernels for a compute dtype, made on first use."""
        pair = self.table.get(np_dtype)
        if pair is None:
            if self._kernel is None:
                self._kernel = kernel(self.expr, self.args, self.name)
            pair = (self._kernel.small(np_dtype), self._kernel.large(np_dtype))
            checked = self.check is not None and FROM_NP[np_dtype].category < FLOAT
            if not self.refusal(FROM_NP[np_dtype]) and not self.bools and not checked:
                if self.promote == "default" or FROM_NP[np_dtype].category >= FLOAT:
                    self.table[np_dtype] = pair
        return pair

    def refusal(self, rt: dtype) -> str | None:
        """Why operands of this promoted dtype are refused; None if they aren't."""
        return self.refuse and (self.refuse.get(rt) or self.refuse.get(rt.category)) or None

    def derivative(self, i: int, conj: bool) -> Renamed | None:
        """The operator that turns ``g`` into the gradient of operand ``i``; None if that is zero everywhere."""
        key = (i, conj)
        if key not in self.derivs:
            arg = self.args[i]
            e = self.given.get(arg)
            if e is None:
                e = _G * diff(self.expr, arg)
                if len(self.args) == 1:  # from the output where that is enough: exp saves its result, not x
                    short = E.substitute(e, {self.expr: _OUT})
                    if arg not in E.variables(short):
                        e = short
            if conj:
                bar = E.conj(E.var(arg))
                if e is not self.given.get(arg) and bar in E.walk(self.expr):  # a rule of a rule: conj(x) counts as a variable
                    split = E.substitute(self.expr, {bar: E.var("bar")})
                    parts = [E.substitute(diff(split, v), {E.var("bar"): bar}) for v in (arg, "bar")]
                    e = _G * conjugated(parts[0]) + E.conj(_G) * parts[1]
                else:
                    e = conjugated(e)
            self.derivs[key] = derived(self, e)
        return self.derivs[key]

    def operator(self) -> Callable[..., Any]:
        """The call as Python's binary operator: NotImplemented for operands of other classes."""
        general = self.general

        def or_not_implemented(xs: tuple[Any, ...]) -> Any:
            for x in xs:
                if not isinstance(x, (Tensor, ndarray, *NUMBER)):
                    return NotImplemented
            return general(tuple([wrap(x) if isinstance(x, ndarray) else x for x in xs]))

        return binary(self, or_not_implemented)

    def plan_for(self, xs: tuple[Any, ...], conj: bool) -> Plan:
        """What to save, and the rules, for these operands."""
        key = tuple([isinstance(x, Tensor) and x._rg for x in xs])
        plans = self.conj_plans if conj else self.plans
        plan = plans.get(key)
        if plan is None:
            plan = plans[key] = Plan(self, key, conj)
        return plan

    # ---- calls that are not the common case ---------------------------------------------------------------------
    def general(self, xs: tuple[Any, ...], into: Tensor | None = None) -> Tensor:
        """Any operands: numbers, mixed dtypes, promotion; ``into``: the tensor to write to (in-place forms)."""
        m = mode()
        if m.__class__ is Modes and m.transformed and into is None:
            return interpret(self, m, xs, {})
        ct = kt = self.compute_dtype(xs)
        if ct.itemsize == 2 and ct.category == FLOAT and not self.round_numbers and not all([isinstance(x, Tensor) for x in xs]):
            kt = dtypes.float32  # a Python number keeps its digits beside half precision: only the result is rounded
        arrays: list[Any] = []
        for x, a in zip(xs, self.args):
            if isinstance(x, Tensor):
                v = x._a
                want = np.dtype(bool) if a in self.bools else kt.np
                arrays.append(v if v.dtype == want else v.astype(want))
            else:
                arrays.append(number(x, kt))
        small, large = self.kernels(kt.np)
        f = large if max([v.size for v in arrays]) > LARGE else small
        try:
            if into is None:
                r = f(*arrays)
                if kt is not ct and self.result_dtype(ct) is ct:
                    r = r.astype(ct.np)
            elif into._a.dtype == kt.np and self.result_dtype(kt) is kt:
                r = into._a
                f(*arrays, out=r)
            else:
                into._a[...] = f(*arrays).astype(into._a.dtype, copy=False)
                r = into._a
        except ValueError as e:
            raise broadcast_error(arrays, e) from None
        except MemoryError as e:
            raise memory_error(e) from None
        if into is not None:
            return into
        out = new_tensor(Tensor)
        out._a = r if r.__class__ is ndarray else asarray(r)
        out._grad_fn = None
        out._rg = False
        if m.__class__ is Modes and m.inference:
            out._vc = InferenceCounter()
        if self.differentiable and m is not False:
            for x in xs:
                if isinstance(x, Tensor) and x._rg:
                    record(self, xs, out, m)
                    break
        return out

    def __call__(self, *xs: Any) -> Tensor:
        return self.call(*xs)

    def compute_dtype(self, xs: tuple[Any, ...]) -> dtype:
        dims: list[dtype] = []
        zeros: list[dtype] = []
        numbers: list[dtype] = []
        for i, (x, a) in enumerate(zip(xs, self.args)):
            if a in self.bools:
                if isinstance(x, Tensor) and x._a.dtype.kind != "b":
                    raise error(RuntimeError, f"{self.name}() expected condition to be a boolean tensor, but got a tensor with dtype {x.dtype}")
            elif isinstance(x, Tensor):
                (dims if x._a.ndim else zeros).append(x.dtype)
            elif isinstance(x, NUMBER):
                numbers.append(dtypes.of_scalar(x))
            else:
                name = {0: "input", 1: "other"}.get(i, a)
                raise error(TypeError, f"{self.name}(): argument '{name}' (position {i + 1}) must be Tensor, not {type(x).__name__}")
        if self.check is not None:
            self.check(xs)
        rt = dtypes.result_type(dims, zeros, numbers)
        why = self.refusal(dtypes.result_type(dims, zeros, []) if numbers and self.refuse.__class__ is OfTensors else rt)
        if why:
            kind = NotImplementedError if any([phrase in why for phrase in _NOT_IMPLEMENTED]) else RuntimeError
            raise error(kind, why.format(name=self.name, dtype=dtypes.SCALAR_NAMES[rt]))
        return PROMOTE[self.promote](rt)

    def result_dtype(self, ct: dtype) -> dtype:
        return dtypes.bool_ if E.is_bool(self.expr) else ct

    def write(self, x: Any, *others: Any) -> Tensor:
        """The operator, written into its first operand."""
        from . import inplace

        if not isinstance(x, Tensor):
            raise error(TypeError, f"{self.name}_(): argument 'input' (position 1) must be Tensor, not {type(x).__name__}")
        xs = (x, *others)
        m = mode()
        if m.__class__ is Modes and (m.transformed or m.pack_hooks is not None):  # hooks want to see the output
            return inplace.through_value(self.call, x, others)
        if len(others) == 1 and not open_contexts and self.write_plainly(x, others[0]):
            return x
        ct = self.compute_dtype(xs)
        rt = self.result_dtype(ct)
        if not dtypes.can_cast(rt, x.dtype):
            raise error(
                RuntimeError,
                f"result type {dtypes.SCALAR_NAMES[rt]} can't be cast to the desired output type {dtypes.SCALAR_NAMES[x.dtype]}",
            )
        inplace.check_writable(x, needs=any([isinstance(o, Tensor) and o._rg for o in others]))
        for o in others:
            if isinstance(o, Tensor):
                inplace.refuse_overlap(x, o)
        shapes = [o._a.shape for o in others if isinstance(o, Tensor)]
        if shapes:
            try:
                both = np.broadcast_shapes(x._a.shape, *shapes)
            except ValueError as e:
                raise broadcast_error([o._a for o in xs if isinstance(o, Tensor)], e) from None
            if both != x._a.shape:
                raise error(RuntimeError, f"output with shape {list(x._a.shape)} doesn't match the broadcast shape {list(both)}")
        recording = self.differentiable and m is not False and full().grad and any(
            isinstance(o, Tensor) and o._rg for o in xs
        )
        if not recording:
            self.general(xs, into=x)
            inplace.changed(x)
            if not self.differentiable and x._rg and x._grad_fn is not None and m is not False and full().grad:
                inplace.rebase(x, inplace.constant_node(x, self.node_name))  # what it was computed from no longer shows in it
            return x
        before = inplace.before(x)  # its history as it was, without the tensor itself: no cycle
        root = x if x._base is None else x._base
        others = tuple(
            [inplace.before(o) if isinstance(o, Tensor) and (o is root or o._base is root or o is x) else o for o in others]
        )
        if 0 in self.plan_for((before, *others), x._a.dtype.kind == "c").keep:
            before._a, before._vc = x._a.copy(), None  # a rule needs the values that are overwritten
        # The others are saved at the versions that they have now: if they share the storage, the rule will refuse.
        node = record_node(self, (before, *others), x)
        self.general(xs, into=x)
        inplace.changed(x)
        if node.plan.keep_out:
            node.saved[-1].version += 1
        inplace.rebase(x, node)
        return x

    def write_plainly(self, x: Tensor, y: Any) -> bool:
        """The common case of ``write``: one dtype and shape, memory of their own, no history. False: it isn't that."""
        a = x._a
        pair = self.table.get(a.dtype)
        if pair is None or not self.differentiable or x._rg or x._base is not None or x._fw is not None:
            return False
        if x._vc.__class__ is InferenceCounter or not (a.flags.c_contiguous and a.flags.writeable):
            return False
        if y.__class__ in QUICK:
            if a.dtype.kind != "f" or a.itemsize < 4:
                return False
            b = number(float(y), FROM_NP[a.dtype])  # type: ignore[arg-type]
        else:
            if not isinstance(y, Tensor) or y._rg or y._base is not None or y._fw is not None:
                return False
            b = y._a
            if b.dtype is not a.dtype or b.shape != a.shape:
                return False
        pair[a.size > LARGE](a, b, out=a)
        note_change(x)
        return True


def derived(op: Pointwise, e: Any) -> Any:
    """The operator of a rule, an expression in ``g``, the operands of ``op`` and ``out``; None if it is zero."""
    if e is E.ZERO:
        return None
    args = tuple([a for a in ("g", *op.args, "out") if a in E.variables(e)])
    if e is _G:
        return Renamed(None, args, e)
    while _declared:
        other = _declared.pop(0)
        if other.differentiable and not other.bools:
            _BY_EXPR.setdefault(canonical(other.expr, other.args), other)
    known = _BY_EXPR.get(canonical(e, args))
    if known is None:
        # operands of its own names, since "g" and "out" mean other things in its derivative
        fresh = {a: f"v{i}" for i, a in enumerate(args)}
        node = op.Node.__name__.rstrip("0123456789") + "Backward0"
        bools = tuple([fresh[b] for b in op.bools if b in args])
        known = Pointwise(
            f"{op.name}_backward", E.rename(e, fresh), tuple(fresh.values()), node, None, "default", True, {}, bools
        )
    return Renamed(known, args, e)


def conjugated(e: Any) -> Any:
    """With every operand but ``g`` conjugated."""
    return E.substitute(e, {v: E.conj(v) for v in E.walk(e) if v.op == "var" and v.value != "g" and v.dtype is None})


class Renamed:
    """An operator under the names that a rule gives its operands."""

    __slots__ = ("op", "call", "args", "expr")

    def __init__(self, op: Pointwise | None, args: tuple[str, ...], expr: Any) -> None:
        self.op = op
        self.call, self.args, self.expr = None if op is None else op.call, args, expr


def canonical(e: Any, args: tuple[str, ...]) -> Any:
    return E.rename(e, {a: f"_{i}" for i, a in enumerate(args)})


_numbers: dict[Any, np.ndarray] = {}


def number(x: Any, ct: dtype) -> np.ndarray:
    """A Python number as a 0-d array of the compute dtype; the usual ones are kept."""
    if x != x:
        return np.array(x).astype(ct.np)
    key = (x.__class__, x if x or x.__class__ is int else str(x), ct.np)  # 0.0 == -0.0
    a = _numbers.get(key)
    if a is None:
        if len(_numbers) > 4096:
            _numbers.clear()
        if isinstance(x, (int, np.integer)) and ct.category == INT:
            bits = ct.itemsize * 8
            v = int(x) & ((1 << bits) - 1)
            a = np.array(v - (1 << bits) if ct.is_signed and v >> (bits - 1) else v, ct.np)
        else:
            with np.errstate(all="ignore"):
                a = np.array(x).astype(ct.np)
        a.flags.writeable = False
        _numbers[key] = a
    return a


def broadcast_error(arrays: Any, cause: BaseException) -> BaseException:
    """PyTorch's words for shapes that don't broadcast; another ValueError is passed on as it is."""
    shapes = [a.shape for a in arrays]
    for i, s in enumerate(shapes):
        for t in shapes[i + 1 :]:
            n = max(len(s), len(t))
            pairs = list(zip((1,) * (n - len(s)) + s, (1,) * (n - len(t)) + t))
            for d, (p, q) in reversed(list(enumerate(pairs))):
                if p != q and p != 1 and q != 1:
                    return error(
                        RuntimeError,
                        f"The size of tensor a ({p}) must match the size of tensor b ({q}) at non-singleton dimension {d}",
                        hint=f"The shapes are {list(s)} and {list(t)}; sizes are aligned from the right and must agree or be 1.",
                    )
    return cause


# ---- recording ------------------------------------------------------------------------------------------------------
def record(op: Pointwise, xs: tuple[Any, ...], out: Tensor, m: Any) -> None:
    if m is not True and not m.grad or out._a.dtype.kind in "biu":
        return
    out._grad_fn = record_node(op, xs, out)
    out._rg = True


def record_node(op: Pointwise, xs: tuple[Any, ...], out: Tensor) -> PointwiseNode:
    nodes: list[Any] = []
    needs = []
    nrs = None
    fix: Any = None
    shape, dt = out._a.shape, out._a.dtype
    i = 0
    for x in xs:
        if x.__class__ in NUMBER or not isinstance(x, Tensor) or not x._rg:
            nodes.append(None)
            needs.append(False)
        else:
            needs.append(True)
            fn = x._grad_fn
            nodes.append(accumulator(x) if fn is None else fn)
            if x._nr:
                if nrs is None:
                    nrs = [0] * len(xs)
                nrs[i] = x._nr
            a = x._a
            if a.shape != shape or a.dtype is not dt:
                if fix is None:
                    fix = [None] * len(xs)
                fix[i] = (a.shape if a.shape != shape else None, x.dtype if a.dtype is not dt else None)
        i += 1
    key = tuple(needs)
    plan = (op.conj_plans if dt.kind == "c" else op.plans).get(key)
    if plan is None:
        plan = op.plan_for(xs, dt.kind == "c")
    node = new_node(op.Node)
    node.next = tuple(nodes)
    node.nrs = nrs if nrs is None else tuple(nrs)
    node.seq = next_seq()
    node.extra = None
    node.where = here(3)
    node.plan = plan
    node.fix = fix
    node.versions = None
    node.saved = save(node, plan, xs, out) if plan.tensors else ()
    m = mode()
    if m.__class__ is Modes and m.anomaly is not None:
        from .anomaly_mode import note

        note(node)
    return node


def save(node: PointwiseNode, plan: Plan, xs: tuple[Any, ...], out: Tensor) -> tuple[Any, ...]:
    """The operands that the rules need, None in place of the others, and the output if it is needed."""
    saved: list[Any] = [None] * len(xs)
    plain = not plan.keep_out
    for k in plan.keep:
        x = saved[k] = xs[k]
        if isinstance(x, Tensor):
            vc = x._vc
            if vc is not None and vc[0]:
                if vc.__class__ is InferenceCounter:
                    check_inference_saved(x)
                plain = False
        elif x.__class__ is not float:
            plain = False
    m = mode()
    if m is not True and m is not False and m.pack_hooks is not None:
        saved = [pack(s, m.pack_hooks) if isinstance(s, Tensor) else s for s in saved]
        plain = False
    if not plain:
        node.versions = tuple([v._vc[0] if isinstance(v, Tensor) and v._vc is not None else 0 for v in xs])
    if plan.keep_out:
        saved.append(save_output(out, m))
    return tuple(saved)


# ---- the common cases: tensors of one dtype -----------------------------------------------------------------------
def unary(op: Pointwise) -> Callable[..., Tensor]:
    table, differentiable = op.table, op.differentiable

    def call(x: Any) -> Tensor:
        try:
            a = x._a
        except AttributeError:
            raise error(TypeError, f"{op.name}(): argument 'input' (position 1) must be Tensor, not {type(x).__name__}") from None
        pair = table.get(a.dtype)
        m = mode()
        if pair is None or m.__class__ is Modes and m.transformed:
            return op.general((x,))
        try:
            r = pair[a.size > LARGE](a)
        except MemoryError as e:
            raise memory_error(e) from None
        out = new_tensor(Tensor)
        out._a = r if r.__class__ is ndarray else asarray(r)
        out._grad_fn = None
        out._rg = False
        if m is not True:
            if m is False:
                return out
            if m.inference:
                out._vc = InferenceCounter()
        if x._rg and differentiable:
            record(op, (x,), out, m)
        return out

    return call


def binary(op: Pointwise, general: Any = None) -> Callable[..., Tensor]:
    table, plans, differentiable = op.table, op.plans, op.differentiable
    general = general or op.general

    def call(x: Any, y: Any) -> Tensor:
        try:
            a = x._a
            dt = a.dtype
            if y.__class__ in QUICK:
                if not (dt.kind == "f" and dt.itemsize > 2 or y.__class__ is int and dt.kind in "iu"):
                    return general((x, y))
                if dt.kind == "f" and y.__class__ is int:
                    y = float(y)
                b = _numbers.get((y.__class__, y, dt))
                if b is None or y == 0:
                    b = number(y, FROM_NP[dt])
                ry = False
            else:
                b = y._a
                if b.dtype is not dt:
                    return general((x, y))
                ry = y._rg
        except AttributeError:
            return general((x, y))
        pair = table.get(dt)
        m = mode()
        if pair is None or m.__class__ is Modes and m.transformed:
            return general((x, y))
        try:
            r = pair[a.size > LARGE or b.size > LARGE](a, b)
        except ValueError as e:
            raise broadcast_error((a, b), e) from None
        except MemoryError as e:
            raise memory_error(e) from None
        out = new_tensor(Tensor)
        out._a = r if r.__class__ is ndarray else asarray(r)
        out._grad_fn = None
        out._rg = False
        if m is not True:
            if m is False:
                return out
            if m.inference:
                out._vc = InferenceCounter()
        rx = x._rg
        if not (rx or ry) or not differentiable:
            return out
        if (
            m is True
            and dt.kind == "f"
            and (not rx or a.shape == r.shape and not x._nr)
            and (not ry or b.shape == r.shape and not y._nr)
        ):
            # the same as record(), for the case that nearly always is
            node = new_node(op.Node)
            plan = plans.get((rx, ry))
            if plan is None:
                plan = plans[rx, ry] = Plan(op, (rx, ry), False)
            node.next = (
                None if not rx else x._grad_fn if x._grad_fn is not None else accumulator(x),
                None if not ry else y._grad_fn if y._grad_fn is not None else accumulator(y),
            )
            node.nrs = node.extra = node.fix = node.versions = None
            node.seq = next_seq()
            node.where = here(2)
            node.plan = plan
            if not plan.tensors:
                node.saved = ()
            elif x._vc is None and (y.__class__ is float or y._vc is None) and not plan.keep_out:
                node.saved = (x if plan.keep[0] == 0 else None, y if plan.keep[-1] == 1 else None)
            else:
                node.saved = save(node, plan, (x, y), out)
            out._grad_fn = node
            out._rg = True
        else:
            record(op, (x, y), out, m)
        return out

    return call


def nary(op: Pointwise) -> Callable[..., Tensor]:
    def call(*xs: Any) -> Tensor:
        return op.general(xs)

    return call


def pointwise(
    name: str,
    expr: Any,
    args: str = "x",
    *,
    node: str | None = None,
    grad: dict[str, Any] | None = None,
    promote: str = "default",
    differentiable: bool = True,
    refuse: dict[Any, str] | None = None,
    bools: str = "",
    check: Callable[[tuple[Any, ...]], None] | None = None,
) -> Pointwise:
    """Declare a pointwise operator.

    Args:
        expr: of the variables named in ``args``.
        grad: forms of the derivative in ``g``, the operands and ``out`` that are better than the symbolic one.
        promote: "float" if integers give the default floating dtype.
        refuse: dtype, or category of dtypes -> message of the error for it; {name} and {dtype} are filled in.
        bools: names of operands that are masks and take no part in promotion.
        check: called with the operands before integers and truth values, or mixed dtypes, are computed; raises.
    """
    names = tuple(args.split())
    op = Pointwise(
        name, expr, names, node or camel(name) + "Backward0", grad, promote, differentiable and not E.is_bool(expr),
        refuse or {}, tuple(bools.split()), check,
    )
    POINTWISE[name] = op
    _declared.append(op)
    return op


NO_BOOL = {BOOL: '"{name}" not implemented for \'{dtype}\''}
NO_COMPLEX = {COMPLEX: '"{name}" not implemented for \'{dtype}\''}


_NOT_IMPLEMENTED = ("not implemented for '", "not supported for complex types", "not intended to support", "signbit is not implemented")


class OfTensors(dict[Any, str]):
    """What is refused by the tensors' dtype alone, whatever Python numbers stand beside them."""


def without(kernel: str, *kinds: Any) -> OfTensors:
    """``refuse`` for dtypes, or categories of them; ``kernel`` is PyTorch's word for the operator."""
    return OfTensors(dict.fromkeys(kinds, f'"{kernel}" not implemented for \'{{dtype}}\''))


def only_floats(kernel: str) -> OfTensors:
    """``refuse`` for an operator that takes floating dtypes alone."""
    return without(kernel, BOOL, INT, COMPLEX)
