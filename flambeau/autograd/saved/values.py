"""What ``node._saved_self`` gives: the values that nodes keep, under PyTorch's names.

A node keeps what its rules need under the names of the rules; ``saved_table.py`` says which of PyTorch's names that is.
Nothing of this is done before somebody asks.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any

import numpy as np

from ...core.device import CPU
from ...core.dtypes import FROM_NP
from ...core.errors import error
from ...core.size import Size
from ...core.tensor import Tensor, new_tensor
from ..node import FREED, AccumulateGrad, SavedOutput, accumulator, freed_error
from ..primitive import AUX, OUT, PARAM, TENSOR, Packed, packed_by, unpack_tensor

ndarray = np.ndarray

class Missing(Exception):
    """This node does not have what a source asks for."""


# ---- the table, read -------------------------------------------------------------------------------------------------
_parsed: dict[str, dict[str, tuple[str, ...]]] = {}


def sources(node: Any) -> dict[str, tuple[str, ...]]:
    """PyTorch's name -> where the value may come from, for a node of this name."""
    if not _parsed:
        from .table import TABLE

        for spec, nodes in TABLE:
            entries = {k: tuple((v or k).split("|")) for k, _, v in (item.partition("=") for item in spec.split())}
            for name in nodes.split():
                _parsed.setdefault(name if "Backward" in name else name + "Backward0", {}).update(entries)
    return _parsed.get(type(node).__name__, {})


def shown_names(node: Any) -> list[str]:
    """What ``dir(node)`` lists."""
    found = []
    for name, alternatives in sources(node).items():
        try:
            kind = find(node, alternatives)[0]
        except Missing:
            continue
        except RuntimeError:  # freed
            kind = "value"
        found.append("_saved_" + name)
        if kind in ("tensor", "tensors", "absent"):
            found.append("_raw_saved_" + name)
    return found


def value(node: Any, name: str) -> Any:
    """What PyTorch's ``node._saved_<name>`` gives."""
    kind, where = find(node, sources(node).get(name, ()))
    if kind == "tensor":
        return where.unpack()
    if kind == "tensors":
        return tuple([w.unpack() for w in where])
    return where


def raw(node: Any, name: str) -> Any:
    """PyTorch's ``node._raw_saved_<name>``: a SavedTensor, or a tuple of them."""
    kind, where = find(node, sources(node).get(name, ()))
    if kind in ("tensor", "tensors"):
        return where
    if kind == "absent":
        return SavedTensor(node, None)
    raise Missing(name)


def find(node: Any, alternatives: tuple[str, ...]) -> tuple[str, Any]:
    """(kind, what) of the first alternative that this node has.

    Kinds: "tensor" with a SavedTensor, "tensors" with a tuple of them, "value" with the value, "absent" with None: an
    operand that could have been saved, and wasn't because no rule needs it.
    """
    absent = False
    for a in alternatives:
        if a[0] == "@":
            from .table import DERIVED

            try:
                return "value", DERIVED[a[1:]](Kept(node))
            except (Missing, LookupError, TypeError, ValueError):  # kept by another operator, in another way
                continue
        if a.endswith((".shape", ".strides")):
            name, _, what = a.partition(".")
            try:
                return "value", shape_of(node, name) if what == "shape" else strides_of(node, name)
            except Missing:
                continue
        if not a.isidentifier() or a in ("True", "False", "None"):
            return "value", ast.literal_eval(a)
        try:
            found = located(node, a)
        except Missing:
            absent = absent or is_operand(node, a)
            continue
        return found
    if absent:
        return "absent", None
    raise Missing


def positions(node: Any) -> tuple[str, ...]:
    """Our names of what stands in ``node.saved``."""
    plan = getattr(node, "plan", None)
    if plan is None:
        return ()
    names = getattr(plan, "names", None)
    return tuple(names) if names is not None else (*node.op.args, "out")


_keepable: dict[Any, frozenset[str]] = {}


