"""The random bit generator: Mersenne Twister, with PyTorch's seeding, state bytes and draws.

The twister itself is NumPy's; this class adds what PyTorch keeps beside it (the seed, the second normal of the last
pair) and reads and writes the 5056 bytes of ``torch.get_rng_state()``.
"""

from __future__ import annotations

import ctypes
import secrets
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from . import random_llvm

DEFAULT_SEED = 67280421310721
STATE_BYTES, LEGACY_BYTES = 5056, 5048
STATE_IN_MEMORY = 624 * 4 + 4
_KEY, _LEFT_AT, _KEY_AT, _NORMAL_AT = 624, 8, 24, 24 + 624 * 8
_HEAD = struct.Struct("<Qiiq")  # seed, draws left in this block (+ 1), seeded, next
_TAIL = struct.Struct("<dddi4x")  # normal_x, normal_y, normal_rho, whether normal_y is valid
_FLOAT = struct.Struct("<f?3x")
_SMALL = 256  # bytes below which the compiler isn't started
_FEW = 64  # draws that random_raw gives sooner
_code: dict[str, Any] = {}  # generated code for each kind of output, None where there is no compiler
_ALL64, _LOW53 = (1 << 64) - 1, (1 << 53) - 1


class MT:
    """One generator. ``next_normal`` is the second normal of a pair, kept for the next call, or None.

    >>> g = MT(0)
    >>> g.u32(2)
    array([2357136044, 2546248239], dtype=uint32)
    """

    __slots__ = (
        "bits",
        "_seeder",
        "_bulk",
        "_address",
        "_seed",
        "_fresh",
        "next_normal",
        "_next_float",
        "lock",
        "__weakref__",
    )

    def __init__(self, seed: int = DEFAULT_SEED) -> None:
        self.bits = np.random.MT19937(0)
        self._seeder = np.random.RandomState(self.bits)
        self._bulk = np.random.Generator(self.bits)
        self._address = self.bits.ctypes.state_address  # 624 words and the position, shared with generated code
        self.lock = threading.RLock()
        self._next_float: float | None = None
        self.manual_seed(seed)

    def manual_seed(self, seed: int) -> None:
        """Start the stream of ``seed``: an int of 64 bits, signed or unsigned (-1 is 2**64 - 1)."""
        seed = int(seed)
        if not -(1 << 63) <= seed < 1 << 64:
            raise ValueError("Overflow when unpacking long long")
        with self.lock:
            self._seed = seed & 0xFFFF_FFFF_FFFF_FFFF
            self._seeder.seed(self._seed & 0xFFFF_FFFF)
            self._fresh = True
            self.next_normal: float | None = None
            self._next_float = None

    def seed(self) -> int:
        """Seed from the operating system's entropy; returns the seed (53 bits)."""
        seed = secrets.randbits(53)
        self.manual_seed(seed)
        return seed

    def initial_seed(self) -> int:
        return self._seed

    # ---- draws ------------------------------------------------------------------------------------------------
    def _generate(self, output: str, out: np.ndarray) -> bool:
        """Fill ``out``, contiguous, by generated code; False where there is none."""
        self._fresh = self._fresh and not out.size
        code = _code.get(output)
        if code is None:
            if out.nbytes < _SMALL or output in _code:  # not worth starting the compiler for, or there is none
                return False
            code = _code[output] = random_llvm.draws(output)
            if code is None:
                return False
        code(self._address, out.__array_interface__["data"][0], out.nbytes // 4)
        return True

    def _words(self, n: int) -> np.ndarray:
        if n <= _FEW:
            return self.bits.random_raw(n).astype(np.uint32)
        return self._bulk.integers(0, 1 << 32, n, dtype=np.uint32)

    def _double_words(self, n: int) -> np.ndarray:
        if n <= _FEW:
            words = self.bits.random_raw(2 * n)
            return words[::2] << np.uint64(32) | words[1::2]
        return self._bulk.integers(0, _ALL64, n, dtype=np.uint64, endpoint=True)

    def u32(self, n: int) -> np.ndarray:
        """``n`` draws of 32 bits."""
        out = np.empty(n, np.uint32)
        return out if self._generate("u32", out) else self._words(n)

    def u64(self, n: int) -> np.ndarray:
        """``n`` times 64 bits, each from two draws, the first one high."""
        out = np.empty(n, np.uint64)
        return out if self._generate("u64", out) else self._double_words(n)

    def unit32(self, out: np.ndarray) -> np.ndarray:
        """Fill a contiguous float32 row with uniforms of [0, 1): the 24 low bits of a draw each."""
        if not self._generate("unit32", out):
            bits = self._words(out.size) & np.uint32(0xFFFFFF)
            np.multiply(bits.view(np.int32), np.float32(2.0**-24), out=out, dtype=np.float32, casting="unsafe")
        return out

    def unit64(self, out: np.ndarray) -> np.ndarray:
        """Fill a contiguous float64 row with uniforms of [0, 1): the 53 low bits of two draws each."""
        if not self._generate("unit64", out):
            bits = self._double_words(out.size) & np.uint64(_LOW53)
            np.multiply(bits.view(np.int64), 2.0**-53, out=out, dtype=np.float64, casting="unsafe")
        return out

    @contextmanager
    def doubles(self) -> Iterator[Callable[[], float]]:
        """Yield a function that gives one double in [0, 1) a call; only what it gave counts as drawn.

        For samplers that cannot know beforehand how many they need.
        """
        state = self.bits.state
        block: list[float] = []
        used = taken = 0

        def draw() -> float:
            nonlocal block, used, taken
            if used == len(block):
                taken += used
                block = self.unit64(np.empty(1024 if block else 32)).tolist()
                used = 0
            used += 1
            return block[used - 1]

        fresh = self._fresh
        try:
            yield draw
        finally:
            self.bits.state = state
            self._fresh = fresh
            self.u64(taken + used)

    # ---- state ------------------------------------------------------------------------------------------------
    def get_state(self) -> np.ndarray:
        """The state as PyTorch's 5056 bytes (uint8)."""
        with self.lock:
            inner = self.bits.state["state"]
            following = 0 if self._fresh else int(inner["pos"])
            left = 1 if self._fresh else _KEY + 1 - following
            normal, single = self.next_normal, self._next_float
            data = b"".join(
                (
                    _HEAD.pack(self._seed, left, 1, following),
                    inner["key"].astype("<u8").tobytes(),
                    _TAIL.pack(0.0, normal or 0.0, 0.0, normal is not None),
                    _FLOAT.pack(single or 0.0, single is not None),
                )
            )
        return np.frombuffer(data, np.uint8).copy()

    def set_state(self, state: np.ndarray) -> None:
        """Go on from a state that ``get_state``, here or in PyTorch, gave."""
        if state.dtype != np.uint8:
            raise TypeError("RNG state must be a torch.ByteTensor")
        data = np.ascontiguousarray(state).tobytes()
        if len(data) not in (STATE_BYTES, LEGACY_BYTES):
            raise RuntimeError(
                f"Expected a CPUGeneratorImplState of size {STATE_BYTES} but found the input RNG state size to be "
                f"{len(data)}"
            )
        seed, left, seeded, following = _HEAD.unpack_from(data)
        fresh = left == 1 and following == 0
        if seeded != 1 or not (fresh or 1 <= left <= _KEY and following == _KEY + 1 - left):
            raise RuntimeError("Invalid mt19937 state")
        key = np.frombuffer(data, "<u8", _KEY, _KEY_AT).astype(np.uint32)
        x, y, rho, valid = _TAIL.unpack_from(data, _NORMAL_AT)
        single = None
        if len(data) == STATE_BYTES:
            value, kept = _FLOAT.unpack_from(data, LEGACY_BYTES)
            single = value if kept else None
        with self.lock:
            self.bits.state = {
                "bit_generator": "MT19937",
                "state": {"key": key, "pos": _KEY if fresh else following},
            }
            self._seed, self._fresh = seed, fresh
            self.next_normal = y if valid else None
            self._next_float = single

    def mark(self) -> tuple[Any, ...]:
        """The state as it lies in memory, for ``return_to``: thirty times quicker than ``get_state``."""
        with self.lock:
            words = ctypes.string_at(self._address, STATE_IN_MEMORY)
            return words, self._seed, self._fresh, self.next_normal, self._next_float

    def return_to(self, mark: tuple[Any, ...]) -> None:
        """Go on from where ``mark`` was called."""
        with self.lock:
            words, self._seed, self._fresh, self.next_normal, self._next_float = mark
            ctypes.memmove(self._address, words, STATE_IN_MEMORY)

    def clone(self) -> MT:
        """Another generator in the same state."""
        g = MT(0)
        g.set_state(self.get_state())
        return g


default = MT()
