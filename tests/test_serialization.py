"""Saving and loading: round trips, files that go to PyTorch and come from it, damaged files, hostile files."""

from __future__ import annotations

import collections
import fractions
import io
import os
import pickle
import struct
import sys
import warnings
import zipfile

import numpy as np
import pytest

import flambeau
from flambeau import serialization
from flambeau.core import dtypes
from flambeau.core.device import device
from flambeau.core.size import Size
from flambeau.core.tensor import Tensor, wrap
from flambeau.serialization import load, save
from flambeau.serialization.archive import Writer

DTYPES = [d.name for d in dtypes.ALL]


def tensor(*shape: int, dtype: str = "float32") -> Tensor:
    d = dtypes.BY_NAME[dtype]
    n = int(np.prod(shape))
    values = np.arange(n) % 2 if dtype == "bool" else np.arange(n)
    return wrap(values.astype(np.float32).astype(d.np).reshape(shape))


def saved(obj, **options) -> bytes:
    file = io.BytesIO()
    save(obj, file, **options)
    return file.getvalue()


def again(obj, **options):
    return load(io.BytesIO(saved(obj)), **options)


def same(a, b) -> None:
    """Equal, in types too."""
    assert type(a) is type(b)
    if isinstance(a, Tensor):
        assert a._a.dtype == b._a.dtype and a._a.shape == b._a.shape and a._rg == b._rg
        assert a._a.tobytes() == b._a.tobytes()
    elif isinstance(a, dict):
        assert list(a) == list(b)
        for k in a:
            same(a[k], b[k])
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        for x, y in zip(a, b):
            same(x, y)
    else:
        assert a == b


PLAIN = {
    "numbers": [0, -1, 255, 256, 65536, -(2**31), 2**31, 10**30, 1.5, float("inf"), True, False, None, 1 + 2j],
    "text": ["", "é", "日本" * 100, b"\x00\xff" * 200, bytearray(b"abc")],
    "only here": [b"", frozenset([1])],
    "containers": {"t": ((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)), "s": {1, 2}, "e": [set(), {}, []]},
    "ordered": collections.OrderedDict([("b", 1), ("a", 2)]),
    "counter": collections.Counter("hello"),
    "ours": [Size([2, 3]), device("cpu"), flambeau.float32, flambeau.bfloat16, flambeau.int64, flambeau.strided],
}


@pytest.mark.parametrize("weights_only", [True, False])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("name", PLAIN)
def test_plain_objects(name, protocol, weights_only):
    same(load(io.BytesIO(saved(PLAIN[name], pickle_protocol=protocol)), weights_only=weights_only), PLAIN[name])


