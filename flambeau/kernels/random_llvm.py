"""Generated code for what the samplers do most: Mersenne Twister draws, Box and Muller in float32, random orders.

The same bits as the NumPy code in ``mt19937``, ``boxmuller`` and ``random``, at several times PyTorch's speed: the
twister's recurrence reaches back 227 places, so that 16 words are made at a time.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from . import backend, libm

VERSION = 1
W = 16  # 32-bit words in a vector
N, M = 624, 397
UPPER, LOWER, MATRIX = 0x80000000, 0x7FFFFFFF, 0x9908B0DF
# Tempering: y ^= (y shifted) & mask; positive shifts are to the right.
TEMPERING = ((11, 0xFFFFFFFF), (-7, 0x9D2C5680), (-15, 0xEFC60000), (18, 0xFFFFFFFF))


class Text:
    """Lines of LLVM with numbered values."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.allocas: list[str] = []
        self.count = 0

    def __call__(self, line: str) -> str:
        self.count += 1
        name = f"%v{self.count}"
        self.lines.append(f"  {name} = {line}")
        return name

    def do(self, line: str) -> None:
        self.lines.append(line if line.endswith(":") else "  " + line)

    def loop(self, label: str, start: Any, stop: Any, step: int, body: Callable[[str], None]) -> None:
        """``for i in range(start, stop, step)`` while a whole step fits."""
        cell = self.cell(start)
        self.do(f"br label %{label}.test")
        self.do(f"{label}.test:")
        i = self(f"load i64, ptr {cell}")
        end = self(f"add i64 {i}, {step}")
        more = self(f"icmp sle i64 {end}, {stop}")
        self.do(f"br i1 {more}, label %{label}.body, label %{label}.done")
        self.do(f"{label}.body:")
        body(i)
        self.do(f"store i64 {end}, ptr {cell}")
        self.do(f"br label %{label}.test")
        self.do(f"{label}.done:")
        self.last = cell

    def reached(self) -> str:
        """Where the last loop stopped."""
        return self(f"load i64, ptr {self.last}")

    def cell(self, value: Any) -> str:
        self.count += 1
        name = f"%cell{self.count}"
        self.allocas.append(f"  {name} = alloca i64")
        self.do(f"store i64 {value}, ptr {name}")
        return name


def splat(width: int, kind: str, value: Any) -> str:
    if width == 1:
        return str(value)
    return "<" + ", ".join([f"{kind} {value}"] * width) + ">"


def vec(width: int, kind: str) -> str:
    return kind if width == 1 else f"<{width} x {kind}>"


def _twist(t: Text, i: str, width: int, other: int) -> None:
    """key[i] = key[i + other] ^ mix(key[i], key[i + 1]) for ``width`` places."""
    kind = vec(width, "i32")

    def c(value: int) -> str:
        return splat(width, "i32", value)

    def load(offset: int) -> tuple[str, str]:
        at = t(f"add i64 {i}, {offset}")
        place = t(f"getelementptr i32, ptr %key, i64 {at}")
        return t(f"load {kind}, ptr {place}, align 4"), place

    (u, place), (v, _), (m, _) = load(0), load(1), load(other)
    upper, lower = t(f"and {kind} {u}, {c(UPPER)}"), t(f"and {kind} {v}, {c(LOWER)}")
    y = t(f"or {kind} {upper}, {lower}")
    half = t(f"lshr {kind} {y}, {c(1)}")
    odd = t(f"and {kind} {v}, {c(1)}")
    every = t(f"sub {kind} {c(0)}, {odd}")
    matrix = t(f"and {kind} {every}, {c(MATRIX)}")
    mixed = t(f"xor {kind} {half}, {matrix}")
    result = t(f"xor {kind} {m}, {mixed}")
    t.do(f"store {kind} {result}, ptr {place}, align 4")


def _temper(t: Text, i: str, width: int, single: bool) -> None:
    """out[i] = the tempered key[position + i], as it is or as a uniform float."""
    kind = vec(width, "i32")

    def c(value: int) -> str:
        return splat(width, "i32", value)

    at = t(f"add i64 %position, {i}")
    source = t(f"getelementptr i32, ptr %key, i64 {at}")
    y = t(f"load {kind}, ptr {source}, align 4")
    for shift, mask in TEMPERING:
        way = "lshr" if shift > 0 else "shl"
        moved = t(f"{way} {kind} {y}, {c(abs(shift))}")
        masked = t(f"and {kind} {moved}, {c(mask)}")
        y = t(f"xor {kind} {y}, {masked}")
    if single:
        low = t(f"and {kind} {y}, {c(0xFFFFFF)}")
        number = t(f"sitofp {kind} {low} to {vec(width, 'float')}")
        y = t(f"fmul {vec(width, 'float')} {number}, {splat(width, 'float', '0x3E70000000000000')}")  # 2**-24
        kind = vec(width, "float")
    to = t(f"add i64 %written, {i}")
    target = t(f"getelementptr i32, ptr %out, i64 {to}")
    t.do(f"store {kind} {y}, ptr {target}, align 4")


