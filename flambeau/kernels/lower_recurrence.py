"""The text of a recurrence: for every step, a product with packed weights and a pointwise cell, in one function.

Rows (of the batch) don't depend on each other, so each thread takes its rows through all steps: nothing is waited
for between the first step and the last. The product goes by panels of columns, which lie one after another in
memory as (inner, columns of the panel), and by tiles: a few rows by a panel, summed in registers in the order of
`inner`. So a value never depends on the number of rows or threads. Columns that don't fill a vector go through
memory of their own: `scratch` (rows, lanes) in the product, buffers on the stack in the cell.

What the function reads is one array of integers, in the order of `HEAD`, then the bytes between rows of each
operand; and a table with the addresses of all operands for each step. Operands are: the left matrix, the result
of the product, the cell's inputs, its outputs.
"""

from __future__ import annotations

from collections.abc import Sequence

from flambeau.kernels.expr import Expr
from flambeau.kernels.lower_llvm import Emitter, Machine, attributes, copier, core_lines, lanes_for

#: Part of every cache key: raise it when the code generated here changes.
VERSION = 5

HEAD = ("threads", "steps", "rows", "inner", "wide", "narrow", "more_columns", "vectors", "more", "weights", "scratch",
        "table")
_POINTERS = ("weights", "scratch", "table")

TYPES = {"float32": ("float", 4), "float64": ("double", 8)}

#: The most rows of a tile.
ROWS = 6


def panel_vectors(machine: Machine) -> int:
    """Vectors in a row of a wide panel: as many as leave the sums of a tile in registers."""
    return 4 if machine.vector_bytes == 64 else 2


def module(name: str, roots: Sequence[Expr], args: Sequence[str], dtype: str, product_first: bool, accumulate: bool,
           machine: Machine) -> str:
    """The text of the module: `name(job)`, of a cell `roots` over `args`.

    With `product_first` a step is the product, then the cell; otherwise the other way round. With `accumulate`
    the product is added to what is there.
    """
    scalar, size = TYPES[dtype]
    lanes, vectors = lanes_for(scalar, machine), panel_vectors(machine)
    emitter = Emitter(scalar, lanes, machine)
    core = core_lines(emitter, roots, args, [dtype] * (len(args) + len(roots)), dense=True)
    tiles = [
        _tile(rows, width, scalar, size, lanes, accumulate) for width in (vectors, 1) for rows in range(1, ROWS + 1)
    ]
    step = [_product(vectors, lanes * size), _cell(len(args), len(roots), size, lanes)]
    return "\n".join(
        [
            *core,
            *tiles,
            _panel(vectors),
            _panel(1),
            copier(size),
            _last_columns(size, lanes),
            _entry(name, step if product_first else step[::-1], len(args) + len(roots) + 2, machine),
            "declare i64 @llvm.smin.i64(i64, i64)",
            "declare void @llvm.prefetch.p0(ptr, i32, i32, i32)",
            *emitter.declarations.values(),
            attributes(machine),
        ]
    )


