"""Nests of containers with anything at their leaves; PyTorch's ``torch.utils._pytree``.

A tree is a leaf, or a container of trees: list, tuple, dict, namedtuple, OrderedDict, defaultdict, deque, the tuples that operators return,
or a class given to ``register_pytree_node``. Everything else is a leaf, None too.

>>> leaves, spec = tree_flatten({"a": [1, 2], "b": (3,)})
>>> leaves
[1, 2, 3]
>>> tree_unflatten([x * 10 for x in leaves], spec)
{'a': [10, 20], 'b': (30,)}
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from typing import Any, NamedTuple

from .errors import error
from .size import Size

PyTree = Any
Context = Any
IsLeaf = Callable[[Any], bool] | None


class Kind(NamedTuple):
    """How a class of container is taken apart, and put together again."""

    flatten: Callable[[Any], tuple[Iterable[Any], Any]]  # its children, and what else is needed to make it anew
    unflatten: Callable[[Iterable[Any], Any], Any]


DICTS = (dict, OrderedDict, defaultdict)

KINDS: dict[Any, Kind] = {
    list: Kind(lambda t: (t, None), lambda children, _: list(children)),
    tuple: Kind(lambda t: (t, None), lambda children, _: tuple(children)),
    Size: Kind(lambda t: (t, None), lambda children, _: Size(children)),
    dict: Kind(lambda t: (t.values(), list(t)), lambda children, keys: dict(zip(keys, children))),
    OrderedDict: Kind(lambda t: (t.values(), list(t)), lambda children, keys: OrderedDict(zip(keys, children))),
    defaultdict: Kind(
        lambda t: (t.values(), [t.default_factory, list(t)]),
        lambda children, context: defaultdict(context[0], zip(context[1], children)),
    ),
    deque: Kind(lambda t: (t, t.maxlen), lambda children, maxlen: deque(children, maxlen=maxlen)),
}
_NAMEDTUPLE = "namedtuple"
KINDS[_NAMEDTUPLE] = Kind(lambda t: (t, type(t)), lambda children, cls: cls._make(children))


def is_namedtuple(obj: Any) -> bool:
    """Whether it is a namedtuple, or a class of them."""
    return is_namedtuple_class(obj if isinstance(obj, type) else type(obj))


def is_namedtuple_class(cls: Any) -> bool:
    fields = getattr(cls, "_fields", None)
    return isinstance(cls, type) and issubclass(cls, tuple) and isinstance(fields, tuple) and hasattr(cls, "_make")


def is_namedtuple_instance(obj: Any) -> bool:
    return is_namedtuple_class(type(obj))


def is_structseq(obj: Any) -> bool:
    """Whether it is one of the tuples that operators return, as ``torch.return_types.max``, or a class of them."""
    return is_structseq_class(obj if isinstance(obj, type) else type(obj))


def is_structseq_class(cls: Any) -> bool:
    return isinstance(cls, type) and issubclass(cls, tuple) and isinstance(getattr(cls, "n_sequence_fields", None), int)


def is_structseq_instance(obj: Any) -> bool:
    return is_structseq_class(type(obj))


def kind_of(tree: Any) -> Any:
    """The key in KINDS of a container, None for a leaf."""
    cls = type(tree)
    if cls in KINDS:
        return cls
    if is_structseq_class(cls):
        KINDS[cls] = Kind(lambda t: (t, None), lambda children, _: cls(children))
        return cls
    return _NAMEDTUPLE if is_namedtuple_class(cls) else None


def register_pytree_node(cls: type, flatten_fn: Callable[[Any], Any], unflatten_fn: Callable[[Any, Any], Any], **_names: Any) -> None:
    """Make the instances of ``cls`` containers: ``flatten_fn(t) -> (children, context)``, ``unflatten_fn(children, context) -> t``.

    PyTorch's further arguments name the class for its export formats, which flambeau doesn't write.
    """
    if cls in KINDS:
        raise error(ValueError, f"{cls!r} is already registered as pytree node.")
    KINDS[cls] = Kind(flatten_fn, unflatten_fn)


class TreeSpec:
    """The shape of a tree: its containers, without its leaves."""

    __slots__ = ("type", "_context", "_children", "__dict__")

    def __init__(self, type: Any, context: Any, children_specs: list[TreeSpec]) -> None:
        self.type, self._context, self._children = type, context, children_specs

    context = property(lambda self: self._context)
    children_specs = property(lambda self: self._children)
    num_children = property(lambda self: len(self._children))

    @cached_property
    def num_leaves(self) -> int:
        return 1 if self.type is None else sum([c.num_leaves for c in self._children])

    @cached_property
    def num_nodes(self) -> int:
        return 1 + sum([c.num_nodes for c in self._children])

    def is_leaf(self) -> bool:
        return self.type is None

    def children(self) -> list[TreeSpec]:
        return list(self._children)

    def child(self, index: int) -> TreeSpec:
        return self._children[index]

    def unflatten(self, leaves: Iterable[Any]) -> Any:
        """The tree of this shape with these leaves."""
        given = leaves if isinstance(leaves, (list, tuple)) else list(leaves)
        if len(given) != self.num_leaves:
            raise error(
                ValueError,
                f"treespec.unflatten(leaves): `leaves` has length {len(given)} but the spec refers to a pytree that holds "
                f"{self.num_leaves} items ({self}).",
            )
        return self._build(iter(given))

    def _build(self, leaves: Iterator[Any]) -> Any:
        if self.type is None:
            return next(leaves)
        return KINDS[self.type].unflatten([c._build(leaves) for c in self._children], self._context)

    def flatten_up_to(self, tree: Any) -> list[Any]:
        """What a tree that begins like this one has where this one has leaves."""
        out: list[Any] = []
        self._match(tree, out)
        return out

    def _match(self, tree: Any, out: list[Any]) -> None:
        if self.type is None:
            out.append(tree)
            return
        kind = kind_of(tree)
        both_dicts = self.type in DICTS and kind in DICTS
        if kind != self.type and not both_dicts:
            raise error(ValueError, f"Node type mismatch; expected {self.type!r}, but got {type(tree)!r}.")
        if both_dicts:
            keys = self._context[1] if self.type is defaultdict else self._context
            missing, extra = set(keys) - set(tree), set(tree) - set(keys)
            if missing or extra:
                parts = [f"{word} key(s): {ks}" for word, ks in (("missing", missing), ("extra", extra)) if ks]
                raise error(ValueError, f"Node keys mismatch; {'; '.join(parts)}.")
            children: list[Any] = [tree[k] for k in keys]
        else:
            found, context = KINDS[kind].flatten(tree)
            children = list(found)
            if len(children) != len(self._children):
                raise error(ValueError, f"Node arity mismatch; expected {len(self._children)}, but got {len(children)}.")
            if context != self._context and self.type is not deque:
                raise error(ValueError, f"Node context mismatch for custom node type {self.type!r}.")
        for spec, child in zip(self._children, children):
            spec._match(child, out)

    def __eq__(self, other: Any) -> bool:
        if not isinstance(other, TreeSpec):
            return NotImplemented
        return self.type == other.type and self._context == other._context and self._children == other._children

    def __hash__(self) -> int:
        return hash((self.type, self.num_leaves, self.num_nodes))

    def __repr__(self) -> str:
        return self._text(0)

    def _text(self, indent: int) -> str:
        if self.type is None:
            return "*"
        name = self.type if isinstance(self.type, str) else self.type.__name__
        separator = ",\n" + " " * (indent + 2)
        return f"TreeSpec({name}, {self._context!r}, [{separator.join([c._text(indent + 2) for c in self._children])}])"


LEAF = TreeSpec(None, None, [])
PyTreeSpec = TreeSpec


def LeafSpec() -> TreeSpec:
    """The shape of a leaf."""
    return LEAF


# ---- taking apart, putting together ----------------------------------------------------------------------------------
def tree_is_leaf(tree: Any, is_leaf: IsLeaf = None) -> bool:
    """Whether it is no container, or ``is_leaf`` says so."""
    return is_leaf is not None and is_leaf(tree) or kind_of(tree) is None


def tree_flatten(tree: Any, is_leaf: IsLeaf = None) -> tuple[list[Any], TreeSpec]:
    """(the leaves, the shape)."""
    leaves: list[Any] = []
    return leaves, _flatten(tree, leaves, is_leaf)


def _flatten(tree: Any, leaves: list[Any], is_leaf: IsLeaf) -> TreeSpec:
    kind = None if is_leaf is not None and is_leaf(tree) else kind_of(tree)
    if kind is None:
        leaves.append(tree)
        return LEAF
    children, context = KINDS[kind].flatten(tree)
    return TreeSpec(kind, context, [_flatten(c, leaves, is_leaf) for c in children])


def tree_unflatten(leaves: Iterable[Any], treespec: TreeSpec) -> Any:
    """The tree of a shape with these leaves."""
    if not isinstance(treespec, TreeSpec):
        raise error(TypeError, f"Expected `treespec` to be an instance of PyTreeSpec but got item of type {type(treespec)}.")
    return treespec.unflatten(leaves)


def tree_iter(tree: Any, is_leaf: IsLeaf = None) -> Iterator[Any]:
    """The leaves, one after the other."""
    if tree_is_leaf(tree, is_leaf):
        yield tree
    else:
        for child in KINDS[kind_of(tree)].flatten(tree)[0]:
            yield from tree_iter(child, is_leaf)


def tree_leaves(tree: Any, is_leaf: IsLeaf = None) -> list[Any]:
    """The leaves."""
    return tree_flatten(tree, is_leaf)[0]


def tree_structure(tree: Any, is_leaf: IsLeaf = None) -> TreeSpec:
    """The shape."""
    return tree_flatten(tree, is_leaf)[1]


# ---- maps ------------------------------------------------------------------------------------------------------------
def tree_map(func: Callable[..., Any], tree: Any, *rests: Any, is_leaf: IsLeaf = None) -> Any:
    """The tree of ``func(leaf, *what the others have in its place)``; the others may go deeper.

    >>> tree_map(lambda a, b: a + b, [1, (2,)], [10, (20,)])
    [11, (22,)]
    """
    leaves, spec = tree_flatten(tree, is_leaf)
    columns = [leaves, *[spec.flatten_up_to(r) for r in rests]]
    return spec.unflatten([func(*row) for row in zip(*columns)])


def tree_map_(func: Callable[..., Any], tree: Any, *rests: Any, is_leaf: IsLeaf = None) -> Any:
    """Call ``func`` as ``tree_map`` does, for what it does; returns the tree."""
    tree_map(func, tree, *rests, is_leaf=is_leaf)
    return tree


def selects(types: Any) -> Callable[[Any], bool]:
    """A predicate as it is; for a type, or several: whether something is an instance."""
    if isinstance(types, type) or not callable(types):
        return lambda x: isinstance(x, types)
    return types


def tree_map_only(types: Any, func: Callable[[Any], Any], tree: Any, is_leaf: IsLeaf = None) -> Any:
    """The tree with ``func(leaf)`` for leaves of these types (or that a predicate accepts)."""
    wanted = selects(types)
    return tree_map(lambda x: func(x) if wanted(x) else x, tree, is_leaf=is_leaf)


def tree_map_only_(types: Any, func: Callable[[Any], Any], tree: Any, is_leaf: IsLeaf = None) -> Any:
    """Call ``func`` as ``tree_map_only`` does, for what it does; returns the tree."""
    tree_map_only(types, func, tree, is_leaf)
    return tree


def tree_all(pred: Callable[[Any], bool], tree: Any, is_leaf: IsLeaf = None) -> bool:
    """Whether every leaf fulfils ``pred``."""
    return all(map(pred, tree_iter(tree, is_leaf)))


def tree_any(pred: Callable[[Any], bool], tree: Any, is_leaf: IsLeaf = None) -> bool:
    """Whether some leaf fulfils ``pred``."""
    return any(map(pred, tree_iter(tree, is_leaf)))


def tree_all_only(types: Any, pred: Callable[[Any], bool], tree: Any, is_leaf: IsLeaf = None) -> bool:
    """Whether every leaf of these types fulfils ``pred``."""
    wanted = selects(types)
    return all([pred(x) for x in tree_iter(tree, is_leaf) if wanted(x)])


def tree_any_only(types: Any, pred: Callable[[Any], bool], tree: Any, is_leaf: IsLeaf = None) -> bool:
    """Whether some leaf of these types fulfils ``pred``."""
    wanted = selects(types)
    return any([pred(x) for x in tree_iter(tree, is_leaf) if wanted(x)])


def _broadcast_to_and_flatten(tree: Any, treespec: TreeSpec, is_leaf: IsLeaf = None) -> list[Any] | None:
    """The leaves of ``tree`` spread over ``treespec``, of which it is the beginning; None if it isn't."""
    if tree_is_leaf(tree, is_leaf):
        return [tree] * treespec.num_leaves
    if kind_of(tree) != treespec.type:
        return None
    children, context = KINDS[treespec.type].flatten(tree)
    children = list(children)
    if context != treespec.context or len(children) != treespec.num_children:
        return None
    out: list[Any] = []
    for child, spec in zip(children, treespec.children_specs):
        flat = _broadcast_to_and_flatten(child, spec, is_leaf)
        if flat is None:
            return None
        out += flat
    return out


__all__ = [
    "Context", "LeafSpec", "PyTree", "PyTreeSpec", "TreeSpec", "is_namedtuple", "is_namedtuple_class", "is_namedtuple_instance",
    "is_structseq", "is_structseq_class", "is_structseq_instance",
    "register_pytree_node", "tree_all", "tree_all_only", "tree_any", "tree_any_only", "tree_flatten", "tree_is_leaf", "tree_iter",
    "tree_leaves", "tree_map", "tree_map_", "tree_map_only", "tree_map_only_", "tree_structure", "tree_unflatten",
]  # fmt: skip