def _pair(t: Text, i: str, width: int, double: bool) -> None:
    """Two words to one of 64 bits, the first one high; or to a uniform double."""
    kind = vec(width, "i64")
    place = t(f"getelementptr i64, ptr %out, i64 {i}")
    x = t(f"load {kind}, ptr {place}, align 8")
    left, right = t(f"shl {kind} {x}, {splat(width, 'i64', 32)}"), t(f"lshr {kind} {x}, {splat(width, 'i64', 32)}")
    x = t(f"or {kind} {left}, {right}")
    if double:
        x = t(f"and {kind} {x}, {splat(width, 'i64', (1 << 53) - 1)}")
        number = t(f"sitofp {kind} {x} to {vec(width, 'double')}")
        x = t(f"fmul {vec(width, 'double')} {number}, {splat(width, 'double', '0x3CA0000000000000')}")  # 2**-53
        kind = vec(width, "double")
    t.do(f"store {kind} {x}, ptr {place}, align 8")


def _draws(name: str, output: str) -> str:
    """``void (ptr key, ptr out, i64 n)``: n words; ``key`` is the 624 words of the state, then the position (i32)."""
    t = Text()
    written = t.cell(0)
    t.do(f"%position_at = getelementptr i32, ptr %key, i64 {N}")
    t.do("br label %more")
    t.do("more:")
    t.do(f"%written = load i64, ptr {written}")
    t.do("%rest = sub i64 %n, %written")
    t.do("%none = icmp sle i64 %rest, 0")
    t.do("br i1 %none, label %all, label %some")
    t.do("some:")
    t.do("%position32 = load i32, ptr %position_at")
    t.do(f"%spent = icmp sge i32 %position32, {N}")
    t.do("br i1 %spent, label %twist, label %temper")
    t.do("twist:")
    back = M - N
    t.loop("front", 0, N - M, W, lambda i: _twist(t, i, W, M))
    t.loop("front1", t.reached(), N - M, 1, lambda i: _twist(t, i, 1, M))
    t.loop("rear", N - M, N - 1, W, lambda i: _twist(t, i, W, back))
    t.loop("rear1", t.reached(), N - 1, 1, lambda i: _twist(t, i, 1, back))
    # the last one's neighbour is the first: put it where the next place would be (the position is set anew below)
    first = t("load i32, ptr %key")
    t.do(f"store i32 {first}, ptr %position_at")
    _twist(t, str(N - 1), 1, back)
    t.do("store i32 0, ptr %position_at")
    t.do("br label %temper")
    t.do("temper:")
    p = t("load i32, ptr %position_at")
    t.do(f"%position = zext i32 {p} to i64")
    left = t(f"sub i64 {N}, %position")
    fewer = t(f"icmp slt i64 %rest, {left}")
    take = t(f"select i1 {fewer}, i64 %rest, i64 {left}")
    single = output == "unit32"
    t.loop("out", 0, take, W, lambda i: _temper(t, i, W, single))
    t.loop("out1", t.reached(), take, 1, lambda i: _temper(t, i, 1, single))
    moved = t(f"add i64 %position, {take}")
    moved32 = t(f"trunc i64 {moved} to i32")
    t.do(f"store i32 {moved32}, ptr %position_at")
    total = t(f"add i64 %written, {take}")
    t.do(f"store i64 {total}, ptr {written}")
    t.do("br label %more")
    t.do("all:")
    if output in ("u64", "unit64"):
        pairs = t("lshr i64 %n, 1")
        t.loop("pair", 0, pairs, W // 2, lambda i: _pair(t, i, W // 2, output == "unit64"))
        t.loop("pair1", t.reached(), pairs, 1, lambda i: _pair(t, i, 1, output == "unit64"))
    t.do("ret void")
    return _module(name, "ptr %key, ptr %out, i64 %n", t)


def _module(name: str, arguments: str, t: Text, declarations: str = "") -> str:
    body = "\n".join(["entry:", *t.allocas, *t.lines])
    return f"{declarations}define void @{name}({arguments}) nounwind {{\n{body}\n}}\n"


def _double(value: float) -> str:
    return f"0x{np.float64(value).view(np.uint64):016X}"


def _float(value: np.float32) -> str:
    return _double(float(value))


def _normals(name: str) -> str:
    """``void (ptr data, i64 n, float mean, float std)``: boxmuller.normals32."""
    from . import boxmuller as b

    t = Text()
    F, I = "<8 x float>", "<8 x i32>"

    def c(value: Any) -> str:
        return splat(8, "float", _float(np.float32(value)))

    def ic(value: int) -> str:
        return splat(8, "i32", value)

    def fma(x: str, y: str, z: str) -> str:
        return t(f"call {F} @llvm.fma.v8f32({F} {x}, {F} {y}, {F} {z})")

    def op(what: str, x: str, y: str) -> str:
        return t(f"{what} {F} {x}, {y}")

    def iop(what: str, x: str, y: str) -> str:
        return t(f"{what} {I} {x}, {y}")

    def horner(coefficients: Any, x: str) -> str:
        y = c(coefficients[0])
        for k in coefficients[1:]:
            y = fma(y, x, c(k))
        return y

    def body(i: str) -> None:
        low = t(f"getelementptr float, ptr %data, i64 {i}")
        high = t(f"getelementptr float, ptr {low}, i64 8")
        u1, u2 = t(f"load {F}, ptr {low}, align 4"), t(f"load {F}, ptr {high}, align 4")
        # logarithm of 1 - u1, in (0, 1]
        bits = t(f"bitcast {F} {op('fsub', c(1), u1)} to {I}")
        exponent = iop("sub", iop("lshr", bits, ic(23)), ic(126))
        mantissa = t(f"bitcast {I} {iop('or', iop('and', bits, ic(0x7FFFFF)), ic(0x3F000000))} to {F}")
        small = t(f"fcmp olt {F} {mantissa}, {c(b.SQRT_HALF)}")
        less = t(f"sext <8 x i1> {small} to {I}")
        exponent = iop("add", exponent, less)
        e = t(f"sitofp {I} {exponent} to {F}")
        m1 = op("fsub", mantissa, c(1))
        m = t(f"select <8 x i1> {small}, {F} {op('fadd', m1, mantissa)}, {F} {m1}")
        z = op("fmul", m, m)
        y = op("fmul", horner(b.LOG, m), m)
        y = fma(y, z, op("fmul", e, c(b.LN2_LOW)))
        y = fma(z, c(-0.5), y)
        log = fma(e, c(b.LN2_HIGH), op("fadd", m, y))
        radius = t(f"call {F} @llvm.sqrt.v8f32({F} {op('fmul', c(-2), log)})")
        # sine and cosine of 2 pi u2
        x = op("fmul", u2, c(b.TWO_PI))
        octant = t(f"fptosi {F} {op('fmul', x, c(b.FOUR_OVER_PI))} to {I}")
        octant = iop("and", iop("add", octant, ic(1)), ic(-2))
        j = t(f"sitofp {I} {octant} to {F}")
        for part in b.PI4_PARTS:
            x = fma(j, c(part), x)
        z = op("fmul", x, x)
        cosine = op("fmul", horner(b.COS, z), z)
        cosine = op("fadd", fma(cosine, z, op("fmul", z, c(-0.5))), c(1))
        sine = fma(op("fmul", horner(b.SIN, z), z), x, x)
        straight = t(f"icmp eq {I} {iop('and', octant, ic(2))}, {ic(0)}")
        for where, first, second, shifted in (
            (low, cosine, sine, iop("add", octant, ic(2))),
            (high, sine, cosine, octant),
        ):
            value = t(f"select <8 x i1> {straight}, {F} {first}, {F} {second}")
            sign = iop("shl", iop("and", shifted, ic(4)), ic(29))
            flipped = iop("xor", t(f"bitcast {F} {value} to {I}"), sign)
            n = op("fmul", radius, t(f"bitcast {I} {flipped} to {F}"))
            result = fma(n, std, mean)
            t.do(f"store {F} {result}, ptr {where}, align 4")

    def broadcast(value: str) -> str:
        one = t(f"insertelement {F} poison, float {value}, i64 0")
        return t(f"shufflevector {F} {one}, {F} poison, <8 x i32> zeroinitializer")

    mean, std = broadcast("%mean"), broadcast("%std")
    t.loop("block", 0, "%n", 16, body)
    t.do("ret void")
    declarations = f"declare {F} @llvm.fma.v8f32({F}, {F}, {F})\ndeclare {F} @llvm.sqrt.v8f32({F})\n"
    return _module(name, "ptr %data, i64 %n, float %mean, float %std", t, declarations)


def _normals64(name: str) -> str:
    """``void (ptr data, i64 n, double mean, double std, ptr log, ptr sincos)``: boxmuller.normals64."""
    t = Text()
    t.allocas += ["  %sine = alloca double", "  %cosine = alloca double"]

    def pair(i: str) -> None:
        low = t(f"getelementptr double, ptr %block, i64 {i}")
        high = t(f"getelementptr double, ptr {low}, i64 8")
        u1, u2 = t(f"load double, ptr {low}"), t(f"load double, ptr {high}")
        rest = t(f"fsub double 1.0, {u1}")
        log = t(f"call double %log(double {rest})")
        square = t(f"fmul double -2.0, {log}")
        radius = t(f"call double @llvm.sqrt.f64(double {square})")
        theta = t(f"fmul double {u2}, {_double(2 * math.pi)}")
        t.do(f"call void %sincos(double {theta}, ptr %sine, ptr %cosine)")
        for where, part in ((low, "%cosine"), (high, "%sine")):
            value = t(f"load double, ptr {part}")
            n = t(f"fmul double {radius}, {value}")
            result = t(f"call double @llvm.fma.f64(double {n}, double %std, double %mean)")
            t.do(f"store double {result}, ptr {where}")

    def block(i: str) -> None:
        t.do(f"%block = getelementptr double, ptr %data, i64 {i}")
        t.loop("pair", 0, 8, 1, pair)

    t.loop("blocks", 0, "%n", 16, block)
    t.do("ret void")
    declarations = "declare double @llvm.fma.f64(double, double, double)\ndeclare double @llvm.sqrt.f64(double)\n"
    arguments = "ptr %data, i64 %n, double %mean, double %std, ptr %log, ptr %sincos"
    return _module(name, arguments, t, declarations)


def _swaps(name: str) -> str:
    """``void (ptr order, ptr draws, i64 n)``: for i < n - 1, swap order[i] and order[i + draws[i] % (n - i)]."""
    t = Text()

    def body(i: str) -> None:
        source = t(f"getelementptr i32, ptr %draws, i64 {i}")
        draw = t(f"load i32, ptr {source}")
        left = t(f"sub i64 %n, {i}")
        left32 = t(f"trunc i64 {left} to i32")
        z32 = t(f"urem i32 {draw}, {left32}")
        z = t(f"zext i32 {z32} to i64")
        here = t(f"getelementptr i64, ptr %order, i64 {i}")
        other = t(f"add i64 {i}, {z}")
        there = t(f"getelementptr i64, ptr %order, i64 {other}")
        a, b = t(f"load i64, ptr {here}"), t(f"load i64, ptr {there}")
        t.do(f"store i64 {a}, ptr {there}")
        t.do(f"store i64 {b}, ptr {here}")

    last = t("sub i64 %n, 1")
    t.loop("swap", 0, last, 1, body)
    t.do("ret void")
    return _module(name, "ptr %order, ptr %draws, i64 %n", t)


@cache
def _compiled(what: str, extra: str = "") -> Callable[..., None] | None:
    if not backend.jit_available():
        return None
    from . import jit

    p, i64, f = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float
    if what == "draws":
        return jit.call(
            jit.function(f"mt19937 {extra} {VERSION}", lambda name, _: _draws(name, extra)), None, p, p, i64
        )
    if what == "normals32":
        return jit.call(jit.function(f"box-muller {VERSION}", lambda name, _: _normals(name)), None, p, i64, f, f)
    if what == "normals64":
        log, sincos = libm.address("log"), libm.address("sincos")
        if not log or not sincos:
            return None
        d = ctypes.c_double
        address = jit.function(f"box-muller64 {VERSION}", lambda name, _: _normals64(name))
        code = jit.call(address, None, p, i64, d, d, p, p)
        return lambda data, n, mean, std: code(data, n, mean, std, log, sincos)
    return jit.call(jit.function(f"swaps {VERSION}", lambda name, _: _swaps(name)), None, p, p, i64)


def draws(output: str) -> Callable[[int, int, int], None] | None:
    """f(state address, out address, number of words) for one of u32, unit32, u64, unit64; None without a compiler."""
    return _compiled("draws", output)


def normals32() -> Callable[[int, int, float, float], None] | None:
    """f(data address, n, mean, std); None without a compiler."""
    return _compiled("normals32")


def normals64() -> Callable[[int, int, float, float], None] | None:
    """The same in float64; needs the C library's log and sincos too."""
    return _compiled("normals64")


def swaps() -> Callable[[int, int, int], None] | None:
    """f(order address, draws address, n); None without a compiler."""
    return _compiled("swaps")
