import multiprocessing
import os
import threading

import numpy as np
import pytest

from flambeau.utils.data._utils.transfer import INLINE, Channel


@pytest.fixture
def ends():
    a, b = (Channel(c) for c in multiprocessing.Pipe())
    yield a, b
    a.close()
    b.close()


@pytest.mark.parametrize("size", [0, 1, 7, INLINE // 4, INLINE + 1, 3_000_001])
def test_arrays_cross(ends, size):
    a, b = ends
    value = {"x": np.arange(size, dtype=np.float32), "y": [np.arange(3, dtype=np.int8), "text"]}
    sender = threading.Thread(target=a.send, args=(value,))
    sender.start()
    got = b.receive()
    sender.join()
    np.testing.assert_array_equal(got["x"], value["x"])
    assert got["y"][0].tolist() == [0, 1, 2] and got["y"][1] == "text"
    got["x"][:] = 0  # what arrives is writable
    got["y"][0][:] = 0


def test_large_messages_do_not_wait_for_the_receiver(ends):
    a, b = ends
    for i in range(8):
        a.send((i, np.full(1_000_000, i)))
    for i in range(8):
        number, array = b.receive()
        assert number == i and (array == i).all()


def test_nothing_is_left_open(ends):
    a, b = ends
    a.send(np.zeros(100_000))
    b.receive()
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    kept = []
    for _ in range(20):
        a.send(np.zeros(100_000))
        kept.append(b.receive())
    after = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    assert after == before


def test_unpicklable_sends_nothing(ends):
    a, b = ends
    with pytest.raises(Exception, match="pickle"):
        a.send((np.zeros(100_000), lambda: 0))
    a.send("next")
    assert b.receive() == "next"


def test_closed_end(ends):
    a, b = ends
    a.close()
    with pytest.raises(EOFError):
        b.receive()
