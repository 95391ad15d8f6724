"""Reading a pickle without running it: a small machine that knows data, and calls only what a table lists.

Python's own unpickler calls whatever the file names. This one has no way to: names are looked up in
:data:`~flambeau.serialization.names.CALLABLE` and in what the user added with ``add_safe_globals``; calling, making
and setting the state of anything else is refused.
"""

from __future__ import annotations

import _compat_pickle
import pickle
import struct
from collections import Counter, OrderedDict
from collections.abc import Callable
from pickle import UnpicklingError, decode_long
from typing import Any, BinaryIO

from flambeau.core.tensor import Tensor

from . import names

#: Modules of which nothing is ever allowed, whatever the user adds.
BLOCKED = ("sys", "os", "posix", "nt", "subprocess")

_added: dict[int, Any] = {}


def add_safe_globals(safe_globals: list[Any]) -> None:
    """Let files name (and call) these classes and functions; an entry may be (object, "module.name").

    >>> import fractions
    >>> add_safe_globals([fractions.Fraction])
    >>> get_safe_globals()
    [<class 'fractions.Fraction'>]
    >>> clear_safe_globals()
    """
    for entry in safe_globals:
        _full_name(entry)
    _added.update((id(entry), entry) for entry in safe_globals)


def get_safe_globals() -> list[Any]:
    """What :func:`add_safe_globals` added."""
    return list(_added.values())


def clear_safe_globals() -> None:
    """Forget all that was added."""
    _added.clear()


class safe_globals:
    """Allow these for the time of a ``with`` block."""

    def __init__(self, safe_globals: list[Any]) -> None:
        self.safe_globals = safe_globals

    def __enter__(self) -> None:
        self.before = dict(_added)
        add_safe_globals(self.safe_globals)

    def __exit__(self, *exc: Any) -> None:
        _added.clear()
        _added.update(self.before)


def _full_name(entry: Any) -> tuple[str, Any]:
    if not isinstance(entry, tuple):
        return f"{entry.__module__}.{entry.__qualname__}", entry
    if len(entry) != 2:
        raise ValueError(
            f"Expected tuple of length 2 (global, str of callable full path), but got tuple of length: {len(entry)}"
        )
    if type(entry[1]) is not str:
        raise TypeError(f"Expected second item in tuple to be str of callable full path, but got: {type(entry[1])}")
    return entry[1], entry[0]


def user_globals() -> dict[str, Any]:
    return dict(_full_name(entry) for entry in _added.values())


def modern_name(module: str, name: str) -> tuple[str, str]:
    """Python 3's name for what protocol 2 calls by Python 2's."""
    if (module, name) in _compat_pickle.NAME_MAPPING:
        return _compat_pickle.NAME_MAPPING[module, name]
    return _compat_pickle.IMPORT_MAPPING.get(module, module), name


