"""Containers: the protocols of lists and dictionaries."""

import pytest

import flambeau as torch
from flambeau import nn


def names(m):
    return list(m._modules)


def test_sequential():
    m = nn.Sequential(nn.ReLU(), nn.Tanh(), nn.Sigmoid())
    assert len(m) == 3 and isinstance(m[-1], nn.Sigmoid) and isinstance(m[:2], nn.Sequential)
    del m[0]
    assert names(m) == ["0", "1"]
    m.insert(0, nn.Identity())
    m.append(nn.ReLU())
    assert [type(x).__name__ for x in m] == ["Identity", "Tanh", "Sigmoid", "ReLU"]
    assert len(m + m) == 8 and len(m * 2) == 8 and len(m[:1]) == 1
    m[0] = nn.ELU()
    assert isinstance(m.pop(0), nn.ELU)
    assert m(torch.zeros(1)).item() == pytest.approx(0.5)
    with pytest.raises(IndexError, match="index 9 is out of range"):
        m[9]


def test_module_list():
    m = nn.ModuleList([nn.ReLU(), nn.ReLU(), nn.Tanh()])
    assert repr(m) == "ModuleList(\n  (0-1): 2 x ReLU()\n  (2): Tanh()\n)"
    m.extend([nn.ELU()])
    m.insert(1, nn.SiLU())
    m += [nn.GELU()]
    assert [type(x).__name__ for x in m] == ["ReLU", "SiLU", "ReLU", "Tanh", "ELU", "GELU"]
    del m[1:3]
    assert names(m) == ["0", "1", "2", "3"]
    with pytest.raises(TypeError, match="should be called with an iterable"):
        m.extend(nn.ReLU())


def test_module_dict():
    m = nn.ModuleDict({"a": nn.ReLU()})
    m["b"] = nn.Tanh()
    m.update([("c", nn.ELU())])
    assert list(m) == ["a", "b", "c"] and "a" in m and isinstance(m.pop("a"), nn.ReLU) and len(m) == 2


def test_parameter_list():
    m = nn.ParameterList([torch.ones(2), nn.Parameter(torch.zeros(1))])
    m.append(torch.ones(3))
    m += [5]
    assert len(list(m.parameters())) == 3 and m[3] == 5 and m[-2].shape == (3,)
    assert repr(m[:1]) == "ParameterList(  (0): Parameter containing: [torch.float32 of size 2])"
    assert len(m[1:3]) == 2


def test_parameter_dict():
    m = nn.ParameterDict({"b": torch.ones(1), "a": torch.ones(2)})
    assert list(m) == ["a", "b"]
    m["c"] = torch.zeros(1)
    assert m.popitem()[0] == "c" and m.get("x", 7) == 7 and m.setdefault("d", 1) == 1
    assert list(m | nn.ParameterDict({"z": torch.ones(1)})) == ["a", "b", "d", "z"]
    m.clear()
    assert len(m) == 0
