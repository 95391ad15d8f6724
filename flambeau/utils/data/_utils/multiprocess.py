"""The iterator that has worker processes make its batches."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import time
import weakref
from multiprocessing.connection import wait
from typing import Any

from flambeau.core.errors import error

from .transfer import Channel
from .worker import PATIENCE, EndOfStream, ExceptionWrapper, Plan, Resume, work

__all__ = ["WorkerPool"]


class WorkerPool:
    """Worker processes with a pipe each, and the tasks that are under way.

    Task k is a list of keys; its batch comes back as (k, batch). A pipe of its own for each worker means that a
    worker that dies, even in the middle of sending, disturbs no other and is noticed at once.
    """

    def __init__(
        self,
        plan: Plan,
        context: Any,
        prefetch_factor: int,
        timeout: float,
        in_order: bool,
        persistent: bool,
    ):
        self.context = multiprocessing.get_context() if context is None else context
        self.limit = prefetch_factor * plan.num_workers
        self.timeout = timeout
        self.in_order = in_order
        self.persistent = persistent
        self.workers: list[Any] = []
        self.channels: list[Channel] = []
        self._finalizer = weakref.finalize(self, _shut_down, self.workers, self.channels, os.getpid())
        for worker_id in range(plan.num_workers):
            ours, theirs = self.context.Pipe(duplex=True)
            channel = Channel(ours)
            parents_ends.add(channel)
            worker = self.context.Process(target=_start, args=(theirs, plan, worker_id), daemon=True)
            worker.start()
            theirs.close()
            self.workers.append(worker)
            self.channels.append(channel)
        self._forget()

    def _forget(self) -> None:
        count = len(self.workers)
        self.sent = self.wanted = 0  # numbers of the next task to send, and of the next batch to give out
        self.tasks: dict[int, int] = {}  # the worker of each task that is not given out yet
        self.done: dict[int, Any] = {}  # batches that came before their turn
        self.load = [0] * count
        self.active = [True] * count
        self.turn = itertools.cycle(range(count))

    def restart(self) -> None:
        """A new epoch with the same processes."""
        while any(self.load):  # an epoch that was left early: what is still under way is thrown away
            self._receive(None)
        for channel in self.channels:
            channel.connection.send((-1, Resume()))
        waiting = len(self.channels)
        while waiting:
            _, number, answer = self._receive(None)
            if isinstance(answer, ExceptionWrapper):
                answer.reraise()
            waiting -= number == -1
        self._forget()

    def fill(self, keys: Any) -> None:
        """Sends tasks while there are keys and room."""
        while len(self.tasks) < self.limit and self.send(keys):
            pass

    def send(self, keys: Any) -> bool:
        """Sends the next keys to the next worker in turn; False when there is neither."""
        try:
            task = next(keys)
        except StopIteration:
            return False
        for worker in itertools.islice(self.turn, len(self.workers)):
            room = self.in_order or self.load[worker] < self.limit // max(1, sum(self.active))
            if self.active[worker] and room:
                break
        else:
            return False
        try:
            self.channels[worker].connection.send((self.sent, task))
        except OSError:
            raise self._dead([worker]) from None
        self.tasks[self.sent] = worker
        self.load[worker] += 1
        self.sent += 1
        return True

    def next(self, keys: Any) -> Any:
        """The next batch; StopIteration when there is none."""
        while True:
            while self.wanted < self.sent and not self._expected(self.wanted):
                self.tasks.pop(self.wanted, None)
                self.wanted += 1
            if self.wanted == self.sent:
                if not self.persistent:
                    self.close()
                raise StopIteration
            if self.wanted in self.done:
                return self._give(self.wanted, self.done.pop(self.wanted), keys)
            worker, number, answer = self._receive(self.timeout or None)
            if isinstance(answer, EndOfStream):
                self.active[worker] = False
                if not self.persistent:
                    self.channels[worker].close()
                self.send(keys)
            elif number == self.wanted or not self.in_order:
                return self._give(number, answer, keys)
            else:
                self.done[number] = answer

    def close(self) -> None:
        """Stops the processes, letting each finish the batch that it is at if that is soon."""
        self._finalizer()

    def abandon(self) -> None:
        """Stops the processes, whatever they are at."""
        for worker in self.workers:
            worker.terminate()
        self.close()

    def _expected(self, number: int) -> bool:
        worker = self.tasks.get(number)
        return worker is not None and (number in self.done or self.active[worker])

    def _give(self, number: int, answer: Any, keys: Any) -> Any:
        del self.tasks[number]
        self.wanted += number == self.wanted
        self.send(keys)
        if isinstance(answer, ExceptionWrapper):
            answer.reraise()
        return answer

    def _receive(self, timeout: float | None) -> tuple[int, int, Any]:
        """One answer, from whichever worker has one: (worker, number of the task, answer)."""
        live = [w for w, channel in enumerate(self.channels) if not channel.connection.closed]
        ready = wait([self.channels[w].connection for w in live], timeout)
        if not ready:
            self.abandon()
            raise error(
                RuntimeError,
                f"DataLoader timed out after {self.timeout} seconds",
                hint="No worker finished a batch in that time: give timeout= more, or find what it waits for.",
            )
        for w in live:
            if self.channels[w].connection not in ready:
                continue
            try:
                number, answer = self.channels[w].receive()
            except (EOFError, OSError):
                raise self._dead([w]) from None
            self.load[w] -= number >= 0
            return w, number, answer
        raise AssertionError("unreachable")

    def _dead(self, known: list[int]) -> BaseException:
        for w in known:
            self.workers[w].join(1.0)
        dead = [w for w in self.workers if not w.is_alive()] or [self.workers[w] for w in known]
        pids = ", ".join(str(w.pid) for w in dead)
        codes = {w.exitcode for w in dead}
        hint = "Its exit code was " + ", ".join(map(str, sorted(c for c in codes if c is not None))) + "."
        if -9 in codes:
            hint = "It was killed (SIGKILL): often the system's answer to a lack of memory. Try fewer workers."
        self.abandon()
        return error(RuntimeError, f"DataLoader worker (pid(s) {pids}) exited unexpectedly", hint=hint)


# The channels to all workers of this process, of all its loaders.
parents_ends: weakref.WeakSet[Channel] = weakref.WeakSet()


def _start(theirs: Any, plan: Plan, worker_id: int) -> None:
    """The target of a worker process. A forked one first closes the parent's ends that it inherited: as long as
    any process holds them, the other workers would not see the parent close its own."""
    for channel in list(parents_ends):
        channel.close()
    work(theirs, plan, worker_id)


def _shut_down(workers: list[Any], channels: list[Channel], owner: int) -> None:
    if os.getpid() != owner:
        return  # a forked child that inherited the iterator
    for channel in channels:
        channel.close()
    deadline = time.monotonic() + PATIENCE
    for worker in workers:
        worker.join(max(0.0, deadline - time.monotonic()))
    for worker in workers:
        if worker.is_alive():
            worker.terminate()
            worker.join(1.0)
        if worker.is_alive():
            worker.kill()
            worker.join()
