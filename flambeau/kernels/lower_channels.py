"""Loops over channels-last images to LLVM: pointwise work, and sums, with numbers of their own for each channel.

What the jobs hold is said here; `channels.py` fills them in.
"""

from __future__ import annotations

from collections.abc import Sequence

from flambeau.kernels.channels import BLOCKS, UNIT
from flambeau.kernels.expr import Expr
from flambeau.kernels.lower_llvm import COMPUTE, STORAGE, Emitter, Machine, attributes, expand, lanes_for
from flambeau.kernels.lower_reduce import entry

#: Part of the cache key: raise it when the code generated here changes.
VERSION = 2

#: The job, an array of int64: these, then the address of each image, of the result, and of each channel's numbers.
JOB = ("threads", "units", "vectors", "round")
#: The job of sums: `rows` of `round` bytes, `per` of them a block; addresses as above.
SUMS = ("threads", "units", "rows", "round", "per")


def _fields(names: Sequence[str], operands: int) -> list[str]:
    """Reading the job: the fields of these names, and the operands' addresses, p0, p1, ..."""
    lines = []
    for i, (label, kind) in enumerate([*((f, "i64") for f in names), *((f"p{k}", "ptr") for k in range(operands))]):
        lines += [f"  %{label}.at = getelementptr i64, ptr %job, i64 {i}", f"  %{label} = load {kind}, ptr %{label}.at"]
    return lines


def module(
    name: str, roots: Sequence[Expr], images: Sequence[str], numbers: Sequence[str], dtype: str, machine: Machine
) -> str:
    """The text of the module: one expression, a loop over whole vectors, from any vector on."""
    lanes, size = lanes_for(COMPUTE[dtype], machine), STORAGE[dtype].size
    step = lanes * size
    e = Emitter(COMPUTE[dtype], lanes, machine)
    names = [*images, "", *numbers]  # "": the result
    values = {}
    for k, n in enumerate(names):
        offset = "%at" if k <= len(images) else "%turn"
        e.lines.append(f"  %q{k} = getelementptr i8, ptr %p{k}, i64 {offset}")
        if n:
            values[n] = e.load(f"%q{k}", dtype)
    (value,) = e.lower(expand(roots), values)
    e.store(value, f"%q{len(images)}", dtype)
    return "\n".join([
        "define internal void @work(ptr %job, i64 %low, i64 %high) #0 {",
        "entry:",
        *_fields(JOB, len(names)),
        f"  %from = mul i64 %low, {UNIT}",
        f"  %far = mul i64 %high, {UNIT}",
        "  %to = call i64 @llvm.smin.i64(i64 %far, i64 %vectors)",
        f"  %first = mul i64 %from, {step}",
        f"  %last = mul i64 %to, {step}",
        "  %where = srem i64 %first, %round",
        "  %any = icmp slt i64 %first, %last",
        "  br i1 %any, label %loop, label %end",
        "loop:",
        "  %at = phi i64 [%first, %entry], [%at.next, %loop]",
        "  %turn = phi i64 [%where, %entry], [%turn.next, %loop]",
        *e.lines,
        f"  %at.next = add i64 %at, {step}",
        f"  %turn.on = add i64 %turn, {step}",
        "  %around = icmp eq i64 %turn.on, %round",
        "  %turn.next = select i1 %around, i64 0, i64 %turn.on",
        "  %more = icmp slt i64 %at.next, %last",
        "  br i1 %more, label %loop, label %end",
        "end:",
        "  ret void",
        "}",
        entry(name, machine),
        "declare i64 @llvm.smin.i64(i64, i64)",
        *e.declarations.values(),
        attributes(machine),
    ])  # fmt: skip


