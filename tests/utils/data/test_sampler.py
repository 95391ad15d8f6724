import pytest

import flambeau
from flambeau.utils.data import (
    BatchSampler,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)


def test_sequential():
    assert list(SequentialSampler("abc")) == [0, 1, 2] and len(SequentialSampler("abc")) == 3


def test_sampler_is_abstract():
    with pytest.raises(NotImplementedError):
        iter(Sampler())


def test_random_is_a_permutation_that_the_seed_fixes():
    flambeau.manual_seed(1)
    first = list(RandomSampler(range(20)))
    flambeau.manual_seed(1)
    assert list(RandomSampler(range(20))) == first and sorted(first) == list(range(20))


def test_random_counts():
    assert len(list(RandomSampler(range(5), num_samples=12))) == 12
    draws = list(RandomSampler(range(5), replacement=True, num_samples=70))
    assert len(draws) == 70 and set(draws) <= set(range(5))
    with pytest.raises(ValueError, match="num_samples should be a positive integer value"):
        RandomSampler([])
    with pytest.raises(TypeError, match="replacement should be a boolean value"):
        RandomSampler([1], replacement=1)


def test_subset_random():
    s = SubsetRandomSampler([5, 7, 9])
    assert sorted(s) == [5, 7, 9] and len(s) == 3


def test_weighted():
    assert set(WeightedRandomSampler([0.0, 1.0, 1.0], 20)) <= {1, 2}
    assert sorted(WeightedRandomSampler([0.3, 1.0, 1.0], 3, replacement=False)) == [0, 1, 2]
    with pytest.raises(ValueError, match="weights should be a 1d sequence"):
        WeightedRandomSampler([[1.0]], 1)
    with pytest.raises(ValueError, match="num_samples should be a positive"):
        WeightedRandomSampler([1.0], 0)
    with pytest.raises(ValueError, match="replacement should be a boolean"):
        WeightedRandomSampler([1.0], 1, replacement=2)


@pytest.mark.parametrize("drop_last, batches", [(False, [[0, 1, 2], [3, 4]]), (True, [[0, 1, 2]])])
def test_batch(drop_last, batches):
    b = BatchSampler(range(5), 3, drop_last)
    assert list(b) == batches and len(b) == len(batches)


@pytest.mark.parametrize("size", [0, -1, 1.5, True])
def test_batch_size_must_be_positive(size):
    with pytest.raises(ValueError, match="batch_size should be a positive integer value"):
        BatchSampler(range(3), size, False)


@pytest.mark.torch
def test_orders_are_torchs():
    torch = pytest.importorskip("torch")
    for make in (
        lambda m: m.RandomSampler(range(50)),
        lambda m: m.RandomSampler(range(7), num_samples=20),
        lambda m: m.RandomSampler(range(7), replacement=True, num_samples=70),
        lambda m: m.SubsetRandomSampler(range(3, 30)),
    ):
        orders = []
        for library in (flambeau, torch):
            library.manual_seed(5)
            orders.append([*make(library.utils.data), library.randint(1 << 30, (1,)).item()])
        assert orders[0] == orders[1]