@pytest.mark.parametrize("weights_only", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype(dtype, weights_only):
    for shape in [(), (0,), (3, 0), (1,), (2, 3), (2, 3, 4, 5)]:
        t = tensor(*shape, dtype=dtype)
        same(again(t, weights_only=weights_only), t)


def test_views_share_their_storage_again():
    t = tensor(4, 6)
    views = [t, wrap(t._a.T), wrap(t._a[1:, ::2]), wrap(t._a[2, 3:]), wrap(np.broadcast_to(t._a[0], (3, 6)))]
    data = saved({"views": views, "again": t, "apart": tensor(4, 6)})
    with zipfile.ZipFile(io.BytesIO(data)) as z:
        assert [n for n in z.namelist() if "/data/" in n] == ["archive/data/0", "archive/data/1"]
        assert z.getinfo("archive/data/0").file_size == t.nbytes
    out = load(io.BytesIO(data))
    assert out["views"][0] is out["again"]
    for a, b in zip(out["views"], views):
        same(a, b)
        assert a._a.strides == b._a.strides
    out["again"]._a[2, 3] = 99
    assert out["views"][1]._a[3, 2] == 99 and out["views"][3]._a[0] == 99
    assert not np.shares_memory(out["apart"]._a, out["again"]._a)
    assert all(v.storage_offset() == w.storage_offset() for v, w in zip(out["views"], views))


def test_a_view_alone_saves_its_storage():
    t = tensor(4, 6)
    out = again(wrap(t._a[2]))
    assert out.storage_offset() == 12


def test_memory_that_is_not_dense_is_saved_by_value():
    gap = np.lib.stride_tricks.as_strided(np.arange(20.0), (3, 2), (48, 16))
    reverse = np.arange(6.0)[::-1]
    odd = np.frombuffer(bytes(range(1, 42)), np.uint8)[1:].view(np.float64)
    for a in (gap, reverse, odd, np.asfortranarray(np.arange(6.0).reshape(2, 3))):
        np.testing.assert_array_equal(again(wrap(a))._a, a)


def test_requires_grad_and_attributes():
    t = tensor(3).requires_grad_()
    t.note = "a note"
    out = again(t)
    assert out.requires_grad and out.note == "a note" and out.is_leaf


def test_channels_last_stays():
    t = wrap(np.ascontiguousarray(np.arange(120.0).reshape(2, 4, 5, 3)).transpose(0, 3, 1, 2))
    t.__dict__["_channels_last"] = True
    out = again(t)
    assert out.stride() == t.stride() and out.is_contiguous(memory_format=flambeau.channels_last)


def test_parameters_and_state_dicts():
    Parameter = flambeau.nn.Parameter
    p = Parameter(tensor(2, 3))
    frozen = Parameter(tensor(2), requires_grad=False)
    out = again([p, frozen, p])
    assert type(out[0]) is Parameter and out[0].requires_grad and not out[1].requires_grad and out[2] is out[0]
    state = collections.OrderedDict(weight=tensor(2, 3), bias=tensor(2))
    state._metadata = collections.OrderedDict([("", {"version": 1})])
    out = again(
        {"model": state, "optim": {"state": {0: {"step": tensor(), "m": tensor(2)}}, "param_groups": [{"lr": 0.1}]}}
    )
    same(out["model"], state)
    assert out["model"]._metadata == state._metadata


def test_types_that_alias():
    t = tensor(4)
    with pytest.raises(
        RuntimeError, match="Cannot save multiple tensors or storages that view the same data as different types"
    ):
        saved([t, wrap(t._a.view(np.int32))])


def test_recursive_and_deep():
    a = [1]
    a.append(a)
    out = again(a)
    assert out[1] is out
    deep = []
    for _ in range(150):
        deep = [deep]
    same(again(deep), deep)


# ---- files --------------------------------------------------------------------------------------------------------
def test_paths(tmp_path):
    path = tmp_path / "model.pt"
    save({"a": tensor(3)}, path)
    same(load(path)["a"], tensor(3))
    same(load(str(path))["a"], tensor(3))
    with zipfile.ZipFile(path) as z:
        assert z.namelist()[0] == "model/data.pkl" and z.testzip() is None
        assert {i.compress_type for i in z.infolist()} == {0}
    with open(path, "rb") as f:
        same(load(f)["a"], tensor(3))
    with open(tmp_path / "b.pt", "wb") as f:
        save(tensor(3), f)
    same(load(tmp_path / "b.pt"), tensor(3))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b.pt", "model.pt"]
    if os.name == "posix":
        mask = os.umask(0)
        os.umask(mask)
        assert path.stat().st_mode & 0o777 == 0o666 & ~mask
        path.chmod(0o600)
        save(1, path)
        assert path.stat().st_mode & 0o777 == 0o600
        (tmp_path / "link.pt").symlink_to(path)
        save(2, tmp_path / "link.pt")
        assert load(path) == 2 and (tmp_path / "link.pt").is_symlink()


def test_records_are_aligned():
    data = saved([tensor(3), tensor(5), tensor(1)])
    with zipfile.ZipFile(io.BytesIO(data)) as z:
        for info in z.infolist():
            n, extra = struct.unpack("<HH", data[info.header_offset + 26 : info.header_offset + 30])
            assert (info.header_offset + 30 + n + extra) % 64 == 0


def test_position_in_a_file_object():
    file = io.BytesIO(b"12345")
    file.seek(5)
    save(tensor(3), file)
    file.seek(5)
    same(load(file), tensor(3))


def test_missing_places(tmp_path):
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "none.pt")
    with pytest.raises(RuntimeError, match="Parent directory .* does not exist"):
        save(1, tmp_path / "none" / "a.pt")
    with pytest.raises(IsADirectoryError):
        load(tmp_path)
    with pytest.raises(AttributeError, match="expected 'f' to be string, path, or a file-like object"):
        save(1, 3)
    with pytest.raises(AttributeError, match="seekable"):
        load(3)


