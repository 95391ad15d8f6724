import pytest

from flambeau.utils.data import DistributedSampler


@pytest.mark.parametrize("n", [1, 2, 9, 10, 11])
@pytest.mark.parametrize("drop_last", [False, True])
def test_shares_cover_the_dataset(n, drop_last):
    shares = [list(DistributedSampler(range(n), 3, rank, drop_last=drop_last)) for rank in range(3)]
    sampler = DistributedSampler(range(n), 3, 0, drop_last=drop_last)
    assert {len(s) for s in shares} == {len(sampler)}
    seen = [i for s in shares for i in s]
    assert len(set(seen)) == (len(seen) if drop_last else n)


def test_epochs_differ_and_repeat():
    s = DistributedSampler(range(20), 2, 0)
    first = list(s)
    s.set_epoch(1)
    assert list(s) != first
    s.set_epoch(0)
    assert list(s) == first


def test_bad_rank():
    with pytest.raises(ValueError, match=r"Invalid rank 2, rank should be in the interval \[0, 1\]"):
        DistributedSampler(range(4), 2, 2)


@pytest.mark.torch
@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("shuffle", [False, True])
def test_shares_are_torchs(shuffle, drop_last):
    torch = pytest.importorskip("torch")
    for n in (2, 10, 11):
        for rank in range(3):
            args = (range(n), 3, rank, shuffle, 7, drop_last)
            assert list(DistributedSampler(*args)) == list(torch.utils.data.DistributedSampler(*args))