class SafeUnpickler:
    """Loads one object. ``persistent_load`` makes a storage of ("storage", ...)."""

    def __init__(self, file: BinaryIO, persistent_load: Callable[[Any], Any], encoding: str = "utf-8") -> None:
        self.file, self.persistent_load = file, persistent_load
        self.encoding = "utf-8" if encoding == "bytes" else encoding
        self.memo: dict[int, Any] = {}
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.user = user_globals()
        user_named = self.user.values()
        self.callable = {id(f) for f in (*names.CALLABLE.values(), *user_named)}
        self.buildable = {id(c) for c in user_named}

    def load(self) -> Any:
        steps = _STEPS
        while True:
            code = self.bytes(1)[0]
            step = steps.get(code)
            if step is None:
                if code == pickle.STOP[0]:
                    return self.pop()
                raise UnpicklingError(f"Unsupported operand {code}")
            step(self)

    # ---- the machine ------------------------------------------------------------------------------------------
    def bytes(self, n: int) -> bytes:
        data = self.file.read(n)
        if len(data) != n:
            raise EOFError("Ran out of input")
        return data

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.bytes(struct.calcsize(form)))[0]

    def line(self) -> str:
        text = self.file.readline()
        if text[-1:] != b"\n":
            raise EOFError("Ran out of input")
        return text[:-1].decode("utf-8")

    def text(self, n: int) -> None:
        self.stack.append(str(self.bytes(n), "utf-8", "surrogatepass"))

    def pop(self) -> Any:
        if not self.stack:
            raise UnpicklingError("unexpected MARK found" if self.marks else "stack is empty")
        return self.stack.pop()

    def top(self) -> Any:
        if not self.stack:
            raise UnpicklingError("stack is empty")
        return self.stack[-1]

    def pop_mark(self) -> list[Any]:
        if not self.marks:
            raise UnpicklingError("could not find MARK")
        items, self.stack = self.stack, self.marks.pop()
        return items

    def mark(self) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def get(self, i: int) -> None:
        if i not in self.memo:
            raise UnpicklingError(f"Memo value not found at index {i}")
        self.stack.append(self.memo[i])

    def put(self, i: int) -> None:
        self.memo[i] = self.top()

    # ---- names and calls --------------------------------------------------------------------------------------
    def find(self, module: str, name: str) -> None:
        module, name = modern_name(module, name)
        full = f"{module}.{name}"
        if module.partition(".")[0] in BLOCKED:
            raise UnpicklingError(f"Trying to load unsupported GLOBAL {full} whose module {module} is blocked.")
        for table in (names.CALLABLE, names.NAMED, self.user):
            if full in table:
                self.stack.append(table[full])
                return
        if full == "torch.nn.parameter.Parameter":
            self.stack.append(names.parameter_type())
            return
        if full in names.ABSENT:
            raise NotImplementedError(f"{full} is not in flambeau: this file can't be loaded")
        shown = full.removeprefix("builtins.")
        raise UnpicklingError(
            f"Unsupported global: GLOBAL {shown} was not an allowed global by default. Please use "
            f"`torch.serialization.add_safe_globals([{shown}])` or the "
            f"`torch.serialization.safe_globals([{shown}])` context manager to allowlist this global if you trust "
            "this class/function."
        )

    def reduce(self) -> None:
        arguments, function = self.pop(), self.pop()
        if type(arguments) is not tuple or id(function) not in self.callable:
            raise UnpicklingError(f"Trying to call reduce for unrecognized function {_shown(function)}")
        if function is names.rebuild_from_type_v2 and not self._may_rebuild(arguments):
            raise UnpicklingError("Trying to rebuild a tensor by a function or as a class that isn't allowed")
        self.stack.append(function(*arguments))

    def _may_rebuild(self, arguments: tuple[Any, ...]) -> bool:
        """Its own arguments are a function to call and the class of the tensor."""
        return (
            len(arguments) == 4
            and id(arguments[0]) in self.callable
            and type(arguments[2]) is tuple
            and (arguments[1] is Tensor or id(arguments[1]) in self.buildable or names.is_parameter_type(arguments[1]))
        )

    def new_object(self) -> None:
        arguments, cls = self.pop(), self.pop()
        if names.is_parameter_type(cls) and type(arguments) is tuple:
            if len(arguments) > 2 or not all(isinstance(a, (Tensor, bool)) for a in arguments):
                raise UnpicklingError("a Parameter in the file is not made of a tensor")
            self.stack.append(cls(*arguments))
        elif id(cls) in self.buildable and isinstance(cls, type) or cls in (OrderedDict, Counter, set, frozenset):
            self.stack.append(cls.__new__(cls, *arguments))
        else:
            raise UnpicklingError(
                "Can only create new object for nn.Parameter or classes allowlisted via `add_safe_globals` but got "
                f"{_shown(cls)}"
            )

    def build(self) -> None:
        state, instance = self.pop(), self.top()
        if type(instance) is OrderedDict and isinstance(state, dict):
            instance.__dict__.update(state)
        elif isinstance(instance, Tensor) and id(type(instance)) not in self.buildable:
            names.set_state(instance, state)
        elif id(type(instance)) in self.buildable:
            _set_state(instance, state)
        else:
            raise UnpicklingError(
                "Can only build Tensor, Parameter, OrderedDict or types allowlisted via `add_safe_globals`, but got "
                f"{type(instance)}"
            )

    def persistent(self) -> None:
        pid = self.pop()
        if type(pid) is not tuple or not pid or pid[0] not in ("storage", b"storage"):
            raise UnpicklingError(f"Only persistent_load of storage is allowed, but got {_shown(pid)}")
        self.stack.append(self.persistent_load(pid))

    # ---- containers -------------------------------------------------------------------------------------------
    def append(self, items: list[Any]) -> None:
        target = self.top()
        if type(target) is not list:
            raise UnpicklingError(f"Can only append to lists, but got {type(target)}")
        target.extend(items)

    def set_items(self, items: list[Any]) -> None:
        target = self.top()
        if type(target) not in (dict, OrderedDict, Counter):
            raise UnpicklingError(f"Can only set items of dict, OrderedDict or Counter, but got {type(target)}")
        if len(items) % 2:
            raise UnpicklingError("odd number of items for a dict")
        for i in range(0, len(items), 2):
            target[items[i]] = items[i + 1]

    def add_items(self, items: list[Any]) -> None:
        target = self.top()
        if type(target) is not set:
            raise UnpicklingError(f"Can only add to sets, but got {type(target)}")
        target.update(items)


def _shown(x: Any) -> str:
    """A name for a message: never the repr of what a file made, which may be endless."""
    return f"{x.__module__}.{x.__qualname__}" if isinstance(x, type) else f"an object of type {type(x).__name__}"


