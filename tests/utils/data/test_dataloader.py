import gc
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

import flambeau
from flambeau.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

needs_fork = pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system cannot fork")


def loader(dataset, **options):
    if options.get("num_workers"):
        options.setdefault("multiprocessing_context", "fork")
    return DataLoader(dataset, **options)


class Numbers(Dataset):
    """Sample i is (i, big tensor); `at` does something at sample 7."""

    def __init__(self, n=20, size=10, at=None):
        self.n, self.size, self.at = n, size, at

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        if self.at is not None and i == 7:
            self.at()
        return i, flambeau.full((self.size,), float(i))


class Stream(IterableDataset):
    def __init__(self, n, length=None):
        self.n, self.length = n, length

    def __iter__(self):
        info = get_worker_info()
        first, step = (0, 1) if info is None else (info.id, info.num_workers)
        return iter(range(first, self.n, step))

    def __len__(self):
        if self.length is None:
            raise TypeError("no length")
        return self.length


def numbers(batches):
    return [x.tolist() for x, _ in batches]


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=needs_fork)])
@pytest.mark.parametrize("size", [10, 200_000])
def test_batches_come_in_order(workers, size):
    for x, big in (batches := list(loader(Numbers(7, size), batch_size=3, num_workers=workers))):
        assert big.shape == (len(x), size) and (big[:, -1] == x).all()
        big.zero_()
    assert numbers(batches) == [[0, 1, 2], [3, 4, 5], [6]]


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=needs_fork)])
def test_batching_off(workers):
    got = list(loader([np.arange(2), np.arange(2) + 5], batch_size=None, num_workers=workers))
    assert [g.tolist() for g in got] == [[0, 1], [5, 6]]
    got = list(loader(Stream(3), batch_size=None, num_workers=workers))
    assert sorted(got) == [0, 1, 2]


def test_samplers_and_lengths():
    assert numbers(loader(Numbers(5), sampler=[4, 0])) == [[4], [0]]
    assert numbers(loader(Numbers(5), batch_sampler=[[4, 0], [1]])) == [[4, 0], [1]]
    assert numbers(loader(Numbers(5), batch_size=2, drop_last=True)) == [[0, 1], [2, 3]]
    assert len(loader(Numbers(5), batch_size=2)) == 3 and len(loader(Numbers(5), batch_size=2, drop_last=True)) == 2
    assert len(loader(Numbers(5), batch_size=None)) == 5
    assert len(loader(Stream(5, length=5), batch_size=2)) == 3


def test_collate_fn_and_getitems():
    class Batched(Numbers):
        def __getitems__(self, indices):
            return indices

    assert list(DataLoader(Batched(4), batch_size=3, collate_fn=tuple)) == [(0, 1, 2), (3,)]


@needs_fork
@pytest.mark.parametrize("persistent", [False, True])
def test_streams_are_shared_out(persistent):
    d = loader(Stream(11), batch_size=2, num_workers=2, persistent_workers=persistent)
    for _ in range(2):
        assert [b.tolist() for b in d] == [[0, 2], [1, 3], [4, 6], [5, 7], [8, 10], [9]]
    d = loader(Stream(11), batch_size=2, num_workers=2, in_order=False)
    assert sorted(x for b in d for x in b.tolist()) == list(range(11))


def test_stream_longer_than_promised_warns():
    d = DataLoader(Stream(3, length=1))
    assert len(d) == 1
    with pytest.warns(UserWarning, match="was reported to be 1.*but 2 samples have been fetched"):
        list(d)


class Where(Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, i):
        info = get_worker_info()
        return os.getpid(), info.id, info.num_workers, info.seed, len(info.dataset)


@needs_fork
def test_worker_info_and_persistence():
    d = loader(Where(), num_workers=2, batch_size=None, collate_fn=tuple, persistent_workers=True)
    first, second = list(d), list(d)
    assert [w[1] for w in first] == [0, 1, 0, 1] and {w[2] for w in first} == {2}
    assert first[1][3] == first[0][3] + 1 and first[0][4] == 4
    assert {w[0] for w in first} == {w[0] for w in second} and os.getpid() not in {w[0] for w in first}
    assert get_worker_info() is None


class Draws(Dataset):
    def __len__(self):
        return 6

    def __getitem__(self, i):
        return i, random.random(), float(np.random.rand()), flambeau.rand(2)


