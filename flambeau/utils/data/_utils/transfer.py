"""Objects between processes: large arrays cross in shared memory that has no name, so that nothing can leak.

A channel wraps one end of a two-way pipe. What it sends is pickled with the arrays' bytes kept apart (pickle
protocol 5). Small messages go through the pipe. For large ones the bytes are written to an anonymous memory file
whose descriptor is sent along: the sender never waits for the receiver, and when both ends are gone, however they
went, the kernel frees it.
"""

from __future__ import annotations

import io
import os
import pickle
import socket
import struct
import tempfile
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

__all__ = ["Channel"]

INLINE = 16 * 1024  # bytes: below this a pipe, which holds 64 KiB or more, is cheaper than a memory file
ALIGN = 64
CAN_PASS_FILES = hasattr(socket, "send_fds") and hasattr(os, "preadv")


class Channel:
    """One end of a two-way pipe that sends any picklable object."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._socket: socket.socket | None = None

    def fileno(self) -> int:
        return self.connection.fileno()

    def send(self, message: Any) -> None:
        """Sends; raises before anything is sent if the message cannot be pickled."""
        buffers: list[pickle.PickleBuffer] = []
        file = io.BytesIO()
        pickle.Pickler(file, protocol=5, buffer_callback=buffers.append).dump(message)
        parts = [file.getbuffer(), *(buffer.raw() for buffer in buffers)]
        sizes = [part.nbytes for part in parts]
        shared = CAN_PASS_FILES and sum(sizes) > INLINE
        header = struct.pack(f"<?Q{len(sizes)}Q", shared, len(sizes), *sizes)
        if shared:
            self.connection.send_bytes(header)
            self._send_file(parts)
        else:
            self.connection.send_bytes(b"".join([header, *parts]))

    def receive(self) -> Any:
        """The next message; EOFError when the other end is gone."""
        frame = memoryview(self.connection.recv_bytes())
        shared, count = struct.unpack_from("<?Q", frame)
        start = struct.calcsize(f"<?Q{count}Q")
        sizes = struct.unpack_from(f"<{count}Q", frame, struct.calcsize("<?Q"))
        parts = self._receive_file(sizes) if shared else _split(bytearray(frame[start:]), sizes, align=1)
        if not shared:  # the arrays outlive this message: each gets aligned memory of its own
            parts = [parts[0], *(_aligned_copy(part) for part in parts[1:])]
        return pickle.loads(parts[0], buffers=parts[1:])

    def close(self) -> None:
        self.connection.close()
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _plug(self) -> socket.socket:
        if self._socket is None:
            self._socket = socket.socket(fileno=os.dup(self.connection.fileno()))
        return self._socket

    def _send_file(self, parts: list[memoryview]) -> None:
        descriptor = _memory_file()
        try:
            offset = 0
            for part in parts:
                _write(descriptor, part, offset)
                offset += _padded(part.nbytes)
            socket.send_fds(self._plug(), [b"f"], [descriptor])
        finally:
            os.close(descriptor)

    def _receive_file(self, sizes: tuple[int, ...]) -> list[memoryview]:
        _, descriptors, _, _ = socket.recv_fds(self._plug(), 1, 1)
        if not descriptors:
            raise EOFError
        try:
            memory = memoryview(np.empty(sum(map(_padded, sizes)), np.uint8)).cast("B")
            done = 0
            while done < len(memory):
                got = os.preadv(descriptors[0], [memory[done:]], done)
                if not got:  # the padding after the last part was never written
                    break
                done += got
        finally:
            os.close(descriptors[0])
        return _split(memory, sizes, ALIGN)


def _memory_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("flambeau")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _write(descriptor: int, part: memoryview, offset: int) -> None:
    done = 0
    while done < part.nbytes:
        done += os.pwritev(descriptor, [part[done:]], offset + done)


def _split(memory: bytearray | memoryview, sizes: tuple[int, ...], align: int) -> list[memoryview]:
    parts, offset, view = [], 0, memoryview(memory)
    for size in sizes:
        parts.append(view[offset : offset + size])
        offset += -(-size // align) * align
    return parts


def _padded(size: int) -> int:
    return -(-size // ALIGN) * ALIGN


def _aligned_copy(part: memoryview) -> memoryview:
    copy = np.empty(part.nbytes, np.uint8)
    copy[:] = part
    return memoryview(copy)