def _tile(rows: int, width: int, scalar: str, size: int, lanes: int, accumulate: bool) -> str:
    """c (rows, width vectors) = or += a (rows, k) @ b (k, width vectors)."""
    vec = f"<{lanes} x {scalar}>"
    row, column = range(rows), range(width)
    lines = [
        f"define internal void @tile{rows}x{width}(ptr %a, i64 %ra, ptr %b, ptr %c, i64 %rc, i64 %k) #0 {{",
        "entry:",
        f"  %end.at = mul i64 %k, {size}",
    ]
    for r in row:
        lines += [
            f"  %oa{r} = mul i64 %ra, {r}",
            f"  %a{r} = getelementptr i8, ptr %a, i64 %oa{r}",
            f"  %oc{r} = mul i64 %rc, {r}",
            f"  %c{r} = getelementptr i8, ptr %c, i64 %oc{r}",
        ]
        for v in column:
            lines.append(f"  %to{r}.{v} = getelementptr i8, ptr %c{r}, i64 {v * lanes * size}")
            if accumulate:  # what is added in the end is on its way meanwhile
                lines.append(f"  call void @llvm.prefetch.p0(ptr %to{r}.{v}, i32 1, i32 3, i32 1)")
    lines += [
        "  br label %loop",
        "loop:",
        "  %at = phi i64 [0, %entry], [%at.next, %loop]",
        "  %w = phi ptr [%b, %entry], [%w.next, %loop]",
    ]
    for r in row:
        for v in column:
            lines.append(f"  %s{r}.{v} = phi {vec} [zeroinitializer, %entry], [%n{r}.{v}, %loop]")
    for v in column:
        lines += [
            f"  %pw{v} = getelementptr i8, ptr %w, i64 {v * lanes * size}",
            f"  %w{v} = load {vec}, ptr %pw{v}, align {size}",
        ]
    for r in row:
        lines += [
            f"  %pa{r} = getelementptr i8, ptr %a{r}, i64 %at",
            f"  %one{r} = load {scalar}, ptr %pa{r}, align {size}",
            f"  %lane{r} = insertelement {vec} poison, {scalar} %one{r}, i64 0",
            f"  %x{r} = shufflevector {vec} %lane{r}, {vec} poison, <{lanes} x i32> zeroinitializer",
        ]
        for v in column:
            lines += [
                f"  %m{r}.{v} = fmul contract {vec} %x{r}, %w{v}",
                f"  %n{r}.{v} = fadd contract {vec} %s{r}.{v}, %m{r}.{v}",
            ]
    lines += [
        f"  %at.next = add i64 %at, {size}",
        f"  %w.next = getelementptr i8, ptr %w, i64 {width * lanes * size}",
        "  %more = icmp slt i64 %at.next, %end.at",
        "  br i1 %more, label %loop, label %end",
        "end:",
    ]
    for r in row:
        for v in column:
            total = f"%n{r}.{v}"
            if accumulate:
                lines += [
                    f"  %old{r}.{v} = load {vec}, ptr %to{r}.{v}, align {size}",
                    f"  %total{r}.{v} = fadd {vec} %old{r}.{v}, {total}",
                ]
                total = f"%total{r}.{v}"
            lines.append(f"  store {vec} {total}, ptr %to{r}.{v}, align {size}")
    return "\n".join([*lines, "  ret void", "}"])


def _panel(width: int) -> str:
    """All rows by one panel, in tiles of about the same number of rows."""
    sizes = range(1, ROWS + 1)
    cases = "\n".join(
        f"case{m}:\n  call void @tile{m}x{width}(ptr %at.a, i64 %ra, ptr %b, ptr %at.c, i64 %rc, i64 %k)\n"
        "  br label %next"
        for m in sizes
    )
    return f"""
define internal void @panel{width}(ptr %a, i64 %ra, ptr %b, ptr %c, i64 %rc, i64 %k, i64 %rows) #0 {{
entry:
  br label %loop
loop:
  %at.a = phi ptr [%a, %entry], [%a.next, %next]
  %at.c = phi ptr [%c, %entry], [%c.next, %next]
  %left = phi i64 [%rows, %entry], [%left.next, %next]
  %left.up = add i64 %left, {ROWS - 1}
  %tiles = sdiv i64 %left.up, {ROWS}
  %share = add i64 %left, %tiles
  %share.less = sub i64 %share, 1
  %m = sdiv i64 %share.less, %tiles
  switch i64 %m, label %next [{" ".join(f"i64 {m}, label %case{m}" for m in sizes)}]
{cases}
next:
  %by.a = mul i64 %m, %ra
  %a.next = getelementptr i8, ptr %at.a, i64 %by.a
  %by.c = mul i64 %m, %rc
  %c.next = getelementptr i8, ptr %at.c, i64 %by.c
  %left.next = sub i64 %left, %m
  %more = icmp sgt i64 %left.next, 0
  br i1 %more, label %loop, label %end
end:
  ret void
}}"""


