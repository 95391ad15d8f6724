"""Expressions to LLVM: the text of one NumPy inner loop, made for one dtype and this machine's vectors.

A kernel is four functions. `core` computes whole vectors from contiguous memory. `run` feeds it a range of
elements: operands that are contiguous or constant directly, anything else, and the last few elements, through
small buffers, so that a value never depends on its place. `part` runs one thread's share, past the caches if the
result is larger than they are, and the entry point, which has the signature of a NumPy inner loop, decides whether
to share.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from typing import NamedTuple

from flambeau.kernels import expr as E
from flambeau.kernels.expr import Expr
from flambeau.kernels.lower_maths import INLINE

#: Part of every cache key: raise it when the code generated here changes.
VERSION = 8


class Machine(NamedTuple):
    """What of the machine the code depends on."""

    vector_bytes: int  # 64, 32 or 16
    mvec_letter: str  # of libmvec's names for these vectors, "" if there is no libmvec
    mvec: Callable[[str], bool]  # whether libmvec has this function
    openmp: bool
    x86: bool


class Storage(NamedTuple):
    """How a dtype lies in memory."""

    llvm: str
    size: int


STORAGE = {
    "float32": Storage("float", 4),
    "float64": Storage("double", 8),
    "float16": Storage("half", 2),
    "bfloat16": Storage("i16", 2),
    "bool": Storage("i8", 1),
    "uint8": Storage("i8", 1),
    "int8": Storage("i8", 1),
    "int16": Storage("i16", 2),
    "int32": Storage("i32", 4),
    "int64": Storage("i64", 8),
}

#: What a kernel of this dtype computes in.
COMPUTE = {"float32": "float", "float16": "float", "bfloat16": "float", "float64": "double"}

# --- operations ---------------------------------------------------------------------------------------------

ARITHMETIC = {"add": "fadd", "sub": "fsub", "mul": "fmul", "div": "fdiv", "fmod": "frem"}
COMPARISONS = {"lt": "olt", "le": "ole", "gt": "ogt", "ge": "oge", "eq": "oeq", "ne": "une"}
LOGIC = {
    "logical_and": "and",
    "logical_or": "or",
    "logical_xor": "xor",
    "bitand": "and",
    "bitor": "or",
    "bitxor": "xor",
}
INTRINSICS = {
    "abs": "fabs",
    "sqrt": "sqrt",
    "floor": "floor",
    "ceil": "ceil",
    "trunc": "trunc",
    "round": "roundeven",
    "copysign": "copysign",
}
LIBM = frozenset(
    "exp exp2 expm1 log log2 log10 log1p sin cos tan asin acos atan atan2 sinh cosh tanh asinh acosh atanh "
    "erf erfc pow hypot".split()
)


def _remainder(a: Expr, b: Expr) -> Expr:
    r = E.fmod(a, b)
    return E.where(E.logical_and(E.ne(r, 0), E.logical_xor(r < 0, b < 0)), r + b, r)


def _floordiv(a: Expr, b: Expr) -> Expr:
    """The floor of the exact quotient, by way of the exact remainder; a / b where b is 0."""
    r = E.fmod(a, b)
    q = (a - r) / b
    q = E.where(E.logical_and(E.ne(r, 0), E.ne(b < 0, r < 0)), q - 1, q)
    nearest = E.floor(q)
    nearest = E.where(q - nearest > 0.5, nearest + 1, nearest)
    return E.where(E.eq(b, 0), a / b, E.where(E.eq(q, 0), E.copysign(0.0, a / b), nearest))


#: Operations that are written in others before lowering.
EXPANSIONS: dict[str, Callable[..., Expr]] = {
    "rsqrt": lambda x: 1 / E.sqrt(x),
    "sigmoid": lambda x: 1 / (1 + E.exp(-x)),
    "sign": lambda x: E.where(x > 0, 1, E.where(x < 0, -1, 0)),
    "maximum": lambda a, b: E.where(E.logical_or(a > b, E.isnan(a)), a, b),
    "minimum": lambda a, b: E.where(E.logical_or(a < b, E.isnan(a)), a, b),
    "remainder": _remainder,
    "floordiv": _floordiv,
    "isnan": lambda x: E.ne(x, x),
    "isinf": lambda x: E.eq(E.abs(x), math.inf),
    "isfinite": lambda x: E.abs(x) < math.inf,
    "signbit": lambda x: E.copysign(1.0, x) < 0,
    "conj": lambda x: x,
    "real": lambda x: x,
    "imag": lambda x: x * 0.0,
}


def expand(roots: Sequence[Expr]) -> list[Expr]:
    """The expressions in operations that `Emitter` knows."""
    new: dict[Expr, Expr] = {}
    for node in E.walk(roots):
        args = tuple(new[arg] for arg in node.args)
        if node.op in EXPANSIONS:
            expanded = EXPANSIONS[node.op](*args)
            new[node] = expand([expanded])[0]
        else:
            new[node] = E.apply(node.op, *args) if args else node
    return [new[root] for root in roots]


class Unsupported(Exception):
    """The expression, or the dtype, is one for NumPy."""


def supported(roots: Sequence[Expr], dtype: str) -> bool:
    """Whether a kernel can be generated."""
    if dtype not in COMPUTE:
        return False
    for node in E.walk(roots):
        if node.op in E.NUMPY_ONLY or node.op in ("lshift", "rshift"):
            return False
        if node.op in E.BITWISE and not E.is_bool(node):
            return False
        if node.op == "var" and node.dtype not in (None, "scalar", *STORAGE):
            return False
    return True


COSTS = {"div": 4, "sqrt": 5, "rsqrt": 8, "sigmoid": 18, "fmod": 200, "remainder": 200, "floordiv": 200}


def cost(roots: Sequence[Expr]) -> int:
    """About how many cycles a vector takes."""
    return sum(COSTS.get(n.op, 14 if n.op in LIBM else 1) for n in E.walk(roots) if n.args)


# --- text ---------------------------------------------------------------------------------------------------


class Emitter:
    """Writes the straight-line vector code of expressions whose operations are all primitive."""

    def __init__(self, compute: str, lanes: int, machine: Machine) -> None:
        self.t, self.lanes, self.machine = compute, lanes, machine
        self.vec, self.mask = f"<{lanes} x {compute}>", f"<{lanes} x i1>"
        self.lines: list[str] = []
        self.declarations: dict[str, str] = {}
        self.count = 0

    def emit(self, code: str) -> str:
        self.count += 1
        self.lines.append(f"  %v{self.count} = {code}")
        return f"%v{self.count}"

    def constant(self, value: float) -> str:
        if self.t == "float":
            try:
                (value,) = struct.unpack("f", struct.pack("f", value))
            except OverflowError:
                value = math.copysign(math.inf, value)
        bits = struct.unpack("<Q", struct.pack("<d", value))[0]
        return f"splat ({self.t} 0x{bits:016X})"

    # values are (text, is_mask)
    def number(self, value: tuple[str, bool]) -> str:
        text, is_mask = value
        return self.emit(f"uitofp {self.mask} {text} to {self.vec}") if is_mask else text

    def truth(self, value: tuple[str, bool]) -> str:
        text, is_mask = value
        return text if is_mask else self.emit(f"fcmp une {self.vec} {text}, zeroinitializer")

    def lower(self, roots: Sequence[Expr], inputs: dict[str, tuple[str, bool]]) -> list[tuple[str, bool]]:
        done: dict[Expr, tuple[str, bool]] = {}
        for node in E.walk(roots):
            done[node] = self.node(node, [done[arg] for arg in node.args], inputs)
        return [done[root] for root in roots]

    def node(self, node: Expr, args: list[tuple[str, bool]], inputs: dict) -> tuple[str, bool]:
        op, vec = node.op, self.vec
        if op == "var":
            return inputs[node.value]
        if op == "zero":
            return self.constant(0.0), False
        if op == "const":
            if E.is_bool(node):
                return f"splat (i1 {'true' if node.value else 'false'})", True
            return self.constant(float(node.value)), False
        if op in LOGIC:
            return self.emit(f"{LOGIC[op]} {self.mask} {self.truth(args[0])}, {self.truth(args[1])}"), True
        if op in ("logical_not", "bitnot"):
            return self.emit(f"xor {self.mask} {self.truth(args[0])}, splat (i1 true)"), True
        if op == "where":
            condition = self.truth(args[0])
            if E.is_bool(node):
                return self.emit(
                    f"select {self.mask} {condition}, {self.mask} {args[1][0]}, {self.mask} {args[2][0]}"
                ), True
            a, b = map(self.number, args[1:])
            return self.emit(f"select {self.mask} {condition}, {vec} {a}, {vec} {b}"), False
        numbers = [self.number(arg) for arg in args]
        if op in ARITHMETIC:
            return self.emit(f"{ARITHMETIC[op]} contract {vec} {numbers[0]}, {numbers[1]}"), False
        if op in COMPARISONS:
            return self.emit(f"fcmp {COMPARISONS[op]} {vec} {numbers[0]}, {numbers[1]}"), True
        if op == "neg":
            return self.emit(f"fneg {vec} {numbers[0]}"), False
        if op in INTRINSICS:
            suffix = f"v{self.lanes}f{32 if self.t == 'float' else 64}"
            return self.call(f"llvm.{INTRINSICS[op]}.{suffix}", numbers), False
        if op in LIBM:
            return self.libm(op, numbers), False
        raise Unsupported(op)

    def call(self, name: str, args: list[str]) -> str:
        self.declarations[name] = f"declare {self.vec} @{name}({', '.join([self.vec] * len(args))})"
        return self.emit(f"call {self.vec} @{name}({', '.join(f'{self.vec} {a}' for a in args)})")

    def libm(self, op: str, args: list[str]) -> str:
        if op in INLINE and self.t == "float" and self.machine.x86 and self.machine.vector_bytes > 16 and self.lanes > 1:
            return INLINE[op](self, args[0])
        scalar = op + ("f" if self.t == "float" else "")
        vector = f"_ZGV{self.machine.mvec_letter}N{self.lanes}{'v' * len(args)}_{scalar}"
        if self.machine.mvec(vector):
            return self.call(vector, args)
        # no vector function here: one call a lane
        self.declarations[scalar] = f"declare {self.t} @{scalar}({', '.join([self.t] * len(args))})"
        result = "poison"
        for lane in range(self.lanes):
            scalars = [self.emit(f"extractelement {self.vec} {a}, i64 {lane}") for a in args]
            value = self.emit(f"call {self.t} @{scalar}({', '.join(f'{self.t} {s}' for s in scalars)})")
            result = self.emit(f"insertelement {self.vec} {result}, {self.t} {value}, i64 {lane}")
        return result

    # --- memory

    def load(self, pointer: str, dtype: str) -> tuple[str, bool]:
        storage, lanes = STORAGE[dtype], self.lanes
        text = self.emit(f"load <{lanes} x {storage.llvm}>, ptr {pointer}, align 1")
        raw = f"<{lanes} x {storage.llvm}> {text}"
        if dtype == "bool":
            return self.emit(f"icmp ne {raw}, zeroinitializer"), True
        if dtype == "bfloat16":
            wide = self.emit(f"zext {raw} to <{lanes} x i32>")
            bits = self.emit(f"shl <{lanes} x i32> {wide}, splat (i32 16)")
            raw, storage = (
                f"<{lanes} x float> " + self.emit(f"bitcast <{lanes} x i32> {bits} to <{lanes} x float>"),
                STORAGE["float32"],
            )
        if storage.llvm == self.t:
            return raw.rsplit(" ", 1)[1], False
        if storage.llvm.startswith("i"):
            return self.emit(f"{'uitofp' if dtype == 'uint8' else 'sitofp'} {raw} to {self.vec}"), False
        return self.convert(raw.rsplit(" ", 1)[1], storage.llvm, self.t), False

    def store(self, value: tuple[str, bool], pointer: str, dtype: str) -> None:
        lanes, storage = self.lanes, STORAGE[dtype]
        if dtype == "bool":
            text = self.emit(f"zext {self.mask} {self.truth(value)} to <{lanes} x i8>")
        else:
            text = self.number(value)
            if dtype == "bfloat16":
                text = self._to_bfloat16(text)
            elif storage.llvm != self.t:
                text = self.convert(text, self.t, storage.llvm)
        self.lines.append(f"  store <{lanes} x {storage.llvm}> {text}, ptr {pointer}, align 1")

    def convert(self, text: str, source: str, target: str) -> str:
        """From one floating type to another, by way of float: nothing leads from half to double."""
        types = ["half", "float", "double"]
        at, to = types.index(source), types.index(target)
        while at != to:
            after = at + 1 if to > at else at - 1
            cast = "fpext" if after > at else "fptrunc"
            text = self.emit(f"{cast} <{self.lanes} x {types[at]}> {text} to <{self.lanes} x {types[after]}>")
            at = after
        return text

    def _to_bfloat16(self, x: str) -> str:
        """Round to nearest, ties to even; nan stays nan."""
        ints = f"<{self.lanes} x i32>"
        if self.t == "double":
            x = self.emit(f"fptrunc {self.vec} {x} to <{self.lanes} x float>")
        floats = f"<{self.lanes} x float>"
        bits = self.emit(f"bitcast {floats} {x} to {ints}")
        high = self.emit(f"lshr {ints} {bits}, splat (i32 16)")
        odd = self.emit(f"and {ints} {high}, splat (i32 1)")
        bias = self.emit(f"add {ints} {odd}, splat (i32 32767)")
        rounded = self.emit(f"lshr {ints} {self.emit(f'add {ints} {bits}, {bias}')}, splat (i32 16)")
        nan = self.emit(f"fcmp uno {floats} {x}, {x}")
        quiet = self.emit(f"or {ints} {high}, splat (i32 64)")
        chosen = self.emit(f"select {self.mask} {nan}, {ints} {quiet}, {ints} {rounded}")
        return self.emit(f"trunc {ints} {chosen} to <{self.lanes} x i16>")


def lanes_for(compute: str, machine: Machine) -> int:
    return machine.vector_bytes // (4 if compute == "float" else 8)


def copier(size: int) -> str:
    """gather: `n` elements with a step, then the last one again up to `total`. scatter: the way back."""
    t = f"i{8 * size}"
    return f"""
