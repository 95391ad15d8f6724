from collections import OrderedDict, namedtuple

import numpy as np
import pytest

import flambeau
from flambeau.utils.data import default_collate, default_convert
from flambeau.utils.data._utils.collate import collate

Point = namedtuple("Point", "x y")


def plain(value):
    if isinstance(value, flambeau.Tensor):
        return str(value.dtype).rpartition(".")[2], value.tolist()
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        return type(value)(plain(v) for v in value)
    return type(value)(*map(plain, value)) if hasattr(value, "_fields") else value


@pytest.mark.parametrize(
    "batch, expected",
    [
        ([1, 2], ("int64", [1, 2])),
        ([1.5, 2.0], ("float64", [1.5, 2.0])),
        ([True, False], ("bool", [True, False])),
        (["a", "b"], ["a", "b"]),
        ([np.float32(1), np.float32(2)], ("float32", [1.0, 2.0])),
        ([np.array([1, 2]), np.array([3, 4])], ("int64", [[1, 2], [3, 4]])),
        ([(1, "a"), (2, "b")], [("int64", [1, 2]), ("a", "b")]),
        ([[1, 2.0], [3, 4.0]], [("int64", [1, 3]), ("float64", [2.0, 4.0])]),
        ([{"a": 1}, {"a": 2}], {"a": ("int64", [1, 2])}),
        ([Point(1, 2), Point(3, 4)], Point(("int64", [1, 3]), ("int64", [2, 4]))),
    ],
)
def test_default_collate(batch, expected):
    assert plain(default_collate(batch)) == expected


def test_default_collate_tensors():
    out = default_collate([flambeau.zeros(2), flambeau.ones(2)])
    assert out.tolist() == [[0, 0], [1, 1]]
    with pytest.raises(RuntimeError, match="stack expects each tensor to be equal size"):
        default_collate([flambeau.zeros(2), flambeau.zeros(3)])


def test_default_collate_keeps_the_mapping_type():
    assert isinstance(default_collate([OrderedDict(a=1)]), OrderedDict)


def test_default_collate_errors():
    with pytest.raises(RuntimeError, match="each element in list of batch should be of equal size"):
        default_collate([[1], [1, 2]])
    with pytest.raises(TypeError, match="batch must contain tensors, numpy arrays.*object"):
        default_collate([object()])
    with pytest.raises(TypeError, match="found <U1"):
        default_collate([np.array(["a"])])


def test_collate_with_own_rules():
    rules = {int: lambda batch, collate_fn_map: sum(batch)}
    assert collate([(1, 2), (3, 4)], collate_fn_map=rules) == [4, 6]


def test_default_convert():
    out = default_convert({"a": np.arange(2), "b": ("x", 1), "c": [np.float64(2)], "d": Point(np.zeros(1), 0)})
    assert plain(out) == {
        "a": ("int64", [0, 1]),
        "b": ["x", 1],
        "c": [("float64", 2.0)],
        "d": Point(("float64", [0.0]), 0),
    }