@pytest.mark.parametrize("after", [0, 1, 3, 7])
def test_an_interrupted_save_leaves_the_old_file(tmp_path, monkeypatch, after):
    path = tmp_path / "a.pt"
    save({"old": tensor(1000)}, path)
    before = path.read_bytes()
    record, calls = Writer.record, []

    def failing(self, name, data):
        calls.append(name)
        if len(calls) > after:
            self.zip.fp.write(b"half a rec")
            raise KeyboardInterrupt
        record(self, name, data)

    monkeypatch.setattr(Writer, "record", failing)
    with pytest.raises(KeyboardInterrupt):
        save({"new": [tensor(1000), tensor(2000)]}, path)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["a.pt"]


def test_what_cannot_be_pickled_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.pt"
    save(1, path)
    with pytest.raises((AttributeError, pickle.PicklingError, TypeError)):
        save(lambda: 0, path)
    with pytest.raises(TypeError):
        save(sys, path)
    assert load(path) == 1 and len(list(tmp_path.iterdir())) == 1


def test_mmap(tmp_path):
    path = tmp_path / "a.pt"
    t = tensor(100, 100)
    save({"t": t, "u": wrap(t._a[3])}, path)
    out = load(path, mmap=True)
    same(out["t"], t)
    assert isinstance(out["t"]._a.base.base, np.memmap) or isinstance(out["t"]._a.base, np.memmap)
    out["t"]._a[3, 0] = -1  # a private copy of the page: the file stays
    assert out["u"]._a[0] == -1
    same(load(path)["t"], t)
    with pytest.raises(ValueError, match="f must be a file path in order to use the mmap argument"):
        load(io.BytesIO(saved(t)), mmap=True)