define internal void @gather{size}(ptr %to, ptr %from, i64 %step, i64 %n, i64 %total) {{
entry:
  %none = icmp eq i64 %total, 0
  br i1 %none, label %end, label %loop
loop:
  %i = phi i64 [0, %entry], [%i.next, %loop]
  %p = phi ptr [%from, %entry], [%p.next, %loop]
  %v = load {t}, ptr %p, align 1
  %q = getelementptr {t}, ptr %to, i64 %i
  store {t} %v, ptr %q, align 1
  %i.next = add i64 %i, 1
  %inside = icmp slt i64 %i.next, %n
  %by = select i1 %inside, i64 %step, i64 0
  %p.next = getelementptr i8, ptr %p, i64 %by
  %more = icmp slt i64 %i.next, %total
  br i1 %more, label %loop, label %end
end:
  ret void
}}
define internal void @scatter{size}(ptr %to, ptr %from, i64 %step, i64 %n) {{
entry:
  br label %loop
loop:
  %i = phi i64 [0, %entry], [%i.next, %loop]
  %p = phi ptr [%to, %entry], [%p.next, %loop]
  %q = getelementptr {t}, ptr %from, i64 %i
  %v = load {t}, ptr %q, align 1
  store {t} %v, ptr %p, align 1
  %i.next = add i64 %i, 1
  %p.next = getelementptr i8, ptr %p, i64 %step
  %more = icmp slt i64 %i.next, %n
  br i1 %more, label %loop, label %end
end:
  ret void
}}"""


#: Bytes of a result from which it is stored past the caches, which would read each line before it is written.
STREAM = 8 << 20


def streams(roots: Sequence[Expr], dtypes: Sequence[str], dtype: str, machine: Machine) -> bool:
    """Whether the kernel has a form that stores past the caches: where memory, not arithmetic, takes the time."""
    return machine.x86 and len(roots) == 1 and dtypes[-1] == dtype in ("float32", "float64") and cost(roots) <= 24


def core_lines(
    emitter: Emitter, roots: Sequence[Expr], args: Sequence[str], dtypes: Sequence[str], dense: bool = False
) -> list[str]:
    """The function `core`: `count` vectors, each operand a pointer to its first and the bytes from one to the next.

    With `dense` the vectors of all operands follow one another, and only the pointers are passed.
    """
    n_in, operands = len(args), range(len(dtypes))
    values = {a: emitter.load(f"%p{k}", dtypes[k]) for k, a in enumerate(args)}
    for k, value in enumerate(emitter.lower(expand(roots), values)):
        emitter.store(value, f"%p{n_in + k}", dtypes[n_in + k])
    sizes = [emitter.lanes * STORAGE[d].size for d in dtypes]
    head = [f"  %p{k} = phi ptr [%a{k}, %entry], [%n{k}, %loop]" for k in operands]
    tail = [f"  %n{k} = getelementptr i8, ptr %p{k}, i64 %s{k}" for k in operands]
    pointers = ", ".join(f"ptr %a{k}" if dense else f"ptr %a{k}, i64 %s{k}" for k in operands)
    if dense:
        head = ["  %at = sub i64 %count, %i"]
        for k in operands:
            head.append(f"  %p{k} = getelementptr [{sizes[k]} x i8], ptr %a{k}, i64 %at")
        tail = []
    return [
        f"define internal void @core({pointers}, i64 %count) #1 {{",
        "entry:",
        "  br label %loop",
        "loop:",
        "  %i = phi i64 [%count, %entry], [%i.next, %loop]",
        *head,
        *emitter.lines,
        *tail,
        "  %i.next = sub i64 %i, 1",
        "  %done = icmp eq i64 %i.next, 0",
        "  br i1 %done, label %end, label %loop",
        "end:",
        "  ret void",
        "}",
    ]


def attributes(machine: Machine) -> str:
    """The attributes of functions: #0 of all, #1 of those that hold vectors across calls."""
    width = f'"prefer-vector-width"="{8 * machine.vector_bytes}" "min-legal-vector-width"="512"'
    # vectors that are kept across a call are stored on the stack: quickly only if it is aligned
    return (f"attributes #0 = {{ nounwind {width} }}\n"
            f"attributes #1 = {{ nounwind noinline alignstack={machine.vector_bytes} {width} }}")


