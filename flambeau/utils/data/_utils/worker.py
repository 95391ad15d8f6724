"""What runs in a worker process."""

from __future__ import annotations

import os
import queue
import random
import signal
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import parent_process
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from .fetch import make_fetcher
from .transfer import Channel

__all__ = ["ExceptionWrapper", "Plan", "WorkerInfo", "get_worker_info"]

PATIENCE = 5.0  # seconds: how often a worker looks for its parent, and how long an unfinished batch may go on


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """Which worker this process is: what `get_worker_info()` gives."""

    id: int
    num_workers: int
    seed: int
    dataset: Any
    rng: Any = None
    worker_method: str | None = "multiprocessing"


_worker_info: WorkerInfo | None = None


def get_worker_info() -> WorkerInfo | None:
    """In a worker process of a DataLoader, its `id`, `num_workers`, `seed` and copy of the `dataset`; else None.

    >>> get_worker_info() is None
    True
    """
    return _worker_info


class KeyErrorMessage(str):
    """A KeyError shows the repr of its message; this one keeps its line breaks."""

    __slots__ = ()

    def __repr__(self) -> str:
        return self


class ExceptionWrapper:
    """An exception on its way to another process, with its traceback as text."""

    def __init__(self, exception: BaseException, where: str) -> None:
        self.exc_type = type(exception)
        text = "".join(traceback.format_exception(exception))
        self.exc_msg = f"Caught {self.exc_type.__name__} {where}.\nOriginal {text}"

    def reraise(self) -> None:
        """Raises an exception of the original class that tells the original story."""
        if issubclass(self.exc_type, KeyError):
            raise self.exc_type(KeyErrorMessage(self.exc_msg))
        try:
            exception = self.exc_type(self.exc_msg)
        except Exception:  # a class whose constructor wants something else
            raise RuntimeError(self.exc_msg) from None
        raise exception


@dataclass(frozen=True)
class EndOfStream:
    """A worker's copy of an IterableDataset has ended."""


@dataclass(frozen=True)
class Resume:
    """A new epoch for a persistent worker."""


@dataclass(frozen=True)
class Plan:
    """What every worker of one iterator is told at its start."""

    iterable: bool
    dataset: Any
    batched: bool
    collate_fn: Callable[[Any], Any]
    drop_last: bool
    base_seed: int
    init_fn: Callable[[int], None] | None
    num_workers: int

    def fetcher(self) -> Any:
        return make_fetcher(self.iterable, self.dataset, self.batched, self.collate_fn, self.drop_last)


def work(connection: Connection, plan: Plan, worker_id: int) -> None:
    """Answers each task (number, keys) from the parent with (number, batch), in the order of the tasks.

    An exception becomes the answer. The parent's closing of the pipe is the order to stop.
    """
    import flambeau

    global _worker_info
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which stops its workers
    where = f"in DataLoader worker process {worker_id}"
    channel = Channel(connection)
    tasks: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(connection, tasks), daemon=True).start()

    flambeau.set_num_threads(1)
    seed = plan.base_seed + worker_id
    random.seed(seed)
    flambeau.manual_seed(seed)
    np.random.seed(numpy_seed(plan.base_seed, worker_id))
    _worker_info = WorkerInfo(worker_id, plan.num_workers, seed, plan.dataset)

    fetcher: Any = None
    failure: ExceptionWrapper | None = None
    try:
        if plan.init_fn is not None:
            plan.init_fn(worker_id)
        fetcher = plan.fetcher()
    except Exception as exception:
        failure = ExceptionWrapper(exception, where)

    while (task := tasks.get()) is not None:
        answer: Any
        number, keys = task
        try:
            if isinstance(keys, Resume):
                fetcher, answer = plan.fetcher(), keys
            elif failure is not None:
                answer, failure = failure, None
            else:
                answer = fetcher.fetch(keys)
        except Exception as exception:
            ended = plan.iterable and isinstance(exception, StopIteration)
            answer = EndOfStream() if ended else ExceptionWrapper(exception, where)
        try:
            try:
                channel.send((number, answer))
            except OSError:
                raise
            except Exception as exception:  # the batch, or the exception's class, cannot be pickled
                if isinstance(answer, ExceptionWrapper):
                    answer.exc_type = RuntimeError
                else:
                    answer = ExceptionWrapper(exception, where)
                channel.send((number, answer))
        except OSError:
            return  # the parent is gone, or wants no more
        del task, keys, answer


def _listen(connection: Connection, tasks: queue.SimpleQueue[Any]) -> None:
    """Takes tasks off the pipe as they come, so that the parent's sending never waits for a batch."""
    born_of, parent = os.getppid(), parent_process()
    try:
        while True:
            if connection.poll(PATIENCE):
                tasks.put(connection.recv())
            elif os.getppid() != born_of or (parent is not None and not parent.is_alive()):
                break
    except (EOFError, OSError):
        pass
    except BaseException as exception:  # keys that cannot be unpickled here
        traceback.print_exception(exception)
        os._exit(1)
    tasks.put(None)
    time.sleep(PATIENCE)
    os._exit(0)  # nobody waits for the batch that is still being made


def numpy_seed(base_seed: int, worker_id: int) -> np.ndarray:
    """The seed of NumPy's legacy generator in a worker: PyTorch's, four words from NumPy's own SeedSequence."""
    words = [worker_id, base_seed & 0xFFFFFFFF, base_seed >> 32, 0]
    return np.random.SeedSequence(words).generate_state(4)