def test_map_location(tmp_path):
    t = tensor(3)
    for where in (
        "cpu",
        device("cpu"),
        {"cpu": "cpu"},
        {"cuda:0": "cpu"},
        lambda s, location: s,
        lambda s, location: None,
    ):
        same(again(t, map_location=where), t)
    data = rewritten(saved(t), {"data.pkl": lambda b: b.replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0")})
    with pytest.raises(RuntimeError, match="Attempting to deserialize object on a CUDA device"):
        load(io.BytesIO(data))
    for where in ("cpu", {"cuda:0": "cpu"}, lambda s, location: s):
        same(load(io.BytesIO(data), map_location=where), t)
    with pytest.raises(RuntimeError, match="Attempting to deserialize object on a CUDA device"):
        load(io.BytesIO(saved(t)), map_location="cuda")


def test_options_that_are_not_there():
    with pytest.raises(NotImplementedError, match="_use_new_zipfile_serialization"):
        saved(1, _use_new_zipfile_serialization=False)
    with pytest.raises(RuntimeError, match="Can not safely load weights when explicit pickle_module is specified"):
        load(io.BytesIO(saved(1)), pickle_module=pickle)
    assert load(io.BytesIO(saved(1)), pickle_module=pickle, weights_only=False) == 1
    assert "byteorder" not in str(zipfile.ZipFile(io.BytesIO(saved(1, _disable_byteorder_record=True))).namelist())


def test_the_other_byte_order():
    other = "big" if sys.byteorder == "little" else "little"
    for dtype in ("float32", "int64", "complex64", "bfloat16"):
        t = tensor(5, dtype=dtype)
        data = rewritten(
            saved(t),
            {
                "byteorder": lambda b: other.encode(),
                "data/0": lambda b, t=t: t._a.byteswap().tobytes(),
            },
        )
        same(load(io.BytesIO(data)), t)


# ---- damaged files ------------------------------------------------------------------------------------------------
def rewritten(data: bytes, changes, compression=zipfile.ZIP_STORED) -> bytes:
    """The archive with some records changed (None: left out)."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w", compression) as new:
        for name in old.namelist():
            change = changes.get(name.partition("/")[2], lambda b: b)
            if change is not None:
                new.writestr(name, change(old.read(name)))
    return out.getvalue()


SAMPLE = {"a": [1, "two", 3.0], "t": 4}
DAMAGE = (RuntimeError, pickle.UnpicklingError, EOFError, NotImplementedError)


def sample() -> bytes:
    t = tensor(3, 4)
    return saved({**SAMPLE, "w": t, "v": wrap(t._a.T), "s": Size([1, 2])})


def test_truncation_at_every_place():
    data = sample()
    for n in range(0, len(data), 7):
        with pytest.raises(DAMAGE):
            load(io.BytesIO(data[:n]))
    with pytest.raises(RuntimeError, match="PytorchStreamReader failed"):
        load(io.BytesIO(data[: len(data) // 2]))


def test_flipped_bits():
    """Found by the checksums, or harmless (padding, times): never another value, another error or a crash."""
    data, good = sample(), load(io.BytesIO(sample()))
    choose = np.random.default_rng(0)
    for _ in range(600):
        broken = bytearray(data)
        broken[choose.integers(len(data))] ^= 1 << choose.integers(8)
        try:
            same(load(io.BytesIO(bytes(broken))), good)
        except DAMAGE:
            pass


def test_damaged_pickles():
    """The same inside the pickle, with its checksum made right again."""
    data = sample()
    pickled = zipfile.ZipFile(io.BytesIO(data)).read("archive/data.pkl")
    choose = np.random.default_rng(0)
    for i in range(1500):
        broken = bytearray(pickled)
        for _ in range(1 + i % 3):
            broken[choose.integers(len(broken))] = choose.integers(256)
        if i % 5 == 0:
            del broken[choose.integers(len(broken)) :]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                load(io.BytesIO(rewritten(data, {"data.pkl": lambda b, x=broken: bytes(x)})))
        except DAMAGE:
            pass


@pytest.mark.parametrize(
    "record,match",
    [
        ("data/0", r"failed locating file data/0"),
        ("data.pkl", "failed locating file data.pkl"),
        ("version", "failed locating"),
    ],
)
def test_missing_records(record, match):
    with pytest.raises(RuntimeError, match=match):
        load(io.BytesIO(rewritten(saved(tensor(3)), {record: None})))


def test_records_that_are_too_short_or_compressed():
    data = saved(tensor(300))
    with pytest.raises(RuntimeError, match="PytorchStreamReader failed reading file data/0"):
        load(io.BytesIO(rewritten(data, {"data/0": lambda b: b[:-1]})))
    with pytest.raises(RuntimeError, match="compressed"):
        load(io.BytesIO(rewritten(data, {}, zipfile.ZIP_DEFLATED)))
    with pytest.raises(RuntimeError, match="version"):
        load(io.BytesIO(rewritten(data, {"version": lambda b: b"99\n"})))


def test_what_is_no_checkpoint():
    for junk in (b"", b"hello world", b"\x00" * 100, b"PK\x03\x04" + b"x" * 100, os.urandom(1000)):
        with pytest.raises(DAMAGE):
            load(io.BytesIO(junk))


# ---- hostile files ------------------------------------------------------------------------------------------------
ran: list[str] = []


def trap(*arguments):
    ran.append("trap")
    return {}


class Reduces:
    def __init__(self, function, arguments, state=None):
        self.parts = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.parts


def hostile(pickled: bytes) -> bytes:
    return rewritten(saved(tensor(4)), {"data.pkl": lambda b: pickled})


def refused(pickled: bytes, match: str) -> None:
    ran.clear()
    with pytest.raises((pickle.UnpicklingError, RuntimeError), match=match or None):
        load(io.BytesIO(hostile(pickled)))
    assert not ran


@pytest.mark.parametrize("protocol", [2, 4])
def test_nothing_is_called(protocol, tmp_path):
    target = tmp_path / "made"
    for function, arguments in [
        (os.system, (f"touch {target}",)),
        (eval, (f"open({str(target)!r}, 'w')",)),
        (exec, ("1",)),
        (trap, ()),
        (print, ("x",)),
        (getattr, (os, "system")),
        (open, (str(target), "w")),
        (__import__, ("os",)),
        (type, ("X", (), {})),
        (np.empty, (10**9,)),
        (np.load, ("x",)),
        (io.open_code, ("x",)),
        (map, (trap, [1])),
        (sys.exit, ()),
    ]:
        if function is getattr:
            arguments = ("os", "system")
        refused(pickle.dumps(Reduces(function, arguments), protocol), "Weights only load failed")
    assert not target.exists()


def test_the_message_names_what_was_refused():
    refused(
        pickle.dumps(Reduces(trap, ()), 2), r"Unsupported global: GLOBAL .*trap was not an allowed global by default"
    )
    refused(pickle.dumps(Reduces(eval, ("1",)), 2), r"GLOBAL eval was not an allowed global by default")
    refused(pickle.dumps(Reduces(os.system, ("1",)), 2), r"system whose module \w+ is blocked")
    refused(pickle.dumps(fractions.Fraction(1, 2), 2), r"GLOBAL fractions.Fraction was not an allowed global")


@pytest.mark.parametrize(
    "pickled",
    [
        b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00ls\x85R.",
        b"\x80\x02c__builtin__\neval\nX\x01\x00\x00\x001\x85R.",  # Python 2's name
        b"\x80\x02ctorch\nTensor\n(K\x05tR.",  # may be named, not called
        b"\x80\x02ctorch\nTensor\nK\x05\x85\x81.",
        b"\x80\x02ctorch\nFloatStorage\n)R.",
        b"\x80\x02ctorch\nfloat32\n)R.",
        b"\x80\x02]q\x00)R.",
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}b.",  # state for a function
        b"\x80\x02ctorch\nTensor\n}X\x01\x00\x00\x00aK\x01sb.",
        b"\x80\x02ccollections\nOrderedDict\n}X\x01\x00\x00\x00aK\x01sb.",
        b"\x80\x02ctorch._tensor\n_rebuild_from_type_v2\n(c__builtin__\nset\nctorch\nTensor\n)}tR.",
        b"\x80\x02ctorch._tensor\n_rebuild_from_type_v2\n(]ctorch\nTensor\n)}tR.",
        b"(S'ls'\nios\nsystem\n.",
        b"\x80\x02(X\x02\x00\x00\x00lsoX.",
        b"\x80\x02\x82\x01.",
        b"\x80\x02c__builtin__\nbytearray\n\x8a\x06\x00\x00\x00\x00\x00\x01\x85R.",  # would be a terabyte
        b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x05\x00\x00\x00rot13\x86R.",
        b"\x80\x02Pabc\n.",
        b"\x80\x02K\x01Q.",
        b"\x80\x02)Q.",
        b"\x80\x02.",
        b"\x80\x02K\x01a.",
        b"\x80\x02h\x05.",
        b"\x80\x02(.",
        b"\x80\x02]X\x01\x00\x00\x00ab}.",
    ],
)
def test_hostile_pickles(pickled):
    refused(pickled, "")


def described(size, stride, offset=0, count=4, kind="FloatStorage", key="0") -> bytes:
    """A pickle of one tensor, as a hostile hand would write it."""

    class P(pickle._Pickler):
        def persistent_id(self, obj):
            return ("storage", Named("torch", kind), key, "cpu", count) if obj == "STORAGE" else None

        def save(self, obj, save_persistent_id=True):
            if isinstance(obj, Named):
                self.write(f"c{obj.module}\n{obj.name}\n".encode())
            else:
                super().save(obj, save_persistent_id)

    class Named:
        def __init__(self, module, name):
            self.module, self.name = module, name

        def __call__(self):
            pass

    class T:
        def __reduce__(self):
            arguments = ("STORAGE", offset, size, stride, False, collections.OrderedDict())
            return Named("torch._utils", "_rebuild_tensor_v2"), arguments

    file = io.BytesIO()
    P(file, 2).dump(T())
    return file.getvalue()


def test_a_tensor_as_it_is_described():
    assert load(io.BytesIO(hostile(described((2, 2), (1, 2)))))._a.tolist() == [[0, 2], [1, 3]]


@pytest.mark.parametrize(
    "what",
    [
        {"size": (5,), "stride": (1,)},
        {"size": (2, 3), "stride": (3, 1)},
        {"size": (2,), "stride": (4,)},
        {"size": (4,), "stride": (1,), "offset": 1},
        {"size": (1,), "stride": (1,), "offset": 4},
        {"size": (), "stride": (), "offset": 4},
        {"size": (4,), "stride": (1,), "offset": -1},
        {"size": (4,), "stride": (-1,), "offset": 3},
        {"size": (-4,), "stride": (1,)},
        {"size": (2**62,), "stride": (1,)},
        {"size": (2**40, 2**40), "stride": (0, 0)},
        {"size": (2, 2**70), "stride": (0, 0)},
        {"size": (2,), "stride": (2**63,)},
        {"size": (2, 2), "stride": (1,)},
        {"size": 4, "stride": 1},
        {"size": "ab", "stride": "cd"},
        {"size": (1.0,), "stride": (1,)},
        {"size": (True,), "stride": (1,)},
        {"size": (None,), "stride": (1,)},
        {"size": (1,) * 70, "stride": (1,) * 70},
        {"size": (4,), "stride": (1,), "offset": "0"},
        {"size": (4,), "stride": (1,), "offset": 2**70},
        {"size": (5,), "stride": (1,), "count": 5},
        {"size": (4,), "stride": (1,), "count": 2**60},
        {"size": (4,), "stride": (1,), "count": -1},
        {"size": (4,), "stride": (1,), "count": "4"},
        {"size": (3,), "stride": (1,), "kind": "DoubleStorage"},
        {"size": (4,), "stride": (1,), "key": "1"},
        {"size": (4,), "stride": (1,), "key": 0},
        {"size": (4,), "stride": (1,), "key": "../data.pkl"},
        {"size": (4,), "stride": (1,), "kind": "Tensor"},
        {"size": (4,), "stride": (1,), "kind": "float32"},
    ],
)
def test_tensors_that_the_storage_has_no_room_for(what):
    refused(described(**what), "")


def test_a_view_may_repeat_elements():
    t = load(io.BytesIO(hostile(described((1000, 4), (0, 1)))))
    assert t.shape == (1000, 4) and t._a.strides == (0, 4)


def test_a_directory_that_lies():
    data = saved(tensor(4))
    for size in (2**31, 2**32 - 2, len(data)):
        lying = bytearray(data)
        at = data.rindex(b"PK\x01\x02", 0, data.rindex(b"archive/data/0"))
        lying[at + 20 : at + 28] = struct.pack("<II", size, size)
        with pytest.raises(RuntimeError, match="PytorchStreamReader failed"):
            load(io.BytesIO(bytes(lying)))


def test_attributes_of_tensors_cannot_replace_the_class_s():
    for name in ("_vc", "shape", "_base", "__class__"):
        t = tensor(4)
        t.__dict__["note"] = 1
        pickled = zipfile.ZipFile(io.BytesIO(saved(t))).read("archive/data.pkl")
        was = b"X\x04\x00\x00\x00note"
        assert was in pickled
        refused(pickled.replace(was, b"X" + struct.pack("<I", len(name)) + name.encode()), "sets|Weights only")


def test_safe_globals():
    value = fractions.Fraction(1, 3)
    data = saved({"f": value})
    with serialization.safe_globals([fractions.Fraction]):
        assert load(io.BytesIO(data)) == {"f": value}
        assert serialization.get_safe_globals() == [fractions.Fraction]
    with pytest.raises(pickle.UnpicklingError, match="fractions.Fraction"):
        load(io.BytesIO(data))
    serialization.add_safe_globals([(fractions.Fraction, "elsewhere.Ratio")])
    try:
        assert load(io.BytesIO(hostile(b"\x80\x02celsewhere\nRatio\nX\x03\x00\x00\x001/3\x85R."))) == value
    finally:
        serialization.clear_safe_globals()
    assert serialization.get_safe_globals() == []
    with pytest.raises(ValueError, match="Expected tuple of length 2"):
        serialization.add_safe_globals([(1, 2, 3)])
    with pytest.raises(TypeError, match="Expected second item in tuple to be str"):
        serialization.add_safe_globals([(trap, 2)])
    serialization.add_safe_globals([os.system])
    try:  # blocked, whatever the user says
        refused(pickle.dumps(Reduces(os.system, ("true",)), 2), "blocked")
    finally:
        serialization.clear_safe_globals()


class Plain:
    def __init__(self, x):
        self.x = x


class Slotted:
    __slots__ = ("x",)


def test_classes_that_the_user_allows():
    a, b = Plain(tensor(3)), Slotted()
    b.x = 5
    data = saved([a, b])
    with pytest.raises(pickle.UnpicklingError):
        load(io.BytesIO(data))
    with serialization.safe_globals([Plain, Slotted]):
        out = load(io.BytesIO(data))
    same(out[0].x, a.x)
    assert out[1].x == 5
    same(load(io.BytesIO(data), weights_only=False)[0].x, a.x)


def test_numpy_arrays_have_to_be_allowed():
    data = saved(np.arange(3))
    with pytest.raises(pickle.UnpicklingError, match="numpy._core.multiarray"):
        load(io.BytesIO(data))
    allowed = [np._core.multiarray._reconstruct, np.ndarray, np.dtype, type(np.dtype(np.int64))]
    with serialization.safe_globals(allowed):
        assert load(io.BytesIO(data)).tolist() == [0, 1, 2]
    assert load(io.BytesIO(data), weights_only=False).tolist() == [0, 1, 2]


def test_everything_is_allowed_when_asked():
    ran.clear()
    assert load(io.BytesIO(hostile(pickle.dumps(Reduces(trap, ()), 2))), weights_only=False) == {}
    assert ran == ["trap"]


# ---- PyTorch --------------------------------------------------------------------------------------------------------
@pytest.fixture
def torch():
    return pytest.importorskip("torch")


def to_torch(torch, data: bytes, **options):
    return torch.load(io.BytesIO(data), **options)


def from_torch(torch, obj, **options) -> bytes:
    file = io.BytesIO()
    torch.save(obj, file, **options)
    return file.getvalue()


def as_bytes(torch, t) -> bytes:
    t = t.detach().contiguous()
    return bytes(t.reshape(-1).view(torch.uint8).numpy()) if t.numel() else b""


@pytest.mark.torch
@pytest.mark.parametrize("weights_only", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes_to_and_from_torch(torch, dtype, weights_only):
    for shape in [(), (0,), (3, 0), (1,), (2, 3)]:
        ours = tensor(*shape, dtype=dtype)
        theirs = to_torch(torch, saved(ours), weights_only=weights_only)
        assert theirs.dtype == getattr(torch, dtype) and tuple(theirs.shape) == shape
        assert as_bytes(torch, theirs) == ours._a.tobytes()
        same(load(io.BytesIO(from_torch(torch, theirs)), weights_only=weights_only), ours)


@pytest.mark.torch
def test_objects_to_and_from_torch(torch):
    for name, obj in PLAIN.items():
        if name not in ("ours", "only here"):
            assert to_torch(torch, saved(obj)) == obj
            same(load(io.BytesIO(from_torch(torch, obj))), obj)
    theirs = [torch.Size([2, 3]), torch.device("cpu"), torch.float32, torch.bfloat16, torch.int64, torch.strided]
    assert to_torch(torch, saved(PLAIN["ours"])) == theirs
    same(load(io.BytesIO(from_torch(torch, theirs))), PLAIN["ours"])


@pytest.mark.torch
def test_sharing_to_and_from_torch(torch, tmp_path):
    t = tensor(4, 6)
    ours = [t, wrap(t._a.T), wrap(t._a[1:, ::2]), t]
    save(ours, tmp_path / "ours.pt")
    for options in ({}, {"mmap": True}):
        theirs = torch.load(tmp_path / "ours.pt", **options)
        assert theirs[3] is theirs[0]
        assert {x.untyped_storage().data_ptr() for x in theirs} == {theirs[0].untyped_storage().data_ptr()}
        assert [x.stride() for x in theirs] == [x.stride() for x in ours]
    torch.save(theirs, tmp_path / "theirs.pt")
    for options in ({}, {"mmap": True}):
        back = load(tmp_path / "theirs.pt", **options)
        same(back, ours)
        assert all(np.shares_memory(back[0]._a, x._a) for x in back)


@pytest.mark.torch
def test_training_state_to_and_from_torch(torch):
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    adam = torch.optim.AdamW(model.parameters())
    model(torch.randn(5, 3)).sum().backward()
    adam.step()
    state = {"model": model.state_dict(), "optim": adam.state_dict(), "rng": torch.get_rng_state(), "epoch": 3}
    ours = load(io.BytesIO(from_torch(torch, state)))
    assert ours["model"]._metadata == state["model"]._metadata
    back = to_torch(torch, saved(ours))
    model.load_state_dict(back["model"])
    adam.load_state_dict(back["optim"])
    torch.set_rng_state(back["rng"])
    assert back["epoch"] == 3
    for k, v in state["model"].items():
        assert torch.equal(back["model"][k], v)


@pytest.mark.torch
def test_parameters_to_and_from_torch(torch):
    Parameter = flambeau.nn.Parameter
    p = Parameter(tensor(2, 3))
    p.note = "x"
    t = tensor(2).requires_grad_()
    t.note = "y"
    theirs = to_torch(torch, saved([p, Parameter(tensor(2), requires_grad=False), t]))
    assert [type(x) for x in theirs] == [torch.nn.Parameter, torch.nn.Parameter, torch.Tensor]
    assert [x.requires_grad for x in theirs] == [True, False, True]
    assert theirs[0].note == "x" and theirs[2].note == "y"
    ours = load(io.BytesIO(from_torch(torch, theirs)))
    assert [type(x) for x in ours] == [Parameter, Parameter, Tensor] and ours[0].note == "x" and ours[2].note == "y"
    assert [x.requires_grad for x in ours] == [True, False, True]
    same(ours[0].detach(), p.detach())


@pytest.mark.torch
def test_channels_last_from_torch(torch):
    t = torch.arange(120.0).reshape(2, 3, 4, 5).to(memory_format=torch.channels_last)
    ours = load(io.BytesIO(from_torch(torch, t)))
    assert ours.stride() == t.stride()
    np.testing.assert_array_equal(ours._a, t.numpy())
    assert to_torch(torch, saved(ours)).stride() == t.stride()


@pytest.mark.torch
def test_dtypes_that_flambeau_has_not(torch):
    with pytest.raises(NotImplementedError, match="torch.uint16"):
        load(io.BytesIO(from_torch(torch, torch.ones(2, dtype=torch.uint16))))


@pytest.mark.torch
@pytest.mark.parametrize("weights_only", [True, False])
def test_legacy_files_from_torch(torch, weights_only):
    t = torch.arange(6.0).reshape(2, 3)
    data = from_torch(
        torch, {"a": [t, t.t()], "b": torch.ones(2, dtype=torch.bfloat16), "n": 1}, _use_new_zipfile_serialization=False
    )
    out = load(io.BytesIO(data), weights_only=weights_only)
    assert (
        out["a"][1]._a.tolist() == t.t().tolist() and np.shares_memory(out["a"][0]._a, out["a"][1]._a) and out["n"] == 1
    )
    for n in range(0, len(data), 11):
        with pytest.raises(DAMAGE):
            load(io.BytesIO(data[:n]))


@pytest.mark.torch
def test_the_same_files_are_refused(torch):
    for pickled in (pickle.dumps(Reduces(trap, ()), 2), pickle.dumps(Reduces(os.system, ("true",)), 2)):
        with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
            to_torch(torch, hostile(pickled))