def module(
    name: str, roots: Sequence[Expr], args: Sequence[str], dtypes: Sequence[str], dtype: str, machine: Machine
) -> str:
    """The text of the module: inner loop `name` of `roots`; `dtypes` are those of inputs, then outputs."""
    compute = COMPUTE[dtype]
    lanes = lanes_for(compute, machine)
    emitter = Emitter(compute, lanes, machine)
    sizes = [STORAGE[d].size for d in dtypes]
    n_in, n_all = len(args), len(dtypes)
    operands = range(n_all)

    core = core_lines(emitter, roots, args, dtypes)
    stream = streams(roots, dtypes, dtype, machine)
    if stream:
        store = f"  store {emitter.vec} "
        core += [
            line.replace("@core(", "@core.stream(", 1)
            if line.startswith("define")
            else line.replace("align 1", f"align {machine.vector_bytes}, !nontemporal !0")
            if line.startswith(store)
            else line
            for line in core
        ]

    # run: elements low to high
    block = 8 * lanes
    whole = [lanes * s for s in sizes]
    run = [
        "define internal void @run(ptr %args, ptr %steps, i64 %low, i64 %high, i1 %stream) #0 {",
        "entry:",
        *(f"  %buffer{k} = alloca [{block * sizes[k]} x i8], align 64" for k in operands),
        "  %n = sub i64 %high, %low",
    ]
    fits = "%enough"
    run.append(f"  %enough = icmp sge i64 %n, {lanes}")
    for k in operands:
        run += [
            f"  %args{k} = getelementptr ptr, ptr %args, i64 {k}",
            f"  %base{k} = load ptr, ptr %args{k}",
            f"  %steps{k} = getelementptr i64, ptr %steps, i64 {k}",
            f"  %step{k} = load i64, ptr %steps{k}",
            f"  %offset{k} = mul i64 %step{k}, %low",
            f"  %p{k} = getelementptr i8, ptr %base{k}, i64 %offset{k}",
            f"  %unit{k} = icmp eq i64 %step{k}, {sizes[k]}",
        ]
        ok = f"%unit{k}"
        if k < n_in:
            run += [f"  %same{k} = icmp eq i64 %step{k}, 0", f"  %ok{k} = or i1 %unit{k}, %same{k}"]
            ok = f"%ok{k}"
        run.append(f"  %fits{k} = and i1 {fits}, {ok}")
        fits = f"%fits{k}"
    run += [f"  br i1 {fits}, label %fast, label %slow", "fast:"]
    for k in range(n_in):
        run += [
            f"  %splat{k} = select i1 %same{k}, i64 {lanes}, i64 0",
            f"  call void @gather{sizes[k]}(ptr %buffer{k}, ptr %p{k}, i64 0, i64 0, i64 %splat{k})",
            f"  %c{k} = select i1 %same{k}, ptr %buffer{k}, ptr %p{k}",
            f"  %by{k} = select i1 %same{k}, i64 0, i64 {whole[k]}",
        ]
    passed = ", ".join(f"ptr %c{k}, i64 %by{k}" if k < n_in else f"ptr %p{k}, i64 {whole[k]}" for k in operands)
    run.append(f"  %count = sdiv i64 %n, {lanes}")
    if stream:
        run += [
            "  br i1 %stream, label %past, label %through",
            "past:",
            f"  call void @core.stream({passed}, i64 %count)",
            "  call void @llvm.x86.sse.sfence()",
            "  br label %vectors.done",
            "through:",
        ]
    run += [
        f"  call void @core({passed}, i64 %count)",
        "  br label %vectors.done",
        "vectors.done:",
        f"  %done = mul i64 %count, {lanes}",
        "  br label %slow",
        "slow:",
        "  %start = phi i64 [0, %entry], [%done, %vectors.done]",
        "  %any = icmp slt i64 %start, %n",
        "  br i1 %any, label %part, label %end",
        "part:",
        "  %at = phi i64 [%start, %slow], [%next, %part]",
        "  %left = sub i64 %n, %at",
        f"  %m = call i64 @llvm.smin.i64(i64 %left, i64 {block})",
        f"  %up = add i64 %m, {lanes - 1}",
        f"  %padded = and i64 %up, {-lanes}",
        f"  %vectors = sdiv i64 %padded, {lanes}",
    ]
    for k in operands:
        run += [f"  %o{k} = mul i64 %step{k}, %at", f"  %q{k} = getelementptr i8, ptr %p{k}, i64 %o{k}"]
        if k < n_in:
            run.append(f"  call void @gather{sizes[k]}(ptr %buffer{k}, ptr %q{k}, i64 %step{k}, i64 %m, i64 %padded)")
    run.append(
        "  call void @core(" + ", ".join(f"ptr %buffer{k}, i64 {whole[k]}" for k in operands) + ", i64 %vectors)"
    )
    for k in range(n_in, n_all):
        run.append(f"  call void @scatter{sizes[k]}(ptr %q{k}, ptr %buffer{k}, i64 %step{k}, i64 %m)")
    run += [
        "  %next = add i64 %at, %m",
        "  %more = icmp slt i64 %next, %n",
        "  br i1 %more, label %part, label %end",
        "end:",
        "  ret void",
        "}",
    ]

    parallel_from = 30_000 * lanes // (cost(roots) + 2 * n_all)
    return "\n".join(
        [
            *core,
            *run,
            part(sizes, n_in, machine) if stream else PART,
            *(copier(s) for s in sorted(set(sizes))),
            entry(name, parallel_from, machine),
            "declare i64 @llvm.smin.i64(i64, i64)",
            *emitter.declarations.values(),
            attributes(machine),
        ]
    )


