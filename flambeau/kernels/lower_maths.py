"""Exponential and error function of float32 vectors, written out: no call, and so no register to be put by for one.

Within 1 and 6 units in the last place of the exact value; infinities, NaN and results too small
for normal numbers are exact.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flambeau.kernels.lower_llvm import Emitter

#: (exp(r) - 1 - r) / r² for |r| <= log(2) / 2, within 6e-11 of exp(r): lowest power first.
EXP = (0.5000000071675476, 0.1666666582009058, 0.04166628031554306, 0.008333503750675911, 0.0013945752870959938,
       0.00019789266056798228)  # fmt: skip
#: erf(x) / x as P(x²) / Q(x²) for |x| < 3.92, within 2e-8; beyond it is 1 in float32.
ERF_P = (1.1283791458240553, 0.19059270758500627, 0.05276905749708907, 0.003772472276870328, 0.00028483617661118494,
         2.0459648458507796e-06)  # fmt: skip
ERF_Q = (1.0, 0.5022411211873158, 0.11418219375023933, 0.01498305327212425, 0.0011638280479279034,
         3.804673601401427e-05)  # fmt: skip
ERF_END = 3.925

#: Added to a number under 2^22, leaves it rounded to a whole number, in the low bits.
MAGIC = 1.5 * 2**23
#: log(2) in two parts, the first with so few digits that its multiples are exact.
LOG2_HIGH = 0.693359375
LOG2_LOW = math.log(2) - LOG2_HIGH


def _fma(e: Emitter, a: str, b: str, c: str) -> str:
    return e.call(f"llvm.fma.v{e.lanes}f32", [a, b, c])


def _polynomial(e: Emitter, coefficients: tuple[float, ...], x: str) -> str:
    result = e.constant(coefficients[-1])
    for c in coefficients[-2::-1]:
        result = _fma(e, result, x, e.constant(c))
    return result


def _between(e: Emitter, low: float, x: str, high: float) -> str:
    """x, no lower and no higher than that; NaN stays NaN."""
    for op, bound in (("olt", high), ("ogt", low)):
        limit = e.constant(bound)
        inside = e.emit(f"fcmp {op} {e.vec} {limit}, {x}")
        x = e.emit(f"select {e.mask} {inside}, {e.vec} {limit}, {e.vec} {x}")
    return x


def exp(e: Emitter, x: str) -> str:
    """2^n exp(r), where x = n log(2) + r."""
    x = _between(e, -104.0, x, 89.0)
    shifted = _fma(e, x, e.constant(1 / math.log(2)), e.constant(MAGIC))
    n = e.emit(f"fsub {e.vec} {shifted}, {e.constant(MAGIC)}")
    r = _fma(e, n, e.constant(-LOG2_HIGH), x)
    r = _fma(e, n, e.constant(-LOG2_LOW), r)
    square = e.emit(f"fmul {e.vec} {r}, {r}")
    value = _fma(e, _polynomial(e, EXP, r), square, r)
    value = e.emit(f"fadd {e.vec} {value}, {e.constant(1.0)}")
    if e.machine.vector_bytes == 64:
        name = "llvm.x86.avx512.mask.scalef.ps.512"
        e.declarations[name] = f"declare {e.vec} @{name}({e.vec}, {e.vec}, {e.vec}, i16, i32)"
        return e.emit(f"call {e.vec} @{name}({e.vec} {value}, {e.vec} {n}, {e.vec} zeroinitializer, i16 -1, i32 4)")
    # by two powers of two, since one alone may be too large or too small for a number
    ints = f"<{e.lanes} x i32>"
    whole = e.emit(f"sub {ints} {e.emit(f'bitcast {e.vec} {shifted} to {ints}')}, splat (i32 {_bits(MAGIC)})")
    half = e.emit(f"ashr {ints} {whole}, splat (i32 1)")
    for part in (half, e.emit(f"sub {ints} {whole}, {half}")):
        power = e.emit(f"shl {ints} {e.emit(f'add {ints} {part}, splat (i32 127)')}, splat (i32 23)")
        value = e.emit(f"fmul {e.vec} {value}, {e.emit(f'bitcast {ints} {power} to {e.vec}')}")
    return value


def _bits(value: float) -> int:
    return int(struct.unpack("<i", struct.pack("<f", value))[0])


def erf(e: Emitter, x: str) -> str:
    x = _between(e, -ERF_END, x, ERF_END)
    square = e.emit(f"fmul {e.vec} {x}, {x}")
    above = e.emit(f"fmul {e.vec} {x}, {_polynomial(e, ERF_P, square)}")
    return _between(e, -1.0, e.emit(f"fdiv {e.vec} {above}, {_polynomial(e, ERF_Q, square)}"), 1.0)


#: What is written out, on machines that multiply and add in one step.
INLINE: dict[str, Callable[[Emitter, str], str]] = {"exp": exp, "erf": erf}