def is_operand(node: Any, name: str) -> bool:
    """Whether this is a tensor that nodes of this operator save if the right inputs require grad."""
    op = getattr(node, "op", None)
    if op is None:
        return False
    if op not in _keepable:
        plan = type(node.plan)
        if hasattr(op, "tensors"):
            all_of_it = plan(op, (True,) * op.nt)
            names = [n for n, (kind, _) in zip(all_of_it.names, all_of_it.kinds) if kind in (TENSOR, OUT, AUX)]
        else:
            all_of_it = plan(op, (True,) * len(op.args), False)
            names = [op.args[i] for i in all_of_it.keep] + ["out"] * all_of_it.keep_out
        _keepable[op] = frozenset(names)
    return name in _keepable[op]


def located(node: Any, name: str) -> tuple[str, Any]:
    """What the node keeps under our name."""
    names = positions(node)
    if name not in names:
        raise Missing(name)
    k, saved = names.index(name), node.saved
    if saved is FREED:
        if not held_a_tensor(node, k):
            raise freed_error(node)
        return "tensor", SavedTensor(node, k)
    s = saved[k] if k < len(saved) else None
    if s is None:
        kinds = getattr(node.plan, "kinds", ())
        if k < len(kinds) and kinds[k][0] == PARAM:
            return "value", None
        raise Missing(name)
    if is_entry(s):
        return "tensor", SavedTensor(node, k)
    if s.__class__ is tuple and s and all(is_entry(x) for x in s):
        return "tensors", tuple([SavedTensor(node, k, i) for i in range(len(s))])
    if isinstance(s, (ndarray, np.generic)):
        return "value", as_tensor(s)
    if type(node).__name__ in WRAPS_NUMBERS and isinstance(s, (int, float, complex)):
        return "value", as_tensor(np.array(s))
    return "value", s


def held_a_tensor(node: Any, k: int) -> bool:
    """Whether a tensor stood at this place before it was freed."""
    kinds = getattr(node.plan, "kinds", None)
    if kinds is not None:
        return kinds[k][0] in (TENSOR, OUT)
    return k in node.plan.keep or k == len(node.op.args) and node.plan.keep_out


WRAPS_NUMBERS = frozenset(("MulBackward0", "DivBackward0"))  # PyTorch makes tensors of numbers beside these


def is_entry(s: Any) -> bool:
    """Whether this stands for one saved tensor: itself, an output, (tensor, version), or in the hands of hooks."""
    if s.__class__ is tuple:
        return len(s) == 2 and isinstance(s[0], Tensor) and s[1].__class__ is int
    return isinstance(s, (Tensor, SavedOutput, Packed))


def as_tensor(a: Any) -> Tensor:
    t = new_tensor(Tensor)
    t._a, t._grad_fn, t._rg = np.asarray(a), None, False
    return t


class Kept:
    """What a node keeps, by our names, for the derived entries of the table."""

    def __init__(self, node: Any) -> None:
        self.node = node

    def __getattr__(self, name: str) -> Any:
        if name.endswith("_shape"):
            return shape_of(self.node, name[:-6])
        if is_operand(self.node, name) or name in positions(self.node):
            kind, found = located(self.node, name)
            if kind == "tensor":
                return found.unpack()
            return tuple([f.unpack() for f in found]) if kind == "tensors" else found
        raise Missing(name)

    @property
    def name(self) -> str:
        return self.node.op.name


# ---- shapes ----------------------------------------------------------------------------------------------------------
def shape_of(node: Any, name: str) -> tuple[int, ...]:
    """The shape of an operand: saved itself, or as its tensor, or known from the node that made it."""
    names = positions(node)
    for n in (name + "_shape", name):
        if n in names:
            kind, found = located(node, n)
            if kind == "tensor":
                found = found.unpack()
            return tuple(found.shape) if isinstance(found, Tensor) else tuple(found)
    op = getattr(node, "op", None)
    operands = () if op is None else getattr(op, "tensors", None) or op.args
    if name not in operands:
        raise Missing(name)
    i = operands.index(name)
    return output_of_input(node, i)[0]


def strides_of(node: Any, name: str) -> tuple[int, ...]:
    kind, found = located(node, name)
    if kind != "tensor":
        raise Missing(name)
    return tuple(found.unpack().stride())


def output_of_input(node: Any, i: int) -> tuple[tuple[int, ...], Any]:
    """(shape, NumPy dtype) of the operand ``i``, from the node that it comes from."""
    n = node.next[i] if i < len(node.next) else None
    if n is None:
        raise Missing(i)
    return outputs(n)[0 if node.nrs is None else node.nrs[i]]