@needs_fork
def test_the_seed_fixes_what_workers_draw():
    runs = []
    for _ in range(2):
        flambeau.manual_seed(3)
        runs.append(repr(list(loader(Draws(), batch_size=2, shuffle=True, num_workers=2))))
    assert runs[0] == runs[1]


def test_generator_is_used():
    def run():
        return numbers(DataLoader(Numbers(9), shuffle=True, generator=flambeau.Generator().manual_seed(8)))

    state = flambeau.get_rng_state()
    assert run() == run()
    assert (flambeau.get_rng_state() == state).all()


@needs_fork
def test_worker_init_fn():
    def init(worker_id):
        get_worker_info().dataset.n = worker_id

    class Own(Numbers):
        def __getitem__(self, i):
            return self.n

    assert [b.item() for b in loader(Own(4), num_workers=2, worker_init_fn=init)] == [0, 1, 0, 1]

    def bad(worker_id):
        raise KeyError("gone")

    with pytest.raises(KeyError, match="Caught KeyError in DataLoader worker process 0"):
        list(loader(Own(4), num_workers=1, worker_init_fn=bad))


def fail():
    raise ValueError("no seven")


class Odd(Exception):
    def __init__(self, a, b):
        super().__init__(a, b)


def fail_oddly():
    raise Odd(1, 2)


@needs_fork
def test_worker_that_raises():
    with pytest.raises(ValueError) as caught:
        list(loader(Numbers(at=fail), batch_size=2, num_workers=2))
    text = str(caught.value)
    assert text.startswith(
        "Caught ValueError in DataLoader worker process 1.\nOriginal Traceback (most recent call last):"
    )
    assert "in fail" in text and "no seven" in text
    with pytest.raises(RuntimeError, match="Caught Odd in DataLoader worker process"):
        list(loader(Numbers(at=fail_oddly), num_workers=1))
    with pytest.raises(Exception, match="(?s)Caught.*DataLoader worker process 0.*pickle"):
        list(loader(Numbers(), num_workers=1, collate_fn=lambda batch: lambda: 0))


@needs_fork
def test_an_exception_does_not_end_the_pass():
    it = iter(loader(Numbers(8, at=fail), batch_size=1, num_workers=2))
    got = [next(it)[0].item() for _ in range(7)]
    with pytest.raises(ValueError):
        next(it)
    assert got == list(range(7))
    with pytest.raises(StopIteration):
        next(it)


def die():
    os.kill(os.getpid(), signal.SIGKILL)


@needs_fork
def test_worker_that_dies():
    with pytest.raises(RuntimeError, match=r"DataLoader worker \(pid\(s\) \d+\) exited unexpectedly"):
        list(loader(Numbers(at=die), batch_size=2, num_workers=2))
    with pytest.raises(RuntimeError, match="exited unexpectedly"):
        list(loader(Numbers(at=lambda: os._exit(3)), batch_size=2, num_workers=2))


@needs_fork
def test_timeout():
    with pytest.raises(RuntimeError, match="DataLoader timed out after 0.5 seconds"):
        list(loader(Numbers(at=lambda: time.sleep(60)), num_workers=2, timeout=0.5))


@needs_fork
def test_leaving_early_leaves_no_process():
    it = iter(loader(Numbers(1000), num_workers=2))
    next(it)
    workers = list(it._workers)
    del it
    gc.collect()
    assert not any(w.is_alive() for w in workers)


@needs_fork
def test_persistent_workers_after_leaving_early():
    d = loader(Numbers(9), num_workers=2, persistent_workers=True)
    for x, _ in d:
        break
    assert numbers(d) == [[i] for i in range(9)]


@needs_fork
def test_two_loaders_at_once():
    a, b = (loader(Numbers(6), num_workers=1, persistent_workers=True) for _ in range(2))
    assert [x.item() + y.item() for (x, _), (y, _) in zip(a, b)] == [0, 2, 4, 6, 8, 10]


PROGRAM = """
import multiprocessing, os, sys, time
import flambeau
from flambeau.utils.data import DataLoader, Dataset

class Numbers(Dataset):
    def __len__(self): return 12
    def __getitem__(self, i):
        if i == 8 and len(sys.argv) > 2: time.sleep(60)
        return i, flambeau.full((50_000,), float(i))

if __name__ == "__main__":
    loader = DataLoader(Numbers(), batch_size=2, num_workers=2, multiprocessing_context=sys.argv[1])
    for x, y in loader:
        assert (y[:, 0] == x).all()
        print(x.tolist(), flush=True)
        if len(sys.argv) > 2 and x[0] == 2:
            print([w.pid for w in multiprocessing.active_children()], flush=True)
"""


