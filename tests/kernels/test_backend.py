import pytest

from flambeau.kernels import backend, memory, threads


def test_report_covers_every_part():
    report = backend.report()
    assert set(report) == set(backend.PARTS)
    assert all(status.detail for status in report.values())


def test_unknown_part_is_named(monkeypatch):
    monkeypatch.setenv("FLAMBEAU_DISABLE", "warp")
    backend.disabled.cache_clear()
    try:
        with pytest.raises(ValueError, match="does not know warp"):
            backend.disabled()
    finally:
        monkeypatch.undo()
        backend.disabled.cache_clear()


def test_threads():
    before = threads.get_num_threads()
    threads.set_num_threads(1)
    assert threads.get_num_threads() == 1
    threads.set_num_threads(before)


def test_memory_error_says_how_much():
    import numpy as np

    with pytest.raises(MemoryError) as caught:
        np.empty((1 << 30, 1 << 20))
    assert memory.requested(caught.value) == 8 << 50
    assert "DefaultCPUAllocator: can't allocate memory: you tried to allocate 5 bytes" in memory.allocation_message(5)
    assert memory.requested(MemoryError()) is None