def outputs(node: Any) -> list[tuple[tuple[int, ...], Any]]:
    """(shape, NumPy dtype) of each output that the node recorded, as far as it can still be known; else Missing."""
    nr = None
    while True:  # a pointwise node doesn't say itself, but its operands do
        known = own_outputs(node)
        if known is not None:
            break
        i = same_as_operand(node)
        nr = 0 if node.nrs is None else node.nrs[i]
        node = node.next[i]
    return known if nr is None else [known[nr]]


def same_as_operand(node: Any) -> int:
    """The position of an operand of the very shape and dtype that the output has."""
    fix: Any = getattr(node, "fix", False)
    if fix is not False:
        for i, n in enumerate(node.next):
            if n is not None and (fix is None or fix[i] is None):
                return i
    raise Missing


def own_outputs(node: Any) -> list[tuple[tuple[int, ...], Any]] | None:
    if node.__class__ is AccumulateGrad:
        return [(node.variable._a.shape, node.variable._a.dtype)]
    window = getattr(node, "window", None)
    if window is not None:
        d = next((outputs(n)[nr][1] for n, nr in zip(node.next, node.nrs or (0, 0)) if n is not None), None)
        return [(window.base_shape if len(node.next) > 1 else window.shape, d)]
    meta = getattr(node, "meta", None) or getattr(node, "_meta", None)
    if meta is not None:
        return list(meta)
    for s in node.saved if node.saved.__class__ is tuple else ():
        if s.__class__ is SavedOutput:
            return [s.shape_and_dtype()]
    return alive(node)


def alive(node: Any) -> list[tuple[tuple[int, ...], Any]] | None:
    """From an output that still lives: a node doesn't know it, but the interpreter does."""
    if node.n_outputs == 1:
        import gc

        for t in gc.get_referrers(node):
            if isinstance(t, Tensor) and t._grad_fn is node:
                return [(t._a.shape, t._a.dtype)]
    return None


# ---- what _raw_saved_ gives -------------------------------------------------------------------------------------------
class SavedTensor:
    """One saved tensor of a node: ``unpack()`` it, look at its ``data``, or hang hooks on it."""

    __slots__ = ("node", "place", "__weakref__")

    def __init__(self, node: Any, k: int | None, *inner: int) -> None:
        self.node, self.place = node, None if k is None else (k, *inner)

    def entry(self) -> Any:
        s = self.node.saved
        if self.place is None or s is FREED:
            return None
        for i in self.place:
            s = s[i]
        if isinstance(s, Tensor):
            versions = getattr(self.node, "versions", None)  # a parameter of a primitive has none
            return s, 0 if versions is None else versions[self.place[0]]
        return s

    def unpack(self) -> Tensor | None:
        """The tensor, through its unpack hook if it has one; raises if it was freed or changed in place."""
        if self.place is None:
            return None
        if self.node.saved is FREED:
            raise freed_error(self.node)
        s = self.entry()
        return s.unpack(self.node, True) if s.__class__ is SavedOutput else unpack_tensor(self.node, s)

    @property
    def data(self) -> Any:
        """What is kept: the tensor without its history, or what the pack hook made of it; None once it is freed."""
        s = self.entry()
        if s is None:
            return None
        if s.__class__ is SavedOutput:
            return s.kept()
        return s.value if s.__class__ is Packed else s[0]

    @property
    def unpack_hook(self) -> Any:
        s = self.entry()
        return s.unpack if s.__class__ is Packed else s.hook() if s.__class__ is SavedOutput else None

    def register_hooks(self, pack_hook: Callable[[Tensor], Any], unpack_hook: Callable[[Any], Tensor]) -> None:
        """Keep ``pack_hook(tensor)`` from now on; the backward pass uses ``unpack_hook`` of it.

        >>> import flambeau as torch
        >>> x = torch.tensor([2.], requires_grad=True)
        >>> y = x * x
        >>> y.grad_fn._raw_saved_self.register_hooks(lambda t: t.numpy().tolist(), lambda l: torch.tensor(l) * 10)
        >>> y.backward(); x.grad
        tensor([22.])
        """
        if not callable(pack_hook) or not callable(unpack_hook):
            raise error(TypeError, "register_hooks(): incompatible function arguments.", hint="It takes two callables: pack_hook and unpack_hook.")
        if self.place is None:
            raise error(RuntimeError, "Calling register_hooks on a saved tensor with value None is forbidden")
        node = self.node
        if node.saved is FREED:
            raise error(
                RuntimeError,
                "Calling register_hooks on a saved tensor after it has been freed. Saved intermediate values of the graph "
                "are freed when you call .backward() or autograd.grad(). Specify retain_graph=True if you need to backward "
                "through the graph a second time or if you need to access saved variables after calling backward.",
            )
        if self.unpack_hook is not None:
            raise error(
                RuntimeError,
                "Calling register_hooks on a saved tensor whose hooks have already been set. Hint: only one pair of hooks is "
                "allowed at a time.",
            )
        s = self.entry()
        if s.__class__ is SavedOutput:
            s.hand_over(packed_by(pack_hook, s.kept()), unpack_hook)
            return
        t = s[0]
        p = Packed()
        p.value, p.unpack = packed_by(pack_hook, t._detached()), unpack_hook
        p.node = t._grad_fn if t._grad_fn is not None else accumulator(t) if t._rg else None
        p.nr, p.rg, p.fw = t._nr, t._rg, t._fw
        if getattr(node, "versions", False) is None:
            node.versions = (0,) * len(node.op.args)
        node.saved = replaced(node.saved, self.place, p)

    def __repr__(self) -> str:
        return f"<torch._C._autograd.SavedTensor object at {id(self):#x}>"


