import warnings

import pytest

import flambeau
from flambeau.utils.data import (
    ChainDataset,
    ConcatDataset,
    Dataset,
    IterableDataset,
    StackDataset,
    Subset,
    TensorDataset,
    random_split,
)


class Count(IterableDataset):
    def __init__(self, n):
        self.n = n

    def __iter__(self):
        return iter(range(self.n))

    def __len__(self):
        return self.n


class Batched(list):
    def __getitems__(self, indices):
        return [self[i] for i in indices]


def test_dataset_is_abstract():
    with pytest.raises(NotImplementedError, match="Subclasses of Dataset should implement __getitem__"):
        Dataset()[0]


def test_tensor_dataset():
    d = TensorDataset(flambeau.arange(6).reshape(3, 2), flambeau.arange(3))
    assert len(d) == 3
    assert d[1][0].tolist() == [2, 3] and d[1][1].item() == 1
    with pytest.raises(AssertionError, match="Size mismatch between tensors"):
        TensorDataset(flambeau.zeros(3), flambeau.zeros(4))


def test_concat_dataset():
    d = ConcatDataset([[1, 2], [], [3]])
    assert len(d) == 3 and [d[i] for i in (0, 1, 2, -1, -3)] == [1, 2, 3, 3, 1]
    with pytest.raises(ValueError, match="absolute value of index should not exceed dataset length"):
        d[-4]
    with pytest.raises(IndexError):
        d[3]
    with pytest.raises(AssertionError, match="should not be an empty iterable"):
        ConcatDataset([])
    with pytest.raises(AssertionError, match="does not support IterableDataset"):
        ConcatDataset([Count(2)])


def test_add_joins():
    both = TensorDataset(flambeau.arange(2)) + TensorDataset(flambeau.arange(3))
    assert isinstance(both, ConcatDataset) and len(both) == 5
    chain = Count(2) + Count(1)
    assert isinstance(chain, ChainDataset) and list(chain) == [0, 1, 0] and len(chain) == 3


def test_chain_dataset_takes_streams_only():
    with pytest.raises(AssertionError, match="ChainDataset only supports IterableDataset"):
        list(ChainDataset([[1, 2]]))


def test_stack_dataset():
    pair = StackDataset([1, 2], Batched("ab"))
    assert pair[1] == (2, "b") and pair.__getitems__([1, 0]) == [(2, "b"), (1, "a")]
    named = StackDataset(x=[1, 2], y="ab")
    assert named[0] == {"x": 1, "y": "a"} and named.__getitems__([1]) == [{"x": 2, "y": "b"}]
    for args, kwargs, message in (
        ((), {}, "At least one dataset"),
        (([1], [1, 2]), {}, "Size mismatch between datasets"),
        (([1],), {"x": [1]}, "both types are given"),
    ):
        with pytest.raises(ValueError, match=message):
            StackDataset(*args, **kwargs)


def test_subset():
    s = Subset(Batched("abcd"), [3, 1])
    assert len(s) == 2 and s[0] == "d" and s.__getitems__([1, 0]) == ["b", "d"]

    class Odd(Subset):
        def __getitem__(self, i):
            return i

    with pytest.raises(NotImplementedError, match="Odd overrides __getitem__ but not __getitems__"):
        Odd([1], [0])


def test_random_split_by_lengths_and_fractions():
    parts = random_split(range(10), [7, 3], generator=flambeau.Generator().manual_seed(42))
    assert sorted([*parts[0], *parts[1]]) == list(range(10)) and [len(p) for p in parts] == [7, 3]
    assert [len(p) for p in random_split(range(11), [0.3, 0.3, 0.4])] == [4, 3, 4]
    with pytest.raises(ValueError, match="Sum of input lengths does not equal"):
        random_split(range(10), [7, 2])
    with pytest.raises(ValueError, match="not between 0 and 1"):
        random_split(range(10), [-0.5, 1.5])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        random_split(range(1), [0.5, 0.5])
    assert "Length of split at index 1 is 0" in str(caught[0].message)


@pytest.mark.torch
def test_random_split_is_torchs():
    torch = pytest.importorskip("torch")
    for lengths in ([7, 3], [0.25, 0.75]):
        ours = random_split(range(10), lengths, generator=flambeau.Generator().manual_seed(42))
        theirs = torch.utils.data.random_split(range(10), lengths, generator=torch.Generator().manual_seed(42))
        assert [p.indices for p in ours] == [p.indices for p in theirs]