#: A share of the work, of a kernel that stores nothing past the caches.
PART = """
define internal void @part(ptr %args, ptr %steps, i64 %low, i64 %high, i64 %n) #0 {
  call void @run(ptr %args, ptr %steps, i64 %low, i64 %high, i1 false)
  ret void
}"""


def part(sizes: Sequence[int], n_in: int, machine: Machine) -> str:
    """A share of the work: past the caches, from the first whole vector of the result on, if that is large."""
    size, width = sizes[n_in], machine.vector_bytes
    apart = []  # a result that is written where an operand is read is in the caches already
    for k in range(n_in):
        apart.append(f"""
  %arg{k}.at = getelementptr ptr, ptr %args, i64 {k}
  %arg{k} = load i64, ptr %arg{k}.at
  %other{k} = icmp ne i64 %arg{k}, %out
  %good{k + 1} = and i1 %good{k}, %other{k}""")
    return f"""
define internal void @part(ptr %args, ptr %steps, i64 %low, i64 %high, i64 %n) #0 {{
  %step.at = getelementptr i64, ptr %steps, i64 {n_in}
  %step = load i64, ptr %step.at
  %out.at = getelementptr ptr, ptr %args, i64 {n_in}
  %out = load i64, ptr %out.at
  %large = icmp sge i64 %n, {STREAM // size}
  %dense = icmp eq i64 %step, {size}
  %odd = and i64 %out, {size - 1}
  %even = icmp eq i64 %odd, 0
  %large.dense = and i1 %large, %dense
  %good0 = and i1 %large.dense, %even{"".join(apart)}
  br i1 %good{n_in}, label %past, label %through
past:
  %offset = mul i64 %low, {size}
  %first = add i64 %out, %offset
  %less = sub i64 0, %first
  %bytes = and i64 %less, {width - 1}
  %peel = sdiv i64 %bytes, {size}
  %peeled = add i64 %low, %peel
  %start = call i64 @llvm.smin.i64(i64 %peeled, i64 %high)
  call void @run(ptr %args, ptr %steps, i64 %low, i64 %start, i1 false)
  call void @run(ptr %args, ptr %steps, i64 %start, i64 %high, i1 true)
  ret void
through:
  call void @run(ptr %args, ptr %steps, i64 %low, i64 %high, i1 false)
  ret void
}}
declare void @llvm.x86.sse.sfence()
!0 = !{{i32 1}}"""