def _last_columns(size: int, lanes: int) -> str:
    """The columns of all rows that don't fill a vector."""
    row = lanes * size

    def each(call: str, label: str, before: str) -> str:
        return f"""
{label}:
  %{label}.r = phi i64 [0, %{before}], [%{label}.next, %{label}]
  %{label}.by = mul i64 %{label}.r, %rc
  %{label}.c = getelementptr i8, ptr %c, i64 %{label}.by
  %{label}.s.by = mul i64 %{label}.r, {row}
  %{label}.s = getelementptr i8, ptr %scratch, i64 %{label}.s.by
  call void {call.replace("C", f"ptr %{label}.c").replace("S", f"ptr %{label}.s")}
  %{label}.next = add i64 %{label}.r, 1
  %{label}.more = icmp slt i64 %{label}.next, %rows"""

    return f"""
define internal void @last(ptr %a, i64 %ra, ptr %b, ptr %c, i64 %rc, i64 %k, i64 %rows, ptr %scratch, i64 %n) #0 {{
entry:
  br label %in{each(f"@gather{size}(S, C, i64 {size}, i64 %n, i64 {lanes})", "in", "entry")}
  br i1 %in.more, label %in, label %go
go:
  call void @panel1(ptr %a, i64 %ra, ptr %b, ptr %scratch, i64 {row}, i64 %k, i64 %rows)
  br label %out{each(f"@scatter{size}(C, S, i64 {size}, i64 %n)", "out", "go")}
  br i1 %out.more, label %out, label %end
end:
  ret void
}}"""


def _product(vectors: int, vector_bytes: int) -> str:
    """The product of one step, for the rows of one thread: all wide panels, then all narrow ones."""
    parts = []
    for kind, width, weights, result in (("wide", vectors, "%weights", "%c"), ("narrow", 1, "%w.wide", "%c.wide")):
        bytes_ = width * vector_bytes
        parts.append(f"""
  br label %{kind}.test
{kind}.test:
  %{kind}.i = phi i64 [0, %{"SOURCE" if kind == "wide" else "wide.end"}], [%{kind}.i.next, %{kind}.body]
  %w.{kind} = phi ptr [{weights}, %{"SOURCE" if kind == "wide" else "wide.end"}], [%w.{kind}.next, %{kind}.body]
  %c.{kind} = phi ptr [{result}, %{"SOURCE" if kind == "wide" else "wide.end"}], [%c.{kind}.next, %{kind}.body]
  %{kind}.any = icmp slt i64 %{kind}.i, %{kind}
  br i1 %{kind}.any, label %{kind}.body, label %{kind}.end
{kind}.body:
  call void @panel{width}(ptr %a, i64 %step0, ptr %w.{kind}, ptr %c.{kind}, i64 %step1, i64 %inner, i64 %count)
  %{kind}.bytes = mul i64 %inner, {bytes_}
  %w.{kind}.next = getelementptr i8, ptr %w.{kind}, i64 %{kind}.bytes
  %c.{kind}.next = getelementptr i8, ptr %c.{kind}, i64 {bytes_}
  %{kind}.i.next = add i64 %{kind}.i, 1
  br label %{kind}.test
{kind}.end:""")
    parts.append("""
  %product.more = icmp sgt i64 %more_columns, 0
  br i1 %product.more, label %product.last, label %product.end
product.last:
  call void @last(ptr %a, i64 %step0, ptr %w.narrow, ptr %c.narrow, i64 %step1, i64 %inner, i64 %count, ptr %mine,"""
                 """ i64 %more_columns)
  br label %product.end
product.end:""")
    return "".join(parts)


def _cell(inputs: int, outputs: int, size: int, lanes: int) -> str:
    """The cell of one step, for the rows of one thread, one row after another: whole vectors, then the rest."""
    operands = inputs + outputs
    lines = [
        "  br label %cell",
        "cell:",
        "  %row = phi i64 [%low, %SOURCE], [%row.next, %cell.next]",
    ]
    for k in range(2, operands + 2):
        lines += [
            f"  %by{k} = mul i64 %row, %step{k}",
            f"  %q{k} = getelementptr i8, ptr %o{k}, i64 %by{k}",
        ]
    vector = lanes * size
    passed = ", ".join(f"ptr %q{k}" for k in range(2, operands + 2))
    buffers = ", ".join(f"ptr %buffer{k}" for k in range(2, operands + 2))
    lines += [
        "  %cell.any = icmp sgt i64 %vectors, 0",
        "  br i1 %cell.any, label %cell.whole, label %cell.rest",
        "cell.whole:",
        f"  call void @core({passed}, i64 %vectors)",
        "  br label %cell.rest",
        "cell.rest:",
        "  %cell.more = icmp sgt i64 %more, 0",
        "  br i1 %cell.more, label %cell.last, label %cell.next",
        "cell.last:",
        f"  %done = mul i64 %vectors, {vector}",
        *(f"  %l{k} = getelementptr i8, ptr %q{k}, i64 %done" for k in range(2, operands + 2)),
        *(f"  call void @gather{size}(ptr %buffer{k}, ptr %l{k}, i64 {size}, i64 %more, i64 {lanes})"
          for k in range(2, inputs + 2)),
        f"  call void @core({buffers}, i64 1)",
        *(f"  call void @scatter{size}(ptr %l{k}, ptr %buffer{k}, i64 {size}, i64 %more)"
          for k in range(inputs + 2, operands + 2)),
        "  br label %cell.next",
        "cell.next:",
        "  %row.next = add i64 %row, 1",
        "  %row.more = icmp slt i64 %row.next, %high",
        "  br i1 %row.more, label %cell, label %cell.end",
        "cell.end:",
    ]
    return "\n".join(lines)


