"""Reductions to LLVM: the text of a kernel that maps an expression over arrays and folds the values.

Everything is seen as (outer, reduce, inner). Work is cut into units, each a range of `reduce` and of `inner`
for one `outer`, so that a unit's result never depends on which thread computes it. Both ways to fold, along
rows (inner is 1) and down columns, are one loop over vectors that differ in the step between them. Sums of
float32, float16 and bfloat16 are kept in float64, which costs nothing where memory is the limit.
"""

from __future__ import annotations

from collections.abc import Sequence

from flambeau.kernels.expr import Expr
from flambeau.kernels.lower_llvm import COMPUTE, STORAGE, Emitter, Machine, copier, expand, lanes_for

#: Part of every cache key: raise it when the code generated here changes.
VERSION = 2

IDENTITY = {"sum": 0.0, "prod": 1.0, "max": float("-inf"), "min": float("inf")}

#: Places in the job, an array of int64: what `reduce.py` fills in. Pointers to inputs, pointers to outputs,
#: and for each input the steps of outer and reduce, follow.
JOB = ("threads", "units", "parts", "part", "reduce", "strips", "strip", "inner")


def fold(emitter: Emitter, op: str, kind: str, a: str, b: str) -> str:
    """The text of one step, `a op b`, on values of LLVM type `kind`."""
    if op in ("sum", "prod"):
        return emitter.emit(f"{'fadd' if op == 'sum' else 'fmul'} {kind} {a}, {b}")
    mask = kind.replace("double", "i1").replace("float", "i1")
    wins = emitter.emit(f"fcmp {'ogt' if op == 'max' else 'olt'} {kind} {a}, {b}")
    nan = emitter.emit(f"fcmp uno {kind} {a}, {a}")
    take = emitter.emit(f"or {mask} {wins}, {nan}")
    return emitter.emit(f"select {mask} {take}, {kind} {a}, {kind} {b}")


