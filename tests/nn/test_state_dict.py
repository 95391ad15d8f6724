"""state_dict and load_state_dict: what is loaded, and that nothing is when something doesn't fit."""

import pytest

import flambeau as torch
from flambeau import nn


def net():
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))


def values(m):
    return {k: v.clone() for k, v in m.state_dict().items()}


def same(a, b):
    return all(torch.equal(a[k], b[k]) for k in a)


def test_round_trip():
    a, b = net(), net()
    result = b.load_state_dict(a.state_dict())
    assert same(a.state_dict(), b.state_dict()) and str(result) == "<All keys matched successfully>"
    assert b[0].weight.data_ptr() != a[0].weight.data_ptr()


def test_assign_takes_the_tensors_themselves():
    a, b = net(), net()
    state = a.state_dict()
    b.load_state_dict(state, assign=True)
    assert b[0].weight.data_ptr() == a[0].weight.data_ptr() and isinstance(b[0].weight, nn.Parameter)


@pytest.mark.parametrize(
    "change, phrases",
    [
        (lambda s: s.pop("2.bias"), ['Missing key(s) in state_dict: "2.bias". ']),
        (lambda s: s.update(extra=torch.ones(1)), ['Unexpected key(s) in state_dict: "extra". ']),
        (
            lambda s: s.update({"2.weight": torch.ones(7)}),
            ["size mismatch for 2.weight: copying a param with shape torch.Size([7]) from checkpoint, "
             "the shape in current model is torch.Size([1, 3])."],
        ),
        (lambda s: s.update({"2.weight": 3}), ["expected torch.Tensor or Tensor-like object from checkpoint but"]),
        (
            lambda s: (s.pop("0.weight"), s.update(more=torch.ones(1))),
            ['Missing key(s) in state_dict: "0.weight". \n\tUnexpected key(s) in state_dict: "more". '],
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_changes_nothing(change, phrases):
    m, state = net(), dict(net().state_dict())
    change(state)
    before = values(m)
    with pytest.raises(RuntimeError) as e:
        m.load_state_dict(state)
    assert "Error(s) in loading state_dict for Sequential:\n\t" in str(e.value)
    assert all(p in str(e.value) for p in phrases)
    assert same(before, m.state_dict())


def test_not_strict_loads_what_matches():
    m, state = net(), dict(net().state_dict())
    del state["0.bias"]
    result = m.load_state_dict(state, strict=False)
    assert result.missing_keys == ["0.bias"] and result.unexpected_keys == []
    assert torch.equal(m[0].weight, state["0.weight"])


def test_post_hooks_may_forgive_and_else_nothing_is_changed():
    m, state = net(), dict(net().state_dict())
    del state["0.bias"]
    seen = []
    m.register_load_state_dict_post_hook(lambda m, keys: seen.append(torch.equal(m[0].weight, state["0.weight"])))
    before = values(m)
    with pytest.raises(RuntimeError, match="Missing"):
        m.load_state_dict(state)
    assert seen == [True] and same(before, m.state_dict())
    m.register_load_state_dict_post_hook(lambda m, keys: keys.missing_keys.clear())
    m.load_state_dict(state)
    assert torch.equal(m[0].weight, state["0.weight"])


def test_hooks_prefix_and_extra_state():
    class Counter(nn.Module):
        n = 0

        def get_extra_state(self):
            return {"n": self.n}

        def set_extra_state(self, state):
            self.n = state["n"]

    a, b = Counter(), Counter()
    a.n = 5
    b.load_state_dict(a.state_dict())
    assert b.n == 5 and list(a.state_dict(prefix="x.")) == ["x._extra_state"]
    m = net()
    m.register_state_dict_post_hook(lambda m, s, prefix, meta: s.update(mark=torch.ones(1)))
    assert "mark" in m.state_dict()
    m.register_load_state_dict_pre_hook(lambda m, s, *rest: s.pop("mark"))
    m.load_state_dict(m.state_dict())


def test_batch_norm_without_a_counter_is_read():
    m = nn.BatchNorm1d(3)
    old = {k: v for k, v in m.state_dict().items() if k != "num_batches_tracked"}
    m.load_state_dict(old)
    with pytest.raises(TypeError, match="Expected state_dict to be dict-like"):
        m.load_state_dict([])
