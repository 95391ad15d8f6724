"""Nests of containers."""

from collections import OrderedDict, defaultdict, deque, namedtuple

import pytest

import flambeau as torch
from flambeau.core import pytree

Point = namedtuple("Point", "x y")


class Box:
    def __init__(self, inside):
        self.inside = inside


TREES = {
    "a leaf": 3,
    "None": None,
    "empty": [],
    "lists and tuples": [1, (2, [3])],
    "dicts": {"b": [1, (2, 3)], "a": {}},
    "everything": {
        "n": Point(4, None), "d": deque([1], maxlen=3), "o": OrderedDict(x=1), "e": defaultdict(list, {"k": 5}), "t": (1,),
    },
}  # fmt: skip


@pytest.mark.parametrize("name", TREES)
def test_there_and_back(name):
    leaves, spec = pytree.tree_flatten(TREES[name])
    again = pytree.tree_unflatten(leaves, spec)
    assert again == TREES[name] and type(again) is type(TREES[name])
    assert spec.num_leaves == len(leaves) == len(list(pytree.tree_iter(TREES[name])))
    assert pytree.tree_structure(again) == spec


@pytest.mark.torch
@pytest.mark.parametrize("name", TREES)
def test_like_torch(name):
    theirs = pytest.importorskip("torch.utils._pytree")
    leaves, spec = pytree.tree_flatten(TREES[name])
    expected, their_spec = theirs.tree_flatten(TREES[name])
    assert leaves == expected and repr(spec) == repr(their_spec)
    assert (spec.num_leaves, spec.num_nodes, spec.num_children) == (their_spec.num_leaves, their_spec.num_nodes, their_spec.num_children)


CALLS = {
    "map": lambda P: P.tree_map(lambda a, b: (a, b), {"a": 1, "b": [2]}, {"b": [3], "a": (4, 5)}),
    "map of unequal lists": lambda P: P.tree_map(max, [1, 2], [3]),
    "map of unequal kinds": lambda P: P.tree_map(max, [1, 2], (3, 4)),
    "map of a leaf": lambda P: P.tree_map(max, [1, 2], 3),
    "map of unequal keys": lambda P: P.tree_map(max, {"a": 1}, {"b": 2}),
    "map of some": lambda P: P.tree_map_only(int, lambda x: -x, [1, "a", (2.0, 3)]),
    "map of those that": lambda P: P.tree_map_only(lambda x: x == 1, lambda x: -x, [1, "a"]),
    "map in place": lambda P: P.tree_map_(str, [1, (2,)]),
    "all": lambda P: (P.tree_all(bool, [1, 0]), P.tree_any(bool, [1, 0]), P.tree_all_only(int, bool, [1, ""]), P.tree_any_only(str, bool, [1, ""])),
    "is_leaf": lambda P: P.tree_leaves([1, (2,)], is_leaf=lambda x: isinstance(x, tuple)),
    "too few leaves": lambda P: P.tree_unflatten([1], P.tree_structure([1, 2])),
    "no spec": lambda P: P.tree_unflatten([1], 3),
    "spread": lambda P: P._broadcast_to_and_flatten((1, [2, None]), P.tree_structure(((1, 2), [3, 4]))),
    "spread over another shape": lambda P: P._broadcast_to_and_flatten((1, [2]), P.tree_structure(((1, 2), [3, 4]))),
    "registered twice": lambda P: P.register_pytree_node(list, None, None),
}


@pytest.mark.torch
@pytest.mark.parametrize("name", CALLS)
def test_calls_like_torch(name):
    theirs = pytest.importorskip("torch.utils._pytree")

    def outcome(module):
        try:
            return CALLS[name](module)
        except Exception as e:
            return type(e), str(e).splitlines()[0]

    assert outcome(torch.utils._pytree) == outcome(theirs)


def test_a_class_of_ones_own():
    pytree.register_pytree_node(Box, lambda b: ([b.inside], None), lambda children, _: Box(*children))
    try:
        assert pytree.tree_map(lambda x: x + 1, Box([1, 2])).inside == [2, 3]
    finally:
        del pytree.KINDS[Box]


def test_the_tuples_that_operators_return():
    found = pytree.tree_map(lambda t: t * 2, torch.max(torch.ones(2, 3), 1))
    assert type(found).__name__ == "max" and found.values.tolist() == [2, 2]
    assert pytree.is_structseq(found) and not pytree.is_namedtuple(found) and pytree.is_namedtuple(Point)
    assert pytree.tree_leaves(torch.Size([2, 3])) == [2, 3]