def entry(name: str, parallel_from: int, machine: Machine) -> str:
    """The inner loop that NumPy calls, and a thread's share of it."""
    # NumPy would turn floating-point flags into warnings, which PyTorch does not give
    keep = "  %flags = alloca i32\n  call void @llvm.x86.sse.stmxcsr(ptr %flags)" if machine.x86 else ""
    back = "  call void @llvm.x86.sse.ldmxcsr(ptr %flags)" if machine.x86 else "  call i32 @feclearexcept(i32 31)"
    declare = (
        "declare void @llvm.x86.sse.stmxcsr(ptr)\ndeclare void @llvm.x86.sse.ldmxcsr(ptr)"
        if machine.x86
        else "declare i32 @feclearexcept(i32)"
    )
    if not machine.openmp:
        return f"""
define void @{name}(ptr %args, ptr %dims, ptr %steps, ptr %data) #0 {{
{keep}
  %n = load i64, ptr %dims
  call void @part(ptr %args, ptr %steps, i64 0, i64 %n, i64 %n)
{back}
  ret void
}}
{declare}"""
    return f"""
define void @{name}(ptr %args, ptr %dims, ptr %steps, ptr %data) #0 {{
entry:
{keep}
  %job = alloca {{ptr, ptr, i64}}
  %n = load i64, ptr %dims
  %large = icmp sge i64 %n, {parallel_from}
  br i1 %large, label %ask, label %alone
ask:
  %threads = load i64, ptr %data
  %several = icmp sgt i64 %threads, 1
  br i1 %several, label %share, label %alone
share:
  %job.steps = getelementptr ptr, ptr %job, i64 1
  %job.n = getelementptr ptr, ptr %job, i64 2
  store ptr %args, ptr %job
  store ptr %steps, ptr %job.steps
  store i64 %n, ptr %job.n
  %count = trunc i64 %threads to i32
  call void @GOMP_parallel(ptr @worker, ptr %job, i32 %count, i32 0)
  br label %end
alone:
  call void @part(ptr %args, ptr %steps, i64 0, i64 %n, i64 %n)
  br label %end
end:
{back}
  ret void
}}
define internal void @worker(ptr %job) #0 {{
  %job.steps = getelementptr ptr, ptr %job, i64 1
  %job.n = getelementptr ptr, ptr %job, i64 2
  %args = load ptr, ptr %job
  %steps = load ptr, ptr %job.steps
  %n = load i64, ptr %job.n
  %me = call i32 @omp_get_thread_num()
  %all = call i32 @omp_get_num_threads()
  %me.64 = sext i32 %me to i64
  %all.64 = sext i32 %all to i64
  %n.up = add i64 %n, %all.64
  %share = sdiv i64 %n.up, %all.64
  %share.up = add i64 %share, 63
  %chunk = and i64 %share.up, -64
  %low = mul i64 %me.64, %chunk
  %far = add i64 %low, %chunk
  %high = call i64 @llvm.smin.i64(i64 %far, i64 %n)
  %any = icmp slt i64 %low, %high
  br i1 %any, label %work, label %end
work:
  call void @part(ptr %args, ptr %steps, i64 %low, i64 %high, i64 %n)
  br label %end
end:
  ret void
}}
declare void @GOMP_parallel(ptr, ptr, i32, i32)
declare i32 @omp_get_thread_num()
declare i32 @omp_get_num_threads()
{declare}"""