def module(
    name: str,
    roots: Sequence[Expr],
    args: Sequence[str],
    dtypes: Sequence[str],
    result: str,
    op: str,
    machine: Machine,
    wide: bool,
) -> str:
    """The text of the module: `roots` of `args`, which have `dtypes`, folded with `op` to dtype `result`.

    `wide`: compute in float64 before folding too.
    """
    compute = "double" if wide else COMPUTE[dtypes[0]]
    kept = "double" if op in ("sum", "prod") else compute  # the type of accumulators
    lanes = lanes_for(compute, machine)
    inputs, outputs = range(len(args)), range(len(roots))
    sizes = [STORAGE[d].size for d in dtypes]
    acc = f"<{lanes} x {kept}>"
    roots = expand(roots)
    e = Emitter(compute, lanes, machine)

    def values(step: str) -> list[str]:
        loaded = {a: e.load(f"%{step}{k}", dtypes[k]) for k, a in enumerate(args)}
        return [e.number(v) for v in e.lower(roots, loaded)]

    def accumulate(into: list[str], new: list[str], valid: str | None) -> list[str]:
        result = []
        for old, value in zip(into, new, strict=True):
            if kept != compute:
                value = e.emit(f"fpext {e.vec} {value} to {acc}")
            if valid:
                e.t, before = kept, e.t
                value = e.emit(f"select {e.mask} {valid}, {acc} {value}, {acc} {e.constant(IDENTITY[op])}")
                e.t = before
            result.append(fold(e, op, acc, old, value))
        return result

    # four vectors at a time, folded with one another first, where there are as many; then one at a time
    e.lines += [f"  %x{k} = phi ptr [%a{k}, %entry], [%y{k}, %fours]" for k in inputs]
    e.lines += [f"  %f{j} = phi {acc} [%old{j}, %entry], [%g{j}, %fours]" for j in outputs]
    e.lines += [
        f"  %x{m}_{k} = getelementptr i8, ptr %x{m - 1 if m > 1 else ''}{'_' if m > 1 else ''}{k}, i64 %s{k}"
        for m in (1, 2, 3)
        for k in inputs
    ]
    four = [values(f"x{m}_" if m else "x") for m in range(4)]
    if op == "prod":  # narrow products of a few may overflow where the whole does not
        totals = [f"%f{j}" for j in outputs]
        for step in four:
            totals = accumulate(totals, step, None)
    else:
        both = [[fold(e, op, e.vec, a, b) for a, b in zip(*pair, strict=True)] for pair in (four[:2], four[2:])]
        totals = accumulate(
            [f"%f{j}" for j in outputs], [fold(e, op, e.vec, a, b) for a, b in zip(*both, strict=True)], None
        )
    e.lines += [f"  %g{j} = select i1 true, {acc} {t}, {acc} {t}" for j, t in enumerate(totals)]
    e.lines += [f"  %y{k} = getelementptr i8, ptr %x3_{k}, i64 %s{k}" for k in inputs]
    fours, e.lines = e.lines, []
    totals = accumulate([f"%acc{j}" for j in outputs], values("p"), "%valid")
    e.lines += [f"  %next{j} = select i1 true, {acc} {t}, {acc} {t}" for j, t in enumerate(totals)]

    pointers = ", ".join(f"ptr %a{k}, i64 %s{k}" for k in inputs)
    core = [
        # `count` vectors, of which the first `width` lanes count, into the accumulators at %state
        f"define internal void @core({pointers}, i64 %count, i64 %width, ptr %state) #1 {{",
        "entry:",
        *(
            f"  %state{j} = getelementptr {acc}, ptr %state, i64 {j}\n  %old{j} = load {acc}, ptr %state{j}, align 8"
            for j in outputs
        ),
        "  %width.32 = trunc i64 %width to i32",
        f"  %one = insertelement <{lanes} x i32> poison, i32 %width.32, i64 0",
        f"  %widths = shufflevector <{lanes} x i32> %one, <{lanes} x i32> poison, <{lanes} x i32> zeroinitializer",
        f"  %valid = icmp slt <{lanes} x i32> <{', '.join(f'i32 {i}' for i in range(lanes))}>, %widths",
        "  %many = icmp sge i64 %count, 4",
        "  br i1 %many, label %fours, label %rest",
        "fours:",
        "  %left = phi i64 [%count, %entry], [%left.next, %fours]",
        *fours,
        "  %left.next = sub i64 %left, 4",
        "  %again = icmp sge i64 %left.next, 4",
        "  br i1 %again, label %fours, label %rest",
        "rest:",
        "  %few = phi i64 [%count, %entry], [%left.next, %fours]",
        *(f"  %z{k} = phi ptr [%a{k}, %entry], [%y{k}, %fours]" for k in inputs),
        *(f"  %h{j} = phi {acc} [%old{j}, %entry], [%g{j}, %fours]" for j in outputs),
        "  %any = icmp sgt i64 %few, 0",
        "  br i1 %any, label %loop, label %end",
        "loop:",
        "  %i = phi i64 [%few, %rest], [%i.next, %loop]",
        *(f"  %p{k} = phi ptr [%z{k}, %rest], [%n{k}, %loop]" for k in inputs),
        *(f"  %acc{j} = phi {acc} [%h{j}, %rest], [%next{j}, %loop]" for j in outputs),
        *e.lines,
        *(f"  %n{k} = getelementptr i8, ptr %p{k}, i64 %s{k}" for k in inputs),
        "  %i.next = sub i64 %i, 1",
        "  %done = icmp eq i64 %i.next, 0",
        "  br i1 %done, label %end, label %loop",
        "end:",
        *(f"  %final{j} = phi {acc} [%h{j}, %rest], [%next{j}, %loop]" for j in outputs),
        *(f"  store {acc} %final{j}, ptr %state{j}, align 8" for j in outputs),
        "  ret void",
        "}",
    ]

    f = Emitter(kept, lanes, machine)
    state = 8 * lanes * len(roots)
    identity = f.constant(IDENTITY[op])
    fields = [
        f"  %{field}.at = getelementptr i64, ptr %job, i64 {i}\n  %{field} = load i64, ptr %{field}.at"
        for i, field in enumerate(JOB)
    ]

    def field(name: str, index: int, kind: str) -> list[str]:
        return [
            f"  %{name}.at = getelementptr i64, ptr %job, i64 {len(JOB) + index}",
            f"  %{name} = load {kind}, ptr %{name}.at",
        ]

    for k in inputs:
        fields += field(f"in{k}", k, "ptr")
    for j in outputs:
        fields += field(f"out{j}", len(args) + j, "ptr")
    for k in inputs:
        fields += field(f"outer{k}", len(args) + len(roots) + 2 * k, "i64")
        fields += field(f"step{k}", len(args) + len(roots) + 2 * k + 1, "i64")

    def clear(where: str) -> list[str]:
        lines = []
        for j in outputs:
            lines += [
                f"  %{where}{j} = getelementptr {acc}, ptr %{where}, i64 {j}",
                f"  store {acc} {identity}, ptr %{where}{j}, align 8",
            ]
        return lines

    # along rows: whole vectors, then the last elements through buffers, then across the lanes
    row = [
        "row:",
        *clear("row.state"),
        f"  %vectors = sdiv i64 %n, {lanes}",
        "  %some = icmp sgt i64 %vectors, 0",
        "  br i1 %some, label %row.whole, label %row.rest",
        "row.whole:",
        "  call void @core("
        + ", ".join(f"ptr %q{k}, i64 {lanes * sizes[k]}" for k in inputs)
        + f", i64 %vectors, i64 {lanes}, ptr %row.state)",
        "  br label %row.rest",
        "row.rest:",
        f"  %taken = mul i64 %vectors, {lanes}",
        "  %left = sub i64 %n, %taken",
        "  %more = icmp sgt i64 %left, 0",
        "  br i1 %more, label %row.tail, label %row.done",
        "row.tail:",
    ]
    for k in inputs:
        row += [
            f"  %gone{k} = mul i64 %taken, {sizes[k]}",
            f"  %t{k} = getelementptr i8, ptr %q{k}, i64 %gone{k}",
            f"  call void @gather{sizes[k]}(ptr %buffer{k}, ptr %t{k}, i64 {sizes[k]}, i64 %left, i64 {lanes})",
        ]
    row += [
        "  call void @core("
        + ", ".join(f"ptr %buffer{k}, i64 0" for k in inputs)
        + ", i64 1, i64 %left, ptr %row.state)",
        "  br label %row.done",
        "row.done:",
    ]
    for j in outputs:
        value = f.emit(f"load {acc}, ptr %row.state{j}, align 8")
        width = lanes
        while width > 1:
            half, kind = width // 2, f"<{width} x {kept}>"
            parts = [
                f.emit(
                    f"shufflevector {kind} {value}, {kind} poison, <{half} x i32> <{', '.join(f'i32 {i}' for i in r)}>"
                )
                for r in (range(half), range(half, width))
            ]
            value, width = fold(f, op, f"<{half} x {kept}>", *parts), half
        f.lines.append(f"  %slot{j} = getelementptr {STORAGE[result].llvm}, ptr %out{j}, i64 %place")
        one = Emitter(kept, 1, machine)
        one.lines, one.count = f.lines, f.count
        one.store((value, False), f"%slot{j}", result)
        f.count = one.count
    row += [*f.lines, "  br label %advance"]

    # down columns: strips of vectors over blocks of rows; the last vector of a strip lies back over its
    # neighbour
    column = [
        "column:",
        "  %c.low = mul i64 %s, %strip",
        "  %c.far = add i64 %c.low, %strip",
        "  %c.high = call i64 @llvm.smin.i64(i64 %c.far, i64 %inner)",
        f"  %c.last = sub i64 %c.high, {lanes}",
        "  %base = mul i64 %place, %inner",
        "  br label %tile",
        "tile:",
        "  %c = phi i64 [%c.low, %column], [%c.next, %tile]",
        "  %c.at = call i64 @llvm.smin.i64(i64 %c, i64 %c.last)",
        *clear("state"),
    ]
    for k in inputs:
        column += [
            f"  %co{k} = mul i64 %c.at, {sizes[k]}",
            f"  %cp{k} = getelementptr i8, ptr %q{k}, i64 %co{k}",
        ]
    column += [
        "  call void @core("
        + ", ".join(f"ptr %cp{k}, i64 %step{k}" for k in inputs)
        + f", i64 %n, i64 {lanes}, ptr %state)",
        "  %slot = add i64 %base, %c.at",
    ]
    f.lines = []
    for j in outputs:
        value = f.emit(f"load {acc}, ptr %state{j}, align 8")
        f.lines.append(f"  %w{j} = getelementptr {STORAGE[result].llvm}, ptr %out{j}, i64 %slot")
        f.store((value, False), f"%w{j}", result)
    column += f.lines
    column += [
        f"  %c.next = add i64 %c, {lanes}",
        "  %c.more = icmp slt i64 %c.next, %c.high",
        "  br i1 %c.more, label %tile, label %advance",
    ]

    work = [
        "define internal void @work(ptr %job, i64 %low, i64 %high) #0 {",
        "entry:",
        *(f"  %buffer{k} = alloca [{lanes * sizes[k]} x i8], align 64" for k in inputs),
        f"  %state = alloca [{state} x i8], align 64",
        f"  %row.state = alloca [{state} x i8], align 64",
        *fields,
        "  %rows = icmp eq i64 %inner, 1",
        "  %any = icmp slt i64 %low, %high",
        "  br i1 %any, label %unit, label %end",
        "unit:",
        "  %u = phi i64 [%low, %entry], [%u.next, %advance]",
        "  %s = srem i64 %u, %strips",
        "  %place = sdiv i64 %u, %strips",
        "  %b = srem i64 %place, %parts",
        "  %o = sdiv i64 %place, %parts",
        "  %r.low = mul i64 %b, %part",
        "  %r.left = sub i64 %reduce, %r.low",
        "  %n = call i64 @llvm.smin.i64(i64 %r.left, i64 %part)",
    ]
    for k in inputs:
        work += [
            f"  %om{k} = mul i64 %o, %outer{k}",
            f"  %rm{k} = mul i64 %r.low, %step{k}",
            f"  %om.rm{k} = add i64 %om{k}, %rm{k}",
            f"  %q{k} = getelementptr i8, ptr %in{k}, i64 %om.rm{k}",
        ]
    work += [
        "  br i1 %rows, label %row, label %column",
        *row,
        *column,
        "advance:",
        "  %u.next = add i64 %u, 1",
        "  %u.more = icmp slt i64 %u.next, %high",
        "  br i1 %u.more, label %unit, label %end",
        "end:",
        "  ret void",
        "}",
    ]

    attributes = f'"prefer-vector-width"="{8 * machine.vector_bytes}" "min-legal-vector-width"="512"'
    return "\n".join(
        [
            *core,
            *work,
            *(copier(s) for s in sorted(set(sizes))),
            entry(name, machine),
            "declare i64 @llvm.smin.i64(i64, i64)",
            *e.declarations.values(),
            f"attributes #0 = {{ nounwind {attributes} }}",
            f"attributes #1 = {{ nounwind noinline alignstack={machine.vector_bytes} {attributes} }}",
        ]
    )