def _entry(name: str, step: Sequence[str], operands: int, machine: Machine) -> str:
    """The function that is called, and a thread's share of the work: its rows, from the first step to the last."""
    first, second = step
    first_end, last_end = (part.rsplit("\n", 1)[1].removesuffix(":") for part in step)
    body = first.replace("SOURCE", "step") + "\n" + second.replace("SOURCE", first_end)
    head = []
    for k, field in enumerate(HEAD):
        kind = "ptr" if field in _POINTERS else "i64"
        head += [f"  %{field}.at = getelementptr i64, ptr %job, i64 {k}", f"  %{field} = load {kind}, ptr %{field}.at"]
    for k in range(operands):
        head += [
            f"  %step{k}.at = getelementptr i64, ptr %job, i64 {len(HEAD) + k}",
            f"  %step{k} = load i64, ptr %step{k}.at",
        ]
    load = []
    for k in range(operands):
        load += [f"  %o{k}.at = getelementptr ptr, ptr %line, i64 {k}", f"  %o{k} = load ptr, ptr %o{k}.at"]
    share = f"""
define internal void @share(ptr %job, i64 %me, i64 %all) #0 {{
entry:
{chr(10).join(f"  %buffer{k} = alloca [{machine.vector_bytes} x i8], align 64" for k in range(2, operands))}
{chr(10).join(head)}
  %rows.up = add i64 %rows, %all
  %rows.less = sub i64 %rows.up, 1
  %chunk = sdiv i64 %rows.less, %all
  %low = mul i64 %me, %chunk
  %far = add i64 %low, %chunk
  %high = call i64 @llvm.smin.i64(i64 %far, i64 %rows)
  %count = sub i64 %high, %low
  %mine.by = mul i64 %low, {machine.vector_bytes}
  %mine = getelementptr i8, ptr %scratch, i64 %mine.by
  %any = icmp sgt i64 %count, 0
  br i1 %any, label %step, label %end
step:
  %t = phi i64 [0, %entry], [%t.next, %{last_end}]
  %line = phi ptr [%table, %entry], [%line.next, %{last_end}]
{chr(10).join(load)}
  %a.by = mul i64 %low, %step0
  %a = getelementptr i8, ptr %o0, i64 %a.by
  %c.by = mul i64 %low, %step1
  %c = getelementptr i8, ptr %o1, i64 %c.by
{body}
  %t.next = add i64 %t, 1
  %line.next = getelementptr ptr, ptr %line, i64 {operands}
  %t.more = icmp slt i64 %t.next, %steps
  br i1 %t.more, label %step, label %end
end:
  ret void
}}"""
    alone = "  call void @share(ptr %job, i64 0, i64 1)\n  ret void"
    if not machine.openmp:
        return f"{share}\ndefine void @{name}(ptr %job) #0 {{\n{alone}\n}}"
    return f"""{share}
define void @{name}(ptr %job) #0 {{
  %threads = load i64, ptr %job
  %several = icmp sgt i64 %threads, 1
  br i1 %several, label %together, label %alone
together:
  %count = trunc i64 %threads to i32
  call void @GOMP_parallel(ptr @worker, ptr %job, i32 %count, i32 0)
  ret void
alone:
{alone}
}}
define internal void @worker(ptr %job) #0 {{
  %me = call i32 @omp_get_thread_num()
  %all = call i32 @omp_get_num_threads()
  %me.64 = sext i32 %me to i64
  %all.64 = sext i32 %all to i64
  call void @share(ptr %job, i64 %me.64, i64 %all.64)
  ret void
}}
declare void @GOMP_parallel(ptr, ptr, i32, i32)
declare i32 @omp_get_thread_num()
declare i32 @omp_get_num_threads()"""
