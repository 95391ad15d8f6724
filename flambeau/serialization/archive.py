"""PyTorch's file format: a zip archive of stored records, each aligned to 64 bytes.

::

    name/data.pkl                the object, pickled; tensors name their storages by number
    name/.format_version         1
    name/.storage_alignment      64
    name/byteorder               little | big
    name/data/0, name/data/1 ..  the storages' bytes
    name/version                 3
    name/.data/serialization_id  a fingerprint

The reader believes nothing: a record must be stored (not deflated), lie wholly inside the file, and have the checksum
that the directory gives. So what it allocates is bounded by the size of the file.
"""

from __future__ import annotations

import hashlib
import io
import os
import struct
import zipfile
import zlib
from typing import Any, BinaryIO

import numpy as np

ALIGNMENT = 64
_LOCAL_HEADER, _ZIP64_EXTRA = 30, 20
MAX_VERSION = 10
CORRUPT = (
    "If you are seeing this error, there is a high likelihood that your checkpoint file is corrupted. This can happen "
    "if the checkpoint was not saved properly, was transferred incorrectly, or the file was modified after saving."
)


def failed(what: str) -> RuntimeError:
    return RuntimeError(f"PytorchStreamReader failed {what}. {CORRUPT}")


class _Stream:
    """A file object of which only ``write`` is asked."""

    def __init__(self, file: Any) -> None:
        self.write, self.flush = file.write, getattr(file, "flush", lambda: None)


class Writer:
    """Writes records one after the other; :meth:`close` adds the directory."""

    def __init__(self, file: Any, name: str, seekable: bool) -> None:
        self.zip = zipfile.ZipFile(file if seekable else _Stream(file), "w", zipfile.ZIP_STORED, allowZip64=True)
        self.name = name
        self.fingerprint = hashlib.sha256()

    def record(self, name: str, data: Any) -> None:
        view = memoryview(data).cast("B")
        path = f"{self.name}/{name}"
        info = zipfile.ZipInfo(path, (1980, 1, 1, 0, 0, 0))
        info.create_system = info.external_attr = 0
        info.file_size = len(view)
        zip64 = len(view) * 1.05 > zipfile.ZIP64_LIMIT
        start = self.zip.fp.tell() + _LOCAL_HEADER + len(path.encode()) + 4 + _ZIP64_EXTRA * zip64
        padding = -start % ALIGNMENT
        info.extra = struct.pack("<2sH", b"FB", padding) + b"Z" * padding
        with self.zip.open(info, "w", force_zip64=zip64) as out:
            if len(view):
                out.write(view)
        self.fingerprint.update(f"{name} {info.CRC}".encode())

    def close(self) -> None:
        number = int.from_bytes(self.fingerprint.digest(), "big") % 10**40
        self.record(".data/serialization_id", f"{number:040d}".encode())
        self.zip.close()

    def abandon(self) -> None:
        """Write nothing more."""
        self.zip.fp = None


class Reader:
    """Gives the records of an archive, as uint8 arrays that may be written to.

    ``source`` is a path's open file, or a file object; with ``mapped``, arrays are private maps of the file.
    """

    def __init__(self, source: BinaryIO, mapped: str | None = None) -> None:
        self.file = source
        self.size = source.seek(0, os.SEEK_END)
        try:
            entries = zipfile.ZipFile(source).infolist()
        except (
            zipfile.BadZipFile,
            NotImplementedError,
            ValueError,
            OverflowError,
            struct.error,
            UnicodeError,
        ) as problem:
            raise failed("reading zip archive: failed finding central directory") from problem
        self.entries: dict[str, zipfile.ZipInfo] = {}
        for info in entries:
            self.entries.setdefault(info.orig_filename.partition("/")[2], info)
        self.map = np.memmap(mapped, np.uint8, "c") if mapped is not None else None
        self.version()

    def __contains__(self, name: str) -> bool:
        return name in self.entries

    def version(self) -> int:
        """The format's number; RuntimeError for one that is newer than is known here."""
        name = "version" if "version" in self else ".data/version"
        text = self.read(name).tobytes()
        number = int(text) if text.strip().isdigit() else -1
        if not 1 <= number <= MAX_VERSION:
            raise RuntimeError(
                f"Attempted to read a PyTorch file with version {text!r}, but the maximum supported version for "
                f"reading is {MAX_VERSION}"
            )
        return number

    def _place(self, name: str) -> tuple[int, zipfile.ZipInfo]:
        info = self.entries.get(name)
        if info is None:
            raise failed(f"locating file {name}: file not found")
        size = info.file_size
        if info.compress_type != zipfile.ZIP_STORED or info.compress_size != size or info.flag_bits & 1:
            raise failed(f"reading file {name}: it is compressed or encrypted, and records of a checkpoint never are")
        inside = 0 <= info.header_offset <= self.size
        self.file.seek(info.header_offset if inside else 0)
        header = self.file.read(_LOCAL_HEADER)
        if not inside or len(header) != _LOCAL_HEADER or header[:4] != b"PK\x03\x04":
            raise failed(f"reading file {name}: invalid header")
        name_size, extra_size = struct.unpack("<HH", header[26:30])
        start = info.header_offset + _LOCAL_HEADER + name_size + extra_size
        if start + size > self.size:
            raise failed(f"reading file {name}: file read failed")
        return start, info

    def size_of(self, name: str) -> int:
        return self._place(name)[1].file_size

    def read(self, name: str) -> np.ndarray:
        start, info = self._place(name)
        if self.map is not None:  # not read now, so not checked against its checksum either
            part = self.map[start : start + info.file_size]
            return part if start % 16 == 0 else part.copy()
        out = np.empty(info.file_size, np.uint8)
        self.file.seek(start)
        if out.size and self.file.readinto(out.data) != out.size:  # type: ignore[attr-defined]
            raise failed(f"reading file {name}: file read failed")
        if zlib.crc32(out.data if out.size else b"") != info.CRC:
            raise failed(f"reading file {name}: its checksum is not the one that was saved")
        return out


def is_archive(file: BinaryIO) -> bool:
    """Whether a zip archive begins here; the position stays."""
    start = file.tell()
    head = file.read(4)
    file.seek(start)
    return head == b"PK\x03\x04"


def whole(file: Any) -> BinaryIO:
    """What is left in a file object, in memory."""
    return io.BytesIO(file.read())