def entry(name: str, machine: Machine) -> str:
    """The function called from outside: all units on one thread, or shared."""
    if not machine.openmp:
        return f"""
define void @{name}(ptr %job) #0 {{
  %units.at = getelementptr i64, ptr %job, i64 1
  %units = load i64, ptr %units.at
  call void @work(ptr %job, i64 0, i64 %units)
  ret void
}}"""
    return f"""
define void @{name}(ptr %job) #0 {{
entry:
  %threads = load i64, ptr %job
  %several = icmp sgt i64 %threads, 1
  br i1 %several, label %share, label %alone
share:
  %count = trunc i64 %threads to i32
  call void @GOMP_parallel(ptr @worker, ptr %job, i32 %count, i32 0)
  ret void
alone:
  %units.at = getelementptr i64, ptr %job, i64 1
  %units = load i64, ptr %units.at
  call void @work(ptr %job, i64 0, i64 %units)
  ret void
}}
define internal void @worker(ptr %job) #0 {{
  %units.at = getelementptr i64, ptr %job, i64 1
  %units = load i64, ptr %units.at
  %me = call i32 @omp_get_thread_num()
  %all = call i32 @omp_get_num_threads()
  %me.64 = sext i32 %me to i64
  %all.64 = sext i32 %all to i64
  %next = add i64 %me.64, 1
  %from = mul i64 %units, %me.64
  %to = mul i64 %units, %next
  %low = sdiv i64 %from, %all.64
  %high = sdiv i64 %to, %all.64
  call void @work(ptr %job, i64 %low, i64 %high)
  ret void
}}
declare void @GOMP_parallel(ptr, ptr, i32, i32)
declare i32 @omp_get_thread_num()
declare i32 @omp_get_num_threads()"""