def replaced(saved: tuple[Any, ...], place: tuple[int, ...], new: Any) -> tuple[Any, ...]:
    i = place[0]
    if len(place) > 1:
        new = replaced(saved[i], place[1:], new)
    return (*saved[:i], new, *saved[i + 1 :])


# ---- the rest of what PyTorch's nodes show ------------------------------------------------------------------------------
class InputMetadata:
    """Shape, dtype and device of one output of a recorded operator."""

    __slots__ = ("shape", "dtype")
    is_nested_tensor = False
    is_cpp_nested_tensor = False
    device = CPU

    def __init__(self, shape: tuple[int, ...], d: Any) -> None:
        self.shape, self.dtype = Size(shape), FROM_NP[np.dtype(d)]



def input_metadata(node: Any) -> tuple[InputMetadata, ...]:
    try:
        return tuple([None if m is None else InputMetadata(*m) for m in outputs(node)])
    except Missing:
        raise error(
            RuntimeError, f"what {node.name()} gave is not known any more", hint="Ask while its output is alive."
        ) from None


_shown: dict[type, tuple[int | None, ...] | None] = {}


def shown_inputs(node: Any) -> tuple[int | None, ...] | None:
    """The inputs that PyTorch's node has: those with a derivative, where ``INPUTS`` doesn't say otherwise."""
    cls = type(node)
    if cls not in _shown:
        from .table import INPUTS

        op: Any = getattr(node, "op", None)
        shown = INPUTS.get(getattr(op, "name", "")) or INPUTS.get(cls.__name__)
        rules = getattr(op, "rules", None)
        if shown is None and rules and not op.variadic and len(rules) < op.nt:
            shown = tuple([i for i, t in enumerate(op.tensors) if t in rules])
        _shown[cls] = shown
    return _shown[cls]


def call(node: Any, grads: tuple[Any, ...]) -> Any:
    if len(grads) != node.n_outputs:
        raise error(TypeError, f"expected {node.n_outputs} arguments, got {len(grads)} instead")
    for i, g in enumerate(grads):
        if g is not None and not isinstance(g, Tensor):
            raise error(TypeError, f"argument {i} is not a Variable")
    if all(g is None for g in grads):
        out: tuple[Any, ...] = (None,) * len(node.next)
    else:
        out = node.apply(grads[0] if node.n_outputs == 1 else list(grads))
    shown = node.shown_inputs()
    out = tuple(out) if shown is None else tuple([None if i is None else out[i] for i in shown])
    return out[0] if len(out) == 1 else out
