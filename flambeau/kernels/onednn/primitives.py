"""Primitives made once and kept: descriptors, the cache, and running a primitive on arrays.

Creating a primitive costs hundreds of times what running a small one does, so everything that depends only
on shapes, strides and dtypes is made once and kept in a :class:`Plan`, under a key of exactly these.  Running
a plan stores one pointer per array and calls the library.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np

from flambeau.kernels.onednn import library
from flambeau.kernels.onednn.library import handle

#: Plans kept in each of the two generations of the cache.
CAPACITY = 2048
ALIGNMENT = 64


class Unsupported(Exception):
    """oneDNN has no implementation for these descriptors."""


class Argument(ctypes.Structure):
    _fields_ = [("name", ctypes.c_int), ("memory", handle)]


# An array object begins with the interpreter's header, then the pointer to its data (NumPy's C interface
# promises this order).  Reading it there takes 0.13 µs; the attribute `ctypes.data` takes 1 µs.
_DATA_OFFSET = object.__basicsize__
_pointer_at = ctypes.c_void_p.from_address


def _address_by_layout(array: np.ndarray) -> int:
    return _pointer_at(id(array) + _DATA_OFFSET).value or 0


def _address_by_attribute(array: np.ndarray) -> int:
    return array.ctypes.data


_probe = np.empty(3)
#: The address of an array's first element.
address: Callable[[np.ndarray], int] = (
    _address_by_layout if _address_by_layout(_probe) == _probe.ctypes.data else _address_by_attribute)


# --- descriptors ------------------------------------------------------------------------------------------
def check(status: int, what: str) -> None:
    """Raise Unsupported for a status that is not success."""
    if status:
        raise Unsupported(f"oneDNN answered {status} to {what}")


def vector(values: Sequence[int]) -> ctypes.Array:
    """The values as the array of 12 that oneDNN takes for dimensions."""
    return (ctypes.c_int64 * 12)(*values)


class Descriptor:
    """A memory descriptor; destroyed with this object."""

    def __init__(self, pointer: int | None, owner: object = None):
        self.pointer, self.owner = pointer, owner
        self._api = library.functions()

    @property
    def size(self) -> int:
        """Bytes that the described memory takes."""
        return self._api.memory_desc_get_size(self.pointer)

    def __eq__(self, other):
        return bool(self._api.memory_desc_equal(self.pointer, other.pointer))

    __hash__ = None  # type: ignore[assignment]

    def __del__(self):
        if self.owner is None:
            self._api.memory_desc_destroy(self.pointer)


def describe(shape: Sequence[int], strides: Sequence[int], dtype: np.dtype) -> Descriptor:
    """The descriptor of an array of this shape, with strides counted in elements."""
    result = handle()
    status = library.functions().memory_desc_create_with_strides(
        result, len(shape), vector(shape), library.data_types()[dtype], vector(strides))
    check(status, f"strides {tuple(strides)} for shape {tuple(shape)}")
    return Descriptor(result.value)


def describe_array(array: np.ndarray) -> Descriptor:
    """The descriptor of an array as it lies in memory."""
    item = array.itemsize
    if any(stride < 0 or stride % item for stride in array.strides):
        raise Unsupported("strides that are negative or not a whole number of elements")
    return describe(array.shape, [stride // item for stride in array.strides], array.dtype)


def describe_any(shape: Sequence[int], dtype: np.dtype) -> Descriptor:
    """A descriptor that leaves the layout for oneDNN to choose."""
    result = handle()
    status = library.functions().memory_desc_create_with_tag(
        result, len(shape), vector(shape), library.data_types()[dtype], library.TAG_ANY)
    check(status, f"any layout of shape {tuple(shape)}")
    return Descriptor(result.value)


class PrimitiveDescriptor:
    """What oneDNN chose for an operation: `PrimitiveDescriptor("matmul", src, weights, bias, dst)`.

    Descriptors among the arguments may be None; `dims` are passed as sequences.  The last argument of every
    creator, the attributes, is made here: scratch memory is ours, and with `add` the result is added to what
    the output holds.  (A fused relu is not offered: oneDNN's turns NaN into 0.)
    """

    def __init__(self, kind: str, *arguments, add: bool = False):
        api = self._api = library.functions()
        result, attributes = handle(), handle()
        self.pointer = None
        check(api.primitive_attr_create(attributes), "attributes")
        try:
            api.primitive_attr_set_scratchpad_mode(attributes, library.SCRATCHPAD_USER)
            if add:
                self._add_to_output(attributes)
            passed = [_as_argument(argument) for argument in arguments]
            create = getattr(api, f"{kind}_primitive_desc_create")
            if kind != "reorder":       # which names an engine for each side instead
                passed.insert(0, api.engine)
            check(create(result, *passed, attributes), kind)
        finally:
            api.primitive_attr_destroy(attributes)
        self.pointer = result.value

    def _add_to_output(self, attributes: handle) -> None:
        api, operations = self._api, handle()
        api.post_ops_create(operations)
        api.post_ops_append_sum(operations, 1.0, 0, 0)
        api.primitive_attr_set_post_ops(attributes, operations)
        api.post_ops_destroy(operations)

    def memory(self, query: int, index: int = 0) -> Descriptor | None:
        """The descriptor that was chosen for one of the operation's memories; None where it has none."""
        pointer = self._api.primitive_desc_query_md(self.pointer, query, index)
        if not pointer:
            return None
        result = Descriptor(pointer, self)
        return result if result.size else None

    @property
    def inputs(self) -> int:
        """How many memories the primitive reads."""
        return self._api.primitive_desc_query_s32(self.pointer, library.QUERY_INPUTS, 0)

    @property
    def implementation(self) -> str:
        """oneDNN's name of the chosen implementation, such as `brg:avx512_core`."""
        result = handle()
        self._api.primitive_desc_query(self.pointer, library.QUERY_IMPLEMENTATION, 0, result)
        return ctypes.string_at(result).decode()

    def __del__(self):
        if self.pointer:
            self._api.primitive_desc_destroy(self.pointer)


def _as_argument(argument):
    if argument is None or isinstance(argument, (int, float)):
        return argument
    if isinstance(argument, (Descriptor, PrimitiveDescriptor)):
        return argument.pointer
    return vector(argument)


def reorder_descriptor(source: Descriptor, target: Descriptor) -> PrimitiveDescriptor:
    """The copy from one layout to another."""
    return PrimitiveDescriptor("reorder", source, library.functions().engine, target, library.functions().engine)


# --- plans ------------------------------------------------------------------------------------------------
class _Memory(threading.local):
    """A thread's memory that is reused: what primitives scratch in, and operands in oneDNN's layouts."""

    scratch = temporary = np.empty(0, np.uint8)


_memory = _Memory()


def aligned(size: int) -> np.ndarray:
    """New memory whose address is a multiple of ALIGNMENT."""
    memory = np.empty(size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start:start + size]


def scratch(size: int) -> np.ndarray:
    """This thread's scratch memory, at least `size` bytes: for one run of one primitive."""
    if _memory.scratch.size < size:
        _memory.scratch = aligned(size)
    return _memory.scratch


def temporary(size: int) -> np.ndarray:
    """This thread's memory for an operand in oneDNN's own layout, at least `size` bytes, until the next call."""
    if _memory.temporary.size < size:
        _memory.temporary = aligned(size)
    return _memory.temporary


class Plan:
    """A primitive with its memory objects: call it with the arrays, in the order of `arguments`.

    `arguments` are pairs (name of the argument, its descriptor).  Calls from several threads take turns: the
    memory objects that hold the pointers are shared.
    """

    def __init__(self, descriptor: PrimitiveDescriptor, arguments: Sequence[tuple[int, Descriptor]]):
        api = self._api = library.functions()
        self.lock, self.memories, self.primitive = threading.Lock(), [], None
        self.implementation = descriptor.implementation
        scratchpad = descriptor.memory(library.QUERY_SCRATCHPAD)
        self.scratch_size = scratchpad.size if scratchpad else 0
        self.takes = len(arguments)
        if scratchpad:
            arguments = [*arguments, (library.ARG_SCRATCHPAD, scratchpad)]
        self.count = len(arguments)
        self.arguments = (Argument * self.count)()
        for slot, (name, memory_descriptor) in zip(self.arguments, arguments, strict=True):
            memory = handle()
            check(api.memory_create(memory, memory_descriptor.pointer, api.engine, None), "memory")
            self.memories.append(memory.value)
            slot.name, slot.memory = name, memory.value
        primitive = handle()
        check(api.primitive_create(primitive, descriptor.pointer), "a primitive")
        self.primitive = primitive.value
        self._slots = ctypes.addressof(self.arguments)
        self._set, self._execute, self._stream = api.set_data_handle, api.primitive_execute, api.stream

    def __call__(self, *arrays: np.ndarray) -> None:
        store = self._set
        with self.lock:
            for memory, array in zip(self.memories, arrays):  # noqa: B905 (the scratch memory is one more)
                store(memory, address(array))
            if self.scratch_size:
                store(self.memories[-1], address(scratch(self.scratch_size)))
            status = self._execute(self.primitive, self._stream, self.count, self._slots)
        if status:
            raise RuntimeError(f"oneDNN failed with status {status} in {self.implementation}")

    def __del__(self):
        if self.primitive:
            self._api.primitive_destroy(self.primitive)
        for memory in self.memories:
            self._api.memory_destroy(memory)


# --- the cache --------------------------------------------------------------------------------------------
# Two generations: a plan that is used while in the old one moves to the young one, and what has not been used
# since the young one was last begun is dropped.  So a hit costs one look-up and no bookkeeping.
_young: dict[Hashable, Any] = {}
_old: dict[Hashable, Any] = {}
_turn = threading.Lock()


def cached(key: Hashable, build: Callable[..., Any], *arguments) -> Any:
    """What `build(*arguments)` made for this key; None, kept too, where it raised Unsupported."""
    found = _young.get(key, cached)
    if found is not cached:
        return found
    with _turn:
        found = _old.pop(key, cached)
        if found is cached:
            try:
                found = build(*arguments)
            except Unsupported:
                found = None
        if len(_young) >= CAPACITY:
            _old.clear()
            _old.update(_young)
            _young.clear()
        _young[key] = found
    return found


def clear() -> None:
    """Drop all plans: after a change of the number of threads, which plans are made for, and after a fork."""
    with _turn:
        _young.clear()
        _old.clear()


def _after_fork() -> None:
    # libgomp's threads are gone in the child, and plans are made for a number of threads: make them anew
    global _turn
    _turn = threading.Lock()
    clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