def _set_state(instance: Any, state: Any) -> None:
    """As pickle does, for a class that the user allows."""
    if hasattr(instance, "__setstate__"):
        instance.__setstate__(state)
        return
    slots = None
    if isinstance(state, tuple) and len(state) == 2:
        state, slots = state
    if state:
        instance.__dict__.update(state)
    for name, value in (slots or {}).items():
        setattr(instance, name, value)


def _constant(value: Any) -> Callable[[SafeUnpickler], None]:
    return lambda u: u.stack.append(value)


def _number(form: str) -> Callable[[SafeUnpickler], None]:
    return lambda u: u.stack.append(u.number(form))


def _tuple(n: int) -> Callable[[SafeUnpickler], None]:
    def step(u: SafeUnpickler) -> None:
        if len(u.stack) < n:
            raise UnpicklingError("stack is empty")
        u.stack[-n:] = [tuple(u.stack[-n:])]

    return step


def _collect(kind: type) -> Callable[[SafeUnpickler], None]:
    def step(u: SafeUnpickler) -> None:
        items = u.pop_mark()
        u.stack.append(kind(items))

    return step


def _stack_global(u: SafeUnpickler) -> None:
    name, module = u.pop(), u.pop()
    if type(name) is not str or type(module) is not str:
        raise UnpicklingError("STACK_GLOBAL requires str")
    u.find(module, name)


def _set_item(u: SafeUnpickler) -> None:
    value, key = u.pop(), u.pop()
    u.set_items([key, value])


def _short_binstring(u: SafeUnpickler) -> None:
    u.stack.append(str(u.bytes(u.number("B")), u.encoding))


_STEPS: dict[int, Callable[[SafeUnpickler], Any]] = {
    code[0]: step
    for code, step in {
        pickle.PROTO: lambda u: u.bytes(1),
        pickle.FRAME: lambda u: u.bytes(8),
        pickle.GLOBAL: lambda u: u.find(u.line(), u.line()),
        pickle.STACK_GLOBAL: _stack_global,
        pickle.REDUCE: SafeUnpickler.reduce,
        pickle.NEWOBJ: SafeUnpickler.new_object,
        pickle.BUILD: SafeUnpickler.build,
        pickle.BINPERSID: SafeUnpickler.persistent,
        pickle.MARK: SafeUnpickler.mark,
        pickle.POP: lambda u: u.pop(),
        pickle.POP_MARK: lambda u: u.pop_mark(),
        pickle.APPEND: lambda u: u.append([u.pop()]),
        pickle.APPENDS: lambda u: u.append(u.pop_mark()),
        pickle.SETITEM: _set_item,
        pickle.SETITEMS: lambda u: u.set_items(u.pop_mark()),
        pickle.ADDITEMS: lambda u: u.add_items(u.pop_mark()),
        pickle.TUPLE: _collect(tuple),
        pickle.TUPLE1: _tuple(1),
        pickle.TUPLE2: _tuple(2),
        pickle.TUPLE3: _tuple(3),
        pickle.FROZENSET: _collect(frozenset),
        pickle.EMPTY_TUPLE: _constant(()),
        pickle.EMPTY_LIST: lambda u: u.stack.append([]),
        pickle.EMPTY_DICT: lambda u: u.stack.append({}),
        pickle.EMPTY_SET: lambda u: u.stack.append(set()),
        pickle.NONE: _constant(None),
        pickle.NEWTRUE: _constant(True),
        pickle.NEWFALSE: _constant(False),
        pickle.BININT: _number("<i"),
        pickle.BININT1: _number("<B"),
        pickle.BININT2: _number("<H"),
        pickle.BINFLOAT: _number(">d"),
        pickle.LONG1: lambda u: u.stack.append(decode_long(u.bytes(u.number("B")))),
        pickle.LONG4: lambda u: u.stack.append(decode_long(u.bytes(u.number("<I")))),
        pickle.SHORT_BINUNICODE: lambda u: u.text(u.number("B")),
        pickle.BINUNICODE: lambda u: u.text(u.number("<I")),
        pickle.BINUNICODE8: lambda u: u.text(u.number("<Q")),
        pickle.SHORT_BINSTRING: _short_binstring,
        pickle.SHORT_BINBYTES: lambda u: u.stack.append(u.bytes(u.number("B"))),
        pickle.BINBYTES: lambda u: u.stack.append(u.bytes(u.number("<I"))),
        pickle.BINBYTES8: lambda u: u.stack.append(u.bytes(u.number("<Q"))),
        pickle.BYTEARRAY8: lambda u: u.stack.append(bytearray(u.bytes(u.number("<Q")))),
        pickle.BINGET: lambda u: u.get(u.number("B")),
        pickle.LONG_BINGET: lambda u: u.get(u.number("<I")),
        pickle.BINPUT: lambda u: u.put(u.number("B")),
        pickle.LONG_BINPUT: lambda u: u.put(u.number("<I")),
        pickle.MEMOIZE: lambda u: u.put(len(u.memo)),
    }.items()
}
