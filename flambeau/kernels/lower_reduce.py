"""Reductions to LLVM: the text of a kernel that maps an expression over arrays and folds the values.

Everything is seen as (outer, reduce, inner). Work is cut into units, each a range of `reduce` and of `inner` for one
`outer`, so that a unit's result never depends on which thread computes it. Both ways to fold, along rows
(inner is 1) and down columns, are one loop over vectors that differ in the step between them. Sums of float32,
float16 and bfloat16 are kept in float64, which costs nothing where memory is the limit.
"""

from __future__ import annotations

from collections.abc import Sequence

from flambeau.kernels.expr import Expr
from flambeau.kernels.lower_llvm import COMPUTE, STORAGE, Emitter, Machine, copier, expand, lanes_for

#: Part of every cache key: raise it when the code generated here changes.
VERSION = 1

IDENTITY = {"sum": 0.0, "prod": 1.0, "max": float("-inf"), "min": float("inf")}

#: Places in the job, an array of int64: what `reduce.py` fills in. Pointers to inputs, pointers to outputs, and
#: for each input the steps of outer and reduce, follow.
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
    name: str, roots: Sequence[Expr], args: Sequence[str], dtypes: Sequence[str], op: str, machine: Machine, wide: bool
) -> str:
    """The text of the module: `roots` of `args` (of `dtypes`, kernels' dtype first) folded with `op` to float64.

    `wide`: compute in float64 before folding too.
    """
    compute = "double" if wide else COMPUTE[dtypes[0]]
    lanes = lanes_for(compute, machine)
    inputs, outputs = range(len(args)), range(len(roots))
    sizes = [STORAGE[d].size for d in dtypes]
    acc = f"<{lanes} x double>"
    e = Emitter(compute, lanes, machine)
    values = {a: e.load(f"%p{k}", dtypes[k]) for k, a in enumerate(args)}
    for j, value in enumerate(e.lower(expand(roots), values)):
        text = e.number(value)
        if compute == "float":
            text = e.emit(f"fpext {e.vec} {text} to {acc}")
        e.t = "double"
        identity = e.constant(IDENTITY[op])
        text = e.emit(f"select {e.mask} %valid, {acc} {text}, {acc} {identity}")
        e.lines.append(f"  %next{j} = " + "bitcast " + f"{acc} {fold(e, op, acc, f'%acc{j}', text)} to {acc}")
        e.t = compute
    pointers = ", ".join(f"ptr %a{k}, i64 %s{k}" for k in inputs)
    core = [
        # `count` vectors, of which the first `width` lanes count, into the accumulators at %state
        f"define internal void @core({pointers}, i64 %count, i64 %width, ptr %state) #1 {{", "entry:",
        *(f"  %state{j} = getelementptr {acc}, ptr %state, i64 {j}\n  %old{j} = load {acc}, ptr %state{j}, align 8"
          for j in outputs),
        "  %width.32 = trunc i64 %width to i32",
        f"  %one = insertelement <{lanes} x i32> poison, i32 %width.32, i64 0",
        f"  %widths = shufflevector <{lanes} x i32> %one, <{lanes} x i32> poison, <{lanes} x i32> zeroinitializer",
        f"  %valid = icmp slt <{lanes} x i32> <{', '.join(f'i32 {i}' for i in range(lanes))}>, %widths",
        "  br label %loop", "loop:", "  %i = phi i64 [%count, %entry], [%i.next, %loop]",
        *(f"  %p{k} = phi ptr [%a{k}, %entry], [%n{k}, %loop]" for k in inputs),
        *(f"  %acc{j} = phi {acc} [%old{j}, %entry], [%next{j}, %loop]" for j in outputs),
        *e.lines,
        *(f"  %n{k} = getelementptr i8, ptr %p{k}, i64 %s{k}" for k in inputs),
        "  %i.next = sub i64 %i, 1", "  %done = icmp eq i64 %i.next, 0", "  br i1 %done, label %end, label %loop",
        "end:", *(f"  store {acc} %next{j}, ptr %state{j}, align 8" for j in outputs), "  ret void", "}",
    ]  # fmt: skip

    f = Emitter("double", lanes, machine)
    state = 8 * lanes * len(roots)
    identity = f.constant(IDENTITY[op])
    fields = [f"  %{field}.at = getelementptr i64, ptr %job, i64 {i}\n  %{field} = load i64, ptr %{field}.at"
              for i, field in enumerate(JOB)]  # fmt: skip

    def field(name: str, index: int, kind: str) -> list[str]:
        return [f"  %{name}.at = getelementptr i64, ptr %job, i64 {len(JOB) + index}",
                f"  %{name} = load {kind}, ptr %{name}.at"]  # fmt: skip

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
            lines += [f"  %{where}{j} = getelementptr {acc}, ptr %{where}, i64 {j}",
                      f"  store {acc} {identity}, ptr %{where}{j}, align 8"]  # fmt: skip
        return lines

    # along rows: whole vectors, then the last elements through buffers, then across the lanes
    row = [
        "row:", *clear("row.state"), f"  %vectors = sdiv i64 %n, {lanes}", "  %some = icmp sgt i64 %vectors, 0",
        "  br i1 %some, label %row.whole, label %row.rest", "row.whole:",
        "  call void @core(" + ", ".join(f"ptr %q{k}, i64 {lanes * sizes[k]}" for k in inputs)
        + f", i64 %vectors, i64 {lanes}, ptr %row.state)", "  br label %row.rest", "row.rest:",
        f"  %taken = mul i64 %vectors, {lanes}", "  %left = sub i64 %n, %taken", "  %more = icmp sgt i64 %left, 0",
        "  br i1 %more, label %row.tail, label %row.done", "row.tail:",
    ]  # fmt: skip
    for k in inputs:
        row += [f"  %gone{k} = mul i64 %taken, {sizes[k]}", f"  %t{k} = getelementptr i8, ptr %q{k}, i64 %gone{k}",
                f"  call void @gather{sizes[k]}(ptr %buffer{k}, ptr %t{k}, i64 {sizes[k]}, i64 %left, i64 {lanes})"]  # fmt: skip
    row += [
        "  call void @core(" + ", ".join(f"ptr %buffer{k}, i64 0" for k in inputs)
        + ", i64 1, i64 %left, ptr %row.state)", "  br label %row.done", "row.done:",
    ]  # fmt: skip
    for j in outputs:
        value = f.emit(f"load {acc}, ptr %row.state{j}, align 8")
        width = lanes
        while width > 1:
            half, kind = width // 2, f"<{width} x double>"
            parts = [
                f.emit(f"shufflevector {kind} {value}, {kind} poison, <{half} x i32> <{', '.join(f'i32 {i}' for i in r)}>")
                for r in (range(half), range(half, width))
            ]
            value, width = fold(f, op, f"<{half} x double>", *parts), half
        scalar = f.emit(f"extractelement <1 x double> {value}, i64 0")
        f.lines += [f"  %slot{j} = getelementptr double, ptr %out{j}, i64 %place", f"  store double {scalar}, ptr %slot{j}"]
    row += [*f.lines, "  br label %advance"]

    # down columns: strips of vectors over blocks of rows; the last vector of a strip lies back over its neighbour
    column = [
        "column:", "  %c.low = mul i64 %s, %strip", "  %c.far = add i64 %c.low, %strip",
        "  %c.high = call i64 @llvm.smin.i64(i64 %c.far, i64 %inner)", f"  %c.last = sub i64 %c.high, {lanes}",
        "  %base = mul i64 %place, %inner", "  br label %tile", "tile:",
        "  %c = phi i64 [%c.low, %column], [%c.next, %tile]",
        "  %c.at = call i64 @llvm.smin.i64(i64 %c, i64 %c.last)",
        *clear("state"),
    ]  # fmt: skip
    for k in inputs:
        column += [f"  %co{k} = mul i64 %c.at, {sizes[k]}", f"  %cp{k} = getelementptr i8, ptr %q{k}, i64 %co{k}"]
    column += [
        "  call void @core(" + ", ".join(f"ptr %cp{k}, i64 %step{k}" for k in inputs)
        + f", i64 %n, i64 {lanes}, ptr %state)",
        "  %slot = add i64 %base, %c.at",
    ]  # fmt: skip
    for j in outputs:
        column += [f"  %r{j} = load {acc}, ptr %state{j}, align 8", f"  %w{j} = getelementptr double, ptr %out{j}, i64 %slot",
                   f"  store {acc} %r{j}, ptr %w{j}, align 8"]  # fmt: skip
    column += [f"  %c.next = add i64 %c, {lanes}", "  %c.more = icmp slt i64 %c.next, %c.high",
               "  br i1 %c.more, label %tile, label %advance"]  # fmt: skip

    work = [
        "define internal void @work(ptr %job, i64 %low, i64 %high) #0 {", "entry:",
        *(f"  %buffer{k} = alloca [{lanes * sizes[k]} x i8], align 64" for k in inputs),
        f"  %state = alloca [{state} x i8], align 64", f"  %row.state = alloca [{state} x i8], align 64",
        *fields, "  %rows = icmp eq i64 %inner, 1", "  %any = icmp slt i64 %low, %high",
        "  br i1 %any, label %unit, label %end", "unit:", "  %u = phi i64 [%low, %entry], [%u.next, %advance]",
        "  %s = srem i64 %u, %strips", "  %place = sdiv i64 %u, %strips", "  %b = srem i64 %place, %parts",
        "  %o = sdiv i64 %place, %parts", "  %r.low = mul i64 %b, %part",
        "  %r.left = sub i64 %reduce, %r.low", "  %n = call i64 @llvm.smin.i64(i64 %r.left, i64 %part)",
    ]  # fmt: skip
    for k in inputs:
        work += [f"  %om{k} = mul i64 %o, %outer{k}", f"  %rm{k} = mul i64 %r.low, %step{k}", f"  %om.rm{k} = add i64 %om{k}, %rm{k}",
                 f"  %q{k} = getelementptr i8, ptr %in{k}, i64 %om.rm{k}"]  # fmt: skip
    work += ["  br i1 %rows, label %row, label %column", *row, *column, "advance:", "  %u.next = add i64 %u, 1",
             "  %u.more = icmp slt i64 %u.next, %high", "  br i1 %u.more, label %unit, label %end", "end:",
             "  ret void", "}"]  # fmt: skip

    width = f'"prefer-vector-width"="{8 * machine.vector_bytes}" "min-legal-vector-width"="512"'
    return "\n".join([
        *core, *work, *(copier(s) for s in sorted(set(sizes))), entry(name, machine),
        "declare i64 @llvm.smin.i64(i64, i64)", *e.declarations.values(),
        f"attributes #0 = {{ nounwind {width} }}",
        f"attributes #1 = {{ nounwind noinline alignstack={machine.vector_bytes} {width} }}",
    ])  # fmt: skip


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