def sums_module(
    name: str, roots: Sequence[Expr], images: Sequence[str], numbers: Sequence[str], dtype: str, machine: Machine
) -> str:
    """The text of the module: units of blocks, in each of which every vector of a round runs down the rows, four at a
    time, in registers, and is added to the unit's sums."""
    lanes, size = lanes_for(COMPUTE[dtype], machine), STORAGE[dtype].size
    step, outputs = lanes * size, range(len(roots))
    e = Emitter(COMPUTE[dtype], lanes, machine)
    wide, sums = f"<{lanes} x double>", len(images)  # the place of the sums among the operands
    roots = expand(roots)

    def add(a: str, b: str) -> str:
        return e.emit(f"fadd {e.vec} {a}, {b}")

    def values(row: str) -> list[str]:
        loaded = dict(known)
        for k, n in enumerate(images):
            loaded[n] = e.load(e.emit(f"getelementptr i8, ptr %start{k}, i64 {row}"), dtype)
        return [e.number(v) for v in e.lower(roots, loaded)]

    known = {}
    for k, n in enumerate(numbers):
        known[n] = e.load(e.emit(f"getelementptr i8, ptr %p{sums + 1 + k}, i64 %turn"), dtype)
    constants, e.lines = e.lines, []
    four = [values(f"%row{m}") for m in range(4)]
    e.lines += [f"  %four.next{m}_{j} = fadd {e.vec} %four{m}_{j}, {four[m][j]}" for m in range(4) for j in outputs]
    fours, e.lines = e.lines, []
    e.lines += [f"  %one.next{j} = fadd {e.vec} %one{j}, {v}" for j, v in enumerate(values("%row"))]
    ones, e.lines = e.lines, []
    for j in outputs:
        pairs = [add(*(f"%rest{m}_{j}" for m in p)) for p in ((0, 1), (2, 3))]
        e.lines.append(f"  %start.one{j} = fadd {e.vec} {pairs[0]}, {pairs[1]}")
    joined, e.lines = e.lines, []
    for j in outputs:
        value = f"%total{j}" if e.t == "double" else e.emit(f"fpext {e.vec} %total{j} to {wide}")
        at = e.emit(f"getelementptr i8, ptr %into{j}, i64 %turn.wide")
        old = e.emit(f"load {wide}, ptr {at}, align 8")
        new = e.emit(f"fadd {wide} {old}, {value}")
        e.lines.append(f"  store {wide} {new}, ptr {at}, align 8")
    stored = e.lines
    return "\n".join([
        "define internal void @work(ptr %job, i64 %low, i64 %high) #0 {",
        "entry:",
        *_fields(SUMS, sums + 1 + len(numbers)),
        f"  %unit.rows = mul i64 %per, {BLOCKS}",
        f"  %sums.width = mul i64 %round, {8 // size}",
        f"  %unit.width = mul i64 %sums.width, {len(roots)}",
        "  %round2 = mul i64 %round, 2",
        "  %round3 = mul i64 %round, 3",
        "  %round4 = mul i64 %round, 4",
        "  %any = icmp slt i64 %low, %high",
        "  br i1 %any, label %unit, label %end",
        "unit:",
        "  %u = phi i64 [%low, %entry], [%u.next, %unit.done]",
        "  %u.from = mul i64 %u, %unit.rows",
        "  %u.far = add i64 %u.from, %unit.rows",
        "  %u.to = call i64 @llvm.smin.i64(i64 %u.far, i64 %rows)",
        "  %u.at = mul i64 %u, %unit.width",
        f"  %into0 = getelementptr i8, ptr %p{sums}, i64 %u.at",
        *(f"  %into{j} = getelementptr i8, ptr %into{j - 1}, i64 %sums.width" for j in outputs if j),
        "  br label %block",
        "block:",
        "  %b = phi i64 [%u.from, %unit], [%b.next, %block.done]",
        "  %b.next = add i64 %b, %per",
        "  %b.to = call i64 @llvm.smin.i64(i64 %b.next, i64 %u.to)",
        "  %n = sub i64 %b.to, %b",
        "  %b.at = mul i64 %b, %round",
        "  br label %vector",
        "vector:",
        "  %turn = phi i64 [0, %block], [%turn.next, %vector.done]",
        f"  %turn.wide = mul i64 %turn, {8 // size}",
        "  %first = add i64 %b.at, %turn",
        *(f"  %start{k} = getelementptr i8, ptr %p{k}, i64 %first" for k in range(len(images))),
        *constants,
        "  %many = icmp sge i64 %n, 4",
        "  br i1 %many, label %fours, label %rest",
        "fours:",
        "  %i = phi i64 [%n, %vector], [%i.next, %fours]",
        "  %row0 = phi i64 [0, %vector], [%row.next, %fours]",
        *(f"  %four{m}_{j} = phi {e.vec} [zeroinitializer, %vector], [%four.next{m}_{j}, %fours]"
          for m in range(4) for j in outputs),
        "  %row1 = add i64 %row0, %round",
        "  %row2 = add i64 %row0, %round2",
        "  %row3 = add i64 %row0, %round3",
        *fours,
        "  %row.next = add i64 %row0, %round4",
        "  %i.next = sub i64 %i, 4",
        "  %again = icmp sge i64 %i.next, 4",
        "  br i1 %again, label %fours, label %rest",
        "rest:",
        "  %few = phi i64 [%n, %vector], [%i.next, %fours]",
        "  %row.rest = phi i64 [0, %vector], [%row.next, %fours]",
        *(f"  %rest{m}_{j} = phi {e.vec} [zeroinitializer, %vector], [%four.next{m}_{j}, %fours]"
          for m in range(4) for j in outputs),
        *joined,
        "  %some = icmp sgt i64 %few, 0",
        "  br i1 %some, label %ones, label %vector.done",
        "ones:",
        "  %o = phi i64 [%few, %rest], [%o.next, %ones]",
        "  %row = phi i64 [%row.rest, %rest], [%row.after, %ones]",
        *(f"  %one{j} = phi {e.vec} [%start.one{j}, %rest], [%one.next{j}, %ones]" for j in outputs),
        *ones,
        "  %row.after = add i64 %row, %round",
        "  %o.next = sub i64 %o, 1",
        "  %o.more = icmp sgt i64 %o.next, 0",
        "  br i1 %o.more, label %ones, label %vector.done",
        "vector.done:",
        *(f"  %total{j} = phi {e.vec} [%start.one{j}, %rest], [%one.next{j}, %ones]" for j in outputs),
        *stored,
        f"  %turn.next = add i64 %turn, {step}",
        "  %turn.more = icmp slt i64 %turn.next, %round",
        "  br i1 %turn.more, label %vector, label %block.done",
        "block.done:",
        "  %b.more = icmp slt i64 %b.next, %u.to",
        "  br i1 %b.more, label %block, label %unit.done",
        "unit.done:",
        "  %u.next = add i64 %u, 1",
        "  %u.more = icmp slt i64 %u.next, %high",
        "  br i1 %u.more, label %unit, label %end",
        "end:",
        "  ret void",
        "}",
        entry(name, machine),
        "declare i64 @llvm.smin.i64(i64, i64)",
        *e.declarations.values(),
        attributes(machine),
    ])  # fmt: skip