ROOT = str(Path(flambeau.__file__).parents[1])
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [ROOT, os.environ.get("PYTHONPATH")]))}


@pytest.fixture
def program(tmp_path):
    path = tmp_path / "program.py"
    path.write_text(textwrap.dedent(PROGRAM))
    return str(path)


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_start_methods(program, method):
    done = subprocess.run(
        [sys.executable, program, method], capture_output=True, text=True, timeout=120, env=ENVIRONMENT
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [str([i, i + 1]) for i in range(0, 12, 2)]


@needs_fork
@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGKILL])
def test_killed_parent_leaves_no_orphan(program, sign):
    parent = subprocess.Popen(
        [sys.executable, program, "fork", "sleep"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True, env=ENVIRONMENT,
    )  # fmt: skip
    pids = []
    for line in parent.stdout:
        if line.startswith("[") and len(line) > 8:
            pids = [int(p) for p in line.strip("[]\n").split(",")]
        if line.startswith("[6"):
            break
    assert len(pids) == 2
    time.sleep(0.3)
    if sign == signal.SIGINT:
        os.killpg(parent.pid, sign)  # as Ctrl-C does: everyone gets it
    else:
        parent.send_signal(sign)
    error = parent.communicate(timeout=30)[1]
    assert error.count("Traceback") == (1 if sign == signal.SIGINT else 0), error
    deadline = time.monotonic() + 20
    while any(alive(p) for p in pids) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(alive(p) for p in pids)


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"num_workers": -1}, ValueError, "num_workers option should be non-negative"),
        ({"timeout": -1}, ValueError, "timeout option should be non-negative"),
        (
            {"prefetch_factor": 2},
            ValueError,
            "prefetch_factor option could only be specified in multiprocessing",
        ),
        ({"persistent_workers": True}, ValueError, "persistent_workers option needs num_workers > 0"),
        ({"sampler": [0], "shuffle": True}, ValueError, "sampler option is mutually exclusive with shuffle"),
        ({"batch_sampler": [[0]], "batch_size": 2}, ValueError, "batch_sampler option is mutually exclusive"),
        (
            {"batch_size": None, "drop_last": True},
            ValueError,
            "batch_size=None option disables auto-batching",
        ),
        ({"batch_size": 0}, ValueError, "batch_size should be a positive integer value"),
        ({"multiprocessing_context": "fork"}, ValueError, "can only be used with multi-process loading"),
        ({"num_workers": 1, "multiprocessing_context": "x"}, ValueError, "valid start method"),
        ({"num_workers": 1, "multiprocessing_context": 3}, TypeError, "valid context object or a string"),
    ],
)
def test_bad_options(options, error, message):
    with pytest.raises(error, match=message):
        DataLoader(Numbers(), **options)


@pytest.mark.parametrize("options", [{"shuffle": True}, {"sampler": [0]}, {"batch_sampler": [[0]]}])
def test_streams_refuse_an_order(options):
    with pytest.raises(ValueError, match=f"expected unspecified {[*options][0]} option"):
        DataLoader(Stream(3), **options)


def test_attributes_are_fixed():
    d = DataLoader(Numbers())
    with pytest.raises(ValueError, match="batch_size attribute should not be set after DataLoader is initialized"):
        d.batch_size = 3


def test_pin_memory_warns():
    with pytest.warns(UserWarning, match="no accelerator is found"):
        list(DataLoader(Numbers(2), pin_memory=True))


def test_too_many_workers_warn():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        DataLoader(Numbers(2), num_workers=1000)
    assert "will create 1000 worker processes" in str(caught[0].message)


@pytest.mark.torch
@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=needs_fork)])
def test_batches_and_draws_are_torchs(workers):
    torch = pytest.importorskip("torch")
    out = []
    for library, data in ((flambeau, flambeau.utils.data), (torch, torch.utils.data)):

        class Drawing(data.Dataset):
            def __len__(self):
                return 10

            def __getitem__(self, i, library=library):
                return i, library.rand(3), random.random(), int(np.random.randint(1 << 30))

        library.manual_seed(11)
        random.seed(1)
        np.random.seed(1)
        context = "fork" if workers else None
        d = data.DataLoader(Drawing(), 3, shuffle=True, num_workers=workers, multiprocessing_context=context)
        out.append([[v.tolist() for v in batch] for _ in range(2) for batch in d])
    assert out[0] == out[1]
